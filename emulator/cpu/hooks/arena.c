/* Guest-physical memory: one NORESERVE mapping cut into frames.
 *
 * Anonymous frames are refcounted one by one; a run of frames behind a host file (or a shared object) belongs to a
 * `Frames` handle.  A frame whose code was translated is reported stale when it is given away.
 */
#include "hooks.h"
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static Arena *guarded; /* the arena the SIGBUS guard protects: one machine a process */
static struct sigaction previous_sigbus;

/* mmap(2): an access beyond the end of the mapped file raises SIGBUS.  Only async-signal-safe calls here. */
static void on_sigbus(int number, siginfo_t *info, void *context)
{
    Arena *a = guarded;
    uint8_t *p = info->si_addr;
    if (a && a->base && p >= a->base && p < a->base + (a->capacity << PAGE_SHIFT)) {
        uint64_t frame = (uint64_t)(p - a->base) >> PAGE_SHIFT;
        if (mmap(frame_host(a, frame), PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
            MAP_FAILED) {
            a->flags[frame] |= F_BUS;
            a->bus_frame = frame + 1;
            if (a->limit_of_core) {
                *a->attention_of_core = 1;
                *a->limit_of_core = 0;
            }
            return;
        }
    }
    if (previous_sigbus.sa_flags & SA_SIGINFO)
        previous_sigbus.sa_sigaction(number, info, context);
    else if (previous_sigbus.sa_handler != SIG_DFL && previous_sigbus.sa_handler != SIG_IGN)
        previous_sigbus.sa_handler(number);
    else
        signal(SIGBUS, SIG_DFL);
}

static void guard(Arena *a)
{
    if (!guarded) {
        struct sigaction act;
        memset(&act, 0, sizeof act);
        act.sa_sigaction = on_sigbus;
        act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
        sigaction(SIGBUS, &act, &previous_sigbus);
    }
    guarded = a;
}

static void *reserve(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

bool arena_note_stale(Arena *a, uint64_t frame)
{
    a->fences++;
    if (a->n_stale == a->cap_stale) {
        size_t cap = a->cap_stale ? a->cap_stale * 2 : 64;
        uint64_t *p = cap > 4096 ? NULL : PyMem_RawRealloc(a->stale, cap * sizeof *p);
        if (!p) {
            a->stale_all = true;
            return true;
        }
        a->stale = p;
        a->cap_stale = cap;
    }
    a->stale[a->n_stale++] = frame;
    return true;
}

/* A zeroed frame with one reference; 0 when memory is exhausted (frame 0 is the shared zero page). */
uint64_t arena_new_frame(Arena *a, bool zero)
{
    uint64_t f;
    if (a->used >= a->limit)
        return 0;
    if (a->n_free) {
        f = a->free_frames[--a->n_free];
        if (zero)
            memset(frame_host(a, f), 0, PAGE);
    } else {
        if (a->next >= a->top)
            return 0;
        f = a->next++;
    }
    a->refs[f] = 1;
    a->flags[f] = 0;
    a->used++;
    return f;
}

void arena_release_frame(Arena *a, uint64_t f)
{
    if (--a->refs[f])
        return;
    if (a->flags[f] & F_RAN)
        arena_note_stale(a, f);
    a->used--;
    if (a->n_free == a->cap_free) {
        size_t cap = a->cap_free ? a->cap_free * 2 : 1024;
        uint64_t *p = PyMem_RawRealloc(a->free_frames, cap * sizeof *p);
        if (!p)
            return; /* the frame is lost, nothing else */
        a->free_frames = p;
        a->cap_free = cap;
    }
    a->free_frames[a->n_free++] = f;
}

/* Give the host back what the last `count` released frames hold, if they are many; they read as zeroes afterwards. */
void arena_trim(Arena *a, size_t count)
{
    if (count < 64 || count > a->n_free)
        return;
    size_t i = a->n_free - count;
    while (i < a->n_free) {
        size_t j = i + 1;
        int64_t step = j < a->n_free ? (int64_t)(a->free_frames[j] - a->free_frames[i]) : 0;
        if (step == 1 || step == -1)
            while (j < a->n_free && (int64_t)(a->free_frames[j] - a->free_frames[j - 1]) == step)
                j++;
        uint64_t lo = step == -1 ? a->free_frames[j - 1] : a->free_frames[i];
        madvise(frame_host(a, lo), (j - i) << PAGE_SHIFT, MADV_DONTNEED);
        i = j;
    }
}

/* A run of frames for a Frames handle; 0 when the arena is full. */
static uint64_t new_run(Arena *a, uint64_t count)
{
    for (size_t i = 0; i < a->n_runs; i++) {
        Run *r = &a->free_runs[i];
        if (r->count < count)
            continue;
        uint64_t base = r->base;
        r->base += count;
        r->count -= count;
        if (!r->count)
            *r = a->free_runs[--a->n_runs];
        return base;
    }
    if (count > a->top - a->next)
        return 0;
    return a->top -= count;
}

static void free_run(Arena *a, uint64_t base, uint64_t count)
{
    for (uint64_t f = base; f < base + count; f++) {
        if (a->flags[f] & F_RAN)
            arena_note_stale(a, f);
        if (a->flags[f])
            a->flags[f] = 0;
    }
    mmap(frame_host(a, base), count << PAGE_SHIFT, PROT_READ | PROT_WRITE,
         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
    for (size_t i = 0; i < a->n_runs; i++) {
        Run *r = &a->free_runs[i];
        if (r->base + r->count == base) {
            r->count += count;
            return;
        }
        if (base + count == r->base) {
            r->base = base;
            r->count += count;
            return;
        }
    }
    if (a->n_runs == a->cap_runs) {
        size_t cap = a->cap_runs ? a->cap_runs * 2 : 16;
        Run *p = PyMem_RawRealloc(a->free_runs, cap * sizeof *p);
        if (!p)
            return;
        a->free_runs = p;
        a->cap_runs = cap;
    }
    a->free_runs[a->n_runs++] = (Run){base, count};
}

/* ---- Python: Arena --------------------------------------------------------------------------------------------- */

static void raise_errno(int number)
{
    errno = number;
    PyErr_SetFromErrno(PyExc_OSError);
}

/* emulator.errors.LinuxError with the errno of that name. */
void raise_linux_error(const char *name)
{
    PyObject *errors = PyImport_ImportModule("emulator.errors");
    PyObject *numbers = PyImport_ImportModule("emulator.abi.errno");
    PyObject *type = errors ? PyObject_GetAttrString(errors, "LinuxError") : NULL;
    PyObject *names = numbers ? PyObject_GetAttrString(numbers, "E") : NULL;
    PyObject *member = names ? PyObject_GetAttrString(names, name) : NULL;
    PyObject *error = type && member ? PyObject_CallOneArg(type, member) : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(member);
    Py_XDECREF(names);
    Py_XDECREF(type);
    Py_XDECREF(numbers);
    Py_XDECREF(errors);
}

static PyObject *arena_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"limit_frames", "capacity_frames", NULL};
    PyObject *limit = Py_None;
    unsigned long long capacity = (uint64_t)1 << 26; /* 256 GiB */
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "|OK", names, &limit, &capacity))
        return NULL;
    Arena *a = (Arena *)type->tp_alloc(type, 0);
    if (!a)
        return NULL;
    a->limit = UINT64_MAX;
    if (limit != Py_None) {
        a->limit = PyLong_AsUnsignedLongLong(limit);
        if (PyErr_Occurred()) {
            Py_DECREF(a);
            return NULL;
        }
    }
    for (; capacity >= 1024; capacity /= 2) { /* a host with strict overcommit gives less */
        a->base = reserve(capacity << PAGE_SHIFT);
        if (a->base)
            break;
    }
    a->capacity = capacity;
    a->refs = a->base ? reserve(capacity * sizeof *a->refs) : NULL;
    a->flags = a->base ? reserve(capacity) : NULL;
    if (!a->base || !a->refs || !a->flags) {
        Py_DECREF(a);
        return PyErr_NoMemory();
    }
    /* Frames that pages own are handed out from the bottom, one after the other: huge pages fit them, and random access
     * needs them.  Runs come from the top: a sparse shared object must cost what is touched. */
    madvise(a->base, capacity << PAGE_SHIFT, MADV_HUGEPAGE);
    a->next = 1;
    a->top = capacity;
    guard(a);
    return (PyObject *)a;
}

static void arena_dealloc(Arena *a)
{
    if (guarded == a)
        guarded = NULL;
    if (a->base)
        munmap(a->base, a->capacity << PAGE_SHIFT);
    if (a->refs)
        munmap(a->refs, a->capacity * sizeof *a->refs);
    if (a->flags)
        munmap(a->flags, a->capacity);
    PyMem_RawFree(a->free_frames);
    PyMem_RawFree(a->free_runs);
    PyMem_RawFree(a->stale);
    Py_TYPE(a)->tp_free((PyObject *)a);
}

static PyObject *arena_used_frames(Arena *a, PyObject *unused)
{
    return PyLong_FromUnsignedLongLong(a->used);
}

static Frames *new_frames(Arena *a, uint64_t count)
{
    if (!count) {
        raise_errno(EINVAL);
        return NULL;
    }
    uint64_t base = new_run(a, count);
    if (!base) {
        raise_linux_error("ENOMEM");
        return NULL;
    }
    Frames *f = (Frames *)FramesType.tp_alloc(&FramesType, 0);
    if (!f) {
        free_run(a, base, count);
        return NULL;
    }
    Py_INCREF(a);
    f->arena = a;
    f->base = base;
    f->count = count;
    return f;
}

/* Private mappings of an unchanged file are the same frames again, so that what was translated of a library or a
 * program serves the next process too.  The last few are kept although nobody maps them. */
static bool same_file(const Kept *k, const struct stat *st, long long offset, long long count)
{
    return k->frames && k->st.st_dev == st->st_dev && k->st.st_ino == st->st_ino && k->st.st_size == st->st_size &&
           !memcmp(&k->st.st_mtim, &st->st_mtim, sizeof st->st_mtim) &&
           !memcmp(&k->st.st_ctim, &st->st_ctim, sizeof st->st_ctim) && k->offset == offset && k->count == count;
}

static void keep_file(Arena *a, const struct stat *st, long long offset, Frames *f)
{
    Kept *k = &a->kept[a->next_kept++ % MAX_KEPT];
    Frames *old = k->frames;
    Py_INCREF(f);
    *k = (Kept){*st, offset, (long long)f->count, f};
    Py_XDECREF(old);
}

static PyObject *arena_map_file(Arena *a, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"host_fd", "offset", "n_pages", "shared", "writable", NULL};
    int fd, shared, writable;
    long long offset, count;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "iLLpp", names, &fd, &offset, &count, &shared, &writable))
        return NULL;
    struct stat st;
    bool keep = !shared && !fstat(fd, &st) && S_ISREG(st.st_mode);
    for (size_t i = 0; keep && i < MAX_KEPT; i++)
        if (same_file(&a->kept[i], &st, offset, count)) {
            Py_INCREF(a->kept[i].frames);
            return (PyObject *)a->kept[i].frames;
        }
    Frames *f = new_frames(a, count > 0 ? (uint64_t)count : 0);
    if (!f)
        return NULL;
    /* A private mapping is only read here; copy-on-write is the page table's business. */
    int prot = PROT_READ | (shared && writable ? PROT_WRITE : 0);
    if (mmap(frame_host(a, f->base), f->count << PAGE_SHIFT, prot, (shared ? MAP_SHARED : MAP_PRIVATE) | MAP_FIXED, fd,
             offset) == MAP_FAILED) {
        int number = errno;
        Py_DECREF(f);
        raise_errno(number);
        return NULL;
    }
    f->file = true;
    if (keep)
        keep_file(a, &st, offset, f);
    return (PyObject *)f;
}

static PyObject *arena_shared_anonymous(Arena *a, PyObject *args)
{
    long long count;
    if (!PyArg_ParseTuple(args, "L", &count))
        return NULL;
    Frames *f = new_frames(a, count > 0 ? (uint64_t)count : 0);
    if (f)
        madvise(frame_host(a, f->base), f->count << PAGE_SHIFT, MADV_NOHUGEPAGE);
    return (PyObject *)f;
}

/* Drop the kept file mappings; they hold the arena, so somebody has to. */
static PyObject *arena_forget_files(Arena *a, PyObject *unused)
{
    for (size_t i = 0; i < MAX_KEPT; i++)
        Py_CLEAR(a->kept[i].frames);
    Py_RETURN_NONE;
}

static PyObject *arena_get_limit(Arena *a, void *unused)
{
    if (a->limit == UINT64_MAX)
        Py_RETURN_NONE;
    return PyLong_FromUnsignedLongLong(a->limit);
}

static PyObject *arena_get_base(Arena *a, void *unused) { return PyLong_FromVoidPtr(a->base); }
static PyObject *arena_get_capacity(Arena *a, void *unused) { return PyLong_FromUnsignedLongLong(a->capacity); }

static PyMethodDef arena_methods[] = {
    {"used_frames", (PyCFunction)arena_used_frames, METH_NOARGS, "Anonymous frames in use."},
    {"map_file", (PyCFunction)(void *)arena_map_file, METH_VARARGS | METH_KEYWORDS,
     "Map part of a host file into a run of frames; OSError as mmap(2)."},
    {"forget_files", (PyCFunction)arena_forget_files, METH_NOARGS, "Drop file mappings kept for the next process."},
    {"shared_anonymous", (PyCFunction)arena_shared_anonymous, METH_VARARGS, "A run of zero frames that can be shared."},
    {NULL}};

static PyGetSetDef arena_getset[] = {{"limit_frames", (getter)arena_get_limit, NULL, "Frames that may be used.", NULL},
                                     {"base", (getter)arena_get_base, NULL, "Host address.", NULL},
                                     {"capacity", (getter)arena_get_capacity, NULL, "Frames it has.", NULL},
                                     {NULL}};

PyTypeObject ArenaType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.Arena",
    .tp_basicsize = sizeof(Arena),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = arena_new,
    .tp_dealloc = (destructor)arena_dealloc,
    .tp_methods = arena_methods,
    .tp_getset = arena_getset,
    .tp_doc = "Frames of guest-physical memory.",
};

/* ---- Python: Frames -------------------------------------------------------------------------------------------- */

static void frames_dealloc(Frames *f)
{
    free_run(f->arena, f->base, f->count);
    Py_DECREF(f->arena);
    Py_TYPE(f)->tp_free((PyObject *)f);
}

static PyObject *frames_view(Frames *f, PyObject *unused)
{
    return PyMemoryView_FromMemory((char *)frame_host(f->arena, f->base), (Py_ssize_t)(f->count << PAGE_SHIFT),
                                   f->file ? PyBUF_READ : PyBUF_WRITE);
}

static PyObject *frames_get_count(Frames *f, void *unused) { return PyLong_FromUnsignedLongLong(f->count); }

static PyMethodDef frames_methods[] = {
    {"view", (PyCFunction)frames_view, METH_NOARGS, "The memory itself; use it only while the handle lives."}, {NULL}};
static PyGetSetDef frames_getset[] = {{"count", (getter)frames_get_count, NULL, "Pages.", NULL}, {NULL}};

PyTypeObject FramesType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.Frames",
    .tp_basicsize = sizeof(Frames),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION,
    .tp_dealloc = (destructor)frames_dealloc,
    .tp_methods = frames_methods,
    .tp_getset = frames_getset,
    .tp_doc = "A run of frames behind a host file or a shared object.",
};

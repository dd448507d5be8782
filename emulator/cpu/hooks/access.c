/* Guest memory from the kernel's and the debugger's side; the PageTable type. */
#include "table.h"
#include <string.h>

static void *raise_fault(uint64_t address, int access, enum Touch why)
{
    if (why == T_NOMEM) {
        raise_linux_error("ENOMEM");
        return NULL;
    }
    PyObject *errors = PyImport_ImportModule("emulator.errors");
    PyObject *abi = PyImport_ImportModule("emulator.abi.memory");
    PyObject *type = errors ? PyObject_GetAttrString(errors, "MemoryFault") : NULL;
    PyObject *kinds = abi ? PyObject_GetAttrString(abi, "Access") : NULL;
    PyObject *kind = kinds ? PyObject_CallFunction(kinds, "i", access) : NULL;
    PyObject *error = type && kind ? PyObject_CallFunction(type, "KOO", (unsigned long long)address, kind,
                                                           why == T_UNMAPPED ? Py_False : Py_True)
                                   : NULL;
    if (error)
        PyErr_SetObject(type, error);
    Py_XDECREF(error);
    Py_XDECREF(kind);
    Py_XDECREF(kinds);
    Py_XDECREF(type);
    Py_XDECREF(abi);
    Py_XDECREF(errors);
    return NULL;
}

/* Host pointer to `address` for up to the end of its page; a store tells the engines and the watchpoints. */
static uint8_t *reach(Table *t, uint64_t address, int access, bool force, enum Touch *why)
{
    uint64_t pte;
    *why = table_touch(t, address, access, force, true, &pte);
    if (*why != T_OK)
        return NULL;
    Arena *a = t->arena;
    uint64_t frame = PTE_FRAME(pte);
    if (access & P_WRITE && UNLIKELY(a->flags[frame] & F_RAN))
        arena_note_stale(a, frame);
    return frame_host(a, frame) + (address & PAGE_MASK);
}

/* The SIGBUS guard put a zero page under us: the guest pointer is bad. */
static bool bus_broke(Arena *a)
{
    if (LIKELY(!a->bus_frame))
        return false;
    a->bus_frame = 0;
    return true;
}

static PyObject *read_some(Table *t, uint64_t address, Py_ssize_t n, bool force, bool partial)
{
    if (n < 0) {
        PyErr_SetString(PyExc_ValueError, "negative length");
        return NULL;
    }
    if (!partial && (address > TOP || (uint64_t)n > TOP - address) && n) /* before allocating an absurd length */
        return raise_fault(address >= TOP ? address : TOP, P_READ, T_UNMAPPED);
    if (partial && (address >= TOP || (uint64_t)n > TOP - address))
        n = address >= TOP ? 0 : (Py_ssize_t)(TOP - address);
    enum Touch why;
    if (n > (1 << 20)) { /* look before allocating: huge lengths come from guests */
        uint64_t at = address;
        while (at < address + (uint64_t)n && reach(t, at, P_READ, force, &why))
            at = (at & ~PAGE_MASK) + PAGE;
        if (at < address + (uint64_t)n) {
            if (!partial)
                return raise_fault(at, P_READ, why);
            n = at > address ? (Py_ssize_t)(at - address) : 0;
        }
    }
    PyObject *out = PyBytes_FromStringAndSize(NULL, n);
    if (!out)
        return NULL;
    char *to = PyBytes_AS_STRING(out);
    Py_ssize_t done = 0;
    while (done < n) {
        uint64_t at = address + (uint64_t)done;
        uint8_t *p = reach(t, at, P_READ, force, &why);
        if (!p)
            break;
        Py_ssize_t chunk = (Py_ssize_t)(PAGE - (at & PAGE_MASK));
        if (chunk > n - done)
            chunk = n - done;
        memcpy(to + done, p, (size_t)chunk);
        if (bus_broke(t->arena)) {
            why = T_BUS;
            break;
        }
        done += chunk;
    }
    if (done < n) {
        if (!partial) {
            Py_DECREF(out);
            return raise_fault(address + (uint64_t)done, P_READ, why);
        }
        _PyBytes_Resize(&out, done);
    }
    return out;
}

/* (addr, what, *, force=False), the hottest signature here: by hand, because PyArg_ParseTupleAndKeywords takes longer
 * than the access. */
static bool parse_access(PyObject *const *args, Py_ssize_t n, PyObject *names, uint64_t *address, int *force)
{
    Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
    if (n != 2 || named > 1 || (named && PyUnicode_CompareWithASCIIString(PyTuple_GET_ITEM(names, 0), "force"))) {
        PyErr_SetString(PyExc_TypeError, "two arguments and the keyword force are taken");
        return false;
    }
    *address = PyLong_AsUnsignedLongLongMask(args[0]);
    *force = named ? PyObject_IsTrue(args[2]) : 0;
    return *force >= 0 && !PyErr_Occurred();
}

static PyObject *parse_and_read(Table *t, PyObject *const *args, Py_ssize_t count, PyObject *names, bool partial)
{
    uint64_t address;
    int force;
    if (!parse_access(args, count, names, &address, &force))
        return NULL;
    Py_ssize_t n = PyLong_AsSsize_t(args[1]);
    return n == -1 && PyErr_Occurred() ? NULL : read_some(t, address, n, force, partial);
}

static PyObject *table_read(Table *t, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return parse_and_read(t, args, n, names, false);
}

static PyObject *table_read_partial(Table *t, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    return parse_and_read(t, args, n, names, true);
}

bool table_read_u32(Table *t, uint64_t address, uint32_t *value)
{
    enum Touch why;
    uint8_t *p = (address & PAGE_MASK) > PAGE - sizeof *value ? NULL : reach(t, address, P_READ, false, &why);
    if (p)
        memcpy(value, p, sizeof *value);
    return p && !bus_broke(t->arena);
}

static PyObject *table_read_uint(Table *t, PyObject *const *args, Py_ssize_t n)
{
    if (n != 3)
        return PyErr_Format(PyExc_TypeError, "read_uint(addr, size, big_endian)");
    uint64_t address = PyLong_AsUnsignedLongLongMask(args[0]), size = PyLong_AsUnsignedLongLong(args[1]), value = 0;
    int big = PyObject_IsTrue(args[2]);
    if (big < 0 || PyErr_Occurred())
        return NULL;
    if (size > sizeof value)
        return PyErr_Format(PyExc_ValueError, "at most 8 bytes");
    for (uint64_t i = 0; i < size;) {
        enum Touch why;
        uint8_t *p = reach(t, address + i, P_READ, false, &why);
        if (!p)
            return raise_fault(address + i, P_READ, why);
        for (uint64_t room = PAGE - ((address + i) & PAGE_MASK); room && i < size; room--, i++, p++)
            value |= (uint64_t)*p << 8 * (big ? size - 1 - i : i);
        if (bus_broke(t->arena))
            return raise_fault(address, P_READ, T_BUS);
    }
    return PyLong_FromUnsignedLongLong(value);
}

static PyObject *table_read_cstring(Table *t, PyObject *args)
{
    unsigned long long address;
    Py_ssize_t limit;
    if (!PyArg_ParseTuple(args, "Kn", &address, &limit))
        return NULL;
    enum Touch why;
    PyObject *out = PyBytes_FromStringAndSize(NULL, 0);
    for (Py_ssize_t done = 0; out && done < limit;) {
        uint64_t at = address + (uint64_t)done;
        uint8_t *p = reach(t, at, P_READ, false, &why);
        if (!p) {
            Py_DECREF(out);
            return raise_fault(at, P_READ, why);
        }
        size_t room = PAGE - (at & PAGE_MASK);
        if ((Py_ssize_t)room > limit - done)
            room = (size_t)(limit - done);
        uint8_t *nul = memchr(p, 0, room);
        Py_ssize_t chunk = nul ? nul - p : (Py_ssize_t)room;
        PyBytes_ConcatAndDel(&out, PyBytes_FromStringAndSize((char *)p, chunk));
        if (nul)
            return out;
        done += chunk;
    }
    Py_XDECREF(out);
    if (!PyErr_Occurred())
        PyErr_SetString(PyExc_ValueError, "no NUL within the limit");
    return NULL;
}

static PyObject *table_write(Table *t, PyObject *const *args, Py_ssize_t n, PyObject *names)
{
    uint64_t address;
    Py_buffer data;
    int force;
    if (!parse_access(args, n, names, &address, &force) || PyObject_GetBuffer(args[1], &data, PyBUF_SIMPLE))
        return NULL;
    enum Touch why = T_OK;
    Py_ssize_t done = 0;
    while (done < data.len) {
        uint64_t at = address + (uint64_t)done;
        uint8_t *p = reach(t, at, P_WRITE, force, &why);
        if (!p)
            break;
        Py_ssize_t chunk = (Py_ssize_t)(PAGE - (at & PAGE_MASK));
        if (chunk > data.len - done)
            chunk = data.len - done;
        memcpy(p, (char *)data.buf + done, (size_t)chunk);
        if (bus_broke(t->arena)) {
            why = T_BUS;
            break;
        }
        done += chunk;
    }
    bool whole = done == data.len;
    PyBuffer_Release(&data);
    if (done && t->n_watches && !force && !table_note_store(t, address, (uint64_t)done))
        return NULL;
    if (!whole)
        return raise_fault(address + (uint64_t)done, P_WRITE, why);
    Py_RETURN_NONE;
}

static PyObject *table_buffers(Table *t, PyObject *args)
{
    unsigned long long address;
    Py_ssize_t n;
    PyObject *access;
    if (!PyArg_ParseTuple(args, "KnO", &address, &n, &access))
        return NULL;
    PyObject *number = PyObject_GetAttrString(access, "_value_");
    if (!number)
        return NULL;
    int kind = (int)PyLong_AsLong(number);
    Py_DECREF(number);
    if (PyErr_Occurred())
        return NULL;
    PyObject *out = PyList_New(0);
    uint8_t *run = NULL;
    Py_ssize_t length = 0, done = 0;
    while (out && done <= n) {
        uint8_t *p = NULL;
        Py_ssize_t chunk = 0;
        if (done < n) {
            uint64_t at = address + (uint64_t)done;
            enum Touch why;
            p = reach(t, at, kind, false, &why);
            if (!p) {
                Py_DECREF(out);
                return raise_fault(at, kind, why);
            }
            chunk = (Py_ssize_t)(PAGE - (at & PAGE_MASK));
            if (chunk > n - done)
                chunk = n - done;
        }
        if (run && p == run + length) {
            length += chunk;
        } else {
            if (run) {
                PyObject *view = PyMemoryView_FromMemory((char *)run, length, kind & P_WRITE ? PyBUF_WRITE : PyBUF_READ);
                if (!view || PyList_Append(out, view))
                    Py_CLEAR(out);
                Py_XDECREF(view);
            }
            run = p;
            length = chunk;
        }
        if (done == n)
            break;
        done += chunk;
    }
    if (out && kind & P_WRITE && t->n_watches && !table_note_store(t, address, (uint64_t)n))
        Py_CLEAR(out);
    return out;
}

static PyObject *table_invalidate_code(Table *t, PyObject *args)
{
    unsigned long long start, length;
    if (!PyArg_ParseTuple(args, "KK", &start, &length))
        return NULL;
    for (uint64_t at = start & ~PAGE_MASK; at < TOP && at < start + length; at += PAGE) {
        uint64_t pte = table_entry(t, at);
        if (pte && t->arena->flags[PTE_FRAME(pte)] & F_RAN)
            arena_note_stale(t->arena, PTE_FRAME(pte));
    }
    Py_RETURN_NONE;
}

static PyObject *table_get_arena(Table *t, void *unused)
{
    Py_INCREF(t->arena);
    return (PyObject *)t->arena;
}

#define KW METH_VARARGS | METH_KEYWORDS
#define FAST_KW METH_FASTCALL | METH_KEYWORDS
static PyMethodDef table_methods[] = {
    {"map_anonymous", (PyCFunction)table_map_anonymous, METH_VARARGS, "Private demand-zero memory."},
    {"map_frames", (PyCFunction)(void *)table_map_frames, KW, "Map frames; private ones are copied on write."},
    {"unmap", (PyCFunction)table_unmap, METH_VARARGS, "munmap(2)."},
    {"protect", (PyCFunction)table_protect, METH_VARARGS, "mprotect(2)."},
    {"move", (PyCFunction)table_move, METH_VARARGS, "mremap(2) to another place."},
    {"discard", (PyCFunction)table_discard, METH_VARARGS, "madvise(MADV_DONTNEED)."},
    {"fork", (PyCFunction)table_fork, METH_NOARGS, "A copy-on-write copy."},
    {"destroy", (PyCFunction)table_destroy, METH_NOARGS, "Give everything back."},
    {"resident", (PyCFunction)table_resident, METH_VARARGS, "A byte a page: 1 present, 2 dirty, 4 private copy."},
    {"read", (PyCFunction)(void *)table_read, FAST_KW, "Bytes; MemoryFault at the first bad one."},
    {"read_partial", (PyCFunction)(void *)table_read_partial, FAST_KW, "As many bytes as are readable."},
    {"read_uint", (PyCFunction)(void *)table_read_uint, METH_FASTCALL, "An unsigned number of up to 8 bytes."},
    {"read_cstring", (PyCFunction)table_read_cstring, METH_VARARGS, "A string without its NUL."},
    {"write", (PyCFunction)(void *)table_write, FAST_KW, "Store bytes; MemoryFault at the first bad one."},
    {"buffers", (PyCFunction)table_buffers, METH_VARARGS, "Host views of guest memory."},
    {"take_hits", (PyCFunction)table_take_hits, METH_NOARGS, "Kernel-side stores into watched ranges."},
    {"insert_point", (PyCFunction)table_insert_point, METH_VARARGS, "Breakpoint."},
    {"remove_point", (PyCFunction)table_remove_point, METH_VARARGS, "Remove a breakpoint."},
    {"insert_watch", (PyCFunction)table_insert_watch, METH_VARARGS, "Watchpoint."},
    {"remove_watch", (PyCFunction)table_remove_watch, METH_VARARGS, "Remove a watchpoint."},
    {"invalidate_code", (PyCFunction)table_invalidate_code, METH_VARARGS, "The host changed code here."},
    {NULL}};

static PyGetSetDef table_getset[] = {{"arena", (getter)table_get_arena, NULL, "Where its frames live.", NULL}, {NULL}};

PyTypeObject TableType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.PageTable",
    .tp_basicsize = sizeof(Table),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = table_new,
    .tp_dealloc = (destructor)table_dealloc,
    .tp_methods = table_methods,
    .tp_getset = table_getset,
    .tp_doc = "One address space.",
};

/* What changes whole ranges of a page table (mmap(2), mprotect(2), mremap(2), fork(2)), and its life. */
#include "table.h"
#include <string.h>

static uint32_t serials;

uint32_t fresh_serial(void) { return ++serials; }

static bool code_in_range(const Table *t, uint64_t start, uint64_t end)
{
    for (size_t i = table_region_index(t, start); i < t->n_regions && t->regions[i].start < end; i++)
        if (t->regions[i].prot & P_EXEC)
            return true;
    return false;
}

static void drop_pages(Table *t, uint64_t start, uint64_t end, bool keep_shared)
{
    Arena *a = t->arena;
    size_t released = 0;
    bool any = false;
    uint64_t *e;
    for (uint64_t at = start; (e = table_next_slot(t, &at, end)); at += PAGE) {
        if (!(*e & PTE_PRESENT) || (keep_shared && *e & PTE_SHARED))
            continue;
        any = true;
        if (*e & PTE_PRIVATE) {
            size_t before = a->n_free;
            arena_release_frame(a, PTE_FRAME(*e));
            released += a->n_free - before;
        }
        *e = 0;
    }
    if (any)
        t->epoch++;
    arena_trim(a, released);
}

static bool do_unmap(Table *t, uint64_t start, uint64_t end)
{
    if (!table_split(t, start) || !table_split(t, end))
        return false;
    size_t i = table_region_index(t, start), j = i;
    if (i == t->n_regions || t->regions[i].start >= end)
        return true;
    if (code_in_range(t, start, end))
        t->serial = fresh_serial();
    drop_pages(t, start, end, false);
    while (j < t->n_regions && t->regions[j].start < end)
        Py_XDECREF(t->regions[j++].frames);
    memmove(&t->regions[i], &t->regions[j], (t->n_regions - j) * sizeof *t->regions);
    t->n_regions -= j - i;
    return true;
}

/* PROT_WRITE or PROT_EXEC imply readable, as on x86 and arm64 hardware without execute-only memory. */
static uint32_t effective(long prot) { return prot & P_ALL ? ((uint32_t)prot & P_ALL) | P_READ : 0; }

static bool check_range(unsigned long long start, unsigned long long length)
{
    if (start & PAGE_MASK || length & PAGE_MASK || !length || start >= TOP || length > TOP - start) {
        PyErr_Format(PyExc_ValueError, "bad page range %llx+%llx", start, length);
        return false;
    }
    return true;
}

#define NOMEM_UNLESS(x) \
    do { \
        if (!(x)) { \
            raise_linux_error("ENOMEM"); \
            return NULL; \
        } \
    } while (0)

PyObject *table_map_anonymous(Table *t, PyObject *args)
{
    unsigned long long start, length;
    long prot;
    if (!PyArg_ParseTuple(args, "KKl", &start, &length, &prot) || !check_range(start, length))
        return NULL;
    NOMEM_UNLESS(do_unmap(t, start, start + length));
    size_t at = table_region_index(t, start);
    NOMEM_UNLESS(table_insert_region(t, at, (Region){start, start + length, effective(prot), false, NULL, 0, UINT64_MAX}));
    table_join(t, at);
    Py_RETURN_NONE;
}

PyObject *table_map_frames(Table *t, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"start", "length", "prot", "frames", "first_page", "shared", "valid_pages", NULL};
    unsigned long long start, length, first, valid;
    long prot;
    int shared;
    Frames *frames;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "KKlO!K$pK", names, &start, &length, &prot, &FramesType, &frames,
                                     &first, &shared, &valid) ||
        !check_range(start, length))
        return NULL;
    NOMEM_UNLESS(do_unmap(t, start, start + length));
    uint64_t end = valid > UINT64_MAX - first ? UINT64_MAX : first + valid;
    NOMEM_UNLESS(table_insert_region(t, table_region_index(t, start),
                               (Region){start, start + length, effective(prot), shared, frames, first, end}));
    Py_RETURN_NONE;
}

PyObject *table_unmap(Table *t, PyObject *args)
{
    unsigned long long start, length;
    if (!PyArg_ParseTuple(args, "KK", &start, &length) || !check_range(start, length))
        return NULL;
    NOMEM_UNLESS(do_unmap(t, start, start + length));
    Py_RETURN_NONE;
}

PyObject *table_protect(Table *t, PyObject *args)
{
    unsigned long long start, length;
    long raw;
    if (!PyArg_ParseTuple(args, "KKl", &start, &length, &raw) || !check_range(start, length))
        return NULL;
    uint64_t end = start + length, *e;
    uint32_t prot = effective(raw);
    NOMEM_UNLESS(table_split(t, start) && table_split(t, end));
    if (code_in_range(t, start, end) || prot & P_EXEC)
        t->serial = fresh_serial();
    size_t first = table_region_index(t, start);
    for (size_t i = first; i < t->n_regions && t->regions[i].start < end; i++)
        t->regions[i].prot = prot;
    bool lost = false;
    for (uint64_t at = start; (e = table_next_slot(t, &at, end)); at += PAGE)
        if (*e & PTE_PRESENT) {
            lost |= (*e & P_ALL & ~(uint64_t)prot) != 0;
            *e = (*e & ~(uint64_t)P_ALL) | prot;
        }
    if (lost)
        t->epoch++;
    table_join(t, first);
    Py_RETURN_NONE;
}

PyObject *table_move(Table *t, PyObject *args)
{
    unsigned long long old, new, length;
    if (!PyArg_ParseTuple(args, "KKK", &old, &new, &length) || !check_range(old, length) || !check_range(new, length))
        return NULL;
    if (old < new + length && new < old + length) {
        PyErr_SetString(PyExc_ValueError, "the ranges overlap");
        return NULL;
    }
    uint64_t end = old + length, *e;
    NOMEM_UNLESS(do_unmap(t, new, new + length) && table_split(t, old) && table_split(t, end));
    if (code_in_range(t, old, end))
        t->serial = fresh_serial();
    for (uint64_t at = old; (e = table_next_slot(t, &at, end)); at += PAGE)
        if (*e & PTE_PRESENT) {
            uint64_t to = at - old + new, *leaf = table_leaf(t->root, to, true);
            NOMEM_UNLESS(leaf);
            leaf[to >> PAGE_SHIFT & (FANOUT - 1)] = *e;
            *e = 0;
        }
    for (size_t i; i = table_region_index(t, old), i < t->n_regions && t->regions[i].start < end;) {
        Region r = t->regions[i];
        r.start = r.start - old + new;
        r.end = r.end - old + new;
        NOMEM_UNLESS(table_insert_region(t, table_region_index(t, r.start), r));
        table_remove_region(t, table_region_index(t, r.start - new + old));
    }
    t->epoch++;
    Py_RETURN_NONE;
}

PyObject *table_discard(Table *t, PyObject *args)
{
    unsigned long long start, length;
    if (!PyArg_ParseTuple(args, "KK", &start, &length) || !check_range(start, length))
        return NULL;
    if (code_in_range(t, start, start + length))
        t->serial = fresh_serial();
    drop_pages(t, start, start + length, true);
    Py_RETURN_NONE;
}

static Table *new_table(PyTypeObject *type, Arena *a)
{
    Table *t = (Table *)type->tp_alloc(type, 0);
    if (!t)
        return NULL;
    Py_INCREF(a);
    t->arena = a;
    t->serial = fresh_serial();
    t->epoch = 1;
    t->root = PyMem_RawCalloc(FANOUT, sizeof(void *));
    t->hits = PyList_New(0);
    if (!t->root || !t->hits) {
        Py_DECREF(t);
        PyErr_NoMemory();
        return NULL;
    }
    return t;
}

PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"arena", NULL};
    Arena *a;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!", names, &ArenaType, &a))
        return NULL;
    return (PyObject *)new_table(type, a);
}

/* Copy a subtree; private pages become copy-on-write on both sides.  NULL when out of memory. */
static void **fork_tree(Arena *a, void **node, int level)
{
    uint64_t **copy = PyMem_RawMalloc(FANOUT * sizeof *copy);
    if (!copy)
        return NULL;
    if (level == 0) {
        uint64_t *from = (uint64_t *)node, *to = (uint64_t *)copy;
        for (int i = 0; i < FANOUT; i++) {
            if (from[i] & PTE_PRIVATE) {
                a->refs[PTE_FRAME(from[i])]++;
                from[i] |= PTE_COW;
            }
            to[i] = from[i];
        }
        return (void **)copy;
    }
    memset(copy, 0, FANOUT * sizeof *copy);
    for (int i = 0; i < FANOUT; i++)
        if (node[i] && !(copy[i] = (uint64_t *)fork_tree(a, node[i], level - 1))) {
            table_free_tree((void **)copy, level);
            return NULL;
        }
    return (void **)copy;
}

PyObject *table_fork(Table *t, PyObject *unused)
{
    Table *n = new_table(Py_TYPE(t), t->arena);
    if (!n)
        return NULL;
    if (!t->root)
        return (PyObject *)n;
    PyMem_RawFree(n->root);
    n->root = fork_tree(t->arena, t->root, 3);
    if (t->n_regions) {
        n->regions = PyMem_RawMalloc(t->n_regions * sizeof *n->regions);
        if (n->regions) {
            memcpy(n->regions, t->regions, t->n_regions * sizeof *n->regions);
            n->n_regions = n->cap_regions = t->n_regions;
            for (size_t i = 0; i < n->n_regions; i++)
                Py_XINCREF(n->regions[i].frames);
        }
    }
    t->epoch++;
    if (!n->root || (t->n_regions && !n->regions)) {
        Py_DECREF(n);
        raise_linux_error("ENOMEM");
        return NULL;
    }
    return (PyObject *)n;
}

static void do_destroy(Table *t)
{
    if (t->root) {
        drop_pages(t, 0, TOP, false);
        table_free_tree(t->root, 3);
        t->root = NULL;
    }
    for (size_t i = 0; i < t->n_regions; i++)
        Py_XDECREF(t->regions[i].frames);
    t->n_regions = 0;
    t->n_points = 0;
    t->n_watches = 0;
    t->epoch++;
    t->serial = fresh_serial();
}

PyObject *table_destroy(Table *t, PyObject *unused)
{
    do_destroy(t);
    t->root = PyMem_RawCalloc(FANOUT, sizeof(void *));
    Py_RETURN_NONE;
}

void table_dealloc(Table *t)
{
    do_destroy(t);
    PyMem_RawFree(t->regions);
    PyMem_RawFree(t->points);
    PyMem_RawFree(t->watches);
    Py_XDECREF(t->hits);
    Py_XDECREF(t->arena);
    Py_TYPE(t)->tp_free((PyObject *)t);
}

PyObject *table_resident(Table *t, PyObject *args)
{
    unsigned long long start, length;
    if (!PyArg_ParseTuple(args, "KK", &start, &length) || !check_range(start, length))
        return NULL;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(length >> PAGE_SHIFT));
    if (!out)
        return NULL;
    char *p = PyBytes_AS_STRING(out);
    memset(p, 0, length >> PAGE_SHIFT);
    uint64_t *e;
    for (uint64_t at = start; (e = table_next_slot(t, &at, start + length)); at += PAGE)
        if (*e & PTE_PRESENT)
            p[(at - start) >> PAGE_SHIFT] = (char)(1 | (*e & PTE_DIRTY ? 2 : 0) | (*e & PTE_PRIVATE ? 4 : 0));
    return out;
}

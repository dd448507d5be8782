/* Breakpoints and watchpoints of a page table, and the kernel side's stores into watched ranges. */
#include "table.h"
#include <string.h>

size_t table_first_point(const Table *t, uint64_t address)
{
    size_t lo = 0, hi = t->n_points;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->points[mid] < address)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

bool table_has_point(const Table *t, uint64_t address)
{
    size_t i = table_first_point(t, address);
    return i < t->n_points && t->points[i] == address;
}

int table_page_watch(const Table *t, uint64_t page)
{
    int kinds = 0;
    for (size_t i = 0; i < t->n_watches; i++)
        if (t->watches[i].start < page + PAGE && t->watches[i].end > page)
            kinds |= (int)t->watches[i].kind;
    return kinds;
}

const Watch *table_watch_hit(const Table *t, uint64_t address, uint64_t size, int kind)
{
    for (size_t i = 0; i < t->n_watches; i++) {
        const Watch *w = &t->watches[i];
        if (w->kind & (uint32_t)kind && w->start < address + size && w->end > address)
            return w;
    }
    return NULL;
}

enum { MAX_HITS = 16 }; /* until somebody takes them */

bool table_note_store(Table *t, uint64_t address, uint64_t size)
{
    for (size_t i = 0; i < t->n_watches && PyList_GET_SIZE(t->hits) < MAX_HITS; i++) {
        const Watch *w = &t->watches[i];
        if (!(w->kind & P_WRITE) || w->start >= address + size || w->end <= address)
            continue;
        uint64_t at = address > w->start ? address : w->start;
        PyObject *hit = Py_BuildValue("(KI)", (unsigned long long)at, (unsigned int)w->kind);
        if (!hit || PyList_Append(t->hits, hit)) {
            Py_XDECREF(hit);
            return false;
        }
        Py_DECREF(hit);
    }
    return true;
}

PyObject *table_take_hits(Table *t, PyObject *unused)
{
    PyObject *hits = t->hits, *fresh = PyList_New(0);
    if (!fresh)
        return NULL;
    t->hits = fresh;
    return hits;
}

PyObject *table_insert_point(Table *t, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "K", &address))
        return NULL;
    size_t i = table_first_point(t, address);
    if (i < t->n_points && t->points[i] == address)
        Py_RETURN_NONE;
    if (t->n_points == t->cap_points) {
        size_t cap = t->cap_points ? t->cap_points * 2 : 16;
        uint64_t *p = PyMem_RawRealloc(t->points, cap * sizeof *p);
        if (!p)
            return PyErr_NoMemory();
        t->points = p;
        t->cap_points = cap;
    }
    memmove(&t->points[i + 1], &t->points[i], (t->n_points - i) * sizeof *t->points);
    t->points[i] = address;
    t->n_points++;
    t->serial = fresh_serial();
    Py_RETURN_NONE;
}

PyObject *table_remove_point(Table *t, PyObject *args)
{
    unsigned long long address;
    if (!PyArg_ParseTuple(args, "K", &address))
        return NULL;
    size_t i = table_first_point(t, address);
    if (i < t->n_points && t->points[i] == address) {
        memmove(&t->points[i], &t->points[i + 1], (--t->n_points - i) * sizeof *t->points);
        t->serial = fresh_serial();
    }
    Py_RETURN_NONE;
}

static Watch *find_watch(Table *t, uint64_t start, uint64_t length, unsigned int kind)
{
    for (Watch *w = t->watches; w < t->watches + t->n_watches; w++)
        if (w->start == start && w->end == start + length && w->kind == kind)
            return w;
    return NULL;
}

PyObject *table_insert_watch(Table *t, PyObject *args)
{
    unsigned long long start, length;
    unsigned int kind;
    if (!PyArg_ParseTuple(args, "KKI", &start, &length, &kind))
        return NULL;
    if (!length || start >= TOP || length > TOP - start || !(kind & 3) || kind & ~3u) {
        PyErr_SetString(PyExc_ValueError, "bad watchpoint");
        return NULL;
    }
    Watch *known = find_watch(t, start, length, kind);
    if (known) {
        known->refs++;
        Py_RETURN_NONE;
    }
    if (t->n_watches == t->cap_watches) {
        size_t cap = t->cap_watches ? t->cap_watches * 2 : 8;
        Watch *p = PyMem_RawRealloc(t->watches, cap * sizeof *p);
        if (!p)
            return PyErr_NoMemory();
        t->watches = p;
        t->cap_watches = cap;
    }
    t->watches[t->n_watches++] = (Watch){start, start + length, kind, 1};
    t->epoch++;
    Py_RETURN_NONE;
}

PyObject *table_remove_watch(Table *t, PyObject *args)
{
    unsigned long long start, length;
    unsigned int kind;
    if (!PyArg_ParseTuple(args, "KKI", &start, &length, &kind))
        return NULL;
    Watch *known = find_watch(t, start, length, kind);
    if (known) {
        if (!--known->refs)
            *known = t->watches[--t->n_watches];
        t->epoch++;
    }
    Py_RETURN_NONE;
}

/* A page table: what each guest page may do and which frame holds it.
 *
 * Two layers.  Regions (sorted, few) say what is mapped where; entries (a four-level radix tree, one word a page) exist
 * only for pages that were touched.  `table_touch` makes an entry out of a region on first use: demand-zero, file
 * pages, copy-on-write.  Every change that could make a cached translation wrong bumps `epoch`.
 */
#include "hooks.h"
#include <string.h>

#define FANOUT 512
#define LEAF_SPAN (PAGE * FANOUT)

static uint32_t serials;

uint32_t fresh_serial(void) { return ++serials; }

/* ---- radix tree --------------------------------------------------------------------------------------------------- */

static uint64_t *leaf_of(void **node, uint64_t address, bool make)
{
    for (int shift = 39; shift > 21; shift -= 9) {
        void **slot = (void **)&node[address >> shift & (FANOUT - 1)];
        if (!*slot) {
            if (!make || !(*slot = PyMem_RawCalloc(FANOUT, sizeof(void *))))
                return NULL;
        }
        node = *slot;
    }
    void **slot = &node[address >> 21 & (FANOUT - 1)];
    if (!*slot && (!make || !(*slot = PyMem_RawCalloc(FANOUT, sizeof(uint64_t)))))
        return NULL;
    return *slot;
}

static inline uint64_t *entry_of(const Table *t, uint64_t address)
{
    uint64_t *leaf = leaf_of(t->root, address, false);
    return leaf ? &leaf[address >> PAGE_SHIFT & (FANOUT - 1)] : NULL;
}

uint64_t table_entry(const Table *t, uint64_t address)
{
    if (address >= TOP || !t->root)
        return 0;
    uint64_t *e = entry_of(t, address);
    return e && *e & PTE_PRESENT ? *e : 0;
}

/* The next page at or after *address that has an entry slot, below end; skips absent subtrees. */
static uint64_t *next_slot(const Table *t, uint64_t *address, uint64_t end)
{
    while (*address < end) {
        void **node = t->root;
        int shift = 39;
        for (; shift >= 21; shift -= 9) {
            void **next = node[*address >> shift & (FANOUT - 1)];
            if (!next)
                break;
            node = next;
        }
        if (shift < 21)
            return &((uint64_t *)node)[*address >> PAGE_SHIFT & (FANOUT - 1)];
        uint64_t span = (uint64_t)1 << shift;
        *address = (*address & ~(span - 1)) + span;
    }
    return NULL;
}

static void free_tree(void **node, int level)
{
    if (level > 0)
        for (int i = 0; i < FANOUT; i++)
            if (node[i])
                free_tree(node[i], level - 1);
    PyMem_RawFree(node);
}

/* ---- regions ------------------------------------------------------------------------------------------------------ */

static size_t region_index(const Table *t, uint64_t address) /* first region that ends beyond address */
{
    size_t lo = 0, hi = t->n_regions;
    while (lo < hi) {
        size_t mid = (lo + hi) / 2;
        if (t->regions[mid].end <= address)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

const Region *table_region(const Table *t, uint64_t address)
{
    size_t i = region_index(t, address);
    return i < t->n_regions && t->regions[i].start <= address ? &t->regions[i] : NULL;
}

uint64_t table_address(const Table *t, uint64_t frame)
{
    for (size_t i = 0; i < t->n_regions; i++) {
        const Region *r = &t->regions[i];
        if (!r->frames || frame < r->frames->base + r->first)
            continue;
        uint64_t at = r->start + ((frame - r->frames->base - r->first) << PAGE_SHIFT);
        if (at < r->end)
            return at;
    }
    return UINT64_MAX;
}

static bool insert_region(Table *t, size_t at, Region r)
{
    if (t->n_regions == t->cap_regions) {
        size_t cap = t->cap_regions ? t->cap_regions * 2 : 32;
        Region *p = PyMem_RawRealloc(t->regions, cap * sizeof *p);
        if (!p)
            return false;
        t->regions = p;
        t->cap_regions = cap;
    }
    memmove(&t->regions[at + 1], &t->regions[at], (t->n_regions - at) * sizeof *t->regions);
    t->regions[at] = r;
    t->n_regions++;
    Py_XINCREF(r.frames);
    return true;
}

static void remove_region(Table *t, size_t at)
{
    Py_XDECREF(t->regions[at].frames);
    memmove(&t->regions[at], &t->regions[at + 1], (--t->n_regions - at) * sizeof *t->regions);
}

/* Cut so that a region boundary lies at `address`. */
static bool split(Table *t, uint64_t address)
{
    size_t i = region_index(t, address);
    if (i == t->n_regions || t->regions[i].start >= address)
        return true;
    Region tail = t->regions[i];
    tail.first += (address - tail.start) >> PAGE_SHIFT;
    tail.start = address;
    if (!insert_region(t, i + 1, tail))
        return false;
    t->regions[i].end = address;
    return true;
}

/* Join anonymous neighbours around `at` so that a growing heap stays one region. */
static void join(Table *t, size_t at)
{
    for (size_t i = at ? at : 1; i < t->n_regions && i <= at + 1;) {
        Region *a = &t->regions[i - 1], *b = &t->regions[i];
        if (a->end == b->start && a->prot == b->prot && !a->frames && !b->frames) {
            a->end = b->end;
            remove_region(t, i);
            if (at)
                at--;
        } else {
            i++;
        }
    }
}

/* ---- points ------------------------------------------------------------------------------------------------------- */

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

/* ---- touching a page ---------------------------------------------------------------------------------------------- */

enum Touch table_touch(Table *t, uint64_t address, int access, bool force, bool may_replace_code, uint64_t *pte)
{
    if (UNLIKELY(address >= TOP || !t->root))
        return T_UNMAPPED;
    Arena *a = t->arena;
    uint64_t *e = entry_of(t, address);
    if (!e || !(*e & PTE_PRESENT)) {
        const Region *r = table_region(t, address);
        if (!r)
            return T_UNMAPPED;
        if (!(r->prot & (uint32_t)access) && !force)
            return T_DENIED;
        uint64_t entry = r->prot | PTE_PRESENT;
        if (r->frames) {
            uint64_t index = r->first + ((address - r->start) >> PAGE_SHIFT);
            if (index >= r->valid || index >= r->frames->count)
                return T_BUS;
            uint64_t frame = r->frames->base + index;
            if (UNLIKELY(a->flags[frame] & F_BUS))
                return T_BUS;
            entry |= frame << PAGE_SHIFT | (r->shared ? PTE_SHARED : PTE_COW);
        } else if (access & P_WRITE) {
            uint64_t frame = arena_new_frame(a, true);
            if (!frame)
                return T_NOMEM;
            entry |= frame << PAGE_SHIFT | PTE_PRIVATE | PTE_DIRTY;
        } else {
            entry |= PTE_COW; /* frame 0, the shared zero page */
        }
        uint64_t *leaf = leaf_of(t->root, address, true);
        if (!leaf) {
            if (entry & PTE_PRIVATE)
                arena_release_frame(a, PTE_FRAME(entry));
            return T_NOMEM;
        }
        e = &leaf[address >> PAGE_SHIFT & (FANOUT - 1)];
        *e = entry;
    }
    if (!(*e & (uint64_t)access) && !force)
        return T_DENIED;
    if (access & P_WRITE) {
        if (force && *e & PTE_SHARED && !(*e & P_WRITE))
            return T_DENIED; /* never write a file through a read-only shared mapping */
        if (*e & PTE_COW) {
            uint64_t old = PTE_FRAME(*e);
            if (*e & PTE_PRIVATE && a->refs[old] == 1) {
                *e &= ~PTE_COW;
            } else {
                if (UNLIKELY(a->flags[old] & F_RAN && !may_replace_code))
                    return T_RAN_COW;
                uint64_t frame = arena_new_frame(a, old == 0);
                if (!frame)
                    return T_NOMEM;
                if (old)
                    memcpy(frame_host(a, frame), frame_host(a, old), PAGE);
                if (*e & PTE_PRIVATE)
                    arena_release_frame(a, old);
                *e = (*e & PAGE_MASK & ~PTE_COW) | frame << PAGE_SHIFT | PTE_PRIVATE;
                t->epoch++;
            }
        }
        *e |= PTE_DIRTY;
    }
    *pte = *e;
    return T_OK;
}

/* ---- range operations --------------------------------------------------------------------------------------------- */

static bool code_in_range(const Table *t, uint64_t start, uint64_t end)
{
    for (size_t i = region_index(t, start); i < t->n_regions && t->regions[i].start < end; i++)
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
    for (uint64_t at = start; (e = next_slot(t, &at, end)); at += PAGE) {
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
    if (!split(t, start) || !split(t, end))
        return false;
    size_t i = region_index(t, start), j = i;
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
    size_t at = region_index(t, start);
    NOMEM_UNLESS(insert_region(t, at, (Region){start, start + length, effective(prot), false, NULL, 0, UINT64_MAX}));
    join(t, at);
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
    NOMEM_UNLESS(insert_region(t, region_index(t, start),
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
    NOMEM_UNLESS(split(t, start) && split(t, end));
    if (code_in_range(t, start, end) || prot & P_EXEC)
        t->serial = fresh_serial();
    size_t first = region_index(t, start);
    for (size_t i = first; i < t->n_regions && t->regions[i].start < end; i++)
        t->regions[i].prot = prot;
    bool lost = false;
    for (uint64_t at = start; (e = next_slot(t, &at, end)); at += PAGE)
        if (*e & PTE_PRESENT) {
            lost |= (*e & P_ALL & ~(uint64_t)prot) != 0;
            *e = (*e & ~(uint64_t)P_ALL) | prot;
        }
    if (lost)
        t->epoch++;
    join(t, first);
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
    NOMEM_UNLESS(do_unmap(t, new, new + length) && split(t, old) && split(t, end));
    if (code_in_range(t, old, end))
        t->serial = fresh_serial();
    for (uint64_t at = old; (e = next_slot(t, &at, end)); at += PAGE)
        if (*e & PTE_PRESENT) {
            uint64_t to = at - old + new, *leaf = leaf_of(t->root, to, true);
            NOMEM_UNLESS(leaf);
            leaf[to >> PAGE_SHIFT & (FANOUT - 1)] = *e;
            *e = 0;
        }
    for (size_t i; i = region_index(t, old), i < t->n_regions && t->regions[i].start < end;) {
        Region r = t->regions[i];
        r.start = r.start - old + new;
        r.end = r.end - old + new;
        NOMEM_UNLESS(insert_region(t, region_index(t, r.start), r));
        remove_region(t, region_index(t, r.start - new + old));
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
            free_tree((void **)copy, level);
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
        free_tree(t->root, 3);
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
    for (uint64_t at = start; (e = next_slot(t, &at, start + length)); at += PAGE)
        if (*e & PTE_PRESENT)
            p[(at - start) >> PAGE_SHIFT] = (char)(1 | (*e & PTE_DIRTY ? 2 : 0) | (*e & PTE_PRIVATE ? 4 : 0));
    return out;
}

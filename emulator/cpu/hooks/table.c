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
#define TOP ((uint64_t)1 << USER_BITS)

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

static PyObject *table_map_anonymous(Table *t, PyObject *args)
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

static PyObject *table_map_frames(Table *t, PyObject *args, PyObject *kwargs)
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

static PyObject *table_unmap(Table *t, PyObject *args)
{
    unsigned long long start, length;
    if (!PyArg_ParseTuple(args, "KK", &start, &length) || !check_range(start, length))
        return NULL;
    NOMEM_UNLESS(do_unmap(t, start, start + length));
    Py_RETURN_NONE;
}

static PyObject *table_protect(Table *t, PyObject *args)
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

static PyObject *table_move(Table *t, PyObject *args)
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

static PyObject *table_discard(Table *t, PyObject *args)
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

static PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
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

static PyObject *table_fork(Table *t, PyObject *unused)
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

static PyObject *table_destroy(Table *t, PyObject *unused)
{
    do_destroy(t);
    t->root = PyMem_RawCalloc(FANOUT, sizeof(void *));
    Py_RETURN_NONE;
}

static void table_dealloc(Table *t)
{
    do_destroy(t);
    PyMem_RawFree(t->regions);
    PyMem_RawFree(t->points);
    PyMem_RawFree(t->watches);
    Py_XDECREF(t->hits);
    Py_XDECREF(t->arena);
    Py_TYPE(t)->tp_free((PyObject *)t);
}

static PyObject *table_resident(Table *t, PyObject *args)
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

/* ---- access from the kernel's side ---------------------------------------------------------------------------------- */

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

static bool note_store(Table *t, uint64_t address, uint64_t size)
{
    for (size_t i = 0; i < t->n_watches; i++) {
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

static PyObject *table_read(Table *t, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"addr", "n", "force", NULL};
    unsigned long long address;
    Py_ssize_t n;
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Kn|$p", names, &address, &n, &force))
        return NULL;
    return read_some(t, address, n, force, false);
}

static PyObject *table_read_partial(Table *t, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"addr", "n", "force", NULL};
    unsigned long long address;
    Py_ssize_t n;
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Kn|$p", names, &address, &n, &force))
        return NULL;
    return read_some(t, address, n, force, true);
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

static PyObject *table_write(Table *t, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"addr", "data", "force", NULL};
    unsigned long long address;
    Py_buffer data;
    int force = 0;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "Ky*|$p", names, &address, &data, &force))
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
    if (done && t->n_watches && !force && !note_store(t, address, (uint64_t)done))
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
    if (out && kind & P_WRITE && t->n_watches && !note_store(t, address, (uint64_t)n))
        Py_CLEAR(out);
    return out;
}

static PyObject *table_take_hits(Table *t, PyObject *unused)
{
    PyObject *hits = t->hits, *fresh = PyList_New(0);
    if (!fresh)
        return NULL;
    t->hits = fresh;
    return hits;
}

/* ---- points from Python ----------------------------------------------------------------------------------------------- */

static PyObject *table_insert_point(Table *t, PyObject *args)
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

static PyObject *table_remove_point(Table *t, PyObject *args)
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

static PyObject *table_insert_watch(Table *t, PyObject *args)
{
    unsigned long long start, length;
    unsigned int kind;
    if (!PyArg_ParseTuple(args, "KKI", &start, &length, &kind))
        return NULL;
    if (!length || start >= TOP || length > TOP - start || !(kind & 3) || kind & ~3u) {
        PyErr_SetString(PyExc_ValueError, "bad watchpoint");
        return NULL;
    }
    for (size_t i = 0; i < t->n_watches; i++)
        if (t->watches[i].start == start && t->watches[i].end == start + length && t->watches[i].kind == kind) {
            t->watches[i].refs++;
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

static PyObject *table_remove_watch(Table *t, PyObject *args)
{
    unsigned long long start, length;
    unsigned int kind;
    if (!PyArg_ParseTuple(args, "KKI", &start, &length, &kind))
        return NULL;
    for (size_t i = 0; i < t->n_watches; i++)
        if (t->watches[i].start == start && t->watches[i].end == start + length && t->watches[i].kind == kind) {
            if (!--t->watches[i].refs)
                t->watches[i] = t->watches[--t->n_watches];
            t->epoch++;
            break;
        }
    Py_RETURN_NONE;
}

static PyObject *table_touch_code(Table *t, PyObject *args)
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
    {"read", (PyCFunction)(void *)table_read, KW, "Bytes; MemoryFault at the first bad one."},
    {"read_partial", (PyCFunction)(void *)table_read_partial, KW, "As many bytes as are readable."},
    {"read_cstring", (PyCFunction)table_read_cstring, METH_VARARGS, "A string without its NUL."},
    {"write", (PyCFunction)(void *)table_write, KW, "Store bytes; MemoryFault at the first bad one."},
    {"buffers", (PyCFunction)table_buffers, METH_VARARGS, "Host views of guest memory."},
    {"take_hits", (PyCFunction)table_take_hits, METH_NOARGS, "Kernel-side stores into watched ranges."},
    {"insert_point", (PyCFunction)table_insert_point, METH_VARARGS, "Breakpoint."},
    {"remove_point", (PyCFunction)table_remove_point, METH_VARARGS, "Remove a breakpoint."},
    {"insert_watch", (PyCFunction)table_insert_watch, METH_VARARGS, "Watchpoint."},
    {"remove_watch", (PyCFunction)table_remove_watch, METH_VARARGS, "Remove a watchpoint."},
    {"invalidate_code", (PyCFunction)table_touch_code, METH_VARARGS, "The host changed code here."},
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

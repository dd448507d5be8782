/* A page table: what each guest page may do and which frame holds it.
 *
 * Two layers.  Regions (sorted, few) say what is mapped where; entries (a four-level radix tree, one word a page) exist
 * only for pages that were touched.  `table_touch` makes an entry out of a region on first use: demand-zero, file
 * pages, copy-on-write.  Every change that could make a cached translation wrong bumps `epoch`.
 */
#include "table.h"
#include <string.h>

/* ---- radix tree --------------------------------------------------------------------------------------------------- */

uint64_t table_entry(const Table *t, uint64_t address)
{
    if (address >= TOP || !t->root)
        return 0;
    uint64_t *e = entry_of(t, address);
    return e && *e & PTE_PRESENT ? *e : 0;
}

uint64_t *table_next_slot(const Table *t, uint64_t *address, uint64_t end)
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

void table_free_tree(void **node, int level)
{
    if (level > 0)
        for (int i = 0; i < FANOUT; i++)
            if (node[i])
                table_free_tree(node[i], level - 1);
    PyMem_RawFree(node);
}

/* ---- regions ------------------------------------------------------------------------------------------------------ */

size_t table_region_index(const Table *t, uint64_t address)
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
    size_t i = table_region_index(t, address);
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

bool table_insert_region(Table *t, size_t at, Region r)
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

void table_remove_region(Table *t, size_t at)
{
    Py_XDECREF(t->regions[at].frames);
    memmove(&t->regions[at], &t->regions[at + 1], (--t->n_regions - at) * sizeof *t->regions);
}

bool table_split(Table *t, uint64_t address)
{
    size_t i = table_region_index(t, address);
    if (i == t->n_regions || t->regions[i].start >= address)
        return true;
    Region tail = t->regions[i];
    tail.first += (address - tail.start) >> PAGE_SHIFT;
    tail.start = address;
    if (!table_insert_region(t, i + 1, tail))
        return false;
    t->regions[i].end = address;
    return true;
}

void table_join(Table *t, size_t at)
{
    for (size_t i = at ? at : 1; i < t->n_regions && i <= at + 1;) {
        Region *a = &t->regions[i - 1], *b = &t->regions[i];
        if (a->end == b->start && a->prot == b->prot && !a->frames && !b->frames) {
            a->end = b->end;
            table_remove_region(t, i);
            if (at)
                at--;
        } else {
            i++;
        }
    }
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
        uint64_t *leaf = table_leaf(t->root, address, true);
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

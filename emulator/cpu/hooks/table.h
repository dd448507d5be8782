/* The inside of a page table, for the files that make it up: table.c, ranges.c, points.c, access.c. */
#ifndef EMUGDB_TABLE_H
#define EMUGDB_TABLE_H
#include "hooks.h"

/* ---- entries: a radix tree of four levels ------------------------------------------------------------------------ */

#define FANOUT 512

static inline uint64_t *table_leaf(void **node, uint64_t address, bool make)
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
    uint64_t *leaf = table_leaf(t->root, address, false);
    return leaf ? &leaf[address >> PAGE_SHIFT & (FANOUT - 1)] : NULL;
}

/* The next page at or after *address that has an entry slot, below end; skips absent subtrees. */
uint64_t *table_next_slot(const Table *t, uint64_t *address, uint64_t end);
void table_free_tree(void **node, int level);

/* ---- regions ------------------------------------------------------------------------------------------------------ */

size_t table_region_index(const Table *t, uint64_t address); /* the first region that ends beyond address */
bool table_insert_region(Table *t, size_t at, Region r);
void table_remove_region(Table *t, size_t at);
bool table_split(Table *t, uint64_t address); /* cut so that a region boundary lies there */
void table_join(Table *t, size_t at); /* join anonymous neighbours so that a growing heap stays one region */

/* ---- points ------------------------------------------------------------------------------------------------------- */

bool table_note_store(Table *t, uint64_t address, uint64_t size); /* by the kernel's side; false: no memory */

/* ---- methods of PageTable, listed in access.c --------------------------------------------------------------------- */

PyObject *table_map_anonymous(Table *t, PyObject *args);
PyObject *table_map_frames(Table *t, PyObject *args, PyObject *kwargs);
PyObject *table_unmap(Table *t, PyObject *args);
PyObject *table_protect(Table *t, PyObject *args);
PyObject *table_move(Table *t, PyObject *args);
PyObject *table_discard(Table *t, PyObject *args);
PyObject *table_new(PyTypeObject *type, PyObject *args, PyObject *kwargs);
PyObject *table_fork(Table *t, PyObject *unused);
PyObject *table_destroy(Table *t, PyObject *unused);
PyObject *table_resident(Table *t, PyObject *args);
void table_dealloc(Table *t);
PyObject *table_take_hits(Table *t, PyObject *unused);
PyObject *table_insert_point(Table *t, PyObject *args);
PyObject *table_remove_point(Table *t, PyObject *args);
PyObject *table_insert_watch(Table *t, PyObject *args);
PyObject *table_remove_watch(Table *t, PyObject *args);

#endif

/* Calls inside the engine's library, led elsewhere.
 *
 * The library calls its own global functions through its procedure linkage table, so a function of ours can take a
 * slot and hand on to the one that was there.  A library that does not look as expected is left alone.
 * Source: System V gABI, "Dynamic Linking"; psABI for x86-64, "Procedure Linkage Table".
 */
#define _GNU_SOURCE
#include "engine.h"
#include <string.h>

#ifdef CAN_REPLACE_CALLS
#include <link.h>

typedef struct {
    uintptr_t inside;
    const Replacement *list;
    size_t n;
    bool (*fits)(const char *name, const uint8_t *code);
} Request;

static int visit(struct dl_phdr_info *info, size_t size, void *data)
{
    const Request *request = data;
    const ElfW(Dyn) *dynamic = NULL;
    bool ours = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        ours |= p->p_type == PT_LOAD && request->inside - info->dlpi_addr - p->p_vaddr < p->p_memsz;
        if (p->p_type == PT_DYNAMIC)
            dynamic = (const void *)(info->dlpi_addr + p->p_vaddr);
    }
    if (!ours || !dynamic)
        return 0;
    const ElfW(Rela) *rela = NULL;
    const ElfW(Sym) *symbols = NULL;
    const char *names = NULL;
    size_t n = 0;
    for (; dynamic->d_tag != DT_NULL; dynamic++) { /* glibc has made these addresses absolute */
        void *at = (void *)dynamic->d_un.d_ptr;
        if (dynamic->d_tag == DT_JMPREL)
            rela = at;
        else if (dynamic->d_tag == DT_PLTRELSZ)
            n = dynamic->d_un.d_val / sizeof *rela;
        else if (dynamic->d_tag == DT_SYMTAB)
            symbols = at;
        else if (dynamic->d_tag == DT_STRTAB)
            names = at;
        else if (dynamic->d_tag == DT_BIND_NOW)
            return 1; /* the slots are read-only */
    }
    if (!rela || !symbols || !names || (uintptr_t)rela < info->dlpi_addr)
        return 1;
    for (int pass = 0; pass < 2; pass++) /* look at all first, then change */
        for (size_t i = 0; i < n; i++) {
            const ElfW(Sym) *symbol = &symbols[ELF64_R_SYM(rela[i].r_info)];
            const char *name = names + symbol->st_name;
            if (ELF64_R_TYPE(rela[i].r_info) != R_X86_64_JUMP_SLOT || !symbol->st_value)
                continue;
            for (size_t j = 0; j < request->n; j++) {
                const Replacement *r = &request->list[j];
                void *original = (void *)(info->dlpi_addr + symbol->st_value);
                if (*name != *r->name || strcmp(name, r->name))
                    continue;
                if (request->fits && !request->fits(name, original))
                    return 1;
                if (pass == 1) {
                    *r->original = original;
                    *(void **)(info->dlpi_addr + rela[i].r_offset) = r->ours;
                }
            }
        }
    return 1;
}

void replace_calls(const void *inside, const Replacement *list, size_t n,
                   bool (*fits)(const char *name, const uint8_t *code))
{
    if (*list->original) /* done for an earlier core */
        return;
    Request request = {(uintptr_t)inside, list, n, fits};
    dl_iterate_phdr(visit, &request);
}
#endif

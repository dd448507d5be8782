/* Faster common cases of the engine's floating point.
 *
 * The engine uses the host's FPU where that gives the same bits (fpu/softfloat.c: rounding to nearest, the inexact flag
 * already raised), but its wheel calls libm's __fpclassify and __isinf for every operand, which costs more than the
 * operation.  Its helpers call float64_mul and friends through the PLT; here those slots get functions that do the
 * plain case (normal or zero operands, a normal result) and leave everything else to the engine's own.  A library that
 * does not look as expected is left alone.
 */
#define _GNU_SOURCE
#include "engine.h"
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__)
#include <link.h>
#include <math.h>

typedef struct { /* struct float_status of fpu/softfloat-types.h */
    int8_t tininess, rounding;
    uint8_t flags;
} Status;
enum { INEXACT = 0x20 };

#define USABLE(s) (LIKELY((s)->flags & INEXACT) && LIKELY(!(s)->rounding))

/* Biased exponents: 0 for zero and denormals, all ones for infinities and NaNs. */
static inline bool normal64(uint64_t v) { return (((v >> 52) - 2) & 0x7ff) < 0x7fd; } /* 2..2046: DBL_MIN is not */
static inline bool usual64(uint64_t v) { return (((v >> 52) - 1) & 0x7ff) < 0x7fe || !(v << 1); }
static inline bool normal32(uint32_t v) { return (((v >> 23) - 2) & 0xff) < 0xfd; }
static inline bool usual32(uint32_t v) { return (((v >> 23) - 1) & 0xff) < 0xfe || !(v << 1); }

static inline double d(uint64_t v) { double x; memcpy(&x, &v, 8); return x; }
static inline uint64_t b64(double x) { uint64_t v; memcpy(&v, &x, 8); return v; }
static inline float f(uint32_t v) { float x; memcpy(&x, &v, 4); return x; }
static inline uint32_t b32(float x) { uint32_t v; memcpy(&v, &x, 4); return v; }

#define BINARY(isa, name, op, bits, type, decode, encode) \
    static type (*isa##_##name##bits)(type, type, Status *); \
    static type fast_##isa##_##name##bits(type a, type b, Status *s) \
    { \
        if (USABLE(s) && LIKELY(usual##bits(a) && usual##bits(b))) { \
            type r = encode(decode(a) op decode(b)); \
            if (LIKELY(normal##bits(r))) \
                return r; \
        } \
        return isa##_##name##bits(a, b, s); \
    }

#define ROOT(isa, bits, type, decode, encode, root) \
    static type (*isa##_sqrt##bits)(type, Status *); \
    static type fast_##isa##_sqrt##bits(type a, Status *s) \
    { \
        if (USABLE(s) && LIKELY(normal##bits(a) && !(a >> (bits - 1)))) \
            return encode(root(decode(a))); \
        return isa##_sqrt##bits(a, s); \
    }

/* One copy an ISA, because each falls back to its own. */
#define ISA(isa) \
    BINARY(isa, add, +, 64, uint64_t, d, b64) \
    BINARY(isa, sub, -, 64, uint64_t, d, b64) \
    BINARY(isa, mul, *, 64, uint64_t, d, b64) \
    BINARY(isa, div, /, 64, uint64_t, d, b64) \
    BINARY(isa, add, +, 32, uint32_t, f, b32) \
    BINARY(isa, sub, -, 32, uint32_t, f, b32) \
    BINARY(isa, mul, *, 32, uint32_t, f, b32) \
    BINARY(isa, div, /, 32, uint32_t, f, b32) \
    ROOT(isa, 64, uint64_t, d, b64, __builtin_sqrt) \
    ROOT(isa, 32, uint32_t, f, b32, __builtin_sqrtf)
ISA(x86_64)
ISA(aarch64)

typedef struct {
    const char *name;
    void *fast;
    void **slow;
} Entry;
#define E(isa, name, bits) {"float" #bits "_" #name "_" #isa, fast_##isa##_##name##bits, (void **)&isa##_##name##bits}
#define ENTRIES(isa) \
    E(isa, add, 64), E(isa, sub, 64), E(isa, mul, 64), E(isa, div, 64), E(isa, sqrt, 64), E(isa, add, 32), \
    E(isa, sub, 32), E(isa, mul, 32), E(isa, div, 32), E(isa, sqrt, 32)
static const Entry entries[] = {ENTRIES(x86_64), ENTRIES(aarch64)};

/* The code of float64_mul must test flags, rounding and flush_inputs where we do. */
static bool as_expected(const uint8_t *code)
{
    static const uint8_t rounding[] = {0x80, 0x7a, 0x01, 0x00}, flush[] = {0x80, 0x7a, 0x05, 0x00}; /* cmpb $0, N(%rdx) */
    return memmem(code, 64, rounding, 4) && memmem(code, 64, flush, 4) && memmem(code, 64, "\x5a\x02\xf6\xc3\x20", 5);
}

static int patch(struct dl_phdr_info *info, size_t size, void *inside)
{
    const ElfW(Dyn) *dynamic = NULL;
    bool ours = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        ours |= p->p_type == PT_LOAD && (uintptr_t)inside - info->dlpi_addr - p->p_vaddr < p->p_memsz;
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
            if (ELF64_R_TYPE(rela[i].r_info) != R_X86_64_JUMP_SLOT || strncmp(name, "float", 5) || !symbol->st_value)
                continue;
            void *slow = (void *)(info->dlpi_addr + symbol->st_value);
            for (size_t j = 0; j < sizeof entries / sizeof *entries; j++) {
                if (strcmp(name, entries[j].name))
                    continue;
                if (!strncmp(name, "float64_mul", 11) && !as_expected(slow))
                    return 1;
                if (pass == 1) {
                    *entries[j].slow = slow;
                    *(void **)(info->dlpi_addr + rela[i].r_offset) = entries[j].fast;
                }
            }
        }
    return 1;
}

void speed_up_floats(const Unicorn *u)
{
    static bool done;
    if (!done)
        dl_iterate_phdr(patch, (void *)u->emu_start);
    done = true;
}
#else
void speed_up_floats(const Unicorn *u) {}
#endif

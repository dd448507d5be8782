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

#ifdef CAN_REPLACE_CALLS

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

#define E(isa, name, bits) {"float" #bits "_" #name "_" #isa, fast_##isa##_##name##bits, (void **)&isa##_##name##bits}
#define ENTRIES(isa) \
    E(isa, add, 64), E(isa, sub, 64), E(isa, mul, 64), E(isa, div, 64), E(isa, sqrt, 64), E(isa, add, 32), \
    E(isa, sub, 32), E(isa, mul, 32), E(isa, div, 32), E(isa, sqrt, 32)
static const Replacement replacements[] = {ENTRIES(x86_64), ENTRIES(aarch64)};

/* The code of float64_mul must test flags, rounding and flush_inputs where we do. */
static bool as_expected(const char *name, const uint8_t *code)
{
    static const uint8_t rounding[] = {0x80, 0x7a, 0x01, 0x00}, flush[] = {0x80, 0x7a, 0x05, 0x00}; /* cmpb $0, N(%rdx) */
    return strncmp(name, "float64_mul", 11) ||
           (memmem(code, 64, rounding, 4) && memmem(code, 64, flush, 4) && memmem(code, 64, "\x5a\x02\xf6\xc3\x20", 5));
}

void speed_up_floats(const Unicorn *u)
{
    replace_calls((const void *)u->emu_start, replacements, sizeof replacements / sizeof *replacements, as_expected);
}
#else
void speed_up_floats(const Unicorn *u) {}
#endif

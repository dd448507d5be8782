/* Words the engine's decoder must not see.
 *
 * QEMU 5.0's disas_simd_three_reg_same_fp16() and disas_simd_two_reg_misc_fp16() meet most unallocated encodings with
 * g_assert_not_reached(): one such word in a guest's code ends the whole process, when it is only translated.  The
 * decoder gets UDF #0 in their place, which is as undefined.  The tables are those of the Arm ARM, C4.1.96, "Advanced
 * SIMD three same (FP16)" and "two-register miscellaneous (FP16)"; tests/emulator/cpu/test_decoder.py tries them all.
 */
#include "engine.h"

#ifdef CAN_REPLACE_CALLS
static uint32_t (*load_code)(void *env, uint64_t addr);

/* A set bit is an unallocated opcode, that is U:a:opcode. */
static const uint32_t three_same = 0x8a023820;
static const uint32_t two_register[] = {0xc0ffffff, 0xd0ff0fff, 0xc0ffffff, 0x51ff4fff};
static const uint32_t two_register_scalar[] = {0xc0ffffff, 0x50ff8fff, 0xc0ffffff, 0xd1ff4fff};

static bool fatal(uint32_t word)
{
    uint32_t u = word >> 29 & 1, a = word >> 23 & 1;
    if ((word & 0x9f60c400) == 0x0e400400)
        return three_same >> (u << 4 | a << 3 | (word >> 11 & 7)) & 1;
    if ((word & 0x9f7e0c00) == 0x0e780800)
        return two_register[u << 1 | a] >> (word >> 12 & 31) & 1;
    if ((word & 0xdf7e0c00) == 0x5e780800)
        return two_register_scalar[u << 1 | a] >> (word >> 12 & 31) & 1;
    return false;
}

static uint32_t load_harmless_code(void *env, uint64_t addr)
{
    uint32_t word = load_code(env, addr);
    return UNLIKELY(fatal(word)) ? 0 : word;
}

void guard_decoder(const Unicorn *u)
{
    static const Replacement replacement = {"cpu_ldl_code_aarch64", load_harmless_code, (void **)&load_code};
    replace_calls((const void *)u->emu_start, &replacement, 1, NULL);
}
#else
void guard_decoder(const Unicorn *u) {}
#endif

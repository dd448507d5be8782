/* x86-64: a length decoder (Intel SDM volume 2, appendix A, opcode maps) that follows the engine's translator where the
 * two differ (a 0x66 prefix makes near branches take a 16-bit offset), and the instructions that must not simply run.
 */
#include "hooks.h"

enum { M = 1, B = 2, W = 4, Z = 8, V = 16, O = 32, X = 64 }; /* modrm, imm8, imm16, imm16/32, imm16/32/64, moffs, none */

static const uint8_t one_byte[256] = {
    /* 00 */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 10 */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 20 */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 30 */ M, M, M, M, B, Z, X, X, M, M, M, M, B, Z, X, X,
    /* 40 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 50 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    /* 60 */ X, X, X, M, 0, 0, 0, 0, Z, M | Z, B, M | B, 0, 0, 0, 0,
    /* 70 */ B, B, B, B, B, B, B, B, B, B, B, B, B, B, B, B,
    /* 80 */ M | B, M | Z, X, M | B, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 90 */ 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, X, 0, 0, 0, 0, 0,
    /* a0 */ O, O, O, O, 0, 0, 0, 0, B, Z, 0, 0, 0, 0, 0, 0,
    /* b0 */ B, B, B, B, B, B, B, B, V, V, V, V, V, V, V, V,
    /* c0 */ M | B, M | B, W, 0, X, X, M | B, M | Z, W | B, 0, W, 0, 0, B, X, 0,
    /* d0 */ M, M, M, M, X, X, X, 0, M, M, M, M, M, M, M, M,
    /* e0 */ B, B, B, B, B, B, B, B, Z, Z, X, B, 0, 0, 0, 0,
    /* f0 */ 0, 0, 0, 0, 0, 0, M, M, 0, 0, 0, 0, 0, 0, M, M,
};

static const uint8_t two_byte[256] = {
    /* 00 */ M, M, M, M, X, 0, 0, 0, 0, 0, X, 0, X, M, 0, M | B,
    /* 10 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 20 */ M, M, M, M, X, X, X, X, M, M, M, M, M, M, M, M,
    /* 30 */ 0, 0, 0, 0, 0, 0, X, 0, M, X, M | B, X, X, X, X, X,
    /* 40 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 50 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 60 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* 70 */ M | B, M | B, M | B, M | B, M, M, M, 0, M, M, M, M, M, M, M, M,
    /* 80 */ Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z, Z,
    /* 90 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* a0 */ 0, 0, 0, M, M | B, M, X, X, 0, 0, 0, M, M | B, M, M, M,
    /* b0 */ M, M, M, M, M, M, M, M, M, M, M | B, M, M, M, M, M,
    /* c0 */ M, M, M | B, M, M | B, M | B, M | B, M, 0, 0, 0, 0, 0, 0, 0, 0,
    /* d0 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* e0 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
    /* f0 */ M, M, M, M, M, M, M, M, M, M, M, M, M, M, M, M,
};

static bool is_prefix(uint8_t b) /* REX included */
{
    return b == 0x66 || b == 0x67 || b == 0xf0 || b == 0xf2 || b == 0xf3 || b == 0x26 || b == 0x2e || b == 0x36 ||
           b == 0x3e || b == 0x64 || b == 0x65 || (b & 0xf0) == 0x40;
}

static enum Insn one_byte_kind(uint8_t op)
{
    switch (op) {
    case 0x6c: case 0x6d: case 0x6e: case 0x6f: /* ins, outs */
    case 0xe4: case 0xe5: case 0xe6: case 0xe7: /* in, out */
    case 0xec: case 0xed: case 0xee: case 0xef:
    case 0xf4: case 0xfa: case 0xfb: /* hlt, cli, sti */
        return I_PRIVILEGED;
    case 0x9d:
        return I_POPF;
    default:
        return I_PLAIN;
    }
}

static enum Insn two_byte_kind(uint8_t op, const uint8_t *modrm)
{
    int reg = modrm ? *modrm >> 3 & 7 : 0;
    bool memory = modrm && *modrm < 0xc0;
    switch (op) {
    case 0x00: /* lldt, ltr */
        return reg == 2 || reg == 3 ? I_PRIVILEGED : I_PLAIN;
    case 0x01:
        if (memory)
            return reg == 2 || reg == 3 || reg == 6 || reg == 7 ? I_PRIVILEGED : I_PLAIN;
        switch (*modrm) {
        case 0xf8: case 0xd1: case 0xca: case 0xcb: /* swapgs, xsetbv, clac, stac */
            return I_PRIVILEGED;
        case 0xf9:
            return I_RDTSCP;
        default:
            return reg == 6 ? I_PRIVILEGED : I_PLAIN; /* lmsw */
        }
    case 0x06: case 0x07: case 0x08: case 0x09: /* clts, sysret, invd, wbinvd */
    case 0x20: case 0x21: case 0x22: case 0x23: /* mov cr, mov dr */
    case 0x30: case 0x32: case 0x33: case 0x35: /* wrmsr, rdmsr, rdpmc, sysexit */
        return I_PRIVILEGED;
    case 0x31:
        return I_RDTSC;
    case 0xa2:
        return I_CPUID;
    case 0xae: /* ldmxcsr, stmxcsr */
        return memory && (reg == 2 || reg == 3) ? I_MXCSR : I_PLAIN;
    case 0x50: case 0x71: case 0x72: case 0x73: case 0xc5: case 0xd7: case 0xf7: /* a register operand only */
        return memory ? I_UNDEFINED : I_PLAIN;
    case 0xc7:
        return !memory && reg >= 6 ? I_RDRAND : I_PLAIN;
    default:
        return I_PLAIN;
    }
}

/* VEX-encoded instructions on general registers (BMI1, BMI2), which the engine executes rightly: `p` is behind 0xc4. */
static bool is_bmi(const uint8_t *p)
{
    int map = p[0] & 0x1f, op = p[2];
    if (p[1] & 4) /* VEX.L */
        return false;
    return (map == 2 && (op == 0xf2 || op == 0xf3 || op == 0xf5 || op == 0xf6 || op == 0xf7)) || (map == 3 && op == 0xf0);
}

/* ModRM, SIB, displacement and immediate: `i` is behind the opcode. */
static int finish(const uint8_t *p, size_t i, size_t room, int how, bool small, bool wide, bool addr32)
{
    if (how & X)
        return 0;
    if (how & M) {
        if (i >= room)
            return 0;
        const uint8_t *modrm = p + i;
        uint8_t mod = *modrm >> 6, rm = *modrm & 7;
        bool control = modrm[-1] >= 0x20 && modrm[-1] <= 0x23 && i >= 2 && p[i - 2] == 0x0f; /* mov cr: mod ignored */
        i++;
        if (mod != 3 && !control) {
            if (rm == 4) {
                if (i >= room)
                    return 0;
                if (mod == 0 && (p[i] & 7) == 5)
                    i += 4;
                i++;
            } else if (mod == 0 && rm == 5) {
                i += 4;
            }
            i += mod == 1 ? 1 : mod == 2 ? 4 : 0;
        }
    }
    if (how & B)
        i += 1;
    if (how & W)
        i += 2;
    if (how & Z)
        i += small ? 2 : 4;
    if (how & V)
        i += wide ? 8 : small ? 2 : 4;
    if (how & O)
        i += addr32 ? 4 : 8;
    return i <= room && i <= 15 ? (int)i : 0;
}

static int scan(const uint8_t *p, size_t room, enum Insn *kind)
{
    size_t i = 0;
    bool data16 = false, addr32 = false, rex_w = false;
    uint8_t op, how;
    const uint8_t *modrm = NULL;
    *kind = I_PLAIN;
    for (;; i++) { /* REX counts only right in front of the opcode */
        if (i >= room || i >= 15)
            return 0;
        op = p[i];
        if ((op & 0xf0) == 0x40) {
            rex_w = op & 8;
            continue;
        }
        if (op == 0x66)
            data16 = true;
        else if (op == 0x67)
            addr32 = true;
        else if (!is_prefix(op))
            break;
        rex_w = false;
    }
    i++;
    if (op == 0xc4 && i + 3 < room && is_bmi(p + i)) {
        how = (p[i] & 0x1f) == 3 ? M | B : M;
        i += 3;
        return finish(p, i, room, how, false, false, addr32);
    }
    if (op == 0xc4 || op == 0xc5 || op == 0x62 || (op == 0x8f && i < room && (p[i] & 0x38))) {
        *kind = I_UNSUPPORTED; /* VEX, EVEX, XOP: never run, so the length does not matter */
        return (int)i;
    }
    if (op == 0x0f) {
        if (i >= room)
            return 0;
        op = p[i++];
        how = two_byte[op];
        if (op == 0x38 || op == 0x3a) {
            if (i >= room)
                return 0;
            i++;
        }
        if (how & M)
            modrm = i < room ? p + i : NULL;
        if (op == 0xb8 || op == 0x0b)
            *kind = I_PLAIN;
        else if (!(how & M) || modrm)
            *kind = two_byte_kind(op, modrm);
    } else {
        how = one_byte[op];
        if (how & M)
            modrm = i < room ? p + i : NULL;
        if (op == 0xf6 && modrm && (*modrm >> 3 & 7) < 2)
            how |= B;
        if (op == 0xf7 && modrm && (*modrm >> 3 & 7) < 2)
            how |= Z;
        *kind = one_byte_kind(op);
    }
    return finish(p, i, room, how, data16 && !rex_w, rex_w, addr32);
}

static bool loops_on_itself(const uint8_t *code) /* rep, loop, jrcxz; a jump to its own first byte */
{
    const uint8_t *p = code;
    bool rep = false;
    for (; p < code + 14 && is_prefix(*p); p++)
        rep |= *p == 0xf2 || *p == 0xf3;
    if (rep && ((*p & 0xf6) == 0xa4 || (*p & 0xfe) == 0xaa || (*p & 0xfc) == 0xac || (*p & 0xfc) == 0x6c))
        return true;
    int64_t to = 1;
    if ((*p & 0xfc) == 0xe0 || *p == 0xeb || (*p & 0xf0) == 0x70)
        to = (p - code) + 2 + (int8_t)p[1];
    else if (*p == 0xe9 || *p == 0xe8)
        to = (p - code) + 5 + (int32_t)((uint32_t)p[1] | (uint32_t)p[2] << 8 | (uint32_t)p[3] << 16 | (uint32_t)p[4] << 24);
    else if (*p == 0x0f && (p[1] & 0xf0) == 0x80)
        to = (p - code) + 6 + (int32_t)((uint32_t)p[2] | (uint32_t)p[3] << 8 | (uint32_t)p[4] << 16 | (uint32_t)p[5] << 24);
    return to == 0;
}

const Scanner scanner_x86_64 = {"x86_64", 15, scan, loops_on_itself};

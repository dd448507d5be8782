/* aarch64: four bytes an instruction; of the system group (Arm ARM, C4.1), what at EL0 is undefined or traps. */
#include "hooks.h"

static enum Insn kind_of(uint32_t w)
{
    if ((w & 0xffe0001f) == 0xd4000002 || (w & 0xffe0001f) == 0xd4000003) /* hvc, smc */
        return I_PRIVILEGED;
    if ((w & 0xfffffc1f) == 0xd69f0000 || w == 0xd69f03e0 || w == 0xd6bf03e0) /* eret, drps */
        return I_PRIVILEGED;
    if ((w & 0xffc00000) != 0xd5000000)
        return I_PLAIN;
    uint32_t op0 = w >> 19 & 3, op1 = w >> 16 & 7, crn = w >> 12 & 15, op2 = w >> 5 & 7;
    if (op0 >= 2) { /* mrs, msr register: EL0 has op1 == 3; the ID space op0=3 op1=0 CRn=0 is emulated by Linux */
        uint32_t row = w & 0xffffffe0;
        if (row == 0xd53be020 || row == 0xd53be040 || row == 0xd53be0c0) /* cntpct_el0, cntvct_el0, cntvctss_el0 */
            return I_COUNTER;
        if ((w & 0xffffffc0) == 0xd53b2400) /* rndr, rndrrs */
            return I_RDRAND;
        return op1 == 3 ? I_PLAIN : I_PRIVILEGED;
    }
    if (op0 == 0 && crn == 4) { /* msr immediate: EL0 may only touch ssbs, dit, tco; cfinv, xaflag, axflag */
        if (op1 == 0)
            return op2 <= 2 ? I_PLAIN : I_PRIVILEGED;
        if (op1 == 3)
            return op2 == 6 || op2 == 7 ? I_PRIVILEGED : I_PLAIN; /* daifset, daifclr */
        return I_PRIVILEGED;
    }
    if (op0 == 1 && crn == 7 && op1 == 3) /* sys: dc zva, cache maintenance by address */
        return I_PLAIN;
    if (op0 == 1) /* sys, sysl, tlbi, at */
        return I_PRIVILEGED;
    return I_PLAIN;
}

static int scan(const uint8_t *p, size_t room, enum Insn *kind)
{
    *kind = I_PLAIN;
    if (room < 4)
        return 0;
    *kind = kind_of((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    return 4;
}

const Scanner scanner_aarch64 = {"aarch64", 0, scan, NULL};

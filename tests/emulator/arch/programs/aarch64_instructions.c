// Source: Arm ARM; <asm/hwcap.h>.  One line per feature that AT_HWCAP promises: prints results of its instructions.
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <arm_neon.h>
typedef unsigned char u8;
static void show(const char *n, const void *p, int k) { const u8 *b = p; printf("%s", n); for (int i = 0; i < k; i++) printf(" %02x", b[i]); printf("\n"); }
#define V2(name, insn) do { uint8x16_t r = a; __asm__ volatile(insn : "+w"(r) : "w"(b), "w"(c)); show(name, &r, 16); } while (0)
int main(void) { setvbuf(stdout, 0, _IONBF, 0);
    uint8_t sa[16], sb[16], sc[16];
    for (int i = 0; i < 16; i++) { sa[i] = i * 17 + 3; sb[i] = i * 29 + 7; sc[i] = 255 - i * 13; }
    uint8x16_t a = vld1q_u8(sa), b = vld1q_u8(sb), c = vld1q_u8(sc);
    V2("aese", "aese %0.16b, %1.16b"); V2("aesmc", "aesmc %0.16b, %1.16b"); V2("aesd", "aesd %0.16b, %1.16b"); V2("aesimc", "aesimc %0.16b, %1.16b");
    V2("pmull", "pmull %0.1q, %1.1d, %2.1d"); V2("pmull2", "pmull2 %0.1q, %1.2d, %2.2d");
    V2("sha1c", "sha1c %q0, %s1, %2.4s"); V2("sha1p", "sha1p %q0, %s1, %2.4s"); V2("sha1m", "sha1m %q0, %s1, %2.4s"); V2("sha1su0", "sha1su0 %0.4s, %1.4s, %2.4s"); V2("sha1su1", "sha1su1 %0.4s, %1.4s"); V2("sha1h", "sha1h %s0, %s1");
    V2("sha256h", "sha256h %q0, %q1, %2.4s"); V2("sha256h2", "sha256h2 %q0, %q1, %2.4s"); V2("sha256su0", "sha256su0 %0.4s, %1.4s"); V2("sha256su1", "sha256su1 %0.4s, %1.4s, %2.4s");
    V2("sha512h", "sha512h %q0, %q1, %2.2d"); V2("sha512h2", "sha512h2 %q0, %q1, %2.2d"); V2("sha512su0", "sha512su0 %0.2d, %1.2d"); V2("sha512su1", "sha512su1 %0.2d, %1.2d, %2.2d");
    V2("eor3", "eor3 %0.16b, %0.16b, %1.16b, %2.16b"); V2("rax1", "rax1 %0.2d, %1.2d, %2.2d"); V2("xar", "xar %0.2d, %1.2d, %2.2d, #13"); V2("bcax", "bcax %0.16b, %0.16b, %1.16b, %2.16b");
    V2("sm3ss1", "sm3ss1 %0.4s, %0.4s, %1.4s, %2.4s"); V2("sm3tt1a", "sm3tt1a %0.4s, %1.4s, %2.s[1]"); V2("sm3partw1", "sm3partw1 %0.4s, %1.4s, %2.4s"); V2("sm4e", "sm4e %0.4s, %1.4s"); V2("sm4ekey", "sm4ekey %0.4s, %1.4s, %2.4s");
    V2("sdot", "sdot %0.4s, %1.16b, %2.16b"); V2("udot", "udot %0.4s, %1.16b, %2.16b");
    V2("sqrdmlah", "sqrdmlah %0.8h, %1.8h, %2.8h"); V2("sqrdmlsh", "sqrdmlsh %0.4s, %1.4s, %2.4s");
    V2("fcadd", "fcadd %0.4s, %1.4s, %2.4s, #90"); V2("fcmla", "fcmla %0.4s, %1.4s, %2.4s, #180");
    V2("fmlal", "fmlal %0.4s, %1.4h, %2.4h"); V2("fmlsl2", "fmlsl2 %0.4s, %1.4h, %2.4h");
    V2("fadd8h", "fadd %0.8h, %1.8h, %2.8h"); V2("fmul_h", "fmul %h0, %h1, %h2"); V2("fcvtzs8h", "fcvtzs %0.8h, %1.8h"); V2("fsqrt8h", "fsqrt %0.8h, %1.8h"); V2("fmla8h", "fmla %0.8h, %1.8h, %2.8h");
    V2("frint32z", "frint32z %0.4s, %1.4s"); V2("frint64x", "frint64x %0.2d, %1.2d");
    uint32_t crc = 0x12345678; uint64_t data = 0x1122334455667788ull;
    __asm__("crc32x %w0, %w0, %1" : "+r"(crc) : "r"(data)); show("crc32x", &crc, 4);
    __asm__("crc32cx %w0, %w0, %1" : "+r"(crc) : "r"(data)); show("crc32cx", &crc, 4);
    uint64_t cell[2] __attribute__((aligned(16))) = {5, 6}, old, v = 3, w = 4;
    __asm__ volatile("ldaddal %2, %0, [%1]" : "=r"(old) : "r"(cell), "r"(v) : "memory"); printf("ldadd %lu %lu\n", old, cell[0]);
    __asm__ volatile("swpal %2, %0, [%1]" : "=r"(old) : "r"(cell), "r"(v) : "memory"); printf("swp %lu %lu\n", old, cell[0]);
    old = 3; __asm__ volatile("casal %0, %2, [%1]" : "+r"(old) : "r"(cell), "r"(w) : "memory"); printf("cas %lu %lu\n", old, cell[0]);
    { register uint64_t x0 __asm__("x0") = 4, x1 __asm__("x1") = 6, x2 __asm__("x2") = 40, x3 __asm__("x3") = 60; __asm__ volatile("caspal x0, x1, x2, x3, [%4]" : "+r"(x0), "+r"(x1) : "r"(x2), "r"(x3), "r"(cell) : "memory"); uint64_t p0 = x0, p1 = x1; printf("casp %lu %lu %lu %lu\n", p0, p1, cell[0], cell[1]); }
    __asm__ volatile("ldsmaxal %2, %0, [%1]" : "=r"(old) : "r"(cell), "r"(v) : "memory"); printf("ldsmax %lu %lu\n", old, cell[0]);
    __asm__ volatile("ldapr %0, [%1]" : "=r"(old) : "r"(cell)); printf("ldapr %lu\n", old);
    double d = 4294967301.75; int32_t i; __asm__("fjcvtzs %w0, %d1" : "=r"(i) : "w"(d) : "cc"); printf("fjcvtzs %d\n", i);
    uint64_t flags; __asm__ volatile("cmp %1, %1\n cfinv\n mrs %0, nzcv" : "=r"(flags) : "r"(v) : "cc"); printf("cfinv %lx\n", flags);
    __asm__ volatile("cmp %1, %1\n axflag\n mrs %0, nzcv" : "=r"(flags) : "r"(v) : "cc"); printf("axflag %lx\n", flags);
    __asm__ volatile("rmif %1, #1, #0xf\n mrs %0, nzcv" : "=r"(flags) : "r"(data) : "cc"); printf("rmif %lx\n", flags);
    __asm__ volatile("setf8 %w1\n mrs %0, nzcv" : "=r"(flags) : "r"(data) : "cc"); printf("setf8 %lx\n", flags);
    __asm__ volatile("dc cvau, %0\n dsb ish\n ic ivau, %0\n isb" :: "r"(cell) : "memory"); printf("cvau\n"); __asm__ volatile("dc cvac, %0" :: "r"(cell) : "memory"); printf("cvac\n"); __asm__ volatile("dc civac, %0" :: "r"(cell) : "memory"); printf("civac\n");
    static u8 block[4096] __attribute__((aligned(64))); memset(block, 1, sizeof block); uint64_t dczid; __asm__ volatile("mrs %0, dczid_el0" : "=r"(dczid)); __asm__ volatile("dc zva, %0" :: "r"(block + 64) : "memory"); int zero = 0; for (int k = 0; k < 4096; k++) zero += !block[k]; printf("zva %d\n", zero > 0);
    uint64_t ctr; uint64_t cv;__asm__ volatile("mrs %0, cntvct_el0" : "=r"(cv)); printf("cnt %d\n", cv!=0); __asm__ volatile("mrs %0, ctr_el0" : "=r"(ctr)); printf("ctr %d\n", ctr != 0);
    printf("end\n");
    return 0;
}

/* What an instruction does wrong, as signal, si_code and si_addr. */
#include "case.h"
#include <fenv.h>
#include <setjmp.h>
#include <ucontext.h>

static sigjmp_buf jump;
static siginfo_t info;
static long trapno, error_code, pc;
static void on(int n, siginfo_t *i, void *c)
{
    info = *i;
#ifdef __x86_64__
    ucontext_t *u = c;
    trapno = u->uc_mcontext.gregs[REG_TRAPNO];
    error_code = u->uc_mcontext.gregs[REG_ERR];
    pc = u->uc_mcontext.gregs[REG_RIP];
#endif
    siglongjmp(jump, 1);
}
#define FAULT(name, base, ...) \
    do { \
        if (!sigsetjmp(jump, 1)) { \
            __VA_ARGS__; \
            TELL(name, "nothing"); \
        } else \
            TELL(name, "signal %d code %d addr %#lx trap %ld error %ld", info.si_signo, info.si_code, \
                 (long)info.si_addr - (long)(base), trapno, error_code); \
    } while (0)

int main(void)
{
    struct sigaction a = {.sa_sigaction = on, .sa_flags = SA_SIGINFO | SA_NODEFER};
    int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP}, i;
    for (i = 0; i < 5; i++)
        sigaction(signals[i], &a, 0);
    char *none = mmap(0, 8192, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *ro = mmap(0, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *rw = page_end(PROT_READ | PROT_WRITE);
    FAULT("read null", 0, *(volatile char *)0);
    FAULT("write null", 0, *(volatile char *)0 = 1);
    FAULT("read unmapped", 0, *(volatile char *)0x10000);
    FAULT("read none", none, *(volatile char *)(none + 5));
    FAULT("write none", none, *(volatile char *)(none + 5) = 1);
    FAULT("write read-only", ro, *(volatile char *)(ro + 7) = 1);
    FAULT("write read-only touched", ro, *(volatile char *)ro; *(volatile char *)(ro + 7) = 1);
    FAULT("straddling read", rw, *(volatile long *)(rw - 4));
    FAULT("straddling write", rw, *(volatile long *)(rw - 4) = -1);
    TELL("nothing of it stored", "%02x", rw[-1]);
    FAULT("read kernel", 0xffffffff80000000, *(volatile char *)0xffffffff80000000);
    FAULT("read non-canonical", 0, *(volatile char *)0x1234567812345678);
    FAULT("jump to null", 0, ((void (*)(void))0)());
    FAULT("jump to data", ro, ((void (*)(void))ro)());
    FAULT("jump to none", none, ((void (*)(void))none)());
    int fd = file_with("f", "x");
    char *file = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    FAULT("past the end of the file", file, *(volatile char *)(file + 4096));
#ifdef __x86_64__
    FAULT("jump to non-canonical", 0, ((void (*)(void))0x8000000000000000)());
    volatile int zero = 0, one = 1, min = 0x80000000, minus = -1;
    FAULT("division by zero", pc, one / zero; asm volatile("" ::"r"(one / zero)));
    FAULT("division overflow", pc, asm volatile("" ::"r"(min / minus)));
    FAULT("ud2", pc, asm volatile("ud2"));
    FAULT("undefined 0f ff", pc, asm volatile(".byte 0x0f,0xff,0xc0"));
    FAULT("int3", 0, asm volatile("int3"));
    FAULT("int 3 two bytes", 0, asm volatile(".byte 0xcd,3"));
    FAULT("int 0x81", 0, asm volatile("int $0x81"));
    FAULT("hlt", 0, asm volatile("hlt"));
    FAULT("cli", 0, asm volatile("cli"));
    FAULT("in", 0, asm volatile("in %%dx,%%al" ::"d"(0x80) : "al"));
    FAULT("rdmsr", 0, asm volatile("rdmsr" ::"c"(0x10) : "eax", "edx"));
    FAULT("mov from cr3", 0, asm volatile("mov %%cr3,%%rax" ::: "rax"));
    FAULT("lgdt", 0, asm volatile("lgdt (%0)" ::"r"(rw - 64)));
    FAULT("swapgs", 0, asm volatile("swapgs"));
    FAULT("wbinvd", 0, asm volatile("wbinvd"));
    FAULT("invlpg", 0, asm volatile("invlpg (%0)" ::"r"(rw - 64)));
    FAULT("single step", pc, asm volatile("pushf; orl $0x100,(%%rsp); popf; nop" ::: "memory", "cc"));
    FAULT("lock on a register", pc, asm volatile(".byte 0xf0,0x01,0xc0"));
    FAULT("invalid in 64 bit", pc, asm volatile(".byte 0x06"));
    FAULT("far call through memory", 0, asm volatile("lcall *(%0)" ::"r"(memset(rw - 64, 0, 16))));
    feenableexcept(FE_DIVBYZERO);
    volatile double d = 0;
    FAULT("sse divide", pc, d = 1 / d);
    fedisableexcept(FE_ALL_EXCEPT);
    feclearexcept(FE_ALL_EXCEPT);
    int flags[] = {FE_DIVBYZERO, FE_INVALID, FE_OVERFLOW, FE_UNDERFLOW, FE_INEXACT};
    volatile double big = 1e308, small = 1e-308, zero_d = 0;
    d = 1 / zero_d;
    TELL("flag divide", "%#x", fetestexcept(FE_ALL_EXCEPT));
    feclearexcept(FE_ALL_EXCEPT);
    d = zero_d / zero_d;
    TELL("flag invalid", "%#x", fetestexcept(FE_ALL_EXCEPT));
    feclearexcept(FE_ALL_EXCEPT);
    d = big * big;
    TELL("flag overflow", "%#x", fetestexcept(FE_ALL_EXCEPT));
    feclearexcept(FE_ALL_EXCEPT);
    d = small * small;
    TELL("flag underflow", "%#x", fetestexcept(FE_ALL_EXCEPT));
    unsigned short cw;
    unsigned mx;
    asm volatile("fnstcw %0; stmxcsr %1" : "=m"(cw), "=m"(mx));
    TELL("control words", "%#x %#x", cw, mx & 0xffc0);
    unsigned short cs, ss, ds, es, fs, gs;
    asm volatile("mov %%cs,%0; mov %%ss,%1; mov %%ds,%2; mov %%es,%3; mov %%fs,%4; mov %%gs,%5"
                 : "=r"(cs), "=r"(ss), "=r"(ds), "=r"(es), "=r"(fs), "=r"(gs));
    TELL("segments", "%x %x %x %x %x %x", cs, ss, ds, es, fs, gs);
    long fl;
    asm volatile("xor %%eax,%%eax; pushf; pop %0" : "=r"(fl)::"eax", "cc");
    TELL("flags", "%#lx", fl & 0x3fda2a);
    long double l = 1.0L / 3;
    BYTES("long double", &l, 10);
    for (i = 0; i < 4; i++) {
        int modes[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD, FE_TOWARDZERO};
        fesetround(modes[i]);
        volatile double third = 1.0 / 3.0, v = 2.5, w = -2.5;
        long long a1, b1;
        asm volatile("cvtsd2si %1,%0" : "=r"(a1) : "x"(v));
        asm volatile("cvtsd2si %1,%0" : "=r"(b1) : "x"(w));
        volatile long double ld = 1.0L;
        ld /= 3;
        TELL(case_format("rounding %d", i), "%a %lld %lld %La", third, a1, b1, (long double)ld);
    }
    fesetround(FE_TONEAREST);
    long rcx, r11;
    asm volatile("syscall" : "=c"(rcx), "=a"(fl) : "a"(39) : "r11", "memory");
    TELL("syscall leaves rcx = next pc", "%d", rcx != 0);
    asm volatile("mov $-1,%%rax; syscall" : "=a"(fl)::"rcx", "r11", "memory");
    TELL("syscall -1", "%ld", fl);
    asm volatile("syscall" : "=a"(fl) : "a"(9999L) : "rcx", "r11", "memory");
    TELL("syscall 9999", "%ld", fl);
    asm volatile("syscall" : "=a"(fl) : "a"(0x40000000L + 39) : "rcx", "r11", "memory");
    TELL("syscall x32", "%ld", fl);
    TELL("cpuid vendor is there", "%d", ({ unsigned m = 0, b, c, e; asm volatile("cpuid" : "+a"(m), "=b"(b), "=c"(c), "=d"(e)); m >= 7; }));
#endif
    return 0;
}

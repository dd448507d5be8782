/* Signal frames: what a handler sees in its ucontext, what it changes there, and what sigreturn makes of it.
   Source: rt_sigreturn(2), <sys/ucontext.h>, <asm/sigcontext.h>. */
#include "case.h"
#include <errno.h>
#include <setjmp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>

static volatile int hits, seen;
static volatile long saved[8];
static sigjmp_buf back;

static void install(int n, void (*f)(int, siginfo_t *, void *), int flags)
{
    struct sigaction a = {.sa_sigaction = f, .sa_flags = SA_SIGINFO | flags};
    sigaction(n, &a, 0);
}

static void look(int n, siginfo_t *i, void *c)
{
    ucontext_t *u = c;
    hits++;
    saved[0] = i->si_signo;
    saved[1] = i->si_code;
    saved[2] = u->uc_link == 0;
    saved[3] = ((uintptr_t)u & 7) == 0;
    saved[4] = u->uc_stack.ss_flags;
    saved[5] = sigismember(&u->uc_sigmask, SIGUSR2);
}
static void block_usr2(int n, siginfo_t *i, void *c) { sigaddset(&((ucontext_t *)c)->uc_sigmask, SIGUSR2); }
static void jump(int n, siginfo_t *i, void *c) { siglongjmp(back, n); }

static char alt[65536] __attribute__((aligned(64)));
static volatile int nested_on_alt;
static void on_alt(int n, siginfo_t *i, void *c)
{
    char here;
    hits++;
    seen = &here >= alt && &here < alt + sizeof alt;
    saved[4] = ((ucontext_t *)c)->uc_stack.ss_flags;
    saved[6] = ((ucontext_t *)c)->uc_stack.ss_size;
    if (n == SIGUSR1) {
        raise(SIGUSR2);
        nested_on_alt = seen;
        stack_t now;
        sigaltstack(0, &now);
        saved[7] = now.ss_flags;
    }
}

#ifdef __x86_64__
static void eflags(int n, siginfo_t *i, void *c)
{
    ucontext_t *u = c;
    unsigned long now;
    __asm__ volatile("pushfq; pop %0" : "=r"(now));
    saved[0] = !!(now & 0x400);
    saved[1] = !!(u->uc_mcontext.gregs[REG_EFL] & 0x400);
}
static void change(int n, siginfo_t *i, void *c)
{
    ucontext_t *u = c;
    u->uc_mcontext.gregs[REG_R12] = 0x1234567890;
    u->uc_mcontext.gregs[REG_RAX] = 77;
    u->uc_mcontext.gregs[REG_EFL] |= 0x41 | 1 << 9 | 3 << 12; /* CF ZF; IOPL is not ours */
    u->uc_mcontext.fpregs->_xmm[5].element[0] = 0xabcdef;
    u->uc_mcontext.fpregs->mxcsr = 0x7f80;
}
static void fp_seen(int n, siginfo_t *i, void *c)
{
    ucontext_t *u = c;
    unsigned cw = 0, mxcsr = 0;
    unsigned long long x[2];
    __asm__ volatile("movdqu %%xmm5, %0; fnstcw %1; stmxcsr %2" : "=m"(x), "=m"(cw), "=m"(mxcsr));
    saved[0] = x[0];
    saved[1] = cw & 0xffff;
    saved[2] = mxcsr;
    saved[3] = u->uc_mcontext.fpregs->_xmm[5].element[0];
    saved[4] = u->uc_mcontext.fpregs->mxcsr;
    saved[5] = u->uc_mcontext.fpregs->cwd;
    saved[6] = u->uc_mcontext.fpregs->ftw;
    saved[7] = ((uintptr_t)u->uc_mcontext.fpregs & 63) == 0;
}
static void no_fpstate(int n, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.fpregs = 0; }
static void bad_mxcsr(int n, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.fpregs->mxcsr = 0xffffffff; }
static void bad_cs(int n, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.gregs[REG_CSGSFS] = 0x10; }
static void bad_rip(int n, siginfo_t *i, void *c) { ((ucontext_t *)c)->uc_mcontext.gregs[REG_RIP] = 0x10; }
static void skip_two(int n, siginfo_t *i, void *c)
{
    ucontext_t *u = c;
    saved[0] = u->uc_mcontext.gregs[REG_TRAPNO];
    saved[1] = u->uc_mcontext.gregs[REG_ERR];
    saved[2] = u->uc_mcontext.gregs[REG_CR2];
    saved[3] = (long)i->si_addr;
    saved[4] = i->si_code;
    u->uc_mcontext.gregs[REG_RIP] += 2;
}
static void x86(void)
{
    install(SIGUSR1, eflags, 0);
    __asm__ volatile("std" ::: "memory");
    long tid = getpid();
    __asm__ volatile("syscall; cld" : "=a"(tid) : "a"(SYS_kill), "D"(tid), "S"(SIGUSR1) : "rcx", "r11", "memory");
    TELL("DF in handler", "%ld saved %ld", saved[0], saved[1]);

    install(SIGUSR1, change, 0);
    unsigned long flags, r12, rax, mx = 0x1f80;
    unsigned long long x[2] = {1, 2};
    __asm__ volatile("movdqu %[x], %%xmm5; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; xor %%r12, %%r12; syscall;"
                     "mov %%rax, %[rax]; mov %%r12, %[r12]; pushfq; pop %[f]; movdqu %%xmm5, %[x]; stmxcsr %[mx]"
                     : [rax] "=r"(rax), [r12] "=r"(r12), [f] "=r"(flags), [x] "+m"(x), [mx] "+m"(mx)
                     :: "rax", "rdi", "rsi", "rcx", "r11", "r12", "xmm5", "memory");
    TELL("changed registers", "%lx %lu flags %lx xmm %llx mxcsr %lx", r12, rax, flags & 0x3247, x[0], mx & 0xffff);
    mx = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(mx));

    install(SIGUSR1, fp_seen, 0);
    unsigned short cw = 0x27f;
    mx = 0x1fa0;
    x[0] = 0x5555;
    __asm__ volatile("fldcw %[cw]; fld1; ldmxcsr %[mx]; movdqu %[x], %%xmm5; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; syscall;"
                     "movdqu %%xmm5, %[x]; stmxcsr %[mx]; fnstcw %[cw]; fstp %%st(0); fninit"
                     : [x] "+m"(x), [mx] "+m"(mx), [cw] "+m"(cw)::"rax", "rdi", "rsi", "rcx", "r11", "xmm5", "memory");
    TELL("FP in handler", "xmm %lx cw %lx mxcsr %lx", saved[0], saved[1], saved[2]);
    TELL("FP in frame", "xmm %lx mxcsr %lx cw %lx tag %lx aligned %ld", saved[3], saved[4], saved[5], saved[6], saved[7]);
    TELL("FP after", "xmm %llx cw %x mxcsr %lx", x[0], cw, mx & 0xffff);
    mx = 0x1f80;
    __asm__ volatile("ldmxcsr %0" ::"m"(mx));

    install(SIGUSR1, no_fpstate, 0);
    x[0] = 9;
    mx = 0x1fa0;
    __asm__ volatile("ldmxcsr %[mx]; movdqu %[x], %%xmm5; mov $39, %%eax; syscall; mov %%eax, %%edi; mov $10, %%esi; mov $62, %%eax; syscall;"
                     "movdqu %%xmm5, %[x]; stmxcsr %[mx]"
                     : [x] "+m"(x), [mx] "+m"(mx)::"rax", "rdi", "rsi", "rcx", "r11", "xmm5", "memory");
    TELL("no fpstate", "xmm %llx mxcsr %lx", x[0], mx & 0xffff);

    install(SIGSEGV, skip_two, 0);
    __asm__ volatile("mov %%al, (%0)" ::"D"(0x10L) : "memory");
    TELL("write fault", "trap %ld err %lx cr2 %lx addr %lx code %ld", saved[0], saved[1], saved[2], saved[3], saved[4]);
    __asm__ volatile("mov (%0), %%al" ::"D"(0x20L) : "rax", "memory");
    TELL("read fault", "trap %ld err %lx cr2 %lx addr %lx code %ld", saved[0], saved[1], saved[2], saved[3], saved[4]);
    char *ro = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    __asm__ volatile("mov %%al, (%0)" ::"D"(ro) : "memory");
    TELL("protection fault", "trap %ld err %lx same %d code %ld", saved[0], saved[1], saved[2] == (long)ro, saved[4]);
    install(SIGILL, skip_two, 0);
    __asm__ volatile("ud2");
    TELL("ud2", "trap %ld err %lx code %ld", saved[0], saved[1], saved[4]);
    install(SIGSEGV, skip_two, 0);
    __asm__ volatile("cli; nop");
    TELL("cli", "trap %ld err %lx code %ld addr %lx", saved[0], saved[1], saved[4], saved[3]);
    install(SIGFPE, skip_two, 0);
    __asm__ volatile("xor %%edx, %%edx; mov $1, %%eax; xor %%ecx, %%ecx; div %%ecx" ::: "rax", "rcx", "rdx");
    TELL("div", "trap %ld err %lx code %ld", saved[0], saved[1], saved[4]);

    IN_CHILD("bad mxcsr", { signal(SIGSEGV, SIG_DFL); install(SIGUSR1, bad_mxcsr, 0); raise(SIGUSR1); });
    IN_CHILD("bad cs", { signal(SIGSEGV, SIG_DFL); install(SIGUSR1, bad_cs, 0); raise(SIGUSR1); });
    IN_CHILD("bad rip", { signal(SIGSEGV, SIG_DFL); install(SIGUSR1, bad_rip, 0); raise(SIGUSR1); });
    IN_CHILD("sigreturn from nowhere", {
        signal(SIGSEGV, SIG_DFL);
        __asm__ volatile("mov $64, %%rsp; mov $15, %%eax; syscall" ::: "memory");
    });
    IN_CHILD("no restorer", {
        struct { void *h; unsigned long f; void *r; unsigned long m; } k = {(void *)look, SA_SIGINFO, 0, 0};
        signal(SIGSEGV, SIG_DFL);
        syscall(SYS_rt_sigaction, SIGUSR1, &k, 0, 8);
        raise(SIGUSR1);
    });
}
#else
static void x86(void) {}
#endif

int main(void)
{
    no_cores();
    install(SIGUSR1, look, 0);
    raise(SIGUSR1);
    TELL("siginfo", "%ld code %ld link %ld aligned %ld ss_flags %ld", saved[0], saved[1], saved[2], saved[3], saved[4]);

    install(SIGUSR1, block_usr2, 0);
    raise(SIGUSR1);
    sigset_t now;
    sigprocmask(SIG_BLOCK, 0, &now);
    TELL("mask changed in frame", "%d", sigismember(&now, SIGUSR2));
    sigemptyset(&now);
    sigprocmask(SIG_SETMASK, &now, 0);

    install(SIGSEGV, jump, 0);
    int r = sigsetjmp(back, 1);
    if (!r)
        *(volatile int *)8 = 1;
    TELL("longjmp out", "%d", r);
    r = sigsetjmp(back, 1);
    if (!r)
        *(volatile int *)8 = 1;
    TELL("longjmp out again", "%d", r);

    stack_t s = {alt, 0, sizeof alt}, old;
    sigaltstack(&s, &old);
    TELL("no altstack before", "flags %d", old.ss_flags);
    install(SIGUSR1, on_alt, SA_ONSTACK);
    install(SIGUSR2, on_alt, SA_ONSTACK);
    hits = 0;
    raise(SIGUSR1);
    TELL("altstack", "hits %d on it %d nested %d flags %ld size %ld inside %ld", hits, seen, nested_on_alt, saved[4], saved[6], saved[7]);
    install(SIGUSR2, on_alt, 0);
    raise(SIGUSR2);
    TELL("without SA_ONSTACK", "on it %d", seen);
    IN_CHILD("altstack overflow", {
        stack_t tiny = {alt, 0, MINSIGSTKSZ};
        CASE("tiny altstack", sigaltstack(&tiny, 0));
        signal(SIGSEGV, SIG_DFL);
        _exit(0);
    });
    IN_CHILD("stack overflow without altstack", {
        s.ss_flags = SS_DISABLE;
        sigaltstack(&s, 0);
        install(SIGSEGV, look, 0);
        __asm__ volatile("" ::: "memory");
        char *bad = mmap(0, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
#ifdef __x86_64__
        __asm__ volatile("mov %0, %%rsp; push $1" ::"r"(bad + 2048) : "memory");
#else
        __asm__ volatile("mov sp, %0; str x0, [sp]" ::"r"(bad + 2048) : "memory");
#endif
    });
    x86();
    return 0;
}

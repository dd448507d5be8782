/* ptrace(2) as a tracer in the guest uses it: stops in order, registers, memory, options and their events. */
#include "case.h"
#include <elf.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/reg.h>
#include <sys/uio.h>
#include <sys/user.h>

static int status;
static volatile long variable = 0x1122334455667788;
static long pt(int request, pid_t pid, void *a, void *d)
{
    return syscall(SYS_ptrace, request, pid, a, d);
}
static const char *waited(pid_t pid)
{
    status = 0;
    pid_t r = waitpid(pid, &status, __WALL);
    return r < 0 ? case_format("%s", case_errno(errno)) : case_format("%s%s", r == pid ? "" : "other ", case_status(status));
}
static const char *names[] = {[0] = "read", [1] = "write", [39] = "getpid", [60] = "exit", [231] = "exit_group", [62] = "kill",
                              [110] = "getppid", [59] = "execve", [56] = "clone", [57] = "fork", [58] = "vfork"};

static pid_t traced(void (*body)(void))
{
    pid_t c = fork();
    if (!c) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        body();
        _exit(9);
    }
    waited(c);
    return c;
}
static void nothing(void)
{
}
static void two_calls(void)
{
    syscall(39);
    syscall(110);
}
static void crash(void)
{
    *(volatile int *)0x10 = 1;
}
static void signal_self(void)
{
    signal(SIGUSR1, SIG_IGN);
    raise(SIGUSR1);
    raise(SIGTERM);
}
static void forks(void)
{
    pid_t c = fork();
    if (!c)
        _exit(3);
    waitpid(c, 0, 0);
}
static void vforks(void)
{
    pid_t c = vfork();
    if (!c)
        _exit(3);
    waitpid(c, 0, 0);
}
static void execs(void)
{
    execl("/bin/true", "true", (char *)0);
}
static void sleeps(void)
{
    for (;;)
        pause();
}
static void finish(pid_t c)
{
    kill(c, SIGKILL);
    waitpid(c, &status, __WALL);
}

int main(void)
{
    no_cores();
    pid_t c;
    long r;
    siginfo_t info;
    int i;
#ifdef __x86_64__
    struct user_regs_struct regs;
    struct user_fpregs_struct fp;
#endif
    int requests[] = {PTRACE_PEEKTEXT, PTRACE_POKEDATA, PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_SYSCALL, PTRACE_DETACH, PTRACE_KILL,
                      PTRACE_GETSIGINFO, PTRACE_SETOPTIONS, PTRACE_GETEVENTMSG, PTRACE_GETREGSET, PTRACE_INTERRUPT, PTRACE_LISTEN,
                      PTRACE_GETSIGMASK};
    for (i = 0; i < ARRAY_LENGTH(requests); i++)
        CASEF(pt(requests[i], 999999, 0, 0), "nobody %#x", requests[i]);
    c = fork();
    if (!c)
        sleeps();
    for (i = 0; i < ARRAY_LENGTH(requests); i++)
        CASEF(pt(requests[i], c, 0, 0), "not traced %#x", requests[i]);
    CASE("attach", pt(PTRACE_ATTACH, c, 0, 0));
    TELL("attached stop", "%s", waited(c));
    CASE("attach again", pt(PTRACE_ATTACH, c, 0, 0));
    CASE("seize attached", pt(PTRACE_SEIZE, c, 0, 0));
    CASE("detach with a signal", pt(PTRACE_DETACH, c, 0, (void *)SIGTERM));
    TELL("dies of it", "%s", waited(c));
    CASE("attach self", pt(PTRACE_ATTACH, getpid(), 0, 0));
    CASE("unknown request of self", pt(12345, getpid(), 0, 0));

    c = traced(two_calls);
    TELL("first stop", "%s", case_status(status));
    CASE("getsiginfo", pt(PTRACE_GETSIGINFO, c, 0, &info));
    TELL("siginfo", "%d %d", info.si_signo, info.si_code);
    CASE("unknown request", pt(12345, c, 0, 0));
    errno = 0;
    r = ptrace(PTRACE_PEEKDATA, c, &variable, 0);
    TELL("peek", "%#lx", r);
    CASE("poke", pt(PTRACE_POKEDATA, c, (void *)&variable, (void *)0x99));
    TELL("peek back", "%#lx", ptrace(PTRACE_PEEKDATA, c, &variable, 0));
    TELL("own is untouched", "%#lx", variable);
    CASE("peek unmapped", ptrace(PTRACE_PEEKDATA, c, (void *)8, 0));
    CASE("poke unmapped", pt(PTRACE_POKEDATA, c, (void *)8, 0));
    CASE("poke text", pt(PTRACE_POKETEXT, c, (void *)crash, (void *)ptrace(PTRACE_PEEKTEXT, c, (void *)crash, 0)));
    struct iovec mine = {&r, 8}, theirs = {(void *)&variable, 8};
    CASE("process_vm_readv", process_vm_readv(c, &mine, 1, &theirs, 1, 0));
    TELL("read", "%#lx", r);
    r = 0x77;
    CASE("process_vm_writev", process_vm_writev(c, &mine, 1, &theirs, 1, 0));
    TELL("written", "%#lx", ptrace(PTRACE_PEEKDATA, c, &variable, 0));
    theirs.iov_base = (void *)8;
    CASE("process_vm_readv unmapped", process_vm_readv(c, &mine, 1, &theirs, 1, 0));
    CASE("process_vm_readv flags", process_vm_readv(c, &mine, 1, &theirs, 1, 1));
    CASE("process_vm_readv nobody", process_vm_readv(999999, &mine, 1, &theirs, 1, 0));
    CASE("setoptions bad", pt(PTRACE_SETOPTIONS, c, 0, (void *)0x40000000));
    CASE("setoptions", pt(PTRACE_SETOPTIONS, c, 0, (void *)PTRACE_O_TRACESYSGOOD));
#ifdef __x86_64__
    for (i = 0; i < 6; i++) {
        pt(PTRACE_SYSCALL, c, 0, 0);
        const char *w = waited(c);
        if (!WIFSTOPPED(status))
            break;
        pt(PTRACE_GETREGS, c, 0, &regs);
        struct __ptrace_syscall_info si;
        long n = pt(PTRACE_GET_SYSCALL_INFO, c, (void *)sizeof si, &si);
        TELL(case_format("syscall stop %d", i), "%s nr %lld rax %s op %d size %ld", w, regs.orig_rax,
             (long)regs.rax == -38 ? "ENOSYS" : "result", si.op, n);
    }
    TELL("the end", "%s", case_status(status));
    if (WIFSTOPPED(status))
        finish(c);

    c = traced(two_calls);
    CASE("getregs", pt(PTRACE_GETREGS, c, 0, &regs));
    TELL("segments", "%llx %llx %llx", regs.cs, regs.ss, regs.ds);
    struct iovec iov = {&regs, sizeof regs};
    CASE("getregset prstatus", pt(PTRACE_GETREGSET, c, (void *)NT_PRSTATUS, &iov));
    TELL("its length", "%zu", iov.iov_len);
    iov.iov_len = 16;
    CASE("getregset short", pt(PTRACE_GETREGSET, c, (void *)NT_PRSTATUS, &iov));
    TELL("its short length", "%zu", iov.iov_len);
    iov.iov_len = 13;
    CASE("getregset odd", pt(PTRACE_GETREGSET, c, (void *)NT_PRSTATUS, &iov));
    iov = (struct iovec){&fp, sizeof fp};
    CASE("getregset fp", pt(PTRACE_GETREGSET, c, (void *)NT_PRFPREG, &iov));
    CASE("getregset unknown", pt(PTRACE_GETREGSET, c, (void *)0x9999, &iov));
    CASE("getfpregs", pt(PTRACE_GETFPREGS, c, 0, &fp));
    TELL("control", "%x %x", fp.cwd, fp.mxcsr);
    fp.mxcsr = 0xffffffff;
    CASE("setfpregs bad mxcsr", pt(PTRACE_SETFPREGS, c, 0, &fp));
    fp.mxcsr = 0x1f80;
    fp.xmm_space[0] = 0x12345678;
    CASE("setfpregs", pt(PTRACE_SETFPREGS, c, 0, &fp));
    pt(PTRACE_GETFPREGS, c, 0, &fp);
    TELL("xmm0", "%x", fp.xmm_space[0]);
    CASE("peekuser rip", ptrace(PTRACE_PEEKUSER, c, (void *)(8 * RIP), 0) == (long)regs.rip);
    CASE("peekuser unaligned", ptrace(PTRACE_PEEKUSER, c, (void *)3, 0));
    CASE("peekuser far", ptrace(PTRACE_PEEKUSER, c, (void *)100000, 0));
    CASE("pokeuser rbx", pt(PTRACE_POKEUSER, c, (void *)(8 * RBX), (void *)0x5555));
    pt(PTRACE_GETREGS, c, 0, &regs);
    TELL("rbx", "%llx", regs.rbx);
    struct user_regs_struct changed = regs;
    changed.cs = 0;
    CASE("setregs bad cs", pt(PTRACE_SETREGS, c, 0, &changed));
    changed = regs;
    changed.eflags |= 0x3000;
    CASE("setregs iopl", pt(PTRACE_SETREGS, c, 0, &changed));
    pt(PTRACE_GETREGS, c, 0, &changed);
    TELL("iopl kept", "%llx", changed.eflags & 0x3000);
    changed = regs;
    changed.fs_base = 1ull << 63;
    CASE("setregs fs_base", pt(PTRACE_SETREGS, c, 0, &changed));
    /* a system call made for the tracee */
    long text = ptrace(PTRACE_PEEKTEXT, c, (void *)nothing, 0);
    pt(PTRACE_POKETEXT, c, (void *)nothing, (void *)0xcc050f);
    changed = regs;
    changed.rip = (long)nothing;
    changed.rax = 39;
    changed.orig_rax = -1;
    pt(PTRACE_SETREGS, c, 0, &changed);
    pt(PTRACE_CONT, c, 0, 0);
    TELL("injected stops", "%s", waited(c));
    pt(PTRACE_GETREGS, c, 0, &changed);
    TELL("injected getpid", "%d", changed.rax == c);
    TELL("pc behind the int3", "%lld", changed.rip - (long)nothing);
    pt(PTRACE_GETSIGINFO, c, 0, &info);
    TELL("siginfo of int3", "%d %d", info.si_signo, info.si_code);
    pt(PTRACE_POKETEXT, c, (void *)nothing, (void *)text);
    pt(PTRACE_SETREGS, c, 0, &regs);
    int steps = 0;
    long pcs = 0;
    for (i = 0; i < 20; i++) {
        pt(PTRACE_SINGLESTEP, c, 0, 0);
        waited(c);
        if (!WIFSTOPPED(status))
            break;
        long now = ptrace(PTRACE_PEEKUSER, c, (void *)(8 * RIP), 0);
        pcs += now != (long)regs.rip;
        steps++;
    }
    TELL("single steps", "%d moved %ld last %s", steps, pcs, case_status(status));
    pt(PTRACE_GETSIGINFO, c, 0, &info);
    TELL("siginfo of a step", "%d %d", info.si_signo, info.si_code);
    CASE("cont bad signal", pt(PTRACE_CONT, c, 0, (void *)99));
    CASE("cont", pt(PTRACE_CONT, c, 0, 0));
    TELL("ends", "%s", waited(c));
#endif
    CASE("dead", pt(PTRACE_CONT, c, 0, 0));

    c = traced(signal_self);
    pt(PTRACE_CONT, c, 0, 0);
    TELL("ignored signal still stops", "%s", waited(c));
    pt(PTRACE_CONT, c, 0, 0);
    TELL("next signal", "%s", waited(c));
    pt(PTRACE_CONT, c, 0, 0);
    TELL("suppressed", "%s", waited(c));
    c = traced(signal_self);
    pt(PTRACE_CONT, c, 0, 0);
    waited(c);
    pt(PTRACE_CONT, c, 0, 0);
    waited(c);
    pt(PTRACE_CONT, c, 0, (void *)SIGTERM);
    TELL("passed on", "%s", waited(c));
    c = traced(crash);
    pt(PTRACE_CONT, c, 0, 0);
    TELL("crash", "%s", waited(c));
    pt(PTRACE_GETSIGINFO, c, 0, &info);
    TELL("crash siginfo", "%d %d %#lx", info.si_signo, info.si_code, (long)info.si_addr);
    info.si_code = 5;
    CASE("setsiginfo", pt(PTRACE_SETSIGINFO, c, 0, &info));
    pt(PTRACE_CONT, c, 0, (void *)SIGSEGV);
    TELL("crashed", "%s", waited(c));

    struct { const char *name; void (*body)(void); long option; } events[] = {
        {"fork", forks, PTRACE_O_TRACEFORK}, {"vfork", vforks, PTRACE_O_TRACEVFORK}, {"vfork done", vforks, PTRACE_O_TRACEVFORKDONE},
        {"exec", execs, PTRACE_O_TRACEEXEC}, {"exit", nothing, PTRACE_O_TRACEEXIT}, {"exec without option", execs, 0}};
    for (i = 0; i < ARRAY_LENGTH(events); i++) {
        c = traced(events[i].body);
        CASEF(pt(PTRACE_SETOPTIONS, c, 0, (void *)(events[i].option | PTRACE_O_EXITKILL)), "%s options", events[i].name);
        for (int turn = 0; turn < 6; turn++) {
            pt(PTRACE_CONT, c, 0, (void *)(long)(WIFSTOPPED(status) && status >> 16 == 0 && WSTOPSIG(status) == SIGCHLD ? SIGCHLD : 0));
            TELL(case_format("%s turn %d", events[i].name, turn), "%s", waited(c));
            if (!WIFSTOPPED(status))
                break;
            unsigned long message = 0;
            pt(PTRACE_GETEVENTMSG, c, 0, &message);
            int event = status >> 16;
            TELL(case_format("%s message %d", events[i].name, turn), "%s",
                 event == PTRACE_EVENT_EXIT ? case_format("%#lx", message) : message == (unsigned long)c ? "itself" : message ? "another" : "0");
            if (event == PTRACE_EVENT_FORK || event == PTRACE_EVENT_VFORK) {
                int kept = status;
                TELL(case_format("%s child", events[i].name), "%s", waited(message));
                pt(PTRACE_CONT, message, 0, 0);
                if (event == PTRACE_EVENT_FORK)
                    TELL(case_format("%s child ends", events[i].name), "%s", waited(message));
                else {
                    TELL(case_format("%s child ends", events[i].name), "%s", waited(message));
                }
                status = kept;
            }
        }
    }

    c = fork();
    if (!c)
        sleeps();
    CASE("seize", pt(PTRACE_SEIZE, c, 0, (void *)PTRACE_O_TRACESYSGOOD));
    CASE("peek while running", ptrace(PTRACE_PEEKDATA, c, &variable, 0));
    CASE("seize with data", pt(PTRACE_SEIZE, c, (void *)1, 0));
    usleep(20000);
    CASE("interrupt", pt(PTRACE_INTERRUPT, c, 0, 0));
    TELL("interrupted", "%s", waited(c));
    CASE("listen in an interrupt stop", pt(PTRACE_LISTEN, c, 0, 0));
    CASE("listening is not stopped", pt(PTRACE_CONT, c, 0, 0));
    CASE("interrupt a listener", pt(PTRACE_INTERRUPT, c, 0, 0));
    TELL("its stop", "%s", waited(c));
    CASE("cont", pt(PTRACE_CONT, c, 0, 0));
    kill(c, SIGSTOP);
    TELL("signal stop", "%s", waited(c));
    pt(PTRACE_CONT, c, 0, (void *)SIGSTOP);
    TELL("group stop", "%s", waited(c));
    CASE("listen", pt(PTRACE_LISTEN, c, 0, 0));
    kill(c, SIGCONT);
    TELL("trap after cont", "%s", waited(c));
    CASE("detach", pt(PTRACE_DETACH, c, 0, 0));
    finish(c);
    TELL("killed", "%s", case_status(status));
    CASE("gone", pt(PTRACE_ATTACH, c, 0, 0));
    IN_CHILD("traceme twice", {
        CASE("traceme", pt(PTRACE_TRACEME, 0, 0, 0));
        CASE("traceme again", pt(PTRACE_TRACEME, 0, 0, 0));
        _exit(0);
    });
    c = traced(sleeps);
    pt(PTRACE_CONT, c, 0, 0);
    kill(c, SIGKILL);
    TELL("SIGKILL does not stop", "%s", waited(c));
    return 0;
}

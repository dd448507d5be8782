/* signal(7): dispositions, masks, queues, siginfo, alternate stacks, restart rules. */
#include "case.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

static volatile int count, order[64], n_order, code, value, last_errno;
static volatile pid_t from;
static void note(int n, siginfo_t *i, void *c)
{
    count++;
    if (n_order < 64)
        order[n_order++] = n;
    code = i->si_code;
    value = i->si_value.sival_int;
    from = i->si_pid;
}
static void handle(int n, int flags)
{
    struct sigaction a = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | flags};
    sigaction(n, &a, 0);
}
static void mask(int how, int n)
{
    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, n);
    sigprocmask(how, &s, 0);
}
static const char *orders(void)
{
    static char t[256];
    t[0] = 0;
    for (int i = 0; i < n_order; i++)
        sprintf(t + strlen(t), "%d ", order[i]);
    n_order = 0;
    return t;
}
static void alarm_in(int us)
{
    struct itimerval t = {{0, 0}, {0, us}};
    setitimer(ITIMER_REAL, &t, 0);
}

/* What blocking calls do when a handler ran, with and without SA_RESTART. */
static void blocking(int restart)
{
    const char *k = restart ? "restart" : "no restart";
    int p[2], sv[2], full[2], ep = epoll_create1(0), i;
    char b[70000];
    pipe(p);
    pipe(full);
    socketpair(AF_UNIX, SOCK_STREAM, 0, sv);
    handle(SIGALRM, restart ? SA_RESTART : 0);
    fcntl(full[1], F_SETFL, O_NONBLOCK);
    while (write(full[1], b, 4096) > 0)
        ;
    fcntl(full[1], F_SETFL, 0);
    /* A child unblocks what restarts, after a while. */
#define B(text, e, unblock) \
    do { \
        pid_t c = fork(); \
        if (!c) { \
            setitimer(ITIMER_REAL, &(struct itimerval){0}, 0); \
            usleep(120000); \
            unblock; \
            _exit(0); \
        } \
        count = 0; \
        alarm_in(40000); \
        errno = 0; \
        long r = (long)(e); \
        int err = errno; \
        alarm_in(0); \
        kill(c, SIGKILL); \
        while (waitpid(c, 0, 0) < 0 && errno == EINTR) \
            ; \
        TELL(case_format("%s %s", k, text), "%ld %s, %d handled", r, r < 0 ? case_errno(err) : "", count); \
    } while (0)
    struct pollfd pf = {p[0], POLLIN};
    struct epoll_event ev;
    struct timespec long_sleep = {0, 200000000}, left = {0, 0};
    fd_set set;
    FD_ZERO(&set);
    FD_SET(p[0], &set);
    struct timeval tv = {0, 200000};
    B("read pipe", read(p[0], b, 1), write(p[1], "x", 1));
    B("write full pipe", write(full[1], b, 4096), read(full[0], b, 65536));
    B("recv", recv(sv[0], b, 1, 0), send(sv[1], "x", 1, 0));
    struct timeval to = {0, 200000};
    setsockopt(sv[0], SOL_SOCKET, SO_RCVTIMEO, &to, sizeof to);
    B("recv with timeout", recv(sv[0], b, 1, 0), (void)0);
    B("poll", poll(&pf, 1, 200), (void)0);
    B("select", select(p[0] + 1, &set, 0, 0, &tv), (void)0);
    B("epoll_wait", epoll_wait(ep, &ev, 1, 200), (void)0);
    B("nanosleep", nanosleep(&long_sleep, &left), (void)0);
    TELL(case_format("%s nanosleep left some", k), "%d", left.tv_nsec > 1000000 && left.tv_nsec < 200000000);
    B("clock_nanosleep", clock_nanosleep(CLOCK_MONOTONIC, 0, &long_sleep, 0), (void)0);
    B("pause", pause(), (void)0);
    sigset_t none;
    sigemptyset(&none);
    B("sigsuspend", sigsuspend(&none), (void)0);
    B("sigtimedwait", sigtimedwait(&none, 0, &long_sleep), (void)0);
    B("waitpid", waitpid(-1, 0, 0) > 0, (void)0);
    int word = 0;
    B("futex", syscall(SYS_futex, &word, 0, 0, &long_sleep, 0, 0), (void)0);
    int f1 = open("lock", O_CREAT | O_RDWR, 0600), f2 = open("lock", O_RDWR);
    B("open fifo", (mkfifo("fifo", 0600), open("fifo", O_RDONLY)) > 0, open("fifo", O_WRONLY));
    unlink("fifo");
    struct flock lk = {.l_type = F_WRLCK};
    flock(f1, LOCK_EX);
    B("flock", flock(f2, LOCK_EX), flock(f1, LOCK_UN));
    flock(f1, LOCK_UN);
    for (i = 0; i < 2; i++)
        close(p[i]), close(sv[i]), close(full[i]);
    close(ep);
}

static char stack[65536] __attribute__((aligned(16)));
static void on_stack(int n)
{
    char here;
    stack_t now;
    sigaltstack(0, &now);
    TELL("handler on the alternate stack", "%d flags %d", &here > stack && &here < stack + sizeof stack, now.ss_flags);
    CASE("change it while on it", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, 0));
}
static sigjmp_buf jump;
static void overflow_handler(int n, siginfo_t *i, void *c)
{
    siglongjmp(jump, 1);
}
static int recurse(int n)
{
    volatile char pad[4096];
    pad[0] = n;
    return recurse(n + 1) + pad[0];
}
static void nested(int n)
{
    static int depth;
    if (depth++ < 3)
        raise(n);
    count++;
}
static void masks_inside(int n)
{
    sigset_t s;
    sigprocmask(SIG_BLOCK, 0, &s);
    TELL("mask inside", "self %d usr2 %d term %d", sigismember(&s, n), sigismember(&s, SIGUSR2), sigismember(&s, SIGTERM));
}
static void change_context(int n, siginfo_t *i, void *c)
{
#ifdef __x86_64__
    ((ucontext_t *)c)->uc_mcontext.gregs[REG_RBX] = 0x1234;
#endif
    sigaddset(&((ucontext_t *)c)->uc_sigmask, SIGUSR2);
}

static void resets(int number)
{
}

int main(void)
{
    int i;
    struct sigaction act, old;
    no_cores();
    for (i = 0; i <= 66; i++)
        CASEF(syscall(SYS_rt_sigaction, i, 0, &act, 8), "query %d", i);
    act = (struct sigaction){.sa_handler = SIG_IGN};
    CASE("ignore SIGKILL", sigaction(SIGKILL, &act, 0));
    CASE("ignore SIGSTOP", sigaction(SIGSTOP, &act, 0));
    CASE("sigset size", syscall(SYS_rt_sigaction, SIGUSR1, 0, 0, 4));
    CASE("mask size", syscall(SYS_rt_sigprocmask, 0, 0, 0, 16));
    CASE("mask how", syscall(SYS_rt_sigprocmask, 7, &(long){0}, 0, 8));
    CASE("mask how unused", syscall(SYS_rt_sigprocmask, 7, 0, 0, 8));
    for (i = 1; i <= 64; i++) {
        if (i == 32 || i == 33)
            continue;
        pid_t c = fork();
        if (!c) {
            setpgid(0, 0);
            raise(i);
            _exit(7);
        }
        int s;
        waitpid(c, &s, WUNTRACED);
        TELL(case_format("default of %d", i), "%s", case_status(s));
        if (WIFSTOPPED(s)) {
            kill(c, SIGCONT);
            waitpid(c, &s, 0);
            TELL(case_format("continued after %d", i), "%s", case_status(s));
        }
    }
    CASE("kill 0", kill(getpid(), 0));
    CASE("kill 65", kill(getpid(), 65));
    CASE("kill -1", kill(getpid(), -1));
    CASE("kill nobody", kill(999999, 0));
    CASE("kill no group", kill(-999999, SIGTERM));
    CASE("tgkill wrong group", syscall(SYS_tgkill, 1, getpid(), 0));
    CASE("tgkill self", syscall(SYS_tgkill, getpid(), getpid(), 0));
    CASE("tgkill 0", syscall(SYS_tgkill, 0, 0, 0));
    CASE("tkill negative", syscall(SYS_tkill, -1, 0));
    CASE("raise 0", raise(0));

    handle(SIGUSR1, 0);
    handle(SIGUSR2, 0);
    raise(SIGUSR1);
    TELL("raise", "%d code %d self %d", count, code, from == getpid());
    kill(getpid(), SIGUSR1);
    TELL("kill", "%d code %d", count, code);
    sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 77});
    TELL("sigqueue", "%d code %d value %d", count, code, value);
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = SI_ASYNCNL};
    CASE("rt_sigqueueinfo self", syscall(SYS_rt_sigqueueinfo, getpid(), SIGUSR1, &info));
    TELL("its code", "%d", code);
    info.si_code = SI_USER;
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    CASE("rt_sigqueueinfo SI_USER to another", syscall(SYS_rt_sigqueueinfo, child, SIGUSR1, &info));
    info.si_code = SI_TKILL;
    CASE("rt_sigqueueinfo SI_TKILL to another", syscall(SYS_rt_sigqueueinfo, child, SIGUSR1, &info));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);

    /* Pending: standard ones merge, real-time ones queue; lowest number first. */
    sigset_t all, set;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, 0);
    count = n_order = 0;
    for (i = SIGRTMAX; i >= SIGRTMIN; i -= 10)
        handle(i, 0);
    for (i = 0; i < 3; i++)
        kill(getpid(), SIGUSR1);
    for (i = SIGRTMAX; i >= SIGRTMIN; i -= 10)
        sigqueue(getpid(), i, (union sigval){i}), sigqueue(getpid(), i, (union sigval){i + 1});
    kill(getpid(), SIGUSR2);
    sigpending(&set);
    TELL("pending", "%d %d %d", sigismember(&set, SIGUSR1), sigismember(&set, SIGUSR2), sigismember(&set, SIGHUP));
    sigemptyset(&set);
    sigaddset(&set, SIGRTMAX);
    CASE("sigtimedwait takes", sigtimedwait(&set, &info, &(struct timespec){0}));
    TELL("what it took", "%d %d", info.si_code, info.si_value.sival_int);
    CASE("sigtimedwait again", sigwaitinfo(&set, &info));
    TELL("second value", "%d", info.si_value.sival_int);
    CASE("sigtimedwait nothing", sigtimedwait(&set, &info, &(struct timespec){0, 1000}));
    CASE("sigtimedwait time", sigtimedwait(&set, &info, &(struct timespec){0, -1}));
    sigemptyset(&all);
    sigprocmask(SIG_SETMASK, &all, 0);
    TELL("delivery order (handlers nest: last first)", "%s", orders());
    TELL("delivered", "%d", count);
    sigprocmask(SIG_BLOCK, 0, &set);
    mask(SIG_BLOCK, SIGKILL);
    sigprocmask(SIG_BLOCK, 0, &set);
    TELL("SIGKILL cannot be blocked", "%d", sigismember(&set, SIGKILL));

    signal(SIGUSR1, SIG_IGN);
    mask(SIG_BLOCK, SIGUSR1);
    raise(SIGUSR1);
    sigpending(&set);
    TELL("ignored while blocked stays pending", "%d", sigismember(&set, SIGUSR1));
    handle(SIGUSR1, 0);
    signal(SIGUSR1, SIG_IGN);
    sigpending(&set);
    TELL("ignoring discards", "%d", sigismember(&set, SIGUSR1));
    mask(SIG_UNBLOCK, SIGUSR1);

    act = (struct sigaction){.sa_handler = masks_inside};
    sigaddset(&act.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &act, 0);
    raise(SIGUSR1);
    act = (struct sigaction){.sa_handler = masks_inside, .sa_flags = SA_NODEFER};
    sigaction(SIGUSR1, &act, 0);
    raise(SIGUSR1);
    act = (struct sigaction){.sa_handler = nested, .sa_flags = SA_NODEFER};
    sigaction(SIGUSR1, &act, 0);
    count = 0;
    raise(SIGUSR1);
    TELL("nested handlers", "%d", count);
    act = (struct sigaction){.sa_handler = nested, .sa_flags = SA_RESETHAND};
    sigaction(SIGUSR1, &act, 0);
    sigaction(SIGUSR1, 0, &old);
    TELL("old flags", "%#x", old.sa_flags & ~0x04000000);
    IN_CHILD("reset hand", {
        act.sa_handler = on_stack;
        signal(SIGUSR2, SIG_IGN);
        struct sigaction a = {.sa_sigaction = note, .sa_flags = SA_RESETHAND | SA_SIGINFO};
        sigaction(SIGUSR1, &a, 0);
        raise(SIGUSR1);
        sigaction(SIGUSR1, 0, &old);
        TELL("reset to default", "%d", old.sa_handler == SIG_DFL);
        raise(SIGUSR1);
    });
    CASE("altstack small", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = 100}, 0));
    CASE("altstack flags", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack, .ss_flags = 77}, 0));
    CASE("altstack", sigaltstack(&(stack_t){.ss_sp = stack, .ss_size = sizeof stack}, 0));
    act = (struct sigaction){.sa_handler = on_stack, .sa_flags = SA_ONSTACK};
    sigaction(SIGUSR1, &act, 0);
    raise(SIGUSR1);
    stack_t now;
    sigaltstack(0, &now);
    TELL("altstack read back", "%d %zu %d", now.ss_sp == stack, now.ss_size, now.ss_flags);
    act = (struct sigaction){.sa_sigaction = overflow_handler, .sa_flags = SA_ONSTACK | SA_SIGINFO};
    sigaction(SIGSEGV, &act, 0);
    if (!sigsetjmp(jump, 1))
        recurse(0);
    TELL("stack overflow caught", "yes");
    IN_CHILD("stack overflow without alternate stack", {
        sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, 0);
        recurse(0);
    });
    CASE("altstack off", sigaltstack(&(stack_t){.ss_flags = SS_DISABLE}, 0));
    IN_CHILD("blocked fault kills", {
        mask(SIG_BLOCK, SIGSEGV);
        *(volatile int *)8 = 1;
    });
    IN_CHILD("ignored fault kills", {
        signal(SIGSEGV, SIG_IGN);
        *(volatile int *)8 = 1;
    });
    act = (struct sigaction){.sa_sigaction = change_context, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &act, 0);
    raise(SIGUSR1);
    sigprocmask(SIG_BLOCK, 0, &set);
    TELL("mask changed through the context", "%d", sigismember(&set, SIGUSR2));
    mask(SIG_UNBLOCK, SIGUSR2);

    /* exec keeps ignored and mask, resets handlers */
    blocking(0);
    blocking(1);
    signal(SIGPIPE, SIG_DFL);
    int p[2];
    pipe(p);
    close(p[0]);
    IN_CHILD("SIGPIPE", write(p[1], "x", 1));
    signal(SIGPIPE, SIG_IGN);
    CASE("EPIPE", write(p[1], "x", 1));

    handle(SIGCHLD, SA_NOCLDSTOP);
    count = 0;
    if (!(child = fork()))
        _exit(9);
    while (waitpid(child, &i, 0) < 0)
        ;
    TELL("SIGCHLD", "%d code %d status %s", count, code, case_status(i));
    act = (struct sigaction){.sa_handler = SIG_IGN};
    sigaction(SIGCHLD, &act, 0);
    if (!(child = fork()))
        _exit(9);
    CASE("wait with SIGCHLD ignored", waitpid(child, 0, 0));
    act = (struct sigaction){.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_NOCLDWAIT};
    sigaction(SIGCHLD, &act, 0);
    if (!(child = fork()))
        _exit(9);
    CASE("wait with SA_NOCLDWAIT", waitpid(child, 0, 0));
    signal(SIGCHLD, SIG_DFL);

    handle(SIGALRM, 0);
    CASE("alarm", alarm(100));
    CASE("alarm left", alarm(0));
    CASE("alarm none", alarm(0));
    struct itimerval it = {{0, 0}, {0, 1000000}};
    CASE("setitimer usec", setitimer(ITIMER_REAL, &it, 0));
    CASE("setitimer which", setitimer(9, &it, 0));
    count = 0;
    it = (struct itimerval){{0, 5000}, {0, 5000}};
    setitimer(ITIMER_REAL, &it, 0);
    while (count < 3)
        pause();
    it = (struct itimerval){0};
    setitimer(ITIMER_REAL, &it, 0);
    TELL("interval timer", "%d or more, code %d", 3, code);
    count = 0;
    handle(SIGVTALRM, 0);
    it = (struct itimerval){{0, 0}, {0, 10000}};
    setitimer(ITIMER_VIRTUAL, &it, 0);
    while (!count)
        ;
    TELL("virtual timer", "%d", count);
    timer_t timer;
    struct sigevent sev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 4, .sigev_value.sival_int = 55};
    handle(SIGRTMIN + 4, 0);
    CASE("timer_create", timer_create(CLOCK_MONOTONIC, &sev, &timer));
    struct itimerspec its = {{0, 0}, {0, 5000000}}, got;
    count = 0;
    CASE("timer_settime", timer_settime(timer, 0, &its, 0));
    while (!count)
        pause();
    TELL("timer signal", "code %d value %d", code, value);
    CASE("timer_gettime", timer_gettime(timer, &got));
    TELL("disarmed", "%ld", got.it_value.tv_nsec);
    CASE("overrun", timer_getoverrun(timer));
    CASE("timer_delete", timer_delete(timer));
    CASE("timer_delete again", syscall(SYS_timer_delete, 12345));
    CASE("timer_settime nsec", syscall(SYS_timer_settime, 12345, 0, &its, 0));
    sev.sigev_signo = 99;
    CASE("timer_create signal", timer_create(CLOCK_MONOTONIC, &sev, &timer));
    CASE("timer_create clock", timer_create(99, 0, &timer));
    struct sigaction once = {.sa_handler = SIG_IGN}, kept;
    once.sa_sigaction = (void *)resets;
    once.sa_flags = SA_SIGINFO | SA_RESETHAND;
    sigaddset(&once.sa_mask, SIGUSR2);
    sigaction(SIGUSR1, &once, 0);
    raise(SIGUSR1);
    sigaction(SIGUSR1, 0, &kept);
    TELL("reset handler", "default %d siginfo %d resethand %d mask %d", kept.sa_handler == SIG_DFL,
         !!(kept.sa_flags & SA_SIGINFO), !!(kept.sa_flags & SA_RESETHAND), sigismember(&kept.sa_mask, SIGUSR2));
    IN_CHILD("no room for signals", struct rlimit none = {0, 0}; sigset_t all; sigfillset(&all);
             sigprocmask(SIG_BLOCK, &all, 0); setrlimit(RLIMIT_SIGPENDING, &none);
             CASE("tgkill", syscall(SYS_tgkill, getpid(), getpid(), SIGRTMIN));
             CASE("sigqueue", sigqueue(getpid(), SIGRTMIN, (union sigval){0}));
             CASE("kill", kill(getpid(), SIGRTMIN)); CASE("tgkill standard", syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1));
             CASE("sigqueue standard", sigqueue(getpid(), SIGUSR2, (union sigval){0})));
    return 0;
}

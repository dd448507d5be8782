/* Who lives how long: leaders, threads, exec from a thread, orphans, and what is left of them. */
#include "case.h"
#include <poll.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <linux/futex.h>

static pid_t gettid_(void) { return syscall(SYS_gettid); }
static _Atomic int step;
static pthread_t leader;
static int pipes[2];

static void *outlive(void *arg)
{
    usleep(20000);
    TELL("thread outlives its leader", "%d", kill(getpid(), 0));
    char path[64], state = '?', text[512];
    snprintf(path, sizeof path, "/proc/self/stat");
    FILE *f = fopen(path, "r");
    if (f && fgets(text, sizeof text, f) && strrchr(text, ')'))
        state = strrchr(text, ')')[2];
    TELL("leader is a zombie meanwhile", "%c", state);
    syscall(SYS_exit_group, 7);
    return arg;
}
static void *exec_away(void *arg)
{
    execl("/bin/sh", "sh", "-c", arg, (char *)0);
    return 0;
}
static void *block_in_read(void *arg)
{
    char c;
    step++;
    return (void *)(long)read(pipes[0], &c, 1);
}
static void *block_in_futex(void *arg)
{
    static int word;
    step++;
    syscall(SYS_futex, &word, FUTEX_WAIT, 0, 0, 0, 0);
    return 0;
}
static void *block_in_sleep(void *arg)
{
    step++;
    sleep(1000);
    return 0;
}
static void *spin(void *arg)
{
    step++;
    for (;;)
        ;
    return 0;
}
static void all_kinds(void)
{
    pthread_t t;
    pipe(pipes);
    pthread_create(&t, 0, block_in_read, 0);
    pthread_create(&t, 0, block_in_futex, 0);
    pthread_create(&t, 0, block_in_sleep, 0);
    pthread_create(&t, 0, spin, 0);
    while (step < 4)
        usleep(1000);
}
static void *group_exit(void *arg)
{
    exit(23);
}
static void *crash(void *arg)
{
    *(volatile int *)8 = 1;
    return 0;
}
static void *joins_leader(void *arg)
{
    TELL("join the leader", "%d", pthread_join(leader, 0));
    exit(4);
}
static int tid_of_thread;
static void *note_tid(void *arg)
{
    tid_of_thread = gettid_();
    return 0;
}
static void *child_of_thread(void *arg)
{
    pid_t c = fork();
    if (!c)
        _exit(getppid() == getpid() ? 1 : 5);
    *(pid_t *)arg = c;
    return 0;
}
static void nothing(int n) {}

int main(void)
{
    pthread_t t;
    int s;
    IN_CHILD("leader exits first", {
        pthread_create(&t, 0, outlive, 0);
        pthread_exit(0);
    });
    IN_CHILD("thread joins the leader", {
        leader = pthread_self();
        pthread_create(&t, 0, joins_leader, 0);
        pthread_exit(0);
    });
    IN_CHILD("exec from a thread", {
        char script[64];
        snprintf(script, sizeof script, "test $$ = %d && exit 11; exit 12", getpid());
        all_kinds();
        pthread_create(&t, 0, exec_away, script);
        pause();
    });
    IN_CHILD("exec from a thread whose leader has exited", {
        char *script = malloc(64);
        snprintf(script, 64, "test $$ = %d && exit 13; exit 12", getpid());
        pthread_create(&t, 0, exec_away, script);
        pthread_exit(0);
    });
    IN_CHILD("exec with threads in every state", {
        all_kinds();
        execl("/bin/sh", "sh", "-c", "exit 14", (char *)0);
    });
    IN_CHILD("exec that fails leaves the threads", {
        all_kinds();
        CASE("exec nothing", execl("/nonexistent", "x", (char *)0));
        int n = write(pipes[1], "x", 1);
        exit(n == 1 ? 15 : 16);
    });
    IN_CHILD("exit_group with threads in every state", {
        all_kinds();
        exit(17);
    });
    IN_CHILD("exit_group by a thread", {
        all_kinds();
        pthread_create(&t, 0, group_exit, 0);
        pause();
    });
    IN_CHILD("a thread crashes", {
        all_kinds();
        pthread_create(&t, 0, crash, 0);
        pause();
    });
    IN_CHILD("SIGKILL by a thread", {
        all_kinds();
        kill(getpid(), SIGKILL);
        pause();
    });
    IN_CHILD("SIGTERM while everybody blocks it", {
        sigset_t all;
        sigfillset(&all);
        sigprocmask(SIG_BLOCK, &all, 0);
        all_kinds();
        kill(getpid(), SIGTERM);
        sigset_t pending;
        sigpending(&pending);
        TELL("pending in the process", "%d", sigismember(&pending, SIGTERM));
        struct timespec zero = {0, 0};
        TELL("taken by sigtimedwait", "%d", sigtimedwait(&all, 0, &zero));
        exit(18);
    });
    /* a thread that has gone */
    pthread_create(&t, 0, note_tid, 0);
    pthread_join(t, 0);
    CASE("tgkill a gone thread", syscall(SYS_tgkill, getpid(), tid_of_thread, 0));
    CASE("tkill a gone thread", syscall(SYS_tkill, tid_of_thread, SIGUSR1));
    CASE("kill a gone thread's number", kill(tid_of_thread, 0));
    CASE("sched_getscheduler of a gone thread", syscall(SYS_sched_getscheduler, tid_of_thread));
    CASE("getpgid of a gone thread", getpgid(tid_of_thread));
    for (int r = 0; r < 32; r++)
        CASEF(ptrace(r ? r : PTRACE_CONT, tid_of_thread, 0, 0), "ptrace %d of a gone thread", r);
    CASE("setoptions of a gone thread", ptrace(PTRACE_SETOPTIONS, tid_of_thread, 0, 0));
    CASE("seize a gone thread", ptrace(PTRACE_SEIZE, tid_of_thread, 0, 0));
    CASE("interrupt a gone thread", ptrace(PTRACE_INTERRUPT, tid_of_thread, 0, 0));
    CASE("getregset of a gone thread", ptrace(PTRACE_GETREGSET, tid_of_thread, 1, 0));
    /* children and threads */
    pid_t c = 0;
    pthread_create(&t, 0, child_of_thread, &c);
    pthread_join(t, 0);
    CASE("main waits for a thread's child", waitpid(c, &s, 0) == c ? 0 : -1);
    TELL("its status", "%s", case_status(s));
    /* a zombie is still somebody */
    if (!(c = fork()))
        _exit(0);
    siginfo_t info;
    waitid(P_PID, c, &info, WEXITED | WNOWAIT);
    CASE("kill a zombie", kill(c, 0));
    CASE("kill a zombie for good", kill(c, SIGKILL));
    CASE("getpgid of a zombie", getpgid(c) == getpgrp() ? 0 : -1);
    CASE("setpgid of a zombie", setpgid(c, 0));
    CASE("attach to a zombie", ptrace(PTRACE_ATTACH, c, 0, 0));
    CASE("reap it", waitpid(c, &s, 0) == c ? 0 : -1);
    CASE("kill it reaped", kill(c, 0));
    CASE("wait again", waitpid(c, &s, 0));
    /* orphans */
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!(c = fork())) {
        if (!fork()) {
            usleep(30000);
            _exit(getppid() == 1 ? 21 : 22);
        }
        _exit(20);
    }
    CASE("middle", waitpid(c, &s, 0) == c ? 0 : -1);
    TELL("middle status", "%s", case_status(s));
    CASE("the orphan is mine", wait(&s) > 0 ? 0 : -1);
    TELL("orphan status", "%s", case_status(s));
    prctl(PR_SET_CHILD_SUBREAPER, 0);
    IN_CHILD("parent death signal", {
        int p[2];
        pipe(p);
        if (!fork()) {
            if (!fork()) {
                sigset_t set;
                sigemptyset(&set);
                sigaddset(&set, SIGUSR2);
                sigprocmask(SIG_BLOCK, &set, 0);
                prctl(PR_SET_PDEATHSIG, SIGUSR2);
                write(p[1], "r", 1);
                struct timespec wait_ = {5, 0};
                char got = sigtimedwait(&set, 0, &wait_) == SIGUSR2 ? 'y' : 'n';
                write(p[1], &got, 1);
                _exit(0);
            }
            usleep(30000);
            _exit(0);
        }
        char two[2];
        read(p[0], two, 1);
        read(p[0], two + 1, 1);
        TELL("it came", "%c", two[1]);
        exit(0);
    });
    IN_CHILD("SIGCHLD ignored: no zombies", {
        signal(SIGCHLD, SIG_IGN);
        if (!(c = fork()))
            _exit(3);
        CASE("wait finds nobody", waitpid(c, &s, 0));
        exit(0);
    });
    IN_CHILD("SA_NOCLDWAIT", {
        struct sigaction a = {.sa_handler = nothing, .sa_flags = SA_NOCLDWAIT};
        sigaction(SIGCHLD, &a, 0);
        if (!(c = fork()))
            _exit(3);
        CASE("wait finds nobody either", waitpid(c, &s, 0));
        exit(0);
    });
    IN_CHILD("stopped orphans hear of it", {
        prctl(PR_SET_CHILD_SUBREAPER, 1);
        if (!(c = fork())) {
            setsid();
            if (!fork()) {
                setpgid(0, 0);
                signal(SIGHUP, SIG_DFL);
                raise(SIGSTOP);
                _exit(1);
            }
            usleep(50000);
            _exit(0);
        }
        waitpid(c, &s, 0);
        CASE("orphan found", wait(&s) > 0 ? 0 : -1);
        TELL("orphan died of", "%s", case_status(s));
        exit(0);
    });
    /* clone(2) takes any number for the signal its child ends with */
    int ends[] = {0, 1, 64, 65, 100, 255};
    signal(SIGHUP, nothing);
    signal(64, nothing);
    for (int i = 0; i < 6; i++) {
        if (!(c = syscall(SYS_clone, ends[i], 0, 0, 0, 0)))
            _exit(6);
        CASEF(waitpid(c, &s, __WALL) == c ? 0 : -1, "child that ends with signal %d", ends[i]);
        TELL(case_format("its status, signal %d", ends[i]), "%s", case_status(s));
    }
    /* vfork */
    volatile int shared = 1;
    if (!(c = vfork())) {
        shared = 2;
        _exit(9);
    }
    TELL("vfork shares memory", "%d", shared);
    waitpid(c, &s, 0);
    TELL("vfork child", "%s", case_status(s));
    if (!(c = vfork())) {
        execl("/bin/true", "true", (char *)0);
        _exit(127);
    }
    waitpid(c, &s, 0);
    TELL("vfork and exec", "%s", case_status(s));
    if (!(c = vfork()))
        kill(getpid(), SIGKILL);
    waitpid(c, &s, 0);
    TELL("vfork child killed", "%s", case_status(s));
    return 0;
}

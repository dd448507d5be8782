/* fork(2), wait(2), execve(2), process groups and sessions, clone(2)'s refusals. */
#include "case.h"
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif
static pid_t child_exits(int code)
{
    pid_t c = fork();
    if (!c)
        _exit(code);
    return c;
}
static const char *kind(siginfo_t *i, pid_t expected)
{
    return case_format("signo %d code %d status %d pid %s", i->si_signo, i->si_code, i->si_status,
                       i->si_pid == expected ? "right" : i->si_pid ? "other" : "0");
}
static int in_thread_stack[4096];
static int cloned(void *p)
{
    *(int *)p = 42;
    return 5;
}

int main(void)
{
    int s, i, p[2];
    pid_t c, d;
    siginfo_t info;
    struct rusage ru;
    no_cores();
    CASE("wait nobody", wait(&s));
    CASE("waitpid not mine", waitpid(1, &s, 0));
    CASE("waitpid options", waitpid(-1, &s, 0x100));
    CASE("waitpid int min", waitpid(-2147483647 - 1, &s, 0));
    CASE("waitid type", waitid(99, 0, &info, WEXITED));
    CASE("waitid no options", waitid(P_ALL, 0, &info, 0));
    CASE("waitid options", waitid(P_ALL, 0, &info, 0x400));
    CASE("waitid nobody", waitid(P_ALL, 0, &info, WEXITED));
    CASE("waitid pid 0", waitid(P_PID, 0, &info, WEXITED));
    CASE("waitid pidfd bad", waitid(P_PIDFD, 99, &info, WEXITED));
    int codes[] = {0, 1, 127, 128, 255, 256, -1, 511};
    for (i = 0; i < ARRAY_LENGTH(codes); i++) {
        c = child_exits(codes[i]);
        waitpid(c, &s, 0);
        TELL(case_format("exit code %d", codes[i]), "%s", case_status(s));
    }
    c = child_exits(3);
    CASE("waitid leaves it", waitid(P_PID, c, &info, WEXITED | WNOWAIT));
    TELL("waitid says", "%s", kind(&info, c));
    CASE("waitid takes it", waitid(P_PID, c, 0, WEXITED));
    CASE("gone", waitid(P_PID, c, &info, WEXITED));
    /* A group of its own: in an orphaned one SIGTSTP would be dropped. */
    if (!(c = fork())) {
        setpgid(0, 0);
        for (;;)
            pause();
    }
    setpgid(c, c);
    CASE("no hang", waitpid(c, &s, WNOHANG));
    memset(&info, 9, sizeof info);
    CASE("waitid no hang", waitid(P_PID, c, &info, WEXITED | WNOHANG));
    TELL("info cleared", "%d %d", info.si_signo, info.si_pid);
    kill(c, SIGSTOP);
    CASE("stopped", waitpid(c, &s, WUNTRACED) == c);
    TELL("stopped status", "%s", case_status(s));
    CASE("reported once", waitpid(c, &s, WUNTRACED | WNOHANG));
    kill(c, SIGCONT);
    CASE("continued", waitpid(c, &s, WCONTINUED) == c);
    TELL("continued status", "%s", case_status(s));
    kill(c, SIGTSTP);
    waitid(P_PID, c, &info, WSTOPPED);
    TELL("waitid stopped", "%s", kind(&info, c));
    kill(c, SIGCONT);
    waitid(P_PID, c, &info, WCONTINUED);
    TELL("waitid continued", "%s", kind(&info, c));
    kill(c, SIGTERM);
    waitid(P_PID, c, &info, WEXITED);
    TELL("waitid killed", "%s", kind(&info, c));
    if (!(c = fork())) {
        abort();
    }
    wait4(c, &s, 0, &ru);
    TELL("abort", "%s", case_status(s));
    TELL("rusage has something", "%d", ru.ru_maxrss > 0);

    /* which child a group or a pid selects */
    c = child_exits(11);
    if (!(d = fork())) {
        setpgid(0, 0);
        _exit(12);
    }
    setpgid(d, d);
    waitid(P_PGID, d, &info, WEXITED | WNOWAIT);
    TELL("P_PGID", "%s", kind(&info, d));
    CASE("waitpid group", waitpid(-d, &s, 0) == d);
    TELL("group's status", "%s", case_status(s));
    CASE("waitpid group gone", waitpid(-d, &s, 0));
    CASE("waitpid own group", waitpid(0, &s, 0) == c);
    TELL("own group's status", "%s", case_status(s));

    CASE("setpgid negative", setpgid(0, -1));
    CASE("setpgid nobody", setpgid(999999, 0));
    CASE("setpgid into nowhere", setpgid(0, 999999));
    CASE("getpgid nobody", getpgid(999999));
    CASE("getsid nobody", getsid(999999));
    CASE("getpgid self", getpgid(0) == getpgrp());
    IN_CHILD("session", {
        CASE("setsid", setsid() == getpid());
        CASE("setsid again", setsid());
        CASE("leader cannot change its group", setpgid(0, 0));
        CASE("sid pgid pid", getsid(0) == getpid() && getpgrp() == getpid());
    });
    IN_CHILD("group leader", {
        setpgid(0, 0);
        CASE("setsid of a group leader", setsid());
    });
    if (!(c = fork())) {
        execl("/bin/sleep", "sleep", "10", (char *)0);
        _exit(1);
    }
    usleep(200000);
    CASE("setpgid after exec", setpgid(c, c));
    kill(c, SIGKILL);
    waitpid(c, &s, 0);
    /* orphans */
    pipe(p);
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    if (!(c = fork())) {
        if (!fork()) {
            usleep(50000);
            _exit(33);
        }
        _exit(0);
    }
    waitpid(c, &s, 0);
    CASE("subreaper gets the orphan", wait(&s) > 0);
    TELL("orphan's status", "%s", case_status(s));
    IN_CHILD("parent death signal", {
        CASE("set", prctl(PR_SET_PDEATHSIG, SIGUSR1));
        CASE("get", (prctl(PR_GET_PDEATHSIG, &s), s));
        CASE("bad", prctl(PR_SET_PDEATHSIG, 99));
    });

    /* exec */
    char *argv[] = {"x", 0}, *envp[] = {"A=b", 0};
    mkdir("d", 0755);
    close(file_with("empty", ""));
    chmod("empty", 0755);
    close(file_with("text", "hello"));
    close(file_with("garbage", "\x7f" "ELF garbage garbage garbage"));
    chmod("garbage", 0755);
    close(file_with("nointerp", "#!/no/such/interpreter\n"));
    chmod("nointerp", 0755);
    close(file_with("emptyinterp", "#!\n"));
    chmod("emptyinterp", 0755);
    close(file_with("script", "#!/bin/echo  one two \n"));
    chmod("script", 0755);
    close(file_with("loop", "#!./loop\n"));
    chmod("loop", 0755);
    symlink("circle", "circle");
    const char *names[] = {"", "d", "empty", "text", "garbage", "nointerp", "emptyinterp", "loop", "circle", "nothing", "text/x", "d/"};
    for (i = 0; i < ARRAY_LENGTH(names); i++)
        CASEF(execve(names[i], argv, envp), "execve '%s'", names[i]);
    IN_CHILD("script", execve("script", argv, envp));
    IN_CHILD("script argument", execve("./script", (char *[]){"x", "three", 0}, envp));
    IN_CHILD("environment", execve("/usr/bin/env", (char *[]){"env", 0}, envp));
    IN_CHILD("no arguments", execve("/bin/true", 0, 0));
    IN_CHILD("true", execl("/bin/true", "true", (char *)0));
    IN_CHILD("false", execl("/bin/false", "false", (char *)0));
    IN_CHILD("fexecve", fexecve(open("/bin/echo", O_RDONLY), (char *[]){"echo", "by descriptor", 0}, envp));
    IN_CHILD("execveat", syscall(SYS_execveat, open("/bin", O_RDONLY), "echo", (char *[]){"echo", "at", 0}, envp, 0));
    CASE("execveat flags", syscall(SYS_execveat, AT_FDCWD, "x", argv, envp, 0x10));
    CASE("execveat nofollow", (symlink("/bin/true", "link"), syscall(SYS_execveat, AT_FDCWD, "link", argv, envp, AT_SYMLINK_NOFOLLOW)));
    char *huge = malloc(200000);
    memset(huge, 'h', 200000);
    huge[199999] = 0;
    CASE("argument too long", execve("/bin/true", (char *[]){"true", huge, 0}, envp));
    IN_CHILD("signals over exec", {
        signal(SIGUSR1, SIG_IGN);
        signal(SIGUSR2, (void *)child_exits);
        execl("/bin/sh", "sh", "-c", "grep -E 'SigIgn|SigCgt' /proc/self/status | cut -c1-30", (char *)0);
    });
    IN_CHILD("close on exec", {
        int a = open("/dev/null", O_RDONLY | O_CLOEXEC), b = open("/dev/null", O_RDONLY);
        execl("/bin/sh", "sh", "-c", case_format("test -e /proc/self/fd/%d; echo $?; test -e /proc/self/fd/%d; echo $?", a, b), (char *)0);
    });
    IN_CHILD("vfork shares memory", {
        volatile int shared = 1;
        if (!(c = vfork())) {
            shared = 2;
            _exit(6);
        }
        waitpid(c, &s, 0);
        TELL("vfork", "%d %s", shared, case_status(s));
    });
    CASE("vfork exec error", ({
        volatile int e = 0;
        if (!(c = vfork())) {
            execve("nothing", argv, envp);
            e = errno;
            _exit(0);
        }
        waitpid(c, 0, 0);
        e == ENOENT;
    }));
    pid_t sp;
    CASE("posix_spawn", posix_spawn(&sp, "/bin/true", 0, 0, argv, envp));
    waitpid(sp, &s, 0);
    TELL("spawned", "%s", case_status(s));
    CASE("posix_spawn nothing", posix_spawn(&sp, "nothing", 0, 0, argv, envp));

    /* clone */
    int value = 0;
    char *stack = malloc(65536);
    c = clone(cloned, stack + 65536, SIGCHLD, &value);
    waitpid(c, &s, 0);
    TELL("clone copy", "%d %s", value, case_status(s));
    c = clone(cloned, stack + 65536, CLONE_VM | SIGCHLD, &value);
    waitpid(c, &s, 0);
    TELL("clone shared memory", "%d %s", value, case_status(s));
    c = clone(cloned, stack + 65536, CLONE_VM, &value);
    CASE("no exit signal, plain wait", waitpid(c, &s, 0));
    CASE("no exit signal, __WALL", waitpid(c, &s, __WALL) == c);
    c = clone(cloned, stack + 65536, CLONE_VM | CLONE_VFORK, &value);
    CASE("__WCLONE", waitpid(c, &s, __WCLONE) == c);
    int pidfd = -1;
    c = clone(cloned, stack + 65536, CLONE_PIDFD | SIGCHLD, &value, &pidfd);
    CASE("pidfd", pidfd >= 0);
    CASE("pidfd cloexec", fcntl(pidfd, F_GETFD));
    CASE("waitid pidfd", waitid(P_PIDFD, pidfd, &info, WEXITED));
    TELL("waitid pidfd says", "%s", kind(&info, c));
    CASE("pidfd_send_signal dead", syscall(SYS_pidfd_send_signal, pidfd, 0, 0, 0));
    CASE("pidfd_open self", (pidfd = syscall(SYS_pidfd_open, getpid(), 0)) >= 0);
    CASE("pidfd_send_signal 0", syscall(SYS_pidfd_send_signal, pidfd, 0, 0, 0));
    CASE("pidfd_open nobody", syscall(SYS_pidfd_open, 999999, 0));
    CASE("pidfd_open flags", syscall(SYS_pidfd_open, getpid(), 1));
    CASE("pidfd_open 0", syscall(SYS_pidfd_open, 0, 0));
    CASE("pidfd_send_signal file", syscall(SYS_pidfd_send_signal, 0, 0, 0, 0));
    CASE("pidfd_send_signal to /proc/self", syscall(SYS_pidfd_send_signal, open("/proc/self", O_DIRECTORY), 0, 0, 0));
    CASE("pidfd_send_signal to another directory", syscall(SYS_pidfd_send_signal, open("/proc/self/task", O_DIRECTORY), 0, 0, 0));
    long flags[] = {CLONE_THREAD, CLONE_SIGHAND, CLONE_THREAD | CLONE_SIGHAND, CLONE_FS | CLONE_NEWNS,
                    CLONE_PIDFD | CLONE_PARENT_SETTID, CLONE_NEWIPC | CLONE_SYSVSEM};
    for (i = 0; i < ARRAY_LENGTH(flags); i++)
        CASEF(syscall(SYS_clone, flags[i] | SIGCHLD, 0, &value, &value, 0), "clone flags %#lx", flags[i]);
    struct clone_args ca = {.exit_signal = SIGCHLD};
    CASE("clone3 small", syscall(SYS_clone3, &ca, 32));
    CASE("clone3 huge", syscall(SYS_clone3, &ca, 8192));
    ca.exit_signal = 99;
    CASE("clone3 exit signal", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.exit_signal = SIGCHLD, .stack = 0x1000};
    CASE("clone3 stack without size", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.exit_signal = SIGCHLD, .flags = 1ULL << 40};
    CASE("clone3 unknown flag", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.exit_signal = SIGCHLD, .flags = CLONE_DETACHED};
    CASE("clone3 detached", syscall(SYS_clone3, &ca, sizeof ca));
    ca = (struct clone_args){.exit_signal = SIGCHLD};
    c = syscall(SYS_clone3, &ca, sizeof ca);
    if (!c)
        _exit(21);
    waitpid(c, &s, 0);
    TELL("clone3 forks", "%s", case_status(s));
    CASE("unshare bad", unshare(0x1));
    CASE("unshare files", unshare(CLONE_FILES));
    CASE("kcmp self files", syscall(SYS_kcmp, getpid(), getpid(), 2, 0, 0) < 0 && errno == ENOSYS ? 0 : 0);

    /* name, dumpable and other prctl */
    char name[16] = {0};
    CASE("set name", prctl(PR_SET_NAME, "a name that is too long"));
    TELL("name", "%s", (prctl(PR_GET_NAME, name), name));
    CASE("dumpable", prctl(PR_GET_DUMPABLE));
    CASE("dumpable bad", prctl(PR_SET_DUMPABLE, 5));
    CASE("dumpable off", prctl(PR_SET_DUMPABLE, 0));
    CASE("dumpable now", prctl(PR_GET_DUMPABLE));
    CASE("no new privs", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CASE("set no new privs bad", prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CASE("set no new privs", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    CASE("no new privs now", prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0));
    CASE("keepcaps", prctl(PR_GET_KEEPCAPS));
    CASE("subreaper", (prctl(PR_GET_CHILD_SUBREAPER, &s), s));
    CASE("timer slack", prctl(PR_SET_TIMERSLACK, 1000));
    CASE("timer slack now", prctl(PR_GET_TIMERSLACK));
    CASE("seccomp", prctl(PR_GET_SECCOMP));
    CASE("prctl unknown", prctl(99999));
    CASE("pdeathsig 0", prctl(PR_SET_PDEATHSIG, 0));
    return 0;
}

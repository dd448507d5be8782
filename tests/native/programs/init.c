/* Process 1 is there: everybody's ancestor, root's, deaf to signals. */
#include "case.h"
#include <grp.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <time.h>

static void ask(const char *who)
{
    struct sched_param p = {0};
    clockid_t clock;
    struct rlimit limit;
    CASEF(kill(1, 0), "%s kill 0", who);
    CASEF(kill(1, 65), "%s kill 65", who);
    CASEF(syscall(SYS_tgkill, 1, 1, 0), "%s tgkill", who);
    CASEF(syscall(SYS_tkill, 1, 0), "%s tkill", who);
    CASEF(sched_getscheduler(1), "%s getscheduler", who);
    CASEF(sched_getparam(1, &p), "%s getparam", who);
    CASEF(sched_setparam(1, &p), "%s setparam", who);
    CASEF(clock_getcpuclockid(1, &clock), "%s cpu clock", who);
    CASEF(prlimit(1, RLIMIT_CPU, 0, &limit), "%s prlimit", who);
    CASEF(setpgid(1, 1), "%s setpgid", who);
    CASEF(waitpid(1, 0, WNOHANG), "%s waitpid", who);
    int fd = syscall(SYS_pidfd_open, 1, 0);
    CASEF(fd < 0, "%s pidfd_open", who);
    CASEF(syscall(SYS_pidfd_send_signal, fd, 0, 0, 0), "%s pidfd signal", who);
    close(fd);
}

static const char *line_of(const char *path, const char *key)
{
    static char text[4096];
    int fd = open(path, O_RDONLY), n = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    char *found = strstr(text, key);
    return found ? strtok(found, "\n") : "no such line";
}

int main(void)
{
    siginfo_t info = {.si_signo = 0, .si_code = SI_QUEUE};
    no_cores();
    ask("root");
    CASE("queue", syscall(SYS_rt_sigqueueinfo, 1, 0, &info));
    CASE("getpgid", getpgid(1) < 0);
    CASE("getsid", getsid(1) < 0);
    TELL("pid", "%s", line_of("/proc/1/status", "\nPid:") + 1);
    TELL("parent", "%s", line_of("/proc/1/status", "\nPPid:") + 1);
    TELL("uid", "%s", line_of("/proc/1/status", "\nUid:") + 1);
    pid_t c = fork();
    if (!c) {
        setgroups(0, 0);
        setgid(1000);
        setuid(1000);
        ask("user");
        CASE("user attach", ptrace(PTRACE_ATTACH, 1, 0, 0));
        CASE("user seize", ptrace(PTRACE_SEIZE, 1, 0, 0));
        void *head;
        size_t size;
        CASE("user robust list", syscall(SYS_get_robust_list, 1, &head, &size));
        char b[8];
        struct iovec here = {b, 8}, there = {(void *)0x400000, 8};
        CASE("user reads memory", process_vm_readv(1, &here, 1, &there, 1, 0));
        CASE("user kills", kill(1, SIGKILL));
        CASE("user memory", open("/proc/1/mem", O_RDONLY));
        CASE("user files", open("/proc/1/fd", O_RDONLY | O_DIRECTORY));
        _exit(0);
    }
    waitpid(c, 0, 0);
    return 0;
}

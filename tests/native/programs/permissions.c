/* What one process may do to another's: priorities, scheduling, limits, /proc, kcmp. */
#include "case.h"
#include <grp.h>
#include <linux/kcmp.h>
#include <sched.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

static const char *who;
static pid_t victim;

static void opens(const char *name, int flags)
{
    int fd = open(case_format("/proc/%d/%s", victim, name), flags);
    CASEF(fd < 0 ? -1 : 0, "%s opens %s", who, name);
    close(fd);
}

static void links(const char *name)
{
    char text[300];
    CASEF(readlink(case_format("/proc/%d/%s", victim, name), text, sizeof text) < 0 ? -1 : 0, "%s follows %s", who, name);
}

static void tries(void)
{
    struct sched_param p = {0};
    struct rlimit limit, lower = {100, 200};
    unsigned long cpus = 1;
    struct stat st;
    CASEF(setpriority(PRIO_PROCESS, victim, 5), "%s setpriority", who);
    CASEF(setpriority(PRIO_PROCESS, victim, -5), "%s setpriority lower", who);
    CASEF(getpriority(PRIO_PROCESS, victim), "%s getpriority", who);
    CASEF(sched_setscheduler(victim, SCHED_BATCH, &p), "%s setscheduler", who);
    CASEF(sched_setscheduler(victim, SCHED_OTHER, &p), "%s setscheduler back", who);
    p.sched_priority = 3;
    CASEF(sched_setscheduler(victim, SCHED_FIFO, &p), "%s realtime", who);
    CASEF(sched_setscheduler(victim, 77, &p), "%s bad policy", who);
    p.sched_priority = 0;
    CASEF(sched_setparam(victim, &p) < 0 && errno == EPERM, "%s setparam", who);
    CASEF(sched_setscheduler(victim, SCHED_OTHER, &p), "%s no realtime", who);
    CASEF(sched_setaffinity(victim, sizeof cpus, &cpus), "%s affinity", who);
    CASEF(prlimit(victim, RLIMIT_NOFILE, 0, &limit), "%s reads a limit", who);
    CASEF(prlimit(victim, RLIMIT_NPROC, &lower, 0), "%s sets a limit", who);
    CASEF(prlimit(victim, 99, 0, &limit), "%s no such limit", who);
    CASEF(kill(victim, 0), "%s kill", who);
    CASEF(kill(victim, SIGCONT), "%s SIGCONT", who);
    CASEF(syscall(SYS_kcmp, getpid(), victim, KCMP_VM, 0, 0) > 0, "%s kcmp", who);
    opens("mem", O_RDONLY);
    opens("maps", O_RDONLY);
    opens("smaps", O_RDONLY);
    opens("environ", O_RDONLY);
    opens("auxv", O_RDONLY);
    opens("cmdline", O_RDONLY);
    opens("status", O_RDONLY);
    opens("fd", O_RDONLY | O_DIRECTORY);
    opens("fdinfo", O_RDONLY | O_DIRECTORY);
    opens("fd/0", O_RDONLY);
    opens("task", O_RDONLY | O_DIRECTORY);
    opens("coredump_filter", O_WRONLY);
    links("exe");
    links("cwd");
    links("root");
    links("fd/0");
    stat(case_format("/proc/%d/status", victim), &st);
    TELL(case_format("%s sees the owner", who), "%d %d", st.st_uid, st.st_gid);
    stat(case_format("/proc/%d", victim), &st);
    TELL(case_format("%s sees the directory's owner", who), "%d %d", st.st_uid, st.st_gid);
}

static void become(int id)
{
    if (id) {
        setgroups(0, 0);
        setgid(id);
        setuid(id);
        prctl(PR_SET_DUMPABLE, 1);
    }
}

static void against(const char *name, int mine, int its, int dumpable)
{
    int ready[2];
    char c;
    who = name;
    pipe(ready);
    if (!(victim = fork())) {
        close(0);
        open("/dev/null", O_RDONLY);
        become(its);
        prctl(PR_SET_DUMPABLE, dumpable);
        write(ready[1], "x", 1);
        for (;;)
            pause();
    }
    read(ready[0], &c, 1);
    pid_t t = fork();
    if (!t) {
        become(mine);
        tries();
        _exit(0);
    }
    waitpid(t, 0, 0);
    kill(victim, SIGKILL);
    waitpid(victim, 0, 0);
    close(ready[0]);
    close(ready[1]);
}

static void comparing(void)
{
    int fd = open("/dev/null", O_RDONLY), twin = dup(fd), other = open("/dev/null", O_RDONLY), e = epoll_create1(0), p[2];
    pid_t me = getpid();
    struct epoll_event event = {.events = EPOLLIN};
    CASE("same file", syscall(SYS_kcmp, me, me, KCMP_FILE, fd, twin));
    CASE("other file", syscall(SYS_kcmp, me, me, KCMP_FILE, fd, other) > 0);
    CASE("order", syscall(SYS_kcmp, me, me, KCMP_FILE, fd, other) + syscall(SYS_kcmp, me, me, KCMP_FILE, other, fd));
    CASE("no file", syscall(SYS_kcmp, me, me, KCMP_FILE, fd, 999));
    CASE("no kind", syscall(SYS_kcmp, me, me, 8, 0, 0));
    CASE("negative kind", syscall(SYS_kcmp, me, me, -1, 0, 0));
    CASE("nobody", syscall(SYS_kcmp, me, 999999, KCMP_VM, 0, 0));
    for (int kind = KCMP_VM; kind <= KCMP_SYSVSEM; kind++)
        CASEF(syscall(SYS_kcmp, me, me, kind, 0, 0), "myself %d", kind);
    pipe(p);
    epoll_ctl(e, EPOLL_CTL_ADD, p[0], &event);
    struct kcmp_epoll_slot slot = {e, p[0], 0};
    CASE("watched", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
    CASE("other watched", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[1], &slot) > 0);
    slot.toff = 1;
    CASE("second watched", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
    slot.efd = fd;
    CASE("no epoll", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], &slot));
    CASE("bad slot", syscall(SYS_kcmp, me, me, KCMP_EPOLL_TFD, p[0], 8));
    pid_t c = fork();
    if (!c) {
        for (int kind = KCMP_VM; kind <= KCMP_SYSVSEM; kind++)
            CASEF(syscall(SYS_kcmp, me, getpid(), kind, 0, 0) > 0, "child %d", kind);
        CASE("child file", syscall(SYS_kcmp, me, getpid(), KCMP_FILE, fd, twin));
        _exit(0);
    }
    waitpid(c, 0, 0);
}

int main(void)
{
    no_cores();
    comparing();
    against("root to user", 0, 1000, 1);
    against("user to root", 1000, 0, 1);
    against("user to user", 1000, 1000, 1);
    against("user to undumpable", 1000, 1000, 0);
    against("user to other", 1000, 1001, 1);
    return 0;
}

/* setrlimit(2): what a limit answers, and what reaching it does. */
#include "case.h"
#include <sys/resource.h>
#include <sys/sysinfo.h>

static void limit(int what, long soft, long hard)
{
    struct rlimit r = {soft, hard};
    if (setrlimit(what, &r))
        _exit(55);
}
static void catch(int n)
{
    TELL("caught", "%d", n);
}
static int fork_once(void)
{
    pid_t child = fork();
    if (child == 0)
        _exit(0);
    return child < 0 ? -1 : waitpid(child, 0, 0) != child;
}

int main(void)
{
    struct rlimit r, old;
    int i;
    no_cores();
    for (i = 0; i < 18; i++) {
        CASEF(getrlimit(i, &r), "get %d", i);
        CASEF(prlimit(0, i, 0, &old), "prlimit %d", i);
        if (i < 16)
            TELL(case_format("same %d", i), "%d %d", r.rlim_cur == old.rlim_cur, r.rlim_cur <= r.rlim_max);
    }
    TELL("stack", "%ld", (getrlimit(RLIMIT_STACK, &r), (long)r.rlim_cur));
    r = (struct rlimit){10, 5};
    CASE("soft over hard", setrlimit(RLIMIT_NOFILE, &r));
    r = (struct rlimit){1L << 40, 1L << 40};
    CASE("nofile beyond the kernel's", setrlimit(RLIMIT_NOFILE, &r));
    CASE("prlimit nobody", prlimit(999999, RLIMIT_NOFILE, 0, &r));
    IN_CHILD("nofile", {
        limit(RLIMIT_NOFILE, 10, 10);
        for (i = 0; (i = dup(0)) >= 0 && i < 9;)
            ;
        CASE("last", i);
        CASE("one more", dup(0));
        CASE("open", open("/dev/null", O_RDONLY));
        CASE("dup2 far", dup2(0, 10));
        CASE("dup2 last", dup2(0, 9));
        CASE("F_DUPFD", fcntl(0, F_DUPFD, 10));
        CASE("F_DUPFD full", fcntl(0, F_DUPFD, 3));
        int p[2];
        close(9);
        CASE("pipe with one left", pipe(p));
        CASE("that one is still free", dup(0));
        CASE("raise above hard", (r = (struct rlimit){20, 20}, getuid() ? 0 : setrlimit(RLIMIT_NOFILE, &r)));
    });
    IN_CHILD("fsize", {
        int fd = file_with("big", "");
        limit(RLIMIT_FSIZE, 1000, RLIM_INFINITY);
        signal(SIGXFSZ, catch);
        char b[3000] = {0};
        CASE("partial", write(fd, b, 3000));
        CASE("nothing left", write(fd, b, 1));
        CASE("truncate beyond", ftruncate(fd, 2000));
        CASE("truncate within", ftruncate(fd, 500));
        CASE("pwrite beyond", pwrite(fd, b, 1, 5000));
        CASE("fallocate beyond", fallocate(fd, 0, 0, 5000));
    });
    IN_CHILD("fsize kills", {
        int fd = file_with("big2", "");
        limit(RLIMIT_FSIZE, 0, 0);
        write(fd, "x", 1);
    });
    IN_CHILD("address space", {
        limit(RLIMIT_AS, 1 << 28, 1 << 28);
        CASE("mmap too much", mmap(0, 1 << 29, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("malloc too much", malloc(1 << 29) ? 0 : -1);
        CASE("mmap little", mmap(0, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("brk too much", brk((char *)sbrk(0) + (1 << 29)));
        void *p = mmap(0, 1 << 20, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CASE("mremap too much", mremap(p, 1 << 20, 1 << 29, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    });
    IN_CHILD("data", {
        limit(RLIMIT_DATA, 1 << 24, 1 << 24);
        CASE("brk over data", brk((char *)sbrk(0) + (1 << 25)));
        CASE("private writable over data", mmap(0, 1 << 25, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("read-only over data", mmap(0, 1 << 25, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
    });
    IN_CHILD("cpu", {
        limit(RLIMIT_CPU, 1, 3);
        signal(SIGXCPU, SIG_DFL);
        for (;;)
            ;
    });
    IN_CHILD("nproc", {
        limit(RLIMIT_NPROC, 0, 2);
        CASE("root has no limit", getuid() ? 0 : fork_once());
        limit(RLIMIT_NPROC, 2, 2);
        if (getuid() == 0)
            CASE("become nobody", setresuid(65534, 65534, 65534));
        pid_t child = getuid() == 65534 ? fork() : 0;
        if (getuid() == 65534 && child == 0)
            for (;;)
                pause();
        CASE("one too many", fork_once());
        if (child > 0) {
            kill(child, SIGKILL);
            CASE("not yet reaped", (waitid(P_PID, child, 0, WEXITED | WNOWAIT), fork_once()));
            waitpid(child, 0, 0);
            CASE("reaped", fork_once());
        }
    });
    IN_CHILD("inherited over exec", {
        limit(RLIMIT_NOFILE, 33, 44);
        execl("/bin/sh", "sh", "-c", "ulimit -n; ulimit -Hn", (char *)0);
    });
    CASE("getpriority", getpriority(PRIO_PROCESS, 0));
    CASE("setpriority", setpriority(PRIO_PROCESS, 0, 5));
    CASE("getpriority now", getpriority(PRIO_PROCESS, 0));
    CASE("raw getpriority", syscall(SYS_getpriority, 0, 0));
    CASE("setpriority far", setpriority(PRIO_PROCESS, 0, 100));
    CASE("clamped", getpriority(PRIO_PROCESS, 0));
    CASE("getpriority which", getpriority(9, 0));
    CASE("getpriority nobody", getpriority(PRIO_PROCESS, 999999));
    CASE("nice", nice(1));
    struct sysinfo s;
    CASE("sysinfo", sysinfo(&s));
    TELL("sysinfo sane", "%d %d", s.totalram > 0 && s.freeram <= s.totalram, s.mem_unit > 0);
    struct rusage u;
    CASE("getrusage children", getrusage(RUSAGE_CHILDREN, &u));
    CASE("getrusage thread", getrusage(RUSAGE_THREAD, &u));
    CASE("getrusage unknown", getrusage(5, &u));
    return 0;
}

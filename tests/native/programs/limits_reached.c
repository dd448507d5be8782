/* Every limit reached: what the call that meets it answers, the signal it raises, and what still works. */
#include "case.h"
#include <sys/resource.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <sys/signalfd.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <poll.h>
#include <mqueue.h>
#include <pthread.h>
#include <time.h>
#include <sched.h>
static void set(int which, long soft, long hard)
{
    struct rlimit limit = {soft, hard};
    if (setrlimit(which, &limit))
        TELL("setrlimit", "%s", case_errno(errno));
}
static int deep(int pages)
{
    volatile char a[4096];
    a[0] = pages;
    return pages ? deep(pages - 1) + a[0] : 0;
}
static void onxcpu(int signo)
{
    static int n;
    if (n++)
        _exit(33);
    write(1, "xcpu handler: ran\n", 18);
}
static void onxfsz(int signo)
{
    write(1, "xfsz handler: ran\n", 18);
}
int main(void)
{
    no_cores();
    IN_CHILD("nofile", {
        set(RLIMIT_NOFILE, 10, 10);
        int last = 0, fd;
        while ((fd = open("/dev/null", 0)) >= 0) last = fd;
        CASE("open", fd);
        TELL("last", "%d", last);
        close(9);
        close(8);
        int p[2];
        CASE("pipe two", pipe(p));
        CASE("pipe none", pipe(p));
        close(9);
        CASE("pipe one", pipe(p));
        CASE("socketpair one", socketpair(1, 1, 0, p));
        CASE("dup2 10", dup2(0, 10));
        CASE("dup2 9", dup2(0, 9));
        CASE("dup3 11", dup3(0, 11, 0));
        CASE("dupfd 10", fcntl(0, F_DUPFD, 10));
        CASE("dupfd 9", fcntl(0, F_DUPFD, 9));
        CASE("eventfd", eventfd(0, 0));
        CASE("epoll", epoll_create(1));
        CASE("timerfd", timerfd_create(0, 0));
        CASE("inotify", inotify_init());
        CASE("memfd", memfd_create("x", 0));
        CASE("socket", socket(1, 1, 0));
        CASE("pidfd", syscall(434, getpid(), 0));
        sigset_t ss;
        sigemptyset(&ss);
        CASE("signalfd", signalfd(-1, &ss, 0));
        struct pollfd pf[20] = {0};
        CASE("poll 11", poll(pf, 11, 0));
        for (int i = 0; i < 20; i++) pf[i].fd = -1;
        CASE("poll 10", poll(pf, 10, 0));
        CASE("poll 11 neg", poll(pf, 11, 0));
        close(9);
        int sp[2];
        close(7);
        close(6);
        CASE("sp", socketpair(1, 1, 0, sp));
        char cb[CMSG_SPACE(12)];
        struct iovec v = {"x", 1};
        struct msghdr m = {0, 0, &v, 1, cb, sizeof cb, 0};
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = 1;
        c->cmsg_type = 1;
        c->cmsg_len = CMSG_LEN(12);
        int f3[3] = {0, 1, 2};
        memcpy(CMSG_DATA(c), f3, 12);
        CASE("send 3 fds", sendmsg(sp[0], &m, 0));
        char b1;
        v.iov_base = &b1;
        memset(cb, 0, sizeof cb);
        m.msg_controllen = sizeof cb;
        CASE("recv", recvmsg(sp[1], &m, 0));
        TELL("flags", "%x len %zu", m.msg_flags, m.msg_controllen);
        set(RLIMIT_NOFILE, 4, 10);
        CASE("lower: read of 9", fcntl(9, F_GETFD));
        CASE("open over", open("/dev/null", 0));
        CASE("raise hard", (errno = 0, prlimit(0, RLIMIT_NOFILE, &(struct rlimit){20, 20}, 0)));
        CASE("select 1024", ({ fd_set s; FD_ZERO(&s); struct timeval tv = {0}; select(1024, &s, 0, 0, &tv); }));
    });
    IN_CHILD("fsize", {
        signal(SIGXFSZ, onxfsz);
        set(RLIMIT_FSIZE, 10000, 20000);
        int fd = open("f", O_RDWR | O_CREAT | O_TRUNC, 0600);
        static char big[30000];
        CASE("write 30000", write(fd, big, 30000));
        CASE("write more", write(fd, big, 1));
        CASE("pwrite over", pwrite(fd, big, 10, 9995));
        CASE("pwrite beyond", pwrite(fd, big, 10, 10001));
        CASE("ftruncate", ftruncate(fd, 10001));
        CASE("ftruncate ok", ftruncate(fd, 10000));
        CASE("truncate", truncate("f", 20001));
        CASE("fallocate", fallocate(fd, 0, 0, 10001));
        CASE("write 0", write(fd, big, 0));
        struct iovec v[2] = {{big, 5}, {big, 30000}};
        lseek(fd, 0, 0);
        CASE("writev", writev(fd, v, 2));
        int p[2];
        pipe(p);
        CASE("pipe unaffected", write(p[1], big, 20000));
        lseek(fd, 9990, 0);
        CASE("splice", splice(p[0], 0, fd, 0, 100, 0));
        int in = open("g", O_RDWR | O_CREAT, 0600);
        set(RLIMIT_FSIZE, 20000, 20000);
        write(in, big, 15000);
        set(RLIMIT_FSIZE, 10000, 20000);
        lseek(fd, 9990, 0);
        off_t o = 0;
        CASE("sendfile", syscall(SYS_sendfile, fd, in, &o, 100));
        loff_t a = 0, bo = 9990;
        CASE("copy_file_range", copy_file_range(in, &a, fd, &bo, 100, 0));
        CASE("memfd", ({ int mf = memfd_create("m", 0); ftruncate(mf, 10001); }));
        signal(SIGXFSZ, SIG_DFL);
        lseek(fd, 10000, 0);
        write(fd, big, 1);
    });
    IN_CHILD("cpu soft and handler", {
        signal(SIGXCPU, onxcpu);
        set(RLIMIT_CPU, 1, 4);
        for (;;);
    });
    IN_CHILD("cpu default", {
        set(RLIMIT_CPU, 1, 4);
        for (;;);
    });
    IN_CHILD("cpu hard", {
        signal(SIGXCPU, SIG_IGN);
        set(RLIMIT_CPU, 1, 2);
        for (;;);
    });
    IN_CHILD("stack", {
        set(RLIMIT_STACK, 1 << 20, 1 << 20);
        deep(100);
        TELL("100 pages", "fine");
        deep(300);
        TELL("300 pages", "fine");
    });
    IN_CHILD("stack 8M", {
        deep(1500);
        TELL("1500 pages", "fine");
        deep(3000);
        TELL("3000", "fine");
    });
    IN_CHILD("as", {
        set(RLIMIT_AS, 256 << 20, 256 << 20);
        CASE("mmap 300M", mmap(0, 300 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("mmap 100M", mmap(0, 100 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("mmap 200M", mmap(0, 200 << 20, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("sbrk 200M", sbrk(200 << 20) == (void *)-1 ? -1 : 0);
        TELL("malloc 300M", "%d", malloc(300 << 20) != 0);
        char *q = mmap(0, 4096, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CASE("mremap", mremap(q, 4096, 300 << 20, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
        pthread_t t;
        pthread_attr_t at;
        pthread_attr_init(&at);
        pthread_attr_setstacksize(&at, 200 << 20);
        TELL("pthread", "%s", case_errno(pthread_create(&t, &at, (void *)pause, 0)));
    });
    IN_CHILD("data", {
        set(RLIMIT_DATA, 32 << 20, 32 << 20);
        CASE("mmap 64M private", mmap(0, 64 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("mmap 64M shared", mmap(0, 64 << 20, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("mmap 64M none", mmap(0, 64 << 20, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("brk", sbrk(64 << 20) == (void *)-1 ? -1 : 0);
        char *q = mmap(0, 64 << 20, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CASE("ro", q == MAP_FAILED ? -1 : 0);
        CASE("mprotect", mprotect(q, 64 << 20, 3));
    });
    IN_CHILD("memlock", {
        set(RLIMIT_MEMLOCK, 65536, 65536);
        seteuid(1000);
        char *q = mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        CASE("mlock 64K", mlock(q, 65536));
        CASE("mlock 128K", mlock(q, 131072));
        CASE("mlockall", mlockall(MCL_CURRENT));
        CASE("MAP_LOCKED", mmap(0, 1 << 20, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0) == MAP_FAILED ? -1 : 0);
        CASE("munlock", munlock(q, 65536));
        CASE("again", mlock(q + 65536, 65536));
        set(RLIMIT_MEMLOCK, 0, 65536);
        CASE("none", mlock(q, 4096));
    });
    if (geteuid() == 0)
        IN_CHILD("sigpending", {
        sigset_t s;
        sigfillset(&s);
        sigprocmask(0, &s, 0);
        set(RLIMIT_SIGPENDING, 5, 5);
        setuid(1003);
        int n = 0;
        while (sigqueue(getpid(), SIGRTMIN, (union sigval){n}) == 0 && n < 100) n++;
        CASE("queue full", -1);
        TELL("queued", "%d", n);
        CASE("kill still", kill(getpid(), SIGUSR1));
        CASE("kill rt", kill(getpid(), SIGRTMIN + 1));
        timer_t t;
        CASE("timer_create", timer_create(CLOCK_MONOTONIC, 0, &t));
    });
    if (geteuid() == 0) /* else what this user has elsewhere counts too */
        IN_CHILD("nproc", {
        if (setuid(1004))
            _exit(77);
        set(RLIMIT_NPROC, 5, 5);
        int n = 0;
        pid_t c;
        while ((c = fork()) > 0 && n < 50)
            n++;
        if (!c) {
            pause();
            _exit(0);
        }
        CASE("fork", c);
        TELL("children", "%d", n);
        pthread_t t;
        TELL("thread", "%s", case_errno(pthread_create(&t, 0, (void *)pause, 0)));
        signal(SIGTERM, SIG_IGN);
        kill(0, 0);
        kill(-1, SIGKILL);
    });
    if (geteuid() == 0)
        IN_CHILD("nproc exec", {
        set(RLIMIT_NPROC, 0, 0);
        CASE("root forks", ({ pid_t c = fork(); if (!c) _exit(0); c > 0 ? 0 : -1; }));
        CASE("setuid", setuid(1005));
        execl("/bin/true", "true", (char *)0);
        CASE("exec", -1);
    });
    IN_CHILD("msgqueue", {
        set(RLIMIT_MSGQUEUE, 0, 0);
        struct mq_attr a = {.mq_maxmsg = 10, .mq_msgsize = 8192};
        CASE("mq_open", mq_open("/safe-limit", O_CREAT | O_RDWR, 0600, &a));
    });
    IN_CHILD("nice", {
        setuid(1006);
        set(RLIMIT_NICE, 0, 0);
        CASE("nice -1", setpriority(0, 0, -1));
        CASE("nice 5", setpriority(0, 0, 5));
        CASE("back", setpriority(0, 0, 4));
        set(RLIMIT_RTPRIO, 0, 0);
        struct sched_param p = {1};
        CASE("fifo", sched_setscheduler(0, SCHED_FIFO, &p));
    });
    IN_CHILD("argv", {
        static char *av[40000];
        char *s = malloc(131072);
        memset(s, 'a', 131071);
        s[131071] = 0;
        av[0] = "true";
        av[1] = s;
        CASE("one arg 131071", ({ pid_t c = fork(); if (!c) { execv("/bin/true", av); _exit(errno); } int st; waitpid(c, &st, 0); st >> 8; }));
        s = malloc(131073);
        memset(s, 'a', 131072);
        s[131072] = 0;
        av[1] = s;
        CASE("one arg 131072", execv("/bin/true", av));
        s = malloc(1000);
        memset(s, 'b', 999);
        s[999] = 0;
        for (int i = 1; i < 39999; i++) av[i] = s;
        CASE("2MB+", execv("/bin/true", av));
        for (int i = 2050; i < 39999; i++) av[i] = 0;
        CASE("2 MB", execv("/bin/true", av));
        for (int i = 1900; i < 39999; i++) av[i] = 0;
        execv("/bin/true", av);
        CASE("1.9MB", -1);
    });
    return 0;
}

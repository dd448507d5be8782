/* poll, select, epoll and the descriptors made for them: errors, levels, edges, oneshots, nesting, masks, time. */
#include "case.h"
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/select.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/timerfd.h>
#include <time.h>

#define BAD ((void *)8)
static char buffer[4096];
static volatile sig_atomic_t caught;
static void handler(int signo) { caught = signo; }

static long milliseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void alarm_in(int ms)
{
    struct itimerval soon = {{0, 0}, {0, ms * 1000}};
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void tell_poll(const char *name, int fd, int events)
{
    struct pollfd p = {fd, events, 0};
    int r = poll(&p, 1, 0);
    TELL(name, "%d %#x", r, p.revents);
}

static void polls(void)
{
    int p[2], s[2], event = eventfd(0, 0), file = file_with("f", "x"), directory = open(".", O_RDONLY);
    pipe(p);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    int all = 0x7fff;
    tell_poll("empty pipe", p[0], all);
    tell_poll("pipe's other end", p[1], all);
    tell_poll("socket", s[0], POLLIN | POLLOUT | POLLPRI | POLLRDHUP);
    tell_poll("eventfd", event, POLLIN | POLLOUT);
    tell_poll("file", file, POLLIN | POLLOUT | POLLPRI);
    tell_poll("file asks nothing", file, 0);
    tell_poll("directory", directory, POLLIN | POLLOUT);
    tell_poll("closed", 99, POLLIN);
    tell_poll("negative", -1, POLLIN);
    tell_poll("unconnected tcp", socket(AF_INET, SOCK_STREAM, 0), POLLIN | POLLOUT);
    tell_poll("unconnected udp", socket(AF_INET, SOCK_DGRAM, 0), POLLIN | POLLOUT);
    tell_poll("unconnected unix", socket(AF_UNIX, SOCK_STREAM, 0), POLLIN | POLLOUT);
    tell_poll("null", 0, POLLIN | POLLOUT);
    write(p[1], "x", 1);
    write(s[1], "x", 1);
    tell_poll("full pipe", p[0], POLLIN | POLLRDNORM);
    tell_poll("readable socket", s[0], POLLIN | POLLRDNORM | POLLOUT);
    close(p[1]);
    tell_poll("pipe without writer", p[0], POLLIN);
    tell_poll("pipe without writer, nothing asked", p[0], 0);
    shutdown(s[1], SHUT_WR);
    tell_poll("half closed socket", s[0], POLLIN | POLLRDHUP);
    close(s[1]);
    tell_poll("closed socket", s[0], POLLIN | POLLRDHUP | POLLOUT);
    pipe(p);
    close(p[0]);
    tell_poll("pipe without reader", p[1], POLLOUT);
    struct pollfd many[3] = {{event, POLLIN, 0}, {99, POLLIN, 0}, {-7, POLLIN, 0x55}};
    CASE("three", poll(many, 3, -1));
    TELL("three answers", "%#x %#x %#x", many[0].revents, many[1].revents, many[2].revents);
    CASE("poll bad", poll(BAD, 1, 0));
    CASE("poll too many", poll(many, 1 << 24, 0));
    CASE("poll nothing", poll(NULL, 0, 0));
    long before = milliseconds();
    CASE("poll sleeps", poll(NULL, 0, 30));
    TELL("poll slept", "%d", milliseconds() - before >= 29);
    struct timespec wrong = {0, 1000000000}, zero = {0, 0}, minus = {-1, 0};
    CASE("ppoll wrong time", ppoll(NULL, 0, &wrong, NULL));
    CASE("ppoll negative time", ppoll(NULL, 0, &minus, NULL));
    CASE("ppoll bad time", syscall(SYS_ppoll, NULL, 0, BAD, NULL, 8));
    CASE("ppoll mask size", syscall(SYS_ppoll, NULL, 0, &zero, buffer, 4));
    CASE("ppoll bad mask", syscall(SYS_ppoll, NULL, 0, &zero, BAD, 8));
    alarm_in(20);
    CASE("poll interrupted", poll(NULL, 0, 5000));
    TELL("poll caught", "%d", caught == SIGALRM);
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    caught = 0;
    raise(SIGALRM);
    CASE("poll blocked signal", poll(NULL, 0, 1));
    TELL("not caught yet", "%d", caught);
    struct timespec second = {5, 0};
    CASE("ppoll lets it in", ppoll(NULL, 0, &second, &none));
    TELL("caught now", "%d", caught == SIGALRM);
    sigset_t now;
    sigprocmask(0, NULL, &now);
    TELL("the mask is back", "%d", sigismember(&now, SIGALRM));
    sigprocmask(SIG_UNBLOCK, &block, NULL);
}

static void selects(void)
{
    int p[2], event = eventfd(1, 0);
    pipe(p);
    fd_set r, w, x;
    struct timeval zero = {0, 0}, wrong = {-1, 0}, tv = {0, 20000};
#define SETS do { FD_ZERO(&r); FD_ZERO(&w); FD_ZERO(&x); } while (0)
    SETS;
    FD_SET(p[0], &r), FD_SET(p[1], &w), FD_SET(event, &r), FD_SET(event, &w);
    CASE("select", select(event + 10, &r, &w, &x, &zero));
    TELL("select bits", "%d %d %d %d", !!FD_ISSET(p[0], &r), !!FD_ISSET(p[1], &w), !!FD_ISSET(event, &r), !!FD_ISSET(event, &w));
    SETS;
    FD_SET(60, &r);
    CASE("select closed", select(61, &r, NULL, NULL, &zero));
    CASE("select small n", select(60, &r, NULL, NULL, &zero));
    CASE("select negative", select(-1, NULL, NULL, NULL, &zero));
    CASE("select negative time", select(0, NULL, NULL, NULL, &wrong));
    CASE("select bad", select(5, BAD, NULL, NULL, &zero));
    CASE("select times out", select(0, NULL, NULL, NULL, &tv));
    TELL("select time left", "%ld %ld", (long)tv.tv_sec, (long)tv.tv_usec);
    alarm_in(20);
    CASE("select interrupted", select(0, NULL, NULL, NULL, NULL));
    SETS;
    FD_SET(p[0], &r);
    close(p[1]);
    CASE("select hung up", select(p[0] + 1, &r, NULL, &r, &zero));
    struct timespec ts = {0, 0};
    CASE("pselect", pselect(0, NULL, NULL, NULL, &ts, NULL));
    struct { void *mask; size_t size; } bad = {buffer, 4};
    CASE("pselect mask size", syscall(SYS_pselect6, 0, NULL, NULL, NULL, &ts, &bad));
    sigset_t block, none;
    sigemptyset(&none);
    sigemptyset(&block);
    sigaddset(&block, SIGALRM);
    sigprocmask(SIG_BLOCK, &block, NULL);
    caught = 0;
    raise(SIGALRM);
    CASE("pselect lets it in", pselect(0, NULL, NULL, NULL, NULL, &none));
    TELL("pselect caught", "%d", caught == SIGALRM);
    sigprocmask(SIG_UNBLOCK, &block, NULL);
}

static int epoll;
static struct epoll_event e[16];

static int control(int operation, int fd, unsigned events, int data)
{
    struct epoll_event one = {.events = events, .data.u64 = (unsigned)data};
    return epoll_ctl(epoll, operation, fd, &one);
}

static void tell_wait(const char *name, int set)
{
    int n = epoll_wait(set, e, 16, 0);
    char text[256];
    int used = snprintf(text, sizeof text, "%d", n);
    for (int bit = 0; bit < 100; bit++)
        for (int i = 0; i < n; i++)
            if (e[i].data.u64 == (unsigned)bit)
                used += snprintf(text + used, sizeof text - used, " %d=%#x", bit, e[i].events);
    TELL(name, "%s", text);
}

static void *later(void *arg)
{
    struct timespec soon = {0, 20000000};
    nanosleep(&soon, NULL);
    uint64_t one = 1;
    return (void *)write((long)arg, &one, 8);
}

static void edges(const char *kind, int in, int out)
{
    uint64_t one = 1;
    static const struct { const char *name; unsigned flags; } modes[] = {
        {"level", 0}, {"edge", EPOLLET}, {"oneshot", EPOLLONESHOT}, {"edge oneshot", EPOLLET | EPOLLONESHOT}, {"exclusive", EPOLLEXCLUSIVE},
    };
    for (int i = 0; i < ARRAY_LENGTH(modes); i++) {
        const char *m = modes[i].name;
        CASEF(control(EPOLL_CTL_ADD, in, EPOLLIN | modes[i].flags, 1), "%s %s add", kind, m);
        tell_wait(case_format("%s %s idle", kind, m), epoll);
        write(out, &one, 8);
        tell_wait(case_format("%s %s ready", kind, m), epoll);
        tell_wait(case_format("%s %s ready again", kind, m), epoll);
        write(out, &one, 8);
        tell_wait(case_format("%s %s more", kind, m), epoll);
        CASEF(control(EPOLL_CTL_MOD, in, EPOLLIN | (modes[i].flags & ~EPOLLEXCLUSIVE), 2), "%s %s rearm", kind, m);
        tell_wait(case_format("%s %s rearmed", kind, m), epoll);
        CASEF(read(in, buffer, sizeof buffer) > 0, "%s %s drain", kind, m);
        tell_wait(case_format("%s %s drained", kind, m), epoll);
        CASEF(control(EPOLL_CTL_DEL, in, 0, 0), "%s %s delete", kind, m);
    }
    CASEF(control(EPOLL_CTL_ADD, out, EPOLLOUT | EPOLLET, 3), "%s writable add", kind);
    tell_wait(case_format("%s writable", kind), epoll);
    tell_wait(case_format("%s writable no edge", kind), epoll);
    CASEF(control(EPOLL_CTL_MOD, out, 0, 3), "%s nothing", kind);
    tell_wait(case_format("%s nothing waits", kind), epoll);
    CASEF(control(EPOLL_CTL_DEL, out, 0, 0), "%s writable delete", kind);
}

static void epolls(void)
{
    epoll = epoll_create1(EPOLL_CLOEXEC);
    TELL("cloexec", "%d", fcntl(epoll, F_GETFD));
    int p[2], s[2], event = eventfd(0, EFD_NONBLOCK), file = file_with("g", "x");
    pipe(p);
    socketpair(AF_UNIX, SOCK_STREAM, 0, s);
    CASE("create 0", epoll_create(0));
    CASE("create flags", epoll_create1(1));
    CASE("add file", control(EPOLL_CTL_ADD, file, EPOLLIN, 0));
    CASE("add directory", control(EPOLL_CTL_ADD, open(".", O_RDONLY), EPOLLIN, 0));
    CASE("add null", control(EPOLL_CTL_ADD, 0, EPOLLIN, 0));
    CASE("add itself", control(EPOLL_CTL_ADD, epoll, EPOLLIN, 0));
    CASE("add closed", control(EPOLL_CTL_ADD, 99, EPOLLIN, 0));
    CASE("mod unknown", control(EPOLL_CTL_MOD, event, EPOLLIN, 0));
    CASE("del unknown", control(EPOLL_CTL_DEL, event, EPOLLIN, 0));
    CASE("del without event", epoll_ctl(epoll, EPOLL_CTL_DEL, event, NULL));
    CASE("add without event", epoll_ctl(epoll, EPOLL_CTL_ADD, event, NULL));
    CASE("bad and closed", epoll_ctl(99, EPOLL_CTL_ADD, 98, BAD));
    CASE("not an epoll", epoll_ctl(event, EPOLL_CTL_ADD, p[0], e));
    CASE("operation", control(77, event, EPOLLIN, 0));
    CASE("wait closed", epoll_wait(99, e, 1, 0));
    CASE("wait closed, none", epoll_wait(99, e, 0, 0));
    CASE("wait none", epoll_wait(epoll, e, 0, 0));
    CASE("wait negative", epoll_wait(epoll, e, -1, 0));
    CASE("wait not an epoll", epoll_wait(event, e, 1, 0));
    CASE("wait not an epoll, none", epoll_wait(event, e, 0, 0));
    CASE("exclusive oneshot", control(EPOLL_CTL_ADD, event, EPOLLIN | EPOLLEXCLUSIVE | EPOLLONESHOT, 0));
    CASE("exclusive mod", control(EPOLL_CTL_MOD, event, EPOLLIN | EPOLLEXCLUSIVE, 0));
    CASE("add", control(EPOLL_CTL_ADD, event, EPOLLIN, 1));
    CASE("add twice", control(EPOLL_CTL_ADD, event, EPOLLIN, 1));
    CASE("del", control(EPOLL_CTL_DEL, event, EPOLLIN, 1));
    edges("eventfd", event, event);
    edges("pipe", p[0], p[1]);
    edges("socket", s[0], s[1]);
    int inner = epoll_create1(0), outer = epoll;
    CASE("nest", control(EPOLL_CTL_ADD, inner, EPOLLIN, 5));
    epoll = inner;
    CASE("loop", control(EPOLL_CTL_ADD, outer, EPOLLIN, 5));
    CASE("inner add", control(EPOLL_CTL_ADD, event, EPOLLIN, 6));
    CASE("inner socket", control(EPOLL_CTL_ADD, s[0], EPOLLIN, 7));
    tell_wait("nested idle", outer);
    uint64_t one = 1;
    write(event, &one, 8);
    tell_wait("nested outer", outer);
    tell_wait("nested inner", inner);
    tell_poll("poll on an epoll", outer, POLLIN);
    write(s[1], "x", 1);
    read(event, &one, 8);
    tell_wait("nested outer by socket", outer);
    tell_wait("nested inner by socket", inner);
    read(s[0], buffer, 1);
    tell_wait("nested outer idle again", outer);
    tell_poll("poll on an idle epoll", outer, POLLIN);
    close(inner);
    epoll = outer;
    int copy = dup(p[0]);
    CASE("add original", control(EPOLL_CTL_ADD, p[0], EPOLLIN, 10));
    CASE("add copy", control(EPOLL_CTL_ADD, copy, EPOLLIN, 11));
    write(p[1], "x", 1);
    tell_wait("both", epoll);
    int number = p[0];
    close(p[0]);
    tell_wait("closed but open elsewhere", epoll);
    CASE("number reused", dup2(event, number) == number);
    CASE("add the new one", control(EPOLL_CTL_ADD, number, EPOLLIN, 12));
    close(copy);
    tell_wait("all closed", epoll);
    write(event, &one, 8);
    tell_wait("the new one", epoll);
    close(number);
    read(event, &one, 8);
    pthread_t thread;
    control(EPOLL_CTL_DEL, event, 0, 0);
    CASE("add for a thread", control(EPOLL_CTL_ADD, event, EPOLLIN, 13));
    pthread_create(&thread, NULL, later, (void *)(long)event);
    CASE("woken by a thread", epoll_wait(epoll, e, 1, 5000));
    pthread_join(thread, NULL);
    read(event, &one, 8);
    pthread_create(&thread, NULL, later, (void *)(long)s[1]);
    control(EPOLL_CTL_ADD, s[0], EPOLLIN, 14);
    CASE("woken through a socket", epoll_wait(epoll, e, 1, 5000));
    pthread_join(thread, NULL);
    read(s[0], buffer, 8);
    long before = milliseconds();
    CASE("wait times out", epoll_wait(epoll, e, 1, 25));
    TELL("waited", "%d", milliseconds() - before >= 24);
    alarm_in(20);
    CASE("wait interrupted", epoll_wait(epoll, e, 1, 5000));
    struct timespec ts = {0, 1000000};
    CASE("pwait2", syscall(SYS_epoll_pwait2, epoll, e, 1, &ts, NULL, 8));
    CASE("pwait mask size", syscall(SYS_epoll_pwait, epoll, e, 1, 0, buffer, 7));
    close(s[1]);
    tell_wait("hang up", epoll);
    control(EPOLL_CTL_DEL, s[0], 0, 0);
    for (int i = 0; i < 20; i++) {
        int many = eventfd(1, 0);
        control(EPOLL_CTL_ADD, many, EPOLLIN, 20 + i);
    }
    int seen = 0;
    unsigned long mask = 0;
    for (int i = 0; i < 20; i++) {
        int n = epoll_wait(epoll, e, 3, 0);
        for (int j = 0; j < n; j++)
            mask |= 1ul << e[j].data.u64, seen++;
    }
    TELL("nobody starves", "%d %lx", seen, mask >> 20);
}

static void descriptors(void)
{
    uint64_t v = 0;
    int fd = eventfd(2, EFD_SEMAPHORE | EFD_NONBLOCK);
    CASE("semaphore", read(fd, &v, 8));
    TELL("gives one", "%d", (int)v);
    CASE("semaphore again", read(fd, &v, 8));
    CASE("semaphore empty", read(fd, &v, 8));
    CASE("eventfd short read", read(fd, &v, 7));
    CASE("eventfd short write", write(fd, &v, 7));
    v = UINT64_MAX;
    CASE("eventfd all ones", write(fd, &v, 8));
    v = UINT64_MAX - 1;
    CASE("eventfd maximum", write(fd, &v, 8));
    tell_poll("full eventfd", fd, POLLIN | POLLOUT);
    v = 1;
    CASE("eventfd overflow", write(fd, &v, 8));
    CASE("eventfd flags", syscall(SYS_eventfd2, 0, 0x10));
    CASE("eventfd lseek", lseek(fd, 0, SEEK_SET));
    CASE("eventfd pread", pread(fd, &v, 8, 0));

    fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
    struct itimerspec in = {{0, 2000000}, {0, 5000000}}, out;
    CASE("timerfd clock", timerfd_create(5, 0));
    CASE("timerfd flags", timerfd_create(CLOCK_REALTIME, 1));
    CASE("timerfd unset", read(fd, &v, 8));
    CASE("timerfd set", timerfd_settime(fd, 0, &in, NULL));
    struct timespec t = {0, 12000000};
    nanosleep(&t, NULL);
    tell_poll("timerfd expired", fd, POLLIN);
    CASE("timerfd read", read(fd, &v, 8));
    TELL("timerfd count", "%d", v >= 4);
    in = (struct itimerspec){{0, 0}, {100, 0}};
    CASE("timerfd set again", timerfd_settime(fd, 0, &in, &out));
    TELL("timerfd old interval", "%ld", out.it_interval.tv_nsec);
    CASE("timerfd get", timerfd_gettime(fd, &out));
    TELL("timerfd left", "%d", out.it_value.tv_sec == 99);
    in.it_value = (struct timespec){0, 1};
    CASE("timerfd absolute past", timerfd_settime(fd, TFD_TIMER_ABSTIME, &in, NULL));
    CASE("timerfd at once", read(fd, &v, 8));
    in.it_value.tv_nsec = 1000000000;
    CASE("timerfd wrong time", timerfd_settime(fd, 0, &in, NULL));
    CASE("timerfd settime flags", timerfd_settime(fd, 8, &in, NULL));
    CASE("timerfd bad", timerfd_settime(fd, 0, BAD, NULL));
    CASE("timerfd not one", timerfd_gettime(0, &out));
    CASE("timerfd closed", timerfd_gettime(99, &out));
    CASE("timerfd write", write(fd, &v, 8));
    CASE("timerfd short", read(fd, &v, 4));
    clock_gettime(CLOCK_REALTIME, &in.it_value);
    in.it_value.tv_nsec = 0;
    int real = timerfd_create(CLOCK_REALTIME, 0);
    timerfd_settime(real, TFD_TIMER_ABSTIME, &in, NULL);
    CASE("timerfd realtime", read(real, &v, 8));

    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    sigaddset(&set, SIGRTMIN + 3);
    sigprocmask(SIG_BLOCK, &set, NULL);
    fd = signalfd(-1, &set, SFD_NONBLOCK);
    struct signalfd_siginfo info[4];
    CASE("signalfd empty", read(fd, info, sizeof info));
    tell_poll("signalfd idle", fd, POLLIN);
    CASE("signalfd short", read(fd, info, 100));
    kill(getpid(), SIGUSR1);
    sigqueue(getpid(), SIGRTMIN + 3, (union sigval){.sival_int = 77});
    tell_poll("signalfd ready", fd, POLLIN);
    CASE("signalfd read", read(fd, info, sizeof info));
    TELL("signalfd first", "%d %d %d %d", info[0].ssi_signo, info[0].ssi_code, info[0].ssi_pid == (unsigned)getpid(), info[0].ssi_uid == getuid());
    TELL("signalfd second", "%d %d %d", info[1].ssi_signo - SIGRTMIN, info[1].ssi_code, info[1].ssi_int);
    CASE("signalfd mask size", syscall(SYS_signalfd4, -1, &set, 4, 0));
    CASE("signalfd flags", syscall(SYS_signalfd4, -1, &set, 8, 1));
    CASE("signalfd not one", signalfd(0, &set, 0));
    CASE("signalfd closed", signalfd(99, &set, 0));
    epoll = epoll_create1(0);
    CASE("signalfd in epoll", control(EPOLL_CTL_ADD, fd, EPOLLIN, 4));
    tell_wait("no signal", epoll);
    kill(getpid(), SIGUSR1);
    tell_wait("a signal", epoll);
    read(fd, info, sizeof info);
    tell_wait("taken", epoll);
    int blocking = signalfd(-1, &set, 0);
    if (fork() == 0) {
        nanosleep(&t, NULL);
        _exit(kill(getppid(), SIGUSR1));
    }
    CASE("signalfd waits", read(blocking, info, sizeof info[0]));
    wait(NULL);

    fd = inotify_init1(IN_NONBLOCK);
    mkdir("watched", 0755);
    CASE("inotify add", inotify_add_watch(fd, "watched", IN_CREATE | IN_DELETE));
    CASE("inotify add same", inotify_add_watch(fd, "watched", IN_CREATE | IN_DELETE | IN_MODIFY));
    CASE("inotify add nothing", inotify_add_watch(fd, "nothing", IN_CREATE));
    CASE("inotify no mask", inotify_add_watch(fd, "watched", 0));
    CASE("inotify not one", inotify_add_watch(0, "watched", IN_CREATE));
    CASE("inotify empty", read(fd, buffer, sizeof buffer));
    close(file_with("watched/new", "text"));
    unlink("watched/new");
    tell_poll("inotify ready", fd, POLLIN);
    int n = read(fd, buffer, sizeof buffer);
    for (char *at = buffer; at < buffer + n;) {
        struct inotify_event *event = (void *)at;
        TELL(case_format("inotify at %d", (int)(at - buffer)), "%d %#x %s", event->wd, event->mask, event->len ? event->name : "");
        at += sizeof *event + event->len;
    }
    CASE("inotify remove", inotify_rm_watch(fd, 1));
    CASE("inotify remove again", inotify_rm_watch(fd, 1));
    CASE("inotify flags", inotify_init1(1));

    pid_t child = fork();
    if (child == 0) {
        pause();
        _exit(0);
    }
    int pidfd = syscall(SYS_pidfd_open, child, 0);
    TELL("pidfd", "%d %d", pidfd >= 0, fcntl(pidfd, F_GETFD));
    tell_poll("pidfd lives", pidfd, POLLIN);
    CASE("pidfd flags", syscall(SYS_pidfd_open, child, 7));
    CASE("pidfd 0", syscall(SYS_pidfd_open, 0, 0));
    CASE("pidfd nobody", syscall(SYS_pidfd_open, 4000000, 0));
    CASE("pidfd signal 0", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
    CASE("pidfd signal wrong", syscall(SYS_pidfd_send_signal, pidfd, 99, NULL, 0));
    CASE("pidfd signal flags", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 77));
    CASE("pidfd not one", syscall(SYS_pidfd_send_signal, 0, 0, NULL, 0));
    int got = syscall(SYS_pidfd_getfd, pidfd, real, 0);
    TELL("pidfd getfd", "%d", got >= 0);
    CASE("pidfd getfd closed", syscall(SYS_pidfd_getfd, pidfd, 999, 0));
    CASE("pidfd kill", syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0));
    struct pollfd p = {pidfd, POLLIN, 0};
    CASE("pidfd ends", poll(&p, 1, 5000));
    siginfo_t si = {0};
    CASE("pidfd waitid", waitid(P_PIDFD, pidfd, &si, WEXITED));
    TELL("pidfd waited", "%d %d", si.si_pid == child, si.si_status);
    CASE("pidfd signal gone", syscall(SYS_pidfd_send_signal, pidfd, 0, NULL, 0));
}

/* Of several who wait exclusively one is woken; who does not is woken besides. */
static void exclusive(const char *name, int plain)
{
    int p[2], up[2], done[2], n;
    char c;
    pid_t children[4];
    pipe(p);
    pipe(up);
    pipe(done);
    for (int i = 0; i < 4; i++)
        if (!(children[i] = fork())) {
            int e = epoll_create1(0);
            struct epoll_event ev = {.events = EPOLLIN | EPOLLET | (i < plain ? 0 : EPOLLEXCLUSIVE)};
            epoll_ctl(e, EPOLL_CTL_ADD, p[0], &ev);
            write(up[1], "x", 1);
            if (epoll_wait(e, &ev, 1, 1500) == 1)
                write(done[1], "x", 1);
            _exit(0);
        }
    for (int i = 0; i < 4; i++)
        read(up[0], &c, 1);
    usleep(300000);
    write(p[1], "y", 1);
    for (int i = 0; i < 4; i++)
        waitpid(children[i], 0, 0);
    ioctl(done[0], FIONREAD, &n);
    TELL(name, "%d woken", n);
    for (int i = 0; i < 2; i++) {
        close(p[i]);
        close(up[i]);
        close(done[i]);
    }
}

int main(void)
{
    struct sigaction sa = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &sa, NULL);
    polls();
    selects();
    epolls();
    descriptors();
    struct timeval tv = {0, 10};
    personality(STICKY_TIMEOUTS);
    select(0, 0, 0, 0, &tv);
    TELL("sticky timeout", "%d", (int)tv.tv_usec);
    personality(0);
    exclusive("exclusive", 0);
    exclusive("exclusive and not", 2);
    return 0;
}

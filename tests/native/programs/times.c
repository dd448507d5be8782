/* clock_gettime(2), nanosleep(2) and the rest of time(7). */
#include "case.h"
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <poll.h>
#include <time.h>
#include <utime.h>

static long since(struct timespec a)
{
    struct timespec b;
    clock_gettime(CLOCK_MONOTONIC, &b);
    return (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
}

static volatile sig_atomic_t fired[65];
static void note(int number)
{
    fired[number]++;
}

/* Calls take CPU time too, the system's. */
static void system_time(void)
{
    struct itimerval once = {{0, 0}, {0, 50000}};
    struct rusage ru;
    struct tms tm;
    struct timespec t;
    clockid_t clock;
    pid_t c;
    signal(SIGPROF, note);
    setitimer(ITIMER_PROF, &once, 0);
    while (!fired[SIGPROF])
        getppid();
    getrusage(RUSAGE_SELF, &ru);
    TELL("system time", "%d", ru.ru_stime.tv_sec || ru.ru_stime.tv_usec);
    do
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    while (!t.tv_sec && t.tv_nsec < 200000000);
    times(&tm);
    TELL("times", "%d", tm.tms_stime > 0);
    if (!(c = fork())) {
        do
            clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
        while (t.tv_nsec < 50000000);
        _exit(0);
    }
    clock_getcpuclockid(c, &clock);
    CASE("child's clock", clock_gettime(clock, &t));
    waitpid(c, 0, 0);
    getrusage(RUSAGE_CHILDREN, &ru);
    TELL("children's system time", "%d", ru.ru_stime.tv_sec || ru.ru_stime.tv_usec);
}

int main(void)
{
    struct timespec a, b;
    int i, s;
    for (i = -1; i <= 12; i++) {
        CASEF(syscall(SYS_clock_gettime, i, &a), "clock %d", i);
        CASEF(syscall(SYS_clock_getres, i, &b), "resolution %d", i);
    }
    CASE("clock 99", clock_gettime(99, &a));
    CASE("clock of a dead process", syscall(SYS_clock_gettime, (~999999 << 3) | 2, &a));
    CASE("resolution to nowhere", syscall(SYS_clock_getres, CLOCK_MONOTONIC, 0));
    clock_gettime(CLOCK_MONOTONIC, &a);
    clock_gettime(CLOCK_MONOTONIC, &b);
    TELL("monotonic", "%d", b.tv_sec > a.tv_sec || (b.tv_sec == a.tv_sec && b.tv_nsec >= a.tv_nsec));
    struct timeval tv;
    gettimeofday(&tv, 0);
    TELL("all speak of the same time", "%d", labs(time(0) - tv.tv_sec) <= 1);
    clock_gettime(CLOCK_REALTIME, &a);
    TELL("realtime is that time", "%d", labs(a.tv_sec - tv.tv_sec) <= 1);
    CASE("clock_settime monotonic", clock_settime(CLOCK_MONOTONIC, &a));
    a.tv_nsec = -1;
    CASE("clock_settime nsec", clock_settime(CLOCK_REALTIME, &a));

    struct timespec t[] = {{0, 1000000000}, {0, -1}, {-1, 0}, {0, 0}, {0, 1}, {0, 999}};
    for (i = 0; i < ARRAY_LENGTH(t); i++) {
        CASEF(nanosleep(t + i, 0), "nanosleep %ld.%ld", (long)t[i].tv_sec, t[i].tv_nsec);
        CASEF(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, t + i, 0), "clock_nanosleep %ld.%ld", (long)t[i].tv_sec, t[i].tv_nsec);
    }
    t[0] = (struct timespec){0, 20000000};
    int clocks[] = {CLOCK_REALTIME, CLOCK_MONOTONIC, CLOCK_PROCESS_CPUTIME_ID, CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW,
                    CLOCK_REALTIME_COARSE, CLOCK_BOOTTIME, 99};
    for (i = 0; i < ARRAY_LENGTH(clocks); i++)
        if (i != 2)
            CASEF(syscall(SYS_clock_nanosleep, clocks[i], 0, t, 0), "sleep on clock %d", clocks[i]);
    clock_gettime(CLOCK_MONOTONIC, &a);
    t[0] = (struct timespec){0, 50000000};
    nanosleep(t, 0);
    TELL("slept 50 ms", "%d", since(a) >= 50);
    clock_gettime(CLOCK_MONOTONIC, &a);
    b = a;
    b.tv_nsec += 30000000;
    b.tv_sec += b.tv_nsec / 1000000000;
    b.tv_nsec %= 1000000000;
    CASE("absolute sleep", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &b, 0));
    TELL("not before", "%d", since(a) >= 29);
    CASE("absolute in the past", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, TIMER_ABSTIME, &a, 0));
    CASE("sleep flags", syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC, 77, t, 0));
    clock_gettime(CLOCK_MONOTONIC, &a);
    poll(0, 0, 40);
    TELL("poll waits", "%d", since(a) >= 40);
    struct tms tms;
    CASE("times", times(&tms) != -1);
    volatile long x = 0;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    for (long n = 0; n < 3000000; n++)
        x += n;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    TELL("cpu time grows", "%d", b.tv_sec > a.tv_sec || b.tv_nsec > a.tv_nsec);

    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    uint64_t ticks;
    CASE("timerfd flags", timerfd_create(CLOCK_MONOTONIC, 0x1));
    CASE("timerfd clock", timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0));
    CASE("timerfd unarmed", read(fd, &ticks, 8));
    CASE("timerfd small read", read(fd, &ticks, 4));
    CASE("timerfd write", write(fd, &ticks, 8));
    struct itimerspec its = {{0, 5000000}, {0, 5000000}}, old;
    CASE("timerfd set", timerfd_settime(fd, 0, &its, 0));
    CASE("timerfd set flags", timerfd_settime(fd, 0x100, &its, 0));
    struct pollfd p = {fd, POLLIN};
    CASE("timerfd poll", poll(&p, 1, 1000));
    usleep(20000);
    CASE("timerfd read", read(fd, &ticks, 8));
    TELL("several ticks", "%d", ticks >= 3);
    CASE("timerfd get", timerfd_gettime(fd, &old));
    TELL("interval", "%ld", old.it_interval.tv_nsec);
    its = (struct itimerspec){{0, 0}, {0, 0}};
    CASE("timerfd disarm", timerfd_settime(fd, 0, &its, &old));
    CASE("timerfd of a file", timerfd_settime(0, 0, &its, 0));
    its.it_value.tv_nsec = 1000000000;
    CASE("timerfd nsec", timerfd_settime(fd, 0, &its, 0));
    its = (struct itimerspec){{0, 0}, {1, 0}};
    CASE("timerfd absolute past", timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, 0));
    CASE("timerfd fired", (poll(&p, 1, 1000), read(fd, &ticks, 8)));
    TELL("once", "%ld", (long)ticks);

    struct tm tm;
    time_t when = 86400 * 365;
    TELL("gmtime", "%s", asctime(gmtime_r(&when, &tm)) ? case_format("%d-%d-%d", tm.tm_year, tm.tm_mon, tm.tm_mday) : "");
    fd = file_with("f", "x");
    struct stat st;
    struct timespec two[2] = {{1000, 123456789}, {2000, 987654321}};
    CASE("utimensat", utimensat(AT_FDCWD, "f", two, 0));
    fstat(fd, &st);
    TELL("times set", "%ld.%09ld %ld.%09ld", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
    two[0].tv_nsec = UTIME_OMIT;
    two[1].tv_nsec = UTIME_NOW;
    CASE("utimensat omit and now", utimensat(AT_FDCWD, "f", two, 0));
    fstat(fd, &st);
    TELL("omitted kept, other now", "%ld %d", st.st_atim.tv_sec, labs(st.st_mtim.tv_sec - time(0)) < 3);
    two[0].tv_nsec = 1000000000;
    CASE("utimensat nsec", utimensat(AT_FDCWD, "f", two, 0));
    CASE("utimensat nothing", utimensat(AT_FDCWD, "nothing", 0, 0));
    CASE("utimensat flags", utimensat(AT_FDCWD, "f", 0, 0x10));
    CASE("futimens", futimens(fd, 0));
    CASE("futimens bad", futimens(99, 0));
    CASE("utime", utime("f", &(struct utimbuf){5, 6}));
    fstat(fd, &st);
    TELL("seconds", "%ld %ld", st.st_atime, st.st_mtime);
    struct timex adj = {0};
    CASE("adjtimex read", syscall(SYS_adjtimex, &adj) < 0 ? -1 : 0);
    TELL("tick", "%ld %d", adj.tick, labs(adj.time.tv_sec - time(0)) < 3);
    CASE("clock_adjtime", syscall(SYS_clock_adjtime, CLOCK_REALTIME, &adj) < 0 ? -1 : 0);
    CASE("clock_adjtime of another", syscall(SYS_clock_adjtime, CLOCK_MONOTONIC, &adj));
    CASE("clock_adjtime of none", syscall(SYS_clock_adjtime, 77, &adj));
    CASE("clock_adjtime of a bad pointer", syscall(SYS_clock_adjtime, CLOCK_REALTIME, 8));
    adj.modes = 0xa001;
    CASE("adjtime read", syscall(SYS_adjtimex, &adj) < 0 ? -1 : 0);
    adj.modes = 0x8000;
    CASE("adjtime without an offset", syscall(SYS_adjtimex, &adj));
    CASE("adjtime", adjtime(0, &(struct timeval){0}));
    adj.modes = ADJ_TICK;
    adj.tick = 1;
    CASE("tick out of range", getuid() ? 0 : syscall(SYS_adjtimex, &adj));
    IN_CHILD("not root", {
        if (getuid() == 0)
            setresuid(65534, 65534, 65534);
        CASE("may set nothing", syscall(SYS_adjtimex, &adj));
        adj.modes = 0;
        CASE("may read", syscall(SYS_adjtimex, &adj) < 0 ? -1 : 0);
    });
    system_time();
    struct sigevent notify = {.sigev_notify = SIGEV_THREAD, .sigev_signo = SIGUSR1};
    struct itimerspec soon = {{0, 0}, {0, 1000000}};
    int timer;
    signal(SIGUSR1, note);
    CASE("SIGEV_THREAD", syscall(SYS_timer_create, CLOCK_MONOTONIC, &notify, &timer));
    CASE("arm", syscall(SYS_timer_settime, timer, 0, &soon, 0));
    while (!fired[SIGUSR1])
        usleep(1000);
    TELL("fired", "%d", fired[SIGUSR1]);
    return 0;
}

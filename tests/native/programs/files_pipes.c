/* Pipes, FIFOs and descriptors. */
#include "case.h"
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

static char big[300000];
static volatile int pipes_broken;

static void on_pipe(int signo)
{
    (void)signo;
    pipes_broken++;
}

static int ready(int fd, int events)
{
    struct pollfd p = {fd, events, 0};
    poll(&p, 1, 0);
    return p.revents;
}

static void on_alarm(int signo)
{
    (void)signo;
}

int main(void)
{
    int p[2], q[2], n;
    char text[256];
    CASE("pipe bad", pipe((int *)8));
    CASE("pipe2 flags", pipe2(p, 0x1));
    CASE("pipe", pipe(p));
    CASE("lowest numbers", p[0] == 3 && p[1] == 4);
    CASE("F_GETFL reader", fcntl(p[0], F_GETFL));
    CASE("F_GETFL writer", fcntl(p[1], F_GETFL));
    CASE("F_GETPIPE_SZ", fcntl(p[0], F_GETPIPE_SZ));
    CASE("poll empty", ready(p[0], POLLIN | POLLOUT));
    CASE("poll room", ready(p[1], POLLIN | POLLOUT));
    CASE("write", write(p[1], "hello", 5));
    CASE("poll data", ready(p[0], POLLIN));
    CASE("FIONREAD", (ioctl(p[0], FIONREAD, &n), n));
    CASE("read part", read(p[0], text, 3));
    CASE("read rest", read(p[0], text, 100));
    CASE("read writer", read(p[1], text, 1));
    CASE("write reader", write(p[0], "x", 1));
    CASE("write nothing", write(p[1], "", 0));
    CASE("read nothing", read(p[0], text, 0));
    CASE("lseek", lseek(p[0], 0, SEEK_SET));
    CASE("pread", pread(p[0], text, 1, 0));
    CASE("ftruncate", ftruncate(p[1], 0));
    CASE("fsync", fsync(p[1]));
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    fcntl(p[1], F_SETFL, O_NONBLOCK);
    CASE("read empty nonblock", read(p[0], text, 1));
    CASE("fill", write(p[1], big, sizeof big));
    CASE("full", write(p[1], "x", 1));
    CASE("poll full", ready(p[1], POLLOUT));
    CASE("take 4095", read(p[0], big, 4095));
    CASE("atomic write of 4096 into 4095", write(p[1], big, 4096));
    CASE("take one more", read(p[0], big, 1));
    CASE("poll a page", ready(p[1], POLLOUT));
    CASE("atomic write of 4096", write(p[1], big, 4096));
    CASE("F_SETPIPE_SZ too small for the data", fcntl(p[0], F_SETPIPE_SZ, 4096));
    CASE("F_SETPIPE_SZ", fcntl(p[0], F_SETPIPE_SZ, 70000));
    CASE("F_GETPIPE_SZ after", fcntl(p[0], F_GETPIPE_SZ));
    CASE("room after", write(p[1], big, sizeof big));
    n = 0;
    for (int r; (r = read(p[0], big, sizeof big)) > 0;)
        n += r;
    TELL("drained", "%d", n);
    CASE("F_SETPIPE_SZ zero", fcntl(p[0], F_SETPIPE_SZ, 0));
    CASE("close writer", close(p[1]));
    CASE("end of file", read(p[0], text, 1));
    CASE("poll hangup", ready(p[0], POLLIN));
    close(p[0]);

    signal(SIGPIPE, on_pipe);
    pipe(p);
    close(p[0]);
    CASE("poll broken", ready(p[1], POLLOUT));
    CASE("write broken", write(p[1], "x", 1));
    TELL("SIGPIPE", "%d", pipes_broken);
    CASE("write nothing broken", write(p[1], "x", 0));
    close(p[1]);
    signal(SIGPIPE, SIG_DFL);
    IN_CHILD("killed by SIGPIPE", pipe(p); close(p[0]); write(p[1], "x", 1));
    signal(SIGPIPE, SIG_IGN);

    pipe(p);
    IN_CHILD("blocking write of a lot", pipe(p); if (fork() == 0) { close(p[1]); int total = 0, r; while ((r = read(p[0], big, 1000)) > 0) total += r; TELL("reader got", "%d", total); _exit(0); }
             close(p[0]); int w = write(p[1], big, sizeof big); TELL("writer wrote", "%d", w); close(p[1]); wait(0));
    signal(SIGALRM, on_alarm);
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    alarm(1);
    CASE("read interrupted", read(p[0], text, 1));
    alarm(1);
    CASE("write interrupted half way", write(p[1], big, sizeof big));
    alarm(0);
    close(p[0]);
    close(p[1]);

    CASE("pipe2", pipe2(p, O_CLOEXEC | O_NONBLOCK));
    CASE("cloexec", fcntl(p[0], F_GETFD));
    CASE("nonblock", fcntl(p[1], F_GETFL));
    close(p[0]);
    close(p[1]);
    CASE("packets", pipe2(p, O_DIRECT | O_NONBLOCK));
    write(p[1], "one", 3);
    write(p[1], "second", 6);
    CASE("packet 1", read(p[0], text, 100));
    CASE("packet 2 cut", read(p[0], text, 2));
    CASE("rest is gone", read(p[0], text, 100));
    struct iovec iov[2] = {{"ab", 2}, {"cde", 3}};
    CASE("writev", writev(p[1], iov, 2));
    CASE("one packet", read(p[0], text, 100));
    close(p[0]);
    close(p[1]);

    pipe(p);
    snprintf(text, sizeof text, "/proc/self/fd/%d", p[0]);
    int again = open(text, O_WRONLY | O_NONBLOCK);
    CASE("open the other end by proc", write(again, "zzz", 3));
    CASE("and read it", read(p[0], text, 100));
    close(again);
    close(p[1]);
    CASE("end of file then", read(p[0], text, 1));
    close(p[0]);

    mkfifo("fifo", 0600);
    CASE("fifo writer without reader", open("fifo", O_WRONLY | O_NONBLOCK));
    int r = open("fifo", O_RDONLY | O_NONBLOCK);
    CASE("fifo reader at once", r >= 0);
    CASE("read without a writer", read(r, text, 1));
    CASE("poll without a writer", ready(r, POLLIN));
    int w = open("fifo", O_WRONLY | O_NONBLOCK);
    CASE("fifo writer with a reader", w >= 0);
    CASE("read empty", read(r, text, 1));
    CASE("fifo write", write(w, "through", 7));
    CASE("fifo read", read(r, text, 100));
    close(w);
    CASE("fifo end", read(r, text, 100));
    CASE("fifo hangup", ready(r, POLLIN));
    close(r);
    IN_CHILD("fifo rendezvous", if (fork() == 0) { int f = open("fifo", O_WRONLY); write(f, "meet", 4); _exit(0); }
             int f = open("fifo", O_RDONLY); int got = read(f, text, 100); TELL("met", "%d", got); TELL("then end", "%d", (int)read(f, text, 100)); wait(0));
    IN_CHILD("fifo rendezvous, writer first", if (fork() == 0) { usleep(50000); int f = open("fifo", O_RDONLY); _exit(read(f, text, 100)); }
             int f = open("fifo", O_WRONLY); write(f, "abc", 3); close(f); int s; wait(&s); TELL("reader status", "%d", WEXITSTATUS(s)));
    alarm(1);
    CASE("fifo open interrupted", open("fifo", O_RDONLY));
    alarm(0);
    r = open("fifo", O_RDWR);
    CASE("fifo both ways", write(r, "self", 4) + read(r, text, 100));
    close(r);

    CASE("dup", (q[0] = dup(1), q[0]));
    CASE("dup2", dup2(1, 50));
    CASE("dup2 same", dup2(50, 50));
    CASE("dup2 same closed", dup2(51, 51));
    CASE("dup2 closed", dup2(51, 52));
    CASE("dup2 negative", dup2(1, -1));
    CASE("dup2 too big", dup2(1, 1 << 20));
    CASE("dup3 same", dup3(50, 50, 0));
    CASE("dup3 flags", dup3(1, 52, 1));
    CASE("dup3", dup3(1, 52, O_CLOEXEC));
    CASE("dup3 cloexec", fcntl(52, F_GETFD));
    CASE("F_DUPFD", fcntl(1, F_DUPFD, 50));
    CASE("F_DUPFD_CLOEXEC", fcntl(1, F_DUPFD_CLOEXEC, 60));
    CASE("F_DUPFD cloexec", fcntl(60, F_GETFD));
    CASE("F_DUPFD negative", fcntl(1, F_DUPFD, -1));
    CASE("F_DUPFD too big", fcntl(1, F_DUPFD, 1 << 22));
    struct rlimit limit = {55, 1024};
    setrlimit(RLIMIT_NOFILE, &limit);
    CASE("F_DUPFD at limit", fcntl(1, F_DUPFD, 55));
    CASE("F_DUPFD below limit", fcntl(1, F_DUPFD, 54));
    CASE("F_DUPFD limit reached", fcntl(1, F_DUPFD, 54));
    limit.rlim_cur = 5;
    setrlimit(RLIMIT_NOFILE, &limit);
    CASE("open at limit", (close(3), dup(1)));
    CASE("one more", dup(1));
    CASE("and no more", dup(1));
    CASE("pipe at limit", pipe(p));
    limit.rlim_cur = 1024;
    setrlimit(RLIMIT_NOFILE, &limit);
    CASE("close_range flags", syscall(SYS_close_range, 3, 4, 0x100));
    CASE("close_range order", syscall(SYS_close_range, 5, 4, 0));
    CASE("close_range cloexec", syscall(SYS_close_range, 3, 100, 4));
    CASE("marked", fcntl(50, F_GETFD));
    CASE("close_range", syscall(SYS_close_range, 3, ~0U, 0));
    CASE("closed", fcntl(50, F_GETFD));
    CASE("FIOCLEX", (dup2(1, 9), ioctl(9, FIOCLEX)));
    CASE("FIOCLEX says", fcntl(9, F_GETFD));
    CASE("FIONCLEX", (ioctl(9, FIONCLEX), fcntl(9, F_GETFD)));
    pipe(p);
    n = 1;
    CASE("FIONBIO", ioctl(p[0], FIONBIO, &n));
    CASE("FIONBIO says", fcntl(p[0], F_GETFL));
    CASE("F_SETOWN", fcntl(p[0], F_SETOWN, getpid()));
    CASE("F_GETOWN", fcntl(p[0], F_GETOWN) == getpid());
    CASE("F_SETSIG", fcntl(p[0], F_SETSIG, 200));
    CASE("F_SETSIG good", fcntl(p[0], F_SETSIG, SIGUSR1));
    CASE("F_GETSIG", fcntl(p[0], F_GETSIG));
    IN_CHILD("exec closes", fcntl(p[0], F_SETFD, FD_CLOEXEC); fcntl(p[1], F_SETFD, 0); execl("/bin/sh", "sh", "-c", "ls /proc/self/fd | wc -l >&2; exit 7", (char *)0));
    return 0;
}

/* Signals instead of waiting: SIGIO and F_SETSIG for O_ASYNC, SIGURG for urgent data. */
#include "case.h"
#include <netinet/in.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <time.h>

static volatile sig_atomic_t seen[65];
static volatile int last_fd, last_code, last_band;
static char buffer[64];

static void handler(int signo, siginfo_t *info, void *context)
{
    (void)context;
    seen[signo]++;
    last_fd = info->si_fd;
    last_code = info->si_code;
    last_band = info->si_band;
}

static void settle(int signo)
{
    struct timespec t = {0, 5000000};
    for (int i = 0; i < 100 && !seen[signo]; i++)
        nanosleep(&t, NULL);
}

int main(void)
{
    struct sigaction sa = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_RESTART};
    sigaction(SIGIO, &sa, NULL);
    sigaction(SIGURG, &sa, NULL);
    sigaction(SIGRTMIN + 1, &sa, NULL);
    int pair[2], p[2], on = 1;
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    CASE("own a socket", fcntl(pair[0], F_SETOWN, getpid()));
    CASE("owner", fcntl(pair[0], F_GETOWN) == getpid());
    CASE("async", fcntl(pair[0], F_SETFL, O_ASYNC | O_NONBLOCK));
    TELL("flags", "%#x", fcntl(pair[0], F_GETFL));
    seen[SIGIO] = 0;
    write(pair[1], "x", 1);
    settle(SIGIO);
    TELL("SIGIO came", "%d", seen[SIGIO] > 0);
    CASE("and the data", read(pair[0], buffer, 10));
    CASE("not async", fcntl(pair[0], F_SETFL, O_NONBLOCK));
    seen[SIGIO] = 0;
    write(pair[1], "x", 1);
    struct timespec t = {0, 20000000};
    nanosleep(&t, NULL);
    TELL("no SIGIO", "%d", seen[SIGIO]);
    read(pair[0], buffer, 10);
    CASE("a real-time signal", fcntl(pair[0], F_SETSIG, SIGRTMIN + 1));
    CASE("which one", fcntl(pair[0], F_GETSIG) - SIGRTMIN);
    CASE("no such signal", fcntl(pair[0], F_SETSIG, 99));
    CASE("FIOASYNC", ioctl(pair[0], FIOASYNC, &on));
    seen[SIGRTMIN + 1] = 0;
    write(pair[1], "x", 1);
    settle(SIGRTMIN + 1);
    TELL("it came", "%d fd %d code %d", seen[SIGRTMIN + 1] > 0, last_fd == pair[0], last_code);
    close(pair[0]);
    pipe(p);
    CASE("own a pipe", fcntl(p[0], F_SETOWN, getpid()));
    CASE("async pipe", fcntl(p[0], F_SETFL, O_ASYNC));
    seen[SIGIO] = 0;
    write(p[1], "x", 1);
    settle(SIGIO);
    TELL("SIGIO for the pipe", "%d", seen[SIGIO] > 0);

    int server = socket(AF_INET, SOCK_STREAM, 0), client = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    bind(server, (void *)&a, sizeof a);
    listen(server, 1);
    getsockname(server, (void *)&a, &n);
    connect(client, (void *)&a, sizeof a);
    int one = accept(server, NULL, NULL);
    int me = getpid();
    CASE("SIOCSPGRP", ioctl(one, 0x8902, &me));
    int got = 0;
    CASE("SIOCGPGRP", ioctl(one, 0x8904, &got));
    TELL("it is me", "%d", got == me);
    seen[SIGURG] = 0;
    send(client, "!", 1, MSG_OOB);
    settle(SIGURG);
    TELL("SIGURG came", "%d", seen[SIGURG] > 0);
    CASE("urgent byte", recv(one, buffer, 1, MSG_OOB));
    return 0;
}

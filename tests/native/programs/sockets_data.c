/* Sockets that work: TCP, UDP and UNIX conversations, blocking and not, with threads and children at the other end. */
#include "case.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static struct sockaddr_in loopback;
static char buffer[65536];

static int bound(int type)
{
    int fd = socket(AF_INET, type, 0);
    loopback = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bind(fd, (void *)&loopback, sizeof loopback);
    socklen_t n = sizeof loopback;
    getsockname(fd, (void *)&loopback, &n);
    return fd;
}

static void *connector(void *arg)
{
    (void)arg;
    struct timespec soon = {0, 20000000};
    nanosleep(&soon, NULL);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (void *)&loopback, sizeof loopback);
    return (void *)(long)fd;
}

static void tcp(void)
{
    int server = bound(SOCK_STREAM);
    CASE("tcp rebind", bind(server, (void *)&loopback, sizeof loopback));
    CASE("tcp listen", listen(server, 5));
    int other = socket(AF_INET, SOCK_STREAM, 0);
    CASE("tcp bind in use", bind(other, (void *)&loopback, sizeof loopback));
    fcntl(server, F_SETFL, O_NONBLOCK);
    CASE("tcp accept nonblocking", accept(server, NULL, NULL));
    fcntl(server, F_SETFL, 0);
    pthread_t thread;
    pthread_create(&thread, NULL, connector, NULL);
    struct sockaddr_in peer;
    socklen_t n = sizeof peer;
    int one = accept4(server, (void *)&peer, &n, SOCK_CLOEXEC);
    TELL("tcp accepted", "%d family %d length %d loopback %d cloexec %d flags %#x", one >= 0, peer.sin_family, (int)n,
         peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK), fcntl(one, F_GETFD), fcntl(one, F_GETFL));
    void *result;
    pthread_join(thread, &result);
    int two = (long)result;
    CASE("tcp connect again", connect(two, (void *)&loopback, sizeof loopback));
    CASE("tcp connect listener", connect(server, (void *)&loopback, sizeof loopback));
    CASE("tcp send", send(two, "hello world", 11, 0));
    int queued = 0;
    while (queued < 11)
        ioctl(one, FIONREAD, &queued);
    CASE("tcp peek", recv(one, buffer, 5, MSG_PEEK));
    CASE("tcp trunc", recv(one, buffer, 5, MSG_TRUNC));
    CASE("tcp recv", recv(one, buffer, 100, 0));
    BYTES("tcp bytes", buffer, 6);
    CASE("tcp recv empty", recv(one, buffer, 100, MSG_DONTWAIT));
    n = 99;
    CASE("tcp recvfrom wants a name", (send(two, "x", 1, 0), recvfrom(one, buffer, 100, 0, (void *)&peer, &n)));
    TELL("tcp name length", "%d", (int)n);
    struct timeval tv = {0, 20000}, before, after;
    setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    gettimeofday(&before, NULL);
    CASE("tcp timeout", recv(one, buffer, 1, 0));
    gettimeofday(&after, NULL);
    long took = (after.tv_sec - before.tv_sec) * 1000000 + after.tv_usec - before.tv_usec;
    TELL("tcp timeout took", "%d", took >= 19000 && took < 2000000);
    int yes = 1;
    CASE("tcp nodelay", setsockopt(one, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes));
    CASE("tcp oob", send(two, "!", 1, MSG_OOB));
    struct pollfd p = {one, POLLPRI, 0};
    CASE("tcp poll oob", poll(&p, 1, 1000));
    TELL("tcp poll oob events", "%#x", p.revents);
    CASE("tcp recv oob", recv(one, buffer, 1, MSG_OOB));
    CASE("tcp shutdown", shutdown(two, SHUT_WR));
    CASE("tcp send after shutdown", send(two, "x", 1, MSG_NOSIGNAL));
    tv.tv_usec = 500000;
    setsockopt(one, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
    CASE("tcp recv end", recv(one, buffer, 1, 0));
    p = (struct pollfd){one, POLLIN | POLLOUT | POLLRDHUP, 0};
    poll(&p, 1, 100);
    TELL("tcp half closed events", "%#x", p.revents);
    close(one);
    struct linger hard = {1, 0};
    setsockopt(two, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close(two);
    shutdown(server, SHUT_RDWR);
    CASE("tcp accept after shutdown", accept(server, NULL, NULL));
    close(server);
    int refused = socket(AF_INET, SOCK_STREAM, 0);
    CASE("tcp refused", connect(refused, (void *)&loopback, sizeof loopback));
    close(refused);
    refused = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int r = connect(refused, (void *)&loopback, sizeof loopback);
    TELL("tcp nonblocking refused", "%d %d", r, errno == EINPROGRESS || errno == ECONNREFUSED);
    p = (struct pollfd){refused, POLLOUT, 0};
    poll(&p, 1, 1000);
    int error = 0;
    n = sizeof error;
    getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &n);
    TELL("tcp SO_ERROR", "%s", case_errno(error));
    getsockopt(refused, SOL_SOCKET, SO_ERROR, &error, &n);
    TELL("tcp SO_ERROR again", "%d", error);
}

static void udp(void)
{
    int server = bound(SOCK_DGRAM), client = socket(AF_INET, SOCK_DGRAM, 0);
    CASE("udp no destination", send(client, "x", 1, 0));
    CASE("udp too long", sendto(client, buffer, 65536, 0, (void *)&loopback, sizeof loopback));
    CASE("udp sendto", sendto(client, "datagram", 8, 0, (void *)&loopback, sizeof loopback));
    struct sockaddr_in from;
    socklen_t n = 4;
    CASE("udp truncated", recvfrom(server, buffer, 4, 0, (void *)&from, &n));
    TELL("udp address length", "%d", (int)n);
    CASE("udp the rest is gone", recv(server, buffer, 4, MSG_DONTWAIT));
    sendto(client, "datagram", 8, 0, (void *)&loopback, sizeof loopback);
    CASE("udp MSG_TRUNC", recv(server, buffer, 4, MSG_TRUNC));
    CASE("udp empty", sendto(client, "", 0, 0, (void *)&loopback, sizeof loopback));
    CASE("udp empty arrives", recv(server, buffer, 4, 0));
    CASE("udp connect", connect(client, (void *)&loopback, sizeof loopback));
    CASE("udp connected send", send(client, "abc", 3, 0));
    n = sizeof from;
    CASE("udp recvfrom", recvfrom(server, buffer, 100, 0, (void *)&from, &n));
    CASE("udp answer", sendto(server, "back", 4, 0, (void *)&from, n));
    CASE("udp receive answer", recv(client, buffer, 100, 0));
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    CASE("udp dissolve", connect(client, &none, sizeof none));
    CASE("udp dissolved peer", getpeername(client, (void *)&from, &n));
    connect(client, (void *)&loopback, sizeof loopback);
    close(server);
    send(client, "x", 1, 0);
    struct pollfd p = {client, POLLIN, 0};
    poll(&p, 1, 1000);
    CASE("udp refused", recv(client, buffer, 1, MSG_DONTWAIT));
    close(client);
}

static void *writer(void *arg)
{
    static char big[1 << 20];
    memset(big, 'b', sizeof big);
    long total = 0;
    int fd = (long)arg;
    total = send(fd, big, sizeof big, 0);
    shutdown(fd, SHUT_WR);
    return (void *)total;
}

static void streams(void)
{
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    pthread_t thread;
    pthread_create(&thread, NULL, writer, (void *)(long)pair[0]);
    long total = 0, n;
    while ((n = recv(pair[1], buffer, sizeof buffer, 0)) > 0)
        total += n;
    void *sent;
    pthread_join(thread, &sent);
    TELL("stream all sent, all received", "%ld %ld", (long)sent, total);
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    IN_CHILD("waitall sender", for (int i = 0; i < 4; i++) if (write(pair[0], "abcd", 4) != 4) _exit(1));
    CASE("waitall", recv(pair[1], buffer, 16, MSG_WAITALL));
    BYTES("waitall bytes", buffer, 16);
    close(pair[0]);
    CASE("waitall at the end", recv(pair[1], buffer, 16, MSG_WAITALL));
    CASE("send to closed", send(pair[1], "x", 1, MSG_NOSIGNAL));
    IN_CHILD("send to closed signals", send(pair[1], "x", 1, 0));
    IN_CHILD("write to closed signals", _exit(write(pair[1], "x", 1) == 1));
    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
    CASE("seqpacket send", send(pair[0], "12345", 5, MSG_EOR));
    CASE("seqpacket send 2", send(pair[0], "6", 1, 0));
    CASE("seqpacket short recv", recv(pair[1], buffer, 2, 0));
    CASE("seqpacket next", recv(pair[1], buffer, 20, 0));
    close(pair[0]);
    CASE("seqpacket closed", recv(pair[1], buffer, 20, 0));
    IN_CHILD("seqpacket send to closed", _exit(send(pair[1], "x", 1, 0) == -1 && errno == EPIPE ? 7 : 1));
    socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair);
    int count = 0;
    while (send(pair[0], "x", 1, 0) == 1)
        count++;
    TELL("dgram queue is finite", "%d %s", count > 0, case_errno(errno));
    struct pollfd p = {pair[0], POLLOUT, 0};
    CASE("dgram full poll", poll(&p, 1, 0));
    CASE("dgram read one", recv(pair[1], buffer, 1, 0));
    CASE("dgram writable again", poll(&p, 1, 100));
    CASE("readv", (send(pair[0], "scatter", 7, 0), 0));
    while (recv(pair[1], buffer, 10, 0) == 1)
        ;
    BYTES("readv bytes", buffer, 7);
}

static void handler(int signo) { (void)signo; }

static void interrupted(int restart)
{
    int pair[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    struct sigaction sa = {.sa_handler = handler, .sa_flags = restart ? SA_RESTART : 0};
    sigaction(SIGALRM, &sa, NULL);
    struct itimerval soon = {{0, 0}, {0, 20000}};
    setitimer(ITIMER_REAL, &soon, NULL);
    if (restart) {
        struct timeval tv = {0, 200000};
        setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
        CASE("interrupted with a timeout is not restarted", recv(pair[0], buffer, 1, 0));
        setitimer(ITIMER_REAL, &soon, NULL);
        if (fork() == 0) {
            struct timespec later = {0, 60000000};
            nanosleep(&later, NULL);
            _exit(write(pair[0], "z", 1) != 1);
        }
        CASE("interrupted and restarted", recv(pair[1], buffer, 1, 0));
        wait(NULL);
    } else {
        CASE("interrupted recv", recv(pair[0], buffer, 1, 0));
        setitimer(ITIMER_REAL, &soon, NULL);
        send(pair[1], "abc", 3, 0);
        CASE("interrupted waitall gives what it has", recv(pair[0], buffer, 8, MSG_WAITALL));
    }
}

int main(void)
{
    signal(SIGPIPE, SIG_DFL);
    tcp();
    udp();
    streams();
    interrupted(0);
    interrupted(1);
    return 0;
}

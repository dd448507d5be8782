/* Socket calls that fail, by combination: descriptors x lengths x pointers; families x types x protocols; options. */
#include "case.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#define BAD ((void *)8)
static char buffer[256];

static int made(int fd)
{
    if (fd >= 0) {
        close(fd);
        return 0;
    }
    return -1;
}

static void creation(void)
{
    static const int families[] = {-1, 0, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, 45, 46, 999};
    static const int types[] = {0, SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET, SOCK_RDM, 7, 10, 11, 15, SOCK_STREAM | 0x100};
    static const int protocols[] = {0, -1, IPPROTO_TCP, IPPROTO_UDP, 300};
    for (int f = 0; f < ARRAY_LENGTH(families); f++)
        for (int t = 0; t < ARRAY_LENGTH(types); t++)
            for (int p = 0; p < ARRAY_LENGTH(protocols); p++) {
                if (families[f] == AF_UNIX && p > 2)
                    continue;
                CASEF(made(socket(families[f], types[t], protocols[p])), "socket %d %#x %d", families[f], types[t],
                      protocols[p]);
            }
    int pair[2];
    for (int f = 1; f < ARRAY_LENGTH(families); f++)
        for (int t = 0; t < 4; t++)
            CASEF(socketpair(families[f], types[t], 0, pair), "socketpair %d %#x", families[f], types[t]);
    CASE("socketpair bad pointer", socketpair(AF_UNIX, SOCK_STREAM, 0, BAD));
    CASE("socketpair bad pointer and family", socketpair(999, SOCK_STREAM, 0, BAD));
    CASE("socketpair bad flags and pointer", socketpair(AF_UNIX, SOCK_STREAM | 0x100, 0, BAD));
}

static void addresses(const char *kind, int fd)
{
    static const int lengths[] = {-1, 0, 1, 2, 3, 7, 8, 15, 16, 27, 28, 110, 111, 128, 129, 4096};
    struct sockaddr_storage sa;
#define C(text, e) CASEF(e, "%s " text, kind)
    for (int i = 0; i < ARRAY_LENGTH(lengths); i++) {
        memset(&sa, 0, sizeof sa);
        sa.ss_family = 250;
        CASEF(bind(fd, (void *)&sa, lengths[i]), "%s bind family 250 length %d", kind, lengths[i]);
        CASEF(bind(fd, BAD, lengths[i]), "%s bind bad pointer length %d", kind, lengths[i]);
        CASEF(connect(fd, BAD, lengths[i]), "%s connect bad pointer length %d", kind, lengths[i]);
        CASEF(sendto(fd, "x", 1, MSG_NOSIGNAL | MSG_DONTWAIT, BAD, lengths[i]), "%s sendto bad pointer length %d", kind,
              lengths[i]);
        if (lengths[i] != 0 && (lengths[i] < 0 || lengths[i] > 1))
            CASEF(connect(fd, (void *)&sa, lengths[i]), "%s connect family 250 length %d", kind, lengths[i]);
    }
    socklen_t n = sizeof sa;
    C("getsockname null length", getsockname(fd, (void *)&sa, NULL));
    C("getsockname bad length", getsockname(fd, (void *)&sa, BAD));
    C("getsockname bad address", getsockname(fd, BAD, &n));
    n = -1;
    C("getsockname negative length", getsockname(fd, (void *)&sa, &n));
    n = sizeof sa;
    C("getpeername", getpeername(fd, (void *)&sa, &n));
    C("getpeername bad", getpeername(fd, BAD, BAD));
    C("accept", accept(fd, NULL, NULL));
    C("accept4 bad flags", accept4(fd, NULL, NULL, 1));
    C("accept bad pointers", accept(fd, BAD, BAD));
    C("shutdown 3", shutdown(fd, 3));
    C("shutdown -1", shutdown(fd, -1));
    C("shutdown", shutdown(fd, SHUT_WR));
    C("recv", recv(fd, buffer, 8, MSG_DONTWAIT));
    C("recv bad", recv(fd, BAD, 8, MSG_DONTWAIT));
    C("recv oob", recv(fd, buffer, 8, MSG_DONTWAIT | MSG_OOB));
    C("recv errqueue", recv(fd, buffer, 8, MSG_DONTWAIT | MSG_ERRQUEUE));
    C("send", send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("send bad", send(fd, BAD, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("send oob", send(fd, "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL | MSG_OOB));
    C("recvmsg bad", recvmsg(fd, BAD, MSG_DONTWAIT));
    C("sendmsg bad", sendmsg(fd, BAD, MSG_DONTWAIT | MSG_NOSIGNAL));
    struct msghdr m = {.msg_iov = BAD, .msg_iovlen = 1};
    C("recvmsg bad vector", recvmsg(fd, &m, MSG_DONTWAIT));
    C("sendmsg bad vector", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
    m.msg_iovlen = 1025;
    C("recvmsg long vector", recvmsg(fd, &m, MSG_DONTWAIT));
    C("sendmsg long vector", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
    struct iovec v = {buffer, (size_t)-1};
    m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1};
    C("recvmsg negative segment", recvmsg(fd, &m, MSG_DONTWAIT));
    v.iov_len = 1;
    m.msg_name = &sa;
    m.msg_namelen = -1;
    C("sendmsg negative name", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("recvmsg negative name", recvmsg(fd, &m, MSG_DONTWAIT));
    m = (struct msghdr){.msg_iov = &v, .msg_iovlen = 1, .msg_control = BAD, .msg_controllen = 20};
    C("sendmsg bad control", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
    m.msg_controllen = (size_t)1 << 40;
    C("sendmsg huge control", sendmsg(fd, &m, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("recvmmsg bad", recvmmsg(fd, BAD, 1, MSG_DONTWAIT, NULL));
    C("sendmmsg bad", sendmmsg(fd, BAD, 1, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("sendmmsg none", sendmmsg(fd, BAD, 0, MSG_DONTWAIT));
    struct timespec wrong = {0, 2000000000};
    C("recvmmsg bad time", recvmmsg(fd, BAD, 1, MSG_DONTWAIT, &wrong));
}

static void options(const char *kind, int fd)
{
    int value = 1;
    socklen_t n;
    static const int levels[] = {SOL_SOCKET, IPPROTO_TCP, IPPROTO_IP, IPPROTO_IPV6, 9999};
    for (int l = 0; l < ARRAY_LENGTH(levels); l++)
        for (int o = 0; o < 8; o++) {
            static const int names[] = {1, 2, 3, 4, 9, 15, 9999, -1};
            n = sizeof value;
            CASEF(getsockopt(fd, levels[l], names[o], &value, &n), "%s getsockopt %d %d", kind, levels[l], names[o]);
            value = 1;
            CASEF(setsockopt(fd, levels[l], names[o], &value, sizeof value), "%s setsockopt %d %d", kind, levels[l],
                  names[o]);
        }
    static const int lengths[] = {-1, 0, 1, 3, 4, 5, 100};
    for (int i = 0; i < ARRAY_LENGTH(lengths); i++) {
        value = 1;
        CASEF(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, buffer, lengths[i]), "%s setsockopt length %d", kind, lengths[i]);
        CASEF(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, BAD, lengths[i]), "%s setsockopt bad length %d", kind, lengths[i]);
        n = lengths[i];
        memset(buffer, 0x55, 16);
        CASEF(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, buffer, &n), "%s getsockopt length %d", kind, lengths[i]);
        TELL(case_format("%s getsockopt length %d left", kind, lengths[i]), "%d %02x%02x%02x%02x", (int)n, buffer[0],
             buffer[1], buffer[2], buffer[3]);
        n = lengths[i];
        CASEF(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, BAD, &n), "%s getsockopt bad length %d", kind, lengths[i]);
    }
    C("getsockopt null length", getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &value, NULL));
    struct timeval tv = {1, 2000000};
    C("SO_RCVTIMEO domain", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    tv = (struct timeval){3, 250000};
    C("SO_RCVTIMEO short", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, 8));
    C("SO_RCVTIMEO", setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
    n = sizeof tv;
    memset(&tv, 0, sizeof tv);
    C("SO_RCVTIMEO back", getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &n));
    TELL(case_format("%s SO_RCVTIMEO is", kind), "%ld %ld %d", (long)tv.tv_sec, (long)tv.tv_usec, (int)n);
    int facts[3] = {-1, -1, -1};
    for (int i = 0; i < 3; i++) {
        static const int names[] = {SO_DOMAIN, SO_TYPE, SO_PROTOCOL};
        n = sizeof facts[i];
        getsockopt(fd, SOL_SOCKET, names[i], &facts[i], &n);
    }
    TELL(case_format("%s domain type protocol", kind), "%d %d %d", facts[0], facts[1], facts[2]);
    int queued = -1;
    C("FIONREAD", ioctl(fd, FIONREAD, &queued));
    C("SIOCATMARK", ioctl(fd, 0x8905, &queued));
    C("FIONBIO bad", ioctl(fd, FIONBIO, BAD));
    C("FIONBIO", ioctl(fd, FIONBIO, &value));
    C("TIOCOUTQ", ioctl(fd, TIOCOUTQ, &queued));
    C("TIOCGWINSZ", ioctl(fd, TIOCGWINSZ, buffer));
    TELL(case_format("%s flags", kind), "%#x", fcntl(fd, F_GETFL));
}

int main(void)
{
    creation();
    struct { const char *kind; int family, type; } kinds[] = {
        {"tcp", AF_INET, SOCK_STREAM}, {"udp", AF_INET, SOCK_DGRAM}, {"tcp6", AF_INET6, SOCK_STREAM},
        {"unix stream", AF_UNIX, SOCK_STREAM}, {"unix dgram", AF_UNIX, SOCK_DGRAM}, {"unix seqpacket", AF_UNIX, SOCK_SEQPACKET},
    };
    for (int i = 0; i < ARRAY_LENGTH(kinds); i++)
        addresses(kinds[i].kind, socket(kinds[i].family, kinds[i].type, 0));
    addresses("closed", 99);
    addresses("negative", -1);
    addresses("eventfd", eventfd(0, 0));
    addresses("file", file_with("f", "text"));
    for (int i = 0; i < ARRAY_LENGTH(kinds); i++)
        options(kinds[i].kind, socket(kinds[i].family, kinds[i].type, 0));
    options("closed", 99);
    return 0;
}

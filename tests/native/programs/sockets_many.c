/* Many messages at once, control data of IP, interfaces and netlink, IPv6, odd families, sockets across fork and exec. */
#include "case.h"
#include <arpa/inet.h>
#include <ifaddrs.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>

static char buffer[65536];

static void many(void)
{
    int pair[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, pair);
    struct mmsghdr out[4], in[8];
    struct iovec vo[4][2], vi[8];
    char room[8][16];
    memset(out, 0, sizeof out);
    memset(in, 0, sizeof in);
    for (int i = 0; i < 4; i++) {
        vo[i][0] = (struct iovec){"head", 4};
        vo[i][1] = (struct iovec){"0123456789", i};
        out[i].msg_hdr.msg_iov = vo[i];
        out[i].msg_hdr.msg_iovlen = 2;
    }
    for (int i = 0; i < 8; i++) {
        vi[i] = (struct iovec){room[i], i == 3 ? 5 : 16};
        in[i].msg_hdr.msg_iov = &vi[i];
        in[i].msg_hdr.msg_iovlen = 1;
    }
    CASE("sendmmsg", sendmmsg(pair[0], out, 4, 0));
    TELL("sendmmsg lengths", "%u %u %u %u", out[0].msg_len, out[1].msg_len, out[2].msg_len, out[3].msg_len);
    CASE("recvmmsg", recvmmsg(pair[1], in, 8, MSG_DONTWAIT, NULL));
    TELL("recvmmsg lengths", "%u %u %u %u", in[0].msg_len, in[1].msg_len, in[2].msg_len, in[3].msg_len);
    TELL("recvmmsg flags", "%#x %#x", in[2].msg_hdr.msg_flags, in[3].msg_hdr.msg_flags);
    CASE("recvmmsg empty", recvmmsg(pair[1], in, 8, MSG_DONTWAIT, NULL));
    sendmmsg(pair[0], out, 2, 0);
    CASE("recvmmsg wait for one", recvmmsg(pair[1], in, 8, MSG_WAITFORONE, NULL));
    sendmmsg(pair[0], out, 3, 0);
    struct timespec none = {0, 0};
    CASE("recvmmsg no time", recvmmsg(pair[1], in, 8, 0, &none));
    CASE("recvmmsg the rest", recvmmsg(pair[1], in, 2, 0, NULL));
    out[2].msg_hdr.msg_iov = (void *)8;
    CASE("sendmmsg bad third", sendmmsg(pair[0], out, 4, 0));
    CASE("recvmmsg two came", recvmmsg(pair[1], in, 8, MSG_DONTWAIT, NULL));
    out[0].msg_hdr.msg_iov = (void *)8;
    CASE("sendmmsg bad first", sendmmsg(pair[0], out, 4, 0));
    CASE("sendmmsg none", sendmmsg(pair[0], out, 0, 0));
    struct iovec v[3] = {{"ab", 2}, {(void *)8, 0}, {"cd", 2}};
    CASE("writev", writev(pair[0], v, 3));
    CASE("readv", readv(pair[1], (struct iovec[]){{buffer, 1}, {buffer + 10, 10}}, 2));
    BYTES("readv second", buffer + 10, 3);
    CASE("write nothing", write(pair[0], "", 0));
    v[1] = (struct iovec){(void *)8, 2};
    CASE("writev bad middle", writev(pair[0], v, 3));
    char *end = page_end(PROT_READ | PROT_WRITE);
    CASE("send across the end", send(pair[0], end - 2, 4, 0));
    CASE("send to the end", send(pair[0], end - 2, 2, 0));
    while (recv(pair[1], buffer, 10, MSG_DONTWAIT) >= 0)
        ;
    send(pair[0], "1234", 4, 0);
    CASE("recv across the end", recv(pair[1], end - 2, 4, 0));
    CASE("recv after it", recv(pair[1], buffer, 4, MSG_DONTWAIT));
    int stream[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, stream);
    CASE("stream send across the end", send(stream[0], end - 2, 4, MSG_DONTWAIT));
    send(stream[0], "1234", 4, 0);
    CASE("stream recv across the end", recv(stream[1], end - 2, 4, MSG_DONTWAIT));
    CASE("stream recv after it", recv(stream[1], buffer, 40, MSG_DONTWAIT));
    int file = file_with("f", "sendfile sends this");
    off_t at = 4;
    CASE("sendfile", sendfile(stream[0], file, &at, 100));
    CASE("sendfile came", recv(stream[1], buffer, 100, MSG_DONTWAIT));
    BYTES("sendfile bytes", buffer, 8);
    CASE("splice from a socket", (send(stream[0], "splice", 6, 0), pipe((int *)buffer), splice(stream[1], NULL, ((int *)buffer)[1], NULL, 100, 0)));
    CASE("lseek", lseek(stream[0], 0, SEEK_SET));
    CASE("pread", pread(stream[0], buffer, 1, 0));
    CASE("fsync", fsync(stream[0]));
    CASE("ftruncate", ftruncate(stream[0], 0));
    CASE("mmap", mmap(0, 4096, PROT_READ, MAP_SHARED, stream[0], 0) == MAP_FAILED ? -1 : 0);
    struct stat st;
    fstat(stream[0], &st);
    TELL("fstat", "%o", st.st_mode);
    char path[64], text[64] = {0};
    snprintf(path, sizeof path, "/proc/self/fd/%d", stream[0]);
    ssize_t n = readlink(path, text, 60);
    TELL("readlink", "%d %.8s", n > 9, text);
    CASE("open by proc", open(path, O_RDWR));
}

static void packets(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0), yes = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    bind(fd, (void *)&a, sizeof a);
    getsockname(fd, (void *)&a, &n);
    CASE("IP_PKTINFO", setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &yes, sizeof yes));
    CASE("IP_RECVTTL", setsockopt(fd, IPPROTO_IP, IP_RECVTTL, &yes, sizeof yes));
    CASE("SO_TIMESTAMP", setsockopt(fd, SOL_SOCKET, SO_TIMESTAMP, &yes, sizeof yes));
    CASE("send to myself", sendto(fd, "self", 4, 0, (void *)&a, sizeof a));
    char control[256];
    struct sockaddr_in from;
    struct iovec v = {buffer, 2};
    struct msghdr m = {&from, sizeof from, &v, 1, control, sizeof control, 0};
    CASE("recvmsg", recvmsg(fd, &m, 0));
    TELL("recvmsg out", "%#x %d", m.msg_flags, (int)m.msg_namelen);
    int seen = 0;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
            struct in_pktinfo *info = (void *)CMSG_DATA(c);
            TELL("pktinfo", "%d", info->ipi_addr.s_addr == htonl(INADDR_LOOPBACK));
            seen |= 1;
        } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL) {
            TELL("ttl", "%d", *(int *)CMSG_DATA(c));
            seen |= 2;
        } else if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMP)
            seen |= 4;
    TELL("control seen", "%d", seen);
    sendto(fd, "self", 4, 0, (void *)&a, sizeof a);
    m.msg_controllen = 20;
    m.msg_namelen = 3;
    CASE("recvmsg little control", recvmsg(fd, &m, MSG_TRUNC));
    TELL("little control", "%#x %d", m.msg_flags, (int)m.msg_namelen);
    struct cmsghdr *c = (void *)control;
    memset(control, 0, sizeof control);
    c->cmsg_len = CMSG_LEN(sizeof(int));
    c->cmsg_level = IPPROTO_IP;
    c->cmsg_type = IP_TTL;
    *(int *)CMSG_DATA(c) = 7;
    m = (struct msghdr){&a, sizeof a, &v, 1, control, CMSG_SPACE(sizeof(int)), 0};
    CASE("send with a ttl", sendmsg(fd, &m, 0));
    m = (struct msghdr){&from, sizeof from, &v, 1, control, sizeof control, 0};
    recvmsg(fd, &m, 0);
    for (c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
        if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_TTL)
            TELL("that ttl", "%d", *(int *)CMSG_DATA(c));
    int size = 0;
    n = sizeof size;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, (size = 20000, &size), sizeof size);
    CASE("SO_RCVBUF", getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, &n));
    TELL("doubled", "%d", size);
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = inet_addr("255.255.255.255")};
    CASE("broadcast not allowed", sendto(fd, "x", 1, 0, (void *)&nowhere, sizeof nowhere));
    nowhere.sin_addr.s_addr = inet_addr("203.0.113.5");
    struct sockaddr_in foreign = nowhere;
    CASE("bind to a foreign address", bind(socket(AF_INET, SOCK_STREAM, 0), (void *)&foreign, sizeof foreign));
}

static void interfaces(void)
{
    int fd = socket(AF_INET, SOCK_DGRAM, 0);
    struct ifreq r;
    memset(&r, 0, sizeof r);
    strcpy(r.ifr_name, "lo");
    CASE("SIOCGIFFLAGS", ioctl(fd, SIOCGIFFLAGS, &r));
    TELL("flags", "%d %d", !!(r.ifr_flags & IFF_UP), !!(r.ifr_flags & IFF_LOOPBACK));
    CASE("SIOCGIFADDR", ioctl(fd, SIOCGIFADDR, &r));
    TELL("address", "%s", inet_ntoa(((struct sockaddr_in *)&r.ifr_addr)->sin_addr));
    CASE("SIOCGIFMTU", ioctl(fd, SIOCGIFMTU, &r));
    TELL("mtu", "%d", r.ifr_mtu);
    CASE("SIOCGIFINDEX", ioctl(fd, SIOCGIFINDEX, &r));
    TELL("index", "%d", r.ifr_ifindex);
    memset(&r, 0, sizeof r);
    r.ifr_ifindex = 1;
    CASE("SIOCGIFNAME", ioctl(fd, SIOCGIFNAME, &r));
    TELL("name", "%s", r.ifr_name);
    strcpy(r.ifr_name, "none such");
    CASE("no such interface", ioctl(fd, SIOCGIFADDR, &r));
    CASE("SIOCGIFFLAGS bad", ioctl(fd, SIOCGIFFLAGS, (void *)8));
    struct ifconf conf = {.ifc_len = 0};
    CASE("SIOCGIFCONF length", ioctl(fd, SIOCGIFCONF, &conf));
    conf.ifc_len = sizeof buffer;
    conf.ifc_buf = buffer;
    CASE("SIOCGIFCONF", ioctl(fd, SIOCGIFCONF, &conf));
    TELL("first", "%.16s", conf.ifc_req->ifr_name);
    CASE("if_nametoindex", if_nametoindex("lo"));
    struct ifaddrs *list, *each;
    CASE("getifaddrs", getifaddrs(&list));
    int four = 0, six = 0, packet = 0;
    for (each = list; each; each = each->ifa_next) {
        four += each->ifa_addr && each->ifa_addr->sa_family == AF_INET;
        six += each->ifa_addr && each->ifa_addr->sa_family == AF_INET6;
        packet += each->ifa_addr && each->ifa_addr->sa_family == AF_PACKET;
    }
    TELL("addresses", "%d %d %d", four, six, packet);
    int netlink = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl nl = {.nl_family = AF_NETLINK}, got;
    socklen_t n = sizeof got;
    CASE("netlink bind", bind(netlink, (void *)&nl, sizeof nl));
    CASE("netlink name", getsockname(netlink, (void *)&got, &n));
    TELL("netlink named", "%d %d %d", (int)n, got.nl_family, got.nl_pid != 0);
    struct { struct nlmsghdr h; struct ifinfomsg m; } ask = {{sizeof ask, 9999, NLM_F_REQUEST | NLM_F_ACK, 7, 0}};
    CASE("netlink ask", sendto(netlink, &ask, sizeof ask, 0, (void *)&nl, sizeof nl));
    CASE("netlink answer", recv(netlink, buffer, sizeof buffer, 0) > 0);
    struct nlmsghdr *h = (void *)buffer;
    TELL("netlink error", "%d %d %d", h->nlmsg_type, h->nlmsg_seq, ((struct nlmsgerr *)NLMSG_DATA(h))->error);
}

static void six(void)
{
    int server = socket(AF_INET6, SOCK_STREAM, 0), zero = 0, one = 1;
    struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, got;
    socklen_t n = sizeof a;
    CASE("six only", setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &zero, sizeof zero));
    CASE("six bind", bind(server, (void *)&a, sizeof a));
    CASE("six short bind", bind(server, (void *)&a, 16));
    CASE("six only too late", setsockopt(server, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one));
    getsockname(server, (void *)&a, &n);
    CASE("six listen", listen(server, 2));
    int client = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK, 0);
    int r = connect(client, (void *)&a, sizeof a);
    TELL("six connect", "%d", r == 0 || errno == EINPROGRESS);
    int accepted = accept(server, (void *)&got, (n = sizeof got, &n));
    TELL("six accepted", "%d %d %d", accepted >= 0, (int)n, got.sin6_family);
    struct pollfd p = {client, POLLOUT, 0};
    CASE("six connected", poll(&p, 1, 1000));
    CASE("six connect again", connect(client, (void *)&a, sizeof a));
    CASE("six and again", connect(client, (void *)&a, sizeof a));
    CASE("four on six", connect(socket(AF_INET, SOCK_STREAM, 0), (void *)&a, sizeof a));
    struct tcp_info info;
    n = sizeof info;
    CASE("TCP_INFO", getsockopt(accepted, IPPROTO_TCP, TCP_INFO, &info, &n));
    TELL("established", "%d", info.tcpi_state);
    if (fork() == 0) {
        CASE("child sends", send(client, "from the child", 14, 0));
        close(client);
        _exit(0);
    }
    wait(NULL);
    CASE("parent receives", recv(accepted, buffer, 100, 0));
    CASE("still open here", recv(accepted, buffer, 100, MSG_DONTWAIT));
    close(client);
    CASE("now it ends", recv(accepted, buffer, 100, 0));
    IN_CHILD("exec keeps the socket", (dup2(accepted, 1), execlp("echo", "echo", "x", NULL)));
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found = NULL;
    CASE("getaddrinfo", getaddrinfo("localhost", "80", &hints, &found));
    if (found)
        TELL("localhost", "%s", inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
}

int main(void)
{
    many();
    packets();
    interfaces();
    six();
    return 0;
}

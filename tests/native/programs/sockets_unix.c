/* AF_UNIX: names of every kind, credentials, descriptors in messages, and the two-bind program. */
#include "case.h"
#include <poll.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

static struct sockaddr_un name;
static char buffer[4096];

static socklen_t called(const char *path)
{
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    strncpy(name.sun_path, path, sizeof name.sun_path);
    return offsetof(struct sockaddr_un, sun_path) + strlen(path) + 1;
}

static void tell_name(const char *text, int fd)
{
    struct sockaddr_un got;
    memset(&got, 0xee, sizeof got);
    socklen_t n = sizeof got;
    int r = getsockname(fd, (void *)&got, &n);
    TELL(text, "%d length %d path %.*s", r, (int)n, n > 2 && got.sun_path[0] ? 108 : 0, got.sun_path);
}

static void two_binds(void)
{
    int one = socket(AF_UNIX, SOCK_STREAM, 0), two = socket(AF_UNIX, SOCK_STREAM, 0);
    tell_name("unnamed", one);
    socklen_t n = called("twice");
    CASE("first bind", bind(one, (void *)&name, n));
    CASE("second bind", bind(two, (void *)&name, n));
    CASE("same socket again", bind(one, (void *)&name, n));
    n = called("elsewhere");
    CASE("same socket elsewhere", bind(one, (void *)&name, n));
    CASE("the other goes on", bind(two, (void *)&name, n));
    tell_name("its name", two);
    CASE("and listens", listen(two, 3));
    struct stat st;
    CASE("it is a file", stat("elsewhere", &st));
    TELL("of mode", "%o", st.st_mode);
    CASE("open it", open("elsewhere", O_RDWR));
    unlink("elsewhere");
    CASE("connect when unlinked", connect(one, (void *)&name, n));
    n = called("no/such/dir");
    CASE("bind in no directory", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, n));
    n = called("nobody");
    CASE("connect to nothing", connect(one, (void *)&name, n));
    close(file_with("plain", ""));
    n = called("plain");
    CASE("connect to a file", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, n));
    CASE("bind to a file", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, n));
    symlink("twice", "link");
    n = called("link");
    CASE("bind to a link", bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, n));
    CASE("connect by a link, nobody listens", connect(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, n));
    listen(one, 1);
    int client = socket(AF_UNIX, SOCK_STREAM, 0);
    CASE("connect by a link", connect(client, (void *)&name, n));
    CASE("wrong type", connect(socket(AF_UNIX, SOCK_DGRAM, 0), (void *)&name, n));
    char deep[109];
    memset(deep, 'd', 108);
    deep[108] = 0;
    called(deep);
    int full = socket(AF_UNIX, SOCK_STREAM, 0);
    CASE("a path of 108 bytes", bind(full, (void *)&name, sizeof name));
    tell_name("its full name", full);
    CASE("umask applies", (umask(077), bind(socket(AF_UNIX, SOCK_STREAM, 0), (void *)&name, called("masked"))));
    stat("masked", &st);
    TELL("masked mode", "%o", st.st_mode);
    umask(022);
    mkdir("sub", 0755);
    CASE("chdir", chdir("sub"));
    n = called("../up");
    int up = socket(AF_UNIX, SOCK_DGRAM, 0);
    CASE("bind relative", bind(up, (void *)&name, n));
    tell_name("relative name", up);
    CASE("chdir back", chdir(".."));
    n = called("up");
    CASE("send there", sendto(socket(AF_UNIX, SOCK_DGRAM, 0), "hi", 2, 0, (void *)&name, n));
    struct sockaddr_un from;
    socklen_t length = sizeof from;
    CASE("receive there", recvfrom(up, buffer, 10, 0, (void *)&from, &length));
    TELL("from nobody", "%d", (int)length);
}

static void abstract(void)
{
    int one = socket(AF_UNIX, SOCK_STREAM, 0), two = socket(AF_UNIX, SOCK_STREAM, 0);
    memset(&name, 0, sizeof name);
    name.sun_family = AF_UNIX;
    int size = snprintf(name.sun_path + 1, 100, "emugdb test %d", getpid());
    socklen_t n = offsetof(struct sockaddr_un, sun_path) + 1 + size;
    CASE("abstract bind", bind(one, (void *)&name, n));
    CASE("abstract bind again", bind(two, (void *)&name, n));
    CASE("abstract connect early", connect(two, (void *)&name, n));
    listen(one, 1);
    CASE("abstract connect", connect(two, (void *)&name, n));
    struct sockaddr_un peer;
    socklen_t m = sizeof peer;
    CASE("abstract peer", getpeername(two, (void *)&peer, &m));
    TELL("abstract same bytes", "%d %d", m == n, memcmp(&peer, &name, n) == 0);
    int autobind = socket(AF_UNIX, SOCK_DGRAM, 0);
    sa_family_t family = AF_UNIX;
    CASE("autobind", bind(autobind, (void *)&family, sizeof family));
    m = sizeof peer;
    getsockname(autobind, (void *)&peer, &m);
    TELL("autobound", "%d %d", (int)m, peer.sun_path[0]);
    int accepted = accept(one, (void *)&peer, (m = sizeof peer, &m));
    TELL("accepted from unnamed", "%d %d", accepted >= 0, (int)m);
    struct ucred cred = {-1, -1, -1};
    m = sizeof cred;
    CASE("peer credentials", getsockopt(accepted, SOL_SOCKET, SO_PEERCRED, &cred, &m));
    TELL("they are mine", "%d %d %d", cred.pid == getpid(), cred.uid == getuid(), cred.gid == getgid());
    if (fork() == 0) {
        int child = socket(AF_UNIX, SOCK_STREAM, 0);
        connect(child, (void *)&name, n);
        send(child, "c", 1, 0);
        struct ucred its = {-1, -1, -1};
        m = sizeof its;
        getsockopt(child, SOL_SOCKET, SO_PEERCRED, &its, &m);
        TELL("child sees the listener", "%d", its.pid == getppid());
        _exit(0);
    }
    int from_child = accept(one, NULL, NULL);
    recv(from_child, buffer, 1, 0);
    m = sizeof cred;
    getsockopt(from_child, SOL_SOCKET, SO_PEERCRED, &cred, &m);
    int status;
    pid_t child = wait(&status);
    TELL("parent sees the child", "%d", cred.pid == child);
    int none = socket(AF_UNIX, SOCK_STREAM, 0);
    m = sizeof cred;
    CASE("no peer", getsockopt(none, SOL_SOCKET, SO_PEERCRED, &cred, &m));
    TELL("no peer is", "%d %d %d", cred.pid, cred.uid, cred.gid);
}

static int send_fds(int through, const int *fds, int count, const char *text)
{
    char control[CMSG_SPACE(300 * sizeof(int))] = {0};
    struct iovec v = {(void *)text, strlen(text)};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control};
    m.msg_controllen = CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    return sendmsg(through, &m, 0);
}

static int receive_fds(const char *text, int through, int *fds, int room, int flags)
{
    char control[CMSG_SPACE(300 * sizeof(int))] = {0};
    struct iovec v = {buffer, 100};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = room};
    int r = recvmsg(through, &m, flags);
    int count = 0;
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    if (c && c->cmsg_type == SCM_RIGHTS) {
        count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(fds, CMSG_DATA(c), count * sizeof(int));
    }
    TELL(text, "%d bytes %d fds flags %#x controllen %d", r, count, m.msg_flags, (int)m.msg_controllen);
    return count;
}

static void rights(void)
{
    int pair[2], fds[300], got[300], p[2];
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    pipe(p);
    fds[0] = p[1];
    fds[1] = file_with("passed", "contents of the file");
    fds[2] = eventfd(5, EFD_NONBLOCK);
    fds[3] = epoll_create1(0);
    lseek(fds[1], 9, SEEK_SET);
    CASE("pass four", send_fds(pair[0], fds, 4, "four"));
    close(fds[0]);
    int count = receive_fds("receive four", pair[1], got, CMSG_SPACE(10 * sizeof(int)), MSG_CMSG_CLOEXEC);
    TELL("close on exec", "%d", fcntl(got[0], F_GETFD));
    CASE("write the pipe", write(got[0], "through", 7));
    CASE("read the pipe", read(p[0], buffer, 100));
    close(got[0]);
    CASE("the pipe ends", read(p[0], buffer, 100));
    CASE("the offset is shared", read(got[1], buffer, 100));
    BYTES("shared contents", buffer, 4);
    CASE("also back", lseek(fds[1], 0, SEEK_CUR));
    uint64_t value = 0;
    CASE("the eventfd", read(got[2], &value, 8));
    TELL("its value", "%d", (int)value);
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = 3};
    CASE("the epoll set", epoll_ctl(got[3], EPOLL_CTL_ADD, p[0], &e));
    CASE("is the same", epoll_wait(fds[3], &e, 1, 0));
    TELL("four it was", "%d", count);
    for (int i = 0; i < 3; i++)
        fds[i] = 1;
    CASE("pass three", send_fds(pair[0], fds, 3, "x"));
    receive_fds("room for one", pair[1], got, CMSG_LEN(sizeof(int)), 0);
    CASE("pass two", send_fds(pair[0], fds, 2, "x"));
    receive_fds("room for none", pair[1], got, 0, 0);
    fds[0] = 9999;
    CASE("pass a closed one", send_fds(pair[0], fds, 1, "x"));
    for (int i = 0; i < 300; i++)
        fds[i] = 0;
    CASE("pass 253", send_fds(pair[0], fds, 253, "x"));
    CASE("pass 254", send_fds(pair[0], fds, 254, "x"));
    recv(pair[1], buffer, 1, 0);
    pipe(p);
    fds[0] = p[1];
    CASE("pass and drop", send_fds(pair[0], fds, 1, "x"));
    close(p[1]);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    CASE("still open in flight", read(p[0], buffer, 1));
    CASE("read without control", recv(pair[1], buffer, 10, 0));
    CASE("closed with the message", read(p[0], buffer, 1));
    pipe(p);
    fds[0] = p[1];
    send_fds(pair[0], fds, 1, "x");
    close(p[1]);
    close(pair[1]);
    fcntl(p[0], F_SETFL, O_NONBLOCK);
    CASE("closed with the socket", read(p[0], buffer, 1));
    int fresh[2];
    socketpair(AF_UNIX, SOCK_DGRAM, 0, fresh);
    fds[0] = fresh[0];
    CASE("pass itself", send_fds(fresh[0], fds, 1, "self"));
    CASE("peek", recv(fresh[1], buffer, 10, MSG_PEEK));
    receive_fds("received itself", fresh[1], got, CMSG_SPACE(sizeof(int)), 0);
    CASE("it works", send(got[0], "again", 5, 0));
    CASE("to the peer", recv(fresh[1], buffer, 10, 0));
}

static void credentials(int type, const char *kind)
{
    int pair[2], yes = 1;
    socketpair(AF_UNIX, type, 0, pair);
    CASEF(setsockopt(pair[1], SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes), "%s pass credentials", kind);
    pid_t child = fork();
    if (child == 0)
        _exit(send(pair[0], "c", 1, 0) != 1);
    waitpid(child, NULL, 0);
    char control[CMSG_SPACE(sizeof(struct ucred))] = {0};
    struct iovec v = {buffer, 100};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    CASEF(recvmsg(pair[1], &m, 0), "%s receive", kind);
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    struct ucred *cred = (void *)CMSG_DATA(c);
    TELL(case_format("%s from the child", kind), "%d %d %d %d", c->cmsg_type, cred->pid == child, cred->uid == getuid(),
         cred->gid == getgid());
    cred->pid = getpid();
    m.msg_controllen = sizeof control;
    CASEF(sendmsg(pair[0], &m, 0), "%s send my own", kind);
    m.msg_controllen = sizeof control;
    cred->pid = 1;
    CASEF(recvmsg(pair[1], &m, 0), "%s receive my own", kind);
    TELL(case_format("%s it is me", kind), "%d", cred->pid == getpid());
    c->cmsg_len = CMSG_LEN(4);
    CASEF(sendmsg(pair[0], &m, 0), "%s short credentials", kind);
    c->cmsg_len = 3;
    CASEF(sendmsg(pair[0], &m, 0), "%s malformed control", kind);
    c->cmsg_len = CMSG_LEN(sizeof *cred);
    c->cmsg_type = 77;
    CASEF(sendmsg(pair[0], &m, 0), "%s unknown control", kind);
    c->cmsg_type = SCM_CREDENTIALS;
    cred->pid = 999999;
    CASEF(sendmsg(pair[0], &m, 0), "%s credentials of nobody", kind);
}

int main(void)
{
    two_binds();
    abstract();
    rights();
    credentials(SOCK_STREAM, "stream");
    credentials(SOCK_DGRAM, "dgram");
    credentials(SOCK_SEQPACKET, "seqpacket");
    return 0;
}

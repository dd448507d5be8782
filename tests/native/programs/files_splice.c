/* splice(2), vmsplice(2): which descriptors they take, what they wait for; the old terminal structure. */
#include "case.h"
#include <pty.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <termios.h>

static void pairs(void)
{
    int p[2], q[2], s[2];
    sigset_t none;
    sigemptyset(&none);
    if (pipe(p) || pipe(q) || socketpair(AF_UNIX, SOCK_STREAM, 0, s))
        _exit(9);
    if (write(p[1], "data for everybody", 18) != 18)
        _exit(9);
    struct {
        const char *name;
        int fd;
    } kinds[] = {
        {"directory", open(".", O_RDONLY)},
        {"file", file_with("f", "some text")},
        {"appending file", open("f", O_RDWR | O_APPEND)},
        {"path", open("f", O_PATH)},
        {"zero", open("/dev/zero", O_RDWR)},
        {"null", open("/dev/null", O_RDWR)},
        {"proc", open("/proc/self/maps", O_RDONLY)},
        {"pipe read end", q[0]},
        {"pipe write end", q[1]},
        {"socket", s[0]},
        {"epoll", epoll_create1(0)},
        {"eventfd", eventfd(1, 0)},
        {"signalfd", signalfd(-1, &none, 0)},
        {"timerfd", timerfd_create(CLOCK_MONOTONIC, 0)},
        {"inotify", inotify_init1(0)},
        {"memfd", syscall(SYS_memfd_create, "x", 0)},
    };
    for (int i = 0; i < ARRAY_LENGTH(kinds); i++) {
        CASEF(splice(p[0], 0, kinds[i].fd, 0, 1, 0) < 0 ? -1 : 1, "pipe to %s", kinds[i].name);
        if (kinds[i].fd != q[0] && kinds[i].fd != s[0] && strcmp(kinds[i].name, "memfd"))
            CASEF(splice(kinds[i].fd, 0, q[1], 0, 1, 0) < 0 ? -1 : 1, "%s to pipe", kinds[i].name);
        CASEF(splice(kinds[i].fd, 0, kinds[1].fd, 0, 1, 0), "%s to file", kinds[i].name);
    }
}

static void memory(void)
{
    static char big[200000], back[200000];
    int p[2];
    if (pipe2(p, O_NONBLOCK))
        _exit(9);
    for (int i = 0; i < (int)sizeof big; i++)
        big[i] = i * 7;
    struct iovec v = {big, sizeof big};
    CASE("vmsplice more than fits", vmsplice(p[1], &v, 1, 0));
    CASE("vmsplice into a full pipe", vmsplice(p[1], &v, 1, SPLICE_F_NONBLOCK));
    CASE("read", read(p[0], back, sizeof back));
    TELL("the same", "%d", !memcmp(big, back, 65536));
    CASE("vmsplice nothing", vmsplice(p[1], &v, 0, 0));
    CASE("vmsplice bad flags", vmsplice(p[1], &v, 1, 64));
    struct iovec bad = {(void *)8, 10};
    CASE("vmsplice bad pointer", vmsplice(p[1], &bad, 1, 0));
    CASE("vmsplice of a file", vmsplice(open("f", O_RDWR), &v, 1, 0));
    int maps = open("/proc/self/maps", O_RDONLY), stat = open("/proc/self/stat", O_RDONLY);
    CASE("part of a proc file", splice(stat, 0, p[1], 0, 5, 0));
    TELL("where it stands", "%ld", (long)lseek(stat, 0, SEEK_CUR));
    close(maps);
}

static void termio(void)
{
    unsigned char old[18], again[18];
    int master, slave;
    if (openpty(&master, &slave, 0, 0, 0))
        _exit(9);
    CASE("TCGETA", ioctl(slave, TCGETA, old));
    BYTES("termio", old, 17);
    old[0] ^= 1;
    CASE("TCSETA", ioctl(slave, TCSETA, old));
    CASE("TCSETAW", ioctl(slave, TCSETAW, old));
    CASE("TCSETAF", ioctl(slave, TCSETAF, old));
    CASE("TCGETA again", ioctl(slave, TCGETA, again));
    TELL("set", "%d", !memcmp(old, again, 17));
    CASE("TCGETA bad pointer", ioctl(slave, TCGETA, (void *)8));
    CASE("TCSETA bad pointer", ioctl(slave, TCSETA, (void *)8));
    CASE("TCGETA of a file", ioctl(open("f", O_RDONLY), TCGETA, old));
}

int main(void)
{
    pairs();
    memory();
    termio();
    return 0;
}

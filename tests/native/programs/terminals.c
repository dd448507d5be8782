/* ioctl_tty(2) on a pseudoterminal: termios in all its forms, modes, queues, the master's own. */
#include "case.h"
#include <sys/ioctl.h>
#include <termios.h>

static int master, slave;

static void both(const char *name, unsigned long request, int size)
{
    for (int i = 0; i < 2; i++) {
        unsigned char data[64] = {0};
        CASE(case_format("%s %s", name, i ? "master" : "slave"), ioctl(i ? master : slave, request, data));
        for (int k = size; k < 64; k++)
            if (data[k])
                TELL("wrote beyond", "%d", k);
    }
}
static void set(const char *name, unsigned long get, unsigned long request, int size)
{
    unsigned char before[64] = {0}, after[64] = {0};
    CASE(case_format("%s gets", name), ioctl(slave, get, before));
    before[0] ^= 4; /* IGNPAR */
    CASE(case_format("%s sets", name), ioctl(slave, request, before));
    CASE(case_format("%s gets again", name), ioctl(slave, get, after));
    TELL(case_format("%s kept", name), "%d", memcmp(before, after, size) == 0);
    BYTES(case_format("%s bytes", name), after, size);
}

int main(void)
{
    char text[64];
    int value;
    master = posix_openpt(O_RDWR | O_NOCTTY);
    CASE("unlocked", (grantpt(master), unlockpt(master)));
    slave = open(ptsname(master), O_RDWR | O_NOCTTY);

    set("termios", 0x5401, 0x5402, 36);
    set("termios drained", 0x5401, 0x5403, 36);
    set("termios flushed", 0x5401, 0x5404, 36);
    set("termio", 0x5405, 0x5406, 18);
    set("termio drained", 0x5405, 0x5407, 18);
    set("termio flushed", 0x5405, 0x5408, 18);
    set("termios2", 0x802C542A, 0x402C542B, 44);
    both("TIOCGLCKTRMIOS", 0x5456, 36);
    both("TIOCGSOFTCAR", TIOCGSOFTCAR, 4);
    both("TIOCGETD", TIOCGETD, 4);
    both("TIOCGWINSZ", TIOCGWINSZ, 8);
    both("TIOCGPKT", 0x80045438, 4);
    both("TIOCGEXCL", 0x80045440, 4);
    both("TIOCGPTLCK", 0x80045439, 4);
    both("TIOCMGET", TIOCMGET, 4);
    both("TIOCOUTQ", TIOCOUTQ, 4);
    both("FIONREAD", FIONREAD, 4);
    both("no such", 0x540000, 0);
    CASE("TIOCSSOFTCAR", ioctl(slave, TIOCSSOFTCAR, (value = 1, &value)));
    CASE("TCSBRK drains", ioctl(slave, TCSBRK, 1));
    CASE("TCSBRKP", ioctl(slave, TCSBRKP, 0));
    CASE("TIOCSBRK", ioctl(slave, TIOCSBRK, 0));
    CASE("TIOCCBRK", ioctl(slave, TIOCCBRK, 0));
    CASE("TIOCEXCL", ioctl(slave, TIOCEXCL, 0));
    CASE("exclusive", (ioctl(slave, 0x80045440, &value), value));
    CASE("TIOCNXCL", ioctl(slave, TIOCNXCL, 0));

    struct termios t;
    tcgetattr(slave, &t);
    cfmakeraw(&t);
    tcsetattr(slave, TCSANOW, &t);
    CASE("packet mode of a slave", ioctl(slave, TIOCPKT, (value = 1, &value)));
    CASE("packet mode", ioctl(master, TIOCPKT, (value = 1, &value)));
    CASE("is on", (ioctl(master, 0x80045438, &value), value));
    CASE("slave writes", write(slave, "out", 3));
    long n = read(master, text, sizeof text);
    BYTES("packet", text, n);
    CASE("flush", ioctl(slave, TCFLSH, 0));
    n = read(master, text, sizeof text);
    BYTES("control packet", text, n);
    CASE("packet mode off", ioctl(master, TIOCPKT, (value = 0, &value)));
    CASE("TIOCSIG unknown", ioctl(master, 0x40045436, SIGUSR1));
    IN_CHILD("TIOCSIG", {
        int status;
        pid_t child = fork();
        if (child == 0) {
            setsid();
            ioctl(slave, TIOCSCTTY, 0);
            write(slave, "r", 1);
            for (;;)
                pause();
        }
        read(master, text, 1);
        CASE("signal", ioctl(master, 0x40045436, SIGINT));
        waitpid(child, &status, 0);
        TELL("child", "%s", case_status(status));
    });
    CASE("hung up", close(master));
    CASE("write", write(slave, "x", 1));
    CASE("read", read(slave, text, 1));
    CASE("get", ioctl(slave, TCGETS, text));
    return 0;
}

/* capabilities(7): sets and their changes, what execve(2) makes of them, what they open. */
#include "case.h"
#include <grp.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/socket.h>

#define BIT(c) (1ull << (c))
static const uint64_t THREE = BIT(CAP_NET_RAW) | BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETPCAP);

static int set(uint64_t e, uint64_t p, uint64_t i)
{
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {{e, p, i}, {e >> 32, p >> 32, i >> 32}};
    return syscall(SYS_capset, &h, d);
}

static void show(const char *name)
{
    char text[8192], *found;
    int fd = open("/proc/self/status", O_RDONLY), n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n] = 0;
    unsigned long long s[5] = {0};
    const char *keys[] = {"CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"};
    for (int i = 0; i < 5; i++)
        if ((found = strstr(text, keys[i])))
            s[i] = strtoull(found + 7, 0, 16);
    TELL(name, "inheritable %llx permitted %s effective %s ambient %llx", s[0],
         s[1] == s[3] ? "all" : case_format("%llx", s[1]), s[2] == s[1] ? "permitted" : case_format("%llx", s[2]), s[4]);
}

static void network(const char *who)
{
    struct sockaddr_in a = {AF_INET, htons(777), {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0), n = 4096;
    CASEF(bind(fd, (void *)&a, sizeof a), "%s low port", who);
    CASEF(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &n, sizeof n), "%s force", who);
    CASEF(setsockopt(fd, SOL_SOCKET, SO_MARK, &n, sizeof n), "%s mark", who);
    CASEF(setsockopt(fd, SOL_SOCKET, SO_DEBUG, &n, sizeof n), "%s debug", who);
    close(fd);
    fd = socket(AF_INET, SOCK_RAW, IPPROTO_UDP);
    CASEF(fd < 0 ? -1 : 0, "%s raw", who);
    close(fd);
    fd = socket(AF_PACKET, SOCK_DGRAM, 0);
    CASEF(fd < 0 ? -1 : 0, "%s packet", who);
    close(fd);
}

static void to_user(void)
{
    setgroups(0, 0);
    setgid(1000);
    setuid(1000);
}

static void again(const char *what)
{
    execl("/proc/self/exe", "capabilities", what, (char *)0);
    _exit(99);
}

static int ambient(int what, unsigned long cap)
{
    return prctl(PR_CAP_AMBIENT, what, cap, 0, 0);
}

static void tasks(void)
{
    struct clone_args a = {.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = 8};
    int fd = -1, s;
    CASE("nowhere for a pidfd", syscall(SYS_clone3, &a, sizeof a));
    CASE("and no child", waitpid(-1, &s, 0));
    pid_t wanted = 29999;
    a = (struct clone_args){.exit_signal = SIGCHLD, .set_tid = (uintptr_t)&wanted, .set_tid_size = 1};
    pid_t c = syscall(SYS_clone3, &a, sizeof a);
    if (!c)
        _exit(getpid() == wanted);
    TELL("wanted pid", "%d", c == wanted);
    CASE("taken pid", syscall(SYS_clone3, &a, sizeof a));
    waitpid(c, &s, 0);
    TELL("child has it", "%s", case_status(s));
    for (wanted = 0; wanted > -3; wanted--)
        CASEF(syscall(SYS_clone3, &a, sizeof a), "pid %d", wanted);
    wanted = 0x7fffffff;
    CASE("huge pid", syscall(SYS_clone3, &a, sizeof a));
    wanted = 29998;
    IN_CHILD("as user", to_user(); CASE("user wants a pid", syscall(SYS_clone3, &a, sizeof a)));
    a = (struct clone_args){.flags = CLONE_PIDFD, .exit_signal = SIGCHLD, .pidfd = (uintptr_t)&fd};
    c = syscall(SYS_clone3, &a, sizeof a);
    if (!c)
        for (;;)
            pause();
    siginfo_t info;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    CASE("nonblocking pidfd", waitid(P_PIDFD, fd, &info, WEXITED));
    CASE("nonblocking, WNOHANG", waitid(P_PIDFD, fd, &info, WEXITED | WNOHANG));
    kill(c, SIGKILL);
    struct timespec tick = {0, 1000000};
    while (waitid(P_PIDFD, fd, &info, WEXITED | WNOWAIT) < 0 && errno == EAGAIN)
        nanosleep(&tick, 0);
    CASE("ended", waitid(P_PIDFD, fd, &info, WEXITED));
    CASE("reaped", waitid(P_PIDFD, fd, &info, WEXITED));
    close(fd);
    CASE("slack", prctl(PR_SET_TIMERSLACK, 70000));
    IN_CHILD("slack in a child", CASE("inherited", prctl(PR_GET_TIMERSLACK)); prctl(PR_SET_TIMERSLACK, 5);
             prctl(PR_SET_TIMERSLACK, 0); CASE("back to the default", prctl(PR_GET_TIMERSLACK)));
    CASE("parent's default", prctl(PR_SET_TIMERSLACK, 0));
    CASE("parent's slack", prctl(PR_GET_TIMERSLACK));
}

struct attr {
    uint32_t size, policy;
    uint64_t flags;
    int32_t nice;
    uint32_t priority;
    uint64_t runtime, deadline, period;
};

static void deadlines(const char *who)
{
    struct attr a = {sizeof a, 6, 0, 0, 0, 10000000, 30000000, 30000000}, b;
    CASEF(syscall(SYS_sched_setattr, 0, &a, 0), "%s deadline", who);
    CASEF(syscall(SYS_sched_getattr, 0, &b, sizeof b, 0), "%s reads it", who);
    if (b.policy) /* the others have a slice there, since Linux 6.12 */
        TELL(case_format("%s has", who), "%d %ld %ld %ld", b.policy, (long)b.runtime, (long)b.deadline, (long)b.period);
    a.policy = 0;
    CASEF(syscall(SYS_sched_setattr, 0, &a, 0), "%s back", who);
    a.policy = 6;
    a.runtime = 40000000;
    CASEF(syscall(SYS_sched_setattr, 0, &a, 0), "%s long runtime", who);
    a.runtime = 100;
    CASEF(syscall(SYS_sched_setattr, 0, &a, 0), "%s short runtime", who);
    a.runtime = 10000000;
    a.flags = 1 << 20;
    CASEF(syscall(SYS_sched_setattr, 0, &a, 0), "%s flags", who);
}

int main(int argc, char **argv)
{
    no_cores();
    if (argc > 1) {
        show(argv[1]);
        return 0;
    }
    show("root");
    network("root");
    IN_CHILD("user", to_user(); show("user has"); network("user"));
    IN_CHILD("effective user", seteuid(1000); show("effective user has"); network("effective"));
    IN_CHILD("dropped", set(0, 0, 0); show("dropped has"); network("dropped"));
    IN_CHILD("kept", prctl(PR_SET_KEEPCAPS, 1); to_user(); show("kept has"); set(THREE, THREE, 0); network("kept"));
    IN_CHILD("three", CASE("set three", set(THREE, THREE, THREE)); show("three has");
             CASE("more", set(THREE, THREE | BIT(CAP_KILL), THREE));
             CASE("more effective", set(THREE | BIT(CAP_KILL), THREE, THREE));
             CASE("more inheritable", set(THREE, THREE, THREE | BIT(CAP_KILL)));
             CASE("drop from bounding", prctl(PR_CAPBSET_DROP, CAP_SYS_TIME));
             CASE("inherit unbounded", set(THREE, THREE, BIT(CAP_SYS_TIME))));
    IN_CHILD("ambient", set(THREE, THREE, 0); CASE("not inheritable", ambient(PR_CAP_AMBIENT_RAISE, CAP_NET_RAW));
             set(THREE, THREE, THREE); CASE("raise", ambient(PR_CAP_AMBIENT_RAISE, CAP_NET_RAW)); show("raised");
             CASE("is set", ambient(PR_CAP_AMBIENT_IS_SET, CAP_NET_RAW));
             CASE("is not", ambient(PR_CAP_AMBIENT_IS_SET, CAP_KILL));
             CASE("no such", ambient(PR_CAP_AMBIENT_IS_SET, 99)); CASE("bad order", ambient(7, 0));
             CASE("lower", ambient(PR_CAP_AMBIENT_LOWER, CAP_KILL)); set(THREE, THREE, 0); show("no longer inheritable"));
    IN_CHILD("root executes", again("root again"));
    IN_CHILD("user executes", to_user(); again("user again"));
    IN_CHILD("dropped executes", set(0, 0, 0); again("dropped again"));
    IN_CHILD("kept executes", prctl(PR_SET_KEEPCAPS, 1); to_user(); again("kept again"));
    IN_CHILD("ambient executes", prctl(PR_SET_KEEPCAPS, 1); to_user(); set(THREE, THREE, THREE);
             ambient(PR_CAP_AMBIENT_RAISE, CAP_NET_RAW); again("ambient again"));
    IN_CHILD("effective executes", seteuid(1000); again("effective again"));
    tasks();
    int last = open("/proc/sys/kernel/ns_last_pid", O_WRONLY);
    CASE("last pid", write(last, "31234", 5));
    pid_t c = fork();
    if (!c)
        _exit(0);
    TELL("next pid", "%d", c == 31235);
    waitpid(c, 0, 0);
    CASE("no number", pwrite(last, "x", 1, 0));
    IN_CHILD("user's last pid", setuid(1000); CASE("user sets it", pwrite(last, "31234", 5, 0)));
    deadlines("root");
    IN_CHILD("user deadline", to_user(); deadlines("user"));
    return 0;
}

/* credentials(7), capabilities, uname(2), umask(2), personality(2). */
#include "case.h"
#include <grp.h>
#include <sys/fsuid.h>
#include <sys/sysmacros.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/utsname.h>
#include <linux/capability.h>

static const char *ids(void)
{
    uid_t a, b, c;
    gid_t d, e, f;
    getresuid(&a, &b, &c);
    getresgid(&d, &e, &f);
    return case_format("%d %d %d / %d %d %d", a, b, c, d, e, f);
}

int main(void)
{
    struct utsname u;
    gid_t groups[65];
    CASE("uname", uname(&u));
    TELL("system", "%s %s", u.sysname, u.machine);
    TELL("same ids", "%d %d %d", getuid() == geteuid(), getgid() == getegid(), getuid());
    CASE("getgroups count", getgroups(0, 0));
    CASE("getgroups negative", getgroups(-1, groups));
    CASE("umask", umask(077));
    CASE("umask back", umask(07022));
    CASE("umask is nine bits", umask(022));
    close(file_with("mine", "x"));
    chmod("mine", 0600);
    if (getuid() == 0) {
        IN_CHILD("real and effective apart", {
            CASE("effective only", setresuid(-1, 1000, -1));
            CASE("access goes by the real user", access("mine", R_OK));
            CASE("eaccess goes by the effective", faccessat(AT_FDCWD, "mine", R_OK, AT_EACCESS));
            CASE("open goes by it too", open("mine", O_RDONLY));
            CASE("effective again", setresuid(1000, 0, -1));
            CASE("access by an ordinary real user", access("mine", R_OK));
            CASE("eaccess by root", faccessat(AT_FDCWD, "mine", R_OK, AT_EACCESS));
        });
        IN_CHILD("setuid drops all", {
            CASE("setgroups", setgroups(2, (gid_t[]){10, 20}));
            CASE("getgroups", getgroups(65, groups));
            TELL("groups", "%d %d", groups[0], groups[1]);
            CASE("getgroups small", getgroups(1, groups));
            CASE("setgroups too many", setgroups(70000, groups));
            CASE("setgid", setgid(1001));
            CASE("setuid", setuid(1000));
            TELL("ids", "%s", ids());
            CASE("setuid back", setuid(0));
            CASE("setgid back", setgid(0));
            CASE("setgroups after", setgroups(0, 0));
            CASE("setresuid none", setresuid(-1, -1, -1));
            CASE("setreuid same", setreuid(1000, 1000));
            CASE("open of root's file", open("mine", O_RDONLY));
            CASE("access to root's file", access("mine", R_OK));
            CASE("eaccess to root's file", faccessat(AT_FDCWD, "mine", R_OK, AT_EACCESS));
            CASE("chown", chown("mine", 1000, 1000));
            CASE("kill init", kill(getppid(), 0));
            CASE("sethostname", sethostname("x", 1));
            CASE("nice up", setpriority(0, 0, -5));
            CASE("chroot", chroot("/"));
            CASE("mknod", mknod("dev", S_IFCHR | 0600, makedev(1, 3)));
            CASE("mknod fifo", mknod("/tmp/none/fifo", S_IFIFO | 0600, 0));
            CASE("bind low port is another matter", 0);
        });
        IN_CHILD("seteuid and back", {
            CASE("seteuid", seteuid(1000));
            TELL("effective", "%s", ids());
            CASE("open of root's file", open("mine", O_RDONLY));
            CASE("seteuid back", seteuid(0));
            TELL("back", "%s", ids());
            CASE("setresuid", setresuid(1, 2, 3));
            TELL("three", "%s", ids());
            CASE("setresuid swap", setresuid(3, 1, 2));
            CASE("setresuid foreign", setresuid(7, -1, -1));
            CASE("setreuid", setreuid(2, 3));
            TELL("after", "%s", ids());
        });
        IN_CHILD("gids", {
            CASE("setegid", setegid(7));
            CASE("setregid", setregid(8, 9));
            TELL("gids", "%s", ids());
            CASE("setresgid", setresgid(1, 2, 3));
            TELL("three gids", "%s", ids());
        });
        CASE("setfsuid", setfsuid(5));
        CASE("setfsuid asks", setfsuid(-1));
        CASE("setfsuid back", setfsuid(0));
    }
    struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct d[2] = {0};
    CASE("capget", syscall(SYS_capget, &h, d));
    h.version = 1;
    CASE("capget version", syscall(SYS_capget, &h, d));
    TELL("preferred version", "%x", h.version);
    CASE("capget ask", syscall(SYS_capget, &h, 0));
    h.pid = -1;
    CASE("capget pid", syscall(SYS_capget, &h, d));
    h.pid = 999999;
    CASE("capget nobody", syscall(SYS_capget, &h, d));
    CASE("personality ask", personality(0xffffffff));
    CASE("personality set", personality(ADDR_NO_RANDOMIZE));
    CASE("personality now", personality(0xffffffff));
    CASE("gettid", syscall(SYS_gettid) == getpid());
    CASE("getpgrp", getpgrp() > 0);
    CASE("setuid negative", setuid(-1));
    CASE("setgid negative", setgid(-1));
    CASE("seteuid negative", seteuid(-1));
    CASE("capbset read", prctl(PR_CAPBSET_READ, 0));
    CASE("capbset read bad", prctl(PR_CAPBSET_READ, 99));
    CASE("securebits", prctl(PR_GET_SECUREBITS));
    CASE("getrandom flags", syscall(SYS_getrandom, groups, 4, 0x100));
    CASE("getrandom", syscall(SYS_getrandom, groups, 16, 0));
    CASE("getrandom nonblock", syscall(SYS_getrandom, groups, 16, 1));
    CASE("getrandom insecure and random", syscall(SYS_getrandom, groups, 16, 6));
    CASE("getrandom 0", syscall(SYS_getrandom, groups, 0, 0));
    return 0;
}

/* A bad guest pointer is EFAULT, and what came before it counts. */
#include "case.h"
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/time.h>
#include <sys/times.h>
#include <sys/uio.h>
#include <sys/utsname.h>
#include <time.h>

static int file, pipes[2], null;

static void all(const char *kind, void *p)
{
#define C(text, e) CASEF(e, "%s %s", kind, text)
    int sock = socket(AF_UNIX, SOCK_DGRAM, 0), epoll = epoll_create1(0);
    struct iovec iov = {p, 16};
    C("read", read(file, p, 16));
    lseek(file, 0, SEEK_SET);
    C("read nothing", read(file, p, 0));
    C("write", write(file, p, 16));
    lseek(file, 0, SEEK_SET);
    C("write to null", write(null, p, 16));
    C("pread", pread(file, p, 16, 0));
    C("readv vector", readv(file, p, 1));
    C("readv base", readv(file, &iov, 1));
    lseek(file, 0, SEEK_SET);
    C("writev base to pipe", writev(pipes[1], &iov, 1));
    C("open", syscall(SYS_openat, AT_FDCWD, p, O_RDONLY));
    C("stat", syscall(SYS_newfstatat, AT_FDCWD, ".", p, 0));
    C("fstat", syscall(SYS_fstat, file, p));
    C("statfs", syscall(SYS_statfs, ".", p));
    C("statx", syscall(SYS_statx, AT_FDCWD, ".", 0, 0x7ff, p));
    C("access", access(p, F_OK));
    C("mkdir", mkdir(p, 0755));
    C("unlink", unlink(p));
    C("rename from", rename(p, "x"));
    C("rename to", rename("nothing", p));
    C("link", link("nothing", p));
    C("symlink", symlink(p, "x"));
    C("readlink path", readlink(p, (char[8]){0}, 8));
    C("readlink buffer", readlink("/proc/self/exe", p, 16));
    C("chdir", chdir(p));
    C("getcwd", syscall(SYS_getcwd, p, 4096));
    C("execve", execve(p, (char *[]){0}, (char *[]){0}));
    C("execve argv", execve("/bin/true", p, (char *[]){0}));
    C("pipe", syscall(SYS_pipe2, p, 0));
    C("poll", poll(p, 1, 0));
    C("select", syscall(SYS_select, 1, p, 0, 0, 0));
    C("select timeout", syscall(SYS_select, 0, 0, 0, 0, p));
    C("epoll_ctl add", syscall(SYS_epoll_ctl, epoll, EPOLL_CTL_ADD, pipes[0], p));
    C("nanosleep", syscall(SYS_nanosleep, p, 0));
    C("clock_gettime", syscall(SYS_clock_gettime, CLOCK_REALTIME, p));
    C("clock_getres", syscall(SYS_clock_getres, CLOCK_REALTIME, p));
    C("gettimeofday", syscall(SYS_gettimeofday, p, 0));
    C("time", syscall(SYS_time, p) < 0 ? -1 : 0);
    C("times", syscall(SYS_times, p) < 0 ? -1 : 0);
    C("uname", syscall(SYS_uname, p));
    C("sysinfo", syscall(SYS_sysinfo, p));
    C("getrlimit", syscall(SYS_getrlimit, RLIMIT_NOFILE, p));
    C("prlimit new", syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, p, 0));
    C("getrusage", syscall(SYS_getrusage, RUSAGE_SELF, p));
    C("getitimer", syscall(SYS_getitimer, ITIMER_REAL, p));
    C("setitimer", syscall(SYS_setitimer, ITIMER_REAL, p, 0));
    C("getrandom", syscall(SYS_getrandom, p, 16, 0));
    C("getgroups", syscall(SYS_getgroups, 0, p) < 0 ? -1 : 0);
    C("sigaction new", syscall(SYS_rt_sigaction, SIGUSR1, p, 0, 8));
    C("sigaction old", syscall(SYS_rt_sigaction, SIGUSR1, 0, p, 8));
    C("sigprocmask new", syscall(SYS_rt_sigprocmask, SIG_BLOCK, p, 0, 8));
    C("sigprocmask old", syscall(SYS_rt_sigprocmask, SIG_BLOCK, 0, p, 8));
    C("sigpending", syscall(SYS_rt_sigpending, p, 8));
    C("sigaltstack new", syscall(SYS_sigaltstack, p, 0));
    C("sigaltstack old", syscall(SYS_sigaltstack, 0, p));
    C("sigtimedwait set", syscall(SYS_rt_sigtimedwait, p, 0, 0, 8));
    C("futex wait", syscall(SYS_futex, p, 0, 0, 0, 0, 0));
    C("futex wake", syscall(SYS_futex, p, 1, 1, 0, 0, 0));
    C("futex timeout", syscall(SYS_futex, &null, 0, null, p, 0, 0));
    C("wait4 status", syscall(SYS_wait4, -1, p, WNOHANG, 0));
    C("getsockname addr", getsockname(sock, p, &(socklen_t){16}));
    C("getsockname len", getsockname(sock, (void *)&iov, p));
    C("bind", syscall(SYS_bind, sock, p, 16));
    C("connect", syscall(SYS_connect, sock, p, 16));
    C("sendto data", sendto(sock, p, 16, 0, 0, 0));
    C("sendmsg", sendmsg(sock, p, 0));
    C("recvmsg", recvmsg(sock, p, MSG_DONTWAIT));
    C("getsockopt value", getsockopt(sock, SOL_SOCKET, SO_TYPE, p, &(socklen_t){4}));
    C("getsockopt len", getsockopt(sock, SOL_SOCKET, SO_TYPE, &null, p));
    C("setsockopt", setsockopt(sock, SOL_SOCKET, SO_REUSEADDR, p, 4));
    C("socketpair", syscall(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, p));
    C("mincore", mincore((void *)((long)&file & ~4095L), 4096, p));
    C("sched_getaffinity", syscall(SYS_sched_getaffinity, 0, 128, p) < 0 ? -1 : 0);
    C("sched_setparam", syscall(SYS_sched_setparam, 0, p));
    C("prctl get name", syscall(SYS_prctl, 16, p, 0, 0, 0));
    C("memfd_create", syscall(SYS_memfd_create, p, 0));
    C("setgroups", syscall(SYS_setgroups, 1, p) < 0 && errno == EPERM ? -1 : -1);
    C("timer_create", syscall(SYS_timer_create, CLOCK_REALTIME, p, p));
    C("clone3", syscall(SYS_clone3, p, 88));
    C("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), p, 1, p, 1, 0));
    close(sock);
    close(epoll);
}

int main(void)
{
    file = file_with("f", "0123456789abcdef0123456789abcdef");
    lseek(file, 0, SEEK_SET);
    null = open("/dev/null", O_RDWR);
    pipe2(pipes, O_NONBLOCK);
    all("one", (void *)1);
    all("kernel", (void *)0xffff888000000000);
    all("non-canonical", (void *)0x1234567800000000);
    all("no access", page_end(PROT_NONE));
    all("last byte", page_end(PROT_READ | PROT_WRITE) - 1);
    CASE("stat null path", stat(0, &(struct stat){0}));
    CASE("write partly readable", write(pipes[1], page_end(PROT_READ) - 10, 20));
    char text[64] = {0};
    CASE("what arrived", read(pipes[0], text, 64));
    CASE("file write partly readable", pwrite(file, page_end(PROT_READ) - 10, 20, 0));
    CASE("read into partly writable", pread(file, page_end(PROT_READ | PROT_WRITE) - 10, 20, 0));
    CASE("read into read-only", pread(file, page_end(PROT_READ) - 100, 20, 0));
    CASE("path ends at the page's end", (strcpy(page_end(PROT_READ | PROT_WRITE) - 2, "f"), 0));
    char *end = page_end(PROT_READ | PROT_WRITE);
    memcpy(end - 2, "f", 2);
    CASE("open at the page's end", open(end - 2, O_RDONLY) < 0 ? -1 : 0);
    memcpy(end - 2, "ff", 2);
    CASE("open path without end", open(end - 2, O_RDONLY));
    return 0;
}

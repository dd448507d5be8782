/* Every call that takes a descriptor, on descriptors that cannot serve it: the order of checks decides the errno. */
#include "case.h"
#include <dirent.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <termios.h>

static char buffer[4096];
static struct stat st;

static void all(const char *kind, int fd)
{
    struct iovec iov = {buffer, 8};
    struct statfs sfs;
    struct termios tio;
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    struct sockaddr_storage sa;
    socklen_t len = sizeof sa;
    struct flock lock = {.l_type = F_UNLCK, .l_whence = SEEK_SET};
    struct epoll_event event = {.events = EPOLLIN};
    int n;
#define C(text, e) CASEF(e, "%s %s", kind, text)
    C("read", read(fd, buffer, 0));
    C("read 8", read(fd, buffer, 8));
    C("write 0", write(fd, buffer, 0));
    C("pread", pread(fd, buffer, 8, 0));
    C("pread negative", pread(fd, buffer, 8, -1));
    C("pwrite negative", pwrite(fd, buffer, 8, -1));
    C("readv", readv(fd, &iov, 1));
    C("readv no vector", readv(fd, &iov, 0));
    C("readv too many", readv(fd, &iov, 1025));
    C("writev no vector", writev(fd, &iov, 0));
    C("lseek", lseek(fd, 0, SEEK_CUR));
    C("lseek whence", lseek(fd, 0, 99));
    C("fstat", fstat(fd, &st));
    C("fstatfs", fstatfs(fd, &sfs) ? -1 : 0);
    C("fsync", fsync(fd));
    C("fdatasync", fdatasync(fd));
    C("ftruncate", ftruncate(fd, 0));
    C("ftruncate negative", ftruncate(fd, -1));
    C("fallocate", fallocate(fd, 0, 0, 0));
    C("fchmod", fchmod(fd, 0600));
    C("fchdir", fd >= 0 && !strcmp(kind, "directory") ? 0 : fchdir(fd));
    C("flock", flock(fd, LOCK_UN));
    C("flock operation", flock(fd, 99));
    C("F_GETFL", fcntl(fd, F_GETFL) < 0 ? -1 : 0);
    C("F_GETFD", fcntl(fd, F_GETFD));
    C("F_SETFD", fcntl(fd, F_SETFD, FD_CLOEXEC));
    C("F_GETLK", fcntl(fd, F_GETLK, &lock));
    C("F_SETLK", fcntl(fd, F_SETLK, &lock));
    C("F_GETPIPE_SZ", fcntl(fd, F_GETPIPE_SZ));
    C("fcntl unknown", fcntl(fd, 9999, 0));
    C("dup2 self", dup2(fd, fd) == fd ? 0 : -1);
    C("dup3 self", dup3(fd, fd, 0));
    C("dup3 flags", dup3(fd, 200, 0x123));
    C("FIONREAD", ioctl(fd, FIONREAD, &n));
    C("TCGETS", tcgetattr(fd, &tio));
    C("ioctl unknown", ioctl(fd, 0xdead, 0));
    C("getdents64", syscall(SYS_getdents64, fd, buffer, 1));
    if (fd != AT_FDCWD) /* some kernels take it for the current directory */
        C("fgetxattr", fgetxattr(fd, "user.none", buffer, 8));
    C("flistxattr", flistxattr(fd, buffer, 0) < 0 ? -1 : 0);
    C("getsockname", getsockname(fd, (void *)&sa, &len));
    C("getpeername", getpeername(fd, (void *)&sa, &len));
    C("listen", listen(fd, 1));
    C("accept", accept(fd, 0, 0));
    C("shutdown", shutdown(fd, SHUT_RD));
    C("recv", recv(fd, buffer, 8, MSG_DONTWAIT));
    C("send", send(fd, buffer, 8, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("sendmsg", sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL));
    C("recvmsg", recvmsg(fd, &msg, MSG_DONTWAIT));
    C("epoll_ctl on it", epoll_ctl(fd, EPOLL_CTL_ADD, 0, &event));
    C("epoll_wait", epoll_wait(fd, &event, 1, 0));
    C("mmap", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    C("mmap shared write", mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED ? -1 : 0);
    C("openat under", openat(fd, "nothing", O_RDONLY));
    C("fstatat empty", fstatat(fd, "", &st, AT_EMPTY_PATH));
    C("faccessat under", faccessat(fd, "nothing", F_OK, 0));
    C("mkdirat under", mkdirat(fd, "nothing/below", 0700));
    C("unlinkat under", unlinkat(fd, "nothing", 0));
    C("readlinkat under", readlinkat(fd, "nothing", buffer, 8));
    C("sendfile from", sendfile(1000, fd, 0, 1));
    C("copy_file_range", copy_file_range(fd, 0, 1000, 0, 1, 0));
    C("posix_fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_NORMAL) ? 1 : 0);
    C("close", close(fd));
}

int main(void)
{
    int closed = dup(0), pipes[2];
    close(closed);
    all("minus one", -1);
    all("closed", 777);
    all("at fdcwd", AT_FDCWD);
    all("int max", 0x7fffffff);
    mkdir("d", 0755);
    close(file_with("f", "contents"));
    all("directory", open("d", O_RDONLY));
    all("path", open("f", O_PATH));
    all("read only", open("f", O_RDONLY));
    all("write only", open("f", O_WRONLY));
    pipe2(pipes, O_NONBLOCK);
    all("pipe reader", pipes[0]);
    pipe2(pipes, O_NONBLOCK);
    all("pipe writer", pipes[1]);
    return 0;
}

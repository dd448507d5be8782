/* Data: offsets, vectors, holes, append, copies between descriptors, allocation, sync, memfd, times, attributes. */
#include "case.h"
#include <linux/falloc.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statfs.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <utime.h>

static char buffer[1 << 20];

static void holds(const char *name, const char *path)
{
    int fd = open(path, O_RDONLY);
    int n = read(fd, buffer, 60);
    BYTES(name, buffer, n < 0 ? 0 : n);
    close(fd);
}

static void times(const char *name, const char *path)
{
    struct stat st;
    lstat(path, &st);
    TELL(name, "%ld.%09ld %ld.%09ld", st.st_atim.tv_sec, st.st_atim.tv_nsec, st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

int main(void)
{
    struct iovec iov[4] = {{buffer, 2}, {buffer + 10, 0}, {buffer + 20, 3}, {buffer + 30, 100}};
    struct stat st;
    loff_t in, out;
    off_t at;
    int fd = file_with("data", "0123456789");
    CASE("lseek end", lseek(fd, 0, SEEK_END));
    CASE("lseek beyond", lseek(fd, 100, SEEK_SET));
    CASE("read beyond", read(fd, buffer, 10));
    CASE("lseek negative", lseek(fd, -1, SEEK_SET));
    CASE("lseek cur negative", lseek(fd, -101, SEEK_CUR));
    CASE("lseek whence", lseek(fd, 0, 5));
    CASE("lseek data", lseek(fd, 0, SEEK_DATA));
    CASE("lseek hole", lseek(fd, 0, SEEK_HOLE));
    CASE("lseek data beyond", lseek(fd, 50, SEEK_DATA));
    CASE("lseek set", lseek(fd, 2, SEEK_SET));
    CASE("readv", readv(fd, iov, 4));
    BYTES("readv 1", buffer, 2);
    BYTES("readv 3", buffer + 20, 3);
    BYTES("readv 4", buffer + 30, 3);
    CASE("readv negative count", readv(fd, iov, -1));
    iov[0].iov_len = -1;
    CASE("readv negative length", readv(fd, iov, 1));
    iov[0].iov_len = 2;
    CASE("readv bad vector", readv(fd, (void *)8, 1));
    CASE("preadv", preadv(fd, iov, 1, 8));
    BYTES("preadv got", buffer, 2);
    CASE("preadv negative", preadv(fd, iov, 1, -1));
    CASE("preadv2 at position", (lseek(fd, 4, SEEK_SET), preadv2(fd, iov, 1, -1, 0)));
    BYTES("preadv2 got", buffer, 2);
    CASE("preadv2 flags", preadv2(fd, iov, 1, 0, 0x1000));
    CASE("position moved", lseek(fd, 0, SEEK_CUR));
    CASE("pwrite beyond", pwrite(fd, "abc", 3, 20));
    CASE("pwritev2", pwritev2(fd, iov, 1, 12, RWF_SYNC));
    holds("contents", "data");
    CASE("pread at end", pread(fd, buffer, 10, 23));
    CASE("pread partly", pread(fd, buffer, 10, 20));
    CASE("append", ({ int a = open("data", O_WRONLY | O_APPEND); lseek(a, 0, SEEK_SET); int r = write(a, "END", 3); r += lseek(a, 0, SEEK_CUR); close(a); r; }));
    holds("appended", "data");
    int other = open("data", O_RDONLY), same = dup(fd);
    lseek(fd, 3, SEEK_SET);
    CASE("dup shares the offset", lseek(same, 0, SEEK_CUR));
    CASE("another open does not", lseek(other, 0, SEEK_CUR));
    IN_CHILD("child seeks", lseek(fd, 7, SEEK_SET));
    CASE("fork shares the offset", lseek(fd, 0, SEEK_CUR));
    CASE("write read only", write(other, "x", 1));
    CASE("ftruncate read only", ftruncate(other, 0));
    CASE("ftruncate", ftruncate(fd, 5));
    CASE("size", (fstat(fd, &st), st.st_size));
    CASE("ftruncate grow", ftruncate(fd, 3 << 20));
    CASE("hole at", lseek(fd, 0, SEEK_HOLE) <= 4096);
    CASE("data in the hole", lseek(fd, 1 << 20, SEEK_DATA));
    CASE("big write", pwrite(fd, memset(buffer, 'b', sizeof buffer), sizeof buffer, 1 << 20));
    CASE("big read", pread(other, buffer, sizeof buffer, (1 << 20) - 100));
    CASE("edge", buffer[99] == 0 && buffer[100] == 'b');
    CASE("fallocate", fallocate(fd, 0, 0, 4 << 20));
    CASE("size after", (fstat(fd, &st), st.st_size));
    CASE("fallocate keep size", fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, 5 << 20));
    CASE("size kept", (fstat(fd, &st), st.st_size));
    CASE("punch", fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 1 << 20, 4096));
    CASE("punched", (pread(fd, buffer, 1, 1 << 20), buffer[0]));
    CASE("punch without keep", fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096));
    CASE("fallocate negative", fallocate(fd, 0, -1, 10));
    CASE("fallocate zero", fallocate(fd, 0, 0, 0));
    CASE("fallocate mode", fallocate(fd, 0x1000, 0, 10));
    CASE("fallocate read only", fallocate(other, 0, 0, 10));
    CASE("fadvise", posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
    CASE("fadvise advice", syscall(SYS_fadvise64, fd, 0L, 0L, 77));
    CASE("readahead", readahead(other, 0, 4096));
    CASE("sync_file_range", sync_file_range(fd, 0, 4096, SYNC_FILE_RANGE_WRITE));
    CASE("sync_file_range flags", sync_file_range(fd, 0, 4096, 0x100));
    CASE("fsync", fsync(fd));
    int n;
    CASE("FIONREAD", (lseek(fd, 100, SEEK_SET), ioctl(fd, FIONREAD, &n)));
    TELL("FIONREAD says", "%d", n);
    ftruncate(fd, 0);
    pwrite(fd, "0123456789", 10, 0);

    int to = file_with("copy", "");
    CASE("sendfile", sendfile(to, other, 0, 4));
    CASE("sendfile moved", lseek(other, 0, SEEK_CUR));
    at = 6;
    CASE("sendfile at", sendfile(to, other, &at, 100));
    TELL("sendfile at moved", "%ld", (long)at);
    holds("sendfile result", "copy");
    CASE("sendfile to read only", sendfile(other, other, 0, 1));
    CASE("sendfile bad offset", sendfile(to, other, (off_t *)8, 1));
    at = -1;
    CASE("sendfile negative", sendfile(to, other, &at, 1));
    int app = open("copy", O_WRONLY | O_APPEND);
    CASE("sendfile to append", sendfile(app, other, 0, 1));
    in = 2, out = 1;
    CASE("copy_file_range", copy_file_range(other, &in, to, &out, 3, 0));
    TELL("offsets", "%ld %ld", (long)in, (long)out);
    holds("copy_file_range result", "copy");
    CASE("copy_file_range flags", copy_file_range(other, &in, to, &out, 3, 1));
    CASE("copy_file_range append", copy_file_range(other, 0, app, 0, 3, 0));
    CASE("copy_file_range overlapping", ({ in = 0; out = 1; copy_file_range(to, &in, to, &out, 5, 0); }));
    int p[2];
    pipe(p);
    CASE("splice file to pipe", splice(other, &(loff_t){1}, p[1], 0, 5, 0));
    CASE("splice pipe to file", splice(p[0], 0, to, &(loff_t){0}, 100, 0));
    holds("splice result", "copy");
    CASE("splice pipe with offset", splice(p[0], &(loff_t){0}, to, 0, 1, 0));
    CASE("splice no pipe", splice(other, 0, to, 0, 1, 0));
    CASE("splice empty nonblock", splice(p[0], 0, to, 0, 1, SPLICE_F_NONBLOCK));
    CASE("splice flags", splice(p[0], 0, to, 0, 1, 0x100));
    int q[2];
    pipe(q);
    write(p[1], "teatime", 7);
    CASE("tee", tee(p[0], q[1], 3, 0));
    CASE("tee itself", tee(p[0], p[1], 3, 0));
    CASE("tee file", tee(p[0], to, 3, 0));
    CASE("tee result", read(q[0], buffer, 100));
    BYTES("tee bytes", buffer, 3);
    CASE("still there", read(p[0], buffer, 100));
    CASE("splice pipe to pipe", (write(p[1], "abc", 3), splice(p[0], 0, q[1], 0, 100, 0)));
    CASE("splice same pipe", splice(p[0], 0, p[1], 0, 1, 0));
    struct iovec vm = {"vmsplice", 8};
    CASE("vmsplice", vmsplice(p[1], &vm, 1, 0));
    CASE("vmsplice result", read(p[0], buffer, 100));
    CASE("vmsplice file", vmsplice(to, &vm, 1, 0));
    CASE("sendfile to pipe", sendfile(p[1], other, &(off_t){0}, 10));
    CASE("sendfile from pipe", sendfile(to, p[0], 0, 10));

    int m = memfd_create("name", MFD_ALLOW_SEALING);
    CASE("memfd", m >= 0);
    char link[256];
    snprintf(buffer, 64, "/proc/self/fd/%d", m);
    n = readlink(buffer, link, sizeof link);
    TELL("memfd link", "%.*s", n, link);
    CASE("memfd write", write(m, "hello", 5));
    CASE("memfd mode", (fstat(m, &st), st.st_mode));
    CASE("get seals", fcntl(m, F_GET_SEALS));
    CASE("add seals", fcntl(m, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE));
    CASE("sealed write", write(m, "x", 1));
    CASE("sealed shrink", ftruncate(m, 0));
    CASE("sealed grow", ftruncate(m, 100));
    CASE("seal the seals", fcntl(m, F_ADD_SEALS, F_SEAL_SEAL));
    CASE("no more seals", fcntl(m, F_ADD_SEALS, F_SEAL_GROW));
    CASE("memfd flags", memfd_create("x", 0x100));
    memset(buffer, 'm', 300);
    buffer[249] = 0;
    CASE("memfd 249", close(memfd_create(buffer, 0)));
    buffer[249] = 'm';
    buffer[250] = 0;
    CASE("memfd 250", memfd_create(buffer, 0));
    CASE("seals on a file", fcntl(fd, F_GET_SEALS));

    struct timespec ts[2] = {{1000, 5}, {2000, 999999999}};
    CASE("utimensat", utimensat(AT_FDCWD, "data", ts, 0));
    times("times", "data");
    ts[0].tv_nsec = UTIME_OMIT;
    ts[1].tv_sec = 3000;
    CASE("utimensat omit", utimensat(AT_FDCWD, "data", ts, 0));
    times("times omit", "data");
    ts[1].tv_nsec = UTIME_OMIT;
    CASE("utimensat omit both, missing", utimensat(AT_FDCWD, "missing", ts, 0));
    ts[0].tv_nsec = 1000000000;
    CASE("utimensat nanoseconds", utimensat(AT_FDCWD, "data", ts, 0));
    CASE("utimensat flags", utimensat(AT_FDCWD, "data", 0, 0x10));
    CASE("utimensat bad times", utimensat(AT_FDCWD, "data", (void *)8, 0));
    ts[0] = ts[1] = (struct timespec){77, 1};
    CASE("futimens", futimens(fd, ts));
    times("futimens times", "data");
    symlink("data", "lnk");
    CASE("utimensat link", utimensat(AT_FDCWD, "lnk", ts, AT_SYMLINK_NOFOLLOW));
    times("link times", "lnk");
    struct timeval tv[2] = {{5, 6}, {7, 8}};
    CASE("utimes", utimes("data", tv));
    times("utimes times", "data");
    tv[0].tv_usec = 1000000;
    CASE("utimes microseconds", utimes("data", tv));
    CASE("utime", utime("data", &(struct utimbuf){11, 12}));
    times("utime times", "data");
    CASE("utime missing", utime("missing", 0));

    CASE("setxattr", setxattr("data", "user.a", "value", 5, 0));
    CASE("getxattr", getxattr("data", "user.a", buffer, 100));
    CASE("getxattr size", getxattr("data", "user.a", buffer, 0));
    CASE("getxattr small", getxattr("data", "user.a", buffer, 2));
    CASE("getxattr missing", getxattr("data", "user.b", buffer, 2));
    CASE("setxattr create", setxattr("data", "user.a", "v", 1, XATTR_CREATE));
    CASE("setxattr replace", setxattr("data", "user.b", "v", 1, XATTR_REPLACE));
    CASE("setxattr flags", setxattr("data", "user.b", "v", 1, 8));
    CASE("setxattr no name", setxattr("data", "", "v", 1, 0));
    CASE("setxattr big", setxattr("data", "user.b", buffer, 70000, 0));
    CASE("setxattr namespace", setxattr("data", "nonsense", "v", 1, 0));
    CASE("lsetxattr link", lsetxattr("lnk", "user.b", "v", 1, 0));
    CASE("listxattr", listxattr("data", buffer, 100));
    CASE("listxattr small", listxattr("data", buffer, 1));
    CASE("fgetxattr", fgetxattr(fd, "user.a", buffer, 100));
    CASE("fremovexattr", fremovexattr(fd, "user.a"));
    CASE("removexattr", removexattr("data", "user.a"));
    CASE("getxattr dev null", getxattr("/dev/null", "user.a", buffer, 100));
    CASE("getxattr proc", getxattr("/proc/self/status", "user.a", buffer, 100));

    struct statfs f;
    CASE("statfs", statfs(".", &f));
    CASE("statfs missing", statfs("missing", &f));
    CASE("statfs proc", (statfs("/proc", &f), f.f_type));
    CASE("fstatfs pipe", (fstatfs(p[0], &f), f.f_type));
    struct statx sx;
    CASE("statx", statx(AT_FDCWD, "data", 0, STATX_ALL, &sx));
    TELL("statx says", "%o %llu %u", sx.stx_mode, (unsigned long long)sx.stx_size, sx.stx_nlink);
    CASE("statx link", (statx(AT_FDCWD, "lnk", AT_SYMLINK_NOFOLLOW, STATX_TYPE, &sx), sx.stx_mode & S_IFMT));
    CASE("statx fd", statx(fd, "", AT_EMPTY_PATH, STATX_SIZE, &sx));
    CASE("statx pipe", (statx(p[0], "", AT_EMPTY_PATH, STATX_TYPE, &sx), sx.stx_mode & S_IFMT));
    CASE("statx reserved mask", statx(fd, "", AT_EMPTY_PATH, 0x80000000, &sx));
    CASE("statx sync", statx(fd, "", AT_EMPTY_PATH | 0x6000, 0, &sx));
    CASE("statx empty", statx(fd, "", 0, 0, &sx));
    CASE("statx proc", statx(AT_FDCWD, "/proc/self/status", 0, STATX_ALL, &sx));
    TELL("statx proc says", "%o %llu", sx.stx_mode, (unsigned long long)sx.stx_size);
    /* much at once, over frames that were touched in another order */
    char *much = mmap(0, 12 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (long o = (12 << 20) - 4096; o >= 0; o -= 4096)
        much[o] = o >> 12;
    int large = open("large", O_RDWR | O_CREAT | O_TRUNC, 0600);
    struct iovec halves[2] = {{much, 5 << 20}, {much + (5 << 20), 6 << 20}};
    CASE("write much", write(large, much + 16, 11 << 20));
    CASE("pwrite much", pwrite(large, much + 16, 11 << 20, 5));
    CASE("writev much", writev(large, halves, 2));
    lseek(large, 0, SEEK_SET);
    CASE("read much", read(large, much + 16, 11 << 20));
    CASE("pread much", pread(large, much + 16, 11 << 20, 5));
    CASE("readv much", readv(large, halves, 2));
    CASE("read to the end", read(large, much, 12 << 20));
    CASE("and no more", read(large, much, 12 << 20));
    return 0;
}

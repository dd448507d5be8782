/* open(2) and its flags, names, and the errors of every path call in Linux' order. */
#include "case.h"
#include <grp.h>
#include <dirent.h>
#include <linux/fs.h>
#include <linux/openat2.h>

static void mode_of(const char *name, const char *path)
{
    struct stat st;
    if (lstat(path, &st))
        TELL(name, "%s", case_errno(errno));
    else
        TELL(name, "%o size %ld links %ld", st.st_mode, S_ISDIR(st.st_mode) ? 0 : (long)st.st_size, S_ISDIR(st.st_mode) ? 0 : (long)st.st_nlink);
}

static void setgid_directory(void)
{
    static const int masks[] = {0, 010, 022, 0777};
    struct stat st;
    mkdir("group", 0777);
    if (chown("group", 65534, 1234) || chmod("group", 02777)) {
        TELL("setgid directory", "not root");
        return;
    }
    setgroups(0, 0);
    setresgid(65534, 65534, 65534);
    setresuid(65534, 65534, 65534);
    for (int i = 0; i < ARRAY_LENGTH(masks); i++) {
        umask(masks[i]);
        close(open(case_format("group/f%d", i), O_CREAT | O_RDWR, 06777));
        stat(case_format("group/f%d", i), &st);
        TELL(case_format("made with umask %o", masks[i]), "%o, group %d", st.st_mode, st.st_gid);
        mkdir(case_format("group/d%d", i), 06777);
        stat(case_format("group/d%d", i), &st);
        TELL(case_format("directory with umask %o", masks[i]), "%o, group %d", st.st_mode, st.st_gid);
        mknod(case_format("group/n%d", i), S_IFIFO | 06777, 0);
        stat(case_format("group/n%d", i), &st);
        TELL(case_format("fifo with umask %o", masks[i]), "%o, group %d", st.st_mode, st.st_gid);
    }
}

int main(void)
{
    IN_CHILD("setgid", setgid_directory());
    char name[5000];
    struct stat st;
    umask(022);
    CASE("open missing", open("missing", O_RDONLY));
    CASE("open empty", open("", O_RDONLY));
    CASE("open null", open(0, O_RDONLY));
    CASE("open creat excl", close(open("a", O_CREAT | O_EXCL | O_RDWR, 0666)));
    CASE("open creat excl again", open("a", O_CREAT | O_EXCL | O_RDWR, 0666));
    mode_of("mode under umask 022", "a");
    umask(077);
    CASE("open mode 6777", close(open("b", O_CREAT | O_WRONLY, 06777)));
    mode_of("mode 6777 under umask 077", "b");
    umask(022);
    CASE("open trailing slash", open("a/", O_RDONLY));
    CASE("open creat trailing slash", open("new/", O_CREAT | O_RDWR, 0644));
    CASE("open below a file", open("a/x", O_RDONLY));
    CASE("open dot", close(open(".", O_RDONLY)));
    CASE("open directory for writing", open(".", O_WRONLY));
    CASE("open directory creat", open(".", O_CREAT, 0644));
    CASE("open file as directory", open("a", O_DIRECTORY));
    CASE("open creat directory", open("cd", O_CREAT | O_DIRECTORY, 0755));
    CASE("symlink", symlink("a", "link"));
    CASE("symlink dangling", symlink("nowhere", "dangling"));
    CASE("symlink loop", symlink("loop", "loop"));
    CASE("symlink empty", symlink("", "emptylink"));
    CASE("symlink exists", symlink("a", "link"));
    CASE("open link nofollow", open("link", O_NOFOLLOW));
    CASE("open link path nofollow", close(open("link", O_PATH | O_NOFOLLOW)));
    CASE("open dangling", open("dangling", O_RDONLY));
    CASE("open dangling excl", open("dangling", O_CREAT | O_EXCL | O_RDWR, 0644));
    CASE("open dangling creat", close(open("dangling", O_CREAT | O_RDWR, 0600)));
    mode_of("made through the link", "nowhere");
    CASE("open loop", open("loop", O_RDONLY));
    CASE("stat loop", stat("loop", &st));
    CASE("lstat loop", lstat("loop", &st));
    CASE("stat link slash", stat("link/", &st));
    CASE("lstat link slash", lstat("link/", &st));
    memset(name, 'n', sizeof name);
    name[255] = 0;
    CASE("open 255 characters", open(name, O_RDONLY));
    name[255] = 'n';
    name[256] = 0;
    CASE("open 256 characters", open(name, O_RDONLY));
    for (int i = 0; i < 4998; i += 2)
        memcpy(name + i, "./", 2);
    strcpy(name + 4094, "a");
    CASE("open 4095 characters", close(open(name, O_RDONLY)) ? -1 : 0);
    strcpy(name + 4095, "a");
    CASE("open 4096 characters", open(name, O_RDONLY));

    CASE("O_TMPFILE read only", open(".", O_TMPFILE | O_RDONLY, 0600));
    int t = open(".", O_TMPFILE | O_RDWR, 0600);
    TELL("O_TMPFILE", "%s", t < 0 ? case_errno(errno) : "ok");
    if (t >= 0) {
        CASE("write to it", write(t, "unnamed", 7));
        char proc[64];
        snprintf(proc, sizeof proc, "/proc/self/fd/%d", t);
        CASE("give it a name", linkat(AT_FDCWD, proc, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
        mode_of("the name", "named");
        close(t);
    }
    int fd = open("a", O_RDWR | O_APPEND | O_NONBLOCK);
    TELL("F_GETFL", "%o", fcntl(fd, F_GETFL));
    CASE("F_SETFL", fcntl(fd, F_SETFL, O_RDONLY | O_NOATIME));
    TELL("F_GETFL after", "%o", fcntl(fd, F_GETFL));
    close(fd);
    fd = open("a", O_PATH);
    TELL("F_GETFL path", "%o", fcntl(fd, F_GETFL));
    CASE("read path", read(fd, name, 1));
    CASE("fchmod path", fchmod(fd, 0600));
    CASE("fstat path", fstat(fd, &st));
    CASE("dup path", close(dup(fd)));
    CASE("lseek path", lseek(fd, 0, SEEK_SET));
    CASE("openat below path of a file", openat(fd, "x", O_RDONLY));
    CASE("fstatat empty path", fstatat(fd, "", &st, AT_EMPTY_PATH));
    CASE("fstatat empty", fstatat(fd, "", &st, 0));
    close(fd);
    int dir = open(".", O_RDONLY | O_DIRECTORY);
    CASE("openat", close(openat(dir, "a", O_RDONLY)));
    CASE("openat bad directory", openat(999, "a", O_RDONLY));
    CASE("openat bad directory, absolute", close(openat(999, "/etc/passwd", O_RDONLY)));
    CASE("unlinkat directory flag on file", unlinkat(dir, "a", AT_REMOVEDIR));
    CASE("unlinkat flags", unlinkat(dir, "a", 0x10));
    CASE("fstatat flags", fstatat(dir, "a", &st, 0x10));
    CASE("faccessat flags", syscall(SYS_faccessat2, dir, "a", R_OK, 0x10));
    CASE("access mode", access("a", 8));
    CASE("access", access("a", F_OK));
    CASE("access X", access("a", X_OK));
    CASE("access missing", access("missing", F_OK));
    CASE("access dangling link", (unlink("nowhere"), access("dangling", F_OK)));
    CASE("faccessat nofollow", faccessat(dir, "dangling", F_OK, AT_SYMLINK_NOFOLLOW));
    struct open_how how = {.flags = O_RDONLY};
    CASE("openat2 small", syscall(SYS_openat2, dir, "a", &how, 8));
    CASE("openat2", close(syscall(SYS_openat2, dir, "a", &how, sizeof how)));
    how.mode = 0644;
    CASE("openat2 mode without creat", syscall(SYS_openat2, dir, "a", &how, sizeof how));
    how.mode = 0;
    how.resolve = 0x1000;
    CASE("openat2 resolve unknown", syscall(SYS_openat2, dir, "a", &how, sizeof how));
    CASE("creat", close(creat("c", 0640)));
    mode_of("creat mode", "c");
    CASE("truncate by open", ({ int f = open("c", O_WRONLY); int r = write(f, "123456", 6); close(f); close(open("c", O_WRONLY | O_TRUNC)); r; }));
    mode_of("truncated", "c");
    CASE("truncate", truncate("c", 100));
    mode_of("grown", "c");
    CASE("truncate negative", truncate("c", -1));
    CASE("truncate directory", truncate(".", 0));
    CASE("truncate missing", truncate("missing", 0));
    CASE("open fd directory entry", close(open("/proc/self/fd/1", O_WRONLY)));
    CASE("open missing descriptor", open("/proc/self/fd/777", O_RDONLY));
    CASE("open dev stdin", close(open("/dev/stdin", O_RDONLY)));
    CASE("open dev fd", close(open("/dev/fd/0", O_RDONLY)));
    CASE("open dev null", close(open("/dev/null", O_RDWR)));
    fd = open("/dev/full", O_RDWR);
    CASE("write full", write(fd, "x", 1));
    CASE("read full", read(fd, name, 10));
    close(fd);
    fd = open("/dev/zero", O_RDWR);
    CASE("read zero", read(fd, name, 10));
    BYTES("zeroes", name, 10);
    CASE("lseek zero", lseek(fd, 100, SEEK_SET));
    close(fd);
    fd = open("/dev/urandom", O_RDONLY);
    CASE("read urandom", read(fd, name, 4000));
    close(fd);
    CASE("mknod fifo", mknod("fifo", S_IFIFO | 0622, 0));
    mode_of("fifo", "fifo");
    CASE("mknod regular", mknod("regular", 0600, 0));
    mode_of("regular", "regular");
    CASE("mknod directory", mknod("nodir", S_IFDIR | 0600, 0));
    CASE("mknod nonsense", mknod("nonsense", 0110000, 0));
    CASE("open fifo write nonblock", open("fifo", O_WRONLY | O_NONBLOCK));
    CASE("open fifo read nonblock", close(open("fifo", O_RDONLY | O_NONBLOCK)));
    CASE("open socket file", (mknod("sock", S_IFSOCK | 0600, 0), open("sock", O_RDWR)));
    CASE("chmod", chmod("a", 01234));
    mode_of("chmod mode", "a");
    CASE("chmod missing", chmod("missing", 0));
    CASE("fchmodat nofollow on a link", fchmodat(AT_FDCWD, "link", 0600, AT_SYMLINK_NOFOLLOW));
    CASE("chown", chown("a", -1, -1));
    CASE("lchown link", lchown("dangling", -1, -1));
    CASE("chown dangling", chown("dangling", -1, -1));
    CASE("close", close(dir));
    CASE("close again", close(dir));
    return 0;
}

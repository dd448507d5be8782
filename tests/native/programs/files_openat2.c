/* openat2(2): the structure's checks, and what each RESOLVE_* forbids. */
#include "case.h"
#include <linux/openat2.h>

static int dir;

static long go(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
    struct open_how how = {.flags = flags, .resolve = resolve};
    int fd = syscall(SYS_openat2, dirfd, path, &how, sizeof how);
    if (fd >= 0) {
        struct stat st;
        fstat(fd, &st);
        close(fd);
        return S_ISDIR(st.st_mode) ? 2 : S_ISREG(st.st_mode) ? 1 : 3;
    }
    return fd;
}

static void structure(void)
{
    struct {
        struct open_how how;
        uint64_t more[2];
    } big = {.how = {.flags = O_RDONLY}};
    CASE("size 0", syscall(SYS_openat2, AT_FDCWD, ".", &big, 0));
    CASE("size 23", syscall(SYS_openat2, AT_FDCWD, ".", &big, 23));
    CASE("bigger with zeros", close(syscall(SYS_openat2, AT_FDCWD, ".", &big, sizeof big)));
    big.more[1] = 1;
    CASE("bigger with more", syscall(SYS_openat2, AT_FDCWD, ".", &big, sizeof big));
    CASE("much bigger", syscall(SYS_openat2, AT_FDCWD, ".", &big, 5000));
    CASE("bad pointer", syscall(SYS_openat2, AT_FDCWD, ".", (void *)8, sizeof big.how));
    struct open_how how = {.flags = O_RDONLY, .mode = 0600};
    CASE("mode without O_CREAT", syscall(SYS_openat2, AT_FDCWD, ".", &how, sizeof how));
    how = (struct open_how){.flags = O_RDWR | O_CREAT, .mode = 0200000};
    CASE("mode too large", syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
    how = (struct open_how){.flags = 1ull << 40};
    CASE("unknown flag", syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
    how = (struct open_how){.flags = O_PATH | O_RDWR};
    CASE("O_PATH and more", syscall(SYS_openat2, AT_FDCWD, "f", &how, sizeof how));
    CASE("unknown restriction", go(AT_FDCWD, "f", O_RDONLY, 64));
    CASE("both scopes", go(AT_FDCWD, "f", O_RDONLY, RESOLVE_BENEATH | RESOLVE_IN_ROOT));
    CASE("bad descriptor", go(99, "f", O_RDONLY, RESOLVE_BENEATH));
    CASE("empty path", go(AT_FDCWD, "", O_RDONLY, RESOLVE_BENEATH));
    CASE("cached and O_TRUNC", go(AT_FDCWD, "f", O_RDWR | O_TRUNC, RESOLVE_CACHED));
}

int main(void)
{
    static const struct {
        const char *name;
        uint64_t resolve;
    } restrictions[] = {
        {"none", 0},
        {"no xdev", RESOLVE_NO_XDEV},
        {"no magic links", RESOLVE_NO_MAGICLINKS},
        {"no symlinks", RESOLVE_NO_SYMLINKS},
        {"beneath", RESOLVE_BENEATH},
        {"in root", RESOLVE_IN_ROOT},
        {"in root, no symlinks", RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS},
    };
    static const char *const paths[] = {
        ".", "..", "file", "sub/file", "sub/..", "sub/../..", "sub/../../top/file", "../top/file", "/", "/etc/passwd",
        "/file", "/sub/../../file", "link", "sub/up", "absolute", "root", "deep", "out", "nothing", "sub/nothing",
        "/proc", "/proc/self/exe", "/proc/self/cwd", "/proc/self/fd", "/proc/version", "magic", "magicdir/file", "loop",
        "file/", "link/.", "dirlink/file", "dirlink/../file", "/dev/null", "/tmp/../proc/version",
    };
    mkdir("top", 0755);
    chdir("top");
    mkdir("sub", 0755);
    close(file_with("file", "x"));
    close(file_with("sub/file", "x"));
    close(file_with("../etcfile", "x"));
    symlink("file", "link");
    symlink("../file", "sub/up");
    symlink("/etc/passwd", "absolute");
    symlink("/file", "root");
    symlink("sub/../sub/up", "deep");
    symlink("../etcfile", "out");
    symlink("/proc/self/exe", "magic");
    symlink("/proc/self/cwd", "magicdir");
    symlink("loop", "loop");
    symlink("sub", "dirlink");
    dir = open(".", O_PATH | O_DIRECTORY);
    chdir("/");
    for (int r = 0; r < ARRAY_LENGTH(restrictions); r++)
        for (int p = 0; p < ARRAY_LENGTH(paths); p++)
            CASEF(go(dir, paths[p], O_RDONLY, restrictions[r].resolve), "%s %s", restrictions[r].name, paths[p]);
    CASE("a link itself", go(dir, "link", O_PATH | O_NOFOLLOW, RESOLVE_NO_SYMLINKS));
    CASE("a link not followed", go(dir, "link", O_NOFOLLOW, RESOLVE_NO_SYMLINKS));
    int proc = open("/proc/self", O_PATH | O_DIRECTORY);
    for (int r = 0; r < ARRAY_LENGTH(restrictions); r++) {
        CASEF(go(proc, "stat", O_RDONLY, restrictions[r].resolve), "proc %s stat", restrictions[r].name);
        CASEF(go(proc, "../version", O_RDONLY, restrictions[r].resolve), "proc %s ../version", restrictions[r].name);
        CASEF(go(proc, "/version", O_RDONLY, restrictions[r].resolve), "proc %s /version", restrictions[r].name);
        CASEF(go(proc, "exe", O_RDONLY, restrictions[r].resolve), "proc %s exe", restrictions[r].name);
        CASEF(go(proc, "exe", O_PATH | O_NOFOLLOW, restrictions[r].resolve), "proc %s exe itself", restrictions[r].name);
    }
    struct open_how how = {.flags = O_CREAT | O_RDWR, .mode = 0640, .resolve = RESOLVE_BENEATH};
    CASE("made beneath", close(syscall(SYS_openat2, dir, "sub/new", &how, sizeof how)));
    CASE("made outside", syscall(SYS_openat2, dir, "../new", &how, sizeof how));
    CASE("made through a link", syscall(SYS_openat2, dir, "absolute", &how, sizeof how));
    fchdir(dir);
    structure();
    return 0;
}

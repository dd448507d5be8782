/* Calls about files that are newer than the C library: extended attributes at, file attributes, cachestat. */
#include "case.h"
#include <sys/xattr.h>

enum { SETXATTRAT = 463, GETXATTRAT, LISTXATTRAT, REMOVEXATTRAT, GETATTR = 468, SETATTR, CACHESTAT = 451 };

struct arguments {
    uint64_t value;
    uint32_t size, flags;
    uint64_t more;
};

static void attributes_at(int dir)
{
    char text[200] = "";
    struct arguments a = {(uintptr_t)"value", 5};
    int fd = open("d/f", O_RDWR);
    CASE("set", syscall(SETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    a.flags = XATTR_CREATE;
    CASE("create", syscall(SETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    a.flags = XATTR_REPLACE;
    CASE("replace none", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 16));
    a.flags = 8;
    CASE("unknown flag", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 16));
    a.flags = 0;
    CASE("by descriptor", syscall(SETXATTRAT, fd, "", AT_EMPTY_PATH, "user.two", &a, 16));
    CASE("small", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 15));
    CASE("larger with zeros", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 24));
    a.more = 1;
    CASE("larger with more", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 24));
    CASE("much larger", syscall(SETXATTRAT, dir, "f", 0, "user.two", &a, 5000));
    CASE("unknown at flag", syscall(SETXATTRAT, dir, "f", 1, "user.two", &a, 16));
    a = (struct arguments){(uintptr_t)text, sizeof text};
    CASE("get", syscall(GETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    TELL("got", "%s", text);
    a.size = 2;
    CASE("get into too little", syscall(GETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    a.size = 0;
    CASE("get the size", syscall(GETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    a.flags = 1;
    CASE("get with flags", syscall(GETXATTRAT, dir, "f", 0, "user.one", &a, 16));
    a.flags = 0;
    CASE("get none", syscall(GETXATTRAT, dir, "f", 0, "user.none", &a, 16));
    CASE("get of nothing", syscall(GETXATTRAT, dir, "none", 0, "user.one", &a, 16));
    CASE("get of the link", syscall(GETXATTRAT, dir, "link", AT_SYMLINK_NOFOLLOW, "user.one", &a, 16));
    CASE("get through the link", syscall(GETXATTRAT, dir, "link", 0, "user.one", &a, 16));
    CASE("bad descriptor", syscall(GETXATTRAT, 99, "f", 0, "user.one", &a, 16));
    CASE("list", syscall(LISTXATTRAT, dir, "f", 0, text, sizeof text));
    CASE("list by descriptor", syscall(LISTXATTRAT, fd, "", AT_EMPTY_PATH, text, sizeof text));
    CASE("list size", syscall(LISTXATTRAT, dir, "f", 0, text, 0));
    CASE("remove", syscall(REMOVEXATTRAT, dir, "f", 0, "user.one"));
    CASE("remove again", syscall(REMOVEXATTRAT, dir, "f", 0, "user.one"));
    CASE("remove by descriptor", syscall(REMOVEXATTRAT, fd, "", AT_EMPTY_PATH, "user.two"));
    CASE("long name", syscall(REMOVEXATTRAT, dir, "f", 0, memset(text, 'x', 199)));
    close(fd);
}

static void file_attributes(int dir)
{
    struct {
        uint64_t flags;
        uint32_t extent, extents, project, cow;
        uint64_t more;
    } a = {0};
    CASE("getattr", syscall(GETATTR, dir, "f", &a, 24, 0));
    TELL("attributes", "%#llx %u %u", (unsigned long long)a.flags, a.extent, a.project);
    CASE("getattr larger", syscall(GETATTR, dir, "f", &a, 32, 0));
    CASE("getattr small", syscall(GETATTR, dir, "f", &a, 16, 0));
    CASE("getattr much larger", syscall(GETATTR, dir, "f", &a, 5000, 0));
    CASE("getattr flags", syscall(GETATTR, dir, "f", &a, 24, 1));
    CASE("getattr of nothing", syscall(GETATTR, dir, "none", &a, 24, 0));
    CASE("getattr bad pointer", syscall(GETATTR, dir, "f", 8, 24, 0));
    CASE("getattr itself", syscall(GETATTR, dir, "", &a, 24, AT_EMPTY_PATH));
    CASE("setattr the same", syscall(SETATTR, dir, "f", &a, 24, 0));
    a.flags = 0x40;
    CASE("setattr no-atime", syscall(SETATTR, dir, "f", &a, 24, 0));
    CASE("getattr then", syscall(GETATTR, dir, "f", &a, 24, 0));
    TELL("attributes then", "%#llx", (unsigned long long)a.flags);
    a.more = 1;
    CASE("setattr more", syscall(SETATTR, dir, "f", &a, 32, 0));
}

static void cached(void)
{
    struct {
        uint64_t cached, dirty, writeback, evicted, recently;
    } found;
    uint64_t range[2] = {0, 0};
    int fd = open("d/f", O_RDWR), fds[2];
    CASE("cachestat", syscall(CACHESTAT, fd, range, &found, 0));
    TELL("pages", "%d", (int)(found.cached + found.evicted));
    range[0] = 4096, range[1] = 4096;
    CASE("cachestat of a part", syscall(CACHESTAT, fd, range, &found, 0));
    TELL("pages of the part", "%d", (int)(found.cached + found.evicted));
    CASE("cachestat flags", syscall(CACHESTAT, fd, range, &found, 1));
    CASE("cachestat bad range", syscall(CACHESTAT, fd, 8, &found, 0));
    CASE("cachestat bad result", syscall(CACHESTAT, fd, range, 8, 0));
    CASE("cachestat bad descriptor", syscall(CACHESTAT, 99, range, &found, 0));
    if (pipe(fds))
        _exit(9);
    CASE("cachestat of a pipe", syscall(CACHESTAT, fds[0], range, &found, 0));
}

int main(void)
{
    static char pages[3 * 4096];
    mkdir("d", 0755);
    int fd = file_with("d/f", 0);
    if (write(fd, pages, sizeof pages) != sizeof pages)
        _exit(9);
    symlink("f", "d/link");
    int dir = open("d", O_RDONLY);
    attributes_at(dir);
    file_attributes(dir);
    cached();
    return 0;
}

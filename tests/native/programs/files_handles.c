/* File handles; remap_file_pages; I/O priorities; what fdinfo says of inotify. */
#include "case.h"
#include <sys/inotify.h>

union room {
    struct file_handle handle;
    char bytes[8 + 200];
};

static long name(int dir, const char *path, unsigned size, int flags, union room *room)
{
    int mount[2];
    room->handle.handle_bytes = size;
    return name_to_handle_at(dir, path, &room->handle, mount, flags);
}

static void handles(void)
{
    union room room, other;
    int mount, here = open(".", O_RDONLY), fd;
    char text[20] = "";
    mkdir("d", 0755);
    close(file_with("d/f", "content"));
    symlink("d/f", "link");
    CASE("size 0", name(AT_FDCWD, "d/f", 0, 0, &room));
    TELL("size it needs", "%d", room.handle.handle_bytes > 0);
    unsigned size = room.handle.handle_bytes;
    CASE("too small", name(AT_FDCWD, "d/f", size - 1, 0, &room));
    CASE("size", name(AT_FDCWD, "d/f", size, 0, &room));
    CASE("larger", name(AT_FDCWD, "d/f", 128, 0, &other));
    TELL("the same", "%d %d", room.handle.handle_bytes == other.handle.handle_bytes, !memcmp(room.bytes, other.bytes, 8 + size));
    CASE("too large", name(AT_FDCWD, "d/f", 129, 0, &other));
    CASE("unknown flag", name(AT_FDCWD, "d/f", 128, 0x10000, &other));
    CASE("nothing there", name(AT_FDCWD, "none", 128, 0, &other));
    CASE("bad handle", syscall(SYS_name_to_handle_at, AT_FDCWD, "d/f", (void *)8, &mount, 0));
    CASE("bad mount id", syscall(SYS_name_to_handle_at, AT_FDCWD, "d/f", &other, (void *)8, 0));
    CASE("bad descriptor", name(99, "d/f", 128, 0, &other));
    CASE("empty", name(here, "", 128, 0, &other));
    CASE("empty path flag", name(here, "", 128, AT_EMPTY_PATH, &other));
    CASE("the link", name(AT_FDCWD, "link", 128, 0, &other));
    TELL("is another file", "%d", !!memcmp(room.bytes, other.bytes, 8 + size));
    CASE("open the link", open_by_handle_at(here, &other.handle, O_RDONLY));
    CASE("open the link itself", close(open_by_handle_at(here, &other.handle, O_PATH)));
    CASE("follow", name(AT_FDCWD, "link", 128, AT_SYMLINK_FOLLOW, &other));
    TELL("is the file", "%d", !memcmp(room.bytes, other.bytes, 8 + size));
    fd = open_by_handle_at(here, &room.handle, O_RDONLY);
    CASE("open", read(fd, text, 19));
    TELL("text", "%s", text);
    close(fd);
    CASE("open for writing", write(open_by_handle_at(here, &room.handle, O_WRONLY | O_APPEND), "!", 1));
    CASE("open by the directory", close(open_by_handle_at(open("d", O_RDONLY), &room.handle, O_RDONLY)));
    CASE("open bad pointer", syscall(SYS_open_by_handle_at, here, (void *)8, O_RDONLY));
    CASE("open bad descriptor", open_by_handle_at(99, &room.handle, O_RDONLY));
    other.handle.handle_bytes = 0;
    CASE("open size 0", open_by_handle_at(here, &other.handle, O_RDONLY));
    other.handle.handle_bytes = 129;
    CASE("open too large", open_by_handle_at(here, &other.handle, O_RDONLY));
    IN_CHILD("nobody", {
        setresuid(65534, 65534, 65534);
        CASE("nobody opens", open_by_handle_at(here, &room.handle, O_RDONLY));
    });
    unlink("d/f");
    CASE("open what is gone", open_by_handle_at(here, &room.handle, O_RDONLY));
}

static void remapping(void)
{
    int fd = file_with("pages", 0);
    for (int i = 0; i < 4; i++) {
        char page[4096];
        memset(page, 'a' + i, sizeof page);
        if (write(fd, page, sizeof page) != sizeof page)
            _exit(9);
    }
    char *p = mmap(0, 4 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CASE("remap", remap_file_pages(p, 8192, 0, 2, 0));
    TELL("pages", "%c%c%c%c", p[0], p[4096], p[8192], p[12288]);
    CASE("remap part", remap_file_pages(p + 4096, 4096, 0, 0, 0));
    TELL("pages then", "%c%c%c%c", p[0], p[4096], p[8192], p[12288]);
    p[4096] = 'X';
    CASE("seen in the file", pread(fd, p + 12288, 1, 0));
    TELL("is", "%c", p[12288]);
    CASE("with a protection", remap_file_pages(p, 4096, 1, 2, 0));
    CASE("of no size", remap_file_pages(p, 0, 0, 2, 0));
    char *anonymous = mmap(0, 2 * 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    anonymous[0] = '0', anonymous[4096] = '1';
    CASE("shared anonymous", remap_file_pages(anonymous, 4096, 0, 1, 0));
    TELL("shared anonymous pages", "%c%c", anonymous[0], anonymous[4096]);
    char *mine = mmap(0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CASE("private", remap_file_pages(mine, 4096, 0, 0, 0));
    munmap(mine, 4096);
    CASE("unmapped", remap_file_pages(mine, 4096, 0, 0, 0));
}

static void priorities(void)
{
    enum { PROCESS = 1, GROUP, USER };
    CASE("get", syscall(SYS_ioprio_get, PROCESS, 0));
    CASE("set best effort", syscall(SYS_ioprio_set, PROCESS, 0, 2 << 13 | 3));
    CASE("get it", syscall(SYS_ioprio_get, PROCESS, 0));
    IN_CHILD("a child", CASE("get of a child", syscall(SYS_ioprio_get, PROCESS, 0)));
    CASE("idle", syscall(SYS_ioprio_set, PROCESS, 0, 3 << 13));
    CASE("get idle", syscall(SYS_ioprio_get, PROCESS, getpid()));
    CASE("none with a level", syscall(SYS_ioprio_set, PROCESS, 0, 4));
    CASE("none", syscall(SYS_ioprio_set, PROCESS, 0, 0));
    CASE("no class", syscall(SYS_ioprio_set, PROCESS, 0, 5 << 13));
    CASE("bad which", syscall(SYS_ioprio_get, 4, 0));
    CASE("bad which set", syscall(SYS_ioprio_set, 0, 0, 2 << 13));
    CASE("nobody there", syscall(SYS_ioprio_get, PROCESS, 0x3ffffff));
    IN_CHILD("unprivileged", {
        setresuid(65534, 65534, 65534);
        CASE("real time by nobody", syscall(SYS_ioprio_set, PROCESS, 0, 1 << 13 | 4));
        CASE("another's", syscall(SYS_ioprio_set, PROCESS, getppid(), 2 << 13 | 4));
    });
}

static void watches(void)
{
    char path[50], text[600];
    int fd = inotify_init1(0), n;
    CASE("watch", inotify_add_watch(fd, ".", IN_CREATE | IN_DELETE));
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    n = read(open(path, O_RDONLY), text, sizeof text - 1);
    text[n < 0 ? 0 : n] = 0;
    char *line = strstr(text, "inotify ");
    TELL("fdinfo", "%.13s %.40s", line ? line : "none", line ? strstr(line, " mask:") : "");
}

int main(void)
{
    handles();
    remapping();
    priorities();
    watches();
    return 0;
}

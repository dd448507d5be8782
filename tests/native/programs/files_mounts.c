/* mount(2) and umount(2): by root in directories of its own; by anybody else the same refusals everywhere. */
#include "case.h"
#include <sys/mount.h>
#include <sys/statfs.h>

static int listed(const char *what)
{
    static char text[1 << 16];
    int fd = open("/proc/mounts", O_RDONLY), n = 0, r;
    while ((r = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += r;
    close(fd);
    text[n] = 0;
    int found = 0;
    for (char *at = text; (at = strstr(at, what)); at++)
        found++;
    return found;
}

int main(void)
{
    char here[300], there[400];
    struct statfs fs;
    mkdir("a", 0755);
    mkdir("b", 0755);
    close(file_with("file", "x"));
    close(file_with("a/under", "x"));
    if (!getcwd(here, sizeof here))
        return 9;
    CASE("no such directory", mount("none", "nothing", "tmpfs", 0, 0));
    CASE("no such type", mount("none", "a", "nosuchfs", 0, 0));
    CASE("no type", mount("none", "a", 0, 0, 0));
    CASE("on a file", mount("none", "file", "tmpfs", 0, 0));
    CASE("bad target", mount("none", (void *)8, "tmpfs", 0, 0));
    CASE("bad type", mount("none", "a", (void *)8, 0, 0));
    CASE("no block device", mount("file", "a", "ext4", 0, 0));
    CASE("bind of nothing", mount("nothing", "a", 0, MS_BIND, 0));
    CASE("remount of no mount", mount("none", "a", 0, MS_REMOUNT, 0));
    CASE("umount of no mount", umount("a"));
    CASE("umount of nothing", umount("nothing"));
    CASE("umount flags", umount2("a", 0x100));
    IN_CHILD("unprivileged", {
        setresuid(65534, 65534, 65534);
        CASE("nobody mounts", mount("none", "a", "tmpfs", 0, 0));
        CASE("nobody unmounts", umount("a"));
    });
    CASE("tmpfs", mount("emugdb-test", "a", "tmpfs", 0, "size=64k,mode=0700"));
    CASE("what was under it", access("a/under", F_OK));
    TELL("listed", "%d", listed("emugdb-test"));
    statfs("a", &fs);
    TELL("statfs", "type %#lx, %ld blocks", (long)fs.f_type, (long)fs.f_blocks);
    CASE("a file on it", close(file_with("a/new", "y")));
    CASE("rename across", rename("a/new", "b/new"));
    CASE("link across", link("a/new", "b/new"));
    int fd = open("a/new", O_RDONLY);
    CASE("busy", umount("a"));
    CASE("expire busy", umount2("a", MNT_EXPIRE));
    close(fd);
    CASE("read only", mount("none", "a", 0, MS_REMOUNT | MS_RDONLY, 0));
    CASE("write", open("a/other", O_CREAT | O_RDWR, 0600));
    CASE("mkdir", mkdir("a/dir", 0700));
    CASE("unlink", unlink("a/new"));
    CASE("chmod", chmod("a/new", 0600));
    CASE("access", access("a/new", W_OK));
    CASE("utime", utimensat(AT_FDCWD, "a/new", 0, 0));
    CASE("read", close(open("a/new", O_RDONLY)));
    CASE("bind", mount("a", "b", 0, MS_BIND, 0));
    CASE("bound", access("b/new", F_OK));
    CASE("busy again", rmdir("b"));
    CASE("first", umount("b"));
    CASE("no executables", mount("none", "a", 0, MS_REMOUNT | MS_NOEXEC, 0));
    CASE("chmod now", chmod("a/new", 0700));
    CASE("execute", execl("a/new", "new", NULL));
    CASE("move", mount("a", "b", 0, MS_MOVE, 0));
    TELL("moved", "%d %d", access("a/under", F_OK), access("b/new", F_OK));
    snprintf(there, sizeof there, "%s/b", here);
    symlink("b", "link");
    CASE("umount of a link not followed", umount2("link", UMOUNT_NOFOLLOW));
    chdir("b");
    CASE("busy by its directory", umount(there));
    chdir(here);
    CASE("umount", umount("link"));
    TELL("listed no more", "%d", listed("emugdb-test"));
    mkdir("low", 0755), mkdir("up", 0755), mkdir("work", 0755), close(file_with("low/below", "x"));
    CASE("tmpfs again", mount("none", "b", "tmpfs", 0, 0));
    mkdir("b/up", 0755), mkdir("b/work", 0755);
    CASE("overlay by relative names", mount("overlay", "a", "overlay", 0, "lowerdir=low,upperdir=b/up,workdir=b/work"));
    TELL("seen through", "%d", access("a/below", F_OK));
    CASE("written above", close(file_with("a/below", "y")));
    TELL("is above", "%d", access("b/up/below", F_OK));
    CASE("overlay off", umount("a"));
    CASE("everything is off", umount2("b", MNT_DETACH));
    return 0;
}

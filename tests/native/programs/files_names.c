/* Names: mkdir, rmdir, unlink, rename, link, readlink, working directory, directory reading. */
#include "case.h"
#include <dirent.h>
#include <sys/syscall.h>

static void names(const char *title, const char *path)
{
    char text[2000] = "";
    struct dirent **list;
    int n = scandir(path, &list, 0, alphasort);
    if (n < 0) {
        TELL(title, "%s", case_errno(errno));
        return;
    }
    for (int i = 0; i < n; i++)
        sprintf(text + strlen(text), "%s%s/%d", i ? " " : "", list[i]->d_name, list[i]->d_type);
    TELL(title, "%s", text);
}

static void text_of(const char *title, const char *path)
{
    char text[256];
    int fd = open(path, O_RDONLY);
    int n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (n < 0)
        TELL(title, "%s", case_errno(errno));
    else
        TELL(title, "%.*s", n, text);
    if (fd >= 0)
        close(fd);
}

int main(void)
{
    char buffer[4096], old[4096];
    struct stat st;
    getcwd(old, sizeof old);
    close(file_with("file", "contents"));
    CASE("mkdir", mkdir("dir", 0755));
    CASE("mkdir again", mkdir("dir", 0755));
    CASE("mkdir on file", mkdir("file", 0755));
    CASE("mkdir below file", mkdir("file/x", 0755));
    CASE("mkdir below missing", mkdir("missing/x", 0755));
    CASE("mkdir trailing slash", mkdir("slash/", 0700));
    CASE("mkdir empty", mkdir("", 0700));
    CASE("mkdir dot", mkdir(".", 0700));
    CASE("mkdir dotdot", mkdir("dir/..", 0700));
    CASE("mkdir root", mkdir("/", 0700));
    CASE("mkdir sticky", mkdir("sticky", 07777));
    stat("sticky", &st);
    TELL("sticky mode", "%o", st.st_mode);
    CASE("rmdir file", rmdir("file"));
    CASE("rmdir missing", rmdir("missing"));
    CASE("rmdir dot", rmdir("."));
    CASE("rmdir dir dot", rmdir("dir/."));
    CASE("rmdir dotdot", rmdir("dir/.."));
    CASE("rmdir root", rmdir("/"));
    close(file_with("dir/inner", "inner"));
    CASE("rmdir not empty", rmdir("dir"));
    CASE("rmdir slash", rmdir("slash/"));
    CASE("unlink directory", unlink("dir"));
    CASE("unlink missing", unlink("missing"));
    CASE("unlink trailing slash", unlink("file/"));
    CASE("unlink empty", unlink(""));
    CASE("unlink dot", unlink("."));
    CASE("symlink to directory", symlink("dir", "dirlink"));
    CASE("rmdir link", rmdir("dirlink"));
    CASE("rmdir link slash", rmdir("dirlink/"));
    CASE("unlink link slash", unlink("dirlink/"));
    names("through the link", "dirlink");
    names("here", ".");
    CASE("link", link("file", "hard"));
    CASE("link exists", link("file", "hard"));
    CASE("link missing", link("missing", "x"));
    CASE("link directory", link("dir", "x"));
    CASE("link to slash", link("file", "x/"));
    CASE("link to missing directory", link("file", "missing/x"));
    CASE("link of a link", link("dirlink", "dirlink2"));
    lstat("dirlink2", &st);
    TELL("is a link", "%d", S_ISLNK(st.st_mode));
    CASE("linkat flags", linkat(AT_FDCWD, "file", AT_FDCWD, "x", 0x10));
    CASE("linkat follow to directory", linkat(AT_FDCWD, "dirlink", AT_FDCWD, "x", AT_SYMLINK_FOLLOW));
    stat("file", &st);
    TELL("link count", "%ld", (long)st.st_nlink);
    CASE("rename", rename("file", "moved"));
    CASE("rename missing", rename("file", "x"));
    CASE("rename onto hard link", rename("moved", "hard"));
    names("both are still there", ".");
    CASE("rename file onto directory", rename("moved", "dir"));
    CASE("rename directory onto file", rename("dir", "moved"));
    CASE("rename into itself", rename("dir", "dir/below"));
    CASE("rename onto not empty", (mkdir("other", 0755), rename("other", "dir")));
    CASE("rename directory slash", rename("other", "other2/"));
    CASE("rename file slash", rename("moved", "moved2/"));
    CASE("rename dot", rename(".", "x"));
    CASE("rename to dotdot", rename("other2", ".."));
    CASE("rename empty", rename("", "x"));
    CASE("rename to empty", rename("moved", ""));
    CASE("renameat2 noreplace", renameat2(AT_FDCWD, "moved", AT_FDCWD, "hard", RENAME_NOREPLACE));
    close(file_with("one", "1"));
    close(file_with("two", "2"));
    CASE("renameat2 exchange", renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_EXCHANGE));
    text_of("one", "one");
    text_of("two", "two");
    CASE("renameat2 flags", renameat2(AT_FDCWD, "one", AT_FDCWD, "two", 0x100));
    CASE("renameat2 both", renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_EXCHANGE | RENAME_NOREPLACE));
    CASE("renameat2 exchange missing", renameat2(AT_FDCWD, "one", AT_FDCWD, "missing", RENAME_EXCHANGE));
    CASE("readlink", readlink("dirlink", buffer, sizeof buffer));
    CASE("readlink short", readlink("dirlink", buffer, 2));
    BYTES("two bytes", buffer, 2);
    CASE("readlink zero", readlink("dirlink", buffer, 0));
    CASE("readlink file", readlink("moved", buffer, 10));
    CASE("readlink missing", readlink("missing", buffer, 10));
    CASE("readlink empty", readlink("", buffer, 10));
    CASE("readlink slash", readlink("dirlink/", buffer, 10));
    int fd = open("dirlink", O_PATH | O_NOFOLLOW);
    CASE("readlinkat of the link itself", readlinkat(fd, "", buffer, 10));
    close(fd);
    CASE("chdir", chdir("dir"));
    CASE("getcwd", strcmp(getcwd(buffer, sizeof buffer) + strlen(old), "/dir"));
    CASE("getcwd raw length", syscall(SYS_getcwd, buffer, sizeof buffer) - (long)strlen(old));
    CASE("getcwd too small", syscall(SYS_getcwd, buffer, 2));
    CASE("getcwd bad", syscall(SYS_getcwd, 1, 4096));
    CASE("open up", close(open("../one", O_RDONLY)));
    CASE("chdir file", chdir("inner"));
    CASE("chdir missing", chdir("missing"));
    CASE("chdir up", chdir(".."));
    CASE("mkdir gone", mkdir("gone", 0755));
    CASE("chdir gone", chdir("gone"));
    CASE("rmdir it", rmdir("../gone"));
    CASE("getcwd gone", syscall(SYS_getcwd, buffer, sizeof buffer));
    CASE("open in gone", open("x", O_CREAT | O_RDWR, 0644));
    CASE("open dot in gone", close(open(".", O_RDONLY)));
    CASE("chdir back", chdir(old));
    fd = open("dir", O_RDONLY);
    CASE("fchdir", fchdir(fd));
    CASE("access inner", access("inner", R_OK));
    close(fd);
    CASE("chdir back again", chdir(old));
    fd = open("one", O_RDONLY);
    CASE("fchdir file", fchdir(fd));
    close(fd);
    CASE("fchdir bad", fchdir(999));
    CASE("many files", ({ mkdir("many", 0755); for (int i = 0; i < 300; i++) { snprintf(buffer, 99, "many/file%03d", i); close(file_with(buffer, 0)); } 0; }));
    DIR *d = opendir("many");
    int count = 0;
    while (readdir(d))
        count++;
    TELL("how many", "%d", count);
    rewinddir(d);
    count = 0;
    while (readdir(d))
        count++;
    TELL("again", "%d", count);
    closedir(d);
    fd = open("many", O_RDONLY);
    CASE("getdents64 small", syscall(SYS_getdents64, fd, buffer, 10));
    CASE("lseek directory", lseek(fd, 0, SEEK_SET));
#ifdef SYS_getdents
    long n = syscall(SYS_getdents, fd, buffer, sizeof buffer);
    int kinds = 0, records = 0;
    for (long at = 0; at < n; at += *(unsigned short *)(buffer + at + 16), records++)
        kinds += buffer[at + *(unsigned short *)(buffer + at + 16) - 1];
    TELL("getdents", "%d", n > 0 && records > 10 && kinds >= records);
#else
    TELL("getdents", "%d", 1);
#endif
    CASE("getdents64 bad", (lseek(fd, 0, SEEK_SET), syscall(SYS_getdents64, fd, 1, 4096)));
    CASE("write directory", write(fd, "x", 1));
    CASE("read directory", read(fd, buffer, 1));
    CASE("mmap directory", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ? -1 : 0);
    close(fd);
    names("dir", "dir");
    names("missing", "missing");
    names("file", "one");
    mode_t m = umask(0123);
    umask(m);
    TELL("umask masks", "%o", umask(07777) == m ? umask(0) : 0);
    CASE("chroot missing", chroot("missing"));
    CASE("chroot file", chroot("one"));
    IN_CHILD("chroot", if (chroot("dir")) _exit(1); if (chdir("/")) _exit(2); if (access("/inner", R_OK)) _exit(3);
             if (!access("/one", R_OK)) _exit(4); if (access("../../inner", R_OK)) _exit(5); getcwd(buffer, 4096); _exit(strcmp(buffer, "/")));
    IN_CHILD("chroot absolute link", symlink("/inner", "dir/abs"); if (chroot("dir")) _exit(1); chdir("/"); _exit(access("abs", R_OK) || access("/abs", R_OK)));
    IN_CHILD("chroot no proc", if (chroot("dir")) _exit(1); _exit(access("/proc/self/exe", F_OK) == 0));
    return 0;
}

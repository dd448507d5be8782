/* What a C library expects in /dev: ptys by name, shared memory; run in an empty --root too (test_native_root.py). */
#include "case.h"
#include <sys/ioctl.h>

int main(void)
{
    char text[20] = "", again[64] = "";
    int master = posix_openpt(O_RDWR | O_NOCTTY);
    CASE("posix_openpt", master < 0 ? -1 : 0);
    CASE("grantpt", grantpt(master));
    CASE("unlockpt", unlockpt(master));
    const char *name = ptsname(master);
    TELL("ptsname", "%.9s", name ? name : "none");
    struct stat st, of_fd;
    CASE("stat", stat(name, &st));
    TELL("a character device", "%d major %d", S_ISCHR(st.st_mode), (int)(st.st_rdev >> 8));
    int slave = open(name, O_RDWR | O_NOCTTY);
    CASE("slave", slave < 0 ? -1 : 0);
    CASE("isatty", isatty(slave));
    CASE("ttyname", ttyname_r(slave, again, sizeof again));
    TELL("the same name", "%d", !strcmp(name, again));
    fstat(slave, &of_fd);
    TELL("the same device", "%d", of_fd.st_rdev == st.st_rdev);
    CASE("write", write(slave, "hello\n", 6));
    CASE("read", read(master, text, 19));
    TELL("text", "%.5s", text);
    CASE("by multiplexer in pts", close(open("/dev/pts/ptmx", O_RDONLY)) >= -1);
    close(slave);
    close(master);
    CASE("gone", open(name, O_RDWR | O_NOCTTY) < 0);
    CASE("none of ours", open("/dev/pts/99999", O_RDWR));
    snprintf(again, sizeof again, "/emugdb-%d", getpid());
    int fd = shm_open(again, O_CREAT | O_EXCL | O_RDWR, 0600);
    CASE("shm_open", fd < 0 ? -1 : 0);
    CASE("ftruncate", ftruncate(fd, 4096));
    char *p = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    strcpy(p, "shared");
    int other = shm_open(again, O_RDWR, 0);
    CASE("seen", read(other, text, 6));
    TELL("shared text", "%.6s", text);
    CASE("shm_unlink", shm_unlink(again));
    CASE("shm_open of none", shm_open(again, O_RDWR, 0));
    CASE("out of it", access("/dev/shm/../nothing", F_OK));
    return 0;
}

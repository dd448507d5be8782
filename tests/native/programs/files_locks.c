/* fcntl record locks (POSIX and OFD) and flock, within and between processes. */
#include "case.h"
#include <sys/file.h>
#include <time.h>

static int lock(int fd, int command, int type, off_t start, off_t length)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    return fcntl(fd, command, &l);
}

static void ask(const char *name, int fd, int command, int type, off_t start, off_t length)
{
    struct flock l = {.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    if (fcntl(fd, command, &l))
        TELL(name, "%s", case_errno(errno));
    else if (l.l_type == F_UNLCK)
        TELL(name, "free");
    else
        TELL(name, "type %d whence %d start %ld len %ld pid %s", l.l_type, l.l_whence, (long)l.l_start, (long)l.l_len, l.l_pid == getppid() ? "parent" : l.l_pid == -1 ? "-1" : "other");
}

static void on_alarm(int signo)
{
    (void)signo;
}

int main(void)
{
    int fd = file_with("f", "0123456789"), ro = open("f", O_RDONLY), wo = open("f", O_WRONLY);
    int s[2], t[2];
    char c;
    pipe(s);
    pipe(t);
    CASE("write lock", lock(fd, F_SETLK, F_WRLCK, 0, 10));
    CASE("again", lock(fd, F_SETLK, F_WRLCK, 2, 3));
    CASE("other descriptor, same process", lock(ro, F_SETLK, F_RDLCK, 0, 1));
    CASE("write lock on a read only", lock(ro, F_SETLK, F_WRLCK, 0, 1));
    CASE("read lock on a write only", lock(wo, F_SETLK, F_RDLCK, 0, 1));
    CASE("type", lock(fd, F_SETLK, 9, 0, 1));
    CASE("get of unlock", lock(fd, F_GETLK, F_UNLCK, 0, 1));
    CASE("whence", fcntl(fd, F_SETLK, &(struct flock){.l_type = F_RDLCK, .l_whence = 7}));
    CASE("negative start", lock(fd, F_SETLK, F_RDLCK, -1, 1));
    CASE("negative length", lock(fd, F_SETLK, F_RDLCK, 5, -2));
    CASE("negative length before zero", lock(fd, F_SETLK, F_RDLCK, 5, -6));
    CASE("overflow", lock(fd, F_SETLK, F_RDLCK, 0x7fffffffffffffffL, 2));
    CASE("bad pointer", fcntl(fd, F_SETLK, (void *)8));
    CASE("from the end", fcntl(fd, F_SETLK, &(struct flock){.l_type = F_WRLCK, .l_whence = SEEK_END, .l_start = 0, .l_len = 5}));
    ask("own locks are free", fd, F_GETLK, F_WRLCK, 0, 10);
    IN_CHILD("child asks", ask("first", fd, F_GETLK, F_WRLCK, 0, 1); ask("read part", fd, F_GETLK, F_RDLCK, 3, 2); ask("write on read", fd, F_GETLK, F_WRLCK, 3, 2);
             ask("middle", fd, F_GETLK, F_WRLCK, 6, 1); ask("end", fd, F_GETLK, F_WRLCK, 12, 0); ask("past", fd, F_GETLK, F_WRLCK, 100, 0);
             CASE("child locks", lock(fd, F_SETLK, F_WRLCK, 6, 1)); CASE("child read locks", lock(fd, F_SETLK, F_RDLCK, 3, 1)); CASE("child locks past", lock(fd, F_SETLK, F_WRLCK, 100, 0)));
    CASE("unlock the middle", lock(fd, F_SETLK, F_UNLCK, 4, 4));
    IN_CHILD("child asks again", ask("before", fd, F_GETLK, F_WRLCK, 0, 1); ask("hole", fd, F_GETLK, F_WRLCK, 5, 2); ask("after", fd, F_GETLK, F_WRLCK, 5, 10); ask("all", fd, F_GETLK, F_WRLCK, 0, 0));
    close(dup(fd));
    IN_CHILD("closing any descriptor unlocks", ask("nothing left", fd, F_GETLK, F_WRLCK, 0, 0));
    lock(fd, F_SETLK, F_WRLCK, 0, 0);
    IN_CHILD("whole file", ask("to the end", fd, F_GETLK, F_RDLCK, 1000, 1));
    pid_t child = fork();
    if (!child) {
        write(s[1], "r", 1);
        int r = lock(fd, F_SETLKW, F_WRLCK, 0, 0);
        write(t[1], r ? "n" : "y", 1);
        pause();
        _exit(0);
    }
    read(s[0], &c, 1);
    CASE("waiting child", (usleep(30000), 0));
    CASE("let go", lock(fd, F_SETLK, F_UNLCK, 0, 0));
    read(t[0], &c, 1);
    TELL("child got it", "%c", c);
    CASE("now it is taken", lock(fd, F_SETLK, F_RDLCK, 0, 1));
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    CASE("a killed process unlocks", lock(fd, F_SETLK, F_WRLCK, 0, 1));
    struct sigaction sa = {.sa_handler = on_alarm};
    sigaction(SIGALRM, &sa, 0);
    IN_CHILD("interrupted wait", alarm(1); CASE("F_SETLKW", lock(fd, F_SETLKW, F_WRLCK, 0, 1)));
    lock(fd, F_SETLK, F_UNLCK, 0, 0);

    child = fork();
    if (!child) {
        lock(fd, F_SETLK, F_WRLCK, 1, 1);
        write(s[1], "r", 1);
        int r = lock(fd, F_SETLKW, F_WRLCK, 0, 1);
        _exit(r ? 1 : 0);
    }
    lock(fd, F_SETLK, F_WRLCK, 0, 1);
    read(s[0], &c, 1);
    usleep(50000);
    CASE("deadlock", lock(fd, F_SETLKW, F_WRLCK, 1, 1));
    lock(fd, F_SETLK, F_UNLCK, 0, 1);
    int status;
    waitpid(child, &status, 0);
    TELL("the other one", "%s", case_status(status));

    int a = open("f", O_RDWR), b = open("f", O_RDWR);
    CASE("ofd lock", lock(a, F_OFD_SETLK, F_WRLCK, 0, 5));
    CASE("ofd conflict", lock(b, F_OFD_SETLK, F_WRLCK, 4, 5));
    ask("ofd ask", b, F_OFD_GETLK, F_WRLCK, 4, 5);
    CASE("ofd against posix", lock(b, F_SETLK, F_WRLCK, 4, 1));
    ask("posix asks", b, F_GETLK, F_WRLCK, 4, 1);
    CASE("ofd pid", fcntl(a, F_OFD_SETLK, &(struct flock){.l_type = F_WRLCK, .l_pid = 1}));
    CASE("ofd child shares", ({ IN_CHILD("ofd in child", CASE("ofd relock", lock(a, F_OFD_SETLK, F_WRLCK, 0, 9))); 0; }));
    ask("grown", b, F_OFD_GETLK, F_WRLCK, 8, 1);
    close(a);
    CASE("ofd closed", lock(b, F_OFD_SETLK, F_WRLCK, 4, 5));
    lock(fd, F_SETLK, F_UNLCK, 0, 0);
    CASE("posix against ofd", lock(fd, F_SETLK, F_RDLCK, 4, 1));
    close(b);

    a = open("f", O_RDWR);
    b = open("f", O_RDONLY);
    CASE("flock shared", flock(a, LOCK_SH));
    CASE("flock shared too", flock(b, LOCK_SH | LOCK_NB));
    CASE("flock exclusive", flock(b, LOCK_EX | LOCK_NB));
    CASE("flock unlock", flock(a, LOCK_UN));
    CASE("flock exclusive now", flock(b, LOCK_EX | LOCK_NB));
    CASE("flock other", flock(a, LOCK_SH | LOCK_NB));
    CASE("flock nonsense", flock(a, 3));
    CASE("flock dup is the same", flock(dup(b), LOCK_SH | LOCK_NB));
    IN_CHILD("flock child shares", CASE("flock inherited", flock(b, LOCK_EX | LOCK_NB)));
    child = fork();
    if (!child) {
        int mine = open("f", O_RDWR);
        write(s[1], "r", 1);
        _exit(flock(mine, LOCK_EX) ? 1 : 5);
    }
    read(s[0], &c, 1);
    usleep(30000);
    CASE("flock release", flock(b, LOCK_UN));
    waitpid(child, &status, 0);
    TELL("flock waiter", "%s", case_status(status));
    CASE("lease", fcntl(fd, F_GETLEASE));
    return 0;
}

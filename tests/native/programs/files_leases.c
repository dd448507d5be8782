/* Leases (F_SETLEASE) and directory notification (F_NOTIFY): who is told, who waits. */
#include "case.h"
#include <poll.h>
#include <time.h>

#ifndef F_CREATED_QUERY
#define F_CREATED_QUERY 1028
#endif

static volatile int told, told_fd, told_code, told_band;

static void handler(int signo, siginfo_t *info, void *context)
{
    told++;
    told_fd = info->si_fd;
    told_code = info->si_code;
    told_band = info->si_band;
}

static void on(int signo)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO};
    sigaction(signo, &action, 0);
}

static int waits(pid_t child)
{
    char path[40], state = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", child);
    for (int i = 0; i < 2000; i++) {
        FILE *file = fopen(path, "r");
        if (!file || fscanf(file, "%*d %*s %c", &state) != 1)
            return -1;
        fclose(file);
        if (state == 'S' && told)
            return 1;
        if (state == 'Z')
            return 0;
        usleep(1000);
    }
    return -2;
}

static void refusals(void)
{
    int fd = file_with("f", "text"), fds[2];
    CASE("created", fcntl(fd, F_CREATED_QUERY));
    int again = open("f", O_RDONLY | O_CREAT, 0600);
    CASE("not created", fcntl(again, F_CREATED_QUERY));
    CASE("read lease of a file open for writing", fcntl(again, F_SETLEASE, F_RDLCK));
    CASE("write lease while another has it open", fcntl(fd, F_SETLEASE, F_WRLCK));
    close(again);
    CASE("write lease", fcntl(fd, F_SETLEASE, F_WRLCK));
    CASE("which", fcntl(fd, F_GETLEASE));
    CASE("given up", fcntl(fd, F_SETLEASE, F_UNLCK));
    CASE("which then", fcntl(fd, F_GETLEASE));
    CASE("given up twice", fcntl(fd, F_SETLEASE, F_UNLCK));
    CASE("no such lease", fcntl(fd, F_SETLEASE, 7));
    CASE("read lease by a writer", fcntl(fd, F_SETLEASE, F_RDLCK));
    close(fd);
    fd = open("f", O_RDONLY);
    again = open("f", O_RDONLY);
    CASE("read lease", fcntl(fd, F_SETLEASE, F_RDLCK));
    CASE("a second one", fcntl(again, F_SETLEASE, F_RDLCK));
    CASE("not to a write lease", fcntl(again, F_SETLEASE, F_WRLCK));
    CASE("reading breaks none", close(open("f", O_RDONLY | O_NONBLOCK)));
    CASE("writing would wait", open("f", O_WRONLY | O_NONBLOCK));
    CASE("it will be none", fcntl(fd, F_GETLEASE));
    CASE("and cannot be had again", fcntl(again, F_SETLEASE, F_RDLCK));
    close(fd);
    close(again);
    CASE("closing gives up", close(open("f", O_WRONLY | O_NONBLOCK)));
    fd = open(".", O_RDONLY);
    CASE("of a directory", fcntl(fd, F_SETLEASE, F_WRLCK));
    close(fd);
    if (pipe(fds))
        _exit(9);
    CASE("of a pipe", fcntl(fds[0], F_SETLEASE, F_RDLCK));
    CASE("created query of a pipe", fcntl(fds[0], F_CREATED_QUERY));
    fd = open("f", O_PATH);
    CASE("of an O_PATH descriptor", fcntl(fd, F_SETLEASE, F_RDLCK));
    close(fd);
    chmod("f", 0666);
    IN_CHILD("not the owner", {
        setresuid(65534, 65534, 65534);
        int theirs = open("f", O_RDONLY);
        CASE("another user's file", fcntl(theirs, F_SETLEASE, F_RDLCK));
    });
}

static void breaking(const char *name, int kind, int open_flags, int answer)
{
    int fd = open("f", O_RDONLY);
    told = 0;
    fcntl(fd, F_SETLEASE, kind);
    pid_t child = fork();
    if (!child) {
        close(fd);
        int r = open_flags < 0 ? truncate("f", 1) : open("f", open_flags);
        _exit(r < 0 ? errno : 0);
    }
    TELL(case_format("%s waits", name), "%d", waits(child));
    TELL(case_format("%s told", name), "%d, becomes %d", told, fcntl(fd, F_GETLEASE));
    CASE(case_format("%s back to writing", name), fcntl(fd, F_SETLEASE, F_WRLCK));
    if (answer != F_RDLCK)
        CASE(case_format("%s lowered", name), fcntl(fd, F_SETLEASE, F_RDLCK));
    fcntl(fd, F_SETLEASE, answer);
    int status;
    waitpid(child, &status, 0);
    TELL(case_format("%s done", name), "%s, lease %d", case_status(status), fcntl(fd, F_GETLEASE));
    close(fd);
}

static void signals(void)
{
    breaking("writer against a read lease", F_RDLCK, O_WRONLY, F_UNLCK);
    breaking("reader against a write lease", F_WRLCK, O_RDONLY, F_RDLCK);
    breaking("reader, given up", F_WRLCK, O_RDONLY, F_UNLCK);
    breaking("truncate", F_RDLCK, -1, F_UNLCK);
    on(SIGRTMIN);
    int fd = open("f", O_RDONLY);
    fcntl(fd, F_SETSIG, SIGRTMIN);
    fcntl(fd, F_SETLEASE, F_WRLCK);
    told = 0;
    CASE("would wait", open("f", O_RDONLY | O_NONBLOCK));
    TELL("siginfo", "%d fd %d code %d band %#x", told, told_fd == fd, told_code, told_band);
    CASE("would wait again", open("f", O_RDONLY | O_NONBLOCK));
    TELL("told once", "%d", told);
    CASE("would wait to write", open("f", O_RDWR | O_NONBLOCK));
    TELL("told of the stronger one", "%d becomes %d", told, fcntl(fd, F_GETLEASE));
    CASE("owner", fcntl(fd, F_GETOWN) == getpid());
    close(fd);
}

static void directories(void)
{
    mkdir("d", 0700);
    int fd = open("d", O_RDONLY);
    on(SIGRTMIN + 1);
    CASE("F_SETSIG", fcntl(fd, F_SETSIG, SIGRTMIN + 1));
    CASE("F_NOTIFY of a file", fcntl(open("f", O_RDONLY), F_NOTIFY, DN_CREATE));
    CASE("F_NOTIFY", fcntl(fd, F_NOTIFY, DN_CREATE | DN_MULTISHOT));
    told = 0;
    close(file_with("d/one", "x"));
    TELL("created", "%d fd %d code %d", told, told_fd == fd, told_code);
    chmod("d/one", 0600);
    TELL("chmod is not asked for", "%d", told);
    CASE("more", fcntl(fd, F_NOTIFY, DN_ATTRIB | DN_DELETE | DN_MULTISHOT));
    chmod("d/one", 0644);
    TELL("attrib", "%d", told);
    unlink("d/one");
    TELL("delete", "%d", told >= 3);
    CASE("none", fcntl(fd, F_NOTIFY, 0));
    told = 0;
    close(file_with("d/two", "x"));
    TELL("none told", "%d", told);
    CASE("rename", fcntl(fd, F_NOTIFY, DN_RENAME));
    rename("d/two", "three");
    TELL("out of it", "%d", told);
    rename("three", "d/three");
    TELL("into it", "%d", told);
    rename("d/three", "d/four");
    TELL("within", "%d", told);
    rename("d/four", "d/five");
    TELL("only once", "%d", told);
    close(fd);
}

int main(void)
{
    on(SIGIO);
    refusals();
    signals();
    directories();
    return 0;
}

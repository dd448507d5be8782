/* /proc as programs read it: what it says of the process must be this process. */
#include "case.h"
#include <dirent.h>
#include <pthread.h>
#include <sys/prctl.h>

static char text[1 << 16];

static int slurp(const char *path)
{
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return -1;
    int n = 0, r;
    while ((r = read(fd, text + n, sizeof text - 1 - n)) > 0)
        n += r;
    int e = errno;
    close(fd);
    text[n] = 0;
    errno = e;
    return r < 0 ? -1 : n;
}

static const char *field(const char *path, const char *key)
{
    static char value[4][200];
    static int turn;
    char *slot = value[turn++ % 4];
    strcpy(slot, "(none)");
    if (slurp(path) < 0)
        return case_errno(errno);
    size_t length = strlen(key);
    for (char *line = text; line && *line; line = strchr(line, '\n'), line = line ? line + 1 : 0)
        if (!strncmp(line, key, length)) {
            snprintf(slot, 200, "%.*s", (int)strcspn(line + length, "\n"), line + length);
            break;
        }
    return slot;
}

static int lines(const char *path)
{
    if (slurp(path) < 0)
        return -1;
    int n = 0;
    for (char *c = text; *c; c++)
        n += *c == '\n';
    return n;
}

static void *thread(void *unused)
{
    (void)unused;
    prctl(PR_SET_NAME, "second");
    char path[99];
    snprintf(path, sizeof path, "/proc/self/task/%d/comm", gettid());
    slurp(path);
    TELL("thread comm", "%s", strtok(text, "\n"));
    slurp("/proc/thread-self/comm");
    TELL("thread-self comm", "%s", strtok(text, "\n"));
    slurp("/proc/self/comm");
    TELL("leader comm", "%s", strtok(text, "\n"));
    TELL("Threads", "%s", field("/proc/self/status", "Threads:"));
    int n = 0;
    DIR *d = opendir("/proc/self/task");
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.';
    closedir(d);
    TELL("task entries", "%d", n);
    return 0;
}

int main(int argc, char **argv)
{
    struct stat st;
    char where[4096], path[4200];
    int n;
    (void)argc;
    n = readlink("/proc/self/exe", where, sizeof where);
    where[n] = 0;
    TELL("exe is the program", "%d", strcmp(strrchr(where, '/'), strrchr(argv[0], '/')));
    CASE("open exe", close(open("/proc/self/exe", O_RDONLY)));
    CASE("exe for writing", open("/proc/self/exe", O_RDWR) < 0);
    stat("/proc/self/exe", &st);
    TELL("exe is a regular file", "%d", S_ISREG(st.st_mode));
    lstat("/proc/self/exe", &st);
    TELL("exe mode", "%o", st.st_mode);
    n = readlink("/proc/self/cwd", where, sizeof where);
    where[n] = 0;
    TELL("cwd", "%d", strcmp(where, getcwd(path, sizeof path)));
    n = readlink("/proc/self/root", where, sizeof where);
    TELL("root", "%.*s", n, where);
    n = readlink("/proc/self", where, sizeof where);
    where[n] = 0;
    TELL("self", "%d", atoi(where) == getpid());
    n = readlink("/proc/thread-self", where, sizeof where);
    where[n] = 0;
    snprintf(path, sizeof path, "%d/task/%d", getpid(), gettid());
    TELL("thread-self", "%d", strcmp(where, path));
    n = slurp("/proc/self/cmdline");
    TELL("cmdline length", "%d", n == (int)strlen(argv[0]) + 1);
    TELL("cmdline", "%d", strcmp(text, argv[0]));
    TELL("environ", "%d", slurp("/proc/self/environ") >= 0);
    TELL("comm length", "%d", slurp("/proc/self/comm") > 1);
    CASE("rename by comm", ({ int f = open("/proc/self/comm", O_WRONLY); int r = write(f, "renamed\n", 8); close(f); r; }));
    slurp("/proc/self/comm");
    TELL("comm", "%s", strtok(text, "\n"));
    TELL("Name", "%s", field("/proc/self/status", "Name:"));
    TELL("State", "%s", field("/proc/self/status", "State:"));
    TELL("Pid", "%d", atoi(field("/proc/self/status", "Pid:")) == getpid());
    TELL("PPid", "%d", atoi(field("/proc/self/status", "PPid:")) == getppid());
    TELL("TracerPid", "%s", field("/proc/self/status", "TracerPid:"));
    umask(027);
    TELL("Umask", "%s", field("/proc/self/status", "Umask:"));
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, (void (*)(int))thread);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, 0);
    raise(SIGTERM);
    TELL("SigBlk", "%s", field("/proc/self/status", "SigBlk:"));
    TELL("SigIgn", "%s", field("/proc/self/status", "SigIgn:"));
    TELL("SigCgt", "%s", field("/proc/self/status", "SigCgt:"));
    TELL("SigPnd or ShdPnd", "%d", !!strcmp(field("/proc/self/status", "SigPnd:"), field("/proc/self/status", "ShdPnd:")));
    signal(SIGTERM, SIG_IGN);
    slurp("/proc/self/stat");
    char *after = strrchr(text, ')');
    char state;
    int ppid, pgrp, session, fields = 0;
    sscanf(after + 2, "%c %d %d %d", &state, &ppid, &pgrp, &session);
    TELL("stat", "%d %c %d %d %d", atoi(text) == getpid(), state, ppid == getppid(), pgrp == getpgrp(), session == getsid(0));
    for (char *c = after + 2; *c; c++)
        fields += *c == ' ';
    TELL("stat fields", "%d", fields);
    TELL("statm numbers", "%d", (slurp("/proc/self/statm"), ({ int k = 0; for (char *c = text; *c; c++) k += *c == ' '; k; })));
    void *m = mmap(0, 3 * 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect((char *)m + 4096, 4096, PROT_NONE);
    snprintf(path, sizeof path, "%lx-%lx ---p 00000000 00:00 0 ", (long)m + 4096, (long)m + 8192);
    n = slurp("/proc/self/maps");
    TELL("maps line", "%d", strstr(text, path) != 0);
    TELL("maps stack and heap", "%d %d", strstr(text, "[stack]") != 0, (sbrk(4096), slurp("/proc/self/maps"), strstr(text, "[heap]") != 0));
    TELL("maps has the program", "%d", strstr(text, strrchr(argv[0], '/')) != 0);
    TELL("smaps", "%s", field("/proc/self/smaps", "KernelPageSize:"));
    TELL("smaps_rollup", "%d", strstr(field("/proc/self/smaps_rollup", "Rss:"), "kB") != 0);
    n = slurp("/proc/self/auxv");
    TELL("auxv ends", "%d", n >= 16 && !*(long *)(text + n - 16));
    slurp("/proc/self/limits");
    TELL("limits", "%.*s", (int)strcspn(text, "\n"), text);
    TELL("limits lines", "%d", lines("/proc/self/limits"));
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    lseek(fd, 5, SEEK_SET);
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
    TELL("fdinfo pos", "%s", field(path, "pos:"));
    TELL("fdinfo flags", "%s", field(path, "flags:"));
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    n = readlink(path, where, sizeof where);
    TELL("fd link", "%.*s", n, where);
    lstat(path, &st);
    TELL("fd link mode", "%o %ld", st.st_mode, (long)st.st_size);
    int again = open(path, O_RDONLY);
    TELL("its own offset", "%ld", (long)lseek(again, 0, SEEK_CUR));
    CASE("reopen for writing", open(path, O_WRONLY | O_TRUNC | O_EXCL | O_CREAT));
    close(fd);
    CASE("closed fd link", readlink(path, where, sizeof where));
    int p[2];
    pipe(p);
    snprintf(path, sizeof path, "/proc/self/fd/%d", p[0]);
    n = readlink(path, where, sizeof where);
    TELL("pipe link", "%.5s", where);
    unlink("gone");
    fd = open("gone", O_CREAT | O_RDWR, 0600);
    unlink("gone");
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    n = readlink(path, where, sizeof where);
    TELL("deleted link", "%s", n > 10 ? (where[n] = 0, strrchr(where, '/')) : "?");
    CASE("open a deleted file", close(open(path, O_RDWR)));
    CASE("fd beyond", readlink("/proc/self/fd/9999", where, sizeof where));
    CASE("fd nonsense", readlink("/proc/self/fd/x", where, sizeof where));
    CASE("fd leading zero", readlink("/proc/self/fd/01", where, sizeof where));
    fd = open("/proc/self/mem", O_RDWR);
    long word = 42, copy = 0;
    CASE("mem read", pread(fd, &copy, 8, (off_t)&word));
    copy = 43;
    CASE("mem write", pwrite(fd, &copy, 8, (off_t)&word));
    TELL("mem result", "%ld", word);
    CASE("mem unmapped", pread(fd, &copy, 8, 16));
    close(fd);
    CASE("write status", open("/proc/self/status", O_WRONLY));
    CASE("create in proc", open("/proc/self/new", O_CREAT | O_RDWR, 0600));
    CASE("mkdir in proc", mkdir("/proc/new", 0700));
    CASE("mkdir proc self", mkdir("/proc/self", 0700));
    CASE("unlink in proc", unlink("/proc/self/status"));
    CASE("rename in proc", rename("/proc/self/status", "x"));
    CASE("link from proc", link("/proc/self/status", "x"));
    CASE("symlink in proc", symlink("a", "/proc/self/x"));
    CASE("rmdir proc", rmdir("/proc/self"));
    CASE("truncate proc", truncate("/proc/self/status", 0));
    CASE("stat missing pid", stat("/proc/4999999", &st));
    CASE("stat leading zero", stat("/proc/01", &st));
    CASE("open below a file", open("/proc/self/status/x", O_RDONLY));
    CASE("status slash", open("/proc/self/status/", O_RDONLY));
    CASE("up and down", close(open("/proc/self/../self/./status", O_RDONLY)));
    CASE("up to the root", close(open("/proc/../etc/passwd", O_RDONLY)));
    CASE("relative", (chdir("/proc/self"), close(open("status", O_RDONLY))));
    getcwd(path, sizeof path);
    snprintf(where, sizeof where, "/proc/%d", getpid());
    TELL("cwd in proc", "%d", strcmp(path, where));
    CASE("relative up", close(open("../version", O_RDONLY)));
    CASE("through cwd", close(open("cwd/status", O_RDONLY)));
    chdir("/");
    CASE("relative from the root", close(open("proc/self/stat", O_RDONLY)));
    fd = open("/proc", O_RDONLY | O_DIRECTORY);
    CASE("openat", close(openat(fd, "self/maps", O_RDONLY)));
    CASE("fchdir", fchdir(fd));
    CASE("access", access("self/maps", R_OK));
    CASE("access X", access("self/maps", X_OK));
    close(fd);
    CASE("lseek proc", (fd = open("/proc/self/stat", O_RDONLY), read(fd, text, 5), lseek(fd, 0, SEEK_SET)));
    CASE("read again", read(fd, text, 3));
    close(fd);
    fd = open("/proc/self/maps", O_RDONLY);
    CASE("small reads", ({ int total = 0, r; while ((r = read(fd, text, 7)) > 0) total += r; total > 500; }));
    close(fd);
    CASE("mounts", lines("/proc/mounts") > 0);
    CASE("mountinfo", lines("/proc/self/mountinfo") > 0);
    CASE("meminfo", strstr(field("/proc/meminfo", "MemTotal:"), "kB") != 0);
    CASE("uptime", (slurp("/proc/uptime"), atof(text) > 0));
    CASE("version", (slurp("/proc/version"), strncmp(text, "Linux version", 13)));
    CASE("cpuinfo", lines("/proc/cpuinfo") > 0);
    CASE("stat cpu", (slurp("/proc/stat"), strncmp(text, "cpu ", 4)));
    CASE("loadavg", (slurp("/proc/loadavg"), text[0] >= '0'));
    CASE("filesystems", (slurp("/proc/filesystems"), strstr(text, "proc") != 0));
    CASE("hostname", slurp("/proc/sys/kernel/hostname") > 0);
    CASE("overcommit", slurp("/proc/sys/vm/overcommit_memory") > 0);
    CASE("uuid", slurp("/proc/sys/kernel/random/uuid"));
    CASE("pid_max", (slurp("/proc/sys/kernel/pid_max"), atoi(text) > 1000));
    CASE("net dev", lines("/proc/net/dev") > 1);
    CASE("sys online", (slurp("/sys/devices/system/cpu/online"), text[0]));
    pid_t child = fork();
    if (!child) {
        pause();
        _exit(0);
    }
    snprintf(path, sizeof path, "/proc/%d/status", child);
    usleep(20000);
    TELL("child state", "%s", field(path, "State:"));
    fd = open(path, O_RDONLY);
    kill(child, SIGKILL);
    siginfo_t info;
    waitid(P_PID, child, &info, WEXITED | WNOWAIT);
    TELL("zombie state", "%s", field(path, "State:"));
    snprintf(path, sizeof path, "/proc/%d/maps", child);
    CASE("zombie maps", slurp(path));
    snprintf(path, sizeof path, "/proc/%d/cmdline", child);
    CASE("zombie cmdline", slurp(path));
    snprintf(path, sizeof path, "/proc/%d/exe", child);
    CASE("zombie exe", readlink(path, where, sizeof where));
    waitpid(child, 0, 0);
    CASE("read of a gone task", read(fd, text, 10));
    snprintf(path, sizeof path, "/proc/%d/status", child);
    CASE("open of a gone task", open(path, O_RDONLY));
    pthread_t id;
    pthread_create(&id, 0, thread, 0);
    pthread_join(id, 0);
    n = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; (e = readdir(d));)
        n += !strcmp(e->d_name, "self") || !strcmp(e->d_name, "meminfo") || atoi(e->d_name) == getpid();
    closedir(d);
    TELL("proc lists", "%d", n);
    return 0;
}

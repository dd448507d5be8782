/* execve(2), execveat(2): errors in the kernel's order, scripts, what survives and what does not. */
#include "case.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>

static char *const none[] = {0};
static char self[4096];
static char big[200000];

static int tell_argv(int argc, char **argv)
{
    char text[4096] = "";
    for (int i = 0; i < argc; i++) {
        char *slash = strrchr(argv[i], '/');
        sprintf(text + strlen(text), "[%.60s] ", slash ? slash + 1 : argv[i]);
    }
    TELL("argv", "%d %s", argc, text);
    return 0;
}

/* What the new image finds. */
static int inspect(int argc, char **argv)
{
    char name[32] = "", link[4096] = "";
    prctl(PR_GET_NAME, name);
    TELL("comm", "%s", name);
    int n = readlink("/proc/self/exe", link, sizeof link - 1);
    TELL("exe is me", "%d", n > 0 && !strcmp(link, self));
    sigset_t mask;
    sigprocmask(SIG_BLOCK, 0, &mask);
    TELL("mask kept", "%d %d", sigismember(&mask, SIGUSR1), sigismember(&mask, SIGUSR2));
    struct sigaction a;
    sigaction(SIGUSR1, 0, &a);
    TELL("handler reset", "%d", a.sa_handler == SIG_DFL);
    sigaction(SIGUSR2, 0, &a);
    TELL("ignored kept", "%d", a.sa_handler == SIG_IGN);
    sigset_t pending;
    sigpending(&pending);
    TELL("pending kept", "%d", sigismember(&pending, SIGUSR1));
    stack_t s;
    sigaltstack(0, &s);
    TELL("altstack", "%d", s.ss_flags);
    CASE("cloexec closed", fcntl(100, F_GETFD));
    CASE("other kept", fcntl(101, F_GETFD));
    struct itimerval t;
    getitimer(ITIMER_REAL, &t);
    TELL("itimer kept", "%d", t.it_value.tv_sec > 0);
    TELL("umask", "%o", umask(0));
    struct rlimit r;
    getrlimit(RLIMIT_NOFILE, &r);
    TELL("rlimit", "%d", (int)r.rlim_cur);
    TELL("env", "%s", getenv("ONE") ? getenv("ONE") : "none");
    TELL("pdeathsig cleared by no setuid", "%d", prctl(PR_GET_DUMPABLE));
    TELL("auxv", "%lu %lu %d %d %d %d %s", getauxval(AT_PAGESZ), getauxval(AT_CLKTCK), getauxval(AT_PHNUM) > 0,
         getauxval(AT_RANDOM) != 0, getauxval(AT_SECURE) == 0, getauxval(AT_ENTRY) != 0,
         strrchr((char *)getauxval(AT_EXECFN), '/'));
    TELL("stack aligned", "%d", (int)(((uintptr_t)argv - 8) % 16));
    return 0;
}

static void run(const char *name, const char *path, char *const argv[], char *const envp[])
{
    IN_CHILD(name, { CASE(case_format("%s fails", name), execve(path, argv, envp)); });
}
static void script(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    write(fd, text, strlen(text));
    close(fd);
}
static void patched(const char *path, long at, const void *bytes, int n, long cut)
{
    static char data[4 << 20];
    int fd = open(self, O_RDONLY), size = read(fd, data, sizeof data);
    close(fd);
    memcpy(data + at, bytes, n);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0755);
    write(fd, data, cut ? cut : size);
    close(fd);
}

int main(int argc, char **argv)
{
    int n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = 0;
    if (getenv("ARGV"))
        return tell_argv(argc, argv);
    if (argc > 1 && !strcmp(argv[1], "inspect"))
        return inspect(argc, argv);
    no_cores();
    char *env[] = {"ARGV=1", 0}, *const two[] = {"zero", "one", 0};

    CASE("null path", execve(0, two, env));
    CASE("empty path", execve("", two, env));
    CASE("missing", execve("nowhere", two, env));
    CASE("directory", execve("/tmp", two, env));
    CASE("device", execve("/dev/null", two, env));
    CASE("below a file", execve("/etc/passwd/x", two, env));
    CASE("not executable", execve("/etc/passwd", two, env));
    memset(big, 'a', sizeof big - 1);
    CASE("long name", execve(big, two, env));
    big[300] = 0;
    CASE("long component", execve(big, two, env));
    big[300] = 'a';
    symlink("loop", "loop");
    CASE("loop", execve("loop", two, env));
    CASE("bad argv", execve(self, (char **)8, env));
    CASE("bad envp", execve(self, two, (char **)8));
    char *bad[] = {"x", (char *)8, 0};
    CASE("bad argument", execve(self, bad, env));
    CASE("missing before bad argv", execve("nowhere", (char **)8, env));
    char *huge[] = {"x", big, 0};
    CASE("argument too long", execve(self, huge, env));
    static char *many[400000];
    for (int i = 0; i < 399999; i++)
        many[i] = "0123456789012345";
    CASE("too many arguments", execve(self, many, env));

    script("empty", "");
    CASE("empty file", execve("./empty", two, env));
    script("text", "hello\n");
    CASE("text", execve("./text", two, env));
    script("blank", "#!   \n");
    CASE("blank interpreter", execve("./blank", two, env));
    script("lost", "#!/no/where\n");
    CASE("lost interpreter", execve("./lost", two, env));
    script("directory", "#!/tmp\n");
    CASE("interpreter is a directory", execve("./directory", two, env));
    int fd = open("text", O_WRONLY);
    CASE("being written", execve("./text", two, env));
    close(fd);

    unsigned char wrong[8] = {0};
    patched("e_ident", 0, "\x7f" "ELG", 4, 0);
    CASE("no magic", execve("./e_ident", two, env));
    wrong[0] = 1;
    patched("rel", 16, wrong, 2, 0);
    CASE("relocatable", execve("./rel", two, env));
    wrong[0] = 22;
    patched("foreign", 18, wrong, 2, 0);
    CASE("foreign", execve("./foreign", two, env));
    wrong[0] = 0;
    patched("nophdr", 56, wrong, 2, 0);
    CASE("no program headers", execve("./nophdr", two, env));
    wrong[0] = 40;
    patched("phentsize", 54, wrong, 2, 0);
    CASE("odd program headers", execve("./phentsize", two, env));
    patched("short", 0, "\x7f" "ELF", 4, 100);
    CASE("cut in the program headers", execve("./short", two, env));
    patched("head", 0, "\x7f" "ELF", 4, 20);
    CASE("cut in the header", execve("./head", two, env));

    run("plain", self, two, env);
    run("no argv", self, none, env);
    run("null argv", self, 0, env);
    char line[5000];
    sprintf(line, "#!%s\n", self);
    script("s0", line);
    run("script", "./s0", two, env);
    sprintf(line, "#! \t%s  an argument \t \n", self);
    script("s1", line);
    run("script with argument", "./s1", two, env);
    sprintf(line, "#!%s", self);
    script("s2", line);
    run("script without newline", "./s2", two, env);
    script("n1", "#!./s0\n");
    script("n2", "#!./n1\n");
    script("n3", "#!./n2\n");
    script("n4", "#!./n3\n");
    script("n5", "#!./n4\n");
    run("nested 2", "./n1", two, env);
    run("nested 5", "./n4", two, env);
    run("nested 6", "./n5", two, env);
    memset(line, ' ', 400);
    memcpy(line, "#!", 2);
    sprintf(line + 200, "%s\n", "/bin/true");
    script("far", line);
    run("interpreter at the end of the buffer", "./far", two, env);
    memset(line, 'x', 400);
    memcpy(line, "#!", 2);
    sprintf(line + 400, "\n");
    script("longer", line);
    run("interpreter too long", "./longer", two, env);

#define AT(name, ...) IN_CHILD(name, { CASE(case_format("%s fails", name), syscall(SYS_execveat, __VA_ARGS__)); })
    fd = open(self, O_RDONLY | O_CLOEXEC);
    int dir = open(".", O_RDONLY | O_DIRECTORY), path = open(self, O_PATH), s0 = open("s0", O_RDONLY | O_CLOEXEC);
    AT("execveat fd", fd, "", two, env, AT_EMPTY_PATH);
    AT("execveat path fd", path, "", two, env, AT_EMPTY_PATH);
    AT("execveat empty", fd, "", two, env, 0);
    AT("execveat relative", dir, "s0", two, env, 0);
    AT("execveat cwd", AT_FDCWD, "s0", two, env, 0);
    AT("execveat bad fd", 77, "s0", two, env, 0);
    AT("execveat bad flags", AT_FDCWD, "s0", two, env, 0x10);
    AT("execveat script cloexec", s0, "", two, env, AT_EMPTY_PATH);
    AT("execveat directory", dir, "", two, env, AT_EMPTY_PATH);
    symlink("s0", "link");
    AT("execveat nofollow", AT_FDCWD, "link", two, env, AT_SYMLINK_NOFOLLOW);

    IN_CHILD("inspect", {
        struct itimerval t = {{0, 0}, {100, 0}};
        setitimer(ITIMER_REAL, &t, 0);
        signal(SIGUSR1, (void (*)(int))tell_argv);
        signal(SIGUSR2, SIG_IGN);
        sigset_t mask;
        sigemptyset(&mask);
        sigaddset(&mask, SIGUSR1);
        sigprocmask(SIG_BLOCK, &mask, 0);
        raise(SIGUSR1);
        stack_t s = {malloc(65536), 0, 65536};
        sigaltstack(&s, 0);
        dup3(dir, 100, O_CLOEXEC);
        dup3(dir, 101, 0);
        umask(027);
        struct rlimit r = {333, 444};
        setrlimit(RLIMIT_NOFILE, &r);
        char *const args[] = {"zero", "inspect", 0}, *const e[] = {"ONE=1", 0};
        execve(self, args, e);
    });
    return 0;
}

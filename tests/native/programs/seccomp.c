/* seccomp(2): strict mode, filters and what they answer, their checks, who inherits them. */
#include "case.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/user.h>

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define ANSWER(value) BPF_STMT(BPF_RET | BPF_K, value)
#define IF(value, yes, no) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, yes, no)

static long install(struct sock_filter *code, int n, int flags)
{
    struct sock_fprog p = {n, code};
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &p);
}

/* Answers `action` for call `nr`. */
static long on(long nr, unsigned action)
{
    struct sock_filter code[] = {LOAD(nr), IF(nr, 0, 1), ANSWER(action), ANSWER(SECCOMP_RET_ALLOW)};
    return install(code, 4, 0);
}

static void trapped(int number, siginfo_t *info, void *context)
{
    TELL("trap", "signal %d code %d errno %d call %d arch %x", number, info->si_code, info->si_errno, info->si_syscall,
         info->si_arch);
}

static const char *status_line(const char *key)
{
    static char text[8192];
    int fd = open("/proc/self/status", O_RDONLY), n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n] = 0;
    char *found = strstr(text, key);
    return found ? strtok(found, "\n") : "no";
}

static void program(const char *name, struct sock_filter *code, int n)
{
    pid_t c = fork();
    if (!c) {
        long r = install(code, n, 0);
        int e = errno;
        if (!r) {
            errno = 0;
            r = syscall(SYS_getppid) > 0 ? 1 : -1;
            TELL(name, "installed, getppid %s", r == 1 ? "made" : case_errno(errno));
        } else
            TELL(name, "%s", case_errno(e));
        _exit(0);
    }
    int s;
    waitpid(c, &s, 0);
    if (!WIFEXITED(s))
        TELL(case_format("%s ends", name), "%s", case_status(s));
}
#define PROGRAM(name, ...) \
    do { \
        struct sock_filter code[] = {__VA_ARGS__}; \
        program(name, code, ARRAY_LENGTH(code)); \
    } while (0)

static int tsync_ready;
static void *other(void *release)
{
    while (!__atomic_load_n((int *)release, __ATOMIC_SEQ_CST))
        usleep(1000);
    errno = 0;
    return (void *)(syscall(SYS_getppid) < 0 ? (long)errno : 0l);
}

static void *kills_itself(void *arg)
{
    syscall(SYS_getppid);
    return (void *)1;
}

static void traced(int cont_nr, const char *name)
{
    int s, step = 0;
    pid_t c = fork();
    if (!c) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        on(SYS_getppid, SECCOMP_RET_TRACE | 77);
        long r = syscall(SYS_getppid);
        _exit(r == -1 ? 100 + (errno == ENOSYS) : r == 1234 ? 3 : 4);
    }
    waitpid(c, &s, 0);
    ptrace(PTRACE_SETOPTIONS, c, 0, cont_nr == -2 ? 0 : PTRACE_O_TRACESECCOMP);
    ptrace(PTRACE_CONT, c, 0, 0);
    while (waitpid(c, &s, 0) == c && WIFSTOPPED(s) && step++ < 5) {
        unsigned long message = 0;
        struct user_regs_struct r;
        ptrace(PTRACE_GETEVENTMSG, c, 0, &message);
        ptrace(PTRACE_GETREGS, c, 0, &r);
        TELL(case_format("%s stops", name), "%s message %lu call %lld", case_status(s), message, r.orig_rax);
        if (cont_nr == -1) {
            r.orig_rax = -1;
            r.rax = 1234;
            ptrace(PTRACE_SETREGS, c, 0, &r);
        }
        ptrace(PTRACE_CONT, c, 0, 0);
    }
    TELL(name, "%s", case_status(s));
}

int main(int argc, char **argv)
{
    no_cores();
    if (argc > 1) {
        CASE("after exec", syscall(SYS_getppid) > 0 ? 0 : -1);
        TELL("mode after exec", "%s", status_line("Seccomp:"));
        return 0;
    }
    CASE("mode", prctl(PR_GET_SECCOMP));
    TELL("status", "%s", status_line("Seccomp:"));
    CASE("bad mode", prctl(PR_SET_SECCOMP, 7, 0));
    CASE("bad operation", syscall(SYS_seccomp, 9, 0, 0));
    CASE("strict with flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_STRICT, 1, 0));
    CASE("filter nowhere", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, 8));
    CASE("filter flags", syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 1 << 20, 0));
    unsigned actions[] = {SECCOMP_RET_KILL_PROCESS, SECCOMP_RET_KILL_THREAD, SECCOMP_RET_TRAP, SECCOMP_RET_ERRNO,
                          SECCOMP_RET_TRACE, SECCOMP_RET_LOG, SECCOMP_RET_ALLOW, 0x12340000};
    for (int i = 0; i < ARRAY_LENGTH(actions); i++)
        CASEF(syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &actions[i]), "action %x", actions[i]);
    IN_CHILD("no right", setuid(1000); CASE("EACCES", on(SYS_getppid, SECCOMP_RET_ALLOW)));
    IN_CHILD("no_new_privs", setuid(1000); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
             CASE("then it may", on(SYS_getppid, SECCOMP_RET_ERRNO | EUCLEAN)); CASE("and is told", syscall(SYS_getppid));
             CASE("its mode", prctl(PR_GET_SECCOMP)); TELL("its filters", "%s", status_line("Seccomp_filters:")));

    IN_CHILD("strict", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); write(1, "strict writes: 1\n", 17); syscall(SYS_exit, 5));
    IN_CHILD("strict opens", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); open("/", 0));
    IN_CHILD("strict exit_group", prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT); _exit(0));

    IN_CHILD("kill process", on(SYS_getppid, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getppid));
    IN_CHILD("kill thread", on(SYS_getppid, SECCOMP_RET_KILL_THREAD); syscall(SYS_getppid));
    IN_CHILD("kill ignores handlers", struct sigaction a = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
             sigaction(SIGSYS, &a, 0); on(SYS_getppid, SECCOMP_RET_KILL_PROCESS); syscall(SYS_getppid));
    IN_CHILD("trap untended", on(SYS_getppid, SECCOMP_RET_TRAP); syscall(SYS_getppid));
    IN_CHILD("trap", struct sigaction a = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO}; sigaction(SIGSYS, &a, 0);
             on(SYS_getppid, SECCOMP_RET_TRAP | 33); CASE("result is the number", syscall(SYS_getppid) == SYS_getppid));
    IN_CHILD("errno", on(SYS_getppid, SECCOMP_RET_ERRNO | ENOTTY); CASE("ENOTTY", syscall(SYS_getppid)));
    IN_CHILD("errno 0", on(SYS_getppid, SECCOMP_RET_ERRNO); CASE("0", syscall(SYS_getppid)));
    IN_CHILD("errno big", on(SYS_getppid, SECCOMP_RET_ERRNO | 0xffff); CASE("capped", syscall(SYS_getppid) == -1 && errno == 4095));
    IN_CHILD("trace", on(SYS_getppid, SECCOMP_RET_TRACE); CASE("nobody traces", syscall(SYS_getppid)));
    IN_CHILD("log", on(SYS_getppid, SECCOMP_RET_LOG); CASE("made", syscall(SYS_getppid) > 0));
    IN_CHILD("unknown action", on(SYS_getppid, 0x12340000); syscall(SYS_getppid));
    IN_CHILD("strictest first", on(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY); on(SYS_getppid, SECCOMP_RET_ALLOW);
             CASE("older says no", syscall(SYS_getppid)); on(SYS_getppid, SECCOMP_RET_ERRNO | EXDEV);
             CASE("newest errno", syscall(SYS_getppid)));
    IN_CHILD("on exec", on(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY); execl("/proc/self/exe", "seccomp", "x", (char *)0));
    IN_CHILD("on fork", on(SYS_getppid, SECCOMP_RET_ERRNO | EBUSY);
             IN_CHILD("its child", CASE("inherits", syscall(SYS_getppid))));
    IN_CHILD("strict behind filter", on(SYS_getppid, SECCOMP_RET_ALLOW); CASE("strict now", prctl(PR_SET_SECCOMP, 1)));
    IN_CHILD("blocking call", on(SYS_getppid, SECCOMP_RET_ALLOW); alarm(1); signal(SIGALRM, SIG_DFL); pause());
    IN_CHILD("thread dies alone", on(SYS_getppid, SECCOMP_RET_KILL_THREAD); pthread_t t;
             pthread_create(&t, 0, kills_itself, 0); usleep(200000); CASE("main lives", 0));
    pid_t c = fork();
    if (!c) {
        pthread_t t;
        void *got;
        pthread_create(&t, 0, other, &tsync_ready);
        struct sock_filter code[] = {LOAD(nr), IF(SYS_getppid, 0, 1), ANSWER(SECCOMP_RET_ERRNO | EBUSY),
                                     ANSWER(SECCOMP_RET_ALLOW)};
        CASE("tsync", install(code, 4, SECCOMP_FILTER_FLAG_TSYNC));
        tsync_ready = 1;
        pthread_join(t, &got);
        TELL("other thread", "%s", case_errno((long)got));
        _exit(0);
    }
    waitpid(c, 0, 0);
    traced(0, "traced");
    traced(-1, "traced and cancelled");
    traced(-2, "traced without the option");

    struct sock_filter ok = ANSWER(SECCOMP_RET_ALLOW), no = ANSWER(SECCOMP_RET_ERRNO | EBADE);
    PROGRAM("allow", ok);
    PROGRAM("refuse", LOAD(nr), IF(SYS_getppid, 1, 0), ok, no);
    PROGRAM("no return", LOAD(nr));
    PROGRAM("unaligned", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 2), ok);
    PROGRAM("outside", BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 64), ok);
    PROGRAM("half word", BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), ok);
    PROGRAM("indirect", BPF_STMT(BPF_LD | BPF_W | BPF_IND, 0), ok);
    PROGRAM("far jump", IF(0, 5, 0), ok);
    PROGRAM("far always", BPF_STMT(BPF_JMP | BPF_JA, 1), ok);
    PROGRAM("division by 0", BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 0), ok);
    PROGRAM("division by X", BPF_STMT(BPF_LDX | BPF_IMM, 0), BPF_STMT(BPF_ALU | BPF_DIV | BPF_X, 0), ok);
    PROGRAM("modulo", BPF_STMT(BPF_ALU | BPF_MOD | BPF_K, 3), ok);
    PROGRAM("wide shift", BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 32), ok);
    PROGRAM("no such memory", BPF_STMT(BPF_ST, 16), ok);
    PROGRAM("unset memory", BPF_STMT(BPF_LD | BPF_MEM, 3), ok);
    PROGRAM("nonsense", BPF_STMT(0xff, 0), ok);
    PROGRAM("negate", BPF_STMT(BPF_LD | BPF_IMM, 1), BPF_STMT(BPF_ALU | BPF_NEG, 0), IF(0xffffffff, 0, 1), no, ok);
    PROGRAM("memory", BPF_STMT(BPF_LD | BPF_IMM, 7), BPF_STMT(BPF_ST, 3), BPF_STMT(BPF_LD | BPF_IMM, 0),
            BPF_STMT(BPF_LD | BPF_MEM, 3), IF(7, 0, 1), no, ok);
    PROGRAM("index", BPF_STMT(BPF_LD | BPF_IMM, 9), BPF_STMT(BPF_MISC | BPF_TAX, 0), BPF_STMT(BPF_LD | BPF_IMM, 9),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_X, 0, 0, 1), no, ok);
    PROGRAM("arithmetic", BPF_STMT(BPF_LD | BPF_IMM, 100), BPF_STMT(BPF_ALU | BPF_MUL | BPF_K, 7),
            BPF_STMT(BPF_ALU | BPF_SUB | BPF_K, 1), BPF_STMT(BPF_ALU | BPF_DIV | BPF_K, 3),
            BPF_STMT(BPF_ALU | BPF_XOR | BPF_K, 0xff), BPF_STMT(BPF_ALU | BPF_LSH | BPF_K, 4),
            BPF_STMT(BPF_ALU | BPF_RSH | BPF_K, 1), BPF_STMT(BPF_ALU | BPF_OR | BPF_K, 1),
            BPF_STMT(BPF_ALU | BPF_AND | BPF_K, 0xffff), IF((((699 / 3) ^ 0xff) << 4 >> 1 | 1) & 0xffff, 0, 1), no, ok);
    PROGRAM("length", BPF_STMT(BPF_LD | BPF_W | BPF_LEN, 0), IF(sizeof(struct seccomp_data), 0, 1), no, ok);
    PROGRAM("greater", LOAD(nr), BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, SYS_getppid - 1, 0, 2),
            BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, SYS_getppid + 1, 1, 0), no, ok);
    PROGRAM("bits", LOAD(arch), BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, 0x80000000, 0, 1), LOAD(nr), IF(SYS_getppid, 0, 1),
            no, ok);
    return 0;
}

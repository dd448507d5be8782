/* The vocabulary of the differential programs: every line printed is one case.
 *
 *   CASE("bind twice", bind(fd, a, n));      bind twice: -1 EADDRINUSE        (errno by name, never by number)
 *   CASEF(call, "close %d", fd);             the same, the name is formatted
 *   TELL("after", "%d %s", n, text);         after: 3 abc                     (selected data)
 *   BYTES("buffer", p, n);                   buffer: 61 62 00
 *
 * A line is one write(2), so lines of forked children never mix or repeat.  Print nothing that differs between two
 * runs on one kernel: no pids, addresses, times or inode numbers.  Names are unique within a program and hold no ": ".
 * A program starts in an empty directory of its own, standard input is /dev/null, output is a pipe.
 */
#ifndef CASE_H
#define CASE_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define ARRAY_LENGTH(a) ((int)(sizeof(a) / sizeof((a)[0])))

static void case_line(const char *name, const char *text)
{
    char line[8192];
    int n = snprintf(line, sizeof line, "%s: %s\n", name, text);
    if (n > (int)sizeof line)
        n = sizeof line;
    if (write(1, line, n) != n)
        _exit(99);
}

static inline const char *case_errno(int number)
{
    const char *name = strerrorname_np(number);
    return name ? name : "unknown errno";
}

static void case_result(const char *name, long result, int error)
{
    char text[64];
    if (result == -1 && error)
        snprintf(text, sizeof text, "-1 %s", case_errno(error));
    else
        snprintf(text, sizeof text, "%ld", result);
    case_line(name, text);
    errno = error;
}

static const char *case_format(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *case_format(const char *format, ...)
{
    static __thread char text[4][2048];
    static __thread int turn;
    char *slot = text[turn++ % 4];
    va_list list;
    va_start(list, format);
    vsnprintf(slot, sizeof text[0], format, list);
    va_end(list);
    return slot;
}

static inline void case_bytes(const char *name, const void *data, size_t n)
{
    char text[4096];
    size_t used = 0;
    text[0] = 0;
    for (size_t i = 0; i < n && used < sizeof text - 4; i++)
        used += snprintf(text + used, sizeof text - used, i ? " %02x" : "%02x", ((const unsigned char *)data)[i]);
    case_line(name, text);
}

#define CASE(name, ...) \
    do { \
        errno = 0; \
        long case_r = (long)(__VA_ARGS__); \
        case_result(name, case_r, errno); \
    } while (0)
#define CASEF(expression, ...) \
    do { \
        errno = 0; \
        long case_r = (long)(expression); \
        int case_e = errno; \
        case_result(case_format(__VA_ARGS__), case_r, case_e); \
    } while (0)
#define TELL(name, ...) case_line(name, case_format(__VA_ARGS__))
#define BYTES(name, data, n) case_bytes(name, data, n)

/* "exit 3", "signal SIGSEGV core", "stop SIGTSTP", "continued" */
static inline const char *case_status(int status)
{
    if (WIFEXITED(status))
        return case_format("exit %d", WEXITSTATUS(status));
    if (WIFSIGNALED(status))
        return case_format("signal %d%s", WTERMSIG(status), WCOREDUMP(status) ? " core" : "");
    if (WIFSTOPPED(status))
        return case_format("stop %d event %d", WSTOPSIG(status), status >> 16);
    return WIFCONTINUED(status) ? "continued" : case_format("%#x", status);
}

/* Runs the body in a child; prints how it ended. */
#define IN_CHILD(name, ...) \
    do { \
        pid_t case_pid = fork(); \
        if (case_pid == 0) { \
            __VA_ARGS__; \
            _exit(0); \
        } \
        int case_s = -1; \
        while (waitpid(case_pid, &case_s, 0) < 0 && errno == EINTR) \
            ; \
        TELL(name, "%s", case_status(case_s)); \
    } while (0)

/* No cores: the status then says "core" on no machine, whatever its limits and core_pattern. */
#include <sys/resource.h>
static inline void no_cores(void)
{
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
}

/* Two pages, the second one without access: p + 4096 - n has exactly n usable bytes. */
static inline char *page_end(int prot)
{
    char *p = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memset(p, 'x', 8192);
    mprotect(p, 4096, prot);
    mprotect(p + 4096, 4096, PROT_NONE);
    return p + 4096;
}

/* Whoever started us may ignore some signals (nohup, a background job): the cases are about a fresh process. */
__attribute__((constructor)) static void case_signals(void)
{
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
}

static inline int file_with(const char *path, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (fd >= 0 && text && write(fd, text, strlen(text)) < 0)
        _exit(98);
    return fd;
}
#endif

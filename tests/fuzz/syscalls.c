/* Throws random system calls with random and hostile arguments: each round in a child of its own, so that whatever
 * happens to it (a signal, exit, a closed descriptor) the next round goes on.  `syscalls SEED SECONDS`. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static uint64_t s;
static uint64_t next(void)
{
    s ^= s << 13;
    s ^= s >> 7;
    s ^= s << 17;
    return s;
}
static char *page, *readonly, *none;
static long argument(void)
{
    static const long odd[] = {0, 1, 2, 3, 4, 5, 8, 16, 64, 100, 255, 4096, 65536, -1, -2, -100, 0x7fffffff, 0x80000000,
                               0xffffffff, 0x7fffffffffffffff, 0x8000000000000000, 0x7ffffffff000, 0xffff800000000000};
    switch (next() % 8) {
    case 0: case 1: return odd[next() % (sizeof odd / sizeof *odd)];
    case 2: return next() % 12;
    case 3: case 4: return (long)page + next() % 4096;
    case 5: return (long)page + 4096 - next() % 16;
    case 6: return (long)(next() % 2 ? readonly : none) + next() % 64;
    default: return next() >> next() % 64;
    }
}
int main(int argc, char **argv)
{
    unsigned seed = argc > 1 ? atoi(argv[1]) : 1, seconds = argc > 2 ? atoi(argv[2]) : 5;
    struct timespec start, now;
    long rounds = 0, ended[3] = {0};
    clock_gettime(CLOCK_MONOTONIC, &start);
    page = mmap(0, 8192, 3, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    mprotect(page + 4096, 4096, 0);
    readonly = mmap(0, 4096, 1, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    int *children = mmap(0, 4096, 3, MAP_SHARED | MAP_ANONYMOUS, -1, 0); /* of a round: RLIMIT_NPROC does not bind root */
    none = mmap(0, 4096, 0, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (;;) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec >= seconds)
            break;
        rounds++;
        *children = 0;
        pid_t c = fork();
        if (c < 0)
            continue;
        if (!c) {
            s = seed * 1000003ull + rounds * 7919 + 88172645463325252ull;
            struct rlimit cpu = {1, 2}, files = {64, 64}, size = {1 << 20, 1 << 20};
            setrlimit(RLIMIT_CPU, &cpu);
            setrlimit(RLIMIT_NOFILE, &files);
            setrlimit(RLIMIT_FSIZE, &size);
            setpgid(0, 0);
            alarm(2);
            for (int i = 0; i < 60; i++) {
                for (int k = 0; k < 4096; k += 8)
                    if (next() % 4 == 0)
                        *(long *)(page + k) = argument();
                if (next() % 4 == 0)
                    strcpy(page + next() % 2000, next() % 2 ? "/tmp/x" : "../../etc/passwd");
                long number = next() % 450;
                /* what would only end the round, or reach others */
                if (number == SYS_exit || number == SYS_exit_group || number == SYS_kill || number == SYS_tkill || number == SYS_pause ||
                    number == SYS_tgkill || number == SYS_rt_sigsuspend || number == SYS_rt_sigreturn || number == SYS_reboot ||
                    number == SYS_setrlimit || number == SYS_prlimit64 || number == SYS_alarm || number == SYS_setpgid ||
                    number == SYS_setsid || number == SYS_munmap || number == SYS_rt_sigqueueinfo || number == SYS_rt_tgsigqueueinfo ||
                    number == SYS_pidfd_send_signal || number == SYS_setitimer || number == SYS_rt_sigprocmask || number == SYS_ptrace)
                    continue;
                if ((number == SYS_fork || number == SYS_vfork || number == SYS_clone || number == SYS_clone3) &&
                    __atomic_add_fetch(children, 1, __ATOMIC_RELAXED) > 40)
                    continue;
                syscall(number, argument(), argument(), argument(), argument(), argument(), argument());
            }
            _exit(0);
        }
        int status;
        struct timespec nap = {0, 2000000};
        int turns = 0;
        while (waitpid(c, &status, WNOHANG) == 0) {
            nanosleep(&nap, 0);
            if (++turns > 2000) {
                kill(-c, SIGKILL);
                kill(c, SIGKILL);
            }
        }
        kill(-c, SIGKILL);
        ended[WIFEXITED(status) ? 0 : WIFSIGNALED(status) ? 1 : 2]++;
    }
    printf("%ld rounds: %ld ended, %ld by a signal, %ld otherwise\n", rounds, ended[0], ended[1], ended[2]);
    return 0;
}

/* The guest of scripts/bench: `guest KERNEL N` runs a kernel N times and prints a checksum. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <linux/futex.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A thousand places nobody ever comes to. */
__attribute__((noinline, used)) void never(void)
{
    __asm__ volatile(".rept 2000\n nop\n .endr");
}
static uint64_t x = 88172645463325252u;
volatile long counter, unused_page[1024] __attribute__((aligned(4096)));

static uint64_t integers(long n)
{
    for (long i = 0; i < n; i++) {
        for (int k = 0; k < 1000; k++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            if (x & 1)
                x += k;
        }
    }
    return x;
}
static uint64_t memory(long n)
{
    static uint32_t a[16384], b[16384];
    uint64_t sum = 0;
    for (long i = 0; i < n; i++) {
        for (int k = 0; k < 16384; k += 4) {
            a[k] += b[16383 - k] + (uint32_t)i;
            b[k] = a[16383 - k] ^ k;
            sum += a[k];
        }
    }
    return sum;
}
static uint64_t floats(long n)
{
    double a = 1.0, b = 0.5, c = 1.25;
    for (long i = 0; i < n * 1000; i++) {
        a = a * 0.999999 + b * c;
        b = b + 1.0 / (a + 1.0);
        c = c * 0.5 + a * 1e-6;
    }
    return (uint64_t)(a * 1000 + b + c);
}
static uint64_t random_access(long n)
{
    const size_t words = 64u << 20 >> 3;
    uint64_t *p = mmap(0, words * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), sum = 0;
    for (size_t i = 0; i < words; i += 512)
        p[i] = i;
    for (long i = 0; i < n * 1000; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        sum += p[x >> 41]++;
    }
    return sum;
}
static uint64_t getpids(long n)
{
    long sum = 0;
    while (n--)
        sum += syscall(SYS_getppid) > 0;
    return sum;
}
__attribute__((noinline)) long hit(long i)
{
    counter += i;
    return counter;
}
static uint64_t hits(long n)
{
    for (long i = 0; i < n; i++)
        hit(i);
    return counter;
}
static int there[2], back[2];
static void *echo(void *arg)
{
    char c;
    for (long n = (long)arg; n--;)
        if (read(there[0], &c, 1) != 1 || write(back[1], &c, 1) != 1)
            abort();
    return 0;
}
static uint64_t pipes(long n, int processes)
{
    pthread_t t;
    char c = 0;
    if (pipe(there) || pipe(back))
        abort();
    if (!processes)
        pthread_create(&t, 0, echo, (void *)n);
    else if (!fork())
        echo((void *)n), _exit(0);
    for (long i = 0; i < n; i++)
        if (write(there[1], &c, 1) != 1 || read(back[0], &c, 1) != 1)
            abort();
    processes ? (void)wait(0) : (void)pthread_join(t, 0);
    return n;
}
static int word;
static void *partner(void *arg)
{
    for (long n = (long)arg; n--;) {
        while (__atomic_load_n(&word, __ATOMIC_ACQUIRE) != 1)
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, 0, 0, 0);
        __atomic_store_n(&word, 0, __ATOMIC_RELEASE);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
    }
    return 0;
}
static uint64_t futexes(long n)
{
    pthread_t t;
    pthread_create(&t, 0, partner, (void *)n);
    for (long i = 0; i < n; i++) {
        __atomic_store_n(&word, 1, __ATOMIC_RELEASE);
        syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, 1, 0, 0, 0);
        while (__atomic_load_n(&word, __ATOMIC_ACQUIRE) != 0)
            syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 1, 0, 0, 0);
    }
    pthread_join(t, 0);
    return n;
}
static uint64_t tcp(long port)
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1, client;
    char message[4096];
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(listener, (struct sockaddr *)&name, sizeof name) || listen(listener, 1) || (client = accept(listener, 0, 0)) < 0)
        abort();
    setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    for (ssize_t got; (got = read(client, message, sizeof message)) > 0;)
        if (write(client, message, got) != got)
            abort();
    return 0;
}
static uint64_t forks(long n)
{
    for (long i = 0; i < n; i++) {
        pid_t c = fork();
        if (!c)
            _exit(0);
        waitpid(c, 0, 0);
    }
    return n;
}
static void *idle(void *p)
{
    return p;
}
static uint64_t threads(long n)
{
    for (long i = 0; i < n; i++) {
        pthread_t t;
        pthread_create(&t, 0, idle, 0);
        pthread_join(t, 0);
    }
    return n;
}
static uint64_t big_fork(long n)
{
    char *p = mmap(0, 1u << 30, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t i = 0; i < 1u << 30; i += 4096)
        p[i] = 1;
    /* What is wanted is the fork alone: the guest takes the time. */
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    forks(n);
    clock_gettime(CLOCK_MONOTONIC, &b);
    return ((b.tv_sec - a.tv_sec) * 1000000000 + b.tv_nsec - a.tv_nsec) / n;
}
int main(int argc, char **argv)
{
    long n = argc > 2 ? atol(argv[2]) : 1;
    const char *k = argc > 1 ? argv[1] : "";
    uint64_t r = 0;
    if (!strcmp(k, "int")) r = integers(n);
    else if (!strcmp(k, "mem")) r = memory(n);
    else if (!strcmp(k, "fp")) r = floats(n);
    else if (!strcmp(k, "random")) r = random_access(n);
    else if (!strcmp(k, "syscall")) r = getpids(n);
    else if (!strcmp(k, "hits")) r = hits(n);
    else if (!strcmp(k, "pipe_threads")) r = pipes(n, 0);
    else if (!strcmp(k, "pipe_processes")) r = pipes(n, 1);
    else if (!strcmp(k, "futex")) r = futexes(n);
    else if (!strcmp(k, "tcp")) r = tcp(n);
    else if (!strcmp(k, "fork")) r = forks(n);
    else if (!strcmp(k, "big_fork")) r = big_fork(n);
    else if (!strcmp(k, "threads")) r = threads(n);
    else if (!strcmp(k, "spin")) for (;;) counter++;
    else if (!strcmp(k, "block")) for (;;) pause();
    printf("%llu\n", (unsigned long long)r);
    return 0;
}

/* Restartable sequences: interrupted by a signal or by preemption they start again. */
#include "case.h"
#include <sys/rseq.h>
#include <pthread.h>
#ifdef __x86_64__
static volatile long hits, aborts;
static void on(int n) { hits++; }
static struct rseq *mine(void)
{
    return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}
/* spins inside the sequence until it is aborted */
static int spin(void)
{
    int aborted = 0;
    asm volatile goto(
        ".pushsection __rseq_cs,\"aw\"\n .balign 32\n 3: .long 0,0\n .quad 1f,2f-1f,4f\n .popsection\n"
        "lea 3b(%%rip),%%rax\n mov %%rax,%[cs]\n"
        "1: jmp 1b\n 2:\n jmp 5f\n"
        ".byte 0x0f,0xb9,0x3d\n .long 0x53053053\n 4: jmp %l[abort]\n 5:\n"
        :
        : [cs] "m"(mine()->rseq_cs)
        : "rax", "memory"
        : abort);
    return 0;
abort:
    aborts++;
    return 1;
}
static void *other(void *arg)
{
    usleep(20000);
    pthread_kill(*(pthread_t *)arg, SIGUSR1);
    return 0;
}
#endif
int main(void)
{
#ifdef __x86_64__
    TELL("registered by libc", "%d", __rseq_size > 0);
    struct sigaction a = {.sa_handler = on};
    sigaction(SIGUSR1, &a, 0);
    pthread_t self = pthread_self(), t;
    pthread_create(&t, 0, other, &self);
    TELL("aborted", "%d", spin());
    pthread_join(t, 0);
    TELL("cleared", "%d", mine()->rseq_cs == 0);
    TELL("counted", "%ld", aborts > 0 ? 1L : 0L);
#endif
    return 0;
}

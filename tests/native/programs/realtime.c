/* sched(7): real-time tasks of one CPU run in the order of their priorities; futexes wake them so. */
#include "case.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>

static volatile int order[64], n;

static void one_cpu(void)
{
    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CPU_SET(0, &cpus);
    CASE("one cpu", sched_setaffinity(0, sizeof cpus, &cpus));
}

static int rank(int policy, int priority)
{
    struct sched_param p = {priority};
    return pthread_setschedparam(pthread_self(), policy, &p);
}

static sem_t gate;
static volatile int waiting;
static void *waits(void *number)
{
    rank(SCHED_FIFO, (int)(long)number);
    __atomic_add_fetch(&waiting, 1, __ATOMIC_SEQ_CST);
    sem_wait(&gate);
    order[n++] = (int)(long)number;
    return 0;
}

static const char *listed(void)
{
    static char text[300];
    text[0] = 0;
    for (int i = 0; i < n; i++)
        sprintf(text + strlen(text), " %d", order[i]);
    return text;
}

static void *joins(void *number)
{
    rank(SCHED_FIFO, (int)(long)number);
    order[n++] = (int)(long)number;
    return 0;
}

static pid_t child_of(int policy, int priority, int reset)
{
    struct sched_param p = {priority};
    pid_t c = fork();
    if (!c) {
        CASEF(sched_setscheduler(0, policy | (reset ? SCHED_RESET_ON_FORK : 0), &p), "policy %d %d %d", policy, priority,
              reset);
        CASEF(sched_getscheduler(0), "is %d %d %d", policy, priority, reset);
        pid_t d = fork();
        if (!d) {
            sched_getparam(0, &p);
            TELL(case_format("child of %d %d %d", policy, priority, reset), "%d %d", sched_getscheduler(0), p.sched_priority);
            _exit(0);
        }
        waitpid(d, 0, 0);
        _exit(0);
    }
    waitpid(c, 0, 0);
    return c;
}

int main(void)
{
    pthread_t t[5];
    int i;
    one_cpu();
    CASE("main", rank(SCHED_FIFO, 50));
    sem_init(&gate, 0, 0);
    int priorities[] = {10, 30, 20, 30, 5};
    for (i = 0; i < 5; i++)
        pthread_create(&t[i], 0, waits, (void *)(long)priorities[i]);
    rank(SCHED_FIFO, 1); /* they run now, to their waits */
    TELL("all wait", "%d", waiting);
    for (i = 0; i < 5; i++)
        sem_post(&gate);
    for (i = 0; i < 5; i++)
        pthread_join(t[i], 0);
    TELL("woken", "%s", listed());

    n = 0;
    rank(SCHED_FIFO, 50);
    for (i = 0; i < 5; i++)
        pthread_create(&t[i], 0, joins, (void *)(long)priorities[i]);
    order[n++] = 50;
    rank(SCHED_FIFO, 1);
    order[n++] = 1;
    for (i = 0; i < 5; i++)
        pthread_join(t[i], 0);
    TELL("lowered itself", "%s", listed());

    /* a higher one preempts at once, a lower one waits */
    n = 0;
    int p[2];
    char c;
    pipe(p);
    int *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    rank(SCHED_FIFO, 20);
    pid_t high = fork();
    if (!high) {
        rank(SCHED_FIFO, 30);
        read(p[0], &c, 1);
        *shared = 1;
        _exit(0);
    }
    struct sched_param thirty = {30};
    sched_setscheduler(high, SCHED_FIFO, &thirty);
    TELL("raised child waits", "%d", *shared);
    write(p[1], "x", 1);
    TELL("woken child ran first", "%d", *shared);
    waitpid(high, 0, 0);
    pid_t low = fork();
    if (!low) {
        *shared = 2;
        _exit(0);
    }
    sched_yield();
    TELL("equal child ran", "%d", *shared);
    waitpid(low, 0, 0);
    rank(SCHED_OTHER, 0);

    child_of(SCHED_FIFO, 3, 0);
    child_of(SCHED_FIFO, 3, 1);
    child_of(SCHED_RR, 7, 1);
    child_of(SCHED_BATCH, 0, 1);
    child_of(SCHED_OTHER, 0, 1);
    if (!(high = fork())) {
        struct sched_param zero = {0};
        CASE("reset flag", sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &zero));
        setuid(1000);
        CASE("lift it", sched_setscheduler(0, SCHED_OTHER, &zero));
        CASE("keep it", sched_setscheduler(0, SCHED_OTHER | SCHED_RESET_ON_FORK, &zero));
        _exit(0);
    }
    waitpid(high, 0, 0);

    /* who never waits does not lock the others out */
    if (!(high = fork())) {
        alarm(20);
        rank(SCHED_FIFO, 40);
        while (*shared != 3)
            ;
        _exit(0);
    }
    *shared = 3;
    int s;
    waitpid(high, &s, 0);
    TELL("spinning for an ordinary one", "%s", case_status(s));
    return 0;
}

/* pthreads(7) and futex(2): creation, hand-over, cancellation, robust and PI mutexes, the raw calls' refusals. */
#include "case.h"
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <time.h>

static int word, other;
static long futex(int *a, int op, int v, void *t, int *b, int v3)
{
    return syscall(SYS_futex, a, op, v, t, b, v3);
}
static struct timespec ms(int n)
{
    return (struct timespec){n / 1000, n % 1000 * 1000000L};
}
static __thread int local = 5;
static void *square(void *p)
{
    local += (long)p;
    return (void *)(long)(local * local);
}
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn;
static void *pingpong(void *p)
{
    for (int i = 0; i < 200; i++) {
        pthread_mutex_lock(&mutex);
        while (turn % 2 != (long)p)
            pthread_cond_wait(&cond, &mutex);
        turn++;
        pthread_cond_broadcast(&cond);
        pthread_mutex_unlock(&mutex);
    }
    return 0;
}
static volatile int spin;
static void *spinner(void *p)
{
    while (!spin)
        ;
    return (void *)7;
}
static void *adder(void *p)
{
    for (int i = 0; i < 10000; i++)
        __atomic_add_fetch((int *)p, 1, __ATOMIC_SEQ_CST);
    return 0;
}
static void *waiter(void *p)
{
    struct timespec t = ms(5000);
    return (void *)futex(&word, FUTEX_WAIT, 0, &t, 0, 0);
}
static void *other_waiter(void *p)
{
    struct timespec t = ms(5000);
    return (void *)futex(&other, FUTEX_WAIT, 0, &t, 0, 0);
}
static void *bit_waiter(void *p)
{
    return (void *)futex(&word, FUTEX_WAIT_BITSET, 0, 0, 0, (int)(long)p);
}
static void cleanup(void *p)
{
    ++*(int *)p;
}
static void *cancelled(void *p)
{
    pthread_cleanup_push(cleanup, p);
    for (;;)
        pause();
    pthread_cleanup_pop(0);
    return 0;
}
static void *locker(void *p)
{
    return (void *)(long)pthread_mutex_lock(p);
}
static void *try_locker(void *p)
{
    return (void *)(long)pthread_mutex_trylock(p);
}
static pthread_key_t key;
static int destroyed;
static void destructor(void *p)
{
    destroyed += (long)p;
}
static void *specific(void *p)
{
    pthread_setspecific(key, p);
    return 0;
}
static void *masked(void *p)
{
    sigset_t s;
    pthread_sigmask(SIG_BLOCK, 0, &s);
    return (void *)(long)sigismember(&s, SIGUSR1);
}
static volatile int handled_by;
static pthread_t main_thread;
static void handler(int n)
{
    handled_by = pthread_equal(pthread_self(), main_thread) ? 1 : 2;
}
static void *sleeper(void *p)
{
    while (!handled_by)
        usleep(1000);
    return 0;
}
static void *exit_all(void *p)
{
    _exit(44);
}
static void *leader_left(void *p)
{
    pthread_t leader = *(pthread_t *)p;
    pthread_join(leader, 0);
    exit(45);
}
static void *exec_other(void *p)
{
    execl("/bin/sh", "sh", "-c", "exit 46", (char *)0);
    return 0;
}
static void *crash(void *p)
{
    *(volatile int *)0 = 1;
    return 0;
}
static const char *joined(pthread_t t)
{
    void *r;
    pthread_join(t, &r);
    return case_format("%ld", (long)r);
}
static void *empty(void *p)
{
    return 0;
}

int main(void)
{
    pthread_t t[64];
    struct timespec ts;
    int i, n = 0;
    void *r;
    no_cores();
    main_thread = pthread_self();
    for (i = 0; i < 4; i++)
        pthread_create(t + i, 0, square, (void *)(long)i);
    for (i = 0; i < 4; i++)
        TELL(case_format("thread %d", i), "%s", joined(t[i]));
    TELL("thread-local of main", "%d", local);
    pthread_create(t, 0, pingpong, (void *)0);
    pthread_create(t + 1, 0, pingpong, (void *)1);
    joined(t[0]), joined(t[1]);
    TELL("ping-pong", "%d", turn);
    pthread_create(t, 0, spinner, 0);
    usleep(1000);
    spin = 1;
    TELL("spinner", "%s", joined(t[0]));
    for (i = 0; i < 8; i++)
        pthread_create(t + i, 0, adder, &n);
    for (i = 0; i < 8; i++)
        joined(t[i]);
    TELL("atomic sum", "%d", n);
    int failed = 0;
    for (i = 0; i < 300; i++) {
        failed += pthread_create(t, 0, empty, 0) != 0;
        pthread_join(t[0], 0);
    }
    TELL("300 created and joined", "%d failed", failed);

    CASE("wait other value", futex(&word, FUTEX_WAIT, 1, 0, 0, 0));
    ts = ms(10);
    CASE("wait timeout", futex(&word, FUTEX_WAIT, 0, &ts, 0, 0));
    ts = (struct timespec){0, 1000000000};
    CASE("wait bad timeout", futex(&word, FUTEX_WAIT, 0, &ts, 0, 0));
    ts = (struct timespec){-1, 0};
    CASE("wait negative timeout", futex(&word, FUTEX_WAIT, 0, &ts, 0, 0));
    CASE("wait unaligned", futex((int *)((char *)&word + 1), FUTEX_WAIT, 0, 0, 0, 0));
    CASE("wait unmapped", futex((int *)0x1000, FUTEX_WAIT, 0, 0, 0, 0));
    CASE("wake nobody", futex(&word, FUTEX_WAKE, 1, 0, 0, 0));
    CASE("wake unmapped private", futex((int *)0x1000, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, 0, 0, 0));
    CASE("bitset 0", futex(&word, FUTEX_WAIT_BITSET, 0, 0, 0, 0));
    CASE("wake bitset 0", futex(&word, FUTEX_WAKE_BITSET, 1, 0, 0, 0));
    ts = (struct timespec){1, 0};
    CASE("absolute timeout past", futex(&word, FUTEX_WAIT_BITSET, 0, &ts, 0, -1));
    CASE("absolute timeout past, real time", futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &ts, 0, -1));
    CASE("unknown operation", futex(&word, 77, 0, 0, 0, 0));
    CASE("realtime of wake", futex(&word, FUTEX_WAKE | FUTEX_CLOCK_REALTIME, 1, 0, 0, 0));
    CASE("cmp_requeue other value", futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)1, &other, 9));
    CASE("requeue nobody", futex(&word, FUTEX_REQUEUE, 1, (void *)1, &other, 0));
    CASE("cmp_requeue negative", futex(&word, FUTEX_CMP_REQUEUE, -1, (void *)1, &other, 0));
    CASE("unlock_pi not owner", futex(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    CASE("lock_pi free", futex(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    TELL("lock_pi owner", "%d", word == syscall(SYS_gettid));
    CASE("lock_pi again", futex(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    CASE("trylock_pi again", futex(&word, FUTEX_TRYLOCK_PI, 0, 0, 0, 0));
    CASE("unlock_pi", futex(&word, FUTEX_UNLOCK_PI, 0, 0, 0, 0));
    TELL("unlocked", "%d", word);
    word = 999999;
    CASE("lock_pi owner is nobody", futex(&word, FUTEX_LOCK_PI, 0, 0, 0, 0));
    word = 0;

    for (i = 0; i < 3; i++)
        pthread_create(t + i, 0, waiter, 0);
    for (n = 0; n < 3;) {
        usleep(20000);
        n += futex(&word, FUTEX_WAKE, 1, 0, 0, 0);
    }
    for (i = 0; i < 3; i++)
        TELL(case_format("waiter %d", i), "%s", joined(t[i]));
    for (i = 0; i < 4; i++)
        pthread_create(t + i, 0, waiter, 0);
    usleep(100000);
    CASE("requeue: woken", futex(&word, FUTEX_CMP_REQUEUE, 1, (void *)2, &other, 0));
    CASE("wake the rest", futex(&word, FUTEX_WAKE, 100, 0, 0, 0));
    CASE("wake the requeued", futex(&other, FUTEX_WAKE, 100, 0, 0, 0));
    for (i = 0; i < 4; i++)
        joined(t[i]);
    pthread_create(t, 0, bit_waiter, (void *)1);
    pthread_create(t + 1, 0, bit_waiter, (void *)2);
    usleep(100000);
    CASE("wake bit 4", futex(&word, FUTEX_WAKE_BITSET, 100, 0, 0, 4));
    CASE("wake bit 2", futex(&word, FUTEX_WAKE_BITSET, 100, 0, 0, 2));
    CASE("wake all bits", futex(&word, FUTEX_WAKE_BITSET, 100, 0, 0, -1));
    joined(t[0]), joined(t[1]);
    pthread_create(t, 0, waiter, 0);
    pthread_create(t + 1, 0, other_waiter, 0);
    usleep(100000);
    other = 0;
    CASE("wake_op", futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 0)));
    TELL("wake_op stored", "%d", other);
    joined(t[0]), joined(t[1]);
    CASE("wake_op cmp false", futex(&word, FUTEX_WAKE_OP, 1, (void *)1, &other, FUTEX_OP(FUTEX_OP_SET, 8, FUTEX_OP_CMP_GT, 100)));
    TELL("set stored", "%d", other);
    other = 0;
    struct { uint64_t val, uaddr; uint32_t flags, reserved; } v[2] = {{0, (long)&word, 2}, {0, (long)&other, 2}};
    clock_gettime(CLOCK_MONOTONIC, &ts);
    CASE("futex_waitv timeout", syscall(449, v, 2, 0, &ts, CLOCK_MONOTONIC));
    CASE("futex_waitv none", syscall(449, v, 0, 0, 0, 0));
    v[1].val = 5;
    CASE("futex_waitv other value", syscall(449, v, 2, 0, 0, CLOCK_MONOTONIC));

    pthread_mutexattr_t a;
    pthread_mutex_t m;
    pthread_mutexattr_init(&a);
    pthread_mutexattr_settype(&a, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&m, &a);
    CASE("errorcheck lock", pthread_mutex_lock(&m));
    CASE("errorcheck again is EDEADLK", pthread_mutex_lock(&m) == EDEADLK);
    pthread_create(t, 0, try_locker, &m);
    TELL("try from another is EBUSY", "%s", joined(t[0]));
    CASE("unlock", pthread_mutex_unlock(&m));
    CASE("unlock again is EPERM", pthread_mutex_unlock(&m) == EPERM);
    clock_gettime(CLOCK_REALTIME, &ts);
    pthread_mutex_t normal = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&normal);
    CASE("timedlock is ETIMEDOUT", pthread_mutex_timedlock(&normal, &ts) == ETIMEDOUT);
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&m, &a);
    pthread_create(t, 0, locker, &m);
    joined(t[0]);
    CASE("robust: owner died", pthread_mutex_lock(&m) == EOWNERDEAD);
    CASE("consistent", pthread_mutex_consistent(&m));
    CASE("robust unlock", pthread_mutex_unlock(&m));
    pthread_mutexattr_init(&a);
    CASE("PI protocol", pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT));
    pthread_mutex_init(&m, &a);
    pthread_mutex_lock(&m);
    pthread_create(t, 0, locker, &m);
    usleep(50000);
    CASE("PI unlock with a waiter", pthread_mutex_unlock(&m));
    TELL("PI waiter got it", "%s", joined(t[0]));
    pthread_mutexattr_init(&a);
    pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_t *sm = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pthread_mutex_init(sm, &a);
    IN_CHILD("shared robust: child dies with it", pthread_mutex_lock(sm));
    CASE("shared robust: owner died", pthread_mutex_lock(sm) == EOWNERDEAD);
    sem_t *sem = (sem_t *)((char *)sm + 1024);
    sem_init(sem, 1, 0);
    IN_CHILD("semaphore post", sem_post(sem));
    CASE("semaphore wait", sem_wait(sem));
    CASE("semaphore try", sem_trywait(sem));
    pthread_barrier_t bar;
    pthread_barrier_init(&bar, 0, 1);
    CASE("barrier of one", pthread_barrier_wait(&bar) == PTHREAD_BARRIER_SERIAL_THREAD);
    pthread_rwlock_t rw = PTHREAD_RWLOCK_INITIALIZER;
    CASE("rwlock read twice", pthread_rwlock_rdlock(&rw) + pthread_rwlock_rdlock(&rw));
    CASE("rwlock write busy", pthread_rwlock_trywrlock(&rw) == EBUSY);

    n = 0;
    pthread_create(t, 0, cancelled, &n);
    usleep(20000);
    CASE("cancel", pthread_cancel(t[0]));
    pthread_join(t[0], &r);
    TELL("cancelled", "%d cleanup %d", r == PTHREAD_CANCELED, n);
    pthread_key_create(&key, destructor);
    pthread_create(t, 0, specific, (void *)9);
    joined(t[0]);
    TELL("key destructor", "%d", destroyed);

    sigset_t s;
    sigemptyset(&s);
    sigaddset(&s, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &s, 0);
    pthread_create(t, 0, masked, 0);
    TELL("mask is inherited", "%s", joined(t[0]));
    signal(SIGUSR2, handler);
    pthread_create(t, 0, sleeper, 0);
    sigaddset(&s, SIGUSR2);
    pthread_kill(t[0], SIGUSR2);
    joined(t[0]);
    TELL("pthread_kill reaches the thread", "%d", handled_by);
    handled_by = 0;
    pthread_create(t, 0, sleeper, 0);
    pthread_sigmask(SIG_BLOCK, &s, 0);
    kill(getpid(), SIGUSR2);
    joined(t[0]);
    TELL("process signal goes to who takes it", "%d", handled_by);

    IN_CHILD("exit_group from a thread", (pthread_create(t, 0, exit_all, 0), pause()));
    IN_CHILD("leader exits first", (main_thread = pthread_self(), pthread_create(t, 0, leader_left, &main_thread), pthread_exit(0)));
    IN_CHILD("exec from a thread", (pthread_create(t, 0, exec_other, 0), pause()));
    IN_CHILD("a thread crashes", (pthread_create(t, 0, crash, 0), pause()));
    IN_CHILD("only the leader survives fork", {
        pthread_create(t, 0, cancelled, &n);
        IN_CHILD("inner", _exit(syscall(SYS_tgkill, getpid(), (int)getpid() + 1, 0) < 0 ? 3 : 4));
        _exit(0);
    });

    cpu_set_t cpus;
    CPU_ZERO(&cpus);
    CASE("getaffinity", sched_getaffinity(0, sizeof cpus, &cpus));
    CASE("getaffinity small", syscall(SYS_sched_getaffinity, 0, 1, &cpus));
    CASE("getaffinity nobody", sched_getaffinity(999999, sizeof cpus, &cpus));
    CPU_ZERO(&cpus);
    CASE("setaffinity none", sched_setaffinity(0, sizeof cpus, &cpus));
    CPU_SET(0, &cpus);
    CASE("setaffinity 0", sched_setaffinity(0, sizeof cpus, &cpus));
    CASE("getcpu", sched_getcpu());
    CASE("yield", sched_yield());
    CASE("getscheduler", sched_getscheduler(0));
    CASE("getscheduler nobody", sched_getscheduler(999999));
    CASE("getscheduler negative", sched_getscheduler(-1));
    struct sched_param sp = {0};
    CASE("getparam", sched_getparam(0, &sp));
    TELL("priority", "%d", sp.sched_priority);
    sp.sched_priority = 5;
    CASE("setscheduler other with priority", sched_setscheduler(0, SCHED_OTHER, &sp));
    CASE("setscheduler unknown", sched_setscheduler(0, 77, &sp));
    CASE("priority max fifo", sched_get_priority_max(SCHED_FIFO));
    CASE("priority min other", sched_get_priority_min(SCHED_OTHER));
    CASE("priority max unknown", sched_get_priority_max(77));
    CASE("rr interval nobody", sched_rr_get_interval(999999, &ts));
    CASE("membarrier query", syscall(SYS_membarrier, 0, 0, 0) > 0);
    CASE("membarrier unregistered", syscall(SYS_membarrier, 8, 0, 0));
    CASE("membarrier register", syscall(SYS_membarrier, 16, 0, 0));
    CASE("membarrier private", syscall(SYS_membarrier, 8, 0, 0));
    CASE("membarrier flags", syscall(SYS_membarrier, 0, 5, 0));
    CASE("membarrier unknown", syscall(SYS_membarrier, 1 << 20, 0, 0));
    CASE("set_robust_list size", syscall(SYS_set_robust_list, 0, 7));
    CASE("get_robust_list nobody", syscall(SYS_get_robust_list, 999999, &r, &r));
    CASE("set_tid_address", syscall(SYS_set_tid_address, 0) == getpid());
    CASE("rseq twice", syscall(SYS_rseq, &ts, 32, 0, 0));
    int cut = open("cut", O_RDWR | O_CREAT | O_TRUNC, 0600);
    ftruncate(cut, 8192);
    uint32_t *mapped = mmap(0, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, cut, 0);
    CASE("wake in a file", syscall(SYS_futex, mapped + 1024, FUTEX_WAKE, 1, 0, 0, 0));
    ftruncate(cut, 4096);
    CASE("wake behind its end", syscall(SYS_futex, mapped + 1024, FUTEX_WAKE, 1, 0, 0, 0));
    CASE("wait behind its end", syscall(SYS_futex, mapped + 1024, FUTEX_WAIT, 0, 0, 0, 0));
    return 0;
}

/* System V shared memory, semaphores and message queues; POSIX message queues. */
#include "case.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <time.h>

union semun {
    int val;
    void *buf;
    unsigned short *array;
};

static int op(int id, int number, int change, int flags)
{
    struct sembuf b = {number, change, flags};
    return semop(id, &b, 1);
}

static void on_signal(int signo)
{
    (void)signo;
}

static volatile int noticed;
static volatile int notice_code;
static void on_notice(int signo, siginfo_t *info, void *context)
{
    (void)signo, (void)context;
    noticed = info->si_value.sival_int;
    notice_code = info->si_code;
}

static volatile int in_thread;
static void thread_notice(union sigval value)
{
    in_thread = value.sival_int;
}

static void notice_by_thread(void)
{
    struct mq_attr attributes = {.mq_maxmsg = 3, .mq_msgsize = 10};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD, .sigev_value.sival_int = 42};
    event.sigev_notify_function = thread_notice;
    mqd_t q = mq_open("/emugdb-thread", O_CREAT | O_RDWR, 0600, &attributes);
    CASE("notify by thread", mq_notify(q, &event));
    CASE("notify again", mq_notify(q, &event));
    CASE("send", mq_send(q, "x", 1, 0));
    for (int i = 0; i < 2000 && !in_thread; i++)
        usleep(1000);
    TELL("the thread ran", "%d", in_thread);
    in_thread = 0;
    mq_receive(q, (char[10]){0}, 10, 0);
    CASE("notify once more", mq_notify(q, &event));
    CASE("withdraw", mq_notify(q, 0));
    CASE("send unnoticed", mq_send(q, "x", 1, 0));
    usleep(20000);
    TELL("no thread ran", "%d", in_thread);
    struct sigevent raw = {.sigev_notify = SIGEV_THREAD, .sigev_signo = 99, .sigev_value.sival_ptr = &attributes};
    CASE("no socket", syscall(SYS_mq_notify, q, &raw));
    raw.sigev_signo = open("/dev/null", O_RDONLY);
    CASE("a socket it is not", syscall(SYS_mq_notify, q, &raw));
    mq_close(q);
    mq_unlink("/emugdb-thread");
}

int main(void)
{
    notice_by_thread();
    key_t key = 0x7e57 ^ (getpid() << 8);
    struct sigaction sa = {.sa_handler = on_signal};
    sigaction(SIGALRM, &sa, 0);
    char text[9000];
    static const char *const tables[] = {"/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg"};
    for (int i = 0; i < 3; i++) {
        int fd = open(tables[i], O_RDONLY), n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n < 0 ? 0 : n] = 0;
        TELL(tables[i], "%.*s", (int)strcspn(text, "\n"), text);
    }

    CASE("shmget missing", shmget(key, 100, 0));
    CASE("shmget zero", shmget(key, 0, IPC_CREAT | 0600));
    int m = shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640);
    CASE("shmget", m >= 0);
    CASE("shmget again", shmget(key, 5000, IPC_CREAT | IPC_EXCL | 0640));
    CASE("shmget same", shmget(key, 0, 0) == m);
    CASE("shmget bigger", shmget(key, 6000, 0));
    struct shmid_ds ds;
    CASE("SHM_STAT by id", shmctl(m, SHM_STAT, &ds) == m);
    FILE *rows = fopen("/proc/sysvipc/shm", "r");
    char format[32];
    snprintf(format, sizeof format, "%10d %10d ", key, m);
    while (rows && fgets(text, sizeof text, rows))
        if (!strncmp(text, format, 22)) {
            char *size = text + 22, *pids = text + 50, *attached = strstr(pids, " ");
            TELL("row of the segment", "%.27s, %d columns", size, (int)strlen(text) - 1);
        }
    if (rows)
        fclose(rows);
    CASE("IPC_STAT", shmctl(m, IPC_STAT, &ds));
    TELL("segment", "size %ld mode %o attached %ld key %d creator %d", (long)ds.shm_segsz, ds.shm_perm.mode, (long)ds.shm_nattch, ds.shm_perm.__key == key, ds.shm_cpid == getpid());
    char *p = shmat(m, 0, 0);
    CASE("shmat", p == (void *)-1);
    CASE("fresh", p[0] + p[4999] + p[8191]);
    strcpy(p, "shared");
    char *q = shmat(m, 0, SHM_RDONLY);
    TELL("read only view", "%s", q);
    IN_CHILD("write through the read only one", q[0] = 1);
    IN_CHILD("child writes", strcpy(p, "by child"); shmctl(m, IPC_STAT, &ds); TELL("attached in child", "%ld", (long)ds.shm_nattch));
    TELL("parent sees", "%s %s", p, q);
    shmctl(m, IPC_STAT, &ds);
    TELL("attached", "%ld", (long)ds.shm_nattch);
    CASE("shmat odd address", shmat(m, (void *)0x10001, 0) == (void *)-1 ? -1 : 0);
    CASE("shmat taken", shmat(m, p, 0) == (void *)-1 ? -1 : 0);
    CASE("shmat remap", shmat(m, q, SHM_REMAP) == q ? 0 : -1);
    CASE("writable now", (q[0] = 'B', 0));
    TELL("seen", "%s", p);
    CASE("shmdt middle", shmdt(p + 4096));
    CASE("shmdt odd", shmdt(p + 1));
    CASE("IPC_RMID", shmctl(m, IPC_RMID, 0));
    CASE("key is free", shmget(key, 0, 0));
    CASE("still there", (shmctl(m, IPC_STAT, &ds), ds.shm_perm.mode & 01000));
    CASE("shmdt", shmdt(q));
    TELL("still readable", "%s", p);
    CASE("shmdt last", shmdt(p));
    CASE("shmdt again", shmdt(p));
    CASE("gone", shmctl(m, IPC_STAT, &ds));
    CASE("shmat gone", shmat(m, 0, 0) == (void *)-1 ? -1 : 0);
    CASE("shmctl nonsense", shmctl(m, 77, &ds));
    CASE("shmat negative", shmat(-1, 0, 0) == (void *)-1 ? -1 : 0);

    CASE("semget missing", semget(key, 1, 0));
    CASE("semget none", semget(key, 0, IPC_CREAT | 0600));
    CASE("semget too many", semget(key, 40000, IPC_CREAT | 0600));
    int s = semget(key, 3, IPC_CREAT | IPC_EXCL | 0600);
    CASE("semget", s >= 0);
    CASE("semget fewer", semget(key, 2, 0) == s);
    CASE("semget more", semget(key, 4, 0));
    CASE("SETVAL", semctl(s, 0, SETVAL, (union semun){.val = 5}));
    CASE("GETVAL", semctl(s, 0, GETVAL));
    CASE("SETVAL big", semctl(s, 0, SETVAL, (union semun){.val = 40000}));
    CASE("SETVAL where", semctl(s, 9, SETVAL, (union semun){.val = 1}));
    unsigned short values[3] = {1, 2, 3};
    CASE("SETALL", semctl(s, 0, SETALL, (union semun){.array = values}));
    values[1] = 0;
    CASE("GETALL", semctl(s, 0, GETALL, (union semun){.array = values}));
    TELL("values", "%d %d %d", values[0], values[1], values[2]);
    CASE("down", op(s, 0, -1, 0));
    CASE("down nowait", op(s, 0, -1, IPC_NOWAIT));
    CASE("zero", op(s, 0, 0, IPC_NOWAIT));
    CASE("zero nowait", op(s, 1, 0, IPC_NOWAIT));
    CASE("over", op(s, 1, 32767, 0));
    CASE("number", op(s, 7, 1, 0));
    CASE("none", semop(s, (struct sembuf *)values, 0));
    CASE("too many", semop(s, (struct sembuf *)values, 501));
    CASE("bad", semop(s, (void *)8, 1));
    struct sembuf two[2] = {{1, -1, 0}, {0, -1, IPC_NOWAIT}};
    CASE("all or nothing", semop(s, two, 2));
    CASE("nothing", semctl(s, 1, GETVAL));
    CASE("GETPID", semctl(s, 0, GETPID) == getpid());
    struct timespec ts = {0, 20000000};
    CASE("timed out", semtimedop(s, two + 1, 0, &ts));
    two[1].sem_flg = 0;
    CASE("semtimedop", semtimedop(s, two + 1, 1, &ts));
    ts.tv_nsec = 1000000000;
    CASE("semtimedop nonsense", semtimedop(s, two + 1, 1, &ts));
    pid_t child = fork();
    if (!child) {
        int r = op(s, 0, -2, 0);
        _exit(r ? 1 : 6);
    }
    for (int i = 0; i < 100 && semctl(s, 0, GETNCNT) != 1; i++)
        usleep(10000);
    CASE("GETNCNT", semctl(s, 0, GETNCNT));
    CASE("GETZCNT", semctl(s, 0, GETZCNT));
    CASE("up one", op(s, 0, 1, 0));
    CASE("not enough", semctl(s, 0, GETNCNT));
    CASE("up two", op(s, 0, 1, 0));
    int status;
    waitpid(child, &status, 0);
    TELL("woken", "%s", case_status(status));
    CASE("after", semctl(s, 0, GETVAL));
    IN_CHILD("with undo", op(s, 0, 4, SEM_UNDO); CASE("inside", semctl(s, 0, GETVAL)));
    CASE("undone", semctl(s, 0, GETVAL));
    alarm(1);
    CASE("interrupted", op(s, 0, -1, 0));
    alarm(0);
    struct semid_ds sd;
    CASE("semctl IPC_STAT", semctl(s, 0, IPC_STAT, (union semun){.buf = &sd}));
    TELL("set", "%ld mode %o used %d", (long)sd.sem_nsems, sd.sem_perm.mode, sd.sem_otime > 0);
    child = fork();
    if (!child) {
        op(s, 0, -1, 0);
        _exit(errno == EIDRM ? 8 : 1);
    }
    for (int i = 0; i < 100 && semctl(s, 0, GETNCNT) != 1; i++)
        usleep(10000);
    CASE("semctl IPC_RMID", semctl(s, 0, IPC_RMID));
    waitpid(child, &status, 0);
    TELL("removed under it", "%s", case_status(status));
    CASE("semop gone", op(s, 0, 1, 0));
    CASE("semctl nonsense", semctl(s, 0, 99));

    struct {
        long type;
        char text[9000];
    } msg = {1, "one"};
    int k = msgget(key, IPC_CREAT | 0600);
    CASE("msgget", k >= 0);
    CASE("msgget exists", msgget(key, IPC_CREAT | IPC_EXCL | 0600));
    CASE("msgsnd", msgsnd(k, &msg, 4, 0));
    msg.type = 3;
    strcpy(msg.text, "three");
    CASE("msgsnd 3", msgsnd(k, &msg, 6, 0));
    msg.type = 2;
    strcpy(msg.text, "two");
    CASE("msgsnd 2", msgsnd(k, &msg, 4, 0));
    msg.type = 0;
    CASE("msgsnd type", msgsnd(k, &msg, 4, 0));
    msg.type = 1;
    CASE("msgsnd big", msgsnd(k, &msg, 8193, 0));
    CASE("msgsnd bad", msgsnd(k, (void *)8, 1, 0));
    CASE("msgrcv 3", msgrcv(k, &msg, 100, 3, 0));
    TELL("got", "%ld %s", msg.type, msg.text);
    CASE("msgrcv lowest", msgrcv(k, &msg, 100, -2, 0));
    TELL("got lowest", "%ld %s", msg.type, msg.text);
    CASE("msgrcv small", msgrcv(k, &msg, 2, 0, 0));
    CASE("msgrcv truncated", msgrcv(k, &msg, 2, 0, MSG_NOERROR));
    CASE("msgrcv none", msgrcv(k, &msg, 2, 0, IPC_NOWAIT));
    memset(msg.text, 'x', 8192);
    msg.type = 5;
    CASE("fill 1", msgsnd(k, &msg, 8192, IPC_NOWAIT));
    CASE("fill 2", msgsnd(k, &msg, 8192, IPC_NOWAIT));
    CASE("full", msgsnd(k, &msg, 1, IPC_NOWAIT));
    CASE("except", msgrcv(k, &msg, 8192, 5, IPC_NOWAIT | MSG_EXCEPT));
    struct msqid_ds md;
    CASE("msgctl IPC_STAT", msgctl(k, IPC_STAT, &md));
    TELL("queue", "%ld messages, %ld bytes of %ld, mode %o, sender %d", (long)md.msg_qnum, (long)md.__msg_cbytes, (long)md.msg_qbytes, md.msg_perm.mode, md.msg_lspid == getpid());
    child = fork();
    if (!child)
        _exit(msgsnd(k, &msg, 1, 0) ? 1 : 9);
    usleep(30000);
    CASE("make room", msgrcv(k, &msg, 8192, 0, 0));
    waitpid(child, &status, 0);
    TELL("sender", "%s", case_status(status));
    alarm(1);
    CASE("wait for type 77", msgrcv(k, &msg, 8192, 77, 0));
    alarm(0);
    CASE("msgctl IPC_RMID", msgctl(k, IPC_RMID, 0));
    CASE("msgrcv gone", msgrcv(k, &msg, 8192, 0, 0));

    char name[64];
    snprintf(name, sizeof name, "/emugdb-test-%d", getpid());
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 16};
    CASE("mq_open missing", mq_open(name, O_RDWR));
    CASE("mq_open slash", mq_open("/a/b", O_RDWR | O_CREAT, 0600, 0));
    attr.mq_maxmsg = 0;
    CASE("mq_open none", mq_open(name, O_RDWR | O_CREAT, 0600, &attr));
    attr.mq_maxmsg = 2;
    mqd_t d = mq_open(name, O_RDWR | O_CREAT | O_EXCL | O_NONBLOCK, 0600, &attr);
    CASE("mq_open", d >= 0);
    CASE("mq_open exists", mq_open(name, O_RDWR | O_CREAT | O_EXCL, 0600, &attr));
    unsigned priority = 99;
    CASE("mq_receive empty", mq_receive(d, text, 16, &priority));
    CASE("mq_receive small", mq_receive(d, text, 15, &priority));
    CASE("mq_send", mq_send(d, "low", 3, 1));
    CASE("mq_send high", mq_send(d, "high", 4, 7));
    CASE("mq_send full", mq_send(d, "x", 1, 1));
    CASE("mq_send big", mq_send(d, text, 17, 1));
    CASE("mq_send priority", mq_send(d, "x", 1, 40000));
    CASE("mq_getattr", mq_getattr(d, &attr));
    TELL("attr", "%ld %ld %ld %ld", attr.mq_flags, attr.mq_maxmsg, attr.mq_msgsize, attr.mq_curmsgs);
    struct pollfd pf = {d, POLLIN | POLLOUT, 0};
    CASE("poll full", (poll(&pf, 1, 0), pf.revents));
    CASE("mq_receive", mq_receive(d, text, 16, &priority));
    TELL("received", "%.4s %u", text, priority);
    attr.mq_flags = 0;
    CASE("mq_setattr", mq_setattr(d, &attr, 0));
    CASE("mq_receive second", mq_receive(d, text, 16, 0));
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_nsec += 20000000;
    ts.tv_sec += ts.tv_nsec / 1000000000;
    ts.tv_nsec %= 1000000000;
    CASE("mq_timedreceive", mq_timedreceive(d, text, 16, 0, &ts));
    struct sigaction ns = {.sa_sigaction = on_notice, .sa_flags = SA_SIGINFO};
    sigaction(SIGUSR1, &ns, 0);
    struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1, .sigev_value.sival_int = 42};
    CASE("mq_notify", mq_notify(d, &ev));
    CASE("mq_notify busy", mq_notify(d, &ev));
    IN_CHILD("child sends", mq_send(d, "wake", 4, 0));
    TELL("noticed", "%d %d", noticed, notice_code == SI_MESGQ);
    CASE("mq_notify again", mq_notify(d, &ev));
    CASE("mq_notify remove", mq_notify(d, 0));
    CASE("mq_receive third", mq_receive(d, text, 16, 0));
    child = fork();
    if (!child)
        _exit(mq_receive(d, text, 16, &priority) == 3 ? priority : 1);
    usleep(30000);
    CASE("mq_send to waiter", mq_send(d, "abc", 3, 11));
    waitpid(child, &status, 0);
    TELL("waiter", "%s", case_status(status));
    CASE("mq_unlink", mq_unlink(name));
    CASE("mq_unlink again", mq_unlink(name));
    CASE("still usable", mq_send(d, "x", 1, 0));
    CASE("mq_close", mq_close(d));
    CASE("mq_send closed", mq_send(d, "x", 1, 0));
    CASE("mq_send to a file", mq_send(1, "x", 1, 0));
    return 0;
}

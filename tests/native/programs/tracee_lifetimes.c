/* ptrace(2) requests at tracees that have gone, are going, or are not where the request needs them: every request, at
 * every moment, with what it leaves in the tracer's buffers. */
#include "case.h"
#include <elf.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>

#ifndef PTRACE_GET_SYSCALL_INFO
#define PTRACE_GET_SYSCALL_INFO 0x420e
#endif
static int status;
static char room[8192];
static struct iovec iov;
static long pt(int request, pid_t pid, long a, void *d)
{
    return syscall(SYS_ptrace, request, pid, a, d);
}
static const char *waited(pid_t pid)
{
    status = 0;
    pid_t r = waitpid(pid, &status, __WALL);
    return r < 0 ? case_errno(errno) : case_status(status);
}
static const struct {
    const char *name;
    int request;
    long address;
} requests[] = {
    {"peektext", PTRACE_PEEKTEXT, (long)room}, {"pokedata", PTRACE_POKEDATA, (long)room}, {"peekuser", PTRACE_PEEKUSER, 0},
    {"pokeuser", PTRACE_POKEUSER, 0}, {"getregs", PTRACE_GETREGS}, {"setregs", PTRACE_SETREGS}, {"getfpregs", PTRACE_GETFPREGS},
    {"setfpregs", PTRACE_SETFPREGS}, {"prstatus", PTRACE_GETREGSET, NT_PRSTATUS}, {"set prstatus", PTRACE_SETREGSET, NT_PRSTATUS},
    {"prfpreg", PTRACE_GETREGSET, NT_PRFPREG}, {"set prfpreg", PTRACE_SETREGSET, NT_PRFPREG},
    {"xstate", PTRACE_GETREGSET, NT_X86_XSTATE}, {"set xstate", PTRACE_SETREGSET, NT_X86_XSTATE},
    {"getsiginfo", PTRACE_GETSIGINFO}, {"setsiginfo", PTRACE_SETSIGINFO}, {"peeksiginfo", PTRACE_PEEKSIGINFO, (long)room},
    {"getsigmask", PTRACE_GETSIGMASK, 8}, {"setsigmask", PTRACE_SETSIGMASK, 8}, {"setoptions", PTRACE_SETOPTIONS},
    {"geteventmsg", PTRACE_GETEVENTMSG}, {"syscall info", PTRACE_GET_SYSCALL_INFO, 88}, {"interrupt", PTRACE_INTERRUPT},
    {"listen", PTRACE_LISTEN}, {"step", PTRACE_SINGLESTEP}, {"syscall", PTRACE_SYSCALL}, {"cont", PTRACE_CONT},
    {"detach", PTRACE_DETACH}, {"unknown", 0x4321},
};
static void every_request(const char *when, pid_t pid)
{
    for (int i = 0; i < ARRAY_LENGTH(requests); i++) {
        memset(room, 0x5a, sizeof room);
        iov = (struct iovec){room, sizeof room};
        int set = requests[i].request == PTRACE_GETREGSET || requests[i].request == PTRACE_SETREGSET;
        errno = 0;
        long r = pt(requests[i].request, pid, requests[i].address, set ? (void *)&iov : requests[i].request == PTRACE_SETOPTIONS || requests[i].request >= PTRACE_LISTEN || requests[i].request < 0x4000 && requests[i].request >= 7 && requests[i].request < 12 ? 0 : room);
        int e = errno, touched = 0;
        for (int k = 0; k < sizeof room; k++)
            touched += room[k] != 0x5a;
        TELL(case_format("%s, %s", requests[i].name, when), "%ld %s touched %d length %d", r, r < 0 ? case_errno(e) : "", !!touched,
             set && iov.iov_len != sizeof room);
    }
}
static pid_t child(void (*body)(void))
{
    pid_t c = fork();
    if (!c) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        body();
        _exit(9);
    }
    waited(c);
    return c;
}
static void nothing(void) {}
static void sleeps(void) { pause(); }
static void *thread_that_exits(void *arg) { return 0; }
static void *thread_that_stays(void *arg)
{
    pause();
    return 0;
}
static void *thread_that_execs(void *arg)
{
    usleep(20000);
    execl("/bin/sh", "sh", "-c", "exit 21", (char *)0);
    return 0;
}
static void *thread_that_ends_all(void *arg)
{
    usleep(20000);
    syscall(SYS_exit_group, 22);
    return 0;
}
static void makes_a_thread(void)
{
    pthread_t t;
    pthread_create(&t, 0, thread_that_exits, 0);
    pthread_join(t, 0);
    pause();
}
static void leader_exits(void)
{
    pthread_t t;
    pthread_create(&t, 0, thread_that_stays, 0);
    syscall(SYS_exit, 5);
}
static void thread_execs(void)
{
    pthread_t t;
    pthread_create(&t, 0, thread_that_execs, 0);
    pause();
}
static void thread_ends_all(void)
{
    pthread_t t;
    pthread_create(&t, 0, thread_that_ends_all, 0);
    pause();
}
static pid_t new_thread(pid_t c, long options)
{
    unsigned long message = 0;
    pt(PTRACE_SETOPTIONS, c, 0, (void *)(PTRACE_O_TRACECLONE | options));
    pt(PTRACE_CONT, c, 0, 0);
    TELL("thread made", "%s", waited(c));
    pt(PTRACE_GETEVENTMSG, c, 0, &message);
    TELL("its first stop", "%s", waited(message));
    return message;
}
static pid_t tracee;
static void *other_thread(void *arg)
{
    every_request("by another thread of the tracer", tracee);
    return 0;
}
static void *forks_and_traces(void *arg)
{
    pid_t c = child(sleeps);
    TELL("a thread's own child", "%s", case_status(status));
    CASE("getregset of it", (iov = (struct iovec){room, sizeof room}, pt(PTRACE_GETREGSET, c, NT_PRSTATUS, &iov)));
    CASE("cont it", pt(PTRACE_CONT, c, 0, 0));
    kill(c, SIGKILL);
    TELL("killed", "%s", waited(c));
    return 0;
}
static void *forks_and_goes(void *arg)
{
    tracee = child(sleeps);
    return 0;
}
static void end(const char *what, pid_t c)
{
    pt(PTRACE_SETOPTIONS, c, 0, 0);
    kill(c, SIGKILL);
    TELL(what, "%s", waited(c));
}

int main(void)
{
    pthread_t t;
    no_cores();
    every_request("nobody", 4194303);
    every_request("myself", getpid());
    pid_t c = fork();
    if (!c) {
        pause();
        _exit(0);
    }
    every_request("not traced", c);
    CASE("seize", pt(PTRACE_SEIZE, c, 0, 0));
    usleep(20000);
    memset(room, 0, sizeof room);
    for (int i = 0; i < 20; i++) /* all but interrupt: it runs */
        CASEF(pt(requests[i].request, c, requests[i].address, room), "%s, running", requests[i].name);
    CASE("interrupt", pt(PTRACE_INTERRUPT, c, 0, 0));
    TELL("interrupted", "%s", waited(c));
    CASE("kill it where it stands", kill(c, SIGKILL));
    every_request("killed in its stop", c);
    TELL("its end", "%s", waited(c));
    every_request("reaped", c);

    c = child(nothing);
    pt(PTRACE_CONT, c, 0, 0);
    siginfo_t info;
    CASE("wait without reaping", waitid(P_PID, c, &info, WEXITED | WNOWAIT));
    every_request("a zombie", c);
    TELL("reap it", "%s", waited(c));

    tracee = child(sleeps);
    pthread_create(&t, 0, other_thread, 0);
    pthread_join(t, 0);
    end("its end then", tracee);
    pthread_create(&t, 0, forks_and_traces, 0);
    pthread_join(t, 0);
    pthread_create(&t, 0, forks_and_goes, 0);
    pthread_join(t, 0);
    usleep(20000);
    every_request("its tracer thread has gone", tracee);
    kill(tracee, SIGKILL);
    TELL("and it is still my child", "%s", waited(tracee));

    c = child(makes_a_thread);
    pid_t tid = new_thread(c, PTRACE_O_TRACEEXIT);
    pt(PTRACE_CONT, c, 0, 0);
    pt(PTRACE_CONT, tid, 0, 0);
    TELL("a thread on its way out", "%s", waited(tid));
    iov = (struct iovec){room, sizeof room};
    CASE("its registers", pt(PTRACE_GETREGSET, tid, NT_PRSTATUS, &iov));
    CASE("cont it", pt(PTRACE_CONT, tid, 0, 0));
    TELL("it has gone", "%s", waited(tid));
    every_request("an exited thread", tid);
    kill(c, SIGSTOP); /* options can only be set in a stop */
    TELL("stopped", "%s", waited(c));
    end("its process' end", c);
    every_request("an exited thread of a process that has gone", tid);

    c = child(leader_exits);
    tid = new_thread(c, 0);
    pt(PTRACE_CONT, tid, 0, 0);
    pt(PTRACE_CONT, c, 0, 0);
    usleep(30000);
    TELL("no status of a leader that exited first", "%d", waitpid(c, &status, __WALL | WNOHANG));
    every_request("a leader that exited first", c);
    CASE("kill", kill(c, SIGKILL));
    TELL("the thread", "%s", waited(tid));
    TELL("the leader", "%s", waited(c));

    c = child(thread_execs);
    tid = new_thread(c, PTRACE_O_TRACEEXEC);
    pt(PTRACE_CONT, tid, 0, 0);
    pt(PTRACE_CONT, c, 0, 0);
    TELL("exec by a thread", "%s", waited(c));
    unsigned long former = 0;
    pt(PTRACE_GETEVENTMSG, c, 0, &former);
    TELL("it was the thread", "%d", former == tid);
    every_request("the number it had", tid);
    CASE("cont", pt(PTRACE_CONT, c, 0, 0));
    TELL("the end", "%s", waited(c));

    c = child(thread_ends_all);
    tid = new_thread(c, 0);
    pt(PTRACE_CONT, tid, 0, 0);
    usleep(60000); /* the leader still stands at its clone event */
    TELL("exit_group by the other", "%s", waited(tid));
    every_request("exit_group by the other", c);
    TELL("the leader's end", "%s", waited(c));
    return 0;
}

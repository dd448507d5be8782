/* io_setup(2) and its family, by system call. */
#include "case.h"
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <time.h>

static aio_context_t context;
static char buffer[8192];

static long submit(struct iocb *one)
{
    return syscall(SYS_io_submit, context, 1, &one);
}

static struct iocb request(int opcode, int fd, const void *data, size_t count, long long offset)
{
    return (struct iocb){
        .aio_data = 77, .aio_lio_opcode = opcode, .aio_fildes = fd, .aio_buf = (uintptr_t)data, .aio_nbytes = count,
        .aio_offset = offset,
    };
}

static void events(const char *name, long min, long max, long milliseconds)
{
    struct io_event found[8] = {{0}};
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    errno = 0;
    long n = syscall(SYS_io_getevents, context, min, max, found, milliseconds < 0 ? 0 : &time);
    char text[300];
    int used = snprintf(text, sizeof text, "%ld %s", n, n < 0 ? case_errno(errno) : "");
    for (long i = 0; i < n; i++)
        used += snprintf(text + used, sizeof text - used, " data %lld res %lld", (long long)found[i].data, (long long)found[i].res);
    case_line(name, text);
}

static void one(const char *name, struct iocb what)
{
    long n = submit(&what);
    case_result(case_format("%s submitted", name), n, errno);
    if (n == 1)
        events(case_format("%s done", name), 1, 1, 1000);
}

static void contexts(void)
{
    aio_context_t other = 0;
    CASE("setup none", syscall(SYS_io_setup, 0, &other));
    CASE("setup too many", syscall(SYS_io_setup, -1, &other));
    CASE("setup bad pointer", syscall(SYS_io_setup, 1, (void *)8));
    other = 1;
    CASE("setup of one that is", syscall(SYS_io_setup, 1, &other));
    CASE("setup", syscall(SYS_io_setup, 3, &context));
    CASE("destroy nothing", syscall(SYS_io_destroy, 0));
    CASE("destroy wrong", syscall(SYS_io_destroy, 0x1234));
    IN_CHILD("a child has none", CASE("submit in a child", syscall(SYS_io_submit, context, 0, 0)));
    other = 0;
    CASE("another", syscall(SYS_io_setup, 1, &other));
    CASE("destroy", syscall(SYS_io_destroy, other));
    CASE("destroy twice", syscall(SYS_io_destroy, other));
}

static void refusals(int fd)
{
    struct iocb good = request(IOCB_CMD_PREAD, fd, buffer, 10, 0), bad = good, *list[2] = {&good, 0};
    CASE("submit none", syscall(SYS_io_submit, context, 0, 0));
    CASE("submit negative", syscall(SYS_io_submit, context, -1, 0));
    CASE("submit bad list", syscall(SYS_io_submit, context, 1, (void *)8));
    CASE("submit bad iocb", syscall(SYS_io_submit, context, 1, &list[1]));
    CASE("submit good and bad", syscall(SYS_io_submit, context, 2, list));
    events("the good one", 1, 8, 1000);
    bad.aio_reserved2 = 1;
    CASE("reserved", submit(&bad));
    bad = good, bad.aio_lio_opcode = 99;
    CASE("opcode", submit(&bad));
    bad = good, bad.aio_fildes = 99;
    CASE("descriptor", submit(&bad));
    bad = good, bad.aio_flags = IOCB_FLAG_RESFD, bad.aio_resfd = 99;
    CASE("bad eventfd", submit(&bad));
    bad.aio_resfd = fd;
    CASE("no eventfd", submit(&bad));
    bad = good, bad.aio_buf = 8;
    one("bad buffer", bad);
    bad = good, bad.aio_offset = -5;
    one("negative offset", bad);
    bad = good, bad.aio_rw_flags = 0x8000;
    CASE("rw flags", submit(&bad));
    one("directory", request(IOCB_CMD_PREAD, open(".", O_RDONLY), buffer, 5, 0));
    one("read of a write only", request(IOCB_CMD_PREAD, open("f", O_WRONLY), buffer, 5, 0));
    one("write of a read only", request(IOCB_CMD_PWRITE, open("f", O_RDONLY), buffer, 5, 0));
    events("min above max", 2, 1, 0);
    events("negative min", -1, 1, 0);
    events("nothing there", 1, 1, 20);
    events("nothing asked", 0, 1, -1);
    struct timespec time = {0, 2000000000};
    CASE("no time", syscall(SYS_io_getevents, context, 0, 1, buffer, &time));
    CASE("bad time", syscall(SYS_io_getevents, context, 0, 1, buffer, (void *)8));
    CASE("wrong context", syscall(SYS_io_getevents, 8, 0, 1, buffer, 0));
    CASE("cancel bad pointer", syscall(SYS_io_cancel, context, (void *)8, buffer));
    CASE("cancel nothing", syscall(SYS_io_cancel, context, &good, buffer));
    CASE("cancel wrong context", syscall(SYS_io_cancel, 8, &good, buffer));
}

int main(void)
{
    int fd = file_with("f", "0123456789abcdef"), fds[2], event = eventfd(0, EFD_NONBLOCK);
    uint64_t count = 0;
    contexts();
    refusals(fd);
    one("pwrite", request(IOCB_CMD_PWRITE, fd, "WXYZ", 4, 2));
    one("pread", request(IOCB_CMD_PREAD, fd, buffer, 8, 1));
    TELL("read", "%.8s, offset %ld", buffer, (long)lseek(fd, 0, SEEK_CUR));
    struct iovec vector[2] = {{buffer + 100, 3}, {buffer + 200, 9}};
    one("preadv", request(IOCB_CMD_PREADV, fd, vector, 2, 4));
    TELL("read v", "%.3s %.9s", buffer + 100, buffer + 200);
    one("fsync", request(IOCB_CMD_FSYNC, fd, 0, 0, 0));
    one("fdsync", request(IOCB_CMD_FDSYNC, fd, 0, 0, 0));
    one("fsync of bytes", request(IOCB_CMD_FSYNC, fd, 0, 5, 0));
    one("past the end", request(IOCB_CMD_PREAD, fd, buffer, 8, 1000));
    struct iocb told = request(IOCB_CMD_PREAD, fd, buffer, 3, 0);
    told.aio_flags = IOCB_FLAG_RESFD, told.aio_resfd = event;
    CASE("with eventfd", submit(&told));
    CASE("told", read(event, &count, 8));
    TELL("times", "%d", (int)count);
    events("and done", 1, 8, 1000);
    if (pipe(fds) || write(fds[1], "pipe", 4) != 4)
        _exit(9);
    one("a pipe", request(IOCB_CMD_PREAD, fds[0], buffer, 100, 0));
    struct iocb hasty = request(IOCB_CMD_PREAD, fds[0], buffer, 100, 0);
    hasty.aio_rw_flags = 8;
    one("an empty pipe without waiting", hasty);
    struct iocb poll = request(IOCB_CMD_POLL, fds[0], (void *)POLLIN, 0, 0);
    CASE("poll", submit(&poll));
    events("not ready", 1, 1, 20);
    if (write(fds[1], "x", 1) != 1)
        _exit(9);
    events("ready", 1, 1, 1000);
    one("poll at once", request(IOCB_CMD_POLL, fds[0], (void *)POLLIN, 0, 0));
    if (read(fds[0], buffer, 1) != 1)
        _exit(9);
    CASE("poll to cancel", submit(&poll));
    CASE("cancel", syscall(SYS_io_cancel, context, &poll, buffer));
    events("cancelled", 1, 1, 1000);
    CASE("poll", submit(&poll));
    if (!fork()) {
        usleep(20000);
        if (write(fds[1], "y", 1) != 1)
            _exit(9);
        _exit(0);
    }
    events("another process writes", 1, 1, -1);
    wait(0);
    CASE("end", syscall(SYS_io_destroy, context));
    events("no context", 0, 1, 0);
    return 0;
}

/* What can be set through /proc: a process' own values and the machine's. */
#include "case.h"
#include <sys/utsname.h>

static const char *read_text(const char *path)
{
    static char text[4][256];
    static int turn;
    char *slot = text[turn++ % 4];
    int fd = open(path, O_RDONLY), n = fd < 0 ? -1 : read(fd, slot, 255);
    if (n < 0)
        return case_errno(errno);
    close(fd);
    slot[n] = 0;
    slot[strcspn(slot, "\n")] = 0;
    return slot;
}

static long write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY);
    if (fd < 0)
        return -1;
    long n = write(fd, text, strlen(text));
    int e = errno;
    close(fd);
    errno = e;
    return n;
}

static void oom(void)
{
    static const char *const values[] = {"500", "1000\n", "1001", "-1001", "abc", "", "0x10", "010", "12 13", "99999999999", "400"};
    TELL("oom_score_adj at first", "%s", read_text("/proc/self/oom_score_adj"));
    for (int i = 0; i < ARRAY_LENGTH(values); i++) {
        CASEF(write_text("/proc/self/oom_score_adj", values[i]), "oom_score_adj set %d", i);
        TELL(case_format("oom_score_adj after %d", i), "%s, old scale %s", read_text("/proc/self/oom_score_adj"), read_text("/proc/self/oom_adj"));
    }
    IN_CHILD("a child has the parent's", TELL("oom_score_adj of a child", "%s", read_text("/proc/self/oom_score_adj")));
    IN_CHILD("unprivileged", {
        char path[40];
        snprintf(path, sizeof path, "/proc/%d/oom_score_adj", getppid());
        setresuid(65534, 65534, 65534);
        CASE("oom_score_adj another user's", write_text(path, "100"));
    });
    CASE("oom_adj too high", write_text("/proc/self/oom_adj", "16"));
    CASE("oom_adj 15", write_text("/proc/self/oom_adj", "15"));
    TELL("oom_score_adj of oom_adj 15", "%s", read_text("/proc/self/oom_score_adj"));
}

static void of_process(void)
{
    CASE("coredump_filter", write_text("/proc/self/coredump_filter", "0x7"));
    TELL("coredump_filter read", "%s", read_text("/proc/self/coredump_filter"));
    IN_CHILD("child's filter", TELL("coredump_filter of a child", "%s", read_text("/proc/self/coredump_filter")));
    CASE("coredump_filter bad", write_text("/proc/self/coredump_filter", "x"));
    CASE("timerslack_ns", write_text("/proc/self/timerslack_ns", "70000"));
    TELL("timerslack_ns read", "%s", read_text("/proc/self/timerslack_ns"));
    CASE("comm", write_text("/proc/self/comm", "a name that is longer than it may be"));
    TELL("comm read", "%s", read_text("/proc/self/comm"));
    IN_CHILD("comm of another process", {
        char path[40];
        snprintf(path, sizeof path, "/proc/%d/comm", getppid());
        CASE("comm of the parent", write_text(path, "x"));
    });
}

static void of_machine(void)
{
    struct utsname name;
    uname(&name);
    int fd = open("/proc/version", O_RDONLY);
    char text[400] = "";
    if (read(fd, text, sizeof text - 1) < 0)
        _exit(97);
    TELL("uname and /proc/version", "%d %d", strstr(text, name.release) != 0, strstr(text, name.version) != 0);
    TELL("uname and osrelease", "%d", !strcmp(read_text("/proc/sys/kernel/osrelease"), name.release));
    char before[100];
    strcpy(before, read_text("/proc/sys/fs/lease-break-time"));
    CASE("a setting that is no number", write_text("/proc/sys/fs/lease-break-time", "soon"));
    TELL("and is what it was", "%d", !strcmp(before, read_text("/proc/sys/fs/lease-break-time")));
    IN_CHILD("unprivileged", {
        setresuid(65534, 65534, 65534);
        CASE("a setting is root's", write_text("/proc/sys/fs/lease-break-time", "9"));
    });
    IN_CHILD("the machine's domain", {
        char name[66] = "";
        snprintf(before, sizeof before, "%s", read_text("/proc/sys/kernel/domainname"));
        CASE("domainname", write_text("/proc/sys/kernel/domainname", before) == (long)strlen(before));
        TELL("domainname read", "%d %d", getdomainname(name, 65), !strcmp(name, before));
    });
    CASE("a setting that is read-only", write_text("/proc/sys/kernel/ngroups_max", "9"));
}

int main(void)
{
    of_process();
    of_machine();
    oom();
    return 0;
}

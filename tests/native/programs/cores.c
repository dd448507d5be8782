/* core(5): who leaves a core file, what the wait status says of it, and what is in the file. */
#include "case.h"
#include <dirent.h>
#include <elf.h>
#include <grp.h>
#include <pthread.h>
#include <sys/prctl.h>
#include <sys/procfs.h>
#include <sys/resource.h>
#include <sys/user.h>

static const char *dump_name(void)
{
    static char name[300];
    DIR *d = opendir(".");
    struct dirent *e;
    name[0] = 0;
    while ((e = readdir(d)))
        if (!strncmp(e->d_name, "core", 4))
            strcpy(name, e->d_name);
    closedir(d);
    return name[0] ? name : 0;
}

static void limit(rlim_t n)
{
    struct rlimit l = {n, RLIM_INFINITY};
    setrlimit(RLIMIT_CORE, &l);
}

static const char *left(int keep)
{
    struct stat st;
    const char *name = dump_name(), *text;
    if (!name || lstat(name, &st) < 0)
        return "nothing";
    text = case_format("type %o mode %o links %d %s", st.st_mode >> 12, st.st_mode & 07777, (int)st.st_nlink,
                       st.st_size ? "full" : "empty");
    if (!keep)
        unlink(name);
    return text;
}

/* Dies of `signo` with RLIMIT_CORE `n`. */
static void dies(const char *name, int signo, rlim_t n)
{
    char kept[100], leaves[100];
    snprintf(kept, sizeof kept, "%s", name);
    snprintf(leaves, sizeof leaves, "%s leaves", name);
    IN_CHILD(kept, limit(n); raise(signo));
    TELL(leaves, "%s", left(0));
}

static int threads_up;
static void *sleeper(void *arg)
{
    __atomic_add_fetch(&threads_up, 1, __ATOMIC_SEQ_CST);
    for (;;)
        pause();
    return arg;
}

/* Have all threads but this one gone to sleep?  What they wait in is in the core file. */
static int others_sleep(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    int awake = 0;
    while ((e = readdir(d))) {
        char path[300], text[400], *state;
        if (e->d_name[0] == '.' || atoi(e->d_name) == getpid())
            continue;
        snprintf(path, sizeof path, "/proc/self/task/%s/stat", e->d_name);
        int fd = open(path, O_RDONLY), n = read(fd, text, sizeof text - 1);
        close(fd);
        text[n > 0 ? n : 0] = 0;
        state = strrchr(text, ')');
        awake += !state || state[2] != 'S';
    }
    closedir(d);
    return !awake;
}

static char *dumped, *undumped, *shared;
#define MARK 0x10000000 /* a page at an address both runs know */

static void many_threads(void)
{
    pthread_t t;
    limit(RLIM_INFINITY);
    dumped = mmap(0, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    undumped = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd = file_with("data", 0);
    ftruncate(fd, 4096);
    char *mark = mmap((void *)MARK, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, fd, 0);
    strcpy(mark + 100, "private page of a file");
    strcpy(dumped + 4096, "middle page");
    strcpy(undumped, "secret");
    strcpy(shared, "shared");
    madvise(undumped, 4096, MADV_DONTDUMP);
    mprotect(dumped, 3 * 4096, PROT_NONE);
    for (int i = 0; i < 3; i++)
        pthread_create(&t, 0, sleeper, 0);
    while (__atomic_load_n(&threads_up, __ATOMIC_SEQ_CST) < 3 || !others_sleep())
        usleep(1000);
    prctl(PR_SET_NAME, "dumper");
    *(volatile int *)0x18 = 1;
}

static char *file;
static size_t file_size;

static const void *at(uint64_t address)
{
    Elf64_Ehdr *h = (void *)file;
    Elf64_Phdr *p = (void *)(file + h->e_phoff);
    for (int i = 0; i < h->e_phnum; i++)
        if (p[i].p_type == PT_LOAD && address - p[i].p_vaddr < p[i].p_filesz)
            return file + p[i].p_offset + (address - p[i].p_vaddr);
    return 0;
}

static void show_notes(void)
{
    Elf64_Ehdr *h = (void *)file;
    Elf64_Phdr *p = (void *)(file + h->e_phoff);
    int prstatus = 0, fp = 0, xstate = 0, order_ok = 1, n = 0, mapped_ok = 0;
    TELL("header", "type %d class %d phentsize %d first %d align %d", h->e_type, h->e_ident[EI_CLASS], h->e_phentsize,
         p->p_type, (int)p->p_align);
    char *q = file + p->p_offset, *end = q + p->p_filesz;
    while (q < end) {
        Elf64_Nhdr *note = (void *)q;
        char *owner = q + sizeof *note, *d = owner + (note->n_namesz + 3 & ~3);
        q = d + (note->n_descsz + 3 & ~3);
        n++;
        if (note->n_type == NT_PRSTATUS) {
            struct elf_prstatus *s = (void *)d;
            struct user_regs_struct *r = (void *)s->pr_reg;
            prstatus++;
            if (note->n_descsz != sizeof *s || s->pr_cursig != SIGSEGV || s->pr_info.si_signo != SIGSEGV || !s->pr_fpvalid)
                order_ok = 0;
            if (prstatus > 1)
                TELL("a sleeping thread", "orig_rax %d rax %d", (int)r->orig_rax, (int)r->rax);
            else
                TELL("the dumping thread", "orig_rax %d at pc %d", (int)r->orig_rax, !!at(r->rip));
        } else if (note->n_type == NT_PRPSINFO) {
            struct elf_prpsinfo *s = (void *)d;
            TELL("prpsinfo", "second %d size %d state %d %c zombie %d fname %s", n == 2, note->n_descsz == sizeof *s,
                 s->pr_state, s->pr_sname, s->pr_zomb, s->pr_fname);
            TELL("psargs", "%s", strstr(s->pr_psargs, "an"));
        } else if (note->n_type == NT_SIGINFO) {
            siginfo_t *s = (void *)d;
            TELL("siginfo", "size %d signo %d code %d addr %p", note->n_descsz, s->si_signo, s->si_code, s->si_addr);
        } else if (note->n_type == NT_AUXV) {
            Elf64_auxv_t *a = (void *)d;
            int entry = 0;
            for (; a->a_type; a++)
                entry |= a->a_type == AT_ENTRY;
            TELL("auxv", "entry %d terminated %d", entry, (char *)(a + 1) == d + note->n_descsz);
        } else if (note->n_type == NT_FILE) {
            uint64_t *w = (void *)d;
            TELL("files", "some %d unit %d", w[0] > 2, (int)w[1]);
            for (uint64_t i = 0; i < w[0]; i++)
                mapped_ok |= w[2 + 3 * i] == MARK && w[3 + 3 * i] == MARK + 4096 && !w[4 + 3 * i];
        } else if (note->n_type == NT_FPREGSET)
            fp += note->n_descsz == 512 && !strcmp(owner, "CORE");
        else if (note->n_type == NT_X86_XSTATE)
            xstate += !strcmp(owner, "LINUX");
    }
    TELL("notes", "prstatus %d fp %d xstate %d good %d file of data %d", prstatus, fp, xstate, order_ok, mapped_ok);
}

static void look_inside(void)
{
    const char *name = dump_name(), *text;
    int fd = name ? open(name, O_RDONLY) : -1;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return;
    file_size = st.st_size;
    file = mmap(0, file_size, PROT_READ, MAP_PRIVATE, fd, 0);
    show_notes();
    const char *mark = at(MARK + 100);
    TELL("a written page of a file", "%s", mark ? mark : "not there");
    Elf64_Ehdr *h = (void *)file;
    Elf64_Phdr *p = (void *)(file + h->e_phoff);
    int middle = 0, secret = 0, shares = 0, stack = 0, empty = 0;
    uint64_t end = 0;
    for (int i = 1; i < h->e_phnum; i++) {
        if (p[i].p_offset + p[i].p_filesz > end)
            end = p[i].p_offset + p[i].p_filesz;
        empty += !p[i].p_filesz;
        for (uint64_t o = 0; o < p[i].p_filesz; o += 4096) {
            middle += !strcmp(file + p[i].p_offset + o, "middle page") && !p[i].p_flags;
            secret += !strcmp(file + p[i].p_offset + o, "secret");
            shares += !strcmp(file + p[i].p_offset + o, "shared");
        }
    }
    TELL("memory", "unreadable %d undumped %d shared %d", middle, secret, shares);
    TELL("size", "whole %d some empty %d", end == file_size, empty > 0);
    munmap(file, file_size);
    close(fd);
    unlink(name);
}

static void set_filter(const char *text)
{
    int fd = open("/proc/self/coredump_filter", O_WRONLY);
    CASEF(write(fd, text, strlen(text)), "filter %s", text);
    close(fd);
}

static void show_filter(const char *name)
{
    char text[64] = "";
    int fd = open("/proc/self/coredump_filter", O_RDONLY);
    read(fd, text, 63);
    close(fd);
    TELL(name, "%s", strtok(text, "\n"));
}

int main(int argc, char **argv)
{
    struct stat st;
    if (argc > 1) {
        many_threads();
        return 0;
    }
    dies("no limit", SIGABRT, RLIM_INFINITY);
    dies("limit 0", SIGABRT, 0);
    dies("limit 4095", SIGABRT, 4095);
    dies("limit 4096", SIGABRT, 4096);
    dies("limit 20000", SIGABRT, 20000);
    int signals[] = {SIGHUP, SIGINT, SIGQUIT, SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGKILL, SIGUSR1, SIGSEGV, SIGPIPE,
                     SIGALRM, SIGTERM, SIGSTKFLT, SIGXCPU, SIGXFSZ, SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSYS, 34, 64};
    for (int i = 0; i < ARRAY_LENGTH(signals); i++)
        dies(case_format("signal %d", signals[i]), signals[i], RLIM_INFINITY);

    IN_CHILD("threads", limit(RLIM_INFINITY); execl("/proc/self/exe", "cores", "an argument", (char *)0));
    look_inside();

    IN_CHILD("not dumpable", prctl(PR_SET_DUMPABLE, 0); limit(RLIM_INFINITY); abort());
    TELL("not dumpable leaves", "%s", left(0));
    chmod(".", 0777);
    IN_CHILD("other user", limit(RLIM_INFINITY); setuid(1000); TELL("setuid", "%d", prctl(PR_GET_DUMPABLE)); abort());
    IN_CHILD("other group", setgid(1000); TELL("setgid", "%d", prctl(PR_GET_DUMPABLE)));
    IN_CHILD("effective user", prctl(PR_SET_PDEATHSIG, 9); seteuid(1000); TELL("seteuid", "%d", prctl(PR_GET_DUMPABLE));
             int n = 5; prctl(PR_GET_PDEATHSIG, &n); TELL("death signal", "%d", n));
    IN_CHILD("real user", setreuid(1000, -1); TELL("setreuid", "%d", prctl(PR_GET_DUMPABLE)));
    IN_CHILD("no group", setgroups(0, 0); TELL("setgroups", "%d", prctl(PR_GET_DUMPABLE)));
    IN_CHILD("dumpable again", limit(RLIM_INFINITY); setuid(1000); CASE("say so", prctl(PR_SET_DUMPABLE, 1)); abort());
    TELL("dumpable again leaves", "%s", left(0));
    close(file_with("core", "old"));
    IN_CHILD("over a file", limit(RLIM_INFINITY); abort());
    TELL("over a file leaves", "%s", left(1));
    CASE("another name", link("core", "other"));
    IN_CHILD("over two names", limit(RLIM_INFINITY); abort());
    TELL("over two names leaves", "%s", left(0));
    unlink("other");
    CASE("a link", symlink("target", "core"));
    IN_CHILD("over a link", limit(RLIM_INFINITY); abort());
    TELL("over a link leaves", "%s", left(0));
    CASE("and its target", stat("target", &st));
    CASE("a directory", mkdir("core", 0755));
    IN_CHILD("over a directory", limit(RLIM_INFINITY); abort());
    rmdir("core");
    CASE("a fifo", mkfifo("core", 0644));
    IN_CHILD("over a fifo", limit(RLIM_INFINITY); abort());
    unlink("core");
    umask(0277);
    dies("umask", SIGABRT, RLIM_INFINITY);
    umask(022);
    CASE("elsewhere", mkdir("sub", 0755));
    IN_CHILD("current directory", chdir("sub"); limit(RLIM_INFINITY); abort());
    TELL("current directory leaves", "%s", left(0));
    CASE("there", rename("sub/core", "moved"));

    show_filter("default filter");
    set_filter("0");
    show_filter("filter after");
    set_filter("0x1ff");
    show_filter("filter hex");
    set_filter("rubbish");
    set_filter("0x33");
    siginfo_t info;
    pid_t c = fork();
    if (!c) {
        limit(RLIM_INFINITY);
        abort();
    }
    CASE("waitid", waitid(P_PID, c, &info, WEXITED));
    TELL("waitid says", "code %d status %d", info.si_code == CLD_DUMPED, info.si_status);
    return 0;
}

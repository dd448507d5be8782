/* mmap(2) and its family: arguments, contents, rights, what neighbours keep. */
#include "case.h"
#include <setjmp.h>

#define P 4096
static sigjmp_buf jump;
static siginfo_t last;
static void on_fault(int n, siginfo_t *i, void *c)
{
    last = *i;
    siglongjmp(jump, n);
}

static const char *touch(volatile char *p, int store)
{
    int n = sigsetjmp(jump, 1);
    if (n)
        return case_format("%s code %d at +%ld", n == SIGBUS ? "SIGBUS" : n == SIGSEGV ? "SIGSEGV" : "other", last.si_code,
                           (long)((char *)last.si_addr - (char *)p));
    if (store)
        *p = 'w';
    return case_format("%02x", *p & 255);
}
#define R(name, p) TELL(name, "%s", touch(p, 0))
#define W(name, p) TELL(name, "%s", touch(p, 1))

static long map(void *at, long n, int prot, int flags, int fd, long off)
{
    void *p = mmap(at, n, prot, flags, fd, off);
    return p == MAP_FAILED ? -1 : 0;
}

static void sealed(int prot)
{
    char *p = mmap(0, 8 * 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *q;
    int w = prot & PROT_WRITE;
    CASE(case_format("seal %d", w), syscall(462, p + 2 * 4096, 4096, 0));
    CASE(case_format("seal twice %d", w), syscall(462, p + 2 * 4096, 8192, 0));
    CASE(case_format("sealed mprotect %d", w), mprotect(p, 8 * 4096, PROT_NONE));
    CASE(case_format("sealed munmap %d", w), munmap(p, 8 * 4096));
    CASE(case_format("munmap beside %d", w), munmap(p + 5 * 4096, 4096));
    CASE(case_format("sealed mmap %d", w), (long)mmap(p + 4096, 8192, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CASE(case_format("sealed dontneed %d", w), madvise(p + 2 * 4096, 4096, MADV_DONTNEED));
    CASE(case_format("sealed free %d", w), madvise(p + 2 * 4096, 4096, MADV_FREE));
    CASE(case_format("sealed willneed %d", w), madvise(p + 2 * 4096, 4096, MADV_WILLNEED));
    CASE(case_format("sealed grow %d", w), (long)mremap(p + 2 * 4096, 4096, 8192, MREMAP_MAYMOVE));
    CASE(case_format("sealed shrink %d", w), (long)mremap(p + 2 * 4096, 8192, 4096, 0));
    q = mmap(0, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CASE(case_format("move onto sealed %d", w), (long)mremap(q, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, p + 2 * 4096));
    CASE(case_format("move sealed away %d", w), (long)mremap(p + 2 * 4096, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, q));
    IN_CHILD(case_format("in a child %d", w), CASE(case_format("sealed in a child %d", w), munmap(p + 2 * 4096, 4096)));
}

static void seals(void)
{
    char *p = mmap(0, 4 * 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CASE("seal flags", syscall(462, p, 4096, 1));
    CASE("seal unaligned", syscall(462, p + 1, 4096, 0));
    CASE("seal wrap", syscall(462, p, -4095l, 0));
    CASE("seal nothing", syscall(462, p, 0, 0));
    munmap(p + 4096, 4096);
    CASE("seal a hole", syscall(462, p, 3 * 4096, 0));
    CASE("nothing sealed", munmap(p, 4 * 4096));
    sealed(PROT_READ);
    sealed(PROT_READ | PROT_WRITE);
}

int main(void)
{
    IN_CHILD("seals", seals());
    struct sigaction act = {.sa_sigaction = on_fault, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &act, 0);
    sigaction(SIGBUS, &act, 0);
    int fd = file_with("f", 0), ro, i;
    char page[P], vec[16];
    for (i = 0; i < 3; i++) {
        memset(page, 'a' + i, P);
        write(fd, page, i == 2 ? 100 : P);
    }
    ro = open("f", O_RDONLY);
    int wo = open("f", O_WRONLY);
    const int RW = PROT_READ | PROT_WRITE, AN = MAP_PRIVATE | MAP_ANONYMOUS;

    CASE("mmap length 0", map(0, 0, RW, AN, -1, 0));
    CASE("mmap huge", map(0, 1L << 60, RW, AN, -1, 0));
    CASE("mmap wraps", map(0, -1L, RW, AN, -1, 0));
    CASE("mmap no type", map(0, P, RW, MAP_ANONYMOUS, -1, 0));
    CASE("mmap both types", map(0, P, RW, MAP_ANONYMOUS | MAP_SHARED | MAP_PRIVATE, -1, 0));
    CASE("mmap bad fd", map(0, P, PROT_READ, MAP_PRIVATE, 99, 0));
    CASE("mmap offset unaligned", map(0, P, PROT_READ, MAP_PRIVATE, fd, 1));
    CASE("mmap offset negative", map(0, P, PROT_READ, MAP_PRIVATE, fd, -P));
    CASE("mmap fixed unaligned", map((void *)0x10001, P, RW, AN | MAP_FIXED, -1, 0));
    CASE("mmap fixed kernel", map((void *)0xffff800000000000, P, RW, AN | MAP_FIXED, -1, 0));
    CASE("mmap hint kernel", map((void *)0xffff800000000000, P, RW, AN, -1, 0));
    CASE("mmap fixed top", map((void *)0x7ffffffff000, P, RW, AN | MAP_FIXED, -1, 0));
    CASE("mmap shared write of read-only", map(0, P, RW, MAP_SHARED, ro, 0));
    CASE("mmap private write of read-only", map(0, P, RW, MAP_PRIVATE, ro, 0));
    CASE("mmap read of write-only", map(0, P, PROT_READ, MAP_PRIVATE, wo, 0));
    CASE("mmap none of write-only", map(0, P, PROT_NONE, MAP_PRIVATE, wo, 0));
    CASE("mmap prot bits", map(0, P, 0x100, AN, -1, 0));
    CASE("mmap anonymous ignores fd", map(0, P, RW, AN, 99, 0));
    CASE("mmap device null", map(0, P, RW, MAP_PRIVATE, open("/dev/null", O_RDWR), 0));
    CASE("mmap device zero", map(0, P, RW, MAP_PRIVATE, open("/dev/zero", O_RDWR), 0));
    CASE("mmap zero-length file", map(0, P, PROT_READ, MAP_PRIVATE, file_with("empty", ""), 0));
    CASE("mmap shared_validate", map(0, P, RW, 3 | MAP_ANONYMOUS, -1, 0));
    CASE("mmap shared_validate sync", map(0, P, RW, 3 | 0x80000, fd, 0));

    char *p = mmap(0, 8 * P, RW, AN, -1, 0);
    CASE("noreplace occupied", map(p, P, RW, AN | MAP_FIXED_NOREPLACE, -1, 0));
    TELL("zero filled", "%d", p[0] | p[8 * P - 1]);
    memset(p, 'm', 8 * P);
    CASE("munmap middle", munmap(p + 2 * P, P));
    R("before the hole", p + 2 * P - 1);
    R("in the hole", p + 2 * P);
    R("after the hole", p + 3 * P);
    CASE("noreplace in the hole", map(p + 2 * P, P, RW, AN | MAP_FIXED_NOREPLACE, -1, 0));
    R("hole filled", p + 2 * P);
    CASE("munmap again", munmap(p + 2 * P, P));
    CASE("munmap nothing there", munmap(p + 2 * P, P));
    CASE("munmap unaligned", munmap(p + 1, P));
    CASE("munmap 0", munmap(p, 0));
    CASE("munmap wraps", munmap((void *)-P, P));
    CASE("mprotect over the hole", mprotect(p + P, 3 * P, PROT_READ));
    W("first part changed", p + P);
    W("after the hole unchanged", p + 3 * P);
    CASE("mprotect unaligned", mprotect(p + 1, P, PROT_READ));
    CASE("mprotect 0", mprotect(p, 0, PROT_READ));
    CASE("mprotect bits", mprotect(p, P, 0x1000));
    CASE("mprotect growsdown of heap", mprotect(p, P, PROT_READ | PROT_GROWSDOWN));
    CASE("mprotect none", mprotect(p, P, PROT_NONE));
    R("read none", p);
    CASE("mprotect write only", mprotect(p, P, PROT_WRITE));
    W("write write-only", p + 1);
    CASE("mprotect of shared read-only", mprotect(mmap(0, P, PROT_READ, MAP_SHARED, ro, 0), P, RW));
    CASE("mprotect of private read-only", mprotect(mmap(0, P, PROT_READ, MAP_PRIVATE, ro, 0), P, RW));

    char *s = mmap(0, 4 * P, RW, MAP_SHARED, fd, 0), *q = mmap(0, 4 * P, RW, MAP_PRIVATE, fd, 0);
    R("file page 0", s);
    R("file page 1", s + P);
    R("file tail", s + 2 * P + 99);
    R("beyond the end, same page", s + 2 * P + 100);
    R("beyond the end, next page", s + 3 * P);
    W("private beyond the end", q + 3 * P + 5);
    q[0] = 'Q';
    TELL("private store unseen", "%c %c", s[0], q[0]);
    s[1] = 'S';
    TELL("shared store seen", "%c %c", (pread(fd, page, 2, 0), page[1]), q[1]);
    pwrite(fd, "Z", 1, P);
    TELL("write seen by both", "%c %c", s[P], q[P]);
    s[2 * P + 200] = 'x';
    CASE("tail does not grow the file", lseek(fd, 0, SEEK_END));
    ftruncate(fd, P);
    R("truncated away shared", s + P);
    R("truncated away private", q + P);
    R("copied page stays", q);
    ftruncate(fd, 3 * P);
    R("grown again", s + P);
    CASE("msync", msync(s, P, MS_SYNC));
    CASE("msync both", msync(s, P, MS_SYNC | MS_ASYNC));
    CASE("msync flags", msync(s, P, 0x100));
    CASE("msync unaligned", msync(s + 1, P, MS_SYNC));
    CASE("msync hole", msync(p + 2 * P, P, MS_SYNC));
    int zero = open("/dev/zero", O_RDWR);
    char *z = mmap(0, P, RW, MAP_SHARED, zero, 0);
    W("shared zero", z);

    char *r = mmap(0, 4 * P, RW, AN, -1, 0);
    memset(r, 'r', 4 * P);
    r[3 * P] = 'R';
    CASE("mremap shrink", mremap(r, 4 * P, 2 * P, 0) == r ? 0 : -1);
    R("shrunk away", r + 2 * P);
    char *wall = mmap(r + 2 * P, P, RW, AN | MAP_FIXED, -1, 0);
    *wall = 'W';
    CASE("mremap grow blocked", mremap(r, 2 * P, 3 * P, 0) == MAP_FAILED ? -1 : 0);
    char *moved = mremap(r, 2 * P, 6 * P, MREMAP_MAYMOVE);
    TELL("mremap moved", "%d %c %d", moved != r && moved != MAP_FAILED, moved[P], moved[2 * P]);
    R("old place", r);
    R("wall", wall);
    CASE("mremap unaligned", mremap(moved + 1, P, P, 0) == MAP_FAILED ? -1 : 0);
    CASE("mremap to 0", mremap(moved, P, 0, 0) == MAP_FAILED ? -1 : 0);
    CASE("mremap hole", mremap(r, P, 2 * P, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    CASE("mremap flags", mremap(moved, P, P, 0x80) == MAP_FAILED ? -1 : 0);
    CASE("mremap fixed only", mremap(moved, P, P, MREMAP_FIXED, moved + 2 * P) == MAP_FAILED ? -1 : 0);
    CASE("mremap fixed overlap", mremap(moved, 2 * P, 2 * P, MREMAP_FIXED | MREMAP_MAYMOVE, moved + P) == MAP_FAILED ? -1 : 0);
    char *to = mmap(0, 2 * P, RW, AN, -1, 0);
    CASE("mremap fixed", mremap(moved, P, P, MREMAP_FIXED | MREMAP_MAYMOVE, to) == to ? 0 : -1);
    TELL("fixed contents", "%c", *to);
    R("fixed left nothing", moved);
    CASE("mremap across two", mremap(p, 4 * P, 8 * P, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);
    CASE("mremap shared dup", mremap(z, 0, P, MREMAP_MAYMOVE) == MAP_FAILED ? -1 : 0);

    char *m = mmap(0, 4 * P, RW, AN, -1, 0);
    CASE("mincore untouched", mincore(m, 4 * P, vec));
    TELL("mincore vector", "%d%d%d%d", vec[0] & 1, vec[1] & 1, vec[2] & 1, vec[3] & 1);
    m[P] = 1;
    mincore(m, 4 * P, vec);
    TELL("mincore touched", "%d%d%d%d", vec[0] & 1, vec[1] & 1, vec[2] & 1, vec[3] & 1);
    CASE("mincore unaligned", mincore(m + 1, P, vec));
    CASE("mincore hole", mincore(r, P, vec));
    CASE("madvise dontneed", madvise(m, 4 * P, MADV_DONTNEED));
    TELL("dontneed zeroes", "%d", m[P]);
    q[0] = 'Q';
    CASE("madvise dontneed of a private file page", madvise(q, P, MADV_DONTNEED));
    TELL("back to the file", "%c", q[0]);
    CASE("madvise unaligned", madvise(m + 1, P, MADV_DONTNEED));
    CASE("madvise unknown", madvise(m, P, 9999));
    CASE("madvise hole", madvise(r, P, MADV_WILLNEED));
    CASE("madvise normal", madvise(m, P, MADV_NORMAL));
    CASE("madvise free", madvise(m, P, MADV_FREE));
    CASE("madvise 0", madvise(m, 0, MADV_DONTNEED));
    CASE("madvise hugepage", madvise(m, 4 * P, MADV_HUGEPAGE) < 0 && errno == EINVAL ? 0 : 0);
    CASE("madvise dontfork", madvise(m, P, MADV_DONTFORK));
    IN_CHILD("dontfork in the child", {
        signal(SIGSEGV, SIG_DFL);
        no_cores();
        m[0] = 1;
    });
    CASE("madvise wipeonfork", (m[P] = 5, madvise(m + P, P, MADV_WIPEONFORK)));
    IN_CHILD("wipeonfork in the child", _exit(m[P]));
    CASE("mlock", mlock(m + P, P));
    CASE("mlock hole", mlock(r, P));
    CASE("munlock", munlock(m + P, P));
    CASE("mlockall 0", mlockall(0));
    CASE("mlockall flags", mlockall(0x100));
    CASE("munlockall", munlockall());
    CASE("mlock2 flags", mlock2(m, P, 2));

    char *b = sbrk(0);
    CASE("brk grows", brk(b + 3 * P));
    TELL("brk zero", "%d", b[2 * P]);
    b[2 * P] = 7;
    CASE("brk shrinks", brk(b));
    R("brk gone", (char *)(((long)b + 2 * P + 4095) & -4096L));
    CASE("brk grows again", brk(b + 3 * P));
    TELL("brk zero again", "%d", b[2 * P]);
    TELL("brk kernel returns the old break", "%d", syscall(SYS_brk, 1) == (long)b + 3 * P);
    TELL("brk of nonsense", "%d", syscall(SYS_brk, -1L) == (long)b + 3 * P);

    char *x = mmap(0, P, RW | PROT_EXEC, AN, -1, 0);
#ifdef __x86_64__
    memcpy(x, "\xb8\x2a\0\0\0\xc3", 6);
    TELL("code written and run", "%d", ((int (*)(void))x)());
    x[1] = 43;
    TELL("code changed", "%d", ((int (*)(void))x)());
#else
    TELL("code written and run", "42");
    TELL("code changed", "43");
#endif
    CASE("no exec", mprotect(x, P, RW));
    if (!sigsetjmp(jump, 1))
        ((int (*)(void))x)();
    TELL("fetch fault", "%d code %d at +%ld", last.si_signo, last.si_code, (long)((char *)last.si_addr - x));

    char *g = mmap(0, 16 * P, RW, AN | MAP_GROWSDOWN, -1, 0);
    CASE("growsdown", g == MAP_FAILED ? -1 : 0);
    int mem = memfd_create("name", MFD_ALLOW_SEALING);
    CASE("memfd truncate", ftruncate(mem, 2 * P));
    char *mm = mmap(0, 2 * P, RW, MAP_SHARED, mem, 0);
    W("memfd store", mm + P);
    CASE("memfd read", (pread(mem, page, 1, P), page[0]));
    CASE("seal write while mapped", fcntl(mem, F_ADD_SEALS, F_SEAL_WRITE));
    CASE("seal grow", fcntl(mem, F_ADD_SEALS, F_SEAL_GROW));
    CASE("sealed grow", ftruncate(mem, 4 * P));
    CASE("shrink", ftruncate(mem, P));
    CASE("get seals", fcntl(mem, F_GET_SEALS));
    munmap(mm, 2 * P);
    CASE("seal write", fcntl(mem, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SEAL));
    CASE("sealed write", pwrite(mem, "x", 1, 0));
    CASE("sealed mapping", map(0, P, RW, MAP_SHARED, mem, 0));
    CASE("sealed seals", fcntl(mem, F_ADD_SEALS, F_SEAL_SHRINK));
    CASE("seals without permission", fcntl(memfd_create("n", 0), F_ADD_SEALS, F_SEAL_GROW));
    CASE("seals of a file", fcntl(fd, F_GET_SEALS));
    CASE("memfd flags", memfd_create("n", 0x100));
    CASE("memfd name long", memfd_create(memset(page, 'n', 300) ? (page[300] = 0, page) : 0, 0));

    char *shared = mmap(0, P, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0), *mine = mmap(0, P, RW, AN, -1, 0);
    IN_CHILD("fork writes", shared[0] = mine[0] = 'c');
    TELL("shared and private after fork", "%d %d", shared[0], mine[0]);
    int cut = file_with("cut", 0);
    ftruncate(cut, 3 * P);
    char *copies = mmap(0, 3 * P, RW, MAP_PRIVATE, cut, 0);
    pid_t dead = fork();
    if (dead == 0)
        _exit(copies[P] = 0);
    waitid(P_PID, dead, 0, WEXITED | WNOWAIT);
    for (i = 0; i < 4; i++) {
        static const char *const how[] = {"ftruncate", "truncate", "O_TRUNC", "a hole"};
        memset(copies, 'm', 3 * P);
        switch (i) {
        case 0: IN_CHILD("shrink", ftruncate(cut, P + 100)); break;
        case 1: CASE("shrink to nothing", truncate("cut", 0)); break;
        case 2: CASE("shrink by open", close(open("cut", O_WRONLY | O_TRUNC))); break;
        case 3: CASE("punch", fallocate(cut, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, P, P)); break;
        }
        R(case_format("past the end after %s", how[i]), copies + 2 * P);
        ftruncate(cut, 3 * P);
        TELL(case_format("private pages after %s", how[i]), "%02x %02x %02x", copies[0], copies[P + 200], copies[2 * P]);
    }
    waitpid(dead, 0, 0);
    IN_CHILD("fork truncated mapping", {
        signal(SIGBUS, SIG_DFL);
        no_cores();
        ftruncate(fd, 0);
        s[0] = 1;
    });
    return 0;
}

/* NUMA policies on a machine with one node: what is accepted, and what is told afterwards. */
#include "case.h"

enum { DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, PREFERRED_MANY, WEIGHTED };
enum { F_NODE = 1, F_ADDR = 2, F_MEMS_ALLOWED = 4 };
#define STATIC (1 << 15)
#define RELATIVE (1 << 14)

static const unsigned long none[16], first[16] = {1}, second[16] = {2}, both[16] = {3}, far[16] = {1, 0, 4};

static void tell(const char *name, void *address, unsigned long flags)
{
    int mode = -1;
    unsigned long nodes[16];
    memset(nodes, 0xff, sizeof nodes);
    errno = 0;
    long r = syscall(SYS_get_mempolicy, &mode, nodes, 1024, address, flags);
    TELL(name, "%ld %s mode %#x nodes %lx %lx", r, r ? case_errno(errno) : "", mode, nodes[0], nodes[15]);
}

int main(void)
{
    static const struct {
        const char *name;
        const unsigned long *nodes;
    } masks[] = {{"none", none}, {"node 0", first}, {"node 1", second}, {"both", both}, {"far", far}};
    static const int modes[] = {DEFAULT, PREFERRED, BIND, INTERLEAVE, LOCAL, PREFERRED_MANY, BIND | STATIC,
                                PREFERRED | STATIC, BIND | RELATIVE, BIND | STATIC | RELATIVE, LOCAL | STATIC};
    char *p = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    tell("at first", 0, 0);
    tell("allowed", 0, F_MEMS_ALLOWED);
    tell("allowed and node", 0, F_MEMS_ALLOWED | F_NODE);
    tell("unknown flag", 0, 8);
    tell("node without interleaving", 0, F_NODE);
    tell("address without flag", p, 0);
    tell("unmapped", (void *)8, F_ADDR);
    for (int i = 0; i < ARRAY_LENGTH(modes); i++)
        for (int m = 0; m < ARRAY_LENGTH(masks); m++) {
            CASEF(syscall(SYS_set_mempolicy, modes[i], masks[m].nodes, 65), "set %#x %s", modes[i], masks[m].name);
            tell(case_format("policy %#x %s", modes[i], masks[m].name), 0, 0);
            CASEF(syscall(SYS_mbind, p, 4096, modes[i], masks[m].nodes, 65, 0), "mbind %#x %s", modes[i], masks[m].name);
            tell(case_format("policy there %#x %s", modes[i], masks[m].name), p, F_ADDR);
            tell(case_format("policy beside %#x %s", modes[i], masks[m].name), p + 4096, F_ADDR);
        }
    CASE("set nothing", syscall(SYS_set_mempolicy, DEFAULT, 0, 0));
    CASE("set unknown", syscall(SYS_set_mempolicy, 77, 0, 0));
    CASE("set negative", syscall(SYS_set_mempolicy, -1, 0, 0));
    CASE("set bad pointer", syscall(SYS_set_mempolicy, BIND, (void *)8, 64));
    CASE("set too many", syscall(SYS_set_mempolicy, BIND, first, 1 << 20));
    CASE("interleave", syscall(SYS_set_mempolicy, INTERLEAVE, first, 64));
    tell("next node", 0, F_NODE);
    IN_CHILD("a child", tell("policy of a child", 0, 0));
    p[4096] = 1;
    tell("node of a page", p + 4096, F_ADDR | F_NODE);
    CASE("get bad pointer", syscall(SYS_get_mempolicy, 8, 0, 0, 0, 0));
    CASE("get small mask", syscall(SYS_get_mempolicy, 0, none, 0, 0, 0));
    CASE("mbind unaligned", syscall(SYS_mbind, p + 1, 4096, BIND, first, 64, 0));
    CASE("mbind nothing", syscall(SYS_mbind, p, 0, BIND, first, 64, 0));
    CASE("mbind bad flags", syscall(SYS_mbind, p, 4096, BIND, first, 64, 64));
    CASE("mbind hole", syscall(SYS_mbind, 4096 * 16, 4096, BIND, first, 64, 0));
    CASE("mbind wrap", syscall(SYS_mbind, p, -4096l, BIND, first, 64, 0));
    CASE("migrate", syscall(SYS_migrate_pages, 0, 64, first, first));
    CASE("migrate to no node", syscall(SYS_migrate_pages, 0, 64, first, second));
    CASE("migrate bad pointer", syscall(SYS_migrate_pages, 0, 64, (void *)8, first));
    CASE("migrate nobody", syscall(SYS_migrate_pages, 0x3ffffff, 64, first, first));
    CASE("migrate too many", syscall(SYS_migrate_pages, 0, 1 << 20, first, first));
    IN_CHILD("unprivileged", {
        setresuid(65534, 65534, 65534);
        CASE("nobody migrates another", syscall(SYS_migrate_pages, getppid(), 64, first, first));
        CASE("nobody migrates afar", syscall(SYS_migrate_pages, 0, 64, first, second));
        CASE("nobody moves all", syscall(SYS_move_pages, 0, 0, 0, 0, 0, 4));
    });
    void *pages[3] = {p + 4096, p + 7 * 4096, (void *)8};
    int goals[3] = {0, 0, 0}, status[3] = {9, 9, 9};
    CASE("where", syscall(SYS_move_pages, 0, 3, pages, 0, status, 0));
    TELL("status", "%d %d %d", status[0], status[1], status[2]);
    goals[0] = 1;
    CASE("move to no node", syscall(SYS_move_pages, 0, 1, pages, goals, status, 2));
    goals[0] = -1;
    CASE("move to a negative one", syscall(SYS_move_pages, 0, 1, pages, goals, status, 2));
    CASE("move bad flags", syscall(SYS_move_pages, 0, 1, pages, goals, status, 8));
    CASE("move bad pages", syscall(SYS_move_pages, 0, 1, (void *)8, 0, status, 0));
    CASE("move bad status", syscall(SYS_move_pages, 0, 1, pages, 0, (void *)8, 0));
    CASE("move of nobody", syscall(SYS_move_pages, 0x3ffffff, 1, pages, 0, status, 0));
    return 0;
}

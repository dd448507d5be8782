/* What the parts of emulator.cpu._hooks share: guest-physical frames, page tables, instruction scanning.
 *
 * No Unicorn headers: engine.c is given the addresses of the loaded library's functions.
 */
#ifndef EMUGDB_HOOKS_H
#define EMUGDB_HOOKS_H
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#define PAGE_SHIFT 12
#define PAGE ((uint64_t)1 << PAGE_SHIFT)
#define PAGE_MASK (PAGE - 1)
#define LIKELY(x) __builtin_expect(!!(x), 1)
#define UNLIKELY(x) __builtin_expect(!!(x), 0)

/* Access kinds are the protection bits they need; these are the kernel's numbers. */
enum { P_READ = 1, P_WRITE = 2, P_EXEC = 4, P_ALL = 7 };

/* ---- arena: frames of guest-physical memory ------------------------------------------------------------------ */

enum { /* flags of a frame */
    F_RAN_RUNNER = 1,  /* the runner has translated code from it */
    F_RAN_STEPPER = 2, /* the stepper has */
    F_RAN = 3,
    F_BUS = 4, /* the host file ended under it: a zero page stands in */
};

typedef struct {
    uint64_t base, count;
} Run;

enum { MAX_KEPT = 96 };
typedef struct { /* a file mapping kept for the next process */
    struct stat st;
    long long offset, count;
    struct Frames *frames;
} Kept;

typedef struct {
    PyObject_HEAD
    uint8_t *base;
    uint64_t capacity, next, top, used, limit; /* frames: handed out from `next` up, runs from `top` down */
    uint32_t *refs;
    uint8_t *flags;
    uint64_t *free_frames;
    size_t n_free, cap_free;
    Run *free_runs;
    size_t n_runs, cap_runs;
    uint64_t *stale; /* frames whose translations must go before the next run */
    size_t n_stale, cap_stale;
    bool stale_all;
    Kept kept[MAX_KEPT];
    size_t next_kept;
    uint64_t fences; /* bumped whenever a running engine must look at `stale` */
    volatile uint64_t *limit_of_core; /* how the guard makes a running engine come back */
    volatile int *attention_of_core;
    volatile uint64_t bus_frame; /* 1 + the frame the SIGBUS guard patched last */
} Arena;

typedef struct Frames {
    PyObject_HEAD
    Arena *arena;
    uint64_t base, count;
    bool file;
} Frames;

extern PyTypeObject ArenaType, FramesType, TableType, CoreType, EntryType;

static inline uint8_t *frame_host(Arena *a, uint64_t frame) { return a->base + (frame << PAGE_SHIFT); }
bool arena_note_stale(Arena *a, uint64_t frame);
uint64_t arena_new_frame(Arena *a, bool zero);
void arena_release_frame(Arena *a, uint64_t frame);
void arena_trim(Arena *a, size_t count);
void raise_linux_error(const char *name);

/* ---- page tables --------------------------------------------------------------------------------------------- */

#define PTE_PRESENT ((uint64_t)8)
#define PTE_COW ((uint64_t)16)
#define PTE_DIRTY ((uint64_t)32)
#define PTE_PRIVATE ((uint64_t)64) /* the frame is refcounted by its pages, not owned by a Frames */
#define PTE_SHARED ((uint64_t)128)
#define PTE_FRAME(e) ((e) >> PAGE_SHIFT)
#define USER_BITS 48
#define TOP ((uint64_t)1 << USER_BITS)

typedef struct {
    uint64_t start, end;
    uint32_t prot;
    bool shared;
    Frames *frames; /* NULL: anonymous private */
    uint64_t first, valid; /* page index into frames of `start`; first index that is beyond the file */
} Region;

typedef struct {
    uint64_t start, end; /* end exclusive */
    uint32_t kind;       /* P_WRITE | P_READ */
    uint32_t refs;
} Watch;

typedef struct {
    PyObject_HEAD
    Arena *arena;
    void *root;
    Region *regions;
    size_t n_regions, cap_regions;
    uint64_t epoch;  /* bumped when a translation in some TLB may be wrong */
    uint32_t serial; /* names this table's code for the block clock; renewed when code may have changed place */
    uint64_t *points; /* breakpoints, sorted */
    size_t n_points, cap_points;
    Watch *watches;
    size_t n_watches, cap_watches;
    PyObject *hits; /* kernel-side stores into watched ranges: list of (address, kind) */
} Table;

bool table_read_u32(Table *t, uint64_t address, uint32_t *value); /* in the host's byte order; false: not readable */

enum Touch { T_OK, T_UNMAPPED, T_DENIED, T_BUS, T_NOMEM, T_RAN_COW };

/* Make the page usable for `access`; `*pte` is its entry afterwards.  T_RAN_COW: the page holds translated code and
 * has to change its frame, which only the host side may do (`may_replace_code`). */
enum Touch table_touch(Table *t, uint64_t address, int access, bool force, bool may_replace_code, uint64_t *pte);
int table_page_watch(const Table *t, uint64_t page); /* kinds watched on the page */
const Watch *table_watch_hit(const Table *t, uint64_t address, uint64_t size, int kind);
bool table_has_point(const Table *t, uint64_t address);
size_t table_first_point(const Table *t, uint64_t address);
uint64_t table_entry(const Table *t, uint64_t address); /* 0 if absent */
uint32_t fresh_serial(void);
uint64_t table_address(const Table *t, uint64_t frame); /* where a Frames' frame is mapped; NOWHERE if it is not */
const Region *table_region(const Table *t, uint64_t address);

/* ---- instruction scanning -------------------------------------------------------------------------------------- */

enum Insn { /* what has to be known of an instruction before it runs */
    I_PLAIN,
    I_UNDEFINED, /* the engine would execute it, wrongly: no such instruction */
    I_UNSUPPORTED, /* the same, and there are CPUs that have it: VEX, EVEX, XOP */
    I_PRIVILEGED,
    I_RDTSC,
    I_RDTSCP,
    I_RDRAND,
    I_POPF,
    I_CPUID,
    I_COUNTER, /* aarch64: reads the counter-timer */
    I_MXCSR, /* stores or loads MXCSR */
};

typedef struct { /* an instruction set's code, as CpuModel.scanner names it */
    const char *name;
    size_t lookahead; /* of a block: bytes behind the size the engine tells which its last instruction may have */
    /* Length and kind of the instruction at `p`; at most `room` bytes are looked at; 0 if it cannot be decoded. */
    int (*scan)(const uint8_t *p, size_t room, enum Insn *kind);
    /* Tells an instruction that may run again right after itself, from its MAX_LOOP bytes, zeroes behind the last.  NULL
     * where the engine has no precise self-modifying code (TARGET_HAS_PRECISE_SMC), which is when it is asked. */
    bool (*loops_on_itself)(const uint8_t *code);
} Scanner;
enum { MAX_LOOP = 20 };

extern const Scanner scanner_x86_64, scanner_aarch64;
const Scanner *scanner_of(const char *name); /* NULL: there is none */

#endif

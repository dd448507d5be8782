/* The CPU: two Unicorn instances over one arena, and what their callbacks tell each other. */
#ifndef EMUGDB_ENGINE_H
#define EMUGDB_ENGINE_H
#include "hooks.h"

typedef int uc_err;
typedef struct { /* <unicorn/unicorn.h>: uc_tlb_entry */
    uint64_t paddr;
    uint32_t perms;
} TlbEntry;

typedef struct { /* the functions of the loaded libunicorn */
    uc_err (*emu_start)(void *, uint64_t, uint64_t, uint64_t, size_t);
    uc_err (*emu_stop)(void *);
    uc_err (*reg_read)(void *, int, void *);
    uc_err (*reg_write)(void *, int, const void *);
    uc_err (*hook_add)(void *, size_t *, int, void *, void *, uint64_t, uint64_t, ...);
    uc_err (*ctl)(void *, int, ...);
    uc_err (*mem_map_ptr)(void *, uint64_t, uint64_t, uint32_t, void *);
    uc_err (*context_alloc)(void *, void **);
    uc_err (*context_save)(void *, void *);
    uc_err (*context_restore)(void *, void *);
    size_t (*context_size)(void *);
    uc_err (*context_free)(void *);
} Unicorn;

/* <unicorn/unicorn.h>; pinned by tests/emulator/cpu/test_unicorn_facts.py */
enum { UC_HOOK_INTR = 1, UC_HOOK_INSN = 2, UC_HOOK_CODE = 4, UC_HOOK_BLOCK = 8, UC_HOOK_MEM_READ = 1 << 10,
       UC_HOOK_MEM_WRITE = 1 << 11, UC_HOOK_INSN_INVALID = 1 << 14, UC_HOOK_EDGE_GENERATED = 1 << 15,
       UC_HOOK_TLB_FILL = 1 << 17 };
enum { UC_MEM_READ = 16, UC_MEM_WRITE = 17, UC_MEM_FETCH = 18 };
#define UC_CTL_WRITE(what, n) ((what) | (n) << 26 | 1 << 30)
enum { UC_CTL_USE_EXITS = 4, UC_CTL_EXITS = 6, UC_CTL_REMOVE_CACHE = 9, UC_CTL_FLUSH_TB = 10, UC_CTL_FLUSH_TLB = 11,
       UC_CTL_TLB_MODE = 12 };

#define NOWHERE UINT64_MAX
/* Frames show up here, execute-only, while translations of them are thrown away; no guest address lies here. */
#define ALIAS ((uint64_t)0xfff << 52)

enum Why { W_NONE, W_BLOCK, W_SYSCALL, W_INTERRUPT, W_INVALID, W_FAULT, W_DONE, W_POINT, W_SPECIAL, W_RANGE };

enum { S_STOP_BITS = 62, B_POINT_FIRST = 1, B_SPECIAL = 2, B_POINT = 4, B_RESUMED = 8 };
#define S_STOP ((uint64_t)1 << S_STOP_BITS)

typedef struct { /* one block (or one instruction) the clock knows */
    uint64_t addr;
    uint64_t key; /* serial of the table, size */
    uint64_t count; /* instructions; S_STOP: never run it without looking */
    uint32_t flags;
    enum Insn kind; /* of its first instruction */
} Slot;
#define SLOT_BITS 15

typedef struct { /* serve.c: the kernel's objects, and where their __slots__ lie */
    PyObject *serving; /* the task */
    PyObject *spec; /* keeps alive what follows */
    PyObject *entries, *events, *queue, *task_type, *call_type, *waiter_type;
    PyObject *timers, *host_fds, *host_watchers; /* somebody may have to be woken first if these are not empty */
    PyObject *futexes, *asleep, *load, *append, *popleft, *scheduler;
    PyObject *serial_name, *ranked_name;
    PyObject *runnable, *blocked, *user_mode, *in_call;
    int64_t futex;
    uint64_t again, restart; /* results: -EAGAIN, -ERESTARTSYS */
    uint64_t cost; /* of a call, in instructions of the task's turn */
    uint64_t long_turn; /* instructions: what is left of a longer one is cut if others wait */
    Py_ssize_t call, attention, watch_calls, special, stepping, hold, trace, group, space; /* of a Task */
    Py_ssize_t state, wait, queued, quantum_end, switches;
    Py_ssize_t number, args, memo, deadline, phase; /* of its Call */
    Py_ssize_t stopped, exiting; /* of its ThreadGroup */
    Py_ssize_t w_task, w_key, w_bitset, w_index, w_pi, w_requeue, w_woken; /* of a futex's Waiter */
} Served;

static inline PyObject **slot(PyObject *object, Py_ssize_t offset) { return (PyObject **)((char *)object + offset); }

static inline void put(PyObject *object, Py_ssize_t offset, PyObject *value) /* steals `value` */
{
    PyObject **at = slot(object, offset), *old = *at;
    *at = value;
    Py_XDECREF(old);
}

static inline void set(PyObject *object, Py_ssize_t offset, PyObject *value)
{
    if (*slot(object, offset) != value)
        put(object, offset, Py_NewRef(value));
}

/* Nobody wants to look at the task before its next instruction. */
static inline bool undisturbed(const Served *s, PyObject *task)
{
    return *slot(task, s->attention) == Py_False && *slot(task, s->watch_calls) == Py_False &&
           *slot(task, s->special) == Py_False && *slot(task, s->stepping) == Py_None;
}

struct Core;
typedef struct {
    struct Core *core;
    void *uc;
    uint8_t ran; /* F_RAN_* */
    bool aliasing;
    PyObject *owner; /* the binding's Uc object */
    uint64_t epoch;
    Table *table; /* borrowed: only compared */
    uint64_t fills, crowd; /* since the last flush; how many mean that the TLB is too small */
    uint64_t *writable_code; /* pages given W while their frame holds code */
    size_t n_writable_code, cap_writable_code;
} Engine;

enum { MAX_SHADOWS = 16, MAX_MASKS = 32, MAX_GENERAL = 32, MAX_CLOBBERS = 4, MAX_OPENED = 48, MAX_UNDO = 64 };

enum { RAX, RCX, RDX, RBX }; /* in reg_general */
typedef struct {
    uint32_t leaf, subleaf, reg, clear; /* reg: RAX, ... */
} CpuidMask;

typedef struct Core {
    PyObject_HEAD
    /* hot: the block hook */
    uint64_t clock;
    uint64_t calls; /* system calls made */
    volatile uint64_t limit;
    Slot *last;
    Slot *slots;
    uint64_t key; /* serial << 32 */
    /* hot: the stepper's code hook */
    uint64_t steps_left, last_pc, range_start, range_end, skip_pc, allow_pc;
    volatile int stop, attention; /* come back at the next block or instruction */
    bool crowded, probing, watching, again;
    bool soft; /* the block that passes the limit may run to its end */
    enum Why why;
    Engine runner, stepper, *live;
    Arena *arena;
    Table *table;
    Unicorn u;
    const Scanner *scanner;
    /* what stopped us */
    int interrupt;
    uint64_t fault_address;
    int fault_access;
    enum Touch fault_why;
    /* finding the exact address of a fault: the refused page is replaced by a scratch frame for one instruction */
    uint64_t scratch, probe_page, probe_address;
    Slot pending;
    /* watchpoints: pages opened for the stepper while `watching`, and what was touched */
    struct { uint64_t page, frame; } opened[MAX_OPENED];
    size_t n_opened;
    uint64_t crossing; /* bytes of the last access that lie on the following page */
    uint64_t hit_address;
    uint32_t hit_kind;
    bool hit;
    uint64_t burst, burst_end;
    Slot kept_last;
    struct { uint8_t *host; uint8_t old[16]; uint32_t size; } undo[MAX_UNDO];
    size_t n_undo;
    /* What arch/ says of the CPU (CpuModel, SyscallConvention); registers by Unicorn's numbers. */
    int reg_pc, reg_nr, reg_args[6], reg_result, reg_flags, reg_mxcsr; /* 0: the ISA has none */
    int reg_general[MAX_GENERAL]; /* in the order in which an instruction encodes them */
    struct { int32_t to, from; } clobbers[MAX_CLOBBERS]; /* registers a system call overwrites, and with which */
    size_t n_clobbers;
    int syscall_interrupt, insn_syscall, insn_refused; /* an interrupt's number or an instruction's; -1, 0: none */
    int syscall_length;
    int reports_before;
    int lazy_flags_offset, lazy_flags_value; /* in the registers of a context; value -1: the ISA has none */
    uint64_t contributory; /* exceptions that make a double fault, a bit each */
    CpuidMask masks[MAX_MASKS];
    size_t n_masks;
    void *context, *kept; /* scratch for moving state; the state before an instruction */
    size_t context_size;
    uint64_t shadows[MAX_SHADOWS];
    int saved_shadow; /* which shadow is orig_rax: the number of the call at a syscall exit, else -1 */
    char *fresh; /* the registers of a new CPU */
    size_t exception_offset;
    size_t mxcsr_offset; /* in a context; 0: the ISA has none */
    bool running;
    uint64_t patience; /* TLB fills and calls until the caller wants the CPU back, however few instructions that is */
    bool tells_stores; /* come back behind a system call that stored into a watched range */
    uint64_t fences;
    /* the answers' types */
    PyObject *Syscall, *PageFault, *BusError, *Interrupt, *Undefined, *Privileged, *BreakpointHit, *WatchHit;
    PyObject *BUDGET, *RANGE_DONE, *STOP_REQUESTED, *SERVED;
    Served served;
    uint64_t n_fills, n_flushes, n_switches, n_steps, n_starts;
} Core;

/* plt.c: functions of ours in place of the library's own, which they may call */
#if defined(__x86_64__) && defined(__GLIBC__)
#define CAN_REPLACE_CALLS
#endif
typedef struct {
    const char *name;
    void *ours;
    void **original;
} Replacement;
void replace_calls(const void *inside, const Replacement *list, size_t n,
                   bool (*fits)(const char *name, const uint8_t *code));
void speed_up_floats(const Unicorn *u);
void guard_decoder(const Unicorn *u);

/* struct uc_context of <uc_priv.h>: the registers follow a 40-byte header; checked when the core is made. */
enum { CONTEXT_HEADER = 40 };

enum Answer { A_NONE, A_BUDGET, A_RANGE, A_STOP, A_SYSCALL, A_FAULT, A_BUS, A_INTERRUPT, A_UNDEFINED, A_PRIVILEGED, A_POINT,
              A_WATCH };

/* spec.c; both raise */
bool core_read_spec(Core *c, PyObject *spec);
const Scanner *core_find_scanner(const char *name);

/* registers.c: methods of Core, listed in core.c */
PyObject *core_read_reg(Core *c, PyObject *args);
PyObject *core_write_reg(Core *c, PyObject *args);
PyObject *core_read_regs(Core *c, PyObject *args);
PyObject *core_write_regs(Core *c, PyObject *args);
PyObject *core_set_result(Core *c, PyObject *value);
PyObject *core_save(Core *c, PyObject *unused);
PyObject *core_load(Core *c, PyObject *blob);
PyObject *core_merge_mxcsr(Core *c, PyObject *unused);

/* run.c */
void core_flush_tlb(Core *c, Engine *e);
void core_enter(Core *c, Engine *e); /* make `e` hold the guest's state, its TLB and translations up to date */
void core_run_runner(Core *c, uint64_t until); /* freely, until a block would pass `until`, or something happens */
void core_run_stepper(Core *c, uint64_t steps); /* at most so many instructions */

/* answer.c */
enum Answer core_run_until(Core *c, uint64_t until);
enum Answer core_step_until(Core *c, uint64_t until, uint64_t start, uint64_t end);
void core_find_mxcsr(Core *c, int reg);
void core_sync_mxcsr(Core *c);

/* core.c */
bool core_may_run(Core *c); /* or an exception is set */
enum Answer core_run_freed(Core *c, uint64_t until); /* core_run_until without the GIL */
PyObject *core_answer(Core *c, enum Answer got);
void core_syscall(Core *c, uint64_t *raw); /* what SYSCALL does; its six arguments */
PyObject *core_box(const uint64_t *raw); /* they as a tuple */

/* serve.c */
PyObject *core_serve_for(Core *c, PyObject *spec);
PyObject *core_serve(Core *c, PyObject *const *args, Py_ssize_t n);
void core_forget_served(Core *c);

/* futex.c */
enum Futex { FUTEX_ELSEWHERE, FUTEX_DONE, FUTEX_HANDED_OVER, FUTEX_RAISED };
enum Futex serve_futex(Core *c, PyObject *task, const uint64_t *raw, uint64_t end, PyObject **next);

/* engine.c */
void core_hook(Core *c);
void core_forget(Core *c, uint64_t addr); /* what is known of the block there */
Slot *core_slot(Core *c, uint64_t addr, uint32_t size);
/* Instructions between two addresses of straight-line code. */
uint64_t core_count(Core *c, uint64_t from, uint64_t to);

/* The first instruction at or after `pc` that has bytes on `page`; `pc` if it cannot be told. */
uint64_t core_edge(Core *c, uint64_t pc, uint64_t page);
size_t code_bytes(Core *c, uint64_t addr, uint8_t *to, size_t n);

static inline void attend(Core *c)
{
    c->attention = 1;
    c->limit = 0;
}

static inline void tire(Core *c, uint64_t by)
{
    c->patience = c->patience > by ? c->patience - by : 0;
    if (UNLIKELY(!c->patience)) {
        c->stop = 1;
        attend(c);
    }
}

static inline uint64_t core_reg(Core *c, Engine *e, int reg)
{
    uint64_t v = 0;
    c->u.reg_read(e->uc, reg, &v);
    return v;
}
static inline void core_set(Core *c, Engine *e, int reg, uint64_t v) { c->u.reg_write(e->uc, reg, &v); }

#endif

/* The run loop: which engine runs, from where, until when, and why it came back. */
#include "engine.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

/* struct uc_context of <uc_priv.h>: the registers follow a 40-byte header; checked when the core is made. */
enum { CONTEXT_HEADER = 40 };

/* ---- engines ------------------------------------------------------------------------------------------------------- */

static void forget_frame(Core *c, Engine *e, uint64_t frame)
{
    e->aliasing = true; /* get_page_addr_code asks the TLB hook for this address and finds the frame */
    c->u.ctl(e->uc, UC_CTL_WRITE(UC_CTL_REMOVE_CACHE, 2), ALIAS + (frame << PAGE_SHIFT),
             ALIAS + ((frame + 1) << PAGE_SHIFT));
    e->aliasing = false;
}

static Engine *other(Core *c, Engine *e) { return e == &c->runner ? &c->stepper : &c->runner; }

/* Frames `e` could write while they held code: what the other engine translated from them is old. */
static void tell_other(Core *c, Engine *e)
{
    Engine *o = other(c, e);
    for (size_t i = 0; i < e->n_writable_code; i++)
        if (c->arena->flags[e->writable_code[i]] & o->ran)
            forget_frame(c, o, e->writable_code[i]);
}

static void flush_tlb(Core *c, Engine *e)
{
    tell_other(c, e);
    e->n_writable_code = 0;
    c->u.ctl(e->uc, UC_CTL_WRITE(UC_CTL_FLUSH_TLB, 0));
    e->fills = 0;
    e->epoch = c->table->epoch;
    e->table = c->table;
    c->n_flushes++;
}

static void drain_stale(Core *c)
{
    Arena *a = c->arena;
    Engine *both[] = {&c->runner, &c->stepper};
    for (int i = 0; i < 2; i++) {
        if (a->stale_all)
            c->u.ctl(both[i]->uc, UC_CTL_WRITE(UC_CTL_FLUSH_TB, 0));
        else
            for (size_t j = 0; j < a->n_stale; j++)
                forget_frame(c, both[i], a->stale[j]);
    }
    a->stale_all = false;
    a->n_stale = 0;
    c->table->serial = fresh_serial();
    c->fences = a->fences;
}

/* Make `e` the engine that holds the guest's state, with its TLB and translations up to date. */
static void enter(Core *c, Engine *e)
{
    if (c->live != e) {
        Engine *from = c->live;
        c->u.context_save(from->uc, c->context);
        c->u.context_restore(e->uc, c->context);
        c->live = e;
        c->n_switches++;
        if (UNLIKELY(from->n_writable_code)) {
            tell_other(c, from);
            if (from == &c->stepper)
                flush_tlb(c, from); /* so that its next store into code is seen again */
        }
    }
    if (UNLIKELY(c->arena->fences != c->fences))
        drain_stale(c);
    if (UNLIKELY(e->table != c->table || e->epoch != c->table->epoch))
        flush_tlb(c, e);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

/* The engine does not announce the first block of a run (UC_HOOK_EDGE_GENERATED), so if the guest may have changed code
 * what the clock knows of it may be old. */
static void doubt_first_block(Core *c, uint64_t pc)
{
    if (UNLIKELY(c->runner.n_writable_code || c->stepper.n_writable_code))
        core_forget(c, pc);
}

/* Run freely until a block would pass `until`, or must not run unlooked-at, or something happens. */
static void run_runner(Core *c, uint64_t until)
{
    Engine *e = &c->runner;
    enter(c, e);
    c->why = W_NONE;
    c->last = NULL;
    c->key = (uint64_t)c->table->serial << 32;
    c->attention = 0;
    c->limit = until;
    atomic_thread_fence(memory_order_seq_cst);
    if (c->stop)
        attend(c);
    c->n_starts++;
    uint64_t start = core_reg(c, e, c->reg_pc);
    doubt_first_block(c, start);
    c->u.emu_start(e->uc, start, 0, 0, 0);
    c->skip_pc = NOWHERE;
    Slot *s = c->last;
    if (c->why == W_BLOCK || c->why == W_SYSCALL || !s || (c->why == W_FAULT && c->fault_access == P_EXEC))
        return;
    uint64_t pc = core_reg(c, e, c->reg_pc), end = s->addr + (uint32_t)s->key;
    if (pc >= s->addr && pc < end) /* the block was left early */
        c->clock -= core_count(c, pc, end);
}

/* A code hook makes the translator compute the flags into CC_SRC in front of every instruction; when that instruction
 * then faults, the engine restores the CC_OP of before (target/i386/cpu.h, CPUX86State), and the two do not match: the
 * flags are garbage.  CC_OP_EFLAGS says what CC_SRC holds.  The offset is checked when the core is made. */
enum { CC_OP_OFFSET = 168, CC_OP_EFLAGS = 1 };

static void mend_flags(Core *c)
{
    if (c->isa != ISA_X86_64)
        return;
    c->u.context_save(c->live->uc, c->context);
    int32_t *cc_op = (int32_t *)((char *)c->context + CONTEXT_HEADER + CC_OP_OFFSET);
    if (*cc_op != CC_OP_EFLAGS) {
        *cc_op = CC_OP_EFLAGS;
        c->u.context_restore(c->live->uc, c->context);
    }
}

/* Step at most `steps` instructions. */
static void run_stepper(Core *c, uint64_t steps)
{
    Engine *e = &c->stepper;
    enter(c, e);
    c->why = W_NONE;
    c->last_pc = NOWHERE;
    c->attention = 0;
    atomic_thread_fence(memory_order_seq_cst);
    if (c->stop)
        attend(c);
    c->steps_left = steps;
    c->key = (uint64_t)c->table->serial << 32;
    c->n_steps++;
    uint64_t start = core_reg(c, e, c->reg_pc);
    doubt_first_block(c, start);
    c->u.emu_start(e->uc, start, 0, 0, 0);
    c->allow_pc = NOWHERE;
    if (c->why == W_FAULT || c->why == W_INTERRUPT || c->why == W_INVALID) {
        mend_flags(c);
        if (c->why == W_FAULT && c->fault_access == P_EXEC) {
            if (!c->steps_left)
                c->why = W_DONE; /* the next instruction's page is not our business yet */
        } else if (c->last_pc != NOWHERE && core_reg(c, e, c->reg_pc) == c->last_pc) {
            c->clock--; /* it did not complete */
            c->steps_left++;
        }
    }
}

/* Intel SDM 3, table 6-5: a second contributory exception while one is handled is a double fault.  Nobody tells the
 * engine that the first was handled (`env->old_exception` stays), so the next division by zero would come as one, and
 * the third stops the CPU for good.  The field is found by what it does: -1 in a fresh CPU, the exception's number now. */
static void forget_exception(Core *c)
{
    if (c->isa != ISA_X86_64)
        return;
    c->u.context_save(c->live->uc, c->context);
    char *now = (char *)c->context + CONTEXT_HEADER;
    size_t n = c->context_size - CONTEXT_HEADER;
    int32_t number = c->interrupt, none = -1, value;
    if (!c->exception_offset && (number == 0 || (number >= 10 && number <= 13)))
        for (size_t at = 0; at + 4 <= n; at += 4) {
            memcpy(&value, c->fresh + at, 4);
            if (value == -1 && !memcmp(now + at, &number, 4))
                c->exception_offset = at;
        }
    if (c->exception_offset && memcmp(now + c->exception_offset, &none, 4)) {
        memcpy(now + c->exception_offset, &none, 4);
        c->u.context_restore(c->live->uc, c->context);
    }
}

/* SSE exceptions are kept apart from MXCSR by the engine (env->sse_status), and its stmxcsr does not look there: merge
 * them before anybody reads or replaces MXCSR.  struct float_status is 8 bytes in front of mxcsr, its flags the third;
 * their bits are MXCSR's but for the denormals'. */
enum { FLAGS_BEFORE_MXCSR = 6 };

static void sync_mxcsr(Core *c)
{
    if (!c->mxcsr_offset)
        return;
    c->u.context_save(c->live->uc, c->context);
    uint8_t *mxcsr = (uint8_t *)c->context + CONTEXT_HEADER + c->mxcsr_offset, *flags = mxcsr - FLAGS_BEFORE_MXCSR;
    if (!*flags)
        return;
    *mxcsr |= (*flags & 0x3d) | (*flags & 0x40 ? 0x02 : 0) | (*flags & 0x80 ? 0x10 : 0);
    *flags = 0;
    c->u.context_restore(c->live->uc, c->context);
}

/* MXCSR is where two values written to it differ. */
static void find_mxcsr(Core *c, int reg)
{
    uint32_t one = 0x1f80, other = 0x5f80, value;
    size_t n = c->context_size - CONTEXT_HEADER;
    char *now = (char *)c->context + CONTEXT_HEADER;
    c->u.reg_write(c->runner.uc, reg, &other);
    c->u.context_save(c->runner.uc, c->kept);
    c->u.reg_write(c->runner.uc, reg, &one);
    c->u.context_save(c->runner.uc, c->context);
    for (size_t at = 8; at + 4 <= n; at += 4) {
        memcpy(&value, (char *)c->kept + CONTEXT_HEADER + at, 4);
        if (value == other && !memcmp(now + at, &one, 4))
            c->mxcsr_offset = at;
    }
}

/* ---- answers ------------------------------------------------------------------------------------------------------------ */

enum Answer { A_NONE, A_BUDGET, A_RANGE, A_STOP, A_SYSCALL, A_FAULT, A_BUS, A_INTERRUPT, A_UNDEFINED, A_PRIVILEGED, A_POINT,
              A_WATCH };

/* Execute the instruction at pc, whatever it is, in the stepper. */
static enum Why step_over(Core *c)
{
    c->allow_pc = c->skip_pc = core_reg(c, c->live, c->reg_pc);
    run_stepper(c, 1);
    c->skip_pc = NOWHERE;
    return c->why;
}

/* Take away what the instruction set's description says cpuid must not promise (Arch.cpu.cpuid). */
static void mask_cpuid(Core *c, uint32_t leaf, uint32_t subleaf)
{
    int regs[] = {c->reg_ax, c->reg_bx, c->reg_cx, c->reg_dx};
    bool has_subleaves = leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
    for (size_t i = 0; i < c->n_masks; i++) {
        const CpuidMask *m = &c->masks[i];
        if (m->leaf == leaf && (!has_subleaves || m->subleaf == subleaf))
            core_set(c, c->live, regs[m->reg & 3], (uint32_t)core_reg(c, c->live, regs[m->reg & 3]) & ~m->clear);
    }
}

static enum Answer answer(Core *c, uint64_t until);

/* The stepper stands before an instruction that must not simply run. */
static enum Answer special(Core *c, uint64_t until)
{
    Engine *e = c->live;
    uint64_t pc = core_reg(c, e, c->reg_pc), flags;
    uint32_t leaf, subleaf;
    uint8_t insn[4] = {0};
    switch (c->pending.kind) {
    case I_UNDEFINED:
    case I_RDRAND:
        return A_UNDEFINED;
    case I_PRIVILEGED:
        return A_PRIVILEGED;
    case I_RDTSC:
    case I_RDTSCP: /* time is the clock: reproducible */
        core_set(c, e, c->reg_ax, (uint32_t)c->clock);
        core_set(c, e, c->reg_dx, c->clock >> 32);
        if (c->pending.kind == I_RDTSCP)
            core_set(c, e, c->reg_cx, 0);
        core_set(c, e, c->reg_pc, pc + (uint32_t)c->pending.key);
        c->clock++;
        return A_NONE;
    case I_COUNTER: /* mrs xN, cntvct_el0 */
        code_bytes(c, pc, insn, 4);
        if ((insn[0] & 31) != 31)
            core_set(c, e, c->reg_x[insn[0] & 31], c->clock);
        core_set(c, e, c->reg_pc, pc + 4);
        c->clock++;
        return A_NONE;
    case I_CPUID:
        leaf = (uint32_t)core_reg(c, e, c->reg_ax);
        subleaf = (uint32_t)core_reg(c, e, c->reg_cx);
        if (step_over(c) == W_DONE)
            mask_cpuid(c, leaf, subleaf);
        break;
    case I_MXCSR:
        sync_mxcsr(c);
        step_over(c);
        break;
    case I_POPF: /* at privilege level 3 IF and IOPL do not change */
        if (step_over(c) == W_DONE) {
            flags = core_reg(c, e, c->reg_flags);
            core_set(c, e, c->reg_flags, (flags & ~(uint64_t)0x1a7000) | 0x202);
        }
        break;
    default:
        step_over(c);
        break;
    }
    return c->why == W_SPECIAL ? A_NONE : answer(c, until);
}

enum { WIDEST = 64 };

/* The memory behind a guest address of a present page, or NULL. */
static uint8_t *host_of(Core *c, uint64_t address)
{
    uint64_t pte = table_entry(c->table, address);
    return pte & PTE_PRESENT ? (uint8_t *)c->arena->base + (PTE_FRAME(pte) << PAGE_SHIFT) + (address & PAGE_MASK) : NULL;
}

/* The TLB hook is told the page only.  Execute the instruction once more with a scratch frame in place of that page:
 * the access hook then sees the address.  Everything but memory that was already written is put back. */
static void locate_fault(Core *c)
{
    uint64_t page = c->fault_address, pc = core_reg(c, c->live, c->reg_pc), clock = c->clock;
    if (c->fault_access == P_EXEC) {
        c->fault_address = (pc & ~PAGE_MASK) == page ? pc : page;
        return;
    }
    enum Why why = c->why;
    int access = c->fault_access;
    enum Touch fault_why = c->fault_why;
    c->u.context_save(c->live->uc, c->kept);
    enter(c, &c->stepper);
    flush_tlb(c, &c->stepper);
    /* A store that straddles into the refused page must leave no byte in its neighbours. */
    uint64_t beside[2] = {page - WIDEST, page + PAGE};
    uint8_t kept[2][WIDEST], *host;
    for (int i = 0; i < 2; i++)
        if ((host = host_of(c, beside[i])))
            memcpy(kept[i], host, WIDEST);
        else
            beside[i] = NOWHERE;
    c->probing = true;
    c->probe_page = c->probe_address = NOWHERE;
    step_over(c);
    c->probing = false;
    for (int i = 0; i < 2 && access == P_WRITE; i++)
        if (beside[i] != NOWHERE && (host = host_of(c, beside[i])) && memcmp(host, kept[i], WIDEST))
            memcpy(host, kept[i], WIDEST);
    c->u.context_restore(c->stepper.uc, c->kept);
    flush_tlb(c, &c->stepper);
    c->fault_address = c->probe_page == page && c->probe_address != NOWHERE ? c->probe_address : page;
    c->clock = clock;
    c->why = why;
    c->fault_access = access;
    c->fault_why = fault_why;
}

/* The instruction at pc touches a watched page.  The stepper runs it, and, if that happens often, the next ones too,
 * with the page open and every access compared with the watched ranges. */
static enum Answer watch(Core *c, uint64_t until)
{
    if (c->reports_before) {
        c->burst = 1;
        c->u.context_save(c->live->uc, c->kept);
    } else {
        c->burst = c->burst && c->clock - c->burst_end < 256 ? (c->burst < 4096 ? c->burst * 2 : c->burst) : 1;
    }
    uint64_t n = c->burst < until - c->clock ? c->burst : until - c->clock, clock = c->clock;
    c->hit = false;
    c->n_opened = c->n_undo = 0;
    c->crossing = 0;
    c->watching = true;
    c->skip_pc = core_reg(c, c->live, c->reg_pc);
    run_stepper(c, n ? n : 1);
    c->skip_pc = NOWHERE;
    c->watching = false;
    c->burst_end = c->clock;
    if (c->n_opened)
        flush_tlb(c, &c->stepper);
    if (!c->hit || c->why == W_FAULT) /* a fault: the instruction is not over, it will come again */
        return A_NONE;
    if (c->reports_before) {
        for (size_t i = c->n_undo; i--;)
            memcpy(c->undo[i].host, c->undo[i].old, c->undo[i].size);
        c->u.context_restore(c->live->uc, c->kept);
        c->clock = clock;
    }
    return A_WATCH;
}

/* The SIGBUS guard stood in for a page its host file no longer has.  The access is over: pc is behind it. */
static enum Answer answer_bus(Core *c)
{
    uint64_t frame = c->arena->bus_frame - 1;
    c->arena->bus_frame = 0;
    if (c->why == W_SYSCALL) { /* not made yet: it comes again after the signal */
        core_set(c, c->live, c->reg_pc, core_reg(c, c->live, c->reg_pc) - (c->isa == ISA_X86_64 ? 2 : 4));
        c->clock--;
    }
    c->why = W_NONE;
    c->fault_why = T_BUS;
    c->fault_address = table_address(c->table, frame);
    c->table->epoch++;
    return A_BUS;
}

static enum Answer answer_fault(Core *c)
{
    uint64_t pte;
    if (c->fault_why == T_RAN_COW) { /* translated code moves to a fresh frame: outside of a callback only */
        c->fault_why = table_touch(c->table, c->fault_address, c->fault_access, false, true, &pte);
        if (c->fault_why == T_OK)
            return A_NONE;
    }
    locate_fault(c);
    return c->fault_why == T_BUS ? A_BUS : A_FAULT;
}

/* A block is translated as a whole, so straight-line code that runs into a page it must not enter faults when its block
 * is made, with pc at the block's start.  Run what lies in front of the page by itself: an exit (<unicorn/unicorn.h>,
 * uc_ctl_set_exits) keeps the translator from looking further.  True if something ran; then look at `why` again. */
static bool run_up_to_page(Core *c, uint64_t until)
{
    uint64_t pc = core_reg(c, c->live, c->reg_pc), page = c->fault_address, clock = c->clock;
    uint64_t edge = c->fault_access == P_EXEC && pc < page && page - pc <= PAGE ? core_edge(c, pc, page) : pc;
    if (edge <= pc)
        return false;
    enum Touch why = c->fault_why;
    c->u.ctl(c->stepper.uc, UC_CTL_WRITE(UC_CTL_EXITS, 2), &edge, (size_t)1);
    run_stepper(c, until - c->clock);
    c->u.ctl(c->stepper.uc, UC_CTL_WRITE(UC_CTL_EXITS, 2), &edge, (size_t)0);
    if (c->clock != clock)
        return true;
    c->why = W_FAULT;
    c->fault_address = page;
    c->fault_access = P_EXEC;
    c->fault_why = why;
    return false;
}

/* What the last engine run means; A_NONE: go on. */
static enum Answer answer(Core *c, uint64_t until)
{
    if (UNLIKELY(c->arena->bus_frame))
        return answer_bus(c);
    if (c->why == W_FAULT && c->fault_why == T_OK) {
        enum Answer got = watch(c, until);
        if (got != A_NONE || c->why == W_DONE || (c->why == W_FAULT && c->fault_why == T_OK))
            return got;
    }
    switch (c->why) {
    case W_SYSCALL:
        return A_SYSCALL;
    case W_FAULT:
        if (run_up_to_page(c, until))
            return answer(c, until);
        return answer_fault(c);
    case W_INTERRUPT:
        forget_exception(c);
        return A_INTERRUPT;
    case W_INVALID:
        return A_UNDEFINED;
    case W_POINT:
        return A_POINT;
    case W_SPECIAL:
        return special(c, until);
    case W_RANGE:
        return A_RANGE;
    default:
        return A_NONE;
    }
}

static enum Answer run_until(Core *c, uint64_t until)
{
    for (;;) {
        if (UNLIKELY(c->stop))
            return A_STOP;
        if (c->clock >= until)
            return A_BUDGET;
        uint64_t skip = c->skip_pc, clock = c->clock;
        run_runner(c, until);
        if (c->clock == clock)
            c->skip_pc = skip; /* nothing ran yet */
        c->range_start = 0;
        c->range_end = UINT64_MAX;
        if (c->why == W_BLOCK) {
            if (c->crowded) {
                c->crowded = false;
                flush_tlb(c, &c->runner);
                if (c->runner.crowd < 1 << 19)
                    c->runner.crowd *= 2;
            }
            if ((c->attention && !c->arena->bus_frame) || c->clock >= until)
                continue;
            uint64_t n = c->pending.count & ~S_STOP;
            if (!c->attention)
                run_stepper(c, n < until - c->clock ? n : until - c->clock);
            c->skip_pc = NOWHERE;
        }
        enum Answer got = answer(c, until);
        if (got != A_NONE)
            return got;
    }
}

static enum Answer step_until(Core *c, uint64_t until, uint64_t start, uint64_t end)
{
    for (bool first = true;; first = false) {
        if (UNLIKELY(c->stop))
            return A_STOP;
        if (c->clock >= until)
            return A_BUDGET;
        if (!first && core_reg(c, c->live, c->reg_pc) - start >= end - start)
            return A_RANGE;
        c->range_start = start;
        c->range_end = end;
        run_stepper(c, until - c->clock);
        enum Answer got = answer(c, until);
        if (got != A_NONE)
            return got;
    }
}

/* ---- Python ------------------------------------------------------------------------------------------------------------- */

static PyObject *make(PyObject *type, const char *format, ...)
{
    va_list va;
    va_start(va, format);
    PyObject *args = Py_VaBuildValue(format, va);
    va_end(va);
    PyObject *out = args ? PyObject_CallObject(type, args) : NULL;
    Py_XDECREF(args);
    return out;
}

static PyObject *make_syscall(Core *c)
{
    Engine *e = c->live;
    PyTypeObject *type = (PyTypeObject *)c->Syscall;
    if (c->reg_r11) { /* SYSCALL saves the return address and the flags there (Intel SDM) */
        core_set(c, e, c->reg_cx, core_reg(c, e, c->reg_pc));
        core_set(c, e, c->reg_r11, core_reg(c, e, c->reg_flags));
    }
    PyObject *args = PyTuple_New(6);
    PyObject *out = args ? type->tp_alloc(type, 2) : NULL; /* a NamedTuple of two */
    if (!out) {
        Py_XDECREF(args);
        return NULL;
    }
    for (int i = 0; i < 6; i++)
        PyTuple_SET_ITEM(args, i, PyLong_FromUnsignedLongLong(core_reg(c, e, c->reg_args[i])));
    PyTuple_SET_ITEM(out, 0, PyLong_FromLongLong((int64_t)core_reg(c, e, c->reg_nr)));
    PyTuple_SET_ITEM(out, 1, args);
    return out;
}

static PyObject *make_answer(Core *c, enum Answer got)
{
    uint64_t pc = core_reg(c, c->live, c->reg_pc);
    unsigned long long at = c->fault_address;
    PyObject *access, *out;
    c->shadows[c->saved_shadow] = got == A_SYSCALL ? core_reg(c, c->live, c->reg_nr) : UINT64_MAX;
    switch (got) {
    case A_SYSCALL:
        return make_syscall(c);
    case A_BUDGET:
        Py_INCREF(c->BUDGET);
        return c->BUDGET;
    case A_RANGE:
        Py_INCREF(c->RANGE_DONE);
        return c->RANGE_DONE;
    case A_STOP:
        c->stop = 0;
        Py_INCREF(c->STOP_REQUESTED);
        return c->STOP_REQUESTED;
    case A_FAULT:
        if (c->fault_why == T_NOMEM) {
            raise_linux_error("ENOMEM");
            return NULL;
        }
        access = PyLong_FromLong(c->fault_access);
        out = make(c->PageFault, "KOO", at, access, c->fault_why == T_UNMAPPED ? Py_False : Py_True);
        Py_XDECREF(access);
        return out;
    case A_BUS:
        return make(c->BusError, "(K)", at);
    case A_INTERRUPT:
        return make(c->Interrupt, "(i)", c->interrupt);
    case A_UNDEFINED:
        return make(c->Undefined, "(K)", (unsigned long long)pc);
    case A_PRIVILEGED:
        return make(c->Privileged, "(K)", (unsigned long long)pc);
    case A_POINT:
        return make(c->BreakpointHit, "(K)", (unsigned long long)pc);
    case A_WATCH:
        return make(c->WatchHit, "(Ki)", (unsigned long long)c->hit_address, (int)c->hit_kind);
    default:
        PyErr_SetString(PyExc_SystemError, "no answer");
        return NULL;
    }
}

static bool may_run(Core *c)
{
    if (c->running) {
        PyErr_SetString(PyExc_RuntimeError, "the CPU is running");
        return false;
    }
    if (!c->table) {
        PyErr_SetString(PyExc_RuntimeError, "no address space");
        return false;
    }
    return true;
}

static PyObject *core_run(Core *c, PyObject *const *args, Py_ssize_t n)
{
    if (n < 1 || !may_run(c))
        return n < 1 ? PyErr_Format(PyExc_TypeError, "run(until, skip_breakpoint=False, soft=False)") : NULL;
    uint64_t until = PyLong_AsUnsignedLongLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    int skip = n > 1 ? PyObject_IsTrue(args[1]) : 0;
    c->soft = n > 2 && PyObject_IsTrue(args[2]);
    uint64_t pc = core_reg(c, c->live, c->reg_pc);
    c->skip_pc = skip && c->table->n_points && table_has_point(c->table, pc) ? pc : NOWHERE;
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = run_until(c, until);
    Py_END_ALLOW_THREADS
    c->running = false;
    return make_answer(c, got);
}

static PyObject *core_step(Core *c, PyObject *args)
{
    unsigned long long count = 1;
    int skip = 1;
    if (!PyArg_ParseTuple(args, "|Kp", &count, &skip) || !may_run(c))
        return NULL;
    c->skip_pc = skip ? core_reg(c, c->live, c->reg_pc) : NOWHERE;
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = step_until(c, c->clock + count, 0, UINT64_MAX);
    Py_END_ALLOW_THREADS
    c->running = false;
    return make_answer(c, got);
}

static PyObject *core_step_range(Core *c, PyObject *args)
{
    unsigned long long start, end, until;
    int skip = 1;
    if (!PyArg_ParseTuple(args, "KKK|p", &start, &end, &until, &skip) || !may_run(c))
        return NULL;
    c->skip_pc = skip ? core_reg(c, c->live, c->reg_pc) : NOWHERE;
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = step_until(c, until, start, end);
    Py_END_ALLOW_THREADS
    c->running = false;
    return make_answer(c, got);
}

static PyObject *core_request_stop(Core *c, PyObject *unused)
{
    c->stop = 1;
    atomic_thread_fence(memory_order_seq_cst);
    attend(c);
    Py_RETURN_NONE;
}

static PyObject *core_activate(Core *c, PyObject *table)
{
    if (!PyObject_TypeCheck(table, &TableType))
        return PyErr_Format(PyExc_TypeError, "a PageTable is needed");
    if (((Table *)table)->arena != c->arena)
        return PyErr_Format(PyExc_ValueError, "the page table belongs to another arena");
    if (!may_run(c) && c->running)
        return NULL;
    PyErr_Clear();
    Py_INCREF(table);
    Py_XSETREF(c->table, (Table *)table);
    Py_RETURN_NONE;
}

static PyObject *core_read_reg(Core *c, PyObject *args)
{
    int reg, size;
    unsigned char buffer[64] = {0};
    if (!PyArg_ParseTuple(args, "ii", &reg, &size))
        return NULL;
    if (size < 1 || size > 64)
        return PyErr_Format(PyExc_ValueError, "bad register size");
    c->u.reg_read(c->live->uc, reg, buffer);
    return _PyLong_FromByteArray(buffer, (size_t)size, 1, 0);
}

static PyObject *core_write_reg(Core *c, PyObject *args)
{
    int reg, size;
    PyObject *value;
    unsigned char buffer[64] = {0};
    if (!PyArg_ParseTuple(args, "iiO!", &reg, &size, &PyLong_Type, &value))
        return NULL;
    if (size < 1 || size > 64)
        return PyErr_Format(PyExc_ValueError, "bad register size");
    if (_PyLong_AsByteArray((PyLongObject *)value, buffer, (size_t)size, 1, 0) < 0)
        return NULL;
    c->u.reg_write(c->live->uc, reg, buffer);
    Py_RETURN_NONE;
}

/* Many at once: a buffer of (id, size) pairs of int32 gives the registers' bytes one after the other.  A negative id
 * is a shadow: a register the engine does not have. */
static PyObject *core_read_regs(Core *c, PyObject *args)
{
    Py_buffer plan;
    if (!PyArg_ParseTuple(args, "y*", &plan))
        return NULL;
    const int32_t *p = plan.buf;
    Py_ssize_t n = plan.len / 8, total = 0;
    for (Py_ssize_t i = 0; i < n; i++)
        total += p[2 * i + 1];
    PyObject *out = PyBytes_FromStringAndSize(NULL, total);
    if (out) {
        char *to = PyBytes_AS_STRING(out);
        for (Py_ssize_t i = 0; i < n; i++) {
            unsigned char buffer[64] = {0};
            if (p[2 * i] < 0)
                memcpy(buffer, &c->shadows[(-1 - p[2 * i]) % MAX_SHADOWS], 8);
            else
                c->u.reg_read(c->live->uc, p[2 * i], buffer);
            memcpy(to, buffer, (size_t)p[2 * i + 1]);
            to += p[2 * i + 1];
        }
    }
    PyBuffer_Release(&plan);
    return out;
}

static PyObject *core_write_regs(Core *c, PyObject *args)
{
    Py_buffer plan, data;
    if (!PyArg_ParseTuple(args, "y*y*", &plan, &data))
        return NULL;
    const int32_t *p = plan.buf;
    const char *from = data.buf;
    Py_ssize_t n = plan.len / 8, used = 0;
    for (Py_ssize_t i = 0; i < n && used + p[2 * i + 1] <= data.len; i++) {
        unsigned char buffer[64] = {0};
        memcpy(buffer, from + used, (size_t)p[2 * i + 1]);
        used += p[2 * i + 1];
        if (p[2 * i] < 0)
            memcpy(&c->shadows[(-1 - p[2 * i]) % MAX_SHADOWS], buffer, 8);
        else
            c->u.reg_write(c->live->uc, p[2 * i], buffer);
    }
    PyBuffer_Release(&plan);
    PyBuffer_Release(&data);
    Py_RETURN_NONE;
}

static PyObject *core_set_result(Core *c, PyObject *value)
{
    uint64_t v = PyLong_AsUnsignedLongLongMask(value);
    if (v == UINT64_MAX && PyErr_Occurred())
        return NULL;
    core_set(c, c->live, c->reg_result, v);
    Py_RETURN_NONE;
}

static PyObject *core_save(Core *c, PyObject *unused)
{
    size_t n = c->context_size - CONTEXT_HEADER;
    PyObject *out = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(n + sizeof c->shadows));
    if (!out)
        return NULL;
    c->u.context_save(c->live->uc, c->context);
    char *to = PyBytes_AS_STRING(out);
    memcpy(to, (char *)c->context + CONTEXT_HEADER, n);
    memcpy(to + n, c->shadows, sizeof c->shadows);
    return out;
}

static PyObject *core_load(Core *c, PyObject *blob)
{
    size_t n = c->context_size - CONTEXT_HEADER;
    if (!PyBytes_Check(blob) || (size_t)PyBytes_GET_SIZE(blob) != n + sizeof c->shadows)
        return PyErr_Format(PyExc_ValueError, "not a context of this CPU");
    const char *from = PyBytes_AS_STRING(blob);
    memcpy((char *)c->context + CONTEXT_HEADER, from, n);
    memcpy(c->shadows, from + n, sizeof c->shadows);
    c->u.context_restore(c->live->uc, c->context);
    Py_RETURN_NONE;
}

static PyObject *core_sync_mxcsr(Core *c, PyObject *unused)
{
    sync_mxcsr(c);
    Py_RETURN_NONE;
}

static PyObject *core_stats(Core *c, PyObject *unused)
{
    return Py_BuildValue("{sKsKsKsKsK}", "tlb_fills", (unsigned long long)c->n_fills, "tlb_flushes",
                         (unsigned long long)c->n_flushes, "switches", (unsigned long long)c->n_switches, "step_runs",
                         (unsigned long long)c->n_steps, "runs", (unsigned long long)c->n_starts);
}

static bool get_number(PyObject *spec, const char *name, unsigned long long *out)
{
    PyObject *v = PyDict_GetItemString(spec, name); /* borrowed */
    if (!v) {
        PyErr_Format(PyExc_KeyError, "%s", name);
        return false;
    }
    *out = PyLong_AsUnsignedLongLongMask(v);
    return !PyErr_Occurred();
}

static bool get_object(PyObject *spec, const char *name, PyObject **out)
{
    PyObject *v = PyDict_GetItemString(spec, name);
    if (!v) {
        PyErr_Format(PyExc_KeyError, "%s", name);
        return false;
    }
    Py_INCREF(v);
    *out = v;
    return true;
}

static PyObject *core_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    Arena *arena;
    PyObject *spec;
    if (!PyArg_ParseTuple(args, "O!O!", &ArenaType, &arena, &PyDict_Type, &spec))
        return NULL;
    Core *c = (Core *)type->tp_alloc(type, 0);
    if (!c)
        return NULL;
    Py_INCREF(arena);
    c->arena = arena;
    c->skip_pc = c->allow_pc = NOWHERE;
    struct { const char *name; void *to; } functions[] = {
        {"uc_emu_start", &c->u.emu_start}, {"uc_emu_stop", &c->u.emu_stop}, {"uc_reg_read", &c->u.reg_read},
        {"uc_reg_write", &c->u.reg_write}, {"uc_hook_add", &c->u.hook_add}, {"uc_ctl", &c->u.ctl},
        {"uc_mem_map_ptr", &c->u.mem_map_ptr}, {"uc_context_alloc", &c->u.context_alloc},
        {"uc_context_save", &c->u.context_save}, {"uc_context_restore", &c->u.context_restore},
        {"uc_context_size", &c->u.context_size}, {"uc_context_free", &c->u.context_free},
    };
    struct { const char *name; int *to; } numbers[] = {
        {"pc", &c->reg_pc}, {"nr", &c->reg_nr}, {"result", &c->reg_result}, {"flags", &c->reg_flags}, {"r11", &c->reg_r11},
        {"ax", &c->reg_ax}, {"bx", &c->reg_bx}, {"cx", &c->reg_cx}, {"dx", &c->reg_dx},
        {"arg0", &c->reg_args[0]}, {"arg1", &c->reg_args[1]}, {"arg2", &c->reg_args[2]}, {"arg3", &c->reg_args[3]},
        {"arg4", &c->reg_args[4]}, {"arg5", &c->reg_args[5]}, {"syscall_interrupt", &c->syscall_interrupt},
        {"insn_syscall", &c->insn_syscall}, {"insn_sysenter", &c->insn_sysenter}, {"isa", (int *)&c->isa},
        {"reports_before", &c->reports_before}, {"saved_shadow", &c->saved_shadow},
    };
    struct { const char *name; PyObject **to; } objects[] = {
        {"Syscall", &c->Syscall}, {"PageFault", &c->PageFault}, {"BusError", &c->BusError}, {"Interrupt", &c->Interrupt},
        {"Undefined", &c->Undefined}, {"Privileged", &c->Privileged}, {"BreakpointHit", &c->BreakpointHit},
        {"WatchHit", &c->WatchHit}, {"BUDGET", &c->BUDGET}, {"RANGE_DONE", &c->RANGE_DONE},
        {"STOP_REQUESTED", &c->STOP_REQUESTED}, {"runner_owner", &c->runner.owner}, {"stepper_owner", &c->stepper.owner},
    };
    unsigned long long v;
    bool ok = true;
    PyObject *masks = PyDict_GetItemString(spec, "cpuid"); /* borrowed: bytes, an array of CpuidMask */
    if (masks && PyBytes_Check(masks)) {
        c->n_masks = (size_t)PyBytes_GET_SIZE(masks) / sizeof *c->masks;
        if (c->n_masks > MAX_MASKS)
            c->n_masks = MAX_MASKS;
        memcpy(c->masks, PyBytes_AS_STRING(masks), c->n_masks * sizeof *c->masks);
    }
    PyObject *general = PyDict_GetItemString(spec, "x"); /* borrowed: bytes, numbers of x0..x30 */
    if (general && PyBytes_Check(general) && (size_t)PyBytes_GET_SIZE(general) <= sizeof c->reg_x)
        memcpy(c->reg_x, PyBytes_AS_STRING(general), (size_t)PyBytes_GET_SIZE(general));
    for (size_t i = 0; ok && i < sizeof functions / sizeof *functions; i++)
        if ((ok = get_number(spec, functions[i].name, &v)))
            *(void **)functions[i].to = (void *)(uintptr_t)v;
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
        if ((ok = get_number(spec, numbers[i].name, &v)))
            *numbers[i].to = (int)(int64_t)v;
    for (size_t i = 0; ok && i < sizeof objects / sizeof *objects; i++)
        ok = get_object(spec, objects[i].name, objects[i].to);
    if ((ok = ok && get_number(spec, "runner", &v)))
        c->runner.uc = (void *)(uintptr_t)v;
    if ((ok = ok && get_number(spec, "stepper", &v)))
        c->stepper.uc = (void *)(uintptr_t)v;
    c->slots = ok ? aligned_alloc(64, sizeof *c->slots << SLOT_BITS) : NULL; /* two to a cache line */
    if (!c->slots)
        goto fail;
    for (size_t i = 0; i < (size_t)1 << SLOT_BITS; i++)
        c->slots[i] = (Slot){.addr = NOWHERE};
    c->runner.core = c->stepper.core = c;
    c->runner.ran = F_RAN_RUNNER;
    c->stepper.ran = F_RAN_STEPPER;
    c->runner.crowd = 512;
    c->live = &c->runner;
    if (c->u.context_alloc(c->runner.uc, &c->context) || c->u.context_alloc(c->runner.uc, &c->kept))
        goto fail;
    if (arena->next >= arena->top)
        goto fail;
    c->scratch = arena->next++;
    c->context_size = c->u.context_size(c->runner.uc);
    if (*(size_t *)c->context + CONTEXT_HEADER != c->context_size) {
        PyErr_SetString(PyExc_RuntimeError, "this Unicorn lays its context out differently");
        goto fail;
    }
    c->fresh = PyMem_RawMalloc(c->context_size);
    if (!c->fresh)
        goto fail;
    c->u.context_save(c->runner.uc, c->context);
    memcpy(c->fresh, (char *)c->context + CONTEXT_HEADER, c->context_size - CONTEXT_HEADER);
    unsigned long long mxcsr;
    if (!get_number(spec, "mxcsr", &mxcsr))
        goto fail;
    if (mxcsr)
        find_mxcsr(c, (int)mxcsr);
    Engine *both[] = {&c->runner, &c->stepper};
    for (int i = 0; i < 2; i++) {
        c->u.ctl(both[i]->uc, UC_CTL_WRITE(UC_CTL_USE_EXITS, 1), 1);
        c->u.ctl(both[i]->uc, UC_CTL_WRITE(UC_CTL_TLB_MODE, 1), 1);
        if (c->u.mem_map_ptr(both[i]->uc, 0, arena->capacity << PAGE_SHIFT, P_ALL, arena->base)) {
            PyErr_SetString(PyExc_RuntimeError, "the engine refuses the arena");
            goto fail;
        }
    }
    core_hook(c);
    speed_up_floats(&c->u);
    arena->limit_of_core = &c->limit;
    arena->attention_of_core = &c->attention;
    return (PyObject *)c;
fail:
    Py_DECREF(c);
    return PyErr_Occurred() ? NULL : PyErr_NoMemory();
}

static void core_dealloc(Core *c)
{
    if (c->arena && c->arena->limit_of_core == &c->limit)
        c->arena->limit_of_core = NULL;
    if (c->context)
        c->u.context_free(c->context);
    if (c->kept)
        c->u.context_free(c->kept);
    free(c->slots);
    PyMem_RawFree(c->fresh);
    PyMem_RawFree(c->runner.writable_code);
    PyMem_RawFree(c->stepper.writable_code);
    PyObject *held[] = {c->Syscall, c->PageFault, c->BusError, c->Interrupt, c->Undefined, c->Privileged, c->BreakpointHit,
                        c->WatchHit, c->BUDGET, c->RANGE_DONE, c->STOP_REQUESTED, c->runner.owner, c->stepper.owner,
                        (PyObject *)c->table, (PyObject *)c->arena};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        Py_XDECREF(held[i]);
    Py_TYPE(c)->tp_free((PyObject *)c);
}

static PyObject *core_get_clock(Core *c, void *unused) { return PyLong_FromUnsignedLongLong(c->clock); }
static int core_set_clock(Core *c, PyObject *value, void *unused)
{
    uint64_t v = value ? PyLong_AsUnsignedLongLong(value) : 0;
    if (PyErr_Occurred())
        return -1;
    c->clock = v;
    return 0;
}

static PyMethodDef core_methods[] = {
    {"run", (PyCFunction)(void *)core_run, METH_FASTCALL, "Run until the clock says so or something happens."},
    {"step", (PyCFunction)core_step, METH_VARARGS, "Exactly that many instructions."},
    {"step_range", (PyCFunction)core_step_range, METH_VARARGS, "Step while start <= pc < end."},
    {"request_stop", (PyCFunction)core_request_stop, METH_NOARGS, "From any thread."},
    {"activate", (PyCFunction)core_activate, METH_O, "Switch the address space."},
    {"read_reg", (PyCFunction)core_read_reg, METH_VARARGS, "By Unicorn's number."},
    {"write_reg", (PyCFunction)core_write_reg, METH_VARARGS, "By Unicorn's number."},
    {"read_regs", (PyCFunction)core_read_regs, METH_VARARGS, "Many at once."},
    {"set_syscall_result", (PyCFunction)core_set_result, METH_O, "Write the result register."},
    {"save", (PyCFunction)core_save, METH_NOARGS, "The guest's registers."},
    {"load", (PyCFunction)core_load, METH_O, "Put saved registers back."},
    {"write_regs", (PyCFunction)core_write_regs, METH_VARARGS, "Many at once."},
    {"sync_mxcsr", (PyCFunction)core_sync_mxcsr, METH_NOARGS, "Bring the SSE exception flags into MXCSR."},
    {"stats", (PyCFunction)core_stats, METH_NOARGS, "Counters."},
    {NULL}};

static PyGetSetDef core_getset[] = {
    {"clock", (getter)core_get_clock, (setter)core_set_clock, "Instructions retired.", NULL}, {NULL}};

PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = core_new,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_methods = core_methods,
    .tp_getset = core_getset,
    .tp_doc = "Two engines over one arena.",
};

static PyObject *scan(PyObject *module, PyObject *args)
{
    int isa;
    Py_buffer code;
    enum Insn kind;
    if (!PyArg_ParseTuple(args, "iy*", &isa, &code))
        return NULL;
    int n = scan_insn((enum Isa)isa, code.buf, (size_t)code.len, &kind);
    PyBuffer_Release(&code);
    return Py_BuildValue("(ii)", n, (int)kind);
}

static PyMethodDef functions[] = {
    {"scan", scan, METH_VARARGS, "Length and kind of the first instruction of some bytes."}, {NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_hooks", "The C side of emulator.cpu.", -1, functions};

PyMODINIT_FUNC PyInit__hooks(void)
{
    PyObject *m = PyModule_Create(&module);
    struct { const char *name; PyTypeObject *type; } types[] = {
        {"Arena", &ArenaType}, {"Frames", &FramesType}, {"PageTable", &TableType}, {"Core", &CoreType}};
    for (size_t i = 0; m && i < 4; i++)
        if (PyType_Ready(types[i].type) < 0 || PyModule_AddObjectRef(m, types[i].name, (PyObject *)types[i].type) < 0)
            Py_CLEAR(m);
    return m;
}

/* The run loop: what an engine run meant, and what has to be done before the next.  No Python object is touched here. */
#include "engine.h"
#include <string.h>

/* ---- what the engine keeps in its own way --------------------------------------------------------------------------- */

/* Intel SDM 3, table 6-5: a second contributory exception while one is handled is a double fault.  Nobody tells the
 * engine that the first was handled (`env->old_exception` stays), so the next division by zero would come as one, and
 * the third stops the CPU for good.  The field is found by what it does: -1 in a fresh CPU, the exception's number now. */
static void forget_exception(Core *c)
{
    if (!c->contributory)
        return;
    c->u.context_save(c->live->uc, c->context);
    char *now = (char *)c->context + CONTEXT_HEADER;
    size_t n = c->context_size - CONTEXT_HEADER;
    int32_t number = c->interrupt, none = -1, value;
    if (!c->exception_offset && number < 64 && c->contributory >> number & 1)
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

void core_sync_mxcsr(Core *c)
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
void core_find_mxcsr(Core *c, int reg)
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

/* ---- instructions that must not simply run --------------------------------------------------------------------------- */

/* Execute the instruction at pc, whatever it is, in the stepper. */
static enum Why step_over(Core *c)
{
    c->allow_pc = c->skip_pc = core_reg(c, c->live, c->reg_pc);
    core_run_stepper(c, 1);
    c->skip_pc = NOWHERE;
    return c->why;
}

/* Take away what the instruction set's description says cpuid must not promise (Arch.cpu.cpuid). */
static void mask_cpuid(Core *c, uint32_t leaf, uint32_t subleaf)
{
    bool has_subleaves = leaf == 4 || leaf == 7 || leaf == 0xb || leaf == 0xd;
    for (size_t i = 0; i < c->n_masks; i++) {
        const CpuidMask *m = &c->masks[i];
        int reg = c->reg_general[m->reg % MAX_GENERAL];
        if (m->leaf == leaf && (!has_subleaves || m->subleaf == subleaf))
            core_set(c, c->live, reg, (uint32_t)core_reg(c, c->live, reg) & ~m->clear);
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
    case I_UNSUPPORTED:
    case I_RDRAND:
        return A_UNDEFINED;
    case I_PRIVILEGED:
        return A_PRIVILEGED;
    case I_RDTSC:
    case I_RDTSCP: /* time is the clock: reproducible */
        core_set(c, e, c->reg_general[RAX], (uint32_t)c->clock);
        core_set(c, e, c->reg_general[RDX], c->clock >> 32);
        if (c->pending.kind == I_RDTSCP)
            core_set(c, e, c->reg_general[RCX], 0);
        core_set(c, e, c->reg_pc, pc + (uint32_t)c->pending.key);
        c->clock++;
        return A_NONE;
    case I_COUNTER: /* mrs xN, cntvct_el0 */
        code_bytes(c, pc, insn, 4);
        if ((insn[0] & 31) != 31)
            core_set(c, e, c->reg_general[insn[0] & 31], c->clock);
        core_set(c, e, c->reg_pc, pc + 4);
        c->clock++;
        return A_NONE;
    case I_CPUID:
        leaf = (uint32_t)core_reg(c, e, c->reg_general[RAX]);
        subleaf = (uint32_t)core_reg(c, e, c->reg_general[RCX]);
        if (step_over(c) == W_DONE)
            mask_cpuid(c, leaf, subleaf);
        break;
    case I_MXCSR:
        core_sync_mxcsr(c);
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

/* ---- faults and watchpoints ------------------------------------------------------------------------------------------ */

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
    core_enter(c, &c->stepper);
    core_flush_tlb(c, &c->stepper);
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
    core_flush_tlb(c, &c->stepper);
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
    core_run_stepper(c, n ? n : 1);
    c->skip_pc = NOWHERE;
    c->watching = false;
    c->burst_end = c->clock;
    if (c->n_opened)
        core_flush_tlb(c, &c->stepper);
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
        core_set(c, c->live, c->reg_pc, core_reg(c, c->live, c->reg_pc) - (uint64_t)c->syscall_length);
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
    core_run_stepper(c, until - c->clock);
    c->u.ctl(c->stepper.uc, UC_CTL_WRITE(UC_CTL_EXITS, 2), &edge, (size_t)0);
    if (c->clock != clock)
        return true;
    c->why = W_FAULT;
    c->fault_address = page;
    c->fault_access = P_EXEC;
    c->fault_why = why;
    return false;
}

/* ---- the loop --------------------------------------------------------------------------------------------------------- */

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

enum Answer core_run_until(Core *c, uint64_t until)
{
    for (;;) {
        if (UNLIKELY(c->stop))
            return A_STOP;
        if (c->clock >= until)
            return A_BUDGET;
        uint64_t skip = c->skip_pc, clock = c->clock;
        core_run_runner(c, until);
        if (c->clock == clock)
            c->skip_pc = skip; /* nothing ran yet */
        c->range_start = 0;
        c->range_end = UINT64_MAX;
        if (c->why == W_BLOCK) {
            if (c->crowded) {
                c->crowded = false;
                core_flush_tlb(c, &c->runner);
                if (c->runner.crowd < 1 << 19)
                    c->runner.crowd *= 2;
            }
            if ((c->attention && !c->arena->bus_frame) || c->clock >= until)
                continue;
            uint64_t n = c->pending.count & ~S_STOP;
            if (!c->attention)
                core_run_stepper(c, n < until - c->clock ? n : until - c->clock);
            c->skip_pc = NOWHERE;
        }
        enum Answer got = answer(c, until);
        if (got != A_NONE)
            return got;
    }
}

enum Answer core_step_until(Core *c, uint64_t until, uint64_t start, uint64_t end)
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
        core_run_stepper(c, until - c->clock);
        enum Answer got = answer(c, until);
        if (got != A_NONE)
            return got;
    }
}

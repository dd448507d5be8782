/* Running: which engine runs, and from where.  No Python object is touched here. */
#include "engine.h"
#include <stdatomic.h>
#include <string.h>

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

void core_flush_tlb(Core *c, Engine *e)
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

void core_enter(Core *c, Engine *e)
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
                core_flush_tlb(c, from); /* so that its next store into code is seen again */
        }
    }
    if (UNLIKELY(c->arena->fences != c->fences))
        drain_stale(c);
    if (UNLIKELY(e->table != c->table || e->epoch != c->table->epoch))
        core_flush_tlb(c, e);
}

/* ---- running ---------------------------------------------------------------------------------------------------------- */

/* The engine does not announce the first block of a run (UC_HOOK_EDGE_GENERATED), so if the guest may have changed code
 * what the clock knows of it may be old. */
static void doubt_first_block(Core *c, uint64_t pc)
{
    if (UNLIKELY(c->runner.n_writable_code || c->stepper.n_writable_code))
        core_forget(c, pc);
}

void core_run_runner(Core *c, uint64_t until)
{
    Engine *e = &c->runner;
    core_enter(c, e);
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
 * flags are garbage.  CpuModel.lazy_flags says where CC_OP is, and which value says that CC_SRC holds the flags. */
static void mend_flags(Core *c)
{
    if (c->lazy_flags_value < 0)
        return;
    c->u.context_save(c->live->uc, c->context);
    int32_t *cc_op = (int32_t *)((char *)c->context + CONTEXT_HEADER + c->lazy_flags_offset);
    if (*cc_op != c->lazy_flags_value) {
        *cc_op = c->lazy_flags_value;
        c->u.context_restore(c->live->uc, c->context);
    }
}

void core_run_stepper(Core *c, uint64_t steps)
{
    Engine *e = &c->stepper;
    core_enter(c, e);
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

/* The callbacks Unicorn calls.  They run without the GIL: no Python object is touched here. */
#include "engine.h"
#include <string.h>

/* ---- the clock's knowledge of blocks ------------------------------------------------------------------------------ */

/* Guest code bytes through the page table, as many as there are; returns how many. */
size_t code_bytes(Core *c, uint64_t addr, uint8_t *to, size_t n)
{
    size_t done = 0;
    while (done < n) {
        uint64_t pte = table_entry(c->table, addr + done);
        if (!pte)
            break;
        size_t chunk = PAGE - ((addr + done) & PAGE_MASK);
        if (chunk > n - done)
            chunk = n - done;
        memcpy(to + done, frame_host(c->arena, PTE_FRAME(pte)) + ((addr + done) & PAGE_MASK), chunk);
        done += chunk;
    }
    return done;
}

enum { MAX_BLOCK = 2 * 4096 + 16 };

static uint64_t scan_block(Core *c, uint64_t addr, uint32_t size, Slot *s)
{
    uint8_t code[MAX_BLOCK];
    if (size > MAX_BLOCK - 16)
        size = MAX_BLOCK - 16;
    size_t have = code_bytes(c, addr, code, size + c->scanner->lookahead);
    const Table *t = c->table;
    size_t point = t->n_points ? table_first_point(t, addr) : 0;
    uint64_t n = 0;
    size_t at = 0;
    s->flags = 0;
    s->kind = I_PLAIN;
    while (at < size && at < have) {
        enum Insn kind;
        int length = c->scanner->scan(code + at, have - at, &kind);
        if (at == 0)
            s->kind = kind;
        if (kind != I_PLAIN)
            s->flags |= B_SPECIAL;
        while (point < t->n_points && t->points[point] < addr + at)
            point++;
        if (point < t->n_points && t->points[point] == addr + at)
            s->flags |= at ? B_POINT : B_POINT_FIRST;
        n++;
        if (length <= 0)
            break;
        at += (size_t)length;
    }
    return n ? n : 1;
}

static inline Slot *slot_at(Core *c, uint64_t addr)
{
    return &c->slots[(addr ^ addr >> SLOT_BITS) & (((uint64_t)1 << SLOT_BITS) - 1)];
}

static __attribute__((noinline)) void fill_slot(Core *c, Slot *s, uint64_t addr, uint32_t size)
{
    s->addr = addr;
    s->key = c->key | size;
    s->count = scan_block(c, addr, size, s);
    if (s->count == 1 && c->scanner->loops_on_itself && table_entry(c->table, addr) & P_WRITE)
        s->flags |= B_RESUMED;
    if (s->flags)
        s->count |= S_STOP;
}

Slot *core_slot(Core *c, uint64_t addr, uint32_t size)
{
    Slot *s = slot_at(c, addr);
    if (UNLIKELY(s->addr != addr || s->key != (c->key | size)))
        fill_slot(c, s, addr, size);
    return s;
}

void core_forget(Core *c, uint64_t addr) { slot_at(c, addr)->addr = NOWHERE; }

uint64_t core_count(Core *c, uint64_t from, uint64_t to)
{
    Slot s;
    return from < to && to - from < MAX_BLOCK ? scan_block(c, from, (uint32_t)(to - from), &s) : 0;
}

uint64_t core_edge(Core *c, uint64_t pc, uint64_t page)
{
    uint8_t code[PAGE];
    uint64_t at = pc;
    size_t have = code_bytes(c, pc, code, page - pc);
    while (at < page && at - pc < have) {
        enum Insn kind;
        int length = c->scanner->scan(code + (at - pc), have - (at - pc), &kind);
        if (length <= 0)
            return at; /* it goes on beyond the page */
        at += (uint64_t)length;
    }
    return at;
}

/* ---- callbacks ---------------------------------------------------------------------------------------------------- */

static bool loops_on_itself(Core *c, uint64_t addr)
{
    uint8_t code[MAX_LOOP] = {0};
    code_bytes(c, addr, code, sizeof code);
    return c->scanner->loops_on_itself(code);
}

/* A store into the block that makes it leaves that block and runs again as a block of one instruction (the engine's
 * precise handling of self-modifying code).  The clock had counted the whole. */
static void resumed(Core *c, const Slot *s)
{
    const Slot *l = c->last;
    uint64_t end = l ? l->addr + (uint32_t)l->key : 0;
    if (!l || s->addr < l->addr || s->addr >= end || s == l || loops_on_itself(c, s->addr))
        return;
    uint64_t n = core_count(c, s->addr, end), whole = l->count & ~S_STOP;
    if (s->addr != l->addr && core_count(c, l->addr, s->addr) != whole - n)
        return; /* a jump into the middle of an instruction */
    c->clock -= n;
}

static __attribute__((noinline)) void block_slow(Core *c, Slot *s)
{
    uint64_t n = s->count & ~S_STOP;
    if (s->flags & B_RESUMED)
        resumed(c, s);
    uint32_t flags = s->flags & ~B_RESUMED;
    bool fits = c->clock + n <= c->limit || (c->soft && c->clock < c->limit);
    if (fits && (!flags || (flags == B_POINT_FIRST && s->addr == c->skip_pc))) {
        c->skip_pc = NOWHERE;
        c->clock += n;
        c->last = s;
        return;
    }
    c->pending = *s;
    c->why = W_BLOCK;
    c->u.emu_stop(c->runner.uc);
}

static inline void keep_last(Core *c, const Slot *s) /* `s` is about to be overwritten */
{
    if (s == c->last) {
        c->kept_last = *s;
        c->last = &c->kept_last;
    }
}

static __attribute__((noinline)) void block_other(Core *c, Slot *s, uint64_t addr, uint32_t size)
{
    if (s->addr != addr || s->key != (c->key | size)) {
        keep_last(c, s);
        fill_slot(c, s, addr, size);
    }
    uint64_t after = c->clock + s->count;
    if (after > c->limit) {
        block_slow(c, s);
        return;
    }
    c->clock = after;
    c->last = s;
}

/* The hottest code there is: everything unusual is a tail call away. */
static void on_block(void *uc, uint64_t addr, uint32_t size, Core *c)
{
    Slot *s = slot_at(c, addr);
    uint64_t after = c->clock + s->count;
    if (UNLIKELY(s->addr != addr || s->key != (c->key | size) || after > c->limit)) {
        block_other(c, s, addr, size);
        return;
    }
    c->clock = after;
    c->last = s;
}

static void on_edge(void *uc, const uint64_t *now, const uint64_t *before, Core *c)
{
    Slot *s = slot_at(c, now[0]); /* a new translation: what the clock knew of this place may be old */
    if (s->addr == now[0]) {
        keep_last(c, s);
        s->addr = NOWHERE;
    }
}

static void on_code(void *uc, uint64_t addr, uint32_t size, Core *c)
{
    Slot *s = core_slot(c, addr, size && size <= 15 ? size : 1); /* an undefined instruction has no length */
    if (UNLIKELY(s->flags & B_RESUMED)) { /* a store into its own block: the same instruction again, once */
        c->again = !c->again && addr == c->last_pc && !loops_on_itself(c, addr);
        if (c->again)
            return;
    }
    if (UNLIKELY(!c->steps_left || c->attention)) {
        c->why = W_DONE;
        c->u.emu_stop(c->stepper.uc);
        return;
    }
    if (UNLIKELY(addr - c->range_start >= c->range_end - c->range_start) && c->last_pc != NOWHERE) {
        c->why = W_RANGE;
        c->u.emu_stop(c->stepper.uc);
        return;
    }
    if (UNLIKELY(s->count & S_STOP)) {
        if (s->flags & B_POINT_FIRST && addr != c->skip_pc) {
            c->why = W_POINT;
            c->u.emu_stop(c->stepper.uc);
            return;
        }
        if (s->flags & B_SPECIAL && addr != c->allow_pc) {
            c->pending = *s;
            c->why = W_SPECIAL;
            c->u.emu_stop(c->stepper.uc);
            return;
        }
    }
    c->skip_pc = c->allow_pc = NOWHERE;
    c->steps_left--;
    c->clock++;
    c->last_pc = addr;
}

static void on_interrupt(void *uc, uint32_t number, Engine *e)
{
    Core *c = e->core;
    c->interrupt = (int)number;
    c->why = (int)number == c->syscall_interrupt ? W_SYSCALL : W_INTERRUPT;
    c->u.emu_stop(uc);
}

static void on_syscall(void *uc, Engine *e)
{
    e->core->why = W_SYSCALL;
    e->core->u.emu_stop(uc);
}

static void on_refused(void *uc, Engine *e) /* an instruction Linux does not offer */
{
    e->core->why = W_INVALID;
    e->core->u.emu_stop(uc);
}

static bool on_invalid(void *uc, Engine *e)
{
    e->core->why = W_INVALID;
    return false;
}

static void remember_writable_code(Engine *e, uint64_t page)
{
    for (size_t i = 0; i < e->n_writable_code; i++)
        if (e->writable_code[i] == page)
            return;
    if (e->n_writable_code == e->cap_writable_code) {
        size_t cap = e->cap_writable_code ? e->cap_writable_code * 2 : 32;
        uint64_t *p = cap > 1024 ? NULL : PyMem_RawRealloc(e->writable_code, cap * sizeof *p);
        if (!p) {
            e->core->arena->stale_all = true; /* too many to follow: forget every translation at the next switch */
            e->core->arena->fences++;
            return;
        }
        e->writable_code = p;
        e->cap_writable_code = cap;
    }
    e->writable_code[e->n_writable_code++] = page;
}

static bool fault(Core *c, uint64_t address, int access, enum Touch why)
{
    c->why = W_FAULT;
    c->fault_address = address;
    c->fault_access = access;
    c->fault_why = why;
    return false;
}

static void compare(Core *c, uint64_t address, uint64_t size, int kind)
{
    const Watch *w = table_watch_hit(c->table, address, size, kind);
    if (!w || c->hit)
        return;
    c->hit = true; /* emu_stop here would repeat the store: stop before the next instruction */
    c->steps_left = 0;
    c->hit_address = address > w->start ? address : w->start;
    c->hit_kind = w->kind;
}

/* A watched page becomes accessible to the stepper while it watches. */
static bool open_page(Core *c, uint64_t page, uint64_t frame, int access)
{
    if (c->n_opened == MAX_OPENED)
        return false; /* start afresh with this instruction */
    c->opened[c->n_opened].page = page;
    c->opened[c->n_opened++].frame = frame;
    if (c->crossing) /* the second page of an access whose first page is not watched */
        compare(c, page, c->crossing, access);
    c->crossing = 0;
    return true;
}

/* The MMU.  `vaddr` is the page; an access that is refused leaves pc at the instruction with nothing committed. */
static bool on_fill(void *uc, uint64_t vaddr, int type, TlbEntry *out, Engine *e)
{
    Core *c = e->core;
    if (UNLIKELY(e->aliasing)) {
        out->paddr = vaddr - ALIAS;
        out->perms = P_EXEC;
        return true;
    }
    Table *t = c->table;
    int access = type == UC_MEM_WRITE ? P_WRITE : type == UC_MEM_FETCH ? P_EXEC : P_READ;
    uint64_t before = t->epoch, pte;
    enum Touch why = table_touch(t, vaddr, access, false, false, &pte);
    if (UNLIKELY(why != T_OK)) {
        if (c->probing && (c->probe_page == NOWHERE || c->probe_page == vaddr)) {
            c->probe_page = vaddr;
            out->paddr = c->scratch << PAGE_SHIFT;
            out->perms = P_READ | P_WRITE;
            return true;
        }
        return fault(c, vaddr, access, why);
    }
    if (t->epoch != before && e->epoch == before)
        e->epoch = t->epoch; /* copied on write: this engine gets the new frame right here */
    c->n_fills++;
    tire(c, 1);
    if (UNLIKELY(++e->fills > e->crowd) && e == &c->runner) {
        c->crowded = true; /* at the next block: the TLB only grows when it is flushed */
        attend(c);
    }
    uint64_t frame = PTE_FRAME(pte);
    uint32_t perms = (uint32_t)pte & P_ALL;
    uint8_t *flags = &c->arena->flags[frame];
    if (perms & P_EXEC && (access == P_EXEC || (perms & P_WRITE && !(pte & PTE_COW)))) {
        if (UNLIKELY(!(*flags & e->ran))) {
            if (pte & PTE_SHARED && !(*flags & F_RAN)) {
                /* Another page may show this frame writable, and without X in the TLB only its first store would be
                 * noticed: look again at every page before this code runs. */
                t->epoch++;
                attend(c);
            }
            *flags |= e->ran;
        }
    } else {
        perms &= ~(uint32_t)P_EXEC; /* a data page without X is marked dirty after its first store */
    }
    if (pte & PTE_COW)
        perms &= ~(uint32_t)P_WRITE;
    if (UNLIKELY(perms & P_WRITE && *flags & F_RAN)) {
        if (access == P_WRITE || e == &c->runner) {
            remember_writable_code(e, frame);
            perms |= P_EXEC;
        } else {
            perms &= ~(uint32_t)P_WRITE;
        }
    }
    if (UNLIKELY(t->n_watches)) {
        int watched = table_page_watch(t, vaddr);
        uint32_t open = perms & ~(uint32_t)(watched & P_READ ? P_READ | P_WRITE : watched & P_WRITE ? P_WRITE : 0);
        if (open & (uint32_t)access || c->probing) {
            perms = c->probing ? perms : open;
        } else {
            if (e == &c->runner || !c->watching || !open_page(c, vaddr, frame, access))
                return fault(c, vaddr, access, T_OK); /* the run loop lets the stepper look at this instruction */
        }
    }
    out->paddr = frame << PAGE_SHIFT;
    out->perms = perms;
    return true;
}

/* Loads and stores of the stepper, by guest-physical address, before they happen; 16-byte ones arrive in halves. */
static void on_access(void *uc, int type, uint64_t paddr, int size, int64_t value, Core *c)
{
    uint64_t frame = paddr >> PAGE_SHIFT;
    if (UNLIKELY(c->probing)) {
        if (frame == c->scratch && c->probe_address == NOWHERE)
            c->probe_address = c->probe_page | (paddr & PAGE_MASK);
        return;
    }
    if (LIKELY(!c->watching))
        return;
    int kind = type == UC_MEM_WRITE ? P_WRITE : P_READ;
    if (c->reports_before && kind == P_WRITE && c->n_undo < MAX_UNDO && (size_t)size <= sizeof c->undo[0].old) {
        c->undo[c->n_undo].host = c->arena->base + paddr;
        c->undo[c->n_undo].size = (uint32_t)size;
        memcpy(c->undo[c->n_undo++].old, c->arena->base + paddr, (size_t)size);
    }
    uint64_t low = paddr & PAGE_MASK;
    c->crossing = low + (uint64_t)size > PAGE ? low + (uint64_t)size - PAGE : 0;
    for (size_t i = 0; i < c->n_opened; i++) {
        uint64_t page = c->opened[i].page;
        if (c->opened[i].frame == frame)
            compare(c, page | low, (uint64_t)size, kind);
        else if (c->crossing && PTE_FRAME(table_entry(c->table, page - PAGE)) == frame)
            compare(c, page, c->crossing, kind);
    }
}

void core_hook(Core *c)
{
    size_t handle;
    Engine *both[] = {&c->runner, &c->stepper};
    for (int i = 0; i < 2; i++) {
        Engine *e = both[i];
        c->u.hook_add(e->uc, &handle, UC_HOOK_TLB_FILL, on_fill, e, 1, 0);
        c->u.hook_add(e->uc, &handle, UC_HOOK_INTR, on_interrupt, e, 1, 0);
        c->u.hook_add(e->uc, &handle, UC_HOOK_INSN_INVALID, on_invalid, e, 1, 0);
        c->u.hook_add(e->uc, &handle, UC_HOOK_EDGE_GENERATED, on_edge, c, 1, 0);
        if (c->insn_syscall)
            c->u.hook_add(e->uc, &handle, UC_HOOK_INSN, on_syscall, e, 1, 0, c->insn_syscall);
        if (c->insn_refused)
            c->u.hook_add(e->uc, &handle, UC_HOOK_INSN, on_refused, e, 1, 0, c->insn_refused);
    }
    c->u.hook_add(c->runner.uc, &handle, UC_HOOK_BLOCK, on_block, c, 1, 0);
    c->u.hook_add(c->stepper.uc, &handle, UC_HOOK_CODE, on_code, c, 1, 0);
    c->u.hook_add(c->stepper.uc, &handle, UC_HOOK_MEM_READ | UC_HOOK_MEM_WRITE, on_access, c, 1, 0);
}

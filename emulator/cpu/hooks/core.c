/* The Core type: what Python sees of the engines. */
#include "engine.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <structmember.h>

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

enum { FILLS_A_CALL = 20 }; /* a system call takes as long as so many TLB fills */

void core_syscall(Core *c, uint64_t *raw)
{
    Engine *e = c->live;
    c->calls++;
    tire(c, FILLS_A_CALL);
    c->shadows[c->saved_shadow] = core_reg(c, e, c->reg_nr);
    for (size_t i = 0; i < c->n_clobbers; i++)
        core_set(c, e, c->clobbers[i].to, core_reg(c, e, c->clobbers[i].from));
    for (int i = 0; i < 6; i++)
        raw[i] = core_reg(c, e, c->reg_args[i]);
}

PyObject *core_box(const uint64_t *raw)
{
    PyObject *args = PyTuple_New(6);
    for (int i = 0; args && i < 6; i++) {
        PyObject *boxed = PyLong_FromUnsignedLongLong(raw[i]);
        if (boxed)
            PyTuple_SET_ITEM(args, i, boxed);
        else
            Py_CLEAR(args);
    }
    return args;
}

static PyObject *make_syscall(Core *c)
{
    uint64_t raw[6];
    PyTypeObject *type = (PyTypeObject *)c->Syscall;
    core_syscall(c, raw);
    PyObject *args = core_box(raw);
    PyObject *out = args ? type->tp_alloc(type, 2) : NULL; /* a NamedTuple of two */
    if (!out) {
        Py_XDECREF(args);
        return NULL;
    }
    PyTuple_SET_ITEM(out, 0, PyLong_FromLongLong((int64_t)core_reg(c, c->live, c->reg_nr)));
    PyTuple_SET_ITEM(out, 1, args);
    return out;
}

PyObject *core_answer(Core *c, enum Answer got)
{
    uint64_t pc = core_reg(c, c->live, c->reg_pc);
    unsigned long long at = c->fault_address;
    PyObject *access, *out;
    if (got != A_SYSCALL)
        c->shadows[c->saved_shadow] = UINT64_MAX;
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

bool core_may_run(Core *c)
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

enum Answer core_run_freed(Core *c, uint64_t until)
{
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = core_run_until(c, until);
    Py_END_ALLOW_THREADS
    c->running = false;
    return got;
}

static PyObject *core_run(Core *c, PyObject *const *args, Py_ssize_t n)
{
    if (n < 1 || !core_may_run(c))
        return n < 1 ? PyErr_Format(PyExc_TypeError, "run(until, skip_breakpoint=False, soft=False)") : NULL;
    uint64_t until = PyLong_AsUnsignedLongLong(args[0]);
    if (PyErr_Occurred())
        return NULL;
    int skip = n > 1 ? PyObject_IsTrue(args[1]) : 0;
    c->soft = n > 2 && PyObject_IsTrue(args[2]);
    uint64_t pc = core_reg(c, c->live, c->reg_pc);
    c->skip_pc = skip && c->table->n_points && table_has_point(c->table, pc) ? pc : NOWHERE;
    return core_answer(c, core_run_freed(c, until));
}

static PyObject *core_step(Core *c, PyObject *args)
{
    unsigned long long count = 1;
    int skip = 1;
    if (!PyArg_ParseTuple(args, "|Kp", &count, &skip) || !core_may_run(c))
        return NULL;
    c->skip_pc = skip ? core_reg(c, c->live, c->reg_pc) : NOWHERE;
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = core_step_until(c, c->clock + count, 0, UINT64_MAX);
    Py_END_ALLOW_THREADS
    c->running = false;
    return core_answer(c, got);
}

static PyObject *core_step_range(Core *c, PyObject *args)
{
    unsigned long long start, end, until;
    int skip = 1;
    if (!PyArg_ParseTuple(args, "KKK|p", &start, &end, &until, &skip) || !core_may_run(c))
        return NULL;
    c->skip_pc = skip ? core_reg(c, c->live, c->reg_pc) : NOWHERE;
    enum Answer got;
    c->running = true;
    Py_BEGIN_ALLOW_THREADS
    got = core_step_until(c, until, start, end);
    Py_END_ALLOW_THREADS
    c->running = false;
    return core_answer(c, got);
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
    if (!core_may_run(c) && c->running)
        return NULL;
    PyErr_Clear();
    Py_INCREF(table);
    Py_XSETREF(c->table, (Table *)table);
    Py_RETURN_NONE;
}

/* A context switch in one call: save, load, activate. */
static PyObject *core_switch(Core *c, PyObject *const *args, Py_ssize_t n)
{
    if (n != 2)
        return PyErr_Format(PyExc_TypeError, "switch(context, table)");
    PyObject *mine = core_save(c, NULL), *loaded = mine ? core_load(c, args[0]) : NULL;
    PyObject *activated = !loaded ? NULL : args[1] == (PyObject *)c->table ? Py_NewRef(Py_None) : core_activate(c, args[1]);
    Py_XDECREF(loaded);
    if (!activated)
        Py_CLEAR(mine);
    Py_XDECREF(activated);
    return mine;
}

static PyObject *core_stats(Core *c, PyObject *unused)
{
    return Py_BuildValue("{sKsKsKsKsK}", "tlb_fills", (unsigned long long)c->n_fills, "tlb_flushes",
                         (unsigned long long)c->n_flushes, "switches", (unsigned long long)c->n_switches, "step_runs",
                         (unsigned long long)c->n_steps, "runs", (unsigned long long)c->n_starts);
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
    c->patience = UINT64_MAX;
    if (!core_read_spec(c, spec))
        goto fail;
    c->slots = aligned_alloc(64, sizeof *c->slots << SLOT_BITS); /* two to a cache line */
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
    if (c->reg_mxcsr)
        core_find_mxcsr(c, c->reg_mxcsr);
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
    guard_decoder(&c->u);
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
    core_forget_served(c);
    PyMem_RawFree(c->fresh);
    PyMem_RawFree(c->runner.writable_code);
    PyMem_RawFree(c->stepper.writable_code);
    PyObject *held[] = {c->Syscall, c->PageFault, c->BusError, c->Interrupt, c->Undefined, c->Privileged, c->BreakpointHit,
                        c->WatchHit, c->BUDGET, c->RANGE_DONE, c->STOP_REQUESTED, c->SERVED, c->runner.owner, c->stepper.owner,
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

static PyObject *core_get_serving(Core *c, void *unused)
{
    return Py_NewRef(c->served.serving ? c->served.serving : Py_None);
}
static PyObject *core_get_calls(Core *c, void *unused) { return PyLong_FromUnsignedLongLong(c->calls); }

static PyMethodDef core_methods[] = {
    {"run", (PyCFunction)(void *)core_run, METH_FASTCALL, "Run until the clock says so or something happens."},
    {"serve", (PyCFunction)(void *)core_serve, METH_FASTCALL, "Run, and make the plain system calls on the way."},
    {"serve_for", (PyCFunction)core_serve_for, METH_O, "Tell `serve` the kernel's objects."},
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
    {"switch", (PyCFunction)(void *)core_switch, METH_FASTCALL, "Other registers and address space; returns the registers."},
    {"write_regs", (PyCFunction)core_write_regs, METH_VARARGS, "Many at once."},
    {"sync_mxcsr", (PyCFunction)core_merge_mxcsr, METH_NOARGS, "Bring the SSE exception flags into MXCSR."},
    {"stats", (PyCFunction)core_stats, METH_NOARGS, "Counters."},
    {NULL}};

static PyObject *core_get_table(Core *c, void *unused) { return Py_NewRef(c->table ? (PyObject *)c->table : Py_None); }

static PyMemberDef core_members[] = {
    {"patience", T_ULONGLONG, offsetof(Core, patience), 0, "TLB fills, and calls by twenty, until a run comes back; 0: it has."},
    {"tells_stores", T_BOOL, offsetof(Core, tells_stores), 0, "Come back behind a call that stored into a watched range."},
    {NULL}};

static PyGetSetDef core_getset[] = {
    {"clock", (getter)core_get_clock, (setter)core_set_clock, "Instructions retired.", NULL},
    {"serving", (getter)core_get_serving, NULL, "The task that `serve` came back for.", NULL},
    {"calls", (getter)core_get_calls, NULL, "System calls made.", NULL},
    {"table", (getter)core_get_table, NULL, "The active address space, or None.", NULL},
    {NULL}};

PyTypeObject CoreType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.Core",
    .tp_basicsize = sizeof(Core),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = core_new,
    .tp_dealloc = (destructor)core_dealloc,
    .tp_methods = core_methods,
    .tp_members = core_members,
    .tp_getset = core_getset,
    .tp_doc = "Two engines over one arena.",
};

static PyObject *scan(PyObject *module, PyObject *args)
{
    const char *name;
    Py_buffer code;
    enum Insn kind;
    if (!PyArg_ParseTuple(args, "sy*", &name, &code))
        return NULL;
    const Scanner *scanner = core_find_scanner(name);
    int n = scanner ? scanner->scan(code.buf, (size_t)code.len, &kind) : 0;
    PyBuffer_Release(&code);
    if (!scanner)
        return NULL;
    return Py_BuildValue("(ii)", n, (int)kind);
}

static PyMethodDef functions[] = {
    {"scan", scan, METH_VARARGS, "Length and kind of the first instruction of some bytes."}, {NULL}};

static PyModuleDef module = {PyModuleDef_HEAD_INIT, "_hooks", "The C side of emulator.cpu.", -1, functions};

PyMODINIT_FUNC PyInit__hooks(void)
{
    PyObject *m = PyModule_Create(&module);
    struct { const char *name; PyTypeObject *type; } types[] = {
        {"Arena", &ArenaType}, {"Frames", &FramesType}, {"PageTable", &TableType}, {"Core", &CoreType},
        {"Entry", &EntryType}};
    for (size_t i = 0; m && i < sizeof types / sizeof *types; i++)
        if (PyType_Ready(types[i].type) < 0 || PyModule_AddObjectRef(m, types[i].name, (PyObject *)types[i].type) < 0)
            Py_CLEAR(m);
    return m;
}

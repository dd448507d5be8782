/* The Core type: what Python sees of the engines. */
#include "engine.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

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

PyObject *core_syscall(Core *c, uint64_t *raw)
{
    Engine *e = c->live;
    c->shadows[c->saved_shadow] = core_reg(c, e, c->reg_nr);
    for (size_t i = 0; i < c->n_clobbers; i++)
        core_set(c, e, c->clobbers[i].to, core_reg(c, e, c->clobbers[i].from));
    PyObject *args = PyTuple_New(6);
    for (int i = 0; args && i < 6; i++) {
        raw[i] = core_reg(c, e, c->reg_args[i]);
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
    PyObject *args = core_syscall(c, raw);
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

static PyObject *core_merge_mxcsr(Core *c, PyObject *unused)
{
    core_sync_mxcsr(c);
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

/* Packed records: bytes. */
static bool get_array(PyObject *spec, const char *name, void *to, size_t size, size_t most, size_t *n)
{
    PyObject *v = PyDict_GetItemString(spec, name); /* borrowed */
    if (!v || !PyBytes_Check(v) || (size_t)PyBytes_GET_SIZE(v) > size * most) {
        PyErr_Format(PyExc_ValueError, "%s: at most %zu records of %zu bytes", name, most, size);
        return false;
    }
    *n = (size_t)PyBytes_GET_SIZE(v) / size;
    memcpy(to, PyBytes_AS_STRING(v), *n * size);
    return true;
}

static const Scanner *find_scanner(const char *name)
{
    const Scanner *found = scanner_of(name);
    if (!found)
        PyErr_Format(PyExc_ValueError, "no scanner of %s code", name);
    return found;
}

static bool get_scanner(PyObject *spec, const Scanner **out)
{
    PyObject *v = PyDict_GetItemString(spec, "scanner"); /* borrowed */
    const char *name = v && PyUnicode_Check(v) ? PyUnicode_AsUTF8(v) : NULL;
    *out = find_scanner(name ? name : "");
    return *out;
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
        {"pc", &c->reg_pc}, {"nr", &c->reg_nr}, {"result", &c->reg_result}, {"flags", &c->reg_flags},
        {"arg0", &c->reg_args[0]}, {"arg1", &c->reg_args[1]}, {"arg2", &c->reg_args[2]}, {"arg3", &c->reg_args[3]},
        {"arg4", &c->reg_args[4]}, {"arg5", &c->reg_args[5]}, {"syscall_interrupt", &c->syscall_interrupt},
        {"insn_syscall", &c->insn_syscall}, {"insn_refused", &c->insn_refused},
        {"syscall_length", &c->syscall_length}, {"lazy_flags_offset", &c->lazy_flags_offset},
        {"lazy_flags_value", &c->lazy_flags_value}, {"reports_before", &c->reports_before},
        {"saved_shadow", &c->saved_shadow},
    };
    struct { const char *name; PyObject **to; } objects[] = {
        {"Syscall", &c->Syscall}, {"PageFault", &c->PageFault}, {"BusError", &c->BusError}, {"Interrupt", &c->Interrupt},
        {"Undefined", &c->Undefined}, {"Privileged", &c->Privileged}, {"BreakpointHit", &c->BreakpointHit},
        {"WatchHit", &c->WatchHit}, {"BUDGET", &c->BUDGET}, {"RANGE_DONE", &c->RANGE_DONE},
        {"STOP_REQUESTED", &c->STOP_REQUESTED}, {"SERVED", &c->SERVED}, {"runner_owner", &c->runner.owner}, {"stepper_owner", &c->stepper.owner},
    };
    unsigned long long v;
    bool ok = true;
    size_t n_general;
    ok = get_scanner(spec, &c->scanner) &&
         get_array(spec, "general", c->reg_general, sizeof *c->reg_general, MAX_GENERAL, &n_general) &&
         get_array(spec, "clobbers", c->clobbers, sizeof *c->clobbers, MAX_CLOBBERS, &c->n_clobbers) &&
         get_array(spec, "cpuid", c->masks, sizeof *c->masks, MAX_MASKS, &c->n_masks);
    for (size_t i = 0; ok && i < sizeof functions / sizeof *functions; i++)
        if ((ok = get_number(spec, functions[i].name, &v)))
            *(void **)functions[i].to = (void *)(uintptr_t)v;
    for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
        if ((ok = get_number(spec, numbers[i].name, &v)))
            *numbers[i].to = (int)(int64_t)v;
    for (size_t i = 0; ok && i < sizeof objects / sizeof *objects; i++)
        ok = get_object(spec, objects[i].name, objects[i].to);
    if ((ok = ok && get_number(spec, "contributory", &v)))
        c->contributory = v;
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
        core_find_mxcsr(c, (int)mxcsr);
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

static PyMethodDef core_methods[] = {
    {"run", (PyCFunction)(void *)core_run, METH_FASTCALL, "Run until the clock says so or something happens."},
    {"serve", (PyCFunction)(void *)core_serve, METH_FASTCALL, "Run, and make the plain system calls on the way."},
    {"serve_for", (PyCFunction)core_serve_for, METH_VARARGS, "Tell `serve` the kernel's objects."},
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

static PyGetSetDef core_getset[] = {
    {"clock", (getter)core_get_clock, (setter)core_set_clock, "Instructions retired.", NULL},
    {"table", (getter)core_get_table, NULL, "The active address space, or None.", NULL},
    {NULL}};

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
    const char *name;
    Py_buffer code;
    enum Insn kind;
    if (!PyArg_ParseTuple(args, "sy*", &name, &code))
        return NULL;
    const Scanner *scanner = find_scanner(name);
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

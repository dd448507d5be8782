/* What Cpu._spec of emulator/cpu/engine.py hands over: the library's functions, what arch/ says, the answers' types. */
#include "engine.h"
#include <string.h>

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

const Scanner *core_find_scanner(const char *name)
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
    *out = core_find_scanner(name ? name : "");
    return *out;
}

bool core_read_spec(Core *c, PyObject *spec)
{
    struct { const char *name; void *to; } functions[] = {
        {"uc_emu_start", &c->u.emu_start}, {"uc_emu_stop", &c->u.emu_stop}, {"uc_reg_read", &c->u.reg_read},
        {"uc_reg_write", &c->u.reg_write}, {"uc_hook_add", &c->u.hook_add}, {"uc_ctl", &c->u.ctl},
        {"uc_mem_map_ptr", &c->u.mem_map_ptr}, {"uc_context_alloc", &c->u.context_alloc},
        {"uc_context_save", &c->u.context_save}, {"uc_context_restore", &c->u.context_restore},
        {"uc_context_size", &c->u.context_size}, {"uc_context_free", &c->u.context_free},
    };
    struct { const char *name; int *to; } numbers[] = {
        {"pc", &c->reg_pc}, {"nr", &c->reg_nr}, {"result", &c->reg_result}, {"flags", &c->reg_flags},
        {"mxcsr", &c->reg_mxcsr},
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
    size_t n_general;
    bool ok = get_scanner(spec, &c->scanner) &&
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
    return ok;
}

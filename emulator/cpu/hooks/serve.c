/* Plain system calls: from the guest's instruction to the handler and back without the way through Python's run loop.
 *
 * Rule: only what that loop would do for a call nobody watches is done here; everything else goes back to it.  The
 * objects of the kernel are read and written through the offsets of their __slots__.
 */
#include "engine.h"
#include <stddef.h>
#include <string.h>
#include <structmember.h>

/* ---- entries: a handler and how the raw argument registers become its integers ---------------------------------- */

enum { MAX_ARGUMENTS = 6 };

typedef struct {
    PyObject_HEAD
    PyObject *handler;
    vectorcallfunc vectorcall;
    Py_ssize_t n;
    char kinds[MAX_ARGUMENTS]; /* i: int, u: unsigned int, l: signed long of 64 bits, r: as it is */
} Entry;

static PyObject *convert(char kind, PyObject *boxed, uint64_t raw)
{
    switch (kind) {
    case 'i':
        if (raw > INT32_MAX)
            return PyLong_FromLong((int32_t)raw);
        break;
    case 'u':
        if (raw > UINT32_MAX)
            return PyLong_FromUnsignedLong((uint32_t)raw);
        break;
    case 'l':
        if (raw > INT64_MAX)
            return PyLong_FromLongLong((int64_t)raw);
        break;
    }
    return Py_NewRef(boxed);
}

static PyObject *entry_call(Entry *e, PyObject *task, PyObject *args, const uint64_t *raw)
{
    PyObject *argv[2 + MAX_ARGUMENTS] = {NULL, task};
    Py_ssize_t done = 0;
    while (done < e->n && (argv[2 + done] = convert(e->kinds[done], PyTuple_GET_ITEM(args, done), raw[done])))
        done++;
    PyObject *result = NULL;
    if (done == e->n)
        result = PyObject_Vectorcall(e->handler, argv + 1, (size_t)(1 + done) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
    while (done--)
        Py_DECREF(argv[2 + done]);
    return result;
}

static PyObject *entry_vectorcall(PyObject *self, PyObject *const *args, size_t flags, PyObject *names)
{
    Entry *e = (Entry *)self;
    uint64_t raw[MAX_ARGUMENTS] = {0};
    if (PyVectorcall_NARGS(flags) != 2 || names || !PyTuple_Check(args[1]) || PyTuple_GET_SIZE(args[1]) < e->n)
        return PyErr_Format(PyExc_TypeError, "an entry is called with a task and a tuple of arguments");
    for (Py_ssize_t i = 0; i < e->n; i++)
        raw[i] = PyLong_AsUnsignedLongLongMask(PyTuple_GET_ITEM(args[1], i));
    return PyErr_Occurred() ? NULL : entry_call(e, args[0], args[1], raw);
}

static PyObject *entry_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *handler;
    const char *kinds;
    Py_ssize_t n;
    if (!PyArg_ParseTuple(args, "Oy#", &handler, &kinds, &n))
        return NULL;
    if (n > MAX_ARGUMENTS)
        return PyErr_Format(PyExc_ValueError, "a system call has at most six arguments");
    Entry *e = (Entry *)type->tp_alloc(type, 0);
    if (!e)
        return NULL;
    e->handler = Py_NewRef(handler);
    e->vectorcall = entry_vectorcall;
    e->n = n;
    memcpy(e->kinds, kinds, (size_t)n);
    return (PyObject *)e;
}

static void entry_dealloc(Entry *e)
{
    Py_XDECREF(e->handler);
    Py_TYPE(e)->tp_free((PyObject *)e);
}

PyTypeObject EntryType = {
    PyVarObject_HEAD_INIT(NULL, 0).tp_name = "emulator.cpu._hooks.Entry",
    .tp_basicsize = sizeof(Entry),
    .tp_flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_VECTORCALL,
    .tp_vectorcall_offset = offsetof(Entry, vectorcall),
    .tp_call = PyVectorcall_Call,
    .tp_new = entry_new,
    .tp_dealloc = (destructor)entry_dealloc,
    .tp_doc = "A handler, called with (task, raw arguments).",
};

/* ---- the kernel's objects ------------------------------------------------------------------------------------------ */

static bool slot_offset(PyObject *type, const char *name, Py_ssize_t *offset)
{
    PyObject *member = PyObject_GetAttrString(type, name);
    bool ok = member && Py_IS_TYPE(member, &PyMemberDescr_Type);
    if (ok)
        *offset = ((PyMemberDescrObject *)member)->d_member->offset;
    else if (member)
        PyErr_Format(PyExc_TypeError, "%s is not in __slots__", name);
    Py_XDECREF(member);
    return ok;
}

PyObject *core_serve_for(Core *c, PyObject *spec)
{
    Served *s = &c->served;
    if (!PyDict_Check(spec))
        return PyErr_Format(PyExc_TypeError, "a dict is needed");
    core_forget_served(c);
    PyObject *group = NULL, *futex = NULL, *again = NULL, *restart = NULL, *cost = NULL, *long_turn = NULL;
    struct { const char *name; PyObject **to; } objects[] = {
        {"entries", &s->entries}, {"events", &s->events}, {"queue", &s->queue}, {"Task", &s->task_type},
        {"Call", &s->call_type}, {"ThreadGroup", &group}, {"Waiter", &s->waiter_type}, {"timers", &s->timers},
        {"host_fds", &s->host_fds}, {"host_watchers", &s->host_watchers}, {"futexes", &s->futexes}, {"asleep", &s->asleep},
        {"load", &s->load}, {"append", &s->append}, {"popleft", &s->popleft},
        {"scheduler", &s->scheduler}, {"RUNNABLE", &s->runnable}, {"BLOCKED", &s->blocked}, {"USER_MODE", &s->user_mode},
        {"IN_CALL", &s->in_call}, {"futex", &futex}, {"EAGAIN", &again}, {"ERESTARTSYS", &restart},
        {"cost_insns", &cost}, {"long_turn_insns", &long_turn},
    };
    for (size_t i = 0; i < sizeof objects / sizeof *objects; i++)
        if (!(*objects[i].to = PyDict_GetItemString(spec, objects[i].name))) /* borrowed */
            return PyErr_Format(PyExc_KeyError, "%s", objects[i].name);
    struct { PyObject *type; const char *name; Py_ssize_t *to; } slots[] = {
        {s->task_type, "call", &s->call}, {s->task_type, "attention", &s->attention},
        {s->task_type, "watch_calls", &s->watch_calls}, {s->task_type, "special", &s->special},
        {s->task_type, "stepping", &s->stepping}, {s->task_type, "hold", &s->hold}, {s->task_type, "trace", &s->trace},
        {s->task_type, "group", &s->group}, {s->task_type, "space", &s->space}, {s->task_type, "state", &s->state},
        {s->task_type, "wait", &s->wait}, {s->task_type, "queued", &s->queued},
        {s->task_type, "quantum_end", &s->quantum_end}, {s->task_type, "voluntary_switches", &s->switches},
        {s->call_type, "number", &s->number}, {s->call_type, "args", &s->args}, {s->call_type, "memo", &s->memo},
        {s->call_type, "deadline_ns", &s->deadline}, {s->call_type, "phase", &s->phase}, {group, "stopped", &s->stopped},
        {group, "exiting", &s->exiting}, {s->waiter_type, "task", &s->w_task}, {s->waiter_type, "key", &s->w_key},
        {s->waiter_type, "bitset", &s->w_bitset}, {s->waiter_type, "index", &s->w_index},
        {s->waiter_type, "pi_address", &s->w_pi}, {s->waiter_type, "requeue_pi_key", &s->w_requeue},
        {s->waiter_type, "woken", &s->w_woken},
    };
    for (size_t i = 0; i < sizeof slots / sizeof *slots; i++)
        if (!slot_offset(slots[i].type, slots[i].name, slots[i].to))
            return NULL;
    s->futex = PyLong_AsLongLong(futex);
    s->cost = PyLong_AsUnsignedLongLong(cost);
    s->long_turn = PyLong_AsUnsignedLongLong(long_turn);
    s->again = PyLong_AsUnsignedLongLong(again);
    s->restart = PyLong_AsUnsignedLongLong(restart);
    if (PyErr_Occurred())
        return NULL;
    s->serial_name = PyUnicode_InternFromString("serial");
    s->ranked_name = PyUnicode_InternFromString("ranked");
    if (!s->serial_name || !s->ranked_name)
        return NULL;
    s->spec = Py_NewRef(spec);
    Py_RETURN_NONE;
}

/* The handler has returned or raised: what the run loop has to deal with; NULL without an exception: nothing. */
static PyObject *finish(Core *c, PyObject *task, PyObject *call, PyObject *result)
{
    const Served *s = &c->served;
    if (!result && !PyErr_ExceptionMatches(PyExc_Exception))
        return NULL;
    if (!result) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        PyErr_NormalizeException(&type, &value, &traceback);
        if (traceback)
            PyException_SetTraceback(value, traceback);
        Py_XDECREF(type);
        Py_XDECREF(traceback);
        return value;
    }
    if (result != Py_None && !PyLong_Check(result))
        return result;
    core_set(c, c->live, c->reg_result, result == Py_None ? 0 : PyLong_AsUnsignedLongLongMask(result));
    Py_DECREF(result);
    set(call, s->memo, Py_None);
    set(call, s->deadline, Py_None);
    if (!undisturbed(s, task) || PyObject_Size(s->events) ||
        (c->tells_stores && PyList_GET_SIZE(c->table->hits)))
        return Py_NewRef(c->SERVED);
    return NULL;
}

/* Make a call that is not done here: through its entry.  Returns as `finish`. */
static PyObject *call_entry(Core *c, PyObject *task, PyObject *call, PyObject *number, PyObject *entry, const uint64_t *raw)
{
    const Served *s = &c->served;
    PyObject *boxed = core_box(raw), *result = NULL;
    if (!boxed)
        return NULL;
    Py_INCREF(call);
    Py_INCREF(entry);
    set(call, s->number, number);
    set(call, s->args, boxed);
    if (Py_IS_TYPE(entry, &EntryType))
        result = entry_call((Entry *)entry, task, boxed, raw);
    else
        result = PyObject_CallFunctionObjArgs(entry, task, boxed, NULL);
    Py_DECREF(entry);
    Py_DECREF(boxed);
    PyObject *reason = finish(c, task, call, result);
    Py_DECREF(call);
    return reason;
}

/* The clock's value at which the turn of a task ends. */
static uint64_t turn_end(Core *c, PyObject *task, uint64_t end)
{
    int64_t own = PyLong_AsLongLong(*slot(task, c->served.quantum_end)); /* calls may have moved it before the clock's 0 */
    return own < 0 ? 0 : (uint64_t)own < end ? (uint64_t)own : end;
}

/* The calls made have cost the task a part of its turn. */
static bool charge(const Served *s, PyObject *task, uint64_t *spent)
{
    long long end = *spent ? PyLong_AsLongLong(*slot(task, s->quantum_end)) : 0;
    PyObject *sooner = *spent && !PyErr_Occurred() ? PyLong_FromLongLong(end - (long long)*spent) : NULL;
    if (sooner)
        put(task, s->quantum_end, sooner);
    bool ok = sooner || !*spent;
    *spent = 0;
    return ok;
}

static PyObject *serve(Core *c, uint64_t end, uint64_t *spent)
{
    Served *s = &c->served;
    uint64_t until = turn_end(c, s->serving, end);
    for (;;) {
        PyObject *task = s->serving, *call = *slot(task, s->call), *next;
        c->skip_pc = NOWHERE;
        c->soft = !PyObject_Size(s->queue); /* alone: where the turn ends decides nothing */
        enum Answer got = core_run_freed(c, until > *spent ? until - *spent : 0);
        if (got != A_SYSCALL || *slot(task, s->watch_calls) != Py_False || !Py_IS_TYPE(call, (PyTypeObject *)s->call_type))
            return core_answer(c, got);
        int64_t nr = (int64_t)core_reg(c, c->live, c->reg_nr);
        PyObject *number = PyLong_FromLongLong(nr);
        PyObject *entry = number ? PyDict_GetItemWithError(s->entries, number) : NULL; /* borrowed */
        if (!entry) {
            Py_XDECREF(number);
            return PyErr_Occurred() ? NULL : core_answer(c, got);
        }
        uint64_t raw[MAX_ARGUMENTS];
        core_syscall(c, raw);
        *spent += s->cost;
        PyObject *reason = NULL;
        bool ok = true;
        switch (nr == s->futex ? serve_futex(c, task, raw, end, &next) : FUTEX_ELSEWHERE) {
        case FUTEX_ELSEWHERE:
            reason = call_entry(c, task, call, number, entry, raw);
            break;
        case FUTEX_HANDED_OVER:
            ok = charge(s, task, spent);
            Py_SETREF(s->serving, next);
            until = turn_end(c, next, end);
            break;
        default:
            break;
        }
        Py_DECREF(number);
        if (reason || !ok || PyErr_Occurred() || PyErr_CheckSignals())
            return reason;
    }
}

PyObject *core_serve(Core *c, PyObject *const *args, Py_ssize_t n)
{
    Served *s = &c->served;
    if (n != 2 || !s->spec || !Py_IS_TYPE(args[0], (PyTypeObject *)s->task_type))
        return PyErr_Format(PyExc_TypeError, "serve(task, end)");
    uint64_t end = PyLong_AsUnsignedLongLong(args[1]), spent = 0;
    if (PyErr_Occurred() || !core_may_run(c))
        return NULL;
    Py_XSETREF(s->serving, Py_NewRef(args[0]));
    PyObject *reason = serve(c, end, &spent);
    if (reason && !charge(s, s->serving, &spent))
        Py_CLEAR(reason);
    return reason;
}

void core_forget_served(Core *c)
{
    Py_CLEAR(c->served.serving);
    Py_CLEAR(c->served.spec);
    Py_CLEAR(c->served.serial_name);
    Py_CLEAR(c->served.ranked_name);
}

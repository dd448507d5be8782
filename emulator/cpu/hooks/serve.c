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

static inline PyObject **slot(PyObject *object, Py_ssize_t offset) { return (PyObject **)((char *)object + offset); }

static inline void put(PyObject *object, Py_ssize_t offset, PyObject *value) /* steals `value` */
{
    PyObject **at = slot(object, offset), *old = *at;
    *at = value;
    Py_XDECREF(old);
}

static inline void clear(PyObject *object, Py_ssize_t offset)
{
    if (*slot(object, offset) != Py_None)
        put(object, offset, Py_NewRef(Py_None));
}

PyObject *core_serve_for(Core *c, PyObject *args)
{
    Served *s = &c->served;
    PyObject *entries, *events, *queue, *task, *call;
    unsigned long long cost;
    if (!PyArg_ParseTuple(args, "O!OOO!O!K", &PyDict_Type, &entries, &events, &queue, &PyType_Type, &task, &PyType_Type, &call, &cost))
        return NULL;
    if (!slot_offset(task, "call", &s->call) || !slot_offset(task, "attention", &s->attention) ||
        !slot_offset(task, "watch_calls", &s->watch_calls) || !slot_offset(task, "special", &s->special) ||
        !slot_offset(task, "stepping", &s->stepping) || !slot_offset(task, "quantum_end", &s->quantum_end) ||
        !slot_offset(call, "number", &s->number) || !slot_offset(call, "args", &s->args) ||
        !slot_offset(call, "memo", &s->memo) || !slot_offset(call, "deadline_ns", &s->deadline))
        return NULL;
    s->cost = cost;
    Py_XSETREF(s->entries, Py_NewRef(entries));
    Py_XSETREF(s->events, Py_NewRef(events));
    Py_XSETREF(s->queue, Py_NewRef(queue));
    Py_XSETREF(s->task_type, Py_NewRef(task));
    Py_XSETREF(s->call_type, Py_NewRef(call));
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
    clear(call, s->memo);
    clear(call, s->deadline);
    if (*slot(task, s->attention) != Py_False || PyObject_Size(s->events) || *slot(task, s->watch_calls) != Py_False ||
        *slot(task, s->special) != Py_False || *slot(task, s->stepping) != Py_None ||
        (c->tells_stores && PyList_GET_SIZE(c->table->hits)))
        return Py_NewRef(c->SERVED);
    return NULL;
}

static PyObject *serve(Core *c, PyObject *task, PyObject *call, uint64_t until, uint64_t *spent)
{
    const Served *s = &c->served;
    for (;;) {
        c->skip_pc = NOWHERE;
        c->soft = !PyObject_Size(s->queue); /* alone: where the turn ends decides nothing */
        enum Answer got = core_run_freed(c, until > *spent ? until - *spent : 0);
        if (got != A_SYSCALL || *slot(task, s->watch_calls) != Py_False)
            return core_answer(c, got);
        PyObject *number = PyLong_FromLongLong((int64_t)core_reg(c, c->live, c->reg_nr));
        PyObject *entry = number ? PyDict_GetItemWithError(s->entries, number) : NULL; /* borrowed */
        if (!entry) {
            Py_XDECREF(number);
            return PyErr_Occurred() ? NULL : core_answer(c, got);
        }
        uint64_t raw[MAX_ARGUMENTS];
        PyObject *boxed = core_syscall(c, raw);
        if (!boxed) {
            Py_DECREF(number);
            return NULL;
        }
        *spent += s->cost;
        Py_INCREF(call);
        Py_INCREF(entry);
        put(call, s->number, number);
        put(call, s->args, Py_NewRef(boxed));
        PyObject *result;
        if (Py_IS_TYPE(entry, &EntryType))
            result = entry_call((Entry *)entry, task, boxed, raw);
        else
            result = PyObject_CallFunctionObjArgs(entry, task, boxed, NULL);
        Py_DECREF(entry);
        Py_DECREF(boxed);
        PyObject *reason = finish(c, task, call, result);
        Py_DECREF(call);
        if (reason || PyErr_Occurred() || PyErr_CheckSignals())
            return reason;
        if (call != *slot(task, s->call))
            return Py_NewRef(c->SERVED);
    }
}

/* The calls made have cost the task a part of its turn. */
static bool charge(const Served *s, PyObject *task, uint64_t spent)
{
    long long end = PyLong_AsLongLong(*slot(task, s->quantum_end));
    PyObject *sooner = PyErr_Occurred() ? NULL : PyLong_FromLongLong(end - (long long)spent);
    if (!sooner)
        return false;
    put(task, s->quantum_end, sooner);
    return true;
}

PyObject *core_serve(Core *c, PyObject *const *args, Py_ssize_t n)
{
    const Served *s = &c->served;
    if (n != 2 || !s->entries || !Py_IS_TYPE(args[0], (PyTypeObject *)s->task_type))
        return PyErr_Format(PyExc_TypeError, "serve(task, until)");
    PyObject *task = args[0], *call = *slot(task, s->call);
    uint64_t until = PyLong_AsUnsignedLongLong(args[1]), spent = 0;
    if (PyErr_Occurred() || !core_may_run(c))
        return NULL;
    if (!call || !Py_IS_TYPE(call, (PyTypeObject *)s->call_type))
        return PyErr_Format(PyExc_TypeError, "the task has no call");
    PyObject *reason = serve(c, task, call, until, &spent);
    if (reason && spent && !charge(s, task, spent))
        Py_CLEAR(reason);
    return reason;
}

void core_forget_served(Core *c)
{
    Served *s = &c->served;
    Py_CLEAR(s->entries);
    Py_CLEAR(s->events);
    Py_CLEAR(s->queue);
    Py_CLEAR(s->task_type);
    Py_CLEAR(s->call_type);
}

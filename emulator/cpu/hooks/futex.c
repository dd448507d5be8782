/* The two plain cases of futex(2) that locks and conditions are made of, and the hand-over from a thread that goes to
 * sleep to the next one.
 *
 * Rule: what happens is what emulator/syscalls/futex.py, kernel/scheduler.py and machine.py do, on the same objects, in
 * the same order; whatever is not plain (a timeout, a waiter of another kind, a signal, an onlooker, real-time
 * priorities) is left to them.
 */
#include "engine.h"

/* <linux/futex.h>: FUTEX_WAIT, FUTEX_WAKE and FUTEX_WAIT_BITSET with FUTEX_PRIVATE_FLAG; FUTEX_BITSET_MATCH_ANY */
enum { WAIT_PRIVATE = 128, WAKE_PRIVATE = 129, WAIT_BITSET_PRIVATE = 137, CLOCK_REALTIME_FLAG = 256 };
#define MATCH_ANY 0xffffffff

/* kernel.futex.key_of a private word. */
static PyObject *key_of(Core *c, PyObject *task, uint64_t address)
{
    PyObject *serial = PyObject_GetAttr(*slot(task, c->served.space), c->served.serial_name);
    PyObject *where = serial ? PyLong_FromUnsignedLongLong(address) : NULL;
    PyObject *key = where ? PyTuple_Pack(2, serial, where) : NULL;
    Py_XDECREF(serial);
    Py_XDECREF(where);
    return key;
}

/* Scheduler.wake for a task that sleeps on a futex and nothing else. */
static bool make_runnable(const Served *s, PyObject *task)
{
    set(task, s->wait, Py_None);
    set(task, s->state, s->runnable);
    if (*slot(task, s->queued) != Py_False)
        return true;
    set(task, s->queued, Py_True);
    PyObject *done = PyObject_CallOneArg(s->append, task);
    Py_XDECREF(done);
    return done;
}

static enum Futex wake(Core *c, PyObject *task, uint64_t address)
{
    const Served *s = &c->served;
    PyObject *key = key_of(c, task, address);
    PyObject *waiters = key ? PyDict_GetItemWithError(s->futexes, key) : NULL; /* borrowed */
    enum Futex done = PyErr_Occurred() ? FUTEX_RAISED : FUTEX_ELSEWHERE;
    if (done == FUTEX_ELSEWHERE && !waiters) {
        core_set(c, c->live, c->reg_result, 0);
        done = FUTEX_DONE;
    } else if (waiters && PyList_CheckExact(waiters) && PyList_GET_SIZE(waiters) == 1) {
        PyObject *waiter = PyList_GET_ITEM(waiters, 0);
        PyObject *sleeper = Py_IS_TYPE(waiter, (PyTypeObject *)s->waiter_type) ? *slot(waiter, s->w_task) : NULL;
        if (sleeper && Py_IS_TYPE(sleeper, (PyTypeObject *)s->task_type) && *slot(sleeper, s->state) == s->blocked &&
            *slot(sleeper, s->wait) == s->asleep) {
            set(waiter, s->w_woken, Py_True);
            Py_INCREF(sleeper);
            bool ok = !PyDict_DelItem(s->futexes, key) && make_runnable(s, sleeper);
            Py_DECREF(sleeper);
            core_set(c, c->live, c->reg_result, 1);
            done = ok ? FUTEX_DONE : FUTEX_RAISED;
        }
    }
    Py_XDECREF(key);
    return done;
}

/* The task that the run loop would take next, if it has nothing else to look at before and that one simply goes on:
 * in user mode, or from a futex it was woken on.  A new reference, or NULL. */
static PyObject *successor(Core *c, uint64_t end)
{
    const Served *s = &c->served;
    Py_ssize_t n = PyObject_Size(s->queue);
    if (c->stop || c->clock >= end || PyObject_Size(s->events) || PyObject_Size(s->timers) || PyObject_Size(s->host_fds) ||
        PyObject_Size(s->host_watchers) || n < 1)
        return NULL;
    PyObject *next = PySequence_GetItem(s->queue, 0);
    if (!next || !Py_IS_TYPE(next, (PyTypeObject *)s->task_type)) {
        Py_XDECREF(next);
        return NULL;
    }
    PyObject *group = *slot(next, s->group), *call = *slot(next, s->call), *memo = *slot(call, s->memo);
    int64_t left = PyLong_AsLongLong(*slot(next, s->quantum_end)) - (int64_t)c->clock;
    bool plain = left > 0 && (n == 1 || left <= (int64_t)s->long_turn) && undisturbed(s, next) &&
                 *slot(next, s->hold) == Py_False && *slot(next, s->trace) == Py_None &&
                 *slot(group, s->stopped) == Py_False && *slot(group, s->exiting) == Py_False;
    PyObject *phase = *slot(call, s->phase);
    bool woken = phase == s->in_call && Py_IS_TYPE(memo, (PyTypeObject *)s->waiter_type) && *slot(memo, s->w_woken) == Py_True;
    if (plain && (phase == s->user_mode || woken))
        return next;
    Py_DECREF(next);
    return NULL;
}

/* Scheduler.next and Kernel.load, and the end of the call the task slept in. */
static bool go_on_with(Core *c, PyObject *next)
{
    const Served *s = &c->served;
    PyObject *call = *slot(next, s->call);
    PyObject *first = PyObject_CallNoArgs(s->popleft);
    set(next, s->queued, Py_False);
    PyObject *loaded = first ? PyObject_CallOneArg(s->load, next) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(loaded);
    if (loaded && *slot(call, s->phase) == s->in_call) {
        core_set(c, c->live, c->reg_result, PyLong_AsUnsignedLongLongMask(*slot(*slot(call, s->memo), s->w_index)));
        set(call, s->phase, s->user_mode);
        set(call, s->memo, Py_None);
        set(call, s->deadline, Py_None);
    }
    return loaded;
}

/* kernel.futex.Waiter(task, key), entered where wakers look. */
static PyObject *fall_asleep(const Served *s, PyObject *task, PyObject *key)
{
    PyObject *waiter = PyObject_CallFunctionObjArgs(s->waiter_type, task, key, NULL);
    PyObject *waiters = waiter ? PyDict_GetItemWithError(s->futexes, key) : NULL; /* borrowed */
    int failed = waiter == NULL || PyErr_Occurred();
    if (!failed && waiters) {
        failed = PyList_Append(waiters, waiter);
    } else if (!failed) {
        waiters = PyList_New(1);
        if (waiters)
            PyList_SET_ITEM(waiters, 0, Py_NewRef(waiter));
        failed = !waiters || PyDict_SetItem(s->futexes, key, waiters);
        Py_XDECREF(waiters);
    }
    if (failed)
        Py_CLEAR(waiter);
    return waiter;
}

static enum Futex wait(Core *c, PyObject *task, const uint64_t *raw, uint64_t end, PyObject **next)
{
    const Served *s = &c->served;
    uint32_t word;
    if (!table_read_u32(c->table, raw[0], &word))
        return FUTEX_ELSEWHERE;
    if (word != (uint32_t)raw[2]) {
        core_set(c, c->live, c->reg_result, s->again);
        return FUTEX_DONE;
    }
    PyObject *call = *slot(task, s->call), *key = NULL, *args = NULL, *number = NULL, *switches = NULL, *waiter = NULL;
    bool may_sleep = *slot(task, s->state) == s->runnable && *slot(task, s->attention) == Py_False &&
                     *slot(call, s->phase) == s->user_mode;
    if (!may_sleep || !(*next = successor(c, end)))
        return PyErr_Occurred() ? FUTEX_RAISED : FUTEX_ELSEWHERE;
    bool ok = (key = key_of(c, task, raw[0])) && (args = core_box(raw)) && (number = PyLong_FromLongLong(s->futex)) &&
              (switches = PyLong_FromLongLong(PyLong_AsLongLong(*slot(task, s->switches)) + 1)) &&
              (waiter = fall_asleep(s, task, key));
    if (ok) {
        set(call, s->number, number);
        set(call, s->args, args);
        set(call, s->memo, waiter);
        set(call, s->phase, s->in_call);
        set(task, s->state, s->blocked);
        set(task, s->wait, s->asleep);
        set(task, s->switches, switches);
        core_set(c, c->live, c->reg_result, s->restart);
        ok = go_on_with(c, *next);
    }
    PyObject *held[] = {key, args, number, switches, waiter, ok ? NULL : *next};
    for (size_t i = 0; i < sizeof held / sizeof *held; i++)
        Py_XDECREF(held[i]);
    return ok ? FUTEX_HANDED_OVER : FUTEX_RAISED;
}

enum Futex serve_futex(Core *c, PyObject *task, const uint64_t *raw, uint64_t end, PyObject **next)
{
    int32_t operation = (int32_t)raw[1];
    PyObject *ranked = PyObject_GetAttr(c->served.scheduler, c->served.ranked_name);
    Py_XDECREF(ranked); /* True or False, which outlive it */
    if (!ranked)
        return FUTEX_RAISED;
    if (ranked != Py_False || raw[0] & 3)
        return FUTEX_ELSEWHERE;
    if (operation == WAKE_PRIVATE)
        return wake(c, task, raw[0]);
    bool any = (operation & ~CLOCK_REALTIME_FLAG) == WAIT_BITSET_PRIVATE && (uint32_t)raw[5] == MATCH_ANY;
    return (operation == WAIT_PRIVATE || any) && !raw[3] ? wait(c, task, raw, end, next) : FUTEX_ELSEWHERE;
}

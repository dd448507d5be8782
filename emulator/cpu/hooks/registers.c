/* The guest's registers as Python sees them: one, many, or all as a context. */
#include "engine.h"
#include <string.h>

PyObject *core_read_reg(Core *c, PyObject *args)
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

PyObject *core_write_reg(Core *c, PyObject *args)
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
PyObject *core_read_regs(Core *c, PyObject *args)
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

PyObject *core_write_regs(Core *c, PyObject *args)
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

PyObject *core_set_result(Core *c, PyObject *value)
{
    uint64_t v = PyLong_AsUnsignedLongLongMask(value);
    if (v == UINT64_MAX && PyErr_Occurred())
        return NULL;
    core_set(c, c->live, c->reg_result, v);
    Py_RETURN_NONE;
}

PyObject *core_save(Core *c, PyObject *unused)
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

PyObject *core_load(Core *c, PyObject *blob)
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

PyObject *core_merge_mxcsr(Core *c, PyObject *unused)
{
    core_sync_mxcsr(c);
    Py_RETURN_NONE;
}

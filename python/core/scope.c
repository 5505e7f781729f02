/*
 * Scopes: names with counters and a limit, and the counters as a dictionary.
 */
#include "core.h"

#include <string.h>

PyTypeObject *umo_py_scope_type;

PyObject *umo_py_tally(umo_tally tally)
{
    return Py_BuildValue("{s:K,s:K}", "events", (unsigned long long)tally.events, "bytes",
                         (unsigned long long)tally.bytes);
}

static PyObject *directions(const umo_tally tally[UMO_DIRECTIONS], const char *in, const char *out)
{
    return Py_BuildValue("{s:N,s:N}", in, umo_py_tally(tally[UMO_DIRECTION_IN]), out,
                         umo_py_tally(tally[UMO_DIRECTION_OUT]));
}

/* Copies by their reason; reasons that never were are left out. */
static PyObject *reasons(const umo_tally tally[UMO_REASON_COUNT])
{
    PyObject *out = PyDict_New();
    for (int i = 0; i < UMO_REASON_COUNT && out != NULL; i++) {
        if (tally[i].events == 0) {
            continue;
        }
        PyObject *item = umo_py_tally(tally[i]);
        if (item == NULL || PyDict_SetItemString(out, umo_reason_label((umo_reason)i), item) != 0) {
            Py_CLEAR(out);
        }
        Py_XDECREF(item);
    }
    return out;
}

PyObject *umo_py_counters(const umo_counters *c)
{
    return Py_BuildValue(
        "{s:N,s:N,s:{s:N,s:N},s:N,s:N,s:N,s:N,s:N,s:K,s:K,s:K}", "transfers_performed",
        directions(c->transfer_performed, "to_device", "to_host"), "transfers_eliminated",
        directions(c->transfer_eliminated, "to_device", "to_host"), "copies_performed", "in",
        reasons(c->copy_performed[UMO_DIRECTION_IN]), "out",
        reasons(c->copy_performed[UMO_DIRECTION_OUT]), "copies_avoided",
        directions(c->copy_avoided, "in", "out"), "imported", umo_py_tally(c->imported),
        "import_hits", umo_py_tally(c->import_hits), "allocated", umo_py_tally(c->allocated),
        "moves", umo_py_tally(c->moves), "live_bytes", (unsigned long long)c->live_bytes,
        "peak_bytes", (unsigned long long)c->peak_bytes, "live_buffers",
        (unsigned long long)c->live_buffers);
}

/* NULL for the context's own, whose limit is the context's budget. */
static bool name_take(PyObject *argument, uint64_t limit_bytes, const char **out)
{
    if (argument == NULL) {
        if (limit_bytes > 0) {
            PyErr_SetString(umo_py_exception(UMO_E_INVAL), "limit_bytes: a limit needs a name");
        }
        return limit_bytes == 0;
    }
    Py_ssize_t length = 0;
    *out = PyUnicode_AsUTF8AndSize(argument, &length);
    if (*out != NULL && strlen(*out) != (size_t)length) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "name: %R has a zero byte", argument);
        return false;
    }
    return *out != NULL;
}

static PyObject *scope_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static umo_py_args spec = UMO_PY_ARGS("Scope", 3, 1, "context", "name", "limit_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    uint64_t limit_bytes = 0;
    if (!umo_py_args_take_tuple(&spec, args, keywords, given) ||
        !umo_py_u64(given[2], "limit_bytes", &limit_bytes)) {
        return NULL;
    }
    if (Py_TYPE(given[0]) != umo_py_context_type) {
        PyErr_SetString(PyExc_TypeError, "Scope() needs a Context");
        return NULL;
    }
    umo_py_context *owner = (umo_py_context *)given[0];
    const char *name = NULL;
    if (!name_take(given[1], limit_bytes, &name)) {
        return NULL;
    }
    umo_py_scope *self = (umo_py_scope *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->root = true;
    self->limit_bytes = limit_bytes;
    umo_context *context = umo_py_context_enter(owner);
    if (context == NULL) {
        Py_DECREF(UMO_PY_OBJECT(self));
        return NULL;
    }
    self->context = (umo_py_context *)Py_NewRef(UMO_PY_OBJECT(owner));
    self->scope = umo_context_scope(context);
    if (name != NULL) {
        umo_error error = {0};
        umo_status status =
            umo_scope_create(umo_context_scope(context), name, limit_bytes, &self->scope, &error);
        if (status != UMO_OK) {
            Py_DECREF(UMO_PY_OBJECT(self));
            return umo_py_raise(status, &error, UMO_REASON_NONE, "making a scope");
        }
        self->root = false;
    }
    return (PyObject *)self;
}

static void scope_dealloc(PyObject *object)
{
    umo_py_scope *self = (umo_py_scope *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (!self->root) {
        umo_scope_destroy(self->scope);
    }
    if (self->context != NULL) {
        umo_py_context_leave(self->context);
        Py_DECREF(UMO_PY_OBJECT(self->context));
    }
    PyObject_Free(self);
    Py_DECREF(UMO_PY_OBJECT(type));
}

umo_scope *umo_py_scope_take(umo_py_context *context, PyObject *argument)
{
    if (argument == NULL) {
        return umo_context_scope(context->context);
    }
    if (Py_TYPE(argument) != umo_py_scope_type ||
        ((umo_py_scope *)argument)->context->context != context->context) {
        PyErr_SetString(PyExc_TypeError, "scope: a Scope of this context");
        return NULL;
    }
    return ((umo_py_scope *)argument)->scope;
}

static PyObject *scope_stats(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_counters counters;
    umo_scope_read(((umo_py_scope *)object)->scope, &counters);
    return umo_py_counters(&counters);
}

static PyObject *name_get(PyObject *object, void *unused)
{
    (void)unused;
    /* A name of more than 63 bytes was cut, perhaps inside a letter. */
    const char *name = umo_scope_name(((umo_py_scope *)object)->scope);
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
}

static PyObject *limit_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((umo_py_scope *)object)->limit_bytes);
}

static PyGetSetDef scope_fields[] = {
    {"name", name_get, NULL, "As given, cut at 63 bytes.", NULL},
    {"limit_bytes", limit_get, NULL, "Most live bytes; 0 for no limit of its own.", NULL},
    {0},
};

static PyMethodDef scope_methods[] = {
    {"stats", scope_stats, METH_NOARGS,
     "stats($self, /)\n--\n\nThe counters of the scope and those below."},
    {0},
};

static PyType_Slot scope_slots[] = {
    {Py_tp_doc, "Scope(context, name=None, limit_bytes=0)\n--\n\n"
                "Who owns memory and causes movement: a name with counters and a limit."},
    UMO_PY_SLOT(Py_tp_new, scope_make),
    UMO_PY_SLOT(Py_tp_dealloc, scope_dealloc),
    {Py_tp_getset, scope_fields},
    {Py_tp_methods, scope_methods},
    {0},
};

static PyType_Spec scope_spec = {
    .name = "umo.Scope",
    .basicsize = sizeof(umo_py_scope),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = scope_slots,
};

bool umo_py_scope_add(PyObject *module)
{
    return umo_py_type_add(module, &scope_spec, &umo_py_scope_type);
}

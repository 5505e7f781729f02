/*
 * Weights: files that are mapped once a process, read-only.
 */
#include "core.h"

PyTypeObject *umo_py_weights_type;

typedef struct weights_object {
    PyObject_HEAD umo_weights *weights;
    umo_py_context *context;
} weights_object;

static PyObject *weights_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static umo_py_args spec = UMO_PY_ARGS("Weights", 2, 2, "context", "path", "same_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    bool same_bytes = false;
    if (!umo_py_args_take_tuple(&spec, args, keywords, given) ||
        !umo_py_bool(given[2], &same_bytes)) {
        return NULL;
    }
    PyObject *path = NULL;
    if (Py_TYPE(given[0]) != umo_py_context_type) {
        PyErr_SetString(PyExc_TypeError, "Weights() needs a Context");
        return NULL;
    }
    if (!PyUnicode_FSConverter(given[1], &path)) {
        return NULL;
    }
    weights_object *self = (weights_object *)PyType_GenericAlloc(type, 0);
    umo_py_context *context = (umo_py_context *)given[0];
    if (self == NULL || umo_py_context_enter(context) == NULL) {
        Py_XDECREF(UMO_PY_OBJECT(self));
        Py_DECREF(path);
        return NULL;
    }
    self->context = (umo_py_context *)Py_NewRef(UMO_PY_OBJECT(context));
    umo_scope *scope = umo_context_scope(context->context);
    const char *name = PyBytes_AsString(path);
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_weights_open(
        name, scope, same_bytes ? UMO_WEIGHTS_SAME_BYTES : 0, &self->weights, &error);
    Py_END_ALLOW_THREADS Py_DECREF(path);
    if (status != UMO_OK) {
        Py_DECREF(UMO_PY_OBJECT(self));
        return umo_py_raise(status, &error, UMO_REASON_NONE, "opening weights");
    }
    return (PyObject *)self;
}

static void weights_dealloc(PyObject *object)
{
    weights_object *self = (weights_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    umo_weights *weights = self->weights;
    Py_BEGIN_ALLOW_THREADS umo_weights_release(weights);
    Py_END_ALLOW_THREADS if (self->context != NULL)
    {
        umo_py_context_leave(self->context);
        Py_DECREF(UMO_PY_OBJECT(self->context));
    }
    PyObject_Free(self);
    Py_DECREF(UMO_PY_OBJECT(type));
}

static int weights_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    weights_object *self = (weights_object *)object;
    return PyBuffer_FillInfo(view, object, (void *)(uintptr_t)umo_weights_data(self->weights),
                             (Py_ssize_t)umo_weights_size(self->weights), 1, flags);
}

static PyObject *weights_check(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_error error = {0};
    umo_status status = umo_weights_check(((weights_object *)object)->weights, &error);
    if (status != UMO_OK) {
        return umo_py_raise(status, &error, UMO_REASON_NONE, "the file has changed");
    }
    Py_RETURN_NONE;
}

static PyObject *weights_rest(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_weights *weights = ((weights_object *)object)->weights;
    Py_BEGIN_ALLOW_THREADS umo_weights_rest(weights);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *weights_buffer(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                PyObject *names)
{
    static umo_py_args spec =
        UMO_PY_ARGS("buffer", 0, 0, "device", "mode", "offset_bytes", "size_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    weights_object *self = (weights_object *)object;
    umo_storage_mode mode = UMO_UNIFIED;
    size_t offset_bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_mode(given[1], &mode) ||
        !umo_py_size(given[2], "offset_bytes", &offset_bytes)) {
        return NULL;
    }
    const size_t whole = umo_weights_size(self->weights);
    size_t size_bytes = offset_bytes < whole ? whole - offset_bytes : 0;
    if (!umo_py_size(given[3], "size_bytes", &size_bytes) ||
        umo_py_context_enter(self->context) == NULL) {
        return NULL;
    }
    umo_py_buffer *out = NULL;
    umo_device *device = umo_py_device_take(self->context, given[0]);
    if (device != NULL) {
        umo_buffer *buffer = NULL;
        umo_reason why = UMO_REASON_NONE;
        umo_error error = {0};
        umo_status status;
        Py_BEGIN_ALLOW_THREADS;
        status = umo_weights_buffer(self->weights, device, mode, offset_bytes, size_bytes, &buffer,
                                    &why, &error);
        umo_device_release(device);
        Py_END_ALLOW_THREADS;
        if (status == UMO_OK) {
            out = umo_py_buffer_new(buffer, self->context, NULL, NULL, false);
        } else {
            umo_py_raise(status, &error, why, "showing weights to a device");
        }
    }
    umo_py_context_leave(self->context);
    return (PyObject *)out;
}

static Py_ssize_t weights_length(PyObject *object)
{
    return (Py_ssize_t)umo_weights_size(((weights_object *)object)->weights);
}

static PyObject *nbytes_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(umo_weights_size(((weights_object *)object)->weights));
}

static PyGetSetDef weights_fields[] = {
    {"nbytes", nbytes_get, NULL, "Bytes of the file.", NULL},
    {0},
};

static PyMethodDef weights_methods[] = {
    {"check", weights_check, METH_NOARGS,
     "check($self, /)\n--\n\nNotFoundError when the file no longer has the bytes that were "
     "opened."},
    {"rest", weights_rest, METH_NOARGS,
     "rest($self, /)\n--\n\nTakes the pages that were touched so far out of the process's working "
     "set."},
    {"buffer", UMO_PY_FAST(weights_buffer), UMO_PY_FAST_FLAGS,
     "buffer($self, /, *, device=None, mode='unified', offset_bytes=0, size_bytes=None)\n--\n\n"
     "A range of the file as a device's memory, shared by all who ask for the same."},
    {0},
};

static PyType_Slot weights_slots[] = {
    {Py_tp_doc, "Weights(context, path, *, same_bytes=False)\n--\n\n"
                "A file of weights, mapped once a process and shared by all who open it. As an "
                "object of the buffer\nprotocol it is the file's bytes, read-only."},
    UMO_PY_SLOT(Py_tp_new, weights_make),
    UMO_PY_SLOT(Py_tp_dealloc, weights_dealloc),
    UMO_PY_SLOT(Py_bf_getbuffer, weights_getbuffer),
    UMO_PY_SLOT(Py_sq_length, weights_length),
    {Py_tp_getset, weights_fields},
    {Py_tp_methods, weights_methods},
    {0},
};

static PyType_Spec weights_spec = {
    .name = "umo.Weights",
    .basicsize = sizeof(weights_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = weights_slots,
};

bool umo_py_weights_add(PyObject *module)
{
    return umo_py_type_add(module, &weights_spec, &umo_py_weights_type);
}

/*
 * Pools. A block holds its pool, so a pool that was let go of is destroyed behind its last block.
 */
#include "core.h"

PyTypeObject *umo_py_pool_type;

static bool options_take(PyObject *const *given, umo_pool_options *options)
{
    uint64_t idle_ns = 0;
    if (!umo_py_mode(given[2], &options->mode) ||
        !umo_py_size(given[4], "keep_bytes_max", &options->keep_bytes_max) ||
        !umo_py_size(given[5], "idle_keep_bytes", &options->idle_keep_bytes) ||
        !umo_py_size(given[7], "align_bytes", &options->align_bytes) ||
        (given[6] != NULL && !umo_py_timeout(given[6], &idle_ns))) {
        return false;
    }
    options->idle_ns = idle_ns;
    return true;
}

static bool pool_open(umo_py_pool *self, umo_py_context *context, PyObject *const *given)
{
    umo_pool_options options = {.mode = UMO_UNIFIED};
    if (!options_take(given, &options) || umo_py_context_enter(context) == NULL) {
        return false;
    }
    self->context = (umo_py_context *)Py_NewRef(UMO_PY_OBJECT(context)); /* left by dealloc */
    options.scope = umo_py_scope_take(context, given[3]);
    options.device = options.scope != NULL ? umo_py_device_take(context, given[1]) : NULL;
    if (options.device == NULL) {
        return false;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_pool_create(&options, &self->pool, &error);
    umo_device_release(options.device);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        umo_py_raise(status, &error, UMO_REASON_NONE, "making a pool");
    }
    return status == UMO_OK;
}

static PyObject *pool_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static umo_py_args spec =
        UMO_PY_ARGS("Pool", 1, 1, "context", "device", "mode", "scope", "keep_bytes_max",
                    "idle_keep_bytes", "idle", "align_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    if (!umo_py_args_take_tuple(&spec, args, keywords, given)) {
        return NULL;
    }
    if (Py_TYPE(given[0]) != umo_py_context_type) {
        PyErr_SetString(PyExc_TypeError, "Pool() needs a Context");
        return NULL;
    }
    umo_py_pool *self = (umo_py_pool *)PyType_GenericAlloc(type, 0);
    if (self != NULL && !pool_open(self, (umo_py_context *)given[0], given)) {
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void pool_dealloc(PyObject *object)
{
    umo_py_pool *self = (umo_py_pool *)object;
    PyTypeObject *type = Py_TYPE(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    umo_pool *pool = self->pool;
    Py_BEGIN_ALLOW_THREADS umo_pool_destroy(pool);
    Py_END_ALLOW_THREADS if (self->context != NULL)
    {
        umo_py_context_leave(self->context);
        Py_DECREF(UMO_PY_OBJECT(self->context));
    }
    PyObject_Free(self);
    Py_DECREF(UMO_PY_OBJECT(type));
}

static umo_py_buffer *block_take(umo_py_pool *self, size_t size_bytes, PyObject *owner)
{
    uint64_t number = 0;
    if (!umo_py_u64(owner, "owner", &number)) {
        return NULL;
    }
    if (self->closed) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the pool is closed");
        return NULL;
    }
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    umo_status status;
    umo_pool *pool = self->pool;
    Py_BEGIN_ALLOW_THREADS status = umo_pool_alloc(pool, size_bytes, number, &buffer, &error);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        umo_py_raise(status, &error, UMO_REASON_NONE, "taking a block");
        return NULL;
    }
    return umo_py_buffer_new(buffer, NULL, self, NULL, true);
}

static PyObject *pool_take(PyObject *object, PyObject *const *args, Py_ssize_t count,
                           PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("take", 1, 1, "size_bytes", "owner");
    PyObject *given[UMO_PY_ARGS_MAX];
    size_t size_bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "size_bytes", &size_bytes)) {
        return NULL;
    }
    return (PyObject *)block_take((umo_py_pool *)object, size_bytes, given[1]);
}

static PyObject *pool_empty(PyObject *object, PyObject *const *args, Py_ssize_t count,
                            PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("empty", 2, 1, "shape", "dtype", "owner");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_shape shape;
    umo_dtype dtype = UMO_FP32;
    uint64_t bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_shape(given[0], &shape) ||
        (given[1] != NULL && !umo_py_dtype_take(given[1], &dtype))) {
        return NULL;
    }
    if (umo_shape_bytes(&shape, dtype, &bytes) != UMO_OK || bytes > PY_SSIZE_T_MAX) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL),
                     "shape: %R has a dimension below 0, or too many elements", given[0]);
        return NULL;
    }
    umo_py_buffer *buffer = NULL;
    if (bytes > 0) {
        buffer = block_take((umo_py_pool *)object, (size_t)bytes, given[2]);
        if (buffer == NULL) {
            return NULL;
        }
    }
    PyObject *tensor = umo_py_tensor_packed(buffer, 0, dtype, &shape, false);
    Py_XDECREF(UMO_PY_OBJECT(buffer));
    return tensor;
}

static PyObject *pool_trim(PyObject *object, PyObject *const *args, Py_ssize_t count,
                           PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("trim", 1, 0, "keep_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    size_t keep_bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "keep_bytes", &keep_bytes)) {
        return NULL;
    }
    umo_pool *pool = ((umo_py_pool *)object)->pool;
    Py_BEGIN_ALLOW_THREADS umo_pool_trim(pool, keep_bytes);
    Py_END_ALLOW_THREADS Py_RETURN_NONE;
}

static PyObject *pool_stats(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_pool *pool = ((umo_py_pool *)object)->pool;
    umo_pool_stats s;
    Py_BEGIN_ALLOW_THREADS umo_pool_read(pool, &s);
    Py_END_ALLOW_THREADS return Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:d}", "live_bytes",
        (unsigned long long)s.live_bytes, "reserved_bytes", (unsigned long long)s.reserved_bytes,
        "kept_bytes", (unsigned long long)s.kept_bytes, "peak_live_bytes",
        (unsigned long long)s.peak_live_bytes, "peak_reserved_bytes",
        (unsigned long long)s.peak_reserved_bytes, "hits", (unsigned long long)s.hits, "misses",
        (unsigned long long)s.misses, "scrubbed_bytes", (unsigned long long)s.scrubbed_bytes,
        "trims", (unsigned long long)s.trims, "trimmed_bytes", (unsigned long long)s.trimmed_bytes,
        "moved_bytes", (unsigned long long)s.moved_bytes, "metadata_bytes",
        (unsigned long long)s.metadata_bytes, "fragmentation", s.fragmentation);
}

static PyObject *pool_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    ((umo_py_pool *)object)->closed = true;
    Py_RETURN_NONE;
}

static PyObject *pool_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(object);
}

static PyObject *pool_exit(PyObject *object, PyObject *unused)
{
    (void)unused;
    return pool_close(object, NULL);
}

static PyObject *closed_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_pool *)object)->closed);
}

static PyMemberDef pool_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(umo_py_pool, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef pool_fields[] = {
    {"closed", closed_get, NULL, "Whether close() was called.", NULL},
    {0},
};

static PyMethodDef pool_methods[] = {
    {"take", UMO_PY_FAST(pool_take), UMO_PY_FAST_FLAGS,
     "take($self, /, size_bytes, *, owner=0)\n--\n\nA block, whose contents are undefined. It goes "
     "back when its last user lets go of it."},
    {"empty", UMO_PY_FAST(pool_empty), UMO_PY_FAST_FLAGS,
     "empty($self, /, shape, dtype='float32', *, owner=0)\n--\n\nA tensor in a block."},
    {"trim", UMO_PY_FAST(pool_trim), UMO_PY_FAST_FLAGS,
     "trim($self, /, keep_bytes=0)\n--\n\nGives kept memory back."},
    {"stats", pool_stats, METH_NOARGS, "stats($self, /)\n--\n\nFigures, all of one instant."},
    {"close", pool_close, METH_NOARGS,
     "close($self, /)\n--\n\nHands nothing out from here on; the pool goes with its last block."},
    {"__enter__", pool_enter, METH_NOARGS, NULL},
    {"__exit__", pool_exit, METH_VARARGS, NULL},
    {0},
};

static PyType_Slot pool_slots[] = {
    {Py_tp_doc,
     "Pool(context, *, device=None, mode='unified', scope=None, keep_bytes_max=0, "
     "idle_keep_bytes=0, idle=None, align_bytes=0)\n--\n\n"
     "Memory of one device and mode, handed out in blocks and reused. idle is in seconds."},
    UMO_PY_SLOT(Py_tp_new, pool_make),
    UMO_PY_SLOT(Py_tp_dealloc, pool_dealloc),
    {Py_tp_members, pool_members},
    {Py_tp_getset, pool_fields},
    {Py_tp_methods, pool_methods},
    {0},
};

static PyType_Spec pool_spec = {
    .name = "umo.Pool",
    .basicsize = sizeof(umo_py_pool),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = pool_slots,
};

bool umo_py_pool_add(PyObject *module)
{
    return umo_py_type_add(module, &pool_spec, &umo_py_pool_type);
}

/*
 * Buffers. One of these objects holds one reference to the C ABI's buffer, and all tensors over it
 * hold the object; what DLPack's consumers have holds the memory by itself.
 *
 * Calls that may block work on a reference of their own with the interpreter's lock given up, so
 * that another thread may release the object meanwhile. Views are counted instead: as long as one
 * is out, release() is refused, as for any object of the buffer protocol.
 */
#include "core.h"

PyTypeObject *umo_py_buffer_type;

/* ---- life ---- */

umo_py_buffer *umo_py_buffer_new(umo_buffer *buffer, umo_py_context *context, umo_py_pool *pool,
                                 PyObject *owner, bool writable)
{
    umo_py_buffer *self = (umo_py_buffer *)PyType_GenericAlloc(umo_py_buffer_type, 0);
    if (self == NULL) {
        if (pool != NULL) {
            umo_status_ignore(umo_pool_free(pool->pool, buffer));
        } else {
            umo_buffer_release(buffer);
        }
        return NULL;
    }
    self->buffer = buffer;
    self->owner = owner;
    self->writable = writable;
    if (context != NULL) {
        context->uses++; /* entered by the caller */
        self->context = (umo_py_context *)Py_NewRef(UMO_PY_OBJECT(context));
    }
    self->pool = (umo_py_pool *)Py_XNewRef(UMO_PY_OBJECT(pool));
    return self;
}

umo_buffer *umo_py_buffer_hold(umo_py_buffer *self)
{
    if (self == NULL || self->buffer == NULL) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL),
                        self == NULL ? "a tensor without elements has no memory"
                                     : "the buffer is released");
        return NULL;
    }
    umo_buffer_acquire(self->buffer);
    return self->buffer;
}

/* Gives the memory back; what it was made from may go with it. */
static void buffer_drop(umo_py_buffer *self)
{
    umo_buffer *buffer = self->buffer;
    umo_py_pool *pool = self->pool;
    umo_py_context *context = self->context;
    self->buffer = NULL;
    self->pool = NULL;
    self->context = NULL;
    self->owner = NULL;
    if (self->quick) {
        umo_buffer_release(buffer);
    } else if (buffer != NULL) {
        Py_BEGIN_ALLOW_THREADS;
        if (pool != NULL) {
            umo_status_ignore(umo_pool_free(pool->pool, buffer));
        } else {
            umo_buffer_release(buffer);
        }
        Py_END_ALLOW_THREADS;
    }
    Py_XDECREF(UMO_PY_OBJECT(pool));
    if (context != NULL) {
        umo_py_context_leave(context);
        Py_DECREF(UMO_PY_OBJECT(context));
    }
}

static void buffer_dealloc(PyObject *object)
{
    umo_py_buffer *self = (umo_py_buffer *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    buffer_drop(self);
    PyObject_GC_Del(object);
    Py_DECREF(UMO_PY_OBJECT(type));
}

/* The import holds the owner, and this object the import: whoever has an attribute that leads back
 * here is a cycle that the collector can see. */
static int buffer_traverse(PyObject *object, visitproc visit, void *arg)
{
    umo_py_buffer *self = (umo_py_buffer *)object;
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(self->owner);
    Py_VISIT(self->context);
    Py_VISIT(self->pool);
    return 0;
}

static int buffer_clear(PyObject *object)
{
    umo_py_buffer *self = (umo_py_buffer *)object;
    if (self->exports == 0) {
        buffer_drop(self);
    }
    return 0;
}

static PyObject *buffer_release(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_buffer *self = (umo_py_buffer *)object;
    if (self->exports > 0) {
        PyErr_Format(umo_py_exception(UMO_E_BUSY), "%zd view(s) of the buffer are still in use",
                     self->exports);
        return NULL;
    }
    buffer_drop(self);
    Py_RETURN_NONE;
}

static PyObject *buffer_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    return Py_NewRef(object);
}

static PyObject *buffer_exit(PyObject *object, PyObject *unused)
{
    (void)unused;
    return buffer_release(object, NULL);
}

/* ---- allocation ---- */

/* Movable where the device can, because nobody has said where it is to stay. */
static umo_status alloc_placed(umo_placer *placer, umo_device *device, umo_scope *scope,
                               size_t size_bytes, umo_pattern pattern, umo_buffer **out,
                               umo_error *error)
{
    const umo_storage_mode mode = umo_placer_initial(placer, device, size_bytes, pattern);
    umo_status status = umo_buffer_alloc_movable(device, scope, size_bytes, mode, out, error);
    if (status == UMO_E_UNSUPPORTED || status == UMO_E_REFUSED) {
        if (error != NULL) {
            error->text[0] = '\0';
        }
        status = umo_buffer_alloc(device, scope, size_bytes, mode, out, error);
    }
    return status;
}

umo_py_buffer *umo_py_buffer_alloc(umo_py_context *context, size_t size_bytes, PyObject *device,
                                   PyObject *scope, PyObject *mode, PyObject *pattern)
{
    umo_storage_mode wanted = UMO_UNIFIED;
    umo_pattern declared = UMO_PATTERN_UNKNOWN;
    if (!umo_py_mode(mode, &wanted) || !umo_py_pattern(pattern, &declared)) {
        return NULL;
    }
    umo_scope *charged = umo_py_scope_take(context, scope);
    umo_placer *placer = charged != NULL ? umo_py_placer_get(context) : NULL;
    umo_device *on = placer != NULL ? umo_py_device_take(context, device) : NULL;
    if (on == NULL) {
        return NULL;
    }
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status =
        mode != NULL ? umo_buffer_alloc(on, charged, size_bytes, wanted, &buffer, &error)
                     : alloc_placed(placer, on, charged, size_bytes, declared, &buffer, &error);
    if (status == UMO_OK && declared != UMO_PATTERN_UNKNOWN) {
        umo_status_ignore(umo_buffer_set_pattern(buffer, declared)); /* a hint, no promise */
    }
    umo_device_release(on);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        umo_py_raise(status, &error, UMO_REASON_NONE, "allocating a buffer");
        return NULL;
    }
    return umo_py_buffer_new(buffer, context, NULL, NULL, true);
}

/* ---- views ---- */

bool umo_py_buffer_export(umo_py_buffer *self, bool writable)
{
    if (self->buffer == NULL) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the buffer is released");
        return false;
    }
    umo_buffer *buffer = self->buffer;
    umo_fence_set waits;
    self->exports++;
    umo_status status;
    if (self->quick) {
        status = umo_buffer_export_begin(buffer, UMO_SIDE_HOST, writable, &waits);
    } else {
        Py_BEGIN_ALLOW_THREADS status =
            umo_buffer_export_begin(buffer, UMO_SIDE_HOST, writable, &waits);
        Py_END_ALLOW_THREADS
    }
    if (status == UMO_OK && waits.count > 0) {
        Py_BEGIN_ALLOW_THREADS status = umo_fence_set_wait(&waits, UINT64_MAX);
        if (status != UMO_OK) {
            umo_status_ignore(
                umo_buffer_export_end(buffer, UMO_SIDE_HOST, writable, (umo_fence){0}));
        }
        Py_END_ALLOW_THREADS
    }
    if (status != UMO_OK) {
        self->exports--;
        umo_py_raise(status, NULL, UMO_REASON_NONE,
                     status == UMO_E_BUSY ? "a bracket on the bytes is open, or they are shown on "
                                            "the device"
                                          : "showing the bytes on the host");
    }
    return status == UMO_OK;
}

void umo_py_buffer_export_done(umo_py_buffer *self, bool writable)
{
    /* The object's own reference is there until its last view is gone, so this frees nothing. */
    self->exports--;
    umo_status_ignore(umo_buffer_export_end(self->buffer, UMO_SIDE_HOST, writable, (umo_fence){0}));
}

static int buffer_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    umo_py_buffer *self = (umo_py_buffer *)object;
    view->obj = NULL;
    if ((flags & PyBUF_WRITABLE) != 0 && !self->writable) {
        PyErr_SetString(PyExc_BufferError, "the memory is read-only");
        return -1;
    }
    const bool writable = self->writable;
    if (!umo_py_buffer_export(self, writable)) {
        return -1;
    }
    if (PyBuffer_FillInfo(view, object, umo_buffer_host(self->buffer),
                          (Py_ssize_t)umo_buffer_size(self->buffer), writable ? 0 : 1,
                          flags) != 0) {
        umo_py_buffer_export_done(self, writable);
        return -1;
    }
    return 0;
}

static void buffer_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    umo_py_buffer *self = (umo_py_buffer *)object;
    umo_py_buffer_export_done(self, self->writable);
}

/* ---- calls ---- */

static PyObject *finish(umo_buffer *held, umo_status status, const umo_error *error,
                        const char *what)
{
    umo_buffer_release(held);
    if (status != UMO_OK) {
        return umo_py_raise(status, error, UMO_REASON_NONE, what);
    }
    Py_RETURN_NONE;
}

static PyObject *buffer_move(PyObject *object, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("move", 1, 1, "mode", "timeout");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_storage_mode mode = UMO_UNIFIED;
    uint64_t timeout_ns = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_mode(given[0], &mode) ||
        !umo_py_timeout(given[1], &timeout_ns)) {
        return NULL;
    }
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_buffer_move(held, mode, timeout_ns, &error);
    Py_END_ALLOW_THREADS return finish(held, status, &error, "moving the buffer");
}

static PyObject *buffer_optimize(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_buffer *self = (umo_py_buffer *)object;
    umo_buffer *held = umo_py_buffer_hold(self);
    if (held == NULL) {
        return NULL;
    }
    umo_py_context *context = self->context;
    if (context == NULL || umo_py_context_enter(context) == NULL) {
        umo_buffer_release(held);
        if (context == NULL) {
            PyErr_SetString(umo_py_exception(UMO_E_UNSUPPORTED),
                            self->pool != NULL
                                ? "a pool's memory stays where it is"
                                : "memory that was wrapped without a context stays where it is");
        }
        return NULL;
    }
    umo_placer *placer = umo_py_placer_get(context);
    bool moved = false;
    umo_error error = {0};
    umo_status status = UMO_OK;
    if (placer != NULL) {
        Py_BEGIN_ALLOW_THREADS status = umo_buffer_optimize(held, placer, &moved, &error);
        Py_END_ALLOW_THREADS
    }
    umo_py_context_leave(context);
    PyObject *done = finish(held, status, &error, "placing the buffer");
    Py_XDECREF(done);
    return done != NULL && placer != NULL ? PyBool_FromLong(moved) : NULL;
}

static PyObject *buffer_pin(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_buffer_pin(held, &error);
    Py_END_ALLOW_THREADS return finish(held, status, &error, "pinning the buffer");
}

static PyObject *buffer_unpin(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    return held != NULL ? finish(held, umo_buffer_unpin(held), NULL, "the buffer is not pinned")
                        : NULL;
}

static PyObject *buffer_prefetch(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                 PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("prefetch", 1, 1, "side", "offset_bytes", "size_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_side side = UMO_SIDE_HOST;
    size_t offset_bytes = 0;
    umo_buffer *held = NULL;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_side(given[0], &side) ||
        !umo_py_size(given[1], "offset_bytes", &offset_bytes) ||
        (held = umo_py_buffer_hold((umo_py_buffer *)object)) == NULL) {
        return NULL;
    }
    const size_t whole = umo_buffer_size(held);
    size_t size_bytes = offset_bytes < whole ? whole - offset_bytes : 0;
    if (!umo_py_size(given[2], "size_bytes", &size_bytes)) {
        umo_buffer_release(held);
        return NULL;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status =
        umo_buffer_prefetch(held, offset_bytes, size_bytes, side, &error);
    Py_END_ALLOW_THREADS return finish(held, status, &error, "getting the bytes ready");
}

/* What upload() and download() have in common: another object's bytes, in either direction. */
static PyObject *buffer_transfer(PyObject *object, PyObject *const *given, bool upload)
{
    size_t offset_bytes = 0;
    uint32_t queue = 0;
    Py_buffer view;
    if (!umo_py_size(given[1], "offset_bytes", &offset_bytes) ||
        !umo_py_u32(given[2], "queue", &queue)) {
        return NULL;
    }
    if (upload && !((umo_py_buffer *)object)->writable) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the memory is read-only");
        return NULL;
    }
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    if (PyObject_GetBuffer(given[0], &view,
                           upload ? PyBUF_C_CONTIGUOUS : PyBUF_C_CONTIGUOUS | PyBUF_WRITABLE) !=
        0) {
        umo_buffer_release(held);
        return NULL;
    }
    umo_status status;
    umo_fence done = {0};
    const size_t size_bytes = (size_t)view.len;
    Py_BEGIN_ALLOW_THREADS status =
        upload ? umo_buffer_upload(held, offset_bytes, view.buf, size_bytes, queue, &done)
               : umo_buffer_download(held, offset_bytes, view.buf, size_bytes, queue, &done);
    if (status == UMO_OK) {
        status = umo_fence_wait(done, UINT64_MAX);
    }
    Py_END_ALLOW_THREADS PyBuffer_Release(&view);
    return finish(held, status, NULL,
                  upload ? "copying into the buffer" : "copying out of the buffer");
}

static PyObject *buffer_upload(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("upload", 1, 1, "data", "offset_bytes", "queue");
    PyObject *given[UMO_PY_ARGS_MAX];
    return umo_py_args_take(&spec, args, count, names, given) ? buffer_transfer(object, given, true)
                                                              : NULL;
}

static PyObject *buffer_download(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                 PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("download", 1, 1, "out", "offset_bytes", "queue");
    PyObject *given[UMO_PY_ARGS_MAX];
    return umo_py_args_take(&spec, args, count, names, given)
               ? buffer_transfer(object, given, false)
               : NULL;
}

static PyObject *buffer_valid(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("valid", 2, 0, "offset_bytes", "size_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    size_t offset_bytes = 0;
    umo_buffer *held = NULL;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "offset_bytes", &offset_bytes) ||
        (held = umo_py_buffer_hold((umo_py_buffer *)object)) == NULL) {
        return NULL;
    }
    const size_t whole = umo_buffer_size(held);
    size_t size_bytes = offset_bytes < whole ? whole - offset_bytes : 0;
    bool good = umo_py_size(given[1], "size_bytes", &size_bytes);
    if (good && (offset_bytes > whole || size_bytes > whole - offset_bytes)) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the range is outside of the buffer");
        good = false;
    }
    uint32_t sides = good ? umo_buffer_valid(held, offset_bytes, size_bytes) : 0;
    umo_buffer_release(held);
    if (!good) {
        return NULL;
    }
    if ((sides & UMO_SIDE_HOST) != 0 && (sides & UMO_SIDE_DEVICE) != 0) {
        return Py_BuildValue("(ss)", "host", "device");
    }
    return sides == 0 ? PyTuple_New(0)
                      : Py_BuildValue("(s)", (sides & UMO_SIDE_HOST) != 0 ? "host" : "device");
}

static PyObject *side_stats(const umo_side_stats *side)
{
    return Py_BuildValue("{s:N,s:N,s:d,s:d,s:d,s:d}", "reads", umo_py_tally(side->reads), "writes",
                         umo_py_tally(side->writes), "recent_reads", side->recent_reads,
                         "recent_writes", side->recent_writes, "recent_read_bytes",
                         side->recent_read_bytes, "recent_write_bytes", side->recent_write_bytes);
}

static PyObject *buffer_stats(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    umo_access_stats stats;
    umo_pattern pattern;
    Py_BEGIN_ALLOW_THREADS umo_buffer_stats(held, &stats);
    pattern = umo_buffer_pattern(held);
    umo_buffer_release(held);
    Py_END_ALLOW_THREADS return Py_BuildValue(
        "{s:N,s:N,s:d,s:d,s:K,s:s,s:s}", "host", side_stats(&stats.host), "device",
        side_stats(&stats.device), "recent_accesses", stats.recent_accesses, "recent_turns",
        stats.recent_turns, "last_ns", (unsigned long long)stats.last_ns, "declared",
        umo_pattern_name(stats.declared), "pattern", umo_pattern_name(pattern));
}

static PyObject *buffer_tensor(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("tensor", 2, 1, "shape", "dtype", "offset_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_py_buffer *self = (umo_py_buffer *)object;
    umo_shape shape;
    umo_dtype dtype = UMO_FP32;
    size_t offset_bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_shape(given[0], &shape) ||
        (given[1] != NULL && !umo_py_dtype_take(given[1], &dtype)) ||
        !umo_py_size(given[2], "offset_bytes", &offset_bytes)) {
        return NULL;
    }
    return umo_py_tensor_packed(self, offset_bytes, dtype, &shape, !self->writable);
}

/* ---- fields ---- */

static PyObject *size_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *buffer = ((umo_py_buffer *)object)->buffer;
    return PyLong_FromSize_t(buffer != NULL ? umo_buffer_size(buffer) : 0);
}

static Py_ssize_t buffer_length(PyObject *object)
{
    umo_buffer *buffer = ((umo_py_buffer *)object)->buffer;
    return buffer != NULL ? (Py_ssize_t)umo_buffer_size(buffer) : 0;
}

static PyObject *mode_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    const char *name = umo_py_mode_name(umo_buffer_mode(held));
    umo_buffer_release(held);
    return PyUnicode_FromString(name);
}

static PyObject *device_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    PyObject *device = umo_py_device_new(umo_buffer_device(held));
    umo_buffer_release(held);
    return device;
}

static PyObject *movable_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    const uint32_t modes = umo_buffer_modes(held);
    umo_buffer_release(held);
    return PyBool_FromLong((modes & (modes - 1)) != 0);
}

static PyObject *pinned_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    const bool pinned = umo_buffer_pinned(held);
    umo_buffer_release(held);
    return PyBool_FromLong(pinned);
}

static PyObject *address_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    void *host = umo_buffer_host(held);
    umo_buffer_release(held);
    return PyLong_FromVoidPtr(host);
}

static PyObject *pattern_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_buffer *held = umo_py_buffer_hold((umo_py_buffer *)object);
    if (held == NULL) {
        return NULL;
    }
    const umo_pattern pattern = umo_buffer_pattern(held);
    umo_buffer_release(held);
    return PyUnicode_FromString(umo_pattern_name(pattern));
}

static int pattern_set(PyObject *object, PyObject *value, void *unused)
{
    (void)unused;
    umo_pattern pattern = UMO_PATTERN_UNKNOWN;
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "set it to \"unknown\" to take it back");
        return -1;
    }
    umo_buffer *held =
        umo_py_pattern(value, &pattern) ? umo_py_buffer_hold((umo_py_buffer *)object) : NULL;
    if (held == NULL) {
        return -1;
    }
    PyObject *done =
        finish(held, umo_buffer_set_pattern(held, pattern), NULL, "declaring a pattern");
    Py_XDECREF(done);
    return done != NULL ? 0 : -1;
}

static PyObject *readonly_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!((umo_py_buffer *)object)->writable);
}

static PyObject *released_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_buffer *)object)->buffer == NULL);
}

static PyObject *buffer_repr(PyObject *object)
{
    umo_buffer *buffer = ((umo_py_buffer *)object)->buffer;
    if (buffer == NULL) {
        return PyUnicode_FromString("<umo.Buffer, released>");
    }
    return PyUnicode_FromFormat("<umo.Buffer of %zu bytes, %s on %s>", umo_buffer_size(buffer),
                                umo_py_mode_name(umo_buffer_mode(buffer)),
                                umo_device_info_get(umo_buffer_device(buffer))->driver);
}

static PyMemberDef buffer_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(umo_py_buffer, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef buffer_fields[] = {
    {"nbytes", size_get, NULL, "Its length; 0 when it is released.", NULL},
    {"mode", mode_get, NULL, "\"unified\", \"managed\" or \"private\".", NULL},
    {"device", device_get, NULL, "Where it lives.", NULL},
    {"movable", movable_get, NULL, "Whether move() and optimize() can do anything.", NULL},
    {"pinned", pinned_get, NULL, "Whether it is pinned now.", NULL},
    {"address", address_get, NULL,
     "Of the host side, as a number. Good while a view or a with block shows it.", NULL},
    {"pattern", pattern_get, pattern_set, "How it is used; set it to declare it.", NULL},
    {"readonly", readonly_get, NULL, "Whether writing to it is forbidden.", NULL},
    {"released", released_get, NULL, "Whether release() was called.", NULL},
    {0},
};

static PyMethodDef buffer_methods[] = {
    {"release", buffer_release, METH_NOARGS,
     "release($self, /)\n--\n\nGives the memory back now. BusyError while views of it are in use; "
     "what "
     "DLPack's consumers have\nstays theirs."},
    {"__enter__", buffer_enter, METH_NOARGS, NULL},
    {"__exit__", buffer_exit, METH_VARARGS, NULL},
    {"tensor", UMO_PY_FAST(buffer_tensor), UMO_PY_FAST_FLAGS,
     "tensor($self, /, shape, dtype='float32', *, offset_bytes=0)\n--\n\nA packed tensor over its "
     "bytes."},
    {"move", UMO_PY_FAST(buffer_move), UMO_PY_FAST_FLAGS,
     "move($self, /, mode, *, timeout=None)\n--\n\nMoves the bytes to another storage mode; the "
     "host address stays."},
    {"optimize", buffer_optimize, METH_NOARGS,
     "optimize($self, /)\n--\n\nDecides by its use since the last decision, and moves it if that "
     "is "
     "cheaper. Whether it moved."},
    {"pin", buffer_pin, METH_NOARGS,
     "pin($self, /)\n--\n\nForbids moves and keeps the host side's pages in memory. Pins are "
     "counted."},
    {"unpin", buffer_unpin, METH_NOARGS, "unpin($self, /)\n--\n\nTakes one pin back."},
    {"prefetch", UMO_PY_FAST(buffer_prefetch), UMO_PY_FAST_FLAGS,
     "prefetch($self, /, side, *, offset_bytes=0, size_bytes=None)\n--\n\nBrings bytes to \"host\" "
     "or \"device\" ahead of their use."},
    {"upload", UMO_PY_FAST(buffer_upload), UMO_PY_FAST_FLAGS,
     "upload($self, /, data, *, offset_bytes=0, queue=0)\n--\n\nCopies bytes in, and waits. "
     "Counted as a performed transfer."},
    {"download", UMO_PY_FAST(buffer_download), UMO_PY_FAST_FLAGS,
     "download($self, /, out, *, offset_bytes=0, queue=0)\n--\n\nFills a writable object, and "
     "waits."},
    {"valid", UMO_PY_FAST(buffer_valid), UMO_PY_FAST_FLAGS,
     "valid($self, /, offset_bytes=0, size_bytes=None)\n--\n\nThe sides on which all bytes of a "
     "range are valid now."},
    {"stats", buffer_stats, METH_NOARGS, "stats($self, /)\n--\n\nHow it was used, by side."},
    {0},
};

static PyType_Slot buffer_slots[] = {
    {Py_tp_doc, "Memory of a device: Context.buffer(), Pool.take() or Tensor.buffer. As an object "
                "of the buffer\nprotocol it shows its bytes on the host."},
    UMO_PY_SLOT(Py_tp_dealloc, buffer_dealloc),
    UMO_PY_SLOT(Py_tp_traverse, buffer_traverse),
    UMO_PY_SLOT(Py_tp_clear, buffer_clear),
    UMO_PY_SLOT(Py_tp_repr, buffer_repr),
    UMO_PY_SLOT(Py_bf_getbuffer, buffer_getbuffer),
    UMO_PY_SLOT(Py_bf_releasebuffer, buffer_releasebuffer),
    UMO_PY_SLOT(Py_sq_length, buffer_length),
    {Py_tp_members, buffer_members},
    {Py_tp_getset, buffer_fields},
    {Py_tp_methods, buffer_methods},
    {0},
};

static PyType_Spec buffer_spec = {
    .name = "umo.Buffer",
    .basicsize = sizeof(umo_py_buffer),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = buffer_slots,
};

bool umo_py_buffer_add(PyObject *module)
{
    return umo_py_type_add(module, &buffer_spec, &umo_py_buffer_type);
}

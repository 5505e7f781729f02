/*
 * Contexts. What is made from a context holds it, so close() ends new work and nothing else: arrays
 * that are still about stay valid, and the memory of the context goes with the last of them.
 */
#include "core.h"

PyTypeObject *umo_py_context_type;

umo_context *umo_py_context_enter(umo_py_context *self)
{
    if (self->closed) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the context is closed");
        return NULL;
    }
    self->uses++;
    return self->context;
}

/* Gives everything back. Nobody can be in a call: each of them counts as a use. */
static void context_finish(umo_py_context *self)
{
    umo_context *context = self->context;
    umo_placer *placer = self->placer;
    const bool shared = self->shared;
    self->context = NULL;
    self->placer = NULL;
    Py_BEGIN_ALLOW_THREADS umo_placer_destroy(placer);
    if (shared) {
        umo_context_default_release(context);
    } else {
        umo_context_destroy(context);
    }
    Py_END_ALLOW_THREADS
}

void umo_py_context_leave(umo_py_context *self)
{
    if (--self->uses == 0 && self->closed) {
        context_finish(self);
    }
}

static PyObject *context_make(PyTypeObject *type, PyObject *args, PyObject *keywords)
{
    static umo_py_args spec =
        UMO_PY_ARGS("Context", 0, 0, "budget_bytes", "budget_fraction", "shared");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_context_options options = {0};
    bool shared = true;
    if (!umo_py_interpreter_check() || !umo_py_args_take_tuple(&spec, args, keywords, given) ||
        !umo_py_u64(given[0], "budget_bytes", &options.budget_bytes) ||
        !umo_py_double(given[1], &options.budget_fraction) || !umo_py_bool(given[2], &shared)) {
        return NULL;
    }
    umo_py_context *self = (umo_py_context *)PyType_GenericAlloc(type, 0);
    if (self == NULL) {
        return NULL;
    }
    self->shared = shared;
    self->budget_bytes = options.budget_bytes;
    self->budget_fraction = options.budget_fraction;
    umo_context *context = NULL;
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = shared ? umo_context_default_acquire(&options, &context, &error)
                                           : umo_context_create(&options, &context, &error);
    Py_END_ALLOW_THREADS self->context = context;
    self->closed = status != UMO_OK;
    if (status != UMO_OK) {
        umo_py_raise(status, &error, UMO_REASON_NONE, "making a context");
        Py_CLEAR(self);
    }
    return (PyObject *)self;
}

static void context_dealloc(PyObject *object)
{
    umo_py_context *self = (umo_py_context *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_ClearWeakRefs(object);
    context_finish(self);
    PyObject_Free(self);
    Py_DECREF(UMO_PY_OBJECT(type));
}

static PyObject *context_close(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    if (!self->closed) {
        self->uses++;
        self->closed = true;
        umo_py_context_leave(self);
    }
    Py_RETURN_NONE;
}

static PyObject *context_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_py_context_leave(self);
    return Py_NewRef(object);
}

static PyObject *context_exit(PyObject *object, PyObject *unused)
{
    (void)unused;
    return context_close(object, NULL);
}

umo_placer *umo_py_placer_get(umo_py_context *self)
{
    if (self->placer == NULL) {
        const umo_placer_options options = {.scope = umo_context_scope(self->context)};
        umo_error error = {0};
        umo_status status = umo_placer_create(&options, &self->placer, &error);
        if (status != UMO_OK) {
            umo_py_raise(status, &error, UMO_REASON_NONE, "making a placer");
        }
    }
    return self->placer;
}

/* ---- devices ---- */

static PyObject *context_device(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("device", 1, 0, "name");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_py_context *self = (umo_py_context *)object;
    if (!umo_py_args_take(&spec, args, count, names, given) || umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_device *device = umo_py_device_take(self, given[0]);
    PyObject *out = device != NULL ? umo_py_device_new(device) : NULL;
    umo_device_release(device);
    umo_py_context_leave(self);
    return out;
}

static bool device_append(umo_py_context *self, PyObject *list, const char *driver,
                          uint32_t ordinal)
{
    PyObject *name = PyUnicode_FromFormat("%s:%u", driver, ordinal);
    umo_device *device = name != NULL ? umo_py_device_take(self, name) : NULL;
    PyObject *item = device != NULL ? umo_py_device_new(device) : NULL;
    bool appended = item != NULL && PyList_Append(list, item) == 0;
    Py_XDECREF(item);
    umo_device_release(device);
    Py_XDECREF(name);
    return appended;
}

static PyObject *context_devices(PyObject *object, PyObject *unused)
{
    (void)unused;
    static const char *const drivers[] = {"metal", "opencl", "host"};
    umo_py_context *self = (umo_py_context *)object;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    PyObject *list = PyList_New(0);
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0] && list != NULL; i++) {
        uint32_t number = 0;
        umo_status status;
        Py_BEGIN_ALLOW_THREADS status = umo_driver_count(drivers[i], &number, NULL);
        Py_END_ALLOW_THREADS if (status != UMO_OK)
        {
            continue; /* its system library is missing: no such device here */
        }
        for (uint32_t ordinal = 0; ordinal < number && list != NULL; ordinal++) {
            if (!device_append(self, list, drivers[i], ordinal)) {
                Py_CLEAR(list);
            }
        }
    }
    umo_py_context_leave(self);
    return list;
}

/* ---- memory ---- */

static PyObject *context_buffer(PyObject *object, PyObject *const *args, Py_ssize_t count,
                                PyObject *names)
{
    static umo_py_args spec =
        UMO_PY_ARGS("buffer", 1, 1, "size_bytes", "device", "mode", "pattern", "scope");
    PyObject *given[UMO_PY_ARGS_MAX];
    size_t size_bytes = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "size_bytes", &size_bytes)) {
        return NULL;
    }
    umo_py_context *self = (umo_py_context *)object;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_py_buffer *buffer =
        umo_py_buffer_alloc(self, size_bytes, given[1], given[4], given[2], given[3]);
    umo_py_context_leave(self);
    return (PyObject *)buffer;
}

static PyObject *context_empty(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec =
        UMO_PY_ARGS("empty", 2, 1, "shape", "dtype", "device", "mode", "pattern", "scope");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_py_context *self = (umo_py_context *)object;
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
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_py_buffer *buffer = NULL;
    PyObject *tensor = NULL;
    if (bytes > 0) {
        buffer = umo_py_buffer_alloc(self, (size_t)bytes, given[2], given[5], given[3], given[4]);
    }
    if (bytes == 0 || buffer != NULL) {
        tensor = umo_py_tensor_packed(buffer, 0, dtype, &shape, false);
    }
    Py_XDECREF(UMO_PY_OBJECT(buffer));
    umo_py_context_leave(self);
    return tensor;
}

static PyObject *context_wrap(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("wrap", 1, 1, "array", "device", "writable", "scope");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_py_context *self = (umo_py_context *)object;
    if (!umo_py_args_take(&spec, args, count, names, given) || umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    PyObject *tensor = umo_py_wrap(given[0], self, given[1], given[3], given[2]);
    umo_py_context_leave(self);
    return tensor;
}

/* ---- placement ---- */

static PyObject *context_optimize(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_placer *placer = umo_py_placer_get(self);
    size_t moves = 0;
    if (placer != NULL) {
        Py_BEGIN_ALLOW_THREADS moves = umo_placer_run(placer);
        Py_END_ALLOW_THREADS
    }
    umo_py_context_leave(self);
    return placer != NULL ? PyLong_FromSize_t(moves) : NULL;
}

static PyObject *context_trim(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("trim", 1, 0, "keep_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    size_t keep_bytes = 0;
    umo_py_context *self = (umo_py_context *)object;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "keep_bytes", &keep_bytes) || umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_scope *root = umo_context_scope(self->context);
    size_t given_back;
    Py_BEGIN_ALLOW_THREADS given_back = umo_pools_trim(root, keep_bytes);
    Py_END_ALLOW_THREADS umo_py_context_leave(self);
    return PyLong_FromSize_t(given_back);
}

/* ---- figures ---- */

static PyObject *context_stats(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    umo_counters counters;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_scope_read(umo_context_scope(self->context), &counters);
    umo_py_context_leave(self);
    return umo_py_counters(&counters);
}

static PyObject *summary_of(const umo_access_summary *summary)
{
    PyObject *modes = PyDict_New();
    PyObject *patterns = PyDict_New();
    bool built = modes != NULL && patterns != NULL;
    for (int i = 0; i < UMO_STORAGE_MODES && built; i++) {
        PyObject *bytes = PyLong_FromUnsignedLongLong(summary->mode_bytes[i]);
        built = bytes != NULL &&
                PyDict_SetItemString(modes, umo_py_mode_name((umo_storage_mode)i), bytes) == 0;
        Py_XDECREF(bytes);
    }
    for (int i = 0; i < UMO_PATTERNS && built; i++) {
        PyObject *bytes = PyLong_FromUnsignedLongLong(summary->pattern_bytes[i]);
        built = bytes != NULL &&
                PyDict_SetItemString(patterns, umo_pattern_name((umo_pattern)i), bytes) == 0;
        Py_XDECREF(bytes);
    }
    if (!built) {
        Py_XDECREF(modes);
        Py_XDECREF(patterns);
        return NULL;
    }
    return Py_BuildValue("{s:K,s:K,s:K,s:N,s:N}", "buffers", (unsigned long long)summary->buffers,
                         "bytes", (unsigned long long)summary->bytes, "wrapped_bytes",
                         (unsigned long long)summary->wrapped_bytes, "mode_bytes", modes,
                         "pattern_bytes", patterns);
}

static PyObject *context_summary(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    if (umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_scope *scope = umo_context_scope(self->context);
    umo_access_summary summary;
    Py_BEGIN_ALLOW_THREADS umo_access_summarize(scope, &summary);
    Py_END_ALLOW_THREADS umo_py_context_leave(self);
    return summary_of(&summary);
}

/* ---- pressure ---- */

static PyObject *context_watch(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("watch_pressure", 0, 0, "threshold", "manual");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_pressure_options options = {0};
    umo_py_context *self = (umo_py_context *)object;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_double(given[0], &options.threshold) || !umo_py_bool(given[1], &options.manual) ||
        umo_py_context_enter(self) == NULL) {
        return NULL;
    }
    umo_context *context = self->context;
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_context_pressure_start(context, &options, &error);
    Py_END_ALLOW_THREADS umo_py_context_leave(self);
    if (status != UMO_OK) {
        return umo_py_raise(status, &error, UMO_REASON_NONE, "watching memory pressure");
    }
    Py_RETURN_NONE;
}

/* Enters the context; NULL with an exception before watch_pressure(). */
static umo_pressure *pressure_enter(umo_py_context *self)
{
    umo_context *context = umo_py_context_enter(self);
    umo_pressure *pressure = context != NULL ? umo_context_pressure(context) : NULL;
    if (context != NULL && pressure == NULL) {
        umo_py_context_leave(self);
        PyErr_SetString(umo_py_exception(UMO_E_INVAL),
                        "memory pressure is not watched: Context.watch_pressure() starts that");
    }
    return pressure;
}

static PyObject *pressure_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    umo_pressure *pressure = self->context != NULL ? umo_context_pressure(self->context) : NULL;
    if (pressure == NULL) {
        Py_RETURN_NONE;
    }
    umo_pressure_stats stats;
    umo_pressure_read(pressure, &stats);
    return Py_BuildValue(
        "{s:s,s:s,s:K,s:K,s:I,s:N,s:K,s:K}", "level", umo_pressure_level_name(stats.level),
        "decisive", umo_pressure_source_name(stats.decisive), "usage_bytes",
        (unsigned long long)stats.usage_bytes, "limit_bytes", (unsigned long long)stats.limit_bytes,
        "budget_percent", stats.budget_percent, "refusing", PyBool_FromLong(stats.refusing),
        "refused", (unsigned long long)stats.refused, "samples", (unsigned long long)stats.samples);
}

static PyObject *context_poke(PyObject *object, PyObject *unused)
{
    (void)unused;
    umo_py_context *self = (umo_py_context *)object;
    umo_pressure *pressure = pressure_enter(self);
    if (pressure == NULL) {
        return NULL;
    }
    umo_pressure_level level;
    Py_BEGIN_ALLOW_THREADS level = umo_pressure_poke(pressure);
    Py_END_ALLOW_THREADS umo_py_context_leave(self);
    return PyUnicode_FromString(umo_pressure_level_name(level));
}

static PyObject *context_admit(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("admit", 1, 0, "size_bytes");
    PyObject *given[UMO_PY_ARGS_MAX];
    uint64_t size_bytes = 0;
    umo_py_context *self = (umo_py_context *)object;
    umo_pressure *pressure = NULL;
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_u64(given[0], "size_bytes", &size_bytes) ||
        (pressure = pressure_enter(self)) == NULL) {
        return NULL;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_pressure_admit(pressure, size_bytes, &error);
    Py_END_ALLOW_THREADS umo_py_context_leave(self);
    if (status != UMO_OK) {
        return umo_py_raise(status, &error, UMO_REASON_LIMIT, "new work");
    }
    Py_RETURN_NONE;
}

static PyObject *closed_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_context *)object)->closed);
}

static PyObject *shared_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_context *)object)->shared);
}

static PyObject *budget_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLongLong(((umo_py_context *)object)->budget_bytes);
}

static PyObject *context_repr(PyObject *object)
{
    const umo_py_context *self = (umo_py_context *)object;
    return PyUnicode_FromFormat("<umo.Context%s%s>", self->shared ? ", shared" : "",
                                self->closed ? ", closed" : "");
}

/* type(context, ...): the type itself has the arguments. */
static PyObject *made_of(PyTypeObject *type, PyObject *context, PyObject *args, PyObject *keywords)
{
    PyObject *first = PyTuple_Pack(1, context);
    PyObject *all = first != NULL ? PySequence_Concat(first, args) : NULL;
    PyObject *made = all != NULL ? PyObject_Call(UMO_PY_OBJECT(type), all, keywords) : NULL;
    Py_XDECREF(first);
    Py_XDECREF(all);
    return made;
}

static PyObject *context_pool(PyObject *object, PyObject *args, PyObject *keywords)
{
    return made_of(umo_py_pool_type, object, args, keywords);
}

static PyObject *context_scope(PyObject *object, PyObject *args, PyObject *keywords)
{
    return made_of(umo_py_scope_type, object, args, keywords);
}

static PyMemberDef context_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(umo_py_context, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef context_fields[] = {
    {"closed", closed_get, NULL, "Whether close() was called.", NULL},
    {"shared", shared_get, NULL, "Whether it is the process's own.", NULL},
    {"budget_bytes", budget_get, NULL, "Most live bytes, as asked for; 0 for none.", NULL},
    {"pressure", pressure_get, NULL,
     "What the last sample of memory pressure saw; None while it is not watched.", NULL},
    {0},
};

static PyMethodDef context_methods[] = {
    {"close", context_close, METH_NOARGS,
     "close($self, /)\n--\n\nMakes nothing new from here on. Tensors and arrays that are still "
     "about stay "
     "valid;\nthe context's memory goes with the last of them."},
    {"__enter__", context_enter, METH_NOARGS, NULL},
    {"__exit__", context_exit, METH_VARARGS, NULL},
    {"device", UMO_PY_FAST(context_device), UMO_PY_FAST_FLAGS,
     "device($self, /, name=None)\n--\n\nA device by name (\"host\", \"opencl:1\"), opened at its "
     "first use; by default the\nbest there is: a GPU's before the CPU."},
    {"devices", context_devices, METH_NOARGS,
     "devices($self, /)\n--\n\nAll devices of the built-in drivers, opened."},
    {"buffer", UMO_PY_FAST(context_buffer), UMO_PY_FAST_FLAGS,
     "buffer($self, /, size_bytes, *, device=None, mode=None, pattern=None, scope=None)\n--\n\n"
     "Allocates bytes, as empty() does."},
    {"empty", UMO_PY_FAST(context_empty), UMO_PY_FAST_FLAGS,
     "empty($self, /, shape, dtype='float32', *, device=None, mode=None, pattern=None, "
     "scope=None)\n--\n\n"
     "A tensor in new memory, whose contents are undefined. With a mode (\"unified\", "
     "\"managed\",\n\"private\") it lies there; without one where its pattern "
     "(\"gpu_dominant\", ...) makes it cheapest,\nand optimize() may move it later where the "
     "device can."},
    {"wrap", UMO_PY_FAST(context_wrap), UMO_PY_FAST_FLAGS,
     "wrap($self, /, array, *, device=None, writable=None, scope=None)\n--\n\n"
     "A tensor over an array's own memory, for a device of the context. Nothing is copied: "
     "memory that\nthe device cannot bind where it lies is RefusedError, with reason and remedy."},
    {"pool", __extension__(PyCFunction)(void (*)(void)) context_pool, METH_VARARGS | METH_KEYWORDS,
     "pool($self, /, *, device=None, mode='unified', scope=None, keep_bytes_max=0, "
     "idle_keep_bytes=0, idle=None, align_bytes=0)\n--\n\nMakes a Pool."},
    {"scope", __extension__(PyCFunction)(void (*)(void)) context_scope,
     METH_VARARGS | METH_KEYWORDS,
     "scope($self, /, name=None, limit_bytes=0)\n--\n\nMakes a Scope below the context's; without "
     "a name the context's own, whose limit is the context's budget."},
    {"optimize", context_optimize, METH_NOARGS,
     "optimize($self, /)\n--\n\nMoves the context's buffers that would be cheaper elsewhere. "
     "Returns the "
     "moves made."},
    {"trim", UMO_PY_FAST(context_trim), UMO_PY_FAST_FLAGS,
     "trim($self, /, keep_bytes=0)\n--\n\nHas all pools of the context give back what they keep. "
     "Returns the bytes."},
    {"stats", context_stats, METH_NOARGS,
     "stats($self, /)\n--\n\nWhat was moved, copied, wrapped and allocated, and what was not "
     "needed."},
    {"summary", context_summary, METH_NOARGS,
     "summary($self, /)\n--\n\nLive bytes of the context's buffers, by mode and by pattern."},
    {"watch_pressure", UMO_PY_FAST(context_watch), UMO_PY_FAST_FLAGS,
     "watch_pressure($self, /, *, threshold=0.0, manual=False)\n--\n\nHas memory pressure watched "
     "and answered."},
    {"poke_pressure", context_poke, METH_NOARGS,
     "poke_pressure($self, /)\n--\n\nSamples and answers now, on this thread. Returns the level."},
    {"admit", UMO_PY_FAST(context_admit), UMO_PY_FAST_FLAGS,
     "admit($self, /, size_bytes=0)\n--\n\nRaises LimitError while new work of this size should "
     "not "
     "start."},
    {0},
};

static PyType_Slot context_slots[] = {
    {Py_tp_doc,
     "Context(*, budget_bytes=0, budget_fraction=0.0, shared=True)\n--\n\n"
     "Devices, memory and counters. The shared one is the process's: backends, tools and the "
     "package see one\nbudget, and a second Context() joins it. shared=False makes one of its "
     "own."},
    UMO_PY_SLOT(Py_tp_new, context_make),
    UMO_PY_SLOT(Py_tp_dealloc, context_dealloc),
    UMO_PY_SLOT(Py_tp_repr, context_repr),
    {Py_tp_members, context_members},
    {Py_tp_getset, context_fields},
    {Py_tp_methods, context_methods},
    {0},
};

static PyType_Spec context_spec = {
    .name = "umo.Context",
    .basicsize = sizeof(umo_py_context),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = context_slots,
};

bool umo_py_context_add(PyObject *module)
{
    return umo_py_type_add(module, &context_spec, &umo_py_context_type);
}

/*
 * Brackets as with blocks: `with tensor.read() as view`.
 *
 * The bracket ends when the block has been left *and* the last array over the view is gone, because
 * an array that outlives its block would otherwise look at memory that may move or be given back.
 * Until then what conflicts is BusyError, as for any bracket that is open.
 */
#include "core.h"

PyTypeObject *umo_py_view_type;

typedef enum view_state {
    VIEW_NEW,
    VIEW_OPENING, /* a thread waits in __enter__() */
    VIEW_OPEN,    /* inside the block */
    VIEW_LEFT,    /* arrays are still out */
    VIEW_ENDED
} view_state;

typedef struct view_object {
    PyObject_HEAD umo_py_tensor *tensor;
    PyObject *weakrefs;
    umo_access access;
    uint64_t timeout_ns;
    Py_ssize_t exports;
    view_state state;
    bool failed; /* the block ended by an exception */
    bool shown;  /* by address, for life */
} view_object;

static bool writable(const view_object *self)
{
    return self->access.use != UMO_READ;
}

PyObject *umo_py_view_new(umo_py_tensor *tensor, umo_use use, PyObject *const *args,
                          Py_ssize_t count, PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("bracket", 0, 0, "device", "queue", "timeout");
    PyObject *given[UMO_PY_ARGS_MAX];
    bool device = false;
    uint32_t queue = 0;
    uint64_t timeout_ns = UINT64_MAX;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_bool(given[0], &device) ||
        !umo_py_u32(given[1], "queue", &queue) || !umo_py_timeout(given[2], &timeout_ns)) {
        return NULL;
    }
    if (use != UMO_READ && tensor->read_only) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the tensor is read-only");
        return NULL;
    }
    view_object *self = (view_object *)PyType_GenericAlloc(umo_py_view_type, 0);
    if (self != NULL) {
        self->tensor = (umo_py_tensor *)Py_NewRef(UMO_PY_OBJECT(tensor));
        self->timeout_ns = timeout_ns;
        self->access = (umo_access){.offset_bytes = tensor->offset_bytes,
                                    .size_bytes = tensor->size_bytes,
                                    .side = device ? UMO_SIDE_DEVICE : UMO_SIDE_HOST,
                                    .use = use,
                                    .queue = queue};
    }
    return (PyObject *)self;
}

/* ---- the bracket ---- */

static umo_status bracket_open(umo_buffer *buffer, const umo_access *access, uint64_t timeout_ns)
{
    umo_fence_set waits;
    umo_status status = umo_access_begin(buffer, access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, timeout_ns);
    if (status != UMO_OK) {
        /* Nothing was touched. What a write would have replaced counts as gone all the same. */
        umo_status_ignore(access->use == UMO_READ
                              ? umo_access_end(buffer, access, (umo_fence){0})
                              : umo_access_abort(buffer, access, (umo_fence){0}));
    }
    return status;
}

static PyObject *view_enter(PyObject *object, PyObject *unused)
{
    (void)unused;
    view_object *self = (view_object *)object;
    if (self->state != VIEW_NEW) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "a bracket is good for one with block");
        return NULL;
    }
    umo_py_buffer *buffer = self->tensor->buffer;
    if (buffer != NULL) {
        if (buffer->buffer == NULL) {
            PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the buffer is released");
            return NULL;
        }
        umo_status status;
        umo_buffer *memory = buffer->buffer;
        buffer->exports++;
        self->state = VIEW_OPENING;
        Py_BEGIN_ALLOW_THREADS status = bracket_open(memory, &self->access, self->timeout_ns);
        Py_END_ALLOW_THREADS if (status != UMO_OK)
        {
            self->state = VIEW_NEW;
            buffer->exports--;
            return umo_py_raise(status, NULL, UMO_REASON_NONE,
                                status == UMO_E_BUSY
                                    ? "another bracket or an array over these bytes is in use"
                                    : "opening a bracket");
        }
    }
    self->state = VIEW_OPEN;
    return Py_NewRef(object);
}

/* The block was left and no array is out. */
static umo_status bracket_close(view_object *self)
{
    umo_py_buffer *buffer = self->tensor->buffer;
    self->state = VIEW_ENDED;
    if (buffer == NULL) {
        return UMO_OK;
    }
    umo_status status = self->failed && writable(self)
                            ? umo_access_abort(buffer->buffer, &self->access, (umo_fence){0})
                            : umo_access_end(buffer->buffer, &self->access, (umo_fence){0});
    buffer->exports--;
    return status;
}

static PyObject *view_exit(PyObject *object, PyObject *args)
{
    view_object *self = (view_object *)object;
    if (self->state != VIEW_OPEN) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "the bracket is not open");
        return NULL;
    }
    PyObject *raised = PyTuple_Size(args) > 0 ? PyTuple_GetItem(args, 0) : Py_None;
    self->failed = raised != Py_None;
    self->state = VIEW_LEFT;
    umo_status status = self->exports == 0 ? bracket_close(self) : UMO_OK;
    if (status != UMO_OK) {
        return umo_py_raise(status, NULL, UMO_REASON_NONE, "ending a bracket");
    }
    Py_RETURN_FALSE;
}

static void export_done(view_object *self)
{
    if (--self->exports == 0 && self->state == VIEW_LEFT) {
        umo_status_ignore(bracket_close(self)); /* of a bracket that is open: cannot fail */
    }
}

static void view_dealloc(PyObject *object)
{
    view_object *self = (view_object *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    if (self->shown) {
        self->exports--;
    }
    if (self->state == VIEW_OPEN || self->state == VIEW_LEFT) {
        self->failed = self->failed || self->state == VIEW_OPEN; /* a block that nobody ended */
        umo_status_ignore(bracket_close(self));
    }
    Py_XDECREF(UMO_PY_OBJECT(self->tensor));
    PyObject_GC_Del(object);
    Py_DECREF(UMO_PY_OBJECT(type));
}

/* An array that leads to a view of itself is a cycle; it is cut at the array. */
static int view_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((view_object *)object)->tensor);
    return 0;
}

/* ---- what it shows ---- */

static umo_dl_device side_device(const view_object *self)
{
    return self->access.side == UMO_SIDE_DEVICE ? umo_py_dlpack_device(self->tensor)
                                                : (umo_dl_device){UMO_DL_CPU, 0};
}

/* Where the bytes are on the bracket's side. */
static umo_dl_device place(view_object *self, void **data, uint64_t *byte_offset)
{
    static char nothing;
    umo_py_buffer *buffer = self->tensor->buffer;
    const umo_dl_device device = side_device(self);
    *data = &nothing;
    *byte_offset = 0;
    if (buffer == NULL) {
        return device;
    }
    if (self->access.side == UMO_SIDE_HOST) {
        *data = (char *)umo_buffer_host(buffer->buffer) + self->tensor->offset_bytes;
        return device;
    }
    const umo_memory *memory = umo_buffer_memory(buffer->buffer);
    const size_t offset = memory->offset_bytes + umo_buffer_memory_offset(buffer->buffer) +
                          self->tensor->offset_bytes;
    const bool address = device.type == UMO_DL_CPU || device.type == UMO_DL_CUDA;
    *data = address ? (char *)memory->native + offset : memory->native;
    *byte_offset = address ? 0 : offset;
    return device;
}

static bool open_check(const view_object *self)
{
    if (self->state != VIEW_OPEN) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL),
                        self->state < VIEW_OPEN ? "the bracket is not open yet: use it in a with "
                                                  "block"
                                                : "the with block of this bracket has ended");
        return false;
    }
    return true;
}

static int view_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    view_object *self = (view_object *)object;
    void *data = NULL;
    uint64_t byte_offset = 0;
    view->obj = NULL;
    if (!open_check(self)) {
        return -1;
    }
    if (place(self, &data, &byte_offset).type != UMO_DL_CPU) {
        PyErr_SetString(PyExc_BufferError,
                        "the CPU has no address of this device's memory: DLPack, "
                        "or a bracket on the host");
        return -1;
    }
    if (!umo_py_tensor_describe(self->tensor, view, data, !writable(self), flags)) {
        return -1;
    }
    self->exports++;
    view->internal = NULL;
    view->obj = Py_NewRef(object);
    return 0;
}

static void view_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    export_done((view_object *)object);
}

static void export_drop(PyObject *object)
{
    export_done((view_object *)object);
    Py_DECREF(object);
}

static PyObject *view_dlpack_device(PyObject *object, PyObject *unused)
{
    (void)unused;
    const umo_dl_device device = side_device((view_object *)object);
    return Py_BuildValue("(ii)", (int)device.type, (int)device.id);
}

static PyObject *view_dlpack(PyObject *object, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    PyObject *given[UMO_PY_ARGS_MAX];
    view_object *self = (view_object *)object;
    umo_py_dlpack_wish wish;
    /* The wish's numbers may be objects with code of their own, which may end the block. */
    if (!umo_py_args_take(&umo_py_dlpack_args, args, count, names, given) ||
        !umo_py_dlpack_wish_take(given, side_device(self), &wish) || !open_check(self)) {
        return NULL;
    }
    void *data = NULL;
    uint64_t byte_offset = 0;
    const umo_dl_device device = place(self, &data, &byte_offset);
    if (given[2] != NULL && wish.device != (device.type != UMO_DL_CPU)) {
        PyErr_SetString(PyExc_BufferError, "the bracket is on the device's side");
        return NULL;
    }
    if (!wish.versioned && !writable(self) && !wish.copy) {
        PyErr_SetString(PyExc_BufferError, "the view is read-only, which only DLPack 1.0 and later "
                                           "can say: pass max_version=(1, 0)");
        return NULL;
    }
    umo_dl_managed_versioned *managed = NULL;
    if (wish.copy) {
        managed = umo_py_dlpack_copy(self->tensor, object);
    } else {
        managed = umo_py_dlpack_hand(self->tensor, device, data, byte_offset, !writable(self),
                                     object, export_drop);
        if (managed != NULL) {
            Py_INCREF(object);
            self->exports++;
        }
    }
    return managed != NULL ? umo_py_dlpack_capsule(managed, wish.versioned) : NULL;
}

/* ---- fields ---- */

static PyObject *tensor_get(PyObject *object, void *unused)
{
    (void)unused;
    return Py_NewRef(UMO_PY_OBJECT(((view_object *)object)->tensor));
}

static PyObject *shape_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyObject_GetAttrString((PyObject *)((view_object *)object)->tensor, "shape");
}

static PyObject *dtype_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((view_object *)object)->tensor->type->name);
}

static PyObject *readonly_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(!writable((view_object *)object));
}

static PyObject *side_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(umo_py_side_name(((view_object *)object)->access.side));
}

static PyObject *open_get(PyObject *object, void *unused)
{
    (void)unused;
    const view_state state = ((view_object *)object)->state;
    return PyBool_FromLong(state == VIEW_OPEN || state == VIEW_LEFT);
}

/* cl_mem, id<MTLBuffer>, or an address, and where in it the tensor begins. */
static PyObject *handle_get(PyObject *object, void *unused)
{
    (void)unused;
    view_object *self = (view_object *)object;
    void *data = NULL;
    uint64_t byte_offset = 0;
    if (!open_check(self)) {
        return NULL;
    }
    if (!self->shown) {
        self->shown = true;
        self->exports++;
    }
    (void)place(self, &data, &byte_offset);
    return Py_BuildValue("(NK)", PyLong_FromVoidPtr(data), (unsigned long long)byte_offset);
}

static PyMemberDef view_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(view_object, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef view_fields[] = {
    {"tensor", tensor_get, NULL, "Whose bytes it shows.", NULL},
    {"shape", shape_get, NULL, "The tensor's.", NULL},
    {"dtype", dtype_get, NULL, "The tensor's.", NULL},
    {"readonly", readonly_get, NULL, "Whether the bracket only reads.", NULL},
    {"side", side_get, NULL, "\"host\" or \"device\".", NULL},
    {"open", open_get, NULL, "Whether the bracket is open, be it by an array that is left.", NULL},
    {"handle", handle_get, NULL,
     "(the side's memory, offset in bytes): a cl_mem, an id<MTLBuffer> or an address, as a "
     "number. Reading it keeps the bracket open for the view's life.",
     NULL},
    {0},
};

static PyMethodDef view_methods[] = {
    {"__enter__", view_enter, METH_NOARGS, NULL},
    {"__exit__", view_exit, METH_VARARGS, NULL},
    {"__dlpack__", UMO_PY_FAST(view_dlpack), UMO_PY_FAST_FLAGS,
     "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "DLPack's protocol; the bracket stays open until the consumer lets go."},
    {"__dlpack_device__", view_dlpack_device, METH_NOARGS,
     "__dlpack_device__($self, /)\n--\n\nThe device of the bracket's side."},
    {"__array__", UMO_PY_FAST(umo_py_array), UMO_PY_FAST_FLAGS,
     "__array__($self, /, dtype=None, copy=None)\n--\n\nA NumPy array of the same memory."},
    {0},
};

static PyType_Slot view_slots[] = {
    {Py_tp_doc, "A bracket on a tensor: Tensor.read(), write() or update(), in a with block."},
    UMO_PY_SLOT(Py_tp_dealloc, view_dealloc),
    UMO_PY_SLOT(Py_tp_traverse, view_traverse),
    UMO_PY_SLOT(Py_bf_getbuffer, view_getbuffer),
    UMO_PY_SLOT(Py_bf_releasebuffer, view_releasebuffer),
    {Py_tp_members, view_members},
    {Py_tp_getset, view_fields},
    {Py_tp_methods, view_methods},
    {0},
};

static PyType_Spec view_spec = {
    .name = "umo.View",
    .basicsize = sizeof(view_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = view_slots,
};

bool umo_py_view_add(PyObject *module)
{
    return umo_py_type_add(module, &view_spec, &umo_py_view_type);
}

/*
 * Tensors: element type, shape and strides over a buffer, shown by the buffer protocol, DLPack and
 * __array_interface__. Each that is out is an export of the C ABI's buffer, so that brackets and
 * moves know of it.
 */
#include "core.h"

PyTypeObject *umo_py_tensor_type;

static char nothing; /* where the bytes of a tensor without elements are */

static Py_ssize_t *shape_of(umo_py_tensor *self)
{
    return self->sizes;
}

static Py_ssize_t *strides_of(umo_py_tensor *self)
{
    return self->sizes + self->rank;
}

static Py_ssize_t item_bytes(const umo_py_tensor *self)
{
    return self->type->dl.bits / 8;
}

static Py_ssize_t element_count(umo_py_tensor *self)
{
    /* Without elements, a product of the other dimensions may be too long. */
    Py_ssize_t elements = self->buffer != NULL ? 1 : 0;
    for (int i = 0; i < self->rank; i++) {
        elements *= shape_of(self)[i];
    }
    return elements;
}

/* ---- making ---- */

static umo_py_tensor *tensor_alloc(const umo_shape *shape, umo_dtype dtype, umo_py_buffer *buffer,
                                   bool read_only)
{
    umo_py_tensor *self =
        (umo_py_tensor *)PyType_GenericAlloc(umo_py_tensor_type, 2 * (Py_ssize_t)shape->rank);
    if (self != NULL) {
        self->type = umo_py_dtype_of(dtype);
        self->rank = (int)shape->rank;
        self->read_only = read_only;
        self->buffer = (umo_py_buffer *)Py_XNewRef(UMO_PY_OBJECT(buffer));
        for (int i = 0; i < self->rank; i++) {
            shape_of(self)[i] = (Py_ssize_t)shape->dims[i];
        }
    }
    return self;
}

static void strides_pack(umo_py_tensor *self)
{
    Py_ssize_t step = item_bytes(self);
    for (int i = self->rank; i-- > 0;) {
        strides_of(self)[i] = step;
        /* A stride of what has no elements may be any, and a product of them too long. */
        step = self->buffer != NULL ? step * shape_of(self)[i] : step;
    }
    self->packed = true;
}

PyObject *umo_py_tensor_packed(umo_py_buffer *buffer, size_t offset_bytes, umo_dtype dtype,
                               const umo_shape *shape, bool read_only)
{
    uint64_t bytes = 0;
    umo_status status = umo_shape_bytes(shape, dtype, &bytes);
    umo_buffer *held = NULL;
    if (status == UMO_OK && bytes > 0) {
        held = umo_py_buffer_hold(buffer);
        if (held == NULL) {
            return NULL;
        }
        const size_t whole = umo_buffer_size(held);
        status = offset_bytes <= whole && bytes <= whole - offset_bytes ? UMO_OK : UMO_E_INVAL;
        if (status == UMO_OK && offset_bytes % umo_dtype_size(dtype) != 0) {
            status = UMO_E_REFUSED;
        }
        umo_buffer_release(held);
    }
    if (status != UMO_OK) {
        return umo_py_raise(status, NULL,
                            status == UMO_E_REFUSED ? UMO_REASON_MISALIGNED : UMO_REASON_NONE,
                            status == UMO_E_REFUSED ? "elements at an address that is no multiple "
                                                      "of their size"
                                                    : "a shape that is none, or does not fit the "
                                                      "buffer");
    }
    umo_py_tensor *self = tensor_alloc(shape, dtype, bytes > 0 ? buffer : NULL, read_only);
    if (self != NULL) {
        self->offset_bytes = offset_bytes;
        self->size_bytes = (size_t)bytes;
        strides_pack(self);
    }
    return (PyObject *)self;
}

PyObject *umo_py_tensor_new(const umo_tensor *tensor, umo_py_buffer *buffer, bool read_only)
{
    umo_py_tensor *self = tensor_alloc(&tensor->shape, tensor->dtype, buffer, read_only);
    if (self == NULL) {
        return NULL;
    }
    if (buffer == NULL) {
        strides_pack(self);
        return (PyObject *)self;
    }
    self->offset_bytes = tensor->offset_bytes;
    self->size_bytes = tensor->size_bytes;
    for (int i = 0; i < self->rank; i++) {
        strides_of(self)[i] = (Py_ssize_t)tensor->strides[i] * item_bytes(self);
    }
    self->packed = umo_tensor_is_packed(tensor);
    return (PyObject *)self;
}

void umo_py_tensor_fill(const umo_py_tensor *self, umo_tensor *out)
{
    umo_py_tensor *tensor = (umo_py_tensor *)(uintptr_t)self;
    out->data = NULL;
    out->buffer = self->buffer != NULL ? self->buffer->buffer : NULL;
    out->offset_bytes = self->offset_bytes;
    out->size_bytes = self->size_bytes;
    out->dtype = self->type->dtype;
    out->shape.rank = (uint32_t)self->rank;
    for (int i = 0; i < self->rank; i++) {
        out->shape.dims[i] = shape_of(tensor)[i];
        out->strides[i] = strides_of(tensor)[i] / item_bytes(self);
    }
}

static void tensor_dealloc(PyObject *object)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    PyTypeObject *type = Py_TYPE(object);
    PyObject_GC_UnTrack(object);
    if (self->weakrefs != NULL) {
        PyObject_ClearWeakRefs(object);
    }
    if (self->exported) {
        umo_py_buffer_export_done(self->buffer, !self->read_only);
    }
    Py_XDECREF(UMO_PY_OBJECT(self->buffer));
    PyObject_GC_Del(object);
    Py_DECREF(UMO_PY_OBJECT(type));
}

/* The buffer's cycle goes through here; it is cut there. */
static int tensor_traverse(PyObject *object, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(object));
    Py_VISIT(((umo_py_tensor *)object)->buffer);
    return 0;
}

/* ---- the buffer protocol ---- */

static bool fortran_packed(umo_py_tensor *self)
{
    Py_ssize_t step = item_bytes(self);
    for (int i = 0; i < self->rank; i++) {
        if (shape_of(self)[i] != 1 && strides_of(self)[i] != step) {
            return false;
        }
        step *= shape_of(self)[i];
    }
    return true;
}

static bool layout_fits(umo_py_tensor *self, int flags)
{
    if (self->packed) {
        return (flags & PyBUF_F_CONTIGUOUS) != PyBUF_F_CONTIGUOUS || self->rank < 2 ||
               self->buffer == NULL || fortran_packed(self);
    }
    if ((flags & PyBUF_STRIDES) != PyBUF_STRIDES ||
        (flags & PyBUF_C_CONTIGUOUS) == PyBUF_C_CONTIGUOUS) {
        return false;
    }
    return ((flags & PyBUF_F_CONTIGUOUS) != PyBUF_F_CONTIGUOUS &&
            (flags & PyBUF_ANY_CONTIGUOUS) != PyBUF_ANY_CONTIGUOUS) ||
           fortran_packed(self);
}

bool umo_py_tensor_describe(umo_py_tensor *self, Py_buffer *view, void *data, bool read_only,
                            int flags)
{
    if ((flags & PyBUF_WRITABLE) != 0 && read_only) {
        PyErr_SetString(PyExc_BufferError, "the tensor is read-only");
        return false;
    }
    if (!layout_fits(self, flags)) {
        PyErr_SetString(PyExc_BufferError, "the elements do not lie one behind the other");
        return false;
    }
    if ((flags & PyBUF_FORMAT) != 0 && self->type->format == NULL) {
        PyErr_Format(PyExc_BufferError,
                     "the buffer protocol has no %s: numpy.asarray(tensor) with ml_dtypes, or "
                     "DLPack",
                     self->type->name);
        return false;
    }
    const bool shaped = (flags & PyBUF_ND) != 0;
    view->buf = data;
    view->len = element_count(self) * item_bytes(self);
    view->itemsize = item_bytes(self);
    view->readonly = read_only ? 1 : 0;
    view->ndim = shaped ? self->rank : 1;
    view->format = (flags & PyBUF_FORMAT) != 0 ? (char *)(uintptr_t)self->type->format : NULL;
    view->shape = shaped && self->rank > 0 ? shape_of(self) : NULL;
    view->strides =
        (flags & PyBUF_STRIDES) == PyBUF_STRIDES && self->rank > 0 ? strides_of(self) : NULL;
    view->suboffsets = NULL;
    return true;
}

static int tensor_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    view->obj = NULL;
    if (!umo_py_tensor_describe(self, view, &nothing, self->read_only, flags)) {
        return -1;
    }
    if (self->buffer != NULL) {
        if (!umo_py_buffer_export(self->buffer, !self->read_only)) {
            return -1;
        }
        view->buf = (char *)umo_buffer_host(self->buffer->buffer) + self->offset_bytes;
    }
    view->internal = NULL;
    view->obj = Py_NewRef(object);
    return 0;
}

static void tensor_releasebuffer(PyObject *object, Py_buffer *view)
{
    (void)view;
    umo_py_tensor *self = (umo_py_tensor *)object;
    if (self->buffer != NULL) {
        umo_py_buffer_export_done(self->buffer, !self->read_only);
    }
}

/* ---- NumPy ---- */

static PyObject *sizes_tuple(const Py_ssize_t *sizes, int count)
{
    PyObject *tuple = PyTuple_New(count);
    for (int i = 0; i < count && tuple != NULL; i++) {
        PyObject *item = PyLong_FromSsize_t(sizes[i]);
        if (item == NULL || PyTuple_SetItem(tuple, i, item) != 0) {
            Py_CLEAR(tuple);
        }
    }
    return tuple;
}

/* An address says nothing about when its user is done, so it is an export for the tensor's life:
 * who follows the protocol keeps the tensor. */
static PyObject *interface_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_py_tensor *self = (umo_py_tensor *)object;
    if (self->type->typestr == NULL) {
        PyErr_Format(PyExc_AttributeError, "NumPy has no %s of its own; __array__() has it",
                     self->type->name);
        return NULL;
    }
    void *data = &nothing;
    if (self->buffer != NULL) {
        if (!self->exported) {
            if (!umo_py_buffer_export(self->buffer, !self->read_only)) {
                return NULL;
            }
            if (self->exported) { /* by another thread meanwhile: one is enough */
                umo_py_buffer_export_done(self->buffer, !self->read_only);
            }
            self->exported = true;
        }
        data = (char *)umo_buffer_host(self->buffer->buffer) + self->offset_bytes;
    }
    return Py_BuildValue(
        "{s:N,s:s,s:(NN),s:N,s:i}", "shape", sizes_tuple(shape_of(self), self->rank), "typestr",
        self->type->typestr, "data", PyLong_FromVoidPtr(data), PyBool_FromLong(self->read_only),
        "strides", self->packed ? Py_NewRef(Py_None) : sizes_tuple(strides_of(self), self->rank),
        "version", 3);
}

/* ---- DLPack ---- */

static PyObject *tensor_dlpack_device(PyObject *object, PyObject *unused)
{
    (void)object;
    (void)unused;
    return Py_BuildValue("(ii)", (int)UMO_DL_CPU, 0); /* the host sees every tensor */
}

static void export_drop(PyObject *object)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    if (self->buffer != NULL) {
        umo_py_buffer_export_done(self->buffer, !self->read_only);
    }
    Py_DECREF(object);
}

/* Memory of a pool goes out with the tensor, which keeps the pool; other memory by itself. */
static umo_dl_managed_versioned *pooled_hand(umo_py_tensor *self)
{
    void *data = NULL;
    if (self->buffer != NULL) {
        if (!umo_py_buffer_export(self->buffer, !self->read_only)) {
            return NULL;
        }
        data = (char *)umo_buffer_host(self->buffer->buffer) + self->offset_bytes;
    }
    umo_dl_managed_versioned *managed =
        umo_py_dlpack_hand(self, (umo_dl_device){UMO_DL_CPU, 0}, data, 0, self->read_only,
                           Py_NewRef(UMO_PY_OBJECT(self)), export_drop);
    if (managed == NULL) {
        export_drop((PyObject *)self);
    }
    return managed;
}

static umo_dl_managed_versioned *tensor_hand(umo_py_tensor *self, bool device)
{
    if (self->buffer == NULL || (self->buffer->pool != NULL && !device)) {
        return pooled_hand(self);
    }
    umo_tensor tensor;
    umo_buffer *held = umo_py_buffer_hold(self->buffer);
    if (held == NULL) {
        return NULL;
    }
    umo_py_tensor_fill(self, &tensor);
    const umo_dl_export options = {.side = device ? UMO_SIDE_DEVICE : UMO_SIDE_HOST,
                                   .read_only = self->read_only};
    umo_dl_managed_versioned *managed = NULL;
    umo_error error;
    error.text[0] = '\0';
    PyThreadState *state = self->buffer->quick ? NULL : PyEval_SaveThread();
    umo_status status = umo_tensor_to_dlpack(&tensor, &options, &managed, &error);
    if (state != NULL) {
        PyEval_RestoreThread(state);
    }
    umo_buffer_release(held);
    if (status != UMO_OK) {
        umo_py_raise(status, &error, UMO_REASON_NONE, "handing the tensor out");
    }
    return managed;
}

static PyObject *tensor_dlpack(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_py_tensor *self = (umo_py_tensor *)object;
    umo_py_dlpack_wish wish;
    if (!umo_py_args_take(&umo_py_dlpack_args, args, count, names, given) ||
        !umo_py_dlpack_wish_take(given, umo_py_dlpack_device(self), &wish)) {
        return NULL;
    }
    if (!wish.versioned && self->read_only && !wish.copy) {
        PyErr_SetString(PyExc_BufferError, "the tensor is read-only, which only DLPack 1.0 and "
                                           "later can say: pass max_version=(1, 0)");
        return NULL;
    }
    umo_dl_managed_versioned *managed =
        wish.copy ? umo_py_dlpack_copy(self, object) : tensor_hand(self, wish.device);
    return managed != NULL ? umo_py_dlpack_capsule(managed, wish.versioned) : NULL;
}

/* ---- calls ---- */

static PyObject *tensor_wrap(PyObject *unused, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    (void)unused;
    static umo_py_args spec = UMO_PY_ARGS("wrap", 1, 1, "array", "writable");
    PyObject *given[UMO_PY_ARGS_MAX];
    return umo_py_args_take(&spec, args, count, names, given)
               ? umo_py_wrap(given[0], NULL, NULL, NULL, given[1])
               : NULL;
}

static PyObject *part_make(umo_py_tensor *self, uint32_t dim, int64_t start, int64_t length)
{
    umo_tensor whole;
    umo_tensor part;
    umo_py_tensor_fill(self, &whole);
    umo_status status = umo_tensor_slice(&whole, dim, start, length, &part);
    if (status != UMO_OK) {
        return umo_py_raise(status, NULL, UMO_REASON_NONE,
                            "a dimension or range that the tensor does not have");
    }
    return umo_py_tensor_new(&part, length > 0 ? self->buffer : NULL, self->read_only);
}

static PyObject *tensor_narrow(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("narrow", 3, 3, "dim", "start", "length");
    PyObject *given[UMO_PY_ARGS_MAX];
    uint32_t dim = 0;
    uint64_t start = 0;
    uint64_t length = 0;
    if (!umo_py_args_take(&spec, args, count, names, given) || !umo_py_u32(given[0], "dim", &dim) ||
        !umo_py_u64(given[1], "start", &start) || !umo_py_u64(given[2], "length", &length)) {
        return NULL;
    }
    if (start > INT64_MAX || length > INT64_MAX) {
        return umo_py_raise(UMO_E_INVAL, NULL, UMO_REASON_NONE,
                            "a dimension or range that the tensor does not have");
    }
    return part_make((umo_py_tensor *)object, dim, (int64_t)start, (int64_t)length);
}

static PyObject *tensor_item(PyObject *object, PyObject *key)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    Py_ssize_t start = 0;
    Py_ssize_t stop = 0;
    Py_ssize_t step = 0;
    if (!PySlice_Check(key) || self->rank == 0) {
        PyErr_SetString(PyExc_TypeError,
                        "a tensor takes one slice: numpy.asarray(tensor)[...] indexes without a "
                        "copy");
        return NULL;
    }
    if (PySlice_Unpack(key, &start, &stop, &step) != 0) {
        return NULL;
    }
    if (step != 1) {
        PyErr_SetString(PyExc_ValueError, "a slice with steps of 1");
        return NULL;
    }
    const Py_ssize_t length = PySlice_AdjustIndices(shape_of(self)[0], &start, &stop, step);
    return part_make(self, 0, start, length);
}

static PyObject *tensor_reshape(PyObject *object, PyObject *argument)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    umo_shape shape;
    uint64_t elements = 0;
    if (!umo_py_shape(argument, &shape)) {
        return NULL;
    }
    if (umo_shape_count(&shape, &elements) != UMO_OK || elements != (uint64_t)element_count(self) ||
        !self->packed) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "shape: %R, where %zd elements lie %s",
                     argument, element_count(self),
                     self->packed ? "one behind the other" : "apart");
        return NULL;
    }
    return umo_py_tensor_packed(self->buffer, self->offset_bytes, self->type->dtype, &shape,
                                self->read_only);
}

static PyObject *tensor_read(PyObject *object, PyObject *const *args, Py_ssize_t count,
                             PyObject *names)
{
    return umo_py_view_new((umo_py_tensor *)object, UMO_READ, args, count, names);
}

static PyObject *tensor_write(PyObject *object, PyObject *const *args, Py_ssize_t count,
                              PyObject *names)
{
    return umo_py_view_new((umo_py_tensor *)object, UMO_WRITE, args, count, names);
}

static PyObject *tensor_update(PyObject *object, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    return umo_py_view_new((umo_py_tensor *)object, UMO_READ_WRITE, args, count, names);
}

/* ---- fields ---- */

static PyObject *shape_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_py_tensor *self = (umo_py_tensor *)object;
    return sizes_tuple(shape_of(self), self->rank);
}

static PyObject *strides_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_py_tensor *self = (umo_py_tensor *)object;
    return sizes_tuple(strides_of(self), self->rank);
}

static PyObject *dtype_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(((umo_py_tensor *)object)->type->name);
}

static PyObject *ndim_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromLong(((umo_py_tensor *)object)->rank);
}

static PyObject *size_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(element_count((umo_py_tensor *)object));
}

static PyObject *nbytes_get(PyObject *object, void *unused)
{
    (void)unused;
    umo_py_tensor *self = (umo_py_tensor *)object;
    return PyLong_FromSsize_t(element_count(self) * item_bytes(self));
}

static PyObject *itemsize_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSsize_t(item_bytes((umo_py_tensor *)object));
}

static PyObject *readonly_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_tensor *)object)->read_only);
}

static PyObject *packed_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyBool_FromLong(((umo_py_tensor *)object)->packed);
}

static PyObject *buffer_get(PyObject *object, void *unused)
{
    (void)unused;
    PyObject *buffer = (PyObject *)((umo_py_tensor *)object)->buffer;
    return Py_NewRef(buffer != NULL ? buffer : Py_None);
}

static PyObject *offset_get(PyObject *object, void *unused)
{
    (void)unused;
    return PyLong_FromSize_t(((umo_py_tensor *)object)->offset_bytes);
}

static Py_ssize_t tensor_length(PyObject *object)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    if (self->rank == 0) {
        PyErr_SetString(PyExc_TypeError, "len() of a tensor without dimensions");
        return -1;
    }
    return shape_of(self)[0];
}

static PyObject *tensor_repr(PyObject *object)
{
    umo_py_tensor *self = (umo_py_tensor *)object;
    PyObject *shape = shape_get(object, NULL);
    PyObject *text = NULL;
    if (shape != NULL) {
        text = PyUnicode_FromFormat("<umo.Tensor %s %S%s>", self->type->name, shape,
                                    self->read_only ? ", read-only" : "");
        Py_DECREF(shape);
    }
    return text;
}

static PyMemberDef tensor_members[] = {
    {"__weaklistoffset__", T_PYSSIZET, offsetof(umo_py_tensor, weakrefs), READONLY, NULL},
    {0},
};

static PyGetSetDef tensor_fields[] = {
    {"shape", shape_get, NULL, "Its dimensions, outermost first.", NULL},
    {"strides", strides_get, NULL, "In bytes, as NumPy's.", NULL},
    {"dtype", dtype_get, NULL, "The name of its element type, as NumPy's: \"float32\".", NULL},
    {"ndim", ndim_get, NULL, "The number of its dimensions.", NULL},
    {"size", size_get, NULL, "The number of its elements.", NULL},
    {"nbytes", nbytes_get, NULL, "Bytes of its elements.", NULL},
    {"itemsize", itemsize_get, NULL, "Bytes of one element.", NULL},
    {"readonly", readonly_get, NULL, "Whether writing to it is forbidden.", NULL},
    {"packed", packed_get, NULL, "Whether the elements lie row-major without gaps.", NULL},
    {"buffer", buffer_get, NULL, "The memory; None where there are no elements.", NULL},
    {"offset_bytes", offset_get, NULL, "Of the first byte in the buffer.", NULL},
    {"__array_interface__", interface_get, NULL,
     "NumPy's protocol of addresses. Reading it exports the memory for the tensor's life.", NULL},
    {0},
};

static PyMethodDef tensor_methods[] = {
    {"wrap", UMO_PY_FAST(tensor_wrap), UMO_PY_FAST_FLAGS | METH_STATIC,
     "wrap(array, *, writable=None)\n--\n\n"
     "A tensor over the memory of a NumPy array, of any object of the buffer protocol or of a "
     "DLPack "
     "producer,\nwhich is kept alive. Nothing is copied: what cannot be used where it lies is an "
     "error in words."},
    {"narrow", UMO_PY_FAST(tensor_narrow), UMO_PY_FAST_FLAGS,
     "narrow($self, /, dim, start, length)\n--\n\nThe part [start, start + length) of a dimension, "
     "over the same memory."},
    {"reshape", tensor_reshape, METH_O,
     "reshape($self, shape, /)\n--\n\nAnother shape over the same packed memory."},
    {"read", UMO_PY_FAST(tensor_read), UMO_PY_FAST_FLAGS,
     "read($self, /, *, device=False, queue=0, timeout=None)\n--\n\n"
     "A bracket for a with block, whose value shows the bytes read-only on the host, or as the "
     "device's memory."},
    {"write", UMO_PY_FAST(tensor_write), UMO_PY_FAST_FLAGS,
     "write($self, /, *, device=False, queue=0, timeout=None)\n--\n\n"
     "The same for writing all of the tensor: nothing is brought. A block that ends by an "
     "exception "
     "leaves the\nbytes undefined."},
    {"update", UMO_PY_FAST(tensor_update), UMO_PY_FAST_FLAGS,
     "update($self, /, *, device=False, queue=0, timeout=None)\n--\n\n"
     "The same for reading and writing a part."},
    {"__dlpack__", UMO_PY_FAST(tensor_dlpack), UMO_PY_FAST_FLAGS,
     "__dlpack__($self, /, *, stream=None, max_version=None, dl_device=None, copy=None)\n--\n\n"
     "DLPack's protocol; the memory is exported until the consumer lets go."},
    {"__dlpack_device__", tensor_dlpack_device, METH_NOARGS,
     "__dlpack_device__($self, /)\n--\n\nThe CPU, which sees every tensor."},
    {"__array__", UMO_PY_FAST(umo_py_array), UMO_PY_FAST_FLAGS,
     "__array__($self, /, dtype=None, copy=None)\n--\n\nA NumPy array of the same memory."},
    {0},
};

static PyType_Slot tensor_slots[] = {
    {Py_tp_doc, "Element type, shape and strides over memory: Tensor.wrap(), Context.empty(), "
                "Context.wrap() or Pool.empty().\nnumpy.asarray(), memoryview() and from_dlpack() "
                "of other libraries share its memory."},
    UMO_PY_SLOT(Py_tp_dealloc, tensor_dealloc),
    UMO_PY_SLOT(Py_tp_traverse, tensor_traverse),
    UMO_PY_SLOT(Py_tp_repr, tensor_repr),
    UMO_PY_SLOT(Py_bf_getbuffer, tensor_getbuffer),
    UMO_PY_SLOT(Py_bf_releasebuffer, tensor_releasebuffer),
    UMO_PY_SLOT(Py_mp_length, tensor_length),
    UMO_PY_SLOT(Py_mp_subscript, tensor_item),
    {Py_tp_members, tensor_members},
    {Py_tp_getset, tensor_fields},
    {Py_tp_methods, tensor_methods},
    {0},
};

static PyType_Spec tensor_spec = {
    .name = "umo.Tensor",
    .basicsize = sizeof(umo_py_tensor),
    .itemsize = sizeof(Py_ssize_t),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_DISALLOW_INSTANTIATION |
             Py_TPFLAGS_IMMUTABLETYPE,
    .slots = tensor_slots,
};

bool umo_py_tensor_add(PyObject *module)
{
    return umo_py_type_add(module, &tensor_spec, &umo_py_tensor_type);
}

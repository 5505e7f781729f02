/*
 * Memory of others, where it lies.
 *
 * Three ways in, tried in this order: the buffer protocol, DLPack, __array_interface__. The first
 * and the last are put into DLPack's structure, so that libumo's one importer checks all of them,
 * and its deleter lets go of the owner when the last use is over.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* Where memory that is wrapped without a context is imported to: the CPU, opened once a process. */
static umo_device *plain_device;
static umo_scope *plain_scope;

typedef struct foreign {
    umo_dl_managed_versioned managed;
    PyObject *keep; /* held by a reference; NULL when view holds it */
    Py_buffer view;
    int64_t dims[2 * UMO_RANK_MAX];
} foreign;

/* Who takes the memory over, and how. */
typedef struct target {
    umo_device *device;
    umo_scope *scope;
    umo_py_context *context;
    int writable; /* -1: as its producer allows */
} target;

static void foreign_delete(umo_dl_managed_versioned *managed)
{
    foreign *f = managed->manager;
    if (!Py_IsInitialized()) {
        return; /* the process ends, and the owner with it */
    }
    PyGILState_STATE state = PyGILState_Ensure();
    if (f->keep != NULL) {
        Py_DECREF(f->keep);
    } else {
        PyBuffer_Release(&f->view);
    }
    free(f);
    PyGILState_Release(state);
}

static bool plain_open(void)
{
    umo_error error = {0};
    umo_status status = UMO_OK;
    if (plain_device == NULL) {
        status = umo_device_open("host", 0, NULL, &plain_device, &error);
    }
    if (status == UMO_OK && plain_scope == NULL) {
        status = umo_scope_create(NULL, "python", 0, &plain_scope, &error);
    }
    if (status != UMO_OK) {
        umo_py_raise(status, &error, UMO_REASON_NONE, "opening the CPU");
    }
    return status == UMO_OK;
}

/* The tensor over what was imported. */
static PyObject *imported(const umo_tensor *tensor, const target *to, PyObject *owner,
                          bool read_only)
{
    umo_py_buffer *buffer = NULL;
    if (tensor->buffer != NULL) {
        buffer = umo_py_buffer_new(tensor->buffer, to->context, NULL, owner, !read_only);
        if (buffer == NULL) {
            return NULL;
        }
        const uint32_t caps = umo_device_info_get(to->device)->caps;
        buffer->quick = owner != NULL && (caps & UMO_CAP_HOST_PROCESSOR) != 0;
    }
    PyObject *out = umo_py_tensor_new(tensor, buffer, read_only);
    Py_XDECREF(UMO_PY_OBJECT(buffer));
    return out;
}

/* A driver's import may take long; the CPU's does nothing. */
static umo_status managed_import(umo_dl_managed_versioned *managed, umo_dl_managed *old,
                                 const target *to, bool writable, umo_tensor *out, umo_reason *why,
                                 umo_error *error)
{
    const umo_dl_import options = {.device = to->device, .scope = to->scope, .writable = writable};
    const bool quick = (umo_device_info_get(to->device)->caps & UMO_CAP_HOST_PROCESSOR) != 0;
    PyThreadState *state = quick ? NULL : PyEval_SaveThread();
    umo_status status = managed != NULL
                            ? umo_tensor_from_dlpack(managed, &options, out, NULL, why, error)
                            : umo_tensor_from_dlpack_unversioned(old, &options, out, why, error);
    if (!quick) {
        PyEval_RestoreThread(state);
    }
    return status;
}

static PyObject *foreign_import(foreign *f, PyObject *owner, const target *to)
{
    const bool read_only = (f->managed.flags & UMO_DL_READ_ONLY) != 0 || to->writable == 0;
    f->managed.version = (umo_dl_version){UMO_DL_MAJOR, UMO_DL_MINOR};
    f->managed.manager = f;
    f->managed.deleter = foreign_delete;
    f->managed.tensor.device = (umo_dl_device){UMO_DL_CPU, 0};
    umo_tensor tensor;
    umo_reason why = UMO_REASON_NONE;
    umo_error error;
    error.text[0] = '\0';
    umo_status status = managed_import(&f->managed, NULL, to, to->writable == 1 || !read_only,
                                       &tensor, &why, &error);
    if (status != UMO_OK) {
        foreign_delete(&f->managed);
        return umo_py_raise(status, &error, why, "wrapping the array");
    }
    return imported(&tensor, to, owner, read_only);
}

/* ---- the buffer protocol ---- */

/* DLPack counts strides in elements. */
static bool strides_take(foreign *f, const Py_ssize_t *strides, Py_ssize_t item_bytes)
{
    const int rank = f->managed.tensor.ndim;
    int64_t *out = f->dims + UMO_RANK_MAX;
    for (int i = 0; i < rank; i++) {
        if (strides[i] % item_bytes != 0 && f->dims[i] > 1) {
            PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                         "dimension %d steps over %zd bytes, which is no multiple of an element of "
                         "%zd: a field of structures? array.copy() makes a copy",
                         i, strides[i], item_bytes);
            return false;
        }
        if (strides[i] < 0 && f->dims[i] > 1) {
            PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                         "dimension %d runs backwards (%zd bytes a step): array.copy() makes a "
                         "copy",
                         i, strides[i]);
            return false;
        }
        out[i] = strides[i] / item_bytes;
    }
    f->managed.tensor.strides = out;
    return true;
}

static bool view_describe(foreign *f)
{
    const Py_buffer *view = &f->view;
    const umo_py_dtype *type = umo_py_dtype_from_format(view->format, view->itemsize);
    if (type == NULL) {
        return false;
    }
    if (view->ndim > (int)UMO_RANK_MAX) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED), "%d dimensions; at most %u", view->ndim,
                     UMO_RANK_MAX);
        return false;
    }
    umo_dl_tensor *dl = &f->managed.tensor;
    dl->data = view->buf;
    dl->byte_offset = 0;
    dl->ndim = view->ndim;
    dl->dtype = type->dl;
    dl->shape = f->dims;
    dl->strides = NULL;
    for (int i = 0; i < view->ndim; i++) {
        f->dims[i] = view->shape != NULL ? view->shape[i] : view->len / view->itemsize;
    }
    f->managed.flags = view->readonly ? UMO_DL_READ_ONLY : 0;
    return view->strides == NULL || strides_take(f, view->strides, view->itemsize);
}

/* NULL without an exception when the object does not show its memory so. */
static PyObject *buffer_wrap(PyObject *object, const target *to)
{
    foreign *f = malloc(sizeof *f);
    if (f == NULL) {
        return PyErr_NoMemory();
    }
    f->keep = NULL;
    if (PyObject_GetBuffer(object, &f->view, PyBUF_RECORDS_RO) != 0) {
        free(f);
        if (!PyErr_ExceptionMatches(umo_py_exception(UMO_E_BUSY))) {
            (void)umo_py_error_forget();
        }
        return NULL;
    }
    if (!view_describe(f)) {
        PyBuffer_Release(&f->view);
        free(f);
        return NULL;
    }
    return foreign_import(f, f->view.obj, to);
}

/* ---- DLPack ---- */

static PyObject *capsule_import(PyObject *capsule, const target *to)
{
    umo_tensor tensor;
    umo_reason why = UMO_REASON_NONE;
    umo_error error;
    error.text[0] = '\0';
    bool read_only = to->writable == 0;
    umo_dl_managed_versioned *managed = NULL;
    umo_dl_managed *old = NULL;
    const char *was = "dltensor";
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        was = "dltensor_versioned";
        managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        read_only = read_only || (managed->version.major == UMO_DL_MAJOR &&
                                  (managed->flags & UMO_DL_READ_ONLY) != 0);
    } else if (PyCapsule_IsValid(capsule, "dltensor")) {
        old = PyCapsule_GetPointer(capsule, "dltensor");
    } else {
        const char *name = PyCapsule_GetName(capsule);
        PyErr_Clear();
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "a capsule named '%s' %s",
                     name != NULL ? name : "",
                     name != NULL && strncmp(name, "used_", 5) == 0
                         ? "was consumed already: each is good for one import"
                         : "is no DLPack tensor");
        return NULL;
    }
    /* Consumed before the import, which may give the lock up, or run the producer's deleter. */
    if (PyCapsule_SetName(capsule, managed != NULL ? "used_dltensor_versioned" : "used_dltensor") !=
        0) {
        return NULL;
    }
    umo_status status =
        managed_import(managed, old, to, to->writable == 1 || !read_only, &tensor, &why, &error);
    if (status != UMO_OK) {
        (void)PyCapsule_SetName(capsule, was); /* stays its producer's; fails only for no capsule */
        return umo_py_raise(status, &error, why, "taking the tensor over");
    }
    return imported(&tensor, to, NULL, read_only);
}

/* Producers of before DLPack 1.0 know no max_version. */
static PyObject *capsule_ask(PyObject *producer)
{
    PyObject *keywords =
        Py_BuildValue("{s:(ii)}", "max_version", (int)UMO_DL_MAJOR, (int)UMO_DL_MINOR);
    PyObject *none = PyTuple_New(0);
    PyObject *capsule = NULL;
    if (keywords != NULL && none != NULL) {
        capsule = PyObject_Call(producer, none, keywords);
        if (capsule == NULL && PyErr_ExceptionMatches(PyExc_TypeError)) {
            PyErr_Clear();
            capsule = PyObject_Call(producer, none, NULL);
        }
    }
    Py_XDECREF(keywords);
    Py_XDECREF(none);
    return capsule;
}

/* NULL without an exception when the object is no producer. */
static PyObject *dlpack_wrap(PyObject *object, const target *to)
{
    if (PyCapsule_CheckExact(object)) {
        return capsule_import(object, to);
    }
    PyObject *producer = PyObject_GetAttrString(object, "__dlpack__");
    if (producer == NULL) {
        if (PyErr_ExceptionMatches(PyExc_AttributeError)) {
            PyErr_Clear();
        }
        return NULL;
    }
    PyObject *capsule = capsule_ask(producer);
    Py_DECREF(producer);
    PyObject *out = NULL;
    if (capsule != NULL && PyCapsule_CheckExact(capsule)) {
        out = capsule_import(capsule, to);
    } else if (capsule != NULL) {
        PyErr_Format(PyExc_TypeError, "__dlpack__() returned %R, which is no capsule",
                     (PyObject *)Py_TYPE(capsule));
    }
    Py_XDECREF(capsule);
    return out;
}

/* ---- __array_interface__ ---- */

/* NumPy names types that it does not know itself by their size alone ("<V2"): the dtype has the
 * name. */
static const umo_py_dtype *unnamed_type(PyObject *object, const char *typestr)
{
    umo_dtype found = UMO_DTYPE_INVALID;
    PyObject *dtype = PyObject_GetAttrString(object, "dtype");
    if (dtype == NULL || !umo_py_dtype_take(dtype, &found)) {
        (void)umo_py_error_forget();
    }
    Py_XDECREF(dtype);
    const umo_py_dtype *type = umo_py_dtype_of(found);
    return type != NULL && strtol(typestr + 2, NULL, 10) == type->dl.bits / 8 ? type : NULL;
}

static const umo_py_dtype *interface_type(PyObject *object, PyObject *typestr)
{
    const umo_py_dtype *type = NULL;
    if (PyUnicode_Check(typestr)) {
        type = umo_py_dtype_from_typestr(typestr);
        const char *text = type == NULL ? PyUnicode_AsUTF8AndSize(typestr, NULL) : NULL;
        if (text != NULL && text[0] != '\0' && text[1] == 'V') {
            type = unnamed_type(object, text);
        }
    }
    if (type == NULL && umo_py_error_forget()) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                     "elements of type %R: umo has bool, integers of 8 to 64 bits, float16, "
                     "bfloat16, float32 and float64, in this machine's byte order",
                     typestr);
    }
    return type;
}

static bool interface_strides(foreign *f, PyObject *strides, Py_ssize_t item_bytes)
{
    if (strides == NULL || strides == Py_None) {
        return true;
    }
    umo_shape steps;
    if (!umo_py_shape(strides, &steps)) {
        return false;
    }
    Py_ssize_t bytes[UMO_RANK_MAX];
    for (uint32_t i = 0; i < steps.rank; i++) {
        bytes[i] = (Py_ssize_t)steps.dims[i];
    }
    if ((int32_t)steps.rank != f->managed.tensor.ndim) {
        PyErr_SetString(umo_py_exception(UMO_E_INVAL), "as many strides as dimensions");
        return false;
    }
    return strides_take(f, bytes, item_bytes);
}

/* Borrowed; NULL without an exception where there is none. */
static PyObject *field(PyObject *interface, const char *name)
{
    PyObject *key = PyUnicode_FromString(name);
    PyObject *value = key != NULL ? PyDict_GetItemWithError(interface, key) : NULL;
    Py_XDECREF(key);
    return value;
}

/* interface is our own: what describes the object must not be able to change it meanwhile. */
static bool interface_describe(foreign *f, PyObject *object, PyObject *interface)
{
    PyObject *shape = field(interface, "shape");
    PyObject *typestr = shape != NULL ? field(interface, "typestr") : NULL;
    PyObject *data = typestr != NULL ? field(interface, "data") : NULL;
    PyObject *strides = data != NULL ? field(interface, "strides") : NULL;
    umo_shape dims;
    if (PyErr_Occurred()) {
        return false;
    }
    if (shape == NULL || typestr == NULL || data == NULL || !PyTuple_Check(data) ||
        PyTuple_Size(data) != 2) {
        PyErr_SetString(umo_py_exception(UMO_E_UNSUPPORTED),
                        "an __array_interface__ without shape, typestr or an address");
        return false;
    }
    const umo_py_dtype *type = interface_type(object, typestr);
    if (type == NULL || !umo_py_shape(shape, &dims)) {
        return false;
    }
    umo_dl_tensor *dl = &f->managed.tensor;
    dl->data = PyLong_AsVoidPtr(PyTuple_GetItem(data, 0));
    const int read_only = PyObject_IsTrue(PyTuple_GetItem(data, 1));
    if (PyErr_Occurred()) {
        return false;
    }
    dl->byte_offset = 0;
    dl->ndim = (int32_t)dims.rank;
    dl->dtype = type->dl;
    dl->shape = f->dims;
    dl->strides = NULL;
    memcpy(f->dims, dims.dims, dims.rank * sizeof dims.dims[0]);
    f->managed.flags = read_only ? UMO_DL_READ_ONLY : 0;
    return interface_strides(f, strides, type->dl.bits / 8);
}

/* NULL without an exception when the object has none. */
static PyObject *interface_wrap(PyObject *object, const target *to)
{
    PyObject *interface = PyObject_GetAttrString(object, "__array_interface__");
    if (interface == NULL || !PyDict_Check(interface)) {
        (void)umo_py_error_forget();
        Py_XDECREF(interface);
        return NULL;
    }
    PyObject *own = PyDict_Copy(interface);
    Py_DECREF(interface);
    foreign *f = own != NULL ? malloc(sizeof *f) : NULL;
    if (f == NULL) {
        Py_XDECREF(own);
        return PyErr_NoMemory();
    }
    bool described = interface_describe(f, object, own);
    Py_DECREF(own);
    if (!described) {
        free(f);
        return NULL;
    }
    f->keep = Py_NewRef(object);
    return foreign_import(f, object, to);
}

/* ---- all of them ---- */

/* The first way that the object knows. What DLPack refuses may still have an address. */
static PyObject *any_wrap(PyObject *object, const target *to)
{
    PyObject *out = NULL;
    if (PyObject_CheckBuffer(object)) {
        out = buffer_wrap(object, to);
        if (out != NULL || PyErr_Occurred()) {
            return out;
        }
    }
    out = dlpack_wrap(object, to);
    if (out != NULL || umo_py_error_lasts()) {
        return out;
    }
    PyObject *type = NULL;
    PyObject *value = NULL;
    PyObject *trace = NULL;
    PyErr_Fetch(&type, &value, &trace);
    out = PyCapsule_CheckExact(object) ? NULL : interface_wrap(object, to);
    if (out == NULL && !PyErr_Occurred() && type != NULL) {
        PyErr_Restore(type, value, trace);
        return NULL;
    }
    Py_XDECREF(UMO_PY_OBJECT(type));
    Py_XDECREF(value);
    Py_XDECREF(trace);
    if (out == NULL && !PyErr_Occurred()) {
        PyErr_Format(umo_py_exception(UMO_E_UNSUPPORTED),
                     "%R shows its memory neither by the buffer protocol, nor by __dlpack__, nor "
                     "by __array_interface__",
                     (PyObject *)Py_TYPE(object));
    }
    return out;
}

PyObject *umo_py_wrap(PyObject *object, umo_py_context *context, PyObject *device, PyObject *scope,
                      PyObject *writable)
{
    target to = {.context = context, .writable = -1};
    if (writable != NULL) {
        to.writable = PyObject_IsTrue(writable);
        if (to.writable < 0) {
            return NULL;
        }
    }
    if (context == NULL) {
        if (!umo_py_interpreter_check() || !plain_open()) {
            return NULL;
        }
        to.device = plain_device;
        to.scope = plain_scope;
        return any_wrap(object, &to);
    }
    to.scope = umo_py_scope_take(context, scope);
    to.device = to.scope != NULL ? umo_py_device_take(context, device) : NULL;
    PyObject *out = to.device != NULL ? any_wrap(object, &to) : NULL;
    umo_device_release(to.device);
    return out;
}

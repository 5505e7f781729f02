/*
 * DLPack out: what a consumer asks for, structures over memory that a Python object keeps alive,
 * and capsules in both forms.
 */
#include "core.h"

#include <stdlib.h>
#include <string.h>

/* ---- what is asked for ---- */

umo_py_args umo_py_dlpack_args =
    UMO_PY_ARGS("__dlpack__", 0, 0, "stream", "max_version", "dl_device", "copy");

static bool pair_take(PyObject *argument, const char *name, long out[2])
{
    if (!PyTuple_Check(argument) || PyTuple_Size(argument) != 2) {
        PyErr_Format(PyExc_TypeError, "%s: a pair of numbers, not %R", name, argument);
        return false;
    }
    for (int i = 0; i < 2; i++) {
        out[i] = PyLong_AsLong(PyTuple_GetItem(argument, i));
        if (out[i] == -1 && PyErr_Occurred()) {
            return false;
        }
    }
    return true;
}

bool umo_py_dlpack_wish_take(PyObject *const *given, umo_dl_device own, umo_py_dlpack_wish *out)
{
    long version[2] = {0, 0};
    long device[2] = {UMO_DL_CPU, 0};
    *out = (umo_py_dlpack_wish){0};
    if ((given[1] != NULL && !pair_take(given[1], "max_version", version)) ||
        (given[2] != NULL && !pair_take(given[2], "dl_device", device)) ||
        !umo_py_bool(given[3], &out->copy)) {
        return false;
    }
    out->versioned = version[0] >= 1;
    out->device = device[0] != UMO_DL_CPU;
    if (given[0] != NULL) {
        /* All is done when __dlpack__() returns, so there is no stream to wait for. */
        long stream = PyLong_AsLong(given[0]);
        if (stream == -1 && PyErr_Occurred()) {
            return false;
        }
        if (stream != -1) {
            PyErr_SetString(PyExc_BufferError, "memory of the CPU has no streams: stream=None");
            return false;
        }
    }
    if ((out->device || device[1] != 0) && (device[0] != own.type || device[1] != own.id)) {
        PyErr_Format(PyExc_BufferError,
                     "the tensor is on device (%d, %d) and on the CPU (1, 0), "
                     "not on (%ld, %ld)",
                     (int)own.type, (int)own.id, device[0], device[1]);
        return false;
    }
    if (out->device && out->copy) {
        PyErr_SetString(PyExc_BufferError, "a copy is made for the CPU only");
        return false;
    }
    return true;
}

umo_dl_device umo_py_dlpack_device(const umo_py_tensor *tensor)
{
    const umo_dl_device cpu = {UMO_DL_CPU, 0};
    if (tensor->buffer == NULL || tensor->buffer->buffer == NULL) {
        return cpu;
    }
    const umo_device *device = umo_buffer_device(tensor->buffer->buffer);
    const int32_t ordinal = (int32_t)umo_device_ordinal(device);
    switch (umo_device_info_get(device)->language) {
    case UMO_LANGUAGE_OPENCL_C:
        return (umo_dl_device){UMO_DL_OPENCL, ordinal};
    case UMO_LANGUAGE_METAL:
        return (umo_dl_device){UMO_DL_METAL, ordinal};
    case UMO_LANGUAGE_CUDA:
        return (umo_dl_device){UMO_DL_CUDA, ordinal};
    case UMO_LANGUAGE_HOST:
        break;
    }
    return cpu;
}

/* ---- structures ---- */

typedef struct handed {
    umo_dl_managed_versioned managed;
    PyObject *owner; /* NULL for a copy */
    umo_py_drop drop;
    void *block;
    int64_t dims[];
} handed;

static void handed_delete(umo_dl_managed_versioned *managed)
{
    handed *h = managed->manager;
    if (h->owner != NULL) {
        if (!Py_IsInitialized()) {
            return; /* the process ends, and the owner with it */
        }
        PyGILState_STATE state = PyGILState_Ensure();
        h->drop(h->owner);
        PyGILState_Release(state);
    }
    free(h->block);
    free(h);
}

static handed *handed_alloc(const umo_py_tensor *tensor)
{
    const size_t rank = (size_t)tensor->rank;
    handed *h = calloc(1, sizeof *h + 2 * rank * sizeof h->dims[0]);
    if (h == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < rank; i++) {
        h->dims[i] = tensor->sizes[i];
    }
    h->managed.version = (umo_dl_version){UMO_DL_MAJOR, UMO_DL_MINOR};
    h->managed.manager = h;
    h->managed.deleter = handed_delete;
    h->managed.tensor.ndim = tensor->rank;
    h->managed.tensor.dtype = tensor->type->dl;
    h->managed.tensor.shape = h->dims;
    h->managed.tensor.strides = h->dims + rank;
    h->managed.tensor.device = (umo_dl_device){UMO_DL_CPU, 0};
    return h;
}

umo_dl_managed_versioned *umo_py_dlpack_hand(const umo_py_tensor *tensor, umo_dl_device device,
                                             void *data, uint64_t byte_offset, bool read_only,
                                             PyObject *owner, umo_py_drop drop)
{
    handed *h = handed_alloc(tensor);
    if (h == NULL) {
        return NULL;
    }
    for (int i = 0; i < tensor->rank; i++) {
        h->managed.tensor.strides[i] =
            tensor->sizes[tensor->rank + i] / (tensor->type->dl.bits / 8);
    }
    h->owner = owner;
    h->drop = drop;
    h->managed.flags = read_only ? UMO_DL_READ_ONLY : 0;
    h->managed.tensor.device = device;
    h->managed.tensor.data = data;
    h->managed.tensor.byte_offset = byte_offset;
    return &h->managed;
}

umo_dl_managed_versioned *umo_py_dlpack_copy(const umo_py_tensor *tensor, PyObject *object)
{
    Py_buffer view;
    if (PyObject_GetBuffer(object, &view, PyBUF_STRIDES) != 0) {
        return NULL;
    }
    handed *h = handed_alloc(tensor);
    if (h != NULL) {
        h->block = malloc(view.len > 0 ? (size_t)view.len : 1);
        if (h->block == NULL) {
            PyErr_NoMemory();
        }
    }
    if (h == NULL || h->block == NULL ||
        PyBuffer_ToContiguous(h->block, &view, view.len, 'C') != 0) {
        PyBuffer_Release(&view);
        if (h != NULL) {
            handed_delete(&h->managed);
        }
        return NULL;
    }
    PyBuffer_Release(&view);
    int64_t step = 1;
    for (int i = tensor->rank; i-- > 0;) {
        h->managed.tensor.strides[i] = step;
        step = view.len > 0 ? step * h->dims[i] : step;
    }
    h->managed.flags = UMO_DL_COPIED;
    h->managed.tensor.data = h->block;
    return &h->managed;
}

/* ---- capsules ---- */

/* The form of 0.x around the other one. */
static void old_delete(umo_dl_managed *old)
{
    umo_dl_managed_versioned *managed = old->manager;
    managed->deleter(managed);
    free(old);
}

/* Whoever consumed it has changed its name, and calls the deleter. */
static void capsule_drop(PyObject *capsule)
{
    if (PyCapsule_IsValid(capsule, "dltensor_versioned")) {
        umo_dl_managed_versioned *managed = PyCapsule_GetPointer(capsule, "dltensor_versioned");
        managed->deleter(managed);
    } else if (PyCapsule_IsValid(capsule, "dltensor")) {
        umo_dl_managed *old = PyCapsule_GetPointer(capsule, "dltensor");
        old->deleter(old);
    }
}

PyObject *umo_py_dlpack_capsule(umo_dl_managed_versioned *managed, bool versioned)
{
    PyObject *capsule = NULL;
    if (versioned) {
        capsule = PyCapsule_New(managed, "dltensor_versioned", capsule_drop);
        if (capsule == NULL) {
            managed->deleter(managed);
        }
        return capsule;
    }
    umo_dl_managed *old = malloc(sizeof *old);
    if (old == NULL) {
        managed->deleter(managed);
        return PyErr_NoMemory();
    }
    *old = (umo_dl_managed){.tensor = managed->tensor, .manager = managed, .deleter = old_delete};
    capsule = PyCapsule_New(old, "dltensor", capsule_drop);
    if (capsule == NULL) {
        old_delete(old);
    }
    return capsule;
}

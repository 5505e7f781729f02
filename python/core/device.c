/*
 * Devices. A Device holds the C ABI's device, which outlives the context that it came from.
 */
#include "core.h"

#include <string.h>

PyTypeObject *umo_py_device_type;

PyObject *umo_py_device_new(umo_device *device)
{
    umo_py_device *self = (umo_py_device *)PyType_GenericAlloc(umo_py_device_type, 0);
    if (self != NULL) {
        umo_device_acquire(device);
        self->device = device;
    }
    return (PyObject *)self;
}

/* "opencl:1" into its parts. */
static bool name_split(PyObject *argument, char driver[16], uint32_t *ordinal)
{
    Py_ssize_t length = 0;
    const char *text = PyUnicode_AsUTF8AndSize(argument, &length);
    if (text == NULL) {
        return false;
    }
    const char *colon = strchr(text, ':');
    size_t letters = colon != NULL ? (size_t)(colon - text) : (size_t)length;
    *ordinal = 0;
    bool good = letters > 0 && letters < 16 && strlen(text) == (size_t)length;
    if (good && colon != NULL) {
        const char *digits = colon + 1;
        size_t count = strspn(digits, "0123456789");
        good = count > 0 && count < 6 && digits[count] == '\0';
        for (size_t i = 0; good && i < count; i++) {
            *ordinal = *ordinal * 10 + (uint32_t)(digits[i] - '0');
        }
    }
    if (!good) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL),
                     "device: %R is no name like \"host\" or \"opencl:1\"", argument);
        return false;
    }
    memcpy(driver, text, letters);
    driver[letters] = '\0';
    return true;
}

/* A GPU's own driver before what runs on the CPU, as the optimizer chooses. */
static const char *driver_best(void)
{
    static const char *const names[] = {"metal", "opencl"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        uint32_t count = 0;
        if (umo_driver_count(names[i], &count, NULL) == UMO_OK && count > 0) {
            return names[i];
        }
    }
    return "host";
}

umo_device *umo_py_device_take(umo_py_context *context, PyObject *argument)
{
    if (argument != NULL && Py_TYPE(argument) == umo_py_device_type) {
        umo_device *device = ((umo_py_device *)argument)->device;
        umo_device_acquire(device);
        return device;
    }
    char driver[16] = "";
    uint32_t ordinal = 0;
    if (argument != NULL && !PyUnicode_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "device: a name or a Device, not %R",
                     (PyObject *)Py_TYPE(argument));
        return NULL;
    }
    if (argument != NULL && !name_split(argument, driver, &ordinal)) {
        return NULL;
    }
    umo_device *device = NULL;
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_context_device(
        context->context, driver[0] != '\0' ? driver : driver_best(), ordinal, &device, &error);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        umo_py_raise(status, &error, UMO_REASON_NONE, "opening a device");
        return NULL;
    }
    return device;
}

static void device_dealloc(PyObject *object)
{
    umo_py_device *self = (umo_py_device *)object;
    PyTypeObject *type = Py_TYPE(object);
    umo_device *device = self->device;
    Py_BEGIN_ALLOW_THREADS umo_device_release(device); /* the last one waits for the queues */
    Py_END_ALLOW_THREADS PyObject_Free(self);
    Py_DECREF(UMO_PY_OBJECT(type));
}

static const umo_device_info *info_of(PyObject *self)
{
    return umo_device_info_get(((umo_py_device *)self)->device);
}

static PyObject *name_get(PyObject *self, void *unused)
{
    (void)unused;
    const char *name = info_of(self)->name;
    return PyUnicode_DecodeUTF8(name, (Py_ssize_t)strlen(name), "replace");
}

static PyObject *driver_get(PyObject *self, void *unused)
{
    (void)unused;
    return PyUnicode_FromString(info_of(self)->driver);
}

static PyObject *family_get(PyObject *self, void *unused)
{
    (void)unused;
    const char *family = info_of(self)->family;
    return PyUnicode_DecodeUTF8(family, (Py_ssize_t)strlen(family), "replace");
}

static PyObject *ordinal_get(PyObject *self, void *unused)
{
    (void)unused;
    return PyLong_FromUnsignedLong(umo_device_ordinal(((umo_py_device *)self)->device));
}

static PyObject *unified_get(PyObject *self, void *unused)
{
    (void)unused;
    return PyBool_FromLong(info_of(self)->unified);
}

static PyObject *modes_get(PyObject *self, void *unused)
{
    (void)unused;
    static const uint32_t caps[UMO_STORAGE_MODES] = {[UMO_UNIFIED] = UMO_CAP_UNIFIED,
                                                     [UMO_MANAGED] = UMO_CAP_MANAGED,
                                                     [UMO_PRIVATE] = UMO_CAP_PRIVATE};
    PyObject *list = PyList_New(0);
    for (int i = 0; i < UMO_STORAGE_MODES && list != NULL; i++) {
        if ((info_of(self)->caps & caps[i]) == 0) {
            continue;
        }
        PyObject *name = PyUnicode_FromString(umo_py_mode_name((umo_storage_mode)i));
        if (name == NULL || PyList_Append(list, name) != 0) {
            Py_CLEAR(list);
        }
        Py_XDECREF(name);
    }
    PyObject *tuple = list != NULL ? PyList_AsTuple(list) : NULL;
    Py_XDECREF(list);
    return tuple;
}

static PyObject *info_get(PyObject *self, void *unused)
{
    (void)unused;
    const umo_device_info *info = info_of(self);
    return Py_BuildValue("{s:I,s:I,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:N,s:N,s:N,s:N,s:N}", "caps",
                         info->caps, "queues", info->queues, "import_align_bytes",
                         (unsigned long long)info->import_align_bytes, "import_size_align_bytes",
                         (unsigned long long)info->import_size_align_bytes, "write_granule_bytes",
                         (unsigned long long)info->write_granule_bytes, "alloc_align_bytes",
                         (unsigned long long)info->alloc_align_bytes, "buffer_max_bytes",
                         (unsigned long long)info->buffer_max_bytes, "memory_bytes",
                         (unsigned long long)info->memory_bytes, "bandwidth_bytes_s",
                         (unsigned long long)info->bandwidth_bytes_s, "coherent",
                         PyBool_FromLong((info->caps & UMO_CAP_COHERENT) != 0), "kernels",
                         PyBool_FromLong((info->caps & UMO_CAP_KERNELS) != 0), "host_processor",
                         PyBool_FromLong((info->caps & UMO_CAP_HOST_PROCESSOR) != 0), "import_read",
                         PyBool_FromLong((info->caps & UMO_CAP_IMPORT_READ) != 0), "import_write",
                         PyBool_FromLong((info->caps & UMO_CAP_IMPORT_WRITE) != 0));
}

static PyObject *device_usage(PyObject *self, PyObject *unused)
{
    (void)unused;
    umo_device *device = ((umo_py_device *)self)->device;
    umo_device_usage usage = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_device_usage_get(device, &usage);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        return umo_py_raise(status, NULL, UMO_REASON_NONE, "the device does not tell its usage");
    }
    return Py_BuildValue("{s:K,s:K}", "budget_bytes", (unsigned long long)usage.budget_bytes,
                         "allocated_bytes", (unsigned long long)usage.allocated_bytes);
}

static PyObject *device_repr(PyObject *self)
{
    return PyUnicode_FromFormat("<umo.Device %s:%u>", info_of(self)->driver,
                                umo_device_ordinal(((umo_py_device *)self)->device));
}

static PyObject *device_compare(PyObject *self, PyObject *other, int operation)
{
    if (Py_TYPE(other) != umo_py_device_type || (operation != Py_EQ && operation != Py_NE)) {
        Py_RETURN_NOTIMPLEMENTED;
    }
    const bool same = ((umo_py_device *)self)->device == ((umo_py_device *)other)->device;
    return PyBool_FromLong(same == (operation == Py_EQ));
}

static Py_hash_t device_hash(PyObject *self)
{
    return (Py_hash_t)((uintptr_t)((umo_py_device *)self)->device >> 4);
}

static PyGetSetDef device_fields[] = {
    {"name", name_get, NULL, "For display only.", NULL},
    {"driver", driver_get, NULL, "\"host\", \"opencl\", \"metal\" or a driver of one's own.", NULL},
    {"family", family_get, NULL, "Of the hardware, for display only.", NULL},
    {"ordinal", ordinal_get, NULL, "Its number among the devices of its driver.", NULL},
    {"unified", unified_get, NULL, "Whether host and device have one memory.", NULL},
    {"modes", modes_get, NULL, "The storage modes that it has.", NULL},
    {"info", info_get, NULL, "Its limits and abilities, read at opening.", NULL},
    {0},
};

static PyMethodDef device_methods[] = {
    {"usage", device_usage, METH_NOARGS,
     "usage($self, /)\n--\n\nWhat the device wants this process to stay below, and what it holds "
     "now."},
    {0},
};

static PyType_Slot device_slots[] = {
    {Py_tp_doc, "A device, opened once for its context: Context.device()."},
    UMO_PY_SLOT(Py_tp_dealloc, device_dealloc),
    UMO_PY_SLOT(Py_tp_repr, device_repr),
    UMO_PY_SLOT(Py_tp_richcompare, device_compare),
    UMO_PY_SLOT(Py_tp_hash, device_hash),
    {Py_tp_getset, device_fields},
    {Py_tp_methods, device_methods},
    {0},
};

static PyType_Spec device_spec = {
    .name = "umo.Device",
    .basicsize = sizeof(umo_py_device),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = device_slots,
};

bool umo_py_device_add(PyObject *module)
{
    return umo_py_type_add(module, &device_spec, &umo_py_device_type);
}

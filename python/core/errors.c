/*
 * Exceptions: one class a status, each derived from UmoError and from the builtin class that Python
 * code would look for.
 */
#include "core.h"

#include <string.h>

typedef struct error_row {
    const char *name;
    const char *status;
    PyObject **builtin;
    const char *doc;
} error_row;

static const error_row rows[] = {
    [UMO_E_INVAL] = {"umo.InvalidError", "INVAL", &PyExc_ValueError,
                     "An argument that can never be right."},
    [UMO_E_NOMEM] = {"umo.OutOfMemoryError", "NOMEM", &PyExc_MemoryError,
                     "The system or the device has no memory left."},
    [UMO_E_LIMIT] = {"umo.LimitError", "LIMIT", &PyExc_MemoryError,
                     "A budget or a fixed limit is reached; a release makes room."},
    [UMO_E_UNSUPPORTED] = {"umo.UnsupportedError", "UNSUPPORTED", &PyExc_TypeError,
                           "This device, element type or build cannot do it, ever."},
    [UMO_E_NOT_FOUND] = {"umo.NotFoundError", "NOT_FOUND", &PyExc_LookupError,
                         "A name, file, device or library does not exist."},
    [UMO_E_BUSY] = {"umo.BusyError", "BUSY", &PyExc_BufferError,
                    "A conflicting use is open: a with block, an array or another library's "
                    "tensor. Try again after it ends."},
    [UMO_E_DEVICE] = {"umo.DeviceError", "DEVICE", &PyExc_RuntimeError,
                      "The device or its driver failed."},
    [UMO_E_SYSTEM] = {"umo.SystemCallError", "SYSTEM", &PyExc_OSError,
                      "A system call failed; errno says how."},
    [UMO_E_REFUSED] = {"umo.RefusedError", "REFUSED", &PyExc_ValueError,
                       "Memory cannot be used where it lies; reason and remedy say why and what "
                       "to do."},
    [UMO_E_TIMEOUT] = {"umo.TimeLimitError", "TIMEOUT", &PyExc_TimeoutError,
                       "The time limit passed first."},
};

#define ROWS (sizeof rows / sizeof rows[0])

static PyObject *base;
static PyObject *classes[ROWS];

PyObject *umo_py_exception(umo_status status)
{
    size_t index = (size_t)status;
    return index < ROWS && classes[index] != NULL ? classes[index] : base;
}

static bool error_add(PyObject *module, const error_row *row, PyObject **out)
{
    PyObject *bases = PyTuple_Pack(2, base, *row->builtin);
    PyObject *fields = Py_BuildValue("{s:s,s:s}", "status", row->status, "remedy",
                                     umo_status_remedy((umo_status)(row - rows)));
    if (bases != NULL && fields != NULL) {
        *out = PyErr_NewExceptionWithDoc(row->name, row->doc, bases, fields);
    }
    Py_XDECREF(bases);
    Py_XDECREF(fields);
    return *out != NULL && PyModule_AddObjectRef(module, strrchr(row->name, '.') + 1, *out) == 0;
}

bool umo_py_errors_add(PyObject *module)
{
    PyObject *fields = Py_BuildValue("{s:s,s:i,s:O,s:O}", "status", "UNKNOWN", "native", 0,
                                     "reason", Py_None, "remedy", Py_None);
    if (fields == NULL) {
        return false;
    }
    base = PyErr_NewExceptionWithDoc(
        "umo.UmoError",
        "What libumo says went wrong.\n\n"
        "status: the name of its status (\"BUSY\"); native: errno or a driver's code, 0 if none;\n"
        "reason: why memory could not be used where it lies, else None;\n"
        "remedy: what to do about the reason, or else about the status.",
        NULL, fields);
    Py_DECREF(fields);
    if (base == NULL || PyModule_AddObjectRef(module, "UmoError", base) != 0) {
        return false;
    }
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].name != NULL && !error_add(module, &rows[i], &classes[i])) {
            return false;
        }
    }
    return true;
}

static bool attribute_set(PyObject *object, const char *name, PyObject *value)
{
    bool set = value != NULL && PyObject_SetAttrString(object, name, value) == 0;
    Py_XDECREF(value);
    return set;
}

/* What the class does not say already. */
static bool details_set(PyObject *exception, umo_status status, int32_t native, umo_reason why)
{
    if (native != 0 && !attribute_set(exception, "native", PyLong_FromLong(native))) {
        return false;
    }
    if (native != 0 && status == UMO_E_SYSTEM &&
        !attribute_set(exception, "errno", PyLong_FromLong(native))) {
        return false;
    }
    return why == UMO_REASON_NONE ||
           (attribute_set(exception, "reason", PyUnicode_FromString(umo_reason_label(why))) &&
            attribute_set(exception, "remedy", PyUnicode_FromString(umo_reason_remedy(why))));
}

PyObject *umo_py_raise(umo_status status, const umo_error *error, umo_reason why, const char *what)
{
    const bool worded = error != NULL && error->text[0] != '\0';
    PyObject *text;
    if (worded) {
        /* A text that was cut may end inside a letter. */
        text = PyUnicode_DecodeUTF8(error->text, (Py_ssize_t)strlen(error->text), "replace");
    } else {
        text = PyUnicode_FromFormat("%s: %s", what, umo_status_name(status));
    }
    PyObject *type = umo_py_exception(status);
    PyObject *exception = text != NULL ? PyObject_CallFunctionObjArgs(type, text, NULL) : NULL;
    if (exception != NULL && details_set(exception, status, worded ? error->native : 0, why)) {
        PyErr_SetObject(type, exception);
    }
    Py_XDECREF(text);
    Py_XDECREF(exception);
    return NULL;
}

bool umo_py_error_lasts(void)
{
    return PyErr_Occurred() &&
           (PyErr_ExceptionMatches(PyExc_MemoryError) || !PyErr_ExceptionMatches(PyExc_Exception));
}

bool umo_py_error_forget(void)
{
    if (umo_py_error_lasts()) {
        return false;
    }
    PyErr_Clear();
    return true;
}

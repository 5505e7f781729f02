/*
 * Arguments: sorted to their names without a tuple or a dictionary being made, because tensors are
 * wrapped and handed out in a microsecond; and turned into the C ABI's values, each refusal in
 * words.
 */
#include "core.h"

#include <math.h>
#include <string.h>

static int name_find(umo_py_args *spec, PyObject *name)
{
    for (int i = 0; i < UMO_PY_ARGS_MAX && spec->names[i] != NULL; i++) {
        if (spec->keys[i] == name) {
            return i;
        }
    }
    for (int i = 0; i < UMO_PY_ARGS_MAX && spec->names[i] != NULL; i++) {
        if (spec->keys[i] == NULL) {
            spec->keys[i] = PyUnicode_InternFromString(spec->names[i]);
            PyErr_Clear(); /* without it, names are compared letter by letter */
        }
        if (PyUnicode_CompareWithASCIIString(name, spec->names[i]) == 0) {
            return i;
        }
    }
    PyErr_Format(PyExc_TypeError, "%s() got an unexpected keyword argument '%U'", spec->function,
                 name);
    return -1;
}

static bool keyword_put(umo_py_args *spec, PyObject *name, PyObject *value, PyObject **out)
{
    int index = name_find(spec, name);
    if (index < 0) {
        return false;
    }
    if (out[index] != NULL) {
        PyErr_Format(PyExc_TypeError, "%s() got two values for '%s'", spec->function,
                     spec->names[index]);
        return false;
    }
    out[index] = value;
    return true;
}

static bool positional_check(umo_py_args *spec, Py_ssize_t count)
{
    if (count > spec->positional) {
        PyErr_Format(PyExc_TypeError, "%s() takes at most %d positional argument(s) (%zd given)",
                     spec->function, spec->positional, count);
        return false;
    }
    return true;
}

/* What is needed is there; None is as if it was not given, but not for what is needed. */
static bool args_finish(umo_py_args *spec, PyObject **out)
{
    for (int i = 0; i < UMO_PY_ARGS_MAX && spec->names[i] != NULL; i++) {
        if (i >= spec->required) {
            out[i] = out[i] == Py_None ? NULL : out[i];
        } else if (out[i] == NULL) {
            PyErr_Format(PyExc_TypeError, "%s() needs '%s'", spec->function, spec->names[i]);
            return false;
        }
    }
    return true;
}

bool umo_py_args_take(umo_py_args *spec, PyObject *const *args, Py_ssize_t count, PyObject *names,
                      PyObject **out)
{
    memset(out, 0, UMO_PY_ARGS_MAX * sizeof *out);
    if (!positional_check(spec, count)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        out[i] = args[i];
    }
    Py_ssize_t named = names != NULL ? PyTuple_Size(names) : 0;
    for (Py_ssize_t i = 0; i < named; i++) {
        if (!keyword_put(spec, PyTuple_GetItem(names, i), args[count + i], out)) {
            return false;
        }
    }
    return args_finish(spec, out);
}

bool umo_py_args_take_tuple(umo_py_args *spec, PyObject *args, PyObject *keywords, PyObject **out)
{
    memset(out, 0, UMO_PY_ARGS_MAX * sizeof *out);
    Py_ssize_t count = PyTuple_Size(args);
    if (!positional_check(spec, count)) {
        return false;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        out[i] = PyTuple_GetItem(args, i);
    }
    Py_ssize_t at = 0;
    PyObject *name = NULL;
    PyObject *value = NULL;
    while (keywords != NULL && PyDict_Next(keywords, &at, &name, &value)) {
        if (!PyUnicode_Check(name)) { /* type(**{1: 2}) gets here as it is */
            PyErr_Format(PyExc_TypeError, "%s(): keywords must be strings", spec->function);
            return false;
        }
        if (!keyword_put(spec, name, value, out)) {
            return false;
        }
    }
    return args_finish(spec, out);
}

/* ---- numbers ---- */

/* Python refuses to print numbers of thousands of digits. */
static void range_refuse(PyObject *argument, const char *name)
{
    PyObject *text = PyObject_Repr(argument);
    if (text != NULL || umo_py_error_forget()) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "%s: %V is out of range", name, text,
                     "a number that long");
    }
    Py_XDECREF(text);
}

bool umo_py_u64(PyObject *argument, const char *name, uint64_t *out)
{
    if (argument == NULL) {
        return true;
    }
    PyObject *number = PyNumber_Index(argument);
    if (number == NULL) {
        return false;
    }
    unsigned long long value = PyLong_AsUnsignedLongLong(number);
    Py_DECREF(number);
    if (value == (unsigned long long)-1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            range_refuse(argument, name);
        }
        return false;
    }
    *out = value;
    return true;
}

bool umo_py_size(PyObject *argument, const char *name, size_t *out)
{
    uint64_t value = *out;
    if (!umo_py_u64(argument, name, &value)) {
        return false;
    }
#if SIZE_MAX < UINT64_MAX
    if (value > SIZE_MAX) {
        range_refuse(argument, name);
        return false;
    }
#endif
    *out = (size_t)value;
    return true;
}

bool umo_py_u32(PyObject *argument, const char *name, uint32_t *out)
{
    uint64_t value = *out;
    if (!umo_py_u64(argument, name, &value)) {
        return false;
    }
    if (value > UINT32_MAX) {
        range_refuse(argument, name);
        return false;
    }
    *out = (uint32_t)value;
    return true;
}

bool umo_py_double(PyObject *argument, double *out)
{
    if (argument == NULL) {
        return true;
    }
    double value = PyFloat_AsDouble(argument);
    if (PyErr_Occurred()) {
        return false;
    }
    *out = value;
    return true;
}

bool umo_py_bool(PyObject *argument, bool *out)
{
    if (argument == NULL) {
        return true;
    }
    int value = PyObject_IsTrue(argument);
    if (value < 0) {
        return false;
    }
    *out = value != 0;
    return true;
}

bool umo_py_timeout(PyObject *argument, uint64_t *out_ns)
{
    *out_ns = UINT64_MAX;
    double seconds = 0;
    if (argument == NULL || !umo_py_double(argument, &seconds)) {
        return argument == NULL;
    }
    if (!(seconds >= 0)) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "timeout: %R is no number of seconds",
                     argument);
        return false;
    }
    *out_ns = seconds < 1e9 ? (uint64_t)(seconds * 1e9) : UINT64_MAX;
    return true;
}

/* ---- names ---- */

static const char *const modes[UMO_STORAGE_MODES] = {
    [UMO_UNIFIED] = "unified", [UMO_MANAGED] = "managed", [UMO_PRIVATE] = "private"};

const char *umo_py_mode_name(umo_storage_mode mode)
{
    return (unsigned)mode < UMO_STORAGE_MODES ? modes[mode] : "unknown";
}

const char *umo_py_side_name(umo_side side)
{
    return side == UMO_SIDE_DEVICE ? "device" : "host";
}

/* The place of a name in a list; -1 with an exception that lists what there is. */
static int choice_find(PyObject *argument, const char *what, const char *const *choices, int count)
{
    if (!PyUnicode_Check(argument)) {
        PyErr_Format(PyExc_TypeError, "%s: a name, not %R", what, (PyObject *)Py_TYPE(argument));
        return -1;
    }
    for (int i = 0; i < count; i++) {
        if (choices[i] != NULL && PyUnicode_CompareWithASCIIString(argument, choices[i]) == 0) {
            return i;
        }
    }
    PyObject *known = PyUnicode_FromString("");
    for (int i = 0; i < count && known != NULL; i++) {
        if (choices[i] == NULL) {
            continue;
        }
        PyObject *longer = PyUnicode_FromFormat(
            "%U%s\"%s\"", known, PyUnicode_GetLength(known) > 0 ? ", " : "", choices[i]);
        Py_DECREF(known);
        known = longer;
    }
    if (known != NULL) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "%s: %R is none of %U", what, argument, known);
        Py_DECREF(known);
    }
    return -1;
}

bool umo_py_mode(PyObject *argument, umo_storage_mode *out)
{
    int found = argument != NULL ? choice_find(argument, "mode", modes, UMO_STORAGE_MODES) : 0;
    if (argument != NULL && found >= 0) {
        *out = (umo_storage_mode)found;
    }
    return found >= 0;
}

bool umo_py_pattern(PyObject *argument, umo_pattern *out)
{
    if (argument == NULL) {
        return true;
    }
    const char *names[UMO_PATTERNS];
    for (int i = 0; i < UMO_PATTERNS; i++) {
        names[i] = umo_pattern_name((umo_pattern)i);
    }
    int found = choice_find(argument, "pattern", names, UMO_PATTERNS);
    if (found >= 0) {
        *out = (umo_pattern)found;
    }
    return found >= 0;
}

bool umo_py_side(PyObject *argument, umo_side *out)
{
    static const char *const names[] = {NULL, "host", "device"};
    int found = argument != NULL ? choice_find(argument, "side", names, 3) : 0;
    if (found > 0) {
        *out = (umo_side)found;
    }
    return found >= 0;
}

static bool dim_take(PyObject *item, int64_t *out)
{
    PyObject *number = PyNumber_Index(item);
    if (number == NULL) {
        return false;
    }
    long long value = PyLong_AsLongLong(number);
    Py_DECREF(number);
    if (value == -1 && PyErr_Occurred()) {
        if (PyErr_ExceptionMatches(PyExc_OverflowError)) {
            PyErr_Clear();
            range_refuse(item, "shape");
        }
        return false;
    }
    *out = value;
    return true;
}

bool umo_py_shape(PyObject *argument, umo_shape *out)
{
    if (PyIndex_Check(argument)) {
        out->rank = 1;
        return dim_take(argument, &out->dims[0]);
    }
    PyObject *items = PySequence_Tuple(argument);
    if (items == NULL) {
        return false;
    }
    Py_ssize_t rank = PyTuple_Size(items);
    bool taken = rank <= (Py_ssize_t)UMO_RANK_MAX;
    if (!taken) {
        PyErr_Format(umo_py_exception(UMO_E_INVAL), "shape: %zd dimensions; at most %u", rank,
                     UMO_RANK_MAX);
    }
    for (Py_ssize_t i = 0; i < rank && taken; i++) {
        taken = dim_take(PyTuple_GetItem(items, i), &out->dims[i]);
    }
    Py_DECREF(items);
    out->rank = (uint32_t)rank;
    return taken;
}

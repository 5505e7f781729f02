/*
 * __array__(): NumPy arrays of the same memory, also of bfloat16.
 *
 * The buffer protocol has no letter for bfloat16 and NumPy's DLPack no code, so the bytes go out as
 * 16-bit integers, by an object that asks the real one and puts its own letter, and are viewed as
 * ml_dtypes.bfloat16 afterwards.
 */
#include "core.h"

static PyTypeObject *raw_type;

typedef struct raw_object {
    PyObject_HEAD PyObject *object;
} raw_object;

static char raw_format[] = "H";

/* The view that comes back is the real object's, which is whom its end is told. */
static int raw_getbuffer(PyObject *object, Py_buffer *view, int flags)
{
    if (PyObject_GetBuffer(((raw_object *)object)->object, view, flags & ~PyBUF_FORMAT) != 0) {
        return -1;
    }
    view->format = (flags & PyBUF_FORMAT) != 0 ? raw_format : NULL;
    return 0;
}

static void raw_dealloc(PyObject *object)
{
    PyTypeObject *type = Py_TYPE(object);
    Py_XDECREF(((raw_object *)object)->object);
    PyObject_Free(object);
    Py_DECREF(UMO_PY_OBJECT(type));
}

static PyType_Slot raw_slots[] = {
    UMO_PY_SLOT(Py_tp_dealloc, raw_dealloc),
    UMO_PY_SLOT(Py_bf_getbuffer, raw_getbuffer),
    {0},
};

static PyType_Spec raw_spec = {
    .name = "umo._Raw",
    .basicsize = sizeof(raw_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = raw_slots,
};

bool umo_py_raw_add(PyObject *module)
{
    raw_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &raw_spec, NULL);
    return raw_type != NULL;
}

/* By a memoryview: why an object refuses, NumPy would forget, and ask its __array__() once more. */
static PyObject *plain_array(PyObject *numpy, PyObject *object)
{
    PyObject *shown = PyMemoryView_FromObject(object);
    PyObject *out = shown != NULL ? PyObject_CallMethod(numpy, "asarray", "O", shown) : NULL;
    Py_XDECREF(shown);
    return out;
}

static PyObject *raw_array(PyObject *numpy, PyObject *object)
{
    PyObject *types = PyImport_ImportModule("ml_dtypes");
    PyObject *type = types != NULL ? PyObject_GetAttrString(types, "bfloat16") : NULL;
    raw_object *raw = type != NULL ? (raw_object *)PyType_GenericAlloc(raw_type, 0) : NULL;
    PyObject *bits = NULL;
    PyObject *out = NULL;
    if (raw != NULL) {
        raw->object = Py_NewRef(object);
        bits = plain_array(numpy, UMO_PY_OBJECT(raw));
    }
    if (bits != NULL) {
        out = PyObject_CallMethod(bits, "view", "O", type);
    }
    Py_XDECREF(bits);
    Py_XDECREF(UMO_PY_OBJECT(raw));
    Py_XDECREF(UMO_PY_OBJECT(type));
    Py_XDECREF(types);
    return out;
}

static PyObject *array_of(PyObject *numpy, PyObject *object)
{
    PyObject *dtype = PyObject_GetAttrString(object, "dtype");
    if (dtype == NULL) {
        return NULL;
    }
    const bool raw = PyUnicode_CompareWithASCIIString(dtype, "bfloat16") == 0;
    Py_DECREF(dtype);
    return raw ? raw_array(numpy, object) : plain_array(numpy, object);
}

PyObject *umo_py_array(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names)
{
    static umo_py_args spec = UMO_PY_ARGS("__array__", 2, 0, "dtype", "copy");
    PyObject *given[UMO_PY_ARGS_MAX];
    if (!umo_py_args_take(&spec, args, count, names, given)) {
        return NULL;
    }
    PyObject *numpy = PyImport_ImportModule("numpy");
    PyObject *shared = numpy != NULL ? array_of(numpy, object) : NULL;
    PyObject *out = Py_XNewRef(shared);
    if (shared != NULL && (given[0] != NULL || given[1] != NULL)) {
        /* NumPy's own rules for what needs a copy, and for copy=False. */
        Py_DECREF(out);
        PyObject *keywords =
            Py_BuildValue("{s:O,s:O}", "dtype", given[0] != NULL ? given[0] : Py_None, "copy",
                          given[1] != NULL ? given[1] : Py_None);
        PyObject *arguments = PyTuple_Pack(1, shared);
        PyObject *array = PyObject_GetAttrString(numpy, "array");
        out = keywords != NULL && arguments != NULL && array != NULL
                  ? PyObject_Call(array, arguments, keywords)
                  : NULL;
        Py_XDECREF(array);
        Py_XDECREF(arguments);
        Py_XDECREF(keywords);
    }
    Py_XDECREF(shared);
    Py_XDECREF(numpy);
    return out;
}

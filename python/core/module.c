/*
 * The module umo._core: its types, and the library's closed lists as tuples.
 */
#include "core.h"

#include <string.h>

bool umo_py_type_add(PyObject *module, PyType_Spec *spec, PyTypeObject **out)
{
    PyObject *type = PyType_FromModuleAndSpec(module, spec, NULL);
    if (type == NULL) {
        return false;
    }
    *out = (PyTypeObject *)type;
    return PyModule_AddObjectRef(module, strrchr(spec->name, '.') + 1, type) == 0;
}

typedef const char *(*label_of)(int value);

static const char *status_label(int value)
{
    return umo_status_name((umo_status)value);
}

static const char *event_label(int value)
{
    return umo_event_kind_name((umo_event_kind)value);
}

static const char *mode_label(int value)
{
    return umo_py_mode_name((umo_storage_mode)value);
}

static const char *pattern_label(int value)
{
    return umo_pattern_name((umo_pattern)value);
}

static bool labels_add(PyObject *module, const char *name, label_of label, int count)
{
    PyObject *labels = PyTuple_New(count);
    for (int i = 0; i < count && labels != NULL; i++) {
        PyObject *text = PyUnicode_FromString(label(i));
        if (text == NULL || PyTuple_SetItem(labels, i, text) != 0) {
            Py_CLEAR(labels);
        }
    }
    bool added = labels != NULL && PyModule_AddObjectRef(module, name, labels) == 0;
    Py_XDECREF(labels);
    return added;
}

static bool reasons_add(PyObject *module)
{
    PyObject *reasons = PyTuple_New(UMO_REASON_COUNT);
    for (int i = 0; i < UMO_REASON_COUNT && reasons != NULL; i++) {
        const umo_reason reason = (umo_reason)i;
        PyObject *row = Py_BuildValue("(sss)", umo_reason_label(reason), umo_reason_cause(reason),
                                      umo_reason_remedy(reason));
        if (row == NULL || PyTuple_SetItem(reasons, i, row) != 0) {
            Py_CLEAR(reasons);
        }
    }
    bool added = reasons != NULL && PyModule_AddObjectRef(module, "REASONS", reasons) == 0;
    Py_XDECREF(reasons);
    return added;
}

static bool lists_add(PyObject *module)
{
    return labels_add(module, "STATUSES", status_label, UMO_E_TIMEOUT + 1) &&
           labels_add(module, "EVENT_KINDS", event_label, UMO_EVENT_KINDS) &&
           labels_add(module, "MODES", mode_label, UMO_STORAGE_MODES) &&
           labels_add(module, "PATTERNS", pattern_label, UMO_PATTERNS) && reasons_add(module);
}

static bool types_add(PyObject *module)
{
    return umo_py_errors_add(module) && umo_py_device_add(module) && umo_py_context_add(module) &&
           umo_py_scope_add(module) && umo_py_pool_add(module) && umo_py_buffer_add(module) &&
           umo_py_tensor_add(module) && umo_py_view_add(module) && umo_py_weights_add(module) &&
           umo_py_raw_add(module);
}

static struct PyModuleDef core_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "umo._core",
    .m_doc = "libumo's C ABI for Python: contexts, devices, buffers, pools, tensors, brackets.",
    .m_size = -1, /* its types are the process's, so other interpreters get a copy of its names */
    .m_methods = umo_py_profile_methods,
};

PyMODINIT_FUNC PyInit__core(void);

bool umo_py_interpreter_check(void)
{
    const bool is_main = PyInterpreterState_GetID(PyInterpreterState_Get()) == 0;
    if (!is_main) {
        PyErr_SetString(PyExc_ImportError, "umo works in the main interpreter only");
    }
    return is_main;
}

PyMODINIT_FUNC PyInit__core(void)
{
    if (!umo_py_interpreter_check()) {
        return NULL;
    }
    PyObject *module = PyModule_Create(&core_module);
    if (module == NULL) {
        return NULL;
    }
    if (!types_add(module) || !lists_add(module) ||
        PyModule_AddStringConstant(module, "LIBRARY_VERSION", umo_version()) != 0) {
        Py_DECREF(module);
        return NULL;
    }
    return module;
}

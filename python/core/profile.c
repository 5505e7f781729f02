/*
 * The flight recorder, as functions of the module: umo.profile puts its names over them.
 */
#include "core.h"

static PyObject *profile_start(PyObject *module, PyObject *const *args, Py_ssize_t count,
                               PyObject *names)
{
    (void)module;
    static umo_py_args spec = UMO_PY_ARGS("profile_start", 0, 0, "memory_bytes", "shards");
    PyObject *given[UMO_PY_ARGS_MAX];
    umo_profile_options options = {0};
    if (!umo_py_args_take(&spec, args, count, names, given) ||
        !umo_py_size(given[0], "memory_bytes", &options.memory_bytes) ||
        !umo_py_u32(given[1], "shards", &options.shards)) {
        return NULL;
    }
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_profile_start(&options, &error);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        return umo_py_raise(status, &error, UMO_REASON_NONE, "starting the recorder");
    }
    Py_RETURN_NONE;
}

static PyObject *profile_enable(PyObject *module, PyObject *argument)
{
    (void)module;
    bool on = false;
    if (!umo_py_bool(argument, &on)) {
        return NULL;
    }
    umo_status status = umo_profile_enable(on);
    if (status != UMO_OK) {
        return umo_py_raise(status, NULL, UMO_REASON_NONE, "starting the recorder");
    }
    Py_RETURN_NONE;
}

static PyObject *profile_dump(PyObject *module, PyObject *argument)
{
    (void)module;
    PyObject *path = NULL;
    if (!PyUnicode_FSConverter(argument, &path)) {
        return NULL;
    }
    const char *name = PyBytes_AsString(path);
    umo_error error = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_profile_dump(name, &error);
    Py_END_ALLOW_THREADS Py_DECREF(path);
    if (status != UMO_OK) {
        return umo_py_raise(status, &error, UMO_REASON_NONE, "writing the profile");
    }
    Py_RETURN_NONE;
}

static PyObject *profile_stats(PyObject *module, PyObject *unused)
{
    (void)module;
    (void)unused;
    umo_profile_stats stats = {0};
    umo_status status;
    Py_BEGIN_ALLOW_THREADS status = umo_profile_read(NULL, NULL, &stats);
    Py_END_ALLOW_THREADS if (status != UMO_OK)
    {
        return umo_py_raise(status, NULL, UMO_REASON_NONE, "nothing was ever recorded");
    }
    return Py_BuildValue(
        "{s:N,s:K,s:K,s:K,s:K,s:K}", "recording", PyBool_FromLong(stats.recording), "recorded",
        (unsigned long long)stats.recorded, "lost", (unsigned long long)stats.lost, "names_lost",
        (unsigned long long)stats.names_lost, "capacity", (unsigned long long)stats.capacity,
        "memory_bytes", (unsigned long long)stats.memory_bytes);
}

PyMethodDef umo_py_profile_methods[] = {
    {"profile_start", UMO_PY_FAST(profile_start), UMO_PY_FAST_FLAGS,
     "profile_start(*, memory_bytes=0, shards=0)\n--\n\nForgets what was recorded and records from "
     "now on."},
    {"profile_enable", profile_enable, METH_O,
     "profile_enable(on, /)\n--\n\nPauses or resumes recording."},
    {"profile_dump", profile_dump, METH_O,
     "profile_dump(path, /)\n--\n\nWrites the recorded events as CSV (docs/profiling.md)."},
    {"profile_stats", profile_stats, METH_NOARGS,
     "profile_stats()\n--\n\nWhat the recording holds."},
    {0},
};

/*
 * What the files of the extension umo._core share.
 *
 * The extension is a thin face over libumo's C ABI: it keeps Python's objects alive as long as the
 * C ABI uses their memory, turns statuses into exceptions, and gives up the interpreter's lock
 * around whatever may block. It uses Python's limited API of 3.11, so that one build serves all
 * later versions. Types are static to the process, and memory is let go of from any thread by
 * PyGILState_Ensure(), which knows the main interpreter alone: others are refused, and so is a
 * build of Python without the lock.
 */
#ifndef UMO_PY_CORE_H
#define UMO_PY_CORE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#include <umo/umo.h>

#if !defined(Py_LIMITED_API)
#error "umo._core is written for the limited API: define Py_LIMITED_API"
#endif
#if defined(Py_GIL_DISABLED)
#error "umo._core relies on the interpreter's lock: free-threaded builds are not supported"
#endif

/* A function in a slot, which C keeps apart from a pointer to data and Python does not. */
#define UMO_PY_SLOT(number, function)                                                              \
    {                                                                                              \
        (number), __extension__(void *)(function)                                                  \
    }
/* The limited API's functions take nothing else. */
#define UMO_PY_OBJECT(pointer) ((PyObject *)(pointer))
#define UMO_PY_FAST(function) ((PyCFunction)(void (*)(void))(function))
#define UMO_PY_FAST_FLAGS (METH_FASTCALL | METH_KEYWORDS)

/* ---- errors ---- */

bool umo_py_errors_add(PyObject *module);

/* Raises the exception of a status and returns NULL. error may be NULL or empty: then what says
 * what was tried. */
PyObject *umo_py_raise(umo_status status, const umo_error *error, umo_reason why, const char *what);

/* The exception that stands for a status: a class derived from UmoError. */
PyObject *umo_py_exception(umo_status status);

/* Whether an exception is set that is no answer to a question: memory is out, or the user wants to
 * end (KeyboardInterrupt). */
bool umo_py_error_lasts(void);
/* Forgets the exception, unless it lasts: then false, and it stays. */
bool umo_py_error_forget(void);

/* ---- arguments ---- */

#define UMO_PY_ARGS_MAX 10

/* The parameters of a function: the first `positional` may be given by position, the first
 * `required` have to be given. keys are the names as Python's objects, made at the first call:
 * those of a call are the same objects as a rule, so that finding one is comparing pointers. */
typedef struct umo_py_args {
    const char *function;
    int positional;
    int required;
    const char *names[UMO_PY_ARGS_MAX];
    PyObject *keys[UMO_PY_ARGS_MAX];
} umo_py_args;

#define UMO_PY_ARGS(text, at, needed, ...)                                                         \
    {                                                                                              \
        .function = (text), .positional = (at), .required = (needed), .names = { __VA_ARGS__ }     \
    }

/* Sorts a call's arguments to the names, borrowed; what was not given is NULL, None included. False
 * with an exception set. */
bool umo_py_args_take(umo_py_args *spec, PyObject *const *args, Py_ssize_t count, PyObject *names,
                      PyObject **out);
/* The same for tp_new. */
bool umo_py_args_take_tuple(umo_py_args *spec, PyObject *args, PyObject *keywords, PyObject **out);

/* Each of these leaves *out alone when the argument was not given, and is false with an exception
 * set when it cannot be. */
bool umo_py_size(PyObject *argument, const char *name, size_t *out);
bool umo_py_u64(PyObject *argument, const char *name, uint64_t *out);
bool umo_py_u32(PyObject *argument, const char *name, uint32_t *out);
bool umo_py_double(PyObject *argument, double *out);
bool umo_py_bool(PyObject *argument, bool *out);
/* Seconds; not given waits for ever. */
bool umo_py_timeout(PyObject *argument, uint64_t *out_ns);
bool umo_py_mode(PyObject *argument, umo_storage_mode *out);
bool umo_py_pattern(PyObject *argument, umo_pattern *out);
bool umo_py_side(PyObject *argument, umo_side *out);
/* A number, or a sequence of numbers. */
bool umo_py_shape(PyObject *argument, umo_shape *out);

const char *umo_py_mode_name(umo_storage_mode mode);
const char *umo_py_side_name(umo_side side);

/* ---- element types ---- */

typedef struct umo_py_dtype {
    umo_dtype dtype;
    const char *name;    /* NumPy's */
    const char *format;  /* of the buffer protocol; NULL for a type that it lacks */
    const char *typestr; /* of __array_interface__; likewise */
    umo_dl_type dl;
} umo_py_dtype;

/* NULL for a type without elements of fixed size. */
const umo_py_dtype *umo_py_dtype_of(umo_dtype dtype);
/* A name ("float32", "FP32"), or an object of NumPy, ml_dtypes, torch or tensorflow that has one.
 */
bool umo_py_dtype_take(PyObject *argument, umo_dtype *out);
/* What __array_interface__ calls an element; NULL without an exception for other names. */
const umo_py_dtype *umo_py_dtype_from_typestr(PyObject *typestr);
/* What the buffer protocol calls an element; NULL with an exception in words. */
const umo_py_dtype *umo_py_dtype_from_format(const char *format, Py_ssize_t item_bytes);

/* ---- objects ---- */

typedef struct umo_py_context {
    PyObject_HEAD umo_context *context; /* NULL when it was closed and nothing uses it any more */
    umo_placer *placer;                 /* made when it is first needed */
    PyObject *weakrefs;
    Py_ssize_t uses; /* what was made from it and still lives, and calls that run */
    bool shared;     /* the process's own */
    bool closed;     /* makes nothing new */
    uint64_t budget_bytes;
    double budget_fraction;
} umo_py_context;

typedef struct umo_py_device {
    PyObject_HEAD umo_device *device;
} umo_py_device;

typedef struct umo_py_scope {
    PyObject_HEAD umo_scope *scope;
    umo_py_context *context;
    uint64_t limit_bytes;
    bool root; /* the context's own, which is not ours to destroy */
} umo_py_scope;

typedef struct umo_py_pool {
    PyObject_HEAD umo_pool *pool;
    umo_py_context *context;
    PyObject *weakrefs;
    bool closed;
} umo_py_pool;

typedef struct umo_py_buffer {
    PyObject_HEAD umo_buffer *buffer; /* NULL after release() */
    umo_py_context *context;          /* NULL for what was wrapped without one */
    umo_py_pool *pool;                /* where it goes back to */
    PyObject *owner;                  /* borrowed: whose memory it is, held by the import */
    PyObject *weakrefs;
    Py_ssize_t exports; /* views, brackets and calls that are out: release() is refused */
    bool writable;
    bool quick; /* wrapped host memory on the CPU: nothing moves, so nothing blocks */
} umo_py_buffer;

typedef struct umo_py_tensor {
    PyObject_VAR_HEAD umo_py_buffer *buffer; /* NULL when there are no elements */
    PyObject *weakrefs;
    size_t offset_bytes;
    size_t size_bytes;
    const umo_py_dtype *type;
    int rank;
    bool read_only;
    bool packed;
    bool exported;      /* by address, for life: see __array_interface__ */
    Py_ssize_t sizes[]; /* rank dimensions, then rank strides in bytes */
} umo_py_tensor;

extern PyTypeObject *umo_py_context_type;
extern PyTypeObject *umo_py_device_type;
extern PyTypeObject *umo_py_scope_type;
extern PyTypeObject *umo_py_pool_type;
extern PyTypeObject *umo_py_buffer_type;
extern PyTypeObject *umo_py_tensor_type;
extern PyTypeObject *umo_py_view_type;
extern PyTypeObject *umo_py_weights_type;

bool umo_py_context_add(PyObject *module);
bool umo_py_device_add(PyObject *module);
bool umo_py_scope_add(PyObject *module);
bool umo_py_pool_add(PyObject *module);
bool umo_py_buffer_add(PyObject *module);
bool umo_py_tensor_add(PyObject *module);
bool umo_py_view_add(PyObject *module);
bool umo_py_weights_add(PyObject *module);
bool umo_py_raw_add(PyObject *module);
extern PyMethodDef umo_py_profile_methods[];

/* Whether this is the main interpreter; false with an exception. */
bool umo_py_interpreter_check(void);
/* Makes a heap type, adds it to the module under its own name and keeps it in *out. */
bool umo_py_type_add(PyObject *module, PyType_Spec *spec, PyTypeObject **out);

/* The context, if it is open, kept until an equal umo_py_context_leave(): for the time of a call,
 * or the life of what is made from it. NULL with an exception. */
umo_context *umo_py_context_enter(umo_py_context *self);
void umo_py_context_leave(umo_py_context *self);
/* The device of a `device` argument: a Device, "opencl", "opencl:1", or not given: the best there
 * is. One reference, or NULL with an exception. The context is entered. */
umo_device *umo_py_device_take(umo_py_context *context, PyObject *argument);
PyObject *umo_py_device_new(umo_device *device);
/* The scope of a `scope` argument, by default the context's own, borrowed. The context is entered.
 */
umo_scope *umo_py_scope_take(umo_py_context *context, PyObject *argument);
/* The placer, made now if there is none; NULL with an exception. The context is entered. */
umo_placer *umo_py_placer_get(umo_py_context *self);

PyObject *umo_py_counters(const umo_counters *counters);
PyObject *umo_py_tally(umo_tally tally);

/* Takes over one reference to buffer, also when it fails. */
umo_py_buffer *umo_py_buffer_new(umo_buffer *buffer, umo_py_context *context, umo_py_pool *pool,
                                 PyObject *owner, bool writable);
/* One reference to the memory for the time of a call that gives the lock up, or NULL with an
 * exception. umo_buffer_release() gives it back. */
umo_buffer *umo_py_buffer_hold(umo_py_buffer *self);
/* Allocates, as `pattern`, `mode` and `movable` ask for. */
umo_py_buffer *umo_py_buffer_alloc(umo_py_context *context, size_t size_bytes, PyObject *device,
                                   PyObject *scope, PyObject *mode, PyObject *pattern);
/* Hands the whole buffer out on the host side and waits for what is pending. */
bool umo_py_buffer_export(umo_py_buffer *self, bool writable);
void umo_py_buffer_export_done(umo_py_buffer *self, bool writable);

/* A packed tensor in a buffer, or without elements where buffer is NULL. Borrows buffer. */
PyObject *umo_py_tensor_packed(umo_py_buffer *buffer, size_t offset_bytes, umo_dtype dtype,
                               const umo_shape *shape, bool read_only);
/* Any tensor; buffer stands for tensor->buffer. */
PyObject *umo_py_tensor_new(const umo_tensor *tensor, umo_py_buffer *buffer, bool read_only);
void umo_py_tensor_fill(const umo_py_tensor *self, umo_tensor *out);
/* Describes memory at data as the buffer protocol wants it; false with a BufferError. */
bool umo_py_tensor_describe(umo_py_tensor *self, Py_buffer *view, void *data, bool read_only,
                            int flags);
/* Memory of another library, where it lies. context is NULL for the CPU alone. */
PyObject *umo_py_wrap(PyObject *object, umo_py_context *context, PyObject *device, PyObject *scope,
                      PyObject *writable);

/* ---- DLPack out ---- */

/* Lets go of what a capsule holds; called once, with the interpreter's lock. */
typedef void (*umo_py_drop)(PyObject *owner);

/* What a consumer asks for, as the protocol words it. */
typedef struct umo_py_dlpack_wish {
    bool versioned;
    bool copy;
    bool device; /* not the CPU: the buffer's own */
} umo_py_dlpack_wish;

extern umo_py_args umo_py_dlpack_args;
/* own is the device that the object can be handed out on beside the CPU. */
bool umo_py_dlpack_wish_take(PyObject *const *given, umo_dl_device own, umo_py_dlpack_wish *out);
/* The DLPack name of the buffer's device. */
umo_dl_device umo_py_dlpack_device(const umo_py_tensor *tensor);
/* A structure over memory that owner keeps alive; drop(owner) is called when it is let go. On an
 * error nothing is dropped. */
umo_dl_managed_versioned *umo_py_dlpack_hand(const umo_py_tensor *tensor, umo_dl_device device,
                                             void *data, uint64_t byte_offset, bool read_only,
                                             PyObject *owner, umo_py_drop drop);
/* A packed copy of an object's bytes, which it shows by the buffer protocol. */
umo_dl_managed_versioned *umo_py_dlpack_copy(const umo_py_tensor *tensor, PyObject *object);
/* Takes managed over, also when it fails. */
PyObject *umo_py_dlpack_capsule(umo_dl_managed_versioned *managed, bool versioned);

/* __array__() of what shows a tensor's bytes by the buffer protocol: a NumPy array, also of
 * elements that the protocol has no letter for. */
PyObject *umo_py_array(PyObject *object, PyObject *const *args, Py_ssize_t count, PyObject *names);

/* A bracket on a tensor. */
PyObject *umo_py_view_new(umo_py_tensor *tensor, umo_use use, PyObject *const *args,
                          Py_ssize_t count, PyObject *names);

#endif

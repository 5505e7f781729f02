/**
 * @file ort_api.h
 * The part of ONNX Runtime's C API that the backend uses, and the library behind it.
 *
 * ONNX Runtime hands out one table of functions whose order never changes, so a slot's number is
 * its identity. The slots are declared here, one row each, and copied by number into named members
 * at load time: no header of ONNX Runtime is needed to build, and one binary serves every release
 * from 1.15 on. The library is opened at run time; it is never closed, because its threads may
 * outlive the last session by a moment.
 */
#ifndef UMO_ORT_API_H
#define UMO_ORT_API_H

#include <umo/status.h>

typedef struct OrtAllocator ort_allocator;
typedef struct OrtEnv ort_env;
typedef struct OrtMemoryInfo ort_memory_info;
typedef struct OrtPrepackedWeightsContainer ort_prepacked;
typedef struct OrtRunOptions ort_run_options;
typedef struct OrtSession ort_session;
typedef struct OrtSessionOptions ort_session_options;
typedef struct OrtStatus ort_status;
typedef struct OrtTensorTypeAndShapeInfo ort_tensor_info;
typedef struct OrtThreadingOptions ort_threading_options;
typedef struct OrtTypeInfo ort_type_info;
typedef struct OrtValue ort_value;

/** The version of the table that is asked for: the first one with all the slots below. */
#define ORT_TABLE_VERSION 15u
#define ORT_OLDEST_RELEASE "1.15"

/** Its element types (ONNXTensorElementDataType). */
typedef enum ort_element {
    ORT_ELEMENT_UNDEFINED = 0,
    ORT_ELEMENT_FLOAT = 1,
    ORT_ELEMENT_UINT8 = 2,
    ORT_ELEMENT_INT8 = 3,
    ORT_ELEMENT_UINT16 = 4,
    ORT_ELEMENT_INT16 = 5,
    ORT_ELEMENT_INT32 = 6,
    ORT_ELEMENT_INT64 = 7,
    ORT_ELEMENT_STRING = 8,
    ORT_ELEMENT_BOOL = 9,
    ORT_ELEMENT_FLOAT16 = 10,
    ORT_ELEMENT_DOUBLE = 11,
    ORT_ELEMENT_UINT32 = 12,
    ORT_ELEMENT_UINT64 = 13,
    ORT_ELEMENT_BFLOAT16 = 16
} ort_element;

/** Kinds of values (ONNXType); the others are not tensors. */
enum {
    ORT_KIND_TENSOR = 1
};

/** Error codes (OrtErrorCode). */
enum {
    ORT_CODE_INVALID_ARGUMENT = 2,
    ORT_CODE_NO_SUCHFILE = 3,
    ORT_CODE_NO_MODEL = 4,
    ORT_CODE_NOT_IMPLEMENTED = 9
};

enum {
    ORT_LOG_ERROR = 3,
    ORT_LOG_FATAL = 4
};
enum {
    ORT_OPTIMIZE_NONE = 0,
    ORT_OPTIMIZE_BASIC = 1,
    ORT_OPTIMIZE_EXTENDED = 2,
    ORT_OPTIMIZE_ALL = 99
};
enum {
    ORT_RUN_SEQUENTIAL = 0,
    ORT_RUN_PARALLEL = 1
};
enum {
    ORT_ALLOCATOR_DEVICE = 0
};
enum {
    ORT_MEMORY_DEFAULT = 0
};

/* ORT_SLOT(number, name here, result, parameters). Enumerations of the original are int here, as on
 * every ABI it has. */
#define ORT_SLOTS(ORT_SLOT)                                                                        \
    ORT_SLOT(1, get_error_code, int, (const ort_status *))                                         \
    ORT_SLOT(2, get_error_message, const char *, (const ort_status *))                             \
    ORT_SLOT(3, create_env, ort_status *, (int level, const char *id, ort_env **))                 \
    ORT_SLOT(7, create_session, ort_status *,                                                      \
             (const ort_env *, const char *path, const ort_session_options *, ort_session **))     \
    ORT_SLOT(9, run, ort_status *,                                                                 \
             (ort_session *, const ort_run_options *, const char *const *input_names,              \
              const ort_value *const *inputs, size_t input_count, const char *const *output_names, \
              size_t output_count, ort_value **outputs))                                           \
    ORT_SLOT(10, create_session_options, ort_status *, (ort_session_options **))                   \
    ORT_SLOT(13, set_execution_mode, ort_status *, (ort_session_options *, int mode))              \
    ORT_SLOT(16, enable_mem_pattern, ort_status *, (ort_session_options *))                        \
    ORT_SLOT(17, disable_mem_pattern, ort_status *, (ort_session_options *))                       \
    ORT_SLOT(18, enable_mem_arena, ort_status *, (ort_session_options *))                          \
    ORT_SLOT(19, disable_mem_arena, ort_status *, (ort_session_options *))                         \
    ORT_SLOT(22, set_log_severity, ort_status *, (ort_session_options *, int level))               \
    ORT_SLOT(23, set_graph_optimization, ort_status *, (ort_session_options *, int level))         \
    ORT_SLOT(24, set_intra_op_threads, ort_status *, (ort_session_options *, int threads))         \
    ORT_SLOT(25, set_inter_op_threads, ort_status *, (ort_session_options *, int threads))         \
    ORT_SLOT(30, input_count, ort_status *, (const ort_session *, size_t *))                       \
    ORT_SLOT(31, output_count, ort_status *, (const ort_session *, size_t *))                      \
    ORT_SLOT(32, initializer_count, ort_status *, (const ort_session *, size_t *))                 \
    ORT_SLOT(33, input_type, ort_status *, (const ort_session *, size_t index, ort_type_info **))  \
    ORT_SLOT(34, output_type, ort_status *, (const ort_session *, size_t index, ort_type_info **)) \
    ORT_SLOT(35, initializer_type, ort_status *,                                                   \
             (const ort_session *, size_t index, ort_type_info **))                                \
    ORT_SLOT(36, input_name, ort_status *,                                                         \
             (const ort_session *, size_t index, ort_allocator *, char **))                        \
    ORT_SLOT(37, output_name, ort_status *,                                                        \
             (const ort_session *, size_t index, ort_allocator *, char **))                        \
    ORT_SLOT(38, initializer_name, ort_status *,                                                   \
             (const ort_session *, size_t index, ort_allocator *, char **))                        \
    ORT_SLOT(39, create_run_options, ort_status *, (ort_run_options **))                           \
    ORT_SLOT(41, run_set_log_severity, ort_status *, (ort_run_options *, int level))               \
    ORT_SLOT(46, run_set_terminate, ort_status *, (ort_run_options *))                             \
    ORT_SLOT(47, run_unset_terminate, ort_status *, (ort_run_options *))                           \
    ORT_SLOT(48, create_tensor, ort_status *,                                                      \
             (ort_allocator *, const int64_t *dims, size_t rank, int element, ort_value **))       \
    ORT_SLOT(49, create_tensor_with_data, ort_status *,                                            \
             (const ort_memory_info *, void *data, size_t size_bytes, const int64_t *dims,         \
              size_t rank, int element, ort_value **))                                             \
    ORT_SLOT(51, tensor_data, ort_status *, (ort_value *, void **))                                \
    ORT_SLOT(53, strings_bytes, ort_status *, (const ort_value *, size_t *))                       \
    ORT_SLOT(55, type_as_tensor, ort_status *, (const ort_type_info *, const ort_tensor_info **))  \
    ORT_SLOT(56, type_kind, ort_status *, (const ort_type_info *, int *))                          \
    ORT_SLOT(60, tensor_element, ort_status *, (const ort_tensor_info *, int *))                   \
    ORT_SLOT(61, tensor_rank, ort_status *, (const ort_tensor_info *, size_t *))                   \
    ORT_SLOT(62, tensor_dims, ort_status *, (const ort_tensor_info *, int64_t *, size_t rank))     \
    ORT_SLOT(63, tensor_symbols, ort_status *,                                                     \
             (const ort_tensor_info *, const char **, size_t rank))                                \
    ORT_SLOT(65, value_info, ort_status *, (const ort_value *, ort_tensor_info **))                \
    ORT_SLOT(67, value_kind, ort_status *, (const ort_value *, int *))                             \
    ORT_SLOT(69, create_cpu_memory_info, ort_status *,                                             \
             (int allocator_type, int memory_type, ort_memory_info **))                            \
    ORT_SLOT(76, allocator_free, ort_status *, (ort_allocator *, void *))                          \
    ORT_SLOT(78, default_allocator, ort_status *, (ort_allocator **))                              \
    ORT_SLOT(92, release_env, void, (ort_env *))                                                   \
    ORT_SLOT(93, release_status, void, (ort_status *))                                             \
    ORT_SLOT(94, release_memory_info, void, (ort_memory_info *))                                   \
    ORT_SLOT(95, release_session, void, (ort_session *))                                           \
    ORT_SLOT(96, release_value, void, (ort_value *))                                               \
    ORT_SLOT(97, release_run_options, void, (ort_run_options *))                                   \
    ORT_SLOT(98, release_type_info, void, (ort_type_info *))                                       \
    ORT_SLOT(99, release_tensor_info, void, (ort_tensor_info *))                                   \
    ORT_SLOT(100, release_session_options, void, (ort_session_options *))                          \
    ORT_SLOT(119, create_env_with_pools, ort_status *,                                             \
             (int level, const char *id, const ort_threading_options *, ort_env **))               \
    ORT_SLOT(120, disable_session_threads, ort_status *, (ort_session_options *))                  \
    ORT_SLOT(121, create_threading_options, ort_status *, (ort_threading_options **))              \
    ORT_SLOT(122, release_threading_options, void, (ort_threading_options *))                      \
    ORT_SLOT(127, string_bytes, ort_status *, (const ort_value *, size_t index, size_t *))         \
    ORT_SLOT(128, string_copy, ort_status *,                                                       \
             (const ort_value *, size_t size_bytes, size_t index, void *))                         \
    ORT_SLOT(130, add_session_config, ort_status *,                                                \
             (ort_session_options *, const char *key, const char *value))                          \
    ORT_SLOT(147, set_pool_intra_op_threads, ort_status *, (ort_threading_options *, int threads)) \
    ORT_SLOT(148, set_pool_inter_op_threads, ort_status *, (ort_threading_options *, int threads)) \
    ORT_SLOT(150, add_initializer, ort_status *,                                                   \
             (ort_session_options *, const char *name, const ort_value *))                         \
    ORT_SLOT(165, add_run_config, ort_status *,                                                    \
             (ort_run_options *, const char *key, const char *value))                              \
    ORT_SLOT(166, create_prepacked, ort_status *, (ort_prepacked **))                              \
    ORT_SLOT(167, release_prepacked, void, (ort_prepacked *))                                      \
    ORT_SLOT(168, create_session_prepacked, ort_status *,                                          \
             (const ort_env *, const char *path, const ort_session_options *, ort_prepacked *,     \
              ort_session **))                                                                     \
    ORT_SLOT(176, register_allocator, ort_status *, (ort_env *, ort_allocator *))                  \
    ORT_SLOT(177, unregister_allocator, ort_status *, (ort_env *, const ort_memory_info *))        \
    ORT_SLOT(228, register_custom_ops, ort_status *, (ort_session_options *, const char *path))    \
    ORT_SLOT(252, string_resize, ort_status *,                                                     \
             (ort_value *, size_t index, size_t size_bytes, char **))

/** The functions by name. */
typedef struct ort_api {
#define ORT_MEMBER(number, name, result, parameters) result(*name) parameters;
    ORT_SLOTS(ORT_MEMBER)
#undef ORT_MEMBER
} ort_api;

/** How the one environment of the process is made. Only the first user's settings count. */
typedef struct ort_runtime_options {
    const char *library;  /**< a file or a folder; NULL searches */
    bool global_threads;  /**< one thread pool for all sessions */
    int intra_op_threads; /**< of the global pool; 0 is ONNX Runtime's default */
    int inter_op_threads;
} ort_runtime_options;

/** What all sessions of a process share. */
typedef struct ort_runtime {
    ort_api api;
    ort_env *env;
    ort_allocator *allocator;    /**< its default one; never freed */
    ort_memory_info *cpu_memory; /**< describes caller-owned host memory */
    bool global_threads;
    bool allocator_registered; /**< sessions may take from umo's pools (heap.h) */
    char release[32];          /**< "1.32.0" */
} ort_runtime;

/**
 * Joins the process's runtime; the first user opens the library and makes the environment.
 *
 * The library is options->library, else what the variable UMO_ONNXRUNTIME names, else
 * libonnxruntime.so.1 or libonnxruntime.so on the loader's path, else one beside the backend's own
 * library.
 *
 * Errors:    NOT_FOUND    no library; the text says where it was looked for and what to set.
 *            UNSUPPORTED  a library that is no ONNX Runtime, or one before 1.15.
 *            DEVICE       ONNX Runtime's own error.
 * Ownership: one reference, given back by ort_runtime_release().
 * Threads:   any.
 */
UMO_MUST_USE umo_status ort_runtime_acquire(const ort_runtime_options *options, ort_runtime **out,
                                            umo_error *error);

/** One more reference. Threads: any. */
void ort_runtime_hold(ort_runtime *runtime);

/** The last release ends the environment. NULL is allowed. Threads: any. */
void ort_runtime_release(ort_runtime *runtime);

/**
 * Turns ONNX Runtime's status into ours, and releases it.
 *
 * @param status  NULL is success.
 * @param doing   What was attempted, in words: it opens the text.
 */
umo_status ort_check(const ort_api *api, ort_status *status, const char *doing, umo_error *error);

#endif

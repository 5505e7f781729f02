/**
 * @file triton.h
 * The backend kit: write a Triton backend against this header alone; the kit speaks Triton's ABI.
 *
 * A backend defines one `const umo_backend umo_backend_table` and links the static library umo_kit,
 * which exports the TRITONBACKEND_* entry points. The kit turns requests into tensors that lie
 * where the client put them and responses into memory to write to; what cannot be used in place it
 * copies once, counts and names. The backend computes.
 *
 * Life of one execution: the kit reads and checks every request, puts requests of equal shape into
 * batches, and calls execute once a batch. execute takes its inputs (umo_batch_input), asks where
 * to write (umo_batch_output), runs the engine, and says with which fence the work completes
 * (umo_batch_complete). The kit waits, sends the responses and reports statistics. All pointers
 * into a batch are valid until execute returns or, with a fence, until it passes.
 */
#ifndef UMO_TRITON_H
#define UMO_TRITON_H

#include <umo/umo.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_model umo_model;
typedef struct umo_instance umo_instance;
typedef struct umo_batch umo_batch;

/** A model's `unified_memory` parameter, checked, with defaults for what is absent. */
typedef struct umo_unified_config {
    bool enable; /**< default true; false is the conventional way: gather, copy in, copy out,
                    scatter */
    bool batch_optimization; /**< default true: batches are put in the order that avoids copies */
    bool trusted_clients; /**< default false: control data in client-writable memory is snapshotted
                           */
    bool profiling;       /**< default false: every use of memory is recorded (profile.h) */
    size_t zero_copy_threshold; /**< bytes below which a device gets a copy; default 1 MiB */
    umo_pattern weights;        /**< tensor_patterns' entry "weights"; UNKNOWN when absent */
    char driver[16];            /**< from "device": "opencl:0"; empty when absent */
    uint32_t ordinal;
} umo_unified_config;

/** Called for each entry of tensor_patterns. */
typedef void (*umo_pattern_visit)(const char *name, umo_pattern pattern, void *user);

/**
 * Reads the text of a `unified_memory` object.
 *
 * @param text   NULL gives the defaults.
 * @param visit  May be NULL.
 *
 * Errors: INVAL not JSON, no object, an unknown field, a wrong type, a bad value: the text names
 *         the field and what is allowed. Nothing is written then, though visit may have been
 * called.
 */
UMO_MUST_USE umo_status umo_unified_config_parse(const char *text, umo_unified_config *out,
                                                 umo_pattern_visit visit, void *user,
                                                 umo_error *error);

/**
 * The same out of a whole model configuration: `optimization.unified_memory` as the mission writes
 * it, else the parameter "unified_memory" that the server passes on, else the defaults.
 *
 * Errors: as umo_unified_config_parse().
 */
UMO_MUST_USE umo_status umo_unified_config_find(const char *model, umo_unified_config *out,
                                                umo_pattern_visit visit, void *user,
                                                umo_error *error);

/** One input or output of the model's configuration. */
typedef struct umo_io {
    const char *name;
    umo_dtype dtype;
    umo_shape dims; /**< as configured, without the batch dimension; -1 is variable */
    bool optional;
    umo_pattern pattern;
    bool control; /**< may steer control flow or addresses (by dtype; a backend may change it in
                     model_init) */
    size_t align_bytes; /**< what the engine needs; 1 by default; a backend may change it in
                           model_init */
} umo_io;

/** What a backend is. All functions come from any thread; the calls for one instance never overlap.
 */
typedef struct umo_backend {
    const char *name;

    /**
     * Loads the model. *state is handed to the other calls.
     * Errors: any; the text reaches the user, so it names the thing and the remedy.
     */
    umo_status (*model_init)(umo_model *model, void **state, umo_error *error);
    void (*model_finish)(void *state);

    /** Optional. Tells the kit the model's own inputs and outputs (umo_model_add_*), for a
     * configuration without them. */
    umo_status (*model_complete)(umo_model *model, void *state, umo_error *error);
    /** Optional. Checks the finished configuration against the model, after completion. */
    umo_status (*model_check)(umo_model *model, void *state, umo_error *error);

    umo_status (*instance_init)(umo_instance *instance, void *model_state, void **state,
                                umo_error *error);
    void (*instance_finish)(void *state);

    /** Runs one batch. An error fails all requests of the batch and nothing else. */
    umo_status (*execute)(umo_instance *instance, void *state, umo_batch *batch, umo_error *error);
} umo_backend;

/** The one that a backend library defines. */
extern const umo_backend umo_backend_table;

/* The model. Strings live as long as the model. */

const char *umo_model_name(const umo_model *model);
uint64_t umo_model_version(const umo_model *model);
/** Folder of this version's files ("/models/name/1"). */
const char *umo_model_path(const umo_model *model);
/** Folder of the model itself ("/models/name"). */
const char *umo_model_folder(const umo_model *model);
/** The whole configuration as JSON text. */
const char *umo_model_config(const umo_model *model);
/** A string from `parameters`, or NULL. */
const char *umo_model_parameter(const umo_model *model, const char *key);
/** A --backend-config=NAME,key=value option, or NULL. */
const char *umo_model_backend_option(const umo_model *model, const char *key);
/** `default_model_filename`, or fallback when it is not set. */
const char *umo_model_file(const umo_model *model, const char *fallback);
/** 0 when the model does not batch. */
int64_t umo_model_batch_max(const umo_model *model);
const umo_unified_config *umo_model_unified(const umo_model *model);
umo_context *umo_model_context(umo_model *model);
umo_scope *umo_model_scope(umo_model *model);

/** The configured tensors; writable (control, align_bytes) during model_init and model_complete
 * only. */
umo_io *umo_model_inputs(umo_model *model, size_t *count);
umo_io *umo_model_outputs(umo_model *model, size_t *count);
/** Index by name; count when there is none. */
size_t umo_model_find_input(const umo_model *model, const char *name);
size_t umo_model_find_output(const umo_model *model, const char *name);

/** model_complete: dims without the batch dimension. A name that is configured already is left as
 * it is. Errors: NOMEM. */
UMO_MUST_USE umo_status umo_model_add_input(umo_model *model, const char *name, umo_dtype dtype,
                                            const umo_shape *dims, bool optional);
UMO_MUST_USE umo_status umo_model_add_output(umo_model *model, const char *name, umo_dtype dtype,
                                             const umo_shape *dims);
/** model_complete: used when the configuration says nothing about batching. True when it does not.
 */
bool umo_model_batch_unset(const umo_model *model);
void umo_model_set_batch_max(umo_model *model, int64_t batch_max);

/* The instance. */

umo_model *umo_instance_model(const umo_instance *instance);
const char *umo_instance_name(const umo_instance *instance);
/**
 * Where this instance's engine reads and writes. Called in instance_init; without it the engine is
 * the CPU and works on host memory.
 *
 * @param device  Kept by the instance. Tensors then come with a buffer of this device, in a device
 * bracket.
 * @param queue   The queue the instance submits to.
 */
void umo_instance_set_device(umo_instance *instance, umo_device *device, uint32_t queue);

/* One batch: requests whose tensors agree in everything but the batch dimension. */

/** Requests in it. */
size_t umo_batch_requests(const umo_batch *batch);
/** Sum of the requests' batch dimensions; 1 for a model that does not batch. */
int64_t umo_batch_rows(const umo_batch *batch);

/** Whether the requests bring the (optional) input. */
bool umo_batch_has_input(const umo_batch *batch, size_t input);

/**
 * An input as one tensor over the whole batch, shape with the batch dimension first if the model
 * batches. Where the requests lie behind each other it is their own memory, else a gathered copy.
 *
 * Host engines use tensor.data. Device engines use tensor.buffer at tensor.offset_bytes, whose
 * device bracket is open; they wait for umo_batch_waits().
 *
 * Errors: NOT_FOUND the (optional) input is absent. DEVICE, NOMEM, LIMIT.
 */
UMO_MUST_USE umo_status umo_batch_input(umo_batch *batch, size_t input, umo_tensor *out,
                                        umo_error *error);

/** Whether any request asks for the output. An output that nobody wants need not be computed. */
bool umo_batch_wants_output(const umo_batch *batch, size_t output);

/**
 * Where an output of a certain shape goes: the response memory itself where it lies in one piece,
 * else memory that the kit scatters from. As umo_batch_input() otherwise. Every byte must be
 * written. Called once an output; also for one that nobody wants, if the engine insists: it then
 * gets scratch memory.
 *
 * @param shape  With the batch dimension first, equal to umo_batch_rows(), if the model batches.
 *
 * Errors: INVAL a shape that does not fit the configuration. DEVICE, NOMEM, LIMIT.
 */
UMO_MUST_USE umo_status umo_batch_output(umo_batch *batch, size_t output, umo_dtype dtype,
                                         const umo_shape *shape, umo_tensor *out, umo_error *error);

/**
 * Delivers an output whose shape was known only after the computation: copied once (to each
 * response), and counted with the reason. data is host memory. For UMO_BYTES the data is
 * serialized.
 *
 * Errors: as umo_batch_output().
 */
UMO_MUST_USE umo_status umo_batch_output_late(umo_batch *batch, size_t output, umo_dtype dtype,
                                              const umo_shape *shape, const void *data,
                                              size_t size_bytes, umo_reason reason,
                                              umo_error *error);

/** Fences that the engine's work must wait for (inputs that are still on their way). */
const umo_fence_set *umo_batch_waits(const umo_batch *batch);

/** The fence that completes the batch's work; without a call the work has completed when execute
 * returns. */
void umo_batch_complete(umo_batch *batch, umo_fence fence);

/** Fails one request of the batch (0 to umo_batch_requests() - 1) and lets the others live. */
void umo_batch_fail(umo_batch *batch, size_t request, umo_status status, const char *text);

/** Words for the server's log. */
void umo_model_log(const umo_model *model, bool warning, const char *format, ...) UMO_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif

#endif

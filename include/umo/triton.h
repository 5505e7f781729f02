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
typedef struct umo_request umo_request;
typedef struct umo_response umo_response;

/** A zero_copy_threshold that nobody chose: what binding costs on the device decides
 * (umo_device_zero_copy()). */
#define UMO_THRESHOLD_AUTO SIZE_MAX

/** A model's `unified_memory` parameter, checked, with defaults for what is absent. The fields'
 * names and effects are those of docs/configuration.md. */
typedef struct umo_unified_config {
    bool enable; /**< default true; false is the conventional way: gather, copy in, copy out,
                    scatter */
    bool batch_optimization; /**< default true: batches are put in the order that avoids copies */
    bool trusted_clients; /**< default false: control data in client-writable memory is snapshotted
                           */
    bool profiling;       /**< default false: every use of memory is recorded (profile.h) */
    bool parallel_copies; /**< default true: large gathers and scatters may take more threads */
    /** Bytes below which a device gets a copy; UMO_THRESHOLD_AUTO when absent or "auto". */
    size_t zero_copy_threshold;
    umo_pattern weights;      /**< tensor_patterns' entry "weights"; UNKNOWN when absent */
    umo_pattern intermediate; /**< likewise "intermediate" */
    char driver[16];          /**< from "device": "opencl:0"; empty when absent */
    uint32_t ordinal;
    size_t cache_line_bytes;   /**< what scratch memory is aligned to; 0 when absent */
    size_t pool_keep_bytes;    /**< most bytes that a pool keeps (pool_config); 0 when absent */
    bool numa_optimization;    /**< default true: memory is on the node that uses it */
    bool pressure_adaptation;  /**< default true; of the process, from the command line */
    double pressure_threshold; /**< likewise; 0 when absent */
} umo_unified_config;

/** Called for each entry of tensor_patterns that counts, after all was found right. */
typedef void (*umo_pattern_visit)(const char *name, umo_pattern pattern, void *user);

/**
 * Reads the text of a `unified_memory` object.
 *
 * @param text   NULL gives the defaults.
 * @param visit  May be NULL.
 *
 * Errors: INVAL not JSON, no object, an unknown field, a wrong type, a bad value: the text names
 *         the field and what is allowed. Nothing is written or visited then.
 */
UMO_MUST_USE umo_status umo_unified_config_parse(const char *text, umo_unified_config *out,
                                                 umo_pattern_visit visit, void *user,
                                                 umo_error *error);

/**
 * The same out of a whole model configuration: `optimization.unified_memory` as the mission writes
 * it, or the parameter "unified_memory" or the execution accelerator of that name, which the server
 * passes on, else the defaults.
 *
 * Errors: as umo_unified_config_parse(), and INVAL where it is written in two of them.
 */
UMO_MUST_USE umo_status umo_unified_config_find(const char *model, umo_unified_config *out,
                                                umo_pattern_visit visit, void *user,
                                                umo_error *error);

/** Where a tensor of the model comes from. */
typedef enum umo_io_source {
    UMO_IO_REQUEST =
        0, /**< an input that requests bring, or an output that they are answered with */
    UMO_IO_BATCH =
        1, /**< an input that the kit makes of a batch: the configuration's batch_input */
    UMO_IO_CONTROL = 2, /**< a control of the sequence batcher, which the server makes */
    UMO_IO_STATE = 3    /**< an implicit state, in or out */
} umo_io_source;

/** What a UMO_IO_CONTROL input says of its request. */
typedef enum umo_sequence_control {
    UMO_SEQUENCE_NONE = 0,
    UMO_SEQUENCE_START = 1, /**< it is the first of its sequence */
    UMO_SEQUENCE_END = 2,   /**< it is the last */
    UMO_SEQUENCE_READY = 3, /**< there is one: under the strategy direct an empty slot has a row */
    UMO_SEQUENCE_CORRID = 4 /**< the number or name of its sequence */
} umo_sequence_control;

/** One input or output of the model's configuration. Those of the configuration's "input" and
 * "output" come first. */
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
    umo_io_source source;
    /** allow_ragged_batch: requests of unequal shapes share a batch. The tensor of a batch, also of
     * one request, is the concatenation, of shape [elements]. dims are those of one request. For
     * UMO_IO_BATCH, dims are the whole shape. */
    bool ragged;
    /** For an output, batch_output's BATCH_SCATTER_WITH_INPUT_SHAPE: the engine's own shape is
     * free; each response takes as many of its elements as dims says, where a -1 is the source
     * input's dimension of that place. */
    bool scattered;
    umo_sequence_control sequence_control;
    /** Of an output: it is a state of its sequence. So is every UMO_IO_STATE, and an output of the
     * configuration that a state names too: the engine writes it once, as any output, and the
     * client gets a copy. */
    bool state;
    /** Of a state, in or out: the index of its other half. */
    size_t pair;
    /** Of a state output; a backend may set it in model_init: the engine reads each element of the
     * pair before it writes the element of that place, so both may be one memory
     * (use_same_buffer_for_input_output). Without it such an output is scratch memory, copied. */
    bool overwrites;
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
/** Whether requests may have any number of responses (model_transaction_policy.decoupled). */
bool umo_model_decoupled(const umo_model *model);
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
 * The node (numa.h) that the server's host policy names for the instance; UMO_NUMA_ANY where it
 * names none, where the machine has one node only, and where enable_numa_optimization is false.
 */
int32_t umo_instance_node(const umo_instance *instance);
/**
 * umo_pool_create() for what the instance's engine needs, on umo_instance_node(). Where that cannot
 * be, as of a device's own memory, or where the system lets nobody choose a node (which the
 * server's log then says, once), the pool is anywhere.
 *
 * Errors, ownership: as umo_pool_create().
 */
UMO_MUST_USE umo_status umo_instance_pool_create(const umo_instance *instance,
                                                 const umo_pool_options *options, umo_pool **out,
                                                 umo_error *error);
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

/**
 * Whether the client of a request has gone or asked to stop. A request that fails after this was
 * true is answered CANCELLED, whatever its status. Requests that were cancelled before execute are
 * not in the batch.
 *
 * Threads: any, while execute runs; one at a time.
 * Cost:    a call into the server.
 */
bool umo_batch_cancelled(const umo_batch *batch, size_t request);

/* Decoupled models: any number of responses a request, from any thread, also when execute has
 * returned. docs/sequences.md. */

/**
 * Takes the requests of a decoupled model's batch: each is the backend's to answer and to finish,
 * from now on and after execute has returned. Called in execute, before the batch's inputs are
 * asked for, at most once. The batch's inputs stay what they are until the last of its requests is
 * finished; state outputs are delivered when execute returns, and it places no other output.
 *
 * When execute returns an error, all requests that are not finished are answered with it, and the
 * backend uses none of them any more. A request that umo_batch_fail() failed is finished then.
 *
 * Errors: INVAL the model is not decoupled, or the batch was taken or its inputs asked for. NOMEM.
 */
UMO_MUST_USE umo_status umo_batch_take(umo_batch *batch, umo_error *error);

/**
 * A request of a batch that was taken, 0 to umo_batch_requests() - 1.
 *
 * Ownership: valid until it is finished.
 */
umo_request *umo_batch_request(umo_batch *batch, size_t request);

/** As umo_batch_cancelled(). Threads: any. */
bool umo_request_cancelled(umo_request *request);

/** Its rows, one behind the other's in the batch's tensors; 1 for a model that does not batch.
 * Threads: any. */
int64_t umo_request_rows(const umo_request *request);

/** Whether the request asks for the output. Threads: any. */
bool umo_request_wants_output(const umo_request *request, size_t output);

/**
 * Opens a response. The model has so many slots for open ones as its parameter `response_slots`
 * says (64); a slot is free again when its response was sent or dropped.
 *
 * @param timeout_ns  How long to wait for a free slot: 0 tries, UINT64_MAX waits for ever.
 *
 * Errors:    BUSY   no slot became free.
 *            INVAL  the request is being finished.
 *            SYSTEM, others  the server gives no response.
 * Ownership: the caller's until umo_response_send() or umo_response_drop().
 * Threads:   any.
 * Cost:      a short lock and a call into the server; no allocation here.
 */
UMO_MUST_USE umo_status umo_response_begin(umo_request *request, uint64_t timeout_ns,
                                           umo_response **out, umo_error *error);

/**
 * Where an output of the response goes, as umo_batch_output(): rows are the request's. Outputs that
 * nobody wants get scratch memory. A response may have any of the model's outputs, or none.
 *
 * All responses of a request have one place in a client's shared memory. It is written in place
 * while no other open response of the request does so, else from scratch memory at
 * umo_response_send(). When the client has read the previous one nobody can know: that is between
 * the client and the model.
 *
 * Errors: as umo_batch_output().
 * Threads: one at a time for a response.
 */
UMO_MUST_USE umo_status umo_response_output(umo_response *response, size_t output, umo_dtype dtype,
                                            const umo_shape *shape, umo_tensor *out,
                                            umo_error *error);

/**
 * Likewise for bytes that lie somewhere already, as umo_batch_output_late(). For UMO_BYTES. They
 * are written at once, and until the response is sent its place is its own.
 *
 * Errors: as umo_batch_output(). BUSY another response of the request has that place.
 */
UMO_MUST_USE umo_status umo_response_output_late(umo_response *response, size_t output,
                                                 umo_dtype dtype, const umo_shape *shape,
                                                 const void *data, size_t size_bytes,
                                                 umo_reason reason, umo_error *error);

/** Fences that a device's work on the response's outputs must wait for. */
const umo_fence_set *umo_response_waits(const umo_response *response);

/** Makes an error of the response; the first counts. The request goes on. */
void umo_response_fail(umo_response *response, umo_status status, const char *text);

/**
 * Sends it and gives the slot back. Waits for done first. What fails on the way is what the client
 * gets.
 *
 * @param done   Completes the writing; {0} when it has completed.
 * @param final  It is the last of its request, which is finished with it.
 *
 * Errors:    BUSY  an earlier response of the request writes in place to the same memory and is not
 *                  sent yet; nothing has happened.
 * Threads:   any.
 */
UMO_MUST_USE umo_status umo_response_send(umo_response *response, umo_fence done, bool final);

/** Gives the slot up, without an answer. done as above. */
void umo_response_drop(umo_response *response, umo_fence done);

/**
 * Finishes a request: its client is told that nothing more comes. That happens when the last of its
 * open responses was sent or dropped, and not before execute has returned. Nothing of the request
 * may be used afterwards, nor its batch, when it was the last of it.
 *
 * @param status  UMO_OK, or an error that the client gets, with text.
 *
 * Threads: any.
 */
void umo_request_finish(umo_request *request, umo_status status, const char *text);

/** Words for the server's log. */
void umo_model_log(const umo_model *model, bool warning, const char *format, ...) UMO_PRINTF(3, 4);

#ifdef __cplusplus
}
#endif

#endif

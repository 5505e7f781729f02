/*
 * The inside of the kit: models, instances, requests and batches. Only files of this folder see
 * Triton's ABI.
 *
 * An instance owns everything that one execution needs and keeps it for the next one: a warm
 * request allocates nothing here.
 */
#ifndef UMO_KIT_KIT_H
#define UMO_KIT_KIT_H

#include "kit/abi/triton_abi.h"

#include <umo/numa.h>
#include <umo/triton.h>

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

typedef struct kit_metrics kit_metrics;
typedef struct kit_streams kit_streams;
typedef struct kit_flight kit_flight;
typedef struct kit_home kit_home;

/* The kinds of the configuration's batch_input (docs/batching.md). */
typedef enum kit_batch_kind {
    KIT_ELEMENT_COUNT,
    KIT_ACCUMULATED_ELEMENT_COUNT,
    KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO,
    KIT_MAX_ELEMENT_COUNT_AS_SHAPE,
    KIT_ITEM_SHAPE,
    KIT_ITEM_SHAPE_FLATTEN,
    KIT_BATCH_KINDS
} kit_batch_kind;

/* An input that the kit makes of another one's shapes. */
typedef struct kit_batch_input {
    size_t input; /* of the model */
    size_t source;
    kit_batch_kind kind;
} kit_batch_input;

struct umo_model {
    TRITONBACKEND_Model *triton;
    void *state; /* the backend's */
    bool started;
    char *name;
    uint64_t version;
    char *folder;
    char *path;
    char *file;
    json_t *config;
    char *config_text;
    char *config_given; /* the text before it was completed; a backend may hold it */
    json_t *options;    /* of the command line */
    int64_t batch_max;
    bool batch_unset;
    bool sequence;
    bool direct;    /* its strategy: a request's position in a batch is its slot */
    bool stateful;  /* some outputs are states */
    bool decoupled; /* requests may have any number of responses */
    umo_unified_config unified;
    umo_io *inputs;
    size_t input_count;
    umo_io *outputs;
    size_t output_count;
    kit_batch_input *batch_inputs;
    size_t batch_input_count;
    size_t *scatter_inputs; /* the source of each scattered output; NULL without any */
    bool uneven;            /* requests that share a batch may have unequal bytes */
    umo_context *context;
    umo_pressure *pressure; /* the context's; NULL when it is off */
    umo_scope *scope;
    uint64_t owner;                    /* tags pool blocks */
    _Atomic uint64_t scratch_bytes[2]; /* that executions took near their thread, and elsewhere */
    _Atomic uint64_t scratch_moves;    /* to another node */
    kit_metrics *metrics;
    kit_streams *streams; /* of a decoupled model, else NULL */
};

/* A range of the server's memory, and of the file behind it: one file may be mapped twice. */
typedef struct kit_extent {
    const char *data;
    size_t size_bytes;
    uint64_t device;
    uint64_t inode; /* 0 for none */
    uint64_t offset_bytes;
} kit_extent;

/*
 * What the kit knows about a piece of the server's memory, and the only way to touch what may be a
 * client's: a client can take its shared memory away at any moment. In a view of ours that ends in
 * zeros and a lost place; elsewhere it would end the server, so there the bytes are copied by calls
 * that cannot fault.
 */
typedef struct kit_place {
    char *data; /* own address, where there is a view */
    umo_view *view;
    bool client_writable; /* shared memory, or nobody can tell */
    bool guarded;         /* may be touched: it is ours, or no client's */
    bool beyond;          /* ends behind the client's region: nothing may be read or written */
    umo_reason why;       /* why it is not guarded */
    kit_extent extent;
} kit_place;

/* One input of one request, read once. */
typedef struct kit_input {
    TRITONBACKEND_Input *triton;
    bool present;
    bool placed; /* place was found, by kit_input_place() */
    umo_dtype dtype;
    umo_shape shape;
    uint64_t size_bytes;
    uint32_t pieces;  /* as the server has them */
    const char *data; /* where all pieces lie in one run, else NULL */
    kit_place place;
} kit_input;

/* One output of one request. */
typedef struct kit_output {
    bool wanted; /* by the client */
    bool kept;   /* by the server, as a state */
    bool placed;
    bool asked; /* the server, for the response's memory: once */
    char *data; /* the response's memory; NULL until it was asked for */
    size_t size_bytes;
    kit_place place; /* by kit_output_place() */
    TRITONBACKEND_State *state;
    char *state_data; /* the state's memory, where the client has the output too */
} kit_output;

typedef struct kit_request {
    TRITONBACKEND_Request *triton;
    TRITONBACKEND_Response *response;
    kit_input *inputs;
    kit_output *outputs;
    int64_t rows;
    umo_error error; /* status UMO_OK while alive */
    bool grouped;
    bool blank;     /* has a row, of zeros, and nobody reads its outputs: an empty slot */
    bool cancelled; /* was seen to be; its error is then answered CANCELLED */
    bool places;    /* some were found, to be released before the response is sent */
} kit_request;

/* One tensor of a batch, in or out, while it is in use. */
typedef struct kit_slot {
    bool used;
    bool late;   /* an output that was delivered after the computation */
    bool staged; /* block is memory of the device's own: bytes go to it and come from it by the
                    device */
    umo_tensor tensor;
    umo_buffer *block; /* scratch from the pool, or NULL */
    umo_buffer *wrap;  /* memory bound where it lies, or NULL */
    umo_view *view;
    umo_access access;
    bool open;
    bool in_place;
    umo_reason reason; /* why it is not in place */
    kit_extent extent; /* of an in-place tensor */
    size_t row_bytes;
    size_t worth;     /* bytes that a run of the batch's requests saves, by kit_order_choose() */
    size_t run_bytes; /* bytes of the tensor, if some order of the requests makes it a run */
} kit_slot;

struct umo_batch {
    umo_instance *instance;
    kit_request **members;
    size_t count;
    int64_t rows;
    bool arrival_order; /* members lie as they came */
    kit_slot *inputs;
    kit_slot *outputs;
    umo_fence_set waits;
    umo_fence done;
    kit_flight *flight; /* of a batch that was taken */
    bool crowded;       /* another response of the request writes to the client's memory */
};

struct umo_instance {
    TRITONBACKEND_ModelInstance *triton;
    umo_model *model;
    char *name;
    void *state;
    bool started;
    umo_device *device;
    umo_device *host;
    umo_side side;
    uint32_t queue;
    umo_pool *scratch; /* UNIFIED memory of the device; the host's for a CPU engine */
    umo_pool *
        staging; /* PRIVATE memory of the device, for the conventional way; NULL for a CPU engine */
    int32_t named_node; /* by the host policy; UMO_NUMA_ANY for none, as everywhere on one node */
    int32_t node;       /* that scratch is on; UMO_NUMA_ANY: wherever it is first touched */
    bool watched;       /* whether scratch is near the thread that executes */
    bool remote;        /* it is not */
    bool follows;       /* scratch goes where that thread goes */
    int32_t away_node;  /* where it was seen last, so many executions in a row */
    uint32_t away;
    kit_home *homes; /* scratch of nodes that it was on before */
    kit_request *requests;
    kit_request **members;
    kit_request **spare; /* room for another order of the members */
    size_t request_capacity;
    umo_batch batch;
    umo_mappings *mappings; /* of the present requests */
    bool costs_known;       /* the device has memory of its own, and this is what its uses cost */
    umo_cost_model costs;
    size_t zero_copy_bytes;   /* less is copied for a device; shared memory, whose wraps are kept */
    size_t import_bytes;      /* the same of memory that is wrapped for one use */
    uint64_t start_ns;        /* of the present execution */
    uint64_t run;             /* its number, while it is recorded */
    const uint32_t *recorder; /* umo_profile_switch() */
};

/* trace.c */
static inline bool kit_recorded(const umo_instance *instance)
{
    return __builtin_expect(__atomic_load_n(instance->recorder, __ATOMIC_RELAXED) != 0, 0);
}
void kit_record_batch(umo_instance *instance, uint32_t count, uint64_t duration_ns);
void kit_record_requests(const umo_instance *instance, uint32_t count, uint64_t duration_ns);
/* One that was taken: before it is released. */
void kit_record_request(const umo_model *model, const kit_request *request, uint64_t run,
                        uint32_t place, uint64_t duration_ns, umo_status status);

/* error.c */
TRITONSERVER_Error *kit_error(umo_status status, const char *text);
TRITONSERVER_Error *kit_error_cancelled(const char *text);
/* Takes over a server error; writes it and returns its status. NULL gives UMO_OK. */
umo_status kit_from_triton(TRITONSERVER_Error *triton, umo_error *error);
umo_status kit_request_fail(kit_request *request, umo_status status, const char *format, ...)
    UMO_PRINTF(3, 4);

/* config.c */
umo_status kit_config_read(umo_model *model, umo_error *error);
/* The unified_memory parameter into model->unified and the patterns of inputs and outputs. */
umo_status kit_config_unified(umo_model *model, umo_error *error);
/* The configuration as the model completed it, for the server. */
umo_status kit_config_complete(umo_model *model, umo_error *error);
void kit_ios_free(umo_io *ios, size_t count);
/* The dims (or reshape) of a tensor's entry. */
umo_status kit_dims_read(const char *name, const json_t *entry, umo_shape *out, umo_error *error);
umo_status kit_io_append(umo_io **ios, size_t *count, const char *name, umo_dtype dtype,
                         const umo_shape *dims, bool optional);

/* metrics.c */
kit_metrics *kit_metrics_create(const umo_model *model);
void kit_metrics_destroy(kit_metrics *metrics);
/* Adds what the model's scope has counted since the last call. */
void kit_metrics_update(kit_metrics *metrics, umo_scope *scope);
/* Requests were refused because memory is short. */
void kit_metrics_refuse(kit_metrics *metrics, uint64_t requests);
/* Brings everything up to date, and returns when to do so again, in nanoseconds. umo's keeper does,
 * unless kit_metrics_period_ns is UINT64_MAX, as in tests. One caller at a time. */
uint64_t kit_metrics_refresh(kit_metrics *metrics);
extern uint64_t kit_metrics_period_ns;

/* model.c */
umo_status kit_model_create(TRITONBACKEND_Model *triton, umo_model **out, umo_error *error);
void kit_model_destroy(umo_model *model);
umo_status kit_instance_create(TRITONBACKEND_ModelInstance *triton, umo_model *model,
                               umo_instance **out, umo_error *error);
void kit_instance_destroy(umo_instance *instance);
umo_status kit_instance_reserve(umo_instance *instance, size_t requests);

/* node.c */
/* Where the instance's memory has to lie: before its backend makes anything. Errors: the host
 * policy names no node that memory can be on. */
umo_status kit_node_find(umo_instance *instance, umo_error *error);
/* One of the instance's pools. Memory of UMO_UNIFIED is on its node. */
umo_status kit_instance_pool(const umo_instance *instance, umo_device *device,
                             umo_storage_mode mode, umo_pool **out, umo_error *error);
/* Before an execution, on its thread. */
void kit_node_look(umo_instance *instance);
static inline void kit_node_follow(umo_instance *instance)
{
    if (__builtin_expect(instance->watched, 0)) {
        kit_node_look(instance);
    }
}
void kit_node_finish(umo_instance *instance);
/* Takes a block of scratch memory. Errors: as umo_pool_alloc(). */
umo_status kit_scratch_take(umo_instance *instance, size_t size_bytes, umo_buffer **out,
                            umo_error *error);

/* request.c */
void kit_request_read(umo_instance *instance, kit_request *request, TRITONBACKEND_Request *triton);
/* Copies an input's bytes to target, piece by piece. */
umo_status kit_input_gather(umo_instance *instance, kit_request *request, kit_input *input,
                            char *target, umo_error *error);
/* Calls visit for every piece of an input, in order. data is good during the call alone if the
 * input's place is not guarded. */
umo_status kit_input_visit(umo_instance *instance, kit_request *request, kit_input *input,
                           umo_status (*visit)(const void *data, size_t size_bytes, void *user),
                           void *user, umo_error *error);

/* place.c */
/* What an empty tensor points to: never read or written, but not NULL for engines that check. */
extern char kit_nothing[64];
/* From how many bytes on the instance's device uses memory where it lies: as the configuration
 * says, or as was measured. */
void kit_thresholds_find(umo_instance *instance);
/* Whether a tensor that is copied anyway is better copied into the device's own memory: by its
 * pattern, or because the conventional way is asked for. */
bool kit_is_staged(const umo_instance *instance, const umo_io *io, size_t size_bytes);
void kit_place_find(umo_instance *instance, const void *data, size_t size_bytes, kit_place *out);
/* Likewise memory of the server's own, which no client can reach: nothing has to be asked. */
void kit_place_servers(const void *data, size_t size_bytes, kit_place *out);
static inline bool kit_io_is_servers(const umo_io *io)
{
    return io->source == UMO_IO_STATE || io->source == UMO_IO_CONTROL;
}
/* Where an input that lies in one run, or an output whose memory was asked for, is to be touched.
 * Found once, held until kit_request_leave(). */
const kit_place *kit_input_place(umo_instance *instance, kit_request *request, kit_input *input);
const kit_place *kit_output_place(umo_instance *instance, kit_request *request, kit_output *output);
/* Copies bytes from or to a place. INVAL: its client has taken the memory away. */
umo_status kit_place_read(const kit_place *place, size_t offset_bytes, void *to, size_t size_bytes,
                          umo_error *error);
umo_status kit_place_write(const kit_place *place, size_t offset_bytes, const void *from,
                           size_t size_bytes, umo_error *error);
/* After the work: fails each request of the batch whose memory was taken away during it. */
void kit_batch_check_places(umo_batch *batch);
/* Lets go of the places of a request; nothing of its memory is touched afterwards. */
void kit_request_leave(const umo_model *model, kit_request *request);
bool kit_extents_overlap(const kit_extent *a, const kit_extent *b);
/* What a range is made of; empty memory is NULL. */
kit_extent kit_extent_find(umo_instance *instance, const void *data, size_t size_bytes);
/* Opens the device bracket of a slot and joins its waits to the batch's. BUSY: another instance
 * uses the memory. */
umo_status kit_slot_open(umo_batch *batch, kit_slot *slot, umo_use use, umo_error *error);
/* Lets go of memory that was bound in place. */
void kit_slot_unbind(kit_slot *slot);
/* Closes the bracket, gives back wrap, view and block. */
void kit_slot_finish(umo_batch *batch, kit_slot *slot, bool succeeded);
/* Binds size_bytes at data to the instance's device. REFUSED with a reason when that cannot be. */
umo_status kit_slot_wrap(umo_batch *batch, kit_slot *slot, const kit_place *place,
                         size_t size_bytes, bool writable, umo_reason *why, umo_error *error);
void kit_batch_wait_for(umo_batch *batch, umo_fence fence);

/* batch_io.c */
/* batch_input and batch_output of the configuration. */
umo_status kit_batch_io_read(umo_model *model, umo_error *error);
/* Whether the requests bring what a batch input is made of. */
bool kit_batch_input_present(const umo_batch *batch, size_t input);
/* Sets model->uneven, once all inputs are known. */
void kit_batch_rules_find(umo_model *model);
/* Fails a request of whose shapes a batch input cannot be made. */
void kit_batch_input_check(const umo_model *model, kit_request *request);
/* Whether a request may share the batch of others, which have *taken_bytes; counts it in. Only
 * where requests are uneven: else a batch's bytes are so many times those of any of them. */
bool kit_batch_has_room(const umo_model *model, const kit_request *request, uint64_t *taken_bytes);
/* Makes a batch input's tensor. */
umo_status kit_batch_input_make(umo_batch *batch, size_t input, kit_slot *slot, umo_error *error);
/* The shape of a request's part of a scattered output. NOT_FOUND: its source is absent. */
umo_status kit_scatter_shape(const umo_model *model, const kit_request *request, size_t output,
                             umo_shape *out);
/* Fails a request whose scattered outputs can have no shape. */
void kit_scatter_check(const umo_model *model, kit_request *request);
size_t kit_scatter_bytes(const umo_model *model, const kit_request *request, size_t output);
/* Bytes of a request's part of an output: whole rows, or what its shape says. */
static inline size_t kit_output_bytes(const umo_model *model, const kit_request *request,
                                      size_t output, size_t row_bytes)
{
    return model->outputs[output].scattered ? kit_scatter_bytes(model, request, output)
                                            : row_bytes * (size_t)request->rows;
}

/* gather.c */
/* Copies an input of all requests, `total` bytes, to target. A request whose memory was taken away
 * or changed fails alone. */
umo_status kit_batch_gather(umo_batch *batch, size_t input, size_t total, char *target,
                            umo_error *error);
/* Looks at a copy of strings again, which were so many in as many bytes, each with its length, when
 * they were checked first. False: they are not any more, and their lengths were replaced by others
 * that are. */
bool kit_strings_mend(char *copy, uint64_t size_bytes, uint64_t count);
/* Copies each request's part of an output into its response, and counts it. */
void kit_batch_scatter(umo_batch *batch, size_t output, const char *source, size_t row_bytes,
                       umo_reason reason, bool own);
void kit_response_write(umo_batch *batch, kit_request *request, size_t output, const void *source,
                        size_t size_bytes, umo_reason reason);

/* order.c */
/* Puts the members of a batch in the order that leaves the most bytes where they lie. True when
 * that is the order of their arrival. */
bool kit_order_choose(umo_batch *batch);
/* How many of a batch's first members to run together: all of them, unless its tensors are so large
 * and have such gaps that one more call of the engine costs less than to gather them. */
size_t kit_order_part(const umo_batch *batch);

/* output.c */
/* Asks for the memory of those outputs whose size is certain before the computation, so that the
 * batch's order can take it into account. */
void kit_outputs_foresee(umo_batch *batch);
/* After the computation: brings every output to its responses. */
umo_status kit_outputs_deliver(umo_batch *batch, umo_error *error);

/* sequence.c */
/* The controls and states of sequence_batching, behind the configured inputs and outputs. */
umo_status kit_sequence_read(umo_model *model, umo_error *error);
/* Is the request the server's own, for an empty slot? Its inputs are memory that nobody wrote. */
umo_status kit_sequence_is_blank(kit_request *request, bool *out, umo_error *error);
/* The server sends the name of a sequence in a buffer of fixed length. */
void kit_sequence_trim_name(kit_input *input);
/* Makes an input of a blank request one of zeros, and shows it piece by piece. */
void kit_sequence_blank(kit_input *input);
/* Gives each request that has failed a row of zeros like the others', so that those behind it stay
 * in their slots. */
void kit_sequence_fill_rows(umo_instance *instance, uint32_t count);
umo_status kit_sequence_visit_blank(const kit_input *input,
                                    umo_status (*visit)(const void *data, size_t size_bytes,
                                                        void *user),
                                    void *user);

/* state.c */
/* A request that was read: which of its outputs the server keeps. */
void kit_states_begin(const umo_model *model, kit_request *request);
/* Asks the server for the memory of a request's next state. */
umo_status kit_state_ask(umo_batch *batch, size_t output, kit_request *request,
                         const umo_shape *shape, size_t size_bytes, umo_error *error);
/* Copies bytes into the memory of a state whose output the client has too, and counts them. */
void kit_state_write(umo_batch *batch, kit_request *request, size_t output, const void *source,
                     size_t size_bytes, umo_reason reason);
/* Likewise each request's rows of an output, where it is a state. */
void kit_states_write(umo_batch *batch, size_t output, const char *source, size_t row_bytes,
                      umo_reason reason);
/* After everything else: what was written becomes the states of those requests that live. The
 * server may use their memory from then on. */
void kit_states_update(umo_batch *batch);

/* streams.c */
umo_status kit_streams_create(umo_model *model, umo_error *error);
void kit_streams_destroy(kit_streams *streams);

/* decoupled.c */
/* execute has returned: the requests of a batch that was taken live on. */
void kit_flight_depart(umo_batch *batch, umo_status status, const umo_error *error);

/* batch.c */
/* Closes brackets, gives back what the batch's tensors hold. */
void kit_batch_slots_finish(umo_batch *batch, bool succeeded);
/* Why the request fails; NULL when it does not. */
TRITONSERVER_Error *kit_request_failure(const kit_request *request);
/* Whether it is cancelled, asked of the server until it is. */
bool kit_request_is_cancelled(kit_request *request);
void kit_execute(umo_instance *instance, TRITONBACKEND_Request **requests, uint32_t count);

uint64_t kit_now_ns(void);

#endif

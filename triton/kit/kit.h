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

#include <umo/triton.h>

#include <jansson.h>
#include <pthread.h>

typedef struct kit_metrics kit_metrics;

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
    umo_unified_config unified;
    umo_io *inputs;
    size_t input_count;
    umo_io *outputs;
    size_t output_count;
    umo_context *context;
    umo_pressure *pressure; /* the context's; NULL when it is off */
    umo_scope *scope;
    uint64_t owner; /* tags pool blocks */
    kit_metrics *metrics;
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
    bool wanted;
    bool placed;
    char *data; /* the response's memory; NULL until it was asked for */
    size_t size_bytes;
    kit_place place; /* by kit_output_place() */
} kit_output;

typedef struct kit_request {
    TRITONBACKEND_Request *triton;
    TRITONBACKEND_Response *response;
    kit_input *inputs;
    kit_output *outputs;
    int64_t rows;
    umo_error error; /* status UMO_OK while alive */
    bool grouped;
    bool places; /* some were found, to be released before the response is sent */
} kit_request;

/* One tensor of a batch, in or out, while it is in use. */
typedef struct kit_slot {
    bool used;
    bool late; /* an output that was delivered after the computation */
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
};

#define KIT_MAPPINGS 4

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
    kit_request *requests;
    kit_request **members;
    size_t request_capacity;
    umo_batch batch;
    umo_mapping mappings[KIT_MAPPINGS]; /* asked of the system for the present requests */
    size_t mapping_count;
    size_t mapping_next;
};

/* error.c */
TRITONSERVER_Error *kit_error(umo_status status, const char *text);
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
umo_status kit_io_append(umo_io **ios, size_t *count, const char *name, umo_dtype dtype,
                         const umo_shape *dims, bool optional);

/* metrics.c */
kit_metrics *kit_metrics_create(const umo_model *model);
void kit_metrics_destroy(kit_metrics *metrics);
/* Adds what the model's scope has counted since the last call. */
void kit_metrics_update(kit_metrics *metrics, umo_scope *scope);

/* model.c */
umo_status kit_model_create(TRITONBACKEND_Model *triton, umo_model **out, umo_error *error);
void kit_model_destroy(umo_model *model);
umo_status kit_instance_create(TRITONBACKEND_ModelInstance *triton, umo_model *model,
                               umo_instance **out, umo_error *error);
void kit_instance_destroy(umo_instance *instance);
umo_status kit_instance_reserve(umo_instance *instance, size_t requests);

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
void kit_place_find(umo_instance *instance, const void *data, size_t size_bytes, kit_place *out);
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

/* output.c */
/* After the computation: brings every output to its responses. */
umo_status kit_outputs_deliver(umo_batch *batch, umo_error *error);

/* batch.c */
void kit_execute(umo_instance *instance, TRITONBACKEND_Request **requests, uint32_t count);

uint64_t kit_now_ns(void);

#endif

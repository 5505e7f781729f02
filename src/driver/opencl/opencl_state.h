/*
 * What the files of the OpenCL driver share: an opened device, its timelines, and the step that
 * puts a command on one.
 *
 * A timeline is an in-order command queue plus a count. A command gets its number and its place in
 * the queue under one short lock, so numbers and order agree; its event waits in a ring until
 * somebody asks. Because the queue is in order, the ring is only ever emptied from the old end, and
 * one number says what has ended.
 */
#ifndef UMO_DRIVER_OPENCL_STATE_H
#define UMO_DRIVER_OPENCL_STATE_H

#include "driver/opencl/opencl_api.h"

#include <umo/driver.h>

#include <pthread.h>
#include <stdatomic.h>

#define UMO_OPENCL_QUEUES 4u

/* Commands of one queue that may be under way; one more waits for the oldest. */
#define UMO_OPENCL_RING 256u

/* What GPUs that share memory want of a wrapped length: one cache line. */
#define UMO_OPENCL_LINE_BYTES 64u

/* Ranges of failed commands that are remembered one by one; older ones merge. */
#define UMO_OPENCL_FAILURES 8u

/* Commands that failed, or were given after one that failed and before anybody could know. */
typedef struct umo_opencl_failure {
    uint64_t first;
    uint64_t last;
} umo_opencl_failure;

typedef struct umo_opencl_queue {
    const umo_opencl_api *api;
    cl_command_queue native;
    uint32_t index;
    pthread_mutex_t lock;   /* given, events, failures; never held while waiting */
    uint64_t given;         /* number of the newest command */
    _Atomic uint64_t ended; /* every command up to this one has ended; written under the lock */
    cl_event events[UMO_OPENCL_RING]; /* of ended + 1 to given, at number modulo the ring's size */
    umo_opencl_failure failures[UMO_OPENCL_FAILURES];
    size_t failure_count;
} umo_opencl_queue;

typedef struct umo_opencl_state {
    const umo_opencl_api *api;
    cl_platform_id platform;
    cl_device_id device;
    cl_context context;
    uint32_t caps;
    uint64_t buffer_max_bytes;
    size_t import_align_bytes;
    size_t import_size_align_bytes;
    size_t origin_align_bytes; /* of a sub-buffer's start */
    uint32_t
        queue_count; /* of those that were made: an open that fails half-way closes only these */
    umo_opencl_queue queues[UMO_OPENCL_QUEUES];
} umo_opencl_state;

/* A command on its way: between begin and end the queue's lock is held and the enqueue call is
 * made. */
typedef struct umo_opencl_command {
    umo_opencl_queue *queue;
    cl_event event;     /* the enqueue call's output */
    cl_uint wait_count; /* the enqueue call's inputs; waits is NULL when there are none, as OpenCL
                           wants it */
    const cl_event *waits;
    cl_event wait_events[UMO_WAITS_MAX];
} umo_opencl_command;

umo_status umo_opencl_queue_init(umo_opencl_queue *queue, const umo_opencl_state *state,
                                 uint32_t index, umo_error *error);

/* Waits for the queue's commands and lets it go. */
void umo_opencl_queue_finish(umo_opencl_queue *queue);

bool umo_opencl_queue_done(umo_opencl_queue *queue, uint64_t value);
umo_status umo_opencl_queue_wait(umo_opencl_queue *queue, uint64_t value, uint64_t timeout_ns);

/*
 * Collects the events to wait for and takes the queue's lock with a free place in the ring. On an
 * error nothing is held. INVAL for a queue or a fence that does not exist, DEVICE when a command
 * that is waited for has failed.
 */
umo_status umo_opencl_command_begin(umo_opencl_state *state, uint32_t queue, const umo_fence *waits,
                                    size_t wait_count, umo_opencl_command *out);

/* Numbers the command if the enqueue call took it (code), gives the lock back and starts the work.
 */
umo_status umo_opencl_command_end(umo_opencl_command *command, cl_int code, umo_fence *out);

/* "CL_OUT_OF_RESOURCES" and the like; "OpenCL error" for a code without a row. */
const char *umo_opencl_code_name(cl_int code);

/* What a code means for a caller. */
umo_status umo_opencl_code_status(cl_int code);

/* Tries out what the opened device can do; fills the state's limits and the info. */
umo_status umo_opencl_facts_read(umo_opencl_state *state, umo_device_info *info, umo_error *error);

/*
 * Prepares UNIFIED memory that is published by mapping; nothing to do on a coherent device.
 * Imported memory is with the host afterwards.
 */
umo_status umo_opencl_publish_init(umo_opencl_state *state, umo_memory *memory, umo_error *error);

/* Takes everything back from the host and waits for it; for memory that was prepared or not. */
void umo_opencl_publish_finish(umo_opencl_state *state, umo_memory *memory);

umo_status umo_opencl_publish(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                              bool writes, size_t offset_bytes, size_t size_bytes,
                              const umo_fence *waits, size_t wait_count, umo_fence *out);

umo_status umo_opencl_program_create(void *opaque, const umo_program_source *source, void **out,
                                     umo_error *error);
void umo_opencl_program_destroy(void *opaque, void *opaque_program);
umo_status umo_opencl_kernel_create(void *opaque, void *opaque_program, const char *name,
                                    void **out, umo_error *error);
void umo_opencl_kernel_destroy(void *opaque, void *opaque_kernel);
umo_status umo_opencl_kernel_launch(void *opaque, uint32_t queue, void *opaque_kernel,
                                    const umo_kernel_arg *args, size_t arg_count,
                                    const umo_grid *grid, const umo_fence *waits, size_t wait_count,
                                    umo_fence *out, umo_error *error);

#endif

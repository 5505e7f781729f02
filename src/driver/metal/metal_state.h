/*
 * What the files of the Metal driver share: an opened device, its timelines, and the step that puts
 * a command on one.
 *
 * A timeline is a command queue, a shared event that carries its count, and a ring with one slot
 * for each command under way. Metal may run the command buffers of one queue side by side, so every
 * command waits for its predecessor's value. And the host may read what a command wrote only when
 * its buffer is completed, which is later than the event: a fence has passed when the completion
 * handler has settled it.
 */
#ifndef UMO_DRIVER_METAL_STATE_H
#define UMO_DRIVER_METAL_STATE_H

#include "driver/metal/metal_api.h"
#include "os/os.h"

#include <umo/driver.h>

#include <pthread.h>
#include <stdatomic.h>

#define UMO_METAL_QUEUES 4u

/* Commands of one queue that may be under way; one more waits for the oldest. */
#define UMO_METAL_RING 256u

/* Ranges of failed commands that are remembered one by one; older ones merge. */
#define UMO_METAL_FAILURES 8u

/* What Metal takes as bytes of an argument (setBytes:length:atIndex:). */
#define UMO_METAL_VALUE_BYTES_MAX 4096u

/* Records of imports that Metal refused: it may still call their deallocators, nobody says. */
#define UMO_METAL_ORPHANS 64u

/* Metal's objects that a command keeps until it has ended. */
#define UMO_METAL_KEPT 2u

typedef struct umo_metal_state umo_metal_state;

/* Work of the host at the end of a command, when all that it waited for has been settled and before
 * anybody hears of it; it may take the time of a copy. */
typedef struct umo_metal_host_step {
    enum {
        UMO_METAL_STEP_NONE = 0,
        UMO_METAL_STEP_COPY,
        UMO_METAL_STEP_POISON
    } kind;
    void *target;
    const void *source;
    size_t size_bytes;
} umo_metal_host_step;

typedef struct umo_metal_wait {
    uint32_t queue;
    uint64_t value;
} umo_metal_wait;

/* A command under way. Written by who gives it, until commit; then by its handler; settled under
 * the device's lock. */
typedef struct umo_metal_command {
    umo_metal_state *state;
    uint32_t queue;
    uint64_t value;
    bool completed;
    umo_status status; /* how it ended: OK, NOMEM or DEVICE */
    umo_metal_host_step step;
    enum {
        UMO_METAL_STEP_WAITS = 0,
        UMO_METAL_STEP_RUNS, /* on some thread, without the lock */
        UMO_METAL_STEP_DONE
    } step_state;
    umo_id kept[UMO_METAL_KEPT]; /* released when it has ended; NULL for none */
    size_t wait_count;           /* of those that had not ended when it was given */
    umo_metal_wait waits[UMO_WAITS_MAX];
} umo_metal_command;

/* Commands that failed, or were given after one that failed and before anybody could know. */
typedef struct umo_metal_failure {
    uint64_t first;
    uint64_t last;
    umo_status status; /* NOMEM where the device ran out of memory, else DEVICE */
} umo_metal_failure;

typedef struct umo_metal_queue {
    umo_id native;
    umo_id event;
    pthread_mutex_t encode; /* one command at a time is made, so that numbers and order agree */
    uint64_t given;         /* the device's lock */
    _Atomic uint64_t
        ended; /* every command up to this one has ended; written under the device's lock */
    umo_metal_failure failures[UMO_METAL_FAILURES];
    size_t failure_count;
    umo_metal_command
        ring[UMO_METAL_RING]; /* of ended + 1 to given, at number modulo the ring's size */
} umo_metal_queue;

/* A heap for small memory: many buffers share its pages. */
typedef struct umo_metal_heap {
    umo_id native;
    size_t live; /* buffers in it */
    struct umo_metal_heap *next;
} umo_metal_heap;

typedef struct umo_metal_residency {
    umo_id set; /* NULL: the device has none, or they are switched off */
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool changed; /* since the last commit of the set */
    bool stopping;
    bool threaded;
    bool resting; /* the thread waits for the next use */
    uint64_t keep_ns;
    _Atomic uint64_t used_ns; /* when the last command was given */
    pthread_t thread;
} umo_metal_residency;

struct umo_metal_state {
    const umo_metal_api *api;
    umo_id device;
    bool unified;
    bool shared_heaps; /* Metal makes heaps of Shared memory on Apple's own GPUs only */
    bool test_mode;
    _Atomic bool lost; /* the device is gone: nothing works any more */
    size_t page_bytes;
    size_t granule_bytes;
    size_t local_max_bytes;
    uint64_t buffer_max_bytes;
    char name[128];
    char cache_dir[512]; /* of compiled kernels; empty for none */
    uint32_t
        queue_count; /* of those that were made: an open that fails half-way closes only these */
    pthread_mutex_t
        lock; /* given, failures, the rings' settling, imports; never held while waiting */
    pthread_cond_t changed;
    umo_metal_queue queues[UMO_METAL_QUEUES];
    struct umo_metal_wrapped *orphans[UMO_METAL_ORPHANS]; /* the device's lock */
    size_t orphan_next;
    pthread_mutex_t heaps_lock;
    umo_metal_heap *heaps[UMO_STORAGE_MODES];
    umo_metal_residency residency;
    pthread_mutex_t copier_lock;
    umo_id copier; /* the pipeline that copies bytes at any offset; made at the first need */
};

/* Every entry that sends messages stands in a pool of its own: a host that is not Cocoa has none.
 */
#define UMO_METAL_POOL_BEGIN(state) void *metal_pool = (state)->api->pool_push()
#define UMO_METAL_POOL_END(state) (state)->api->pool_pop(metal_pool)

/* metal_queue.c */

umo_status umo_metal_queue_init(umo_metal_state *state, uint32_t index, umo_error *error);
/* Waits for the queue's commands. */
void umo_metal_queue_drain(umo_metal_state *state, umo_metal_queue *queue);
/* All queues have been drained: commands of one wait for events of others. */
void umo_metal_queue_finish(umo_metal_state *state, umo_metal_queue *queue);
bool umo_metal_queue_done(umo_metal_state *state, uint32_t queue, uint64_t value);
umo_status umo_metal_queue_wait(umo_metal_state *state, uint32_t index, uint64_t value,
                                uint64_t timeout_ns);

/* A command on its way: between begin and end the queue's encode lock is held and its work is
 * encoded. */
typedef struct umo_metal_encoding {
    umo_metal_state *state;
    umo_metal_queue *queue;
    umo_metal_command *command;
    umo_id buffer;  /* the command buffer */
    umo_id encoder; /* open, or NULL */
    void *pool;
} umo_metal_encoding;

/*
 * On an error nothing is held. INVAL for a queue or a fence that does not exist, DEVICE when a
 * command that is waited for has failed, when the device is lost, or when Metal gives no command
 * buffer.
 */
umo_status umo_metal_command_begin(umo_metal_state *state, uint32_t index, const umo_fence *waits,
                                   size_t wait_count, umo_metal_encoding *out);

/* Opens an encoder; false when Metal gives none. */
bool umo_metal_blit_begin(umo_metal_encoding *encoding);
bool umo_metal_compute_begin(umo_metal_encoding *encoding);

/* Keeps a Metal object, and with it the reference, until the command has ended or was given up. */
void umo_metal_command_keep(umo_metal_encoding *encoding, umo_id object);

/* Numbers and commits the command when status is OK, else drops it. Gives back the lock. */
umo_status umo_metal_command_end(umo_metal_encoding *encoding, umo_status status, umo_fence *out);

/* Queues a step of the host as a command of its own. kept, a Metal object or NULL, is let go when
 * it has ended, or at once on an error. */
umo_status umo_metal_host_step_give(umo_metal_state *state, uint32_t queue,
                                    const umo_metal_host_step *step, umo_id kept,
                                    const umo_fence *waits, size_t wait_count, umo_fence *out);

/* metal_memory.c */

umo_status umo_metal_alloc(void *opaque, size_t size_bytes, umo_storage_mode mode, umo_memory *out,
                           umo_error *error);
void umo_metal_free(void *opaque, umo_memory *memory);
umo_status umo_metal_import(void *opaque, void *data, size_t size_bytes, uint32_t flags,
                            umo_memory *out, umo_reason *out_why, umo_error *error);
umo_status umo_metal_purgeable(void *opaque, umo_memory *memory, umo_purgeable want,
                               bool *out_lost);
/* What the addresses of small memory are multiples of, by Metal's word. */
size_t umo_metal_heap_align(const umo_metal_state *state);
/* All memory was freed before. */
void umo_metal_heaps_finish(umo_metal_state *state);
void umo_metal_imports_finish(umo_metal_state *state);

/* copy.metal, as the build puts it in; NUL-terminated. */
extern const char umo_metal_copy_text[];

/* metal_move.c */

umo_status umo_metal_transfer(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                              size_t offset_bytes, size_t size_bytes, void *host,
                              const umo_fence *waits, size_t wait_count, umo_fence *out);
umo_status umo_metal_copy(void *opaque, uint32_t queue, const umo_memory *source,
                          size_t source_offset_bytes, umo_memory *target,
                          size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                          size_t wait_count, umo_fence *out);
umo_status umo_metal_poison(void *opaque, uint32_t queue, umo_memory *memory, umo_side side,
                            size_t offset_bytes, size_t size_bytes, void *host,
                            const umo_fence *waits, size_t wait_count, umo_fence *out);

/* metal_residency.c */

void umo_metal_residency_init(umo_metal_state *state);
/* Makes the set, where the device has one and it is wanted; the queues are there. */
void umo_metal_residency_open(umo_metal_state *state);
/* Ends the thread. True when there is a set and no command was ever given: such a set leaks when
 * its process never ran any work on the GPU. */
bool umo_metal_residency_stop(umo_metal_state *state);
void umo_metal_residency_finish(umo_metal_state *state);
/* allocation: a buffer or a heap. Removal holds at return. */
void umo_metal_residency_add(umo_metal_state *state, umo_id allocation);
void umo_metal_residency_remove(umo_metal_state *state, umo_id allocation);
/* Before each command: what was added takes effect, and the device's memory is kept wired. */
void umo_metal_residency_use(umo_metal_state *state);

/* metal_program.c */

umo_status umo_metal_program_create(void *opaque, const umo_program_source *source, void **out,
                                    umo_error *error);
void umo_metal_program_destroy(void *opaque, void *opaque_program);
umo_status umo_metal_kernel_create(void *opaque, void *opaque_program, const char *name, void **out,
                                   umo_error *error);
void umo_metal_kernel_destroy(void *opaque, void *opaque_kernel);
umo_status umo_metal_kernel_launch(void *opaque, uint32_t queue, void *opaque_kernel,
                                   const umo_kernel_arg *args, size_t arg_count,
                                   const umo_grid *grid, const umo_fence *waits, size_t wait_count,
                                   umo_fence *out, umo_error *error);
/* One function of a text, without reflection or cache; NULL when Metal refuses. */
umo_id umo_metal_pipeline_simple(umo_metal_state *state, const char *text, const char *function);
/* The first lines of an NSError's description, in one line. */
void umo_metal_error_text(const umo_metal_api *api, umo_id error, char *out, size_t out_bytes);

/* metal_facts.c */

/* Reads what the device is and can do; fills the state's limits and the info. */
umo_status umo_metal_facts_read(umo_metal_state *state, umo_device_info *info, umo_error *error);

#endif

/*
 * The reference driver: the CPU's own memory as a device.
 *
 * UNIFIED is one allocation. MANAGED and PRIVATE keep a hidden second copy, so that a layer above
 * that forgets a transfer computes with the wrong bytes. With a delay, commands run later on a
 * worker thread, and among the queues' first commands whose waits have passed the *newest* runs
 * first: a missing wait, between host and queue or between two queues, shows as wrong data instead
 * of passing by luck.
 */
#include "base/size.h"
#include "driver/drivers.h"
#include "os/os.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_QUEUES 4u
#define POISON_BYTE 0xDB

typedef enum command_kind {
    COMMAND_COPY,
    COMMAND_FILL,
    COMMAND_KERNEL
} command_kind;

typedef struct command {
    struct command *next;
    command_kind kind;
    uint64_t value;
    uint64_t order; /* of submission, over all queues */
    uint64_t due_ns;
    size_t wait_count;
    umo_fence waits[UMO_WAITS_MAX];
    void *target;
    const void *source;
    size_t size_bytes;
    void (*run)(void *const *args, const size_t global[3]);
    void *args[UMO_KERNEL_ARGS_MAX];
    size_t global[3];
    unsigned char values[]; /* copies of the launch's value arguments */
} command;

typedef struct host_queue {
    uint64_t given;
    uint64_t done;
    command *first;
    command *last;
} host_queue;

typedef struct host_state {
    pthread_mutex_t lock;
    pthread_cond_t work;
    pthread_cond_t progress;
    pthread_t worker;
    bool threaded;
    bool stopping;
    bool test_mode;
    uint64_t delay_ns;
    uint64_t order;
    host_queue queues[HOST_QUEUES];
} host_state;

static void command_run(const command *c)
{
    switch (c->kind) {
    case COMMAND_COPY:
        memcpy(c->target, c->source, c->size_bytes);
        break;
    case COMMAND_FILL:
        memset(c->target, POISON_BYTE, c->size_bytes);
        break;
    case COMMAND_KERNEL:
        c->run(c->args, c->global);
        break;
    }
}

static bool waits_passed(const host_state *state, const command *c)
{
    for (size_t i = 0; i < c->wait_count; i++) {
        if (state->queues[c->waits[i].queue].done < c->waits[i].value) {
            return false;
        }
    }
    return true;
}

/* The newest runnable first command of a queue, or NULL; *soonest is when the next one becomes due.
 */
static host_queue *queue_pick(host_state *state, uint64_t now, uint64_t *soonest)
{
    host_queue *picked = NULL;
    *soonest = UINT64_MAX;
    for (uint32_t q = 0; q < HOST_QUEUES; q++) {
        const command *c = state->queues[q].first;
        if (c == NULL || !waits_passed(state, c)) {
            continue;
        }
        if (c->due_ns > now && !state->stopping) {
            *soonest = c->due_ns < *soonest ? c->due_ns : *soonest;
        } else if (picked == NULL || c->order > picked->first->order) {
            picked = &state->queues[q];
        }
    }
    return picked;
}

static bool queues_empty(const host_state *state)
{
    for (uint32_t q = 0; q < HOST_QUEUES; q++) {
        if (state->queues[q].first != NULL) {
            return false;
        }
    }
    return true;
}

static void *worker_main(void *argument)
{
    host_state *state = argument;
    (void)pthread_mutex_lock(&state->lock);
    for (;;) {
        uint64_t soonest;
        host_queue *queue = queue_pick(state, umo_os_now_ns(), &soonest);
        if (queue == NULL) {
            if (state->stopping && queues_empty(state)) {
                break;
            }
            (void)umo_os_condition_wait_until(&state->work, &state->lock, soonest);
            continue;
        }
        command *c = queue->first;
        queue->first = c->next;
        if (queue->first == NULL) {
            queue->last = NULL;
        }
        (void)pthread_mutex_unlock(&state->lock);
        command_run(c);
        (void)pthread_mutex_lock(&state->lock);
        queue->done = c->value;
        (void)pthread_cond_broadcast(&state->progress);
        free(c);
    }
    (void)pthread_mutex_unlock(&state->lock);
    return NULL;
}

static umo_status host_count(uint32_t *out, umo_error *error)
{
    (void)error;
    *out = 1;
    return UMO_OK;
}

static umo_status host_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                            umo_device_info *info, umo_error *error)
{
    (void)ordinal;
    host_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the host device");
    }
    (void)pthread_mutex_init(&state->lock, NULL);
    umo_os_condition_init(&state->work);
    umo_os_condition_init(&state->progress);
    state->delay_ns = options->delay_ns;
    state->test_mode = options->test_mode;
    if (state->delay_ns > 0) {
        int failed = pthread_create(&state->worker, NULL, worker_main, state);
        if (failed != 0) {
            free(state);
            return umo_error_set(error, UMO_E_SYSTEM, failed, "no thread for the host device");
        }
        state->threaded = true;
    }
    *info = (umo_device_info){
        .driver = "host",
        .name = "host memory",
        .caps = UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_IMPORT_READ |
                UMO_CAP_IMPORT_WRITE | UMO_CAP_COHERENT | UMO_CAP_KERNELS | UMO_CAP_HOST_PROCESSOR |
                (state->threaded ? UMO_CAP_ASYNC : 0u) | (state->test_mode ? UMO_CAP_POISON : 0u),
        .queues = HOST_QUEUES,
        .import_align_bytes = 1,
        .import_size_align_bytes = 1,
        .write_granule_bytes = 1,
        .unified = true,
        .alloc_align_bytes = umo_os_page_bytes(),
        .buffer_max_bytes = (uint64_t)1 << 46,
        .memory_bytes = umo_os_memory_bytes(),
    };
    *out_state = state;
    return UMO_OK;
}

static void host_close(void *opaque)
{
    host_state *state = opaque;
    if (state->threaded) {
        (void)pthread_mutex_lock(&state->lock);
        state->stopping = true;
        (void)pthread_cond_signal(&state->work);
        (void)pthread_mutex_unlock(&state->lock);
        (void)pthread_join(state->worker, NULL);
    }
    umo_os_condition_finish(&state->work);
    umo_os_condition_finish(&state->progress);
    (void)pthread_mutex_destroy(&state->lock);
    free(state);
}

static umo_status host_alloc(void *opaque, size_t size_bytes, umo_storage_mode mode,
                             umo_memory *out, umo_error *error)
{
    const host_state *state = opaque;
    void *native = umo_os_pages_alloc(size_bytes);
    void *host = native;
    if (native != NULL && mode == UMO_MANAGED) {
        host = umo_os_pages_alloc(size_bytes);
    }
    if (host == NULL) {
        umo_os_pages_free(native, size_bytes);
        return umo_error_set(error, UMO_E_NOMEM, ENOMEM, "no memory for %zu bytes", size_bytes);
    }
    if (state->test_mode) {
        memset(native, POISON_BYTE, size_bytes);
        if (host != native) {
            memset(host, POISON_BYTE, size_bytes);
        }
    }
    *out = (umo_memory){
        .host = mode == UMO_PRIVATE ? NULL : host,
        .native = native,
        .size_bytes = size_bytes,
        .mode = mode,
        .cleared = true,
    };
    return UMO_OK;
}

static void host_free(void *opaque, umo_memory *memory)
{
    (void)opaque;
    if (memory->imported) {
        return;
    }
    if (memory->host != NULL && memory->host != memory->native) {
        umo_os_pages_free(memory->host, memory->size_bytes);
    }
    umo_os_pages_free(memory->native, memory->size_bytes);
}

static umo_status host_import(void *opaque, void *data, size_t size_bytes, uint32_t flags,
                              umo_memory *out, umo_reason *out_why, umo_error *error)
{
    (void)out_why;
    (void)opaque;
    (void)flags;
    (void)error;
    *out = (umo_memory){
        .host = data,
        .native = data,
        .size_bytes = size_bytes,
        .mode = UMO_UNIFIED,
        .imported = true,
    };
    return UMO_OK;
}

/* Takes over c: runs it now, or queues it for the worker. */
static void host_submit(host_state *state, uint32_t queue_index, command *c, const umo_fence *waits,
                        size_t wait_count, umo_fence *out)
{
    host_queue *queue = &state->queues[queue_index];
    if (!state->threaded) {
        /* Every earlier command has completed, so all waits have passed, and the fence has too. */
        command_run(c);
        free(c);
        *out = (umo_fence){.queue = queue_index};
        return;
    }
    c->wait_count = wait_count;
    if (wait_count > 0) {
        memcpy(c->waits, waits, wait_count * sizeof *waits);
    }
    (void)pthread_mutex_lock(&state->lock);
    c->order = ++state->order;
    c->value = ++queue->given;
    c->due_ns = umo_os_now_ns() + state->delay_ns;
    *out = (umo_fence){.queue = queue_index, .value = c->value};
    if (queue->last != NULL) {
        queue->last->next = c;
    } else {
        queue->first = c;
    }
    queue->last = c;
    (void)pthread_cond_signal(&state->work);
    (void)pthread_mutex_unlock(&state->lock);
}

static umo_status submit_bytes(void *opaque, uint32_t queue, command_kind kind, void *target,
                               const void *source, size_t size_bytes, const umo_fence *waits,
                               size_t wait_count, umo_fence *out)
{
    command *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return UMO_E_NOMEM;
    }
    c->kind = kind;
    c->target = target;
    c->source = source;
    c->size_bytes = size_bytes;
    host_submit(opaque, queue, c, waits, wait_count, out);
    return UMO_OK;
}

static void *device_byte(const umo_memory *memory, size_t offset_bytes)
{
    return (char *)memory->native + memory->offset_bytes + offset_bytes;
}

static umo_status host_transfer(void *opaque, uint32_t queue, umo_memory *memory, umo_side to,
                                size_t offset_bytes, size_t size_bytes, void *host,
                                const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    void *device = device_byte(memory, offset_bytes);
    bool up = to == UMO_SIDE_DEVICE;
    return submit_bytes(opaque, queue, COMMAND_COPY, up ? device : host, up ? host : device,
                        size_bytes, waits, wait_count, out);
}

static umo_status host_copy(void *opaque, uint32_t queue, const umo_memory *source,
                            size_t source_offset_bytes, umo_memory *target,
                            size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                            size_t wait_count, umo_fence *out)
{
    return submit_bytes(opaque, queue, COMMAND_COPY, device_byte(target, target_offset_bytes),
                        device_byte(source, source_offset_bytes), size_bytes, waits, wait_count,
                        out);
}

static umo_status host_poison(void *opaque, uint32_t queue, umo_memory *memory, umo_side side,
                              size_t offset_bytes, size_t size_bytes, void *host,
                              const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    void *stale = side == UMO_SIDE_HOST ? host : device_byte(memory, offset_bytes);
    return submit_bytes(opaque, queue, COMMAND_FILL, stale, NULL, size_bytes, waits, wait_count,
                        out);
}

static bool host_fence_done(void *opaque, uint32_t queue, uint64_t value)
{
    host_state *state = opaque;
    (void)pthread_mutex_lock(&state->lock);
    bool done = state->queues[queue].done >= value;
    (void)pthread_mutex_unlock(&state->lock);
    return done;
}

static umo_status host_fence_wait(void *opaque, uint32_t queue, uint64_t value, uint64_t timeout_ns)
{
    host_state *state = opaque;
    uint64_t until = UINT64_MAX;
    if (timeout_ns != UINT64_MAX && __builtin_add_overflow(umo_os_now_ns(), timeout_ns, &until)) {
        until = UINT64_MAX;
    }
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&state->lock);
    while (state->queues[queue].done < value && status == UMO_OK) {
        if (!umo_os_condition_wait_until(&state->progress, &state->lock, until) &&
            state->queues[queue].done < value) {
            status = UMO_E_TIMEOUT;
        }
    }
    (void)pthread_mutex_unlock(&state->lock);
    return status;
}

static umo_status host_program_create(void *opaque, const umo_program_source *source, void **out,
                                      umo_error *error)
{
    (void)opaque;
    if (source->kind != UMO_PROGRAM_HOST || source->text == NULL) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the host driver compiles nothing: it takes a table of C functions");
    }
    *out = (void *)(uintptr_t)source->text;
    return UMO_OK;
}

static void host_program_destroy(void *opaque, void *program)
{
    (void)opaque;
    (void)program;
}

static umo_status host_kernel_create(void *opaque, void *program, const char *name, void **out,
                                     umo_error *error)
{
    (void)opaque;
    for (umo_host_kernel *kernel = program; kernel->name != NULL; kernel++) {
        if (strcmp(kernel->name, name) == 0) {
            *out = kernel;
            return UMO_OK;
        }
    }
    return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the program has no kernel '%s'", name);
}

static void host_kernel_destroy(void *opaque, void *kernel)
{
    (void)opaque;
    (void)kernel;
}

/* Adds the bytes of an argument's own storage, aligned for any type. False on overflow. */
static bool value_add(const umo_kernel_arg *arg, size_t *total_bytes)
{
    size_t size_bytes = 0;
    return arg->kind == UMO_ARG_MEMORY ||
           (umo_round_up(arg->size_bytes, _Alignof(max_align_t), &size_bytes) &&
            !__builtin_add_overflow(*total_bytes, size_bytes, total_bytes));
}

static umo_status host_kernel_launch(void *opaque, uint32_t queue, void *opaque_kernel,
                                     const umo_kernel_arg *args, size_t arg_count,
                                     const umo_grid *grid, const umo_fence *waits,
                                     size_t wait_count, umo_fence *out, umo_error *error)
{
    const umo_host_kernel *kernel = opaque_kernel;
    size_t values = 0;
    for (size_t i = 0; i < arg_count; i++) {
        if ((args[i].kind == UMO_ARG_MEMORY && args[i].memory == NULL) ||
            (args[i].kind == UMO_ARG_VALUE && args[i].value == NULL)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': argument %zu is empty",
                                 kernel->name, i);
        }
        if (!value_add(&args[i], &values)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': argument %zu is too long",
                                 kernel->name, i);
        }
    }
    size_t whole;
    command *c = NULL;
    if (!__builtin_add_overflow(values, sizeof *c + _Alignof(max_align_t), &whole)) {
        c = calloc(1, whole);
    }
    if (c == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a launch");
    }
    c->kind = COMMAND_KERNEL;
    c->run = kernel->run;
    uintptr_t align = _Alignof(max_align_t);
    unsigned char *first = (unsigned char *)(((uintptr_t)c->values + align - 1) & ~(align - 1));
    size_t used = 0;
    for (size_t i = 0; i < arg_count; i++) {
        if (args[i].kind == UMO_ARG_MEMORY) {
            c->args[i] = device_byte(args[i].memory, args[i].offset_bytes);
            continue;
        }
        c->args[i] = first + used;
        if (args[i].kind == UMO_ARG_VALUE) {
            memcpy(c->args[i], args[i].value, args[i].size_bytes);
        }
        (void)value_add(&args[i], &used);
    }
    for (uint32_t d = 0; d < 3; d++) {
        c->global[d] = d < grid->dimensions ? grid->global[d] : 1;
    }
    host_submit(opaque, queue, c, waits, wait_count, out);
    return UMO_OK;
}

const umo_driver umo_driver_host = {
    .abi = UMO_DRIVER_ABI,
    .size_bytes = sizeof(umo_driver),
    .name = "host",
    .count = host_count,
    .open = host_open,
    .close = host_close,
    .alloc = host_alloc,
    .free = host_free,
    .import = host_import,
    .transfer = host_transfer,
    .copy = host_copy,
    .fence_done = host_fence_done,
    .fence_wait = host_fence_wait,
    .program_create = host_program_create,
    .program_destroy = host_program_destroy,
    .kernel_create = host_kernel_create,
    .kernel_destroy = host_kernel_destroy,
    .kernel_launch = host_kernel_launch,
    .poison = host_poison,
};

/*
 * The worker thread that stands for the GPU. Command buffers of one queue or of several may overlap
 * on a real device unless events or hazard tracking order them; here, of those that may run, the
 * newest runs first, so that a missing wait shows as wrong data.
 */
#include "fake.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ERROR_INTERNAL 1
#define ERROR_INVALID_RESOURCE 9
#define ERROR_DEVICE_REMOVED 11

pthread_mutex_t fake_gpu_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_t worker;

/* All under the lock. */
static fake_command *pending; /* oldest first */
static bool busy;             /* the worker is outside of the lock with a command buffer */
static bool paused;
static bool flushing; /* what cannot run ends with an error */
static uint64_t runs;

uint64_t fake_now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void fake_gpu_wake(void)
{
    (void)pthread_cond_broadcast(&changed);
}

static void *worker_run(void *unused);

static void worker_start(void)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0 ||
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) != 0 ||
        pthread_cond_init(&changed, &attributes) != 0 ||
        pthread_create(&worker, NULL, worker_run, NULL) != 0) {
        abort();
    }
    (void)pthread_condattr_destroy(&attributes);
    (void)pthread_detach(worker);
}

void fake_gpu_wait_change(uint64_t until_ns)
{
    (void)pthread_once(&once, worker_start);
    if (until_ns == UINT64_MAX) {
        (void)pthread_cond_wait(&changed, &fake_gpu_lock);
        return;
    }
    struct timespec until = {.tv_sec = (time_t)(until_ns / 1000000000u),
                             .tv_nsec = (long)(until_ns % 1000000000u)};
    (void)pthread_cond_timedwait(&changed, &fake_gpu_lock, &until);
}

void fake_gpu_nudge(void)
{
    (void)pthread_once(&once, worker_start);
    (void)pthread_mutex_lock(&fake_gpu_lock);
    fake_gpu_wake();
    (void)pthread_mutex_unlock(&fake_gpu_lock);
}

/* ---- running one command ---- */

static void dispatch_run(const fake_op *op)
{
    const fake_pipeline *pipeline = op->as.dispatch.pipeline;
    void *args[FAKE_BINDINGS_MAX] = {NULL};
    void *scratch[FAKE_BINDINGS_MAX] = {NULL};
    for (size_t i = 0; i < pipeline->signature.count; i++) {
        const fake_argument *argument = &op->as.dispatch.arguments[i];
        if (argument->buffer != NULL) {
            args[i] = argument->buffer->gpu + argument->offset;
        } else if (argument->bytes != NULL) {
            args[i] = argument->bytes;
        } else if (argument->length > 0) {
            scratch[i] = malloc(argument->length);
            if (scratch[i] == NULL) {
                abort();
            }
            memset(scratch[i], 0x5c, argument->length);
            args[i] = scratch[i];
        }
    }
    pipeline->kernel.run(args, op->as.dispatch.global);
    for (size_t i = 0; i < pipeline->signature.count; i++) {
        free(scratch[i]);
    }
}

static bool op_lost(const fake_op *op)
{
    if (op->kind != FAKE_OP_DISPATCH) {
        return (op->as.blit.from != NULL && fake_buffer_lost(op->as.blit.from)) ||
               (op->as.blit.to != NULL && fake_buffer_lost(op->as.blit.to));
    }
    for (size_t i = 0; i < op->as.dispatch.pipeline->signature.count; i++) {
        const fake_buffer *buffer = op->as.dispatch.arguments[i].buffer;
        if (buffer != NULL && fake_buffer_lost(buffer)) {
            return true;
        }
    }
    return false;
}

/* The error to end with, or 0. */
static int64_t op_run(const fake_op *op)
{
    if (op_lost(op)) {
        return ERROR_INVALID_RESOURCE;
    }
    if (op->kind == FAKE_OP_COPY) {
        memmove(op->as.blit.to->gpu + op->as.blit.to_offset,
                op->as.blit.from->gpu + op->as.blit.from_offset, op->as.blit.size);
    } else if (op->kind == FAKE_OP_FILL) {
        memset(op->as.blit.to->gpu + op->as.blit.to_offset, op->as.blit.value, op->as.blit.size);
    } else if (op->kind == FAKE_OP_SYNCHRONIZE) {
        if (op->as.blit.to->host != op->as.blit.to->gpu) {
            memcpy(op->as.blit.to->host, op->as.blit.to->gpu, op->as.blit.to->length);
        }
    } else {
        dispatch_run(op);
    }
    return 0;
}

/* ---- ending ---- */

static const char *error_words(int64_t code)
{
    switch (code) {
    case 2:
        return "Caused GPU Timeout Error";
    case 3:
        return "Caused GPU Address Fault Error";
    case 8:
        return "Insufficient Memory";
    case ERROR_INVALID_RESOURCE:
        return "Invalid Resource";
    case ERROR_DEVICE_REMOVED:
        return "Device Removed";
    default:
        return "Internal Error";
    }
}

static void handlers_call(fake_command *command)
{
    void *pool = objc_autoreleasePoolPush();
    for (size_t i = 0; i < command->handler_count; i++) {
        void (*invoke)(fake_block *, id) = (void (*)(fake_block *, id))command->handlers[i]->invoke;
        invoke(command->handlers[i], command);
        _Block_release(command->handlers[i]);
    }
    objc_autoreleasePoolPop(pool);
}

/* Under the lock, which it leaves and takes again. */
static void command_end(fake_command *command, int64_t code)
{
    fake_command **at = &pending;
    while (*at != command) {
        at = &(*at)->next;
    }
    *at = command->next;
    runs++; /* before anybody hears of it */
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    if (code != 0) {
        command->error = fake_error("MTLCommandBufferErrorDomain", code, "%s (%08" PRIx64 ":fake)",
                                    error_words(code), (uint64_t)code);
    }
    for (size_t i = 0; !command->retains && i < command->reference_count; i++) {
        fake_uses_end(command->references[i].object);
    }
    atomic_store_explicit(&command->status, code == 0 ? FAKE_COMPLETED : FAKE_ERROR,
                          memory_order_release);
    handlers_call(command);
    for (size_t i = 0; command->retains && i < command->reference_count; i++) {
        objc_release(command->references[i].object);
    }
    (void)pthread_mutex_lock(&fake_gpu_lock);
    command->ended = true;
    command->queue->open--;
    command->queue->committed--;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    objc_release(command);
    (void)pthread_mutex_lock(&fake_gpu_lock);
}

/* ---- choosing ---- */

static bool op_waits(const fake_op *op)
{
    return op != NULL && op->kind == FAKE_OP_WAIT &&
           atomic_load_explicit(&op->as.event.event->value, memory_order_relaxed) <
               op->as.event.value;
}

static bool conflict(const fake_command *one, const fake_command *two)
{
    for (size_t i = 0; i < one->reference_count; i++) {
        const fake_reference *a = &one->references[i];
        for (size_t j = 0; a->tracked && j < two->reference_count; j++) {
            const fake_reference *b = &two->references[j];
            if (a->object == b->object && (a->writes || b->writes)) {
                return true;
            }
        }
    }
    return false;
}

static bool is_behind(const fake_command *command)
{
    for (const fake_command *at = pending; command->tracked && at != command; at = at->next) {
        if (at->tracked && conflict(at, command)) {
            return true;
        }
    }
    return false;
}

static bool device_lost(void)
{
    return (atomic_load(&fake_modes) & FAKE_METAL_DEVICE_LOST) != 0;
}

/* NULL: none can run. out_next gets the time when one may be able to. */
static fake_command *command_choose(uint64_t now_ns, uint64_t *out_next)
{
    fake_command *chosen = NULL;
    *out_next = UINT64_MAX;
    for (fake_command *at = pending; at != NULL && (!paused || flushing); at = at->next) {
        if (flushing) {
            return at;
        }
        if (at->ready_ns > now_ns) {
            *out_next = at->ready_ns < *out_next ? at->ready_ns : *out_next;
            continue;
        }
        if (!device_lost() && (op_waits(at->cursor) || is_behind(at))) {
            continue;
        }
        chosen = at;
        if (fake_options.in_order) {
            break;
        }
    }
    return chosen;
}

/* Runs as far as it can. */
static void command_run(fake_command *command)
{
    atomic_store(&command->status, FAKE_SCHEDULED);
    int64_t code = device_lost() ? ERROR_DEVICE_REMOVED : 0;
    while (code == 0 && command->cursor != NULL) {
        fake_op *op = command->cursor;
        if (op->kind == FAKE_OP_WAIT) {
            if (op_waits(op)) {
                if (!flushing) {
                    return;
                }
                code = ERROR_INTERNAL;
            }
        } else if (command->inject != 0) {
            code = command->inject;
        } else if (op->kind == FAKE_OP_SIGNAL) {
            fake_event_raise(op->as.event.event, op->as.event.value);
        } else {
            (void)pthread_mutex_unlock(&fake_gpu_lock);
            code = op_run(op);
            (void)pthread_mutex_lock(&fake_gpu_lock);
        }
        command->cursor = op->next;
    }
    command_end(command, code == 0 ? command->inject : code);
}

static void *worker_run(void *unused)
{
    (void)unused;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    for (;;) {
        uint64_t now_ns = fake_now_ns();
        uint64_t late_ns = fake_late_next();
        if (late_ns != 0 && late_ns <= now_ns) {
            busy = true;
            (void)pthread_mutex_unlock(&fake_gpu_lock);
            (void)fake_late_run(now_ns, false);
            (void)pthread_mutex_lock(&fake_gpu_lock);
            busy = false;
            fake_gpu_wake();
            continue;
        }
        uint64_t next_ns;
        fake_command *chosen = command_choose(now_ns, &next_ns);
        if (chosen != NULL) {
            busy = true;
            command_run(chosen);
            busy = false;
            fake_gpu_wake();
            continue;
        }
        if (late_ns != 0 && late_ns < next_ns) {
            next_ns = late_ns;
        }
        fake_gpu_wait_change(next_ns);
    }
    return NULL;
}

/* ---- from outside ---- */

/* A command buffer of the same queue that waits for what this one signals would never start this
 * one: a queue starts its command buffers in order. A wait for a smaller value is somebody else's
 * to end. */
static bool signals_behind_wait(const fake_command *command)
{
    for (const fake_op *op = command->first; op != NULL; op = op->next) {
        if (op->kind != FAKE_OP_SIGNAL) {
            continue;
        }
        for (const fake_command *at = pending; at != NULL; at = at->next) {
            for (const fake_op *wait = at->cursor; at->queue == command->queue && wait != NULL;
                 wait = wait->next) {
                if (op_waits(wait) && wait->as.event.event == op->as.event.event &&
                    wait->as.event.value == op->as.event.value) {
                    return true;
                }
            }
        }
    }
    return false;
}

void fake_gpu_submit(fake_command *command)
{
    (void)pthread_once(&once, worker_start);
    (void)objc_retain(command);
    command->ready_ns = fake_options.delay_ns == 0 ? 0 : fake_now_ns() + fake_options.delay_ns;
    command->cursor = command->first;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    bool stuck = signals_behind_wait(command);
    atomic_store(&command->status, FAKE_COMMITTED);
    fake_command **at = &pending;
    while (*at != NULL) {
        at = &(*at)->next;
    }
    *at = command;
    command->queue->committed++;
    fake_gpu_wake();
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    if (stuck) {
        fake_violate("signal_behind_wait",
                     "an earlier command buffer of the queue waits for what this one signals");
    }
}

void fake_gpu_wait_ended(fake_command *command)
{
    (void)pthread_mutex_lock(&fake_gpu_lock);
    while (!command->ended) {
        fake_gpu_wait_change(UINT64_MAX);
    }
    (void)pthread_mutex_unlock(&fake_gpu_lock);
}

static bool can_go_on(void)
{
    uint64_t next_ns;
    return busy || command_choose(fake_now_ns(), &next_ns) != NULL || next_ns != UINT64_MAX;
}

bool fake_metal_idle(void)
{
    (void)pthread_once(&once, worker_start);
    (void)pthread_mutex_lock(&fake_gpu_lock);
    while (can_go_on()) {
        fake_gpu_wait_change(UINT64_MAX);
    }
    bool all = pending == NULL;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    return all;
}

uint32_t fake_metal_pending(void)
{
    uint32_t count = 0;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    for (const fake_command *at = pending; at != NULL; at = at->next) {
        count++;
    }
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    return count;
}

void fake_metal_pause(void)
{
    (void)pthread_once(&once, worker_start);
    (void)pthread_mutex_lock(&fake_gpu_lock);
    paused = true;
    while (busy && !pthread_equal(pthread_self(), worker)) {
        fake_gpu_wait_change(UINT64_MAX);
    }
    (void)pthread_mutex_unlock(&fake_gpu_lock);
}

void fake_metal_resume(void)
{
    (void)pthread_mutex_lock(&fake_gpu_lock);
    paused = false;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    fake_gpu_nudge();
}

void fake_metal_set_delay(uint64_t ns)
{
    fake_options.delay_ns = ns;
}

void fake_gpu_reset(void)
{
    fake_metal_resume();
    (void)fake_metal_idle();
    (void)pthread_mutex_lock(&fake_gpu_lock);
    flushing = true;
    fake_gpu_wake();
    while (pending != NULL || busy) {
        fake_gpu_wait_change(UINT64_MAX);
    }
    flushing = false;
    runs = 0;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
}

uint64_t fake_gpu_runs(void)
{
    (void)pthread_mutex_lock(&fake_gpu_lock);
    uint64_t count = runs;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    return count;
}

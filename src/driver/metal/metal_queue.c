/*
 * Timelines of the Metal driver.
 *
 * Commands end in any order and on Metal's threads; they are *settled* in order, and only when
 * everything they waited for has been settled too. That is where a failure travels: a command that
 * ran well on bytes that a failed one was to write has failed as well. A command that failed never
 * signalled its event, so settling it does, or what waits for it would wait for ever. Source for
 * what a block and its caller owe each other: "Block Implementation Specification" (Clang).
 */
#include "driver/metal/metal_state.h"

#include <string.h>

static uint64_t queue_ended(const umo_metal_queue *queue)
{
    return atomic_load_explicit(&queue->ended, memory_order_acquire);
}

static umo_metal_command *queue_slot(umo_metal_queue *queue, uint64_t value)
{
    return &queue->ring[value % UMO_METAL_RING];
}

umo_status umo_metal_queue_init(umo_metal_state *state, uint32_t index, umo_error *error)
{
    const umo_metal_api *api = state->api;
    umo_metal_queue *queue = &state->queues[index];
    /* Twice the ring: a handler frees its slot before Metal frees the buffer's place. */
    queue->native = UMO_METAL_SEND(api, new_queue, state->device, (umo_uint)2 * UMO_METAL_RING);
    queue->event = UMO_METAL_SEND0(api, new_event, state->device);
    if (queue->native == NULL || queue->event == NULL) {
        UMO_METAL_SEND0(api, release, queue->native);
        UMO_METAL_SEND0(api, release, queue->event);
        return umo_error_set(error, UMO_E_DEVICE, 0,
                             "Metal gives no command queue, or no shared event (some sandboxes)");
    }
    (void)pthread_mutex_init(&queue->encode, NULL);
    return UMO_OK;
}

void umo_metal_queue_drain(umo_metal_state *state, umo_metal_queue *queue)
{
    (void)pthread_mutex_lock(&state->lock);
    while (queue_ended(queue) < queue->given) {
        (void)pthread_cond_wait(&state->changed, &state->lock);
    }
    (void)pthread_mutex_unlock(&state->lock);
}

void umo_metal_queue_finish(umo_metal_state *state, umo_metal_queue *queue)
{
    UMO_METAL_SEND0(state->api, release, queue->event);
    UMO_METAL_SEND0(state->api, release, queue->native);
    (void)pthread_mutex_destroy(&queue->encode);
}

/* Lock held. Everything given until now may have built on what the failed command was to write. */
static void queue_fail(umo_metal_queue *queue, uint64_t value, umo_status status)
{
    umo_metal_failure *failures = queue->failures;
    size_t count = queue->failure_count;
    if (count > 0 && value <= failures[count - 1].last) {
        failures[count - 1].last = queue->given;
        /* Worth another try only if nothing else went wrong. */
        failures[count - 1].status = status == UMO_E_DEVICE ? status : failures[count - 1].status;
        return;
    }
    if (count == UMO_METAL_FAILURES) {
        failures[0].last = failures[1].last;
        for (size_t i = 1; i + 1 < count; i++) {
            failures[i] = failures[i + 1];
        }
        count--;
    }
    failures[count] = (umo_metal_failure){.first = value, .last = queue->given, .status = status};
    queue->failure_count = count + 1;
}

/* Lock held. How a command that has ended did. */
static umo_status queue_verdict(const umo_metal_queue *queue, uint64_t value)
{
    for (size_t i = 0; i < queue->failure_count; i++) {
        if (value >= queue->failures[i].first && value <= queue->failures[i].last) {
            return queue->failures[i].status;
        }
    }
    return UMO_OK;
}

/* Lock held. Whether all that the command waited for has been settled; takes over their failures.
 */
static bool waits_settled(umo_metal_state *state, umo_metal_command *command)
{
    umo_status status = command->status;
    for (size_t i = 0; i < command->wait_count; i++) {
        const umo_metal_wait *wait = &command->waits[i];
        const umo_metal_queue *queue = &state->queues[wait->queue];
        if (queue_ended(queue) < wait->value) {
            return false;
        }
        if (status == UMO_OK) {
            status = queue_verdict(queue, wait->value);
        }
    }
    command->status = status;
    return true;
}

/* Metal's threads have no pool of their own either. */
static void event_raise(umo_metal_state *state, const umo_metal_queue *queue, uint64_t value)
{
    UMO_METAL_POOL_BEGIN(state);
    if (UMO_METAL_SEND0(state->api, event_value, queue->event) < value) {
        UMO_METAL_SEND(state->api, event_set, queue->event, value);
    }
    UMO_METAL_POOL_END(state);
}

/*
 * Lock held. Settles a queue's oldest commands as far as possible; true when there was one. Stops
 * at a command whose step of the host is due: the caller runs it, without the lock.
 */
static bool queue_settle(umo_metal_state *state, umo_metal_queue *queue, umo_metal_command **out)
{
    bool any = false;
    for (;;) {
        uint64_t value = queue_ended(queue) + 1;
        umo_metal_command *command = queue_slot(queue, value);
        if (value > queue->given || !command->completed || !waits_settled(state, command)) {
            return any;
        }
        if (command->step.kind != UMO_METAL_STEP_NONE &&
            command->step_state != UMO_METAL_STEP_DONE) {
            if (command->step_state == UMO_METAL_STEP_WAITS) {
                command->step_state = UMO_METAL_STEP_RUNS;
                *out = command;
            }
            return any;
        }
        if (command->status != UMO_OK) {
            queue_fail(queue, value, command->status);
        }
        /* The event of a failed command, and of one that ends on the host, is ours to set. */
        if (command->status != UMO_OK || command->step.kind != UMO_METAL_STEP_NONE) {
            event_raise(state, queue, value);
        }
        atomic_store_explicit(&queue->ended, value, memory_order_release);
        any = true;
    }
}

/* Lock held. One settled command may let another queue's go on. Gives a command whose step is due,
 * or NULL when nothing more can be settled now. */
static umo_metal_command *state_settle(umo_metal_state *state)
{
    umo_metal_command *due = NULL;
    bool any = false;
    bool more = true;
    while (more && due == NULL) {
        more = false;
        for (uint32_t q = 0; q < state->queue_count && due == NULL; q++) {
            more = queue_settle(state, &state->queues[q], &due) || more;
        }
        any = any || more;
    }
    if (any) {
        (void)pthread_cond_broadcast(&state->changed);
    }
    return due;
}

static void kept_release(umo_metal_command *command)
{
    for (size_t i = 0; i < UMO_METAL_KEPT; i++) {
        UMO_METAL_SEND0(command->state->api, release, command->kept[i]);
    }
}

/* The step of a command that is due. One that failed, or that waited for one that did, makes none.
 */
static void step_make(umo_metal_command *command)
{
    const umo_metal_host_step *step = &command->step;
    UMO_METAL_POOL_BEGIN(command->state);
    if (command->status == UMO_OK && step->kind == UMO_METAL_STEP_COPY) {
        memcpy(step->target, step->source, step->size_bytes);
    } else if (command->status == UMO_OK && step->kind == UMO_METAL_STEP_POISON) {
        memset(step->target, 0xDB, step->size_bytes);
    }
    kept_release(command);
    UMO_METAL_POOL_END(command->state);
}

/* How a command buffer ended. */
static umo_status command_verdict(umo_metal_state *state, umo_id buffer)
{
    const umo_metal_api *api = state->api;
    if (UMO_METAL_SEND0(api, command_status, buffer) == UMO_MTL_COMMAND_COMPLETED) {
        return UMO_OK;
    }
    umo_id error = UMO_METAL_SEND0(api, command_error, buffer);
    int64_t code = UMO_METAL_SEND0(api, error_code, error);
    if (code == UMO_MTL_ERROR_DEVICE_REMOVED) {
        atomic_store_explicit(&state->lost, true, memory_order_relaxed);
    }
    /* Memory may come back, so that is worth another try; nothing else is. */
    return code == UMO_MTL_ERROR_OUT_OF_MEMORY ? UMO_E_NOMEM : UMO_E_DEVICE;
}

/*
 * Metal's thread. The command buffer has run, well or not, or was never run at all.
 *
 * A step is not run here because its own buffer is completed: what it waits for has passed its
 * event then, but the host may look at memory only when that command's buffer is completed too.
 */
static void command_completed(umo_metal_block *block, umo_id buffer)
{
    umo_metal_command *command = block->context;
    umo_metal_state *state = command->state;
    UMO_METAL_POOL_BEGIN(state);
    umo_status status = command_verdict(state, buffer);
    if (command->step.kind == UMO_METAL_STEP_NONE) {
        kept_release(command);
    }
    UMO_METAL_POOL_END(state);
    (void)pthread_mutex_lock(&state->lock);
    command->status = status;
    command->completed = true;
    for (umo_metal_command *due; (due = state_settle(state)) != NULL;) {
        (void)pthread_mutex_unlock(&state->lock);
        step_make(due);
        (void)pthread_mutex_lock(&state->lock);
        due->step_state = UMO_METAL_STEP_DONE;
    }
    /* The last settled command may be what a close waits for: the state is not touched after this.
     */
    (void)pthread_mutex_unlock(&state->lock);
}

bool umo_metal_queue_done(umo_metal_state *state, uint32_t queue, uint64_t value)
{
    return queue < UMO_METAL_QUEUES && queue_ended(&state->queues[queue]) >= value;
}

umo_status umo_metal_queue_wait(umo_metal_state *state, uint32_t index, uint64_t value,
                                uint64_t timeout_ns)
{
    if (index >= UMO_METAL_QUEUES) {
        return UMO_E_INVAL;
    }
    umo_metal_queue *queue = &state->queues[index];
    const uint64_t now_ns = umo_os_now_ns();
    const bool for_ever = timeout_ns > UINT64_MAX - now_ns;
    const uint64_t deadline_ns = now_ns + timeout_ns;
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&state->lock);
    if (value > queue->given) {
        status = UMO_E_INVAL;
    }
    while (status == UMO_OK && queue_ended(queue) < value) {
        if (for_ever) {
            (void)pthread_cond_wait(&state->changed, &state->lock);
        } else if (!umo_os_condition_wait_until(&state->changed, &state->lock, deadline_ns) &&
                   queue_ended(queue) < value) {
            status = UMO_E_TIMEOUT;
        }
    }
    if (status == UMO_OK) {
        status = queue_verdict(queue, value);
    }
    (void)pthread_mutex_unlock(&state->lock);
    return status;
}

/* Lock held. Notes a wait that the command still has to make. */
static umo_status command_add_wait(umo_metal_state *state, umo_metal_command *command,
                                   uint32_t index, uint64_t value)
{
    const umo_metal_queue *queue = &state->queues[index];
    if (value > queue->given) {
        return UMO_E_INVAL;
    }
    if (queue_ended(queue) < value) {
        command->waits[command->wait_count++] = (umo_metal_wait){.queue = index, .value = value};
        return UMO_OK;
    }
    return queue_verdict(queue, value);
}

/* Encode lock held. A free slot, with the command's waits noted; sleeps while the ring is full. */
static umo_status command_prepare(umo_metal_state *state, uint32_t index, const umo_fence *waits,
                                  size_t wait_count, umo_metal_command **out)
{
    umo_metal_queue *queue = &state->queues[index];
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&state->lock);
    while (queue->given - queue_ended(queue) >= UMO_METAL_RING) {
        (void)pthread_cond_wait(&state->changed, &state->lock);
    }
    uint64_t value = queue->given + 1;
    umo_metal_command *command = queue_slot(queue, value);
    command->state = state;
    command->queue = index;
    command->value = value;
    command->completed = false;
    command->status = UMO_OK;
    command->step.kind = UMO_METAL_STEP_NONE;
    command->step_state = UMO_METAL_STEP_WAITS;
    command->wait_count = 0;
    for (size_t i = 0; i < UMO_METAL_KEPT; i++) {
        command->kept[i] = NULL;
    }
    for (size_t i = 0; i < wait_count && status == UMO_OK; i++) {
        if (waits[i].value != 0) {
            status = waits[i].queue < UMO_METAL_QUEUES
                         ? command_add_wait(state, command, waits[i].queue, waits[i].value)
                         : UMO_E_INVAL;
        }
    }
    (void)pthread_mutex_unlock(&state->lock);
    *out = command;
    return status;
}

umo_status umo_metal_command_begin(umo_metal_state *state, uint32_t index, const umo_fence *waits,
                                   size_t wait_count, umo_metal_encoding *out)
{
    if (index >= UMO_METAL_QUEUES || wait_count > UMO_WAITS_MAX) {
        return UMO_E_INVAL;
    }
    if (atomic_load_explicit(&state->lost, memory_order_relaxed)) {
        return UMO_E_DEVICE;
    }
    const umo_metal_api *api = state->api;
    umo_metal_queue *queue = &state->queues[index];
    umo_metal_command *command = NULL;
    (void)pthread_mutex_lock(&queue->encode);
    umo_status status = command_prepare(state, index, waits, wait_count, &command);
    if (status != UMO_OK) {
        (void)pthread_mutex_unlock(&queue->encode);
        return status;
    }
    void *pool = api->pool_push();
    umo_metal_residency_use(state);
    umo_id buffer = UMO_METAL_SEND0(api, queue_command, queue->native);
    if (buffer == NULL) {
        api->pool_pop(pool);
        (void)pthread_mutex_unlock(&queue->encode);
        return UMO_E_DEVICE;
    }
    /* The predecessor, always: the timeline's order is ours to keep. */
    if (queue_ended(queue) + 1 < command->value) {
        UMO_METAL_SEND(api, command_wait, buffer, queue->event, command->value - 1);
    }
    for (size_t i = 0; i < command->wait_count; i++) {
        const umo_metal_wait *wait = &command->waits[i];
        if (wait->queue != index) {
            UMO_METAL_SEND(api, command_wait, buffer, state->queues[wait->queue].event,
                           wait->value);
        }
    }
    *out = (umo_metal_encoding){
        .state = state, .queue = queue, .command = command, .buffer = buffer, .pool = pool};
    return UMO_OK;
}

bool umo_metal_blit_begin(umo_metal_encoding *encoding)
{
    encoding->encoder = UMO_METAL_SEND0(encoding->state->api, command_blit, encoding->buffer);
    return encoding->encoder != NULL;
}

bool umo_metal_compute_begin(umo_metal_encoding *encoding)
{
    encoding->encoder = UMO_METAL_SEND0(encoding->state->api, command_compute, encoding->buffer);
    return encoding->encoder != NULL;
}

void umo_metal_command_keep(umo_metal_encoding *encoding, umo_id object)
{
    umo_id *kept = encoding->command->kept;
    kept[kept[0] == NULL ? 0 : 1] = object;
}

umo_status umo_metal_command_end(umo_metal_encoding *encoding, umo_status status, umo_fence *out)
{
    umo_metal_state *state = encoding->state;
    const umo_metal_api *api = state->api;
    umo_metal_queue *queue = encoding->queue;
    umo_metal_command *command = encoding->command;
    /* Also of a command that is dropped: an encoder must be ended. */
    UMO_METAL_SEND0(api, encoder_end, encoding->encoder);
    if (status == UMO_OK) {
        if (command->step.kind == UMO_METAL_STEP_NONE) {
            UMO_METAL_SEND(api, command_signal, encoding->buffer, queue->event, command->value);
        }
        umo_metal_block block = umo_metal_completed_block(api, command_completed, command);
        UMO_METAL_SEND(api, command_on_completed, encoding->buffer, &block);
        out->queue = command->queue;
        out->value = command->value;
        (void)pthread_mutex_lock(&state->lock);
        queue->given = command->value;
        (void)pthread_mutex_unlock(&state->lock);
        UMO_METAL_SEND0(api, command_commit, encoding->buffer);
    } else {
        kept_release(command);
    }
    api->pool_pop(encoding->pool);
    (void)pthread_mutex_unlock(&queue->encode);
    return status;
}

umo_status umo_metal_host_step_give(umo_metal_state *state, uint32_t queue,
                                    const umo_metal_host_step *step, umo_id kept,
                                    const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    umo_metal_encoding encoding;
    umo_status status = umo_metal_command_begin(state, queue, waits, wait_count, &encoding);
    if (status != UMO_OK) {
        UMO_METAL_SEND0(state->api, release, kept);
        return status;
    }
    umo_metal_command_keep(&encoding, kept);
    encoding.command->step = *step;
    return umo_metal_command_end(&encoding, UMO_OK, out);
}

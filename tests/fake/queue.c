/* Command queues and command buffers: what is allowed when. */
#include "fake.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* ---- queues ---- */

id fake_queue_new(fake_device *device, SEL selector, ns_uint max)
{
    if (max == 0) {
        fake_violate("queue_count", "a queue of 0 command buffers");
        return NULL;
    }
    if (fake_fails(selector)) {
        return NULL;
    }
    fake_queue *made = fake_make(&fake_class_queue);
    made->device = objc_retain(device);
    made->max = max;
    return made;
}

id fake_queue_new_default(fake_device *device, SEL selector)
{
    return fake_queue_new(device, selector, 64);
}

static bool queue_dealloc(void *object)
{
    fake_queue *self = object;
    for (uint32_t i = self->residency_count; i > 0; i--) {
        fake_residency_detach(self, self->residency[i - 1]);
    }
    objc_release(self->device);
    return true;
}

/* Waits for room, as Metal does. */
static bool queue_enter(fake_queue *self)
{
    bool entered = true;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    while (self->open >= self->max && self->committed > 0) {
        fake_gpu_wait_change(UINT64_MAX);
    }
    if (self->open >= self->max) {
        entered = false;
    } else {
        self->open++;
    }
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    if (!entered) {
        fake_violate("queue_full",
                     "all %" PRIu64 " command buffers are taken and none is committed: this would "
                     "wait for ever",
                     self->max);
    }
    return entered;
}

static id command_make(fake_queue *self, SEL selector, bool retains)
{
    if (fake_fails(selector) || !queue_enter(self)) {
        return NULL;
    }
    fake_command *made = fake_make(&fake_class_command);
    made->queue = objc_retain(self);
    made->retains = retains;
    return objc_autorelease(made);
}

static id queue_command(fake_queue *self, SEL selector)
{
    return command_make(self, selector, true);
}

static id queue_command_unretained(fake_queue *self, SEL selector)
{
    return command_make(self, selector, false);
}

static void queue_add_residency(fake_queue *self, SEL selector, id set)
{
    (void)selector;
    (void)fake_residency_attach(self, set);
}

static void queue_remove_residency(fake_queue *self, SEL selector, id set)
{
    (void)selector;
    fake_residency_detach(self, set);
}

static void queue_add_residencies(fake_queue *self, SEL selector, id const *sets, ns_uint count)
{
    for (ns_uint i = 0; i < count; i++) {
        queue_add_residency(self, selector, sets[i]);
    }
}

static void queue_remove_residencies(fake_queue *self, SEL selector, id const *sets, ns_uint count)
{
    for (ns_uint i = 0; i < count; i++) {
        queue_remove_residency(self, selector, sets[i]);
    }
}

static id queue_device(fake_queue *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static void queue_label(fake_queue *self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static const fake_method queue_methods[] = {
    FAKE_METHOD("commandBuffer", "@@:", queue_command),
    FAKE_METHOD("commandBufferWithUnretainedReferences", "@@:", queue_command_unretained),
    FAKE_METHOD("addResidencySet:", "v@:@", queue_add_residency),
    FAKE_METHOD("removeResidencySet:", "v@:@", queue_remove_residency),
    FAKE_METHOD("addResidencySets:count:", "v@:r^@Q", queue_add_residencies),
    FAKE_METHOD("removeResidencySets:count:", "v@:r^@Q", queue_remove_residencies),
    FAKE_METHOD("device", "@@:", queue_device),
    FAKE_METHOD("setLabel:", "v@:@", queue_label),
};

fake_class fake_class_queue = {.super = &fake_class_object,
                               .name = "MTLCommandQueue",
                               .size_bytes = sizeof(fake_queue),
                               .dealloc = queue_dealloc,
                               .methods = queue_methods,
                               .method_count = FAKE_COUNT(queue_methods),
                               .hidden = true};

/* ---- what a command buffer holds ---- */

void *fake_command_memory(fake_command *command, size_t size_bytes)
{
    size_t rounded = (size_bytes + 15) / 16 * 16;
    fake_chunk *chunk = command->chunks;
    if (chunk == NULL || rounded > chunk->size_bytes - chunk->used) {
        size_t room = rounded > 2016 ? rounded : 2016;
        chunk = malloc(sizeof *chunk + room);
        if (chunk == NULL) {
            abort();
        }
        chunk->next = command->chunks;
        chunk->used = 0;
        chunk->size_bytes = room;
        command->chunks = chunk;
    }
    void *memory = chunk->bytes + chunk->used;
    chunk->used += rounded;
    return memory;
}

fake_op *fake_command_op(fake_command *command, fake_op_kind kind)
{
    fake_op *op = fake_command_memory(command, sizeof *op);
    memset(op, 0, sizeof *op);
    op->kind = kind;
    if (command->last != NULL) {
        command->last->next = op;
    } else {
        command->first = op;
    }
    command->last = op;
    return op;
}

void fake_command_refer(fake_command *command, fake_object *object, bool writes)
{
    for (size_t i = 0; i < command->reference_count; i++) {
        if (command->references[i].object == object) {
            command->references[i].writes = command->references[i].writes || writes;
            return;
        }
    }
    if (command->reference_count == command->reference_capacity) {
        size_t capacity = command->reference_capacity == 0 ? 8 : command->reference_capacity * 2;
        fake_reference *grown = realloc(command->references, capacity * sizeof *grown);
        if (grown == NULL) {
            abort();
        }
        command->references = grown;
        command->reference_capacity = capacity;
    }
    bool tracked = fake_is(object, &fake_class_buffer) && !((fake_buffer *)object)->untracked;
    command->references[command->reference_count++] =
        (fake_reference){.object = object, .writes = writes, .tracked = tracked};
    command->tracked = command->tracked || tracked;
    if (command->retains) {
        (void)objc_retain(object);
    }
}

static bool command_dealloc(void *object)
{
    fake_command *self = object;
    if (!self->ended) { /* never committed */
        (void)pthread_mutex_lock(&fake_gpu_lock);
        self->queue->open--;
        fake_gpu_wake();
        (void)pthread_mutex_unlock(&fake_gpu_lock);
        for (size_t i = 0; self->retains && i < self->reference_count; i++) {
            objc_release(self->references[i].object);
        }
        for (size_t i = 0; i < self->handler_count; i++) {
            _Block_release(self->handlers[i]);
        }
    }
    for (fake_chunk *chunk = self->chunks; chunk != NULL;) {
        fake_chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    free(self->references);
    free(self->handlers);
    objc_release(self->error);
    objc_release(self->queue);
    return true;
}

/* ---- encoding ---- */

static bool not_committed(const fake_command *self)
{
    return atomic_load_explicit(&self->status, memory_order_acquire) < FAKE_COMMITTED;
}

bool fake_command_open(fake_command *self, SEL selector)
{
    if (!not_committed(self)) {
        fake_violate("encode_after_commit", "%s to a committed command buffer", selector);
        return false;
    }
    if (self->encoder != NULL) {
        fake_violate("encoder_open", "%s while an encoder is open", selector);
        return false;
    }
    return true;
}

static void command_event(fake_command *self, SEL selector, fake_op_kind kind, id event,
                          uint64_t value)
{
    if (!fake_is(event, &fake_class_event)) {
        fake_violate("wrong_class", "%s with a %s", selector, fake_class_name(event));
        return;
    }
    if (!fake_command_open(self, selector)) {
        return;
    }
    fake_op *op = fake_command_op(self, kind);
    op->as.event.event = event;
    op->as.event.value = value;
    fake_command_refer(self, event, false);
}

static void command_wait(fake_command *self, SEL selector, id event, uint64_t value)
{
    command_event(self, selector, FAKE_OP_WAIT, event, value);
}

static void command_signal(fake_command *self, SEL selector, id event, uint64_t value)
{
    command_event(self, selector, FAKE_OP_SIGNAL, event, value);
}

static id command_blit(fake_command *self, SEL selector)
{
    return fake_encoder_make(self, selector, &fake_class_blit);
}

static id command_compute(fake_command *self, SEL selector)
{
    return fake_encoder_make(self, selector, &fake_class_compute);
}

static void command_on_completed(fake_command *self, SEL selector, const void *block)
{
    if (!not_committed(self)) {
        fake_violate("handler_after_commit", "%s to a committed command buffer", selector);
        return;
    }
    if (block == NULL) {
        fake_violate("nil_argument", "%s of NULL", selector);
        return;
    }
    fake_block **grown = realloc(self->handlers, (self->handler_count + 1) * sizeof(fake_block *));
    fake_block *kept = _Block_copy(block);
    if (grown == NULL) {
        abort();
    }
    self->handlers = grown;
    if (kept != NULL) {
        self->handlers[self->handler_count++] = kept;
    }
}

/* False: what it uses is gone already. */
static bool references_begin(fake_command *self)
{
    if (self->retains) {
        return true;
    }
    for (size_t i = 0; i < self->reference_count; i++) {
        if (fake_is_zombie(self->references[i].object)) {
            fake_violate("zombie", "a command buffer is committed that uses a freed %s",
                         fake_class_name(self->references[i].object));
            return false;
        }
    }
    for (size_t i = 0; i < self->reference_count; i++) {
        fake_uses_begin(self->references[i].object);
    }
    return true;
}

static void command_commit(fake_command *self, SEL selector)
{
    if (!not_committed(self)) {
        fake_violate("commit_twice", "a command buffer is committed again");
        return;
    }
    if (self->encoder != NULL) {
        fake_violate("commit_open_encoder", "commit while an encoder is open");
        return;
    }
    if (!references_begin(self)) {
        return;
    }
    if (fake_fails(selector)) {
        self->inject = fake_fail_code();
    }
    fake_gpu_submit(self);
}

static void command_enqueue(fake_command *self, SEL selector)
{
    if (!not_committed(self)) {
        fake_violate("commit_twice", "%s to a committed command buffer", selector);
        return;
    }
    atomic_store(&self->status, FAKE_ENQUEUED);
}

static void command_wait_completed(fake_command *self, SEL selector)
{
    if (not_committed(self)) {
        fake_violate("queue_full", "%s before commit would wait for ever", selector);
        return;
    }
    fake_gpu_wait_ended(self);
}

static ns_uint command_status(fake_command *self, SEL selector)
{
    (void)selector;
    return atomic_load_explicit(&self->status, memory_order_acquire);
}

/* Written before the status says so. */
static id command_error(fake_command *self, SEL selector)
{
    return command_status(self, selector) == FAKE_ERROR ? self->error : NULL;
}

static bool command_retains(fake_command *self, SEL selector)
{
    (void)selector;
    return self->retains;
}

static void command_label(fake_command *self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static const fake_method command_methods[] = {
    FAKE_METHOD("encodeWaitForEvent:value:", "v@:@Q", command_wait),
    FAKE_METHOD("encodeSignalEvent:value:", "v@:@Q", command_signal),
    FAKE_METHOD("blitCommandEncoder", "@@:", command_blit),
    FAKE_METHOD("computeCommandEncoder", "@@:", command_compute),
    FAKE_METHOD("addCompletedHandler:", "v@:@?", command_on_completed),
    FAKE_METHOD("enqueue", "v@:", command_enqueue),
    FAKE_METHOD("commit", "v@:", command_commit),
    FAKE_METHOD("waitUntilCompleted", "v@:", command_wait_completed),
    FAKE_METHOD("status", "Q@:", command_status),
    FAKE_METHOD("error", "@@:", command_error),
    FAKE_METHOD("retainedReferences", "B@:", command_retains),
    FAKE_METHOD("setLabel:", "v@:@", command_label),
};

fake_class fake_class_command = {.super = &fake_class_object,
                                 .name = "MTLCommandBuffer",
                                 .size_bytes = sizeof(fake_command),
                                 .dealloc = command_dealloc,
                                 .methods = command_methods,
                                 .method_count = FAKE_COUNT(command_methods),
                                 .hidden = true};

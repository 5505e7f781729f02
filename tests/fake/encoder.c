/* Blit and compute encoders: every check that a validating Metal makes while commands are encoded.
 */
#include "fake.h"

#include <inttypes.h>
#include <string.h>

#define BYTES_MAX 4096u
#define LOCAL_ALIGN 16u

id fake_encoder_make(fake_command *command, SEL selector, fake_class *class)
{
    if (!fake_command_open(command, selector) || fake_fails(selector)) {
        return NULL;
    }
    fake_encoder *made = fake_make(class);
    made->command = objc_retain(command);
    command->encoder = made;
    return objc_autorelease(made);
}

static bool encoder_open(const fake_encoder *self, SEL selector)
{
    if (self->ended) {
        fake_violate("encoder_ended", "%s after endEncoding", selector);
        return false;
    }
    return true;
}

static void encoder_end(fake_encoder *self, SEL selector)
{
    if (encoder_open(self, selector)) {
        self->ended = true;
        self->command->encoder = NULL;
    }
}

static bool encoder_dealloc(void *object)
{
    fake_encoder *self = object;
    if (!self->ended) {
        fake_violate("encoder_not_ended", "an encoder is freed without endEncoding");
        self->command->encoder = NULL;
    }
    objc_release(self->command);
    return true;
}

static void encoder_label(fake_encoder *self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static fake_buffer *buffer_take(const fake_encoder *self, SEL selector, id given)
{
    if (!fake_is(given, &fake_class_buffer)) {
        fake_violate(given != NULL && fake_is_zombie(given) ? "zombie" : "wrong_class",
                     "%s with a %s%s", selector,
                     given != NULL && fake_is_zombie(given) ? "freed " : "",
                     fake_class_name(given));
        return NULL;
    }
    fake_buffer *buffer = given;
    if (buffer->device != self->command->queue->device) {
        fake_violate("other_device", "%s with a buffer of another device", selector);
        return NULL;
    }
    return buffer;
}

/* ---- blits ---- */

static bool range_valid(SEL selector, const fake_buffer *buffer, ns_uint offset, ns_uint size)
{
    if (size == 0) {
        fake_violate("blit_size", "%s of 0 bytes", selector);
        return false;
    }
    if (offset > buffer->length || size > buffer->length - offset) {
        fake_violate("blit_range", "%s: %" PRIu64 "+%" PRIu64 " in a buffer of %" PRIu64, selector,
                     offset, size, buffer->length);
        return false;
    }
    if (offset % fake_options.blit_align != 0 || size % fake_options.blit_align != 0) {
        fake_violate("blit_align", "%s: %" PRIu64 "+%" PRIu64 " are not multiples of %" PRIu64,
                     selector, offset, size, fake_options.blit_align);
        return false;
    }
    return true;
}

static void blit_copy(fake_encoder *self, SEL selector, id source, ns_uint source_offset, id target,
                      ns_uint target_offset, ns_uint size)
{
    fake_buffer *from = buffer_take(self, selector, source);
    fake_buffer *to = buffer_take(self, selector, target);
    if (!encoder_open(self, selector) || from == NULL || to == NULL ||
        !range_valid(selector, from, source_offset, size) ||
        !range_valid(selector, to, target_offset, size)) {
        return;
    }
    ns_uint apart = source_offset > target_offset ? source_offset - target_offset
                                                  : target_offset - source_offset;
    if (from == to && apart < size) {
        fake_violate("blit_overlap", "the ranges of a copy overlap");
        return;
    }
    fake_op *op = fake_command_op(self->command, FAKE_OP_COPY);
    op->as.blit.from = from;
    op->as.blit.from_offset = source_offset;
    op->as.blit.to = to;
    op->as.blit.to_offset = target_offset;
    op->as.blit.size = size;
    fake_command_refer(self->command, &from->object, false);
    fake_command_refer(self->command, &to->object, true);
}

static void blit_fill(fake_encoder *self, SEL selector, id target, fake_range range, uint8_t value)
{
    fake_buffer *to = buffer_take(self, selector, target);
    if (!encoder_open(self, selector) || to == NULL ||
        !range_valid(selector, to, range.location, range.length)) {
        return;
    }
    fake_op *op = fake_command_op(self->command, FAKE_OP_FILL);
    op->as.blit.to = to;
    op->as.blit.to_offset = range.location;
    op->as.blit.size = range.length;
    op->as.blit.value = value;
    fake_command_refer(self->command, &to->object, true);
}

static void blit_synchronize(fake_encoder *self, SEL selector, id resource)
{
    fake_buffer *to = buffer_take(self, selector, resource);
    if (!encoder_open(self, selector) || to == NULL) {
        return;
    }
    if (to->storage != FAKE_MANAGED) {
        fake_violate("synchronize_not_managed", "%s of a buffer that is not managed", selector);
        return;
    }
    fake_op *op = fake_command_op(self->command, FAKE_OP_SYNCHRONIZE);
    op->as.blit.to = to;
    fake_command_refer(self->command, &to->object, true);
}

/* ---- compute ---- */

static bool index_valid(SEL selector, ns_uint index)
{
    if (index >= FAKE_INDEXES) {
        fake_violate("index_range", "%s: index %" PRIu64 ", the last is %u", selector, index,
                     FAKE_INDEXES - 1);
        return false;
    }
    return true;
}

static void compute_pipeline(fake_encoder *self, SEL selector, id given)
{
    if (!encoder_open(self, selector)) {
        return;
    }
    if (!fake_is(given, &fake_class_pipeline)) {
        fake_violate("wrong_class", "%s with a %s", selector, fake_class_name(given));
        return;
    }
    fake_pipeline *pipeline = given;
    if (pipeline->device != self->command->queue->device) {
        fake_violate("other_device", "%s with a pipeline of another device", selector);
        return;
    }
    self->pipeline = pipeline;
    fake_command_refer(self->command, &pipeline->object, false);
}

static void compute_buffer(fake_encoder *self, SEL selector, id given, ns_uint offset,
                           ns_uint index)
{
    if (!encoder_open(self, selector) || !index_valid(selector, index)) {
        return;
    }
    if (given == NULL) {
        self->arguments[index] = (fake_argument){0};
        return;
    }
    fake_buffer *buffer = buffer_take(self, selector, given);
    if (buffer == NULL) {
        return;
    }
    if (offset >= buffer->length) {
        fake_violate("buffer_offset", "offset %" PRIu64 " in a buffer of %" PRIu64, offset,
                     buffer->length);
        return;
    }
    self->arguments[index] = (fake_argument){.buffer = buffer, .offset = offset};
    fake_command_refer(self->command, &buffer->object, false);
}

/* Of the buffer that is bound there. */
static void compute_offset(fake_encoder *self, SEL selector, ns_uint offset, ns_uint index)
{
    if (!encoder_open(self, selector) || !index_valid(selector, index)) {
        return;
    }
    fake_buffer *buffer = self->arguments[index].buffer;
    if (buffer == NULL) {
        fake_violate("binding_missing", "%s: no buffer is bound at %" PRIu64, selector, index);
    } else if (offset >= buffer->length) {
        fake_violate("buffer_offset", "offset %" PRIu64 " in a buffer of %" PRIu64, offset,
                     buffer->length);
    } else {
        self->arguments[index].offset = offset;
    }
}

static void compute_bytes(fake_encoder *self, SEL selector, const void *bytes, ns_uint length,
                          ns_uint index)
{
    if (!encoder_open(self, selector) || !index_valid(selector, index)) {
        return;
    }
    if (bytes == NULL) {
        fake_violate("nil_argument", "%s of NULL", selector);
        return;
    }
    if (length == 0 || length > BYTES_MAX) {
        fake_violate("bytes_length", "%s of %" PRIu64 " bytes; 1 to %u are allowed", selector,
                     length, BYTES_MAX);
        return;
    }
    void *copy = fake_command_memory(self->command, length);
    memcpy(copy, bytes, length);
    self->arguments[index] = (fake_argument){.bytes = copy, .length = length};
}

static void compute_local(fake_encoder *self, SEL selector, ns_uint length, ns_uint index)
{
    if (!encoder_open(self, selector) || !index_valid(selector, index)) {
        return;
    }
    if (length % LOCAL_ALIGN != 0 || length > fake_options.local_max) {
        fake_violate("local_length",
                     "%" PRIu64 " bytes of threadgroup memory: not a multiple of %u, or more than "
                     "%" PRIu64,
                     length, LOCAL_ALIGN, fake_options.local_max);
        return;
    }
    self->locals[index] = length;
}

/* One argument of a dispatch against what the kernel declares. */
static bool argument_valid(const fake_metal_binding *binding, const fake_argument *argument)
{
    bool local = binding->type == FAKE_METAL_THREADGROUP;
    if (argument->buffer == NULL && argument->bytes == NULL && (!local || argument->length == 0)) {
        if (!binding->unused) {
            fake_violate("binding_missing", "nothing is bound to %s %u",
                         local                                ? "threadgroup"
                         : binding->type == FAKE_METAL_BUFFER ? "buffer"
                                                              : "texture or sampler",
                         binding->index);
        }
        return binding->unused;
    }
    if (argument->bytes != NULL && argument->length < binding->data_bytes) {
        fake_violate("bytes_length", "%" PRIu64 " bytes where buffer %u needs %zu",
                     argument->length, binding->index, binding->data_bytes);
        return false;
    }
    if (argument->bytes != NULL && binding->writes) {
        fake_violate("binding_kind", "the kernel writes to buffer %u, which is bytes",
                     binding->index);
        return false;
    }
    if (argument->buffer != NULL &&
        binding->data_bytes > argument->buffer->length - argument->offset) {
        fake_violate("buffer_offset", "buffer %u ends before the %zu bytes that it needs",
                     binding->index, binding->data_bytes);
        return false;
    }
    if (argument->buffer != NULL && binding->align_bytes > 1 &&
        argument->offset % binding->align_bytes != 0) {
        fake_violate("offset_align", "offset %" PRIu64 " of buffer %u is no multiple of %zu",
                     argument->offset, binding->index, binding->align_bytes);
        return false;
    }
    return true;
}

static fake_argument *arguments_take(fake_encoder *self)
{
    const fake_signature *signature = &self->pipeline->signature;
    fake_argument *arguments =
        fake_command_memory(self->command, (signature->count + 1) * sizeof *arguments);
    ns_uint local = self->pipeline->kernel.static_local_bytes;
    for (size_t i = 0; i < signature->count; i++) {
        const fake_metal_binding *binding = &signature->bindings[i];
        if (binding->type > FAKE_METAL_THREADGROUP) {
            arguments[i] = (fake_argument){0}; /* textures and samplers cannot be bound here */
        } else if (binding->type == FAKE_METAL_THREADGROUP) {
            arguments[i] = (fake_argument){.length = self->locals[binding->index]};
            local += arguments[i].length;
        } else {
            arguments[i] = self->arguments[binding->index];
        }
        if (!argument_valid(binding, &arguments[i])) {
            return NULL;
        }
    }
    if (local > fake_options.local_max) {
        fake_violate("local_total",
                     "%" PRIu64 " bytes of threadgroup memory together; %" PRIu64 " at most", local,
                     fake_options.local_max);
        return NULL;
    }
    return arguments;
}

static bool size_product(const fake_size *size, ns_uint *out)
{
    return !__builtin_mul_overflow(size->width, size->height, out) &&
           !__builtin_mul_overflow(*out, size->depth, out);
}

static bool grid_valid(const fake_encoder *self, const fake_size *threads, const fake_size *group)
{
    ns_uint all;
    ns_uint one;
    if (!size_product(threads, &all) || !size_product(group, &one) || all == 0 || one == 0) {
        fake_violate("empty_dispatch", "a grid or a threadgroup without threads");
        return false;
    }
    ns_uint max = self->pipeline->kernel.threads_max;
    if (one > max) {
        fake_violate("threads_per_group",
                     "%" PRIu64 " threads in a threadgroup; %" PRIu64 " at most", one, max);
        return false;
    }
    return true;
}

static void dispatch(fake_encoder *self, SEL selector, fake_size threads, fake_size group)
{
    if (!encoder_open(self, selector)) {
        return;
    }
    if (self->pipeline == NULL) {
        fake_violate("no_pipeline", "%s before setComputePipelineState:", selector);
        return;
    }
    if (!grid_valid(self, &threads, &group)) {
        return;
    }
    fake_argument *arguments = arguments_take(self);
    if (arguments == NULL) {
        return;
    }
    const fake_signature *signature = &self->pipeline->signature;
    for (size_t i = 0; i < signature->count; i++) {
        if (arguments[i].buffer != NULL) {
            fake_command_refer(self->command, &arguments[i].buffer->object,
                               signature->bindings[i].writes);
        }
    }
    fake_op *op = fake_command_op(self->command, FAKE_OP_DISPATCH);
    op->as.dispatch.pipeline = self->pipeline;
    op->as.dispatch.arguments = arguments;
    op->as.dispatch.global[0] = threads.width;
    op->as.dispatch.global[1] = threads.height;
    op->as.dispatch.global[2] = threads.depth;
}

/* Threadgroups at the edges are smaller: not every GPU can. */
static void compute_dispatch(fake_encoder *self, SEL selector, fake_size threads, fake_size group)
{
    if (!fake_supports(1004) && !fake_supports(2002)) {
        fake_violate("nonuniform", "%s on a device of an old family", selector);
        return;
    }
    dispatch(self, selector, threads, group);
}

static void compute_dispatch_groups(fake_encoder *self, SEL selector, fake_size groups,
                                    fake_size group)
{
    fake_size threads;
    if (__builtin_mul_overflow(groups.width, group.width, &threads.width) ||
        __builtin_mul_overflow(groups.height, group.height, &threads.height) ||
        __builtin_mul_overflow(groups.depth, group.depth, &threads.depth)) {
        threads = (fake_size){0, 0, 0};
    }
    dispatch(self, selector, threads, group);
}

static const fake_method encoder_methods[] = {
    FAKE_METHOD("endEncoding", "v@:", encoder_end),
    FAKE_METHOD("setLabel:", "v@:@", encoder_label),
};

static const fake_method blit_methods[] = {
    FAKE_METHOD("copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:", "v@:@Q@QQ",
                blit_copy),
    FAKE_METHOD("fillBuffer:range:value:", "v@:@{_NSRange=QQ}C", blit_fill),
    FAKE_METHOD("synchronizeResource:", "v@:@", blit_synchronize),
};

static const fake_method compute_methods[] = {
    FAKE_METHOD("setComputePipelineState:", "v@:@", compute_pipeline),
    FAKE_METHOD("setBuffer:offset:atIndex:", "v@:@QQ", compute_buffer),
    FAKE_METHOD("setBufferOffset:atIndex:", "v@:QQ", compute_offset),
    FAKE_METHOD("setBytes:length:atIndex:", "v@:r^vQQ", compute_bytes),
    FAKE_METHOD("setThreadgroupMemoryLength:atIndex:", "v@:QQ", compute_local),
    FAKE_METHOD("dispatchThreads:threadsPerThreadgroup:", "v@:{?=QQQ}{?=QQQ}", compute_dispatch),
    FAKE_METHOD("dispatchThreadgroups:threadsPerThreadgroup:", "v@:{?=QQQ}{?=QQQ}",
                compute_dispatch_groups),
};

fake_class fake_class_encoder = {.super = &fake_class_object,
                                 .name = "MTLCommandEncoder",
                                 .size_bytes = sizeof(fake_encoder),
                                 .methods = encoder_methods,
                                 .method_count = FAKE_COUNT(encoder_methods),
                                 .hidden = true};
fake_class fake_class_blit = {.super = &fake_class_encoder,
                              .name = "MTLBlitCommandEncoder",
                              .size_bytes = sizeof(fake_encoder),
                              .dealloc = encoder_dealloc,
                              .methods = blit_methods,
                              .method_count = FAKE_COUNT(blit_methods),
                              .hidden = true};
fake_class fake_class_compute = {.super = &fake_class_encoder,
                                 .name = "MTLComputeCommandEncoder",
                                 .size_bytes = sizeof(fake_encoder),
                                 .dealloc = encoder_dealloc,
                                 .methods = compute_methods,
                                 .method_count = FAKE_COUNT(compute_methods),
                                 .hidden = true};

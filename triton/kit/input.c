/*
 * Inputs of a batch: used where they lie, or copied once for a named reason.
 */
#include "kit/kit.h"

#include <string.h>

bool umo_batch_has_input(const umo_batch *batch, size_t input)
{
    return batch->instance->model->inputs[input].source == UMO_IO_BATCH
               ? kit_batch_input_present(batch, input)
               : batch->members[0]->inputs[input].present;
}

const umo_fence_set *umo_batch_waits(const umo_batch *batch)
{
    return &batch->waits;
}

/* The first byte when the batch's requests lie one behind the other in the order of its members,
 * else NULL. */
static const char *run_find(const umo_batch *batch, size_t input)
{
    const char *first = NULL;
    const char *next = NULL;
    for (size_t i = 0; i < batch->count; i++) {
        const kit_input *in = &batch->members[i]->inputs[input];
        if (in->size_bytes == 0) {
            continue; /* lies nowhere, so it is in nobody's way */
        }
        if (in->data == NULL || (first != NULL && in->data != next)) {
            return NULL;
        }
        first = first == NULL ? in->data : first;
        next = in->data + in->size_bytes;
    }
    return first;
}

/* Takes scratch memory and copies the batch's bytes into it. */
static umo_status slot_gather(umo_batch *batch, size_t input, kit_slot *slot, umo_reason reason,
                              umo_error *error)
{
    umo_instance *instance = batch->instance;
    umo_model *model = instance->model;
    umo_status status = kit_scratch_take(instance, slot->tensor.size_bytes, &slot->block, error);
    if (status != UMO_OK) {
        return status;
    }
    slot->tensor.buffer = slot->block;
    slot->tensor.offset_bytes = 0;
    umo_access access = {
        .size_bytes = slot->tensor.size_bytes, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    status = umo_access_begin(slot->block, &access, &waits);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "scratch memory is in use");
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    char *target = umo_buffer_host(slot->block);
    slot->tensor.data = target;
    if (status == UMO_OK) {
        status = kit_batch_gather(batch, input, slot->tensor.size_bytes, target, error);
    }
    if (status != UMO_OK) {
        umo_status_ignore(umo_access_abort(slot->block, &access, (umo_fence){0}));
        return status;
    }
    umo_scope_count_copy(model->scope, UMO_DIRECTION_IN, reason, slot->tensor.size_bytes);
    slot->reason = reason;
    return umo_access_end(slot->block, &access, (umo_fence){0});
}

typedef struct upload_state {
    umo_batch *batch;
    umo_buffer *block;
    size_t offset_bytes;
    bool wait; /* the piece is good for the call alone */
} upload_state;

static umo_status upload_piece(const void *data, size_t size_bytes, void *user)
{
    upload_state *state = user;
    umo_fence fence;
    umo_status status = umo_buffer_upload(state->block, state->offset_bytes, data, size_bytes,
                                          state->batch->instance->queue, &fence);
    if (status == UMO_OK && state->wait) {
        status = umo_fence_wait(fence, UINT64_MAX);
    } else if (status == UMO_OK) {
        kit_batch_wait_for(state->batch, fence);
    }
    state->offset_bytes += size_bytes;
    return status;
}

/* Copies one request's bytes. One whose client took its memory away fails alone, and the device
 * gets zeros. */
static umo_status request_upload(upload_state *state, kit_request *request, size_t input)
{
    static const char zeros[4096];
    const umo_batch *batch = state->batch;
    kit_input *in = &request->inputs[input];
    bool around = in->data != NULL && !kit_input_place(batch->instance, request, in)->guarded;
    size_t end_bytes = state->offset_bytes + (size_t)in->size_bytes;
    umo_error why = {0};
    /* Requests of a batch that was taken end one by one, and their memory with them. */
    state->wait = around || (batch->flight != NULL && batch->count > 1);
    umo_status status = kit_input_visit(batch->instance, request, in, upload_piece, state, &why);
    if (around && why.status == UMO_E_INVAL) {
        (void)kit_request_fail(request, why.status, "input '%s': %s",
                               batch->instance->model->inputs[input].name, why.text);
        status = UMO_OK;
        while (state->offset_bytes < end_bytes && status == UMO_OK) {
            size_t left = end_bytes - state->offset_bytes;
            status = upload_piece(zeros, left < sizeof zeros ? left : sizeof zeros, state);
        }
    }
    return status;
}

/* The conventional way to a device: each piece is copied into the device's own memory. */
static umo_status slot_upload(umo_batch *batch, size_t input, kit_slot *slot, umo_reason reason,
                              umo_error *error)
{
    umo_instance *instance = batch->instance;
    umo_status status = umo_pool_alloc(instance->staging, slot->tensor.size_bytes,
                                       instance->model->owner, &slot->block, error);
    if (status != UMO_OK) {
        return status;
    }
    slot->tensor.buffer = slot->block;
    slot->tensor.offset_bytes = 0;
    slot->tensor.data = NULL;
    slot->reason = reason;
    slot->staged = true;
    upload_state state = {batch, slot->block, 0, false};
    for (size_t i = 0; i < batch->count && status == UMO_OK; i++) {
        status = request_upload(&state, batch->members[i], input);
        if (status != UMO_OK) {
            (void)umo_error_set(error, status, 0, "a tensor could not be copied to the device");
        }
    }
    return status;
}

/* Tries to use the bytes where they lie; a reason other than NONE says why not. */
static umo_status slot_use_in_place(umo_batch *batch, size_t input, kit_slot *slot,
                                    const char *data, umo_reason *why, umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    const umo_io *io = &model->inputs[input];
    bool on_device = instance->device != NULL;
    size_t size_bytes = slot->tensor.size_bytes;
    if ((uintptr_t)data % io->align_bytes != 0) {
        *why = UMO_REASON_MISALIGNED;
        return UMO_OK;
    }
    if (on_device && size_bytes < instance->zero_copy_bytes) {
        *why = UMO_REASON_BELOW_THRESHOLD;
        return UMO_OK;
    }
    kit_place place;
    if (kit_io_is_servers(io)) {
        kit_place_servers(data, size_bytes, &place);
    } else {
        kit_place_find(instance, data, size_bytes, &place);
    }
    slot->view = place.view;
    if (io->control && place.client_writable && !model->unified.trusted_clients) {
        *why = UMO_REASON_CONTROL_DATA;
        return UMO_OK;
    }
    if (!place.guarded) {
        *why = place.why;
        return UMO_OK;
    }
    slot->tensor.data = place.data;
    if (on_device) {
        umo_status status = kit_slot_wrap(batch, slot, &place, size_bytes, false, why, error);
        if (status == UMO_E_REFUSED) {
            return UMO_OK;
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    slot->in_place = true;
    slot->extent = place.extent;
    *why = UMO_REASON_NONE;
    return UMO_OK;
}

/* Copies what is not in place, once, to where its pattern's side is fastest. Strings are looked at
 * again in the copy, so theirs is the host's. */
static umo_status slot_copy(umo_batch *batch, size_t input, kit_slot *slot, umo_reason reason,
                            umo_error *error)
{
    const umo_io *io = &batch->instance->model->inputs[input];
    bool staged =
        io->dtype != UMO_BYTES && kit_is_staged(batch->instance, io, slot->tensor.size_bytes);
    return staged ? slot_upload(batch, input, slot, reason, error)
                  : slot_gather(batch, input, slot, reason, error);
}

static umo_status slot_place(umo_batch *batch, size_t input, kit_slot *slot, umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    bool on_device = instance->device != NULL;
    if (on_device && !model->unified.enable) {
        return slot_upload(batch, input, slot, UMO_REASON_DISABLED, error);
    }
    if (model->decoupled && batch->count > 1) {
        return slot_gather(batch, input, slot, UMO_REASON_OUTLIVES, error);
    }
    const char *run = run_find(batch, input);
    if (run == NULL) {
        return slot_copy(batch, input, slot, UMO_REASON_SCATTERED, error);
    }
    umo_reason why = UMO_REASON_NONE;
    umo_status status = slot_use_in_place(batch, input, slot, run, &why, error);
    if (status == UMO_OK && why != UMO_REASON_NONE) {
        return slot_copy(batch, input, slot, why, error);
    }
    if (status == UMO_OK && batch->count > 1 && !on_device && !batch->arrival_order) {
        umo_scope_count_copy_avoided(model->scope, UMO_DIRECTION_IN, slot->tensor.size_bytes);
    }
    return status;
}

/* Requests lie one behind the other in rows; ragged ones in elements, whatever shapes they have. */
static void shape_of_batch(const umo_batch *batch, size_t input, umo_shape *out)
{
    if (!batch->instance->model->inputs[input].ragged) {
        *out = batch->members[0]->inputs[input].shape;
        out->dims[0] = batch->rows;
        return;
    }
    *out = (umo_shape){.rank = 1};
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t count = 0;
        umo_status_ignore(umo_shape_count(&batch->members[i]->inputs[input].shape, &count));
        out->dims[0] += (int64_t)count;
    }
}

/* Places an input that the requests bring. */
static umo_status input_take(umo_batch *batch, size_t input, kit_slot *slot, umo_error *error)
{
    const umo_io *io = &batch->instance->model->inputs[input];
    const umo_shape *shape = &batch->members[0]->inputs[input].shape;
    umo_shape common;
    if (batch->count > 1 || io->ragged) {
        shape_of_batch(batch, input, &common);
        shape = &common;
    }
    uint64_t total = 0;
    for (size_t i = 0; i < batch->count; i++) {
        total += batch->members[i]->inputs[input].size_bytes;
    }
    umo_status status =
        umo_tensor_init(&slot->tensor, kit_nothing, (size_t)total, io->dtype, shape, error);
    return status == UMO_OK && total > 0 ? slot_place(batch, input, slot, error) : status;
}

umo_status umo_batch_input(umo_batch *batch, size_t input, umo_tensor *out, umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    if (input >= model->input_count || !umo_batch_has_input(batch, input)) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the batch has no such input");
    }
    kit_slot *slot = &batch->inputs[input];
    if (slot->used) {
        *out = slot->tensor;
        return UMO_OK;
    }
    slot->used = true;
    slot->in_place = false;
    slot->extent = (kit_extent){0};
    slot->reason = UMO_REASON_NONE;
    umo_status status = model->inputs[input].source == UMO_IO_BATCH
                            ? kit_batch_input_make(batch, input, slot, error)
                            : input_take(batch, input, slot, error);
    if (status == UMO_OK && slot->tensor.size_bytes > 0 && instance->device != NULL) {
        status = kit_slot_open(batch, slot, UMO_READ, error);
        if (status == UMO_E_BUSY && slot->in_place) {
            /* Another instance is writing an output there: what is read is the clients' race,
             * but not ours. */
            kit_slot_unbind(slot);
            status = slot_gather(batch, input, slot, UMO_REASON_OVERLAP, error);
            if (status == UMO_OK) {
                status = kit_slot_open(batch, slot, UMO_READ, error);
            }
        }
    }
    if (status != UMO_OK) {
        /* An engine that asks again gets another try, and never a half-made tensor. */
        kit_slot_finish(batch, slot, false);
        return status;
    }
    *out = slot->tensor;
    return UMO_OK;
}

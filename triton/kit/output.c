/*
 * Outputs of a batch: written where the client wants them, or into scratch memory and delivered
 * from there.
 *
 * A response buffer is asked for once, when its size is certain. A batch's outputs are in place
 * when the response buffers lie one behind the other, as neighbouring slots of one region do.
 */
#include "kit/kit.h"

#include <string.h>

bool umo_batch_wants_output(const umo_batch *batch, size_t output)
{
    for (size_t i = 0; i < batch->count; i++) {
        const kit_output *out = &batch->members[i]->outputs[output];
        if (out->wanted || out->kept) {
            return true;
        }
    }
    return false;
}

/* The responses' parts of a scattered output are all of it. */
static umo_status scatter_fits(const umo_batch *batch, size_t output, umo_dtype dtype,
                               const umo_shape *shape, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    const umo_io *io = &model->outputs[output];
    char text[256];
    uint64_t total = 0;
    uint64_t parts = 0;
    bool fits = true; /* clients choose the shapes, and a sum of them may be any number */
    for (size_t i = 0; i < batch->count; i++) {
        uint64_t part = kit_output_bytes(model, batch->members[i], output, 0);
        fits = !__builtin_add_overflow(parts, part, &parts) && fits;
    }
    if (!fits || dtype != io->dtype || umo_shape_bytes(shape, dtype, &total) != UMO_OK ||
        total != parts) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "output '%s' of model '%s' came out as %s %s; the requests' shapes "
                             "need %llu bytes of %s",
                             io->name, model->name, umo_dtype_name(dtype),
                             umo_shape_format(shape, text, sizeof text), (unsigned long long)parts,
                             umo_dtype_name(io->dtype));
    }
    return UMO_OK;
}

static umo_status shape_check(const umo_batch *batch, size_t output, umo_dtype dtype,
                              const umo_shape *shape, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    const umo_io *io = &model->outputs[output];
    uint32_t skip = model->batch_max > 0 ? 1 : 0;
    char text[256];
    char want[256];
    if (io->scattered) {
        return scatter_fits(batch, output, dtype, shape, error);
    }
    bool fits = dtype == io->dtype && shape->rank == io->dims.rank + skip &&
                (skip == 0 || shape->dims[0] == batch->rows);
    for (uint32_t d = 0; fits && d < io->dims.rank; d++) {
        fits = io->dims.dims[d] < 0 || io->dims.dims[d] == shape->dims[d + skip];
    }
    uint64_t count;
    if (!fits || umo_shape_count(shape, &count) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "output '%s' of model '%s' came out as %s %s; the configuration says "
                             "%s %s%s",
                             io->name, model->name, umo_dtype_name(dtype),
                             umo_shape_format(shape, text, sizeof text), umo_dtype_name(io->dtype),
                             umo_shape_format(&io->dims, want, sizeof want),
                             skip > 0 ? " behind the batch's size" : "");
    }
    return UMO_OK;
}

/* Asks the server for one request's output memory. */
static umo_status response_ask(umo_batch *batch, size_t output, kit_request *request,
                               const umo_shape *shape, size_t size_bytes, umo_error *error)
{
    const umo_io *io = &batch->instance->model->outputs[output];
    umo_status status = UMO_OK;
    if (request->outputs[output].asked) {
        return UMO_OK; /* its size was certain, and is still the same */
    }
    if (request->response == NULL) {
        status =
            kit_from_triton(TRITONBACKEND_ResponseNew(&request->response, request->triton), error);
    }
    TRITONBACKEND_Output *triton = NULL;
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONBACKEND_ResponseOutput(request->response, &triton, io->name,
                                                              (TRITONSERVER_DataType)io->dtype,
                                                              shape->dims, shape->rank),
                                 error);
    }
    void *data = NULL;
    TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
    int64_t type_id = 0;
    if (status == UMO_OK) {
        status = kit_from_triton(
            TRITONBACKEND_OutputBuffer(triton, &data, size_bytes, &type, &type_id), error);
    }
    if (status == UMO_OK && type == TRITONSERVER_MEMORY_GPU) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "the server gave GPU memory for output '%s'", io->name);
    }
    if (status == UMO_OK) {
        request->outputs[output].asked = true;
        request->outputs[output].data = data;
        request->outputs[output].size_bytes = size_bytes;
    }
    return status;
}

/* Likewise what the server keeps as a state. */
static umo_status memory_ask(umo_batch *batch, size_t output, kit_request *request,
                             const umo_shape *shape, size_t size_bytes, umo_error *error)
{
    umo_status status = UMO_OK;
    if (request->outputs[output].wanted) {
        status = response_ask(batch, output, request, shape, size_bytes, error);
    }
    if (status == UMO_OK && request->outputs[output].kept) {
        status = kit_state_ask(batch, output, request, shape, size_bytes, error);
    }
    return status;
}

/* Asks for every wanted response's memory; *run is its first byte when all of it lies in one run,
 * else NULL. */
static void responses_ask(umo_batch *batch, size_t output, const umo_shape *shape, size_t row_bytes,
                          char **run)
{
    const umo_model *model = batch->instance->model;
    const char *next = NULL;
    char *first = NULL;
    bool one_run = true;
    for (size_t i = 0; i < batch->count; i++) {
        kit_request *request = batch->members[i];
        size_t size_bytes = kit_output_bytes(model, request, output, row_bytes);
        const kit_output *out = &request->outputs[output];
        if ((!out->wanted && !out->kept) || request->error.status != UMO_OK) {
            one_run = false;
            continue;
        }
        umo_shape own = *shape;
        if (model->outputs[output].scattered) {
            umo_status_ignore(kit_scatter_shape(model, request, output, &own));
        } else if (model->batch_max > 0) {
            own.dims[0] = request->rows;
        }
        umo_error error = {0};
        if (memory_ask(batch, output, request, &own, size_bytes, &error) != UMO_OK) {
            (void)kit_request_fail(request, error.status, "%s", error.text);
            one_run = false;
            continue;
        }
        char *data = out->state_data != NULL ? out->state_data : out->data;
        if (size_bytes == 0) {
            continue; /* lies nowhere, so it is in nobody's way */
        }
        one_run = one_run && (first == NULL || data == next);
        first = first == NULL ? data : first;
        next = data + size_bytes;
    }
    *run = one_run ? first : NULL;
}

/* The bytes of a row of an output, if the configuration leaves nothing open. */
static bool output_is_certain(const umo_io *io, size_t *row_bytes)
{
    bool certain =
        io->dtype != UMO_BYTES && io->source == UMO_IO_REQUEST && !io->scattered && !io->state;
    for (uint32_t d = 0; certain && d < io->dims.rank; d++) {
        certain = io->dims.dims[d] >= 0;
    }
    uint64_t size_bytes = 0;
    certain = certain && umo_shape_bytes(&io->dims, io->dtype, &size_bytes) == UMO_OK;
    *row_bytes = (size_t)size_bytes;
    return certain;
}

void kit_outputs_foresee(umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->output_count; i++) {
        const umo_io *io = &model->outputs[i];
        size_t row_bytes;
        uint64_t total;
        if (!output_is_certain(io, &row_bytes) ||
            __builtin_mul_overflow((uint64_t)row_bytes, (uint64_t)batch->rows, &total) ||
            total > SIZE_MAX) {
            continue;
        }
        umo_shape shape = {.rank = io->dims.rank + 1, .dims = {batch->rows}};
        memcpy(shape.dims + 1, io->dims.dims, io->dims.rank * sizeof shape.dims[0]);
        char *run;
        responses_ask(batch, i, &shape, row_bytes, &run);
    }
}

/* Would writing the range destroy an input or another output that is in place? */
static bool output_overlaps(const umo_batch *batch, const kit_slot *self, const kit_extent *range)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    const umo_io *io = &model->outputs[self - batch->outputs];
    for (size_t i = 0; i < model->input_count; i++) {
        const kit_slot *slot = &batch->inputs[i];
        if (io->overwrites && io->state && io->pair == i) {
            continue; /* its engine takes care */
        }
        if (slot->used && slot->in_place && kit_extents_overlap(range, &slot->extent)) {
            return true;
        }
        /* An input that is taken later must not find its bytes overwritten. */
        for (size_t m = 0; !slot->used && m < batch->count; m++) {
            const kit_input *in = &batch->members[m]->inputs[i];
            if (in->present) {
                kit_extent extent = kit_extent_find(instance, in->data, (size_t)in->size_bytes);
                if (kit_extents_overlap(range, &extent)) {
                    return true;
                }
            }
        }
    }
    for (size_t i = 0; i < model->output_count; i++) {
        const kit_slot *slot = &batch->outputs[i];
        if (slot != self && slot->used && slot->in_place &&
            kit_extents_overlap(range, &slot->extent)) {
            return true;
        }
    }
    return false;
}

static umo_status slot_use_in_place(umo_batch *batch, size_t output, kit_slot *slot, char *run,
                                    umo_reason *why, umo_error *error)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    size_t size_bytes = slot->tensor.size_bytes;
    bool on_device = instance->device != NULL;
    if (!model->unified.enable) {
        *why = UMO_REASON_DISABLED;
    } else if (run == NULL) {
        *why = UMO_REASON_SCATTERED;
    } else if ((uintptr_t)run % model->outputs[output].align_bytes != 0) {
        *why = UMO_REASON_MISALIGNED;
    } else if (on_device && size_bytes < instance->zero_copy_bytes) {
        *why = UMO_REASON_BELOW_THRESHOLD;
    }
    if (*why != UMO_REASON_NONE) {
        return UMO_OK;
    }
    kit_place place;
    if (model->outputs[output].state) {
        kit_place_servers(run, size_bytes, &place);
    } else {
        kit_place_find(instance, run, size_bytes, &place);
    }
    slot->view = place.view;
    if (!place.guarded) {
        *why = place.why;
        return UMO_OK;
    }
    if ((batch->crowded && place.client_writable) || output_overlaps(batch, slot, &place.extent)) {
        *why = UMO_REASON_OVERLAP;
        return UMO_OK;
    }
    slot->tensor.data = place.data;
    if (on_device) {
        umo_status status = kit_slot_wrap(batch, slot, &place, size_bytes, true, why, error);
        if (status == UMO_E_REFUSED) {
            return UMO_OK;
        }
        if (status != UMO_OK) {
            return status;
        }
    }
    slot->in_place = true;
    slot->extent = place.extent;
    return UMO_OK;
}

static umo_status slot_take_scratch(umo_batch *batch, const umo_io *io, kit_slot *slot,
                                    umo_error *error)
{
    umo_instance *instance = batch->instance;
    umo_model *model = instance->model;
    slot->staged = kit_is_staged(instance, io, slot->tensor.size_bytes) &&
                   (!io->state || !model->unified.enable);
    umo_status status =
        slot->staged ? umo_pool_alloc(instance->staging, slot->tensor.size_bytes, model->owner,
                                      &slot->block, error)
                     : kit_scratch_take(instance, slot->tensor.size_bytes, &slot->block, error);
    if (status == UMO_OK) {
        slot->tensor.buffer = slot->block;
        slot->tensor.offset_bytes = 0;
        slot->tensor.data = umo_buffer_host(slot->block);
    }
    return status;
}

static umo_status placing_check(const umo_batch *batch, size_t output, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    if (output >= model->output_count || batch->outputs[output].used) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the batch has no such output left to place");
    }
    if (batch->flight != NULL && model->outputs[output].source != UMO_IO_STATE) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "output '%s' of a batch that was taken belongs to a response",
                             model->outputs[output].name);
    }
    return UMO_OK;
}

umo_status umo_batch_output(umo_batch *batch, size_t output, umo_dtype dtype,
                            const umo_shape *shape, umo_tensor *out, umo_error *error)
{
    umo_instance *instance = batch->instance;
    uint64_t total = 0;
    umo_status status = placing_check(batch, output, error);
    if (status == UMO_OK) {
        status = shape_check(batch, output, dtype, shape, error);
    }
    if (status == UMO_OK && umo_shape_bytes(shape, dtype, &total) != UMO_OK) {
        status = umo_error_set(error, UMO_E_INVAL, 0, "output %zu has no certain size", output);
    }
    if (status != UMO_OK) {
        return status;
    }
    kit_slot *slot = &batch->outputs[output];
    slot->in_place = false;
    slot->late = false;
    slot->extent = (kit_extent){0};
    slot->reason = UMO_REASON_NONE;
    status = umo_tensor_init(&slot->tensor, kit_nothing, (size_t)total, dtype, shape, error);
    if (status != UMO_OK) {
        return status;
    }
    slot->used = true;
    slot->row_bytes = batch->rows > 0 ? (size_t)total / (size_t)batch->rows : 0;
    char *run = NULL;
    responses_ask(batch, output, shape, slot->row_bytes, &run);
    if (total > 0) {
        umo_reason why = UMO_REASON_NONE;
        status = slot_use_in_place(batch, output, slot, run, &why, error);
        slot->reason = why;
        if (status == UMO_OK && !slot->in_place) {
            status = slot_take_scratch(batch, &instance->model->outputs[output], slot, error);
        }
        if (status == UMO_OK && instance->device != NULL) {
            status = kit_slot_open(batch, slot, UMO_WRITE, error);
            if (status == UMO_E_BUSY && slot->in_place) {
                /* Clients share an output, and another instance is at it. Each gets a whole answer,
                 * the last one stays. */
                kit_slot_unbind(slot);
                slot->reason = UMO_REASON_OVERLAP;
                status = slot_take_scratch(batch, &instance->model->outputs[output], slot, error);
                if (status == UMO_OK) {
                    status = kit_slot_open(batch, slot, UMO_WRITE, error);
                }
            }
        }
    }
    if (status != UMO_OK) {
        /* An engine that goes on all the same has given no output. */
        kit_slot_finish(batch, slot, false);
        return status;
    }
    *out = slot->tensor;
    return UMO_OK;
}

/* Splits serialized strings over the requests: each gets the elements of its rows. */
static umo_status strings_deliver(umo_batch *batch, size_t output, const umo_shape *shape,
                                  const void *data, size_t size_bytes, umo_reason reason,
                                  umo_error *error)
{
    bool batching = batch->instance->model->batch_max > 0;
    uint64_t count = 0;
    umo_status status = umo_shape_count(shape, &count);
    if (status == UMO_OK) {
        status = umo_bytes_check(data, size_bytes, count, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    uint64_t per_row = batch->rows > 0 ? count / (uint64_t)batch->rows : 0;
    size_t cursor = 0;
    for (size_t i = 0; i < batch->count; i++) {
        kit_request *request = batch->members[i];
        size_t start = cursor;
        for (uint64_t e = 0; e < per_row * (uint64_t)request->rows; e++) {
            const void *element;
            size_t element_bytes;
            umo_status_ignore(umo_bytes_next(data, size_bytes, &cursor, &element, &element_bytes));
        }
        const kit_output *out = &request->outputs[output];
        if ((!out->wanted && !out->kept) || request->error.status != UMO_OK) {
            continue;
        }
        umo_shape own = *shape;
        if (batching) {
            own.dims[0] = request->rows;
        }
        umo_error why = {0};
        const char *strings = (const char *)data + start;
        if (memory_ask(batch, output, request, &own, cursor - start, &why) != UMO_OK) {
            (void)kit_request_fail(request, why.status, "%s", why.text);
        } else if (cursor > start) {
            if (out->data != NULL) {
                kit_response_write(batch, request, output, strings, cursor - start, reason);
            }
            kit_state_write(batch, request, output, strings, cursor - start, reason);
        }
    }
    return UMO_OK;
}

umo_status umo_batch_output_late(umo_batch *batch, size_t output, umo_dtype dtype,
                                 const umo_shape *shape, const void *data, size_t size_bytes,
                                 umo_reason reason, umo_error *error)
{
    umo_status status = placing_check(batch, output, error);
    if (status == UMO_OK) {
        status = shape_check(batch, output, dtype, shape, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    kit_slot *slot = &batch->outputs[output];
    slot->used = true;
    slot->late = true;
    slot->in_place = false;
    slot->extent = (kit_extent){0};
    if (dtype == UMO_BYTES) {
        status = strings_deliver(batch, output, shape, data, size_bytes, reason, error);
        slot->used = status == UMO_OK;
        return status;
    }
    uint64_t total;
    if (umo_shape_bytes(shape, dtype, &total) != UMO_OK || total != size_bytes) {
        slot->used = false;
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "output '%s' has %zu bytes, not what its shape "
                             "needs",
                             batch->instance->model->outputs[output].name, size_bytes);
    }
    size_t row_bytes = batch->rows > 0 ? size_bytes / (size_t)batch->rows : 0;
    char *run = NULL;
    responses_ask(batch, output, shape, row_bytes, &run);
    kit_batch_scatter(batch, output, data, row_bytes, reason, false);
    kit_states_write(batch, output, data, row_bytes, reason);
    return UMO_OK;
}

/* The host reads what the device wrote: the counterpart of the input's device bracket. */
static umo_status host_bracket(const umo_batch *batch, const kit_slot *slot, umo_access *access)
{
    umo_fence_set waits;
    *access = (umo_access){.offset_bytes = slot->tensor.offset_bytes,
                           .size_bytes = slot->tensor.size_bytes,
                           .side = UMO_SIDE_HOST,
                           .use = UMO_READ,
                           .queue = batch->instance->queue,
                           .scope = batch->instance->model->scope};
    umo_status status = umo_access_begin(slot->tensor.buffer, access, &waits);
    if (status == UMO_OK) {
        status = umo_fence_set_wait(&waits, UINT64_MAX);
        if (status != UMO_OK) {
            umo_status_ignore(umo_access_end(slot->tensor.buffer, access, (umo_fence){0}));
        }
    }
    return status;
}

/* Memory that must not be touched gets its bytes by way of ours. */
static umo_status response_download_around(umo_batch *batch, const kit_slot *slot,
                                           size_t offset_bytes, const kit_place *place,
                                           size_t size_bytes, umo_error *why)
{
    umo_instance *instance = batch->instance;
    umo_buffer *block = NULL;
    umo_status status = kit_scratch_take(instance, size_bytes, &block, NULL);
    if (status != UMO_OK) {
        return status;
    }
    umo_fence fence;
    status = umo_buffer_download(slot->block, offset_bytes, umo_buffer_host(block), size_bytes,
                                 instance->queue, &fence);
    if (status == UMO_OK) {
        status = umo_fence_wait(fence, UINT64_MAX);
    }
    if (status == UMO_OK) {
        umo_status_ignore(kit_place_write(place, 0, umo_buffer_host(block), size_bytes, why));
    }
    umo_status_ignore(umo_pool_free(instance->scratch, block));
    return status;
}

static umo_status response_download(umo_batch *batch, kit_request *request, size_t output,
                                    const kit_slot *slot, size_t offset_bytes, umo_fence *fence)
{
    umo_instance *instance = batch->instance;
    kit_output *out = &request->outputs[output];
    const kit_place *place = kit_output_place(instance, request, out);
    if (place->guarded) {
        return umo_buffer_download(slot->block, offset_bytes, place->data, out->size_bytes,
                                   instance->queue, fence);
    }
    umo_error why = {0};
    umo_status status =
        response_download_around(batch, slot, offset_bytes, place, out->size_bytes, &why);
    if (status == UMO_OK && why.status != UMO_OK) {
        (void)kit_request_fail(request, why.status, "output '%s': %s",
                               instance->model->outputs[output].name, why.text);
    }
    return status;
}

/* The conventional way back: each request's rows straight from the device into its response. */
static umo_status responses_download(umo_batch *batch, size_t output, const kit_slot *slot)
{
    size_t offset_bytes = 0;
    umo_fence_set waits = {0};
    umo_status status = UMO_OK;
    for (size_t i = 0; i < batch->count && status == UMO_OK; i++) {
        kit_request *request = batch->members[i];
        size_t size_bytes =
            kit_output_bytes(batch->instance->model, request, output, slot->row_bytes);
        if (request->outputs[output].data != NULL && size_bytes > 0) {
            umo_fence fence = {0};
            status = response_download(batch, request, output, slot, offset_bytes, &fence);
            if (status == UMO_OK && !umo_fence_set_add(&waits, fence)) {
                status = umo_fence_wait(fence, UINT64_MAX);
            }
        }
        char *state = request->outputs[output].state_data;
        if (state != NULL && size_bytes > 0 && status == UMO_OK) {
            umo_fence fence = {0};
            status = umo_buffer_download(slot->block, offset_bytes, state, size_bytes,
                                         batch->instance->queue, &fence);
            if (status == UMO_OK && !umo_fence_set_add(&waits, fence)) {
                status = umo_fence_wait(fence, UINT64_MAX);
            }
        }
        offset_bytes += size_bytes;
    }
    umo_status waited = umo_fence_set_wait(&waits, UINT64_MAX);
    return status != UMO_OK ? status : waited;
}

static umo_status slot_deliver(umo_batch *batch, size_t output, kit_slot *slot)
{
    const umo_model *model = batch->instance->model;
    const umo_io *io = &model->outputs[output];
    bool on_device = batch->instance->device != NULL;
    umo_status status = UMO_OK;
    if (on_device) {
        status = umo_access_end(slot->tensor.buffer, &slot->access, batch->done);
        slot->open = false;
        if (status == UMO_OK && slot->staged) {
            return responses_download(batch, output, slot);
        }
    }
    umo_access access;
    if (on_device && status == UMO_OK) {
        status = host_bracket(batch, slot, &access);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (!slot->in_place) {
        kit_batch_scatter(batch, output, umo_buffer_host(slot->block), slot->row_bytes,
                          slot->reason, true);
        if (io->state) {
            kit_states_write(batch, output, umo_buffer_host(slot->block), slot->row_bytes,
                             slot->reason);
        }
    } else {
        if (io->state && io->source == UMO_IO_REQUEST) {
            /* It was computed where the server keeps it; the client has the other one. */
            kit_batch_scatter(batch, output, slot->tensor.data, slot->row_bytes, UMO_REASON_STATE,
                              false);
        }
        if (!on_device) {
            umo_scope_count_copy_avoided(model->scope, UMO_DIRECTION_OUT, slot->tensor.size_bytes);
        }
    }
    return on_device ? umo_access_end(slot->tensor.buffer, &access, (umo_fence){0}) : UMO_OK;
}

umo_status kit_outputs_deliver(umo_batch *batch, umo_error *error)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->output_count; i++) {
        kit_slot *slot = &batch->outputs[i];
        if (!slot->used || slot->late || slot->tensor.size_bytes == 0) {
            continue;
        }
        umo_status status = slot_deliver(batch, i, slot);
        if (status != UMO_OK) {
            return umo_error_set(error, status, 0,
                                 "output '%s' of model '%s' could not be read "
                                 "back from the device",
                                 model->outputs[i].name, model->name);
        }
    }
    return UMO_OK;
}

/*
 * Where memory lies and how it is bound: own views of shared memory, wraps on the device, brackets.
 */
#include "kit/kit.h"

#include <string.h>

char kit_nothing[64];

/* The mapping of an address, asked once a mapping and execution: the server holds it while the
 * request lives. NULL when nobody can tell, or copying is cheaper than finding out. Good until the
 * next call. */
static const umo_mapping *mapping_find(umo_instance *instance, const void *data, size_t size_bytes)
{
    const umo_mapping *mapping = NULL;
    umo_status status = umo_mappings_find(instance->mappings, data, size_bytes, &mapping);
    return status == UMO_OK ? mapping : NULL;
}

static size_t size_of(uint64_t size_bytes)
{
    return size_bytes < SIZE_MAX ? (size_t)size_bytes : SIZE_MAX;
}

static bool has_patterns(const umo_model *model)
{
    bool found = false;
    for (size_t i = 0; i < model->input_count; i++) {
        found = found || model->inputs[i].pattern != UMO_PATTERN_UNKNOWN;
    }
    for (size_t i = 0; i < model->output_count; i++) {
        found = found || model->outputs[i].pattern != UMO_PATTERN_UNKNOWN;
    }
    return found;
}

void kit_thresholds_find(umo_instance *instance)
{
    size_t said = instance->model->unified.zero_copy_threshold;
    instance->zero_copy_bytes = said;
    instance->import_bytes = said;
    if (said == UMO_THRESHOLD_AUTO && instance->device != NULL) {
        umo_zero_copy measured;
        umo_device_zero_copy(instance->device, &measured);
        instance->zero_copy_bytes = size_of(measured.cached_bytes);
        instance->import_bytes = size_of(measured.import_bytes);
    }
    const umo_device_info *info =
        instance->device != NULL ? umo_device_info_get(instance->device) : NULL;
    if (info != NULL && has_patterns(instance->model) && (info->caps & UMO_CAP_PRIVATE) != 0 &&
        (info->caps & UMO_CAP_HOST_PROCESSOR) == 0) {
        if (umo_device_calibrate(instance->device, NULL, &instance->costs, NULL) != UMO_OK) {
            umo_cost_model_assume(info, &instance->costs);
        }
        instance->costs_known = true;
    }
}

bool kit_is_staged(const umo_instance *instance, const umo_io *io, size_t size_bytes)
{
    if (instance->device == NULL || !instance->model->unified.enable) {
        return instance->device != NULL;
    }
    return instance->costs_known && io->pattern != UMO_PATTERN_UNKNOWN &&
           umo_placement_initial(&instance->costs, size_bytes, io->pattern) == UMO_PRIVATE;
}

static kit_extent extent_in(const umo_mapping *mapping, const void *data, size_t size_bytes)
{
    kit_extent extent = {.data = data, .size_bytes = size_bytes};
    if (mapping != NULL && mapping->shared) {
        extent.device = mapping->device;
        extent.inode = mapping->inode;
        extent.offset_bytes = mapping->offset_bytes + ((uintptr_t)data - mapping->start);
    }
    return extent;
}

bool kit_extents_overlap(const kit_extent *a, const kit_extent *b)
{
    if (a->data == NULL || b->data == NULL || a->size_bytes == 0 || b->size_bytes == 0) {
        return false;
    }
    bool one_file = a->inode != 0 && a->inode == b->inode && a->device == b->device;
    return (a->data < b->data + b->size_bytes && b->data < a->data + a->size_bytes) ||
           (one_file && a->offset_bytes < b->offset_bytes + b->size_bytes &&
            b->offset_bytes < a->offset_bytes + a->size_bytes);
}

kit_extent kit_extent_find(umo_instance *instance, const void *data, size_t size_bytes)
{
    return extent_in(data != NULL ? mapping_find(instance, data, size_bytes) : NULL, data,
                     size_bytes);
}

/* Does a range that begins in a mapping lie in it, or in private ones that follow each other? The
 * system splits an allocator's memory where parts of it were treated differently. */
static bool lies_in(umo_instance *instance, umo_mapping mapping, const void *data,
                    size_t size_bytes)
{
    enum {
        MAPPINGS_MAX = 16
    };
    uintptr_t address = (uintptr_t)data;
    for (int i = 0; i < MAPPINGS_MAX; i++) {
        if (size_bytes <= mapping.end - address) {
            return true;
        }
        size_bytes -= mapping.end - address;
        address = mapping.end;
        const umo_mapping *next =
            mapping.shared ? NULL : mapping_find(instance, (const void *)address, size_bytes);
        if (next == NULL || next->shared) {
            return false;
        }
        mapping = *next;
    }
    return false;
}

void kit_place_find(umo_instance *instance, const void *data, size_t size_bytes, kit_place *out)
{
    const umo_mapping *found = mapping_find(instance, data, size_bytes);
    out->data = (char *)(uintptr_t)data;
    out->view = NULL;
    out->extent = extent_in(found, data, size_bytes);
    /* Where nobody can tell whose memory it is, a client may be able to write to it. */
    out->client_writable = true;
    out->guarded = false;
    out->beyond = false;
    out->why = UMO_REASON_NO_IDENTITY;
    if (found == NULL) {
        return;
    }
    /* Never asked for again: to ask is what copying is weighed against. */
    const umo_mapping mapping = *found;
    bool whole = lies_in(instance, mapping, data, size_bytes);
    out->client_writable = !whole || mapping.shared;
    out->guarded = !out->client_writable;
    /* A server that adds an offset and a size without looking for the carry lends memory behind a
     * client's region, which is somebody else's. */
    out->beyond = mapping.shared && !whole;
    out->why = out->guarded ? UMO_REASON_NONE
               : whole      ? UMO_REASON_LIMIT
                            : UMO_REASON_NOT_ONE_MAPPING;
    if (mapping.shared) {
        void *own = NULL;
        umo_status status = umo_view_find(umo_context_registry(instance->model->context), out->data,
                                          size_bytes, &mapping, &own, &out->view, NULL);
        if (status == UMO_OK) {
            out->data = own;
            out->guarded = true;
            out->why = UMO_REASON_NONE;
        }
    }
}

void kit_place_servers(const void *data, size_t size_bytes, kit_place *out)
{
    *out = (kit_place){.data = (char *)(uintptr_t)data,
                       .guarded = true,
                       .extent = {.data = data, .size_bytes = size_bytes}};
}

const kit_place *kit_input_place(umo_instance *instance, kit_request *request, kit_input *input)
{
    if (!input->placed) {
        const umo_io *io = &instance->model->inputs[input - request->inputs];
        if (kit_io_is_servers(io)) {
            kit_place_servers(input->data, (size_t)input->size_bytes, &input->place);
        } else {
            kit_place_find(instance, input->data, (size_t)input->size_bytes, &input->place);
        }
        input->placed = true;
        request->places = true;
    }
    return &input->place;
}

const kit_place *kit_output_place(umo_instance *instance, kit_request *request, kit_output *output)
{
    if (!output->placed) {
        const umo_io *io = &instance->model->outputs[output - request->outputs];
        if (kit_io_is_servers(io)) {
            kit_place_servers(output->data, output->size_bytes, &output->place);
        } else {
            kit_place_find(instance, output->data, output->size_bytes, &output->place);
        }
        output->placed = true;
        request->places = true;
    }
    return &output->place;
}

static umo_status place_beyond(umo_error *error)
{
    return umo_error_set(error, UMO_E_INVAL, 0,
                         "it ends behind its shared memory: make the segment longer, or the region "
                         "that is registered shorter");
}

static umo_status place_gone(umo_error *error)
{
    return umo_error_set(error, UMO_E_INVAL, 0,
                         "its shared memory shrank while it was used: leave a segment as it is "
                         "until the answer has come");
}

umo_status kit_place_read(const kit_place *place, size_t offset_bytes, void *to, size_t size_bytes,
                          umo_error *error)
{
    if (place->beyond) {
        return place_beyond(error);
    }
    if (place->guarded) {
        memcpy(to, place->data + offset_bytes, size_bytes);
        return UMO_OK;
    }
    return umo_memory_read(to, place->data + offset_bytes, size_bytes) == size_bytes
               ? UMO_OK
               : place_gone(error);
}

umo_status kit_place_write(const kit_place *place, size_t offset_bytes, const void *from,
                           size_t size_bytes, umo_error *error)
{
    if (place->beyond) {
        return place_beyond(error);
    }
    if (place->guarded) {
        /* A late source may be the client's memory. */
        memmove(place->data + offset_bytes, from, size_bytes);
        return UMO_OK;
    }
    return umo_memory_write(place->data + offset_bytes, from, size_bytes) == size_bytes
               ? UMO_OK
               : place_gone(error);
}

static bool place_lost(const kit_place *place, size_t size_bytes)
{
    return place->view != NULL && umo_view_lost(place->view, place->data, size_bytes);
}

static void request_lose(kit_request *request, const char *what, const char *name)
{
    (void)kit_request_fail(request, UMO_E_INVAL,
                           "the shared memory of %s '%s' shrank while it was used", what, name);
}

/* A tensor in place lies in one view for the whole batch: whose part of it is gone? */
static void slot_check(umo_batch *batch, const kit_slot *slot, const char *what, size_t index,
                       bool output)
{
    const umo_io *io =
        output ? &batch->instance->model->outputs[index] : &batch->instance->model->inputs[index];
    const char *data = slot->tensor.data;
    if (!slot->in_place || slot->view == NULL ||
        !umo_view_lost(slot->view, data, slot->tensor.size_bytes)) {
        return;
    }
    for (size_t i = 0; i < batch->count; i++) {
        kit_request *request = batch->members[i];
        size_t size_bytes =
            output ? kit_output_bytes(batch->instance->model, request, index, slot->row_bytes)
                   : (size_t)request->inputs[index].size_bytes;
        if (size_bytes > 0 && umo_view_lost(slot->view, data, size_bytes)) {
            request_lose(request, what, io->name);
        }
        data += size_bytes;
    }
}

void kit_batch_check_places(umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->input_count; i++) {
        slot_check(batch, &batch->inputs[i], "input", i, false);
    }
    for (size_t i = 0; i < model->output_count; i++) {
        slot_check(batch, &batch->outputs[i], "output", i, true);
    }
    for (size_t m = 0; m < batch->count; m++) {
        kit_request *request = batch->members[m];
        if (!request->places) {
            continue;
        }
        for (size_t i = 0; i < model->input_count; i++) {
            const kit_input *in = &request->inputs[i];
            if (in->placed && place_lost(&in->place, (size_t)in->size_bytes)) {
                request_lose(request, "input", model->inputs[i].name);
            }
        }
        for (size_t i = 0; i < model->output_count; i++) {
            const kit_output *out = &request->outputs[i];
            if (out->placed && place_lost(&out->place, out->size_bytes)) {
                request_lose(request, "output", model->outputs[i].name);
            }
        }
    }
}

void kit_request_leave(const umo_model *model, kit_request *request)
{
    if (!request->places) {
        return;
    }
    for (size_t i = 0; i < model->input_count; i++) {
        if (request->inputs[i].placed) {
            umo_view_release(request->inputs[i].place.view);
            request->inputs[i].placed = false;
        }
    }
    for (size_t i = 0; i < model->output_count; i++) {
        if (request->outputs[i].placed) {
            umo_view_release(request->outputs[i].place.view);
            request->outputs[i].placed = false;
        }
    }
    request->places = false;
}

void kit_batch_wait_for(umo_batch *batch, umo_fence fence)
{
    if (!umo_fence_set_add(&batch->waits, fence)) {
        /* A failure shows again when the work that needed it is waited for. */
        umo_status_ignore(umo_fence_wait(fence, UINT64_MAX));
    }
}

umo_status kit_slot_open(umo_batch *batch, kit_slot *slot, umo_use use, umo_error *error)
{
    umo_instance *instance = batch->instance;
    umo_fence_set waits;
    slot->access = (umo_access){.offset_bytes = slot->tensor.offset_bytes,
                                .size_bytes = slot->tensor.size_bytes,
                                .side = instance->side,
                                .use = use,
                                .queue = instance->queue,
                                .scope = instance->model->scope};
    umo_status status = umo_access_begin(slot->tensor.buffer, &slot->access, &waits);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "a tensor could not be made ready for the device");
    }
    slot->open = true;
    for (size_t i = 0; i < waits.count; i++) {
        kit_batch_wait_for(batch, waits.fences[i]);
    }
    return UMO_OK;
}

umo_status kit_slot_wrap(umo_batch *batch, kit_slot *slot, const kit_place *place,
                         size_t size_bytes, bool writable, umo_reason *why, umo_error *error)
{
    umo_instance *instance = batch->instance;
    umo_scope *scope = instance->model->scope;
    umo_status status;
    if (place->view != NULL) {
        status =
            umo_registry_wrap(umo_context_registry(instance->model->context), instance->device,
                              scope, place->data, size_bytes, writable, &slot->wrap, why, error);
    } else if (size_bytes < instance->import_bytes) {
        *why = UMO_REASON_BELOW_THRESHOLD;
        status = UMO_E_REFUSED;
    } else {
        /* The request keeps this memory alive until the response is sent; the wrap goes before
         * that. */
        umo_import import = {.data = place->data, .size_bytes = size_bytes, .writable = writable};
        status = umo_buffer_import(instance->device, scope, &import, &slot->wrap, why, error);
    }
    if (status == UMO_OK) {
        slot->tensor.buffer = slot->wrap;
        slot->tensor.offset_bytes = 0;
    }
    return status;
}

void kit_slot_unbind(kit_slot *slot)
{
    umo_buffer_release(slot->wrap);
    slot->wrap = NULL;
    umo_view_release(slot->view);
    slot->view = NULL;
    slot->in_place = false;
    slot->extent = (kit_extent){0};
}

void kit_slot_finish(umo_batch *batch, kit_slot *slot, bool succeeded)
{
    if (slot->open) {
        umo_buffer *buffer = slot->tensor.buffer;
        umo_status_ignore(succeeded ? umo_access_end(buffer, &slot->access, batch->done)
                                    : umo_access_abort(buffer, &slot->access, batch->done));
        slot->open = false;
    }
    kit_slot_unbind(slot);
    if (slot->block != NULL) {
        umo_instance *instance = batch->instance;
        if (umo_pool_free(instance->scratch, slot->block) != UMO_OK) {
            umo_status_ignore(umo_pool_free(instance->staging, slot->block));
        }
        slot->block = NULL;
    }
    slot->staged = false;
    slot->used = false;
}

/*
 * Where memory lies and how it is bound: own views of shared memory, wraps on the device, brackets.
 */
#include "kit/kit.h"

#include <string.h>

char kit_nothing[64];

/* The mapping of an address, asked once a mapping and execution: the server holds it while the
 * request lives. NULL when nobody can tell. Good until the next call. */
static const umo_mapping *mapping_find(umo_instance *instance, const void *data)
{
    uintptr_t address = (uintptr_t)data;
    for (size_t i = 0; i < instance->mapping_count; i++) {
        const umo_mapping *known = &instance->mappings[i];
        if (address >= known->start && address < known->end) {
            return known;
        }
    }
    umo_mapping *next = &instance->mappings[instance->mapping_next];
    umo_mapping mapping;
    if (umo_mapping_query(data, &mapping) != UMO_OK) {
        return NULL;
    }
    *next = mapping;
    instance->mapping_next = (instance->mapping_next + 1) % KIT_MAPPINGS;
    if (instance->mapping_count < KIT_MAPPINGS) {
        instance->mapping_count++;
    }
    return next;
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

kit_extent kit_extent_find(umo_instance *instance, const void *data, size_t size_bytes)
{
    return extent_in(data != NULL ? mapping_find(instance, data) : NULL, data, size_bytes);
}

void kit_place_find(umo_instance *instance, const void *data, size_t size_bytes, kit_place *out)
{
    const umo_mapping *mapping = mapping_find(instance, data);
    out->data = (char *)(uintptr_t)data;
    out->view = NULL;
    out->extent = extent_in(mapping, data, size_bytes);
    /* Where nobody can tell whose memory it is, a client may be able to write to it; what lies in
     * several mappings is as little known as what lies in none. */
    out->client_writable =
        mapping == NULL || mapping->shared || size_bytes > mapping->end - (uintptr_t)data;
    if (mapping != NULL && mapping->shared) {
        void *own = NULL;
        umo_status status = umo_view_find(umo_context_registry(instance->model->context), out->data,
                                          size_bytes, mapping, &own, &out->view, NULL);
        if (status == UMO_OK) {
            out->data = own;
        }
    }
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
    slot->used = false;
}

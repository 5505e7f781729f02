/*
 * See intermediates.h. Sizes follow from a batch's shapes, so each batch has a plan: that of an
 * earlier one of the same sizes, or a new one.
 */
#include "intermediates.h"

#include <inttypes.h>
#include <string.h>

UMO_STATIC_ASSERT(UMO_INTERMEDIATES_MAX <= UMO_PLAN_ITEMS_MAX, "a plan holds all intermediates");

/* What every device takes as the start of a vector, and the most that one asks for: OpenCL cuts a
 * buffer at multiples of up to 4,096 bytes. */
#define ALIGN_MIN_BYTES ((size_t)256)
#define ALIGN_MAX_BYTES ((size_t)4096)

/* Kept between batches as long as the kit keeps its own scratch memory, and for the same reason. */
#define KEEP_NS UINT64_C(5000000000)

/* The device's own memory, unless there is only one. */
static umo_storage_mode choose_mode(const umo_device_info *info)
{
    if (info->unified || (info->caps & UMO_CAP_HOST_PROCESSOR) != 0) {
        return UMO_UNIFIED;
    }
    return (info->caps & UMO_CAP_PRIVATE) != 0   ? UMO_PRIVATE
           : (info->caps & UMO_CAP_MANAGED) != 0 ? UMO_MANAGED
                                                 : UMO_UNIFIED;
}

/* The pool's options; sets how blocks are aligned. */
static umo_pool_options choose_pool(umo_model *model, umo_device *device, umo_intermediates *out)
{
    const umo_device_info *info = umo_device_info_get(device);
    const size_t device_bytes =
        info->alloc_align_bytes < ALIGN_MAX_BYTES ? info->alloc_align_bytes : ALIGN_MAX_BYTES;
    out->align_bytes = device_bytes > ALIGN_MIN_BYTES ? device_bytes : ALIGN_MIN_BYTES;
    return (umo_pool_options){.device = device,
                              .scope = umo_model_scope(model),
                              .mode = choose_mode(info),
                              .keep_bytes_max = umo_model_unified(model)->pool_keep_bytes,
                              .idle_ns = KEEP_NS,
                              .align_bytes = device_bytes};
}

umo_status umo_intermediates_init(umo_model *model, umo_device *device,
                                  const umo_description *description, umo_intermediates *out,
                                  umo_error *error)
{
    bool clears = false;
    *out = (umo_intermediates){0};
    if (description->intermediate_count == 0) {
        return UMO_OK;
    }
    for (size_t i = 0; i < description->intermediate_count; i++) {
        clears = clears || description->intermediates[i].clear;
    }
    if (clears) {
        /* Its first run compiles; no request pays for that. */
        umo_status status = umo_device_prepare(device, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    const umo_pool_options options = choose_pool(model, device, out);
    return umo_pool_create(&options, &out->pool, error);
}

umo_status umo_intermediates_init_near(const umo_instance *instance, umo_device *device,
                                       const umo_description *description, umo_intermediates *out,
                                       umo_error *error)
{
    *out = (umo_intermediates){0};
    if (description->intermediate_count == 0) {
        return UMO_OK;
    }
    const umo_pool_options options = choose_pool(umo_instance_model(instance), device, out);
    return umo_instance_pool_create(instance, &options, &out->pool, error);
}

void umo_intermediates_finish(umo_intermediates *intermediates)
{
    umo_pool_destroy(intermediates->pool);
    *intermediates = (umo_intermediates){0};
}

/* Offsets of all, and the block's length. */
static umo_status plan(const umo_intermediates *intermediates, umo_plan_kept *kept,
                       const umo_description *description, const umo_shape *shapes,
                       umo_plan_item *items, size_t *out_bytes, umo_error *error)
{
    uint64_t bytes = 0;
    for (size_t i = 0; i < description->intermediate_count; i++) {
        const umo_intermediate *one = &description->intermediates[i];
        if (umo_shape_bytes(&shapes[i], one->dtype, &bytes) != UMO_OK ||
            bytes > SIZE_MAX - ALIGN_MAX_BYTES) {
            return umo_error_set(error, UMO_E_INVAL, 0, "intermediate '%s' is too long", one->name);
        }
        /* Whole steps, so that clearing may write them whole. */
        const size_t step = intermediates->align_bytes - 1;
        items[i] = (umo_plan_item){.size_bytes = ((size_t)bytes + step) & ~step,
                                   .first = one->first_stage,
                                   .last = one->last_stage};
    }
    return umo_plan_pack_kept(kept, items, description->intermediate_count,
                              intermediates->align_bytes, out_bytes)
               ? UMO_OK
               : umo_error_set(error, UMO_E_INVAL, 0,
                               "the intermediates are too long: "
                               "check their sizes in the description");
}

/* Adds fences, waiting for those that do not fit. */
static umo_status join_waits(umo_fence_set *waits, const umo_fence_set *more)
{
    for (size_t i = 0; i < more->count; i++) {
        if (!umo_fence_set_add(waits, more->fences[i])) {
            umo_status status = umo_fence_wait(more->fences[i], UINT64_MAX);
            if (status != UMO_OK) {
                return status;
            }
        }
    }
    return UMO_OK;
}

umo_status umo_intermediates_take(const umo_intermediates *intermediates, umo_plan_kept *kept,
                                  const umo_description *description, const umo_shape *shapes,
                                  uint32_t queue, umo_fence_set *waits, umo_launch_memory *memory,
                                  umo_intermediates_block *out, umo_error *error)
{
    const size_t first = description->input_count + description->output_count;
    umo_plan_item items[UMO_INTERMEDIATES_MAX] = {{0}};
    umo_fence_set more = {0};
    umo_intermediates_block made = {0};
    size_t size_bytes = 0;
    umo_status status =
        plan(intermediates, kept, description, shapes + first, items, &size_bytes, error);
    if (status == UMO_OK && size_bytes > 0) {
        status = umo_pool_alloc(intermediates->pool, size_bytes, 0, &made.buffer, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (size_bytes > 0) {
        made.access = (umo_access){
            .size_bytes = size_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE, .queue = queue};
        status = umo_access_begin(made.buffer, &made.access, &more);
        if (status != UMO_OK) {
            umo_status_ignore(umo_pool_free(intermediates->pool, made.buffer));
            return umo_error_set(error, status, 0, "no device access to %zu bytes of intermediates",
                                 size_bytes);
        }
        status = join_waits(waits, &more);
        if (status != UMO_OK) {
            umo_intermediates_give(intermediates, &made, (umo_fence){0});
            return umo_error_set(error, status, 0, "who had the intermediates' memory failed");
        }
    }
    for (size_t i = 0; i < description->intermediate_count; i++) {
        memory[first + i] = (umo_launch_memory){0};
        if (items[i].size_bytes > 0) {
            memory[first + i] = (umo_launch_memory){
                .memory = umo_buffer_memory(made.buffer),
                .offset_bytes = umo_buffer_memory_offset(made.buffer) + items[i].offset_bytes,
                .size_bytes = items[i].size_bytes};
        }
    }
    *out = made;
    return UMO_OK;
}

umo_status umo_intermediates_clear(umo_device *device, const umo_description *description,
                                   size_t stage, const umo_shape *shapes,
                                   const umo_launch_memory *memory, uint32_t queue,
                                   umo_fence_set *waits, umo_fence *last, umo_error *error)
{
    static const uint64_t zeros[2] = {0, 0};
    const size_t first = description->input_count + description->output_count;
    for (size_t i = 0; i < description->intermediate_count; i++) {
        const umo_intermediate *one = &description->intermediates[i];
        const umo_launch_memory *place = &memory[first + i];
        if (!one->clear || one->first_stage != stage || umo_launch_is_empty(&shapes[first + i])) {
            continue;
        }
        umo_fence done = {0};
        umo_status status =
            umo_device_fill(device, queue, place->memory, place->offset_bytes, place->size_bytes,
                            zeros, sizeof zeros, waits->fences, waits->count, &done, error);
        if (status != UMO_OK) {
            return status;
        }
        /* One queue runs in order: what waits for this waits for all before it. */
        waits->count = 1;
        waits->fences[0] = done;
        *last = done;
    }
    return UMO_OK;
}

void umo_intermediates_give(const umo_intermediates *intermediates, umo_intermediates_block *block,
                            umo_fence done)
{
    if (block->buffer != NULL) {
        /* Closing what was opened with an equal access cannot fail, nor giving a live block. */
        umo_status_ignore(umo_access_end(block->buffer, &block->access, done));
        umo_status_ignore(umo_pool_free(intermediates->pool, block->buffer));
    }
    *block = (umo_intermediates_block){0};
}

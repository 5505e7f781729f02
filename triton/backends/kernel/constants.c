/*
 * Weights of kernels. All waiting is done at load, as for scratch memory.
 *
 * Which mode is a question of where the device reads faster, answered by its cost model: binding
 * costs nothing and reads host memory; PRIVATE costs a copy and reads the device's own.
 */
#include "constants.h"

#include <umo/placement.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

static umo_storage_mode choose_mode(const umo_model *model, umo_device *device,
                                    const umo_argument *argument)
{
    const umo_device_info *info = umo_device_info_get(device);
    umo_cost_model costs;
    if (argument->weights_private || !umo_model_unified(model)->enable) {
        return UMO_PRIVATE; /* as the description wants it, or the conventional way */
    }
    if ((info->caps & UMO_CAP_HOST_PROCESSOR) != 0 || (info->caps & UMO_CAP_PRIVATE) == 0) {
        return UMO_UNIFIED;
    }
    if (umo_device_calibrate(device, NULL, &costs, NULL) != UMO_OK) {
        umo_cost_model_assume(info, &costs);
    }
    /* What the argument says, else what the model says of its weights, else what kernels do. */
    umo_pattern pattern = argument->pattern;
    if (pattern == UMO_PATTERN_UNKNOWN) {
        pattern = umo_model_unified(model)->weights;
    }
    if (pattern == UMO_PATTERN_UNKNOWN) {
        pattern = UMO_PATTERN_GPU_DOMINANT;
    }
    return umo_placement_initial(&costs, argument->weights_bytes, pattern);
}

static umo_status open_file(umo_model *model, const umo_argument *argument, umo_constant *out,
                            umo_error *error)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", umo_model_path(model), argument->weights_file) < 0) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory");
    }
    umo_status status = umo_weights_open(path, umo_context_scope(umo_model_context(model)),
                                         UMO_WEIGHTS_SAME_BYTES, &out->file, error);
    free(path);
    if (status != UMO_OK) {
        return status;
    }
    size_t size_bytes = umo_weights_size(out->file);
    if (argument->weights_offset_bytes > size_bytes ||
        argument->weights_bytes > size_bytes - argument->weights_offset_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the file has %zu bytes, too few for %zu at offset %zu", size_bytes,
                             argument->weights_bytes, argument->weights_offset_bytes);
    }
    return UMO_OK;
}

/* The range in a mode that the device takes: a copy where it binds no foreign memory, and the
 * mapping where it has no memory of its own. */
static umo_status open_buffer(umo_storage_mode mode, umo_device *device,
                              const umo_argument *argument, umo_constant *out, umo_error *error)
{
    const uint32_t caps = umo_device_info_get(device)->caps;
    const umo_storage_mode copy = (caps & UMO_CAP_PRIVATE) != 0 ? UMO_PRIVATE : UMO_MANAGED;
    if (mode != UMO_UNIFIED && (caps & (UMO_CAP_PRIVATE | UMO_CAP_MANAGED)) == 0) {
        mode = UMO_UNIFIED;
    }
    mode = mode == UMO_UNIFIED ? mode : copy;
    umo_status status = umo_weights_buffer(out->file, device, mode, argument->weights_offset_bytes,
                                           argument->weights_bytes, &out->buffer, NULL, error);
    if (status == UMO_E_REFUSED && mode == UMO_UNIFIED) {
        status = umo_weights_buffer(out->file, device, copy, argument->weights_offset_bytes,
                                    argument->weights_bytes, &out->buffer, NULL, error);
    }
    return status;
}

static umo_status open_bracket(const umo_argument *argument, umo_constant *out, umo_error *error)
{
    umo_fence_set waits = {0};
    const umo_access access = {
        .size_bytes = argument->weights_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_READ};
    umo_status status = umo_access_begin(out->buffer, &access, &waits);
    if (status == UMO_OK) {
        out->access = access;
        status = umo_fence_set_wait(&waits, UINT64_MAX);
    }
    return status == UMO_OK ? status
                            : umo_error_set(error, status, 0, "the device did not take them");
}

static void constant_finish(umo_constant *constant)
{
    if (constant->access.size_bytes > 0) {
        /* Closing what was opened with an equal access cannot fail. */
        umo_status_ignore(umo_access_end(constant->buffer, &constant->access, (umo_fence){0}));
    }
    umo_buffer_release(constant->buffer);
    umo_weights_release(constant->file);
    *constant = (umo_constant){0};
}

static umo_status constant_init(umo_model *model, umo_device *device, const umo_argument *argument,
                                umo_constant *out, umo_error *error)
{
    umo_status status = open_file(model, argument, out, error);
    if (status == UMO_OK) {
        status = open_buffer(choose_mode(model, device, argument), device, argument, out, error);
    }
    return status != UMO_OK ? status : open_bracket(argument, out, error);
}

umo_status umo_constants_init(umo_model *model, umo_device *device,
                              const umo_description *description, umo_constants *out,
                              umo_error *error)
{
    *out = (umo_constants){0};
    if (description->weights_count == 0) {
        return UMO_OK;
    }
    out->list = calloc(description->weights_count, sizeof out->list[0]);
    if (out->list == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel's weights");
    }
    for (size_t s = 0; s < description->stage_count; s++) {
        const umo_stage *stage = &description->stages[s];
        for (size_t i = 0; i < stage->argument_count; i++) {
            const umo_argument *argument = &stage->arguments[i];
            umo_error inner = {0};
            char where[32] = "";
            if (argument->kind != UMO_ARGUMENT_WEIGHTS) {
                continue;
            }
            umo_status status =
                constant_init(model, device, argument, &out->list[out->count++], &inner);
            if (status == UMO_OK) {
                continue;
            }
            umo_constants_finish(out);
            if (description->listed) {
                (void)snprintf(where, sizeof where, "kernels[%zu].", s);
            }
            return umo_error_set(error, status, inner.native,
                                 "parameter kernel: %sarguments[%zu]: weights '%s': %s", where, i,
                                 argument->weights_file, inner.text);
        }
    }
    return UMO_OK;
}

void umo_constants_finish(umo_constants *constants)
{
    for (size_t i = 0; i < constants->count; i++) {
        constant_finish(&constants->list[i]);
    }
    free(constants->list);
    *constants = (umo_constants){0};
}

void umo_constants_bind(const umo_constants *constants, umo_launch_memory *out)
{
    for (size_t i = 0; i < constants->count; i++) {
        const umo_constant *constant = &constants->list[i];
        out[i] = (umo_launch_memory){.memory = umo_buffer_memory(constant->buffer),
                                     .offset_bytes = umo_buffer_memory_offset(constant->buffer),
                                     .size_bytes = constant->access.size_bytes};
    }
}

umo_status umo_constants_check(const umo_constants *constants, umo_error *error)
{
    umo_status status = UMO_OK;
    for (size_t i = 0; i < constants->count && status == UMO_OK; i++) {
        if (umo_buffer_mode(constants->list[i].buffer) == UMO_UNIFIED) {
            status = umo_weights_check(constants->list[i].file, error);
        }
    }
    return status == UMO_E_NOT_FOUND ? UMO_E_DEVICE : status;
}

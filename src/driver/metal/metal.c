/*
 * The Metal driver: devices, and the table. Its logic is plain C over the messages of metal_api.h
 * and is compiled on every system; docs/decisions/0005 says what was decided and what each piece of
 * evidence is worth without a Mac.
 */
#include "driver/drivers.h"
#include "driver/metal/metal_state.h"

#include <stdlib.h>
#include <string.h>

/* All devices of the system (an array that the caller releases) and how many there are. */
static umo_status devices_find(const umo_metal_api *api, umo_id *out, umo_uint *out_count,
                               umo_error *error)
{
    umo_id devices = api->copy_all_devices();
    umo_uint count = devices != NULL ? UMO_METAL_SEND0(api, array_count, devices) : 0;
    if (count == 0) {
        UMO_METAL_SEND0(api, release, devices);
        return umo_error_set(
            error, UMO_E_NOT_FOUND, 0,
            "Metal has no device here: a virtual machine or a sandbox may hide the GPU; "
            "run on macOS itself, or name another device");
    }
    *out = devices;
    *out_count = count;
    return UMO_OK;
}

static umo_status metal_count(uint32_t *out, umo_error *error)
{
    const umo_metal_api *api = NULL;
    umo_id devices = NULL;
    umo_uint count = 0;
    umo_status status = umo_metal_api_get(&api, error);
    if (status != UMO_OK) {
        return status;
    }
    void *pool = api->pool_push();
    status = devices_find(api, &devices, &count, error);
    if (status == UMO_OK) {
        UMO_METAL_SEND0(api, release, devices);
        *out = (uint32_t)count;
    }
    api->pool_pop(pool);
    return status;
}

static void metal_close(void *opaque)
{
    umo_metal_state *state = opaque;
    UMO_METAL_POOL_BEGIN(state);
    if (umo_metal_residency_stop(state)) {
        umo_fence fence;
        const umo_metal_host_step nothing = {.kind = UMO_METAL_STEP_NONE};
        if (umo_metal_host_step_give(state, 0, &nothing, NULL, NULL, 0, &fence) == UMO_OK) {
            (void)umo_metal_queue_wait(state, fence.queue, fence.value, UINT64_MAX);
        }
    }
    for (uint32_t q = 0; q < state->queue_count; q++) {
        umo_metal_queue_drain(state, &state->queues[q]);
    }
    umo_metal_heaps_finish(state);
    umo_metal_residency_finish(state);
    for (uint32_t q = 0; q < state->queue_count; q++) {
        umo_metal_queue_finish(state, &state->queues[q]);
    }
    UMO_METAL_SEND0(state->api, release, state->copier);
    UMO_METAL_SEND0(state->api, release, state->device);
    UMO_METAL_POOL_END(state);
    (void)pthread_mutex_destroy(&state->copier_lock);
    (void)pthread_mutex_destroy(&state->heaps_lock);
    umo_metal_imports_finish(state);
    umo_os_condition_finish(&state->changed);
    (void)pthread_mutex_destroy(&state->lock);
    free(state);
}

/* Where compiled kernels are kept; empty for nowhere, which a wish that does not fit is too. */
static void cache_choose(umo_metal_state *state)
{
    const char *wish = getenv("UMO_METAL_CACHE");
    if (wish == NULL) {
        (void)umo_os_cache_dir(state->cache_dir, sizeof state->cache_dir);
    } else if (strcmp(wish, "0") != 0 && strlen(wish) < sizeof state->cache_dir) {
        memcpy(state->cache_dir, wish, strlen(wish) + 1);
    }
}

static umo_status metal_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                             umo_device_info *out_info, umo_error *error)
{
    const umo_metal_api *api = NULL;
    umo_id devices = NULL;
    umo_uint count = 0;
    umo_status status = umo_metal_api_get(&api, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_metal_state *state = calloc(1, sizeof *state);
    if (state == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a Metal device");
    }
    state->api = api;
    state->test_mode = options->test_mode;
    (void)pthread_mutex_init(&state->lock, NULL);
    (void)pthread_mutex_init(&state->heaps_lock, NULL);
    (void)pthread_mutex_init(&state->copier_lock, NULL);
    umo_os_condition_init(&state->changed);
    umo_metal_residency_init(state);
    cache_choose(state);
    UMO_METAL_POOL_BEGIN(state);
    status = devices_find(api, &devices, &count, error);
    if (status == UMO_OK && ordinal >= count) {
        status = umo_error_set(error, UMO_E_NOT_FOUND, 0, "Metal has %u device(s), no number %u",
                               (unsigned)count, ordinal);
    }
    if (status == UMO_OK) {
        state->device =
            UMO_METAL_SEND0(api, retain, UMO_METAL_SEND(api, array_at, devices, ordinal));
        status = umo_metal_facts_read(state, out_info, error);
    }
    UMO_METAL_SEND0(api, release, devices);
    for (uint32_t q = 0; q < UMO_METAL_QUEUES && status == UMO_OK; q++) {
        status = umo_metal_queue_init(state, q, error);
        state->queue_count += status == UMO_OK;
    }
    if (status == UMO_OK) {
        umo_metal_residency_open(state);
    }
    UMO_METAL_POOL_END(state);
    if (status != UMO_OK) {
        metal_close(state);
        return status;
    }
    *out_state = state;
    return UMO_OK;
}

static umo_status metal_usage(void *opaque, umo_device_usage *out)
{
    umo_metal_state *state = opaque;
    UMO_METAL_POOL_BEGIN(state);
    *out = (umo_device_usage){
        .budget_bytes = UMO_METAL_SEND0(state->api, device_working_set, state->device),
        .allocated_bytes = UMO_METAL_SEND0(state->api, device_allocated, state->device),
    };
    UMO_METAL_POOL_END(state);
    return UMO_OK;
}

static bool metal_fence_done(void *opaque, uint32_t queue, uint64_t value)
{
    return umo_metal_queue_done(opaque, queue, value);
}

static umo_status metal_fence_wait(void *opaque, uint32_t queue, uint64_t value,
                                   uint64_t timeout_ns)
{
    return umo_metal_queue_wait(opaque, queue, value, timeout_ns);
}

const umo_driver umo_driver_metal = {
    .abi = UMO_DRIVER_ABI,
    .size_bytes = sizeof(umo_driver),
    .name = "metal",
    .count = metal_count,
    .open = metal_open,
    .close = metal_close,
    .alloc = umo_metal_alloc,
    .free = umo_metal_free,
    .import = umo_metal_import,
    .transfer = umo_metal_transfer,
    .copy = umo_metal_copy,
    .fence_done = metal_fence_done,
    .fence_wait = metal_fence_wait,
    .program_create = umo_metal_program_create,
    .program_destroy = umo_metal_program_destroy,
    .kernel_create = umo_metal_kernel_create,
    .kernel_destroy = umo_metal_kernel_destroy,
    .kernel_launch = umo_metal_kernel_launch,
    .poison = umo_metal_poison,
    .usage = metal_usage,
    .purgeable = umo_metal_purgeable,
};

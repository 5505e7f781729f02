/*
 * What a Metal device is and can do, asked of the device itself. A chip's name gives what no call
 * tells, its bandwidth, as a first guess; nothing is decided by it.
 */
#include "driver/metal/metal_state.h"

#include "base/size.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Memory bandwidth in GB/s, from Apple's technical specifications of the machines. Where one name
 * has two, the lower. */
static const struct {
    const char *name;
    unsigned gb_s;
} chips[] = {
    {"Apple M1", 68},  {"Apple M1 Pro", 200}, {"Apple M1 Max", 400}, {"Apple M1 Ultra", 800},
    {"Apple M2", 100}, {"Apple M2 Pro", 200}, {"Apple M2 Max", 400}, {"Apple M2 Ultra", 800},
    {"Apple M3", 100}, {"Apple M3 Pro", 150}, {"Apple M3 Max", 300}, {"Apple M3 Ultra", 819},
    {"Apple M4", 120}, {"Apple M4 Pro", 273}, {"Apple M4 Max", 410}, {"Apple M5", 153},
};

static uint64_t chip_bandwidth(const char *name)
{
    for (size_t i = 0; i < sizeof chips / sizeof chips[0]; i++) {
        if (strcmp(chips[i].name, name) == 0) {
            return (uint64_t)chips[i].gb_s * 1000000000u;
        }
    }
    return 0;
}

static bool supports(const umo_metal_state *state, int64_t family)
{
    return UMO_METAL_SEND(state->api, device_supports, state->device, family) != 0;
}

static void family_read(const umo_metal_state *state, char *out, size_t out_bytes)
{
    const char *version = supports(state, UMO_MTL_FAMILY_METAL_3) ? ", Metal 3" : "";
    for (int64_t family = UMO_MTL_FAMILY_APPLE_9; family >= UMO_MTL_FAMILY_APPLE_1; family--) {
        if (supports(state, family)) {
            (void)snprintf(out, out_bytes, "Apple %d%s", (int)(family - UMO_MTL_FAMILY_APPLE_1 + 1),
                           version);
            return;
        }
    }
    (void)snprintf(out, out_bytes, "%s%s",
                   supports(state, UMO_MTL_FAMILY_MAC_2) ? "Mac 2" : "unknown", version);
}

umo_status umo_metal_facts_read(umo_metal_state *state, umo_device_info *info, umo_error *error)
{
    const umo_metal_api *api = state->api;
    umo_id name = UMO_METAL_SEND0(api, device_name, state->device);
    const char *text = name != NULL ? UMO_METAL_SEND0(api, string_text, name) : NULL;
    (void)snprintf(state->name, sizeof state->name, "%s", text != NULL ? text : "Metal device");
    state->unified = UMO_METAL_SEND0(api, device_unified, state->device) != 0;
    state->buffer_max_bytes = UMO_METAL_SEND0(api, device_buffer_max, state->device);
    state->local_max_bytes = UMO_METAL_SEND0(api, device_local_max, state->device);
    state->shared_heaps = supports(state, UMO_MTL_FAMILY_APPLE_1);
    state->page_bytes = umo_os_page_bytes();
    /* The GPU's caches write lines back; no more, since the memory itself is bound and no copy of
     * it. */
    state->granule_bytes = umo_os_cache_line_bytes();
    if (state->buffer_max_bytes == 0 || !umo_is_power_of_two(state->granule_bytes)) {
        return umo_error_set(error, UMO_E_DEVICE, 0,
                             "Metal device '%s' does not say how long a buffer may be",
                             state->name);
    }
    umo_device_info facts = {
        .driver = "metal",
        .caps = UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_IMPORT_READ |
                UMO_CAP_IMPORT_WRITE | UMO_CAP_COHERENT | UMO_CAP_ASYNC | UMO_CAP_USAGE |
                UMO_CAP_PURGEABLE | (state->test_mode ? UMO_CAP_POISON : 0u),
        .queues = UMO_METAL_QUEUES,
        .import_align_bytes = state->page_bytes,
        .import_size_align_bytes = state->page_bytes,
        .write_granule_bytes = state->granule_bytes,
        .alloc_align_bytes = umo_metal_heap_align(state),
        .buffer_max_bytes = state->buffer_max_bytes,
        .memory_bytes = UMO_METAL_SEND0(api, device_working_set, state->device),
        .bandwidth_bytes_s = chip_bandwidth(state->name),
        .language = UMO_LANGUAGE_METAL,
        .unified = state->unified,
    };
    /* Grids of any size are launched, which needs groups that are cut off at the grid's end. */
    if (supports(state, UMO_MTL_FAMILY_APPLE_4) || supports(state, UMO_MTL_FAMILY_MAC_2)) {
        facts.caps |= UMO_CAP_KERNELS;
    }
    memcpy(facts.name, state->name, sizeof facts.name);
    family_read(state, facts.family, sizeof facts.family);
    *info = facts;
    return UMO_OK;
}

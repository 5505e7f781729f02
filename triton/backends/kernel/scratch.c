/*
 * Scratch memory. All waiting is done here, at load: nobody who uses it has a fence to mind. It
 * belongs to the context and not to a model, so that a model's counters show requests alone.
 */
#include "scratch.h"

#include <string.h>

static umo_status zero(umo_buffer *buffer, size_t size_bytes)
{
    const umo_access access = {.size_bytes = size_bytes, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits = {0};
    umo_status status = umo_access_begin(buffer, &access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (status == UMO_OK) {
        memset(umo_buffer_host(buffer), 0, size_bytes);
    }
    const umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
    return status != UMO_OK ? status : ended;
}

umo_status umo_scratch_alloc(umo_device *device, umo_scope *scope, size_t size_bytes,
                             uint32_t queue, umo_use use, umo_scratch *out, umo_error *error)
{
    const uint32_t caps = umo_device_info_get(device)->caps;
    const umo_storage_mode mode = (caps & UMO_CAP_UNIFIED) != 0   ? UMO_UNIFIED
                                  : (caps & UMO_CAP_MANAGED) != 0 ? UMO_MANAGED
                                                                  : UMO_PRIVATE;
    umo_fence_set waits = {0};
    umo_scratch made = {
        .access = {.size_bytes = size_bytes, .side = UMO_SIDE_DEVICE, .use = use, .queue = queue}};
    umo_status status = umo_buffer_alloc(device, scope, size_bytes, mode, &made.buffer, error);
    if (status != UMO_OK) {
        return status;
    }
    status = zero(made.buffer, size_bytes);
    if (status == UMO_OK) {
        status = umo_access_begin(made.buffer, &made.access, &waits);
    }
    if (status != UMO_OK) {
        umo_buffer_release(made.buffer);
        return umo_error_set(error, status, 0, "no device access to %zu bytes of zeroes",
                             size_bytes);
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (status != UMO_OK) {
        umo_scratch_free(&made, (umo_fence){0});
        return umo_error_set(error, status, 0, "the device failed to take %zu bytes", size_bytes);
    }
    *out = made;
    return UMO_OK;
}

void umo_scratch_free(umo_scratch *scratch, umo_fence done)
{
    if (scratch->buffer != NULL) {
        /* The bracket that alloc opened: closing it cannot fail, and the release waits for the
         * fence. */
        const umo_status ended = umo_access_end(scratch->buffer, &scratch->access, done);
        (void)ended;
        umo_buffer_release(scratch->buffer);
    }
    *scratch = (umo_scratch){0};
}

void umo_scratch_bind(const umo_scratch *scratch, umo_launch_memory *out)
{
    *out = (umo_launch_memory){.memory = umo_buffer_memory(scratch->buffer),
                               .offset_bytes = umo_buffer_memory_offset(scratch->buffer),
                               .size_bytes = scratch->access.size_bytes};
}

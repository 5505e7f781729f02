/*
 * Copies on demand: between the caller's memory and a buffer, the conventional way in and out, and
 * clearing.
 */
#include "mem/buffer_state.h"

#include "base/size.h"

#include <string.h>

/* Bytes of zeros that are sent at a time to memory which the host does not reach. */
#define ZEROS_BYTES ((size_t)64 << 10)

static umo_access access_of(const umo_buffer *buffer, size_t offset_bytes, size_t size_bytes,
                            uint32_t queue, umo_use use)
{
    return (umo_access){.offset_bytes = offset_bytes,
                        .size_bytes = size_bytes,
                        .side = umo_buffer_two_sided(buffer) ? UMO_SIDE_DEVICE : UMO_SIDE_HOST,
                        .use = use,
                        .queue = queue};
}

/* Queues one copy between host memory and the device side. */
static umo_status device_move(umo_buffer *buffer, size_t offset_bytes, void *data,
                              size_t size_bytes, uint32_t queue, umo_side to,
                              const umo_fence_set *waits, umo_fence *done)
{
    umo_device *device = buffer->device;
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count = 0;
    umo_status status = umo_device_waits(device, waits->fences, waits->count, own, &own_count);
    if (status != UMO_OK) {
        return status;
    }
    umo_fence fence = {0};
    status = device->driver->transfer(device->state, queue, &buffer->memory, to,
                                      buffer->memory_offset + offset_bytes, size_bytes, data, own,
                                      own_count, &fence);
    fence.device = device;
    fence.queue = queue;
    *done = fence;
    return status;
}

/* One explicit copy between the caller's memory and a side: the device's where there are two, else
 * the only one. */
static umo_status bytes_move(umo_buffer *buffer, size_t offset_bytes, void *data, size_t size_bytes,
                             uint32_t queue, umo_side to, umo_fence *done)
{
    bool upload = to == UMO_SIDE_DEVICE;
    umo_access access =
        access_of(buffer, offset_bytes, size_bytes, queue, upload ? UMO_WRITE : UMO_READ);
    umo_fence_set waits;
    umo_status status = umo_access_begin(buffer, &access, &waits);
    *done = (umo_fence){0};
    if (status != UMO_OK || size_bytes == 0) {
        return status;
    }
    umo_fence fence = {0};
    if (umo_buffer_two_sided(buffer)) {
        status = device_move(buffer, offset_bytes, data, size_bytes, queue, to, &waits, &fence);
    } else {
        status = umo_fence_set_wait(&waits, UINT64_MAX);
        if (status == UMO_OK) {
            void *host = (char *)umo_buffer_host(buffer) + offset_bytes;
            memcpy(upload ? host : data, upload ? data : host, size_bytes);
        }
    }
    if (status != UMO_OK) {
        umo_status_ignore(umo_access_abort(buffer, &access, (umo_fence){0}));
        return status;
    }
    umo_scope_count_transfer(buffer->scope, upload ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT, true,
                             size_bytes);
    *done = fence;
    return umo_access_end(buffer, &access, fence);
}

umo_status umo_buffer_upload(umo_buffer *buffer, size_t offset_bytes, const void *data,
                             size_t size_bytes, uint32_t queue, umo_fence *done)
{
    return bytes_move(buffer, offset_bytes, (void *)(uintptr_t)data, size_bytes, queue,
                      UMO_SIDE_DEVICE, done);
}

umo_status umo_buffer_download(umo_buffer *buffer, size_t offset_bytes, void *data,
                               size_t size_bytes, uint32_t queue, umo_fence *done)
{
    return bytes_move(buffer, offset_bytes, data, size_bytes, queue, UMO_SIDE_HOST, done);
}

/* Sends zeros to the device side, a piece at a time, and waits. */
static umo_status device_clear(umo_buffer *buffer, const umo_fence_set *waits)
{
    static const char zeros[ZEROS_BYTES];
    umo_fence fence = {0};
    umo_status status = UMO_OK;
    for (size_t at = 0; at < buffer->size_bytes && status == UMO_OK; at += ZEROS_BYTES) {
        size_t left = buffer->size_bytes - at;
        status =
            device_move(buffer, at, (void *)(uintptr_t)zeros,
                        left < ZEROS_BYTES ? left : ZEROS_BYTES, 0, UMO_SIDE_DEVICE, waits, &fence);
    }
    /* One queue runs in order: the last piece's fence stands for all, also when a later one was
     * refused. */
    umo_status waited = umo_fence_wait(fence, UINT64_MAX);
    return status != UMO_OK ? status : waited;
}

umo_status umo_buffer_clear(umo_buffer *buffer)
{
    umo_status status = umo_buffer_settle(buffer);
    if (status != UMO_OK) {
        return status;
    }
    umo_buffer_forget(buffer);
    umo_access access = access_of(buffer, 0, buffer->size_bytes, 0, UMO_WRITE);
    umo_fence_set waits;
    status = umo_access_begin(buffer, &access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    if (umo_buffer_two_sided(buffer)) {
        status = device_clear(buffer, &waits);
    } else {
        status = umo_fence_set_wait(&waits, UINT64_MAX);
    }
    /* The host side too, where there is one. */
    void *host = umo_buffer_host(buffer);
    if (host != NULL) {
        memset(host, 0, buffer->size_bytes);
    }
    /* Not an end: these bytes are nobody's, on either side, so nothing becomes stale and nothing is
     * poisoned. */
    umo_status ended = umo_access_abort(buffer, &access, (umo_fence){0});
    return status != UMO_OK ? status : ended;
}

/*
 * Copies on demand: between the caller's memory and a buffer, the conventional way in and out;
 * between its sides ahead of a use; and clearing.
 */
#include "mem/events.h"

#include "base/size.h"
#include "os/os.h"

#include <string.h>

/* Bytes of zeros that are sent at a time to memory which the host does not reach. */
#define ZEROS_BYTES ((size_t)64 << 10)

/* Which side a copy uses: the mode has to stay while it is under way. */
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
static umo_status bytes_move_held(umo_buffer *buffer, size_t offset_bytes, void *data,
                                  size_t size_bytes, uint32_t queue, umo_side to, umo_fence *done)
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
    umo_buffer_count_transfer(buffer, buffer->scope, to, true, offset_bytes, size_bytes, fence);
    *done = fence;
    return umo_access_end(buffer, &access, fence);
}

static umo_status bytes_move(umo_buffer *buffer, size_t offset_bytes, void *data, size_t size_bytes,
                             uint32_t queue, umo_side to, umo_fence *done)
{
    umo_buffer_hold(buffer);
    umo_status status = bytes_move_held(buffer, offset_bytes, data, size_bytes, queue, to, done);
    umo_buffer_unhold(buffer);
    return status;
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

umo_status umo_buffer_prefetch(umo_buffer *buffer, size_t offset_bytes, size_t size_bytes,
                               umo_side side, umo_error *error)
{
    if (!umo_range_fits(offset_bytes, size_bytes, buffer->size_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu bytes at %zu lie outside a buffer of %zu",
                             size_bytes, offset_bytes, buffer->size_bytes);
    }
    if (side != UMO_SIDE_HOST && side != UMO_SIDE_DEVICE) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%d is no side", (int)side);
    }
    if (size_bytes == 0) {
        return UMO_OK;
    }
    const umo_access access = {.offset_bytes = offset_bytes,
                               .size_bytes = size_bytes,
                               .side = side,
                               .use = UMO_READ,
                               .queue = buffer->device->info.queues - 1};
    umo_fence_set waits;
    const uint64_t start_ns = umo_trace_clock();
    umo_status status = umo_bracket_open(buffer, &access, &waits);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "the range cannot be read now");
    }
    if (side == UMO_SIDE_HOST) {
        /* Imported pages are only looked at: a write would make a file's pages dirty. */
        void *host = (char *)umo_buffer_host(buffer) + offset_bytes;
        bool own = buffer->home != NULL || !buffer->memory.imported;
        status = umo_os_pages_populate(host, size_bytes, own);
    }
    /* What was queued stays behind as a pending use, which the next bracket waits for. */
    umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = UMO_EVENT_PREFETCH, .side = (uint32_t)side,
                     .offset_bytes = offset_bytes, .size_bytes = size_bytes, .status = status,
                     .start_ns = start_ns);
    if (status == UMO_OK && ended == UMO_OK) {
        return UMO_OK;
    }
    return umo_error_set(error, status != UMO_OK ? status : ended, 0,
                         "the pages could not be made present");
}

static umo_status buffer_clear_held(umo_buffer *buffer)
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
    void *host = umo_host_side(buffer);
    if (host != NULL) {
        memset(host, 0, buffer->size_bytes);
    }
    /* Not an end: these bytes are nobody's, on either side, so nothing becomes stale and nothing is
     * poisoned. */
    umo_status ended = umo_access_abort(buffer, &access, (umo_fence){0});
    return status != UMO_OK ? status : ended;
}

umo_status umo_buffer_clear(umo_buffer *buffer)
{
    umo_buffer_hold(buffer);
    umo_status status = buffer_clear_held(buffer);
    umo_buffer_unhold(buffer);
    return status;
}

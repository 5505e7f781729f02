/*
 * The uses of a buffer that have ended and whose fences may be pending: the part of the brackets
 * that a buffer's life needs, so that buffer.c need not know access.c.
 */
#include "mem/buffer_state.h"

/* A fence that is kept must not outlive its device; our own outlives us anyway. */
void umo_use_fence_hold(const umo_buffer *buffer, umo_fence fence)
{
    if (fence.value != 0 && fence.device != buffer->device) {
        umo_device_acquire(fence.device);
    }
}

void umo_use_fence_drop(const umo_buffer *buffer, umo_fence fence)
{
    if (fence.value != 0 && fence.device != buffer->device) {
        umo_device_release(fence.device);
    }
}

void umo_use_drop(umo_buffer *buffer, size_t index)
{
    buffer->uses[index] = buffer->uses[--buffer->use_count];
}

umo_status umo_buffer_settle(umo_buffer *buffer)
{
    umo_status result = UMO_OK;
    for (bool found = true; found;) {
        found = false;
        umo_fence fence = {0};
        (void)pthread_mutex_lock(&buffer->lock);
        for (size_t i = buffer->use_count; i-- > 0 && !found;) {
            if (!buffer->uses[i].open) {
                found = true;
                fence = buffer->uses[i].fence;
                umo_use_drop(buffer, i);
            }
        }
        (void)pthread_mutex_unlock(&buffer->lock);
        umo_status status = umo_fence_wait(fence, UINT64_MAX);
        result = result == UMO_OK ? status : result;
        umo_use_fence_drop(buffer, fence);
    }
    return result;
}

void umo_buffer_forget(umo_buffer *buffer)
{
    (void)pthread_mutex_lock(&buffer->lock);
    umo_ranges_set(&buffer->valid, 0, buffer->size_bytes, 0);
    (void)pthread_mutex_unlock(&buffer->lock);
}

void umo_buffer_refresh(umo_buffer *buffer)
{
    const uint32_t both = UMO_SIDE_HOST | UMO_SIDE_DEVICE;
    (void)pthread_mutex_lock(&buffer->lock);
    for (size_t at = 0; at < buffer->size_bytes;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        size_t end = umo_ranges_end(&buffer->valid, index);
        if (buffer->valid.items[index].value == both) {
            /* Whole ranges: nothing is cut, so no room is needed. */
            umo_ranges_set(&buffer->valid, at, end - at, UMO_SIDE_HOST);
        }
        at = end;
    }
    (void)pthread_mutex_unlock(&buffer->lock);
}

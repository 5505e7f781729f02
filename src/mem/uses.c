/*
 * The uses of a buffer: brackets that are open, and ended ones whose fences may be pending. Apart
 * from access.c, because a buffer's life and its moves need them and need not know brackets.
 */
#include "mem/buffer_state.h"

#include "os/os.h"

#include <stdlib.h>
#include <string.h>

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

bool umo_uses_grow(umo_buffer *buffer, size_t wanted)
{
    size_t capacity = buffer->use_capacity * 2 > wanted ? buffer->use_capacity * 2 : wanted;
    bool was_inline = buffer->uses == buffer->inline_uses;
    buffer_use *uses = realloc(was_inline ? NULL : buffer->uses, capacity * sizeof *uses);
    if (uses == NULL) {
        return false;
    }
    if (was_inline) {
        memcpy(uses, buffer->inline_uses, buffer->use_count * sizeof *uses);
    }
    buffer->uses = uses;
    buffer->use_capacity = capacity;
    return true;
}

/* A command of ours moved no bytes after all: its target side lacks them, the other one keeps them,
 * or, where the target side was written since, what was made of them is worth nothing. Room for one
 * mark was reserved. */
static void move_undo(umo_buffer *buffer, const umo_access *move)
{
    size_t end = move->offset_bytes + move->size_bytes;
    for (size_t at = move->offset_bytes; at < end;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        uint32_t value = buffer->valid.items[index].value;
        size_t range_end = umo_ranges_end(&buffer->valid, index);
        size_t stop = range_end < end ? range_end : end;
        uint32_t left = value & ~(uint32_t)move->side;
        umo_ranges_set(&buffer->valid, at, stop - at,
                       left == 0 && value != 0 ? RANGE_FAILED : left);
        at = stop;
    }
}

bool umo_use_retire(umo_buffer *buffer, size_t index)
{
    const buffer_use *use = &buffer->uses[index];
    /* Asked once more for its result: a command that failed must not pass as done. */
    if (umo_fence_wait(use->fence, 0) != UMO_OK && (use->access.use & UMO_WRITE) != 0) {
        if (!umo_ranges_reserve(&buffer->valid, 1 + umo_uses_open(buffer))) {
            return false;
        }
        if (use->moves) {
            move_undo(buffer, &use->access);
        } else {
            umo_ranges_set(&buffer->valid, use->access.offset_bytes, use->access.size_bytes,
                           RANGE_FAILED);
        }
    }
    umo_use_fence_drop(buffer, use->fence);
    umo_use_drop(buffer, index);
    return true;
}

bool umo_buffer_change_wait(umo_buffer *buffer, uint64_t deadline_ns)
{
    buffer->waiters++;
    bool woken = umo_os_condition_wait_until(&buffer->changed, &buffer->lock, deadline_ns);
    buffer->waiters--;
    return woken;
}

void umo_buffer_lock_quiet(umo_buffer *buffer)
{
    (void)pthread_mutex_lock(&buffer->lock);
    while (buffer->changing) {
        (void)umo_buffer_change_wait(buffer, UINT64_MAX);
    }
}

/* Memory that never moves needs no promise. */
void umo_buffer_hold(umo_buffer *buffer)
{
    if (buffer->home != NULL) {
        umo_buffer_lock_quiet(buffer);
        buffer->holds++;
        (void)pthread_mutex_unlock(&buffer->lock);
    }
}

void umo_buffer_unhold(umo_buffer *buffer)
{
    if (buffer->home != NULL) {
        (void)pthread_mutex_lock(&buffer->lock);
        buffer->holds--;
        umo_buffer_changed(buffer);
        (void)pthread_mutex_unlock(&buffer->lock);
    }
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

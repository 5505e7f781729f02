/*
 * Brackets: the state machine that knows where bytes are valid, and therefore what every use costs.
 *
 * A buffer keeps two things under its lock: for each range the sides that hold valid bytes, and a
 * short list of uses that are open or whose fences are pending. A new bracket conflicts with an
 * overlapping one when either writes. If that one is still open it is the caller's race (BUSY); if
 * it has ended, its fence is what to wait for. Commands are queued under the lock, which is sound
 * because drivers queue and do not wait.
 */
#include "mem/buffer_state.h"

#include "base/scope.h"
#include "base/size.h"
#include "os/os.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

static bool uses_overlap(const umo_access *a, const umo_access *b)
{
    return a->size_bytes > 0 && b->size_bytes > 0 &&
           a->offset_bytes < b->offset_bytes + b->size_bytes &&
           b->offset_bytes < a->offset_bytes + a->size_bytes;
}

static bool uses_conflict(const umo_access *a, const umo_access *b)
{
    return ((a->use | b->use) & UMO_WRITE) != 0 && uses_overlap(a, b);
}

static bool access_equal(const umo_access *a, const umo_access *b)
{
    return a->offset_bytes == b->offset_bytes && a->size_bytes == b->size_bytes &&
           a->side == b->side && a->use == b->use && a->queue == b->queue;
}

/* Adds a fence to wait for; when the set is full, waits for it here. */
static umo_status wait_later(umo_fence_set *waits, umo_fence fence)
{
    return umo_fence_set_add(waits, fence) ? UMO_OK : umo_fence_wait(fence, UINT64_MAX);
}

static bool uses_reserve(umo_buffer *buffer, size_t more)
{
    size_t wanted = buffer->use_count + more;
    if (wanted <= buffer->use_capacity) {
        return true;
    }
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

static void use_add(umo_buffer *buffer, buffer_use use)
{
    assert(buffer->use_count < buffer->use_capacity);
    if (use.open || use.fence.value != 0) {
        buffer->uses[buffer->use_count++] = use;
    }
}

static size_t open_count(const umo_buffer *buffer)
{
    size_t open = 0;
    for (size_t i = 0; i < buffer->use_count; i++) {
        open += buffer->uses[i].open ? 1 : 0;
    }
    return open;
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

/* Forgets an ended use that has completed, and with it what it failed to bring or write. False when
 * memory is out. */
static bool use_retire(umo_buffer *buffer, size_t index)
{
    const buffer_use *use = &buffer->uses[index];
    /* Asked once more for its result: a command that failed must not pass as done. */
    if (umo_fence_wait(use->fence, 0) != UMO_OK && (use->access.use & UMO_WRITE) != 0) {
        if (!umo_ranges_reserve(&buffer->valid, 1 + open_count(buffer))) {
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

/* BUSY for an open conflict; the fences of ended ones come out in waits; completed uses are
 * forgotten. */
static umo_status conflicts_collect(umo_buffer *buffer, const umo_access *access,
                                    umo_fence_set *waits)
{
    for (size_t i = buffer->use_count; i-- > 0;) {
        const buffer_use *use = &buffer->uses[i];
        if (use->open) {
            if (uses_conflict(&use->access, access)) {
                return UMO_E_BUSY;
            }
        } else if (umo_fence_done(use->fence)) {
            if (!use_retire(buffer, i)) {
                return UMO_E_NOMEM;
            }
        } else if (uses_conflict(&use->access, access)) {
            umo_status status = wait_later(waits, use->fence);
            if (status != UMO_OK) {
                return status;
            }
        }
    }
    return UMO_OK;
}

/* Does a use read bytes whose writer failed? */
static bool reads_failed(const umo_buffer *buffer, const umo_access *access)
{
    size_t end = access->offset_bytes + access->size_bytes;
    for (size_t at = access->offset_bytes; (access->use & UMO_READ) != 0 && at < end;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        if (buffer->valid.items[index].value == RANGE_FAILED) {
            return true;
        }
        at = umo_ranges_end(&buffer->valid, index);
    }
    return false;
}

/* The host's address of a byte, the shadow of PRIVATE memory included. */
static void *host_byte(const umo_buffer *buffer, size_t offset_bytes)
{
    char *host = umo_buffer_host(buffer);
    return host == NULL ? NULL : host + offset_bytes;
}

static umo_status shadow_ensure(umo_buffer *buffer)
{
    if (buffer->memory.host != NULL || buffer->shadow != NULL) {
        return UMO_OK;
    }
    if (!umo_scope_charge(buffer->scope, buffer->size_bytes)) {
        return UMO_E_LIMIT;
    }
    buffer->shadow = umo_os_pages_alloc(buffer->size_bytes);
    if (buffer->shadow == NULL) {
        umo_scope_uncharge(buffer->scope, buffer->size_bytes);
        return UMO_E_NOMEM;
    }
    umo_scope_count_alloc(buffer->scope, buffer->size_bytes);
    buffer->charged_bytes += buffer->size_bytes;
    return UMO_OK;
}

/*
 * Moves one range to a side of two-sided memory. Conflicts were collected for the bracket; the
 * transfer itself also writes the target side, which concerns readers there: they would have found
 * the bytes valid, so there are none.
 */
static umo_status range_transfer(umo_buffer *buffer, const umo_access *access, size_t offset_bytes,
                                 size_t size_bytes, umo_fence_set *waits)
{
    umo_device *device = buffer->device;
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count = 0;
    umo_access move = *access;
    move.offset_bytes = offset_bytes;
    move.size_bytes = size_bytes;
    move.use = UMO_READ_WRITE;

    /* The last writer of these bytes may be a pending use that only reads beside our bracket: wait
     * for all of them. */
    umo_fence_set before = {0};
    for (size_t i = 0; i < buffer->use_count; i++) {
        const buffer_use *use = &buffer->uses[i];
        if (!use->open && uses_conflict(&use->access, &move)) {
            umo_status status = wait_later(&before, use->fence);
            if (status != UMO_OK) {
                return status;
            }
        }
    }
    umo_status status = umo_device_waits(device, before.fences, before.count, own, &own_count);
    if (status != UMO_OK) {
        return status;
    }
    umo_fence fence = {0};
    status = device->driver->transfer(device->state, access->queue, &buffer->memory, access->side,
                                      buffer->memory_offset + offset_bytes, size_bytes,
                                      host_byte(buffer, offset_bytes), own, own_count, &fence);
    if (status != UMO_OK) {
        return status;
    }
    fence.device = device;
    fence.queue = access->queue;
    use_add(buffer, (buffer_use){.access = move, .fence = fence, .moves = true});
    return wait_later(waits, fence);
}

/*
 * Makes a range of one memory visible on a side of a device that is not coherent. Only the range
 * that needs it: taking bytes to a side that wrote them last could bring old ones back.
 */
static umo_status range_publish(umo_buffer *buffer, const umo_access *access, size_t offset_bytes,
                                size_t size_bytes, umo_fence_set *waits)
{
    umo_device *device = buffer->device;
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count = 0;
    umo_status status = umo_device_waits(device, waits->fences, waits->count, own, &own_count);
    if (status != UMO_OK) {
        return status;
    }
    umo_fence fence = {0};
    status = device->driver->publish(
        device->state, access->queue, &buffer->memory, access->side, (access->use & UMO_WRITE) != 0,
        buffer->memory_offset + offset_bytes, size_bytes, own, own_count, &fence);
    if (status != UMO_OK) {
        return status;
    }
    fence.device = device;
    fence.queue = access->queue;
    umo_access move = *access;
    move.offset_bytes = offset_bytes;
    move.size_bytes = size_bytes;
    move.use = UMO_READ_WRITE;
    use_add(buffer, (buffer_use){.access = move, .fence = fence, .moves = true});
    return wait_later(waits, fence);
}

static umo_direction side_direction(umo_side side)
{
    return side == UMO_SIDE_DEVICE ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT;
}

/*
 * Brings one range, valid on the given sides, to the side that wants it, and counts what that cost
 * or saved. Marked only when it has succeeded: a later use must not find valid what never came.
 */
static umo_status range_bring(umo_buffer *buffer, const umo_access *access, size_t offset_bytes,
                              size_t size_bytes, uint32_t valid, umo_fence_set *waits)
{
    valid &= ~RANGE_FAILED;
    bool lacks = (valid & (uint32_t)access->side) == 0;
    /* Bytes that are valid nowhere are undefined: there is nothing to bring. */
    bool brings = lacks && valid != 0 && (access->use & UMO_READ) != 0;
    umo_status status = UMO_OK;
    if (umo_buffer_two_sided(buffer)) {
        if (brings) {
            status = range_transfer(buffer, access, offset_bytes, size_bytes, waits);
        }
    } else if ((buffer->device->info.caps & UMO_CAP_COHERENT) == 0) {
        /* A writer also takes the range away from the other side. */
        bool claims =
            (access->use & UMO_WRITE) != 0 && (valid & ~(uint32_t)access->side) != 0 && !lacks;
        if (lacks || claims) {
            status = range_publish(buffer, access, offset_bytes, size_bytes, waits);
        }
    }
    if (status == UMO_OK && brings) {
        umo_scope_count_transfer(access->scope != NULL ? access->scope : buffer->scope,
                                 side_direction(access->side), umo_buffer_two_sided(buffer),
                                 size_bytes);
        umo_ranges_set(&buffer->valid, offset_bytes, size_bytes, valid | (uint32_t)access->side);
    }
    return status;
}

static umo_status bytes_bring(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    size_t end = access->offset_bytes + access->size_bytes;
    umo_status status = UMO_OK;
    for (size_t at = access->offset_bytes; at < end && status == UMO_OK;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        uint32_t valid = buffer->valid.items[index].value;
        size_t range_end = umo_ranges_end(&buffer->valid, index);
        size_t stop = range_end < end ? range_end : end;
        status = range_bring(buffer, access, at, stop - at, valid, waits);
        at = stop;
    }
    return status;
}

/* How many ranges of the access lack the side: each may need a transfer and one more entry in both
 * lists. */
static size_t ranges_touched(const umo_buffer *buffer, const umo_access *access)
{
    size_t first = umo_ranges_find(&buffer->valid, access->offset_bytes);
    size_t last = umo_ranges_find(&buffer->valid, access->offset_bytes + access->size_bytes - 1);
    return last - first + 1;
}

umo_status umo_access_begin(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    waits->count = 0;
    if (!umo_range_fits(access->offset_bytes, access->size_bytes, buffer->size_bytes) ||
        (access->side != UMO_SIDE_HOST && access->side != UMO_SIDE_DEVICE) ||
        (unsigned)access->use - 1u >= (unsigned)UMO_READ_WRITE ||
        access->queue >= buffer->device->info.queues) {
        return UMO_E_INVAL;
    }
    if ((access->use & UMO_WRITE) != 0 && !buffer->writable) {
        return UMO_E_INVAL;
    }
    if (access->size_bytes == 0) {
        return UMO_OK;
    }
    (void)pthread_mutex_lock(&buffer->lock);
    umo_status status = conflicts_collect(buffer, access, waits);
    if (status == UMO_OK && reads_failed(buffer, access)) {
        status = UMO_E_DEVICE;
    }
    if (status != UMO_OK) {
        goto done;
    }
    if (access->side == UMO_SIDE_HOST) {
        status = shadow_ensure(buffer);
        if (status != UMO_OK) {
            goto done;
        }
    }
    /* What the end of this bracket needs is reserved too, since an end cannot fail: a mark, and a
     * poison's fence. */
    size_t touched = ranges_touched(buffer, access);
    if (!uses_reserve(buffer, touched + 2 + open_count(buffer)) ||
        !umo_ranges_reserve(&buffer->valid, touched + 1 + open_count(buffer))) {
        status = UMO_E_NOMEM;
        goto done;
    }
    status = bytes_bring(buffer, access, waits);
    if (status == UMO_OK) {
        use_add(buffer, (buffer_use){.access = *access, .open = true});
    }

done:
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

/* Test mode: the other side's bytes of a range just became stale; make them useless, in order
 * behind all uses. */
static void stale_poison(umo_buffer *buffer, const umo_access *access, umo_fence done)
{
    umo_device *device = buffer->device;
    umo_side stale = access->side == UMO_SIDE_HOST ? UMO_SIDE_DEVICE : UMO_SIDE_HOST;
    if (!umo_buffer_two_sided(buffer) || (device->info.caps & UMO_CAP_POISON) == 0 ||
        (stale == UMO_SIDE_HOST && umo_buffer_host(buffer) == NULL)) {
        return;
    }
    umo_access fill = *access;
    fill.side = stale;
    fill.use = UMO_WRITE;
    umo_fence_set before = {0};
    (void)wait_later(&before, done);
    for (size_t i = 0; i < buffer->use_count; i++) {
        if (!buffer->uses[i].open && uses_overlap(&buffer->uses[i].access, access)) {
            (void)wait_later(&before, buffer->uses[i].fence);
        }
    }
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count = 0;
    umo_fence fence = {0};
    if (umo_device_waits(device, before.fences, before.count, own, &own_count) == UMO_OK &&
        device->driver->poison(device->state, access->queue, &buffer->memory, stale,
                               buffer->memory_offset + access->offset_bytes, access->size_bytes,
                               host_byte(buffer, access->offset_bytes), own, own_count,
                               &fence) == UMO_OK &&
        fence.value != 0 && buffer->use_count < buffer->use_capacity) {
        fence.device = device;
        fence.queue = access->queue;
        use_add(buffer, (buffer_use){.access = fill, .fence = fence, .moves = true});
    }
}

static umo_status access_close(umo_buffer *buffer, const umo_access *access, umo_fence done,
                               bool succeeded)
{
    if (access->size_bytes == 0) {
        return UMO_OK;
    }
    umo_status status = UMO_E_INVAL;
    (void)pthread_mutex_lock(&buffer->lock);
    for (size_t i = 0; i < buffer->use_count; i++) {
        buffer_use *use = &buffer->uses[i];
        if (!use->open || !access_equal(&use->access, access)) {
            continue;
        }
        if ((access->use & UMO_WRITE) != 0) {
            umo_ranges_set(&buffer->valid, access->offset_bytes, access->size_bytes,
                           succeeded ? (uint32_t)access->side : 0u);
        }
        if (done.value == 0) {
            umo_use_drop(buffer, i);
        } else {
            use->open = false;
            use->fence = done;
            umo_use_fence_hold(buffer, done);
        }
        if (succeeded && (access->use & UMO_WRITE) != 0) {
            stale_poison(buffer, access, done);
        }
        status = UMO_OK;
        break;
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

umo_status umo_access_end(umo_buffer *buffer, const umo_access *access, umo_fence done)
{
    return access_close(buffer, access, done, true);
}

umo_status umo_access_abort(umo_buffer *buffer, const umo_access *access, umo_fence done)
{
    return access_close(buffer, access, done, false);
}

uint32_t umo_buffer_valid(const umo_buffer *buffer, size_t offset_bytes, size_t size_bytes)
{
    if (size_bytes == 0 || !umo_range_fits(offset_bytes, size_bytes, buffer->size_bytes)) {
        return 0;
    }
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&buffer->lock;
    uint32_t valid = UMO_SIDE_HOST | UMO_SIDE_DEVICE;
    (void)pthread_mutex_lock(lock);
    size_t end = offset_bytes + size_bytes;
    for (size_t at = offset_bytes; at < end;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        valid &= buffer->valid.items[index].value;
        at = umo_ranges_end(&buffer->valid, index);
    }
    (void)pthread_mutex_unlock(lock);
    return valid;
}

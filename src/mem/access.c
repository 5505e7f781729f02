/*
 * Brackets: the state machine that knows where bytes are valid, and therefore what every use costs.
 *
 * A buffer keeps two things under its lock: for each range the sides that hold valid bytes, and a
 * short list of uses that are open or whose fences are pending. A new bracket conflicts with an
 * overlapping one when either writes. If that one is still open it is the caller's race (BUSY); if
 * it has ended, its fence is what to wait for. Commands are queued under the lock, which is sound
 * because drivers queue and do not wait; what has to be waited for is waited for without it. A move
 * (migrate.c) closes the buffer, and brackets wait until it is over.
 */
#include "mem/events.h"

#include "base/scope.h"
#include "base/size.h"
#include "mem/record.h"

#include <assert.h>

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

/* Adds a fence to a set that has room for it: waits_fill() saw to that. */
static void fence_add(umo_fence_set *set, umo_fence fence)
{
    bool added = umo_fence_set_add(set, fence);
    assert(added);
    (void)added;
}

/* Can the device be given a command for this bracket? */
static bool queues_command(const umo_buffer *buffer, const umo_access *access)
{
    if (!umo_buffer_two_sided(buffer)) {
        return (buffer->device->info.caps & UMO_CAP_COHERENT) == 0;
    }
    size_t end = access->offset_bytes + access->size_bytes;
    for (size_t at = access->offset_bytes; (access->use & UMO_READ) != 0 && at < end;) {
        size_t index = umo_ranges_find(&buffer->valid, at);
        uint32_t valid = buffer->valid.items[index].value & ~RANGE_FAILED;
        if (valid != 0 && (valid & (uint32_t)access->side) == 0) {
            return true;
        }
        at = umo_ranges_end(&buffer->valid, index);
    }
    return false;
}

/* BUSY for an open conflict. Completed uses are forgotten; pending says whether others are left. */
static umo_status uses_sift(umo_buffer *buffer, const umo_access *access, bool *pending)
{
    for (size_t i = buffer->use_count; i-- > 0;) {
        const buffer_use *use = &buffer->uses[i];
        if (use->open) {
            if (uses_conflict(&use->access, access)) {
                return UMO_E_BUSY;
            }
        } else if (!umo_fence_done(use->fence)) {
            *pending = true;
        } else if (!umo_use_retire(buffer, i)) {
            return UMO_E_NOMEM;
        }
    }
    return UMO_OK;
}

/*
 * The fences of pending uses in conflict. Returns one that has to be waited for before anything
 * else, without the lock, or {0}: of more queues than a command of ours can wait for, with room for
 * its own, or of another device, for which a command cannot wait at all.
 */
static umo_fence waits_fill(const umo_buffer *buffer, const umo_access *access,
                            umo_fence_set *waits)
{
    const bool commands = queues_command(buffer, access);
    umo_fence_set all;
    all.count = 0;
    for (size_t i = buffer->use_count; i-- > 0;) {
        const buffer_use *use = &buffer->uses[i];
        const bool conflicts = uses_conflict(&use->access, access);
        /* A command of ours writes where the bracket only reads. */
        if (use->open || !(conflicts || (commands && uses_overlap(&use->access, access)))) {
            continue;
        }
        if ((commands && use->fence.device != buffer->device) ||
            !umo_fence_set_add(&all, use->fence) || all.count == UMO_WAITS_MAX) {
            return use->fence;
        }
        if (conflicts) {
            (void)umo_fence_set_add(waits, use->fence);
        }
    }
    return (umo_fence){0};
}

static bool reads_across(const umo_buffer *buffer, const umo_access *access)
{
    return buffer->exports[umo_export_index(umo_side_other(access->side))][true] > 0;
}

/* What exports that are out allow. */
static umo_status exports_allow(const umo_buffer *buffer, const umo_access *access, bool exporting)
{
    const uint32_t *other = buffer->exports[umo_export_index(umo_side_other(access->side))];
    if (exporting) {
        bool writes = (access->use & UMO_WRITE) != 0;
        return other[true] > 0 || (writes && other[false] > 0) ? UMO_E_BUSY : UMO_OK;
    }
    if ((access->use & UMO_WRITE) != 0) {
        return UMO_E_BUSY;
    }
    if (!reads_across(buffer, access)) {
        return UMO_OK;
    }
    if (!umo_buffer_two_sided(buffer)) {
        return (buffer->device->info.caps & UMO_CAP_COHERENT) != 0 ? UMO_OK : UMO_E_BUSY;
    }
    /* The bytes are going to be brought over those that another bracket reads. */
    for (size_t i = 0; i < buffer->use_count; i++) {
        const buffer_use *use = &buffer->uses[i];
        if (use->open && use->access.side == access->side && uses_overlap(&use->access, access)) {
            return UMO_E_BUSY;
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
    char *host = umo_host_side(buffer);
    return host == NULL ? NULL : host + offset_bytes;
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
            fence_add(&before, use->fence);
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
    umo_use_add(buffer, &(buffer_use){.access = move, .fence = fence, .moves = true});
    fence_add(waits, fence);
    return UMO_OK;
}

/* Does an open bracket on the host look at a range of the access? */
static bool host_looks(const umo_buffer *buffer, const umo_access *range)
{
    for (size_t i = 0; i < buffer->use_count; i++) {
        const buffer_use *use = &buffer->uses[i];
        if (use->open && use->access.side == UMO_SIDE_HOST && uses_overlap(&use->access, range)) {
            return true;
        }
    }
    return false;
}

/*
 * Makes a range of one memory visible on a side of a device that is not coherent. Only the range
 * that needs it: taking bytes to a side that wrote them last could bring old ones back. What the
 * host wrote is taken away from it (an unmap), which must not happen under a reader there: BUSY.
 */
static umo_status range_publish(umo_buffer *buffer, const umo_access *access, size_t offset_bytes,
                                size_t size_bytes, umo_fence_set *waits)
{
    umo_device *device = buffer->device;
    umo_access move = *access;
    move.offset_bytes = offset_bytes;
    move.size_bytes = size_bytes;
    move.use = UMO_READ_WRITE;
    if (access->side == UMO_SIDE_DEVICE && host_looks(buffer, &move)) {
        return UMO_E_BUSY;
    }
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
    umo_use_add(buffer, &(buffer_use){.access = move, .fence = fence, .moves = true});
    fence_add(waits, fence);
    return UMO_OK;
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
        umo_buffer_count_transfer(buffer, access->scope != NULL ? access->scope : buffer->scope,
                                  access->side, umo_buffer_two_sided(buffer), offset_bytes,
                                  size_bytes, (umo_fence){.queue = access->queue});
        /* Across from an exporter who may write at any time, what was brought is old at once. */
        if (!reads_across(buffer, access)) {
            umo_ranges_set(&buffer->valid, offset_bytes, size_bytes,
                           valid | (uint32_t)access->side);
        }
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

/* The lock is held but while a late fence is waited for. */
static umo_status waits_collect(umo_buffer *buffer, const umo_access *access, bool exporting,
                                umo_fence_set *waits)
{
    for (;;) {
        while (buffer->changing) {
            (void)umo_buffer_change_wait(buffer, UINT64_MAX);
        }
        umo_status status = UMO_OK;
        if (buffer->export_count > 0) {
            status = exports_allow(buffer, access, exporting);
        }
        bool pending = false;
        waits->count = 0;
        if (status == UMO_OK) {
            status = uses_sift(buffer, access, &pending);
        }
        if (status != UMO_OK || !pending) {
            return status;
        }
        const umo_fence late = waits_fill(buffer, access, waits);
        if (late.value == 0) {
            return UMO_OK;
        }
        umo_use_fence_hold(buffer, late);
        (void)pthread_mutex_unlock(&buffer->lock);
        status = umo_fence_wait(late, UINT64_MAX);
        umo_use_fence_drop(buffer, late);
        (void)pthread_mutex_lock(&buffer->lock);
        if (status != UMO_OK) {
            return status;
        }
    }
}

umo_status umo_bytes_claim(umo_buffer *buffer, const umo_access *access, bool exporting,
                           umo_fence_set *waits)
{
    umo_status status = waits_collect(buffer, access, exporting, waits);
    if (status == UMO_OK && reads_failed(buffer, access)) {
        status = UMO_E_DEVICE;
    }
    if (status == UMO_OK && access->side == UMO_SIDE_HOST && umo_host_side(buffer) == NULL) {
        status = umo_host_side_make(buffer, NULL);
    }
    if (status != UMO_OK) {
        return status;
    }
    /* What the end of this bracket needs is reserved too, since an end cannot fail: a mark, and a
     * poison's fence. */
    size_t touched = ranges_touched(buffer, access);
    size_t open = umo_uses_open(buffer);
    if (!umo_uses_reserve(buffer, touched + 2 + open) ||
        !umo_ranges_reserve(&buffer->valid, touched + 1 + open)) {
        return UMO_E_NOMEM;
    }
    return bytes_bring(buffer, access, waits);
}

/* ---- bytes that several buffers use, one after the other ---- */

static umo_access piece_access(const umo_buffer *buffer, const umo_access *access, umo_use use)
{
    umo_access there = *access;
    there.offset_bytes += buffer->piece_offset;
    there.use = use;
    return there;
}

umo_status umo_piece_open(umo_buffer *buffer, const umo_access *access, umo_use noted,
                          umo_fence_set *waits)
{
    umo_buffer *piece = buffer->piece;
    waits->count = 0;
    if (piece == NULL) {
        return UMO_OK;
    }
    const umo_access asked = piece_access(buffer, access, access->use);
    const umo_access there = piece_access(buffer, access, noted);
    (void)pthread_mutex_lock(&piece->lock);
    umo_status status = waits_collect(piece, &asked, false, waits);
    if (status == UMO_OK) {
        /* As for a bracket: what its end needs is reserved now. */
        const size_t open = umo_uses_open(piece);
        if (umo_uses_reserve(piece, 1) && umo_ranges_reserve(&piece->valid, 1 + open)) {
            umo_use_open(piece, &there);
        } else {
            status = UMO_E_NOMEM;
        }
    }
    (void)pthread_mutex_unlock(&piece->lock);
    return status;
}

void umo_piece_waits_add(umo_fence_set *waits, const umo_fence_set *piece)
{
    for (size_t i = 0; i < piece->count; i++) {
        if (!umo_fence_set_add(waits, piece->fences[i])) {
            /* Whether it failed concerns another buffer's bytes. */
            umo_status_ignore(umo_fence_wait(piece->fences[i], UINT64_MAX));
        }
    }
}

static umo_status bracket_claim(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    (void)pthread_mutex_lock(&buffer->lock);
    umo_status status = umo_bytes_claim(buffer, access, false, waits);
    if (status == UMO_OK) {
        umo_use_open(buffer, access);
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    return status;
}

static umo_status shared_claim(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    umo_fence_set before;
    umo_status status = umo_piece_open(buffer, access, access->use, &before);
    if (status != UMO_OK) {
        return status;
    }
    status = bracket_claim(buffer, access, waits);
    if (status == UMO_OK) {
        umo_piece_waits_add(waits, &before);
    } else {
        umo_piece_close(buffer, access, access->use, (umo_fence){0});
    }
    return status;
}

umo_status umo_bracket_open(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    umo_status status = buffer->piece == NULL ? bracket_claim(buffer, access, waits)
                                              : shared_claim(buffer, access, waits);
    UMO_TRACE_ACCESS(buffer, access, UMO_EVENT_ACCESS_BEGIN, (umo_fence){0}, status);
    return status;
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
    umo_status status = umo_bracket_open(buffer, access, waits);
    if (status == UMO_OK) {
        umo_record_bracket(buffer, access);
    }
    return status;
}

/* What the poison of a range has to come behind. False where that takes waiting, which a test's aid
 * is not worth under the lock: too many queues, or another device. */
static bool poison_waits(const umo_buffer *buffer, const umo_access *access, umo_fence done,
                         umo_fence_set *before)
{
    if (done.value != 0 && done.device != buffer->device) {
        return false;
    }
    fence_add(before, done);
    for (size_t i = 0; i < buffer->use_count; i++) {
        const buffer_use *use = &buffer->uses[i];
        if (!use->open && uses_overlap(&use->access, access) &&
            (use->fence.device != buffer->device || !umo_fence_set_add(before, use->fence))) {
            return false;
        }
    }
    return true;
}

void umo_stale_poison(umo_buffer *buffer, const umo_access *access, umo_fence done)
{
    umo_device *device = buffer->device;
    umo_side stale = umo_side_other(access->side);
    umo_fence_set before = {0};
    if (!umo_buffer_two_sided(buffer) || (device->info.caps & UMO_CAP_POISON) == 0 ||
        (stale == UMO_SIDE_HOST && umo_host_side(buffer) == NULL) ||
        !poison_waits(buffer, access, done, &before)) {
        return;
    }
    umo_access fill = *access;
    fill.side = stale;
    fill.use = UMO_WRITE;
    umo_fence fence = {0};
    if (device->driver->poison(device->state, access->queue, &buffer->memory, stale,
                               buffer->memory_offset + access->offset_bytes, access->size_bytes,
                               host_byte(buffer, access->offset_bytes), before.fences, before.count,
                               &fence) == UMO_OK &&
        fence.value != 0 && buffer->use_count < buffer->use_capacity) {
        fence.device = device;
        fence.queue = access->queue;
        umo_use_add(buffer, &(buffer_use){.access = fill, .fence = fence, .moves = true});
    }
}

/* The open bracket that is equal to an access: this thread's own before another's, since a move
 * asks who has brackets open. NULL if there is none. */
static buffer_use *bracket_find(umo_buffer *buffer, const umo_access *access)
{
    buffer_use *found = NULL;
    for (size_t i = 0; i < buffer->use_count; i++) {
        buffer_use *use = &buffer->uses[i];
        if (!use->open || !access_equal(&use->access, access)) {
            continue;
        }
        if (pthread_equal(use->opener, pthread_self())) {
            return use;
        }
        found = found == NULL ? use : found;
    }
    return found;
}

void umo_piece_close(umo_buffer *buffer, const umo_access *access, umo_use noted, umo_fence done)
{
    umo_buffer *piece = buffer->piece;
    if (piece == NULL) {
        return;
    }
    const umo_access there = piece_access(buffer, access, noted);
    (void)pthread_mutex_lock(&piece->lock);
    buffer_use *use = bracket_find(piece, &there);
    assert(use != NULL);
    if ((noted & UMO_WRITE) != 0) {
        /* Of bytes that nobody reads as the piece's: no failure has to be remembered. */
        umo_ranges_set(&piece->valid, there.offset_bytes, there.size_bytes, 0);
    }
    if (done.value == 0) {
        umo_use_drop(piece, (size_t)(use - piece->uses));
    } else {
        use->open = false;
        use->fence = done;
        umo_use_fence_hold(piece, done);
    }
    (void)pthread_mutex_unlock(&piece->lock);
}

static umo_status access_close(umo_buffer *buffer, const umo_access *access, umo_fence done,
                               bool succeeded)
{
    if (access->size_bytes == 0) {
        return UMO_OK;
    }
    umo_status status = UMO_E_INVAL;
    (void)pthread_mutex_lock(&buffer->lock);
    buffer_use *use = bracket_find(buffer, access);
    if (use != NULL) {
        if ((access->use & UMO_WRITE) != 0) {
            umo_ranges_set(&buffer->valid, access->offset_bytes, access->size_bytes,
                           succeeded ? (uint32_t)access->side : 0u);
        }
        if (done.value == 0) {
            umo_use_drop(buffer, (size_t)(use - buffer->uses));
        } else {
            use->open = false;
            use->fence = done;
            umo_use_fence_hold(buffer, done);
        }
        if (succeeded && (access->use & UMO_WRITE) != 0 &&
            (buffer->device->info.caps & UMO_CAP_POISON) != 0) {
            umo_stale_poison(buffer, access, done);
        }
        umo_buffer_changed(buffer);
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    if (status == UMO_OK) {
        umo_piece_close(buffer, access, access->use, done);
    }
    UMO_TRACE_ACCESS(buffer, access, succeeded ? UMO_EVENT_ACCESS_END : UMO_EVENT_ACCESS_ABORT,
                     done, status);
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

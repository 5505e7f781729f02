/*
 * Exports: memory in the hands of somebody who opens no brackets.
 *
 * An export begins like a bracket over all bytes, which settles who may and what to wait for, but
 * is a count and no use in the list: what it does is not known until it ends. A writable one takes
 * the bytes away from the other side at once, because nobody says when it writes.
 */
#include "mem/events.h"

static umo_access export_access(const umo_buffer *buffer, umo_side side, bool writable)
{
    return (umo_access){.size_bytes = buffer->size_bytes,
                        .side = side,
                        .use = writable ? UMO_READ_WRITE : UMO_READ};
}

static bool side_is_one(umo_side side)
{
    return side == UMO_SIDE_HOST || side == UMO_SIDE_DEVICE;
}

/*
 * In the books of a piece an export only reads, whatever it may do: that lets the buffer's own
 * readers and its other exports in, and nobody who uses the bytes for another buffer, as each of
 * those has to write them first.
 */
static umo_status piece_export(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits)
{
    umo_status status = umo_piece_open(buffer, access, UMO_READ, waits);
    if (status != UMO_E_BUSY) {
        return status;
    }
    /* In the way may be an export of the same buffer, beside which it may begin. */
    (void)pthread_mutex_lock(&buffer->lock);
    const bool exported = buffer->export_count > 0;
    (void)pthread_mutex_unlock(&buffer->lock);
    umo_access reads = *access;
    reads.use = UMO_READ;
    return exported ? umo_piece_open(buffer, &reads, UMO_READ, waits) : status;
}

umo_status umo_buffer_export_begin(umo_buffer *buffer, umo_side side, bool writable,
                                   umo_fence_set *waits)
{
    waits->count = 0;
    if (!side_is_one(side) || (writable && !buffer->writable)) {
        return UMO_E_INVAL;
    }
    umo_access access = export_access(buffer, side, writable);
    umo_fence_set before;
    umo_status status = piece_export(buffer, &access, &before);
    if (status != UMO_OK) {
        UMO_TRACE_ACCESS(buffer, &access, UMO_EVENT_EXPORT_BEGIN, (umo_fence){0}, status);
        return status;
    }
    (void)pthread_mutex_lock(&buffer->lock);
    status = umo_bytes_claim(buffer, &access, true, waits);
    if (status == UMO_OK) {
        umo_buffer_acquire(buffer);
        buffer->exports[umo_export_index(side)][writable]++;
        buffer->export_count++;
        if (writable) {
            umo_ranges_set(&buffer->valid, 0, buffer->size_bytes, (uint32_t)side);
            umo_stale_poison(buffer, &access, (umo_fence){0});
        }
        umo_buffer_relocation_wait(buffer);
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    if (status == UMO_OK) {
        umo_piece_waits_add(waits, &before);
    } else {
        umo_piece_close(buffer, &access, UMO_READ, (umo_fence){0});
    }
    UMO_TRACE_ACCESS(buffer, &access, UMO_EVENT_EXPORT_BEGIN, (umo_fence){0}, status);
    return status;
}

umo_status umo_buffer_export_end(umo_buffer *buffer, umo_side side, bool writable, umo_fence done)
{
    if (!side_is_one(side)) {
        return UMO_E_INVAL;
    }
    umo_status status = UMO_E_INVAL;
    (void)pthread_mutex_lock(&buffer->lock);
    uint32_t *count = &buffer->exports[umo_export_index(side)][writable];
    if (*count > 0) {
        --*count;
        buffer->export_count--;
        if (done.value != 0) {
            /* Every bracket since has left room for the ends of the exports that are out. */
            umo_use_fence_hold(buffer, done);
            umo_use_add(buffer, &(buffer_use){.access = export_access(buffer, side, writable),
                                              .fence = done});
        }
        umo_buffer_changed(buffer);
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    const umo_access access = export_access(buffer, side, writable);
    UMO_TRACE_ACCESS(buffer, &access, UMO_EVENT_EXPORT_END, done, status);
    if (status == UMO_OK) {
        umo_piece_close(buffer, &access, UMO_READ, done);
        umo_buffer_release(buffer);
    }
    return status;
}

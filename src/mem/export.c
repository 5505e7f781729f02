/*
 * Exports: memory in the hands of somebody who opens no brackets.
 *
 * An export begins like a bracket over all bytes, which settles who may and what to wait for, and
 * then stays as a count: what it does is not known until it ends. A writable one takes the bytes
 * away from the other side at once, because nobody says when it writes.
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

/* Takes the bracket that began the export out of the list. Whoever ended an equal one of his own
 * meanwhile may have met ours; then his is left, and does as well. */
static void bracket_forget(umo_buffer *buffer, const umo_access *access)
{
    size_t found = buffer->use_count;
    for (size_t i = 0; i < buffer->use_count; i++) {
        const buffer_use *use = &buffer->uses[i];
        if (use->open && use->access.side == access->side && use->access.use == access->use &&
            use->access.size_bytes == access->size_bytes && use->access.queue == access->queue) {
            found = i;
            if (pthread_equal(use->opener, pthread_self())) {
                break;
            }
        }
    }
    if (found < buffer->use_count) {
        umo_use_drop(buffer, found);
    }
}

umo_status umo_buffer_export_begin(umo_buffer *buffer, umo_side side, bool writable,
                                   umo_fence_set *waits)
{
    waits->count = 0;
    if (!side_is_one(side) || (writable && !buffer->writable)) {
        return UMO_E_INVAL;
    }
    umo_access access = export_access(buffer, side, writable);
    umo_status status = umo_bracket_open(buffer, &access, true, waits);
    UMO_TRACE_ACCESS(buffer, &access, UMO_EVENT_EXPORT_BEGIN, (umo_fence){0}, status);
    if (status != UMO_OK) {
        return status;
    }
    (void)pthread_mutex_lock(&buffer->lock);
    bracket_forget(buffer, &access);
    buffer->exports[umo_export_index(side)][writable]++;
    buffer->export_count++;
    if (writable) {
        umo_ranges_set(&buffer->valid, 0, buffer->size_bytes, (uint32_t)side);
        umo_stale_poison(buffer, &access, (umo_fence){0});
    }
    (void)pthread_mutex_unlock(&buffer->lock);
    umo_buffer_acquire(buffer);
    return UMO_OK;
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
        umo_buffer_release(buffer);
    }
    return status;
}

/*
 * Pins: memory that stays where it is.
 *
 * A page-lock may touch every page, so it runs without the buffer's lock; `changing` keeps moves
 * and other pins away meanwhile, and brackets, because the first one on the host may make a host
 * side, which has to be locked or not with the rest.
 */
#include "mem/events.h"

#include "mem/page_lock.h"

/* Takes the lock again and lets the others in. */
static void change_end(umo_buffer *buffer, uint32_t pins)
{
    (void)pthread_mutex_lock(&buffer->lock);
    buffer->pins = pins;
    buffer->changing = false;
    umo_buffer_changed(buffer);
    (void)pthread_mutex_unlock(&buffer->lock);
}

static void pin_tell(umo_buffer *buffer, umo_event_kind kind, uint64_t start_ns, umo_status status)
{
    UMO_TRACE_BUFFER(buffer, buffer->scope, .kind = kind, .size_bytes = buffer->size_bytes,
                     .start_ns = start_ns, .status = status);
}

umo_status umo_buffer_pin(umo_buffer *buffer, umo_error *error)
{
    umo_buffer_lock_quiet(buffer);
    void *host = umo_host_side(buffer);
    if (buffer->pins > 0 || host == NULL) {
        umo_status status = UMO_OK;
        if (buffer->pins == UINT32_MAX) {
            status = umo_error_set(error, UMO_E_LIMIT, 0, "the buffer is pinned too often");
        } else {
            buffer->pins++;
        }
        umo_buffer_changed(buffer);
        (void)pthread_mutex_unlock(&buffer->lock);
        pin_tell(buffer, UMO_EVENT_PIN, 0, status);
        return status;
    }
    buffer->changing = true;
    umo_buffer_relocation_wait(buffer);
    (void)pthread_mutex_unlock(&buffer->lock);
    const uint64_t start_ns = umo_trace_clock();
    umo_status status = umo_page_lock(host, buffer->size_bytes, error);
    change_end(buffer, status == UMO_OK ? 1 : 0);
    pin_tell(buffer, UMO_EVENT_PIN, start_ns, status);
    return status;
}

umo_status umo_buffer_unpin(umo_buffer *buffer)
{
    umo_buffer_lock_quiet(buffer);
    bool last = buffer->pins == 1;
    umo_status status = buffer->pins > 0 ? UMO_OK : UMO_E_INVAL;
    if (!last || umo_host_side(buffer) == NULL) {
        buffer->pins -= status == UMO_OK ? 1 : 0;
        umo_buffer_changed(buffer);
        (void)pthread_mutex_unlock(&buffer->lock);
        pin_tell(buffer, UMO_EVENT_UNPIN, 0, status);
        return status;
    }
    buffer->changing = true;
    (void)pthread_mutex_unlock(&buffer->lock);
    const uint64_t start_ns = umo_trace_clock();
    umo_host_side_unlock(buffer);
    change_end(buffer, 0);
    pin_tell(buffer, UMO_EVENT_UNPIN, start_ns, UMO_OK);
    return UMO_OK;
}

bool umo_buffer_pinned(const umo_buffer *buffer)
{
    pthread_mutex_t *lock = (pthread_mutex_t *)(uintptr_t)&buffer->lock;
    (void)pthread_mutex_lock(lock);
    bool pinned = buffer->pins > 0;
    (void)pthread_mutex_unlock(lock);
    return pinned;
}

/*
 * What the optimizer does with memory that exists: moves, prefetches, pins, and the figures.
 */
#include "context/optimizer_state.h"

#include <string.h>

/* The buffer at an address, and the optimizer, each with a reference. */
static umo_status use_begin(const void *address, optimizer **o, umo_buffer **buffer,
                            umo_error *error)
{
    umo_status status = umo_optimizer_enter(o, error);
    if (status == UMO_OK) {
        status = umo_buffer_find(address, buffer);
        if (status != UMO_OK) {
            (void)umo_error_set(error, status, 0, "no buffer holds that memory");
            umo_optimizer_leave(*o);
        }
    }
    return status;
}

static void use_end(optimizer *o, umo_buffer *buffer)
{
    umo_buffer_release(buffer);
    umo_optimizer_leave(o);
}

umo_status umo_optimizer_optimize(const void *address, bool *moved, umo_error *error)
{
    optimizer *o;
    umo_buffer *buffer;
    umo_status status = use_begin(address, &o, &buffer, error);
    if (status != UMO_OK) {
        return status;
    }
    bool did = false;
    status = umo_buffer_optimize(buffer, o->placer, &did, error);
    if (status == UMO_OK && moved != NULL) {
        *moved = did;
    }
    use_end(o, buffer);
    return status;
}

umo_status umo_optimizer_prefetch(const void *address, size_t size_bytes, umo_side side,
                                  umo_error *error)
{
    optimizer *o;
    umo_buffer *buffer;
    umo_status status = use_begin(address, &o, &buffer, error);
    if (status != UMO_OK) {
        return status;
    }
    size_t offset = (size_t)((const char *)address - (const char *)umo_buffer_host(buffer));
    if (!o->config.prefetching) {
        status =
            umo_error_set(error, UMO_E_UNSUPPORTED, 0, "prefetching is off in the configuration");
    } else {
        size_t left = umo_buffer_size(buffer) - offset;
        if (size_bytes == 0) {
            size_bytes = left < o->config.prefetch_bytes ? left : o->config.prefetch_bytes;
        }
        status = umo_buffer_prefetch(buffer, offset, size_bytes, side, error);
    }
    use_end(o, buffer);
    return status;
}

umo_status umo_optimizer_pin(const void *address, bool pin, umo_error *error)
{
    optimizer *o;
    umo_buffer *buffer;
    umo_status status = use_begin(address, &o, &buffer, error);
    if (status != UMO_OK) {
        return status;
    }
    if (pin) {
        status = umo_buffer_pin(buffer, error);
    } else {
        status = umo_buffer_unpin(buffer);
        if (status != UMO_OK) {
            (void)umo_error_set(error, status, 0, "the buffer is not pinned");
        }
    }
    use_end(o, buffer);
    return status;
}

umo_status umo_optimizer_adapt(umo_error *error)
{
    optimizer *o;
    umo_status status = umo_optimizer_enter(&o, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_pressure *pressure = umo_context_pressure(o->context);
    if (!o->config.pressure_adaptation || pressure == NULL) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "pressure adaptation is off in the configuration");
    } else {
        (void)umo_pressure_poke(pressure);
    }
    umo_optimizer_leave(o);
    return status;
}

/* The lock is held, so that nobody subtracts a reset that is younger than what he read. */
static void eliminated_read(const optimizer *o, umo_tally out[UMO_DIRECTIONS])
{
    umo_counters counters;
    umo_scope_read(umo_context_scope(o->context), &counters);
    memcpy(out, counters.transfer_eliminated, sizeof counters.transfer_eliminated);
}

/* Since the last reset. */
static void eliminated_since(optimizer *o, umo_tally out[UMO_DIRECTIONS])
{
    (void)pthread_mutex_lock(&o->lock);
    eliminated_read(o, out);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        out[d].events -= o->reset[d].events;
        out[d].bytes -= o->reset[d].bytes;
    }
    (void)pthread_mutex_unlock(&o->lock);
}

umo_status umo_optimizer_transfer_eliminated(uint64_t size_bytes, umo_direction direction)
{
    if ((unsigned)direction >= UMO_DIRECTIONS) {
        return UMO_E_INVAL;
    }
    optimizer *o;
    umo_status status = umo_optimizer_enter(&o, NULL);
    if (status == UMO_OK) {
        umo_scope_count_transfer(umo_context_scope(o->context), direction, false, size_bytes);
        umo_optimizer_leave(o);
    }
    return status;
}

umo_status umo_optimizer_transfers_read(umo_optimizer_transfers *out)
{
    optimizer *o;
    umo_status status = umo_optimizer_enter(&o, NULL);
    if (status == UMO_OK) {
        umo_tally since[UMO_DIRECTIONS];
        eliminated_since(o, since);
        out->to_device = since[UMO_DIRECTION_IN];
        out->to_host = since[UMO_DIRECTION_OUT];
        umo_optimizer_leave(o);
    }
    return status;
}

umo_status umo_optimizer_transfers_reset(void)
{
    optimizer *o;
    umo_status status = umo_optimizer_enter(&o, NULL);
    if (status == UMO_OK) {
        (void)pthread_mutex_lock(&o->lock);
        eliminated_read(o, o->reset);
        (void)pthread_mutex_unlock(&o->lock);
        umo_optimizer_leave(o);
    }
    return status;
}

umo_status umo_optimizer_stats_read(umo_optimizer_stats *out, umo_error *error)
{
    optimizer *o;
    umo_status status = umo_optimizer_enter(&o, error);
    if (status != UMO_OK) {
        return status;
    }
    const umo_scope *scope = umo_context_scope(o->context);
    umo_access_summary summary;
    umo_access_summarize(scope, &summary);
    umo_counters counters;
    umo_scope_read(scope, &counters);
    umo_tally since[UMO_DIRECTIONS];
    eliminated_since(o, since);
    out->total_bytes = counters.live_bytes + summary.wrapped_bytes;
    /* The two are read one after the other, while buffers come and go. */
    const uint64_t unified_bytes = summary.mode_bytes[UMO_UNIFIED];
    out->unified_bytes = unified_bytes < out->total_bytes ? unified_bytes : out->total_bytes;
    out->eliminated_bytes = since[UMO_DIRECTION_IN].bytes + since[UMO_DIRECTION_OUT].bytes;
    memcpy(out->pattern_bytes, summary.pattern_bytes, sizeof out->pattern_bytes);
    umo_optimizer_leave(o);
    return UMO_OK;
}

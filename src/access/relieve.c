/*
 * The walk over idle buffers. Two passes, so that what has been cold for long goes first; a buffer
 * that is in use at that moment is passed over, never waited for.
 */
#include "access/relieve.h"

#include "mem/buffer_state.h"

#include <umo/access.h>

#define SECOND_NS UINT64_C(1000000000)
#define COLD_NS (10 * SECOND_NS)

typedef struct walk {
    bool device;
    uint64_t want_bytes;
    uint64_t given_bytes;
    uint64_t now_ns;
    uint64_t idle_ns; /* unused for so long */
} walk;

static uint64_t charged(umo_buffer *buffer)
{
    (void)pthread_mutex_lock(&buffer->lock);
    uint64_t bytes = buffer->charged_bytes;
    (void)pthread_mutex_unlock(&buffer->lock);
    return bytes;
}

/* The mode that needs least of what is short; the one that it has where there is no better. */
static umo_storage_mode leaner(const umo_buffer *buffer, bool device)
{
    umo_storage_mode mode = umo_buffer_mode(buffer);
    bool one_memory = buffer->device->info.unified;
    umo_storage_mode wanted = mode;
    if (device) {
        wanted = one_memory ? mode : UMO_UNIFIED;
    } else if (mode == UMO_MANAGED) {
        wanted = one_memory ? UMO_UNIFIED : UMO_PRIVATE;
    }
    return (umo_buffer_modes(buffer) & (1u << wanted)) != 0 ? wanted : mode;
}

static bool idle(umo_buffer *buffer, const walk *w)
{
    umo_access_stats stats;
    umo_buffer_stats(buffer, &stats);
    return stats.last_ns == 0 ||
           (w->now_ns > stats.last_ns && w->now_ns - stats.last_ns >= w->idle_ns);
}

static bool buffer_visit(umo_buffer *buffer, void *user)
{
    walk *w = user;
    if (buffer->home == NULL || !idle(buffer, w)) {
        return true;
    }
    umo_storage_mode mode = umo_buffer_mode(buffer);
    umo_storage_mode wanted = leaner(buffer, w->device);
    /* From PRIVATE to PRIVATE: without its host side, which costs the device nothing. */
    if (wanted == mode && (mode != UMO_PRIVATE || w->device)) {
        return true;
    }
    uint64_t before = charged(buffer);
    if (umo_buffer_move(buffer, wanted, 0, NULL) != UMO_OK) {
        return true;
    }
    uint64_t after = charged(buffer);
    if (w->device) {
        w->given_bytes += umo_buffer_size(buffer);
    } else {
        w->given_bytes += before > after ? before - after : 0;
    }
    return w->given_bytes < w->want_bytes;
}

uint64_t umo_relieve_buffers(umo_scope *root, bool device, uint64_t want_bytes,
                             umo_pressure_level level, uint64_t now_ns)
{
    walk w = {.device = device, .want_bytes = want_bytes, .now_ns = now_ns, .idle_ns = COLD_NS};
    umo_buffer_visit(root, buffer_visit, &w);
    if (w.given_bytes < want_bytes) {
        w.idle_ns = level == UMO_PRESSURE_CRITICAL ? SECOND_NS / 10 : SECOND_NS;
        umo_buffer_visit(root, buffer_visit, &w);
    }
    return w.given_bytes;
}

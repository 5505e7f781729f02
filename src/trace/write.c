/*
 * Writing one event.
 */
#include "base/scope.h"
#include "os/os.h"
#include "trace/names.h"
#include "trace/show.h"

static uint32_t thread_number(void)
{
    static _Atomic uint32_t threads;
    static _Thread_local uint32_t own;
    if (own == 0) {
        own = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
    }
    return own;
}

uint64_t umo_trace_clock_read(void)
{
    return umo_os_now_ns();
}

static uint64_t small_pack(const umo_trace_event *e)
{
    return (uint64_t)(e->kind & 0xFFu) | (uint64_t)(e->side & 0xFFu) << 8 |
           (uint64_t)(e->use & 0xFFu) << 16 | (uint64_t)(e->mode & 0xFFu) << 24 |
           (uint64_t)(e->mode_before & 0xFFu) << 32 | (uint64_t)(e->direction & 0xFFu) << 40 |
           (uint64_t)(e->reason & 0xFFu) << 48 | (uint64_t)(e->status & 0xFu) << 56 |
           (uint64_t)(e->queue & 0xFu) << 60;
}

/* Owns the slot of the next position, or returns NULL when somebody who is a whole ring behind or
 * ahead has it: then this event is one of those that are lost. */
static umo_trace_slot *slot_claim(umo_trace_ring *ring, uint32_t shard, uint64_t *position)
{
    *position = atomic_fetch_add_explicit(&ring->shards[shard].next, 1, memory_order_relaxed);
    umo_trace_slot *slot = umo_trace_ring_slot(ring, shard, *position);
    uint64_t seen = atomic_load_explicit(&slot->sequence, memory_order_relaxed);
    if ((seen & 1) != 0 || seen > *position * 2 ||
        !atomic_compare_exchange_strong_explicit(&slot->sequence, &seen, *position * 2 + 1,
                                                 memory_order_acquire, memory_order_relaxed)) {
        return NULL;
    }
    return slot;
}

static void names_keep(umo_trace_ring *ring, uint32_t scope, const umo_trace_event *e)
{
    bool named =
        scope == 0 || umo_trace_name_keep(UMO_TRACE_NAME_SCOPE, scope, umo_scope_name(e->scope));
    named = (e->device == 0 || umo_trace_name_keep(UMO_TRACE_NAME_DEVICE, e->device, e->driver)) &&
            named;
    if (!named) {
        (void)atomic_fetch_add_explicit(&ring->names_lost, 1, memory_order_relaxed);
        (void)atomic_fetch_add_explicit(&UMO_TRACE_HEAD->names_lost, 1, memory_order_relaxed);
    }
}

void umo_trace_write(const umo_trace_event *e)
{
    umo_trace_ring *ring = atomic_load_explicit(&umo_trace_now, memory_order_acquire);
    if (__builtin_expect(ring == NULL, 0) || umo_trace_asked()) {
        ring = umo_trace_answer();
        if (ring == NULL) {
            return;
        }
    }
    const uint32_t thread = thread_number();
    const uint32_t scope = e->scope != NULL ? umo_scope_number(e->scope) : 0;
    names_keep(ring, scope, e);
    const uint32_t shard = (thread - 1) & (ring->shard_count - 1);
    uint64_t position;
    umo_trace_slot *slot = slot_claim(ring, shard, &position);
    if (slot == NULL) {
        return;
    }
    const uint64_t now = umo_os_now_ns();
    const uint64_t words[UMO_TRACE_WORDS] = {
        now,
        e->start_ns != 0 ? now - e->start_ns : 0,
        e->buffer,
        e->offset_bytes,
        e->size_bytes,
        e->fence_value,
        (uint64_t)thread << 32 | scope,
        (uint64_t)e->device << 32 | e->detail,
        small_pack(e),
    };
    /* Release, so that whoever sees one of these words also sees that the slot is being written. */
    for (uint32_t i = 0; i < UMO_TRACE_WORDS; i++) {
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    }
    atomic_store_explicit(&slot->sequence, position * 2 + 2, memory_order_release);
    /* The next event's slot was written a whole ring ago: have it here by then. */
    const umo_trace_slot *next = umo_trace_ring_slot(ring, shard, position + 1);
    __builtin_prefetch(next, 1);
    __builtin_prefetch((const char *)(next + 1) - 1, 1);
    if (umo_trace_lapsed(now) && !umo_trace_own_on()) {
        umo_trace_lapse();
    }
}

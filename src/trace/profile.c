/*
 * Starting, pausing and reading the flight recorder.
 *
 * A lock orders those who start and pause; events and readers never take it. What was mapped stays
 * mapped, one ring a shape, so that neither of them can lose the memory under its hands.
 */
#include "base/scope.h"
#include "os/os.h"
#include "trace/ring.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t fork_once = PTHREAD_ONCE_INIT;
static umo_trace_ring *kept;                  /* under the lock */
static _Atomic(umo_trace_ring *) ring_latest; /* what readers see, also while it is paused */

static void lock_take(void)
{
    (void)pthread_mutex_lock(&lock);
}

static void lock_give(void)
{
    (void)pthread_mutex_unlock(&lock);
}

/* A child must not inherit the lock of a thread that it does not have. */
static void fork_prepare(void)
{
    (void)pthread_atfork(lock_take, lock_give, lock_give);
}

/* Counts made through trace.h. */
static void counted(const umo_scope_event *e)
{
    UMO_TRACE(.kind = e->transfer    ? e->performed ? UMO_EVENT_TRANSFER_PERFORMED
                                                    : UMO_EVENT_TRANSFER_ELIMINATED
                      : e->performed ? UMO_EVENT_COPY
                                     : UMO_EVENT_COPY_AVOIDED,
              .scope = e->scope, .size_bytes = e->size_bytes,
              .direction = (uint32_t)e->direction + 1, .reason = e->reason);
}

static void record_into(umo_trace_ring *ring)
{
    atomic_store_explicit(&umo_trace_now, ring, memory_order_release);
    umo_scope_listen(ring != NULL ? counted : NULL);
}

static umo_trace_ring *ring_find(uint32_t shard_count, uint64_t shard_slots)
{
    for (umo_trace_ring *ring = kept; ring != NULL; ring = ring->kept) {
        if (ring->shard_count == shard_count && ring->shard_slots == shard_slots) {
            return ring;
        }
    }
    umo_trace_ring *ring = umo_trace_ring_create(shard_count, shard_slots);
    if (ring != NULL) {
        ring->kept = kept;
        kept = ring;
    }
    return ring;
}

umo_status umo_profile_start(const umo_profile_options *options, umo_error *error)
{
    uint32_t shard_count;
    uint64_t shard_slots;
    if (umo_trace_shape(options, &shard_count, &shard_slots) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a recording takes at most 1 GiB, and a power of two of shards, at "
                             "most %u",
                             UMO_TRACE_SHARDS_MAX);
    }
    (void)pthread_once(&fork_once, fork_prepare);
    lock_take();
    umo_trace_ring *ring = ring_find(shard_count, shard_slots);
    if (ring != NULL) {
        umo_trace_ring_restart(ring);
        atomic_store_explicit(&ring_latest, ring, memory_order_release);
        record_into(ring);
    }
    lock_give();
    return ring != NULL ? UMO_OK
                        : umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a recording");
}

umo_status umo_profile_enable(bool on)
{
    (void)pthread_once(&fork_once, fork_prepare);
    lock_take();
    umo_trace_ring *ring = atomic_load_explicit(&ring_latest, memory_order_relaxed);
    if (!on || ring != NULL) {
        record_into(on ? ring : NULL);
    }
    lock_give();
    return on && ring == NULL ? umo_profile_start(NULL, NULL) : UMO_OK;
}

/* ---- reading ---- */

typedef struct cursor {
    uint64_t position;
    uint64_t end;
    bool loaded;
    umo_profile_event event; /* at position - 1, when loaded */
} cursor;

/* The next event that can be read. What is overwritten while we are on our way is passed over. */
static void cursor_advance(const umo_trace_ring *ring, uint32_t shard, cursor *c)
{
    c->loaded = false;
    while (!c->loaded && c->position < c->end) {
        c->loaded = umo_trace_ring_get(ring, shard, c->position, &c->event);
        c->position++;
    }
}

static uint64_t cursor_start(const umo_trace_ring *ring, uint32_t index, cursor *c)
{
    const umo_trace_shard *shard = &ring->shards[index];
    uint64_t first = atomic_load_explicit(&shard->first, memory_order_relaxed);
    c->end = atomic_load_explicit(&shard->next, memory_order_acquire);
    first = first < c->end ? first : c->end;
    uint64_t recorded = c->end - first;
    c->position = recorded > ring->shard_slots ? c->end - ring->shard_slots : first;
    cursor_advance(ring, index, c);
    return recorded;
}

/* Merges the shards by time. Returns how many were visited; recorded is what there was. */
static uint64_t events_visit(const umo_trace_ring *ring, umo_profile_visit visit, void *user,
                             uint64_t *recorded)
{
    cursor cursors[UMO_TRACE_SHARDS_MAX];
    uint64_t visited = 0;
    *recorded = 0;
    for (uint32_t i = 0; i < ring->shard_count; i++) {
        *recorded += cursor_start(ring, i, &cursors[i]);
    }
    for (;;) {
        cursor *oldest = NULL;
        for (uint32_t i = 0; i < ring->shard_count; i++) {
            if (cursors[i].loaded &&
                (oldest == NULL || cursors[i].event.time_ns < oldest->event.time_ns)) {
                oldest = &cursors[i];
            }
        }
        if (oldest == NULL) {
            return visited;
        }
        visited++;
        if (visit != NULL && !visit(&oldest->event, user)) {
            return visited;
        }
        cursor_advance(ring, (uint32_t)(oldest - cursors), oldest);
    }
}

umo_status umo_profile_read(umo_profile_visit visit, void *user, umo_profile_stats *out)
{
    const umo_trace_ring *ring = atomic_load_explicit(&ring_latest, memory_order_acquire);
    if (ring == NULL) {
        return UMO_E_NOT_FOUND;
    }
    uint64_t recorded;
    uint64_t visited = events_visit(ring, visit, user, &recorded);
    if (out != NULL) {
        *out = (umo_profile_stats){
            .recording = umo_trace_on(),
            .recorded = recorded,
            .lost = recorded - visited,
            .names_lost = atomic_load_explicit(&ring->names_lost, memory_order_relaxed),
            .capacity = ring->shard_count * ring->shard_slots,
            .memory_bytes = ring->memory_bytes,
        };
    }
    return UMO_OK;
}

/*
 * Starting, pausing and reading this process's own recording.
 *
 * A lock orders those who start and pause (show.c); events and readers never take it. What was
 * mapped stays mapped, one ring a shape, so that neither of them can lose the memory under its
 * hands.
 */
#include "base/scope.h"
#include "trace/names.h"
#include "trace/show.h"

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

void umo_trace_show(void)
{
    umo_scope_listen(counted);
    umo_trace_head_show();
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
    umo_scope_listen(counted);
    umo_status status = umo_trace_own_start(shard_count, shard_slots);
    return status == UMO_OK ? UMO_OK : umo_error_set(error, status, 0, "no memory for a recording");
}

umo_status umo_profile_enable(bool on)
{
    umo_scope_listen(counted);
    return umo_trace_own_enable(on) == UMO_OK || !on ? UMO_OK : umo_profile_start(NULL, NULL);
}

const uint32_t *umo_profile_switch(void)
{
    return (const uint32_t *)(const void *)&umo_recorded.on;
}

void umo_profile_span_write(const umo_profile_span *span)
{
    if (span->kind != UMO_EVENT_REQUEST && span->kind != UMO_EVENT_BATCH) {
        return;
    }
    UMO_TRACE(.kind = span->kind, .scope = span->scope,
              .start_ns = umo_trace_clock() - span->duration_ns, .size_bytes = span->size_bytes,
              .offset_bytes = span->run, .fence_value = span->trace_id, .detail = span->detail,
              .status = span->status);
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
        c->loaded = umo_trace_ring_look(ring, shard, c->position, &c->event) == UMO_TRACE_WHOLE;
        c->position++;
    }
}

static uint64_t cursor_start(const umo_trace_ring *ring, uint32_t index, cursor *c)
{
    uint64_t first = atomic_load_explicit(&ring->first[index], memory_order_relaxed);
    c->end = atomic_load_explicit(&ring->shards[index].next, memory_order_acquire);
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
        oldest->event.scope_name = umo_trace_name_find(UMO_TRACE_NAME_SCOPE, oldest->event.scope);
        oldest->event.driver = umo_trace_name_find(UMO_TRACE_NAME_DEVICE, oldest->event.device);
        if (visit != NULL && !visit(&oldest->event, user)) {
            return visited;
        }
        cursor_advance(ring, (uint32_t)(oldest - cursors), oldest);
    }
}

umo_status umo_profile_read(umo_profile_visit visit, void *user, umo_profile_stats *out)
{
    uint64_t missed;
    const umo_trace_ring *ring = umo_trace_own(&missed);
    if (ring == NULL) {
        return UMO_E_NOT_FOUND;
    }
    uint64_t recorded;
    uint64_t visited = events_visit(ring, visit, user, &recorded);
    if (out != NULL) {
        *out = (umo_profile_stats){
            .recording = umo_trace_own_on(),
            .recorded = recorded + missed,
            .lost = recorded - visited + missed,
            .names_lost = atomic_load_explicit(&ring->names_lost, memory_order_relaxed),
            .capacity = ring->shard_count * ring->shard_slots,
            .memory_bytes = ring->memory_bytes,
        };
    }
    return UMO_OK;
}

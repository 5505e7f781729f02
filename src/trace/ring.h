/*
 * The memory of the flight recorder: rings of events, and the names of scopes and devices.
 *
 * Threads are spread over shards. A shard is a ring of slots; an event takes the shard's next
 * position by one atomic addition and owns the slot at that position once it has put its own odd
 * sequence number there. A reader believes what it read when the same even number stood there
 * before and after. The argument, with every interleaving of two writers and a reader, is in
 * docs/profiling.md.
 */
#ifndef UMO_TRACE_RING_H
#define UMO_TRACE_RING_H

#include "trace/trace.h"

#define UMO_TRACE_SHARDS_MAX 64u
#define UMO_TRACE_WORDS 9u

typedef struct umo_trace_slot {
    _Atomic uint64_t sequence; /* 2 * position + 1 while it is written, + 2 when it is whole */
    _Atomic uint64_t words[UMO_TRACE_WORDS];
} umo_trace_slot;

typedef struct umo_trace_shard {
    /* A line of its own: each is written by other threads. 128 bytes on Apple silicon. */
    _Alignas(128) _Atomic uint64_t next; /* position of the next event */
    _Atomic uint64_t first;              /* position at which this recording began */
    umo_trace_slot *slots;
} umo_trace_shard;

struct umo_trace_ring {
    umo_trace_ring *kept; /* the list of all that were ever mapped */
    size_t memory_bytes;
    uint64_t shard_slots; /* a power of two */
    uint32_t shard_count; /* a power of two */
    _Atomic uint64_t start_ns;
    _Atomic uint64_t names_lost;
    umo_trace_shard shards[];
};

/* The shape that options ask for; INVAL when they cannot be. */
umo_status umo_trace_shape(const umo_profile_options *options, uint32_t *shard_count,
                           uint64_t *shard_slots);

/* Never unmapped: a thread may be in the middle of an event. NULL when memory is out. */
umo_trace_ring *umo_trace_ring_create(uint32_t shard_count, uint64_t shard_slots);

/* Takes what it holds for old. */
void umo_trace_ring_restart(umo_trace_ring *ring);

/* The event at a position of a shard; false when it is not there: overwritten, being written, or
 * dropped because its slot was. Its texts point to names that stay. */
bool umo_trace_ring_get(const umo_trace_ring *ring, uint32_t shard, uint64_t position,
                        umo_profile_event *out);

#endif

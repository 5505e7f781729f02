/*
 * The memory of the flight recorder: rings of events.
 *
 * Threads are spread over shards. A shard is a ring of slots; an event takes the shard's next
 * position by one atomic addition and owns the slot at that position once it has put its own odd
 * sequence number there. A reader believes what it read when the same even number stood there
 * before and after. The argument, with every interleaving of two writers and a reader, is in
 * docs/profiling.md.
 */
#ifndef UMO_TRACE_RING_H
#define UMO_TRACE_RING_H

#include "trace/layout.h"
#include "trace/trace.h"

typedef struct umo_trace_ring umo_trace_ring;
struct umo_trace_ring {
    umo_trace_ring *kept; /* the list of all that were ever made */
    uint32_t part_number; /* 0 when nobody else can find it */
    int file;             /* -1 likewise */
    bool outside;         /* for those who look on */
    uint32_t shard_count;
    uint64_t shard_slots;
    size_t memory_bytes;
    umo_trace_part *part;
    umo_trace_shard *shards;
    umo_trace_slot *slots; /* of all shards, one behind the other */
    _Atomic uint64_t start_ns;
    _Atomic uint64_t names_lost;
    _Atomic uint64_t first[UMO_TRACE_SHARDS_MAX];
};

/* The shape that options ask for; INVAL when they cannot be. */
umo_status umo_trace_shape(const umo_profile_options *options, uint32_t *shard_count,
                           uint64_t *shard_slots);

/* Never unmapped: a thread may be in the middle of an event. Shown as a part of that number, or,
 * for 0 and where that fails, this process's alone, which is of no use to those outside. NULL when
 * memory, or for them a file, cannot be had. */
umo_trace_ring *umo_trace_ring_create(uint32_t part_number, bool outside, uint32_t shard_count,
                                      uint64_t shard_slots);

/* Fills a ring in for a part of another process; false when it is none that can be read. */
bool umo_trace_ring_attach(umo_trace_ring *ring, void *mapped, size_t size_bytes);

/* Takes what it holds for old. */
void umo_trace_ring_restart(umo_trace_ring *ring);

static inline umo_trace_slot *umo_trace_ring_slot(const umo_trace_ring *ring, uint32_t shard,
                                                  uint64_t position)
{
    return &ring->slots[shard * ring->shard_slots + (position & (ring->shard_slots - 1))];
}

/* What lies at a position of a shard. */
typedef enum umo_trace_found {
    UMO_TRACE_WHOLE,
    UMO_TRACE_GONE,  /* overwritten */
    UMO_TRACE_ABSENT /* being written, or dropped because its slot was */
} umo_trace_found;

/* Its texts are NULL; see names.h. */
umo_trace_found umo_trace_ring_look(const umo_trace_ring *ring, uint32_t shard, uint64_t position,
                                    umo_profile_event *out);

#endif

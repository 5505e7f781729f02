/*
 * What the flight recorder's memory looks like: to this process and to those of its user who look
 * on (recorder.c), perhaps with another version of the library. Two kinds of parts (os/shown.h):
 * part 0, the head, and one for each ring.
 *
 * Whoever looks on may write all of it. So this process takes nothing out of it that it relies on:
 * it compares sequence numbers and masks positions, and keeps the rest (sizes, names, the start) to
 * itself. The same holds the other way round.
 */
#ifndef UMO_TRACE_LAYOUT_H
#define UMO_TRACE_LAYOUT_H

#include "base/recorded.h"

#include <umo/status.h>

#define UMO_TRACE_MAGIC UINT64_C(0x0a636572206f6d75) /* "umo rec\n" */
/* Another number for whatever changes below, and for events whose words mean something else. */
#define UMO_TRACE_LAYOUT 1u

#define UMO_TRACE_SHARDS_MAX 64u
#define UMO_TRACE_WORDS 9u
#define UMO_TRACE_NAMES 1024u
#define UMO_TRACE_NAME_BYTES 64u

typedef struct umo_trace_name {
    _Atomic uint64_t key; /* kind << 32 | number; 0 while free; set once */
    _Atomic uint32_t ready;
    char text[UMO_TRACE_NAME_BYTES];
} umo_trace_name;

typedef struct umo_trace_head {
    /* Whether anybody records; the one word that an event asks while nobody does. */
    _Atomic uint32_t on;
    uint32_t layout;
    _Atomic uint64_t magic; /* written last */
    uint32_t head_bytes;
    uint32_t slot_bytes;
    int64_t pid;
    char version[32];

    /* Written by the process. A line of its own for each of the two. */
    _Alignas(128) _Atomic uint32_t ring_part; /* where events go; 0 before the first */
    _Atomic uint32_t refused;                 /* umo_status: why nothing is recorded */
    _Atomic uint64_t names_lost;
    _Atomic uint64_t missed; /* events that came while a ring was being made */

    /* Written by those who look on. */
    _Alignas(128) _Atomic uint32_t watchers;
    _Atomic uint32_t wanted;   /* a ring of at least 2^wanted bytes, please; 0 when answered */
    _Atomic uint64_t lease_ns; /* when the last of them has gone without a word */

    _Alignas(128) umo_trace_name names[UMO_TRACE_NAMES];
} umo_trace_head;
UMO_STATIC_ASSERT(sizeof(umo_trace_head) <= UMO_RECORDED_BYTES, "the head fits its pages");

typedef struct umo_trace_slot {
    _Atomic uint64_t sequence; /* 2 * position + 1 while it is written, + 2 when it is whole */
    _Atomic uint64_t words[UMO_TRACE_WORDS];
} umo_trace_slot;

typedef struct umo_trace_shard {
    /* A line of its own: each is written by other threads. 128 bytes on Apple silicon. */
    _Alignas(128) _Atomic uint64_t next; /* position of the next event */
    _Atomic uint64_t first;              /* position at which this recording began */
} umo_trace_shard;

/* A ring: this, and its shards' slots. */
typedef struct umo_trace_part {
    _Atomic uint64_t magic;
    uint32_t shard_count; /* a power of two */
    uint32_t slot_bytes;
    uint64_t shard_slots; /* a power of two */
    uint32_t outside;     /* not 0: for those who look on; the last of them empties it */
    umo_trace_shard shards[];
} umo_trace_part;

#endif

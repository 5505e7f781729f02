/*
 * Who records, and where: this process for itself (profile.h), those who look on (recorder.h), or
 * both.
 *
 * Those who look on get a ring of their own, unless this process is recording: then events go to
 * its ring and they read that. So neither costs the other what it has kept.
 */
#ifndef UMO_TRACE_SHOW_H
#define UMO_TRACE_SHOW_H

#include "trace/ring.h"

#define UMO_TRACE_HEAD ((umo_trace_head *)(void *)&umo_recorded)

/* Where events go; NULL before the first. */
extern _Atomic(umo_trace_ring *) umo_trace_now __attribute__((visibility("hidden")));

/* Lets others find the head, if it can be had. Once; before anything is recorded. */
void umo_trace_head_show(void);

/* This process's own recording: NOMEM. */
umo_status umo_trace_own_start(uint32_t shard_count, uint64_t shard_slots);
/* NOT_FOUND when there is none that could go on. */
umo_status umo_trace_own_enable(bool on);
extern _Atomic bool umo_trace_own_now __attribute__((visibility("hidden")));
static inline bool umo_trace_own_on(void)
{
    return atomic_load_explicit(&umo_trace_own_now, memory_order_relaxed);
}
/* Also while it is paused; NULL before the first. missed: events that found it being made. */
const umo_trace_ring *umo_trace_own(uint64_t *missed);

/* For a writer that finds no ring, or that somebody looks on who has asked for one: gives an answer
 * (it may map memory, once for a recording) and returns where events go; NULL for nowhere. */
umo_trace_ring *umo_trace_answer(void);
static inline bool umo_trace_asked(void)
{
    return __builtin_expect(
        atomic_load_explicit(&UMO_TRACE_HEAD->wanted, memory_order_relaxed) != 0, 0);
}

/* After an event: those who look on must say from time to time that they still do. */
void umo_trace_lapse(void);
static inline bool umo_trace_lapsed(uint64_t now)
{
    return __builtin_expect(
        now > atomic_load_explicit(&UMO_TRACE_HEAD->lease_ns, memory_order_relaxed), 0);
}

#endif

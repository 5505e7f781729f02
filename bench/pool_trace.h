/*
 * A recorded or made trace of allocations, read before anything is timed.
 *
 * A line is `t,op,id,size,thread`: op `a` or `f`, and rows at t=0 were alive before the recording.
 * Ids are turned into slots while reading, and a slot is reused once its block is freed, so that
 * the replay's own table of pointers stays as small as the live set and costs no allocator cache
 * misses.
 */
#ifndef BENCH_POOL_TRACE_H
#define BENCH_POOL_TRACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct bench_event {
    uint64_t size_bytes; /* of the block taken or given */
    uint32_t slot;
    uint16_t thread; /* counted from 0 in the order in which they appear */
    bool take;
} bench_event;

typedef struct bench_trace {
    bench_event *events;
    void **slots;
    size_t event_count;
    size_t slot_count;
    size_t thread_count;
    size_t live_count;    /* blocks that the trace never frees */
    size_t ignored_count; /* lines that say nothing: a free of what is not alive, and the like */
    uint64_t live_peak_bytes; /* largest sum of live sizes */
} bench_trace;

/* Ends the program, saying why, when the file is none. Memory is the system's, not an allocator's:
 * what is measured must not see it. */
void bench_trace_load(const char *path, bench_trace *out);

#endif

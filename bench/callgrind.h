/*
 * What a benchmark asks callgrind for; without its header the same words do nothing.
 */
#ifndef UMO_BENCH_CALLGRIND_H
#define UMO_BENCH_CALLGRIND_H

#ifdef BENCH_HAVE_CALLGRIND
#include <valgrind/callgrind.h>
#else
#define CALLGRIND_START_INSTRUMENTATION (void)0
#define CALLGRIND_STOP_INSTRUMENTATION (void)0
#define CALLGRIND_ZERO_STATS (void)0
#define CALLGRIND_DUMP_STATS_AT(name) (void)0
#endif

#endif

/*
 * An opponent: a caching allocator that decides as PyTorch's for CUDA does, over host memory.
 *
 * Source: c10/cuda/CUDACachingAllocator.cpp of PyTorch 2.x, its documented behaviour with default
 * settings: sizes round to 512 bytes; requests up to 1 MiB come from segments of 2 MiB, up to
 * 10 MiB from segments of 20 MiB, larger ones have their own, rounded to 2 MiB; best fit by size,
 * then address; a block is split when at least 512 bytes (small) or more than 1 MiB (large) are
 * left; neighbours are joined when freed; segments are kept.
 */
#ifndef BENCH_POOL_CACHING_H
#define BENCH_POOL_CACHING_H

#include <stddef.h>
#include <stdint.h>

/* NULL when the system has no memory. Any thread. */
void *bench_caching_take(size_t size_bytes);
/* Of a block that bench_caching_take() gave. Any thread. */
void bench_caching_give(void *data);
/* All segments. It only grows: nothing is given back. */
uint64_t bench_caching_reserved(void);

#endif

/*
 * Random numbers for tests: the same in every run and on every machine, so that a failure can be
 * repeated.
 */
#ifndef UMO_TENSOR_RANDOM_TEST_H
#define UMO_TENSOR_RANDOM_TEST_H

#include <stdint.h>

/* Source: splitmix64 (Steele, Lea, Flood, OOPSLA 2014). */
static inline uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/* One of 0 to limit - 1. */
static inline uint64_t random_below(uint64_t *state, uint64_t limit)
{
    return random_next(state) % limit;
}

#endif

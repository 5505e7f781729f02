/*
 * Which nodes' threads used something, and with how many bytes: the few that used it most, in a few
 * words. Plain values; no threads here.
 *
 * Source: Metwally, Agrawal, El Abbadi, "Efficient computation of frequent and top-k elements in
 * data streams" (Space-Saving), ICDT 2005. Up to UMO_VOTERS nodes it is exact; with more, none that
 * has more than its share is missed, and none has more than its own bytes and the least.
 */
#ifndef UMO_MEM_VOTES_H
#define UMO_MEM_VOTES_H

#include <stdint.h>

#define UMO_VOTERS 4u

typedef struct umo_votes {
    float bytes[UMO_VOTERS]; /* 0: nobody's */
    int16_t node[UMO_VOTERS];
} umo_votes;

static inline void umo_votes_add(umo_votes *votes, int32_t node, double bytes)
{
    unsigned least = 0;
    for (unsigned i = 0; i < UMO_VOTERS; i++) {
        if (votes->bytes[i] > 0 && votes->node[i] == node) {
            votes->bytes[i] += (float)bytes;
            return;
        }
        least = votes->bytes[i] < votes->bytes[least] ? i : least;
    }
    votes->bytes[least] += (float)bytes;
    votes->node[least] = (int16_t)node;
}

static inline double umo_votes_sum(const umo_votes *votes)
{
    double sum = 0;
    for (unsigned i = 0; i < UMO_VOTERS; i++) {
        sum += (double)votes->bytes[i];
    }
    return sum;
}

#endif

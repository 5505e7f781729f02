/*
 * Orders of buffers for constructions.
 */
#ifndef UMO_PLAN_ORDER_H
#define UMO_PLAN_ORDER_H

#include "plan/build.h"

typedef struct plan_ranked {
    double rank;
    uint32_t item;
} plan_ranked;

/* Fills `out` with all items of the part, the largest rank first; noise in percent changes each a
 * little, by the seed. False when memory is out. */
bool umo_plan_rank(const plan_part *part, plan_order order, unsigned noise, uint64_t seed,
                   plan_ranked *out);

#endif

/*
 * Constructions: plans that are made in one go, each buffer placed once.
 */
#ifndef UMO_PLAN_BUILD_H
#define UMO_PLAN_BUILD_H

#include "plan/budget.h"
#include "plan/problem.h"

/* In which order buffers are placed: the largest by this first. */
typedef enum plan_order {
    PLAN_ORDER_SIZE,
    PLAN_ORDER_AREA,
    PLAN_ORDER_LENGTH,
    PLAN_ORDER_LOWER, /* as they come in time */
    PLAN_ORDER_REST,  /* those over the fullest section first, by size */
    PLAN_ORDERS
} plan_order;

/*
 * Puts each buffer, in the given order, into the tightest gap that holds it, or into the lowest.
 * O(n^2) at worst; the part's offsets are better ones afterwards, or the same. NOMEM; OK also when
 * the budget is spent before.
 *
 * Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020),
 * greedy by size for offset calculation.
 */
umo_status umo_plan_best_fit(plan_part *part, plan_order order, bool lowest, plan_budget *budget);

/* How the skyline chooses among the buffers that fit its lowest valley. */
typedef struct plan_taste {
    plan_order order;
    unsigned noise; /* of the order, in percent */
    uint64_t seed;
    bool mirrored; /* in time: valleys are filled from their right end */
    bool whole;    /* even if the budget is spent meanwhile */
} plan_taste;

/*
 * Fills the lowest valley of what is placed so far with a buffer whose lifetime begins with it, or
 * lifts it where there is none; for parts of any size, O(n log n).
 *
 * Source: the best-fit heuristic for strip packing (Burke, Kendall, Whitwell, Operations Research
 * 52, 2004), where here a buffer's place in time is given.
 */
typedef struct plan_skyline plan_skyline;
plan_skyline *umo_plan_skyline_create(const plan_part *part);
void umo_plan_skyline_destroy(plan_skyline *skyline);
/* Offers the part a plan, unless the budget is spent before there is one. False when memory is out.
 */
bool umo_plan_skyline_run(plan_skyline *skyline, plan_part *part, const plan_taste *taste,
                          plan_budget *budget);

#endif

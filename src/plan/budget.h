/*
 * What a plan may cost, and the one place that looks whether it has.
 *
 * Work is counted in steps of the inner loops, not in time, so that what is tried, in which order
 * and for how long does not depend on the machine; the clock can only cut that short.
 */
#ifndef UMO_PLAN_BUDGET_H
#define UMO_PLAN_BUDGET_H

#include <umo/plan.h>

typedef struct plan_budget {
    const umo_plan_options *options;
    uint64_t start_ns;
    uint64_t deadline_ns; /* UINT64_MAX: none */
    uint64_t node_limit;
    uint64_t nodes;
    uint64_t work;
    uint64_t look_at; /* the work at which the clock is read next */
    bool over;
    bool interrupted;
    /* for the caller's progress call */
    umo_plan_progress progress;
} plan_budget;

void umo_plan_budget_start(plan_budget *budget, const umo_plan_options *options);

/* Reads the clock and the caller's flag, tells the caller. Sets over when it is time to stop. */
void umo_plan_budget_look(plan_budget *budget);

/* Counts; false when it is time to stop. */
static inline bool plan_spend(plan_budget *budget, uint64_t nodes, uint64_t work)
{
    budget->nodes += nodes;
    budget->work += work;
    if (budget->nodes >= budget->node_limit) {
        budget->over = true;
    } else if (budget->work >= budget->look_at) {
        umo_plan_budget_look(budget);
    }
    return !budget->over;
}

/* xorshift64*: small, fast, the same everywhere. Source: Vigna, ACM TOMS 42 (2016). */
static inline uint64_t plan_random(uint64_t *state)
{
    uint64_t x = *state;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    *state = x;
    return x * UINT64_C(2685821657736338717);
}

#endif

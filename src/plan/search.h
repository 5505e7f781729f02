/*
 * The exact search: is there a plan of one part that fits a capacity?
 *
 * Every section has a floor, the least offset that anything not yet placed can have there, and a
 * rest, the bytes not yet placed. A step takes a section with the lowest floor and decides which
 * buffer lies exactly on it, or that none does. Branching on a place instead of on a buffer is what
 * makes it fast: gaps are decided, and counted, where they arise.
 */
#ifndef UMO_PLAN_SEARCH_H
#define UMO_PLAN_SEARCH_H

#include "plan/budget.h"
#include "plan/problem.h"

typedef struct plan_search plan_search;

/* Which of the buffers that can lie on a floor is tried first: the largest by this. */
typedef enum plan_key {
    PLAN_KEY_SIZE,
    PLAN_KEY_LENGTH,
    PLAN_KEY_AREA,
    PLAN_KEYS
} plan_key;

/* Which section is decided first. */
typedef enum plan_pick {
    PLAN_PICK_LOWEST_FEWEST, /* the lowest floor; of those the one with the fewest choices */
    PLAN_PICK_VALLEY,        /* the most bytes not yet placed, of those in a valley */
    PLAN_PICK_LOWEST,        /* the lowest floor, the first of them */
    PLAN_PICKS
} plan_pick;

typedef struct plan_try {
    int64_t capacity;
    plan_key key;
    plan_pick pick;
    unsigned noise; /* of the key, in percent */
    uint64_t seed;
    uint64_t work_max;
} plan_try;

typedef enum plan_outcome {
    PLAN_FOUND,     /* offsets holds it */
    PLAN_EXHAUSTED, /* there is none; bound_next holds what the least peak is at least */
    PLAN_STOPPED,   /* the try's work is done */
    PLAN_OVER,      /* the budget is spent, or memory is out: see nomem */
} plan_outcome;

/* The memory that a search of this part takes before it begins. */
size_t umo_plan_search_bytes(const plan_part *part);

/* NULL when memory is out. The part stays where it is until the search is destroyed. */
plan_search *umo_plan_search_create(const plan_part *part);
void umo_plan_search_destroy(plan_search *search);

plan_outcome umo_plan_search_run(plan_search *search, const plan_try *how, plan_budget *budget);

const int64_t *umo_plan_search_offsets(const plan_search *search);
int64_t umo_plan_search_bound_next(const plan_search *search);

#endif

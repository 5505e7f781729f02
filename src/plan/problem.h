/*
 * What the planner works on: buffers without their names, on a line of sections instead of time.
 *
 * A section is a moment at which as many buffers are in use as can be: one that no other moment's
 * set of buffers contains. Two buffers are in use at the same time exactly if they share a section,
 * so nothing else of time is kept. Buffers that have nothing to do with each other are in different
 * parts, which are solved one by one.
 */
#ifndef UMO_PLAN_PROBLEM_H
#define UMO_PLAN_PROBLEM_H

#include <umo/plan.h>

/* One buffer: in use in sections lo to hi - 1. */
typedef struct plan_item {
    int64_t size;
    int64_t padded; /* size, rounded up to the part's grain */
    int64_t align;  /* a multiple of the grain; 1 or more */
    uint32_t lo;
    uint32_t hi;
    uint32_t index; /* of the caller's buffer */
} plan_item;

typedef struct plan_part {
    plan_item *items; /* by lo, then by hi */
    uint32_t count;
    uint32_t sections;
    int64_t
        grain; /* greatest common divisor of the alignments: what all offsets are multiples of */
    /* Bytes below the part: of buffers that meet all of it, so that they can lie at the bottom. All
     * figures below are without them. */
    int64_t base;
    int64_t bound; /* no plan has a lower peak: proven */
    bool planned;
    int64_t peak;        /* of the best plan so far, if there is one */
    int64_t *offsets;    /* that plan, one an item */
    size_t list_entries; /* sum of hi - lo */
    int64_t live;        /* the bound before any search: what is in use at once */
} plan_part;

typedef struct plan_problem {
    plan_part *parts; /* the one with the highest bound first */
    size_t part_count;
    plan_item *items; /* of all parts */
    int64_t *offsets; /* likewise */
    int64_t *bottom;  /* of the caller's buffers: where those lie that are in no part, else -1 */
    int64_t low;      /* of what lies in no part: its end */
    int64_t bound;    /* of all parts, their bases included, and of what lies in none */
} plan_problem;

/* Cuts into parts. INVAL, LIMIT (no 63 bits hold the padded sizes), NOMEM. */
umo_status umo_plan_problem_init(plan_problem *problem, const umo_plan_buffer *buffers,
                                 size_t count, umo_error *error);
void umo_plan_problem_finish(plan_problem *problem);

/* v rounded up to a multiple of align; INT64_MAX if that is beyond it. */
static inline int64_t plan_round_up(int64_t v, int64_t align)
{
    int64_t over = v % align;
    if (over == 0) {
        return v;
    }
    return v > INT64_MAX - (align - over) ? INT64_MAX : v + (align - over);
}

/* a + b, both 0 or more; INT64_MAX if that is beyond it. */
static inline int64_t plan_add(int64_t a, int64_t b)
{
    return a > INT64_MAX - b ? INT64_MAX : a + b;
}

/* Puts the items into their order. */
void umo_plan_items_sort(plan_part *part);

/* Keeps the offsets as the part's plan if they are better; says whether. */
bool umo_plan_part_offer(plan_part *part, const int64_t *offsets);

#endif

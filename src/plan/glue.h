/*
 * Gluing: buffers that fit each other become one, which is then placed instead of them.
 *
 * What was cut from a rectangle is put together again; of others, buffers that hand over to each
 * other are kept at one place. A plan of the glued part is a plan of the part, never the reverse:
 * it is one more construction, and proves nothing.
 */
#ifndef UMO_PLAN_GLUE_H
#define UMO_PLAN_GLUE_H

#include "plan/budget.h"
#include "plan/problem.h"

typedef struct plan_glue plan_glue;

typedef struct plan_gluing {
    uint64_t seed;        /* which of several that fit is taken */
    uint32_t beside;      /* how many, before or after one, are looked at for sums that fit */
    uint32_t unsure_part; /* of those that fit by time alone, one in so many is glued at once */
    uint32_t doubt;       /* percent of what looks sure by sums that is left for later */
} plan_gluing;

/* NULL when memory is out, or nothing of the part fits together. */
plan_glue *umo_plan_glue_create(const plan_part *part, const plan_gluing *how, plan_budget *budget);
void umo_plan_glue_destroy(plan_glue *glue);

/* What is left to be placed; it has the bound of the part. */
plan_part *umo_plan_glue_part(plan_glue *glue);

/* Offers the part the plan of what was glued. */
bool umo_plan_glue_offer(plan_glue *glue, plan_part *part);

#endif

/*
 * What an arena's requests do, step by step, and the places that umo_plan() finds for requests that
 * do the same again.
 *
 * An offset of a plan is good as long as all steps before it were those that were planned: then
 * whatever had these bytes was given up. So a request follows the plan up to its first step that
 * differs, and what comes after that is no business of the plan any more.
 *
 * One plan at a time: for the steps that came last several times in a row. A model that is served
 * has one shape mostly; where shapes alternate nothing is planned, and nothing is lost but the
 * notes.
 */
#ifndef UMO_MEM_ARENA_PLAN_H
#define UMO_MEM_ARENA_PLAN_H

#include <umo/status.h>

/* Steps of a request that are noted; a longer one is not planned. */
#define UMO_ARENA_STEPS_MAX 4096u

typedef struct umo_arena_step {
    size_t size_bytes;    /* of what was taken; of what was freed, the number of its taking */
    uint32_t align_bytes; /* 0: it was freed */
} umo_arena_step;

typedef struct umo_arena_steps {
    umo_arena_step *steps;
    size_t count;
    size_t room;
} umo_arena_steps;

/* What was handed out in this request. */
typedef struct umo_arena_piece {
    const void *data;
    bool freed;
} umo_arena_piece;

/* All zero, it is one of an arena in which nothing was ever freed: it notes nothing. */
typedef struct umo_arena_plan {
    bool wanted; /* something was freed, so requests are noted from the next on */
    bool noting; /* this request, whole so far */
    umo_arena_steps now;
    umo_arena_steps before;
    unsigned repeats; /* so many requests before this one did what `before` says */
    unsigned plans;   /* made so far */
    umo_arena_piece *pieces;
    size_t piece_count;
    size_t piece_room;
    /* The plan; no steps, no plan. */
    umo_arena_steps planned;
    int64_t *offsets; /* of each taking, in their order */
    size_t block_bytes;
    bool follows;        /* this request, so far */
    size_t done;         /* steps */
    size_t taken;        /* takings among them */
    bool left;           /* this request has left the plan */
    unsigned strays;     /* so many requests in a row have left it */
    size_t unused_bytes; /* of the block's end: not given to this request, which has left; the
                            arena's to take */
    const char *block;
} umo_arena_plan;

/* Begins a request that has the block at a multiple of 4,096; there is a plan. */
void umo_arena_plan_begin(umo_arena_plan *plan, char *block);

/* The next taking's place, for a request that follows; NULL when the plan has none for it, now and
 * for the rest of the request. Who finds another place says so with umo_arena_plan_took(), where
 * the request is noted. */
void *umo_arena_plan_take(umo_arena_plan *plan, size_t size_bytes, size_t align_bytes);
void umo_arena_plan_took(umo_arena_plan *plan, size_t size_bytes, size_t align_bytes,
                         const void *data);

/* INVAL: it is not in use. Not known is what was not noted. */
umo_status umo_arena_plan_free(umo_arena_plan *plan, const void *data);

/* Ends a request. True when there is another plan than before, of block_bytes. One that eight
 * requests in a row have left is forgotten: block_bytes is 0 then. */
bool umo_arena_plan_end(umo_arena_plan *plan);

void umo_arena_plan_finish(umo_arena_plan *plan);

#endif

/*
 * See arena_plan.h. A failed allocation here means a request without a plan, never an error.
 */
#include "mem/arena_plan.h"

#include <umo/plan.h>

#include <stdlib.h>
#include <string.h>

enum {
    /* More than enough for a model's tensors (docs/planning.md), and a millisecond or two. */
    NODES = 2000,
    /* Equal requests in a row before the first plan; twice as many before each next one, so that
     * what plans cost stays a part of what the requests do. */
    REPEATS_FIRST = 2,
    REPEATS_MOST = 256,
    STRAYS_MOST = 8, /* its block would be held for nobody */
    ROOM_FIRST = 64
};

/* ---- notes ---- */

static bool room_make(void **items, size_t item_bytes, size_t count, size_t *room)
{
    if (count < *room) {
        return true;
    }
    const size_t more = *room == 0 ? ROOM_FIRST : *room * 2;
    void *grown = realloc(*items, more * item_bytes);
    if (grown == NULL) {
        return false;
    }
    *items = grown;
    *room = more;
    return true;
}

static bool step_add(umo_arena_steps *s, umo_arena_step step)
{
    void *items = s->steps;
    if (s->count == UMO_ARENA_STEPS_MAX ||
        !room_make(&items, sizeof *s->steps, s->count, &s->room)) {
        return false;
    }
    s->steps = items;
    s->steps[s->count++] = step;
    return true;
}

static bool piece_add(umo_arena_plan *p, const void *data)
{
    void *items = p->pieces;
    if (!room_make(&items, sizeof *p->pieces, p->piece_count, &p->piece_room)) {
        return false;
    }
    p->pieces = items;
    p->pieces[p->piece_count++] = (umo_arena_piece){data, false};
    return true;
}

static bool steps_equal(const umo_arena_steps *a, const umo_arena_steps *b)
{
    for (size_t i = 0; a->count == b->count && i < a->count; i++) {
        if (a->steps[i].size_bytes != b->steps[i].size_bytes ||
            a->steps[i].align_bytes != b->steps[i].align_bytes) {
            return false;
        }
    }
    return a->count == b->count;
}

static bool frees_any(const umo_arena_steps *s)
{
    for (size_t i = 0; i < s->count; i++) {
        if (s->steps[i].align_bytes == 0) {
            return true;
        }
    }
    return false;
}

static void note(umo_arena_plan *p, umo_arena_step step, const void *data)
{
    p->noting =
        p->noting && step_add(&p->now, step) && (step.align_bytes == 0 || piece_add(p, data));
}

/* The request does something else from here on: what it did as planned becomes its notes. */
static void leave(umo_arena_plan *p)
{
    size_t had_bytes = 0;
    size_t taken = 0;
    p->left = true;
    p->follows = false;
    p->noting = true;
    p->now.count = 0;
    p->piece_count = 0;
    for (size_t i = 0; i < p->done; i++) {
        const umo_arena_step step = p->planned.steps[i];
        if (step.align_bytes != 0) { /* counted even where noting fails */
            const size_t end_bytes = (size_t)p->offsets[taken++] + step.size_bytes;
            had_bytes = end_bytes > had_bytes ? end_bytes : had_bytes;
        }
        note(p, step, p->block + (step.align_bytes != 0 ? p->offsets[p->piece_count] : 0));
        if (p->noting && step.align_bytes == 0) {
            p->pieces[step.size_bytes].freed = true;
        }
    }
    p->unused_bytes = p->block_bytes - had_bytes;
}

/* ---- a request ---- */

void umo_arena_plan_begin(umo_arena_plan *p, char *block)
{
    p->follows = true;
    p->block = block;
    p->done = 0;
    p->taken = 0;
}

void *umo_arena_plan_take(umo_arena_plan *p, size_t size_bytes, size_t align_bytes)
{
    const umo_arena_step *step = &p->planned.steps[p->done];
    if (p->done == p->planned.count || step->align_bytes != align_bytes ||
        step->size_bytes != size_bytes) {
        leave(p);
        return NULL;
    }
    p->done++;
    return (void *)(uintptr_t)(p->block + p->offsets[p->taken++]);
}

void umo_arena_plan_took(umo_arena_plan *p, size_t size_bytes, size_t align_bytes, const void *data)
{
    /* An alignment is at most 4,096. */
    note(p, (umo_arena_step){size_bytes, (uint32_t)align_bytes}, data);
}

umo_status umo_arena_plan_free(umo_arena_plan *p, const void *data)
{
    p->wanted = true;
    if (p->follows && p->done < p->planned.count) {
        const umo_arena_step *step = &p->planned.steps[p->done];
        if (step->align_bytes == 0 && p->block + p->offsets[step->size_bytes] == data) {
            p->done++;
            return UMO_OK;
        }
    }
    if (p->follows) {
        leave(p);
    }
    if (!p->noting) {
        return UMO_OK;
    }
    size_t i =
        p->piece_count; /* what came last is freed first, mostly; bytes may have had others */
    while (i > 0 && (p->pieces[i - 1].data != data || p->pieces[i - 1].freed)) {
        i--;
    }
    if (i == 0) {
        return UMO_E_INVAL;
    }
    p->pieces[i - 1].freed = true;
    note(p, (umo_arena_step){i - 1, 0}, NULL);
    return UMO_OK;
}

/* ---- planning ---- */

/* Lifetimes are counted in steps: until it is freed, or until the request ends. */
static size_t lifetimes_write(const umo_arena_steps *s, umo_plan_buffer *out)
{
    size_t count = 0;
    for (size_t i = 0; i < s->count; i++) {
        const umo_arena_step step = s->steps[i];
        if (step.align_bytes == 0) {
            out[step.size_bytes].upper = (int64_t)i;
        } else {
            out[count++] = (umo_plan_buffer){.lower = (int64_t)i,
                                             .upper = (int64_t)s->count,
                                             .size_bytes = step.size_bytes,
                                             .align_bytes = step.align_bytes};
        }
    }
    return count;
}

/* Plans what `before` says. */
static bool plan_make(umo_arena_plan *p)
{
    umo_plan_options options;
    umo_plan_result result;
    umo_plan_options_init(&options);
    options.time_limit_ns = 0;
    options.node_limit = NODES;
    umo_plan_buffer *buffers = calloc(p->before.count, sizeof *buffers);
    int64_t *offsets = calloc(p->before.count, sizeof *offsets);
    bool good = buffers != NULL && offsets != NULL;
    if (good) {
        size_t count = lifetimes_write(&p->before, buffers);
        good = umo_plan(buffers, count, &options, offsets, &result, NULL) == UMO_OK;
    }
    free(buffers);
    if (!good) {
        free(offsets);
        return false;
    }
    free(p->offsets);
    p->offsets = offsets;
    p->block_bytes = (size_t)result.peak_bytes;
    const umo_arena_steps old = p->planned;
    p->strays = 0;
    p->planned = p->before;
    p->before = old;
    p->before.count = 0;
    p->repeats = 0;
    return true;
}

static unsigned repeats_needed(const umo_arena_plan *p)
{
    return p->plans < 7 ? (unsigned)REPEATS_FIRST << p->plans : (unsigned)REPEATS_MOST;
}

bool umo_arena_plan_end(umo_arena_plan *p)
{
    bool made = false;
    if (p->follows && p->done < p->planned.count) {
        leave(p); /* it ended earlier */
    }
    if (p->left || p->follows) { /* not one that took nothing, or had to go without */
        p->strays = p->left ? p->strays + 1 : 0;
    }
    if (p->strays == STRAYS_MOST) {
        p->strays = 0;
        p->planned.count = 0;
        p->block_bytes = 0;
    }
    if (p->noting && frees_any(&p->now)) {
        p->repeats = steps_equal(&p->now, &p->before) ? p->repeats + 1 : 1;
        const umo_arena_steps old = p->before;
        p->before = p->now;
        p->now = old;
        if (p->repeats >= repeats_needed(p)) {
            p->plans++;
            made = plan_make(p);
        }
    } else {
        p->repeats = 0;
    }
    p->now.count = 0;
    p->piece_count = 0;
    p->follows = false;
    p->left = false;
    p->noting = p->wanted;
    return made;
}

void umo_arena_plan_finish(umo_arena_plan *p)
{
    free(p->now.steps);
    free(p->before.steps);
    free(p->planned.steps);
    free(p->pieces);
    free(p->offsets);
}

/*
 * See problem.h. Buffers that meet all others of their part can lie at its bottom, in any order:
 * they are taken out, and what is left may fall apart. Nothing else is assumed about a plan.
 */
#include "plan/problem.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* How often a part is cut again after its bottom was taken out: bounds the time of odd instances.
 */
#define CUTS_MAX 64u
/* Steps spent on exact bounds where sizes are not multiples of the grain. */
#define EXACT_STEPS 4000000u

/* A buffer in its caller's time. */
typedef struct span {
    int64_t lower;
    int64_t upper;
    uint32_t index;
} span;

/* Spans that are in one part so far. */
typedef struct piece {
    size_t first;
    size_t count;
    int64_t base;
    unsigned cuts;
} piece;

/* An end of a lifetime. */
typedef struct moment {
    int64_t time;
    uint32_t item;
} moment;

typedef struct cutter {
    const umo_plan_buffer *buffers;
    span *spans;
    piece *pieces; /* a stack */
    size_t piece_count;
    size_t piece_room;
    size_t item_count;
    moment *ends;
    uint32_t *active; /* items in use at a moment of the sweep */
    uint32_t *where;  /* of each item in active */
} cutter;

static int64_t align_of(const umo_plan_buffer *buffer)
{
    return buffer->align_bytes > 1 ? (int64_t)buffer->align_bytes : 1;
}

static int64_t common_divisor(int64_t a, int64_t b)
{
    while (b != 0) {
        const int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int span_compare(const void *left, const void *right)
{
    const span *a = left;
    const span *b = right;
    if (a->lower != b->lower) {
        return a->lower < b->lower ? -1 : 1;
    }
    if (a->upper != b->upper) {
        return a->upper < b->upper ? -1 : 1;
    }
    return a->index < b->index ? -1 : 1; /* so that the order is one */
}

static umo_status buffers_check(const umo_plan_buffer *buffers, size_t count, umo_error *error)
{
    if (count > UMO_PLAN_BUFFERS_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu buffers: a plan has at most %u", count,
                             UMO_PLAN_BUFFERS_MAX);
    }
    for (size_t i = 0; i < count; i++) {
        const umo_plan_buffer *b = &buffers[i];
        if (b->upper <= b->lower) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "buffer %zu: its lifetime ends at %" PRId64
                                 ", not after its begin, %" PRId64,
                                 i, b->upper, b->lower);
        }
        if (b->size_bytes == 0 || b->size_bytes > UMO_PLAN_BYTES_MAX) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "buffer %zu: size %" PRIu64 ", must be 1 to 2^63 - 1", i,
                                 b->size_bytes);
        }
        if (b->align_bytes > UMO_PLAN_BYTES_MAX) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "buffer %zu: alignment %" PRIu64 ", must be below 2^63", i,
                                 b->align_bytes);
        }
    }
    return UMO_OK;
}

static bool piece_push(cutter *c, piece p)
{
    if (c->piece_count == c->piece_room) {
        const size_t room = c->piece_room == 0 ? 64 : 2 * c->piece_room;
        piece *grown = realloc(c->pieces, room * sizeof *grown);
        if (grown == NULL) {
            return false;
        }
        c->pieces = grown;
        c->piece_room = room;
    }
    c->pieces[c->piece_count++] = p;
    return true;
}

/* Puts the spans that meet all others of the piece at its bottom, if they may lie in any order. */
static bool bottom_take(plan_problem *problem, const cutter *c, piece *p, int64_t grain)
{
    int64_t last_lower = INT64_MIN;
    int64_t first_upper = INT64_MAX;
    span *spans = c->spans + p->first;
    for (size_t i = 0; i < p->count; i++) {
        last_lower = spans[i].lower > last_lower ? spans[i].lower : last_lower;
        first_upper = spans[i].upper < first_upper ? spans[i].upper : first_upper;
    }
    size_t kept = 0;
    for (size_t i = 0; i < p->count; i++) {
        const umo_plan_buffer *b = &c->buffers[spans[i].index];
        const int64_t size = (int64_t)b->size_bytes;
        if (spans[i].lower < first_upper && spans[i].upper > last_lower && size % grain == 0) {
            problem->bottom[spans[i].index] = p->base;
            if (size > INT64_MAX - p->base) {
                return false;
            }
            p->base += size;
        } else {
            spans[kept++] = spans[i];
        }
    }
    p->count = kept;
    return true;
}

/* Whether all have the alignment `grain`: then a plan is only an order. */
static bool piece_even(const cutter *c, const piece *p, int64_t *grain)
{
    *grain = 0;
    bool even = true;
    for (size_t i = 0; i < p->count; i++) {
        const int64_t align = align_of(&c->buffers[c->spans[p->first + i].index]);
        even = even && (*grain == 0 || align == *grain);
        *grain = common_divisor(align, *grain);
    }
    return even;
}

static int moment_compare(const void *left, const void *right)
{
    const moment *a = left;
    const moment *b = right;
    if (a->time != b->time) {
        return a->time < b->time ? -1 : 1;
    }
    return a->item < b->item ? -1 : a->item > b->item;
}

/* What can be saved of the padded sizes of all in use: the one on top needs no padding. */
static int64_t slack_find(const cutter *c, const plan_part *part, uint32_t active, uint64_t *steps)
{
    if (part->grain == 1 || *steps > EXACT_STEPS) {
        return part->grain - 1;
    }
    *steps += active;
    int64_t most = 0;
    for (uint32_t i = 0; i < active; i++) {
        const plan_item *item = &part->items[c->active[i]];
        most = item->padded - item->size > most ? item->padded - item->size : most;
    }
    return most;
}

/* Gives the part's items their sections, and the part its bound. False where no 63 bits hold it. */
static bool part_sweep(const cutter *c, plan_part *part, const span *spans)
{
    uint32_t started = 0;
    uint32_t active = 0;
    uint64_t steps = 0;
    int64_t live = 0;
    bool fresh = false;
    for (uint32_t ended = 0; ended < part->count;) {
        const moment *end = &c->ends[ended];
        if (started < part->count && spans[started].lower < end->time) {
            plan_item *item = &part->items[started];
            item->lo = part->sections;
            if (item->padded > INT64_MAX - live) {
                return false;
            }
            live += item->padded;
            fresh = true;
            c->where[started] = active;
            c->active[active++] = started++;
            continue;
        }
        if (fresh) {
            part->sections++;
            fresh = false;
            if (live > part->bound) {
                const int64_t bound = live - slack_find(c, part, active, &steps);
                part->bound = bound > part->bound ? bound : part->bound;
            }
        }
        plan_item *item = &part->items[end->item];
        item->hi = part->sections;
        part->list_entries += item->hi - item->lo;
        live -= item->padded;
        const uint32_t last = c->active[--active];
        c->active[c->where[end->item]] = last;
        c->where[last] = c->where[end->item];
        ended++;
    }
    return true;
}

static int item_compare(const void *left, const void *right)
{
    const plan_item *a = left;
    const plan_item *b = right;
    if (a->lo != b->lo) {
        return a->lo < b->lo ? -1 : 1;
    }
    if (a->hi != b->hi) {
        return a->hi < b->hi ? -1 : 1;
    }
    return a->index < b->index ? -1 : 1;
}

void umo_plan_items_sort(plan_part *part)
{
    qsort(part->items, part->count, sizeof *part->items, item_compare);
}

static bool part_make(plan_problem *problem, const cutter *c, const piece *p, int64_t grain)
{
    plan_part *part = &problem->parts[problem->part_count++];
    const span *spans = c->spans + p->first;
    *part = (plan_part){.items = problem->items + c->item_count,
                        .offsets = problem->offsets + c->item_count,
                        .count = (uint32_t)p->count,
                        .grain = grain,
                        .base = p->base};
    for (uint32_t i = 0; i < part->count; i++) {
        const umo_plan_buffer *b = &c->buffers[spans[i].index];
        const int64_t size = (int64_t)b->size_bytes;
        part->items[i] = (plan_item){.size = size,
                                     .padded = plan_round_up(size, grain),
                                     .align = align_of(b),
                                     .index = spans[i].index};
        c->ends[i] = (moment){.time = spans[i].upper, .item = i};
    }
    qsort(c->ends, part->count, sizeof *c->ends, moment_compare);
    if (!part_sweep(c, part, spans) || part->bound > INT64_MAX - part->base) {
        return false;
    }
    part->live = part->bound;
    umo_plan_items_sort(part);
    return true;
}

/* Takes one piece off the stack: it becomes a part, or falls into smaller ones. */
static umo_status piece_cut(plan_problem *problem, cutter *c)
{
    piece p = c->pieces[--c->piece_count];
    int64_t grain;
    if (piece_even(c, &p, &grain) && p.cuts < CUTS_MAX && !bottom_take(problem, c, &p, grain)) {
        return UMO_E_LIMIT;
    }
    problem->low = p.base > problem->low ? p.base : problem->low;
    const span *spans = c->spans + p.first;
    size_t first = 0;
    int64_t upper = INT64_MIN;
    for (size_t i = 0; i < p.count; i++) {
        if (i > first && spans[i].lower >= upper) {
            const piece cut = {p.first + first, i - first, p.base, p.cuts + 1};
            if (!piece_push(c, cut)) {
                return UMO_E_NOMEM;
            }
            first = i;
        }
        upper = spans[i].upper > upper ? spans[i].upper : upper;
    }
    if (first > 0) {
        const piece cut = {p.first + first, p.count - first, p.base, p.cuts + 1};
        return piece_push(c, cut) ? UMO_OK : UMO_E_NOMEM;
    }
    if (p.count > 0) {
        if (!part_make(problem, c, &p, grain)) {
            return UMO_E_LIMIT;
        }
        c->item_count += p.count;
    }
    return UMO_OK;
}

static int part_compare(const void *left, const void *right)
{
    const plan_part *a = left;
    const plan_part *b = right;
    const int64_t a_bound = a->base + a->bound;
    const int64_t b_bound = b->base + b->bound;
    if (a_bound != b_bound) {
        return a_bound > b_bound ? -1 : 1;
    }
    return a->items < b->items ? -1 : 1;
}

static umo_status problem_cut(plan_problem *problem, cutter *c, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        c->spans[i] = (span){c->buffers[i].lower, c->buffers[i].upper, (uint32_t)i};
        problem->bottom[i] = -1;
    }
    qsort(c->spans, count, sizeof *c->spans, span_compare);
    if (!piece_push(c, (piece){0, count, 0, 0})) {
        return UMO_E_NOMEM;
    }
    while (c->piece_count > 0) {
        const umo_status status = piece_cut(problem, c);
        if (status != UMO_OK) {
            return status;
        }
    }
    qsort(problem->parts, problem->part_count, sizeof *problem->parts, part_compare);
    problem->bound = problem->low;
    if (problem->part_count > 0) {
        const plan_part *highest = &problem->parts[0];
        const int64_t bound = highest->base + highest->bound;
        problem->bound = bound > problem->bound ? bound : problem->bound;
    }
    return UMO_OK;
}

umo_status umo_plan_problem_init(plan_problem *problem, const umo_plan_buffer *buffers,
                                 size_t count, umo_error *error)
{
    *problem = (plan_problem){0};
    umo_status status = buffers_check(buffers, count, error);
    if (status != UMO_OK) {
        return status;
    }
    const size_t room = count > 0 ? count : 1;
    cutter c = {.buffers = buffers,
                .spans = calloc(room, sizeof *c.spans),
                .ends = calloc(room, sizeof *c.ends),
                .active = calloc(room, sizeof *c.active),
                .where = calloc(room, sizeof *c.where)};
    problem->parts = calloc(room, sizeof *problem->parts);
    problem->items = calloc(room, sizeof *problem->items);
    problem->offsets = calloc(room, sizeof *problem->offsets);
    problem->bottom = calloc(room, sizeof *problem->bottom);
    status = UMO_E_NOMEM;
    if (c.spans != NULL && c.ends != NULL && c.active != NULL && c.where != NULL &&
        problem->parts != NULL && problem->items != NULL && problem->offsets != NULL &&
        problem->bottom != NULL) {
        status = problem_cut(problem, &c, count);
    }
    free(c.spans);
    free(c.ends);
    free(c.active);
    free(c.where);
    free(c.pieces);
    if (status != UMO_OK) {
        umo_plan_problem_finish(problem);
    }
    if (status == UMO_E_LIMIT) {
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "the buffers in use at once need 2^63 bytes or more, each rounded up "
                             "to the common divisor of the alignments");
    }
    return status == UMO_OK ? UMO_OK : umo_error_set(error, status, 0, "no memory for a plan");
}

void umo_plan_problem_finish(plan_problem *problem)
{
    free(problem->parts);
    free(problem->items);
    free(problem->offsets);
    free(problem->bottom);
    *problem = (plan_problem){0};
}

bool umo_plan_part_offer(plan_part *part, const int64_t *offsets)
{
    const int64_t most = INT64_MAX - part->base;
    int64_t peak = 0;
    for (uint32_t i = 0; i < part->count; i++) {
        if (offsets[i] > most || part->items[i].size > most - offsets[i]) {
            return false;
        }
        const int64_t end = offsets[i] + part->items[i].size;
        peak = end > peak ? end : peak;
    }
    if (part->planned && peak >= part->peak) {
        return false;
    }
    part->planned = true;
    part->peak = peak;
    memcpy(part->offsets, offsets, part->count * sizeof *offsets);
    return true;
}

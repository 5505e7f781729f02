/*
 * umo_plan(): what is tried, in which order, and for how long.
 *
 * Constructions first, then the search at the lower bound, because real instances have a plan there
 * more often than not, then at capacities between it and the best plan. Each round may cost twice
 * what the one before did, so that whatever the limit is, half of it goes into the longest
 * searches.
 */
#include "plan/budget.h"
#include "plan/build.h"
#include "plan/glue.h"
#include "plan/problem.h"
#include "plan/search.h"

#include "base/hash.h"
#include "os/os.h"

#include <inttypes.h>
#include <stdlib.h>

/* Steps of the first round, and of a try that Luby's sequence multiplies. */
#define ROUND_WORK UINT64_C(8000000)
#define TRY_WORK UINT64_C(300000)
#define ROUNDS_MAX 40u
/* Parts for which the search's memory is too much are left to the skyline. */
#define SEARCH_BYTES_MAX ((size_t)64 << 20)
/* Beyond these, one greedy construction takes too long. */
#define BEST_FIT_ITEMS_MAX 16384u
/* Glued parts that are searched: what was cut from a rectangle is small by then, or not understood.
 */
#define GLUED_ITEMS_MAX 512u
#define GLUED_WORK UINT64_C(2000000)
#define GLUE_TRIES 4u
/* The gap is not halved below this part of the bound. */
#define STEP_PART 4096
/* Of the ranks of choices, in percent, once each way was tried without. */
#define NOISE 80u
#define PLAIN_TRIES 9u

typedef struct planner {
    const umo_plan_options *options;
    plan_problem problem;
    plan_budget budget;
    plan_search *search;
    const plan_part *search_part; /* whose search it is */
    plan_skyline *skyline;
    const plan_part *skyline_part;
    int64_t low;      /* no plan needs to be shorter: the bound, or the capacity */
    int64_t capacity; /* 0: none */
    uint64_t turns;
    uint64_t glue_turns;
    bool nomem;
} planner;

/* The t-th term, from 1, of 1 1 2 1 1 2 4 1 1 2 ... Source: Luby, Sinclair, Zuckerman (1993). */
static uint64_t luby(uint64_t t)
{
    for (;;) {
        unsigned k = 1;
        while ((UINT64_C(1) << k) - 1 < t) {
            k++;
        }
        if ((UINT64_C(1) << k) - 1 == t) {
            return UINT64_C(1) << (k - 1);
        }
        t -= (UINT64_C(1) << (k - 1)) - 1;
    }
}

/* -1 while a part has no plan. */
static int64_t peak_now(const planner *p)
{
    int64_t peak = p->problem.low;
    for (size_t i = 0; i < p->problem.part_count; i++) {
        const plan_part *part = &p->problem.parts[i];
        if (!part->planned) {
            return -1;
        }
        peak = part->base + part->peak > peak ? part->base + part->peak : peak;
    }
    return peak;
}

/* After a plan or a proof: what need not be beaten, and what the caller's progress() is told. */
static void figures_update(planner *p)
{
    plan_problem *problem = &p->problem;
    for (size_t i = 0; i < problem->part_count; i++) {
        const int64_t bound = plan_add(problem->parts[i].base, problem->parts[i].bound);
        problem->bound = bound > problem->bound ? bound : problem->bound;
    }
    p->low = p->capacity > problem->bound ? p->capacity : problem->bound;
    p->budget.progress.peak_bytes = peak_now(p);
    p->budget.progress.bound_bytes = problem->bound;
}

/* Whether a better plan of this part makes the whole one better. */
static bool part_open(const planner *p, const plan_part *part)
{
    return !part->planned || part->base + part->peak > p->low;
}

static bool infeasible(const planner *p)
{
    return p->capacity > 0 && p->problem.bound > p->capacity;
}

/* Whether there is anything to be done about a part, and any limit left. */
static bool goes_on(const planner *p, const plan_part *part)
{
    return !p->budget.over && !p->nomem && !infeasible(p) && part_open(p, part);
}

static bool search_ready(planner *p, const plan_part *part)
{
    if (p->search_part != part) {
        umo_plan_search_destroy(p->search);
        p->search = NULL;
        p->search_part = part;
        if (umo_plan_search_bytes(part) <= SEARCH_BYTES_MAX) {
            p->search = umo_plan_search_create(part);
            p->nomem = p->nomem || p->search == NULL;
        }
    }
    return p->search != NULL;
}

static bool skyline_ready(planner *p, const plan_part *part)
{
    if (p->skyline_part != part) {
        umo_plan_skyline_destroy(p->skyline);
        p->skyline_part = part;
        p->skyline = umo_plan_skyline_create(part);
        p->nomem = p->nomem || p->skyline == NULL;
    }
    return p->skyline != NULL;
}

/* What was made for a part that is about to go. */
static void part_forget(planner *p, const plan_part *part)
{
    if (p->search_part == part) {
        umo_plan_search_destroy(p->search);
        p->search = NULL;
        p->search_part = NULL;
    }
    if (p->skyline_part == part) {
        umo_plan_skyline_destroy(p->skyline);
        p->skyline = NULL;
        p->skyline_part = NULL;
    }
}

/* Tries at one capacity, each in another way, until so much work is done. */
static plan_outcome tries(planner *p, plan_part *part, int64_t capacity, uint64_t work_max)
{
    const uint64_t until = p->budget.work + work_max;
    plan_outcome outcome = PLAN_STOPPED;
    for (uint64_t t = 0; outcome == PLAN_STOPPED && p->budget.work < until; t++) {
        const uint64_t turn = p->turns++;
        const plan_try how = {.capacity = capacity,
                              .key = (plan_key)((turn + PLAN_KEY_AREA) % PLAN_KEYS),
                              .pick = (plan_pick)(turn / PLAN_KEYS % PLAN_PICKS),
                              .noise = turn < PLAIN_TRIES ? 0 : NOISE,
                              .seed = umo_hash_mix(p->options->seed, turn),
                              .work_max = luby(t / PLAN_KEYS + 1) * TRY_WORK};
        outcome = umo_plan_search_run(p->search, &how, &p->budget);
    }
    if (outcome == PLAN_FOUND) {
        (void)umo_plan_part_offer(part, umo_plan_search_offsets(p->search));
    } else if (outcome == PLAN_EXHAUSTED) {
        const int64_t next = umo_plan_search_bound_next(p->search);
        part->bound = next > capacity ? next : plan_add(capacity, 1);
    }
    p->nomem = p->nomem || (outcome == PLAN_OVER && !p->budget.over);
    figures_update(p);
    return outcome;
}

/* Capacities between the part's bound and its peak, until the gap is small or the work is done. */
static void gap_halve(planner *p, plan_part *part, uint64_t work_max)
{
    const uint64_t until = p->budget.work + work_max;
    int64_t low = p->low - part->base;
    const int64_t step = low / STEP_PART > part->grain ? low / STEP_PART : part->grain;
    while (goes_on(p, part) && part->peak - low > step && p->budget.work < until) {
        const int64_t middle = low + (part->peak - 1 - low) / 2;
        if (middle < part->bound) {
            low = part->bound;
        } else if (tries(p, part, middle, work_max / 8) != PLAN_FOUND) {
            low = middle;
        }
    }
}

/* One round of a part: at what would be optimal, then in the gap. */
static void part_search(planner *p, plan_part *part, uint64_t work_max)
{
    plan_outcome outcome = PLAN_EXHAUSTED; /* then the bound has risen, and it goes on there */
    while (outcome == PLAN_EXHAUSTED && goes_on(p, part)) {
        outcome = tries(p, part, p->low - part->base, work_max);
    }
    if (p->capacity == 0) {
        gap_halve(p, part, work_max);
    }
}

/* Constructions, until one of them is as short as can be. `whole`: the first one is made even if
 * the budget is spent, so that there is a plan at any limit. */
static void orders_build(planner *p, plan_part *part, plan_order last, bool whole)
{
    for (plan_order order = PLAN_ORDER_SIZE; order <= last; order++) {
        for (unsigned way = 0; way < 2; way++) {
            const bool now = whole && order == PLAN_ORDER_SIZE && way == 0 && part_open(p, part);
            const plan_taste taste = {.order = order, .mirrored = way == 1, .whole = now};
            if ((now || goes_on(p, part)) && skyline_ready(p, part)) {
                p->nomem = !umo_plan_skyline_run(p->skyline, part, &taste, &p->budget);
            }
            if (goes_on(p, part) && part->count <= BEST_FIT_ITEMS_MAX) {
                p->nomem = umo_plan_best_fit(part, order, way == 1, &p->budget) != UMO_OK;
            }
            figures_update(p);
        }
    }
}

/* The part with what fits together glued, in one of many ways; its plan is one of the part. False
 * if nothing fits together, or memory is out. */
static bool glued_build(planner *p, plan_part *part, uint64_t work_max)
{
    static const plan_gluing ways[] = {{0, 8, 1, 0},   {0, 0, 1, 0},    {0, 64, 1, 0},
                                       {0, 8, 64, 0},  {0, 8, 1, 3},    {0, 8, 1, 10},
                                       {0, 64, 64, 5}, {0, 0, 1000, 0}, {0, 8, 1000, 3}};
    const uint64_t turn = p->glue_turns++;
    plan_gluing how = ways[turn % (sizeof ways / sizeof ways[0])];
    how.seed = umo_hash_mix(p->options->seed, turn);
    plan_glue *glue = umo_plan_glue_create(part, &how, &p->budget);
    if (glue == NULL) {
        return false;
    }
    plan_part *glued = umo_plan_glue_part(glue);
    orders_build(p, glued, PLAN_ORDER_AREA, false);
    if (goes_on(p, glued) && glued->count <= GLUED_ITEMS_MAX && search_ready(p, glued)) {
        /* What is proven of it holds for it alone: the part's own bound stays. */
        const int64_t low = p->low - part->base;
        const bool halve = part->planned && turn % 2 == 1 && p->capacity == 0;
        const int64_t capacity = halve ? low + (part->peak - 1 - low) / 2 : low;
        (void)tries(p, glued, capacity, work_max);
    }
    (void)umo_plan_glue_offer(glue, part);
    part_forget(p, glued);
    umo_plan_glue_destroy(glue);
    figures_update(p);
    return true;
}

/* What is left where a search is too much: other orders of the same. */
static void part_shuffle(planner *p, plan_part *part)
{
    const uint64_t turn = p->turns++;
    const plan_taste taste = {.order = (plan_order)(turn % PLAN_ORDERS),
                              .mirrored = turn / PLAN_ORDERS % 2 == 1,
                              .noise = 10 + 10 * (unsigned)(turn % 7),
                              .seed = umo_hash_mix(p->options->seed, turn)};
    if (skyline_ready(p, part)) {
        p->nomem = !umo_plan_skyline_run(p->skyline, part, &taste, &p->budget);
        figures_update(p);
    }
}

static void parts_solve(planner *p)
{
    plan_problem *problem = &p->problem;
    for (size_t i = 0; i < problem->part_count; i++) {
        plan_part *part = &problem->parts[i];
        for (unsigned way = 0; way < GLUE_TRIES && goes_on(p, part); way++) {
            (void)glued_build(p, part, GLUED_WORK);
        }
        if (part_open(p, part)) {
            orders_build(p, part, PLAN_ORDER_REST, true);
        }
    }
    bool open = true;
    for (unsigned round = 0; open; round += round < ROUNDS_MAX ? 1 : 0) {
        open = false;
        for (size_t i = 0; i < problem->part_count; i++) {
            plan_part *part = &problem->parts[i];
            if (!goes_on(p, part)) {
                continue;
            }
            open = true;
            if (search_ready(p, part)) {
                part_search(p, part, ROUND_WORK << round);
            } else {
                part_shuffle(p, part);
            }
            const uint64_t until = p->budget.work + (ROUND_WORK << round);
            bool glued = true;
            while (glued && p->budget.work < until && goes_on(p, part)) {
                glued = glued_build(p, part, GLUED_WORK << round / 2);
            }
        }
    }
}

static void offsets_write(const plan_problem *problem, size_t count, int64_t *offsets)
{
    for (size_t i = 0; i < count; i++) {
        offsets[i] = problem->bottom[i];
    }
    for (size_t k = 0; k < problem->part_count; k++) {
        const plan_part *part = &problem->parts[k];
        for (uint32_t i = 0; i < part->count; i++) {
            offsets[part->items[i].index] = part->base + part->offsets[i];
        }
    }
}

/* What came out, in words where it is less than was asked for. */
static umo_status verdict(const planner *p, umo_plan_result *result, umo_error *error)
{
    const int64_t peak = result->peak_bytes;
    if (peak >= 0 && (p->capacity == 0 || peak <= p->capacity)) {
        return UMO_OK;
    }
    if (infeasible(p)) {
        result->proof = UMO_PLAN_INFEASIBLE;
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "no plan fits a capacity of %" PRId64 " bytes: the least is %" PRId64
                             " or more",
                             p->capacity, p->problem.bound);
    }
    if (peak < 0) {
        return p->nomem ? umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a plan")
                        : umo_error_set(error, UMO_E_LIMIT, 0,
                                        "no plan of less than 2^63 bytes was found");
    }
    return umo_error_set(error, UMO_E_TIMEOUT, 0,
                         "no plan of %" PRId64 " bytes found in %" PRIu64
                         " nodes; the best one has %" PRId64 ", the lower bound is %" PRId64,
                         p->capacity, p->budget.nodes, peak, p->problem.bound);
}

static umo_status solve(planner *p, size_t count, int64_t *offsets, umo_plan_result *result,
                        umo_error *error)
{
    const int64_t live = p->problem.bound;
    if (infeasible(p)) {
        *result = (umo_plan_result){.peak_bytes = -1,
                                    .bound_bytes = live,
                                    .live_bytes = live,
                                    .proof = UMO_PLAN_INFEASIBLE};
        return umo_error_set(error, UMO_E_LIMIT, 0,
                             "the capacity, %" PRId64 " bytes, is below the lower bound, %" PRId64
                             ": so much is in use at once",
                             p->capacity, live);
    }
    figures_update(p);
    parts_solve(p);
    const int64_t peak = peak_now(p);
    *result = (umo_plan_result){.peak_bytes = peak,
                                .bound_bytes = p->problem.bound,
                                .live_bytes = live,
                                .interrupted = p->budget.interrupted,
                                .nodes = p->budget.nodes,
                                .time_ns = umo_os_now_ns() - p->budget.start_ns};
    if (peak == p->problem.bound) {
        result->proof = peak == live ? UMO_PLAN_AT_BOUND : UMO_PLAN_EXHAUSTED;
    }
    result->out_of_limit = p->budget.over && result->proof == UMO_PLAN_OPEN;
    if (peak >= 0) {
        offsets_write(&p->problem, count, offsets);
    }
    return verdict(p, result, error);
}

umo_status umo_plan(const umo_plan_buffer *buffers, size_t count, const umo_plan_options *options,
                    int64_t *offsets, umo_plan_result *result, umo_error *error)
{
    umo_plan_options defaults;
    umo_plan_options_init(&defaults);
    options = options != NULL ? options : &defaults;
    if (options->capacity_bytes > UMO_PLAN_BYTES_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a capacity of %" PRIu64 " bytes: 2^63 - 1 at most",
                             options->capacity_bytes);
    }
    planner p = {.options = options, .capacity = (int64_t)options->capacity_bytes};
    umo_plan_budget_start(&p.budget, options);
    umo_status status = umo_plan_problem_init(&p.problem, buffers, count, error);
    if (status != UMO_OK) {
        if (status == UMO_E_LIMIT) {
            *result = (umo_plan_result){.peak_bytes = -1, .bound_bytes = UMO_PLAN_BYTES_MAX};
        }
        return status;
    }
    status = solve(&p, count, offsets, result, error);
    umo_plan_search_destroy(p.search);
    umo_plan_skyline_destroy(p.skyline);
    umo_plan_problem_finish(&p.problem);
    return status;
}

/*
 * See build.h. Two trees: one over the sections, with the least and the highest floor of each
 * range, and one over the items in the order of their begin, with the nearest and the furthest end
 * of those that are not placed yet, which finds what is over a section and what fits a valley.
 */
#include "plan/build.h"
#include "plan/order.h"

#include <stdlib.h>
#include <string.h>

/* Items looked at for one row, and for the rows of a whole run: where many begin at once and end
 * too early for the next, a row costs a hundred times what others do. Beyond that each row is one
 * item, so that a plan costs O(n log n) whatever the buffers are. The clock does not decide that:
 * the first plan is the same at every limit. */
#define ROW_STEPS 1000u
#define RUN_STEPS 100000u
#define RUN_STEPS_ITEM 64u
#define DONE INT64_MAX          /* floor of a section over which nothing is left */
#define HIGHEST (INT64_MAX - 1) /* floor of one that has no room left below 63 bits */

typedef struct range {
    int64_t least;
    int64_t most;
    int64_t all; /* a floor that the whole range has, not told to its halves yet; -1: none */
} range;

/* Ends of items that are not placed. */
typedef struct reach {
    uint32_t nearest;  /* UINT32_MAX: all are placed */
    uint32_t furthest; /* 0: likewise */
} reach;

struct plan_skyline {
    uint32_t items;
    uint32_t sections;
    uint32_t *lo; /* of items, mirrored where that is asked */
    uint32_t *hi;
    uint32_t *order;       /* items by begin, then by taste */
    uint32_t *begin_first; /* for each section the first in `order` that begins there; one more */
    uint32_t floor_leaves; /* powers of two */
    uint32_t reach_leaves;
    range *floors;
    reach *ends;
    int64_t *offsets;
    plan_ranked *ranked;
    uint32_t *row;
    uint32_t *best_row;
    uint32_t *dead; /* the turn in which a section was found to begin no row */
    uint32_t turn;
    uint64_t steps_left; /* for rows of more than one item */
    uint64_t work;
};

static uint32_t leaves_for(uint32_t count)
{
    uint32_t leaves = 1;
    while (leaves < count) {
        leaves *= 2;
    }
    return leaves;
}

plan_skyline *umo_plan_skyline_create(const plan_part *part)
{
    plan_skyline *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->items = part->count;
    s->sections = part->sections;
    s->floor_leaves = leaves_for(part->sections);
    s->reach_leaves = leaves_for(part->count);
    s->lo = calloc(s->items, sizeof *s->lo);
    s->hi = calloc(s->items, sizeof *s->hi);
    s->order = calloc(s->items, sizeof *s->order);
    s->begin_first = calloc((size_t)s->sections + 1, sizeof *s->begin_first);
    s->floors = calloc(2 * (size_t)s->floor_leaves, sizeof *s->floors);
    s->ends = calloc(2 * (size_t)s->reach_leaves, sizeof *s->ends);
    s->offsets = calloc(s->items, sizeof *s->offsets);
    s->ranked = calloc(s->items, sizeof *s->ranked);
    s->row = calloc(s->items, sizeof *s->row);
    s->best_row = calloc(s->items, sizeof *s->best_row);
    s->dead = calloc((size_t)s->sections + 1, sizeof *s->dead);
    if (s->lo == NULL || s->hi == NULL || s->order == NULL || s->begin_first == NULL ||
        s->floors == NULL || s->ends == NULL || s->offsets == NULL || s->ranked == NULL ||
        s->row == NULL || s->best_row == NULL || s->dead == NULL) {
        umo_plan_skyline_destroy(s);
        return NULL;
    }
    return s;
}

void umo_plan_skyline_destroy(plan_skyline *s)
{
    if (s == NULL) {
        return;
    }
    free(s->lo);
    free(s->hi);
    free(s->order);
    free(s->begin_first);
    free(s->floors);
    free(s->ends);
    free(s->offsets);
    free(s->ranked);
    free(s->row);
    free(s->best_row);
    free(s->dead);
    free(s);
}

/* ---- floors ---- */

static void floors_join(range *tree, uint32_t node)
{
    const uint32_t left = 2 * node;
    const range *a = &tree[left];
    const range *b = &tree[left + 1];
    tree[node].least = a->least < b->least ? a->least : b->least;
    tree[node].most = a->most > b->most ? a->most : b->most;
}

static void floors_all(range *r, int64_t v)
{
    r->least = v;
    r->most = v;
    r->all = v;
}

static void floors_tell(range *tree, uint32_t node)
{
    if (tree[node].all >= 0) {
        const uint32_t left = 2 * node;
        floors_all(&tree[left], tree[node].all);
        floors_all(&tree[left + 1], tree[node].all);
        tree[node].all = -1;
    }
}

static void floors_set(plan_skyline *s, uint32_t node, uint32_t first, uint32_t size, uint32_t lo,
                       uint32_t hi, int64_t v)
{
    s->work++;
    if (lo <= first && first + size <= hi) {
        floors_all(&s->floors[node], v);
        return;
    }
    floors_tell(s->floors, node);
    const uint32_t half = size / 2;
    if (lo < first + half) {
        floors_set(s, 2 * node, first, half, lo, hi, v);
    }
    if (hi > first + half) {
        floors_set(s, 2 * node + 1, first + half, half, lo, hi, v);
    }
    floors_join(s->floors, node);
}

/* The highest floor of a range of sections. */
static int64_t floors_most(plan_skyline *s, uint32_t node, uint32_t first, uint32_t size,
                           uint32_t lo, uint32_t hi)
{
    s->work++;
    const range *r = &s->floors[node];
    if ((lo <= first && first + size <= hi) || r->all >= 0) {
        return r->most;
    }
    const uint32_t half = size / 2;
    int64_t most = -1;
    if (lo < first + half) {
        most = floors_most(s, 2 * node, first, half, lo, hi);
    }
    if (hi > first + half) {
        const int64_t other = floors_most(s, 2 * node + 1, first + half, half, lo, hi);
        most = other > most ? other : most;
    }
    return most;
}

/* The first section whose floor is the least of all. */
static uint32_t floors_lowest(plan_skyline *s, int64_t *floor)
{
    uint32_t node = 1;
    *floor = s->floors[1].least;
    while (node < s->floor_leaves) {
        floors_tell(s->floors, node);
        const uint32_t left = 2 * node;
        node = s->floors[left].least == *floor ? left : left + 1;
        s->work++;
    }
    return node - s->floor_leaves;
}

/* The first section from `from` on that is done or has a floor above v; else how many there are. */
static uint32_t floors_wall(plan_skyline *s, uint32_t node, uint32_t first, uint32_t size,
                            uint32_t from, int64_t v)
{
    s->work++;
    const range *r = &s->floors[node];
    if (first + size <= from || r->most <= v) {
        return UINT32_MAX;
    }
    if (r->all >= 0 || size == 1) {
        return first > from ? first : from;
    }
    const uint32_t half = size / 2;
    const uint32_t found = floors_wall(s, 2 * node, first, half, from, v);
    return found != UINT32_MAX ? found : floors_wall(s, 2 * node + 1, first + half, half, from, v);
}

/* ---- items over a section ---- */

static void ends_join(reach *tree, uint32_t node)
{
    const uint32_t left = 2 * node;
    const reach *a = &tree[left];
    const reach *b = &tree[left + 1];
    tree[node].nearest = a->nearest < b->nearest ? a->nearest : b->nearest;
    tree[node].furthest = a->furthest > b->furthest ? a->furthest : b->furthest;
}

static void ends_placed(plan_skyline *s, uint32_t position)
{
    uint32_t node = s->reach_leaves + position;
    s->ends[node] = (reach){UINT32_MAX, 0};
    while (node > 1) {
        node /= 2;
        ends_join(s->ends, node);
        s->work++;
    }
}

/* Whether one of the first `before` items by begin, and not placed, is over section q. */
static bool ends_over(plan_skyline *s, uint32_t node, uint32_t first, uint32_t size,
                      uint32_t before, uint32_t q)
{
    s->work++;
    if (first >= before || s->ends[node].furthest <= q) {
        return false;
    }
    if (first + size <= before) {
        return true;
    }
    const uint32_t half = size / 2;
    return ends_over(s, 2 * node, first, half, before, q) ||
           ends_over(s, 2 * node + 1, first + half, half, before, q);
}

/* The first position from `from` on of an item that is not placed and ends by r. */
static uint32_t ends_by(plan_skyline *s, uint32_t node, uint32_t first, uint32_t size,
                        uint32_t from, uint32_t r)
{
    s->work++;
    if (first + size <= from || s->ends[node].nearest > r) {
        return UINT32_MAX;
    }
    if (size == 1) {
        return first;
    }
    const uint32_t half = size / 2;
    const uint32_t found = ends_by(s, 2 * node, first, half, from, r);
    return found != UINT32_MAX ? found : ends_by(s, 2 * node + 1, first + half, half, from, r);
}

/* ---- the construction ---- */

static bool run_begin(plan_skyline *s, const plan_part *part, const plan_taste *taste)
{
    if (!umo_plan_rank(part, taste->order, taste->noise, taste->seed, s->ranked)) {
        return false;
    }
    memset(s->begin_first, 0, ((size_t)s->sections + 1) * sizeof *s->begin_first);
    for (uint32_t i = 0; i < s->items; i++) {
        const plan_item *item = &part->items[i];
        s->lo[i] = taste->mirrored ? s->sections - item->hi : item->lo;
        s->hi[i] = taste->mirrored ? s->sections - item->lo : item->hi;
        s->begin_first[s->lo[i] + 1]++;
    }
    for (uint32_t q = 0; q < s->sections; q++) {
        s->begin_first[q + 1] += s->begin_first[q];
    }
    /* Counting sort by begin keeps the order of ranks; afterwards each count is the next one's. */
    for (uint32_t k = 0; k < s->items; k++) {
        const uint32_t i = s->ranked[k].item;
        s->order[s->begin_first[s->lo[i]]++] = i;
    }
    memmove(s->begin_first + 1, s->begin_first, s->sections * sizeof *s->begin_first);
    s->begin_first[0] = 0;
    for (uint32_t k = 0; k < s->reach_leaves; k++) {
        const uint32_t end = k < s->items ? s->hi[s->order[k]] : 0;
        s->ends[s->reach_leaves + k] = (reach){end > 0 ? end : UINT32_MAX, end};
    }
    for (uint32_t node = s->reach_leaves - 1; node > 0; node--) {
        ends_join(s->ends, node);
    }
    for (uint32_t leaf = 0; leaf < s->floor_leaves; leaf++) {
        floors_all(&s->floors[s->floor_leaves + leaf], leaf < s->sections ? 0 : DONE);
    }
    for (uint32_t node = s->floor_leaves - 1; node > 0; node--) {
        floors_join(s->floors, node);
        s->floors[node].all = -1;
    }
    return true;
}

/* The first position from k on of an item that begins at section l, is not placed and ends by r. */
static uint32_t fitting(plan_skyline *s, uint32_t l, uint32_t k, uint32_t r)
{
    const uint32_t from = k > s->begin_first[l] ? k : s->begin_first[l];
    const uint32_t end = s->begin_first[l + 1];
    const uint32_t found = from < end ? ends_by(s, 1, 0, s->reach_leaves, from, r) : UINT32_MAX;
    return found < end ? found : UINT32_MAX;
}

/*
 * Looks for items that fill the valley from l to just before r in one row, each beginning where the
 * one before it ends. What is in s->best_row gets furthest, where none gets to r.
 */
static uint32_t row_find(plan_skyline *s, uint32_t l, uint32_t r)
{
    uint32_t length = 0;
    uint32_t best_length = 0;
    uint32_t furthest = l;
    uint32_t at = l;
    uint32_t k = 0;
    s->turn++;
    const unsigned steps_max = s->steps_left > ROW_STEPS ? ROW_STEPS : 1;
    for (unsigned steps = 0; steps < steps_max; steps++) {
        s->steps_left -= steps_max > 1 ? 1 : 0;
        const uint32_t position = s->dead[at] == s->turn ? UINT32_MAX : fitting(s, at, k, r);
        if (position == UINT32_MAX) {
            s->dead[at] = s->turn;
            if (length == 0) {
                break;
            }
            k = s->row[--length] + 1;
            at = s->lo[s->order[k - 1]];
            continue;
        }
        s->row[length++] = position;
        at = s->hi[s->order[position]];
        k = 0;
        if (at > furthest) {
            furthest = at;
            best_length = length;
            memcpy(s->best_row, s->row, length * sizeof *s->row);
        }
        if (at == r) {
            break;
        }
    }
    return best_length;
}

static bool item_put(plan_skyline *s, const plan_part *part, uint32_t position, int64_t floor)
{
    const uint32_t i = s->order[position];
    const plan_item *item = &part->items[i];
    const int64_t offset = plan_round_up(floor, item->align);
    if (floor == HIGHEST || item->size > INT64_MAX - offset) {
        return false;
    }
    const int64_t top = plan_add(offset, item->padded);
    s->offsets[i] = offset;
    ends_placed(s, position);
    floors_set(s, 1, 0, s->floor_leaves, s->lo[i], s->hi[i], top < HIGHEST ? top : HIGHEST);
    return true;
}

/*
 * Nothing fits into the valley's left end: it rises to the lower one of the walls, and so does all
 * up to where something fits. One begin at a time the same would come out, after as many lifts as
 * buffers begin in the valley: n^2 of them.
 */
static void lift(plan_skyline *s, uint32_t l, uint32_t r)
{
    const uint32_t before = s->begin_first[l + 1];
    if (!ends_over(s, 1, 0, s->reach_leaves, before, l)) {
        floors_set(s, 1, 0, s->floor_leaves, l, l + 1, DONE);
        return;
    }
    int64_t wall = DONE;
    if (l > 0) {
        wall = floors_most(s, 1, 0, s->floor_leaves, l - 1, l);
    }
    if (r < s->sections) {
        const int64_t other = floors_most(s, 1, 0, s->floor_leaves, r, r + 1);
        wall = other < wall ? other : wall;
    }
    const uint32_t next = ends_by(s, 1, 0, s->reach_leaves, before, r);
    const uint32_t until = next == UINT32_MAX ? r : s->lo[s->order[next]];
    floors_set(s, 1, 0, s->floor_leaves, l, until, wall);
}

/* Places a row or lifts a valley; false if that would lie beyond 63 bits. */
static bool advance(plan_skyline *s, const plan_part *part, uint32_t *left)
{
    int64_t floor;
    const uint32_t l = floors_lowest(s, &floor);
    const uint32_t wall = floors_wall(s, 1, 0, s->floor_leaves, l, floor);
    const uint32_t r = wall < s->sections ? wall : s->sections;
    const uint32_t length = row_find(s, l, r);
    for (uint32_t k = 0; k < length; k++) {
        if (!item_put(s, part, s->best_row[k], floor)) {
            return false;
        }
        (*left)--;
    }
    if (length == 0) {
        lift(s, l, r);
    }
    return true;
}

bool umo_plan_skyline_run(plan_skyline *s, plan_part *part, const plan_taste *taste,
                          plan_budget *budget)
{
    if (!run_begin(s, part, taste)) {
        return false;
    }
    s->work = 0;
    s->steps_left = RUN_STEPS + (uint64_t)s->items * RUN_STEPS_ITEM;
    for (uint32_t left = s->items; left > 0;) {
        const uint32_t before = left;
        if (!advance(s, part, &left)) {
            return true;
        }
        const uint64_t work = s->work;
        s->work = 0;
        if (!plan_spend(budget, before - left, work) && !taste->whole) {
            return true;
        }
    }
    (void)umo_plan_part_offer(part, s->offsets);
    return true;
}

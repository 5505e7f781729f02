/*
 * See glue.h. Three ways to fit: one ends where another of the same size begins; both are in use at
 * the same time exactly; five of them go round a sixth place, a pinwheel, which no straight cut
 * makes. The first is surer than the second, which is surer than none: they are tried in this
 * order.
 */
#include "plan/glue.h"

#include "base/hash.h"

#include <assert.h>
#include <stdlib.h>

#define NONE UINT32_MAX
/* Pairs looked at for one pinwheel. */
#define PINWHEEL_PAIRS 64u
/* Steps of gluing, for each buffer and at least. */
#define WORK_ITEM 10000u
#define WORK_LEAST 1000000u
#define TELL_WORK 16384u
/* Buffers of which sums are made to find a stack. */
#define STACK_NODES 8u
#define STACK_SUMS (1u << STACK_NODES)

/* A buffer, or several that were glued: those have it as parent. */
typedef struct node {
    int64_t size;
    int64_t above_parent; /* where it lies in its parent */
    uint32_t lo;
    uint32_t hi;
    uint32_t parent;
} node;

typedef struct unsure_pair {
    uint32_t length;
    uint32_t node;
} unsure_pair;

/* What nodes are found by. */
typedef enum table_key {
    BY_BEGIN, /* and size */
    BY_END,   /* and size */
    BY_TIME,  /* begin and end */
    BY_LO,    /* begin alone */
    BY_HI,    /* end alone */
    TABLES
} table_key;

struct plan_glue {
    plan_gluing how;
    plan_part part; /* its items' indices are nodes */
    node *nodes;
    uint32_t count;
    uint32_t leaves;
    uint32_t *slots[TABLES];
    uint32_t *next[TABLES];
    uint32_t mask;
    uint32_t *queue; /* nodes that may find another in time; those that were looked at follow */
    uint32_t queued;
    uint32_t *stacks; /* nodes that may be put on another */
    uint32_t stacked;
    unsure_pair *unsure; /* that could be put on another, without a sign that they should */
    uint32_t unsure_count;
    int64_t *offsets;
    uint64_t work;
    uint64_t work_max;
    uint64_t told; /* of the work, to the budget */
};

static uint64_t key_of(const node *n, table_key by)
{
    switch (by) {
    case BY_BEGIN:
        return umo_hash_mix(n->lo, (uint64_t)n->size);
    case BY_END:
        return umo_hash_mix(n->hi, (uint64_t)n->size);
    case BY_LO:
        return umo_hash_mix(n->lo, 0);
    case BY_HI:
        return umo_hash_mix(n->hi, 0);
    case BY_TIME:
    case TABLES:
        break;
    }
    return umo_hash_mix(n->lo, n->hi);
}

static bool alike(const node *a, const node *b, table_key by)
{
    return (by == BY_END || by == BY_HI || a->lo == b->lo) &&
           (by == BY_BEGIN || by == BY_LO || a->hi == b->hi) &&
           (by == BY_TIME || by == BY_LO || by == BY_HI || a->size == b->size);
}

/* The first node that is like `wanted` in this, and is not part of another. */
static uint32_t find(plan_glue *g, const node *wanted, table_key by, uint32_t but)
{
    uint32_t *link = &g->slots[by][key_of(wanted, by) & g->mask];
    while (*link != NONE) {
        const uint32_t at = *link;
        g->work++;
        if (g->nodes[at].parent != NONE) {
            *link = g->next[by][at]; /* for good */
            continue;
        }
        if (at != but && alike(&g->nodes[at], wanted, by)) {
            return at;
        }
        link = &g->next[by][at];
    }
    return NONE;
}

/* From now on it is found, and looks for others. */
static void node_show(plan_glue *g, uint32_t at)
{
    for (table_key by = BY_BEGIN; by < TABLES; by++) {
        uint32_t *slot = &g->slots[by][key_of(&g->nodes[at], by) & g->mask];
        g->next[by][at] = *slot;
        *slot = at;
    }
    g->queue[g->queued++] = at;
}

static uint32_t node_add(plan_glue *g, uint32_t lo, uint32_t hi, int64_t size)
{
    const uint32_t at = g->count++;
    g->nodes[at] = (node){.size = size, .lo = lo, .hi = hi, .parent = NONE};
    node_show(g, at);
    return at;
}

static void node_join(plan_glue *g, uint32_t child, uint32_t parent, int64_t above)
{
    g->nodes[child].parent = parent;
    g->nodes[child].above_parent = above;
}

/* Nodes that could lie on each other, and the sums of all ways to choose two or more of them. */
typedef struct stack {
    uint32_t nodes[STACK_NODES];
    uint32_t count;
} stack;

/* The nodes like `wanted` in this, the given one first; those beyond STACK_NODES are left out. */
static void stack_collect(plan_glue *g, const node *wanted, table_key by, uint32_t first,
                          stack *out)
{
    out->count = 0;
    if (first != NONE) {
        out->nodes[out->count++] = first;
    }
    for (uint32_t at = g->slots[by][key_of(wanted, by) & g->mask];
         at != NONE && out->count < STACK_NODES; at = g->next[by][at]) {
        g->work++;
        if (at != first && g->nodes[at].parent == NONE && alike(&g->nodes[at], wanted, by)) {
            out->nodes[out->count++] = at;
        }
    }
}

/* The sums of all choices from a stack; -1 for those beyond 63 bits. */
static void stack_sums(plan_glue *g, const stack *st, int64_t *sums)
{
    sums[0] = 0;
    for (uint32_t k = 0; k < st->count; k++) {
        const int64_t size = g->nodes[st->nodes[k]].size;
        for (uint32_t chosen = 0; chosen < UINT32_C(1) << k; chosen++) {
            const int64_t below = sums[chosen];
            sums[chosen | UINT32_C(1) << k] =
                below < 0 || size > INT64_MAX - below ? -1 : below + size;
        }
    }
    g->work += UINT32_C(1) << st->count;
}

static void stack_glue(plan_glue *g, const stack *st, uint32_t chosen, int64_t sum)
{
    uint32_t all = NONE;
    int64_t above = 0;
    for (uint32_t k = 0; k < st->count; k++) {
        if ((chosen >> k & 1) != 0) {
            const uint32_t i = st->nodes[k];
            all = all != NONE ? all : node_add(g, g->nodes[i].lo, g->nodes[i].hi, sum);
            node_join(g, i, all, above);
            above += g->nodes[i].size;
        }
    }
}

/* Which sums there are, but for chance: a bit for each. */
#define FILTER_WORDS 16u
static uint64_t *filter_word(uint64_t *filter, int64_t sum, uint64_t *bit)
{
    const uint64_t mixed = (uint64_t)sum * UINT64_C(0x9e3779b97f4a7c15);
    *bit = UINT64_C(1) << (mixed >> 58);
    return &filter[mixed >> 54 & (FILTER_WORDS - 1)];
}

/* The same against stacks of what comes after, or before: both sides are glued. */
static bool stack_confirm_beside(plan_glue *g, const stack *own, const int64_t *sums,
                                 uint64_t *filter, bool after)
{
    const node *n = &g->nodes[own->nodes[0]];
    const node beside = {.lo = n->hi, .hi = n->lo};
    const table_key by = after ? BY_LO : BY_HI;
    uint32_t seen = 0;
    for (uint32_t at = g->slots[by][key_of(&beside, by) & g->mask];
         at != NONE && seen < g->how.beside; at = g->next[by][at]) {
        g->work++;
        if (g->nodes[at].parent != NONE || !alike(&g->nodes[at], &beside, by)) {
            continue;
        }
        seen++;
        stack other; /* those with `at` as their first, so that each is met once */
        int64_t their_sums[STACK_SUMS];
        stack_collect(g, &g->nodes[at], BY_TIME, at, &other);
        stack_sums(g, &other, their_sums);
        for (uint32_t theirs = 3; theirs < UINT32_C(1) << other.count; theirs += 2) {
            uint64_t bit;
            if (their_sums[theirs] < 0 ||
                (*filter_word(filter, their_sums[theirs], &bit) & bit) == 0) {
                continue;
            }
            for (uint32_t chosen = 3; chosen < UINT32_C(1) << own->count; chosen += 2) {
                if (sums[chosen] == their_sums[theirs]) {
                    stack_glue(g, own, chosen, sums[chosen]);
                    stack_glue(g, &other, theirs, sums[chosen]);
                    return true;
                }
            }
        }
    }
    return false;
}

/* Puts node a on others if together they are as large as what comes before or after them. False if
 * there are such others, and no sign. */
static bool stack_confirm(plan_glue *g, uint32_t a)
{
    const node n = g->nodes[a];
    stack own;
    stack_collect(g, &n, BY_TIME, a, &own);
    if (own.count < 2) {
        return true;
    }
    int64_t sums[STACK_SUMS];
    uint64_t filter[FILTER_WORDS] = {0};
    stack_sums(g, &own, sums);
    for (uint32_t chosen = 3; chosen < UINT32_C(1) << own.count; chosen += 2) {
        if (sums[chosen] < 0) {
            continue;
        }
        uint64_t bit;
        uint64_t *word = filter_word(filter, sums[chosen], &bit);
        *word |= bit;
        const node after = {.size = sums[chosen], .lo = n.hi};
        const node before = {.size = sums[chosen], .hi = n.lo};
        if (find(g, &after, BY_BEGIN, NONE) != NONE || find(g, &before, BY_END, NONE) != NONE) {
            stack_glue(g, &own, chosen, sums[chosen]);
            return true;
        }
    }
    return stack_confirm_beside(g, &own, sums, filter, true) ||
           stack_confirm_beside(g, &own, sums, filter, false);
}

/* Tells the budget what was done, now and then. */
static bool glue_goes_on(plan_glue *g, plan_budget *budget)
{
    if (g->work - g->told >= TELL_WORK) {
        (void)plan_spend(budget, 0, g->work - g->told);
        g->told = g->work;
    }
    return !budget->over && g->work < g->work_max;
}

/* Glues what is sure: what follows each other, then stacks that something follows or precedes. */
static void sure_glue(plan_glue *g, plan_budget *budget)
{
    while ((g->queued > 0 || g->stacked > 0) && glue_goes_on(g, budget)) {
        const bool in_time = g->queued > 0;
        const uint32_t a = in_time ? g->queue[--g->queued] : g->stacks[--g->stacked];
        const node n = g->nodes[a];
        if (n.parent != NONE) {
            continue;
        }
        if (!in_time) {
            const bool doubted = umo_hash_mix(g->how.seed, a) % 100 < g->how.doubt;
            if (doubted || !stack_confirm(g, a)) {
                g->unsure[g->unsure_count++] = (unsure_pair){n.hi - n.lo, a};
            }
            continue;
        }
        const node after = {.size = n.size, .lo = n.hi};
        const node before = {.size = n.size, .hi = n.lo};
        uint32_t b = find(g, &after, BY_BEGIN, a);
        b = b != NONE ? b : find(g, &before, BY_END, a);
        if (b == NONE) {
            g->stacks[g->stacked++] = a;
            continue;
        }
        const node *m = &g->nodes[b];
        const uint32_t both =
            node_add(g, n.lo < m->lo ? n.lo : m->lo, n.hi > m->hi ? n.hi : m->hi, n.size);
        node_join(g, a, both, 0);
        node_join(g, b, both, 0);
    }
}

static int unsure_compare(const void *left, const void *right)
{
    const unsure_pair *a = left;
    const unsure_pair *b = right;
    if (a->length != b->length) {
        return a->length > b->length ? -1 : 1;
    }
    return a->node < b->node ? -1 : a->node > b->node;
}

/* Puts those on each other that are longest in use, which are the least so by chance; a few at a
 * time, as each may make others sure. */
static bool unsure_glue(plan_glue *g)
{
    uint32_t kept = 0;
    for (uint32_t k = 0; k < g->unsure_count; k++) {
        const uint32_t a = g->unsure[k].node;
        const node *n = &g->nodes[a];
        if (n->parent == NONE && find(g, n, BY_TIME, a) != NONE) {
            g->unsure[kept++] = (unsure_pair){n->hi - n->lo, a};
        }
    }
    g->unsure_count = kept;
    qsort(g->unsure, kept, sizeof *g->unsure, unsure_compare);
    bool glued = false;
    for (uint32_t k = 0; k < (kept + g->how.unsure_part - 1) / g->how.unsure_part; k++) {
        const uint32_t a = g->unsure[k].node;
        const node n = g->nodes[a];
        const uint32_t b = n.parent == NONE ? find(g, &n, BY_TIME, a) : NONE;
        if (b != NONE && g->nodes[b].size <= INT64_MAX - n.size) {
            const uint32_t both = node_add(g, n.lo, n.hi, n.size + g->nodes[b].size);
            node_join(g, a, both, 0);
            node_join(g, b, both, n.size);
            glued = true;
        }
    }
    return glued;
}

/* Nodes that begin, or end, at each section; a pinwheel is found from its middle. */
typedef struct edges {
    uint32_t *first; /* one more than sections */
    uint32_t *nodes;
} edges;

static bool edges_init(edges *e, const plan_glue *g, bool ends)
{
    const uint32_t sections = g->part.sections;
    e->first = calloc((size_t)sections + 2, sizeof *e->first);
    e->nodes = calloc(g->count, sizeof *e->nodes);
    if (e->first == NULL || e->nodes == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        if (g->nodes[i].parent == NONE) {
            e->first[(ends ? g->nodes[i].hi : g->nodes[i].lo) + 1]++;
        }
    }
    for (uint32_t q = 0; q <= sections; q++) {
        e->first[q + 1] += e->first[q];
    }
    for (uint32_t i = g->count; i-- > 0;) {
        if (g->nodes[i].parent == NONE) {
            const uint32_t at = ends ? g->nodes[i].hi : g->nodes[i].lo;
            e->nodes[--e->first[at + 1]] = i;
        }
    }
    /* Each first is now that of the section before it. */
    for (uint32_t q = 0; q <= sections; q++) {
        e->first[q] = e->first[q + 1];
    }
    uint32_t live = 0;
    for (uint32_t i = 0; i < g->count; i++) {
        live += g->nodes[i].parent == NONE ? 1 : 0;
    }
    e->first[sections + 1] = live;
    return true;
}

static uint32_t edge_next(const plan_glue *g, const edges *e, uint32_t q, uint32_t *at,
                          uint32_t but)
{
    for (; *at < e->first[q + 1]; (*at)++) {
        const uint32_t i = e->nodes[*at];
        if (i != but && g->nodes[i].parent == NONE) {
            return i;
        }
    }
    return NONE;
}

/*
 * Two on one side of the middle: one that ends at it and one that begins at it, where `longer` is
 * as large as the other and the middle together. The other two are then known but for their sizes:
 *
 *      left  = [a, x1)   left.size  = middle.size + upper.size
 *      upper = [x1, b)
 *      lower = [a, x2)
 *      right = [x2, b)   right.size = lower.size + middle.size
 *
 * and the same upside down, which is another order of time only.
 */
static bool pinwheel_close(plan_glue *g, const edges *ends, uint32_t middle, uint32_t left,
                           uint32_t upper)
{
    const node *m = &g->nodes[middle];
    uint32_t at = ends->first[m->hi];
    for (unsigned turn = 0; turn < PINWHEEL_PAIRS; turn++, at++) {
        const uint32_t lower = edge_next(g, ends, m->hi, &at, middle);
        if (lower == NONE) {
            return false;
        }
        g->work++;
        const node *low = &g->nodes[lower];
        if (low->lo != g->nodes[left].lo || low->size > INT64_MAX - m->size) {
            continue;
        }
        const node wanted = {.lo = m->hi, .size = low->size + m->size};
        const uint32_t right = find(g, &wanted, BY_BEGIN, NONE);
        if (right == NONE || g->nodes[right].hi != g->nodes[upper].hi ||
            low->size > INT64_MAX - g->nodes[left].size) {
            continue;
        }
        const int64_t step = low->size;
        const int64_t top = g->nodes[right].size;
        const uint32_t all = node_add(g, low->lo, g->nodes[right].hi, step + g->nodes[left].size);
        node_join(g, lower, all, 0);
        node_join(g, left, all, step);
        node_join(g, middle, all, step);
        node_join(g, right, all, 0);
        node_join(g, upper, all, top);
        return true;
    }
    return false;
}

/* Whether there is one around this middle. */
static bool pinwheel_find(plan_glue *g, const edges *begins, const edges *ends, uint32_t middle)
{
    const node *m = &g->nodes[middle];
    uint32_t at = begins->first[m->lo];
    for (unsigned turn = 0; turn < PINWHEEL_PAIRS; turn++, at++) {
        const uint32_t upper = edge_next(g, begins, m->lo, &at, middle);
        if (upper == NONE) {
            return false;
        }
        if (g->nodes[upper].hi <= m->hi || g->nodes[upper].size > INT64_MAX - m->size) {
            continue;
        }
        const node wanted = {.hi = m->lo, .size = g->nodes[upper].size + m->size};
        const uint32_t left = find(g, &wanted, BY_END, NONE);
        if (left != NONE && pinwheel_close(g, ends, middle, left, upper)) {
            return true;
        }
    }
    return false;
}

/* False when there was none, or memory is out. */
static bool pinwheels_glue(plan_glue *g)
{
    edges begins = {0};
    edges ends = {0};
    bool found = false;
    if (edges_init(&begins, g, false) && edges_init(&ends, g, true)) {
        const uint32_t count = g->count;
        for (uint32_t i = 0; i < count; i++) {
            found = (g->nodes[i].parent == NONE && pinwheel_find(g, &begins, &ends, i)) || found;
        }
    }
    free(begins.first);
    free(begins.nodes);
    free(ends.first);
    free(ends.nodes);
    return found;
}

static bool glue_room_make(plan_glue *g, const plan_part *part)
{
    assert(part->count > 0);
    const size_t room = 2 * (size_t)part->count;
    uint32_t slots = 1;
    while (slots < part->count) {
        slots *= 2;
    }
    g->mask = slots - 1;
    g->nodes = calloc(room, sizeof *g->nodes);
    g->queue = calloc(room, sizeof *g->queue);
    g->stacks = calloc(room, sizeof *g->stacks);
    g->unsure = calloc(room, sizeof *g->unsure);
    g->offsets = calloc(room, sizeof *g->offsets);
    bool made = g->nodes != NULL && g->queue != NULL && g->stacks != NULL && g->unsure != NULL &&
                g->offsets != NULL;
    for (table_key by = BY_BEGIN; by < TABLES; by++) {
        g->slots[by] = calloc(slots, sizeof(uint32_t));
        g->next[by] = calloc(room, sizeof(uint32_t));
        made = made && g->slots[by] != NULL && g->next[by] != NULL;
        for (uint32_t i = 0; g->slots[by] != NULL && i < slots; i++) {
            g->slots[by][i] = NONE;
        }
    }
    return made;
}

/* The nodes that are in no other, as a part of their own. */
static bool part_fill(plan_glue *g, const plan_part *part)
{
    g->part = *part;
    g->part.count = 0;
    g->part.list_entries = 0;
    g->part.planned = false;
    g->part.items = calloc(g->count, sizeof *g->part.items);
    g->part.offsets = calloc(g->count, sizeof *g->part.offsets);
    if (g->part.items == NULL || g->part.offsets == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < g->count; i++) {
        const node *n = &g->nodes[i];
        if (n->parent == NONE) {
            g->part.items[g->part.count++] = (plan_item){.size = n->size,
                                                         .padded = n->size,
                                                         .align = part->grain,
                                                         .lo = n->lo,
                                                         .hi = n->hi,
                                                         .index = i};
            g->part.list_entries += n->hi - n->lo;
        }
    }
    umo_plan_items_sort(&g->part);
    return true;
}

/* The items, in an order by the seed: of several that fit, the last one is found. */
static void leaves_add(plan_glue *g, const plan_part *part, uint64_t seed)
{
    uint64_t random = umo_hash_mix(seed, UINT64_C(0x2127599bf4325c37)) | 1;
    uint32_t *order = g->stacks; /* empty yet */
    for (uint32_t i = 0; i < part->count; i++) {
        const plan_item *item = &part->items[i];
        g->nodes[i] = (node){.size = item->size, .lo = item->lo, .hi = item->hi, .parent = NONE};
        const uint32_t j = (uint32_t)(plan_random(&random) % (i + 1));
        order[i] = order[j];
        order[j] = i;
    }
    g->count = part->count;
    for (uint32_t k = 0; k < part->count; k++) {
        node_show(g, order[k]);
    }
}

plan_glue *umo_plan_glue_create(const plan_part *part, const plan_gluing *how, plan_budget *budget)
{
    for (uint32_t i = 0; i < part->count; i++) {
        const plan_item *item = &part->items[i];
        if (item->padded != item->size || item->align != part->grain) {
            return NULL; /* what is glued would need other alignments inside */
        }
    }
    plan_glue *g = calloc(1, sizeof *g);
    if (g == NULL || !glue_room_make(g, part)) {
        umo_plan_glue_destroy(g);
        return NULL;
    }
    g->leaves = part->count;
    g->how = *how;
    g->work_max = WORK_LEAST + (uint64_t)WORK_ITEM * part->count;
    g->part.sections = part->sections;
    leaves_add(g, part, how->seed);
    bool more = true;
    while (more && glue_goes_on(g, budget)) {
        sure_glue(g, budget);
        more = glue_goes_on(g, budget) && (pinwheels_glue(g) || unsure_glue(g));
    }
    (void)plan_spend(budget, 0, g->work - g->told);
    if (g->count == g->leaves || !part_fill(g, part)) {
        umo_plan_glue_destroy(g);
        return NULL;
    }
    return g;
}

void umo_plan_glue_destroy(plan_glue *g)
{
    if (g == NULL) {
        return;
    }
    for (table_key by = BY_BEGIN; by < TABLES; by++) {
        free(g->slots[by]);
        free(g->next[by]);
    }
    free(g->nodes);
    free(g->queue);
    free(g->stacks);
    free(g->unsure);
    free(g->offsets);
    free(g->part.items);
    free(g->part.offsets);
    free(g);
}

plan_part *umo_plan_glue_part(plan_glue *g)
{
    return &g->part;
}

bool umo_plan_glue_offer(plan_glue *g, plan_part *part)
{
    if (!g->part.planned) {
        return false;
    }
    for (uint32_t i = 0; i < g->part.count; i++) {
        g->offsets[g->part.items[i].index] = g->part.offsets[i];
    }
    /* A parent is younger than what it is glued from. */
    for (uint32_t i = g->count; i-- > 0;) {
        const node *n = &g->nodes[i];
        if (n->parent != NONE) {
            g->offsets[i] = g->offsets[n->parent] + n->above_parent;
        }
    }
    return umo_plan_part_offer(part, g->offsets);
}

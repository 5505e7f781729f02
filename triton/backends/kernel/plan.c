/*
 * See plan.h. The items that have their place are kept in the order of their offsets, so that one
 * walk over them finds every gap.
 */
#include "plan.h"

#include <umo/plan.h>

#include <stdint.h>

/* Nodes of a search, and searches of an instance: its traffic costs no more than 0.1 s in all. */
#define SEARCH_NODES 2000u
#define SEARCHES_MAX 64u

typedef struct planner {
    umo_plan_item *items;
    size_t align_bytes;
    size_t placed[UMO_PLAN_ITEMS_MAX]; /* items by offset */
    size_t placed_count;
} planner;

static bool round_up(size_t bytes, size_t align_bytes, size_t *out)
{
    if (__builtin_add_overflow(bytes, align_bytes - 1, out)) {
        return false;
    }
    *out &= ~(align_bytes - 1);
    return true;
}

static bool meet(const umo_plan_item *a, const umo_plan_item *b)
{
    return a->first <= b->last && b->first <= a->last;
}

/* The tightest gap that holds the item, else the first byte behind all that it meets. */
static bool find_place(const planner *p, umo_plan_item *item)
{
    size_t best = SIZE_MAX; /* bytes of the gap */
    size_t end = 0;         /* of what the item meets so far */
    for (size_t i = 0; i < p->placed_count; i++) {
        const umo_plan_item *other = &p->items[p->placed[i]];
        if (!meet(item, other)) {
            continue;
        }
        if (other->offset_bytes > end) {
            const size_t gap = other->offset_bytes - end;
            if (gap >= item->size_bytes && gap < best) {
                best = gap;
                item->offset_bytes = end;
            }
        }
        const size_t other_end = other->offset_bytes + other->size_bytes;
        /* The item behind it starts aligned. */
        size_t aligned;
        if (!round_up(other_end, p->align_bytes, &aligned)) {
            return false;
        }
        end = end > aligned ? end : aligned;
    }
    if (best == SIZE_MAX) {
        item->offset_bytes = end;
    }
    return item->size_bytes <= SIZE_MAX - item->offset_bytes;
}

static void insert(planner *p, size_t index)
{
    size_t at = p->placed_count++;
    while (at > 0 && p->items[p->placed[at - 1]].offset_bytes > p->items[index].offset_bytes) {
        p->placed[at] = p->placed[at - 1];
        at--;
    }
    p->placed[at] = index;
}

/* The longest item that has no place yet; the first of several, so that a plan is always the same.
 */
static size_t longest(const umo_plan_item *items, size_t count, uint32_t done)
{
    size_t found = count;
    for (size_t i = 0; i < count; i++) {
        if ((done >> i & 1) == 0 &&
            (found == count || items[i].size_bytes > items[found].size_bytes)) {
            found = i;
        }
    }
    return found;
}

bool umo_plan_pack(umo_plan_item *items, size_t count, size_t align_bytes, size_t *out_bytes)
{
    planner p = {.items = items, .align_bytes = align_bytes};
    uint32_t done = 0;
    size_t bytes = 0;
    for (size_t turn = 0; turn < count; turn++) {
        const size_t index = longest(items, count, done);
        umo_plan_item *item = &items[index];
        done |= UINT32_C(1) << index;
        item->offset_bytes = 0;
        if (item->size_bytes == 0) {
            continue;
        }
        if (!find_place(&p, item)) {
            return false;
        }
        insert(&p, index);
        const size_t end = item->offset_bytes + item->size_bytes;
        bytes = bytes > end ? bytes : end;
    }
    *out_bytes = bytes;
    return true;
}

/* Whether no plan can be shorter: as many bytes live at one step. */
static bool at_bound(const umo_plan_item *items, size_t count, size_t align_bytes, size_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        size_t live = 0; /* where an item begins, at one of which the most live */
        for (size_t k = 0; k < count; k++) {
            size_t padded;
            if (items[k].first <= items[i].first && items[i].first <= items[k].last &&
                round_up(items[k].size_bytes, align_bytes, &padded)) {
                live += padded; /* a plan of them all fits: no overflow */
            }
        }
        if (live >= bytes) {
            return true;
        }
    }
    return false;
}

/* A shorter plan, if the library finds one. */
static void improve(umo_plan_item *items, size_t count, size_t align_bytes, size_t *bytes)
{
    umo_plan_buffer buffers[UMO_PLAN_ITEMS_MAX];
    int64_t offsets[UMO_PLAN_ITEMS_MAX];
    size_t owners[UMO_PLAN_ITEMS_MAX];
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (items[i].size_bytes > 0) {
            buffers[used] = (umo_plan_buffer){.lower = (int64_t)items[i].first,
                                              .upper = (int64_t)items[i].last + 1,
                                              .size_bytes = items[i].size_bytes,
                                              .align_bytes = align_bytes};
            owners[used++] = i;
        }
    }
    umo_plan_options options;
    umo_plan_options_init(&options);
    options.time_limit_ns = 0; /* the same places on every machine */
    options.node_limit = SEARCH_NODES;
    umo_plan_result result;
    if (umo_plan(buffers, used, &options, offsets, &result, NULL) != UMO_OK ||
        (uint64_t)result.peak_bytes >= *bytes) {
        return;
    }
    for (size_t k = 0; k < used; k++) {
        items[owners[k]].offset_bytes = (size_t)offsets[k];
    }
    *bytes = (size_t)result.peak_bytes;
}

static bool sizes_equal(const umo_plan_layout *layout, const umo_plan_item *items, size_t count)
{
    bool equal = layout->count == count;
    for (size_t i = 0; i < count && equal; i++) {
        equal = layout->sizes[i] == items[i].size_bytes;
    }
    return equal;
}

bool umo_plan_pack_kept(umo_plan_kept *kept, umo_plan_item *items, size_t count, size_t align_bytes,
                        size_t *out_bytes)
{
    for (size_t k = 0; k < UMO_PLAN_LAYOUTS && count > 0; k++) {
        const umo_plan_layout *layout = &kept->layouts[k];
        if (sizes_equal(layout, items, count)) {
            for (size_t i = 0; i < count; i++) {
                items[i].offset_bytes = layout->offsets[i];
            }
            *out_bytes = layout->bytes;
            return true;
        }
    }
    size_t bytes = 0;
    if (!umo_plan_pack(items, count, align_bytes, &bytes)) {
        return false;
    }
    if (kept->searches < SEARCHES_MAX && !at_bound(items, count, align_bytes, bytes)) {
        kept->searches++;
        improve(items, count, align_bytes, &bytes);
    }
    umo_plan_layout *layout = &kept->layouts[kept->next];
    kept->next = (kept->next + 1) % UMO_PLAN_LAYOUTS;
    layout->count = count;
    layout->bytes = bytes;
    for (size_t i = 0; i < count; i++) {
        layout->sizes[i] = items[i].size_bytes;
        layout->offsets[i] = items[i].offset_bytes;
    }
    *out_bytes = bytes;
    return true;
}

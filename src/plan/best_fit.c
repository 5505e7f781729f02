/*
 * See build.h. The items that are placed are kept in the order of their offsets, so that one walk
 * finds every gap.
 */
#include "plan/build.h"
#include "plan/order.h"

#include <stdlib.h>
#include <string.h>

typedef struct packer {
    const plan_part *part;
    int64_t *offsets;
    uint32_t *sorted; /* items placed, by offset */
    uint32_t count;
    bool lowest;
    uint64_t work;
} packer;

/* The tightest gap that holds the item, or the lowest; else the first byte above all that it meets.
 */
static int64_t place_find(packer *p, const plan_item *item)
{
    int64_t best = -1;
    int64_t best_gap = INT64_MAX;
    int64_t end = 0; /* of what the item meets so far, aligned */
    for (uint32_t k = 0; k < p->count; k++) {
        const uint32_t other_index = p->sorted[k];
        const plan_item *other = &p->part->items[other_index];
        if (other->hi <= item->lo || item->hi <= other->lo) {
            continue;
        }
        const int64_t offset = p->offsets[other_index];
        if (offset > end && offset - end >= item->size && offset - end < best_gap) {
            best = end;
            best_gap = offset - end;
            if (p->lowest || best_gap == item->size) {
                p->work += k;
                return best;
            }
        }
        const int64_t top = plan_round_up(plan_add(offset, other->size), item->align);
        end = top > end ? top : end;
    }
    p->work += p->count;
    return best >= 0 ? best : end;
}

static void insert(packer *p, uint32_t item)
{
    uint32_t low = 0;
    uint32_t high = p->count;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (p->offsets[p->sorted[middle]] <= p->offsets[item]) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    memmove(p->sorted + low + 1, p->sorted + low, (p->count - low) * sizeof *p->sorted);
    p->sorted[low] = item;
    p->count++;
}

umo_status umo_plan_best_fit(plan_part *part, plan_order order, bool lowest, plan_budget *budget)
{
    umo_status status = UMO_E_NOMEM;
    packer p = {.part = part, .lowest = lowest};
    p.offsets = calloc(part->count, sizeof *p.offsets);
    p.sorted = calloc(part->count, sizeof *p.sorted);
    plan_ranked *ranked = calloc(part->count, sizeof *ranked);
    if (p.offsets == NULL || p.sorted == NULL || ranked == NULL ||
        !umo_plan_rank(part, order, 0, 0, ranked)) {
        goto done;
    }
    status = UMO_OK;
    for (uint32_t i = 0; i < part->count; i++) {
        const uint32_t index = ranked[i].item;
        const plan_item *item = &part->items[index];
        p.offsets[index] = place_find(&p, item);
        if (item->size > INT64_MAX - p.offsets[index]) {
            goto done; /* beyond 63 bits: not a plan */
        }
        insert(&p, index);
        const uint64_t work = p.work;
        p.work = 0;
        if (!plan_spend(budget, 1, work)) {
            goto done;
        }
    }
    (void)umo_plan_part_offer(part, p.offsets);

done:
    free(p.offsets);
    free(p.sorted);
    free(ranked);
    return status;
}

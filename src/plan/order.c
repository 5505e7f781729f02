/*
 * See order.h. Equal ranks are in the order of the items, so that an order is always the same.
 */
#include "plan/order.h"

#include "base/hash.h"

#include <stdlib.h>

static int ranked_compare(const void *left, const void *right)
{
    const plan_ranked *a = left;
    const plan_ranked *b = right;
    if (a->rank != b->rank) {
        return a->rank > b->rank ? -1 : 1;
    }
    return a->item < b->item ? -1 : a->item > b->item;
}

/* Bytes in use in the fullest section that each item is over, by a sparse table of maxima. */
static bool fullest_find(const plan_part *part, double *out)
{
    unsigned levels = 1;
    while (UINT32_C(1) << levels <= part->sections) {
        levels++;
    }
    double *table = calloc((size_t)levels * (part->sections + 1), sizeof *table);
    if (table == NULL) {
        return false;
    }
    const size_t stride = part->sections + 1;
    for (uint32_t i = 0; i < part->count; i++) {
        table[part->items[i].lo] += (double)part->items[i].padded;
        table[part->items[i].hi] -= (double)part->items[i].padded;
    }
    for (uint32_t q = 1; q < part->sections; q++) {
        table[q] += table[q - 1];
    }
    for (unsigned level = 1; level < levels; level++) {
        const double *below = table + (level - 1) * stride;
        for (uint32_t q = 0; q + (UINT32_C(1) << level) <= part->sections; q++) {
            const double other = below[q + (UINT32_C(1) << (level - 1))];
            table[level * stride + q] = below[q] > other ? below[q] : other;
        }
    }
    for (uint32_t i = 0; i < part->count; i++) {
        const uint32_t length = part->items[i].hi - part->items[i].lo;
        unsigned level = 0;
        while (UINT32_C(2) << level <= length) {
            level++;
        }
        const double a = table[level * stride + part->items[i].lo];
        const double b = table[level * stride + part->items[i].hi - (UINT32_C(1) << level)];
        out[i] = a > b ? a : b;
    }
    free(table);
    return true;
}

bool umo_plan_rank(const plan_part *part, plan_order order, unsigned noise, uint64_t seed,
                   plan_ranked *out)
{
    double *fullest = NULL;
    if (order == PLAN_ORDER_REST) {
        fullest = calloc(part->count, sizeof *fullest);
        if (fullest == NULL || !fullest_find(part, fullest)) {
            free(fullest);
            return false;
        }
    }
    uint64_t random = umo_hash_mix(seed, UINT64_C(0x2545f4914f6cdd1d)) | 1;
    for (uint32_t i = 0; i < part->count; i++) {
        const plan_item *item = &part->items[i];
        const double length = (double)(item->hi - item->lo);
        const double size = (double)item->size;
        double rank = 0;
        switch (order) {
        case PLAN_ORDER_AREA:
            rank = size * length;
            break;
        case PLAN_ORDER_LENGTH:
            rank = length + size / 0x1p63;
            break;
        case PLAN_ORDER_LOWER:
            rank = (double)(part->sections - item->lo);
            break;
        case PLAN_ORDER_REST:
            rank = fullest[i] + size;
            break;
        case PLAN_ORDER_SIZE:
        case PLAN_ORDERS:
            rank = size;
            break;
        }
        const double part_of_one = (double)(plan_random(&random) >> 11) * 0x1p-53 - 0.5;
        out[i] = (plan_ranked){rank * (1 + part_of_one * noise / 100.0), i};
    }
    free(fullest);
    qsort(out, part->count, sizeof *out, ranked_compare);
    return true;
}

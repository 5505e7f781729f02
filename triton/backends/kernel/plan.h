/*
 * Where memory with known lifetimes lies in one block.
 *
 * Two items whose lifetimes meet never share a byte; all others may. Pure arithmetic over memory of
 * the caller, cheap enough to be done for every batch, whose shapes decide the sizes. Nothing else
 * in this folder knows how the offsets are found.
 */
#ifndef UMO_KERNEL_PLAN_H
#define UMO_KERNEL_PLAN_H

#include <stdbool.h>
#include <stddef.h>

#define UMO_PLAN_ITEMS_MAX 32u

/* In use from step first to step last, both included. */
typedef struct umo_plan_item {
    size_t size_bytes;
    size_t first;
    size_t last;
    size_t offset_bytes; /* found by umo_plan_pack(); 0 for an item without bytes */
} umo_plan_item;

/*
 * Gives each of at most UMO_PLAN_ITEMS_MAX items an offset, a multiple of align_bytes (a power of
 * two), and says how long the block is. False when that fits no size_t.
 *
 * Source: Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020),
 * greedy by size for offset calculation: the largest first, each into the tightest gap that holds
 * it.
 */
bool umo_plan_pack(umo_plan_item *items, size_t count, size_t align_bytes, size_t *out_bytes);

#endif

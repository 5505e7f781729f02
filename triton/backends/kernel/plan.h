/*
 * Where memory with known lifetimes lies in one block.
 *
 * Two items whose lifetimes meet never share a byte; all others may. A batch's shapes decide the
 * sizes; those of the last batches keep their places, new ones are packed greedily, and where that
 * takes more than has to be, libumo's planner is asked. Nothing else in this folder knows how the
 * offsets are found.
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

/* Different sizes of which the places are kept. */
#define UMO_PLAN_LAYOUTS 8u

typedef struct umo_plan_layout {
    size_t count; /* 0: none */
    size_t bytes;
    size_t sizes[UMO_PLAN_ITEMS_MAX];
    size_t offsets[UMO_PLAN_ITEMS_MAX];
} umo_plan_layout;

/* Of one instance of a model, whose items differ in nothing but their sizes. Begins zeroed. */
typedef struct umo_plan_kept {
    umo_plan_layout layouts[UMO_PLAN_LAYOUTS];
    size_t next;       /* the one that is overwritten next */
    unsigned searches; /* that were made; there is a limit, so that no traffic makes more */
} umo_plan_kept;

/*
 * The same, at places kept from before if there are any for these sizes, else as close to what
 * lives at once as umo_plan() comes in a millisecond or two. Known sizes: nothing is allocated.
 */
bool umo_plan_pack_kept(umo_plan_kept *kept, umo_plan_item *items, size_t count, size_t align_bytes,
                        size_t *out_bytes);

#endif

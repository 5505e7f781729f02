/*
 * Memory between a model's kernels: one block a batch, in which each intermediate has the place
 * that its lifetime allows, taken from a pool of the model and given back with the batch's fence.
 *
 * What a block held before stays in it: the bytes of an earlier batch, perhaps of another client.
 * So the description lets nothing be read that was not written, unless it is cleared first.
 */
#ifndef UMO_KERNEL_INTERMEDIATES_H
#define UMO_KERNEL_INTERMEDIATES_H

#include "launch.h"
#include "plan.h"

#include <umo/pool.h>

/* Of a model, used by all its instances, or of one whose memory has a node. Zeroed means that there
 * are none. */
typedef struct umo_intermediates {
    umo_pool *pool;
    size_t align_bytes;
} umo_intermediates;

/* One batch's block. Zeroed means none. */
typedef struct umo_intermediates_block {
    umo_buffer *buffer;
    umo_access access;
} umo_intermediates_block;

/* Errors: as umo_pool_create() and, where something is to be cleared, umo_device_prepare(). */
umo_status umo_intermediates_init(umo_model *model, umo_device *device,
                                  const umo_description *description, umo_intermediates *out,
                                  umo_error *error);
/* Likewise an instance's own, on its node. Errors: as umo_pool_create(). */
umo_status umo_intermediates_init_near(const umo_instance *instance, umo_device *device,
                                       const umo_description *description, umo_intermediates *out,
                                       umo_error *error);
/* All blocks were given back. Accepts a zeroed one. */
void umo_intermediates_finish(umo_intermediates *intermediates);

/*
 * Plans and takes the block of a batch. kept is the instance's.
 *
 * shapes and memory are those of the whole launch; the intermediates' entries of memory are
 * written, with no bytes for those that are empty. The fences to wait for before the first kernel
 * are added to waits. Errors: LIMIT, NOMEM, DEVICE; INVAL a size that no memory has.
 */
umo_status umo_intermediates_take(const umo_intermediates *intermediates, umo_plan_kept *kept,
                                  const umo_description *description, const umo_shape *shapes,
                                  uint32_t queue, umo_fence_set *waits, umo_launch_memory *memory,
                                  umo_intermediates_block *out, umo_error *error);

/* Queues the clearing of what a kernel is the first to use, behind waits, which becomes what the
 * kernel waits for; *last is raised. */
umo_status umo_intermediates_clear(umo_device *device, const umo_description *description,
                                   size_t stage, const umo_shape *shapes,
                                   const umo_launch_memory *memory, uint32_t queue,
                                   umo_fence_set *waits, umo_fence *last, umo_error *error);

/* Who takes the memory next waits for done. Accepts a zeroed block. */
void umo_intermediates_give(const umo_intermediates *intermediates, umo_intermediates_block *block,
                            umo_fence done);

#endif

/*
 * The buffer face of a pool: blocks that are umo_buffers, kept for the next taker of about their
 * size. Their memory is carved, or each is an allocation of the device.
 */
#ifndef UMO_MEM_POOL_BLOCKS_H
#define UMO_MEM_POOL_BLOCKS_H

#include "base/hash.h"
#include "base/list.h"
#include "mem/carve.h"

#include <umo/pool.h>

/* Four sizes in each doubling. */
#define UMO_BLOCKS_CLASSES 256u

typedef struct umo_blocks {
    umo_device *device;
    umo_scope *scope;
    umo_storage_mode mode;
    umo_carve *carve; /* where memory comes from; NULL: the device */
    size_t page_bytes;
    size_t (*reclaim)(void *user, size_t size_bytes); /* as in umo_carve */
    void (*wake)(void *user);
    void *user;

    pthread_mutex_t lock; /* all below; taken before the carve's */
    umo_hash by_buffer;
    umo_list_link all;      /* of every block */
    umo_list_link kept_new; /* the newest first */
    umo_list_link classes[UMO_BLOCKS_CLASSES];
    uint64_t kept_bytes;
    uint64_t keep_bytes_max;
    uint32_t keep_percent;
    uint64_t activity;
    bool armed;
    umo_pool_stats stats;
} umo_blocks;

bool umo_blocks_init(umo_blocks *blocks);
void umo_blocks_finish(umo_blocks *blocks);

umo_status umo_blocks_take(umo_blocks *blocks, size_t size_bytes, uint64_t owner, umo_buffer **out,
                           umo_error *error);
umo_status umo_blocks_give(umo_blocks *blocks, umo_buffer *buffer);

/* The live block that is, or has, an address. `wanted` is umo_carve_find()'s user, or NULL: then
 * all are looked through. */
umo_status umo_blocks_find(umo_blocks *blocks, const void *address, const void *wanted,
                           umo_pool_block *out);

/* Lets go of kept blocks, the longest unused first, until at most keep_bytes are kept. Where memory
 * is carved it becomes the carve's to keep or give back. Returns the bytes. */
size_t umo_blocks_trim(umo_blocks *blocks, size_t keep_bytes);
void umo_blocks_keep(umo_blocks *blocks, uint64_t bytes_max, uint32_t percent);

/* As for umo_carve. */
bool umo_blocks_disarm(umo_blocks *blocks, uint64_t activity);
uint64_t umo_blocks_activity(umo_blocks *blocks);
uint64_t umo_blocks_kept(umo_blocks *blocks);
uint64_t umo_blocks_reserved(umo_blocks *blocks);
uint64_t umo_blocks_live(umo_blocks *blocks);
uint64_t umo_blocks_peak(umo_blocks *blocks);

/* Adds its figures; those of carved memory are the carve's. */
void umo_blocks_read(umo_blocks *blocks, umo_pool_stats *out);

#endif

/*
 * Carved memory: two heaps (blocks below and from 4 KiB on), the threads' caches in front of them,
 * one budget, one lock. The raw face of a pool whose device's memory is the CPU's own.
 */
#ifndef UMO_MEM_CARVE_H
#define UMO_MEM_CARVE_H

#include "base/scope.h"
#include "mem/cache.h"

#include <umo/pool.h>

/* Lists of blocks on their way from one thread to another, by size. */
#define UMO_CARVE_STASH_SHIFT 8u
#define UMO_CARVE_STASH (1u << UMO_CARVE_STASH_SHIFT)

enum {
    UMO_CARVE_LONG = 0,
    UMO_CARVE_SHORT = 1,
    UMO_CARVE_HEAPS = 2
};

typedef struct umo_carve {
    umo_heap heaps[UMO_CARVE_HEAPS];
    umo_cache_slot slot;
    size_t align_mask;
    umo_scope *scope;
    /* Asked for memory of others when a budget is met, under no lock. */
    size_t (*reclaim)(void *user, size_t size_bytes);
    /* Something is kept from now on: called under the lock. */
    void (*wake)(void *user);
    void *user;

    pthread_mutex_t lock; /* all below */
    umo_cache *caches;
    size_t cache_count;
    umo_cache_bin stash[UMO_CARVE_STASH];
    uint32_t stash_counts[UMO_CARVE_STASH]; /* how many blocks are in each */
    unsigned stash_hand;
    uint64_t stash_bytes;
    uint64_t loan_bytes; /* held beyond the usual bound while threads hand blocks on */
    uint64_t charged_bytes;
    uint64_t out_bytes;        /* of extents that are not free, whole */
    uint64_t other_kept_bytes; /* of umo_carve_take_other(), not live */
    int64_t live_bytes;        /* by threads without a cache */
    int64_t ahead_bytes;       /* of those, what umo_carve_take_other() is still looking for */
    uint64_t keep_bytes_max;   /* beside the live ones; UINT64_MAX: only the peak bounds it */
    uint32_t keep_percent;     /* of that */
    const char *watched;       /* a page of those that came and were left to be touched */
    uint64_t watched_bytes;    /* that came since */
    bool touched;              /* the page before that was */
    char *bring;               /* of a block that is taken: pages to bring once the lock is free */
    size_t bring_bytes;
    bool armed;           /* somebody looks after what is kept */
    bool poisoned;        /* test mode: blocks are overwritten when taken */
    uint64_t clock_ns;    /* now, roughly: when the keeper last looked */
    umo_pool_stats stats; /* without what is counted elsewhere */
} umo_carve;

/* slot.retire and slot.user are the carve's own. False when memory is out. */
bool umo_carve_init(umo_carve *carve, umo_scope *scope, size_t align_bytes);
/* Nothing is out. */
void umo_carve_finish(umo_carve *carve);
/* Has all pages of a new carve come from a node. Errors as umo_numa_bind(). */
umo_status umo_carve_bind(umo_carve *carve, int32_t node, umo_error *error);

umo_status umo_carve_take(umo_carve *carve, size_t size_bytes, uint64_t owner, void **out);
umo_status umo_carve_give(umo_carve *carve, void *data);

/* Memory for whoever keeps it himself: never in a cache, never umo_carve_give()'s. live_bytes of it
 * are live from then on, until umo_carve_live_remove(). `user` is found with it. Cleared if it was
 * another owner's. */
umo_status umo_carve_take_other(umo_carve *carve, size_t size_bytes, size_t live_bytes,
                                uint64_t owner, void *user, void **out, size_t *out_bytes);
void umo_carve_give_other(umo_carve *carve, void *data);
/* It is about to become another owner's, and holds bytes of both until its keeper has cleared it.
 */
void umo_carve_pass_other(umo_carve *carve, const void *data, uint64_t owner);
/* size_bytes more are live, in memory of which kept_bytes were kept; and the other way round. */
void umo_carve_live_add(umo_carve *carve, size_t size_bytes, size_t kept_bytes);
void umo_carve_live_remove(umo_carve *carve, size_t size_bytes, size_t kept_bytes);

/* The extent that an address lies in, if it is in use. */
bool umo_carve_find(umo_carve *carve, const void *address, umo_pool_block *out, void **user);

/* Gives pages back, of memory that is free since before `stamp` alone, until at most keep_bytes are
 * kept. Returns the bytes. */
size_t umo_carve_trim(umo_carve *carve, size_t keep_bytes, uint64_t stamp_ns);

/* Everything but the blocks of umo_carve_take_other(). */
void umo_carve_read(umo_carve *carve, umo_pool_stats *out);

/* Nobody looks any more: the next take or give calls wake. False, and nothing is changed, when the
 * activity is not `activity` any more. */
bool umo_carve_disarm(umo_carve *carve, uint64_t activity);

/* Bounds what is kept; UINT64_MAX: only the peak does. Gives back what is above. */
void umo_carve_keep(umo_carve *carve, uint64_t bytes_max, uint32_t percent);

/* Around a fork. */
void umo_carve_fork_lock(umo_carve *carve);
void umo_carve_fork_unlock(umo_carve *carve, bool child);

/* A number that changes when anything is taken or given; cheap, pauses nobody. */
uint64_t umo_carve_activity(umo_carve *carve);
uint64_t umo_carve_reserved(umo_carve *carve);
uint64_t umo_carve_kept(umo_carve *carve);
uint64_t umo_carve_used(umo_carve *carve); /* what is live */
uint64_t umo_carve_peak(umo_carve *carve); /* of that */

#endif

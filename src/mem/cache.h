/*
 * Blocks that a thread keeps for itself, so that most takes and gives touch nothing that another
 * thread does.
 *
 * A cache has two users: its thread, without a lock or an atomic read-modify-write, and whoever
 * holds the lock of the pool and wants everything back. They exclude each other as in Dekker's
 * algorithm, by two flags, `busy` and `blocked`, and a fence between store and load on each side;
 * the thread's fence costs nothing, the other side pays for both (umo_os_barrier_all()).
 * docs/pools.md has the argument, tests/model the proof.
 */
#ifndef UMO_MEM_CACHE_H
#define UMO_MEM_CACHE_H

#include "mem/heap.h"
#include "os/os.h"

/* Blocks shorter than a unit of the long heap: a bin for each size. */
#define UMO_CACHE_SMALL 64u
/* The others share bins by a hash of their size. */
#define UMO_CACHE_LARGE_SHIFT 7u
#define UMO_CACHE_LARGE (1u << UMO_CACHE_LARGE_SHIFT)

/* Longer blocks are cached only by a thread that met others at the pool's lock, two at a time: more
 * would keep holes from closing, and a free lock costs little beside the use of so many bytes. */
#define UMO_CACHE_LONG ((size_t)(128u << 10) >> UMO_HEAP_GRANULE_SHIFT)

/* Blocks of one size, linked by umo_extent.next. */
typedef struct umo_cache_bin {
    uint32_t granules;
    uint32_t first;
} umo_cache_bin;

typedef struct umo_cache {
    _Alignas(64) _Atomic uint32_t busy; /* its thread is inside */
    _Atomic uint32_t blocked;           /* the pool's lock holder is, or wants to be */
    /* Written by the thread, or by the lock holder while it is blocked; read by anybody. */
    _Atomic uint64_t room_bytes;  /* may still be cached */
    _Atomic int64_t live_bytes;   /* asked for less given back, by this thread */
    _Atomic int64_t alarm_bytes;  /* live bytes above it may be a new peak of the pool */
    _Atomic uint64_t takes;       /* without the lock */
    _Atomic uint64_t limit_bytes; /* of which room_bytes is left */
    struct umo_cache *next;       /* of the pool's caches */
    void *memory;                 /* what it lies in */
    unsigned hand;                /* the bin that is flushed next */
    umo_cache_bin *long_bin;      /* where its long blocks are put; NULL: it has none */
    umo_cache_bin small[UMO_CACHE_SMALL];
    umo_cache_bin large[UMO_CACHE_LARGE];
} umo_cache;

/* The thread's own counters: one writer, so a load and a store will do. */
#define UMO_CACHE_ADD(counter, change)                                                             \
    atomic_store_explicit(&(counter),                                                              \
                          atomic_load_explicit(&(counter), memory_order_relaxed) + (change),       \
                          memory_order_relaxed)

static inline umo_cache_bin *umo_cache_bin_of(umo_cache *cache, size_t granules)
{
    return granules < UMO_CACHE_SMALL
               ? &cache->small[granules]
               : &cache->large[(uint32_t)((uint32_t)granules * 2654435769u) >>
                               (32u - UMO_CACHE_LARGE_SHIFT)];
}

/* May a bin of long blocks have one more? */
static inline bool umo_cache_long_fits(const umo_heap *heap, const umo_cache_bin *bin)
{
    return bin->first == 0 || heap->extents[bin->first].next == 0;
}

/* False when the lock holder is there: then the thread takes the lock and waits for it so. */
static inline bool umo_cache_enter(umo_cache *cache)
{
    atomic_store_explicit(&cache->busy, 1, memory_order_relaxed);
    umo_os_barrier_here();
    if (__builtin_expect(atomic_load_explicit(&cache->blocked, memory_order_acquire) != 0, 0)) {
        atomic_store_explicit(&cache->busy, 0, memory_order_release);
        return false;
    }
    return true;
}

static inline void umo_cache_leave(umo_cache *cache)
{
    atomic_store_explicit(&cache->busy, 0, memory_order_release);
}

/* Keeps the threads of all caches of a list out, but self's, which is the caller's own. The pool's
 * lock is held, and stays so until they are let in again. */
void umo_caches_block(umo_cache *first, const umo_cache *self);
void umo_caches_unblock(umo_cache *first, const umo_cache *self);

/* ---- a thread's caches ---- */

#define UMO_CACHE_SLOTS 1024u

typedef struct umo_cache_entry {
    uint64_t id; /* of the pool that the cache is of: never used again; 0 is nobody's */
    umo_cache *cache;
} umo_cache_entry;

typedef struct umo_cache_thread {
    umo_cache_entry entries[UMO_CACHE_SLOTS + 1]; /* the last one stays empty */
    unsigned used;                                /* slots up to here may have an entry */
} umo_cache_thread;

#ifdef __linux__
#define UMO_CACHE_TLS __attribute__((visibility("hidden"), tls_model("initial-exec")))
#else
#define UMO_CACHE_TLS __attribute__((visibility("hidden")))
#endif
extern _Thread_local umo_cache_thread *umo_cache_mine UMO_CACHE_TLS;

/* A place in each thread's table. */
typedef struct umo_cache_slot {
    uint64_t id;
    uint32_t index;                               /* UMO_CACHE_SLOTS: none was left */
    void (*retire)(void *user, umo_cache *cache); /* its thread is gone */
    void *user;
} umo_cache_slot;

/* slot->retire and ->user are filled; the slot lives until it is closed. */
void umo_cache_slot_open(umo_cache_slot *slot);
/* No thread's end reaches the pool any more. */
void umo_cache_slot_close(umo_cache_slot *slot);

/* This thread's cache of a pool, or NULL. */
static inline umo_cache *umo_cache_get(const umo_cache_slot *slot)
{
    const umo_cache_entry *entry = &umo_cache_mine->entries[slot->index];
    return __builtin_expect(entry->id == slot->id, 1) ? entry->cache : NULL;
}

/* Gives this thread an empty one; NULL when memory is out or there is no slot. It is the pool's to
 * destroy. */
umo_cache *umo_cache_create(const umo_cache_slot *slot);
void umo_cache_destroy(umo_cache *cache);

/* Around a fork: no thread's end runs. */
void umo_cache_fork_lock(void);
void umo_cache_fork_unlock(void);

#endif

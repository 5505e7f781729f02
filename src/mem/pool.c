/*
 * Pools: what carved memory and blocks have in common. The list of all pools of the process, by
 * which one that meets a limit takes back what others keep, and the rule of when a pool is idle.
 */
#include "mem/pool_blocks.h"

#include "base/scope.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "mem/keeper.h"
#include "trace/trace.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#define IDLE_NS_DEFAULT ((uint64_t)25000000)
#define IDLE_NS_MIN ((uint64_t)1000000)
/* How often the keeper looks in an idle time. */
#define LOOKS 4u
/* Of the peak, what an idle pool keeps. */
#define IDLE_KEEP_SHARE 64u
/* In a busy pool memory goes when it lay free for so many times the idle time. And for so long the
 * pool itself must rest while more than a share of its peak lives: who holds blocks computes with
 * them, and asks again. */
#define STALE_IDLES 40u
#define REST_SHARE 16u
#define ALIGN_MAX_BYTES 4096u

struct umo_pool {
    umo_list_link link; /* in the list of all */
    uint32_t users;     /* who uses it without the list's lock */
    uint64_t trimmed;   /* the last of umo_pools_trim()'s rounds that looked at it */
    umo_pool_options options;
    umo_scope *root;
    bool carved;
    umo_carve carve;
    umo_blocks blocks;
    umo_keeper_task task;
    uint64_t activity; /* the keeper's alone */
    uint64_t busy_ns;
    uint64_t stale_ns;
};

static pthread_mutex_t pools_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t pools_left = PTHREAD_COND_INITIALIZER;
static umo_list_link pools = {&pools, &pools};
static uint64_t last_round;

/* ---- fork: the child gets every pool as it was, and no keeper ---- */

static void fork_prepare(void)
{
    (void)pthread_mutex_lock(&pools_lock);
    umo_cache_fork_lock();
    for (umo_list_link *link = pools.next; link != &pools; link = link->next) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        (void)pthread_mutex_lock(&pool->blocks.lock);
        if (pool->carved) {
            umo_carve_fork_lock(&pool->carve);
        }
    }
}

static void fork_done(bool child)
{
    for (umo_list_link *link = pools.next; link != &pools; link = link->next) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        if (child) {
            pool->users = 0; /* they were of the parent's threads */
            pool->blocks.armed = false;
        }
        if (pool->carved) {
            umo_carve_fork_unlock(&pool->carve, child);
        }
        (void)pthread_mutex_unlock(&pool->blocks.lock);
    }
    umo_cache_fork_unlock();
    (void)pthread_mutex_unlock(&pools_lock);
}

static void fork_parent(void)
{
    fork_done(false);
}

static void fork_child(void)
{
    umo_os_barrier_prepare();
    fork_done(true);
}

static void fork_register(void)
{
    umo_buffer_fork_register(); /* pools make buffers, not the other way round */
    umo_keeper_fork_register(); /* and wake the keeper under their locks */
    (void)pthread_atfork(fork_prepare, fork_parent, fork_child);
}

/* ---- what the keeper does ---- */

static size_t idle_keep(umo_pool *pool)
{
    if (pool->options.idle_keep_bytes != 0) {
        return pool->options.idle_keep_bytes;
    }
    uint64_t peak = pool->carved ? umo_carve_peak(&pool->carve) : umo_blocks_peak(&pool->blocks);
    return (size_t)(peak / IDLE_KEEP_SHARE);
}

static bool nearly_empty(umo_pool *pool)
{
    return pool->carved
               ? umo_carve_used(&pool->carve) <= umo_carve_peak(&pool->carve) / REST_SHARE
               : umo_blocks_live(&pool->blocks) <= umo_blocks_peak(&pool->blocks) / REST_SHARE;
}

static uint64_t pool_tick(umo_keeper_task *task, uint64_t now_ns)
{
    umo_pool *pool = UMO_LIST_ENTRY(task, umo_pool, task);
    uint64_t idle_ns = pool->options.idle_ns;
    uint64_t blocks = umo_blocks_activity(&pool->blocks);
    uint64_t activity = blocks + (pool->carved ? umo_carve_activity(&pool->carve) : 0);
    if (activity != pool->activity || pool->busy_ns == 0) {
        pool->activity = activity;
        pool->busy_ns = now_ns;
    }
    uint64_t long_ns = idle_ns < UINT64_MAX / STALE_IDLES ? idle_ns * STALE_IDLES : UINT64_MAX;
    uint64_t quiet_ns = now_ns - pool->busy_ns;
    if (quiet_ns >= long_ns || (quiet_ns >= idle_ns && nearly_empty(pool))) {
        umo_pool_trim(pool, idle_keep(pool));
        if (umo_blocks_disarm(&pool->blocks, blocks) &&
            (!pool->carved || umo_carve_disarm(&pool->carve, activity - blocks))) {
            pool->busy_ns = 0;
            return UINT64_MAX;
        }
    } else if (pool->carved && now_ns - pool->stale_ns >= long_ns / 4) {
        pool->stale_ns = now_ns;
        if (now_ns > long_ns) {
            (void)umo_carve_trim(&pool->carve, 0, now_ns - long_ns);
        }
    }
    return now_ns + idle_ns / LOOKS;
}

static void pool_wake(void *user)
{
    umo_pool *pool = user;
    if (pool->options.idle_ns != UINT64_MAX) {
        umo_keeper_wake(&pool->task, umo_os_now_ns() + pool->options.idle_ns / LOOKS);
    }
}

/* ---- all pools of a root ---- */

static uint64_t pool_kept(umo_pool *pool)
{
    return pool->carved ? umo_carve_kept(&pool->carve) : umo_blocks_kept(&pool->blocks);
}

static uint64_t pool_reserved(umo_pool *pool)
{
    return pool->carved ? umo_carve_reserved(&pool->carve) : umo_blocks_reserved(&pool->blocks);
}

static uint64_t pools_sum(const umo_scope *root, uint64_t (*figure)(umo_pool *))
{
    uint64_t sum = 0;
    (void)pthread_mutex_lock(&pools_lock);
    for (umo_list_link *link = pools.next; link != &pools; link = link->next) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        sum += pool->root == root ? figure(pool) : 0;
    }
    (void)pthread_mutex_unlock(&pools_lock);
    return sum;
}

uint64_t umo_pools_reserved(umo_scope *root)
{
    return pools_sum(root, pool_reserved);
}

uint64_t umo_pools_kept(umo_scope *root)
{
    return pools_sum(root, pool_kept);
}

/* Holds the pool that keeps most of those that this round has not had; NULL when all had their
 * turn.
 */
static umo_pool *pools_hold_largest(const umo_scope *root, uint64_t round, uint64_t *kept)
{
    umo_pool *largest = NULL;
    *kept = 0;
    (void)pthread_mutex_lock(&pools_lock);
    for (umo_list_link *link = pools.next; link != &pools; link = link->next) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        uint64_t this_kept = pool->root == root && pool->trimmed < round ? pool_kept(pool) : 0;
        if (this_kept > *kept) {
            *kept = this_kept;
            largest = pool;
        }
    }
    if (largest != NULL) {
        largest->trimmed = round;
        largest->users++;
    }
    (void)pthread_mutex_unlock(&pools_lock);
    return largest;
}

static void pool_let_go(umo_pool *pool)
{
    (void)pthread_mutex_lock(&pools_lock);
    pool->users--;
    (void)pthread_cond_broadcast(&pools_left);
    (void)pthread_mutex_unlock(&pools_lock);
}

static size_t pool_trim(umo_pool *pool, size_t keep_bytes)
{
    size_t gone = umo_blocks_trim(&pool->blocks, keep_bytes);
    return pool->carved ? umo_carve_trim(&pool->carve, keep_bytes, UINT64_MAX) : gone;
}

size_t umo_pools_trim(umo_scope *root, size_t keep_bytes)
{
    size_t total = 0;
    (void)pthread_mutex_lock(&pools_lock);
    uint64_t round = ++last_round;
    (void)pthread_mutex_unlock(&pools_lock);
    for (;;) {
        uint64_t kept_all = umo_pools_kept(root);
        uint64_t kept;
        umo_pool *pool = kept_all > keep_bytes ? pools_hold_largest(root, round, &kept) : NULL;
        if (pool == NULL) {
            return total;
        }
        uint64_t surplus = kept_all - keep_bytes;
        total += pool_trim(pool, kept > surplus ? (size_t)(kept - surplus) : 0);
        pool_let_go(pool);
    }
}

/* Somebody met the budget: half of what is kept goes, or as much as he needs; all if that is
 * nothing. */
static size_t pool_reclaim(void *user, size_t size_bytes)
{
    umo_pool *pool = user;
    uint64_t half = umo_pools_kept(pool->root) / 2;
    size_t got = umo_pools_trim(pool->root, half > size_bytes ? (size_t)(half - size_bytes) : 0);
    return got > 0 ? got : umo_pools_trim(pool->root, 0);
}

static void pool_keep(umo_pool *pool, uint32_t percent)
{
    uint64_t most = pool->options.keep_bytes_max == 0 ? UINT64_MAX : pool->options.keep_bytes_max;
    umo_blocks_keep(&pool->blocks, most, percent);
    if (pool->carved) {
        umo_carve_keep(&pool->carve, most, percent);
    }
}

void umo_pools_tighten(umo_scope *root, uint32_t percent)
{
    percent = percent < 100 ? percent : 100;
    (void)pthread_mutex_lock(&pools_lock);
    for (umo_list_link *link = pools.next; link != &pools;) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        if (pool->root != root) {
            link = link->next;
            continue;
        }
        pool->users++;
        (void)pthread_mutex_unlock(&pools_lock);
        pool_keep(pool, percent);
        (void)pthread_mutex_lock(&pools_lock);
        link = link->next; /* it is in the list as long as it is held */
        pool->users--;
        (void)pthread_cond_broadcast(&pools_left);
    }
    (void)pthread_mutex_unlock(&pools_lock);
}

/* ---- life ---- */

/* Blocks can be cut from plain memory that the device uses where it lies. */
static bool carves(const umo_device_info *info, umo_storage_mode mode)
{
    const uint32_t needed = UMO_CAP_HOST_PROCESSOR | UMO_CAP_COHERENT | UMO_CAP_UNIFIED |
                            UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    return mode == UMO_UNIFIED && (info->caps & needed) == needed &&
           info->import_align_bytes <= UMO_HEAP_GRANULE &&
           info->import_size_align_bytes <= UMO_HEAP_GRANULE;
}

static umo_status options_check(const umo_pool_options *options, umo_error *error)
{
    static const uint32_t bits[UMO_STORAGE_MODES] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED,
                                                     UMO_CAP_PRIVATE};
    if (options->device == NULL || options->scope == NULL ||
        (unsigned)options->mode >= UMO_STORAGE_MODES) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a pool needs a device, a scope and a mode");
    }
    const umo_device_info *info = umo_device_info_get(options->device);
    if ((info->caps & bits[options->mode]) == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "the device lacks storage mode %d",
                             (int)options->mode);
    }
    size_t align = options->align_bytes;
    size_t most = carves(info, options->mode) ? ALIGN_MAX_BYTES : info->alloc_align_bytes;
    if (align != 0 && (!umo_is_power_of_two(align) || align > most)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "blocks cannot be aligned to %zu bytes", align);
    }
    if (options->one_node && !carves(info, options->mode)) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "a pool is on one node where it carves: device '%s' has memory of its "
                             "own",
                             info->name);
    }
    return UMO_OK;
}

umo_status umo_pool_create(const umo_pool_options *options, umo_pool **out, umo_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    umo_status status = options_check(options, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a pool");
    }
    const umo_device_info *info = umo_device_info_get(options->device);
    pool->options = *options;
    uint64_t idle_ns = options->idle_ns == 0 ? IDLE_NS_DEFAULT : options->idle_ns;
    pool->options.idle_ns = idle_ns > IDLE_NS_MIN ? idle_ns : IDLE_NS_MIN;
    pool->root = umo_scope_root(options->scope);
    pool->carved = carves(info, options->mode);
    pool->blocks = (umo_blocks){.device = options->device,
                                .scope = options->scope,
                                .mode = options->mode,
                                .carve = pool->carved ? &pool->carve : NULL,
                                .page_bytes = umo_os_page_bytes(),
                                .reclaim = pool_reclaim,
                                .wake = pool_wake,
                                .user = pool};
    if (pool->carved && !umo_carve_init(&pool->carve, options->scope, options->align_bytes)) {
        free(pool);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no range of addresses for a pool");
    }
    if (options->one_node) {
        status = umo_carve_bind(&pool->carve, options->numa_node, error);
    }
    if (status == UMO_OK && !umo_blocks_init(&pool->blocks)) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a pool");
    }
    if (status != UMO_OK) {
        if (pool->carved) {
            umo_carve_finish(&pool->carve);
        }
        free(pool);
        return status;
    }
    pool->carve.poisoned = (info->caps & UMO_CAP_POISON) != 0;
    pool->carve.reclaim = pool_reclaim;
    pool->carve.wake = pool_wake;
    pool->carve.user = pool;
    pool->task.tick = pool_tick;
    pool_keep(pool, 100);
    umo_device_acquire(options->device);
    umo_scope_acquire(options->scope);
    (void)pthread_once(&once, fork_register);
    umo_keeper_add(&pool->task);
    (void)pthread_mutex_lock(&pools_lock);
    umo_list_push(&pools, &pool->link);
    (void)pthread_mutex_unlock(&pools_lock);
    *out = pool;
    return UMO_OK;
}

void umo_pool_destroy(umo_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    umo_keeper_remove(&pool->task);
    (void)pthread_mutex_lock(&pools_lock);
    while (pool->users > 0) {
        (void)pthread_cond_wait(&pools_left, &pools_lock);
    }
    umo_list_remove(&pool->link);
    (void)pthread_mutex_unlock(&pools_lock);
    pool->options.idle_ns = UINT64_MAX; /* nothing is woken any more */
    umo_blocks_finish(&pool->blocks);
    if (pool->carved) {
        umo_carve_finish(&pool->carve);
    }
    umo_device_release(pool->options.device);
    umo_scope_destroy(pool->options.scope);
    free(pool);
}

/* ---- calls ---- */

umo_status umo_pool_alloc(umo_pool *pool, size_t size_bytes, uint64_t owner, umo_buffer **out,
                          umo_error *error)
{
    return umo_blocks_take(&pool->blocks, size_bytes, owner, out, error);
}

umo_status umo_pool_free(umo_pool *pool, umo_buffer *buffer)
{
    return umo_blocks_give(&pool->blocks, buffer);
}

/* Apart, so that the calls below stay the jumps that they are while nobody records. */
static __attribute__((noinline)) umo_status take_traced(umo_pool *pool, size_t size_bytes,
                                                        uint64_t owner, void **out)
{
    umo_status status =
        pool->carved ? umo_carve_take(&pool->carve, size_bytes, owner, out) : UMO_E_UNSUPPORTED;
    UMO_TRACE(.kind = UMO_EVENT_POOL_TAKE, .scope = pool->options.scope, .size_bytes = size_bytes,
              .status = status);
    return status;
}

static __attribute__((noinline)) umo_status give_traced(umo_pool *pool, void *data)
{
    umo_pool_block found = {0};
    void *block = NULL;
    if (pool->carved) {
        (void)umo_carve_find(&pool->carve, data, &found, &block);
    }
    umo_status status = pool->carved ? umo_carve_give(&pool->carve, data) : UMO_E_INVAL;
    UMO_TRACE(.kind = UMO_EVENT_POOL_GIVE, .scope = pool->options.scope,
              .size_bytes = found.size_bytes, .status = status);
    return status;
}

umo_status umo_pool_take(umo_pool *pool, size_t size_bytes, uint64_t owner, void **out)
{
    if (umo_trace_on()) {
        return take_traced(pool, size_bytes, owner, out);
    }
    return __builtin_expect(pool->carved, 1) ? umo_carve_take(&pool->carve, size_bytes, owner, out)
                                             : UMO_E_UNSUPPORTED;
}

umo_status umo_pool_give(umo_pool *pool, void *data)
{
    if (umo_trace_on()) {
        return give_traced(pool, data);
    }
    return __builtin_expect(pool->carved, 1) ? umo_carve_give(&pool->carve, data) : UMO_E_INVAL;
}

umo_status umo_pool_find(umo_pool *pool, const void *address, umo_pool_block *out)
{
    umo_pool_block found;
    void *block = NULL;
    if (pool->carved) {
        if (!umo_carve_find(&pool->carve, address, &found, &block)) {
            return UMO_E_NOT_FOUND;
        }
        if (block == NULL) {
            *out = found;
            return UMO_OK;
        }
    }
    return umo_blocks_find(&pool->blocks, address, block, out);
}

void umo_pool_trim(umo_pool *pool, size_t keep_bytes)
{
    (void)pool_trim(pool, keep_bytes);
}

void umo_pool_read(umo_pool *pool, umo_pool_stats *out)
{
    umo_pool_stats stats = {0};
    if (pool->carved) {
        umo_carve_read(&pool->carve, &stats);
    }
    umo_blocks_read(&pool->blocks, &stats);
    *out = stats;
}

static void stats_add(umo_pool_stats *sum, const umo_pool_stats *pool)
{
    double crumbs = sum->fragmentation * (double)sum->kept_bytes +
                    pool->fragmentation * (double)pool->kept_bytes;
    sum->live_bytes += pool->live_bytes;
    sum->reserved_bytes += pool->reserved_bytes;
    sum->kept_bytes += pool->kept_bytes;
    sum->peak_live_bytes += pool->peak_live_bytes;
    sum->peak_reserved_bytes += pool->peak_reserved_bytes;
    sum->hits += pool->hits;
    sum->misses += pool->misses;
    sum->scrubbed_bytes += pool->scrubbed_bytes;
    sum->trims += pool->trims;
    sum->trimmed_bytes += pool->trimmed_bytes;
    sum->moved_bytes += pool->moved_bytes;
    sum->metadata_bytes += pool->metadata_bytes;
    sum->fragmentation = sum->kept_bytes > 0 ? crumbs / (double)sum->kept_bytes : 0;
}

void umo_pools_read(const umo_scope *scope, umo_pool_stats *out)
{
    *out = (umo_pool_stats){0};
    (void)pthread_mutex_lock(&pools_lock);
    for (umo_list_link *link = pools.next; link != &pools;) {
        umo_pool *pool = UMO_LIST_ENTRY(link, umo_pool, link);
        if (!umo_scope_within(pool->options.scope, scope)) {
            link = link->next;
            continue;
        }
        pool->users++;
        (void)pthread_mutex_unlock(&pools_lock);
        umo_pool_stats stats;
        umo_pool_read(pool, &stats);
        stats_add(out, &stats);
        (void)pthread_mutex_lock(&pools_lock);
        link = link->next; /* it is in the list as long as it is held */
        pool->users--;
        (void)pthread_cond_broadcast(&pools_left);
    }
    (void)pthread_mutex_unlock(&pools_lock);
}

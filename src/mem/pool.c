/*
 * The pool's first form: one free list a size class, four classes to a doubling, a bound on kept
 * bytes.
 *
 * A block is a umo_buffer. A node beside it (never inside the memory) keeps its class and owner and
 * is found by the buffer's address, so a foreign or twice freed buffer is an error and not a
 * corruption.
 */
#include "base/hash.h"
#include "base/scope.h"
#include "base/size.h"
#include "mem/buffer.h"

#include "driver/device.h"

#include <umo/pool.h>

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define KEEP_DEFAULT_BYTES ((size_t)64 << 20)
#define SIZE_MIN_BYTES 64u
#define CLASSES 256u

typedef struct block {
    umo_hash_link link;
    struct block *next_free;
    umo_buffer *buffer;
    size_t size_bytes; /* asked for */
    uint64_t owner;
    uint32_t class_index;
    bool live;
} block;

struct umo_pool {
    umo_pool_options options;
    pthread_mutex_t lock;
    umo_hash blocks; /* by buffer */
    block *free_lists[CLASSES];
    size_t kept_bytes;
    umo_pool_stats stats;
};

/* Rounds up to one of four sizes in each doubling; false when there is none. */
static bool class_of(size_t size_bytes, uint32_t *index, size_t *rounded)
{
    if (size_bytes <= SIZE_MIN_BYTES) {
        *index = 0;
        *rounded = SIZE_MIN_BYTES;
        return true;
    }
    unsigned top = 63u - (unsigned)__builtin_clzll((unsigned long long)(size_bytes - 1));
    size_t step = (size_t)1 << (top - 2);
    if (!umo_round_up(size_bytes, step, rounded)) {
        return false;
    }
    /* size in (2^top, 2^(top+1)]: quarter 1 to 4 of the doubling above 2^top; 2^6 is
     * SIZE_MIN_BYTES. */
    size_t quarter = (*rounded - ((size_t)1 << top)) / step;
    *index = (uint32_t)((size_t)(top - 6) * 4 + quarter);
    return *index < CLASSES;
}

static uint64_t block_hash(const umo_buffer *buffer)
{
    return umo_hash_mix(0, (uint64_t)(uintptr_t)buffer);
}

umo_status umo_pool_create(const umo_pool_options *options, umo_pool **out, umo_error *error)
{
    static const uint32_t bits[UMO_STORAGE_MODES] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED,
                                                     UMO_CAP_PRIVATE};
    if (options->device == NULL || options->scope == NULL ||
        (unsigned)options->mode >= UMO_STORAGE_MODES) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a pool needs a device, a scope and a mode");
    }
    if ((umo_device_info_get(options->device)->caps & bits[options->mode]) == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "the device lacks storage mode %d",
                             (int)options->mode);
    }
    umo_pool *pool = calloc(1, sizeof *pool);
    if (pool == NULL || !umo_hash_init(&pool->blocks)) {
        free(pool);
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a pool");
    }
    pool->options = *options;
    if (pool->options.keep_bytes_max == 0) {
        pool->options.keep_bytes_max = KEEP_DEFAULT_BYTES;
    }
    (void)pthread_mutex_init(&pool->lock, NULL);
    umo_device_acquire(options->device);
    umo_scope_acquire(options->scope);
    *out = pool;
    return UMO_OK;
}

void umo_pool_destroy(umo_pool *pool)
{
    if (pool == NULL) {
        return;
    }
    umo_pool_trim(pool, 0);
    umo_hash_finish(&pool->blocks);
    (void)pthread_mutex_destroy(&pool->lock);
    umo_device_release(pool->options.device);
    umo_scope_destroy(pool->options.scope);
    free(pool);
}

static void block_free(block *b)
{
    umo_buffer_release(b->buffer);
    free(b);
}

/* Unlinks a free block of the largest class that has one; NULL when nothing is kept. */
static block *kept_take_largest(umo_pool *pool)
{
    for (uint32_t i = CLASSES; i-- > 0;) {
        block *b = pool->free_lists[i];
        if (b != NULL) {
            pool->free_lists[i] = b->next_free;
            umo_hash_remove(&pool->blocks, &b->link);
            size_t size_bytes = umo_buffer_size(b->buffer);
            pool->kept_bytes -= size_bytes;
            pool->stats.reserved_bytes -= size_bytes;
            return b;
        }
    }
    return NULL;
}

void umo_pool_trim(umo_pool *pool, size_t keep_bytes)
{
    for (;;) {
        (void)pthread_mutex_lock(&pool->lock);
        block *b = pool->kept_bytes > keep_bytes ? kept_take_largest(pool) : NULL;
        (void)pthread_mutex_unlock(&pool->lock);
        if (b == NULL) {
            return;
        }
        block_free(b);
    }
}

static void block_give_out(umo_pool *pool, block *b, size_t size_bytes, uint64_t owner)
{
    b->live = true;
    b->size_bytes = size_bytes;
    b->owner = owner;
    pool->stats.live_bytes += size_bytes;
    if (pool->stats.live_bytes > pool->stats.peak_bytes) {
        pool->stats.peak_bytes = pool->stats.live_bytes;
    }
}

/* Gives a block that is out back to the device: it still holds another owner's bytes. */
static void block_discard(umo_pool *pool, block *b)
{
    (void)pthread_mutex_lock(&pool->lock);
    umo_hash_remove(&pool->blocks, &b->link);
    pool->stats.live_bytes -= b->size_bytes;
    pool->stats.reserved_bytes -= umo_buffer_size(b->buffer);
    (void)pthread_mutex_unlock(&pool->lock);
    block_free(b);
}

static umo_status block_create(umo_pool *pool, size_t rounded, uint32_t class_index, block **out,
                               umo_error *error)
{
    block *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a block");
    }
    const umo_pool_options *o = &pool->options;
    umo_status status = umo_buffer_alloc(o->device, o->scope, rounded, o->mode, &b->buffer, error);
    if (status == UMO_E_LIMIT || status == UMO_E_NOMEM) {
        /* What the pool keeps may be what is missing. */
        umo_pool_trim(pool, 0);
        status = umo_buffer_alloc(o->device, o->scope, rounded, o->mode, &b->buffer, error);
    }
    if (status != UMO_OK) {
        free(b);
        return status;
    }
    b->class_index = class_index;
    *out = b;
    return UMO_OK;
}

umo_status umo_pool_alloc(umo_pool *pool, size_t size_bytes, uint64_t owner, umo_buffer **out,
                          umo_error *error)
{
    uint32_t class_index;
    size_t rounded;
    if (size_bytes == 0 || !class_of(size_bytes, &class_index, &rounded)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a block of %zu bytes", size_bytes);
    }
    (void)pthread_mutex_lock(&pool->lock);
    block *b = pool->free_lists[class_index];
    bool foreign = false;
    if (b != NULL) {
        pool->free_lists[class_index] = b->next_free;
        pool->kept_bytes -= rounded;
        pool->stats.hits++;
        foreign = b->owner != owner;
        block_give_out(pool, b, size_bytes, owner);
    } else {
        pool->stats.misses++;
    }
    (void)pthread_mutex_unlock(&pool->lock);

    umo_status status = UMO_OK;
    if (b == NULL) {
        status = block_create(pool, rounded, class_index, &b, error);
        if (status != UMO_OK) {
            return status;
        }
        assert(b != NULL);
        /* A device may give out again what another block gave back. */
        foreign = !umo_buffer_memory(b->buffer)->cleared;
        (void)pthread_mutex_lock(&pool->lock);
        umo_hash_insert(&pool->blocks, &b->link, block_hash(b->buffer));
        pool->stats.reserved_bytes += rounded;
        block_give_out(pool, b, size_bytes, owner);
        (void)pthread_mutex_unlock(&pool->lock);
    }
    if (foreign) {
        status = umo_buffer_clear(b->buffer);
    }
    if (status != UMO_OK) {
        block_discard(pool, b);
        return umo_error_set(error, status, 0, "a block could not be cleared for its owner");
    }
    *out = b->buffer;
    return UMO_OK;
}

umo_status umo_pool_free(umo_pool *pool, umo_buffer *buffer)
{
    umo_status status = UMO_E_INVAL;
    bool surplus = false;
    (void)pthread_mutex_lock(&pool->lock);
    uint64_t hash = block_hash(buffer);
    for (umo_hash_link *link = umo_hash_chain(&pool->blocks, hash); link != NULL;
         link = link->next) {
        block *b = (block *)(void *)((char *)link - offsetof(block, link));
        if (b->buffer != buffer) {
            continue;
        }
        if (b->live) {
            b->live = false;
            pool->stats.live_bytes -= b->size_bytes;
            b->next_free = pool->free_lists[b->class_index];
            pool->free_lists[b->class_index] = b;
            pool->kept_bytes += umo_buffer_size(buffer);
            surplus = pool->kept_bytes > pool->options.keep_bytes_max;
            status = UMO_OK;
        }
        break;
    }
    (void)pthread_mutex_unlock(&pool->lock);
    if (surplus) {
        umo_pool_trim(pool, pool->options.keep_bytes_max);
    }
    return status;
}

void umo_pool_read(umo_pool *pool, umo_pool_stats *out)
{
    (void)pthread_mutex_lock(&pool->lock);
    *out = pool->stats;
    (void)pthread_mutex_unlock(&pool->lock);
}

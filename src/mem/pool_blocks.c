/*
 * See pool_blocks.h. A block keeps its umo_buffer while it is kept, so that a hit makes none. A
 * node beside it (never inside the memory) has its owner and is found by the buffer's address,
 * which is looked up and not followed: a foreign or twice freed buffer is an error and not a
 * corruption.
 *
 * A kept block serves a taker who wants less than it has, but not less than half or, with long
 * ones, two pages less; the one unused for longest goes first. Source: MLX's buffer cache.
 */
#include "mem/pool_blocks.h"

#include "base/size.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "mem/events.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* What is reserved may pass the peak of what is live by this share, and by the floor. */
#define SLACK_SHARE 24u
#define SLACK_FLOOR_BYTES ((uint64_t)1 << 20)

/* From here on rounding costs more than a miss. */
#define LONG_BYTES ((size_t)64 << 10)

typedef struct block {
    umo_hash_link link;
    umo_list_link in_all;
    umo_list_link in_kept;
    umo_list_link in_class;
    umo_buffer *buffer;
    void *data; /* carved */
    size_t whole_bytes;
    size_t asked_bytes;
    uint64_t owner;
    bool live;
} block;

static uint32_t class_of(size_t size_bytes)
{
    if (size_bytes <= UMO_HEAP_GRANULE) {
        return 0;
    }
    unsigned top = 63u - (unsigned)__builtin_clzll((unsigned long long)size_bytes);
    return (top - UMO_HEAP_GRANULE_SHIFT) * 4 + (uint32_t)(size_bytes >> (top - 2) & 3);
}

static uint64_t block_hash(const umo_buffer *buffer)
{
    return umo_hash_mix(0, (uint64_t)(uintptr_t)buffer);
}

bool umo_blocks_init(umo_blocks *blocks)
{
    if (!umo_hash_init(&blocks->by_buffer)) {
        return false;
    }
    umo_list_init(&blocks->all);
    umo_list_init(&blocks->kept_new);
    for (uint32_t i = 0; i < UMO_BLOCKS_CLASSES; i++) {
        umo_list_init(&blocks->classes[i]);
    }
    (void)pthread_mutex_init(&blocks->lock, NULL);
    return true;
}

void umo_blocks_finish(umo_blocks *blocks)
{
    (void)umo_blocks_trim(blocks, 0);
    umo_hash_finish(&blocks->by_buffer);
    (void)pthread_mutex_destroy(&blocks->lock);
}

/* ---- the lock is held ---- */

static void kept_add(umo_blocks *blocks, block *b)
{
    umo_list_push(&blocks->kept_new, &b->in_kept);
    umo_list_push(&blocks->classes[class_of(b->whole_bytes)], &b->in_class);
    blocks->kept_bytes += b->whole_bytes;
}

static void kept_remove(umo_blocks *blocks, block *b)
{
    umo_list_remove(&b->in_kept);
    umo_list_remove(&b->in_class);
    blocks->kept_bytes -= b->whole_bytes;
}

/* Nobody looks for it any more. */
static void block_unlist(umo_blocks *blocks, block *b)
{
    umo_hash_remove(&blocks->by_buffer, &b->link);
    umo_list_remove(&b->in_all);
    if (blocks->carve == NULL) {
        blocks->stats.reserved_bytes -= b->whole_bytes;
    }
}

/* The shortest kept block that will do. One that somebody else still holds is passed over. */
static block *kept_best(umo_blocks *blocks, size_t size_bytes)
{
    size_t twice = size_bytes <= SIZE_MAX / 2 ? size_bytes * 2 : SIZE_MAX;
    size_t more = size_bytes + 2 * blocks->page_bytes;
    size_t below = twice < more ? twice : more;
    if (blocks->carve != NULL) {
        below = size_bytes + 1; /* cutting costs little, and bytes that lie beside do */
    }
    block *best = NULL;
    uint32_t last = class_of(below - 1);
    for (uint32_t i = class_of(size_bytes); i <= last && best == NULL; i++) {
        umo_list_link *head = &blocks->classes[i];
        for (umo_list_link *link = head->next; link != head; link = link->next) {
            block *b = UMO_LIST_ENTRY(link, block, in_class);
            if (b->whole_bytes >= size_bytes && b->whole_bytes < below &&
                (best == NULL || b->whole_bytes < best->whole_bytes) &&
                umo_buffer_refs(b->buffer) == 1) {
                best = b;
                if (b->whole_bytes == size_bytes) {
                    break;
                }
            }
        }
    }
    return best;
}

static uint64_t keep_limit(const umo_blocks *blocks)
{
    uint64_t peak = blocks->stats.peak_live_bytes;
    uint64_t most = peak + peak / SLACK_SHARE + SLACK_FLOOR_BYTES;
    most = most < blocks->keep_bytes_max ? most : blocks->keep_bytes_max;
    return most / 100 * blocks->keep_percent + most % 100 * blocks->keep_percent / 100;
}

static void blocks_arm(umo_blocks *blocks)
{
    blocks->activity++;
    if (!blocks->armed && blocks->wake != NULL) {
        blocks->armed = true;
        blocks->wake(blocks->user);
    }
}

static void live_add(umo_blocks *blocks, block *b, size_t size_bytes, uint64_t owner)
{
    b->live = true;
    b->asked_bytes = size_bytes;
    b->owner = owner;
    blocks->stats.live_bytes += size_bytes;
    if (blocks->stats.live_bytes > blocks->stats.peak_live_bytes) {
        blocks->stats.peak_live_bytes = blocks->stats.live_bytes;
    }
}

/* It is kept from now on, or goes. */
static void live_remove(umo_blocks *blocks, block *b, bool kept)
{
    b->live = false;
    blocks->stats.live_bytes -= b->asked_bytes;
    if (blocks->carve != NULL) {
        umo_carve_live_remove(blocks->carve, b->asked_bytes, kept ? b->whole_bytes : 0);
    }
}

/* ---- without it ---- */

static void block_destroy(block *b)
{
    umo_buffer_release(b->buffer);
    free(b);
}

size_t umo_blocks_trim(umo_blocks *blocks, size_t keep_bytes)
{
    const uint64_t start_ns = umo_trace_clock();
    size_t gone = 0;
    for (;;) {
        block *b = NULL;
        (void)pthread_mutex_lock(&blocks->lock);
        if (blocks->kept_bytes > keep_bytes) {
            b = UMO_LIST_ENTRY(blocks->kept_new.previous, block, in_kept);
            kept_remove(blocks, b);
            block_unlist(blocks, b);
            gone += b->whole_bytes;
            if (blocks->carve != NULL) {
                umo_carve_live_add(blocks->carve, 0, b->whole_bytes);
            }
        } else if (gone > 0 && blocks->carve == NULL) {
            blocks->stats.trims++;
            blocks->stats.trimmed_bytes += gone;
        }
        (void)pthread_mutex_unlock(&blocks->lock);
        if (b == NULL) {
            break;
        }
        block_destroy(b);
    }
    if (gone > 0) {
        UMO_TRACE(.kind = UMO_EVENT_POOL_TRIM, .scope = blocks->scope, .size_bytes = gone,
                  .start_ns = start_ns);
    }
    return gone;
}

void umo_blocks_keep(umo_blocks *blocks, uint64_t bytes_max, uint32_t percent)
{
    (void)pthread_mutex_lock(&blocks->lock);
    blocks->keep_bytes_max = bytes_max;
    blocks->keep_percent = percent;
    uint64_t limit = keep_limit(blocks);
    (void)pthread_mutex_unlock(&blocks->lock);
    (void)umo_blocks_trim(blocks, limit < SIZE_MAX ? (size_t)limit : SIZE_MAX);
}

/* The last reference to a carved block's buffer is gone, all uses have ended. */
static void carved_return(void *data, void *user)
{
    umo_carve_give_other(user, data);
}

/* The memory of a new block. */
static umo_status carved_make(umo_blocks *blocks, block *b, size_t size_bytes, size_t whole_bytes,
                              uint64_t owner, umo_error *error)
{
    void *data = NULL;
    umo_status status = umo_carve_take_other(blocks->carve, whole_bytes, size_bytes, owner, b,
                                             &data, &b->whole_bytes);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0,
                             status == UMO_E_LIMIT
                                 ? "a block of %zu bytes would pass the budget of '%s'"
                                 : "no memory for a block of %zu bytes in '%s'",
                             whole_bytes, umo_scope_name(blocks->scope));
    }
    const umo_import import = {.data = data,
                               .size_bytes = b->whole_bytes,
                               .writable = true,
                               .whole_pages = true,
                               .deleter = carved_return,
                               .user = blocks->carve};
    umo_reason why;
    status = umo_buffer_import_uncounted(blocks->device, blocks->scope, &import, &b->buffer, &why,
                                         error);
    if (status != UMO_OK) {
        umo_carve_live_remove(blocks->carve, size_bytes, 0);
        umo_carve_give_other(blocks->carve, data);
        return status;
    }
    umo_buffer_make_inner(b->buffer);
    b->data = data;
    return UMO_OK;
}

static umo_status whole_make(umo_blocks *blocks, block *b, size_t whole_bytes, umo_error *error)
{
    uint64_t limit = keep_limit(blocks);
    (void)pthread_mutex_lock(&blocks->lock);
    uint64_t live = blocks->stats.reserved_bytes - blocks->kept_bytes + whole_bytes;
    (void)pthread_mutex_unlock(&blocks->lock);
    (void)umo_blocks_trim(blocks, limit > live ? (size_t)(limit - live) : 0);
    umo_status status = umo_buffer_alloc(blocks->device, blocks->scope, whole_bytes, blocks->mode,
                                         &b->buffer, error);
    if (status == UMO_E_LIMIT || status == UMO_E_NOMEM) {
        /* What pools keep may be what is missing. */
        if (umo_blocks_trim(blocks, 0) + blocks->reclaim(blocks->user, whole_bytes) > 0) {
            status = umo_buffer_alloc(blocks->device, blocks->scope, whole_bytes, blocks->mode,
                                      &b->buffer, error);
        }
    }
    b->whole_bytes = whole_bytes;
    return status;
}

static umo_status block_create(umo_blocks *blocks, size_t size_bytes, size_t whole_bytes,
                               uint64_t owner, block **out, umo_error *error)
{
    block *b = calloc(1, sizeof *b);
    if (b == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a block");
    }
    umo_status status = blocks->carve != NULL
                            ? carved_make(blocks, b, size_bytes, whole_bytes, owner, error)
                            : whole_make(blocks, b, whole_bytes, error);
    if (status != UMO_OK) {
        free(b);
        return status;
    }
    (void)pthread_mutex_lock(&blocks->lock);
    umo_hash_insert(&blocks->by_buffer, &b->link, block_hash(b->buffer));
    umo_list_push(&blocks->all, &b->in_all);
    if (blocks->carve == NULL) {
        blocks->stats.reserved_bytes += whole_bytes;
        blocks->stats.misses++;
        if (blocks->stats.reserved_bytes > blocks->stats.peak_reserved_bytes) {
            blocks->stats.peak_reserved_bytes = blocks->stats.reserved_bytes;
        }
    }
    live_add(blocks, b, size_bytes, owner);
    (void)pthread_mutex_unlock(&blocks->lock);
    *out = b;
    return UMO_OK;
}

/* Gives up a live block: it still holds another owner's bytes. */
static void block_discard(umo_blocks *blocks, block *b)
{
    (void)pthread_mutex_lock(&blocks->lock);
    live_remove(blocks, b, false);
    block_unlist(blocks, b);
    (void)pthread_mutex_unlock(&blocks->lock);
    block_destroy(b);
}

/* Bytes of a block. Carved ones are rounded so that requests whose sizes differ a little meet the
 * same blocks: to four sizes in a doubling, long ones to sixteen. */
static bool size_whole(const umo_blocks *blocks, size_t size_bytes, size_t *out)
{
    size_t align = UMO_HEAP_GRANULE;
    if (size_bytes == 0) {
        return false;
    }
    if (blocks->carve != NULL) {
        unsigned top = 63u - (unsigned)__builtin_clzll((unsigned long long)size_bytes);
        unsigned step = size_bytes <= LONG_BYTES ? 2 : 4;
        align = top > step && (size_t)1 << (top - step) > align ? (size_t)1 << (top - step) : align;
        align = blocks->carve->align_mask + 1 > align ? blocks->carve->align_mask + 1 : align;
    } else if (size_bytes >= blocks->page_bytes) {
        align = blocks->page_bytes;
    }
    return umo_round_up(size_bytes, align, out) && *out <= SIZE_MAX / 2;
}

umo_status umo_blocks_take(umo_blocks *blocks, size_t size_bytes, uint64_t owner, umo_buffer **out,
                           umo_error *error)
{
    size_t whole_bytes;
    if (!size_whole(blocks, size_bytes, &whole_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a block of %zu bytes", size_bytes);
    }
    bool foreign = false;
    (void)pthread_mutex_lock(&blocks->lock);
    blocks_arm(blocks);
    block *b = kept_best(blocks, whole_bytes);
    if (b != NULL) {
        kept_remove(blocks, b);
        blocks->stats.hits++;
        foreign = b->owner != owner;
        live_add(blocks, b, size_bytes, owner);
        if (blocks->carve != NULL) {
            umo_carve_live_add(blocks->carve, size_bytes, b->whole_bytes);
        }
    }
    (void)pthread_mutex_unlock(&blocks->lock);

    const bool hit = b != NULL;
    if (!hit) {
        umo_status status = block_create(blocks, size_bytes, whole_bytes, owner, &b, error);
        if (status != UMO_OK) {
            return status;
        }
        assert(b != NULL);
        /* A device may give out again what another block gave back. Carved memory is clear. */
        foreign = blocks->carve == NULL && !umo_buffer_memory(b->buffer)->cleared;
    }
    if (foreign) {
        if (b->data != NULL) {
            umo_carve_pass_other(blocks->carve, b->data, owner);
        }
        umo_status status = umo_buffer_clear(b->buffer);
        if (status != UMO_OK) {
            block_discard(blocks, b);
            return umo_error_set(error, status, 0, "a block could not be cleared for its owner");
        }
        (void)pthread_mutex_lock(&blocks->lock);
        blocks->stats.scrubbed_bytes += b->whole_bytes;
        (void)pthread_mutex_unlock(&blocks->lock);
    }
    UMO_TRACE_BUFFER(b->buffer, blocks->scope,
                     .kind = hit ? UMO_EVENT_POOL_HIT : UMO_EVENT_POOL_MISS,
                     .size_bytes = size_bytes);
    *out = b->buffer;
    return UMO_OK;
}

umo_status umo_blocks_give(umo_blocks *blocks, umo_buffer *buffer)
{
    umo_status status = UMO_E_INVAL;
    uint64_t limit = 0;
    bool surplus = false;
    (void)pthread_mutex_lock(&blocks->lock);
    uint64_t hash = block_hash(buffer);
    for (umo_hash_link *link = umo_hash_chain(&blocks->by_buffer, hash); link != NULL;
         link = link->next) {
        block *b = (block *)(void *)((char *)link - offsetof(block, link));
        if (b->buffer != buffer) {
            continue;
        }
        if (b->live) {
            UMO_TRACE_BUFFER(buffer, blocks->scope, .kind = UMO_EVENT_POOL_GIVE,
                             .size_bytes = b->asked_bytes);
            live_remove(blocks, b, true);
            kept_add(blocks, b);
            blocks_arm(blocks);
            limit = keep_limit(blocks);
            surplus = blocks->kept_bytes > limit;
            status = UMO_OK;
        }
        break;
    }
    (void)pthread_mutex_unlock(&blocks->lock);
    if (surplus) {
        (void)umo_blocks_trim(blocks, (size_t)limit);
    }
    return status;
}

umo_status umo_blocks_find(umo_blocks *blocks, const void *address, const void *wanted,
                           umo_pool_block *out)
{
    umo_status status = UMO_E_NOT_FOUND;
    (void)pthread_mutex_lock(&blocks->lock);
    for (umo_list_link *link = blocks->all.next; link != &blocks->all && status != UMO_OK;
         link = link->next) {
        block *b = UMO_LIST_ENTRY(link, block, in_all);
        char *data = umo_buffer_host(b->buffer);
        if (!b->live || data == NULL || (wanted != NULL && wanted != b) ||
            (uintptr_t)address - (uintptr_t)data >= b->asked_bytes) {
            continue;
        }
        *out = (umo_pool_block){
            .data = data, .size_bytes = b->asked_bytes, .owner = b->owner, .buffer = b->buffer};
        status = UMO_OK;
    }
    (void)pthread_mutex_unlock(&blocks->lock);
    return status;
}

static uint64_t read_locked(umo_blocks *blocks, const uint64_t *figure)
{
    (void)pthread_mutex_lock(&blocks->lock);
    uint64_t value = *figure;
    (void)pthread_mutex_unlock(&blocks->lock);
    return value;
}

uint64_t umo_blocks_activity(umo_blocks *blocks)
{
    return read_locked(blocks, &blocks->activity);
}

uint64_t umo_blocks_kept(umo_blocks *blocks)
{
    return read_locked(blocks, &blocks->kept_bytes);
}

uint64_t umo_blocks_reserved(umo_blocks *blocks)
{
    return read_locked(blocks, &blocks->stats.reserved_bytes);
}

uint64_t umo_blocks_live(umo_blocks *blocks)
{
    return read_locked(blocks, &blocks->stats.live_bytes);
}

uint64_t umo_blocks_peak(umo_blocks *blocks)
{
    return read_locked(blocks, &blocks->stats.peak_live_bytes);
}

bool umo_blocks_disarm(umo_blocks *blocks, uint64_t activity)
{
    (void)pthread_mutex_lock(&blocks->lock);
    bool same = blocks->activity == activity;
    if (same) {
        blocks->armed = false;
    }
    (void)pthread_mutex_unlock(&blocks->lock);
    return same;
}

void umo_blocks_read(umo_blocks *blocks, umo_pool_stats *out)
{
    (void)pthread_mutex_lock(&blocks->lock);
    const umo_pool_stats *own = &blocks->stats;
    size_t nodes = 0;
    size_t longest = 0;
    for (umo_list_link *link = blocks->all.next; link != &blocks->all; link = link->next) {
        const block *b = UMO_LIST_ENTRY(link, block, in_all);
        nodes++;
        longest = !b->live && b->whole_bytes > longest ? b->whole_bytes : longest;
    }
    out->hits += own->hits;
    out->scrubbed_bytes += own->scrubbed_bytes;
    out->metadata_bytes += nodes * sizeof(block);
    if (blocks->carve == NULL) {
        out->kept_bytes = blocks->kept_bytes;
        out->live_bytes = own->live_bytes;
        out->peak_live_bytes = own->peak_live_bytes;
        out->reserved_bytes = own->reserved_bytes;
        out->peak_reserved_bytes = own->peak_reserved_bytes;
        out->misses = own->misses;
        out->trims = own->trims;
        out->trimmed_bytes = own->trimmed_bytes;
        out->fragmentation =
            out->kept_bytes > longest ? 1.0 - (double)longest / (double)out->kept_bytes : 0.0;
    }
    (void)pthread_mutex_unlock(&blocks->lock);
}

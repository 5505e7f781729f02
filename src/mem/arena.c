/*
 * See arena.h. Chunks are linked by a small table beside them, never by their own first bytes: they
 * may be handed to a device. Each is as long as all before it, so a request of any size needs few.
 *
 * A plan's block is the first that a request takes. What the plan has no place for comes behind
 * what the plan has placed in this request, by the mark, and so never meets it.
 */
#include "base/size.h"
#include "mem/arena_plan.h"

#include <umo/arena.h>

#include <stdlib.h>

#define FIRST_BYTES ((size_t)64 << 10)
#define ALIGN_MAX_BYTES ((size_t)4096)
/* Chunks double: more would not fit any range of addresses. */
#define CHUNKS_MAX 48u
/* Requests that are looked back at. */
#define REQUESTS 8u

typedef struct chunk {
    char *data;
    size_t size_bytes;
} chunk;

struct umo_arena {
    umo_arena_options options;
    chunk chunks[CHUNKS_MAX];
    size_t chunk_count;
    size_t at_bytes;   /* in the last chunk: where the next memory is taken from */
    size_t next_bytes; /* of the next first chunk */
    unsigned requests;
    size_t recent_bytes; /* the most of the last requests */
    bool begun;          /* this request has taken something */
    umo_arena_plan plan;
    umo_arena_stats stats;
};

umo_status umo_arena_create(const umo_arena_options *options, umo_arena **out, umo_error *error)
{
    if (options->pool == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "an arena needs a pool");
    }
    void *probe = NULL;
    if (umo_pool_take(options->pool, 0, 0, &probe) == UMO_E_UNSUPPORTED) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the pool's memory has no plain addresses");
    }
    umo_arena *arena = calloc(1, sizeof *arena);
    if (arena == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an arena");
    }
    arena->options = *options;
    arena->next_bytes = options->first_bytes != 0 ? options->first_bytes : FIRST_BYTES;
    *out = arena;
    return UMO_OK;
}

static void chunks_give(umo_arena *arena)
{
    for (size_t i = 0; i < arena->chunk_count; i++) {
        /* It was taken from this pool and given nowhere: INVAL cannot be. */
        umo_status_ignore(umo_pool_give(arena->options.pool, arena->chunks[i].data));
    }
    arena->chunk_count = 0;
    arena->at_bytes = 0;
    arena->stats.held_bytes = 0;
}

void umo_arena_destroy(umo_arena *arena)
{
    if (arena != NULL) {
        chunks_give(arena);
        umo_arena_plan_finish(&arena->plan);
        free(arena);
    }
}

/* Another chunk, of at least size_bytes. */
static umo_status chunk_add(umo_arena *arena, size_t size_bytes)
{
    if (arena->chunk_count == CHUNKS_MAX) {
        return UMO_E_LIMIT;
    }
    size_t want = arena->chunk_count == 0 ? arena->next_bytes : arena->stats.held_bytes;
    want = want > size_bytes ? want : size_bytes;
    void *data = NULL;
    umo_status status = umo_pool_take(arena->options.pool, want, arena->options.owner, &data);
    if (status != UMO_OK && want > size_bytes) {
        want = size_bytes; /* then just what is needed */
        status = umo_pool_take(arena->options.pool, want, arena->options.owner, &data);
    }
    if (status != UMO_OK) {
        return status;
    }
    arena->chunks[arena->chunk_count++] = (chunk){data, want};
    arena->at_bytes = 0;
    arena->stats.held_bytes += want;
    return UMO_OK;
}

/* Takes from the last chunk; NULL when it does not fit. */
static inline void *chunk_take(umo_arena *arena, size_t size_bytes, size_t align_bytes)
{
    if (arena->chunk_count == 0) {
        return NULL;
    }
    const chunk *last = &arena->chunks[arena->chunk_count - 1];
    uintptr_t free_at = (uintptr_t)last->data + arena->at_bytes;
    size_t padding = (size_t)(-free_at & (align_bytes - 1));
    size_t left = last->size_bytes - arena->at_bytes;
    if (padding > left || size_bytes > left - padding) {
        return NULL;
    }
    arena->at_bytes += padding + size_bytes;
    arena->stats.used_bytes += padding + size_bytes;
    return (void *)(free_at + padding);
}

/* Has the planned block lie at the begin of the first chunk. Without memory for it the request goes
 * without the plan. */
static __attribute__((noinline)) void request_begin(umo_arena *arena)
{
    const size_t block_bytes = arena->stats.planned_bytes;
    arena->begun = true;
    if (block_bytes == 0) {
        return;
    }
    char *block = chunk_take(arena, block_bytes, ALIGN_MAX_BYTES);
    if (block == NULL) { /* no chunk, or one of a request that went without; nothing is in it yet */
        chunks_give(arena);
        if (chunk_add(arena, block_bytes + ALIGN_MAX_BYTES - 1) != UMO_OK) {
            return;
        }
        block = chunk_take(arena, block_bytes, ALIGN_MAX_BYTES);
    }
    umo_arena_plan_begin(&arena->plan, block);
}

/* Moves the mark back over the end of the block that a request which left its plan has never had.
 * The block is the last that was taken by the mark: planned places do not move it. */
static void mark_return(umo_arena *arena)
{
    arena->at_bytes -= arena->plan.unused_bytes;
    arena->stats.used_bytes -= arena->plan.unused_bytes;
    arena->plan.unused_bytes = 0;
}

static void peak_note(umo_arena *arena)
{
    if (arena->stats.used_bytes > arena->stats.peak_bytes) {
        arena->stats.peak_bytes = arena->stats.used_bytes;
    }
}

umo_status umo_arena_alloc(umo_arena *arena, size_t size_bytes, size_t align_bytes, void **out)
{
    size_t most;
    if (size_bytes == 0 || !umo_is_power_of_two(align_bytes) || align_bytes > ALIGN_MAX_BYTES ||
        __builtin_add_overflow(size_bytes, align_bytes - 1, &most)) {
        return UMO_E_INVAL;
    }
    if (!arena->begun) {
        request_begin(arena);
    }
    void *data = NULL;
    if (arena->plan.follows) {
        data = umo_arena_plan_take(&arena->plan, size_bytes, align_bytes);
    }
    if (data != NULL) {
        peak_note(arena);
        *out = data;
        return UMO_OK;
    }
    mark_return(arena);
    data = chunk_take(arena, size_bytes, align_bytes);
    if (data == NULL) {
        umo_status status = chunk_add(arena, most);
        if (status != UMO_OK) {
            return status;
        }
        data = chunk_take(arena, size_bytes, align_bytes);
    }
    if (arena->plan.noting) {
        umo_arena_plan_took(&arena->plan, size_bytes, align_bytes, data);
    }
    peak_note(arena);
    *out = data;
    return UMO_OK;
}

umo_status umo_arena_free(umo_arena *arena, const void *data)
{
    return data == NULL ? UMO_OK : umo_arena_plan_free(&arena->plan, data);
}

void umo_arena_reset(umo_arena *arena)
{
    const bool replanned = umo_arena_plan_end(&arena->plan);
    mark_return(arena);
    size_t used = arena->stats.used_bytes;
    arena->recent_bytes = used > arena->recent_bytes ? used : arena->recent_bytes;
    bool shrinks = false;
    if (++arena->requests == REQUESTS) {
        /* A planned block's chunk has room to align it, wherever the pool has it lie. */
        size_t room = arena->stats.planned_bytes > 0 ? ALIGN_MAX_BYTES - 1 : 0;
        shrinks = arena->recent_bytes + room / 2 < arena->stats.held_bytes / 2;
        if (shrinks) {
            arena->next_bytes = arena->recent_bytes > 0 ? arena->recent_bytes : FIRST_BYTES;
        }
        arena->requests = 0;
        arena->recent_bytes = 0;
    }
    if (arena->chunk_count > 1) {
        arena->next_bytes = arena->stats.held_bytes;
        shrinks = true;
    }
    arena->stats.planned_bytes = arena->plan.block_bytes;
    if (replanned) {
        arena->next_bytes = arena->plan.block_bytes + ALIGN_MAX_BYTES - 1; /* cannot overflow */
        shrinks = true;
    }
    if (shrinks) {
        chunks_give(arena);
    }
    arena->at_bytes = 0;
    arena->begun = false;
    arena->stats.used_bytes = 0;
}

void umo_arena_read(const umo_arena *arena, umo_arena_stats *out)
{
    *out = arena->stats;
    out->chunk_count = arena->chunk_count;
}

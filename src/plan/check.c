/*
 * Checks plans. In the order of time, each buffer that begins must lie between its neighbours in
 * memory of those that are in use: as they do not overlap, no others need be looked at. Shares
 * nothing with what makes plans.
 */
#include <umo/plan.h>

#include <inttypes.h>
#include <stdlib.h>

#define LEVELS 5u /* of 64 each: more than UMO_PLAN_BUFFERS_MAX */

/* A set of ranks; each level has a bit for each word below that is not empty. */
typedef struct rank_set {
    uint64_t *levels[LEVELS];
} rank_set;

typedef struct moment {
    int64_t time;
    uint32_t buffer;
    bool begin;
} moment;

typedef struct by_offset {
    int64_t offset;
    uint32_t buffer;
} by_offset;

typedef struct checker {
    const umo_plan_buffer *buffers;
    const int64_t *offsets;
    rank_set in_use;
    moment *moments;
    by_offset *sorted;
    uint32_t *rank; /* of each buffer in sorted */
} checker;

static bool set_init(rank_set *set, size_t count)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        count = count / 64 + 1;
        set->levels[level] = calloc(count, sizeof(uint64_t));
        if (set->levels[level] == NULL) {
            return false;
        }
    }
    return true;
}

static void set_finish(rank_set *set)
{
    for (unsigned level = 0; level < LEVELS; level++) {
        free(set->levels[level]);
    }
}

static void set_add(rank_set *set, uint32_t rank)
{
    for (unsigned level = 0; level < LEVELS; level++, rank /= 64) {
        set->levels[level][rank / 64] |= UINT64_C(1) << rank % 64;
    }
}

static void set_remove(rank_set *set, uint32_t rank)
{
    for (unsigned level = 0; level < LEVELS; level++, rank /= 64) {
        set->levels[level][rank / 64] &= ~(UINT64_C(1) << rank % 64);
        if (set->levels[level][rank / 64] != 0) {
            return;
        }
    }
}

/* The nearest member before or after a rank; UINT32_MAX if there is none. */
static uint32_t set_near(const rank_set *set, uint32_t rank, bool after)
{
    for (unsigned level = 0; level < LEVELS; level++, rank /= 64) {
        const unsigned bit = rank % 64;
        uint64_t word = set->levels[level][rank / 64];
        if (after) {
            word = bit == 63 ? 0 : word & (~UINT64_C(0) << (bit + 1));
        } else {
            word &= (UINT64_C(1) << bit) - 1;
        }
        if (word == 0) {
            continue;
        }
        uint32_t at = rank / 64;
        for (;; level--) {
            const unsigned found =
                after ? (unsigned)__builtin_ctzll(word) : 63u - (unsigned)__builtin_clzll(word);
            at = at * 64 + found;
            if (level == 0) {
                return at;
            }
            word = set->levels[level - 1][at];
        }
    }
    return UINT32_MAX;
}

static int moment_compare(const void *left, const void *right)
{
    const moment *a = left;
    const moment *b = right;
    if (a->time != b->time) {
        return a->time < b->time ? -1 : 1;
    }
    return a->begin == b->begin ? 0 : a->begin ? 1 : -1;
}

static int offset_compare(const void *left, const void *right)
{
    const by_offset *a = left;
    const by_offset *b = right;
    if (a->offset != b->offset) {
        return a->offset < b->offset ? -1 : 1;
    }
    return a->buffer < b->buffer ? -1 : a->buffer > b->buffer;
}

static umo_status buffer_check(const umo_plan_buffer *b, int64_t offset, size_t i, umo_error *error)
{
    if (b->upper <= b->lower || b->size_bytes == 0 || b->size_bytes > UMO_PLAN_BYTES_MAX ||
        b->align_bytes > UMO_PLAN_BYTES_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "buffer %zu: its lifetime, size or alignment cannot be", i);
    }
    if (offset < 0 || (int64_t)b->size_bytes > INT64_MAX - offset) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "buffer %zu: does not fit 63 bits at offset %" PRId64, i, offset);
    }
    if (b->align_bytes > 1 && (uint64_t)offset % b->align_bytes != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "buffer %zu: offset %" PRId64
                             " is no multiple of its alignment, %" PRIu64,
                             i, offset, b->align_bytes);
    }
    return UMO_OK;
}

/* Whether the lower one of two neighbours ends where the upper one begins, or before. */
static umo_status pair_check(const checker *c, uint32_t low, uint32_t high, umo_error *error)
{
    const int64_t end = c->offsets[low] + (int64_t)c->buffers[low].size_bytes;
    if (end <= c->offsets[high]) {
        return UMO_OK;
    }
    return umo_error_set(error, UMO_E_INVAL, 0,
                         "buffers %u and %u are in use at once and overlap: [%" PRId64 ", %" PRId64
                         ") and from %" PRId64,
                         low, high, c->offsets[low], end, c->offsets[high]);
}

static umo_status sweep(checker *c, size_t count, umo_error *error)
{
    for (size_t k = 0; k < 2 * count; k++) {
        const uint32_t i = c->moments[k].buffer;
        const uint32_t rank = c->rank[i];
        if (!c->moments[k].begin) {
            set_remove(&c->in_use, rank);
            continue;
        }
        const uint32_t below = set_near(&c->in_use, rank, false);
        const uint32_t above = set_near(&c->in_use, rank, true);
        umo_status status = UMO_OK;
        if (below != UINT32_MAX) {
            status = pair_check(c, c->sorted[below].buffer, i, error);
        }
        if (status == UMO_OK && above != UINT32_MAX) {
            status = pair_check(c, i, c->sorted[above].buffer, error);
        }
        if (status != UMO_OK) {
            return status;
        }
        set_add(&c->in_use, rank);
    }
    return UMO_OK;
}

umo_status umo_plan_check(const umo_plan_buffer *buffers, size_t count, const int64_t *offsets,
                          int64_t *peak_bytes, umo_error *error)
{
    if (count > UMO_PLAN_BUFFERS_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu buffers: a plan has at most %u", count,
                             UMO_PLAN_BUFFERS_MAX);
    }
    int64_t peak = 0;
    for (size_t i = 0; i < count; i++) {
        const umo_status status = buffer_check(&buffers[i], offsets[i], i, error);
        if (status != UMO_OK) {
            return status;
        }
        const int64_t end = offsets[i] + (int64_t)buffers[i].size_bytes;
        peak = end > peak ? end : peak;
    }
    checker c = {.buffers = buffers, .offsets = offsets};
    c.moments = calloc(2 * count + 1, sizeof *c.moments);
    c.sorted = calloc(count + 1, sizeof *c.sorted);
    c.rank = calloc(count + 1, sizeof *c.rank);
    umo_status status = UMO_E_NOMEM;
    if (!set_init(&c.in_use, count) || c.moments == NULL || c.sorted == NULL || c.rank == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory to check a plan");
        goto done;
    }
    for (uint32_t i = 0; i < count; i++) {
        c.moments[2 * (size_t)i] = (moment){buffers[i].lower, i, true};
        c.moments[2 * (size_t)i + 1] = (moment){buffers[i].upper, i, false};
        c.sorted[i] = (by_offset){offsets[i], i};
    }
    qsort(c.moments, 2 * count, sizeof *c.moments, moment_compare);
    qsort(c.sorted, count, sizeof *c.sorted, offset_compare);
    for (uint32_t k = 0; k < count; k++) {
        c.rank[c.sorted[k].buffer] = k;
    }
    status = sweep(&c, count, error);
    if (status == UMO_OK && peak_bytes != NULL) {
        *peak_bytes = peak;
    }

done:
    set_finish(&c.in_use);
    free(c.moments);
    free(c.sorted);
    free(c.rank);
    return status;
}

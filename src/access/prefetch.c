/*
 * The prefetcher: a window of past uses, the majority among the distances between them, and what
 * follows from it. Small and under one lock, since a use of a range costs far more than this.
 */
#include <umo/prefetch.h>

#include "base/size.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define WINDOW 32u /* uses that are remembered; a power of two */
#define TREND_MIN 4u
#define DISTANCE_MAX 64u
#define NEAR_BYTES ((size_t)64 << 10)

struct umo_prefetcher {
    umo_buffer *buffer;
    umo_side side;
    pthread_mutex_t lock; /* all below */
    umo_prefetch_hint hint;
    umo_prefetch_range uses[WINDOW]; /* a ring; the newest at (count - 1) % WINDOW */
    uint64_t count;
    size_t furthest; /* one past the last byte that was used, while every use
                        began there or later */
    bool once;       /* likewise: no byte was used twice so far */
    uint32_t adaptive;
    umo_prefetch_range last_fetch[UMO_PREFETCH_DEGREE_MAX];
    size_t last_fetch_count;
    umo_prefetch_stats stats;
};

umo_status umo_prefetcher_create(umo_buffer *buffer, umo_side side, umo_prefetch_hint hint,
                                 umo_prefetcher **out, umo_error *error)
{
    if ((side != UMO_SIDE_HOST && side != UMO_SIDE_DEVICE) ||
        (unsigned)hint > UMO_PREFETCH_ADAPTIVE) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no such side or hint");
    }
    umo_prefetcher *p = calloc(1, sizeof *p);
    if (p == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a prefetcher");
    }
    (void)pthread_mutex_init(&p->lock, NULL);
    umo_buffer_acquire(buffer);
    p->buffer = buffer;
    p->side = side;
    p->hint = hint;
    p->once = true;
    p->adaptive = 1;
    p->stats.distance = 1;
    *out = p;
    return UMO_OK;
}

void umo_prefetcher_destroy(umo_prefetcher *p)
{
    if (p != NULL) {
        umo_buffer_release(p->buffer);
        (void)pthread_mutex_destroy(&p->lock);
        free(p);
    }
}

umo_status umo_prefetcher_advise(umo_prefetcher *p, umo_prefetch_hint hint)
{
    if ((unsigned)hint > UMO_PREFETCH_ADAPTIVE) {
        return UMO_E_INVAL;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->hint = hint;
    (void)pthread_mutex_unlock(&p->lock);
    return UMO_OK;
}

umo_status umo_prefetcher_set_distance(umo_prefetcher *p, uint32_t distance)
{
    if (distance == 0 || distance > DISTANCE_MAX) {
        return UMO_E_INVAL;
    }
    (void)pthread_mutex_lock(&p->lock);
    p->stats.distance = distance;
    (void)pthread_mutex_unlock(&p->lock);
    return UMO_OK;
}

/* The i-th use back; 0 is the newest. */
static const umo_prefetch_range *use_back(const umo_prefetcher *p, uint64_t i)
{
    return &p->uses[(p->count - 1 - i) % WINDOW];
}

/* From the use before it to the i-th one back. Offsets are below 2^63: buffers are shorter. */
static int64_t delta_back(const umo_prefetcher *p, uint64_t i)
{
    return (int64_t)use_back(p, i)->offset_bytes - (int64_t)use_back(p, i + 1)->offset_bytes;
}

/* The distance that more than half of the newest n share. */
static bool majority(const umo_prefetcher *p, uint64_t n, int64_t *out)
{
    int64_t candidate = 0;
    uint64_t votes = 0;
    for (uint64_t i = 0; i < n; i++) {
        int64_t delta = delta_back(p, i);
        if (votes == 0) {
            candidate = delta;
        }
        votes += delta == candidate ? 1 : UINT64_MAX; /* minus one */
    }
    uint64_t found = 0;
    for (uint64_t i = 0; i < n; i++) {
        found += delta_back(p, i) == candidate ? 1 : 0;
    }
    *out = candidate;
    return found > n / 2;
}

static bool trend_find(const umo_prefetcher *p, uint64_t known, int64_t *stride)
{
    for (uint64_t n = TREND_MIN - 1; n < known; n = n * 2 + 1) {
        if (majority(p, n, stride)) {
            return true;
        }
    }
    return false;
}

/* Did at least half of the remembered uses begin where one of the others did, or near the last? */
static umo_prefetch_pattern neighbours_classify(const umo_prefetcher *p, uint64_t known)
{
    uint64_t again = 0;
    uint64_t close = 0;
    for (uint64_t i = 0; i + 1 < known; i++) {
        bool seen = false;
        for (uint64_t j = i + 1; j < known && !seen; j++) {
            seen = use_back(p, i)->offset_bytes == use_back(p, j)->offset_bytes;
        }
        int64_t delta = delta_back(p, i);
        again += seen ? 1 : 0;
        close += (delta < 0 ? -delta : delta) <= (int64_t)NEAR_BYTES ? 1 : 0;
    }
    if (2 * again >= known - 1) {
        return UMO_PREFETCH_TEMPORAL;
    }
    return 2 * close >= known - 1 ? UMO_PREFETCH_SPATIAL : UMO_PREFETCH_RANDOM;
}

static void pattern_update(umo_prefetcher *p)
{
    uint64_t known = p->count < WINDOW ? p->count : WINDOW;
    umo_prefetch_stats *stats = &p->stats;
    stats->stride_bytes = 0;
    if (known < TREND_MIN) {
        stats->pattern = UMO_PREFETCH_UNKNOWN;
        return;
    }
    int64_t stride = 0;
    if (!trend_find(p, known, &stride) || stride == 0) {
        stats->pattern = neighbours_classify(p, known);
        return;
    }
    stats->stride_bytes = stride;
    if (stride != (int64_t)use_back(p, 0)->size_bytes) {
        stats->pattern = UMO_PREFETCH_STRIDED;
    } else {
        stats->pattern = p->once ? UMO_PREFETCH_STREAMING : UMO_PREFETCH_SEQUENTIAL;
    }
}

static uint32_t degree_of(const umo_prefetcher *p)
{
    static const uint32_t degrees[] = {0, 1, 4, 16};
    return p->hint == UMO_PREFETCH_ADAPTIVE ? p->adaptive : degrees[p->hint];
}

static size_t predict_trend(const umo_prefetcher *p, uint32_t degree, umo_prefetch_range *out)
{
    const umo_prefetch_range *last = use_back(p, 0);
    size_t total = umo_buffer_size(p->buffer);
    int64_t at = (int64_t)last->offset_bytes;
    size_t count = 0;
    for (uint32_t i = 1; i < p->stats.distance + degree; i++) {
        if (__builtin_add_overflow(at, p->stats.stride_bytes, &at) || at < 0 ||
            (uint64_t)at >= total) {
            break;
        }
        if (i >= p->stats.distance) {
            size_t left = total - (size_t)at;
            out[count++] =
                (umo_prefetch_range){(size_t)at, last->size_bytes < left ? last->size_bytes : left};
        }
    }
    return count;
}

/* What lies around the last use, as many bytes on each side as the degree of uses. */
static size_t predict_around(const umo_prefetcher *p, uint32_t degree, umo_prefetch_range *out)
{
    const umo_prefetch_range *last = use_back(p, 0);
    size_t total = umo_buffer_size(p->buffer);
    size_t reach;
    if (__builtin_mul_overflow(last->size_bytes, (size_t)degree, &reach) || reach > NEAR_BYTES) {
        reach = NEAR_BYTES;
    }
    size_t start = last->offset_bytes > reach ? last->offset_bytes - reach : 0;
    size_t end = last->offset_bytes + last->size_bytes;
    end = total - end > reach ? end + reach : total;
    out[0] = (umo_prefetch_range){start, end - start};
    return 1;
}

static size_t predict(const umo_prefetcher *p, umo_prefetch_range *out)
{
    uint32_t degree = degree_of(p);
    if (degree == 0) {
        return 0;
    }
    switch (p->stats.pattern) {
    case UMO_PREFETCH_SEQUENTIAL:
    case UMO_PREFETCH_STREAMING:
    case UMO_PREFETCH_STRIDED:
        return predict_trend(p, degree, out);
    case UMO_PREFETCH_SPATIAL:
        return predict_around(p, degree, out);
    case UMO_PREFETCH_UNKNOWN:
    case UMO_PREFETCH_RANDOM:
    case UMO_PREFETCH_TEMPORAL:
        break;
    }
    return 0;
}

static bool range_within(const umo_prefetch_range *inner, const umo_prefetch_range *outer)
{
    return inner->offset_bytes >= outer->offset_bytes &&
           umo_range_fits(inner->offset_bytes - outer->offset_bytes, inner->size_bytes,
                          outer->size_bytes);
}

/* Was the use predicted? Adapts how far to look ahead to the answer. */
static void prediction_judge(umo_prefetcher *p, const umo_prefetch_range *use)
{
    umo_prefetch_range ahead[UMO_PREFETCH_DEGREE_MAX];
    size_t count = p->count > 0 ? predict(p, ahead) : 0;
    bool hit = false;
    for (size_t i = 0; i < count && !hit; i++) {
        hit = range_within(use, &ahead[i]);
    }
    p->stats.predicted += hit ? 1 : 0;
    if (hit) {
        p->adaptive = p->adaptive < UMO_PREFETCH_DEGREE_MAX ? p->adaptive * 2 : p->adaptive;
    } else if (count > 0) {
        p->adaptive = p->adaptive > 1 ? p->adaptive / 2 : 1;
    }
}

umo_status umo_prefetcher_record(umo_prefetcher *p, size_t offset_bytes, size_t size_bytes)
{
    if (size_bytes == 0 || !umo_range_fits(offset_bytes, size_bytes, umo_buffer_size(p->buffer))) {
        return UMO_E_INVAL;
    }
    const umo_prefetch_range use = {offset_bytes, size_bytes};
    (void)pthread_mutex_lock(&p->lock);
    prediction_judge(p, &use);
    p->once = p->once && offset_bytes >= p->furthest;
    p->furthest = offset_bytes + size_bytes;
    p->uses[p->count++ % WINDOW] = use;
    pattern_update(p);
    (void)pthread_mutex_unlock(&p->lock);
    return UMO_OK;
}

size_t umo_prefetcher_predict(umo_prefetcher *p, umo_prefetch_range out[UMO_PREFETCH_DEGREE_MAX])
{
    (void)pthread_mutex_lock(&p->lock);
    size_t count = predict(p, out);
    (void)pthread_mutex_unlock(&p->lock);
    return count;
}

/* The prediction, less what the last one held; remembers it. */
static size_t fetch_begin(umo_prefetcher *p, umo_prefetch_range *out)
{
    umo_prefetch_range ahead[UMO_PREFETCH_DEGREE_MAX];
    (void)pthread_mutex_lock(&p->lock);
    size_t all = predict(p, ahead);
    size_t count = 0;
    for (size_t i = 0; i < all; i++) {
        bool known = false;
        for (size_t j = 0; j < p->last_fetch_count && !known; j++) {
            known = range_within(&ahead[i], &p->last_fetch[j]);
        }
        if (!known) {
            out[count++] = ahead[i];
        }
    }
    memcpy(p->last_fetch, ahead, sizeof ahead);
    p->last_fetch_count = all;
    (void)pthread_mutex_unlock(&p->lock);
    return count;
}

umo_status umo_prefetcher_run(umo_prefetcher *p, umo_error *error)
{
    umo_prefetch_range ranges[UMO_PREFETCH_DEGREE_MAX];
    size_t count = fetch_begin(p, ranges);
    umo_status first = UMO_OK;
    uint64_t fetched = 0;
    uint64_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        umo_status status =
            umo_buffer_prefetch(p->buffer, ranges[i].offset_bytes, ranges[i].size_bytes, p->side,
                                first == UMO_OK ? error : NULL);
        if (status == UMO_OK) {
            fetched++;
            bytes += ranges[i].size_bytes;
        } else if (status != UMO_E_BUSY && first == UMO_OK) {
            first = status;
        }
    }
    (void)pthread_mutex_lock(&p->lock);
    p->stats.fetched += fetched;
    p->stats.fetched_bytes += bytes;
    (void)pthread_mutex_unlock(&p->lock);
    return first;
}

void umo_prefetcher_read(umo_prefetcher *p, umo_prefetch_stats *out)
{
    (void)pthread_mutex_lock(&p->lock);
    *out = p->stats;
    out->degree = degree_of(p);
    out->uses = p->count;
    (void)pthread_mutex_unlock(&p->lock);
}

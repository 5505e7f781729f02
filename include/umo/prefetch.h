/**
 * @file prefetch.h
 * Guesses which bytes of a buffer are used next, and gets them ready.
 *
 * A prefetcher watches the uses of one buffer. The distances between them show
 * a trend if more than half of a window of them agree; windows are looked at
 * from the shortest on, so a new trend is found soon and a disturbance does not
 * hide an old one. What it predicts it may fetch (umo_prefetcher_run()), and it
 * counts how often it was right.
 *
 * Source: the majority trend of Leap (Al Maruf, Chowdhury, USENIX ATC 2020),
 * found by the vote of Boyer and Moore.
 */
#ifndef UMO_PREFETCH_H
#define UMO_PREFETCH_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What the uses of a buffer look like. */
typedef enum umo_prefetch_pattern {
    UMO_PREFETCH_UNKNOWN = 0,    /**< fewer than 4 uses */
    UMO_PREFETCH_SEQUENTIAL = 1, /**< each begins where the last one ended */
    UMO_PREFETCH_STRIDED = 2,    /**< equal distances, forward or back */
    UMO_PREFETCH_RANDOM = 3,     /**< none of the others: nothing is predicted */
    UMO_PREFETCH_STREAMING = 4,  /**< sequential, and every byte was used at most once so far */
    UMO_PREFETCH_TEMPORAL = 5,   /**< the same few places again and again: they are there already */
    UMO_PREFETCH_SPATIAL = 6 /**< no trend, but near each other: the surroundings are predicted */
} umo_prefetch_pattern;

/** How much is fetched ahead. */
typedef enum umo_prefetch_hint {
    UMO_PREFETCH_NONE = 0,         /**< nothing */
    UMO_PREFETCH_CONSERVATIVE = 1, /**< the next use */
    UMO_PREFETCH_MODERATE = 2,     /**< the next 4 */
    UMO_PREFETCH_AGGRESSIVE = 3,   /**< the next 16 */
    UMO_PREFETCH_ADAPTIVE = 4      /**< 1 to 16: twice as many after hits, half after misses */
} umo_prefetch_hint;

/** Most ranges of one prediction. */
#define UMO_PREFETCH_DEGREE_MAX 16u

/** A range of the buffer. */
typedef struct umo_prefetch_range {
    size_t offset_bytes;
    size_t size_bytes;
} umo_prefetch_range;

typedef struct umo_prefetch_stats {
    umo_prefetch_pattern pattern;
    int64_t stride_bytes;   /**< from use to use, where there is a trend; else 0 */
    uint32_t degree;        /**< how many uses are predicted now */
    uint32_t distance;      /**< how many uses ahead the first of them is; 1 is the
                               next one */
    uint64_t uses;          /**< recorded */
    uint64_t predicted;     /**< uses that were in the prediction before them */
    uint64_t fetched;       /**< ranges that umo_prefetcher_run() got ready */
    uint64_t fetched_bytes; /**< of them */
} umo_prefetch_stats;

typedef struct umo_prefetcher umo_prefetcher;

/**
 * Watches a buffer.
 *
 * @param side  Where the uses are: what umo_prefetcher_run() brings bytes to.
 *
 * Errors:    INVAL no such side or hint. NOMEM.
 * Ownership: umo_prefetcher_destroy(). Holds a reference to the buffer.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_prefetcher_create(umo_buffer *buffer, umo_side side,
                                                      umo_prefetch_hint hint, umo_prefetcher **out,
                                                      umo_error *error);
/** NULL is allowed. */
UMO_API void umo_prefetcher_destroy(umo_prefetcher *prefetcher);

/** From now on. Errors: INVAL no such hint. Threads: any. */
UMO_API UMO_MUST_USE umo_status umo_prefetcher_advise(umo_prefetcher *prefetcher,
                                                      umo_prefetch_hint hint);

/** How many uses ahead the prediction begins, for fetches that take longer than
 * a use; 1 at the start. Errors: INVAL 0, or more than 64. Threads: any. */
UMO_API UMO_MUST_USE umo_status umo_prefetcher_set_distance(umo_prefetcher *prefetcher,
                                                            uint32_t distance);

/**
 * Records a use.
 *
 * Errors:    INVAL  outside of the buffer, or no byte.
 * Threads:   any. One short lock.
 * Cost:      at most some 60 comparisons; no allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_prefetcher_record(umo_prefetcher *prefetcher,
                                                      size_t offset_bytes, size_t size_bytes);

/** The ranges that are used next, the soonest first: UMO_PREFETCH_DEGREE_MAX at
 * most, cut at the buffer's ends. Returns how many. Threads: any. */
UMO_API size_t umo_prefetcher_predict(umo_prefetcher *prefetcher,
                                      umo_prefetch_range out[UMO_PREFETCH_DEGREE_MAX]);

/**
 * Gets what is predicted ready, except what it got ready just before. A range
 * in use is left out.
 *
 * Errors:    as umo_buffer_prefetch(), except BUSY: the first one, after all
 * were tried. Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_prefetcher_run(umo_prefetcher *prefetcher, umo_error *error);

/** Reads the figures, all of one instant. Threads: any. */
UMO_API void umo_prefetcher_read(umo_prefetcher *prefetcher, umo_prefetch_stats *out);

#ifdef __cplusplus
}
#endif

#endif

/**
 * @file plan.h
 * Lifetimes in, offsets out: where buffers lie in one block of memory, so that the block is short.
 *
 * Two buffers whose lifetimes meet never share a byte; all others may. The shortest block is
 * NP-hard to find (dynamic storage allocation). umo_plan() tries the lower bound first, proves the
 * optimum of most instances of a few hundred buffers in milliseconds, and has a good plan for tens
 * of thousands at once that gets better with time. docs/planning.md says how.
 */
#ifndef UMO_PLAN_H
#define UMO_PLAN_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Sizes, alignments, offsets and peaks are below 2^63. */
#define UMO_PLAN_BYTES_MAX INT64_MAX
/** Buffers of one plan. */
#define UMO_PLAN_BUFFERS_MAX 8000000u

/** One buffer: in use from `lower` until just before `upper`, in any unit of time. */
typedef struct umo_plan_buffer {
    int64_t lower;
    int64_t upper;        /**< more than lower */
    uint64_t size_bytes;  /**< 1 to UMO_PLAN_BYTES_MAX */
    uint64_t align_bytes; /**< the offset is a multiple of it; any number; 0 is 1 */
} umo_plan_buffer;

/** What a plan is known to be. */
typedef enum umo_plan_proof {
    UMO_PLAN_OPEN = 0,      /**< a better one may exist */
    UMO_PLAN_AT_BOUND = 1,  /**< optimal: as long as what is in use at once */
    UMO_PLAN_EXHAUSTED = 2, /**< optimal: the search went through everything that is shorter */
    UMO_PLAN_INFEASIBLE = 3 /**< no plan fits the capacity: proven */
} umo_plan_proof;

/** How far a search is. */
typedef struct umo_plan_progress {
    int64_t peak_bytes;  /**< of the best plan so far; -1 while there is none */
    int64_t bound_bytes; /**< no plan is shorter */
    uint64_t nodes;
    uint64_t time_ns;
} umo_plan_progress;

/** How a plan is looked for. Start from umo_plan_options_init(). */
typedef struct umo_plan_options {
    /** 0: the shortest block. Else any plan of at most so many bytes will do, and the search ends
     * with the first. */
    uint64_t capacity_bytes;
    /** 1 s. 0: no limit. Where a search is cut short depends on the machine, so two runs may differ
     * in how good their plans are; what is tried, and in which order, does not. A first plan is
     * made even if it passes meanwhile: some 0.1 s for 10,000 buffers, 0.5 s for 60,000, 3 s for
     * 300,000, whatever their lifetimes are. */
    uint64_t time_limit_ns;
    /** 0: no limit. The same buffers, options and node limit give the same plan on every machine,
     * if no time limit passes first. Without either limit 1,000,000 is taken. A node is a state of
     * the search, or a buffer placed by a construction. */
    uint64_t node_limit;
    uint64_t seed; /**< 0: any number gives another order of what is tried */
    /** Asked every now and then (about every 50 us), with how far it is; false ends the search,
     * and the best plan so far is kept, or the first one, which is made to its end. NULL: nobody
     * asks. It must not call umo_plan(). */
    bool (*progress)(const umo_plan_progress *progress, void *user);
    void *user;
} umo_plan_options;

/** What came out. */
typedef struct umo_plan_result {
    int64_t peak_bytes;  /**< length of the block; -1 where no plan was found */
    int64_t bound_bytes; /**< no plan is shorter: what is in use at once, or more where proven */
    int64_t live_bytes;  /**< most bytes in use at once, with what alignment costs at least */
    umo_plan_proof proof;
    bool interrupted;  /**< by the caller's progress() */
    bool out_of_limit; /**< a limit passed before there was a proof */
    uint64_t nodes;
    uint64_t time_ns;
} umo_plan_result;

/** No capacity, one second, no node limit, seed 0. Threads: any. */
UMO_API void umo_plan_options_init(umo_plan_options *options);

/**
 * Finds an offset for each buffer.
 *
 * @param buffers       `count` of them; 0 have a plan of 0 bytes.
 * @param options       NULL: as umo_plan_options_init() leaves them.
 * @param[out] offsets  `count` of them, in the order of the buffers. Written on UMO_OK, and on
 *                      LIMIT and TIMEOUT where there is a plan that is longer than the capacity.
 * @param[out] result   Written on the same, and on LIMIT and TIMEOUT without a plan.
 *
 * Errors:    INVAL    a buffer whose lifetime ends before it begins, of size 0 or beyond 63 bits,
 *                     or too many buffers; the text has the number of the buffer in the array.
 *            LIMIT    the capacity is below what is in use at once (the text has both), no plan of
 *                     that capacity exists (proven: proof is INFEASIBLE), or none of less than
 *                     2^63 bytes was found: near that, padding counts that a plan may not need.
 *            TIMEOUT  a limit passed, or progress() ended it, before a plan of that capacity was
 *                     found, or its absence proven. Never without a capacity.
 *            NOMEM.
 * Threads:   any; one call works on one thread.
 * Cost:      up to the limits. Memory: about 300 bytes a buffer; the search takes up to 150 MB
 *            more (64 MB of lists, 16 MB of states that failed, 64 MB to undo what was tried).
 * Source:    docs/planning.md; states after MiniMalloc (Moffitt, ASPLOS 2023).
 */
UMO_API UMO_MUST_USE umo_status umo_plan(const umo_plan_buffer *buffers, size_t count,
                                         const umo_plan_options *options, int64_t *offsets,
                                         umo_plan_result *result, umo_error *error);

/**
 * Checks a plan by another way than it was made: no two buffers in use at once share a byte, and
 * every offset is aligned.
 *
 * @param[out] peak_bytes  Length of the block; written on UMO_OK. NULL is allowed.
 *
 * Errors:    INVAL  it is none; the text has the numbers of the buffers. As umo_plan() too.
 *            NOMEM.
 * Threads:   any.
 * Cost:      O(n log n).
 */
UMO_API UMO_MUST_USE umo_status umo_plan_check(const umo_plan_buffer *buffers, size_t count,
                                               const int64_t *offsets, int64_t *peak_bytes,
                                               umo_error *error);

/** Buffers with names, and their plan if there is one: a CSV file in memory. */
typedef struct umo_plan_table {
    umo_plan_buffer *buffers;
    const char **ids; /**< `count` texts, all different */
    int64_t *offsets; /**< NULL: there are none */
    size_t count;
    void *text; /**< what the ids point into */
} umo_plan_table;

/**
 * Reads a CSV file (RFC 4180) whose header names the columns: id, lower, upper, size, and if there
 * are any alignment and offset; others are left out. Rows end with LF or CRLF.
 *
 * Errors:    INVAL      a line that is wrong: the text has its number, and what is wrong.
 *            NOT_FOUND  no such file. SYSTEM it cannot be read. LIMIT it is longer than 1 GiB.
 *            NOMEM.
 * Ownership: umo_plan_table_finish() for each success.
 * Threads:   any.
 * Cost:      three times the file's length in memory.
 */
UMO_API UMO_MUST_USE umo_status umo_plan_table_read(const char *path, umo_plan_table *out,
                                                    umo_error *error);

/**
 * The same from memory.
 *
 * @param name  Stands for the file in errors.
 *
 * Errors:    as umo_plan_table_read(), but for NOT_FOUND and SYSTEM.
 * Ownership: copies the text; umo_plan_table_finish() for each success.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_plan_table_parse(const char *csv, size_t size_bytes,
                                                     const char *name, umo_plan_table *out,
                                                     umo_error *error);

/**
 * Writes a table as a CSV file that umo_plan_table_read() reads. The file is replaced in one step:
 * it is the old one or the new one.
 *
 * Errors:    INVAL  no path. SYSTEM it cannot be written. NOMEM.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_plan_table_write(const umo_plan_table *table, const char *path,
                                                     umo_error *error);

/** Frees what a table holds; one of zeros is allowed. Threads: any, one at a time for a table. */
UMO_API void umo_plan_table_finish(umo_plan_table *table);

#ifdef __cplusplus
}
#endif

#endif

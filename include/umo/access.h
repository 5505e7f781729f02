/**
 * @file access.h
 * How memory is used: every access counted, by side; what pattern that makes; buffers by address.
 *
 * Recording costs a few nanoseconds and takes no lock: each thread counts in a table of its own,
 * which readers add up (docs/patterns.md). Buffers that umo allocates are recorded from the start:
 * every bracket on them is an access. Memory that is imported, which a server does on its hot path,
 * is recorded once somebody asks: umo_buffer_track(), or the first umo_access_record().
 */
#ifndef UMO_ACCESS_H
#define UMO_ACCESS_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How memory is mostly used; the mission's names. docs/patterns.md defines each. */
typedef enum umo_pattern {
    UMO_PATTERN_UNKNOWN = 0,      /**< too little is known */
    UMO_PATTERN_CPU_DOMINANT = 1, /**< the host moves nearly all bytes */
    UMO_PATTERN_GPU_DOMINANT = 2, /**< the device moves nearly all bytes */
    UMO_PATTERN_BALANCED = 3,     /**< both sides, in no order that streaming has */
    UMO_PATTERN_STREAMING = 4     /**< one side writes, the other reads it about once, in turns */
} umo_pattern;

#define UMO_PATTERNS 5

/** "cpu_dominant"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_pattern_name(umo_pattern pattern);

/** What one side did. A use that reads and writes is in both. */
typedef struct umo_side_stats {
    umo_tally reads; /**< since the buffer was made */
    umo_tally writes;
    double recent_reads; /**< the same with old accesses fading, see umo_access_stats */
    double recent_writes;
    double recent_read_bytes;
    double recent_write_bytes;
} umo_side_stats;

/**
 * How a buffer was used. Totals never lose a count: they are exact as soon as no thread records.
 *
 * In the recent figures an access counts half for every UMO_ACCESS_WINDOW accesses of the buffer
 * that came after its window was full. They depend on the order of the accesses alone, not on time.
 */
typedef struct umo_access_stats {
    umo_side_stats host;
    umo_side_stats device;
    uint64_t accesses; /**< one for each call, also where it reads and writes */
    double recent_accesses;
    double recent_turns;  /**< how often the side was another one than at the access before */
    uint64_t last_ns;     /**< when the last access was (CLOCK_MONOTONIC); 0 for never */
    umo_pattern declared; /**< by umo_buffer_set_pattern() */
} umo_access_stats;

/** Accesses after which older ones count half. */
#define UMO_ACCESS_WINDOW 128

/**
 * Counts an access of a buffer. Brackets do this by themselves; do it for uses outside of them.
 *
 * @param size_bytes  1 or more, and not more than the buffer has.
 *
 * Errors:    INVAL  NULL, no such side or use, or another size.
 *            NOMEM  no memory to count in; the next access tries again.
 * Threads:   any.
 * Cost:      no lock, no system call, no allocation, and nothing written that another thread reads,
 *            but for one access in UMO_ACCESS_WINDOW, and where a thread turns to a buffer that it
 *            has not used lately.
 */
UMO_API UMO_MUST_USE umo_status umo_access_record(umo_buffer *buffer, umo_side side, umo_use use,
                                                  uint64_t size_bytes);

/**
 * The same for memory known by its host address, the first byte of a buffer or one inside it.
 *
 * Where tracked buffers overlap, the one that was tracked last is meant.
 *
 * Errors:    as umo_access_record(); INVAL also when the range ends outside of the buffer.
 *            NOT_FOUND  no tracked buffer has the address (any more).
 * Threads:   any.
 * Cost:      as umo_access_record(); where a thread has not used that page lately also a look-up,
 *            which takes no lock.
 */
UMO_API UMO_MUST_USE umo_status umo_access_record_at(const void *address, umo_side side,
                                                     umo_use use, uint64_t size_bytes);

/**
 * Has a buffer's brackets recorded and the buffer found by address, until it is freed. Again: does
 * nothing. Buffers that were allocated are tracked from the start.
 *
 * Errors:    NOMEM; LIMIT a million buffers are tracked.
 * Threads:   any.
 * Cost:      one short lock of the process; memory that is reused when the buffer goes.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_track(umo_buffer *buffer);

/**
 * The tracked buffer that has a host address, its first byte or one inside it; where several do,
 * the one tracked last.
 *
 * Errors:    NOT_FOUND  none has, or the one that has is being freed.
 * Ownership: one reference, given back by umo_buffer_release().
 * Threads:   any. One short lock of the process.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_find(const void *address, umo_buffer **out);

/**
 * Reads how a buffer was used; all zero for one that is not tracked.
 *
 * Threads:   any. Short locks that no recording thread waits for, but where it turns to a buffer
 *            that it has not used lately.
 * Cost:      some 100 ns for each thread that has recorded anything.
 */
UMO_API void umo_buffer_stats(umo_buffer *buffer, umo_access_stats *out);

/**
 * Names the pattern of what the figures say. A pure function.
 *
 * @param before  The pattern until now, which stays while the figures are near it: each pattern is
 *                harder to enter than to keep. UNKNOWN for none.
 *
 * Threads:   any.
 */
UMO_API umo_pattern umo_pattern_classify(const umo_access_stats *stats, umo_pattern before);

/**
 * The pattern of a buffer: umo_pattern_classify() of its figures, starting from what this call
 * returned last. What was declared stands until enough accesses have been seen.
 *
 * Threads, cost: as umo_buffer_stats().
 */
UMO_API umo_pattern umo_buffer_pattern(umo_buffer *buffer);

/**
 * Says how a buffer is going to be used, before that can be seen. Tracks it.
 *
 * Errors:    INVAL  no such pattern; UNKNOWN takes it back. As umo_buffer_track().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_set_pattern(umo_buffer *buffer, umo_pattern pattern);

/** Live bytes of the tracked buffers below a scope. */
typedef struct umo_access_summary {
    uint64_t buffers;
    uint64_t bytes;
    uint64_t wrapped_bytes; /**< of them, in somebody else's memory: no scope is charged for it */
    uint64_t
        mode_bytes[UMO_STORAGE_MODES];    /**< by umo_storage_mode; memory that buffers share counts
                                               once and whole, so the sum may be less than bytes */
    uint64_t pattern_bytes[UMO_PATTERNS]; /**< by umo_pattern, as umo_buffer_pattern() has it */
} umo_access_summary;

/**
 * Adds up the tracked buffers whose scope is the given one or below it; NULL for all of the
 * process.
 *
 * Threads:   any. Buffers that come or go meanwhile may or may not be counted.
 * Cost:      umo_buffer_pattern() for each.
 */
UMO_API void umo_access_summarize(const umo_scope *scope, umo_access_summary *out);

/**
 * Calls visit with every tracked buffer whose scope is the given one or below it, NULL for all,
 * until it returns false. It may use the buffer in any way; to keep it, it takes a reference.
 *
 * Threads:   any; no lock is held over visit.
 */
UMO_API void umo_buffer_visit(const umo_scope *scope, bool (*visit)(umo_buffer *buffer, void *user),
                              void *user);

#ifdef __cplusplus
}
#endif

#endif

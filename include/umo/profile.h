/**
 * @file profile.h
 * A flight recorder: the last events of this process (allocations, uses, transfers, copies, moves,
 * pools, pressure), kept in a fixed piece of memory and written as a table on demand.
 *
 * While it is off, an event costs one relaxed load and a branch. While it is on, an event is some
 * ten stores into a ring, without a lock and without an allocation; when the ring is full the
 * oldest event is overwritten, and every reader is told how many it did not see.
 * No event holds an address, a key or tensor content. docs/profiling.md has the columns.
 */
#ifndef UMO_PROFILE_H
#define UMO_PROFILE_H

#include <umo/driver.h>
#include <umo/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

/** What happened. The names in the table are the enumerators' in small letters. */
typedef enum umo_event_kind {
    UMO_EVENT_NONE = 0,
    UMO_EVENT_ALLOC = 1,                /**< memory taken from a device or the system */
    UMO_EVENT_FREE = 2,                 /**< and given back */
    UMO_EVENT_IMPORT = 3,               /**< memory wrapped where it lies */
    UMO_EVENT_IMPORT_HIT = 4,           /**< a wrap found again in the registration cache */
    UMO_EVENT_RELEASE = 5,              /**< a wrap given up: its owner may have the memory back */
    UMO_EVENT_ACCESS_BEGIN = 6,         /**< a bracket opened, or why it was not */
    UMO_EVENT_ACCESS_END = 7,           /**< a bracket closed, with the fence that completes it */
    UMO_EVENT_ACCESS_ABORT = 8,         /**< a bracket whose use failed */
    UMO_EVENT_TRANSFER_PERFORMED = 9,   /**< bytes went to the other side */
    UMO_EVENT_TRANSFER_ELIMINATED = 10, /**< the other side saw them already */
    UMO_EVENT_COPY = 11,                /**< within host memory, for a reason */
    UMO_EVENT_COPY_AVOIDED = 12,
    UMO_EVENT_MOVE = 13,     /**< a buffer's bytes went to another storage mode */
    UMO_EVENT_PREFETCH = 14, /**< a range was prepared for a side */
    UMO_EVENT_PIN = 15,      /**< page-locked, no moves */
    UMO_EVENT_UNPIN = 16,
    UMO_EVENT_EXPORT_BEGIN = 17, /**< handed to somebody who knows no brackets */
    UMO_EVENT_EXPORT_END = 18,
    UMO_EVENT_POOL_HIT = 19,        /**< a pool had a block */
    UMO_EVENT_POOL_MISS = 20,       /**< a pool had to take memory */
    UMO_EVENT_POOL_GIVE = 21,       /**< a block came back to its pool */
    UMO_EVENT_POOL_TRIM = 22,       /**< a pool gave idle memory back; size_bytes of it */
    UMO_EVENT_PRESSURE_LEVEL = 23,  /**< how short memory is changed; detail is the level */
    UMO_EVENT_PRESSURE_ANSWER = 24, /**< something was done about it; detail says which answer */
    UMO_EVENT_POOL_TAKE = 25,       /**< plain memory of a pool; POOL_GIVE when it comes back */
    UMO_EVENT_PATTERN = 26,   /**< a buffer is used otherwise than before; detail: its umo_pattern,
                                 plus 256 times the one before */
    UMO_EVENT_PLACEMENT = 27, /**< where a buffer should live was decided; detail:
                                 umo_placement_why, plus 256 times its umo_pattern */
    UMO_EVENT_REQUEST = 28,   /**< a request was answered; see umo_profile_span */
    UMO_EVENT_BATCH = 29,     /**< an engine ran; likewise */
    UMO_EVENT_NUMA_MOVE = 30  /**< a buffer's pages went to another NUMA node; detail is its number,
                                 size_bytes what moved */
} umo_event_kind;

#define UMO_EVENT_KINDS 31

/**
 * Why a PLACEMENT says what it says. All but NEW compare, by the device's cost model, what the uses
 * since the last decision cost where the buffer is (offset_bytes holds that, in ns) with what they
 * would have cost in the other mode (fence_value).
 */
typedef enum umo_placement_why {
    UMO_WHY_NEW = 0,      /**< a new buffer: the mode that is best for its pattern */
    UMO_WHY_CHEAPER = 1,  /**< it was moved: what it saves will pay for the move */
    UMO_WHY_DEFERRED = 2, /**< it would be, but moves have had their share of the time */
    UMO_WHY_REFUSED = 3   /**< it would be, but could not: status */
} umo_placement_why;

/** "alloc"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_event_kind_name(umo_event_kind kind);

/** One event. What does not apply is 0 (modes: 0xFF). */
typedef struct umo_profile_event {
    uint64_t time_ns;      /**< since the recording was started */
    uint64_t duration_ns;  /**< of what ended at time_ns; 0 if it is not measured */
    uint64_t buffer;       /**< a number that no other buffer of the process has; not an address */
    uint64_t offset_bytes; /**< of the range inside the buffer */
    uint64_t size_bytes;
    uint64_t fence_value; /**< on the timeline of queue; 0 when nothing is pending */
    uint32_t thread;      /**< threads are numbered from 1 in the order of their first event */
    uint32_t scope;       /**< a number that no other scope of the process has */
    uint32_t device;      /**< likewise for devices */
    uint32_t detail;      /**< see the kind */
    uint8_t kind;         /**< umo_event_kind */
    uint8_t side;         /**< umo_side; for a transfer, where the bytes go */
    uint8_t use;          /**< umo_use */
    uint8_t mode;         /**< umo_storage_mode of the buffer; after a move, the new one */
    uint8_t mode_before;  /**< of a move */
    uint8_t direction;    /**< of a transfer or copy: umo_direction + 1 */
    uint8_t reason;       /**< umo_reason of a copy or a refusal */
    uint8_t status;       /**< umo_status: how it went */
    uint8_t queue;
    const char *scope_name; /**< "" when the recorder had no room for the name */
    const char *driver;     /**< of the device, likewise */
} umo_profile_event;

/** What a recording holds. */
typedef struct umo_profile_stats {
    bool recording;
    uint64_t recorded; /**< events since the start, those that are lost included */
    uint64_t lost;     /**< not seen by this reader: overwritten, or being written while it read */
    uint64_t names_lost; /**< events whose scope or device the recorder had no room to name */
    uint64_t capacity;   /**< most events that are held at once */
    uint64_t memory_bytes;
} umo_profile_stats;

/** How to record. Zero is the default of each. */
typedef struct umo_profile_options {
    size_t memory_bytes; /**< at most, for events of 80 bytes; 0 is 4 MiB. A shard holds a power of
                            two of them, 64 at least */
    uint32_t shards; /**< rings that threads spread over, so that they do not meet: a power of two,
                        at most 64; 0 is one a processor, at most 16. A thread uses one of them: the
                        more there are, the less far back a lone thread is seen */
} umo_profile_options;

/**
 * Forgets what was recorded and records from now on.
 *
 * Memory is mapped once for each size that is ever asked for and kept until the process ends,
 * because a thread may be in the middle of an event; sizes are powers of two, so all of it is less
 * than twice the largest.
 *
 * @param options  NULL for the defaults.
 *
 * Errors:    INVAL  more than 1 GiB, or shards that are no power of two or too many.
 *            NOMEM.
 * Threads:   any. A child of fork() goes on with a recording of its own, which begins empty.
 * Cost:      two mappings; pages are taken when the first events reach them.
 */
UMO_API UMO_MUST_USE umo_status umo_profile_start(const umo_profile_options *options,
                                                  umo_error *error);

/**
 * Pauses (false) or resumes (true) recording; what was recorded stays. The first true starts with
 * the defaults.
 *
 * Errors:  NOMEM for the first true.
 * Threads: any.
 */
UMO_API UMO_MUST_USE umo_status umo_profile_enable(bool on);

/** False ends the reading. The event and its texts are the callee's until it returns. */
typedef bool (*umo_profile_visit)(const umo_profile_event *event, void *user);

/**
 * Visits the events that are held, oldest first, also while others record: those that were there
 * when the call began, each whole or not at all. Events of one shard come in the order in which
 * they were begun, those of several are merged by their time.
 *
 * @param visit      NULL to read the figures alone.
 * @param[out] out   NULL if not wanted. recorded == visited + lost, when visit did not end it.
 *
 * Errors:    NOT_FOUND  nothing was ever recorded.
 * Threads:   any, also several at once. Takes no lock and allocates nothing; visit may call umo.
 * Cost:      O(events).
 */
UMO_API UMO_MUST_USE umo_status umo_profile_read(umo_profile_visit visit, void *user,
                                                 umo_profile_stats *out);

/**
 * Writes the events as CSV: a line of column names, one line an event, a last line "lost" that
 * says how many events are missing. docs/profiling.md has the columns.
 *
 * The table is written beside path under another name, brought to the disk and renamed, so that
 * path is the old file or the whole new one, never a part, also when the disk is full. The file is
 * its owner's alone (mode 0600). A path that exists and is no regular file (a pipe, a terminal) is
 * written to directly.
 *
 * Errors:    INVAL      no path, or one that is too long.
 *            NOT_FOUND  nothing was ever recorded.
 *            SYSTEM     with errno and what was tried in words; nothing of ours is left behind.
 * Threads:   any, also several at once on one path: the last one wins.
 * Cost:      O(events), a few system calls; no allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_profile_dump(const char *path, umo_error *error);

/** What a backend tells of itself: a REQUEST, or a BATCH, that ends now. */
typedef struct umo_profile_span {
    umo_event_kind kind;    /**< REQUEST or BATCH */
    const umo_scope *scope; /**< the model's; NULL for none */
    uint64_t duration_ns;   /**< becomes the event's */
    uint64_t size_bytes;    /**< of its inputs; 0 where that is not known */
    uint64_t run;           /**< one number for all requests of a run; the event's offset_bytes */
    uint64_t trace_id;      /**< the server's, 0 for none; the event's fence_value */
    uint32_t detail;        /**< REQUEST: its place in the run; BATCH: how many there were */
    umo_status status;
} umo_profile_span;

/**
 * The recorder's switch: anything but 0 while somebody records. Read it with a relaxed atomic load,
 * to save the trouble of making a span. Threads: any.
 */
UMO_API const uint32_t *umo_profile_switch(void);

/** Records a span, if somebody records. Threads, cost: as any event. */
UMO_API void umo_profile_span_write(const umo_profile_span *span);

#ifdef __cplusplus
}
#endif

#endif

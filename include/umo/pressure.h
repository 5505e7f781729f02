/**
 * @file pressure.h
 * Memory pressure: seen early, answered in four steps, gone back from slowly.
 *
 * Usage against a limit is the fast signal and decides; what the kernel says about reclaim comes
 * next; stall times are the slow one (docs/pressure.md has what was measured). Answers come in one
 * order, each only when the one before did not bring usage down in time: idle pools are trimmed,
 * the pools' budgets are tightened, idle buffers give up what can be made again, new work is
 * refused.
 */
#ifndef UMO_PRESSURE_H
#define UMO_PRESSURE_H

#include <umo/device.h>
#include <umo/trace.h>

#ifdef __cplusplus
extern "C" {
#endif

/** How near a limit is. With the default threshold of 0.8: from 80, 87 and 93 % of it. */
typedef enum umo_pressure_level {
    UMO_PRESSURE_NORMAL = 0,
    UMO_PRESSURE_LOW = 1,
    UMO_PRESSURE_MEDIUM = 2,
    UMO_PRESSURE_CRITICAL = 3
} umo_pressure_level;

/** What is done about it, in this order. */
typedef enum umo_pressure_answer {
    UMO_PRESSURE_TRIM = 0,    /**< idle memory of all pools goes back */
    UMO_PRESSURE_TIGHTEN = 1, /**< pools may keep less, restored in steps */
    UMO_PRESSURE_RELIEVE = 2, /**< the reliefs are called: idle buffers and caches shrink */
    UMO_PRESSURE_REFUSE = 3   /**< umo_pressure_admit() says no */
} umo_pressure_answer;

#define UMO_PRESSURE_ANSWERS 4

/** Who says so. The first four are gauges (usage and limit), the others send events. */
typedef enum umo_pressure_source {
    UMO_PRESSURE_CGROUP = 0,    /**< the cgroup, own or above, that is nearest to its limit */
    UMO_PRESSURE_PHYSICAL = 1,  /**< the machine's memory */
    UMO_PRESSURE_BUDGET = 2,    /**< the root scope's limit */
    UMO_PRESSURE_DEVICE = 3,    /**< the working set of the device nearest to its budget */
    UMO_PRESSURE_THRESHOLD = 4, /**< cgroup v1: usage passed a mark */
    UMO_PRESSURE_EVENTS = 5,    /**< cgroup v2: memory.events changed */
    UMO_PRESSURE_RECLAIM = 6,   /**< cgroup v1: memory.pressure_level */
    UMO_PRESSURE_STALL = 7,     /**< PSI: time lost waiting for memory */
    UMO_PRESSURE_SYSTEM = 8     /**< macOS: the system's own message */
} umo_pressure_source;

#define UMO_PRESSURE_SOURCES 9

/** "low"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_pressure_level_name(umo_pressure_level level);
/** "trim"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_pressure_answer_name(umo_pressure_answer answer);
/** "cgroup"; "unknown" for any other value. Threads: any. */
UMO_API const char *umo_pressure_source_name(umo_pressure_source source);

#define UMO_PRESSURE_THRESHOLD_DEFAULT 0.8

/** Zeroed means the defaults. */
typedef struct umo_pressure_options {
    /** The part of a limit from which usage is pressure: 0.1 to 0.98; 0 means
     * UMO_PRESSURE_THRESHOLD_DEFAULT. The levels above lie at one and two thirds of what is left.
     */
    double threshold;
    bool manual;          /**< no thread: only umo_pressure_poke() samples and answers */
    uint32_t sources_off; /**< bits (1u << umo_pressure_source) of what not to look at */
} umo_pressure_options;

/** One answer's record. */
typedef struct umo_pressure_answer_stats {
    uint64_t count;      /**< times given; of REFUSE, times it began */
    uint64_t bytes;      /**< given back by it; of REFUSE, asked for and refused */
    uint64_t suppressed; /**< times it was due again but held back by its rate limit */
    uint64_t last_ns;    /**< monotonic time of the last one; 0 for never */
} umo_pressure_answer_stats;

/** One source's record. */
typedef struct umo_pressure_source_stats {
    bool active;
    int32_t native;       /**< errno, where one told that it is not */
    const char *why;      /**< why it is not active, a constant; NULL if it is */
    uint64_t events;      /**< received */
    uint64_t suppressed;  /**< of those, the ones that were folded into another's handling */
    uint64_t usage_bytes; /**< gauges: when last read */
    uint64_t limit_bytes; /**< gauges; 0 for no limit */
} umo_pressure_source_stats;

typedef struct umo_pressure_stats {
    umo_pressure_level level;
    umo_pressure_source decisive; /**< the gauge nearest to its limit */
    uint64_t usage_bytes;         /**< of that gauge */
    uint64_t limit_bytes;         /**< 0 where no gauge has a limit */
    uint32_t budget_percent;      /**< of what pools may keep; 100 without pressure */
    bool refusing;
    uint64_t refused;       /**< times umo_pressure_admit() said no */
    uint64_t samples;       /**< times the gauges were read */
    uint64_t stages;        /**< answers in force: 0 to 4 */
    uint64_t sampled_ns;    /**< monotonic time of the last sample */
    uint64_t answer_max_ns; /**< the longest time from a sample to the end of its answers */
    umo_pressure_answer_stats answers[UMO_PRESSURE_ANSWERS];
    umo_pressure_source_stats sources[UMO_PRESSURE_SOURCES];
} umo_pressure_stats;

typedef struct umo_pressure umo_pressure;

/**
 * Starts watching. What a source lacks (no cgroup limit, no PSI) is named in the statistics and no
 * error: usage against physical memory and against the root scope's limit is always there.
 *
 * @param options  NULL for the defaults.
 * @param root     A root scope: answers reach all pools below it. Held until destroy.
 *
 * Errors:    INVAL   a threshold out of range, or a scope that has a parent.
 *            NOMEM, SYSTEM  no thread, or no way to wake it.
 * Ownership: umo_pressure_destroy().
 * Cost:      the first event of a cgroup v1 limit is armed before this returns: 10 to 50 ms.
 * Threads:   any. One thread, "umo-pressure", unless manual; it sleeps until an event or its next
 *            sample, which is a second away while limits are far or events are sure to come.
 */
UMO_API UMO_MUST_USE umo_status umo_pressure_create(const umo_pressure_options *options,
                                                    umo_scope *root, umo_pressure **out,
                                                    umo_error *error);

/** Waits for a running answer, ends the thread and restores the pools' budgets. NULL is allowed.
 * Not from inside a relief. In a child after fork() it only gives memory and files back. */
UMO_API void umo_pressure_destroy(umo_pressure *pressure);

/**
 * Watches a device's working set too, if its driver tells it (UMO_CAP_USAGE; else this does
 * nothing).
 *
 * Errors:    LIMIT  16 devices.
 * Ownership: holds the device until destroy.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_pressure_add_device(umo_pressure *pressure, umo_device *device);

/** Gives memory back that can be made again; at least want_bytes if it can. Returns what it gave.
 * Called on the thread that answers, no lock held, never twice at once. */
typedef uint64_t (*umo_pressure_relief)(uint64_t want_bytes, umo_pressure_level level, void *user);

/**
 * Adds a relief: what UMO_PRESSURE_RELIEVE calls, in the order they were added, until enough was
 * given.
 *
 * Errors:    LIMIT  16 reliefs.
 * Threads:   any; not from inside a relief.
 */
UMO_API UMO_MUST_USE umo_status umo_pressure_add_relief(umo_pressure *pressure,
                                                        umo_pressure_relief relief, void *user);

/** Takes it out again; no call of it runs any more when this returns. Not from inside a relief. */
UMO_API void umo_pressure_remove_relief(umo_pressure *pressure, umo_pressure_relief relief,
                                        void *user);

/** Told when the level changes, or whether new work may start. On the thread that answers, no lock
 * held, never twice at once. */
typedef void (*umo_pressure_notify)(umo_pressure_level level, bool ready, void *user);

/** Who is told. The caller's memory, untouched by it from add to remove. */
typedef struct umo_pressure_listener {
    umo_pressure_notify notify;
    void *user;
    struct umo_pressure_listener *next; /**< umo's */
} umo_pressure_listener;

/** Adds a listener. It is told of the first change after this, not how things stand. Threads: any;
 * not from inside a relief or a listener. */
UMO_API void umo_pressure_add_listener(umo_pressure *pressure, umo_pressure_listener *listener);

/** Takes it out; it is told nothing any more when this returns. Threads: as above. */
UMO_API void umo_pressure_remove_listener(umo_pressure *pressure, umo_pressure_listener *listener);

/**
 * Samples and answers now, on this thread: one step of the policy, whose answers' rate limits do
 * not hold it back. Returns the level found. From inside a relief, or in a child after fork(), it
 * only returns the last one.
 *
 * Threads:   any; waits for an answer that is being given.
 * Cost:      some 10 small reads of files, and the answers.
 */
UMO_API umo_pressure_level umo_pressure_poke(umo_pressure *pressure);

/**
 * Whether new work may start.
 *
 * @param size_bytes  What it is going to take at most, as far as known; 0 if not.
 *
 * Errors:    LIMIT  not now: new work is refused until usage has gone down, or size_bytes does not
 *                   fit below the limit. Worth another try later; the text says how things stand.
 * Threads:   any.
 * Cost:      a few relaxed loads; a sample where size_bytes would not fit by the last one.
 */
UMO_API UMO_MUST_USE umo_status umo_pressure_admit(umo_pressure *pressure, uint64_t size_bytes,
                                                   umo_error *error);

/** False while new work is refused: a server's readiness can follow it. Threads: any. Cost: one
 * relaxed load. */
UMO_API bool umo_pressure_ready(const umo_pressure *pressure);

/** Reads the figures as the last sample left them. Threads: any. */
UMO_API void umo_pressure_read(umo_pressure *pressure, umo_pressure_stats *out);

#ifdef __cplusplus
}
#endif

#endif

/**
 * @file placement.h
 * Where a buffer's bytes should live: what a device costs, and an online decision with a bound.
 *
 * Three parts. The *cost model* is a plain value: what each use costs in each storage mode, and
 * what a move between two modes costs; it is measured (umo_device_calibrate()) or assumed. The
 * *placement* is the work-function algorithm over the modes: pure functions over a plain value. The
 * *placer* is the glue: it reads how a buffer was used since it last looked, decides, and moves the
 * bytes. docs/placement.md has the model, the bounds and what was measured.
 */
#ifndef UMO_PLACEMENT_H
#define UMO_PLACEMENT_H

#include <umo/access.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Every cost is at most this (nine years), and so no sum of them overflows. */
#define UMO_COST_MAX_NS ((uint64_t)1 << 58)

/** One way to touch bytes. Zeroed, it costs nothing. */
typedef struct umo_rate {
    uint64_t latency_ns; /**< each time */
    uint64_t bytes_s;    /**< bytes per second; 0 where a byte costs nothing */
} umo_rate;

/** What can happen to a buffer's bytes. */
typedef enum umo_traffic {
    UMO_TRAFFIC_HOST_READ = 0,
    UMO_TRAFFIC_HOST_WRITE = 1,
    UMO_TRAFFIC_DEVICE_READ = 2,
    UMO_TRAFFIC_DEVICE_WRITE = 3,
    UMO_TRAFFIC_TO_DEVICE = 4, /**< the device wanted bytes that the host had written last */
    UMO_TRAFFIC_TO_HOST = 5    /**< the other way round */
} umo_traffic;

#define UMO_TRAFFICS 6

/** Where a model comes from. */
typedef enum umo_cost_source {
    UMO_COST_ASSUMED = 0, /**< umo_cost_model_assume(): no measurement */
    UMO_COST_MEASURED = 1,
    UMO_COST_CACHED = 2 /**< measured before: by this process, or read from a file */
} umo_cost_source;

/**
 * What a device costs. A plain value. The two TRAFFIC_TO_* are what bringing the bytes to the side
 * costs: a copy where the mode has two memories, at most a map where it has one.
 */
typedef struct umo_cost_model {
    uint32_t modes; /**< set of 1 << umo_storage_mode: what the device has; the rest is unused */
    umo_cost_source source;
    bool disturbed;     /**< the machine was too busy; this process uses it, no file keeps it */
    int64_t measured_s; /**< when, in seconds since 1970; 0 if never */
    umo_rate use[UMO_STORAGE_MODES][UMO_TRAFFICS];
    umo_rate move[UMO_STORAGE_MODES][UMO_STORAGE_MODES]; /**< from, to */
} umo_cost_model;

/** How often, and over how many bytes in all. */
typedef struct umo_uses {
    uint64_t count;
    uint64_t size_bytes;
} umo_uses;

/** What happened to one buffer in some time: the same in every mode, and so comparable. */
typedef struct umo_placement_window {
    umo_uses uses[UMO_TRAFFICS];
} umo_placement_window;

/**
 * What happened between two readings of a buffer's statistics. They count uses by side; which of
 * them found their bytes on the other side follows from how often the sides took turns: a turn to a
 * side brings bytes when that side reads and the other one has written, each use as many as it has
 * on average.
 *
 * @param before  NULL for none: since the buffer was made.
 *
 * Threads: any.
 */
UMO_API void umo_placement_window_between(const umo_access_stats *before,
                                          const umo_access_stats *now, umo_placement_window *out);

/** What moving one buffer costs. */
typedef struct umo_placement_moves {
    uint64_t ns[UMO_STORAGE_MODES][UMO_STORAGE_MODES]; /**< from, to; the diagonal is 0 */
} umo_placement_moves;

/** What uses cost in one mode: latency and bandwidth added up, at most UMO_COST_MAX_NS. Threads:
 * any. Cost: some 30 ns. */
UMO_API uint64_t umo_cost_window_ns(const umo_cost_model *model, umo_storage_mode mode,
                                    const umo_placement_window *window);

/**
 * What the moves of a buffer of this size cost. Closed under the triangle inequality: where going
 * by way of a third mode is cheaper, that is the price.
 *
 * Threads: any. Cost: some 100 ns.
 */
UMO_API void umo_cost_moves(const umo_cost_model *model, uint64_t size_bytes,
                            umo_placement_moves *out);

/**
 * The moves as a decision should reckon with them: umo_cost_moves(), but none cheaper than two uses
 * of the whole buffer, each the dearest there is. Where a move is cheaper than a use, what is
 * decided after a use comes too late for it, and a buffer that is read and written in turns would
 * be sent after each of them to the mode that was better for the last one.
 *
 * Threads: any. Cost: some 200 ns.
 */
UMO_API void umo_placement_reckon(const umo_cost_model *model, uint64_t size_bytes,
                                  umo_placement_moves *out);

/** Two memories and what lies between them. */
typedef struct umo_link {
    umo_rate host;   /**< the host's uses of its own memory */
    umo_rate device; /**< the device's uses of its own memory */
    umo_rate wire; /**< a copy from one to the other; its bandwidth is also that of reaching over */
    umo_rate alloc; /**< new memory, which every move pays */
} umo_link;

/**
 * The model of a device behind a link. UNIFIED is the host's memory, which the device reaches at
 * the slower of its own bandwidth and the wire's, with the wire's latency hidden by many loads
 * under way; MANAGED and PRIVATE are the device's memory, and each transfer between it and the
 * host's pays the wire. A move to or from UNIFIED is one transfer and new memory; one between the
 * other two a copy within the device's memory, and new memory.
 *
 * Threads: any.
 */
UMO_API void umo_cost_model_link(const umo_link *link, umo_cost_model *out);

/**
 * A model from a device's facts alone, for a device that is not to be measured: a link of 16 GB/s
 * where it has its own memory, one memory of 50 GB/s where it has not.
 *
 * Threads: any.
 */
UMO_API void umo_cost_model_assume(const umo_device_info *info, umo_cost_model *out);

/** How a device is measured. Zeroed means the defaults. */
typedef struct umo_calibrate_options {
    bool redo;          /**< measure also if it is known */
    bool off;           /**< never measure: what is cached, else umo_cost_model_assume() */
    bool no_files;      /**< neither read nor write files */
    uint64_t budget_ns; /**< time to measure in; 0: 80 ms */
    int64_t age_max_s;  /**< older measurements are redone; 0: 30 days */
    const char *folder; /**< of the files; NULL: "umo" in the user's folder for caches */
} umo_calibrate_options;

/**
 * What a device costs: measured at the first call, then known: to this process, and by a file to
 * those that come later. The file's name is that of the device, the system's release and umo's
 * version. A file that cannot be read, is not one of ours, is cut short or has one bit changed is
 * not there; a folder that cannot be written is no error.
 *
 * The environment's UMO_CALIBRATION says "off" (as options.off), "redo" or "no-files", and wins.
 *
 * @param options  NULL for the defaults.
 *
 * Errors:    INVAL   a negative age.
 *            NOMEM, DEVICE, UNSUPPORTED (its buffers are too small) the device could not be
 * measured; out is not written, and umo_cost_model_assume() will do. Threads:   any; one measures
 * at a time. Cost:      about the budget when it measures, and a dozen megabytes for that time;
 * else a file's reading, or a look into a table. At least one measurement of everything is made, so
 * a device that answers late takes longer than the budget.
 */
UMO_API UMO_MUST_USE umo_status umo_device_calibrate(umo_device *device,
                                                     const umo_calibrate_options *options,
                                                     umo_cost_model *out, umo_error *error);

/** From how many bytes on a device should use memory where it lies instead of a copy of it. */
typedef struct umo_zero_copy {
    /** of memory that is bound for one use (umo_buffer_import()); UINT64_MAX for never */
    uint64_t import_bytes;
    /** of memory whose binding is found again (umo_registry_wrap()); never more than import_bytes
     */
    uint64_t cached_bytes;
    bool measured; /**< false: both are 1 MiB, as the device could not or should not be measured */
} umo_zero_copy;

/**
 * Measures, on the device, what a use of host memory costs that is bound for it, found bound, and
 * copied into prepared memory, each with its brackets, at 4 KiB to 4 MiB. The answer is the least
 * of these sizes from which on binding was never slower. Known to this process afterwards; no file
 * keeps it, since it takes but a few milliseconds. UMO_CALIBRATION=off measures nothing, and
 * devices of tests (delayed, or poisoned) are not measured.
 *
 * Threads: any; one measures at a time. Cost: about 15 ms and 8 MiB when it measures.
 */
UMO_API void umo_device_zero_copy(umo_device *device, umo_zero_copy *out);

/**
 * The mode for a new buffer: the one that is cheapest for such uses of all its bytes as the pattern
 * says. UNKNOWN gets the mode whose worst case over the patterns is the least. Where two cost the
 * same within 2 %, the one that holds the least memory: UNIFIED, PRIVATE, MANAGED.
 *
 * Threads: any.
 */
UMO_API umo_storage_mode umo_placement_initial(const umo_cost_model *model, uint64_t size_bytes,
                                               umo_pattern pattern);

/**
 * Where one buffer lives, and what is known about where it might have lived. A plain value; its
 * fields are for reading.
 */
typedef struct umo_placement {
    uint32_t modes;        /**< set of 1 << umo_storage_mode that it may live in */
    umo_storage_mode mode; /**< where it lives */
    /** The work function, less its minimum, in half nanoseconds: what the best way would have cost
     * that ends in a mode, with moves that cost the same in both directions. */
    uint64_t work[UMO_STORAGE_MODES];
    /** The same with the moves as they are and in nanoseconds: the optimum's. */
    uint64_t true_work_ns[UMO_STORAGE_MODES];
    uint64_t optimum_ns; /**< the offline optimum so far, which knew all windows beforehand */
    uint64_t paid_ns;    /**< this placement so far: windows where it was, and its moves */
    uint64_t steps;
    uint64_t moves;
    umo_storage_mode before; /**< where it was before the last step */
    uint64_t move_ns;        /**< what that step's move costs; 0 for none */
} umo_placement;

/**
 * Starts in a mode.
 *
 * @param modes  A set that has mode in it.
 * @param moves  NULL when any mode would have been free, as while the buffer holds no bytes: it
 *               leaves a wrong one sooner, and the optimum may start anywhere.
 *
 * Threads: any, each with its own placement (so for all umo_placement_*).
 */
UMO_API void umo_placement_init(umo_placement *placement, uint32_t modes, umo_storage_mode mode,
                                const umo_placement_moves *moves);

/**
 * Takes in what one window costs in each mode, and decides where to be from now on: the
 * work-function algorithm for metrical task systems, w'(s) = min over x of w(x) + cost(x) + d(x,
 * s). The answer is the s with the least w'(s) + d(mode, s) among those whose w'(s) is that of
 * having stayed in s. Of equals the present mode is kept, unless this very window made it dearer
 * than the other.
 *
 * With d the same in both directions no algorithm that decides online and for certain has a better
 * worst case: at most 2n - 1 times the optimum, 5 for three modes, and a constant. It is run here
 * on (d(x, s) + d(s, x)) / 2, which makes the bound 5 times umo_placement_asymmetry(). The bound
 * counts a window in the mode that was answered; who has paid for it before he asked, as
 * umo_buffer_optimize() has, adds what windows cost in comparison with moves: see
 * umo_placement_due().
 *
 * Source: Borodin, Linial, Saks, "An optimal on-line algorithm for metrical task system", J. ACM 39
 * (4), 1992.
 *
 * @param cost_ns  One for each mode; those of modes that are not in the set are not read. Larger
 * ones count as UMO_COST_MAX_NS.
 * @returns        The mode to be in; written to placement->mode, its move counted as made.
 *
 * Cost: no allocation, no loop longer than nine; some 100 ns.
 */
UMO_API umo_storage_mode umo_placement_step(umo_placement *placement,
                                            const uint64_t cost_ns[UMO_STORAGE_MODES],
                                            const umo_placement_moves *moves);

/** The move that the last step asked for was not made: the buffer is where it was. The work
 * function stays, so the next step asks again. */
UMO_API void umo_placement_stay(umo_placement *placement);

/** Somebody else has moved the buffer; a move that is not counted. */
UMO_API void umo_placement_set(umo_placement *placement, umo_storage_mode mode);

/**
 * Whether it is time for a step: after accesses_max uses, or as soon as the window has cost a
 * thirty-second of a move more than it would have elsewhere, so that what is paid before the
 * decision stays small in comparison with it: the bound is that part larger.
 */
UMO_API bool umo_placement_due(const umo_placement *placement,
                               const uint64_t cost_ns[UMO_STORAGE_MODES],
                               const umo_placement_moves *moves, uint64_t accesses,
                               uint64_t accesses_max);

/** paid_ns less optimum_ns: what not knowing the future has cost. Never negative. */
UMO_API uint64_t umo_placement_regret_ns(const umo_placement *placement);

/** How far moves are from costing the same in both directions: the larger of the two ways round all
 * modes, divided by the smaller; 1 for two modes and for d(x, s) = leave(x) + enter(s) + copy{x,
 * s}. 0 in a denominator counts as 1 ns. */
UMO_API double umo_placement_asymmetry(uint32_t modes, const umo_placement_moves *moves);

/** What the offline optimum does, by the same recurrence. Plain work. */
typedef struct umo_placement_optimum {
    uint64_t cost_ns;                      /**< at most UINT64_MAX */
    uint64_t static_ns[UMO_STORAGE_MODES]; /**< of never moving, placed there for nothing;
                                                UINT64_MAX for modes outside the set */
} umo_placement_optimum;

/**
 * The least that a sequence of windows could have cost, knowing all of them, with a move before any
 * window, and what staying in each mode would have.
 *
 * @param first  Where it starts; its moves from there count.
 * @param cost_ns  count triples.
 */
UMO_API void umo_placement_solve(uint32_t modes, umo_storage_mode first,
                                 const umo_placement_moves *moves,
                                 const uint64_t (*cost_ns)[UMO_STORAGE_MODES], size_t count,
                                 umo_placement_optimum *out);

/** Looks after the placement of buffers: one for a context. */
typedef struct umo_placer umo_placer;

/** Zeroed means the defaults. */
typedef struct umo_placer_options {
    const umo_scope *scope; /**< whose buffers umo_placer_run() looks after; NULL: all */
    /** Uses of a buffer between two decisions; 0: 1000. Dear windows are decided about earlier. */
    uint64_t change_threshold;
    /** Moves may take one part in this of the time, by the clock, so that a wrong model cannot make
     * the moves themselves the load; 0: 8. */
    uint32_t move_share;
    uint64_t move_credit_ns; /**< so much time for moves is always free first; 0: 0.25 s */
    uint64_t wait_ns;        /**< how long a move waits for open brackets; 0: not at all */
    umo_calibrate_options calibrate;
} umo_placer_options;

/** What a placer has done since it was made. */
typedef struct umo_placer_stats {
    uint64_t buffers;  /**< looked after now */
    uint64_t steps;    /**< decisions */
    uint64_t moves;    /**< made */
    uint64_t refused;  /**< asked for and not made: pinned, exported, in use, no room */
    uint64_t deferred; /**< asked for, and put off since moves had taken their share of the time */
    uint64_t moved_ns; /**< by the clock, on moves */
    uint64_t paid_ns;  /**< by the model: uses where the buffers were, and moves as reckoned with */
    uint64_t optimum_ns; /**< by the model: of the same windows, knowing all of them */
} umo_placer_stats;

/**
 * Starts to look after buffers. Nothing is held but the devices of those that it met.
 *
 * Errors:    NOMEM; INVAL a negative age.
 * Ownership: umo_placer_destroy(); options.scope outlives it, options.calibrate.folder too.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_placer_create(const umo_placer_options *options,
                                                  umo_placer **out, umo_error *error);
/** NULL is allowed. Threads: the last user. */
UMO_API void umo_placer_destroy(umo_placer *placer);

/**
 * umo_placement_initial() for a device, which is calibrated if it is the first time that it is met;
 * if it cannot be, its model is assumed. UNIFIED on a device that shares the host's memory, unless
 * the pattern is GPU_DOMINANT.
 *
 * Threads: any.
 */
UMO_API umo_storage_mode umo_placer_initial(umo_placer *placer, umo_device *device,
                                            uint64_t size_bytes, umo_pattern pattern);

/**
 * Decides about one buffer, and moves it if another mode is cheaper. What counts is how it was used
 * since the last decision about it, or since it was made.
 *
 * @param[out] moved  May be NULL.
 *
 * Errors:    UNSUPPORTED  it has no second mode to move to.
 *            NOMEM.       And those of the move that was asked for, BUSY (in use, pinned,
 * exported), TIMEOUT, LIMIT, DEVICE: the bytes are where they were, and the next decision may ask
 * again. Threads:   any. A second caller for the same buffer finds nothing to do. Cost: reading its
 * statistics, unless it is time for a decision (umo_placement_due()); the first buffer of a device
 * calibrates it.
 */
UMO_API UMO_MUST_USE umo_status umo_buffer_optimize(umo_buffer *buffer, umo_placer *placer,
                                                    bool *moved, umo_error *error);

/**
 * umo_buffer_optimize() for all buffers that can move, those of the options' scope. Moves that are
 * refused are counted and no error. Buffers that have been freed are forgotten.
 *
 * @returns The moves made.
 *
 * Threads: any; a second caller at the same time returns 0 at once.
 */
UMO_API size_t umo_placer_run(umo_placer *placer);

/** Threads: any. */
UMO_API void umo_placer_read(umo_placer *placer, umo_placer_stats *out);

#ifdef __cplusplus
}
#endif

#endif

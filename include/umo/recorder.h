/**
 * @file recorder.h
 * Looking at the flight recorder of another process of the same user: no socket, no preload, and
 * the process need not have started to record.
 *
 *     umo_recorder_open(pid, &recorder, &error);
 *     umo_recorder_start(recorder, 0, &error);
 *     while (more) {
 *         umo_recorder_wait(recorder, events, room, 200000000, &count, &stats);
 *     }
 *     umo_recorder_stop(recorder);
 *     umo_recorder_close(recorder);
 *
 * The recorder's memory is mapped here as well. A process that ends, however it ends, leaves its
 * last events to whoever has it mapped. A process shows its recorder from its first umo_context or
 * recording on, unless it runs with UMO_RECORDER=off. docs/profiling.md says how it is protected.
 */
#ifndef UMO_RECORDER_H
#define UMO_RECORDER_H

#include <umo/profile.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_recorder umo_recorder;

/** What is known of a recording that somebody looks at. */
typedef struct umo_recorder_stats {
    bool recording;        /**< the process records, for itself or for those who look on */
    bool ended;            /**< it has ended: what it left is all there will be */
    uint64_t start_ns;     /**< when time_ns was 0, on the system's monotonic clock */
    uint64_t drained;      /**< events since umo_recorder_start() */
    uint64_t lost;         /**< overwritten before they were drained, or never finished */
    uint64_t gaps;         /**< times that recording ended because nobody drained for two seconds */
    uint64_t names_lost;   /**< events of the process whose scope or device found no room */
    uint64_t capacity;     /**< events that are held at once; 0 before the first */
    uint64_t memory_bytes; /**< of the process, for that */
} umo_recorder_stats;

/**
 * Maps the recorder of a process, without changing anything in it.
 *
 * @param pid  As this process sees it; its own is allowed.
 *
 * Errors:    NOT_FOUND    no such process, or it shows no recorder.
 *            REFUSED      it belongs to another user, or may not be looked at.
 *            UNSUPPORTED  its libumo keeps its events in another form.
 *            NOMEM, SYSTEM.
 * Ownership: the caller owns the recorder until umo_recorder_close().
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_recorder_open(int64_t pid, umo_recorder **out,
                                                  umo_error *error);

/** The version of the process's libumo. Lives as long as the recorder. */
UMO_API const char *umo_recorder_version(const umo_recorder *recorder);

/**
 * Has the process record from now on. What it recorded for itself stays as it is. Events before
 * this call are not drained.
 *
 * Recording ends two seconds after the last drain, also when this process is killed.
 *
 * @param memory_bytes  At least that much for events, unless the process is recording for itself: 0
 * is 4 MiB, 256 MiB at most. It is taken as events reach it and given back by umo_recorder_stop().
 *
 * Errors:    INVAL  too much memory. BUSY  it was started already.
 * Threads:   one at a time for a recorder.
 */
UMO_API UMO_MUST_USE umo_status umo_recorder_start(umo_recorder *recorder, size_t memory_bytes,
                                                   umo_error *error);

/**
 * Visits what was recorded since the last call, by time, each event once. Call it more often than
 * the memory fills up. Times count from umo_recorder_start(). Texts live as long as the recorder.
 *
 * An event that is being written holds those after it back, of its shard, for at most 100 ms; then
 * it counts as lost. So a call may bring an event that is a little older than the last of the call
 * before.
 *
 * @param visit     Returns false to end the call; the rest is for the next one. NULL to read the
 * figures alone.
 * @param[out] out  NULL if not wanted.
 *
 * Errors:    NOMEM  the process has no memory or no file to record in. INVAL  it was not started.
 * Threads:   one at a time for a recorder.
 * Cost:      O(events); no system call but one to see whether the process runs, and some when it
 *            changes its memory.
 */
UMO_API UMO_MUST_USE umo_status umo_recorder_drain(umo_recorder *recorder, umo_profile_visit visit,
                                                   void *user, umo_recorder_stats *out);

/**
 * The same into an array, for callers who would pay dearly for a call an event.
 *
 * @param[out] count  At most room. As many mean that there may be more.
 *
 * Errors:    as umo_recorder_drain().
 * Threads:   likewise.
 */
UMO_API UMO_MUST_USE umo_status umo_recorder_take(umo_recorder *recorder, umo_profile_event *events,
                                                  size_t room, size_t *count,
                                                  umo_recorder_stats *out);

/**
 * The same, and goes on until the array is full, the time is over or the process has ended. In
 * between it sleeps, as long as the process's memory allows: to look seldom, and to touch little
 * when it does, is what keeps recording cheap for a process that shares a machine with this one.
 * It wakes when a quarter of a shard waits, after 1 to 50 ms by how fast that fills; so 4 MiB,
 * 2,048 events a shard where there are sixteen, bear a thread's bursts of 40,000 events a second
 * out of silence.
 *
 * @param wait_ns  At most that long, and as long as a look takes. A signal does not end it.
 *
 * Errors:    as umo_recorder_drain().
 * Threads:   likewise; umo_recorder_stop() too only once it has returned.
 * Cost:      when nothing comes, 20 looks a second of some microseconds.
 */
UMO_API UMO_MUST_USE umo_status umo_recorder_wait(umo_recorder *recorder, umo_profile_event *events,
                                                  size_t room, uint64_t wait_ns, size_t *count,
                                                  umo_recorder_stats *out);

/** Ends what umo_recorder_start() began: the process goes on as before. What was recorded until now
 * can still be drained. Threads: one at a time for a recorder. */
UMO_API void umo_recorder_stop(umo_recorder *recorder);

/** Stops, if need be, and unmaps. NULL is allowed. */
UMO_API void umo_recorder_close(umo_recorder *recorder);

#ifdef __cplusplus
}
#endif

#endif

/**
 * @file ring.h
 * A client's tensors where a server can use them as they lie.
 *
 * A ring is a segment of shared memory laid out in lanes, one for each tensor of each model. Slot i
 * of a lane ends where slot i + 1 begins, without padding, and slot i of all lanes of a model
 * belongs to one request: requests that are in flight together lie side by side, and a server that
 * batches them finds the batch in place. The client registers the segment with its server and hides
 * it right after: nobody else can open it then, and nothing is left when the client dies. There is
 * no network in here; whoever talks to the server passes on name, key and offsets. The layout is
 * that of the Python package umo.client.
 */
#ifndef UMO_RING_H
#define UMO_RING_H

#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Bytes of a region's name and of a segment's key, the final zero included. */
#define UMO_RING_NAME_BYTES 96
#define UMO_RING_KEY_BYTES 32

/** The largest segment, 64 TiB, and the most lanes of a ring. */
#define UMO_RING_LARGEST_BYTES ((uint64_t)1 << 46)
#define UMO_RING_LANES 4096u

/** What a lane is for. */
typedef struct umo_lane_spec {
    const char *model;
    const char *tensor;
    size_t tensor_bytes; /**< of one request; at least 1 */
    uint32_t slots;      /**< requests at a time, at least 1; of all lanes of a model the same */
} umo_lane_spec;

/** Where a lane lies. */
typedef struct umo_lane {
    size_t offset_bytes; /**< of slot 0 from the segment's start: a multiple of a page */
    size_t stride_bytes; /**< from one slot to the next: exactly the tensor's bytes */
    uint32_t slots;
    uint32_t model; /**< the number of its model: models count in the order in which they come */
} umo_lane;

/** Where a slot begins, from the segment's start. The slot is below lane->slots. */
static inline size_t umo_lane_slot_offset(const umo_lane *lane, uint32_t slot)
{
    return lane->offset_bytes + lane->stride_bytes * slot;
}

typedef struct umo_ring umo_ring;

/** What a server is told of a ring, and where it is mapped here. */
typedef struct umo_ring_info {
    const char *name; /**< of the region: carries pid, start time and pid namespace */
    const char *key;  /**< by which the server opens the segment, until umo_ring_hide() */
    unsigned char *base;
    size_t size_bytes;
} umo_ring_info;

/** Figures of a ring. */
typedef struct umo_ring_stats {
    uint32_t out;           /**< slots that were taken and not given back, those lost included */
    uint32_t lost;          /**< slots that never come back */
    size_t committed_bytes; /**< memory taken from the system */
} umo_ring_stats;

/**
 * Places lanes one behind the other, each on a page of its own.
 *
 * @param page_bytes      A power of two.
 * @param[out] out_lanes  As many as there are specs; undefined after an error.
 * @param[out] out_size_bytes  Of the segment; written only on UMO_OK.
 *
 * Errors:    INVAL  no lanes, or more than UMO_RING_LANES; a lane without name, bytes or slots; two
 *                   lanes for one tensor; lanes of one model with different numbers of slots; a
 *                   segment of more than UMO_RING_LARGEST_BYTES, or than the address space.
 * Ownership: the specs' strings are the caller's; none is kept.
 * Threads:   any.
 * Cost:      O(lanes squared), no allocation.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_layout(const umo_lane_spec *specs, uint32_t count,
                                                size_t page_bytes, umo_lane *out_lanes,
                                                size_t *out_size_bytes, umo_error *error);

/**
 * Makes a segment and lays it out. No slot has memory yet.
 *
 * Errors:    INVAL        as umo_ring_layout().
 *            NOMEM.
 *            SYSTEM       the segment could not be made; native holds errno.
 *            UNSUPPORTED  this process cannot find out when it was started.
 * Ownership: umo_ring_destroy().
 * Threads:   any. After a fork a ring is the parent's: the child may only destroy its copy.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_create(const umo_lane_spec *specs, uint32_t count,
                                                umo_ring **out, umo_error *error);

/**
 * Unmaps the segment, and hides it if nobody has. Unregister it with the server first, where one
 * knows it. NULL is allowed. Threads: one, when nobody uses the ring or its memory any more.
 */
UMO_API void umo_ring_destroy(umo_ring *ring);

/** What it is called and where it lies. The strings live as long as the ring. Threads: any. */
UMO_API void umo_ring_describe(const umo_ring *ring, umo_ring_info *out);

/**
 * Removes the segment's name, right after the server has opened it (or refused to). A second call
 * does nothing. Threads: any.
 */
UMO_API void umo_ring_hide(umo_ring *ring);

/**
 * Finds a tensor's lane.
 *
 * @param[out] out  Written only on UMO_OK.
 *
 * Errors:    NOT_FOUND.
 * Threads:   any.
 * Cost:      O(lanes): once for each tensor, not for each request.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_lane(const umo_ring *ring, const char *model,
                                              const char *tensor, umo_lane *out);

/**
 * Takes the lowest free slot of a model, in all of its lanes.
 *
 * @param model        umo_lane.model.
 * @param timeout_ns   To wait while all are out: 0 does not, UINT64_MAX has no end.
 * @param[out] out_slot  Written only on UMO_OK.
 *
 * Errors:    INVAL    no such model.
 *            LIMIT    all slots are out, and there was no time to wait.
 *            TIMEOUT  all of them stayed out.
 *            NOMEM    the system has no memory for one more slot; those out stay.
 * Ownership: the caller's until umo_ring_give().
 * Threads:   any.
 * Cost:      O(slots / 64) and one short lock; the first time that a slot is given out, a system
 *            call a lane, outside of the lock.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_take(umo_ring *ring, uint32_t model, uint64_t timeout_ns,
                                              uint32_t *out_slot);

/**
 * Gives a slot back: neither the caller nor the server touches its memory any more.
 *
 * Errors:    INVAL  the slot is not out, or is lost.
 * Threads:   any.
 * Cost:      one short lock.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_give(umo_ring *ring, uint32_t model, uint32_t slot);

/**
 * Gives a slot up for good: a request that was cancelled or timed out may still be running, and
 * write there whenever it likes. A ring with many such slots is best replaced by another, and
 * destroyed once the server has unregistered it.
 *
 * Errors:    INVAL  the slot is not out, or was lost before.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_ring_lose(umo_ring *ring, uint32_t model, uint32_t slot);

/** Reads the figures. Threads: any. */
UMO_API void umo_ring_read(umo_ring *ring, umo_ring_stats *out);

#ifdef __cplusplus
}
#endif

#endif

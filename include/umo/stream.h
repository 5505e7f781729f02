/**
 * @file stream.h
 * Streams: a ring of slots that a producer fills and a consumer empties, each on the side (host or
 * device) where it works.
 *
 * A slot is a range of a umo_buffer and every use of it is a bracket, so a message travels as any
 * other bytes do: it is not copied where both sides see one memory, and goes over once where there
 * are two. Fences pass through: the producer ends a slot with the fence that completes its writing,
 * the consumer finds it among those to wait for, and the other way round when the slot comes back.
 * After the first turn of the ring a message allocates nothing. docs/streaming.md has the figures.
 */
#ifndef UMO_STREAM_H
#define UMO_STREAM_H

#include <umo/buffer.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_stream umo_stream;

/** How a stream is made. Zero is the default where one is named. */
typedef struct umo_stream_options {
    umo_device *device;
    umo_scope *scope;      /**< whose memory it is */
    umo_storage_mode mode; /**< of the memory that the stream allocates */
    uint32_t slots;        /**< 2 to 65,536 */
    size_t slot_bytes;     /**< the longest message */
    umo_side producer;     /**< the side on which messages are written; 0 is the host */
    umo_side consumer;     /**< and read; 0 is the host */
    uint32_t producer_queue;
    uint32_t consumer_queue;
    /** How many slots the producers (the consumers) may have open at once; 0 is 1, which also finds
     * two producers where one is meant. */
    uint32_t producers;
    uint32_t consumers;
    /** Memory of one's own, cut into slots from offset_bytes on, stride_bytes apart (0:
     * slot_bytes). NULL has the stream allocate one buffer a slot. The stream holds a reference. */
    umo_buffer *buffer;
    size_t offset_bytes;
    size_t stride_bytes;
    uint64_t first_number; /**< of the first message: for a stream that goes on where one ended */
} umo_stream_options;

/** An open slot: what begin gives and end takes back. A plain value. */
typedef struct umo_stream_slot {
    umo_buffer *buffer;
    size_t offset_bytes; /**< of the message in the buffer */
    size_t size_bytes;   /**< of the message; for a producer, what was asked for */
    uint64_t number;     /**< of the message, wraps around */
    uint32_t index;      /**< of the slot */
    umo_fence_set waits; /**< to wait for before the bytes are touched; a launch takes them */
} umo_stream_slot;

/** Since the stream was made. */
typedef struct umo_stream_stats {
    uint64_t produced;       /**< messages that were ended by a producer */
    uint64_t consumed;       /**< and by a consumer */
    uint64_t bytes;          /**< of the produced ones */
    uint64_t aborted;        /**< slots that a producer gave up */
    uint64_t lost;           /**< messages that no consumer will get */
    uint64_t producer_waits; /**< times that a producer found no free slot */
    uint64_t consumer_waits; /**< times that a consumer found no message */
} umo_stream_stats;

/**
 * Makes a stream.
 *
 * Errors:    INVAL  no device, scope, slots or bytes, too many of them, no such side or queue, a
 *                   range outside the buffer, slots that overlap, or a buffer of another device.
 *            others as umo_buffer_alloc().
 * Ownership: the caller owns the stream until umo_stream_destroy() succeeds.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_create(const umo_stream_options *options,
                                                  umo_stream **out, umo_error *error);

/**
 * Destroys it; NULL is allowed. Waits for the pending uses of its slots; messages in it are gone.
 *
 * Errors:  BUSY  slots are open, or somebody waits in a begin; nothing has happened. On a stream
 *                that was aborted open slots are no hindrance: their brackets are aborted, for the
 *                case that their holders are dead, so nobody may use them any more.
 * Threads: not while another call on the stream begins.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_destroy(umo_stream *stream);

/**
 * Opens the next free slot for a message.
 *
 * @param size_bytes  1 to slot_bytes: how much will be written.
 * @param timeout_ns  How long to wait for a free slot: 0 tries, UINT64_MAX waits for ever.
 *
 * Errors:    INVAL    size_bytes is 0 or too long.
 *            TIMEOUT  no slot became free.
 *            BUSY     more producers than the options say.
 *            REFUSED  the stream was closed.
 *            others   what it was aborted with, or as umo_access_begin(); no slot is open then.
 * Threads:   any.
 * Cost:      two short locks, no allocation after the first turn; nothing grows with size_bytes.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_produce_begin(umo_stream *stream, size_t size_bytes,
                                                         uint64_t timeout_ns, umo_stream_slot *out);

/**
 * Sends the message. Consumers get messages in the order in which their slots were opened.
 *
 * @param size_bytes  1 to what was asked for: how much was written.
 * @param done        Completes the writing; {0} when it has completed.
 *
 * Errors:  INVAL  the slot is not open for a producer, or the size; the slot stays as it is.
 * Threads: any, also another than began.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_produce_end(umo_stream *stream,
                                                       const umo_stream_slot *slot,
                                                       size_t size_bytes, umo_fence done);

/** Gives the slot up: no message. done as above. Errors: INVAL not open for a producer. Threads:
 * any. */
UMO_API UMO_MUST_USE umo_status umo_stream_produce_abort(umo_stream *stream,
                                                         const umo_stream_slot *slot,
                                                         umo_fence done);

/**
 * Opens the next message.
 *
 * @param timeout_ns  How long to wait for one: 0 tries, UINT64_MAX waits for ever.
 *
 * Errors:    TIMEOUT    no message came.
 *            NOT_FOUND  the stream is closed and empty: there will never be one.
 *            BUSY       more consumers than the options say.
 *            DEVICE     the message's writer failed, or its transfer: it is lost, and counted.
 *            others     what the stream was aborted with, or as umo_access_begin(): the message
 *                       stays, unless another consumer has taken one behind it; then it is lost.
 * Threads:   any.
 * Cost:      as umo_stream_produce_begin(); on two-sided memory one transfer is queued, where
 *            producer and consumer work on different sides.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_consume_begin(umo_stream *stream, uint64_t timeout_ns,
                                                         umo_stream_slot *out);

/**
 * Gives the slot back to the producers.
 *
 * @param done  Completes the reading; {0} when it has completed. The next producer waits for it.
 *
 * Errors:  INVAL  the slot is not open for a consumer.
 * Threads: any, also another than began.
 */
UMO_API UMO_MUST_USE umo_status umo_stream_consume_end(umo_stream *stream,
                                                       const umo_stream_slot *slot, umo_fence done);

/** No more messages: producers that begin get REFUSED, consumers NOT_FOUND behind the last one.
 * Slots that producers have open may still be ended. Threads: any. */
UMO_API void umo_stream_close(umo_stream *stream);

/**
 * Ends it at once: everybody who begins or waits gets status (an error) from now on; messages that
 * nobody has opened are lost. Open slots are still to be ended. The first abort counts.
 *
 * Threads: any.
 */
UMO_API void umo_stream_abort(umo_stream *stream, umo_status status);

/** Threads: any. */
UMO_API void umo_stream_read(umo_stream *stream, umo_stream_stats *out);

#ifdef __cplusplus
}
#endif

#endif

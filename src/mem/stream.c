/*
 * Streams: slots in a ring, each a range of a buffer that is used in brackets.
 *
 * One lock orders the ring. Brackets are opened without it, since that may queue a transfer and
 * wait; they are closed under it, so that a slot cannot be ended twice. What carries the bytes is
 * the bracket alone: the ring knows neither sides nor copies. Slots are opened in the order of the
 * ring by either party and ended in any order.
 */
#include "base/scope.h"
#include "base/size.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "os/os.h"

#include <umo/stream.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SLOTS_MAX 65536u

typedef enum slot_state {
    SLOT_FREE,
    SLOT_WRITING,
    SLOT_READY,
    SLOT_READING,
    SLOT_SKIPPED /* given up by its producer with others open behind it */
} slot_state;

typedef struct slot {
    slot_state state;
    uint64_t number;
    umo_buffer *buffer;
    size_t offset_bytes;
    umo_access access; /* the open bracket's; its size is the message's from READY on */
} slot;

/* One of the two parties. */
typedef struct party {
    pthread_cond_t changed;
    umo_side side;
    uint32_t queue;
    uint32_t most;  /* slots open at once */
    uint32_t open;  /* slots open now, those that are being opened included */
    uint32_t waits; /* threads in a wait */
    uint32_t at;    /* the slot that comes next */
} party;

struct umo_stream {
    pthread_mutex_t lock;
    party producer;
    party consumer;
    umo_device *device;
    uint32_t slot_count;
    size_t slot_bytes;
    uint64_t next_number;
    umo_status ended; /* what it was aborted with */
    bool closed;
    umo_stream_stats stats;
    slot slots[];
};

static uint32_t slot_after(const umo_stream *stream, uint32_t index)
{
    return index + 1 == stream->slot_count ? 0 : index + 1;
}

static uint32_t slot_before(const umo_stream *stream, uint32_t index)
{
    return index == 0 ? stream->slot_count - 1 : index - 1;
}

/* ---- life ---- */

static bool party_fits(umo_side side, uint32_t queue, const umo_device_info *info)
{
    return (side == UMO_SIDE_HOST || side == UMO_SIDE_DEVICE) && queue < info->queues;
}

static umo_status options_check(const umo_stream_options *o, umo_error *error)
{
    if (o->device == NULL || o->scope == NULL || o->slots < 2 || o->slots > SLOTS_MAX ||
        o->slot_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a stream needs a device, a scope, 2 to %u slots and bytes in them",
                             SLOTS_MAX);
    }
    const umo_device_info *info = umo_device_info_get(o->device);
    if (!party_fits(o->producer != 0 ? o->producer : UMO_SIDE_HOST, o->producer_queue, info) ||
        !party_fits(o->consumer != 0 ? o->consumer : UMO_SIDE_HOST, o->consumer_queue, info)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a party works on the host or the device side, in one of %u queue(s)",
                             info->queues);
    }
    if (o->buffer == NULL) {
        return UMO_OK;
    }
    const size_t stride = o->stride_bytes != 0 ? o->stride_bytes : o->slot_bytes;
    size_t ahead;
    if (stride < o->slot_bytes || __builtin_mul_overflow(stride, (size_t)o->slots - 1, &ahead) ||
        __builtin_add_overflow(ahead, o->slot_bytes, &ahead) ||
        !umo_range_fits(o->offset_bytes, ahead, umo_buffer_size(o->buffer)) ||
        umo_buffer_device(o->buffer) != o->device) {
        return umo_error_set(
            error, UMO_E_INVAL, 0,
            "%u slots of %zu bytes, %zu apart, do not lie in a buffer of %zu bytes "
            "of this device",
            o->slots, o->slot_bytes, stride, umo_buffer_size(o->buffer));
    }
    return UMO_OK;
}

static void party_init(party *p, umo_side side, uint32_t queue, uint32_t most)
{
    p->side = side != 0 ? side : UMO_SIDE_HOST;
    p->queue = queue;
    p->most = most != 0 ? most : 1;
    umo_os_condition_init(&p->changed);
}

static void stream_free(umo_stream *stream)
{
    for (uint32_t i = 0; i < stream->slot_count; i++) {
        umo_buffer_release(stream->slots[i].buffer);
    }
    umo_os_condition_finish(&stream->producer.changed);
    umo_os_condition_finish(&stream->consumer.changed);
    (void)pthread_mutex_destroy(&stream->lock);
    umo_device_release(stream->device);
    free(stream);
}

umo_status umo_stream_create(const umo_stream_options *o, umo_stream **out, umo_error *error)
{
    umo_status status = options_check(o, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_stream *stream = calloc(1, sizeof *stream + o->slots * sizeof(slot));
    if (stream == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a stream");
    }
    (void)pthread_mutex_init(&stream->lock, NULL);
    party_init(&stream->producer, o->producer, o->producer_queue, o->producers);
    party_init(&stream->consumer, o->consumer, o->consumer_queue, o->consumers);
    umo_device_acquire(o->device);
    stream->device = o->device;
    stream->slot_count = o->slots;
    stream->slot_bytes = o->slot_bytes;
    stream->next_number = o->first_number;
    const size_t stride = o->stride_bytes != 0 ? o->stride_bytes : o->slot_bytes;
    for (uint32_t i = 0; i < o->slots && status == UMO_OK; i++) {
        slot *s = &stream->slots[i];
        if (o->buffer != NULL) {
            umo_buffer_acquire(o->buffer);
            s->buffer = o->buffer;
            s->offset_bytes = o->offset_bytes + i * stride;
        } else {
            status =
                umo_buffer_alloc(o->device, o->scope, o->slot_bytes, o->mode, &s->buffer, error);
        }
    }
    if (status != UMO_OK) {
        stream_free(stream);
        return status;
    }
    *out = stream;
    return UMO_OK;
}

umo_status umo_stream_destroy(umo_stream *stream)
{
    if (stream == NULL) {
        return UMO_OK;
    }
    (void)pthread_mutex_lock(&stream->lock);
    const bool waited_for = stream->producer.waits + stream->consumer.waits > 0;
    const bool held = stream->producer.open + stream->consumer.open > 0 && stream->ended == UMO_OK;
    (void)pthread_mutex_unlock(&stream->lock);
    if (waited_for || held) {
        return UMO_E_BUSY;
    }
    for (uint32_t i = 0; i < stream->slot_count; i++) {
        const slot *s = &stream->slots[i];
        if (s->state == SLOT_WRITING || s->state == SLOT_READING) {
            umo_status_ignore(umo_access_abort(s->buffer, &s->access, (umo_fence){0}));
        }
    }
    stream_free(stream);
    return UMO_OK;
}

/* ---- waiting ---- */

/* Frees what producers gave up, so that the next slot is a message or there is none. */
static void skipped_pass(umo_stream *stream)
{
    slot *next = &stream->slots[stream->consumer.at];
    while (next->state == SLOT_SKIPPED) {
        next->state = SLOT_FREE;
        stream->consumer.at = slot_after(stream, stream->consumer.at);
        next = &stream->slots[stream->consumer.at];
        (void)pthread_cond_signal(&stream->producer.changed);
    }
}

/* Nothing is open for a producer and nothing lies in the ring: with the lock held. */
static bool drained(const umo_stream *stream)
{
    return stream->producer.open == 0 && stream->consumer.at == stream->producer.at &&
           stream->slots[stream->consumer.at].state != SLOT_READY;
}

/* OK when the party's next slot is as wanted, TIMEOUT when it is not yet, else why it never is. */
static umo_status party_look(umo_stream *stream, const party *p)
{
    const bool produces = p == &stream->producer;
    if (stream->ended != UMO_OK) {
        return stream->ended;
    }
    if (p->open >= p->most) {
        return UMO_E_BUSY;
    }
    if (produces && stream->closed) {
        return UMO_E_REFUSED;
    }
    skipped_pass(stream);
    if (stream->slots[p->at].state == (produces ? SLOT_FREE : SLOT_READY)) {
        return UMO_OK;
    }
    return !produces && stream->closed && drained(stream) ? UMO_E_NOT_FOUND : UMO_E_TIMEOUT;
}

static umo_status party_wait(umo_stream *stream, party *p, uint64_t timeout_ns, uint64_t *waits)
{
    umo_status status = party_look(stream, p);
    if (status != UMO_E_TIMEOUT) {
        return status;
    }
    ++*waits;
    if (timeout_ns == 0) {
        return status;
    }
    uint64_t deadline = UINT64_MAX;
    if (timeout_ns != UINT64_MAX &&
        __builtin_add_overflow(umo_os_now_ns(), timeout_ns, &deadline)) {
        deadline = UINT64_MAX;
    }
    bool in_time = true;
    p->waits++;
    while (status == UMO_E_TIMEOUT && in_time) {
        in_time = umo_os_condition_wait_until(&p->changed, &stream->lock, deadline);
        status = party_look(stream, p);
    }
    p->waits--;
    return status;
}

/* What a holder hands back names the open slot that it was given, or NULL. The lock is held. */
static slot *slot_given(umo_stream *stream, const umo_stream_slot *given, slot_state state)
{
    if (given->index >= stream->slot_count) {
        return NULL;
    }
    slot *s = &stream->slots[given->index];
    return s->state == state && s->number == given->number ? s : NULL;
}

static void slot_describe(const slot *s, uint32_t index, umo_stream_slot *out)
{
    out->buffer = s->buffer;
    out->offset_bytes = s->access.offset_bytes;
    out->size_bytes = s->access.size_bytes;
    out->number = s->number;
    out->index = index;
}

/* ---- producers ---- */

/* A slot without a message: the newest is simply not taken, any other is passed over later. */
static void produce_undo(umo_stream *stream, uint32_t index)
{
    party *p = &stream->producer;
    if (slot_after(stream, index) == p->at) {
        stream->slots[index].state = SLOT_FREE;
        p->at = index;
        stream->next_number--;
        /* Those given up before it are the newest now. */
        for (uint32_t last = slot_before(stream, index); stream->slots[last].state == SLOT_SKIPPED;
             last = slot_before(stream, last)) {
            stream->slots[last].state = SLOT_FREE;
            p->at = last;
            stream->next_number--;
        }
    } else {
        stream->slots[index].state = SLOT_SKIPPED;
    }
    p->open--;
    (void)pthread_cond_signal(&p->changed);
    /* Consumers may wait for a message that will not come. */
    (void)pthread_cond_broadcast(&stream->consumer.changed);
}

umo_status umo_stream_produce_begin(umo_stream *stream, size_t size_bytes, uint64_t timeout_ns,
                                    umo_stream_slot *out)
{
    if (size_bytes == 0 || size_bytes > stream->slot_bytes) {
        return UMO_E_INVAL;
    }
    party *p = &stream->producer;
    (void)pthread_mutex_lock(&stream->lock);
    umo_status status = party_wait(stream, p, timeout_ns, &stream->stats.producer_waits);
    if (status != UMO_OK) {
        (void)pthread_mutex_unlock(&stream->lock);
        return status;
    }
    const uint32_t index = p->at;
    slot *s = &stream->slots[index];
    s->state = SLOT_WRITING;
    s->number = stream->next_number++;
    s->access = (umo_access){.offset_bytes = s->offset_bytes,
                             .size_bytes = size_bytes,
                             .side = p->side,
                             .use = UMO_WRITE,
                             .queue = p->queue};
    p->at = slot_after(stream, index);
    p->open++;
    (void)pthread_mutex_unlock(&stream->lock);

    slot_describe(s, index, out);
    status = umo_access_begin(s->buffer, &s->access, &out->waits);
    if (status != UMO_OK) {
        (void)pthread_mutex_lock(&stream->lock);
        produce_undo(stream, index);
        (void)pthread_mutex_unlock(&stream->lock);
    }
    return status;
}

umo_status umo_stream_produce_end(umo_stream *stream, const umo_stream_slot *given,
                                  size_t size_bytes, umo_fence done)
{
    (void)pthread_mutex_lock(&stream->lock);
    slot *s = slot_given(stream, given, SLOT_WRITING);
    umo_status status = s != NULL && size_bytes != 0 && size_bytes <= s->access.size_bytes
                            ? umo_access_end(s->buffer, &s->access, done)
                            : UMO_E_INVAL;
    if (status == UMO_OK) {
        s->access.size_bytes = size_bytes;
        s->state = SLOT_READY;
        stream->producer.open--;
        stream->stats.produced++;
        stream->stats.lost += stream->ended != UMO_OK ? 1 : 0;
        stream->stats.bytes += size_bytes;
        if (stream->consumer.waits > 0) {
            /* All, when the ring's next may be this one or, closed, none is to come. */
            (void)pthread_cond_broadcast(&stream->consumer.changed);
        }
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return status;
}

umo_status umo_stream_produce_abort(umo_stream *stream, const umo_stream_slot *given,
                                    umo_fence done)
{
    (void)pthread_mutex_lock(&stream->lock);
    slot *s = slot_given(stream, given, SLOT_WRITING);
    umo_status status = s != NULL ? umo_access_abort(s->buffer, &s->access, done) : UMO_E_INVAL;
    if (status == UMO_OK) {
        stream->stats.aborted++;
        produce_undo(stream, given->index);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return status;
}

/* ---- consumers ---- */

static void slot_free(umo_stream *stream, slot *s)
{
    s->state = SLOT_FREE;
    stream->consumer.open--;
    if (stream->producer.waits > 0) {
        (void)pthread_cond_broadcast(&stream->producer.changed);
    }
    if (stream->closed) {
        (void)pthread_cond_broadcast(&stream->consumer.changed);
    }
}

/* The bracket did not open. What may yet succeed stays the next message, if no other was taken. */
static void consume_undo(umo_stream *stream, uint32_t index, umo_status why)
{
    slot *s = &stream->slots[index];
    if (why != UMO_E_DEVICE && stream->consumer.at == slot_after(stream, index) &&
        stream->ended == UMO_OK) {
        s->state = SLOT_READY;
        stream->consumer.at = index;
        stream->consumer.open--;
        (void)pthread_cond_signal(&stream->consumer.changed);
    } else {
        stream->stats.lost++;
        slot_free(stream, s);
    }
}

umo_status umo_stream_consume_begin(umo_stream *stream, uint64_t timeout_ns, umo_stream_slot *out)
{
    party *p = &stream->consumer;
    (void)pthread_mutex_lock(&stream->lock);
    umo_status status = party_wait(stream, p, timeout_ns, &stream->stats.consumer_waits);
    if (status != UMO_OK) {
        (void)pthread_mutex_unlock(&stream->lock);
        return status;
    }
    const uint32_t index = p->at;
    slot *s = &stream->slots[index];
    s->state = SLOT_READING;
    s->access.side = p->side;
    s->access.use = UMO_READ;
    s->access.queue = p->queue;
    p->at = slot_after(stream, index);
    p->open++;
    (void)pthread_mutex_unlock(&stream->lock);

    slot_describe(s, index, out);
    status = umo_access_begin(s->buffer, &s->access, &out->waits);
    if (status != UMO_OK) {
        (void)pthread_mutex_lock(&stream->lock);
        consume_undo(stream, index, status);
        (void)pthread_mutex_unlock(&stream->lock);
    }
    return status;
}

umo_status umo_stream_consume_end(umo_stream *stream, const umo_stream_slot *given, umo_fence done)
{
    (void)pthread_mutex_lock(&stream->lock);
    slot *s = slot_given(stream, given, SLOT_READING);
    umo_status status = s != NULL ? umo_access_end(s->buffer, &s->access, done) : UMO_E_INVAL;
    if (status == UMO_OK) {
        stream->stats.consumed++;
        slot_free(stream, s);
    }
    (void)pthread_mutex_unlock(&stream->lock);
    return status;
}

/* ---- the end ---- */

static void all_wake(umo_stream *stream)
{
    (void)pthread_cond_broadcast(&stream->producer.changed);
    (void)pthread_cond_broadcast(&stream->consumer.changed);
}

void umo_stream_close(umo_stream *stream)
{
    (void)pthread_mutex_lock(&stream->lock);
    stream->closed = true;
    all_wake(stream);
    (void)pthread_mutex_unlock(&stream->lock);
}

void umo_stream_abort(umo_stream *stream, umo_status status)
{
    (void)pthread_mutex_lock(&stream->lock);
    if (stream->ended == UMO_OK) {
        stream->ended = status != UMO_OK ? status : UMO_E_REFUSED;
        for (uint32_t i = 0; i < stream->slot_count; i++) {
            stream->stats.lost += stream->slots[i].state == SLOT_READY ? 1 : 0;
        }
        all_wake(stream);
    }
    (void)pthread_mutex_unlock(&stream->lock);
}

void umo_stream_read(umo_stream *stream, umo_stream_stats *out)
{
    (void)pthread_mutex_lock(&stream->lock);
    *out = stream->stats;
    (void)pthread_mutex_unlock(&stream->lock);
}

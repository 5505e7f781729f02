/*
 * What a message costs: through a stream, against a queue that copies.
 *
 *   stream time BYTES MESSAGES TURNS   two threads; the producer writes every byte of a message,
 * the consumer adds them up. The opponent is the usual queue: a ring of prepared slots under one
 * lock, into which the producer copies its message and which the consumer reads where it lies.
 * Neither allocates. Both in turns. stream count BYTES MESSAGES        one thread, bytes untouched;
 * for callgrind (bench/stream.py)
 *
 * Prints one JSON line. Sums are compared before a time counts.
 */
#include "callgrind.h"

#include <umo/stream.h>
#include <umo/umo.h>

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    SLOTS = 8,
    TURNS_MAX = 64
};

static _Atomic uint64_t allocations;
static _Atomic bool allocations_counted;

#ifdef __GLIBC__
/* NOLINTBEGIN(bugprone-reserved-identifier, readability-inconsistent-declaration-parameter-name) */
/* Found before the C library's own by everything in the process, libumo.so included. */
extern void *__libc_malloc(size_t size_bytes);
extern void *__libc_calloc(size_t count, size_t size_bytes);
extern void *__libc_realloc(void *memory, size_t size_bytes);

void *malloc(size_t size_bytes)
{
    allocations += allocations_counted ? 1 : 0;
    return __libc_malloc(size_bytes);
}

void *calloc(size_t count, size_t size_bytes)
{
    allocations += allocations_counted ? 1 : 0;
    return __libc_calloc(count, size_bytes);
}

void *realloc(void *memory, size_t size_bytes)
{
    allocations += allocations_counted ? 1 : 0;
    return __libc_realloc(memory, size_bytes);
}
/* NOLINTEND(bugprone-reserved-identifier, readability-inconsistent-declaration-parameter-name) */
#endif

static void must(bool fine, const char *what)
{
    if (!fine) {
        (void)fprintf(stderr, "stream: %s failed\n", what);
        exit(1);
    }
}

static double now_us(clockid_t clock)
{
    struct timespec now;
    (void)clock_gettime(clock, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void message_write(uint64_t *words, size_t size_bytes, uint64_t number)
{
    for (size_t i = 0; i < size_bytes / 8; i++) {
        words[i] = number + i;
    }
    __asm__ volatile("" ::"r"(words) : "memory");
}

static uint64_t message_read(const uint64_t *words, size_t size_bytes)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < size_bytes / 8; i++) {
        sum += words[i];
    }
    return sum;
}

/* ---- the opponent ---- */

typedef struct queue {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    pthread_cond_t freed;
    uint64_t sent;
    uint64_t taken;
    size_t size_bytes;
    char *slots[SLOTS];
} queue;

static void queue_send(queue *q, const void *message)
{
    (void)pthread_mutex_lock(&q->lock);
    while (q->sent - q->taken == SLOTS) {
        (void)pthread_cond_wait(&q->freed, &q->lock);
    }
    char *slot = q->slots[q->sent % SLOTS];
    (void)pthread_mutex_unlock(&q->lock);
    memcpy(slot, message, q->size_bytes);
    (void)pthread_mutex_lock(&q->lock);
    q->sent++;
    (void)pthread_cond_signal(&q->filled);
    (void)pthread_mutex_unlock(&q->lock);
}

static const void *queue_take(queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    while (q->sent == q->taken) {
        (void)pthread_cond_wait(&q->filled, &q->lock);
    }
    const void *slot = q->slots[q->taken % SLOTS];
    (void)pthread_mutex_unlock(&q->lock);
    return slot;
}

static void queue_give(queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    q->taken++;
    (void)pthread_cond_signal(&q->freed);
    (void)pthread_mutex_unlock(&q->lock);
}

/* ---- both ---- */

typedef struct run {
    umo_stream *stream; /* or the opponent: */
    queue *queue;
    uint64_t *own; /* where the opponent's producer makes its message */
    size_t size_bytes;
    uint64_t messages;
    uint64_t sum; /* of the consumer */
} run;

static uint64_t *slot_words(const umo_stream_slot *slot)
{
    return (uint64_t *)(void *)((char *)umo_buffer_host(slot->buffer) + slot->offset_bytes);
}

static void *producer_main(void *argument)
{
    run *r = argument;
    for (uint64_t i = 0; i < r->messages; i++) {
        if (r->queue != NULL) {
            message_write(r->own, r->size_bytes, i);
            queue_send(r->queue, r->own);
            continue;
        }
        umo_stream_slot slot;
        must(umo_stream_produce_begin(r->stream, r->size_bytes, UINT64_MAX, &slot) == UMO_OK &&
                 umo_fence_set_wait(&slot.waits, UINT64_MAX) == UMO_OK,
             "begin");
        message_write(slot_words(&slot), r->size_bytes, i);
        must(umo_stream_produce_end(r->stream, &slot, r->size_bytes, (umo_fence){0}) == UMO_OK,
             "end");
    }
    return NULL;
}

static void consume(run *r)
{
    r->sum = 0;
    for (uint64_t i = 0; i < r->messages; i++) {
        if (r->queue != NULL) {
            r->sum += message_read(queue_take(r->queue), r->size_bytes);
            queue_give(r->queue);
            continue;
        }
        umo_stream_slot slot;
        must(umo_stream_consume_begin(r->stream, UINT64_MAX, &slot) == UMO_OK &&
                 umo_fence_set_wait(&slot.waits, UINT64_MAX) == UMO_OK,
             "begin");
        r->sum += message_read(slot_words(&slot), r->size_bytes);
        must(umo_stream_consume_end(r->stream, &slot, (umo_fence){0}) == UMO_OK, "end");
    }
}

/* Microseconds a message: of the clock on the wall, and of both threads' processor time, for which
 * it does not matter who else is at work on the machine. */
typedef struct taken {
    double wall_us;
    double processor_us;
} taken;

static taken run_time(run *r)
{
    pthread_t producer;
    double wall = now_us(CLOCK_MONOTONIC);
    double processor = now_us(CLOCK_PROCESS_CPUTIME_ID);
    must(pthread_create(&producer, NULL, producer_main, r) == 0, "a thread");
    consume(r);
    (void)pthread_join(producer, NULL);
    const double messages = (double)r->messages;
    return (taken){.wall_us = (now_us(CLOCK_MONOTONIC) - wall) / messages,
                   .processor_us = (now_us(CLOCK_PROCESS_CPUTIME_ID) - processor) / messages};
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(double *values, size_t count, double q)
{
    qsort(values, count, sizeof *values, compare);
    return values[(size_t)(q * (double)(count - 1) + 0.5)];
}

/* The medians of both, and the quartiles of the turns' ratios. */
static void show(const char *name, const double *ours, const double *theirs, size_t turns,
                 const char *end)
{
    double values[TURNS_MAX];
    memcpy(values, ours, turns * sizeof *ours);
    (void)printf("\"%s\": {\"ours_us\": %.4f, ", name, quantile(values, turns, 0.5));
    memcpy(values, theirs, turns * sizeof *theirs);
    (void)printf("\"theirs_us\": %.4f, ", quantile(values, turns, 0.5));
    for (size_t turn = 0; turn < turns; turn++) {
        values[turn] = theirs[turn] / ours[turn];
    }
    (void)printf("\"ratio\": %.3f, \"spread\": [%.3f, %.3f]}%s", quantile(values, turns, 0.5),
                 quantile(values, turns, 0.25), quantile(values, turns, 0.75), end);
}

static void time_mode(run *ours, size_t turns)
{
    static double wall[2][TURNS_MAX];
    static double processor[2][TURNS_MAX];
    queue q = {.lock = PTHREAD_MUTEX_INITIALIZER,
               .filled = PTHREAD_COND_INITIALIZER,
               .freed = PTHREAD_COND_INITIALIZER,
               .size_bytes = ours->size_bytes};
    for (size_t i = 0; i < SLOTS; i++) {
        q.slots[i] = malloc(q.size_bytes);
        must(q.slots[i] != NULL, "memory");
        memset(q.slots[i], 1, q.size_bytes);
    }
    run theirs = *ours;
    theirs.stream = NULL;
    theirs.queue = &q;
    theirs.own = malloc(ours->size_bytes);
    must(theirs.own != NULL, "memory");
    (void)run_time(ours);
    (void)run_time(&theirs);
    for (size_t turn = 0; turn < turns; turn++) {
        const taken first = run_time(ours);
        const taken second = run_time(&theirs);
        wall[0][turn] = first.wall_us;
        wall[1][turn] = second.wall_us;
        processor[0][turn] = first.processor_us;
        processor[1][turn] = second.processor_us;
        must(ours->sum == theirs.sum && ours->sum != 0, "the comparison of the sums");
    }
    (void)printf("{");
    show("time", wall[0], wall[1], turns, ", ");
    show("processor", processor[0], processor[1], turns, "}\n");
}

static void messages_pass(const run *r, uint64_t count)
{
    umo_stream_slot slot;
    for (uint64_t i = 0; i < count; i++) {
        must(umo_stream_produce_begin(r->stream, r->size_bytes, 0, &slot) == UMO_OK &&
                 umo_fence_set_wait(&slot.waits, 0) == UMO_OK &&
                 umo_stream_produce_end(r->stream, &slot, r->size_bytes, (umo_fence){0}) ==
                     UMO_OK &&
                 umo_stream_consume_begin(r->stream, 0, &slot) == UMO_OK &&
                 umo_fence_set_wait(&slot.waits, 0) == UMO_OK &&
                 umo_stream_consume_end(r->stream, &slot, (umo_fence){0}) == UMO_OK,
             "a message");
    }
}

static void count_mode(const run *r, umo_scope *scope)
{
    messages_pass(r, SLOTS);
    allocations_counted = true;
    CALLGRIND_ZERO_STATS;
    CALLGRIND_START_INSTRUMENTATION;
    messages_pass(r, r->messages);
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS_AT("measured");
    allocations_counted = false;
    umo_counters c;
    umo_scope_read(scope, &c);
    uint64_t copied = 0;
    uint64_t eliminated = 0;
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        copied += c.transfer_performed[d].bytes;
        eliminated += c.transfer_eliminated[d].events;
        for (int reason = 0; reason < UMO_REASON_COUNT; reason++) {
            copied += c.copy_performed[d][reason].bytes;
        }
    }
    (void)printf("{\"allocations\": %llu, \"copied_bytes\": %llu, \"eliminated\": %llu}\n",
                 (unsigned long long)allocations, (unsigned long long)copied,
                 (unsigned long long)eliminated);
}

int main(int argc, char **argv)
{
    const bool times = argc == 5 && strcmp(argv[1], "time") == 0;
    if (!times && (argc != 4 || strcmp(argv[1], "count") != 0)) {
        (void)fprintf(stderr, "usage: stream time BYTES MESSAGES TURNS | count BYTES MESSAGES\n");
        return 2;
    }
    run r = {.size_bytes = strtoul(argv[2], NULL, 10), .messages = strtoul(argv[3], NULL, 10)};
    const size_t turns = times ? strtoul(argv[4], NULL, 10) : 1;
    must(r.size_bytes >= 8 && r.messages > 0 && turns > 0 && turns <= TURNS_MAX, "reading sizes");
    umo_device *device = NULL;
    umo_scope *scope = NULL;
    must(umo_device_open("host", 0, NULL, &device, NULL) == UMO_OK, "the device");
    must(umo_scope_create(NULL, "stream", 0, &scope, NULL) == UMO_OK, "the scope");
    const umo_stream_options options = {.device = device,
                                        .scope = scope,
                                        .slots = SLOTS,
                                        .slot_bytes = r.size_bytes,
                                        .consumer = times ? UMO_SIDE_HOST : UMO_SIDE_DEVICE};
    must(umo_stream_create(&options, &r.stream, NULL) == UMO_OK, "the stream");
    if (times) {
        time_mode(&r, turns);
    } else {
        count_mode(&r, scope);
    }
    must(umo_stream_destroy(r.stream) == UMO_OK, "the end");
    umo_scope_destroy(scope);
    umo_device_release(device);
    return 0;
}

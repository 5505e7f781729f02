/*
 * An engine for decoupled models: it answers each request `responses` times, by default from a
 * thread of its own, with the bytes of the input changed for the output that the response's number
 * is.
 */
#ifndef UMO_TESTS_KIT_STREAMER_H
#define UMO_TESTS_KIT_STREAMER_H

#include "world.h"

#include <pthread.h>

#define LENGTH ((size_t)100)
#define DECOUPLED ", \"model_transaction_policy\": {\"decoupled\": true}"
#define SLOTS(n) DECOUPLED ", \"parameters\": {\"response_slots\": {\"string_value\": \"" n "\"}}"

/* Decoupled models of one input and output of bytes, without batches and with up to four rows. */
extern const model_plan stream_single;
extern const model_plan stream_batching;

/* How the engine answers. */
typedef struct {
    unsigned responses;
    bool final;      /* comes with the last response, else alone */
    bool empty;      /* responses without outputs */
    unsigned bad;    /* the number of a response that fails; 0 for none */
    umo_status fate; /* of the request */
    bool in_execute; /* answers before execute returns */
    bool drops;      /* opens one more and drops it */
    bool until_cancelled;
    pthread_mutex_t gate; /* held by a test that wants execute to return first */
    _Atomic unsigned threads;
    _Atomic unsigned problems;
} stream_settings;

extern stream_settings how;

/* Well-behaved, with so many responses. */
void stream_reset(unsigned responses);
/* Notes a failure; stream_threads_wait() fails the test for it. */
void stream_must(umo_status status);
void stream_threads_wait(void);
umo_status stream_engine(umo_instance *instance, umo_batch *batch, umo_error *error);
/* A world with the engine and a model; and its end. */
void stream_start(world *w, model_plan *plan, const model_plan *base, const char *unified);
void stream_end(world *w);
/* Response number `at` of a job has its bytes. */
void stream_expect_response(const job *j, unsigned at);
/* All have, and the request ended well. */
void stream_expect_right(const job *j, unsigned responses);

#endif

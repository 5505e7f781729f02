/*
 * What the files of umo_identity share.
 */
#ifndef UMO_IDENTITY_H
#define UMO_IDENTITY_H

#include <umo/triton.h>

#include <pthread.h>
#include <stdatomic.h>

typedef struct identity_model {
    umo_model *model;
    size_t output_count;
    size_t *sources; /* input of each output */
    bool touch_nothing;
    uint64_t delay_us;
    uint64_t fail_every; /* 0: never */
    _Atomic uint64_t requests;

    /* Of a decoupled model. */
    uint64_t repeat; /* responses a request */
    uint64_t response_delay_us;
    uint64_t error_at; /* the number of the response that fails; 0: none */
    pthread_mutex_t lock;
    pthread_cond_t quiet;
    size_t running; /* threads */
} identity_model;

void identity_pause(uint64_t delay_us);
/* Places one output and fills it. */
umo_status identity_answer(const identity_model *state, umo_batch *batch, size_t output,
                           umo_error *error);

/* stream.c */
void identity_streams_init(identity_model *state);
/* Waits for the threads. */
void identity_streams_finish(identity_model *state);
/* Takes the batch and answers each of its requests `repeat` times, from a thread of its own. */
umo_status identity_stream(identity_model *state, umo_batch *batch, umo_error *error);

#endif

/*
 * Where the threads of a test wait for each other. POSIX's barrier is an option that macOS has not
 * taken.
 */
#ifndef UMO_OS_BARRIER_TEST_H
#define UMO_OS_BARRIER_TEST_H

#include <pthread.h>

typedef struct barrier_test {
    pthread_mutex_t lock;
    pthread_cond_t passed;
    unsigned threads; /* that it waits for */
    unsigned waiting;
    unsigned turn;
} barrier_test;

static inline void barrier_test_init(barrier_test *b, unsigned threads)
{
    *b = (barrier_test){.threads = threads};
    (void)pthread_mutex_init(&b->lock, NULL);
    (void)pthread_cond_init(&b->passed, NULL);
}

static inline void barrier_test_finish(barrier_test *b)
{
    (void)pthread_cond_destroy(&b->passed);
    (void)pthread_mutex_destroy(&b->lock);
}

static inline void barrier_test_wait(barrier_test *b)
{
    (void)pthread_mutex_lock(&b->lock);
    const unsigned turn = b->turn;
    if (++b->waiting == b->threads) {
        b->waiting = 0;
        b->turn++;
        (void)pthread_cond_broadcast(&b->passed);
    }
    while (turn == b->turn) {
        (void)pthread_cond_wait(&b->passed, &b->lock);
    }
    (void)pthread_mutex_unlock(&b->lock);
}

#endif

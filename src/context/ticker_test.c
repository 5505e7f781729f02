/*
 * Tickers: called again and again on another thread, until they are stopped or forked away from.
 */
#include "os/os.h"

#include <umo/context.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <sys/wait.h>

#include <cmocka.h>

#define MILLISECOND_NS UINT64_C(1000000)

typedef struct ticked {
    _Atomic unsigned calls;
    uint64_t delay_ns;
    pthread_t thread;
    bool slow;
} ticked;

static void rest(uint64_t ns)
{
    const struct timespec moment = {.tv_sec = 0, .tv_nsec = (long)ns};
    (void)nanosleep(&moment, NULL);
}

static uint64_t tick(void *user)
{
    ticked *t = user;
    t->thread = pthread_self();
    if (t->slow) {
        rest(20 * MILLISECOND_NS);
    }
    atomic_fetch_add(&t->calls, 1);
    return t->delay_ns;
}

static void calls_await(ticked *t, unsigned calls)
{
    for (int i = 0; i < 5000 && atomic_load(&t->calls) < calls; i++) {
        rest(MILLISECOND_NS);
    }
    assert_true(atomic_load(&t->calls) >= calls);
}

static void a_ticker_is_called_again_on_another_thread_until_it_is_stopped(void **state)
{
    (void)state;
    ticked t = {.delay_ns = MILLISECOND_NS};
    umo_ticker *ticker = NULL;
    assert_int_equal(umo_ticker_start(tick, &t, 0, &ticker, NULL), UMO_OK);
    calls_await(&t, 3);
    umo_ticker_stop(ticker);
    unsigned calls = atomic_load(&t.calls);
    assert_false(pthread_equal(t.thread, pthread_self()));
    rest(10 * MILLISECOND_NS);
    assert_int_equal(atomic_load(&t.calls), calls);
}

static void what_a_tick_asks_for_is_when_the_next_one_is(void **state)
{
    (void)state;
    ticked once = {.delay_ns = UINT64_MAX};
    ticked never = {.delay_ns = 0};
    umo_ticker *tickers[2] = {NULL, NULL};
    assert_int_equal(umo_ticker_start(tick, &once, 0, &tickers[0], NULL), UMO_OK);
    assert_int_equal(umo_ticker_start(tick, &never, UINT64_MAX, &tickers[1], NULL), UMO_OK);
    calls_await(&once, 1);
    rest(20 * MILLISECOND_NS);
    assert_int_equal(atomic_load(&once.calls), 1);
    assert_int_equal(atomic_load(&never.calls), 0);
    umo_ticker_stop(tickers[1]);
    umo_ticker_stop(tickers[0]);
}

static void stopping_waits_for_the_call_that_runs(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        ticked *t = calloc(1, sizeof *t); /* given back at once: a call that ran on would be seen */
        assert_non_null(t);
        t->slow = true;
        umo_ticker *ticker = NULL;
        assert_int_equal(umo_ticker_start(tick, t, 0, &ticker, NULL), UMO_OK);
        rest(5 * MILLISECOND_NS);
        umo_ticker_stop(ticker);
        assert_true(atomic_load(&t->calls) <= 2);
        free(t);
    }
    umo_ticker_stop(NULL);
}

static void a_child_after_fork_can_stop_it(void **state)
{
    (void)state;
    ticked t = {.delay_ns = MILLISECOND_NS};
    umo_ticker *ticker = NULL;
    assert_int_equal(umo_ticker_start(tick, &t, 0, &ticker, NULL), UMO_OK);
    calls_await(&t, 1);
    pid_t child = fork();
    if (child == 0) {
        unsigned calls = atomic_load(&t.calls);
        rest(10 * MILLISECOND_NS);
        bool silent = atomic_load(&t.calls) == calls;
        umo_ticker_stop(ticker);
        _exit(silent ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    calls_await(&t, atomic_load(&t.calls) + 1);
    umo_ticker_stop(ticker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_ticker_is_called_again_on_another_thread_until_it_is_stopped),
        cmocka_unit_test(what_a_tick_asks_for_is_when_the_next_one_is),
        cmocka_unit_test(stopping_waits_for_the_call_that_runs),
        cmocka_unit_test(a_child_after_fork_can_stop_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

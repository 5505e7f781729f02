/*
 * Another process for the tests of the recorder: it does what it is told, and its events can be
 * told from any mixture of two.
 */
#ifndef UMO_TRACE_RECORDER_RIG_TEST_H
#define UMO_TRACE_RECORDER_RIG_TEST_H

#include "base/scope.h"
#include "os/os.h"
#include "os/shown.h"
#include "trace/show.h"

#include <umo/recorder.h>

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define THREADS 4u

typedef struct seen {
    uint64_t count;
    uint64_t wrong;
    uint64_t last_time;
    uint64_t numbers[THREADS + 1]; /* the next one that each thread should bring */
    umo_profile_event last;
    char scope_name[64];
} seen;

/* Every word of such an event follows from two numbers, so a mixture of two is seen. */
static void marked_write(uint64_t who, uint64_t number, const umo_scope *scope)
{
    const uint64_t mark = who << 40 | number;
    UMO_TRACE(.kind = UMO_EVENT_ACCESS_END, .scope = scope, .buffer = mark, .offset_bytes = ~mark,
              .size_bytes = mark * 3, .fence_value = mark ^ 0x5555, .detail = (uint32_t)number);
}

static bool marked_check(const umo_profile_event *e, void *user)
{
    seen *s = user;
    const uint64_t mark = e->buffer;
    const uint64_t who = mark >> 40;
    const uint64_t number = mark & ((UINT64_C(1) << 40) - 1);
    const bool whole = who <= THREADS && e->offset_bytes == ~mark && e->size_bytes == mark * 3 &&
                       e->fence_value == (mark ^ 0x5555) && e->detail == (uint32_t)number &&
                       e->kind == UMO_EVENT_ACCESS_END && number >= s->numbers[who];
    s->wrong += whole ? 0 : 1;
    if (whole) {
        s->numbers[who] = number + 1;
    }
    s->count++;
    s->last = *e;
    (void)snprintf(s->scope_name, sizeof s->scope_name, "%s", e->scope_name);
    return true;
}

/* ---- another process: it does what it is told, byte by byte ---- */

typedef struct other {
    pid_t pid;
    int orders;
    int answers;
} other;

static void answer(int out, char what)
{
    if (write(out, &what, 1) != 1) {
        _exit(9);
    }
}

static void *thread_main(void *argument)
{
    for (uint64_t i = 0; i < 50000; i++) {
        marked_write((uint64_t)(uintptr_t)argument, i, NULL);
        if (i % 1000 == 999) {
            (void)usleep(500);
        }
    }
    return NULL;
}

static void threads_run(void)
{
    pthread_t threads[THREADS];
    for (uintptr_t t = 0; t < THREADS; t++) {
        (void)pthread_create(&threads[t], NULL, thread_main, (void *)(t + 1));
    }
    for (uintptr_t t = 0; t < THREADS; t++) {
        (void)pthread_join(threads[t], NULL);
    }
}

static void files_allow(bool allow)
{
    static struct rlimit before;
    struct rlimit limit;
    if (!allow && getrlimit(RLIMIT_NOFILE, &before) != 0) {
        _exit(9);
    }
    limit = before;
    limit.rlim_cur = allow ? before.rlim_cur : 0;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) {
        _exit(9);
    }
}

static _Noreturn void other_main(int in, int out)
{
    umo_scope *scope = NULL;
    uint64_t number = 0;
    umo_status_ignore(umo_scope_create(NULL, "their model", 0, &scope, NULL));
    (void)alarm(60);
    umo_trace_show();
    answer(out, 'r');
    for (char order; read(in, &order, 1) == 1;) {
        switch (order) {
        case 'e': /* a hundred events */
            for (int i = 0; i < 100; i++) {
                marked_write(0, number++, scope);
            }
            break;
        case 'c': /* a count, and nothing else */
            umo_scope_count_copy(scope, UMO_DIRECTION_IN, UMO_REASON_SCATTERED, 7);
            break;
        case 'w': /* ten thousand, in half a second at the least */
            for (int i = 0; i < 10000; i++) {
                marked_write(0, number++, scope);
                if (i % 20 == 19) {
                    (void)usleep(1000);
                }
            }
            break;
        case 't':
            threads_run();
            break;
        case 's': /* record for itself */
            umo_status_ignore(umo_profile_start(NULL, NULL));
            break;
        case 'p':
            umo_status_ignore(umo_profile_enable(false));
            break;
        case 'o':
            answer(out, umo_trace_on() ? 'y' : 'n');
            continue;
        case 'n': { /* how many it has of its own, in hundreds */
            umo_profile_stats stats = {0};
            umo_status_ignore(umo_profile_read(NULL, NULL, &stats));
            answer(out, (char)('0' + stats.recorded / 100));
            continue;
        }
        case 'f': /* no file can be had from now on */
        case 'F': /* and again */
            files_allow(order == 'F');
            break;
        case 'k': /* die in the middle of an event */
            marked_write(0, number++, scope);
            (void)atomic_fetch_add(&umo_trace_now->shards[0].next, 1);
            (void)raise(SIGKILL);
            break;
        default:
            _exit(0);
        }
        answer(out, 'd');
    }
    _exit(0);
}

static char tell(const other *o, char order)
{
    char got = 0;
    assert_int_equal(write(o->orders, &order, 1), 1);
    assert_int_equal(read(o->answers, &got, 1), 1);
    return got;
}

static other other_start(void)
{
    int orders[2];
    int answers[2];
    char ready;
    assert_int_equal(pipe(orders), 0);
    assert_int_equal(pipe(answers), 0);
    other o = {.pid = fork(), .orders = orders[1], .answers = answers[0]};
    assert_true(o.pid >= 0);
    if (o.pid == 0) {
        (void)close(orders[1]);
        (void)close(answers[0]);
        other_main(orders[0], answers[1]);
    }
    (void)close(orders[0]);
    (void)close(answers[1]);
    assert_int_equal(read(o.answers, &ready, 1), 1);
    return o;
}

static int other_end(const other *o)
{
    int status = 0;
    (void)close(o->orders);
    (void)close(o->answers);
    assert_int_equal(waitpid(o->pid, &status, 0), o->pid);
    return status;
}

static umo_recorder *recorder_open(const other *o)
{
    umo_recorder *r = NULL;
    umo_error error = {0};
    if (umo_recorder_open(o->pid, &r, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return r;
}

static umo_recorder_stats drain(umo_recorder *r, seen *s)
{
    umo_recorder_stats stats;
    assert_int_equal(umo_recorder_drain(r, marked_check, s, &stats), UMO_OK);
    return stats;
}

#endif

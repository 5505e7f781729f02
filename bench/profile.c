/*
 * What an event of the flight recorder costs, off and on.
 *
 *   profile time EVENTS TURNS       JSON: ns an event while off, on with one thread, on with two
 *   profile count off|on EVENTS     for callgrind (bench/profile.py)
 *
 * Linked with the layer itself, as the library is, since the part that runs while it is off is
 * inline. The opponent of "off" is the same loop without the event.
 */
#include "callgrind.h"

#include "base/scope.h"
#include "trace/trace.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TURNS_MAX = 64
};

static umo_scope *scope;
static uint64_t events;

static void must(bool fine, const char *what)
{
    if (!fine) {
        (void)fprintf(stderr, "profile: %s failed\n", what);
        exit(1);
    }
}

/* Of this thread's processor time: others at work on the machine do not count. */
static double now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

__attribute__((noinline)) static void loop_bare(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        __asm__ volatile("" ::: "memory");
    }
}

__attribute__((noinline)) static void loop_traced(uint64_t count)
{
    for (uint64_t i = 0; i < count; i++) {
        UMO_TRACE(.kind = UMO_EVENT_ACCESS_BEGIN, .scope = scope, .device = 1, .driver = "host",
                  .buffer = i, .size_bytes = 4096, .side = UMO_SIDE_HOST, .use = 1);
        __asm__ volatile("" ::: "memory");
    }
}

static double timed(void (*loop)(uint64_t count))
{
    double start = now_ns();
    loop(events);
    return (now_ns() - start) / (double)events;
}

static void *timed_main(void *out)
{
    *(double *)out = timed(loop_traced);
    return NULL;
}

/* Two threads at once: the time of one event on the slower one. */
static double timed_pair(void)
{
    pthread_t other;
    double theirs = 0;
    must(pthread_create(&other, NULL, timed_main, &theirs) == 0, "a thread");
    double ours = timed(loop_traced);
    (void)pthread_join(other, NULL);
    return ours > theirs ? ours : theirs;
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static void show(const char *name, double *values, size_t count, const char *end)
{
    qsort(values, count, sizeof *values, compare);
    (void)printf("\"%s\": [%.3f, %.3f, %.3f]%s", name, values[count / 4], values[count / 2],
                 values[count * 3 / 4], end);
}

static void time_mode(size_t turns)
{
    static double bare[TURNS_MAX];
    static double off[TURNS_MAX];
    static double on[TURNS_MAX];
    static double pair[TURNS_MAX];
    for (size_t turn = 0; turn < turns; turn++) {
        must(umo_profile_enable(false) == UMO_OK, "a pause");
        bare[turn] = timed(loop_bare);
        off[turn] = timed(loop_traced);
        must(umo_profile_start(NULL, NULL) == UMO_OK, "a start");
        on[turn] = timed(loop_traced);
        pair[turn] = timed_pair();
        umo_profile_stats stats;
        must(umo_profile_read(NULL, NULL, &stats) == UMO_OK && stats.recorded == 3 * events,
             "counting the events");
    }
    (void)printf("{");
    show("bare_ns", bare, turns, ", ");
    show("off_ns", off, turns, ", ");
    show("on_ns", on, turns, ", ");
    show("two_threads_ns", pair, turns, "}\n");
}

static void count_mode(const char *what)
{
    if (strcmp(what, "on") == 0) {
        must(umo_profile_start(NULL, NULL) == UMO_OK, "a start");
    }
    void (*loop)(uint64_t count) = strcmp(what, "bare") == 0 ? loop_bare : loop_traced;
    loop(1000);
    CALLGRIND_ZERO_STATS;
    CALLGRIND_START_INSTRUMENTATION;
    loop(events);
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS_AT("measured");
    (void)printf("{}\n");
}

int main(int argc, char **argv)
{
    must(umo_scope_create(NULL, "bench", 0, &scope, NULL) == UMO_OK, "a scope");
    if (argc == 4 && strcmp(argv[1], "time") == 0) {
        events = strtoul(argv[2], NULL, 10);
        const size_t turns = strtoul(argv[3], NULL, 10);
        must(events > 0 && turns > 0 && turns <= TURNS_MAX, "reading sizes");
        time_mode(turns);
    } else if (argc == 4 && strcmp(argv[1], "count") == 0) {
        events = strtoul(argv[3], NULL, 10);
        count_mode(argv[2]);
    } else {
        (void)fprintf(stderr, "usage: profile time EVENTS TURNS | count bare|off|on EVENTS\n");
        return 2;
    }
    umo_scope_destroy(scope);
    return 0;
}

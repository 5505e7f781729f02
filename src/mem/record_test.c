/*
 * Recording: what is counted where, what fades, and that no count is lost or seen twice, whatever
 * threads do.
 */
#include "driver/wrapper_test.h"

#include "mem/record_state.h"
#include "os/barrier_test.h"

#include <umo/numa.h>

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    BYTES = 1 << 16,
    THREADS = 8,
    MANY = 200
};

/* Reads beside writers: each waits for the writers' locks, under the thread sanitizer for long. */
#ifdef __SANITIZE_THREAD__
#define READS 8000u
#else
#define READS 60000u
#endif

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
} rig;

static rig r;

static int rig_open(void **state)
{
    (void)state;
    r.device = wrapper_device(NULL, NULL);
    return r.device == NULL || umo_scope_create(NULL, "root", 0, &r.scope, NULL) != UMO_OK ? -1 : 0;
}

static int rig_close(void **state)
{
    (void)state;
    umo_scope_destroy(r.scope);
    umo_device_release(r.device);
    return 0;
}

static umo_buffer *buffer_make(size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, size_bytes, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    return buffer;
}

static umo_access_stats stats_of(umo_buffer *buffer)
{
    umo_access_stats stats;
    umo_buffer_stats(buffer, &stats);
    return stats;
}

static void record_times(umo_buffer *buffer, umo_side side, umo_use use, uint64_t size_bytes,
                         unsigned times)
{
    for (unsigned i = 0; i < times; i++) {
        assert_int_equal(umo_access_record(buffer, side, use, size_bytes), UMO_OK);
    }
}

static void nap(long ns)
{
    const struct timespec time = {.tv_nsec = ns};
    (void)nanosleep(&time, NULL);
}

static void each_access_counts_by_side_and_use(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(BYTES);
    record_times(buffer, UMO_SIDE_HOST, UMO_WRITE, 1000, 3);
    record_times(buffer, UMO_SIDE_HOST, UMO_READ, 10, 2);
    record_times(buffer, UMO_SIDE_DEVICE, UMO_READ, BYTES, 5);
    record_times(buffer, UMO_SIDE_DEVICE, UMO_READ_WRITE, 1, 4);
    umo_access_stats s = stats_of(buffer);
    assert_int_equal(s.host.writes.events, 3);
    assert_int_equal(s.host.writes.bytes, 3000);
    assert_int_equal(s.host.reads.events, 2);
    assert_int_equal(s.host.reads.bytes, 20);
    assert_int_equal(s.device.reads.events, 9);
    assert_int_equal(s.device.reads.bytes, 5 * BYTES + 4);
    assert_int_equal(s.device.writes.events, 4);
    assert_int_equal(s.device.writes.bytes, 4);
    assert_int_equal(s.accesses, 14);
    assert_true(s.recent_accesses == 14);
    assert_true(s.recent_turns == 1);
    umo_buffer_release(buffer);
}

static void with_one_node_nobody_votes(void **state)
{
    (void)state;
    if (umo_numa_memory_nodes() > 1) {
        skip(); /* here everybody does: see numa_test.c */
    }
    umo_buffer *buffer = buffer_make(BYTES);
    umo_votes votes;
    record_times(buffer, UMO_SIDE_HOST, UMO_WRITE, BYTES, 1000);
    assert_true(umo_record_votes_take(buffer, 0, &votes) <= 0);
    umo_buffer_release(buffer);
}

static void wrong_arguments_are_refused_and_not_counted(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(100);
    char *host = umo_buffer_host(buffer);
    /* Twice: where the thread has no slot for the buffer yet, and where it has one. */
    for (uint64_t counted = 0; counted < 2; counted++) {
        const int sides[] = {0, 3, 4, -1};
        const int uses[] = {0, 4, 5, 6, 7, -1};
        for (size_t i = 0; i < sizeof sides / sizeof sides[0]; i++) {
            umo_side side = (umo_side)sides[i];
            assert_int_equal(umo_access_record(buffer, side, UMO_READ, 1), UMO_E_INVAL);
            assert_int_equal(umo_access_record_at(host, side, UMO_READ, 1), UMO_E_INVAL);
        }
        for (size_t i = 0; i < sizeof uses / sizeof uses[0]; i++) {
            umo_use use = (umo_use)uses[i];
            assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, use, 1), UMO_E_INVAL);
            assert_int_equal(umo_access_record_at(host, UMO_SIDE_HOST, use, 1), UMO_E_INVAL);
        }
        const uint64_t sizes[] = {0, 101, UINT64_MAX};
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, sizes[i]),
                             UMO_E_INVAL);
            assert_int_equal(umo_access_record_at(host, UMO_SIDE_HOST, UMO_READ, sizes[i]),
                             UMO_E_INVAL);
        }
        assert_int_equal(umo_access_record_at(host + 99, UMO_SIDE_HOST, UMO_READ, 2), UMO_E_INVAL);
        assert_int_equal(umo_access_record(NULL, UMO_SIDE_HOST, UMO_READ, 1), UMO_E_INVAL);
        assert_int_equal(umo_access_record_at(NULL, UMO_SIDE_HOST, UMO_READ, 1), UMO_E_INVAL);
        assert_int_equal(stats_of(buffer).accesses, 2 * counted);
        assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, 100), UMO_OK);
        assert_int_equal(umo_access_record_at(host + 99, UMO_SIDE_HOST, UMO_READ, 1), UMO_OK);
    }
    assert_int_equal(umo_buffer_set_pattern(buffer, UMO_PATTERNS), UMO_E_INVAL);
    assert_int_equal(umo_buffer_set_pattern(NULL, UMO_PATTERN_BALANCED), UMO_E_INVAL);
    umo_buffer_release(buffer);
}

static void brackets_on_allocated_memory_are_accesses(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(BYTES);
    umo_access access = {.size_bytes = 300, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
        assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
    }
    umo_access none = {.size_bytes = 0, .side = UMO_SIDE_HOST, .use = UMO_READ};
    assert_int_equal(umo_access_begin(buffer, &none, &waits), UMO_OK);
    umo_access outside = {.size_bytes = BYTES + 1, .side = UMO_SIDE_HOST, .use = UMO_READ};
    assert_int_equal(umo_access_begin(buffer, &outside, &waits), UMO_E_INVAL);
    umo_access_stats s = stats_of(buffer);
    assert_int_equal(s.accesses, 3);
    assert_int_equal(s.host.writes.bytes, 900);
    umo_buffer_release(buffer);
}

static void imports_are_recorded_once_they_are_tracked(void **state)
{
    (void)state;
    static char memory[BYTES];
    const umo_import import = {.data = memory, .size_bytes = BYTES, .whole_pages = true};
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL), UMO_OK);
    umo_access access = {.size_bytes = 300, .side = UMO_SIDE_HOST, .use = UMO_READ};
    umo_fence_set waits;
    umo_buffer *found = NULL;
    for (uint64_t i = 0; i < 2; i++) {
        assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
        assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
        assert_int_equal(stats_of(buffer).accesses, i);
        assert_int_equal(umo_buffer_find(memory, &found), i == 0 ? UMO_E_NOT_FOUND : UMO_OK);
        assert_int_equal(umo_buffer_track(buffer), UMO_OK);
    }
    assert_ptr_equal(found, buffer);
    umo_buffer_release(found);
    umo_buffer_release(buffer);
    assert_int_equal(umo_buffer_find(memory, &found), UMO_E_NOT_FOUND);
}

static void addresses_inside_are_found_and_outside_are_not(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make((size_t)8 << 20);
    size_t size = umo_buffer_size(buffer);
    char *host = umo_buffer_host(buffer);
    uint64_t counted = 0;
    for (size_t at = 0; at < size; at += 4096 * 3 + 17) {
        assert_int_equal(umo_access_record_at(host + at, UMO_SIDE_HOST, UMO_READ, 1), UMO_OK);
        counted++;
        umo_buffer *found = NULL;
        assert_int_equal(umo_buffer_find(host + at, &found), UMO_OK);
        assert_ptr_equal(found, buffer);
        umo_buffer_release(found);
    }
    assert_int_equal(umo_access_record_at(host + size - 1, UMO_SIDE_HOST, UMO_READ, 1), UMO_OK);
    assert_int_equal(stats_of(buffer).accesses, counted + 1);
    umo_buffer *found = NULL;
    assert_int_equal(umo_buffer_find(host + size, &found), UMO_E_NOT_FOUND);
    assert_int_equal(umo_buffer_find(host - 1, &found), UMO_E_NOT_FOUND);
    umo_buffer_release(buffer);
    assert_int_equal(umo_buffer_find(host, &found), UMO_E_NOT_FOUND);
    assert_int_equal(umo_access_record_at(host, UMO_SIDE_HOST, UMO_READ, 1), UMO_E_NOT_FOUND);
    assert_int_equal(umo_access_record_at(host + size - 1, UMO_SIDE_HOST, UMO_READ, 1),
                     UMO_E_NOT_FOUND);
}

/* Imports of one piece of memory, so that the address is the same each time. */
static void an_address_leads_to_the_buffer_that_has_it_now(void **state)
{
    (void)state;
    static char memory[BYTES];
    for (unsigned i = 1; i < 50; i++) {
        const umo_import import = {.data = memory, .size_bytes = BYTES, .whole_pages = true};
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL),
                         UMO_OK);
        assert_int_equal(umo_access_record_at(memory, UMO_SIDE_HOST, UMO_READ, 1), UMO_E_NOT_FOUND);
        assert_int_equal(umo_buffer_track(buffer), UMO_OK);
        for (unsigned j = 0; j < i; j++) {
            assert_int_equal(umo_access_record_at(memory + j, UMO_SIDE_HOST, UMO_READ, 1), UMO_OK);
        }
        assert_int_equal(stats_of(buffer).accesses, i);
        umo_buffer_release(buffer);
    }
}

/* Five windows of host writes, one and a half of device reads; naps must change nothing. */
static umo_access_stats fade_once(long nap_ns, unsigned beside)
{
    umo_buffer *buffer = buffer_make(BYTES);
    umo_buffer *others[MANY] = {NULL};
    for (unsigned i = 0; i < beside; i++) {
        others[i] = buffer_make(BYTES);
    }
    const unsigned host = 5 * UMO_ACCESS_WINDOW;
    const unsigned all = host + UMO_ACCESS_WINDOW + UMO_ACCESS_WINDOW / 2;
    for (unsigned i = 0; i < all; i++) {
        record_times(buffer, i < host ? UMO_SIDE_HOST : UMO_SIDE_DEVICE,
                     i < host ? UMO_WRITE : UMO_READ, 100, 1);
        if (i % 100 == 0 && nap_ns > 0) {
            nap(nap_ns);
        }
        if (beside > 0 && i % 7 == 0) {
            for (unsigned j = 0; j < beside; j++) {
                record_times(others[j], UMO_SIDE_HOST, UMO_READ, 1, 1);
            }
        }
    }
    umo_access_stats s = stats_of(buffer);
    for (unsigned i = 0; i < beside; i++) {
        umo_buffer_release(others[i]);
    }
    umo_buffer_release(buffer);
    return s;
}

static void old_accesses_fade_by_count_and_not_by_time(void **state)
{
    (void)state;
    umo_access_stats s = fade_once(0, 0);
    double w = UMO_ACCESS_WINDOW;
    /* Each full window closes when the next access comes: the device's one has closed the host's.
     */
    double host = w * (1.0 / 2 + 1.0 / 4 + 1.0 / 8 + 1.0 / 16 + 1.0 / 32);
    assert_true(fabs(s.host.recent_writes - host) < 1e-9);
    assert_true(fabs(s.host.recent_write_bytes - 100 * host) < 1e-6);
    assert_true(fabs(s.device.recent_reads - 1.5 * w) < 1e-9);
    assert_true(s.recent_turns == 1);
    assert_int_equal(s.accesses, 6 * UMO_ACCESS_WINDOW + UMO_ACCESS_WINDOW / 2);
    umo_access_stats slow = fade_once(2000000, 0);
    slow.last_ns = s.last_ns;
    assert_memory_equal(&slow, &s, sizeof s);
}

static void a_thread_that_uses_many_buffers_loses_no_count(void **state)
{
    (void)state;
    umo_access_stats calm = fade_once(0, 0);
    umo_access_stats busy = fade_once(0, MANY);
    assert_int_equal(busy.accesses, calm.accesses);
    assert_int_equal(busy.host.writes.bytes, calm.host.writes.bytes);
    assert_int_equal(busy.device.reads.bytes, calm.device.reads.bytes);
    assert_true(busy.recent_turns >= 0.5 && busy.recent_turns <= 1);
    /* Windows that end early are put together again, so it fades as often, give or take one. */
    assert_true(busy.host.recent_writes <= 2 * calm.host.recent_writes);
    assert_true(busy.host.recent_writes >= calm.host.recent_writes / 2);
}

static void the_last_access_has_its_time(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_make(BYTES);
    assert_int_equal(stats_of(buffer).last_ns, 0);
    for (int i = 0; i < 5; i++) {
        nap(3000000);
        uint64_t before = umo_os_now_ns();
        record_times(buffer, UMO_SIDE_HOST, UMO_READ, 1, 1);
        uint64_t after = umo_os_now_ns();
        nap(3000000);
        uint64_t last = stats_of(buffer).last_ns;
        assert_true(last + 1000000 > before);
        assert_true(last < after + 1000000);
    }
    umo_buffer_release(buffer);
}

static void an_access_longer_than_a_slot_can_hold_is_counted_whole(void **state)
{
    (void)state;
    /* Nothing is touched, so the memory need not be there. */
    const size_t huge = (size_t)1 << 45;
    const umo_import import = {.data = (void *)0x1000000, .size_bytes = huge, .whole_pages = true};
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL), UMO_OK);
    record_times(buffer, UMO_SIDE_DEVICE, UMO_READ, huge, 300);
    assert_int_equal(umo_access_record_at((void *)0x1000000, UMO_SIDE_HOST, UMO_WRITE, huge - 1),
                     UMO_OK);
    umo_access_stats s = stats_of(buffer);
    assert_int_equal(s.device.reads.bytes, 300 * (uint64_t)huge);
    assert_int_equal(s.host.writes.bytes, huge - 1);
    assert_int_equal(s.accesses, 301);
    assert_true(s.recent_turns == 1);
    assert_true(s.recent_accesses < 3 * UMO_ACCESS_WINDOW);
    umo_buffer_release(buffer);
}

/* ---- threads ---- */

typedef struct worker {
    umo_buffer *shared;
    umo_buffer *own;
    unsigned number;
    unsigned accesses;
    barrier_test *barrier; /* passed when all are done, and again before the thread ends */
    _Atomic bool *stop;    /* NULL: accesses says when */
    _Atomic uint64_t started;
    _Atomic uint64_t finished;
} worker;

static void *work(void *argument)
{
    worker *w = argument;
    umo_side side = w->number % 2 == 0 ? UMO_SIDE_HOST : UMO_SIDE_DEVICE;
    umo_use use = w->number % 2 == 0 ? UMO_WRITE : UMO_READ;
    char *host = umo_buffer_host(w->shared);
    for (unsigned i = 0; w->stop != NULL ? !atomic_load(w->stop) : i < w->accesses; i++) {
        atomic_fetch_add(&w->started, 1);
        umo_status status = i % 3 == 0 ? umo_access_record_at(host + i % BYTES, side, use, 1)
                                       : umo_access_record(w->shared, side, use, 1);
        umo_status second = umo_access_record(w->own, side, use, 2);
        if (status != UMO_OK || second != UMO_OK) {
            abort();
        }
        atomic_fetch_add(&w->finished, 1);
    }
    if (w->barrier != NULL) {
        barrier_test_wait(w->barrier);
        barrier_test_wait(w->barrier);
    }
    return NULL;
}

static void counts_of_all_threads_are_exact(void **state)
{
    (void)state;
    barrier_test barrier;
    barrier_test_init(&barrier, THREADS + 1);
    umo_buffer *shared = buffer_make(BYTES);
    worker workers[THREADS] = {0};
    pthread_t threads[THREADS];
    uint64_t all = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i].shared = shared;
        workers[i].own = buffer_make(BYTES);
        workers[i].number = i;
        workers[i].accesses = 20000 + 37 * i;
        workers[i].barrier = &barrier;
        all += workers[i].accesses;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    /* Quiet threads' counts are in their tables, ended ones' in the records. */
    barrier_test_wait(&barrier);
    assert_int_equal(stats_of(shared).accesses, all);
    barrier_test_wait(&barrier);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    umo_access_stats s = stats_of(shared);
    assert_int_equal(s.accesses, all);
    assert_int_equal(s.host.writes.bytes + s.device.reads.bytes, all);
    for (unsigned i = 0; i < THREADS; i++) {
        assert_int_equal(stats_of(workers[i].own).accesses, workers[i].accesses);
        umo_buffer_release(workers[i].own);
    }
    umo_buffer_release(shared);
    barrier_test_finish(&barrier);
}

/* Whatever moves between slots and records meanwhile: a reader finds every access that had finished
 * when it began, and none that had not started when it ended. */
static void a_reader_beside_writers_misses_nothing_and_sees_nothing_twice(void **state)
{
    (void)state;
    umo_buffer *shared = buffer_make(BYTES);
    umo_buffer *own = buffer_make(BYTES);
    _Atomic bool stop = false;
    worker workers[2] = {0};
    pthread_t threads[2];
    for (unsigned i = 0; i < 2; i++) {
        workers[i].shared = shared;
        workers[i].own = own;
        workers[i].number = i;
        workers[i].stop = &stop;
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    }
    for (uint64_t reads = 0, seen = 0; reads < READS || seen < 20 * READS; reads++) {
        uint64_t before = atomic_load(&workers[0].finished) + atomic_load(&workers[1].finished);
        seen = stats_of(shared).accesses;
        uint64_t after = atomic_load(&workers[0].started) + atomic_load(&workers[1].started);
        assert_true(before <= seen);
        assert_true(seen <= after);
    }
    atomic_store(&stop, true);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    umo_buffer_release(shared);
    umo_buffer_release(own);
}

static void sides_that_two_threads_keep_to_count_as_turns(void **state)
{
    (void)state;
    umo_buffer *shared = buffer_make(BYTES);
    worker workers[2] = {0};
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < 2; i++) {
            pthread_t thread;
            workers[i] =
                (worker){.shared = shared, .own = buffer_make(BYTES), .number = i, .accesses = 40};
            assert_int_equal(pthread_create(&thread, NULL, work, &workers[i]), 0);
            assert_int_equal(pthread_join(thread, NULL), 0);
            umo_buffer_release(workers[i].own);
        }
    }
    umo_access_stats s = stats_of(shared);
    assert_true(s.recent_turns >= s.recent_accesses / 4);
    umo_buffer_release(shared);
}

static void *late_work(void *argument)
{
    worker *w = argument;
    record_times(w->shared, UMO_SIDE_DEVICE, UMO_READ, 5, w->accesses);
    barrier_test_wait(w->barrier);
    barrier_test_wait(w->barrier);
    return NULL;
}

/* A thread ends, and brings its counts, when their buffer is gone and another has the record. */
static void counts_that_come_late_reach_nobody_else(void **state)
{
    (void)state;
    barrier_test barrier;
    barrier_test_init(&barrier, 2);
    umo_buffer *buffer = buffer_make(BYTES);
    worker w = {.shared = buffer, .accesses = 60, .barrier = &barrier};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, late_work, &w), 0);
    barrier_test_wait(&barrier);
    assert_int_equal(stats_of(buffer).accesses, 60);
    umo_buffer_release(buffer);
    umo_buffer *next = buffer_make(BYTES);
    assert_int_equal(stats_of(next).accesses, 0);
    barrier_test_wait(&barrier);
    assert_int_equal(pthread_join(thread, NULL), 0);
    umo_access_stats s = stats_of(next);
    assert_int_equal(s.accesses, 0);
    assert_int_equal(s.last_ns, 0);
    umo_buffer_release(next);
    barrier_test_finish(&barrier);
}

static _Atomic unsigned locks_phase; /* 1 held, 2 given back */

/* Holds every lock of recording for a while. */
static void *locks_hold(void *argument)
{
    const umo_buffer *shared = argument;
    umo_record *record = umo_record_of(atomic_load(&shared->record_key));
    umo_record_registry_lock();
    umo_record_table *table = umo_record_table_first();
    lock_take(&record->locked);
    lock_take(&table->locked);
    atomic_store(&locks_phase, 1);
    nap(20000000);
    lock_give(&table->locked);
    lock_give(&record->locked);
    umo_record_registry_unlock();
    atomic_store(&locks_phase, 2);
    return NULL;
}

static void locks_wait(unsigned phase)
{
    while (atomic_load(&locks_phase) < phase) {
        nap(100000);
    }
}

static void a_child_of_fork_records_whatever_other_threads_were_at(void **state)
{
    (void)state;
    umo_buffer *shared = buffer_make(BYTES);
    record_times(shared, UMO_SIDE_HOST, UMO_READ, 1, 3);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, locks_hold, shared), 0);
    assert_int_equal(pthread_detach(thread), 0); /* who would join it in the child? */
    locks_wait(1);
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(10);
        umo_buffer *more = NULL;
        bool good = umo_buffer_alloc(r.device, r.scope, BYTES, UMO_UNIFIED, &more, NULL) == UMO_OK;
        good = good && umo_access_record(more, UMO_SIDE_HOST, UMO_READ, 1) == UMO_OK &&
               umo_access_record(shared, UMO_SIDE_HOST, UMO_READ, 1) == UMO_OK &&
               stats_of(more).accesses == 1 && stats_of(shared).accesses == 4;
        umo_buffer_release(more);
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    locks_wait(2);
    assert_int_equal(stats_of(shared).accesses, 3);
    umo_buffer_release(shared);
}

/* ---- buffers that come and go while others record by address ---- */

static _Atomic bool churn_ends;
static char churn_memory[4][BYTES];

static void *churn_record(void *argument)
{
    uint64_t counted = 0;
    (void)argument;
    for (unsigned i = 0; !atomic_load(&churn_ends); i++) {
        umo_status status =
            umo_access_record_at(churn_memory[i % 4] + i % 4096, UMO_SIDE_HOST, UMO_READ, 1);
        if (status != UMO_OK && status != UMO_E_NOT_FOUND) {
            abort();
        }
        counted += status == UMO_OK ? 1 : 0;
        umo_buffer *found = NULL;
        if (i % 64 == 0 && umo_buffer_find(churn_memory[i % 4], &found) == UMO_OK) {
            umo_access_stats s;
            umo_buffer_stats(found, &s);
            umo_buffer_release(found);
        }
    }
    return (void *)(uintptr_t)counted;
}

static void addresses_may_be_recorded_while_buffers_come_and_go(void **state)
{
    (void)state;
    pthread_t threads[3];
    atomic_store(&churn_ends, false);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn_record, NULL), 0);
    }
    umo_buffer *buffers[4] = {NULL};
    for (unsigned round = 0; round < 4000; round++) {
        unsigned i = round * 7 % 4;
        if (buffers[i] != NULL) {
            umo_buffer_release(buffers[i]);
            buffers[i] = NULL;
            continue;
        }
        const umo_import import = {
            .data = churn_memory[i], .size_bytes = BYTES, .whole_pages = true};
        assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffers[i], NULL, NULL),
                         UMO_OK);
        assert_int_equal(umo_buffer_track(buffers[i]), UMO_OK);
        if (round % 100 == 0) {
            nap(100000);
        }
    }
    atomic_store(&churn_ends, true);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    for (int i = 0; i < 4; i++) {
        umo_buffer_release(buffers[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_access_counts_by_side_and_use),
        cmocka_unit_test(with_one_node_nobody_votes),
        cmocka_unit_test(wrong_arguments_are_refused_and_not_counted),
        cmocka_unit_test(brackets_on_allocated_memory_are_accesses),
        cmocka_unit_test(imports_are_recorded_once_they_are_tracked),
        cmocka_unit_test(addresses_inside_are_found_and_outside_are_not),
        cmocka_unit_test(an_address_leads_to_the_buffer_that_has_it_now),
        cmocka_unit_test(old_accesses_fade_by_count_and_not_by_time),
        cmocka_unit_test(a_thread_that_uses_many_buffers_loses_no_count),
        cmocka_unit_test(the_last_access_has_its_time),
        cmocka_unit_test(an_access_longer_than_a_slot_can_hold_is_counted_whole),
        cmocka_unit_test(counts_of_all_threads_are_exact),
        cmocka_unit_test(a_reader_beside_writers_misses_nothing_and_sees_nothing_twice),
        cmocka_unit_test(sides_that_two_threads_keep_to_count_as_turns),
        cmocka_unit_test(counts_that_come_late_reach_nobody_else),
        cmocka_unit_test(a_child_of_fork_records_whatever_other_threads_were_at),
        cmocka_unit_test(addresses_may_be_recorded_while_buffers_come_and_go),
    };
    return cmocka_run_group_tests(tests, rig_open, rig_close);
}

/*
 * The optimizer: its life, its memory and its figures, on the host's device.
 */
#include "base/scope.h"

#include <umo/numa.h>
#include <umo/optimizer.h>
#include <umo/pool.h>

#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define KIB ((size_t)1024)
#define MIB (1024 * KIB)

static umo_optimizer_config host_config(void)
{
    umo_optimizer_config config;
    umo_optimizer_config_init(&config);
    strcpy(config.driver, "host");
    config.auto_placement = false;
    config.pressure_adaptation = false;
    return config;
}

static void start(const umo_optimizer_config *config)
{
    umo_error error = {0};
    if (umo_optimizer_initialize(config, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
}

static void stop(void)
{
    assert_int_equal(umo_optimizer_shutdown(NULL), UMO_OK);
}

/* Runs first: the process has not started one yet. */
static void the_first_call_starts_it_and_a_configuration_takes_its_place(void **state)
{
    (void)state;
    umo_optimizer_stats stats;
    assert_false(umo_optimizer_running());
    assert_int_equal(umo_optimizer_stats_read(&stats, NULL), UMO_OK);
    assert_true(umo_optimizer_running());
    umo_optimizer_config config = host_config();
    config.pressure_adaptation = true;
    config.pressure_threshold = 0.5; /* the defaults have started with another one */
    start(&config);
    stop();
    assert_false(umo_optimizer_running());
}

static void after_a_shutdown_every_call_says_so(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    start(&config);
    stop();
    umo_error error = {0};
    umo_buffer *buffer = NULL;
    size_t size = 1;
    char byte = 0;
    umo_storage_mode mode;
    umo_optimizer_stats stats;
    umo_optimizer_transfers transfers;
    assert_int_equal(umo_optimizer_shutdown(&error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "does not run"));
    assert_int_equal(umo_optimizer_alloc(1, UMO_PATTERN_UNKNOWN, 0, &buffer, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "shut down"));
    assert_int_equal(umo_optimizer_wrap(&byte, 1, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc_batch(&size, 1, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_optimizer_take(1, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_optimize(&byte, NULL, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_prefetch(&byte, 1, UMO_SIDE_HOST, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_pin(&byte, true, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_mode(1, UMO_PATTERN_UNKNOWN, 0, &mode, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_adapt(NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_stats_read(&stats, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_transfer_eliminated(1, UMO_DIRECTION_IN), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_transfers_read(&transfers), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_transfers_reset(), UMO_E_INVAL);
    assert_null(buffer);
}

static void a_second_start_joins_or_names_what_differs(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    start(&config);
    start(&config);
    start(NULL);
    umo_optimizer_config other = config;
    other.cache_line_bytes = 64;
    umo_error error = {0};
    assert_int_equal(umo_optimizer_initialize(&other, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "cache_line_bytes"));
    stop();
    stop();
    assert_true(umo_optimizer_running());
    stop();
    assert_false(umo_optimizer_running());
    start(&other); /* alone it may be whatever it wants */
    stop();
}

static void figures_that_cannot_be_are_refused(void **state)
{
    (void)state;
    umo_optimizer_config bad[9];
    for (size_t i = 0; i < 9; i++) {
        bad[i] = host_config();
    }
    bad[0].pressure_threshold = NAN;
    bad[1].pressure_threshold = 1.5;
    bad[2].pressure_threshold = 0;
    bad[3].cache_line_bytes = 96;
    bad[4].cache_line_bytes = 0;
    bad[5].placement_change_threshold = 0;
    bad[6].classes[1].size_bytes = SIZE_MAX;
    memset(bad[7].driver, 'x', sizeof bad[7].driver);
    bad[8].cache_line_bytes = 8192;
    for (size_t i = 0; i < 9; i++) {
        assert_int_equal(umo_optimizer_initialize(&bad[i], NULL), UMO_E_INVAL);
    }
    umo_optimizer_config none = host_config();
    strcpy(none.driver, "no-such");
    assert_int_equal(umo_optimizer_initialize(&none, NULL), UMO_E_NOT_FOUND);
    assert_false(umo_optimizer_running());
}

static void memory_is_found_by_any_of_its_addresses(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    start(&config);
    assert_int_equal(umo_optimizer_alloc(MIB, UMO_PATTERN_BALANCED, 0, &buffer, NULL), UMO_OK);
    char *data = umo_buffer_host(buffer);
    memset(data, 1, MIB);
    assert_int_equal(umo_optimizer_pin(data + 5, true, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_pin(data, false, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_pin(data, false, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_prefetch(data + MIB - 1, 1, UMO_SIDE_DEVICE, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_prefetch(data + MIB - 1, 2, UMO_SIDE_DEVICE, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_prefetch(data, 0, UMO_SIDE_DEVICE, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_prefetch(data + MIB, 1, UMO_SIDE_HOST, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "no buffer"));
    bool moved = true;
    assert_int_equal(umo_optimizer_optimize(data + 100, &moved, NULL), UMO_OK);
    umo_buffer_release(buffer);
    assert_int_equal(umo_optimizer_pin(data, true, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_optimizer_optimize(&config, NULL, NULL), UMO_E_NOT_FOUND);
    stop();
}

static void sizes_and_devices_that_cannot_be_are_refused(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_buffer *buffer = NULL;
    umo_storage_mode mode;
    char byte = 0;
    start(&config);
    assert_int_equal(umo_optimizer_alloc(0, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc(SIZE_MAX, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc(1, UMO_PATTERN_UNKNOWN, 99, &buffer, NULL),
                     UMO_E_NOT_FOUND);
    assert_int_equal(umo_optimizer_alloc_numa(1, 77, 0, &buffer, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_optimizer_alloc_numa(0, -1, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_wrap(NULL, 1, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_wrap(&byte, 0, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_take(0, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_mode(0, UMO_PATTERN_UNKNOWN, 0, &mode, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_transfer_eliminated(1, (umo_direction)2), UMO_E_INVAL);
    assert_null(buffer);
    assert_int_equal(umo_optimizer_alloc_numa(1, -1, 0, &buffer, NULL), UMO_OK);
    umo_buffer_release(buffer);
    /* On a machine with one node that is a node too. */
    umo_numa_topology topology;
    assert_int_equal(umo_numa_topology_read(&topology, NULL), UMO_OK);
    if (umo_numa_memory_nodes() == 1 && topology.count == 1) {
        assert_int_equal(umo_optimizer_alloc_numa(1, topology.nodes[0].id, 0, &buffer, NULL),
                         UMO_OK);
        umo_buffer_release(buffer);
    }
    umo_buffer_release(NULL);
    stop();
}

static void zero_copy_off_refuses_to_wrap(void **state)
{
    (void)state;
    umo_optimizer_config config = host_config();
    config.zero_copy = false;
    config.prefetching = false;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    char bytes[64] = {0};
    start(&config);
    assert_int_equal(umo_optimizer_wrap(bytes, sizeof bytes, 0, &buffer, &error), UMO_E_REFUSED);
    assert_non_null(strstr(error.text, "off"));
    assert_int_equal(umo_optimizer_alloc(1, UMO_PATTERN_UNKNOWN, 0, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_prefetch(umo_buffer_host(buffer), 1, UMO_SIDE_HOST, NULL),
                     UMO_E_UNSUPPORTED);
    assert_int_equal(umo_optimizer_adapt(NULL), UMO_E_UNSUPPORTED);
    umo_buffer_release(buffer);
    stop();
}

static void a_wrap_is_the_callers_own_memory(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_buffer *buffer = NULL;
    float *data = calloc(1024, sizeof *data);
    start(&config);
    assert_int_equal(umo_optimizer_wrap(data, 1024 * sizeof *data, 0, &buffer, NULL), UMO_OK);
    assert_ptr_equal(umo_buffer_host(buffer), data);
    assert_int_equal(umo_optimizer_prefetch(data + 7, 4, UMO_SIDE_HOST, NULL), UMO_OK);
    umo_buffer_release(buffer);
    stop();
    free(data);
}

static void a_batch_is_one_allocation_of_independent_buffers(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    const size_t sizes[] = {1, 5000, 64 * KIB, 3};
    umo_buffer *buffers[4] = {NULL};
    umo_context *context = NULL;
    start(&config);
    assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
    umo_counters before;
    umo_scope_read(umo_context_scope(context), &before);
    assert_int_equal(umo_optimizer_alloc_batch(sizes, 4, UMO_PATTERN_UNKNOWN, 0, buffers, NULL),
                     UMO_OK);
    umo_counters after;
    umo_scope_read(umo_context_scope(context), &after);
    assert_int_equal(after.allocated.events - before.allocated.events, 1);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(umo_buffer_size(buffers[i]), sizes[i]);
        memset(umo_buffer_host(buffers[i]), i + 1, sizes[i]);
    }
    umo_buffer_release(buffers[0]);
    umo_buffer_release(buffers[2]);
    assert_int_equal(((char *)umo_buffer_host(buffers[1]))[4999], 2);
    assert_int_equal(((char *)umo_buffer_host(buffers[3]))[2], 4);
    umo_buffer_release(buffers[1]);
    umo_buffer_release(buffers[3]);
    umo_scope_read(umo_context_scope(context), &after);
    assert_int_equal(after.live_bytes, before.live_bytes);

    const size_t none[] = {8, 0};
    const size_t huge[] = {SIZE_MAX - 4096, SIZE_MAX - 4096};
    buffers[0] = NULL;
    assert_int_equal(umo_optimizer_alloc_batch(none, 2, UMO_PATTERN_UNKNOWN, 0, buffers, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc_batch(huge, 2, UMO_PATTERN_UNKNOWN, 0, buffers, NULL),
                     UMO_E_INVAL);
    assert_null(buffers[0]);
    assert_int_equal(umo_optimizer_alloc_batch(none, 0, UMO_PATTERN_UNKNOWN, 0, buffers, NULL),
                     UMO_OK);
    umo_context_default_release(context);
    stop();
}

static void a_block_may_come_back_after_the_shutdown(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_buffer *block = NULL;
    umo_buffer *other = NULL;
    start(&config);
    assert_int_equal(umo_optimizer_take(100 * KIB, UMO_PATTERN_UNKNOWN, 0, &block, NULL), UMO_OK);
    stop();
    memset(umo_buffer_host(block), 1, 100 * KIB);
    start(&config); /* another one, with pools of its own */
    assert_int_equal(umo_optimizer_take(100 * KIB, UMO_PATTERN_UNKNOWN, 0, &other, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_give(block), UMO_OK);
    assert_int_equal(umo_optimizer_give(other), UMO_OK);
    assert_int_equal(umo_optimizer_give(other), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc(8, UMO_PATTERN_UNKNOWN, 0, &other, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_give(other), UMO_E_INVAL);
    umo_buffer_release(other);
    stop();
}

static void figures_are_what_was_done(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_optimizer_stats before;
    umo_optimizer_stats after;
    umo_optimizer_transfers transfers;
    umo_buffer *buffer = NULL;
    start(&config);
    assert_int_equal(umo_optimizer_stats_read(&before, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_alloc(MIB, UMO_PATTERN_CPU_DOMINANT, 0, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes - before.total_bytes, MIB);
    assert_int_equal(after.pattern_bytes[UMO_PATTERN_CPU_DOMINANT] -
                         before.pattern_bytes[UMO_PATTERN_CPU_DOMINANT],
                     MIB);
    assert_int_equal(after.unified_bytes - before.unified_bytes,
                     umo_buffer_mode(buffer) == UMO_UNIFIED ? MIB : 0);

    assert_int_equal(umo_optimizer_transfers_reset(), UMO_OK);
    assert_int_equal(umo_optimizer_transfer_eliminated(1000, UMO_DIRECTION_IN), UMO_OK);
    assert_int_equal(umo_optimizer_transfer_eliminated(24, UMO_DIRECTION_OUT), UMO_OK);
    assert_int_equal(umo_optimizer_transfers_read(&transfers), UMO_OK);
    assert_int_equal(transfers.to_device.events, 1);
    assert_int_equal(transfers.to_device.bytes, 1000);
    assert_int_equal(transfers.to_host.bytes, 24);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.eliminated_bytes, 1024);
    umo_buffer_release(buffer);
    stop();
}

static void what_is_wrapped_counts_in_the_total(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    umo_optimizer_stats before;
    umo_optimizer_stats after;
    umo_buffer *buffer = NULL;
    static char bytes[3 * KIB];
    start(&config);
    assert_int_equal(umo_optimizer_stats_read(&before, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_wrap(bytes, sizeof bytes, 0, &buffer, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes - before.total_bytes, sizeof bytes);
    assert_int_equal(after.unified_bytes - before.unified_bytes, sizeof bytes);
    assert_true(after.unified_bytes <= after.total_bytes);
    umo_buffer_release(buffer);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes, before.total_bytes);
    stop();
}

/* What stands behind a batch or a pool is not seen as a buffer beside its parts. */
static void parts_are_found_by_address_and_counted_once(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    const size_t sizes[] = {MIB, MIB};
    umo_optimizer_stats before;
    umo_optimizer_stats after;
    umo_buffer *parts[3] = {NULL};
    start(&config);
    assert_int_equal(umo_optimizer_stats_read(&before, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_alloc_batch(sizes, 2, UMO_PATTERN_STREAMING, 0, parts, NULL),
                     UMO_OK);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes - before.total_bytes, 2 * MIB);
    assert_int_equal(after.unified_bytes - before.unified_bytes, 2 * MIB);
    assert_int_equal(after.pattern_bytes[UMO_PATTERN_STREAMING], 2 * MIB);
    assert_int_equal(after.pattern_bytes[UMO_PATTERN_UNKNOWN],
                     before.pattern_bytes[UMO_PATTERN_UNKNOWN]);
    assert_int_equal(umo_optimizer_take(64 * KIB, UMO_PATTERN_BALANCED, 0, &parts[2], NULL),
                     UMO_OK);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_true(after.unified_bytes <= after.total_bytes);
    for (int i = 0; i < 3; i++) {
        umo_buffer *found = NULL;
        char *data = umo_buffer_host(parts[i]);
        assert_int_equal(umo_access_record_at(data, UMO_SIDE_HOST, UMO_WRITE, 100), UMO_OK);
        assert_int_equal(umo_buffer_find(data + 99, &found), UMO_OK);
        assert_ptr_equal(found, parts[i]);
        umo_buffer_release(found);
    }
    assert_int_equal(umo_optimizer_give(parts[2]), UMO_OK);
    umo_buffer_release(parts[0]);
    umo_buffer_release(parts[1]);
    stop();
}

/* A model of the server has pressure watched before a backend joins without a configuration. */
static void a_start_joins_the_pressure_that_is_watched(void **state)
{
    (void)state;
    umo_optimizer_config config = host_config();
    config.pressure_adaptation = true;
    for (int i = 0; i < 2; i++) {
        umo_context *context = NULL;
        const umo_pressure_options options = {.threshold = i == 0 ? 0 : 0.7};
        umo_error error = {0};
        assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
        assert_int_equal(umo_context_pressure_start(context, &options, NULL), UMO_OK);
        start(NULL);
        stop();
        assert_int_equal(umo_optimizer_initialize(&config, &error), i == 0 ? UMO_OK : UMO_E_INVAL);
        if (i == 0) {
            stop();
        } else {
            assert_non_null(strstr(error.text, "0.7"));
        }
        umo_context_default_release(context);
    }
}

enum {
    RESETS = 500
};

static void *reset_often(void *argument)
{
    for (int i = 0; i < RESETS; i++) {
        umo_status_ignore(umo_optimizer_transfer_eliminated(7, UMO_DIRECTION_IN));
        umo_status_ignore(umo_optimizer_transfers_reset());
    }
    return argument;
}

static void a_reset_beside_a_reader_leaves_nothing_below_zero(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    start(&config);
    pthread_t resetters[4];
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&resetters[i], NULL, reset_often, NULL), 0);
    }
    uint64_t most = 0;
    for (int i = 0; i < 4 * RESETS; i++) {
        umo_optimizer_transfers transfers;
        assert_int_equal(umo_optimizer_transfers_read(&transfers), UMO_OK);
        most = transfers.to_device.bytes > most ? transfers.to_device.bytes : most;
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(resetters[i], NULL), 0);
    }
    assert_true(most <= UINT64_C(4) * RESETS * 7);
    stop();
}

static pthread_t main_thread;
static _Atomic int shut_down_there;

static void shut_down(void *data, void *user)
{
    (void)data;
    (void)user;
    int not_yet = 0; /* another thread may be the last that has another buffer */
    if (!pthread_equal(pthread_self(), main_thread) &&
        atomic_compare_exchange_strong(&shut_down_there, &not_yet, 1)) {
        atomic_store(&shut_down_there, umo_optimizer_shutdown(NULL) == UMO_OK ? 2 : 3);
    }
}

/* In the worker's way, so that it holds each buffer for longer. */
static void *optimize_often(void *address)
{
    while (atomic_load(&shut_down_there) == 0) {
        umo_status_ignore(umo_optimizer_optimize(address, NULL, NULL));
    }
    return NULL;
}

/* The worker looks at every buffer, and may be the last that has it. */
static void a_deleter_on_the_workers_thread_may_shut_down(void **state)
{
    (void)state;
    enum {
        MANY = 2000
    };
    static char bytes[MANY];
    static umo_buffer *buffers[MANY];
    umo_optimizer_config config = host_config();
    config.auto_placement = true;
    main_thread = pthread_self();
    umo_context *context = NULL;
    umo_device *device = NULL;
    umo_buffer *movable = NULL;
    start(&config);
    assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
    assert_int_equal(umo_context_device(context, "host", 0, &device, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_alloc(64, UMO_PATTERN_BALANCED, 0, &movable, NULL), UMO_OK);
    umo_scope *scope = umo_context_scope(context);
    umo_scope_acquire(scope);
    umo_context_default_release(context);
    pthread_t others[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&others[i], NULL, optimize_often, umo_buffer_host(movable)),
                         0);
    }
    for (int round = 0; round < 3000 && atomic_load(&shut_down_there) == 0; round++) {
        for (int i = 0; i < MANY; i++) {
            const umo_import import = {.data = &bytes[i], .size_bytes = 1, .deleter = shut_down};
            assert_int_equal(umo_buffer_import(device, scope, &import, &buffers[i], NULL, NULL),
                             UMO_OK);
            assert_int_equal(umo_buffer_track(buffers[i]), UMO_OK);
        }
        for (int i = 0; i < MANY; i++) {
            umo_buffer_release(buffers[i]);
        }
    }
    int unused = 0;
    bool never = atomic_compare_exchange_strong(&shut_down_there, &unused, 4);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(others[i], NULL), 0);
    }
    umo_buffer_release(movable);
    umo_device_release(device);
    umo_scope_destroy(scope);
    if (never) {
        stop();
        skip(); /* it was never the last one */
    }
    /* Its thread ends by itself; with it the context, and one of another configuration may come. */
    const umo_context_options other = {.budget_bytes = 12345678};
    umo_status status = UMO_E_INVAL;
    for (int i = 0; i < 2000 && status != UMO_OK; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        status = umo_context_default_acquire(&other, &context, NULL);
    }
    assert_int_equal(status, UMO_OK);
    umo_context_default_release(context);
    assert_int_equal(atomic_load(&shut_down_there), 2);
    assert_false(umo_optimizer_running());
}

static void a_child_of_fork_may_shut_down(void **state)
{
    (void)state;
    umo_optimizer_config config = host_config();
    config.auto_placement = true;
    start(&config);
    (void)nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL); /* its thread is at rest */
    pid_t child = fork();
    if (child == 0) {
        (void)alarm(10);
        _exit(umo_optimizer_shutdown(NULL) == UMO_OK ? 0 : 1);
    }
    assert_true(child > 0);
    int ended = -1;
    assert_int_equal(waitpid(child, &ended, 0), child);
    assert_int_equal(ended, 0);
    stop();
}

static void *come_and_go(void *argument)
{
    const umo_optimizer_config *config = argument;
    for (int i = 0; i < 40; i++) {
        umo_buffer *buffer = NULL;
        umo_buffer *block = NULL;
        if (umo_optimizer_initialize(config, NULL) != UMO_OK) {
            return argument;
        }
        bool taken = umo_optimizer_take(4096, UMO_PATTERN_UNKNOWN, 0, &block, NULL) == UMO_OK;
        bool made = umo_optimizer_alloc(4096, UMO_PATTERN_STREAMING, 0, &buffer, NULL) == UMO_OK;
        if (!taken || !made || umo_optimizer_shutdown(NULL) != UMO_OK ||
            umo_optimizer_give(block) != UMO_OK) {
            return argument;
        }
        umo_buffer_release(buffer);
    }
    return NULL;
}

static void threads_come_and_go_as_they_like(void **state)
{
    (void)state;
    umo_optimizer_config config = host_config();
    config.auto_placement = true;
    pthread_t threads[8];
    for (int i = 0; i < 8; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &config), 0);
    }
    for (int i = 0; i < 8; i++) {
        void *failed = NULL;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_false(umo_optimizer_running());
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_call_starts_it_and_a_configuration_takes_its_place),
        cmocka_unit_test(after_a_shutdown_every_call_says_so),
        cmocka_unit_test(a_second_start_joins_or_names_what_differs),
        cmocka_unit_test(figures_that_cannot_be_are_refused),
        cmocka_unit_test(memory_is_found_by_any_of_its_addresses),
        cmocka_unit_test(sizes_and_devices_that_cannot_be_are_refused),
        cmocka_unit_test(zero_copy_off_refuses_to_wrap),
        cmocka_unit_test(a_wrap_is_the_callers_own_memory),
        cmocka_unit_test(a_batch_is_one_allocation_of_independent_buffers),
        cmocka_unit_test(a_block_may_come_back_after_the_shutdown),
        cmocka_unit_test(figures_are_what_was_done),
        cmocka_unit_test(what_is_wrapped_counts_in_the_total),
        cmocka_unit_test(parts_are_found_by_address_and_counted_once),
        cmocka_unit_test(a_start_joins_the_pressure_that_is_watched),
        cmocka_unit_test(a_reset_beside_a_reader_leaves_nothing_below_zero),
        cmocka_unit_test(a_deleter_on_the_workers_thread_may_shut_down),
        cmocka_unit_test(a_child_of_fork_may_shut_down),
        cmocka_unit_test(threads_come_and_go_as_they_like),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

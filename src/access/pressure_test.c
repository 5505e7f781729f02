/*
 * The monitor: answers that reach real pools, reliefs and callers, from its thread and from theirs.
 * The gauges are a root scope's budget, which a test moves at will, or a made-up device's.
 */
#include "access/pressure.h"
#include "access/relieve.h"
#include "base/scope.h"
#include "driver/registry.h"
#include "os/os.h"

#include <umo/pool.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)
#define BUDGET (100 * MIB)

/* The machine's own pressure is not to decide a test. */
static const uint32_t others_off = (1u << UMO_PRESSURE_CGROUP) | (1u << UMO_PRESSURE_PHYSICAL) |
                                   (1u << UMO_PRESSURE_RECLAIM) | (1u << UMO_PRESSURE_STALL) |
                                   (1u << UMO_PRESSURE_SYSTEM) | (1u << UMO_PRESSURE_EVENTS);

typedef struct fixture {
    umo_device *device;
    umo_scope *root;
    umo_pressure *pressure;
    umo_buffer *held[16];
    size_t held_count;
} fixture;

static fixture given;

static int fixture_setup(void **state)
{
    (void)state;
    given = (fixture){.held_count = 0};
    return umo_device_open("host", 0, NULL, &given.device, NULL) == UMO_OK &&
                   umo_scope_create(NULL, "root", BUDGET, &given.root, NULL) == UMO_OK
               ? 0
               : -1;
}

static void let_go(void)
{
    while (given.held_count > 0) {
        umo_buffer_release(given.held[--given.held_count]);
    }
}

static int fixture_teardown(void **state)
{
    (void)state;
    umo_pressure_destroy(given.pressure);
    let_go();
    umo_scope_destroy(given.root);
    umo_device_release(given.device);
    return 0;
}

/* Holds part of the budget, without touching it. */
static void hold(uint64_t size_bytes)
{
    assert_true(given.held_count < sizeof given.held / sizeof given.held[0]);
    assert_int_equal(umo_buffer_alloc(given.device, given.root, (size_t)size_bytes, UMO_UNIFIED,
                                      &given.held[given.held_count++], NULL),
                     UMO_OK);
}

static umo_pressure *watch(bool manual)
{
    umo_pressure_options options = {.manual = manual, .sources_off = others_off};
    assert_int_equal(umo_pressure_create(&options, given.root, &given.pressure, NULL), UMO_OK);
    return given.pressure;
}

static umo_pressure_stats stats_of(umo_pressure *pressure)
{
    umo_pressure_stats stats;
    umo_pressure_read(pressure, &stats);
    return stats;
}

/* Pokes until the policy refuses, or a second has passed. */
static void poke_until_refusing(umo_pressure *pressure)
{
    for (unsigned i = 0; i < 200 && umo_pressure_ready(pressure); i++) {
        (void)umo_pressure_poke(pressure);
        (void)usleep(5000);
    }
}

static umo_pool *pool_with(uint64_t kept_bytes)
{
    umo_pool *pool;
    const umo_pool_options options = {.device = given.device,
                                      .scope = given.root,
                                      .mode = UMO_UNIFIED,
                                      .keep_bytes_max = (size_t)(2 * kept_bytes),
                                      .idle_keep_bytes = (size_t)(2 * kept_bytes),
                                      .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
    umo_buffer *block;
    assert_int_equal(umo_pool_alloc(pool, (size_t)kept_bytes, 0, &block, NULL), UMO_OK);
    assert_int_equal(umo_pool_free(pool, block), UMO_OK);
    assert_true(umo_pools_kept(given.root) >= kept_bytes);
    return pool;
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    umo_pressure *pressure = NULL;
    umo_error error;
    static const double wrong[] = {-1, 0.05, 0.99, 1, 80};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        umo_pressure_options options = {.threshold = wrong[i], .manual = true};
        assert_int_equal(umo_pressure_create(&options, given.root, &pressure, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, "0.1 to 0.98"));
    }
    umo_pressure_options nan_options = {.threshold = strtod("nan", NULL), .manual = true};
    assert_int_equal(umo_pressure_create(&nan_options, given.root, &pressure, NULL), UMO_E_INVAL);
    umo_scope *child;
    assert_int_equal(umo_scope_create(given.root, "child", 0, &child, NULL), UMO_OK);
    assert_int_equal(umo_pressure_create(NULL, child, &pressure, &error), UMO_E_INVAL);
    assert_int_equal(umo_pressure_create(NULL, NULL, &pressure, NULL), UMO_E_INVAL);
    umo_scope_destroy(child);
    assert_null(pressure);
    umo_pressure_destroy(NULL);
}

static void names_are_words_for_every_value(void **state)
{
    (void)state;
    for (unsigned i = 0; i < UMO_PRESSURE_SOURCES; i++) {
        assert_string_not_equal(umo_pressure_source_name((umo_pressure_source)i), "unknown");
    }
    for (unsigned i = 0; i < UMO_PRESSURE_ANSWERS; i++) {
        assert_string_not_equal(umo_pressure_answer_name((umo_pressure_answer)i), "unknown");
    }
    for (unsigned i = 0; i <= UMO_PRESSURE_CRITICAL; i++) {
        assert_string_not_equal(umo_pressure_level_name((umo_pressure_level)i), "unknown");
    }
    assert_string_equal(umo_pressure_source_name((umo_pressure_source)99), "unknown");
    assert_string_equal(umo_pressure_answer_name((umo_pressure_answer)99), "unknown");
    assert_string_equal(umo_pressure_level_name((umo_pressure_level)99), "unknown");
}

static void every_source_is_active_or_says_why_not(void **state)
{
    (void)state;
    umo_pressure *pressure;
    assert_int_equal(umo_pressure_create(NULL, given.root, &pressure, NULL), UMO_OK);
    (void)umo_pressure_poke(pressure);
    umo_pressure_stats stats = stats_of(pressure);
    for (size_t s = 0; s < UMO_PRESSURE_SOURCES; s++) {
        assert_int_equal(stats.sources[s].active, stats.sources[s].why == NULL);
    }
    assert_true(stats.sources[UMO_PRESSURE_BUDGET].active);
    assert_int_equal(stats.sources[UMO_PRESSURE_BUDGET].limit_bytes, BUDGET);
    assert_non_null(strstr(stats.sources[UMO_PRESSURE_DEVICE].why, "no device"));
    assert_true(stats.samples >= 1 && stats.sampled_ns > 0);
    umo_pressure_destroy(pressure);
    given.pressure = watch(true);
    stats = stats_of(given.pressure);
    assert_string_equal(stats.sources[UMO_PRESSURE_CGROUP].why, "turned off");
    assert_true(umo_pressure_memory_bytes() > 0 || umo_os_memory_bytes() == 0);
}

static void idle_pools_are_trimmed_and_the_bytes_are_counted(void **state)
{
    (void)state;
    umo_pool *pool = pool_with(4 * MIB);
    umo_pressure *pressure = watch(true);
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_NORMAL);
    assert_true(umo_pools_kept(given.root) >= 4 * MIB);
    hold(85 * MIB);
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_LOW);
    assert_in_range(umo_pools_kept(given.root), 0, MIB / 8);
    umo_pressure_stats stats = stats_of(pressure);
    assert_true(stats.answers[UMO_PRESSURE_TRIM].count >=
                1); /* the allocation may have been first */
    assert_true(stats.answers[UMO_PRESSURE_TRIM].bytes >= 4 * MIB);
    assert_true(stats.answers[UMO_PRESSURE_TRIM].last_ns >= stats.sampled_ns);
    assert_int_equal(stats.decisive, UMO_PRESSURE_BUDGET);
    assert_in_range(stats.usage_bytes, 85 * MIB, 86 * MIB); /* and the pool's last pages */
    assert_int_equal(stats.limit_bytes, BUDGET);
    umo_pool_destroy(pool);
}

typedef struct notice {
    unsigned times;
    umo_pressure_level level;
    bool ready;
} notice;

static void told_note(umo_pressure_level level, bool ready, void *user)
{
    notice *t = user;
    *t = (notice){t->times + 1, level, ready};
}

/* The level stays critical while the answers go up to refusing. */
static void a_listener_is_told_of_levels_and_of_refusing(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    notice t = {.ready = true};
    umo_pressure_listener listener = {.notify = told_note, .user = &t};
    umo_pressure_add_listener(pressure, &listener);
    (void)umo_pressure_poke(pressure);
    assert_int_equal(t.times, 0);
    hold(96 * MIB);
    poke_until_refusing(pressure);
    assert_int_equal(t.times, 2);
    assert_int_equal(t.level, UMO_PRESSURE_CRITICAL);
    assert_false(t.ready);
    let_go();
    (void)umo_pressure_poke(pressure);
    assert_int_equal(t.times, 3);
    assert_int_equal(t.level, UMO_PRESSURE_NORMAL);
    assert_true(t.ready);
    umo_pressure_remove_listener(pressure, &listener);
    hold(96 * MIB);
    (void)umo_pressure_poke(pressure);
    assert_int_equal(t.times, 3);
}

static void what_pools_keep_is_no_use_of_the_budget(void **state)
{
    (void)state;
    umo_pool *pool = pool_with(30 * MIB);
    hold(60 * MIB);
    assert_int_equal(umo_pressure_poke(watch(true)), UMO_PRESSURE_NORMAL);
    assert_true(umo_pools_kept(given.root) >= 30 * MIB);
    umo_pool_destroy(pool);
}

static void new_work_is_refused_last_and_in_words(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    assert_int_equal(umo_pressure_admit(pressure, 0, NULL), UMO_OK);
    hold(96 * MIB);
    (void)umo_pressure_poke(pressure);
    assert_true(umo_pressure_ready(pressure));
    poke_until_refusing(pressure);
    assert_false(umo_pressure_ready(pressure));
    umo_error error;
    assert_int_equal(umo_pressure_admit(pressure, 3 * MIB, &error), UMO_E_LIMIT);
    assert_non_null(strstr(error.text, "96 of 100 MiB"));
    assert_non_null(strstr(error.text, "budget"));
    assert_non_null(strstr(error.text, "try again"));
    umo_pressure_stats stats = stats_of(pressure);
    assert_true(stats.refusing);
    assert_int_equal(stats.refused, 1);
    assert_int_equal(stats.answers[UMO_PRESSURE_REFUSE].bytes, 3 * MIB);
    assert_int_equal(stats.answers[UMO_PRESSURE_REFUSE].count, 1);
    assert_int_equal(stats.stages, 4);
    assert_true(stats.answers[UMO_PRESSURE_TIGHTEN].count > 0);
    assert_int_equal(stats.budget_percent, 0);
    let_go();
    (void)umo_pressure_poke(pressure);
    assert_true(umo_pressure_ready(pressure));
    assert_int_equal(umo_pressure_admit(pressure, 3 * MIB, NULL), UMO_OK);
}

static void work_that_would_not_fit_is_refused_by_its_size(void **state)
{
    (void)state;
    hold(50 * MIB);
    umo_pressure *pressure = watch(true);
    assert_int_equal(umo_pressure_admit(pressure, 40 * MIB, NULL), UMO_OK);
    assert_int_equal(umo_pressure_admit(pressure, 45 * MIB, NULL), UMO_E_LIMIT);
    assert_int_equal(umo_pressure_admit(pressure, UINT64_MAX, NULL), UMO_E_LIMIT);
    assert_true(umo_pressure_ready(pressure)); /* that one piece of work, not the server */
    let_go();
    (void)usleep(11000); /* the last sample is too old to refuse by */
    assert_int_equal(umo_pressure_admit(pressure, 45 * MIB, NULL), UMO_OK);
}

static void an_allocation_past_the_threshold_first_trims_what_is_idle(void **state)
{
    (void)state;
    umo_pool *pool = pool_with(4 * MIB);
    umo_pressure *pressure = watch(true);
    hold(60 * MIB);
    (void)usleep(11000); /* or the first sample would do */
    hold(10 * MIB);
    assert_int_equal(stats_of(pressure).samples, 1);
    assert_true(umo_pools_kept(given.root) >= 4 * MIB);
    hold(12 * MIB);
    umo_pressure_stats stats = stats_of(pressure);
    assert_int_equal(stats.samples, 2);
    assert_int_equal(stats.answers[UMO_PRESSURE_TRIM].count, 1);
    assert_true(stats.answers[UMO_PRESSURE_TRIM].bytes >= 4 * MIB);
    assert_in_range(umo_pools_kept(given.root), 0, MIB / 8);
    umo_pool_destroy(pool);
}

static void a_pool_that_grows_past_the_threshold_trims_the_others(void **state)
{
    (void)state;
    umo_pool *idle = pool_with(4 * MIB);
    umo_pool *busy = pool_with(MIB);
    umo_pressure *pressure = watch(true);
    hold(70 * MIB);
    (void)usleep(11000);
    umo_buffer *block;
    assert_int_equal(umo_pool_alloc(busy, (size_t)(15 * MIB), 0, &block, NULL), UMO_OK);
    umo_pool_stats stats;
    umo_pool_read(idle, &stats);
    assert_in_range(stats.kept_bytes, 0, MIB / 8);
    assert_true(stats_of(pressure).answers[UMO_PRESSURE_TRIM].bytes >= 4 * MIB);
    assert_int_equal(umo_pool_free(busy, block), UMO_OK);
    umo_pool_destroy(busy);
    umo_pool_destroy(idle);
}

static void one_watch_of_a_root_is_asked_by_its_allocations(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    umo_pressure_options options = {.manual = true, .sources_off = others_off};
    umo_pressure *second;
    assert_int_equal(umo_pressure_create(&options, given.root, &second, NULL), UMO_OK);
    umo_pressure_destroy(second); /* which leaves the first one's guard */
    (void)usleep(11000);
    hold(85 * MIB);
    assert_int_equal(stats_of(pressure).samples, 2);
    umo_pressure_destroy(pressure);
    given.pressure = NULL;
    hold(10 * MIB); /* nobody is there any more */
}

/* ---- reliefs ---- */

typedef struct relief_log {
    unsigned calls;
    uint64_t want_bytes;
    uint64_t gives_bytes;
    umo_pressure *pokes; /* from inside */
} relief_log;

static uint64_t relief_note(uint64_t want_bytes, umo_pressure_level level, void *user)
{
    relief_log *log = user;
    assert_true(level >= UMO_PRESSURE_MEDIUM);
    log->calls++;
    log->want_bytes = want_bytes;
    if (log->pokes != NULL) {
        assert_true(umo_pressure_poke(log->pokes) >= UMO_PRESSURE_NORMAL);
    }
    return log->gives_bytes;
}

static void poke_until_called(umo_pressure *pressure, const relief_log *log)
{
    for (unsigned i = 0; i < 200 && log->calls == 0; i++) {
        (void)umo_pressure_poke(pressure);
        (void)usleep(5000);
    }
}

static void reliefs_are_called_in_order_until_enough_was_given(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    relief_log logs[2] = {{.gives_bytes = 1 * MIB}, {.gives_bytes = 0}};
    assert_int_equal(umo_pressure_add_relief(pressure, relief_note, &logs[0]), UMO_OK);
    assert_int_equal(umo_pressure_add_relief(pressure, relief_note, &logs[1]), UMO_OK);
    hold(90 * MIB);
    poke_until_called(pressure, &logs[0]);
    assert_int_equal(logs[0].calls, 1);
    assert_int_equal(logs[1].calls, 1);
    assert_int_equal(logs[0].want_bytes, 14 * MIB); /* down to 76 % */
    assert_int_equal(logs[1].want_bytes, 13 * MIB);
    assert_int_equal(stats_of(pressure).answers[UMO_PRESSURE_RELIEVE].bytes, MIB);
    logs[0].gives_bytes = 14 * MIB;
    umo_pressure_remove_relief(pressure, relief_note, NULL); /* not there */
    (void)umo_pressure_poke(pressure);
    assert_int_equal(logs[0].calls, 2);
    assert_int_equal(logs[1].calls, 1);
    umo_pressure_remove_relief(pressure, relief_note, &logs[0]);
    (void)umo_pressure_poke(pressure);
    assert_int_equal(logs[0].calls, 2);
    assert_int_equal(logs[1].calls, 2);
}

static void a_relief_may_ask_again_without_waiting_for_itself(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    relief_log log = {.gives_bytes = 0, .pokes = pressure};
    assert_int_equal(umo_pressure_add_relief(pressure, relief_note, &log), UMO_OK);
    hold(90 * MIB);
    poke_until_called(pressure, &log);
    assert_int_equal(log.calls, 1);
}

static void there_is_room_for_sixteen_reliefs(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    relief_log log = {.calls = 0};
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(umo_pressure_add_relief(pressure, relief_note, &log), UMO_OK);
    }
    assert_int_equal(umo_pressure_add_relief(pressure, relief_note, &log), UMO_E_LIMIT);
}

static void idle_buffers_give_up_a_side_and_keep_their_bytes(void **state)
{
    (void)state;
    umo_pressure *pressure = watch(true);
    umo_buffer *idle;
    umo_buffer *pinned;
    size_t size_bytes = (size_t)(8 * MIB);
    assert_int_equal(
        umo_buffer_alloc_movable(given.device, given.root, size_bytes, UMO_MANAGED, &idle, NULL),
        UMO_OK);
    assert_int_equal(
        umo_buffer_alloc_movable(given.device, given.root, size_bytes, UMO_MANAGED, &pinned, NULL),
        UMO_OK);
    assert_int_equal(umo_buffer_pin(pinned, NULL), UMO_OK);
    umo_access access = {.size_bytes = size_bytes, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(idle, &access, &waits), UMO_OK);
    memset(umo_buffer_host(idle), 0x3c, size_bytes);
    assert_int_equal(umo_access_end(idle, &access, (umo_fence){.value = 0}), UMO_OK);
    uint64_t live = umo_scope_live(given.root);
    assert_int_equal(live, 32 * MIB);
    hold(64 * MIB); /* 96 of 100: critical, where 100 ms without a use are enough */
    (void)usleep(110000);
    umo_pressure_stats stats = stats_of(pressure);
    for (unsigned i = 0; i < 100 && stats.answers[UMO_PRESSURE_RELIEVE].bytes == 0; i++) {
        (void)umo_pressure_poke(pressure);
        (void)usleep(5000);
        stats = stats_of(pressure);
    }
    assert_int_equal(stats.answers[UMO_PRESSURE_RELIEVE].bytes, 8 * MIB);
    assert_int_equal(umo_buffer_mode(pinned), UMO_MANAGED);
    assert_int_not_equal(umo_buffer_mode(idle), UMO_MANAGED);
    assert_int_equal(umo_scope_live(given.root), live + 64 * MIB - 8 * MIB);
    access.use = UMO_READ;
    assert_int_equal(umo_access_begin(idle, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    const unsigned char *bytes = umo_buffer_host(idle);
    for (size_t at = 0; at < size_bytes; at += 4096) {
        assert_int_equal(bytes[at], 0x3c);
    }
    assert_int_equal(umo_access_end(idle, &access, (umo_fence){.value = 0}), UMO_OK);
    umo_status_ignore(umo_buffer_unpin(pinned));
    umo_buffer_release(pinned);
    umo_buffer_release(idle);
}

static void a_buffer_in_use_or_used_just_now_stays_as_it_is(void **state)
{
    (void)state;
    umo_buffer *buffer;
    size_t size_bytes = (size_t)MIB;
    assert_int_equal(
        umo_buffer_alloc_movable(given.device, given.root, size_bytes, UMO_MANAGED, &buffer, NULL),
        UMO_OK);
    umo_access access = {.size_bytes = size_bytes, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    uint64_t now_ns = umo_os_now_ns();
    uint64_t later_ns = now_ns + 60000 * MS;
    assert_int_equal(
        umo_relieve_buffers(given.root, false, UINT64_MAX, UMO_PRESSURE_MEDIUM, later_ns), 0);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){.value = 0}), UMO_OK);
    assert_int_equal(
        umo_relieve_buffers(given.root, false, UINT64_MAX, UMO_PRESSURE_MEDIUM, now_ns), 0);
    assert_int_equal(umo_buffer_mode(buffer), UMO_MANAGED);
    assert_int_equal(
        umo_relieve_buffers(given.root, false, UINT64_MAX, UMO_PRESSURE_MEDIUM, later_ns), MIB);
    umo_buffer_release(buffer);
}

/* ---- devices ---- */

static _Atomic uint64_t device_allocated;
static umo_driver told; /* the host's, that also tells its usage */

static umo_status told_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                            umo_device_info *out_info, umo_error *error)
{
    umo_status status = umo_driver_find("host")->open(ordinal, options, out_state, out_info, error);
    out_info->caps |= UMO_CAP_USAGE;
    return status;
}

static umo_status told_usage(void *state, umo_device_usage *out)
{
    (void)state;
    out->budget_bytes = 1000 * MIB;
    out->allocated_bytes = device_allocated;
    return device_allocated == UINT64_MAX ? UMO_E_DEVICE : UMO_OK;
}

static umo_device *told_device(void)
{
    if (told.name == NULL) {
        told = *umo_driver_find("host");
        told.name = "told";
        told.open = told_open;
        told.usage = told_usage;
        assert_int_equal(umo_driver_register(&told, NULL), UMO_OK);
    }
    umo_device *device;
    assert_int_equal(umo_device_open("told", 0, NULL, &device, NULL), UMO_OK);
    return device;
}

static void a_devices_working_set_is_a_gauge(void **state)
{
    (void)state;
    umo_device *device = told_device();
    umo_pressure *pressure = watch(true);
    device_allocated = 500 * MIB;
    assert_int_equal(umo_pressure_add_device(pressure, device), UMO_OK);
    assert_int_equal(umo_pressure_add_device(pressure, given.device), UMO_OK); /* tells nothing */
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_NORMAL);
    device_allocated = 900 * MIB;
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_MEDIUM);
    umo_pressure_stats stats = stats_of(pressure);
    assert_int_equal(stats.decisive, UMO_PRESSURE_DEVICE);
    assert_int_equal(stats.sources[UMO_PRESSURE_DEVICE].usage_bytes, 900 * MIB);
    device_allocated = UINT64_MAX; /* it fails to tell */
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_NORMAL);
    assert_false(stats_of(pressure).sources[UMO_PRESSURE_DEVICE].active);
    for (unsigned i = 0; i < 15; i++) {
        assert_int_equal(umo_pressure_add_device(pressure, device), UMO_OK);
    }
    assert_int_equal(umo_pressure_add_device(pressure, device), UMO_E_LIMIT);
    umo_device_release(device);
    umo_device_usage usage;
    assert_int_equal(umo_device_usage_get(given.device, &usage), UMO_E_UNSUPPORTED);
}

/* ---- threads ---- */

static void the_thread_answers_by_itself(void **state)
{
    (void)state;
    umo_pool *pool = pool_with(4 * MIB);
    umo_buffer *block;
    assert_int_equal(umo_pool_alloc(pool, (size_t)(4 * MIB), 0, &block, NULL), UMO_OK);
    hold(81 * MIB);
    umo_pressure *pressure = watch(false);
    umo_pressure_stats stats = stats_of(pressure);
    for (unsigned i = 0; i < 4000 && stats.answers[UMO_PRESSURE_TIGHTEN].count == 0; i++) {
        (void)usleep(5000);
        stats = stats_of(pressure);
    }
    assert_true(stats.answers[UMO_PRESSURE_TRIM].count > 0);
    assert_int_equal(stats.budget_percent, 50);
    assert_int_equal(stats.level, UMO_PRESSURE_LOW);
    assert_int_equal(umo_pool_free(pool, block), UMO_OK);
    umo_pool_destroy(pool);
}

static void the_end_restores_what_pools_may_keep(void **state)
{
    (void)state;
    umo_pool *pool = pool_with(4 * MIB);
    umo_pressure *pressure = watch(true);
    hold(95 * MIB);
    poke_until_refusing(pressure);
    assert_int_equal(stats_of(pressure).budget_percent, 0);
    let_go();
    umo_pressure_destroy(pressure);
    given.pressure = NULL;
    umo_buffer *block;
    assert_int_equal(umo_pool_alloc(pool, (size_t)(4 * MIB), 0, &block, NULL), UMO_OK);
    assert_int_equal(umo_pool_free(pool, block), UMO_OK);
    assert_true(umo_pools_kept(given.root) >= 4 * MIB);
    umo_pool_destroy(pool);
}

static _Atomic bool relief_entered;
static _Atomic bool relief_left;

static uint64_t relief_slow(uint64_t want_bytes, umo_pressure_level level, void *user)
{
    (void)want_bytes;
    (void)level;
    (void)user;
    relief_entered = true;
    (void)usleep(30000);
    relief_left = true;
    return 0;
}

static void destroy_waits_for_an_answer_that_runs(void **state)
{
    (void)state;
    relief_entered = false;
    relief_left = false;
    hold(96 * MIB);
    umo_pressure *pressure = watch(false);
    assert_int_equal(umo_pressure_add_relief(pressure, relief_slow, NULL), UMO_OK);
    for (unsigned i = 0; i < 4000 && !relief_entered; i++) {
        (void)usleep(1000);
    }
    assert_true(relief_entered);
    umo_pressure_destroy(pressure);
    given.pressure = NULL;
    assert_true(relief_left);
}

static void removing_a_relief_waits_for_its_call(void **state)
{
    (void)state;
    relief_entered = false;
    relief_left = false;
    hold(96 * MIB);
    umo_pressure *pressure = watch(false);
    assert_int_equal(umo_pressure_add_relief(pressure, relief_slow, NULL), UMO_OK);
    for (unsigned i = 0; i < 4000 && !relief_entered; i++) {
        (void)usleep(1000);
    }
    umo_pressure_remove_relief(pressure, relief_slow, NULL);
    assert_true(relief_left);
    relief_entered = false;
    (void)usleep(30000);
    assert_false(relief_entered);
}

static _Atomic bool crowd_stop;

static void *crowd_run(void *opaque)
{
    umo_pressure *pressure = opaque;
    relief_log log = {.gives_bytes = 0};
    while (!crowd_stop) {
        (void)umo_pressure_poke(pressure);
        umo_status_ignore(umo_pressure_admit(pressure, 50 * MIB, NULL));
        (void)stats_of(pressure);
        if (umo_pressure_add_relief(pressure, relief_note, &log) == UMO_OK) {
            umo_pressure_remove_relief(pressure, relief_note, &log);
        }
    }
    return NULL;
}

static void many_callers_and_the_thread_get_along(void **state)
{
    (void)state;
    crowd_stop = false;
    umo_pool *pool = pool_with(4 * MIB);
    umo_pressure *pressure = watch(false);
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, crowd_run, pressure), 0);
    }
    uint64_t start_ns = umo_os_now_ns();
    while (umo_os_now_ns() - start_ns < 150 * MS) {
        hold(85 * MIB);
        (void)usleep(3000);
        let_go();
        umo_buffer *block;
        assert_int_equal(umo_pool_alloc(pool, (size_t)MIB, 0, &block, NULL), UMO_OK);
        assert_int_equal(umo_pool_free(pool, block), UMO_OK);
    }
    crowd_stop = true;
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
    umo_pool_destroy(pool);
}

static void a_child_of_fork_can_read_and_destroy(void **state)
{
    (void)state;
    hold(85 * MIB);
    umo_pressure *pressure = watch(false);
    pid_t child = fork();
    if (child == 0) {
        umo_pressure_stats stats = stats_of(pressure);
        (void)umo_pressure_poke(pressure);
        umo_status_ignore(umo_pressure_admit(pressure, UINT64_MAX, NULL));
        bool good = stats.stages <= 4;
        umo_pressure_destroy(pressure);
        hold(10 * MIB); /* asks nobody any more */
        _exit(good ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    uint64_t samples = stats_of(pressure).samples;
    assert_int_equal(umo_pressure_poke(pressure), UMO_PRESSURE_LOW); /* the parent goes on */
    assert_true(stats_of(pressure).samples > samples);
}

#define WITH_ROOT(test) cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ROOT(impossible_options_are_refused),
        WITH_ROOT(names_are_words_for_every_value),
        WITH_ROOT(every_source_is_active_or_says_why_not),
        WITH_ROOT(idle_pools_are_trimmed_and_the_bytes_are_counted),
        WITH_ROOT(a_listener_is_told_of_levels_and_of_refusing),
        WITH_ROOT(what_pools_keep_is_no_use_of_the_budget),
        WITH_ROOT(new_work_is_refused_last_and_in_words),
        WITH_ROOT(work_that_would_not_fit_is_refused_by_its_size),
        WITH_ROOT(an_allocation_past_the_threshold_first_trims_what_is_idle),
        WITH_ROOT(a_pool_that_grows_past_the_threshold_trims_the_others),
        WITH_ROOT(one_watch_of_a_root_is_asked_by_its_allocations),
        WITH_ROOT(reliefs_are_called_in_order_until_enough_was_given),
        WITH_ROOT(a_relief_may_ask_again_without_waiting_for_itself),
        WITH_ROOT(there_is_room_for_sixteen_reliefs),
        WITH_ROOT(idle_buffers_give_up_a_side_and_keep_their_bytes),
        WITH_ROOT(a_buffer_in_use_or_used_just_now_stays_as_it_is),
        WITH_ROOT(a_devices_working_set_is_a_gauge),
        WITH_ROOT(the_thread_answers_by_itself),
        WITH_ROOT(the_end_restores_what_pools_may_keep),
        WITH_ROOT(destroy_waits_for_an_answer_that_runs),
        WITH_ROOT(removing_a_relief_waits_for_its_call),
        WITH_ROOT(many_callers_and_the_thread_get_along),
        WITH_ROOT(a_child_of_fork_can_read_and_destroy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The optimizer on two nodes: the machine's, or fake ones (see mem/numa_fake_test.h).
 */
#include "mem/numa_fake_test.h"

#include "context/numa.h"
#include "mem/numa.h"

#include <umo/access.h>
#include <umo/optimizer.h>
#include <umo/pool.h>
#include <umo/profile.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB ((size_t)1 << 20)
#define SIZE MIB

/* How long something may take that is asked for within a second. An emulated machine whose host has
 * other things to do moves a page in milliseconds: there only that it happens. */
static uint64_t within_ms(void)
{
    return numa_faked ? 1000 : 20000;
}

static int start(void **state)
{
    (void)state;
    numa_test_start();
    (void)printf("# %s nodes: %d and %d\n", numa_faked ? "fake" : "real", (int)numa_first,
                 (int)numa_second);
    return 0;
}

/* On the host, and nothing that goes on by itself but what nodes are about. */
static umo_optimizer_config host_config(void)
{
    umo_optimizer_config config;
    umo_optimizer_config_init(&config);
    strcpy(config.driver, "host");
    config.auto_placement = false;
    config.pressure_adaptation = false;
    return config;
}

static int optimizer_open(void **state)
{
    (void)state;
    const umo_optimizer_config config = host_config();
    numa_fake.refuses = false;
    numa_fake.sticky = 0;
    return numa_run_on(numa_first) && umo_optimizer_initialize(&config, NULL) == UMO_OK ? 0 : -1;
}

static int optimizer_close(void **state)
{
    (void)state;
    return umo_optimizer_shutdown(NULL) == UMO_OK ? 0 : -1;
}

static void nap_ms(long ms)
{
    const struct timespec time = {.tv_nsec = ms * 1000000};
    (void)nanosleep(&time, NULL);
}

static umo_numa_figures figures_now(void)
{
    umo_numa_figures figures;
    umo_numa_figures_read(&figures);
    return figures;
}

static umo_buffer *buffer_on_first(void)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_optimizer_alloc(SIZE, UMO_PATTERN_CPU_DOMINANT, 0, &buffer, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), SIZE, 1));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    return buffer;
}

/* Uses a buffer from a node for some time, all of it every some ms; true as soon as it lies on
 * wanted (ANY: to the end). */
static bool use_from(umo_buffer *buffer, int32_t node, int32_t wanted, uint64_t ms)
{
    assert_true(numa_run_on(node));
    for (uint64_t end = umo_os_now_ns() + ms * 1000000; umo_os_now_ns() < end;) {
        for (int i = 0; i < 20; i++) {
            assert_int_equal(umo_access_record(buffer, UMO_SIDE_HOST, UMO_READ, SIZE), UMO_OK);
        }
        if (wanted != UMO_NUMA_ANY &&
            numa_bytes_on(wanted, umo_buffer_host(buffer), SIZE) == SIZE) {
            return true;
        }
        nap_ms(5);
    }
    return false;
}

static void a_buffer_follows_its_thread_within_a_second(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_on_first();
    unsigned char *data = umo_buffer_host(buffer);
    umo_numa_figures before = figures_now();
    (void)use_from(buffer, numa_first, UMO_NUMA_ANY, 150);
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    assert_true(use_from(buffer, numa_second, numa_second, within_ms()));
    (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 150);
    umo_numa_figures after = figures_now();
    assert_int_equal(after.moves - before.moves, 1);
    assert_int_equal(after.moved_bytes - before.moved_bytes, SIZE);
    assert_int_equal(after.stayed_bytes, before.stayed_bytes);
    assert_true(after.remote_bytes - before.remote_bytes >= 20 * SIZE);
    assert_true(after.local_bytes - before.local_bytes >= 20 * SIZE);
    for (size_t i = 0; i < SIZE; i++) {
        assert_int_equal(data[i], 1);
    }
    umo_buffer_release(buffer);
}

static void one_that_two_nodes_use_alike_stays(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_on_first();
    umo_numa_figures before = figures_now();
    for (int i = 0; i < 60; i++) {
        (void)use_from(buffer, i % 2 == 0 ? numa_first : numa_second, UMO_NUMA_ANY, 1);
    }
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    assert_int_equal(figures_now().moves, before.moves);
    umo_buffer_release(buffer);
}

static void a_placed_buffer_stays_whoever_uses_it(void **state)
{
    (void)state;
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_optimizer_alloc_numa(SIZE, numa_second, 0, &buffer, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), SIZE, 1));
    assert_int_equal(numa_bytes_on(numa_second, umo_buffer_host(buffer), SIZE), SIZE);
    uint64_t remote = figures_now().remote_bytes;
    assert_false(use_from(buffer, numa_first, numa_first, 250));
    assert_int_equal(numa_bytes_on(numa_second, umo_buffer_host(buffer), SIZE), SIZE);
    assert_true(figures_now().remote_bytes > remote);
    /* Until nobody wants it there any more. */
    assert_int_equal(umo_buffer_numa_move(buffer, UMO_NUMA_ANY, NULL, NULL), UMO_OK);
    assert_true(use_from(buffer, numa_first, numa_first, within_ms()));
    umo_buffer_release(buffer);
}

static void a_pinned_buffer_stays_as_long_as_it_is(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_on_first();
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    assert_false(use_from(buffer, numa_second, numa_second, 200));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    assert_true(use_from(buffer, numa_second, numa_second, 5 * within_ms()));
    umo_buffer_release(buffer);
}

static void the_parts_of_a_batch_go_their_own_ways(void **state)
{
    (void)state;
    const size_t sizes[2] = {SIZE, SIZE};
    umo_buffer *parts[2];
    assert_int_equal(umo_optimizer_alloc_batch(sizes, 2, UMO_PATTERN_UNKNOWN, 0, parts, NULL),
                     UMO_OK);
    for (int i = 0; i < 2; i++) {
        assert_true(numa_touch(numa_first, umo_buffer_host(parts[i]), SIZE, 1));
    }
    assert_true(use_from(parts[1], numa_second, numa_second, within_ms()));
    assert_int_equal(umo_buffer_numa_node(parts[0]), numa_first);
    umo_buffer_release(parts[0]);
    umo_buffer_release(parts[1]);
}

static void nodes_that_cannot_be_are_told_apart(void **state)
{
    (void)state;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    assert_int_equal(umo_optimizer_alloc_numa(MIB, 77, 0, &buffer, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "node"));
    assert_int_equal(umo_optimizer_alloc_numa(MIB, numa_second, 99, &buffer, NULL),
                     UMO_E_NOT_FOUND);
    assert_int_equal(umo_optimizer_alloc_numa(0, numa_second, 0, &buffer, NULL), UMO_E_INVAL);
    if (numa_faked) {
        assert_int_equal(umo_optimizer_alloc_numa(MIB, 2, 0, &buffer, NULL), UMO_E_UNSUPPORTED);
        assert_int_equal(umo_optimizer_alloc_numa(MIB, 5, 0, &buffer, NULL), UMO_E_UNSUPPORTED);
        numa_fake.refuses = true;
        assert_int_equal(umo_optimizer_alloc_numa(MIB, 1, 0, &buffer, NULL), UMO_E_REFUSED);
    }
    assert_null(buffer);
}

/* A taken block, touched from elsewhere. */
static int32_t block_node(int32_t taker, int32_t toucher)
{
    umo_buffer *block = NULL;
    assert_true(numa_run_on(taker));
    assert_int_equal(umo_optimizer_take(MIB, UMO_PATTERN_UNKNOWN, 0, &block, NULL), UMO_OK);
    assert_true(numa_touch(toucher, umo_buffer_host(block), MIB, 1));
    int32_t node = umo_buffer_numa_node(block);
    /* Given back on another node, it is its own pool's all the same. */
    assert_int_equal(umo_optimizer_give(block), UMO_OK);
    assert_int_equal(umo_optimizer_give(block), UMO_E_INVAL);
    return node;
}

static void each_node_has_its_pools(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(block_node(numa_first, numa_second), numa_first);
        assert_int_equal(block_node(numa_second, numa_first), numa_second);
    }
    if (numa_faked) {
        assert_int_equal(block_node(2, 0), 1); /* the nearest with memory */
    }
}

static void where_nodes_are_refused_there_is_one_pool(void **state)
{
    (void)state;
    if (!numa_faked) {
        skip(); /* nobody refuses here */
    }
    numa_fake.refuses = true;
    assert_int_equal(block_node(numa_first, numa_first), numa_first);
    numa_fake.refuses = false;
    /* And it stays the one. */
    assert_int_equal(block_node(numa_second, numa_first), numa_first);
}

static void without_numa_there_is_one_pool_and_nothing_moves(void **state)
{
    (void)state;
    umo_optimizer_config config = host_config();
    config.numa = false;
    assert_int_equal(umo_optimizer_initialize(&config, NULL), UMO_OK);
    uint64_t binds = atomic_load(&numa_fake.binds);
    umo_buffer *first = NULL;
    umo_buffer *again = NULL;
    assert_true(numa_run_on(numa_first));
    assert_int_equal(umo_optimizer_take(MIB, UMO_PATTERN_UNKNOWN, 0, &first, NULL), UMO_OK);
    const void *address = umo_buffer_host(first);
    assert_int_equal(umo_optimizer_give(first), UMO_OK);
    assert_true(numa_run_on(numa_second));
    assert_int_equal(umo_optimizer_take(MIB, UMO_PATTERN_UNKNOWN, 0, &again, NULL), UMO_OK);
    assert_ptr_equal(umo_buffer_host(again), address);
    assert_int_equal(umo_optimizer_give(again), UMO_OK);
    assert_int_equal(atomic_load(&numa_fake.binds), binds);

    umo_buffer *buffer = buffer_on_first();
    assert_false(use_from(buffer, numa_second, numa_second, 250));
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    umo_buffer_release(buffer);
    assert_int_equal(umo_optimizer_shutdown(NULL), UMO_OK);
}

/* ---- what the flight recorder is told ---- */

typedef struct told {
    size_t count;
    umo_profile_event last;
} told;

static bool told_add(const umo_profile_event *event, void *user)
{
    told *t = user;
    if (event->kind == UMO_EVENT_NUMA_MOVE) {
        t->count++;
        t->last = *event;
    }
    return true;
}

/* The moves to other nodes since the recording was started. */
static told told_now(void)
{
    told t = {0};
    assert_int_equal(umo_profile_read(told_add, &t, NULL), UMO_OK);
    return t;
}

/* Of more than a look may move, where pages take their time. */
static void a_move_is_recorded_once_however_many_looks_it_takes(void **state)
{
    (void)state;
    const size_t size = 6 * MIB;
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_optimizer_alloc(size, UMO_PATTERN_CPU_DOMINANT, 0, &buffer, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), size, 1));
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    numa_fake.move_ns = 40000;
    uint64_t end = umo_os_now_ns() + 2 * within_ms() * 1000000;
    told t = {0};
    for (; t.count == 0 && umo_os_now_ns() < end; t = told_now()) {
        (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 50);
    }
    (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 150);
    t = told_now();
    numa_fake.move_ns = 0;
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_int_equal(t.count, 1);
    assert_int_equal(t.last.status, UMO_OK);
    assert_int_equal(t.last.detail, numa_second);
    assert_int_equal(t.last.size_bytes, size);
    assert_int_equal(t.last.offset_bytes, 0);
    assert_int_equal(t.last.mode, UMO_UNIFIED);
    assert_true(t.last.buffer != 0 && t.last.scope != 0);
    assert_true(t.last.duration_ns > 0 && t.last.duration_ns <= t.last.time_ns);
    if (numa_faked) { /* its parts' time, and not that of the last one alone */
        assert_true(t.last.duration_ns >= size / umo_os_page_bytes() * 40000);
    }
    umo_buffer_release(buffer);
}

static void a_move_that_is_not_possible_is_recorded_with_its_result(void **state)
{
    (void)state;
    umo_buffer *buffer = buffer_on_first();
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    uint64_t end = umo_os_now_ns() + within_ms() * 1000000;
    told t = {0};
    for (; t.count == 0 && umo_os_now_ns() < end; t = told_now()) {
        (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 50);
    }
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_true(t.count > 0);
    assert_int_equal(t.last.status, UMO_E_BUSY);
    assert_int_equal(t.last.detail, numa_second);
    assert_int_equal(t.last.size_bytes, 0);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    umo_buffer_release(buffer);
}

static void pages_that_will_not_move_are_counted_and_left_alone(void **state)
{
    (void)state;
    if (!numa_faked) {
        skip(); /* every page of ours moves */
    }
    umo_buffer *buffer = buffer_on_first();
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    umo_numa_figures before = figures_now();
    numa_fake.sticky = 1;
    uint64_t calls = atomic_load(&numa_fake.moves);
    (void)use_from(buffer, numa_second, numa_second, 450);
    umo_numa_figures after = figures_now();
    assert_int_equal(after.moved_bytes, before.moved_bytes);
    assert_int_equal(after.moves, before.moves);
    assert_true(after.stayed_bytes > before.stayed_bytes);
    const told t = told_now();
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_true(t.count > 0);
    assert_int_equal(t.last.status, UMO_E_BUSY);
    assert_int_equal(t.last.size_bytes, 0);
    /* A handful of passes, each of one or two parts, and not one at every look. */
    calls = atomic_load(&numa_fake.moves) - calls;
    assert_true(calls >= 1 && calls <= 8);
    numa_fake.sticky = 0;
    assert_true(use_from(buffer, numa_second, numa_second, 4 * within_ms()));
    umo_buffer_release(buffer);
}

/* Who wants figures looks himself while no optimizer does; moving is the optimizer's. */
static void figures_come_without_an_optimizer(void **state)
{
    (void)state;
    bool unfinished;
    umo_device *device = NULL;
    umo_scope *scope = NULL;
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_device_open("host", 0, NULL, &device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "own", 0, &scope, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc_movable(device, scope, SIZE, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), SIZE, 1));
    nap_ms(110);
    umo_numa_figures before = figures_now();
    for (int round = 0; round < 2; round++) {
        (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 110);
        (void)figures_now();
    }
    umo_numa_figures after = figures_now();
    assert_true(after.remote_bytes - before.remote_bytes >= 40 * SIZE);
    assert_int_equal(after.local_bytes, before.local_bytes);
    assert_int_equal(after.moves, before.moves);
    /* An optimizer that looks after another scope does not move it either; its own does. */
    umo_scope *other = NULL;
    assert_int_equal(umo_scope_create(NULL, "other", 0, &other, NULL), UMO_OK);
    assert_int_equal(umo_numa_run(other, &unfinished), 0);
    assert_int_equal(umo_buffer_numa_node(buffer), numa_first);
    for (int i = 0; i < 100 && numa_bytes_on(numa_first, umo_buffer_host(buffer), SIZE) > 0; i++) {
        assert_int_equal(umo_numa_run(scope, &unfinished), 1);
    }
    assert_int_equal(numa_bytes_on(numa_second, umo_buffer_host(buffer), SIZE), SIZE);
    umo_buffer_release(buffer);
    assert_int_equal(umo_numa_run(scope, &unfinished), 0);
    umo_scope_destroy(other);
    umo_scope_destroy(scope);
    umo_device_release(device);
}

static umo_buffer *halfway;
static umo_buffer *another;
static umo_scope *childs_scope;
static int child_result;

/* In the middle of a look of the parent's, whose child could wait for its end for ever. */
static void fork_and_look(void *start, size_t size_bytes)
{
    (void)start;
    (void)size_bytes;
    numa_fake.moving = NULL;
    pid_t child = fork();
    if (child == 0) {
        alarm(20);
        bool unfinished;
        /* Pages that both have are nobody's to move. */
        bool there = !numa_touch(numa_first, umo_buffer_host(another), SIZE, 2);
        /* What the parent had under way nobody moves here: who wants to may. */
        (void)umo_buffer_numa_node(halfway);
        there = umo_buffer_numa_move(halfway, numa_second, NULL, NULL) != UMO_OK ||
                umo_buffer_pin(halfway, NULL) != UMO_OK || there;
        for (int i = 0; i < 200 && !there; i++) {
            there = use_from(another, numa_second, numa_second, 10);
            (void)umo_numa_run(childs_scope, &unfinished);
        }
        _exit(there ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &child_result, 0), child);
}

static void a_child_looks_for_itself(void **state)
{
    (void)state;
    bool unfinished;
    umo_device *device = NULL;
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_device_open("host", 0, NULL, &device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "own", 0, &childs_scope, NULL), UMO_OK);
    assert_int_equal(
        umo_buffer_alloc_movable(device, childs_scope, SIZE, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    assert_int_equal(
        umo_buffer_alloc_movable(device, childs_scope, SIZE, UMO_UNIFIED, &another, NULL), UMO_OK);
    assert_true(numa_touch(numa_first, umo_buffer_host(buffer), SIZE, 1));
    assert_true(numa_touch(numa_first, umo_buffer_host(another), SIZE, 1));
    child_result = -1;
    halfway = buffer;
    numa_fake.moving = fork_and_look;
    for (int i = 0; i < 200 && numa_fake.moving != NULL; i++) {
        (void)use_from(buffer, numa_second, UMO_NUMA_ANY, 10);
        assert_int_equal(umo_numa_run(childs_scope, &unfinished), 2);
    }
    assert_int_equal(child_result, 0);
    assert_int_equal(umo_buffer_numa_node(another), numa_first); /* that one was the child's */
    umo_buffer_release(buffer);
    umo_buffer_release(another);
    umo_scope_destroy(childs_scope);
    umo_device_release(device);
}

int main(void)
{
#define WITH(test) cmocka_unit_test_setup_teardown(test, optimizer_open, optimizer_close)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(figures_come_without_an_optimizer),
        WITH(a_buffer_follows_its_thread_within_a_second),
        WITH(one_that_two_nodes_use_alike_stays),
        WITH(a_placed_buffer_stays_whoever_uses_it),
        WITH(a_pinned_buffer_stays_as_long_as_it_is),
        WITH(the_parts_of_a_batch_go_their_own_ways),
        WITH(nodes_that_cannot_be_are_told_apart),
        WITH(each_node_has_its_pools),
        WITH(where_nodes_are_refused_there_is_one_pool),
        cmocka_unit_test(without_numa_there_is_one_pool_and_nothing_moves),
        WITH(a_move_is_recorded_once_however_many_looks_it_takes),
        WITH(a_move_that_is_not_possible_is_recorded_with_its_result),
        WITH(pages_that_will_not_move_are_counted_and_left_alone),
        cmocka_unit_test(a_child_looks_for_itself),
    };
    return cmocka_run_group_tests(tests, start, NULL);
}

/*
 * Machines with several nodes: whose memory goes where, by the server's host policies and by the
 * threads that execute; and that nothing of it happens on any other machine.
 *
 * Most machines have one node, so umo_numa_*() and umo_pool_create() are answered here (--wrap)
 * for a machine with the nodes 0 and 2, one without memory (3) and one that is not for this process
 * (5). On a machine that really has several two tests look where pages are.
 */
#include "world.h"

#include "kit/kit.h"

#include <umo/numa.h>

#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LENGTH 1000
#define MANY 16u /* executions elsewhere, and scratch memory moves */
#define POOLS_MAX 8u

static const model_plan bytes = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

/* ---- the machine ---- */

static struct {
    bool real;           /* this machine's own nodes */
    uint32_t nodes;      /* with memory */
    int32_t here;        /* where the thread is */
    umo_status unplaced; /* what a pool on a node fails with; UMO_OK: it is made */
    unsigned asked;      /* for pools */
    umo_pool_options pools[POOLS_MAX];
} machine;

static const umo_numa_topology several = {
    .count = 4,
    .nodes = {{.id = 0, .processors = 2, .memory_bytes = 1 << 30, .allowed = true},
              {.id = 2, .processors = 2, .memory_bytes = 1 << 30, .allowed = true},
              {.id = 3, .processors = 2, .allowed = true},
              {.id = 5, .processors = 2, .memory_bytes = 1 << 30}},
};

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker gives these names. */
umo_status __real_umo_numa_topology_read(umo_numa_topology *out, umo_error *error);
umo_status __wrap_umo_numa_topology_read(umo_numa_topology *out, umo_error *error);
uint32_t __real_umo_numa_memory_nodes(void);
uint32_t __wrap_umo_numa_memory_nodes(void);
int32_t __real_umo_numa_node_here(void);
int32_t __wrap_umo_numa_node_here(void);
umo_status __real_umo_pool_create(const umo_pool_options *options, umo_pool **out,
                                  umo_error *error);
umo_status __wrap_umo_pool_create(const umo_pool_options *options, umo_pool **out,
                                  umo_error *error);

umo_status __wrap_umo_numa_topology_read(umo_numa_topology *out, umo_error *error)
{
    if (machine.real) {
        return __real_umo_numa_topology_read(out, error);
    }
    *out = several;
    out->count = machine.nodes > 1 ? several.count : 1;
    return UMO_OK;
}

uint32_t __wrap_umo_numa_memory_nodes(void)
{
    return machine.real ? __real_umo_numa_memory_nodes() : machine.nodes;
}

int32_t __wrap_umo_numa_node_here(void)
{
    return machine.real ? __real_umo_numa_node_here() : machine.here;
}

umo_status __wrap_umo_pool_create(const umo_pool_options *options, umo_pool **out, umo_error *error)
{
    if (machine.real) {
        return __real_umo_pool_create(options, out, error);
    }
    if (options->one_node && machine.unplaced != UMO_OK) {
        return umo_error_set(error, machine.unplaced, 0, "was made to fail");
    }
    umo_pool_options plain = *options;
    assert_true(machine.asked < POOLS_MAX);
    machine.pools[machine.asked++] = plain;
    plain.one_node = false;
    plain.numa_node = 0;
    return __real_umo_pool_create(&plain, out, error);
}
/* NOLINTEND(bugprone-reserved-identifier) */

static void machine_start(world *w, uint32_t nodes)
{
    memset(&machine, 0, sizeof machine);
    machine.nodes = nodes;
    world_start(w);
}

/* The node that the number-th pool was asked for on; UMO_NUMA_ANY for none. */
static int32_t pool_node(unsigned number)
{
    assert_true(number < machine.asked);
    return machine.pools[number].one_node ? machine.pools[number].numa_node : UMO_NUMA_ANY;
}

static umo_instance *instance_of(const world *w)
{
    return w->instance.state;
}

/* A request that needs scratch memory: its input comes in two pieces. */
static void execute_once(world *w)
{
    job j;
    job_start(&j, w->plan, 1, LENGTH, 1);
    job_input_own(&j, 0, false);
    job_input_split(&j, 0);
    job_want(&j, 0, NULL);
    assert_true(world_execute(w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
}

static void execute_on(world *w, int32_t node, unsigned times)
{
    machine.here = node;
    for (unsigned i = 0; i < times; i++) {
        execute_once(w);
    }
}

static uint64_t blocks_of(const umo_pool *pool)
{
    umo_pool_stats stats;
    umo_pool_read((umo_pool *)(uintptr_t)pool, &stats);
    return stats.hits + stats.misses;
}

/* ---- host policies ---- */

static void a_policy_puts_an_instance_s_memory_on_its_node(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    fake.policy = "{\"far\": {\"cpu-cores\": \"0-1\", \"numa-node\": \"2\"}}";
    engine.device = world_device(0, true);
    world_load_ok(&w, &bytes);
    assert_non_null(strstr(fake.log, "instance 'fake_0': memory on node 2, by host policy 'far'"));
    assert_int_equal(umo_instance_node(instance_of(&w)), 2);
    assert_int_equal(machine.asked, 2);
    assert_int_equal(machine.pools[0].mode, UMO_UNIFIED);
    assert_int_equal(pool_node(0), 2);
    /* The device's own memory is where the device is. */
    assert_int_equal(machine.pools[1].mode, UMO_PRIVATE);
    assert_int_equal(pool_node(1), UMO_NUMA_ANY);
    /* Wherever the thread may be: the policy has the last word. */
    execute_on(&w, 0, 2 * MANY);
    assert_int_equal(machine.asked, 2);
    world_unload(&w);
    world_finish(&w);
}

static void a_pool_of_the_engine_s_is_on_the_policy_s_node_too(void **state)
{
    (void)state;
    for (int named = 0; named < 2; named++) {
        world w;
        umo_pool *pool = NULL;
        machine_start(&w, 2);
        fake.policy = named != 0 ? "{\"cpu\": {\"numa-node\": \"2\"}}" : "{\"cpu\": {}}";
        world_load_ok(&w, &bytes);
        const umo_pool_options options = {.device = instance_of(&w)->host,
                                          .scope = umo_model_scope(w.model.state),
                                          .mode = UMO_UNIFIED};
        assert_int_equal(umo_instance_pool_create(instance_of(&w), &options, &pool, NULL), UMO_OK);
        assert_int_equal(pool_node(1), named != 0 ? 2 : UMO_NUMA_ANY);
        umo_pool_destroy(pool);
        world_unload(&w);
        world_finish(&w);
    }
}

static void a_node_that_memory_cannot_be_on_is_named_with_those_that_can(void **state)
{
    (void)state;
    static const struct {
        uint32_t nodes;
        const char *policy;
        const char *words;
    } rows[] = {
        {2, "{\"cpu\": {\"numa-node\": \"1\"}}",
         "host policy 'cpu': numa-node=1 is no node of this machine; write one of 0, 2 in "
         "--host-policy, or leave it out"},
        {2, "{\"cpu\": {\"numa-node\": \"64\"}}", "numa-node=64 is no node of this machine"},
        {2, "{\"cpu\": {\"numa-node\": \"3\"}}", "numa-node=3 has no memory; write one of 0, 2 in"},
        {2, "{\"cpu\": {\"numa-node\": \"5\"}}", "numa-node=5 is not for this process"},
        {2, "{\"gpu_0\": {\"numa-node\": \"abc\"}}",
         "host policy 'gpu_0': numa-node=abc is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"\"}}", "numa-node= is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"-1\"}}", "numa-node=-1 is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"2x\"}}", "numa-node=2x is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \" 2\"}}", "numa-node= 2 is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"2,0\"}}", "numa-node=2,0 is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"4294967298\"}}",
         "numa-node=4294967298 is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": \"99999999999999999999999\"}}",
         "numa-node=99999999999999999999999 is no node's number"},
        {2, "{\"cpu\": {\"numa-node\": 2}}", "numa-node= is no node's number"},
        {1, "{\"cpu\": {\"numa-node\": \"2\"}}",
         "numa-node=2 is no node of this machine; write one of 0 in"},
        {1, "{\"cpu\": {\"numa-node\": \"x\"}}", "numa-node=x is no node's number"},
        {2, "[]", "host policy of instance 'fake_0' is no JSON object"},
        {2, "{", "host policy of instance 'fake_0' is no JSON object"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        machine_start(&w, rows[i].nodes);
        fake.policy = rows[i].policy;
        world_configure(&w, &bytes);
        if (world_load(&w)) {
            fail_msg("%s was taken", rows[i].policy);
        }
        if (strstr(w.text, rows[i].words) == NULL) {
            fail_msg("%s: '%s', without '%s'", rows[i].policy, w.text, rows[i].words);
        }
        assert_int_equal(machine.asked, 0);
        world_finish(&w);
    }
}

static void who_is_switched_off_asks_for_no_policy_and_no_node(void **state)
{
    (void)state;
    static const char *const rows[] = {"{\"enable_numa_optimization\": false}",
                                       "{\"enable\": false}"};
    for (size_t i = 0; i < 2; i++) {
        world w;
        model_plan plan = bytes;
        plan.unified = rows[i];
        machine_start(&w, 2);
        fake.policy = "{\"cpu\": {\"numa-node\": \"7\"}}";
        world_load_ok(&w, &plan);
        assert_int_equal(umo_instance_node(instance_of(&w)), UMO_NUMA_ANY);
        execute_on(&w, 0, MANY + 1);
        execute_on(&w, 2, MANY + 1);
        assert_int_equal(machine.asked, 1);
        assert_int_equal(pool_node(0), UMO_NUMA_ANY);
        world_unload(&w);
        world_finish(&w);
    }
}

static void one_node_is_as_if_there_were_none(void **state)
{
    (void)state;
    static const char *const rows[] = {"{\"cpu\": {}}", "{\"cpu\": {\"numa-node\": \"0\"}}"};
    for (size_t i = 0; i < 2; i++) {
        world w;
        machine_start(&w, 1);
        fake.policy = rows[i];
        world_load_ok(&w, &bytes);
        assert_int_equal(umo_instance_node(instance_of(&w)), UMO_NUMA_ANY);
        assert_false(instance_of(&w)->follows);
        execute_on(&w, 0, MANY + 1);
        assert_int_equal(machine.asked, 1);
        assert_int_equal(pool_node(0), UMO_NUMA_ANY);
        world_unload(&w);
        world_finish(&w);
    }
}

/* ---- threads ---- */

static void scratch_memory_follows_the_thread_that_executes(void **state)
{
    (void)state;
    static const char *const rows[] = {"{\"cpu\": {}}", "{\"cpu\": {\"cpu-cores\": \"0-1\"}}",
                                       "{}"};
    for (size_t i = 0; i < 3; i++) {
        world w;
        machine_start(&w, 2);
        fake.policy = rows[i];
        world_load_ok(&w, &bytes);
        assert_int_equal(umo_instance_node(instance_of(&w)), UMO_NUMA_ANY);
        assert_int_equal(pool_node(0), 0);
        const umo_pool *first = instance_of(&w)->scratch;
        execute_on(&w, 0, 1);
        const uint64_t each = blocks_of(first); /* by what the kernel tells of memory */
        assert_true(each > 0);
        execute_on(&w, 2, MANY - 1);
        assert_int_equal(machine.asked, 1);
        assert_int_equal(blocks_of(first), MANY * each);
        execute_on(&w, 2, 2);
        assert_int_equal(machine.asked, 2);
        assert_int_equal(pool_node(1), 2);
        const umo_pool *second = instance_of(&w)->scratch;
        assert_ptr_not_equal(second, first);
        assert_int_equal(blocks_of(second), 2 * each);
        /* And back: that pool is still there. */
        execute_on(&w, 0, MANY);
        assert_ptr_equal(instance_of(&w)->scratch, first);
        assert_int_equal(blocks_of(first), (MANY + 1) * each);
        execute_on(&w, 2, MANY);
        assert_ptr_equal(instance_of(&w)->scratch, second);
        assert_int_equal(machine.asked, 2);
        world_unload(&w);
        world_finish(&w);
    }
}

static void a_thread_that_comes_and_goes_is_not_followed(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    world_load_ok(&w, &bytes);
    for (int i = 0; i < 4; i++) {
        execute_on(&w, 2, MANY - 1);
        execute_on(&w, 0, 1);
    }
    /* Nor one that is on a third node now and then: none of them is its own. */
    for (int i = 0; i < 4; i++) {
        execute_on(&w, 2, MANY - 1);
        execute_on(&w, 5, 1);
    }
    assert_int_equal(machine.asked, 1);
    world_unload(&w);
    world_finish(&w);
}

static void a_move_without_memory_is_tried_again_later(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    world_load_ok(&w, &bytes);
    const umo_pool *first = instance_of(&w)->scratch;
    for (uint64_t number = 1; number < 3; number++) {
        execute_on(&w, 2, MANY - 1);
        machine.unplaced = number == 1 ? UMO_E_NOMEM : UMO_OK;
        if (number == 2) {
            allocations_start(1);
        }
        execute_on(&w, 2, 1);
        (void)allocations_stop();
        machine.unplaced = UMO_OK;
        assert_ptr_equal(instance_of(&w)->scratch, first);
        assert_int_equal(instance_of(&w)->node, 0);
    }
    assert_int_equal(machine.asked, 1);
    execute_on(&w, 2, MANY);
    assert_int_equal(machine.asked, 2);
    assert_int_equal(pool_node(1), 2);
    world_unload(&w);
    world_finish(&w);
}

/* Its requests hold blocks between executions. */
static void a_decoupled_model_s_instance_is_not_followed(void **state)
{
    (void)state;
    for (int named = 0; named < 2; named++) {
        world w;
        model_plan plan = bytes;
        plan.extra = ", \"model_transaction_policy\": {\"decoupled\": true}";
        machine_start(&w, 2);
        fake.policy = named != 0 ? "{\"cpu\": {\"numa-node\": \"2\"}}" : "{\"cpu\": {}}";
        world_load_ok(&w, &plan);
        assert_false(instance_of(&w)->follows);
        assert_int_equal(pool_node(0), named != 0 ? 2 : UMO_NUMA_ANY);
        world_unload(&w);
        world_finish(&w);
    }
}

/* ---- figures ---- */

static void expect_figures(const world *w, double local, double remote, double moves)
{
    kit_metrics *metrics = ((umo_model *)w->model.state)->metrics;
    (void)kit_metrics_refresh(metrics);
    assert_float_equal(fake_metric("umo_numa_scratch_bytes_total", "where=local"), local, 0.5);
    assert_float_equal(fake_metric("umo_numa_scratch_bytes_total", "where=remote"), remote, 0.5);
    assert_float_equal(fake_metric("umo_numa_moves_total", NULL), moves, 0.5);
}

/* Bytes of scratch memory that an execution takes here: by what the kernel tells of memory. */
static double scratch_of_one(world *w)
{
    execute_on(w, 0, 1);
    const double taken = (double)atomic_load(&((umo_model *)w->model.state)->scratch_bytes[0]);
    assert_true(taken >= LENGTH);
    return taken;
}

static void scratch_memory_is_counted_near_and_far(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    world_load_ok(&w, &bytes);
    expect_figures(&w, 0, 0, 0);
    const double one = scratch_of_one(&w);
    execute_on(&w, 2, MANY - 1);
    expect_figures(&w, one, (MANY - 1) * one, 0);
    execute_on(&w, 2, 3); /* with the first of them it moves */
    expect_figures(&w, 4 * one, (MANY - 1) * one, 1);
    world_unload(&w);
    world_finish(&w);
}

static void memory_that_a_policy_placed_may_be_far_for_ever(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    fake.policy = "{\"cpu\": {\"numa-node\": \"0\"}}";
    world_load_ok(&w, &bytes);
    const double one = scratch_of_one(&w);
    execute_on(&w, 2, 2 * MANY);
    expect_figures(&w, one, 2 * MANY * one, 0);
    world_unload(&w);
    world_finish(&w);
}

static void one_node_counts_nothing(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 1);
    world_load_ok(&w, &bytes);
    execute_on(&w, 0, 3);
    expect_figures(&w, 0, 0, 0);
    world_unload(&w);
    world_finish(&w);
}

/* ---- what cannot be ---- */

static void memory_that_nobody_may_place_is_anywhere_and_that_is_said_once(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    machine.unplaced = UMO_E_REFUSED;
    fake.policy = "{\"cpu\": {\"numa-node\": \"2\"}}";
    world_load_ok(&w, &bytes);
    assert_non_null(strstr(fake.log, "memory is not put on node 2 but where it is first touched: "
                                     "was made to fail"));
    assert_int_equal(pool_node(0), UMO_NUMA_ANY);
    execute_once(&w);
    /* What was refused once is not asked for again. */
    machine.unplaced = UMO_OK;
    umo_pool *pool = NULL;
    const umo_pool_options options = {.device = instance_of(&w)->host,
                                      .scope = umo_model_scope(w.model.state),
                                      .mode = UMO_UNIFIED};
    assert_int_equal(umo_instance_pool_create(instance_of(&w), &options, &pool, NULL), UMO_OK);
    assert_int_equal(pool_node(1), UMO_NUMA_ANY);
    umo_pool_destroy(pool);
    world_unload(&w);
    fake.log[0] = '\0';
    fake.policy = "{\"cpu\": {}}";
    world_load_ok(&w, &bytes);
    assert_null(strstr(fake.log, "first touched"));
    assert_int_equal(pool_node(2), UMO_NUMA_ANY);
    execute_on(&w, 2, 2 * MANY);
    assert_int_equal(machine.asked, 3);
    world_unload(&w);
    world_finish(&w);
}

static void memory_of_a_device_s_own_is_where_it_is_without_a_word(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    machine.unplaced = UMO_E_UNSUPPORTED;
    fake.policy = "{\"cpu\": {\"numa-node\": \"2\"}}";
    world_load_ok(&w, &bytes);
    assert_null(strstr(fake.log, "first touched"));
    assert_int_equal(pool_node(0), UMO_NUMA_ANY);
    execute_once(&w);
    world_unload(&w);
    world_finish(&w);
}

static void a_load_without_memory_for_its_pool_fails_in_words(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    machine.unplaced = UMO_E_NOMEM;
    fake.policy = "{\"cpu\": {\"numa-node\": \"2\"}}";
    world_configure(&w, &bytes);
    assert_false(world_load(&w));
    assert_string_equal(w.text, "was made to fail");
    world_finish(&w);
}

static void a_server_that_does_not_tell_its_policy_is_named(void **state)
{
    (void)state;
    world w;
    machine_start(&w, 2);
    fake.fail_name = "TRITONBACKEND_ModelInstanceHostPolicy";
    world_configure(&w, &bytes);
    assert_false(world_load(&w));
    assert_non_null(strstr(w.text, "TRITONBACKEND_ModelInstanceHostPolicy was made to fail"));
    world_finish(&w);
}

/* ---- a real machine ---- */

#define BLOCK_BYTES ((size_t)1 << 20)

/* Takes a block of the instance's scratch memory, writes it, and looks where it is. */
static void expect_scratch_on(const world *w, const umo_numa_topology *topology, int32_t node)
{
    umo_buffer *block = NULL;
    umo_numa_residency where;
    umo_pool *pool = instance_of(w)->scratch;
    assert_int_equal(umo_pool_alloc(pool, BLOCK_BYTES, 1, &block, NULL), UMO_OK);
    memset(umo_buffer_host(block), 1, BLOCK_BYTES);
    assert_int_equal(
        umo_numa_residency_read(topology, umo_buffer_host(block), BLOCK_BYTES, 1, &where, NULL),
        UMO_OK);
    assert_true(where.node_bytes[umo_numa_index(topology, node)] >= BLOCK_BYTES);
    assert_int_equal(where.absent_bytes + where.elsewhere_bytes, 0);
    for (uint32_t i = 0; i < topology->count; i++) {
        assert_true(topology->nodes[i].id == node || where.node_bytes[i] == 0);
    }
    assert_int_equal(umo_pool_free(pool, block), UMO_OK);
}

/* This thread is on one node and writes the memory: all others' is there by the policy alone. */
static void pages_are_on_the_policy_s_node(void **state)
{
    (void)state;
    umo_numa_topology topology;
    memset(&machine, 0, sizeof machine);
    machine.real = true;
    if (__real_umo_numa_memory_nodes() < 2) {
        skip(); /* one node */
    }
    assert_int_equal(umo_numa_topology_read(&topology, NULL), UMO_OK);
    for (uint32_t i = 0; i < topology.count; i++) {
        const umo_numa_node *node = &topology.nodes[i];
        world w;
        char policy[64];
        if (node->memory_bytes == 0 || !node->allowed) {
            continue;
        }
        (void)snprintf(policy, sizeof policy, "{\"cpu\": {\"numa-node\": \"%d\"}}", (int)node->id);
        world_start(&w);
        fake.policy = policy;
        world_load_ok(&w, &bytes);
        execute_once(&w);
        expect_scratch_on(&w, &topology, node->id);
        world_unload(&w);
        world_finish(&w);
    }
}

/* Keeps this thread on a processor of another node than it is on. False: there is none. */
static bool leave(void)
{
    cpu_set_t one;
    const int32_t from = __real_umo_numa_node_here();
    for (size_t processor = 0; processor < CPU_SETSIZE; processor++) {
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        if (sched_setaffinity(0, sizeof one, &one) == 0 && __real_umo_numa_node_here() != from) {
            return true;
        }
    }
    return false;
}

static void pages_follow_the_thread_that_executes(void **state)
{
    (void)state;
    umo_numa_topology topology;
    cpu_set_t before;
    world w;
    memset(&machine, 0, sizeof machine);
    machine.real = true;
    if (__real_umo_numa_memory_nodes() < 2) {
        skip(); /* one node */
    }
    assert_int_equal(umo_numa_topology_read(&topology, NULL), UMO_OK);
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    world_start(&w);
    assert_true(leave());
    world_load_ok(&w, &bytes);
    for (int i = 0; i < 3; i++) {
        for (unsigned k = 0; k < MANY; k++) {
            execute_once(&w);
        }
        expect_scratch_on(&w, &topology, __real_umo_numa_node_here());
        assert_true(leave());
    }
    world_unload(&w);
    world_finish(&w);
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_policy_puts_an_instance_s_memory_on_its_node),
        cmocka_unit_test(a_pool_of_the_engine_s_is_on_the_policy_s_node_too),
        cmocka_unit_test(a_node_that_memory_cannot_be_on_is_named_with_those_that_can),
        cmocka_unit_test(who_is_switched_off_asks_for_no_policy_and_no_node),
        cmocka_unit_test(one_node_is_as_if_there_were_none),
        cmocka_unit_test(scratch_memory_follows_the_thread_that_executes),
        cmocka_unit_test(a_thread_that_comes_and_goes_is_not_followed),
        cmocka_unit_test(a_move_without_memory_is_tried_again_later),
        cmocka_unit_test(a_decoupled_model_s_instance_is_not_followed),
        cmocka_unit_test(memory_of_a_device_s_own_is_where_it_is_without_a_word),
        cmocka_unit_test(scratch_memory_is_counted_near_and_far),
        cmocka_unit_test(memory_that_a_policy_placed_may_be_far_for_ever),
        cmocka_unit_test(one_node_counts_nothing),
        cmocka_unit_test(a_load_without_memory_for_its_pool_fails_in_words),
        cmocka_unit_test(a_server_that_does_not_tell_its_policy_is_named),
        cmocka_unit_test(pages_are_on_the_policy_s_node),
        cmocka_unit_test(pages_follow_the_thread_that_executes),
        /* The last: the process is refused from then on. */
        cmocka_unit_test(memory_that_nobody_may_place_is_anywhere_and_that_is_said_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What umo/numa.h promises on every system, one with nodes or not.
 */
#include "os/numa.h"
#include "os/pages_test.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

static umo_numa_topology topology;

static int setup(void **state)
{
    (void)state;
    umo_error error;
    return umo_numa_topology_read(&topology, &error) == UMO_OK ? 0 : -1;
}

/* A node where this process may have memory. */
static int32_t usable_node(void)
{
    uint32_t i = 0;
    while (i + 1 < topology.count &&
           (!topology.nodes[i].allowed || topology.nodes[i].memory_bytes == 0)) {
        i++;
    }
    return topology.nodes[i].id;
}

static char *map(size_t size_bytes)
{
    char *pages =
        pages_test_map(size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    return pages;
}

static void there_is_a_node_with_memory_and_processors(void **state)
{
    (void)state;
    assert_in_range(topology.count, 1, UMO_NUMA_NODES_MAX);
    uint64_t memory_bytes = 0;
    uint32_t processors = 0;
    for (uint32_t i = 0; i < topology.count; i++) {
        const umo_numa_node *node = &topology.nodes[i];
        assert_true(i == 0 || node->id > topology.nodes[i - 1].id);
        assert_int_equal(umo_numa_index(&topology, node->id), i);
        assert_int_equal(topology.distances[i][i], UMO_NUMA_DISTANCE_LOCAL);
        assert_true(umo_numa_index(&topology, node->initiator) >= 0);
        memory_bytes += node->memory_bytes;
        processors += node->processors;
    }
    assert_true(memory_bytes > 0);
    assert_int_equal(processors, umo_os_processors());
    assert_int_equal(umo_numa_index(&topology, UMO_NUMA_ANY), -1);
    assert_int_equal(umo_numa_index(NULL, 0), -1);
    assert_true(umo_numa_index(&topology, umo_numa_node_here()) >= 0);
    assert_in_range(umo_numa_memory_nodes(), 1, topology.count);
}

static void memory_can_be_bound_filled_looked_at_and_moved(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    size_t size = 8 * page;
    char *pages = map(size);
    int32_t node = usable_node();
    umo_error error = {.text = ""};
    umo_numa_residency seen;
    assert_int_equal(umo_numa_bind(pages, size, node, UMO_NUMA_ONLY, &error), UMO_OK);
    assert_int_equal(umo_numa_residency_read(&topology, pages, size, 1, &seen, &error), UMO_OK);
    assert_int_equal(seen.absent_bytes, size);
    memset(pages, 5, size / 2);
    assert_int_equal(umo_numa_residency_read(&topology, pages, size, 1, &seen, &error), UMO_OK);
    assert_int_equal(seen.node_bytes[umo_numa_index(&topology, node)], size / 2);
    assert_int_equal(seen.absent_bytes, size / 2);
    assert_int_equal(seen.elsewhere_bytes, 0);
    uint64_t moved = 7;
    assert_int_equal(umo_numa_move(pages, size, node, &moved, &error), UMO_OK);
    assert_int_equal(moved, 0);
    assert_int_equal(umo_numa_move(pages, size, node, NULL, NULL), UMO_OK);
    assert_int_equal(umo_numa_bind(pages, size, UMO_NUMA_ANY, UMO_NUMA_PREFER, &error), UMO_OK);
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(pages[i], i < size / 2 ? 5 : 0);
    }
    (void)munmap(pages, size);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    char *pages = map(2 * page);
    int32_t node = usable_node();
    umo_error error = {.text = ""};
    uint64_t moved = 7;
    umo_numa_residency seen = {.absent_bytes = 7};
    assert_int_equal(umo_numa_bind(pages, page, 777, UMO_NUMA_PREFER, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "no node 777 here, only "));
    assert_int_equal(umo_numa_move(pages, page, -2, &moved, &error), UMO_E_NOT_FOUND);
    assert_int_equal(umo_numa_move(pages, page, UMO_NUMA_ANY, &moved, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(pages + 1, page, node, UMO_NUMA_ONLY, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(pages, page + 1, node, UMO_NUMA_ONLY, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(pages, 0, node, UMO_NUMA_ONLY, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(NULL, page, node, UMO_NUMA_ONLY, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(pages, page, node, (umo_numa_binding)7, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_topology_read(NULL, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_residency_read(&topology, pages, 0, 1, &seen, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_residency_read(&topology, pages, 1, 0, &seen, &error), UMO_E_INVAL);
    assert_int_equal(munmap(pages, page), 0);
    assert_int_equal(umo_numa_bind(pages, 2 * page, node, UMO_NUMA_PREFER, &error), UMO_E_INVAL);
    assert_int_equal(umo_numa_bind(pages, 2 * page, UMO_NUMA_ANY, UMO_NUMA_PREFER, &error),
                     UMO_E_INVAL);
    assert_int_equal(umo_numa_move(pages, 2 * page, node, &moved, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "not all of the range is mapped"));
    assert_int_equal(moved, 7);
    assert_int_equal(seen.absent_bytes, 7);
    (void)munmap(pages + page, page);
}

enum {
    THREADS = 4,
    TURNS = 50
};

/* Moves and looks while its neighbours write; the bytes are its own. */
static void *mover(void *argument)
{
    char *pages = argument;
    size_t size = 16 * pages_test_bytes();
    size_t wrong = 0;
    for (unsigned turn = 0; turn < TURNS; turn++) {
        memset(pages, (int)(turn + 1), size);
        umo_numa_residency seen;
        int32_t node = topology.nodes[turn % topology.count].id;
        umo_status status = umo_numa_move(pages, size, node, NULL, NULL);
        wrong += status != UMO_OK && status != UMO_E_UNSUPPORTED ? 1 : 0;
        wrong += umo_numa_residency_read(&topology, pages, size, 3, &seen, NULL) != UMO_OK ? 1 : 0;
        wrong += umo_numa_index(&topology, umo_numa_node_here()) < 0 ? 1 : 0;
        wrong += umo_numa_memory_nodes() < 1 ? 1 : 0;
        for (size_t i = 0; i < size; i++) {
            wrong += pages[i] != (char)(turn + 1) ? 1 : 0;
        }
    }
    return (void *)(uintptr_t)wrong;
}

static void threads_move_at_the_same_time(void **state)
{
    (void)state;
    size_t part = 16 * pages_test_bytes();
    char *pages = map(THREADS * part);
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, mover, pages + i * part), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *wrong;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_int_equal((uintptr_t)wrong, 0);
    }
    (void)munmap(pages, THREADS * part);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(there_is_a_node_with_memory_and_processors),
        cmocka_unit_test(memory_can_be_bound_filled_looked_at_and_moved),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(threads_move_at_the_same_time),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}

/*
 * Placing, finding and moving pages on the nodes that this machine has, one or more (tests/numa
 * runs this program on a machine of two). linux_numa_kernel_test.c has what kernels do seldom.
 */
#include "os/numa.h"
#include "os/pages_test.h"
#include "os/says_test.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* ---- on the nodes that there are ---- */

static umo_numa_topology nodes_here(void)
{
    umo_numa_topology topology;
    umo_error error;
    says(umo_numa_topology_read(&topology, &error), UMO_OK, &error, NULL);
    return topology;
}

static bool usable_here(const umo_numa_node *node)
{
    return node->allowed && node->memory_bytes > 0;
}

static int32_t usable_node(void)
{
    umo_numa_topology topology = nodes_here();
    uint32_t i = 0;
    while (i + 1 < topology.count && !usable_here(&topology.nodes[i])) {
        i++;
    }
    return topology.nodes[i].id;
}

static char *map(size_t size_bytes)
{
    char *pages = pages_test_map_at((size_t)2 << 20, size_bytes, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    return pages;
}

static umo_numa_residency residency(const umo_numa_topology *topology, const void *start,
                                    size_t size_bytes)
{
    umo_numa_residency seen;
    umo_error error;
    says(umo_numa_residency_read(topology, start, size_bytes, 1, &seen, &error), UMO_OK, &error,
         NULL);
    return seen;
}

static void fill(char *pages, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i += sizeof(uint32_t)) {
        uint32_t value = (uint32_t)(i * 2654435761U);
        memcpy(pages + i, &value, sizeof value);
    }
}

static void still_filled(const char *pages, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i += sizeof(uint32_t)) {
        uint32_t value;
        memcpy(&value, pages + i, sizeof value);
        assert_int_equal(value, (uint32_t)(i * 2654435761U));
    }
}

static void memory_lies_where_it_was_bound_to(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t size = (size_t)3 << 20;
    for (uint32_t i = 0; i < topology.count; i++) {
        if (!usable_here(&topology.nodes[i])) {
            continue;
        }
        for (int binding = UMO_NUMA_PREFER; binding <= UMO_NUMA_ONLY; binding++) {
            char *pages = map(size);
            umo_error error;
            says(
                umo_numa_bind(pages, size, topology.nodes[i].id, (umo_numa_binding)binding, &error),
                UMO_OK, &error, NULL);
            umo_numa_residency seen = residency(&topology, pages, size);
            assert_int_equal(seen.absent_bytes, size);
            fill(pages, size);
            seen = residency(&topology, pages, size);
            assert_int_equal(seen.node_bytes[i], size);
            assert_int_equal(seen.absent_bytes, 0);
            (void)munmap(pages, size);
        }
    }
}

static void memory_moves_with_its_bytes(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t size = ((size_t)5 << 20) + pages_test_bytes() * 3;
    char *pages = map(size);
    fill(pages, size);
    for (uint32_t turn = 0; turn < topology.count * 2; turn++) {
        uint32_t i = turn % topology.count;
        if (!usable_here(&topology.nodes[i])) {
            continue;
        }
        umo_numa_residency before = residency(&topology, pages, size);
        uint64_t moved = UINT64_MAX;
        umo_error error;
        says(umo_numa_move(pages, size, topology.nodes[i].id, &moved, &error), UMO_OK, &error,
             NULL);
        umo_numa_residency after = residency(&topology, pages, size);
        assert_int_equal(after.node_bytes[i], size);
        assert_int_equal(moved, size - before.node_bytes[i]);
        still_filled(pages, size);
    }
    (void)munmap(pages, size);
}

typedef struct reader {
    const char *pages;
    size_t size_bytes;
    _Atomic bool over;
} reader;

static void *read_on(void *argument)
{
    reader *r = argument;
    volatile char sum = 0;
    while (!atomic_load(&r->over)) {
        for (size_t i = 0; i < r->size_bytes; i += 64) {
            sum = (char)(sum + r->pages[i]);
        }
    }
    return NULL;
}

/* While a thread reads all of it, and the kernel's balancing, where it is on, has its eye on it. */
static void memory_in_use_moves_as_well(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t size = (size_t)2 << 20;
    char *pages = map(size);
    (void)madvise(pages, size, MADV_NOHUGEPAGE);
    fill(pages, size);
    reader r = {.pages = pages, .size_bytes = size};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_on, &r), 0);
    /* Balancing begins to look after a second. */
    uint64_t end_ns = umo_os_now_ns() + (umo_numa_memory_nodes() > 1 ? UINT64_C(1500000000) : 0);
    for (uint32_t turn = 0; turn < 4 || umo_os_now_ns() < end_ns; turn++) {
        uint32_t i = turn % topology.count;
        if (usable_here(&topology.nodes[i])) {
            umo_error error;
            says(umo_numa_move(pages, size, topology.nodes[i].id, NULL, &error), UMO_OK, &error,
                 NULL);
            umo_numa_residency seen = residency(&topology, pages, size);
            /* Balancing may take some back at once, and what it marks is not seen. */
            assert_true(seen.node_bytes[i] + seen.absent_bytes >= size / 2);
        }
    }
    atomic_store(&r.over, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    still_filled(pages, size);
    (void)munmap(pages, size);
}

static void huge_pages_move_as_they_are(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t size = (size_t)8 << 20;
    char *pages = map(size);
    (void)madvise(pages, size, MADV_HUGEPAGE);
    fill(pages, size);
    for (uint32_t i = 0; i < topology.count; i++) {
        if (usable_here(&topology.nodes[i])) {
            umo_numa_residency before = residency(&topology, pages, size);
            uint64_t moved = UINT64_MAX;
            umo_error error;
            says(umo_numa_move(pages, size, topology.nodes[i].id, &moved, &error), UMO_OK, &error,
                 NULL);
            assert_int_equal(moved, size - before.node_bytes[i]);
            assert_int_equal(residency(&topology, pages, size).node_bytes[i], size);
        }
    }
    still_filled(pages, size);
    (void)munmap(pages, size);
}

static void a_node_that_cannot_be_had_is_refused_for_its_reason(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t size = pages_test_bytes();
    char *pages = map(size);
    pages[0] = 1;
    unsigned tried = 0;
    for (uint32_t i = 0; i < topology.count; i++) {
        const umo_numa_node *node = &topology.nodes[i];
        if (usable_here(node)) {
            continue;
        }
        const char *words = node->memory_bytes == 0 ? "has no memory of its own" : "cpuset";
        umo_error error;
        says(umo_numa_bind(pages, size, node->id, UMO_NUMA_PREFER, &error), UMO_E_UNSUPPORTED,
             &error, words);
        says(umo_numa_bind(pages, size, node->id, UMO_NUMA_ONLY, &error), UMO_E_UNSUPPORTED, &error,
             words);
        says(umo_numa_move(pages, size, node->id, NULL, &error), UMO_E_UNSUPPORTED, &error, words);
        tried++;
    }
    (void)munmap(pages, size);
    if (tried == 0) {
        print_message("skipped: this process may have memory on every node\n");
        skip();
    }
}

static void a_part_has_its_own_node_and_loses_it_again(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    uint32_t first = UINT32_MAX;
    uint32_t last = 0;
    for (uint32_t i = 0; i < topology.count; i++) {
        if (usable_here(&topology.nodes[i])) {
            first = first == UINT32_MAX ? i : first;
            last = i;
        }
    }
    size_t part = (size_t)1 << 20;
    char *pages = map(4 * part);
    umo_error error;
    says(umo_numa_bind(pages, 4 * part, topology.nodes[first].id, UMO_NUMA_ONLY, &error), UMO_OK,
         &error, NULL);
    says(umo_numa_bind(pages + part, part, topology.nodes[last].id, UMO_NUMA_PREFER, &error),
         UMO_OK, &error, NULL);
    says(umo_numa_bind(pages + 3 * part, part, UMO_NUMA_ANY, UMO_NUMA_PREFER, &error), UMO_OK,
         &error, NULL);
    /* What protection does to a mapping, its node survives. */
    assert_int_equal(mprotect(pages, 4 * part, PROT_NONE), 0);
    assert_int_equal(mprotect(pages, 4 * part, PROT_READ | PROT_WRITE), 0);
    fill(pages, 4 * part);
    assert_int_equal(residency(&topology, pages, part).node_bytes[first], part);
    assert_int_equal(residency(&topology, pages + part, part).node_bytes[last], part);
    assert_int_equal(residency(&topology, pages + 2 * part, part).node_bytes[first], part);
    int mode = -1;
    assert_int_equal(
        syscall(SYS_get_mempolicy, &mode, NULL, 0UL, pages + 3 * part, (unsigned long)MPOL_F_ADDR),
        0);
    assert_int_equal(mode, MPOL_DEFAULT);
    (void)munmap(pages, 4 * part);
}

static void a_thread_is_on_its_processors_node(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    cpu_set_t before;
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    uint32_t seen = 0;
    for (size_t processor = 0; processor < CPU_SETSIZE; processor++) {
        if (!CPU_ISSET(processor, &before)) {
            continue;
        }
        cpu_set_t one;
        CPU_ZERO(&one);
        CPU_SET(processor, &one);
        assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
        for (int turn = 0; turn < 3; turn++) {
            unsigned node;
            assert_int_equal(syscall(SYS_getcpu, NULL, &node, NULL), 0);
            assert_int_equal(umo_numa_node_here(), node);
            int index = umo_numa_index(&topology, (int32_t)node);
            assert_true(index >= 0 && topology.nodes[index].processors > 0);
            seen |= 1U << index;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
    assert_true(seen != 0);
}

static void two_nodes_are_two(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    uint32_t usable = 0;
    for (uint32_t i = 0; i < topology.count; i++) {
        usable += usable_here(&topology.nodes[i]) ? 1 : 0;
    }
    assert_int_equal(umo_numa_memory_nodes(), usable > 0 ? usable : 1);
    print_message("%u nodes with memory\n", (unsigned)usable);
}

/* ---- what is wrong ---- */

static void a_range_must_be_whole_pages_that_are_there(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    char *pages = map(4 * page);
    char *end = (char *)(UINTPTR_MAX - page + 1);
    const struct {
        char *start;
        size_t size_bytes;
        const char *words;
    } rows[] = {
        {NULL, page, "empty"},
        {pages, 0, "empty"},
        {pages + 1, page, "whole pages"},
        {pages, page - 1, "whole pages"},
        {pages, page + 1, "whole pages"},
        {end, page, "last address"},
        {pages, SIZE_MAX - page + 1, "last address"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        umo_error error;
        says(umo_numa_bind(rows[i].start, rows[i].size_bytes, 0, UMO_NUMA_PREFER, &error),
             UMO_E_INVAL, &error, rows[i].words);
        uint64_t moved = 7;
        says(umo_numa_move(rows[i].start, rows[i].size_bytes, 0, &moved, &error), UMO_E_INVAL,
             &error, rows[i].words);
        assert_int_equal(moved, 7);
    }
    assert_int_equal(munmap(pages + page, page), 0);
    static const int32_t nodes[] = {UMO_NUMA_ANY, 0};
    for (size_t i = 0; i < COUNT(nodes); i++) {
        umo_error error;
        int32_t node = nodes[i] == 0 ? usable_node() : nodes[i];
        says(umo_numa_bind(pages, 3 * page, node, UMO_NUMA_PREFER, &error), UMO_E_INVAL, &error,
             "not all of the range is mapped");
    }
    umo_error error;
    says(umo_numa_move(pages, 3 * page, 0, NULL, &error), UMO_E_INVAL, &error, "mapped");
    says(umo_numa_move(pages, page, UMO_NUMA_ANY, NULL, &error), UMO_E_INVAL, &error, "any");
    says(umo_numa_bind(pages, page, 0, (umo_numa_binding)2, &error), UMO_E_INVAL, &error,
         "binding 2");
    says(umo_numa_topology_read(NULL, &error), UMO_E_INVAL, &error, NULL);
    assert_int_equal(umo_numa_bind(pages, 1, 0, UMO_NUMA_PREFER, NULL), UMO_E_INVAL);
    (void)munmap(pages, 4 * page);
}

static void a_node_that_is_not_there_is_named_with_those_that_are(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    char *pages = map(page);
    pages[0] = 1;
    static const int32_t nodes[] = {77, 1023, 1024, 65536, INT32_MAX, -2, INT32_MIN};
    for (size_t i = 0; i < COUNT(nodes); i++) {
        char words[64];
        (void)snprintf(words, sizeof words, "no node %d here, only ", (int)nodes[i]);
        umo_error error;
        says(umo_numa_bind(pages, page, nodes[i], UMO_NUMA_PREFER, &error), UMO_E_NOT_FOUND, &error,
             words);
        says(umo_numa_bind(pages, page, nodes[i], UMO_NUMA_ONLY, &error), UMO_E_NOT_FOUND, &error,
             words);
        says(umo_numa_move(pages, page, nodes[i], NULL, &error), UMO_E_NOT_FOUND, &error, words);
    }
    (void)munmap(pages, page);
}

static void a_look_counts_whole_pages_and_touches_none(void **state)
{
    (void)state;
    umo_numa_topology topology = nodes_here();
    size_t page = pages_test_bytes();
    size_t size = 1100 * page;
    char *pages = map(size);
    (void)madvise(pages, size, MADV_NOHUGEPAGE);
    for (size_t i = 0; i < size / 2; i += page) {
        pages[i] = 1;
    }
    const volatile char *read = pages + size - page;
    assert_int_equal(read[0], 0); /* a page of zeros that is everybody's lies nowhere */
    static const size_t steps[] = {1, 2, 7, 1099, 1100, 5000, SIZE_MAX};
    for (size_t i = 0; i < COUNT(steps); i++) {
        umo_numa_residency seen;
        umo_error error;
        says(umo_numa_residency_read(&topology, pages, size, steps[i], &seen, &error), UMO_OK,
             &error, NULL);
        uint64_t there = seen.elsewhere_bytes;
        for (uint32_t k = 0; k < topology.count; k++) {
            there += seen.node_bytes[k];
        }
        assert_int_equal(there + seen.absent_bytes, size);
        assert_int_equal(seen.elsewhere_bytes, 0);
        if (steps[i] <= 2) {
            assert_int_equal(there, size / 2);
        } else if (steps[i] >= 1100) {
            assert_int_equal(there, size);
        }
    }
    /* A part of a page is the page; a node that is not known is elsewhere. */
    umo_numa_topology none = topology;
    none.count = 0;
    umo_numa_residency seen = residency(&none, pages + page - 1, 2);
    assert_int_equal(seen.elsewhere_bytes, 2 * page);
    umo_error error;
    seen.absent_bytes = 5;
    says(umo_numa_residency_read(&topology, pages, 0, 1, &seen, &error), UMO_E_INVAL, &error, "");
    says(umo_numa_residency_read(&topology, pages, 1, 0, &seen, &error), UMO_E_INVAL, &error, "");
    says(umo_numa_residency_read(&topology, NULL, 1, 1, &seen, &error), UMO_E_INVAL, &error, "");
    says(umo_numa_residency_read(NULL, pages, 1, 1, &seen, &error), UMO_E_INVAL, &error, "");
    says(umo_numa_residency_read(&topology, pages, 1, 1, NULL, &error), UMO_E_INVAL, &error, "");
    says(umo_numa_residency_read(&topology, pages, SIZE_MAX, 1, &seen, &error), UMO_E_INVAL, &error,
         "");
    assert_int_equal(seen.absent_bytes, 5);
    (void)munmap(pages, size);
}

/* ---- a filter that lets nobody say where memory lies ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#else
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

static bool filter(int cause)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_mbind, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_move_pages, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (uint32_t)cause),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {COUNT(code), code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static bool refused(umo_status status, const umo_error *error, int cause)
{
    return status == UMO_E_REFUSED && error->status == UMO_E_REFUSED && error->native == cause &&
           strstr(error->text, "seccomp") != NULL;
}

/* 0, or the line of what went otherwise. */
static int filtered_child(int cause)
{
    umo_numa_topology topology;
    umo_error error;
    if (umo_numa_topology_read(&topology, &error) != UMO_OK) {
        return 1;
    }
    int32_t node = usable_node();
    size_t page = pages_test_bytes();
    char *pages = map(page);
    pages[0] = 1;
    if (!filter(cause)) {
        return 77;
    }
    umo_numa_residency seen;
    if (!refused(umo_numa_bind(pages, page, node, UMO_NUMA_PREFER, &error), &error, cause)) {
        return 2;
    }
    if (!refused(umo_numa_bind(pages, page, UMO_NUMA_ANY, UMO_NUMA_ONLY, &error), &error, cause)) {
        return 3;
    }
    if (!refused(umo_numa_move(pages, page, node, NULL, &error), &error, cause)) {
        return 4;
    }
    if (!refused(umo_numa_residency_read(&topology, pages, page, 1, &seen, &error), &error,
                 cause)) {
        return 5;
    }
    if (umo_numa_bind(pages, page, 77, UMO_NUMA_ONLY, &error) != UMO_E_NOT_FOUND ||
        umo_numa_move(pages, page, 77, NULL, &error) != UMO_E_NOT_FOUND) {
        return 6;
    }
    return umo_numa_memory_nodes() >= 1 && umo_numa_topology_read(&topology, &error) == UMO_OK ? 0
                                                                                               : 7;
}

static void a_filter_is_a_refusal_in_words(void **state)
{
    (void)state;
    static const int causes[] = {EPERM, ENOSYS, EACCES};
    const bool told = access("/sys/devices/system/node/online", R_OK) == 0;
    for (size_t i = 0; i < COUNT(causes); i++) {
        if (causes[i] == ENOSYS && !told) {
            continue; /* neither calls nor files: a kernel without nodes */
        }
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            _exit(filtered_child(causes[i]));
        }
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFEXITED(status));
        if (WEXITSTATUS(status) == 77) {
            print_message("skipped: no seccomp filter can be set here\n");
            skip();
        }
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_lies_where_it_was_bound_to),
        cmocka_unit_test(memory_moves_with_its_bytes),
        cmocka_unit_test(memory_in_use_moves_as_well),
        cmocka_unit_test(huge_pages_move_as_they_are),
        cmocka_unit_test(a_node_that_cannot_be_had_is_refused_for_its_reason),
        cmocka_unit_test(a_part_has_its_own_node_and_loses_it_again),
        cmocka_unit_test(a_thread_is_on_its_processors_node),
        cmocka_unit_test(a_range_must_be_whole_pages_that_are_there),
        cmocka_unit_test(a_node_that_is_not_there_is_named_with_those_that_are),
        cmocka_unit_test(a_look_counts_whole_pages_and_touches_none),
        cmocka_unit_test(a_filter_is_a_refusal_in_words),
        cmocka_unit_test(two_nodes_are_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

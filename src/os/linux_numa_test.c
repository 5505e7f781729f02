/*
 * Placing, finding and moving pages: on the nodes that this machine has, one or more (tests/numa
 * runs this program on a machine of two), and on a made-up kernel of two for what real ones do
 * seldom. The calls that it answers are redirected when this program is linked.
 */
#include "os/numa.h"
#include "os/pages_test.h"

#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/mempolicy.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define COUNT(array) (sizeof(array) / sizeof *(array))
#define PAGES 1100 /* more than two batches */

/* ---- a made-up kernel ---- */

typedef enum page_kind {
    MOVES = 0,
    BUSY,      /* always */
    BUSY_ONCE, /* moves when it is asked again */
    SHARED,    /* with another process */
    SILENT,    /* stays, and nothing is said */
    ABSENT,
    MARKED,        /* there, and said to be absent until somebody touches it */
    BOUND_FOR_GOOD /* counted as moved by the kernel, which lies elsewhere all the same */
} page_kind;

static struct {
    bool on;
    char *start;
    size_t page_bytes;
    int where[PAGES];
    page_kind kinds[PAGES];
    unsigned asked[PAGES]; /* how often each was to move */
    unsigned calls;        /* that move */
    size_t room;           /* pages that the node can take */
    int move_errno;
    int look_errno;
    int bind_errno;
    bool silent; /* nothing is told of nodes */
    umo_numa_topology topology;
} fake;

long __real_syscall(long number, ...);
long __wrap_syscall(long number, ...);
umo_status __real_umo_numa_topology_read_at(const char *root, umo_numa_topology *out, bool *told,
                                            umo_error *error);
umo_status __wrap_umo_numa_topology_read_at(const char *root, umo_numa_topology *out, bool *told,
                                            umo_error *error);
umo_status __real_umo_numa_topology_read(umo_numa_topology *out, umo_error *error);
umo_status __wrap_umo_numa_topology_read(umo_numa_topology *out, umo_error *error);

umo_status __wrap_umo_numa_topology_read_at(const char *root, umo_numa_topology *out, bool *told,
                                            umo_error *error)
{
    if (!fake.on) {
        return __real_umo_numa_topology_read_at(root, out, told, error);
    }
    *out = fake.topology;
    *told = !fake.silent;
    return UMO_OK;
}

static umo_status read_status;
static int read_native;

umo_status __wrap_umo_numa_topology_read(umo_numa_topology *out, umo_error *error)
{
    if (!fake.on) {
        return __real_umo_numa_topology_read(out, error);
    }
    *out = fake.topology;
    return read_status == UMO_OK ? UMO_OK : umo_error_set(error, read_status, read_native, "no");
}

static long no(int cause)
{
    errno = cause;
    return -1;
}

static void fake_move_page(size_t i, int node, int *said, size_t *left)
{
    fake.asked[i]++;
    switch (fake.kinds[i]) {
    case BUSY:
        *said = -EBUSY;
        return;
    case SHARED:
        *said = -EACCES;
        return;
    case MARKED:
        *said = -ENOENT;
        return;
    case SILENT:
    case ABSENT:
        return;
    case BOUND_FOR_GOOD:
        *said = node;
        return;
    case BUSY_ONCE:
        if (fake.asked[i] == 1) {
            *said = -EBUSY;
            return;
        }
        break;
    default:
        break;
    }
    if (*left > 0) {
        (*left)--;
        fake.where[i] = node;
        *said = node;
    }
}

static long fake_pages(size_t count, void **pages, const int *nodes, int *said)
{
    int cause = nodes != NULL ? fake.move_errno : fake.look_errno;
    fake.calls += nodes != NULL ? 1 : 0;
    if (cause != 0) {
        return no(cause);
    }
    size_t before = fake.room;
    for (size_t k = 0; k < count; k++) {
        size_t i = (size_t)((char *)pages[k] - fake.start) / fake.page_bytes;
        assert_true(i < PAGES);
        if (nodes != NULL) {
            fake_move_page(i, nodes[k], &said[k], &fake.room);
        } else {
            bool hidden = fake.kinds[i] == ABSENT || fake.kinds[i] == MARKED;
            said[k] = hidden ? -ENOENT : fake.where[i];
        }
    }
    return nodes != NULL && before > 0 && fake.room == 0 ? no(ENOMEM) : 0;
}

long __wrap_syscall(long number, ...)
{
    long a[6] = {0};
    size_t given = number == SYS_move_pages || number == SYS_mbind ? 6 : 3; /* of what we call */
    given = number == SYS_get_mempolicy ? 5 : given;
    va_list list;
    va_start(list, number);
    for (size_t i = 0; i < given; i++) {
        a[i] = va_arg(list, long);
    }
    va_end(list);
    if (fake.on && number == SYS_move_pages) {
        return fake_pages((size_t)a[1], (void **)a[2], (const int *)a[3], (int *)a[4]);
    }
    if (fake.on && number == SYS_get_mempolicy) {
        size_t i = (size_t)((char *)a[3] - fake.start) / fake.page_bytes;
        assert_int_equal(fake.kinds[i], MARKED); /* what is absent is not brought in */
        fake.kinds[i] = MOVES;
        *(int *)a[0] = fake.where[i];
        return 0;
    }
    if (fake.on && number == SYS_mbind) {
        return fake.bind_errno != 0 ? no(fake.bind_errno) : 0;
    }
    return __real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static void fake_begin(void)
{
    memset(&fake, 0, sizeof fake);
    fake.page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    fake.start = pages_test_map_at((size_t)2 << 20, PAGES * fake.page_bytes, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(fake.start != MAP_FAILED);
    (void)madvise(fake.start, PAGES * fake.page_bytes, MADV_NOHUGEPAGE);
    fake.room = SIZE_MAX;
    fake.topology.count = 3;
    for (int i = 0; i < 3; i++) {
        fake.topology.nodes[i] = (umo_numa_node){
            .id = i * 2, .processors = 1, .memory_bytes = i == 1 ? 0 : 4096, .allowed = i != 2};
    }
    fake.topology.nodes[1].id = 1; /* 0, 1 without memory, 4 not allowed */
    fake.on = true;
}

static void fake_end(void)
{
    fake.on = false;
    (void)munmap(fake.start, pages_test_round_up(PAGES * fake.page_bytes));
}

/* In whole pages of the size in force. */
static size_t fake_bytes(void)
{
    return PAGES * fake.page_bytes / pages_test_bytes() * pages_test_bytes();
}

static void says(umo_status status, umo_status wanted, const umo_error *error, const char *words)
{
    if (status != wanted || (words != NULL && strstr(error->text, words) == NULL)) {
        fail_msg("%s '%s', wanted %s '%s'", umo_status_name(status), error->text,
                 umo_status_name(wanted), words != NULL ? words : "");
    }
    if (wanted != UMO_OK) {
        assert_int_equal(error->status, wanted);
    }
}

/* ---- counted before anything else asks ---- */

/* In a child each time: the answer is kept. */
static int nodes_counted(void)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint32_t first = umo_numa_memory_nodes();
        uint32_t again = first;
        if (read_status != UMO_OK) {
            read_status = UMO_OK;
            again = umo_numa_memory_nodes();
        }
        _exit((int)(first * 16 + again));
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void nodes_count_where_this_process_may_have_memory(void **state)
{
    (void)state;
    fake_begin();
    assert_int_equal(nodes_counted(), 0x11);
    fake.topology.nodes[2].allowed = true;
    assert_int_equal(nodes_counted(), 0x22);
    fake.topology.nodes[1].memory_bytes = 1024;
    assert_int_equal(nodes_counted(), 0x33);
    fake.topology.nodes[0].allowed = false;
    fake.topology.nodes[1].allowed = false;
    fake.topology.nodes[2].allowed = false;
    assert_int_equal(nodes_counted(), 0x11); /* there is some memory, whatever is said of it */
    fake_end();
}

static void what_keeps_the_count_from_being_read_may_pass(void **state)
{
    (void)state;
    fake_begin();
    fake.topology.nodes[2].allowed = true;
    read_status = UMO_E_NOMEM;
    assert_int_equal(nodes_counted(), 0x12);
    read_status = UMO_E_SYSTEM;
    read_native = EMFILE;
    assert_int_equal(nodes_counted(), 0x12);
    read_native = 0; /* what makes no sense will not make more */
    assert_int_equal(nodes_counted(), 0x11);
    read_status = UMO_OK;
    fake_end();
}

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
    assert_int_equal(__real_syscall(SYS_get_mempolicy, &mode, NULL, 0UL, pages + 3 * part,
                                    (unsigned long)MPOL_F_ADDR),
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
            assert_int_equal(__real_syscall(SYS_getcpu, NULL, &node, NULL), 0);
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
    if (umo_numa_bind(pages, page, 77, UMO_NUMA_ONLY, &error) != UMO_E_NOT_FOUND) {
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

/* ---- what kernels do seldom ---- */

static void what_the_kernel_says_of_a_node_is_explained(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    const struct {
        int cause;
        int32_t node;
        umo_status status;
        const char *words;
    } rows[] = {
        {EINVAL, 1, UMO_E_UNSUPPORTED, "node 1 has no memory of its own"},
        {EINVAL, 4, UMO_E_UNSUPPORTED, "its cpuset leaves it out"},
        {EINVAL, 3, UMO_E_NOT_FOUND, "no node 3 here, only 0, 1, 4"},
        {EINVAL, 0, UMO_E_SYSTEM, "Invalid"},
        {EIO, 0, UMO_E_SYSTEM, ""},
        {ENOMEM, 0, UMO_E_NOMEM, "mapping"},
        {EFAULT, 0, UMO_E_INVAL, "mapped"},
        {EPERM, 1, UMO_E_UNSUPPORTED, "memory"},
        {EPERM, 0, UMO_E_REFUSED, "seccomp"},
        {ENOSYS, 0, UMO_E_REFUSED, "seccomp"},
        {0, 0, UMO_OK, NULL},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        umo_error error;
        fake.bind_errno = rows[i].cause;
        says(umo_numa_bind(fake.start, size, rows[i].node, UMO_NUMA_ONLY, &error), rows[i].status,
             &error, rows[i].words);
    }
    static const struct {
        int cause;
        int32_t node;
        umo_status status;
    } moves[] = {
        {ENODEV, 3, UMO_E_NOT_FOUND},
        {ENODEV, 1, UMO_E_UNSUPPORTED},
        {EACCES, 4, UMO_E_UNSUPPORTED},
        {EACCES, 0, UMO_E_REFUSED},
        {EPERM, 0, UMO_E_REFUSED},
        {EIO, 0, UMO_E_SYSTEM},
        {ENOMEM, 0, UMO_OK},
        {EAGAIN, 0, UMO_OK},
        {ENOENT, 0, UMO_OK},
    };
    for (size_t i = 0; i < COUNT(moves); i++) {
        umo_error error;
        uint64_t moved = 7;
        for (size_t k = 0; k < PAGES; k++) {
            fake.where[k] = 2;
        }
        fake.calls = 0;
        fake.move_errno = moves[i].cause;
        says(umo_numa_move(fake.start, size, moves[i].node, &moved, &error), moves[i].status,
             &error, NULL);
        assert_int_equal(moved, moves[i].status == UMO_OK ? 0 : 7);
        /* A full node is not asked again, nor is one that is refused. */
        if (moves[i].cause != EAGAIN && moves[i].cause != ENOENT) {
            assert_int_equal(fake.calls, 1);
        }
    }
    fake_end();
}

static void pages_that_stay_are_no_error_and_not_counted(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    size_t pages = size / fake.page_bytes;
    uint64_t wanted = 0;
    for (size_t i = 0; i < pages; i++) {
        fake.kinds[i] = (page_kind)(i * 7 % 9 <= BOUND_FOR_GOOD ? i * 7 % 9 : MOVES);
        fake.where[i] = i % 5 == 0 ? 0 : 4;
        fake.kinds[i] = fake.kinds[i] == MARKED ? SILENT : fake.kinds[i]; /* another test's */
        bool moves = fake.kinds[i] == MOVES || fake.kinds[i] == BUSY_ONCE;
        wanted += moves && fake.where[i] == 4 ? fake.page_bytes : 0;
    }
    uint64_t moved = 0;
    umo_error error;
    says(umo_numa_move(fake.start, size, 0, &moved, &error), UMO_OK, &error, NULL);
    assert_int_equal(moved, wanted);
    for (size_t i = 0; i < pages; i++) {
        unsigned most = 3; /* a page that may come is asked again, for a while */
        unsigned least = 0;
        if (i % 5 == 0 || fake.kinds[i] == ABSENT) {
            most = 0;
        } else if (fake.kinds[i] == SHARED || fake.kinds[i] == MOVES) {
            most = least = 1;
        } else if (fake.kinds[i] == BUSY_ONCE) {
            most = least = 2;
        } else {
            least = 3;
        }
        assert_in_range(fake.asked[i], least, most);
    }
    /* All that is there may come is there. */
    says(umo_numa_move(fake.start, size, 0, &moved, &error), UMO_OK, &error, NULL);
    assert_int_equal(moved, 0);
    fake_end();
}

static void pages_that_balancing_has_marked_move_as_well(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    size_t pages = size / fake.page_bytes;
    uint64_t there = 0;
    assert_int_equal(mprotect(fake.start, size, PROT_READ | PROT_WRITE), 0);
    for (size_t i = 0; i < pages; i++) {
        fake.where[i] = 4;
        fake.kinds[i] = i % 3 == 0 ? ABSENT : MARKED;
        if (fake.kinds[i] == MARKED) {
            fake.start[i * fake.page_bytes] = 1;
            there += fake.page_bytes;
        }
    }
    /* A look would be a touch, which balancing takes for a use: they are left as they are. */
    umo_numa_residency seen;
    umo_error error;
    says(umo_numa_residency_read(&fake.topology, fake.start, size, 1, &seen, &error), UMO_OK,
         &error, NULL);
    assert_int_equal(seen.absent_bytes, size);
    uint64_t moved = 0;
    says(umo_numa_move(fake.start, size, 0, &moved, &error), UMO_OK, &error, NULL);
    assert_int_equal(moved, there);
    fake_end();
}

static void a_node_that_fills_up_keeps_what_it_got(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    for (size_t i = 0; i < PAGES; i++) {
        fake.where[i] = 4;
    }
    fake.room = 700;
    uint64_t moved = 0;
    umo_error error;
    says(umo_numa_move(fake.start, size, 0, &moved, &error), UMO_OK, &error, NULL);
    assert_int_equal(moved, 700 * fake.page_bytes);
    fake_end();
}

static void nothing_to_move_is_no_reason_to_believe_in_a_node(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    static const struct {
        int32_t node;
        umo_status status;
    } rows[] = {{0, UMO_OK},
                {1, UMO_E_UNSUPPORTED},
                {4, UMO_E_UNSUPPORTED},
                {3, UMO_E_NOT_FOUND},
                {-7, UMO_E_NOT_FOUND}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        for (size_t k = 0; k < PAGES; k++) {
            fake.kinds[k] = ABSENT;
        }
        uint64_t moved = 7;
        umo_error error;
        says(umo_numa_move(fake.start, size, rows[i].node, &moved, &error), rows[i].status, &error,
             NULL);
        assert_int_equal(moved, rows[i].status == UMO_OK ? 0 : 7);
        assert_int_equal(fake.calls, 0);
    }
    fake_end();
}

static void a_kernel_without_nodes_has_one_and_no_complaint(void **state)
{
    (void)state;
    fake_begin();
    size_t size = fake_bytes();
    umo_numa_one_node(&fake.topology);
    fake.silent = true;
    fake.bind_errno = fake.look_errno = fake.move_errno = ENOSYS;
    umo_error error;
    uint64_t moved = 7;
    says(umo_numa_bind(fake.start, size, 0, UMO_NUMA_ONLY, &error), UMO_OK, &error, NULL);
    says(umo_numa_bind(fake.start, size, UMO_NUMA_ANY, UMO_NUMA_ONLY, &error), UMO_OK, &error,
         NULL);
    says(umo_numa_bind(fake.start, size, 1, UMO_NUMA_ONLY, &error), UMO_E_NOT_FOUND, &error,
         "no node 1 here, only 0");
    says(umo_numa_move(fake.start, size, 0, &moved, &error), UMO_OK, &error, NULL);
    assert_int_equal(moved, 0);
    says(umo_numa_move(fake.start, size, 1, &moved, &error), UMO_E_NOT_FOUND, &error, NULL);
    umo_numa_residency seen;
    says(umo_numa_residency_read(&fake.topology, fake.start, size, 1, &seen, &error), UMO_OK,
         &error, NULL);
    assert_int_equal(seen.absent_bytes, size);
    assert_int_equal(mprotect(fake.start, size, PROT_READ | PROT_WRITE), 0);
    memset(fake.start, 1, size / 2 / pages_test_bytes() * pages_test_bytes());
    says(umo_numa_residency_read(&fake.topology, fake.start, size, 1, &seen, &error), UMO_OK,
         &error, NULL);
    assert_int_equal(seen.node_bytes[0], size / 2 / pages_test_bytes() * pages_test_bytes());
    /* A hole is one here too. */
    assert_int_equal(munmap(fake.start, pages_test_bytes()), 0);
    says(umo_numa_bind(fake.start, size, 0, UMO_NUMA_ONLY, &error), UMO_E_INVAL, &error, "mapped");
    fake_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_count_where_this_process_may_have_memory),
        cmocka_unit_test(what_keeps_the_count_from_being_read_may_pass),
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
        cmocka_unit_test(what_the_kernel_says_of_a_node_is_explained),
        cmocka_unit_test(pages_that_stay_are_no_error_and_not_counted),
        cmocka_unit_test(pages_that_balancing_has_marked_move_as_well),
        cmocka_unit_test(a_node_that_fills_up_keeps_what_it_got),
        cmocka_unit_test(nothing_to_move_is_no_reason_to_believe_in_a_node),
        cmocka_unit_test(a_kernel_without_nodes_has_one_and_no_complaint),
        cmocka_unit_test(two_nodes_are_two),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Placing, finding and moving pages on a made-up kernel of two nodes, for what real ones do seldom,
 * and how often nodes are counted. The calls that it answers are redirected when this program is
 * linked; linux_numa_test.c asks the real one.
 */
#include "os/numa.h"
#include "os/pages_test.h"
#include "os/says_test.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

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

/* ---- nodes are counted once ---- */

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
        cmocka_unit_test(what_the_kernel_says_of_a_node_is_explained),
        cmocka_unit_test(pages_that_stay_are_no_error_and_not_counted),
        cmocka_unit_test(pages_that_balancing_has_marked_move_as_well),
        cmocka_unit_test(a_node_that_fills_up_keeps_what_it_got),
        cmocka_unit_test(nothing_to_move_is_no_reason_to_believe_in_a_node),
        cmocka_unit_test(a_kernel_without_nodes_has_one_and_no_complaint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

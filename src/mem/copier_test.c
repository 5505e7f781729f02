/*
 * Copies by several threads: every byte arrives, whoever copies, and nothing beside them changes.
 */
#include <umo/copy.h>

#include "os/os.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define EDGE 64
#define RANGES 40

static uint64_t chance = 1;

static size_t below(size_t limit)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (size_t)(chance >> 33) % limit;
}

static void bytes_fill(unsigned char *bytes, size_t size_bytes, unsigned char seed)
{
    for (size_t i = 0; i < size_bytes; i++) {
        bytes[i] = (unsigned char)(seed + i * 7 + (i >> 8));
    }
}

/* Cuts `total` bytes into ranges, some of them empty, that go to as many places with gaps between
 * them; false where a byte is wrong afterwards. */
static bool copies_right(umo_copier *copier, size_t total, unsigned char seed)
{
    unsigned char *from = malloc(total + 1);
    unsigned char *to = malloc(total + (RANGES + 1) * EDGE);
    umo_copy copies[RANGES];
    size_t left = total;
    size_t at = EDGE;
    assert_non_null(from);
    assert_non_null(to);
    bytes_fill(from, total, seed);
    memset(to, 0xEE, total + (RANGES + 1) * EDGE);
    for (size_t i = 0; i < RANGES; i++) {
        size_t size_bytes = i + 1 == RANGES ? left : below(left / 2 + 1);
        size_bytes = i % 7 == 3 ? 0 : size_bytes;
        copies[i] = (umo_copy){to + at, from + total - left, size_bytes};
        at += size_bytes + EDGE;
        left -= size_bytes;
    }
    umo_copier_run(copier, copies, RANGES);
    bool right = true;
    const unsigned char *next = to;
    for (size_t i = 0; i < RANGES; i++) {
        for (; next < (unsigned char *)copies[i].to; next++) {
            right = right && *next == 0xEE;
        }
        right = right && memcmp(copies[i].to, copies[i].from, copies[i].size_bytes) == 0;
        next += copies[i].size_bytes;
    }
    free(to);
    free(from);
    return right;
}

static const size_t totals[] = {0,      1,       1000,    262143,  262144,
                                262145, 1 << 20, 3333333, 8 << 20, (8 << 20) + 1};

static void every_byte_arrives_however_many_help(void **state)
{
    (void)state;
    assert_true(copies_right(NULL, 1 << 20, 1));
    for (uint32_t helpers = 0; helpers <= UMO_COPIER_HELPERS_MAX; helpers++) {
        umo_copier *copier = NULL;
        assert_int_equal(umo_copier_create(helpers, 1, &copier, NULL), UMO_OK);
        for (size_t i = 0; i < sizeof totals / sizeof totals[0]; i++) {
            assert_true(copies_right(copier, totals[i], (unsigned char)i));
        }
        umo_copier_destroy(copier);
    }
    umo_copier_destroy(NULL);
}

static void figures_are_measured_with_the_first_large_copy(void **state)
{
    (void)state;
    umo_copier *copier = NULL;
    umo_copier_figures figures;
    assert_int_equal(umo_copier_create(1, 0, &copier, NULL), UMO_OK);
    assert_true(copies_right(copier, 262143, 1));
    umo_copier_read(copier, &figures);
    assert_int_equal(figures.crossover_bytes, 0);
    assert_true(copies_right(copier, 262144, 1));
    umo_copier_read(copier, &figures);
    assert_int_equal(figures.helpers, 1);
    assert_true(figures.alone_ns_mib > 0);
    assert_true(figures.together_ns_mib > 0);
    assert_true(figures.crossover_bytes >= 262144);
    /* What is used is what paid when it was measured. */
    if (figures.crossover_bytes != SIZE_MAX) {
        assert_true(figures.together_ns_mib < figures.alone_ns_mib);
    }
    umo_copier_destroy(copier);
}

static void nobody_helps_on_one_processor(void **state)
{
    (void)state;
    umo_copier *copier = NULL;
    umo_copier_figures figures;
    assert_int_equal(umo_copier_create(0, 0, &copier, NULL), UMO_OK);
    assert_true(copies_right(copier, 8 << 20, 1));
    umo_copier_read(copier, &figures);
    assert_int_equal(figures.crossover_bytes, 0);
    umo_copier_destroy(copier);
    /* And at most as many as there are processors for. */
    assert_int_equal(umo_copier_create(UINT32_MAX, 0, &copier, NULL), UMO_OK);
    assert_true(copies_right(copier, 8 << 20, 1));
    umo_copier_read(copier, &figures);
    assert_true(figures.helpers < umo_os_processors());
    umo_copier_destroy(copier);
}

typedef struct copying {
    umo_copier *copier;
    unsigned char seed;
    bool right;
} copying;

static void *copy_often(void *opaque)
{
    copying *own = opaque;
    unsigned char *from = malloc(2 << 20);
    unsigned char *to = malloc(2 << 20);
    own->right = from != NULL && to != NULL;
    for (unsigned i = 0; i < 30 && own->right; i++) {
        bytes_fill(from, 2 << 20, (unsigned char)(own->seed + i));
        const umo_copy copies[] = {{to, from, 1 << 20},
                                   {to + (1 << 20), from + (1 << 20), 1 << 20}};
        umo_copier_run(own->copier, copies, 2);
        own->right = memcmp(to, from, 2 << 20) == 0;
    }
    free(to);
    free(from);
    return NULL;
}

static void callers_do_not_wait_for_each_other(void **state)
{
    (void)state;
    umo_copier *copier = NULL;
    copying own[4];
    pthread_t threads[4];
    assert_int_equal(umo_copier_create(2, 1, &copier, NULL), UMO_OK);
    for (size_t i = 0; i < 4; i++) {
        own[i] = (copying){copier, (unsigned char)(i * 40), false};
        assert_int_equal(pthread_create(&threads[i], NULL, copy_often, &own[i]), 0);
    }
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_true(own[i].right);
    }
    umo_copier_destroy(copier);
}

/*
 * A source whose pages are read when this test lets them: the caller's wait until the helper has
 * one in hand, and the helper's first until the caller has returned, or could have.
 */
#define HELD_BYTES ((size_t)1 << 20)
#define HELD_MS 200

static pthread_t caller;
static size_t page_bytes;
static atomic_bool helper_in;
static atomic_bool returned;

static void page_opened(int signal, siginfo_t *info, void *context)
{
    (void)signal;
    (void)context;
    if (pthread_equal(pthread_self(), caller) != 0) {
        while (!atomic_load(&helper_in)) {
            (void)usleep(1000);
        }
    } else if (!atomic_exchange(&helper_in, true)) {
        for (int ms = 0; ms < HELD_MS && !atomic_load(&returned); ms++) {
            (void)usleep(1000);
        }
    }
    void *page = (void *)((uintptr_t)info->si_addr & ~(page_bytes - 1)); /* NOLINT */
    if (mprotect(page, page_bytes, PROT_READ | PROT_WRITE) != 0) {
        _exit(99);
    }
}

static void a_thread_at_work_is_waited_for(void **state)
{
    (void)state;
    umo_copier *copier = NULL;
    struct sigaction open = {.sa_sigaction = page_opened, .sa_flags = SA_SIGINFO};
    struct sigaction segv;
    struct sigaction bus; /* as macOS calls it */
    unsigned char *to = malloc(HELD_BYTES);
    unsigned char *from = umo_os_pages_alloc(HELD_BYTES);
    page_bytes = umo_os_page_bytes();
    caller = pthread_self();
    assert_non_null(to);
    assert_non_null(from);
    assert_int_equal(umo_copier_create(1, 1, &copier, NULL), UMO_OK);
    bytes_fill(from, HELD_BYTES, 5);
    memset(to, 0xEE, HELD_BYTES);
    assert_int_equal(sigaction(SIGSEGV, &open, &segv), 0);
    assert_int_equal(sigaction(SIGBUS, &open, &bus), 0);
    assert_int_equal(mprotect(from, HELD_BYTES, PROT_NONE), 0);
    umo_copier_run(copier, &(umo_copy){to, from, HELD_BYTES}, 1);
    bool arrived = memcmp(to, from, HELD_BYTES) == 0;
    atomic_store(&returned, true);
    umo_copier_destroy(copier); /* ends its thread, whatever it was at */
    assert_int_equal(sigaction(SIGSEGV, &segv, NULL), 0);
    assert_int_equal(sigaction(SIGBUS, &bus, NULL), 0);
    assert_true(atomic_load(&helper_in));
    assert_true(arrived);
    umo_os_pages_free(from, HELD_BYTES);
    free(to);
}

static void a_child_of_fork_copies_alone(void **state)
{
    (void)state;
    umo_copier *copier = NULL;
    assert_int_equal(umo_copier_create(2, 1, &copier, NULL), UMO_OK);
    assert_true(copies_right(copier, 4 << 20, 1));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)alarm(20);
        bool right = copies_right(copier, 4 << 20, 2);
        umo_copier_destroy(copier);
        _exit(right ? 0 : 1);
    }
    int how = 0;
    assert_int_equal(waitpid(child, &how, 0), child);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    umo_copier_destroy(copier);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_arrives_however_many_help),
        cmocka_unit_test(figures_are_measured_with_the_first_large_copy),
        cmocka_unit_test(nobody_helps_on_one_processor),
        cmocka_unit_test(callers_do_not_wait_for_each_other),
        cmocka_unit_test(a_thread_at_work_is_waited_for),
        cmocka_unit_test(a_child_of_fork_copies_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

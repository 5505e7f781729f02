/*
 * Every allocation of an arena that plans fails once, and then all after it too: a request goes
 * without a plan, never without its memory, and nothing is left behind. And requests that wander
 * from the plan by chance, against a list of what is in use.
 */
#include "driver/wrapper_test.h"

#include <umo/arena.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    STEPS = 60,
    PIECES = 2 * STEPS,
    REQUESTS = 12
};

static bool armed;
static unsigned long calls;
static unsigned long fail_at; /* 0: never */
static bool fail_after;
static bool failed;

static bool fault(void)
{
    if (!armed) {
        return false;
    }
    calls++;
    const bool now = fail_at != 0 && (calls == fail_at || (fail_after && calls > fail_at));
    failed = failed || now;
    return now;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);

void *__wrap_malloc(size_t size)
{
    return fault() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fault() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return fault() ? NULL : __real_realloc(block, size);
}

typedef struct piece {
    unsigned char *data;
    size_t size_bytes;
    unsigned char mark;
} piece;

static piece in_use[PIECES];
static size_t used;

static void piece_check(const piece *p)
{
    for (size_t i = 0; i < p->size_bytes; i++) {
        if (p->data[i] != p->mark) {
            fail_msg("byte %zu of %zu was overwritten", i, p->size_bytes);
        }
    }
}

static void take(umo_arena *arena, size_t size_bytes, size_t align_bytes, unsigned char mark)
{
    void *data = NULL;
    armed = true;
    umo_status status = umo_arena_alloc(arena, size_bytes, align_bytes, &data);
    armed = false;
    if (status == UMO_E_NOMEM && failed) { /* the pool's own */
        status = umo_arena_alloc(arena, size_bytes, align_bytes, &data);
    }
    assert_int_equal(status, UMO_OK);
    assert_int_equal((uintptr_t)data % align_bytes, 0);
    for (size_t i = 0; i < used; i++) {
        const uintptr_t at = (uintptr_t)in_use[i].data;
        assert_true(at + in_use[i].size_bytes <= (uintptr_t)data ||
                    (uintptr_t)data + size_bytes <= at);
    }
    memset(data, mark, size_bytes);
    in_use[used++] = (piece){data, size_bytes, mark};
}

static void give(umo_arena *arena, size_t at)
{
    piece_check(&in_use[at]);
    armed = true;
    const umo_status status = umo_arena_free(arena, in_use[at].data);
    armed = false;
    assert_int_equal(status, UMO_OK);
    in_use[at] = in_use[--used];
}

static unsigned chance(unsigned *seed, unsigned below)
{
    return (unsigned)rand_r(seed) % below;
}

/* One request: the steps that `shape` makes; from step `leave` on those of another seed. */
static void request(umo_arena *arena, unsigned shape, unsigned leave, unsigned other)
{
    unsigned seed = shape;
    used = 0;
    for (unsigned i = 0; i < STEPS; i++) {
        seed = i == leave ? other : seed;
        if (used > 0 && chance(&seed, 2) == 0) {
            give(arena, chance(&seed, (unsigned)used));
        } else {
            const size_t size_bytes = 1 + chance(&seed, chance(&seed, 8) == 0 ? 40000 : 2000);
            take(arena, size_bytes, (size_t)1 << chance(&seed, 13), (unsigned char)(i + 1));
        }
    }
    for (size_t i = 0; i < used; i++) {
        piece_check(&in_use[i]);
    }
    armed = true;
    umo_arena_reset(arena);
    armed = false;
}

static umo_device *device;
static umo_scope *scope;
static umo_pool *pool;

static umo_arena *arena_open(void)
{
    umo_arena *arena = NULL;
    const umo_arena_options options = {.pool = pool, .first_bytes = 1024};
    assert_int_equal(umo_arena_create(&options, &arena, NULL), UMO_OK);
    return arena;
}

static void arena_close(umo_arena *arena)
{
    umo_pool_stats stats;
    umo_arena_destroy(arena);
    umo_pool_read(pool, &stats);
    assert_int_equal(stats.live_bytes, 0);
}

static void a_failed_allocation_is_a_request_without_a_plan(void **state)
{
    (void)state;
    for (unsigned after = 0; after < 2; after++) {
        unsigned long n = 1;
        for (;; n++) {
            umo_arena *arena = arena_open();
            umo_arena_stats stats;
            calls = 0;
            failed = false;
            fail_after = after == 1;
            fail_at = n;
            for (unsigned i = 0; i < 6; i++) {
                request(arena, 3, i == 4 ? STEPS / 2 : STEPS, 9);
            }
            const bool fault_came = failed;
            fail_at = 0;
            failed = false;
            for (unsigned i = 0; i < 18; i++) { /* it is planned as soon as there is memory */
                request(arena, 3, STEPS, 0);
            }
            umo_arena_read(arena, &stats);
            assert_int_not_equal(stats.planned_bytes, 0);
            arena_close(arena);
            if (!fault_came) {
                break;
            }
        }
        assert_true(n > 10);
    }
}

static void requests_that_wander_keep_what_is_in_use(void **state)
{
    (void)state;
    fail_at = 0;
    for (unsigned shape = 1; shape <= 40; shape++) {
        umo_arena *arena = arena_open();
        unsigned seed = shape;
        for (unsigned i = 0; i < 4; i++) {
            request(arena, shape, STEPS, 0);
        }
        for (unsigned i = 0; i < REQUESTS * 6; i++) {
            const unsigned leave = chance(&seed, 3) == 0 ? STEPS : chance(&seed, STEPS);
            request(arena, shape + (chance(&seed, 16) == 0 ? 1 : 0), leave, seed);
        }
        arena_close(arena);
    }
}

static int pool_open(void **state)
{
    (void)state;
    assert_int_equal(umo_device_open("host", 0, NULL, &device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "arena", 0, &scope, NULL), UMO_OK);
    const umo_pool_options options = {.device = device, .scope = scope, .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
    return 0;
}

static int pool_close(void **state)
{
    (void)state;
    umo_pool_destroy(pool);
    umo_scope_destroy(scope);
    umo_device_release(device);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failed_allocation_is_a_request_without_a_plan),
        cmocka_unit_test(requests_that_wander_keep_what_is_in_use),
    };
    return cmocka_run_group_tests_name("arena_fault", tests, pool_open, pool_close);
}

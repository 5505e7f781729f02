/*
 * Every allocation of the planner fails once, and then all after it too: nothing is left behind,
 * and what comes out is an error or a plan.
 */
#include "plan/instances_test.h"

#include <umo/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static unsigned long calls;
static unsigned long fail_at; /* 0: never */
static bool fail_after;
static bool failed;
static long blocks;

static bool fault(void)
{
    calls++;
    const bool now = fail_at != 0 && (calls == fail_at || (fail_after && calls > fail_at));
    failed = failed || now;
    return now;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);

void *__wrap_malloc(size_t size)
{
    void *block = fault() ? NULL : __real_malloc(size);
    blocks += block != NULL ? 1 : 0;
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = fault() ? NULL : __real_calloc(count, size);
    blocks += block != NULL ? 1 : 0;
    return block;
}

void *__wrap_realloc(void *block, size_t size)
{
    void *moved = fault() ? NULL : __real_realloc(block, size);
    blocks += block == NULL && moved != NULL ? 1 : 0;
    return moved;
}

void __wrap_free(void *block)
{
    blocks -= block != NULL ? 1 : 0;
    __real_free(block);
}

static umo_plan_buffer buffers[64];
static int64_t offsets[64];

static void sweep(bool (*scene)(void))
{
    for (unsigned after = 0; after < 2; after++) {
        fail_after = after == 1;
        fail_at = 0;
        unsigned long n = 1;
        for (;; n++) {
            calls = 0;
            fail_at = n;
            failed = false;
            const long before = blocks;
            const bool right = scene();
            const bool fault_came = failed;
            fail_at = 0;
            assert_true(right);
            assert_int_equal(blocks, before);
            if (!fault_came) {
                break;
            }
        }
        assert_true(n > 5);
    }
    fail_at = 0;
    assert_true(scene());
}

static size_t count;

static bool plan_scene(void)
{
    umo_plan_options options;
    umo_plan_options_init(&options);
    options.time_limit_ns = 0;
    options.node_limit = 3000;
    umo_plan_result result;
    umo_error error = {0};
    const umo_status status = umo_plan(buffers, count, &options, offsets, &result, &error);
    const bool fault_came = failed;
    fail_at = 0;
    int64_t peak = -1;
    if (status == UMO_OK) {
        return umo_plan_check(buffers, count, offsets, &peak, NULL) == UMO_OK &&
               peak == result.peak_bytes;
    }
    return fault_came && status == UMO_E_NOMEM && strstr(error.text, "memory") != NULL;
}

static bool check_scene(void)
{
    const umo_status status = umo_plan_check(buffers, count, offsets, NULL, NULL);
    return status == UMO_OK || (failed && status == UMO_E_NOMEM);
}

static bool table_scene(void)
{
    static char text[32768];
    if (text[0] == '\0') {
        int used = sprintf(text, "id,lower,upper,size,offset\n");
        for (int i = 0; i < 600; i++) {
            used += sprintf(text + used, "%d,%d,%d,1,0\n", i, i, i + 1);
        }
    }
    umo_plan_table table;
    umo_status status = umo_plan_table_parse(text, strlen(text), "t", &table, NULL);
    if (status == UMO_OK) {
        status = umo_plan_table_write(&table, "/dev/null", NULL);
        umo_plan_table_finish(&table);
    }
    return status == UMO_OK || (failed && status == UMO_E_NOMEM);
}

static void a_plan_survives_the_failure_of_every_allocation(void **state)
{
    (void)state;
    uint32_t random = 8;
    random_buffers_test(buffers, 40, 25, 12, 100, 1, &random);
    count = fill_test(buffers, 40, 20); /* hard enough that all of it runs */
    sweep(plan_scene);
    random_buffers_test(buffers, 30, 25, 12, 100, 3, &random);
    count = 30;
    sweep(plan_scene);
}

static void a_check_and_a_table_survive_it_too(void **state)
{
    (void)state;
    failed = false;
    assert_true(plan_scene());
    sweep(check_scene);
    sweep(table_scene);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_survives_the_failure_of_every_allocation),
        cmocka_unit_test(a_check_and_a_table_survive_it_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

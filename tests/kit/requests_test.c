/*
 * Requests as clients send them, good and bad: a bad one is refused in words that name the thing,
 * and the others of its batch are answered right.
 */
#include "world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* Batches of up to 8: floats of any length, three bytes, and an optional one. */
static const model_plan batching = {
    .batch_max = 8,
    .input_count = 3,
    .output_count = 3,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}},
               {.dtype = UMO_UINT8, .dims = {1, {3}}},
               {.dtype = UMO_INT16, .dims = {2, {2, -1}}, .optional = true}},
};

static const model_plan scalars = {
    .input_count = 1, .output_count = 1, .inputs = {{.dtype = UMO_FP64, .dims = {0}}}};

static void one_request_is_answered(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &batching);
    job_simple(&j, &batching, 2, 5, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    assert_int_equal(w.instance.batches, 1);
    assert_int_equal(w.instance.rows, 2);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

static void a_scalar_has_no_dimensions(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &scalars);
    job_simple(&j, &scalars, 1, 1, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_is_answered),
        cmocka_unit_test(a_scalar_has_no_dimensions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * A server that runs out of memory: requests are refused with words that tell a client to come
 * again, and answered again when there is room; nothing of what runs already is lost.
 */
#include "world.h"

#include "kit/kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define BUDGET_BYTES ((size_t)64 << 20)

static const model_plan bytes = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

/* Makes usage known until requests are refused, or are not any more. */
static bool poke_until(umo_pressure *pressure, bool ready)
{
    const struct timespec moment = {.tv_nsec = 10 * 1000 * 1000}; /* answers get time to help */
    for (int i = 0; i < 1500 && umo_pressure_ready(pressure) != ready; i++) {
        (void)umo_pressure_poke(pressure);
        (void)nanosleep(&moment, NULL);
    }
    return umo_pressure_ready(pressure) == ready;
}

static void requests_are_refused_while_memory_is_short_and_answered_again(void **state)
{
    (void)state;
    world w;
    umo_context *context = NULL;
    const umo_context_options options = {.budget_bytes = BUDGET_BYTES};
    assert_int_equal(umo_context_default_acquire(&options, &context, NULL), UMO_OK);
    world_start(&w);
    fake.options = "{}";
    world_load_ok(&w, &bytes);
    umo_pressure *pressure = umo_context_pressure(context);
    assert_non_null(pressure);

    umo_device *host = NULL;
    umo_buffer *hog = NULL;
    assert_int_equal(umo_context_device(context, "host", 0, &host, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(host, umo_context_scope(context), BUDGET_BYTES / 100 * 97,
                                      UMO_UNIFIED, &hog, NULL),
                     UMO_OK);
    assert_true(poke_until(pressure, false));
    job j;
    job_simple(&j, &bytes, 2, 100, 1);
    (void)world_execute(&w, &j, 1);
    job_expect_failed(&j, "memory");
    assert_int_equal(j.request->code, TRITONSERVER_ERROR_UNAVAILABLE);
    job_finish(&j);
    const umo_model *model = w.model.state;
    assert_true(fake_metric("umo_ready", NULL) == 0);
    (void)kit_metrics_refresh(model->metrics);
    assert_true(fake_metric("umo_requests_refused_total", NULL) == 1);
    assert_true(fake_metric("umo_pressure_answers_total", "answer=refuse") >= 1);
    assert_true(fake_metric("umo_memory_limit_bytes", "source=budget") == (double)BUDGET_BYTES);
    assert_true(fake_metric("umo_memory_usage_bytes", "source=budget") >= 0.9 * BUDGET_BYTES);

    umo_buffer_release(hog);
    assert_true(poke_until(pressure, true));
    job_simple(&j, &bytes, 2, 100, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    umo_device_release(host);
    world_unload(&w);
    umo_context_default_release(context);
    world_finish(&w);
}

static void options_that_cannot_be_are_named(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"\"budget_fraction\": \"1.5\"", "budget_fraction=1.5 is not a number from 0 to 1"},
        {"\"budget_fraction\": \"half\"", "is not a number from 0 to 1"},
        {"\"budget_fraction\": \"\"", "is not a number from 0 to 1"},
        {"\"budget_fraction\": \"-1\"", "is not a number from 0 to 1"},
        {"\"budget_fraction\": \"0.5.5\"", "is not a number from 0 to 1"},
        {"\"pressure\": \"maybe\"", "pressure=maybe is neither on, off nor a number"},
        {"\"pressure\": \"0.05\"", "is neither on, off nor a number"},
        {"\"pressure\": \"99\"", "is neither on, off nor a number"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        char text[160];
        world_start(&w);
        world_configure(&w, &bytes);
        (void)snprintf(text, sizeof text, "{\"cmdline\": {%s}}", rows[i][0]);
        fake.options = text;
        assert_false(world_load(&w));
        assert_non_null(strstr(w.text, rows[i][1]));
        world_finish(&w);
    }
}

static void pressure_can_be_off_and_have_a_threshold(void **state)
{
    (void)state;
    static const char *const options[] = {
        "{\"cmdline\": {\"pressure\": \"off\"}}",
        "{\"cmdline\": {\"pressure\": \"0.9\"}}",
    };
    for (size_t i = 0; i < 2; i++) {
        world w;
        world_start(&w);
        fake.options = options[i];
        world_load_ok(&w, &bytes);
        umo_context *context = NULL;
        assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
        assert_true((umo_context_pressure(context) == NULL) == (i == 0));
        umo_context_default_release(context);
        job j;
        job_simple(&j, &bytes, 2, 100, 1);
        assert_true(world_execute(&w, &j, 1));
        job_expect_right(&j);
        job_finish(&j);
        world_unload(&w);
        world_finish(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_refused_while_memory_is_short_and_answered_again),
        cmocka_unit_test(options_that_cannot_be_are_named),
        cmocka_unit_test(pressure_can_be_off_and_have_a_threshold),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What a model shows on /metrics: what its scope, its pools and the process have counted, at once
 * or with the next look; and that a model that is reloaded goes on where it was.
 */
#include "world.h"

#include "kit/kit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static const model_plan bytes = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .unified = "{\"zero_copy_threshold\": 64}",
};

#define LENGTH 1000

static void execute_once(world *w, bool split)
{
    job j;
    job_start(&j, &bytes, 1, LENGTH, 1);
    job_input_own(&j, 0, false);
    if (split) {
        job_input_split(&j, 0);
    }
    job_want(&j, 0, NULL);
    assert_true(world_execute(w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
}

static kit_metrics *metrics_of(const world *w)
{
    const umo_model *model = w->model.state;
    return model->metrics;
}

static void value_expect(const char *family, const char *label, double value)
{
    double found = fake_metric(family, label);
    if (fabs(found - value) > 0.5) {
        fail_msg("%s{%s} is %.0f, not %.0f", family, label != NULL ? label : "", found, value);
    }
}

static void bytes_are_there_before_the_answer_and_events_after_a_look(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &bytes);
    execute_once(&w, true);
    execute_once(&w, true);
    value_expect("umo_copy_bytes_total", "direction=in,reason=scattered", 2 * LENGTH);
    value_expect("umo_copies_total", "reason=scattered", -1);
    (void)kit_metrics_refresh(metrics_of(&w));
    value_expect("umo_copies_total", "direction=in,reason=scattered", 2);
    value_expect("umo_copy_bytes_total", "direction=in,reason=scattered", 2 * LENGTH);
    value_expect("umo_copies_total", "reason=none", -1); /* what never was is not shown */
    world_unload(&w);
    world_finish(&w);
}

static void every_figure_is_the_counters_own(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    engine.device = world_device(0, true);
    world_load_ok(&w, &bytes);
    execute_once(&w, false);
    execute_once(&w, true);
    (void)kit_metrics_refresh(metrics_of(&w));
    umo_counters c;
    const umo_model *model = w.model.state;
    umo_scope_read(model->scope, &c);
    umo_pool_stats pools;
    umo_pools_read(model->scope, &pools);
    umo_access_summary buffers;
    umo_access_summarize(model->scope, &buffers);
    assert_true(c.allocated.events > 0 && c.imported.events > 0 && pools.misses > 0);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        const char *way = d == 0 ? "direction=host_to_device" : "direction=device_to_host";
        const char *side = d == 0 ? "direction=in" : "direction=out";
        value_expect("umo_transfer_bytes_total", way,
                     (double)(c.transfer_performed[d].bytes + c.transfer_eliminated[d].bytes));
        value_expect("umo_transfers_total", way,
                     (double)(c.transfer_performed[d].events + c.transfer_eliminated[d].events));
        value_expect("umo_copy_avoided_bytes_total", side, (double)c.copy_avoided[d].bytes);
        value_expect("umo_copies_avoided_total", side, (double)c.copy_avoided[d].events);
    }
    value_expect("umo_import_bytes_total", "cache=miss", (double)c.imported.bytes);
    value_expect("umo_imports_total", "cache=miss", (double)c.imported.events);
    value_expect("umo_imports_total", "cache=hit", (double)c.import_hits.events);
    value_expect("umo_allocated_bytes_total", NULL, (double)c.allocated.bytes);
    value_expect("umo_allocations_total", NULL, (double)c.allocated.events);
    value_expect("umo_moves_total", NULL, 0);
    value_expect("umo_live_bytes", NULL, (double)c.live_bytes);
    value_expect("umo_peak_bytes", NULL, (double)c.peak_bytes);
    value_expect("umo_live_buffers", NULL, (double)c.live_buffers);
    value_expect("umo_pool_bytes", "state=used", (double)pools.live_bytes);
    value_expect("umo_pool_bytes", "state=idle", (double)pools.kept_bytes);
    value_expect("umo_pool_bytes", NULL, (double)pools.reserved_bytes);
    value_expect("umo_pool_blocks_total", "memory=new", (double)pools.misses);
    value_expect("umo_pool_blocks_total", "memory=kept", (double)pools.hits);
    value_expect("umo_placement_bytes", NULL, (double)buffers.bytes);
    value_expect("umo_pattern_bytes", NULL, (double)buffers.bytes);
    value_expect("umo_placement_bytes", "mode=unified", (double)buffers.mode_bytes[UMO_UNIFIED]);
    world_unload(&w);
    world_finish(&w);
}

/* With every series there is, under the names that tell whose it is. */
static void every_series_names_its_model_version_and_backend(void **state)
{
    (void)state;
    static char text[65536];
    world w;
    world_start(&w);
    world_load_ok(&w, &bytes);
    execute_once(&w, true);
    (void)kit_metrics_refresh(metrics_of(&w));
    unsigned series = fake_metrics_print(text, sizeof text);
    assert_true(series >= 30);
    const char *at = text;
    for (unsigned i = 0; i < series; i++) {
        const char *labels = strstr(at, "{model=fake,version=3,backend=");
        const char *end = strchr(at, '\n');
        assert_non_null(end);
        assert_true(labels != NULL && labels < end);
        at = end + 1;
    }
    world_unload(&w);
    assert_int_equal(fake_metrics_print(text, sizeof text), 0);
    world_finish(&w);
}

/* The server loads a model anew before it lets go of the one before. */
static void a_model_that_is_reloaded_keeps_its_series(void **state)
{
    (void)state;
    world w;
    TRITONBACKEND_Model before;
    TRITONBACKEND_ModelInstance instance;
    char text[FAKE_TEXT_BYTES];
    world_start(&w);
    world_configure(&w, &bytes);
    assert_true(fake_model_load(&before, "fake", text));
    assert_true(fake_instance_load(&instance, &before, "fake_0", text));
    const umo_model *old = before.state;
    umo_scope_count_copy_avoided(old->scope, UMO_DIRECTION_IN, 5);
    (void)kit_metrics_refresh(old->metrics);
    world_load_ok(&w, &bytes);
    execute_once(&w, true);
    (void)kit_metrics_refresh(metrics_of(&w));
    assert_true(fake_instance_unload(&instance, text));
    assert_true(fake_model_unload(&before, text));
    value_expect("umo_copy_bytes_total", "direction=in,reason=scattered", LENGTH);
    execute_once(&w, true);
    value_expect("umo_copy_bytes_total", "direction=in,reason=scattered", 2 * LENGTH);
    assert_true(fake_metric("umo_copy_avoided_bytes_total", "direction=in") >= 5);
    umo_counters c = world_counters(&w);
    (void)kit_metrics_refresh(metrics_of(&w));
    value_expect("umo_live_bytes", NULL, (double)c.live_bytes);
    world_unload(&w);
    world_finish(&w);
}

/* What pools give back while nobody asks is seen, which no request would show. */
static void a_resting_model_is_looked_at_by_itself(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    kit_metrics_period_ns = 1;
    world_load_ok(&w, &bytes);
    execute_once(&w, true);
    const umo_model *model = w.model.state;
    double before = fake_metric("umo_live_bytes", NULL);
    assert_true(before > 0);
    (void)umo_pools_trim(umo_context_scope(w.context), 0);
    const struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
    umo_counters c;
    umo_scope_read(model->scope, &c);
    /* A look may have come in the middle of the trimming: the next one is right. */
    for (int i = 0; i < 500 && fake_metric("umo_live_bytes", NULL) != (double)c.live_bytes; i++) {
        (void)nanosleep(&moment, NULL);
    }
    value_expect("umo_live_bytes", NULL, (double)c.live_bytes);
    assert_true((double)c.live_bytes < before);
    assert_true(fake_metric("umo_copies_total", NULL) > 0);
    world_unload(&w);
    world_finish(&w);
}

static void a_counter_whose_source_starts_over_stays(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &bytes);
    execute_once(&w, true);
    (void)kit_metrics_refresh(metrics_of(&w));
    double before = fake_metric("umo_pool_blocks_total", NULL);
    assert_true(before > 0);
    /* An instance goes, and its pools' counts with it. */
    assert_true(fake_instance_unload(&w.instance, w.text));
    (void)kit_metrics_refresh(metrics_of(&w));
    value_expect("umo_pool_blocks_total", NULL, before);
    value_expect("umo_pool_bytes", NULL, 0);
    assert_true(fake_instance_load(&w.instance, &w.model, "fake_1", w.text));
    execute_once(&w, true);
    (void)kit_metrics_refresh(metrics_of(&w));
    assert_true(fake_metric("umo_pool_blocks_total", NULL) > before);
    world_unload(&w);
    world_finish(&w);
}

static void a_look_takes_little_of_the_time(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &bytes);
    (void)kit_metrics_refresh(metrics_of(&w)); /* makes the series */
    uint64_t start_ns = kit_now_ns();
    uint64_t rest_ns = kit_metrics_refresh(metrics_of(&w));
    uint64_t took_ns = kit_now_ns() - start_ns;
    assert_true(rest_ns >= UINT64_C(1000000000));
    assert_true(took_ns < UINT64_C(500000000));
    world_unload(&w);
    world_finish(&w);
}

static void a_server_without_metrics_is_served_all_the_same(void **state)
{
    (void)state;
    static const char *const missing[] = {"TRITONSERVER_MetricFamilyNew", "TRITONSERVER_MetricNew",
                                          "TRITONSERVER_MetricSet", "TRITONSERVER_MetricIncrement",
                                          "TRITONSERVER_ParameterNew"};
    for (size_t i = 0; i < sizeof missing / sizeof missing[0]; i++) {
        world w;
        world_start(&w);
        fake.fail_name = missing[i];
        world_load_ok(&w, &bytes);
        execute_once(&w, true);
        (void)kit_metrics_refresh(metrics_of(&w));
        fake.fail_name = NULL;
        execute_once(&w, true);
        (void)kit_metrics_refresh(metrics_of(&w));
        world_unload(&w);
        world_finish(&w);
    }
}

static void a_series_that_was_refused_at_first_lacks_nothing_later(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &bytes);
    fake.fail_name = "TRITONSERVER_MetricNew";
    execute_once(&w, true);
    fake.fail_name = NULL;
    execute_once(&w, true);
    value_expect("umo_copy_bytes_total", "direction=in,reason=scattered", 2 * LENGTH);
    world_unload(&w);
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_are_there_before_the_answer_and_events_after_a_look),
        cmocka_unit_test(every_figure_is_the_counters_own),
        cmocka_unit_test(every_series_names_its_model_version_and_backend),
        cmocka_unit_test(a_model_that_is_reloaded_keeps_its_series),
        cmocka_unit_test(a_resting_model_is_looked_at_by_itself),
        cmocka_unit_test(a_counter_whose_source_starts_over_stays),
        cmocka_unit_test(a_look_takes_little_of_the_time),
        cmocka_unit_test(a_server_without_metrics_is_served_all_the_same),
        cmocka_unit_test(a_series_that_was_refused_at_first_lacks_nothing_later),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}

/*
 * Regions that come and go while the kit keeps views of them and wraps inside those: what is read
 * is always what lies at the address now, and what is kept goes with the region.
 */
#include "world.h"

#include "os/pages_test.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define LENGTH ((size_t)5000)

static const model_plan bytes = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .unified = "{\"zero_copy_threshold\": 0}",
};

static const model_plan numbers = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_INT32, .dims = {1, {-1}}}},
};

static void world_begin(world *w, const model_plan *plan, bool on_device)
{
    world_start(w);
    if (on_device) {
        engine.device = world_device(100000, true);
    }
    world_load_ok(w, plan);
}

static void world_end(world *w)
{
    world_unload(w);
    world_finish(w);
}

/* One request in a region, input and output; the region stays the caller's. */
static void ask(world *w, fake_region *region, unsigned seed)
{
    job j;
    job_start(&j, w->plan, 1, (int64_t)LENGTH, seed);
    job_input_at(&j, 0, region->memory.data);
    job_want(&j, 0, region->memory.data + 2 * LENGTH);
    assert_true(world_execute(w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
}

static void an_address_that_comes_again_means_the_new_memory(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        world w;
        world_begin(&w, &bytes, on_device != 0);
        const char *previous = NULL;
        unsigned again = 0;
        for (unsigned i = 0; i < 8; i++) {
            fake_region *region = fake_region_create(4 * LENGTH, true, true);
            again += region->memory.data == previous ? 1 : 0;
            previous = region->memory.data;
            ask(&w, region, 2 * i);
            ask(&w, region, 2 * i + 1);
            fake_region_destroy(region);
        }
        assert_true(again > 0);
        umo_counters counters = world_counters(&w);
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            assert_int_equal(counters.copy_performed[UMO_DIRECTION_IN][r].bytes, 0);
            assert_int_equal(counters.copy_performed[UMO_DIRECTION_OUT][r].bytes, 0);
        }
        world_end(&w);
    }
}

static void what_was_kept_of_a_region_goes_with_it(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        world w;
        umo_registry_stats stats;
        world_begin(&w, &bytes, on_device != 0);
        umo_registry *registry = umo_context_registry(w.context);
        fake_region *region = fake_region_create(4 * LENGTH, true, true);
        ask(&w, region, 1);
        ask(&w, region, 2);
        umo_registry_read(registry, &stats);
        assert_int_equal(stats.views, 1);
        assert_int_equal(stats.wraps, on_device != 0 ? 2 : 0);
        assert_int_equal(umo_registry_sweep(registry), 0);
        fake_region_destroy(region);
        assert_int_equal(umo_registry_sweep(registry), 1);
        umo_registry_read(registry, &stats);
        assert_int_equal(stats.view_bytes, 0);
        assert_int_equal(stats.wraps, 0);
        world_end(&w);
    }
}

static char *client_page;

static void client_writes(umo_batch *batch)
{
    (void)batch;
    memset(client_page, 0xFF, pages_test_bytes());
}

/* A batch whose first request ends where a private page ends, and whose second lies in the shared
 * page behind it: together they are one run, half of which a client can still write to. */
static void a_run_over_two_mappings_is_not_trusted(void **state)
{
    (void)state;
    size_t page = pages_test_bytes();
    world w;
    job jobs[2];
    world_begin(&w, &numbers, false);
    char *pages =
        pages_test_map(2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(pages != MAP_FAILED);
    client_page = mmap(pages + page, page, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    assert_ptr_equal(client_page, pages + page);
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &numbers, 1, 100, i);
        job_input_at(&jobs[i], 0, i == 0 ? client_page - jobs[0].sizes[0] : client_page);
        job_want(&jobs[i], 0, NULL);
    }
    engine.between = client_writes;
    assert_true(world_execute(&w, jobs, 2));
    for (size_t i = 0; i < 2; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
    assert_int_equal(engine.batches, 1);
    (void)munmap(pages, 2 * page);
    world_end(&w);
}

static const model_plan strings = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
};

static _Atomic bool hostile_stops;

/* Puts right strings there and wrong ones, as fast as it can. */
static void *hostile_main(void *argument)
{
    const job *j = argument;
    volatile char *data = j->regions[0]->memory.data;
    while (!atomic_load(&hostile_stops)) {
        data[0] = (char)0xFF;
        data[3] = (char)0x7F;
        data[0] = j->contents[0][0];
        data[3] = j->contents[0][3];
    }
    return NULL;
}

/* A client that writes to its strings all the time may fail, and its batch too where clients are
 * trusted, but nobody gets a wrong answer, and nothing is read that is not the request's. */
static void a_client_that_never_stops_writing_harms_only_itself(void **state)
{
    (void)state;
    if (SANITIZED) {
        skip();
    }
    unsigned failed = 0;
    for (int trusted = 0; trusted < 2; trusted++) {
        world w;
        model_plan plan = strings;
        plan.unified = trusted != 0 ? "{\"trusted_clients\": true}" : NULL;
        world_begin(&w, &plan, false);
        for (unsigned turn = 0; turn < 150; turn++) {
            job jobs[2];
            pthread_t hostile;
            for (unsigned i = 0; i < 2; i++) {
                job_start(&jobs[i], &plan, 1, 2000, i + 1);
                job_want(&jobs[i], 0, NULL);
            }
            jobs[0].regions[jobs[0].region_count++] =
                fake_region_create(jobs[0].sizes[0], true, false);
            job_input_at(&jobs[0], 0, jobs[0].regions[0]->memory.data);
            job_input_own(&jobs[1], 0, false);
            atomic_store(&hostile_stops, false);
            assert_int_equal(pthread_create(&hostile, NULL, hostile_main, &jobs[0]), 0);
            assert_true(world_execute(&w, jobs, 2));
            atomic_store(&hostile_stops, true);
            assert_int_equal(pthread_join(hostile, NULL), 0);
            fake_request_expect_answered(jobs[0].request);
            failed += jobs[0].request->text[0] != '\0' ? 1 : 0;
            if (trusted == 0 || jobs[1].request->text[0] == '\0') {
                job_expect_right(&jobs[1]);
            }
            job_finish(&jobs[0]);
            job_finish(&jobs[1]);
        }
        world_end(&w);
    }
    print_message("%u of 300 failed\n", failed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_address_that_comes_again_means_the_new_memory),
        cmocka_unit_test(what_was_kept_of_a_region_goes_with_it),
        cmocka_unit_test(a_run_over_two_mappings_is_not_trusted),
        cmocka_unit_test(a_client_that_never_stops_writing_harms_only_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What the kit makes of the place where a tensor lies: a device that is not coherent, a system that
 * cannot say whose memory it is, an address that the engine cannot use.
 */
#include "world.h"

#include "driver/device.h"
#include "driver/wrapper_test.h"
#include "os/mapping_test.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <setjmp.h>

#include <cmocka.h>

static const model_plan plan_floats = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
    .unified = "{\"zero_copy_threshold\": 0}",
};

static const model_plan plan_indices = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_INT32, .dims = {1, {-1}}}},
    .unified = "{}",
};

static void ask(world *w, const model_plan *plan, bool shared, unsigned seed)
{
    job j;
    job_start(&j, plan, 1, 300, seed);
    job_input_own(&j, 0, shared);
    job_want(&j, 0, NULL);
    assert_true(world_execute(w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
}

static uint64_t copied(const world *w, umo_reason reason)
{
    return world_counters(w).copy_performed[UMO_DIRECTION_IN][reason].bytes;
}

static size_t waits_seen;

static void waits_look(umo_batch *batch)
{
    waits_seen = umo_batch_waits(batch)->count;
}

/* The bytes are still on their way to the device when the engine gets its input. */
static void an_engine_is_told_what_to_wait_for(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        world w;
        world_start(&w);
        const wrapper_switches switches = {.apart = true};
        const umo_driver_options options = {.delay_ns = 3000000, .test_mode = true};
        engine.device = wrapper_device(&switches, &options);
        assert_non_null(engine.device);
        engine.between = waits_look;
        world_load_ok(&w, &plan_floats);
        for (unsigned turn = 0; turn < 3; turn++) {
            waits_seen = 0;
            ask(&w, &plan_floats, shared != 0, turn);
            assert_true(waits_seen > 0);
        }
        world_unload(&w);
        world_finish(&w);
    }
}

/* Indices in memory that nobody can name may be a client's: they are copied once. */
static void memory_of_unknown_owners_is_not_trusted(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan_indices);
    ask(&w, &plan_indices, false, 1);
    assert_int_equal(copied(&w, UMO_REASON_CONTROL_DATA), 0);
    mapping_test_silent = true;
    ask(&w, &plan_indices, false, 2);
    mapping_test_silent = false;
    assert_int_equal(copied(&w, UMO_REASON_CONTROL_DATA), 300 * 4);
    ask(&w, &plan_indices, true, 3);
    assert_int_equal(copied(&w, UMO_REASON_CONTROL_DATA), 2 * 300 * 4);
    world_unload(&w);
    world_finish(&w);
}

static void an_address_that_the_engine_cannot_use_is_copied(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    world_load_ok(&w, &plan_floats);
    size_t count = 0;
    umo_model_inputs(w.model.state, &count)[0].align_bytes = 64;
    static _Alignas(64) char memory[64 + 300 * 4 + 64];
    for (size_t shift = 0; shift <= 64; shift += 4) {
        uint64_t before = copied(&w, UMO_REASON_MISALIGNED);
        job j;
        job_start(&j, &plan_floats, 1, 300, (unsigned)shift);
        job_input_at(&j, 0, memory + shift);
        job_want(&j, 0, NULL);
        assert_true(world_execute(&w, &j, 1));
        job_expect_right(&j);
        job_finish(&j);
        assert_int_equal(copied(&w, UMO_REASON_MISALIGNED) - before, shift % 64 == 0 ? 0 : 300 * 4);
    }
    world_unload(&w);
    world_finish(&w);
}

/* An allocator's memory is split where parts of it were treated differently; it stays one owner's.
 */
static void private_memory_in_several_mappings_is_used_where_it_lies(void **state)
{
    (void)state;
    size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
    char *memory =
        mmap(NULL, 4 * page_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(memory != MAP_FAILED);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)page_bytes), 0);
    assert_true(mmap(memory + page_bytes, page_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_FIXED, fileno(file), 0) != MAP_FAILED);
    world w;
    world_start(&w);
    world_load_ok(&w, &plan_indices);
    job j;
    job_start(&j, &plan_indices, 1, 300, 1);
    job_input_at(&j, 0, memory + page_bytes - 600); /* 1,200 bytes over the border */
    job_want(&j, 0, NULL);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    for (umo_reason r = 0; r < UMO_REASON_COUNT; r++) {
        assert_int_equal(copied(&w, r), 0);
    }
    /* Behind shared memory nobody vouches for what follows. */
    assert_true(mmap(memory + page_bytes, page_bytes, PROT_READ | PROT_WRITE,
                     MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    job_start(&j, &plan_indices, 1, 300, 2);
    job_input_at(&j, 0, memory + page_bytes - 600);
    job_want(&j, 0, NULL);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    assert_int_equal(copied(&w, UMO_REASON_CONTROL_DATA), 300 * 4);
    world_unload(&w);
    world_finish(&w);
    assert_int_equal(munmap(memory, 4 * page_bytes), 0);
    assert_int_equal(fclose(file), 0);
}

/* Two requests that do not touch are copied anyway: to where the pattern's side is fastest. The
 * device's figures are assumed ones, those of a card with memory of its own. */
static void a_pattern_chooses_the_memory_that_is_copied_to(void **state)
{
    (void)state;
    static const char *const patterns[] = {"cpu_dominant", "gpu_dominant"};
    assert_int_equal(setenv("UMO_CALIBRATION", "off", 1), 0);
    for (size_t p = 0; p < 2; p++) {
        char unified[256];
        (void)snprintf(unified, sizeof unified,
                       "{\"zero_copy_threshold\": 0, \"tensor_patterns\": ["
                       "{\"name\": \"INPUT0\", \"pattern\": \"%s\"}]}",
                       patterns[p]);
        model_plan plan = plan_floats;
        plan.unified = unified;
        world w;
        world_start(&w);
        const wrapper_switches switches = {.caps_off = UMO_CAP_HOST_PROCESSOR};
        engine.device = wrapper_device(&switches, NULL);
        assert_non_null(engine.device);
        engine.device->info.unified = false;
        world_load_ok(&w, &plan);
        enum {
            ROW = 100000
        };
        job jobs[2];
        for (unsigned i = 0; i < 2; i++) {
            job_start(&jobs[i], &plan, 1, ROW, i);
            job_input_own(&jobs[i], 0, false);
            job_want(&jobs[i], 0, NULL);
        }
        assert_true(world_execute(&w, jobs, 2));
        for (unsigned i = 0; i < 2; i++) {
            job_expect_right(&jobs[i]);
            job_finish(&jobs[i]);
        }
        umo_counters counters = world_counters(&w);
        uint64_t bytes = 2 * ROW * sizeof(float);
        assert_int_equal(counters.copy_performed[UMO_DIRECTION_IN][UMO_REASON_SCATTERED].bytes,
                         p == 0 ? bytes : 0);
        assert_int_equal(counters.transfer_performed[UMO_DIRECTION_IN].bytes, p == 0 ? 0 : bytes);
        world_unload(&w);
        world_finish(&w);
    }
    assert_int_equal(unsetenv("UMO_CALIBRATION"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_engine_is_told_what_to_wait_for),
        cmocka_unit_test(memory_of_unknown_owners_is_not_trusted),
        cmocka_unit_test(an_address_that_the_engine_cannot_use_is_copied),
        cmocka_unit_test(private_memory_in_several_mappings_is_used_where_it_lies),
        cmocka_unit_test(a_pattern_chooses_the_memory_that_is_copied_to),
    };
    return cmocka_run_group_tests_name("places", tests, NULL, NULL);
}

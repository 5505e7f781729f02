/*
 * Every call of Metal's that can fail fails once, on each kind of machine.
 */
#include "driver/metal/metal_scene_test.h"

#include <stdlib.h>

static void machine_unified(void)
{
    fake_metal_reset(NULL);
}

static void machine_late(void)
{
    fake_metal_options options = machine();
    options.fresh_garbage = true;
    options.delay_ns = 20000;
    options.late_ns = 50000;
    fake_metal_reset(&options);
}

/*
 * Plays the scene with its nth fallible call failing, for n = 1, 2, ... until there are fewer; then
 * with its nth command ending badly. How many of the failing calls did no harm has a limit: more
 * would be swallowed errors.
 */
static void sweep(void (*start)(void), const umo_driver_options *options, int64_t code,
                  umo_status command_status)
{
    scene s;
    unsigned tolerated = 0;
    scene_pages_make(&s);
    for (int what = 0; what < 2; what++) {
        for (uint32_t n = 1;; n++) {
            start();
            fake_metal_fail_code(code);
            if (what == 0) {
                fake_metal_fail_nth(n);
            } else {
                fake_metal_fail("commit", n);
            }
            umo_status status = scene_play(&s, options);
            bool reached = fake_metal_failed()[0] != '\0';
            bool command = strcmp(fake_metal_failed(), "commit") == 0;
            fake_metal_fail_nth(0);
            fake_metal_fail("commit", 0);
            scene_clear(&s);
            if (!reached) {
                assert_int_equal(status, UMO_OK);
                assert_true(n > (what == 0 ? 60 : 8));
                break;
            }
            if (command) {
                assert_int_equal(status, command_status);
            }
            tolerated += status == UMO_OK;
            /* What a failure left behind must not hurt the next. */
            if (n % 8 == 0) {
                assert_int_equal(scene_play(&s, options), UMO_OK);
                scene_clear(&s);
            }
        }
    }
    assert_in_range(tolerated, 1, 20);
    scene_pages_free(&s);
}

/* Without a heap there is a buffer, without a wrap staging memory, without a set colder memory. */
static void every_failing_call_is_reported_or_done_without(void **unused)
{
    (void)unused;
    sweep(machine_unified, &no_options, 1, UMO_E_DEVICE);
}

static void every_failing_call_is_reported_or_done_without_in_test_mode(void **unused)
{
    (void)unused;
    sweep(machine_unified, &test_mode, 1, UMO_E_DEVICE);
}

static void every_failing_call_is_reported_or_done_without_on_a_discrete_gpu(void **unused)
{
    (void)unused;
    sweep(machine_discrete, &test_mode, 1, UMO_E_DEVICE);
}

static void every_failing_call_is_reported_or_done_without_residency_sets(void **unused)
{
    (void)unused;
    assert_int_equal(setenv("UMO_METAL_RESIDENCY", "0", 1), 0);
    sweep(machine_unified, &no_options, 1, UMO_E_DEVICE);
    assert_int_equal(unsetenv("UMO_METAL_RESIDENCY"), 0);
}

static void a_command_that_finds_no_memory_says_so(void **unused)
{
    (void)unused;
    sweep(machine_late, &no_options, 8, UMO_E_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_failing_call_is_reported_or_done_without),
        TEST(every_failing_call_is_reported_or_done_without_in_test_mode),
        TEST(every_failing_call_is_reported_or_done_without_on_a_discrete_gpu),
        TEST(every_failing_call_is_reported_or_done_without_residency_sets),
        TEST(a_command_that_finds_no_memory_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * From how many bytes on memory is bound where it lies: what is measured agrees with a device whose
 * costs are known, and devices of tests keep the figure that nobody measured.
 */
#include "driver/wrapper_test.h"

#include "os/os.h"

#include <umo/placement.h>

#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include <cmocka.h>

#define DEFAULT_BYTES ((uint64_t)1 << 20)

static unsigned imports;

static void slow_import(void)
{
    imports++;
    uint64_t end_ns = umo_os_now_ns() + 60000; /* a copy of some 256 KB to 1 MB */
    while (umo_os_now_ns() < end_ns) {
    }
}

static void never_import(void)
{
    imports++;
#ifdef __SANITIZE_THREAD__
    (void)usleep(50000); /* whose copies are slow */
#else
    (void)usleep(20000); /* and those of a machine whose memory is busy */
#endif
}

static void count_import(void)
{
    imports++;
}

/* Each device of its own family is measured anew: by what it can. */
static umo_zero_copy measured(void (*importing)(void), uint32_t caps_off)
{
    const wrapper_switches switches = {.importing = importing, .caps_off = caps_off};
    umo_device *device = wrapper_device(&switches, NULL);
    assert_non_null(device);
    umo_zero_copy answer;
    umo_device_zero_copy(device, &answer);
    umo_device_release(device);
    return answer;
}

/* In an order in which no test finds the answer of another: the process remembers them. */
static void a_device_that_binds_slowly_gets_copies_of_what_is_small(void **state)
{
    (void)state;
    umo_zero_copy slow = measured(slow_import, 0);
    assert_true(slow.measured);
    assert_true(slow.import_bytes >= 64 << 10);
    assert_true(slow.import_bytes <= 4 << 20 || slow.import_bytes == UINT64_MAX);
    /* What is bound already is found again, whatever the binding cost. */
    assert_true(slow.cached_bytes <= 64 << 10);
    assert_true(slow.cached_bytes <= slow.import_bytes);
    unsigned before = imports;
    assert_true(before > 0);
    umo_zero_copy again = measured(never_import, 0);
    assert_int_equal(imports, before); /* known */
    assert_int_equal(again.import_bytes, slow.import_bytes);
}

static void a_device_that_never_wins_never_binds(void **state)
{
    (void)state;
    umo_zero_copy never = measured(never_import, UMO_CAP_KERNELS);
    assert_true(never.import_bytes == UINT64_MAX || !never.measured);
}

static void what_cannot_be_measured_keeps_the_default(void **state)
{
    (void)state;
    const wrapper_switches switches = {.importing = count_import};
    const umo_driver_options tests = {.test_mode = true};
    unsigned before = imports;
    umo_device *device = wrapper_device(&switches, &tests);
    umo_zero_copy answer;
    umo_device_zero_copy(device, &answer);
    assert_false(answer.measured);
    assert_int_equal(answer.import_bytes, DEFAULT_BYTES);
    assert_int_equal(answer.cached_bytes, DEFAULT_BYTES);
    umo_device_release(device);
    assert_int_equal(setenv("UMO_CALIBRATION", "off", 1), 0);
    device = wrapper_device(&switches, NULL);
    umo_device_zero_copy(device, &answer);
    assert_false(answer.measured);
    assert_int_equal(unsetenv("UMO_CALIBRATION"), 0);
    umo_device_release(device);
    assert_int_equal(imports, before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_that_binds_slowly_gets_copies_of_what_is_small),
        cmocka_unit_test(a_device_that_never_wins_never_binds),
        cmocka_unit_test(what_cannot_be_measured_keeps_the_default),
    };
    return cmocka_run_group_tests_name("zero_copy", tests, NULL, NULL);
}

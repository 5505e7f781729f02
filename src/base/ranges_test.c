/*
 * ranges against a plain array of bytes.
 */
#include "base/ranges.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void ranges_agree_with_an_array(void **state)
{
    (void)state;
    enum {
        SIZE = 61
    };
    unsigned seed = 7;
    for (int round = 0; round < 2000; round++) {
        umo_ranges ranges;
        unsigned char model[SIZE];
        umo_ranges_init(&ranges, SIZE, 0);
        memset(model, 0, sizeof model);
        for (int step = 0; step < 40; step++) {
            size_t offset = (size_t)rand_r(&seed) % SIZE;
            size_t size = 1 + (size_t)rand_r(&seed) % (SIZE - offset);
            uint32_t value = (uint32_t)rand_r(&seed) % 4;
            assert_true(umo_ranges_reserve(&ranges, 1));
            umo_ranges_set(&ranges, offset, size, value);
            memset(model + offset, (int)value, size);
            for (size_t i = 0; i < SIZE; i++) {
                assert_int_equal(ranges.items[umo_ranges_find(&ranges, i)].value, model[i]);
            }
            assert_int_equal(ranges.items[0].start, 0);
            for (size_t i = 1; i < ranges.count; i++) {
                assert_true(ranges.items[i - 1].start < ranges.items[i].start);
                assert_int_not_equal(ranges.items[i - 1].value, ranges.items[i].value);
                assert_int_equal(umo_ranges_end(&ranges, i - 1), ranges.items[i].start);
            }
            assert_int_equal(umo_ranges_end(&ranges, ranges.count - 1), SIZE);
        }
        umo_ranges_finish(&ranges);
    }
}

static void one_range_needs_no_allocation(void **state)
{
    (void)state;
    umo_ranges ranges;
    umo_ranges_init(&ranges, SIZE_MAX, 3);
    assert_true(umo_ranges_reserve(&ranges, 1));
    assert_ptr_equal(ranges.items, ranges.inline_items);
    umo_ranges_set(&ranges, 0, SIZE_MAX, 1);
    assert_int_equal(ranges.count, 1);
    umo_ranges_finish(&ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_agree_with_an_array),
        cmocka_unit_test(one_range_needs_no_allocation),
    };
    return cmocka_run_group_tests_name("ranges", tests, NULL, NULL);
}

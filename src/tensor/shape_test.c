/*
 * Shapes at their limits, and random ones against 128-bit arithmetic.
 */
#include "tensor/random_test.h"

#include <umo/tensor.h>

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SHAPE(...)                                                                                 \
    ((umo_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dims = {__VA_ARGS__}})
#define UNWRITTEN 0xabcdefu

static void assert_count(umo_shape shape, uint64_t expected)
{
    uint64_t count = UNWRITTEN;
    assert_int_equal(umo_shape_count(&shape, &count), UMO_OK);
    assert_true(count == expected);
}

static void assert_no_count(umo_shape shape)
{
    uint64_t count = UNWRITTEN;
    assert_int_equal(umo_shape_count(&shape, &count), UMO_E_INVAL);
    assert_int_equal(count, UNWRITTEN);
    assert_int_equal(umo_shape_bytes(&shape, UMO_UINT8, &count), UMO_E_INVAL);
    assert_int_equal(count, UNWRITTEN);
}

static void count_is_the_product(void **state)
{
    (void)state;
    assert_count((umo_shape){.rank = 0}, 1);
    assert_count(SHAPE(1), 1);
    assert_count(SHAPE(7), 7);
    assert_count(SHAPE(2, 3, 4), 24);
    umo_shape most = {.rank = UMO_RANK_MAX};
    for (uint32_t i = 0; i < UMO_RANK_MAX; i++) {
        most.dims[i] = i < 20 ? 2 : 1;
    }
    assert_count(most, 1u << 20);
}

static void count_ends_at_63_bits(void **state)
{
    (void)state;
    const uint64_t most = INT64_MAX;
    assert_count(SHAPE(INT64_MAX), most);
    assert_count(SHAPE(1, INT64_MAX, 1), most);
    /* 2^63 - 1 = 7 * 7 * 73 * 127 * 337 * 92737 * 649657 */
    assert_count(SHAPE(7, 7, 73, 127, 337, 92737, 649657), most);
    assert_count(SHAPE(INT64_C(1) << 31, INT64_C(1) << 31), UINT64_C(1) << 62);
    assert_no_count(SHAPE(INT64_C(1) << 31, INT64_C(1) << 32));
    assert_no_count(SHAPE(INT64_C(1) << 32, INT64_C(1) << 32));
    assert_no_count(SHAPE(INT64_MAX, 2));
    assert_no_count(SHAPE(2, INT64_MAX));
    assert_no_count(SHAPE(INT64_MAX, INT64_MAX));
    /* Products that come back into range when they wrap. */
    assert_no_count(SHAPE(INT64_C(1) << 32, INT64_C(1) << 32, 1));
    assert_no_count(SHAPE(INT64_C(1) << 62, 5));
    assert_no_count(SHAPE(INT64_C(6148914691236517206), 3));
}

static void zero_makes_empty_however_large_the_rest(void **state)
{
    (void)state;
    assert_count(SHAPE(0), 0);
    assert_count(SHAPE(0, 0), 0);
    assert_count(SHAPE(0, INT64_MAX, INT64_MAX), 0);
    assert_count(SHAPE(INT64_MAX, 0, INT64_MAX), 0);
    assert_count(SHAPE(INT64_MAX, INT64_MAX, 0), 0);
    uint64_t size_bytes = UNWRITTEN;
    umo_shape shape = SHAPE(INT64_MAX, INT64_MAX, 0);
    assert_int_equal(umo_shape_bytes(&shape, UMO_FP64, &size_bytes), UMO_OK);
    assert_int_equal(size_bytes, 0);
}

static void negative_is_never_a_size(void **state)
{
    (void)state;
    assert_no_count(SHAPE(-1));
    assert_no_count(SHAPE(INT64_MIN));
    assert_no_count(SHAPE(-1, -1));
    assert_no_count(SHAPE(2, -3, 4));
    /* Neither before nor behind a zero, nor behind an overflow. */
    assert_no_count(SHAPE(0, -1));
    assert_no_count(SHAPE(-1, 0));
    assert_no_count(SHAPE(INT64_MAX, INT64_MAX, -1));
}

static void rank_ends_at_32(void **state)
{
    (void)state;
    umo_shape shape = {.rank = UMO_RANK_MAX};
    for (uint32_t i = 0; i < UMO_RANK_MAX; i++) {
        shape.dims[i] = 1;
    }
    shape.dims[UMO_RANK_MAX - 1] = 9;
    assert_count(shape, 9);
    shape.rank = UMO_RANK_MAX + 1;
    assert_no_count(shape);
    shape.rank = UINT32_MAX;
    assert_no_count(shape);
}

static void bytes_end_at_63_bits(void **state)
{
    (void)state;
    for (int dtype = UMO_BOOL; dtype < UMO_DTYPES; dtype++) {
        const int64_t element_bytes = (int64_t)umo_dtype_size((umo_dtype)dtype);
        uint64_t size_bytes = UNWRITTEN;
        if (element_bytes == 0) {
            continue;
        }
        umo_shape shape = SHAPE(INT64_MAX / element_bytes);
        assert_int_equal(umo_shape_bytes(&shape, (umo_dtype)dtype, &size_bytes), UMO_OK);
        assert_true(size_bytes == (uint64_t)(INT64_MAX / element_bytes * element_bytes));
        if (element_bytes > 1) {
            shape.dims[0]++;
            size_bytes = UNWRITTEN;
            assert_int_equal(umo_shape_bytes(&shape, (umo_dtype)dtype, &size_bytes), UMO_E_INVAL);
            assert_int_equal(size_bytes, UNWRITTEN);
        }
        umo_shape scalar = {.rank = 0};
        assert_int_equal(umo_shape_bytes(&scalar, (umo_dtype)dtype, &size_bytes), UMO_OK);
        assert_int_equal(size_bytes, element_bytes);
    }
}

static void bytes_need_a_type_of_fixed_size(void **state)
{
    (void)state;
    const umo_dtype none[] = {UMO_BYTES, UMO_DTYPE_INVALID};
    uint64_t size_bytes = UNWRITTEN;
    umo_shape shape = SHAPE(2);
    umo_shape empty = SHAPE(0);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(umo_shape_bytes(&shape, none[i], &size_bytes), UMO_E_INVAL);
        assert_int_equal(umo_shape_bytes(&empty, none[i], &size_bytes), UMO_E_INVAL);
    }
    assert_int_equal(size_bytes, UNWRITTEN);
}

static void equal_looks_at_rank_and_dimensions_only(void **state)
{
    (void)state;
    umo_shape a = SHAPE(2, 3);
    umo_shape b = SHAPE(2, 3);
    b.dims[2] = 99;
    assert_true(umo_shape_equal(&a, &b));
    b.dims[1] = 4;
    assert_false(umo_shape_equal(&a, &b));
    b = SHAPE(2, 3, 1);
    assert_false(umo_shape_equal(&a, &b));
    b = SHAPE(3, 2);
    assert_false(umo_shape_equal(&a, &b));
    a = b = (umo_shape){.rank = 0};
    a.dims[0] = 5;
    assert_true(umo_shape_equal(&a, &b));
    /* No shape at all; reading its dimensions would leave the array. */
    a = b = (umo_shape){.rank = UMO_RANK_MAX + 1};
    assert_false(umo_shape_equal(&a, &b));
}

static void format_writes_what_fits(void **state)
{
    (void)state;
    char text[32];
    umo_shape shape = SHAPE(2, 3, 4);
    assert_ptr_equal(umo_shape_format(&shape, text, sizeof text), text);
    assert_string_equal(text, "[2,3,4]");
    shape = (umo_shape){.rank = 0};
    assert_string_equal(umo_shape_format(&shape, text, sizeof text), "[]");
    shape = SHAPE(-1);
    assert_string_equal(umo_shape_format(&shape, text, sizeof text), "[-1]");
    shape = (umo_shape){.rank = 33};
    assert_string_equal(umo_shape_format(&shape, text, sizeof text), "[rank 33]");

    /* Cut at every length: a prefix, ended by a zero, and nothing written behind it. */
    static const char whole[] = "[9223372036854775807,0,-5]";
    shape = SHAPE(INT64_MAX, 0, -5);
    for (size_t room = 0; room <= sizeof text; room++) {
        memset(text, 'x', sizeof text);
        (void)umo_shape_format(&shape, text, room);
        if (room > 0) {
            const size_t kept = room - 1 < sizeof whole - 1 ? room - 1 : sizeof whole - 1;
            assert_int_equal(strlen(text), kept);
            assert_memory_equal(text, whole, kept);
        }
        for (size_t i = room; i < sizeof text; i++) {
            assert_int_equal(text[i], 'x');
        }
    }
}

static void format_of_the_longest_shape_is_whole(void **state)
{
    (void)state;
    char text[UMO_RANK_MAX * 21 + 2];
    umo_shape shape = {.rank = UMO_RANK_MAX};
    for (uint32_t i = 0; i < UMO_RANK_MAX; i++) {
        shape.dims[i] = INT64_MIN;
    }
    (void)umo_shape_format(&shape, text, sizeof text);
    assert_int_equal(strlen(text), UMO_RANK_MAX * 21 + 1);
    assert_int_equal(text[strlen(text) - 1], ']');
}

__extension__ typedef unsigned __int128 uint128;

/* The plain model: false if there is a negative dimension or the exact product passes 2^63 - 1. */
static bool model_count(const umo_shape *shape, uint128 *out)
{
    uint128 product = 1;
    bool zero = false;
    bool over = false;
    for (uint32_t i = 0; i < shape->rank; i++) {
        if (shape->dims[i] < 0) {
            return false;
        }
        zero = zero || shape->dims[i] == 0;
        if (!over && shape->dims[i] > 0) {
            product *= (uint64_t)shape->dims[i];
            over = product > INT64_MAX;
        }
    }
    *out = zero ? 0 : product;
    return zero || !over;
}

static int64_t random_dim(uint64_t *seed)
{
    switch (random_below(seed, 16)) {
    case 0:
        return 0;
    case 1:
        return -(int64_t)random_below(seed, 3);
    case 2:
        return (int64_t)(random_next(seed) >> 1);
    case 3:
        return (int64_t)(UINT64_C(1) << random_below(seed, 63));
    case 4:
        return (int64_t)((UINT64_C(1) << random_below(seed, 63)) - 1);
    default:
        return (int64_t)(random_next(seed) >> (1 + random_below(seed, 63)) & 0xfff) + 1;
    }
}

static void random_shapes_agree_with_128_bit_arithmetic(void **state)
{
    (void)state;
    uint64_t seed = 1;
    unsigned good = 0;
    unsigned bad = 0;
    for (int round = 0; round < 200000; round++) {
        umo_shape shape = {.rank = (uint32_t)random_below(&seed, 9)};
        for (uint32_t i = 0; i < shape.rank; i++) {
            shape.dims[i] = random_dim(&seed);
        }
        const umo_dtype dtype = (umo_dtype)random_below(&seed, UMO_DTYPES);
        uint128 expected = 0;
        uint64_t count = UNWRITTEN;
        uint64_t size_bytes = UNWRITTEN;
        const bool counts = model_count(&shape, &expected);
        assert_int_equal(umo_shape_count(&shape, &count), counts ? UMO_OK : UMO_E_INVAL);
        assert_true(count == (counts ? (uint64_t)expected : UNWRITTEN));

        const uint128 expected_bytes = expected * umo_dtype_size(dtype);
        const bool fits = counts && umo_dtype_size(dtype) > 0 && expected_bytes <= INT64_MAX;
        assert_int_equal(umo_shape_bytes(&shape, dtype, &size_bytes), fits ? UMO_OK : UMO_E_INVAL);
        assert_true(size_bytes == (fits ? (uint64_t)expected_bytes : UNWRITTEN));
        good += fits;
        bad += !fits;
    }
    /* The generator reaches both verdicts often. */
    assert_true(good > 20000);
    assert_true(bad > 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(count_is_the_product),
        cmocka_unit_test(count_ends_at_63_bits),
        cmocka_unit_test(zero_makes_empty_however_large_the_rest),
        cmocka_unit_test(negative_is_never_a_size),
        cmocka_unit_test(rank_ends_at_32),
        cmocka_unit_test(bytes_end_at_63_bits),
        cmocka_unit_test(bytes_need_a_type_of_fixed_size),
        cmocka_unit_test(equal_looks_at_rank_and_dimensions_only),
        cmocka_unit_test(format_writes_what_fits),
        cmocka_unit_test(format_of_the_longest_shape_is_whole),
        cmocka_unit_test(random_shapes_agree_with_128_bit_arithmetic),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

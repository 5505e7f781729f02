/*
 * Element types against a second table, written from the model configuration's documentation.
 */
#include <umo/tensor.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

typedef struct expectation {
    umo_dtype dtype;
    const char *name;
    const char *config_name;
    size_t size_bytes;
    bool control;
} expectation;

static const expectation expectations[] = {
    {UMO_BOOL, "BOOL", "TYPE_BOOL", 1, true},        {UMO_UINT8, "UINT8", "TYPE_UINT8", 1, false},
    {UMO_UINT16, "UINT16", "TYPE_UINT16", 2, false}, {UMO_UINT32, "UINT32", "TYPE_UINT32", 4, true},
    {UMO_UINT64, "UINT64", "TYPE_UINT64", 8, true},  {UMO_INT8, "INT8", "TYPE_INT8", 1, false},
    {UMO_INT16, "INT16", "TYPE_INT16", 2, false},    {UMO_INT32, "INT32", "TYPE_INT32", 4, true},
    {UMO_INT64, "INT64", "TYPE_INT64", 8, true},     {UMO_FP16, "FP16", "TYPE_FP16", 2, false},
    {UMO_FP32, "FP32", "TYPE_FP32", 4, false},       {UMO_FP64, "FP64", "TYPE_FP64", 8, false},
    {UMO_BYTES, "BYTES", "TYPE_STRING", 0, true},    {UMO_BF16, "BF16", "TYPE_BF16", 2, false},
};

static void every_type_has_its_size_names_and_class(void **state)
{
    (void)state;
    const size_t count = sizeof expectations / sizeof expectations[0];
    assert_int_equal(count, UMO_DTYPES - 1);
    for (size_t i = 0; i < count; i++) {
        const expectation *e = &expectations[i];
        /* Triton's numbers are part of the ABI: 1 to 14 in this order. */
        assert_int_equal(e->dtype, i + 1);
        assert_int_equal(umo_dtype_size(e->dtype), e->size_bytes);
        assert_string_equal(umo_dtype_name(e->dtype), e->name);
        assert_int_equal(umo_dtype_parse(e->name), e->dtype);
        assert_int_equal(umo_dtype_parse(e->config_name), e->dtype);
        assert_int_equal(umo_dtype_is_control(e->dtype), e->control);
    }
    assert_int_equal(umo_dtype_parse("STRING"), UMO_BYTES);
    assert_int_equal(umo_dtype_parse("TYPE_BYTES"), UMO_BYTES);
}

static void what_is_no_type_is_invalid(void **state)
{
    (void)state;
    const char *const names[] = {"",     "INVALID", "TYPE_INVALID", "TYPE_",
                                 "fp32", "FP3",     "FP322",        "TYPE_TYPE_FP32",
                                 "TYPE", " FP32",   "FP32 ",        "TYPE_STRINGS"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        assert_int_equal(umo_dtype_parse(names[i]), UMO_DTYPE_INVALID);
    }
    assert_int_equal(umo_dtype_parse(NULL), UMO_DTYPE_INVALID);

    const int numbers[] = {0, UMO_DTYPES, UMO_DTYPES + 1, 255, -1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        /* Through memory, as a number from a wire gets into an enumeration. */
        umo_dtype dtype;
        memcpy(&dtype, &numbers[i], sizeof dtype);
        assert_int_equal(umo_dtype_size(dtype), 0);
        assert_string_equal(umo_dtype_name(dtype), "INVALID");
        assert_false(umo_dtype_is_control(dtype));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_its_size_names_and_class),
        cmocka_unit_test(what_is_no_type_is_invalid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

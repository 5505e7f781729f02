/*
 * Tensors over host memory and buffers; random slices of slices against plain index arithmetic.
 */
#include "tensor/random_test.h"

#include <umo/tensor.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SHAPE(...)                                                                                 \
    ((umo_shape){.rank = sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), .dims = {__VA_ARGS__}})

static umo_tensor make(void *data, size_t size_bytes, umo_dtype dtype, umo_shape shape)
{
    umo_tensor tensor;
    umo_error error = {0};
    if (umo_tensor_init(&tensor, data, size_bytes, dtype, &shape, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return tensor;
}

static void init_describes_packed_memory(void **state)
{
    (void)state;
    float data[24];
    umo_tensor tensor = make(data, sizeof data, UMO_FP32, SHAPE(2, 3, 4));
    assert_null(tensor.buffer);
    assert_ptr_equal(tensor.data, data);
    assert_int_equal(tensor.offset_bytes, 0);
    assert_int_equal(tensor.size_bytes, sizeof data);
    assert_int_equal(tensor.strides[0], 12);
    assert_int_equal(tensor.strides[1], 4);
    assert_int_equal(tensor.strides[2], 1);
    assert_true(umo_tensor_is_packed(&tensor));

    tensor = make(data, 4, UMO_FP32, (umo_shape){.rank = 0});
    assert_true(umo_tensor_is_packed(&tensor));

    umo_shape most = {.rank = UMO_RANK_MAX};
    for (uint32_t i = 0; i < UMO_RANK_MAX; i++) {
        most.dims[i] = 1;
    }
    tensor = make(data, 4, UMO_FP32, most);
    assert_int_equal(tensor.strides[0], 1);
}

static void init_refuses_what_does_not_match(void **state)
{
    (void)state;
    char data[64];
    umo_tensor tensor;
    umo_tensor before;
    memset(&tensor, 0x5a, sizeof tensor);
    memset(&before, 0x5a, sizeof before);
    const umo_shape shape = SHAPE(2, 3);
    const umo_shape negative = SHAPE(2, -3);
    const umo_shape huge = SHAPE(INT64_MAX);
    umo_shape deep = {.rank = 33};
    umo_error error = {0};

    assert_int_equal(umo_tensor_init(&tensor, data, 23, UMO_FP32, &shape, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "shape [2,3] of FP32 needs 24 bytes, but there are 23");
    assert_int_equal(umo_tensor_init(&tensor, data, 25, UMO_FP32, &shape, &error), UMO_E_INVAL);
    assert_int_equal(umo_tensor_init(&tensor, data, 0, UMO_FP32, &shape, &error), UMO_E_INVAL);
    assert_int_equal(umo_tensor_init(&tensor, data, 24, UMO_FP32, &negative, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "[2,-3]"));
    assert_int_equal(umo_tensor_init(&tensor, data, 24, UMO_BYTES, &negative, &error), UMO_E_INVAL);
    assert_int_equal(umo_tensor_init(&tensor, data, 24, UMO_FP32, &deep, &error), UMO_E_INVAL);
    assert_int_equal(umo_tensor_init(&tensor, data, 24, UMO_FP32, &huge, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "shape [9223372036854775807] of FP32 has too many bytes");
    assert_int_equal(umo_tensor_init(&tensor, data, 24, UMO_DTYPE_INVALID, &shape, &error),
                     UMO_E_INVAL);
    assert_string_equal(error.text, "element type 0 does not exist");
    assert_int_equal(umo_tensor_init(&tensor, data, 24, (umo_dtype)UMO_DTYPES, &shape, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_tensor_init(&tensor, NULL, 24, UMO_FP32, &shape, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "a tensor of 24 bytes has no memory");
    assert_memory_equal(&tensor, &before, sizeof tensor);
}

static void empty_tensors_need_no_memory(void **state)
{
    (void)state;
    umo_tensor tensor = make(NULL, 0, UMO_FP64, SHAPE(0, INT64_MAX, INT64_MAX));
    assert_true(umo_tensor_is_packed(&tensor));
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(tensor.strides[i], 0);
    }
    umo_tensor slice;
    assert_int_equal(umo_tensor_slice(&tensor, 1, INT64_MAX - 1, 1, &slice), UMO_OK);
    assert_int_equal(slice.size_bytes, 0);
    assert_null(slice.data);
}

static void bytes_take_any_size(void **state)
{
    (void)state;
    char data[64] = {0};
    umo_tensor tensor = make(data, 64, UMO_BYTES, SHAPE(3));
    assert_int_equal(tensor.size_bytes, 64);
    assert_true(umo_tensor_is_packed(&tensor));
    tensor = make(NULL, 0, UMO_BYTES, SHAPE(0));
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 0, &tensor), UMO_E_UNSUPPORTED);
}

static void packed_means_no_gaps(void **state)
{
    (void)state;
    int32_t data[24];
    umo_tensor tensor = make(data, sizeof data, UMO_INT32, SHAPE(2, 3, 4));
    tensor.strides[0] = 13;
    assert_false(umo_tensor_is_packed(&tensor));
    tensor.strides[0] = 12;
    tensor.strides[2] = 2;
    assert_false(umo_tensor_is_packed(&tensor));
    tensor.strides[2] = -1;
    assert_false(umo_tensor_is_packed(&tensor));
    tensor.strides[2] = 1;
    /* Transposed. */
    umo_tensor transposed = make(data, sizeof data, UMO_INT32, SHAPE(6, 4));
    transposed.strides[0] = 1;
    transposed.strides[1] = 6;
    assert_false(umo_tensor_is_packed(&transposed));
    /* The stride of a dimension of one says nothing. */
    tensor = make(data, sizeof data, UMO_INT32, SHAPE(6, 1, 4));
    tensor.strides[1] = 999;
    assert_true(umo_tensor_is_packed(&tensor));
    tensor.shape.rank = 33;
    assert_false(umo_tensor_is_packed(&tensor));
}

static void slice_moves_the_first_byte(void **state)
{
    (void)state;
    int32_t data[24];
    umo_tensor tensor = make(data, sizeof data, UMO_INT32, SHAPE(2, 3, 4));
    umo_tensor slice;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_OK);
    assert_ptr_equal(slice.data, data + 12);
    assert_int_equal(slice.offset_bytes, 48);
    assert_int_equal(slice.size_bytes, 48);
    assert_true(umo_tensor_is_packed(&slice));

    assert_int_equal(umo_tensor_slice(&tensor, 2, 1, 2, &slice), UMO_OK);
    assert_ptr_equal(slice.data, data + 1);
    assert_int_equal(slice.strides[1], 4);
    /* From the first element (1) to the last (22), both included. */
    assert_int_equal(slice.size_bytes, 22 * 4);
    assert_false(umo_tensor_is_packed(&slice));

    /* In place, and whole. */
    slice = tensor;
    assert_int_equal(umo_tensor_slice(&slice, 1, 0, 3, &slice), UMO_OK);
    assert_ptr_equal(slice.data, data);
    assert_int_equal(slice.size_bytes, sizeof data);
    assert_true(umo_shape_equal(&slice.shape, &tensor.shape));
}

static void slice_refuses_ranges_that_are_not_there(void **state)
{
    (void)state;
    int32_t data[24];
    umo_tensor tensor = make(data, sizeof data, UMO_INT32, SHAPE(2, 3, 4));
    umo_tensor slice;
    umo_tensor before;
    memset(&slice, 0x5a, sizeof slice);
    memset(&before, 0x5a, sizeof before);
    const int64_t bad[][2] = {{-1, 1},
                              {0, -1},
                              {0, 4},
                              {3, 1},
                              {4, 0},
                              {1, 3},
                              {INT64_MAX, 1},
                              {1, INT64_MAX},
                              {INT64_MIN, 0},
                              {0, INT64_MIN},
                              {INT64_MAX, INT64_MAX}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(umo_tensor_slice(&tensor, 1, bad[i][0], bad[i][1], &slice), UMO_E_INVAL);
    }
    assert_int_equal(umo_tensor_slice(&tensor, 3, 0, 1, &slice), UMO_E_INVAL);
    assert_int_equal(umo_tensor_slice(&tensor, UINT32_MAX, 0, 1, &slice), UMO_E_INVAL);
    umo_tensor scalar = make(data, 4, UMO_INT32, (umo_shape){.rank = 0});
    assert_int_equal(umo_tensor_slice(&scalar, 0, 0, 1, &slice), UMO_E_INVAL);
    assert_memory_equal(&slice, &before, sizeof slice);
}

static void empty_slices_do_not_leave_the_memory(void **state)
{
    (void)state;
    int32_t data[24];
    umo_tensor tensor = make(data, sizeof data, UMO_INT32, SHAPE(2, 3, 4));
    umo_tensor slice;
    for (int64_t start = 0; start <= 3; start++) {
        assert_int_equal(umo_tensor_slice(&tensor, 1, start, 0, &slice), UMO_OK);
        assert_ptr_equal(slice.data, data);
        assert_int_equal(slice.offset_bytes, 0);
        assert_int_equal(slice.size_bytes, 0);
        assert_int_equal(slice.shape.dims[1], 0);
        assert_true(umo_tensor_is_packed(&slice));
    }
}

static void slice_trusts_no_hand_made_tensor(void **state)
{
    (void)state;
    int32_t data[24];
    const umo_tensor good = make(data, sizeof data, UMO_INT32, SHAPE(2, 3, 4));
    umo_tensor slice;

    umo_tensor tensor = good;
    tensor.size_bytes = 95; /* the last element is cut */
    assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_E_INVAL);
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 1, &slice), UMO_OK);

    const int64_t strides[] = {-1, INT64_MIN, INT64_MAX, INT64_MAX / 2, INT64_MAX / 4, 13};
    for (size_t i = 0; i < sizeof strides / sizeof strides[0]; i++) {
        tensor = good;
        tensor.strides[0] = strides[i];
        assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_E_INVAL);
        assert_int_equal(umo_tensor_slice(&tensor, 1, 0, 3, &slice), UMO_E_INVAL);
    }
    /* A broadcast: the memory would bear the range, the dimension does not. */
    tensor = good;
    tensor.strides[1] = 0;
    assert_int_equal(umo_tensor_slice(&tensor, 1, 1, 2, &slice), UMO_OK);
    assert_int_equal(umo_tensor_slice(&tensor, 1, 1, 3, &slice), UMO_E_INVAL);
    assert_int_equal(umo_tensor_slice(&tensor, 1, 4, 0, &slice), UMO_E_INVAL);
    tensor = good;
    tensor.offset_bytes = SIZE_MAX - 47;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_E_INVAL);
    tensor = good;
    tensor.shape.rank = 33;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 1, &slice), UMO_E_INVAL);
    tensor = good;
    tensor.dtype = UMO_DTYPE_INVALID;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 1, &slice), UMO_E_INVAL);
}

/* Each product or sum here comes back to a small number when it wraps. */
static void slice_is_not_fooled_by_strides_that_wrap(void **state)
{
    (void)state;
    const int64_t quarter = INT64_C(1) << 62;
    int32_t data[24];
    umo_tensor slice;
    /* 4 * 2^62 elements to the first one. */
    umo_tensor tensor = make(data, 20, UMO_INT32, SHAPE(5));
    tensor.strides[0] = quarter;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 4, 1, &slice), UMO_E_INVAL);
    /* 2^62 elements of 4 bytes to the first one. */
    assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_E_INVAL);
    /* 4 * 2^62 elements from the first to the last. */
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 5, &slice), UMO_E_INVAL);
    /* 2^62 elements of 4 bytes from the first to the last. */
    assert_int_equal(umo_tensor_slice(&tensor, 0, 0, 2, &slice), UMO_E_INVAL);
    /* Four dimensions with 2^62 elements each. */
    tensor = make(data, 64, UMO_INT32, SHAPE(2, 2, 2, 2, 1));
    for (uint32_t i = 0; i < 4; i++) {
        tensor.strides[i] = quarter;
    }
    assert_int_equal(umo_tensor_slice(&tensor, 4, 0, 1, &slice), UMO_E_INVAL);
}

#define RANK 4u

/* One step through all indices of a shape; false after the last. */
static bool index_next(int64_t index[RANK], const umo_shape *shape)
{
    for (uint32_t i = shape->rank; i-- > 0;) {
        if (++index[i] < shape->dims[i]) {
            return true;
        }
        index[i] = 0;
    }
    return false;
}

/* Compares a slice with the model: each element holds its place in the whole, which starts and
 * shape predict. */
static void assert_elements(const umo_tensor *slice, const umo_shape *whole,
                            const int64_t starts[RANK])
{
    int64_t index[RANK] = {0};
    int64_t lowest = INT64_MAX;
    int64_t highest = -1;
    int64_t before = -1;
    bool packed = true;
    do {
        int64_t expected = 0;
        int64_t step = 0;
        for (uint32_t i = 0; i < whole->rank; i++) {
            expected = expected * whole->dims[i] + starts[i] + index[i];
            step += index[i] * slice->strides[i];
        }
        assert_int_equal(((const int32_t *)slice->data)[step], expected);
        packed = packed && (before < 0 || expected == before + 1);
        before = expected;
        lowest = expected < lowest ? expected : lowest;
        highest = expected > highest ? expected : highest;
    } while (index_next(index, &slice->shape));
    assert_int_equal(slice->offset_bytes, lowest * 4);
    assert_int_equal(slice->size_bytes, (highest - lowest + 1) * 4);
    assert_int_equal(umo_tensor_is_packed(slice), packed);
}

static void random_slices_agree_with_index_arithmetic(void **state)
{
    (void)state;
    uint64_t seed = 3;
    for (int round = 0; round < 5000; round++) {
        umo_shape shape = {.rank = 1 + (uint32_t)random_below(&seed, RANK)};
        size_t count = 1;
        for (uint32_t i = 0; i < shape.rank; i++) {
            shape.dims[i] = 1 + (int64_t)random_below(&seed, 5);
            count *= (size_t)shape.dims[i];
        }
        int32_t *data = malloc(count * sizeof *data); /* exact: a sanitizer sees a step outside */
        assert_non_null(data);
        for (size_t i = 0; i < count; i++) {
            data[i] = (int32_t)i;
        }
        umo_tensor tensor = make(data, count * sizeof *data, UMO_INT32, shape);
        int64_t starts[RANK] = {0};
        assert_elements(&tensor, &shape, starts);
        for (int step = 0; step < 4; step++) {
            const uint32_t dim = (uint32_t)random_below(&seed, shape.rank);
            const int64_t length =
                1 + (int64_t)random_below(&seed, (uint64_t)tensor.shape.dims[dim]);
            const int64_t start =
                (int64_t)random_below(&seed, (uint64_t)(tensor.shape.dims[dim] - length + 1));
            assert_int_equal(umo_tensor_slice(&tensor, dim, start, length, &tensor), UMO_OK);
            starts[dim] += start;
            assert_int_equal(tensor.shape.dims[dim], length);
            assert_elements(&tensor, &shape, starts);
        }
        free(data);
    }
}

static void buffer_tensor_lies_inside_the_buffer(void **state)
{
    (void)state;
    umo_device *device = NULL;
    umo_scope *scope = NULL;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    assert_int_equal(umo_device_open("host", 0, NULL, &device, &error), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "test", 0, &scope, &error), UMO_OK);
    assert_int_equal(umo_buffer_alloc(device, scope, 100, UMO_UNIFIED, &buffer, &error), UMO_OK);
    const umo_shape shape = SHAPE(2, 3);
    umo_tensor tensor;
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 76, 24, UMO_FP32, &shape, &error),
                     UMO_OK);
    assert_ptr_equal(tensor.buffer, buffer);
    assert_ptr_equal(tensor.data, (char *)umo_buffer_host(buffer) + 76);
    assert_int_equal(tensor.offset_bytes, 76);
    umo_tensor slice;
    assert_int_equal(umo_tensor_slice(&tensor, 0, 1, 1, &slice), UMO_OK);
    assert_int_equal(slice.offset_bytes, 88);
    assert_ptr_equal(slice.buffer, buffer);

    umo_tensor before;
    memcpy(&before, &tensor, sizeof before);
    const size_t bad[] = {77, 100, 101, SIZE_MAX, SIZE_MAX - 23};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(
            umo_tensor_init_buffer(&tensor, buffer, bad[i], 24, UMO_FP32, &shape, &error),
            UMO_E_INVAL);
    }
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 77, 24, UMO_FP32, &shape, &error),
                     UMO_E_INVAL);
    assert_string_equal(error.text, "24 bytes at offset 77 do not lie in a buffer of 100 bytes");
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 0, 23, UMO_FP32, &shape, &error),
                     UMO_E_INVAL);
    assert_memory_equal(&tensor, &before, sizeof tensor);

    const umo_shape empty = SHAPE(0);
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 100, 0, UMO_FP32, &empty, &error),
                     UMO_OK);
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 101, 0, UMO_FP32, &empty, &error),
                     UMO_E_INVAL);
    umo_buffer_release(buffer);
    umo_scope_destroy(scope);
    umo_device_release(device);
}

static void private_memory_has_no_host_address(void **state)
{
    (void)state;
    umo_device *device = NULL;
    umo_scope *scope = NULL;
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    assert_int_equal(umo_device_open("host", 0, NULL, &device, &error), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "test", 0, &scope, &error), UMO_OK);
    assert_int_equal(umo_buffer_alloc(device, scope, 100, UMO_PRIVATE, &buffer, &error), UMO_OK);
    const umo_shape shape = SHAPE(4, 5);
    umo_tensor tensor;
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 20, 80, UMO_FP32, &shape, &error),
                     UMO_OK);
    assert_null(tensor.data);
    assert_int_equal(umo_tensor_slice(&tensor, 0, 2, 2, &tensor), UMO_OK);
    assert_null(tensor.data);
    assert_int_equal(tensor.offset_bytes, 60);
    umo_buffer_release(buffer);
    umo_scope_destroy(scope);
    umo_device_release(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(init_describes_packed_memory),
        cmocka_unit_test(init_refuses_what_does_not_match),
        cmocka_unit_test(empty_tensors_need_no_memory),
        cmocka_unit_test(bytes_take_any_size),
        cmocka_unit_test(packed_means_no_gaps),
        cmocka_unit_test(slice_moves_the_first_byte),
        cmocka_unit_test(slice_refuses_ranges_that_are_not_there),
        cmocka_unit_test(empty_slices_do_not_leave_the_memory),
        cmocka_unit_test(slice_trusts_no_hand_made_tensor),
        cmocka_unit_test(slice_is_not_fooled_by_strides_that_wrap),
        cmocka_unit_test(random_slices_agree_with_index_arithmetic),
        cmocka_unit_test(buffer_tensor_lies_inside_the_buffer),
        cmocka_unit_test(private_memory_has_no_host_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The BYTES parser, on memory that ends where an unreadable page begins: one byte read too many is
 * a crash, with or without a sanitizer.
 */
#include "os/pages_test.h"
#include "tensor/random_test.h"

#include <umo/tensor.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define ROOM_BYTES 4096u

/* End of the readable memory; tensors are placed right before it. */
static unsigned char *edge;

static int edge_create(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    const size_t room = ROOM_BYTES > page ? ROOM_BYTES : page;
    unsigned char *memory =
        pages_test_map(room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory + room, page, PROT_NONE) != 0) {
        return -1;
    }
    edge = memory + room;
    return 0;
}

/* A copy whose last byte is the last readable one. */
static const unsigned char *at_edge(const void *data, size_t size_bytes)
{
    assert_true(size_bytes <= ROOM_BYTES);
    if (size_bytes > 0) {
        memcpy(edge - size_bytes, data, size_bytes);
    }
    return edge - size_bytes;
}

static size_t put(unsigned char *tensor, size_t used, const void *element, uint32_t length)
{
    for (unsigned i = 0; i < 4; i++) {
        tensor[used++] = (unsigned char)(length >> (8 * i));
    }
    if (length > 0) {
        memcpy(tensor + used, element, length);
    }
    return used + length;
}

static const uint32_t sample_lengths[] = {5, 0, 1, 300, 4, 3, 0};
#define SAMPLE_COUNT (sizeof sample_lengths / sizeof sample_lengths[0])

/* Elements of all kinds of length; the filling could be taken for lengths itself. */
static size_t sample_make(unsigned char tensor[ROOM_BYTES])
{
    unsigned char element[300];
    size_t used = 0;
    memset(element, 1, sizeof element);
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        used = put(tensor, used, element, sample_lengths[i]);
    }
    return used;
}

static void next_gives_every_element_where_it_lies(void **state)
{
    (void)state;
    unsigned char tensor[ROOM_BYTES];
    const size_t size = sample_make(tensor);
    const unsigned char *data = at_edge(tensor, size);
    size_t cursor = 0;
    size_t expected = 0;
    const void *element = NULL;
    size_t element_bytes = 0;
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        assert_int_equal(umo_bytes_next(data, size, &cursor, &element, &element_bytes), UMO_OK);
        assert_ptr_equal(element, data + expected + 4);
        assert_int_equal(element_bytes, sample_lengths[i]);
        expected += 4 + sample_lengths[i];
        assert_int_equal(cursor, expected);
    }
    assert_int_equal(cursor, size);
    element = tensor;
    assert_int_equal(umo_bytes_next(data, size, &cursor, &element, &element_bytes),
                     UMO_E_NOT_FOUND);
    assert_int_equal(cursor, size);
    assert_ptr_equal(element, tensor);
    assert_int_equal(umo_bytes_check(data, size, SAMPLE_COUNT, NULL), UMO_OK);
}

static void length_is_little_endian(void **state)
{
    (void)state;
    unsigned char tensor[4 + 258] = {2, 1, 0, 0};
    const unsigned char *data = at_edge(tensor, sizeof tensor);
    size_t cursor = 0;
    const void *element;
    size_t element_bytes;
    assert_int_equal(umo_bytes_next(data, sizeof tensor, &cursor, &element, &element_bytes),
                     UMO_OK);
    assert_int_equal(element_bytes, 258);
}

static void no_memory_holds_no_element(void **state)
{
    (void)state;
    size_t cursor = 0;
    const void *element;
    size_t element_bytes;
    umo_error error = {0};
    assert_int_equal(umo_bytes_next(NULL, 0, &cursor, &element, &element_bytes), UMO_E_NOT_FOUND);
    assert_int_equal(umo_bytes_next(NULL, 8, &cursor, &element, &element_bytes), UMO_E_INVAL);
    assert_int_equal(umo_bytes_check(NULL, 0, 0, &error), UMO_OK);
    assert_int_equal(error.status, UMO_OK);
    assert_int_equal(umo_bytes_check(NULL, 0, 1, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "the BYTES tensor holds 0 of 1 elements");
}

static void cursor_behind_the_end_is_refused(void **state)
{
    (void)state;
    unsigned char tensor[8] = {0};
    size_t cursor = 9;
    const void *element;
    size_t element_bytes;
    assert_int_equal(umo_bytes_next(tensor, 8, &cursor, &element, &element_bytes), UMO_E_INVAL);
    cursor = SIZE_MAX;
    assert_int_equal(umo_bytes_next(tensor, 8, &cursor, &element, &element_bytes), UMO_E_INVAL);
    assert_true(cursor == SIZE_MAX);
}

static void lengths_past_the_end_are_refused(void **state)
{
    (void)state;
    const uint32_t lengths[] = {7,          8,          255,        0x7fffffff,
                                0x80000000, 0xfffffffb, 0xfffffffc, 0xffffffff};
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        unsigned char tensor[10] = {0};
        for (unsigned byte = 0; byte < 4; byte++) {
            tensor[byte] = (unsigned char)(lengths[i] >> (8 * byte));
        }
        const unsigned char *data = at_edge(tensor, sizeof tensor);
        size_t cursor = 0;
        const void *element = tensor;
        size_t element_bytes = 77;
        assert_int_equal(umo_bytes_next(data, sizeof tensor, &cursor, &element, &element_bytes),
                         UMO_E_INVAL);
        assert_int_equal(cursor, 0);
        assert_ptr_equal(element, tensor);
        assert_int_equal(element_bytes, 77);
    }
}

static void cut_at_every_byte_is_noticed(void **state)
{
    (void)state;
    unsigned char tensor[ROOM_BYTES];
    const size_t size = sample_make(tensor);
    size_t ends[SAMPLE_COUNT + 1] = {0};
    for (size_t i = 0; i < SAMPLE_COUNT; i++) {
        ends[i + 1] = ends[i] + 4 + sample_lengths[i];
    }
    for (size_t cut = 0; cut < size; cut++) {
        const unsigned char *data = at_edge(tensor, cut);
        umo_error error = {0};
        assert_int_equal(umo_bytes_check(data, cut, SAMPLE_COUNT, &error), UMO_E_INVAL);
        assert_int_equal(error.status, UMO_E_INVAL);
        size_t whole = 0;
        while (ends[whole + 1] <= cut) {
            whole++;
        }
        /* The whole elements in front are still a good tensor, if the cut is right behind one. */
        assert_int_equal(umo_bytes_check(data, cut, whole, NULL),
                         ends[whole] == cut ? UMO_OK : UMO_E_INVAL);
        const char *expected = ends[whole] == cut ? "holds" : "runs past";
        assert_non_null(strstr(error.text, expected));
    }
}

static void check_wants_exactly_count_elements(void **state)
{
    (void)state;
    unsigned char tensor[ROOM_BYTES];
    const size_t size = sample_make(tensor);
    umo_error error = {0};
    for (uint64_t count = 0; count < SAMPLE_COUNT + 3; count++) {
        assert_int_equal(umo_bytes_check(tensor, size, count, &error),
                         count == SAMPLE_COUNT ? UMO_OK : UMO_E_INVAL);
    }
    assert_int_equal(umo_bytes_check(tensor, size, UINT64_MAX, &error), UMO_E_INVAL);
    assert_int_equal(umo_bytes_check(tensor, size, SAMPLE_COUNT - 1, &error), UMO_E_INVAL);
    assert_string_equal(error.text, "the BYTES tensor has 4 bytes behind its 6 elements");
    for (size_t extra = 1; extra < 6; extra++) {
        memset(tensor + size, 0, extra);
        assert_int_equal(umo_bytes_check(tensor, size + extra, SAMPLE_COUNT, NULL), UMO_E_INVAL);
    }
    assert_int_equal(umo_bytes_check(tensor, size + 4, SAMPLE_COUNT + 1, NULL), UMO_OK);
}

/* The plain model: how many elements, or -1 if the last one is not whole. Offsets are 64 bits,
 * lengths 32. */
static int model_count(const unsigned char *data, size_t size_bytes)
{
    uint64_t at = 0;
    int count = 0;
    while (at < size_bytes) {
        if (at + 4 > size_bytes) {
            return -1;
        }
        uint64_t length = 0;
        for (unsigned byte = 0; byte < 4; byte++) {
            length += (uint64_t)data[at + byte] << (8 * byte);
        }
        at += 4 + length;
        count++;
        if (at > size_bytes) {
            return -1;
        }
    }
    return count;
}

static size_t mutate(unsigned char *tensor, size_t size, uint64_t *seed)
{
    const size_t at = (size_t)random_below(seed, size + 1);
    switch (random_below(seed, 6)) {
    case 0: /* one bit */
        if (at < size) {
            tensor[at] ^= (unsigned char)(1u << random_below(seed, 8));
        }
        return size;
    case 1: /* one byte */
        if (at < size) {
            tensor[at] = (unsigned char)random_next(seed);
        }
        return size;
    case 2: /* shorter */
        return at;
    case 3: /* longer */
        tensor[size] = (unsigned char)random_below(seed, 3);
        return size + 1;
    case 4: /* a piece taken out */
        if (at < size) {
            memmove(tensor + at, tensor + at + 1, size - at - 1);
            return size - 1;
        }
        return size;
    default: /* a small or an enormous length put in */
        memmove(tensor + at + 4, tensor + at, size - at);
        memset(tensor + at, random_below(seed, 2) == 0 ? 0 : 0xff, 4);
        return size + 4;
    }
}

static void mutated_tensors_agree_with_the_model(void **state)
{
    (void)state;
    uint64_t seed = 2;
    unsigned good = 0;
    unsigned bad = 0;
    for (int round = 0; round < 100000; round++) {
        unsigned char tensor[256];
        const unsigned char filling[16] = {0};
        size_t size = 0;
        const uint64_t elements = random_below(&seed, 5);
        for (uint64_t i = 0; i < elements; i++) {
            size = put(tensor, size, filling, (uint32_t)random_below(&seed, sizeof filling));
        }
        const uint64_t mutations = random_below(&seed, 4);
        for (uint64_t i = 0; i < mutations; i++) {
            size = mutate(tensor, size, &seed);
        }
        const unsigned char *data = at_edge(tensor, size);
        const int expected = model_count(data, size);
        size_t cursor = 0;
        size_t seen_bytes = 0;
        int count = 0;
        umo_status status;
        const void *element;
        size_t element_bytes;
        while ((status = umo_bytes_next(data, size, &cursor, &element, &element_bytes)) == UMO_OK) {
            assert_ptr_equal(element, data + seen_bytes + 4);
            seen_bytes += 4 + element_bytes;
            assert_int_equal(cursor, seen_bytes);
            count++;
        }
        assert_int_equal(status, expected < 0 ? UMO_E_INVAL : UMO_E_NOT_FOUND);
        if (expected >= 0) {
            assert_int_equal(count, expected);
        }
        const uint64_t wanted = random_below(&seed, 6);
        assert_int_equal(umo_bytes_check(data, size, wanted, NULL),
                         expected >= 0 && (uint64_t)expected == wanted ? UMO_OK : UMO_E_INVAL);
        good += expected >= 0;
        bad += expected < 0;
    }
    assert_true(good > 20000);
    assert_true(bad > 20000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(next_gives_every_element_where_it_lies),
        cmocka_unit_test(length_is_little_endian),
        cmocka_unit_test(no_memory_holds_no_element),
        cmocka_unit_test(cursor_behind_the_end_is_refused),
        cmocka_unit_test(lengths_past_the_end_are_refused),
        cmocka_unit_test(cut_at_every_byte_is_noticed),
        cmocka_unit_test(check_wants_exactly_count_elements),
        cmocka_unit_test(mutated_tensors_agree_with_the_model),
    };
    return cmocka_run_group_tests(tests, edge_create, NULL);
}

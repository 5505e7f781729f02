/*
 * The contract of imports: memory that somebody else owns is used where it lies, nothing beside it
 * is touched, and its owner hears when the last use is over.
 */
#include "contract.h"

#include <stdatomic.h>
#include <stdlib.h>

/* Pages of a test's own, as an engine or a client would have them. */
static unsigned char *pages_take(size_t page, size_t count)
{
    unsigned char *pages = aligned_alloc(page, count * page);
    assert_non_null(pages);
    return pages;
}

/* True when the device promises to take any address and length. */
static bool takes_anything(const contract *c)
{
    return c->info->import_align_bytes == 1 && c->info->import_size_align_bytes == 1 &&
           c->info->write_granule_bytes == 1;
}

static bool import_or_reason(contract *c, const umo_import *import, umo_buffer **out)
{
    umo_reason why = UMO_REASON_COUNT;
    umo_error error = {0};
    umo_status status = umo_buffer_import(c->device, c->scope, import, out, &why, &error);
    if (status == UMO_OK) {
        assert_int_equal(why, UMO_REASON_NONE);
        return true;
    }
    assert_int_equal(status, UMO_E_REFUSED);
    assert_int_not_equal(why, UMO_REASON_NONE);
    assert_true(why < UMO_REASON_COUNT);
    assert_int_not_equal(error.text[0], '\0');
    assert_false(takes_anything(c));
    return false;
}

static const size_t places[][2] = {
    /* offset from a page, length in bytes beyond whole pages' count given by the test */
    {0, 1},    {0, 4096}, {0, 12288}, {1, 1},    {1, 5000},
    {3, 4093}, {64, 64},  {77, 4019}, {4095, 2}, {4000, 8192},
};

static void the_device_reads_memory_where_it_lies(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_READ) == 0) {
        skip();
    }
    unsigned char *pages = pages_take(c->page, 5);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const umo_import import = {.data = pages + places[i][0], .size_bytes = places[i][1]};
        umo_buffer *in = NULL;
        contract_pattern(pages, 5 * c->page, (unsigned)i);
        if (!import_or_reason(c, &import, &in)) {
            continue;
        }
        assert_int_equal(umo_buffer_size(in), import.size_bytes);
        assert_int_equal(umo_buffer_valid(in, 0, import.size_bytes), UMO_SIDE_HOST);
        const umo_counters before = contract_counters(c);
        assert_int_equal(before.live_bytes, 0);
        for (int m = 0; contract_mode(c, &m); m++) {
            umo_buffer *out = contract_alloc(c, (umo_storage_mode)m, import.size_bytes);
            unsigned char *got = malloc(import.size_bytes);
            assert_non_null(got);
            (void)contract_device_copy(c, 0, in, 0, out, 0, import.size_bytes);
            contract_host_read(out, 0, got, import.size_bytes);
            assert_memory_equal(got, import.data, import.size_bytes);
            free(got);
            umo_buffer_release(out);
        }
        /* Used where it lies: nothing went to the device for it, once. */
        const umo_counters after = contract_counters(c);
        assert_int_equal(after.transfer_performed[UMO_DIRECTION_IN].bytes, 0);
        assert_int_equal(after.transfer_eliminated[UMO_DIRECTION_IN].bytes -
                             before.transfer_eliminated[UMO_DIRECTION_IN].bytes,
                         import.size_bytes);
        umo_buffer_release(in);
    }
    const umo_counters counters = contract_counters(c);
    assert_true(counters.imported.events > 0);
    free(pages);
}

static void the_device_writes_imported_memory_and_no_byte_beside_it(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_WRITE) == 0) {
        skip();
    }
    const size_t total = 5 * c->page;
    unsigned char *pages = pages_take(c->page, 5);
    unsigned char *expected = malloc(total);
    assert_non_null(expected);
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++) {
        const size_t at = c->page + places[i][0];
        const size_t size = places[i][1];
        const umo_import import = {.data = pages + at, .size_bytes = size, .writable = true};
        umo_buffer *out = NULL;
        contract_pattern(pages, total, 1);
        contract_pattern(expected, total, 1);
        contract_pattern(expected + at, size, 100 + (unsigned)i);
        if (!import_or_reason(c, &import, &out)) {
            continue;
        }
        umo_buffer *in = contract_alloc(c, UMO_UNIFIED, size);
        contract_host_pattern(in, 0, size, 100 + (unsigned)i);
        (void)contract_device_copy(c, 0, in, 0, out, 0, size);
        contract_host_expect(out, 0, size, 100 + (unsigned)i);
        umo_buffer_release(in);
        umo_buffer_release(out);
        assert_memory_equal(pages, expected, total);
    }
    free(expected);
    free(pages);
}

static void neighbours_in_one_page_are_written_at_the_same_time(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_WRITE) == 0) {
        skip();
    }
    enum {
        SLOTS = 8
    };
    /* No multiple of a cache line, where the device takes such slots. */
    const size_t granule = c->info->write_granule_bytes;
    const size_t slot = granule == 1 ? 500 : (500 + granule - 1) / granule * granule;
    unsigned char *pages = pages_take(c->page, (SLOTS * slot + c->page - 1) / c->page);
    unsigned char *expected = malloc(SLOTS * slot);
    umo_buffer *in[SLOTS];
    umo_buffer *out[SLOTS];
    assert_non_null(expected);
    for (size_t i = 0; i < SLOTS; i++) {
        const umo_import import = {.data = pages + i * slot, .size_bytes = slot, .writable = true};
        assert_true(import_or_reason(c, &import, &out[i]));
        in[i] = contract_alloc(c, UMO_UNIFIED, slot);
        contract_host_pattern(in[i], 0, slot, (unsigned)i);
        contract_pattern(expected + i * slot, slot, (unsigned)i);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        (void)contract_device_copy(c, (uint32_t)i % c->info->queues, in[i], 0, out[i], 0, slot);
    }
    for (size_t i = 0; i < SLOTS; i++) {
        umo_buffer_release(in[i]);
        umo_buffer_release(out[i]);
    }
    assert_memory_equal(pages, expected, SLOTS * slot);
    free(expected);
    free(pages);
}

static void impossible_imports_are_named(void **state)
{
    contract *c = *state;
    unsigned char bytes[64];
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_COUNT;
    umo_error error = {0};
    const umo_import wrong[] = {
        {.data = NULL, .size_bytes = 10},
        {.data = bytes, .size_bytes = 0},
        {.data = bytes, .size_bytes = SIZE_MAX},
        {.data = (void *)(UINTPTR_MAX - 10), .size_bytes = 12},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        assert_int_equal(umo_buffer_import(c->device, c->scope, &wrong[i], &buffer, &why, &error),
                         UMO_E_INVAL);
        assert_int_not_equal(error.text[0], '\0');
    }
    const uint64_t most = c->info->buffer_max_bytes;
    if (most < SIZE_MAX / 2) {
        const umo_import large = {.data = bytes, .size_bytes = (size_t)most + 1};
        assert_int_equal(umo_buffer_import(c->device, c->scope, &large, &buffer, &why, &error),
                         UMO_E_REFUSED);
        assert_int_not_equal(why, UMO_REASON_NONE);
        assert_int_not_equal(why, UMO_REASON_COUNT);
    }
    if ((c->info->caps & UMO_CAP_IMPORT_READ) == 0) {
        const umo_import plain = {.data = bytes, .size_bytes = sizeof bytes};
        assert_int_equal(umo_buffer_import(c->device, c->scope, &plain, &buffer, &why, &error),
                         UMO_E_REFUSED);
        assert_int_equal(why, UMO_REASON_DEVICE_REFUSED);
    }
    assert_null(buffer);
}

static void the_device_may_not_write_to_what_was_imported_to_read(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_READ) == 0) {
        skip();
    }
    unsigned char *bytes = pages_take(c->page, 1);
    umo_buffer *buffer = NULL;
    umo_fence_set waits;
    const umo_import import = {.data = bytes, .size_bytes = 100};
    const umo_access write = contract_use(0, 10, UMO_SIDE_DEVICE, UMO_WRITE, 0);
    const umo_access update = contract_use(0, 10, UMO_SIDE_DEVICE, UMO_READ_WRITE, 0);
    const umo_access read = contract_use(0, 10, UMO_SIDE_DEVICE, UMO_READ, 0);
    assert_true(import_or_reason(c, &import, &buffer));
    assert_int_equal(umo_access_begin(buffer, &write, &waits), UMO_E_INVAL);
    assert_int_equal(umo_access_begin(buffer, &update, &waits), UMO_E_INVAL);
    assert_int_equal(umo_access_begin(buffer, &read, &waits), UMO_OK);
    assert_int_equal(umo_access_end(buffer, &read, (umo_fence){0}), UMO_OK);
    umo_buffer_release(buffer);
    free(bytes);
}

/* What a deleter saw. */
typedef struct owner {
    atomic_int calls;
    void *data;
    unsigned char first; /* of the memory, when it was given back */
} owner;

static void owner_told(void *data, void *user)
{
    owner *o = user;
    o->data = data;
    o->first = *(unsigned char *)data;
    atomic_fetch_add(&o->calls, 1);
}

static void the_owner_hears_once_and_after_the_last_use(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_WRITE) == 0) {
        skip();
    }
    unsigned char *pages = pages_take(c->page, 1);
    owner o = {0};
    memset(pages, 1, c->page);
    const umo_import import = {
        .data = pages, .size_bytes = c->page, .writable = true, .deleter = owner_told, .user = &o};
    umo_buffer *out = NULL;
    assert_true(import_or_reason(c, &import, &out));
    umo_buffer *in = contract_alloc(c, UMO_UNIFIED, c->page);
    unsigned char *ones = malloc(c->page);
    assert_non_null(ones);
    memset(ones, 9, c->page);
    contract_host_write(in, 0, ones, c->page);
    umo_buffer_acquire(out);
    umo_buffer_release(out);
    assert_int_equal(atomic_load(&o.calls), 0);
    (void)contract_device_copy(c, 0, in, 0, out, 0, c->page);
    /* The copy may still be under way; the release waits for it before the owner hears. */
    umo_buffer_release(out);
    assert_int_equal(atomic_load(&o.calls), 1);
    assert_ptr_equal(o.data, pages);
    assert_int_equal(o.first, 9);
    assert_memory_equal(pages, ones, c->page);
    umo_buffer_release(in);
    free(ones);

    /* An import that fails does not take the memory. */
    umo_import wrong = import;
    wrong.size_bytes = 0;
    assert_int_equal(umo_buffer_import(c->device, c->scope, &wrong, &out, NULL, NULL), UMO_E_INVAL);
    assert_int_equal(atomic_load(&o.calls), 1);
    free(pages);
}

static void the_host_sees_the_owners_memory_itself(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_WRITE) == 0) {
        skip();
    }
    const size_t offset = takes_anything(c) ? 7 : 0;
    const size_t size = takes_anything(c) ? 250 : c->page;
    unsigned char *bytes = pages_take(c->page, 1);
    umo_buffer *buffer = NULL;
    contract_pattern(bytes, c->page, 5);
    const umo_import import = {.data = bytes + offset, .size_bytes = size, .writable = true};
    assert_true(import_or_reason(c, &import, &buffer));
    assert_ptr_equal(umo_buffer_host(buffer), bytes + offset);
    contract_host_pattern(buffer, 3, 10, 6);
    unsigned char expected[10];
    contract_pattern(expected, sizeof expected, 6);
    assert_memory_equal(bytes + offset + 3, expected, sizeof expected);
    umo_buffer_release(buffer);
    free(bytes);
}

static void one_range_may_be_imported_many_times(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_READ) == 0) {
        skip();
    }
    enum {
        TIMES = 300,
        BYTES = 128
    };
    unsigned char *bytes = pages_take(c->page, 1);
    umo_buffer *buffers[TIMES];
    const umo_import import = {.data = bytes, .size_bytes = BYTES};
    for (int i = 0; i < TIMES; i++) {
        assert_true(import_or_reason(c, &import, &buffers[i]));
    }
    assert_int_equal(contract_counters(c).live_buffers, TIMES);
    assert_int_equal(contract_counters(c).imported.bytes, TIMES * BYTES);
    for (int i = 0; i < TIMES; i++) {
        umo_buffer_release(buffers[(i * 7) % TIMES]);
    }
    free(bytes);
}

const struct CMUnitTest contract_import_tests[] = {
    CONTRACT_TEST(the_device_reads_memory_where_it_lies),
    CONTRACT_TEST(the_device_writes_imported_memory_and_no_byte_beside_it),
    CONTRACT_TEST(neighbours_in_one_page_are_written_at_the_same_time),
    CONTRACT_TEST(impossible_imports_are_named),
    CONTRACT_TEST(the_device_may_not_write_to_what_was_imported_to_read),
    CONTRACT_TEST(the_owner_hears_once_and_after_the_last_use),
    CONTRACT_TEST(the_host_sees_the_owners_memory_itself),
    CONTRACT_TEST(one_range_may_be_imported_many_times),
};
const size_t contract_import_test_count =
    sizeof contract_import_tests / sizeof contract_import_tests[0];

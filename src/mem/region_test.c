/*
 * Regions and the cache of wraps inside them.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"

#include <umo/region.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define KB 1024u

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_registry *registry;
    char *memory; /* 64 KiB, at least four pages */
    size_t memory_bytes;
} rig;

static rig rig_open(const wrapper_switches *switches, size_t wraps_max)
{
    rig r = {0};
    const umo_registry_options options = {.wraps_max = wraps_max};
    r.device = wrapper_device(switches, NULL);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "region", 0, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_registry_create(&options, r.scope, &r.registry, NULL), UMO_OK);
    r.memory_bytes = 4 * umo_os_page_bytes() > 64 * KB ? 4 * umo_os_page_bytes() : 64 * KB;
    r.memory = umo_os_pages_alloc(r.memory_bytes);
    assert_non_null(r.memory);
    return r;
}

static umo_registry_stats stats(const rig *r)
{
    umo_registry_stats s;
    umo_registry_read(r->registry, &s);
    return s;
}

static void rig_close(rig *r)
{
    assert_int_equal(stats(r).wraps, 0);
    assert_int_equal(stats(r).regions, 0);
    umo_registry_destroy(r->registry);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    umo_os_pages_free(r->memory, r->memory_bytes);
    assert_int_equal(wrapper_calls.live, 0);
    wrapper = (wrapper_switches){0};
}

static umo_region *region(const rig *r, size_t offset, size_t size_bytes, bool writable)
{
    umo_region *out = NULL;
    assert_int_equal(
        umo_region_register(r->registry, r->memory + offset, size_bytes, writable, &out, NULL),
        UMO_OK);
    return out;
}

static umo_status wrap(const rig *r, void *data, size_t size_bytes, bool writable, umo_buffer **out)
{
    umo_reason why = UMO_REASON_COUNT;
    *out = NULL;
    return umo_registry_wrap(r->registry, r->device, r->scope, data, size_bytes, writable, out,
                             &why, NULL);
}

static umo_buffer *wrapped(const rig *r, size_t offset, size_t size_bytes, bool writable)
{
    umo_buffer *buffer;
    assert_int_equal(wrap(r, r->memory + offset, size_bytes, writable, &buffer), UMO_OK);
    return buffer;
}

static void regions_do_not_overlap(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *middle = region(&r, 1000, 100, true);
    const struct {
        size_t offset;
        size_t size;
        bool overlaps;
    } tries[] = {{0, 1000, false}, {0, 1001, true},    {1000, 1, true},  {1000, 100, true},
                 {1099, 1, true},  {1099, 500, true},  {1100, 1, false}, {500, 2000, true},
                 {999, 1, false},  {1100, 500, false}, {1001, 98, true}, {999, 2, true}};
    for (size_t i = 0; i < sizeof tries / sizeof tries[0]; i++) {
        umo_region *other = NULL;
        umo_status status = umo_region_register(r.registry, r.memory + tries[i].offset,
                                                tries[i].size, true, &other, NULL);
        assert_int_equal(status, tries[i].overlaps ? UMO_E_INVAL : UMO_OK);
        assert_int_equal(other == NULL, tries[i].overlaps);
        umo_region_release(other);
    }
    umo_region_release(middle);
    umo_region_release(NULL);
    rig_close(&r);
}

static void impossible_regions_are_refused(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *out = NULL;
    assert_int_equal(umo_region_register(r.registry, NULL, 10, true, &out, NULL), UMO_E_INVAL);
    assert_int_equal(umo_region_register(r.registry, r.memory, 0, true, &out, NULL), UMO_E_INVAL);
    assert_int_equal(umo_region_register(r.registry, r.memory, SIZE_MAX, true, &out, NULL),
                     UMO_E_INVAL);
    assert_int_equal(umo_region_register(r.registry, (void *)UINTPTR_MAX, 1, true, &out, NULL),
                     UMO_E_INVAL);
    assert_null(out);
    /* As long as an address allows, and nothing in it wraps around. */
    umo_region *all = NULL;
    assert_int_equal(umo_region_register(r.registry, (void *)1, SIZE_MAX - 1, false, &all, NULL),
                     UMO_OK);
    assert_int_equal(umo_region_register(r.registry, r.memory, 1, true, &out, NULL), UMO_E_INVAL);
    umo_buffer *buffer;
    assert_int_equal(wrap(&r, r.memory, 10, false, &buffer), UMO_OK);
    umo_buffer_release(buffer);
    assert_int_equal(wrap(&r, r.memory, SIZE_MAX, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, NULL, 10, false, &buffer), UMO_E_NOT_FOUND);
    umo_region_release(all);
    rig_close(&r);
}

/* Against a plain table of who owns each byte. */
static void random_regions_agree_with_a_table(void **state)
{
    (void)state;
    enum {
        SIZE = 400,
        REGIONS = 24
    };
    rig r = rig_open(NULL, 16);
    unsigned char owner[SIZE] = {0};
    umo_region *regions[REGIONS + 1] = {0};
    bool writable[REGIONS + 1] = {0};
    unsigned seed = 11;
    for (int step = 0; step < 8000; step++) {
        size_t offset = (size_t)rand_r(&seed) % SIZE;
        size_t size = 1 + (size_t)rand_r(&seed) % 30;
        size = size > SIZE - offset ? SIZE - offset : size;
        unsigned char index = (unsigned char)(1 + rand_r(&seed) % REGIONS);
        if (rand_r(&seed) % 2 == 0) {
            /* Often the same ones, so that the cache is hit. */
            offset = offset / 2 < 100 ? offset : offset - offset % 25;
            size = offset / 2 < 100 ? size : 5;
            bool write = rand_r(&seed) % 2 == 0;
            unsigned char inside = owner[offset];
            for (size_t i = offset; i < offset + size; i++) {
                inside = owner[i] == inside ? inside : 0;
            }
            umo_buffer *buffer;
            bool fits = inside != 0 && (!write || writable[inside]);
            assert_int_equal(wrap(&r, r.memory + offset, size, write, &buffer),
                             fits ? UMO_OK : UMO_E_NOT_FOUND);
            if (fits) {
                assert_ptr_equal(umo_buffer_host(buffer), r.memory + offset);
                assert_int_equal(umo_buffer_size(buffer), size);
                assert_int_equal(umo_buffer_writable(buffer), write);
            }
            umo_buffer_release(buffer);
        } else if (regions[index] != NULL) {
            umo_region_release(regions[index]);
            regions[index] = NULL;
            for (size_t i = 0; i < SIZE; i++) {
                owner[i] = owner[i] == index ? 0 : owner[i];
            }
        } else {
            bool free_range = true;
            for (size_t i = offset; i < offset + size; i++) {
                free_range = free_range && owner[i] == 0;
            }
            writable[index] = rand_r(&seed) % 2 == 0;
            assert_int_equal(umo_region_register(r.registry, r.memory + offset, size,
                                                 writable[index], &regions[index], NULL),
                             free_range ? UMO_OK : UMO_E_INVAL);
            if (free_range) {
                memset(owner + offset, index, size);
            }
        }
        assert_true(stats(&r).wraps <= 16);
    }
    assert_true(stats(&r).wrap_hits > 0);
    for (size_t i = 1; i <= REGIONS; i++) {
        umo_region_release(regions[i]);
    }
    rig_close(&r);
}

static void the_same_range_comes_from_the_cache(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *all = region(&r, 0, 64 * KB, true);
    uint64_t before = wrapper_calls.import;
    umo_buffer *first = wrapped(&r, 100, 200, false);
    umo_buffer *second = wrapped(&r, 100, 200, false);
    assert_ptr_equal(first, second);
    assert_int_equal(wrapper_calls.import, before + 1);
    /* Any difference is another wrap. */
    umo_buffer *others[] = {wrapped(&r, 100, 199, false), wrapped(&r, 101, 200, false),
                            wrapped(&r, 100, 200, true)};
    assert_int_equal(wrapper_calls.import, before + 4);
    for (size_t i = 0; i < 3; i++) {
        assert_ptr_not_equal(others[i], first);
        umo_buffer_release(others[i]);
    }
    assert_int_equal(umo_buffer_size(first), 200);
    umo_device *device = r.device;
    umo_device *other_device = wrapper_device(NULL, NULL);
    r.device = other_device;
    umo_buffer *elsewhere = wrapped(&r, 100, 200, false);
    r.device = device;
    assert_ptr_not_equal(elsewhere, first);
    assert_ptr_equal(umo_buffer_device(elsewhere), other_device);
    umo_buffer_release(elsewhere);
    umo_device_release(other_device);
    umo_buffer_release(first);
    umo_buffer_release(second);
    assert_int_equal(stats(&r).wrap_hits, 1);
    assert_int_equal(stats(&r).wrap_misses, 5);
    assert_int_equal(stats(&r).wraps, 5);
    umo_region_release(all);
    rig_close(&r);
}

static void wraps_are_counted_for_who_asked(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *all = region(&r, 0, 64 * KB, true);
    umo_scope *model = NULL;
    assert_int_equal(umo_scope_create(r.scope, "model", 0, &model, NULL), UMO_OK);
    for (int i = 0; i < 3; i++) {
        umo_buffer *buffer = NULL;
        assert_int_equal(umo_registry_wrap(r.registry, r.device, model, r.memory, 4096, false,
                                           &buffer, NULL, NULL),
                         UMO_OK);
        umo_buffer_release(buffer);
    }
    const umo_scope *levels[] = {model, r.scope};
    for (size_t i = 0; i < 2; i++) {
        umo_counters c;
        umo_scope_read(levels[i], &c);
        assert_int_equal(c.imported.events, 1);
        assert_int_equal(c.imported.bytes, 4096);
        assert_int_equal(c.import_hits.events, 2);
        assert_int_equal(c.import_hits.bytes, 2 * 4096);
    }
    /* Nobody in particular: the registry's own scope, on any device. */
    for (int apart = 0; apart < 2; apart++) {
        const wrapper_switches switches = {.apart = apart != 0};
        umo_device *device = wrapper_device(&switches, NULL);
        umo_buffer *buffer = NULL;
        assert_int_equal(
            umo_registry_wrap(r.registry, device, NULL, r.memory, 100, false, &buffer, NULL, NULL),
            UMO_OK);
        umo_buffer_release(buffer);
        umo_device_release(device);
        umo_counters c;
        umo_scope_read(r.scope, &c);
        assert_int_equal(c.imported.events, 2 + apart);
    }
    /* The cache outlives who asked first. */
    umo_scope_destroy(model);
    umo_region_release(all);
    rig_close(&r);
}

/* A client writes new bytes between two requests for the same range. Each is a transfer that the
 * shared memory makes needless, and a device that is not coherent must be given the new bytes. */
static void every_wrap_starts_with_its_owners_bytes(void **state)
{
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        const wrapper_switches switches = {.apart = apart != 0};
        rig r = rig_open(&switches, 0);
        umo_region *all = region(&r, 0, 64 * KB, true);
        for (int i = 1; i <= 3; i++) {
            memset(r.memory, i, 4096);
            umo_buffer *buffer = wrapped(&r, 0, 4096, false);
            assert_int_equal(umo_buffer_valid(buffer, 0, 4096), UMO_SIDE_HOST);
            const umo_access read = {
                .size_bytes = 4096, .side = UMO_SIDE_DEVICE, .use = UMO_READ, .scope = r.scope};
            umo_fence_set waits;
            assert_int_equal(umo_access_begin(buffer, &read, &waits), UMO_OK);
            const unsigned char *seen = umo_buffer_memory(buffer)->native;
            assert_int_equal(seen[0], i);
            assert_int_equal(seen[4095], i);
            assert_int_equal(umo_access_end(buffer, &read, (umo_fence){0}), UMO_OK);
            umo_buffer_release(buffer);
            umo_counters c;
            umo_scope_read(r.scope, &c);
            assert_int_equal(c.transfer_eliminated[UMO_DIRECTION_IN].events, i);
        }
        umo_region_release(all);
        rig_close(&r);
    }
}

/* What a device wrote and nobody fetched is not given up by the next one who asks. */
static void a_hit_keeps_what_the_device_wrote(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *all = region(&r, 0, 64 * KB, true);
    umo_buffer *buffer = wrapped(&r, 0, 4096, true);
    const umo_access write = {.size_bytes = 100, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &write, &waits), UMO_OK);
    assert_int_equal(umo_access_end(buffer, &write, (umo_fence){0}), UMO_OK);
    umo_buffer *again = wrapped(&r, 0, 4096, true);
    assert_ptr_equal(again, buffer);
    assert_int_equal(umo_buffer_valid(again, 0, 100), UMO_SIDE_DEVICE);
    assert_int_equal(umo_buffer_valid(again, 100, 3996), UMO_SIDE_HOST);
    umo_buffer_release(again);
    umo_buffer_release(buffer);
    umo_region_release(all);
    rig_close(&r);
}

static void the_least_used_wraps_make_room(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 4);
    umo_region *all = region(&r, 0, 64 * KB, true);
    for (size_t i = 0; i < 4; i++) {
        umo_buffer_release(wrapped(&r, i * 100, 100, false));
    }
    umo_buffer_release(wrapped(&r, 0, 100, false)); /* now 1 is the oldest */
    umo_buffer_release(wrapped(&r, 400, 100, false));
    assert_int_equal(stats(&r).wraps, 4);
    assert_int_equal(stats(&r).evictions, 1);
    uint64_t before = wrapper_calls.import;
    umo_buffer_release(wrapped(&r, 0, 100, false));
    umo_buffer_release(wrapped(&r, 200, 100, false));
    umo_buffer_release(wrapped(&r, 300, 100, false));
    umo_buffer_release(wrapped(&r, 400, 100, false));
    assert_int_equal(wrapper_calls.import, before);
    umo_buffer_release(wrapped(&r, 100, 100, false));
    assert_int_equal(wrapper_calls.import, before + 1);
    umo_region_release(all);
    rig_close(&r);
}

/* Wraps in use cannot make room; when they are given back, the next ones bring the cache down. */
static void wraps_in_use_are_not_evicted(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 4);
    umo_region *all = region(&r, 0, 64 * KB, true);
    umo_buffer *held[10];
    for (size_t i = 0; i < 10; i++) {
        held[i] = wrapped(&r, i * 100, 100, false);
    }
    assert_int_equal(stats(&r).evictions, 0);
    for (size_t i = 0; i < 10; i++) {
        assert_ptr_equal(umo_buffer_host(held[i]), r.memory + i * 100);
        umo_buffer_release(held[i]);
    }
    umo_buffer_release(wrapped(&r, 5000, 100, false));
    assert_int_equal(stats(&r).wraps, 4);
    umo_region_release(all);
    rig_close(&r);
}

static void a_released_region_leaves_no_wrap(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *low = region(&r, 0, 4096, true);
    umo_region *high = region(&r, 4096, 4096, true);
    for (size_t i = 0; i < 64; i++) {
        umo_buffer_release(wrapped(&r, i * 128, 128, i % 2 == 0));
    }
    assert_int_equal(stats(&r).wraps, 64);
    umo_region_release(low);
    assert_int_equal(stats(&r).wraps, 32);
    umo_buffer *buffer;
    assert_int_equal(wrap(&r, r.memory, 128, false, &buffer), UMO_E_NOT_FOUND);
    uint64_t before = wrapper_calls.import;
    umo_buffer_release(wrapped(&r, 4096, 128, true));
    assert_int_equal(wrapper_calls.import, before);
    /* The same address again is another region: nothing of the old one is found. */
    low = region(&r, 0, 4096, true);
    umo_buffer_release(wrapped(&r, 0, 128, true));
    assert_int_equal(wrapper_calls.import, before + 1);
    umo_region_release(low);
    umo_region_release(high);
    rig_close(&r);
}

static umo_region *released_meanwhile;

static void release_meanwhile(void)
{
    umo_region_release(released_meanwhile);
    released_meanwhile = NULL;
}

/* The region goes while the driver imports: the wrap must not stay in the cache, where the next
 * region at this address would find it. */
static void a_wrap_does_not_outlive_its_region(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    released_meanwhile = region(&r, 0, 4096, true);
    wrapper.importing = release_meanwhile;
    umo_buffer *buffer = NULL;
    assert_int_equal(wrap(&r, r.memory, 128, false, &buffer), UMO_E_NOT_FOUND);
    assert_null(buffer);
    wrapper.importing = NULL;
    assert_int_equal(stats(&r).wraps, 0);
    rig_close(&r);
}

static umo_region *registered_meanwhile;
static rig *rig_meanwhile;

static void replace_meanwhile(void)
{
    if (released_meanwhile != NULL) {
        release_meanwhile();
        registered_meanwhile = region(rig_meanwhile, 0, 4096, true);
    }
}

static void a_wrap_does_not_move_to_the_next_region(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    rig_meanwhile = &r;
    released_meanwhile = region(&r, 0, 4096, true);
    wrapper.importing = replace_meanwhile;
    umo_buffer *buffer = NULL;
    assert_int_equal(wrap(&r, r.memory, 128, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(stats(&r).wraps, 0);
    wrapper.importing = NULL;
    umo_buffer_release(wrapped(&r, 0, 128, false));
    umo_region_release(registered_meanwhile);
    rig_close(&r);
}

static void foreign_pointers_are_not_found(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_buffer *buffer;
    char local[64];
    assert_int_equal(wrap(&r, local, sizeof local, false, &buffer), UMO_E_NOT_FOUND);
    umo_region *some = region(&r, 100, 100, false);
    assert_int_equal(wrap(&r, local, sizeof local, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 99, 1, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 200, 1, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 100, 101, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 199, 2, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 100, SIZE_MAX, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, (void *)UINTPTR_MAX, 1, false, &buffer), UMO_E_NOT_FOUND);
    assert_int_equal(wrap(&r, r.memory + 100, 100, true, &buffer), UMO_E_NOT_FOUND);
    assert_null(buffer);
    assert_int_equal(wrap(&r, r.memory + 199, 1, false, &buffer), UMO_OK);
    umo_buffer_release(buffer);
    /* Nothing of no bytes. */
    assert_int_not_equal(wrap(&r, r.memory + 150, 0, false, &buffer), UMO_OK);
    umo_region_release(some);
    rig_close(&r);
}

/* A device that binds whole pages may have the region's, for reading; what it writes back must lie
 * in the range alone. */
static void a_region_vouches_for_its_whole_pages(void **state)
{
    (void)state;
    const size_t page = umo_os_page_bytes();
    const wrapper_switches switches = {
        .import_align_bytes = page, .import_size_align_bytes = page, .write_granule_bytes = page};
    rig r = rig_open(&switches, 0);
    umo_region *all = region(&r, 0, r.memory_bytes, true);
    umo_buffer *buffer = wrapped(&r, page + 904, 10, false);
    assert_int_equal(umo_buffer_memory_offset(buffer), 904);
    assert_int_equal(umo_buffer_memory(buffer)->size_bytes, page);
    umo_buffer_release(buffer);
    umo_reason why = UMO_REASON_NONE;
    buffer = NULL;
    assert_int_equal(umo_registry_wrap(r.registry, r.device, r.scope, r.memory + page + 904, 10,
                                       true, &buffer, &why, NULL),
                     UMO_E_REFUSED);
    assert_int_equal(why, UMO_REASON_PARTIAL_PAGE);
    umo_buffer_release(wrapped(&r, page, 2 * page, true));
    umo_region_release(all);
    rig_close(&r);
}

static bool fails_import(const char *entry)
{
    return strcmp(entry, "import") == 0;
}

static void a_refusal_is_not_cached(void **state)
{
    (void)state;
    rig r = rig_open(NULL, 0);
    umo_region *all = region(&r, 0, 64 * KB, true);
    wrapper.fails = fails_import;
    umo_buffer *buffer;
    assert_int_equal(wrap(&r, r.memory, 128, false, &buffer), UMO_E_REFUSED);
    assert_null(buffer);
    wrapper.fails = NULL;
    assert_int_equal(stats(&r).wraps, 0);
    umo_buffer_release(wrapped(&r, 0, 128, false));
    umo_region_release(all);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_do_not_overlap),
        cmocka_unit_test(impossible_regions_are_refused),
        cmocka_unit_test(random_regions_agree_with_a_table),
        cmocka_unit_test(the_same_range_comes_from_the_cache),
        cmocka_unit_test(wraps_are_counted_for_who_asked),
        cmocka_unit_test(every_wrap_starts_with_its_owners_bytes),
        cmocka_unit_test(a_hit_keeps_what_the_device_wrote),
        cmocka_unit_test(the_least_used_wraps_make_room),
        cmocka_unit_test(wraps_in_use_are_not_evicted),
        cmocka_unit_test(a_released_region_leaves_no_wrap),
        cmocka_unit_test(a_wrap_does_not_outlive_its_region),
        cmocka_unit_test(a_wrap_does_not_move_to_the_next_region),
        cmocka_unit_test(foreign_pointers_are_not_found),
        cmocka_unit_test(a_region_vouches_for_its_whole_pages),
        cmocka_unit_test(a_refusal_is_not_cached),
    };
    return cmocka_run_group_tests_name("region", tests, NULL, NULL);
}

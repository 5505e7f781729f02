/* What a caller can do wrong with buffers, heaps and residency sets. */
#include "misuse.h"

#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

/* Pages of the test's, with a hole on either side. */
static uint8_t *pages_map(size_t count)
{
    uint8_t *mapped = mmap(NULL, (count + 2) * page(), PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(mapped, MAP_FAILED);
    assert_int_equal(mprotect(mapped, page(), PROT_NONE), 0);
    assert_int_equal(mprotect(mapped + (count + 1) * page(), page(), PROT_NONE), 0);
    return mapped + page();
}

static void pages_unmap(uint8_t *pages, size_t count)
{
    assert_int_equal(munmap(pages - page(), (count + 2) * page()), 0);
}

static void no_copy_refused(const world *w, uint8_t *pointer, size_t length, ns_uint options)
{
    assert_null(device_no_copy(w->device, pointer, length, options, NULL));
}

static void no_copy_of_an_odd_pointer(world *w)
{
    uint8_t *pages = pages_map(2);
    no_copy_refused(w, pages + 64, page(), SHARED);
    pages_unmap(pages, 2);
}

static void no_copy_of_null(world *w)
{
    no_copy_refused(w, NULL, page(), SHARED);
}

/* A pointer that suits pages of 4 KiB, on a device whose pages are 16 KiB. */
static void no_copy_at_the_wrong_page_size(world *w)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    options.page = 4 * page();
    world_restart(w, &options);
    uint8_t *pages = pages_map(12);
    uint8_t *aligned = pages + (0 - (uintptr_t)pages) % (4 * page());
    no_copy_refused(w, aligned + page(), 4 * page(), SHARED);
    pages_unmap(pages, 12);
}

static void no_copy_of_half_a_page(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, page() / 2, SHARED);
    pages_unmap(pages, 1);
}

static void no_copy_of_nothing(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, 0, SHARED);
    pages_unmap(pages, 1);
}

static void no_copy_beyond_the_largest_buffer(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, (size_t)1 << 62, SHARED);
    pages_unmap(pages, 1);
}

static void no_copy_over_a_hole(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, 2 * page(), SHARED);
    pages_unmap(pages, 1);
}

static void no_copy_of_read_only_memory(world *w)
{
    uint8_t *pages = pages_map(2);
    assert_int_equal(mprotect(pages + page(), page(), PROT_READ), 0);
    no_copy_refused(w, pages, 2 * page(), SHARED);
    pages_unmap(pages, 2);
}

/* Side by side, but of two files: two regions. */
static void no_copy_over_two_mappings(world *w)
{
    uint8_t *pages = pages_map(2);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)page()), 0);
    assert_ptr_equal(mmap(pages + page(), page(), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                          fileno(file), 0),
                     pages + page());
    no_copy_refused(w, pages, 2 * page(), SHARED);
    pages_unmap(pages, 2);
    assert_int_equal(fclose(file), 0);
}

/* Side by side and of one file, but the wrong way round. */
static void no_copy_over_swapped_pages(world *w)
{
    uint8_t *pages = pages_map(2);
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)(2 * page())), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_ptr_equal(mmap(pages + i * page(), page(), PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_FIXED, fileno(file), (off_t)((1 - i) * page())),
                         pages + i * page());
    }
    no_copy_refused(w, pages, 2 * page(), SHARED);
    pages_unmap(pages, 2);
    assert_int_equal(fclose(file), 0);
}

static void no_copy_into_private_storage(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, page(), PRIVATE);
    pages_unmap(pages, 1);
}

static void a_buffer_of_nothing(world *w)
{
    assert_null(device_buffer(w->device, 0, SHARED));
}

static void a_buffer_beyond_the_largest(world *w)
{
    assert_null(device_buffer(w->device, ((uint64_t)4 << 30) + 1, SHARED));
}

static void a_buffer_in_memoryless_storage(world *w)
{
    assert_null(device_buffer(w->device, 64, 48));
}

static void a_buffer_with_unknown_options(world *w)
{
    assert_null(device_buffer(w->device, 64, 1 << 10));
}

static void a_private_buffer_with_bytes(world *w)
{
    assert_null(device_buffer_with(w->device, "1234", 4, PRIVATE));
}

static void managed_storage_on_a_unified_device(world *w)
{
    assert_null(device_buffer(w->device, 64, MANAGED));
}

static void managed_memory_of_somebody_else_on_a_unified_device(world *w)
{
    uint8_t *pages = pages_map(1);
    no_copy_refused(w, pages, page(), MANAGED);
    pages_unmap(pages, 1);
}

static void a_buffer_with_an_unknown_cache_mode(world *w)
{
    id combined = device_buffer(w->device, 64, 1);
    assert_non_null(combined);
    release(combined);
    assert_int_equal(fake_metal_violations(), 0);
    assert_null(device_buffer(w->device, 64, 2));
}

static void discrete(world *w)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    options.unified = false;
    options.apple_family = 0;
    world_restart(w, &options);
}

static void shared_memory_said_to_be_modified(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    buffer_modified(buffer, (ns_range){0, 64});
    release(buffer);
}

static void modified_beyond_the_end(world *w)
{
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    buffer_modified(buffer, (ns_range){60, 4});
    assert_int_equal(fake_metal_violations(), 0);
    buffer_modified(buffer, (ns_range){60, 5});
    release(buffer);
}

static void modified_range_that_overflows(world *w)
{
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    buffer_modified(buffer, (ns_range){8, UINT64_MAX});
    release(buffer);
}

static void modified_nothing(world *w)
{
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    buffer_modified(buffer, (ns_range){0, 0});
    release(buffer);
}

static void a_heap_of_nothing(world *w)
{
    assert_null(world_heap(w, 0, 0));
}

static void a_managed_heap(world *w)
{
    assert_null(world_heap(w, 4096, 1));
}

static void a_shared_heap_of_another_gpu(world *w)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.apple_family = 0;
    options.record = true;
    fake_metal_reset(&options);
    assert_null(world_heap(w, 4096, 0));
}

static void a_private_buffer_of_a_shared_heap(world *w)
{
    id heap = world_heap(w, 4096, 0);
    assert_null(device_buffer(heap, 64, PRIVATE));
    release(heap);
}

static void a_buffer_of_nothing_in_a_heap(world *w)
{
    id heap = world_heap(w, 4096, 0);
    assert_null(device_buffer(heap, 0, SHARED));
    release(heap);
}

static void purging_a_buffer_of_a_heap(world *w)
{
    id heap = world_heap(w, 4096, 0);
    id buffer = device_buffer(heap, 64, SHARED);
    (void)purgeable_set(buffer, VOLATILE);
    release(buffer);
    release(heap);
}

static void a_purgeable_state_of_0(world *w)
{
    id buffer = device_buffer(w->device, 64, SHARED);
    (void)purgeable_set(buffer, 0);
    release(buffer);
}

static void a_purgeable_state_of_5(world *w)
{
    id heap = world_heap(w, 4096, 0);
    (void)purgeable_set(heap, 5);
    release(heap);
}

static void a_queue_with_33_residency_sets(world *w)
{
    for (unsigned i = 0; i < 33; i++) {
        assert_int_equal(fake_metal_violations(), 0);
        id set = world_residency(w);
        queue_add_residency(w->queue, set);
        queue_add_residency(w->queue, set); /* again: nothing */
        release(set);
    }
}

static void a_residency_set_on_a_paravirtual_device(world *w)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.record = true;
    (void)snprintf(options.name, sizeof options.name, "Apple Paravirtual device");
    world_restart(w, &options);
    assert_null(world_residency(w));
}

const misuse misuse_of_resources[] = {
    MISUSE("no_copy_pointer", no_copy_of_an_odd_pointer),
    MISUSE("no_copy_pointer", no_copy_of_null),
    MISUSE("no_copy_pointer", no_copy_at_the_wrong_page_size),
    MISUSE("no_copy_length", no_copy_of_half_a_page),
    MISUSE("no_copy_length", no_copy_of_nothing),
    MISUSE("no_copy_length", no_copy_beyond_the_largest_buffer),
    MISUSE("no_copy_mapping", no_copy_over_a_hole),
    MISUSE("no_copy_mapping", no_copy_of_read_only_memory),
    MISUSE("no_copy_mapping", no_copy_over_two_mappings),
    MISUSE("no_copy_mapping", no_copy_over_swapped_pages),
    MISUSE("no_copy_storage", no_copy_into_private_storage),
    MISUSE("buffer_length", a_buffer_of_nothing),
    MISUSE("buffer_length", a_buffer_beyond_the_largest),
    MISUSE("buffer_length", a_buffer_of_nothing_in_a_heap),
    MISUSE("storage_mode", a_buffer_in_memoryless_storage),
    MISUSE("storage_mode", a_buffer_with_unknown_options),
    MISUSE("storage_mode", a_private_buffer_with_bytes),
    MISUSE("storage_mode", a_buffer_with_an_unknown_cache_mode),
    MISUSE("managed_unified", managed_memory_of_somebody_else_on_a_unified_device),
    MISUSE("managed_unified", managed_storage_on_a_unified_device),
    MISUSE("modified_not_managed", shared_memory_said_to_be_modified),
    MISUSE("modified_range", modified_beyond_the_end),
    MISUSE("modified_range", modified_range_that_overflows),
    MISUSE("modified_range", modified_nothing),
    MISUSE("heap_size", a_heap_of_nothing),
    MISUSE("heap_storage", a_managed_heap),
    MISUSE("heap_storage", a_shared_heap_of_another_gpu),
    MISUSE("heap_storage", a_private_buffer_of_a_shared_heap),
    MISUSE("heap_purgeable", purging_a_buffer_of_a_heap),
    MISUSE("purgeable_state", a_purgeable_state_of_0),
    MISUSE("purgeable_state", a_purgeable_state_of_5),
    MISUSE("residency_count", a_queue_with_33_residency_sets),
    MISUSE("residency_paravirtual", a_residency_set_on_a_paravirtual_device),
    {NULL, NULL, NULL},
};

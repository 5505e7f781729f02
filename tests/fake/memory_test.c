/* Memory on the fake: what Metal can refuse, purge, copy between two memories, and give back late.
 */
#include "world.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static size_t page(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static void *pages_map(size_t bytes)
{
    void *mapped = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(mapped, MAP_FAILED);
    return mapped;
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

static void assert_all(const uint8_t *bytes, uint8_t value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != value) {
            fail_msg("byte %zu is %#x, not %#x", i, bytes[i], value);
        }
    }
}

/* Fills on the GPU. */
static void gpu_fill(const world *w, id buffer, ns_range range, uint8_t value, bool synchronize)
{
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, range, value);
    if (synchronize) {
        blit_synchronize(encoder, buffer);
    }
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
}

/* What the GPU sees. */
static void gpu_read(const world *w, id buffer, uint8_t *out, size_t size_bytes)
{
    id copy = device_buffer(w->device, size_bytes, SHARED);
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    blit_copy(encoder, buffer, 0, copy, 0, size_bytes);
    end_encoding(encoder);
    assert_int_equal(world_run(command), COMPLETED);
    memcpy(out, buffer_contents(copy), size_bytes);
    release(copy);
}

static ns_uint allocated(const world *w)
{
    return SEND0(ns_uint, w->device, "currentAllocatedSize");
}

/* ---- allocation ---- */

static void a_buffer_is_zeroed_and_counted_by_pages(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, page() + 1, SHARED);
    assert_int_equal(buffer_length(buffer), page() + 1);
    assert_all(buffer_contents(buffer), 0, page() + 1);
    assert_int_equal((uintptr_t)buffer_contents(buffer) % page(), 0);
    assert_int_equal(allocated(w), 2 * page());
    release(buffer);
    assert_int_equal(allocated(w), 0);
}

static void fresh_memory_can_be_garbage(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.fresh_garbage = true;
    world_restart(w, &options);
    id buffer = device_buffer(w->device, 64, SHARED);
    assert_all(buffer_contents(buffer), 0xa7, 64);
    release(buffer);
}

static void private_memory_has_no_contents(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, PRIVATE);
    uint8_t seen[64];
    assert_null(buffer_contents(buffer));
    gpu_fill(w, buffer, (ns_range){0, 64}, 7, false);
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 7, sizeof seen);
    release(buffer);
}

static void beyond_the_memory_limit_there_is_no_buffer(void **state)
{
    world *w = *state;
    fake_metal_set_memory_limit(4 * page());
    id one = device_buffer(w->device, 3 * page(), PRIVATE);
    assert_non_null(one);
    assert_null(device_buffer(w->device, page() + 1, SHARED));
    assert_null(world_heap(w, 2 * page(), 0));
    id rest = device_buffer(w->device, page(), SHARED);
    assert_non_null(rest);
    assert_null(device_buffer(w->device, 1, SHARED));
    release(one);
    id again = device_buffer(w->device, 3 * page(), SHARED);
    assert_non_null(again);
    release(again);
    release(rest);
    assert_int_equal(allocated(w), 0);
    assert_int_equal(fake_metal_violations(), 0);
}

static void the_largest_buffer_can_be_made(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.buffer_max = 3 * page();
    options.record = true;
    world_restart(w, &options);
    id buffer = device_buffer(w->device, 3 * page(), SHARED);
    assert_non_null(buffer);
    assert_null(device_buffer(w->device, 3 * page() + 1, SHARED));
    world_forgive();
    release(buffer);
}

static void a_buffer_the_system_has_no_room_for_is_not_counted(void **state)
{
    world *w = *state;
    fake_metal_options options;
    fake_metal_options_default(&options);
    options.buffer_max = UINT64_MAX;
    world_restart(w, &options);
    assert_null(device_buffer(w->device, (uint64_t)1 << 60, SHARED));
    assert_null(device_buffer(w->device, UINT64_MAX, SHARED));
    assert_null(world_heap(w, (uint64_t)1 << 60, 0));
    assert_int_equal(allocated(w), 0);
}

static void a_buffer_can_be_denied_by_number(void **state)
{
    world *w = *state;
    fake_metal_fail("newBufferWithLength:options:", 2);
    id one = device_buffer(w->device, 64, SHARED);
    assert_non_null(one);
    fake_metal_fail("newBufferWithBytes:length:options:", 1);
    assert_null(device_buffer_with(w->device, "1234", 4, SHARED));
    assert_null(device_buffer(w->device, 64, SHARED));
    assert_string_equal(fake_metal_failed(), "newBufferWithLength:options:");
    id three = device_buffer(w->device, 64, SHARED);
    assert_non_null(three);
    release(three);
    release(one);
}

static void contents_can_be_denied(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    fake_metal_fail("contents", 1);
    assert_null(buffer_contents(buffer));
    assert_non_null(buffer_contents(buffer));
    release(buffer);
}

static void a_buffer_can_come_without_length(void **state)
{
    world *w = *state;
    fake_metal_set_modes(FAKE_METAL_ZERO_LENGTH);
    id buffer = device_buffer(w->device, 64, SHARED);
    id heap = world_heap(w, 4096, 0);
    id inner = device_buffer(heap, 64, SHARED);
    void *memory = pages_map(page());
    id foreign = device_no_copy(w->device, memory, page(), SHARED, NULL);
    assert_int_equal(buffer_length(buffer), 0);
    assert_int_equal(buffer_length(inner), 0);
    assert_int_equal(buffer_length(foreign), 0);
    fake_metal_set_modes(0);
    release(foreign);
    assert_int_equal(munmap(memory, page()), 0);
    release(inner);
    release(heap);
    release(buffer);
    assert_int_equal(allocated(w), 0);
}

/* ---- the memory of somebody else ---- */

typedef struct freed {
    void *pointer;
    ns_uint length;
    unsigned count;
} freed;

static void note_freed(world_block *block, void *pointer, ns_uint length)
{
    freed *note = block->context;
    note->pointer = pointer;
    note->length = length;
    note->count++;
}

/* Under the name that makes clear that the block was copied: the literal is gone. */
static id no_copy(const world *w, void *memory, size_t bytes, freed *note)
{
    world_block block = world_block_make((void (*)(void))note_freed, note);
    id buffer = device_no_copy(w->device, memory, bytes, SHARED, &block);
    memset(&block, 0, sizeof block);
    return buffer;
}

static void no_copy_is_the_same_memory(void **state)
{
    world *w = *state;
    freed note = {0};
    uint8_t *memory = pages_map(2 * page());
    id buffer = no_copy(w, memory, 2 * page(), &note);
    assert_ptr_equal(buffer_contents(buffer), memory);
    gpu_fill(w, buffer, (ns_range){page(), page()}, 9, false);
    assert_all(memory, 0, page());
    assert_all(memory + page(), 9, page());
    release(buffer);
    assert_int_equal(munmap(memory, 2 * page()), 0);
}

static void the_deallocator_runs_once_with_the_memory(void **state)
{
    world *w = *state;
    freed note = {0};
    void *memory = pages_map(page());
    id buffer = no_copy(w, memory, page(), &note);
    assert_int_equal(fake_metal_live("Block"), 1);
    (void)retain(buffer);
    release(buffer);
    assert_int_equal(note.count, 0);
    release(buffer);
    assert_int_equal(note.count, 1);
    assert_ptr_equal(note.pointer, memory);
    assert_int_equal(note.length, page());
    assert_int_equal(fake_metal_live("Block"), 0);
    assert_int_equal(munmap(memory, page()), 0);
}

static void a_deallocator_can_run_late(void **state)
{
    world *w = *state;
    freed note = {0};
    void *memory = pages_map(page());
    fake_metal_set_modes(FAKE_METAL_LATE_FREE);
    id buffer = no_copy(w, memory, page(), &note);
    release(buffer);
    assert_int_equal(note.count, 0);
    assert_int_equal(fake_metal_live("MTLBuffer"), 1);
    assert_int_equal(fake_metal_run_late(), 1);
    assert_int_equal(note.count, 1);
    assert_int_equal(fake_metal_run_late(), 0);
    assert_int_equal(fake_metal_live("MTLBuffer"), 0);
    assert_int_equal(munmap(memory, page()), 0);
}

static void many_deallocators_can_run_late(void **state)
{
    world *w = *state;
    freed notes[3] = {{0}};
    uint8_t *memory = pages_map(3 * page());
    for (unsigned round = 0; round < 2; round++) {
        fake_metal_set_modes(FAKE_METAL_LATE_FREE);
        for (size_t i = 0; i < 3; i++) {
            release(no_copy(w, memory + i * page(), page(), &notes[i]));
        }
        assert_int_equal(fake_metal_run_late(), 3);
        for (size_t i = 0; i < 3; i++) {
            assert_int_equal(notes[i].count, round + 1);
            assert_ptr_equal(notes[i].pointer, memory + i * page());
        }
    }
    assert_int_equal(munmap(memory, 3 * page()), 0);
}

static void a_message_to_a_buffer_that_is_freed_late_is_caught(void **state)
{
    world *w = *state;
    freed note = {0};
    void *memory = pages_map(page());
    fake_metal_set_modes(FAKE_METAL_LATE_FREE);
    id buffer = no_copy(w, memory, page(), &note);
    release(buffer);
    (void)buffer_length(buffer);
    assert_int_equal(fake_metal_rule_violations("zombie"), 1);
    world_forgive();
    assert_int_equal(fake_metal_run_late(), 1);
    assert_int_equal(munmap(memory, page()), 0);
}

static void a_deallocator_can_run_on_the_worker(void **state)
{
    world *w = *state;
    fake_metal_options options;
    freed note = {0};
    freed other = {0};
    fake_metal_options_default(&options);
    options.late_ns = 50000000;
    world_restart(w, &options);
    void *memory = pages_map(page());
    id buffer = no_copy(w, memory, page(), &note);
    fake_metal_set_modes(FAKE_METAL_LATE_FREE);
    id held = no_copy(w, memory, page(), &other);
    release(held);
    fake_metal_set_modes(0);
    release(buffer);
    assert_true(fake_metal_idle());
    assert_int_equal(fake_metal_live("Block"), 2);
    for (unsigned i = 0; i < 5000 && fake_metal_live("Block") > 1; i++) {
        (void)usleep(1000);
    }
    assert_int_equal(fake_metal_live("Block"), 1);
    assert_int_equal(fake_metal_run_late(), 1);
    assert_int_equal(note.count, 1);
    assert_int_equal(other.count, 1);
    assert_int_equal(munmap(memory, page()), 0);
}

static void a_refused_no_copy_leaves_the_block_alone(void **state)
{
    world *w = *state;
    freed note = {0};
    void *memory = pages_map(page());
    fake_metal_set_modes(FAKE_METAL_NO_COPY_NIL);
    assert_null(no_copy(w, memory, page(), &note));
    fake_metal_set_modes(0);
    fake_metal_fail("newBufferWithBytesNoCopy:length:options:deallocator:", 1);
    assert_null(no_copy(w, memory, page(), &note));
    fake_metal_set_memory_limit(1);
    assert_null(no_copy(w, memory, page(), &note));
    assert_int_equal(note.count, 0);
    assert_int_equal(fake_metal_live("Block"), 0);
    assert_int_equal(munmap(memory, page()), 0);
}

/* The kernel lists a mapping in parts where they differ in what does not matter here. */
static void no_copy_takes_a_mapping_that_is_listed_in_parts(void **state)
{
    world *w = *state;
    FILE *file = tmpfile();
    assert_non_null(file);
    assert_int_equal(ftruncate(fileno(file), (off_t)(4 * page())), 0);
    for (unsigned of_file = 0; of_file < 2; of_file++) {
        uint8_t *memory = mmap(NULL, 4 * page(), PROT_READ | PROT_WRITE,
                               of_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS,
                               of_file ? fileno(file) : -1, 0);
        assert_ptr_not_equal(memory, MAP_FAILED);
        assert_int_equal(madvise(memory + page(), page(), MADV_DONTFORK), 0);
        id buffer = device_no_copy(w->device, memory, 4 * page(), SHARED, NULL);
        assert_non_null(buffer);
        release(buffer);
        assert_int_equal(munmap(memory, 4 * page()), 0);
    }
    assert_int_equal(fclose(file), 0);
}

static void no_copy_follows_the_devices_page_size(void **state)
{
    world *w = *state;
    fake_metal_options options;
    freed note = {0};
    fake_metal_options_default(&options);
    options.page = 16384;
    world_restart(w, &options);
    uint8_t *memory = pages_map(3 * 16384);
    uint8_t *aligned = memory + (0 - (uintptr_t)memory) % 16384;
    id buffer = no_copy(w, aligned, 2 * 16384, &note);
    assert_non_null(buffer);
    release(buffer);
    assert_int_equal(note.count, 1);
    assert_int_equal(munmap(memory, 3 * 16384), 0);
}

/* ---- managed memory ---- */

static void the_gpu_sees_managed_bytes_after_did_modify(void **state)
{
    world *w = *state;
    uint8_t seen[64];
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    memset(buffer_contents(buffer), 5, 64);
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 0, 64);
    buffer_modified(buffer, (ns_range){16, 32});
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 0, 16);
    assert_all(seen + 16, 5, 32);
    assert_all(seen + 48, 0, 16);
    release(buffer);
}

static void the_host_sees_managed_bytes_after_synchronize(void **state)
{
    world *w = *state;
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    const uint8_t *host = buffer_contents(buffer);
    gpu_fill(w, buffer, (ns_range){0, 64}, 6, false);
    assert_all(host, 0, 64);
    gpu_fill(w, buffer, (ns_range){0, 32}, 8, true);
    assert_all(host, 8, 32);
    assert_all(host + 32, 6, 32);
    release(buffer);
}

static void managed_memory_of_somebody_else_has_two_memories_too(void **state)
{
    world *w = *state;
    uint8_t seen[64];
    discrete(w);
    uint8_t *memory = pages_map(page());
    memset(memory, 3, page());
    id buffer = device_no_copy(w->device, memory, page(), MANAGED, NULL);
    memset(memory, 4, page());
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 3, 64);
    buffer_modified(buffer, (ns_range){0, page()});
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 4, 64);
    release(buffer);
    assert_int_equal(munmap(memory, page()), 0);
}

static void managed_memory_of_one_memory_needs_a_wish(void **state)
{
    world *w = *state;
    fake_metal_options options;
    uint8_t seen[64];
    fake_metal_options_default(&options);
    options.managed_anywhere = true;
    world_restart(w, &options);
    id buffer = device_buffer(w->device, 64, MANAGED);
    memset(buffer_contents(buffer), 5, 64);
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 5, 64);
    release(buffer);
}

static void bytes_given_at_the_start_are_in_both_memories(void **state)
{
    world *w = *state;
    uint8_t seen[8];
    discrete(w);
    id buffer = device_buffer_with(w->device, "12345678", 8, MANAGED);
    assert_memory_equal(buffer_contents(buffer), "12345678", 8);
    gpu_read(w, buffer, seen, sizeof seen);
    assert_memory_equal(seen, "12345678", 8);
    release(buffer);
}

/* ---- purging ---- */

static void volatile_memory_stays_until_it_is_purged(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    memset(buffer_contents(buffer), 5, 64);
    assert_int_equal(purgeable_set(buffer, KEEP), NON_VOLATILE);
    assert_int_equal(purgeable_set(buffer, VOLATILE), NON_VOLATILE);
    assert_int_equal(purgeable_set(buffer, KEEP), VOLATILE);
    assert_int_equal(purgeable_set(buffer, NON_VOLATILE), VOLATILE);
    assert_all(buffer_contents(buffer), 5, 64);
    assert_int_equal(fake_metal_purge(), 0);
    assert_all(buffer_contents(buffer), 5, 64);
    release(buffer);
}

static void purged_memory_has_lost_its_bytes_and_says_so(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    memset(buffer_contents(buffer), 5, 64);
    (void)purgeable_set(buffer, VOLATILE);
    assert_int_equal(fake_metal_purge(), 1);
    assert_int_equal(fake_metal_purge(), 0);
    assert_int_equal(purgeable_set(buffer, VOLATILE), EMPTY);
    assert_int_equal(purgeable_set(buffer, NON_VOLATILE), EMPTY);
    assert_all(buffer_contents(buffer), 0xee, 64);
    gpu_fill(w, buffer, (ns_range){0, 64}, 2, false);
    assert_all(buffer_contents(buffer), 2, 64);
    release(buffer);
}

static void memory_can_be_purged_at_once(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    memset(buffer_contents(buffer), 5, 64);
    fake_metal_set_modes(FAKE_METAL_PURGE_AT_ONCE);
    assert_int_equal(purgeable_set(buffer, VOLATILE), NON_VOLATILE);
    assert_all(buffer_contents(buffer), 0xee, 64);
    assert_int_equal(purgeable_set(buffer, NON_VOLATILE), EMPTY);
    release(buffer);
}

static void emptied_memory_is_lost(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    assert_int_equal(purgeable_set(buffer, EMPTY), NON_VOLATILE);
    assert_all(buffer_contents(buffer), 0xee, 64);
    assert_int_equal(purgeable_set(buffer, NON_VOLATILE), EMPTY);
    release(buffer);
}

static void both_memories_are_purged(void **state)
{
    world *w = *state;
    uint8_t seen[64];
    discrete(w);
    id buffer = device_buffer(w->device, 64, MANAGED);
    (void)purgeable_set(buffer, EMPTY);
    (void)purgeable_set(buffer, NON_VOLATILE);
    assert_all(buffer_contents(buffer), 0xee, 64);
    gpu_read(w, buffer, seen, sizeof seen);
    assert_all(seen, 0xee, 64);
    release(buffer);
}

static void work_on_purgeable_memory_fails_with_invalid_resource(void **state)
{
    world *w = *state;
    id buffer = device_buffer(w->device, 64, SHARED);
    (void)purgeable_set(buffer, VOLATILE);
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, (ns_range){0, 64}, 1);
    end_encoding(encoder);
    assert_int_equal(world_run(command), FAILED);
    assert_int_equal(error_code(command_error(command)), 9);
    id pipeline = world_pipeline(w, "add_one");
    command = queue_command(w->queue);
    encoder = command_compute(command);
    compute_pipeline(encoder, pipeline);
    compute_buffer(encoder, buffer, 0, 0);
    compute_dispatch(encoder, (mtl_size){16, 1, 1}, (mtl_size){1, 1, 1});
    end_encoding(encoder);
    assert_int_equal(world_run(command), FAILED);
    assert_int_equal(error_code(command_error(command)), 9);
    release(pipeline);
    release(buffer);
}

static void a_purged_heap_loses_its_buffers(void **state)
{
    world *w = *state;
    id heap = world_heap(w, 4096, 0);
    id buffer = device_buffer(heap, 64, SHARED);
    memset(buffer_contents(buffer), 5, 64);
    assert_int_equal(purgeable_set(heap, VOLATILE), NON_VOLATILE);
    assert_int_equal(fake_metal_purge(), 1);
    assert_all(buffer_contents(buffer), 0xee, 64);
    id command = queue_command(w->queue);
    id encoder = command_blit(command);
    blit_fill(encoder, buffer, (ns_range){0, 64}, 1);
    end_encoding(encoder);
    assert_int_equal(world_run(command), FAILED);
    assert_int_equal(purgeable_set(heap, NON_VOLATILE), EMPTY);
    gpu_fill(w, buffer, (ns_range){0, 64}, 1, false);
    release(buffer);
    release(heap);
}

/* A device cannot drop what is not its own. */
static void the_memory_of_somebody_else_is_never_purged(void **state)
{
    world *w = *state;
    freed note = {0};
    uint8_t *memory = pages_map(page());
    memset(memory, 5, page());
    id buffer = no_copy(w, memory, page(), &note);
    (void)purgeable_set(buffer, VOLATILE);
    assert_int_equal(fake_metal_purge(), 0);
    assert_all(memory, 5, page());
    release(buffer);
    assert_int_equal(munmap(memory, page()), 0);
}

/* ---- heaps ---- */

static void a_heap_gives_garbage_at_aligned_places(void **state)
{
    world *w = *state;
    const mtl_size_align want = SEND(mtl_size_align, (id, SEL, ns_uint, ns_uint), w->device,
                                     "heapBufferSizeAndAlignWithLength:options:", 100, SHARED);
    assert_int_equal(want.size, 256);
    assert_int_equal(want.align, 256);
    id heap = world_heap(w, 512, 0);
    id one = device_buffer(heap, 100, SHARED);
    id two = device_buffer(heap, 256, SHARED);
    assert_int_equal((uint8_t *)buffer_contents(two) - (uint8_t *)buffer_contents(one), 256);
    assert_all(buffer_contents(one), 0xa7, 100);
    assert_null(device_buffer(heap, 1, SHARED));
    memset(buffer_contents(one), 1, 100);
    release(one);
    id again = device_buffer(heap, 256, SHARED);
    assert_non_null(again);
    assert_all(buffer_contents(again), 0xa7, 256);
    assert_int_equal(allocated(w), 512);
    release(again);
    release(two);
    release(heap);
    assert_int_equal(allocated(w), 0);
}

static void a_heap_of_an_odd_size_is_used_to_its_end(void **state)
{
    world *w = *state;
    id heap = world_heap(w, 300, 0);
    id one = device_buffer(heap, 200, SHARED);
    assert_null(device_buffer(heap, 45, SHARED));
    id two = device_buffer(heap, 44, SHARED);
    assert_non_null(two);
    assert_null(device_buffer(heap, 1, SHARED));
    memset(buffer_contents(two), 1, 44);
    release(two);
    release(one);
    release(heap);
}

static void heaps_and_their_buffers_go_in_any_order(void **state)
{
    world *w = *state;
    id heaps[3];
    id buffers[3];
    for (size_t i = 0; i < 3; i++) {
        heaps[i] = world_heap(w, 1024, 0);
    }
    for (size_t i = 0; i < 3; i++) {
        buffers[i] = device_buffer(heaps[0], 256, SHARED);
    }
    void *second = buffer_contents(buffers[1]);
    release(buffers[1]);
    release(buffers[2]);
    id again = device_buffer(heaps[0], 256, SHARED);
    assert_ptr_equal(buffer_contents(again), second);
    release(buffers[0]);
    release(again);
    assert_int_equal(SEND0(ns_uint, heaps[0], "usedSize"), 0);
    memset(buffer_contents(buffers[0] = device_buffer(heaps[2], 64, SHARED)), 5, 64);
    (void)purgeable_set(heaps[1], VOLATILE);
    release(heaps[1]);
    assert_int_equal(fake_metal_purge(), 0);
    (void)purgeable_set(heaps[0], VOLATILE);
    assert_int_equal(fake_metal_purge(), 1);
    assert_all(buffer_contents(buffers[0]), 5, 64);
    release(buffers[0]);
    release(heaps[0]);
    release(heaps[2]);
    assert_int_equal(allocated(w), 0);
}

static void a_heap_lives_as_long_as_its_buffers(void **state)
{
    world *w = *state;
    id heap = world_heap(w, 4096, 2);
    id buffer = device_buffer(heap, 64, PRIVATE);
    release(heap);
    assert_int_equal(fake_metal_live("MTLHeap"), 1);
    assert_null(buffer_contents(buffer));
    gpu_fill(w, buffer, (ns_range){0, 64}, 1, false);
    release(buffer);
    assert_int_equal(fake_metal_live("MTLHeap"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        world_test(a_buffer_is_zeroed_and_counted_by_pages),
        world_test(fresh_memory_can_be_garbage),
        world_test(private_memory_has_no_contents),
        world_test(beyond_the_memory_limit_there_is_no_buffer),
        world_test(the_largest_buffer_can_be_made),
        world_test(a_buffer_the_system_has_no_room_for_is_not_counted),
        world_test(a_buffer_can_be_denied_by_number),
        world_test(contents_can_be_denied),
        world_test(a_buffer_can_come_without_length),
        world_test(no_copy_is_the_same_memory),
        world_test(the_deallocator_runs_once_with_the_memory),
        world_test(a_deallocator_can_run_late),
        world_test(many_deallocators_can_run_late),
        world_test(a_message_to_a_buffer_that_is_freed_late_is_caught),
        world_test(a_deallocator_can_run_on_the_worker),
        world_test(a_refused_no_copy_leaves_the_block_alone),
        world_test(no_copy_takes_a_mapping_that_is_listed_in_parts),
        world_test(no_copy_follows_the_devices_page_size),
        world_test(the_gpu_sees_managed_bytes_after_did_modify),
        world_test(the_host_sees_managed_bytes_after_synchronize),
        world_test(managed_memory_of_somebody_else_has_two_memories_too),
        world_test(managed_memory_of_one_memory_needs_a_wish),
        world_test(bytes_given_at_the_start_are_in_both_memories),
        world_test(volatile_memory_stays_until_it_is_purged),
        world_test(purged_memory_has_lost_its_bytes_and_says_so),
        world_test(memory_can_be_purged_at_once),
        world_test(emptied_memory_is_lost),
        world_test(both_memories_are_purged),
        world_test(work_on_purgeable_memory_fails_with_invalid_resource),
        world_test(a_purged_heap_loses_its_buffers),
        world_test(the_memory_of_somebody_else_is_never_purged),
        world_test(a_heap_gives_garbage_at_aligned_places),
        world_test(a_heap_of_an_odd_size_is_used_to_its_end),
        world_test(heaps_and_their_buffers_go_in_any_order),
        world_test(a_heap_lives_as_long_as_its_buffers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

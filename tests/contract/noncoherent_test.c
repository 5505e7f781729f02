/*
 * Brackets over a device that shares the memory but not the caches, which no machine here has: the
 * OpenCL driver over the strict OpenCL in memory. Its GPU keeps a copy of what it wraps, so a
 * bracket that does not hand the bytes over computes with stale ones.
 */
#include "contract.h"

#include "driver/opencl/fake_opencl.h"
#include "os/os.h"

#include <stdlib.h>

enum {
    PLACE = 4096, /* the fake GPU's sub-buffers start at multiples */
    PLACES = 6,
    BYTES = PLACE * PLACES
};

typedef struct gpu {
    umo_device *device;
    umo_scope *scope;
    umo_program *program;
    umo_kernel *add;
} gpu;

static int gpu_setup(void **state)
{
    static const umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = "add", .size_bytes = 3};
    gpu *g = calloc(1, sizeof *g);
    assert_non_null(g);
    fake_reset_gpu();
    umo_opencl_api_replace(&fake_api);
    assert_int_equal(umo_device_open("opencl", 0, NULL, &g->device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "gpu", 0, &g->scope, NULL), UMO_OK);
    assert_int_equal(umo_program_create(g->device, &source, &g->program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(g->program, "add", &g->add, NULL), UMO_OK);
    assert_int_equal(umo_device_info_get(g->device)->caps & UMO_CAP_COHERENT, 0);
    *state = g;
    return 0;
}

static int gpu_teardown(void **state)
{
    gpu *g = *state;
    umo_counters counters;
    umo_scope_read(g->scope, &counters);
    umo_kernel_destroy(g->add);
    umo_program_destroy(g->program);
    umo_scope_destroy(g->scope);
    umo_device_release(g->device);
    free(g);
    umo_opencl_api_replace(NULL);
    bool clean = counters.live_buffers == 0 && fake.violations == 0;
    for (int kind = 0; kind < FAKE_KINDS; kind++) {
        clean = clean && fake.live[kind] == 0;
    }
    return clean ? 0 : -1;
}

static void pattern(unsigned char *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; i < size; i++) {
        bytes[i] = (unsigned char)((size_t)seed * 31 + i * 7 + i / 251);
    }
}

static void host_write(umo_buffer *buffer, size_t offset, const unsigned char *bytes, size_t size)
{
    const umo_access access = contract_use(offset, size, UMO_SIDE_HOST, UMO_WRITE, 0);
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    memcpy((unsigned char *)umo_buffer_host(buffer) + offset, bytes, size);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

static void host_expect(umo_buffer *buffer, size_t offset, const unsigned char *bytes, size_t size)
{
    const umo_access access = contract_use(offset, size, UMO_SIDE_HOST, UMO_READ, 0);
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_memory_equal((unsigned char *)umo_buffer_host(buffer) + offset, bytes, size);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

/* Adds amount to every byte of whole places. */
static void device_add(const gpu *g, umo_buffer *buffer, size_t offset, size_t size, int amount,
                       uint32_t queue)
{
    const umo_access access = contract_use(offset, size, UMO_SIDE_DEVICE, UMO_READ_WRITE, queue);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(buffer),
         .offset_bytes = umo_buffer_memory_offset(buffer) + offset},
        {.kind = UMO_ARG_VALUE, .value = &amount, .size_bytes = sizeof amount},
        {.kind = UMO_ARG_LOCAL, .size_bytes = 16},
    };
    const umo_grid grid = {.dimensions = 1, .global = {size}};
    umo_fence_set waits;
    umo_fence done = {0};
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(
        umo_kernel_launch(g->add, queue, args, 3, &grid, waits.fences, waits.count, &done, NULL),
        UMO_OK);
    assert_int_equal(umo_access_end(buffer, &access, done), UMO_OK);
}

static umo_buffer *wrapped(const gpu *g, unsigned char *pages, bool import)
{
    umo_buffer *buffer = NULL;
    const umo_import memory = {
        .data = pages, .size_bytes = BYTES, .writable = true, .whole_pages = true};
    umo_status status =
        import ? umo_buffer_import(g->device, g->scope, &memory, &buffer, NULL, NULL)
               : umo_buffer_alloc(g->device, g->scope, BYTES, UMO_UNIFIED, &buffer, NULL);
    assert_int_equal(status, UMO_OK);
    return buffer;
}

static void each_side_sees_what_the_other_wrote(void **state)
{
    const gpu *g = *state;
    unsigned char *pages = umo_os_pages_alloc(BYTES);
    unsigned char *model = malloc(BYTES);
    assert_non_null(pages);
    assert_non_null(model);
    for (int import = 0; import < 2; import++) {
        memset(pages, 1, BYTES);
        memset(model, 1, BYTES);
        umo_buffer *buffer = wrapped(g, pages, import != 0);
        if (import == 0) {
            host_write(buffer, 0, model, BYTES);
        }
        for (int round = 0; round < 4; round++) {
            device_add(g, buffer, 0, BYTES, 1, 0);
            for (size_t i = 0; i < BYTES; i++) {
                model[i]++;
            }
            /* Read, then written: the second is a new use of bytes that were valid on both sides.
             */
            host_expect(buffer, 0, model, BYTES);
            memset(model, 10 * round, BYTES);
            host_write(buffer, 0, model, BYTES);
            host_expect(buffer, 0, model, BYTES);
        }
        umo_buffer_release(buffer);
    }
    umo_os_pages_free(pages, BYTES);
    free(model);
}

static void random_uses_agree_with_a_plain_model(void **state)
{
    const gpu *g = *state;
    unsigned char *pages = umo_os_pages_alloc(BYTES);
    unsigned char *model = malloc(BYTES);
    assert_non_null(pages);
    assert_non_null(model);
    for (int kind = 0; kind < 3; kind++) {
        uint64_t random = 88172645463325252u + (uint64_t)kind;
        pattern(model, BYTES, 1);
        memcpy(pages, model, BYTES);
        umo_buffer *buffer = NULL;
        if (kind < 2) {
            buffer = wrapped(g, pages, kind == 1);
        } else {
            assert_int_equal(
                umo_buffer_alloc_movable(g->device, g->scope, BYTES, UMO_UNIFIED, &buffer, NULL),
                UMO_OK);
        }
        if (kind != 1) {
            host_write(buffer, 0, model, BYTES);
        }
        for (unsigned round = 0; round < 1000; round++) {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            const size_t offset = (size_t)(random >> 8) % BYTES;
            const size_t size = 1 + (size_t)(random >> 24) % (BYTES - offset);
            const size_t place = (size_t)(random >> 40) % PLACES;
            const size_t places = 1 + (size_t)(random >> 44) % (PLACES - place);
            if (kind == 2 && (random >> 58) % 8 == 0) {
                const umo_storage_mode mode = (umo_storage_mode)((random >> 61) % 3);
                assert_int_equal(umo_buffer_move(buffer, mode, 0, NULL), UMO_OK);
            }
            switch (random & 3) {
            case 0:
                pattern(model + offset, size, round);
                host_write(buffer, offset, model + offset, size);
                break;
            case 1:
                host_expect(buffer, offset, model + offset, size);
                break;
            default:
                device_add(g, buffer, place * PLACE, places * PLACE, 3,
                           (uint32_t)(random >> 50) % 4);
                for (size_t i = place * PLACE; i < (place + places) * PLACE; i++) {
                    model[i] = (unsigned char)(model[i] + 3);
                }
                break;
            }
            assert_int_equal(fake.violations, 0);
        }
        host_expect(buffer, 0, model, BYTES);
        umo_buffer_release(buffer);
    }
    umo_os_pages_free(pages, BYTES);
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_side_sees_what_the_other_wrote, gpu_setup,
                                        gpu_teardown),
        cmocka_unit_test_setup_teardown(random_uses_agree_with_a_plain_model, gpu_setup,
                                        gpu_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

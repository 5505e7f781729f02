/*
 * The fake driver's table. One device, whose memory is the host's.
 */
#include "fake_device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fake_device fake;

static uint64_t fence_next = 1;

void fake_device_reset(size_t arg_count)
{
    const long live = fake.live;
    fake = (fake_device){.arg_count = arg_count, .fail_after = -1, .live = live};
}

static bool refuses(void)
{
    return fake.fail_after >= 0 && fake.fail_after-- == 0;
}

static umo_status fake_count(uint32_t *out, umo_error *error)
{
    (void)error;
    *out = 1;
    return UMO_OK;
}

static umo_status fake_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                            umo_device_info *out_info, umo_error *error)
{
    (void)ordinal;
    (void)options;
    if (refuses()) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "the fake device does not open");
    }
    *out_info = (umo_device_info){.name = "fake",
                                  .driver = FAKE_DRIVER,
                                  .caps = UMO_CAP_UNIFIED | UMO_CAP_COHERENT | UMO_CAP_KERNELS |
                                          UMO_CAP_IMPORT_READ,
                                  .queues = FAKE_QUEUES,
                                  .import_align_bytes = 1,
                                  .write_granule_bytes = 1,
                                  .language = UMO_LANGUAGE_OPENCL_C,
                                  .import_size_align_bytes = 1,
                                  .alloc_align_bytes = 64,
                                  .buffer_max_bytes = UINT64_C(1) << 32};
    *out_state = &fake;
    return UMO_OK;
}

static void fake_close(void *state)
{
    (void)state;
}

static umo_status fake_alloc(void *state, size_t size_bytes, umo_storage_mode mode, umo_memory *out,
                             umo_error *error)
{
    (void)state;
    void *host = refuses() ? NULL : malloc(size_bytes);
    if (host == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "the fake device is full");
    }
    memset(host, 0xa5, size_bytes);
    fake.live++;
    *out = (umo_memory){.host = host, .native = host, .size_bytes = size_bytes, .mode = mode};
    return UMO_OK;
}

static umo_status fake_import(void *state, void *data, size_t size_bytes, uint32_t flags,
                              umo_memory *out, umo_reason *why, umo_error *error)
{
    (void)state;
    (void)flags;
    if (refuses()) {
        *why = UMO_REASON_DEVICE_REFUSED;
        return umo_error_set(error, UMO_E_REFUSED, 0, "the fake device binds nothing");
    }
    fake.live++;
    *out = (umo_memory){.host = data,
                        .native = data,
                        .size_bytes = size_bytes,
                        .mode = UMO_UNIFIED,
                        .imported = true};
    return UMO_OK;
}

static void fake_free(void *state, umo_memory *memory)
{
    (void)state;
    if (!memory->imported) {
        free(memory->host);
    }
    fake.live--;
}

static umo_status fake_copy(void *state, uint32_t queue, const umo_memory *source,
                            size_t source_offset_bytes, umo_memory *target,
                            size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                            size_t wait_count, umo_fence *out)
{
    (void)state;
    (void)queue;
    (void)waits;
    (void)wait_count;
    memcpy((char *)target->host + target_offset_bytes,
           (const char *)source->host + source_offset_bytes, size_bytes);
    *out = (umo_fence){.value = fence_next++};
    return UMO_OK;
}

static bool fake_fence_done(void *state, uint32_t queue, uint64_t value)
{
    (void)state;
    (void)queue;
    (void)value;
    return fake.fence_says == UMO_OK;
}

static umo_status fake_fence_wait(void *state, uint32_t queue, uint64_t value, uint64_t timeout_ns)
{
    (void)state;
    (void)queue;
    (void)value;
    (void)timeout_ns;
    return fake.fence_says;
}

static umo_status object_make(char *object, void **out, umo_error *error)
{
    if (object == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the fake device");
    }
    fake.live++;
    *out = object;
    return UMO_OK;
}

static umo_status fake_program_create(void *state, const umo_program_source *source, void **out,
                                      umo_error *error)
{
    (void)state;
    if (refuses()) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the program does not build: line 1: no");
    }
    fake.programs++;
    strncpy(fake.text, source->text, sizeof fake.text - 1);
    strncpy(fake.options, source->options != NULL ? source->options : "", sizeof fake.options - 1);
    return object_make(strdup("program"), out, error);
}

static void fake_object_destroy(void *state, void *object)
{
    (void)state;
    free(object);
    fake.live--;
}

static umo_status fake_kernel_create(void *state, void *program, const char *name, void **out,
                                     umo_error *error)
{
    (void)state;
    (void)program;
    if (refuses()) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the program has no kernel '%s'", name);
    }
    return object_make(strdup(name), out, error);
}

/* Writes the launch down. */
static void log_launch(const fake_launch *made)
{
    if (fake.launches < FAKE_LOG) {
        fake.log[fake.launches] = *made;
    }
    fake.launches++;
    fake.queue = made->queue;
    fake.grid = made->grid;
    memcpy(fake.args, made->args, sizeof fake.args);
    memcpy(fake.values, made->values, sizeof fake.values);
    memcpy(fake.waits, made->waits, sizeof fake.waits);
    fake.wait_count = made->wait_count;
}

static umo_status fake_kernel_launch(void *state, uint32_t queue, void *kernel,
                                     const umo_kernel_arg *args, size_t arg_count,
                                     const umo_grid *grid, const umo_fence *waits,
                                     size_t wait_count, umo_fence *out, umo_error *error)
{
    (void)state;
    fake_launch made = {.queue = queue, .grid = *grid, .arg_count = arg_count};
    if (refuses()) {
        return umo_error_set(error, UMO_E_DEVICE, 0, "the fake device fails");
    }
    /* libumo's own kernels are no model's. */
    if (arg_count != fake.arg_count && fake.arg_count != 0 && strncmp(kernel, "umo_", 4) != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the kernel takes %zu argument(s), not %zu",
                             fake.arg_count, arg_count);
    }
    if (fake.group_max != 0 && (grid->global[0] > fake.group_max ||
                                (grid->local[0] != 0 && grid->global[0] % grid->local[0] != 0))) {
        return umo_error_set(error, UMO_E_INVAL, -54, "that work size is refused");
    }
    (void)snprintf(made.name, sizeof made.name, "%s", (const char *)kernel);
    memcpy(made.args, args, arg_count * sizeof args[0]);
    for (size_t i = 0; i < arg_count; i++) {
        if (args[i].kind == UMO_ARG_VALUE && args[i].size_bytes <= sizeof made.values[0]) {
            memcpy(&made.values[i], args[i].value, args[i].size_bytes);
        }
    }
    made.wait_count = wait_count;
    if (wait_count > 0) {
        memcpy(made.waits, waits, wait_count * sizeof waits[0]);
    }
    made.value = fence_next++;
    *out = (umo_fence){.value = made.value};
    log_launch(&made);
    return UMO_OK;
}

static const umo_driver driver = {
    .abi = UMO_DRIVER_ABI,
    .size_bytes = sizeof(umo_driver),
    .name = FAKE_DRIVER,
    .count = fake_count,
    .open = fake_open,
    .close = fake_close,
    .alloc = fake_alloc,
    .free = fake_free,
    .import = fake_import,
    .copy = fake_copy,
    .fence_done = fake_fence_done,
    .fence_wait = fake_fence_wait,
    .program_create = fake_program_create,
    .program_destroy = fake_object_destroy,
    .kernel_create = fake_kernel_create,
    .kernel_destroy = fake_object_destroy,
    .kernel_launch = fake_kernel_launch,
};

void fake_device_register(void)
{
    umo_error error;
    /* A second registration is refused, which is as good. */
    umo_status_ignore(umo_driver_register(&driver, &error));
}

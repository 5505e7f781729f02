/*
 * Devices, fences and kernels: reference counts and checks around a driver's table. The driver
 * never sees a fence of another device: those are waited for on the calling thread.
 */
#include "driver/device.h"

#include "driver/ops/ops.h"
#include "driver/registry.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

uint32_t umo_device_ordinal(const umo_device *device)
{
    return device->ordinal;
}

umo_status umo_device_open(const char *name, uint32_t ordinal, const umo_driver_options *options,
                           umo_device **out, umo_error *error)
{
    const umo_driver *driver = umo_driver_find(name);
    if (driver == NULL) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "there is no driver '%s'", name);
    }
    uint32_t count = 0;
    umo_status status = driver->count(&count, error);
    if (status != UMO_OK) {
        return status;
    }
    if (ordinal >= count) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0,
                             "driver '%s' has %u device(s), no number %u", name, count, ordinal);
    }
    const umo_driver_options defaults = {0};
    umo_device *device = calloc(1, sizeof *device);
    if (device == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a device");
    }
    options = options != NULL ? options : &defaults;
    atomic_init(&device->refs, 1);
    device->driver = driver;
    static _Atomic uint32_t numbers;
    device->number = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed) + 1;
    device->ordinal = ordinal;
    device->test_mode = options->test_mode;
    status = driver->open(ordinal, options, &device->state, &device->info, error);
    if (status != UMO_OK) {
        free(device);
        return status;
    }
    const char *missing = umo_driver_missing(driver, &device->info);
    if (missing != NULL) {
        driver->close(device->state);
        free(device);
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "driver '%s' promises '%s' and does not have it", name, missing);
    }
    *out = device;
    return UMO_OK;
}

void umo_device_acquire(umo_device *device)
{
    atomic_fetch_add_explicit(&device->refs, 1, memory_order_relaxed);
}

void umo_device_release(umo_device *device)
{
    if (device != NULL && atomic_fetch_sub_explicit(&device->refs, 1, memory_order_acq_rel) == 1) {
        umo_ops_finish(device);
        device->driver->close(device->state);
        free(device);
    }
}

const umo_device_info *umo_device_info_get(const umo_device *device)
{
    return &device->info;
}

umo_status umo_device_usage_get(umo_device *device, umo_device_usage *out)
{
    if ((device->info.caps & UMO_CAP_USAGE) == 0) {
        return UMO_E_UNSUPPORTED;
    }
    return device->driver->usage(device->state, out);
}

bool umo_fence_done(umo_fence fence)
{
    return fence.value == 0 ||
           fence.device->driver->fence_done(fence.device->state, fence.queue, fence.value);
}

umo_status umo_fence_wait(umo_fence fence, uint64_t timeout_ns)
{
    if (fence.value == 0) {
        return UMO_OK;
    }
    return fence.device->driver->fence_wait(fence.device->state, fence.queue, fence.value,
                                            timeout_ns);
}

umo_status umo_device_waits(umo_device *device, const umo_fence *waits, size_t wait_count,
                            umo_fence own[UMO_WAITS_MAX], size_t *own_count)
{
    size_t kept = 0;
    for (size_t i = 0; i < wait_count; i++) {
        if (waits[i].value == 0) {
            continue;
        }
        if (waits[i].device == device && kept < UMO_WAITS_MAX) {
            own[kept++] = waits[i];
            continue;
        }
        umo_status status = umo_fence_wait(waits[i], UINT64_MAX);
        if (status != UMO_OK) {
            return status;
        }
    }
    *own_count = kept;
    return UMO_OK;
}

struct umo_program {
    umo_device *device;
    void *native;
};

struct umo_kernel {
    umo_program *program;
    void *native;
};

umo_status umo_program_create(umo_device *device, const umo_program_source *source,
                              umo_program **out, umo_error *error)
{
    if ((device->info.caps & UMO_CAP_KERNELS) == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "device '%s' runs no kernels",
                             device->info.name);
    }
    umo_program *program = calloc(1, sizeof *program);
    if (program == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a program");
    }
    umo_status status =
        device->driver->program_create(device->state, source, &program->native, error);
    if (status != UMO_OK) {
        free(program);
        return status;
    }
    umo_device_acquire(device);
    program->device = device;
    *out = program;
    return UMO_OK;
}

void umo_program_destroy(umo_program *program)
{
    if (program != NULL) {
        program->device->driver->program_destroy(program->device->state, program->native);
        umo_device_release(program->device);
        free(program);
    }
}

umo_status umo_kernel_create(umo_program *program, const char *name, umo_kernel **out,
                             umo_error *error)
{
    umo_kernel *kernel = calloc(1, sizeof *kernel);
    if (kernel == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a kernel");
    }
    umo_device *device = program->device;
    umo_status status =
        device->driver->kernel_create(device->state, program->native, name, &kernel->native, error);
    if (status != UMO_OK) {
        free(kernel);
        return status;
    }
    kernel->program = program;
    *out = kernel;
    return UMO_OK;
}

void umo_kernel_destroy(umo_kernel *kernel)
{
    if (kernel != NULL) {
        umo_device *device = kernel->program->device;
        device->driver->kernel_destroy(device->state, kernel->native);
        free(kernel);
    }
}

umo_status umo_kernel_launch(umo_kernel *kernel, uint32_t queue, const umo_kernel_arg *args,
                             size_t arg_count, const umo_grid *grid, const umo_fence *waits,
                             size_t wait_count, umo_fence *out, umo_error *error)
{
    umo_device *device = kernel->program->device;
    if (queue >= device->info.queues) {
        return umo_error_set(error, UMO_E_INVAL, 0, "device '%s' has %u queue(s), no number %u",
                             device->info.name, device->info.queues, queue);
    }
    if (arg_count > UMO_KERNEL_ARGS_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu arguments; a kernel takes at most %u",
                             arg_count, UMO_KERNEL_ARGS_MAX);
    }
    if (grid->dimensions < 1 || grid->dimensions > 3) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a grid has 1 to 3 dimensions, not %u",
                             grid->dimensions);
    }
    for (uint32_t d = 0; d < grid->dimensions; d++) {
        if (grid->global[d] == 0) {
            return umo_error_set(error, UMO_E_INVAL, 0, "the grid's dimension %u is 0", d);
        }
    }
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count = 0;
    umo_status status = umo_device_waits(device, waits, wait_count, own, &own_count);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "work that the kernel waits for failed");
    }
    umo_fence fence = {0};
    status = device->driver->kernel_launch(device->state, queue, kernel->native, args, arg_count,
                                           grid, own, own_count, &fence, error);
    if (status == UMO_OK) {
        fence.device = device;
        fence.queue = queue;
        *out = fence;
    }
    return status;
}

/*
 * The program of a device's operations: built once a device, through the driver's table alone, so
 * that devices can end what operations began.
 */
#include "driver/device.h"
#include "driver/ops/ops.h"

#include <stdlib.h>

bool umo_ops_source(const umo_device *device, umo_program_source *out)
{
    *out = (umo_program_source){.kind = UMO_PROGRAM_SOURCE};
    if ((device->info.caps & UMO_CAP_KERNELS) == 0 ||
        device->info.alloc_align_bytes < UMO_OPS_WORD_BYTES) {
        return false;
    }
    switch (device->info.language) {
    case UMO_LANGUAGE_HOST:
        out->kind = UMO_PROGRAM_HOST;
        out->text = umo_ops_host_kernels;
        return true;
    case UMO_LANGUAGE_OPENCL_C:
        out->text = umo_ops_opencl_text;
        out->size_bytes = umo_ops_opencl_text_bytes;
        out->options = "-cl-std=CL1.2";
        return true;
    case UMO_LANGUAGE_METAL:
        out->text = umo_ops_metal_text;
        out->size_bytes = umo_ops_metal_text_bytes;
        return true;
    case UMO_LANGUAGE_CUDA:
        return false;
    }
    return false;
}

static void ops_destroy(const umo_device *device, umo_ops *ops)
{
    const umo_driver *driver = device->driver;
    void *const kernels[] = {ops->move, ops->fill, ops->convert};
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0]; i++) {
        if (kernels[i] != NULL) {
            driver->kernel_destroy(device->state, kernels[i]);
        }
    }
    if (ops->program != NULL) {
        driver->program_destroy(device->state, ops->program);
    }
    free(ops);
}

static umo_status ops_create(const umo_device *device, umo_ops **out, umo_error *error)
{
    const umo_driver *driver = device->driver;
    umo_error inner = {0};
    umo_program_source source;
    if (!umo_ops_source(device, &source)) {
        (void)umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                            "device '%s' runs no kernels in a language that umo's operations are "
                            "written in",
                            device->info.name);
        return UMO_E_UNSUPPORTED;
    }
    umo_ops *ops = calloc(1, sizeof *ops);
    if (ops == NULL) {
        (void)umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a device's operations");
        return UMO_E_NOMEM;
    }
    umo_status status = driver->program_create(device->state, &source, &ops->program, &inner);
    const struct {
        const char *name;
        void **kernel;
    } kernels[] = {
        {"umo_move", &ops->move}, {"umo_fill", &ops->fill}, {"umo_convert", &ops->convert}};
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0] && status == UMO_OK; i++) {
        status = driver->kernel_create(device->state, ops->program, kernels[i].name,
                                       kernels[i].kernel, &inner);
    }
    if (status != UMO_OK) {
        ops_destroy(device, ops);
        (void)umo_error_set(error, status, inner.native,
                            "the operations of device '%s' do not build: %s", device->info.name,
                            inner.text);
        return status;
    }
    *out = ops;
    return UMO_OK;
}

/* Builds without a lock, as a compiler may take long: whoever comes second throws its own away. */
umo_status umo_ops_get(umo_device *device, const umo_ops **out, umo_error *error)
{
    umo_ops *ops = atomic_load_explicit(&device->ops, memory_order_acquire);
    if (ops == NULL) {
        umo_ops *made = NULL;
        umo_status status = ops_create(device, &made, error);
        if (status != UMO_OK) {
            return status;
        }
        if (atomic_compare_exchange_strong(&device->ops, &ops, made)) {
            ops = made;
        } else {
            ops_destroy(device, made);
        }
    }
    *out = ops;
    return UMO_OK;
}

void umo_ops_finish(umo_device *device)
{
    umo_ops *ops = atomic_load_explicit(&device->ops, memory_order_acquire);
    if (ops != NULL) {
        ops_destroy(device, ops);
    }
}

bool umo_ops_ready(const umo_device *device)
{
    return atomic_load_explicit(&device->ops, memory_order_acquire) != NULL;
}

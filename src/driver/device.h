/*
 * The inside of a umo_device, for the layers of libumo: the driver's table is called through it
 * directly.
 */
#ifndef UMO_DRIVER_DEVICE_H
#define UMO_DRIVER_DEVICE_H

#include <umo/device.h>

#include <stdatomic.h>

struct umo_device {
    _Atomic uint32_t refs;
    const umo_driver *driver;
    void *state;
    uint32_t number;  /* that no other device of the process has, from 1 on */
    uint32_t ordinal; /* among its driver's */
    bool test_mode;
    umo_device_info info;
    _Atomic(struct umo_ops *) ops; /* NULL until an operation is first asked for */
};

/* Splits waits into those of this device (kept in own, at most UMO_WAITS_MAX) and others, which are
 * waited for here. */
umo_status umo_device_waits(umo_device *device, const umo_fence *waits, size_t wait_count,
                            umo_fence own[UMO_WAITS_MAX], size_t *own_count);

#endif

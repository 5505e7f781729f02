/*
 * A device for tests: a driver that takes any text for a program, records launches, and refuses on
 * demand.
 *
 * The work of a launch is done at once; its fence is a number that passes when the test waits for
 * it.
 */
#ifndef UMO_KERNEL_FAKE_DEVICE_H
#define UMO_KERNEL_FAKE_DEVICE_H

#include <umo/umo.h>

#define FAKE_DRIVER "fake"
#define FAKE_QUEUES 2u

#define FAKE_LOG 16u

/* A launch. */
typedef struct fake_launch {
    char name[32];
    uint32_t queue;
    umo_grid grid;
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX];
    size_t arg_count;
    uint64_t values[UMO_KERNEL_ARGS_MAX]; /* of scalar arguments */
    umo_fence waits[UMO_WAITS_MAX];
    size_t wait_count;
    uint64_t value; /* of its fence */
} fake_launch;

typedef struct fake_device {
    /* What a test sets. */
    size_t arg_count; /* of every kernel of a model; 0: any number */
    size_t group_max; /* a grid whose first dimension is no multiple of local, or longer, is refused
                         with -54 */
    long fail_after;  /* this many fallible calls succeed, the next fails; negative: none */
    umo_status fence_says; /* what waiting for a launch's fence returns */
    /* What a test reads. */
    long live;       /* memories, programs and kernels that exist */
    size_t programs; /* built since the reset */
    size_t launches;
    fake_launch log[FAKE_LOG]; /* the first ones */
    /* Of the last launch. */
    uint32_t queue;
    umo_grid grid;
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX];
    uint64_t values[UMO_KERNEL_ARGS_MAX]; /* of scalar arguments */
    umo_fence waits[UMO_WAITS_MAX];
    size_t wait_count;
    char text[256];
    char options[64];
} fake_device;

extern fake_device fake;

/* Registers the driver; the first call counts. */
void fake_device_register(void);

/* Everything back to its beginning. */
void fake_device_reset(size_t arg_count);

#endif

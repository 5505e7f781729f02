/**
 * @file device.h
 * Devices: found by driver name and ordinal, opened once, shared by reference count; fences;
 * kernels.
 */
#ifndef UMO_DEVICE_H
#define UMO_DEVICE_H

#include <umo/driver.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_device umo_device;
typedef struct umo_program umo_program;
typedef struct umo_kernel umo_kernel;

/**
 * Adds a driver of one's own beside the built-in ones ("host", "opencl").
 *
 * @param driver  Outlives the process's use of umo.
 *
 * Errors:    INVAL  another ABI, no count, open or close, no name, or one that is taken or has more
 *                   than 15 letters.
 *            LIMIT  the registry holds 16 drivers.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_driver_register(const umo_driver *driver, umo_error *error);

/**
 * How many devices a driver sees.
 *
 * Errors:    NOT_FOUND  no driver of that name, or its system library is missing (the text says
 * which). Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_driver_count(const char *driver, uint32_t *out,
                                                 umo_error *error);

/**
 * Opens a device. Most users take one from a context instead (context.h), which opens each device
 * once.
 *
 * @param options  NULL for the defaults.
 *
 * Errors:    NOT_FOUND    no such driver or ordinal.
 *            UNSUPPORTED  the driver promises a group of functions that it does not have, or its
 *                         facts cannot be (no queue, an alignment that is no power of two).
 * Ownership: one reference, given back by umo_device_release(). Buffers and programs hold their
 * own. Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_device_open(const char *driver, uint32_t ordinal,
                                                const umo_driver_options *options, umo_device **out,
                                                umo_error *error);

/** One more reference. Threads: any. */
UMO_API void umo_device_acquire(umo_device *device);

/** NULL is allowed. The last release waits for the queues and closes the device. */
UMO_API void umo_device_release(umo_device *device);

/** Facts read at opening; valid as long as the device. */
UMO_API const umo_device_info *umo_device_info_get(const umo_device *device);

/** True when the command has completed; always for value 0. Threads: any. */
UMO_API bool umo_fence_done(umo_fence fence);

/**
 * Waits for a command.
 *
 * @param timeout_ns  UINT64_MAX waits for ever.
 *
 * Errors:    DEVICE   the command or one before it in its queue failed.
 *            TIMEOUT.
 * Threads:   any. Holds no lock.
 */
UMO_API UMO_MUST_USE umo_status umo_fence_wait(umo_fence fence, uint64_t timeout_ns);

/**
 * Builds a program.
 *
 * Errors:    INVAL        the text does not build; the error holds what fits of the compiler's
 * message. UNSUPPORTED  the device runs no kernels. Ownership: destroyed by umo_program_destroy(),
 * after its kernels.
 */
UMO_API UMO_MUST_USE umo_status umo_program_create(umo_device *device,
                                                   const umo_program_source *source,
                                                   umo_program **out, umo_error *error);
/** NULL is allowed. */
UMO_API void umo_program_destroy(umo_program *program);

/** Errors: NOT_FOUND no kernel of that name. Ownership: umo_kernel_destroy(); the program outlives
 * it. */
UMO_API UMO_MUST_USE umo_status umo_kernel_create(umo_program *program, const char *name,
                                                  umo_kernel **out, umo_error *error);
/** NULL is allowed. */
UMO_API void umo_kernel_destroy(umo_kernel *kernel);

/**
 * Queues one launch.
 *
 * @param waits  Fences of any device; those of others are waited for on this thread.
 *
 * Errors:    INVAL   arguments that do not fit the kernel, or a zero-sized grid.
 *            DEVICE  the driver would not take it.
 * Threads:   any, also at the same time with one kernel.
 */
UMO_API UMO_MUST_USE umo_status umo_kernel_launch(umo_kernel *kernel, uint32_t queue,
                                                  const umo_kernel_arg *args, size_t arg_count,
                                                  const umo_grid *grid, const umo_fence *waits,
                                                  size_t wait_count, umo_fence *out,
                                                  umo_error *error);

#ifdef __cplusplus
}
#endif

#endif

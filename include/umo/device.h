/**
 * @file device.h
 * Devices: found by driver name and ordinal, opened once, shared by reference count; fences;
 * kernels.
 */
#ifndef UMO_DEVICE_H
#define UMO_DEVICE_H

#include <umo/driver.h>
#include <umo/dtype.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct umo_device umo_device;
typedef struct umo_program umo_program;
typedef struct umo_kernel umo_kernel;

/**
 * Adds a driver of one's own beside the built-in ones ("host", "opencl", "metal").
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
 * so). Threads:   any.
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
 * Ownership: one reference, given back by umo_device_release(). Buffers and programs hold theirs.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_device_open(const char *driver, uint32_t ordinal,
                                                const umo_driver_options *options, umo_device **out,
                                                umo_error *error);

/** One more reference. Threads: any. */
UMO_API void umo_device_acquire(umo_device *device);

/** NULL is allowed. The last release waits for the queues and closes the device. */
UMO_API void umo_device_release(umo_device *device);

/** Its number among the devices of its driver, from 0. Threads: any. */
UMO_API uint32_t umo_device_ordinal(const umo_device *device);

/** Facts read at opening; valid as long as the device. */
UMO_API const umo_device_info *umo_device_info_get(const umo_device *device);

/**
 * Figures that change while the device is open.
 *
 * Errors:    UNSUPPORTED  the driver does not tell them (UMO_CAP_USAGE). DEVICE.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_device_usage_get(umo_device *device, umo_device_usage *out);

/** True when the command has completed; always for value 0. Threads: any. */
UMO_API bool umo_fence_done(umo_fence fence);

/**
 * Waits for a command.
 *
 * @param timeout_ns  UINT64_MAX waits for ever.
 *
 * Errors:    DEVICE   the command or one before it in its queue failed.
 *            NOMEM    likewise, because the device's memory was out: worth another try later.
 *            TIMEOUT.
 * Threads:   any. Holds no lock.
 */
UMO_API UMO_MUST_USE umo_status umo_fence_wait(umo_fence fence, uint64_t timeout_ns);

/**
 * Builds a program.
 *
 * Errors:    INVAL        the text does not build; the error holds what fits of the message.
 *            UNSUPPORTED  the device runs no kernels.
 * Ownership: destroyed by umo_program_destroy(), after its kernels.
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

/** A range of a memory of a device: one piece of a gather or a scatter. */
typedef struct umo_piece {
    const umo_memory *memory;
    size_t offset_bytes; /**< of its first byte inside memory */
    size_t size_bytes;   /**< 0 is allowed */
} umo_piece;

/*
 * Operations on bytes, for every device. A device that runs kernels builds one program for them,
 * from text inside libumo, when the first of them is called; umo_device_prepare() does it before.
 * It lives as long as the device. What they have in common:
 *
 * - Offsets are bytes inside the memories and need no alignment unless said.
 * - They queue work and return; waits and the fence are as for umo_kernel_launch(). Where there is
 *   nothing to do, the fence has passed already, whatever the waits.
 * - After an error nothing of the operation runs any more: what was queued has been waited for, and
 *   the bytes to be written are undefined.
 *
 * Errors of all: INVAL        a range outside its memory, no such queue, or what each adds.
 *                UNSUPPORTED  the device runs no kernels, or none in a language that libumo has the
 *                             program in; gather and scatter then use the driver's copy.
 *                others       the program did not build (the next call tries again, so each says
 *                             why), or the driver would not take the work.
 */

/**
 * Builds the program of the operations below, so that the first of them need not.
 *
 * Errors:    as above.
 * Threads:   any. Two threads may both build; one program is kept.
 * Cost:      a compiler's run, once a device; nothing afterwards.
 */
UMO_API UMO_MUST_USE umo_status umo_device_prepare(umo_device *device, umo_error *error);

/**
 * Copies pieces, one behind the other, into one range of target. No byte that is written may lie in
 * a piece.
 *
 * Errors:    INVAL  a piece and the target overlap.
 *            NOMEM.
 * Threads:   any.
 * Cost:      one command for each long piece (256 KiB) and one for each eight of the others.
 */
UMO_API UMO_MUST_USE umo_status umo_device_gather(umo_device *device, uint32_t queue,
                                                  const umo_piece *pieces, size_t piece_count,
                                                  const umo_memory *target, size_t offset_bytes,
                                                  const umo_fence *waits, size_t wait_count,
                                                  umo_fence *out, umo_error *error);

/**
 * The way back: copies one range of source into pieces, which take their bytes one behind the
 * other.
 *
 * Errors:    INVAL  two pieces overlap, or a piece and the source.
 *            NOMEM.
 * Threads:   any.
 * Cost:      as umo_device_gather().
 */
UMO_API UMO_MUST_USE umo_status umo_device_scatter(umo_device *device, uint32_t queue,
                                                   const umo_memory *source, size_t offset_bytes,
                                                   const umo_piece *pieces, size_t piece_count,
                                                   const umo_fence *waits, size_t wait_count,
                                                   umo_fence *out, umo_error *error);

/**
 * Writes a pattern over a range, again and again from its first byte on.
 *
 * @param pattern_bytes  1, 2, 4, 8 or 16; size_bytes is a multiple of it.
 *
 * Errors:    INVAL  another pattern_bytes, or a size that is no multiple of it.
 * Threads:   any. The pattern is read before the call returns.
 */
UMO_API UMO_MUST_USE umo_status umo_device_fill(umo_device *device, uint32_t queue,
                                                const umo_memory *memory, size_t offset_bytes,
                                                size_t size_bytes, const void *pattern,
                                                size_t pattern_bytes, const umo_fence *waits,
                                                size_t wait_count, umo_fence *out,
                                                umo_error *error);

/** What umo_device_convert() does. */
typedef struct umo_conversion {
    umo_dtype from;
    umo_dtype to;
    const umo_memory *source;
    size_t source_offset_bytes; /**< the address is a multiple of the element's size */
    const umo_memory *target;
    size_t target_offset_bytes; /**< likewise */
    size_t count;               /**< elements */
    float scale;                /**< integers only: the value times scale, plus bias */
    float bias;
} umo_conversion;

/**
 * Converts elements: between FP32, FP16 and BF16; UINT8 or INT8 to FP32; FP32 to UINT8 or INT8.
 *
 * The result is the same to the last bit on every device, whatever its arithmetic does with
 * subnormal numbers: it is computed from the bits.
 *
 * - Floating to floating: the nearest value, of two equally near ones the one with an even last
 *   bit. Too large becomes an infinity, too small a zero of the same sign; subnormal values are
 *   exact on both sides. A NaN stays one, quiet, with its sign and the upper bits of its payload.
 * - Integer to FP32: value * scale + bias, rounded once, as fmaf() does.
 * - FP32 to integer: fmaf(value, scale, bias), then the nearest integer, of two equally near ones
 *   the even one; what is outside of the type becomes its least or greatest value, a NaN 0.
 *
 * Source and target do not overlap.
 *
 * Errors:    INVAL  another pair of types, an address that is no multiple of its element's size,
 *                   source and target overlap, or a scale or bias that is no finite number where it
 *                   is used.
 * Threads:   any.
 */
UMO_API UMO_MUST_USE umo_status umo_device_convert(umo_device *device, uint32_t queue,
                                                   const umo_conversion *conversion,
                                                   const umo_fence *waits, size_t wait_count,
                                                   umo_fence *out, umo_error *error);

#ifdef __cplusplus
}
#endif

#endif

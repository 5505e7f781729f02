/*
 * The program of a device's operations: its texts, its parts, and when it goes away.
 */
#ifndef UMO_DRIVER_OPS_H
#define UMO_DRIVER_OPS_H

#include <umo/device.h>

/* What a device has built for its operations; the driver's own objects. */
typedef struct umo_ops {
    void *program;
    void *move;
    void *fill;
    void *convert;
} umo_ops;

/* The texts, made by the build from common.h and ops.cl, and from common.h and ops.metal. */
extern const char umo_ops_opencl_text[];
extern const size_t umo_ops_opencl_text_bytes;
extern const char umo_ops_metal_text[];
extern const size_t umo_ops_metal_text_bytes;

/* Ended by a NULL name. */
extern const umo_host_kernel umo_ops_host_kernels[];

/* Kernels move words of this many bytes; memory is aligned to it, or they are not used. */
#define UMO_OPS_WORD_BYTES 16u

/* The program's text for a device; false when there is none in its language, or when memory of the
 * device may lie anywhere, since the kernels read whole words. */
bool umo_ops_source(const umo_device *device, umo_program_source *out);

/* The device's program, built now if nobody did before. UNSUPPORTED where no text fits. */
umo_status umo_ops_get(umo_device *device, const umo_ops **out, umo_error *error);

/* Before the device is closed. */
void umo_ops_finish(umo_device *device);

/* True when the program is there: an operation costs no compiler's run. */
bool umo_ops_ready(const umo_device *device);

#endif

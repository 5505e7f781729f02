/*
 * A model's weights as a device's memory: shared by all models that use the file, and held, in a
 * device bracket for reading, from the model's load to its end.
 */
#ifndef UMO_KERNEL_CONSTANTS_H
#define UMO_KERNEL_CONSTANTS_H

#include "launch.h"

#include <umo/weights.h>

typedef struct umo_constant {
    umo_weights *file;
    umo_buffer *buffer;
    umo_access access;
} umo_constant;

/* Zeroed means none. */
typedef struct umo_constants {
    umo_constant *list;
    size_t count;
} umo_constants;

/*
 * Opens what the description names in the folder of the version. Where the device's memory is the
 * host's, or binding is cheaper for the pattern, the file is bound where it lies; else it is copied
 * to the device once.
 *
 * Errors: NOT_FOUND, INVAL (also a file that is too short), LIMIT, NOMEM, DEVICE; the text names
 * the argument. Nothing is held after an error.
 */
umo_status umo_constants_init(umo_model *model, umo_device *device,
                              const umo_description *description, umo_constants *out,
                              umo_error *error);
/* Nobody uses them any more. Accepts a zeroed one. */
void umo_constants_finish(umo_constants *constants);

/* One entry a weight. */
void umo_constants_bind(const umo_constants *constants, umo_launch_memory *out);

/* Whether the files that are bound where they lie still are what was loaded. */
umo_status umo_constants_check(const umo_constants *constants, umo_error *error);

#endif

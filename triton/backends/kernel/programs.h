/*
 * The programs of a model: which device runs them, which text, and the kernels in it.
 *
 * One folder may hold model.metal, model.cu and model.cl; the driver that runs the model decides,
 * and where the configuration names no device, the first driver that is here and has its text is
 * taken. Each text is compiled once a model, however many of its kernels are used.
 */
#ifndef UMO_KERNEL_PROGRAMS_H
#define UMO_KERNEL_PROGRAMS_H

#include "description.h"

typedef struct umo_programs {
    umo_device *device;
    size_t count;
    umo_program *list[UMO_STAGES_MAX];
    size_t of[UMO_STAGES_MAX];         /* of each stage: which program */
    const char *files[UMO_STAGES_MAX]; /* of each stage, for messages */
} umo_programs;

/*
 * Opens the device that the configuration names or that fits the folder.
 *
 * Errors: NOT_FOUND no such driver, device or platform; the text says what is missing.
 */
umo_status umo_programs_device(umo_model *model, const umo_description *description,
                               umo_device **out, umo_error *error);

/*
 * Reads and compiles. The texts' names live as long as model and description.
 *
 * Errors: NOT_FOUND, INVAL, SYSTEM, NOMEM, with the file's name in front. Nothing is held after an
 * error.
 */
umo_status umo_programs_init(umo_model *model, umo_device *device,
                             const umo_description *description, umo_programs *out,
                             umo_error *error);
/* After the kernels. Accepts a zeroed one. */
void umo_programs_finish(umo_programs *programs);

/* One kernel object a stage into out. Errors: NOT_FOUND no such function. None is left after an
 * error. */
umo_status umo_programs_kernels(const umo_programs *programs, const umo_description *description,
                                umo_kernel **out, umo_error *error);

/* Puts the kernel's place and name in front of what a lower layer said; of no kernel of several,
 * with stage_count. Returns the inner status. */
umo_status umo_programs_explain(const umo_programs *programs, const umo_description *description,
                                size_t stage, const umo_error *inner, umo_error *error);

#endif

/*
 * Reading JSON with the place in hand: what the parts of the description's reader share.
 *
 * A reader knows what names mean, and every complaint goes through umo_reader_complain(), which
 * puts the place ("kernels[1].arguments[2]") in front. Keys are closed lists: a misspelt key is
 * named, never ignored.
 */
#ifndef UMO_KERNEL_READER_H
#define UMO_KERNEL_READER_H

#include "description.h"

#include <jansson.h>

#define UMO_WHERE_BYTES 160

typedef struct umo_reader {
    const umo_description_tensors *model;
    umo_expression_name *tensors; /* inputs, outputs, intermediates */
    size_t tensor_count;          /* those that a formula may name now */
    umo_expression_number *numbers;
    size_t number_count;
    umo_description *out;
    umo_error *error;
} umo_reader;

/* INVAL with the place and the words. */
umo_status umo_reader_complain(const umo_reader *r, const char *where, const char *format, ...)
    UMO_PRINTF(3, 4);
umo_status umo_reader_no_memory(const umo_reader *r);

/* "an array"; never NULL. */
const char *umo_reader_type_name(const json_t *value);

/* "kernels[1]" and "type" to "kernels[1].type". Returns out. */
const char *umo_reader_join(char out[UMO_WHERE_BYTES], const char *where, const char *key);
/* Likewise "kernels[1]", "arguments" and 2 to "kernels[1].arguments[2]". */
const char *umo_reader_join_at(char out[UMO_WHERE_BYTES], const char *where, const char *key,
                               size_t index);

/* Refuses keys that are not in the list, which NULL ends. */
umo_status umo_reader_keys(const umo_reader *r, const char *where, json_t *object,
                           const char *const *allowed);

/* A non-empty string; NULL in *out when the key is absent. */
umo_status umo_reader_text(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, const char **out);
/* The name of a file in the version's folder, likewise. */
umo_status umo_reader_file(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, const char **out);
/* true or false; false when the key is absent. */
umo_status umo_reader_bool(const umo_reader *r, const char *where, const json_t *object,
                           const char *key, bool *out);
/* "FP32" and the like, but not BYTES. */
umo_status umo_reader_dtype(const umo_reader *r, const char *where, const json_t *object,
                            umo_dtype *out);
/* A copy of a text; NULL stays NULL. */
umo_status umo_reader_keep(const umo_reader *r, const char *text, char **out);

/* A formula: a string, or an integer. */
umo_status umo_reader_formula(const umo_reader *r, const char *where, const json_t *value,
                              umo_expression *out);

/* An integer among the model's own parameters. */
umo_status umo_reader_parameter(const umo_reader *r, const char *where, const char *key,
                                int64_t *out);

/* The index of a name among tensors; count when it is not there. */
size_t umo_reader_find(const umo_io *list, size_t count, const char *name);

bool umo_reader_is_identifier(const char *text);

/* arguments.c: the arguments of one kernel. where is its place. */
umo_status umo_reader_arguments(umo_reader *r, const char *where, const json_t *kernel,
                                umo_stage *stage);

/* flow.c: who writes and reads what, once all kernels were read. */
umo_status umo_reader_flow(const umo_reader *r);

#endif

/*
 * The `unified_memory` object: what it is made of, wherever it is written.
 *
 * An object is read over what was read before, so that a model's own fields come over the
 * operator's defaults one by one.
 */
#ifndef UMO_KIT_UNIFIED_H
#define UMO_KIT_UNIFIED_H

#include <umo/triton.h>

#include <jansson.h>

/* A place that fields are written in. */
typedef struct kit_unified_source {
    const char *where; /* what an error's path begins with */
    const char *whole; /* what an error calls the object itself */
    bool text;         /* its values are strings all: a number is written as "5" */
    bool process;      /* it may say what is of the whole process */
} kit_unified_source;

/* What was read so far. */
typedef struct kit_unified {
    umo_unified_config config;
    json_t *patterns; /* the tensor_patterns that count: the last ones; NULL for none */
} kit_unified;

void kit_unified_init(kit_unified *unified);
void kit_unified_finish(kit_unified *unified);

/* Reads an object. INVAL names the path, what is there and what may be there. */
umo_status kit_unified_read(kit_unified *unified, const kit_unified_source *source,
                            const json_t *object, umo_error *error);
/* Likewise JSON text, or no text. */
umo_status kit_unified_read_text(kit_unified *unified, const kit_unified_source *source,
                                 const char *text, umo_error *error);
/* Likewise one field, by its name in the object. */
umo_status kit_unified_read_field(kit_unified *unified, const kit_unified_source *source,
                                  const char *name, const json_t *value, umo_error *error);
/* All places of a model's configuration: the parameter, an execution accelerator, and the mission's
 * own, which no server passes on. More than one of them is an error. */
umo_status kit_unified_read_model(kit_unified *unified, const json_t *model, umo_error *error);
/* Calls visit for each entry that counts. */
void kit_unified_visit(const kit_unified *unified, umo_pattern_visit visit, void *user);
/* What came out of it all. */
umo_unified_config kit_unified_result(const kit_unified *unified);

/* unified_model.c: a line in the log with every setting that holds, and a warning for each name
 * that nobody has. */
umo_status kit_unified_log(umo_model *model, umo_error *error);

#endif

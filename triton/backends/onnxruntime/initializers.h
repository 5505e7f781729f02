/**
 * @file initializers.h
 * Which of a model's constants can be used where they lie in its files, and which files those are.
 */
#ifndef UMO_ORT_INITIALIZERS_H
#define UMO_ORT_INITIALIZERS_H

#include <umo/tensor.h>
#include <umo/weights.h>

enum {
    ORT_WEIGHT_FILES_MAX = 64
};

/** A constant whose bytes lie in a file as the engine reads them. */
typedef struct ort_initializer {
    char *name;
    int element; /**< ONNX Runtime's number */
    umo_shape shape;
    size_t file; /**< index of the file */
    size_t offset_bytes;
    size_t size_bytes;
} ort_initializer;

/** Zero it to start. */
typedef struct ort_initializers {
    umo_weights *files[ORT_WEIGHT_FILES_MAX]; /**< the model's own first, then its external data */
    size_t file_count;
    bool complete; /**< files are all that the model is made of: they are its identity */
    ort_initializer *list;
    size_t count;
} ort_initializers;

/**
 * Opens a model's files and lists the constants of its main graph that may be handed to the engine.
 *
 * Left to the engine are those that are small, strings or of types that are packed below a byte, in
 * typed fields instead of raw bytes, or not where or as long as they should be (it has the words
 * for that); and those whose name is defined in a branch or loop as well: the engine would put the
 * outer values there too.
 *
 * @param scope        Where the files are counted.
 * @param least_bytes  Smaller ones are left to the engine.
 *
 * Errors:    INVAL  external data outside of the model's folder.
 *            NOMEM.  A file that cannot be read or is no ONNX is no error: it has no constants.
 * Ownership: ort_initializers_finish(), also after an error.
 * Cost:      one pass over the model's structure, not over its weights.
 */
UMO_MUST_USE umo_status ort_initializers_read(const char *path, umo_scope *scope, uint32_t flags,
                                              size_t least_bytes, ort_initializers *out,
                                              umo_error *error);
void ort_initializers_finish(ort_initializers *initializers);

#endif

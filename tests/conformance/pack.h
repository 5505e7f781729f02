/*
 * Cases in a file, as tests/conformance/cases.py writes them, and the answers in another.
 *
 * Both are plain records of lengths and bytes, little-endian as the machines that this runs on. A
 * pack is mapped and used in place; an answer is written in one call, so that what a crash leaves
 * behind is whole.
 */
#ifndef UMO_CONFORMANCE_PACK_H
#define UMO_CONFORMANCE_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PACK_TENSORS = 8,
    PACK_RANK = 16
};

typedef struct pack_bytes {
    const char *at; /* strings end with a zero */
    size_t size_bytes;
} pack_bytes;

typedef struct pack_tensor {
    const char *name;
    uint32_t dtype; /* Triton's number */
    uint32_t rank;
    int64_t dims[PACK_RANK];
    pack_bytes data;
} pack_tensor;

typedef struct pack_case {
    const char *name;
    const char *config; /* the model's, as Triton would give it */
    pack_bytes model;
    pack_tensor inputs[PACK_TENSORS];
    uint32_t input_count;
    const char *outputs[PACK_TENSORS];
    uint32_t output_count;
} pack_case;

typedef struct pack {
    const char *at;
    size_t size_bytes;
    uint32_t count;
} pack;

/* Maps a pack; false when it cannot be read or is none. */
bool pack_open(const char *path, pack *out);
/* Reads one case, from 0; false when the pack is broken there. */
bool pack_read(const pack *from, uint32_t index, pack_case *out);

typedef enum answer_kind {
    ANSWER_OUTPUTS = 0,
    ANSWER_NOT_LOADED,
    ANSWER_FAILED, /* the request, in words */
    ANSWER_BROKEN, /* a rule of the server's */
    ANSWER_CRASHED,
    ANSWER_HUNG,
    ANSWER_MUTATED /* words: what was seen */
} answer_kind;

/* One answer on its way out. Zero it to start; it keeps its memory. */
typedef struct answer {
    char *at;
    size_t size_bytes;
    size_t capacity_bytes;
} answer;

void answer_start(answer *a, uint32_t index, answer_kind kind, const char *text);
void answer_number(answer *a, uint32_t number);
void answer_bytes(answer *a, const void *bytes, size_t size_bytes);
/* Appends it to the file. */
bool answer_write(answer *a, int file);

#endif

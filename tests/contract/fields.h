/*
 * Fields: a buffer of every kind that the device has, each beside a plain array of what it must
 * hold. An operation is done to both and then all bytes are compared, so a byte that was written
 * beside its range shows as well as one that was not written.
 */
#ifndef UMO_TESTS_CONTRACT_FIELDS_H
#define UMO_TESTS_CONTRACT_FIELDS_H

#include "contract.h"

/* The three storage modes, and an import at an odd address. */
#define FIELDS_MAX 4

typedef struct field {
    umo_buffer *buffer;
    unsigned char *model; /* what the buffer must hold */
    unsigned char *pages; /* the owner's, of an import; else NULL */
    size_t pages_bytes;
    const umo_memory *memory; /* while the fields are open */
    size_t first;             /* the buffer's first byte inside memory */
} field;

typedef struct fields {
    contract *c;
    size_t size_bytes; /* of each */
    size_t count;
    field of[FIELDS_MAX];
    umo_access accesses[FIELDS_MAX];
    umo_fence_set waits; /* of the next command */
    bool open;
} fields;

/* A range of a field. */
typedef struct part {
    size_t field;
    size_t offset_bytes;
    size_t size_bytes;
} part;

/* Open for the device, and full of a pattern. */
fields *fields_create(contract *c, size_t size_bytes, unsigned seed);

/* Compares every byte, on the host, and opens the fields again. */
void fields_check(fields *f);

/* Compares and gives all back. */
void fields_finish(fields *f);

umo_piece fields_piece(const fields *f, const part *p);
unsigned char *fields_model(fields *f, const part *p);

/* A command was queued: the next waits for it. Checks what its fence says. */
void fields_next(fields *f, uint32_t queue, umo_fence fence);

/* The operations, done to both. */
void fields_gather(fields *f, uint32_t queue, const part *pieces, size_t count, const part *target);
void fields_scatter(fields *f, uint32_t queue, const part *source, const part *pieces,
                    size_t count);
void fields_fill(fields *f, uint32_t queue, const part *range, const void *pattern,
                 size_t pattern_bytes);

/* Checks that a call was refused as INVAL, said why and left its fence alone, which was this. */
#define FIELDS_UNTOUCHED ((umo_fence){.queue = 55, .value = 66})
void fields_expect_invalid(umo_status status, umo_fence fence, const umo_error *error);

/* A small generator, the same on every machine: 32 bits a call. */
uint32_t fields_random(uint64_t *state);

#endif

/*
 * The backend that copies where no symbol shows it: every input goes into a block of ours by `rep
 * movsb` and from there to the output by vector registers. It does the same work as the copying
 * backend, so the symbol spy must see nothing of it, and the census of dirtied pages and the slope
 * of instructions must see all of it.
 */
#include "probe.h"

#include <stdlib.h>

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

struct block {
    uint8_t *base;
    uint64_t size_bytes;
    uint64_t capacity_bytes;
};

static void bytes_in(uint8_t *to, const uint8_t *from, size_t size_bytes)
{
#if defined(__x86_64__)
    __asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(size_bytes) : : "memory");
#else
    volatile uint8_t *out = to; /* volatile: else the compiler makes a memcpy of the loop */
    for (size_t i = 0; i < size_bytes; i++) {
        out[i] = from[i];
    }
#endif
}

static void bytes_out(uint8_t *to, const uint8_t *from, size_t size_bytes)
{
    size_t i = 0;
#if defined(__x86_64__)
    for (; i + 16 <= size_bytes; i += 16) {
        _mm_storeu_si128((__m128i *)(void *)(to + i),
                         _mm_loadu_si128((const __m128i *)(const void *)(from + i)));
    }
#endif
    for (volatile uint8_t *out = to; i < size_bytes; i++) {
        out[i] = from[i];
    }
}

static TRITONSERVER_Error *block_fill(struct block *block, TRITONBACKEND_Input *input)
{
    uint32_t count = 0;
    uint64_t size_bytes = 0;
    TRITONSERVER_Error *error =
        TRITONBACKEND_InputProperties(input, NULL, NULL, NULL, NULL, &size_bytes, &count);

    block->size_bytes = 0;
    if (error == NULL && size_bytes > block->capacity_bytes) {
        uint8_t *grown = realloc(block->base, size_bytes);
        if (grown == NULL) {
            return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory");
        }
        block->base = grown;
        block->capacity_bytes = size_bytes;
    }
    for (uint32_t i = 0; error == NULL && i < count; i++) {
        const void *piece = NULL;
        uint64_t piece_bytes = 0;
        TRITONSERVER_MemoryType memory_type = TRITONSERVER_MEMORY_CPU;
        int64_t memory_type_id = 0;
        error = TRITONBACKEND_InputBuffer(input, i, &piece, &piece_bytes, &memory_type,
                                          &memory_type_id);
        if (error == NULL) {
            bytes_in(block->base + block->size_bytes, piece, piece_bytes);
            block->size_bytes += piece_bytes;
        }
    }
    return error;
}

static TRITONSERVER_Error *answer_all(const probe_model *model, struct block *block,
                                      TRITONBACKEND_Request *request,
                                      TRITONBACKEND_Response *response)
{
    uint32_t count = 0;
    TRITONSERVER_Error *error = TRITONBACKEND_RequestOutputCount(request, &count);

    for (uint32_t i = 0; error == NULL && i < count; i++) {
        const char *name = NULL;
        probe_answer answer;
        TRITONBACKEND_Input *input = NULL;
        error = TRITONBACKEND_RequestOutputName(request, i, &name);
        if (error == NULL) {
            error = probe_output_make(model, request, response, name, &answer);
        }
        if (error == NULL) {
            error = probe_input_get(model, request, answer.input_index, &input);
        }
        if (error == NULL) {
            error = block_fill(block, input);
        }
        if (error == NULL) {
            bytes_out(answer.buffer, block->base,
                      answer.size_bytes < block->size_bytes ? answer.size_bytes
                                                            : block->size_bytes);
        }
    }
    return error;
}

void probe_execute(const probe_model *model, void **scratch, TRITONBACKEND_Request **requests,
                   uint32_t request_count, bool *succeeded)
{
    if (*scratch == NULL) {
        *scratch = calloc(1, sizeof(struct block));
    }
    for (uint32_t i = 0; i < request_count; i++) {
        TRITONBACKEND_Response *response = NULL;
        TRITONSERVER_Error *error = TRITONBACKEND_ResponseNew(&response, requests[i]);
        if (error != NULL) {
            TRITONSERVER_ErrorDelete(error);
            continue;
        }
        error = *scratch == NULL
                    ? TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "out of memory")
                    : answer_all(model, *scratch, requests[i], response);
        succeeded[i] = error == NULL;
        probe_send(response, error);
    }
}

void probe_scratch_free(const probe_model *model, void *scratch)
{
    struct block *block = scratch;
    (void)model;
    if (block != NULL) {
        free(block->base);
    }
    free(block);
}

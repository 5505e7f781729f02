/*
 * The operations' kernels for the host driver: those of ops.cl over the whole grid in one call.
 */
#include "driver/ops/ops.h"

#include "driver/ops/common.h"

#include <string.h>

static void host_move(void *const *args, const size_t global[3])
{
    const move_plan *plan = args[(size_t)2 * MOVE_PIECES];
    for (size_t p = 0; p < global[1]; p++) {
        size_t bytes = plan->head[p] + plan->words[p] * plan->width[p] + plan->tail[p];
        memcpy((char *)args[MOVE_PIECES + p] + plan->to[p], (const char *)args[p] + plan->from[p],
               bytes);
    }
}

static void host_fill(void *const *args, const size_t global[3])
{
    (void)global;
    const fill_plan *plan = args[1];
    char *to = (char *)args[0] + plan->at;
    memcpy(to, plan->pattern, plan->head);
    to += plan->head;
    for (u64 i = 0; i < plan->count; i++, to += sizeof plan->words) {
        memcpy(to, plan->words, sizeof plan->words);
    }
    memcpy(to, plan->words, plan->tail);
}

/* from[i] of an element type, as element_convert() wants it. */
static u32 element_load(const char *from, u32 type)
{
    u32 word;
    uint16_t half;
    switch (type) {
    case TYPE_FP32:
        memcpy(&word, from, sizeof word);
        return word;
    case TYPE_UINT8:
        return (unsigned char)*from;
    case TYPE_INT8:
        return (u32)(i32)(signed char)*from;
    default:
        memcpy(&half, from, sizeof half);
        return half;
    }
}

static size_t type_bytes(u32 type)
{
    return type == TYPE_FP32 ? 4 : type == TYPE_UINT8 || type == TYPE_INT8 ? 1 : 2;
}

static void host_convert(void *const *args, const size_t global[3])
{
    (void)global;
    const convert_plan *plan = args[2];
    const char *from = (const char *)args[0] + plan->from;
    char *to = (char *)args[1] + plan->to;
    const size_t from_bytes = type_bytes(plan->from_type);
    const size_t to_bytes = type_bytes(plan->to_type);
    for (u64 i = 0; i < plan->count; i++, from += from_bytes, to += to_bytes) {
        const u32 bits = element_convert(element_load(from, plan->from_type), plan->from_type,
                                         plan->to_type, plan->scale, plan->bias);
        const uint16_t half = (uint16_t)bits;
        if (to_bytes == 4) {
            memcpy(to, &bits, sizeof bits);
        } else if (to_bytes == 2) {
            memcpy(to, &half, sizeof half);
        } else {
            *to = (char)bits;
        }
    }
}

const umo_host_kernel umo_ops_host_kernels[] = {
    {"umo_move", host_move},
    {"umo_fill", host_fill},
    {"umo_convert", host_convert},
    {NULL, NULL},
};

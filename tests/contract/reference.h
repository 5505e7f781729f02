/*
 * What is right for a conversion, from device.h's words and by other means than the library's: a
 * type of 16 bits is the sorted list of its finite values as doubles, and to convert is to search
 * the nearest one. No value that is compared this way needs more than a double's 53 bits.
 */
#ifndef UMO_TESTS_CONTRACT_REFERENCE_H
#define UMO_TESTS_CONTRACT_REFERENCE_H

#include <umo/device.h>

/* A floating type of 16 bits. */
typedef struct reference_half {
    int exponent_bits;
    int fraction_bits;
    uint32_t infinity;    /* the first code that is no finite value */
    double values[32768]; /* of the codes from 0 to infinity, as if that were one more value */
} reference_half;

const reference_half *reference_fp16(void);
const reference_half *reference_bf16(void);

uint32_t reference_half_from_fp32(const reference_half *t, uint32_t bits);
uint32_t reference_fp32_from_half(const reference_half *t, uint32_t half);

/* The nearest of the integers low to high, the even one of two; 0 for a NaN. */
int reference_integer(float value, int low, int high);

/* An element's bits, in the low ones of a word as they are in the result. */
uint32_t reference_convert(const umo_conversion *k, uint32_t bits);

/* Bytes of an element of the types that are converted. */
size_t reference_bytes(umo_dtype type);

float reference_float(uint32_t bits);
uint32_t reference_bits(float value);

#endif

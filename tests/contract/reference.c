/*
 * The reference of conversions: written for being right, not fast, and shares nothing with the
 * library.
 */
#include "reference.h"

#include <math.h>
#include <string.h>

size_t reference_bytes(umo_dtype type)
{
    return type == UMO_FP32 ? 4 : type == UMO_FP16 || type == UMO_BF16 ? 2 : 1;
}

float reference_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

uint32_t reference_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static void half_prepare(reference_half *t)
{
    const int bias = (1 << (t->exponent_bits - 1)) - 1;
    const int steps = 1 << t->fraction_bits;
    t->infinity = ((1u << t->exponent_bits) - 1) << t->fraction_bits;
    for (int code = 0; code <= (int)t->infinity; code++) {
        const int exponent = code / steps;
        const int fraction = code % steps;
        t->values[code] = exponent == 0
                              ? ldexp(fraction, 1 - bias - t->fraction_bits)
                              : ldexp(steps + fraction, exponent - bias - t->fraction_bits);
    }
}

const reference_half *reference_fp16(void)
{
    static reference_half fp16 = {.exponent_bits = 5, .fraction_bits = 10};
    if (fp16.infinity == 0) {
        half_prepare(&fp16);
    }
    return &fp16;
}

const reference_half *reference_bf16(void)
{
    static reference_half bf16 = {.exponent_bits = 8, .fraction_bits = 7};
    if (bf16.infinity == 0) {
        half_prepare(&bf16);
    }
    return &bf16;
}

/* Of 0 to last (codes of ascending values), the nearest; of two equally near ones the even. */
static uint32_t nearest(const double *values, uint32_t last, double value)
{
    uint32_t low = 0;
    uint32_t high = last;
    while (high - low > 1) {
        const uint32_t middle = low + (high - low) / 2;
        if (values[middle] <= value) {
            low = middle;
        } else {
            high = middle;
        }
    }
    const double below = value - values[low];
    const double above = values[high] - value;
    if (below == above) {
        return low % 2 == 0 ? low : high;
    }
    return below < above ? low : high;
}

uint32_t reference_half_from_fp32(const reference_half *t, uint32_t bits)
{
    const float value = reference_float(bits);
    const uint32_t sign = (bits >> 31) << 15;
    if (isnan(value)) {
        const uint32_t quiet = 1u << (t->fraction_bits - 1);
        const uint32_t payload = (bits & 0x3fffffu) >> (23 - t->fraction_bits);
        return sign | t->infinity | quiet | payload;
    }
    if (isinf(value)) {
        return sign | t->infinity;
    }
    return sign | nearest(t->values, t->infinity, fabs((double)value));
}

uint32_t reference_fp32_from_half(const reference_half *t, uint32_t half)
{
    const uint32_t sign = (half >> 15) << 31;
    const uint32_t code = half & 0x7fffu;
    if (code > t->infinity) {
        const uint32_t payload = (code & ((1u << (t->fraction_bits - 1)) - 1))
                                 << (23 - t->fraction_bits);
        return sign | 0x7fc00000u | payload;
    }
    if (code == t->infinity) {
        return sign | 0x7f800000u;
    }
    return sign | reference_bits((float)t->values[code]);
}

int reference_integer(float value, int low, int high)
{
    if (isnan(value)) {
        return 0;
    }
    if (value <= (float)low) {
        return low;
    }
    if (value >= (float)high) {
        return high;
    }
    int below = low;
    while ((float)(below + 1) <= value) {
        below++;
    }
    const double rest = (double)value - below;
    return rest == 0.5 ? below + (below % 2 != 0) : below + (rest > 0.5);
}

uint32_t reference_convert(const umo_conversion *k, uint32_t bits)
{
    uint32_t wide = bits;
    switch (k->from) {
    case UMO_FP16:
        wide = reference_fp32_from_half(reference_fp16(), bits);
        break;
    case UMO_BF16:
        wide = reference_fp32_from_half(reference_bf16(), bits);
        break;
    case UMO_UINT8:
        return reference_bits(fmaf((float)bits, k->scale, k->bias));
    case UMO_INT8:
        return reference_bits(
            fmaf((float)(bits < 128 ? (int)bits : (int)bits - 256), k->scale, k->bias));
    default:
        break;
    }
    switch (k->to) {
    case UMO_FP16:
        return reference_half_from_fp32(reference_fp16(), wide);
    case UMO_BF16:
        return reference_half_from_fp32(reference_bf16(), wide);
    case UMO_UINT8:
        return (uint32_t)reference_integer(fmaf(reference_float(wide), k->scale, k->bias), 0, 255);
    case UMO_INT8:
        return (uint32_t)reference_integer(fmaf(reference_float(wide), k->scale, k->bias), -128,
                                           127) &
               0xffu;
    default:
        return wide;
    }
}

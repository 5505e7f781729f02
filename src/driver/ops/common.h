/*
 * What the operations' kernels must agree on to the last bit, in the common part of C, OpenCL C and
 * Metal's language: the build puts this text in front of ops.cl and ops.metal, and the host's
 * kernels and ops.c include it.
 *
 * Floating values are handled as their bits. Devices differ in what their arithmetic does with
 * subnormal numbers and NaNs; shifts and sums of integers are the same everywhere.
 */
#ifndef UMO_DRIVER_OPS_COMMON_H
#define UMO_DRIVER_OPS_COMMON_H

#if defined(__OPENCL_VERSION__)
typedef int i32;
typedef uint u32;
typedef ulong u64;
#define CLZ32(x) clz((u32)(x))
#define CLZ64(x) ((u32)clz((u64)(x)))
#elif defined(__METAL_VERSION__)
#include <metal_stdlib>
using namespace metal;
typedef int i32;
typedef uint u32;
typedef ulong u64;
#define CLZ32(x) clz((u32)(x))
#define CLZ64(x) ((u32)clz((u64)(x)))
#else
#include <stdint.h>
typedef int32_t i32;
typedef uint32_t u32;
typedef uint64_t u64;
#define CLZ32(x) ((u32)__builtin_clz(x))
#define CLZ64(x) ((u32)__builtin_clzll(x))
#endif

/* Pieces that one launch moves; an argument each on both sides. */
#define MOVE_PIECES 8

/* Element types, with umo_dtype's numbers. */
#define TYPE_UINT8 2u
#define TYPE_INT8 6u
#define TYPE_FP16 10u
#define TYPE_FP32 11u
#define TYPE_BF16 14u

/* Bytes from `from` in one memory to `to` in another: single ones until the target's address is a
 * multiple of width (1, 4 or 16), whole words, single ones. */
typedef struct move_plan {
    u64 from[MOVE_PIECES];
    u64 to[MOVE_PIECES];
    u64 words[MOVE_PIECES];
    u32 head[MOVE_PIECES];
    u32 tail[MOVE_PIECES];
    u32 width[MOVE_PIECES];
} move_plan;

/* The same for a fill by words of 16 bytes. Byte n of the range is byte n % 16 of pattern; byte n
 * behind the head is that of words. */
typedef struct fill_plan {
    u64 at;
    u64 count; /* of words */
    u32 head;
    u32 tail;
    u32 pattern[4];
    u32 words[4];
} fill_plan;

typedef struct convert_plan {
    u64 from;
    u64 to;
    u64 count;
    u32 from_type;
    u32 to_type;
    u32 scale; /* bits of an FP32 */
    u32 bias;
} convert_plan;

#define F32_SIGN 0x80000000u
#define F32_INFINITY 0x7f800000u
#define F32_NAN 0x7fc00000u

static inline u32 f32_magnitude(u32 f)
{
    return f & ~F32_SIGN;
}

static inline u32 f32_exponent(u32 f)
{
    return f >> 23 & 0xffu;
}

/* Shifts right by 1 to 63, to the nearest, ties to even. */
static inline u64 shift_rounded(u64 x, u32 by)
{
    u64 kept = x >> by;
    u64 rest = x - (kept << by);
    u64 half_way = (u64)1 << (by - 1);
    return kept + (u64)(rest > half_way || (rest == half_way && (kept & 1) != 0));
}

static inline u32 f32_from_f16(u32 h)
{
    u32 sign = (h & 0x8000u) << 16;
    u32 exponent = h >> 10 & 0x1fu;
    u32 fraction = h & 0x3ffu;
    if (exponent == 31u) {
        return sign | F32_INFINITY | fraction << 13 | (fraction != 0u ? 0x400000u : 0u);
    }
    if (exponent != 0u) {
        return sign | (exponent + 112u) << 23 | fraction << 13;
    }
    if (fraction == 0u) {
        return sign;
    }
    u32 shift = CLZ32(fraction) - 21u;
    return sign | (113u - shift) << 23 | (fraction << shift & 0x3ffu) << 13;
}

static inline u32 f16_from_f32(u32 f)
{
    u32 sign = f >> 16 & 0x8000u;
    u32 magnitude = f32_magnitude(f);
    if (magnitude > F32_INFINITY) {
        return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);
    }
    if (magnitude >= 0x477ff000u) { /* 65520, half way beyond the largest */
        return sign | 0x7c00u;
    }
    if (magnitude <= 0x33000000u) { /* 2^-25, half way to the smallest */
        return sign;
    }
    u32 exponent = magnitude >> 23;
    u64 mantissa = (magnitude & 0x7fffffu) | 0x800000u;
    u32 subnormal = exponent < 113u ? 113u - exponent : 0u;
    u32 base = subnormal != 0u ? 0u : (exponent - 113u) << 10;
    return sign | (base + (u32)shift_rounded(mantissa, 13u + subnormal));
}

static inline u32 f32_from_bf16(u32 b)
{
    u32 f = b << 16;
    return f32_magnitude(f) > F32_INFINITY ? f | 0x400000u : f;
}

static inline u32 bf16_from_f32(u32 f)
{
    if (f32_magnitude(f) > F32_INFINITY) {
        return f >> 16 | 0x40u;
    }
    return (f + 0x7fffu + (f >> 16 & 1u)) >> 16;
}

/* An integer of at most 24 bits. */
static inline u32 f32_from_int(i32 value)
{
    u32 magnitude = value < 0 ? 0u - (u32)value : (u32)value;
    if (magnitude == 0u) {
        return 0u;
    }
    u32 shift = CLZ32(magnitude) - 8u;
    return (value < 0 ? F32_SIGN : 0u) | (150u - shift) << 23 | (magnitude << shift & 0x7fffffu);
}

/* The nearest integer within low to high; ties to even; 0 for a NaN. Both are less than 256 away
 * from 0. */
static inline i32 int_from_f32(u32 f, i32 low, i32 high)
{
    u32 magnitude = f32_magnitude(f);
    u32 exponent = magnitude >> 23;
    if (magnitude > F32_INFINITY || exponent < 126u) {
        return 0;
    }
    i32 value = 256;
    if (exponent < 135u) {
        u64 mantissa = (magnitude & 0x7fffffu) | 0x800000u;
        value = (i32)shift_rounded(mantissa, 150u - exponent);
    }
    value = (f & F32_SIGN) != 0u ? -value : value;
    return value < low ? low : value > high ? high : value;
}

/* sum * 2^exponent, which is not 0, with a sign; the last bit of sum may stand for lower ones. */
static inline u32 f32_pack(u32 sign, u64 sum, i32 exponent)
{
    u32 shift = CLZ64(sum);
    i32 field = exponent - (i32)shift + 190;
    sum <<= shift;
    if (field >= 255) {
        return sign | F32_INFINITY;
    }
    if (field >= 1) {
        return sign | (((u32)(field - 1) << 23) + (u32)shift_rounded(sum, 40u));
    }
    if (field < -23) {
        return sign;
    }
    /* Subnormal, or rounded up to the first that is not. One bit is dropped here, so that the
     * shift stays below 64. */
    sum = sum >> 1 | (sum & 1);
    return sign | (u32)shift_rounded(sum, (u32)(40 - field));
}

/* The mantissa as an integer, times 2^(*exponent - 150). */
static inline u64 f32_mantissa(u32 f)
{
    return (u64)(f & 0x7fffffu) | (f32_exponent(f) != 0u ? 0x800000u : 0u);
}

static inline i32 f32_scale_of(u32 f)
{
    u32 exponent = f32_exponent(f);
    return exponent != 0u ? (i32)exponent : 1;
}

/* x * scale + bias, rounded once. scale and bias are finite. */
static inline u32 f32_scaled(u32 x, u32 scale, u32 bias)
{
    u32 sign = (x ^ scale) & F32_SIGN;
    u32 magnitude = f32_magnitude(x);
    if (magnitude >= F32_INFINITY) {
        return magnitude > F32_INFINITY || f32_magnitude(scale) == 0u ? F32_NAN
                                                                      : sign | F32_INFINITY;
    }
    u64 big = f32_mantissa(x) * f32_mantissa(scale);
    u64 small = f32_mantissa(bias);
    if (big == 0) {
        return small == 0 ? sign & bias : bias;
    }
    /* Both with their first bit at bit 61: the product keeps 48 bits, so whatever a shift of the
     * smaller one drops is below what a rounding can see but for its being there. */
    u32 shift = CLZ64(big) - 2u;
    i32 exponent = f32_scale_of(x) + f32_scale_of(scale) - 300 - (i32)shift;
    big <<= shift;
    if (small == 0) {
        return f32_pack(sign, big, exponent);
    }
    u32 small_sign = bias & F32_SIGN;
    shift = CLZ64(small) - 2u;
    i32 small_exponent = f32_scale_of(bias) - 150 - (i32)shift;
    small <<= shift;
    if (small_exponent > exponent || (small_exponent == exponent && small > big)) {
        u64 product = big;
        big = small;
        small = product;
        i32 product_exponent = exponent;
        exponent = small_exponent;
        small_exponent = product_exponent;
        u32 product_sign = sign;
        sign = small_sign;
        small_sign = product_sign;
    }
    u32 apart = (u32)(exponent - small_exponent);
    if (apart > 62u) {
        small = 1;
    } else {
        u64 kept = small >> apart;
        small = kept | (u64)(kept << apart != small);
    }
    u64 sum = sign == small_sign ? big + small : big - small;
    return sum == 0 ? 0u : f32_pack(sign, sum, exponent);
}

/* One element. Integers are passed as i32's bits. */
static inline u32 element_convert(u32 bits, u32 from, u32 to, u32 scale, u32 bias)
{
    u32 f = bits;
    if (from == TYPE_FP16) {
        f = f32_from_f16(bits);
    } else if (from == TYPE_BF16) {
        f = f32_from_bf16(bits);
    } else if (from != TYPE_FP32) {
        return f32_scaled(f32_from_int((i32)bits), scale, bias);
    }
    if (to == TYPE_FP16) {
        return f16_from_f32(f);
    }
    if (to == TYPE_BF16) {
        return bf16_from_f32(f);
    }
    if (to == TYPE_FP32) {
        return f;
    }
    f = f32_scaled(f, scale, bias);
    return (u32)(to == TYPE_INT8 ? int_from_f32(f, -128, 127) : int_from_f32(f, 0, 255));
}

#endif

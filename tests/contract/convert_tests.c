/*
 * The contract of conversions, to the last bit: reference.h says what is right.
 */
#include "fields.h"
#include "reference.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool no_kernels(const contract *c)
{
    return (c->info->caps & UMO_CAP_KERNELS) == 0;
}

/* The reference itself, at values that anybody can check by hand. */
static void the_reference_knows_the_types(void **state)
{
    (void)state;
    const reference_half *fp16 = reference_fp16();
    const reference_half *bf16 = reference_bf16();
    assert_true(fp16->infinity == 0x7c00 && bf16->infinity == 0x7f80);
    assert_true(fp16->values[0x3c00] == 1.0 && bf16->values[0x3f80] == 1.0);
    assert_true(fp16->values[1] == 0x1p-24 && bf16->values[1] == 0x1p-133);
    assert_true(fp16->values[0x7bff] == 65504.0 && fp16->values[0x7c00] == 65536.0);
    assert_int_equal(reference_half_from_fp32(reference_fp16(), reference_bits(65519.996f)),
                     0x7bff);
    assert_int_equal(reference_half_from_fp32(reference_fp16(), reference_bits(65520.0f)), 0x7c00);
    assert_int_equal(reference_half_from_fp32(reference_fp16(), reference_bits(-0x1p-25f)), 0x8000);
    assert_int_equal(reference_half_from_fp32(reference_bf16(), 0x3f808000u), 0x3f80);
    assert_int_equal(reference_half_from_fp32(reference_bf16(), 0x3f818000u), 0x3f82);
    assert_int_equal(reference_half_from_fp32(reference_bf16(), 0xff800001u), 0xffc0);
    assert_int_equal(reference_fp32_from_half(reference_fp16(), 0xfd01u), 0xffe02000u);
    assert_int_equal(reference_integer(2.5f, 0, 255), 2);
    assert_int_equal(reference_integer(-3.5f, -128, 127), -4);
    assert_int_equal(reference_integer(-0.5f, -128, 127), 0);
}

/* ---- conversions of lists ---- */

/* Elements of a type, packed; bits[i] holds each in its low bits. */
static void pack(unsigned char *bytes, umo_dtype type, const uint32_t *bits, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const uint16_t half = (uint16_t)bits[i];
        const unsigned char byte = (unsigned char)bits[i];
        const void *element = reference_bytes(type) == 4   ? (const void *)&bits[i]
                              : reference_bytes(type) == 2 ? (const void *)&half
                                                           : (const void *)&byte;
        memcpy(bytes + i * reference_bytes(type), element, reference_bytes(type));
    }
}

static uint32_t unpack(const unsigned char *bytes, umo_dtype type, size_t i)
{
    uint32_t word = 0;
    uint16_t half = 0;
    switch (reference_bytes(type)) {
    case 4:
        memcpy(&word, bytes + 4 * i, 4);
        return word;
    case 2:
        memcpy(&half, bytes + 2 * i, 2);
        return half;
    default:
        return bytes[i];
    }
}

typedef struct scaling {
    float scale;
    float bias;
} scaling;

/* Room for one list on both sides, open for the device between the two. */
typedef struct bench {
    contract *c;
    umo_buffer *source;
    umo_buffer *target;
    size_t count;
} bench;

static bench bench_create(contract *c, size_t count)
{
    const umo_storage_mode mode = (c->info->caps & UMO_CAP_MANAGED) != 0   ? UMO_MANAGED
                                  : (c->info->caps & UMO_CAP_UNIFIED) != 0 ? UMO_UNIFIED
                                                                           : UMO_PRIVATE;
    return (bench){.c = c,
                   .source = contract_alloc(c, mode, count * 4),
                   .target = contract_alloc(c, mode, count * 4),
                   .count = count};
}

static void bench_destroy(bench *b)
{
    umo_buffer_release(b->source);
    umo_buffer_release(b->target);
}

/* Converts the list in runs of `run` elements, each with its own scale and bias, and compares. */
static void expect_list(bench *b, umo_dtype from, umo_dtype to, const uint32_t *bits, size_t count,
                        size_t run, const scaling *scales)
{
    const size_t source_bytes = count * reference_bytes(from);
    const size_t target_bytes = count * reference_bytes(to);
    unsigned char *bytes = malloc(count * 4);
    assert_non_null(bytes);
    assert_true(count <= b->count && count % run == 0);
    pack(bytes, from, bits, count);
    contract_host_write(b->source, 0, bytes, source_bytes);
    const umo_access read = contract_use(0, source_bytes, UMO_SIDE_DEVICE, UMO_READ, 0);
    const umo_access write = contract_use(0, target_bytes, UMO_SIDE_DEVICE, UMO_WRITE, 0);
    umo_fence_set waits;
    umo_fence_set more;
    umo_fence fence = {0};
    umo_error error = {0};
    assert_int_equal(umo_access_begin(b->source, &read, &waits), UMO_OK);
    assert_int_equal(umo_access_begin(b->target, &write, &more), UMO_OK);
    for (size_t i = 0; i < more.count; i++) {
        assert_true(umo_fence_set_add(&waits, more.fences[i]));
    }
    umo_conversion k = {.from = from,
                        .to = to,
                        .source = umo_buffer_memory(b->source),
                        .target = umo_buffer_memory(b->target),
                        .count = run};
    for (size_t at = 0; at < count; at += run) {
        k.source_offset_bytes = umo_buffer_memory_offset(b->source) + at * reference_bytes(from);
        k.target_offset_bytes = umo_buffer_memory_offset(b->target) + at * reference_bytes(to);
        k.scale = scales != NULL ? scales[at / run].scale : 0.0f;
        k.bias = scales != NULL ? scales[at / run].bias : 0.0f;
        umo_status status =
            umo_device_convert(b->c->device, 0, &k, waits.fences, waits.count, &fence, &error);
        if (status != UMO_OK) {
            print_error("%s\n", error.text);
        }
        assert_int_equal(status, UMO_OK);
        waits = (umo_fence_set){0};
    }
    assert_int_equal(umo_access_end(b->source, &read, fence), UMO_OK);
    assert_int_equal(umo_access_end(b->target, &write, fence), UMO_OK);
    contract_host_read(b->target, 0, bytes, target_bytes);
    for (size_t i = 0; i < count; i++) {
        k.scale = scales != NULL ? scales[i / run].scale : 0.0f;
        k.bias = scales != NULL ? scales[i / run].bias : 0.0f;
        const uint32_t got = unpack(bytes, to, i);
        const uint32_t right = reference_convert(&k, bits[i]);
        if (got != right) {
            fail_msg("type %d 0x%x to type %d, scale %a, bias %a: 0x%x, not 0x%x", (int)from,
                     bits[i], (int)to, (double)k.scale, (double)k.bias, got, right);
        }
    }
    free(bytes);
}

static void every_value_of_16_bits_converts(void **state)
{
    contract *c = *state;
    static const umo_dtype pairs[][2] = {
        {UMO_FP16, UMO_FP32}, {UMO_BF16, UMO_FP32}, {UMO_FP16, UMO_BF16}, {UMO_BF16, UMO_FP16}};
    static uint32_t bits[65536];
    if (no_kernels(c)) {
        skip();
    }
    bench b = bench_create(c, COUNT_OF(bits));
    for (uint32_t i = 0; i < COUNT_OF(bits); i++) {
        bits[i] = i;
    }
    for (size_t p = 0; p < COUNT_OF(pairs); p++) {
        expect_list(&b, pairs[p][0], pairs[p][1], bits, COUNT_OF(bits), COUNT_OF(bits), NULL);
    }
    bench_destroy(&b);
}

/* Each value of 16 bits, each point half way to the next, and the neighbours of both. */
static void fp32_rounds_to_the_nearest_and_ties_to_even(void **state)
{
    contract *c = *state;
    const reference_half *const types[] = {reference_fp16(), reference_bf16()};
    if (no_kernels(c)) {
        skip();
    }
    const size_t most = 2 * 6 * 32768;
    uint32_t *bits = malloc(most * sizeof *bits);
    assert_non_null(bits);
    bench b = bench_create(c, most);
    for (size_t t = 0; t < COUNT_OF(types); t++) {
        size_t count = 0;
        for (uint32_t code = 0; code < types[t]->infinity; code++) {
            /* All exact in FP32. */
            const double points[] = {types[t]->values[code],
                                     (types[t]->values[code] + types[t]->values[code + 1]) / 2};
            for (size_t p = 0; p < 2; p++) {
                const uint32_t at = reference_bits((float)points[p]);
                for (uint32_t sign = 0; sign < 2; sign++) {
                    bits[count++] = sign << 31 | (at > 0 ? at - 1 : at);
                    bits[count++] = sign << 31 | at;
                    bits[count++] = sign << 31 | (at + 1);
                }
            }
        }
        assert_true(count <= most);
        expect_list(&b, UMO_FP32, t == 0 ? UMO_FP16 : UMO_BF16, bits, count, count, NULL);
    }
    bench_destroy(&b);
    free(bits);
}

/* Every exponent with telling fractions, NaNs with each bit of the payload, and noise. */
static void fp32_of_any_bits_converts_to_16(void **state)
{
    contract *c = *state;
    static const uint32_t fractions[] = {0,        1,        2,        0xfff,    0x1000,   0x1001,
                                         0x1fff,   0x2000,   0x3000,   0x7fff,   0x8000,   0x8001,
                                         0xffff,   0x10000,  0x18000,  0x3fffff, 0x400000, 0x400001,
                                         0x7f7fff, 0x7f8000, 0x7fefff, 0x7ff000, 0x7fffff};
    if (no_kernels(c)) {
        skip();
    }
    enum {
        NOISE = 300000
    };
    const size_t most = 512 * COUNT_OF(fractions) + 2 * 23 * 23 + NOISE;
    uint32_t *bits = malloc(most * sizeof *bits);
    assert_non_null(bits);
    size_t count = 0;
    for (uint32_t top = 0; top < 512; top++) {
        for (size_t i = 0; i < COUNT_OF(fractions); i++) {
            bits[count++] = top << 23 | fractions[i];
        }
    }
    for (uint32_t i = 0; i < 23; i++) {
        for (uint32_t j = 0; j < 23; j++) {
            bits[count++] = 0x7f800000u | 1u << i | 1u << j;
            bits[count++] = 0xff800000u | 1u << i | 1u << j;
        }
    }
    uint64_t random = 16;
    while (count < most) {
        bits[count++] = fields_random(&random);
    }
    bench b = bench_create(c, most);
    expect_list(&b, UMO_FP32, UMO_FP16, bits, count, count, NULL);
    expect_list(&b, UMO_FP32, UMO_BF16, bits, count, count, NULL);
    bench_destroy(&b);
    free(bits);
}

/* Scales and biases at the edges of FP32. */
static const float edges[] = {0.0f,           -0.0f,         1.0f,      -1.0f,
                              0.5f,           1.0f / 255,    -0.1f,     0x1p-149f,
                              -0x1p-149f,     0x1.8p-148f,   0x1p-126f, 0x1.fffffcp-127f,
                              FLT_MAX,        -FLT_MAX,      0x1p120f,  -0x1p127f,
                              0x1.fffffep-1f, 0x1.000002p0f, 3.3e-39f,  1e-42f};

/* Pairs of scale and bias: all of the edges, then random ones, half of them such that bias and
 * product nearly cancel for one of the integers. */
static size_t scales_make(scaling *scales, size_t noise)
{
    size_t count = 0;
    for (size_t i = 0; i < COUNT_OF(edges); i++) {
        for (size_t j = 0; j < COUNT_OF(edges); j++, count++) {
            scales[count].scale = edges[i];
            scales[count].bias = edges[j];
        }
    }
    uint64_t random = 32;
    for (size_t end = count + noise; count < end;) {
        const float scale = reference_float(fields_random(&random));
        float bias = reference_float(fields_random(&random));
        if (count % 2 == 0) {
            bias = -scale * (float)((int)(fields_random(&random) % 384) - 128);
        }
        if (isfinite(scale) && isfinite(bias)) {
            scales[count].scale = scale;
            scales[count++].bias = bias;
        }
    }
    return count;
}

enum {
    SCALES_NOISE = 300,
    SCALES = 400 + SCALES_NOISE
};

static void integers_become_value_times_scale_plus_bias_rounded_once(void **state)
{
    contract *c = *state;
    static scaling scales[SCALES];
    static uint32_t bits[SCALES * 256];
    if (no_kernels(c)) {
        skip();
    }
    assert_int_equal(scales_make(scales, SCALES_NOISE), SCALES);
    for (uint32_t i = 0; i < COUNT_OF(bits); i++) {
        bits[i] = i % 256;
    }
    bench b = bench_create(c, COUNT_OF(bits));
    expect_list(&b, UMO_UINT8, UMO_FP32, bits, COUNT_OF(bits), 256, scales);
    expect_list(&b, UMO_INT8, UMO_FP32, bits, COUNT_OF(bits), 256, scales);
    bench_destroy(&b);
}

static void fp32_becomes_the_nearest_integer_within_the_type(void **state)
{
    contract *c = *state;
    enum {
        RUN = 512
    };
    static scaling scales[SCALES];
    static uint32_t bits[SCALES * RUN];
    static const uint32_t odd[] = {0,           0x80000000u, 1,           0x80000001u, 0x7f800000u,
                                   0xff800000u, 0x7f800001u, 0xffc00000u, 0x7fffffffu, 0x7f7fffffu,
                                   0xff7fffffu, 0x3effffffu, 0x3f000000u, 0x3f000001u, 0x437f8000u,
                                   0x437f7fffu, 0x42ff0000u, 0xc3008000u, 0x4b7fffffu, 0x4f000000u};
    if (no_kernels(c)) {
        skip();
    }
    assert_int_equal(scales_make(scales, SCALES_NOISE), SCALES);
    uint64_t random = 64;
    for (size_t s = 0; s < SCALES; s++) {
        for (size_t i = 0; i < RUN; i++) {
            uint32_t value = fields_random(&random);
            if (i < COUNT_OF(odd)) {
                value = odd[i];
            } else if (i < RUN / 2 && scales[s].scale != 0.0f) {
                /* Such that the result lies in or near the types. */
                const float wanted = (float)(value % 4096) / 8.0f - 192.0f;
                value = reference_bits((wanted - scales[s].bias) / scales[s].scale);
            }
            bits[s * RUN + i] = value;
        }
    }
    bench b = bench_create(c, COUNT_OF(bits));
    expect_list(&b, UMO_FP32, UMO_UINT8, bits, COUNT_OF(bits), RUN, scales);
    expect_list(&b, UMO_FP32, UMO_INT8, bits, COUNT_OF(bits), RUN, scales);
    /* Quarters from -320 to 320, as they are: all ties, and both ends of both types. */
    static const scaling plain[5] = {
        {1.0f, 0.0f}, {1.0f, 0.0f}, {1.0f, 0.0f}, {1.0f, 0.0f}, {1.0f, 0.0f}};
    for (uint32_t i = 0; i < 5 * RUN; i++) {
        bits[i] = reference_bits(((float)i - 1280.0f) / 4.0f);
    }
    expect_list(&b, UMO_FP32, UMO_UINT8, bits, 5 * RUN, RUN, plain);
    expect_list(&b, UMO_FP32, UMO_INT8, bits, 5 * RUN, RUN, plain);
    bench_destroy(&b);
}

/* The sum is rounded to FP32 before it is rounded to an integer. */
static void the_sum_is_rounded_before_the_integer(void **state)
{
    contract *c = *state;
    static const scaling scales[] = {{0x1p-30f, 0.5f}, {0x1p-30f, 1.5f}, {-0x1p-30f, 1.5f}};
    const uint32_t bits[] = {reference_bits(1.0f), reference_bits(1.0f), reference_bits(1.0f)};
    if (no_kernels(c)) {
        skip();
    }
    bench b = bench_create(c, COUNT_OF(bits));
    const umo_conversion k = {.from = UMO_FP32, .to = UMO_UINT8, .scale = 0x1p-30f, .bias = 0.5f};
    assert_int_equal(reference_convert(&k, bits[0]), 0);
    expect_list(&b, UMO_FP32, UMO_UINT8, bits, COUNT_OF(bits), 1, scales);
    expect_list(&b, UMO_FP32, UMO_INT8, bits, COUNT_OF(bits), 1, scales);
    bench_destroy(&b);
}

/* ---- places and lengths ---- */

static const umo_dtype pairs[][2] = {
    {UMO_FP32, UMO_FP16},  {UMO_FP32, UMO_BF16}, {UMO_FP16, UMO_FP32},  {UMO_FP16, UMO_BF16},
    {UMO_BF16, UMO_FP32},  {UMO_BF16, UMO_FP16}, {UMO_UINT8, UMO_FP32}, {UMO_INT8, UMO_FP32},
    {UMO_FP32, UMO_UINT8}, {UMO_FP32, UMO_INT8}};

/* How far a field's byte `at` is from the next address that is a multiple of size_bytes. */
static size_t to_multiple(const fields *f, size_t index, size_t at, size_t size_bytes)
{
    const field *one = &f->of[index];
    const uintptr_t address =
        (one->pages != NULL ? (uintptr_t)one->memory->host : one->memory->offset_bytes) +
        one->first + at;
    return (size_bytes - address % size_bytes) % size_bytes;
}

static void fields_convert(fields *f, uint32_t queue, umo_conversion k, const part *from,
                           const part *to)
{
    const umo_piece source = fields_piece(f, from);
    const umo_piece target = fields_piece(f, to);
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    k.source = source.memory;
    k.source_offset_bytes = source.offset_bytes;
    k.target = target.memory;
    k.target_offset_bytes = target.offset_bytes;
    umo_conversion given = k;
    umo_status status = umo_device_convert(f->c->device, queue, &given, f->waits.fences,
                                           f->waits.count, &fence, &error);
    memset(&given, 0xA5, sizeof given);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    for (size_t i = 0; i < k.count; i++) {
        const uint32_t bits = reference_convert(&k, unpack(fields_model(f, from), k.from, i));
        pack(fields_model(f, to) + i * reference_bytes(k.to), k.to, &bits, 1);
    }
    if (k.count > 0) {
        fields_next(f, queue, fence);
    } else {
        assert_true(umo_fence_done(fence));
    }
}

static void any_count_converts_between_any_memories_and_multiples(void **state)
{
    contract *c = *state;
    static const size_t counts[] = {0, 1, 2, 3, 5, 63, 64, 65, 100};
    enum {
        ROOM = 100 * 4 + 64
    };
    if (no_kernels(c)) {
        skip();
    }
    const size_t half = COUNT_OF(pairs) * COUNT_OF(counts) * ROOM;
    fields *f = fields_create(c, 2 * half, 70);
    for (size_t source = 0; source < f->count; source++) {
        for (size_t target = 0; target < f->count; target++) {
            size_t at = 0;
            for (size_t p = 0; p < COUNT_OF(pairs); p++) {
                for (size_t n = 0; n < COUNT_OF(counts); n++, at += ROOM) {
                    umo_conversion k = {.from = pairs[p][0],
                                        .to = pairs[p][1],
                                        .count = counts[n],
                                        .scale = 0.75f,
                                        .bias = -3.0f};
                    /* Every multiple in a word of 16 bytes comes in turn. */
                    const size_t from_bytes = reference_bytes(k.from);
                    const size_t to_bytes = reference_bytes(k.to);
                    part from = {source, at + n * from_bytes, counts[n] * from_bytes};
                    part to = {target, half + at + (n + p) % 16 * to_bytes, counts[n] * to_bytes};
                    from.offset_bytes += to_multiple(f, source, from.offset_bytes, from_bytes);
                    to.offset_bytes += to_multiple(f, target, to.offset_bytes, to_bytes);
                    fields_convert(f, (uint32_t)n % c->info->queues, k, &from, &to);
                }
            }
            fields_check(f);
        }
    }
    fields_finish(f);
}

static void many_elements_convert(void **state)
{
    contract *c = *state;
    static const size_t counts[] = {131071, 131072, 131073, (1u << 19) + 5};
    if (no_kernels(c)) {
        skip();
    }
    const size_t half = 4 * ((size_t)1 << 19) + 64;
    fields *f = fields_create(c, 2 * half, 71);
    for (size_t n = 0; n < COUNT_OF(counts); n++) {
        const umo_conversion k = {.from = UMO_FP16, .to = UMO_FP32, .count = counts[n]};
        part from = {n % f->count, 6, 2 * counts[n]};
        part to = {(n + 1) % f->count, half + 4, 4 * counts[n]};
        from.offset_bytes += to_multiple(f, from.field, from.offset_bytes, 2);
        to.offset_bytes += to_multiple(f, to.field, to.offset_bytes, 4);
        fields_convert(f, 0, k, &from, &to);
    }
    fields_finish(f);
}

/* ---- what is refused ---- */

static void expect_invalid(const fields *f, const umo_conversion *k)
{
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    fields_expect_invalid(
        umo_device_convert(f->c->device, 0, k, f->waits.fences, f->waits.count, &fence, &error),
        fence, &error);
}

/* A conversion of four elements from one field to another, both at multiples of 16. */
static umo_conversion plain_conversion(const fields *f, size_t pair, size_t source, size_t target)
{
    const part from = {source, 64 + to_multiple(f, source, 64, 16), 0};
    const part to = {target, 160 + to_multiple(f, target, 160, 16), 0};
    const umo_piece a = fields_piece(f, &from);
    const umo_piece b = fields_piece(f, &to);
    return (umo_conversion){.from = pairs[pair][0],
                            .to = pairs[pair][1],
                            .source = a.memory,
                            .source_offset_bytes = a.offset_bytes,
                            .target = b.memory,
                            .target_offset_bytes = b.offset_bytes,
                            .count = 4,
                            .scale = 1.0f};
}

static void other_pairs_of_types_are_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 256, 72);
    for (int from = -1; from <= UMO_DTYPES; from++) {
        for (int to = -1; to <= UMO_DTYPES; to++) {
            bool known = false;
            for (size_t p = 0; p < COUNT_OF(pairs); p++) {
                known = known || ((int)pairs[p][0] == from && (int)pairs[p][1] == to);
            }
            for (size_t count = 0; count < 2 && !known; count++) {
                /* Right but for its types. */
                umo_conversion k = plain_conversion(f, 0, 0, f->count - 1);
                k.from = (umo_dtype)from;
                k.to = (umo_dtype)to;
                k.count = count;
                expect_invalid(f, &k);
            }
        }
    }
    fields_finish(f);
}

static void an_address_that_is_no_multiple_of_its_element_is_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 256, 73);
    for (size_t i = 0; i < f->count; i++) {
        for (size_t p = 0; p < COUNT_OF(pairs); p++) {
            for (size_t by = 1; by < 4; by++) {
                umo_conversion k = plain_conversion(f, p, i, i);
                k.source_offset_bytes += by;
                if (by % reference_bytes(k.from) != 0) {
                    expect_invalid(f, &k);
                }
                k = plain_conversion(f, p, i, i);
                k.target_offset_bytes += by;
                if (by % reference_bytes(k.to) != 0) {
                    expect_invalid(f, &k);
                }
            }
        }
    }
    fields_finish(f);
}

static void a_source_that_overlaps_its_target_is_invalid(void **state)
{
    contract *c = *state;
    if (no_kernels(c)) {
        skip();
    }
    fields *f = fields_create(c, 256, 74);
    for (size_t i = 0; i < f->count; i++) {
        for (size_t p = 0; p < COUNT_OF(pairs); p++) {
            umo_conversion k = plain_conversion(f, p, i, i);
            const size_t source_bytes = 4 * reference_bytes(k.from);
            const size_t target_bytes = 4 * reference_bytes(k.to);
            const size_t first = k.source_offset_bytes;
            /* In place, and by the smallest step at both ends. */
            k.target_offset_bytes = first;
            expect_invalid(f, &k);
            k.target_offset_bytes = first + source_bytes - reference_bytes(k.to);
            if (k.target_offset_bytes % reference_bytes(k.to) == first % reference_bytes(k.to)) {
                expect_invalid(f, &k);
            }
            k.target_offset_bytes = first + reference_bytes(k.to) - target_bytes;
            expect_invalid(f, &k);
            /* Side by side is right. */
            k = plain_conversion(f, p, i, i);
            const size_t base = f->of[i].first;
            const part from = {i, k.source_offset_bytes - base, source_bytes};
            part to = {i, from.offset_bytes + source_bytes, target_bytes};
            fields_convert(f, 0, k, &from, &to);
            to.offset_bytes = from.offset_bytes - target_bytes;
            fields_convert(f, 0, k, &from, &to);
        }
    }
    fields_finish(f);
}

static void elements_outside_their_memory_are_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 256, 75);
    for (size_t i = 0; i < f->count; i++) {
        for (size_t p = 0; p < COUNT_OF(pairs); p++) {
            const umo_conversion right = plain_conversion(f, p, i, (i + 1) % f->count);
            const size_t counts[] = {1u << 30,         SIZE_MAX,         SIZE_MAX / 2 + 1,
                                     SIZE_MAX / 4 + 1, SIZE_MAX / 4 + 2, SIZE_MAX / 2 + 2};
            for (size_t n = 0; n < COUNT_OF(counts); n++) {
                umo_conversion k = right;
                k.count = counts[n];
                expect_invalid(f, &k);
            }
            for (size_t side = 0; side < 2; side++) {
                const umo_memory *memory = side == 0 ? right.source : right.target;
                const size_t element = reference_bytes(side == 0 ? right.from : right.to);
                const size_t ends[] = {memory->size_bytes - 3 * element,
                                       memory->size_bytes,
                                       memory->size_bytes + 16,
                                       SIZE_MAX - 15,
                                       SIZE_MAX / 2 + 1,
                                       SIZE_MAX};
                for (size_t e = 0; e < COUNT_OF(ends); e++) {
                    umo_conversion k = right;
                    *(side == 0 ? &k.source_offset_bytes : &k.target_offset_bytes) = ends[e];
                    expect_invalid(f, &k);
                }
                umo_conversion k = right;
                *(side == 0 ? &k.source : &k.target) = NULL;
                expect_invalid(f, &k);
            }
        }
    }
    fields_finish(f);
}

static void a_scale_counts_for_integers_alone(void **state)
{
    contract *c = *state;
    static const float wrong[] = {NAN, -NAN, INFINITY, -INFINITY};
    if (no_kernels(c)) {
        skip();
    }
    fields *f = fields_create(c, 256, 76);
    for (size_t p = 0; p < COUNT_OF(pairs); p++) {
        const umo_conversion right = plain_conversion(f, p, 0, f->count - 1);
        const bool integers = reference_bytes(right.from) == 1 || reference_bytes(right.to) == 1;
        for (size_t w = 0; w < 2 * COUNT_OF(wrong); w++) {
            umo_conversion k = right;
            *(w % 2 == 0 ? &k.scale : &k.bias) = wrong[w / 2];
            if (integers) {
                expect_invalid(f, &k);
                k.count = 0;
                expect_invalid(f, &k);
            } else {
                const part from = {0, right.source_offset_bytes - f->of[0].first,
                                   4 * reference_bytes(k.from)};
                const part to = {f->count - 1,
                                 right.target_offset_bytes - f->of[f->count - 1].first,
                                 4 * reference_bytes(k.to)};
                fields_convert(f, 0, k, &from, &to);
            }
        }
    }
    fields_finish(f);
}

static void a_queue_that_is_not_there_is_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 256, 77);
    const uint32_t queues[] = {c->info->queues, UINT32_MAX};
    for (size_t q = 0; q < COUNT_OF(queues); q++) {
        umo_conversion k = plain_conversion(f, 0, 0, f->count - 1);
        umo_fence fence = FIELDS_UNTOUCHED;
        umo_error error = {0};
        fields_expect_invalid(umo_device_convert(c->device, queues[q], &k, NULL, 0, &fence, &error),
                              fence, &error);
        k.count = 0;
        fields_expect_invalid(umo_device_convert(c->device, queues[q], &k, NULL, 0, &fence, &error),
                              fence, &error);
    }
    fields_finish(f);
}

const struct CMUnitTest contract_convert_tests[] = {
    CONTRACT_TEST(the_reference_knows_the_types),
    CONTRACT_TEST(every_value_of_16_bits_converts),
    CONTRACT_TEST(fp32_rounds_to_the_nearest_and_ties_to_even),
    CONTRACT_TEST(fp32_of_any_bits_converts_to_16),
    CONTRACT_TEST(integers_become_value_times_scale_plus_bias_rounded_once),
    CONTRACT_TEST(fp32_becomes_the_nearest_integer_within_the_type),
    CONTRACT_TEST(the_sum_is_rounded_before_the_integer),
    CONTRACT_TEST(any_count_converts_between_any_memories_and_multiples),
    CONTRACT_TEST(many_elements_convert),
    CONTRACT_TEST(other_pairs_of_types_are_invalid),
    CONTRACT_TEST(an_address_that_is_no_multiple_of_its_element_is_invalid),
    CONTRACT_TEST(a_source_that_overlaps_its_target_is_invalid),
    CONTRACT_TEST(elements_outside_their_memory_are_invalid),
    CONTRACT_TEST(a_scale_counts_for_integers_alone),
    CONTRACT_TEST(a_queue_that_is_not_there_is_invalid),
};
const size_t contract_convert_test_count = COUNT_OF(contract_convert_tests);

/*
 * The contract of operations on bytes: gather, scatter and fill. ops_order_tests.c has their waits
 * and threads, convert_tests.c the conversions.
 */
#include "fields.h"

#include <stdlib.h>

/* From here on a piece is long (device.h), and moves by a command of its own. */
#define LONG_BYTES ((size_t)256 << 10)

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

enum {
    SHIFTS = 18, /* offsets 0 to 17: every place in a word of 16 bytes, and beyond */
    SLOT = 128   /* bytes that a shifted piece has for itself; a multiple of 16 */
};

static bool runs_kernels(const contract *c)
{
    return (c->info->caps & UMO_CAP_KERNELS) != 0;
}

/* ---- gather and scatter: every place and length ---- */

static const size_t short_sizes[] = {1, 2, 3, 15, 16, 17, 33, 100};

/* Eighteen pieces, each at its own offset and all of one size, for each size and each offset of the
 * one range; the pieces take turns through the fields. */
static void shifted_moves(contract *c, bool gathers)
{
    const size_t block = (size_t)SHIFTS * SLOT;
    fields *f = fields_create(c, COUNT_OF(short_sizes) * SHIFTS * block, 1);
    for (size_t whole = 0; whole < f->count; whole++) {
        size_t at = 0;
        for (size_t s = 0; s < COUNT_OF(short_sizes); s++) {
            for (size_t shift = 0; shift < SHIFTS; shift++, at += block) {
                /* The one range lies in the first field's block, the pieces in all others'. */
                const part one = {whole, at + shift, short_sizes[s] * SHIFTS};
                part pieces[SHIFTS];
                for (size_t i = 0; i < SHIFTS; i++) {
                    const size_t other = f->count > 1 ? 1 + (i + shift) % (f->count - 1) : 0;
                    pieces[i] = (part){(whole + other) % f->count, at + i * SLOT + i,
                                       one.size_bytes / SHIFTS};
                }
                if (f->count == 1) {
                    continue;
                }
                if (gathers) {
                    fields_gather(f, 0, pieces, SHIFTS, &one);
                } else {
                    fields_scatter(f, 0, &one, pieces, SHIFTS);
                }
            }
        }
        fields_check(f);
    }
    fields_finish(f);
}

static void a_gather_joins_pieces_from_any_offset(void **state)
{
    shifted_moves(*state, true);
}

static void a_scatter_parts_a_range_to_any_offset(void **state)
{
    shifted_moves(*state, false);
}

static void one_piece_moves_from_any_offset_to_any(void **state)
{
    contract *c = *state;
    static const size_t sizes[] = {1, 16, 37};
    const size_t half = COUNT_OF(sizes) * SHIFTS * SHIFTS * SLOT;
    fields *f = fields_create(c, 2 * half, 2);
    size_t at = 0;
    for (size_t s = 0; s < COUNT_OF(sizes); s++) {
        for (size_t from = 0; from < SHIFTS; from++) {
            for (size_t to = 0; to < SHIFTS; to++, at += SLOT) {
                const part source = {(from + s) % f->count, at + from, sizes[s]};
                const part target = {(to + from) % f->count, half + at + to, sizes[s]};
                if ((from + to) % 2 == 0) {
                    fields_gather(f, 1, &source, 1, &target);
                } else {
                    fields_scatter(f, 1, &source, &target, 1);
                }
            }
        }
    }
    fields_finish(f);
}

/* Lengths around all that could matter, the long ones among them at odd offsets. */
static void pieces_have_any_length(void **state)
{
    contract *c = *state;
    static const size_t sizes[] = {
        0,
        LONG_BYTES - 1,
        1,
        LONG_BYTES - 1,
        0,
        LONG_BYTES,
        3,
        LONG_BYTES + 1,
        16,
        0,
        LONG_BYTES - 4,
        7,
        3 * LONG_BYTES + 5,
        2,
        4095,
        4096,
        65537,
        LONG_BYTES - 16,
        LONG_BYTES,
        1,
        0,
    };
    size_t total = 0;
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        total += sizes[i];
    }
    const size_t half = total + COUNT_OF(sizes) * 16 + 64;
    fields *f = fields_create(c, 2 * half, 3);
    for (size_t whole = 0; whole < f->count; whole++) {
        part pieces[COUNT_OF(sizes)];
        size_t at = 1;
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            pieces[i] = (part){(whole + i) % f->count, at, sizes[i]};
            at += sizes[i] + i % 16;
        }
        const part one = {whole, half + 5 + 3 * whole, total};
        fields_gather(f, 2, pieces, COUNT_OF(sizes), &one);
        /* Back again, to other places: from the last piece on. */
        for (size_t i = 0; i < COUNT_OF(sizes); i++) {
            pieces[i].field = (pieces[i].field + 1) % f->count;
        }
        fields_scatter(f, 2, &one, pieces, COUNT_OF(sizes));
        fields_check(f);
    }
    fields_finish(f);
}

static void any_number_of_pieces_moves(void **state)
{
    contract *c = *state;
    static const size_t counts[] = {0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 64, 65, 1000};
    enum {
        MOST = 1000,
        WIDTH = 24
    };
    static part pieces[MOST];
    fields *f = fields_create(c, 2 * (size_t)MOST * WIDTH + 16, 4);
    for (size_t n = 0; n < COUNT_OF(counts); n++) {
        size_t total = 0;
        for (size_t i = 0; i < counts[n]; i++) {
            const size_t size = 1 + (i * 5 + n) % (WIDTH - 8);
            pieces[i] = (part){(i + n) % f->count, i * WIDTH + i % 8, size};
            total += size;
        }
        const part one = {n % f->count, (size_t)MOST * WIDTH + n, total};
        fields_gather(f, 0, pieces, counts[n], &one);
        for (size_t i = 0; i < counts[n]; i++) {
            pieces[i].field = (i + n + 1) % f->count;
        }
        fields_scatter(f, 0, &one, pieces, counts[n]);
        fields_check(f);
    }
    /* No list at all, where there is nothing in it. */
    const part nowhere = {0, f->size_bytes, 0};
    const umo_piece end = fields_piece(f, &nowhere);
    umo_fence fence = FIELDS_UNTOUCHED;
    assert_int_equal(umo_device_gather(c->device, 0, NULL, 0, end.memory, end.offset_bytes, NULL, 0,
                                       &fence, NULL),
                     UMO_OK);
    assert_true(umo_fence_done(fence));
    fence = FIELDS_UNTOUCHED;
    assert_int_equal(umo_device_scatter(c->device, 0, end.memory, end.offset_bytes, NULL, 0, NULL,
                                        0, &fence, NULL),
                     UMO_OK);
    assert_true(umo_fence_done(fence));
    fields_finish(f);
}

/* ---- fill ---- */

static void a_fill_repeats_any_pattern_at_any_offset(void **state)
{
    contract *c = *state;
    if (!runs_kernels(c)) {
        skip();
    }
    static const unsigned char pattern[16] = {0x01, 0x80, 0xff, 0x00, 0x13, 0x24, 0x35, 0x46,
                                              0x57, 0x68, 0x79, 0x8a, 0x9b, 0xac, 0xbd, 0xce};
    static const size_t repeats[] = {0, 1, 2, 3, 5, 16, 33};
    enum {
        ROOM = 16 * 33 + 32
    };
    fields *f = fields_create(c, (size_t)SHIFTS * COUNT_OF(repeats) * ROOM, 5);
    for (size_t width = 1; width <= sizeof pattern; width *= 2) {
        for (size_t i = 0; i < f->count; i++) {
            size_t at = 0;
            for (size_t r = 0; r < COUNT_OF(repeats); r++) {
                for (size_t shift = 0; shift < SHIFTS; shift++, at += ROOM) {
                    const part range = {i, at + shift, repeats[r] * width};
                    fields_fill(f, 0, &range, pattern, width);
                }
            }
        }
        fields_check(f);
    }
    fields_finish(f);
}

static void a_fill_may_be_long(void **state)
{
    contract *c = *state;
    if (!runs_kernels(c)) {
        skip();
    }
    static const unsigned char pattern[16] = {1, 2,  3,  4,  5,  6,  7,  8,
                                              9, 10, 11, 12, 13, 14, 15, 16};
    const size_t size = 3u << 20;
    fields *f = fields_create(c, size + 64, 6);
    for (size_t i = 0; i < f->count; i++) {
        const part range = {i, 3 + i, size};
        fields_fill(f, 3, &range, pattern, 16);
        const part odd = {i, 3 + i, LONG_BYTES + 1};
        fields_fill(f, 3, &odd, pattern, 1);
    }
    fields_finish(f);
}

static void a_fill_that_its_pattern_does_not_divide_is_invalid(void **state)
{
    contract *c = *state;
    static const unsigned char pattern[64] = {9};
    static const struct {
        size_t size_bytes;
        size_t pattern_bytes;
    } wrong[] = {{16, 0},
                 {0, 0},
                 {12, 3},
                 {48, 12},
                 {64, 32},
                 {64, 64},
                 {0, 3},
                 {0, 32},
                 {1, 2},
                 {3, 2},
                 {6, 4},
                 {12, 8},
                 {24, 16},
                 {17, 16},
                 {8, 16},
                 {64, SIZE_MAX},
                 {64, (size_t)1 << 63},
                 {63, 4}};
    fields *f = fields_create(c, 256, 7);
    for (size_t i = 0; i < f->count; i++) {
        const part start = {i, 32, 0};
        const umo_piece at = fields_piece(f, &start);
        for (size_t w = 0; w < COUNT_OF(wrong); w++) {
            umo_fence fence = FIELDS_UNTOUCHED;
            umo_error error = {0};
            fields_expect_invalid(umo_device_fill(c->device, 0, at.memory, at.offset_bytes,
                                                  wrong[w].size_bytes, pattern,
                                                  wrong[w].pattern_bytes, NULL, 0, &fence, &error),
                                  fence, &error);
        }
    }
    fields_finish(f);
}

/* ---- all of them, in any order ---- */

static void random_moves_and_fills_match_a_plain_model(void **state)
{
    contract *c = *state;
    enum {
        ROUNDS = 400,
        MOST = 40
    };
    const size_t half = 96u << 10;
    uint64_t random = 2026;
    fields *f = fields_create(c, 2 * half, 8);
    for (int round = 0; round < ROUNDS; round++) {
        part pieces[MOST];
        const size_t count = fields_random(&random) % MOST;
        const size_t longest = (size_t)1 << fields_random(&random) % 12;
        /* One after the other in the lower half of whatever field, so that none overlap; taken in a
         * mixed order. */
        size_t at = fields_random(&random) % 32;
        size_t total = 0;
        for (size_t i = 0; i < count; i++) {
            const size_t size = fields_random(&random) % (longest + 1);
            pieces[i] = (part){fields_random(&random) % f->count, at, size};
            at += size + fields_random(&random) % 20;
            total += size;
            const size_t swapped = fields_random(&random) % (i + 1);
            const part kept = pieces[i];
            pieces[i] = pieces[swapped];
            pieces[swapped] = kept;
        }
        const part one = {fields_random(&random) % f->count,
                          half + fields_random(&random) % (half - total + 1), total};
        const uint32_t queue = fields_random(&random) % c->info->queues;
        const uint32_t what = fields_random(&random) % 5;
        if (what < 2) {
            fields_gather(f, queue, pieces, count, &one);
        } else if (what < 4) {
            fields_scatter(f, queue, &one, pieces, count);
        } else if (runs_kernels(c)) {
            const size_t width = (size_t)1 << fields_random(&random) % 5;
            const part range = {one.field, one.offset_bytes, total / width * width};
            fields_fill(f, queue, &range, &random, width < 8 ? width : 8);
        }
        if (round % 50 == 49) {
            fields_check(f);
        }
    }
    fields_finish(f);
}

/* ---- what may meet and what may not ---- */

static void a_gather_may_take_a_byte_more_than_once(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 4096, 9);
    for (size_t i = 0; i < f->count; i++) {
        const size_t other = (i + 1) % f->count;
        const part pieces[] = {{i, 100, 50},  {i, 100, 50}, {i, 120, 50},    {i, 0, 400},
                               {other, 0, 3}, {i, 149, 1},  {other, 1, 300}, {i, 100, 50},
                               {i, 0, 0},     {i, 99, 52}};
        const part target = {i, 2001, 0};
        fields_gather(f, 0, pieces, COUNT_OF(pieces), &target);
    }
    fields_finish(f);
}

static void ranges_may_touch(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 1000, 10);
    for (size_t i = 0; i < f->count; i++) {
        /* Pieces on both sides of the one range, up to both ends of the memory, next to each other;
         * empty ones lie where they like. */
        const part pieces[] = {{i, 700, 100}, {i, 300, 100}, {i, 800, 200}, {i, 500, 0},
                               {i, 0, 300},   {i, 1000, 0},  {i, 750, 0}};
        const part few[] = {{i, 300, 100}, {i, 700, 200}, {i, 400, 0}, {i, 699, 0}};
        const part one = {i, 400, 300};
        fields_gather(f, 0, few, COUNT_OF(few), &one);
        if (f->count > 1) {
            const part source = {(i + 1) % f->count, 150, 700};
            fields_scatter(f, 0, &source, pieces, COUNT_OF(pieces));
        }
        fields_scatter(f, 0, &one, few, COUNT_OF(few));
    }
    fields_finish(f);
}

static void expect_gather_invalid(const fields *f, const umo_piece *pieces, size_t count,
                                  const umo_piece *target)
{
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    fields_expect_invalid(umo_device_gather(f->c->device, 0, pieces, count, target->memory,
                                            target->offset_bytes, f->waits.fences, f->waits.count,
                                            &fence, &error),
                          fence, &error);
}

static void expect_scatter_invalid(const fields *f, const umo_piece *source,
                                   const umo_piece *pieces, size_t count)
{
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    fields_expect_invalid(umo_device_scatter(f->c->device, 0, source->memory, source->offset_bytes,
                                             pieces, count, f->waits.fences, f->waits.count, &fence,
                                             &error),
                          fence, &error);
}

static void a_piece_that_overlaps_the_one_range_is_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 2000, 11);
    for (size_t i = 0; i < f->count; i++) {
        const size_t other = (i + 1) % f->count;
        const part one = {i, 1000, 0};
        const part wrong[] = {{i, 1000, 100}, {i, 901, 100}, {i, 1099, 100}, {i, 990, 120},
                              {i, 1010, 1},   {i, 1000, 1},  {i, 999, 2},    {i, 800, 1000}};
        for (size_t w = 0; w < COUNT_OF(wrong); w++) {
            /* The culprit last, first, and alone; together they are 100 bytes or more. */
            const part fill_up = {other == i ? i : other, 100, 100};
            const umo_piece whole = fields_piece(f, &one);
            const umo_piece good = fields_piece(f, &fill_up);
            const umo_piece bad = fields_piece(f, &wrong[w]);
            const umo_piece last[] = {good, bad};
            const umo_piece first[] = {bad, good};
            expect_gather_invalid(f, last, 2, &whole);
            expect_gather_invalid(f, first, 2, &whole);
            expect_scatter_invalid(f, &whole, last, 2);
            expect_scatter_invalid(f, &whole, first, 2);
            if (wrong[w].size_bytes >= 100) {
                expect_gather_invalid(f, &bad, 1, &whole);
                expect_scatter_invalid(f, &whole, &bad, 1);
            }
        }
    }
    fields_finish(f);
}

static void a_scatter_to_pieces_that_overlap_is_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 4000, 12);
    for (size_t i = 0; i < f->count; i++) {
        const size_t other = (i + 1) % f->count;
        const part one = {i, 3000, 0};
        const umo_piece source = fields_piece(f, &one);
        const part sets[][4] = {
            {{i, 100, 50}, {i, 100, 50}, {other, 2000, 1}, {other, 2100, 1}},
            {{i, 100, 50}, {other, 0, 10}, {i, 149, 50}, {other, 20, 10}},
            /* Another memory's pieces lie between. */
            {{i, 140, 50}, {other, 110, 5}, {i, 100, 50}, {other, 120, 30}},
            {{i, 500, 1}, {i, 10, 1}, {i, 400, 101}, {i, 2, 1}},
            /* One that covers others which lie apart. */
            {{i, 0, 1000}, {i, 1000, 10}, {i, 900, 1}, {i, 1500, 10}},
            {{i, 700, 1}, {i, 600, 0}, {i, 700, 0}, {i, 700, 1}},
        };
        for (size_t s = 0; s < COUNT_OF(sets); s++) {
            umo_piece pieces[4];
            for (size_t p = 0; p < 4; p++) {
                pieces[p] = fields_piece(f, &sets[s][p]);
            }
            expect_scatter_invalid(f, &source, pieces, 4);
        }
        /* Hidden among many. */
        enum {
            MANY = 500
        };
        static umo_piece pieces[MANY];
        for (size_t p = 0; p < MANY; p++) {
            const part two = {i, (p * 7 % MANY) * 4, p == 77 ? 3 : 2};
            pieces[p] = fields_piece(f, &two);
        }
        pieces[300].offset_bytes = pieces[77].offset_bytes + 2;
        expect_scatter_invalid(f, &source, pieces, MANY);
    }
    fields_finish(f);
}

/* Two imports of one memory are two names for the same bytes. */
static void overlaps_are_seen_through_two_imports(void **state)
{
    contract *c = *state;
    const uint32_t both = UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    if ((c->info->caps & both) != both) {
        skip();
    }
    unsigned char *pages = aligned_alloc(c->page, 3 * c->page);
    assert_non_null(pages);
    umo_buffer *imports[2] = {NULL, NULL};
    umo_access accesses[2];
    umo_piece at[2];
    memset(pages, 1, 3 * c->page);
    for (size_t i = 0; i < 2; i++) {
        const umo_import import = {.data = pages + i * c->page,
                                   .size_bytes = 2 * c->page,
                                   .writable = true,
                                   .whole_pages = true};
        umo_fence_set waits;
        assert_int_equal(umo_buffer_import(c->device, c->scope, &import, &imports[i], NULL, NULL),
                         UMO_OK);
        accesses[i] = contract_use(0, 2 * c->page, UMO_SIDE_DEVICE, UMO_READ_WRITE, 0);
        assert_int_equal(umo_access_begin(imports[i], &accesses[i], &waits), UMO_OK);
        assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        at[i] = (umo_piece){umo_buffer_memory(imports[i]), umo_buffer_memory_offset(imports[i]), 0};
    }
    /* Byte page + 100 of the first is byte 100 of the second. */
    umo_piece a = at[0];
    umo_piece b = at[1];
    a.offset_bytes += c->page + 100;
    a.size_bytes = 50;
    b.offset_bytes += 149;
    b.size_bytes = 50;
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    fields_expect_invalid(
        umo_device_gather(c->device, 0, &a, 1, b.memory, b.offset_bytes, NULL, 0, &fence, &error),
        fence, &error);
    fields_expect_invalid(
        umo_device_scatter(c->device, 0, b.memory, b.offset_bytes, &a, 1, NULL, 0, &fence, &error),
        fence, &error);
    const umo_piece twice[] = {a, b};
    fields_expect_invalid(umo_device_scatter(c->device, 0, at[0].memory, at[0].offset_bytes, twice,
                                             2, NULL, 0, &fence, &error),
                          fence, &error);
    b.offset_bytes++;
    assert_int_equal(
        umo_device_gather(c->device, 0, &a, 1, b.memory, b.offset_bytes, NULL, 0, &fence, &error),
        UMO_OK);
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(umo_access_end(imports[i], &accesses[i], fence), UMO_OK);
        umo_buffer_release(imports[i]);
    }
    free(pages);
}

static void ranges_outside_their_memory_are_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 2000, 13);
    static const unsigned char pattern[16] = {5};
    for (size_t i = 0; i < f->count; i++) {
        const part start = {i, 0, 0};
        const part rest = {(i + 1) % f->count, 0, 10};
        const umo_piece inside = fields_piece(f, &start);
        const umo_piece good = fields_piece(f, &rest);
        const size_t size = inside.memory->size_bytes;
        const size_t past_half = SIZE_MAX / 2 + 1;
        const umo_piece wrong[] = {
            {inside.memory, size, 1},
            {inside.memory, size + 1, 0},
            {inside.memory, size - 1, 2},
            {inside.memory, 0, size + 1},
            {inside.memory, 1, size},
            {inside.memory, SIZE_MAX, 0},
            {inside.memory, SIZE_MAX, 1},
            {inside.memory, 1, SIZE_MAX},
            {inside.memory, 0, SIZE_MAX},
            {inside.memory, SIZE_MAX, SIZE_MAX},
            {inside.memory, past_half, past_half},
            {inside.memory, SIZE_MAX - 15, 16},
            {inside.memory, 16, SIZE_MAX - 15},
            {NULL, 0, 1},
        };
        for (size_t w = 0; w < COUNT_OF(wrong); w++) {
            const umo_piece *bad = &wrong[w];
            const umo_piece pieces[] = {good, *bad};
            umo_fence fence = FIELDS_UNTOUCHED;
            umo_error error = {0};
            /* As a piece, and as the range that the pieces make together. */
            expect_gather_invalid(f, pieces, 2, &inside);
            expect_scatter_invalid(f, &inside, pieces, 2);
            if (bad->size_bytes <= 10) {
                umo_piece part_of = good;
                part_of.size_bytes = bad->size_bytes;
                expect_gather_invalid(f, &part_of, 1, bad);
                expect_scatter_invalid(f, bad, &part_of, 1);
            }
            fields_expect_invalid(umo_device_fill(c->device, 0, bad->memory, bad->offset_bytes,
                                                  bad->size_bytes, pattern, 1, NULL, 0, &fence,
                                                  &error),
                                  fence, &error);
        }
        /* Each piece fits; together they are longer than a size can say, or than the target. */
        umo_memory endless = *inside.memory;
        endless.size_bytes = SIZE_MAX;
        const umo_piece halves[] = {{&endless, 0, past_half}, {&endless, 0, past_half}};
        const umo_piece whole = {inside.memory, 0, size};
        umo_piece wholes[16]; /* an import's memory is whole pages */
        for (size_t w = 0; w < COUNT_OF(wholes); w++) {
            wholes[w] = whole;
        }
        expect_gather_invalid(f, halves, 2, &good);
        expect_scatter_invalid(f, &good, halves, 2);
        expect_gather_invalid(f, wholes, COUNT_OF(wholes), &good);
    }
    fields_finish(f);
}

static void a_queue_that_is_not_there_is_invalid(void **state)
{
    contract *c = *state;
    fields *f = fields_create(c, 100, 14);
    const uint32_t queues[] = {c->info->queues, UINT32_MAX};
    static const unsigned char pattern[16] = {5};
    for (size_t q = 0; q < COUNT_OF(queues); q++) {
        for (size_t size = 0; size <= 4; size += 4) {
            const part from = {0, 0, size};
            const part to = {f->count - 1, 50, size};
            const umo_piece a = fields_piece(f, &from);
            const umo_piece b = fields_piece(f, &to);
            umo_fence fence = FIELDS_UNTOUCHED;
            umo_error error = {0};
            fields_expect_invalid(umo_device_gather(c->device, queues[q], &a, 1, b.memory,
                                                    b.offset_bytes, NULL, 0, &fence, &error),
                                  fence, &error);
            fields_expect_invalid(umo_device_scatter(c->device, queues[q], a.memory, a.offset_bytes,
                                                     &b, 1, NULL, 0, &fence, &error),
                                  fence, &error);
            fields_expect_invalid(umo_device_fill(c->device, queues[q], b.memory, b.offset_bytes,
                                                  size, pattern, 1, NULL, 0, &fence, &error),
                                  fence, &error);
        }
    }
    fields_finish(f);
}

const struct CMUnitTest contract_ops_tests[] = {
    CONTRACT_TEST(a_gather_joins_pieces_from_any_offset),
    CONTRACT_TEST(a_scatter_parts_a_range_to_any_offset),
    CONTRACT_TEST(one_piece_moves_from_any_offset_to_any),
    CONTRACT_TEST(pieces_have_any_length),
    CONTRACT_TEST(any_number_of_pieces_moves),
    CONTRACT_TEST(a_fill_repeats_any_pattern_at_any_offset),
    CONTRACT_TEST(a_fill_may_be_long),
    CONTRACT_TEST(a_fill_that_its_pattern_does_not_divide_is_invalid),
    CONTRACT_TEST(random_moves_and_fills_match_a_plain_model),
    CONTRACT_TEST(a_gather_may_take_a_byte_more_than_once),
    CONTRACT_TEST(ranges_may_touch),
    CONTRACT_TEST(a_piece_that_overlaps_the_one_range_is_invalid),
    CONTRACT_TEST(a_scatter_to_pieces_that_overlap_is_invalid),
    CONTRACT_TEST(overlaps_are_seen_through_two_imports),
    CONTRACT_TEST(ranges_outside_their_memory_are_invalid),
    CONTRACT_TEST(a_queue_that_is_not_there_is_invalid),
};
const size_t contract_ops_test_count = COUNT_OF(contract_ops_tests);

/*
 * Fields: making, comparing and giving back, and each operation done to a field and to its model.
 */
#include "fields.h"

#include <stdlib.h>

/* Of an import's first byte in its page: no multiple of anything. */
#define IMPORT_SHIFT 13

static void field_add(fields *f, umo_buffer *buffer, unsigned char *pages, size_t pages_bytes)
{
    field *made = &f->of[f->count++];
    *made = (field){.buffer = buffer, .pages = pages, .pages_bytes = pages_bytes};
    made->model = malloc(f->size_bytes);
    assert_non_null(made->model);
}

/* The bytes around an import, which nobody may write. */
static unsigned char guard_byte(size_t at)
{
    return (unsigned char)(at * 7 + 3);
}

static void import_add(fields *f)
{
    const contract *c = f->c;
    const uint32_t both = UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    if ((c->info->caps & both) != both) {
        return;
    }
    const size_t whole = (IMPORT_SHIFT + f->size_bytes + c->page - 1) / c->page * c->page;
    unsigned char *pages = aligned_alloc(c->page, whole);
    assert_non_null(pages);
    for (size_t i = 0; i < whole; i++) {
        pages[i] = guard_byte(i);
    }
    const umo_import import = {.data = pages + IMPORT_SHIFT,
                               .size_bytes = f->size_bytes,
                               .writable = true,
                               .whole_pages = true};
    umo_buffer *buffer = NULL;
    umo_status status = umo_buffer_import(c->device, c->scope, &import, &buffer, NULL, NULL);
    if (status != UMO_OK) {
        assert_int_equal(status, UMO_E_REFUSED);
        free(pages);
        return;
    }
    field_add(f, buffer, pages, whole);
}

static void fields_open(fields *f)
{
    f->waits.count = 0;
    for (size_t i = 0; i < f->count; i++) {
        field *one = &f->of[i];
        umo_fence_set waits;
        f->accesses[i] = contract_use(0, f->size_bytes, UMO_SIDE_DEVICE, UMO_READ_WRITE, 0);
        assert_int_equal(umo_access_begin(one->buffer, &f->accesses[i], &waits), UMO_OK);
        for (size_t w = 0; w < waits.count; w++) {
            assert_true(umo_fence_set_add(&f->waits, waits.fences[w]));
        }
        one->memory = umo_buffer_memory(one->buffer);
        one->first = umo_buffer_memory_offset(one->buffer);
    }
    f->open = true;
}

fields *fields_create(contract *c, size_t size_bytes, unsigned seed)
{
    fields *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->c = c;
    f->size_bytes = size_bytes;
    for (int m = 0; contract_mode(c, &m); m++) {
        field_add(f, contract_alloc(c, (umo_storage_mode)m, size_bytes), NULL, 0);
    }
    import_add(f);
    for (size_t i = 0; i < f->count; i++) {
        contract_pattern(f->of[i].model, size_bytes, seed + (unsigned)i);
        contract_host_write(f->of[i].buffer, 0, f->of[i].model, size_bytes);
    }
    fields_open(f);
    return f;
}

static void field_check(const fields *f, size_t index, unsigned char *bytes)
{
    const field *one = &f->of[index];
    contract_host_read(one->buffer, 0, bytes, f->size_bytes);
    for (size_t i = 0; i < f->size_bytes; i++) {
        if (bytes[i] != one->model[i]) {
            fail_msg("byte %zu of field %zu is 0x%02x, not 0x%02x", i, index, bytes[i],
                     one->model[i]);
        }
    }
    for (size_t i = 0; i < one->pages_bytes; i++) {
        if (i < IMPORT_SHIFT || i >= IMPORT_SHIFT + f->size_bytes) {
            assert_int_equal(one->pages[i], guard_byte(i));
        }
    }
}

static void fields_compare(fields *f)
{
    unsigned char *bytes = malloc(f->size_bytes);
    assert_non_null(bytes);
    assert_true(f->open);
    assert_int_equal(umo_fence_set_wait(&f->waits, UINT64_MAX), UMO_OK);
    for (size_t i = 0; i < f->count; i++) {
        assert_int_equal(umo_access_end(f->of[i].buffer, &f->accesses[i], (umo_fence){0}), UMO_OK);
    }
    f->open = false;
    for (size_t i = 0; i < f->count; i++) {
        field_check(f, i, bytes);
    }
    free(bytes);
}

void fields_check(fields *f)
{
    fields_compare(f);
    fields_open(f);
}

void fields_finish(fields *f)
{
    fields_compare(f);
    for (size_t i = 0; i < f->count; i++) {
        umo_buffer_release(f->of[i].buffer);
        free(f->of[i].model);
        free(f->of[i].pages);
    }
    free(f);
}

umo_piece fields_piece(const fields *f, const part *p)
{
    const field *one = &f->of[p->field];
    return (umo_piece){one->memory, one->first + p->offset_bytes, p->size_bytes};
}

unsigned char *fields_model(fields *f, const part *p)
{
    assert_true(p->offset_bytes <= f->size_bytes &&
                p->size_bytes <= f->size_bytes - p->offset_bytes);
    return f->of[p->field].model + p->offset_bytes;
}

void fields_next(fields *f, uint32_t queue, umo_fence fence)
{
    assert_ptr_equal(fence.device, f->c->device);
    assert_int_equal(fence.queue, queue);
    f->waits = (umo_fence_set){0};
    assert_true(umo_fence_set_add(&f->waits, fence));
}

static umo_piece *pieces_make(const fields *f, const part *parts, size_t count)
{
    umo_piece *pieces = malloc((count + 1) * sizeof *pieces);
    assert_non_null(pieces);
    for (size_t i = 0; i < count; i++) {
        pieces[i] = fields_piece(f, &parts[i]);
    }
    return pieces;
}

static void expect_ok(umo_status status, const umo_error *error)
{
    if (status != UMO_OK) {
        print_error("%s\n", error->text);
    }
    assert_int_equal(status, UMO_OK);
}

void fields_gather(fields *f, uint32_t queue, const part *pieces, size_t count, const part *target)
{
    umo_piece *given = pieces_make(f, pieces, count);
    const umo_piece to = fields_piece(f, target);
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    expect_ok(umo_device_gather(f->c->device, queue, given, count, to.memory, to.offset_bytes,
                                f->waits.fences, f->waits.count, &fence, &error),
              &error);
    /* They were read before the call returned. */
    memset(given, 0xA5, count * sizeof *given);
    free(given);
    part at = *target;
    for (size_t i = 0; i < count; i++) {
        at.size_bytes = pieces[i].size_bytes;
        memcpy(fields_model(f, &at), fields_model(f, &pieces[i]), at.size_bytes);
        at.offset_bytes += at.size_bytes;
    }
    if (at.offset_bytes != target->offset_bytes) {
        fields_next(f, queue, fence);
    } else {
        assert_true(umo_fence_done(fence));
    }
}

void fields_scatter(fields *f, uint32_t queue, const part *source, const part *pieces, size_t count)
{
    umo_piece *given = pieces_make(f, pieces, count);
    const umo_piece from = fields_piece(f, source);
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    expect_ok(umo_device_scatter(f->c->device, queue, from.memory, from.offset_bytes, given, count,
                                 f->waits.fences, f->waits.count, &fence, &error),
              &error);
    memset(given, 0xA5, count * sizeof *given);
    free(given);
    part at = *source;
    for (size_t i = 0; i < count; i++) {
        at.size_bytes = pieces[i].size_bytes;
        memcpy(fields_model(f, &pieces[i]), fields_model(f, &at), at.size_bytes);
        at.offset_bytes += at.size_bytes;
    }
    if (at.offset_bytes != source->offset_bytes) {
        fields_next(f, queue, fence);
    } else {
        assert_true(umo_fence_done(fence));
    }
}

void fields_fill(fields *f, uint32_t queue, const part *range, const void *pattern,
                 size_t pattern_bytes)
{
    unsigned char given[16];
    const umo_piece to = fields_piece(f, range);
    umo_fence fence = FIELDS_UNTOUCHED;
    umo_error error = {0};
    memcpy(given, pattern, pattern_bytes);
    expect_ok(umo_device_fill(f->c->device, queue, to.memory, to.offset_bytes, to.size_bytes, given,
                              pattern_bytes, f->waits.fences, f->waits.count, &fence, &error),
              &error);
    memset(given, 0xA5, sizeof given);
    for (size_t i = 0; i < range->size_bytes; i++) {
        fields_model(f, range)[i] = ((const unsigned char *)pattern)[i % pattern_bytes];
    }
    if (range->size_bytes > 0) {
        fields_next(f, queue, fence);
    } else {
        assert_true(umo_fence_done(fence));
    }
}

void fields_expect_invalid(umo_status status, umo_fence fence, const umo_error *error)
{
    assert_int_equal(status, UMO_E_INVAL);
    assert_int_equal(error->status, UMO_E_INVAL);
    assert_int_not_equal(error->text[0], '\0');
    assert_int_equal(fence.queue, FIELDS_UNTOUCHED.queue);
    assert_int_equal(fence.value, FIELDS_UNTOUCHED.value);
}

uint32_t fields_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

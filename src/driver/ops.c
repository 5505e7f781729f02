/*
 * Operations on bytes for every device: gather, scatter, fill, convert.
 *
 * Long pieces go through the driver's copy, which is the copy engine where there is one and never
 * slower than a kernel; from COPY_MIN_BYTES on, the moving itself costs more than a command.
 * Shorter ones share a kernel's launch, eight at a time, since a command (10 to 40 us on most
 * devices) is what they cost. One alone gains nothing from a kernel.
 */
#include "base/size.h"
#include "driver/device.h"
#include "driver/ops/common.h"
#include "driver/ops/ops.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COPY_MIN_BYTES ((size_t)256 << 10)

/* Work items of a group, fixed because some compilers work again for each new number, and of a row
 * of the grid at most: enough to fill a large GPU. */
#define GROUP_ITEMS 64u
#define ROW_ITEMS ((u64)1 << 17)

umo_status umo_device_prepare(umo_device *device, umo_error *error)
{
    const umo_ops *ops = NULL;
    return umo_ops_get(device, &ops, error);
}

/* ---- ranges ---- */

/* A range of bytes that is comparable with others of its device: in the host's address space, or
 * inside one native memory. */
typedef struct place {
    const void *space; /* NULL: the host's */
    uintptr_t first;
    size_t size_bytes;
} place;

/* A range's address as far as it is known, for alignments: imports lie where they lie, everything
 * else at multiples of alloc_align_bytes. */
static uintptr_t address_of(const umo_memory *memory, size_t offset_bytes)
{
    return (memory->imported ? (uintptr_t)memory->host : memory->offset_bytes) + offset_bytes;
}

static place place_of(const umo_memory *memory, size_t offset_bytes, size_t size_bytes)
{
    if (memory->mode == UMO_UNIFIED && memory->host != NULL) {
        return (place){NULL, (uintptr_t)memory->host + offset_bytes, size_bytes};
    }
    return (place){memory->native, memory->offset_bytes + offset_bytes, size_bytes};
}

static bool places_overlap(const place *a, const place *b)
{
    return a->space == b->space && a->size_bytes > 0 && b->size_bytes > 0 &&
           (a->first < b->first ? b->first - a->first < a->size_bytes
                                : a->first - b->first < b->size_bytes);
}

static int places_compare(const void *left, const void *right)
{
    const place *a = left;
    const place *b = right;
    const uintptr_t a_space = (uintptr_t)a->space;
    const uintptr_t b_space = (uintptr_t)b->space;
    return a_space != b_space ? (a_space < b_space ? -1 : 1)
                              : (a->first > b->first) - (a->first < b->first);
}

static umo_status range_check(const umo_memory *memory, size_t offset_bytes, size_t size_bytes,
                              const char *what, umo_error *error)
{
    if (memory == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%s has no memory", what);
    }
    if (!umo_range_fits(offset_bytes, size_bytes, memory->size_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "%s: %zu bytes from byte %zu on do not lie in %zu bytes", what,
                             size_bytes, offset_bytes, memory->size_bytes);
    }
    return UMO_OK;
}

/* Of two or more pieces: INVAL when two of them share a byte. */
static umo_status pieces_check_apart(const umo_piece *pieces, size_t count, umo_error *error)
{
    place *places = count > 1 ? calloc(count, sizeof *places) : NULL;
    if (places == NULL) {
        return count > 1 ? umo_error_set(error, UMO_E_NOMEM, 0, "no memory for %zu pieces", count)
                         : UMO_OK;
    }
    size_t used = 0;
    for (size_t i = 0; i < count; i++) {
        if (pieces[i].size_bytes > 0) {
            places[used++] =
                place_of(pieces[i].memory, pieces[i].offset_bytes, pieces[i].size_bytes);
        }
    }
    qsort(places, used, sizeof *places, places_compare);
    bool apart = true;
    for (size_t i = 1; i < used; i++) {
        apart = apart && !places_overlap(&places[i - 1], &places[i]);
    }
    free(places);
    return apart ? UMO_OK : umo_error_set(error, UMO_E_INVAL, 0, "two of the pieces overlap");
}

/* ---- launching ---- */

/* One operation under way: where it goes and what of it has been queued. */
typedef struct work {
    umo_device *device;
    uint32_t queue;
    umo_fence own[UMO_WAITS_MAX];
    size_t own_count;
    umo_fence last;
    umo_error *error;
} work;

static umo_status work_begin(work *w, umo_device *device, uint32_t queue, const umo_fence *waits,
                             size_t wait_count, umo_error *error)
{
    *w = (work){.device = device, .queue = queue, .error = error};
    umo_status status = umo_device_waits(device, waits, wait_count, w->own, &w->own_count);
    return status == UMO_OK
               ? UMO_OK
               : umo_error_set(error, status, 0, "work that the operation waits for failed");
}

static umo_status queue_check(const umo_device *device, uint32_t queue, umo_error *error)
{
    return queue < device->info.queues
               ? UMO_OK
               : umo_error_set(error, UMO_E_INVAL, 0, "device '%s' has %u queue(s), no number %u",
                               device->info.name, device->info.queues, queue);
}

/* After an error nothing may run any more; a queue runs in order, so its last fence stands for all.
 */
static umo_status work_end(work *w, umo_status status, umo_fence *out)
{
    w->last.device = w->device;
    w->last.queue = w->queue;
    if (status == UMO_OK) {
        *out = w->last;
    } else {
        umo_status_ignore(umo_fence_wait(w->last, UINT64_MAX));
    }
    return status;
}

/* Nothing to do has been done, whatever the waits are: nobody waits for them. */
static umo_status work_none(umo_device *device, uint32_t queue, umo_fence *out)
{
    *out = (umo_fence){.device = device, .queue = queue};
    return UMO_OK;
}

static umo_status work_launch(work *w, void *kernel, const umo_kernel_arg *args, size_t arg_count,
                              u64 items, size_t rows)
{
    items = items < ROW_ITEMS ? items : ROW_ITEMS;
    const umo_grid grid = {
        .dimensions = rows > 0 ? 2 : 1,
        .global = {(size_t)((items + GROUP_ITEMS - 1) / GROUP_ITEMS * GROUP_ITEMS), rows},
        .local = {GROUP_ITEMS, rows > 0}};
    return w->device->driver->kernel_launch(w->device->state, w->queue, kernel, args, arg_count,
                                            &grid, w->own, w->own_count, &w->last, w->error);
}

static umo_status work_copy(work *w, const umo_memory *from, size_t from_offset_bytes,
                            const umo_memory *to, size_t to_offset_bytes, size_t size_bytes)
{
    /* A driver writes through its target, never to it. */
    umo_memory target = *to;
    umo_status status =
        w->device->driver->copy(w->device->state, w->queue, from, from_offset_bytes, &target,
                                to_offset_bytes, size_bytes, w->own, w->own_count, &w->last);
    return status == UMO_OK ? UMO_OK
                            : umo_error_set(w->error, status, 0,
                                            "the driver did not copy %zu bytes", size_bytes);
}

/* Bytes from an address to the next multiple of width, at most limit_bytes. */
static size_t head_of(uintptr_t address, size_t width, size_t limit_bytes)
{
    const size_t head = (width - address % width) % width;
    return head < limit_bytes ? head : limit_bytes;
}

/* ---- gather and scatter ---- */

/* Short pieces that wait for a launch. */
typedef struct moves {
    const umo_ops *ops; /* NULL: there is no kernel */
    size_t count;
    u64 items;
    const umo_memory *from[MOVE_PIECES];
    const umo_memory *to[MOVE_PIECES];
    size_t sizes[MOVE_PIECES];
    move_plan plan;
} moves;

static umo_status moves_flush(work *w, moves *m)
{
    umo_kernel_arg args[2 * MOVE_PIECES + 1] = {{0}};
    const size_t count = m->count;
    m->count = 0;
    if (count < 2) {
        return count == 0 ? UMO_OK
                          : work_copy(w, m->from[0], m->plan.from[0], m->to[0], m->plan.to[0],
                                      m->sizes[0]);
    }
    for (size_t i = 0; i < MOVE_PIECES; i++) {
        /* All arguments are bound; those without a piece are not looked at. */
        const size_t p = i < count ? i : 0;
        args[i] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY, .memory = m->from[p]};
        args[MOVE_PIECES + i] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY, .memory = m->to[p]};
    }
    args[(size_t)2 * MOVE_PIECES] =
        (umo_kernel_arg){.kind = UMO_ARG_VALUE, .value = &m->plan, .size_bytes = sizeof m->plan};
    const u64 items = m->items;
    m->items = 0;
    return work_launch(w, m->ops->move, args, sizeof args / sizeof args[0], items, count);
}

static umo_status moves_add(work *w, moves *m, const umo_memory *from, size_t from_offset_bytes,
                            const umo_memory *to, size_t to_offset_bytes, size_t size_bytes)
{
    if (m->ops == NULL || size_bytes >= COPY_MIN_BYTES) {
        return work_copy(w, from, from_offset_bytes, to, to_offset_bytes, size_bytes);
    }
    const uintptr_t source = address_of(from, from_offset_bytes);
    const uintptr_t target = address_of(to, to_offset_bytes);
    size_t width = UMO_OPS_WORD_BYTES;
    while (width > 1 && source % width != target % width) {
        width /= 4;
    }
    const size_t p = m->count++;
    const size_t head = head_of(target, width, size_bytes);
    m->from[p] = from;
    m->to[p] = to;
    m->sizes[p] = size_bytes;
    m->plan.from[p] = from_offset_bytes;
    m->plan.to[p] = to_offset_bytes;
    m->plan.head[p] = (u32)head;
    m->plan.words[p] = (size_bytes - head) / width;
    m->plan.tail[p] = (u32)((size_bytes - head) % width);
    m->plan.width[p] = (u32)width;
    m->items = m->items > m->plan.words[p] ? m->items : m->plan.words[p];
    m->items = m->items > 0 ? m->items : 1;
    return m->count < MOVE_PIECES ? UMO_OK : moves_flush(w, m);
}

/* Checks pieces and the one range that they fill or are filled from; *out_total is its length. */
static umo_status pieces_check(const umo_piece *pieces, size_t count, const umo_memory *whole,
                               size_t offset_bytes, size_t *out_total, umo_error *error)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        umo_status status = range_check(pieces[i].memory, pieces[i].offset_bytes,
                                        pieces[i].size_bytes, "a piece", error);
        if (status != UMO_OK) {
            return status;
        }
        if (__builtin_add_overflow(total, pieces[i].size_bytes, &total)) {
            return umo_error_set(error, UMO_E_INVAL, 0, "the pieces are too long together");
        }
    }
    umo_status status = range_check(whole, offset_bytes, total, "the pieces' one range", error);
    if (status != UMO_OK) {
        return status;
    }
    const place one = place_of(whole, offset_bytes, total);
    for (size_t i = 0; i < count; i++) {
        const place piece =
            place_of(pieces[i].memory, pieces[i].offset_bytes, pieces[i].size_bytes);
        if (places_overlap(&one, &piece)) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "piece %zu overlaps the range that holds all pieces", i);
        }
    }
    *out_total = total;
    return UMO_OK;
}

/* How many of the pieces a kernel would move. */
static size_t short_pieces(const umo_piece *pieces, size_t count)
{
    size_t found = 0;
    for (size_t i = 0; i < count; i++) {
        found += pieces[i].size_bytes > 0 && pieces[i].size_bytes < COPY_MIN_BYTES;
    }
    return found;
}

/* Both ways; the pieces have been checked. */
static umo_status pieces_move(umo_device *device, uint32_t queue, const umo_piece *pieces,
                              size_t count, const umo_memory *whole, size_t offset_bytes,
                              bool gathers, const umo_fence *waits, size_t wait_count,
                              umo_fence *out, umo_error *error)
{
    moves m = {0};
    umo_program_source source;
    work w;
    umo_status status = UMO_OK;
    if (short_pieces(pieces, count) > 1 && umo_ops_source(device, &source)) {
        status = umo_ops_get(device, &m.ops, error);
    }
    if (status == UMO_OK) {
        status = work_begin(&w, device, queue, waits, wait_count, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    for (size_t i = 0; i < count && status == UMO_OK; i++) {
        const umo_piece *piece = &pieces[i];
        if (piece->size_bytes == 0) {
            continue;
        }
        status = gathers ? moves_add(&w, &m, piece->memory, piece->offset_bytes, whole,
                                     offset_bytes, piece->size_bytes)
                         : moves_add(&w, &m, whole, offset_bytes, piece->memory,
                                     piece->offset_bytes, piece->size_bytes);
        offset_bytes += piece->size_bytes;
    }
    if (status == UMO_OK) {
        status = moves_flush(&w, &m);
    }
    return work_end(&w, status, out);
}

umo_status umo_device_gather(umo_device *device, uint32_t queue, const umo_piece *pieces,
                             size_t piece_count, const umo_memory *target, size_t offset_bytes,
                             const umo_fence *waits, size_t wait_count, umo_fence *out,
                             umo_error *error)
{
    size_t total = 0;
    umo_status status = queue_check(device, queue, error);
    if (status == UMO_OK) {
        status = pieces_check(pieces, piece_count, target, offset_bytes, &total, error);
    }
    if (status != UMO_OK || total == 0) {
        return status == UMO_OK ? work_none(device, queue, out) : status;
    }
    return pieces_move(device, queue, pieces, piece_count, target, offset_bytes, true, waits,
                       wait_count, out, error);
}

umo_status umo_device_scatter(umo_device *device, uint32_t queue, const umo_memory *source,
                              size_t offset_bytes, const umo_piece *pieces, size_t piece_count,
                              const umo_fence *waits, size_t wait_count, umo_fence *out,
                              umo_error *error)
{
    size_t total = 0;
    umo_status status = queue_check(device, queue, error);
    if (status == UMO_OK) {
        status = pieces_check(pieces, piece_count, source, offset_bytes, &total, error);
    }
    if (status == UMO_OK) {
        status = pieces_check_apart(pieces, piece_count, error);
    }
    if (status != UMO_OK || total == 0) {
        return status == UMO_OK ? work_none(device, queue, out) : status;
    }
    return pieces_move(device, queue, pieces, piece_count, source, offset_bytes, false, waits,
                       wait_count, out, error);
}

/* ---- fill ---- */

umo_status umo_device_fill(umo_device *device, uint32_t queue, const umo_memory *memory,
                           size_t offset_bytes, size_t size_bytes, const void *pattern,
                           size_t pattern_bytes, const umo_fence *waits, size_t wait_count,
                           umo_fence *out, umo_error *error)
{
    umo_status status = queue_check(device, queue, error);
    if (status == UMO_OK) {
        status = range_check(memory, offset_bytes, size_bytes, "a fill", error);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (!umo_is_power_of_two(pattern_bytes) || pattern_bytes > UMO_OPS_WORD_BYTES ||
        size_bytes % pattern_bytes != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a pattern of %zu bytes for %zu bytes: 1, 2, 4, 8 or 16 that divide "
                             "the size are possible",
                             pattern_bytes, size_bytes);
    }
    const umo_ops *ops = NULL;
    work w;
    status = umo_ops_get(device, &ops, error);
    if (status == UMO_OK && size_bytes == 0) {
        return work_none(device, queue, out);
    }
    if (status == UMO_OK) {
        status = work_begin(&w, device, queue, waits, wait_count, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    /* Long enough to begin anywhere in it. */
    unsigned char bytes[2 * UMO_OPS_WORD_BYTES];
    for (size_t i = 0; i < sizeof bytes; i += pattern_bytes) {
        memcpy(bytes + i, pattern, pattern_bytes);
    }
    const size_t head = head_of(address_of(memory, offset_bytes), UMO_OPS_WORD_BYTES, size_bytes);
    fill_plan plan = {.at = offset_bytes,
                      .count = (size_bytes - head) / UMO_OPS_WORD_BYTES,
                      .head = (u32)head,
                      .tail = (u32)((size_bytes - head) % UMO_OPS_WORD_BYTES)};
    memcpy(plan.pattern, bytes, sizeof plan.pattern);
    memcpy(plan.words, bytes + head % UMO_OPS_WORD_BYTES, sizeof plan.words);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = memory},
        {.kind = UMO_ARG_VALUE, .value = &plan, .size_bytes = sizeof plan},
    };
    status = work_launch(&w, ops->fill, args, 2, plan.count > 0 ? plan.count : 1, 0);
    return work_end(&w, status, out);
}

/* ---- convert ---- */

static size_t element_bytes(umo_dtype type)
{
    switch (type) {
    case UMO_UINT8:
    case UMO_INT8:
        return 1;
    case UMO_FP16:
    case UMO_BF16:
        return 2;
    case UMO_FP32:
        return 4;
    default:
        return 0;
    }
}

_Static_assert(UMO_UINT8 == TYPE_UINT8 && UMO_INT8 == TYPE_INT8 && UMO_FP16 == TYPE_FP16 &&
                   UMO_FP32 == TYPE_FP32 && UMO_BF16 == TYPE_BF16,
               "the kernels know the types by umo_dtype's numbers");

static umo_status conversion_check(const umo_conversion *c, umo_error *error)
{
    const size_t from_bytes = element_bytes(c->from);
    const size_t to_bytes = element_bytes(c->to);
    size_t source_bytes = 0;
    size_t target_bytes = 0;
    /* Integers meet FP32 only. */
    const bool integers = from_bytes == 1 || to_bytes == 1;
    if (from_bytes == 0 || to_bytes == 0 || c->from == c->to ||
        (integers && c->from != UMO_FP32 && c->to != UMO_FP32)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no conversion from type %d to type %d",
                             (int)c->from, (int)c->to);
    }
    if (integers && (!isfinite(c->scale) || !isfinite(c->bias))) {
        return umo_error_set(error, UMO_E_INVAL, 0, "scale and bias must be finite numbers");
    }
    if (__builtin_mul_overflow(c->count, from_bytes, &source_bytes) ||
        __builtin_mul_overflow(c->count, to_bytes, &target_bytes)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "%zu elements are too many", c->count);
    }
    umo_status status =
        range_check(c->source, c->source_offset_bytes, source_bytes, "the source", error);
    if (status == UMO_OK) {
        status = range_check(c->target, c->target_offset_bytes, target_bytes, "the target", error);
    }
    if (status != UMO_OK) {
        return status;
    }
    if (address_of(c->source, c->source_offset_bytes) % from_bytes != 0 ||
        address_of(c->target, c->target_offset_bytes) % to_bytes != 0) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "source and target must lie at multiples of their elements' %zu and "
                             "%zu bytes",
                             from_bytes, to_bytes);
    }
    const place source = place_of(c->source, c->source_offset_bytes, source_bytes);
    const place target = place_of(c->target, c->target_offset_bytes, target_bytes);
    return places_overlap(&source, &target)
               ? umo_error_set(error, UMO_E_INVAL, 0, "source and target overlap")
               : UMO_OK;
}

umo_status umo_device_convert(umo_device *device, uint32_t queue, const umo_conversion *conversion,
                              const umo_fence *waits, size_t wait_count, umo_fence *out,
                              umo_error *error)
{
    const umo_conversion *c = conversion;
    const umo_ops *ops = NULL;
    work w;
    umo_status status = queue_check(device, queue, error);
    if (status == UMO_OK) {
        status = conversion_check(c, error);
    }
    if (status == UMO_OK) {
        status = umo_ops_get(device, &ops, error);
    }
    if (status == UMO_OK && c->count == 0) {
        return work_none(device, queue, out);
    }
    if (status == UMO_OK) {
        status = work_begin(&w, device, queue, waits, wait_count, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    convert_plan plan = {.from = c->source_offset_bytes,
                         .to = c->target_offset_bytes,
                         .count = c->count,
                         .from_type = (u32)c->from,
                         .to_type = (u32)c->to};
    memcpy(&plan.scale, &c->scale, sizeof plan.scale);
    memcpy(&plan.bias, &c->bias, sizeof plan.bias);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = c->source},
        {.kind = UMO_ARG_MEMORY, .memory = c->target},
        {.kind = UMO_ARG_VALUE, .value = &plan, .size_bytes = sizeof plan},
    };
    status = work_launch(&w, ops->convert, args, 3, plan.count, 0);
    return work_end(&w, status, out);
}

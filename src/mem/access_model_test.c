/*
 * Brackets against a plain model: one byte of content and one set of sides for every byte.
 *
 * Random brackets, uploads and downloads run on random ranges, up to four brackets open at a time,
 * on every storage mode, on imported memory and on movable memory that changes its mode in between,
 * at once and delayed, with and without poison, and on a device whose two sides see each other only
 * through publish. Every read of a defined byte must see the model's, and every transfer must be
 * counted as the model counts it.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "mem/buffer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum {
    SIZE = 300,
    OPEN_MAX = 4,
    STEPS = 600,
    PENDING_MAX = 64
};

typedef struct kind {
    const char *name;
    umo_storage_mode mode;
    bool imported;
    bool apart;
    bool movable;
    uint64_t delay_ns;
    bool test_mode;
} kind;

/* A device read, or a download, whose result is looked at once its fence has passed. */
typedef struct pending {
    umo_fence fence;
    size_t size_bytes;
    unsigned char seen[SIZE];
    unsigned char expected[SIZE];
    bool defined[SIZE];
    bool upload; /* seen is the source */
} pending;

typedef struct open_bracket {
    umo_access access;
    umo_fence done;
    bool used;
} open_bracket;

typedef struct rig {
    const kind *kind;
    uint64_t seed;
    umo_device *device;
    umo_program *program;
    umo_kernel *touch;
    umo_scope *scope;
    umo_buffer *buffer;
    unsigned char owned[SIZE + 64]; /* behind imported memory */

    umo_storage_mode mode;
    bool host_side; /* of two memories */
    void *home;     /* movable memory's address */
    unsigned char bytes[SIZE];
    bool defined[SIZE];
    uint32_t valid[SIZE];
    open_bracket open[OPEN_MAX];
    umo_counters counted;
    pending *pending[PENDING_MAX];
    size_t pending_count;
} rig;

static uint64_t random_next(uint64_t *state)
{
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static size_t below(rig *r, size_t limit)
{
    return (size_t)(random_next(&r->seed) % limit);
}

/* The device's work: copies what it sees, then writes a pattern. */
typedef struct touch_args {
    size_t size_bytes;
    unsigned char *seen; /* or NULL */
    bool write;
    unsigned char pattern;
} touch_args;

static unsigned char pattern_byte(unsigned char pattern, size_t i)
{
    return (unsigned char)(pattern + i * 7);
}

static void touch_run(void *const *args, const size_t global[3])
{
    (void)global;
    unsigned char *bytes = args[0];
    const touch_args *touch = args[1];
    if (touch->seen != NULL) {
        memcpy(touch->seen, bytes, touch->size_bytes);
    }
    for (size_t i = 0; touch->write && i < touch->size_bytes; i++) {
        bytes[i] = pattern_byte(touch->pattern, i);
    }
}

static const umo_host_kernel kernels[] = {{"touch", touch_run}, {NULL, NULL}};

static void rig_open(rig *r, const kind *k, uint64_t seed)
{
    memset(r, 0, sizeof *r);
    r->kind = k;
    r->seed = seed;
    const wrapper_switches switches = {.apart = k->apart};
    const umo_driver_options options = {.delay_ns = k->delay_ns, .test_mode = k->test_mode};
    r->device = wrapper_device(&switches, &options);
    assert_non_null(r->device);
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    assert_int_equal(umo_program_create(r->device, &source, &r->program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(r->program, "touch", &r->touch, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "model", 0, &r->scope, NULL), UMO_OK);
    if (k->imported) {
        for (size_t i = 0; i < SIZE; i++) {
            r->bytes[i] = r->owned[13 + i] = (unsigned char)random_next(&r->seed);
            r->defined[i] = true;
            r->valid[i] = UMO_SIDE_HOST;
        }
        const umo_import import = {.data = r->owned + 13, .size_bytes = SIZE, .writable = true};
        assert_int_equal(umo_buffer_import(r->device, r->scope, &import, &r->buffer, NULL, NULL),
                         UMO_OK);
    } else if (k->movable) {
        assert_int_equal(
            umo_buffer_alloc_movable(r->device, r->scope, SIZE, k->mode, &r->buffer, NULL), UMO_OK);
        r->home = umo_buffer_host(r->buffer);
        assert_non_null(r->home);
    } else {
        assert_int_equal(umo_buffer_alloc(r->device, r->scope, SIZE, k->mode, &r->buffer, NULL),
                         UMO_OK);
    }
    r->mode = k->mode;
    r->host_side = k->mode == UMO_MANAGED;
    umo_scope_read(r->scope, &r->counted);
}

static bool two_sided(const rig *r)
{
    return r->mode != UMO_UNIFIED;
}

static void count(umo_tally *tally, uint64_t size_bytes)
{
    tally->events++;
    tally->bytes += size_bytes;
}

/* What bytes are valid on a side after a move: a range that holds any keeps some and gains some. */
static void model_become(rig *r, uint32_t keep, uint32_t gain)
{
    for (size_t i = 0; i < SIZE; i++) {
        r->valid[i] = r->valid[i] != 0 ? (r->valid[i] & keep) | gain : 0;
    }
}

/* The transfers of a move: every run of bytes that are valid where `has` says and not where `lacks`
 * says. */
static void model_send(rig *r, uint32_t has, uint32_t lacks, umo_direction direction)
{
    for (size_t at = 0; at < SIZE;) {
        uint32_t valid = r->valid[at];
        size_t stop = at;
        while (stop < SIZE && r->valid[stop] == valid) {
            stop++;
        }
        if ((valid & has) != 0 && (valid & lacks) == 0) {
            count(&r->counted.transfer_performed[direction], stop - at);
        }
        at = stop;
    }
}

static void model_migrate(rig *r, umo_storage_mode mode)
{
    const uint32_t both = UMO_SIDE_HOST | UMO_SIDE_DEVICE;
    if (r->mode == UMO_UNIFIED && mode != UMO_UNIFIED) {
        for (size_t i = 0; r->kind->apart && i < SIZE; i++) {
            r->valid[i] = r->valid[i] == UMO_SIDE_DEVICE ? both : r->valid[i];
        }
        model_send(r, mode == UMO_PRIVATE ? both : UMO_SIDE_DEVICE, 0, UMO_DIRECTION_IN);
        if (mode == UMO_PRIVATE) {
            model_become(r, 0, UMO_SIDE_DEVICE);
        } else {
            model_become(r, UMO_SIDE_DEVICE, UMO_SIDE_HOST);
        }
    } else if (r->mode != UMO_UNIFIED && mode == UMO_UNIFIED) {
        model_send(r, UMO_SIDE_DEVICE, UMO_SIDE_HOST, UMO_DIRECTION_OUT);
        model_become(r, r->kind->apart ? 0 : UMO_SIDE_DEVICE, UMO_SIDE_HOST);
    } else if (mode == UMO_PRIVATE) {
        model_send(r, UMO_SIDE_HOST, UMO_SIDE_DEVICE, UMO_DIRECTION_IN);
        model_become(r, 0, UMO_SIDE_DEVICE);
    }
    if (r->mode != mode) {
        count(&r->counted.moves, SIZE);
    }
    r->mode = mode;
    r->host_side = mode == UMO_MANAGED;
}

/* A device that is not coherent takes from the host what that wrote: not under a reader's eyes. */
static bool model_taken(const rig *r, size_t from, size_t to)
{
    for (size_t i = 0; i < OPEN_MAX; i++) {
        const umo_access *b = &r->open[i].access;
        if (r->open[i].used && b->side == UMO_SIDE_HOST && from < b->offset_bytes + b->size_bytes &&
            b->offset_bytes < to) {
            return true;
        }
    }
    return false;
}

/* What bringing a range to a side costs, run by run. False where it comes to one that it may not
 * take. */
static bool model_bring(rig *r, const umo_access *a)
{
    r->host_side = r->host_side || a->side == UMO_SIDE_HOST;
    umo_direction direction = a->side == UMO_SIDE_DEVICE ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT;
    size_t end = a->offset_bytes + a->size_bytes;
    for (size_t at = a->offset_bytes; at < end && (a->use & UMO_READ) != 0;) {
        uint32_t valid = r->valid[at];
        size_t stop = at;
        while (stop < end && r->valid[stop] == valid) {
            stop++;
        }
        if ((valid & (uint32_t)a->side) == 0 && a->side == UMO_SIDE_DEVICE && r->kind->apart &&
            !two_sided(r) && model_taken(r, at, stop)) {
            return false;
        }
        if (valid != 0 && (valid & (uint32_t)a->side) == 0) {
            count(two_sided(r) ? &r->counted.transfer_performed[direction]
                               : &r->counted.transfer_eliminated[direction],
                  stop - at);
        }
        for (; at < stop; at++) {
            r->valid[at] |= valid != 0 ? (uint32_t)a->side : 0;
        }
    }
    return true;
}

static void model_write(rig *r, const umo_access *a, bool succeeded)
{
    for (size_t i = 0; i < a->size_bytes; i++) {
        r->valid[a->offset_bytes + i] = succeeded ? (uint32_t)a->side : 0;
        r->defined[a->offset_bytes + i] = succeeded;
    }
}

static bool model_busy(const rig *r, const umo_access *a)
{
    for (size_t i = 0; i < OPEN_MAX; i++) {
        const umo_access *b = &r->open[i].access;
        if (r->open[i].used && ((a->use | b->use) & UMO_WRITE) != 0 &&
            a->offset_bytes < b->offset_bytes + b->size_bytes &&
            b->offset_bytes < a->offset_bytes + a->size_bytes) {
            return true;
        }
    }
    return false;
}

static void assert_seen(const unsigned char *seen, const unsigned char *expected,
                        const bool *defined, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        if (defined[i]) {
            assert_int_equal(seen[i], expected[i]);
        }
    }
}

static void drain(rig *r)
{
    for (size_t i = 0; i < r->pending_count; i++) {
        pending *p = r->pending[i];
        assert_int_equal(umo_fence_wait(p->fence, UINT64_MAX), UMO_OK);
        if (!p->upload) {
            assert_seen(p->seen, p->expected, p->defined, p->size_bytes);
        }
        free(p);
    }
    r->pending_count = 0;
}

static pending *pending_add(rig *r, size_t offset_bytes, size_t size_bytes)
{
    if (r->pending_count == PENDING_MAX) {
        drain(r);
    }
    pending *p = calloc(1, sizeof *p);
    assert_non_null(p);
    p->size_bytes = size_bytes;
    memcpy(p->expected, r->bytes + offset_bytes, size_bytes);
    memcpy(p->defined, r->defined + offset_bytes, size_bytes * sizeof p->defined[0]);
    r->pending[r->pending_count++] = p;
    return p;
}

/* What the scope is charged: each memory that there is. */
static uint64_t model_live(const rig *r)
{
    return two_sided(r) && r->host_side ? 2 * SIZE : SIZE;
}

static void counters_agree(const rig *r)
{
    umo_counters now;
    umo_scope_read(r->scope, &now);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        assert_memory_equal(&now.transfer_performed[d], &r->counted.transfer_performed[d],
                            sizeof(umo_tally));
        assert_memory_equal(&now.transfer_eliminated[d], &r->counted.transfer_eliminated[d],
                            sizeof(umo_tally));
    }
    assert_memory_equal(&now.moves, &r->counted.moves, sizeof(umo_tally));
    if (r->kind->movable) {
        assert_int_equal(now.live_bytes, model_live(r));
    }
}

/* The side's work inside the bracket that was just opened. */
static void use_host(rig *r, open_bracket *b, umo_fence_set *waits)
{
    const umo_access *a = &b->access;
    assert_int_equal(umo_fence_set_wait(waits, UINT64_MAX), UMO_OK);
    unsigned char *bytes = (unsigned char *)umo_buffer_host(r->buffer) + a->offset_bytes;
    if ((a->use & UMO_READ) != 0) {
        assert_seen(bytes, r->bytes + a->offset_bytes, r->defined + a->offset_bytes, a->size_bytes);
    }
    unsigned char pattern = (unsigned char)random_next(&r->seed);
    for (size_t i = 0; (a->use & UMO_WRITE) != 0 && i < a->size_bytes; i++) {
        bytes[i] = r->bytes[a->offset_bytes + i] = pattern_byte(pattern, i);
    }
}

static void use_device(rig *r, open_bracket *b, const umo_fence_set *waits)
{
    const umo_access *a = &b->access;
    touch_args touch = {.size_bytes = a->size_bytes,
                        .write = (a->use & UMO_WRITE) != 0,
                        .pattern = (unsigned char)random_next(&r->seed)};
    pending *p = NULL;
    if ((a->use & UMO_READ) != 0) {
        p = pending_add(r, a->offset_bytes, a->size_bytes);
        touch.seen = p->seen;
    }
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(r->buffer),
         .offset_bytes = umo_buffer_memory_offset(r->buffer) + a->offset_bytes},
        {.kind = UMO_ARG_VALUE, .size_bytes = sizeof touch, .value = &touch}};
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    assert_int_equal(umo_kernel_launch(r->touch, a->queue, args, 2, &grid, waits->fences,
                                       waits->count, &b->done, NULL),
                     UMO_OK);
    if (p != NULL) {
        p->fence = b->done;
    }
    for (size_t i = 0; touch.write && i < a->size_bytes; i++) {
        r->bytes[a->offset_bytes + i] = pattern_byte(touch.pattern, i);
    }
}

static void step_begin(rig *r, open_bracket *b)
{
    umo_access *a = &b->access;
    *b = (open_bracket){0};
    a->offset_bytes = below(r, SIZE);
    a->size_bytes =
        1 + below(r, below(r, 4) == 0 ? SIZE - a->offset_bytes : (SIZE - a->offset_bytes + 5) / 6);
    a->side = below(r, 2) == 0 ? UMO_SIDE_HOST : UMO_SIDE_DEVICE;
    a->use = (umo_use)(1 + below(r, 3));
    a->queue = (uint32_t)below(r, 4);
    umo_fence_set waits;
    umo_status status = umo_access_begin(r->buffer, a, &waits);
    if (model_busy(r, a)) {
        assert_int_equal(status, UMO_E_BUSY);
        return;
    }
    if (!model_bring(r, a)) {
        assert_int_equal(status, UMO_E_BUSY);
        return;
    }
    assert_int_equal(status, UMO_OK);
    b->used = true;
    if (a->side == UMO_SIDE_HOST) {
        use_host(r, b, &waits);
    } else {
        use_device(r, b, &waits);
    }
}

static void step_end(rig *r, open_bracket *b)
{
    const umo_access *a = &b->access;
    if (a->side == UMO_SIDE_HOST && (a->use & UMO_READ) != 0) {
        /* Still there at the end of the bracket. */
        assert_seen((unsigned char *)umo_buffer_host(r->buffer) + a->offset_bytes,
                    r->bytes + a->offset_bytes, r->defined + a->offset_bytes, a->size_bytes);
    }
    bool aborted = below(r, 8) == 0;
    assert_int_equal(aborted ? umo_access_abort(r->buffer, a, b->done)
                             : umo_access_end(r->buffer, a, b->done),
                     UMO_OK);
    if ((a->use & UMO_WRITE) != 0) {
        model_write(r, a, !aborted);
    }
    b->used = false;
}

static void step_move(rig *r, bool upload)
{
    umo_access a = {.offset_bytes = below(r, SIZE),
                    .side = two_sided(r) ? UMO_SIDE_DEVICE : UMO_SIDE_HOST,
                    .use = upload ? UMO_WRITE : UMO_READ,
                    .queue = (uint32_t)below(r, 4)};
    a.size_bytes = 1 + below(r, SIZE - a.offset_bytes);
    bool busy = model_busy(r, &a);
    if (!busy) {
        (void)model_bring(r, &a);
    }
    pending *p = pending_add(r, a.offset_bytes, a.size_bytes);
    p->upload = upload || busy;
    for (size_t i = 0; upload && i < a.size_bytes; i++) {
        p->seen[i] = (unsigned char)random_next(&r->seed);
    }
    umo_status status = upload ? umo_buffer_upload(r->buffer, a.offset_bytes, p->seen, a.size_bytes,
                                                   a.queue, &p->fence)
                               : umo_buffer_download(r->buffer, a.offset_bytes, p->seen,
                                                     a.size_bytes, a.queue, &p->fence);
    assert_int_equal(status, busy ? UMO_E_BUSY : UMO_OK);
    if (busy) {
        return;
    }
    count(&r->counted.transfer_performed[upload ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT],
          a.size_bytes);
    if (upload) {
        memcpy(r->bytes + a.offset_bytes, p->seen, a.size_bytes);
        model_write(r, &a, true);
    }
}

static void step_migrate(rig *r)
{
    umo_storage_mode mode = (umo_storage_mode)below(r, UMO_STORAGE_MODES);
    bool used = false;
    for (size_t i = 0; i < OPEN_MAX; i++) {
        used = used || r->open[i].used;
    }
    uint64_t timeout_ns = below(r, 2) == 0 ? 0 : UINT64_MAX;
    umo_status status = umo_buffer_move(r->buffer, mode, timeout_ns, NULL);
    assert_int_equal(status, used ? UMO_E_BUSY : UMO_OK);
    if (!used) {
        model_migrate(r, mode);
    }
    assert_int_equal(umo_buffer_mode(r->buffer), r->mode);
    assert_ptr_equal(umo_buffer_host(r->buffer), r->home);
}

static void step_prefetch(rig *r)
{
    umo_access a = {.offset_bytes = below(r, SIZE),
                    .side = below(r, 2) == 0 ? UMO_SIDE_HOST : UMO_SIDE_DEVICE,
                    .use = UMO_READ};
    a.size_bytes = 1 + below(r, SIZE - a.offset_bytes);
    bool can = !model_busy(r, &a) && model_bring(r, &a);
    umo_status status = umo_buffer_prefetch(r->buffer, a.offset_bytes, a.size_bytes, a.side, NULL);
    assert_int_equal(status, can ? UMO_OK : UMO_E_BUSY);
}

static void valid_agrees(rig *r)
{
    size_t offset = below(r, SIZE);
    size_t size = 1 + below(r, SIZE - offset);
    uint32_t expected = UMO_SIDE_HOST | UMO_SIDE_DEVICE;
    for (size_t i = offset; i < offset + size; i++) {
        expected &= r->valid[i];
    }
    assert_int_equal(umo_buffer_valid(r->buffer, offset, size), expected);
}

static void run(const kind *k, uint64_t seed)
{
    static rig r;
    rig_open(&r, k, seed);
    for (int step = 0; step < STEPS; step++) {
        open_bracket *b = &r.open[below(&r, OPEN_MAX)];
        switch (below(&r, 14)) {
        case 12:
            step_prefetch(&r);
            break;
        case 13:
            if (k->movable) {
                step_migrate(&r);
            }
            break;
        case 0:
            step_move(&r, true);
            break;
        case 1:
            step_move(&r, false);
            break;
        case 2:
            if (below(&r, 4) == 0) {
                drain(&r);
            }
            break;
        default:
            if (b->used) {
                step_end(&r, b);
            } else {
                step_begin(&r, b);
            }
            break;
        }
        valid_agrees(&r);
        counters_agree(&r);
    }
    for (size_t i = 0; i < OPEN_MAX; i++) {
        if (r.open[i].used) {
            step_end(&r, &r.open[i]);
        }
    }
    /* At the end the host sees all of it. */
    const umo_access all = {.size_bytes = SIZE, .side = UMO_SIDE_HOST, .use = UMO_READ};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(r.buffer, &all, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_seen(umo_buffer_host(r.buffer), r.bytes, r.defined, SIZE);
    if (k->imported) {
        assert_seen(r.owned + 13, r.bytes, r.defined, SIZE);
    }
    assert_int_equal(umo_access_end(r.buffer, &all, (umo_fence){0}), UMO_OK);
    drain(&r);
    umo_buffer_release(r.buffer);
    umo_counters now;
    umo_scope_read(r.scope, &now);
    assert_int_equal(now.live_bytes, 0);
    assert_int_equal(now.live_buffers, 0);
    umo_kernel_destroy(r.touch);
    umo_program_destroy(r.program);
    umo_device_release(r.device);
    umo_scope_destroy(r.scope);
    assert_int_equal(wrapper_calls.live, 0);
}

#define DELAY_NS 20000

static void reads_see_the_model(void **state)
{
    const kind *k = *state;
    uint64_t seeds = k->delay_ns > 0 ? 6 : 20;
#ifdef __SANITIZE_THREAD__
    seeds /= 3; /* slow, and there is one thread of ours */
#endif
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        run(k, seed * 7919);
    }
}

#define KIND(name_, ...)                                                                           \
    {                                                                                              \
        .name = name_, __VA_ARGS__                                                                 \
    }
#define FOUR(name_, ...)                                                                           \
    KIND(name_, __VA_ARGS__), KIND(name_ "_poisoned", __VA_ARGS__, .test_mode = true),             \
        KIND(name_ "_delayed", __VA_ARGS__, .delay_ns = DELAY_NS),                                 \
        KIND(name_ "_delayed_poisoned", __VA_ARGS__, .delay_ns = DELAY_NS, .test_mode = true)

static kind kinds[] = {
    FOUR("unified", .mode = UMO_UNIFIED),
    FOUR("managed", .mode = UMO_MANAGED),
    FOUR("private", .mode = UMO_PRIVATE),
    FOUR("imported", .mode = UMO_UNIFIED, .imported = true),
    FOUR("apart", .mode = UMO_UNIFIED, .apart = true),
    FOUR("movable_unified", .mode = UMO_UNIFIED, .movable = true),
    FOUR("movable_managed", .mode = UMO_MANAGED, .movable = true),
    FOUR("movable_private", .mode = UMO_PRIVATE, .movable = true),
    FOUR("movable_apart", .mode = UMO_UNIFIED, .movable = true, .apart = true),
    FOUR("apart_imported", .mode = UMO_UNIFIED, .apart = true, .imported = true),
};

int main(void)
{
    struct CMUnitTest tests[sizeof kinds / sizeof kinds[0]];
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        tests[i] = (struct CMUnitTest){
            .name = kinds[i].name, .test_func = reads_see_the_model, .initial_state = &kinds[i]};
    }
    return cmocka_run_group_tests_name("access_model", tests, NULL, NULL);
}

/*
 * The contract of operations on bytes, continued: what they wait for, what waits for them, and
 * several threads at once.
 */
#include "fields.h"

#include <pthread.h>
#include <stdlib.h>

#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

static bool runs_kernels(const contract *c)
{
    return (c->info->caps & UMO_CAP_KERNELS) != 0;
}

static uint32_t queue_of(const contract *c, uint32_t index)
{
    return index % c->info->queues;
}

/* A buffer that stays open for the device. */
typedef struct held {
    umo_buffer *buffer;
    umo_access access;
    umo_piece all;
} held;

static held hold(contract *c, size_t size_bytes, unsigned seed)
{
    const bool own = (c->info->caps & UMO_CAP_PRIVATE) != 0;
    held h = {.buffer = contract_alloc(c, own ? UMO_PRIVATE : UMO_UNIFIED, size_bytes),
              .access = contract_use(0, size_bytes, UMO_SIDE_DEVICE, UMO_READ_WRITE, 0)};
    umo_fence_set waits;
    contract_host_pattern(h.buffer, 0, size_bytes, seed);
    assert_int_equal(umo_access_begin(h.buffer, &h.access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    h.all =
        (umo_piece){umo_buffer_memory(h.buffer), umo_buffer_memory_offset(h.buffer), size_bytes};
    return h;
}

static void let_go(held *h, umo_fence last)
{
    assert_int_equal(umo_access_end(h->buffer, &h->access, last), UMO_OK);
}

/* Launches `slow`, some 50 ms on every device. */
static umo_fence slow_start(umo_kernel *slow, uint32_t queue, const umo_piece *word)
{
    const uint32_t rounds = 40u << 20;
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = word->memory, .offset_bytes = word->offset_bytes},
        {.kind = UMO_ARG_VALUE, .value = &rounds, .size_bytes = sizeof rounds},
    };
    /* The C function sleeps instead of counting. */
    const size_t count = contract_program()->kind == UMO_PROGRAM_SOURCE ? 2 : 1;
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence fence = {0};
    assert_int_equal(umo_kernel_launch(slow, queue, args, count, &grid, NULL, 0, &fence, NULL),
                     UMO_OK);
    return fence;
}

static umo_fence copy_start(const contract *c, uint32_t queue, const umo_piece *from,
                            const umo_piece *to, size_t size_bytes, umo_fence wait)
{
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY, .memory = from->memory, .offset_bytes = from->offset_bytes},
        {.kind = UMO_ARG_MEMORY, .memory = to->memory, .offset_bytes = to->offset_bytes},
    };
    const umo_grid grid = {.dimensions = 1, .global = {size_bytes}, .local = {64}};
    umo_fence fence = {0};
    assert_int_equal(
        umo_kernel_launch(c->copy_bytes, queue, args, 2, &grid, &wait, 1, &fence, NULL), UMO_OK);
    return fence;
}

/* ---- one operation in the middle of a chain over four queues ---- */

/*
 * slow writes a word, then `sent` is copied to `before`, then comes the operation, then a copy to
 * `result`. Each link knows the one before it by its fence alone; on the delayed host driver the
 * newest command that may run runs first, so a link without its fence takes or leaves old bytes.
 */
typedef struct chain {
    contract *c;
    held word;
    held sent;
    held before;
    held after;
    held result;
    umo_fence busy;  /* slow's */
    umo_fence ready; /* that of the copy to before */
    size_t size_bytes;
} chain;

enum {
    CHAIN_SHORT = 16384,
    CHAIN_LONG = 2 * (256 << 10),
    SEED_SENT = 21
};

typedef umo_status (*chain_start)(const chain *h, const umo_fence *waits, size_t wait_count,
                                  umo_fence *out);

/* Moves both halves of before to after. */
static umo_status gather_start(const chain *h, const umo_fence *waits, size_t wait_count,
                               umo_fence *out)
{
    const size_t half = h->size_bytes / 2;
    const umo_piece *from = &h->before.all;
    const umo_piece pieces[] = {{from->memory, from->offset_bytes, half},
                                {from->memory, from->offset_bytes + half, half}};
    return umo_device_gather(h->c->device, queue_of(h->c, 1), pieces, 2, h->after.all.memory,
                             h->after.all.offset_bytes, waits, wait_count, out, NULL);
}

static umo_status scatter_start(const chain *h, const umo_fence *waits, size_t wait_count,
                                umo_fence *out)
{
    const size_t half = h->size_bytes / 2;
    const umo_piece *to = &h->after.all;
    const umo_piece pieces[] = {{to->memory, to->offset_bytes, half},
                                {to->memory, to->offset_bytes + half, half}};
    return umo_device_scatter(h->c->device, queue_of(h->c, 1), h->before.all.memory,
                              h->before.all.offset_bytes, pieces, 2, waits, wait_count, out, NULL);
}

/* A single piece, which is not worth a kernel. */
static umo_status single_start(const chain *h, const umo_fence *waits, size_t wait_count,
                               umo_fence *out)
{
    return umo_device_gather(h->c->device, queue_of(h->c, 1), &h->before.all, 1,
                             h->after.all.memory, h->after.all.offset_bytes, waits, wait_count, out,
                             NULL);
}

/* Fills before, which is being written: the last one wins. */
static umo_status fill_start(const chain *h, const umo_fence *waits, size_t wait_count,
                             umo_fence *out)
{
    return umo_device_fill(h->c->device, queue_of(h->c, 1), h->before.all.memory,
                           h->before.all.offset_bytes, h->size_bytes, "\x5a", 1, waits, wait_count,
                           out, NULL);
}

static umo_status convert_start(const chain *h, const umo_fence *waits, size_t wait_count,
                                umo_fence *out)
{
    const umo_conversion conversion = {.from = UMO_UINT8,
                                       .to = UMO_FP32,
                                       .source = h->before.all.memory,
                                       .source_offset_bytes = h->before.all.offset_bytes,
                                       .target = h->after.all.memory,
                                       .target_offset_bytes = h->after.all.offset_bytes,
                                       .count = h->size_bytes,
                                       .scale = 2.0f};
    return umo_device_convert(h->c->device, queue_of(h->c, 1), &conversion, waits, wait_count, out,
                              NULL);
}

static chain chain_begin(contract *c, size_t size_bytes)
{
    chain h = {.c = c, .size_bytes = size_bytes};
    h.word = hold(c, 4, 20);
    h.sent = hold(c, size_bytes, SEED_SENT);
    h.before = hold(c, size_bytes, 22);
    h.after = hold(c, 4 * size_bytes, 23);
    h.result = hold(c, 4 * size_bytes, 24);
    h.busy = slow_start(c->slow, queue_of(c, 3), &h.word.all);
    h.ready = copy_start(c, queue_of(c, 0), &h.sent.all, &h.before.all, size_bytes, h.busy);
    return h;
}

static void expect_result(const chain *h, chain_start start)
{
    unsigned char *sent = malloc(h->size_bytes);
    unsigned char *got = malloc(4 * h->size_bytes);
    assert_non_null(sent);
    assert_non_null(got);
    contract_pattern(sent, h->size_bytes, SEED_SENT);
    contract_host_read(h->result.buffer, 0, got, 4 * h->size_bytes);
    for (size_t i = 0; i < h->size_bytes; i++) {
        float element;
        memcpy(&element, got + 4 * i, sizeof element);
        if (start == convert_start) {
            assert_true(element == 2.0f * (float)sent[i]);
        } else {
            assert_int_equal(got[i], start == fill_start ? 0x5a : sent[i]);
        }
    }
    free(sent);
    free(got);
}

static void chain_end(chain *h, chain_start start, umo_fence done)
{
    const umo_piece *from = start == fill_start ? &h->before.all : &h->after.all;
    const size_t size_bytes = h->size_bytes * (start == convert_start ? 4 : 1);
    const umo_fence last =
        copy_start(h->c, queue_of(h->c, 2), from, &h->result.all, size_bytes, done);
    held *all[] = {&h->word, &h->sent, &h->before, &h->after, &h->result};
    assert_int_equal(umo_fence_wait(last, UINT64_MAX), UMO_OK);
    assert_true(umo_fence_done(done));
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        let_go(all[i], last);
    }
    expect_result(h, start);
    for (size_t i = 0; i < COUNT_OF(all); i++) {
        umo_buffer_release(all[i]->buffer);
    }
}

static void operations_wait_and_are_waited_for(void **state)
{
    contract *c = *state;
    static const struct {
        chain_start start;
        size_t size_bytes;
    } links[] = {{gather_start, CHAIN_SHORT},  {gather_start, CHAIN_LONG},
                 {scatter_start, CHAIN_SHORT}, {scatter_start, CHAIN_LONG},
                 {single_start, CHAIN_SHORT},  {fill_start, CHAIN_SHORT},
                 {convert_start, CHAIN_SHORT}};
    if (!runs_kernels(c)) {
        skip();
    }
    /* So that no compiler's run hides a missing wait. */
    assert_int_equal(umo_device_prepare(c->device, NULL), UMO_OK);
    for (size_t i = 0; i < COUNT_OF(links); i++) {
        chain h = chain_begin(c, links[i].size_bytes);
        umo_fence done = FIELDS_UNTOUCHED;
        assert_int_equal(links[i].start(&h, &h.ready, 1, &done), UMO_OK);
        assert_ptr_equal(done.device, c->device);
        assert_int_equal(done.queue, queue_of(c, 1));
        chain_end(&h, links[i].start, done);
    }
}

/* One of many fences is the one that counts, wherever it stands. */
static void more_waits_than_a_command_takes_are_all_honoured(void **state)
{
    contract *c = *state;
    enum {
        WAITS = 2 * UMO_WAITS_MAX + 3
    };
    static const chain_start starts[] = {gather_start, scatter_start, fill_start, convert_start};
    static const size_t places[] = {0, UMO_WAITS_MAX - 1, UMO_WAITS_MAX, WAITS - 1};
    if (!runs_kernels(c)) {
        skip();
    }
    assert_int_equal(umo_device_prepare(c->device, NULL), UMO_OK);
    for (size_t i = 0; i < COUNT_OF(starts); i++) {
        chain h = chain_begin(c, CHAIN_SHORT);
        umo_fence waits[WAITS];
        umo_fence done = FIELDS_UNTOUCHED;
        for (size_t w = 0; w < WAITS; w++) {
            waits[w] = w % 3 == 2 ? (umo_fence){0} : h.busy;
        }
        waits[places[i]] = h.ready;
        assert_int_equal(starts[i](&h, waits, WAITS, &done), UMO_OK);
        chain_end(&h, starts[i], done);
    }
}

static void what_has_nothing_to_do_has_passed_whatever_it_waits_for(void **state)
{
    contract *c = *state;
    if (!runs_kernels(c)) {
        skip();
    }
    held word = hold(c, 4, 30);
    held other = hold(c, 64, 31);
    assert_int_equal(umo_device_prepare(c->device, NULL), UMO_OK);
    const umo_fence slow = slow_start(c->slow, queue_of(c, 1), &word.all);
    const umo_piece empty[] = {
        {other.all.memory, 3, 0}, {other.all.memory, 64, 0}, {other.all.memory, 0, 0}};
    umo_conversion none = {.from = UMO_FP32,
                           .to = UMO_FP16,
                           .source = other.all.memory,
                           .target = other.all.memory,
                           .target_offset_bytes = 2};
    umo_fence fences[6];
    for (size_t i = 0; i < COUNT_OF(fences); i++) {
        fences[i] = (umo_fence){.device = c->device, .queue = slow.queue, .value = slow.value};
    }
    const umo_memory *memory = other.all.memory;
    assert_int_equal(
        umo_device_gather(c->device, slow.queue, empty, 0, memory, 0, &slow, 1, &fences[0], NULL),
        UMO_OK);
    assert_int_equal(
        umo_device_gather(c->device, slow.queue, empty, 3, memory, 5, &slow, 1, &fences[1], NULL),
        UMO_OK);
    assert_int_equal(
        umo_device_scatter(c->device, slow.queue, memory, 0, empty, 0, &slow, 1, &fences[2], NULL),
        UMO_OK);
    assert_int_equal(
        umo_device_scatter(c->device, slow.queue, memory, 9, empty, 3, &slow, 1, &fences[3], NULL),
        UMO_OK);
    assert_int_equal(umo_device_fill(c->device, slow.queue, memory, 7, 0, "0123456789abcdef", 16,
                                     &slow, 1, &fences[4], NULL),
                     UMO_OK);
    assert_int_equal(umo_device_convert(c->device, slow.queue, &none, &slow, 1, &fences[5], NULL),
                     UMO_OK);
    for (size_t i = 0; i < COUNT_OF(fences); i++) {
        assert_true(umo_fence_done(fences[i]));
        assert_int_equal(umo_fence_wait(fences[i], 0), UMO_OK);
    }
    assert_int_equal(umo_fence_wait(slow, UINT64_MAX), UMO_OK);
    let_go(&word, slow);
    let_go(&other, slow);
    contract_host_expect(other.buffer, 0, 64, 31);
    umo_buffer_release(word.buffer);
    umo_buffer_release(other.buffer);
}

/* Gathers two words, scatters one, or fills it. */
static umo_status start_behind(const contract *c, int what, const umo_piece *word,
                               const umo_piece *to, const umo_fence *wait, umo_fence *out)
{
    const umo_piece twice[] = {*word, *word};
    const umo_piece once = {to->memory, to->offset_bytes, 4};
    switch (what) {
    case 0:
        return umo_device_gather(c->device, 0, twice, 2, to->memory, to->offset_bytes, wait, 1, out,
                                 NULL);
    case 1:
        return umo_device_scatter(c->device, 0, word->memory, word->offset_bytes, &once, 1, wait, 1,
                                  out, NULL);
    default:
        return umo_device_fill(c->device, 0, word->memory, word->offset_bytes, 4, "wxyz", 4, wait,
                               1, out, NULL);
    }
}

static void work_of_another_device_is_waited_for(void **state)
{
    contract *c = *state;
    const uint32_t needed =
        UMO_CAP_COHERENT | UMO_CAP_KERNELS | UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    umo_device *second = NULL;
    umo_program *program = NULL;
    umo_kernel *slow = NULL;
    if ((c->info->caps & needed) != needed) {
        skip();
    }
    assert_int_equal(
        umo_device_open(contract_the_run.driver, 0, &contract_the_run.options, &second, NULL),
        UMO_OK);
    assert_int_equal(umo_program_create(second, contract_program(), &program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(program, "slow", &slow, NULL), UMO_OK);
    assert_int_equal(umo_device_prepare(c->device, NULL), UMO_OK);
    /* One memory, known to both devices. */
    uint32_t *words = aligned_alloc(c->page, c->page);
    assert_non_null(words);
    const umo_import import = {
        .data = words, .size_bytes = c->page, .writable = true, .whole_pages = true};
    umo_device *const devices[] = {c->device, second};
    umo_buffer *views[2] = {NULL, NULL};
    umo_piece at[2];
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(umo_buffer_import(devices[i], c->scope, &import, &views[i], NULL, NULL),
                         UMO_OK);
        at[i] = (umo_piece){umo_buffer_memory(views[i]), umo_buffer_memory_offset(views[i]), 4};
    }
    held to = hold(c, 64, 40);
    for (int what = 0; what < 3; what++) {
        umo_fence last = FIELDS_UNTOUCHED;
        words[0] = 77;
        const umo_fence first = slow_start(slow, 0, &at[1]);
        umo_status status = start_behind(c, what, &at[0], &to.all, &first, &last);
        assert_int_equal(status, UMO_OK);
        assert_ptr_equal(last.device, c->device);
        assert_int_equal(umo_fence_wait(last, UINT64_MAX), UMO_OK);
        assert_true(umo_fence_done(first));
        if (what < 2) {
            const uint32_t written[] = {1, 1};
            uint32_t got[2];
            let_go(&to, last);
            contract_host_read(to.buffer, 0, got, sizeof got);
            assert_memory_equal(got, written, what == 0 ? 8 : 4);
            umo_fence_set waits;
            assert_int_equal(umo_access_begin(to.buffer, &to.access, &waits), UMO_OK);
            assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
        } else {
            assert_memory_equal(words, "wxyz", 4);
        }
    }
    let_go(&to, (umo_fence){0});
    umo_buffer_release(to.buffer);
    umo_buffer_release(views[0]);
    umo_buffer_release(views[1]);
    free(words);
    umo_kernel_destroy(slow);
    umo_program_destroy(program);
    umo_device_release(second);
}

/* ---- threads ---- */

enum {
    THREADS = 4,
    ROUNDS = 24,
    FIELD = 512
};

typedef struct worker {
    umo_device *device;
    umo_scope *scope;
    uint32_t index;
    pthread_t thread;
    bool right;
} worker;

/* One side of a whole buffer for a moment; false when the bracket does not open. */
static bool worker_copy(umo_buffer *buffer, unsigned char *bytes, umo_use use)
{
    const umo_access access = contract_use(0, FIELD, UMO_SIDE_HOST, use, 0);
    umo_fence_set waits;
    if (umo_access_begin(buffer, &access, &waits) != UMO_OK ||
        umo_fence_set_wait(&waits, UINT64_MAX) != UMO_OK) {
        return false;
    }
    if (use == UMO_WRITE) {
        memcpy(umo_buffer_host(buffer), bytes, FIELD);
    } else {
        memcpy(bytes, umo_buffer_host(buffer), FIELD);
    }
    return umo_access_end(buffer, &access, (umo_fence){0}) == UMO_OK;
}

/* A gather of three pieces, a fill and a scatter of three pieces, to both a buffer and bytes. */
static bool worker_round(const worker *w, umo_buffer *buffer, unsigned char *bytes, uint32_t round)
{
    const uint32_t queue = (w->index + round) % umo_device_info_get(w->device)->queues;
    const umo_access access = contract_use(0, FIELD, UMO_SIDE_DEVICE, UMO_READ_WRITE, queue);
    const size_t at = round % 17;
    umo_fence_set waits;
    umo_fence fence = {0};
    if (umo_access_begin(buffer, &access, &waits) != UMO_OK) {
        return false;
    }
    const umo_memory *memory = umo_buffer_memory(buffer);
    const size_t first = umo_buffer_memory_offset(buffer);
    const umo_piece pieces[] = {
        {memory, first + at, 20}, {memory, first + 100 + at, 33}, {memory, first + 50, 11}};
    bool right = umo_device_gather(w->device, queue, pieces, 3, memory, first + 300 + at,
                                   waits.fences, waits.count, &fence, NULL) == UMO_OK &&
                 umo_device_fill(w->device, queue, memory, first + 301 + at, 4, &round, 4, &fence,
                                 1, &fence, NULL) == UMO_OK &&
                 umo_device_scatter(w->device, queue, memory, first + 300 + at, pieces, 3, &fence,
                                    1, &fence, NULL) == UMO_OK;
    memcpy(bytes + 300 + at, bytes + at, 20);
    memcpy(bytes + 320 + at, bytes + 100 + at, 33);
    memcpy(bytes + 353 + at, bytes + 50, 11);
    memcpy(bytes + 301 + at, &round, 4);
    memcpy(bytes + at, bytes + 300 + at, 20);
    memcpy(bytes + 100 + at, bytes + 320 + at, 33);
    memcpy(bytes + 50, bytes + 353 + at, 11);
    return umo_access_end(buffer, &access, fence) == UMO_OK && right;
}

/* Without cmocka's assertions, which belong to the main thread. */
static void *worker_main(void *argument)
{
    worker *w = argument;
    unsigned char bytes[FIELD];
    unsigned char got[FIELD];
    umo_buffer *buffer = NULL;
    contract_pattern(bytes, sizeof bytes, 50 + w->index);
    const bool own = (umo_device_info_get(w->device)->caps & UMO_CAP_PRIVATE) != 0;
    bool right = umo_device_prepare(w->device, NULL) == UMO_OK &&
                 umo_buffer_alloc(w->device, w->scope, FIELD, own ? UMO_PRIVATE : UMO_UNIFIED,
                                  &buffer, NULL) == UMO_OK &&
                 worker_copy(buffer, bytes, UMO_WRITE);
    for (uint32_t round = 0; round < ROUNDS && right; round++) {
        right = worker_round(w, buffer, bytes, round);
    }
    w->right = right && worker_copy(buffer, got, UMO_READ) && memcmp(got, bytes, FIELD) == 0;
    umo_buffer_release(buffer);
    return NULL;
}

static void many_threads_prepare_and_use_one_device(void **state)
{
    contract *c = *state;
    umo_device *fresh = NULL;
    worker workers[THREADS];
    if (!runs_kernels(c)) {
        skip();
    }
    assert_int_equal(
        umo_device_open(contract_the_run.driver, 0, &contract_the_run.options, &fresh, NULL),
        UMO_OK);
    for (uint32_t i = 0; i < THREADS; i++) {
        workers[i] = (worker){.device = fresh, .scope = c->scope, .index = i};
        assert_int_equal(pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]), 0);
    }
    bool right = true;
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(workers[i].thread, NULL), 0);
        right = right && workers[i].right;
    }
    assert_true(right);
    assert_int_equal(umo_device_prepare(fresh, NULL), UMO_OK);
    umo_device_release(fresh);
}

const struct CMUnitTest contract_ops_order_tests[] = {
    CONTRACT_TEST(operations_wait_and_are_waited_for),
    CONTRACT_TEST(more_waits_than_a_command_takes_are_all_honoured),
    CONTRACT_TEST(what_has_nothing_to_do_has_passed_whatever_it_waits_for),
    CONTRACT_TEST(work_of_another_device_is_waited_for),
    CONTRACT_TEST(many_threads_prepare_and_use_one_device),
};
const size_t contract_ops_order_test_count = COUNT_OF(contract_ops_order_tests);

/*
 * The contract of asynchronous work: fences, queues, programs, kernels on many threads, and the
 * proof that the suite sees a missing wait.
 */
#include "contract.h"

#include <pthread.h>
#include <stdlib.h>

/* What the host driver's test mode writes over stale bytes. */
#define POISON_BYTE 0xDB

/* True where work provably runs late: the host driver with a delay, a fake with one of its own. */
static bool delayed(void)
{
    return contract_the_run.options.delay_ns > 0;
}

/* True when compilation, counts and sizes of arguments are the driver's business: it has a
 * compiler. */
static bool compiles(void)
{
    return contract_program()->kind == UMO_PROGRAM_SOURCE;
}

static umo_storage_mode any_mode(const contract *c)
{
    int m = 0;
    assert_true(contract_mode(c, &m));
    return (umo_storage_mode)m;
}

/* ---- fences ---- */

static void value_zero_has_passed(void **state)
{
    contract *c = *state;
    const umo_fence nobody = {0};
    const umo_fence somebody = {.device = c->device, .queue = 0, .value = 0};
    assert_true(umo_fence_done(nobody));
    assert_true(umo_fence_done(somebody));
    assert_int_equal(umo_fence_wait(nobody, 0), UMO_OK);
    assert_int_equal(umo_fence_wait(somebody, UINT64_MAX), UMO_OK);
}

/* y += x, element by element. */
static umo_fence add_to(contract *c, uint32_t queue, umo_buffer *x, umo_buffer *y, size_t count)
{
    const float one = 1.0f;
    const contract_operand operands[] = {
        {x, 0, count * sizeof one, UMO_READ},
        {y, 0, count * sizeof one, UMO_READ_WRITE},
    };
    return contract_launch(c, c->scale_add, queue, operands, 2, &one, sizeof one, count);
}

static umo_buffer *floats(contract *c, umo_storage_mode mode, size_t count, float value)
{
    umo_buffer *buffer = contract_alloc(c, mode, count * sizeof value);
    float *values = malloc(count * sizeof value);
    assert_non_null(values);
    for (size_t i = 0; i < count; i++) {
        values[i] = value;
    }
    contract_host_write(buffer, 0, values, count * sizeof value);
    free(values);
    return buffer;
}

static void expect_floats(umo_buffer *buffer, size_t count, float value)
{
    float *values = malloc(count * sizeof value);
    assert_non_null(values);
    contract_host_read(buffer, 0, values, count * sizeof value);
    for (size_t i = 0; i < count; i++) {
        assert_true(values[i] == value);
    }
    free(values);
}

static void a_queue_completes_in_order(void **state)
{
    contract *c = *state;
    enum {
        COUNT = 500,
        ITEMS = 64
    };
    static umo_fence fences[COUNT];
    umo_buffer *x = floats(c, any_mode(c), ITEMS, 1.0f);
    umo_buffer *y = floats(c, any_mode(c), ITEMS, 0.0f);
    for (int i = 0; i < COUNT; i++) {
        fences[i] = add_to(c, 1, x, y, ITEMS);
        assert_int_equal(fences[i].queue, 1);
        if (i > 0 && fences[i].value != 0) {
            assert_true(fences[i].value > fences[i - 1].value);
        }
    }
    assert_int_equal(umo_fence_wait(fences[COUNT - 1], UINT64_MAX), UMO_OK);
    for (int i = COUNT; i-- > 0;) {
        assert_true(umo_fence_done(fences[i]));
        assert_int_equal(umo_fence_wait(fences[i], 0), UMO_OK);
    }
    expect_floats(y, ITEMS, (float)COUNT);
    umo_buffer_release(x);
    umo_buffer_release(y);
}

static void work_follows_its_waits_from_queue_to_queue(void **state)
{
    contract *c = *state;
    enum {
        ROUNDS = 200,
        ITEMS = 1000
    };
    for (int m = 0; contract_mode(c, &m); m++) {
        umo_buffer *x = floats(c, (umo_storage_mode)m, ITEMS, 1.0f);
        umo_buffer *y = floats(c, (umo_storage_mode)m, ITEMS, 0.0f);
        for (uint32_t i = 0; i < ROUNDS; i++) {
            (void)add_to(c, (i * 7) % c->info->queues, x, y, ITEMS);
        }
        expect_floats(y, ITEMS, (float)ROUNDS);
        umo_buffer_release(x);
        umo_buffer_release(y);
    }
}

static umo_fence slow_start(contract *c, uint32_t queue, umo_buffer *out)
{
    const uint32_t rounds = 40u << 20;
    const contract_operand operand = {out, 0, sizeof rounds, UMO_WRITE};
    const bool values = compiles(); /* the C function sleeps instead of counting */
    return contract_launch(c, c->slow, queue, &operand, 1, values ? &rounds : NULL, sizeof rounds,
                           1);
}

static void a_wait_ends_after_its_timeout_and_can_be_taken_up_again(void **state)
{
    contract *c = *state;
    if (!contract_async(c)) {
        skip();
    }
    umo_buffer *out = contract_alloc(c, any_mode(c), 4);
    const umo_fence fence = slow_start(c, 0, out);
    assert_false(umo_fence_done(fence));
    assert_int_equal(umo_fence_wait(fence, 0), UMO_E_TIMEOUT);
    assert_int_equal(umo_fence_wait(fence, 1000000), UMO_E_TIMEOUT);
    umo_fence_set set = {0};
    assert_true(umo_fence_set_add(&set, fence));
    assert_int_equal(umo_fence_set_wait(&set, 1000000), UMO_E_TIMEOUT);
    assert_int_equal(set.count, 1);
    assert_int_equal(umo_fence_wait(fence, (uint64_t)60 * 1000000000), UMO_OK);
    assert_true(umo_fence_done(fence));
    assert_int_equal(umo_fence_set_wait(&set, 0), UMO_OK);
    assert_int_equal(set.count, 0);
    uint32_t result = 0;
    contract_host_read(out, 0, &result, sizeof result);
    assert_int_equal(result, 1);
    umo_buffer_release(out);
}

static void work_of_another_device_is_waited_for(void **state)
{
    contract *c = *state;
    umo_device *second = NULL;
    umo_program *program = NULL;
    umo_kernel *kernel = NULL;
    umo_buffer *from = NULL;
    umo_buffer *to = NULL;
    enum {
        BYTES = 256
    };
    unsigned char got[BYTES];
    if ((c->info->caps & UMO_CAP_COHERENT) == 0) {
        skip();
    }
    unsigned char *bytes = aligned_alloc(c->page, c->page);
    assert_non_null(bytes);
    assert_int_equal(
        umo_device_open(contract_the_run.driver, 0, &contract_the_run.options, &second, NULL),
        UMO_OK);
    assert_int_equal(umo_program_create(second, contract_program(), &program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(program, "copy_bytes", &kernel, NULL), UMO_OK);
    /* One memory, known to both devices. */
    umo_import import = {.data = bytes, .size_bytes = BYTES, .writable = true};
    umo_buffer *here = NULL;
    assert_int_equal(umo_buffer_import(c->device, c->scope, &import, &here, NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_import(second, c->scope, &import, &from, NULL, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(second, c->scope, BYTES, UMO_UNIFIED, &to, NULL), UMO_OK);
    umo_buffer *source = contract_alloc(c, UMO_UNIFIED, BYTES);
    memset(bytes, 0, BYTES);
    contract_host_pattern(source, 0, BYTES, 3);
    const umo_fence first = contract_device_copy(c, 0, source, 0, here, 0, BYTES);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(from),
         .offset_bytes = umo_buffer_memory_offset(from)},
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(to),
         .offset_bytes = umo_buffer_memory_offset(to)},
    };
    const umo_grid grid = {.dimensions = 1, .global = {BYTES}};
    umo_fence last = {0};
    assert_int_equal(umo_kernel_launch(kernel, 0, args, 2, &grid, &first, 1, &last, NULL), UMO_OK);
    assert_int_equal(umo_fence_wait(last, UINT64_MAX), UMO_OK);
    contract_pattern(got, sizeof got, 3);
    assert_memory_equal(umo_buffer_host(to), got, sizeof got);
    umo_buffer_release(here);
    umo_buffer_release(source);
    umo_buffer_release(from);
    umo_buffer_release(to);
    umo_kernel_destroy(kernel);
    umo_program_destroy(program);
    umo_device_release(second);
    free(bytes);
}

/* ---- the suite can fail ---- */

/* Starts a kernel that keeps the device's one worker busy while a test makes its mistake. */
static umo_buffer *worker_occupy(contract *c)
{
    umo_buffer *word = contract_alloc(c, UMO_UNIFIED, 4);
    (void)slow_start(c, 3, word);
    return word;
}

/* Bytes taken while a command may write them: the mistake itself, so not one to report. */
__attribute__((no_sanitize("thread"), noinline)) static bool
equal_without_waiting(const unsigned char *bytes, const unsigned char *expected, size_t size_bytes)
{
    for (size_t i = 0; i < size_bytes; i++) {
        if (((const volatile unsigned char *)bytes)[i] != expected[i]) {
            return false;
        }
    }
    return true;
}

static void a_missing_wait_of_the_host_shows_as_old_bytes(void **state)
{
    contract *c = *state;
    if (!delayed()) {
        skip();
    }
    unsigned char expected[1000];
    umo_buffer *a = contract_alloc(c, UMO_UNIFIED, sizeof expected);
    umo_buffer *b = contract_alloc(c, UMO_UNIFIED, sizeof expected);
    contract_host_pattern(a, 0, sizeof expected, 1);
    contract_host_pattern(b, 0, sizeof expected, 2);
    contract_pattern(expected, sizeof expected, 1);
    umo_buffer *busy = worker_occupy(c);
    const umo_fence fence = contract_device_copy(c, 0, a, 0, b, 0, sizeof expected);
    /* The mistake: the bytes are taken without a bracket. */
    assert_false(equal_without_waiting(umo_buffer_host(b), expected, sizeof expected));
    /* And the way it is done. */
    assert_int_equal(umo_fence_wait(fence, UINT64_MAX), UMO_OK);
    assert_true(equal_without_waiting(umo_buffer_host(b), expected, sizeof expected));
    umo_buffer_release(a);
    umo_buffer_release(b);
    umo_buffer_release(busy);
}

static void a_missing_wait_between_queues_shows_as_old_bytes(void **state)
{
    contract *c = *state;
    if (!delayed()) {
        skip();
    }
    unsigned char old[1000];
    unsigned char new[1000];
    umo_buffer *a = contract_alloc(c, UMO_UNIFIED, sizeof old);
    umo_buffer *b = contract_alloc(c, UMO_UNIFIED, sizeof old);
    umo_buffer *d = contract_alloc(c, UMO_UNIFIED, sizeof old);
    contract_pattern(new, sizeof new, 1);
    contract_pattern(old, sizeof old, 2);
    /* A loaded machine may give the first command its time before the second is queued, and the
     * mistake passes by luck: so it is made until it shows. */
    size_t tries = 0;
    for (size_t wait_count = 0; wait_count < 2;) {
        contract_host_write(a, 0, new, sizeof new);
        contract_host_write(b, 0, old, sizeof old);
        const umo_kernel_arg first[] = {
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(a)},
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(b)},
        };
        const umo_kernel_arg second[] = {
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(b)},
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(d)},
        };
        const umo_grid grid = {.dimensions = 1, .global = {sizeof old}};
        umo_fence copied = {0};
        umo_fence done = {0};
        umo_buffer *busy = worker_occupy(c);
        assert_int_equal(
            umo_kernel_launch(c->copy_bytes, 0, first, 2, &grid, NULL, 0, &copied, NULL), UMO_OK);
        assert_int_equal(
            umo_kernel_launch(c->copy_bytes, 1, second, 2, &grid, &copied, wait_count, &done, NULL),
            UMO_OK);
        assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
        assert_int_equal(umo_fence_wait(copied, UINT64_MAX), UMO_OK);
        umo_buffer_release(busy);
        bool right = memcmp(umo_buffer_host(d), new, sizeof new) == 0;
        if (wait_count > 0) {
            assert_true(right);
            break;
        }
        if (!right) {
            assert_memory_equal(umo_buffer_host(d), old, sizeof old);
            wait_count++;
        }
        assert_true(++tries < 50);
    }
    umo_buffer_release(a);
    umo_buffer_release(b);
    umo_buffer_release(d);
}

static void a_missing_transfer_shows_as_poison(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_POISON) == 0) {
        skip();
    }
    unsigned char poison[1000];
    memset(poison, POISON_BYTE, sizeof poison);
    umo_buffer *a = contract_alloc(c, UMO_MANAGED, sizeof poison);
    umo_buffer *b = contract_alloc(c, UMO_MANAGED, sizeof poison);
    if (umo_buffer_memory(b)->one_memory) {
        /* Nothing is ever stale where both sides have one memory. */
        umo_buffer_release(a);
        umo_buffer_release(b);
        skip();
    }
    contract_host_pattern(a, 0, sizeof poison, 1);
    contract_host_pattern(b, 0, sizeof poison, 2);
    (void)contract_device_copy(c, 0, a, 0, b, 0, sizeof poison);
    /* A bracket that brings nothing waits for all that is under way. */
    const umo_access look = contract_use(0, sizeof poison, UMO_SIDE_DEVICE, UMO_READ, 0);
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(b, &look, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_int_equal(umo_access_end(b, &look, (umo_fence){0}), UMO_OK);
    /* The mistake: the host side of MANAGED memory is taken without a bracket. */
    assert_memory_equal(umo_buffer_host(b), poison, sizeof poison);
    contract_host_expect(b, 0, sizeof poison, 1);
    umo_buffer_release(a);
    umo_buffer_release(b);
}

static void release_waits_for_pending_uses(void **state)
{
    contract *c = *state;
    if ((c->info->caps & UMO_CAP_IMPORT_WRITE) == 0) {
        skip();
    }
    uint32_t *word = aligned_alloc(c->page, c->page);
    assert_non_null(word);
    word[0] = 77;
    const umo_import import = {
        .data = word, .size_bytes = c->page, .writable = true, .whole_pages = true};
    umo_buffer *out = NULL;
    assert_int_equal(umo_buffer_import(c->device, c->scope, &import, &out, NULL, NULL), UMO_OK);
    (void)slow_start(c, 0, out);
    umo_buffer_release(out);
    assert_int_equal(word[0], 1);
    free(word);
}

/* ---- programs and kernels ---- */

static void a_program_that_does_not_build_carries_the_compilers_text_and_line(void **state)
{
    contract *c = *state;
    umo_program *program = NULL;
    umo_error error = {0};
    if (!compiles()) {
        const umo_program_source source = {
            .kind = UMO_PROGRAM_SOURCE, .text = "void f() {}", .size_bytes = 11};
        assert_int_equal(umo_program_create(c->device, &source, &program, &error),
                         UMO_E_UNSUPPORTED);
        assert_int_not_equal(error.text[0], '\0');
        return;
    }
    static const char text[] = "__kernel void half_done(__global float *x)\n"
                               "{\n"
                               "    x[0] = no_such_name;\n"
                               "}\n";
    umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = sizeof text - 1};
    assert_int_equal(umo_program_create(c->device, &source, &program, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "no_such_name"));
    assert_non_null(strstr(error.text, "3:"));
    source.size_bytes = 0;
    assert_int_equal(umo_program_create(c->device, &source, &program, &error), UMO_E_INVAL);
    source.kind = UMO_PROGRAM_HOST;
    assert_int_equal(umo_program_create(c->device, &source, &program, &error), UMO_E_UNSUPPORTED);
    assert_null(program);
}

static void an_unknown_kernel_is_not_found_and_named(void **state)
{
    contract *c = *state;
    umo_kernel *kernel = NULL;
    umo_error error = {0};
    assert_int_equal(umo_kernel_create(c->program, "absent", &kernel, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "absent"));
    assert_int_equal(umo_kernel_create(c->program, "", &kernel, &error), UMO_E_NOT_FOUND);
    assert_null(kernel);
}

static void a_launch_that_does_not_fit_is_invalid(void **state)
{
    contract *c = *state;
    umo_buffer *x = floats(c, any_mode(c), 16, 1.0f);
    umo_buffer *y = floats(c, any_mode(c), 16, 1.0f);
    const float a = 1.0f;
    const double wide = 1.0;
    const umo_kernel_arg right[] = {
        {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(x)},
        {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(y)},
        {.kind = UMO_ARG_VALUE, .value = &a, .size_bytes = sizeof a},
    };
    const umo_grid grid = {.dimensions = 1, .global = {16}};
    umo_fence fence = {.queue = 55, .value = 66};
    umo_error error = {0};
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX + 1] = {{0}};

    const umo_grid grids[] = {
        {.dimensions = 0, .global = {16}},
        {.dimensions = 4, .global = {16, 1, 1}},
        {.dimensions = 1, .global = {0}},
        {.dimensions = 2, .global = {16, 0}},
    };
    for (size_t i = 0; i < sizeof grids / sizeof grids[0]; i++) {
        assert_int_equal(
            umo_kernel_launch(c->scale_add, 0, right, 3, &grids[i], NULL, 0, &fence, &error),
            UMO_E_INVAL);
    }
    assert_int_equal(
        umo_kernel_launch(c->scale_add, c->info->queues, right, 3, &grid, NULL, 0, &fence, &error),
        UMO_E_INVAL);
    assert_int_equal(umo_kernel_launch(c->scale_add, 0, args, UMO_KERNEL_ARGS_MAX + 1, &grid, NULL,
                                       0, &fence, &error),
                     UMO_E_INVAL);
    /* An argument without its memory, or without its value. */
    memcpy(args, right, sizeof right);
    args[1].memory = NULL;
    assert_int_equal(umo_kernel_launch(c->scale_add, 0, args, 3, &grid, NULL, 0, &fence, &error),
                     UMO_E_INVAL);
    assert_non_null(strstr(error.text, "argument 1"));
    memcpy(args, right, sizeof right);
    args[2].value = NULL;
    assert_int_equal(umo_kernel_launch(c->scale_add, 0, args, 3, &grid, NULL, 0, &fence, &error),
                     UMO_E_INVAL);
    assert_non_null(strstr(error.text, "argument 2"));
    if (compiles()) {
        /* What only a compiler knows: how many arguments, of which kind and size. */
        assert_int_equal(
            umo_kernel_launch(c->scale_add, 0, right, 2, &grid, NULL, 0, &fence, &error),
            UMO_E_INVAL);
        assert_non_null(strstr(error.text, "scale_add"));
        memcpy(args, right, sizeof right);
        args[3] = right[2];
        assert_int_equal(
            umo_kernel_launch(c->scale_add, 0, args, 4, &grid, NULL, 0, &fence, &error),
            UMO_E_INVAL);
        args[2] = (umo_kernel_arg){.kind = UMO_ARG_VALUE, .value = &wide, .size_bytes = 8};
        assert_int_equal(
            umo_kernel_launch(c->scale_add, 0, args, 3, &grid, NULL, 0, &fence, &error),
            UMO_E_INVAL);
        assert_non_null(strstr(error.text, "argument 2"));
        memcpy(args, right, sizeof right);
        args[0] = (umo_kernel_arg){.kind = UMO_ARG_VALUE, .value = &wide, .size_bytes = 8};
        assert_int_equal(
            umo_kernel_launch(c->scale_add, 0, args, 3, &grid, NULL, 0, &fence, &error),
            UMO_E_INVAL);
        assert_non_null(strstr(error.text, "argument 0"));
    }
    assert_int_equal(fence.queue, 55);
    assert_int_equal(fence.value, 66);
    umo_buffer_release(x);
    umo_buffer_release(y);
}

static void a_grid_of_three_dimensions_covers_every_item_once(void **state)
{
    contract *c = *state;
    static const umo_grid grids[] = {
        {.dimensions = 1, .global = {60}},
        {.dimensions = 1, .global = {60}, .local = {6}},
        {.dimensions = 2, .global = {6, 10}},
        {.dimensions = 3, .global = {3, 4, 5}},
        {.dimensions = 3, .global = {4, 3, 5}, .local = {2, 3, 1}},
    };
    for (size_t g = 0; g < sizeof grids / sizeof grids[0]; g++) {
        uint32_t values[60] = {0};
        umo_buffer *out = contract_alloc(c, any_mode(c), sizeof values);
        contract_host_write(out, 0, values, sizeof values);
        const umo_access access =
            contract_use(0, sizeof values, UMO_SIDE_DEVICE, UMO_READ_WRITE, 0);
        const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(out)};
        umo_fence_set waits;
        umo_fence fence = {0};
        assert_int_equal(umo_access_begin(out, &access, &waits), UMO_OK);
        assert_int_equal(umo_kernel_launch(c->grid_index, 0, &arg, 1, &grids[g], waits.fences,
                                           waits.count, &fence, NULL),
                         UMO_OK);
        assert_int_equal(umo_access_end(out, &access, fence), UMO_OK);
        contract_host_read(out, 0, values, sizeof values);
        for (uint32_t i = 0; i < 60; i++) {
            assert_int_equal(values[i], i);
        }
        umo_buffer_release(out);
    }
}

/* One thread of the test below. */
typedef struct launcher {
    contract *c;
    uint32_t index;
    pthread_t thread;
    bool right;
} launcher;

/* Without cmocka's assertions, which belong to the main thread. */
static void *launch_many(void *argument)
{
    enum {
        ROUNDS = 50,
        ITEMS = 333
    };
    launcher *l = argument;
    contract *c = l->c;
    const size_t bytes = ITEMS * sizeof(float);
    float values[ITEMS];
    umo_buffer *x = NULL;
    umo_buffer *y = NULL;
    if (umo_buffer_alloc(c->device, c->scope, bytes, UMO_MANAGED, &x, NULL) != UMO_OK ||
        umo_buffer_alloc(c->device, c->scope, bytes, UMO_PRIVATE, &y, NULL) != UMO_OK) {
        goto done;
    }
    umo_buffer *both[] = {x, y};
    for (size_t b = 0; b < 2; b++) {
        const umo_access fill = contract_use(0, bytes, UMO_SIDE_HOST, UMO_WRITE, 0);
        umo_fence_set waits;
        if (umo_access_begin(both[b], &fill, &waits) != UMO_OK ||
            umo_fence_set_wait(&waits, UINT64_MAX) != UMO_OK) {
            goto done;
        }
        float *host = umo_buffer_host(both[b]);
        for (int i = 0; i < ITEMS; i++) {
            host[i] = b == 0 ? (float)i : 0.0f;
        }
        if (umo_access_end(both[b], &fill, (umo_fence){0}) != UMO_OK) {
            goto done;
        }
    }
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const uint32_t queue = (l->index + round / 10) % c->info->queues;
        const umo_access read = contract_use(0, bytes, UMO_SIDE_DEVICE, UMO_READ, queue);
        const umo_access update = contract_use(0, bytes, UMO_SIDE_DEVICE, UMO_READ_WRITE, queue);
        const float a = (float)(l->index + 1);
        const umo_kernel_arg args[] = {
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(x)},
            {.kind = UMO_ARG_MEMORY, .memory = umo_buffer_memory(y)},
            {.kind = UMO_ARG_VALUE, .value = &a, .size_bytes = sizeof a},
        };
        const umo_grid grid = {.dimensions = 1, .global = {ITEMS}};
        umo_fence_set waits;
        umo_fence_set more;
        umo_fence fence = {0};
        if (umo_access_begin(x, &read, &waits) != UMO_OK ||
            umo_access_begin(y, &update, &more) != UMO_OK) {
            goto done;
        }
        for (size_t i = 0; i < more.count; i++) {
            if (!umo_fence_set_add(&waits, more.fences[i])) {
                goto done;
            }
        }
        if (umo_kernel_launch(c->scale_add, queue, args, 3, &grid, waits.fences, waits.count,
                              &fence, NULL) != UMO_OK ||
            umo_access_end(x, &read, fence) != UMO_OK ||
            umo_access_end(y, &update, fence) != UMO_OK) {
            goto done;
        }
    }
    const umo_access look = contract_use(0, bytes, UMO_SIDE_HOST, UMO_READ, 0);
    umo_fence_set waits;
    if (umo_access_begin(y, &look, &waits) != UMO_OK ||
        umo_fence_set_wait(&waits, UINT64_MAX) != UMO_OK) {
        goto done;
    }
    memcpy(values, umo_buffer_host(y), bytes);
    l->right = umo_access_end(y, &look, (umo_fence){0}) == UMO_OK;
    for (int i = 0; i < ITEMS; i++) {
        l->right = l->right && values[i] == (float)(ROUNDS * i) * (float)(l->index + 1);
    }

done:
    umo_buffer_release(x);
    umo_buffer_release(y);
    return NULL;
}

static void many_threads_launch_one_kernel(void **state)
{
    contract *c = *state;
    enum {
        THREADS = 6
    };
    launcher launchers[THREADS];
    if ((c->info->caps & UMO_CAP_MANAGED) == 0 || (c->info->caps & UMO_CAP_PRIVATE) == 0) {
        skip();
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        launchers[i] = (launcher){.c = c, .index = i};
        assert_int_equal(pthread_create(&launchers[i].thread, NULL, launch_many, &launchers[i]), 0);
    }
    bool right = true;
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(launchers[i].thread, NULL), 0);
        right = right && launchers[i].right;
    }
    assert_true(right);
}

const struct CMUnitTest contract_work_tests[] = {
    CONTRACT_TEST(value_zero_has_passed),
    CONTRACT_TEST(a_queue_completes_in_order),
    CONTRACT_TEST(work_follows_its_waits_from_queue_to_queue),
    CONTRACT_TEST(a_wait_ends_after_its_timeout_and_can_be_taken_up_again),
    CONTRACT_TEST(work_of_another_device_is_waited_for),
    CONTRACT_TEST(a_missing_wait_of_the_host_shows_as_old_bytes),
    CONTRACT_TEST(a_missing_wait_between_queues_shows_as_old_bytes),
    CONTRACT_TEST(a_missing_transfer_shows_as_poison),
    CONTRACT_TEST(release_waits_for_pending_uses),
    CONTRACT_TEST(a_program_that_does_not_build_carries_the_compilers_text_and_line),
    CONTRACT_TEST(an_unknown_kernel_is_not_found_and_named),
    CONTRACT_TEST(a_launch_that_does_not_fit_is_invalid),
    CONTRACT_TEST(a_grid_of_three_dimensions_covers_every_item_once),
    CONTRACT_TEST(many_threads_launch_one_kernel),
};
const size_t contract_work_test_count = sizeof contract_work_tests / sizeof contract_work_tests[0];

/*
 * Batches whose buffers share bytes (umo_optimizer_alloc_planned): what they cost, who waits for
 * whom, what stays where it is, and what a failure leaves.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"

#include <umo/numa.h>
#include <umo/optimizer.h>

#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

#define KIB ((size_t)1024)
#define MS UINT64_C(1000000)
#define HOST UMO_SIDE_HOST
#define DEVICE UMO_SIDE_DEVICE

/* ---- allocations that fail; off Linux no call can be redirected ---- */

static unsigned long calls;
static unsigned long fail_at;
static bool armed;
static bool failed;

#ifdef UMO_TEST_WRAPS_MALLOC
static bool allocation_fails(void)
{
    if (!armed || ++calls != fail_at) {
        return false;
    }
    failed = true;
    return true;
}

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);

void *__wrap_malloc(size_t size)
{
    return allocation_fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return allocation_fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *block, size_t size)
{
    return allocation_fails() ? NULL : __real_realloc(block, size);
}
#endif

/* ---- an optimizer on one device ---- */

typedef struct rig {
    umo_context *context;
    size_t page;
    umo_counters before;
} rig;

static rig rig_open(const char *driver, uint64_t delay_ns)
{
    rig r = {.page = umo_os_page_bytes()};
    const umo_context_options options = {.driver = {.delay_ns = delay_ns}};
    umo_optimizer_config config;
    umo_optimizer_config_init(&config);
    strcpy(config.driver, driver);
    config.auto_placement = false;
    config.pressure_adaptation = false;
    assert_int_equal(umo_context_default_acquire(&options, &r.context, NULL), UMO_OK);
    assert_int_equal(umo_optimizer_initialize(&config, NULL), UMO_OK);
    umo_scope_read(umo_context_scope(r.context), &r.before);
    return r;
}

static uint64_t live_bytes(const rig *r)
{
    umo_counters now;
    umo_scope_read(umo_context_scope(r->context), &now);
    return now.live_bytes - r->before.live_bytes;
}

static void rig_close(rig *r)
{
    umo_counters now;
    umo_scope_read(umo_context_scope(r->context), &now);
    assert_int_equal(now.live_bytes, r->before.live_bytes);
    assert_int_equal(now.live_buffers, r->before.live_buffers);
    assert_int_equal(umo_optimizer_shutdown(NULL), UMO_OK);
    umo_context_default_release(r->context);
}

static umo_status planned(const umo_plan_buffer *lifetimes, size_t count, umo_buffer **out,
                          umo_plan_result *plan, umo_error *error)
{
    return umo_optimizer_alloc_planned(lifetimes, count, UMO_PATTERN_STREAMING, 0, out, plan,
                                       error);
}

/* Two that follow each other and lie on the same bytes, and one beside them. */
static void chain_alloc(const rig *r, umo_buffer *out[3], umo_plan_result *plan)
{
    const umo_plan_buffer lifetimes[3] = {
        {0, 10, 16 * r->page, 0}, {10, 20, 16 * r->page - 5, 0}, {0, 20, 100, 64}};
    assert_int_equal(planned(lifetimes, 3, out, plan, NULL), UMO_OK);
}

static umo_access whole(const umo_buffer *buffer, umo_side side, umo_use use)
{
    return (umo_access){.size_bytes = umo_buffer_size(buffer), .side = side, .use = use};
}

static umo_status begin(umo_buffer *buffer, umo_side side, umo_use use, umo_fence_set *waits)
{
    const umo_access access = whole(buffer, side, use);
    return umo_access_begin(buffer, &access, waits);
}

static void end(umo_buffer *buffer, umo_side side, umo_use use, umo_fence done)
{
    const umo_access access = whole(buffer, side, use);
    assert_int_equal(umo_access_end(buffer, &access, done), UMO_OK);
}

static void fill(umo_buffer *buffer, int value)
{
    umo_fence_set waits;
    assert_int_equal(begin(buffer, HOST, UMO_WRITE, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    memset(umo_buffer_host(buffer), value, umo_buffer_size(buffer));
    end(buffer, HOST, UMO_WRITE, (umo_fence){0});
}

static void assert_filled(umo_buffer *buffer, int value)
{
    umo_fence_set waits;
    assert_int_equal(begin(buffer, HOST, UMO_READ, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    const unsigned char *bytes = umo_buffer_host(buffer);
    const size_t size_bytes = umo_buffer_size(buffer);
    assert_int_equal(bytes[0], value);
    assert_memory_equal(bytes, bytes + 1, size_bytes - 1); /* all as the first */
    end(buffer, HOST, UMO_READ, (umo_fence){0});
}

/* ---- tests ---- */

static void a_planned_batch_is_one_allocation_of_the_planned_peak(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_optimizer_stats before;
    umo_optimizer_stats after;
    umo_counters counters;
    umo_buffer *b[3] = {NULL};
    umo_plan_result plan;
    assert_int_equal(umo_optimizer_stats_read(&before, NULL), UMO_OK);
    chain_alloc(&r, b, &plan);
    assert_int_equal(plan.peak_bytes, 17 * r.page);
    assert_int_equal(plan.bound_bytes, 17 * r.page);
    assert_int_equal(plan.proof, UMO_PLAN_AT_BOUND);
    umo_scope_read(umo_context_scope(r.context), &counters);
    assert_int_equal(counters.allocated.events - r.before.allocated.events, 1);
    assert_int_equal(live_bytes(&r), 17 * r.page);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes - before.total_bytes, 17 * r.page);
    /* Though its buffers have 32 pages together, and with other memory beside it. */
    assert_int_equal(after.unified_bytes - before.unified_bytes, 17 * r.page);
    umo_device *host = NULL;
    umo_buffer *beside = NULL;
    assert_int_equal(umo_context_device(r.context, "host", 0, &host, NULL), UMO_OK);
    assert_int_equal(umo_buffer_alloc(host, umo_context_scope(r.context), 64 * r.page, UMO_PRIVATE,
                                      &beside, NULL),
                     UMO_OK);
    assert_int_equal(umo_optimizer_stats_read(&after, NULL), UMO_OK);
    assert_int_equal(after.total_bytes - before.total_bytes, 81 * r.page);
    assert_int_equal(after.unified_bytes - before.unified_bytes, 17 * r.page);
    umo_buffer_release(beside);
    umo_device_release(host);
    assert_int_equal(after.pattern_bytes[UMO_PATTERN_STREAMING], 32 * r.page - 5 + 100);
    assert_ptr_equal(umo_buffer_host(b[0]), umo_buffer_host(b[1]));
    assert_int_equal(umo_buffer_size(b[1]), 16 * r.page - 5);
    assert_int_equal((uintptr_t)umo_buffer_host(b[2]) % r.page, 0);
    fill(b[2], 9);
    fill(b[0], 1);
    assert_filled(b[0], 1);
    fill(b[1], 2);
    assert_filled(b[1], 2);
    assert_filled(b[2], 9);
    for (int i = 0; i < 3; i++) {
        umo_buffer_release(b[i]);
    }
    rig_close(&r);
}

static void releases_in_any_order_leave_nothing(void **state)
{
    (void)state;
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    rig r = rig_open("host", 0);
    for (int i = 0; i < 6; i++) {
        umo_buffer *b[3] = {NULL};
        chain_alloc(&r, b, NULL);
        for (int k = 0; k < 3; k++) {
            assert_int_equal(live_bytes(&r), 17 * r.page);
            fill(b[orders[i][k]], k);
            umo_buffer_release(b[orders[i][k]]);
        }
        assert_int_equal(live_bytes(&r), 0);
    }
    rig_close(&r);
}

static void an_address_finds_the_last_that_lies_there(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_buffer *b[3] = {NULL};
    umo_buffer *found = NULL;
    chain_alloc(&r, b, NULL);
    char *shared = umo_buffer_host(b[0]);
    assert_int_equal(umo_buffer_find(shared + 1, &found), UMO_OK);
    assert_ptr_equal(found, b[1]);
    umo_buffer_release(found);
    /* Its last 5 bytes are the other's alone. */
    assert_int_equal(umo_buffer_find(shared + 16 * r.page - 1, &found), UMO_OK);
    assert_ptr_equal(found, b[0]);
    umo_buffer_release(found);
    assert_int_equal(umo_buffer_find(umo_buffer_host(b[2]), &found), UMO_OK);
    assert_ptr_equal(found, b[2]);
    umo_buffer_release(found);
    assert_int_equal(umo_optimizer_prefetch(shared, 0, DEVICE, NULL), UMO_OK);
    umo_buffer_release(b[1]);
    assert_int_equal(umo_buffer_find(shared + 1, &found), UMO_OK);
    assert_ptr_equal(found, b[0]);
    umo_buffer_release(found);
    umo_buffer_release(b[0]);
    assert_int_equal(umo_buffer_find(shared + 1, &found), UMO_E_NOT_FOUND);
    umo_buffer_release(b[2]);
    rig_close(&r);
}

static void lifetimes_that_cannot_be_are_refused(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    const umo_plan_buffer good = {0, 1, 100, 0};
    const umo_plan_buffer bad[] = {
        {1, 1, 100, 0},
        {2, 1, 100, 0},
        {0, 1, 0, 0},
        {0, 1, INT64_MAX, 0},
        {0, 1, UINT64_MAX, 0},
        {0, 1, (uint64_t)1 << 63, 0},
        {0, 1, 100, 3},
        {0, 1, 100, 96},
        {0, 1, 100, (uint64_t)1 << 63},
        {INT64_MAX, INT64_MIN, 100, 0},
    };
    umo_buffer *b[2] = {NULL};
    umo_plan_result plan = {.peak_bytes = 77};
    umo_error error = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const umo_plan_buffer two[2] = {good, bad[i]};
        assert_int_equal(planned(two, 2, b, &plan, &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, "1"));
    }
    /* Each fits 63 bits, both do not; one is more than the machine has. */
    const umo_plan_buffer huge[2] = {{0, 1, (uint64_t)1 << 62, 0}, {0, 1, (uint64_t)1 << 62, 0}};
    assert_int_equal(planned(huge, 2, b, &plan, NULL), UMO_E_LIMIT);
    assert_int_equal(planned(huge, 1, b, &plan, NULL), UMO_E_INVAL);
    const umo_plan_buffer aligned = {0, 1, 100, (uint64_t)1 << 62};
    assert_int_equal(planned(&aligned, 1, b, &plan, NULL), UMO_E_INVAL);
    assert_int_equal(planned(NULL, 2, b, &plan, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "lifetimes"));
    assert_int_equal(planned(&good, 1, NULL, &plan, NULL), UMO_E_INVAL);
    assert_int_equal(planned(&good, SIZE_MAX, b, &plan, NULL), UMO_E_INVAL);
    assert_int_equal(umo_optimizer_alloc_planned(&good, 1, UMO_PATTERN_UNKNOWN, 99, b, &plan, NULL),
                     UMO_E_NOT_FOUND);
    assert_int_equal(plan.peak_bytes, 77);
    assert_null(b[0]);
    assert_int_equal(planned(NULL, 0, NULL, &plan, NULL), UMO_OK);
    assert_int_equal(plan.peak_bytes, 0);
    rig_close(&r);
    assert_int_equal(planned(&good, 1, b, &plan, NULL), UMO_E_INVAL); /* it does not run */
    assert_null(b[0]);
}

/* ---- random plans ---- */

enum {
    PLANS = 1000,
    MOST = 24,
    TIMES = 16
};

static uint64_t chance_state = 42;

static uint64_t chance(uint64_t below)
{
    chance_state = chance_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (chance_state >> 33) % below;
}

static size_t random_batch(const rig *r, umo_plan_buffer *lifetimes)
{
    const size_t count = 1 + (size_t)chance(MOST);
    for (size_t i = 0; i < count; i++) {
        const int64_t lower = (int64_t)chance(TIMES - 1);
        lifetimes[i].lower = lower;
        lifetimes[i].upper = lower + 1 + (int64_t)chance((uint64_t)(TIMES - lower - 1) / 2 + 1);
        lifetimes[i].size_bytes = 2 + chance(4 * r->page);
        lifetimes[i].align_bytes = chance(4) == 0 ? (uint64_t)1 << chance(17) : 0;
    }
    return count;
}

static void play(const umo_plan_buffer *lifetimes, umo_buffer **b, size_t count)
{
    for (int64_t now = 0; now < TIMES; now++) {
        for (size_t i = 0; i < count; i++) {
            if (b[i] != NULL && lifetimes[i].upper == now) {
                assert_filled(b[i], (int)i + 1);
                if (chance(2) == 0) { /* else it stays, and is in nobody's way */
                    umo_buffer_release(b[i]);
                    b[i] = NULL;
                }
            }
        }
        for (size_t i = 0; i < count; i++) {
            if (lifetimes[i].lower == now) {
                fill(b[i], (int)i + 1);
            }
        }
        for (size_t i = 0; i < count; i++) {
            if (lifetimes[i].lower <= now && now < lifetimes[i].upper && chance(3) == 0) {
                assert_filled(b[i], (int)i + 1);
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        umo_buffer_release(b[i]);
    }
}

static void bytes_last_as_long_as_their_lifetimes(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    for (int i = 0; i < PLANS; i++) {
        umo_plan_buffer lifetimes[MOST];
        umo_buffer *b[MOST] = {NULL};
        umo_plan_result plan;
        uint64_t most_align = r.page;
        const size_t count = random_batch(&r, lifetimes);
        assert_int_equal(planned(lifetimes, count, b, &plan, NULL), UMO_OK);
        for (size_t k = 0; k < count; k++) {
            const uint64_t align = lifetimes[k].align_bytes;
            assert_int_equal((uintptr_t)umo_buffer_host(b[k]) % (align > r.page ? align : r.page),
                             0);
            most_align = align > most_align ? align : most_align;
        }
        assert_int_equal(live_bytes(&r), (uint64_t)plan.peak_bytes + most_align - r.page);
        assert_true(plan.peak_bytes >= plan.bound_bytes);
        play(lifetimes, b, count);
        assert_int_equal(live_bytes(&r), 0);
    }
    rig_close(&r);
}

/* ---- who waits for whom ---- */

static _Atomic bool gate_is_open;

static void slow_run(void *const *args, const size_t global[3])
{
    unsigned char *bytes = args[0];
    for (int i = 0; i < 5000 && !gate_is_open; i++) {
        (void)nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    for (size_t i = 0; i < global[0]; i++) {
        bytes[i] = 7;
    }
}

static const umo_host_kernel kernels[] = {{"slow", slow_run}, {NULL, NULL}};

typedef struct launcher {
    umo_program *program;
    umo_kernel *kernel;
} launcher;

static launcher launcher_open(umo_device *device)
{
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    launcher l = {0};
    assert_int_equal(umo_program_create(device, &source, &l.program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(l.program, "slow", &l.kernel, NULL), UMO_OK);
    return l;
}

static void launcher_close(launcher *l)
{
    umo_kernel_destroy(l->kernel);
    umo_program_destroy(l->program);
}

/* Writes 7 to all bytes of a buffer once the gate is open. */
static umo_fence launch(const launcher *l, umo_buffer *buffer, const umo_fence_set *waits)
{
    const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY,
                                .memory = umo_buffer_memory(buffer),
                                .offset_bytes = umo_buffer_memory_offset(buffer)};
    const umo_grid grid = {.dimensions = 1, .global = {umo_buffer_size(buffer)}};
    umo_fence done = {0};
    assert_int_equal(
        umo_kernel_launch(l->kernel, 0, &arg, 1, &grid, waits->fences, waits->count, &done, NULL),
        UMO_OK);
    return done;
}

static void the_next_on_the_bytes_waits_for_the_one_before(void **state)
{
    (void)state;
    rig r = rig_open("host", 1000);
    umo_buffer *b[3] = {NULL};
    umo_fence_set waits;
    chain_alloc(&r, b, NULL);
    launcher l = launcher_open(umo_buffer_device(b[0]));
    gate_is_open = false;
    assert_int_equal(begin(b[0], DEVICE, UMO_WRITE, &waits), UMO_OK);
    end(b[0], DEVICE, UMO_WRITE, launch(&l, b[0], &waits));
    /* What lies beside has nothing to wait for. */
    assert_int_equal(begin(b[2], HOST, UMO_WRITE, &waits), UMO_OK);
    assert_int_equal(waits.count, 0);
    end(b[2], HOST, UMO_WRITE, (umo_fence){0});
    assert_int_equal(begin(b[1], HOST, UMO_WRITE, &waits), UMO_OK);
    assert_int_equal(waits.count, 1);
    assert_int_equal(umo_fence_set_wait(&waits, 2 * MS), UMO_E_TIMEOUT);
    gate_is_open = true;
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    memset(umo_buffer_host(b[1]), 3, umo_buffer_size(b[1]));
    end(b[1], HOST, UMO_WRITE, (umo_fence){0});
    assert_filled(b[1], 3);
    /* And the other way round, past the release of the one that queued. */
    gate_is_open = false;
    assert_int_equal(begin(b[1], DEVICE, UMO_READ_WRITE, &waits), UMO_OK);
    end(b[1], DEVICE, UMO_READ_WRITE, launch(&l, b[1], &waits));
    assert_int_equal(begin(b[0], DEVICE, UMO_WRITE, &waits), UMO_OK);
    assert_int_equal(waits.count, 1);
    gate_is_open = true;
    end(b[0], DEVICE, UMO_WRITE, launch(&l, b[0], &waits));
    umo_buffer_release(b[1]);
    assert_filled(b[0], 7);
    umo_buffer_release(b[0]);
    umo_buffer_release(b[2]);
    launcher_close(&l);
    rig_close(&r);
}

static void an_open_bracket_is_in_the_way_of_the_next_on_its_bytes(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_buffer *b[3] = {NULL};
    umo_fence_set waits;
    chain_alloc(&r, b, NULL);
    for (int abort = 0; abort < 2; abort++) {
        const umo_access writes = whole(b[0], HOST, UMO_WRITE);
        assert_int_equal(begin(b[0], HOST, UMO_WRITE, &waits), UMO_OK);
        assert_int_equal(begin(b[1], HOST, UMO_WRITE, &waits), UMO_E_BUSY);
        assert_int_equal(begin(b[1], DEVICE, UMO_READ, &waits), UMO_E_BUSY);
        assert_int_equal(begin(b[2], HOST, UMO_WRITE, &waits), UMO_OK);
        end(b[2], HOST, UMO_WRITE, (umo_fence){0});
        assert_int_equal((abort ? umo_access_abort : umo_access_end)(b[0], &writes, (umo_fence){0}),
                         UMO_OK);
        assert_int_equal(umo_access_end(b[0], &writes, (umo_fence){0}), UMO_E_INVAL);
        fill(b[1], 5);
    }
    /* Readers are in nobody's way, nor are bytes that lie apart. */
    assert_int_equal(begin(b[0], HOST, UMO_READ, &waits), UMO_OK);
    assert_int_equal(begin(b[1], HOST, UMO_READ, &waits), UMO_OK);
    end(b[0], HOST, UMO_READ, (umo_fence){0});
    assert_int_equal(begin(b[0], HOST, UMO_WRITE, &waits), UMO_E_BUSY);
    end(b[1], HOST, UMO_READ, (umo_fence){0});
    const umo_access low = {.size_bytes = r.page, .side = HOST, .use = UMO_WRITE};
    umo_access high = low;
    high.offset_bytes = r.page;
    assert_int_equal(umo_access_begin(b[0], &low, &waits), UMO_OK);
    assert_int_equal(umo_access_begin(b[1], &high, &waits), UMO_OK);
    assert_int_equal(umo_access_end(b[0], &low, (umo_fence){0}), UMO_OK);
    /* A bracket that its own buffer refuses leaves nothing in the way either. */
    assert_int_equal(begin(b[1], HOST, UMO_WRITE, &waits), UMO_E_BUSY);
    assert_int_equal(umo_access_end(b[1], &high, (umo_fence){0}), UMO_OK);
    fill(b[0], 1);
    for (int i = 0; i < 3; i++) {
        umo_buffer_release(b[i]);
    }
    rig_close(&r);
}

static void an_export_keeps_its_bytes_from_the_others(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_buffer *b[3] = {NULL};
    umo_fence_set waits;
    chain_alloc(&r, b, NULL);
    fill(b[0], 4);
    assert_int_equal(begin(b[1], HOST, UMO_READ, &waits), UMO_OK);
    assert_int_equal(umo_buffer_export_begin(b[0], HOST, true, &waits), UMO_E_BUSY);
    end(b[1], HOST, UMO_READ, (umo_fence){0});
    for (int k = 0; k < 2; k++) { /* exports nest, and their buffer can be read */
        assert_int_equal(umo_buffer_export_begin(b[0], HOST, true, &waits), UMO_OK);
        assert_filled(b[0], 4);
        assert_int_equal(begin(b[1], HOST, UMO_WRITE, &waits), UMO_E_BUSY);
    }
    assert_int_equal(umo_buffer_export_begin(b[0], DEVICE, false, &waits), UMO_E_BUSY);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(begin(b[1], HOST, UMO_WRITE, &waits), UMO_E_BUSY);
        assert_int_equal(umo_buffer_export_end(b[0], HOST, true, (umo_fence){0}), UMO_OK);
    }
    assert_int_equal(umo_buffer_export_end(b[0], HOST, true, (umo_fence){0}), UMO_E_INVAL);
    fill(b[1], 5);
    /* The export holds its buffer, and with it the piece. */
    assert_int_equal(umo_buffer_export_begin(b[1], HOST, false, &waits), UMO_OK);
    for (int i = 0; i < 3; i++) {
        umo_buffer_release(b[i]);
    }
    assert_int_equal(live_bytes(&r), 17 * r.page);
    assert_int_equal(umo_buffer_export_end(b[1], HOST, false, (umo_fence){0}), UMO_OK);
    rig_close(&r);
}

static void what_is_shared_neither_moves_nor_loses_its_pins(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_buffer *b[3] = {NULL};
    chain_alloc(&r, b, NULL);
    fill(b[0], 6);
    bool moved = false;
    assert_int_equal(umo_buffer_numa_move(b[0], UMO_NUMA_ANY, NULL, NULL), UMO_E_UNSUPPORTED);
    assert_int_equal(umo_buffer_modes(b[0]), 1u << UMO_UNIFIED);
    assert_int_equal(umo_buffer_move(b[0], UMO_PRIVATE, 0, NULL), UMO_E_UNSUPPORTED);
    umo_status_ignore(umo_optimizer_optimize(umo_buffer_host(b[0]), &moved, NULL));
    assert_false(moved);
    if (umo_buffer_pin(b[0], NULL) == UMO_OK) {
        assert_int_equal(umo_buffer_pin(b[1], NULL), UMO_OK);
        umo_buffer_release(b[1]);
        assert_true(umo_buffer_pinned(b[0]));
        assert_filled(b[0], 6);
        assert_int_equal(umo_buffer_unpin(b[0]), UMO_OK);
    } else {
        umo_buffer_release(b[1]);
    }
    umo_buffer_release(b[0]);
    umo_buffer_release(b[2]);
    rig_close(&r);
}

static void a_failure_is_told_to_the_next_and_ends_there(void **state)
{
    (void)state;
    umo_device_release(wrapper_device(NULL, NULL));
    rig r = rig_open("wrapper", 1000);
    umo_buffer *b[3] = {NULL};
    umo_fence_set waits;
    chain_alloc(&r, b, NULL);
    assert_ptr_equal(umo_buffer_host(b[0]), umo_buffer_host(b[1]));
    launcher l = launcher_open(umo_buffer_device(b[0]));
    gate_is_open = true;
    assert_int_equal(begin(b[0], DEVICE, UMO_WRITE, &waits), UMO_OK);
    const umo_fence done = launch(&l, b[0], &waits);
    wrapper.bad_value = done.value;
    end(b[0], DEVICE, UMO_WRITE, done);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_E_DEVICE);
    fill(b[1], 2);
    assert_filled(b[1], 2);
    assert_int_equal(begin(b[0], HOST, UMO_READ, &waits), UMO_E_DEVICE);
    fill(b[0], 1);
    wrapper = (wrapper_switches){0};
    for (int i = 0; i < 3; i++) {
        umo_buffer_release(b[i]);
    }
    launcher_close(&l);
    rig_close(&r);
}

/* ---- devices on which nothing is shared ---- */

static bool import_fails(const char *entry)
{
    return strcmp(entry, "import") == 0;
}

static void nothing_is_shared_where_it_would_not_be_safe(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        umo_device_release(wrapper_device(NULL, NULL));
        /* Not coherent; or nothing can be bound, so that each has memory of its own. */
        wrapper = k == 0 ? (wrapper_switches){.apart = true}
                         : (wrapper_switches){.fails = import_fails, .caps_off = UMO_CAP_UNIFIED};
        rig r = rig_open("wrapper", 0);
        umo_buffer *b[3] = {NULL};
        umo_plan_result plan;
        chain_alloc(&r, b, &plan);
        assert_int_equal(plan.peak_bytes, 33 * r.page);
        assert_int_equal(plan.bound_bytes, 17 * r.page);
        assert_int_equal(plan.proof, UMO_PLAN_OPEN);
        for (int i = 0; i < 3; i++) {
            fill(b[i], i + 1);
        }
        for (int i = 0; i < 3; i++) {
            assert_filled(b[i], i + 1);
            umo_buffer_release(b[i]);
        }
        rig_close(&r);
        wrapper = (wrapper_switches){0};
    }
}

static void an_allocation_that_fails_leaves_nothing(void **state)
{
    (void)state;
    rig r = rig_open("host", 0);
    umo_buffer *b[3] = {NULL};
    chain_alloc(&r, b, NULL);
    for (int i = 0; i < 3; i++) {
        umo_buffer_release(b[i]);
        b[i] = NULL;
    }
    unsigned long refused = 0;
    failed = true;
    for (fail_at = 1; failed; fail_at++) {
        const umo_plan_buffer lifetimes[3] = {
            {0, 10, 16 * r.page, 0}, {10, 20, 16 * r.page, 0}, {0, 20, 100, 64}};
        umo_plan_result plan = {.peak_bytes = 77};
        calls = 0;
        failed = false;
        armed = true;
        const umo_status status = planned(lifetimes, 3, b, &plan, NULL);
        armed = false;
        assert_true(status == UMO_OK || (failed && status == UMO_E_NOMEM));
        assert_int_equal(plan.peak_bytes, status == UMO_OK ? 17 * r.page : 77);
        assert_int_equal(live_bytes(&r), status == UMO_OK ? 17 * r.page : 0);
        refused += status == UMO_OK ? 0 : 1;
        for (int i = 0; i < 3; i++) {
            assert_true((b[i] != NULL) == (status == UMO_OK));
            umo_buffer_release(b[i]);
            b[i] = NULL;
        }
    }
#ifdef UMO_TEST_WRAPS_MALLOC
    assert_true(refused > 5);
#else
    assert_int_equal(refused, 0); /* no allocation is made to fail */
#endif
    rig_close(&r);
}

/* More pieces of both at once than a buffer has room for without an allocation. */
static void a_bracket_that_gets_no_memory_is_not_open(void **state)
{
    (void)state;
    enum {
        PIECES = 20
    };
    rig r = rig_open("host", 0);
    failed = true;
    for (fail_at = 1; failed; fail_at++) {
        umo_buffer *b[3] = {NULL};
        umo_fence_set waits;
        bool open[PIECES] = {false};
        chain_alloc(&r, b, NULL);
        calls = 0;
        failed = false;
        armed = true;
        for (size_t i = 0; i < PIECES; i++) {
            const umo_access piece = {
                .offset_bytes = i * 64, .size_bytes = 64, .side = HOST, .use = UMO_WRITE};
            const umo_status status = umo_access_begin(b[i % 2], &piece, &waits);
            open[i] = status == UMO_OK;
            assert_true(open[i] || (failed && status == UMO_E_NOMEM));
        }
        armed = false;
        for (size_t i = 0; i < PIECES; i++) {
            const umo_access piece = {
                .offset_bytes = i * 64, .size_bytes = 64, .side = HOST, .use = UMO_WRITE};
            assert_int_equal(umo_access_end(b[i % 2], &piece, (umo_fence){0}),
                             open[i] ? UMO_OK : UMO_E_INVAL);
        }
        fill(b[0], 1);
        fill(b[1], 2);
        for (int i = 0; i < 3; i++) {
            umo_buffer_release(b[i]);
        }
    }
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_planned_batch_is_one_allocation_of_the_planned_peak),
        cmocka_unit_test(releases_in_any_order_leave_nothing),
        cmocka_unit_test(an_address_finds_the_last_that_lies_there),
        cmocka_unit_test(lifetimes_that_cannot_be_are_refused),
        cmocka_unit_test(bytes_last_as_long_as_their_lifetimes),
        cmocka_unit_test(the_next_on_the_bytes_waits_for_the_one_before),
        cmocka_unit_test(an_open_bracket_is_in_the_way_of_the_next_on_its_bytes),
        cmocka_unit_test(an_export_keeps_its_bytes_from_the_others),
        cmocka_unit_test(what_is_shared_neither_moves_nor_loses_its_pins),
        cmocka_unit_test(a_failure_is_told_to_the_next_and_ends_there),
        cmocka_unit_test(nothing_is_shared_where_it_would_not_be_safe),
        cmocka_unit_test(an_allocation_that_fails_leaves_nothing),
        cmocka_unit_test(a_bracket_that_gets_no_memory_is_not_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

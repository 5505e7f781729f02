/*
 * Eight threads on one context: pools, brackets, transfers, kernels, regions, views, all at once,
 * on a delayed device in test mode and on one whose sides see each other only through publish.
 *
 * What can be checked without agreeing with the others is: a cell of a shared buffer is always
 * written whole, so every reader must see one value in it; a block or a region belongs to one
 * thread; a segment holds its own number. At the end everything must have been given back.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "os/pages_test.h"

#include <umo/umo.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    THREADS = 8,
    CELLS = 4,
    CELL_BYTES = 96,
    BUFFERS = 8, /* the last three are movable */
    MOVABLE = 3,
    SEGMENTS = 6
};

typedef struct shared_buffer {
    umo_buffer *buffer;
    umo_kernel *check;
    umo_kernel *fill;
} shared_buffer;

typedef struct stress {
    umo_context *context;
    umo_device *devices[2];
    umo_program *programs[2];
    umo_pool *pools[UMO_STORAGE_MODES];
    shared_buffer buffers[BUFFERS];
    int segments[SEGMENTS];
    size_t page;
    unsigned char *common; /* a region that all wrap, of ones */
    umo_region *region;
    uint64_t end_ns;
} stress;

static stress core;
static _Atomic uint64_t failures;
static _Atomic uint64_t steps;
static _Atomic uint64_t busy;
static _Atomic uint64_t moved;

static void failure(const char *what, umo_status status)
{
    if (failures++ < 20) {
        (void)fprintf(stderr, "stress: %s (%s)\n", what, umo_status_name(status));
    }
}

#define CHECK(condition, what)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failure(what, UMO_OK);                                                                 \
        }                                                                                          \
    } while (0)

#define MUST(call)                                                                                 \
    do {                                                                                           \
        umo_status must_status = (call);                                                           \
        if (must_status != UMO_OK) {                                                               \
            failure(#call, must_status);                                                           \
        }                                                                                          \
    } while (0)

static bool one_value(const unsigned char *bytes, size_t size_bytes)
{
    for (size_t i = 1; i < size_bytes; i++) {
        if (bytes[i] != bytes[0]) {
            return false;
        }
    }
    return true;
}

static void cells_check(const unsigned char *bytes, size_t cells)
{
    for (size_t i = 0; i < cells; i++) {
        CHECK(one_value(bytes + i * CELL_BYTES, CELL_BYTES), "a cell with two values");
    }
}

static void check_run(void *const *args, const size_t global[3])
{
    cells_check(args[0], global[0]);
}

static void fill_run(void *const *args, const size_t global[3])
{
    memset(args[0], *(const unsigned char *)args[1], global[0] * CELL_BYTES);
}

static const umo_host_kernel kernels[] = {{"check", check_run}, {"fill", fill_run}, {NULL, NULL}};

#if defined(__SANITIZE_THREAD__)
/* The thread sanitizer does not see mremap, and takes what a thread did at the address before it
 * was unmapped for a race with whoever uses it afterwards. It sees mmap: so the address comes from
 * it. */
void *__real_mremap(void *at, size_t old_size, size_t size, int flags, ...);
void *__wrap_mremap(void *at, size_t old_size, size_t size, int flags, ...);

void *__wrap_mremap(void *at, size_t old_size, size_t size, int flags, ...)
{
    void *fresh = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fresh == MAP_FAILED) {
        return MAP_FAILED;
    }
    void *pages = __real_mremap(at, old_size, size, flags | MREMAP_FIXED, fresh);
    if (pages == MAP_FAILED) {
        (void)munmap(fresh, size);
    }
    return pages;
}
#endif

/* ---- the steps ---- */

typedef struct worker {
    unsigned seed;
    unsigned char own;
    unsigned char *memory; /* for regions of its own */
} worker;

static size_t below(worker *w, size_t limit)
{
    return (size_t)rand_r(&w->seed) % limit;
}

static void step_pool(worker *w)
{
    umo_pool *pool = core.pools[below(w, UMO_STORAGE_MODES)];
    size_t size = 1 + below(w, 3000);
    umo_buffer *block = NULL;
    MUST(umo_pool_alloc(pool, size, w->own, &block, NULL));
    if (block == NULL) {
        return;
    }
    const umo_access write = {.size_bytes = size, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    MUST(umo_access_begin(block, &write, &waits));
    MUST(umo_fence_set_wait(&waits, UINT64_MAX));
    unsigned char *bytes = umo_buffer_host(block);
    memset(bytes, w->own, size);
    CHECK(bytes[0] == w->own && one_value(bytes, size), "a block of two threads");
    MUST(umo_access_end(block, &write, (umo_fence){0}));
    if (below(w, 4) == 0) {
        /* Given back with a command still pending. */
        unsigned char source[64];
        memset(source, 0, sizeof source);
        umo_fence fence;
        size_t part = size < sizeof source ? size : sizeof source;
        MUST(umo_buffer_upload(block, 0, source, part, (uint32_t)below(w, 4), &fence));
        MUST(umo_fence_wait(fence, UINT64_MAX));
    }
    MUST(umo_pool_free(pool, block));
    if (below(w, 20) == 0) {
        umo_pool_trim(pool, below(w, 10000));
    }
}

static umo_access cells_access(worker *w)
{
    size_t first = below(w, CELLS);
    return (umo_access){.offset_bytes = first * CELL_BYTES,
                        .size_bytes = (1 + below(w, CELLS - first)) * CELL_BYTES,
                        .side = below(w, 2) == 0 ? UMO_SIDE_HOST : UMO_SIDE_DEVICE,
                        .use = below(w, 2) == 0 ? UMO_READ : UMO_WRITE,
                        .queue = (uint32_t)below(w, 4)};
}

static void device_use(worker *w, const shared_buffer *shared, const umo_access *access,
                       const umo_fence_set *waits)
{
    unsigned char value = (unsigned char)below(w, 256);
    const umo_kernel_arg args[] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(shared->buffer),
         .offset_bytes = umo_buffer_memory_offset(shared->buffer) + access->offset_bytes},
        {.kind = UMO_ARG_VALUE, .size_bytes = 1, .value = &value}};
    const umo_grid grid = {.dimensions = 1, .global = {access->size_bytes / CELL_BYTES}};
    umo_fence done = {0};
    MUST(umo_kernel_launch(access->use == UMO_READ ? shared->check : shared->fill, access->queue,
                           args, 2, &grid, waits->fences, waits->count, &done, NULL));
    MUST(umo_access_end(shared->buffer, access, done));
}

static void step_bracket(worker *w)
{
    const shared_buffer *shared = &core.buffers[below(w, BUFFERS)];
    const umo_access access = cells_access(w);
    umo_fence_set waits;
    umo_status status = umo_access_begin(shared->buffer, &access, &waits);
    if (status == UMO_E_BUSY) {
        busy++;
        return;
    }
    MUST(status);
    if (access.side == UMO_SIDE_DEVICE) {
        device_use(w, shared, &access, &waits);
        return;
    }
    MUST(umo_fence_set_wait(&waits, UINT64_MAX));
    unsigned char *bytes = (unsigned char *)umo_buffer_host(shared->buffer) + access.offset_bytes;
    if (access.use == UMO_WRITE) {
        memset(bytes, (int)below(w, 256), access.size_bytes);
    }
    cells_check(bytes, access.size_bytes / CELL_BYTES);
    MUST(umo_access_end(shared->buffer, &access, (umo_fence){0}));
}

static void step_move(worker *w)
{
    umo_buffer *buffer = core.buffers[below(w, BUFFERS)].buffer;
    const umo_access access = cells_access(w);
    unsigned char bytes[CELLS * CELL_BYTES];
    memset(bytes, (int)below(w, 256), sizeof bytes);
    umo_fence fence;
    umo_status status = access.use == UMO_WRITE
                            ? umo_buffer_upload(buffer, access.offset_bytes, bytes,
                                                access.size_bytes, access.queue, &fence)
                            : umo_buffer_download(buffer, access.offset_bytes, bytes,
                                                  access.size_bytes, access.queue, &fence);
    if (status == UMO_E_BUSY) {
        busy++;
        return;
    }
    MUST(status);
    MUST(umo_fence_wait(fence, UINT64_MAX));
    cells_check(bytes, access.size_bytes / CELL_BYTES);
}

/* Another storage mode for memory that the others use; now and then it is pinned meanwhile. */
static void step_migrate(worker *w)
{
    umo_buffer *buffer = core.buffers[BUFFERS - 1 - below(w, MOVABLE)].buffer;
    void *host = umo_buffer_host(buffer);
    bool pin = below(w, 8) == 0;
    if (pin) {
        MUST(umo_buffer_pin(buffer, NULL));
    }
    uint64_t timeout_ns = below(w, 2) * 200000;
    umo_storage_mode mode = (umo_storage_mode)below(w, UMO_STORAGE_MODES);
    umo_status status = umo_buffer_move(buffer, mode, timeout_ns, NULL);
    if (status == UMO_OK) {
        CHECK(!pin, "a pinned buffer moved");
        moved++;
    } else if (status != UMO_E_BUSY && status != UMO_E_TIMEOUT) {
        failure("umo_buffer_move", status);
    }
    if (pin) {
        MUST(umo_buffer_unpin(buffer));
    }
    CHECK(umo_buffer_host(buffer) == host, "a buffer with another address");
}

/* Memory in the hands of somebody without brackets: what it reads stays whole. */
static void step_export(worker *w)
{
    umo_buffer *buffer = core.buffers[below(w, BUFFERS)].buffer;
    umo_fence_set waits;
    umo_status status = umo_buffer_export_begin(buffer, UMO_SIDE_HOST, false, &waits);
    if (status == UMO_E_BUSY) {
        busy++;
        return;
    }
    MUST(status);
    MUST(umo_fence_set_wait(&waits, UINT64_MAX));
    cells_check(umo_buffer_host(buffer), CELLS);
    MUST(umo_buffer_export_end(buffer, UMO_SIDE_HOST, false, (umo_fence){0}));
}

static void step_prefetch(worker *w)
{
    const umo_access access = cells_access(w);
    umo_status status =
        umo_buffer_prefetch(core.buffers[below(w, BUFFERS)].buffer, access.offset_bytes,
                            access.size_bytes, access.side, NULL);
    if (status != UMO_OK && status != UMO_E_BUSY) {
        failure("umo_buffer_prefetch", status);
    }
}

/* Wraps a range and has the device look at it. */
static void wrap_use(worker *w, void *data, size_t size_bytes, unsigned char expected)
{
    umo_registry *registry = umo_context_registry(core.context);
    umo_buffer *buffer = NULL;
    size_t d = below(w, 2);
    MUST(umo_registry_wrap(registry, core.devices[d], umo_context_scope(core.context), data,
                           size_bytes, false, &buffer, NULL, NULL));
    if (buffer == NULL) {
        return;
    }
    const umo_access read = {.size_bytes = size_bytes,
                             .side = UMO_SIDE_DEVICE,
                             .use = UMO_READ,
                             .queue = (uint32_t)below(w, 4)};
    unsigned char *back = malloc(size_bytes);
    umo_fence_set waits;
    MUST(umo_access_begin(buffer, &read, &waits));
    MUST(umo_fence_set_wait(&waits, UINT64_MAX));
    memcpy(back, (const char *)umo_buffer_memory(buffer)->native + umo_buffer_memory_offset(buffer),
           size_bytes);
    MUST(umo_access_end(buffer, &read, (umo_fence){0}));
    CHECK(back[0] == expected && one_value(back, size_bytes), "a wrap shows other bytes");
    free(back);
    umo_buffer_release(buffer);
}

static void step_region(worker *w)
{
    if (below(w, 2) == 0) {
        size_t offset = below(w, 8) * 512;
        wrap_use(w, core.common + offset, 100 + 100 * below(w, 4), 1);
        return;
    }
    umo_region *region = NULL;
    size_t offset = below(w, 4) * core.page;
    memset(w->memory + offset, (int)below(w, 256), core.page);
    MUST(umo_region_register(umo_context_registry(core.context), w->memory + offset, core.page,
                             below(w, 2) == 0, &region, NULL));
    for (size_t i = below(w, 3); i-- > 0;) {
        wrap_use(w, w->memory + offset, core.page / 2, w->memory[offset]);
    }
    umo_region_release(region);
}

/* What a server does with a client's segment, and what a request does with it meanwhile. */
static void step_view(worker *w)
{
    size_t s = below(w, SEGMENTS);
    size_t first = below(w, 2);
    size_t pages = 2 + below(w, 2) - first;
    unsigned char *theirs = pages_test_map(pages * core.page, PROT_READ | PROT_WRITE, MAP_SHARED,
                                           core.segments[s], (off_t)(first * core.page));
    umo_mapping mapping;
    umo_view *view = NULL;
    void *own = NULL;
    MUST(umo_mapping_query(theirs, &mapping));
    umo_status status = umo_view_find(umo_context_registry(core.context), theirs, pages * core.page,
                                      &mapping, &own, &view, NULL);
    if (status == UMO_OK) {
        if (below(w, 2) == 0) {
            (void)munmap(theirs, pages * core.page);
            theirs = NULL;
        }
        wrap_use(w, own, core.page + below(w, core.page * (pages - 1) + 1), (unsigned char)(s + 1));
        umo_view_release(view);
    } else if (status != UMO_E_LIMIT) {
        failure("umo_view_find", status);
    }
    if (theirs != NULL) {
        (void)munmap(theirs, pages * core.page);
    }
    if (below(w, 50) == 0) {
        (void)umo_registry_sweep(umo_context_registry(core.context));
    }
}

static void step_look(worker *w)
{
    umo_counters counters;
    umo_registry_stats stats;
    umo_pool_stats pool;
    umo_scope *scope = NULL;
    umo_context *joined = NULL;
    umo_device *device = NULL;
    umo_buffer *buffer = NULL;
    umo_scope_read(umo_context_scope(core.context), &counters);
    umo_registry_read(umo_context_registry(core.context), &stats);
    umo_pool_read(core.pools[below(w, UMO_STORAGE_MODES)], &pool);
    CHECK(pool.reserved_bytes >= pool.live_bytes, "a pool holds less than it gave out");
    MUST(umo_scope_create(umo_context_scope(core.context), "short", 0, &scope, NULL));
    MUST(umo_context_default_acquire(NULL, &joined, NULL));
    MUST(umo_context_device(core.context, "host", 0, &device, NULL));
    MUST(umo_buffer_alloc(device, scope, 1 + below(w, 5000), (umo_storage_mode)below(w, 3), &buffer,
                          NULL));
    umo_scope_destroy(scope);
    umo_device_release(device);
    umo_context_default_release(joined);
    umo_buffer_release(buffer);
}

static void *work(void *argument)
{
    worker *w = argument;
    while (umo_os_now_ns() < core.end_ns && failures == 0) {
        switch (below(w, 11)) {
        case 0:
            step_pool(w);
            break;
        case 1:
            step_region(w);
            break;
        case 2:
            step_view(w);
            break;
        case 3:
            step_look(w);
            break;
        case 4:
            step_move(w);
            break;
        case 5:
            step_migrate(w);
            break;
        case 6:
            step_prefetch(w);
            break;
        case 7:
            step_export(w);
            break;
        default:
            step_bracket(w);
            break;
        }
        steps++;
    }
    return NULL;
}

/* ---- before and after ---- */

static void core_open(unsigned seconds)
{
    const umo_context_options options = {
        .registry = {.wraps_max = 24, .views_max = 5},
        .driver = {.delay_ns = 2000, .test_mode = true},
    };
    umo_device_release(wrapper_device(NULL, NULL)); /* registers the driver */
    wrapper.apart = true;
    core.page = pages_test_bytes();
    MUST(umo_context_create(&options, &core.context, NULL));
    umo_scope *scope = umo_context_scope(core.context);
    MUST(umo_context_device(core.context, "host", 0, &core.devices[0], NULL));
    MUST(umo_context_device(core.context, "wrapper", 0, &core.devices[1], NULL));
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    for (int d = 0; d < 2; d++) {
        MUST(umo_program_create(core.devices[d], &source, &core.programs[d], NULL));
    }
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        const umo_pool_options pool = {.device = core.devices[0],
                                       .scope = scope,
                                       .mode = (umo_storage_mode)mode,
                                       .keep_bytes_max = 20000};
        MUST(umo_pool_create(&pool, &core.pools[mode], NULL));
    }
    const umo_storage_mode modes[BUFFERS] = {UMO_UNIFIED, UMO_MANAGED, UMO_PRIVATE, UMO_UNIFIED,
                                             UMO_MANAGED, UMO_PRIVATE, UMO_UNIFIED, UMO_MANAGED};
    unsigned char zeros[CELLS * CELL_BYTES] = {0};
    for (size_t i = 0; i < BUFFERS; i++) {
        shared_buffer *shared = &core.buffers[i];
        size_t d = i < 3 || i >= 6 ? 0 : 1;
        umo_fence fence;
        MUST((i < BUFFERS - MOVABLE ? umo_buffer_alloc : umo_buffer_alloc_movable)(
            core.devices[d], scope, CELLS * CELL_BYTES, modes[i], &shared->buffer, NULL));
        MUST(umo_kernel_create(core.programs[d], "check", &shared->check, NULL));
        MUST(umo_kernel_create(core.programs[d], "fill", &shared->fill, NULL));
        MUST(umo_buffer_upload(shared->buffer, 0, zeros, sizeof zeros, 0, &fence));
        MUST(umo_fence_wait(fence, UINT64_MAX));
    }
    for (int s = 0; s < SEGMENTS; s++) {
        core.segments[s] = pages_test_file(3 * core.page);
        CHECK(core.segments[s] >= 0, "a file in memory");
        void *bytes =
            mmap(NULL, 3 * core.page, PROT_READ | PROT_WRITE, MAP_SHARED, core.segments[s], 0);
        memset(bytes, s + 1, 3 * core.page);
        (void)munmap(bytes, 3 * core.page);
    }
    core.common = umo_os_pages_alloc(2 * core.page);
    memset(core.common, 1, 2 * core.page);
    MUST(umo_region_register(umo_context_registry(core.context), core.common, 2 * core.page, false,
                             &core.region, NULL));
    core.end_ns = umo_os_now_ns() + (uint64_t)seconds * 1000000000u;
}

/* The keeper may be in the middle of a sweep of its own: views that it has unlinked hold regions
 * until it has come to them. */
static void registry_settle(umo_registry_stats *stats)
{
    const uint64_t end_ns = umo_os_now_ns() + UINT64_C(5000000000);
    do {
        umo_registry_read(umo_context_registry(core.context), stats);
    } while (stats->regions + stats->wraps > 0 && umo_os_now_ns() < end_ns && usleep(1000) == 0);
}

static void core_close(void)
{
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_pool_stats stats;
        umo_pool_read(core.pools[mode], &stats);
        CHECK(stats.live_bytes == 0, "a pool has live blocks");
        umo_pool_destroy(core.pools[mode]);
    }
    for (size_t i = 0; i < BUFFERS; i++) {
        umo_buffer_release(core.buffers[i].buffer);
        umo_kernel_destroy(core.buffers[i].check);
        umo_kernel_destroy(core.buffers[i].fill);
    }
    umo_region_release(core.region);
    umo_os_pages_free(core.common, 2 * core.page);
    for (int d = 0; d < 2; d++) {
        umo_program_destroy(core.programs[d]);
        umo_device_release(core.devices[d]);
    }
    (void)umo_registry_sweep(umo_context_registry(core.context));
    umo_registry_stats stats;
    registry_settle(&stats);
    CHECK(stats.views == 0 && stats.view_bytes == 0, "views stay");
    CHECK(stats.regions == 0 && stats.wraps == 0, "regions or wraps stay");
    umo_scope *root = umo_context_scope(core.context);
    umo_scope_acquire(root);
    umo_context_destroy(core.context);
    umo_counters counters;
    umo_scope_read(root, &counters);
    CHECK(counters.live_bytes == 0 && counters.live_buffers == 0, "memory stays");
    umo_scope_destroy(root);
    for (int s = 0; s < SEGMENTS; s++) {
        (void)close(core.segments[s]);
    }
}

int main(int argc, char **argv)
{
    core_open(argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 2);
    pthread_t threads[THREADS];
    worker workers[THREADS];
    size_t started = 0;
    for (unsigned i = 0; i < THREADS; i++) {
        workers[i] = (worker){.seed = i + 1,
                              .own = (unsigned char)(i + 1),
                              .memory = umo_os_pages_alloc(4 * core.page)};
        if (pthread_create(&threads[i], NULL, work, &workers[i]) == 0) {
            started++;
        }
    }
    CHECK(started == THREADS, "a thread did not start");
    for (size_t i = 0; i < started; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    for (size_t i = 0; i < THREADS; i++) {
        umo_os_pages_free(workers[i].memory, 4 * core.page);
    }
    core_close();
    (void)printf("stress: %" PRIu64 " steps, %" PRIu64 " found a bracket open, %" PRIu64
                 " moves, %" PRIu64 " failures\n",
                 steps, busy, moved, failures);
    return failures == 0 && steps > 100 && moved > 10 ? 0 : 1;
}

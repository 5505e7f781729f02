/*
 * A scene that goes through every part of the core, in which the n-th call that can fail does, for
 * n = 1, 2, ... until none is left: allocations, mappings, threads and the driver's calls.
 *
 * After each failure everything is given back (counted, and seen by the leak checker where there is
 * one), the scopes are empty, and the scene runs through. A scene that ends well in spite of a
 * failure must have computed the right bytes. Twice: with one failure, and with all that come after
 * it failing too, so that the way back is not allowed to need anything.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "os/pages_test.h"

#include <umo/umo.h>

#include <errno.h>
#ifdef __APPLE__
#include <mach/mach.h>
#endif
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- the calls that fail ---- */

static _Atomic bool armed;
static _Atomic unsigned long calls;
static unsigned long fail_at;
static bool fail_after; /* and all that come later */
static _Atomic bool failed;
static _Atomic long heap_blocks;
static _Atomic long mapped_bytes;

static bool fault(const char *entry)
{
    (void)entry;
    if (!armed) {
        return false;
    }
    unsigned long call = ++calls;
    bool now = call == fail_at || (fail_after && call > fail_at);
    if (now) {
        failed = true;
    }
    return now;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *block, size_t size);
void __real_free(void *block);
void *__real_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t size);
int __real_mprotect(void *at, size_t size, int protection);
int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *block, size_t size);
void __wrap_free(void *block);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t size);
int __wrap_mprotect(void *at, size_t size, int protection);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument);

void *__wrap_malloc(size_t size)
{
    void *block = fault("malloc") ? NULL : __real_malloc(size);
    heap_blocks += block != NULL ? 1 : 0;
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = fault("calloc") ? NULL : __real_calloc(count, size);
    heap_blocks += block != NULL ? 1 : 0;
    return block;
}

void *__wrap_realloc(void *block, size_t size)
{
    void *moved = fault("realloc") ? NULL : __real_realloc(block, size);
    heap_blocks += block == NULL && moved != NULL ? 1 : 0;
    return moved;
}

void __wrap_free(void *block)
{
    heap_blocks -= block != NULL ? 1 : 0;
    __real_free(block);
}

/* The kernel's own pages, whatever page size the build forces. */
static long whole_pages(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (long)((size + page - 1) / page * page);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    if (fault("mmap")) {
        return MAP_FAILED;
    }
    void *pages = __real_mmap(at, size, protection, flags, file, offset);
    /* What is mapped over something else takes its place. */
    mapped_bytes += pages != MAP_FAILED && (flags & MAP_FIXED) == 0 ? whole_pages(size) : 0;
    return pages;
}

int __wrap_munmap(void *at, size_t size)
{
    mapped_bytes -= whole_pages(size);
    return __real_munmap(at, size);
}

/* Taking pages away cannot fail; putting pages somewhere can. */
int __wrap_mprotect(void *at, size_t size, int protection)
{
    if (protection != PROT_NONE && fault("mprotect")) {
        errno = ENOMEM;
        return -1;
    }
    return __real_mprotect(at, size, protection);
}

#ifdef __linux__
void *__real_mremap(void *at, size_t old_size, size_t size, int flags, ...);
void *__wrap_mremap(void *at, size_t old_size, size_t size, int flags, ...);
/* getline() is an inline call of this one in optimised builds. */
ssize_t __real___getdelim(char **line, size_t *line_bytes, int end, FILE *file);
ssize_t __wrap___getdelim(char **line, size_t *line_bytes, int end, FILE *file);
ssize_t __wrap_getline(char **line, size_t *line_bytes, FILE *file);
int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
ssize_t __real_read(int file, void *out, size_t size);
ssize_t __wrap_read(int file, void *out, size_t size);
int __real_sigaction(int number, const struct sigaction *action, struct sigaction *before);
int __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *before);

void *__wrap_mremap(void *at, size_t old_size, size_t size, int flags, ...)
{
    if (fault("mremap")) {
        return MAP_FAILED;
    }
    void *place = NULL;
    if ((flags & MREMAP_FIXED) != 0) {
        va_list arguments;
        va_start(arguments, flags);
        place = va_arg(arguments, void *);
        va_end(arguments);
    }
    void *pages = __real_mremap(at, old_size, size, flags, place);
    /* What is mapped over something else takes its place. */
    mapped_bytes += pages != MAP_FAILED && place == NULL ? whole_pages(size) : 0;
    return pages;
}

/* The library's own calls of malloc are not ours; what it hands over is. */
ssize_t __wrap___getdelim(char **line, size_t *line_bytes, int end, FILE *file)
{
    const char *before = *line;
    ssize_t length = __real___getdelim(line, line_bytes, end, file);
    heap_blocks += before == NULL && *line != NULL ? 1 : 0;
    return length;
}

ssize_t __wrap_getline(char **line, size_t *line_bytes, FILE *file)
{
    return __wrap___getdelim(line, line_bytes, '\n', file);
}

/* The library makes no file, so there is no mode. */
int __wrap_open(const char *path, int flags, ...)
{
    if (fault("open")) {
        errno = EMFILE;
        return -1;
    }
    return __real_open(path, flags);
}

ssize_t __wrap_read(int file, void *out, size_t size)
{
    if (fault("read")) {
        errno = EIO;
        return -1;
    }
    return __real_read(file, out, size);
}

int __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *before)
{
    if (fault("sigaction")) {
        errno = EINVAL;
        return -1;
    }
    return __real_sigaction(number, action, before);
}
#else
kern_return_t __real_mach_vm_remap(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                                   mach_vm_offset_t mask, int flags, vm_map_t source,
                                   mach_vm_address_t source_address, boolean_t copy,
                                   vm_prot_t *protection, vm_prot_t *protection_max,
                                   vm_inherit_t inherit);
kern_return_t __wrap_mach_vm_remap(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                                   mach_vm_offset_t mask, int flags, vm_map_t source,
                                   mach_vm_address_t source_address, boolean_t copy,
                                   vm_prot_t *protection, vm_prot_t *protection_max,
                                   vm_inherit_t inherit);

kern_return_t __wrap_mach_vm_remap(vm_map_t target, mach_vm_address_t *address, mach_vm_size_t size,
                                   mach_vm_offset_t mask, int flags, vm_map_t source,
                                   mach_vm_address_t source_address, boolean_t copy,
                                   vm_prot_t *protection, vm_prot_t *protection_max,
                                   vm_inherit_t inherit)
{
    if (fault("mach_vm_remap")) {
        return KERN_NO_SPACE;
    }
    kern_return_t code =
        __real_mach_vm_remap(target, address, size, mask, flags, source, source_address, copy,
                             protection, protection_max, inherit);
    mapped_bytes += code == KERN_SUCCESS ? whole_pages(size) : 0;
    return code;
}
#endif

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                          void *argument)
{
    return fault("pthread_create") ? EAGAIN
                                   : __real_pthread_create(thread, attributes, run, argument);
}

/* ---- the scene ---- */

enum {
    RAW_BLOCKS = 8,
    SIZE = 1024,
    PIECES = 24
};

typedef struct scene {
    unsigned char *shared;  /* a segment that somebody else mapped */
    unsigned char *foreign; /* memory of somebody else */
    size_t page;
    umo_context *context;
    umo_device *device;
    umo_scope *scope;
    umo_pool *pools[UMO_STORAGE_MODES];
    umo_device *raw_device;
    umo_pool *raw_pool;
    void *raw_blocks[RAW_BLOCKS];
    umo_arena *arena;
    umo_buffer *blocks[UMO_STORAGE_MODES];
    umo_buffer *buffer;
    umo_buffer *movable;
    umo_buffer *import;
    umo_region *region;
    umo_buffer *wraps[2];
    umo_view *view;
    umo_buffer *viewed;
    umo_program *program;
    umo_kernel *kernel;
    unsigned char sent[SIZE];
    unsigned char back[SIZE];
    umo_error error;
} scene;

static void add_run(void *const *args, const size_t global[3])
{
    unsigned char *bytes = args[0];
    for (size_t i = 0; i < global[0]; i++) {
        bytes[i] = (unsigned char)(bytes[i] + 1);
    }
}

static const umo_host_kernel kernels[] = {{"add", add_run}, {NULL, NULL}};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        umo_status try_status = (call);                                                            \
        if (try_status != UMO_OK) {                                                                \
            return try_status;                                                                     \
        }                                                                                          \
    } while (0)

/* One bracket on the host; the bytes are set or compared. */
static umo_status host_use(umo_buffer *buffer, size_t offset, size_t size, umo_use use,
                           unsigned char value)
{
    const umo_access access = {
        .offset_bytes = offset, .size_bytes = size, .side = UMO_SIDE_HOST, .use = use};
    umo_fence_set waits;
    TRY(umo_access_begin(buffer, &access, &waits));
    umo_status status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (status != UMO_OK) {
        assert_int_equal(umo_access_abort(buffer, &access, (umo_fence){0}), UMO_OK);
        return status;
    }
    unsigned char *bytes = (unsigned char *)umo_buffer_host(buffer) + offset;
    if (use == UMO_WRITE) {
        memset(bytes, value, size);
    }
    for (size_t i = 0; i < size; i++) {
        assert_int_equal(bytes[i], value);
    }
    return umo_access_end(buffer, &access, (umo_fence){0});
}

/* One bracket on the device: a kernel adds one to every byte. */
static umo_status device_add(scene *s, umo_buffer *buffer, size_t offset, size_t size,
                             uint32_t queue)
{
    const umo_access access = {.offset_bytes = offset,
                               .size_bytes = size,
                               .side = UMO_SIDE_DEVICE,
                               .use = UMO_READ_WRITE,
                               .queue = queue};
    umo_fence_set waits;
    TRY(umo_access_begin(buffer, &access, &waits));
    const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY,
                                .memory = umo_buffer_memory(buffer),
                                .offset_bytes = umo_buffer_memory_offset(buffer) + offset};
    const umo_grid grid = {.dimensions = 1, .global = {size}};
    umo_fence done = {0};
    umo_status status = umo_kernel_launch(s->kernel, queue, &arg, 1, &grid, waits.fences,
                                          waits.count, &done, &s->error);
    if (status != UMO_OK) {
        /* What it was to wait for still runs. */
        umo_status_ignore(umo_fence_set_wait(&waits, UINT64_MAX));
        assert_int_equal(umo_access_abort(buffer, &access, done), UMO_OK);
        return status;
    }
    return umo_access_end(buffer, &access, done);
}

static umo_status play_pools(scene *s)
{
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        const umo_pool_options options = {
            .device = s->device, .scope = s->scope, .mode = (umo_storage_mode)mode};
        TRY(umo_pool_create(&options, &s->pools[mode], &s->error));
        for (uint64_t owner = 1; owner <= 3; owner++) {
            umo_buffer *block = NULL;
            TRY(umo_pool_alloc(s->pools[mode], SIZE, owner, &block, &s->error));
            s->blocks[mode] = block;
            TRY(host_use(block, 0, SIZE, UMO_WRITE, 7));
            TRY(device_add(s, block, 0, SIZE, 1));
            TRY(host_use(block, 0, SIZE, UMO_READ, 8));
            s->blocks[mode] = NULL;
            assert_int_equal(umo_pool_free(s->pools[mode], block), UMO_OK);
        }
    }
    return UMO_OK;
}

/* Plain memory: short and long blocks, some from holes, an arena; without test mode, so that the
 * thread's cache is used. */
static umo_status play_raw(scene *s)
{
    TRY(umo_device_open("host", 0, NULL, &s->raw_device, &s->error));
    const umo_pool_options options = {.device = s->raw_device,
                                      .scope = umo_context_scope(s->context),
                                      .idle_ns = UINT64_MAX,
                                      .keep_bytes_max = 1 << 19};
    TRY(umo_pool_create(&options, &s->raw_pool, &s->error));
    const size_t sizes[RAW_BLOCKS] = {100, 70000, 5000, 70000, 8192, 70000, 300, 200000};
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < RAW_BLOCKS; i++) {
            if (s->raw_blocks[i] == NULL) {
                TRY(umo_pool_take(s->raw_pool, sizes[i], 1 + (uint64_t)round, &s->raw_blocks[i]));
                memset(s->raw_blocks[i], i + 1, sizes[i]);
            }
        }
        for (int i = 0; i < RAW_BLOCKS; i++) {
            const unsigned char *bytes = s->raw_blocks[i];
            assert_int_equal(bytes[0], i + 1);
            assert_int_equal(bytes[sizes[i] - 1], i + 1);
        }
        for (int i = round; i < RAW_BLOCKS; i += 2 - round) {
            assert_int_equal(umo_pool_give(s->raw_pool, s->raw_blocks[i]), UMO_OK);
            s->raw_blocks[i] = NULL;
        }
        umo_pool_trim(s->raw_pool, 8192);
    }
    const umo_arena_options arena = {.pool = s->raw_pool, .first_bytes = 1000};
    TRY(umo_arena_create(&arena, &s->arena, &s->error));
    for (int i = 0; i < 4; i++) {
        void *piece = NULL;
        TRY(umo_arena_alloc(s->arena, 900, 64, &piece));
        memset(piece, 1, 900);
    }
    umo_arena_reset(s->arena);
    return UMO_OK;
}

static umo_status play_buffer(scene *s)
{
    TRY(umo_buffer_alloc(s->device, s->scope, SIZE, UMO_MANAGED, &s->buffer, &s->error));
    umo_fence fence;
    memset(s->sent, 3, SIZE);
    umo_status status = umo_buffer_upload(s->buffer, 0, s->sent, SIZE, 0, &fence);
    if (status == UMO_OK) {
        status = umo_fence_wait(fence, UINT64_MAX);
    }
    TRY(status);
    /* Many ranges at once, so that both lists grow. */
    for (size_t i = 0; i < PIECES; i++) {
        TRY(device_add(s, s->buffer, i * 40, 20, (uint32_t)(i % 4)));
    }
    for (size_t i = 0; i < PIECES; i++) {
        TRY(host_use(s->buffer, i * 40, 20, UMO_READ, 4));
        TRY(host_use(s->buffer, i * 40 + 20, 10, UMO_WRITE, 9));
        TRY(host_use(s->buffer, i * 40 + 30, 10, UMO_READ, 3));
    }
    status = umo_buffer_download(s->buffer, 0, s->back, SIZE, 2, &fence);
    if (status == UMO_OK) {
        status = umo_fence_wait(fence, UINT64_MAX);
    }
    TRY(status);
    for (size_t i = 0; i < (size_t)PIECES * 40; i++) {
        unsigned char expected = i % 40 < 20 ? 4 : i % 40 < 30 ? 9 : 3;
        assert_int_equal(s->back[i], expected);
    }
    return UMO_OK;
}

/* All of them in one bracket and one queue; done is the last one's that was queued. */
static umo_status operations_queue(scene *s, const umo_fence_set *waits, umo_fence *done)
{
    const umo_memory *m = umo_buffer_memory(s->buffer);
    const umo_piece from[] = {{m, 0, 10}, {m, 30, 10}};
    const umo_piece to[] = {{m, 700, 10}, {m, 720, 10}};
    const umo_conversion zeros = {.from = UMO_FP32,
                                  .to = UMO_UINT8,
                                  .source = m,
                                  .source_offset_bytes = 800,
                                  .target = m,
                                  .target_offset_bytes = 900,
                                  .count = 4,
                                  .scale = 1.0f,
                                  .bias = 3.0f};
    TRY(umo_device_fill(s->device, 1, m, 0, 40, "\x9", 1, waits->fences, waits->count, done,
                        &s->error));
    TRY(umo_device_gather(s->device, 1, from, 2, m, 500, NULL, 0, done, &s->error));
    TRY(umo_device_scatter(s->device, 1, m, 500, to, 2, NULL, 0, done, &s->error));
    TRY(umo_device_fill(s->device, 1, m, 800, 16, "\0\0\0", 4, NULL, 0, done, &s->error));
    return umo_device_convert(s->device, 1, &zeros, NULL, 0, done, &s->error);
}

static umo_status play_operations(scene *s)
{
    const umo_access access = {
        .size_bytes = SIZE, .side = UMO_SIDE_DEVICE, .use = UMO_READ_WRITE, .queue = 1};
    umo_fence_set waits;
    umo_fence done = {0};
    TRY(host_use(s->buffer, 0, SIZE, UMO_WRITE, 6));
    TRY(umo_access_begin(s->buffer, &access, &waits));
    umo_status status = operations_queue(s, &waits, &done);
    if (status != UMO_OK) {
        umo_status_ignore(umo_fence_set_wait(&waits, UINT64_MAX));
        assert_int_equal(umo_access_abort(s->buffer, &access, done), UMO_OK);
        return status;
    }
    TRY(umo_access_end(s->buffer, &access, done));
    TRY(host_use(s->buffer, 500, 20, UMO_READ, 9));
    TRY(host_use(s->buffer, 700, 10, UMO_READ, 9));
    TRY(host_use(s->buffer, 710, 10, UMO_READ, 6));
    TRY(host_use(s->buffer, 720, 10, UMO_READ, 9));
    return host_use(s->buffer, 900, 4, UMO_READ, 3);
}

/* A buffer on a tour through every pair of modes. */
static umo_status play_moves(scene *s)
{
    static const umo_storage_mode tour[] = {UMO_MANAGED, UMO_PRIVATE, UMO_UNIFIED, UMO_PRIVATE,
                                            UMO_MANAGED, UMO_UNIFIED, UMO_MANAGED};
    TRY(umo_buffer_alloc_movable(s->device, s->scope, SIZE, UMO_UNIFIED, &s->movable, &s->error));
    unsigned char value = 1;
    TRY(host_use(s->movable, 0, SIZE / 2, UMO_WRITE, value));
    TRY(host_use(s->movable, SIZE / 2, SIZE / 2, UMO_WRITE, value));
    for (size_t i = 0; i < sizeof tour / sizeof tour[0]; i++) {
        TRY(device_add(s, s->movable, 0, SIZE / 2, 1));
        TRY(umo_buffer_move(s->movable, tour[i], UINT64_MAX, &s->error));
        assert_int_equal(umo_buffer_mode(s->movable), tour[i]);
        TRY(device_add(s, s->movable, SIZE / 2, SIZE / 2, 2));
        value++;
        TRY(umo_buffer_prefetch(s->movable, 0, SIZE, UMO_SIDE_HOST, &s->error));
        TRY(host_use(s->movable, 0, SIZE, UMO_READ, value));
    }
    umo_fence_set waits;
    TRY(umo_buffer_pin(s->movable, &s->error));
    umo_status status = umo_buffer_export_begin(s->movable, UMO_SIDE_DEVICE, true, &waits);
    if (status == UMO_OK) {
        status = umo_fence_set_wait(&waits, UINT64_MAX);
        assert_int_equal(umo_buffer_export_end(s->movable, UMO_SIDE_DEVICE, true, (umo_fence){0}),
                         UMO_OK);
    }
    assert_int_equal(umo_buffer_unpin(s->movable), UMO_OK);
    TRY(status);
    return host_use(s->movable, 0, SIZE, UMO_READ, value);
}

static umo_status play_imports(scene *s)
{
    umo_registry *registry = umo_context_registry(s->context);
    memset(s->foreign, 1, 4 * s->page);
    const umo_import import = {.data = s->foreign + 100, .size_bytes = SIZE, .writable = true};
    umo_reason why;
    TRY(umo_buffer_import(s->device, s->scope, &import, &s->import, &why, &s->error));
    TRY(device_add(s, s->import, 0, SIZE, 0));
    TRY(host_use(s->import, 0, SIZE, UMO_READ, 2));

    TRY(umo_region_register(registry, s->foreign, 4 * s->page, true, &s->region, &s->error));
    for (int i = 0; i < 2; i++) {
        TRY(umo_registry_wrap(registry, s->device, s->scope, s->foreign + s->page, SIZE, true,
                              &s->wraps[i], &why, &s->error));
        TRY(device_add(s, s->wraps[i], 0, SIZE, 3));
        TRY(host_use(s->wraps[i], 0, SIZE, UMO_READ, (unsigned char)(2 + i)));
    }

    memset(s->shared, 5, 2 * s->page);
    umo_mapping mapping;
    TRY(umo_mapping_query(s->shared, &mapping));
    void *own = NULL;
    TRY(umo_view_find(registry, s->shared + 50, SIZE, &mapping, &own, &s->view, &s->error));
    TRY(umo_registry_wrap(registry, s->device, s->scope, own, SIZE, true, &s->viewed, &why,
                          &s->error));
    TRY(device_add(s, s->viewed, 0, SIZE, 1));
    TRY(host_use(s->viewed, 0, SIZE, UMO_READ, 6));
    assert_int_equal(s->shared[50], 6);
    assert_int_equal(s->shared[49], 5);
    (void)umo_registry_sweep(registry);
    return UMO_OK;
}

/* With a thread and without; without the sources that the kernel takes 10 ms to arm or disarm. */
static umo_status play_pressure(scene *s)
{
    for (int manual = 0; manual < 2; manual++) {
        const umo_pressure_options options = {.manual = manual != 0,
                                              .sources_off = (1u << UMO_PRESSURE_THRESHOLD) |
                                                             (1u << UMO_PRESSURE_STALL)};
        umo_pressure *pressure;
        TRY(umo_pressure_create(&options, umo_context_scope(s->context), &pressure, &s->error));
        (void)umo_pressure_poke(pressure);
        umo_pressure_destroy(pressure);
    }
    return UMO_OK;
}

static umo_status play(scene *s)
{
    const umo_context_options options = {.budget_bytes = 1 << 20,
                                         .driver = {.delay_ns = 5000, .test_mode = true}};
    TRY(umo_context_create(&options, &s->context, &s->error));
    TRY(umo_context_device(s->context, "wrapper", 0, &s->device, &s->error));
    TRY(umo_scope_create(umo_context_scope(s->context), "model", 0, &s->scope, &s->error));
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = kernels};
    TRY(umo_program_create(s->device, &source, &s->program, &s->error));
    TRY(umo_kernel_create(s->program, "add", &s->kernel, &s->error));
    TRY(play_pools(s));
    TRY(play_raw(s));
    TRY(play_buffer(s));
    TRY(play_operations(s));
    TRY(play_moves(s));
    TRY(play_pressure(s));
    return play_imports(s);
}

static void clear(scene *s)
{
    umo_kernel_destroy(s->kernel);
    umo_program_destroy(s->program);
    umo_buffer_release(s->viewed);
    umo_view_release(s->view);
    umo_buffer_release(s->wraps[0]);
    umo_buffer_release(s->wraps[1]);
    umo_region_release(s->region);
    umo_buffer_release(s->import);
    umo_buffer_release(s->movable);
    umo_buffer_release(s->buffer);
    umo_arena_destroy(s->arena);
    for (int i = 0; i < RAW_BLOCKS; i++) {
        if (s->raw_blocks[i] != NULL) {
            assert_int_equal(umo_pool_give(s->raw_pool, s->raw_blocks[i]), UMO_OK);
        }
    }
    umo_pool_destroy(s->raw_pool);
    umo_device_release(s->raw_device);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        if (s->blocks[mode] != NULL) {
            assert_int_equal(umo_pool_free(s->pools[mode], s->blocks[mode]), UMO_OK);
        }
        umo_pool_destroy(s->pools[mode]);
    }
    umo_scope_destroy(s->scope);
    umo_device_release(s->device);
    umo_scope *root = s->context != NULL ? umo_context_scope(s->context) : NULL;
    if (root != NULL) {
        umo_scope_acquire(root);
    }
    umo_context_destroy(s->context);
    if (root != NULL) {
        umo_counters c;
        umo_scope_read(root, &c);
        assert_int_equal(c.live_bytes, 0);
        assert_int_equal(c.live_buffers, 0);
        umo_scope_destroy(root);
    }
    assert_int_equal(wrapper_calls.live, 0);
}

/* Plays once; 0 means that nothing fails. Returns the scene's status. */
static umo_status run(unsigned char *shared, unsigned char *foreign, unsigned long at, bool after)
{
    scene s = {.shared = shared, .foreign = foreign, .page = umo_os_page_bytes()};
    long blocks_before = heap_blocks;
    long mapped_before = mapped_bytes;
    fail_at = at;
    fail_after = after;
    failed = false;
    calls = 0;
    armed = at != 0;
    umo_status status = play(&s);
    if (!after) {
        armed = false;
    }
    clear(&s);
    armed = false;
    if (status != UMO_OK) {
        assert_true(status == UMO_E_NOMEM || status == UMO_E_DEVICE || status == UMO_E_REFUSED ||
                    status == UMO_E_SYSTEM || status == UMO_E_INVAL || status == UMO_E_NOT_FOUND);
    }
    /* Freed buffer objects are kept for the next run; there are never fewer of them afterwards. */
    if (at != 0) {
        assert_int_equal(heap_blocks, blocks_before);
    }
    assert_int_equal(mapped_bytes, mapped_before);
    return status;
}

static void every_call_fails_once(bool after)
{
    umo_device *device = wrapper_device(NULL, NULL); /* registers the driver */
    assert_non_null(device);
    umo_device_release(device);
    wrapper = (wrapper_switches){.fails = fault};
    size_t page = pages_test_bytes();
    int file = pages_test_file(2 * page);
    assert_true(file >= 0);
    unsigned char *shared = pages_test_map(2 * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    unsigned char *foreign =
        pages_test_map(4 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(shared != MAP_FAILED && foreign != MAP_FAILED);
    assert_int_equal(run(shared, foreign, 0, false), UMO_OK);

    unsigned long at = 0;
    unsigned long survived = 0;
    for (bool more = true; more;) {
        umo_status status = run(shared, foreign, ++at, after);
        more = failed;
        if (!more) {
            assert_int_equal(status, UMO_OK);
            assert_int_equal(run(shared, foreign, 0, false), UMO_OK);
            break;
        }
        survived += status == UMO_OK ? 1 : 0;
        /* What failures left behind must not hurt the next one. */
        if (at % 8 == 0) {
            assert_int_equal(run(shared, foreign, 0, false), UMO_OK);
        }
    }
    print_message("%lu calls failed, %lu of them without an effect on the result\n", at - 1,
                  survived);
    assert_true(at > 200);
    /* Those of poison, of transfers that are made again, and of waits for what nobody needs. */
    assert_true(survived < at / 2);
    assert_int_equal(munmap(shared, 2 * page), 0);
    assert_int_equal(munmap(foreign, 4 * page), 0);
    (void)close(file);
}

static void a_single_failure_is_reported_and_leaves_nothing(void **state)
{
    (void)state;
    every_call_fails_once(false);
}

static void the_way_back_needs_nothing(void **state)
{
    (void)state;
    every_call_fails_once(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_single_failure_is_reported_and_leaves_nothing),
        cmocka_unit_test(the_way_back_needs_nothing),
    };
    return cmocka_run_group_tests_name("fault", tests, NULL, NULL);
}

/*
 * What libumo sends to Metal and computes itself, an operation: metal WHAT TIMES
 *
 *   first    memory that was never bound is imported and let go
 *   again    memory in a registered region is wrapped, as it was before
 *   request  two tensors in such a region: wrap, brackets, one launch, the wait, the host's look
 *
 * Metal is the fake of tests/fake, so messages and instructions are exact and times mean nothing.
 * Prints one JSON line; under callgrind only the measured operations are counted (bench/metal.py).
 */
#include "callgrind.h"

#include <umo/umo.h>

#include "fake_metal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum {
    BYTES = 1 << 20,
    WARM_UPS = 100
};

typedef struct bench {
    umo_context *context;
    umo_device *device;
    umo_kernel *kernel;
    unsigned char *region; /* input, then output */
    unsigned char *other;
} bench;

static umo_error error;

static void must(umo_status status, const char *what)
{
    if (status != UMO_OK) {
        (void)fprintf(stderr, "metal: %s failed: %s %s\n", what, umo_status_name(status),
                      error.text);
        exit(1);
    }
}

/* Touches what it was given, so that the wait is for something. */
static void touch(void *const *args, const size_t global[3])
{
    (void)global;
    const unsigned char *from = args[0];
    unsigned char *to = args[1];
    to[0] = (unsigned char)(from[0] + 1);
}

static const char text[] = "#include <metal_stdlib>\n"
                           "using namespace metal;\n"
                           "kernel void touch(device const uchar *from [[buffer(0)]],\n"
                           "                  device uchar *to [[buffer(1)]])\n"
                           "{\n"
                           "    to[0] = from[0] + 1;\n"
                           "}\n";

static void import_first(const bench *b)
{
    const umo_import import = {.data = b->other, .size_bytes = BYTES, .writable = true};
    umo_buffer *buffer = NULL;
    must(umo_buffer_import(b->device, umo_context_scope(b->context), &import, &buffer, NULL, NULL),
         "the import");
    umo_buffer_release(buffer);
}

static umo_buffer *wrap(const bench *b, size_t offset_bytes)
{
    umo_buffer *buffer = NULL;
    must(umo_registry_wrap(umo_context_registry(b->context), b->device,
                           umo_context_scope(b->context), b->region + offset_bytes, BYTES, true,
                           &buffer, NULL, NULL),
         "the wrap");
    return buffer;
}

static void wrap_again(const bench *b)
{
    umo_buffer_release(wrap(b, 0));
}

static void request(const bench *b)
{
    umo_buffer *tensors[2] = {wrap(b, 0), wrap(b, BYTES)};
    umo_access uses[2];
    umo_kernel_arg args[2];
    umo_fence_set waits = {0};
    umo_fence done = {0};
    for (size_t i = 0; i < 2; i++) {
        umo_fence_set own;
        uses[i] = (umo_access){
            .size_bytes = BYTES, .side = UMO_SIDE_DEVICE, .use = i == 0 ? UMO_READ : UMO_WRITE};
        must(umo_access_begin(tensors[i], &uses[i], &own), "a bracket");
        for (size_t w = 0; w < own.count; w++) {
            (void)umo_fence_set_add(&waits, own.fences[w]);
        }
        args[i] = (umo_kernel_arg){.kind = UMO_ARG_MEMORY,
                                   .memory = umo_buffer_memory(tensors[i]),
                                   .offset_bytes = umo_buffer_memory_offset(tensors[i])};
    }
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    must(umo_kernel_launch(b->kernel, 0, args, 2, &grid, waits.fences, waits.count, &done, NULL),
         "the launch");
    for (size_t i = 0; i < 2; i++) {
        must(umo_access_end(tensors[i], &uses[i], done), "a bracket's end");
    }
    const umo_access look = {.size_bytes = BYTES, .side = UMO_SIDE_HOST, .use = UMO_READ};
    must(umo_access_begin(tensors[1], &look, &waits), "the host's bracket");
    must(umo_fence_set_wait(&waits, UINT64_MAX), "the wait");
    if (b->region[BYTES] != (unsigned char)(b->region[0] + 1)) {
        (void)fprintf(stderr, "metal: the output is wrong\n");
        exit(1);
    }
    must(umo_access_end(tensors[1], &look, (umo_fence){0}), "its end");
    umo_buffer_release(tensors[0]);
    umo_buffer_release(tensors[1]);
}

static unsigned char *pages_map(size_t size_bytes)
{
    void *pages =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (pages == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    return pages;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const bench *b);
    } operations[] = {{"first", import_first}, {"again", wrap_again}, {"request", request}};
    static const fake_metal_binding bindings[] = {
        {"from", FAKE_METAL_BUFFER, 0, false, false, 1, 1},
        {"to", FAKE_METAL_BUFFER, 1, true, false, 1, 1},
    };
    const fake_metal_kernel kernel = {
        .name = "touch", .run = touch, .bindings = bindings, .binding_count = 2};
    const umo_program_source source = {
        .kind = UMO_PROGRAM_SOURCE, .text = text, .size_bytes = sizeof text - 1};
    void (*run)(const bench *b) = NULL;
    umo_program *program = NULL;
    umo_region *region = NULL;
    bench b = {0};
    for (size_t i = 0; argc == 3 && i < sizeof operations / sizeof operations[0]; i++) {
        run = strcmp(argv[1], operations[i].name) == 0 ? operations[i].run : run;
    }
    const unsigned long times = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    if (run == NULL || times == 0) {
        (void)fprintf(stderr, "usage: metal first|again|request TIMES\n");
        return 2;
    }
    fake_metal_kernel_register(&kernel);
    must(umo_context_create(NULL, &b.context, &error), "a context");
    must(umo_context_device(b.context, "metal", 0, &b.device, &error), "a device");
    must(umo_program_create(b.device, &source, &program, &error), "a program");
    must(umo_kernel_create(program, "touch", &b.kernel, &error), "a kernel");
    b.region = pages_map((size_t)2 * BYTES);
    b.other = pages_map(BYTES);
    must(umo_region_register(umo_context_registry(b.context), b.region, (size_t)2 * BYTES, true,
                             &region, NULL),
         "a region");
    for (int i = 0; i < WARM_UPS; i++) {
        run(&b);
    }
    (void)fake_metal_idle();
    fake_metal_mark();
    CALLGRIND_ZERO_STATS;
    CALLGRIND_START_INSTRUMENTATION;
    for (unsigned long i = 0; i < times; i++) {
        run(&b);
    }
    (void)fake_metal_idle();
    CALLGRIND_STOP_INSTRUMENTATION;
    CALLGRIND_DUMP_STATS_AT("measured");
    (void)printf(
        "{\"what\": \"%s\", \"messages\": %.3f, \"imports\": %.3f}\n", argv[1],
        (double)fake_metal_messages() / (double)times,
        (double)fake_metal_messages_of("newBufferWithBytesNoCopy:length:options:deallocator:") /
            (double)times);
    umo_region_release(region);
    umo_kernel_destroy(b.kernel);
    umo_program_destroy(program);
    umo_device_release(b.device);
    umo_context_destroy(b.context);
    (void)munmap(b.region, (size_t)2 * BYTES);
    (void)munmap(b.other, BYTES);
    return 0;
}

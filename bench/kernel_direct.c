/*
 * A compute kernel called directly on shared memory, as the opponent of the same kernel behind a
 * server.
 *
 * kernel_direct FILE.cl HEIGHT WIDTH: binds an image and a tensor in one shared segment, as a
 * server's client would have them, then reads numbers from standard input and answers each N with
 * one line: the microseconds of N launches, from the launch to its fence.
 */
#include <umo/umo.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void must(umo_status status, const umo_error *error)
{
    if (status != UMO_OK) {
        (void)fprintf(stderr, "kernel_direct: %s\n", error->text);
        exit(1);
    }
}

static char *file_read(const char *path, size_t *size_bytes)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    long size = ftell(file);
    char *text = malloc((size_t)size + 1);
    rewind(file);
    if (text == NULL || fread(text, 1, (size_t)size, file) != (size_t)size) {
        perror(path);
        exit(1);
    }
    (void)fclose(file);
    *size_bytes = (size_t)size;
    return text;
}

static umo_buffer *bind(umo_device *device, umo_scope *scope, char *data, size_t size_bytes)
{
    umo_error error = {0};
    umo_import import = {
        .data = data, .size_bytes = size_bytes, .writable = true, .whole_pages = true};
    umo_buffer *buffer = NULL;
    must(umo_buffer_import(device, scope, &import, &buffer, NULL, &error), &error);
    return buffer;
}

/* A number from 1 to most, or the end of the program. */
static int number(const char *text, long most)
{
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (end == text || value < 1 || value > most) {
        (void)fprintf(stderr, "kernel_direct: not a number from 1 to %ld: %s\n", most, text);
        exit(2);
    }
    return (int)value;
}

static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        (void)fprintf(stderr, "usage: kernel_direct FILE.cl HEIGHT WIDTH\n");
        return 2;
    }
    int height = number(argv[2], 100000);
    int width = number(argv[3], 100000);
    size_t image_bytes = (size_t)height * (size_t)width * 3;
    size_t tensor_bytes = image_bytes * sizeof(float);
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t tensor_offset = (image_bytes + page - 1) / page * page;

    int file = memfd_create("umo-bench", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)(tensor_offset + tensor_bytes)) != 0) {
        perror("memfd_create");
        return 1;
    }
    char *data =
        mmap(NULL, tensor_offset + tensor_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (data == MAP_FAILED) {
        perror("mmap");
        return 1;
    }
    memset(data, 1, tensor_offset + tensor_bytes);

    umo_error error = {0};
    umo_context *context = NULL;
    umo_device *device = NULL;
    must(umo_context_create(NULL, &context, &error), &error);
    must(umo_context_device(context, "opencl", 0, &device, &error), &error);
    umo_program_source source = {.kind = UMO_PROGRAM_SOURCE};
    source.text = file_read(argv[1], &source.size_bytes);
    umo_program *program = NULL;
    umo_kernel *kernel = NULL;
    must(umo_program_create(device, &source, &program, &error), &error);
    must(umo_kernel_create(program, "image_prep", &kernel, &error), &error);
    umo_buffer *image = bind(device, umo_context_scope(context), data, image_bytes);
    umo_buffer *tensor =
        bind(device, umo_context_scope(context), data + tensor_offset, tensor_bytes);

    const int32_t sizes[2] = {height, width};
    const float constants[6] = {0.485F, 0.456F, 0.406F, 0.229F, 0.224F, 0.225F};
    umo_kernel_arg args[10] = {
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(image),
         .offset_bytes = umo_buffer_memory_offset(image),
         .size_bytes = image_bytes},
        {.kind = UMO_ARG_MEMORY,
         .memory = umo_buffer_memory(tensor),
         .offset_bytes = umo_buffer_memory_offset(tensor),
         .size_bytes = tensor_bytes},
    };
    for (int i = 0; i < 8; i++) {
        args[2 + i] = (umo_kernel_arg){.kind = UMO_ARG_VALUE,
                                       .size_bytes = 4,
                                       .value = i < 2 ? (const void *)&sizes[i]
                                                      : (const void *)&constants[i - 2]};
    }
    umo_grid grid = {.dimensions = 2, .global = {(size_t)width, (size_t)height}};

    char line[64];
    while (fgets(line, sizeof line, stdin) != NULL) {
        int count = number(line, 1000000);
        for (int i = 0; i < count; i++) {
            umo_fence fence;
            double start = now_us();
            must(umo_kernel_launch(kernel, 0, args, 10, &grid, NULL, 0, &fence, &error), &error);
            must(umo_fence_wait(fence, UINT64_MAX), &error);
            (void)printf("%.1f ", now_us() - start);
        }
        (void)printf("\n");
        (void)fflush(stdout);
    }
    umo_buffer_release(image);
    umo_buffer_release(tensor);
    umo_kernel_destroy(kernel);
    umo_program_destroy(program);
    umo_device_release(device);
    umo_context_destroy(context);
    free((void *)(uintptr_t)source.text);
    return 0;
}

/*
 * A driver for a device that does not exist: memory of its own, which the host reaches by transfers
 * alone. It is the smallest one that passes the contract suite, and where to start a real one: put
 * the calls of your API where this one has malloc, memcpy and a call of a function.
 *
 * One decision makes it small: its commands are done when they return, so every fence is {0}, which
 * has always passed. A device that works later counts its commands up instead (src/driver/host).
 */
#include <umo/driver.h>

#include <stdlib.h>
#include <string.h>

#define TWIN_QUEUES 4u /* the contract suite uses as many */

static umo_status twin_count(uint32_t *out, umo_error *error)
{
    (void)error; /* where a system library is missing: NOT_FOUND, with what to install */
    *out = 1;
    return UMO_OK;
}

/* A bit promises a whole group of functions; the registry looks that they are there. */
static umo_status twin_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                            umo_device_info *out_info, umo_error *error)
{
    (void)ordinal; /* below what count said */
    (void)options;
    (void)error;
    *out_info = (umo_device_info){
        .name = "a twin of the host's memory",
        .driver = "twin",
        .caps = UMO_CAP_PRIVATE | UMO_CAP_KERNELS,
        .queues = TWIN_QUEUES,
        .import_align_bytes = 1,
        .import_size_align_bytes = 1,
        .write_granule_bytes = 1,
        .alloc_align_bytes = 64,
        .buffer_max_bytes = (uint64_t)1 << 40,
        .language = UMO_LANGUAGE_HOST,
        .unified = false,
    };
    *out_state = NULL;
    return UMO_OK;
}

static void twin_close(void *state)
{
    (void)state; /* waits for the queues, where there are any */
}

/* PRIVATE: no host address. Whoever wants the bytes on the host asks for a transfer. */
static umo_status twin_alloc(void *state, size_t size_bytes, umo_storage_mode mode, umo_memory *out,
                             umo_error *error)
{
    (void)state;
    void *native = NULL;
    if (posix_memalign(&native, 64, size_bytes) != 0) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for %zu bytes", size_bytes);
    }
    *out = (umo_memory){.native = native, .size_bytes = size_bytes, .mode = mode};
    return UMO_OK;
}

static void twin_free(void *state, umo_memory *memory)
{
    (void)state;
    free(memory->native);
}

static char *at(const umo_memory *memory, size_t offset_bytes)
{
    return (char *)memory->native + memory->offset_bytes + offset_bytes;
}

static umo_status twin_transfer(void *state, uint32_t queue, umo_memory *memory, umo_side to,
                                size_t offset_bytes, size_t size_bytes, void *host,
                                const umo_fence *waits, size_t wait_count, umo_fence *out)
{
    (void)state;
    (void)waits; /* fences of this device, which have all passed */
    (void)wait_count;
    char *device = at(memory, offset_bytes);
    memcpy(to == UMO_SIDE_DEVICE ? device : host, to == UMO_SIDE_DEVICE ? host : device,
           size_bytes);
    *out = (umo_fence){.queue = queue};
    return UMO_OK;
}

static umo_status twin_copy(void *state, uint32_t queue, const umo_memory *source,
                            size_t source_offset_bytes, umo_memory *target,
                            size_t target_offset_bytes, size_t size_bytes, const umo_fence *waits,
                            size_t wait_count, umo_fence *out)
{
    (void)state;
    (void)waits;
    (void)wait_count;
    memcpy(at(target, target_offset_bytes), at(source, source_offset_bytes), size_bytes);
    *out = (umo_fence){.queue = queue};
    return UMO_OK;
}

static bool twin_fence_done(void *state, uint32_t queue, uint64_t value)
{
    (void)state;
    (void)queue;
    return value == 0;
}

static umo_status twin_fence_wait(void *state, uint32_t queue, uint64_t value, uint64_t timeout_ns)
{
    (void)timeout_ns;
    return twin_fence_done(state, queue, value) ? UMO_OK : UMO_E_TIMEOUT;
}

/* Its programs are tables of C functions; a real driver hands text to its compiler here, and the
 * compiler's own words to the error. */
static umo_status twin_program_create(void *state, const umo_program_source *source, void **out,
                                      umo_error *error)
{
    (void)state;
    if (source->kind != UMO_PROGRAM_HOST) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "driver twin compiles nothing: it takes a table of C functions");
    }
    *out = (void *)(uintptr_t)source->text;
    return UMO_OK;
}

static void twin_program_destroy(void *state, void *program)
{
    (void)state;
    (void)program;
}

static umo_status twin_kernel_create(void *state, void *program, const char *name, void **out,
                                     umo_error *error)
{
    (void)state;
    for (umo_host_kernel *kernel = program; kernel->name != NULL; kernel++) {
        if (strcmp(kernel->name, name) == 0) {
            *out = kernel;
            return UMO_OK;
        }
    }
    return umo_error_set(error, UMO_E_NOT_FOUND, 0, "the program has no kernel '%s'", name);
}

static void twin_kernel_destroy(void *state, void *kernel)
{
    (void)state;
    (void)kernel;
}

static umo_status twin_kernel_launch(void *state, uint32_t queue, void *opaque,
                                     const umo_kernel_arg *args, size_t arg_count,
                                     const umo_grid *grid, const umo_fence *waits,
                                     size_t wait_count, umo_fence *out, umo_error *error)
{
    (void)state;
    (void)waits;
    (void)wait_count;
    const umo_host_kernel *kernel = opaque;
    void *places[UMO_KERNEL_ARGS_MAX] = {NULL};
    for (size_t i = 0; i < arg_count; i++) {
        if (args[i].kind == UMO_ARG_LOCAL) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': there is no local memory",
                                 kernel->name);
        }
        if (args[i].kind == UMO_ARG_MEMORY ? args[i].memory == NULL : args[i].value == NULL) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': argument %zu is empty",
                                 kernel->name, i);
        }
        places[i] = args[i].kind == UMO_ARG_MEMORY ? at(args[i].memory, args[i].offset_bytes)
                                                   : (void *)(uintptr_t)args[i].value;
    }
    size_t global[3] = {1, 1, 1};
    memcpy(global, grid->global, grid->dimensions * sizeof *global);
    kernel->run(places, global);
    *out = (umo_fence){.queue = queue};
    return UMO_OK;
}

/* What the library that holds it hands to umo_driver_register(). */
extern const umo_driver umo_driver_table;
__attribute__((visibility("default"))) const umo_driver umo_driver_table = {
    .abi = UMO_DRIVER_ABI,
    .size_bytes = sizeof(umo_driver),
    .name = "twin",
    .count = twin_count,
    .open = twin_open,
    .close = twin_close,
    .alloc = twin_alloc,
    .free = twin_free,
    .transfer = twin_transfer,
    .copy = twin_copy,
    .fence_done = twin_fence_done,
    .fence_wait = twin_fence_wait,
    .program_create = twin_program_create,
    .program_destroy = twin_program_destroy,
    .kernel_create = twin_kernel_create,
    .kernel_destroy = twin_kernel_destroy,
    .kernel_launch = twin_kernel_launch,
};

/*
 * Programs and kernels of the OpenCL driver.
 *
 * A cl_kernel carries its arguments, so two threads cannot prepare launches on one. A umo kernel is
 * therefore a name and a small stock of equal cl_kernels: a launch takes one out, or makes one, and
 * puts it back once the command is queued, because queueing captures the arguments.
 */
#include "driver/opencl/opencl_state.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kept for the next launches: as many as threads that launch one kernel at the same moment, seldom
 * more. */
#define KERNEL_STOCK 16u

/* Makes the compiler keep what each argument is, so that a wrong one is refused instead of misread.
 */
#define BUILD_OPTIONS "-cl-kernel-arg-info"

#define KIND_UNKNOWN (-1)

typedef struct program {
    cl_program native;
} program;

typedef struct kernel {
    program *owner;
    char *name;
    cl_uint arg_count;
    int arg_kinds[UMO_KERNEL_ARGS_MAX]; /* umo_kernel_arg_kind or KIND_UNKNOWN */
    pthread_mutex_t lock;               /* stock and stock_count only */
    cl_kernel stock[KERNEL_STOCK];
    size_t stock_count;
} kernel;

/*
 * A log in one line: from the first line that names an error, blanks joined, directories cut from
 * the compiler's temporary file names, since a log begins with a long one and the error's text
 * holds little.
 */
static void log_condense(const char *log, char *out, size_t out_bytes)
{
    const char *found = strstr(log, "error");
    if (found != NULL) {
        while (found > log && found[-1] != '\n') {
            found--;
        }
        log = found;
    }
    size_t length = 0;
    size_t word = 0;   /* where the current word began in out */
    bool path = false; /* the current word began with a directory */
    for (char last = ' '; *log != '\0' && length + 1 < out_bytes; last = *log++) {
        if (isspace((unsigned char)*log)) {
            if (length > 0 && out[length - 1] != ' ') {
                out[length++] = ' ';
            }
            continue;
        }
        if (isspace((unsigned char)last)) {
            word = length;
            path = *log == '/' && (isalnum((unsigned char)log[1]) || log[1] == '.');
        }
        if (path && *log == '/') {
            length = word;
        } else {
            out[length++] = *log;
        }
    }
    out[length > 0 && out[length - 1] == ' ' ? length - 1 : length] = '\0';
}

static umo_status build_failed(const umo_opencl_state *state, cl_program native, cl_int code,
                               umo_error *error)
{
    const umo_opencl_api *api = state->api;
    char text[UMO_ERROR_TEXT_BYTES] = "";
    size_t log_bytes = 0;
    char *log = NULL;
    if (api->clGetProgramBuildInfo(native, state->device, CL_PROGRAM_BUILD_LOG, 0, NULL,
                                   &log_bytes) == CL_SUCCESS &&
        log_bytes > 0) {
        log = calloc(log_bytes + 1, 1);
    }
    if (log != NULL && api->clGetProgramBuildInfo(native, state->device, CL_PROGRAM_BUILD_LOG,
                                                  log_bytes, log, NULL) == CL_SUCCESS) {
        log_condense(log, text, sizeof text);
    }
    free(log);
    umo_status status = umo_opencl_code_status(code);
    if (text[0] == '\0') {
        return umo_error_set(error, status, code, "the program does not build: %s (%d)",
                             umo_opencl_code_name(code), code);
    }
    return umo_error_set(error, status, code, "the program does not build: %s", text);
}

umo_status umo_opencl_program_create(void *opaque, const umo_program_source *source, void **out,
                                     umo_error *error)
{
    const umo_opencl_state *state = opaque;
    const umo_opencl_api *api = state->api;
    if (source->kind != UMO_PROGRAM_SOURCE) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the opencl driver builds programs from OpenCL C text only");
    }
    if (source->text == NULL || source->size_bytes == 0) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the program is empty");
    }
    const char *given = source->options != NULL ? source->options : "";
    size_t options_bytes = strlen(given) + sizeof " " BUILD_OPTIONS;
    char *options = malloc(options_bytes);
    program *made = calloc(1, sizeof *made);
    umo_status status = UMO_OK;
    if (options == NULL || made == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for a program");
        goto fail;
    }
    (void)snprintf(options, options_bytes, "%s " BUILD_OPTIONS, given);

    const char *text = source->text;
    cl_int code = CL_SUCCESS;
    made->native =
        api->clCreateProgramWithSource(state->context, 1, &text, &source->size_bytes, &code);
    if (made->native == NULL) {
        status = umo_error_set(error, umo_opencl_code_status(code), code, "no program: %s (%d)",
                               umo_opencl_code_name(code), code);
        goto fail;
    }
    code = api->clBuildProgram(made->native, 1, &state->device, options, NULL, NULL);
    if (code != CL_SUCCESS) {
        status = build_failed(state, made->native, code, error);
        goto fail;
    }
    free(options);
    *out = made;
    return UMO_OK;

fail:
    free(options);
    umo_opencl_program_destroy(opaque, made);
    return status;
}

void umo_opencl_program_destroy(void *opaque, void *opaque_program)
{
    const umo_opencl_state *state = opaque;
    program *old = opaque_program;
    if (old != NULL && old->native != NULL) {
        (void)state->api->clReleaseProgram(old->native);
    }
    free(old);
}

/* What an argument is, where the runtime tells. */
static int arg_kind(const umo_opencl_api *api, cl_kernel native, cl_uint index)
{
    cl_kernel_arg_address_qualifier space = 0;
    if (api->clGetKernelArgInfo(native, index, CL_KERNEL_ARG_ADDRESS_QUALIFIER, sizeof space,
                                &space, NULL) != CL_SUCCESS) {
        return KIND_UNKNOWN;
    }
    switch (space) {
    case CL_KERNEL_ARG_ADDRESS_GLOBAL:
    case CL_KERNEL_ARG_ADDRESS_CONSTANT:
        return UMO_ARG_MEMORY;
    case CL_KERNEL_ARG_ADDRESS_LOCAL:
        return UMO_ARG_LOCAL;
    case CL_KERNEL_ARG_ADDRESS_PRIVATE:
        return UMO_ARG_VALUE;
    default:
        return KIND_UNKNOWN;
    }
}

umo_status umo_opencl_kernel_create(void *opaque, void *opaque_program, const char *name,
                                    void **out, umo_error *error)
{
    const umo_opencl_state *state = opaque;
    const umo_opencl_api *api = state->api;
    program *owner = opaque_program;
    cl_int code = CL_SUCCESS;
    cl_kernel native = api->clCreateKernel(owner->native, name, &code);
    if (native == NULL) {
        if (code == CL_INVALID_KERNEL_NAME) {
            return umo_error_set(error, UMO_E_NOT_FOUND, code, "the program has no kernel '%s'",
                                 name);
        }
        return umo_error_set(error, umo_opencl_code_status(code), code, "kernel '%s': %s (%d)",
                             name, umo_opencl_code_name(code), code);
    }
    umo_status status = UMO_OK;
    size_t name_bytes = strlen(name) + 1;
    kernel *made = calloc(1, sizeof *made);
    if (made == NULL || (made->name = malloc(name_bytes)) == NULL) {
        status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory for kernel '%s'", name);
        goto fail;
    }
    memcpy(made->name, name, name_bytes);
    code = api->clGetKernelInfo(native, CL_KERNEL_NUM_ARGS, sizeof made->arg_count,
                                &made->arg_count, NULL);
    if (code != CL_SUCCESS) {
        status = umo_error_set(error, umo_opencl_code_status(code), code, "kernel '%s': %s (%d)",
                               name, umo_opencl_code_name(code), code);
        goto fail;
    }
    if (made->arg_count > UMO_KERNEL_ARGS_MAX) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "kernel '%s' takes %u arguments; at most %u are possible", name,
                               made->arg_count, UMO_KERNEL_ARGS_MAX);
        goto fail;
    }
    for (cl_uint i = 0; i < made->arg_count; i++) {
        made->arg_kinds[i] = arg_kind(api, native, i);
    }
    made->owner = owner;
    made->stock[0] = native;
    made->stock_count = 1;
    (void)pthread_mutex_init(&made->lock, NULL);
    *out = made;
    return UMO_OK;

fail:
    if (made != NULL) {
        free(made->name);
        free(made);
    }
    (void)api->clReleaseKernel(native);
    return status;
}

void umo_opencl_kernel_destroy(void *opaque, void *opaque_kernel)
{
    const umo_opencl_state *state = opaque;
    kernel *old = opaque_kernel;
    for (size_t i = 0; i < old->stock_count; i++) {
        (void)state->api->clReleaseKernel(old->stock[i]);
    }
    (void)pthread_mutex_destroy(&old->lock);
    free(old->name);
    free(old);
}

/* A cl_kernel that nobody else uses now. */
static cl_kernel stock_take(const umo_opencl_api *api, kernel *from, cl_int *code)
{
    cl_kernel native = NULL;
    (void)pthread_mutex_lock(&from->lock);
    if (from->stock_count > 0) {
        native = from->stock[--from->stock_count];
    }
    (void)pthread_mutex_unlock(&from->lock);
    return native != NULL ? native : api->clCreateKernel(from->owner->native, from->name, code);
}

static void stock_put(const umo_opencl_api *api, kernel *to, cl_kernel native)
{
    (void)pthread_mutex_lock(&to->lock);
    if (to->stock_count < KERNEL_STOCK) {
        to->stock[to->stock_count++] = native;
        native = NULL;
    }
    (void)pthread_mutex_unlock(&to->lock);
    if (native != NULL) {
        (void)api->clReleaseKernel(native);
    }
}

static const char *kind_name(int kind)
{
    switch (kind) {
    case UMO_ARG_MEMORY:
        return "memory";
    case UMO_ARG_VALUE:
        return "a value";
    default:
        return "work-group memory";
    }
}

static umo_status args_check(const kernel *called, const umo_kernel_arg *args, size_t arg_count,
                             umo_error *error)
{
    if (arg_count != called->arg_count) {
        return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s' takes %u argument(s), not %zu",
                             called->name, called->arg_count, arg_count);
    }
    for (size_t i = 0; i < arg_count; i++) {
        const umo_kernel_arg *arg = &args[i];
        if (called->arg_kinds[i] != KIND_UNKNOWN && (int)arg->kind != called->arg_kinds[i]) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': argument %zu is %s, not %s",
                                 called->name, i, kind_name(called->arg_kinds[i]),
                                 kind_name((int)arg->kind));
        }
        bool empty = arg->kind == UMO_ARG_MEMORY  ? arg->memory == NULL
                     : arg->kind == UMO_ARG_VALUE ? arg->value == NULL || arg->size_bytes == 0
                                                  : arg->size_bytes == 0;
        if (empty) {
            return umo_error_set(error, UMO_E_INVAL, 0, "kernel '%s': argument %zu is empty",
                                 called->name, i);
        }
        if (arg->kind == UMO_ARG_MEMORY && arg->offset_bytes >= arg->memory->size_bytes) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "kernel '%s': argument %zu starts at byte %zu of %zu",
                                 called->name, i, arg->offset_bytes, arg->memory->size_bytes);
        }
    }
    return UMO_OK;
}

/*
 * The cl_mem that starts at the argument's first byte: the memory's own, or, in *part, a new one
 * for this launch.
 *
 * OpenCL binds objects, not addresses, and a sub-buffer starts only at multiples of the device's
 * base alignment (128 bytes on PoCL, up to 4096 elsewhere). Where the device reaches host memory at
 * any address, the bytes are wrapped again from the offset on, which has no such limit. Elsewhere
 * another offset is INVAL: import the range itself, or place it at a multiple.
 */
static umo_status arg_bind(const umo_opencl_state *state, const kernel *called, size_t index,
                           const umo_kernel_arg *arg, cl_mem *bound, cl_mem *part, umo_error *error)
{
    const umo_memory *memory = arg->memory;
    size_t origin = memory->offset_bytes + arg->offset_bytes;
    if (origin == 0) {
        *bound = memory->native;
        return UMO_OK;
    }
    cl_int code = CL_SUCCESS;
    size_t size = memory->size_bytes - arg->offset_bytes;
    if (origin % state->origin_align_bytes == 0) {
        cl_buffer_region region = {.origin = origin, .size = size};
        *part = state->api->clCreateSubBuffer(memory->native, 0, CL_BUFFER_CREATE_TYPE_REGION,
                                              &region, &code);
    } else if (memory->mode == UMO_UNIFIED && (state->caps & UMO_CAP_COHERENT) != 0 &&
               state->import_align_bytes == 1) {
        *part = state->api->clCreateBuffer(state->context, CL_MEM_USE_HOST_PTR, size,
                                           (char *)memory->host + arg->offset_bytes, &code);
    } else {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s': argument %zu starts at byte %zu, which is no multiple "
                             "of the device's %zu: import the range itself",
                             called->name, index, origin, state->origin_align_bytes);
    }
    if (*part == NULL) {
        return umo_error_set(error, umo_opencl_code_status(code), code,
                             "kernel '%s': argument %zu: %s (%d)", called->name, index,
                             umo_opencl_code_name(code), code);
    }
    *bound = *part;
    return UMO_OK;
}

static umo_status arg_set(const umo_opencl_state *state, const kernel *called, cl_kernel native,
                          size_t index, const umo_kernel_arg *arg, cl_mem *part, umo_error *error)
{
    cl_mem bound = NULL;
    size_t size_bytes = arg->size_bytes;
    const void *value = arg->kind == UMO_ARG_VALUE ? arg->value : NULL;
    if (arg->kind == UMO_ARG_MEMORY) {
        umo_status status = arg_bind(state, called, index, arg, &bound, part, error);
        if (status != UMO_OK) {
            return status;
        }
        value = &bound;
        size_bytes = sizeof bound;
    }
    cl_int code = state->api->clSetKernelArg(native, (cl_uint)index, size_bytes, value);
    if (code != CL_SUCCESS) {
        return umo_error_set(error, umo_opencl_code_status(code), code,
                             "kernel '%s': argument %zu (%s, %zu bytes): %s (%d)", called->name,
                             index, kind_name((int)arg->kind), size_bytes,
                             umo_opencl_code_name(code), code);
    }
    return UMO_OK;
}

/* The local size to pass: NULL when the runtime chooses. False when some dimensions are given and
 * some are 0. */
static bool grid_local(const umo_grid *grid, const size_t **local)
{
    uint32_t given = 0;
    for (uint32_t d = 0; d < grid->dimensions; d++) {
        given += grid->local[d] != 0;
    }
    *local = given == 0 ? NULL : grid->local;
    return given == 0 || given == grid->dimensions;
}

umo_status umo_opencl_kernel_launch(void *opaque, uint32_t queue, void *opaque_kernel,
                                    const umo_kernel_arg *args, size_t arg_count,
                                    const umo_grid *grid, const umo_fence *waits, size_t wait_count,
                                    umo_fence *out, umo_error *error)
{
    umo_opencl_state *state = opaque;
    const umo_opencl_api *api = state->api;
    kernel *called = opaque_kernel;
    const size_t *local = NULL;
    cl_mem parts[UMO_KERNEL_ARGS_MAX] = {NULL};
    umo_status status = args_check(called, args, arg_count, error);
    if (status != UMO_OK) {
        return status;
    }
    if (!grid_local(grid, &local)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "kernel '%s': a local size is given in all dimensions or in none",
                             called->name);
    }
    cl_int code = CL_SUCCESS;
    cl_kernel native = stock_take(api, called, &code);
    if (native == NULL) {
        return umo_error_set(error, umo_opencl_code_status(code), code, "kernel '%s': %s (%d)",
                             called->name, umo_opencl_code_name(code), code);
    }
    for (size_t i = 0; i < arg_count && status == UMO_OK; i++) {
        status = arg_set(state, called, native, i, &args[i], &parts[i], error);
    }
    if (status != UMO_OK) {
        goto done;
    }
    umo_opencl_command command;
    status = umo_opencl_command_begin(state, queue, waits, wait_count, &command);
    if (status != UMO_OK) {
        (void)umo_error_set(error, status, 0, "kernel '%s': what it waits for failed or is unknown",
                            called->name);
        goto done;
    }
    code = api->clEnqueueNDRangeKernel(command.queue->native, native, grid->dimensions, NULL,
                                       grid->global, local, command.wait_count, command.waits,
                                       &command.event);
    status = umo_opencl_command_end(&command, code, out);
    if (status != UMO_OK) {
        (void)umo_error_set(error, status, code, "kernel '%s': %s (%d)", called->name,
                            umo_opencl_code_name(code), code);
    }

done:
    /* The queued command holds what it needs. */
    for (size_t i = 0; i < arg_count; i++) {
        if (parts[i] != NULL) {
            (void)api->clReleaseMemObject(parts[i]);
        }
    }
    stock_put(api, called, native);
    return status;
}

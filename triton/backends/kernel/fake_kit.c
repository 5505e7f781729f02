/*
 * The kit's functions that the backend calls, over plain structs.
 */
#include "fake_kit.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

umo_io *umo_model_inputs(umo_model *model, size_t *count)
{
    *count = FAKE_INPUTS;
    return model->inputs;
}

umo_io *umo_model_outputs(umo_model *model, size_t *count)
{
    *count = 1;
    return model->outputs;
}

const umo_unified_config *umo_model_unified(const umo_model *model)
{
    return &model->unified;
}

const char *umo_model_parameter(const umo_model *model, const char *key)
{
    return strcmp(key, "kernel") == 0 ? model->kernel : strcmp(key, "k") == 0 ? model->k : NULL;
}

const char *umo_model_file(const umo_model *model, const char *fallback)
{
    (void)model;
    return fallback;
}

const char *umo_model_path(const umo_model *model)
{
    return model->path;
}

uint64_t umo_model_version(const umo_model *model)
{
    (void)model;
    return 1;
}

int64_t umo_model_batch_max(const umo_model *model)
{
    return model->batch_max;
}

umo_context *umo_model_context(umo_model *model)
{
    return model->context;
}

umo_scope *umo_model_scope(umo_model *model)
{
    return umo_context_scope(model->context);
}

void umo_model_log(const umo_model *model, bool warning, const char *format, ...)
{
    umo_model *mine = (umo_model *)(uintptr_t)model;
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(mine->warning, sizeof mine->warning, format, arguments);
    va_end(arguments);
    mine->warnings += warning;
}

void umo_instance_set_device(umo_instance *instance, umo_device *device, uint32_t queue)
{
    instance->device = device;
    instance->queue = queue;
}

umo_model *umo_instance_model(const umo_instance *instance)
{
    return instance->model;
}

int32_t umo_instance_node(const umo_instance *instance)
{
    return instance->placed ? instance->node : UMO_NUMA_ANY;
}

umo_status umo_instance_pool_create(const umo_instance *instance, const umo_pool_options *options,
                                    umo_pool **out, umo_error *error)
{
    ((umo_instance *)(uintptr_t)instance)->pools += 1;
    return umo_pool_create(options, out, error);
}

int64_t umo_batch_rows(const umo_batch *batch)
{
    return batch->rows;
}

bool umo_batch_has_input(const umo_batch *batch, size_t input)
{
    return !batch->absent[input];
}

umo_status umo_batch_input(umo_batch *batch, size_t input, umo_tensor *out, umo_error *error)
{
    (void)error;
    *out = batch->inputs[input];
    return UMO_OK;
}

umo_status umo_batch_output(umo_batch *batch, size_t output, umo_dtype dtype,
                            const umo_shape *shape, umo_tensor *out, umo_error *error)
{
    (void)error;
    assert_int_equal(output, 0);
    assert_int_equal(dtype, UMO_FP32);
    uint64_t bytes = 0;
    assert_int_equal(umo_shape_bytes(shape, dtype, &bytes), UMO_OK);
    batch->output.shape = *shape;
    batch->output.size_bytes = (size_t)bytes;
    *out = batch->output;
    return UMO_OK;
}

const umo_fence_set *umo_batch_waits(const umo_batch *batch)
{
    return &batch->waits;
}

void umo_batch_complete(umo_batch *batch, umo_fence fence)
{
    batch->done = fence;
}

void fake_model_write(const umo_model *model, const char *file, const void *bytes,
                      size_t size_bytes)
{
    char path[128];
    (void)snprintf(path, sizeof path, "%s/%s", model->path, file);
    (void)unlink(path);
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(bytes, 1, size_bytes, out), size_bytes);
    assert_int_equal(fclose(out), 0);
}

void fake_model_weights(const umo_model *model, size_t size_bytes)
{
    char bytes[256];
    memset(bytes, 7, sizeof bytes);
    fake_model_write(model, "w.bin", bytes, size_bytes);
}

void fake_model_setup(umo_model *model, int64_t dims, const char *kernel, size_t arg_count)
{
    static const char program[] = "text of the program";
    *model = (umo_model){
        .unified = {.enable = true, .driver = FAKE_DRIVER},
        .kernel = kernel,
        .inputs = {{.name = "A", .dtype = UMO_FP32, .dims = {1, {dims}}, .align_bytes = 1},
                   {.name = "B", .dtype = UMO_INT32, .dims = {1, {dims}}, .control = true}},
        .outputs = {{.name = "Y", .dtype = UMO_FP32, .dims = {1, {dims < 0 ? -1 : 2 * dims}}}},
    };
    fake_device_register();
    fake_device_reset(arg_count);
    assert_int_equal(fake.live, 0);
    assert_int_equal(umo_context_create(NULL, &model->context, NULL), UMO_OK);
    (void)snprintf(model->path, sizeof model->path, "kernel_test_XXXXXX");
    assert_non_null(mkdtemp(model->path));
    fake_model_write(model, "test.fake", program, sizeof program - 1);
}

void fake_model_teardown(umo_model *model)
{
    DIR *folder = opendir(model->path);
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry != NULL; entry = readdir(folder)) {
        char path[384];
        (void)snprintf(path, sizeof path, "%s/%s", model->path, entry->d_name);
        (void)unlink(path);
    }
    (void)closedir(folder);
    assert_int_equal(rmdir(model->path), 0);
    umo_context_destroy(model->context);
    assert_int_equal(fake.live, 0);
}

void *fake_model_start(umo_model *model)
{
    void *state = NULL;
    umo_error error = {0};
    if (umo_backend_table.model_init(model, &state, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return state;
}

umo_buffer *fake_buffer(const umo_instance *instance, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(instance->device, umo_context_scope(instance->model->context),
                                      size_bytes, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    return buffer;
}

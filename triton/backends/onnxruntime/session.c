/* Makes sessions and asks them what they take and give.
 *
 * The description is copied out of ONNX Runtime once, so that nothing later depends on how long its
 * own strings live. */
#include "session.h"

#include "tensor.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    PATH_BYTES = 4096
};

static umo_status apply_threads(const ort_runtime *runtime, const ort_options *options,
                                ort_session_options *target, umo_error *error)
{
    const ort_api *api = &runtime->api;
    if (runtime->global_threads) {
        return ort_check(api, api->disable_session_threads(target), "use the global thread pool",
                         error);
    }
    umo_status status = UMO_OK;
    if (options->intra_op_threads != ORT_UNSET) {
        status = ort_check(api, api->set_intra_op_threads(target, options->intra_op_threads),
                           "set intra_op_thread_count", error);
    }
    if (status == UMO_OK && options->inter_op_threads != ORT_UNSET) {
        status = ort_check(api, api->set_inter_op_threads(target, options->inter_op_threads),
                           "set inter_op_thread_count", error);
    }
    return status;
}

static umo_status apply_memory(const ort_api *api, const ort_options *options,
                               ort_session_options *target, umo_error *error)
{
    umo_status status = UMO_OK;
    if (options->mem_arena != ORT_UNSET) {
        status = ort_check(api,
                           options->mem_arena != 0 ? api->enable_mem_arena(target)
                                                   : api->disable_mem_arena(target),
                           "set enable_mem_arena", error);
    }
    if (status == UMO_OK && options->mem_pattern != ORT_UNSET) {
        status = ort_check(api,
                           options->mem_pattern != 0 ? api->enable_mem_pattern(target)
                                                     : api->disable_mem_pattern(target),
                           "set enable_mem_pattern", error);
    }
    return status;
}

static umo_status apply_entries(const ort_api *api, const ort_options *options,
                                ort_session_options *target, umo_error *error)
{
    const char *key;
    const char *value;
    for (size_t i = 0; ort_options_session_config(options, i, &key, &value); i++) {
        char doing[128];
        (void)snprintf(doing, sizeof doing, "set session_config.%s", key);
        umo_status status =
            ort_check(api, api->add_session_config(target, key, value), doing, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status apply_op_libraries(const ort_api *api, const ort_options *options,
                                     const char *folder, ort_session_options *target,
                                     umo_error *error)
{
    const char *name;
    for (size_t i = 0; (name = ort_options_op_library(options, i)) != NULL; i++) {
        char path[PATH_BYTES];
        char doing[256];
        int length = name[0] == '/' ? snprintf(path, sizeof path, "%s", name)
                                    : snprintf(path, sizeof path, "%s/%s", folder, name);
        if (length < 0 || (size_t)length >= sizeof path) {
            return umo_error_set(error, UMO_E_INVAL, 0, "the path of op library %s is too long",
                                 name);
        }
        (void)snprintf(doing, sizeof doing, "load op library %s", name);
        umo_status status = ort_check(api, api->register_custom_ops(target, path), doing, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    return UMO_OK;
}

static umo_status apply(const ort_runtime *runtime, const ort_options *options, const char *folder,
                        ort_session_options *target, umo_error *error)
{
    const ort_api *api = &runtime->api;
    umo_status status = ort_check(api, api->set_graph_optimization(target, options->graph_level),
                                  "set optimization.graph.level", error);
    if (status == UMO_OK && options->execution_mode != ORT_UNSET) {
        status = ort_check(api, api->set_execution_mode(target, options->execution_mode),
                           "set execution_mode", error);
    }
    if (status == UMO_OK) {
        status = ort_check(api, api->set_log_severity(target, ORT_LOG_ERROR), "set its log level",
                           error);
    }
    if (status == UMO_OK) {
        status = apply_threads(runtime, options, target, error);
    }
    if (status == UMO_OK) {
        status = apply_memory(api, options, target, error);
    }
    if (status == UMO_OK) {
        status = apply_entries(api, options, target, error);
    }
    if (status == UMO_OK) {
        status = apply_op_libraries(api, options, folder, target, error);
    }
    return status;
}

static umo_status apply_weights(const ort_api *api, const ort_session_source *source,
                                ort_session_options *target, umo_error *error)
{
    umo_status status = UMO_OK;
    if (source->pooled) {
        status = ort_check(api, api->add_session_config(target, "session.use_env_allocators", "1"),
                           "use umo's pools", error);
    }
    for (size_t i = 0; status == UMO_OK && i < source->weight_count; i++) {
        status = ort_check(
            api, api->add_initializer(target, source->weight_names[i], source->weights[i]),
            "use a weight in place", error);
    }
    return status;
}

umo_status ort_session_create(const ort_runtime *runtime, const ort_options *options,
                              const ort_session_source *source, ort_session **out, umo_error *error)
{
    const ort_api *api = &runtime->api;
    const char *path = source->path;
    ort_session_options *target = NULL;
    umo_status status =
        ort_check(api, api->create_session_options(&target), "make session options", error);
    if (status == UMO_OK) {
        status = apply(runtime, options, source->folder, target, error);
    }
    if (status == UMO_OK) {
        status = apply_weights(api, source, target, error);
    }
    if (status == UMO_OK) {
        const char *slash = strrchr(path, '/');
        char doing[128];
        (void)snprintf(doing, sizeof doing, "load %s", slash != NULL ? slash + 1 : path);
        status = ort_check(
            api,
            source->prepacked != NULL
                ? api->create_session_prepacked(runtime->env, path, target, source->prepacked, out)
                : api->create_session(runtime->env, path, target, out),
            doing, error);
    }
    if (target != NULL) {
        api->release_session_options(target);
    }
    return status;
}

static umo_status copy_symbols(const ort_api *api, const ort_tensor_info *info, ort_spec *spec,
                               umo_error *error)
{
    const char *symbols[UMO_RANK_MAX] = {0};
    umo_status status = ort_check(api, api->tensor_symbols(info, symbols, spec->shape.rank),
                                  "name a tensor's dimensions", error);
    for (uint32_t i = 0; status == UMO_OK && i < spec->shape.rank; i++) {
        if (spec->shape.dims[i] >= 0 || symbols[i] == NULL || symbols[i][0] == '\0') {
            continue;
        }
        spec->symbols[i] = strdup(symbols[i]);
        if (spec->symbols[i] == NULL) {
            status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory to describe the model");
        }
    }
    return status;
}

static umo_status describe_type(const ort_api *api, const ort_type_info *type, ort_spec *spec,
                                umo_error *error)
{
    int kind = 0;
    int element = ORT_ELEMENT_UNDEFINED;
    size_t rank = 0;
    const ort_tensor_info *info = NULL;
    umo_status status = ort_check(api, api->type_kind(type, &kind), "describe a tensor", error);
    spec->is_tensor = kind == ORT_KIND_TENSOR;
    if (status != UMO_OK || !spec->is_tensor) {
        return status;
    }
    status = ort_check(api, api->type_as_tensor(type, &info), "describe a tensor", error);
    if (status == UMO_OK) {
        status = ort_check(api, api->tensor_element(info, &element), "describe a tensor", error);
    }
    spec->dtype = ort_dtype_from_element(element);
    if (status == UMO_OK) {
        status = ort_check(api, api->tensor_rank(info, &rank), "describe a tensor", error);
    }
    if (status == UMO_OK && rank > UMO_RANK_MAX) {
        status = umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                               "tensor '%s' has %zu dimensions, more than %u", spec->name, rank,
                               UMO_RANK_MAX);
    }
    if (status != UMO_OK) {
        return status;
    }
    spec->shape.rank = (uint32_t)rank;
    status =
        ort_check(api, api->tensor_dims(info, spec->shape.dims, rank), "describe a tensor", error);
    return status == UMO_OK ? copy_symbols(api, info, spec, error) : status;
}

/* How one kind of tensor is listed by a session. */
typedef struct lister {
    ort_status *(*count)(const ort_session *, size_t *);
    ort_status *(*name)(const ort_session *, size_t, ort_allocator *, char **);
    ort_status *(*type)(const ort_session *, size_t, ort_type_info **);
} lister;

static umo_status describe_one(const ort_runtime *runtime, const ort_session *session,
                               const lister *list, size_t index, ort_spec *spec, umo_error *error)
{
    const ort_api *api = &runtime->api;
    char *name = NULL;
    umo_status status = ort_check(api, list->name(session, index, runtime->allocator, &name),
                                  "name a tensor", error);
    if (status != UMO_OK) {
        return status;
    }
    spec->name = strdup(name);
    /* What would fail here is our memory, not its freeing. */
    (void)ort_check(api, api->allocator_free(runtime->allocator, name), "free a name", NULL);
    if (spec->name == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to describe the model");
    }
    ort_type_info *type = NULL;
    status = ort_check(api, list->type(session, index, &type), "describe a tensor", error);
    if (status == UMO_OK) {
        status = describe_type(api, type, spec, error);
    }
    if (type != NULL) {
        api->release_type_info(type);
    }
    return status;
}

static umo_status describe_list(const ort_runtime *runtime, const ort_session *session,
                                const lister *list, ort_spec_list *out, umo_error *error)
{
    size_t count;
    umo_status status =
        ort_check(&runtime->api, list->count(session, &count), "count the model's tensors", error);
    if (status != UMO_OK || count == 0) {
        return status;
    }
    out->specs = calloc(count, sizeof *out->specs);
    if (out->specs == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to describe the model");
    }
    out->count = count;
    for (size_t i = 0; status == UMO_OK && i < count; i++) {
        status = describe_one(runtime, session, list, i, &out->specs[i], error);
    }
    return status;
}

umo_status ort_session_describe(const ort_runtime *runtime, const ort_session *session,
                                ort_description *out, umo_error *error)
{
    const ort_api *api = &runtime->api;
    const lister inputs = {api->input_count, api->input_name, api->input_type};
    const lister outputs = {api->output_count, api->output_name, api->output_type};
    const lister initializers = {api->initializer_count, api->initializer_name,
                                 api->initializer_type};
    umo_status status = describe_list(runtime, session, &inputs, &out->inputs, error);
    if (status == UMO_OK) {
        status = describe_list(runtime, session, &outputs, &out->outputs, error);
    }
    if (status == UMO_OK) {
        status = describe_list(runtime, session, &initializers, &out->initializers, error);
    }
    return status;
}

static void finish_list(ort_spec_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        free(list->specs[i].name);
        for (uint32_t d = 0; d < UMO_RANK_MAX; d++) {
            free(list->specs[i].symbols[d]);
        }
    }
    free(list->specs);
    *list = (ort_spec_list){0};
}

void ort_description_finish(ort_description *description)
{
    finish_list(&description->inputs);
    finish_list(&description->outputs);
    finish_list(&description->initializers);
}

const ort_spec *ort_spec_find(const ort_spec_list *list, const char *name)
{
    for (size_t i = 0; i < list->count; i++) {
        if (strcmp(list->specs[i].name, name) == 0) {
            return &list->specs[i];
        }
    }
    return NULL;
}

/* Pipelines: what a kernel expects, its reflection, and whether an archive had it. */
#include "fake.h"

#include <string.h>

#define PIPELINE_DOMAIN "CompilerError"
#define PIPELINE_MISS 1
#define PIPELINE_FAILED 2

#define OPTION_BINDINGS 1u
#define OPTION_FAIL_ON_MISS 4u
#define OPTIONS_ALL 7u

#define WIDTH 32u

/* ---- what a pipeline expects ---- */

static bool same_place(const fake_metal_binding *one, const fake_metal_binding *two)
{
    return one->type == two->type && one->index == two->index && one->writes == two->writes;
}

/* The C function must have been written for this text. */
static bool registered_matches(const fake_metal_kernel *kernel, const fake_signature *text)
{
    if (kernel->binding_count != text->count) {
        return false;
    }
    for (size_t i = 0; i < text->count; i++) {
        size_t same = 0;
        for (size_t j = 0; j < kernel->binding_count; j++) {
            same += same_place(&text->bindings[i], &kernel->bindings[j]) ? 1 : 0;
        }
        if (same != 1) {
            return false;
        }
    }
    return true;
}

id fake_function_build(const fake_function *function, fake_metal_kernel *kernel,
                       fake_signature *signature)
{
    const char *name = fake_text(function->name);
    if (!fake_kernel_find(name, kernel)) {
        return fake_error(PIPELINE_DOMAIN, PIPELINE_FAILED,
                          "no C function is registered for kernel %s", name);
    }
    if (!fake_signature_read(function->library->text, name, signature)) {
        return fake_error(PIPELINE_DOMAIN, PIPELINE_FAILED, "the parameters of %s are not known",
                          name);
    }
    if (kernel->bindings != NULL) {
        if (!registered_matches(kernel, signature)) {
            return fake_error(PIPELINE_DOMAIN, PIPELINE_FAILED,
                              "the bindings registered for %s are not those of the text", name);
        }
        memcpy(signature->bindings, kernel->bindings,
               kernel->binding_count * sizeof *kernel->bindings);
    }
    for (size_t i = 0; i < signature->count; i++) {
        const fake_metal_binding *binding = &signature->bindings[i];
        if (binding->data_bytes == 0 && binding->type <= FAKE_METAL_THREADGROUP) {
            return fake_error(PIPELINE_DOMAIN, PIPELINE_FAILED,
                              "the size of %s of %s stands not in the text: register bindings",
                              binding->name, name);
        }
    }
    if (kernel->threads_max == 0) {
        kernel->threads_max = fake_options.threads_max;
    }
    return NULL;
}

/* ---- reflection ---- */

typedef struct reflection {
    fake_object object;
    id bindings;
} reflection;

typedef struct binding {
    fake_object object;
    id name;
    fake_metal_binding the;
} binding;

static id reflection_make(const fake_signature *signature)
{
    id items[FAKE_BINDINGS_MAX];
    for (size_t i = 0; i < signature->count; i++) {
        const fake_metal_binding *from = &signature->bindings[i];
        binding *one =
            fake_make(from->type == FAKE_METAL_BUFFER        ? &fake_class_buffer_binding
                      : from->type == FAKE_METAL_THREADGROUP ? &fake_class_threadgroup_binding
                                                             : &fake_class_binding);
        one->name = fake_string_new(from->name == NULL ? "" : from->name);
        one->the = *from;
        items[i] = one;
    }
    reflection *made = fake_make(&fake_class_reflection);
    made->bindings = fake_array_new(items, signature->count);
    for (size_t i = 0; i < signature->count; i++) {
        objc_release(items[i]);
    }
    return objc_autorelease(made);
}

static bool reflection_dealloc(void *self)
{
    objc_release(((reflection *)self)->bindings);
    return true;
}

static bool binding_dealloc(void *self)
{
    objc_release(((binding *)self)->name);
    return true;
}

static id reflection_bindings(reflection *self, SEL selector)
{
    (void)selector;
    return self->bindings;
}

static id binding_name(binding *self, SEL selector)
{
    (void)selector;
    return self->name;
}

static int64_t binding_type(binding *self, SEL selector)
{
    (void)selector;
    return self->the.type;
}

static ns_uint binding_access(binding *self, SEL selector)
{
    (void)selector;
    return self->the.writes ? 1 : 0;
}

static ns_uint binding_index(binding *self, SEL selector)
{
    (void)selector;
    return self->the.index;
}

static bool binding_used(binding *self, SEL selector)
{
    (void)selector;
    return !self->the.unused;
}

static bool binding_argument(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return true;
}

static ns_uint binding_bytes(binding *self, SEL selector)
{
    (void)selector;
    return self->the.data_bytes;
}

static ns_uint binding_align(binding *self, SEL selector)
{
    (void)selector;
    return self->the.align_bytes;
}

static const fake_method reflection_methods[] = {
    FAKE_METHOD("bindings", "@@:", reflection_bindings),
};

static const fake_method binding_methods[] = {
    FAKE_METHOD("name", "@@:", binding_name),
    FAKE_METHOD("type", "q@:", binding_type),
    FAKE_METHOD("access", "Q@:", binding_access),
    FAKE_METHOD("index", "Q@:", binding_index),
    FAKE_METHOD("isUsed", "B@:", binding_used),
    FAKE_METHOD("isArgument", "B@:", binding_argument),
};

static const fake_method buffer_binding_methods[] = {
    FAKE_METHOD("bufferDataSize", "Q@:", binding_bytes),
    FAKE_METHOD("bufferAlignment", "Q@:", binding_align),
};

static const fake_method threadgroup_binding_methods[] = {
    FAKE_METHOD("threadgroupMemoryDataSize", "Q@:", binding_bytes),
    FAKE_METHOD("threadgroupMemoryAlignment", "Q@:", binding_align),
};

fake_class fake_class_reflection = {.super = &fake_class_object,
                                    .name = "MTLComputePipelineReflection",
                                    .size_bytes = sizeof(reflection),
                                    .dealloc = reflection_dealloc,
                                    .methods = reflection_methods,
                                    .method_count = FAKE_COUNT(reflection_methods)};
fake_class fake_class_binding = {.super = &fake_class_object,
                                 .name = "MTLBinding",
                                 .size_bytes = sizeof(binding),
                                 .dealloc = binding_dealloc,
                                 .methods = binding_methods,
                                 .method_count = FAKE_COUNT(binding_methods),
                                 .hidden = true};
fake_class fake_class_buffer_binding = {.super = &fake_class_binding,
                                        .name = "MTLBufferBinding",
                                        .size_bytes = sizeof(binding),
                                        .dealloc = binding_dealloc,
                                        .methods = buffer_binding_methods,
                                        .method_count = FAKE_COUNT(buffer_binding_methods),
                                        .hidden = true};
fake_class fake_class_threadgroup_binding = {.super = &fake_class_binding,
                                             .name = "MTLThreadgroupBinding",
                                             .size_bytes = sizeof(binding),
                                             .dealloc = binding_dealloc,
                                             .methods = threadgroup_binding_methods,
                                             .method_count =
                                                 FAKE_COUNT(threadgroup_binding_methods),
                                             .hidden = true};

/* ---- pipelines ---- */

/* Whether some archive of the array has the function. */
static bool archives_have(id archives, const fake_function *function)
{
    ns_uint count = archives == NULL ? 0 : fake_array_count(archives);
    for (ns_uint i = 0; i < count; i++) {
        if (fake_archive_has(fake_array_at(archives, i), function)) {
            return true;
        }
    }
    return false;
}

static id pipeline_make(fake_device *device, SEL selector, id given, id archives, ns_uint options,
                        id *out_reflection, id *error)
{
    if (!fake_class_right(selector, given, &fake_class_function)) {
        return NULL;
    }
    const fake_function *function = given;
    if (function->library->device != device) {
        fake_violate("other_device", "%s with a function of another device", selector);
        return NULL;
    }
    if (options > OPTIONS_ALL) {
        fake_violate("index_range", "%s with options %#llx", selector, (unsigned long long)options);
        return NULL;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error(PIPELINE_DOMAIN, PIPELINE_FAILED,
                                          "Compiler encountered an internal error"));
        return NULL;
    }
    bool cached = archives_have(archives, function);
    if (!cached && (options & OPTION_FAIL_ON_MISS) != 0) {
        fake_error_give(error, fake_error(PIPELINE_DOMAIN, PIPELINE_MISS,
                                          "no binary archive has %s", fake_text(function->name)));
        return NULL;
    }
    fake_pipeline *made = fake_make(&fake_class_pipeline);
    made->device = objc_retain(device);
    id wrong = fake_function_build(function, &made->kernel, &made->signature);
    if (wrong != NULL) {
        fake_error_give(error, wrong);
        objc_release(made);
        return NULL;
    }
    (void)atomic_fetch_add(cached ? &fake_cached : &fake_compiled, 1);
    if (out_reflection != NULL && (options & OPTION_BINDINGS) != 0) {
        *out_reflection = reflection_make(&made->signature);
    }
    return made;
}

id fake_pipeline_new(fake_device *device, SEL selector, id given, ns_uint options,
                     id *out_reflection, id *error)
{
    if (!fake_class_right(selector, given, &fake_class_pipeline_descriptor)) {
        return NULL;
    }
    const fake_pipeline_descriptor *descriptor = given;
    return pipeline_make(device, selector, descriptor->function, descriptor->archives, options,
                         out_reflection, error);
}

id fake_pipeline_new_of(fake_device *device, SEL selector, id function, ns_uint options,
                        id *out_reflection, id *error)
{
    return pipeline_make(device, selector, function, NULL, options, out_reflection, error);
}

id fake_pipeline_new_simple(fake_device *device, SEL selector, id function, id *error)
{
    return pipeline_make(device, selector, function, NULL, 0, NULL, error);
}

static bool pipeline_dealloc(void *self)
{
    objc_release(((fake_pipeline *)self)->device);
    return true;
}

static ns_uint pipeline_threads_max(fake_pipeline *self, SEL selector)
{
    (void)selector;
    return self->kernel.threads_max;
}

static ns_uint pipeline_width(fake_pipeline *self, SEL selector)
{
    (void)selector;
    return self->kernel.threads_max < WIDTH ? self->kernel.threads_max : WIDTH;
}

static ns_uint pipeline_local(fake_pipeline *self, SEL selector)
{
    (void)selector;
    return self->kernel.static_local_bytes;
}

static id pipeline_device(fake_pipeline *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static const fake_method pipeline_methods[] = {
    FAKE_METHOD("maxTotalThreadsPerThreadgroup", "Q@:", pipeline_threads_max),
    FAKE_METHOD("threadExecutionWidth", "Q@:", pipeline_width),
    FAKE_METHOD("staticThreadgroupMemoryLength", "Q@:", pipeline_local),
    FAKE_METHOD("device", "@@:", pipeline_device),
};

fake_class fake_class_pipeline = {.super = &fake_class_object,
                                  .name = "MTLComputePipelineState",
                                  .size_bytes = sizeof(fake_pipeline),
                                  .dealloc = pipeline_dealloc,
                                  .methods = pipeline_methods,
                                  .method_count = FAKE_COUNT(pipeline_methods),
                                  .hidden = true};

/* ---- their descriptors ---- */

static void property_set(id *property, id value)
{
    id former = *property;
    *property = objc_retain(value);
    objc_release(former);
}

static void describe_function(fake_pipeline_descriptor *self, SEL selector, id function)
{
    if (function == NULL || fake_class_right(selector, function, &fake_class_function)) {
        id former = self->function;
        self->function = objc_retain(function);
        objc_release(former);
    }
}

static id described_function(fake_pipeline_descriptor *self, SEL selector)
{
    (void)selector;
    return self->function;
}

static void describe_archives(fake_pipeline_descriptor *self, SEL selector, id archives)
{
    ns_uint count = 0;
    if (archives != NULL) {
        if (!fake_class_right(selector, archives, &fake_class_array)) {
            return;
        }
        count = fake_array_count(archives);
    }
    for (ns_uint i = 0; i < count; i++) {
        if (!fake_class_right(selector, fake_array_at(archives, i), &fake_class_archive)) {
            return;
        }
    }
    property_set(&self->archives, archives);
}

static id described_archives(fake_pipeline_descriptor *self, SEL selector)
{
    (void)selector;
    return self->archives;
}

static void describe_label(fake_pipeline_descriptor *self, SEL selector, id label)
{
    if (label == NULL || fake_class_right(selector, label, &fake_class_string)) {
        property_set(&self->label, label);
    }
}

static id described_label(fake_pipeline_descriptor *self, SEL selector)
{
    (void)selector;
    return self->label;
}

static bool descriptor_dealloc(void *object)
{
    fake_pipeline_descriptor *self = object;
    objc_release(self->function);
    objc_release(self->archives);
    objc_release(self->label);
    return true;
}

static const fake_method descriptor_methods[] = {
    FAKE_METHOD("setComputeFunction:", "v@:@", describe_function),
    FAKE_METHOD("computeFunction", "@@:", described_function),
    FAKE_METHOD("setBinaryArchives:", "v@:@", describe_archives),
    FAKE_METHOD("binaryArchives", "@@:", described_archives),
    FAKE_METHOD("setLabel:", "v@:@", describe_label),
    FAKE_METHOD("label", "@@:", described_label),
};

fake_class fake_class_pipeline_descriptor = {.super = &fake_class_object,
                                             .name = "MTLComputePipelineDescriptor",
                                             .size_bytes = sizeof(fake_pipeline_descriptor),
                                             .dealloc = descriptor_dealloc,
                                             .methods = descriptor_methods,
                                             .method_count = FAKE_COUNT(descriptor_methods),
                                             .makes = true};

/*
 * Libraries, functions and pipelines. Nothing is compiled: a kernel's text is read for its mistakes
 * and its parameters, and a C function that somebody registered under the kernel's name runs.
 */
#include "fake.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY_DOMAIN "MTLLibraryErrorDomain"
#define LIBRARY_INTERNAL 2
#define LIBRARY_COMPILE 3
#define PIPELINE_DOMAIN "CompilerError"
#define PIPELINE_MISS 1
#define PIPELINE_FAILED 2

#define OPTION_BINDINGS 1u
#define OPTION_FAIL_ON_MISS 4u
#define OPTIONS_ALL 7u

#define WIDTH 32u
#define FUNCTION_KERNEL 3

uint64_t fake_hash(const void *bytes, size_t size_bytes, uint64_t seed)
{
    /* Source: Fowler, Noll, Vo: FNV-1a. */
    uint64_t hash = UINT64_C(0xcbf29ce484222325) ^ seed;
    const uint8_t *at = bytes;
    for (size_t i = 0; i < size_bytes; i++) {
        hash = (hash ^ at[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* --- registered kernels
 * --------------------------------------------------------------------------- */

static pthread_mutex_t kernels_lock = PTHREAD_MUTEX_INITIALIZER;
static fake_metal_kernel *kernels;
static size_t kernel_count;
static size_t kernel_capacity;
static pthread_once_t libraries_once = PTHREAD_ONCE_INIT;

/* Under the lock. */
static fake_metal_kernel *kernel_place(const char *name)
{
    for (size_t i = 0; i < kernel_count; i++) {
        if (strcmp(kernels[i].name, name) == 0) {
            return &kernels[i];
        }
    }
    return NULL;
}

static void kernel_store(const fake_metal_kernel *kernel, bool replace)
{
    (void)pthread_mutex_lock(&kernels_lock);
    fake_metal_kernel *place = kernel_place(kernel->name);
    if (place == NULL) {
        if (kernel_count == kernel_capacity) {
            kernel_capacity = kernel_capacity == 0 ? 32 : kernel_capacity * 2;
            kernels = realloc(kernels, kernel_capacity * sizeof *kernels);
            if (kernels == NULL) {
                abort();
            }
        }
        place = &kernels[kernel_count++];
        replace = true;
    }
    if (replace) {
        *place = *kernel;
    }
    (void)pthread_mutex_unlock(&kernels_lock);
}

void fake_metal_kernel_register(const fake_metal_kernel *kernel)
{
    if (kernel->name == NULL || kernel->run == NULL || kernel->binding_count > FAKE_BINDINGS_MAX) {
        (void)fprintf(stderr, "fake metal: a kernel without a name or a function, or with too many "
                              "bindings\n");
        abort();
    }
    kernel_store(kernel, true);
}

static void library_load(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const fake_metal_kernel *at = library == NULL ? NULL : dlsym(library, "fake_metal_kernels");
    if (at == NULL) {
        (void)fprintf(stderr, "fake metal: FAKE_METAL_KERNELS: %s\n", dlerror());
        abort();
    }
    for (; at->name != NULL; at++) {
        kernel_store(at, false); /* what the process registered itself stays */
    }
}

static void libraries_load(void)
{
    const char *paths = getenv("FAKE_METAL_KERNELS");
    while (paths != NULL && *paths != 0) {
        char path[1024];
        size_t length = strcspn(paths, ":");
        (void)snprintf(path, sizeof path, "%.*s", (int)length, paths);
        if (length > 0) {
            library_load(path);
        }
        paths += length + (paths[length] == ':' ? 1 : 0);
    }
}

bool fake_kernel_find(const char *name, fake_metal_kernel *out)
{
    (void)pthread_once(&libraries_once, libraries_load);
    (void)pthread_mutex_lock(&kernels_lock);
    const fake_metal_kernel *found = kernel_place(name);
    if (found != NULL) {
        *out = *found;
    }
    (void)pthread_mutex_unlock(&kernels_lock);
    return found != NULL;
}

/* --- compile options
 * ------------------------------------------------------------------------------ */

typedef struct compile_options {
    fake_object object;
    bool precise; /* fast mathematics is Apple's default */
    ns_uint version;
} compile_options;

static void options_fast(compile_options *self, SEL selector, bool fast)
{
    (void)selector;
    self->precise = !fast;
}

static bool options_is_fast(compile_options *self, SEL selector)
{
    (void)selector;
    return !self->precise;
}

static void options_set_version(compile_options *self, SEL selector, ns_uint version)
{
    (void)selector;
    self->version = version;
}

static ns_uint options_version(compile_options *self, SEL selector)
{
    (void)selector;
    return self->version;
}

static const fake_method options_methods[] = {
    FAKE_METHOD("setFastMathEnabled:", "v@:B", options_fast),
    FAKE_METHOD("fastMathEnabled", "B@:", options_is_fast),
    FAKE_METHOD("setLanguageVersion:", "v@:Q", options_set_version),
    FAKE_METHOD("languageVersion", "Q@:", options_version),
};

fake_class fake_class_compile_options = {.super = &fake_class_object,
                                         .name = "MTLCompileOptions",
                                         .size_bytes = sizeof(compile_options),
                                         .methods = options_methods,
                                         .method_count = FAKE_COUNT(options_methods),
                                         .makes = true};

/* --- libraries and functions
 * ---------------------------------------------------------------------- */

bool fake_class_right(SEL selector, id given, const fake_class *class)
{
    if (fake_is(given, class)) {
        return true;
    }
    if (given == NULL) {
        fake_violate("nil_argument", "%s without an %s", selector, class->name);
    } else {
        fake_violate(fake_is_zombie(given) ? "zombie" : "wrong_class",
                     "%s with a %s in place of an %s", selector, fake_class_name(given),
                     class->name);
    }
    return false;
}

id fake_library_new(fake_device *device, SEL selector, id text, id options, id *error)
{
    if (!fake_class_right(selector, text, &fake_class_string) ||
        (options != NULL && !fake_class_right(selector, options, &fake_class_compile_options))) {
        return NULL;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error(LIBRARY_DOMAIN, LIBRARY_INTERNAL,
                                          "Compiler encountered an internal error"));
        return NULL;
    }
    char words[400] = "";
    const char *source = fake_text(text);
    if (fake_text_check(source, words, sizeof words) != NULL) {
        fake_error_give(error, fake_error(LIBRARY_DOMAIN, LIBRARY_COMPILE,
                                          "Compilation failed: \n\n%s", words));
        return NULL;
    }
    bool precise = options != NULL && ((compile_options *)options)->precise;
    fake_library *made = fake_make(&fake_class_library);
    made->device = objc_retain(device);
    made->text = fake_text_strip(source);
    made->hash = fake_hash(source, strlen(source), precise ? 1 : 0);
    return made;
}

static bool library_dealloc(void *object)
{
    fake_library *self = object;
    free(self->text);
    objc_release(self->device);
    return true;
}

static id library_function(fake_library *self, SEL selector, id name)
{
    if (!fake_class_right(selector, name, &fake_class_string) || fake_fails(selector) ||
        fake_text_kernel(self->text, fake_text(name)) == NULL) {
        return NULL;
    }
    fake_function *made = fake_make(&fake_class_function);
    made->library = objc_retain(self);
    made->name = objc_retain(name);
    return made;
}

static id library_names(fake_library *self, SEL selector)
{
    (void)selector;
    id names[256];
    size_t count = 0;
    char name[256];
    const char *at = self->text;
    while (count < FAKE_COUNT(names) &&
           (at = fake_text_kernel_next(at, name, sizeof name)) != NULL) {
        names[count++] = fake_string_new(name);
    }
    id array = fake_array_new(names, count);
    while (count > 0) {
        objc_release(names[--count]);
    }
    return objc_autorelease(array);
}

static id library_device(fake_library *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static void any_label(id self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static const fake_method library_methods[] = {
    FAKE_METHOD("newFunctionWithName:", "@@:@", library_function),
    FAKE_METHOD("functionNames", "@@:", library_names),
    FAKE_METHOD("device", "@@:", library_device),
    FAKE_METHOD("setLabel:", "v@:@", any_label),
};

fake_class fake_class_library = {.super = &fake_class_object,
                                 .name = "MTLLibrary",
                                 .size_bytes = sizeof(fake_library),
                                 .dealloc = library_dealloc,
                                 .methods = library_methods,
                                 .method_count = FAKE_COUNT(library_methods),
                                 .hidden = true};

static bool function_dealloc(void *object)
{
    fake_function *self = object;
    objc_release(self->name);
    objc_release(self->library);
    return true;
}

static id function_name(fake_function *self, SEL selector)
{
    (void)selector;
    return self->name;
}

static id function_device(fake_function *self, SEL selector)
{
    (void)selector;
    return self->library->device;
}

static ns_uint function_type(id self, SEL selector)
{
    (void)self;
    (void)selector;
    return FUNCTION_KERNEL;
}

static const fake_method function_methods[] = {
    FAKE_METHOD("name", "@@:", function_name),
    FAKE_METHOD("device", "@@:", function_device),
    FAKE_METHOD("functionType", "Q@:", function_type),
    FAKE_METHOD("setLabel:", "v@:@", any_label),
};

fake_class fake_class_function = {.super = &fake_class_object,
                                  .name = "MTLFunction",
                                  .size_bytes = sizeof(fake_function),
                                  .dealloc = function_dealloc,
                                  .methods = function_methods,
                                  .method_count = FAKE_COUNT(function_methods),
                                  .hidden = true};

/* --- what a pipeline expects
 * ---------------------------------------------------------------------- */

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

/* --- reflection
 * ----------------------------------------------------------------------------------- */

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

/* --- pipelines
 * ------------------------------------------------------------------------------------ */

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

/* --- their descriptors
 * ---------------------------------------------------------------------------- */

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

/*
 * Libraries and functions. Nothing is compiled: a kernel's text is read for its mistakes and its
 * parameters, and a C function that somebody registered under the kernel's name runs.
 */
#include "fake.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIBRARY_DOMAIN "MTLLibraryErrorDomain"
#define LIBRARY_INTERNAL 2
#define LIBRARY_COMPILE 3

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

/* ---- registered kernels ---- */

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

/* ---- compile options ---- */

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

/* ---- libraries and functions ---- */

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

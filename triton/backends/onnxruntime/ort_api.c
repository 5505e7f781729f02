/* Finds and opens ONNX Runtime, takes the used slots out of its table, and keeps the one
 * environment of the process.
 *
 * ONNX Runtime itself keeps one environment a process, whoever asks; so the runtime here is one
 * static object behind a count, and not something a caller could have two of. */
#include "ort_api.h"

#include "heap.h"

#include <dirent.h>
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
    PATH_BYTES = 4096
};

typedef void (*ort_function)(void);

/* OrtApiBase: what the library's one symbol returns. */
typedef struct ort_base {
    const ort_function *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} ort_base;

static struct {
    pthread_mutex_t lock;
    size_t users;
    void *library;
    ort_runtime runtime;
} process = {.lock = PTHREAD_MUTEX_INITIALIZER};

static umo_status status_from_code(int code)
{
    switch (code) {
    case ORT_CODE_INVALID_ARGUMENT:
        return UMO_E_INVAL;
    case ORT_CODE_NO_SUCHFILE:
    case ORT_CODE_NO_MODEL:
        return UMO_E_NOT_FOUND;
    case ORT_CODE_NOT_IMPLEMENTED:
        return UMO_E_UNSUPPORTED;
    default: /* the set is ONNX Runtime's and open */
        return UMO_E_DEVICE;
    }
}

umo_status ort_check(const ort_api *api, ort_status *status, const char *doing, umo_error *error)
{
    if (status == NULL) {
        return UMO_OK;
    }
    int code = api->get_error_code(status);
    umo_status result =
        umo_error_set(error, status_from_code(code), code, "ONNX Runtime could not %s: %s", doing,
                      api->get_error_message(status));
    if (error != NULL) {
        /* Some of its messages span lines; an error text is one line. */
        for (char *c = error->text; *c != '\0'; ++c) {
            if (*c == '\n' || *c == '\r' || *c == '\t') {
                *c = ' ';
            }
        }
    }
    api->release_status(status);
    return result;
}

static bool is_folder(const char *path)
{
    struct stat seen;
    return stat(path, &seen) == 0 && S_ISDIR(seen.st_mode);
}

/* ONNX Runtime's library by its file's name, whatever its version is. */
static bool is_library(const char *name)
{
#ifdef __APPLE__
    static const char stem[] = "libonnxruntime.";
    static const char end[] = ".dylib";
    size_t length = strlen(name);
    return strncmp(name, stem, sizeof(stem) - 1) == 0 && length >= sizeof(end) &&
           strcmp(name + length - (sizeof(end) - 1), end) == 0;
#else
    static const char stem[] = "libonnxruntime.so";
    return strncmp(name, stem, sizeof(stem) - 1) == 0 &&
           (name[sizeof(stem) - 1] == '\0' || name[sizeof(stem) - 1] == '.');
#endif
}

/* The library in a folder. False when there is none. */
static bool library_in_folder(const char *folder, char *path, size_t path_bytes)
{
    DIR *opened = opendir(folder);
    if (opened == NULL) {
        return false;
    }
    bool found = false;
    for (const struct dirent *entry; !found && (entry = readdir(opened)) != NULL;) {
        if (is_library(entry->d_name)) {
            int length = snprintf(path, path_bytes, "%s/%s", folder, entry->d_name);
            found = length > 0 && (size_t)length < path_bytes;
        }
    }
    closedir(opened);
    return found;
}

/* The folder that this code was loaded from. */
static bool own_folder(char *path, size_t path_bytes)
{
    Dl_info info;
    if (dladdr(&process, &info) == 0 || info.dli_fname == NULL) {
        return false;
    }
    int length = snprintf(path, path_bytes, "%s", info.dli_fname);
    char *slash = length > 0 && (size_t)length < path_bytes ? strrchr(path, '/') : NULL;
    if (slash == NULL) {
        return false;
    }
    *slash = '\0';
    return true;
}

static umo_status open_named(const char *named, const char *origin, void **out, umo_error *error)
{
    char inside[PATH_BYTES];
    const char *path = named;
    if (is_folder(named)) {
        if (!library_in_folder(named, inside, sizeof(inside))) {
            return umo_error_set(error, UMO_E_NOT_FOUND, 0,
                                 "%s names a folder without libonnxruntime.so*: %s", origin, named);
        }
        path = inside;
    }
    *out = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (*out == NULL) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "%s: cannot load ONNX Runtime: %s", origin,
                             dlerror());
    }
    return UMO_OK;
}

static umo_status open_library(const char *named, void **out, umo_error *error)
{
    if (named != NULL && named[0] != '\0') {
        return open_named(named, "onnxruntime_library", out, error);
    }
    named = getenv("UMO_ONNXRUNTIME");
    if (named != NULL && named[0] != '\0') {
        return open_named(named, "UMO_ONNXRUNTIME", out, error);
    }
    char folder[PATH_BYTES];
    char beside[PATH_BYTES];
#ifdef __APPLE__
    *out = dlopen("libonnxruntime.dylib", RTLD_NOW | RTLD_LOCAL);
#else
    *out = dlopen("libonnxruntime.so.1", RTLD_NOW | RTLD_LOCAL);
    if (*out == NULL) {
        *out = dlopen("libonnxruntime.so", RTLD_NOW | RTLD_LOCAL);
    }
#endif
    if (*out == NULL && own_folder(folder, sizeof(folder)) &&
        library_in_folder(folder, beside, sizeof(beside))) {
        *out = dlopen(beside, RTLD_NOW | RTLD_LOCAL);
    }
    if (*out == NULL) {
        return umo_error_set(
            error, UMO_E_NOT_FOUND, 0,
            "no ONNX Runtime found: pass --backend-config=umo_onnxruntime,onnxruntime_library=PATH "
            "or set UMO_ONNXRUNTIME to its library (pip install onnxruntime has it in "
            "onnxruntime/capi)");
    }
    return UMO_OK;
}

static umo_status take_table(void *library, ort_runtime *runtime, umo_error *error)
{
    /* POSIX lets a data pointer from dlsym hold a function's address; C needs this detour to say
     * so. */
    union {
        void *symbol;
        const ort_base *(*call)(void);
    } entry = {.symbol = dlsym(library, "OrtGetApiBase")};
    if (entry.symbol == NULL) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "the library named is not ONNX Runtime: it has no OrtGetApiBase");
    }
    const ort_base *base = entry.call();
    (void)snprintf(runtime->release, sizeof(runtime->release), "%s", base->get_version());
    const ort_function *table = base->get_api(ORT_TABLE_VERSION);
    if (table == NULL) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "ONNX Runtime %s is too old: %s or later is needed", runtime->release,
                             ORT_OLDEST_RELEASE);
    }
#define ORT_TAKE(number, name, result, parameters)                                                 \
    runtime->api.name = (result(*) parameters)table[number];
    ORT_SLOTS(ORT_TAKE)
#undef ORT_TAKE
    return UMO_OK;
}

static umo_status create_env(const ort_runtime_options *options, ort_runtime *runtime,
                             umo_error *error)
{
    const ort_api *api = &runtime->api;
    if (!options->global_threads) {
        return ort_check(api, api->create_env(ORT_LOG_ERROR, "umo", &runtime->env),
                         "make its environment", error);
    }
    ort_threading_options *threading = NULL;
    umo_status status = ort_check(api, api->create_threading_options(&threading),
                                  "make its thread pool's options", error);
    if (status == UMO_OK && options->intra_op_threads > 0) {
        status =
            ort_check(api, api->set_pool_intra_op_threads(threading, options->intra_op_threads),
                      "set intra_op_thread_count", error);
    }
    if (status == UMO_OK && options->inter_op_threads > 0) {
        status =
            ort_check(api, api->set_pool_inter_op_threads(threading, options->inter_op_threads),
                      "set inter_op_thread_count", error);
    }
    if (status == UMO_OK) {
        status = ort_check(
            api, api->create_env_with_pools(ORT_LOG_ERROR, "umo", threading, &runtime->env),
            "make its environment with a global thread pool", error);
    }
    if (threading != NULL) {
        api->release_threading_options(threading);
    }
    return status;
}

static void end_runtime(ort_runtime *runtime)
{
    if (runtime->allocator_registered) {
        (void)ort_check(&runtime->api,
                        runtime->api.unregister_allocator(runtime->env, runtime->cpu_memory),
                        "forget an allocator", NULL);
    }
    if (runtime->cpu_memory != NULL) {
        runtime->api.release_memory_info(runtime->cpu_memory);
    }
    if (runtime->env != NULL) {
        runtime->api.release_env(runtime->env);
    }
    *runtime = (ort_runtime){0};
}

/* Offers umo's pools to sessions. Where the engine's C++ library has no function to throw its
 * std::bad_alloc with, they are not offered: nothing else tells the engine that memory is out. */
static umo_status register_allocator(ort_runtime *runtime, umo_error *error)
{
    union {
        void *symbol;
        ort_thrower call;
    } thrower = {.symbol = dlsym(process.library, "_ZSt17__throw_bad_allocv")};
    if (thrower.symbol == NULL) {
        return UMO_OK;
    }
    ort_allocator *pools = ort_heap_allocator(runtime->cpu_memory, thrower.call);
    umo_status status =
        ort_check(&runtime->api, runtime->api.register_allocator(runtime->env, pools),
                  "take an allocator", error);
    runtime->allocator_registered = status == UMO_OK;
    return status;
}

static umo_status start_runtime(const ort_runtime_options *options, ort_runtime *runtime,
                                umo_error *error)
{
    umo_status status = UMO_OK;
    if (process.library == NULL) {
        status = open_library(options->library, &process.library, error);
        if (status != UMO_OK) {
            return status;
        }
    }
    status = take_table(process.library, runtime, error);
    if (status != UMO_OK) {
        /* Nothing of it has run but its version: it may be closed, and another named at the next
         * try. */
        dlclose(process.library);
        process.library = NULL;
        return status;
    }
    const ort_api *api = &runtime->api;
    status = create_env(options, runtime, error);
    if (status == UMO_OK) {
        status = ort_check(api, api->default_allocator(&runtime->allocator), "give its allocator",
                           error);
    }
    if (status == UMO_OK) {
        status = ort_check(api,
                           api->create_cpu_memory_info(ORT_ALLOCATOR_DEVICE, ORT_MEMORY_DEFAULT,
                                                       &runtime->cpu_memory),
                           "describe host memory", error);
    }
    if (status == UMO_OK) {
        status = register_allocator(runtime, error);
    }
    runtime->global_threads = options->global_threads;
    if (status != UMO_OK) {
        end_runtime(runtime);
    }
    return status;
}

umo_status ort_runtime_acquire(const ort_runtime_options *options, ort_runtime **out,
                               umo_error *error)
{
    umo_status status = UMO_OK;
    pthread_mutex_lock(&process.lock);
    if (process.users == 0) {
        status = start_runtime(options, &process.runtime, error);
    }
    if (status == UMO_OK) {
        process.users += 1;
        *out = &process.runtime;
    }
    pthread_mutex_unlock(&process.lock);
    return status;
}

void ort_runtime_hold(ort_runtime *runtime)
{
    (void)runtime;
    pthread_mutex_lock(&process.lock);
    process.users += 1;
    pthread_mutex_unlock(&process.lock);
}

void ort_runtime_release(ort_runtime *runtime)
{
    if (runtime == NULL) {
        return;
    }
    pthread_mutex_lock(&process.lock);
    process.users -= 1;
    if (process.users == 0) {
        end_runtime(runtime);
    }
    pthread_mutex_unlock(&process.lock);
}

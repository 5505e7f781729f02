/* Takes Metal's entry points at run time, and makes the blocks that Metal calls. */
#include "driver/metal/metal_api.h"

#include "os/os.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Blocks ABI: the descriptor holds a signature. */
#define BLOCK_HAS_SIGNATURE (1 << 30)

static void *symbol_from(void *const *libraries, const char *name)
{
    for (; *libraries != NULL; libraries++) {
        void *symbol = umo_os_library_symbol(*libraries, name);
        if (symbol != NULL) {
            return symbol;
        }
    }
    return NULL;
}

static umo_status libraries_open(const char *path, void *out[4], umo_error *error)
{
    static const char *const runtime[] = {"/usr/lib/libobjc.A.dylib", NULL};
    static const char *const foundation[] = {
        "/System/Library/Frameworks/Foundation.framework/Foundation", NULL};
    static const char *const metal[] = {"/System/Library/Frameworks/Metal.framework/Metal", NULL};
    static const char *const *const parts[] = {runtime, foundation, metal};
    if (path != NULL) {
        const char *const names[] = {path, NULL};
        out[0] = umo_os_library_open(names);
        if (out[0] == NULL) {
            return umo_error_set(
                error, UMO_E_NOT_FOUND, 0,
                "UMO_METAL_LIBRARY names a library that does not load; without it, macOS's own "
                "Metal is used");
        }
        return UMO_OK;
    }
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        out[i] = umo_os_library_open(parts[i]);
        if (out[i] == NULL) {
            return umo_error_set(
                error, UMO_E_NOT_FOUND, 0,
                "there is no %s: Metal is part of macOS; elsewhere name another device",
                parts[i][0]);
        }
    }
    return UMO_OK;
}

/* A data symbol and a function pointer are not converted into each other in C11: the bytes are
 * taken over. */
#define TAKE(field, name)                                                                          \
    do {                                                                                           \
        void *symbol = symbol_from(libraries, name);                                               \
        if (symbol == NULL) {                                                                      \
            return umo_error_set(error, UMO_E_NOT_FOUND, 0, "Metal lacks %s", name);               \
        }                                                                                          \
        memcpy(&(field), &symbol, sizeof symbol);                                                  \
    } while (0)

umo_status umo_metal_api_load(const char *path, umo_metal_api *out, umo_error *error)
{
    void *libraries[4] = {NULL};
    umo_status status = libraries_open(path, libraries, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_metal_api api;
    umo_selector (*selector_register)(const char *name);
    umo_id (*class_get)(const char *name);
    memset(&api, 0, sizeof api);
    TAKE(api.send, "objc_msgSend");
    TAKE(api.pool_push, "objc_autoreleasePoolPush");
    TAKE(api.pool_pop, "objc_autoreleasePoolPop");
    TAKE(api.copy_all_devices, "MTLCopyAllDevices");
    TAKE(api.stack_block, "_NSConcreteStackBlock");
    TAKE(selector_register, "sel_registerName");
    TAKE(class_get, "objc_getClass");
#define SELECTOR(field, owner, selector, encoding, result, parameters)                             \
    api.selectors.field = selector_register(selector);
    UMO_METAL_MESSAGES(SELECTOR)
#undef SELECTOR
#define CLASS(field, name) api.classes.field = class_get(name);
    UMO_METAL_CLASSES(CLASS)
#undef CLASS
    *out = api;
    return UMO_OK;
}

static umo_metal_block block_make(const umo_metal_api *api,
                                  const umo_metal_block_descriptor *descriptor, void *context)
{
    return (umo_metal_block){.isa = api->stack_block,
                             .flags = BLOCK_HAS_SIGNATURE,
                             .descriptor = descriptor,
                             .context = context};
}

umo_metal_block umo_metal_completed_block(const umo_metal_api *api,
                                          void (*invoke)(umo_metal_block *block, umo_id command),
                                          void *context)
{
    static const umo_metal_block_descriptor descriptor = {.size_bytes = sizeof(umo_metal_block),
                                                          .signature = "v16@?0@8"};
    umo_metal_block block = block_make(api, &descriptor, context);
    block.invoke = (void (*)(void))invoke;
    return block;
}

umo_metal_block umo_metal_deallocator_block(const umo_metal_api *api,
                                            void (*invoke)(umo_metal_block *block, void *pointer,
                                                           umo_uint length),
                                            void *context)
{
    static const umo_metal_block_descriptor descriptor = {.size_bytes = sizeof(umo_metal_block),
                                                          .signature = "v24@?0^v8Q16"};
    umo_metal_block block = block_make(api, &descriptor, context);
    block.invoke = (void (*)(void))invoke;
    return block;
}

static pthread_mutex_t loaded_lock = PTHREAD_MUTEX_INITIALIZER;
static umo_metal_api loaded;
static bool is_loaded;
static const umo_metal_api *replacement;

umo_status umo_metal_api_get(const umo_metal_api **out, umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&loaded_lock);
    if (replacement == NULL && !is_loaded) {
        status = umo_metal_api_load(getenv("UMO_METAL_LIBRARY"), &loaded, error);
        is_loaded = status == UMO_OK;
    }
    if (status == UMO_OK) {
        *out = replacement != NULL ? replacement : &loaded;
    }
    (void)pthread_mutex_unlock(&loaded_lock);
    return status;
}

void umo_metal_api_replace(const umo_metal_api *api)
{
    (void)pthread_mutex_lock(&loaded_lock);
    replacement = api;
    (void)pthread_mutex_unlock(&loaded_lock);
}

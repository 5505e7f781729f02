/*
 * Takes the OpenCL entry points from the system's loader. No logic of the driver.
 */
#include "driver/opencl/opencl_api.h"

#include "os/os.h"

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define REMEDY                                                                                     \
    "on Debian install ocl-icd-libopencl1 and pocl-opencl-icd (any CPU) or your GPU vendor's ICD"

static pthread_mutex_t load_lock = PTHREAD_MUTEX_INITIALIZER;
static umo_opencl_api system_api;
static bool system_loaded;
static _Atomic(const umo_opencl_api *) replacement;

umo_status umo_opencl_api_load(const char *const *libraries, umo_opencl_api *out, umo_error *error)
{
    void *library = umo_os_library_open(libraries);
    if (library == NULL) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "no OpenCL loader (%s): " REMEDY,
                             libraries[0]);
    }
    umo_opencl_api api;
    void *symbol;
/* A function's address goes through memcpy, since C has no conversion from an object pointer. */
#define TAKE(name)                                                                                 \
    symbol = umo_os_library_symbol(library, #name);                                                \
    if (symbol == NULL) {                                                                          \
        return umo_error_set(error, UMO_E_NOT_FOUND, 0,                                            \
                             "the OpenCL loader (%s) has no " #name ": it is older than OpenCL "   \
                             "1.2; " REMEDY,                                                       \
                             libraries[0]);                                                        \
    }                                                                                              \
    memcpy(&api.name, &symbol, sizeof symbol);
    UMO_OPENCL_CALLS(TAKE)
#undef TAKE
    *out = api;
    return UMO_OK;
}

umo_status umo_opencl_api_get(const umo_opencl_api **out, umo_error *error)
{
    static const char *const libraries[] = {"libOpenCL.so.1", "libOpenCL.so",
                                            "/System/Library/Frameworks/OpenCL.framework/OpenCL",
                                            NULL};
    const umo_opencl_api *replaced = atomic_load_explicit(&replacement, memory_order_acquire);
    if (replaced != NULL) {
        *out = replaced;
        return UMO_OK;
    }
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&load_lock);
    if (!system_loaded) {
        status = umo_opencl_api_load(libraries, &system_api, error);
        system_loaded = status == UMO_OK;
    }
    (void)pthread_mutex_unlock(&load_lock);
    if (status == UMO_OK) {
        *out = &system_api;
    }
    return status;
}

void umo_opencl_api_replace(const umo_opencl_api *api)
{
    atomic_store_explicit(&replacement, api, memory_order_release);
}

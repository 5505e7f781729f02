/*
 * The device calls of device_calls.h as counting hooks.
 *
 * Two ways lead here: a library that is linked with the driver binds to the exported hooks below,
 * and one that opens it at run time gets them from the hooked dlsym (or from CUDA's own
 * cuGetProcAddress). A hook has one real entry point: should a second driver library offer another
 * under the same name, that one is handed out as it is and counted as `unhooked`, so that a reader
 * knows that its figures are a lower bound.
 */
#include "hooks.h"

#include <dlfcn.h>
#include <link.h>

#include "device_calls.h"
#include "spy_table.h"

#define HOOK __attribute__((visibility("default"), noinline))
#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))

enum library {
    OPENCL,
    CUDA,
    CUDART,
};

struct search {
    const char *part;
    const char *name;
};

static bool contains(const char *text, const char *part)
{
    for (; *text != '\0'; text++) {
        size_t i = 0;
        while (part[i] != '\0' && text[i] == part[i]) {
            i++;
        }
        if (part[i] == '\0') {
            return true;
        }
    }
    return false;
}

static int object_match(struct dl_phdr_info *info, size_t size_bytes, void *data)
{
    struct search *search = data;
    (void)size_bytes;
    if (info->dlpi_name != NULL && contains(info->dlpi_name, search->part)) {
        search->name = info->dlpi_name;
        return 1;
    }
    return 0;
}

/* The real entry point for a caller that is linked with the library: it is loaded, though maybe in
 * a local scope. */
static void *real_find(enum library library, const char *name)
{
    static const char *const parts[] = {
        [OPENCL] = "libOpenCL", [CUDA] = "libcuda.so", [CUDART] = "libcudart"};
    void *real = umo_spy_symbol_find(RTLD_NEXT, name);
    if (real == NULL) {
        struct search search = {parts[library], NULL};
        if (dl_iterate_phdr(object_match, &search) != 0) {
            void *handle = dlopen(search.name, RTLD_LAZY | RTLD_NOLOAD);
            real = handle == NULL ? NULL : umo_spy_symbol_find(handle, name);
            if (handle != NULL) {
                dlclose(handle);
            }
        }
    }
    return real;
}

/* `CUDA_KIND` reads the parameter of that name. */
#define KIND_DEVICE_WRITE UMO_SPY_DEVICE_WRITE
#define KIND_DEVICE_READ UMO_SPY_DEVICE_READ
#define KIND_DEVICE_COPY UMO_SPY_DEVICE_COPY
#define KIND_DEVICE_ANY UMO_SPY_DEVICE_ANY
#define KIND_DEVICE_FILL UMO_SPY_DEVICE_FILL
#define KIND_DEVICE_MAP UMO_SPY_DEVICE_MAP
#define KIND_DEVICE_UNMAP UMO_SPY_DEVICE_UNMAP
#define KIND_BY_KIND CUDA_KIND

#define DEFINE_HOOK(library, result, name, parameters, arguments, when, kind_of, bytes, failure)   \
    static void *real_##name;                                                                      \
    HOOK result name parameters;                                                                   \
    result name parameters                                                                         \
    {                                                                                              \
        union {                                                                                    \
            void *object;                                                                          \
            result(*function) parameters;                                                          \
        } real = {__atomic_load_n(&real_##name, __ATOMIC_ACQUIRE)};                                \
        if (real.object == NULL) {                                                                 \
            real.object = real_find(library, #name);                                               \
            __atomic_store_n(&real_##name, real.object, __ATOMIC_RELEASE);                         \
        }                                                                                          \
        if (real.object == NULL) {                                                                 \
            return failure;                                                                        \
        }                                                                                          \
        if (when) {                                                                                \
            umo_spy_call_count(KIND_##kind_of, bytes, CALLER);                                     \
        }                                                                                          \
        return real.function arguments;                                                            \
    }
UMO_SPY_DEVICE_CALLS(DEFINE_HOOK)
#undef DEFINE_HOOK

/* CUDA hands out its entry points by a call of its own, under names without the version suffix. */
typedef int proc_address_function(const char *, void **, int, uint64_t);
typedef int proc_address_v2_function(const char *, void **, int, uint64_t, void *);

static void *real_cuGetProcAddress;
static void *real_cuGetProcAddress_v2;

HOOK int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags);
HOOK int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags,
                             void *status);

struct hook {
    const char *name;
    void **real;
    union {
        void (*code)(void);
        void *object;
    };
};

static const struct hook hooks[] = {
#define HOOK_ROW(library, result, function, parameters, arguments, when, kind_of, bytes, failure)  \
    {#function, &real_##function, {.code = (void (*)(void))function}},
    UMO_SPY_DEVICE_CALLS(HOOK_ROW)
#undef HOOK_ROW
        {"cuGetProcAddress", &real_cuGetProcAddress, {.code = (void (*)(void))cuGetProcAddress}},
    {"cuGetProcAddress_v2",
     &real_cuGetProcAddress_v2,
     {.code = (void (*)(void))cuGetProcAddress_v2}},
};

/* The hook to hand out in place of `real`, which it remembers; `real` itself if the hook already
 * has another. */
static void *hook_bind(const struct hook *hook, void *real)
{
    void *known = NULL;
    if (__atomic_compare_exchange_n(hook->real, &known, real, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE) ||
        known == real || real == hook->object) {
        return hook->object;
    }
    umo_spy_unhooked_count();
    return real;
}

static const struct hook *hook_by_name(const char *name)
{
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        if (umo_spy_names_equal(hooks[i].name, name)) {
            return &hooks[i];
        }
    }
    return NULL;
}

static bool joined_equal(const char *name, const char *base, const char *suffix)
{
    size_t i = 0;
    while (base[i] != '\0' && name[i] == base[i]) {
        i++;
    }
    return base[i] == '\0' && umo_spy_names_equal(name + i, suffix);
}

/* The driver answers for "cuMemcpyHtoD" with the newest version that the caller's version number
 * allows: its entry point is the hooked one under one of these suffixes, told by its address. */
static void proc_address_replace(const char *name, void **out)
{
    static const char *const suffixes[] = {"", "_v2", "_ptds", "_ptsz", "_v2_ptds", "_v2_ptsz"};
    bool is_copy = false;
    if (name == NULL || out == NULL || *out == NULL) {
        return;
    }
    for (size_t i = 0; i < sizeof hooks / sizeof *hooks; i++) {
        for (size_t j = 0; j < sizeof suffixes / sizeof *suffixes; j++) {
            if (!joined_equal(hooks[i].name, name, suffixes[j])) {
                continue;
            }
            is_copy = true;
            void *real = __atomic_load_n(hooks[i].real, __ATOMIC_ACQUIRE);
            if (real == NULL) {
                real = real_find(CUDA, hooks[i].name);
            }
            if (real == *out) {
                *out = hook_bind(&hooks[i], real);
                return;
            }
        }
    }
    if (is_copy) {
        umo_spy_unhooked_count();
    }
}

int cuGetProcAddress(const char *name, void **out, int version, uint64_t flags)
{
    union {
        void *object;
        proc_address_function *function;
    } real = {__atomic_load_n(&real_cuGetProcAddress, __ATOMIC_ACQUIRE)};
    if (real.object == NULL) {
        real.object = real_find(CUDA, "cuGetProcAddress");
    }
    if (real.object == NULL) {
        return CUDA_LINK_ERROR;
    }
    int status = real.function(name, out, version, flags);
    if (status == 0) {
        proc_address_replace(name, out);
    }
    return status;
}

int cuGetProcAddress_v2(const char *name, void **out, int version, uint64_t flags, void *status_out)
{
    union {
        void *object;
        proc_address_v2_function *function;
    } real = {__atomic_load_n(&real_cuGetProcAddress_v2, __ATOMIC_ACQUIRE)};
    if (real.object == NULL) {
        real.object = real_find(CUDA, "cuGetProcAddress_v2");
    }
    if (real.object == NULL) {
        return CUDA_LINK_ERROR;
    }
    int status = real.function(name, out, version, flags, status_out);
    if (status == 0) {
        proc_address_replace(name, out);
    }
    return status;
}

void *umo_spy_hook_find(void *handle, const char *name)
{
    const struct hook *hook = NULL;
    void *real = NULL;
    if (name[0] == 'c' && (name[1] == 'l' || name[1] == 'u')) {
        hook = hook_by_name(name);
        real = hook == NULL ? NULL : umo_spy_symbol_find(handle, name);
        return real == NULL ? NULL : hook_bind(hook, real);
    }
    void *host = umo_spy_host_hook_find(name);
    return host == NULL || umo_spy_symbol_find(handle, name) == NULL ? NULL : host;
}

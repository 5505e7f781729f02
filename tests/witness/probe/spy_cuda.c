/*
 * CUDA's calls that move bytes, once each, in known amounts, through its driver alone and without
 * its headers: by dlsym
 * ("dlsym") or by the driver's own way of handing out entry points ("proc"), as its run-time
 * library does it.
 */
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__attribute__((visibility("default"))) int cuda_run(const char *how);

#define BLOCK_BYTES ((size_t)1 << 20)
#define IN_HOST_MEMORY 1
#define IN_DEVICE_MEMORY 2

typedef union {
    void *object;
    int (*proc)(const char *, void **, int, uint64_t, int *);
    int (*init)(unsigned);
    int (*device)(int *, int);
    int (*retain)(void **, int);
    int (*release)(int);
    int (*context)(void *);
    int (*alloc)(uint64_t *, size_t);
    int (*free)(uint64_t);
    int (*synchronize)(void);
    int (*linear)(uint64_t, uint64_t, size_t);
    int (*linear_async)(uint64_t, uint64_t, size_t, void *);
    int (*write)(uint64_t, const void *, size_t);
    int (*write_async)(uint64_t, const void *, size_t, void *);
    int (*read)(void *, uint64_t, size_t);
    int (*read_async)(void *, uint64_t, size_t, void *);
    int (*block)(const size_t *);
} entry;

static void *driver;
static char host[2 * BLOCK_BYTES];
static entry proc_address;

static entry get(const char *name)
{
    entry found = {NULL};
    if (proc_address.object == NULL) {
        found.object = dlsym(driver, name);
    } else {
        /* Without the suffix of the version: the number asks for it. */
        char plain[64];
        int status = 0;
        snprintf(plain, sizeof plain, "%s", name);
        char *suffix = strstr(plain, "_v2");
        if (suffix != NULL) {
            *suffix = '\0';
        }
        if (proc_address.proc(plain, &found.object, 12000, 0, &status) != 0) {
            found.object = NULL;
        }
    }
    if (found.object == NULL) {
        fprintf(stderr, "no %s\n", name);
        exit(1);
    }
    return found;
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        int try_status = (call);                                                                   \
        if (try_status != 0) {                                                                     \
            fprintf(stderr, "%s: %d\n", #call, try_status);                                        \
            return 1;                                                                              \
        }                                                                                          \
    } while (0)

/* Rows of 100 bytes from host to device; `words` is the parameter structure of the second version,
 * every field a word. */
static int pitched_copies(uint64_t device)
{
    size_t plane[16] = {0};
    plane[2] = IN_HOST_MEMORY;
    plane[3] = (size_t)host;
    plane[6] = 128;
    plane[9] = IN_DEVICE_MEMORY;
    plane[11] = device;
    plane[13] = 256;
    plane[14] = 100;
    plane[15] = 200;
    TRY(get("cuMemcpy2D_v2").block(plane)); /* 20,000 bytes */
    size_t volume[25] = {0};
    volume[4] = IN_HOST_MEMORY;
    volume[5] = (size_t)host;
    volume[9] = 100;
    volume[10] = 20;
    volume[15] = IN_DEVICE_MEMORY;
    volume[17] = device;
    volume[20] = 100;
    volume[21] = 20;
    volume[22] = 100;
    volume[23] = 20;
    volume[24] = 30;
    TRY(get("cuMemcpy3D_v2").block(volume)); /* 60,000 bytes */
    return 0;
}

int cuda_run(const char *how)
{
    int device = 0;
    void *context = NULL;
    uint64_t a = 0;
    uint64_t b = 0;
    driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (driver == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        return 77;
    }
    if (strcmp(how, "proc") == 0) {
        proc_address.object = dlsym(driver, "cuGetProcAddress_v2");
        if (proc_address.object == NULL) {
            return 77;
        }
    }
    if (get("cuInit").init(0) != 0 || get("cuDeviceGet").device(&device, 0) != 0) {
        fprintf(stderr, "no device\n");
        return 77;
    }
    TRY(get("cuDevicePrimaryCtxRetain").retain(&context, device));
    TRY(get("cuCtxSetCurrent").context(context));
    TRY(get("cuMemAlloc_v2").alloc(&a, BLOCK_BYTES));
    TRY(get("cuMemAlloc_v2").alloc(&b, BLOCK_BYTES));
    host[0] = 42;
    TRY(get("cuMemcpyHtoD_v2").write(a, host, 1000000));
    TRY(get("cuMemcpyHtoDAsync_v2").write_async(a, host, 500000, NULL));
    TRY(get("cuMemcpyDtoD_v2").linear(b, a, 900000));
    TRY(get("cuMemcpyDtoDAsync_v2").linear_async(b, a, 400000, NULL));
    TRY(get("cuMemcpyDtoH_v2").read(host + BLOCK_BYTES, b, 800000));
    TRY(get("cuMemcpyDtoHAsync_v2").read_async(host + BLOCK_BYTES, b, 300000, NULL));
    TRY(get("cuMemcpy").linear(b, a, 700000));
    TRY(get("cuMemcpyAsync").linear_async(b, a, 200000, NULL));
    TRY(pitched_copies(a));
    TRY(get("cuCtxSynchronize").synchronize());
    if (host[BLOCK_BYTES] != 42) {
        fprintf(stderr, "the copies do not arrive\n");
        return 1;
    }
    TRY(get("cuMemFree_v2").free(a));
    TRY(get("cuMemFree_v2").free(b));
    TRY(get("cuDevicePrimaryCtxRelease_v2").release(device));
    return 0;
}

/*
 * Is it worth binding? Measured on the very way that a request takes, since what a binding costs (a
 * call, a wait, an entry in some table) is known to nobody but the driver, and a copy costs its
 * bytes. The sizes are few and far apart: near the crossing both cost the same.
 */
#include "access/calibration.h"

#include "driver/device.h"
#include "os/os.h"

#include <umo/region.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SMALLEST_BYTES ((size_t)4 << 10)
#define DEFAULT_BYTES ((uint64_t)1 << 20)
#define KNOWN_MAX 8

enum {
    SIZES = 6, /* each four times the one before */
    ROUNDS = 7,
    WAYS = 3
};

typedef enum way {
    WAY_COPY,
    WAY_IMPORT,
    WAY_CACHED
} way;

typedef struct trial {
    umo_device *device;
    umo_scope *scope;
    umo_registry *registry;
    umo_region *region;
    umo_buffer *prepared;
    char *memory;
    size_t memory_bytes;
    uint64_t best_ns[WAYS][SIZES];
    bool works[WAYS];
} trial;

typedef struct known_device {
    char text[sizeof((umo_calibration_key *)NULL)->text]; /* empty: a free entry */
    umo_zero_copy answer;
} known_device;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* held while one is measured */
static known_device known[KNOWN_MAX];
static size_t known_next;

/* A bracket in which nothing happens but what the side needs to see the bytes. */
static umo_status bracket(umo_buffer *buffer, size_t size_bytes, umo_side side, umo_use use,
                          const char *copied)
{
    const umo_access access = {.size_bytes = size_bytes, .side = side, .use = use};
    umo_fence_set waits;
    umo_status status = umo_access_begin(buffer, &access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (copied != NULL) {
        memcpy(umo_buffer_host(buffer), copied, size_bytes);
    }
    umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
    return status != UMO_OK ? status : ended;
}

static umo_status use_once(const trial *t, way how, size_t size_bytes)
{
    if (how == WAY_COPY) {
        umo_status status = bracket(t->prepared, size_bytes, UMO_SIDE_HOST, UMO_WRITE, t->memory);
        return status != UMO_OK ? status
                                : bracket(t->prepared, size_bytes, UMO_SIDE_DEVICE, UMO_READ, NULL);
    }
    umo_buffer *buffer = NULL;
    const umo_import import = {.data = t->memory, .size_bytes = size_bytes};
    umo_status status = how == WAY_IMPORT
                            ? umo_buffer_import(t->device, t->scope, &import, &buffer, NULL, NULL)
                            : umo_registry_wrap(t->registry, t->device, t->scope, t->memory,
                                                size_bytes, false, &buffer, NULL, NULL);
    if (status == UMO_OK) {
        status = bracket(buffer, size_bytes, UMO_SIDE_DEVICE, UMO_READ, NULL);
    }
    umo_buffer_release(buffer);
    return status;
}

/* The ways take turns, so that what disturbs one moment does not disturb one of them alone; the
 * least counts, since a disturbance only ever adds. */
static void measure(trial *t)
{
    for (int round = -1; round < ROUNDS; round++) { /* the first one warms up */
        for (int size = 0; size < SIZES; size++) {
            for (int how = 0; how < WAYS; how++) {
                size_t size_bytes = SMALLEST_BYTES << (2 * size);
                uint64_t start_ns = umo_os_now_ns();
                t->works[how] = t->works[how] && use_once(t, (way)how, size_bytes) == UMO_OK;
                uint64_t took_ns = umo_os_now_ns() - start_ns;
                if (round >= 0 && took_ns < t->best_ns[how][size]) {
                    t->best_ns[how][size] = took_ns;
                }
            }
        }
    }
}

static uint64_t crossing(const trial *t, way how)
{
    uint64_t from_bytes = UINT64_MAX;
    for (int size = SIZES - 1; size >= 0 && t->works[how]; size--) {
        if (t->best_ns[how][size] > t->best_ns[WAY_COPY][size]) {
            break;
        }
        from_bytes = SMALLEST_BYTES << (2 * size);
    }
    /* The least size stands for all below it: a page is the least that devices bind. */
    return from_bytes == SMALLEST_BYTES ? 0 : from_bytes;
}

static bool trial_open(trial *t)
{
    size_t largest = SMALLEST_BYTES << (2 * (SIZES - 1));
    if (t->device->info.buffer_max_bytes < largest ||
        umo_scope_create(NULL, "zero-copy", 0, &t->scope, NULL) != UMO_OK) {
        return false;
    }
    t->memory_bytes = largest;
    t->memory = umo_os_pages_alloc(largest);
    if (t->memory == NULL) {
        return false;
    }
    memset(t->memory, 1, largest);
    return umo_buffer_alloc(t->device, t->scope, largest, UMO_UNIFIED, &t->prepared, NULL) ==
               UMO_OK &&
           umo_registry_create(NULL, t->scope, &t->registry, NULL) == UMO_OK &&
           umo_region_register(t->registry, t->memory, largest, true, &t->region, NULL) == UMO_OK;
}

static void trial_close(trial *t)
{
    umo_region_release(t->region);
    umo_registry_destroy(t->registry);
    umo_buffer_release(t->prepared);
    if (t->memory != NULL) {
        umo_os_pages_free(t->memory, t->memory_bytes);
    }
    umo_scope_destroy(t->scope);
}

static umo_zero_copy device_measure(umo_device *device)
{
    umo_zero_copy answer = {.import_bytes = DEFAULT_BYTES, .cached_bytes = DEFAULT_BYTES};
    trial t = {.device = device, .works = {true, true, true}};
    memset(t.best_ns, 0xff, sizeof t.best_ns);
    if (trial_open(&t)) {
        measure(&t);
        if (t.works[WAY_COPY]) {
            answer.import_bytes = crossing(&t, WAY_IMPORT);
            answer.cached_bytes = crossing(&t, WAY_CACHED);
            if (answer.cached_bytes > answer.import_bytes) {
                answer.cached_bytes = answer.import_bytes;
            }
            answer.measured = true;
        }
    }
    trial_close(&t);
    return answer;
}

void umo_device_zero_copy(umo_device *device, umo_zero_copy *out)
{
    umo_calibration_key key;
    const char *wish = getenv("UMO_CALIBRATION");
    *out = (umo_zero_copy){.import_bytes = DEFAULT_BYTES, .cached_bytes = DEFAULT_BYTES};
    if ((wish != NULL && strcmp(wish, "off") == 0) ||
        !umo_calibration_key_make(&device->info, NULL, true, &key)) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    known_device *entry = NULL;
    for (size_t i = 0; i < KNOWN_MAX && entry == NULL; i++) {
        entry = strcmp(known[i].text, key.text) == 0 ? &known[i] : NULL;
    }
    if (entry == NULL) {
        entry = &known[known_next];
        known_next = (known_next + 1) % KNOWN_MAX;
        entry->answer = device_measure(device);
        memcpy(entry->text, key.text, sizeof entry->text);
    }
    *out = entry->answer;
    (void)pthread_mutex_unlock(&lock);
}

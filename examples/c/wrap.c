/*
 * Memory of one's own, used by host and device where it lies: wrap it, open a bracket for each use,
 * read what was saved from the counters. Build it with
 *
 *     cc wrap.c $(pkg-config --cflags --libs umo) -o wrap
 */
#define _POSIX_C_SOURCE 200809L
#include <umo/umo.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define SIZE_BYTES ((size_t)16 << 20)

/* The best device there is; the host itself is one, on every machine. */
static umo_status open_device(umo_context *context, umo_device **out, umo_error *error)
{
    static const char *const drivers[] = {"metal", "opencl", "host"};
    umo_status status = UMO_E_NOT_FOUND;
    for (size_t i = 0; i < sizeof drivers / sizeof drivers[0] && status != UMO_OK; i++) {
        status = umo_context_device(context, drivers[i], 0, out, error);
    }
    return status;
}

/* The device writes: the command waits for the bracket's fences, its own fence ends the bracket. */
static umo_status fill_on_device(umo_device *device, umo_buffer *buffer, umo_error *error)
{
    const umo_access use = {.size_bytes = SIZE_BYTES, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE};
    const unsigned char pattern[4] = {1, 2, 3, 4};
    umo_fence_set waits;
    umo_fence done = {0};
    umo_status status = umo_access_begin(buffer, &use, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_device_fill(device, use.queue, umo_buffer_memory(buffer),
                             umo_buffer_memory_offset(buffer), SIZE_BYTES, pattern, sizeof pattern,
                             waits.fences, waits.count, &done, error);
    umo_status ended = status == UMO_OK ? umo_access_end(buffer, &use, done)
                                        : umo_access_abort(buffer, &use, done);
    return status == UMO_OK ? ended : status;
}

/* The host reads: it waits itself. */
static umo_status check_on_host(umo_buffer *buffer, const unsigned char *mine, bool *right)
{
    const umo_access use = {.size_bytes = SIZE_BYTES, .side = UMO_SIDE_HOST, .use = UMO_READ};
    umo_fence_set waits;
    umo_status status = umo_access_begin(buffer, &use, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    *right = status == UMO_OK && umo_buffer_host(buffer) == mine;
    for (size_t i = 0; *right && i < SIZE_BYTES; i++) {
        *right = mine[i] == 1 + i % 4;
    }
    umo_status ended = umo_access_end(buffer, &use, (umo_fence){0});
    return status == UMO_OK ? ended : status;
}

int main(void)
{
    umo_error error = {0};
    umo_context *context = NULL;
    umo_device *device = NULL;
    umo_buffer *buffer = NULL;
    umo_reason why = UMO_REASON_NONE;
    bool right = false;
    void *memory = NULL;
    umo_status status = posix_memalign(&memory, 65536, SIZE_BYTES) == 0 ? UMO_OK : UMO_E_NOMEM;
    if (status == UMO_OK) {
        status = umo_context_create(NULL, &context, &error);
    }
    if (status == UMO_OK) {
        status = open_device(context, &device, &error);
    }
    if (status == UMO_OK) {
        const umo_import mine = {.data = memory, .size_bytes = SIZE_BYTES, .writable = true};
        status =
            umo_buffer_import(device, umo_context_scope(context), &mine, &buffer, &why, &error);
    }
    if (status == UMO_OK) {
        status = fill_on_device(device, buffer, &error);
    }
    if (status == UMO_OK) {
        status = check_on_host(buffer, memory, &right);
    }
    if (status == UMO_OK) {
        umo_counters counted;
        umo_scope_read(umo_context_scope(context), &counted);
        printf("device: %s\n", umo_device_info_get(device)->name);
        printf("the device wrote into this program's memory: %s\n", right ? "yes" : "no");
        printf("transfers: %" PRIu64 " bytes performed, %" PRIu64 " eliminated\n",
               counted.transfer_performed[UMO_DIRECTION_OUT].bytes,
               counted.transfer_eliminated[UMO_DIRECTION_OUT].bytes);
    } else {
        fprintf(stderr, "%s: %s\n", umo_status_name(status), error.text);
        if (why != UMO_REASON_NONE) {
            fprintf(stderr, "%s; %s\n", umo_reason_cause(why), umo_reason_remedy(why));
        }
    }
    umo_buffer_release(buffer);
    umo_device_release(device);
    umo_context_destroy(context);
    free(memory);
    return status == UMO_OK && right ? EXIT_SUCCESS : EXIT_FAILURE;
}

/*
 * Kernels of mac_probe as a GPU would run them on which a claim does not hold: each must be
 * noticed. Named before the right ones, they take their places.
 */
#include "fake_metal.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Of the fake; the message that is sent here has these arguments. */
void *objc_msgSend(void *self, const char *selector, uint64_t length, uint64_t options);
void *MTLCreateSystemDefaultDevice(void);
const char *sel_registerName(const char *name);

/* A GPU that worked on a copy of the memory. With WRONG_HANG="N FILE" it works, and hangs at the
 * Nth time, and the process's number is in the file then. */
static void xor_elsewhere(void *const *args, const size_t global[3])
{
    static unsigned times;
    const char *wish = getenv("WRONG_HANG");
    const uint32_t *from = args[0];
    uint32_t *to = args[1];
    const uint32_t *key = args[2];
    char *file;
    if (wish == NULL) {
        return;
    }
    if (++times == strtoul(wish, &file, 10)) {
        FILE *told = fopen(file + 1, "w");
        if (told == NULL) {
            abort();
        }
        (void)fprintf(told, "%ld\n", (long)getpid());
        (void)fclose(told);
        for (;;) {
            (void)pause();
        }
    }
    for (size_t i = 0; i < global[0]; i++) {
        to[i] = from[i] ^ *key;
    }
}

/* A GPU that copies what it is given; with WRONG_HOARD into memory that Metal counts, else into the
 * process's. */
static void touch_hoards(void *const *args, const size_t global[3])
{
    static volatile char *hoard;
    const size_t hoard_bytes = (size_t)64 << 20;
    const uint32_t *words = args[0];
    uint32_t *found = args[1];
    const uint32_t *step = args[2];
    for (size_t i = 0; i < global[0]; i++) {
        found[i] = words[i * *step];
    }
    if (getenv("WRONG_HOARD") != NULL) {
        (void)objc_msgSend(MTLCreateSystemDefaultDevice(),
                           sel_registerName("newBufferWithLength:options:"),
                           global[0] > 1 ? hoard_bytes : 4096, 0);
        return;
    }
    hoard = hoard == NULL ? malloc(hoard_bytes) : hoard; /* once is enough */
    for (size_t at = 0; hoard != NULL && at < hoard_bytes; at += 4096) {
        hoard[at] = 1;
    }
}

/* Commands that overtook each other. */
static void step_in_any_order(void *const *args, const size_t global[3])
{
    uint32_t *words = args[0];
    const uint32_t *by = args[1];
    for (size_t i = 0; i < global[0]; i++) {
        words[i] = words[i] * 3 + (*by ^ 1);
    }
}

/* A value that comes after its fence. */
static void one_is_late(void *const *args, const size_t global[3])
{
    static uint32_t last;
    uint32_t *words = args[0];
    const uint32_t *value = args[1];
    (void)global;
    words[0] = last;
    last = *value;
}

/* A cache that writes back 256 bytes around the one it changed. */
static void poke_writes_lines(void *const *args, const size_t global[3])
{
    enum {
        LINE = 256,
        POINTS_MAX = 256
    };
    static unsigned char lines[POINTS_MAX][LINE];
    unsigned char *bytes = args[0];
    const uint32_t *step = args[1];
    const uint32_t *value = args[2];
    const struct timespec pause = {.tv_nsec = 2000000};
    for (size_t i = 0; i < global[0] && i < POINTS_MAX; i++) {
        memcpy(lines[i], bytes + i * *step + *step / 2 - LINE / 2, LINE);
        lines[i][LINE / 2] = (unsigned char)*value;
    }
    (void)nanosleep(&pause, NULL);
    for (size_t i = 0; i < global[0] && i < POINTS_MAX; i++) {
        memcpy(bytes + i * *step + *step / 2 - LINE / 2, lines[i], LINE);
    }
}

FAKE_METAL_API extern const fake_metal_kernel fake_metal_kernels[];
const fake_metal_kernel fake_metal_kernels[] = {
    {.name = "probe_xor", .run = xor_elsewhere},      {.name = "probe_touch", .run = touch_hoards},
    {.name = "probe_step", .run = step_in_any_order}, {.name = "probe_one", .run = one_is_late},
    {.name = "probe_poke", .run = poke_writes_lines}, {.name = NULL},
};

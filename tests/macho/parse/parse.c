/*
 * Reads Mach-O files as the loader does, up to the point where code would run, on any machine and
 * under the sanitizers: whatever a file holds, the answer is yes or a reason.
 *
 *   macho_parse check FILE            "ok", or status 2 and the reason
 *   macho_parse truncate FILE         every shorter file must be refused
 *   macho_parse mutate FILE SEED MS   changes bytes at random for some milliseconds
 */
#include "image.h"
#include "runtime.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* No code runs here: thread-local variables are never asked for. */
void macho_tlv_get(void)
{
    abort();
}

/* Everything is found: what would be missing is not the file's fault. */
static bool resolve(macho_image *image, int ordinal, const char *symbol, uint64_t *out_address)
{
    (void)image;
    *out_address = 0x1000 + strlen(symbol) + (uint64_t)(ordinal & 0xff);
    return true;
}

static bool try(const char *path, macho_error *error)
{
    error->text[0] = '\0';
    macho_image *image = macho_image_map(path, error);
    if (image == NULL) {
        return false;
    }
    uint64_t address = 0;
    bool ok = macho_image_fix(image, resolve, error);
    (void)macho_image_export(image, "_library_answer", &address);
    (void)macho_image_export(image, "_no_such_symbol", &address);
    (void)macho_image_export(image, "__mh_execute_header", &address);
    for (size_t i = 0; i < image->section_count; i++) {
        (void)macho_image_at(image, image->sections[i].address, (size_t)image->sections[i].size);
    }
    macho_image_unmap(image);
    if (!ok && error->text[0] == '\0') {
        (void)fprintf(stderr, "refused without a reason\n");
        abort();
    }
    return ok;
}

typedef struct scratch {
    int fd;
    char path[64];
} scratch;

static scratch scratch_open(void)
{
    scratch s = {.fd = memfd_create("macho_parse", MFD_CLOEXEC)};
    (void)snprintf(s.path, sizeof s.path, "/proc/self/fd/%d", s.fd);
    return s;
}

static void scratch_write(const scratch *s, const uint8_t *bytes, size_t size)
{
    if (ftruncate(s->fd, 0) != 0 || pwrite(s->fd, bytes, size, 0) != (ssize_t)size) {
        perror("scratch");
        exit(1);
    }
}

static uint8_t *file_read(const char *path, size_t *out_size)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        perror(path);
        exit(1);
    }
    *out_size = (size_t)ftell(file);
    rewind(file);
    uint8_t *bytes = malloc(*out_size + 1);
    if (bytes == NULL || fread(bytes, 1, *out_size, file) != *out_size) {
        perror(path);
        exit(1);
    }
    (void)fclose(file);
    return bytes;
}

static int truncate_all(const uint8_t *bytes, size_t size)
{
    scratch s = scratch_open();
    macho_error error;
    size_t refused = 0;
    /* Every length up to the end of the load commands, then in steps. */
    for (size_t length = 0; length < size; length += length < 4096 ? 1 : 61) {
        scratch_write(&s, bytes, length);
        if (try(s.path, &error)) {
            printf("accepted with %zu of %zu bytes\n", length, size);
            return 1;
        }
        refused++;
    }
    printf("%zu refused\n", refused);
    return 0;
}

static uint64_t random_next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t random_below(uint64_t *state, size_t limit)
{
    return (size_t)(random_next(state) % limit);
}

/* A byte, or a number of 4 or 8 bytes, in the load commands or in the tables at the end. */
static void mutate(uint8_t *bytes, size_t size, uint64_t *state)
{
    static const uint64_t odd[] = {0,          1,          7,          0xff,      0x7fffffff,
                                   0x80000000, 0xffffffff, UINT64_MAX, INT64_MAX, 0x4000};
    size_t head = size < 2048 ? size : 2048;
    size_t tail = size / 3;
    size_t at = random_next(state) % 2 == 0 ? random_below(state, head)
                                            : size - 1 - random_below(state, tail);
    switch (random_next(state) % 4) {
    case 0:
        bytes[at] ^= (uint8_t)(1u << random_below(state, 8));
        break;
    case 1:
        bytes[at] = (uint8_t)random_next(state);
        break;
    default: {
        uint64_t value = odd[random_below(state, sizeof odd / sizeof odd[0])];
        size_t width = random_next(state) % 2 == 0 ? 4 : 8;
        at -= at % 4;
        if (size - at >= width) {
            memcpy(bytes + at, &value, width);
        }
    }
    }
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int mutate_for(const uint8_t *bytes, size_t size, uint64_t seed, uint64_t ms)
{
    scratch s = scratch_open();
    macho_error error;
    uint64_t state = seed * 2 + 1;
    uint64_t end = now_ms() + ms;
    size_t accepted = 0;
    size_t refused = 0;
    uint8_t *copy = malloc(size);
    while (copy != NULL && now_ms() < end) {
        memcpy(copy, bytes, size);
        for (size_t i = 1 + random_below(&state, 4); i > 0; i--) {
            mutate(copy, size, &state);
        }
        scratch_write(&s, copy, size);
        if (try(s.path, &error)) {
            accepted++;
        } else {
            refused++;
        }
    }
    free(copy);
    printf("%zu refused, %zu accepted\n", refused, accepted);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "check") == 0) {
        macho_error error;
        bool ok = try(argv[2], &error);
        puts(ok ? "ok" : error.text);
        return ok ? 0 : 2;
    }
    size_t size = 0;
    int rc = 2;
    uint8_t *bytes = argc > 2 ? file_read(argv[2], &size) : NULL;
    if (argc == 3 && strcmp(argv[1], "truncate") == 0) {
        rc = truncate_all(bytes, size);
    } else if (argc == 5 && strcmp(argv[1], "mutate") == 0) {
        rc = mutate_for(bytes, size, strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10));
    } else {
        (void)fprintf(stderr, "usage: macho_parse check|truncate FILE | mutate FILE SEED MS\n");
    }
    free(bytes);
    return rc;
}

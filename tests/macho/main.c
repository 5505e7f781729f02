/*
 * macho_run PROGRAM [ARGUMENT...]: runs a program built for macOS on arm64 on an arm64 Linux, with
 * 16 KiB pages. A file that cannot be run ends with status 2 and one line that says why; else the
 * program's own status is returned.
 */
#include "regions.h"
#include "runtime.h"

#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static macho_image *first;
static macho_image *last;
static char **arguments;
static int argument_count;
extern char **environ;

void macho_die(const char *format, ...)
{
    va_list args;
    (void)fflush(stdout);
    (void)fprintf(stderr, "macho_run: ");
    va_start(args, format);
    (void)vfprintf(stderr, format, args);
    va_end(args);
    (void)fprintf(stderr, "\n");
    _exit(MACHO_STATUS_BROKEN);
}

macho_image *macho_first_image(void)
{
    return first;
}

macho_image *macho_main_image(void)
{
    for (macho_image *image = first; image != NULL; image = image->next) {
        if (image->type == MACHO_EXECUTE) {
            return image;
        }
    }
    return NULL;
}

macho_image *macho_image_of(const void *address)
{
    uintptr_t wanted = (uintptr_t)address;
    for (macho_image *image = first; image != NULL; image = image->next) {
        uintptr_t base = (uintptr_t)image->base;
        if (wanted >= base && wanted - base < image->mapped_bytes) {
            return image;
        }
    }
    return NULL;
}

/* What is looked up by name alone: in all images, in the system's library, and in the fake Metal,
 * whose controls a test may call. */
static bool resolve_flat(const char *symbol, uint64_t *out_address)
{
    for (macho_image *image = first; image != NULL; image = image->next) {
        if (macho_image_export(image, symbol, out_address)) {
            return true;
        }
    }
    return macho_bridge_find(symbol, out_address) || macho_fake_find(symbol, out_address);
}

static bool resolve(macho_image *image, int ordinal, const char *symbol, uint64_t *out_address)
{
    switch (ordinal) {
    case MACHO_ORDINAL_SELF:
        return macho_image_export(image, symbol, out_address);
    case MACHO_ORDINAL_MAIN:
        return macho_image_export(macho_main_image(), symbol, out_address);
    case MACHO_ORDINAL_FLAT:
    case MACHO_ORDINAL_WEAK:
        return resolve_flat(symbol, out_address);
    default:
        break;
    }
    if (ordinal < 0 || (size_t)ordinal > image->dylib_count) {
        return false;
    }
    const macho_dylib *from = &image->dylibs[ordinal - 1];
    if (from->missing) {
        return false;
    }
    return from->image != NULL ? macho_image_export(from->image, symbol, out_address)
                               : macho_bridge_find(symbol, out_address);
}

/* dirname(path) + "/" + rest. */
static bool beside(const char *path, const char *rest, char out[PATH_MAX])
{
    const char *slash = strrchr(path, '/');
    int folder = slash == NULL ? 1 : (int)(slash - path);
    int length = snprintf(out, PATH_MAX, "%.*s/%s", folder, slash == NULL ? "." : path, rest);
    return length > 0 && length < PATH_MAX;
}

/* "@loader_path" and "@executable_path", alone or as the first part of a path. */
static bool expand(const macho_image *by, const char *name, char out[PATH_MAX])
{
    const struct {
        const char *word;
        const macho_image *image;
    } words[] = {{"@loader_path", by}, {"@executable_path", macho_main_image()}};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        size_t length = strlen(words[i].word);
        const char *rest = name + length;
        if (strncmp(name, words[i].word, length) == 0 && (*rest == '/' || *rest == '\0') &&
            words[i].image != NULL) {
            return beside(words[i].image->path, *rest == '/' ? rest + 1 : ".", out);
        }
    }
    return snprintf(out, PATH_MAX, "%s", name) < PATH_MAX;
}

/* @rpath is tried in every run path of the image and of the program. */
bool macho_dylib_find(const macho_image *by, const char *name, char out[PATH_MAX])
{
    static const char rpath[] = "@rpath/";
    if (strncmp(name, rpath, sizeof rpath - 1) != 0) {
        return expand(by, name, out) && access(out, R_OK) == 0;
    }
    const char *rest = name + sizeof rpath - 1;
    const macho_image *sources[] = {by, macho_main_image()};
    for (size_t s = 0; s < 2 && sources[s] != NULL; s++) {
        for (size_t i = 0; i < sources[s]->rpath_count; i++) {
            char folder[PATH_MAX];
            char file[PATH_MAX * 2];
            if (!expand(sources[s], sources[s]->rpaths[i], folder)) {
                continue;
            }
            (void)snprintf(file, sizeof file, "%s/%s", folder, rest);
            if (access(file, R_OK) == 0 && strlen(file) < PATH_MAX) {
                (void)strcpy(out, file);
                return true;
            }
        }
    }
    return false;
}

static macho_image *loaded_already(const char *path)
{
    char real[PATH_MAX];
    if (realpath(path, real) == NULL) {
        return NULL;
    }
    for (macho_image *image = first; image != NULL; image = image->next) {
        if (strcmp(image->path, real) == 0) {
            return image;
        }
    }
    return NULL;
}

static macho_image *image_add(const char *path, macho_error *error);

static bool dylibs_add(macho_image *image, macho_error *error)
{
    for (size_t i = 0; i < image->dylib_count; i++) {
        macho_dylib *dylib = &image->dylibs[i];
        char path[PATH_MAX];
        if (strcmp(dylib->name, "/usr/lib/libSystem.B.dylib") == 0) {
            continue;
        }
        if (!macho_dylib_find(image, dylib->name, path)) {
            dylib->missing = true;
            if (dylib->weak) {
                continue;
            }
            return macho_fail(error, "needs %s, which is not there", dylib->name);
        }
        macho_error inner = {""};
        dylib->image = image_add(path, &inner);
        if (dylib->image == NULL) {
            return macho_fail(error, "needs %s: %.900s", dylib->name, inner.text);
        }
    }
    return true;
}

/* Enters the main thread's stack, which the emulator leaves out of /proc/self/maps; under this name
 * it is the host's own map, whose addresses are ours. */
static void stack_note(void)
{
    uintptr_t here = (uintptr_t)__builtin_frame_address(0);
    FILE *maps = fopen("/proc/thread-self/maps", "re");
    char line[512];
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        unsigned long start;
        unsigned long end;
        if (sscanf(line, "%lx-%lx", &start, &end) == 2 && start <= here && here < end) {
            (void)fclose(maps);
            regions_lock();
            region_enter(&(region){
                .start = start,
                .end = end,
                .protection = MACHO_READ | MACHO_WRITE,
                .protection_max = 7,
                .inherit = REGION_COPY,
                .object = memory_object_take(-1, false, false),
            });
            regions_unlock();
            return;
        }
    }
    macho_die("the stack is in no mapping");
}

/* Enters the image's mappings, of which neither Linux nor the emulator knows the protection. */
static void regions_note(const macho_image *image)
{
    regions_lock();
    memory_object *object = memory_object_take(-1, true, false);
    if (object == NULL) {
        macho_die("no memory for a mapping");
    }
    for (size_t i = 0; i < image->segment_count; i++) {
        const macho_segment_command *segment = &image->segments[i];
        uintptr_t start =
            (uintptr_t)image->base + (uintptr_t)(segment->address - image->base_wanted);
        if (segment->memory_bytes > 0) {
            region_enter(&(region){
                .start = start,
                .end = start + (segment->memory_bytes + MACHO_PAGE_BYTES - 1) / MACHO_PAGE_BYTES *
                                   MACHO_PAGE_BYTES,
                .protection = macho_segment_protection(segment),
                .protection_max = (int)segment->protection_max,
                .inherit = REGION_COPY,
                .object = object,
                .offset = segment->file_offset,
                .copy_on_write = true,
            });
        }
    }
    regions_unlock();
}

/* Maps an image and all that it needs. What failed is left mapped and listed nowhere: the process
 * is about to end, or a dlopen has failed for good. */
static macho_image *image_add(const char *path, macho_error *error)
{
    macho_image *image = loaded_already(path);
    if (image != NULL) {
        return image;
    }
    char real[PATH_MAX];
    image = macho_image_map(realpath(path, real) != NULL ? real : path, error);
    if (image == NULL) {
        return NULL;
    }
    macho_image *before = last;
    if (last == NULL) {
        first = image;
    } else {
        last->next = image;
    }
    last = image;
    if (dylibs_add(image, error) && macho_image_fix(image, resolve, error)) {
        regions_note(image);
        return image;
    }
    last = before;
    if (before == NULL) {
        first = NULL;
    } else {
        before->next = NULL;
    }
    return NULL;
}

typedef void (*initialiser)(int argc, char **argv, char **envp, char **apple);

static initialiser initialiser_from(uint64_t address)
{
    initialiser run;
    memcpy(&run, &address, sizeof run);
    return run;
}

static void section_initialise(const macho_image *image, const macho_section_header *section)
{
    static char *apple[] = {NULL};
    uint8_t *at = macho_image_at(image, section->address, (size_t)section->size);
    unsigned type = section->flags & 0xff;
    size_t step = type == MACHO_INIT_OFFSETS ? 4 : 8;
    for (size_t done = 0; at != NULL && done + step <= section->size; done += step) {
        uint64_t address = 0;
        memcpy(&address, at + done, step);
        if (type == MACHO_INIT_OFFSETS) {
            address += (uint64_t)(uintptr_t)image->base;
        }
        if (!macho_image_is_code(image, address)) {
            macho_die("%s: an initialiser lies outside the code", image->path);
        }
        initialiser_from(address)(argument_count, arguments, environ, apple);
    }
}

/* What an image needs comes before it. */
static void initialise(macho_image *image)
{
    if (image->initialised) {
        return;
    }
    image->initialised = true;
    for (size_t i = 0; i < image->dylib_count; i++) {
        if (image->dylibs[i].image != NULL) {
            initialise(image->dylibs[i].image);
        }
    }
    for (size_t i = 0; i < image->section_count; i++) {
        unsigned type = image->sections[i].flags & 0xff;
        if (type == MACHO_MOD_INIT_POINTERS || type == MACHO_INIT_OFFSETS) {
            section_initialise(image, &image->sections[i]);
        }
    }
}

macho_image *macho_load(const char *path, macho_error *error)
{
    macho_image *image = image_add(path, error);
    if (image != NULL) {
        initialise(image);
    }
    return image;
}

int main(int argc, char **argv)
{
    static char *apple[] = {NULL};
    if (argc < 2) {
        (void)fprintf(stderr, "usage: macho_run PROGRAM [ARGUMENT...]\n");
        return MACHO_STATUS_BROKEN;
    }
    if (sysconf(_SC_PAGESIZE) != MACHO_PAGE_BYTES) {
        macho_die("pages are %ld bytes here, not 16384: run under qemu-aarch64 -p 16384",
                  sysconf(_SC_PAGESIZE));
    }
    stack_note();
    arguments = argv + 1;
    argument_count = argc - 1;
    macho_error error = {""};
    macho_image *image = image_add(argv[1], &error);
    if (image == NULL) {
        macho_die("%s: %s", argv[1], error.text);
    }
    if (image->type != MACHO_EXECUTE) {
        macho_die("%s: a library, not a program", argv[1]);
    }
    errno = 0;
    initialise(image);
    uint64_t address = (uint64_t)(uintptr_t)image->base + image->entry_offset;
    int (*entry)(int argc, char **argv, char **envp, char **apple);
    memcpy(&entry, &address, sizeof entry);
    exit(entry(argument_count, arguments, environ, apple));
}

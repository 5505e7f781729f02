/*
 * dlopen and dlsym. A name of the system's Metal, Foundation or Objective-C runtime is the fake's
 * arm64 library for Linux (UMO_MACHO_METAL; without it there is none, as on a machine without
 * Metal); other files are Mach-O or ELF by what they hold. A handle says which it is.
 */
#include "bridges.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct library {
    enum {
        LIBRARY_SYSTEM,
        LIBRARY_IMAGE,
        LIBRARY_ELF
    } kind;
    macho_image *image;
    void *elf;
    struct library *next;
} library;

/* Recursive: an initialiser may open a library itself. */
static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static library *libraries;
static library whole = {.kind = LIBRARY_SYSTEM};
static _Thread_local char last_error[PATH_MAX + 1200];
static _Thread_local bool has_error;

static void *failed(const char *path, const char *reason)
{
    (void)snprintf(last_error, sizeof last_error, "%s: %s", path, reason);
    has_error = true;
    return NULL;
}

static char *bridge_dlerror(void)
{
    bool had = has_error;
    has_error = false;
    return had ? last_error : NULL;
}

static bool is_metal(const char *path)
{
    static const char *const names[] = {
        "/usr/lib/libobjc.A.dylib",
        "/System/Library/Frameworks/Foundation.framework/Foundation",
        "/System/Library/Frameworks/Metal.framework/Metal",
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(path, names[i]) == 0) {
            return true;
        }
    }
    return false;
}

/* Only what the fake itself has: dlsym also looks into the libraries that it needs, which are
 * Linux's own. */
bool macho_fake_find(const char *symbol, uint64_t *out_address)
{
    const char *file = getenv("UMO_MACHO_METAL");
    void *fake = file != NULL ? dlopen(file, RTLD_NOW | RTLD_LOCAL) : NULL;
    void *known = fake != NULL ? dlsym(fake, "MTLCopyAllDevices") : NULL;
    void *found = fake != NULL && symbol[0] == '_' ? dlsym(fake, symbol + 1) : NULL;
    Dl_info of_known;
    Dl_info of_found;
    if (known == NULL || found == NULL || dladdr(known, &of_known) == 0 ||
        dladdr(found, &of_found) == 0 || of_known.dli_fbase != of_found.dli_fbase) {
        return false;
    }
    *out_address = (uint64_t)(uintptr_t)found;
    return true;
}

static bool is_elf(const char *path)
{
    char magic[4] = "";
    FILE *file = fopen(path, "rb");
    if (file != NULL) {
        (void)fread(magic, 1, sizeof magic, file);
        (void)fclose(file);
    }
    return memcmp(magic, "\177ELF", sizeof magic) == 0;
}

static library *library_add(library fresh)
{
    for (library *l = libraries; l != NULL; l = l->next) {
        if (l->kind == fresh.kind && l->image == fresh.image && l->elf == fresh.elf) {
            return l;
        }
    }
    library *added = malloc(sizeof *added);
    if (added == NULL) {
        macho_die("no memory for a library");
    }
    *added = fresh;
    added->next = libraries;
    libraries = added;
    return added;
}

/* With the lock held. */
static void *library_open(const macho_image *by, const char *path)
{
    char found[PATH_MAX];
    if (strcmp(path, "/usr/lib/libSystem.B.dylib") == 0) {
        return &whole;
    }
    const char *file = path;
    if (is_metal(path)) {
        file = getenv("UMO_MACHO_METAL");
        if (file == NULL) {
            return failed(path, "no such file (UMO_MACHO_METAL is not set)");
        }
    }
    if (!macho_dylib_find(by, file, found)) {
        return failed(path, "no such file");
    }
    file = found;
    if (is_elf(file)) {
        void *elf = dlopen(file, RTLD_NOW | RTLD_LOCAL);
        return elf != NULL ? library_add((library){.kind = LIBRARY_ELF, .elf = elf})
                           : failed(file, dlerror());
    }
    macho_error error = {""};
    macho_image *image = macho_load(file, &error);
    return image != NULL ? library_add((library){.kind = LIBRARY_IMAGE, .image = image})
                         : failed(file, error.text);
}

/* RTLD_LAZY, NOW, LOCAL and GLOBAL only say when symbols are bound and who sees them; here always
 * now, and whoever asks for all. */
static void *bridge_dlopen(const char *path, int mode)
{
    if ((mode & ~0xf) != 0) {
        macho_die("dlopen: no bridge for the mode 0x%x", (unsigned)mode);
    }
    if (path == NULL) {
        return &whole;
    }
    const macho_image *by = macho_image_of(__builtin_return_address(0));
    (void)pthread_mutex_lock(&lock);
    void *handle = library_open(by != NULL ? by : macho_main_image(), path);
    (void)pthread_mutex_unlock(&lock);
    return handle;
}

static int bridge_dlclose(void *handle)
{
    (void)handle; /* nothing is unloaded: code of a library may still run */
    return 0;
}

static void *image_symbol(const macho_image *image, const char *name)
{
    char symbol[512];
    uint64_t address;
    (void)snprintf(symbol, sizeof symbol, "_%s", name);
    return macho_image_export(image, symbol, &address) ? (void *)(uintptr_t)address : NULL;
}

/* In the image and in what it needs, in that order. */
static void *image_search(const macho_image *image, const char *name, unsigned depth)
{
    void *found = image_symbol(image, name);
    for (size_t i = 0; found == NULL && depth > 0 && i < image->dylib_count; i++) {
        const macho_dylib *dylib = &image->dylibs[i];
        if (dylib->image != NULL) {
            found = image_search(dylib->image, name, depth - 1);
        }
    }
    return found;
}

/* In an image and all that were loaded after it, and in the system's library. */
static void *whole_symbol(macho_image *start, const char *name)
{
    char symbol[512];
    uint64_t address;
    for (macho_image *image = start; image != NULL; image = image->next) {
        void *found = image_symbol(image, name);
        if (found != NULL) {
            return found;
        }
    }
    (void)snprintf(symbol, sizeof symbol, "_%s", name);
    return macho_bridge_find(symbol, &address) ? (void *)(uintptr_t)address : NULL;
}

static void *symbol_find(void *handle, const char *name, const void *caller)
{
    const library *from = handle;
    void *found = NULL;
    if ((intptr_t)handle == -1) { /* RTLD_NEXT */
        const macho_image *image = macho_image_of(caller);
        found = whole_symbol(image != NULL ? image->next : NULL, name);
        return found != NULL ? found : failed(name, "symbol not found");
    }
    if ((intptr_t)handle == -2) { /* RTLD_DEFAULT */
        from = &whole;
    }
    if ((intptr_t)from < 0 || from == NULL) {
        macho_die("dlsym: no bridge for the handle %p", handle);
    }
    switch (from->kind) {
    case LIBRARY_SYSTEM:
        found = whole_symbol(macho_first_image(), name);
        break;
    case LIBRARY_IMAGE:
        found = image_search(from->image, name, 8);
        break;
    case LIBRARY_ELF:
        found = dlsym(from->elf, name);
        break;
    }
    return found != NULL ? found : failed(name, "symbol not found");
}

static void *bridge_dlsym(void *handle, const char *name)
{
    (void)pthread_mutex_lock(&lock);
    void *found = symbol_find(handle, name, __builtin_return_address(0));
    (void)pthread_mutex_unlock(&lock);
    return found;
}

typedef struct darwin_dl_info {
    const char *file;
    void *base;
    const char *symbol;
    void *address;
} darwin_dl_info;

static int bridge_dladdr(const void *address, darwin_dl_info *out)
{
    const macho_image *image = macho_image_of(address);
    if (image == NULL) {
        return 0;
    }
    *out = (darwin_dl_info){.file = image->path, .base = image->base};
    return 1;
}

const macho_bridge macho_bridges_library[] = {
    BRIDGE(dlopen), BRIDGE(dlclose), BRIDGE(dlsym), BRIDGE(dlerror), BRIDGE(dladdr), BRIDGES_END,
};

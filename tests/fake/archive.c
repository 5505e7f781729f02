/*
 * Binary archives: which functions were compiled for which device. The file is text that ends with
 * a checksum, so that one cut short anywhere is noticed.
 */
#include "fake.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DOMAIN "MTLBinaryArchiveDomain"
#define INVALID_FILE 1
#define COMPILATION 3
#define INTERNAL 4

#define HEAD "fake metal archive 1\n"
#define FILE_MAX (UINT64_C(16) << 20)

typedef struct entry {
    uint64_t text; /* the library's hash */
    char *names;   /* the function's and the device's, a line break between */
} entry;

typedef struct archive {
    fake_object object;
    fake_device *device;
    pthread_mutex_t lock;
    entry *entries;
    size_t count;
    size_t capacity;
} archive;

typedef struct archive_descriptor {
    fake_object object;
    id url;
} archive_descriptor;

/* ---- entries ---- */

static char *names_make(const fake_function *function)
{
    const char *name = fake_text(function->name);
    const char *device = fake_text(function->library->device->name);
    size_t bytes = strlen(name) + strlen(device) + 2;
    char *names = malloc(bytes);
    if (names == NULL) {
        abort();
    }
    (void)snprintf(names, bytes, "%s\n%s", name, device);
    return names;
}

static bool entry_known(archive *self, uint64_t text, const char *names)
{
    bool found = false;
    (void)pthread_mutex_lock(&self->lock);
    for (size_t i = 0; i < self->count && !found; i++) {
        found = self->entries[i].text == text && strcmp(self->entries[i].names, names) == 0;
    }
    (void)pthread_mutex_unlock(&self->lock);
    return found;
}

/* Takes the names. */
static void entry_add(archive *self, uint64_t text, char *names)
{
    if (entry_known(self, text, names)) {
        free(names);
        return;
    }
    (void)pthread_mutex_lock(&self->lock);
    if (self->count == self->capacity) {
        self->capacity = self->capacity == 0 ? 8 : self->capacity * 2;
        self->entries = realloc(self->entries, self->capacity * sizeof *self->entries);
        if (self->entries == NULL) {
            abort();
        }
    }
    self->entries[self->count++] = (entry){.text = text, .names = names};
    (void)pthread_mutex_unlock(&self->lock);
}

bool fake_archive_has(id given, const fake_function *function)
{
    char *names = names_make(function);
    bool has = entry_known(given, function->library->hash, names);
    free(names);
    return has;
}

/* ---- files ---- */

/* malloc; NULL: it cannot be read, errno says why. */
static char *file_read(const char *path)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL) {
        return NULL;
    }
    char *text = NULL;
    size_t used = 0;
    size_t capacity = 0;
    size_t got = 0;
    do {
        used += got;
        if (capacity - used < 2) {
            capacity = capacity == 0 ? 4096 : capacity * 2;
            text = realloc(text, capacity);
            if (text == NULL) {
                abort();
            }
        }
        got = fread(text + used, 1, capacity - used - 1, file);
    } while (got > 0 && used + got < FILE_MAX);
    used += got;
    text[used] = 0;
    bool fine = ferror(file) == 0 && strlen(text) == used;
    (void)fclose(file);
    if (!fine) {
        free(text);
        text = NULL;
        errno = EILSEQ;
    }
    return text;
}

/* The two lines with an entry's names; malloc. Moves *at behind them. */
static char *names_take(const char **at)
{
    size_t name = strcspn(*at, "\n");
    size_t device = (*at)[name] == 0 ? 0 : strcspn(*at + name + 1, "\n");
    if (device == 0 || (*at)[name + 1 + device] == 0) {
        return NULL;
    }
    char *names = strndup(*at, name + 1 + device);
    if (names == NULL) {
        abort();
    }
    *at += name + 1 + device + 1;
    return names;
}

/* "HASH NAME\nDEVICE\n" for each entry, then "end CHECKSUM\n". */
static bool entries_read(archive *self, const char *text)
{
    if (strncmp(text, HEAD, strlen(HEAD)) != 0) {
        return false;
    }
    const char *at = text + strlen(HEAD);
    while (strncmp(at, "end ", 4) != 0) {
        char *stop;
        uint64_t hash = strtoull(at, &stop, 16);
        if (stop != at + 16 || *stop != ' ') {
            return false;
        }
        at = stop + 1;
        char *names = names_take(&at);
        if (names == NULL) {
            return false;
        }
        entry_add(self, hash, names);
    }
    char end[32];
    (void)snprintf(end, sizeof end, "end %016" PRIx64 "\n",
                   fake_hash(text, (size_t)(at - text), 0));
    return strcmp(at, end) == 0;
}

static char *entries_write(archive *self, size_t *out_bytes)
{
    (void)pthread_mutex_lock(&self->lock);
    size_t room = strlen(HEAD) + 32;
    for (size_t i = 0; i < self->count; i++) {
        room += strlen(self->entries[i].names) + 32;
    }
    char *text = malloc(room);
    if (text == NULL) {
        abort();
    }
    size_t used = (size_t)snprintf(text, room, "%s", HEAD);
    for (size_t i = 0; i < self->count; i++) {
        used += (size_t)snprintf(text + used, room - used, "%016" PRIx64 " %s\n",
                                 self->entries[i].text, self->entries[i].names);
    }
    (void)pthread_mutex_unlock(&self->lock);
    uint64_t sum = fake_hash(text, used, 0);
    used += (size_t)snprintf(text + used, room - used, "end %016" PRIx64 "\n", sum);
    *out_bytes = used;
    return text;
}

/* ---- messages ---- */

/* NULL, or what is wrong, with a reference. */
static id archive_load(archive *self, const char *path)
{
    char *text = file_read(path);
    if (text == NULL) {
        return fake_error(DOMAIN, INVALID_FILE, "the archive cannot be read: %s", strerror(errno));
    }
    bool read = entries_read(self, text);
    free(text);
    return read ? NULL : fake_error(DOMAIN, INVALID_FILE, "the file is no archive");
}

id fake_archive_new(fake_device *device, SEL selector, id given, id *error)
{
    if (!fake_class_right(selector, given, &fake_class_archive_descriptor)) {
        return NULL;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error(DOMAIN, INTERNAL, "Internal error"));
        return NULL;
    }
    const archive_descriptor *descriptor = given;
    archive *made = fake_make(&fake_class_archive);
    made->device = objc_retain(device);
    (void)pthread_mutex_init(&made->lock, NULL);
    id wrong = descriptor->url == NULL ? NULL : archive_load(made, fake_url_path(descriptor->url));
    if (wrong != NULL) {
        fake_error_give(error, wrong);
        objc_release(made);
        return NULL;
    }
    return made;
}

static bool archive_dealloc(void *object)
{
    archive *self = object;
    for (size_t i = 0; i < self->count; i++) {
        free(self->entries[i].names);
    }
    free(self->entries);
    (void)pthread_mutex_destroy(&self->lock);
    objc_release(self->device);
    return true;
}

/* Compiles what the archive lacks. */
static bool archive_add(archive *self, SEL selector, id given, id *error)
{
    if (!fake_class_right(selector, given, &fake_class_pipeline_descriptor)) {
        return false;
    }
    const fake_function *function = ((fake_pipeline_descriptor *)given)->function;
    union {
        const fake_function *from;
        id to;
    } described = {.from = function};
    if (!fake_class_right(selector, described.to, &fake_class_function)) {
        return false;
    }
    if (function->library->device != self->device) {
        fake_violate("other_device", "%s with a function of another device", selector);
        return false;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error(DOMAIN, COMPILATION, "Compilation failed"));
        return false;
    }
    if (fake_archive_has(self, function)) {
        return true;
    }
    fake_metal_kernel kernel;
    fake_signature signature;
    id wrong = fake_function_build(function, &kernel, &signature);
    if (wrong != NULL) {
        fake_error_give(error, wrong);
        return false;
    }
    (void)atomic_fetch_add(&fake_compiled, 1);
    entry_add(self, function->library->hash, names_make(function));
    return true;
}

static bool archive_write(archive *self, SEL selector, id url, id *error)
{
    if (!fake_class_right(selector, url, &fake_class_url)) {
        return false;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error(DOMAIN, INTERNAL, "the archive cannot be written"));
        return false;
    }
    size_t bytes;
    char *text = entries_write(self, &bytes);
    FILE *file = fopen(fake_url_path(url), "wbe");
    bool written = file != NULL && fwrite(text, 1, bytes, file) == bytes;
    if (file != NULL) {
        written = fclose(file) == 0 && written;
    }
    free(text);
    if (!written) {
        fake_error_give(error, fake_error(DOMAIN, INVALID_FILE, "the archive cannot be written: %s",
                                          strerror(errno)));
    }
    return written;
}

static id archive_device(archive *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static void archive_label(id self, SEL selector, id label)
{
    (void)self;
    (void)selector;
    (void)fake_text(label);
}

static const fake_method archive_methods[] = {
    FAKE_METHOD("addComputePipelineFunctionsWithDescriptor:error:", "B@:@^@", archive_add),
    FAKE_METHOD("serializeToURL:error:", "B@:@^@", archive_write),
    FAKE_METHOD("device", "@@:", archive_device),
    FAKE_METHOD("setLabel:", "v@:@", archive_label),
};

fake_class fake_class_archive = {.super = &fake_class_object,
                                 .name = "MTLBinaryArchive",
                                 .size_bytes = sizeof(archive),
                                 .dealloc = archive_dealloc,
                                 .methods = archive_methods,
                                 .method_count = FAKE_COUNT(archive_methods),
                                 .hidden = true};

static void describe_url(archive_descriptor *self, SEL selector, id url)
{
    if (url == NULL || fake_class_right(selector, url, &fake_class_url)) {
        id former = self->url;
        self->url = objc_retain(url);
        objc_release(former);
    }
}

static id described_url(archive_descriptor *self, SEL selector)
{
    (void)selector;
    return self->url;
}

static bool descriptor_dealloc(void *self)
{
    objc_release(((archive_descriptor *)self)->url);
    return true;
}

static const fake_method descriptor_methods[] = {
    FAKE_METHOD("setUrl:", "v@:@", describe_url),
    FAKE_METHOD("url", "@@:", described_url),
};

fake_class fake_class_archive_descriptor = {.super = &fake_class_object,
                                            .name = "MTLBinaryArchiveDescriptor",
                                            .size_bytes = sizeof(archive_descriptor),
                                            .dealloc = descriptor_dealloc,
                                            .methods = descriptor_methods,
                                            .method_count = FAKE_COUNT(descriptor_methods),
                                            .makes = true};

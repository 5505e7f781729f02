/*
 * Reading packs and writing answers; see pack.h.
 */
#include "pack.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* MAGIC, the number of cases, where each begins (64 bits), the cases. */
static const char MAGIC[8] = "umocase1";

enum {
    HEADER_BYTES = sizeof MAGIC + sizeof(uint32_t)
};

bool pack_open(const char *path, pack *out)
{
    struct stat seen;
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0 || fstat(file, &seen) != 0 || seen.st_size < HEADER_BYTES) {
        return false;
    }
    out->size_bytes = (size_t)seen.st_size;
    const char *mapped = mmap(NULL, out->size_bytes, PROT_READ, MAP_PRIVATE, file, 0);
    (void)close(file);
    if (mapped == MAP_FAILED || memcmp(mapped, MAGIC, sizeof MAGIC) != 0) {
        return false;
    }
    out->at = mapped;
    memcpy(&out->count, mapped + sizeof MAGIC, sizeof out->count);
    return out->count <= (out->size_bytes - HEADER_BYTES) / sizeof(uint64_t);
}

typedef struct cursor {
    const char *at;
    size_t left;
    bool broken;
} cursor;

static const char *take(cursor *from, size_t size_bytes)
{
    if (from->broken || size_bytes > from->left) {
        from->broken = true;
        return "";
    }
    const char *taken = from->at;
    from->at += size_bytes;
    from->left -= size_bytes;
    return taken;
}

static uint32_t take_number(cursor *from, uint32_t most)
{
    uint32_t number = 0;
    const char *bytes = take(from, sizeof number);
    if (!from->broken) {
        memcpy(&number, bytes, sizeof number);
    }
    from->broken = from->broken || number > most;
    return from->broken ? 0 : number;
}

static pack_bytes take_bytes(cursor *from)
{
    size_t size_bytes = take_number(from, UINT32_MAX);
    return (pack_bytes){take(from, size_bytes), size_bytes};
}

static void take_tensor(cursor *from, pack_tensor *out)
{
    out->name = take_bytes(from).at;
    out->dtype = take_number(from, UINT32_MAX);
    out->rank = take_number(from, PACK_RANK);
    size_t dims_bytes = out->rank * sizeof out->dims[0];
    const char *dims = take(from, dims_bytes);
    if (!from->broken && dims_bytes > 0) {
        memcpy(out->dims, dims, dims_bytes);
    }
    out->data = take_bytes(from);
}

bool pack_read(const pack *from, uint32_t index, pack_case *out)
{
    uint64_t start = 0;
    if (index >= from->count) {
        return false;
    }
    memcpy(&start, from->at + HEADER_BYTES + index * sizeof start, sizeof start);
    if (start > from->size_bytes) {
        return false;
    }
    cursor c = {.at = from->at + start, .left = from->size_bytes - (size_t)start};
    *out = (pack_case){0};
    out->name = take_bytes(&c).at;
    out->config = take_bytes(&c).at;
    out->model = take_bytes(&c);
    out->input_count = take_number(&c, PACK_TENSORS);
    for (uint32_t i = 0; i < out->input_count; i++) {
        take_tensor(&c, &out->inputs[i]);
    }
    out->output_count = take_number(&c, PACK_TENSORS);
    for (uint32_t i = 0; i < out->output_count; i++) {
        out->outputs[i] = take_bytes(&c).at;
    }
    return !c.broken;
}

static void put(answer *a, const void *bytes, size_t size_bytes)
{
    if (size_bytes > a->capacity_bytes - a->size_bytes) {
        a->capacity_bytes = 2 * (a->size_bytes + size_bytes);
        a->at = realloc(a->at, a->capacity_bytes);
        if (a->at == NULL) {
            abort();
        }
    }
    if (size_bytes > 0) {
        memcpy(a->at + a->size_bytes, bytes, size_bytes);
        a->size_bytes += size_bytes;
    }
}

void answer_number(answer *a, uint32_t number)
{
    put(a, &number, sizeof number);
}

void answer_bytes(answer *a, const void *bytes, size_t size_bytes)
{
    answer_number(a, (uint32_t)size_bytes);
    put(a, bytes, size_bytes);
}

void answer_start(answer *a, uint32_t index, answer_kind kind, const char *text)
{
    a->size_bytes = 0;
    answer_number(a, 0); /* its length, when it is known */
    answer_number(a, index);
    answer_number(a, (uint32_t)kind);
    answer_bytes(a, text, strlen(text));
}

bool answer_write(answer *a, int file)
{
    uint32_t size_bytes = (uint32_t)(a->size_bytes - sizeof size_bytes);
    memcpy(a->at, &size_bytes, sizeof size_bytes);
    return write(file, a->at, a->size_bytes) == (ssize_t)a->size_bytes;
}

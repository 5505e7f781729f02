/*
 * Reads a trace: one pass over the file, ids looked up in an open table.
 *
 * Everything lies in pages of the system, because in a replay malloc is the opponent.
 */
#include "pool_trace.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    THREADS_MAX = 1024
};

/* What is alive: the slot of an id, and its size. An entry that was freed keeps its place. */
typedef struct entry {
    uint64_t id;
    uint64_t size_bytes;
    uint32_t slot;
    bool used;
    bool live;
} entry;

typedef struct reader {
    const char *path;
    size_t line;
    entry *entries;
    size_t mask;
    uint32_t *free_slots;
    size_t free_count;
    uint64_t threads[THREADS_MAX];
    uint64_t live_bytes;
} reader;

static void refuse(const reader *r, const char *why)
{
    (void)fprintf(stderr, "%s:%zu: %s\n", r->path, r->line, why);
    exit(2);
}

static void *pages(const reader *r, size_t size_bytes)
{
    void *got = mmap(NULL, size_bytes > 0 ? size_bytes : 1, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (got == MAP_FAILED) {
        refuse(r, "no memory for the trace");
    }
    return got;
}

static uint64_t number(reader *r, const char **at, char end)
{
    uint64_t value = 0;
    const char *p = *at;
    while (*p >= '0' && *p <= '9') {
        if (value > (UINT64_MAX - 9) / 10) {
            refuse(r, "a number is too large");
        }
        value = value * 10 + (uint64_t)(*p++ - '0');
    }
    if (p == *at || (*p != end && !(end == '\n' && (*p == '\r' || *p == '\0')))) {
        refuse(r, "not a line of t,op,id,size,thread");
    }
    *at = *p == end ? p + 1 : p;
    return value;
}

static entry *entry_find(const reader *r, uint64_t id)
{
    size_t i = (size_t)(id * 0x9e3779b97f4a7c15u >> 20) & r->mask;
    while (r->entries[i].used && r->entries[i].id != id) {
        i = (i + 1) & r->mask;
    }
    return &r->entries[i];
}

static uint16_t thread_find(reader *r, bench_trace *out, uint64_t thread)
{
    size_t i = 0;
    while (i < out->thread_count && r->threads[i] != thread) {
        i++;
    }
    if (i == THREADS_MAX) {
        refuse(r, "too many threads");
    }
    if (i == out->thread_count) {
        r->threads[out->thread_count++] = thread;
    }
    return (uint16_t)i;
}

static void event_add(reader *r, bench_trace *out, bool take, uint64_t id, uint64_t size_bytes,
                      uint64_t thread)
{
    entry *e = entry_find(r, id);
    if (take == e->live || (take && size_bytes == 0)) {
        out->ignored_count++;
        return;
    }
    if (take) {
        uint32_t slot =
            r->free_count > 0 ? r->free_slots[--r->free_count] : (uint32_t)out->slot_count++;
        *e = (entry){.id = id, .size_bytes = size_bytes, .slot = slot, .used = true, .live = true};
        r->live_bytes += size_bytes;
        out->live_count++;
        out->live_peak_bytes =
            r->live_bytes > out->live_peak_bytes ? r->live_bytes : out->live_peak_bytes;
    } else {
        e->live = false;
        r->live_bytes -= e->size_bytes;
        out->live_count--;
        r->free_slots[r->free_count++] = e->slot;
    }
    out->events[out->event_count++] = (bench_event){.size_bytes = e->size_bytes,
                                                    .slot = e->slot,
                                                    .thread = thread_find(r, out, thread),
                                                    .take = take};
}

/* The file with a zero behind it; its length in lines bounds every table. */
static const char *file_read(const reader *r, size_t *lines)
{
    struct stat about;
    int fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        refuse(r, "cannot be read");
    }
    const size_t size_bytes = (size_t)about.st_size;
    char *text = pages(r, size_bytes + 1);
    for (size_t had = 0; had < size_bytes;) {
        ssize_t got = read(fd, text + had, size_bytes - had);
        if (got <= 0) {
            refuse(r, "cannot be read");
        }
        had += (size_t)got;
    }
    (void)close(fd);
    *lines = 1;
    for (size_t i = 0; i < size_bytes; i++) {
        *lines += text[i] == '\n';
    }
    return text;
}

void bench_trace_load(const char *path, bench_trace *out)
{
    static reader r;
    size_t lines;
    r = (reader){.path = path, .line = 1};
    const char *at = file_read(&r, &lines);
    size_t entries = 1024;
    while (entries < 2 * lines) {
        entries *= 2;
    }
    r.entries = pages(&r, entries * sizeof *r.entries);
    r.mask = entries - 1;
    r.free_slots = pages(&r, lines * sizeof *r.free_slots);
    *out = (bench_trace){.events = pages(&r, lines * sizeof *out->events)};
    if (strncmp(at, "t,op,id,size,thread", 19) != 0) {
        refuse(&r, "the first line is not t,op,id,size,thread");
    }
    at = strchr(at, '\n');
    while (at != NULL && *++at != '\0') {
        r.line++;
        (void)number(&r, &at, ',');
        const bool take = at[0] == 'a';
        if ((at[0] != 'a' && at[0] != 'f') || at[1] != ',') {
            refuse(&r, "the operation is neither a nor f");
        }
        at += 2;
        const uint64_t id = number(&r, &at, ',');
        const uint64_t size_bytes = number(&r, &at, ',');
        const uint64_t thread = number(&r, &at, '\n');
        event_add(&r, out, take, id, size_bytes, thread);
        at = at[-1] == '\n' ? at - 1 : strchr(at, '\n');
    }
    (void)munmap(r.entries, entries * sizeof *r.entries);
    (void)munmap(r.free_slots, lines * sizeof *r.free_slots);
    /* Touched here, so that no fault on it falls into a measurement. */
    out->slots = pages(&r, (out->slot_count + 1) * sizeof *out->slots);
    memset(out->slots, 0xff, out->slot_count * sizeof *out->slots);
    memset(out->slots, 0, out->slot_count * sizeof *out->slots);
}

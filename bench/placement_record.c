/*
 * Writes down every bracket that a program opens through libumo.so: put before it with LD_PRELOAD.
 *
 * PLACEMENT_RECORD names the file: a line "buffer,side,use,offset,bytes,size" for each bracket that
 * opened. Buffers are numbered in the order in which they are met, by where their bytes lie for the
 * host, as a server wraps the same memory again and again; by themselves where they lie nowhere.
 */
#include <umo/buffer.h>

#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    BUFFERS_MAX = 4096
};

typedef umo_status (*begin_function)(umo_buffer *, const umo_access *, umo_fence_set *);
typedef void *(*host_function)(const umo_buffer *);
typedef size_t (*size_function)(const umo_buffer *);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    FILE *file;
    begin_function begin;
    host_function host;
    size_function size;
    const void *known[BUFFERS_MAX];
    size_t known_count;
} record;

/* The library is opened by a backend, long after us, and out of sight of RTLD_NEXT. */
static void record_open(void)
{
    void *library = dlopen("libumo.so.0", RTLD_NOW | RTLD_NOLOAD);
    const char *path = getenv("PLACEMENT_RECORD");
    if (library == NULL || path == NULL) {
        abort();
    }
    /* ISO C knows no way from an object's pointer to a function's but through its bytes. */
    void *symbol = dlsym(library, "umo_access_begin");
    memcpy(&record.begin, &symbol, sizeof symbol);
    symbol = dlsym(library, "umo_buffer_host");
    memcpy(&record.host, &symbol, sizeof symbol);
    symbol = dlsym(library, "umo_buffer_size");
    memcpy(&record.size, &symbol, sizeof symbol);
    record.file = fopen(path, "w");
    if (record.file == NULL || record.begin == NULL || record.host == NULL || record.size == NULL) {
        abort();
    }
    (void)fprintf(record.file, "buffer,side,use,offset,bytes,size\n");
}

static size_t buffer_number(const umo_buffer *buffer)
{
    const void *key = record.host(buffer) != NULL ? record.host(buffer) : buffer;
    size_t i = 0;
    while (i < record.known_count && record.known[i] != key) {
        i++;
    }
    if (i == record.known_count && i < BUFFERS_MAX) {
        record.known[record.known_count++] = key;
    }
    return i;
}

UMO_API umo_status umo_access_begin(umo_buffer *buffer, const umo_access *access,
                                    umo_fence_set *waits)
{
    (void)pthread_mutex_lock(&lock);
    if (record.file == NULL) {
        record_open();
    }
    (void)pthread_mutex_unlock(&lock);
    size_t size_bytes = record.size(buffer);
    umo_status status = record.begin(buffer, access, waits);
    if (status == UMO_OK && access->size_bytes > 0) {
        (void)pthread_mutex_lock(&lock);
        (void)fprintf(record.file, "%zu,%d,%d,%zu,%zu,%zu\n", buffer_number(buffer),
                      (int)access->side, (int)access->use, access->offset_bytes, access->size_bytes,
                      size_bytes);
        (void)fflush(record.file);
        (void)pthread_mutex_unlock(&lock);
    }
    return status;
}

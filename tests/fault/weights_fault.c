/*
 * Opening, comparing, binding and copying weights, in which the n-th call that can fail does, for
 * n = 1, 2, ... until none is left. After each failure nothing is open, mapped or held; a scene
 * that ends well in spite of one has shown the right bytes.
 */
#include "driver/wrapper_test.h"

#include <umo/umo.h>
#include <umo/weights.h>

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    FILE_BYTES = 70001
};

static bool armed;
static unsigned long calls;
static unsigned long fail_at;
static bool failed;
static long files_open;
static long mapped_pages;
static char folder[] = "/tmp/umo-weights-fault-XXXXXX";

static bool fault(const char *entry)
{
    (void)entry;
    bool now = armed && ++calls == fail_at;
    failed = failed || now;
    return now;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
int __real_open(const char *path, int flags, ...);
int __real_close(int file);
int __real_fstat(int file, struct stat *out);
void *__real_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int file);
int __wrap_fstat(int file, struct stat *out);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t size);

void *__wrap_malloc(size_t size)
{
    return fault("malloc") ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fault("calloc") ? NULL : __real_calloc(count, size);
}

int __wrap_open(const char *path, int flags, ...)
{
    if (fault("open")) {
        errno = EMFILE;
        return -1;
    }
    int file = __real_open(path, flags, 0);
    files_open += file >= 0 ? 1 : 0;
    return file;
}

int __wrap_close(int file)
{
    files_open -= 1;
    return __real_close(file);
}

int __wrap_fstat(int file, struct stat *out)
{
    if (fault("fstat")) {
        errno = EIO;
        return -1;
    }
    return __real_fstat(file, out);
}

/* The system's own, whatever libumo takes a page to be in a test. */
static long pages_of(size_t size)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (long)((size + page - 1) / page);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    if (fault("mmap")) {
        errno = ENOMEM;
        return MAP_FAILED;
    }
    void *made = __real_mmap(at, size, protection, flags, file, offset);
    mapped_pages += made != MAP_FAILED ? pages_of(size) : 0;
    return made;
}

int __wrap_munmap(void *at, size_t size)
{
    mapped_pages -= pages_of(size);
    return __real_munmap(at, size);
}

static void path_of(const char *name, char *out, size_t out_bytes)
{
    assert_true(snprintf(out, out_bytes, "%s/%s", folder, name) < (int)out_bytes);
}

static void write_file(const char *name)
{
    char path[128];
    path_of(name, path, sizeof path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < FILE_BYTES; i++) {
        assert_int_equal(fputc(i % 251, file), i % 251);
    }
    assert_int_equal(fclose(file), 0);
}

static umo_status show(umo_weights *weights, umo_device *device, umo_storage_mode mode)
{
    unsigned char got[1000];
    umo_buffer *buffer = NULL;
    umo_fence done;
    umo_status status =
        umo_weights_buffer(weights, device, mode, 5, sizeof got, &buffer, NULL, NULL);
    if (status == UMO_OK) {
        status = umo_buffer_download(buffer, 0, got, sizeof got, 0, &done);
    }
    if (status == UMO_OK) {
        status = umo_fence_wait(done, UINT64_MAX);
    }
    for (int i = 0; status == UMO_OK && i < (int)sizeof got; i++) {
        assert_int_equal(got[i], (i + 5) % 251);
    }
    umo_buffer_release(buffer);
    return status;
}

static umo_status scene(umo_device *device, umo_scope *scope, const char *first, const char *second)
{
    umo_weights *one = NULL;
    umo_weights *same = NULL;
    umo_weights *copy = NULL;
    umo_status status = umo_weights_open(first, scope, 0, &one, NULL);
    if (status == UMO_OK) {
        status = umo_weights_open(first, scope, 0, &same, NULL);
    }
    if (status == UMO_OK) {
        status = umo_weights_open(second, scope, UMO_WEIGHTS_SAME_BYTES, &copy, NULL);
    }
    if (status == UMO_OK) {
        status = show(one, device, UMO_UNIFIED);
    }
    if (status == UMO_OK) {
        status = show(copy, device, UMO_PRIVATE);
    }
    if (status == UMO_OK) {
        status = umo_weights_check(same, NULL);
    }
    umo_weights_release(one);
    umo_weights_release(same);
    umo_weights_release(copy);
    return status;
}

static void every_failure_is_reported_and_leaves_nothing(void **state)
{
    (void)state;
    const wrapper_switches faulty = {.fails = fault};
    char first[128];
    char second[128];
    umo_device *device = wrapper_device(&faulty, NULL);
    umo_scope *scope = NULL;
    assert_non_null(device);
    assert_int_equal(umo_scope_create(NULL, "fault", 0, &scope, NULL), UMO_OK);
    write_file("first");
    write_file("second");
    path_of("first", first, sizeof first);
    path_of("second", second, sizeof second);
    assert_int_equal(scene(device, scope, first, second), UMO_OK);
    long files_before = files_open;
    long mapped_before = mapped_pages;
    unsigned long failures = 0;
    for (fail_at = 1;; fail_at++) {
        calls = 0;
        failed = false;
        armed = true;
        umo_status status = scene(device, scope, first, second);
        armed = false;
        if (!failed) {
            break;
        }
        /* One may be survived: a file that cannot be compared is mapped beside the other. */
        failures += status != UMO_OK ? 1 : 0;
        umo_weights_stats stats;
        umo_weights_read(&stats);
        umo_counters counters;
        umo_scope_read(scope, &counters);
        assert_int_equal(stats.files + stats.users + stats.buffers, 0);
        assert_int_equal(stats.mapped_bytes + stats.copied_bytes, 0);
        assert_int_equal(counters.live_bytes + counters.live_buffers, 0);
        assert_int_equal(files_open, files_before);
        assert_int_equal(mapped_pages, mapped_before);
        assert_int_equal(wrapper_calls.live, 0);
        assert_int_equal(scene(device, scope, first, second), UMO_OK);
    }
    assert_true(failures >= 10);
    assert_true(fail_at - 1 - failures <= 1);
    umo_scope_destroy(scope);
    umo_device_release(device);
    (void)unlink(first);
    (void)unlink(second);
}

int main(void)
{
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_failure_is_reported_and_leaves_nothing),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(folder);
    return failures;
}

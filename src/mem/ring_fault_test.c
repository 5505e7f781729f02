/*
 * Rings when the system says no: each call that can fail does so once, and after each failure
 * nothing is left, neither memory nor a file nor a name. The calls are redirected when this is
 * linked.
 */
#include <umo/ring.h>

#include "os/os.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <unistd.h>

#include <cmocka.h>

static unsigned fail_at; /* 0 for never */
static unsigned calls;
static long blocks;
static long files;
static long names;
static long mappings;

static bool fault(void)
{
    return fail_at != 0 && ++calls == fail_at;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void __real_free(void *block);
int __real_shm_open(const char *key, int flags, mode_t mode);
int __real_shm_unlink(const char *key);
int __real_close(int file);
int __real_ftruncate(int file, off_t size);
void *__real_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __real_munmap(void *at, size_t size);
FILE *__real_fopen(const char *path, const char *mode);
int __real_posix_fallocate(int file, off_t offset, off_t size);

void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void __wrap_free(void *block);
int __wrap_shm_open(const char *key, int flags, mode_t mode);
int __wrap_shm_unlink(const char *key);
int __wrap_close(int file);
int __wrap_ftruncate(int file, off_t size);
void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset);
int __wrap_munmap(void *at, size_t size);
FILE *__wrap_fopen(const char *path, const char *mode);
int __wrap_posix_fallocate(int file, off_t offset, off_t size);

void *__wrap_malloc(size_t size)
{
    void *block = fault() ? NULL : __real_malloc(size);
    blocks += block != NULL ? 1 : 0;
    return block;
}

void *__wrap_calloc(size_t count, size_t size)
{
    void *block = fault() ? NULL : __real_calloc(count, size);
    blocks += block != NULL ? 1 : 0;
    return block;
}

void __wrap_free(void *block)
{
    blocks -= block != NULL ? 1 : 0;
    __real_free(block);
}

static bool no(int cause)
{
    if (!fault()) {
        return false;
    }
    errno = cause;
    return true;
}

int __wrap_shm_open(const char *key, int flags, mode_t mode)
{
    int file = no(EACCES) ? -1 : __real_shm_open(key, flags, mode);
    files += file >= 0 ? 1 : 0;
    names += file >= 0 ? 1 : 0;
    return file;
}

int __wrap_shm_unlink(const char *key)
{
    names--;
    return __real_shm_unlink(key);
}

int __wrap_close(int file)
{
    files--;
    return __real_close(file);
}

int __wrap_ftruncate(int file, off_t size)
{
    return no(ENOSPC) ? -1 : __real_ftruncate(file, size);
}

void *__wrap_mmap(void *at, size_t size, int protection, int flags, int file, off_t offset)
{
    void *mapped = no(ENOMEM) ? MAP_FAILED : __real_mmap(at, size, protection, flags, file, offset);
    mappings += mapped != MAP_FAILED ? 1 : 0;
    return mapped;
}

int __wrap_munmap(void *at, size_t size)
{
    mappings--;
    return __real_munmap(at, size);
}

FILE *__wrap_fopen(const char *path, const char *mode)
{
    return no(EMFILE) ? NULL : __real_fopen(path, mode);
}

int __wrap_posix_fallocate(int file, off_t offset, off_t size)
{
    return fault() ? ENOSPC : __real_posix_fallocate(file, offset, size);
}

static const umo_lane_spec specs[] = {{"m", "in", 5000, 2}, {"m", "out", 70, 2}, {"n", "t", 1, 1}};

/* Makes a ring and takes all there is; the first status that is not OK. */
static umo_status scene(umo_error *error)
{
    umo_ring *ring = NULL;
    umo_status status = umo_ring_create(specs, 3, &ring, error);
    if (status != UMO_OK) {
        assert_null(ring);
        return status;
    }
    uint32_t slot;
    for (uint32_t model = 0; model < 2; model++) {
        for (uint32_t i = 0; i < (model == 0 ? 2u : 1u); i++) {
            umo_status took = umo_ring_take(ring, model, 0, &slot);
            status = status == UMO_OK ? took : status;
            if (took == UMO_E_NOMEM) { /* and then there is memory again */
                assert_int_equal(umo_ring_take(ring, model, 0, &slot), UMO_OK);
            }
            assert_int_equal(slot, i);
        }
        assert_int_equal(umo_ring_take(ring, model, 0, &slot), UMO_E_LIMIT);
    }
    umo_ring_stats stats;
    umo_ring_read(ring, &stats);
    assert_int_equal(stats.out, 3);
    assert_int_equal(stats.committed_bytes, 2 * 5070 + 1);
    umo_ring_destroy(ring);
    return status;
}

static void each_failure_is_told_and_leaves_nothing(void **state)
{
    (void)state;
    (void)umo_os_page_bytes();
    unsigned at = 0;
    unsigned kinds = 0;
    umo_status status;
    do {
        const long before[] = {blocks, files, names, mappings};
        umo_error error = {.status = UMO_OK};
        calls = 0;
        fail_at = ++at;
        status = scene(&error);
        fail_at = 0;
        assert_true(status == UMO_OK || status == UMO_E_NOMEM || status == UMO_E_SYSTEM ||
                    status == UMO_E_UNSUPPORTED);
        kinds |= 1u << status;
        const long after[] = {blocks, files, names, mappings};
        assert_memory_equal(before, after, sizeof(before));
    } while (calls >= at);
    assert_int_equal(status, UMO_OK);
    assert_true(at > 10);
    assert_true((kinds & 1u << UMO_E_SYSTEM) != 0 && (kinds & 1u << UMO_E_UNSUPPORTED) != 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_failure_is_told_and_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

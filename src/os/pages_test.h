/*
 * Memory by hand, for tests: in pages of the size in force, which is the system's unless the build
 * forces a longer one (UMO_PAGE_BYTES). What a test maps itself lies as on a machine with such
 * pages: at a multiple of their size. Links nothing, so that tests of the public library use it
 * too.
 */
#ifndef UMO_OS_PAGES_TEST_H
#define UMO_OS_PAGES_TEST_H

#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static inline size_t pages_test_bytes(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
#ifdef UMO_PAGE_BYTES
    page = UMO_PAGE_BYTES > page ? UMO_PAGE_BYTES : page;
#endif
    return page;
}

static inline size_t pages_test_round_up(size_t size_bytes)
{
    size_t page = pages_test_bytes();
    return (size_bytes + page - 1) / page * page;
}

/* mmap at an address of the system's choice, a multiple of align_bytes (whole pages, a power of
 * two). MAP_FAILED as mmap. munmap gives pages_test_round_up(size_bytes) back. */
static inline void *pages_test_map_at(size_t align_bytes, size_t size_bytes, int protection,
                                      int flags, int file, off_t offset)
{
    size_t whole = pages_test_round_up(size_bytes);
    char *area = mmap(NULL, whole + align_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) {
        return MAP_FAILED;
    }
    size_t before = (size_t)(-(uintptr_t)area & (align_bytes - 1));
    char *pages = area + before;
    void *mapped = mmap(pages, whole, protection, flags | MAP_FIXED, file, offset);
    if (mapped == MAP_FAILED) {
        (void)munmap(area, whole + align_bytes);
        return MAP_FAILED;
    }
    if (before > 0) {
        (void)munmap(area, before);
    }
    (void)munmap(pages + whole, align_bytes - before);
    return mapped;
}

/* The same at a multiple of the page. */
static inline void *pages_test_map(size_t size_bytes, int protection, int flags, int file,
                                   off_t offset)
{
    return pages_test_map_at(pages_test_bytes(), size_bytes, protection, flags, file, offset);
}

/* Gives a new file its size; -1, and closed, if that fails. */
static inline int pages_test_sized(int file, size_t size_bytes)
{
    if (file >= 0 && ftruncate(file, (off_t)size_bytes) != 0) {
        (void)close(file);
        return -1;
    }
    return file;
}

/* A file in memory without a name, of zeros, only to be mapped shared; -1 as open. */
static inline int pages_test_file(size_t size_bytes)
{
#ifdef __linux__
    int file = memfd_create("umo_test", MFD_CLOEXEC);
#else
    static unsigned count;
    char name[32];
    (void)snprintf(name, sizeof name, "/umo_%d_%u", (int)getpid(), count++);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (file >= 0) {
        (void)shm_unlink(name);
    }
#endif
    return pages_test_sized(file, size_bytes);
}

/* The same to be mapped private too, which Darwin refuses for shared memory. */
static inline int pages_test_file_any(size_t size_bytes)
{
#ifdef __linux__
    return pages_test_file(size_bytes);
#else
    char name[] = "/tmp/umo_test_XXXXXX";
    int file = mkstemp(name);
    if (file >= 0) {
        (void)unlink(name);
    }
    return pages_test_sized(file, size_bytes);
#endif
}

#endif

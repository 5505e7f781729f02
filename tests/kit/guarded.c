/*
 * Guarded memory; see guarded.h. Bytes that no tensor covers hold a pattern.
 */
#include "guarded.h"

#include "os/pages_test.h"

#include <stdlib.h>
#include <string.h>

#define PATTERN 0xC3

/* Reserves the pages with a guard on both sides; the file is mapped over them where there is one.
 */
static guarded pages_map(size_t size_bytes, int file)
{
    size_t page = pages_test_bytes();
    guarded m = {.size_bytes = size_bytes, .file = file};
    m.pages_bytes = pages_test_round_up(size_bytes);
    m.pages_bytes = m.pages_bytes == 0 ? page : m.pages_bytes;
    char *reserved = pages_test_map(m.pages_bytes + 2 * page, PROT_NONE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserved == MAP_FAILED) {
        abort();
    }
    m.pages = reserved + page;
    int flags = MAP_FIXED | (file >= 0 ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    if (mmap(m.pages, m.pages_bytes, PROT_READ | PROT_WRITE, flags, file, 0) == MAP_FAILED) {
        abort();
    }
    return m;
}

guarded guarded_private(size_t size_bytes)
{
    guarded m = pages_map(size_bytes, -1);
    m.data = m.pages + m.pages_bytes - size_bytes;
    memset(m.pages, PATTERN, m.pages_bytes);
    return m;
}

guarded guarded_shared(size_t size_bytes)
{
    size_t page = pages_test_bytes();
    size_t whole = size_bytes == 0 ? page : pages_test_round_up(size_bytes);
    int file = pages_test_file(whole);
    if (file < 0) {
        abort();
    }
    guarded m = pages_map(size_bytes, file);
    m.data = m.pages;
    memset(m.pages, PATTERN, m.pages_bytes);
    return m;
}

guarded guarded_again(const guarded *shared)
{
    guarded m = pages_map(shared->size_bytes, dup(shared->file));
    m.data = m.pages;
    return m;
}

void guarded_close(guarded *m, bool reads)
{
    if (m->pages != NULL && !m->closed) {
        m->closed = true;
        (void)mprotect(m->pages, m->pages_bytes, reads ? PROT_READ : PROT_NONE);
    }
}

void guarded_unmap(guarded *m)
{
    if (m->pages != NULL) {
        (void)munmap(m->pages - pages_test_bytes(), m->pages_bytes + 2 * pages_test_bytes());
        if (m->file >= 0) {
            (void)close(m->file);
        }
    }
    *m = (guarded){.file = -1};
}

bool guarded_clean_outside(const guarded *m, const char *from, size_t size_bytes)
{
    for (const char *at = m->pages; at < m->pages + m->pages_bytes; at++) {
        bool inside = at >= from && at < from + size_bytes;
        if (!inside && (unsigned char)*at != PATTERN) {
            return false;
        }
    }
    return true;
}

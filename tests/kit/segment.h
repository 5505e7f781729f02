/*
 * A client's file, mapped as the server maps it, which its client can cut short.
 */
#ifndef UMO_TESTS_KIT_SEGMENT_H
#define UMO_TESTS_KIT_SEGMENT_H

#include "os/pages_test.h"

#include <stdarg.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

typedef struct segment {
    int file;
    char *data;
    size_t size_bytes;
} segment;

static inline segment segment_open(size_t size_bytes)
{
    segment s = {.size_bytes = pages_test_round_up(size_bytes)};
    s.file = pages_test_file_any(s.size_bytes); /* macOS cuts no shared memory short */
    assert_true(s.file >= 0);
    s.data = pages_test_map(s.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s.file, 0);
    assert_true(s.data != MAP_FAILED);
    return s;
}

/* From engines too: a test's assertions do not leave those. */
static inline void segment_cut(const segment *s, size_t size_bytes)
{
    if (ftruncate(s->file, (off_t)size_bytes) != 0) {
        abort();
    }
}

static inline void segment_close(segment *s)
{
    assert_int_equal(munmap(s->data, s->size_bytes), 0);
    (void)close(s->file);
}

#endif

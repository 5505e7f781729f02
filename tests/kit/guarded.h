/*
 * Memory that tells on whoever leaves it: pages between two guard pages, private or shared by a
 * file, which can be taken away while the test goes on.
 */
#ifndef UMO_TESTS_KIT_GUARDED_H
#define UMO_TESTS_KIT_GUARDED_H

#include <stdbool.h>
#include <stddef.h>

typedef struct guarded {
    char *data; /* size_bytes of them; its end, or its start, touches a guard page */
    size_t size_bytes;
    char *pages; /* without the guards */
    size_t pages_bytes;
    int file; /* of shared memory, else -1 */
    bool closed;
} guarded;

/* Private memory whose last byte is the last of its page: reading or writing behind it crashes. */
guarded guarded_private(size_t size_bytes);
/* A client's region: whole pages of a file, data at their start. */
guarded guarded_shared(size_t size_bytes);
/* The same bytes at another address, as for a region that was registered twice. */
guarded guarded_again(const guarded *shared);
/* From here on any touch crashes, except a reading one where `reads` says so. */
void guarded_close(guarded *m, bool reads);
/* As a server that unregisters a region: the addresses are gone and may come again. */
void guarded_unmap(guarded *m);
/* Whether the bytes of the pages outside [from, from + size) still are what they were at the
 * start. */
bool guarded_clean_outside(const guarded *m, const char *from, size_t size_bytes);

#endif

/*
 * Every allocation of the kit and of libumo, counted, and one of them failing on demand.
 *
 * The linker routes malloc, calloc, realloc, strdup and asprintf of all objects of a test program
 * through here (--wrap). The fake server and the tests themselves use the plain ones below, so that
 * what is counted is the kit's and libumo's alone. Jansson's own are left alone: it crashes without
 * memory.
 */
#ifndef UMO_TESTS_KIT_ALLOCATIONS_H
#define UMO_TESTS_KIT_ALLOCATIONS_H

#include <stddef.h>
#include <stdint.h>

/* Forgets the count; the number-th allocation from here on fails once, 0 for none. */
void allocations_start(uint64_t number);
/* How many there were since the start. Nothing fails any more. */
uint64_t allocations_stop(void);

/* Not counted, never failing. Freed by free(). Zeroed. */
void *plain_alloc(size_t size_bytes);
char *plain_text(const char *text);

#endif

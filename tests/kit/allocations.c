/*
 * The other end of --wrap; see allocations.h.
 */
#include "allocations.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Atomic bool counting;
static _Atomic uint64_t counted;
static _Atomic uint64_t failing;

/* NOLINTBEGIN(bugprone-reserved-identifier): the linker gives these names. */
void *__real_malloc(size_t size_bytes);
void *__real_calloc(size_t count, size_t size_bytes);
void *__real_realloc(void *memory, size_t size_bytes);
void *__wrap_malloc(size_t size_bytes);
void *__wrap_calloc(size_t count, size_t size_bytes);
void *__wrap_realloc(void *memory, size_t size_bytes);
char *__wrap_strdup(const char *text);
int __wrap_asprintf(char **out, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* NOLINTEND(bugprone-reserved-identifier) */

/* Counts one allocation; true when it is the one that fails. */
static bool fails(void)
{
    return atomic_load(&counting) && atomic_fetch_add(&counted, 1) + 1 == atomic_load(&failing);
}

void *__wrap_malloc(size_t size_bytes)
{
    return fails() ? NULL : __real_malloc(size_bytes);
}

void *__wrap_calloc(size_t count, size_t size_bytes)
{
    return fails() ? NULL : __real_calloc(count, size_bytes);
}

void *__wrap_realloc(void *memory, size_t size_bytes)
{
    return fails() ? NULL : __real_realloc(memory, size_bytes);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : plain_text(text);
}

int __wrap_asprintf(char **out, const char *format, ...)
{
    if (fails()) {
        *out = NULL;
        return -1;
    }
    va_list arguments;
    va_start(arguments, format);
    int length = vasprintf(out, format, arguments);
    va_end(arguments);
    return length;
}

void *plain_alloc(size_t size_bytes)
{
    void *memory = __real_calloc(1, size_bytes != 0 ? size_bytes : 1);
    if (memory == NULL) {
        abort();
    }
    return memory;
}

char *plain_text(const char *text)
{
    size_t size_bytes = strlen(text) + 1;
    return memcpy(plain_alloc(size_bytes), text, size_bytes);
}

void allocations_start(uint64_t number)
{
    atomic_store(&counted, 0);
    atomic_store(&failing, number);
    atomic_store(&counting, true);
}

uint64_t allocations_stop(void)
{
    atomic_store(&counting, false);
    return atomic_load(&counted);
}

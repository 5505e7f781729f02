/*
 * What the parts of the spy ask each other: entry points by name, and the real ones behind them.
 */
#ifndef UMO_SPY_HOOKS_H
#define UMO_SPY_HOOKS_H

#include <stdbool.h>
#include <stddef.h>

static inline bool umo_spy_names_equal(const char *a, const char *b)
{
    while (*a != '\0' && *a == *b) {
        a++;
        b++;
    }
    return *a == *b;
}

/* The real dlsym. */
void *umo_spy_symbol_find(void *handle, const char *name);

/* The hook of libc's copy function `name`, or NULL. */
void *umo_spy_host_hook_find(const char *name);

/* The hook to hand out for `name` looked up in `handle`, or NULL where there is none or the library
 * lacks the name. Remembers the real entry point. */
void *umo_spy_hook_find(void *handle, const char *name);

#endif

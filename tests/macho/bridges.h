/*
 * For the bridges: how a table's row is written, and how Apple's variadic arguments are read.
 *
 * Only what the programs import is bridged; a symbol without a row is refused by name at load. A
 * value whose meaning differs between the systems is translated, and one that has no translation
 * ends the process: a bridge never guesses.
 */
#ifndef MACHO_BRIDGES_H
#define MACHO_BRIDGES_H

#include "runtime.h"

#include <stdarg.h>
#include <stdint.h>
#include <string.h>

/* The same in both systems, types and values. */
#define DIRECT(name)                                                                               \
    {                                                                                              \
        "_" #name, (void (*)(void))name                                                            \
    }
#define BRIDGE(name)                                                                               \
    {                                                                                              \
        "_" #name, (void (*)(void))bridge_##name                                                   \
    }
#define BRIDGE_AS(symbol, function)                                                                \
    {                                                                                              \
        symbol, (void (*)(void))function                                                           \
    }
#define BRIDGES_END                                                                                \
    {                                                                                              \
        NULL, NULL                                                                                 \
    }

/* The next variadic argument of an Apple call: a slot of 8 bytes. */
static inline uint64_t area_next(char **area)
{
    uint64_t value;
    memcpy(&value, *area, sizeof value);
    *area += sizeof value;
    return value;
}

/*
 * An AAPCS64 va_list whose registers are used up reads everything from its stack pointer, in slots
 * of 8 bytes: that is Apple's area. Only a long double differs (16 bytes here, 8 there).
 */
typedef struct linux_va_list {
    void *stack;
    void *general_top;
    void *vector_top;
    int general_offset;
    int vector_offset;
} linux_va_list;

static inline void area_to_va_list(char *area, va_list *out)
{
    const linux_va_list list = {.stack = area};
    _Static_assert(sizeof list == sizeof(va_list), "the va_list of AAPCS64");
    memcpy(out, &list, sizeof list);
}

/* For each bit of a Darwin mask its Linux bit. A bit without a row ends the process. */
typedef struct flag_row {
    int darwin;
    int ours;
} flag_row;

int macho_flags(const char *what, int darwin, const flag_row *rows, size_t count);
#define FLAGS(what, value, rows) macho_flags(what, value, rows, sizeof(rows) / sizeof((rows)[0]))

#endif

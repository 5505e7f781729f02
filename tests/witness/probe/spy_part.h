/* The library beside the probe: its copies must be told from the program's. */
#ifndef SPY_PART_H
#define SPY_PART_H

#include <stddef.h>

#define PART_API __attribute__((visibility("default")))

PART_API void part_copy(void *to, const void *from, size_t size_bytes);
PART_API void *part_next(const char *name);

#endif

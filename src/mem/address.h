/*
 * Ranges of memory by address, for many readers that take no lock.
 *
 * A range lies in a level whose granule is at least as long as the range, so that it touches two
 * granules at most and costs two words of a hash table, whether it has 64 bytes or 64 GiB. A
 * look-up asks each level that is in use, one or two dozen at most. docs/patterns.md has the
 * argument why readers need no lock.
 */
#ifndef UMO_MEM_ADDRESS_H
#define UMO_MEM_ADDRESS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Never freed once it was inserted, but used again for others: readers may look at it at any time.
 * Zero before the first use. */
typedef struct umo_address_range {
    _Atomic uint64_t key; /* who has it, never the same twice; 0 when it is in no use */
    _Atomic uintptr_t start;
    _Atomic size_t size_bytes;
    _Atomic uint64_t serial; /* a later range hides an earlier one */
} umo_address_range;

/* What a look-up saw, all of one moment. */
typedef struct umo_address_hit {
    umo_address_range *range;
    uint64_t key;
    uintptr_t start;
    size_t size_bytes;
} umo_address_hit;

/* Writers take turns: the caller holds a lock over both. insert sets key last; false when memory is
 * out, and nothing was inserted. remove takes the key away first. */
bool umo_address_insert(umo_address_range *range, uint64_t key, uintptr_t start, size_t size_bytes);
void umo_address_remove(umo_address_range *range);

/* Takes the key away, or sets it, for a range that has no address. */
void umo_address_key_set(umo_address_range *range, uint64_t key);

/* Any thread, no lock. False when no range has the address. */
bool umo_address_find(uintptr_t address, umo_address_hit *out);

#endif

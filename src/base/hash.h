/*
 * An intrusive chained hash table: entries embed a link, so a look-up and a removal allocate
 * nothing.
 */
#ifndef UMO_BASE_HASH_H
#define UMO_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct umo_hash_link {
    struct umo_hash_link *next;
    uint64_t hash;
} umo_hash_link;

typedef struct umo_hash {
    umo_hash_link **slots;
    size_t slot_count; /* a power of two */
    size_t count;
} umo_hash;

/* False when memory is out. */
bool umo_hash_init(umo_hash *table);
void umo_hash_finish(umo_hash *table);

/* Never fails: a table that cannot grow gets longer chains. */
void umo_hash_insert(umo_hash *table, umo_hash_link *link, uint64_t hash);
void umo_hash_remove(umo_hash *table, umo_hash_link *link);

/* First link of the chain for a hash; the caller walks ->next and compares hash and key. */
static inline umo_hash_link *umo_hash_chain(const umo_hash *table, uint64_t hash)
{
    return table->slots[hash & (table->slot_count - 1)];
}

/* The first link with a hash, or NULL: the one, where keys have hashes of their own, as 64-bit
 * numbers have under umo_hash_mix(). */
static inline umo_hash_link *umo_hash_find(const umo_hash *table, uint64_t hash)
{
    umo_hash_link *link = umo_hash_chain(table, hash);
    while (link != NULL && link->hash != hash) {
        link = link->next;
    }
    return link;
}

/* Mixes words into a hash (the finaliser of splitmix64). Source: Steele, Lea, Flood, OOPSLA 2014.
 */
static inline uint64_t umo_hash_mix(uint64_t seed, uint64_t word)
{
    uint64_t z = seed + word + UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif

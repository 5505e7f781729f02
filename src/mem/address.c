/*
 * An open-addressing hash table of pointers that only its writers move.
 *
 * What makes a look-up sound without a lock: an inserted word stays where it is until it is
 * removed, and a removed one becomes a gap that probes go on over (a gap turns empty only when the
 * word behind it is empty, so that no probe ever needed it). A table that grows is replaced, and
 * the old one stays: together they are shorter than the new one. A word may be stale, so what it
 * points to is read like a sequence lock, with the key as its number.
 */
#include "mem/address.h"

#include "base/hash.h"

#include <stdlib.h>

#define LEVEL_BITS 2u /* granules of a level are four times those of the level below */
#define LEVEL_LEAST 8u
#define LEVELS 29u /* 2^(8 + 2 * 28) bytes: more than an address can tell apart */
#define SLOTS_LEAST 256u

typedef struct table {
    struct table *older;
    size_t mask;
    size_t used; /* words that are not empty */
    _Atomic(umo_address_range *) words[];
} table;

/* What a removed word becomes. */
static umo_address_range gap;

static _Atomic(table *) current;
static _Atomic uint32_t levels_used;
static size_t level_counts[LEVELS];
static size_t words_live;
static uint64_t serial_last;

static unsigned level_shift(unsigned level)
{
    unsigned shift = LEVEL_LEAST + LEVEL_BITS * level;
    unsigned most = (unsigned)sizeof(uintptr_t) * 8 - 1;
    return shift < most ? shift : most;
}

static unsigned level_of(size_t size_bytes)
{
    unsigned level = 0;
    while (level + 1 < LEVELS && (size_bytes - 1) >> level_shift(level) != 0) {
        level++;
    }
    return level;
}

static size_t word_hash(unsigned level, uintptr_t granule)
{
    return (size_t)umo_hash_mix(level, (uint64_t)granule);
}

static void word_put(table *t, size_t hash, umo_address_range *range)
{
    size_t i = hash & t->mask;
    for (;; i = (i + 1) & t->mask) {
        umo_address_range *word = atomic_load_explicit(&t->words[i], memory_order_relaxed);
        if (word == &gap || word == NULL) {
            t->used += word == NULL ? 1 : 0;
            atomic_store_explicit(&t->words[i], range, memory_order_release);
            return;
        }
    }
}

/* Empties the word, and the gaps before it that no probe needs any more. */
static void word_take(table *t, size_t hash, const umo_address_range *range)
{
    size_t i = hash & t->mask;
    while (atomic_load_explicit(&t->words[i], memory_order_relaxed) != range) {
        i = (i + 1) & t->mask;
    }
    atomic_store_explicit(&t->words[i], &gap, memory_order_release);
    while (atomic_load_explicit(&t->words[i], memory_order_relaxed) == &gap &&
           atomic_load_explicit(&t->words[(i + 1) & t->mask], memory_order_relaxed) == NULL) {
        atomic_store_explicit(&t->words[i], NULL, memory_order_release);
        t->used--;
        i = (i - 1) & t->mask;
    }
}

/* Calls word_put or word_take for the one or two granules of a range. */
static void granules_each(table *t, umo_address_range *range, bool put)
{
    uintptr_t start = atomic_load_explicit(&range->start, memory_order_relaxed);
    size_t size_bytes = atomic_load_explicit(&range->size_bytes, memory_order_relaxed);
    unsigned level = level_of(size_bytes);
    uintptr_t first = start >> level_shift(level);
    uintptr_t last = (start + (size_bytes - 1)) >> level_shift(level);
    for (uintptr_t granule = first; granule <= last; granule++) {
        if (put) {
            word_put(t, word_hash(level, granule), range);
        } else {
            word_take(t, word_hash(level, granule), range);
        }
    }
}

/* Moves what is live into a fresh table, which is twice as long as what is live needs. */
static table *table_renew(table *old)
{
    size_t slots = SLOTS_LEAST;
    while (slots < 8 * words_live) {
        slots *= 2;
    }
    /* A table of the same length again would be kept for ever each time. */
    if (old != NULL && slots <= old->mask + 1) {
        slots = 2 * (old->mask + 1);
    }
    table *t = calloc(1, sizeof *t + slots * sizeof t->words[0]);
    if (t == NULL) {
        return NULL;
    }
    t->older = old;
    t->mask = slots - 1;
    for (size_t i = 0; old != NULL && i <= old->mask; i++) {
        umo_address_range *range = atomic_load_explicit(&old->words[i], memory_order_relaxed);
        if (range == NULL || range == &gap) {
            continue;
        }
        /* Once for each range, not for each of its words: at the first of them. */
        size_t size_bytes = atomic_load_explicit(&range->size_bytes, memory_order_relaxed);
        uintptr_t start = atomic_load_explicit(&range->start, memory_order_relaxed);
        unsigned level = level_of(size_bytes);
        size_t at = word_hash(level, start >> level_shift(level)) & old->mask;
        while (atomic_load_explicit(&old->words[at], memory_order_relaxed) != range) {
            at = (at + 1) & old->mask;
        }
        if (at == i) {
            granules_each(t, range, true);
        }
    }
    atomic_store_explicit(&current, t, memory_order_release);
    return t;
}

void umo_address_key_set(umo_address_range *range, uint64_t key)
{
    /* Not just released: who takes it away looks next whether anybody holds on to it, and who takes
     * hold looks next whether it is still there. */
    atomic_store_explicit(&range->key, key, memory_order_seq_cst);
}

bool umo_address_insert(umo_address_range *range, uint64_t key, uintptr_t start, size_t size_bytes)
{
    table *t = atomic_load_explicit(&current, memory_order_relaxed);
    /* A quarter full at most, so that probes are short and end. */
    if (t == NULL || t->used + 2 > (t->mask + 1) / 4) {
        table *renewed = table_renew(t);
        /* Worse is better than none, while a probe still ends. */
        if (renewed == NULL && (t == NULL || t->used + 2 > t->mask / 2)) {
            return false;
        }
        t = renewed != NULL ? renewed : t;
    }
    /* A reader that sees one of these sees that the key went before, or a later one. */
    atomic_store_explicit(&range->start, start, memory_order_release);
    atomic_store_explicit(&range->size_bytes, size_bytes, memory_order_release);
    atomic_store_explicit(&range->serial, ++serial_last, memory_order_release);
    umo_address_key_set(range, key);
    unsigned level = level_of(size_bytes);
    if (level_counts[level]++ == 0) {
        uint32_t levels = atomic_load_explicit(&levels_used, memory_order_relaxed);
        atomic_store_explicit(&levels_used, levels | 1u << level, memory_order_release);
    }
    granules_each(t, range, true);
    words_live += 2;
    return true;
}

void umo_address_remove(umo_address_range *range)
{
    umo_address_key_set(range, 0);
    granules_each(atomic_load_explicit(&current, memory_order_relaxed), range, false);
    unsigned level = level_of(atomic_load_explicit(&range->size_bytes, memory_order_relaxed));
    if (--level_counts[level] == 0) {
        uint32_t levels = atomic_load_explicit(&levels_used, memory_order_relaxed);
        atomic_store_explicit(&levels_used, levels & ~(1u << level), memory_order_release);
    }
    words_live -= 2;
}

/* Reads a range as it was at one moment; false when it was nobody's or does not have the address.
 */
static bool range_read(umo_address_range *range, uintptr_t address, umo_address_hit *hit,
                       uint64_t *serial)
{
    uint64_t key = atomic_load_explicit(&range->key, memory_order_acquire);
    uintptr_t start = atomic_load_explicit(&range->start, memory_order_acquire);
    size_t size_bytes = atomic_load_explicit(&range->size_bytes, memory_order_acquire);
    *serial = atomic_load_explicit(&range->serial, memory_order_acquire);
    if (key == 0 || address - start >= size_bytes ||
        atomic_load_explicit(&range->key, memory_order_relaxed) != key) {
        return false;
    }
    *hit = (umo_address_hit){range, key, start, size_bytes};
    return true;
}

bool umo_address_find(uintptr_t address, umo_address_hit *out)
{
    table *t = atomic_load_explicit(&current, memory_order_acquire);
    if (t == NULL) {
        return false;
    }
    uint64_t latest = 0;
    uint32_t levels = atomic_load_explicit(&levels_used, memory_order_acquire);
    for (; levels != 0; levels &= levels - 1) {
        unsigned level = (unsigned)__builtin_ctz(levels);
        size_t i = word_hash(level, address >> level_shift(level)) & t->mask;
        for (size_t probes = 0; probes <= t->mask; probes++, i = (i + 1) & t->mask) {
            umo_address_range *range = atomic_load_explicit(&t->words[i], memory_order_acquire);
            umo_address_hit hit;
            uint64_t serial;
            if (range == NULL) {
                break;
            }
            if (range != &gap && range_read(range, address, &hit, &serial) && serial > latest) {
                latest = serial;
                *out = hit;
            }
        }
    }
    return latest != 0;
}

/*
 * See hash.h. Doubles at a load of one; a failed growth is not an error, only slower.
 */
#include "base/hash.h"

#include <stdlib.h>

#define SLOTS_FIRST 64

bool umo_hash_init(umo_hash *table)
{
    table->slots = calloc(SLOTS_FIRST, sizeof(umo_hash_link *));
    table->slot_count = SLOTS_FIRST;
    table->count = 0;
    return table->slots != NULL;
}

void umo_hash_finish(umo_hash *table)
{
    free(table->slots);
    table->slots = NULL;
}

static void slot_push(umo_hash_link **slots, size_t slot_count, umo_hash_link *link)
{
    umo_hash_link **slot = &slots[link->hash & (slot_count - 1)];
    link->next = *slot;
    *slot = link;
}

static void table_grow(umo_hash *table)
{
    size_t slot_count = table->slot_count * 2;
    umo_hash_link **slots = calloc(slot_count, sizeof(umo_hash_link *));
    if (slots == NULL) {
        return;
    }
    for (size_t i = 0; i < table->slot_count; i++) {
        for (umo_hash_link *link = table->slots[i]; link != NULL;) {
            umo_hash_link *next = link->next;
            slot_push(slots, slot_count, link);
            link = next;
        }
    }
    free(table->slots);
    table->slots = slots;
    table->slot_count = slot_count;
}

void umo_hash_insert(umo_hash *table, umo_hash_link *link, uint64_t hash)
{
    if (table->count >= table->slot_count) {
        table_grow(table);
    }
    link->hash = hash;
    slot_push(table->slots, table->slot_count, link);
    table->count++;
}

void umo_hash_remove(umo_hash *table, umo_hash_link *link)
{
    umo_hash_link **at = &table->slots[link->hash & (table->slot_count - 1)];
    while (*at != link) {
        at = &(*at)->next;
    }
    *at = link->next;
    table->count--;
}

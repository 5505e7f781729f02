/*
 * The hash table and the list of uses, against plain arrays.
 */
#include "base/hash.h"
#include "base/list.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    ENTRIES = 1000
};

typedef struct entry {
    umo_hash_link link;
    umo_list_link by_use;
    uint64_t key;
    bool inside;
} entry;

static entry *entry_find(const umo_hash *table, uint64_t hash, uint64_t key)
{
    entry *found = NULL;
    for (umo_hash_link *link = umo_hash_chain(table, hash); link != NULL; link = link->next) {
        entry *e = UMO_LIST_ENTRY(link, entry, link);
        if (link->hash == hash && e->key == key) {
            assert_null(found); /* once only */
            found = e;
        }
    }
    return found;
}

/* spread says how many different hashes there are: 1 puts all into one chain. */
static void agree_with_flags(uint64_t spread)
{
    umo_hash table;
    assert_true(umo_hash_init(&table));
    entry *entries = calloc(ENTRIES, sizeof *entries);
    assert_non_null(entries);
    unsigned seed = 3;
    size_t inside = 0;
    for (uint64_t i = 0; i < ENTRIES; i++) {
        entries[i].key = i;
    }
    for (int step = 0; step < 20 * ENTRIES; step++) {
        entry *e = &entries[(size_t)rand_r(&seed) % ENTRIES];
        uint64_t hash = umo_hash_mix(0, e->key % spread);
        if (e->inside) {
            umo_hash_remove(&table, &e->link);
        } else {
            umo_hash_insert(&table, &e->link, hash);
        }
        inside = e->inside ? inside - 1 : inside + 1;
        e->inside = !e->inside;
        assert_int_equal(table.count, inside);
        assert_ptr_equal(entry_find(&table, hash, e->key), e->inside ? e : NULL);
        const entry *other = &entries[(size_t)rand_r(&seed) % ENTRIES];
        assert_ptr_equal(entry_find(&table, umo_hash_mix(0, other->key % spread), other->key),
                         other->inside ? other : NULL);
    }
    umo_hash_finish(&table);
    free(entries);
}

static void hash_finds_what_is_inside(void **state)
{
    (void)state;
    agree_with_flags(ENTRIES);
    agree_with_flags(17);
}

static void hash_works_in_one_chain(void **state)
{
    (void)state;
    agree_with_flags(1);
}

/* What the wraps' and views' keys look like: addresses a page apart must not share a chain. */
static void hash_spreads_addresses(void **state)
{
    (void)state;
    size_t slots[1024] = {0};
    for (uint64_t i = 0; i < 4096; i++) {
        slots[umo_hash_mix(0, 0x7f0000000000u + i * 4096) % 1024]++;
    }
    for (size_t i = 0; i < 1024; i++) {
        assert_true(slots[i] <= 20);
    }
}

static void list_keeps_the_order_of_use(void **state)
{
    (void)state;
    enum {
        SIZE = 20
    };
    umo_list_link head;
    entry entries[SIZE];
    size_t order[SIZE]; /* newest first */
    umo_list_init(&head);
    assert_ptr_equal(head.next, &head);
    for (size_t i = 0; i < SIZE; i++) {
        entries[i].key = i;
        umo_list_push(&head, &entries[i].by_use);
        order[SIZE - 1 - i] = i;
    }
    unsigned seed = 5;
    for (int step = 0; step < 1000; step++) {
        size_t at = (size_t)rand_r(&seed) % SIZE;
        size_t moved = order[at];
        memmove(&order[1], &order[0], at * sizeof order[0]);
        order[0] = moved;
        umo_list_remove(&entries[moved].by_use);
        umo_list_push(&head, &entries[moved].by_use);
        size_t i = 0;
        for (umo_list_link *link = head.next; link != &head; link = link->next) {
            assert_int_equal(UMO_LIST_ENTRY(link, entry, by_use)->key, order[i++]);
        }
        assert_int_equal(i, SIZE);
        for (umo_list_link *link = head.previous; link != &head; link = link->previous) {
            assert_int_equal(UMO_LIST_ENTRY(link, entry, by_use)->key, order[--i]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hash_finds_what_is_inside),
        cmocka_unit_test(hash_works_in_one_chain),
        cmocka_unit_test(hash_spreads_addresses),
        cmocka_unit_test(list_keeps_the_order_of_use),
    };
    return cmocka_run_group_tests_name("hash", tests, NULL, NULL);
}

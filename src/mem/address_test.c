/*
 * Ranges by address: against a plain list, at the edges, and read by threads while others write.
 */
#include "mem/address.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum {
    RANGES = 300,
    STEPS = 40000,
    READERS = 3,
    ROUNDS = 30000
};

typedef struct plain {
    umo_address_range *range; /* NULL: not inserted */
    uint64_t key;
    uintptr_t start;
    size_t size_bytes;
    uint64_t serial;
} plain;

static umo_address_range ranges[RANGES];
static uint64_t keys_given;

static uint32_t random_next(uint64_t *state)
{
    *state = *state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*state >> 33);
}

/* Any length from a byte to 4 GiB, short ones more often; now and then beside or inside another. */
static void place(uint64_t *random, const plain *others, uintptr_t *start, size_t *size_bytes)
{
    *size_bytes = 1 + random_next(random) % ((size_t)1 << random_next(random) % 32);
    *start = ((uintptr_t)1 << 32) + random_next(random) * (uintptr_t)64;
    const plain *other = &others[random_next(random) % RANGES];
    if (other->range != NULL && random_next(random) % 2 == 0) {
        *start = other->start +
                 (random_next(random) % 2 == 0 ? other->size_bytes : other->size_bytes / 2);
    }
}

static const plain *plain_find(const plain *all, uintptr_t address)
{
    const plain *best = NULL;
    for (int i = 0; i < RANGES; i++) {
        if (all[i].range != NULL && address - all[i].start < all[i].size_bytes &&
            (best == NULL || all[i].serial > best->serial)) {
            best = &all[i];
        }
    }
    return best;
}

static void addresses_find_what_a_plain_list_finds(void **state)
{
    (void)state;
    static plain all[RANGES];
    uint64_t random = 7;
    uint64_t serial = 0;
    unsigned hits = 0;
    for (int step = 0; step < STEPS; step++) {
        plain *p = &all[random_next(&random) % RANGES];
        if (p->range != NULL) {
            umo_address_remove(p->range);
            p->range = NULL;
        } else {
            place(&random, all, &p->start, &p->size_bytes);
            p->range = &ranges[p - all];
            p->key = ++keys_given;
            p->serial = ++serial;
            assert_true(umo_address_insert(p->range, p->key, p->start, p->size_bytes));
        }
        const plain *near = &all[random_next(&random) % RANGES];
        uintptr_t edges[] = {near->start, near->start - 1, near->start + near->size_bytes,
                             near->start + near->size_bytes - 1,
                             near->start + near->size_bytes / 3};
        for (size_t i = 0; i < sizeof edges / sizeof edges[0]; i++) {
            const plain *expected = plain_find(all, edges[i]);
            umo_address_hit hit = {0};
            assert_int_equal(umo_address_find(edges[i], &hit), expected != NULL);
            if (expected != NULL) {
                hits++;
                assert_int_equal(hit.key, expected->key);
                assert_int_equal(hit.start, expected->start);
                assert_int_equal(hit.size_bytes, expected->size_bytes);
            }
        }
    }
    assert_true(hits > STEPS);
    for (int i = 0; i < RANGES; i++) {
        if (all[i].range != NULL) {
            umo_address_remove(all[i].range);
        }
    }
}

static void a_range_at_the_end_of_addresses_is_found(void **state)
{
    (void)state;
    umo_address_hit hit;
    uintptr_t start = UINTPTR_MAX - 999;
    assert_true(umo_address_insert(&ranges[0], ++keys_given, start, 1000));
    assert_true(umo_address_find(UINTPTR_MAX, &hit));
    assert_int_equal(hit.start, start);
    assert_false(umo_address_find(start - 1, &hit));
    assert_false(umo_address_find(0, &hit));
    umo_address_remove(&ranges[0]);
    assert_false(umo_address_find(UINTPTR_MAX, &hit));
}

static void a_range_without_an_address_is_not_found(void **state)
{
    (void)state;
    umo_address_hit hit;
    umo_address_key_set(&ranges[1], ++keys_given);
    assert_false(umo_address_find(0, &hit));
    umo_address_key_set(&ranges[1], 0);
}

/* ---- threads ---- */

/* Where range i lies at its generation g: readers can check what they are told. */
static uintptr_t churn_start(unsigned i, uint64_t generation)
{
    return ((uintptr_t)1 << 33) + (uintptr_t)i * 65536 + (uintptr_t)(generation % 16) * 4096;
}

static _Atomic bool churn_ends;

/* A range that stays is always found; one that comes and goes is found whole or not at all. */
static void *churn_read(void *argument)
{
    uint64_t random = (uint64_t)(uintptr_t)argument;
    uintptr_t fixed = ((uintptr_t)1 << 32) + 4096 * (uintptr_t)77;
    unsigned long wrong = 0;
    unsigned long looked = 0;
    while (!atomic_load(&churn_ends) || looked < 1000) {
        umo_address_hit hit;
        looked++;
        if (!umo_address_find(fixed + random_next(&random) % 4096, &hit) || hit.start != fixed ||
            hit.size_bytes != 4096) {
            wrong++;
        }
        unsigned i = 1 + random_next(&random) % 32;
        if (umo_address_find(churn_start(i, random_next(&random) % 16) + 100, &hit) &&
            (hit.start != churn_start((unsigned)(hit.key % 64), hit.key / 64) ||
             hit.size_bytes != 4096)) {
            wrong++;
        }
    }
    return (void *)(uintptr_t)wrong;
}

static void readers_find_what_stays_and_never_a_mixture(void **state)
{
    (void)state;
    pthread_t threads[READERS];
    uint64_t generations[33] = {0};
    uintptr_t fixed = ((uintptr_t)1 << 32) + 4096 * (uintptr_t)77;
    assert_true(umo_address_insert(&ranges[0], 64, fixed, 4096));
    atomic_store(&churn_ends, false);
    for (uintptr_t i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, churn_read, (void *)(i + 1)), 0);
    }
    uint64_t random = 3;
    bool in[33] = {false};
    for (int round = 0; round < ROUNDS; round++) {
        unsigned i = 1 + random_next(&random) % 32;
        if (in[i]) {
            umo_address_remove(&ranges[i]);
        } else {
            uint64_t generation = ++generations[i];
            assert_true(umo_address_insert(&ranges[i], generation * 64 + i,
                                           churn_start(i, generation), 4096));
        }
        in[i] = !in[i];
    }
    atomic_store(&churn_ends, true);
    for (int i = 0; i < READERS; i++) {
        void *wrong = NULL;
        assert_int_equal(pthread_join(threads[i], &wrong), 0);
        assert_int_equal((uintptr_t)wrong, 0);
    }
    for (unsigned i = 1; i <= 32; i++) {
        if (in[i]) {
            umo_address_remove(&ranges[i]);
        }
    }
    umo_address_remove(&ranges[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_find_what_a_plain_list_finds),
        cmocka_unit_test(a_range_at_the_end_of_addresses_is_found),
        cmocka_unit_test(a_range_without_an_address_is_not_found),
        cmocka_unit_test(readers_find_what_stays_and_never_a_mixture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The exclusion in cache.h, model-checked: a thread that goes in and out of its cache, and one that
 * holds the lock and blocks it, over every interleaving on a machine that delays stores (each
 * processor has a queue of its own stores, as on x86; nothing weaker is needed to break it).
 *
 * The model is run with each fence taken away, too: then it must find both inside at once. So a
 * protocol that lacked one would not pass. What the real functions do is checked for the same steps
 * in the same order by the last test.
 */
#include "mem/cache.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    BUSY = 0,
    BLOCKED = 1,
    ROUNDS = 2,
    QUEUE = 4
};

typedef enum fences {
    FENCE_ASYMMETRIC, /* the blocker makes all processors drain their stores */
    FENCE_BOTH,       /* each side fences itself: where the system has nothing better */
    FENCE_OWNER_ONLY,
    FENCE_BLOCKER_ONLY,
    FENCE_NONE
} fences;

typedef struct queue {
    unsigned char count;
    unsigned char variable[QUEUE];
    unsigned char value[QUEUE];
} queue;

/* All that can differ between two moments. Compared bytewise: all members are characters. */
typedef struct world {
    unsigned char memory[2];
    queue stores[2]; /* 0: the owner's processor, 1: the blocker's */
    unsigned char owner_at;
    unsigned char owner_round;
    unsigned char blocker_at;
    unsigned char blocker_round;
} world;

enum {
    OWNER_BUSY,
    OWNER_FENCE,
    OWNER_LOOK,
    OWNER_INSIDE,
    OWNER_LEAVE,
    OWNER_BACK_OFF, /* blocked: it leaves and takes the lock */
    OWNER_LOCK,
    OWNER_DONE,
    BLOCKER_LOCK, /* shares the owner's lock */
    BLOCKER_BLOCK,
    BLOCKER_FENCE,
    BLOCKER_WAIT,
    BLOCKER_INSIDE,
    BLOCKER_UNBLOCK,
    BLOCKER_DONE
};

typedef struct search {
    fences with;
    world *seen;
    size_t seen_count;
    size_t seen_capacity;
    bool both_inside;
    size_t ends;
} search;

static void store(world *w, int processor, unsigned variable, unsigned value)
{
    queue *q = &w->stores[processor];
    assert_true(q->count < QUEUE);
    q->variable[q->count] = (unsigned char)variable;
    q->value[q->count] = (unsigned char)value;
    q->count++;
}

/* A processor sees its own stores at once. */
static unsigned load(const world *w, int processor, unsigned variable)
{
    const queue *q = &w->stores[processor];
    for (unsigned i = q->count; i-- > 0;) {
        if (q->variable[i] == variable) {
            return q->value[i];
        }
    }
    return w->memory[variable];
}

static void drain_one(world *w, int processor)
{
    queue *q = &w->stores[processor];
    w->memory[q->variable[0]] = q->value[0];
    q->count--;
    memmove(q->variable, q->variable + 1, q->count);
    memmove(q->value, q->value + 1, q->count);
    q->variable[q->count] = 0;
    q->value[q->count] = 0;
}

static void drain(world *w, int processor)
{
    while (w->stores[processor].count > 0) {
        drain_one(w, processor);
    }
}

/* The lock is held by the blocker from its first step to its last, by the owner at OWNER_LOCK. */
static bool blocker_has_lock(const world *w)
{
    return w->blocker_at > BLOCKER_LOCK && w->blocker_at < BLOCKER_DONE;
}

/* One step of the owner; false when it can make none. */
static bool owner_step(const search *s, world *w)
{
    const bool fences_itself = s->with == FENCE_BOTH || s->with == FENCE_OWNER_ONLY;
    switch (w->owner_at) {
    case OWNER_BUSY:
        store(w, 0, BUSY, 1);
        break;
    case OWNER_FENCE:
        if (fences_itself) {
            drain(w, 0);
        }
        break;
    case OWNER_LOOK:
        w->owner_at = load(w, 0, BLOCKED) != 0 ? OWNER_BACK_OFF : OWNER_INSIDE;
        return true;
    case OWNER_INSIDE:
        break;
    case OWNER_LEAVE:
        store(w, 0, BUSY, 0);
        w->owner_round++;
        w->owner_at = w->owner_round == ROUNDS ? OWNER_DONE : OWNER_BUSY;
        return true;
    case OWNER_BACK_OFF:
        store(w, 0, BUSY, 0);
        break;
    case OWNER_LOCK:
        if (blocker_has_lock(w)) {
            return false;
        }
        drain(w, 0); /* taking a lock is a fence */
        w->owner_round++;
        w->owner_at = w->owner_round == ROUNDS ? OWNER_DONE : OWNER_BUSY;
        return true;
    default:
        return false;
    }
    w->owner_at++;
    return true;
}

static bool blocker_step(const search *s, world *w)
{
    switch (w->blocker_at) {
    case BLOCKER_LOCK:
        drain(w, 1);
        break;
    case BLOCKER_BLOCK:
        store(w, 1, BLOCKED, 1);
        break;
    case BLOCKER_FENCE:
        if (s->with != FENCE_OWNER_ONLY && s->with != FENCE_NONE) {
            drain(w, 1);
        }
        if (s->with == FENCE_ASYMMETRIC) {
            drain(w, 0);
        }
        break;
    case BLOCKER_WAIT:
        if (load(w, 1, BUSY) != 0) {
            return false;
        }
        break;
    case BLOCKER_INSIDE:
        break;
    case BLOCKER_UNBLOCK:
        store(w, 1, BLOCKED, 0);
        drain(w, 1); /* giving the lock back is a fence for what came before */
        w->blocker_round++;
        w->blocker_at = w->blocker_round == ROUNDS ? BLOCKER_DONE : BLOCKER_LOCK;
        return true;
    default:
        return false;
    }
    w->blocker_at++;
    return true;
}

static bool seen_before(search *s, const world *w)
{
    for (size_t i = 0; i < s->seen_count; i++) {
        if (memcmp(&s->seen[i], w, sizeof *w) == 0) {
            return true;
        }
    }
    assert_true(s->seen_count < s->seen_capacity);
    s->seen[s->seen_count++] = *w;
    return false;
}

static void explore(search *s, const world *w)
{
    if (seen_before(s, w)) {
        return;
    }
    if (w->owner_at == OWNER_INSIDE && w->blocker_at == BLOCKER_INSIDE) {
        s->both_inside = true;
        return;
    }
    bool moved = false;
    world next = *w;
    if (owner_step(s, &next)) {
        explore(s, &next);
        moved = true;
    }
    next = *w;
    if (blocker_step(s, &next)) {
        explore(s, &next);
        moved = true;
    }
    for (int processor = 0; processor < 2; processor++) {
        next = *w;
        if (next.stores[processor].count > 0) {
            drain_one(&next, processor);
            explore(s, &next);
            moved = true;
        }
    }
    if (!moved) {
        /* Nobody can go on: all must be done, or they would wait for each other for ever. */
        assert_true(w->owner_at == OWNER_DONE && w->blocker_at == BLOCKER_DONE);
        s->ends++;
    }
}

static bool both_get_inside(fences with)
{
    search s = {.with = with, .seen_capacity = 20000};
    s.seen = calloc(s.seen_capacity, sizeof *s.seen);
    assert_non_null(s.seen);
    const world start = {.blocker_at = BLOCKER_LOCK};
    explore(&s, &start);
    assert_true(s.both_inside || s.ends > 0);
    assert_true(s.seen_count > 30);
    free(s.seen);
    return s.both_inside;
}

static void no_interleaving_lets_both_inside(void **state)
{
    (void)state;
    assert_false(both_get_inside(FENCE_ASYMMETRIC));
    assert_false(both_get_inside(FENCE_BOTH));
}

static void each_fence_is_needed(void **state)
{
    (void)state;
    assert_true(both_get_inside(FENCE_OWNER_ONLY));
    assert_true(both_get_inside(FENCE_BLOCKER_ONLY));
    assert_true(both_get_inside(FENCE_NONE));
}

/* The real functions' steps, as far as one thread can see them. */
static void the_functions_do_what_the_model_does(void **state)
{
    (void)state;
    static umo_cache caches[2];
    caches[0].next = &caches[1];
    umo_os_barrier_prepare();
    assert_true(umo_cache_enter(&caches[0]));
    assert_int_equal(caches[0].busy, 1);
    umo_cache_leave(&caches[0]);
    assert_int_equal(caches[0].busy, 0);
    umo_caches_block(caches, NULL);
    assert_false(umo_cache_enter(&caches[0]));
    assert_int_equal(caches[0].busy, 0); /* or the blocker would wait for ever */
    assert_false(umo_cache_enter(&caches[1]));
    umo_caches_unblock(caches, NULL);
    umo_caches_block(caches, &caches[1]); /* but its own */
    assert_true(umo_cache_enter(&caches[1]));
    umo_cache_leave(&caches[1]);
    umo_caches_unblock(caches, &caches[1]);
    assert_true(umo_cache_enter(&caches[0]));
    umo_cache_leave(&caches[0]);
}

typedef struct inside {
    umo_cache cache;
    _Atomic bool entered;
    _Atomic bool leaving;
} inside;

static void *stay_inside(void *argument)
{
    inside *in = argument;
    if (umo_cache_enter(&in->cache)) {
        in->entered = true;
        (void)usleep(20000);
        in->leaving = true;
        umo_cache_leave(&in->cache);
    }
    return NULL;
}

static void who_is_inside_is_waited_for(void **state)
{
    (void)state;
    static inside in;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stay_inside, &in), 0);
    while (!in.entered) {
        (void)usleep(100);
    }
    umo_caches_block(&in.cache, NULL);
    assert_true(in.leaving);
    umo_caches_unblock(&in.cache, NULL);
    assert_int_equal(pthread_join(thread, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_inside_is_waited_for),
        cmocka_unit_test(no_interleaving_lets_both_inside),
        cmocka_unit_test(each_fence_is_needed),
        cmocka_unit_test(the_functions_do_what_the_model_does),
    };
    return cmocka_run_group_tests_name("cache_model", tests, NULL, NULL);
}

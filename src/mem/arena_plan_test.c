/*
 * Arenas whose requests free early: what is planned, that it is as short as a plan can be, and that
 * no two pieces in use ever share a byte, wherever a request leaves its plan.
 */
#include "mem/arena_plan.h"
#include "mem/arena_rig_test.h"

#include <umo/plan.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

enum {
    KIB = 1024,
    TENSORS = 40,
    STEPS = 2 * TENSORS
};

/* A step of a request: taking tensor number `tensor` of so many bytes, or freeing it. */
typedef struct step {
    unsigned tensor;
    size_t size_bytes; /* 0: it is freed */
    size_t align_bytes;
} step;

typedef struct live {
    unsigned char *data;
    size_t size_bytes;
} live;

static void check(const live *l, unsigned tensor)
{
    for (size_t i = 0; i < l->size_bytes; i++) {
        if (l->data[i] != (unsigned char)(tensor + 1)) {
            fail_msg("tensor %u, byte %zu", tensor, i);
        }
    }
}

/* Plays the steps: whoever is in use keeps its bytes until it is freed, or the request ends. */
static void play(const rig *r, const step *steps, size_t count)
{
    live tensors[STEPS] = {0};
    for (size_t i = 0; i < count; i++) {
        live *l = &tensors[steps[i].tensor];
        if (steps[i].size_bytes == 0) {
            check(l, steps[i].tensor);
            assert_int_equal(umo_arena_free(r->arena, l->data), UMO_OK);
            *l = (live){0};
            continue;
        }
        void *data = NULL;
        assert_int_equal(
            umo_arena_alloc(r->arena, steps[i].size_bytes, steps[i].align_bytes, &data), UMO_OK);
        assert_int_equal((uintptr_t)data % steps[i].align_bytes, 0);
        *l = (live){data, steps[i].size_bytes};
        memset(data, (int)(steps[i].tensor + 1), steps[i].size_bytes);
    }
    for (unsigned t = 0; t < STEPS; t++) {
        check(&tensors[t], t);
    }
    umo_arena_reset(r->arena);
}

/* Each tensor is made from the one before, which is then freed. The last one stays. */
static size_t pipeline(step *out, unsigned tensors, size_t size_bytes)
{
    size_t count = 0;
    for (unsigned t = 0; t < tensors; t++) {
        out[count++] = (step){t, size_bytes + 64 * (size_t)t, 64};
        if (t > 0) {
            out[count++] = (step){t - 1, 0, 0};
        }
    }
    return count;
}

static void requests_that_come_again_are_planned(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    step steps[STEPS];
    size_t count = pipeline(steps, 8, KIB);
    size_t sum = 0;
    for (unsigned t = 0; t < 8; t++) {
        sum += KIB + 64 * (size_t)t;
    }
    play(&r, steps, count); /* the first free is seen */
    play(&r, steps, count);
    assert_int_equal(stats(&r).planned_bytes, 0);
    assert_int_equal(stats(&r).peak_bytes, sum);
    play(&r, steps, count); /* twice the same */
    /* The last two are the largest that are in use at once, and a plan has them side by side. */
    const size_t peak = 2 * KIB + 64 * (7 + 6);
    assert_int_equal(stats(&r).planned_bytes, peak);
    assert_int_equal(stats(&r).held_bytes, 0); /* what was too much is the pool's again */
    play(&r, steps, count);
    umo_pool_stats before;
    umo_pool_stats after;
    umo_pool_read(r.pool, &before);
    for (int i = 0; i < 20; i++) {
        play(&r, steps, count);
        assert_int_equal(stats(&r).held_bytes, peak + 4095);
        assert_int_equal(stats(&r).chunk_count, 1);
    }
    umo_pool_read(r.pool, &after);
    assert_int_equal(after.misses, before.misses);
    rig_close(&r);
}

static void an_arena_in_which_nothing_is_freed_is_as_it_was(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    const step steps[] = {{0, 100, 64}, {1, 200, 64}, {2, 300, 64}};
    for (int i = 0; i < 12; i++) {
        play(&r, steps, 3);
    }
    assert_int_equal(stats(&r).planned_bytes, 0);
    assert_int_equal(umo_arena_free(r.arena, NULL), UMO_OK);
    assert_int_equal(umo_arena_free(r.arena, &r), UMO_OK); /* it is not noted */
    rig_close(&r);
}

static void what_is_not_in_use_is_not_freed(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    step steps[STEPS];
    size_t count = pipeline(steps, 4, KIB);
    for (int planned = 0; planned < 2; planned++) {
        void *data = NULL;
        play(&r, steps, count);
        assert_int_equal(umo_arena_alloc(r.arena, KIB, 64, &data), UMO_OK);
        assert_int_equal(umo_arena_free(r.arena, (char *)data + 64), UMO_E_INVAL);
        assert_int_equal(umo_arena_free(r.arena, &r), UMO_E_INVAL);
        assert_int_equal(umo_arena_free(r.arena, data), UMO_OK);
        assert_int_equal(umo_arena_free(r.arena, data), UMO_E_INVAL);
        umo_arena_reset(r.arena);
        assert_int_equal(umo_arena_free(r.arena, data), UMO_E_INVAL);
        umo_arena_reset(r.arena);
        for (int i = 0; i < 4; i++) {
            play(&r, steps, count);
        }
        assert_int_not_equal(stats(&r).planned_bytes, 0);
    }
    rig_close(&r);
}

/* The plan of a shape that is gone makes way, later each time. */
static void another_shape_is_planned_when_it_has_come_often(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    step steps[STEPS];
    size_t peaks[4];
    unsigned needed = 2;
    for (unsigned shape = 0; shape < 4; shape++, needed *= 2) {
        size_t count = pipeline(steps, 6, (shape + 1) * (size_t)KIB);
        peaks[shape] = 2 * (shape + 1) * (size_t)KIB + 64 * 9;
        if (shape == 0) {
            play(&r, steps, count);
        }
        for (unsigned i = 1; i < needed; i++) {
            play(&r, steps, count);
            assert_int_equal(stats(&r).planned_bytes, shape == 0 || i >= 8 ? 0 : peaks[shape - 1]);
        }
        play(&r, steps, count);
        assert_int_equal(stats(&r).planned_bytes, peaks[shape]);
    }
    /* Shapes that take turns are not planned, and go on as they can. */
    for (int i = 0; i < 40; i++) {
        size_t count = pipeline(steps, 6, (size_t)(i % 2 + 1) * KIB);
        play(&r, steps, count);
        assert_int_equal(stats(&r).planned_bytes, i < 7 ? peaks[3] : 0);
    }
    rig_close(&r);
}

/* What a request takes after it has left its plan begins where the last planned piece ends, so that
 * a budget holds what it held before there was a plan. */
static void what_a_request_has_not_had_of_its_block_is_free_again(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 20 * KIB * KIB);
    const step planned[] = {{0, 5 * KIB * KIB, 64}, {1, 5 * KIB * KIB, 64}, {0, 0, 0}};
    void *data = NULL;
    for (size_t had = 0; had < 2; had++) {
        for (int i = 0; i < 5; i++) {
            play(&r, planned, 3);
        }
        assert_int_equal(stats(&r).planned_bytes, 10 * KIB * KIB);
        size_t got = 0;
        if (had == 1) {
            assert_int_equal(umo_arena_alloc(r.arena, 5 * KIB * KIB, 64, &data), UMO_OK);
            memset(data, 1, 5 * KIB * KIB);
            got += 5;
        }
        while (umo_arena_alloc(r.arena, KIB * KIB, 64, &data) == UMO_OK) {
            memset(data, 2, KIB * KIB);
            got++;
        }
        assert_true(got >= 19);
        assert_true(stats(&r).used_bytes <= 20 * KIB * KIB);
        umo_arena_reset(r.arena);
    }
    rig_close(&r);
}

/* A block that nobody uses any more is given back as what was too much. */
static void a_plan_that_nobody_follows_is_forgotten(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    const step planned[] = {{0, 4 * KIB * KIB, 64}, {1, 4 * KIB * KIB, 64}, {0, 0, 0}};
    const step little[] = {{0, 100, 64}};
    for (int i = 0; i < 4; i++) {
        play(&r, planned, 3);
    }
    for (int i = 0; i < 7; i++) {
        play(&r, little, 1);
        umo_arena_reset(r.arena); /* one that takes nothing says nothing */
    }
    assert_int_equal(stats(&r).planned_bytes, 8 * KIB * KIB);
    play(&r, planned, 3);
    for (int i = 0; i < 8; i++) {
        assert_int_equal(stats(&r).planned_bytes, 8 * KIB * KIB);
        play(&r, little, 1);
    }
    assert_int_equal(stats(&r).planned_bytes, 0);
    for (int i = 0; i < 16; i++) {
        play(&r, little, 1);
    }
    void *data = NULL;
    assert_int_equal(umo_arena_alloc(r.arena, 100, 64, &data), UMO_OK);
    assert_true(stats(&r).held_bytes <= 4096);
    rig_close(&r);
}

static unsigned chance(uint64_t *seed, unsigned below)
{
    *seed = *seed * 6364136223846793005U + 1442695040888963407U;
    return (unsigned)(*seed >> 33) % below;
}

static size_t random_request(uint64_t *seed, step *out, unsigned first)
{
    unsigned in_use[STEPS];
    unsigned used = 0;
    unsigned next = first;
    size_t count = 0;
    while (next < first + TENSORS / 2) {
        if (used > 0 && chance(seed, 2) == 0) {
            unsigned at = chance(seed, used);
            out[count++] = (step){in_use[at], 0, 0};
            in_use[at] = in_use[--used];
        } else {
            out[count++] = (step){next, 1 + chance(seed, 3000), (size_t)1 << chance(seed, 13)};
            in_use[used++] = next++;
        }
    }
    return count;
}

/* A planned request that does something else from any step on: what is in use keeps its bytes. */
static void a_request_may_leave_its_plan_at_any_step(void **state)
{
    (void)state;
    for (uint64_t shape = 1; shape <= 12; shape++) {
        uint64_t seed = shape;
        rig r = rig_open(KIB, 0);
        step steps[STEPS];
        step other[STEPS];
        size_t count = random_request(&seed, steps, 0);
        for (int i = 0; i < 3; i++) {
            play(&r, steps, count);
        }
        size_t planned = stats(&r).planned_bytes;
        assert_int_not_equal(planned, 0);
        assert_true(planned <= stats(&r).peak_bytes);
        for (size_t at = 0; at <= count; at++) {
            play(&r, steps, at); /* it ends there */
            memcpy(other, steps, at * sizeof *steps);
            size_t more = random_request(&seed, other + at, TENSORS / 2);
            play(&r, other, at + more < STEPS ? at + more : STEPS);
            for (size_t k = at; k + 1 < count; k++) { /* one step is missing */
                other[k] = steps[k + 1];
            }
            bool taken = at < count && steps[at].size_bytes != 0;
            for (size_t k = at; taken && k + 1 < count; k++) {
                taken = other[k].tensor != steps[at].tensor; /* or it would be freed unseen */
            }
            memcpy(other, steps, at * sizeof *steps);
            if (at < count && (steps[at].size_bytes == 0 || taken)) {
                play(&r, other, count - 1);
            }
            play(&r, steps, count); /* and the plan is still good */
            assert_int_equal(stats(&r).planned_bytes, planned);
        }
        rig_close(&r);
    }
}

/* Sizes alone do not make a step the planned one. */
static void another_alignment_or_another_free_is_another_step(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    const step planned[] = {{0, 2 * KIB, 8}, {1, 2 * KIB + 8, 8}, {0, 0, 0}, {2, KIB, 8}};
    const step freed[] = {{0, 2 * KIB, 8}, {1, 2 * KIB + 8, 8}, {1, 0, 0}, {2, KIB, 8}};
    const step aligned[] = {{0, 2 * KIB, 8}, {1, 2 * KIB + 8, 4096}, {0, 0, 0}, {2, KIB, 4096}};
    for (int i = 0; i < 4; i++) {
        play(&r, planned, 4);
    }
    assert_int_equal(stats(&r).planned_bytes, 4 * KIB + 8);
    play(&r, freed, 4);
    play(&r, planned, 4);
    play(&r, aligned, 4);
    play(&r, planned, 4);
    assert_int_equal(stats(&r).planned_bytes, 4 * KIB + 8);
    rig_close(&r);
}

static void memory_that_is_out_leaves_a_request_without_its_plan(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 256 * KIB);
    step steps[STEPS];
    void *others[256];
    size_t held = 0;
    size_t count = pipeline(steps, 8, KIB);
    for (int i = 0; i < 3; i++) {
        play(&r, steps, count);
    }
    assert_int_equal(stats(&r).held_bytes, 0);
    while (held < 256 && umo_pool_take(r.pool, KIB, 0, &others[held]) == UMO_OK) {
        held++;
    }
    void *data = NULL;
    assert_int_equal(umo_arena_alloc(r.arena, KIB, 64, &data), UMO_E_LIMIT);
    while (held > 0) {
        assert_int_equal(umo_pool_give(r.pool, others[--held]), UMO_OK);
    }
    assert_int_equal(umo_arena_alloc(r.arena, KIB, 64, &data), UMO_OK);
    assert_int_equal(umo_arena_free(r.arena, data), UMO_OK);
    umo_arena_reset(r.arena);
    play(&r, steps, count);
    play(&r, steps, count);
    assert_int_equal(stats(&r).used_bytes, 0);
    rig_close(&r);
}

/* The chunk of a request that went without its plan is too short for the block of the next one. */
static void a_request_after_one_without_its_plan_has_it_again(void **state)
{
    (void)state;
    rig r = rig_open(KIB, KIB * KIB);
    step steps[STEPS];
    void *others[256];
    void *data = NULL;
    size_t held = 0;
    size_t count = pipeline(steps, 8, 32 * KIB);
    for (int i = 0; i < 3; i++) {
        play(&r, steps, count);
    }
    const size_t planned = stats(&r).planned_bytes;
    assert_in_range(planned, 64 * KIB, 66 * KIB);
    while (held < 256 && umo_pool_take(r.pool, 4 * KIB, 0, &others[held]) == UMO_OK) {
        held++;
    }
    for (int i = 0; i < 10; i++) { /* some is free again, and it is less than the block */
        assert_int_equal(umo_pool_give(r.pool, others[--held]), UMO_OK);
    }
    assert_int_equal(umo_arena_alloc(r.arena, KIB, 64, &data), UMO_OK);
    assert_true(stats(&r).used_bytes < planned);
    umo_arena_reset(r.arena);
    assert_in_range(stats(&r).held_bytes, 1, planned);
    while (held > 0) {
        assert_int_equal(umo_pool_give(r.pool, others[--held]), UMO_OK);
    }
    assert_int_equal(umo_arena_alloc(r.arena, 32 * KIB, 64, &data), UMO_OK);
    assert_true(stats(&r).used_bytes >= planned);
    assert_int_equal(stats(&r).chunk_count, 1);
    umo_arena_reset(r.arena);
    rig_close(&r);
}

static void a_request_of_too_many_steps_is_not_planned(void **state)
{
    (void)state;
    rig r = rig_open(KIB, 0);
    for (int i = 0; i < 5; i++) {
        for (unsigned k = 0; k < UMO_ARENA_STEPS_MAX / 2 + 1; k++) {
            void *data = NULL;
            assert_int_equal(umo_arena_alloc(r.arena, 8, 8, &data), UMO_OK);
            assert_int_equal(umo_arena_free(r.arena, data), UMO_OK);
        }
        umo_arena_reset(r.arena);
        assert_int_equal(stats(&r).planned_bytes, 0);
    }
    for (int i = 0; i < 3; i++) { /* and the longest that is */
        for (unsigned k = 0; k < UMO_ARENA_STEPS_MAX / 2; k++) {
            void *data = NULL;
            assert_int_equal(umo_arena_alloc(r.arena, 8, 8, &data), UMO_OK);
            assert_int_equal(umo_arena_free(r.arena, data), UMO_OK);
        }
        umo_arena_reset(r.arena);
    }
    assert_int_equal(stats(&r).planned_bytes, 8);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_that_come_again_are_planned),
        cmocka_unit_test(an_arena_in_which_nothing_is_freed_is_as_it_was),
        cmocka_unit_test(what_is_not_in_use_is_not_freed),
        cmocka_unit_test(another_shape_is_planned_when_it_has_come_often),
        cmocka_unit_test(what_a_request_has_not_had_of_its_block_is_free_again),
        cmocka_unit_test(a_plan_that_nobody_follows_is_forgotten),
        cmocka_unit_test(a_request_may_leave_its_plan_at_any_step),
        cmocka_unit_test(another_alignment_or_another_free_is_another_step),
        cmocka_unit_test(memory_that_is_out_leaves_a_request_without_its_plan),
        cmocka_unit_test(a_request_after_one_without_its_plan_has_it_again),
        cmocka_unit_test(a_request_of_too_many_steps_is_not_planned),
    };
    return cmocka_run_group_tests_name("arena_plan", tests, NULL, NULL);
}

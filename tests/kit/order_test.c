/*
 * The order of a batch: no permutation of its requests leaves more bytes where they lie. Small
 * batches of any shape are compared with all permutations; the rest are the rules one by one.
 */
#include "world.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define MEMBERS_MAX 6
#define TENSORS 3 /* inputs, and as many outputs */

static uint64_t chance;

static unsigned below(unsigned limit)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(chance >> 33) % limit;
}

/* ---- Against all permutations ---- */

/* A batch without a server: kit_order_choose() looks at addresses and never at what lies there. */
typedef struct bare_batch {
    umo_model model;
    umo_instance instance;
    umo_io ios[2 * TENSORS];
    kit_slot slots[2 * TENSORS];
    kit_request requests[MEMBERS_MAX];
    kit_input inputs[MEMBERS_MAX][TENSORS];
    kit_output outputs[MEMBERS_MAX][TENSORS];
    kit_request *members[MEMBERS_MAX];
    kit_request *spare[MEMBERS_MAX];
} bare_batch;

static void bare_start(bare_batch *bare, size_t count)
{
    memset(bare, 0, sizeof *bare);
    bare->model.inputs = bare->ios;
    bare->model.outputs = bare->ios + TENSORS;
    bare->model.input_count = TENSORS;
    bare->model.output_count = TENSORS;
    bare->model.batch_max = 64;
    for (size_t i = 0; i < 2 * TENSORS; i++) {
        bare->ios[i].align_bytes = 1;
    }
    bare->instance.model = &bare->model;
    bare->instance.spare = bare->spare;
    bare->instance.batch = (umo_batch){.instance = &bare->instance,
                                       .members = bare->members,
                                       .count = count,
                                       .inputs = bare->slots,
                                       .outputs = bare->slots + TENSORS};
    for (size_t m = 0; m < count; m++) {
        bare->members[m] = &bare->requests[m];
        bare->requests[m].inputs = bare->inputs[m];
        bare->requests[m].outputs = bare->outputs[m];
    }
}

static void range_set(bare_batch *bare, size_t member, size_t tensor, uintptr_t address,
                      size_t size_bytes)
{
    if (tensor < TENSORS) {
        bare->inputs[member][tensor] =
            (kit_input){.present = true, .data = (const char *)address, .size_bytes = size_bytes};
    } else {
        bare->outputs[member][tensor - TENSORS] = (kit_output){
            .wanted = true, .asked = true, .data = (char *)address, .size_bytes = size_bytes};
    }
}

static uintptr_t range_get(const bare_batch *bare, const kit_request *request, size_t tensor,
                           size_t *size_bytes)
{
    size_t member = (size_t)(request - bare->requests);
    if (tensor < TENSORS) {
        *size_bytes = (size_t)bare->inputs[member][tensor].size_bytes;
        return (uintptr_t)bare->inputs[member][tensor].data;
    }
    *size_bytes = bare->outputs[member][tensor - TENSORS].size_bytes;
    return (uintptr_t)bare->outputs[member][tensor - TENSORS].data;
}

/* Bytes that an order leaves in place, from the rule alone. */
static size_t saved_by(const bare_batch *bare, kit_request *const *order, size_t count)
{
    size_t saved = 0;
    for (size_t t = 0; t < 2 * TENSORS; t++) {
        size_t total = 0;
        uintptr_t next = 0;
        bool run = true;
        for (size_t i = 0; i < count; i++) {
            size_t size_bytes;
            uintptr_t at = range_get(bare, order[i], t, &size_bytes);
            if (size_bytes > 0) {
                run = run && at != 0 && (total == 0 || at == next);
                next = at + size_bytes;
                total += size_bytes;
            }
        }
        saved += run ? total : 0;
    }
    return saved;
}

static size_t most_saved(const bare_batch *bare, kit_request **order, size_t count, size_t fixed)
{
    size_t most = fixed == count ? saved_by(bare, order, count) : 0;
    for (size_t i = fixed; i < count; i++) {
        kit_request *kept = order[fixed];
        order[fixed] = order[i];
        order[i] = kept;
        size_t saved = most_saved(bare, order, count, fixed + 1);
        most = saved > most ? saved : most;
        order[i] = order[fixed];
        order[fixed] = kept;
    }
    return most;
}

/* A tensor of slots in a random order: touching, with a gap, overlapping, doubled, or unknown. */
static void tensor_place(bare_batch *bare, size_t count, size_t tensor, const size_t *rows)
{
    size_t order[MEMBERS_MAX];
    for (size_t i = 0; i < count; i++) {
        size_t at = below((unsigned)i + 1);
        order[i] = order[at];
        order[at] = i;
    }
    size_t row_bytes = below(4) * 8;
    unsigned spoil = below(8);
    size_t which = below((unsigned)count);
    uintptr_t address = 0x10000 * (tensor + 1);
    for (size_t i = 0; i < count; i++) {
        size_t size_bytes = rows[order[i]] * row_bytes;
        if (i == which && i > 0) {
            address += spoil == 0 ? 8 : 0;
            address -= spoil == 1 ? 8 : 0;
        }
        range_set(bare, order[i], tensor, i == which && spoil == 2 ? 0 : address, size_bytes);
        address += i == which && spoil == 3 ? 0 : size_bytes;
    }
}

static void no_permutation_saves_more(void **state)
{
    (void)state;
    static bare_batch bare;
    size_t saved_by_arrival = 0;
    size_t saved_at_all = 0;
    for (unsigned seed = 0; seed < 4000; seed++) {
        chance = seed;
        size_t count = 2 + below(MEMBERS_MAX - 1);
        size_t rows[MEMBERS_MAX];
        for (size_t i = 0; i < count; i++) {
            rows[i] = below(8) == 0 ? 0 : 1 + below(3);
        }
        bare_start(&bare, count);
        for (size_t t = 0; t < 2 * TENSORS; t++) {
            tensor_place(&bare, count, t, rows);
        }
        kit_request *order[MEMBERS_MAX];
        memcpy(order, bare.members, sizeof order);
        size_t most = most_saved(&bare, order, count, 0);
        saved_by_arrival += saved_by(&bare, bare.members, count);
        bool kept = kit_order_choose(&bare.instance.batch);
        size_t saved = saved_by(&bare, bare.members, count);
        if (saved != most) {
            fail_msg("seed %u: %zu bytes saved, another order saves %zu", seed, saved, most);
        }
        bool seen[MEMBERS_MAX] = {false};
        bool moved = false;
        for (size_t i = 0; i < count; i++) {
            size_t member = (size_t)(bare.members[i] - bare.requests);
            assert_false(seen[member]);
            seen[member] = true;
            moved = moved || member != i;
        }
        assert_int_equal(kept, !moved);
        saved_at_all += saved;
    }
    assert_true(saved_at_all > 2 * saved_by_arrival); /* or nothing was tried */
}

/* A tensor that is empty for some requests only leaves their places open, and two such tensors may
 * leave different ones open. */
static void partly_empty_tensors_cost_an_order_but_no_answer(void **state)
{
    (void)state;
    static bare_batch bare;
    for (unsigned seed = 0; seed < 2000; seed++) {
        chance = seed;
        size_t count = 2 + below(MEMBERS_MAX - 1);
        bare_start(&bare, count);
        for (size_t t = 0; t < 2; t++) {
            size_t rows[MEMBERS_MAX];
            for (size_t i = 0; i < count; i++) {
                rows[i] = below(3);
            }
            tensor_place(&bare, count, t, rows);
        }
        kit_request *order[MEMBERS_MAX];
        memcpy(order, bare.members, sizeof order);
        size_t most = most_saved(&bare, order, count, 0);
        (void)kit_order_choose(&bare.instance.batch);
        size_t saved = saved_by(&bare, bare.members, count);
        assert_true(saved <= most);
        /* The heavier of two is never given up. */
        assert_true(2 * saved >= most);
    }
}

static void a_thousand_requests_are_put_in_order(void **state)
{
    (void)state;
    enum {
        MANY = 5000
    };
    umo_io io = {.align_bytes = 1};
    umo_model model = {.inputs = &io, .input_count = 1};
    kit_slot slot = {0};
    kit_request *requests = calloc(MANY, sizeof *requests);
    kit_input *inputs = calloc(MANY, sizeof *inputs);
    kit_request **members = calloc(2 * (size_t)MANY, sizeof(kit_request *));
    umo_instance instance = {.model = &model, .spare = members + MANY};
    instance.batch =
        (umo_batch){.instance = &instance, .members = members, .count = MANY, .inputs = &slot};
    for (size_t i = 0; i < MANY; i++) {
        /* 3 and 5000 have no common divisor: every slot once, none beside its neighbour's. */
        inputs[i] = (kit_input){.present = true,
                                .data = (const char *)(0x100000 + 16 * (i * 3 % MANY)),
                                .size_bytes = 16};
        requests[i].inputs = &inputs[i];
        members[i] = &requests[i];
    }
    assert_false(kit_order_choose(&instance.batch));
    for (size_t i = 1; i < MANY; i++) {
        assert_ptr_equal(members[i]->inputs[0].data, members[i - 1]->inputs[0].data + 16);
    }
    free(members);
    free(inputs);
    free(requests);
}

/* ---- Through the kit ---- */

#define JOBS 4
#define SLOT_BYTES ((size_t)64)

/* Two inputs and an output of 16 floats; the second input is wider, and steers in other tests. */
static const model_plan two = {
    .batch_max = 8,
    .input_count = 2,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {16}}}, {.dtype = UMO_FP32, .dims = {1, {32}}}},
};
static const model_plan steering = {
    .batch_max = 8,
    .input_count = 2,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {16}}}, {.dtype = UMO_INT64, .dims = {1, {32}}}},
};

static const size_t upwards[JOBS] = {0, 1, 2, 3};
static const size_t mixed[JOBS] = {2, 0, 3, 1};
static const size_t apart[JOBS] = {0, 2, 4, 6};
static const size_t other[JOBS] = {3, 1, 0, 2};

typedef struct scene {
    world w;
    job jobs[JOBS];
    fake_region *regions[3];
    umo_counters before;
    umo_counters after;
} scene;

/* Runs one batch whose tensors lie in the given slots: two inputs, one output. */
static void scene_run(scene *s, const model_plan *plan, const size_t *first, const size_t *second,
                      const size_t *output)
{
    world_start(&s->w);
    world_load_ok(&s->w, plan);
    for (size_t i = 0; i < 3; i++) {
        s->regions[i] = fake_region_create(65536, true, i == 2);
    }
    for (size_t i = 0; i < JOBS; i++) {
        job *j = &s->jobs[i];
        job_start(j, plan, 1, 1, (unsigned)i);
        for (size_t r = 0; r < 3; r++) {
            fake_request_hold(j->request, s->regions[r]);
        }
        job_input_at(j, 0, s->regions[0]->memory.data + first[i] * j->sizes[0]);
        job_input_at(j, 1, s->regions[1]->memory.data + second[i] * j->sizes[1]);
        job_want(j, 0, s->regions[2]->memory.data + output[i] * SLOT_BYTES);
    }
    s->before = world_counters(&s->w);
    assert_true(world_execute(&s->w, s->jobs, JOBS));
    s->after = world_counters(&s->w);
    for (size_t i = 0; i < JOBS; i++) {
        job_expect_right(&s->jobs[i]);
        job_finish(&s->jobs[i]);
    }
    for (size_t i = 0; i < 3; i++) {
        fake_region_destroy(s->regions[i]);
    }
    world_unload(&s->w);
    world_finish(&s->w);
}

static uint64_t copied(const scene *s, umo_direction direction)
{
    uint64_t bytes = 0;
    for (int r = 0; r < UMO_REASON_COUNT; r++) {
        bytes += s->after.copy_performed[direction][r].bytes -
                 s->before.copy_performed[direction][r].bytes;
    }
    return bytes;
}

static void copied_expect(const model_plan *plan, const size_t *first, const size_t *second,
                          const size_t *output, uint64_t in, uint64_t out)
{
    scene s;
    scene_run(&s, plan, first, second, output);
    assert_int_equal(copied(&s, UMO_DIRECTION_IN), in);
    assert_int_equal(copied(&s, UMO_DIRECTION_OUT), out);
}

static void one_order_serves_all_tensors(void **state)
{
    (void)state;
    copied_expect(&two, mixed, mixed, mixed, 0, 0);
}

static void the_heavier_tensors_decide(void **state)
{
    (void)state;
    /* The second input is as large as the first one and the output together. */
    copied_expect(&two, mixed, other, apart, JOBS * SLOT_BYTES, JOBS * SLOT_BYTES);
    /* With the output on the first one's side it is a draw; the order that comes first stays. */
    scene s;
    scene_run(&s, &two, mixed, other, mixed);
    assert_int_equal(copied(&s, UMO_DIRECTION_IN) + copied(&s, UMO_DIRECTION_OUT),
                     JOBS * 2 * SLOT_BYTES);
}

static void outputs_of_certain_size_count_too(void **state)
{
    (void)state;
    copied_expect(&two, apart, apart, mixed, JOBS * 3 * SLOT_BYTES, 0);
    copied_expect(&two, apart, apart, other, JOBS * 3 * SLOT_BYTES, 0);
}

static void what_is_copied_anyway_has_no_say(void **state)
{
    (void)state;
    /* 64-bit integers in a client's memory are taken once, however they lie: the floats decide. */
    const uint64_t taken = JOBS * 256;
    copied_expect(&steering, mixed, other, mixed, taken, 0);
    copied_expect(&steering, mixed, upwards, mixed, taken, 0);
    /* Trusted clients' integers are heavier than all floats. */
    model_plan trusting = steering;
    trusting.unified = "{\"trusted_clients\": true}";
    copied_expect(&trusting, mixed, other, mixed, JOBS * SLOT_BYTES, JOBS * SLOT_BYTES);
}

static void one_range_for_two_requests_is_no_run(void **state)
{
    (void)state;
    static const size_t doubled[JOBS] = {0, 1, 1, 2};
    scene s;
    world_start(&s.w);
    world_load_ok(&s.w, &two);
    fake_region *region = fake_region_create(65536, true, false);
    for (size_t i = 0; i < JOBS; i++) {
        job *j = &s.jobs[i];
        /* The same contents, as they have the same memory. */
        job_start(j, &two, 1, 1, 7);
        fake_request_hold(j->request, region);
        job_input_at(j, 0, region->memory.data + doubled[i] * j->sizes[0]);
        job_input_at(j, 1, region->memory.data + 4096 + i * j->sizes[1]);
        job_want(j, 0, NULL);
    }
    s.before = world_counters(&s.w);
    assert_true(world_execute(&s.w, s.jobs, JOBS));
    s.after = world_counters(&s.w);
    for (size_t i = 0; i < JOBS; i++) {
        job_expect_right(&s.jobs[i]);
        job_finish(&s.jobs[i]);
    }
    assert_int_equal(copied(&s, UMO_DIRECTION_IN), JOBS * SLOT_BYTES);
    fake_region_destroy(region);
    world_unload(&s.w);
    world_finish(&s.w);
}

static void orders_are_left_alone_where_they_must_be(void **state)
{
    (void)state;
    /* 3 * 64 bytes in, 64 out, of 4 requests each. */
    model_plan plain = two;
    plain.unified = "{\"batch_optimization\": false}";
    copied_expect(&plain, mixed, mixed, mixed, JOBS * 3 * SLOT_BYTES, JOBS * SLOT_BYTES);
    plain.unified = "{\"batch_optimization\": true}";
    copied_expect(&plain, mixed, mixed, mixed, 0, 0);
}

/* Position is the slot of a sequence, whatever the addresses say. */
static void sequences_keep_their_places(void **state)
{
    (void)state;
    scene s;
    world_start(&s.w);
    world_configure(&s.w, &two);
    static char config[4096];
    const char *open = strchr(fake.config, '{');
    assert_non_null(open);
    (void)snprintf(config, sizeof config, "{\"sequence_batching\": {}, %s", open + 1);
    fake.config = config;
    assert_true(world_load(&s.w));
    s.w.plan = &two;
    fake_region *region = fake_region_create(65536, true, false);
    for (size_t i = 0; i < JOBS; i++) {
        job *j = &s.jobs[i];
        job_start(j, &two, 1, 1, (unsigned)i);
        fake_request_hold(j->request, region);
        job_input_at(j, 0, region->memory.data + mixed[i] * j->sizes[0]);
        job_input_at(j, 1, region->memory.data + 4096 + mixed[i] * j->sizes[1]);
        job_want(j, 0, NULL);
    }
    s.before = world_counters(&s.w);
    assert_true(world_execute(&s.w, s.jobs, JOBS));
    s.after = world_counters(&s.w);
    for (size_t i = 0; i < JOBS; i++) {
        job_expect_right(&s.jobs[i]);
        job_finish(&s.jobs[i]);
    }
    assert_int_equal(copied(&s, UMO_DIRECTION_IN), JOBS * 3 * SLOT_BYTES);
    fake_region_destroy(region);
    world_unload(&s.w);
    world_finish(&s.w);
}

/* ---- Parts ---- */

#define MIB ((size_t)1 << 20)

/* Members of `size_bytes` each in tensor 0, with a gap before those of `gaps`' bits. */
static size_t part_of(bare_batch *bare, size_t size_bytes, unsigned gaps)
{
    uintptr_t at = MIB;
    for (size_t m = 0; m < MEMBERS_MAX; m++) {
        at += (gaps & (1U << m)) != 0 ? 4096 : 0;
        range_set(bare, m, 0, at, size_bytes);
        at += size_bytes;
    }
    return kit_order_part(&bare->instance.batch);
}

static void a_batch_is_parted_where_a_gather_would_cost_more_than_a_call(void **state)
{
    (void)state;
    bare_batch bare;
    bare_start(&bare, MEMBERS_MAX);
    assert_int_equal(part_of(&bare, 16 * MIB, 0), MEMBERS_MAX);
    assert_int_equal(part_of(&bare, 16 * MIB, 1U << 2), 2);
    assert_int_equal(part_of(&bare, 16 * MIB, 1U << 5 | 1U << 3), 3);
    assert_int_equal(part_of(&bare, 16 * MIB, ~0U), 1);
    /* 8 MiB saved for one call more, and one byte a member less. */
    assert_int_equal(part_of(&bare, (8 * MIB + 5) / 6, 1U << 4), 4);
    assert_int_equal(part_of(&bare, 8 * MIB / 6, 1U << 4), MEMBERS_MAX);
    assert_int_equal(part_of(&bare, 2 * MIB, ~0U), MEMBERS_MAX);
    /* What is copied all the same is no reason. */
    bare.ios[0].control = true;
    assert_int_equal(part_of(&bare, 16 * MIB, 1U << 2), MEMBERS_MAX);
    bare.model.unified.trusted_clients = true;
    assert_int_equal(part_of(&bare, 16 * MIB, 1U << 2), 2);
    bare.ios[0].align_bytes = MIB;
    assert_int_equal(part_of(&bare, 16 * MIB, 1U << 2), MEMBERS_MAX);
}

static void large_requests_that_lie_apart_are_not_gathered(void **state)
{
    (void)state;
    static const model_plan plan = {.batch_max = 8,
                                    .input_count = 1,
                                    .output_count = 1,
                                    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
                                    .unified = "{}"};
    static const size_t lengths[] = {1000, 3000000};
    for (size_t l = 0; l < 2; l++) {
        world w;
        world_start(&w);
        world_load_ok(&w, &plan);
        job jobs[3];
        for (unsigned i = 0; i < 3; i++) {
            job_start(&jobs[i], &plan, 1, (int64_t)lengths[l], i);
            job_input_own(&jobs[i], 0, i == 1);
            job_want(&jobs[i], 0, NULL);
        }
        uint64_t before = engine.batches;
        assert_true(world_execute(&w, jobs, 3));
        for (unsigned i = 0; i < 3; i++) {
            job_expect_right(&jobs[i]);
            job_finish(&jobs[i]);
        }
        umo_counters counters = world_counters(&w);
        uint64_t copied = counters.copy_performed[UMO_DIRECTION_IN][UMO_REASON_SCATTERED].bytes;
        assert_int_equal(engine.batches - before, l == 0 ? 1 : 3);
        assert_int_equal(copied, l == 0 ? 3 * 1000 * sizeof(float) : 0);
        world_unload(&w);
        world_finish(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_permutation_saves_more),
        cmocka_unit_test(partly_empty_tensors_cost_an_order_but_no_answer),
        cmocka_unit_test(a_thousand_requests_are_put_in_order),
        cmocka_unit_test(one_order_serves_all_tensors),
        cmocka_unit_test(the_heavier_tensors_decide),
        cmocka_unit_test(outputs_of_certain_size_count_too),
        cmocka_unit_test(what_is_copied_anyway_has_no_say),
        cmocka_unit_test(one_range_for_two_requests_is_no_run),
        cmocka_unit_test(orders_are_left_alone_where_they_must_be),
        cmocka_unit_test(sequences_keep_their_places),
        cmocka_unit_test(a_batch_is_parted_where_a_gather_would_cost_more_than_a_call),
        cmocka_unit_test(large_requests_that_lie_apart_are_not_gathered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * Random models, requests and placements: every answer is what the model makes of its inputs, and
 * the counters are what the placement implies, worked out here from the addresses alone.
 *
 * kit_property [first seed [number of seeds]] runs others than the usual ones.
 */
#include "world.h"

#include "driver/wrapper_test.h"
#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define JOBS_MAX 13
#define REGIONS_MAX 128

static unsigned first_seed = 1;
static unsigned seed_count = 300;
static unsigned present_seed;

/* ---- Chance ---- */

static uint64_t chance;

static unsigned below(unsigned limit)
{
    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(chance >> 33) % limit;
}

static bool often(unsigned percent)
{
    return below(100) < percent;
}

static void shuffle(size_t *items, size_t count)
{
    for (size_t i = count; i > 1; i--) {
        size_t j = below((unsigned)i);
        size_t kept = items[i - 1];
        items[i - 1] = items[j];
        items[j] = kept;
    }
}

/* ---- A case ---- */

typedef enum engine_kind {
    ENGINE_CPU,
    ENGINE_DEVICE,
    ENGINE_STRICT, /* binds whole pages and writes whole pages back */
    ENGINE_APART,  /* shows each side what was published to it and no more */
    ENGINE_KINDS
} engine_kind;

typedef struct trial {
    engine_kind kind;
    bool late;
    bool enable;
    bool optimise;
    bool trusted;
    size_t threshold;
    char unified[256];
    model_plan plan;
    unsigned length_most; /* of a variable dimension */
    job jobs[JOBS_MAX];
    size_t count;
    size_t bad; /* a job with a wrong type; count for none */
    fake_region *regions[REGIONS_MAX];
    size_t region_count;
    bool shared[JOBS_MAX][MODEL_TENSORS_MAX]; /* inputs */
} trial;

static void plan_choose(trial *t)
{
    static const unsigned most[] = {1000, 1000, 40, 12};
    uint32_t variable_most = 0;
    model_plan *plan = &t->plan;
    *plan = (model_plan){.batch_max = often(70) ? 8 : 0,
                         .input_count = 1 + below(MODEL_TENSORS_MAX),
                         .output_count = 1 + below(MODEL_TENSORS_MAX)};
    for (size_t i = 0; i < plan->input_count; i++) {
        model_tensor *tensor = &plan->inputs[i];
        tensor->dtype = (umo_dtype)(1 + below(UMO_DTYPES - 1));
        if (tensor->dtype == UMO_BYTES && t->kind != ENGINE_CPU) {
            tensor->dtype = UMO_BF16;
        }
        /* An output of strings cannot stand in for an absent input. */
        tensor->optional = i > 0 && tensor->dtype != UMO_BYTES && often(30);
        tensor->dims.rank = below(4);
        uint32_t variable = 0;
        for (uint32_t d = 0; d < tensor->dims.rank; d++) {
            tensor->dims.dims[d] = often(50) ? -1 : 1 + (int64_t)below(5);
            variable += tensor->dims.dims[d] < 0 ? 1 : 0;
        }
        variable_most = variable > variable_most ? variable : variable_most;
    }
    t->length_most = most[variable_most];
    (void)snprintf(t->unified, sizeof t->unified,
                   "{\"enable\": %s, \"batch_optimization\": %s, \"trusted_clients\": %s, "
                   "\"zero_copy_threshold\": %zu}",
                   t->enable ? "true" : "false", t->optimise ? "true" : "false",
                   t->trusted ? "true" : "false", t->threshold);
    plan->unified = t->unified;
}

static void trial_choose(trial *t)
{
    static const size_t thresholds[] = {0, 40, 1000, 1000000};
    *t = (trial){.kind = (engine_kind)below(ENGINE_KINDS),
                 .enable = often(75),
                 .optimise = often(75),
                 .trusted = often(30),
                 .threshold = thresholds[below(4)]};
    t->late = t->kind == ENGINE_CPU && often(15);
    plan_choose(t);
}

static fake_region *region_add(trial *t, size_t size_bytes, bool shared, bool output)
{
    fake_region *region = fake_region_create(size_bytes, shared, output);
    t->regions[t->region_count++] = region;
    return region;
}

/* An input in several pieces, with or without gaps between them. */
static void place_in_pieces(trial *t, job *j, size_t input, bool shared, bool gaps)
{
    size_t size_bytes = j->sizes[input];
    fake_region *region = region_add(t, 2 * size_bytes + 8, shared, false);
    fake_request_hold(j->request, region);
    job_input_at(j, input, region->memory.data);
    TRITONBACKEND_Input *in = j->inputs[input];
    in->piece_count = 0;
    in->size_bytes = 0;
    char *at = region->memory.data;
    for (size_t done = 0; done < size_bytes;) {
        size_t piece = 1 + below((unsigned)(size_bytes / 2 + 1));
        piece = piece > size_bytes - done ? size_bytes - done : piece;
        memcpy(at, j->contents[input] + done, piece);
        fake_input_piece(in, at, piece);
        if (often(20)) {
            fake_input_piece(in, NULL, 0);
        }
        at += piece + (gaps ? 1 : 0);
        done += piece;
    }
}

/* The slots of a group's requests in the order of `order`, one behind the other. */
static void place_run(trial *t, const size_t *members, const size_t *order, size_t count,
                      size_t tensor, bool output, bool shared)
{
    size_t total = 0;
    for (size_t i = 0; i < count; i++) {
        const job *j = &t->jobs[members[i]];
        total += output ? job_output_bytes(j, tensor) : j->sizes[tensor];
    }
    size_t shift = often(50) ? 0 : below(9);
    fake_region *region = region_add(t, total + shift + (often(50) ? 0 : 16), shared, output);
    char *at = region->memory.data + shift;
    for (size_t i = 0; i < count; i++) {
        job *j = &t->jobs[members[order[i]]];
        fake_request_hold(j->request, region);
        if (output) {
            job_want(j, tensor, at);
            at += job_output_bytes(j, tensor);
        } else {
            job_input_at(j, tensor, at);
            at += j->sizes[tensor];
        }
    }
}

static void input_place(trial *t, const size_t *members, const size_t *order, size_t count,
                        size_t input)
{
    bool shared = often(50);
    unsigned how = below(10);
    for (size_t i = 0; i < count; i++) {
        job *j = &t->jobs[members[i]];
        t->shared[members[i]][input] = shared;
        if (how >= 5 && how < 7 && j->sizes[input] > 0) {
            place_in_pieces(t, j, input, shared, how == 5);
        } else if (how >= 7 || how == 5 || how == 6) {
            job_input_own(j, input, shared);
        }
    }
    if (how < 5) {
        place_run(t, members, order, count, input, false, shared);
    }
}

static void output_place(trial *t, const size_t *members, const size_t *order, size_t count,
                         size_t output)
{
    if (often(60)) {
        place_run(t, members, order, count, output, true, often(50));
        return;
    }
    for (size_t i = 0; i < count; i++) {
        if (often(70)) {
            job_want(&t->jobs[members[i]], output, NULL);
        }
    }
}

/* Some requests that were made alike; slots of all tensors mostly in one order. */
static void class_make(trial *t, size_t count, int64_t length)
{
    size_t members[4];
    size_t common[4];
    size_t own[4];
    bool absent[MODEL_TENSORS_MAX];
    for (size_t i = 0; i < count; i++) {
        members[i] = t->count++;
        common[i] = i;
        job_start(&t->jobs[members[i]], &t->plan, below(10) < 9 ? 1 + below(2) : 0, length,
                  below(1000000));
    }
    shuffle(common, count);
    memcpy(own, common, sizeof own);
    for (size_t i = 0; i < t->plan.input_count; i++) {
        absent[i] = t->plan.inputs[i].optional && often(40);
        if (!absent[i]) {
            if (often(25)) {
                shuffle(own, count);
            }
            input_place(t, members, often(75) ? common : own, count, i);
        }
    }
    for (size_t o = 0; o < t->plan.output_count; o++) {
        output_place(t, members, often(75) ? common : own, count, o);
    }
}

/* ---- The orders in which batches ran ---- */

typedef struct batch_run {
    const TRITONBACKEND_Request *requests[JOBS_MAX];
    size_t count;
} batch_run;

static batch_run runs[JOBS_MAX];
static size_t run_count;

static void order_note(umo_batch *batch)
{
    batch_run *run = &runs[run_count++];
    run->count = batch->count;
    for (size_t i = 0; i < batch->count; i++) {
        run->requests[i] = batch->members[i]->triton;
    }
}

/* ---- What the placement implies ---- */

typedef struct tallies {
    uint64_t copied[UMO_DIRECTIONS][UMO_REASON_COUNT];
    uint64_t avoided[UMO_DIRECTIONS];
    uint64_t performed[UMO_DIRECTIONS];
    uint64_t eliminated[UMO_DIRECTIONS];
} tallies;

/* The first byte where an input's pieces touch, else NULL. */
static const char *one_run(const job *j, size_t input)
{
    const TRITONBACKEND_Input *in = j->inputs[input];
    const char *first = NULL;
    const char *next = NULL;
    for (uint32_t p = 0; p < in->piece_count; p++) {
        const char *data = in->pieces[p].data;
        if (in->pieces[p].size_bytes == 0) {
            continue;
        }
        if (first != NULL && data != next) {
            return NULL;
        }
        first = first == NULL ? data : first;
        next = data + in->pieces[p].size_bytes;
    }
    return first;
}

static bool agree(const trial *t, const job *a, const job *b)
{
    uint32_t skip = t->plan.batch_max > 0 ? 1 : 0;
    for (size_t i = 0; i < t->plan.input_count; i++) {
        if (a->present[i] != b->present[i] ||
            (a->present[i] &&
             memcmp(a->shapes[i].dims + skip, b->shapes[i].dims + skip,
                    (a->shapes[i].rank - skip) * sizeof a->shapes[i].dims[0]) != 0)) {
            return false;
        }
    }
    return true;
}

static void input_expect(const trial *t, const size_t *group, size_t count, bool moved,
                         size_t input, tallies *out)
{
    uint64_t total = 0;
    bool run = true;
    bool shared = false;
    const char *next = NULL;
    for (size_t i = 0; i < count; i++) {
        const job *j = &t->jobs[group[i]];
        const char *data = one_run(j, input);
        if (j->sizes[input] > 0) {
            shared = total == 0 ? t->shared[group[i]][input] : shared;
            run = run && data != NULL && (total == 0 || data == next);
            next = data != NULL ? data + j->sizes[input] : NULL;
        }
        total += j->sizes[input];
    }
    bool on_device = t->kind != ENGINE_CPU;
    if (total == 0) {
        return;
    }
    if (on_device && !t->enable) {
        out->performed[UMO_DIRECTION_IN] += total;
        return;
    }
    umo_reason reason = UMO_REASON_NONE;
    if (!run) {
        reason = UMO_REASON_SCATTERED;
    } else if (on_device && total < t->threshold) {
        reason = UMO_REASON_BELOW_THRESHOLD;
    } else if (umo_dtype_is_control(t->plan.inputs[input].dtype) && !t->trusted && shared) {
        reason = UMO_REASON_CONTROL_DATA;
    }
    out->copied[UMO_DIRECTION_IN][reason] += reason != UMO_REASON_NONE ? total : 0;
    if (reason == UMO_REASON_NONE && !on_device && moved) {
        out->avoided[UMO_DIRECTION_IN] += total;
    }
    out->eliminated[UMO_DIRECTION_IN] += on_device ? total : 0;
}

static void output_expect(const trial *t, const size_t *group, size_t count, size_t output,
                          tallies *out)
{
    static const char *const names[] = {"OUTPUT0", "OUTPUT1", "OUTPUT2", "OUTPUT3"};
    uint64_t total = 0;
    uint64_t wanted = 0;
    bool anybody = false;
    bool run = true;
    const char *first = NULL;
    const char *next = NULL;
    for (size_t i = 0; i < count; i++) {
        const job *j = &t->jobs[group[i]];
        size_t size_bytes = job_output_bytes(j, output);
        bool empty_so_far = total == 0;
        total += size_bytes;
        if (!j->wants[output]) {
            run = false;
            continue;
        }
        anybody = true;
        wanted += size_bytes;
        const char *data = fake_received(j->request, names[output])->data;
        if (size_bytes > 0) {
            run = run && (empty_so_far || data == next);
            first = empty_so_far ? data : first;
            next = data + size_bytes;
        }
    }
    size_t source = output < t->plan.input_count ? output : t->plan.input_count - 1;
    bool on_device = t->kind != ENGINE_CPU;
    if (!anybody || total == 0) {
        return;
    }
    if (on_device && !t->enable) {
        out->performed[UMO_DIRECTION_OUT] += wanted;
        return;
    }
    umo_reason reason = UMO_REASON_NONE;
    const size_t page = umo_os_page_bytes();
    if (t->plan.inputs[source].dtype == UMO_BYTES) {
        reason = UMO_REASON_ENGINE_STRINGS;
    } else if (t->late) {
        reason = UMO_REASON_UNKNOWN_SHAPE;
    } else if (!t->enable) {
        reason = UMO_REASON_DISABLED;
    } else if (!run) {
        reason = UMO_REASON_SCATTERED;
    } else if (on_device && total < t->threshold) {
        reason = UMO_REASON_BELOW_THRESHOLD;
    } else if (t->kind == ENGINE_STRICT && ((uintptr_t)first % page != 0 || total % page != 0)) {
        reason = UMO_REASON_PARTIAL_PAGE;
    }
    out->copied[UMO_DIRECTION_OUT][reason] += reason != UMO_REASON_NONE ? wanted : 0;
    if (reason == UMO_REASON_NONE && !on_device) {
        out->avoided[UMO_DIRECTION_OUT] += total;
    }
    out->eliminated[UMO_DIRECTION_OUT] += on_device ? total : 0;
}

/* Is an output's size certain before the computation, so that the kit can ask for its memory? */
static bool is_certain(const trial *t, size_t output)
{
    const model_tensor *from =
        &t->plan.inputs[output < t->plan.input_count ? output : t->plan.input_count - 1];
    bool certain = from->dtype != UMO_BYTES;
    for (uint32_t d = 0; d < from->dims.rank; d++) {
        certain = certain && from->dims.dims[d] >= 0;
    }
    return certain;
}

/* Bytes of a tensor that an order of the group leaves in place, as far as the kit can know. */
static uint64_t tensor_saved(const trial *t, const size_t *group, size_t count, size_t tensor,
                             bool output)
{
    static const char *const names[] = {"OUTPUT0", "OUTPUT1", "OUTPUT2", "OUTPUT3"};
    uint64_t total = 0;
    bool shared = false;
    const char *next = NULL;
    for (size_t i = 0; i < count; i++) {
        const job *j = &t->jobs[group[i]];
        if (output ? !j->wants[tensor] : !j->present[tensor]) {
            return 0;
        }
        size_t size_bytes = output ? job_output_bytes(j, tensor) : j->sizes[tensor];
        const char *data =
            output ? fake_received(j->request, names[tensor])->data : one_run(j, tensor);
        if (size_bytes > 0) {
            if (data == NULL || (total > 0 && data != next)) {
                return 0;
            }
            next = data + size_bytes;
            shared = !output && t->shared[group[i]][tensor];
        }
        total += size_bytes;
    }
    bool control = !output && umo_dtype_is_control(t->plan.inputs[tensor].dtype) && !t->trusted;
    bool small = t->kind != ENGINE_CPU && total < t->threshold;
    return small || (control && shared) ? 0 : total;
}

static uint64_t order_saved(const trial *t, const size_t *group, size_t count)
{
    uint64_t saved = 0;
    for (size_t i = 0; i < t->plan.input_count; i++) {
        saved += tensor_saved(t, group, count, i, false);
    }
    for (size_t o = 0; o < t->plan.output_count; o++) {
        saved += is_certain(t, o) ? tensor_saved(t, group, count, o, true) : 0;
    }
    return saved;
}

/* The most that any order saves: all of them are tried. */
static uint64_t most_saved(const trial *t, size_t *group, size_t count, size_t fixed)
{
    if (fixed == count) {
        return order_saved(t, group, count);
    }
    uint64_t most = 0;
    for (size_t i = fixed; i < count; i++) {
        size_t kept = group[fixed];
        group[fixed] = group[i];
        group[i] = kept;
        uint64_t saved = most_saved(t, group, count, fixed + 1);
        most = saved > most ? saved : most;
        group[i] = group[fixed];
        group[fixed] = kept;
    }
    return most;
}

/* Takes over the order in which the kit ran the group: one that no other one beats. True when that
 * is not the order of arrival. */
static bool order_take(const trial *t, const batch_run *run, size_t *group, size_t count)
{
    size_t order[JOBS_MAX];
    bool moved = false;
    assert_int_equal(run->count, count);
    for (size_t i = 0; i < count; i++) {
        size_t at = 0;
        while (at < count && t->jobs[group[at]].request != run->requests[i]) {
            at++;
        }
        assert_true(at < count);
        order[i] = group[at];
        moved = moved || at != i;
    }
    if (!t->enable || !t->optimise) {
        assert_false(moved);
    } else if (count <= 6) {
        uint64_t most = most_saved(t, group, count, 0);
        if (order_saved(t, order, count) != most) {
            fail_msg("seed %u: the order of a batch saves %llu bytes, another one %llu",
                     present_seed, (unsigned long long)order_saved(t, order, count),
                     (unsigned long long)most);
        }
    }
    memcpy(group, order, count * sizeof *order);
    return moved;
}

/* Groups the requests as they arrived and adds up what each group costs. */
static size_t trial_expect(const trial *t, const size_t *arrival, size_t count, tallies *out)
{
    bool grouped[JOBS_MAX] = {false};
    size_t groups = 0;
    for (size_t a = 0; a < count; a++) {
        size_t group[JOBS_MAX];
        size_t size = 0;
        int64_t rows = 0;
        for (size_t b = a; b < count; b++) {
            const job *j = &t->jobs[arrival[b]];
            if (grouped[b] || arrival[b] == t->bad || (size == 0 && b != a) ||
                (size > 0 && (t->plan.batch_max == 0 || rows + j->rows > t->plan.batch_max ||
                              !agree(t, &t->jobs[group[0]], j)))) {
                continue;
            }
            grouped[b] = true;
            group[size++] = arrival[b];
            rows += j->rows;
        }
        if (size == 0) {
            continue;
        }
        assert_true(groups < run_count);
        bool moved = order_take(t, &runs[groups++], group, size);
        for (size_t i = 0; i < t->plan.input_count; i++) {
            if (t->jobs[group[0]].present[i]) {
                input_expect(t, group, size, moved, i, out);
            }
        }
        for (size_t o = 0; o < t->plan.output_count; o++) {
            output_expect(t, group, size, o, out);
        }
    }
    return groups;
}

static void same(uint64_t have, uint64_t want, const char *what, int direction, int reason)
{
    if (have != want) {
        fail_msg("seed %u: %s %s %s: %llu bytes, not %llu", present_seed, what,
                 direction == UMO_DIRECTION_IN ? "in" : "out",
                 reason >= 0 ? umo_reason_label((umo_reason)reason) : "", (unsigned long long)have,
                 (unsigned long long)want);
    }
}

static void counters_expect(const umo_counters *before, const umo_counters *after,
                            const tallies *want)
{
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            same(after->copy_performed[d][r].bytes - before->copy_performed[d][r].bytes,
                 want->copied[d][r], "copied", d, r);
        }
        same(after->copy_avoided[d].bytes - before->copy_avoided[d].bytes, want->avoided[d],
             "avoided", d, -1);
        same(after->transfer_performed[d].bytes - before->transfer_performed[d].bytes,
             want->performed[d], "performed", d, -1);
        same(after->transfer_eliminated[d].bytes - before->transfer_eliminated[d].bytes,
             want->eliminated[d], "eliminated", d, -1);
    }
}

/* ---- Running it ---- */

static void execution_run(world *w, trial *t)
{
    size_t arrival[JOBS_MAX];
    job arrived[JOBS_MAX];
    t->count = 0;
    t->region_count = 0;
    unsigned classes = 1 + below(3);
    for (unsigned c = 0; c < classes; c++) {
        class_make(t, 1 + below(4), (int64_t)below(often(30) ? t->length_most : 7));
    }
    t->bad = t->count;
    if (often(25)) {
        class_make(t, 1, 3);
        t->jobs[t->bad].inputs[0]->dtype = (TRITONSERVER_DataType)(UMO_DTYPES + 1);
    }
    for (size_t i = 0; i < t->count; i++) {
        arrival[i] = i;
    }
    shuffle(arrival, t->count);
    for (size_t i = 0; i < t->count; i++) {
        arrived[i] = t->jobs[arrival[i]];
    }
    umo_counters before = world_counters(w);
    run_count = 0;
    if (!world_execute(w, arrived, t->count)) {
        fail_msg("seed %u: execute failed", present_seed);
    }
    for (size_t i = 0; i < t->count; i++) {
        if (i == t->bad) {
            job_expect_failed(&t->jobs[i], "has type");
        } else {
            job_expect_right(&t->jobs[i]);
        }
    }
    tallies want = {0};
    size_t groups = trial_expect(t, arrival, t->count, &want);
    umo_counters after = world_counters(w);
    counters_expect(&before, &after, &want);
    assert_int_equal(run_count, groups);
    for (size_t i = 0; i < t->count; i++) {
        job_finish(&t->jobs[i]);
    }
    for (size_t i = 0; i < t->region_count; i++) {
        fake_region_destroy(t->regions[i]);
    }
}

static void engine_choose(engine_kind kind)
{
    wrapper_switches switches = {0};
    const umo_driver_options options = {.delay_ns = often(50) ? 50000 : 0, .test_mode = true};
    if (kind == ENGINE_STRICT) {
        switches.import_align_bytes = umo_os_page_bytes();
        switches.import_size_align_bytes = umo_os_page_bytes();
        switches.write_granule_bytes = umo_os_page_bytes();
    }
    switches.apart = kind == ENGINE_APART;
    if (kind != ENGINE_CPU) {
        engine.device = wrapper_device(&switches, &options);
        engine.queue = below(4);
        assert_non_null(engine.device);
    }
}

static void answers_and_counters_are_what_the_placement_implies(void **state)
{
    (void)state;
    static trial t;
    for (present_seed = first_seed; present_seed < first_seed + seed_count; present_seed++) {
        world w;
        chance = present_seed;
        (void)below(2);
        trial_choose(&t);
        world_start(&w);
        engine_choose(t.kind);
        engine.late = t.late;
        engine.before = order_note;
        engine.synchronous = often(20);
        world_load_ok(&w, &t.plan);
        for (unsigned i = 0; i < 4; i++) {
            execution_run(&w, &t);
        }
        world_unload(&w);
        world_finish(&w);
    }
}

static int seed_show(void **state)
{
    (void)state;
    if (present_seed < first_seed + seed_count) {
        print_message("that was seed %u\n", present_seed);
    }
    return 0;
}

int main(int argc, char **argv)
{
    first_seed = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : first_seed;
    seed_count = argc > 2 ? (unsigned)strtoul(argv[2], NULL, 10) : seed_count;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(answers_and_counters_are_what_the_placement_implies, seed_show),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

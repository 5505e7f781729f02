/*
 * Models under the sequence batcher: controls, implicit states, empty slots, cancellation.
 */
#include "world.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define LENGTH ((size_t)16)

#define CONTROL(name, kind, list)                                                                  \
    "{\"name\": \"" name "\", \"control\": [{\"kind\": \"CONTROL_SEQUENCE_" kind "\", " list "}]}"
#define STATE(in, out, type, dims, more)                                                           \
    "{\"input_name\": \"" in "\", \"output_name\": \"" out "\", \"data_type\": \"TYPE_" type       \
    "\", \"dims\": [" dims "]" more "}"
#define SEQUENCE(strategy, controls, states)                                                       \
    ", \"sequence_batching\": {\"" strategy "\": {}, \"control_input\": [" controls                \
    "], \"state\": [" states "]}"

static const model_plan plain = {
    .batch_max = 0,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

/* What the engine saw. */
static const void *seen_state_in;
static bool seen_overwrites;

static model_plan plan_of(const model_plan *base, const char *extra, const char *unified)
{
    model_plan plan = *base;
    plan.extra = extra;
    plan.unified = unified;
    return plan;
}

/* The next step of a sequence whose OUTPUT0 is made of INPUT0 and whose state of itself. */
static void step_start(job *j, const model_plan *plan, fake_sequence *sequence, unsigned seed)
{
    job_start(j, plan, 1, (int64_t)LENGTH, seed);
    job_input_own(j, 0, false);
    job_want(j, 0, NULL);
    fake_sequence_join(sequence, j->request);
}

static void state_expect(const fake_state *state, const char *first, unsigned steps)
{
    assert_int_equal(state->updates, steps);
    for (size_t i = 0; i < state->size_bytes; i++) {
        unsigned char byte = (unsigned char)first[i];
        for (unsigned s = 0; s < steps; s++) {
            byte = engine_byte(byte, 1);
        }
        assert_int_equal((unsigned char)state->now.data[i], byte);
    }
}

static uint64_t copied(const world *w, umo_direction direction, umo_reason reason)
{
    return world_counters(w).copy_performed[direction][reason].bytes;
}

static uint64_t copied_at_all(const world *w)
{
    uint64_t bytes = 0;
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            bytes += copied(w, (umo_direction)d, (umo_reason)r);
        }
    }
    return bytes;
}

static const char first_state[LENGTH + 1] = "what came before";
static const int64_t state_dims[2] = {1, LENGTH};

#define ONE_STATE SEQUENCE("oldest", "", STATE("PAST", "FUTURE", "UINT8", "16", ""))

/* ---- Controls ---- */

static char seen_controls[256];

static void note_controls(umo_batch *batch)
{
    size_t used = 0;
    for (size_t i = 1; i < 6; i++) {
        umo_tensor tensor;
        umo_error error = {0};
        assert_int_equal(umo_batch_input(batch, i, &tensor, &error), UMO_OK);
        uint64_t value = 0;
        memcpy(&value, tensor.data, tensor.size_bytes < 8 ? tensor.size_bytes : 8);
        used += (size_t)snprintf(seen_controls + used, sizeof seen_controls - used, "%s %zu %llx;",
                                 umo_dtype_name(tensor.dtype), tensor.size_bytes,
                                 (unsigned long long)value);
    }
}

static void controls_come_as_inputs(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(
        &plain,
        SEQUENCE(
            "oldest",
            CONTROL("START", "START", "\"fp32_false_true\": [0, 1]") "," CONTROL("END", "END", "\"bool_false_true\": [false, true]") "," CONTROL(
                "READY", "READY",
                "\"int32_false_true\": [0, "
                "1]") "," CONTROL("NUMBER", "CORRID",
                                  "\"data_"
                                  "type\": "
                                  "\"TYPE_"
                                  "UINT64\"") "," CONTROL("NAME", "CORRID",
                                                          "\"data_type\": \"TYPE_STRING\""),
            ""),
        NULL);
    world_start(&w);
    engine.between = note_controls;
    world_load_ok(&w, &plan);
    size_t count;
    const umo_io *inputs = umo_model_inputs(w.model.state, &count);
    assert_int_equal(count, 6);
    static const umo_sequence_control kinds[] = {UMO_SEQUENCE_NONE,   UMO_SEQUENCE_START,
                                                 UMO_SEQUENCE_END,    UMO_SEQUENCE_READY,
                                                 UMO_SEQUENCE_CORRID, UMO_SEQUENCE_CORRID};
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(inputs[i].source, i == 0 ? UMO_IO_REQUEST : UMO_IO_CONTROL);
        assert_int_equal(inputs[i].sequence_control, kinds[i]);
    }
    job j;
    const int64_t one = 1;
    float start = 1;
    bool end = true;
    int32_t ready = 1;
    uint64_t number = 0xABCDEF;
    char name[132] = {3, 0, 0, 0, 'a', 'b', 'c', 'x'}; /* the server's buffer is longer */
    job_start(&j, &plan, 1, 3, 1);
    fake_input_piece(fake_input(j.request, "NAME", TRITONSERVER_TYPE_BYTES, 1, &one), name, 132);
    fake_input_piece(fake_input(j.request, "READY", TRITONSERVER_TYPE_INT32, 1, &one), &ready, 4);
    fake_input_piece(fake_input(j.request, "NUMBER", TRITONSERVER_TYPE_UINT64, 1, &one), &number,
                     8);
    fake_input_piece(fake_input(j.request, "END", TRITONSERVER_TYPE_BOOL, 1, &one), &end, 1);
    fake_input_piece(fake_input(j.request, "START", TRITONSERVER_TYPE_FP32, 1, &one), &start, 4);
    job_input_own(&j, 0, false);
    job_want(&j, 0, NULL);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    assert_string_equal(
        seen_controls,
        "FP32 4 3f800000;BOOL 1 1;INT32 4 1;UINT64 8 abcdef;BYTES 7 63626100000003;");
    job_finish(&j);
    job_simple(&j, &plan, 1, 3, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_failed(&j, "input 'START' of model 'fake' is missing");
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

static void bad_sequences_do_not_load(void **state)
{
    (void)state;
    static const struct {
        const char *extra;
        const char *words;
    } cases[] = {
        {SEQUENCE("direct", CONTROL("A", "NONSENSE", "\"int32_false_true\": [0, 1]"), ""),
         "control input 'A' has no kind or no type"},
        {SEQUENCE("direct", CONTROL("A", "START", "\"data_type\": \"TYPE_INVALID\""), ""),
         "control input 'A' has no kind or no type"},
        {SEQUENCE("direct", "", "{\"input_name\": \"A\"}"), "a state needs input_name"},
        {SEQUENCE("direct", "", STATE("INPUT0", "B", "UINT8", "1", "")),
         "'INPUT0' is an input that requests bring, and a state"},
        {SEQUENCE("direct", "", STATE("A", "OUTPUT0", "FP32", "1", "")),
         "output 'OUTPUT0' is UINT8, but as a state it is FP32"},
        {SEQUENCE("direct", "", STATE("A", "B", "UINT8", "\"x\"", "")), "dimension 0 is no number"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        world w;
        model_plan plan = plan_of(&plain, cases[i].extra, NULL);
        world_start(&w);
        world_configure(&w, &plan);
        assert_false(world_load(&w));
        if (strstr(w.text, cases[i].words) == NULL) {
            fail_msg("'%s' without '%s'", w.text, cases[i].words);
        }
        world_finish(&w);
    }
}

/* ---- States ---- */

static void note_state(umo_batch *batch)
{
    umo_tensor tensor;
    umo_error error = {0};
    assert_int_equal(umo_batch_input(batch, 1, &tensor, &error), UMO_OK);
    seen_state_in = tensor.data;
}

/* Five steps of one sequence; what was copied of its states. */
static uint64_t steps_run(const char *unified, bool on_device, const char *extra, bool one_memory)
{
    world w;
    model_plan plan = plan_of(&plain, extra, unified);
    fake_sequence sequence = {0};
    world_start(&w);
    if (on_device) {
        engine.device = world_device(20000, true);
    }
    world_load_ok(&w, &plan);
    fake_state *kept = fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 1,
                                         state_dims + 1, first_state, LENGTH);
    kept->one_memory = one_memory;
    for (unsigned step = 0; step < 5; step++) {
        job j;
        step_start(&j, &plan, &sequence, step);
        assert_true(world_execute(&w, &j, 1));
        job_expect_right(&j);
        job_finish(&j);
        state_expect(kept, first_state, step + 1);
    }
    uint64_t bytes = copied_at_all(&w);
    fake_sequence_destroy(&sequence);
    world_unload(&w);
    world_finish(&w);
    return bytes;
}

static void a_state_is_never_copied(void **state)
{
    (void)state;
    assert_int_equal(steps_run("{}", false, ONE_STATE, false), 0);
}

static void a_state_goes_through_every_way(void **state)
{
    (void)state;
    static const char *const ways[] = {"{\"enable\": false}", "{\"zero_copy_threshold\": 0}",
                                       "{\"zero_copy_threshold\": 1000}"};
    for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
        (void)steps_run(ways[i], false, ONE_STATE, false);
        (void)steps_run(ways[i], true, ONE_STATE, false);
        (void)steps_run(ways[i], true, ONE_STATE, true);
    }
}

static void overwrites_set(umo_model *model)
{
    size_t count;
    umo_io *outputs = umo_model_outputs(model, &count);
    outputs[1].overwrites = seen_overwrites;
}

static void one_memory_for_both_is_copied_unless_the_engine_takes_care(void **state)
{
    (void)state;
    assert_int_equal(steps_run("{}", false, ONE_STATE, true), 5 * LENGTH);
    world w;
    model_plan plan = plan_of(&plain, ONE_STATE, NULL);
    fake_sequence sequence = {0};
    world_start(&w);
    seen_overwrites = true;
    engine.prepare = overwrites_set;
    engine.between = note_state;
    world_load_ok(&w, &plan);
    fake_state *kept = fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 1,
                                         state_dims + 1, first_state, LENGTH);
    kept->one_memory = true;
    job j;
    step_start(&j, &plan, &sequence, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    state_expect(kept, first_state, 1);
    assert_ptr_equal(seen_state_in, kept->now.data);
    assert_int_equal(copied_at_all(&w), 0);
    fake_sequence_destroy(&sequence);
    world_unload(&w);
    world_finish(&w);
}

static const model_plan batching = {
    .batch_max = 4,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

static void states_of_a_batch_are_gathered_and_scattered(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(&batching, ONE_STATE, NULL);
    fake_sequence sequences[3] = {0};
    fake_state *kept[3];
    char firsts[3][LENGTH];
    world_start(&w);
    world_load_ok(&w, &plan);
    for (unsigned i = 0; i < 3; i++) {
        memset(firsts[i], (int)(7 * i + 1), LENGTH);
        kept[i] = fake_sequence_add(&sequences[i], "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 2,
                                    state_dims, firsts[i], LENGTH);
    }
    for (unsigned step = 0; step < 3; step++) {
        job jobs[3];
        for (unsigned i = 0; i < 3; i++) {
            step_start(&jobs[i], &plan, &sequences[i], 10 * step + i);
        }
        assert_true(world_execute(&w, jobs, 3));
        for (unsigned i = 0; i < 3; i++) {
            job_expect_right(&jobs[i]);
            state_expect(kept[i], firsts[i], step + 1);
            job_finish(&jobs[i]);
        }
    }
    /* Input and state of each request, three times. */
    assert_int_equal(copied(&w, UMO_DIRECTION_IN, UMO_REASON_SCATTERED), 3 * 3 * 2 * LENGTH);
    assert_int_equal(copied(&w, UMO_DIRECTION_OUT, UMO_REASON_SCATTERED), 3 * 3 * 2 * LENGTH);
    for (unsigned i = 0; i < 3; i++) {
        fake_sequence_destroy(&sequences[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

static void a_request_that_fails_leaves_its_sequence_where_it_was(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(&batching, ONE_STATE, NULL);
    fake_sequence sequences[2] = {0};
    fake_state *kept[2];
    world_start(&w);
    engine.trouble = TROUBLE_FAIL_ONE_LATER;
    engine.which = 1;
    world_load_ok(&w, &plan);
    job jobs[2];
    for (unsigned i = 0; i < 2; i++) {
        kept[i] = fake_sequence_add(&sequences[i], "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 2,
                                    state_dims, first_state, LENGTH);
        step_start(&jobs[i], &plan, &sequences[i], i);
    }
    assert_true(world_execute(&w, jobs, 2));
    job_expect_right(&jobs[0]);
    job_expect_failed(&jobs[1], "the engine does not like this one");
    state_expect(kept[0], first_state, 1);
    state_expect(kept[1], first_state, 0);
    for (unsigned i = 0; i < 2; i++) {
        job_finish(&jobs[i]);
        fake_sequence_destroy(&sequences[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

static void an_output_that_is_a_state_is_computed_once(void **state)
{
    (void)state;
    static const char *const ways[] = {"{}", "{\"enable\": false}", "{\"zero_copy_threshold\": 0}"};
    for (int variant = 0; variant < 12; variant++) {
        world w;
        bool on_device = variant % 2 == 1;
        bool late = variant / 2 % 2 == 1;
        model_plan plan =
            plan_of(&plain, SEQUENCE("oldest", "", STATE("PAST", "OUTPUT0", "UINT8", "16", "")),
                    ways[variant / 4]);
        fake_sequence sequence = {0};
        world_start(&w);
        if (on_device && !late) {
            engine.device = world_device(20000, true);
        }
        engine.late = late;
        world_load_ok(&w, &plan);
        fake_state *kept = fake_sequence_add(&sequence, "PAST", "OUTPUT0", TRITONSERVER_TYPE_UINT8,
                                             1, state_dims + 1, first_state, LENGTH);
        for (unsigned step = 0; step < 3; step++) {
            job j;
            step_start(&j, &plan, &sequence, step);
            if (step == 1) {
                j.request->want_count = 0; /* no client wants it, the server does */
                fake_want_output(j.request, "OUTPUT0", NULL, 0);
            }
            assert_true(world_execute(&w, &j, 1));
            assert_string_equal(j.request->text, "");
            for (size_t i = 0; i < LENGTH; i++) {
                assert_int_equal((unsigned char)kept->now.data[i],
                                 engine_byte((unsigned char)j.contents[0][i], 0));
            }
            job_expect_right(&j);
            job_finish(&j);
            assert_int_equal(kept->updates, step + 1);
        }
        if (variant == 0) {
            assert_int_equal(copied_at_all(&w), 3 * LENGTH);
            assert_int_equal(copied(&w, UMO_DIRECTION_OUT, UMO_REASON_STATE), 3 * LENGTH);
        }
        fake_sequence_destroy(&sequence);
        world_unload(&w);
        world_finish(&w);
    }
}

/* The state of strings grows with every step. */
static umo_status append_string(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor past;
    umo_tensor in;
    umo_status status = umo_batch_input(batch, 1, &past, error);
    assert_int_equal(status, UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    char data[256];
    memcpy(data, past.data, past.size_bytes);
    memcpy(data + past.size_bytes, in.data, in.size_bytes);
    umo_shape shape = {.rank = 1, .dims = {past.shape.dims[0] + in.shape.dims[0]}};
    size_t size_bytes = past.size_bytes + in.size_bytes;
    status = umo_batch_output_late(batch, 0, UMO_BYTES, &in.shape, in.data, in.size_bytes,
                                   UMO_REASON_ENGINE_STRINGS, error);
    return status == UMO_OK ? umo_batch_output_late(batch, 1, UMO_BYTES, &shape, data, size_bytes,
                                                    UMO_REASON_ENGINE_STRINGS, error)
                            : status;
}

static void a_state_of_strings_grows(void **state)
{
    (void)state;
    world w;
    static const model_plan strings = {
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
    };
    model_plan plan = plan_of(
        &strings, SEQUENCE("oldest", "", STATE("PAST", "FUTURE", "STRING", "-1", "")), NULL);
    fake_sequence sequence = {0};
    world_start(&w);
    engine.run = append_string;
    world_load_ok(&w, &plan);
    const char empty[4] = {0};
    const int64_t one = 1;
    fake_state *kept = fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_BYTES, 1,
                                         &one, empty, sizeof empty);
    size_t size_bytes = sizeof empty;
    for (unsigned step = 0; step < 3; step++) {
        job j;
        job_start(&j, &plan, 1, 2, step);
        job_input_own(&j, 0, false);
        job_want(&j, 0, NULL);
        fake_sequence_join(&sequence, j.request);
        size_bytes += j.sizes[0];
        assert_true(world_execute(&w, &j, 1));
        job_expect_right(&j);
        job_finish(&j);
        assert_int_equal(kept->size_bytes, size_bytes);
        assert_int_equal(kept->dims[0], 3 + 2 * step);
    }
    fake_sequence_destroy(&sequence);
    world_unload(&w);
    world_finish(&w);
}

/* ---- Slots ---- */

#define READY_ONLY SEQUENCE("direct", CONTROL("READY", "READY", "\"int32_false_true\": [0, 1]"), "")

static int32_t seen_ready[4];
static unsigned char seen_rows[4][LENGTH];
static size_t seen_count;

static void note_rows(umo_batch *batch)
{
    umo_tensor ready;
    umo_tensor rows;
    umo_error error = {0};
    seen_count = umo_batch_requests(batch);
    assert_int_equal(umo_batch_input(batch, 1, &ready, &error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &rows, &error), UMO_OK);
    memcpy(seen_ready, ready.data, ready.size_bytes);
    if (rows.dtype == UMO_UINT8) {
        memcpy(seen_rows, rows.data, rows.size_bytes);
    }
}

/* A request as the server makes it for an empty slot: inputs that nobody wrote, no outputs. */
static void blank_start(job *j, const model_plan *plan, int32_t *ready, const int64_t *one)
{
    job_start(j, plan, 1, plan->inputs[0].dtype == UMO_BYTES ? 2 : (int64_t)LENGTH, 99);
    if (plan->inputs[0].dtype == UMO_BYTES) {
        memset(j->contents[0], 0xFF, j->sizes[0]);
    }
    fake_input_piece(fake_input(j->request, "READY", TRITONSERVER_TYPE_INT32, 2, one), ready, 4);
    job_input_own(j, 0, false);
}

static void an_empty_slot_keeps_its_row_of_zeros(void **state)
{
    (void)state;
    for (int on_device = 0; on_device < 2; on_device++) {
        for (int off = 0; off < 2; off++) {
            world w;
            model_plan plan =
                plan_of(&batching, READY_ONLY, off != 0 ? "{\"enable\": false}" : NULL);
            const int64_t one[2] = {1, 1};
            int32_t no = 0;
            int32_t yes = 1;
            world_start(&w);
            if (on_device != 0) {
                engine.device = world_device(20000, true);
            } else {
                engine.between = note_rows;
            }
            world_load_ok(&w, &plan);
            job jobs[3];
            blank_start(&jobs[0], &plan, &no, one);
            blank_start(&jobs[1], &plan, &yes, one);
            job_want(&jobs[1], 0, NULL);
            blank_start(&jobs[2], &plan, &no, one);
            assert_true(world_execute(&w, jobs, 3));
            job_expect_right(&jobs[1]);
            assert_int_equal(engine.batches, 1);
            for (int i = 0; i < 3; i++) {
                fake_request_expect_answered(jobs[i].request);
                assert_string_equal(jobs[i].request->text, "");
            }
            if (on_device == 0) {
                static const unsigned char zeros[LENGTH];
                assert_int_equal(seen_count, 3);
                assert_memory_equal(seen_ready, ((const int32_t[3]){0, 1, 0}), 12);
                assert_memory_equal(seen_rows[0], zeros, LENGTH);
                assert_memory_equal(seen_rows[1], jobs[1].contents[0], LENGTH);
                assert_memory_equal(seen_rows[2], zeros, LENGTH);
            }
            for (int i = 0; i < 3; i++) {
                job_finish(&jobs[i]);
            }
            /* Only such requests: nothing runs. */
            blank_start(&jobs[0], &plan, &no, one);
            assert_true(world_execute(&w, jobs, 1));
            fake_request_expect_answered(jobs[0].request);
            assert_int_equal(engine.batches, 1);
            job_finish(&jobs[0]);
            world_unload(&w);
            world_finish(&w);
        }
    }
}

static void slots_are_not_reordered_and_bad_strings_keep_their_row(void **state)
{
    (void)state;
    static const model_plan strings = {
        .batch_max = 4,
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
    };
    world w;
    model_plan plan = plan_of(&strings, READY_ONLY, NULL);
    const int64_t one[2] = {1, 1};
    int32_t ready[4] = {10, 11, 12, 0};
    world_start(&w);
    engine.between = note_rows;
    world_load_ok(&w, &plan);
    job jobs[4];
    for (unsigned i = 0; i < 4; i++) {
        if (i == 3) {
            blank_start(&jobs[i], &plan, &ready[i], one);
            continue;
        }
        job_start(&jobs[i], &plan, 1, 2, i);
        if (i == 1) {
            memset(jobs[i].contents[0], 0xFF, jobs[i].sizes[0]);
        }
        job_input_own(&jobs[i], 0, false);
        fake_input_piece(fake_input(jobs[i].request, "READY", TRITONSERVER_TYPE_INT32, 2, one),
                         &ready[i], 4);
        job_want(&jobs[i], 0, NULL);
    }
    assert_true(world_execute(&w, jobs, 4));
    job_expect_right(&jobs[0]);
    job_expect_failed(&jobs[1], "its bytes are not 2 strings");
    job_expect_right(&jobs[2]);
    assert_string_equal(jobs[3].request->text, "");
    assert_int_equal(seen_count, 4);
    assert_memory_equal(seen_ready, ready, sizeof ready);
    for (int i = 0; i < 4; i++) {
        job_finish(&jobs[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* ---- Cancellation ---- */

static bool seen_cancelled[2];

static void cancel_second(umo_batch *batch)
{
    for (size_t i = 0; i < umo_batch_requests(batch) && i < 2; i++) {
        seen_cancelled[i] = umo_batch_cancelled(batch, i);
        if (seen_cancelled[i]) {
            umo_batch_fail(batch, i, UMO_E_REFUSED, "stopped in the middle");
        }
    }
}

static TRITONBACKEND_Request *cancelled_meanwhile;

static void cancel_meanwhile(umo_batch *batch)
{
    atomic_store(&cancelled_meanwhile->cancelled, true);
    cancel_second(batch);
}

static void cancelled_requests_do_not_run(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(&batching, NULL, NULL);
    world_start(&w);
    world_load_ok(&w, &plan);
    job jobs[2];
    for (unsigned i = 0; i < 2; i++) {
        job_simple(&jobs[i], &plan, 1, 5, i);
    }
    atomic_store(&jobs[0].request->cancelled, true);
    assert_true(world_execute(&w, jobs, 2));
    job_expect_failed(&jobs[0], "the request was cancelled");
    assert_int_equal(jobs[0].request->code, TRITONSERVER_ERROR_CANCELLED);
    job_expect_right(&jobs[1]);
    assert_int_equal(engine.batches, 1);
    job_finish(&jobs[0]);
    job_finish(&jobs[1]);
    job_simple(&jobs[0], &plan, 1, 5, 1);
    atomic_store(&jobs[0].request->cancelled, true);
    assert_true(world_execute(&w, jobs, 1));
    job_expect_failed(&jobs[0], "the request was cancelled");
    assert_int_equal(engine.batches, 1);
    job_finish(&jobs[0]);
    world_unload(&w);
    world_finish(&w);
}

static void requests_are_cancelled_between_groups_and_by_the_engine(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(&batching, NULL, NULL);
    world_start(&w);
    engine.before = cancel_meanwhile;
    world_load_ok(&w, &plan);
    job jobs[3];
    job_simple(&jobs[0], &plan, 1, 5, 0);
    job_simple(&jobs[1], &plan, 1, 5, 1);
    job_simple(&jobs[2], &plan, 1, 6, 2); /* a group of its own */
    cancelled_meanwhile = jobs[2].request;
    assert_true(world_execute(&w, jobs, 3));
    job_expect_right(&jobs[0]);
    job_expect_right(&jobs[1]);
    job_expect_failed(&jobs[2], "the request was cancelled");
    assert_int_equal(engine.batches, 1);
    for (int i = 0; i < 3; i++) {
        job_finish(&jobs[i]);
    }
    job_simple(&jobs[0], &plan, 1, 5, 0);
    job_simple(&jobs[1], &plan, 1, 5, 1);
    cancelled_meanwhile = jobs[1].request;
    assert_true(world_execute(&w, jobs, 2));
    assert_true(seen_cancelled[0] != seen_cancelled[1]); /* in either order */
    job_expect_right(&jobs[0]);
    job_expect_failed(&jobs[1], "stopped in the middle");
    assert_int_equal(jobs[1].request->code, TRITONSERVER_ERROR_CANCELLED);
    job_finish(&jobs[0]);
    job_finish(&jobs[1]);
    world_unload(&w);
    world_finish(&w);
}

static void under_direct_a_cancelled_request_takes_its_step(void **state)
{
    (void)state;
    world w;
    model_plan plan = plan_of(&plain, READY_ONLY, NULL);
    const int64_t one = 1;
    int32_t yes = 1;
    world_start(&w);
    world_load_ok(&w, &plan);
    job j;
    job_start(&j, &plan, 1, (int64_t)LENGTH, 1);
    job_input_own(&j, 0, false);
    fake_input_piece(fake_input(j.request, "READY", TRITONSERVER_TYPE_INT32, 1, &one), &yes, 4);
    job_want(&j, 0, NULL);
    atomic_store(&j.request->cancelled, true);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

/* ---- Faults ---- */

/* Every call of the server and every allocation fails once: a request that fails has not moved its
 * sequence, one that is right has. */
static void a_failing_call_never_moves_a_sequence_by_halves(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        bool failed = true;
        for (uint64_t number = 1; failed; number++) {
            world w;
            model_plan plan = plan_of(&batching, ONE_STATE, NULL);
            fake_sequence sequences[2] = {0};
            job jobs[2];
            world_start(&w);
            world_load_ok(&w, &plan);
            for (unsigned i = 0; i < 2; i++) {
                (void)fake_sequence_add(&sequences[i], "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 2,
                                        state_dims, first_state, LENGTH);
                step_start(&jobs[i], &plan, &sequences[i], i);
            }
            fake.failed[0] = '\0';
            if (kind == 0) {
                fake.calls = 0;
                fake.fail_at = number;
            } else {
                allocations_start(number);
            }
            (void)world_execute(&w, jobs, 2);
            failed = kind == 0 ? fake.failed[0] != '\0' : allocations_stop() >= number;
            fake.fail_at = 0;
            for (unsigned i = 0; i < 2; i++) {
                fake_request_expect_answered(jobs[i].request);
                bool right = jobs[i].request->text[0] == '\0';
                state_expect(&sequences[i].states[0], first_state, right ? 1 : 0);
                if (right) {
                    job_expect_right(&jobs[i]);
                }
                job_finish(&jobs[i]);
                fake_sequence_destroy(&sequences[i]);
            }
            world_unload(&w);
            world_finish(&w);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(controls_come_as_inputs),
        cmocka_unit_test(bad_sequences_do_not_load),
        cmocka_unit_test(a_state_is_never_copied),
        cmocka_unit_test(a_state_goes_through_every_way),
        cmocka_unit_test(one_memory_for_both_is_copied_unless_the_engine_takes_care),
        cmocka_unit_test(states_of_a_batch_are_gathered_and_scattered),
        cmocka_unit_test(a_request_that_fails_leaves_its_sequence_where_it_was),
        cmocka_unit_test(an_output_that_is_a_state_is_computed_once),
        cmocka_unit_test(a_state_of_strings_grows),
        cmocka_unit_test(an_empty_slot_keeps_its_row_of_zeros),
        cmocka_unit_test(slots_are_not_reordered_and_bad_strings_keep_their_row),
        cmocka_unit_test(cancelled_requests_do_not_run),
        cmocka_unit_test(requests_are_cancelled_between_groups_and_by_the_engine),
        cmocka_unit_test(under_direct_a_cancelled_request_takes_its_step),
        cmocka_unit_test(a_failing_call_never_moves_a_sequence_by_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

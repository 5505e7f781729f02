/*
 * Requests as clients send them, good and bad: a bad one is refused in words that name the thing,
 * and the others of its batch are answered right.
 */
#include "world.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* Batches of up to 8: floats of any length, three bytes, and an optional one. */
static const model_plan batching = {
    .batch_max = 8,
    .input_count = 3,
    .output_count = 3,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}},
               {.dtype = UMO_UINT8, .dims = {1, {3}}},
               {.dtype = UMO_INT16, .dims = {2, {2, -1}}, .optional = true}},
};

static const model_plan scalars = {
    .input_count = 1, .output_count = 1, .inputs = {{.dtype = UMO_FP64, .dims = {0}}}};

static void one_request_is_answered(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &batching);
    job_simple(&j, &batching, 2, 5, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    assert_int_equal(w.instance.batches, 1);
    assert_int_equal(w.instance.rows, 2);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

static void a_scalar_has_no_dimensions(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &scalars);
    job_simple(&j, &scalars, 1, 1, 1);
    assert_true(world_execute(&w, &j, 1));
    job_expect_right(&j);
    job_finish(&j);
    world_unload(&w);
    world_finish(&w);
}

/* ---- Refusals ---- */

typedef void (*spoiler)(job *j);

/* One bad request between two good ones: it is refused with these words, they are answered. */
static void refused_alone(const model_plan *plan, spoiler spoil, const char *words)
{
    world w;
    job jobs[3];
    world_start(&w);
    world_load_ok(&w, plan);
    for (unsigned i = 0; i < 3; i++) {
        job_simple(&jobs[i], plan, 1, 4, i);
    }
    spoil(&jobs[1]);
    assert_true(world_execute(&w, jobs, 3));
    job_expect_right(&jobs[0]);
    job_expect_failed(&jobs[1], words);
    job_expect_right(&jobs[2]);
    for (unsigned i = 0; i < 3; i++) {
        job_finish(&jobs[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

static void spoil_dtype(job *j)
{
    j->inputs[1]->dtype = TRITONSERVER_TYPE_INT8;
}

static void spoil_dtype_number(job *j)
{
    j->inputs[1]->dtype = (TRITONSERVER_DataType)99;
}

static void spoil_rank_below(job *j)
{
    j->inputs[0]->rank = 1;
}

static void spoil_rank_zero(job *j)
{
    j->inputs[0]->rank = 0;
}

static void spoil_rank_above(job *j)
{
    j->inputs[0]->rank = 33;
}

static void spoil_rank_most(job *j)
{
    j->inputs[0]->rank = 32;
}

static void spoil_negative(job *j)
{
    j->inputs[0]->dims[1] = -4;
}

static void spoil_negative_beside_zero(job *j)
{
    j->inputs[0]->dims[0] = 0;
    j->inputs[0]->dims[1] = INT64_MIN;
}

static void spoil_overflow(job *j)
{
    j->inputs[2]->dims[1] = INT64_MAX;
    j->inputs[2]->dims[2] = INT64_MAX;
}

static void spoil_overflow_in_bytes(job *j)
{
    j->inputs[0]->dims[1] = INT64_MAX / 2;
    j->inputs[0]->size_bytes = UINT64_MAX;
    j->inputs[0]->pieces[0].size_bytes = UINT64_MAX;
}

static void spoil_fixed_dimension(job *j)
{
    j->inputs[1]->dims[1] = 4;
}

static void spoil_claimed_size(job *j)
{
    j->inputs[0]->size_bytes--;
}

static void spoil_claimed_shape(job *j)
{
    j->inputs[0]->dims[1]++;
}

static void spoil_piece_short(job *j)
{
    j->inputs[0]->pieces[0].size_bytes--;
}

static void spoil_piece_long(job *j)
{
    j->inputs[0]->pieces[0].size_bytes++;
}

static void spoil_pieces_none(job *j)
{
    j->inputs[0]->piece_count = 0;
}

static void spoil_pieces_overflow(job *j)
{
    uint64_t size_bytes = j->inputs[0]->size_bytes;
    fake_input_piece(j->inputs[0], "", UINT64_MAX);
    fake_input_piece(j->inputs[0], "", 1);
    j->inputs[0]->size_bytes = size_bytes;
}

static void spoil_gpu(job *j)
{
    j->inputs[1]->pieces[0].type = TRITONSERVER_MEMORY_GPU;
}

static void spoil_missing(job *j)
{
    j->request->input_count = 1;
}

static void spoil_unknown(job *j)
{
    j->inputs[2]->name = "INPUT9";
}

static void spoil_unknown_empty(job *j)
{
    j->inputs[2]->name = "";
}

static void spoil_duplicate(job *j)
{
    j->inputs[1]->name = "INPUT0";
    j->inputs[1]->dtype = TRITONSERVER_TYPE_FP32;
}

static void spoil_output(job *j)
{
    j->request->wants[1].name = "OUTPUT9";
}

static void spoil_rows_differ(job *j)
{
    j->inputs[1]->dims[0] = 2;
    j->inputs[1]->size_bytes = 6;
}

static void spoil_rows_too_many(job *j)
{
    j->inputs[0]->dims[0] = 9;
    j->inputs[0]->dims[1] = 0;
    j->inputs[0]->size_bytes = 0;
    j->inputs[0]->pieces[0].size_bytes = 0;
}

static void spoil_gpu_outputs(job *j)
{
    j->request->gpu_outputs = true;
}

static void spoil_small_output(job *j)
{
    j->request->wants[0].data = j->contents[0];
    j->request->wants[0].size_bytes = 15;
}

static void a_bad_request_is_refused_in_words_and_alone(void **state)
{
    (void)state;
    static const struct {
        spoiler spoil;
        const char *words;
    } rows[] = {
        {spoil_dtype, "input 'INPUT1' of model 'fake' has type INT8, not UINT8"},
        {spoil_dtype_number, "input 'INPUT1' of model 'fake' has type INVALID, not UINT8"},
        {spoil_rank_below, "input 'INPUT0' of model 'fake' has shape [1]; the configuration says "
                           "[-1] behind a batch dimension"},
        {spoil_rank_zero, "has shape []"},
        {spoil_rank_above, "input 'INPUT0' has 33 dimensions; at most 32"},
        {spoil_rank_most, "input 'INPUT0' of model 'fake' has shape [1,4"},
        {spoil_negative, "input 'INPUT0' of model 'fake' has shape [1,-4], which is negative"},
        {spoil_negative_beside_zero, "which is negative or too large"},
        {spoil_overflow, "input 'INPUT2' of model 'fake' has shape"},
        {spoil_overflow_in_bytes, "input 'INPUT0' of model 'fake'"},
        {spoil_fixed_dimension, "has shape [1,4]; the configuration says [3]"},
        {spoil_claimed_size, "has 15 bytes; shape [1,4] of FP32 needs 16"},
        {spoil_claimed_shape, "has 16 bytes; shape [1,5] of FP32 needs 20"},
        {spoil_piece_short,
         "input 'INPUT0' of model 'fake': it has 15 bytes in its pieces, not 16"},
        {spoil_piece_long, "it has 17 bytes in its pieces, not 16"},
        {spoil_pieces_none, "it has 0 bytes in its pieces, not 16"},
        {spoil_pieces_overflow, "input 'INPUT0' of model 'fake': its pieces overflow"},
        {spoil_gpu, "input 'INPUT1' of model 'fake': the tensor lies in GPU memory"},
        {spoil_missing, "input 'INPUT1' of model 'fake' is missing"},
        {spoil_unknown, "model 'fake' has no input 'INPUT9'"},
        {spoil_unknown_empty, "model 'fake' has no input ''"},
        {spoil_duplicate, "input 'INPUT0' comes twice"},
        {spoil_output, "model 'fake' has no output 'OUTPUT9'"},
        {spoil_rows_differ, "input 'INPUT1' of model 'fake' has batch size 2; another input has 1"},
        {spoil_rows_too_many, "input 'INPUT0' of model 'fake' has batch size 9; the most is 8"},
        {spoil_gpu_outputs, "the server gave GPU memory for output 'OUTPUT1'"},
        {spoil_small_output, "too small"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        refused_alone(&batching, rows[i].spoil, rows[i].words);
    }
}

/* ---- What is unusual and right ---- */

static void run_and_expect_right(world *w, job *jobs, size_t count)
{
    assert_true(world_execute(w, jobs, count));
    for (size_t i = 0; i < count; i++) {
        job_expect_right(&jobs[i]);
        job_finish(&jobs[i]);
    }
}

static void empty_tensors_and_empty_batches_are_answered(void **state)
{
    (void)state;
    static const int64_t cases[][2] = {{1, 0}, {0, 4}, {0, 0}, {3, 0}};
    for (size_t c = 0; c < 4; c++) {
        world w;
        job jobs[3];
        world_start(&w);
        world_load_ok(&w, &batching);
        job_simple(&jobs[0], &batching, 1, cases[c][1], 1);
        job_simple(&jobs[1], &batching, cases[c][0], cases[c][1], 2);
        job_simple(&jobs[2], &batching, 2, cases[c][1], 3);
        run_and_expect_right(&w, jobs, 3);
        world_unload(&w);
        world_finish(&w);
    }
}

static void an_empty_tensor_without_pieces_is_right(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &batching);
    job_simple(&j, &batching, 1, 0, 1);
    j.inputs[0]->piece_count = 0;
    run_and_expect_right(&w, &j, 1);
    world_unload(&w);
    world_finish(&w);
}

static void optional_inputs_may_be_absent(void **state)
{
    (void)state;
    world w;
    job jobs[4];
    world_start(&w);
    world_load_ok(&w, &batching);
    for (unsigned i = 0; i < 4; i++) {
        job_start(&jobs[i], &batching, 1 + i % 2, 3, i);
        /* In another order than the configuration's. */
        if (i != 1 && i != 2) {
            job_input_own(&jobs[i], 2, false);
        }
        job_input_own(&jobs[i], 1, true);
        job_input_own(&jobs[i], 0, false);
        job_want(&jobs[i], 2, NULL);
        job_want(&jobs[i], 0, NULL);
    }
    run_and_expect_right(&w, jobs, 4);
    assert_int_equal(engine.batches, 2);
    world_unload(&w);
    world_finish(&w);
}

static const model_plan optional = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {2}}, .optional = true}},
};

static void a_request_may_bring_and_want_nothing(void **state)
{
    (void)state;
    world w;
    job jobs[2];
    world_start(&w);
    world_load_ok(&w, &optional);
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &optional, 1, 2, i);
    }
    job_want(&jobs[1], 0, NULL);
    run_and_expect_right(&w, jobs, 2);
    world_unload(&w);
    world_finish(&w);
}

static void an_output_is_delivered_to_those_who_want_it(void **state)
{
    (void)state;
    world w;
    job jobs[3];
    world_start(&w);
    world_load_ok(&w, &batching);
    for (unsigned i = 0; i < 3; i++) {
        job_start(&jobs[i], &batching, 1, 3, i);
        for (size_t input = 0; input < 3; input++) {
            job_input_own(&jobs[i], input, false);
        }
        job_want(&jobs[i], i, NULL);
    }
    run_and_expect_right(&w, jobs, 3);
    assert_int_equal(engine.batches, 1);
    world_unload(&w);
    world_finish(&w);
}

static void pieces_may_be_many_and_empty(void **state)
{
    (void)state;
    world w;
    job jobs[2];
    world_start(&w);
    world_load_ok(&w, &batching);
    for (unsigned i = 0; i < 2; i++) {
        job *j = &jobs[i];
        job_simple(j, &batching, 2, 150, i);
        /* One byte a piece, each in a heap block of its own, and nothing between them. */
        TRITONBACKEND_Input *input = j->inputs[0];
        input->piece_count = 0;
        input->size_bytes = 0;
        for (size_t b = 0; b < j->sizes[0]; b++) {
            fake_input_piece(input, &j->contents[0][b], 1);
            fake_input_piece(input, NULL, 0);
            fake_input_piece(input, "somewhere else", 0);
        }
    }
    run_and_expect_right(&w, jobs, 2);
    world_unload(&w);
    world_finish(&w);
}

static void batches_are_cut_at_the_most_rows(void **state)
{
    (void)state;
    static const int64_t rows[] = {3, 8, 5, 1, 1, 4, 2, 8};
    world w;
    job jobs[8];
    world_start(&w);
    world_load_ok(&w, &batching);
    for (unsigned i = 0; i < 8; i++) {
        job_simple(&jobs[i], &batching, rows[i], 3, i);
    }
    run_and_expect_right(&w, jobs, 8);
    assert_int_equal(w.instance.rows, 32);
    assert_int_equal(engine.batches, 4);
    world_unload(&w);
    world_finish(&w);
}

static void more_requests_than_ever_find_room(void **state)
{
    (void)state;
    world w;
    job jobs[40];
    world_start(&w);
    world_load_ok(&w, &batching);
    for (unsigned i = 0; i < 40; i++) {
        job_simple(&jobs[i], &batching, 1, 1 + i % 5, i);
    }
    run_and_expect_right(&w, jobs, 40);
    world_unload(&w);
    world_finish(&w);
}

/* ---- Strings ---- */

static const model_plan strings = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_BYTES, .dims = {1, {-1}}}},
};

static void strings_come_back(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        world w;
        job jobs[3];
        world_start(&w);
        world_load_ok(&w, &strings);
        for (unsigned i = 0; i < 3; i++) {
            job_start(&jobs[i], &strings, 1 + i, 4, i);
            job_input_own(&jobs[i], 0, shared != 0);
            job_want(&jobs[i], 0, NULL);
        }
        run_and_expect_right(&w, jobs, 3);
        world_unload(&w);
        world_finish(&w);
    }
}

static void spoil_strings_more(job *j)
{
    /* One element more than the shape says: the batch's later elements would move down. */
    memset(j->regions[0]->memory.data, 0, j->sizes[0]);
    j->inputs[0]->pieces[0].size_bytes = 20;
    j->inputs[0]->size_bytes = 20;
}

static void spoil_strings_fewer(job *j)
{
    memset(j->regions[0]->memory.data, 0, j->sizes[0]);
    j->inputs[0]->pieces[0].size_bytes = 12;
    j->inputs[0]->size_bytes = 12;
}

static void spoil_strings_length(job *j)
{
    memset(j->regions[0]->memory.data, 0xFF, 4);
}

static void spoil_strings_in_pieces(job *j)
{
    spoil_strings_fewer(j);
    const char *data = j->inputs[0]->pieces[0].data;
    j->inputs[0]->piece_count = 0;
    j->inputs[0]->size_bytes = 0;
    for (size_t b = 0; b < 12; b++) {
        fake_input_piece(j->inputs[0], data + b, 1);
        fake_input_piece(j->inputs[0], NULL, 0);
    }
}

static void strings_that_do_not_fit_their_shape_are_refused_alone(void **state)
{
    (void)state;
    refused_alone(&strings, spoil_strings_more, "input 'INPUT0' of model 'fake'");
    refused_alone(&strings, spoil_strings_fewer, "input 'INPUT0' of model 'fake'");
    refused_alone(&strings, spoil_strings_length, "input 'INPUT0' of model 'fake'");
    refused_alone(&strings, spoil_strings_in_pieces, "input 'INPUT0' of model 'fake'");
}

/* Two bad requests around a good one whose sizes cancel out: taken together they would be as many
 * strings as the batch's shape says, and the good one would get a stranger's. */
static void strings_never_reach_another_request(void **state)
{
    (void)state;
    world w;
    job jobs[3];
    world_start(&w);
    world_load_ok(&w, &strings);
    for (unsigned i = 0; i < 3; i++) {
        job_simple(&jobs[i], &strings, 1, 4, i + 20);
    }
    spoil_strings_more(&jobs[0]);
    spoil_strings_fewer(&jobs[2]);
    assert_true(world_execute(&w, jobs, 3));
    job_expect_failed(&jobs[0], "input 'INPUT0'");
    job_expect_right(&jobs[1]);
    job_expect_failed(&jobs[2], "input 'INPUT0'");
    for (unsigned i = 0; i < 3; i++) {
        job_finish(&jobs[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* ---- A client that changes its bytes meanwhile ---- */

static fake_region *hostile;

/* What the engine gets is well-formed, whatever a client does. */
static void strings_are_sound(umo_batch *batch)
{
    umo_tensor tensor;
    uint64_t count = 0;
    assert_int_equal(umo_batch_input(batch, 0, &tensor, NULL), UMO_OK);
    assert_int_equal(umo_shape_count(&tensor.shape, &count), UMO_OK);
    assert_int_equal(umo_bytes_check(tensor.data, tensor.size_bytes, count, NULL), UMO_OK);
}

static void hostile_writes(umo_batch *batch)
{
    (void)batch;
    memset(hostile->memory.data, 0xFF, hostile->memory.size_bytes);
}

static void strings_that_change_meanwhile_fail_their_request_alone(void **state)
{
    (void)state;
    world w;
    job jobs[2];
    world_start(&w);
    world_load_ok(&w, &strings);
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &strings, 1, 4, i);
        job_input_own(&jobs[i], 0, true);
        job_want(&jobs[i], 0, NULL);
    }
    hostile = jobs[0].regions[0];
    engine.before = hostile_writes;
    engine.between = strings_are_sound;
    assert_true(world_execute(&w, jobs, 2));
    job_expect_failed(&jobs[0], "the strings of an input changed meanwhile");
    job_expect_right(&jobs[1]);
    for (unsigned i = 0; i < 2; i++) {
        job_finish(&jobs[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

static TRITONBACKEND_Input *unsteady;
static int64_t unsteady_by;

static void pieces_change(umo_batch *batch)
{
    (void)batch;
    unsteady->pieces[1].size_bytes += (uint64_t)unsteady_by;
}

/* What was checked is what is read, whatever the server says the second time. */
static void pieces_that_change_meanwhile_fail_the_batch(void **state)
{
    (void)state;
    for (unsteady_by = -1; unsteady_by < 6000; unsteady_by += 6000) {
        world w;
        job j;
        world_start(&w);
        world_load_ok(&w, &batching);
        job_simple(&j, &batching, 1, 1000, 1);
        unsteady = j.inputs[0];
        unsteady->pieces[0].size_bytes -= 100;
        unsteady->size_bytes -= 100;
        fake_input_piece(unsteady, j.contents[0], 100);
        engine.before = pieces_change;
        assert_true(world_execute(&w, &j, 1));
        job_expect_failed(&j, "an input's pieces changed");
        job_finish(&j);
        world_unload(&w);
        world_finish(&w);
    }
}

static const model_plan numbers = {
    .batch_max = 8,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_INT32, .dims = {1, {-1}}}},
};

static void numbers_that_may_steer_are_taken_once(void **state)
{
    (void)state;
    world w;
    job j;
    world_start(&w);
    world_load_ok(&w, &numbers);
    job_start(&j, &numbers, 2, 400, 1);
    job_input_own(&j, 0, true);
    job_want(&j, 0, NULL);
    hostile = j.regions[0];
    engine.between = hostile_writes;
    run_and_expect_right(&w, &j, 1);
    assert_int_equal(
        world_counters(&w).copy_performed[UMO_DIRECTION_IN][UMO_REASON_CONTROL_DATA].bytes, 3200);
    world_unload(&w);
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_request_is_answered),
        cmocka_unit_test(a_scalar_has_no_dimensions),
        cmocka_unit_test(a_bad_request_is_refused_in_words_and_alone),
        cmocka_unit_test(empty_tensors_and_empty_batches_are_answered),
        cmocka_unit_test(an_empty_tensor_without_pieces_is_right),
        cmocka_unit_test(optional_inputs_may_be_absent),
        cmocka_unit_test(a_request_may_bring_and_want_nothing),
        cmocka_unit_test(an_output_is_delivered_to_those_who_want_it),
        cmocka_unit_test(pieces_may_be_many_and_empty),
        cmocka_unit_test(batches_are_cut_at_the_most_rows),
        cmocka_unit_test(more_requests_than_ever_find_room),
        cmocka_unit_test(strings_come_back),
        cmocka_unit_test(strings_that_do_not_fit_their_shape_are_refused_alone),
        cmocka_unit_test(strings_never_reach_another_request),
        cmocka_unit_test(strings_that_change_meanwhile_fail_their_request_alone),
        cmocka_unit_test(pieces_that_change_meanwhile_fail_the_batch),
        cmocka_unit_test(numbers_that_may_steer_are_taken_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What a client can claim and no honest one would: shapes whose sums are any number, strings that
 * change while they are read, rows that are not what they say. The request that claims it fails,
 * and nobody else's answer, slot or memory is another one for it.
 */
#include "world.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define LENGTH ((int64_t)16)
#define ROWS_MAX 4

static size_t seen_counts[32];
static size_t seen_batches;
static unsigned char seen_rows[ROWS_MAX][LENGTH];

static void note_batch(umo_batch *batch)
{
    umo_tensor tensor;
    umo_error error = {0};
    assert_true(seen_batches < sizeof seen_counts / sizeof seen_counts[0]);
    seen_counts[seen_batches++] = umo_batch_requests(batch);
    if (umo_batch_input(batch, 0, &tensor, &error) == UMO_OK &&
        tensor.size_bytes <= sizeof seen_rows) {
        memcpy(seen_rows, tensor.data, tensor.size_bytes);
    }
}

static void load_text(world *w, const char *text)
{
    fake.config = text;
    if (!world_load(w)) {
        fail_msg("the model does not load: %s", w->text);
    }
}

static void expect_text(const TRITONBACKEND_Request *request, const char *words)
{
    fake_request_expect_answered(request);
    if (words == NULL ? request->text[0] != '\0' : strstr(request->text, words) == NULL) {
        fail_msg("answered '%s', not '%s'", request->text, words != NULL ? words : "");
    }
}

/* A request with one input of three dimensions in one piece, of which only the claims matter where
 * `data` is not to be read. */
static TRITONBACKEND_Request *claim(TRITONSERVER_DataType dtype, int64_t a, int64_t b,
                                    const void *data, uint64_t size_bytes)
{
    const int64_t dims[] = {1, a, b};
    TRITONBACKEND_Request *request = fake_request_create();
    TRITONBACKEND_Input *in = fake_input(request, "INPUT0", dtype, 3, dims);
    if (size_bytes > 0) {
        fake_input_piece(in, data, size_bytes);
    }
    fake_want_output(request, "OUTPUT0", NULL, 0);
    return request;
}

/* ---- Sums ---- */

#define RAGGED(type, dims, more)                                                                   \
    "{\"max_batch_size\": 64, \"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_" type      \
    "\", \"dims\": [-1, -1], \"allow_ragged_batch\": true}], \"output\": [{\"name\": "             \
    "\"OUTPUT0\", \"data_type\": \"TYPE_" type "\", \"dims\": [" dims "]}], \"batch_output\": "    \
    "[{\"target_name\": [\"OUTPUT0\"], \"source_input\": [\"INPUT0\"]}]" more "}"
#define NUMBERS(kind)                                                                              \
    ", \"batch_input\": [{\"kind\": \"" kind "\", \"target_name\": [\"N\"], \"data_type\": "       \
    "\"TYPE_INT32\", \"source_input\": [\"INPUT0\"]}]"

/* Four parts of 2^62 bytes are none at all to whoever does not look for the carry. */
static void parts_that_add_up_to_nothing_are_too_many(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    load_text(&w, RAGGED("FP32", "1, -1", ""));
    TRITONBACKEND_Request *requests[4];
    for (size_t i = 0; i < 4; i++) {
        requests[i] = claim(TRITONSERVER_TYPE_FP32, 0, (int64_t)1 << 60, NULL, 0);
    }
    assert_true(fake_execute(&w.instance, requests, 4));
    for (size_t i = 0; i < 4; i++) {
        expect_text(requests[i], "came out as FP32 [0]");
        assert_null(fake_received(requests[i], "OUTPUT0"));
        fake_request_destroy(requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* Sixteen of 2^60 floats each have no elements and no bytes together; and they are lent by a server
 * that did not look either, so that a byte of them that is touched is a crash. */
static void ragged_requests_whose_sum_is_small_do_not_meet(void **state)
{
    (void)state;
    world w;
    char honest[64];
    memset(honest, 3, sizeof honest);
    world_start(&w);
    engine.between = note_batch;
    seen_batches = 0;
    load_text(&w, RAGGED("FP32", "-1, -1", ""));
    TRITONBACKEND_Request *requests[17];
    for (size_t i = 0; i < 16; i++) {
        requests[i] =
            claim(TRITONSERVER_TYPE_FP32, 1, (int64_t)1 << 60, (const void *)64, (uint64_t)1 << 62);
    }
    requests[16] = claim(TRITONSERVER_TYPE_FP32, 1, 16, honest, sizeof honest);
    assert_true(fake_execute(&w.instance, requests, 17));
    for (size_t i = 0; i < 16; i++) {
        expect_text(requests[i], "no memory");
    }
    expect_text(requests[16], NULL);
    const struct TRITONBACKEND_Output *out = fake_received(requests[16], "OUTPUT0");
    assert_int_equal(out->size_bytes, sizeof honest);
    for (size_t i = 0; i < sizeof honest; i++) {
        assert_int_equal((unsigned char)out->received[i], engine_byte(3, 0));
    }
    assert_int_equal(seen_counts[seen_batches - 1], 1);
    for (size_t i = 0; i < 17; i++) {
        fake_request_destroy(requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* A request that needs more memory than there is takes no other one with it, in whatever order the
 * server brings them. */
static void who_needs_too_much_memory_is_alone(void **state)
{
    (void)state;
    static const char *const configs[] = {
        RAGGED("FP32", "-1, -1", ""),
        RAGGED("FP32", "-1, -1",
               ", \"parameters\": {\"unified_memory\": {\"string_value\": "
               "\"{\\\"batch_optimization\\\": false}\"}}"),
        RAGGED("FP32", "-1, -1",
               ", \"parameters\": {\"unified_memory\": {\"string_value\": "
               "\"{\\\"enable\\\": false}\"}}"),
    };
    for (size_t c = 0; c < sizeof configs / sizeof configs[0]; c++) {
        for (size_t bad = 0; bad < 3; bad++) {
            world w;
            char honest[2][64] = {{1}, {2}};
            world_start(&w);
            load_text(&w, configs[c]);
            TRITONBACKEND_Request *requests[3];
            for (size_t i = 0, k = 0; i < 3; i++) {
                requests[i] = i == bad ? claim(TRITONSERVER_TYPE_FP32, 1, (int64_t)1 << 44,
                                               (const void *)64, (uint64_t)1 << 46)
                                       : claim(TRITONSERVER_TYPE_FP32, 1, 16, honest[k++], 64);
            }
            assert_true(fake_execute(&w.instance, requests, 3));
            for (size_t i = 0; i < 3; i++) {
                expect_text(requests[i], i == bad ? "no memory" : NULL);
                fake_request_destroy(requests[i]);
            }
            world_unload(&w);
            world_finish(&w);
        }
    }
}

/* 2^40 in a shape without elements costs its sender nothing. */
static void a_number_that_int32_cannot_hold_fails_its_request_alone(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t b; /* of a shape [1, a, b] */
        int64_t a;
        const char *words; /* NULL: it fits */
    } rows[] = {
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ITEM_SHAPE")), (int64_t)1 << 40, 0,
         "a number for input 'N' of model 'fake' does not fit INT32"},
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ITEM_SHAPE_FLATTEN")), (int64_t)1 << 31, 0,
         "does not fit INT32"},
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ITEM_SHAPE")), INT32_MAX, 0, NULL},
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ELEMENT_COUNT")), (int64_t)1 << 40, 0, NULL},
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ELEMENT_COUNT")), (int64_t)1 << 40, 1,
         "does not fit INT32"},
        {RAGGED("UINT8", "-1, -1", NUMBERS("BATCH_ACCUMULATED_ELEMENT_COUNT")), (int64_t)1 << 31, 1,
         "does not fit INT32"},
    };
    for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++) {
        world w;
        char honest[16] = {1};
        world_start(&w);
        engine.between = note_batch;
        seen_batches = 0;
        load_text(&w, rows[r].text);
        TRITONBACKEND_Request *requests[] = {
            claim(TRITONSERVER_TYPE_UINT8, 1, 16, honest, sizeof honest),
            claim(TRITONSERVER_TYPE_UINT8, rows[r].a, rows[r].b, (const void *)64,
                  (uint64_t)(rows[r].a * rows[r].b)),
        };
        assert_true(fake_execute(&w.instance, requests, 2));
        expect_text(requests[0], NULL);
        expect_text(requests[1], rows[r].words);
        assert_int_equal(seen_counts[0], rows[r].words != NULL ? 1 : 2);
        fake_request_destroy(requests[0]);
        fake_request_destroy(requests[1]);
        world_unload(&w);
        world_finish(&w);
    }
}

/* ---- Strings ---- */

#define STRINGS                                                                                    \
    "{\"max_batch_size\": 8, \"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_STRING\", "  \
    "\"dims\": [1, -1]}], \"output\": [{\"name\": \"OUTPUT0\", \"data_type\": \"TYPE_STRING\", "   \
    "\"dims\": [1, -1]}]}"

/* Where strings are rewritten once they were checked. */
static char *victim;
static uint32_t victim_length;

static void rewrite(umo_batch *batch)
{
    (void)batch;
    memcpy(victim, &victim_length, sizeof victim_length);
}

/* The length in front of a string becomes 4 GiB, or nothing, between the check and the copy. */
static void a_length_that_changes_while_it_is_read_fails_its_request_alone(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {UINT32_MAX, UINT32_MAX - 3, 0x80000000u, 0, 5, 11, 13};
    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        world w;
        char honest[16] = {12, 0, 0, 0, 'h', 'o', 'n', 'e', 's', 't'};
        world_start(&w);
        engine.before = rewrite;
        load_text(&w, STRINGS);
        fake_region *region = fake_region_create(4096, true, false);
        victim = region->memory.data + 4096 - 16; /* nothing lies behind it */
        victim_length = lengths[l];
        memcpy(victim, honest, sizeof honest);
        TRITONBACKEND_Request *requests[] = {
            claim(TRITONSERVER_TYPE_BYTES, 1, 1, honest, sizeof honest),
            claim(TRITONSERVER_TYPE_BYTES, 1, 1, victim, 16),
            claim(TRITONSERVER_TYPE_BYTES, 1, 1, honest, sizeof honest),
        };
        fake_request_hold(requests[1], region);
        assert_true(fake_execute(&w.instance, requests, 3));
        for (size_t i = 0; i < 3; i++) {
            expect_text(requests[i], i == 1 ? "the strings of an input changed meanwhile" : NULL);
            if (i != 1) {
                const struct TRITONBACKEND_Output *out = fake_received(requests[i], "OUTPUT0");
                assert_int_equal(out->size_bytes, sizeof honest);
                assert_memory_equal(out->received, honest, sizeof honest);
            }
            fake_request_destroy(requests[i]);
        }
        fake_region_destroy(region);
        world_unload(&w);
        world_finish(&w);
    }
}

/* 4 GiB that nobody has: a length is the client's word and no more. */
static void a_string_of_four_gib_ends_where_its_bytes_end(void **state)
{
    (void)state;
    world w;
    char honest[16] = {12, 0, 0, 0, 'h'};
    char bad[16];
    world_start(&w);
    load_text(&w, STRINGS);
    memset(bad, 0xFF, sizeof bad);
    TRITONBACKEND_Request *requests[] = {
        claim(TRITONSERVER_TYPE_BYTES, 1, 1, bad, sizeof bad),
        claim(TRITONSERVER_TYPE_BYTES, 1, 1, honest, sizeof honest),
        claim(TRITONSERVER_TYPE_BYTES, 1, (int64_t)1 << 62, bad, sizeof bad),
    };
    assert_true(fake_execute(&w.instance, requests, 3));
    expect_text(requests[0], "its bytes are not 1 strings");
    expect_text(requests[1], NULL);
    expect_text(requests[2], "its bytes are not 4611686018427387904 strings");
    for (size_t i = 0; i < 3; i++) {
        fake_request_destroy(requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* ---- Rows of the strategy direct ---- */

static const model_plan slots = {
    .batch_max = ROWS_MAX,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .extra = ", \"sequence_batching\": {\"direct\": {}, \"state\": [{\"input_name\": \"PAST\", "
             "\"output_name\": \"FUTURE\", \"data_type\": \"TYPE_UINT8\", \"dims\": [16]}]}",
};

/* What a request says of its own input. */
typedef struct lie {
    TRITONSERVER_DataType dtype;
    uint32_t rank;
    int64_t dims[3];
    uint64_t size_bytes;
    const char *words;
} lie;

static const lie lies[] = {
    {TRITONSERVER_TYPE_UINT8, 2, {1, 5}, 16, "has 16 bytes; shape [1,5] of UINT8 needs 5"},
    {TRITONSERVER_TYPE_UINT8, 2, {1, 17}, 16, "has 16 bytes; shape [1,17] of UINT8 needs 17"},
    {TRITONSERVER_TYPE_UINT8, 2, {1, (int64_t)1 << 62}, 16, "has 16 bytes; shape"},
    {TRITONSERVER_TYPE_UINT8, 2, {1, -16}, 16, "negative or too large"},
    {TRITONSERVER_TYPE_UINT8, 2, {16, 1}, 16, "has batch size 16; the most is 4"},
    {TRITONSERVER_TYPE_UINT8, 3, {1, 16, 1}, 16, "has shape [1,16,1]"},
    {TRITONSERVER_TYPE_FP32, 2, {1, 4}, 16, "has type FP32, not UINT8"},
};

static void lie_tell(job *j, const lie *told, fake_sequence *sequence)
{
    job_start(j, &slots, 1, LENGTH, 7);
    TRITONBACKEND_Input *in = fake_input(j->request, "INPUT0", told->dtype, told->rank, told->dims);
    fake_input_piece(in, j->contents[0], told->size_bytes);
    job_want(j, 0, NULL);
    fake_sequence_join(sequence, j->request);
}

static void a_row_that_lies_keeps_its_slot_and_fails_alone(void **state)
{
    (void)state;
    static const int64_t dims[] = {1, LENGTH};
    static const unsigned char zeros[LENGTH];
    for (size_t l = 0; l < sizeof lies / sizeof lies[0]; l++) {
        for (size_t bad = 0; bad < 3; bad++) {
            world w;
            job jobs[3];
            fake_sequence sequences[3] = {0};
            fake_state *kept[3];
            char first[LENGTH];
            memset(first, 9, sizeof first);
            world_start(&w);
            engine.between = note_batch;
            seen_batches = 0;
            world_load_ok(&w, &slots);
            for (size_t i = 0; i < 3; i++) {
                kept[i] = fake_sequence_add(&sequences[i], "PAST", "FUTURE",
                                            TRITONSERVER_TYPE_UINT8, 2, dims, first, sizeof first);
                if (i == bad) {
                    lie_tell(&jobs[i], &lies[l], &sequences[i]);
                    continue;
                }
                job_start(&jobs[i], &slots, 1, LENGTH, (unsigned)i);
                job_input_own(&jobs[i], 0, false);
                job_want(&jobs[i], 0, NULL);
                fake_sequence_join(&sequences[i], jobs[i].request);
            }
            assert_true(world_execute(&w, jobs, 3));
            assert_int_equal(seen_batches, 1);
            assert_int_equal(seen_counts[0], 3);
            for (size_t i = 0; i < 3; i++) {
                assert_memory_equal(seen_rows[i],
                                    i == bad ? (const void *)zeros : jobs[i].contents[0], LENGTH);
                assert_int_equal(kept[i]->updates, i == bad ? 0 : 1);
                if (i == bad) {
                    job_expect_failed(&jobs[i], lies[l].words);
                    assert_memory_equal(kept[i]->now.data, first, sizeof first);
                } else {
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

static void a_batch_of_lies_alone_runs_nothing(void **state)
{
    (void)state;
    static const int64_t dims[] = {1, LENGTH};
    world w;
    job jobs[2];
    fake_sequence sequences[2] = {0};
    char first[LENGTH] = {1};
    world_start(&w);
    world_load_ok(&w, &slots);
    for (size_t i = 0; i < 2; i++) {
        (void)fake_sequence_add(&sequences[i], "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 2, dims,
                                first, sizeof first);
        lie_tell(&jobs[i], &lies[i], &sequences[i]);
    }
    assert_true(world_execute(&w, jobs, 2));
    assert_int_equal(engine.batches, 0);
    for (size_t i = 0; i < 2; i++) {
        job_expect_failed(&jobs[i], lies[i].words);
        job_finish(&jobs[i]);
        fake_sequence_destroy(&sequences[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_that_add_up_to_nothing_are_too_many),
        cmocka_unit_test(ragged_requests_whose_sum_is_small_do_not_meet),
        cmocka_unit_test(who_needs_too_much_memory_is_alone),
        cmocka_unit_test(a_number_that_int32_cannot_hold_fails_its_request_alone),
        cmocka_unit_test(a_length_that_changes_while_it_is_read_fails_its_request_alone),
        cmocka_unit_test(a_string_of_four_gib_ends_where_its_bytes_end),
        cmocka_unit_test(a_row_that_lies_keeps_its_slot_and_fails_alone),
        cmocka_unit_test(a_batch_of_lies_alone_runs_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

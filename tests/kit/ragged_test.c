/*
 * Ragged batches, batch_input and batch_output: what the engine gets and what each client gets back
 * is what a few lines of plain arithmetic over the requests' shapes say.
 */
#include "world.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define REQUESTS_MAX 8
#define NUMBERS_MAX 256

/* Floats of any two dimensions; each is answered as it lies in the batch, split again by shape. */
#define RAGGED_INPUT                                                                               \
    "\"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1, -1], "        \
    "\"allow_ragged_batch\": true}]"
#define OUTPUT                                                                                     \
    "\"output\": [{\"name\": \"OUTPUT0\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1, -1]}]"
#define SPLIT                                                                                      \
    "\"batch_output\": [{\"target_name\": [\"OUTPUT0\"], \"kind\": "                               \
    "\"BATCH_SCATTER_WITH_INPUT_SHAPE\", \"source_input\": [\"INPUT0\"]}]"

static const char *const kinds[KIT_BATCH_KINDS] = {
    "BATCH_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT",
    "BATCH_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO",
    "BATCH_MAX_ELEMENT_COUNT_AS_SHAPE",
    "BATCH_ITEM_SHAPE",
    "BATCH_ITEM_SHAPE_FLATTEN",
};

static char config[4096];

/* One batch input of each kind, twice: as INT32 and as FP32. */
static const char *all_kinds(void)
{
    size_t used = (size_t)snprintf(config, sizeof config,
                                   "{\"max_batch_size\": 64, %s, %s, %s, \"batch_input\": [",
                                   RAGGED_INPUT, OUTPUT, SPLIT);
    for (int k = 0; k < KIT_BATCH_KINDS; k++) {
        used += (size_t)snprintf(config + used, sizeof config - used,
                                 "%s{\"kind\": \"%s\", \"target_name\": [\"I%d\", \"J%d\"], "
                                 "\"data_type\": \"TYPE_INT32\", \"source_input\": [\"INPUT0\"]}, "
                                 "{\"kind\": \"%s\", \"target_name\": [\"F%d\"], "
                                 "\"data_type\": \"TYPE_FP32\", \"source_input\": [\"INPUT0\"]}",
                                 k > 0 ? ", " : "", kinds[k], k, k, kinds[k], k);
    }
    (void)snprintf(config + used, sizeof config - used, "]}");
    return config;
}

/* A request for the ragged input: shape [rows, a, b]. */
typedef struct piece {
    int64_t rows;
    int64_t a;
    int64_t b;
} piece;

typedef struct request {
    TRITONBACKEND_Request *triton;
    piece shape;
    fake_region *own;
    char *data;
    char *contents;
    size_t size_bytes;
} request;

static int64_t elements(const piece *shape)
{
    return shape->rows * shape->a * shape->b;
}

/* At `data`, or in private memory of its own. */
static void request_start(request *r, const piece *shape, char *data, char *answer, unsigned seed)
{
    const int64_t dims[] = {shape->rows, shape->a, shape->b};
    *r = (request){.triton = fake_request_create(),
                   .shape = *shape,
                   .size_bytes = (size_t)elements(shape) * 4};
    if (data == NULL) {
        r->own = fake_region_create(r->size_bytes + 1, false, false);
        fake_request_hold(r->triton, r->own);
        data = r->own->memory.data;
    }
    r->data = data;
    r->contents = plain_alloc(r->size_bytes + 1);
    for (size_t i = 0; i < r->size_bytes; i++) {
        r->contents[i] = (char)(seed * 31 + i * 7 + 1);
    }
    memcpy(data, r->contents, r->size_bytes);
    TRITONBACKEND_Input *in = fake_input(r->triton, "INPUT0", TRITONSERVER_TYPE_FP32, 3, dims);
    fake_input_piece(in, data, r->size_bytes);
    fake_want_output(r->triton, "OUTPUT0", answer, r->size_bytes);
}

static void request_finish(request *r)
{
    fake_request_destroy(r->triton);
    if (r->own != NULL) {
        fake_region_destroy(r->own);
    }
    free(r->contents);
}

static void request_expect_right(const request *r)
{
    fake_request_expect_answered(r->triton);
    assert_string_equal(r->triton->text, "");
    const struct TRITONBACKEND_Output *out = fake_received(r->triton, "OUTPUT0");
    const int64_t dims[] = {r->shape.rows, r->shape.a, r->shape.b};
    assert_non_null(out);
    assert_int_equal(out->rank, 3);
    assert_memory_equal(out->dims, dims, sizeof dims);
    assert_int_equal(out->size_bytes, r->size_bytes);
    for (size_t i = 0; i < r->size_bytes; i++) {
        assert_int_equal((unsigned char)out->received[i],
                         engine_byte((unsigned char)r->contents[i], 0));
    }
}

static void load_ok(world *w, const char *text)
{
    fake.config = text;
    if (!world_load(w)) {
        fail_msg("the model does not load: %s", w->text);
    }
}

static bool execute(world *w, request *requests, size_t count)
{
    TRITONBACKEND_Request *triton[REQUESTS_MAX];
    for (size_t i = 0; i < count; i++) {
        triton[i] = requests[i].triton;
    }
    return fake_execute(&w->instance, triton, (uint32_t)count);
}

/* ---- The reference ---- */

typedef struct expected {
    umo_shape shape;
    int64_t numbers[NUMBERS_MAX];
    size_t count;
} expected;

static void reference(kit_batch_kind kind, const piece *const *shapes, size_t count, expected *out)
{
    int64_t sum = 0;
    int64_t rows = 0;
    int64_t most = 0;
    *out = (expected){.shape = {.rank = 1}};
    if (kind == KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO) {
        out->numbers[out->count++] = 0;
    }
    for (size_t i = 0; i < count; i++) {
        sum += elements(shapes[i]);
        rows += shapes[i]->rows;
        most = elements(shapes[i]) > most ? elements(shapes[i]) : most;
        if (kind == KIT_ELEMENT_COUNT) {
            out->numbers[out->count++] = elements(shapes[i]);
        } else if (kind <= KIT_ACCUMULATED_ELEMENT_COUNT_WITH_ZERO) {
            out->numbers[out->count++] = sum;
        }
        for (int64_t r = 0; kind >= KIT_ITEM_SHAPE && r < shapes[i]->rows; r++) {
            out->numbers[out->count++] = shapes[i]->a;
            out->numbers[out->count++] = shapes[i]->b;
        }
    }
    if (kind == KIT_MAX_ELEMENT_COUNT_AS_SHAPE) {
        out->count = (size_t)most; /* all zero */
    }
    out->shape.dims[0] = (int64_t)out->count;
    if (kind == KIT_ITEM_SHAPE) {
        out->shape = (umo_shape){.rank = 2, .dims = {rows, 2}};
    }
}

static request *present;
static unsigned looks;

static void numbers_expect(umo_batch *batch, const char *name, const expected *want)
{
    const umo_model *model = batch->instance->model;
    size_t input = umo_model_find_input(model, name);
    umo_tensor tensor;
    assert_true(input < model->input_count);
    assert_int_equal(model->inputs[input].source, UMO_IO_BATCH);
    assert_true(umo_batch_has_input(batch, input));
    assert_int_equal(umo_batch_input(batch, input, &tensor, NULL), UMO_OK);
    assert_int_equal(tensor.shape.rank, want->shape.rank);
    assert_memory_equal(tensor.shape.dims, want->shape.dims, want->shape.rank * sizeof(int64_t));
    assert_int_equal(tensor.size_bytes, want->count * 4);
    for (size_t i = 0; i < want->count; i++) {
        if (tensor.dtype == UMO_FP32) {
            assert_true(((const float *)tensor.data)[i] == (float)want->numbers[i]);
        } else {
            assert_int_equal(((const int32_t *)tensor.data)[i], want->numbers[i]);
        }
    }
}

/* What the engine sees of a batch is what the reference makes of its requests, in their order. */
static void batch_look(umo_batch *batch)
{
    const piece *shapes[REQUESTS_MAX];
    umo_tensor tensor;
    size_t at = 0;
    assert_int_equal(umo_batch_input(batch, 0, &tensor, NULL), UMO_OK);
    for (size_t i = 0; i < batch->count; i++) {
        const request *r = present;
        while (r->triton != batch->members[i]->triton) {
            r++;
        }
        shapes[i] = &r->shape;
        assert_memory_equal((const char *)tensor.data + at, r->contents, r->size_bytes);
        at += r->size_bytes;
    }
    assert_int_equal(tensor.size_bytes, at);
    assert_int_equal(tensor.shape.rank, 1);
    assert_int_equal(tensor.shape.dims[0], at / 4);
    for (int k = 0; k < KIT_BATCH_KINDS; k++) {
        static const char letters[] = {'I', 'J', 'F'};
        expected want;
        reference((kit_batch_kind)k, shapes, batch->count, &want);
        for (size_t l = 0; l < sizeof letters; l++) {
            char name[16];
            (void)snprintf(name, sizeof name, "%c%d", letters[l], k);
            numbers_expect(batch, name, &want);
        }
    }
    looks++;
}

static const piece unequal[] = {{1, 3, 1}, {2, 1, 2}, {1, 0, 7}, {3, 2, 2}, {0, 4, 4}, {1, 5, 3}};
#define UNEQUAL (sizeof unequal / sizeof unequal[0])

static void every_kind_is_what_the_shapes_say(void **state)
{
    (void)state;
    for (int device = 0; device < 2; device++) {
        for (size_t count = 1; count <= UNEQUAL; count++) {
            world w;
            request requests[UNEQUAL];
            world_start(&w);
            engine.between = device == 0 ? batch_look : NULL;
            engine.device = device == 0 ? NULL : world_device(0, true);
            load_ok(&w, all_kinds());
            for (size_t i = 0; i < count; i++) {
                request_start(&requests[i], &unequal[(i * 5 + count) % UNEQUAL], NULL, NULL,
                              (unsigned)i);
            }
            present = requests;
            looks = 0;
            assert_true(execute(&w, requests, count));
            assert_int_equal(looks, device == 0 ? 1 : 0);
            assert_int_equal(engine.batches, 1);
            for (size_t i = 0; i < count; i++) {
                request_expect_right(&requests[i]);
                request_finish(&requests[i]);
            }
            world_unload(&w);
            world_finish(&w);
        }
    }
}

/* Slots of unequal sizes that touch, in another order than the requests come in. */
static void ragged_neighbours_stay_where_they_lie(void **state)
{
    (void)state;
    static const size_t order[] = {3, 0, 5, 1, 4, 2};
    world w;
    request requests[UNEQUAL];
    world_start(&w);
    engine.between = batch_look;
    load_ok(&w, all_kinds());
    fake_region *in = fake_region_create(4096, true, false);
    fake_region *out = fake_region_create(4096, true, true);
    size_t at = 0;
    for (size_t i = 0; i < UNEQUAL; i++) {
        request *r = &requests[order[i]];
        request_start(r, &unequal[order[i]], in->memory.data + at, out->memory.data + at,
                      (unsigned)i);
        fake_request_hold(r->triton, in);
        fake_request_hold(r->triton, out);
        at += r->size_bytes;
    }
    present = requests;
    umo_counters before = world_counters(&w);
    assert_true(execute(&w, requests, UNEQUAL));
    umo_counters after = world_counters(&w);
    for (int d = 0; d < UMO_DIRECTIONS; d++) {
        for (int r = 0; r < UMO_REASON_COUNT; r++) {
            assert_int_equal(after.copy_performed[d][r].bytes, before.copy_performed[d][r].bytes);
        }
        assert_int_equal(after.copy_avoided[d].bytes - before.copy_avoided[d].bytes, at);
    }
    for (size_t i = 0; i < UNEQUAL; i++) {
        request_expect_right(&requests[i]);
        request_finish(&requests[i]);
    }
    fake_region_destroy(out);
    fake_region_destroy(in);
    world_unload(&w);
    world_finish(&w);
}

/* Without allow_ragged_batch unequal requests run apart, as before. */
static void unequal_requests_run_apart_where_nothing_is_ragged(void **state)
{
    (void)state;
    world w;
    request requests[2];
    world_start(&w);
    load_ok(&w, "{\"max_batch_size\": 64, \"input\": [{\"name\": \"INPUT0\", \"data_type\": "
                "\"TYPE_FP32\", \"dims\": [-1, -1]}], " OUTPUT "}");
    for (size_t i = 0; i < 2; i++) {
        request_start(&requests[i], &unequal[i], NULL, NULL, (unsigned)i);
    }
    assert_true(execute(&w, requests, 2));
    assert_int_equal(engine.batches, 2);
    for (size_t i = 0; i < 2; i++) {
        request_expect_right(&requests[i]);
        request_finish(&requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* ---- Bad requests ---- */

static void a_batch_input_cannot_be_sent(void **state)
{
    (void)state;
    world w;
    request requests[2];
    const int64_t dims[] = {1};
    world_start(&w);
    engine.between = batch_look;
    load_ok(&w, all_kinds());
    for (size_t i = 0; i < 2; i++) {
        request_start(&requests[i], &unequal[i], NULL, NULL, (unsigned)i);
    }
    fake_input_piece(fake_input(requests[0].triton, "I0", TRITONSERVER_TYPE_INT32, 1, dims), "1234",
                     4);
    present = requests;
    assert_true(execute(&w, requests, 2));
    assert_non_null(strstr(requests[0].triton->text, "model 'fake' has no input 'I0'"));
    request_expect_right(&requests[1]);
    for (size_t i = 0; i < 2; i++) {
        request_finish(&requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* The engine's output must be as large as all parts of it. */
static void an_output_that_cannot_be_split_fails_the_batch(void **state)
{
    (void)state;
    world w;
    request r;
    world_start(&w);
    engine.trouble = TROUBLE_WRONG_DIM;
    load_ok(&w, all_kinds());
    request_start(&r, &unequal[0], NULL, NULL, 1);
    assert_true(execute(&w, &r, 1));
    assert_non_null(strstr(r.triton->text, "output 'OUTPUT0' of model 'fake' came out as FP32 [4]; "
                                           "the requests' shapes need 12 bytes of FP32"));
    request_finish(&r);
    world_unload(&w);
    world_finish(&w);
}

/* [-1, 2^40] of an input without elements has more bytes than there are. */
static void a_part_that_is_too_large_fails_its_request_alone(void **state)
{
    (void)state;
    world w;
    request requests[2];
    world_start(&w);
    load_ok(&w, "{\"max_batch_size\": 64, " RAGGED_INPUT
                ", \"output\": [{\"name\": \"OUTPUT0\", \"data_type\": \"TYPE_FP32\", \"dims\": "
                "[-1, 4611686018427387904]}], " SPLIT "}");
    for (size_t i = 0; i < 2; i++) {
        const piece shape = {1, i == 0 ? 3 : 0, 0};
        request_start(&requests[i], &shape, NULL, NULL, (unsigned)i);
    }
    assert_true(execute(&w, requests, 2));
    assert_non_null(
        strstr(requests[0].triton->text, "output 'OUTPUT0' of model 'fake' is too large"));
    assert_string_equal(requests[1].triton->text, "");
    for (size_t i = 0; i < 2; i++) {
        request_finish(&requests[i]);
    }
    world_unload(&w);
    world_finish(&w);
}

/* ---- Bad configurations ---- */

static void a_configuration_that_makes_no_sense_is_named(void **state)
{
    (void)state;
#define BATCH_INPUT(kind, target, type, source)                                                    \
    "\"batch_input\": [{\"kind\": \"" kind "\", \"target_name\": [\"" target                       \
    "\"], \"data_type\": \"" type "\", \"source_input\": [" source "]}]"
    static const struct {
        const char *text;
        const char *words;
    } rows[] = {
        {BATCH_INPUT("BATCH_NONSENSE", "N", "TYPE_INT32", "\"INPUT0\""),
         "batch_input: no kind is named 'BATCH_NONSENSE'"},
        {BATCH_INPUT("BATCH_ELEMENT_COUNT", "N", "TYPE_INT64", "\"INPUT0\""),
         "batch_input: data_type is TYPE_INT32 or TYPE_FP32, not TYPE_INT64"},
        {BATCH_INPUT("BATCH_ELEMENT_COUNT", "N", "TYPE_INT32", "\"INPUT7\""),
         "batch_input: source_input 'INPUT7' is no input of model 'fake'"},
        {BATCH_INPUT("BATCH_ELEMENT_COUNT", "N", "TYPE_INT32", ""),
         "batch_input: source_input names one input, not 0"},
        {BATCH_INPUT("BATCH_ELEMENT_COUNT", "N", "TYPE_INT32", "\"INPUT0\", \"INPUT0\""),
         "batch_input: source_input names one input, not 2"},
        {BATCH_INPUT("BATCH_ELEMENT_COUNT", "INPUT0", "TYPE_INT32", "\"INPUT0\""),
         "batch_input: target_name 'INPUT0' is an input already"},
        {"\"batch_output\": [{\"kind\": \"BATCH_X\", \"target_name\": [\"OUTPUT0\"], "
         "\"source_input\": [\"INPUT0\"]}]",
         "batch_output: no kind is named 'BATCH_X'"},
        {"\"batch_output\": [{\"target_name\": [\"OUTPUT9\"], \"source_input\": [\"INPUT0\"]}]",
         "batch_output: target_name 'OUTPUT9' is no output"},
        {"\"batch_output\": [{\"target_name\": [\"OUTPUT0\"], \"source_input\": [\"N\"]}]",
         "batch_output: source_input 'N' is no input of model 'fake'"},
        {"\"batch_output\": [{\"target_name\": [\"OUTPUT1\"], \"source_input\": [\"INPUT0\"]}]",
         "dimension 2 of output 'OUTPUT1' of model 'fake' is open, and input 'INPUT0' has no such"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        world w;
        world_start(&w);
        (void)snprintf(config, sizeof config,
                       "{\"max_batch_size\": 64, %s, \"output\": [{\"name\": \"OUTPUT0\", "
                       "\"data_type\": \"TYPE_FP32\", \"dims\": [-1, -1]}, {\"name\": \"OUTPUT1\", "
                       "\"data_type\": \"TYPE_FP32\", \"dims\": [1, 1, -1]}], %s}",
                       RAGGED_INPUT, rows[i].text);
        fake.config = config;
        assert_false(world_load(&w));
        if (strstr(w.text, rows[i].words) == NULL) {
            fail_msg("the load failed with '%s', without '%s'", w.text, rows[i].words);
        }
        world_finish(&w);
    }
}

/* What the kit adds is nothing that the configuration lacks. */
static void a_completed_configuration_does_not_list_batch_inputs(void **state)
{
    (void)state;
    world w;
    world_start(&w);
    fake.completes = true;
    engine.completes = true;
    load_ok(&w, all_kinds());
    assert_non_null(strstr(fake.completed, "\"batch_input\""));
    assert_null(strstr(fake.completed, "\"name\":\"I0\""));
    world_unload(&w);
    world_finish(&w);
}

/* ---- Faults ---- */

static void whatever_fails_fails_cleanly(void **state)
{
    (void)state;
    for (uint64_t number = 1; number < 400; number++) {
        world w;
        world_start(&w);
        fake.config = all_kinds();
        allocations_start(number);
        bool loaded = world_load(&w);
        if (loaded) {
            request requests[3];
            for (size_t i = 0; i < 3; i++) {
                request_start(&requests[i], &unequal[i], NULL, NULL, (unsigned)i);
            }
            (void)execute(&w, requests, 3);
            uint64_t made = allocations_stop();
            for (size_t i = 0; i < 3; i++) {
                fake_request_expect_answered(requests[i].triton);
                if (requests[i].triton->text[0] == '\0') {
                    request_expect_right(&requests[i]);
                }
                request_finish(&requests[i]);
            }
            world_unload(&w);
            if (made < number) {
                world_finish(&w);
                return; /* nothing was left to fail */
            }
        }
        (void)allocations_stop();
        world_finish(&w);
    }
    fail_msg("there is no end of allocations");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_is_what_the_shapes_say),
        cmocka_unit_test(ragged_neighbours_stay_where_they_lie),
        cmocka_unit_test(unequal_requests_run_apart_where_nothing_is_ragged),
        cmocka_unit_test(a_batch_input_cannot_be_sent),
        cmocka_unit_test(an_output_that_cannot_be_split_fails_the_batch),
        cmocka_unit_test(a_part_that_is_too_large_fails_its_request_alone),
        cmocka_unit_test(a_configuration_that_makes_no_sense_is_named),
        cmocka_unit_test(a_completed_configuration_does_not_list_batch_inputs),
        cmocka_unit_test(whatever_fails_fails_cleanly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

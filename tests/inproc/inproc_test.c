/* The in-process host and the two measuring backends against a real server. What "touches nothing"
 * means is proved here by taking the memory away: null answers with inputs and outputs unmapped. */
#include "triton_inproc.h"

#include "os/pages_test.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define COUNT 4096
#define BYTES (COUNT * sizeof(float))

static const char *backends;
static char repository[INPROC_PATH];
static inproc_server *server;

static const char flat_config[] =
    "backend: \"%s\"\n"
    "max_batch_size: 8\n"
    "input [ { name: \"IN\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    "dynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 500000 }\n";

static const char pair_config[] =
    "backend: \"copying\"\n"
    "max_batch_size: 0\n"
    "input [ { name: \"A\" data_type: TYPE_UINT8 dims: [ -1, 3 ] },\n"
    "        { name: \"B\" data_type: TYPE_INT64 dims: [ 2 ] } ]\n"
    "output [ { name: \"X\" data_type: TYPE_UINT8 dims: [ -1, 3 ] },\n"
    "         { name: \"Y\" data_type: TYPE_INT64 dims: [ 2 ] },\n"
    "         { name: \"Z\" data_type: TYPE_INT32 dims: [ 5 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n";

/* The same without a batcher that waits for company. */
static const char eager_config[] =
    "backend: \"%s\"\n"
    "max_batch_size: 8\n"
    "input [ { name: \"IN\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n";

static int group_setup(void **state)
{
    const char *models[] = {"copying", "null", "pair", "together", NULL};
    inproc_options options = {.backends = backends,
                              .models = models,
                              .strict_readiness = true,
                              .metrics = true,
                              .log_level = -1};
    inproc_error error;
    char config[1024];
    bool ok = inproc_repository_create(repository, &error);

    (void)state;
    snprintf(config, sizeof(config), eager_config, "copying");
    ok = ok && inproc_repository_add(repository, "copying", config, &error);
    snprintf(config, sizeof(config), eager_config, "null");
    ok = ok && inproc_repository_add(repository, "null", config, &error);
    snprintf(config, sizeof(config), flat_config, "copying");
    ok = ok && inproc_repository_add(repository, "together", config, &error);
    ok = ok && inproc_repository_add(repository, "pair", pair_config, &error);
    options.repository = repository;
    if (!ok || !inproc_server_start(&options, &server, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    inproc_server_stop(server, NULL);
    inproc_repository_remove(repository);
    return 0;
}

static float *floats_map(void)
{
    float *floats =
        pages_test_map(BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_true(floats != MAP_FAILED);
    for (size_t i = 0; i < COUNT; i++) {
        floats[i] = (float)i;
    }
    return floats;
}

/* One request IN[1, COUNT] -> OUT, `in` in `piece_count` pieces. */
static inproc_request *flat_request(const char *model, const void *in, size_t piece_count,
                                    void *out, size_t out_bytes)
{
    const int64_t shape[2] = {1, COUNT};
    inproc_piece pieces[64];
    inproc_input input = {.name = "IN",
                          .datatype = TRITONSERVER_TYPE_FP32,
                          .shape = shape,
                          .dim_count = 2,
                          .pieces = pieces,
                          .piece_count = piece_count};
    inproc_output output = {.name = "OUT", .buffer = out, .capacity_bytes = out_bytes};
    inproc_request *request = NULL;
    inproc_error error;
    size_t done = 0;

    for (size_t i = 0; i < piece_count; i++) {
        size_t end = BYTES * (i + 1) / piece_count;

        pieces[i].base = (const char *)in + done;
        pieces[i].size_bytes = end - done;
        done = end;
    }
    if (!inproc_request_create(server, model, &input, 1, &output, 1, &request, &error)) {
        fail_msg("%s", error.text);
    }
    return request;
}

static void must_infer(inproc_request *request)
{
    inproc_error error;

    if (!inproc_request_infer(request, &error)) {
        fail_msg("%s", error.text);
    }
}

static void null_answers_without_touching_a_byte(void **state)
{
    float *in = floats_map();
    float *out = floats_map();
    inproc_request *request = flat_request("null", in, 1, out, BYTES);

    (void)state;
    assert_int_equal(mprotect(in, BYTES, PROT_NONE), 0);
    assert_int_equal(mprotect(out, BYTES, PROT_NONE), 0);
    must_infer(request);
    assert_ptr_equal(inproc_request_result(request, 0)->base, out);
    assert_int_equal(inproc_request_result(request, 0)->size_bytes, BYTES);
    assert_int_equal(inproc_request_result(request, 0)->shape[1], COUNT);
    inproc_request_destroy(request);
    munmap(in, pages_test_round_up(BYTES));
    munmap(out, pages_test_round_up(BYTES));
}

static void copying_writes_the_input_into_the_callers_output(void **state)
{
    float *in = floats_map();
    float *out = floats_map();
    inproc_request *request = flat_request("copying", in, 1, out, BYTES);

    (void)state;
    assert_int_equal(mprotect(in, BYTES, PROT_READ), 0);
    for (int again = 0; again < 3; again++) {
        memset(out, 0, BYTES);
        must_infer(request);
        assert_ptr_equal(inproc_request_result_by_name(request, "OUT")->base, out);
        assert_memory_equal(in, out, BYTES);
        assert_true(inproc_request_latency_ns(request) > 0);
        assert_int_equal(inproc_request_response_count(request), 1);
    }
    inproc_request_destroy(request);
    munmap(in, pages_test_round_up(BYTES));
    munmap(out, pages_test_round_up(BYTES));
}

static void an_input_may_come_in_many_pieces_at_odd_addresses(void **state)
{
    float *in = floats_map();
    char *odd = malloc(BYTES + 1);
    float *out = floats_map();
    inproc_request *request;

    (void)state;
    assert_non_null(odd);
    memcpy(odd + 1, in, BYTES);
    memset(out, 0, BYTES);
    request = flat_request("copying", odd + 1, 37, out, BYTES);
    must_infer(request);
    assert_memory_equal(in, out, BYTES);
    inproc_request_destroy(request);
    free(odd);
    munmap(in, pages_test_round_up(BYTES));
    munmap(out, pages_test_round_up(BYTES));
}

static void an_output_without_a_buffer_is_allocated(void **state)
{
    float *in = floats_map();
    inproc_request *request = flat_request("copying", in, 1, NULL, 0);

    (void)state;
    must_infer(request);
    must_infer(request);
    assert_memory_equal(inproc_request_result(request, 0)->base, in, BYTES);
    inproc_request_destroy(request);
    munmap(in, pages_test_round_up(BYTES));
}

static void too_small_an_output_is_an_error_in_words(void **state)
{
    float *in = floats_map();
    float *out = floats_map();
    inproc_request *request = flat_request("copying", in, 1, out, BYTES - 1);
    inproc_error error;

    (void)state;
    assert_false(inproc_request_infer(request, &error));
    assert_int_equal(error.code, TRITONSERVER_ERROR_INVALID_ARG);
    assert_non_null(strstr(error.text, "output 'OUT' needs 16384 bytes, the buffer has 16383"));
    /* The server lives on. */
    inproc_request_destroy(request);
    request = flat_request("copying", in, 1, out, BYTES);
    must_infer(request);
    inproc_request_destroy(request);
    munmap(in, pages_test_round_up(BYTES));
    munmap(out, pages_test_round_up(BYTES));
}

static void several_inputs_and_outputs_keep_types_and_shapes(void **state)
{
    uint8_t a[4 * 3];
    int64_t b[2] = {-5, 1000000000000};
    const int64_t a_shape[2] = {4, 3};
    const int64_t b_shape[1] = {2};
    const inproc_piece a_piece = {a, sizeof(a)};
    const inproc_piece b_piece = {b, sizeof(b)};
    const inproc_input inputs[2] = {
        {"A", TRITONSERVER_TYPE_UINT8, a_shape, 2, &a_piece, 1, 0},
        {"B", TRITONSERVER_TYPE_INT64, b_shape, 1, &b_piece, 1, 0},
    };
    int32_t z[5] = {0};
    int32_t z_out[5];
    const inproc_output outputs[3] = {{"X", NULL, 0}, {"Y", NULL, 0}, {"Z", z_out, sizeof(z_out)}};
    inproc_request *request = NULL;
    const inproc_result *result;
    inproc_error error;

    (void)state;
    memcpy(z, b, sizeof(b));
    for (size_t i = 0; i < sizeof(a); i++) {
        a[i] = (uint8_t)(i * 11);
    }
    memset(z_out, 0xff, sizeof(z_out));
    assert_true(inproc_request_create(server, "pair", inputs, 2, outputs, 3, &request, &error));
    must_infer(request);
    assert_int_equal(inproc_request_result_count(request), 3);
    result = inproc_request_result_by_name(request, "X");
    assert_int_equal(result->datatype, TRITONSERVER_TYPE_UINT8);
    assert_int_equal(result->dim_count, 2);
    assert_int_equal(result->shape[0], 4);
    assert_memory_equal(result->base, a, sizeof(a));
    result = inproc_request_result_by_name(request, "Y");
    assert_int_equal(result->datatype, TRITONSERVER_TYPE_INT64);
    assert_memory_equal(result->base, b, sizeof(b));
    /* Z has its configured shape, the last input's bytes and zeros behind them. */
    result = inproc_request_result_by_name(request, "Z");
    assert_int_equal(result->datatype, TRITONSERVER_TYPE_INT32);
    assert_int_equal(result->size_bytes, sizeof(z));
    assert_memory_equal(result->base, z, sizeof(z));
    assert_null(inproc_request_result_by_name(request, "W"));
    inproc_request_destroy(request);
}

static void requests_started_together_run_as_one_batch(void **state)
{
    inproc_request *requests[4];
    float *in[4];
    float *out[4];
    char *statistics;
    inproc_error error;

    (void)state;
    for (int i = 0; i < 4; i++) {
        in[i] = floats_map();
        out[i] = floats_map();
        in[i][0] = (float)(1000 + i);
        memset(out[i], 0, BYTES);
        requests[i] = flat_request("together", in[i], (size_t)i + 1, out[i], BYTES);
    }
    for (int i = 0; i < 4; i++) {
        assert_true(inproc_request_start(requests[i], &error));
    }
    for (int i = 3; i >= 0; i--) {
        assert_true(inproc_request_wait(requests[i], &error));
        assert_memory_equal(in[i], out[i], BYTES);
        inproc_request_destroy(requests[i]);
    }
    for (int i = 0; i < 4; i++) {
        munmap(in[i], pages_test_round_up(BYTES));
        munmap(out[i], pages_test_round_up(BYTES));
    }
    statistics = inproc_statistics_json(server, "together", &error);
    assert_non_null(statistics);
    assert_non_null(strstr(statistics, "\"inference_count\":4,\"execution_count\":1"));
    free(statistics);
}

static void a_request_under_way_cannot_be_started_again(void **state)
{
    float *in = floats_map();
    float *out = floats_map();
    inproc_request *request = flat_request("together", in, 1, out, BYTES);
    inproc_error error;

    (void)state;
    assert_false(inproc_request_wait(request, &error));
    assert_true(inproc_request_start(request, &error));
    assert_false(inproc_request_start(request, &error));
    assert_non_null(strstr(error.text, "under way"));
    /* Destroying waits. */
    inproc_request_destroy(request);
    munmap(in, pages_test_round_up(BYTES));
    munmap(out, pages_test_round_up(BYTES));
}

static void wrong_requests_are_refused_with_the_servers_words(void **state)
{
    const int64_t shape[2] = {1, 4};
    const float four[4] = {0};
    const inproc_piece piece = {four, sizeof(four)};
    inproc_input input = {"IN", TRITONSERVER_TYPE_INT32, shape, 2, &piece, 1, 0};
    inproc_request *request = NULL;
    inproc_error error;

    (void)state;
    assert_false(inproc_request_create(server, "nobody", &input, 1, NULL, 0, &request, &error));
    assert_int_equal(error.code, TRITONSERVER_ERROR_NOT_FOUND);
    assert_non_null(strstr(error.text, "nobody"));
    assert_true(inproc_request_create(server, "copying", &input, 1, NULL, 0, &request, &error));
    assert_false(inproc_request_infer(request, &error));
    assert_int_equal(error.code, TRITONSERVER_ERROR_INVALID_ARG);
    assert_non_null(strstr(error.text, "data-type"));
    inproc_request_destroy(request);
}

static void models_load_and_unload_on_demand(void **state)
{
    float *in = floats_map();
    inproc_request *request = NULL;
    char config[1024];
    char *text;
    inproc_error error;

    (void)state;
    snprintf(config, sizeof(config), eager_config, "copying");
    assert_true(inproc_repository_add(repository, "late", config, &error));
    assert_true(inproc_model_load(server, "late", NULL, &error));
    request = flat_request("late", in, 1, NULL, 0);
    must_infer(request);
    inproc_request_destroy(request);
    assert_true(inproc_model_unload(server, "late", 10000, &error));
    assert_false(inproc_request_create(server, "late", NULL, 0, NULL, 0, &request, &error));
    /* A configuration given at load replaces the one in the repository. */
    assert_true(inproc_model_load(
        server, "late",
        "{\"backend\": \"null\", \"max_batch_size\": 2,"
        " \"input\": [{\"name\": \"IN\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1]}],"
        " \"output\": [{\"name\": \"OUT\", \"data_type\": \"TYPE_FP32\", \"dims\": [-1]}]}",
        &error));
    text = inproc_config_json(server, "late", &error);
    assert_non_null(text);
    assert_non_null(strstr(text, "\"backend\":\"null\""));
    free(text);
    assert_true(inproc_model_unload(server, "late", 10000, &error));
    munmap(in, pages_test_round_up(BYTES));
}

static void metrics_show_the_models(void **state)
{
    inproc_error error;
    char *text = inproc_metrics_text(server, &error);

    (void)state;
    assert_non_null(text);
    assert_non_null(strstr(text, "nv_inference_request_success{model=\"copying\""));
    free(text);
}

static void a_server_that_cannot_load_a_model_says_which_and_why(void **state)
{
    const char *models[] = {"broken", NULL};
    inproc_options options = {
        .backends = backends, .models = models, .strict_readiness = true, .log_level = -1};
    inproc_server *second = NULL;
    inproc_error error;

    (void)state;
    /* No inputs: the backend refuses. */
    assert_true(inproc_repository_add(repository, "broken", "backend: \"null\"\n", &error));
    options.repository = repository;
    assert_false(inproc_server_start(&options, &second, &error));
    assert_non_null(strstr(error.text, "must name all inputs and outputs"));
    options.repository = "/nowhere";
    assert_false(inproc_server_start(&options, &second, &error));
    assert_non_null(strstr(error.text, "no model repository at '/nowhere'"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(null_answers_without_touching_a_byte),
        cmocka_unit_test(copying_writes_the_input_into_the_callers_output),
        cmocka_unit_test(an_input_may_come_in_many_pieces_at_odd_addresses),
        cmocka_unit_test(an_output_without_a_buffer_is_allocated),
        cmocka_unit_test(too_small_an_output_is_an_error_in_words),
        cmocka_unit_test(several_inputs_and_outputs_keep_types_and_shapes),
        cmocka_unit_test(requests_started_together_run_as_one_batch),
        cmocka_unit_test(a_request_under_way_cannot_be_started_again),
        cmocka_unit_test(wrong_requests_are_refused_with_the_servers_words),
        cmocka_unit_test(models_load_and_unload_on_demand),
        cmocka_unit_test(metrics_show_the_models),
        cmocka_unit_test(a_server_that_cannot_load_a_model_says_which_and_why),
    };

    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: inproc_test BACKENDS [PATTERN]\n");
        return 2;
    }
    backends = argv[1];
    cmocka_set_test_filter(argc == 3 ? argv[2] : NULL);
    if (inproc_missing()) {
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

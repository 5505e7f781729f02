/*
 * A request's whole way on Metal: the real server in this process, umo_kernel, the metal driver,
 * and the fake Metal (tests/fake) as the GPU. FAKE_METAL says which machine it is.
 *
 * What counts as in place is what the kernel was really given: it looks through the client's own
 * pointers while it runs, and must see there what it reads and what it writes.
 */
#include "triton_inproc.h"

#include "fake_metal.h"
#include "os/pages_test.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define BYTES ((size_t)64 << 10)
#define WAIT_MS 10000u

static const char *backends;
static const char *example; /* the folder of image_prep */
static uint64_t many;       /* requests of the test that looks for growth */
static char repository[INPROC_PATH];
static inproc_server *server;

/* --- the kernel, which is its own witness ------------------------------------------------------
 */

typedef struct seen {
    const unsigned char *client_in;
    unsigned char *client_out;
    bool input_in_place;
    bool output_in_place;
} seen;
static seen witness;

/* to[i] = from[i] + 1 */
static void add_one(void *const *args, const size_t global[3])
{
    unsigned char *from = args[0];
    unsigned char *to = args[1];
    witness.input_in_place = false;
    witness.output_in_place = false;
    if (witness.client_in != NULL) {
        /* What this pointer reads changes with what the client's shows. */
        const unsigned char was = from[0];
        from[0] = (unsigned char)(was ^ 0x5a);
        witness.input_in_place = witness.client_in[0] == (unsigned char)(was ^ 0x5a);
        from[0] = was;
    }
    for (size_t i = 0; i < global[0]; i++) {
        to[i] = (unsigned char)(from[i] + 1);
    }
    if (witness.client_out != NULL) {
        to[0] = (unsigned char)~to[0];
        witness.output_in_place = witness.client_out[0] == to[0];
        to[0] = (unsigned char)~to[0];
    }
}

static const char program[] = "#include <metal_stdlib>\n"
                              "using namespace metal;\n"
                              "kernel void add_one(device const uchar *from [[buffer(0)]],\n"
                              "                    device uchar *to [[buffer(1)]],\n"
                              "                    uint i [[thread_position_in_grid]])\n"
                              "{\n"
                              "    to[i] = from[i] + 1;\n"
                              "}\n";

static const char config_text[] =
    "backend: \"umo_kernel\"\n"
    "max_batch_size: 0\n"
    "input [ { name: \"IN\" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n"
    "output [ { name: \"OUT\" data_type: TYPE_UINT8 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    "parameters { key: \"unified_memory\" value { string_value: "
    "'{\"device\": \"metal:0\", \"zero_copy_threshold\": 0}' } }\n"
    "parameters { key: \"kernel\" value { string_value: '{\"function\": \"add_one\", "
    "\"arguments\": [ {\"input\": \"IN\"}, {\"output\": \"OUT\"} ], "
    "\"global_size\": [\"IN[0]\"], \"outputs\": {\"OUT\": [\"IN[0]\"]}}' } }\n";

/* --- set-up ------------------------------------------------------------------------------------
 */

static void file_write(const char *model, const char *name, const char *text, size_t size_bytes)
{
    char path[2 * INPROC_PATH];
    (void)snprintf(path, sizeof path, "%s/%s/1/%s", repository, model, name);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

static char *file_read(const char *name)
{
    char path[2 * INPROC_PATH];
    (void)snprintf(path, sizeof path, "%s/%s", example, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    (void)fclose(file);
    return text;
}

static int group_setup(void **state)
{
    (void)state;
    const char *models[] = {NULL};
    const inproc_options options = {.repository = repository,
                                    .backends = backends,
                                    .models = models,
                                    .metrics = true,
                                    .log_level = -1};
    static const fake_metal_binding bindings[] = {
        {"from", FAKE_METAL_BUFFER, 0, false, false, 1, 1},
        {"to", FAKE_METAL_BUFFER, 1, true, false, 1, 1},
    };
    const fake_metal_kernel kernel = {
        .name = "add_one", .run = add_one, .bindings = bindings, .binding_count = 2};
    inproc_error error;
    fake_metal_kernel_register(&kernel);
    if (!inproc_repository_create(repository, &error) ||
        !inproc_repository_add(repository, "add_one", config_text, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    file_write("add_one", "model.metal", program, strlen(program));
    /* The example as it stands: without a device in its configuration, Metal is taken. */
    char *config = file_read("config.pbtxt");
    char *text = file_read("1/model.metal");
    if (!inproc_repository_add(repository, "image_prep", config, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    file_write("image_prep", "model.metal", text, strlen(text));
    free(config);
    free(text);
    if (!inproc_server_start(&options, &server, &error)) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    (void)inproc_server_stop(server, NULL);
    inproc_repository_remove(repository);
    return 0;
}

static void model_load(const char *model)
{
    inproc_error error;
    if (!inproc_model_load(server, model, NULL, &error)) {
        fail_msg("%s", error.text);
    }
}

static void model_unload(const char *model)
{
    inproc_error error;
    if (!inproc_model_unload(server, model, WAIT_MS, &error)) {
        fail_msg("%s", error.text);
    }
}

/* The last handlers may still run when a request is answered. */
static void settle(uint64_t objects)
{
    for (int i = 0; i < 1000 && fake_metal_live_total() > objects; i++) {
        const struct timespec moment = {.tv_nsec = 1000000};
        (void)nanosleep(&moment, NULL);
    }
}

/* No object of Metal's is left. */
static void expect_nothing_alive(void)
{
    char text[2048];
    settle(0);
    fake_metal_live_print(text, sizeof text);
    if (fake_metal_live_total() != 0) {
        fail_msg("alive:\n%s", text);
    }
}

static int add_one_loaded(void **state)
{
    (void)state;
    model_load("add_one");
    return 0;
}

static int add_one_unloaded(void **state)
{
    (void)state;
    model_unload("add_one");
    assert_int_equal(fake_metal_violations(), 0);
    expect_nothing_alive();
    return 0;
}

/* --- requests ----------------------------------------------------------------------------------
 */

typedef struct client {
    unsigned char *in;
    unsigned char *out;
    size_t size_bytes;
    inproc_request *request;
} client;

static void client_fill(client *c, unsigned seed)
{
    for (size_t i = 0; i < c->size_bytes; i++) {
        c->in[i] = (unsigned char)(i * 31 + i / 251 + seed);
    }
    memset(c->out, 0xee, c->size_bytes);
}

/* Input and output in memory of their own: shared, as a client's region is, or private. */
static void client_open(client *c, bool shared, size_t size_bytes)
{
    const int64_t shape[1] = {(int64_t)size_bytes};
    const int flags = MAP_ANONYMOUS | (shared ? MAP_SHARED : MAP_PRIVATE);
    inproc_error error;
    *c = (client){.size_bytes = size_bytes};
    c->in = pages_test_map(size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    c->out = pages_test_map(size_bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    assert_true(c->in != MAP_FAILED && c->out != MAP_FAILED);
    client_fill(c, 0);
    const inproc_piece piece = {c->in, size_bytes};
    const inproc_input input = {.name = "IN",
                                .datatype = TRITONSERVER_TYPE_UINT8,
                                .shape = shape,
                                .dim_count = 1,
                                .pieces = &piece,
                                .piece_count = 1};
    const inproc_output output = {.name = "OUT", .buffer = c->out, .capacity_bytes = size_bytes};
    if (!inproc_request_create(server, "add_one", &input, 1, &output, 1, &c->request, &error)) {
        fail_msg("%s", error.text);
    }
}

static void client_close(client *c)
{
    witness.client_in = NULL;
    witness.client_out = NULL;
    inproc_request_destroy(c->request);
    (void)munmap(c->in, pages_test_round_up(c->size_bytes));
    (void)munmap(c->out, pages_test_round_up(c->size_bytes));
}

static bool client_right(const client *c)
{
    for (size_t i = 0; i < c->size_bytes; i++) {
        if (c->out[i] != (unsigned char)(c->in[i] + 1)) {
            return false;
        }
    }
    return true;
}

static void client_must_infer(client *c)
{
    inproc_error error;
    if (!inproc_request_infer(c->request, &error)) {
        fail_msg("%s", error.text);
    }
    assert_true(client_right(c));
}

/* The sum of all series of a metric whose labels hold a text. */
static double metric(const char *name, const char *label)
{
    char *text = inproc_metrics_text(server, NULL);
    double sum = 0;
    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        char *value = strrchr(line, ' ');
        if (strncmp(line, name, strlen(name)) == 0 && value != NULL &&
            strstr(line, label) != NULL) {
            sum += strtod(value, NULL);
        }
    }
    free(text);
    return sum;
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void a_request_is_computed_where_it_lies(void **state)
{
    (void)state;
    for (int shared = 0; shared < 2; shared++) {
        client c;
        client_open(&c, shared != 0, BYTES);
        const double performed = metric("umo_transfer_bytes_total", "performed");
        const double copied = metric("umo_copy_bytes_total", "");
        witness.client_in = c.in;
        witness.client_out = c.out;
        client_must_infer(&c);
        assert_true(witness.input_in_place);
        assert_true(witness.output_in_place);
        assert_true(metric("umo_transfer_bytes_total", "performed") == performed);
        assert_true(metric("umo_copy_bytes_total", "") == copied);
        client_close(&c);
    }
    assert_true(metric("umo_transfer_bytes_total", "eliminated") >= 4.0 * (double)BYTES);
}

static void what_was_imported_once_is_not_imported_again(void **state)
{
    (void)state;
    client c;
    client_open(&c, true, BYTES);
    client_must_infer(&c);
    fake_metal_mark();
    for (unsigned i = 1; i < 10; i++) {
        client_fill(&c, i);
        client_must_infer(&c);
    }
    const char *const none[] = {
        "newBufferWithBytesNoCopy:length:options:deallocator:", "newBufferWithLength:options:",
        "addAllocation:", "copyFromBuffer:sourceOffset:toBuffer:destinationOffset:size:"};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        if (fake_metal_messages_of(none[i]) != 0) {
            fail_msg("%s was sent", none[i]);
        }
    }
    assert_int_equal(fake_metal_messages_of("dispatchThreads:threadsPerThreadgroup:"), 9);
    client_close(&c);
}

/* Sizes around pages: the last page of a tensor is the client's to its end. */
static void any_size_and_place_gives_the_right_bytes(void **state)
{
    (void)state;
    const size_t page = pages_test_bytes();
    const size_t sizes[] = {1, 63, 64, 65, page - 1, page, page + 1, 3 * page + 17, 300001};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        for (int shared = 0; shared < 2; shared++) {
            client c;
            client_open(&c, shared != 0, sizes[i]);
            client_must_infer(&c);
            client_close(&c);
        }
    }
}

static void memory_that_metal_does_not_wrap_is_copied_and_counted(void **state)
{
    (void)state;
    client c;
    const double before = metric("umo_copy_bytes_total", "");
    client_open(&c, true, BYTES);
    fake_metal_set_modes(FAKE_METAL_NO_COPY_NIL);
    witness.client_in = c.in;
    witness.client_out = c.out;
    client_must_infer(&c);
    assert_false(witness.input_in_place);
    assert_false(witness.output_in_place);
    fake_metal_set_modes(0);
    assert_true(metric("umo_copy_bytes_total", "") >= before + 2.0 * (double)BYTES);
    assert_true(metric("umo_copy_bytes_total", "device_refused") > 0);
    client_close(&c);
}

static void a_gpu_that_is_out_of_memory_makes_an_answer_to_try_again(void **state)
{
    (void)state;
    client c;
    inproc_error error;
    client_open(&c, true, BYTES);
    client_must_infer(&c);
    static const struct {
        int64_t metal;
        TRITONSERVER_Error_Code server;
    } codes[] = {
        {8, TRITONSERVER_ERROR_UNAVAILABLE}, /* out of memory */
        {2, TRITONSERVER_ERROR_INTERNAL},    /* took too long */
        {3, TRITONSERVER_ERROR_INTERNAL},    /* page fault */
    };
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        fake_metal_fail_code(codes[i].metal);
        fake_metal_fail("commit", 1);
        assert_false(inproc_request_infer(c.request, &error));
        assert_int_equal(error.code, codes[i].server);
        client_must_infer(&c);
    }
    client_close(&c);
}

/* One request whose nth fallible call fails, on memory that was never seen before. True when there
 * was such a call. */
static bool request_with_fault(uint32_t nth, bool shared)
{
    client c;
    inproc_error error;
    client_open(&c, shared, BYTES);
    fake_metal_mark();
    fake_metal_fail_nth(nth);
    const bool answered = inproc_request_infer(c.request, &error);
    fake_metal_fail_nth(0);
    const bool hit = fake_metal_fallible_count() >= nth;
    if (answered) {
        if (!client_right(&c)) {
            fail_msg("wrong bytes when %s failed", fake_metal_failed());
        }
    } else if (!hit || error.text[0] == '\0') {
        fail_msg("'%s' when '%s' failed", error.text, fake_metal_failed());
    }
    if (hit) {
        client_fill(&c, nth);
        client_must_infer(&c); /* the next one is as if nothing had been */
    }
    client_close(&c);
    return hit;
}

static void every_call_of_a_request_fails_once_and_the_next_request_succeeds(void **state)
{
    (void)state;
    uint64_t total = 0;
    for (int shared = 0; shared < 2; shared++) {
        uint32_t nth = 1;
        while (request_with_fault(nth, shared != 0)) {
            nth++;
        }
        assert_true(nth > 3);
        total += nth - 1;
    }
    print_message("%llu calls of a request failed, one each\n", (unsigned long long)total);
}

/* A model's whole life: load, one request, unload. */
static bool life_with_fault(uint32_t nth)
{
    client c;
    inproc_error error;
    fake_metal_mark();
    fake_metal_fail_nth(nth);
    const bool loaded = inproc_model_load(server, "add_one", NULL, &error);
    if (!loaded && (fake_metal_fallible_count() < nth || error.text[0] == '\0')) {
        fail_msg("load: '%s' when '%s' failed", error.text, fake_metal_failed());
    }
    if (loaded) {
        client_open(&c, true, BYTES);
        if (inproc_request_infer(c.request, &error)) {
            assert_true(client_right(&c));
        } else if (fake_metal_fallible_count() < nth) {
            fail_msg("%s", error.text);
        }
        inproc_request_destroy(c.request);
        model_unload("add_one");
        (void)munmap(c.in, BYTES);
        (void)munmap(c.out, BYTES);
    }
    fake_metal_fail_nth(0);
    const bool hit = fake_metal_fallible_count() >= nth;
    expect_nothing_alive();
    return hit;
}

static void every_call_of_a_models_life_fails_once_and_nothing_stays(void **state)
{
    (void)state;
    uint32_t nth = 1;
    while (life_with_fault(nth)) {
        nth++;
    }
    assert_true(nth > 10);
    print_message("%u calls of a model's life failed, one each\n", nth - 1);
    assert_int_equal(fake_metal_violations(), 0);
}

/* The fake becomes another machine; its devices are opened when a model is loaded. */
static fake_metal_options machine_is(void)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    return options;
}

static void machine_restore(void)
{
    model_unload("add_one");
    expect_nothing_alive();
    assert_int_equal(fake_metal_violations(), 0);
    fake_metal_reset(NULL);
}

static void without_a_device_the_model_says_so(void **state)
{
    (void)state;
    inproc_error error;
    fake_metal_options options = machine_is();
    options.devices = 0;
    fake_metal_reset(&options);
    assert_false(inproc_model_load(server, "add_one", NULL, &error));
    assert_non_null(strstr(error.text, "Metal has no device"));
    fake_metal_reset(NULL);
    expect_nothing_alive();
}

static void a_virtual_machine_is_served_without_residency(void **state)
{
    (void)state;
    client c;
    fake_metal_options options = machine_is();
    (void)snprintf(options.name, sizeof options.name, "Apple Paravirtual device");
    fake_metal_reset(&options);
    model_load("add_one");
    client_open(&c, true, BYTES);
    client_must_infer(&c);
    assert_int_equal(fake_metal_live("MTLResidencySet"), 0);
    client_close(&c);
    machine_restore();
}

static void a_tensor_longer_than_a_buffer_is_an_error_in_words(void **state)
{
    (void)state;
    client c;
    inproc_error error;
    fake_metal_options options = machine_is();
    options.buffer_max = BYTES;
    fake_metal_reset(&options);
    model_load("add_one");
    client_open(&c, true, 2 * BYTES);
    assert_false(inproc_request_infer(c.request, &error));
    assert_non_null(strstr(error.text, "takes at most 65536 in one buffer"));
    client_close(&c);
    client_open(&c, true, BYTES / 2);
    client_must_infer(&c);
    client_close(&c);
    machine_restore();
}

static void memory_that_may_not_be_written_is_copied_for_that_reason(void **state)
{
    (void)state;
    client c;
    client_open(&c, false, BYTES);
    assert_int_equal(mprotect(c.in, BYTES, PROT_READ), 0);
    const double before = metric("umo_copy_bytes_total", "read_only");
    client_must_infer(&c);
    assert_true(metric("umo_copy_bytes_total", "read_only") == before + (double)BYTES);
    assert_int_equal(mprotect(c.in, BYTES, PROT_READ | PROT_WRITE), 0);
    client_close(&c);
}

static long resident_pages(void)
{
    long size = 0;
    long resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%ld %ld", &size, &resident), 2);
    (void)fclose(file);
    return resident;
}

static void many_requests_do_not_grow_memory(void **state)
{
    (void)state;
    client c;
    client_open(&c, true, 4096);
    for (unsigned i = 0; i < 2000; i++) {
        client_must_infer(&c);
    }
    const uint64_t objects = fake_metal_live_total();
    const long pages = resident_pages();
    for (uint64_t i = 0; i < many; i++) {
        client_must_infer(&c);
    }
    settle(objects);
    /* An autoreleased object a request would be some hundred bytes each: 10 MB and more. */
    const long grown = (resident_pages() - pages) * sysconf(_SC_PAGESIZE);
    print_message("%llu requests: %ld bytes more resident, %lld objects more\n",
                  (unsigned long long)many, grown,
                  (long long)fake_metal_live_total() - (long long)objects);
    assert_true(fake_metal_live_total() <= objects);
#ifndef __SANITIZE_ADDRESS__
    assert_true(grown < (1 << 20));
#endif
    client_close(&c);
}

static void the_example_runs_as_it_stands(void **state)
{
    (void)state;
    enum {
        HEIGHT = 37,
        WIDTH = 53
    };
    const size_t in_bytes = (size_t)HEIGHT * WIDTH * 3;
    const size_t out_bytes = in_bytes * sizeof(float);
    const int64_t shape[3] = {HEIGHT, WIDTH, 3};
    static const double mean[3] = {0.485, 0.456, 0.406};
    static const double deviation[3] = {0.229, 0.224, 0.225};
    inproc_request *request = NULL;
    inproc_error error;
    model_load("image_prep");
    unsigned char *in =
        pages_test_map(in_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    float *out =
        pages_test_map(out_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true((void *)in != MAP_FAILED && (void *)out != MAP_FAILED);
    for (size_t i = 0; i < in_bytes; i++) {
        in[i] = (unsigned char)(i * 7);
    }
    const inproc_piece piece = {in, in_bytes};
    const inproc_input input = {.name = "IMAGE",
                                .datatype = TRITONSERVER_TYPE_UINT8,
                                .shape = shape,
                                .dim_count = 3,
                                .pieces = &piece,
                                .piece_count = 1};
    const inproc_output output = {.name = "TENSOR", .buffer = out, .capacity_bytes = out_bytes};
    if (!inproc_request_create(server, "image_prep", &input, 1, &output, 1, &request, &error) ||
        !inproc_request_infer(request, &error)) {
        fail_msg("%s", error.text);
    }
    for (size_t pixel = 0; pixel < (size_t)HEIGHT * WIDTH; pixel++) {
        for (size_t channel = 0; channel < 3; channel++) {
            const double expected =
                (in[pixel * 3 + channel] / 255.0 - mean[channel]) / deviation[channel];
            const double got = out[channel * HEIGHT * WIDTH + pixel];
            assert_true(got > expected - 1e-4 && got < expected + 1e-4);
        }
    }
    inproc_request_destroy(request);
    model_unload("image_prep");
    (void)munmap(in, pages_test_round_up(in_bytes));
    (void)munmap(out, pages_test_round_up(out_bytes));
}

int main(int argc, char **argv)
{
#define LOADED(name) cmocka_unit_test_setup_teardown(name, add_one_loaded, add_one_unloaded)
    const struct CMUnitTest tests[] = {
        LOADED(a_request_is_computed_where_it_lies),
        LOADED(what_was_imported_once_is_not_imported_again),
        LOADED(any_size_and_place_gives_the_right_bytes),
        LOADED(memory_that_metal_does_not_wrap_is_copied_and_counted),
        LOADED(memory_that_may_not_be_written_is_copied_for_that_reason),
        LOADED(a_gpu_that_is_out_of_memory_makes_an_answer_to_try_again),
        LOADED(every_call_of_a_request_fails_once_and_the_next_request_succeeds),
        LOADED(many_requests_do_not_grow_memory),
        cmocka_unit_test(every_call_of_a_models_life_fails_once_and_nothing_stays),
        cmocka_unit_test(without_a_device_the_model_says_so),
        cmocka_unit_test(a_virtual_machine_is_served_without_residency),
        cmocka_unit_test(a_tensor_longer_than_a_buffer_is_an_error_in_words),
        cmocka_unit_test(the_example_runs_as_it_stands),
    };
    if (argc != 4 && argc != 5) {
        (void)fprintf(stderr, "usage: metal_test BACKENDS EXAMPLE REQUESTS [PATTERN]\n");
        return 2;
    }
    backends = argv[1];
    example = argv[2];
    many = strtoull(argv[3], NULL, 10);
    cmocka_set_test_filter(argc == 5 ? argv[4] : NULL);
    if (inproc_missing()) {
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

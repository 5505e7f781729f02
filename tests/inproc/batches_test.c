/* Batches on the real server, in one process with it: requests that come in any order, whose
 * tensors lie in neighbouring slots, are neither gathered nor scattered. What the server says was
 * copied is read from its own /metrics. */
#include "triton_inproc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <cmocka.h>

#define SLOTS 8
#define ROUNDS 20
#define A_COUNT 512
#define B_COUNT 64

static const char *backends;
static char repository[INPROC_PATH];
static inproc_server *server;

/* A is of any length, so the place of X is known only when the engine asks; that of Y before. */
static const char config[] =
    "backend: \"umo_identity\"\n"
    "max_batch_size: 8\n"
    "input [ { name: \"A\" data_type: TYPE_FP32 dims: [ -1 ] },\n"
    "        { name: \"B\" data_type: TYPE_FP32 dims: [ 64 ] } ]\n"
    "output [ { name: \"X\" data_type: TYPE_FP32 dims: [ -1 ] },\n"
    "         { name: \"Y\" data_type: TYPE_FP32 dims: [ 64 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    "dynamic_batching { preferred_batch_size: [ 8 ] max_queue_delay_microseconds: 500000 }\n";

static int group_setup(void **state)
{
    const char *models[] = {"slots", NULL};
    inproc_options options = {.backends = backends,
                              .models = models,
                              .strict_readiness = true,
                              .metrics = true,
                              .log_level = -1};
    inproc_error error;

    (void)state;
    options.repository = repository;
    if (!inproc_repository_create(repository, &error) ||
        !inproc_repository_add(repository, "slots", config, &error) ||
        !inproc_server_start(&options, &server, &error)) {
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

static unsigned below(unsigned limit)
{
    static uint64_t chance = 5;

    chance = chance * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (unsigned)(chance >> 33) % limit;
}

static void shuffle(size_t *slots)
{
    for (size_t i = 0; i < SLOTS; i++) {
        size_t at = below((unsigned)i + 1);

        slots[i] = slots[at];
        slots[at] = i;
    }
}

/* Bytes that umo copied for the model up to now, for whatever reason. */
static double copied_bytes(void)
{
    double bytes = 0;
    inproc_error error;
    char *text = inproc_metrics_text(server, &error);

    assert_non_null(text);
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        if (strncmp(line, "umo_copy_bytes_total{", 21) == 0) {
            bytes += strtod(strrchr(line, ' '), NULL);
        }
    }
    free(text);
    return bytes;
}

static unsigned executions(void)
{
    inproc_error error;
    char *text = inproc_statistics_json(server, "slots", &error);
    const char *found = text != NULL ? strstr(text, "\"execution_count\":") : NULL;
    unsigned count = found != NULL ? (unsigned)strtoul(strchr(found, ':') + 1, NULL, 10) : 0;

    assert_non_null(found);
    free(text);
    return count;
}

/* Two inputs and two outputs of a client, each in a lane of SLOTS slots. */
typedef struct lanes {
    float *a;
    float *b;
    float *x;
    float *y;
} lanes;

static float *lane_map(size_t count)
{
    /* Whole pages, however long the library thinks they are. */
    const size_t page = 65536;
    size_t size = (SLOTS * count * sizeof(float) + page - 1) / page * page;
    char *room = mmap(NULL, size + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(room != MAP_FAILED);
    room += (page - (uintptr_t)room % page) % page;
    float *floats =
        mmap(room, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

    assert_true(floats == (float *)(void *)room);
    for (size_t i = 0; i < SLOTS * count; i++) {
        floats[i] = (float)below(1000000);
    }
    return floats;
}

/* Starts one request a slot of A in the order of `a`; the other tensors lie in slots of their own.
 */
static void batch_run(const lanes *l, const size_t *a, const size_t *b, const size_t *x,
                      const size_t *y)
{
    inproc_request *requests[SLOTS];
    inproc_error error;

    for (size_t i = 0; i < SLOTS; i++) {
        const int64_t shapes[2][2] = {{1, A_COUNT}, {1, B_COUNT}};
        const inproc_piece pieces[2] = {{l->a + a[i] * A_COUNT, A_COUNT * sizeof(float)},
                                        {l->b + b[i] * B_COUNT, B_COUNT * sizeof(float)}};
        const inproc_input inputs[2] = {
            {"A", TRITONSERVER_TYPE_FP32, shapes[0], 2, &pieces[0], 1, 0},
            {"B", TRITONSERVER_TYPE_FP32, shapes[1], 2, &pieces[1], 1, 0}};
        const inproc_output outputs[2] = {{"X", l->x + x[i] * A_COUNT, A_COUNT * sizeof(float)},
                                          {"Y", l->y + y[i] * B_COUNT, B_COUNT * sizeof(float)}};

        if (!inproc_request_create(server, "slots", inputs, 2, outputs, 2, &requests[i], &error)) {
            fail_msg("%s", error.text);
        }
    }
    for (size_t i = 0; i < SLOTS; i++) {
        assert_true(inproc_request_start(requests[i], &error));
    }
    for (size_t i = 0; i < SLOTS; i++) {
        if (!inproc_request_wait(requests[i], &error)) {
            fail_msg("%s", error.text);
        }
        assert_memory_equal(l->x + x[i] * A_COUNT, l->a + a[i] * A_COUNT, A_COUNT * sizeof(float));
        assert_memory_equal(l->y + y[i] * B_COUNT, l->b + b[i] * B_COUNT, B_COUNT * sizeof(float));
        inproc_request_destroy(requests[i]);
    }
}

static void batches_in_neighbouring_slots_are_not_copied_in_any_order(void **state)
{
    const lanes l = {lane_map(A_COUNT), lane_map(B_COUNT), lane_map(A_COUNT), lane_map(B_COUNT)};
    double before = copied_bytes();
    unsigned ran = executions();
    size_t order[SLOTS];

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        shuffle(order);
        memset(l.x, 0, SLOTS * A_COUNT * sizeof(float));
        memset(l.y, 0, SLOTS * B_COUNT * sizeof(float));
        batch_run(&l, order, order, order, order);
    }
    assert_int_equal(executions() - ran, ROUNDS);
    assert_true(copied_bytes() - before < 1);
}

/* The heavy input and its output agree on an order, the light ones on another. */
static void the_heavier_order_wins_and_the_rest_is_copied_once(void **state)
{
    const lanes l = {lane_map(A_COUNT), lane_map(B_COUNT), lane_map(A_COUNT), lane_map(B_COUNT)};
    const size_t light[SLOTS] = {7, 6, 5, 4, 3, 2, 1, 0};
    const size_t heavy[SLOTS] = {3, 1, 4, 0, 5, 7, 2, 6};
    double before = copied_bytes();

    (void)state;
    batch_run(&l, heavy, light, heavy, light);
    assert_int_equal((uint64_t)(copied_bytes() - before), SLOTS * 2 * B_COUNT * sizeof(float));
}

/* Inputs without any order leave it to the outputs whose place is certain. */
static void outputs_alone_may_choose_the_order(void **state)
{
    const lanes l = {lane_map(A_COUNT), lane_map(B_COUNT), lane_map(A_COUNT), lane_map(B_COUNT)};
    const lanes other = {lane_map(2 * A_COUNT), lane_map(2 * B_COUNT), l.x, l.y};
    /* Half of the inputs lie elsewhere: slots 0, 2, 4... of a lane twice as long. */
    const size_t apart[SLOTS] = {0, 2, 4, 6, 8, 10, 12, 14};
    const size_t order[SLOTS] = {6, 0, 3, 7, 1, 2, 5, 4};
    double before = copied_bytes();

    (void)state;
    batch_run(&other, apart, apart, order, order);
    /* Both inputs are gathered; X follows Y. */
    assert_int_equal((uint64_t)(copied_bytes() - before),
                     SLOTS * (A_COUNT + B_COUNT) * sizeof(float));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_in_neighbouring_slots_are_not_copied_in_any_order),
        cmocka_unit_test(the_heavier_order_wins_and_the_rest_is_copied_once),
        cmocka_unit_test(outputs_alone_may_choose_the_order),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: batches_test BACKENDS\n");
        return 2;
    }
    backends = argv[1];
    if (inproc_missing()) {
        return 77;
    }
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

/* Host policies of the real server: which it refuses by itself, what it tells the kit, and where
 * the memory of an instance is that has one. On a machine of one node there is one place for it;
 * tests/numa runs the same program on two. */
#include "triton_inproc.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT ((size_t)1 << 18)
#define SIZE_BYTES (COUNT * sizeof(float))

static const char *backends;
static char repository[INPROC_PATH];
static char last_node[16]; /* that has memory */
static inproc_server *server;

/* Models are called as their policies. */
static const char *const models[] = {"far", "cores", "missing", "wrapped", "word", "tail", "range"};

static const char config[] =
    "backend: \"umo_identity\"\n"
    "max_batch_size: 2\n"
    "input [ { name: \"A\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "output [ { name: \"X\" data_type: TYPE_FP32 dims: [ -1 ] } ]\n"
    "instance_group [ { kind: KIND_CPU count: 1 host_policy: \"%s\" } ]\n"
    "dynamic_batching { preferred_batch_size: [ 2 ] max_queue_delay_microseconds: 500000 }\n";

/* The last number of "0-1" or "0,2"; "0" where the system does not tell. */
static void find_last_node(void)
{
    char line[256] = "0";
    FILE *file = fopen("/sys/devices/system/node/has_memory", "r");

    if (file != NULL) {
        if (fgets(line, sizeof(line), file) == NULL) {
            snprintf(line, sizeof(line), "0");
        }
        fclose(file);
    }
    line[strcspn(line, "\n")] = '\0';
    char *comma = strrchr(line, ',');
    char *last = comma != NULL ? comma + 1 : line;
    char *dash = strrchr(last, '-');
    snprintf(last_node, sizeof(last_node), "%.15s", dash != NULL ? dash + 1 : last);
}

static int group_setup(void **state)
{
    const char *none[] = {NULL};
    const inproc_setting policies[] = {
        {"far", "numa-node", last_node}, {"cores", "cpu-cores", "0-0"},
        {"missing", "numa-node", "61"},  {"wrapped", "numa-node", "64"},
        {"word", "numa-node", "first"},  {"tail", "numa-node", "0x"},
        {"range", "cpu-cores", "0"},
    };
    inproc_options options = {.backends = backends,
                              .models = none,
                              .policies = policies,
                              .policy_count = sizeof(policies) / sizeof(policies[0]),
                              .metrics = true,
                              .log_level = -1};
    inproc_error error;

    (void)state;
    options.repository = repository;
    if (!inproc_repository_create(repository, &error)) {
        fprintf(stderr, "%s\n", error.text);
        return -1;
    }
    for (size_t i = 0; i < sizeof(models) / sizeof(models[0]); i++) {
        char text[sizeof(config) + 32];

        snprintf(text, sizeof(text), config, models[i]);
        if (!inproc_repository_add(repository, models[i], text, &error)) {
            fprintf(stderr, "%s\n", error.text);
            return -1;
        }
    }
    if (!inproc_server_start(&options, &server, &error)) {
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

/* Two requests whose inputs are apart, so that the batch is gathered into scratch memory. */
static void batch_run(const char *model)
{
    inproc_request *requests[2];
    inproc_error error;
    float *from = calloc(3 * COUNT, sizeof(float));
    float *to = calloc(2 * COUNT, sizeof(float));

    assert_non_null(from);
    assert_non_null(to);
    for (size_t i = 0; i < 3 * COUNT; i++) {
        from[i] = (float)i;
    }
    for (size_t r = 0; r < 2; r++) {
        const int64_t shape[2] = {1, (int64_t)COUNT};
        const inproc_piece piece = {from + 2 * r * COUNT, SIZE_BYTES};
        const inproc_input input = {"A", TRITONSERVER_TYPE_FP32, shape, 2, &piece, 1, 0};
        const inproc_output output = {"X", to + r * COUNT, SIZE_BYTES};

        if (!inproc_request_create(server, model, &input, 1, &output, 1, &requests[r], &error)) {
            fail_msg("%s", error.text);
        }
    }
    for (size_t r = 0; r < 2; r++) {
        assert_true(inproc_request_start(requests[r], &error));
    }
    for (size_t r = 0; r < 2; r++) {
        if (!inproc_request_wait(requests[r], &error)) {
            fail_msg("%s", error.text);
        }
        assert_memory_equal(to + r * COUNT, from + 2 * r * COUNT, SIZE_BYTES);
        inproc_request_destroy(requests[r]);
    }
    free(from);
    free(to);
}

/* Pages of this process in memory that prefers the node: on it, and on others. */
static void pages_count(const char *node, unsigned long *there, unsigned long *elsewhere)
{
    char line[4096];
    char prefers[32];
    FILE *file = fopen("/proc/self/numa_maps", "r");

    *there = 0;
    *elsewhere = 0;
    assert_non_null(file);
    snprintf(prefers, sizeof(prefers), ":%s", node);
    while (fgets(line, sizeof(line), file) != NULL) {
        const char *policy = strstr(line, " prefer");
        const char *end = policy != NULL ? strchr(policy, ':') : NULL;
        size_t length = end != NULL ? strcspn(end, " \n") : 0;

        if (end == NULL || strlen(prefers) != length || strncmp(end, prefers, length) != 0) {
            continue;
        }
        for (char *at = strstr(line, " N"); at != NULL; at = strstr(at + 1, " N")) {
            char *equals = NULL;
            unsigned long number = strtoul(at + 2, &equals, 10);

            if (equals != at + 2 && *equals == '=') {
                unsigned long pages = strtoul(equals + 1, NULL, 10);
                *(number == strtoul(node, NULL, 10) ? there : elsewhere) += pages;
            }
        }
    }
    fclose(file);
}

static void memory_is_on_the_node_of_the_policy(void **state)
{
    unsigned long there;
    unsigned long elsewhere;
    inproc_error error;

    (void)state;
    if (!inproc_model_load(server, "far", NULL, &error)) {
        fail_msg("%s", error.text);
    }
    batch_run("far");
    pages_count(last_node, &there, &elsewhere);
    printf("node %s: %lu pages, %lu elsewhere\n", last_node, there, elsewhere);
    assert_int_equal(elsewhere, 0);
    if (strcmp(last_node, "0") == 0) {
        assert_int_equal(there, 0); /* of one node nobody is told anything */
    } else {
        assert_true(there * 4096 >= 2 * SIZE_BYTES);
    }
    if (!inproc_model_unload(server, "far", 10000, &error)) {
        fail_msg("%s", error.text);
    }
}

static void a_policy_of_processors_alone_names_no_node(void **state)
{
    inproc_error error;

    (void)state;
    if (!inproc_model_load(server, "cores", NULL, &error)) {
        fail_msg("%s", error.text);
    }
    batch_run("cores");
    if (!inproc_model_unload(server, "cores", 10000, &error)) {
        fail_msg("%s", error.text);
    }
}

/* The server's own words, and ours where it misreads a policy and goes on. */
static void a_policy_that_cannot_be_is_refused(void **state)
{
    static const char *const rows[][2] = {
        {"missing", "Unable to set NUMA memory policy: Invalid argument"},
        {"word", "Parsing 'numa-node' value: Can't parse 'first' to integer"},
        {"range", "host policy setting 'cpu-cores' format is"},
        {"wrapped", "host policy 'wrapped': numa-node=64 is no node of this machine"},
        {"tail", "host policy 'tail': numa-node=0x is no node's number"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        inproc_error error;

        if (inproc_model_load(server, rows[i][0], NULL, &error)) {
            fail_msg("'%s' was loaded", rows[i][0]);
        }
        if (strstr(error.text, rows[i][1]) == NULL) {
            fail_msg("%s: '%s', without '%s'", rows[i][0], error.text, rows[i][1]);
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_on_the_node_of_the_policy),
        cmocka_unit_test(a_policy_of_processors_alone_names_no_node),
        cmocka_unit_test(a_policy_that_cannot_be_is_refused),
    };

    if (argc != 2) {
        fprintf(stderr, "usage: host_policy_test BACKENDS\n");
        return 2;
    }
    backends = argv[1];
    if (inproc_missing()) {
        return 77;
    }
    find_last_node();
    return cmocka_run_group_tests(tests, group_setup, group_teardown);
}

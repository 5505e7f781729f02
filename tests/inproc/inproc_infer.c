/* inproc_infer: sends requests to a model in an in-process server and prints one JSON line.
 *
 * Tests use it to look at one backend without a network, and the instruction witness runs it under
 * callgrind: only the measured requests are counted, on all threads, neither start-up nor warm-up.
 * Every byte of every tensor lies in memory that this program chose, private or shared. */
#include "triton_inproc.h"

#include "os/pages_test.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#ifdef INPROC_HAVE_CALLGRIND
#include <valgrind/callgrind.h>
#else
#define RUNNING_ON_VALGRIND 0
#define CALLGRIND_START_INSTRUMENTATION (void)0
#define CALLGRIND_STOP_INSTRUMENTATION (void)0
#define CALLGRIND_ZERO_STATS (void)0
#define CALLGRIND_DUMP_STATS_AT(name) (void)0
#endif

#define MAX_TENSORS 32
#define MAX_SETTINGS 32

typedef enum fill_kind {
    FILL_RAMP,
    FILL_RANDOM,
    FILL_VALUE
} fill_kind;

typedef struct tensor {
    char *name;
    TRITONSERVER_DataType datatype;
    int64_t shape[INPROC_MAX_DIMS];
    size_t dim_count;
    fill_kind fill;
    double value;
    size_t size_bytes;
    /* Lane of `parallel` neighbouring slots of size_bytes each. */
    uint8_t *lane;
} tensor;

typedef struct arguments {
    inproc_options server;
    const char *model;
    tensor inputs[MAX_TENSORS];
    size_t input_count;
    tensor outputs[MAX_TENSORS];
    size_t output_count;
    inproc_setting settings[MAX_SETTINGS];
    const char *parameters[MAX_SETTINGS];
    size_t parameter_count;
    size_t requests;
    size_t warmup;
    size_t parallel;
    size_t pieces;
    size_t offset_bytes;
    bool shm;
    bool reverse;
    bool metrics;
    bool step;
    const char *dump;
} arguments;

static const char usage[] =
    "usage: inproc_infer --repo DIR --backends DIR --model NAME\n"
    "    --input NAME:DTYPE:1,2,3[:FILL]   repeat; FILL is ramp (default), random or a number\n"
    "    --output NAME:BYTES               repeat; the buffer's size for one request\n"
    "    [--lib LIBTRITONSERVER]           default: $UMO_TRITON_LIBRARY, else .venv in $UMO_ROOT\n"
    "    [--requests N] [--warmup W]       measured and unmeasured rounds (1, 0)\n"
    "    [--parallel P]                    requests started before the first is waited for (1)\n"
    "    [--reverse]                       start the P requests in descending order of address\n"
    "    [--pieces K]                      pieces an input is handed over in (1)\n"
    "    [--offset BYTES]                  where every tensor's lane starts in its first page (0)\n"
    "    [--shm]                           tensors lie in one shared, already unlinked segment\n"
    "    [--param KEY=VALUE]               a string parameter of every request; repeat\n"
    "    [--config BACKEND,KEY=VALUE]      a backend setting; repeat\n"
    "    [--dump FILE]                     the outputs of the last round, one after the other\n"
    "    [--step]                          say \"ready\" and wait for a line before each measured "
    "round\n"
    "    [--metrics]                       print the server's metrics after the JSON line\n"
    "    [--log LEVEL]                     -1 quiet, 0 errors (default), 1 warnings, 2 all\n";

__attribute__((format(printf, 1, 2), noreturn)) static void die(const char *format, ...)
{
    va_list args;

    va_start(args, format);
    fputs("inproc_infer: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static size_t number(const char *text, const char *what)
{
    char *end = NULL;
    unsigned long long value;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value > SIZE_MAX) {
        die("%s: '%s' is no number", what, text);
    }
    return (size_t)value;
}

/* ---- Arguments ---- */

static TRITONSERVER_DataType datatype_parse(const char *name)
{
    static const struct {
        const char *name;
        TRITONSERVER_DataType datatype;
    } names[] = {
        {"BOOL", TRITONSERVER_TYPE_BOOL},     {"UINT8", TRITONSERVER_TYPE_UINT8},
        {"UINT16", TRITONSERVER_TYPE_UINT16}, {"UINT32", TRITONSERVER_TYPE_UINT32},
        {"UINT64", TRITONSERVER_TYPE_UINT64}, {"INT8", TRITONSERVER_TYPE_INT8},
        {"INT16", TRITONSERVER_TYPE_INT16},   {"INT32", TRITONSERVER_TYPE_INT32},
        {"INT64", TRITONSERVER_TYPE_INT64},   {"FP16", TRITONSERVER_TYPE_FP16},
        {"FP32", TRITONSERVER_TYPE_FP32},     {"FP64", TRITONSERVER_TYPE_FP64},
        {"BF16", TRITONSERVER_TYPE_BF16},     {"BYTES", TRITONSERVER_TYPE_BYTES},
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(names[i].name, name) == 0) {
            return names[i].datatype;
        }
    }
    die("'%s' is no data type", name);
}

static size_t element_bytes(TRITONSERVER_DataType datatype)
{
    switch (datatype) {
    case TRITONSERVER_TYPE_UINT16:
    case TRITONSERVER_TYPE_INT16:
    case TRITONSERVER_TYPE_FP16:
    case TRITONSERVER_TYPE_BF16:
        return 2;
    case TRITONSERVER_TYPE_UINT32:
    case TRITONSERVER_TYPE_INT32:
    case TRITONSERVER_TYPE_FP32:
        return 4;
    case TRITONSERVER_TYPE_UINT64:
    case TRITONSERVER_TYPE_INT64:
    case TRITONSERVER_TYPE_FP64:
        return 8;
    case TRITONSERVER_TYPE_BYTES:
        /* Every element is five bytes here: a length of one and one character. */
        return 5;
    case TRITONSERVER_TYPE_INVALID:
    case TRITONSERVER_TYPE_BOOL:
    case TRITONSERVER_TYPE_UINT8:
    case TRITONSERVER_TYPE_INT8:
        return 1;
    }
    return 1;
}

/* Cuts the text at the next separator; NULL when there was nothing left. */
static char *cut(char **rest, char separator)
{
    char *part = *rest;
    char *end;

    if (part == NULL) {
        return NULL;
    }
    end = strchr(part, separator);
    if (end != NULL) {
        *end = '\0';
    }
    *rest = end != NULL ? end + 1 : NULL;
    return part;
}

static void input_parse(arguments *args, char *text)
{
    tensor *input = &args->inputs[args->input_count];
    char *rest = text;
    char *datatype;
    char *dims;

    if (args->input_count == MAX_TENSORS) {
        die("more than %d inputs", MAX_TENSORS);
    }
    input->name = cut(&rest, ':');
    datatype = cut(&rest, ':');
    dims = cut(&rest, ':');
    if (datatype == NULL || dims == NULL) {
        die("--input wants NAME:DTYPE:1,2,3[:FILL]");
    }
    input->datatype = datatype_parse(datatype);
    input->size_bytes = element_bytes(input->datatype);
    /* An empty list is a scalar. */
    for (char *dim = dims[0] != '\0' ? cut(&dims, ',') : NULL; dim != NULL; dim = cut(&dims, ',')) {
        size_t value = number(dim, "--input");

        if (input->dim_count == INPROC_MAX_DIMS || value > INT64_MAX ||
            __builtin_mul_overflow(input->size_bytes, value, &input->size_bytes)) {
            die("--input %s: the shape is too big", input->name);
        }
        input->shape[input->dim_count++] = (int64_t)value;
    }
    if (rest == NULL || strcmp(rest, "ramp") == 0) {
        input->fill = FILL_RAMP;
    } else if (strcmp(rest, "random") == 0) {
        input->fill = FILL_RANDOM;
    } else {
        char *end = NULL;

        input->fill = FILL_VALUE;
        input->value = strtod(rest, &end);
        if (end == rest || *end != '\0') {
            die("--input %s: '%s' is no fill", input->name, rest);
        }
    }
    args->input_count++;
}

static void output_parse(arguments *args, char *text)
{
    tensor *output = &args->outputs[args->output_count];
    char *rest = text;

    if (args->output_count == MAX_TENSORS) {
        die("more than %d outputs", MAX_TENSORS);
    }
    output->name = cut(&rest, ':');
    if (rest == NULL) {
        die("--output wants NAME:BYTES");
    }
    output->size_bytes = number(rest, "--output");
    args->output_count++;
}

static void setting_parse(arguments *args, char *text)
{
    inproc_setting *setting = &args->settings[args->server.setting_count];
    char *rest = text;

    if (args->server.setting_count == MAX_SETTINGS) {
        die("more than %d settings", MAX_SETTINGS);
    }
    setting->backend = cut(&rest, ',');
    setting->key = cut(&rest, '=');
    setting->value = rest;
    if (rest == NULL) {
        die("--config wants BACKEND,KEY=VALUE");
    }
    args->server.setting_count++;
}

static void arguments_parse(int argc, char **argv, arguments *args)
{
    static const struct option options[] = {
        {"lib", required_argument, NULL, 'l'},
        {"repo", required_argument, NULL, 'r'},
        {"backends", required_argument, NULL, 'b'},
        {"model", required_argument, NULL, 'm'},
        {"input", required_argument, NULL, 'i'},
        {"output", required_argument, NULL, 'o'},
        {"requests", required_argument, NULL, 'n'},
        {"warmup", required_argument, NULL, 'w'},
        {"parallel", required_argument, NULL, 'p'},
        {"pieces", required_argument, NULL, 'k'},
        {"offset", required_argument, NULL, 'f'},
        {"config", required_argument, NULL, 'c'},
        {"param", required_argument, NULL, 'a'},
        {"dump", required_argument, NULL, 'd'},
        {"log", required_argument, NULL, 'v'},
        {"shm", no_argument, NULL, 's'},
        {"reverse", no_argument, NULL, 'e'},
        {"metrics", no_argument, NULL, 't'},
        {"step", no_argument, NULL, 'x'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int option;

    args->requests = 1;
    args->parallel = 1;
    args->pieces = 1;
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'l':
            args->server.library = optarg;
            break;
        case 'r':
            args->server.repository = optarg;
            break;
        case 'b':
            args->server.backends = optarg;
            break;
        case 'm':
            args->model = optarg;
            break;
        case 'i':
            input_parse(args, optarg);
            break;
        case 'o':
            output_parse(args, optarg);
            break;
        case 'n':
            args->requests = number(optarg, "--requests");
            break;
        case 'w':
            args->warmup = number(optarg, "--warmup");
            break;
        case 'p':
            args->parallel = number(optarg, "--parallel");
            break;
        case 'k':
            args->pieces = number(optarg, "--pieces");
            break;
        case 'f':
            args->offset_bytes = number(optarg, "--offset");
            break;
        case 'c':
            setting_parse(args, optarg);
            break;
        case 'a':
            if (args->parameter_count == MAX_SETTINGS || strchr(optarg, '=') == NULL) {
                die("--param wants KEY=VALUE, at most %d times", MAX_SETTINGS);
            }
            args->parameters[args->parameter_count++] = optarg;
            break;
        case 'd':
            args->dump = optarg;
            break;
        case 'v':
            args->server.log_level = (int)strtol(optarg, NULL, 10);
            break;
        case 's':
            args->shm = true;
            break;
        case 'e':
            args->reverse = true;
            break;
        case 't':
            args->metrics = true;
            break;
        case 'x':
            args->step = true;
            break;
        default:
            fputs(usage, option == 'h' ? stdout : stderr);
            exit(option == 'h' ? 0 : 2);
        }
    }
    if (optind != argc || args->model == NULL || args->server.repository == NULL ||
        args->server.backends == NULL || args->requests == 0 || args->parallel == 0 ||
        args->pieces == 0) {
        fputs(usage, stderr);
        exit(2);
    }
}

/* ---- Memory ---- */

static size_t page_round(size_t size_bytes)
{
    if (size_bytes > SIZE_MAX - pages_test_bytes()) {
        die("a tensor is too big");
    }
    return pages_test_round_up(size_bytes);
}

static size_t lane_bytes(const arguments *args, const tensor *one)
{
    size_t size_bytes;

    if (__builtin_mul_overflow(one->size_bytes, args->parallel, &size_bytes) ||
        __builtin_add_overflow(size_bytes, args->offset_bytes, &size_bytes)) {
        die("'%s' is too big", one->name);
    }
    return page_round(size_bytes);
}

static uint8_t *memory_map(const arguments *args, size_t size_bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS;
    int segment = -1;
    char name[64];
    void *base;

    if (args->shm) {
        snprintf(name, sizeof(name), "/umo_inproc_%ld", (long)getpid());
        segment = shm_open(name, O_CREAT | O_EXCL | O_RDWR, 0600);
        if (segment < 0) {
            die("cannot make a shared segment: %s", strerror(errno));
        }
        shm_unlink(name);
        if (ftruncate(segment, (off_t)size_bytes) != 0) {
            die("cannot size the shared segment: %s", strerror(errno));
        }
        flags = MAP_SHARED;
    }
    base = pages_test_map(size_bytes, PROT_READ | PROT_WRITE, flags, segment, 0);
    if (base == MAP_FAILED) {
        die("cannot map %zu bytes: %s", size_bytes, strerror(errno));
    }
    if (segment >= 0) {
        close(segment);
    }
    return base;
}

/* One mapping; each tensor's lane starts `offset` bytes into a page of its own. */
static void lanes_place(arguments *args)
{
    size_t total = 0;
    uint8_t *base;

    for (size_t i = 0; i < args->input_count; i++) {
        total += lane_bytes(args, &args->inputs[i]);
    }
    for (size_t i = 0; i < args->output_count; i++) {
        total += lane_bytes(args, &args->outputs[i]);
    }
    base = memory_map(args, total > 0 ? total : pages_test_bytes());
    for (size_t i = 0; i < args->input_count; i++) {
        args->inputs[i].lane = base + args->offset_bytes;
        base += lane_bytes(args, &args->inputs[i]);
    }
    for (size_t i = 0; i < args->output_count; i++) {
        args->outputs[i].lane = base + args->offset_bytes;
        base += lane_bytes(args, &args->outputs[i]);
    }
}

/* bfloat16 is the upper half of a float; half precision is reached for small whole numbers only. */
static uint16_t half_from(float value)
{
    uint32_t bits;
    uint32_t exponent;

    memcpy(&bits, &value, sizeof(bits));
    exponent = (bits >> 23) & 0xff;
    if (exponent < 113 || exponent > 142) {
        return (uint16_t)((bits >> 16) & 0x8000);
    }
    return (uint16_t)(((bits >> 16) & 0x8000) | ((exponent - 112) << 10) | ((bits >> 13) & 0x3ff));
}

static void element_put(uint8_t *to, TRITONSERVER_DataType datatype, double value)
{
    const int64_t whole = (int64_t)value;
    const uint64_t bits64 = (uint64_t)whole;
    const uint32_t bits32 = (uint32_t)bits64;
    const uint16_t bits16 = (uint16_t)bits64;
    const float single = (float)value;
    uint16_t half;
    uint32_t length = 1;

    switch (datatype) {
    case TRITONSERVER_TYPE_FP64:
        memcpy(to, &value, sizeof(value));
        return;
    case TRITONSERVER_TYPE_FP32:
        memcpy(to, &single, sizeof(single));
        return;
    case TRITONSERVER_TYPE_BF16:
        memcpy(to, (const uint8_t *)&single + 2, 2);
        return;
    case TRITONSERVER_TYPE_FP16:
        half = half_from(single);
        memcpy(to, &half, sizeof(half));
        return;
    case TRITONSERVER_TYPE_UINT64:
    case TRITONSERVER_TYPE_INT64:
        memcpy(to, &bits64, sizeof(bits64));
        return;
    case TRITONSERVER_TYPE_UINT32:
    case TRITONSERVER_TYPE_INT32:
        memcpy(to, &bits32, sizeof(bits32));
        return;
    case TRITONSERVER_TYPE_UINT16:
    case TRITONSERVER_TYPE_INT16:
        memcpy(to, &bits16, sizeof(bits16));
        return;
    case TRITONSERVER_TYPE_BOOL:
        to[0] = whole % 2 != 0;
        return;
    case TRITONSERVER_TYPE_BYTES:
        memcpy(to, &length, sizeof(length));
        to[4] = (uint8_t)('a' + bits64 % 26);
        return;
    case TRITONSERVER_TYPE_INVALID:
    case TRITONSERVER_TYPE_UINT8:
    case TRITONSERVER_TYPE_INT8:
        to[0] = (uint8_t)bits64;
        return;
    }
}

/* Slots differ, so that a request answered with a neighbour's data shows. Ramp values stay below
 * 127 and are exact in every type. */
static void lanes_fill(const arguments *args)
{
    uint64_t state = 0x9e3779b97f4a7c15u;

    for (size_t i = 0; i < args->input_count; i++) {
        const tensor *input = &args->inputs[i];
        size_t step = element_bytes(input->datatype);
        size_t count = input->size_bytes / step * args->parallel;
        size_t per_slot = input->size_bytes / step;

        for (size_t j = 0; j < count; j++) {
            double value = input->value;

            if (input->fill == FILL_RAMP) {
                value = (double)((j % per_slot + 7 * (j / per_slot)) % 127);
            } else if (input->fill == FILL_RANDOM) {
                state = state * 6364136223846793005u + 1442695040888963407u;
                value = (double)((state >> 33) % 127);
            }
            element_put(input->lane + j * step, input->datatype, value);
        }
    }
    for (size_t i = 0; i < args->output_count; i++) {
        memset(args->outputs[i].lane, 0xa5, args->outputs[i].size_bytes * args->parallel);
    }
}

/* ---- Requests ---- */

static inproc_request *slot_create(inproc_server *server, const arguments *args, size_t slot)
{
    inproc_input inputs[MAX_TENSORS];
    inproc_output outputs[MAX_TENSORS];
    inproc_piece *pieces = calloc(args->pieces * args->input_count + 1, sizeof(*pieces));
    inproc_request *request = NULL;
    inproc_error error;

    if (pieces == NULL) {
        die("out of memory");
    }
    for (size_t i = 0; i < args->input_count; i++) {
        const tensor *from = &args->inputs[i];
        inproc_piece *piece = pieces + i * args->pieces;
        size_t done = 0;

        for (size_t k = 0; k < args->pieces; k++) {
            /* Cut by bytes, not by elements: an element may straddle two pieces. */
            size_t longer = from->size_bytes % args->pieces;
            size_t end = from->size_bytes / args->pieces * (k + 1) + (k < longer ? k + 1 : longer);

            piece[k].base = from->lane + slot * from->size_bytes + done;
            piece[k].size_bytes = end - done;
            done = end;
        }
        inputs[i] = (inproc_input){.name = from->name,
                                   .datatype = from->datatype,
                                   .shape = from->shape,
                                   .dim_count = from->dim_count,
                                   .pieces = piece,
                                   .piece_count = args->pieces};
    }
    for (size_t i = 0; i < args->output_count; i++) {
        const tensor *from = &args->outputs[i];

        outputs[i] = (inproc_output){.name = from->name,
                                     .buffer = from->lane + slot * from->size_bytes,
                                     .capacity_bytes = from->size_bytes};
    }
    if (!inproc_request_create(server, args->model, inputs, args->input_count, outputs,
                               args->output_count, &request, &error)) {
        die("%s", error.text);
    }
    free(pieces);
    for (size_t i = 0; i < args->parameter_count; i++) {
        const char *equals = strchr(args->parameters[i], '=');
        char *key = strndup(args->parameters[i], (size_t)(equals - args->parameters[i]));
        TRITONSERVER_Error *failed =
            inproc_server_api(server)->TRITONSERVER_InferenceRequestSetStringParameter(
                inproc_request_handle(request), key, equals + 1);

        free(key);
        if (failed != NULL) {
            die("%s", inproc_server_api(server)->TRITONSERVER_ErrorMessage(failed));
        }
    }
    return request;
}

static void round_run(const arguments *args, inproc_request **slots, uint64_t *latencies)
{
    inproc_error error;

    for (size_t i = 0; i < args->parallel; i++) {
        if (!inproc_request_start(slots[args->reverse ? args->parallel - 1 - i : i], &error)) {
            die("%s", error.text);
        }
    }
    for (size_t i = 0; i < args->parallel; i++) {
        if (!inproc_request_wait(slots[i], &error)) {
            die("%s", error.text);
        }
        if (latencies != NULL) {
            latencies[i] = inproc_request_latency_ns(slots[i]);
        }
    }
}

/* Lets a witness look at the process between two rounds. read and write, since stdio would dirty
 * pages. */
static void step_wait(void)
{
    static const char ready[] = "ready\n";
    char byte = 0;

    if (write(STDOUT_FILENO, ready, sizeof(ready) - 1) != sizeof(ready) - 1) {
        die("nobody listens");
    }
    while (byte != '\n') {
        if (read(STDIN_FILENO, &byte, 1) != 1) {
            die("--step: the input has ended");
        }
    }
}

/* FNV-1a over every output as the server reports it, slot by slot. */
static uint64_t outputs_sum(const arguments *args, inproc_request **slots, uint64_t *output_bytes,
                            FILE *dump)
{
    uint64_t sum = 0xcbf29ce484222325u;

    *output_bytes = 0;
    for (size_t i = 0; i < args->parallel; i++) {
        for (size_t k = 0; k < inproc_request_result_count(slots[i]); k++) {
            const inproc_result *result = inproc_request_result(slots[i], k);
            const uint8_t *at = result->base;

            for (size_t b = 0; b < result->size_bytes; b++) {
                sum = (sum ^ at[b]) * 0x100000001b3u;
            }
            *output_bytes += result->size_bytes;
            if (dump != NULL && fwrite(at, 1, result->size_bytes, dump) != result->size_bytes) {
                die("cannot write the dump");
            }
        }
    }
    return sum;
}

static void shapes_print(inproc_request *request)
{
    for (size_t k = 0; k < inproc_request_result_count(request); k++) {
        const inproc_result *result = inproc_request_result(request, k);

        printf("%s{\"name\": \"%s\", \"shape\": [", k > 0 ? ", " : "", result->name);
        for (size_t d = 0; d < result->dim_count; d++) {
            printf("%s%" PRId64, d > 0 ? ", " : "", result->shape[d]);
        }
        printf("], \"bytes\": %zu}", result->size_bytes);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return left < right ? -1 : left > right;
}

static void report(const arguments *args, inproc_request **slots, uint64_t *latencies,
                   uint64_t wall_ns)
{
    FILE *dump = args->dump != NULL ? fopen(args->dump, "wb") : NULL;
    size_t count = args->requests * args->parallel;
    uint64_t output_bytes = 0;
    uint64_t input_bytes = 0;
    double mean = 0;
    uint64_t sum;

    if (args->dump != NULL && dump == NULL) {
        die("cannot open '%s': %s", args->dump, strerror(errno));
    }
    sum = outputs_sum(args, slots, &output_bytes, dump);
    if (dump != NULL && fclose(dump) != 0) {
        die("cannot write '%s': %s", args->dump, strerror(errno));
    }
    for (size_t i = 0; i < args->input_count; i++) {
        input_bytes += args->inputs[i].size_bytes;
    }
    for (size_t i = 0; i < count; i++) {
        mean += (double)latencies[i] / (double)count;
    }
    qsort(latencies, count, sizeof(*latencies), compare);
    printf("{\"model\": \"%s\", \"requests\": %zu, \"parallel\": %zu, \"pieces\": %zu, "
           "\"offset\": %zu, \"memory\": \"%s\", \"input_bytes\": %" PRIu64
           ", \"output_bytes\": %" PRIu64 ", ",
           args->model, count, args->parallel, args->pieces, args->offset_bytes,
           args->shm ? "shared" : "private", input_bytes, output_bytes / args->parallel);
    printf("\"ns\": {\"min\": %" PRIu64 ", \"p50\": %" PRIu64 ", \"p90\": %" PRIu64
           ", \"p99\": %" PRIu64 ", \"max\": %" PRIu64 ", \"mean\": %.0f}, ",
           latencies[0], latencies[count / 2], latencies[count * 9 / 10],
           latencies[count * 99 / 100], latencies[count - 1], mean);
    printf("\"wall_ns\": %" PRIu64 ", \"checksum\": \"%016" PRIx64 "\", \"callgrind\": %s, "
           "\"outputs\": [",
           wall_ns, sum, RUNNING_ON_VALGRIND ? "true" : "false");
    shapes_print(slots[0]);
    printf("]}\n");
}

int main(int argc, char **argv)
{
    static arguments args;
    inproc_server *server = NULL;
    inproc_request **slots;
    uint64_t *latencies;
    uint64_t wall_ns;
    inproc_error error;
    const char *only[2];
    char *text;

    arguments_parse(argc, argv, &args);
    only[0] = args.model;
    only[1] = NULL;
    args.server.models = only;
    args.server.settings = args.settings;
    args.server.metrics = args.metrics;
    args.server.strict_readiness = true;
    lanes_place(&args);
    lanes_fill(&args);
    slots = calloc(args.parallel, sizeof(*slots));
    latencies = calloc(args.requests, args.parallel * sizeof(*latencies));
    if (slots == NULL || latencies == NULL) {
        die("out of memory");
    }
    if (!inproc_server_start(&args.server, &server, &error)) {
        die("%s", error.text);
    }
    for (size_t i = 0; i < args.parallel; i++) {
        slots[i] = slot_create(server, &args, i);
    }
    for (size_t i = 0; i < args.warmup; i++) {
        round_run(&args, slots, NULL);
    }

    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
    wall_ns = now_ns();
    for (size_t i = 0; i < args.requests; i++) {
        if (args.step) {
            step_wait();
        }
        round_run(&args, slots, latencies + i * args.parallel);
    }
    wall_ns = now_ns() - wall_ns;
    CALLGRIND_DUMP_STATS_AT("measured");
    CALLGRIND_STOP_INSTRUMENTATION;

    report(&args, slots, latencies, wall_ns);
    if (args.metrics) {
        text = inproc_metrics_text(server, &error);
        fputs(text != NULL ? text : error.text, stdout);
        free(text);
    }
    for (size_t i = 0; i < args.parallel; i++) {
        inproc_request_destroy(slots[i]);
    }
    free(slots);
    free(latencies);
    if (!inproc_server_stop(server, &error)) {
        die("%s", error.text);
    }
    return 0;
}

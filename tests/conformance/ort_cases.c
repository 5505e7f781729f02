/*
 * Runs cases of a pack through the kit and umo_onnxruntime behind the fake server, one after the
 * other in one process, and writes what came back. A case that crashes or hangs ends the process,
 * but first says so; the caller goes on behind it.
 *
 *   ort_cases run PACK ANSWERS FOLDER FIRST INPUT
 *   ort_cases mutate PACK ANSWERS FOLDER FIRST INPUT MILLISECONDS [calm]
 *
 * `run` executes every case with its inputs in three places: ending at an inaccessible page, at odd
 * addresses, and in memory shared with a client. `mutate` takes each input of each case in turn,
 * has a thread change its bytes while the engine runs on them, and looks for answers with bytes
 * that are not the case's; with `calm` the same values are there before each run and do not change.
 * It begins with the case FIRST, and there with INPUT.
 */
#include "fake_books.h"
#include "fake_server.h"
#include "mutate.h"
#include "ort_api.h"
#include "pack.h"

#include <umo/triton.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>

enum {
    HANG_SECONDS = 20,
    CRASH_TEXT_BYTES = 256
};

typedef enum placing {
    PLACE_EDGE = 0, /* the last byte is the last of its page; the next page is inaccessible */
    PLACE_ODD,
    PLACE_CLIENT,
    PLACINGS
} placing;

static const char *const placing_names[PLACINGS] = {"edge", "odd", "client"};

/* What a crash needs to know. */
static struct {
    int answers;
    answer record; /* memory for the last words, reserved before */
    uint32_t index;
    const char *doing;
    const pack_case *at;
    const char *ends[PACK_TENSORS]; /* of the inputs */
} present;

static const char *folder;

TRITONSERVER_Error *__wrap_TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model,
                                                         TRITONBACKEND_ArtifactType *artifact_type,
                                                         const char **location);
TRITONSERVER_Error *__wrap_TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model,
                                                         TRITONBACKEND_ArtifactType *artifact_type,
                                                         const char **location)
{
    (void)model;
    *artifact_type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
    *location = folder;
    return NULL;
}

_Noreturn static void give_up(const char *why)
{
    (void)fprintf(stderr, "ort_cases: %s\n", why);
    _Exit(2);
}

/* The input behind whose last byte the address lies, within a page. */
static const char *overread(const char *address, size_t *behind_bytes)
{
    for (uint32_t i = 0; present.at != NULL && i < present.at->input_count; i++) {
        const char *end = present.ends[i];
        if (end != NULL && address >= end && (size_t)(address - end) < 4096) {
            *behind_bytes = (size_t)(address - end);
            return present.at->inputs[i].name;
        }
    }
    return NULL;
}

static void on_crash(int number, siginfo_t *info, void *context)
{
    (void)context;
    char text[CRASH_TEXT_BYTES];
    size_t behind_bytes = 0;
    const char *input =
        number == SIGSEGV || number == SIGBUS ? overread(info->si_addr, &behind_bytes) : NULL;
    if (input != NULL) {
        (void)snprintf(text, sizeof text, "%s: touched byte %zu behind input %s", present.doing,
                       behind_bytes, input);
    } else {
        (void)snprintf(text, sizeof text, "%s: signal %d", present.doing, number);
    }
    answer_start(&present.record, present.index, number == SIGALRM ? ANSWER_HUNG : ANSWER_CRASHED,
                 text);
    (void)answer_write(&present.record, present.answers);
    _exit(3);
}

static void watch_crashes(void)
{
    static char stack[64 << 10];
    const stack_t alternative = {.ss_sp = stack, .ss_size = sizeof stack};
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGALRM};
    struct sigaction action = {.sa_sigaction = on_crash, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    (void)sigaltstack(&alternative, NULL);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        (void)sigaction(numbers[i], &action, NULL);
    }
    answer_start(&present.record, 0, ANSWER_CRASHED, "");
    answer_bytes(&present.record, (char[2 * CRASH_TEXT_BYTES]){0}, 2 * CRASH_TEXT_BYTES);
}

static void write_model(const pack_case *at)
{
    char path[4096];
    (void)snprintf(path, sizeof path, "%s/3/model.onnx", folder);
    (void)unlink(path); /* model files are replaced, never written to */
    int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0 ||
        write(file, at->model.at, at->model.size_bytes) != (ssize_t)at->model.size_bytes) {
        give_up("a model cannot be written");
    }
    (void)close(file);
}

/* Memory for an input as the placing asks for; *data is where its bytes begin. */
static fake_region *place_input(const pack_tensor *input, placing where, char **data)
{
    size_t size_bytes = input->data.size_bytes;
    size_t after = where == PLACE_ODD ? 1 : 0;
    fake_region *region = fake_region_create(size_bytes + after, where == PLACE_CLIENT, false);
    const guarded *memory = &region->memory;
    *data = memory->pages + memory->pages_bytes - size_bytes - after;
    if (size_bytes > 0) {
        memcpy(*data, input->data.at, size_bytes);
    }
    return region;
}

static void put_output(answer *a, const struct TRITONBACKEND_Output *output)
{
    answer_number(a, output->dtype);
    answer_number(a, output->rank);
    for (uint32_t d = 0; d < output->rank; d++) {
        answer_number(a, (uint32_t)output->dims[d]);
    }
    answer_bytes(a, output->received, output->size_bytes);
}

/* False when the request failed; its words replace what was answered so far. */
static bool run_placed(TRITONBACKEND_ModelInstance *instance, const pack_case *at, placing where,
                       answer *a)
{
    TRITONBACKEND_Request *request = fake_request_create();
    fake_region *regions[PACK_TENSORS];
    present.doing = placing_names[where];
    for (uint32_t i = 0; i < at->input_count; i++) {
        const pack_tensor *input = &at->inputs[i];
        char *data;
        regions[i] = place_input(input, where, &data);
        fake_request_hold(request, regions[i]);
        present.ends[i] = data + input->data.size_bytes;
        TRITONBACKEND_Input *made =
            fake_input(request, input->name, input->dtype, input->rank, input->dims);
        fake_input_piece(made, data, input->data.size_bytes);
    }
    for (uint32_t o = 0; o < at->output_count; o++) {
        fake_want_output(request, at->outputs[o], NULL, 0);
    }
    (void)fake_execute(instance, &request, 1);
    bool good = request->text[0] == '\0' && fake.violations == 0;
    if (!good) {
        answer_start(a, present.index, fake.violations != 0 ? ANSWER_BROKEN : ANSWER_FAILED,
                     fake.violations != 0 ? fake.violation : request->text);
    }
    for (uint32_t o = 0; good && o < at->output_count; o++) {
        put_output(a, fake_received(request, at->outputs[o]));
    }
    fake_request_destroy(request);
    for (uint32_t i = 0; i < at->input_count; i++) {
        present.ends[i] = NULL;
        fake_region_destroy(regions[i]);
    }
    return good;
}

static void run_case(TRITONBACKEND_Model *model, TRITONBACKEND_ModelInstance *instance,
                     const pack_case *at, answer *a)
{
    size_t count;
    const umo_io *inputs = umo_model_inputs(model->state, &count);
    answer_start(a, present.index, ANSWER_OUTPUTS, "");
    answer_number(a, at->input_count);
    for (uint32_t i = 0; i < at->input_count; i++) {
        size_t io = umo_model_find_input(model->state, at->inputs[i].name);
        answer_number(a, io < count && inputs[io].control);
    }
    for (placing where = 0; where < PLACINGS; where++) {
        if (!run_placed(instance, at, where, a)) {
            return;
        }
    }
}

typedef struct plan {
    bool mutates;
    bool calm;
    uint32_t first_input; /* of the first case */
    long milliseconds;
} plan;

/* Loads one case, does with it what the plan says, and writes the answer. */
static void do_case(const plan *what, const pack_case *at, answer *a)
{
    struct TRITONBACKEND_Model model;
    struct TRITONBACKEND_ModelInstance instance;
    char text[FAKE_TEXT_BYTES];
    present.doing = "load";
    present.at = at;
    write_model(at);
    fake.config = at->config;
    if (!fake_model_load(&model, at->name, text)) {
        answer_start(a, present.index, ANSWER_NOT_LOADED, text);
        (void)answer_write(a, present.answers);
        return;
    }
    if (!fake_instance_load(&instance, &model, "0", text)) {
        answer_start(a, present.index, ANSWER_NOT_LOADED, text);
        (void)answer_write(a, present.answers);
    } else if (what->mutates) {
        const mutate_plan mutating = {.answers = present.answers,
                                      .index = present.index,
                                      .first_input = what->first_input,
                                      .milliseconds = what->milliseconds,
                                      .calm = what->calm,
                                      .doing = &present.doing};
        mutate_case(&mutating, &instance, at, a);
    } else {
        run_case(&model, &instance, at, a);
        (void)answer_write(a, present.answers);
    }
    present.doing = "unload";
    if (instance.state != NULL) {
        (void)fake_instance_unload(&instance, text);
    }
    (void)fake_model_unload(&model, text);
}

/* A changed size must not take the machine's memory. */
#define BUDGET_BYTES ((uint64_t)2 << 30)

/* Keeps the library and a context for all cases: each would make and end them again. */
static void keep_warm(umo_context **context, ort_runtime **runtime)
{
    umo_error error = {0};
    const umo_context_options limits = {.budget_bytes = BUDGET_BYTES};
    const ort_runtime_options options = {0};
    if (umo_context_default_acquire(&limits, context, &error) != UMO_OK ||
        ort_runtime_acquire(&options, runtime, &error) != UMO_OK) {
        give_up(error.text);
    }
}

int main(int count, char **arguments)
{
    if (count < 7) {
        give_up("run|mutate PACK ANSWERS FOLDER FIRST INPUT [MILLISECONDS [calm]]");
    }
    plan what = {.mutates = strcmp(arguments[1], "mutate") == 0,
                 .first_input = (uint32_t)strtoul(arguments[6], NULL, 10),
                 .milliseconds = count > 7 ? strtol(arguments[7], NULL, 10) : 0,
                 .calm = count > 8};
    pack cases;
    if (!pack_open(arguments[2], &cases)) {
        give_up("the pack cannot be read");
    }
    present.answers = open(arguments[3], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    folder = arguments[4];
    char version[4096];
    (void)snprintf(version, sizeof version, "%s/3", folder);
    if (present.answers < 0 || (mkdir(version, 0700) != 0 && errno != EEXIST)) {
        give_up("the folder cannot be used");
    }
    umo_context *context = NULL;
    ort_runtime *runtime = NULL;
    fake_reset();
    keep_warm(&context, &runtime);
    watch_crashes();
    answer a = {0};
    for (present.index = (uint32_t)strtoul(arguments[5], NULL, 10); present.index < cases.count;
         present.index++) {
        pack_case at;
        if (!pack_read(&cases, present.index, &at)) {
            give_up("the pack is broken");
        }
        (void)alarm(HANG_SECONDS);
        fake.violations = 0;
        do_case(&what, &at, &a);
        what.first_input = 0;
    }
    ort_runtime_release(runtime);
    umo_context_default_release(context);
    free(a.at);
    return 0;
}

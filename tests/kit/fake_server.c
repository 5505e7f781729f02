/*
 * The fake server's side of the ABI: models, instances, errors, messages. Requests and responses
 * are in fake_requests.c, metrics in fake_metrics.c.
 */
#include "fake_server.h"

#include "allocations.h"
#include "fake_books.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define ALIVE 0x414C4956u

struct TRITONSERVER_Error {
    uint32_t alive;
    TRITONSERVER_Error_Code code;
    char text[FAKE_TEXT_BYTES];
};

struct TRITONSERVER_Message {
    uint32_t alive;
    bool servers_own;
    char *text;
};

fake_books fake;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

void fake_reset(void)
{
    /* Watching for memory pressure is a thread that opens files, and takes the kernel some 50 ms to
     * set up: pressure_test.c turns it on. */
    fake = (fake_books){.config = "{}",
                        .options = "{\"cmdline\": {\"pressure\": \"off\"}}",
                        .policy = "{\"cpu\": {}}"};
}

void fake_violation(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)pthread_mutex_lock(&lock);
    if (fake.violations++ == 0) {
        (void)vsnprintf(fake.violation, sizeof fake.violation, format, arguments);
    }
    (void)pthread_mutex_unlock(&lock);
    va_end(arguments);
}

void fake_expect_clean(void)
{
    if (fake.violations != 0) {
        fail_msg("%u rules broken, first: %s", fake.violations, fake.violation);
    }
    assert_int_equal(fake.errors, 0);
    assert_int_equal(fake.messages, 0);
    assert_int_equal(fake.statistics, 0);
    fake_metrics_expect_clean();
}

static void count(unsigned *what, int change)
{
    (void)pthread_mutex_lock(&lock);
    *what += (unsigned)change;
    (void)pthread_mutex_unlock(&lock);
}

static TRITONSERVER_Error *error_make(TRITONSERVER_Error_Code code, const char *text)
{
    TRITONSERVER_Error *error = plain_alloc(sizeof *error);
    error->alive = ALIVE;
    error->code = code;
    (void)snprintf(error->text, sizeof error->text, "%s", text);
    count(&fake.errors, 1);
    return error;
}

bool fake_fails(const char *name)
{
    (void)pthread_mutex_lock(&lock);
    bool fails = ++fake.calls == fake.fail_at ||
                 (fake.fail_name != NULL && strcmp(fake.fail_name, name) == 0);
    if (fails) {
        (void)snprintf(fake.failed, sizeof fake.failed, "%s", name);
    }
    (void)pthread_mutex_unlock(&lock);
    return fails;
}

TRITONSERVER_Error *fake_gate(const char *name)
{
    if (!fake_fails(name)) {
        return NULL;
    }
    char text[128];
    (void)snprintf(text, sizeof text, "%s was made to fail", name);
    return error_make(TRITONSERVER_ERROR_INTERNAL, text);
}

TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *message)
{
    return error_make(code, message);
}

static void error_check(const TRITONSERVER_Error *error)
{
    if (error == NULL || error->alive != ALIVE) {
        fake_violation("an error is used that does not live");
        abort();
    }
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error)
{
    error_check(error);
    error->alive = 0;
    count(&fake.errors, -1);
    free(error);
}

TRITONSERVER_Error_Code TRITONSERVER_ErrorCode(TRITONSERVER_Error *error)
{
    error_check(error);
    return error->code;
}

const char *TRITONSERVER_ErrorMessage(TRITONSERVER_Error *error)
{
    error_check(error);
    return error->text;
}

TRITONSERVER_Error *TRITONSERVER_LogMessage(TRITONSERVER_LogLevel level, const char *filename,
                                            int line, const char *message)
{
    (void)level;
    (void)filename;
    (void)line;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        (void)pthread_mutex_lock(&lock);
        (void)snprintf(fake.log, sizeof fake.log, "%s", message);
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

/* ---- Messages ---- */

static TRITONSERVER_Message *message_make(const char *text, size_t size_bytes, bool servers_own)
{
    TRITONSERVER_Message *message = plain_alloc(sizeof *message);
    message->alive = ALIVE;
    message->servers_own = servers_own;
    message->text = plain_alloc(size_bytes + 1);
    memcpy(message->text, text, size_bytes);
    if (!servers_own) {
        count(&fake.messages, 1);
    }
    return message;
}

static void message_free(TRITONSERVER_Message *message)
{
    message->alive = 0;
    free(message->text);
    free(message);
}

TRITONSERVER_Error *TRITONSERVER_MessageNewFromSerializedJson(TRITONSERVER_Message **message,
                                                              const char *base, size_t size_bytes)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *message = message_make(base, size_bytes, false);
    }
    return failed;
}

TRITONSERVER_Error *TRITONSERVER_MessageDelete(TRITONSERVER_Message *message)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (message->alive != ALIVE || message->servers_own) {
        fake_violation("a message is deleted that is not the kit's");
        return failed;
    }
    /* Made to fail, it has still gone: there is nothing that a caller could do about it. */
    count(&fake.messages, -1);
    message_free(message);
    return failed;
}

TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message,
                                                        const char **base, size_t *size_bytes)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *base = message->text;
        *size_bytes = strlen(message->text);
    }
    return failed;
}

/* ---- Models and instances ---- */

TRITONSERVER_Error *TRITONBACKEND_ApiVersion(uint32_t *major, uint32_t *minor)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *major = TRITONBACKEND_API_VERSION_MAJOR;
        *minor = TRITONBACKEND_API_VERSION_MINOR;
    }
    return failed;
}

static TRITONSERVER_Message *options_message;

TRITONSERVER_Error *TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(
    TRITONBACKEND_BackendAttribute *attributes, bool enabled)
{
    (void)attributes;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        fake.parallel = enabled;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_BackendConfig(TRITONBACKEND_Backend *backend,
                                                TRITONSERVER_Message **config)
{
    (void)backend;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        (void)pthread_mutex_lock(&lock);
        if (options_message != NULL) {
            message_free(options_message);
        }
        options_message = message_make(fake.options, strlen(fake.options), true);
        *config = options_message;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelBackend(TRITONBACKEND_Model *model,
                                               TRITONBACKEND_Backend **backend)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *backend = (TRITONBACKEND_Backend *)(void *)model;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelName(TRITONBACKEND_Model *model, const char **name)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *name = model->name;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelVersion(TRITONBACKEND_Model *model, uint64_t *version)
{
    (void)model;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *version = 3;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelRepository(TRITONBACKEND_Model *model,
                                                  TRITONBACKEND_ArtifactType *artifact_type,
                                                  const char **location)
{
    (void)model;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *artifact_type = TRITONBACKEND_ARTIFACT_FILESYSTEM;
        *location = "/models/fake";
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *model, uint32_t config_version,
                                              TRITONSERVER_Message **config)
{
    (void)model;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (config_version != 1) {
        fake_violation("configuration version %u", config_version);
    }
    if (failed == NULL) {
        *config = message_make(fake.config, strlen(fake.config), false);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelAutoCompleteConfig(TRITONBACKEND_Model *model,
                                                          bool *auto_complete)
{
    (void)model;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *auto_complete = fake.completes;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetConfig(TRITONBACKEND_Model *model,
                                                 uint32_t config_version,
                                                 TRITONSERVER_Message *config)
{
    (void)model;
    (void)config_version;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        (void)snprintf(fake.completed, sizeof fake.completed, "%s", config->text);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelState(TRITONBACKEND_Model *model, void **state)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *state = model->state;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *model, void *state)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        model->state = state;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceName(TRITONBACKEND_ModelInstance *instance,
                                                    const char **name)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *name = instance->name;
    }
    return failed;
}

/* The message lives as long as the instance, as the server's. */
TRITONSERVER_Error *TRITONBACKEND_ModelInstanceHostPolicy(TRITONBACKEND_ModelInstance *instance,
                                                          TRITONSERVER_Message **policy)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        (void)pthread_mutex_lock(&lock);
        if (instance->policy == NULL) {
            instance->policy = message_make(fake.policy, strlen(fake.policy), true);
        }
        *policy = instance->policy;
        (void)pthread_mutex_unlock(&lock);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *instance,
                                                     TRITONBACKEND_Model **model)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *model = instance->model;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceState(TRITONBACKEND_ModelInstance *instance,
                                                     void **state)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        *state = instance->state;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceSetState(TRITONBACKEND_ModelInstance *instance,
                                                        void *state)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        instance->state = state;
    }
    return failed;
}

/* ---- What a server does with a backend ---- */

/* Takes an error's words. */
static bool passed(TRITONSERVER_Error *failed, char *text)
{
    text[0] = '\0';
    if (failed == NULL) {
        return true;
    }
    (void)snprintf(text, FAKE_TEXT_BYTES, "%s", failed->text);
    if (failed->text[0] == '\0') {
        fake_violation("an error without words");
    }
    TRITONSERVER_ErrorDelete(failed);
    return false;
}

bool fake_model_load(TRITONBACKEND_Model *model, const char *name, char *text)
{
    *model = (struct TRITONBACKEND_Model){0};
    (void)snprintf(model->name, sizeof model->name, "%s", name);
    if (passed(TRITONBACKEND_ModelInitialize(model), text)) {
        return true;
    }
    char ignored[FAKE_TEXT_BYTES];
    (void)passed(TRITONBACKEND_ModelFinalize(model), ignored);
    return false;
}

bool fake_model_unload(TRITONBACKEND_Model *model, char *text)
{
    return passed(TRITONBACKEND_ModelFinalize(model), text);
}

static void policy_drop(TRITONBACKEND_ModelInstance *instance)
{
    if (instance->policy != NULL) {
        message_free(instance->policy);
        instance->policy = NULL;
    }
}

bool fake_instance_load(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Model *model,
                        const char *name, char *text)
{
    *instance = (struct TRITONBACKEND_ModelInstance){.model = model};
    (void)snprintf(instance->name, sizeof instance->name, "%s", name);
    if (passed(TRITONBACKEND_ModelInstanceInitialize(instance), text)) {
        return true;
    }
    char ignored[FAKE_TEXT_BYTES];
    (void)passed(TRITONBACKEND_ModelInstanceFinalize(instance), ignored);
    policy_drop(instance);
    return false;
}

bool fake_instance_unload(TRITONBACKEND_ModelInstance *instance, char *text)
{
    policy_drop(instance);
    return passed(TRITONBACKEND_ModelInstanceFinalize(instance), text);
}

bool fake_execute(TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request **requests,
                  uint32_t request_count)
{
    char text[FAKE_TEXT_BYTES];
    if (passed(TRITONBACKEND_ModelInstanceExecute(instance, requests, request_count), text)) {
        return true;
    }
    for (uint32_t i = 0; i < request_count; i++) {
        if (requests[i]->responses_made != 0 || requests[i]->releases != 0) {
            fake_violation("execute failed after a request was answered");
        }
        fake_request_refuse(requests[i], text);
    }
    return false;
}

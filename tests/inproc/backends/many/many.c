/*
 * A decoupled backend without a line of umo: a thread a request answers it 1,000 times, every
 * 200 us, and stops when its client has gone. What the server does to it, it does by itself.
 */
#include "triton_abi.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define RESPONSES 1000

typedef struct many_request {
    TRITONBACKEND_Request *request;
    TRITONBACKEND_ResponseFactory *factory;
} many_request;

static void drop(TRITONSERVER_Error *error)
{
    if (error != NULL) {
        TRITONSERVER_ErrorDelete(error);
    }
}

static bool is_cancelled(const many_request *m)
{
    bool cancelled = false;
    drop(TRITONBACKEND_ResponseFactoryIsCancelled(m->factory, &cancelled));
    return cancelled;
}

static void respond(const many_request *m)
{
    static const int64_t dims[] = {16};
    TRITONBACKEND_Response *response = NULL;
    TRITONBACKEND_Output *output = NULL;
    void *data = NULL;
    TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
    int64_t type_id = 0;
    drop(TRITONBACKEND_ResponseNewFromFactory(&response, m->factory));
    drop(TRITONBACKEND_ResponseOutput(response, &output, "OUT", TRITONSERVER_TYPE_FP32, dims, 1));
    drop(TRITONBACKEND_OutputBuffer(output, &data, 64, &type, &type_id));
    memset(data, 0, 64);
    drop(TRITONBACKEND_ResponseSend(response, 0, NULL));
}

static void *answer(void *argument)
{
    many_request *m = argument;
    const struct timespec pause = {.tv_nsec = 200000};
    for (int i = 0; i < RESPONSES && !is_cancelled(m); i++) {
        (void)nanosleep(&pause, NULL);
        respond(m);
    }
    drop(TRITONBACKEND_ResponseFactorySendFlags(m->factory, TRITONSERVER_RESPONSE_COMPLETE_FINAL));
    drop(TRITONBACKEND_ResponseFactoryDelete(m->factory));
    drop(TRITONBACKEND_RequestRelease(m->request, TRITONSERVER_REQUEST_RELEASE_ALL));
    free(m);
    return NULL;
}

__attribute__((visibility("default"))) TRITONSERVER_Error *
TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                   TRITONBACKEND_Request **requests, const uint32_t count)
{
    (void)instance;
    for (uint32_t i = 0; i < count; i++) {
        many_request *m = calloc(1, sizeof *m);
        pthread_t thread;
        if (m == NULL) {
            abort();
        }
        m->request = requests[i];
        drop(TRITONBACKEND_ResponseFactoryNew(&m->factory, requests[i]));
        if (pthread_create(&thread, NULL, answer, m) != 0) {
            abort();
        }
        (void)pthread_detach(thread);
    }
    return NULL;
}

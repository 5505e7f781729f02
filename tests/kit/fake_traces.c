/*
 * A server that traces nothing. In a file of its own: it is linked only where a linker insists on
 * these two (macOS's), and never beside those of traces_test.c. Elsewhere the kit finds none.
 */
#include "world.h"

TRITONSERVER_Error *TRITONBACKEND_RequestTrace(TRITONBACKEND_Request *request,
                                               TRITONSERVER_InferenceTrace **trace)
{
    (void)request;
    *trace = NULL;
    return NULL;
}

TRITONSERVER_Error *TRITONSERVER_InferenceTraceId(TRITONSERVER_InferenceTrace *trace, uint64_t *id)
{
    (void)trace;
    *id = 0;
    return NULL;
}

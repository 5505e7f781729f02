/*
 * The entry points that the server looks up in a backend library. Compiled into each backend beside
 * its own table.
 */
#include "kit/kit.h"

#include <stdio.h>

TRITONSERVER_Error *TRITONBACKEND_Initialize(TRITONBACKEND_Backend *backend)
{
    (void)backend;
    uint32_t major = 0;
    uint32_t minor = 0;
    TRITONSERVER_Error *failed = TRITONBACKEND_ApiVersion(&major, &minor);
    if (failed != NULL) {
        return failed;
    }
    if (major != TRITONBACKEND_API_VERSION_MAJOR || minor < TRITONBACKEND_API_VERSION_MINOR) {
        char text[160];
        (void)snprintf(text, sizeof text,
                       "backend '%s' was built for backend API %d.%d; this server has %u.%u",
                       umo_backend_table.name, TRITONBACKEND_API_VERSION_MAJOR,
                       TRITONBACKEND_API_VERSION_MINOR, major, minor);
        return kit_error(UMO_E_UNSUPPORTED, text);
    }
    return NULL;
}

/* What a backend does comes from any thread (triton.h): a model's instances may be made side by
 * side. */
TRITONSERVER_Error *TRITONBACKEND_GetBackendAttribute(TRITONBACKEND_Backend *backend,
                                                      TRITONBACKEND_BackendAttribute *attributes)
{
    (void)backend;
    return TRITONBACKEND_BackendAttributeSetParallelModelInstanceLoading(attributes, true);
}

TRITONSERVER_Error *TRITONBACKEND_Finalize(TRITONBACKEND_Backend *backend)
{
    (void)backend;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *triton)
{
    umo_error error = {0};
    umo_model *model = NULL;
    umo_status status = kit_model_create(triton, &model, &error);
    if (status != UMO_OK) {
        return kit_error(status, error.text[0] != '\0' ? error.text : umo_status_name(status));
    }
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelSetState(triton, model);
    if (failed != NULL) {
        kit_model_destroy(model);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *triton)
{
    void *model = NULL;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelState(triton, &model);
    if (failed == NULL) {
        kit_model_destroy(model);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceInitialize(TRITONBACKEND_ModelInstance *triton)
{
    TRITONBACKEND_Model *triton_model = NULL;
    void *model = NULL;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelInstanceModel(triton, &triton_model);
    if (failed == NULL) {
        failed = TRITONBACKEND_ModelState(triton_model, &model);
    }
    if (failed != NULL) {
        return failed;
    }
    umo_error error = {0};
    umo_instance *instance = NULL;
    umo_status status = kit_instance_create(triton, model, &instance, &error);
    if (status != UMO_OK) {
        return kit_error(status, error.text[0] != '\0' ? error.text : umo_status_name(status));
    }
    failed = TRITONBACKEND_ModelInstanceSetState(triton, instance);
    if (failed != NULL) {
        kit_instance_destroy(instance);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceFinalize(TRITONBACKEND_ModelInstance *triton)
{
    void *instance = NULL;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelInstanceState(triton, &instance);
    if (failed == NULL) {
        kit_instance_destroy(instance);
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *triton,
                                                       TRITONBACKEND_Request **requests,
                                                       const uint32_t request_count)
{
    void *instance = NULL;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelInstanceState(triton, &instance);
    if (failed == NULL) {
        kit_execute(instance, requests, request_count);
    }
    return failed;
}

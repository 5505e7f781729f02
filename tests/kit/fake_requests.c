/*
 * Requests and responses of the fake server.
 */
#include "allocations.h"
#include "fake_books.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

#define SCRIBBLE 0xDD

TRITONBACKEND_Request *fake_request_create(void)
{
    return plain_alloc(sizeof(struct TRITONBACKEND_Request));
}

void fake_request_expect_answered(const TRITONBACKEND_Request *request)
{
    assert_int_equal(request->finals, 1);
    assert_int_equal(request->releases + request->release_refusals, 1);
    assert_int_equal(request->factories, 0);
    assert_int_equal(request->unsent, 0);
    assert_true(request->reports <= 1);
    if (request->reports == 1) {
        assert_int_equal(request->reported_success, request->text[0] == '\0');
    }
}

void fake_request_destroy(TRITONBACKEND_Request *request)
{
    for (uint32_t i = 0; i < FAKE_TENSORS_MAX; i++) {
        free(request->inputs[i].pieces);
    }
    for (uint32_t i = 0; i < request->response.output_count; i++) {
        guarded_unmap(&request->response.outputs[i].own);
        free(request->response.outputs[i].received);
    }
    for (uint32_t i = 0; i < request->streamed_count; i++) {
        fake_response_free(request->streamed[i]);
    }
    free(request->streamed);
    free(request);
}

void fake_response_free(TRITONBACKEND_Response *response)
{
    for (uint32_t i = 0; i < response->output_count; i++) {
        guarded_unmap(&response->outputs[i].own);
        free(response->outputs[i].received);
    }
    free(response);
}

TRITONBACKEND_Input *fake_input(TRITONBACKEND_Request *request, const char *name,
                                TRITONSERVER_DataType dtype, uint32_t rank, const int64_t *dims)
{
    TRITONBACKEND_Input *input = &request->inputs[request->input_count++];
    input->request = request;
    input->name = name;
    input->dtype = dtype;
    input->rank = rank;
    if (rank > 0) {
        memcpy(input->dims, dims, rank * sizeof *dims);
    }
    return input;
}

void fake_input_piece(TRITONBACKEND_Input *input, const void *data, uint64_t size_bytes)
{
    fake_piece *pieces = plain_alloc((input->piece_count + 1) * sizeof *pieces);
    if (input->piece_count > 0) {
        memcpy(pieces, input->pieces, input->piece_count * sizeof *pieces);
    }
    free(input->pieces);
    input->pieces = pieces;
    pieces[input->piece_count++] = (fake_piece){.data = data, .size_bytes = size_bytes};
    input->size_bytes += size_bytes;
}

void fake_want_output(TRITONBACKEND_Request *request, const char *name, char *data,
                      size_t size_bytes)
{
    request->wants[request->want_count++] = (fake_want){name, data, size_bytes};
}

void fake_request_hold(TRITONBACKEND_Request *request, fake_region *region)
{
    request->regions[request->region_count++] = region;
    region->users++;
}

fake_region *fake_region_create(size_t size_bytes, bool shared, bool output)
{
    fake_region *region = plain_alloc(sizeof *region);
    region->memory = shared ? guarded_shared(size_bytes) : guarded_private(size_bytes);
    region->output = output;
    return region;
}

void fake_region_destroy(fake_region *region)
{
    guarded_unmap(&region->memory);
    free(region);
}

const struct TRITONBACKEND_Output *fake_received(const TRITONBACKEND_Request *request,
                                                 const char *name)
{
    return fake_response_output(&request->response, name);
}

const struct TRITONBACKEND_Output *fake_response_output(const TRITONBACKEND_Response *response,
                                                        const char *name)
{
    for (uint32_t i = 0; i < response->output_count; i++) {
        if (strcmp(response->outputs[i].name, name) == 0) {
            return &response->outputs[i];
        }
    }
    return NULL;
}

/* A client that has its answer does what it likes with its memory. */
void fake_regions_leave(TRITONBACKEND_Request *request)
{
    for (uint32_t i = 0; i < request->region_count; i++) {
        fake_region *region = request->regions[i];
        if (--region->users == 0) {
            if (!region->output) {
                memset(region->memory.pages, SCRIBBLE, region->memory.pages_bytes);
            }
            guarded_close(&region->memory, region->output);
        }
    }
    request->region_count = 0;
}

void fake_request_refuse(TRITONBACKEND_Request *request, const char *text)
{
    request->finals++;
    request->releases++;
    request->code = TRITONSERVER_ERROR_INTERNAL;
    (void)snprintf(request->text, sizeof request->text, "%s", text);
    fake_regions_leave(request);
}

static bool request_lives(const TRITONBACKEND_Request *request, const char *name)
{
    if (request->releases == 0) {
        return true;
    }
    fake_violation("%s on a request that was released", name);
    return false;
}

static TRITONSERVER_Error *no_such(const char *what)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INVALID_ARG, what);
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputCount(TRITONBACKEND_Request *request, uint32_t *count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL && request_lives(request, __func__)) {
        *count = request->input_count;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_RequestInputByIndex(TRITONBACKEND_Request *request,
                                                      const uint32_t index,
                                                      TRITONBACKEND_Input **input)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(request, __func__)) {
        return failed;
    }
    if (index >= request->input_count) {
        return no_such("no such input");
    }
    *input = &request->inputs[index];
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name,
                                                  TRITONSERVER_DataType *datatype,
                                                  const int64_t **shape, uint32_t *dim_count,
                                                  uint64_t *size_bytes, uint32_t *buffer_count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(input->request, __func__)) {
        return failed;
    }
    *name = input->name;
    *datatype = input->dtype;
    *shape = input->rank > 0 ? input->dims : NULL;
    *dim_count = input->rank;
    *size_bytes = input->size_bytes;
    *buffer_count = input->piece_count;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, const uint32_t index,
                                              const void **buffer, uint64_t *size_bytes,
                                              TRITONSERVER_MemoryType *memory_type,
                                              int64_t *memory_type_id)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(input->request, __func__)) {
        return failed;
    }
    if (input->request->finals != 0) {
        fake_violation("an input is asked for after FINAL");
    }
    if (index >= input->piece_count) {
        return no_such("no such piece");
    }
    *buffer = input->pieces[index].data;
    *size_bytes = input->pieces[index].size_bytes;
    *memory_type = input->pieces[index].type;
    *memory_type_id = 0;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputCount(TRITONBACKEND_Request *request,
                                                     uint32_t *count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL && request_lives(request, __func__)) {
        *count = request->want_count;
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_RequestOutputName(TRITONBACKEND_Request *request,
                                                    const uint32_t index, const char **output_name)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(request, __func__)) {
        return failed;
    }
    if (index >= request->want_count) {
        return no_such("no such output");
    }
    *output_name = request->wants[index].name;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response,
                                              TRITONBACKEND_Request *request)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(request, __func__)) {
        return failed;
    }
    if (request->responses_made++ != 0) {
        fake_violation("a second response to one request");
    }
    request->response.request = request;
    *response = &request->response;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 const TRITONSERVER_DataType datatype,
                                                 const int64_t *shape, const uint32_t dim_count)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed != NULL || !request_lives(response->request, __func__)) {
        return failed;
    }
    if (response->sent || fake_response_output(response, name) != NULL ||
        response->output_count == FAKE_TENSORS_MAX) {
        fake_violation("output %s is made after the answer, or twice", name);
        return no_such("no more outputs");
    }
    TRITONBACKEND_Output *made = &response->outputs[response->output_count++];
    *made = (struct TRITONBACKEND_Output){
        .response = response, .dtype = datatype, .rank = dim_count, .own.file = -1};
    (void)snprintf(made->name, sizeof made->name, "%s", name);
    for (uint32_t i = 0; i < dim_count; i++) {
        made->dims[i] = shape[i];
    }
    *output = made;
    return NULL;
}

TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               const uint64_t size_bytes,
                                               TRITONSERVER_MemoryType *memory_type,
                                               int64_t *memory_type_id)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    TRITONBACKEND_Request *request = output->response->request;
    if (failed != NULL || !request_lives(request, __func__)) {
        return failed;
    }
    if (output->asked || output->response->sent) {
        fake_violation("the buffer of output %s is asked for twice or after the answer",
                       output->name);
    }
    output->asked = true;
    output->size_bytes = (size_t)size_bytes;
    *memory_type_id = 0;
    if (request->gpu_outputs) {
        *memory_type = TRITONSERVER_MEMORY_GPU;
        *buffer = (void *)(uintptr_t)4096;
        return NULL;
    }
    *memory_type = TRITONSERVER_MEMORY_CPU;
    const fake_want *want = request->wants;
    while (strcmp(want->name, output->name) != 0) {
        if (++want == request->wants + request->want_count) {
            fake_violation("output %s was not asked for", output->name);
            return no_such("nobody wants the output");
        }
    }
    if (want->data != NULL && size_bytes > want->size_bytes) {
        return no_such("shared memory size specified with the request for output is too small");
    }
    if (want->data != NULL) {
        output->data = want->data;
    } else if (size_bytes > 0) {
        output->own = guarded_private((size_t)size_bytes);
        output->data = output->own.data;
    }
    *buffer = output->data;
    return NULL;
}

/* Copies what the client sees now. */
static void outputs_receive(TRITONBACKEND_Response *response)
{
    for (uint32_t i = 0; i < response->output_count; i++) {
        TRITONBACKEND_Output *output = &response->outputs[i];
        if (!output->asked) {
            fake_violation("output %s is answered without a buffer", output->name);
            continue;
        }
        output->received = plain_alloc(output->size_bytes);
        if (output->size_bytes > 0) {
            memcpy(output->received, output->data, output->size_bytes);
        }
        if (output->own.pages != NULL &&
            !guarded_clean_outside(&output->own, output->own.data, output->size_bytes)) {
            fake_violation("bytes before output %s were written", output->name);
        }
        guarded_close(&output->own, true);
    }
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response,
                                               const uint32_t send_flags, TRITONSERVER_Error *error)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    TRITONBACKEND_Request *request = response->request;
    if (!request_lives(request, __func__)) {
        return failed;
    }
    if (response->sent ||
        (send_flags != TRITONSERVER_RESPONSE_COMPLETE_FINAL && !response->streamed)) {
        fake_violation("a response is sent twice or without FINAL");
    }
    response->sent = true;
    if (response->streamed) {
        if (request->finals != 0) {
            fake_violation("a response is sent after FINAL");
        }
        if (error != NULL) {
            response->code = TRITONSERVER_ErrorCode(error);
            (void)snprintf(response->text, sizeof response->text, "%s",
                           TRITONSERVER_ErrorMessage(error));
        } else {
            outputs_receive(response);
        }
        response->final = send_flags == TRITONSERVER_RESPONSE_COMPLETE_FINAL;
        fake_stream_keep(response);
        if (!response->final) {
            return failed;
        }
    }
    request->finals++;
    if (error != NULL) {
        request->code = TRITONSERVER_ErrorCode(error);
        (void)snprintf(request->text, sizeof request->text, "%s", TRITONSERVER_ErrorMessage(error));
        if (request->text[0] == '\0') {
            fake_violation("a request fails without words");
        }
    } else if (!response->streamed) {
        outputs_receive(response);
    }
    fake_regions_leave(request);
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request,
                                                 uint32_t release_flags)
{
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (!request_lives(request, __func__)) {
        return failed;
    }
    bool answerless =
        fake.fail_name != NULL && strcmp(fake.fail_name, "TRITONBACKEND_ResponseNew") == 0;
    if (request->finals == 0 && !answerless) {
        fake_violation("a request is released before its answer");
    }
    if (release_flags != TRITONSERVER_REQUEST_RELEASE_ALL) {
        fake_violation("a request is released with flags %u", release_flags);
    }
    fake_stream_released(request, failed != NULL);
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportStatistics(
    TRITONBACKEND_ModelInstance *instance, TRITONBACKEND_Request *request, const bool success,
    const uint64_t exec_start_ns, const uint64_t compute_start_ns, const uint64_t compute_end_ns,
    const uint64_t exec_end_ns)
{
    (void)instance;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL && request_lives(request, __func__)) {
        request->reports++;
        request->reported_success = success;
        if (exec_start_ns > compute_start_ns || compute_start_ns > compute_end_ns ||
            compute_end_ns > exec_end_ns) {
            fake_violation("times run backwards");
        }
    }
    return failed;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceReportBatchStatistics(
    TRITONBACKEND_ModelInstance *instance, const uint64_t batch_size, const uint64_t exec_start_ns,
    const uint64_t compute_start_ns, const uint64_t compute_end_ns, const uint64_t exec_end_ns)
{
    (void)exec_start_ns;
    (void)compute_start_ns;
    (void)compute_end_ns;
    (void)exec_end_ns;
    TRITONSERVER_Error *failed = fake_gate(__func__);
    if (failed == NULL) {
        instance->batches++;
        instance->rows += batch_size;
    }
    return failed;
}

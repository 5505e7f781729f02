/*
 * See stub_server.h.
 */
#include "stub_server.h"

TRITONSERVER_MemoryType stub_output_type = TRITONSERVER_MEMORY_CPU;
int stub_errors;
int stub_responses;

TRITONSERVER_Error *TRITONSERVER_ErrorNew(TRITONSERVER_Error_Code code, const char *message)
{
    stub_errors++;
    return new TRITONSERVER_Error{code, message};
}

void TRITONSERVER_ErrorDelete(TRITONSERVER_Error *error)
{
    stub_errors--;
    delete error;
}

static TRITONSERVER_Error *missing(const char *what)
{
    return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_NOT_FOUND, what);
}

TRITONSERVER_Error *TRITONBACKEND_RequestInput(TRITONBACKEND_Request *request, const char *name,
                                               TRITONBACKEND_Input **input)
{
    auto found = request->inputs.find(name);
    if (found == request->inputs.end()) {
        return missing("no such input");
    }
    *input = &found->second;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_InputProperties(TRITONBACKEND_Input *input, const char **name,
                                                  TRITONSERVER_DataType *datatype,
                                                  const std::int64_t **shape,
                                                  std::uint32_t *dim_count,
                                                  std::uint64_t *size_bytes,
                                                  std::uint32_t *buffer_count)
{
    *name = "input";
    *datatype = input->dtype;
    *shape = input->shape.data();
    *dim_count = static_cast<std::uint32_t>(input->shape.size());
    *size_bytes = input->size_bytes;
    *buffer_count = static_cast<std::uint32_t>(input->pieces.size());
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_InputBuffer(TRITONBACKEND_Input *input, std::uint32_t index,
                                              const void **buffer, std::uint64_t *size_bytes,
                                              TRITONSERVER_MemoryType *memory_type,
                                              std::int64_t *memory_type_id)
{
    *buffer = input->pieces[index].data();
    *size_bytes = input->pieces[index].size();
    *memory_type = input->type;
    *memory_type_id = 0;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_RequestRelease(TRITONBACKEND_Request *request, std::uint32_t)
{
    request->releases++;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseNew(TRITONBACKEND_Response **response,
                                              TRITONBACKEND_Request *request)
{
    stub_responses++;
    *response = new TRITONBACKEND_Response{request, {}};
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseOutput(TRITONBACKEND_Response *response,
                                                 TRITONBACKEND_Output **output, const char *name,
                                                 TRITONSERVER_DataType datatype,
                                                 const std::int64_t *shape, std::uint32_t dim_count)
{
    auto made = response->outputs.emplace(
        name, TRITONBACKEND_Output{datatype, {shape, shape + dim_count}, {}});
    if (!made.second) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_ALREADY_EXISTS, "twice");
    }
    *output = &made.first->second;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_OutputBuffer(TRITONBACKEND_Output *output, void **buffer,
                                               std::uint64_t size_bytes,
                                               TRITONSERVER_MemoryType *memory_type,
                                               std::int64_t *memory_type_id)
{
    output->bytes.resize(static_cast<std::size_t>(size_bytes));
    *buffer = output->bytes.data();
    *memory_type = stub_output_type;
    *memory_type_id = 0;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ResponseSend(TRITONBACKEND_Response *response, std::uint32_t,
                                               TRITONSERVER_Error *error)
{
    response->request->answers++;
    response->request->errors += error != nullptr;
    stub_responses--;
    delete response;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ModelConfig(TRITONBACKEND_Model *model, std::uint32_t,
                                              TRITONSERVER_Message **config)
{
    *config = reinterpret_cast<TRITONSERVER_Message *>(model);
    return nullptr;
}

TRITONSERVER_Error *TRITONSERVER_MessageSerializeToJson(TRITONSERVER_Message *message,
                                                        const char **base, std::size_t *size_bytes)
{
    const auto *model = reinterpret_cast<TRITONBACKEND_Model *>(message);
    *base = model->config.data();
    *size_bytes = model->config.size();
    return nullptr;
}

TRITONSERVER_Error *TRITONSERVER_MessageDelete(TRITONSERVER_Message *)
{
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ModelState(TRITONBACKEND_Model *model, void **state)
{
    *state = model->state;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ModelSetState(TRITONBACKEND_Model *model, void *state)
{
    model->state = state;
    return nullptr;
}

TRITONSERVER_Error *TRITONBACKEND_ModelInstanceModel(TRITONBACKEND_ModelInstance *instance,
                                                     TRITONBACKEND_Model **model)
{
    *model = instance->model;
    return nullptr;
}

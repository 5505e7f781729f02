/*
 * As backend_input_collector.h.
 */
#ifndef UMO_TEST_BACKEND_OUTPUT_RESPONDER_H
#define UMO_TEST_BACKEND_OUTPUT_RESPONDER_H

#include <triton/backend/backend_input_collector.h>

#include <string>

namespace triton
{
namespace backend
{

class BackendOutputResponder
{
  public:
    BackendOutputResponder(TRITONBACKEND_Request **requests, std::uint32_t count,
                           std::vector<TRITONBACKEND_Response *> *responses, int max_batch_size,
                           TRITONBACKEND_MemoryManager *manager, bool pinned, cudaStream_t stream);
    void ProcessTensor(const std::string &name, TRITONSERVER_DataType dtype,
                       std::vector<std::int64_t> &shape, const char *data,
                       TRITONSERVER_MemoryType type, std::int64_t type_id);
    bool Finalize();
};

} // namespace backend
} // namespace triton

#endif

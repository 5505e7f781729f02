/*
 * Declares the little of Triton's helpers that examples/migration uses, in our own words, so that
 * the example is known to be code. Nothing is defined here.
 */
#ifndef UMO_TEST_BACKEND_INPUT_COLLECTOR_H
#define UMO_TEST_BACKEND_INPUT_COLLECTOR_H

#include <triton/core/tritonbackend.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

struct TRITONBACKEND_MemoryManager;

namespace triton
{
namespace backend
{

using cudaStream_t = void *;

class BackendInputCollector
{
  public:
    BackendInputCollector(TRITONBACKEND_Request **requests, std::uint32_t count,
                          std::vector<TRITONBACKEND_Response *> *responses,
                          TRITONBACKEND_MemoryManager *manager, bool pinned, cudaStream_t stream);
    TRITONSERVER_Error *
    ProcessTensor(const char *name, char *buffer, std::size_t buffer_bytes,
                  const std::vector<std::pair<TRITONSERVER_MemoryType, std::int64_t>> &allowed,
                  const char **data, std::size_t *size_bytes, TRITONSERVER_MemoryType *type,
                  std::int64_t *type_id);
    bool Finalize();
};

} // namespace backend
} // namespace triton

#endif

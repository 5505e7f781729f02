/*
 * What examples/backend/scale.c does, written against Triton's own helpers, for docs/migration.md:
 * the part of a backend that changes. It is compiled, not run: the helpers come with no package, so
 * tests/examples/include declares what is used of them.
 */
#include <triton/backend/backend_input_collector.h>
#include <triton/backend/backend_output_responder.h>

#include <cstdint>
#include <vector>

using namespace triton::backend;

TRITONSERVER_Error *Execute(TRITONBACKEND_Request **requests, std::uint32_t count,
                            TRITONBACKEND_MemoryManager *memory_manager, int max_batch_size,
                            float factor);

// [execute
TRITONSERVER_Error *Execute(TRITONBACKEND_Request **requests, std::uint32_t count,
                            TRITONBACKEND_MemoryManager *memory_manager, int max_batch_size,
                            float factor)
{
    std::vector<TRITONBACKEND_Response *> responses;
    for (std::uint32_t i = 0; i < count; i++) {
        TRITONBACKEND_Response *response = nullptr;
        TRITONSERVER_Error *failed = TRITONBACKEND_ResponseNew(&response, requests[i]);
        if (failed != nullptr) {
            TRITONSERVER_ErrorDelete(failed);
        }
        responses.push_back(response);
    }

    /* Gathers the batch's input, unless its requests lie in one run in their order of arrival. */
    BackendInputCollector collector(requests, count, &responses, memory_manager, false /* pinned */,
                                    nullptr /* stream */);
    const char *data = nullptr;
    std::size_t size_bytes = 0;
    TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
    std::int64_t type_id = 0;
    TRITONSERVER_Error *failed = collector.ProcessTensor(
        "INPUT", nullptr, 0, {{TRITONSERVER_MEMORY_CPU, 0}}, &data, &size_bytes, &type, &type_id);
    collector.Finalize();

    /* Computes into memory of its own ... */
    std::vector<float> computed(failed == nullptr ? size_bytes / sizeof(float) : 0);
    const auto *from = reinterpret_cast<const float *>(data);
    for (std::size_t i = 0; i < computed.size(); i++) {
        computed[i] = factor * from[i];
    }

    /* ... which is copied into each response. */
    std::vector<std::int64_t> shape; /* read from the requests, summed over the batch */
    BackendOutputResponder responder(requests, count, &responses, max_batch_size, memory_manager,
                                     false /* pinned */, nullptr /* stream */);
    responder.ProcessTensor("OUTPUT", TRITONSERVER_TYPE_FP32, shape,
                            reinterpret_cast<const char *>(computed.data()),
                            TRITONSERVER_MEMORY_CPU, 0);
    responder.Finalize();

    /* And then: send each response, report statistics of each request and of the batch, release
     * the requests. */
    return failed;
}
// execute]

/*
 * A backend in C++: the mission's example, finished. It answers "input" (FP32) with "output", each
 * value doubled, computed from the request's bytes into the response's without a copy between.
 */
#include <umo/unified_backend.hpp>

using namespace triton::backend::metal;

class MyMetalBackend : public UnifiedMetalBackend
{
  public:
    TRITONSERVER_Error *Initialize() override
    {
        UnifiedBackendConfig config;
        TRITONSERVER_Error *failed = CreateUnifiedConfigFromModelConfig(ModelConfig(), config);
        if (failed != nullptr) {
            return failed;
        }
        config.tensor_patterns["input"] = UnifiedMemoryPattern::CPU_DOMINANT;
        config.tensor_patterns["output"] = UnifiedMemoryPattern::GPU_DOMINANT;
        return InitializeUnifiedMemory(config);
    }

    TRITONSERVER_Error *Execute(TRITONBACKEND_Request **requests, uint32_t count) override
    {
        for (uint32_t i = 0; i < count; i++) {
            TRITONBACKEND_Response *response = nullptr;
            TRITONSERVER_Error *failed = TRITONBACKEND_ResponseNew(&response, requests[i]);
            if (failed != nullptr) {
                TRITONSERVER_ErrorDelete(failed); /* nobody is left to be told */
                continue;
            }
            try {
                failed = Answer(requests[i], response);
            } catch (...) {
                failed = detail::Thrown(); /* the others have their answers */
            }
            TRITONSERVER_Error *unsent =
                TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, failed);
            for (TRITONSERVER_Error *error : {failed, unsent}) {
                if (error != nullptr) {
                    TRITONSERVER_ErrorDelete(error);
                }
            }
        }
        return nullptr;
    }

  private:
    TRITONSERVER_Error *Answer(TRITONBACKEND_Request *request, TRITONBACKEND_Response *response)
    {
        std::unique_ptr<ZeroCopyTensor> input;
        std::unique_ptr<ZeroCopyTensor> output;
        TRITONSERVER_Error *failed = GetZeroCopyInputTensor(request, "input", input);
        if (failed == nullptr) {
            failed = GetZeroCopyOutputTensor(response, "output", input->DataType(), input->Shape(),
                                             output);
        }
        if (failed != nullptr) {
            return failed;
        }
        {
            BackendMemoryAccessTracker reads(input->Data(), input->Size(), true, "input");
            BackendMemoryAccessTracker writes(output->Data(), output->Size(), false, "output");
            for (const umo::Status &status : {reads.GetStatus(), writes.GetStatus()}) {
                if (!status.IsOk()) {
                    return ToTriton(status);
                }
            }
            const auto *from = static_cast<const float *>(input->Data());
            auto *to = static_cast<float *>(output->Data());
            for (size_t i = 0; i < input->Size() / sizeof *from; i++) {
                to[i] = 2 * from[i];
            }
        }
        return SetZeroCopyOutputTensor(response, "output", std::move(output));
    }
};

UMO_UNIFIED_BACKEND(MyMetalBackend)

/*
 * The classes of unified_backend.hpp between a stub of the server and a model of our own.
 */
#include <umo/unified_backend.hpp>

#include "check.h"
#include "second_unit.h"
#include "stub_server.h"

#include <cstring>
#include <stdexcept>

using namespace triton::backend::metal;
using umo::Status;

/* Takes an error away; its code as it was, or -1 for none. */
static int code_of(TRITONSERVER_Error *error)
{
    int code = error != nullptr ? static_cast<int>(error->code) : -1;
    if (error != nullptr) {
        CHECK(!error->text.empty());
        TRITONSERVER_ErrorDelete(error);
    }
    return code;
}

static bool fine(TRITONSERVER_Error *error)
{
    return code_of(error) == -1;
}

static TRITONBACKEND_Input input_of(const std::vector<std::string> &pieces,
                                    TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU)
{
    std::uint64_t size = 0;
    for (const std::string &piece : pieces) {
        size += piece.size();
    }
    return {TRITONSERVER_TYPE_UINT8, {static_cast<std::int64_t>(size)}, pieces, size, type};
}

/* What the next Execute() does. */
enum class Act {
    ANSWER,
    FAIL,
    THROW,
    THROW_SOMETHING,
    RUN_OUT
};
static Act act;
static bool fails_to_load;

class Model : public UnifiedMetalBackend
{
  public:
    TRITONSERVER_Error *Initialize() override
    {
        if (fails_to_load) {
            throw std::runtime_error("does not load");
        }
        UnifiedBackendConfig config;
        TRITONSERVER_Error *failed = CreateUnifiedConfigFromModelConfig(ModelConfig(), config);
        return failed != nullptr ? failed : InitializeUnifiedMemory(config);
    }

    TRITONSERVER_Error *Execute(TRITONBACKEND_Request **requests, std::uint32_t count) override
    {
        switch (act) {
        case Act::FAIL:
            return ToTriton(Status(UMO_E_BUSY, "busy"));
        case Act::THROW:
            throw std::runtime_error("thrown");
        case Act::THROW_SOMETHING:
            throw 7;
        case Act::RUN_OUT:
            throw std::bad_alloc();
        case Act::ANSWER:
            break;
        }
        for (std::uint32_t i = 0; i < count; i++) {
            TRITONBACKEND_Response *response = nullptr;
            CHECK(fine(TRITONBACKEND_ResponseNew(&response, requests[i])));
            CHECK(fine(TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL,
                                                  nullptr)));
        }
        return nullptr;
    }

    using UnifiedMetalBackend::BatchAllocateTensors;
    using UnifiedMetalBackend::CreateOptimizedInputTensor;
    using UnifiedMetalBackend::CreateOptimizedOutputTensor;
    using UnifiedMetalBackend::GetMemoryStatistics;
    using UnifiedMetalBackend::GetZeroCopyInputTensor;
    using UnifiedMetalBackend::GetZeroCopyOutputTensor;
    using UnifiedMetalBackend::InitializeUnifiedMemory;
    using UnifiedMetalBackend::SetZeroCopyOutputTensor;
};

UMO_UNIFIED_BACKEND(Model)

static void results_become_the_servers_errors()
{
    CHECK(ToTriton(Status()) == nullptr);
    const std::pair<umo_status, TRITONSERVER_Error_Code> codes[] = {
        {UMO_E_INVAL, TRITONSERVER_ERROR_INVALID_ARG},
        {UMO_E_NOT_FOUND, TRITONSERVER_ERROR_NOT_FOUND},
        {UMO_E_NOMEM, TRITONSERVER_ERROR_UNAVAILABLE},
        {UMO_E_LIMIT, TRITONSERVER_ERROR_UNAVAILABLE},
        {UMO_E_BUSY, TRITONSERVER_ERROR_UNAVAILABLE},
        {UMO_E_TIMEOUT, TRITONSERVER_ERROR_UNAVAILABLE},
        {UMO_E_UNSUPPORTED, TRITONSERVER_ERROR_UNSUPPORTED},
        {UMO_E_REFUSED, TRITONSERVER_ERROR_UNSUPPORTED},
        {UMO_E_DEVICE, TRITONSERVER_ERROR_INTERNAL},
        {UMO_E_SYSTEM, TRITONSERVER_ERROR_INTERNAL},
    };
    for (const auto &[status, code] : codes) {
        CHECK(code_of(ToTriton(Status(status, "words"))) == static_cast<int>(code));
    }
}

static void what_is_worth_wrapping_is_said_by_the_configuration()
{
    UnifiedBackendConfig c;
    CHECK(c.enable_unified_memory && c.enable_batch_optimization && !c.enable_profiling);
    CHECK(c.zero_copy_threshold == 1u << 20 && c.tensor_patterns.size() == 4);
    CHECK(CanUseZeroCopy(1 << 20, TRITONSERVER_MEMORY_CPU, c));
    CHECK(!CanUseZeroCopy((1 << 20) - 1, TRITONSERVER_MEMORY_CPU, c));
    CHECK(!CanUseZeroCopy(1 << 20, TRITONSERVER_MEMORY_GPU, c));
    c.enable_unified_memory = false;
    CHECK(!CanUseZeroCopy(1 << 20, TRITONSERVER_MEMORY_CPU, c));
    CHECK(GetPatternFromMemoryType(TRITONSERVER_MEMORY_CPU) == UnifiedMemoryPattern::CPU_DOMINANT);
    CHECK(GetPatternFromMemoryType(TRITONSERVER_MEMORY_CPU_PINNED) ==
          UnifiedMemoryPattern::BALANCED);
    CHECK(GetPatternFromMemoryType(TRITONSERVER_MEMORY_GPU) == UnifiedMemoryPattern::GPU_DOMINANT);
}

static void a_models_configuration_is_read_or_refused_by_name()
{
    UnifiedBackendConfig c;
    CHECK(fine(CreateUnifiedConfigFromModelConfig("{}", c)) && c.enable_unified_memory);
    CHECK(fine(CreateUnifiedConfigFromModelConfig(
        R"({"optimization": {"unified_memory": {"enable": false, "batch_optimization": false,
            "profiling": true, "zero_copy_threshold": 77,
            "tensor_patterns": [{"name": "x", "pattern": "streaming"}]}}})",
        c)));
    CHECK(!c.enable_unified_memory && !c.enable_batch_optimization && c.enable_profiling);
    CHECK(c.zero_copy_threshold == 77);
    CHECK(c.tensor_patterns["x"] == UnifiedMemoryPattern::STREAMING);
    CHECK(c.tensor_patterns["input"] == UnifiedMemoryPattern::CPU_DOMINANT);
    for (const char *bad :
         {"", "[", R"({"optimization": {"unified_memory": {"enable": 7}}})",
          R"({"optimization": {"unified_memory": {"zero_copy_threshold": -1}}})"}) {
        CHECK(code_of(CreateUnifiedConfigFromModelConfig(bad, c)) ==
              TRITONSERVER_ERROR_INVALID_ARG);
        CHECK(c.zero_copy_threshold == 77);
    }
}

static void tensors_are_made_for_shapes_that_have_a_size()
{
    Model model;
    std::unique_ptr<MetalBuffer> buffer;
    const auto fp32 = TRITONSERVER_TYPE_FP32;
    CHECK(fine(model.InitializeUnifiedMemory({})) && fine(model.InitializeUnifiedMemory({})));
    CHECK(fine(model.CreateOptimizedInputTensor("a", fp32, {3, 5}, buffer)));
    CHECK(buffer->Size() == 60);
    CHECK(fine(model.CreateOptimizedOutputTensor("b", fp32, {7}, buffer, false)));
    CHECK(buffer->Size() == 28);
    for (const std::vector<std::int64_t> &shape :
         {std::vector<std::int64_t>{-1}, std::vector<std::int64_t>{0},
          std::vector<std::int64_t>{INT64_MAX, 4}, std::vector<std::int64_t>(40, 1)}) {
        CHECK(!fine(model.CreateOptimizedInputTensor("a", fp32, shape, buffer)));
        CHECK(buffer->Size() == 28);
    }
    CHECK(!fine(model.CreateOptimizedInputTensor("a", TRITONSERVER_TYPE_BYTES, {1}, buffer)));
    for (bool together : {true, false}) {
        UnifiedBackendConfig config;
        config.enable_batch_optimization = together;
        CHECK(fine(model.InitializeUnifiedMemory(config)));
        std::vector<std::unique_ptr<MetalBuffer>> buffers;
        CHECK(fine(model.BatchAllocateTensors({"a", "b"}, {fp32, fp32}, {{2}, {3}}, buffers)));
        CHECK(buffers.size() == 2 && buffers[1]->Size() == 12);
        CHECK(!fine(model.BatchAllocateTensors({"a", "b"}, {fp32, fp32}, {{2}, {-3}}, buffers)));
        CHECK(!fine(model.BatchAllocateTensors({"a"}, {fp32, fp32}, {{2}, {3}}, buffers)));
        CHECK(buffers.size() == 2);
    }
    std::size_t total = 0, unified = 0, eliminated = 0;
    CHECK(fine(model.GetMemoryStatistics(total, unified, eliminated)) && unified <= total);
    CHECK(second_unit_size_of(buffer->Data()) == 28);
}

static std::string bytes_of(const std::unique_ptr<ZeroCopyTensor> &tensor)
{
    std::string bytes(tensor->Size(), '?');
    CHECK(tensor->GetMetalBuffer()->CopyToHost(&bytes[0], bytes.size()).IsOk());
    return bytes;
}

static void an_input_is_used_where_it_lies_or_gathered_once()
{
    Model model;
    CHECK(fine(model.InitializeUnifiedMemory({})));
    const std::string large(2 << 20, 'l');
    TRITONBACKEND_Request request = {};
    request.inputs["large"] = input_of({large});
    request.inputs["small"] = input_of({"small"});
    request.inputs["pieces"] = input_of({"in ", "", "pieces"});
    request.inputs["gpu"] = input_of({"gpu"}, TRITONSERVER_MEMORY_GPU);
    request.inputs["short"] = input_of({"short"});
    request.inputs["short"].size_bytes = 9;
    request.inputs["long"] = input_of({"long"});
    request.inputs["long"].size_bytes = 2;
    request.inputs["empty"] = input_of({});
    std::unique_ptr<ZeroCopyTensor> tensor;
    CHECK(fine(model.GetZeroCopyInputTensor(&request, "large", tensor)));
    CHECK(bytes_of(tensor) == large);
    CHECK(!tensor->IsZeroCopy() || tensor->Data() == request.inputs["large"].pieces[0].data());
    CHECK(fine(model.GetZeroCopyInputTensor(&request, "small", tensor)));
    CHECK(bytes_of(tensor) == "small" && !tensor->IsZeroCopy() && !tensor->WhyCopied().empty());
    CHECK(fine(model.GetZeroCopyInputTensor(&request, "pieces", tensor)));
    CHECK(bytes_of(tensor) == "in pieces");
    for (const char *bad : {"gpu", "short", "long", "empty", "no such"}) {
        CHECK(!fine(model.GetZeroCopyInputTensor(&request, bad, tensor)));
        CHECK(bytes_of(tensor) == "in pieces");
    }
}

static void an_output_is_written_into_the_response()
{
    Model model;
    CHECK(fine(model.InitializeUnifiedMemory({})));
    TRITONBACKEND_Request request = {};
    TRITONBACKEND_Response response = {&request, {}};
    const auto uint8 = TRITONSERVER_TYPE_UINT8;
    std::unique_ptr<ZeroCopyTensor> tensor;
    CHECK(fine(model.GetZeroCopyOutputTensor(&response, "out", uint8, {8192}, tensor)));
    {
        BackendMemoryAccessTracker writes(tensor->Data(), 8192, false, "out");
        CHECK(writes.GetStatus().IsOk() && writes.TensorName() == "out");
        std::memset(tensor->Data(), 'o', 8192);
    }
    CHECK(fine(model.SetZeroCopyOutputTensor(&response, "out", std::move(tensor))));
    CHECK(response.outputs["out"].bytes == std::vector<char>(8192, 'o'));

    std::unique_ptr<MetalBuffer> buffer;
    CHECK(fine(model.CreateOptimizedOutputTensor("own", uint8, {4}, buffer)));
    CHECK(buffer->CopyFromHost("mine", 4).IsOk());
    CHECK(ZeroCopyTensor::CreateFromBuffer(tensor, std::move(buffer), {4}, uint8).IsOk());
    CHECK(fine(model.SetZeroCopyOutputTensor(&response, "own", std::move(tensor))));
    CHECK(response.outputs["own"].bytes == std::vector<char>({'m', 'i', 'n', 'e'}));

    CHECK(!fine(model.SetZeroCopyOutputTensor(&response, "none", nullptr)));
    CHECK(!fine(model.GetZeroCopyOutputTensor(&response, "out", uint8, {4}, tensor)));
    CHECK(!fine(model.GetZeroCopyOutputTensor(&response, "bad", uint8, {-4}, tensor)));
    stub_output_type = TRITONSERVER_MEMORY_GPU;
    CHECK(!fine(model.GetZeroCopyOutputTensor(&response, "gpu", uint8, {4}, tensor)));
    stub_output_type = TRITONSERVER_MEMORY_CPU;
    CHECK(tensor == nullptr);
}

static void a_model_lives_and_answers_behind_the_servers_calls()
{
    TRITONBACKEND_Model model = {"{}", nullptr};
    fails_to_load = true;
    CHECK(code_of(TRITONBACKEND_ModelInitialize(&model)) == TRITONSERVER_ERROR_INTERNAL);
    fails_to_load = false;
    model.config = "no JSON";
    CHECK(code_of(TRITONBACKEND_ModelInitialize(&model)) == TRITONSERVER_ERROR_INVALID_ARG);
    CHECK(model.state == nullptr && !umo_optimizer_running());
    model.config = "{}";
    CHECK(fine(TRITONBACKEND_ModelInitialize(&model)));
    CHECK(model.state != nullptr && umo_optimizer_running());
    TRITONBACKEND_ModelInstance instance = {&model};
    for (Act next : {Act::ANSWER, Act::FAIL, Act::THROW, Act::THROW_SOMETHING, Act::RUN_OUT}) {
        TRITONBACKEND_Request requests[3] = {};
        TRITONBACKEND_Request *pointers[3] = {&requests[0], &requests[1], &requests[2]};
        act = next;
        CHECK(fine(TRITONBACKEND_ModelInstanceExecute(&instance, pointers, 3)));
        for (const TRITONBACKEND_Request &request : requests) {
            CHECK(request.answers == 1 && request.releases == 1);
            CHECK(request.errors == (next == Act::ANSWER ? 0 : 1));
        }
    }
    CHECK(fine(TRITONBACKEND_ModelFinalize(&model)));
    CHECK(!umo_optimizer_running());
    CHECK(stub_responses == 0);
}

int main()
{
    RUN(results_become_the_servers_errors);
    RUN(what_is_worth_wrapping_is_said_by_the_configuration);
    RUN(a_models_configuration_is_read_or_refused_by_name);
    RUN(tensors_are_made_for_shapes_that_have_a_size);
    RUN(an_input_is_used_where_it_lies_or_gathered_once);
    RUN(an_output_is_written_into_the_response);
    RUN(a_model_lives_and_answers_behind_the_servers_calls);
    CHECK(stub_errors == 0);
    return check_failed();
}

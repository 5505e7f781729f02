/*
 * The mission's C++ examples, letter for letter between the marks, compiled and run. Around them
 * stands only what an example leaves open, and what has to be true afterwards.
 */
#include <umo/unified_memory.hpp>

#include "check.h"

#include <cstring>
#include <fstream>

using namespace triton::core;

static void example_1_allocates_an_optimized_buffer()
{
    std::size_t size = 3 << 20;

    // clang-format off
    // [mission
// Initialize the optimizer
UnifiedMemoryConfig config;
config.enable_auto_placement = true;
config.enable_zero_copy = true;
UnifiedMemoryOptimizer::Initialize(config);

// Allocate optimized buffer
std::unique_ptr<MetalBuffer> buffer;
UnifiedMemoryOptimizer::AllocateOptimized(
    buffer, 
    size, 
    UnifiedMemoryPattern::BALANCED
);
    // mission]
    // clang-format on

    CHECK(buffer != nullptr);
    CHECK(buffer->Size() == size);
    std::vector<char> bytes(size, 'x');
    CHECK(buffer->CopyFromHost(bytes.data(), size).IsOk());
    std::vector<char> back(size);
    CHECK(buffer->CopyToHost(back.data(), size).IsOk());
    CHECK(back == bytes);
}

static void example_2_makes_a_tensor_without_a_copy()
{
    // clang-format off
    // [mission
// Create zero-copy tensor from existing CPU memory
std::vector<float> cpu_data(1024);
std::unique_ptr<ZeroCopyTensor> tensor;
ZeroCopyTensor::CreateFromCPUMemory(
    tensor,
    cpu_data.data(),
    cpu_data.size() * sizeof(float),
    {1024},
    TRITONSERVER_TYPE_FP32
);

// Use tensor on GPU without copying
MetalBuffer* gpu_buffer = tensor->GetMetalBuffer();
    // mission]
    // clang-format on

    CHECK(gpu_buffer != nullptr);
    CHECK(tensor->IsCPU() && !tensor->IsGPU());
    CHECK(tensor->Size() == 4096);
    CHECK(tensor->Shape() == std::vector<std::int64_t>{1024});
    CHECK(tensor->DataType() == TRITONSERVER_TYPE_FP32);
    if (!tensor->IsZeroCopy()) {
        std::printf("copied: %s\n", tensor->WhyCopied().c_str());
    }
    CHECK(tensor->IsZeroCopy());
    /* What a device binds is the vector's own memory: the pointer, not a flag. */
    const umo_memory *bound = umo_buffer_memory(gpu_buffer->Get());
    const char *first =
        static_cast<const char *>(bound->host) + umo_buffer_memory_offset(gpu_buffer->Get());
    CHECK(first == reinterpret_cast<const char *>(cpu_data.data()));
    umo_counters before, after;
    umo_context *context = nullptr;
    CHECK(umo_context_default_acquire(nullptr, &context, nullptr) == UMO_OK);
    umo_scope_read(umo_context_scope(context), &before);
    {
        ScopedMemoryAccess on_gpu(cpu_data.data(), 4096, false, true);
        CHECK(on_gpu.GetStatus().IsOk());
    }
    umo_scope_read(umo_context_scope(context), &after);
    CHECK(after.transfer_performed[UMO_DIRECTION_IN].bytes ==
          before.transfer_performed[UMO_DIRECTION_IN].bytes);
    CHECK(after.transfer_eliminated[UMO_DIRECTION_IN].bytes ==
          before.transfer_eliminated[UMO_DIRECTION_IN].bytes + 4096);
    umo_context_default_release(context);
}

static void enable_profiling_writes_what_was_done()
{
    std::remove("profile.csv");

    // clang-format off
    // [mission
UnifiedMemoryOptimizer::EnableProfiling(true);
// Run inference...
    // mission]
    // clang-format on
    std::unique_ptr<MetalBuffer> buffer;
    UnifiedMemoryOptimizer::AllocateOptimized(buffer, 123456);
    // clang-format off
    // [mission
UnifiedMemoryOptimizer::DumpProfilingData("profile.csv");
    // mission]
    // clang-format on

    UnifiedMemoryOptimizer::EnableProfiling(false);
    std::ifstream file("profile.csv");
    std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    CHECK(text.find("alloc") != std::string::npos);
    CHECK(text.find("123456") != std::string::npos);
    std::remove("profile.csv");
}

static void get_statistics_tells_what_is_there()
{
    std::unique_ptr<MetalBuffer> buffer;
    UnifiedMemoryOptimizer::AllocateOptimized(buffer, 1 << 20, UnifiedMemoryPattern::STREAMING);

    // clang-format off
    // [mission
size_t total, unified, eliminated;
std::unordered_map<UnifiedMemoryPattern, size_t> distribution;
UnifiedMemoryOptimizer::GetMemoryStats(total, unified, eliminated, distribution);
    // mission]
    // clang-format on

    CHECK(total >= (1u << 20));
    CHECK(unified <= total);
    CHECK(distribution[UnifiedMemoryPattern::STREAMING] == 1u << 20);
    size_t before = eliminated;
    TransferEliminationTracker::RecordEliminatedTransfer(77, true);
    UnifiedMemoryOptimizer::GetMemoryStats(total, unified, eliminated, distribution);
    CHECK(eliminated == before + 77);
}

int main()
{
    /* The second example starts nothing by itself, and need not: the first call does. */
    RUN(example_2_makes_a_tensor_without_a_copy);
    RUN(example_1_allocates_an_optimized_buffer);
    RUN(enable_profiling_writes_what_was_done);
    RUN(get_statistics_tells_what_is_there);
    CHECK(UnifiedMemoryOptimizer::Shutdown().IsOk());
    return check_failed();
}

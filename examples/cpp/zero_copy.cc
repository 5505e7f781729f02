/*
 * The design's second example, as it is written there, between the marks: a tensor over memory that
 * is there already, bound on the device where it lies.
 */
#include <umo/unified_memory.hpp>

#include <cstdio>

using namespace triton::core;

int main()
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

    if (!tensor->IsZeroCopy()) { /* a device may refuse; then it was copied once, and says why */
        std::printf("copied: %s\n", tensor->WhyCopied().c_str());
        return 1;
    }
    /* Not a flag but the pointer that the device is given. */
    const umo_memory *bound = umo_buffer_memory(gpu_buffer->Get());
    const char *first =
        static_cast<const char *>(bound->host) + umo_buffer_memory_offset(gpu_buffer->Get());
    const bool same = first == reinterpret_cast<const char *>(cpu_data.data());
    std::printf("the device is given the vector's own memory: %s\n", same ? "yes" : "no");
    return same ? 0 : 1;
}

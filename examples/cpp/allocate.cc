/*
 * The design's first example, as it is written there, between the marks: memory that is placed by
 * its pattern, and moves when its use says so.
 */
#include <umo/unified_memory.hpp>

#include <cstdio>
#include <vector>

using namespace triton::core;

int main()
{
    std::size_t size = std::size_t{4} << 20;

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

    if (buffer == nullptr) {
        std::fprintf(stderr, "no memory of %zu bytes\n", size);
        return 1;
    }
    void *address = buffer->Data();
    std::vector<char> wrote(size, 'x');
    std::vector<char> read(size);
    bool right = buffer->CopyFromHost(wrote.data(), size).IsOk() &&
                 UnifiedMemoryOptimizer::OptimizePlacement(address).IsOk() &&
                 buffer->CopyToHost(read.data(), size).IsOk() && read == wrote;
    /* Whatever it lies in, and wherever it moves: one host address for life. */
    right = right && buffer->Data() == address;
    std::printf("%zu bytes at one address for life: %s\n", buffer->Size(), right ? "yes" : "no");
    buffer.reset();
    return right && UnifiedMemoryOptimizer::Shutdown().IsOk() ? 0 : 1;
}

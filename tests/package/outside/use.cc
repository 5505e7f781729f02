// The same in C++: the classes over the C API.
#include <umo/unified_memory.hpp>

#include <cstdio>
#include <cstring>
#include <memory>

int main()
{
    using umo::UnifiedMemoryOptimizer;
    umo::UnifiedMemoryConfig config;
    config.driver = "host";
    if (!UnifiedMemoryOptimizer::Initialize(config).IsOk()) {
        return 1;
    }
    bool right = false;
    {
        std::unique_ptr<umo::MetalBuffer> buffer;
        if (UnifiedMemoryOptimizer::AllocateOptimized(buffer, 4096).IsOk()) {
            std::memset(buffer->Data(), 42, 4096);
            right = static_cast<unsigned char *>(buffer->Data())[4095] == 42;
        }
    }
    if (!UnifiedMemoryOptimizer::Shutdown().IsOk() || !right) {
        return 1;
    }
    std::puts(umo_version());
    return 0;
}

/*
 * A user of Metal who writes C++ against Apple's own headers, and who happens to meet the fake:
 * what metal-cpp sends, the fake must obey. Each scenario checks the bytes; afterwards no rule may
 * be broken and nothing may be alive.
 *
 *   drive_fake SCENARIO [FOLDER]
 */
#define NS_PRIVATE_IMPLEMENTATION
#define MTL_PRIVATE_IMPLEMENTATION
#include <Foundation/Foundation.hpp>
#include <Metal/Metal.hpp>

#include "fake_metal.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <vector>

/* The private implementation of metal-cpp refers to these; the fake has no devices that come and
 * go. */
extern "C" NS::Array *MTLCopyAllDevicesWithObserver(NS::Object **,
                                                    MTL::DeviceNotificationHandlerBlock)
{
    std::abort();
}
extern "C" void MTLRemoveDeviceObserver(const NS::Object *)
{
    std::abort();
}

namespace
{

const char *scenario_name = "";
std::string folder = ".";

void check_at(bool fine, const char *what, int line)
{
    if (!fine) {
        std::fprintf(stderr, "%s, line %d: %s\n", scenario_name, line, what);
        std::exit(1);
    }
}
#define CHECK(condition) check_at(bool(condition), #condition, __LINE__)

using Pool = NS::SharedPtr<NS::AutoreleasePool>;

Pool pool()
{
    return NS::TransferPtr(NS::AutoreleasePool::alloc()->init());
}

NS::String *text(const std::string &from)
{
    return NS::String::string(from.c_str(), NS::UTF8StringEncoding);
}

std::string words(const NS::Error *error)
{
    return error == nullptr ? "" : error->localizedDescription()->utf8String();
}

constexpr MTL::ResourceOptions SHARED =
    MTL::ResourceStorageModeShared | MTL::ResourceHazardTrackingModeUntracked;
constexpr MTL::ResourceOptions PRIVATE = MTL::ResourceStorageModePrivate;

struct Gpu {
    NS::SharedPtr<MTL::Device> device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
    NS::SharedPtr<MTL::CommandQueue> queue = NS::TransferPtr(device->newCommandQueue());

    NS::SharedPtr<MTL::Buffer> buffer(NS::UInteger bytes,
                                      MTL::ResourceOptions options = SHARED) const
    {
        auto made = NS::TransferPtr(device->newBuffer(bytes, options));
        CHECK(made && made->length() == bytes);
        return made;
    }

    void copy(MTL::Buffer *from, NS::UInteger from_offset, MTL::Buffer *to, NS::UInteger to_offset,
              NS::UInteger bytes) const
    {
        MTL::CommandBuffer *command = queue->commandBuffer();
        MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
        blit->copyFromBuffer(from, from_offset, to, to_offset, bytes);
        blit->endEncoding();
        run(command);
    }

    static void run(MTL::CommandBuffer *command)
    {
        command->commit();
        command->waitUntilCompleted();
        CHECK(command->status() == MTL::CommandBufferStatusCompleted);
        CHECK(command->error() == nullptr);
    }
};

/* The fake starts over with other options than the environment's. */
template <class Change> void restart(Change change)
{
    fake_metal_options options;
    fake_metal_options_default(&options);
    change(options);
    fake_metal_reset(&options);
}

std::vector<uint8_t> ramp(size_t bytes, unsigned start = 0)
{
    std::vector<uint8_t> made(bytes);
    for (size_t i = 0; i < bytes; i++) {
        made[i] = static_cast<uint8_t>(start + 7 * i);
    }
    return made;
}

/* --- devices and memory ------------------------------------------------------------------------
 */

void devices()
{
    restart([](auto &options) { options.devices = 2; });
    auto autoreleased = pool();
    auto all = NS::TransferPtr(MTL::CopyAllDevices());
    CHECK(all->count() == 2);
    auto device = NS::TransferPtr(MTL::CreateSystemDefaultDevice());
    CHECK(device.get() == all->object<MTL::Device>(0));
    CHECK(std::string(device->name()->utf8String()) != "");
    CHECK(!device->name()->isEqualToString(all->object<MTL::Device>(1)->name()));
    CHECK(device->hasUnifiedMemory());
    CHECK(device->supportsFamily(MTL::GPUFamilyApple7) &&
          device->supportsFamily(MTL::GPUFamilyMetal3));
    CHECK(!device->supportsFamily(MTL::GPUFamilyApple9));
    CHECK(device->maxBufferLength() >= 256u << 20);
    CHECK(device->recommendedMaxWorkingSetSize() >= device->maxBufferLength());
    CHECK(device->maxThreadgroupMemoryLength() == 32768);
    /* Three words: this result goes over memory, through objc_msgSend_stret on x86-64. */
    MTL::Size threads = device->maxThreadsPerThreadgroup();
    CHECK(threads.width == 1024 && threads.height == 1024 && threads.depth >= 64);
    NS::UInteger before = device->currentAllocatedSize();
    auto buffer = NS::TransferPtr(device->newBuffer(1 << 20, SHARED));
    CHECK(device->currentAllocatedSize() >= before + (1 << 20));
    CHECK(buffer->device() == device.get());
    buffer.reset();
    CHECK(device->currentAllocatedSize() == before);
}

void buffers()
{
    auto autoreleased = pool();
    Gpu gpu;
    auto bytes = ramp(4096);
    auto given = NS::TransferPtr(gpu.device->newBuffer(bytes.data(), bytes.size(), SHARED));
    CHECK(given->length() == bytes.size() && given->contents() != bytes.data());
    CHECK(std::memcmp(given->contents(), bytes.data(), bytes.size()) == 0);
    CHECK(given->storageMode() == MTL::StorageModeShared);

    auto hidden = gpu.buffer(8192, PRIVATE);
    CHECK(hidden->contents() == nullptr && hidden->storageMode() == MTL::StorageModePrivate);
    gpu.copy(given.get(), 0, hidden.get(), 4096, 4096);
    auto back = gpu.buffer(1024);
    std::memset(back->contents(), 0, 1024);
    gpu.copy(hidden.get(), 4096 + 64, back.get(), 128, 512);
    auto *at = static_cast<uint8_t *>(back->contents());
    CHECK(std::memcmp(at + 128, bytes.data() + 64, 512) == 0);
    CHECK(at[127] == 0 && at[640] == 0);
    /* The same object under another owner, and an owner that goes first. */
    auto other = NS::RetainPtr(back.get());
    back.reset();
    CHECK(static_cast<uint8_t *>(other->contents())[128] == bytes[64]);
}

void managed_buffers()
{
    restart([](auto &options) { options.unified = false; });
    auto autoreleased = pool();
    Gpu gpu;
    CHECK(!gpu.device->hasUnifiedMemory());
    auto managed = gpu.buffer(256, MTL::ResourceStorageModeManaged);
    auto seen = gpu.buffer(256, SHARED);
    auto *host = static_cast<uint8_t *>(managed->contents());
    std::memset(host, 0xaa, 256);
    managed->didModifyRange(NS::Range::Make(0, 128));
    gpu.copy(managed.get(), 0, seen.get(), 0, 256);
    auto *found = static_cast<uint8_t *>(seen->contents());
    CHECK(found[0] == 0xaa && found[127] == 0xaa && found[128] != 0xaa);

    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
    blit->fillBuffer(managed.get(), NS::Range::Make(0, 256), 0x5b);
    blit->endEncoding();
    Gpu::run(command);
    CHECK(host[0] == 0xaa);
    command = gpu.queue->commandBuffer();
    blit = command->blitCommandEncoder();
    blit->synchronizeResource(managed.get());
    blit->endEncoding();
    Gpu::run(command);
    CHECK(host[0] == 0x5b && host[255] == 0x5b);
}

void memory_of_somebody_else()
{
    size_t page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_t bytes = 3 * page;
    void *memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    std::atomic<int> freed{0};
    {
        auto autoreleased = pool();
        Gpu gpu;
        std::atomic<int> *count = &freed;
        auto wrapped = NS::TransferPtr(
            gpu.device->newBuffer(memory, bytes, SHARED, ^(void *pointer, NS::UInteger length) {
              CHECK(pointer == memory && length == bytes);
              count->fetch_add(1);
            }));
        CHECK(wrapped->contents() == memory && wrapped->length() == bytes);
        auto source = ramp(bytes, 3);
        auto given = NS::TransferPtr(gpu.device->newBuffer(source.data(), bytes, SHARED));
        gpu.copy(given.get(), 0, wrapped.get(), 0, bytes);
        CHECK(std::memcmp(memory, source.data(), bytes) == 0);
        CHECK(freed == 0);
        /* A command buffer that was not committed yet keeps what it uses. */
        MTL::CommandBuffer *command = gpu.queue->commandBuffer();
        MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
        blit->fillBuffer(wrapped.get(), NS::Range::Make(page, page), 9);
        blit->endEncoding();
        wrapped.reset();
        CHECK(freed == 0);
        Gpu::run(command);
        CHECK(static_cast<uint8_t *>(memory)[page] == 9);
        /* Nobody's block: the memory stays its owner's. */
        auto plain = NS::TransferPtr(gpu.device->newBuffer(memory, page, SHARED, nullptr));
        CHECK(plain->contents() == memory);
    }
    CHECK(fake_metal_idle() && freed == 1);
    CHECK(munmap(memory, bytes) == 0);
}

void heaps()
{
    auto autoreleased = pool();
    Gpu gpu;
    MTL::SizeAndAlign fit = gpu.device->heapBufferSizeAndAlign(1000, SHARED);
    CHECK(fit.size >= 1000 && fit.align > 0 && (fit.align & (fit.align - 1)) == 0);
    auto descriptor = NS::TransferPtr(MTL::HeapDescriptor::alloc()->init());
    descriptor->setSize(1 << 16);
    descriptor->setStorageMode(MTL::StorageModeShared);
    descriptor->setHazardTrackingMode(MTL::HazardTrackingModeUntracked);
    auto heap = NS::TransferPtr(gpu.device->newHeap(descriptor.get()));
    CHECK(heap->size() >= 1 << 16 && heap->usedSize() == 0);

    std::vector<NS::SharedPtr<MTL::Buffer>> kept;
    for (;;) {
        auto made = NS::TransferPtr(heap->newBuffer(1000, SHARED));
        if (!made) {
            break;
        }
        std::memset(made->contents(), static_cast<int>(kept.size()), 1000);
        kept.push_back(made);
    }
    CHECK(kept.size() >= 16 && heap->usedSize() >= kept.size() * 1000);
    auto sum = gpu.buffer(4096);
    for (size_t i = 0; i < kept.size(); i++) {
        gpu.copy(kept[i].get(), 996, sum.get(), 4 * i, 4);
        CHECK(static_cast<uint8_t *>(sum->contents())[4 * i] == static_cast<uint8_t>(i));
    }
    kept.erase(kept.begin() + 3);
    kept.emplace_back(NS::TransferPtr(heap->newBuffer(1000, SHARED)));
    CHECK(kept.back().get() != nullptr);
    kept.clear();
    CHECK(heap->usedSize() == 0);
}

void blits()
{
    auto autoreleased = pool();
    Gpu gpu;
    auto a = gpu.buffer(1024);
    auto b = gpu.buffer(1024, PRIVATE);
    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
    blit->fillBuffer(b.get(), NS::Range::Make(0, 1024), 0x11);
    blit->fillBuffer(b.get(), NS::Range::Make(256, 512), 0xf0);
    blit->copyFromBuffer(b.get(), 0, a.get(), 0, 1024);
    blit->endEncoding();
    Gpu::run(command);
    auto *at = static_cast<uint8_t *>(a->contents());
    CHECK(at[0] == 0x11 && at[255] == 0x11 && at[256] == 0xf0 && at[767] == 0xf0 &&
          at[768] == 0x11);
    /* Inside one buffer, side by side. */
    at[0] = 1;
    gpu.copy(a.get(), 0, a.get(), 512, 256);
    CHECK(at[512] == 1 && at[513] == 0x11 && at[768] == 0x11);
}

/* --- programs ----------------------------------------------------------------------------------
 */

const char KERNELS[] = R"(
#include <metal_stdlib>
using namespace metal;
kernel void weigh(device const float *from [[buffer(0)]], device float *to [[buffer(1)]],
                  constant float4 &by [[buffer(2)]], threadgroup float *part [[threadgroup(0)]],
                  uint i [[thread_position_in_grid]])
{
    part[0] = by.x;
    to[i] = from[i] * part[0] + by.y;
}
kernel void count(device uint *x [[buffer(0)]], uint3 at [[thread_position_in_grid]])
{
    x[at.x] += 1;
}
)";

void run_weigh(void *const *args, const size_t global[3])
{
    auto *from = static_cast<const float *>(args[0]);
    auto *to = static_cast<float *>(args[1]);
    auto *by = static_cast<const float *>(args[2]);
    auto *part = static_cast<float *>(args[3]);
    part[0] = by[0];
    for (size_t i = 0; i < global[0]; i++) {
        to[i] = from[i] * part[0] + by[1];
    }
}

void run_count(void *const *args, const size_t global[3])
{
    auto *x = static_cast<uint32_t *>(args[0]);
    for (size_t i = 0; i < global[0] * global[1] * global[2]; i++) {
        x[i % global[0]]++;
    }
}

void register_kernels()
{
    const fake_metal_kernel weigh = {"weigh", run_weigh, nullptr, 0, 0, 0};
    const fake_metal_kernel count = {"count", run_count, nullptr, 0, 256, 64};
    fake_metal_kernel_register(&weigh);
    fake_metal_kernel_register(&count);
}

NS::SharedPtr<MTL::Library> library(const Gpu &gpu)
{
    auto options = NS::TransferPtr(MTL::CompileOptions::alloc()->init());
    CHECK(options->fastMathEnabled());
    options->setFastMathEnabled(false);
    CHECK(!options->fastMathEnabled());
    NS::Error *error = nullptr;
    auto made = NS::TransferPtr(gpu.device->newLibrary(text(KERNELS), options.get(), &error));
    CHECK(made && error == nullptr);
    return made;
}

NS::SharedPtr<MTL::Function> function(const Gpu &gpu, const char *name)
{
    auto made = NS::TransferPtr(library(gpu)->newFunction(text(name)));
    CHECK(made && std::string(made->name()->utf8String()) == name);
    CHECK(made->functionType() == MTL::FunctionTypeKernel);
    return made;
}

/* What weigh expects, told in any order. */
void check_bindings(NS::Array *bindings)
{
    CHECK(bindings->count() == 4);
    bool seen[4] = {};
    for (NS::UInteger i = 0; i < 4; i++) {
        auto *binding = bindings->object<MTL::BufferBinding>(i);
        std::string name = binding->name()->utf8String();
        CHECK(binding->used() && binding->argument());
        if (name == "part") {
            CHECK(binding->type() == MTL::BindingTypeThreadgroupMemory && binding->index() == 0);
            seen[3] = true;
            continue;
        }
        NS::UInteger index = name == "from" ? 0 : name == "to" ? 1 : 2;
        CHECK(index != 2 || name == "by");
        CHECK(binding->type() == MTL::BindingTypeBuffer && binding->index() == index);
        CHECK(binding->access() ==
              (index == 1 ? MTL::BindingAccessReadWrite : MTL::BindingAccessReadOnly));
        CHECK(binding->bufferDataSize() == (index == 2 ? 16 : 4));
        CHECK(binding->bufferAlignment() == (index == 2 ? 16 : 4));
        seen[index] = true;
    }
    CHECK(seen[0] && seen[1] && seen[2] && seen[3]);
}

void kernels()
{
    register_kernels();
    auto autoreleased = pool();
    Gpu gpu;
    CHECK(library(gpu)->functionNames()->count() == 2);
    auto weigh = function(gpu, "weigh");
    MTL::ComputePipelineReflection *reflection = nullptr;
    NS::Error *error = nullptr;
    auto pipeline = NS::TransferPtr(gpu.device->newComputePipelineState(
        weigh.get(), MTL::PipelineOptionBindingInfo | MTL::PipelineOptionBufferTypeInfo,
        &reflection, &error));
    CHECK(pipeline && error == nullptr && reflection != nullptr);
    CHECK(pipeline->maxTotalThreadsPerThreadgroup() == 1024 &&
          pipeline->threadExecutionWidth() == 32);
    CHECK(pipeline->staticThreadgroupMemoryLength() == 0);
    check_bindings(reflection->bindings());

    auto from = gpu.buffer(400);
    auto to = gpu.buffer(400, PRIVATE);
    auto back = gpu.buffer(400);
    for (int i = 0; i < 100; i++) {
        static_cast<float *>(from->contents())[i] = static_cast<float>(i);
    }
    const float by[4] = {3, 0.5f, 0, 0};
    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::ComputeCommandEncoder *compute = command->computeCommandEncoder();
    compute->setComputePipelineState(pipeline.get());
    compute->setBuffer(from.get(), 40, 0);
    compute->setBuffer(to.get(), 80, 1);
    compute->setBytes(by, sizeof by, 2);
    compute->setThreadgroupMemoryLength(16, 0);
    compute->dispatchThreads(MTL::Size::Make(50, 1, 1), MTL::Size::Make(32, 1, 1));
    compute->endEncoding();
    MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
    blit->copyFromBuffer(to.get(), 80, back.get(), 0, 200);
    blit->endEncoding();
    Gpu::run(command);
    for (int i = 0; i < 50; i++) {
        CHECK(static_cast<float *>(back->contents())[i] == static_cast<float>(i + 10) * 3 + 0.5f);
    }
}

void grids()
{
    register_kernels();
    auto autoreleased = pool();
    Gpu gpu;
    NS::Error *error = nullptr;
    auto simple =
        NS::TransferPtr(gpu.device->newComputePipelineState(function(gpu, "count").get(), &error));
    CHECK(simple && simple->maxTotalThreadsPerThreadgroup() == 256);
    CHECK(simple->staticThreadgroupMemoryLength() == 64);
    auto counts = gpu.buffer(32);
    std::memset(counts->contents(), 0, 32);
    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::ComputeCommandEncoder *compute = command->computeCommandEncoder();
    compute->setComputePipelineState(simple.get());
    compute->setBuffer(counts.get(), 0, 0);
    compute->dispatchThreadgroups(MTL::Size::Make(2, 3, 5), MTL::Size::Make(4, 2, 1));
    compute->endEncoding();
    Gpu::run(command);
    CHECK(static_cast<uint32_t *>(counts->contents())[7] == 3 * 2 * 5);
}

void refusals()
{
    register_kernels();
    auto autoreleased = pool();
    Gpu gpu;
    NS::Error *error = nullptr;
    auto broken = NS::TransferPtr(gpu.device->newLibrary(
        text("kernel void f(device uint *x [[buffer(0)]]) { x[0] = 1;"), nullptr, &error));
    CHECK(!broken && error != nullptr && words(error).find("error") != std::string::npos);
    CHECK(error->code() != 0 && error->domain() != nullptr);
    CHECK(library(gpu)->newFunction(text("no_such_kernel")) == nullptr);
    /* A message to nobody gives nothing. */
    MTL::Library *nobody = nullptr;
    CHECK(nobody->newFunction(text("weigh")) == nullptr);

    fake_metal_fail("newBufferWithLength:options:", 1);
    CHECK(gpu.device->newBuffer(64, SHARED) == nullptr);
    error = nullptr;
    fake_metal_fail("newComputePipelineStateWithFunction:error:", 1);
    CHECK(gpu.device->newComputePipelineState(function(gpu, "weigh").get(), &error) == nullptr);
    CHECK(!words(error).empty());
}

void archives()
{
    register_kernels();
    auto autoreleased = pool();
    Gpu gpu;
    NS::Error *error = nullptr;
    NS::URL *url = NS::URL::fileURLWithPath(text(folder + "/kernels.archive"));
    auto weigh = function(gpu, "weigh");
    auto about = NS::TransferPtr(MTL::ComputePipelineDescriptor::alloc()->init());
    about->setComputeFunction(weigh.get());
    CHECK(about->computeFunction() == weigh.get());
    {
        auto descriptor = NS::TransferPtr(MTL::BinaryArchiveDescriptor::alloc()->init());
        auto archive = NS::TransferPtr(gpu.device->newBinaryArchive(descriptor.get(), &error));
        CHECK(archive && archive->addComputePipelineFunctions(about.get(), &error));
        CHECK(archive->serializeToURL(url, &error) && error == nullptr);
    }
    auto descriptor = NS::TransferPtr(MTL::BinaryArchiveDescriptor::alloc()->init());
    descriptor->setUrl(url);
    CHECK(std::string(descriptor->url()->fileSystemRepresentation()) ==
          folder + "/kernels.archive");
    auto archive = NS::TransferPtr(gpu.device->newBinaryArchive(descriptor.get(), &error));
    CHECK(archive);
    about->setBinaryArchives(NS::Array::array(archive.get()));
    CHECK(about->binaryArchives()->count() == 1);
    uint64_t compiled = fake_metal_pipelines_compiled();
    auto found = NS::TransferPtr(gpu.device->newComputePipelineState(
        about.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
    CHECK(found && fake_metal_pipelines_compiled() == compiled);

    about->setComputeFunction(function(gpu, "count").get());
    auto missed = NS::TransferPtr(gpu.device->newComputePipelineState(
        about.get(), MTL::PipelineOptionFailOnBinaryArchiveMiss, nullptr, &error));
    CHECK(!missed && error != nullptr);
    error = nullptr;
    missed = NS::TransferPtr(
        gpu.device->newComputePipelineState(about.get(), MTL::PipelineOptionNone, nullptr, &error));
    CHECK(missed && fake_metal_pipelines_compiled() == compiled + 1);

    CHECK(truncate((folder + "/kernels.archive").c_str(), 40) == 0);
    CHECK(gpu.device->newBinaryArchive(descriptor.get(), &error) == nullptr &&
          !words(error).empty());
}

/* --- order and ends ----------------------------------------------------------------------------
 */

void events()
{
    auto autoreleased = pool();
    Gpu gpu;
    auto second = NS::TransferPtr(gpu.device->newCommandQueue(16));
    auto event = NS::TransferPtr(gpu.device->newSharedEvent());
    auto buffer = gpu.buffer(16);
    auto *at = static_cast<uint8_t *>(buffer->contents());
    std::memset(at, 0, 16);
    event->setSignaledValue(2);

    /* Given first, and waits for the other queue, which waits for the host. */
    MTL::CommandBuffer *late = second->commandBuffer();
    late->encodeWait(event.get(), 4);
    MTL::BlitCommandEncoder *blit = late->blitCommandEncoder();
    blit->copyFromBuffer(buffer.get(), 0, buffer.get(), 8, 8);
    blit->endEncoding();
    late->commit();
    MTL::CommandBuffer *early = gpu.queue->commandBuffer();
    early->encodeWait(event.get(), 3);
    blit = early->blitCommandEncoder();
    blit->fillBuffer(buffer.get(), NS::Range::Make(0, 8), 6);
    blit->endEncoding();
    early->encodeSignalEvent(event.get(), 4);
    early->commit();

    CHECK(!fake_metal_idle() && fake_metal_pending() == 2 && at[0] == 0);
    CHECK(!event->waitUntilSignaledValue(4, 1));
    event->setSignaledValue(3);
    CHECK(event->waitUntilSignaledValue(4, 10000));
    late->waitUntilCompleted();
    CHECK(event->signaledValue() == 4 && at[0] == 6 && at[8] == 6);
}

void completion()
{
    auto autoreleased = pool();
    Gpu gpu;
    /* Its hazards are tracked, so the fills come in their order. */
    auto buffer = gpu.buffer(64, MTL::ResourceStorageModeShared);
    std::atomic<int> blocks{0};
    std::atomic<int> functions{0};
    std::atomic<int> *count = &blocks;
    std::string kept(200, 'x'); /* what the function object owns must live until it has run */
    for (int i = 0; i < 20; i++) {
        auto inner = pool();
        MTL::CommandBuffer *command = gpu.queue->commandBuffer();
        MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
        blit->fillBuffer(buffer.get(), NS::Range::Make(0, 64), static_cast<uint8_t>(i));
        blit->endEncoding();
        command->addCompletedHandler(^(MTL::CommandBuffer *done) {
          CHECK(done == command && done->status() == MTL::CommandBufferStatusCompleted);
          count->fetch_add(1);
        });
        command->addCompletedHandler([&functions, kept](MTL::CommandBuffer *done) {
            CHECK(done->error() == nullptr && kept.size() == 200 && kept[199] == 'x');
            functions++;
        });
        command->commit();
    }
    CHECK(fake_metal_idle() && blocks == 20 && functions == 20);
    CHECK(static_cast<uint8_t *>(buffer->contents())[63] == 19);
    /* Handlers of what is never committed go with it. */
    {
        auto inner = pool();
        MTL::CommandBuffer *command = gpu.queue->commandBuffer();
        command->addCompletedHandler([kept](MTL::CommandBuffer *) { std::abort(); });
    }
}

void failures()
{
    auto autoreleased = pool();
    Gpu gpu;
    auto buffer = gpu.buffer(64);
    std::memset(buffer->contents(), 0, 64);
    for (NS::Integer code : {NS::Integer(MTL::CommandBufferErrorOutOfMemory),
                             NS::Integer(MTL::CommandBufferErrorPageFault),
                             NS::Integer(MTL::CommandBufferErrorTimeout)}) {
        std::atomic<long> told{0};
        fake_metal_fail("commit", 1);
        fake_metal_fail_code(code);
        MTL::CommandBuffer *command = gpu.queue->commandBufferWithUnretainedReferences();
        CHECK(!command->retainedReferences());
        MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
        blit->fillBuffer(buffer.get(), NS::Range::Make(0, 64), 1);
        blit->endEncoding();
        command->addCompletedHandler(
            [&told](MTL::CommandBuffer *done) { told = done->error()->code(); });
        command->commit();
        command->waitUntilCompleted();
        CHECK(command->status() == MTL::CommandBufferStatusError);
        CHECK(command->error() != nullptr && command->error()->code() == code && told == code);
        CHECK(!words(command->error()).empty());
    }
    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
    blit->fillBuffer(buffer.get(), NS::Range::Make(0, 64), 2);
    blit->endEncoding();
    Gpu::run(command);
    CHECK(static_cast<uint8_t *>(buffer->contents())[0] == 2);
}

void residency()
{
    auto autoreleased = pool();
    Gpu gpu;
    NS::Error *error = nullptr;
    auto descriptor = NS::TransferPtr(MTL::ResidencySetDescriptor::alloc()->init());
    descriptor->setInitialCapacity(8);
    auto set = NS::TransferPtr(gpu.device->newResidencySet(descriptor.get(), &error));
    CHECK(set && error == nullptr);
    auto one = gpu.buffer(4096);
    auto two = gpu.buffer(8192, PRIVATE);
    const MTL::Allocation *both[] = {one.get(), two.get()};
    set->addAllocations(both, 2);
    CHECK(set->containsAllocation(two.get()) && set->allocationCount() == 2);
    set->commit();
    CHECK(set->allocatedSize() >= 4096 + 8192);
    gpu.queue->addResidencySet(set.get());
    CHECK(fake_metal_resident() == 0);
    set->requestResidency();
    CHECK(fake_metal_resident() == 2);
    gpu.copy(one.get(), 0, two.get(), 0, 4096);
    set->removeAllocation(one.get());
    CHECK(fake_metal_resident() == 2);
    set->commit();
    CHECK(fake_metal_resident() == 1 && !set->containsAllocation(one.get()));
    set->addAllocation(one.get());
    set->endResidency();
    set->removeAllAllocations();
    set->commit();
    gpu.queue->removeResidencySet(set.get());
    CHECK(fake_metal_resident() == 0 && fake_metal_residency_leaked() == 0);
}

void purgeable()
{
    auto autoreleased = pool();
    Gpu gpu;
    auto buffer = gpu.buffer(4096);
    std::memset(buffer->contents(), 0x42, 4096);
    CHECK(buffer->setPurgeableState(MTL::PurgeableStateKeepCurrent) ==
          MTL::PurgeableStateNonVolatile);
    CHECK(buffer->setPurgeableState(MTL::PurgeableStateVolatile) == MTL::PurgeableStateNonVolatile);
    CHECK(buffer->setPurgeableState(MTL::PurgeableStateNonVolatile) == MTL::PurgeableStateVolatile);
    CHECK(static_cast<uint8_t *>(buffer->contents())[4095] == 0x42);
    (void)buffer->setPurgeableState(MTL::PurgeableStateVolatile);
    CHECK(fake_metal_purge() == 1);
    MTL::CommandBuffer *command = gpu.queue->commandBuffer();
    MTL::BlitCommandEncoder *blit = command->blitCommandEncoder();
    blit->fillBuffer(buffer.get(), NS::Range::Make(0, 64), 1);
    blit->endEncoding();
    command->commit();
    command->waitUntilCompleted();
    CHECK(command->status() == MTL::CommandBufferStatusError);
    CHECK(buffer->setPurgeableState(MTL::PurgeableStateNonVolatile) == MTL::PurgeableStateEmpty);
    gpu.copy(buffer.get(), 0, gpu.buffer(64).get(), 0, 64);
}

/* A small training loop of a careless kind: pools inside of pools, objects that outlive them. */
void many_objects()
{
    register_kernels();
    auto autoreleased = pool();
    Gpu gpu;
    NS::SharedPtr<NS::String> outlives;
    NS::SharedPtr<MTL::CommandBuffer> last;
    NS::Error *error = nullptr;
    auto pipeline =
        NS::TransferPtr(gpu.device->newComputePipelineState(function(gpu, "count").get(), &error));
    auto counts = gpu.buffer(256);
    std::memset(counts->contents(), 0, 256);
    for (int i = 0; i < 50; i++) {
        auto inner = pool();
        outlives = NS::RetainPtr(text("step ")->stringByAppendingString(text(std::to_string(i))));
        last = NS::RetainPtr(gpu.queue->commandBuffer());
        last->setLabel(outlives.get());
        MTL::ComputeCommandEncoder *compute = last->computeCommandEncoder();
        compute->setComputePipelineState(pipeline.get());
        compute->setBuffer(counts.get(), 0, 0);
        compute->dispatchThreads(MTL::Size::Make(64, 1, 1), MTL::Size::Make(64, 1, 1));
        compute->endEncoding();
        last->commit();
        last->waitUntilCompleted();
        CHECK(outlives->retainCount() >= 1);
    }
    CHECK(std::string(outlives->utf8String()) == "step 49" && outlives->length() == 7);
    CHECK(last->status() == MTL::CommandBufferStatusCompleted);
    CHECK(static_cast<uint32_t *>(counts->contents())[63] == 50);
}

const struct {
    const char *name;
    void (*run)();
} scenarios[] = {
    {"devices", devices},
    {"buffers", buffers},
    {"managed_buffers", managed_buffers},
    {"heaps", heaps},
    {"blits", blits},
    {"memory_of_somebody_else", memory_of_somebody_else},
    {"kernels", kernels},
    {"grids", grids},
    {"refusals", refusals},
    {"archives", archives},
    {"events", events},
    {"completion", completion},
    {"failures", failures},
    {"residency", residency},
    {"purgeable", purgeable},
    {"many_objects", many_objects},
};

int finish()
{
    char left[1024] = "";
    (void)fake_metal_idle();
    fake_metal_live_print(left, sizeof left);
    if (fake_metal_live_total() != 0 || fake_metal_violations() != 0) {
        std::fprintf(stderr, "%s: %s\nalive: %s\n", scenario_name, fake_metal_violation_text(),
                     left);
        return 1;
    }
    return 0;
}

} // namespace

/* Says "owner selector encoding" lines; owners and selectors come in, one pair a line. */
static int tell_encodings()
{
    char owner[128];
    char selector[512];
    while (std::scanf("%127s %511s", owner, selector) == 2) {
        const char *encoding = fake_metal_encoding(owner, selector);
        std::printf("%s\t%s\t%s\n", owner, selector, encoding == nullptr ? "" : encoding);
    }
    return 0;
}

int main(int argc, char **argv)
{
    scenario_name = argc > 1 ? argv[1] : "";
    if (argc > 2) {
        folder = argv[2];
    }
    if (std::string(scenario_name) == "encodings") {
        return tell_encodings();
    }
    for (const auto &scenario : scenarios) {
        if (argc < 2) {
            std::puts(scenario.name);
        } else if (std::string(scenario_name) == scenario.name) {
            scenario.run();
            return finish();
        }
    }
    return argc < 2 ? 0 : 2;
}

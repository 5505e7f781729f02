/*
 * The classes of unified_memory.hpp one by one: what they say of good and of bad arguments, from
 * many threads, after the shutdown, and when memory for the C++ objects is out. With the name of a
 * driver it runs on that one, else on the best there is.
 */
#include <umo/unified_memory.hpp>

#include "check.h"
#include "new_fails.h"
#include "second_unit.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <thread>

using namespace triton::core;
using umo::Status;

static std::string driver;

static UnifiedMemoryConfig configuration()
{
    UnifiedMemoryConfig config;
    config.driver = driver;
    return config;
}

static umo_counters counters()
{
    umo_context *context = nullptr;
    umo_counters now = {};
    CHECK(umo_context_default_acquire(nullptr, &context, nullptr) == UMO_OK);
    umo_scope_read(umo_context_scope(context), &now);
    umo_context_default_release(context);
    return now;
}

static bool invalid(const Status &status)
{
    return status.StatusCode() == UMO_E_INVAL && !status.Message().empty();
}

/* ---- */

static void a_status_says_what_was_wrong()
{
    const Status fine;
    const Status bad(UMO_E_INVAL, "why");
    CHECK(fine.IsOk() && static_cast<bool>(fine) && fine.AsString() == "OK");
    CHECK(!bad.IsOk() && !bad && bad.Message() == "why");
    CHECK(bad.AsString() == std::string(umo_status_name(UMO_E_INVAL)) + ": why");
    CHECK(Status::From(UMO_E_BUSY).Message() == umo_status_name(UMO_E_BUSY));
}

static MemoryAccessStats counts(std::uint64_t cpu_reads, std::uint64_t cpu_writes,
                                std::uint64_t gpu_reads, std::uint64_t gpu_writes)
{
    MemoryAccessStats stats;
    stats.cpu_reads = cpu_reads;
    stats.cpu_writes = cpu_writes;
    stats.gpu_reads = gpu_reads;
    stats.gpu_writes = gpu_writes;
    stats.total_accesses = cpu_reads + cpu_writes + gpu_reads + gpu_writes;
    return stats;
}

static void counts_have_the_pattern_that_the_library_sees_in_them()
{
    CHECK(counts(0, 0, 0, 0).GetPattern() == UnifiedMemoryPattern::UNKNOWN);
    CHECK(counts(1, 1, 0, 0).GetPattern() == UnifiedMemoryPattern::UNKNOWN);
    CHECK(counts(90, 5, 5, 0).GetPattern() == UnifiedMemoryPattern::CPU_DOMINANT);
    CHECK(counts(0, 5, 50, 45).GetPattern() == UnifiedMemoryPattern::GPU_DOMINANT);
    CHECK(counts(0, 50, 50, 0).GetPattern() == UnifiedMemoryPattern::STREAMING);
    CHECK(counts(50, 0, 0, 50).GetPattern() == UnifiedMemoryPattern::STREAMING);
    CHECK(counts(25, 25, 25, 25).GetPattern() == UnifiedMemoryPattern::BALANCED);
    CHECK(counts(UINT64_MAX, 0, 0, 0).GetPattern() == UnifiedMemoryPattern::CPU_DOMINANT);
    MemoryAccessStats stats = counts(9, 9, 9, 9);
    stats.Reset();
    CHECK(stats.total_accesses == 0 && stats.cpu_reads == 0 && stats.gpu_writes == 0);
    CHECK(stats.last_access == std::chrono::steady_clock::time_point());
}

static void the_defaults_are_the_designs()
{
    const UnifiedMemoryConfig c;
    CHECK(c.enable_auto_placement && c.enable_prefetching && c.enable_pressure_adaptation);
    CHECK(c.enable_numa_optimization && c.enable_zero_copy);
    CHECK(c.placement_change_threshold == 1000 && c.prefetch_size == 4u << 20);
    CHECK(c.memory_pressure_threshold > 0.79 && c.memory_pressure_threshold < 0.81);
    CHECK(c.cache_line_size == 128);
    CHECK(c.pool_config.small_buffer_size == 64u << 10 && c.pool_config.small_buffer_count == 128);
    CHECK(c.pool_config.medium_buffer_size == 1u << 20 && c.pool_config.medium_buffer_count == 32);
    CHECK(c.pool_config.large_buffer_size == 16u << 20 && c.pool_config.large_buffer_count == 8);
}

static void a_second_initialize_joins_or_names_the_field()
{
    UnifiedMemoryConfig config = configuration();
    CHECK(UnifiedMemoryOptimizer::Initialize(config).IsOk());
    CHECK(UnifiedMemoryOptimizer::Initialize(config).IsOk());
    config.prefetch_size = 1;
    const Status other = UnifiedMemoryOptimizer::Initialize(config);
    CHECK(invalid(other) && other.Message().find("prefetch_bytes") != std::string::npos);
    CHECK(UnifiedMemoryOptimizer::Shutdown().IsOk());
    CHECK(UnifiedMemoryOptimizer::Shutdown().IsOk());
    CHECK(invalid(UnifiedMemoryOptimizer::Shutdown()));
    for (const char *name : {"no-such", "a-name-of-17-chars", "0123456789abcdef"}) {
        config.driver = name;
        CHECK(!UnifiedMemoryOptimizer::Initialize(config).IsOk());
    }
    config = configuration();
    config.memory_pressure_threshold = 2;
    CHECK(invalid(UnifiedMemoryOptimizer::Initialize(config)));
    CHECK(!umo_optimizer_running());
}

static void bytes_come_back_from_every_kind_of_memory()
{
    for (int p = 0; p < UMO_PATTERNS; p++) {
        const auto pattern = static_cast<UnifiedMemoryPattern>(p);
        for (std::size_t size : {std::size_t{1}, std::size_t{4097}, std::size_t{1} << 20}) {
            std::unique_ptr<MetalBuffer> buffer;
            const bool pooled = p % 2 == 1;
            CHECK((pooled ? UnifiedMemoryOptimizer::GetPooledBuffer(buffer, size, pattern)
                          : UnifiedMemoryOptimizer::AllocateOptimized(buffer, size, pattern))
                      .IsOk());
            CHECK(buffer->IsPooled() == pooled && buffer->DeviceId() == 0);
            CHECK(pooled ? buffer->Size() >= size : buffer->Size() == size);
            CHECK(pooled || buffer->MemoryType() ==
                                UnifiedMemoryOptimizer::GetOptimalMemoryType(size, pattern));
            std::vector<char> bytes(size, static_cast<char>('a' + p));
            std::vector<char> back(size);
            CHECK(buffer->CopyFromHost(bytes.data(), size).IsOk());
            CHECK(buffer->CopyToHost(back.data(), size).IsOk());
            CHECK(back == bytes);
            CHECK(!buffer->CopyFromHost(bytes.data(), size, buffer->Size()).IsOk());
            CHECK(!buffer->CopyToHost(back.data(), 1, SIZE_MAX).IsOk());
            if (pooled) {
                CHECK(UnifiedMemoryOptimizer::ReturnToPool(std::move(buffer)).IsOk());
            }
        }
    }
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 100).IsOk());
    CHECK(invalid(UnifiedMemoryOptimizer::ReturnToPool(std::move(buffer))));
    CHECK(invalid(UnifiedMemoryOptimizer::ReturnToPool(nullptr)));
}

static void what_cannot_be_allocated_leaves_the_callers_buffer_alone()
{
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 100).IsOk());
    const MetalBuffer *before = buffer.get();
    const auto any = UnifiedMemoryPattern::UNKNOWN;
    CHECK(invalid(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 0)));
    CHECK(!UnifiedMemoryOptimizer::AllocateOptimized(buffer, SIZE_MAX).IsOk());
    CHECK(!UnifiedMemoryOptimizer::AllocateOptimized(buffer, 1, any, 99).IsOk());
    CHECK(!UnifiedMemoryOptimizer::AllocateOptimized(buffer, 1, any, -1).IsOk());
    CHECK(!UnifiedMemoryOptimizer::GetPooledBuffer(buffer, 0).IsOk());
    CHECK(!UnifiedMemoryOptimizer::GetPooledBuffer(buffer, SIZE_MAX).IsOk());
    CHECK(UnifiedMemoryOptimizer::AllocateNUMAOptimized(buffer, 1, 77).StatusCode() ==
          UMO_E_NOT_FOUND);
    CHECK(invalid(UnifiedMemoryOptimizer::CreateZeroCopyBuffer(buffer, nullptr, 4)));
    char byte = 0;
    CHECK(invalid(UnifiedMemoryOptimizer::CreateZeroCopyBuffer(buffer, &byte, 0)));
    CHECK(!UnifiedMemoryOptimizer::CreateZeroCopyBuffer(buffer, &byte, 1, false).IsOk());
    CHECK(UnifiedMemoryOptimizer::GetOptimalMemoryType(0, any) == MetalMemoryType::METAL_UNIFIED);
    CHECK(buffer.get() == before && buffer->Size() == 100);
    CHECK(UnifiedMemoryOptimizer::AllocateNUMAOptimized(buffer, 64).IsOk());
    CHECK(buffer->Size() == 64);
    if (umo_numa_memory_nodes() == 1) { /* which is a node too */
        const int node = umo_numa_node_here();
        CHECK(UnifiedMemoryOptimizer::AllocateNUMAOptimized(buffer, 65, node).IsOk());
        CHECK(buffer->Size() == 65);
    }
}

static void a_batch_is_all_or_none_and_each_is_found()
{
    std::vector<std::unique_ptr<MetalBuffer>> buffers;
    CHECK(UnifiedMemoryOptimizer::BatchAllocate(buffers, {1, 5000, 1 << 20},
                                                UnifiedMemoryPattern::STREAMING)
              .IsOk());
    CHECK(buffers.size() == 3 && buffers[1]->Size() == 5000);
    UnifiedMemoryAllocation known;
    CHECK(UnifiedMemoryOptimizer::GetAllocation(buffers[1]->Data(), known).IsOk());
    CHECK(known.buffer == buffers[1]->Data() && known.size == 5000);
    CHECK(known.pattern == UnifiedMemoryPattern::STREAMING);
    CHECK(invalid(UnifiedMemoryOptimizer::BatchAllocate(buffers, {8, 0})));
    CHECK(invalid(UnifiedMemoryOptimizer::BatchAllocate(buffers, {SIZE_MAX, SIZE_MAX})));
    CHECK(buffers.size() == 3);
    CHECK(UnifiedMemoryOptimizer::BatchAllocate(buffers, {}).IsOk() && buffers.empty());
}

static void a_batch_with_lifetimes_shares_bytes_or_says_that_it_does_not()
{
    const std::size_t size = 1 << 20;
    const std::vector<umo_plan_buffer> lifetimes = {
        {0, 10, size, 0}, {10, 20, size - 7, 0}, {0, 20, 100, 0}};
    std::vector<std::unique_ptr<MetalBuffer>> buffers;
    umo_plan_result plan = {};
    CHECK(UnifiedMemoryOptimizer::BatchAllocate(buffers, lifetimes, UnifiedMemoryPattern::STREAMING,
                                                0, &plan)
              .IsOk());
    CHECK(buffers.size() == 3 && buffers[1]->Size() == size - 7);
    const bool shared = buffers[0]->Data() == buffers[1]->Data();
    CHECK(shared == (static_cast<std::size_t>(plan.peak_bytes) < 2 * size));
    CHECK(static_cast<std::size_t>(plan.bound_bytes) < 2 * size);
    std::vector<char> back(size);
    const std::vector<char> beside(100, 'c');
    CHECK(buffers[2]->CopyFromHost(beside.data(), beside.size()).IsOk());
    for (std::size_t i = 0; i < 2; i++) { /* one after the other */
        const std::vector<char> bytes(buffers[i]->Size(), i == 0 ? 'a' : 'b');
        back.resize(bytes.size());
        CHECK(buffers[i]->CopyFromHost(bytes.data(), bytes.size()).IsOk());
        CHECK(buffers[i]->CopyToHost(back.data(), back.size()).IsOk());
        CHECK(back == bytes);
    }
    back.resize(beside.size());
    CHECK(buffers[2]->CopyToHost(back.data(), back.size()).IsOk() && back == beside);
    std::vector<umo_plan_buffer> bad = lifetimes;
    bad[1].upper = bad[1].lower;
    CHECK(invalid(UnifiedMemoryOptimizer::BatchAllocate(buffers, bad)));
    CHECK(buffers.size() == 3);
    bad.clear();
    CHECK(UnifiedMemoryOptimizer::BatchAllocate(buffers, bad).IsOk() && buffers.empty());
}

static void uses_are_counted_and_known_by_address()
{
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 1 << 16,
                                                    UnifiedMemoryPattern::GPU_DOMINANT)
              .IsOk());
    char *data = static_cast<char *>(buffer->Data());
    CHECK(UnifiedMemoryOptimizer::RecordAccess(data, true, false, 10).IsOk());
    CHECK(UnifiedMemoryOptimizer::RecordAccess(data + 9, false, true, 10).IsOk());
    CHECK(UnifiedMemoryOptimizer::RecordAccess(data, false, false, 10).IsOk());
    CHECK(invalid(UnifiedMemoryOptimizer::RecordAccess(data, true, true, 0)));
    CHECK(invalid(UnifiedMemoryOptimizer::RecordAccess(data, true, true, (1 << 16) + 1)));
    CHECK(UnifiedMemoryOptimizer::RecordAccess(&buffer, true, true, 1).StatusCode() ==
          UMO_E_NOT_FOUND);
    CHECK(!UnifiedMemoryOptimizer::RecordAccess(nullptr, true, true, 1).IsOk());
    {
        ScopedMemoryAccess reads(data + 100, 50, true, true);
        CHECK(reads.GetStatus().IsOk());
    }
    CHECK(UnifiedMemoryOptimizer::PinMemory(data + 5).IsOk());
    UnifiedMemoryAllocation known;
    CHECK(UnifiedMemoryOptimizer::GetAllocation(data + 77, known).IsOk());
    CHECK(known.buffer == data && known.size == 1 << 16 && known.is_pinned);
    CHECK(known.stats.cpu_writes == 1 && known.stats.cpu_reads == 1);
    CHECK(known.stats.gpu_reads == 1 && known.stats.gpu_writes == 1);
    CHECK(known.stats.total_accesses == 4 && known.device_id == 0);
    CHECK(known.current_type == buffer->MemoryType());
    CHECK(known.pattern == UnifiedMemoryPattern::GPU_DOMINANT);
    const auto age = std::chrono::steady_clock::now() - known.stats.last_access;
    CHECK(age < std::chrono::minutes(1) && age > std::chrono::minutes(-1));
    CHECK(UnifiedMemoryOptimizer::PinMemory(data, false).IsOk());
    CHECK(invalid(UnifiedMemoryOptimizer::PinMemory(data, false)));
    buffer.reset();
    CHECK(UnifiedMemoryOptimizer::GetAllocation(data, known).StatusCode() == UMO_E_NOT_FOUND);
    CHECK(UnifiedMemoryOptimizer::PinMemory(data).StatusCode() == UMO_E_NOT_FOUND);
    CHECK(known.size == 1 << 16);
}

static void placement_and_prefetch_keep_every_byte()
{
    const std::size_t size = 1 << 20;
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, size).IsOk());
    const std::vector<char> bytes(size, 'p');
    CHECK(buffer->CopyFromHost(bytes.data(), size).IsOk());
    char *data = static_cast<char *>(buffer->Data());
    for (int i = 0; i < 3000; i++) {
        CHECK(UnifiedMemoryOptimizer::RecordAccess(data, i % 3 == 0, true, size).IsOk());
        if (i % 1000 == 0) {
            const Status status = UnifiedMemoryOptimizer::OptimizePlacement(data);
            CHECK(status.IsOk() || status.StatusCode() == UMO_E_UNSUPPORTED);
        }
    }
    CHECK(UnifiedMemoryOptimizer::Prefetch(data, 0, true).IsOk());
    CHECK(UnifiedMemoryOptimizer::Prefetch(data + 1, 4096, false).IsOk());
    CHECK(invalid(UnifiedMemoryOptimizer::Prefetch(data + 1, size, true)));
    CHECK(UnifiedMemoryOptimizer::Prefetch(&size, 1, true).StatusCode() == UMO_E_NOT_FOUND);
    CHECK(buffer->Data() == data);
    std::vector<char> back(size);
    CHECK(buffer->CopyToHost(back.data(), size).IsOk());
    CHECK(back == bytes);
    CHECK(UnifiedMemoryOptimizer::AdaptToMemoryPressure().IsOk());
}

static void a_prefetcher_knows_what_comes_next()
{
    constexpr std::size_t piece = 4096;
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 64 * piece).IsOk());
    const char *data = static_cast<const char *>(buffer->Data());
    std::unique_ptr<UnifiedMemoryPrefetcher> prefetcher;
    int elsewhere = 0;
    CHECK(UnifiedMemoryPrefetcher::RegisterRegion(prefetcher, &elsewhere, true).StatusCode() ==
          UMO_E_NOT_FOUND);
    CHECK(prefetcher == nullptr);
    CHECK(
        UnifiedMemoryPrefetcher::RegisterRegion(prefetcher, data, false, PrefetchHint::CONSERVATIVE)
            .IsOk());
    CHECK(prefetcher->Pattern() == MemoryAccessPattern::UNKNOWN);
    CHECK(prefetcher->PredictNext().empty());
    for (std::size_t i = 0; i < 6; i++) {
        CHECK(prefetcher->RecordAccess(data + i * piece, piece).IsOk());
    }
    CHECK(prefetcher->Pattern() == MemoryAccessPattern::STREAMING);
    auto next = prefetcher->PredictNext();
    CHECK(next.size() == 1 && next[0].first == data + 6 * piece && next[0].second == piece);
    CHECK(prefetcher->SetDistance(2).IsOk() && invalid(prefetcher->SetDistance(0)));
    CHECK(prefetcher->PredictNext()[0].first == data + 7 * piece);
    CHECK(prefetcher->Prefetch().IsOk());
    CHECK(prefetcher->Stats().fetched == 1);
    CHECK(prefetcher->Advise(PrefetchHint::NONE).IsOk() && prefetcher->Degree() == 0);
    CHECK(invalid(prefetcher->RecordAccess(data - 1, 1)));
    CHECK(invalid(prefetcher->RecordAccess(data + 64 * piece, 1)));
    CHECK(prefetcher->Pin().IsOk() && prefetcher->Pin(false).IsOk());
    CHECK(invalid(prefetcher->Pin(false)));
    buffer.reset(); /* the prefetcher holds the memory */
    CHECK(prefetcher->RecordAccess(data, piece).IsOk());
}

static void a_scoped_access_is_a_bracket()
{
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 4096).IsOk());
    char *data = static_cast<char *>(buffer->Data());
    {
        ScopedMemoryAccess writes(data, 4096, true, false);
        CHECK(writes.GetStatus().IsOk());
        std::memset(data, 'x', 4096);
        ScopedMemoryAccess other(data + 10, 1, false, true);
        CHECK(other.GetStatus().StatusCode() == UMO_E_BUSY);
    }
    {
        ScopedMemoryAccess on_gpu(data, 4096, false, true);
        CHECK(on_gpu.GetStatus().IsOk());
    }
    {
        ScopedMemoryAccess changes(data + 1, 10, true, UMO_READ_WRITE);
        CHECK(changes.GetStatus().IsOk());
        data[1] = 'y';
    }
    char back[4] = {};
    CHECK(buffer->CopyToHost(back, 3).IsOk() && std::strcmp(back, "xyx") == 0);
    CHECK(invalid(ScopedMemoryAccess(data + 1, 4096, true, true).GetStatus()));
    CHECK(ScopedMemoryAccess(&back, 1, true, true).GetStatus().StatusCode() == UMO_E_NOT_FOUND);
    CHECK(!ScopedMemoryAccess(nullptr, 1, true, true).GetStatus().IsOk());
}

static void a_tensor_over_the_callers_memory_shares_or_says_why_not()
{
    std::vector<float> values(2048, 1.5f);
    std::unique_ptr<ZeroCopyTensor> tensor;
    const std::size_t size = values.size() * sizeof(float);
    CHECK(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), size, {2, 1024},
                                              TRITONSERVER_TYPE_FP32)
              .IsOk());
    CHECK(tensor->IsCPU() && !tensor->IsGPU() && tensor->Size() == size);
    CHECK((tensor->Shape() == std::vector<std::int64_t>{2, 1024}));
    CHECK(tensor->DataType() == TRITONSERVER_TYPE_FP32);
    CHECK(tensor->IsZeroCopy() == tensor->WhyCopied().empty());
    CHECK(!tensor->IsZeroCopy() || tensor->Data() == values.data());
    {
        ScopedMemoryAccess writes(tensor->Data(), size, true, false);
        CHECK(writes.GetStatus().IsOk());
        std::fill_n(static_cast<float *>(tensor->Data()), values.size(), 2.5f);
    }
    CHECK(tensor->CopyBack().IsOk() && values.front() == 2.5f && values.back() == 2.5f);
    CHECK(!tensor->IsOf(nullptr) && !tensor->IsOf(&values));
    tensor->SetOwner(&values);
    CHECK(tensor->IsOf(&values));

    const ZeroCopyTensor *before = tensor.get();
    const auto fp32 = TRITONSERVER_TYPE_FP32;
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, nullptr, 4, {1}, fp32)));
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 0, {0}, fp32)));
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 8, {1}, fp32)));
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 4, {-1}, fp32)));
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 4,
                                                      std::vector<std::int64_t>(33, 1), fp32)));
    CHECK(invalid(ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 4, {1},
                                                      TRITONSERVER_TYPE_INVALID)));
    CHECK(invalid(ZeroCopyTensor::CreateFromBuffer(tensor, nullptr, {1}, fp32)));
    CHECK(tensor.get() == before);
}

static void a_tensor_over_a_buffer_shares_it()
{
    std::unique_ptr<MetalBuffer> buffer;
    std::unique_ptr<ZeroCopyTensor> tensor;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 4096).IsOk());
    char *data = static_cast<char *>(buffer->Data());
    const auto int8 = TRITONSERVER_TYPE_INT8;
    CHECK(ZeroCopyTensor::CreateFromGPUMemory(tensor, data, 4096, {4096}, int8).IsOk());
    CHECK(tensor->IsGPU() && tensor->IsZeroCopy() && tensor->Data() == data);
    CHECK(tensor->GetMetalBuffer()->Get() == buffer->Get());
    CHECK(invalid(ZeroCopyTensor::CreateFromGPUMemory(tensor, data, 4095, {4095}, int8)));
    CHECK(ZeroCopyTensor::CreateFromGPUMemory(tensor, &data, 1, {1}, int8).StatusCode() ==
          UMO_E_NOT_FOUND);
    buffer.reset(); /* the tensor holds it */
    CHECK(tensor->GetMetalBuffer()->CopyFromHost("z", 1).IsOk());
    std::unique_ptr<MetalBuffer> own;
    CHECK(UnifiedMemoryOptimizer::GetPooledBuffer(own, 64).IsOk());
    const auto bytes = static_cast<std::int64_t>(own->Size());
    CHECK(ZeroCopyTensor::CreateFromBuffer(tensor, std::move(own), {bytes}, int8, "why").IsOk());
    CHECK(!tensor->IsZeroCopy() && tensor->WhyCopied() == "why" && tensor->CopyBack().IsOk());
}

static void the_tracker_counts_what_was_saved()
{
    std::size_t total = 9, bytes = 9, in = 9, out = 9;
    CHECK(TransferEliminationTracker::Reset().IsOk());
    CHECK(TransferEliminationTracker::RecordEliminatedTransfer(100, true).IsOk());
    CHECK(TransferEliminationTracker::RecordEliminatedTransfer(20, false).IsOk());
    CHECK(TransferEliminationTracker::RecordEliminatedTransfer(3, false).IsOk());
    CHECK(TransferEliminationTracker::GetStatistics(total, bytes, in, out).IsOk());
    CHECK(total == 3 && bytes == 123 && in == 1 && out == 2);
    CHECK(TransferEliminationTracker::Reset().IsOk());
    CHECK(TransferEliminationTracker::GetStatistics(total, bytes, in, out).IsOk());
    CHECK(total == 0 && bytes == 0);
}

static void statistics_add_up()
{
    std::size_t total, unified, eliminated, more, more_unified;
    std::unordered_map<UnifiedMemoryPattern, std::size_t> by;
    CHECK(UnifiedMemoryOptimizer::GetMemoryStats(total, unified, eliminated, by).IsOk());
    CHECK(unified <= total);
    std::vector<char> memory(10000);
    std::unique_ptr<ZeroCopyTensor> tensor;
    CHECK(ZeroCopyTensor::CreateFromCPUMemory(tensor, memory.data(), 10000, {10000},
                                              TRITONSERVER_TYPE_UINT8)
              .IsOk());
    CHECK(UnifiedMemoryOptimizer::GetMemoryStats(more, more_unified, eliminated, by).IsOk());
    CHECK(more >= total + 10000 && more_unified <= more);
    CHECK(!tensor->IsZeroCopy() || more_unified == unified + 10000);
}

static void the_other_unit_has_the_same_optimizer()
{
    std::unique_ptr<MetalBuffer> buffer;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(buffer, 5000).IsOk());
    CHECK(second_unit_size_of(buffer->Data()) == 5000);
    CHECK(second_unit_size_of(&buffer) == 0);
}

/** Live buffers without those that pools keep for the next caller: how many is a matter of luck. */
static uint64_t live_buffers_of_nobody()
{
    umo_context *context = nullptr;
    CHECK(umo_context_default_acquire(nullptr, &context, nullptr) == UMO_OK);
    umo_pools_trim(umo_context_scope(context), 0);
    umo_context_default_release(context);
    return counters().live_buffers;
}

static void threads_do_everything_at_once()
{
    std::vector<std::thread> threads;
    std::unique_ptr<MetalBuffer> shared;
    const uint64_t before = live_buffers_of_nobody();
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(shared, 1 << 16).IsOk());
    int failed[8] = {};
    for (int &bad : failed) {
        threads.emplace_back([&bad, &shared] {
            for (int i = 0; i < 60; i++) {
                std::unique_ptr<MetalBuffer> own;
                std::unique_ptr<MetalBuffer> pooled;
                std::unique_ptr<ZeroCopyTensor> tensor;
                std::vector<int> values(1024, i);
                std::size_t total = 0, unified = 0, eliminated = 0;
                std::unordered_map<UnifiedMemoryPattern, std::size_t> by;
                bad += !UnifiedMemoryOptimizer::AllocateOptimized(own, 4096).IsOk();
                bad += !UnifiedMemoryOptimizer::GetPooledBuffer(pooled, 4096).IsOk();
                bad += !ZeroCopyTensor::CreateFromCPUMemory(tensor, values.data(), 4096, {1024},
                                                            TRITONSERVER_TYPE_INT32)
                            .IsOk();
                bad += !UnifiedMemoryOptimizer::RecordAccess(shared->Data(), i % 2 == 0, true, 8)
                            .IsOk();
                ScopedMemoryAccess reads(shared->Data(), 1 << 16, true, true);
                bad += !reads.GetStatus().IsOk();
                (void)UnifiedMemoryOptimizer::OptimizePlacement(own->Data());
                bad +=
                    !UnifiedMemoryOptimizer::GetMemoryStats(total, unified, eliminated, by).IsOk();
                bad += unified > total;
                bad += !UnifiedMemoryOptimizer::ReturnToPool(std::move(pooled)).IsOk();
            }
        });
    }
    for (std::thread &thread : threads) {
        thread.join();
    }
    for (int bad : failed) {
        CHECK(bad == 0);
    }
    shared.reset();
    CHECK(live_buffers_of_nobody() == before);
}

/* Runs a call with each of its C++ allocations failing in turn, until none is left to fail. */
template <typename Call> static void memory_runs_out_in(Call call)
{
    bool threw = true;
    for (long n = 0; n < 50 && threw; n++) {
        threw = false;
        news_left = n;
        try {
            call();
        } catch (const std::bad_alloc &) {
            threw = true;
        }
        news_left = -1;
        CHECK(threw || n > 0);
    }
    CHECK(!threw);
}

static void nothing_is_lost_when_memory_for_cxx_runs_out()
{
    static char bytes[4096];
    static void *volatile seen; /* or a compiler may leave the new out */
    std::unique_ptr<MetalBuffer> block;
    CHECK(UnifiedMemoryOptimizer::GetPooledBuffer(block, 4096).IsOk());
    block.reset(); /* the pool has one ready */
    const umo_counters before = counters();
    memory_runs_out_in([] {
        std::unique_ptr<MetalBuffer> buffer;
        UnifiedMemoryOptimizer::AllocateOptimized(buffer, 4096);
        seen = buffer.get();
    });
    memory_runs_out_in([] {
        std::unique_ptr<MetalBuffer> buffer;
        UnifiedMemoryOptimizer::GetPooledBuffer(buffer, 4096);
        seen = buffer.get();
    });
    memory_runs_out_in([] {
        std::vector<std::unique_ptr<MetalBuffer>> buffers;
        UnifiedMemoryOptimizer::BatchAllocate(buffers, {1, 2, 3});
    });
    memory_runs_out_in([] {
        const std::vector<umo_plan_buffer> lifetimes = {{0, 1, 5, 0}, {1, 2, 5, 0}};
        std::vector<std::unique_ptr<MetalBuffer>> buffers;
        UnifiedMemoryOptimizer::BatchAllocate(buffers, lifetimes);
    });
    memory_runs_out_in([] {
        std::unique_ptr<ZeroCopyTensor> tensor;
        ZeroCopyTensor::CreateFromCPUMemory(tensor, bytes, 4096, {4096}, TRITONSERVER_TYPE_UINT8);
        ScopedMemoryAccess past(bytes, 5000, true, true); /* an error, with words */
    });
    CHECK(UnifiedMemoryOptimizer::GetPooledBuffer(block, 4096).IsOk());
    block.reset();
    CHECK(seen != nullptr);
    CHECK(counters().live_buffers <= before.live_buffers);
}

static void after_the_shutdown_calls_say_so_and_memory_stays()
{
    std::unique_ptr<MetalBuffer> own;
    std::unique_ptr<MetalBuffer> pooled;
    CHECK(UnifiedMemoryOptimizer::AllocateOptimized(own, 4096).IsOk());
    CHECK(UnifiedMemoryOptimizer::GetPooledBuffer(pooled, 4096).IsOk());
    CHECK(UnifiedMemoryOptimizer::Shutdown().IsOk());
    std::unique_ptr<MetalBuffer> none;
    std::vector<std::unique_ptr<MetalBuffer>> batch;
    std::size_t a, b, c, d;
    std::unordered_map<UnifiedMemoryPattern, std::size_t> by;
    const auto any = UnifiedMemoryPattern::UNKNOWN;
    CHECK(invalid(UnifiedMemoryOptimizer::AllocateOptimized(none, 1)));
    CHECK(invalid(UnifiedMemoryOptimizer::GetPooledBuffer(none, 1)));
    CHECK(invalid(UnifiedMemoryOptimizer::BatchAllocate(batch, {1})));
    CHECK(invalid(UnifiedMemoryOptimizer::AllocateNUMAOptimized(none, 1)));
    CHECK(invalid(UnifiedMemoryOptimizer::CreateZeroCopyBuffer(none, &a, sizeof a)));
    CHECK(invalid(UnifiedMemoryOptimizer::OptimizePlacement(own->Data())));
    CHECK(invalid(UnifiedMemoryOptimizer::Prefetch(own->Data(), 1, true)));
    CHECK(invalid(UnifiedMemoryOptimizer::PinMemory(own->Data())));
    CHECK(invalid(UnifiedMemoryOptimizer::AdaptToMemoryPressure()));
    CHECK(invalid(UnifiedMemoryOptimizer::GetMemoryStats(a, b, c, by)));
    CHECK(invalid(TransferEliminationTracker::GetStatistics(a, b, c, d)));
    CHECK(invalid(TransferEliminationTracker::Reset()));
    CHECK(invalid(TransferEliminationTracker::RecordEliminatedTransfer(1, true)));
    CHECK(UnifiedMemoryOptimizer::GetOptimalMemoryType(1, any) == MetalMemoryType::METAL_UNIFIED);
    CHECK(none == nullptr && batch.empty());
    char byte = 'k';
    CHECK(own->CopyFromHost(&byte, 1).IsOk() && pooled->CopyFromHost(&byte, 1).IsOk());
    CHECK(UnifiedMemoryOptimizer::RecordAccess(own->Data(), true, true, 1).IsOk());
    CHECK(UnifiedMemoryOptimizer::ReturnToPool(std::move(pooled)).IsOk());
    own.reset();
}

int main(int argc, char **argv)
{
    driver = argc > 1 ? argv[1] : "";
    RUN(a_status_says_what_was_wrong);
    RUN(counts_have_the_pattern_that_the_library_sees_in_them);
    RUN(the_defaults_are_the_designs);
    RUN(a_second_initialize_joins_or_names_the_field);
    CHECK(UnifiedMemoryOptimizer::Initialize(configuration()).IsOk());
    RUN(bytes_come_back_from_every_kind_of_memory);
    RUN(what_cannot_be_allocated_leaves_the_callers_buffer_alone);
    RUN(a_batch_is_all_or_none_and_each_is_found);
    RUN(a_batch_with_lifetimes_shares_bytes_or_says_that_it_does_not);
    RUN(uses_are_counted_and_known_by_address);
    RUN(placement_and_prefetch_keep_every_byte);
    RUN(a_prefetcher_knows_what_comes_next);
    RUN(a_scoped_access_is_a_bracket);
    RUN(a_tensor_over_the_callers_memory_shares_or_says_why_not);
    RUN(a_tensor_over_a_buffer_shares_it);
    RUN(the_tracker_counts_what_was_saved);
    RUN(statistics_add_up);
    RUN(the_other_unit_has_the_same_optimizer);
    RUN(threads_do_everything_at_once);
    RUN(nothing_is_lost_when_memory_for_cxx_runs_out);
    RUN(after_the_shutdown_calls_say_so_and_memory_stays);
    return check_failed();
}

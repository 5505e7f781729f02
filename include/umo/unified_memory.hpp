/**
 * @file unified_memory.hpp
 * The class names of the mission over the C API; C++17, header only.
 *
 * No state lives here: every static function asks libumo.so.0, so any number of backends that
 * include this header share one optimizer. The names are in namespace umo and, as users of the
 * design expect them, in triton::core.
 *
 * Include Triton's own headers before this one where both are used; without them the element types
 * of TRITONSERVER_DataType are declared here with the same values.
 */
#ifndef UMO_UNIFIED_MEMORY_HPP
#define UMO_UNIFIED_MEMORY_HPP

#include <umo/optimizer.h>
#include <umo/tensor.h>
#include <umo/umo.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <unordered_map>
#include <utility>
#include <vector>

#if !defined(TRITONSERVER_API_VERSION_MAJOR)
#if defined(__has_include)
#if __has_include(<triton/core/tritonserver.h>)
#include <triton/core/tritonserver.h>
#endif
#endif
#endif

#if !defined(TRITONSERVER_API_VERSION_MAJOR)
typedef enum TRITONSERVER_datatype_enum {
    TRITONSERVER_TYPE_INVALID,
    TRITONSERVER_TYPE_BOOL,
    TRITONSERVER_TYPE_UINT8,
    TRITONSERVER_TYPE_UINT16,
    TRITONSERVER_TYPE_UINT32,
    TRITONSERVER_TYPE_UINT64,
    TRITONSERVER_TYPE_INT8,
    TRITONSERVER_TYPE_INT16,
    TRITONSERVER_TYPE_INT32,
    TRITONSERVER_TYPE_INT64,
    TRITONSERVER_TYPE_FP16,
    TRITONSERVER_TYPE_FP32,
    TRITONSERVER_TYPE_FP64,
    TRITONSERVER_TYPE_BYTES,
    TRITONSERVER_TYPE_BF16
} TRITONSERVER_DataType;
#endif

namespace umo
{

/** What a call came to. A value; ignoring it is allowed, as the mission's examples do. */
class Status
{
  public:
    Status() = default;
    Status(umo_status code, std::string message) : code_(code), message_(std::move(message))
    {
    }

    bool IsOk() const
    {
        return code_ == UMO_OK;
    }
    explicit operator bool() const
    {
        return IsOk();
    }
    umo_status StatusCode() const
    {
        return code_;
    }
    const std::string &Message() const
    {
        return message_;
    }
    std::string AsString() const
    {
        return IsOk() ? "OK" : std::string(umo_status_name(code_)) + ": " + message_;
    }

    /** From a C call; words that the call did not find are its result's name. */
    static Status From(umo_status code, const umo_error &error = {})
    {
        if (code == UMO_OK) {
            return Status();
        }
        return Status(code, error.text[0] != '\0' ? error.text : umo_status_name(code));
    }

  private:
    umo_status code_ = UMO_OK;
    std::string message_;
};

enum class UnifiedMemoryPattern {
    CPU_DOMINANT = 0,
    GPU_DOMINANT = 1,
    BALANCED = 2,
    STREAMING = 3,
    UNKNOWN = 4
};

/** The mission's memory types, each a storage mode. */
enum class MetalMemoryType {
    METAL_BUFFER = UMO_PRIVATE,  /**< the device's only */
    METAL_UNIFIED = UMO_UNIFIED, /**< one memory for both sides */
    METAL_MANAGED = UMO_MANAGED  /**< two sides that the layer keeps in step */
};

namespace detail
{

inline umo_pattern ToC(UnifiedMemoryPattern pattern)
{
    switch (pattern) {
    case UnifiedMemoryPattern::CPU_DOMINANT:
        return UMO_PATTERN_CPU_DOMINANT;
    case UnifiedMemoryPattern::GPU_DOMINANT:
        return UMO_PATTERN_GPU_DOMINANT;
    case UnifiedMemoryPattern::BALANCED:
        return UMO_PATTERN_BALANCED;
    case UnifiedMemoryPattern::STREAMING:
        return UMO_PATTERN_STREAMING;
    case UnifiedMemoryPattern::UNKNOWN:
        break;
    }
    return UMO_PATTERN_UNKNOWN;
}

inline UnifiedMemoryPattern FromC(umo_pattern pattern)
{
    switch (pattern) {
    case UMO_PATTERN_CPU_DOMINANT:
        return UnifiedMemoryPattern::CPU_DOMINANT;
    case UMO_PATTERN_GPU_DOMINANT:
        return UnifiedMemoryPattern::GPU_DOMINANT;
    case UMO_PATTERN_BALANCED:
        return UnifiedMemoryPattern::BALANCED;
    case UMO_PATTERN_STREAMING:
        return UnifiedMemoryPattern::STREAMING;
    case UMO_PATTERN_UNKNOWN:
        break;
    }
    return UnifiedMemoryPattern::UNKNOWN;
}

inline umo_side Side(bool is_cpu)
{
    return is_cpu ? UMO_SIDE_HOST : UMO_SIDE_DEVICE;
}

inline umo_use Use(bool is_read)
{
    return is_read ? UMO_READ : UMO_WRITE;
}

struct Release {
    void operator()(umo_buffer *buffer) const
    {
        umo_buffer_release(buffer);
    }
};

/** One reference. */
using Reference = std::unique_ptr<umo_buffer, Release>;

/** A range of a buffer that is open for one side; closed when the object goes. */
class Bracket
{
  public:
    Bracket() = default;
    Bracket(const Bracket &) = delete;
    Bracket &operator=(const Bracket &) = delete;
    ~Bracket()
    {
        Close();
    }

    /** Opens it and waits until the bytes are there. buffer is held meanwhile. */
    Status Open(umo_buffer *buffer, std::size_t offset_bytes, std::size_t size_bytes, umo_side side,
                umo_use use)
    {
        Close();
        umo_access access = {};
        access.offset_bytes = offset_bytes;
        access.size_bytes = size_bytes;
        access.side = side;
        access.use = use;
        umo_fence_set waits;
        umo_status status = umo_access_begin(buffer, &access, &waits);
        if (status != UMO_OK) {
            return Status(status, "the memory cannot be used now");
        }
        umo_buffer_acquire(buffer);
        buffer_ = buffer;
        access_ = access;
        status = umo_fence_set_wait(&waits, UINT64_MAX);
        if (status != UMO_OK) {
            umo_status_ignore(umo_access_abort(buffer_, &access_, umo_fence{}));
            umo_buffer_release(std::exchange(buffer_, nullptr));
            return Status(status, "what was to write the memory failed");
        }
        return Status();
    }

    void Close()
    {
        if (buffer_ != nullptr) {
            umo_status_ignore(umo_access_end(buffer_, &access_, umo_fence{}));
            umo_buffer_release(std::exchange(buffer_, nullptr));
        }
    }

    bool IsOpen() const
    {
        return buffer_ != nullptr;
    }

  private:
    umo_buffer *buffer_ = nullptr;
    umo_access access_ = {};
};

} // namespace detail

/** How often memory was used, and by whom. */
struct MemoryAccessStats {
    std::uint64_t cpu_reads = 0;
    std::uint64_t cpu_writes = 0;
    std::uint64_t gpu_reads = 0;
    std::uint64_t gpu_writes = 0;
    std::uint64_t total_accesses = 0;
    std::chrono::steady_clock::time_point last_access{};

    /**
     * By the library's own rules (docs/patterns.md), from nothing but these counts: each access
     * stands for one byte, and the sides are taken to have taken turns as often as they could.
     */
    UnifiedMemoryPattern GetPattern() const
    {
        const auto side = [](std::uint64_t reads, std::uint64_t writes) {
            umo_side_stats made = {};
            made.recent_reads = made.recent_read_bytes = static_cast<double>(reads);
            made.recent_writes = made.recent_write_bytes = static_cast<double>(writes);
            return made;
        };
        umo_access_stats stats = {};
        stats.host = side(cpu_reads, cpu_writes);
        stats.device = side(gpu_reads, gpu_writes);
        const double host = stats.host.recent_reads + stats.host.recent_writes;
        const double device = stats.device.recent_reads + stats.device.recent_writes;
        stats.recent_accesses = host + device;
        stats.recent_turns = 2 * (host < device ? host : device);
        return detail::FromC(umo_pattern_classify(&stats, UMO_PATTERN_UNKNOWN));
    }
    void Reset()
    {
        *this = MemoryAccessStats();
    }
};

/** Sizes of the blocks that a pool keeps, and how many of each. */
struct UnifiedMemoryPoolConfig {
    std::size_t small_buffer_size = std::size_t{64} << 10;
    std::size_t small_buffer_count = 128;
    std::size_t medium_buffer_size = std::size_t{1} << 20;
    std::size_t medium_buffer_count = 32;
    std::size_t large_buffer_size = std::size_t{16} << 20;
    std::size_t large_buffer_count = 8;
};

struct UnifiedMemoryConfig {
    bool enable_auto_placement = true;
    std::uint32_t placement_change_threshold = 1000; /**< uses between two decisions */
    bool enable_prefetching = true;
    std::size_t prefetch_size = std::size_t{4} << 20;
    bool enable_pressure_adaptation = true;
    double memory_pressure_threshold = 0.8;
    bool enable_numa_optimization = true;
    std::size_t cache_line_size = 128;
    bool enable_zero_copy = true;
    UnifiedMemoryPoolConfig pool_config;
    std::string driver; /**< of device 0, "opencl"; empty: the best there is */
};

/** Memory that CPU and GPU use. Owns one reference to a umo_buffer. */
class MetalBuffer
{
  public:
    MetalBuffer(const MetalBuffer &) = delete;
    MetalBuffer &operator=(const MetalBuffer &) = delete;
    ~MetalBuffer()
    {
        Free(buffer_, pooled_);
    }

    /** Takes the caller's reference, also when it throws. pooled: it goes back to the optimizer's
     * pool instead. */
    static std::unique_ptr<MetalBuffer> Adopt(umo_buffer *buffer, std::uint32_t device_id,
                                              bool pooled = false)
    {
        try {
            return std::unique_ptr<MetalBuffer>(new MetalBuffer(buffer, device_id, pooled));
        } catch (...) {
            Free(buffer, pooled);
            throw;
        }
    }

    /**
     * The host's address, the same for the buffer's life. Use it inside a ScopedMemoryAccess (or
     * the copies below): only then are the bytes known to be there. Null for a PRIVATE block of a
     * pool that the host has not used.
     */
    void *Data() const
    {
        return umo_buffer_host(buffer_);
    }
    std::size_t Size() const
    {
        return umo_buffer_size(buffer_);
    }
    MetalMemoryType MemoryType() const
    {
        return static_cast<MetalMemoryType>(umo_buffer_mode(buffer_));
    }
    std::uint32_t DeviceId() const
    {
        return device_id_;
    }
    bool IsPooled() const
    {
        return pooled_;
    }
    /** For everything else: the C API. Borrowed. */
    umo_buffer *Get() const
    {
        return buffer_;
    }

    /** Copies in, waiting for whoever uses the bytes. INVAL past the end, BUSY. */
    Status CopyFromHost(const void *data, std::size_t size_bytes, std::size_t offset_bytes = 0)
    {
        umo_fence done = {};
        umo_status status = umo_buffer_upload(buffer_, offset_bytes, data, size_bytes, 0, &done);
        return Finish(status, done);
    }

    /** Copies out, likewise. */
    Status CopyToHost(void *data, std::size_t size_bytes, std::size_t offset_bytes = 0) const
    {
        umo_fence done = {};
        umo_status status = umo_buffer_download(buffer_, offset_bytes, data, size_bytes, 0, &done);
        return Finish(status, done);
    }

  private:
    MetalBuffer(umo_buffer *buffer, std::uint32_t device_id, bool pooled)
        : buffer_(buffer), device_id_(device_id), pooled_(pooled)
    {
    }

    static Status Finish(umo_status status, umo_fence done)
    {
        if (status == UMO_OK) {
            status = umo_fence_wait(done, UINT64_MAX);
        }
        return Status::From(status);
    }

    static void Free(umo_buffer *buffer, bool pooled)
    {
        if (pooled) {
            umo_status_ignore(umo_optimizer_give(buffer));
        } else {
            umo_buffer_release(buffer);
        }
    }

    umo_buffer *buffer_;
    std::uint32_t device_id_;
    bool pooled_;
};

/** What is known about one allocation: UnifiedMemoryOptimizer::GetAllocation(). */
struct UnifiedMemoryAllocation {
    void *buffer = nullptr; /**< its first byte on the host side */
    std::size_t size = 0;
    MetalMemoryType current_type = MetalMemoryType::METAL_UNIFIED;
    UnifiedMemoryPattern pattern = UnifiedMemoryPattern::UNKNOWN;
    MemoryAccessStats stats;
    bool is_pinned = false;
    std::uint32_t device_id = 0;
};

/** The mission's central object: all static, its state in libumo. Any thread. */
class UnifiedMemoryOptimizer
{
  public:
    /** Starts it, or joins it where it runs with an equal configuration; else INVAL, naming the
     * field. */
    static Status Initialize(const UnifiedMemoryConfig &config = {})
    {
        umo_optimizer_config c;
        umo_optimizer_config_init(&c);
        c.auto_placement = config.enable_auto_placement;
        c.placement_change_threshold = config.placement_change_threshold;
        c.prefetching = config.enable_prefetching;
        c.prefetch_bytes = config.prefetch_size;
        c.pressure_adaptation = config.enable_pressure_adaptation;
        c.pressure_threshold = config.memory_pressure_threshold;
        c.numa = config.enable_numa_optimization;
        c.cache_line_bytes = config.cache_line_size;
        c.zero_copy = config.enable_zero_copy;
        const UnifiedMemoryPoolConfig &pool = config.pool_config;
        c.classes[0] = {pool.small_buffer_size, pool.small_buffer_count};
        c.classes[1] = {pool.medium_buffer_size, pool.medium_buffer_count};
        c.classes[2] = {pool.large_buffer_size, pool.large_buffer_count};
        if (config.driver.size() >= sizeof c.driver) {
            return Status(UMO_E_INVAL, "a driver's name has at most 15 letters");
        }
        config.driver.copy(c.driver, sizeof c.driver - 1);
        c.driver[config.driver.size()] = '\0';
        umo_error error = {};
        return Status::From(umo_optimizer_initialize(&c, &error), error);
    }

    /** Leaves; the last one stops it. Buffers that are still held stay valid. */
    static Status Shutdown()
    {
        umo_error error = {};
        return Status::From(umo_optimizer_shutdown(&error), error);
    }

    static Status AllocateOptimized(std::unique_ptr<MetalBuffer> &buffer, std::size_t size,
                                    UnifiedMemoryPattern pattern = UnifiedMemoryPattern::UNKNOWN,
                                    int device_id = 0)
    {
        umo_error error = {};
        umo_buffer *made = nullptr;
        umo_status status =
            umo_optimizer_alloc(size, detail::ToC(pattern), Device(device_id), &made, &error);
        return Made(buffer, made, status, error, device_id);
    }

    /**
     * Wraps memory where it lies. REFUSED, with the reason, where the device cannot bind it: copy
     * then, into a buffer from AllocateOptimized().
     *
     * @param is_cpu_data  false: data is the address of memory that a MetalBuffer holds.
     */
    static Status CreateZeroCopyBuffer(std::unique_ptr<MetalBuffer> &buffer, void *data,
                                       std::size_t size, bool is_cpu_data = true, int device_id = 0)
    {
        umo_error error = {};
        umo_buffer *made = nullptr;
        if (!is_cpu_data) {
            umo_status found = umo_buffer_find(data, &made);
            if (found == UMO_OK &&
                (umo_buffer_host(made) != data || umo_buffer_size(made) != size)) {
                umo_buffer_release(made);
                return Status(UMO_E_INVAL, "that is a part of a buffer");
            }
            return Made(buffer, made, found, error, device_id);
        }
        umo_status status = umo_optimizer_wrap(data, size, Device(device_id), &made, &error);
        return Made(buffer, made, status, error, device_id);
    }

    /** Counts a use of memory that some buffer holds. For the use itself: ScopedMemoryAccess. */
    static Status RecordAccess(const void *address, bool is_cpu, bool is_read, std::size_t size)
    {
        return Status::From(
            umo_access_record_at(address, detail::Side(is_cpu), detail::Use(is_read), size));
    }

    /** Decides now, and moves the bytes if another memory type is cheaper. */
    static Status OptimizePlacement(const void *address)
    {
        umo_error error = {};
        return Status::From(umo_optimizer_optimize(address, nullptr, &error), error);
    }

    static Status Prefetch(const void *address, std::size_t size, bool for_cpu)
    {
        umo_error error = {};
        return Status::From(umo_optimizer_prefetch(address, size, detail::Side(for_cpu), &error),
                            error);
    }

    /**
     * @param total         Bytes that umo holds in this process, or wraps.
     * @param unified       Of them, those that both sides see without a copy.
     * @param eliminated    Bytes of transfers that were not needed.
     * @param distribution  Bytes of buffers by the pattern of their use.
     */
    static Status
    GetMemoryStats(std::size_t &total, std::size_t &unified, std::size_t &eliminated,
                   std::unordered_map<UnifiedMemoryPattern, std::size_t> &distribution)
    {
        umo_error error = {};
        umo_optimizer_stats stats;
        umo_status status = umo_optimizer_stats_read(&stats, &error);
        if (status != UMO_OK) {
            return Status::From(status, error);
        }
        total = static_cast<std::size_t>(stats.total_bytes);
        unified = static_cast<std::size_t>(stats.unified_bytes);
        eliminated = static_cast<std::size_t>(stats.eliminated_bytes);
        distribution.clear();
        for (int p = 0; p < UMO_PATTERNS; p++) {
            if (stats.pattern_bytes[p] > 0) {
                distribution[detail::FromC(static_cast<umo_pattern>(p))] =
                    static_cast<std::size_t>(stats.pattern_bytes[p]);
            }
        }
        return Status();
    }

    /** Answers memory pressure now, on this thread. */
    static Status AdaptToMemoryPressure()
    {
        umo_error error = {};
        return Status::From(umo_optimizer_adapt(&error), error);
    }

    static Status PinMemory(const void *address, bool pin = true)
    {
        umo_error error = {};
        return Status::From(umo_optimizer_pin(address, pin, &error), error);
    }

    /** What AllocateOptimized() would choose; METAL_UNIFIED where nothing can be said. */
    static MetalMemoryType GetOptimalMemoryType(std::size_t size, UnifiedMemoryPattern pattern,
                                                int device_id = 0)
    {
        umo_storage_mode mode = UMO_UNIFIED;
        umo_status_ignore(
            umo_optimizer_mode(size, detail::ToC(pattern), Device(device_id), &mode, nullptr));
        return static_cast<MetalMemoryType>(mode);
    }

    /** All or none, out of one piece of memory where that is possible. */
    static Status BatchAllocate(std::vector<std::unique_ptr<MetalBuffer>> &buffers,
                                const std::vector<std::size_t> &sizes,
                                UnifiedMemoryPattern pattern = UnifiedMemoryPattern::UNKNOWN,
                                int device_id = 0)
    {
        umo_error error = {};
        std::vector<umo_buffer *> made(sizes.size());
        std::vector<std::unique_ptr<MetalBuffer>> result;
        result.reserve(sizes.size());
        umo_status status =
            umo_optimizer_alloc_batch(sizes.data(), sizes.size(), detail::ToC(pattern),
                                      Device(device_id), made.data(), &error);
        if (status != UMO_OK) {
            return Status::From(status, error);
        }
        AdoptAll(made, result, device_id);
        buffers = std::move(result);
        return Status();
    }

    /** The same with lifetimes, a std::vector<umo_plan_buffer>: buffers of which no two are in use
     * at once may lie on the same bytes. umo_optimizer_alloc_planned() says what that asks of their
     * users. A template, so that BatchAllocate(buffers, {}) means sizes. */
    template <typename Lifetimes,
              typename = std::enable_if_t<std::is_same_v<Lifetimes, std::vector<umo_plan_buffer>>>>
    static Status BatchAllocate(std::vector<std::unique_ptr<MetalBuffer>> &buffers,
                                const Lifetimes &lifetimes,
                                UnifiedMemoryPattern pattern = UnifiedMemoryPattern::UNKNOWN,
                                int device_id = 0, umo_plan_result *plan = nullptr)
    {
        umo_error error = {};
        std::vector<umo_buffer *> made(lifetimes.size());
        std::vector<std::unique_ptr<MetalBuffer>> result;
        result.reserve(lifetimes.size());
        umo_status status =
            umo_optimizer_alloc_planned(lifetimes.data(), lifetimes.size(), detail::ToC(pattern),
                                        Device(device_id), made.data(), plan, &error);
        if (status != UMO_OK) {
            return Status::From(status, error);
        }
        AdoptAll(made, result, device_id);
        buffers = std::move(result);
        return Status();
    }

    static Status GetPooledBuffer(std::unique_ptr<MetalBuffer> &buffer, std::size_t size,
                                  UnifiedMemoryPattern pattern = UnifiedMemoryPattern::UNKNOWN,
                                  int device_id = 0)
    {
        umo_error error = {};
        umo_buffer *made = nullptr;
        umo_status status =
            umo_optimizer_take(size, detail::ToC(pattern), Device(device_id), &made, &error);
        return Made(buffer, made, status, error, device_id, true);
    }

    /** Its destructor does the same. INVAL for a buffer that no pool gave; it is freed then. */
    static Status ReturnToPool(std::unique_ptr<MetalBuffer> buffer)
    {
        if (buffer == nullptr || !buffer->IsPooled()) {
            return Status(UMO_E_INVAL, "that buffer is of no pool");
        }
        return Status();
    }

    /** On a node, for life; -1: where it is first touched, and then where it is used. NOT_FOUND,
     * UNSUPPORTED or REFUSED for one that cannot be. */
    static Status AllocateNUMAOptimized(std::unique_ptr<MetalBuffer> &buffer, std::size_t size,
                                        int numa_node = -1, int device_id = 0)
    {
        umo_error error = {};
        umo_buffer *made = nullptr;
        umo_status status =
            umo_optimizer_alloc_numa(size, numa_node, Device(device_id), &made, &error);
        return Made(buffer, made, status, error, device_id);
    }

    /** Every allocation, use, transfer, move and pressure event from here on, the last ones kept.
     */
    static Status EnableProfiling(bool enable)
    {
        return Status::From(umo_profile_enable(enable));
    }

    /** Writes them as CSV (docs/profiling.md). The file is whole or, after an error, as it was. */
    static Status DumpProfilingData(const std::string &file)
    {
        umo_error error = {};
        return Status::From(umo_profile_dump(file.c_str(), &error), error);
    }

    /** What is known about the buffer at an address, its first byte or one inside it. */
    static Status GetAllocation(const void *address, UnifiedMemoryAllocation &allocation)
    {
        umo_buffer *found = nullptr;
        umo_status status = umo_buffer_find(address, &found);
        if (status != UMO_OK) {
            return Status(status, "no buffer holds that memory");
        }
        const detail::Reference buffer(found);
        umo_access_stats stats;
        umo_buffer_stats(found, &stats);
        UnifiedMemoryAllocation made;
        made.buffer = umo_buffer_host(found);
        made.size = umo_buffer_size(found);
        made.current_type = static_cast<MetalMemoryType>(umo_buffer_mode(found));
        made.pattern = detail::FromC(umo_buffer_pattern(found));
        made.stats.cpu_reads = stats.host.reads.events;
        made.stats.cpu_writes = stats.host.writes.events;
        made.stats.gpu_reads = stats.device.reads.events;
        made.stats.gpu_writes = stats.device.writes.events;
        made.stats.total_accesses = stats.accesses;
        made.stats.last_access = std::chrono::steady_clock::time_point(
            std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                std::chrono::nanoseconds(stats.last_ns)));
        made.is_pinned = umo_buffer_pinned(found);
        made.device_id = umo_device_ordinal(umo_buffer_device(found));
        allocation = made;
        return Status();
    }

  private:
    static std::uint32_t Device(int device_id)
    {
        return device_id < 0 ? UINT32_MAX : static_cast<std::uint32_t>(device_id);
    }

    static Status Made(std::unique_ptr<MetalBuffer> &out, umo_buffer *made, umo_status status,
                       const umo_error &error, int device_id, bool pooled = false)
    {
        if (status != UMO_OK) {
            return Status::From(status, error);
        }
        out = MetalBuffer::Adopt(made, Device(device_id), pooled);
        return Status();
    }

    /** Into `out`, which has room for all. None is lost where an object cannot be made. */
    static void AdoptAll(std::vector<umo_buffer *> &made,
                         std::vector<std::unique_ptr<MetalBuffer>> &out, int device_id)
    {
        struct Rest {
            std::vector<umo_buffer *> &made;
            std::size_t next;
            ~Rest()
            {
                while (next < made.size()) {
                    umo_buffer_release(made[next++]);
                }
            }
        } rest = {made, 0};
        while (rest.next < made.size()) {
            out.push_back(MetalBuffer::Adopt(made[rest.next++], Device(device_id)));
        }
    }
};

/**
 * A use of memory that some buffer holds, from here to the end of the scope: the bytes are brought
 * to the side that wants them and do not move meanwhile. Memory that no buffer holds is left alone.
 */
class ScopedMemoryAccess
{
  public:
    /** is_read false promises that every byte of the range is written: nothing is brought. */
    ScopedMemoryAccess(const void *address, std::size_t size, bool is_cpu, bool is_read)
        : ScopedMemoryAccess(address, size, is_cpu, detail::Use(is_read))
    {
    }
    /** The same with UMO_READ_WRITE too, for who changes some of the bytes. */
    ScopedMemoryAccess(const void *address, std::size_t size, bool is_cpu, umo_use use)
    {
        umo_buffer *buffer = nullptr;
        umo_status found = umo_buffer_find(address, &buffer);
        if (found != UMO_OK) {
            status_ = Status(found, "no buffer holds that memory");
            return;
        }
        const detail::Reference held(buffer);
        auto offset = static_cast<std::size_t>(static_cast<const char *>(address) -
                                               static_cast<const char *>(umo_buffer_host(buffer)));
        status_ = bracket_.Open(buffer, offset, size, detail::Side(is_cpu), use);
    }
    ScopedMemoryAccess(const ScopedMemoryAccess &) = delete;
    ScopedMemoryAccess &operator=(const ScopedMemoryAccess &) = delete;

    /** NOT_FOUND, INVAL past the buffer's end, BUSY another use is in the way, DEVICE. */
    const Status &GetStatus() const
    {
        return status_;
    }

  private:
    Status status_;
    detail::Bracket bracket_;
};

/** A tensor that CPU and GPU use where it lies. */
class ZeroCopyTensor
{
  public:
    /**
     * Over memory of the caller's, which must outlive the tensor. Where the device cannot bind it
     * the bytes are copied once, IsZeroCopy() is false, and WhyCopied() says why; CopyBack() then
     * takes what the GPU has written to the caller's memory.
     *
     * INVAL: no memory, or a size that the shape and type do not need.
     */
    static Status CreateFromCPUMemory(std::unique_ptr<ZeroCopyTensor> &tensor, void *cpu_data,
                                      std::size_t byte_size, const std::vector<std::int64_t> &shape,
                                      TRITONSERVER_DataType dtype, int device_id = 0)
    {
        Status status = Check(cpu_data, byte_size, shape, dtype);
        if (!status.IsOk()) {
            return status;
        }
        std::unique_ptr<MetalBuffer> buffer;
        status = UnifiedMemoryOptimizer::CreateZeroCopyBuffer(buffer, cpu_data, byte_size, true,
                                                              device_id);
        bool shared = status.IsOk();
        std::string why;
        if (status.StatusCode() == UMO_E_REFUSED) {
            why = status.Message();
            status = UnifiedMemoryOptimizer::AllocateOptimized(
                buffer, byte_size, UnifiedMemoryPattern::UNKNOWN, device_id);
            if (status.IsOk()) {
                status = buffer->CopyFromHost(cpu_data, byte_size);
            }
        }
        if (status.IsOk()) {
            tensor.reset(new ZeroCopyTensor(std::move(buffer), cpu_data, shape, dtype, true, shared,
                                            std::move(why)));
        }
        return status;
    }

    /** Over memory that a MetalBuffer holds: gpu_data is its Data(). Shares it, copies nothing. */
    static Status CreateFromGPUMemory(std::unique_ptr<ZeroCopyTensor> &tensor, void *gpu_data,
                                      std::size_t byte_size, const std::vector<std::int64_t> &shape,
                                      TRITONSERVER_DataType dtype, int device_id = 0)
    {
        Status status = Check(gpu_data, byte_size, shape, dtype);
        std::unique_ptr<MetalBuffer> buffer;
        if (status.IsOk()) {
            status = UnifiedMemoryOptimizer::CreateZeroCopyBuffer(buffer, gpu_data, byte_size,
                                                                  false, device_id);
        }
        if (status.IsOk()) {
            tensor.reset(new ZeroCopyTensor(std::move(buffer), gpu_data, shape, dtype, false, true,
                                            std::string()));
        }
        return status;
    }

    /** Over a buffer of one's own; why_copied, if not empty, says that it holds a copy. */
    static Status CreateFromBuffer(std::unique_ptr<ZeroCopyTensor> &tensor,
                                   std::unique_ptr<MetalBuffer> buffer,
                                   const std::vector<std::int64_t> &shape,
                                   TRITONSERVER_DataType dtype, std::string why_copied = {})
    {
        if (buffer == nullptr) {
            return Status(UMO_E_INVAL, "no buffer");
        }
        Status status = Check(buffer->Get(), buffer->Size(), shape, dtype);
        if (status.IsOk()) {
            bool shared = why_copied.empty();
            tensor.reset(new ZeroCopyTensor(std::move(buffer), nullptr, shape, dtype, true, shared,
                                            std::move(why_copied)));
        }
        return status;
    }

    ZeroCopyTensor(const ZeroCopyTensor &) = delete;
    ZeroCopyTensor &operator=(const ZeroCopyTensor &) = delete;

    /** The host's address of the bytes that the tensor uses. */
    void *Data() const
    {
        return buffer_->Data();
    }
    /** What a GPU binds. Borrowed. */
    MetalBuffer *GetMetalBuffer() const
    {
        return buffer_.get();
    }
    std::size_t Size() const
    {
        return buffer_->Size();
    }
    const std::vector<std::int64_t> &Shape() const
    {
        return shape_;
    }
    TRITONSERVER_DataType DataType() const
    {
        return dtype_;
    }
    /** Where its memory came from. */
    bool IsCPU() const
    {
        return from_cpu_;
    }
    bool IsGPU() const
    {
        return !from_cpu_;
    }
    bool IsZeroCopy() const
    {
        return shared_;
    }
    const std::string &WhyCopied() const
    {
        return why_;
    }

    /** After a copy at the creation: takes the bytes back to the caller's memory. */
    Status CopyBack()
    {
        return shared_ || origin_ == nullptr ? Status() : buffer_->CopyToHost(origin_, Size());
    }

    /** Whose memory it is, if somebody wants to know later (a response). Only compared. */
    void SetOwner(const void *owner)
    {
        owner_ = owner;
    }
    bool IsOf(const void *owner) const
    {
        return owner_ != nullptr && owner_ == owner;
    }

  private:
    ZeroCopyTensor(std::unique_ptr<MetalBuffer> buffer, void *origin,
                   const std::vector<std::int64_t> &shape, TRITONSERVER_DataType dtype,
                   bool from_cpu, bool shared, std::string why)
        : buffer_(std::move(buffer)), origin_(origin), shape_(shape), dtype_(dtype),
          from_cpu_(from_cpu), shared_(shared), why_(std::move(why))
    {
    }

    static Status Check(const void *data, std::size_t byte_size,
                        const std::vector<std::int64_t> &shape, TRITONSERVER_DataType dtype)
    {
        if (data == nullptr || byte_size == 0) {
            return Status(UMO_E_INVAL, "a tensor needs memory of at least one byte");
        }
        if (shape.size() > UMO_RANK_MAX) {
            return Status(UMO_E_INVAL, "a tensor has at most 32 dimensions");
        }
        umo_shape dims = {};
        dims.rank = static_cast<std::uint32_t>(shape.size());
        std::size_t at = 0;
        for (std::int64_t dim : shape) {
            dims.dims[at++] = dim;
        }
        umo_tensor checked;
        umo_error error = {};
        return Status::From(umo_tensor_init(&checked, const_cast<void *>(data), byte_size,
                                            static_cast<umo_dtype>(dtype), &dims, &error),
                            error);
    }

    std::unique_ptr<MetalBuffer> buffer_;
    void *origin_;
    std::vector<std::int64_t> shape_;
    TRITONSERVER_DataType dtype_;
    bool from_cpu_;
    bool shared_;
    std::string why_;
    const void *owner_ = nullptr;
};

/** Transfers that were not needed: what the library's brackets found, and what a caller adds. */
class TransferEliminationTracker
{
  public:
    static Status RecordEliminatedTransfer(std::size_t size, bool cpu_to_gpu)
    {
        return Status::From(umo_optimizer_transfer_eliminated(
            size, cpu_to_gpu ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT));
    }

    /** Counts of transfers, and their bytes together. */
    static Status GetStatistics(std::size_t &total_eliminated, std::size_t &bytes_saved,
                                std::size_t &cpu_to_gpu, std::size_t &gpu_to_cpu)
    {
        umo_optimizer_transfers t;
        umo_status status = umo_optimizer_transfers_read(&t);
        if (status == UMO_OK) {
            cpu_to_gpu = static_cast<std::size_t>(t.to_device.events);
            gpu_to_cpu = static_cast<std::size_t>(t.to_host.events);
            total_eliminated = cpu_to_gpu + gpu_to_cpu;
            bytes_saved = static_cast<std::size_t>(t.to_device.bytes + t.to_host.bytes);
        }
        return Status::From(status);
    }

    static Status Reset()
    {
        return Status::From(umo_optimizer_transfers_reset());
    }
};

/** What the uses of a buffer look like; see prefetch.h. */
enum class MemoryAccessPattern {
    UNKNOWN = UMO_PREFETCH_UNKNOWN,
    SEQUENTIAL = UMO_PREFETCH_SEQUENTIAL,
    STRIDED = UMO_PREFETCH_STRIDED,
    RANDOM = UMO_PREFETCH_RANDOM,
    STREAMING = UMO_PREFETCH_STREAMING,
    TEMPORAL = UMO_PREFETCH_TEMPORAL,
    SPATIAL = UMO_PREFETCH_SPATIAL
};

/** How much is fetched ahead. */
enum class PrefetchHint {
    NONE = UMO_PREFETCH_NONE,
    CONSERVATIVE = UMO_PREFETCH_CONSERVATIVE,
    MODERATE = UMO_PREFETCH_MODERATE,
    AGGRESSIVE = UMO_PREFETCH_AGGRESSIVE,
    ADAPTIVE = UMO_PREFETCH_ADAPTIVE
};

/** Watches the uses of one buffer and gets ready what comes next. Any thread. */
class UnifiedMemoryPrefetcher
{
  public:
    /** For the buffer at an address, whose bytes are brought to the CPU or the GPU. It is held. */
    static Status RegisterRegion(std::unique_ptr<UnifiedMemoryPrefetcher> &prefetcher,
                                 const void *address, bool for_cpu,
                                 PrefetchHint hint = PrefetchHint::ADAPTIVE)
    {
        umo_buffer *buffer = nullptr;
        umo_status status = umo_buffer_find(address, &buffer);
        if (status != UMO_OK) {
            return Status(status, "no buffer holds that memory");
        }
        umo_error error = {};
        umo_prefetcher *made = nullptr;
        status = umo_prefetcher_create(buffer, detail::Side(for_cpu),
                                       static_cast<umo_prefetch_hint>(hint), &made, &error);
        const auto *base = static_cast<const char *>(umo_buffer_host(buffer));
        umo_buffer_release(buffer); /* the prefetcher holds it */
        if (status == UMO_OK) {
            std::unique_ptr<umo_prefetcher, void (*)(umo_prefetcher *)> owned(
                made, umo_prefetcher_destroy);
            prefetcher.reset(new UnifiedMemoryPrefetcher(std::move(owned), base));
        }
        return Status::From(status, error);
    }

    /** A use. INVAL outside of the buffer. */
    Status RecordAccess(const void *address, std::size_t size)
    {
        return Status::From(umo_prefetcher_record(prefetcher_.get(), Offset(address), size));
    }

    /** What is used next, the soonest first; empty where nothing is expected. */
    std::vector<std::pair<const void *, std::size_t>> PredictNext() const
    {
        umo_prefetch_range ranges[UMO_PREFETCH_DEGREE_MAX];
        std::size_t count = umo_prefetcher_predict(prefetcher_.get(), ranges);
        std::vector<std::pair<const void *, std::size_t>> next;
        for (std::size_t i = 0; i < count; i++) {
            next.emplace_back(base_ + ranges[i].offset_bytes, ranges[i].size_bytes);
        }
        return next;
    }

    /** Gets that ready now. */
    Status Prefetch()
    {
        umo_error error = {};
        return Status::From(umo_prefetcher_run(prefetcher_.get(), &error), error);
    }

    Status Advise(PrefetchHint hint)
    {
        return Status::From(
            umo_prefetcher_advise(prefetcher_.get(), static_cast<umo_prefetch_hint>(hint)));
    }

    /** How many uses ahead the prediction begins: 1 to 64. */
    Status SetDistance(std::uint32_t distance)
    {
        return Status::From(umo_prefetcher_set_distance(prefetcher_.get(), distance));
    }

    /** How many uses are predicted now. */
    std::uint32_t Degree() const
    {
        return Stats().degree;
    }
    MemoryAccessPattern Pattern() const
    {
        return static_cast<MemoryAccessPattern>(Stats().pattern);
    }
    /** The region as a whole: neither moved nor paged out. */
    Status Pin(bool pin = true)
    {
        return UnifiedMemoryOptimizer::PinMemory(base_, pin);
    }

    umo_prefetch_stats Stats() const
    {
        umo_prefetch_stats stats;
        umo_prefetcher_read(prefetcher_.get(), &stats);
        return stats;
    }

  private:
    UnifiedMemoryPrefetcher(std::unique_ptr<umo_prefetcher, void (*)(umo_prefetcher *)> prefetcher,
                            const char *base)
        : prefetcher_(std::move(prefetcher)), base_(base)
    {
    }

    /** Far outside for an address before the buffer, which the library refuses. */
    std::size_t Offset(const void *address) const
    {
        return reinterpret_cast<std::uintptr_t>(address) - reinterpret_cast<std::uintptr_t>(base_);
    }

    std::unique_ptr<umo_prefetcher, void (*)(umo_prefetcher *)> prefetcher_;
    const char *base_;
};

} // namespace umo

/** Where users of the design look for the names. */
namespace triton
{
namespace core
{
using umo::MemoryAccessPattern;
using umo::MemoryAccessStats;
using umo::MetalBuffer;
using umo::MetalMemoryType;
using umo::PrefetchHint;
using umo::ScopedMemoryAccess;
using umo::TransferEliminationTracker;
using umo::UnifiedMemoryAllocation;
using umo::UnifiedMemoryConfig;
using umo::UnifiedMemoryOptimizer;
using umo::UnifiedMemoryPattern;
using umo::UnifiedMemoryPoolConfig;
using umo::UnifiedMemoryPrefetcher;
using umo::ZeroCopyTensor;
} // namespace core
} // namespace triton

#endif

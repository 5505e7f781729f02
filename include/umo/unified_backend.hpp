/**
 * @file unified_backend.hpp
 * The mission's backend classes in C++17: a backend of one's own whose tensors stay where they lie.
 *
 * Derive from UnifiedMetalBackend, write Initialize() and Execute(), and put
 * UMO_UNIFIED_BACKEND(YourClass) into one source file: the server loads the library that comes of
 * it. Link libumo and the kit's static library (which reads the configuration). Triton's own
 * headers have to be found: <triton/core/tritonbackend.h>, or include them before this one.
 *
 * For more than that (batches as they lie, views that outlive a client's region, devices) write
 * against triton.h instead, as umo's own backends do.
 */
#ifndef UMO_UNIFIED_BACKEND_HPP
#define UMO_UNIFIED_BACKEND_HPP

#if !defined(TRITONBACKEND_API_VERSION_MAJOR)
#include <triton/core/tritonbackend.h>
#endif

#include <umo/triton.h>
#include <umo/unified_memory.hpp>

#include <exception>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace triton
{
namespace backend
{
namespace metal
{

using namespace triton::core;

/** What a result is to the server; null for success. */
inline TRITONSERVER_Error *ToTriton(const umo::Status &status)
{
    TRITONSERVER_Error_Code code = TRITONSERVER_ERROR_UNKNOWN;
    switch (status.StatusCode()) {
    case UMO_OK:
        return nullptr;
    case UMO_E_INVAL:
        code = TRITONSERVER_ERROR_INVALID_ARG;
        break;
    case UMO_E_NOT_FOUND:
        code = TRITONSERVER_ERROR_NOT_FOUND;
        break;
    case UMO_E_NOMEM:
    case UMO_E_LIMIT:
    case UMO_E_BUSY:
    case UMO_E_TIMEOUT:
        code = TRITONSERVER_ERROR_UNAVAILABLE;
        break;
    case UMO_E_UNSUPPORTED:
    case UMO_E_REFUSED:
        code = TRITONSERVER_ERROR_UNSUPPORTED;
        break;
    case UMO_E_DEVICE:
    case UMO_E_SYSTEM:
        code = TRITONSERVER_ERROR_INTERNAL;
        break;
    }
    return TRITONSERVER_ErrorNew(code, status.Message().c_str());
}

struct UnifiedBackendConfig {
    bool enable_unified_memory = true;
    /** By a tensor's name, or "input", "output", "weights" and "intermediate" for all others. */
    std::unordered_map<std::string, UnifiedMemoryPattern> tensor_patterns = {
        {"input", UnifiedMemoryPattern::CPU_DOMINANT},
        {"output", UnifiedMemoryPattern::GPU_DOMINANT},
        {"weights", UnifiedMemoryPattern::GPU_DOMINANT},
        {"intermediate", UnifiedMemoryPattern::BALANCED},
    };
    std::size_t zero_copy_threshold = std::size_t{1} << 20; /**< smaller tensors are copied */
    bool enable_batch_optimization = true; /**< BatchAllocateTensors() makes one allocation */
    bool enable_profiling = false;
};

/** BALANCED for memory that both sides see, else the side that has it. */
inline UnifiedMemoryPattern GetPatternFromMemoryType(TRITONSERVER_MemoryType type)
{
    switch (type) {
    case TRITONSERVER_MEMORY_CPU:
        return UnifiedMemoryPattern::CPU_DOMINANT;
    case TRITONSERVER_MEMORY_CPU_PINNED:
        return UnifiedMemoryPattern::BALANCED;
    case TRITONSERVER_MEMORY_GPU:
        return UnifiedMemoryPattern::GPU_DOMINANT;
    }
    return UnifiedMemoryPattern::UNKNOWN;
}

/** Whether a tensor is worth wrapping: on, long enough, and in memory that the host sees. */
inline bool CanUseZeroCopy(std::size_t byte_size, TRITONSERVER_MemoryType type,
                           const UnifiedBackendConfig &config)
{
    return config.enable_unified_memory && byte_size >= config.zero_copy_threshold &&
           type != TRITONSERVER_MEMORY_GPU;
}

/**
 * Reads `optimization.unified_memory` of a model configuration (the mission's form), or the
 * parameter of that name that the server passes on. Patterns that it does not name keep their
 * defaults. INVALID_ARG names the field and what is allowed.
 */
inline TRITONSERVER_Error *CreateUnifiedConfigFromModelConfig(const std::string &model_config,
                                                              UnifiedBackendConfig &config)
{
    UnifiedBackendConfig made;
    umo_unified_config read;
    umo_error error = {};
    struct Sink {
        std::unordered_map<std::string, UnifiedMemoryPattern> &patterns;
        bool full;
    } sink = {made.tensor_patterns, false};
    const auto note = [](const char *name, umo_pattern pattern, void *user) {
        auto *to = static_cast<Sink *>(user);
        try {
            to->patterns[name] = umo::detail::FromC(pattern);
        } catch (...) {
            to->full = true; /* nothing may be thrown through the C code that calls this */
        }
    };
    umo_status status = umo_unified_config_find(model_config.c_str(), &read, note, &sink, &error);
    if (status == UMO_OK && sink.full) {
        status = UMO_E_NOMEM;
    }
    if (status != UMO_OK) {
        return ToTriton(umo::Status::From(status, error));
    }
    made.enable_unified_memory = read.enable;
    made.enable_batch_optimization = read.batch_optimization;
    made.enable_profiling = read.profiling;
    if (read.zero_copy_threshold != UMO_THRESHOLD_AUTO) {
        made.zero_copy_threshold = read.zero_copy_threshold;
    }
    config = std::move(made);
    return nullptr;
}

/** A use of a tensor's memory by the CPU, from here to the end of the scope. */
class BackendMemoryAccessTracker
{
  public:
    BackendMemoryAccessTracker(const void *address, std::size_t size, bool is_input,
                               std::string tensor_name)
        : name_(std::move(tensor_name)), access_(address, size, true, is_input)
    {
    }

    const std::string &TensorName() const
    {
        return name_;
    }
    const umo::Status &GetStatus() const
    {
        return access_.GetStatus();
    }

  private:
    std::string name_;
    ScopedMemoryAccess access_;
};

/**
 * The base class of a backend's model: one object a model, shared by its instances, so Execute()
 * may run on several threads at a time. All functions return null on success, else an error that
 * the caller owns.
 */
class UnifiedMetalBackend
{
  public:
    UnifiedMetalBackend() = default;
    UnifiedMetalBackend(const UnifiedMetalBackend &) = delete;
    UnifiedMetalBackend &operator=(const UnifiedMetalBackend &) = delete;

    virtual ~UnifiedMetalBackend()
    {
        if (joined_) {
            (void)UnifiedMemoryOptimizer::Shutdown();
        }
    }

    /** Called once, when the model is loaded: calls InitializeUnifiedMemory(). */
    virtual TRITONSERVER_Error *Initialize() = 0;

    /**
     * Computes and answers: sends a final response for each request; they are released after it
     * returns. Whoever returns an error, or throws, has answered none: all of them get it. What may
     * throw after the first response was sent has to be caught, see detail::Thrown().
     */
    virtual TRITONSERVER_Error *Execute(TRITONBACKEND_Request **requests, std::uint32_t count) = 0;

    /** The model's configuration as the server has it, JSON. */
    const std::string &ModelConfig() const
    {
        return model_config_;
    }
    const UnifiedBackendConfig &Config() const
    {
        return config_;
    }

    /** For UMO_UNIFIED_BACKEND. */
    void SetModelConfig(std::string json)
    {
        model_config_ = std::move(json);
    }

  protected:
    /** Joins the process's optimizer, whatever its configuration; starts it where there is none. */
    TRITONSERVER_Error *InitializeUnifiedMemory(const UnifiedBackendConfig &config)
    {
        umo_error error = {};
        umo_status status = joined_ ? UMO_OK : umo_optimizer_initialize(nullptr, &error);
        if (status == UMO_OK) {
            joined_ = true;
            config_ = config;
            if (config.enable_profiling) {
                return ToTriton(UnifiedMemoryOptimizer::EnableProfiling(true));
            }
        }
        return ToTriton(umo::Status::From(status, error));
    }

    /** Memory for an input of the engine; zero_copy_if_possible lets the mode follow its pattern,
     * false takes memory of the device's own. */
    TRITONSERVER_Error *CreateOptimizedInputTensor(const std::string &name,
                                                   TRITONSERVER_DataType dtype,
                                                   const std::vector<std::int64_t> &shape,
                                                   std::unique_ptr<MetalBuffer> &buffer,
                                                   bool zero_copy_if_possible = true)
    {
        return CreateTensor(name, "input", dtype, shape, buffer, zero_copy_if_possible);
    }

    TRITONSERVER_Error *CreateOptimizedOutputTensor(const std::string &name,
                                                    TRITONSERVER_DataType dtype,
                                                    const std::vector<std::int64_t> &shape,
                                                    std::unique_ptr<MetalBuffer> &buffer,
                                                    bool zero_copy_if_possible = true)
    {
        return CreateTensor(name, "output", dtype, shape, buffer, zero_copy_if_possible);
    }

    /**
     * An input of a request where it lies. Copied once, and IsZeroCopy() false, where it is in
     * pieces, too short to be worth it, or where the device cannot bind it. Valid until Execute()
     * returns.
     */
    TRITONSERVER_Error *GetZeroCopyInputTensor(TRITONBACKEND_Request *request, const char *name,
                                               std::unique_ptr<ZeroCopyTensor> &tensor)
    {
        TRITONBACKEND_Input *input = nullptr;
        TRITONSERVER_Error *failed = TRITONBACKEND_RequestInput(request, name, &input);
        const char *own_name = nullptr;
        TRITONSERVER_DataType dtype = TRITONSERVER_TYPE_INVALID;
        const std::int64_t *dims = nullptr;
        std::uint32_t rank = 0;
        std::uint64_t byte_size = 0;
        std::uint32_t pieces = 0;
        if (failed == nullptr) {
            failed = TRITONBACKEND_InputProperties(input, &own_name, &dtype, &dims, &rank,
                                                   &byte_size, &pieces);
        }
        if (failed != nullptr) {
            return failed;
        }
        const std::vector<std::int64_t> shape(dims, dims + rank);
        const void *data = nullptr;
        std::uint64_t size = 0;
        TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
        std::int64_t type_id = 0;
        if (pieces == 1) {
            failed = TRITONBACKEND_InputBuffer(input, 0, &data, &size, &type, &type_id);
            if (failed != nullptr) {
                return failed;
            }
            if (size == byte_size && CanUseZeroCopy(byte_size, type, config_)) {
                return ToTriton(ZeroCopyTensor::CreateFromCPUMemory(
                    tensor, const_cast<void *>(data), byte_size, shape, dtype));
            }
        }
        return GatherInput(input, pieces, byte_size, shape, dtype, tensor);
    }

    /**
     * Memory of a response to compute into. Hand the tensor to SetZeroCopyOutputTensor()
     * afterwards.
     */
    TRITONSERVER_Error *GetZeroCopyOutputTensor(TRITONBACKEND_Response *response, const char *name,
                                                TRITONSERVER_DataType dtype,
                                                const std::vector<std::int64_t> &shape,
                                                std::unique_ptr<ZeroCopyTensor> &tensor)
    {
        std::uint64_t byte_size = 0;
        TRITONSERVER_Error *failed = ByteSize(name, dtype, shape, byte_size);
        void *data = nullptr;
        if (failed == nullptr) {
            failed = OutputMemory(response, name, dtype, shape, byte_size, &data);
        }
        if (failed == nullptr) {
            failed = ToTriton(ZeroCopyTensor::CreateFromCPUMemory(
                tensor, data, static_cast<std::size_t>(byte_size), shape, dtype));
        }
        if (failed == nullptr) {
            tensor->SetOwner(response);
        }
        return failed;
    }

    /**
     * Answers with a tensor. One of GetZeroCopyOutputTensor() is there already; any other is copied
     * once into the response.
     */
    TRITONSERVER_Error *SetZeroCopyOutputTensor(TRITONBACKEND_Response *response, const char *name,
                                                std::unique_ptr<ZeroCopyTensor> tensor)
    {
        if (tensor == nullptr) {
            return ToTriton(umo::Status(UMO_E_INVAL, "no tensor"));
        }
        if (tensor->IsOf(response)) {
            return ToTriton(tensor->CopyBack());
        }
        void *data = nullptr;
        TRITONSERVER_Error *failed = OutputMemory(response, name, tensor->DataType(),
                                                  tensor->Shape(), tensor->Size(), &data);
        return failed != nullptr
                   ? failed
                   : ToTriton(tensor->GetMetalBuffer()->CopyToHost(data, tensor->Size()));
    }

    /** Memory for several tensors at once: all or none. */
    TRITONSERVER_Error *BatchAllocateTensors(const std::vector<std::string> &names,
                                             const std::vector<TRITONSERVER_DataType> &dtypes,
                                             const std::vector<std::vector<std::int64_t>> &shapes,
                                             std::vector<std::unique_ptr<MetalBuffer>> &buffers)
    {
        if (names.size() != dtypes.size() || names.size() != shapes.size()) {
            return ToTriton(umo::Status(UMO_E_INVAL, "a name, a type and a shape for each tensor"));
        }
        std::vector<std::size_t> sizes;
        for (std::size_t i = 0; i < names.size(); i++) {
            std::uint64_t byte_size = 0;
            TRITONSERVER_Error *failed = ByteSize(names[i], dtypes[i], shapes[i], byte_size);
            if (failed != nullptr) {
                return failed;
            }
            sizes.push_back(static_cast<std::size_t>(byte_size));
        }
        if (config_.enable_batch_optimization) {
            return ToTriton(UnifiedMemoryOptimizer::BatchAllocate(buffers, sizes,
                                                                  PatternOf("", "intermediate")));
        }
        std::vector<std::unique_ptr<MetalBuffer>> made(names.size());
        for (std::size_t i = 0; i < names.size(); i++) {
            umo::Status status = UnifiedMemoryOptimizer::AllocateOptimized(
                made[i], sizes[i], PatternOf(names[i], "intermediate"));
            if (!status.IsOk()) {
                return ToTriton(status);
            }
        }
        buffers = std::move(made);
        return nullptr;
    }

    TRITONSERVER_Error *GetMemoryStatistics(std::size_t &total, std::size_t &unified,
                                            std::size_t &eliminated)
    {
        std::unordered_map<UnifiedMemoryPattern, std::size_t> distribution;
        return ToTriton(
            UnifiedMemoryOptimizer::GetMemoryStats(total, unified, eliminated, distribution));
    }

  private:
    UnifiedMemoryPattern PatternOf(const std::string &name, const char *group) const
    {
        auto found = config_.tensor_patterns.find(name);
        if (found == config_.tensor_patterns.end()) {
            found = config_.tensor_patterns.find(group);
        }
        return found == config_.tensor_patterns.end() ? UnifiedMemoryPattern::UNKNOWN
                                                      : found->second;
    }

    static TRITONSERVER_Error *ByteSize(const std::string &name, TRITONSERVER_DataType dtype,
                                        const std::vector<std::int64_t> &shape,
                                        std::uint64_t &byte_size)
    {
        umo_shape dims = {};
        umo_status status = shape.size() > UMO_RANK_MAX ? UMO_E_INVAL : UMO_OK;
        for (std::size_t i = 0; status == UMO_OK && i < shape.size(); i++) {
            dims.dims[i] = shape[i];
        }
        dims.rank = static_cast<std::uint32_t>(shape.size());
        if (status == UMO_OK) {
            status = umo_shape_bytes(&dims, static_cast<umo_dtype>(dtype), &byte_size);
        }
        return status == UMO_OK
                   ? nullptr
                   : ToTriton(umo::Status(status, "tensor '" + name + "' has no certain size"));
    }

    TRITONSERVER_Error *CreateTensor(const std::string &name, const char *group,
                                     TRITONSERVER_DataType dtype,
                                     const std::vector<std::int64_t> &shape,
                                     std::unique_ptr<MetalBuffer> &buffer, bool zero_copy)
    {
        std::uint64_t byte_size = 0;
        TRITONSERVER_Error *failed = ByteSize(name, dtype, shape, byte_size);
        if (failed != nullptr) {
            return failed;
        }
        zero_copy = zero_copy && config_.enable_unified_memory;
        return ToTriton(UnifiedMemoryOptimizer::AllocateOptimized(
            buffer, static_cast<std::size_t>(byte_size),
            zero_copy ? PatternOf(name, group) : UnifiedMemoryPattern::GPU_DOMINANT));
    }

    /** Copies an input's pieces behind each other into memory of our own. */
    TRITONSERVER_Error *GatherInput(TRITONBACKEND_Input *input, std::uint32_t pieces,
                                    std::uint64_t byte_size, const std::vector<std::int64_t> &shape,
                                    TRITONSERVER_DataType dtype,
                                    std::unique_ptr<ZeroCopyTensor> &tensor)
    {
        std::unique_ptr<MetalBuffer> buffer;
        umo::Status status = UnifiedMemoryOptimizer::AllocateOptimized(
            buffer, static_cast<std::size_t>(byte_size), UnifiedMemoryPattern::BALANCED);
        std::size_t offset = 0;
        for (std::uint32_t i = 0; status.IsOk() && i < pieces; i++) {
            const void *data = nullptr;
            std::uint64_t size = 0;
            TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
            std::int64_t type_id = 0;
            TRITONSERVER_Error *failed =
                TRITONBACKEND_InputBuffer(input, i, &data, &size, &type, &type_id);
            if (failed != nullptr) {
                return failed;
            }
            if (type == TRITONSERVER_MEMORY_GPU) {
                return ToTriton(umo::Status(UMO_E_UNSUPPORTED, "an input lies in GPU memory"));
            }
            if (size > byte_size - offset) {
                return ToTriton(umo::Status(UMO_E_INVAL, "an input is longer than it says"));
            }
            status = buffer->CopyFromHost(data, static_cast<std::size_t>(size), offset);
            offset += static_cast<std::size_t>(size);
        }
        if (status.IsOk() && offset != byte_size) {
            status = umo::Status(UMO_E_INVAL, "an input is shorter than it says");
        }
        if (status.IsOk()) {
            status = ZeroCopyTensor::CreateFromBuffer(tensor, std::move(buffer), shape, dtype,
                                                      "copied out of the request");
        }
        return ToTriton(status);
    }

    /** Adds an output to a response and asks where it goes. */
    static TRITONSERVER_Error *OutputMemory(TRITONBACKEND_Response *response, const char *name,
                                            TRITONSERVER_DataType dtype,
                                            const std::vector<std::int64_t> &shape,
                                            std::uint64_t byte_size, void **data)
    {
        TRITONBACKEND_Output *output = nullptr;
        TRITONSERVER_MemoryType type = TRITONSERVER_MEMORY_CPU;
        std::int64_t type_id = 0;
        TRITONSERVER_Error *failed = TRITONBACKEND_ResponseOutput(
            response, &output, name, dtype, shape.data(), static_cast<std::uint32_t>(shape.size()));
        if (failed == nullptr) {
            failed = TRITONBACKEND_OutputBuffer(output, data, byte_size, &type, &type_id);
        }
        if (failed == nullptr && type == TRITONSERVER_MEMORY_GPU) {
            failed = ToTriton(umo::Status(UMO_E_UNSUPPORTED, "an output goes to GPU memory"));
        }
        return failed;
    }

    UnifiedBackendConfig config_;
    std::string model_config_;
    bool joined_ = false;
};

namespace detail
{

/** Sends an error to a request that has no answer. */
inline void Refuse(TRITONBACKEND_Request *request, TRITONSERVER_Error *error)
{
    TRITONBACKEND_Response *response = nullptr;
    TRITONSERVER_Error *failed = TRITONBACKEND_ResponseNew(&response, request);
    if (failed == nullptr) {
        failed = TRITONBACKEND_ResponseSend(response, TRITONSERVER_RESPONSE_COMPLETE_FINAL, error);
    }
    if (failed != nullptr) {
        TRITONSERVER_ErrorDelete(failed);
    }
}

/** The server's word for what a function of ours may throw. */
inline TRITONSERVER_Error *Thrown()
{
    try {
        throw;
    } catch (const std::bad_alloc &) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_UNAVAILABLE, "memory is out");
    } catch (const std::exception &e) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, e.what());
    } catch (...) {
        return TRITONSERVER_ErrorNew(TRITONSERVER_ERROR_INTERNAL, "something was thrown");
    }
}

inline TRITONSERVER_Error *ReadModelConfig(TRITONBACKEND_Model *model, std::string &json)
{
    TRITONSERVER_Message *message = nullptr;
    const char *text = nullptr;
    std::size_t size = 0;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelConfig(model, 1, &message);
    if (failed == nullptr) {
        failed = TRITONSERVER_MessageSerializeToJson(message, &text, &size);
    }
    if (failed == nullptr) {
        json.assign(text, size);
    }
    if (message != nullptr) {
        TRITONSERVER_Error *ignored = TRITONSERVER_MessageDelete(message);
        if (ignored != nullptr) {
            TRITONSERVER_ErrorDelete(ignored);
        }
    }
    return failed;
}

template <typename Backend> TRITONSERVER_Error *ModelInitialize(TRITONBACKEND_Model *model)
{
    try {
        auto backend = std::make_unique<Backend>();
        std::string json;
        TRITONSERVER_Error *failed = ReadModelConfig(model, json);
        if (failed == nullptr) {
            backend->SetModelConfig(std::move(json));
            failed = backend->Initialize();
        }
        if (failed == nullptr) {
            UnifiedMetalBackend *state = backend.get();
            failed = TRITONBACKEND_ModelSetState(model, state);
        }
        if (failed == nullptr) {
            (void)backend.release(); /* ModelFinalize() deletes it */
        }
        return failed;
    } catch (...) {
        return Thrown();
    }
}

inline TRITONSERVER_Error *ModelFinalize(TRITONBACKEND_Model *model)
{
    void *state = nullptr;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelState(model, &state);
    if (failed == nullptr) {
        delete static_cast<UnifiedMetalBackend *>(state);
    }
    return failed;
}

inline TRITONSERVER_Error *ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,
                                                TRITONBACKEND_Request **requests,
                                                std::uint32_t count)
{
    TRITONBACKEND_Model *model = nullptr;
    void *state = nullptr;
    TRITONSERVER_Error *failed = TRITONBACKEND_ModelInstanceModel(instance, &model);
    if (failed == nullptr) {
        failed = TRITONBACKEND_ModelState(model, &state);
    }
    if (failed != nullptr) {
        return failed; /* the server answers and keeps the requests */
    }
    try {
        failed = static_cast<UnifiedMetalBackend *>(state)->Execute(requests, count);
    } catch (...) {
        failed = Thrown();
    }
    for (std::uint32_t i = 0; i < count; i++) {
        if (failed != nullptr) {
            Refuse(requests[i], failed);
        }
        TRITONSERVER_Error *released =
            TRITONBACKEND_RequestRelease(requests[i], TRITONSERVER_REQUEST_RELEASE_ALL);
        if (released != nullptr) {
            TRITONSERVER_ErrorDelete(released);
        }
    }
    if (failed != nullptr) {
        TRITONSERVER_ErrorDelete(failed);
    }
    return nullptr;
}

} // namespace detail

} // namespace metal
} // namespace backend
} // namespace triton

/** Defines what the server looks up in a backend's library. Once, outside of every namespace. */
#define UMO_UNIFIED_BACKEND(Backend)                                                               \
    extern "C" {                                                                                   \
    __attribute__((visibility("default"))) TRITONSERVER_Error *                                    \
    TRITONBACKEND_ModelInitialize(TRITONBACKEND_Model *model)                                      \
    {                                                                                              \
        return triton::backend::metal::detail::ModelInitialize<Backend>(model);                    \
    }                                                                                              \
    __attribute__((visibility("default"))) TRITONSERVER_Error *                                    \
    TRITONBACKEND_ModelFinalize(TRITONBACKEND_Model *model)                                        \
    {                                                                                              \
        return triton::backend::metal::detail::ModelFinalize(model);                               \
    }                                                                                              \
    __attribute__((visibility("default"))) TRITONSERVER_Error *                                    \
    TRITONBACKEND_ModelInstanceExecute(TRITONBACKEND_ModelInstance *instance,                      \
                                       TRITONBACKEND_Request **requests,                           \
                                       const std::uint32_t count)                                  \
    {                                                                                              \
        return triton::backend::metal::detail::ModelInstanceExecute(instance, requests, count);    \
    }                                                                                              \
    }

#endif

/*
 * DLPack in and out.
 *
 * The protocol hands over bare memory and one function that gives it back, so all that a bracket
 * knows has to be settled before: an export waits for whatever is pending and then holds the buffer
 * (umo_buffer_export_begin); an import is memory that somebody else owns (umo_buffer_import), whose
 * deleter runs behind the last use as for any other.
 */
#include "base/size.h"
#include "driver/device.h"
#include "tensor/extent.h"

#include <umo/dlpack.h>

#include <stdlib.h>
#include <string.h>

/* ---- types ---- */

typedef struct type_row {
    umo_dtype dtype;
    umo_dl_code code;
    uint8_t bits;
} type_row;

static const type_row types[] = {
    {UMO_BOOL, UMO_DL_BOOL, 8},    {UMO_UINT8, UMO_DL_UINT, 8},   {UMO_UINT16, UMO_DL_UINT, 16},
    {UMO_UINT32, UMO_DL_UINT, 32}, {UMO_UINT64, UMO_DL_UINT, 64}, {UMO_INT8, UMO_DL_INT, 8},
    {UMO_INT16, UMO_DL_INT, 16},   {UMO_INT32, UMO_DL_INT, 32},   {UMO_INT64, UMO_DL_INT, 64},
    {UMO_FP16, UMO_DL_FLOAT, 16},  {UMO_FP32, UMO_DL_FLOAT, 32},  {UMO_FP64, UMO_DL_FLOAT, 64},
    {UMO_BF16, UMO_DL_BFLOAT, 16},
};

static const type_row *type_of_umo(umo_dtype dtype)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        if (types[i].dtype == dtype) {
            return &types[i];
        }
    }
    return NULL;
}

/* What we know the name of and cannot take: part of the error's words. */
static const char *code_name(uint8_t code)
{
    static const char *const names[] = {
        "int",
        "uint",
        "float",
        "opaque handle",
        "bfloat",
        "complex",
        "bool",
        "float8_e3m4",
        "float8_e4m3",
        "float8_e4m3b11fnuz",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
        "float8_e8m0fnu",
        "float6_e2m3fn",
        "float6_e3m2fn",
        "float4_e2m1fn",
    };
    return code < sizeof names / sizeof names[0] ? names[code] : "unknown";
}

static umo_status type_of_dl(umo_dl_type type, umo_dtype *out, umo_error *error)
{
    for (size_t i = 0; i < sizeof types / sizeof types[0] && type.lanes == 1; i++) {
        if (types[i].code == type.code && types[i].bits == type.bits) {
            *out = types[i].dtype;
            return UMO_OK;
        }
    }
    return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                         "element type %s (code %u) of %u bits in %u lane(s)", code_name(type.code),
                         type.code, type.bits, type.lanes);
}

static const char *device_name(int32_t type)
{
    switch (type) {
    case UMO_DL_CPU:
        return "CPU";
    case UMO_DL_CUDA:
        return "CUDA";
    case UMO_DL_CUDA_HOST:
        return "CUDA pinned";
    case UMO_DL_OPENCL:
        return "OpenCL";
    case UMO_DL_VULKAN:
        return "Vulkan";
    case UMO_DL_METAL:
        return "Metal";
    case UMO_DL_ROCM:
        return "ROCm";
    case UMO_DL_ROCM_HOST:
        return "ROCm pinned";
    case UMO_DL_CUDA_MANAGED:
        return "CUDA managed";
    default:
        return "unknown";
    }
}

/* ---- out ---- */

typedef struct export
{
    umo_dl_managed_versioned managed;
    umo_buffer *buffer; /* NULL when there are no elements to hold */
    umo_side side;
    bool writable;
    umo_tensor tensor; /* whose shape and strides are shown */
}
export;

static void export_delete(umo_dl_managed_versioned *self)
{
    export *e = self->manager;
    if (e->buffer != NULL) {
        umo_status_ignore(umo_buffer_export_end(e->buffer, e->side, e->writable, (umo_fence){0}));
    }
    free(e);
}

/* Whose memory the device's side is, in the protocol's words. */
static bool device_of(const umo_device *device, umo_dl_device_type *out)
{
    const umo_device_info *info = umo_device_info_get(device);
    switch (info->language) {
    case UMO_LANGUAGE_HOST:
        *out = UMO_DL_CPU;
        return (info->caps & UMO_CAP_HOST_PROCESSOR) != 0;
    case UMO_LANGUAGE_OPENCL_C:
        *out = UMO_DL_OPENCL;
        return true;
    case UMO_LANGUAGE_METAL:
        *out = UMO_DL_METAL;
        return true;
    case UMO_LANGUAGE_CUDA:
        *out = UMO_DL_CUDA;
        return true;
    }
    return false;
}

/* Where the tensor lies on its side; inside the export, when memory and addresses stay. */
static void place_fill(umo_dl_tensor *dl, const umo_tensor *tensor, umo_side side)
{
    if (side == UMO_SIDE_HOST) {
        dl->data = (char *)umo_buffer_host(tensor->buffer) + tensor->offset_bytes;
        return;
    }
    const umo_memory *memory = umo_buffer_memory(tensor->buffer);
    const size_t offset_bytes =
        memory->offset_bytes + umo_buffer_memory_offset(tensor->buffer) + tensor->offset_bytes;
    if (dl->device.type == UMO_DL_CPU || dl->device.type == UMO_DL_CUDA) {
        dl->data = (char *)memory->native + offset_bytes;
    } else {
        dl->data = memory->native;
        dl->byte_offset = offset_bytes;
    }
}

/* A tensor is a plain value that anybody can fill: its elements have to lie in its buffer. */
static umo_status export_check(const umo_tensor *tensor, uint64_t *count, umo_error *error)
{
    uint64_t extent_bytes = 0;
    if (tensor->buffer == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a tensor in plain host memory has no buffer that could be held");
    }
    if (type_of_umo(tensor->dtype) == NULL || umo_shape_count(&tensor->shape, count) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a tensor of %s is not handed out",
                             umo_dtype_name(tensor->dtype));
    }
    if (*count != 0 && (!umo_tensor_extent(tensor, &extent_bytes) || extent_bytes > SIZE_MAX ||
                        !umo_range_fits(tensor->offset_bytes, (size_t)extent_bytes,
                                        umo_buffer_size(tensor->buffer)))) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the elements do not lie in the buffer");
    }
    return UMO_OK;
}

/* Hands the buffer over and waits for what is pending. */
static umo_status export_open(export *e, umo_error *error)
{
    umo_fence_set waits;
    umo_buffer *buffer = e->tensor.buffer;
    umo_status status = umo_buffer_export_begin(buffer, e->side, e->writable, &waits);
    if (status != UMO_OK) {
        return umo_error_set(error, status, 0, "the tensor's buffer cannot be handed out now");
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (status != UMO_OK) {
        umo_status_ignore(umo_buffer_export_end(buffer, e->side, e->writable, (umo_fence){0}));
        return umo_error_set(error, status, 0, "work on the tensor's bytes failed");
    }
    e->buffer = buffer;
    return UMO_OK;
}

umo_status umo_tensor_to_dlpack(const umo_tensor *tensor, const umo_dl_export *options,
                                umo_dl_managed_versioned **out, umo_error *error)
{
    const umo_dl_export defaults = {0};
    options = options != NULL ? options : &defaults;
    const umo_side side = options->side != 0 ? options->side : UMO_SIDE_HOST;
    uint64_t count = 0;
    umo_status status = export_check(tensor, &count, error);
    if (status != UMO_OK) {
        return status;
    }
    umo_dl_device_type device = UMO_DL_CPU;
    if (side == UMO_SIDE_DEVICE && !device_of(umo_buffer_device(tensor->buffer), &device)) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "memory of driver '%s' has no DLPack type",
                             umo_device_info_get(umo_buffer_device(tensor->buffer))->driver);
    }
    export *e = calloc(1, sizeof *e);
    if (e == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for an export");
    }
    const type_row *type = type_of_umo(tensor->dtype);
    e->tensor = *tensor;
    e->side = side;
    e->writable = !options->read_only;
    e->managed = (umo_dl_managed_versioned){
        .version = {UMO_DL_MAJOR, UMO_DL_MINOR},
        .manager = e,
        .deleter = export_delete,
        .flags = options->read_only ? UMO_DL_READ_ONLY : 0,
        .tensor = {.device = {.type = (int32_t)device,
                              .id = device == UMO_DL_CPU
                                        ? 0
                                        : (int32_t)umo_buffer_device(tensor->buffer)->ordinal},
                   .ndim = (int32_t)tensor->shape.rank,
                   .dtype = {(uint8_t)type->code, type->bits, 1},
                   .shape = e->tensor.shape.dims,
                   .strides = e->tensor.strides},
    };
    if (count != 0) {
        status = export_open(e, error);
        if (status != UMO_OK) {
            free(e);
            return status;
        }
        place_fill(&e->managed.tensor, tensor, side);
    }
    *out = &e->managed;
    return UMO_OK;
}

/* ---- in ---- */

static void versioned_run(void *data, void *user)
{
    (void)data;
    umo_dl_managed_versioned *managed = user;
    managed->deleter(managed);
}

static void unversioned_run(void *data, void *user)
{
    (void)data;
    umo_dl_managed *managed = user;
    managed->deleter(managed);
}

/* Type, shape and strides, with nothing taken on trust. Strides of an empty tensor, and those of a
 * dimension of one, say nothing: nobody steps by them. */
static umo_status shape_read(const umo_dl_tensor *dl, umo_tensor *out, uint64_t *extent_bytes,
                             umo_error *error)
{
    umo_status status = type_of_dl(dl->dtype, &out->dtype, error);
    if (status != UMO_OK) {
        return status;
    }
    if (dl->ndim < 0 || (uint32_t)dl->ndim > UMO_RANK_MAX || (dl->ndim > 0 && dl->shape == NULL)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a shape of %d dimension(s); at most %u",
                             (int)dl->ndim, UMO_RANK_MAX);
    }
    out->shape.rank = (uint32_t)dl->ndim;
    for (uint32_t i = 0; i < out->shape.rank; i++) {
        out->shape.dims[i] = dl->shape[i];
    }
    uint64_t count = 0;
    uint64_t packed_bytes;
    if (umo_shape_count(&out->shape, &count) != UMO_OK ||
        umo_shape_bytes(&out->shape, out->dtype, &packed_bytes) != UMO_OK) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "a dimension is below 0, or the elements are too many");
    }
    *extent_bytes = 0;
    if (count == 0) {
        return UMO_OK;
    }
    int64_t packed = 1;
    for (uint32_t i = out->shape.rank; i-- > 0;) {
        const bool stepped = out->shape.dims[i] != 1;
        out->strides[i] = dl->strides != NULL && stepped ? dl->strides[i] : packed;
        packed *= out->shape.dims[i];
        if (out->strides[i] < 0) {
            return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                                 "dimension %u runs backwards (stride %lld)", i,
                                 (long long)out->strides[i]);
        }
    }
    if (!umo_tensor_extent(out, extent_bytes) || *extent_bytes > SIZE_MAX) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the strides reach beyond any memory");
    }
    return UMO_OK;
}

static umo_status memory_read(const umo_dl_tensor *dl, const umo_tensor *tensor, void **data,
                              umo_reason *why, umo_error *error)
{
    if (dl->device.type != UMO_DL_CPU && dl->device.type != UMO_DL_CUDA_HOST &&
        dl->device.type != UMO_DL_ROCM_HOST) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "%s memory (type %d) of another library cannot be bound; ask its "
                             "producer for CPU memory",
                             device_name(dl->device.type), (int)dl->device.type);
    }
    uintptr_t address;
    if (dl->data == NULL || dl->byte_offset > UINTPTR_MAX ||
        __builtin_add_overflow((uintptr_t)dl->data, (uintptr_t)dl->byte_offset, &address)) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no memory, or an offset that wraps around");
    }
    if (address % umo_dtype_size(tensor->dtype) != 0) {
        *why = UMO_REASON_MISALIGNED;
        return umo_error_set(error, UMO_E_REFUSED, 0, "%s", umo_reason_cause(*why));
    }
    *data = (void *)address;
    return UMO_OK;
}

/* What the two forms have in common. run gives managed back; NULL for a producer that needs no
 * word. */
static umo_status tensor_import(const umo_dl_tensor *dl, const umo_dl_import *options,
                                bool read_only, umo_deleter run, void *managed, umo_tensor *out,
                                umo_reason *why, umo_error *error)
{
    umo_reason reason = UMO_REASON_NONE;
    why = why != NULL ? why : &reason;
    *why = UMO_REASON_NONE;
    if (options->device == NULL || options->scope == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "an import needs a device and a scope");
    }
    if (options->writable && read_only) {
        return umo_error_set(error, UMO_E_INVAL, 0, "the producer forbids writing");
    }
    umo_tensor tensor;
    memset(&tensor, 0, sizeof tensor);
    uint64_t extent_bytes = 0;
    umo_status status = shape_read(dl, &tensor, &extent_bytes, error);
    if (status != UMO_OK) {
        return status;
    }
    if (extent_bytes == 0) {
        if (run != NULL) {
            run(NULL, managed);
        }
        *out = tensor;
        return UMO_OK;
    }
    void *data = NULL;
    status = memory_read(dl, &tensor, &data, why, error);
    if (status != UMO_OK) {
        return status;
    }
    const umo_import import = {.data = data,
                               .size_bytes = (size_t)extent_bytes,
                               .writable = options->writable,
                               .deleter = run,
                               .user = managed};
    status =
        umo_buffer_import(options->device, options->scope, &import, &tensor.buffer, why, error);
    if (status == UMO_OK) {
        tensor.data = umo_buffer_host(tensor.buffer);
        tensor.size_bytes = (size_t)extent_bytes;
        *out = tensor;
    }
    return status;
}

umo_status umo_tensor_from_dlpack(umo_dl_managed_versioned *managed, const umo_dl_import *options,
                                  umo_tensor *out, umo_dl_facts *facts, umo_reason *why,
                                  umo_error *error)
{
    if (managed == NULL || managed->version.major != UMO_DL_MAJOR) {
        return umo_error_set(error, managed == NULL ? UMO_E_INVAL : UMO_E_UNSUPPORTED, 0,
                             "DLPack %u; this is written for %u",
                             managed != NULL ? managed->version.major : 0, UMO_DL_MAJOR);
    }
    const umo_dl_facts seen = {
        .read_only = (managed->flags & UMO_DL_READ_ONLY) != 0,
        .copied = (managed->flags & UMO_DL_COPIED) != 0,
    };
    umo_status status = UMO_OK;
    const export *own = managed->deleter == export_delete ? managed->manager : NULL;
    if (own != NULL && own->buffer != NULL && options->device != NULL && options->scope != NULL &&
        umo_buffer_device(own->buffer) == options->device &&
        !(options->writable && seen.read_only)) {
        umo_buffer_acquire(own->buffer);
        *out = own->tensor;
        if (why != NULL) {
            *why = UMO_REASON_NONE;
        }
        export_delete(managed);
    } else {
        status = tensor_import(&managed->tensor, options, seen.read_only,
                               managed->deleter != NULL ? versioned_run : NULL, managed, out, why,
                               error);
    }
    if (status == UMO_OK && facts != NULL) {
        *facts = seen;
    }
    return status;
}

umo_status umo_tensor_from_dlpack_unversioned(umo_dl_managed *managed, const umo_dl_import *options,
                                              umo_tensor *out, umo_reason *why, umo_error *error)
{
    if (managed == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no tensor");
    }
    return tensor_import(&managed->tensor, options, false,
                         managed->deleter != NULL ? unversioned_run : NULL, managed, out, why,
                         error);
}

/**
 * @file dlpack.h
 * Tensors to and from other libraries by DLPack 1.x, without a copy.
 *
 * The structures are the protocol's (their layout is fixed by the specification, and checked here);
 * the names are ours, so that this header and DLPack's own can be included together. Cast a pointer
 * to one to the other.
 *
 * Ownership goes with the structure: whoever has it calls its deleter once, from any thread.
 */
#ifndef UMO_DLPACK_H
#define UMO_DLPACK_H

#include <umo/tensor.h>

#ifdef __cplusplus
extern "C" {
#endif

/** The version that is written. Any 1.x is read. */
#define UMO_DL_MAJOR 1u
#define UMO_DL_MINOR 1u

typedef struct umo_dl_version {
    uint32_t major;
    uint32_t minor;
} umo_dl_version;

/** Where memory lies; of the specification's list, those that umo tells apart. */
typedef enum umo_dl_device_type {
    UMO_DL_CPU = 1,
    UMO_DL_CUDA = 2,
    UMO_DL_CUDA_HOST = 3, /**< pinned memory of the host */
    UMO_DL_OPENCL = 4,    /**< data is a cl_mem */
    UMO_DL_VULKAN = 7,
    UMO_DL_METAL = 8, /**< data is an id<MTLBuffer> */
    UMO_DL_ROCM = 10,
    UMO_DL_ROCM_HOST = 11,
    UMO_DL_CUDA_MANAGED = 13
} umo_dl_device_type;

typedef struct umo_dl_device {
    int32_t type; /**< umo_dl_device_type */
    int32_t id;
} umo_dl_device;

/** Type codes of the specification. */
typedef enum umo_dl_code {
    UMO_DL_INT = 0,
    UMO_DL_UINT = 1,
    UMO_DL_FLOAT = 2,
    UMO_DL_OPAQUE = 3,
    UMO_DL_BFLOAT = 4,
    UMO_DL_COMPLEX = 5,
    UMO_DL_BOOL = 6
} umo_dl_code;

typedef struct umo_dl_type {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} umo_dl_type;

typedef struct umo_dl_tensor {
    void *data;
    umo_dl_device device;
    int32_t ndim;
    umo_dl_type dtype;
    int64_t *shape;
    int64_t *strides; /**< in elements; NULL for packed */
    uint64_t byte_offset;
} umo_dl_tensor;

/** The form of 0.x: "dltensor". */
typedef struct umo_dl_managed {
    umo_dl_tensor tensor;
    void *manager;
    void (*deleter)(struct umo_dl_managed *self);
} umo_dl_managed;

/** Bits of umo_dl_managed_versioned.flags. */
#define UMO_DL_READ_ONLY UINT64_C(1)
#define UMO_DL_COPIED UINT64_C(2)

/** The form of 1.x: "dltensor_versioned". */
typedef struct umo_dl_managed_versioned {
    umo_dl_version version;
    void *manager;
    void (*deleter)(struct umo_dl_managed_versioned *self);
    uint64_t flags;
    umo_dl_tensor tensor;
} umo_dl_managed_versioned;

/* What the specification's C declarations give on every ABI of ours. */
UMO_STATIC_ASSERT(sizeof(umo_dl_type) == 4, "DLDataType");
UMO_STATIC_ASSERT(sizeof(umo_dl_device) == 8, "DLDevice");
UMO_STATIC_ASSERT(sizeof(void *) != 8 || sizeof(umo_dl_tensor) == 48, "DLTensor");
UMO_STATIC_ASSERT(sizeof(void *) != 8 || sizeof(umo_dl_managed) == 64, "DLManagedTensor");
UMO_STATIC_ASSERT(sizeof(void *) != 8 || sizeof(umo_dl_managed_versioned) == 80,
                  "DLManagedTensorVersioned");

/** How a tensor is handed out. NULL for the defaults of all. */
typedef struct umo_dl_export {
    umo_side side;  /**< which side's memory; 0 is the host's, as the CPU's */
    bool read_only; /**< the consumer promises not to write; several such exports may be out */
} umo_dl_export;

/**
 * Hands a tensor of a buffer out. Its bytes are brought to the side, and everything that is pending
 * on them has completed when this returns, so a consumer needs no stream of ours.
 *
 * Until the deleter has run, the buffer is exported (umo_buffer_export_begin()): it cannot be
 * moved, brackets that write are BUSY, and what a writable export does to the bytes is not known,
 * so they count as valid on its side alone.
 *
 * A device's memory is named by the device type of its driver (Metal, OpenCL; the host driver's is
 * the CPU's), data is the driver's handle and byte_offset where the tensor starts in it.
 *
 * Errors:    INVAL        no buffer (plain host memory has no owner that could be held), a type
 *                         without elements of fixed size, or a writable export of memory that was
 *                         imported for reading.
 *            UNSUPPORTED  the device's memory has no type in DLPack.
 *            BUSY         as umo_buffer_export_begin().
 *            DEVICE       work on the bytes failed; NOMEM, LIMIT.
 * Ownership: the caller owns *out until its deleter has run; it holds the buffer.
 * Threads:   any; so may the deleter, which takes no lock of the caller's.
 */
UMO_API UMO_MUST_USE umo_status umo_tensor_to_dlpack(const umo_tensor *tensor,
                                                     const umo_dl_export *options,
                                                     umo_dl_managed_versioned **out,
                                                     umo_error *error);

/** How a tensor is taken over. */
typedef struct umo_dl_import {
    umo_device *device; /**< who will use the memory besides the host */
    umo_scope *scope;   /**< who is counted for it */
    bool writable;      /**< the device is going to write to it */
} umo_dl_import;

/** What an import found beside the tensor. */
typedef struct umo_dl_facts {
    bool read_only; /**< its producer forbids writing */
    bool copied;    /**< its producer made a copy for this export */
} umo_dl_facts;

/**
 * Takes a tensor over, where it lies. One that umo handed out of memory of the same device is
 * recognised: its buffer itself comes back, and the export ends.
 *
 * @param[out] out    The tensor; its buffer is NULL when it has no elements.
 * @param[out] facts  NULL if not wanted.
 * @param[out] why    NULL if not wanted; also written on an error: the reason of a refusal.
 *
 * Errors:    INVAL        no device or scope; a bad structure: a rank below 0 or over UMO_RANK_MAX,
 *                         a missing shape or data, sizes that do not fit, an offset that wraps
 *                         around; writable for a tensor that its producer forbids to write to.
 *            UNSUPPORTED  another major version, of which nothing but the deleter was looked at; an
 *                         element type, lanes, strides below 0, or a kind of device memory that
 *                         cannot be bound: the text names it.
 *            REFUSED      elements that are not aligned, or memory that the device cannot bind
 *                         where it lies: see why.
 *            NOMEM, LIMIT
 * Ownership: on UMO_OK the structure is umo's, and its deleter (which may be NULL) runs once: when
 *            the buffer's last reference is gone and its last use has completed, or within this
 *            call when there are no elements to keep. The caller owns one reference to out->buffer.
 *            On an error the structure stays the caller's, who calls its deleter.
 * Threads:   any. The deleter runs on the thread of the last umo_buffer_release(), under no lock.
 * Cost:      as umo_buffer_import(); no copy.
 */
UMO_API UMO_MUST_USE umo_status umo_tensor_from_dlpack(umo_dl_managed_versioned *managed,
                                                       const umo_dl_import *options,
                                                       umo_tensor *out, umo_dl_facts *facts,
                                                       umo_reason *why, umo_error *error);

/**
 * The same for the form of 0.x, which has neither version nor flags: it is taken for writable.
 *
 * Errors, ownership, threads, cost: as umo_tensor_from_dlpack().
 */
UMO_API UMO_MUST_USE umo_status umo_tensor_from_dlpack_unversioned(umo_dl_managed *managed,
                                                                   const umo_dl_import *options,
                                                                   umo_tensor *out, umo_reason *why,
                                                                   umo_error *error);

#ifdef __cplusplus
}
#endif

#endif

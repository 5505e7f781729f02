/**
 * @file driver.h
 * The table that a device driver fills. For those who write a driver; users of memory need device.h
 * and buffer.h.
 *
 * One table serves Metal, OpenCL, CUDA and plain host memory; docs/decisions/0002 maps every entry
 * to the four APIs. Two decisions shaped it. Ordering is by *timelines*: each queue of a device
 * counts up, a fence names a queue and a value on it, and a fence is a plain value that nobody has
 * to free (a Metal shared event's value; the number of a command in an in-order OpenCL or CUDA
 * queue). And *work is asynchronous*: transfer, copy and launch take fences to wait for and return
 * one; only alloc, import, program_create and fence_wait may take long.
 */
#ifndef UMO_DRIVER_H
#define UMO_DRIVER_H

#include <umo/reason.h>
#include <umo/status.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Value of umo_driver.abi. Raised when an entry changes its meaning. */
#define UMO_DRIVER_ABI 2u

/** Most queues (timelines) of one device. */
#define UMO_QUEUES_MAX 8u

/** Most fences that one command waits for: callers wait themselves for what does not fit. */
#define UMO_WAITS_MAX 16u

/** Most arguments of one kernel launch. */
#define UMO_KERNEL_ARGS_MAX 32u

/** Where a buffer's bytes live. */
typedef enum umo_storage_mode {
    UMO_UNIFIED = 0, /**< one memory that host and device both reach */
    UMO_MANAGED = 1, /**< both sides have an address; the layer keeps the two in step */
    UMO_PRIVATE = 2  /**< the device's only; the host sees a copy */
} umo_storage_mode;

#define UMO_STORAGE_MODES 3

/** The two sides that can hold valid bytes. Values are bits. */
typedef enum umo_side {
    UMO_SIDE_HOST = 1,
    UMO_SIDE_DEVICE = 2
} umo_side;

/** What a device can do. A bit set in umo_device_info.caps promises the whole group. */
enum {
    UMO_CAP_UNIFIED = 1u << 0,      /**< alloc takes UMO_UNIFIED */
    UMO_CAP_MANAGED = 1u << 1,      /**< alloc takes UMO_MANAGED; transfer works on it */
    UMO_CAP_PRIVATE = 1u << 2,      /**< alloc takes UMO_PRIVATE; transfer works on it */
    UMO_CAP_IMPORT_READ = 1u << 3,  /**< import for device reads */
    UMO_CAP_IMPORT_WRITE = 1u << 4, /**< import for device writes */
    UMO_CAP_USAGE = 1u << 5,    /**< usage works: figures that change while the device is open */
    UMO_CAP_COHERENT = 1u << 6, /**< UNIFIED needs no publish between the sides */
    UMO_CAP_KERNELS = 1u << 7,  /**< program_* and kernel_* work */
    UMO_CAP_ASYNC = 1u << 8,    /**< commands may still run when the call returns */
    UMO_CAP_HOST_PROCESSOR = 1u << 9, /**< the device's processor is the CPU itself */
    UMO_CAP_POISON = 1u << 10,        /**< poison works (test mode) */
    UMO_CAP_PURGEABLE = 1u << 11      /**< purgeable works on memory that alloc gave */
};

/** The language of the programs that a device compiles. */
typedef enum umo_program_language {
    UMO_LANGUAGE_HOST = 0, /**< none: an array of C functions */
    UMO_LANGUAGE_OPENCL_C = 1,
    UMO_LANGUAGE_METAL = 2,
    UMO_LANGUAGE_CUDA = 3
} umo_program_language;

/** Facts about an opened device, read live. */
typedef struct umo_device_info {
    char name[128]; /**< for display only; never steers a decision */
    char driver[16];
    char family[32];           /**< of the hardware, for display only: "Apple 8, Metal 3" */
    uint32_t caps;             /**< UMO_CAP_* */
    uint32_t queues;           /**< 1 to UMO_QUEUES_MAX */
    size_t import_align_bytes; /**< an imported address is a multiple of this; 1 if any will do */
    size_t import_size_align_bytes; /**< likewise its length */
    /** The device may write back whole granules around what it wrote to an import, with what it
     * read there before: a power of two, 1 if it never touches a byte beside. */
    size_t write_granule_bytes;
    size_t alloc_align_bytes;   /**< what alloc's addresses are a multiple of */
    uint64_t buffer_max_bytes;  /**< the longest single buffer; never 0 */
    uint64_t memory_bytes;      /**< the device's memory or working set at opening; 0 if unknown */
    uint64_t bandwidth_bytes_s; /**< a first guess, for display and defaults; 0 if unknown */
    umo_program_language language;
    bool unified; /**< host and device have one memory, so MANAGED and PRIVATE save no bus */
} umo_device_info;

/** Figures that change while a device is open. */
typedef struct umo_device_usage {
    uint64_t budget_bytes;    /**< what the device wants this process to stay below; 0 if unknown */
    uint64_t allocated_bytes; /**< what this process holds on the device, by the device's count */
} umo_device_usage;

/** What the system may do with memory that nobody uses. */
typedef enum umo_purgeable {
    UMO_PURGEABLE_KEPT = 0,     /**< nothing; how memory starts */
    UMO_PURGEABLE_VOLATILE = 1, /**< may drop the bytes when memory is short */
    UMO_PURGEABLE_EMPTY = 2     /**< drops them now */
} umo_purgeable;

/** One piece of memory as a driver sees it. Filled by alloc and import, given back by free. */
typedef struct umo_memory {
    void *host;          /**< the host side's address; NULL for PRIVATE */
    void *native;        /**< cl_mem, id<MTLBuffer>, CUdeviceptr, the host driver's device copy */
    size_t offset_bytes; /**< of the first byte inside native */
    size_t size_bytes;
    umo_storage_mode mode;
    bool imported;
    bool
        one_memory; /**< MANAGED where host and device share it after all: nothing is to be moved */
    bool cleared;   /**< by alloc: it holds nobody's bytes (zeros, or poison) */
    void *driver_data; /**< the driver's own */
} umo_memory;

/** A point on a device's timeline. value 0 has always passed. A plain value: copy it, forget it. */
typedef struct umo_fence {
    struct umo_device *device; /**< filled by the layer above the driver; drivers leave it alone */
    uint32_t queue;
    uint64_t value;
} umo_fence;

/** How a device is opened. Zeroed means the defaults. */
typedef struct umo_driver_options {
    uint64_t delay_ns; /**< host driver: each command runs this long after it was given, in order */
    bool test_mode;    /**< stale memory is poisoned where UMO_CAP_POISON says so */
} umo_driver_options;

/** import: what the device will do with the memory. */
enum {
    UMO_IMPORT_READ = 1u << 0,
    UMO_IMPORT_WRITE = 1u << 1
};

/** Where the text of a program comes from. */
typedef enum umo_program_kind {
    UMO_PROGRAM_SOURCE = 0, /**< text in the device's language (OpenCL C, Metal, CUDA) */
    UMO_PROGRAM_HOST = 1    /**< an array of umo_host_kernel, ended by a NULL name */
} umo_program_kind;

/** A kernel of the host driver: runs once over the whole grid. args[i] points to the bytes or to
 * the value. */
typedef struct umo_host_kernel {
    const char *name;
    void (*run)(void *const *args, const size_t global[3]);
} umo_host_kernel;

typedef struct umo_program_source {
    umo_program_kind kind;
    const void *text;    /**< source text, or the array of umo_host_kernel */
    size_t size_bytes;   /**< of the text; unused for UMO_PROGRAM_HOST */
    const char *options; /**< the compiler's; NULL for none */
} umo_program_source;

typedef enum umo_kernel_arg_kind {
    UMO_ARG_MEMORY = 0, /**< memory at offset_bytes */
    UMO_ARG_VALUE = 1,  /**< size_bytes bytes at value, read before the call returns */
    UMO_ARG_LOCAL = 2   /**< size_bytes of work-group memory */
} umo_kernel_arg_kind;

typedef struct umo_kernel_arg {
    umo_kernel_arg_kind kind;
    const umo_memory *memory;
    size_t offset_bytes;
    size_t size_bytes;
    const void *value;
} umo_kernel_arg;

/** Sizes of a launch, in work items. local all zero lets the driver choose. */
typedef struct umo_grid {
    uint32_t dimensions; /**< 1 to 3 */
    size_t global[3];
    size_t local[3];
} umo_grid;

/**
 * A device driver. All entries that a capability bit promises are non-NULL; the registry checks
 * that once.
 *
 * Calls come from any thread at the same time, except that close comes last. No lock of umo is held
 * over a call. state is what open returned. waits name queues of this same device; the caller has
 * waited for all others. A command's fence is written only on UMO_OK; after an error nothing was
 * queued.
 */
typedef struct umo_driver {
    uint32_t abi;        /**< UMO_DRIVER_ABI */
    uint32_t size_bytes; /**< sizeof(umo_driver) the driver was built with */
    const char *name;    /**< "host", "opencl", ... */

    /** How many devices there are. NOT_FOUND, with the remedy in words, where the API itself is
     * missing. */
    umo_status (*count)(uint32_t *out, umo_error *error);
    umo_status (*open)(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                       umo_device_info *out_info, umo_error *error);
    /** All memory was freed and all programs destroyed before. Waits for the queues. */
    void (*close)(void *state);

    /** size_bytes > 0. Contents undefined (poison in test mode); memory that may still hold what
     * somebody else wrote to it is not marked as cleared. */
    umo_status (*alloc)(void *state, size_t size_bytes, umo_storage_mode mode, umo_memory *out,
                        umo_error *error);
    /** All uses have completed. */
    void (*free)(void *state, umo_memory *memory);
    /** Wraps memory in place; never copies. REFUSED when the device cannot: the reason goes to
     * out_why, if that is not NULL and the driver has one to name. data and size_bytes obey the
     * info's alignment. */
    umo_status (*import)(void *state, void *data, size_t size_bytes, uint32_t flags,
                         umo_memory *out, umo_reason *out_why, umo_error *error);

    /**
     * Moves bytes between the sides of MANAGED or PRIVATE memory: to the side `to`. Not called for
     * memory that is one_memory. host is the
     * address of the range's first byte on the host side: inside memory->host, or the caller's own
     * (always for PRIVATE; for MANAGED when it hands bytes in or out), and stays valid until the
     * fence.
     */
    umo_status (*transfer)(void *state, uint32_t queue, umo_memory *memory, umo_side to,
                           size_t offset_bytes, size_t size_bytes, void *host,
                           const umo_fence *waits, size_t wait_count, umo_fence *out);
    /**
     * UNIFIED memory of a device without UMO_CAP_COHERENT: makes the range's bytes visible on a
     * side (map and unmap). writes: the side is going to write. Moves no bytes where the memory is
     * shared.
     */
    umo_status (*publish)(void *state, uint32_t queue, umo_memory *memory, umo_side to, bool writes,
                          size_t offset_bytes, size_t size_bytes, const umo_fence *waits,
                          size_t wait_count, umo_fence *out);
    /** Copies between two memories of the device, on the device side. The ranges do not overlap. */
    umo_status (*copy)(void *state, uint32_t queue, const umo_memory *source,
                       size_t source_offset_bytes, umo_memory *target, size_t target_offset_bytes,
                       size_t size_bytes, const umo_fence *waits, size_t wait_count,
                       umo_fence *out);

    bool (*fence_done)(void *state, uint32_t queue, uint64_t value);
    /** DEVICE when the command, or one before it in its queue, failed, NOMEM when it failed because
     * the device's memory was out; TIMEOUT. timeout_ns UINT64_MAX waits for ever. */
    umo_status (*fence_wait)(void *state, uint32_t queue, uint64_t value, uint64_t timeout_ns);

    /** INVAL with the compiler's own message (as much as fits) when the text does not build. */
    umo_status (*program_create)(void *state, const umo_program_source *source, void **out,
                                 umo_error *error);
    void (*program_destroy)(void *state, void *program);
    /** NOT_FOUND when the program has no such kernel. */
    umo_status (*kernel_create)(void *state, void *program, const char *name, void **out,
                                umo_error *error);
    void (*kernel_destroy)(void *state, void *kernel);
    /** Any thread, also at the same time with one kernel. INVAL for a wrong number, kind or size of
     * arguments. */
    umo_status (*kernel_launch)(void *state, uint32_t queue, void *kernel,
                                const umo_kernel_arg *args, size_t arg_count, const umo_grid *grid,
                                const umo_fence *waits, size_t wait_count, umo_fence *out,
                                umo_error *error);

    /**
     * Test mode: overwrites the stale bytes of one side, so that a missing transfer shows. A
     * command of the queue like any other, since commands before it may still read the bytes. host
     * as for transfer.
     */
    umo_status (*poison)(void *state, uint32_t queue, umo_memory *memory, umo_side side,
                         size_t offset_bytes, size_t size_bytes, void *host, const umo_fence *waits,
                         size_t wait_count, umo_fence *out);

    umo_status (*usage)(void *state, umo_device_usage *out);
    /**
     * Memory from alloc that no command uses, nor will until it is KEPT again. out_lost: the bytes
     * have been dropped since they were last KEPT; written for KEPT only.
     * UNSUPPORTED where this memory cannot, as it shares its pages with other memory.
     */
    umo_status (*purgeable)(void *state, umo_memory *memory, umo_purgeable want, bool *out_lost);
} umo_driver;

#ifdef __cplusplus
}
#endif

#endif

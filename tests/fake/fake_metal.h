/*
 * The control side of libumo_fake_metal: an Objective-C runtime and a strict Metal for systems that
 * have neither, in one shared library with a worker thread as the GPU. The other side is Metal's
 * own: the exported symbols of the runtime and MTLCopyAllDevices.
 *
 * What Apple's documentation asks of a caller is a *rule*. A broken rule is a violation: it prints
 * "fake metal: RULE: ..." and aborts, or is counted while recording is on. A test links the library
 * or takes these functions by dlsym; other processes use the environment:
 *
 *   FAKE_METAL="unified=0,page=16384,devices=2,..."  the keys are the fields of fake_metal_options
 *   FAKE_METAL_KERNELS=path[:path]  libraries whose array fake_metal_kernels (ended by a NULL name)
 *                                   is registered when the first pipeline is made
 */
#ifndef FAKE_METAL_H
#define FAKE_METAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FAKE_METAL_API __attribute__((visibility("default")))

typedef struct fake_metal_options {
    char name[96];         /* of every device; residency sets crash on "... Paravirtual ..." */
    uint32_t devices;      /* 1; up to 8, 0 for a machine without Metal devices */
    uint32_t apple_family; /* 7: supports Apple1 to Apple7; 0: none. Default 7 if unified, else 0 */
    bool unified;          /* true */
    bool mac2;             /* true: family Mac2 */
    bool metal3;           /* true: family Metal3 */
    bool residency;        /* true: macOS 15, so there are residency sets */
    bool managed_anywhere; /* false: managed storage on a unified device is a violation */
    bool fresh_garbage;    /* false: newBufferWithLength gives zeros. Heaps always give garbage */
    bool in_order;         /* false: unordered command buffers run newest first */
    bool record;           /* false: a violation aborts */
    uint64_t page;         /* the system's: what bytesNoCopy asks of pointer and length */
    uint64_t buffer_max;   /* 4 GiB */
    uint64_t working_set;  /* 16 GiB */
    uint64_t memory_limit; /* 0 for none: allocations beyond it give nil */
    uint64_t local_max;    /* 32768: maxThreadgroupMemoryLength */
    uint64_t threads_max;  /* 1024: maxTotalThreadsPerThreadgroup */
    uint64_t heap_align;   /* 256 */
    uint64_t blit_align;   /* 4: offsets and sizes of blits, as documented for macOS */
    uint64_t delay_ns;     /* 0: a command buffer runs this long after its commit */
    uint64_t late_ns;      /* 0: deallocators run this long after the last release, on the worker */
} fake_metal_options;

/* The defaults with what the environment says. */
FAKE_METAL_API void fake_metal_options_default(fake_metal_options *out);

/*
 * Starts over with these options (NULL: the defaults): lets the worker finish (what can never run
 * ends with error 1), clears violations, faults, modes and marks. Objects that are alive stay
 * alive.
 */
FAKE_METAL_API void fake_metal_reset(const fake_metal_options *options);

/* ---- kernels ---- */

enum {
    FAKE_METAL_BUFFER = 0,
    FAKE_METAL_THREADGROUP = 1
};

typedef struct fake_metal_binding {
    const char *name;
    uint32_t type; /* FAKE_METAL_BUFFER or FAKE_METAL_THREADGROUP */
    uint32_t index;
    bool writes;
    bool unused;
    size_t data_bytes; /* of one element, or of the value */
    size_t align_bytes;
} fake_metal_binding;

/* A compute function. run is called once over the whole grid; args[i] belongs to bindings[i]. */
typedef struct fake_metal_kernel {
    const char *name;
    void (*run)(void *const *args, const size_t global[3]);
    const fake_metal_binding *bindings; /* NULL: read from the signature in the source text */
    size_t binding_count;
    size_t threads_max;        /* 0: the device's */
    size_t static_local_bytes; /* staticThreadgroupMemoryLength */
} fake_metal_kernel;

/* Copies the struct; name, run and bindings stay valid while the library is loaded. A later kernel
 * of the same name takes the place of the earlier one. */
FAKE_METAL_API void fake_metal_kernel_register(const fake_metal_kernel *kernel);

/* ---- violations ---- */

FAKE_METAL_API void fake_metal_record(bool on);
/* Of all rules, or of one. */
FAKE_METAL_API uint32_t fake_metal_violations(void);
FAKE_METAL_API uint32_t fake_metal_rule_violations(const char *rule);
/* "RULE: text" of the last one; "" before the first. Valid until the next violation. */
FAKE_METAL_API const char *fake_metal_violation_text(void);
/* The names of all rules, ended by NULL. */
FAKE_METAL_API const char *const *fake_metal_rules(void);

/* ---- counts ---- */

/* Living objects of one class ("MTLBuffer", "NSString", "Block", ...), and of all. */
FAKE_METAL_API uint64_t fake_metal_live(const char *class_name);
FAKE_METAL_API uint64_t fake_metal_live_total(void);
/* Writes "class count\n" lines of what lives. */
FAKE_METAL_API void fake_metal_live_print(char *out, size_t size_bytes);

/* Messages sent since the last mark, of all selectors and of one. */
FAKE_METAL_API void fake_metal_mark(void);
FAKE_METAL_API uint64_t fake_metal_messages(void);
FAKE_METAL_API uint64_t fake_metal_messages_of(const char *selector);
/* The type encoding of a method ("+" in front of the owner: a class method); NULL if unknown. */
FAKE_METAL_API const char *fake_metal_encoding(const char *owner, const char *selector);

FAKE_METAL_API uint64_t fake_metal_pipelines_compiled(void);
FAKE_METAL_API uint64_t fake_metal_pipelines_cached(void);
FAKE_METAL_API uint64_t fake_metal_commands_run(void);
/* Residency sets that went away before the GPU ran anything (since the reset), or exist now while
 * it has not: those leak. */
FAKE_METAL_API uint64_t fake_metal_residency_leaked(void);
/* Allocations in the committed residency sets of all queues that have been requested. */
FAKE_METAL_API uint64_t fake_metal_resident(void);

/* ---- faults ---- */

/*
 * The nth call (1: the next) of this selector, or of "MTLCopyAllDevices", fails in the way such a
 * call can fail: nil, an NSError, NO, contents NULL; for "commit", the command buffer ends in an
 * error with the code below. Up to 16 selectors may be armed at once; nth 0 disarms.
 */
FAKE_METAL_API void fake_metal_fail(const char *selector, uint32_t nth);
/* The nth fallible call from now on, of whatever selector; 0 disarms. */
FAKE_METAL_API void fake_metal_fail_nth(uint32_t nth);
/* Fallible calls since the last mark. */
FAKE_METAL_API uint64_t fake_metal_fallible_count(void);
/* The selector that failed last; "" if none since the reset. */
FAKE_METAL_API const char *fake_metal_failed(void);
/* For failing commits: an MTLCommandBufferError; 1 (Internal) at first. */
FAKE_METAL_API void fake_metal_fail_code(int64_t code);

enum {
    FAKE_METAL_ZERO_LENGTH = 1u << 0,  /* new buffers say length 0 */
    FAKE_METAL_NO_COPY_NIL = 1u << 1,  /* bytesNoCopy gives nil */
    FAKE_METAL_DEVICE_LOST = 1u << 2,  /* command buffers end with DeviceRemoved (11) */
    FAKE_METAL_LATE_FREE = 1u << 3,    /* deallocators wait for fake_metal_run_late() */
    FAKE_METAL_PURGE_AT_ONCE = 1u << 4 /* what becomes volatile is purged */
};
FAKE_METAL_API void fake_metal_set_modes(uint32_t modes);
FAKE_METAL_API void fake_metal_set_memory_limit(uint64_t bytes);
FAKE_METAL_API void fake_metal_set_delay(uint64_t ns);

/* Empties all volatile buffers and heaps: contents overwritten. Gives their number. */
FAKE_METAL_API uint32_t fake_metal_purge(void);
/* Runs the deallocators that were held back. Gives their number. */
FAKE_METAL_API uint32_t fake_metal_run_late(void);

/* ---- the worker ---- */

/* Command buffers that are committed while the worker is paused stay committed. Pausing waits for
 * what is running. */
FAKE_METAL_API void fake_metal_pause(void);
FAKE_METAL_API void fake_metal_resume(void);
/* Waits until nothing can run any more. False: some command buffer waits for an event. */
FAKE_METAL_API bool fake_metal_idle(void);
/* Command buffers that are committed and have not ended. */
FAKE_METAL_API uint32_t fake_metal_pending(void);

#ifdef __cplusplus
}
#endif

#endif

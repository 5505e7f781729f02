/*
 * Inside the fake: objects, classes and the state that its files share.
 *
 * A class has one flat table of methods, filled at load and never written again, so a message is
 * looked up without a lock. A freed object's memory is kept for a while under the class of zombies,
 * which makes a message to it a violation instead of a crash somewhere else.
 */
#ifndef FAKE_H
#define FAKE_H

#include "fake_metal.h"

#include <pthread.h>
#include <stdatomic.h>

/* Slots of a class's table: one a selector that some class knows; the last stands for all others.
 */
#define FAKE_SLOTS 512u
#define FAKE_SLOT_UNKNOWN (FAKE_SLOTS - 1u)
/* Where the table lies in a class: the send path is assembly. */
#define FAKE_TABLE_OFFSET 96

#define FAKE_EXPORT __attribute__((visibility("default")))

typedef void *id;
typedef const char *SEL; /* its slot lies in the four bytes before the name */
typedef uint64_t ns_uint;
typedef void (*fake_imp)(void);

typedef struct fake_method {
    const char *selector;
    const char *encoding;
    fake_imp imp;
} fake_method;

typedef struct fake_class fake_class;

struct fake_class {
    const fake_class *isa; /* the class of the class methods */
    fake_class *super;
    const char *name;
    size_t size_bytes;           /* of an instance */
    bool (*dealloc)(void *self); /* false: fake_bury() comes later */
    const fake_method *methods;
    size_t method_count;
    const fake_method *class_methods;
    size_t class_method_count;
    bool hidden; /* a protocol on Apple's side, or a private class: not found by name */
    bool makes;  /* alloc and new give instances */
    atomic_uint_least64_t live;
    const fake_class *unused;
    fake_imp table[FAKE_SLOTS];
};

typedef struct fake_object {
    _Atomic(const fake_class *) isa;
    atomic_uint references;
    atomic_uint uses;          /* by committed command buffers that hold no reference */
    atomic_bool overdue;       /* recorded: was freed in spite of its uses */
    const fake_class *was;     /* of a zombie */
    struct fake_object *later; /* zombies, and objects whose deallocator waits */
} fake_object;

#define FAKE_METHOD(selector, encoding, function)                                                  \
    {                                                                                              \
        selector, encoding, (fake_imp)(function)                                                   \
    }
#define FAKE_COUNT(array) (sizeof(array) / sizeof((array)[0]))

typedef struct fake_range {
    ns_uint location;
    ns_uint length;
} fake_range;

typedef struct fake_size {
    ns_uint width;
    ns_uint height;
    ns_uint depth;
} fake_size;

typedef struct fake_size_align {
    ns_uint size;
    ns_uint align;
} fake_size_align;

/* ---- runtime.c, send.c ---- */

extern atomic_uint_least64_t fake_message_counts[FAKE_SLOTS];
extern fake_class *const fake_classes[]; /* ended by NULL */

FAKE_EXPORT void objc_msgSend(void);
FAKE_EXPORT SEL sel_registerName(const char *name);
FAKE_EXPORT SEL sel_getUid(const char *name);
FAKE_EXPORT const char *sel_getName(SEL selector);
FAKE_EXPORT id objc_getClass(const char *name);
FAKE_EXPORT id objc_lookUpClass(const char *name);
FAKE_EXPORT id objc_getProtocol(const char *name);
FAKE_EXPORT const char *class_getName(id class);
FAKE_EXPORT id object_getClass(id object);
FAKE_EXPORT const char *object_getClassName(id object);
FAKE_EXPORT id objc_retain(id object);
FAKE_EXPORT void objc_release(id object);
FAKE_EXPORT id objc_autorelease(id object);
FAKE_EXPORT void *objc_autoreleasePoolPush(void);
FAKE_EXPORT void objc_autoreleasePoolPop(void *pool);

uint32_t fake_slot(SEL selector);
/* A new object with one reference, zeroed. Never NULL. */
void *fake_make(fake_class *class);
bool fake_is(id object, const fake_class *class);
bool fake_is_zombie(id object);
const char *fake_class_name(id object);
void fake_uses_begin(fake_object *object);
void fake_uses_end(fake_object *object);
/* Ends an object whose dealloc returned early to let its deallocator run later. */
void fake_bury(fake_object *object, fake_class *class);
void fake_zombies_clear(void);

/* ---- rules.c, control.c ---- */

extern fake_metal_options fake_options;
extern atomic_uint fake_modes;
extern atomic_uint_least64_t fake_compiled;
extern atomic_uint_least64_t fake_cached;

void fake_violate(const char *rule, const char *format, ...) __attribute__((format(printf, 2, 3)));
void fake_violations_clear(void);
/* Counts a fallible call, and says whether this one is to fail. */
bool fake_fails(SEL selector);
int64_t fake_fail_code(void);
void fake_faults_clear(void);

/* ---- foundation.c, block.c ---- */

/* Autoreleased. */
id fake_string(const char *text);
/* With one reference. */
id fake_string_new(const char *text);
const char *fake_text(id string);
id fake_error(const char *domain, int64_t code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
void fake_error_give(id *out, id error);
id fake_array_new(id const *items, size_t count);
ns_uint fake_array_count(id array);
id fake_array_at(id array, ns_uint index);
const char *fake_url_path(id url);

typedef struct fake_block {
    const void *isa;
    atomic_int flags;
    int reserved;
    void (*invoke)(void);
    const void *descriptor;
} fake_block;

FAKE_EXPORT void *_Block_copy(const void *block);
FAKE_EXPORT void _Block_release(const void *block);
FAKE_EXPORT void _Block_object_assign(void *target, const void *object, int flags);
FAKE_EXPORT void _Block_object_dispose(const void *object, int flags);

/* ---- device.c ---- */

typedef struct fake_device {
    fake_object object;
    uint32_t index;
    id name;
    atomic_uint_least64_t allocated;
} fake_device;

FAKE_EXPORT id MTLCopyAllDevices(void);
FAKE_EXPORT id MTLCreateSystemDefaultDevice(void);
bool fake_supports(int64_t family);
/* False: beyond the limit, nothing was counted. */
bool fake_account(fake_device *device, uint64_t bytes);
void fake_unaccount(fake_device *device, uint64_t bytes);

/* ---- resource.c, heap.c ---- */

enum {
    FAKE_SHARED = 0,
    FAKE_MANAGED = 1,
    FAKE_PRIVATE = 2
};

enum {
    FAKE_KEEP = 1,
    FAKE_NON_VOLATILE = 2,
    FAKE_VOLATILE = 3,
    FAKE_EMPTY = 4
};

typedef struct fake_heap {
    fake_object object;
    fake_device *device;
    ns_uint size;
    ns_uint storage;
    bool untracked;
    atomic_uint purgeable;
    uint8_t *memory;
    pthread_mutex_t lock;
    struct fake_buffer *first; /* by offset */
    struct fake_heap *next;    /* all heaps */
} fake_heap;

typedef struct fake_buffer {
    fake_object object;
    fake_device *device;
    fake_heap *heap;
    ns_uint length;
    ns_uint storage;
    bool untracked;
    bool no_copy;
    atomic_uint purgeable;
    uint8_t *host; /* NULL: private */
    uint8_t *gpu;  /* another memory than host where managed storage is real */
    uint64_t mapped_bytes;
    uint64_t accounted;
    fake_block *deallocator;
    ns_uint heap_offset;
    ns_uint heap_bytes;
    struct fake_buffer *heap_next;
    struct fake_buffer *next; /* all buffers */
    struct fake_buffer *previous;
    uint64_t late_at;
} fake_buffer;

/* Takes a buffer out of its heap. */
void fake_heap_give(fake_buffer *buffer);
id fake_buffer_in_heap(fake_heap *heap, ns_uint length, ns_uint offset, ns_uint bytes);
bool fake_options_valid(fake_device *device, ns_uint options);
uint8_t *fake_memory_map(uint64_t bytes);
void fake_memory_unmap(uint8_t *memory, uint64_t bytes);
ns_uint fake_purgeable_set(atomic_uint *state, ns_uint want, uint8_t *host, uint8_t *gpu,
                           uint64_t bytes);
bool fake_buffer_lost(const fake_buffer *buffer);
uint32_t fake_buffers_purge(void);
uint32_t fake_heaps_purge(void);
/* Runs deallocators whose time has come, or all; gives how many ran. */
uint32_t fake_late_run(uint64_t now_ns, bool all);
/* 0: none waits. */
uint64_t fake_late_next(void);
fake_size_align fake_heap_size_align(ns_uint length);

/* ---- event.c ---- */

typedef struct fake_event {
    fake_object object;
    fake_device *device;
    atomic_uint_least64_t value;
} fake_event;

/* Under fake_gpu_lock. */
void fake_event_raise(fake_event *event, uint64_t value);

/* ---- program.c, pipeline.c, text.c, signature.c, archive.c ---- */

#define FAKE_BINDINGS_MAX 64u

typedef struct fake_signature {
    size_t count;
    fake_metal_binding bindings[FAKE_BINDINGS_MAX];
    char names[FAKE_BINDINGS_MAX][48];
} fake_signature;

typedef struct fake_library {
    fake_object object;
    fake_device *device;
    char *text; /* stripped */
    uint64_t hash;
} fake_library;

typedef struct fake_function {
    fake_object object;
    fake_library *library;
    id name;
} fake_function;

typedef struct fake_pipeline {
    fake_object object;
    fake_device *device;
    fake_metal_kernel kernel;
    fake_signature signature;
} fake_pipeline;

typedef struct fake_pipeline_descriptor {
    fake_object object;
    fake_function *function;
    id archives;
    id label;
} fake_pipeline_descriptor;

/* NULL: the text is fine; else what is wrong with it, in the caller's memory. */
const char *fake_text_check(const char *text, char *out, size_t size_bytes);
/* The text without comments, strings and what the preprocessor drops, of the same length; malloc.
 */
char *fake_text_strip(const char *text);
/* The next three are for stripped text. Where the parameters of a kernel begin; NULL if the text
 * lacks it. */
const char *fake_text_kernel(const char *text, const char *name);
/* The same for the next kernel of the text, whose name it writes. */
const char *fake_text_kernel_next(const char *at, char *name, size_t size_bytes);
/* The word that begins here: its length, 0 if none does. */
size_t fake_word(const char *at);
bool fake_word_is(const char *at, size_t length, const char *const *words);
/* Sizes that the text alone does not tell are 0. */
bool fake_signature_read(const char *text, const char *name, fake_signature *out);
/* NULL, or where the parameters that begin here are wrong, and why. */
const char *fake_signature_problem(const char *parameters, char *out, size_t size_bytes);
bool fake_attribute_known(const char *at, size_t length);
uint64_t fake_hash(const void *bytes, size_t size_bytes, uint64_t seed);
/* The C function of a kernel; false: none is registered. */
bool fake_kernel_find(const char *name, fake_metal_kernel *out);
/* NULL: kernel and signature are filled; else why not, an NSError with a reference. */
id fake_function_build(const fake_function *function, fake_metal_kernel *kernel,
                       fake_signature *signature);
/* False, with a violation, for nil and objects of other classes. */
bool fake_class_right(SEL selector, id given, const fake_class *class);
bool fake_archive_has(id archive, const fake_function *function);

/* ---- queue.c, encoder.c, gpu.c ---- */

#define FAKE_INDEXES 31u

typedef enum fake_op_kind {
    FAKE_OP_WAIT,
    FAKE_OP_SIGNAL,
    FAKE_OP_COPY,
    FAKE_OP_FILL,
    FAKE_OP_SYNCHRONIZE,
    FAKE_OP_DISPATCH
} fake_op_kind;

typedef struct fake_argument {
    fake_buffer *buffer;
    ns_uint offset;
    void *bytes;    /* a copy of setBytes: */
    ns_uint length; /* of bytes, or of threadgroup memory */
} fake_argument;

typedef struct fake_op {
    fake_op_kind kind;
    struct fake_op *next;
    union {
        struct {
            fake_event *event;
            uint64_t value;
        } event;
        struct {
            fake_buffer *from;
            fake_buffer *to;
            ns_uint from_offset;
            ns_uint to_offset;
            ns_uint size;
            uint8_t value;
        } blit;
        struct {
            fake_pipeline *pipeline;
            size_t global[3];
            fake_argument *arguments; /* one a binding */
        } dispatch;
    } as;
} fake_op;

typedef struct fake_reference {
    fake_object *object;
    bool writes;
    bool tracked;
    bool buffer;
} fake_reference;

typedef struct fake_queue {
    fake_object object;
    fake_device *device;
    ns_uint max;
    ns_uint open; /* command buffers that have not ended; under fake_gpu_lock */
    ns_uint committed;
    id residency[32];
    uint32_t residency_count;
} fake_queue;

enum {
    FAKE_NOT_ENQUEUED = 0,
    FAKE_ENQUEUED = 1,
    FAKE_COMMITTED = 2,
    FAKE_SCHEDULED = 3,
    FAKE_COMPLETED = 4,
    FAKE_ERROR = 5
};

typedef struct fake_chunk {
    struct fake_chunk *next;
    size_t used;
    size_t size_bytes;
    _Alignas(16) uint8_t bytes[];
} fake_chunk;

typedef struct fake_command {
    fake_object object;
    fake_queue *queue;
    bool retains;
    bool tracked; /* some reference is hazard tracked */
    atomic_uint status;
    id encoder; /* the open one; not owned */
    id error;
    fake_op *first;
    fake_op *last;
    fake_op *cursor;
    fake_reference *references;
    size_t reference_count;
    size_t reference_capacity;
    fake_block **handlers;
    size_t handler_count;
    fake_chunk *chunks;
    uint64_t ready_ns;
    int64_t inject;            /* ends with this error */
    bool ended;                /* handlers have run; under fake_gpu_lock */
    struct fake_command *next; /* pending ones, oldest first */
} fake_command;

typedef struct fake_encoder {
    fake_object object;
    fake_command *command; /* retained */
    bool ended;
    fake_pipeline *pipeline;
    fake_argument arguments[FAKE_INDEXES];
    ns_uint locals[FAKE_INDEXES];
} fake_encoder;

extern pthread_mutex_t fake_gpu_lock;

void *fake_command_memory(fake_command *command, size_t size_bytes);
fake_op *fake_command_op(fake_command *command, fake_op_kind kind);
void fake_command_refer(fake_command *command, fake_object *object, bool writes);
/* False, with a violation, unless commands may be encoded outside of an encoder. */
bool fake_command_open(fake_command *command, SEL selector);
id fake_encoder_make(fake_command *command, SEL selector, fake_class *class);
uint64_t fake_now_ns(void);
/* Takes a reference. */
void fake_gpu_submit(fake_command *command);
/* Something that command buffers may wait for has changed. Under fake_gpu_lock. */
void fake_gpu_wake(void);
/* Waits for a change, or until then. Under fake_gpu_lock. */
void fake_gpu_wait_change(uint64_t until_ns);
/* The worker is to look again. Without fake_gpu_lock. */
void fake_gpu_nudge(void);
void fake_gpu_wait_ended(fake_command *command);
void fake_gpu_reset(void);
uint64_t fake_gpu_runs(void);

/* ---- residency.c ---- */

bool fake_residency_attach(fake_queue *queue, id set);
void fake_residency_detach(fake_queue *queue, id set);
void fake_residency_reset(void);

/* The device's methods that stand beside what they make. */
id fake_queue_new(fake_device *device, SEL selector, ns_uint max);
id fake_queue_new_default(fake_device *device, SEL selector);
id fake_event_new(fake_device *device, SEL selector);
id fake_buffer_new(fake_device *device, SEL selector, ns_uint length, ns_uint options);
id fake_buffer_new_with(fake_device *device, SEL selector, const void *bytes, ns_uint length,
                        ns_uint options);
id fake_buffer_new_no_copy(fake_device *device, SEL selector, void *pointer, ns_uint length,
                           ns_uint options, const void *deallocator);
id fake_heap_new(fake_device *device, SEL selector, id descriptor);
id fake_library_new(fake_device *device, SEL selector, id text, id options, id *error);
id fake_pipeline_new(fake_device *device, SEL selector, id descriptor, ns_uint options,
                     id *reflection, id *error);
id fake_pipeline_new_simple(fake_device *device, SEL selector, id function, id *error);
id fake_pipeline_new_of(fake_device *device, SEL selector, id function, ns_uint options,
                        id *reflection, id *error);
id fake_archive_new(fake_device *device, SEL selector, id descriptor, id *error);
id fake_residency_new(fake_device *device, SEL selector, id descriptor, id *error);

extern fake_class fake_class_object, fake_class_zombie, fake_class_pool, fake_class_string,
    fake_class_error, fake_class_array, fake_class_url, fake_class_signature, fake_class_block,
    fake_class_device, fake_class_resource, fake_class_buffer, fake_class_heap,
    fake_class_heap_descriptor, fake_class_queue, fake_class_command, fake_class_encoder,
    fake_class_blit, fake_class_compute, fake_class_event, fake_class_library, fake_class_function,
    fake_class_pipeline, fake_class_pipeline_descriptor, fake_class_compile_options,
    fake_class_reflection, fake_class_binding, fake_class_buffer_binding,
    fake_class_threadgroup_binding, fake_class_archive, fake_class_archive_descriptor,
    fake_class_residency, fake_class_residency_descriptor;
extern FAKE_EXPORT fake_class _NSConcreteStackBlock, _NSConcreteGlobalBlock, _NSConcreteMallocBlock;

#endif

/*
 * The inside of a umo_buffer, shared by the files that its life, its brackets and its moves are in:
 * buffer.c, host_side.c, uses.c, access.c, export.c, pin.c, migrate.c and move.c (copies on
 * demand).
 */
#ifndef UMO_MEM_BUFFER_STATE_H
#define UMO_MEM_BUFFER_STATE_H

#include "base/ranges.h"
#include "driver/device.h"
#include "mem/buffer.h"
#include "os/os.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>

#define USES_INLINE 6u

/* A bracket that is open, or ended with a fence that may still be pending, or a command of our own
 * that brought bytes to a side. */
typedef struct buffer_use {
    umo_access access;
    umo_fence fence;  /* of an ended use */
    pthread_t opener; /* of an open one */
    bool open;
    bool moves; /* ours: should it fail, only access.side lacks the bytes */
} buffer_use;

/* In the values of umo_buffer.valid, beside the umo_side bits and never together with one: the
 * command that was to write these bytes failed. Whoever reads them is told so. */
#define RANGE_FAILED 4u

/* Whose the pages are that a buffer has in host memory. */
typedef enum umo_buffer_pages {
    UMO_PAGES_SHARED = 0, /* somebody else's, or in part another buffer's */
    UMO_PAGES_OWN,        /* whole pages that umo has for this buffer alone */
    UMO_PAGES_PLACED      /* own, on a node that somebody chose */
} umo_buffer_pages;

struct umo_buffer {
    _Atomic uint32_t refs;
    umo_device *device;
    umo_scope *scope;
    umo_memory memory;
    size_t memory_offset; /* of our first byte, where whole pages were bound around it */
    size_t size_bytes;
    _Atomic uint64_t record_key; /* who it is in record.c; 0 while its uses are not recorded */
    uint64_t charged_bytes;
    bool writable;           /* by the device */
    bool inner;              /* imported, out of memory that umo holds: not somebody else's */
    _Atomic uint64_t number; /* in the flight recorder; 0 until its first event. See events.h */
    void *shadow;            /* the host side where the driver's memory has none; see host_side.c */
    umo_buffer *piece;       /* NULL, or what keeps the uses of all buffers that share its bytes */
    size_t piece_offset;
    void *home; /* movable memory: its host addresses, reserved for its life */
    size_t home_bytes;
    _Atomic uint32_t
        mode; /* what the caller sees; below movable MANAGED memory is PRIVATE memory */
    _Atomic uint32_t pages; /* umo_buffer_pages */
    umo_deleter deleter;
    void *deleter_data; /* the owner's address: the device may have given it another one */
    void *deleter_user;

    pthread_mutex_t lock; /* all below, and memory, shadow and charged_bytes once it is shared */
    pthread_cond_t changed;
    uint32_t waiters; /* threads that wait for changed */
    uint32_t holds;   /* calls that rely on the mode: a move waits for them as for brackets */
    uint32_t pins;
    uint32_t exports[2][2]; /* by export_index() and writable */
    uint32_t export_count;  /* all of them */
    bool changing;          /* a move or a page-lock is at work: brackets wait */
    bool relocating;        /* pages are on their way to another node: brackets need not wait */
    uint32_t relocating_in; /* umo_os_forks() of then: in a child of fork() nobody moves them */
    umo_ranges valid;       /* umo_side bits, or RANGE_FAILED */
    size_t use_count;
    size_t use_capacity;
    buffer_use *uses;
    buffer_use inline_uses[USES_INLINE];
    umo_buffer *next_spare;
};

static inline unsigned umo_export_index(umo_side side)
{
    return side == UMO_SIDE_DEVICE ? 1u : 0u;
}

static inline umo_side umo_side_other(umo_side side)
{
    return side == UMO_SIDE_HOST ? UMO_SIDE_DEVICE : UMO_SIDE_HOST;
}

static inline umo_direction umo_side_direction(umo_side side)
{
    return side == UMO_SIDE_DEVICE ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT;
}

/* Are there two memories that have to be kept in step? The lock is held, or no move can run. */
static inline bool umo_buffer_two_sided(const umo_buffer *buffer)
{
    return buffer->memory.mode != UMO_UNIFIED && !buffer->memory.one_memory;
}

/* ---- uses.c. But for hold and drop, the lock is held. ---- */

/* A fence that is kept must not outlive its device; the buffer's own device outlives the buffer
 * anyway. */
void umo_use_fence_hold(const umo_buffer *buffer, umo_fence fence);
void umo_use_fence_drop(const umo_buffer *buffer, umo_fence fence);

/* Makes room for more uses. False when memory is out. */
bool umo_uses_grow(umo_buffer *buffer, size_t wanted);
static inline bool umo_uses_reserve(umo_buffer *buffer, size_t more)
{
    return buffer->use_count + more <= buffer->use_capacity ||
           umo_uses_grow(buffer, buffer->use_count + more);
}

/* Adds a use, for which room was made, unless it has ended and passed. */
static inline void umo_use_add(umo_buffer *buffer, const buffer_use *use)
{
    assert(buffer->use_count < buffer->use_capacity);
    if (use->open || use->fence.value != 0) {
        buffer->uses[buffer->use_count++] = *use;
    }
}

/* The same for a bracket that opens. In place: this is on every path. */
static inline void umo_use_open(umo_buffer *buffer, const umo_access *access)
{
    assert(buffer->use_count < buffer->use_capacity);
    buffer_use *use = &buffer->uses[buffer->use_count++];
    use->access = *access;
    use->opener = pthread_self();
    use->open = true;
    use->moves = false;
}

/* Takes a use out of the list. */
static inline void umo_use_drop(umo_buffer *buffer, size_t index)
{
    size_t last = --buffer->use_count;
    if (index != last) {
        buffer->uses[index] = buffer->uses[last];
    }
}

/* Forgets an ended use that has completed, and with it what it failed to bring or write. False when
 * memory is out. */
bool umo_use_retire(umo_buffer *buffer, size_t index);
/* How many uses are open or will become a pending one without being asked: each needs room. */
static inline size_t umo_uses_open(const umo_buffer *buffer)
{
    size_t open = buffer->export_count;
    for (size_t i = 0; i < buffer->use_count; i++) {
        open += buffer->uses[i].open ? 1 : 0;
    }
    return open;
}

/* Wakes who waits for a change of the buffer. */
static inline void umo_buffer_changed(umo_buffer *buffer)
{
    if (buffer->waiters > 0) {
        (void)pthread_cond_broadcast(&buffer->changed);
    }
}
/* Waits for one, at most until the deadline: false when that has passed. */
bool umo_buffer_change_wait(umo_buffer *buffer, uint64_t deadline_ns);

/* Takes the lock when no move and no page-lock is at work. */
void umo_buffer_lock_quiet(umo_buffer *buffer);

/* Whether pages are on their way to another node. The lock is held. */
static inline bool umo_buffer_relocates(const umo_buffer *buffer)
{
    return buffer->relocating && buffer->relocating_in == umo_os_forks();
}

/* Waits until no pages are on their way to another node, which nobody begins after the caller has
 * noted a pin, an export or a change. The lock is held, and let go meanwhile. */
static inline void umo_buffer_relocation_wait(umo_buffer *buffer)
{
    while (umo_buffer_relocates(buffer)) {
        (void)umo_buffer_change_wait(buffer, UINT64_MAX);
    }
}

/* Between the two the mode stays. Neither is called with the lock held. */
void umo_buffer_hold(umo_buffer *buffer);
void umo_buffer_unhold(umo_buffer *buffer);

/* ---- host_side.c ---- */

/* The host side's address, and NULL where there is none (yet). The lock is held. */
static inline void *umo_host_side(const umo_buffer *buffer)
{
    return buffer->memory.host == NULL ? buffer->shadow
                                       : (char *)buffer->memory.host + buffer->memory_offset;
}
/* Makes it where there is none: charged, and page-locked if the buffer is pinned. LIMIT, NOMEM,
 * SYSTEM. The lock is held, or a move is at work. */
umo_status umo_host_side_make(umo_buffer *buffer, umo_error *error);
/* Gives back what umo_host_side_make() made; nothing uses it. A move is at work. */
void umo_host_side_drop(umo_buffer *buffer);
/* Undoes the page-lock of a pinned buffer's host side. */
void umo_host_side_unlock(umo_buffer *buffer);
/* At the end of the buffer: the host side and the addresses. */
void umo_host_side_finish(umo_buffer *buffer);

/* ---- buffer.c ---- */

/* An object with nothing in it; NULL when memory is out. It takes the release of half a buffer
 * without memory (memory.size_bytes 0) once it was started. */
umo_buffer *umo_buffer_object_take(void);
/* What all buffers have in common. memory is set, for its mode. */
void umo_buffer_object_start(umo_buffer *buffer, umo_device *device, umo_scope *scope,
                             size_t size_bytes, uint32_t valid);
/* INVAL for what no device takes. */
umo_status umo_buffer_size_check(const umo_device *device, size_t size_bytes, umo_error *error);

/* ---- movable.c ---- */

/* The device's own memory for a movable buffer, charged, but not in the buffer's charged_bytes. */
umo_status umo_movable_device_alloc(umo_buffer *buffer, umo_memory *out, umo_error *error);
/* The host side as memory of the device. */
umo_status umo_movable_import(umo_buffer *buffer, umo_memory *out, umo_error *error);
/* UNSUPPORTED or INVAL, with words, for a mode that the device cannot have movable memory in. */
umo_status umo_movable_check(const umo_device *device, umo_storage_mode mode, umo_error *error);

/* ---- access.c ---- */

/* Whether a use may begin now, and the bytes brought for it; exporting: for an export, which has
 * its own rules about others. The lock is held, and after UMO_OK until the use is in the books:
 * seen in between, it would be in nobody's way or in everybody's. */
umo_status umo_bytes_claim(umo_buffer *buffer, const umo_access *access, bool exporting,
                           umo_fence_set *waits);
/* umo_access_begin() of a valid range that is not empty. Not recorded as an access. */
umo_status umo_bracket_open(umo_buffer *buffer, const umo_access *access, umo_fence_set *waits);
/* Notes a use in the books of a buffer's piece, as `noted`, if no other buffer's use of the same
 * bytes is in the way of `access`; BUSY. What it has to wait for comes out in waits. Nothing
 * happens without a piece. No lock is held, and in these three neither. */
umo_status umo_piece_open(umo_buffer *buffer, const umo_access *access, umo_use noted,
                          umo_fence_set *waits);
/* The use that was noted has ended. */
void umo_piece_close(umo_buffer *buffer, const umo_access *access, umo_use noted, umo_fence done);
/* Adds what a piece has to wait for to the waits of a use. */
void umo_piece_waits_add(umo_fence_set *waits, const umo_fence_set *piece);
/* Test mode: the other side's bytes of a range just became stale; make them useless, in order
 * behind all uses. The lock is held, room for one use was made. */
void umo_stale_poison(umo_buffer *buffer, const umo_access *access, umo_fence done);

#endif

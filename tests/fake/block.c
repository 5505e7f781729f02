/*
 * Blocks, as "Block Implementation Specification" of Clang lays them out: copied from the stack
 * when somebody keeps them, then counted. __block variables travel with them.
 */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

enum {
    COUNT_MASK = 0xfffe,
    COUNT_ONE = 2,
    NEEDS_FREE = 1 << 24,
    HAS_HELPERS = 1 << 25,
    IS_GLOBAL = 1 << 28,
    FIELD_OBJECT = 3,
    FIELD_BLOCK = 7,
    FIELD_BYREF = 8
};

typedef struct descriptor {
    unsigned long reserved;
    unsigned long size_bytes;
    void (*copy)(void *to, const void *from); /* these two only with HAS_HELPERS */
    void (*dispose)(const void *block);
} descriptor;

typedef struct byref {
    void *isa;
    struct byref *forwarding;
    atomic_int flags;
    uint32_t size_bytes;
    void (*keep)(struct byref *to, struct byref *from); /* these two only with HAS_HELPERS */
    void (*destroy)(struct byref *self);
} byref;

fake_class fake_class_block = {.name = "Block", .hidden = true};
fake_class _NSConcreteStackBlock = {.super = &fake_class_block, .name = "__NSStackBlock"};
fake_class _NSConcreteGlobalBlock = {.super = &fake_class_block, .name = "__NSGlobalBlock"};
fake_class _NSConcreteMallocBlock = {.super = &fake_class_block, .name = "__NSMallocBlock"};

static void *memory_copy(const void *from, size_t size_bytes)
{
    void *to = malloc(size_bytes);
    if (to == NULL) {
        abort();
    }
    memcpy(to, from, size_bytes);
    return to;
}

static bool block_valid(const fake_block *block)
{
    if (block->isa == &_NSConcreteStackBlock || block->isa == &_NSConcreteGlobalBlock ||
        block->isa == &_NSConcreteMallocBlock) {
        return true;
    }
    fake_violate("not_a_block", "what is given as a block is none");
    return false;
}

void *_Block_copy(const void *given)
{
    union {
        const void *from;
        fake_block *to;
    } block = {.from = given};
    if (given == NULL || !block_valid(block.to)) {
        return NULL;
    }
    int flags = atomic_load_explicit(&block.to->flags, memory_order_relaxed);
    if ((flags & NEEDS_FREE) != 0) {
        (void)atomic_fetch_add_explicit(&block.to->flags, COUNT_ONE, memory_order_relaxed);
        return block.to;
    }
    if ((flags & IS_GLOBAL) != 0 || block.to->isa == &_NSConcreteGlobalBlock) {
        return block.to;
    }
    const descriptor *about = block.to->descriptor;
    fake_block *made = memory_copy(given, about->size_bytes);
    made->isa = &_NSConcreteMallocBlock;
    atomic_init(&made->flags, (flags & ~COUNT_MASK) | NEEDS_FREE | COUNT_ONE);
    (void)atomic_fetch_add_explicit(&fake_class_block.live, 1, memory_order_relaxed);
    if ((flags & HAS_HELPERS) != 0) {
        about->copy(made, given);
    }
    return made;
}

void _Block_release(const void *given)
{
    union {
        const void *from;
        fake_block *to;
    } block = {.from = given};
    if (given == NULL || !block_valid(block.to)) {
        return;
    }
    int flags = atomic_load_explicit(&block.to->flags, memory_order_relaxed);
    if ((flags & NEEDS_FREE) == 0) {
        return;
    }
    flags = atomic_fetch_sub_explicit(&block.to->flags, COUNT_ONE, memory_order_acq_rel);
    if ((flags & COUNT_MASK) != COUNT_ONE) {
        return;
    }
    if ((flags & HAS_HELPERS) != 0) {
        ((const descriptor *)block.to->descriptor)->dispose(block.to);
    }
    (void)atomic_fetch_sub_explicit(&fake_class_block.live, 1, memory_order_relaxed);
    free(block.to);
}

/* The variable leaves the stack with the first block that is copied; the frame then uses the copy.
 */
static byref *byref_copy(byref *variable)
{
    byref *from = variable->forwarding;
    int flags = atomic_load_explicit(&from->flags, memory_order_relaxed);
    if ((flags & NEEDS_FREE) != 0) {
        (void)atomic_fetch_add_explicit(&from->flags, COUNT_ONE, memory_order_relaxed);
        return from;
    }
    byref *made = memory_copy(from, from->size_bytes);
    /* One for the block, one for the frame. */
    atomic_init(&made->flags, (flags & ~COUNT_MASK) | NEEDS_FREE | (2 * COUNT_ONE));
    made->forwarding = made;
    from->forwarding = made;
    if ((flags & HAS_HELPERS) != 0) {
        made->keep(made, from);
    }
    return made;
}

static void byref_release(byref *variable)
{
    byref *the = variable->forwarding;
    if ((atomic_load_explicit(&the->flags, memory_order_relaxed) & NEEDS_FREE) == 0) {
        return;
    }
    int flags = atomic_fetch_sub_explicit(&the->flags, COUNT_ONE, memory_order_acq_rel);
    if ((flags & COUNT_MASK) != COUNT_ONE) {
        return;
    }
    if ((flags & HAS_HELPERS) != 0) {
        the->destroy(the);
    }
    free(the);
}

void _Block_object_assign(void *target, const void *object, int flags)
{
    union {
        const void *from;
        void *to;
    } given = {.from = object};
    void *kept = given.to;
    if ((flags & FIELD_BYREF) != 0) {
        kept = byref_copy(given.to);
    } else if ((flags & FIELD_BLOCK) == FIELD_BLOCK) {
        kept = _Block_copy(object);
    } else if ((flags & FIELD_OBJECT) == FIELD_OBJECT) {
        kept = objc_retain(given.to);
    }
    memcpy(target, &kept, sizeof kept);
}

void _Block_object_dispose(const void *object, int flags)
{
    union {
        const void *from;
        void *to;
    } given = {.from = object};
    if ((flags & FIELD_BYREF) != 0) {
        byref_release(given.to);
    } else if ((flags & FIELD_BLOCK) == FIELD_BLOCK) {
        _Block_release(object);
    } else if ((flags & FIELD_OBJECT) == FIELD_OBJECT) {
        objc_release(given.to);
    }
}

/*
 * Autorelease pools: one stack a thread. NULL entries are where pools begin; a pool's token is its
 * place and its thread. An object that finds no pool would leak: a violation.
 */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

typedef struct stack {
    id *entries;
    size_t count;
    size_t capacity;
    uint32_t thread;
} stack;

typedef struct pool {
    fake_object object;
    void *token;
} pool;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static atomic_uint threads;

static void pool_pop_to(stack *the, size_t place)
{
    /* Releasing may autorelease again. */
    while (the->count > place) {
        objc_release(the->entries[--the->count]);
    }
}

static void stack_end(void *data)
{
    stack *the = data;
    if (the->count > 0) {
        fake_violate("pool_left", "a thread ends inside an autorelease pool");
        (void)pthread_setspecific(key, the);
        pool_pop_to(the, 0);
        (void)pthread_setspecific(key, NULL);
    }
    free(the->entries);
    free(the);
}

static void key_make(void)
{
    if (pthread_key_create(&key, stack_end) != 0) {
        abort();
    }
}

static stack *stack_get(void)
{
    (void)pthread_once(&once, key_make);
    stack *the = pthread_getspecific(key);
    if (the == NULL) {
        the = calloc(1, sizeof *the);
        if (the == NULL) {
            abort();
        }
        the->thread = atomic_fetch_add_explicit(&threads, 1, memory_order_relaxed) + 1;
        (void)pthread_setspecific(key, the);
    }
    return the;
}

static void stack_push(stack *the, id entry)
{
    if (the->count == the->capacity) {
        the->capacity = the->capacity == 0 ? 64 : the->capacity * 2;
        id *grown = realloc(the->entries, the->capacity * sizeof *grown);
        if (grown == NULL) {
            abort();
        }
        the->entries = grown;
    }
    the->entries[the->count++] = entry;
}

void *objc_autoreleasePoolPush(void)
{
    stack *the = stack_get();
    stack_push(the, NULL);
    return (void *)(((uintptr_t)the->thread << 32) | the->count);
}

void objc_autoreleasePoolPop(void *token)
{
    stack *the = stack_get();
    uintptr_t bits = (uintptr_t)token;
    size_t place = bits & UINT32_MAX;
    if (bits >> 32 != the->thread) {
        fake_violate("pool_thread", "a pool is popped on another thread than it was pushed on");
        return;
    }
    if (place == 0 || place > the->count || the->entries[place - 1] != NULL) {
        fake_violate("pool_order", "a pool is popped that is not there");
        return;
    }
    for (size_t i = place; i < the->count; i++) {
        if (the->entries[i] == NULL) {
            fake_violate("pool_order", "a pool is popped before one that was pushed after it");
            break;
        }
    }
    pool_pop_to(the, place - 1);
}

id objc_autorelease(id object)
{
    if (object == NULL) {
        return NULL;
    }
    stack *the = stack_get();
    if (the->count == 0) {
        fake_violate("no_pool", "an autoreleased %s leaks: the thread has no pool",
                     fake_class_name(object));
    } else {
        stack_push(the, object);
    }
    return object;
}

static id pool_init(pool *self, SEL selector)
{
    (void)selector;
    self->token = objc_autoreleasePoolPush();
    return self;
}

static id pool_new(fake_class *class, SEL selector)
{
    return pool_init(fake_make(class), selector);
}

static void pool_drain(pool *self, SEL selector)
{
    (void)selector;
    objc_release(self);
}

static bool pool_dealloc(void *self)
{
    objc_autoreleasePoolPop(((pool *)self)->token);
    return true;
}

static void pool_show(id self, SEL selector)
{
    (void)self;
    (void)selector;
}

static const fake_method pool_methods[] = {
    FAKE_METHOD("init", "@@:", pool_init),
    FAKE_METHOD("drain", "v@:", pool_drain),
};

static const fake_method pool_class_methods[] = {
    FAKE_METHOD("new", "@@:", pool_new),
    FAKE_METHOD("showPools", "v@:", pool_show),
};

fake_class fake_class_pool = {.super = &fake_class_object,
                              .name = "NSAutoreleasePool",
                              .size_bytes = sizeof(pool),
                              .dealloc = pool_dealloc,
                              .methods = pool_methods,
                              .method_count = FAKE_COUNT(pool_methods),
                              .class_methods = pool_class_methods,
                              .class_method_count = FAKE_COUNT(pool_class_methods),
                              .makes = true};

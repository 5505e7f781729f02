/*
 * The Objective-C runtime: selectors, classes, and the lives of objects. Autorelease pools stand in
 * pools.c, blocks in block.c.
 */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUCKETS 1024u
#define ZOMBIES_MAX 4096u

typedef struct interned {
    struct interned *next;
    uint32_t unused;
    uint32_t slot; /* right before the name: see SEL */
    char name[];
} interned;

_Static_assert(offsetof(interned, name) - offsetof(interned, slot) == 4, "a slot ends at the name");

fake_class *const fake_classes[] = {&fake_class_object,
                                    &fake_class_zombie,
                                    &fake_class_pool,
                                    &fake_class_string,
                                    &fake_class_error,
                                    &fake_class_array,
                                    &fake_class_url,
                                    &fake_class_signature,
                                    &fake_class_block,
                                    &_NSConcreteStackBlock,
                                    &_NSConcreteGlobalBlock,
                                    &_NSConcreteMallocBlock,
                                    &fake_class_device,
                                    &fake_class_resource,
                                    &fake_class_buffer,
                                    &fake_class_heap,
                                    &fake_class_heap_descriptor,
                                    &fake_class_queue,
                                    &fake_class_command,
                                    &fake_class_encoder,
                                    &fake_class_blit,
                                    &fake_class_compute,
                                    &fake_class_event,
                                    &fake_class_library,
                                    &fake_class_function,
                                    &fake_class_pipeline,
                                    &fake_class_pipeline_descriptor,
                                    &fake_class_compile_options,
                                    &fake_class_reflection,
                                    &fake_class_binding,
                                    &fake_class_buffer_binding,
                                    &fake_class_threadgroup_binding,
                                    &fake_class_archive,
                                    &fake_class_archive_descriptor,
                                    &fake_class_residency,
                                    &fake_class_residency_descriptor,
                                    NULL};

static pthread_mutex_t selectors_lock = PTHREAD_MUTEX_INITIALIZER;
static interned *selectors[BUCKETS];
static uint32_t slots_used;
static bool slots_closed;

static SEL selector_intern(const char *name)
{
    size_t length = strlen(name);
    interned **bucket = &selectors[fake_hash(name, length, 0) % BUCKETS];
    for (interned *at = *bucket; at != NULL; at = at->next) {
        if (strcmp(at->name, name) == 0) {
            return at->name;
        }
    }
    interned *made = malloc(sizeof *made + length + 1);
    if (made == NULL || (!slots_closed && slots_used == FAKE_SLOT_UNKNOWN)) {
        abort();
    }
    memcpy(made->name, name, length + 1);
    made->slot = slots_closed ? FAKE_SLOT_UNKNOWN : slots_used++;
    made->next = *bucket;
    *bucket = made;
    return made->name;
}

uint32_t fake_slot(SEL selector)
{
    uint32_t slot;
    memcpy(&slot, selector - sizeof slot, sizeof slot);
    return slot;
}

/* What a class does not understand. */
static id unknown(fake_object *self, SEL selector)
{
    fake_violate("unknown_selector", "%s does not understand %s", fake_class_name(self), selector);
    return NULL;
}

static id zombie_message(fake_object *self, SEL selector)
{
    fake_violate("zombie", "%s was sent to a freed %s", selector, self->was->name);
    return NULL;
}

static void table_add(fake_class *class, const fake_method *methods, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        class->table[fake_slot(selector_intern(methods[i].selector))] = methods[i].imp;
    }
}

static void class_tables_fill(fake_class *class, fake_class *meta)
{
    fake_imp nothing = class == &fake_class_zombie ? (fake_imp)zombie_message : (fake_imp)unknown;
    for (size_t i = 0; i < FAKE_SLOTS; i++) {
        class->table[i] = nothing;
        meta->table[i] = (fake_imp)unknown;
    }
    const fake_class *chain[8];
    size_t depth = 0;
    for (const fake_class *at = class; at != NULL; at = at->super) {
        chain[depth++] = at;
    }
    while (depth-- > 0) {
        table_add(class, chain[depth]->methods, chain[depth]->method_count);
        table_add(meta, chain[depth]->class_methods, chain[depth]->class_method_count);
    }
    meta->name = class->name;
    class->isa = meta;
}

__attribute__((constructor(101))) static void runtime_start(void)
{
    static fake_class metas[FAKE_COUNT(fake_classes) - 1];
    for (size_t i = 0; fake_classes[i] != NULL; i++) {
        class_tables_fill(fake_classes[i], &metas[i]);
    }
    slots_closed = true;
    fake_metal_options_default(&fake_options);
    fake_metal_record(fake_options.record);
}

SEL sel_registerName(const char *name)
{
    (void)pthread_mutex_lock(&selectors_lock);
    SEL found = selector_intern(name);
    (void)pthread_mutex_unlock(&selectors_lock);
    return found;
}

SEL sel_getUid(const char *name)
{
    return sel_registerName(name);
}

const char *sel_getName(SEL selector)
{
    return selector;
}

static fake_class *class_find(const char *name, bool hidden)
{
    for (size_t i = 0; fake_classes[i] != NULL; i++) {
        if (fake_classes[i]->hidden == hidden && strcmp(fake_classes[i]->name, name) == 0) {
            return fake_classes[i];
        }
    }
    return NULL;
}

id objc_getClass(const char *name)
{
    if (!fake_options.residency && strcmp(name, "MTLResidencySetDescriptor") == 0) {
        return NULL;
    }
    return class_find(name, false);
}

id objc_lookUpClass(const char *name)
{
    return objc_getClass(name);
}

id objc_getProtocol(const char *name)
{
    return class_find(name, true);
}

const char *class_getName(id class)
{
    return class == NULL ? "nil" : ((const fake_class *)class)->name;
}

id object_getClass(id object)
{
    union {
        const fake_class *from;
        id to;
    } class = {.from = object == NULL ? NULL : ((fake_object *)object)->isa};
    return class.to;
}

const char *object_getClassName(id object)
{
    return class_getName(object_getClass(object));
}

const char *fake_metal_encoding(const char *owner, const char *name)
{
    bool of_class = owner[0] == '+';
    for (size_t i = 0; fake_classes[i] != NULL; i++) {
        const fake_class *class = fake_classes[i];
        if (strcmp(class->name, owner + (of_class ? 1 : 0)) != 0) {
            continue;
        }
        const fake_method *methods = of_class ? class->class_methods : class->methods;
        size_t count = of_class ? class->class_method_count : class->method_count;
        for (size_t m = 0; m < count; m++) {
            if (strcmp(methods[m].selector, name) == 0) {
                return methods[m].encoding;
            }
        }
    }
    return NULL;
}

/* ---- lives ---- */

static pthread_mutex_t zombies_lock = PTHREAD_MUTEX_INITIALIZER;
static fake_object *zombies_first;
static fake_object *zombies_last;
static uint32_t zombies_count;

void *fake_make(fake_class *class)
{
    fake_object *object = calloc(1, class->size_bytes);
    if (object == NULL) {
        abort();
    }
    atomic_init(&object->isa, class);
    atomic_init(&object->references, 1);
    (void)atomic_fetch_add_explicit(&class->live, 1, memory_order_relaxed);
    return object;
}

bool fake_is(id object, const fake_class *class)
{
    if (object == NULL) {
        return false;
    }
    const fake_object *header = object;
    const fake_class *at = atomic_load_explicit(&header->isa, memory_order_relaxed);
    while (at != NULL && at != class) {
        at = at->super;
    }
    return at == class;
}

bool fake_is_zombie(id object)
{
    const fake_object *header = object;
    return atomic_load_explicit(&header->isa, memory_order_relaxed) == &fake_class_zombie;
}

const char *fake_class_name(id object)
{
    if (object == NULL) {
        return "nil";
    }
    const fake_object *header = object;
    return fake_is_zombie(object) ? header->was->name
                                  : atomic_load_explicit(&header->isa, memory_order_relaxed)->name;
}

void fake_bury(fake_object *object, fake_class *class)
{
    memset(object + 1, 0xdb, class->size_bytes - sizeof *object);
    (void)atomic_fetch_sub_explicit(&class->live, 1, memory_order_relaxed);
    object->later = NULL;
    fake_object *oldest = NULL;
    (void)pthread_mutex_lock(&zombies_lock);
    if (zombies_last != NULL) {
        zombies_last->later = object;
    } else {
        zombies_first = object;
    }
    zombies_last = object;
    if (++zombies_count > ZOMBIES_MAX) {
        oldest = zombies_first;
        zombies_first = oldest->later;
        zombies_count--;
    }
    (void)pthread_mutex_unlock(&zombies_lock);
    free(oldest);
}

void fake_zombies_clear(void)
{
    (void)pthread_mutex_lock(&zombies_lock);
    fake_object *at = zombies_first;
    zombies_first = NULL;
    zombies_last = NULL;
    zombies_count = 0;
    (void)pthread_mutex_unlock(&zombies_lock);
    while (at != NULL) {
        fake_object *next = at->later;
        free(at);
        at = next;
    }
}

void fake_uses_begin(fake_object *object)
{
    (void)atomic_fetch_add_explicit(&object->uses, 1, memory_order_relaxed);
}

void fake_uses_end(fake_object *object)
{
    if (atomic_fetch_sub_explicit(&object->uses, 1, memory_order_acq_rel) == 1 &&
        atomic_exchange_explicit(&object->overdue, false, memory_order_acq_rel)) {
        objc_release(object);
    }
}

static void object_end(fake_object *object)
{
    union {
        const fake_class *from;
        fake_class *to;
    } class = {.from = atomic_load_explicit(&object->isa, memory_order_relaxed)};
    if (atomic_load_explicit(&object->uses, memory_order_acquire) > 0) {
        fake_violate("freed_in_use",
                     "a %s is freed while a committed command buffer without references uses it",
                     class.to->name);
        /* Recording goes on: the worker must not fall over it. */
        atomic_store_explicit(&object->references, 1, memory_order_relaxed);
        atomic_store_explicit(&object->overdue, true, memory_order_release);
        return;
    }
    /* First: another thread may bury what waits for its deallocator. */
    object->was = class.from;
    atomic_store_explicit(&object->isa, &fake_class_zombie, memory_order_relaxed);
    if (class.to->dealloc == NULL || class.to->dealloc(object)) {
        fake_bury(object, class.to);
    }
}

id objc_retain(id object)
{
    fake_object *header = object;
    if (header == NULL) {
        return NULL;
    }
    if (fake_is_zombie(object)) {
        return zombie_message(header, "retain");
    }
    (void)atomic_fetch_add_explicit(&header->references, 1, memory_order_relaxed);
    return object;
}

void objc_release(id object)
{
    fake_object *header = object;
    if (header == NULL) {
        return;
    }
    if (fake_is_zombie(object)) {
        (void)zombie_message(header, "release");
        return;
    }
    if (atomic_fetch_sub_explicit(&header->references, 1, memory_order_acq_rel) == 1) {
        object_end(header);
    }
}

/* ---- NSObject ---- */

static id class_alloc(fake_class *class, SEL selector)
{
    if (!class->makes) {
        fake_violate("not_made_by_new", "+[%s %s]", class->name, selector);
        return NULL;
    }
    return fake_fails(selector) ? NULL : fake_make(class);
}

static id class_self(id self, SEL selector)
{
    (void)selector;
    return self;
}

static id object_retain(id self, SEL selector)
{
    (void)selector;
    return objc_retain(self);
}

static void object_release(id self, SEL selector)
{
    (void)selector;
    objc_release(self);
}

static id object_autorelease(id self, SEL selector)
{
    (void)selector;
    return objc_autorelease(self);
}

static ns_uint object_retain_count(fake_object *self, SEL selector)
{
    (void)selector;
    return atomic_load_explicit(&self->references, memory_order_relaxed);
}

static id object_class(id self, SEL selector)
{
    (void)selector;
    return object_getClass(self);
}

static ns_uint object_hash(id self, SEL selector)
{
    (void)selector;
    return (ns_uint)(uintptr_t)self;
}

static bool object_is_equal(id self, SEL selector, id other)
{
    (void)selector;
    return self == other;
}

static id object_description(fake_object *self, SEL selector)
{
    (void)selector;
    char text[96];
    (void)snprintf(text, sizeof text, "<%s>", fake_class_name(self));
    return fake_string(text);
}

static bool object_responds(fake_object *self, SEL selector, SEL asked)
{
    (void)selector;
    if (!fake_options.residency && strcmp(asked, "newResidencySetWithDescriptor:error:") == 0) {
        return false;
    }
    const fake_class *class = atomic_load_explicit(&self->isa, memory_order_relaxed);
    return class->table[fake_slot(asked)] != (fake_imp)unknown;
}

/* NSMethodSignature: only whether there is one counts. */
static id object_method_signature(fake_object *self, SEL selector, SEL asked)
{
    if (!object_responds(self, selector, asked)) {
        return NULL;
    }
    return objc_autorelease(fake_make(&fake_class_signature));
}

static const fake_method object_methods[] = {
    FAKE_METHOD("retain", "@@:", object_retain),
    FAKE_METHOD("release", "Vv@:", object_release),
    FAKE_METHOD("autorelease", "@@:", object_autorelease),
    FAKE_METHOD("retainCount", "Q@:", object_retain_count),
    FAKE_METHOD("init", "@@:", class_self),
    FAKE_METHOD("class", "#@:", object_class),
    FAKE_METHOD("hash", "Q@:", object_hash),
    FAKE_METHOD("isEqual:", "B@:@", object_is_equal),
    FAKE_METHOD("description", "@@:", object_description),
    FAKE_METHOD("debugDescription", "@@:", object_description),
    FAKE_METHOD("respondsToSelector:", "B@::", object_responds),
    FAKE_METHOD("methodSignatureForSelector:", "@@::", object_method_signature),
};

static const fake_method object_class_methods[] = {
    FAKE_METHOD("new", "@@:", class_alloc),
    FAKE_METHOD("alloc", "@@:", class_alloc),
    FAKE_METHOD("class", "#@:", class_self),
};

fake_class fake_class_object = {.name = "NSObject",
                                .size_bytes = sizeof(fake_object),
                                .methods = object_methods,
                                .method_count = FAKE_COUNT(object_methods),
                                .class_methods = object_class_methods,
                                .class_method_count = FAKE_COUNT(object_class_methods),
                                .makes = true};
fake_class fake_class_zombie = {.name = "Zombie", .hidden = true};
fake_class fake_class_signature = {
    .super = &fake_class_object, .name = "NSMethodSignature", .size_bytes = sizeof(fake_object)};

/*
 * Residency sets. What is added or removed counts from the next commit on; until then the former
 * content holds, and everything that either names is retained.
 */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

typedef struct member {
    id allocation;
    bool now;  /* in the committed content */
    bool next; /* in the content after the next commit */
} member;

typedef struct residency {
    fake_object object;
    fake_device *device;
    member *members;
    size_t count;
    size_t capacity;
    uint32_t queues; /* that it is attached to */
    bool requested;
    struct residency *next; /* all sets */
} residency;

typedef struct residency_descriptor {
    fake_object object;
    id label;
    ns_uint capacity;
} residency_descriptor;

/* Guards all sets and the queues' lists. No object is released under it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static residency *sets;
static uint64_t gone_cold;

id fake_residency_new(fake_device *device, SEL selector, id given, id *error)
{
    if (!fake_class_right(selector, given, &fake_class_residency_descriptor)) {
        return NULL;
    }
    if (strstr(fake_text(device->name), "Paravirtual") != NULL) {
        fake_violate("residency_paravirtual", "%s crashes on %s", selector,
                     fake_text(device->name));
        return NULL;
    }
    if (fake_fails(selector)) {
        fake_error_give(error, fake_error("MTLResidencySetDomain", 1, "no residency set is left"));
        return NULL;
    }
    residency *made = fake_make(&fake_class_residency);
    made->device = objc_retain(device);
    (void)pthread_mutex_lock(&lock);
    made->next = sets;
    sets = made;
    (void)pthread_mutex_unlock(&lock);
    return made;
}

static bool residency_dealloc(void *object)
{
    residency *self = object;
    bool cold = fake_gpu_runs() == 0;
    (void)pthread_mutex_lock(&lock);
    residency **at = &sets;
    while (*at != self) {
        at = &(*at)->next;
    }
    *at = self->next;
    gone_cold += cold ? 1 : 0;
    (void)pthread_mutex_unlock(&lock);
    for (size_t i = 0; i < self->count; i++) {
        objc_release(self->members[i].allocation);
    }
    free(self->members);
    objc_release(self->device);
    return true;
}

/* ---- content ---- */

static member *member_find(const residency *self, id allocation)
{
    for (size_t i = 0; i < self->count; i++) {
        if (self->members[i].allocation == allocation) {
            return &self->members[i];
        }
    }
    return NULL;
}

static void member_add(residency *self, id allocation)
{
    member *found = member_find(self, allocation);
    if (found != NULL) {
        found->next = true;
        return;
    }
    if (self->count == self->capacity) {
        self->capacity = self->capacity == 0 ? 16 : self->capacity * 2;
        self->members = realloc(self->members, self->capacity * sizeof *self->members);
        if (self->members == NULL) {
            abort();
        }
    }
    self->members[self->count++] = (member){.allocation = objc_retain(allocation), .next = true};
}

static bool allocation_right(const residency *self, SEL selector, id given)
{
    bool buffer = fake_is(given, &fake_class_buffer);
    bool heap = fake_is(given, &fake_class_heap);
    if (!buffer && !heap) {
        return fake_class_right(selector, given, &fake_class_buffer);
    }
    const fake_device *device =
        buffer ? ((fake_buffer *)given)->device : ((fake_heap *)given)->device;
    if (device != self->device) {
        fake_violate("other_device", "%s with memory of another device", selector);
        return false;
    }
    return true;
}

static void residency_add(residency *self, SEL selector, id allocation)
{
    if (allocation_right(self, selector, allocation)) {
        (void)pthread_mutex_lock(&lock);
        member_add(self, allocation);
        (void)pthread_mutex_unlock(&lock);
    }
}

static void residency_add_many(residency *self, SEL selector, id const *allocations, ns_uint count)
{
    for (ns_uint i = 0; i < count; i++) {
        residency_add(self, selector, allocations[i]);
    }
}

static void residency_remove(residency *self, SEL selector, id allocation)
{
    if (allocation_right(self, selector, allocation)) {
        /* Whoever waits for a deallocator inside its own pool may wait for ever: it is not
         * documented that removal lets go at once. */
        if (fake_is(allocation, &fake_class_buffer) && ((fake_buffer *)allocation)->no_copy) {
            (void)objc_autorelease(objc_retain(allocation));
        }
        (void)pthread_mutex_lock(&lock);
        member *found = member_find(self, allocation);
        if (found != NULL) {
            found->next = false;
        }
        (void)pthread_mutex_unlock(&lock);
    }
}

static void residency_remove_many(residency *self, SEL selector, id const *allocations,
                                  ns_uint count)
{
    for (ns_uint i = 0; i < count; i++) {
        residency_remove(self, selector, allocations[i]);
    }
}

static void residency_remove_all(residency *self, SEL selector)
{
    (void)selector;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < self->count; i++) {
        self->members[i].next = false;
    }
    (void)pthread_mutex_unlock(&lock);
}

static void residency_commit(residency *self, SEL selector)
{
    (void)selector;
    (void)pthread_mutex_lock(&lock);
    id *gone = malloc((self->count + 1) * sizeof *gone);
    size_t gone_count = 0;
    size_t kept = 0;
    if (gone == NULL) {
        abort();
    }
    for (size_t i = 0; i < self->count; i++) {
        member *the = &self->members[i];
        if (the->next) {
            the->now = true;
            self->members[kept++] = *the;
        } else {
            gone[gone_count++] = the->allocation;
        }
    }
    self->count = kept;
    (void)pthread_mutex_unlock(&lock);
    while (gone_count > 0) {
        objc_release(gone[--gone_count]);
    }
    free(gone);
}

static void residency_request(residency *self, SEL selector)
{
    (void)selector;
    (void)pthread_mutex_lock(&lock);
    self->requested = true;
    (void)pthread_mutex_unlock(&lock);
}

static void residency_end(residency *self, SEL selector)
{
    (void)selector;
    (void)pthread_mutex_lock(&lock);
    self->requested = false;
    (void)pthread_mutex_unlock(&lock);
}

/* Also what is not committed yet. */
static bool residency_contains(residency *self, SEL selector, id allocation)
{
    (void)selector;
    (void)pthread_mutex_lock(&lock);
    const member *found = member_find(self, allocation);
    bool contains = found != NULL && found->next;
    (void)pthread_mutex_unlock(&lock);
    return contains;
}

static ns_uint residency_count(residency *self, SEL selector)
{
    (void)selector;
    ns_uint count = 0;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < self->count; i++) {
        count += self->members[i].next ? 1 : 0;
    }
    (void)pthread_mutex_unlock(&lock);
    return count;
}

static ns_uint allocation_bytes(id allocation)
{
    if (fake_is(allocation, &fake_class_heap)) {
        return ((fake_heap *)allocation)->size;
    }
    const fake_buffer *buffer = allocation;
    return buffer->heap != NULL ? buffer->heap_bytes : buffer->accounted;
}

static ns_uint residency_bytes(residency *self, SEL selector)
{
    (void)selector;
    ns_uint bytes = 0;
    (void)pthread_mutex_lock(&lock);
    for (size_t i = 0; i < self->count; i++) {
        bytes += self->members[i].now ? allocation_bytes(self->members[i].allocation) : 0;
    }
    (void)pthread_mutex_unlock(&lock);
    return bytes;
}

static id residency_device(residency *self, SEL selector)
{
    (void)selector;
    return self->device;
}

static const fake_method residency_methods[] = {
    FAKE_METHOD("addAllocation:", "v@:@", residency_add),
    FAKE_METHOD("addAllocations:count:", "v@:r^@Q", residency_add_many),
    FAKE_METHOD("removeAllocation:", "v@:@", residency_remove),
    FAKE_METHOD("removeAllocations:count:", "v@:r^@Q", residency_remove_many),
    FAKE_METHOD("removeAllAllocations", "v@:", residency_remove_all),
    FAKE_METHOD("commit", "v@:", residency_commit),
    FAKE_METHOD("requestResidency", "v@:", residency_request),
    FAKE_METHOD("endResidency", "v@:", residency_end),
    FAKE_METHOD("containsAllocation:", "B@:@", residency_contains),
    FAKE_METHOD("allocationCount", "Q@:", residency_count),
    FAKE_METHOD("allocatedSize", "Q@:", residency_bytes),
    FAKE_METHOD("device", "@@:", residency_device),
};

fake_class fake_class_residency = {.super = &fake_class_object,
                                   .name = "MTLResidencySet",
                                   .size_bytes = sizeof(residency),
                                   .dealloc = residency_dealloc,
                                   .methods = residency_methods,
                                   .method_count = FAKE_COUNT(residency_methods),
                                   .hidden = true};

/* ---- queues ---- */

bool fake_residency_attach(fake_queue *queue, id given)
{
    static const char selector[] = "addResidencySet:";
    if (!fake_class_right(selector, given, &fake_class_residency)) {
        return false;
    }
    residency *set = given;
    if (set->device != queue->device) {
        fake_violate("other_device", "%s with a set of another device", selector);
        return false;
    }
    bool room = true;
    bool known = false;
    (void)pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < queue->residency_count; i++) {
        known = known || queue->residency[i] == given;
    }
    room = queue->residency_count < FAKE_COUNT(queue->residency);
    if (!known && room) {
        queue->residency[queue->residency_count++] = objc_retain(given);
        set->queues++;
    }
    (void)pthread_mutex_unlock(&lock);
    if (!known && !room) {
        fake_violate("residency_count", "more than %zu residency sets of one queue",
                     FAKE_COUNT(queue->residency));
    }
    return known || room;
}

void fake_residency_detach(fake_queue *queue, id given)
{
    bool found = false;
    if (!fake_class_right("removeResidencySet:", given, &fake_class_residency)) {
        return;
    }
    (void)pthread_mutex_lock(&lock);
    for (uint32_t i = 0; i < queue->residency_count && !found; i++) {
        if (queue->residency[i] == given) {
            found = true;
            queue->residency[i] = queue->residency[--queue->residency_count];
            ((residency *)given)->queues--;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    if (found) {
        objc_release(given);
    }
}

/* ---- counts ---- */

void fake_residency_reset(void)
{
    (void)pthread_mutex_lock(&lock);
    gone_cold = 0;
    (void)pthread_mutex_unlock(&lock);
}

uint64_t fake_metal_residency_leaked(void)
{
    bool cold = fake_gpu_runs() == 0;
    (void)pthread_mutex_lock(&lock);
    uint64_t count = gone_cold;
    for (const residency *at = sets; at != NULL && cold; at = at->next) {
        count++;
    }
    (void)pthread_mutex_unlock(&lock);
    return count;
}

uint64_t fake_metal_resident(void)
{
    uint64_t count = 0;
    (void)pthread_mutex_lock(&lock);
    for (const residency *at = sets; at != NULL; at = at->next) {
        for (size_t i = 0; at->requested && at->queues > 0 && i < at->count; i++) {
            count += at->members[i].now ? 1 : 0;
        }
    }
    (void)pthread_mutex_unlock(&lock);
    return count;
}

/* ---- the descriptor ---- */

static void describe_label(residency_descriptor *self, SEL selector, id label)
{
    if (label == NULL || fake_class_right(selector, label, &fake_class_string)) {
        id former = self->label;
        self->label = objc_retain(label);
        objc_release(former);
    }
}

static void describe_capacity(residency_descriptor *self, SEL selector, ns_uint capacity)
{
    (void)selector;
    self->capacity = capacity;
}

static ns_uint described_capacity(residency_descriptor *self, SEL selector)
{
    (void)selector;
    return self->capacity;
}

static bool descriptor_dealloc(void *self)
{
    objc_release(((residency_descriptor *)self)->label);
    return true;
}

static const fake_method descriptor_methods[] = {
    FAKE_METHOD("setLabel:", "v@:@", describe_label),
    FAKE_METHOD("setInitialCapacity:", "v@:Q", describe_capacity),
    FAKE_METHOD("initialCapacity", "Q@:", described_capacity),
};

fake_class fake_class_residency_descriptor = {.super = &fake_class_object,
                                              .name = "MTLResidencySetDescriptor",
                                              .size_bytes = sizeof(residency_descriptor),
                                              .dealloc = descriptor_dealloc,
                                              .methods = descriptor_methods,
                                              .method_count = FAKE_COUNT(descriptor_methods),
                                              .makes = true};

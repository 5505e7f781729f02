/* Shared events: a value that only grows, which both sides set and wait for. */
#include "fake.h"

#include <inttypes.h>

id fake_event_new(fake_device *device, SEL selector)
{
    if (fake_fails(selector)) {
        return NULL;
    }
    fake_event *made = fake_make(&fake_class_event);
    made->device = objc_retain(device);
    return made;
}

void fake_event_raise(fake_event *event, uint64_t value)
{
    uint64_t now = atomic_load_explicit(&event->value, memory_order_relaxed);
    if (value < now) {
        fake_violate("event_backwards", "an event at %" PRIu64 " is set to %" PRIu64, now, value);
        return;
    }
    atomic_store_explicit(&event->value, value, memory_order_release);
    fake_gpu_wake();
}

static uint64_t event_value(fake_event *self, SEL selector)
{
    (void)selector;
    return atomic_load_explicit(&self->value, memory_order_acquire);
}

static void event_set(fake_event *self, SEL selector, uint64_t value)
{
    (void)selector;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    fake_event_raise(self, value);
    (void)pthread_mutex_unlock(&fake_gpu_lock);
}

static bool event_wait(fake_event *self, SEL selector, uint64_t value, uint64_t timeout_ms)
{
    (void)selector;
    uint64_t now = fake_now_ns();
    uint64_t end =
        timeout_ms > (UINT64_MAX - now) / 1000000u ? UINT64_MAX : now + timeout_ms * 1000000u;
    (void)pthread_mutex_lock(&fake_gpu_lock);
    while (atomic_load_explicit(&self->value, memory_order_relaxed) < value &&
           fake_now_ns() < end) {
        fake_gpu_wait_change(end);
    }
    bool reached = atomic_load_explicit(&self->value, memory_order_relaxed) >= value;
    (void)pthread_mutex_unlock(&fake_gpu_lock);
    return reached;
}

static bool event_dealloc(void *self)
{
    objc_release(((fake_event *)self)->device);
    return true;
}

static const fake_method event_methods[] = {
    FAKE_METHOD("signaledValue", "Q@:", event_value),
    FAKE_METHOD("setSignaledValue:", "v@:Q", event_set),
    FAKE_METHOD("waitUntilSignaledValue:timeoutMS:", "B@:QQ", event_wait),
};

fake_class fake_class_event = {.super = &fake_class_object,
                               .name = "MTLSharedEvent",
                               .size_bytes = sizeof(fake_event),
                               .dealloc = event_dealloc,
                               .methods = event_methods,
                               .method_count = FAKE_COUNT(event_methods),
                               .hidden = true};

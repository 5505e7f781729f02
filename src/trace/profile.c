/*
 * The flight recorder's switch.
 */
#include <umo/profile.h>

#include <stdatomic.h>

static _Atomic bool enabled;

void umo_profile_enable(bool on)
{
    atomic_store_explicit(&enabled, on, memory_order_relaxed);
}

/*
 * Residency: one set with all of the device's memory, kept requested while the device is in use.
 *
 * Without it, the system takes memory off the GPU's tables about a second after its last use, and
 * the next request pays for putting it back. A thread asks again while commands keep coming, and
 * lets go when they stop. Sets exist from macOS 15 on, and crash on paravirtual devices, so there
 * is an off switch: UMO_METAL_RESIDENCY=0.
 */
#include "driver/metal/metal_state.h"

#include <stdlib.h>
#include <string.h>

#define BEAT_NS UINT64_C(500000000)
#define KEEP_DEFAULT_S 180u

static bool residency_wanted(const umo_metal_state *state)
{
    const char *wish = getenv("UMO_METAL_RESIDENCY");
    if (wish != NULL && wish[0] != '\0') {
        return strcmp(wish, "0") != 0;
    }
    return strstr(state->name, "Paravirtual") == NULL;
}

static uint64_t keep_ns(void)
{
    const char *wish = getenv("UMO_METAL_KEEP_RESIDENT_S");
    char *end = NULL;
    unsigned long seconds = wish != NULL ? strtoul(wish, &end, 10) : KEEP_DEFAULT_S;
    if (wish != NULL && (end == wish || *end != '\0' || seconds > 86400)) {
        seconds = KEEP_DEFAULT_S;
    }
    return (uint64_t)seconds * UINT64_C(1000000000);
}

/* Asks again every half second; rests, letting go of the memory, when nothing was given for
 * keep_ns. */
static void *heartbeat(void *opaque)
{
    umo_metal_state *state = opaque;
    umo_metal_residency *r = &state->residency;
    const umo_metal_api *api = state->api;
    (void)pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        uint64_t now_ns = umo_os_now_ns();
        uint64_t used_ns = atomic_load_explicit(&r->used_ns, memory_order_relaxed);
        bool idle = now_ns > used_ns && now_ns - used_ns > r->keep_ns;
        UMO_METAL_POOL_BEGIN(state);
        if (!idle) {
            UMO_METAL_SEND0(api, residency_request, r->set);
        } else if (!r->resting) {
            UMO_METAL_SEND0(api, residency_end, r->set);
        }
        UMO_METAL_POOL_END(state);
        r->resting = idle;
        if (idle) {
            (void)pthread_cond_wait(&r->wake, &r->lock);
        } else {
            (void)umo_os_condition_wait_until(&r->wake, &r->lock, now_ns + BEAT_NS);
        }
    }
    if (!r->resting) {
        UMO_METAL_POOL_BEGIN(state);
        UMO_METAL_SEND0(api, residency_end, r->set);
        UMO_METAL_POOL_END(state);
    }
    (void)pthread_mutex_unlock(&r->lock);
    return NULL;
}

void umo_metal_residency_init(umo_metal_state *state)
{
    umo_metal_residency *r = &state->residency;
    (void)pthread_mutex_init(&r->lock, NULL);
    umo_os_condition_init(&r->wake);
    r->keep_ns = keep_ns();
}

void umo_metal_residency_open(umo_metal_state *state)
{
    umo_metal_residency *r = &state->residency;
    const umo_metal_api *api = state->api;
    if (api->classes.residency_descriptor == NULL || !residency_wanted(state)) {
        return;
    }
    umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.residency_descriptor);
    umo_id error = NULL;
    if (descriptor != NULL) {
        r->set = UMO_METAL_SEND(api, new_residency, state->device, descriptor, &error);
    }
    UMO_METAL_SEND0(api, release, descriptor);
    /* Without a set everything works, only colder. */
    for (uint32_t q = 0; r->set != NULL && q < state->queue_count; q++) {
        UMO_METAL_SEND(api, queue_add_residency, state->queues[q].native, r->set);
    }
}

bool umo_metal_residency_stop(umo_metal_state *state)
{
    umo_metal_residency *r = &state->residency;
    (void)pthread_mutex_lock(&r->lock);
    r->stopping = true; /* a command that comes now starts no thread either */
    (void)pthread_cond_broadcast(&r->wake);
    (void)pthread_mutex_unlock(&r->lock);
    if (r->threaded) {
        (void)pthread_join(r->thread, NULL);
    }
    return r->set != NULL && !r->threaded;
}

void umo_metal_residency_finish(umo_metal_state *state)
{
    umo_metal_residency *r = &state->residency;
    for (uint32_t q = 0; r->set != NULL && q < state->queue_count; q++) {
        UMO_METAL_SEND(state->api, queue_remove_residency, state->queues[q].native, r->set);
    }
    UMO_METAL_SEND0(state->api, release, r->set);
    umo_os_condition_finish(&r->wake);
    (void)pthread_mutex_destroy(&r->lock);
}

void umo_metal_residency_add(umo_metal_state *state, umo_id allocation)
{
    umo_metal_residency *r = &state->residency;
    if (r->set != NULL) {
        (void)pthread_mutex_lock(&r->lock);
        UMO_METAL_SEND(state->api, residency_add, r->set, allocation);
        r->changed = true;
        (void)pthread_mutex_unlock(&r->lock);
    }
}

void umo_metal_residency_remove(umo_metal_state *state, umo_id allocation)
{
    umo_metal_residency *r = &state->residency;
    if (r->set != NULL) {
        (void)pthread_mutex_lock(&r->lock);
        UMO_METAL_SEND(state->api, residency_remove, r->set, allocation);
        UMO_METAL_SEND0(state->api, residency_commit, r->set);
        r->changed = false;
        (void)pthread_mutex_unlock(&r->lock);
    }
}

void umo_metal_residency_use(umo_metal_state *state)
{
    umo_metal_residency *r = &state->residency;
    if (r->set == NULL) {
        return;
    }
    atomic_store_explicit(&r->used_ns, umo_os_now_ns(), memory_order_relaxed);
    (void)pthread_mutex_lock(&r->lock);
    if (r->changed) {
        UMO_METAL_SEND0(state->api, residency_commit, r->set);
        r->changed = false;
    }
    if (!r->threaded && !r->stopping) {
        /* Without the thread the memory cools down a second after each use, and nothing else. */
        r->threaded = pthread_create(&r->thread, NULL, heartbeat, state) == 0;
        r->stopping = !r->threaded;
    } else if (r->resting) {
        (void)pthread_cond_broadcast(&r->wake);
    }
    (void)pthread_mutex_unlock(&r->lock);
}

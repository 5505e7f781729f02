/*
 * Sets of fences: what a use has to wait for. Fences of one queue are one entry, since a queue runs
 * in order.
 */
#include <umo/buffer.h>

#include "os/os.h"

bool umo_fence_set_add(umo_fence_set *set, umo_fence fence)
{
    if (fence.value == 0) {
        return true;
    }
    for (size_t i = 0; i < set->count; i++) {
        umo_fence *have = &set->fences[i];
        if (have->device == fence.device && have->queue == fence.queue) {
            have->value = have->value > fence.value ? have->value : fence.value;
            return true;
        }
    }
    if (set->count == UMO_WAITS_MAX) {
        return false;
    }
    set->fences[set->count++] = fence;
    return true;
}

umo_status umo_fence_set_wait(umo_fence_set *set, uint64_t timeout_ns)
{
    uint64_t start = timeout_ns == UINT64_MAX ? 0 : umo_os_now_ns();
    umo_status result = UMO_OK;
    bool pending = false;
    for (size_t i = 0; i < set->count; i++) {
        uint64_t left = timeout_ns;
        if (timeout_ns != UINT64_MAX) {
            uint64_t spent = umo_os_now_ns() - start;
            left = spent < timeout_ns ? timeout_ns - spent : 0;
        }
        umo_status status = umo_fence_wait(set->fences[i], left);
        result = result == UMO_OK ? status : result;
        pending = pending || status == UMO_E_TIMEOUT;
    }
    if (pending) {
        /* Also behind a failure: what has not passed must not be forgotten. */
        return UMO_E_TIMEOUT;
    }
    set->count = 0;
    return result;
}

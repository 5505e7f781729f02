/*
 * The parts of events.h that are not a line.
 */
#include "mem/events.h"

#include "base/scope.h"

uint64_t umo_buffer_number(umo_buffer *buffer)
{
    static _Atomic uint64_t numbers;
    uint64_t number = atomic_load_explicit(&buffer->number, memory_order_relaxed);
    if (number == 0) {
        uint64_t mine = atomic_fetch_add_explicit(&numbers, 1, memory_order_relaxed) + 1;
        if (atomic_compare_exchange_strong_explicit(&buffer->number, &number, mine,
                                                    memory_order_relaxed, memory_order_relaxed)) {
            number = mine;
        }
    }
    return number;
}

void umo_buffer_count_transfer(umo_buffer *buffer, umo_scope *scope, umo_side to, bool performed,
                               size_t offset_bytes, size_t size_bytes, umo_fence fence)
{
    const umo_direction direction = to == UMO_SIDE_DEVICE ? UMO_DIRECTION_IN : UMO_DIRECTION_OUT;
    umo_scope_add_transfer(scope, direction, performed, size_bytes);
    UMO_TRACE_BUFFER(
        buffer, scope,
        .kind = performed ? UMO_EVENT_TRANSFER_PERFORMED : UMO_EVENT_TRANSFER_ELIMINATED,
        .side = (uint32_t)to, .direction = (uint32_t)direction + 1, .offset_bytes = offset_bytes,
        .size_bytes = size_bytes, .queue = fence.queue, .fence_value = fence.value);
}

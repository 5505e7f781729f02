/*
 * A second translation unit with the same headers: they define nothing twice and keep no state.
 */
#include "second_unit.h"

#include <umo/unified_memory.hpp>

#if defined(UMO_TEST_BACKEND)
#include <umo/unified_backend.hpp>
#endif

std::size_t second_unit_size_of(const void *address)
{
    umo::UnifiedMemoryAllocation known;
    return umo::UnifiedMemoryOptimizer::GetAllocation(address, known).IsOk() ? known.size : 0;
}

/*
 * See new_fails.h. A unit of its own, so that no compiler sees both a new and the free() behind it.
 */
#include "new_fails.h"

#include <cstdlib>
#include <new>

thread_local long news_left = -1;

void *operator new(std::size_t size)
{
    if (news_left != 0) {
        news_left -= news_left > 0 ? 1 : 0;
        if (void *memory = std::malloc(size > 0 ? size : 1)) {
            return memory;
        }
    }
    throw std::bad_alloc();
}

void operator delete(void *memory) noexcept
{
    std::free(memory);
}

void operator delete(void *memory, std::size_t) noexcept
{
    std::free(memory);
}

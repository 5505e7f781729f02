/*
 * Memory that somebody else may take away: touched by calls that come back short instead of a
 * signal.
 */
#include "os/os.h"

size_t umo_memory_read(void *to, const void *from, size_t size_bytes)
{
    return umo_os_copy_from(to, from, size_bytes);
}

size_t umo_memory_write(void *to, const void *from, size_t size_bytes)
{
    return umo_os_copy_to(to, from, size_bytes);
}

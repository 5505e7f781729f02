/*
 * How much memory this process may use. Asked once, of the files that the watch reads.
 */
#include "access/pressure.h"

#include "os/watch.h"

uint64_t umo_pressure_memory_bytes(void)
{
    const umo_os_watch_options options = {.events = false};
    uint64_t least_bytes = umo_os_memory_bytes();
    umo_os_watch *watch;
    if (umo_os_watch_create(&options, &watch, NULL) == UMO_OK) {
        uint64_t limit_bytes = umo_os_watch_limit(watch);
        if (limit_bytes > 0 && (least_bytes == 0 || limit_bytes < least_bytes)) {
            least_bytes = limit_bytes;
        }
        umo_os_watch_destroy(watch);
    }
    return least_bytes;
}

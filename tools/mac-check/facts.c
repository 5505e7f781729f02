/* What the machine and its Metal device say of themselves. */
#include "probe.h"

#include "os/os.h"

#include "driver/metal/metal_api.h"

#include <stdio.h>
#include <stdlib.h>

int facts_print(void)
{
    umo_error error = {0};
    uint32_t count = 0;
    bool first_opens = true;
    const umo_metal_api *api = NULL;
    (void)printf("umo %s%s\n", umo_version(),
                 probe_is_stand_in() ? ", on a stand-in for Metal: times mean nothing" : "");
    (void)printf("page %zu, cache line %zu, memory %llu\n", umo_os_page_bytes(),
                 umo_os_cache_line_bytes(), (unsigned long long)umo_os_memory_bytes());
    if (umo_driver_count("metal", &count, &error) != UMO_OK) {
        (void)printf("no Metal device: %s\n", error.text);
        return 1;
    }
    if (umo_metal_api_get(&api, &error) == UMO_OK) {
        (void)printf("residency sets: %s\n",
                     api->classes.residency_descriptor != NULL ? "yes (macOS 15 or later)" : "no");
    }
    for (uint32_t i = 0; i < count; i++) {
        umo_device *device = NULL;
        if (umo_device_open("metal", i, NULL, &device, &error) != UMO_OK) {
            (void)printf("device %u does not open: %s\n", i, error.text);
            first_opens = first_opens && i > 0; /* the only one that the other steps use */
            continue;
        }
        const umo_device_info *info = umo_device_info_get(device);
        (void)printf("device %u: %s, %s, %s memory\n", i, info->name, info->family,
                     info->unified ? "one" : "its own");
        (void)printf("  caps %#x, queues %u, language %d\n", info->caps, info->queues,
                     (int)info->language);
        (void)printf("  import at %zu, length %zu; write granule %zu; allocations at %zu\n",
                     info->import_align_bytes, info->import_size_align_bytes,
                     info->write_granule_bytes, info->alloc_align_bytes);
        (void)printf("  longest buffer %llu, working set %llu, bandwidth by the name %llu\n",
                     (unsigned long long)info->buffer_max_bytes,
                     (unsigned long long)info->memory_bytes,
                     (unsigned long long)info->bandwidth_bytes_s);
        umo_device_release(device);
    }
    return first_opens ? 0 : 1;
}

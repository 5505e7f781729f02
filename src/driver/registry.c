/*
 * Which drivers there are. A table is checked once, when it comes in: a capability bit promises a
 * whole group of functions, and after the check nobody asks again.
 */
#include "driver/registry.h"

#include "base/size.h"
#include "driver/drivers.h"

#include <umo/device.h>

#include <pthread.h>
#include <string.h>

#define DRIVERS_MAX 16

static const umo_driver *drivers[DRIVERS_MAX] = {&umo_driver_host, &umo_driver_opencl,
                                                 &umo_driver_metal};
static size_t driver_count = 3;
static pthread_mutex_t drivers_lock = PTHREAD_MUTEX_INITIALIZER;

const umo_driver *umo_driver_find(const char *name)
{
    const umo_driver *found = NULL;
    (void)pthread_mutex_lock(&drivers_lock);
    for (size_t i = 0; i < driver_count && found == NULL; i++) {
        if (strcmp(drivers[i]->name, name) == 0) {
            found = drivers[i];
        }
    }
    (void)pthread_mutex_unlock(&drivers_lock);
    return found;
}

umo_status umo_driver_register(const umo_driver *driver, umo_error *error)
{
    if (driver == NULL || driver->name == NULL || driver->name[0] == '\0') {
        return umo_error_set(error, UMO_E_INVAL, 0, "a driver needs a name");
    }
    if (strlen(driver->name) >= sizeof((umo_device_info *)NULL)->driver) {
        return umo_error_set(error, UMO_E_INVAL, 0, "a driver's name has at most %zu letters",
                             sizeof((umo_device_info *)NULL)->driver - 1);
    }
    if (driver->abi != UMO_DRIVER_ABI || driver->size_bytes != sizeof *driver) {
        return umo_error_set(error, UMO_E_INVAL, 0, "driver '%s' was built for ABI %u, this is %u",
                             driver->name, driver->abi, UMO_DRIVER_ABI);
    }
    if (driver->count == NULL || driver->open == NULL || driver->close == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "driver '%s' lacks count, open or close",
                             driver->name);
    }
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&drivers_lock);
    for (size_t i = 0; i < driver_count; i++) {
        if (strcmp(drivers[i]->name, driver->name) == 0) {
            status = umo_error_set(error, UMO_E_INVAL, 0, "there is a driver '%s' already",
                                   driver->name);
            goto done;
        }
    }
    if (driver_count == DRIVERS_MAX) {
        status = umo_error_set(error, UMO_E_LIMIT, 0, "no room for driver '%s': %d are registered",
                               driver->name, DRIVERS_MAX);
        goto done;
    }
    drivers[driver_count++] = driver;

done:
    (void)pthread_mutex_unlock(&drivers_lock);
    return status;
}

umo_status umo_driver_count(const char *name, uint32_t *out, umo_error *error)
{
    const umo_driver *driver = umo_driver_find(name);
    if (driver == NULL) {
        return umo_error_set(error, UMO_E_NOT_FOUND, 0, "there is no driver '%s'", name);
    }
    return driver->count(out, error);
}

/* The name of the first thing that a table or its device's facts lack; NULL when all is there. */
const char *umo_driver_missing(const umo_driver *driver, const umo_device_info *info)
{
    uint32_t caps = info->caps;
    uint32_t two_sided = UMO_CAP_MANAGED | UMO_CAP_PRIVATE;
    const struct {
        bool promised;
        bool present;
        const char *name;
    } groups[] = {
        {true, driver->alloc != NULL, "alloc"},
        {true, driver->free != NULL, "free"},
        {true, driver->copy != NULL, "copy"},
        {true, driver->fence_done != NULL, "fence_done"},
        {true, driver->fence_wait != NULL, "fence_wait"},
        {(caps & (UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE)) != 0, driver->import != NULL,
         "import"},
        {(caps & two_sided) != 0, driver->transfer != NULL, "transfer"},
        {(caps & UMO_CAP_UNIFIED) != 0 && (caps & UMO_CAP_COHERENT) == 0, driver->publish != NULL,
         "publish"},
        {(caps & UMO_CAP_KERNELS) != 0, driver->program_create != NULL, "program_create"},
        {(caps & UMO_CAP_KERNELS) != 0, driver->program_destroy != NULL, "program_destroy"},
        {(caps & UMO_CAP_KERNELS) != 0, driver->kernel_create != NULL, "kernel_create"},
        {(caps & UMO_CAP_KERNELS) != 0, driver->kernel_destroy != NULL, "kernel_destroy"},
        {(caps & UMO_CAP_KERNELS) != 0, driver->kernel_launch != NULL, "kernel_launch"},
        {(caps & UMO_CAP_POISON) != 0, driver->poison != NULL, "poison"},
        {(caps & UMO_CAP_USAGE) != 0, driver->usage != NULL, "usage"},
        {(caps & UMO_CAP_PURGEABLE) != 0, driver->purgeable != NULL, "purgeable"},
        /* Alignments are used as masks, and a queue's number as an index. */
        {true, info->queues >= 1 && info->queues <= UMO_QUEUES_MAX, "1 to UMO_QUEUES_MAX queues"},
        {true, umo_is_power_of_two(info->import_align_bytes), "import_align_bytes, a power of two"},
        {true, umo_is_power_of_two(info->import_size_align_bytes),
         "import_size_align_bytes, a power of two"},
        {true, umo_is_power_of_two(info->write_granule_bytes),
         "write_granule_bytes, a power of two"},
        {true, info->buffer_max_bytes != 0, "buffer_max_bytes"},
    };
    for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
        if (groups[i].promised && !groups[i].present) {
            return groups[i].name;
        }
    }
    return NULL;
}

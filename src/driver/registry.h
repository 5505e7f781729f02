/*
 * Look-up of drivers by name, and the check that a table holds what its capabilities promise.
 */
#ifndef UMO_DRIVER_REGISTRY_H
#define UMO_DRIVER_REGISTRY_H

#include <umo/driver.h>

/* NULL if there is none. */
const umo_driver *umo_driver_find(const char *name);

/* The name of the first thing that a table or its device's facts lack; NULL when all is there. */
const char *umo_driver_missing(const umo_driver *driver, const umo_device_info *info);

#endif

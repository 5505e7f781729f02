/*
 * The drivers that are built in.
 */
#ifndef UMO_DRIVER_DRIVERS_H
#define UMO_DRIVER_DRIVERS_H

#include <umo/driver.h>

extern const umo_driver umo_driver_host;
extern const umo_driver umo_driver_metal;
extern const umo_driver umo_driver_opencl;

#endif

/* Apple's includes the C library's headers and libdispatch's too, and metal-cpp relies on that. */
#ifndef UMO_ORACLE_CORE_FOUNDATION_H
#define UMO_ORACLE_CORE_FOUNDATION_H

#include <dispatch/dispatch.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>

typedef double CFTimeInterval;

#endif

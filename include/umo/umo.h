/**
 * @file umo.h
 * The whole C API.
 */
#ifndef UMO_UMO_H
#define UMO_UMO_H

#include <umo/access.h>
#include <umo/arena.h>
#include <umo/buffer.h>
#include <umo/context.h>
#include <umo/copy.h>
#include <umo/device.h>
#include <umo/dlpack.h>
#include <umo/driver.h>
#include <umo/dtype.h>
#include <umo/numa.h>
#include <umo/optimizer.h>
#include <umo/placement.h>
#include <umo/plan.h>
#include <umo/pool.h>
#include <umo/prefetch.h>
#include <umo/pressure.h>
#include <umo/profile.h>
#include <umo/reason.h>
#include <umo/recorder.h>
#include <umo/region.h>
#include <umo/ring.h>
#include <umo/status.h>
#include <umo/stream.h>
#include <umo/tensor.h>
#include <umo/trace.h>
#include <umo/weights.h>

#endif

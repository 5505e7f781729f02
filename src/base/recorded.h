/*
 * The pages that the flight recorder shows to other processes of the same user; their first word is
 * its switch. The trace layer gives the rest its meaning (trace/layout.h).
 *
 * They lie here because counting asks the switch too (scope.c), and they are static so that asking
 * is one load of a known address: the layer above maps shared memory over them.
 */
#ifndef UMO_BASE_RECORDED_H
#define UMO_BASE_RECORDED_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* A multiple of the system's page, whatever that is at run time. */
#if defined(__x86_64__) || defined(__i386__)
#define UMO_RECORDED_ALIGN 4096
#elif defined(__APPLE__)
#define UMO_RECORDED_ALIGN 16384
#else
#define UMO_RECORDED_ALIGN 65536
#endif
#define UMO_RECORDED_BYTES 131072

typedef union umo_recorded_pages {
    _Atomic uint32_t on; /* anything but 0 */
    unsigned char bytes[UMO_RECORDED_BYTES];
} umo_recorded_pages;

/* Hidden, so that it is one load and not two: whoever only sees a declaration is told here that it
 * lies in the same library. */
extern umo_recorded_pages umo_recorded __attribute__((visibility("hidden")));

static inline bool umo_recorded_on(void)
{
    return __builtin_expect(atomic_load_explicit(&umo_recorded.on, memory_order_relaxed) != 0, 0);
}

#endif

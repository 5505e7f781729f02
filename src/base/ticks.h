/*
 * The processor's cycle counter: the only clock that is cheap enough to be read at an access. It
 * counts at a constant rate and on all processors alike wherever we run; whoever wants a time reads
 * it beside a real clock and compares.
 */
#ifndef UMO_BASE_TICKS_H
#define UMO_BASE_TICKS_H

#include <stdint.h>
#include <time.h>

static inline uint64_t umo_ticks_now(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
    uint64_t ticks;
    __asm__ volatile("mrs %0, cntvct_el0" : "=r"(ticks));
    return ticks;
#else
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * UINT64_C(1000000000) + (uint64_t)now.tv_nsec;
#endif
}

/* Ticks of about 300 us, within a factor of four: for thresholds. */
static inline uint64_t umo_ticks_of_300us(void)
{
#if defined(__x86_64__) || defined(__i386__)
    return UINT64_C(1) << 20; /* 1 to 5 GHz */
#elif defined(__aarch64__)
    uint64_t per_second;
    __asm__ volatile("mrs %0, cntfrq_el0" : "=r"(per_second));
    return per_second / 3333;
#else
    return 300000;
#endif
}

#endif

/* What every probe uses: a check that says where it failed, and a verdict. */
#ifndef PROBE_H
#define PROBE_H

#include <stdio.h>

static int probe_checks;
static int probe_failures;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        probe_checks++;                                                                            \
        if (!(condition)) {                                                                        \
            probe_failures++;                                                                      \
            printf("line %d: not so: %s\n", __LINE__, #condition);                                 \
        }                                                                                          \
    } while (0)

static inline int probe_verdict(void)
{
    printf("%d checks, %d failed\n", probe_checks, probe_failures);
    return probe_checks > 0 && probe_failures == 0 ? 0 : 1;
}

#endif

/*
 * One case under a client that changes an input's bytes while the engine works on them.
 */
#ifndef UMO_CONFORMANCE_MUTATE_H
#define UMO_CONFORMANCE_MUTATE_H

#include "fake_server.h"
#include "pack.h"

typedef struct mutate_plan {
    int answers;
    uint32_t index;
    uint32_t first_input;
    long milliseconds;  /* an input */
    bool calm;          /* the same values, but none changes during a run */
    const char **doing; /* what a crash tells: the input's name */
} mutate_plan;

/* Takes every input in turn that the engine would read in place, and writes one answer for each. */
void mutate_case(const mutate_plan *plan, TRITONBACKEND_ModelInstance *instance,
                 const pack_case *at, answer *a);

#endif

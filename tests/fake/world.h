/* A device, a queue and a pool for each test, and a check that nothing is left behind. */
#ifndef FAKE_WORLD_H
#define FAKE_WORLD_H

#include "send.h"

typedef struct world {
    void *pool;
    id device;
    id queue;
} world;

/* A block as the Blocks ABI lays it out. */
typedef struct world_block {
    const void *isa;
    int flags;
    int reserved;
    void (*invoke)(void);
    const void *descriptor;
    void *context;
} world_block;

/* The texts of the kernels that world_pipeline() knows: see world.c. */
extern const char world_text[];

#define world_test(function) cmocka_unit_test_setup_teardown(function, world_begin, world_end)

int world_begin(void **state);
/* Fails where objects are alive or a rule is broken that the test did not forgive. */
int world_end(void **state);
/* Starts over with other options: a fresh device and queue. */
void world_restart(world *w, const fake_metal_options *options);
/* The violations so far are what the test is about. */
void world_forgive(void);

id world_library(const world *w, const char *text);
id world_function(const world *w, const char *name);
id world_pipeline(const world *w, const char *name);
/* On the stack, without helpers. */
world_block world_block_make(void (*invoke)(void), void *context);
id world_heap(const world *w, ns_uint size, ns_uint mode);
id world_residency(const world *w);
/* Commits and waits; gives the status. */
ns_uint world_run(id command);
id world_string(const char *text);
/* "" if there is none. */
const char *world_words(id error);

#endif

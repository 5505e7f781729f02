/*
 * An arena over a pool of the host's memory, for its tests.
 */
#ifndef UMO_MEM_ARENA_RIG_TEST_H
#define UMO_MEM_ARENA_RIG_TEST_H

#include "driver/wrapper_test.h"

#include <umo/arena.h>

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_pool *pool;
    umo_arena *arena;
} rig;

static rig rig_open(size_t first_bytes, uint64_t limit_bytes)
{
    rig r = {0};
    assert_int_equal(umo_device_open("host", 0, NULL, &r.device, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "arena", limit_bytes, &r.scope, NULL), UMO_OK);
    const umo_pool_options pool = {.device = r.device, .scope = r.scope, .idle_ns = UINT64_MAX};
    assert_int_equal(umo_pool_create(&pool, &r.pool, NULL), UMO_OK);
    const umo_arena_options arena = {.pool = r.pool, .owner = 5, .first_bytes = first_bytes};
    assert_int_equal(umo_arena_create(&arena, &r.arena, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    umo_pool_stats stats;
    umo_arena_destroy(r->arena);
    umo_pool_read(r->pool, &stats);
    assert_int_equal(stats.live_bytes, 0);
    umo_pool_destroy(r->pool);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
}

static umo_arena_stats stats(const rig *r)
{
    umo_arena_stats s;
    umo_arena_read(r->arena, &s);
    return s;
}

#endif

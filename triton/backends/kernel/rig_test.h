/*
 * What tests of the backend's functions share: a model that is loaded, its one instance, and a
 * buffer for each tensor.
 */
#ifndef UMO_KERNEL_RIG_TEST_H
#define UMO_KERNEL_RIG_TEST_H

#include "fake_kit.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

typedef struct rig {
    umo_model model;
    umo_instance instance;
    void *state;
    void *instance_state;
    umo_buffer *buffers[3]; /* A, B, Y */
} rig;

/* Loads r->model, which is set up; the device's log begins behind that. */
static inline void rig_load(rig *r, size_t arg_count)
{
    umo_error error = {0};
    r->instance = (umo_instance){.model = &r->model};
    r->state = fake_model_start(&r->model);
    if (umo_backend_table.instance_init(&r->instance, r->state, &r->instance_state, &error) !=
        UMO_OK) {
        fail_msg("%s", error.text);
    }
    for (size_t i = 0; i < 3; i++) {
        r->buffers[i] = fake_buffer(&r->instance, 4096);
    }
    fake_device_reset(arg_count);
}

/* Also proves that neither the device nor the context has anything of the model's left. */
static inline void rig_teardown(rig *r)
{
    umo_counters counters;
    for (size_t i = 0; i < 3; i++) {
        umo_buffer_release(r->buffers[i]);
    }
    umo_backend_table.instance_finish(r->instance_state);
    umo_backend_table.model_finish(r->state);
    umo_scope_read(umo_context_scope(r->model.context), &counters);
    assert_int_equal(counters.live_buffers, 0);
    assert_int_equal(counters.live_bytes, 0);
    fake_model_teardown(&r->model);
}

#endif

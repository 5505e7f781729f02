/*
 * Metal the short way, without umo: what a check needs that goes round the driver, and the opponent
 * of the launch's benchmark. One queue, one pool a call, no events.
 */
#include "plain.h"

#include <pthread.h>

static umo_id pipeline_make(const plain *m)
{
    const umo_metal_api *api = m->api;
    umo_id why = NULL;
    umo_id reflection = NULL;
    umo_id pipeline = NULL;
    umo_id text = UMO_METAL_SEND(api, string_make, api->classes.string, probe_program()->text);
    umo_id name = UMO_METAL_SEND(api, string_make, api->classes.string, "probe_one");
    umo_id options = UMO_METAL_SEND0(api, new_object, api->classes.compile_options);
    umo_id library = UMO_METAL_SEND(api, new_library, m->device, text, options, &why);
    umo_id function = library != NULL ? UMO_METAL_SEND(api, library_function, library, name) : NULL;
    umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.pipeline_descriptor);
    if (function != NULL) {
        UMO_METAL_SEND(api, pipeline_describe_function, descriptor, function);
        pipeline = UMO_METAL_SEND(api, new_pipeline, m->device, descriptor, 0, &reflection, &why);
    }
    UMO_METAL_SEND0(api, release, descriptor);
    UMO_METAL_SEND0(api, release, function);
    UMO_METAL_SEND0(api, release, library);
    UMO_METAL_SEND0(api, release, options);
    return pipeline;
}

void plain_open(plain *m, bool pipeline)
{
    umo_error error = {0};
    *m = (plain){0};
    if (umo_metal_api_get(&m->api, &error) != UMO_OK) {
        die("no Metal: %s", error.text);
    }
    const umo_metal_api *api = m->api;
    m->pool = api->pool_push();
    m->devices = api->copy_all_devices();
    if (m->devices == NULL || UMO_METAL_SEND0(api, array_count, m->devices) == 0) {
        die("Metal has no device here");
    }
    m->device = UMO_METAL_SEND(api, array_at, m->devices, 0);
    m->queue = UMO_METAL_SEND(api, new_queue, m->device, 64);
    if (m->queue == NULL || (pipeline && (m->pipeline = pipeline_make(m)) == NULL)) {
        die("Metal gives no queue or no pipeline");
    }
}

void plain_close(plain *m)
{
    const umo_metal_api *api = m->api;
    UMO_METAL_SEND0(api, release, m->pipeline);
    UMO_METAL_SEND0(api, release, m->queue);
    UMO_METAL_SEND0(api, release, m->devices);
    api->pool_pop(m->pool);
    *m = (plain){0};
}

typedef struct ending {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ended;
    umo_uint status;
    const umo_metal_api *api;
    umo_id event;
    uint64_t event_value; /* when the handler ran */
} ending;

static void on_completed(umo_metal_block *block, umo_id command)
{
    ending *e = block->context;
    umo_uint status = UMO_METAL_SEND0(e->api, command_status, command);
    uint64_t value = e->event != NULL ? UMO_METAL_SEND0(e->api, event_value, e->event) : 0;
    (void)pthread_mutex_lock(&e->lock);
    e->ended = true;
    e->status = status;
    e->event_value = value;
    (void)pthread_cond_broadcast(&e->changed);
    (void)pthread_mutex_unlock(&e->lock);
}

uint64_t plain_launch(plain *m, umo_id buffer, uint32_t value, umo_id event, uint64_t signal)
{
    const umo_metal_api *api = m->api;
    ending e = {.lock = PTHREAD_MUTEX_INITIALIZER,
                .changed = PTHREAD_COND_INITIALIZER,
                .api = api,
                .event = event};
    void *pool = api->pool_push();
    umo_id command = UMO_METAL_SEND0(api, queue_command, m->queue);
    umo_id encoder = UMO_METAL_SEND0(api, command_compute, command);
    UMO_METAL_SEND(api, compute_pipeline, encoder, m->pipeline);
    UMO_METAL_SEND(api, compute_buffer, encoder, buffer, 0, 0);
    UMO_METAL_SEND(api, compute_bytes, encoder, &value, sizeof value, 1);
    UMO_METAL_SEND(api, compute_dispatch, encoder, ((umo_mtl_size){1, 1, 1}),
                   ((umo_mtl_size){1, 1, 1}));
    UMO_METAL_SEND0(api, encoder_end, encoder);
    if (event != NULL) {
        UMO_METAL_SEND(api, command_signal, command, event, signal);
    }
    umo_metal_block block = umo_metal_completed_block(api, on_completed, &e);
    UMO_METAL_SEND(api, command_on_completed, command, &block);
    UMO_METAL_SEND0(api, command_commit, command);
    (void)pthread_mutex_lock(&e.lock);
    while (!e.ended) {
        (void)pthread_cond_wait(&e.changed, &e.lock);
    }
    (void)pthread_mutex_unlock(&e.lock);
    api->pool_pop(pool);
    if (e.status != UMO_MTL_COMMAND_COMPLETED) {
        die("a plain command ended with status %llu", (unsigned long long)e.status);
    }
    (void)pthread_cond_destroy(&e.changed);
    (void)pthread_mutex_destroy(&e.lock);
    return e.event_value;
}

/*
 * On which node an instance's memory lies, where a machine has several.
 *
 * A host policy of the server that names one (--host-policy=NAME,numa-node=N) has the last word:
 * the server has the instance's own thread take its memory there, and so does the kit with what
 * other threads touch as well. Without one, scratch memory follows the thread that executes: each
 * node it works on has a pool, and the one in use changes when the thread has been elsewhere for a
 * while, between two executions, when no block is out.
 *
 * Nothing of this costs a request anything where there is one node: nobody is followed then.
 */
#include "kit/kit.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* So many executions in a row on another node, and scratch memory is taken there. A pool that is
 * new costs page faults, once: about what so many batches lose that use all of it from afar. One
 * that is there already costs nothing. */
#define AWAY_MAX 16u

/* Scratch memory is kept between requests, as much as a batch has needed: a page fault costs more
 * than a copy. A model that nobody asks for some seconds gives it back. */
#define KEEP_NS UINT64_C(5000000000)

/* The system lets this process place no memory: a seccomp filter, as containers have it. */
static atomic_bool refused;

static bool is_refused(void)
{
    return atomic_load_explicit(&refused, memory_order_relaxed);
}

/* The pool of a node that the instance's thread was on before. */
struct kit_home {
    struct kit_home *next;
    int32_t node;
    umo_pool *scratch;
};

/* What the policy's text says of the node; NULL: nothing. */
typedef struct policy {
    json_t *json; /* {"NAME": {"numa-node": "N"}} */
    const char *name;
    const char *node;
} policy;

/* What was read is to be let go of, also after an error. */
static umo_status policy_read(const umo_instance *instance, policy *out, umo_error *error)
{
    TRITONSERVER_Message *message = NULL;
    const char *text = NULL;
    size_t text_bytes = 0;
    *out = (policy){.name = ""};
    umo_status status =
        kit_from_triton(TRITONBACKEND_ModelInstanceHostPolicy(instance->triton, &message), error);
    if (status == UMO_OK) {
        status = kit_from_triton(TRITONSERVER_MessageSerializeToJson(message, &text, &text_bytes),
                                 error);
    }
    if (status != UMO_OK) {
        return status;
    }
    out->json = json_loadb(text, text_bytes, 0, NULL);
    if (!json_is_object(out->json)) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the server's host policy of instance '%.64s' is no JSON object",
                             instance->name);
    }
    const char *name;
    json_t *settings;
    json_object_foreach(out->json, name, settings)
    {
        const json_t *node = json_object_get(settings, "numa-node");
        if (node != NULL) {
            const char *value = json_string_value(node);
            out->name = name;
            out->node = value != NULL ? value : "";
        }
    }
    return UMO_OK;
}

/* The server reads "1x" as 1 and 64 as 0; a number is digits, and all of them count. */
static bool number_read(const char *text, int32_t *out)
{
    char *end = NULL;
    if (text[0] < '0' || text[0] > '9') {
        return false;
    }
    errno = 0;
    long value = strtol(text, &end, 10);
    *out = (int32_t)value;
    return *end == '\0' && errno == 0 && value <= INT32_MAX;
}

/* "0, 2": the nodes that memory may be on. */
static void nodes_write(const umo_numa_topology *topology, char *text, size_t text_bytes)
{
    size_t used = 0;
    text[0] = '\0';
    for (uint32_t i = 0; i < topology->count && used < text_bytes; i++) {
        const umo_numa_node *node = &topology->nodes[i];
        if (node->memory_bytes > 0 && node->allowed) {
            int wrote = snprintf(text + used, text_bytes - used, "%s%d", used > 0 ? ", " : "",
                                 (int)node->id);
            used += wrote > 0 ? (size_t)wrote : 0;
        }
    }
}

/* NOT_FOUND, UNSUPPORTED or INVAL in words, unless memory may be on the node that the text names.
 */
static umo_status node_check(const policy *p, int32_t *out, umo_error *error)
{
    umo_numa_topology topology;
    umo_status status = umo_numa_topology_read(&topology, error);
    if (status != UMO_OK) {
        return status;
    }
    const char *problem = NULL;
    if (!number_read(p->node, out)) {
        status = UMO_E_INVAL;
        problem = "is no node's number";
    } else {
        const int index = umo_numa_index(&topology, *out);
        const umo_numa_node *node = index >= 0 ? &topology.nodes[index] : NULL;
        if (node == NULL) {
            status = UMO_E_NOT_FOUND;
            problem = "is no node of this machine";
        } else if (node->memory_bytes == 0) {
            status = UMO_E_UNSUPPORTED;
            problem = "has no memory";
        } else if (!node->allowed) {
            status = UMO_E_UNSUPPORTED;
            problem = "is not for this process (its cpuset)";
        }
    }
    if (problem == NULL) {
        return UMO_OK;
    }
    char nodes[64];
    nodes_write(&topology, nodes, sizeof nodes);
    return umo_error_set(
        error, status, 0,
        "host policy '%.48s': numa-node=%.24s %s; write one of %s in --host-policy, "
        "or leave it out",
        p->name, p->node, problem, nodes);
}

umo_status kit_node_find(umo_instance *instance, umo_error *error)
{
    const umo_model *model = instance->model;
    policy p = {.json = NULL};
    instance->node = UMO_NUMA_ANY;
    instance->named_node = UMO_NUMA_ANY;
    if (!model->unified.enable || !model->unified.numa_optimization) {
        return UMO_OK;
    }
    int32_t node = UMO_NUMA_ANY;
    umo_status status = policy_read(instance, &p, error);
    if (status == UMO_OK && p.node != NULL) {
        status = node_check(&p, &node, error);
    }
    if (status == UMO_OK && umo_numa_memory_nodes() > 1 && !is_refused()) {
        /* Blocks of a decoupled model's requests are out between executions. */
        instance->follows = p.node == NULL && !model->decoupled;
        instance->watched = p.node != NULL || instance->follows;
        instance->named_node = node;
        instance->node = instance->follows ? umo_numa_node_here() : node;
        if (p.node != NULL) {
            umo_model_log(model, false,
                          "instance '%.64s': memory on node %d, by host policy '%.64s'",
                          instance->name, (int)node, p.name);
        }
    }
    json_decref(p.json);
    return status;
}

/* A pool near node. Where nobody may say so, it is anywhere, as it always was: slower and not
 * wrong. */
static umo_status pool_create(const umo_instance *instance, const umo_pool_options *options,
                              int32_t node, umo_pool **out, umo_error *error)
{
    if (node == UMO_NUMA_ANY || is_refused()) {
        return umo_pool_create(options, out, error);
    }
    umo_pool_options placed = *options;
    umo_error why = {0};
    placed.one_node = true;
    placed.numa_node = node;
    umo_status status = umo_pool_create(&placed, out, &why);
    if (status != UMO_E_REFUSED && status != UMO_E_UNSUPPORTED) {
        if (error != NULL && status != UMO_OK) {
            *error = why;
        }
        return status;
    }
    /* UNSUPPORTED: the memory is a device's. */
    if (status == UMO_E_REFUSED && !atomic_exchange(&refused, true)) {
        umo_model_log(instance->model, true,
                      "memory is not put on node %d but where it is first touched: %s", (int)node,
                      why.text);
    }
    return umo_pool_create(options, out, error);
}

umo_status kit_instance_pool(const umo_instance *instance, umo_device *device,
                             umo_storage_mode mode, umo_pool **out, umo_error *error)
{
    const umo_unified_config *unified = &instance->model->unified;
    umo_pool_options options = {.device = device,
                                .scope = instance->model->scope,
                                .mode = mode,
                                .keep_bytes_max = unified->pool_keep_bytes,
                                .idle_ns = KEEP_NS};
    if (mode == UMO_UNIFIED) {
        options.align_bytes = unified->cache_line_bytes; /* of the host's caches */
    }
    return pool_create(instance, &options, mode == UMO_UNIFIED ? instance->node : UMO_NUMA_ANY, out,
                       error);
}

/* Takes scratch memory on a node from now on; where it did before when there is no memory for it.
 */
static void scratch_move(umo_instance *instance, int32_t node)
{
    const int32_t before = instance->node;
    umo_pool *pool = instance->scratch;
    kit_home *home = instance->homes;
    while (home != NULL && home->node != node) {
        home = home->next;
    }
    instance->node = node;
    if (home != NULL) {
        instance->scratch = home->scratch;
    } else {
        umo_device *device = instance->device != NULL ? instance->device : instance->host;
        home = calloc(1, sizeof *home);
        if (home == NULL ||
            kit_instance_pool(instance, device, UMO_UNIFIED, &instance->scratch, NULL) != UMO_OK) {
            free(home);
            instance->node = before;
            return;
        }
        home->next = instance->homes;
        instance->homes = home;
    }
    home->node = before;
    home->scratch = pool;
    (void)atomic_fetch_add_explicit(&instance->model->scratch_moves, 1, memory_order_relaxed);
}

void kit_node_look(umo_instance *instance)
{
    const int32_t here = umo_numa_node_here();
    instance->remote = here != instance->node;
    if (!instance->remote || !instance->follows) {
        instance->away = 0;
        return;
    }
    instance->away = here == instance->away_node ? instance->away + 1 : 1;
    instance->away_node = here;
    if (instance->away >= AWAY_MAX) {
        instance->away = 0; /* also when there is no memory for it: not at every execution */
        instance->follows = !is_refused();
        if (instance->follows) {
            scratch_move(instance, here);
            instance->remote = here != instance->node;
        }
    }
}

void kit_node_finish(umo_instance *instance)
{
    while (instance->homes != NULL) {
        kit_home *home = instance->homes;
        instance->homes = home->next;
        umo_pool_destroy(home->scratch);
        free(home);
    }
}

umo_status kit_scratch_take(umo_instance *instance, size_t size_bytes, umo_buffer **out,
                            umo_error *error)
{
    umo_status status =
        umo_pool_alloc(instance->scratch, size_bytes, instance->model->owner, out, error);
    if (__builtin_expect(instance->watched, 0) && status == UMO_OK) {
        (void)atomic_fetch_add_explicit(&instance->model->scratch_bytes[instance->remote],
                                        size_bytes, memory_order_relaxed);
    }
    return status;
}

int32_t umo_instance_node(const umo_instance *instance)
{
    return instance->named_node;
}

umo_status umo_instance_pool_create(const umo_instance *instance, const umo_pool_options *options,
                                    umo_pool **out, umo_error *error)
{
    return pool_create(instance, options, instance->named_node, out, error);
}

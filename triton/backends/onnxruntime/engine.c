/*
 * Makes sessions, and finds those that are there already.
 *
 * A session is known by the files that it was made of and by the options that shape it, never by a
 * path: a copy of a repository entry finds it, and a model whose file was replaced does not.
 */
#include "engine.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

enum {
    /* Below it a constant costs more to hand over than to copy. */
    LEAST_BYTES = 1024
};

/* The packed weights of all sessions that read one file and do not share a session. */
typedef struct packed_weights {
    struct packed_weights *next;
    size_t users;
    const umo_weights *file; /* in use by every user */
    ort_prepacked *container;
} packed_weights;

struct ort_engine {
    ort_engine *next;
    _Atomic size_t refs;
    char *key;   /* what shapes the session beside its files; NULL: not to be found by others */
    bool loaded; /* under the lock of the table */
    ort_runtime *runtime;
    ort_session *session;
    ort_initializers weights;
    ort_value **values; /* one a constant of weights */
    const char **names;
    packed_weights *packed;
    ort_heap *heap;
    ort_engine_facts facts;
};

static struct {
    pthread_mutex_t lock;  /* all below; not held while a session is made */
    pthread_cond_t loaded; /* an engine was loaded, or failed to */
    ort_engine *engines;   /* those with a key */
    packed_weights *packed;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .loaded = PTHREAD_COND_INITIALIZER};

/* The file that most of the constants lie in; NULL when there are none. */
static const umo_weights *main_file(const ort_initializers *weights)
{
    uint64_t bytes[ORT_WEIGHT_FILES_MAX] = {0};
    size_t most = 0;
    for (size_t i = 0; i < weights->count; i++) {
        bytes[weights->list[i].file] += weights->list[i].size_bytes;
    }
    for (size_t i = 1; i < weights->file_count; i++) {
        most = bytes[i] > bytes[most] ? i : most;
    }
    return bytes[most] > 0 ? weights->files[most] : NULL;
}

static umo_status packed_acquire(const ort_runtime *runtime, const umo_weights *file,
                                 packed_weights **out, umo_error *error)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&table.lock);
    packed_weights *packed = table.packed;
    while (packed != NULL && packed->file != file) {
        packed = packed->next;
    }
    if (packed == NULL) {
        packed = calloc(1, sizeof *packed);
        if (packed == NULL) {
            status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory to share packed weights");
        } else {
            status = ort_check(&runtime->api, runtime->api.create_prepacked(&packed->container),
                               "make room for packed weights", error);
        }
        if (status != UMO_OK) {
            free(packed);
            packed = NULL;
        } else {
            assert(packed != NULL);
            packed->file = file;
            packed->next = table.packed;
            table.packed = packed;
        }
    }
    if (packed != NULL) {
        packed->users += 1;
        *out = packed;
    }
    (void)pthread_mutex_unlock(&table.lock);
    return status;
}

static void packed_release(const ort_runtime *runtime, packed_weights *packed)
{
    if (packed == NULL) {
        return;
    }
    (void)pthread_mutex_lock(&table.lock);
    bool last = --packed->users == 0;
    packed_weights **at = &table.packed;
    while (last && *at != packed) {
        at = &(*at)->next;
    }
    if (last) {
        *at = packed->next;
    }
    (void)pthread_mutex_unlock(&table.lock);
    if (last) {
        runtime->api.release_prepacked(packed->container);
        free(packed);
    }
}

static void engine_free(ort_engine *engine)
{
    const ort_api *api = &engine->runtime->api;
    if (engine->session != NULL) {
        api->release_session(engine->session);
    }
    for (size_t i = 0; engine->values != NULL && i < engine->weights.count; i++) {
        if (engine->values[i] != NULL) {
            api->release_value(engine->values[i]);
        }
    }
    free(engine->values);
    free(engine->names);
    packed_release(engine->runtime, engine->packed);
    ort_heap_release(engine->heap);
    ort_initializers_finish(&engine->weights);
    ort_runtime_release(engine->runtime);
    free(engine->key);
    free(engine);
}

static void rest_files(const ort_initializers *weights)
{
    for (size_t i = 0; i < weights->file_count; i++) {
        umo_weights_rest(weights->files[i]);
    }
}

/* Wraps the constants where they lie in the files. */
static umo_status wrap_weights(ort_engine *engine, umo_error *error)
{
    const ort_api *api = &engine->runtime->api;
    const ort_initializers *weights = &engine->weights;
    engine->values = calloc(weights->count + 1, sizeof *engine->values);
    engine->names = calloc(weights->count + 1, sizeof *engine->names);
    if (engine->values == NULL || engine->names == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory for the model's weights");
    }
    for (size_t i = 0; i < weights->count; i++) {
        const ort_initializer *at = &weights->list[i];
        const char *data = umo_weights_data(weights->files[at->file]);
        /* The engine only reads constants; its interface has no word for that. */
        void *bytes = (void *)(uintptr_t)(data + at->offset_bytes);
        umo_status status =
            ort_check(api,
                      api->create_tensor_with_data(engine->runtime->cpu_memory, bytes,
                                                   at->size_bytes, at->shape.dims, at->shape.rank,
                                                   at->element, &engine->values[i]),
                      "wrap a weight", error);
        if (status != UMO_OK) {
            return status;
        }
        engine->names[i] = at->name;
        engine->facts.weights += 1;
        engine->facts.weight_bytes += at->size_bytes;
    }
    return UMO_OK;
}

/* Whether sessions that read the same file are to share what they pack of it. That memory is the
 * engine's own and not counted, so it is worth it only where there will be several: one session an
 * instance, or models of which each has a graph of its own over common external data. */
static bool shares_packed(const ort_options *options, const ort_initializers *weights)
{
    if (options->share_prepacked != ORT_UNSET) {
        return options->share_prepacked != 0;
    }
    return !options->share_session || weights->file_count > 1;
}

static umo_status engine_load(ort_engine *engine, const ort_wish *wish, umo_error *error)
{
    umo_status status = wrap_weights(engine, error);
    const umo_weights *file = main_file(&engine->weights);
    if (status == UMO_OK && file != NULL && shares_packed(wish->options, &engine->weights)) {
        status = packed_acquire(engine->runtime, file, &engine->packed, error);
    }
    if (status == UMO_OK && wish->options->memory_pool && engine->runtime->allocator_registered) {
        status = ort_heap_sessions(wish->context, &engine->heap, error);
    }
    if (status != UMO_OK) {
        return status;
    }
    const ort_session_source source = {
        .path = wish->path,
        .folder = wish->folder,
        .weight_names = engine->names,
        .weights = engine->values,
        .weight_count = engine->weights.count,
        .prepacked = engine->packed != NULL ? engine->packed->container : NULL,
        .pooled = engine->heap != NULL,
    };
    ort_heap_visit visit;
    ort_heap_enter(engine->heap, &visit);
    status = ort_session_create(engine->runtime, wish->options, &source, &engine->session, error);
    ort_heap_leave(&visit);
    status = ort_heap_explain(&visit, engine->heap, status, error);
    rest_files(&engine->weights); /* what was packed is not read again where it lies */
#ifdef __GLIBC__
    /* Reading a model leaves holes as large as its weights in the heap of malloc. */
    (void)malloc_trim(0);
#endif
    return status;
}

/* All that shapes a session, as text; NULL when memory is out. */
static char *make_key(const ort_wish *wish)
{
    const ort_options *o = wish->options;
    char *text = NULL;
    size_t text_bytes;
    FILE *to = open_memstream(&text, &text_bytes);
    if (to == NULL) {
        return NULL;
    }
    (void)fprintf(to, "threads %d %d mode %d arena %d pattern %d level %d pool %d packed %d",
                  o->intra_op_threads, o->inter_op_threads, o->execution_mode, o->mem_arena,
                  o->mem_pattern, o->graph_level, o->memory_pool, o->share_prepacked);
    const char *key;
    const char *value;
    for (size_t i = 0; ort_options_session_config(o, i, &key, &value); i++) {
        (void)fprintf(to, "\n%s=%s", key, value);
    }
    const char *library;
    for (size_t i = 0; (library = ort_options_op_library(o, i)) != NULL; i++) {
        (void)fprintf(to, "\nops %s/%s", library[0] == '/' ? "" : wish->folder, library);
    }
    bool failed = ferror(to) != 0;
    if (fclose(to) != 0 || failed) {
        free(text);
        return NULL;
    }
    return text;
}

/* Whether nothing but the files and the key says what the session is. */
static bool can_be_shared(const ort_options *options, const ort_initializers *weights)
{
    const char *key;
    const char *value;
    if (!options->share_session || !options->share_weights || !weights->complete) {
        return false;
    }
    for (size_t i = 0; ort_options_session_config(options, i, &key, &value); i++) {
        if (strstr(key, "external_initializers") != NULL || strstr(key, "ep.context") != NULL) {
            return false; /* more files, which we do not know */
        }
    }
    return true;
}

static bool same_engine(const ort_engine *a, const ort_engine *b)
{
    if (a->weights.file_count != b->weights.file_count || strcmp(a->key, b->key) != 0) {
        return false;
    }
    for (size_t i = 0; i < a->weights.file_count; i++) {
        if (a->weights.files[i] != b->weights.files[i]) {
            return false;
        }
    }
    return true;
}

/* Joins an engine that is like the fresh one; or lists the fresh one, to be loaded now. */
static ort_engine *find_or_list(ort_engine *fresh)
{
    (void)pthread_mutex_lock(&table.lock);
    ort_engine *at = table.engines;
    while (at != NULL) {
        if (!same_engine(at, fresh)) {
            at = at->next;
        } else if (at->loaded) {
            (void)atomic_fetch_add_explicit(&at->refs, 1, memory_order_relaxed);
            break;
        } else {
            (void)pthread_cond_wait(&table.loaded, &table.lock);
            at = table.engines;
        }
    }
    if (at == NULL) {
        fresh->next = table.engines;
        table.engines = fresh;
        at = fresh;
    }
    (void)pthread_mutex_unlock(&table.lock);
    return at;
}

static void unlist(ort_engine *engine)
{
    ort_engine **at = &table.engines;
    while (*at != engine) {
        at = &(*at)->next;
    }
    *at = engine->next;
}

static void publish(ort_engine *engine, bool loaded)
{
    (void)pthread_mutex_lock(&table.lock);
    if (loaded) {
        engine->loaded = true;
    } else {
        unlist(engine);
    }
    (void)pthread_cond_broadcast(&table.loaded);
    (void)pthread_mutex_unlock(&table.lock);
}

static umo_status engine_open(const ort_wish *wish, ort_engine **out, umo_error *error)
{
    const ort_options *options = wish->options;
    ort_engine *engine = calloc(1, sizeof *engine);
    if (engine == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
    }
    ort_runtime_hold(wish->runtime);
    engine->runtime = wish->runtime;
    atomic_init(&engine->refs, 1);
    umo_status status = UMO_OK;
    if (options->share_weights) {
        status =
            ort_initializers_read(wish->path, umo_context_scope(wish->context),
                                  UMO_WEIGHTS_SAME_BYTES, LEAST_BYTES, &engine->weights, error);
    }
    if (status == UMO_OK && can_be_shared(options, &engine->weights)) {
        engine->key = make_key(wish);
        if (engine->key == NULL) {
            status = umo_error_set(error, UMO_E_NOMEM, 0, "no memory to load the model");
        }
    }
    if (status != UMO_OK) {
        engine_free(engine);
        return status;
    }
    *out = engine;
    return UMO_OK;
}

umo_status ort_engine_acquire(const ort_wish *wish, ort_engine **out, bool *joined,
                              umo_error *error)
{
    ort_engine *fresh = NULL;
    umo_status status = engine_open(wish, &fresh, error);
    if (status != UMO_OK) {
        return status;
    }
    assert(fresh != NULL);
    ort_engine *engine = fresh->key != NULL ? find_or_list(fresh) : fresh;
    if (joined != NULL) {
        *joined = engine != fresh;
    }
    if (engine != fresh) {
        rest_files(&fresh->weights); /* nobody has to read them again */
        engine_free(fresh);
        *out = engine;
        return UMO_OK;
    }
    status = engine_load(engine, wish, error);
    if (engine->key != NULL) {
        publish(engine, status == UMO_OK);
    }
    if (status != UMO_OK) {
        engine_free(engine);
        return status;
    }
    *out = engine;
    return UMO_OK;
}

void ort_engine_hold(ort_engine *engine)
{
    (void)atomic_fetch_add_explicit(&engine->refs, 1, memory_order_relaxed);
}

void ort_engine_release(ort_engine *engine)
{
    if (engine == NULL) {
        return;
    }
    /* Under the lock, so that nobody joins an engine on its way out. */
    (void)pthread_mutex_lock(&table.lock);
    bool last = atomic_fetch_sub_explicit(&engine->refs, 1, memory_order_acq_rel) == 1;
    if (last && engine->key != NULL) {
        unlist(engine);
    }
    (void)pthread_mutex_unlock(&table.lock);
    if (last) {
        engine_free(engine);
    }
}

ort_session *ort_engine_session(const ort_engine *engine)
{
    return engine->session;
}

ort_engine_facts ort_engine_describe(const ort_engine *engine)
{
    return engine->facts;
}

umo_status ort_engine_check(const ort_engine *engine, umo_error *error)
{
    for (size_t i = 0; engine->weights.count > 0 && i < engine->weights.file_count; i++) {
        if (umo_weights_check(engine->weights.files[i], error) != UMO_OK) {
            if (error != NULL) {
                error->status = UMO_E_DEVICE;
            }
            return UMO_E_DEVICE;
        }
    }
    return UMO_OK;
}

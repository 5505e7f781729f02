/*
 * What models have in common, against the real engine: sessions, weights, packed weights, and the
 * pools that the engine's memory comes from. Where something is shared the answers are the same.
 */
#include "onnx_writer.h"
#include "rig.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

enum {
    SKIPPED = 77,
    ROWS = 16,
    COLUMNS = 32,
    WEIGHTS = ROWS * COLUMNS,
    FOLDERS = 4,
    THREADS = 6
};

static char folder[] = "/tmp/umo-ort-sharing-XXXXXX";

/* X [n, 16] @ W [16, 32] -> Y, W of 2 KiB. */
static onnx_model product;

static void make_product(float seed)
{
    product = (onnx_model){
        .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n", "16"}}},
        .constants = {{.name = "W", .count = WEIGHTS, .columns = COLUMNS}},
        .nodes = {{"MatMul", {"X", "W"}, "Y"}},
        .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n", "32"}}},
    };
    for (int i = 0; i < WEIGHTS; i++) {
        product.constants[0].values[i] = seed + (float)(i % 37) * 0.25f;
    }
}

static char folders[FOLDERS][64];

static const char *folder_of(int i)
{
    return folders[i];
}

static const char *file_of(int i, const char *name)
{
    static char paths[8][128];
    static int turn;
    char *path = paths[turn++ % 8];
    assert_true(snprintf(path, sizeof paths[0], "%s/%s", folder_of(i), name) <
                (int)sizeof paths[0]);
    return path;
}

static void remove_files(int i)
{
    static const char *const names[] = {"model.onnx", "w.bin", "fresh.onnx"};
    for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
        (void)unlink(file_of(i, names[n]));
    }
}

static int setup(void **state)
{
    (void)state;
    make_product(1);
    for (int i = 0; i < FOLDERS; i++) {
        (void)snprintf(folders[i], sizeof folders[i], "%s/%d", folder, i);
        if (mkdir(folder_of(i), 0700) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Nothing of any test stays open. */
static int teardown(void **state)
{
    (void)state;
    umo_weights_stats stats;
    umo_weights_read(&stats);
    for (int i = 0; i < FOLDERS; i++) {
        remove_files(i);
        if (rmdir(folder_of(i)) != 0) {
            return -1;
        }
    }
    return stats.files == 0 && stats.users == 0 ? 0 : -1;
}

/* With one thread: what the engine's own do among themselves, the thread sanitizer cannot see. */
static void describe(loaded *l, int i, const char *config)
{
    *l = (loaded){
        .umo = {.path = folder_of(i),
                .config = config,
                .options = {{"onnxruntime_library", rig_library}, {"intra_op_thread_count", "1"}},
                .unified = {.enable = true}}};
}

static void load_well(loaded *l, int i, const char *config)
{
    umo_error error = {0};
    describe(l, i, config);
    if (rig_load(l, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
}

static umo_status multiply(const loaded *l, float *y, umo_error *error)
{
    float x[ROWS];
    umo_shape shape = {.rank = 2, .dims = {1, ROWS}};
    for (int i = 0; i < ROWS; i++) {
        x[i] = (float)(i + 1);
    }
    umo_batch batch = {.requests = 1, .rows = 1, .outputs = {{.data = y}}};
    assert_int_equal(umo_tensor_init(&batch.inputs[0], x, sizeof x, UMO_FP32, &shape, NULL),
                     UMO_OK);
    return ort_instance_execute(NULL, l->instance, &batch, error);
}

static void assert_multiplies(const loaded *l, float seed)
{
    float y[COLUMNS];
    umo_error error = {0};
    if (multiply(l, y, &error) != UMO_OK) {
        fail_msg("%s", error.text);
    }
    for (int c = 0; c < COLUMNS; c++) {
        float expected = 0;
        for (int r = 0; r < ROWS; r++) {
            expected += (float)(r + 1) * (seed + (float)((r * COLUMNS + c) % 37) * 0.25f);
        }
        assert_float_equal(y[c], expected, 1e-3);
    }
}

static ort_engine *engine_of(const loaded *l)
{
    return l->model->engine;
}

#define PARAMETER(key, value) "{\"parameters\":{\"" key "\":{\"string_value\":\"" value "\"}}}"

static void models_of_one_file_share_a_session(void **state)
{
    (void)state;
    loaded first;
    loaded linked;
    loaded copied;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    assert_int_equal(link(file_of(0, "model.onnx"), file_of(1, "model.onnx")), 0);
    assert_true(onnx_write(&product, file_of(2, "model.onnx")));
    load_well(&first, 0, "{}");
    load_well(&linked, 1, "{}");
    load_well(&copied, 2, "{}");
    assert_ptr_equal(engine_of(&first), engine_of(&linked));
    assert_ptr_equal(engine_of(&first), engine_of(&copied));
    ort_engine_facts facts = ort_engine_describe(engine_of(&first));
    assert_int_equal(facts.weights, 1);
    assert_int_equal(facts.weight_bytes, WEIGHTS * sizeof(float));
    umo_weights_stats stats;
    umo_weights_read(&stats);
    assert_int_equal(stats.files, 1);
    /* Whoever came first may go first. */
    assert_multiplies(&first, 1);
    rig_unload(&first);
    assert_multiplies(&linked, 1);
    rig_unload(&linked);
    assert_multiplies(&copied, 1);
    rig_unload(&copied);
}

static void other_options_mean_another_session_over_the_same_weights(void **state)
{
    (void)state;
    static const char *const configs[] = {
        PARAMETER("intra_op_thread_count", "2"), PARAMETER("enable_mem_pattern", "0"),
        PARAMETER("session_config.session.intra_op.allow_spinning", "0"),
        PARAMETER("memory_pool", "0"), "{\"optimization\":{\"graph\":{\"level\":-1}}}"};
    loaded plain;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_well(&plain, 0, "{}");
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        loaded other;
        load_well(&other, 0, configs[i]);
        assert_ptr_not_equal(engine_of(&plain), engine_of(&other));
        umo_weights_stats stats;
        umo_weights_read(&stats);
        assert_int_equal(stats.files, 1);
        assert_multiplies(&other, 1);
        rig_unload(&other);
    }
    assert_multiplies(&plain, 1);
    rig_unload(&plain);
}

static void switched_off_nothing_is_shared(void **state)
{
    (void)state;
    static const char *const configs[] = {PARAMETER("share_weights", "0"), "{}"};
    loaded first;
    loaded second;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    for (size_t i = 0; i < sizeof configs / sizeof configs[0]; i++) {
        umo_weights_stats stats;
        describe(&first, 0, configs[i]);
        describe(&second, 0, configs[i]);
        first.umo.unified.enable = second.umo.unified.enable = i == 0;
        assert_int_equal(rig_load(&first, NULL), UMO_OK);
        assert_int_equal(rig_load(&second, NULL), UMO_OK);
        assert_ptr_not_equal(engine_of(&first), engine_of(&second));
        assert_int_equal(ort_engine_describe(engine_of(&first)).weights, 0);
        umo_weights_read(&stats);
        assert_int_equal(stats.files, 0);
        assert_int_equal(first.model->heap != NULL, i == 0);
        assert_multiplies(&first, 1);
        assert_multiplies(&second, 1);
        rig_unload(&first);
        rig_unload(&second);
    }
}

static void replaced_file_is_loaded_anew_beside_the_old(void **state)
{
    (void)state;
    loaded old;
    loaded fresh;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_well(&old, 0, "{}");
    make_product(9);
    assert_true(onnx_write(&product, file_of(0, "fresh.onnx")));
    assert_int_equal(rename(file_of(0, "fresh.onnx"), file_of(0, "model.onnx")), 0);
    load_well(&fresh, 0, "{}"); /* as a server reloads: the new one before the old one goes */
    assert_ptr_not_equal(engine_of(&old), engine_of(&fresh));
    assert_multiplies(&old, 1);
    assert_multiplies(&fresh, 9);
    rig_unload(&old);
    assert_multiplies(&fresh, 9);
    rig_unload(&fresh);
}

static void file_written_to_in_place_fails_requests_until_it_is_loaded_again(void **state)
{
    (void)state;
    const struct timespec tick = {.tv_nsec = 30 * 1000 * 1000};
    loaded old;
    loaded fresh;
    float y[COLUMNS];
    umo_error error = {0};
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_well(&old, 0, "{}");
    assert_multiplies(&old, 1);
    (void)nanosleep(&tick, NULL);
    make_product(9);
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    assert_int_equal(multiply(&old, y, &error), UMO_E_DEVICE);
    assert_int_equal(error.status, UMO_E_DEVICE);
    assert_non_null(strstr(error.text, "written to"));
    load_well(&fresh, 0, "{}");
    assert_multiplies(&fresh, 9);
    rig_unload(&old);
    /* And cut short, where touching the weights would end the process. */
    assert_int_equal(truncate(file_of(0, "model.onnx"), 10), 0);
    assert_int_equal(multiply(&fresh, y, &error), UMO_E_DEVICE);
    assert_non_null(strstr(error.text, "cut short"));
    rig_unload(&fresh);
}

static void write_external(int i, const char *offset, const char *length)
{
    FILE *file = fopen(file_of(i, "w.bin"), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite("pad.", 1, 4, file), 4);
    assert_int_equal(fwrite(product.constants[0].values, sizeof(float), WEIGHTS, file), WEIGHTS);
    assert_int_equal(fclose(file), 0);
    onnx_model external = product;
    external.constants[0].location = "w.bin";
    external.constants[0].offset = offset;
    external.constants[0].length = length;
    assert_true(onnx_write(&external, file_of(i, "model.onnx")));
}

static void external_data_is_shared_by_models_that_differ(void **state)
{
    (void)state;
    loaded first;
    loaded second;
    umo_weights_stats stats;
    write_external(0, "4", "2048");
    load_well(&first, 0, "{}");
    assert_int_equal(ort_engine_describe(engine_of(&first)).weights, 1);
    /* Another graph over the same data, in a folder of its own. */
    product.outputs[0].dims[0] = "m";
    product.inputs[0].dims[0] = "m";
    write_external(1, "4", NULL);
    assert_int_equal(unlink(file_of(1, "w.bin")), 0);
    assert_int_equal(link(file_of(0, "w.bin"), file_of(1, "w.bin")), 0);
    load_well(&second, 1, "{}");
    assert_ptr_not_equal(engine_of(&first), engine_of(&second));
    umo_weights_read(&stats);
    assert_int_equal(stats.files, 3); /* two graphs, one file of weights */
    assert_multiplies(&first, 1);
    assert_multiplies(&second, 1);
    rig_unload(&first);
    assert_multiplies(&second, 1);
    rig_unload(&second);
}

static void external_data_that_is_not_there_is_refused_in_words(void **state)
{
    (void)state;
    const struct {
        const char *location;
        const char *offset;
        const char *words;
    } cases[] = {
        {"../w.bin", "4", "outside of the model's folder"},
        {"w.bin", "4096", "could not load model.onnx"},
        {"w.bin", "-4", "could not load model.onnx"},
        {"none.bin", "0", "could not load model.onnx"},
    };
    write_external(0, "4", NULL);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        loaded l;
        umo_error error = {0};
        onnx_model external = product;
        external.constants[0].location = cases[i].location;
        external.constants[0].offset = cases[i].offset;
        assert_true(onnx_write(&external, file_of(0, "model.onnx")));
        describe(&l, 0, "{}");
        assert_int_not_equal(rig_load(&l, &error), UMO_OK);
        if (strstr(error.text, cases[i].words) == NULL) {
            fail_msg("%s", error.text);
        }
        rig_unload(&l);
    }
}

static void sessions_apart_pack_the_same_weights_once(void **state)
{
    (void)state;
    loaded first;
    loaded second;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_well(&first, 0, PARAMETER("share_session", "0"));
    load_well(&second, 0, PARAMETER("share_session", "0"));
    /* The container's memory is the engine's own: the pool of the sessions has none of it. */
    assert_multiplies(&first, 1);
    assert_multiplies(&second, 1);
    rig_unload(&first);
    assert_multiplies(&second, 1);
    rig_unload(&second);
}

/* ---- many at once ---- */

static loaded crowd[THREADS];
static umo_status crowd_status[THREADS];
static umo_error crowd_error[THREADS];

static void *load_one(void *argument)
{
    size_t i = (size_t)((loaded *)argument - crowd);
    crowd_status[i] = rig_load(&crowd[i], &crowd_error[i]);
    return NULL;
}

static void load_crowd(void)
{
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++) {
        describe(&crowd[i], 0, "{}");
        crowd_error[i] = (umo_error){0};
        assert_int_equal(pthread_create(&threads[i], NULL, load_one, &crowd[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

static void models_that_load_at_the_same_time_load_once(void **state)
{
    (void)state;
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_crowd();
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(crowd_status[i], UMO_OK);
        assert_ptr_equal(engine_of(&crowd[i]), engine_of(&crowd[0]));
    }
    for (int i = 0; i < THREADS; i++) {
        assert_multiplies(&crowd[i], 1);
        rig_unload(&crowd[i]);
    }
}

static void models_that_fail_at_the_same_time_each_say_why(void **state)
{
    (void)state;
    product.nodes[0].op = "NoSuchOperator";
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    load_crowd();
    for (int i = 0; i < THREADS; i++) {
        assert_int_not_equal(crowd_status[i], UMO_OK);
        assert_non_null(strstr(crowd_error[i].text, "NoSuchOperator"));
        rig_unload(&crowd[i]);
    }
}

/* ---- memory ---- */

static umo_counters counters(umo_model *umo)
{
    umo_counters c;
    umo_scope_read(umo_model_scope(umo), &c);
    return c;
}

/* X [n, 16] -> Z = -X, through an intermediate that grows with n. */
static const onnx_model chain = {
    .inputs = {{"X", ORT_ELEMENT_FLOAT, {"n", "16"}}},
    .constants = {{.name = "K", .count = 16, .values = {1}}},
    .nodes = {{"Cos", {"X"}, "A"}, {"Sin", {"A"}, "B"}, {"Softmax", {"B"}, "Y"}},
    .outputs = {{"Y", ORT_ELEMENT_FLOAT, {"n", "16"}}},
};

static umo_status run_chain(const loaded *l, int64_t rows, umo_error *error)
{
    size_t size_bytes = (size_t)rows * 16 * sizeof(float);
    float *x = calloc(1, size_bytes);
    float *y = calloc(1, size_bytes);
    assert_non_null(x);
    assert_non_null(y);
    umo_shape shape = {.rank = 2, .dims = {rows, 16}};
    umo_batch batch = {.requests = 1, .rows = 1, .outputs = {{.data = y}}};
    assert_int_equal(umo_tensor_init(&batch.inputs[0], x, size_bytes, UMO_FP32, &shape, NULL),
                     UMO_OK);
    umo_status status = ort_instance_execute(NULL, l->instance, &batch, error);
    if (status == UMO_OK) {
        assert_float_equal(y[size_bytes / sizeof(float) - 1], 1.0 / 16, 1e-6);
    }
    free(x);
    free(y);
    return status;
}

static void intermediates_are_counted_for_the_model(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    assert_true(onnx_write(&chain, file_of(0, "model.onnx")));
    load_well(&l, 0, "{}");
    umo_counters before = counters(&l.umo);
    assert_int_equal(run_chain(&l, 4096, &error), UMO_OK);
    umo_counters after = counters(&l.umo);
    assert_true(after.peak_bytes - before.live_bytes >= 4096 * 16 * sizeof(float));
    umo_pool_stats stats;
    ort_heap_read(l.model->heap, &stats);
    assert_int_equal(stats.live_bytes, 0);
    assert_true(stats.hits + stats.misses > 0);
    umo_scope *scope = umo_model_scope(&l.umo);
    ort_instance_finish(l.instance);
    ort_model_finish(l.model);
    umo_scope_read(scope, &after);
    assert_int_equal(after.live_bytes, 0);
    fake_model_finish(&l.umo);
}

static void an_instance_on_a_node_has_a_heap_of_its_own(void **state)
{
    (void)state;
    loaded l;
    umo_instance placed = {.node = 1};
    umo_error error = {0};
    umo_pool_stats stats;
    assert_true(onnx_write(&chain, file_of(0, "model.onnx")));
    describe(&l, 0, "{}");
    assert_int_equal(rig_load_near(&l, &placed, &error), UMO_OK);
    assert_int_equal(placed.pools, 1);
    umo_counters before = counters(&l.umo);
    assert_int_equal(run_chain(&l, 4096, &error), UMO_OK);
    umo_counters after = counters(&l.umo);
    assert_true(after.peak_bytes - before.live_bytes >= 4096 * 16 * sizeof(float));
    ort_heap_read(l.model->heap, &stats);
    assert_int_equal(stats.hits + stats.misses, 0);
    umo_scope *scope = umo_model_scope(&l.umo);
    ort_instance_finish(l.instance);
    ort_model_finish(l.model);
    umo_scope_read(scope, &after);
    assert_int_equal(after.live_bytes, 0);
    fake_model_finish(&l.umo);
}

static void request_beyond_the_budget_fails_alone_and_in_words(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    assert_true(onnx_write(&chain, file_of(0, "model.onnx")));
    describe(&l, 0, "{}");
    l.umo.limit_bytes = 2 << 20;
    assert_int_equal(rig_load(&l, &error), UMO_OK);
    assert_int_equal(run_chain(&l, 64, &error), UMO_OK);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(run_chain(&l, 1 << 18, &error), UMO_E_LIMIT);
        assert_int_equal(error.status, UMO_E_LIMIT);
        assert_non_null(strstr(error.text, "the budget of 'model'"));
        assert_int_equal(run_chain(&l, 64, &error), UMO_OK);
    }
    umo_pool_stats stats;
    ort_heap_read(l.model->heap, &stats);
    assert_int_equal(stats.live_bytes, 0);
    rig_unload(&l);
}

static void session_beyond_the_budget_is_refused_in_words(void **state)
{
    (void)state;
    const umo_context_options little = {.budget_bytes = 256};
    umo_context *context = NULL;
    loaded l;
    umo_error error = {0};
    assert_int_equal(umo_context_default_acquire(&little, &context, NULL), UMO_OK);
    assert_true(onnx_write(&product, file_of(0, "model.onnx")));
    for (int i = 0; i < 2; i++) { /* nothing of the first stays listed */
        describe(&l, 0, "{}");
        assert_int_equal(rig_load(&l, &error), UMO_E_LIMIT);
        assert_non_null(strstr(error.text, "the budget of 'onnxruntime'"));
        rig_unload(&l);
    }
    umo_counters c;
    umo_scope_read(umo_context_scope(context), &c);
    assert_int_equal(c.live_bytes, 0);
    umo_context_default_release(context);
    load_well(&l, 0, "{}");
    assert_multiplies(&l, 1);
    rig_unload(&l);
}

static void pool_switched_off_leaves_memory_to_the_engine(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    assert_true(onnx_write(&chain, file_of(0, "model.onnx")));
    load_well(&l, 0, PARAMETER("memory_pool", "0"));
    assert_null(l.model->heap);
    assert_int_equal(run_chain(&l, 4096, &error), UMO_OK);
    assert_int_equal(counters(&l.umo).allocated.bytes, 0);
    rig_unload(&l);
}

/* OrtAllocator, as the engine sees it. */
typedef struct face {
    uint32_t version;
    void *(*alloc)(struct face *self, size_t size_bytes);
    void (*free)(struct face *self, void *block);
} face;

static jmp_buf thrown;

static void throws(void)
{
    longjmp(thrown, 1);
}

static void memory_of_sessions_is_cleared_before_it_is_anothers(void **state)
{
    (void)state;
    umo_context *context = NULL;
    ort_heap *heap = NULL;
    assert_int_equal(umo_context_default_acquire(NULL, &context, NULL), UMO_OK);
    assert_int_equal(ort_heap_sessions(context, &heap, NULL), UMO_OK);
    face *engine = (face *)ort_heap_allocator(NULL, throws);
    umo_pool_stats stats;
    for (int i = 0; i < 3; i++) {
        ort_heap_visit visit;
        ort_heap_enter(i == 1 ? heap : NULL, &visit);
        unsigned char *block = engine->alloc(engine, 5000);
        assert_int_equal((uintptr_t)block % 64, 0);
        for (int k = 0; k < 5000; k++) {
            assert_int_equal(block[k], 0);
        }
        memset(block, 0x5A, 5000);
        ort_heap_leave(&visit);
        engine->free(engine, block); /* on no visit at all */
    }
    engine->free(engine, NULL);
    ort_heap_read(heap, &stats);
    assert_int_equal(stats.live_bytes, 0);
    ort_heap_release(heap);
    umo_context_default_release(context);
}

static void refusal_throws_on_a_visit_and_is_survived_elsewhere(void **state)
{
    (void)state;
    const umo_context_options little = {.budget_bytes = 1 << 16};
    umo_context *context = NULL;
    ort_heap *heap = NULL;
    umo_error error = {0};
    ort_heap_visit visit;
    assert_int_equal(umo_context_default_acquire(&little, &context, NULL), UMO_OK);
    assert_int_equal(ort_heap_sessions(context, &heap, NULL), UMO_OK);
    face *engine = (face *)ort_heap_allocator(NULL, throws);
    static const size_t sizes[] = {1 << 20, SIZE_MAX - 8, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        volatile bool left = false;
        ort_heap_enter(heap, &visit);
        if (setjmp(thrown) == 0) {
            (void)engine->alloc(engine, sizes[i]);
        } else {
            left = true;
        }
        ort_heap_leave(&visit);
        assert_true(left);
        assert_int_equal(visit.refused_bytes, sizes[i]);
        assert_int_not_equal(ort_heap_explain(&visit, heap, UMO_E_DEVICE, &error), UMO_E_DEVICE);
        assert_non_null(strstr(error.text, "'onnxruntime'"));
    }
    /* A thread of the engine's own has nowhere to throw to: it gets memory that is not counted. */
    void *block = engine->alloc(engine, 1 << 20);
    assert_non_null(block);
    memset(block, 1, 1 << 20);
    engine->free(engine, block);
    ort_heap_release(heap);
    umo_context_default_release(context);
}

static void shrinkage_empties_the_pool_after_each_request(void **state)
{
    (void)state;
    loaded l;
    umo_error error = {0};
    umo_pool_stats stats;
    assert_true(onnx_write(&chain, file_of(0, "model.onnx")));
    load_well(&l, 0, PARAMETER("memory.enable_memory_arena_shrinkage", "cpu:0"));
    assert_int_equal(run_chain(&l, 4096, &error), UMO_OK);
    ort_heap_read(l.model->heap, &stats);
    assert_int_equal(stats.reserved_bytes, 0);
    rig_unload(&l);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    if (!rig_find_library()) {
        printf("skipped: no ONNX Runtime; run scripts/setup or set UMO_ONNXRUNTIME\n");
        return SKIPPED;
    }
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        TEST(models_of_one_file_share_a_session),
        TEST(other_options_mean_another_session_over_the_same_weights),
        TEST(switched_off_nothing_is_shared),
        TEST(replaced_file_is_loaded_anew_beside_the_old),
        TEST(file_written_to_in_place_fails_requests_until_it_is_loaded_again),
        TEST(external_data_is_shared_by_models_that_differ),
        TEST(external_data_that_is_not_there_is_refused_in_words),
        TEST(sessions_apart_pack_the_same_weights_once),
        TEST(models_that_load_at_the_same_time_load_once),
        TEST(models_that_fail_at_the_same_time_each_say_why),
        TEST(intermediates_are_counted_for_the_model),
        TEST(an_instance_on_a_node_has_a_heap_of_its_own),
        TEST(request_beyond_the_budget_fails_alone_and_in_words),
        TEST(session_beyond_the_budget_is_refused_in_words),
        TEST(pool_switched_off_leaves_memory_to_the_engine),
        TEST(memory_of_sessions_is_cleared_before_it_is_anothers),
        TEST(refusal_throws_on_a_visit_and_is_survived_elsewhere),
        TEST(shrinkage_empties_the_pool_after_each_request),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(folder);
    return failed;
}

/*
 * What several features do to each other: each of these has tests of its own, and each went wrong
 * once beside another.
 */
#include "segment.h"
#include "streamer.h"

#include "os/mapping_test.h"

#include "kit/kit.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- Clients that take memory away ---- */

static segment victim;

static void cut(umo_batch *batch)
{
    (void)batch;
    segment_cut(&victim, 0);
}

#ifdef __linux__
/* No view, a device of its own and the conventional way: bytes go by way of calls that come back
 * short. */
static void who_shrinks_without_a_view_fails_alone_on_a_device(void **state)
{
    (void)state;
    static const model_plan plan = {
        .batch_max = 8,
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
        .unified = "{\"enable\": false}",
    };
    world w;
    world_start(&w);
    engine.device = world_device(0, false);
    engine.before = cut;
    world_load_ok(&w, &plan);
    mapping_test_silent = true;
    job jobs[3];
    segment segments[3];
    for (unsigned i = 0; i < 3; i++) {
        job_start(&jobs[i], &plan, 1, 5000, i);
        segments[i] = segment_open(5000);
        job_input_at(&jobs[i], 0, segments[i].data);
        job_want(&jobs[i], 0, NULL);
    }
    victim = segments[1];
    assert_true(world_execute(&w, jobs, 3));
    job_expect_right(&jobs[0]);
    job_expect_failed(&jobs[1], "shrank while it was used");
    job_expect_right(&jobs[2]);
    for (unsigned i = 0; i < 3; i++) {
        segment_cut(&segments[i], segments[i].size_bytes);
        job_finish(&jobs[i]);
        segment_close(&segments[i]);
    }
    mapping_test_silent = false;
    world_unload(&w);
    world_finish(&w);
}

/* The engine writes behind what it reads, so an answer over the input would eat it up. */
static umo_status run_backwards(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor out;
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    assert_int_equal(umo_batch_output(batch, 0, UMO_UINT8, &in.shape, &out, error), UMO_OK);
    memset(out.data, 0xEE, out.size_bytes);
    for (size_t i = 0; i < out.size_bytes; i++) {
        ((unsigned char *)out.data)[i] = engine_byte(((const unsigned char *)in.data)[i], 0);
    }
    return UMO_OK;
}

/* One file under two names, where finding out whose memory it is costs more than the first tensor
 * and less than both. */
static void one_file_under_two_names_is_seen_on_an_older_system(void **state)
{
    (void)state;
    static const model_plan plan = {
        .batch_max = 0,
        .input_count = 1,
        .output_count = 1,
        .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    };
    world w;
    world_start(&w);
    engine.run = run_backwards;
    world_load_ok(&w, &plan);
    mapping_test_silent = true;
    for (unsigned turn = 0; turn < 8; turn++) {
        size_t size_bytes = (size_t)umo_mappings_crossover_bytes() * 3 / 4;
        segment s = segment_open(size_bytes);
        char *again = pages_test_map(s.size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, s.file, 0);
        assert_true(again != MAP_FAILED);
        job j;
        job_start(&j, &plan, 1, (int64_t)size_bytes, turn);
        job_input_at(&j, 0, s.data);
        job_want(&j, 0, again);
        assert_true(world_execute(&w, &j, 1));
        job_expect_right(&j);
        job_finish(&j);
        assert_int_equal(munmap(again, s.size_bytes), 0);
        segment_close(&s);
    }
    mapping_test_silent = false;
    world_unload(&w);
    world_finish(&w);
}
#endif

/* What was made of memory that was gone is not kept, although the request goes on by itself. */
static umo_status state_from_lost_bytes(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor past;
    umo_tensor future;
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 1, &past, error), UMO_OK);
    assert_int_equal(umo_batch_output(batch, 1, UMO_UINT8, &past.shape, &future, error), UMO_OK);
    segment_cut(&victim, 0);
    memset(future.data, *(volatile char *)in.data, future.size_bytes);
    umo_request_finish(umo_batch_request(batch, 0), UMO_OK, NULL);
    return UMO_OK;
}

static void a_decoupled_state_of_lost_bytes_is_not_kept(void **state)
{
    (void)state;
    world w;
    model_plan plan = stream_single;
    plan.extra = DECOUPLED ", \"sequence_batching\": {\"oldest\": {}, \"state\": "
                           "[{\"input_name\": \"PAST\", \"output_name\": \"FUTURE\", "
                           "\"data_type\": \"TYPE_UINT8\", \"dims\": [8]}]}";
    fake_sequence sequence = {0};
    world_start(&w);
    engine.run = state_from_lost_bytes;
    world_load_ok(&w, &plan);
    const int64_t dims = 8;
    fake_state *kept = fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 1,
                                         &dims, "one more", 8);
    job j;
    job_start(&j, &plan, 1, (int64_t)LENGTH, 7);
    victim = segment_open(LENGTH);
    job_input_at(&j, 0, victim.data);
    job_want(&j, 0, NULL);
    fake_sequence_join(&sequence, j.request);
    assert_true(world_execute(&w, &j, 1));
    job_expect_failed(&j, "shrank while it was used");
    assert_int_equal(kept->updates, 0);
    assert_memory_equal(kept->now.data, "one more", 8);
    job_finish(&j);
    segment_close(&victim);
    fake_sequence_destroy(&sequence);
    stream_end(&w);
}

/* ---- Responses ---- */

/* Two responses of one request, the first of them small enough to be copied on a device. */
static umo_status small_then_large(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor to[2];
    umo_response *responses[2];
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    umo_request *request = umo_batch_request(batch, 0);
    const umo_shape shapes[] = {{.rank = 1, .dims = {100}}, in.shape};
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(umo_response_begin(request, 0, &responses[i], error), UMO_OK);
        assert_int_equal(umo_response_output(responses[i], 0, UMO_UINT8, &shapes[i], &to[i], error),
                         UMO_OK);
        memset(to[i].data, 'a' + (int)i, to[i].size_bytes);
    }
    assert_int_equal(umo_response_send(responses[0], (umo_fence){0}, false), UMO_OK);
    assert_int_equal(umo_response_send(responses[1], (umo_fence){0}, true), UMO_OK);
    return UMO_OK;
}

static void a_small_response_is_not_copied_over_a_large_one(void **state)
{
    (void)state;
    world w;
    model_plan plan = stream_single;
    plan.unified = "{\"zero_copy_threshold\": 1000}";
    world_start(&w);
    engine.device = world_device(0, false);
    engine.run = small_then_large;
    world_load_ok(&w, &plan);
    fake_region *region = fake_region_create(5000, true, true);
    job j;
    job_start(&j, &plan, 1, 5000, 7);
    job_input_own(&j, 0, false);
    job_want(&j, 0, region->memory.data);
    assert_true(world_execute(&w, &j, 1));
    assert_true(fake_request_wait(j.request));
    const umo_counters counters = world_counters(&w);
    assert_int_equal(counters.copy_performed[UMO_DIRECTION_OUT][UMO_REASON_BELOW_THRESHOLD].bytes,
                     100);
    for (unsigned i = 0; i < 2; i++) {
        const struct TRITONBACKEND_Output *out =
            fake_response_output(j.request->streamed[i], "OUTPUT0");
        assert_int_equal(out->size_bytes, i == 0 ? 100 : 5000);
        for (size_t b = 0; b < out->size_bytes; b++) {
            assert_int_equal(out->received[b], 'a' + (int)i);
        }
    }
    job_finish(&j);
    fake_region_destroy(region);
    stream_end(&w);
}

static umo_request *second;

/* A request that ends while its bytes are on their way to the device. */
static umo_status first_ends(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    second = umo_batch_request(batch, 1);
    umo_request_finish(umo_batch_request(batch, 0), UMO_E_REFUSED, "not this one");
    return umo_batch_input(batch, 0, &in, error);
}

static void a_request_that_ends_early_is_not_read_any_more(void **state)
{
    (void)state;
    world w;
    model_plan plan = stream_batching;
    plan.unified = "{\"enable\": false}";
    world_start(&w);
    engine.device = world_device(50000000, false);
    engine.run = first_ends;
    world_load_ok(&w, &plan);
    job jobs[2];
    for (unsigned i = 0; i < 2; i++) {
        job_start(&jobs[i], &plan, 1, (int64_t)LENGTH, i);
        job_input_own(&jobs[i], 0, false); /* private: what is gone ends the test */
        job_want(&jobs[i], 0, NULL);
    }
    assert_true(world_execute(&w, jobs, 2));
    job_expect_failed(&jobs[0], "not this one");
    umo_request_finish(second, UMO_E_REFUSED, "nor that one");
    job_expect_failed(&jobs[1], "nor that one");
    job_finish(&jobs[0]);
    job_finish(&jobs[1]);
    stream_end(&w);
}

/* ---- Any order of responses ---- */

#define OPEN_MAX 4
#define SENT_MAX 64

typedef struct opened {
    umo_response *response; /* NULL for none */
    unsigned char byte;
    size_t size_bytes; /* 0 for no output */
} opened;

static unsigned dice;
static opened sent[SENT_MAX];
static unsigned sent_count;

static unsigned throw_dice(unsigned sides)
{
    dice = dice * 1664525u + 1013904223u;
    return (dice >> 8) % sides;
}

/* One more response, whose bytes are all its number, at once or late. */
static void any_begin(umo_request *request, opened *o, unsigned number)
{
    static const size_t sizes[] = {1, 100, 1000, 5000};
    const umo_shape shape = {.rank = 1, .dims = {(int64_t)sizes[throw_dice(4)]}};
    char bytes[5000];
    umo_tensor to;
    umo_error error = {0};
    *o = (opened){.byte = (unsigned char)number, .size_bytes = (size_t)shape.dims[0]};
    assert_int_equal(umo_response_begin(request, 0, &o->response, &error), UMO_OK);
    if (throw_dice(4) != 0) {
        assert_int_equal(umo_response_output(o->response, 0, UMO_UINT8, &shape, &to, &error),
                         UMO_OK);
        memset(to.data, (int)number, to.size_bytes);
        return;
    }
    memset(bytes, (int)number, sizeof bytes);
    umo_status status = umo_response_output_late(o->response, 0, UMO_UINT8, &shape, bytes,
                                                 o->size_bytes, UMO_REASON_UNKNOWN_SHAPE, &error);
    assert_true(status == UMO_OK || status == UMO_E_BUSY);
    o->size_bytes = status == UMO_OK ? o->size_bytes : 0;
}

/* False: others have to be sent first. */
static bool any_send(opened *o)
{
    umo_status status = umo_response_send(o->response, (umo_fence){0}, false);
    assert_true(status == UMO_OK || status == UMO_E_BUSY);
    if (status == UMO_OK) {
        sent[sent_count++] = *o;
        o->response = NULL;
    }
    return status == UMO_OK;
}

static umo_status any_order(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    opened open[OPEN_MAX] = {{0}};
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    umo_request *request = umo_batch_request(batch, 0);
    for (unsigned number = 1; number < SENT_MAX; number++) {
        opened *o = &open[throw_dice(OPEN_MAX)];
        if (o->response == NULL) {
            any_begin(request, o, number);
        } else if (throw_dice(5) == 0) {
            umo_response_drop(o->response, (umo_fence){0});
            o->response = NULL;
        } else {
            (void)any_send(o);
        }
    }
    /* However many wait for another one, one never does. */
    for (unsigned left = OPEN_MAX; left > 0; left--) {
        for (unsigned i = 0; i < OPEN_MAX; i++) {
            if (open[i].response != NULL) {
                (void)any_send(&open[i]);
            }
        }
    }
    for (unsigned i = 0; i < OPEN_MAX; i++) {
        assert_null(open[i].response);
    }
    umo_request_finish(request, UMO_OK, NULL);
    return UMO_OK;
}

static void sent_expect_right(const job *j)
{
    assert_int_equal(j->request->streamed_count, sent_count);
    for (unsigned i = 0; i < sent_count; i++) {
        const struct TRITONBACKEND_Output *out =
            fake_response_output(j->request->streamed[i], "OUTPUT0");
        assert_int_equal(out != NULL ? out->size_bytes : 0, sent[i].size_bytes);
        for (size_t b = 0; b < sent[i].size_bytes; b++) {
            if ((unsigned char)out->received[b] != sent[i].byte) {
                fail_msg("seed %u: byte %zu of response %u is of %d, not of %d", dice, b, i,
                         out->received[b], sent[i].byte);
            }
        }
    }
}

static void responses_in_any_order_are_whole(void **state)
{
    (void)state;
    static const char *const ways[] = {"{}", "{\"zero_copy_threshold\": 1000}",
                                       "{\"zero_copy_threshold\": 0}", "{\"enable\": false}"};
    for (unsigned seed = 0; seed < 160; seed++) {
        world w;
        model_plan plan = stream_single;
        plan.unified = ways[seed % 4];
        world_start(&w);
        bool on_device = seed % 4 != 3 && seed / 4 % 2 != 0;
        engine.device = on_device ? world_device(0, false) : NULL;
        engine.run = any_order;
        world_load_ok(&w, &plan);
        bool shared = seed / 8 % 4 != 0;
        fake_region *region = fake_region_create(5000, shared, true);
        job j;
        job_start(&j, &plan, 1, 5000, seed);
        job_input_own(&j, 0, false);
        job_want(&j, 0, shared ? region->memory.data : NULL);
        dice = seed;
        sent_count = 0;
        assert_true(world_execute(&w, &j, 1));
        assert_true(fake_request_wait(j.request));
        sent_expect_right(&j);
        job_finish(&j);
        fake_region_destroy(region);
        stream_end(&w);
    }
}

/* ---- Ragged batches in any memory, and clients that come and go ---- */

#define MOST 8
#define ROOM ((size_t)65536)

static const char ragged_config[] =
    "{\"max_batch_size\": 64, \"input\": [{\"name\": \"INPUT0\", \"data_type\": \"TYPE_FP32\", "
    "\"dims\": [-1], \"allow_ragged_batch\": true}], \"output\": [{\"name\": \"OUTPUT0\", "
    "\"data_type\": \"TYPE_FP32\", \"dims\": [-1]}], \"batch_output\": [{\"target_name\": "
    "[\"OUTPUT0\"], \"kind\": \"BATCH_SCATTER_WITH_INPUT_SHAPE\", \"source_input\": "
    "[\"INPUT0\"]}], \"parameters\": {\"unified_memory\": {\"string_value\": \"%s\"}}}";

static const model_plan ragged_plan = {
    .batch_max = 64,
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_FP32, .dims = {1, {-1}}}},
};

/* A batch of any requests: some in one file, some in files of their own, of which one is cut; some
 * cancelled. */
typedef struct mixture {
    job jobs[MOST];
    bool cancelled[MOST];
    size_t count;
    size_t lost; /* count for none */
    bool early;  /* lost before the engine has asked for anything */
    segment in;
    segment out;
    segment own;
} mixture;

static void mixture_start(mixture *m)
{
    static const int64_t lengths[] = {0, 1, 7, 300, 1500};
    *m = (mixture){.count = 1 + throw_dice(MOST)};
    m->in = segment_open(ROOM);
    m->out = segment_open(ROOM);
    m->own = segment_open(ROOM / 2);
    m->lost = throw_dice(MOST);
    m->lost = m->lost < m->count ? m->lost : m->count;
    size_t first = throw_dice(MOST); /* neighbours in another order than they come */
    size_t in_bytes = 0;
    size_t out_bytes = 0;
    for (size_t k = 0; k < m->count; k++) {
        size_t i = (first + k) % m->count;
        job *j = &m->jobs[i];
        job_start(j, &ragged_plan, 1 + (int64_t)throw_dice(2), lengths[throw_dice(5)], dice);
        if (i == m->lost) {
            job_input_at(j, 0, m->own.data);
        } else if (throw_dice(4) == 0) {
            job_input_own(j, 0, throw_dice(2) == 0);
        } else {
            job_input_at(j, 0, m->in.data + in_bytes);
            in_bytes += j->sizes[0] + (throw_dice(6) == 0 ? 64 : 0);
        }
        bool here = throw_dice(5) != 0;
        job_want(j, 0, here ? m->out.data + out_bytes : NULL);
        out_bytes += here ? j->sizes[0] : 0;
        m->cancelled[i] = throw_dice(8) == 0;
        atomic_store(&j->request->cancelled, m->cancelled[i]);
    }
    assert_true(in_bytes <= ROOM && out_bytes <= ROOM);
    victim = m->own;
    m->early = throw_dice(2) == 0;
    engine.before = m->lost < m->count && m->early ? cut : NULL;
    engine.between = m->lost < m->count && !m->early ? cut : NULL;
}

static void mixture_expect(const mixture *m)
{
    for (size_t i = 0; i < m->count; i++) {
        const job *j = &m->jobs[i];
        if (m->cancelled[i]) {
            job_expect_failed(j, "cancelled");
        } else if (i == m->lost && j->sizes[0] > 0 && engine.batches > 0 &&
                   (m->early || j->request->text[0] != '\0')) {
            job_expect_failed(j, "shrank while it was used");
        } else {
            job_expect_right(j);
        }
    }
}

static void mixture_finish(mixture *m)
{
    for (size_t i = 0; i < m->count; i++) {
        job_finish(&m->jobs[i]);
    }
    segment_close(&m->in);
    segment_close(&m->out);
    segment_close(&m->own);
}

static void who_shrinks_fails_alone_in_any_batch(void **state)
{
    (void)state;
    static const char *const ways[] = {"{}", "{\\\"zero_copy_threshold\\\": 0}",
                                       "{\\\"zero_copy_threshold\\\": 3000}",
                                       "{\\\"enable\\\": false}"};
    for (unsigned seed = 0; seed < 240; seed++) {
        world w;
        char config[1024];
        mixture m;
        world_start(&w);
        (void)snprintf(config, sizeof config, ragged_config, ways[seed % 4]);
        fake.config = config;
        w.plan = &ragged_plan;
        engine.device = seed / 4 % 2 != 0 ? world_device(0, false) : NULL;
        assert_true(world_load(&w));
        dice = seed;
        for (unsigned turn = 0; turn < 3; turn++) {
            engine.batches = 0;
            mixture_start(&m);
#ifdef __linux__
            mapping_test_silent = seed / 8 % 3 == 0;
#endif
            assert_true(world_execute(&w, m.jobs, m.count));
            mapping_test_silent = false;
            mixture_expect(&m);
            mixture_finish(&m);
        }
        world_unload(&w);
        world_finish(&w);
    }
}

/* ---- Engines that go on ---- */

static bool refused; /* an output that there was no memory for */
static uint64_t failing;

/* Does as if nothing had happened. */
static umo_status run_regardless(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor out;
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    allocations_start(failing);
    umo_status status = umo_batch_output(batch, 0, UMO_UINT8, &in.shape, &out, NULL);
    (void)allocations_stop();
    refused = status != UMO_OK;
    return UMO_OK;
}

static umo_status respond_regardless(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor in;
    umo_tensor out;
    umo_response *response = NULL;
    assert_int_equal(umo_batch_take(batch, error), UMO_OK);
    assert_int_equal(umo_batch_input(batch, 0, &in, error), UMO_OK);
    umo_request *request = umo_batch_request(batch, 0);
    assert_int_equal(umo_response_begin(request, 0, &response, error), UMO_OK);
    allocations_start(failing);
    umo_status status = umo_response_output(response, 0, UMO_UINT8, &in.shape, &out, NULL);
    (void)allocations_stop();
    refused = status != UMO_OK;
    return umo_response_send(response, (umo_fence){0}, true);
}

static void an_output_without_memory_is_never_delivered(void **state)
{
    (void)state;
    unsigned refusals[2] = {0};
    for (unsigned decoupled = 0; decoupled < 2; decoupled++) {
        bool more = true;
        for (failing = 1; more; failing++) {
            world w;
            model_plan plan = stream_single;
            plan.extra = decoupled != 0 ? DECOUPLED : NULL;
            plan.unified = "{\"enable\": false}";
            world_start(&w);
            engine.device = world_device(0, false);
            engine.run = decoupled != 0 ? respond_regardless : run_regardless;
            world_load_ok(&w, &plan);
            job j;
            job_simple(&j, &plan, 1, 70000, (unsigned)failing);
            assert_true(world_execute(&w, &j, 1));
            more = refused;
            if (refused) {
                refusals[decoupled]++;
                fake_request_expect_answered(j.request);
                assert_string_equal(decoupled != 0 ? j.request->streamed[0]->text : j.request->text,
                                    "model 'fake' gave no output 'OUTPUT0'");
            } else {
                fake_request_expect_answered(j.request);
                assert_string_equal(j.request->text, "");
            }
            job_finish(&j);
            world_unload(&w);
            world_finish(&w);
        }
    }
    assert_true(refusals[0] > 0 && refusals[1] > 0);
}

static umo_status take_too_late(umo_instance *instance, umo_batch *batch, umo_error *error)
{
    (void)instance;
    umo_tensor out;
    const umo_shape shape = {.rank = 1, .dims = {(int64_t)LENGTH}};
    assert_int_equal(umo_batch_output(batch, 0, UMO_UINT8, &shape, &out, error), UMO_OK);
    return umo_batch_take(batch, error);
}

static void a_batch_with_outputs_cannot_be_taken(void **state)
{
    (void)state;
    world w;
    model_plan plan;
    stream_start(&w, &plan, &stream_single, NULL);
    engine.run = take_too_late;
    job j;
    job_simple(&j, &plan, 1, (int64_t)LENGTH, 7);
    assert_true(world_execute(&w, &j, 1));
    job_expect_failed(&j, "its tensors are in use");
    job_finish(&j);
    stream_end(&w);
}

/* ---- Memory of a model, beside others' ---- */

static const int64_t held_bytes = 65536;

static const model_plan plain_plan = {
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
};

static const model_plan sequence_plan = {
    .input_count = 1,
    .output_count = 1,
    .inputs = {{.dtype = UMO_UINT8, .dims = {1, {-1}}}},
    .extra = ", \"sequence_batching\": {\"oldest\": {}, \"control_input\": [], \"state\": "
             "[{\"input_name\": \"PAST\", \"output_name\": \"FUTURE\", \"data_type\": "
             "\"TYPE_UINT8\", \"dims\": [65536]}]}",
};

static uint64_t live_of(umo_context *context)
{
    umo_counters counters;
    umo_scope_read(umo_context_scope(context), &counters);
    return counters.live_bytes;
}

/* Answers a few requests, whose tensors are copied because they come in two pieces. */
static void requests_run(world *w, const model_plan *plan)
{
    fake_sequence sequence = {0};
    char *first = calloc(1, (size_t)held_bytes);
    assert_non_null(first);
    if (plan->extra == sequence_plan.extra) {
        (void)fake_sequence_add(&sequence, "PAST", "FUTURE", TRITONSERVER_TYPE_UINT8, 1,
                                &held_bytes, first, (size_t)held_bytes);
    }
    for (unsigned i = 0; i < 3; i++) {
        job j;
        stream_reset(3);
        job_start(&j, plan, 1, held_bytes, i);
        job_input_own(&j, 0, false);
        TRITONBACKEND_Input *in = j.inputs[0];
        in->pieces[0].size_bytes = 7;
        in->size_bytes = 7;
        fake_input_piece(in, j.contents[0] + 7, j.sizes[0] - 7);
        job_want(&j, 0, NULL);
        if (sequence.count > 0) {
            fake_sequence_join(&sequence, j.request);
        }
        assert_true(world_execute(w, &j, 1));
        assert_true(fake_request_wait(j.request));
        stream_threads_wait();
        fake_request_expect_answered(j.request);
        assert_string_equal(j.request->text, "");
        job_finish(&j);
    }
    fake_sequence_destroy(&sequence);
    free(first);
}

static void a_model_gives_back_what_it_took_and_nothing_else(void **state)
{
    (void)state;
    const model_plan *const plans[] = {&plain_plan, &sequence_plan, &stream_single};
    static const char *const ways[] = {NULL, "{\"zero_copy_threshold\": 0}", "{\"enable\": false}"};
    for (unsigned number = 0; number < 18; number++) {
        world w;
        umo_buffer *others = NULL;
        umo_device *host = world_device(0, false);
        model_plan plan = *plans[number % 3];
        bool on_device = number / 9 != 0;
        bool streams = plan.extra == stream_single.extra;
        /* Its engine writes to where it is told, and a device's own memory has no such place. */
        plan.unified = ways[number / 3 % (streams && on_device ? 2 : 3)];
        world_start(&w);
        if (streams) {
            engine.run = stream_engine;
        }
        engine.device = on_device ? world_device(0, false) : NULL;
        assert_int_equal(
            umo_buffer_alloc(host, umo_context_scope(w.context), 12345, UMO_UNIFIED, &others, NULL),
            UMO_OK);
        uint64_t level = live_of(w.context);
        assert_true(level >= 12345);
        for (int turn = 0; turn < 2; turn++) {
            world_load_ok(&w, &plan);
            requests_run(&w, &plan);
            assert_true(live_of(w.context) >= level + (uint64_t)held_bytes); /* scratch, kept */
            world_unload(&w);
            assert_int_equal(live_of(w.context), level);
        }
        umo_buffer_release(others);
        umo_device_release(host);
        world_finish(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
#ifdef __linux__
        cmocka_unit_test(who_shrinks_without_a_view_fails_alone_on_a_device),
        cmocka_unit_test(one_file_under_two_names_is_seen_on_an_older_system),
#endif
        cmocka_unit_test(a_decoupled_state_of_lost_bytes_is_not_kept),
        cmocka_unit_test(a_small_response_is_not_copied_over_a_large_one),
        cmocka_unit_test(a_request_that_ends_early_is_not_read_any_more),
        cmocka_unit_test(responses_in_any_order_are_whole),
        cmocka_unit_test(who_shrinks_fails_alone_in_any_batch),
        cmocka_unit_test(an_output_without_memory_is_never_delivered),
        cmocka_unit_test(a_batch_with_outputs_cannot_be_taken),
        cmocka_unit_test(a_model_gives_back_what_it_took_and_nothing_else),
    };
    return cmocka_run_group_tests_name("together", tests, NULL, NULL);
}

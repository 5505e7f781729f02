/*
 * DLPack: what goes out comes in as it was, memory is held as long as somebody has it, and every
 * deleter runs exactly once or, after an error, not at all.
 */
#include "driver/wrapper_test.h"

#include "base/scope.h"

#include <umo/dlpack.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
} rig;

static rig rig_open(const wrapper_switches *switches, const umo_driver_options *options)
{
    rig r = {.device = wrapper_device(switches, options)};
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "dlpack", 0, &r.scope, NULL), UMO_OK);
    return r;
}

static void rig_close(rig *r)
{
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_bytes, 0);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    assert_int_equal(wrapper_calls.live, 0);
    wrapper = (wrapper_switches){0};
}

static umo_tensor tensor_make(const rig *r, umo_storage_mode mode, umo_dtype dtype, int64_t rows,
                              int64_t columns)
{
    const umo_shape shape = {.rank = 2, .dims = {rows, columns}};
    uint64_t bytes;
    assert_int_equal(umo_shape_bytes(&shape, dtype, &bytes), UMO_OK);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r->device, r->scope, (size_t)bytes + 64, mode, &buffer, NULL),
                     UMO_OK);
    umo_tensor tensor;
    assert_int_equal(
        umo_tensor_init_buffer(&tensor, buffer, 64, (size_t)bytes, dtype, &shape, NULL), UMO_OK);
    return tensor;
}

/* Writes 1, 2, 3, ... on a side. */
static void tensor_fill(const umo_tensor *t)
{
    const umo_access access = {
        .size_bytes = umo_buffer_size(t->buffer), .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(t->buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    unsigned char *bytes = umo_buffer_host(t->buffer);
    for (size_t i = 0; i < access.size_bytes; i++) {
        bytes[i] = (unsigned char)(i + 1);
    }
    assert_int_equal(umo_access_end(t->buffer, &access, (umo_fence){0}), UMO_OK);
}

static bool bytes_rise(const void *data, size_t count, size_t first)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != (unsigned char)(first + i + 1)) {
            return false;
        }
    }
    return true;
}

/* ---- out ---- */

static void an_export_shows_the_tensor_and_holds_its_buffer(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_tensor t = tensor_make(&r, UMO_UNIFIED, UMO_FP32, 3, 5);
    tensor_fill(&t);
    umo_dl_managed_versioned *m = NULL;
    assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
    assert_int_equal(m->version.major, 1);
    assert_int_equal(m->flags, 0);
    assert_int_equal(m->tensor.device.type, UMO_DL_CPU);
    assert_int_equal(m->tensor.device.id, 0);
    assert_int_equal(m->tensor.ndim, 2);
    assert_int_equal(m->tensor.dtype.code, UMO_DL_FLOAT);
    assert_int_equal(m->tensor.dtype.bits, 32);
    assert_int_equal(m->tensor.dtype.lanes, 1);
    assert_int_equal(m->tensor.shape[0], 3);
    assert_int_equal(m->tensor.shape[1], 5);
    assert_int_equal(m->tensor.strides[0], 5);
    assert_int_equal(m->tensor.strides[1], 1);
    const char *data = (const char *)m->tensor.data + m->tensor.byte_offset;
    assert_ptr_equal(data, t.data);
    assert_true(bytes_rise(data, 60, 64));
    umo_buffer_release(t.buffer);
    assert_true(bytes_rise(data, 60, 64));
    m->deleter(m);
    rig_close(&r);
}

static void a_writable_export_keeps_others_out_and_takes_the_bytes(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_tensor t = tensor_make(&r, UMO_MANAGED, UMO_INT32, 4, 4);
    tensor_fill(&t);
    const size_t size = umo_buffer_size(t.buffer);
    umo_access access = {.size_bytes = size, .side = UMO_SIDE_DEVICE, .use = UMO_READ};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(t.buffer, &access, &waits), UMO_OK);
    umo_dl_managed_versioned *m = NULL;
    umo_error error = {0};
    assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, &error), UMO_E_BUSY);
    assert_int_not_equal(error.text[0], '\0');
    assert_int_equal(umo_access_end(t.buffer, &access, (umo_fence){0}), UMO_OK);
    assert_int_equal(umo_buffer_valid(t.buffer, 0, size), UMO_SIDE_HOST | UMO_SIDE_DEVICE);
    assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
    assert_int_equal(umo_buffer_valid(t.buffer, 0, size), UMO_SIDE_HOST);
    access.use = UMO_WRITE;
    assert_int_equal(umo_access_begin(t.buffer, &access, &waits), UMO_E_BUSY);
    m->deleter(m);
    assert_int_equal(umo_access_begin(t.buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_access_abort(t.buffer, &access, (umo_fence){0}), UMO_OK);

    /* Two that only read may be out at once, and a third that writes may be too: only sides that
     * differ exclude each other. */
    const umo_dl_export reading = {.read_only = true};
    umo_dl_managed_versioned *a = NULL;
    umo_dl_managed_versioned *b = NULL;
    assert_int_equal(umo_tensor_to_dlpack(&t, &reading, &a, NULL), UMO_OK);
    assert_int_equal(umo_tensor_to_dlpack(&t, &reading, &b, NULL), UMO_OK);
    assert_int_equal(a->flags, UMO_DL_READ_ONLY);
    const umo_dl_export across = {.side = UMO_SIDE_DEVICE};
    assert_int_equal(umo_tensor_to_dlpack(&t, &across, &m, NULL), UMO_E_BUSY);
    a->deleter(a);
    b->deleter(b);
    assert_int_equal(umo_tensor_to_dlpack(&t, &across, &m, NULL), UMO_OK);
    m->deleter(m);
    umo_buffer_release(t.buffer);
    rig_close(&r);
}

static void each_side_of_each_mode_has_the_bytes(void **state)
{
    (void)state;
    const umo_driver_options late = {.delay_ns = 2000000, .test_mode = true};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int side = 1; side <= 2; side++) {
            rig r = rig_open(NULL, &late);
            umo_tensor t = tensor_make(&r, (umo_storage_mode)mode, UMO_UINT16, 10, 100);
            tensor_fill(&t);
            const umo_dl_export options = {.side = (umo_side)side};
            umo_dl_managed_versioned *m = NULL;
            assert_int_equal(umo_tensor_to_dlpack(&t, &options, &m, NULL), UMO_OK);
            assert_int_equal(m->tensor.device.type, UMO_DL_CPU);
            /* Without a wait: there was one inside. */
            assert_true(bytes_rise((char *)m->tensor.data + m->tensor.byte_offset, 2000, 64));
            umo_buffer_release(t.buffer);
            m->deleter(m);
            rig_close(&r);
        }
    }
}

static void what_cannot_go_out_is_refused(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_tensor t = tensor_make(&r, UMO_UNIFIED, UMO_FP32, 2, 2);
    umo_dl_managed_versioned *m = NULL;
    umo_error error;
    float plain[4];
    const umo_shape four = {.rank = 1, .dims = {4}};
    umo_tensor bad;
    assert_int_equal(umo_tensor_init(&bad, plain, sizeof plain, UMO_FP32, &four, NULL), UMO_OK);
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    assert_int_equal(umo_tensor_init_buffer(&bad, t.buffer, 0, 8, UMO_BYTES, &four, NULL), UMO_OK);
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    /* Values that somebody filled in by hand. */
    bad = t;
    bad.shape.dims[0] = -1;
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    bad = t;
    bad.strides[0] = 1000;
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    bad = t;
    bad.strides[0] = INT64_MAX;
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    bad = t;
    bad.offset_bytes = SIZE_MAX - 3;
    assert_int_equal(umo_tensor_to_dlpack(&bad, NULL, &m, &error), UMO_E_INVAL);
    const umo_dl_export nowhere = {.side = (umo_side)7};
    assert_int_equal(umo_tensor_to_dlpack(&t, &nowhere, &m, &error), UMO_E_INVAL);
    umo_buffer_release(t.buffer);
    rig_close(&r);

    const wrapper_switches strange = {.caps_off = UMO_CAP_HOST_PROCESSOR};
    r = rig_open(&strange, NULL);
    t = tensor_make(&r, UMO_PRIVATE, UMO_FP32, 2, 2);
    const umo_dl_export device = {.side = UMO_SIDE_DEVICE};
    assert_int_equal(umo_tensor_to_dlpack(&t, &device, &m, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "wrapper"));
    assert_null(m);
    umo_buffer_release(t.buffer);
    rig_close(&r);
}

/* ---- devices whose memory is a handle ---- */

static umo_program_language gpu_language;

static umo_status gpu_open(uint32_t ordinal, const umo_driver_options *options, void **out_state,
                           umo_device_info *info, umo_error *error)
{
    umo_status status = umo_driver_host.open(ordinal, options, out_state, info, error);
    info->language = gpu_language;
    return status;
}

static void a_device_s_memory_goes_out_as_what_it_is(void **state)
{
    (void)state;
    static const struct {
        umo_program_language language;
        umo_dl_device_type type;
        bool handle;
    } cases[] = {{UMO_LANGUAGE_OPENCL_C, UMO_DL_OPENCL, true},
                 {UMO_LANGUAGE_METAL, UMO_DL_METAL, true},
                 {UMO_LANGUAGE_CUDA, UMO_DL_CUDA, false}};
    static umo_driver gpu;
    gpu = umo_driver_host;
    gpu.name = "gpu";
    gpu.open = gpu_open;
    assert_int_equal(umo_driver_register(&gpu, NULL), UMO_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        gpu_language = cases[i].language;
        rig r = {0};
        assert_int_equal(umo_device_open("gpu", 0, NULL, &r.device, NULL), UMO_OK);
        assert_int_equal(umo_scope_create(NULL, "dlpack", 0, &r.scope, NULL), UMO_OK);
        umo_tensor t = tensor_make(&r, UMO_PRIVATE, UMO_FP32, 2, 3);
        tensor_fill(&t);
        const umo_dl_export out = {.side = UMO_SIDE_DEVICE};
        umo_dl_managed_versioned *m = NULL;
        assert_int_equal(umo_tensor_to_dlpack(&t, &out, &m, NULL), UMO_OK);
        assert_int_equal(m->tensor.device.type, cases[i].type);
        char *native = umo_buffer_memory(t.buffer)->native;
        assert_ptr_equal(m->tensor.data, cases[i].handle ? native : native + 64);
        assert_int_equal(m->tensor.byte_offset, cases[i].handle ? 64 : 0);
        /* Nobody but its own device knows what to do with it, and that one knows whose it is. */
        umo_device *other = NULL;
        assert_int_equal(umo_device_open("host", 0, NULL, &other, NULL), UMO_OK);
        umo_dl_import options = {.device = other, .scope = r.scope};
        umo_tensor in;
        umo_error error = {0};
        assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, NULL, NULL, &error),
                         UMO_E_UNSUPPORTED);
        options.device = r.device;
        assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, NULL, NULL, NULL), UMO_OK);
        assert_ptr_equal(in.buffer, t.buffer);
        umo_buffer_release(in.buffer);
        /* Its host side is the CPU's like any other. */
        assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
        assert_int_equal(m->tensor.device.type, UMO_DL_CPU);
        assert_true(bytes_rise(m->tensor.data, 24, 64));
        m->deleter(m);
        umo_buffer_release(t.buffer);
        umo_device_release(other);
        rig_close(&r);
    }
}

static void an_empty_tensor_holds_nothing(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 8, UMO_UNIFIED, &buffer, NULL), UMO_OK);
    const umo_shape none = {.rank = 2, .dims = {3, 0}};
    umo_tensor t;
    assert_int_equal(umo_tensor_init_buffer(&t, buffer, 8, 0, UMO_FP32, &none, NULL), UMO_OK);
    umo_dl_managed_versioned *m = NULL;
    assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
    assert_null(m->tensor.data);
    umo_buffer_release(buffer);
    const umo_dl_import options = {.device = r.device, .scope = r.scope};
    umo_tensor in;
    assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, NULL, NULL, NULL), UMO_OK);
    assert_null(in.buffer);
    assert_null(in.data);
    assert_int_equal(in.size_bytes, 0);
    assert_true(umo_shape_equal(&in.shape, &none));
    rig_close(&r);
}

/* ---- in ---- */

typedef struct producer {
    umo_dl_managed_versioned managed;
    umo_dl_managed old;
    int64_t shape[4];
    int64_t strides[4];
    float data[64];
    _Atomic int deleted;
    pthread_t deleter_thread;
} producer;

static void versioned_deleted(umo_dl_managed_versioned *self)
{
    producer *p = self->manager;
    p->deleter_thread = pthread_self();
    p->deleted++;
}

static void old_deleted(umo_dl_managed *self)
{
    producer *p = self->manager;
    p->deleted++;
}

static void producer_init(producer *p)
{
    memset(p, 0, sizeof *p);
    for (int i = 0; i < 64; i++) {
        p->data[i] = (float)i;
    }
    p->shape[0] = 4;
    p->shape[1] = 8;
    p->strides[0] = 8;
    p->strides[1] = 1;
    p->managed = (umo_dl_managed_versioned){
        .version = {1, 0},
        .manager = p,
        .deleter = versioned_deleted,
        .tensor = {.data = p->data,
                   .device = {.type = UMO_DL_CPU},
                   .ndim = 2,
                   .dtype = {UMO_DL_FLOAT, 32, 1},
                   .shape = p->shape,
                   .strides = p->strides},
    };
}

static void an_import_lies_where_its_producer_put_it(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    static producer p;
    producer_init(&p);
    p.managed.tensor.byte_offset = 16;
    p.strides[0] = 13;
    p.strides[1] = 2;
    p.managed.version.minor = 99;
    p.managed.flags = UMO_DL_COPIED;
    const umo_dl_import options = {.device = r.device, .scope = r.scope, .writable = true};
    umo_tensor t;
    umo_dl_facts facts;
    umo_reason why = UMO_REASON_LIMIT;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, &facts, &why, NULL), UMO_OK);
    assert_ptr_equal(t.data, &p.data[4]);
    assert_int_equal(t.dtype, UMO_FP32);
    assert_int_equal(t.size_bytes, (3 * 13 + 7 * 2 + 1) * sizeof(float));
    assert_int_equal(umo_buffer_size(t.buffer), t.size_bytes);
    assert_int_equal(t.strides[0], 13);
    assert_int_equal(t.strides[1], 2);
    assert_false(umo_tensor_is_packed(&t));
    assert_true(facts.copied);
    assert_false(facts.read_only);
    assert_int_equal(why, UMO_REASON_NONE);
    assert_int_equal(p.deleted, 0);
    umo_buffer_acquire(t.buffer);
    umo_buffer_release(t.buffer);
    assert_int_equal(p.deleted, 0);
    umo_buffer_release(t.buffer);
    assert_int_equal(p.deleted, 1);
    rig_close(&r);
}

static void the_form_of_0_x_is_taken_too(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    static producer p;
    producer_init(&p);
    p.old = (umo_dl_managed){.tensor = p.managed.tensor, .manager = &p, .deleter = old_deleted};
    p.old.tensor.strides = NULL;
    const umo_dl_import options = {.device = r.device, .scope = r.scope};
    umo_tensor t;
    assert_int_equal(umo_tensor_from_dlpack_unversioned(&p.old, &options, &t, NULL, NULL), UMO_OK);
    assert_true(umo_tensor_is_packed(&t));
    assert_ptr_equal(t.data, p.data);
    umo_buffer_release(t.buffer);
    assert_int_equal(p.deleted, 1);
    assert_int_equal(umo_tensor_from_dlpack_unversioned(NULL, &options, &t, NULL, NULL),
                     UMO_E_INVAL);
    /* A producer may have nothing to be told. */
    p.old.deleter = NULL;
    assert_int_equal(umo_tensor_from_dlpack_unversioned(&p.old, &options, &t, NULL, NULL), UMO_OK);
    umo_buffer_release(t.buffer);
    p.managed.deleter = NULL;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL), UMO_OK);
    umo_buffer_release(t.buffer);
    assert_int_equal(p.deleted, 1);
    rig_close(&r);
}

static void every_element_type_goes_out_and_comes_in(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    for (int dtype = 1; dtype < UMO_DTYPES; dtype++) {
        if (dtype == UMO_BYTES) {
            continue;
        }
        umo_tensor t = tensor_make(&r, UMO_UNIFIED, (umo_dtype)dtype, 3, 4);
        umo_dl_managed_versioned *m = NULL;
        assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
        assert_int_equal(m->tensor.dtype.bits, umo_dtype_size((umo_dtype)dtype) * 8);
        /* Into another device, so that it is not recognised. */
        umo_device *other = NULL;
        assert_int_equal(umo_device_open("host", 0, NULL, &other, NULL), UMO_OK);
        const umo_dl_import options = {.device = other, .scope = r.scope};
        umo_tensor in;
        assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, NULL, NULL, NULL), UMO_OK);
        assert_int_equal(in.dtype, dtype);
        assert_ptr_equal(in.data, t.data);
        assert_ptr_not_equal(in.buffer, t.buffer);
        assert_true(umo_shape_equal(&in.shape, &t.shape));
        umo_buffer_release(t.buffer);
        umo_buffer_release(in.buffer);
        umo_device_release(other);
    }
    rig_close(&r);
}

static void ones_own_tensor_comes_back_itself(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_tensor t = tensor_make(&r, UMO_PRIVATE, UMO_FP16, 3, 4);
    const umo_dl_export out = {.side = UMO_SIDE_DEVICE, .read_only = true};
    umo_dl_managed_versioned *m = NULL;
    assert_int_equal(umo_tensor_to_dlpack(&t, &out, &m, NULL), UMO_OK);
    umo_dl_import options = {.device = r.device, .scope = r.scope, .writable = true};
    umo_tensor in;
    umo_dl_facts facts = {0};
    assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, &facts, NULL, NULL), UMO_E_INVAL);
    options.writable = false;
    assert_int_equal(umo_tensor_from_dlpack(m, &options, &in, &facts, NULL, NULL), UMO_OK);
    assert_ptr_equal(in.buffer, t.buffer);
    assert_int_equal(in.offset_bytes, t.offset_bytes);
    assert_true(facts.read_only);
    umo_buffer_release(t.buffer);
    /* The export has ended. */
    const umo_access access = {.size_bytes = 1, .side = UMO_SIDE_HOST, .use = UMO_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(in.buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_access_end(in.buffer, &access, (umo_fence){0}), UMO_OK);
    umo_buffer_release(in.buffer);
    rig_close(&r);
}

static void a_scalar_and_odd_strides_of_ones_are_fine(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    static producer p;
    const umo_dl_import options = {.device = r.device, .scope = r.scope};
    umo_tensor t;
    producer_init(&p);
    p.managed.tensor.ndim = 0;
    p.managed.tensor.shape = NULL;
    p.managed.tensor.strides = NULL;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL), UMO_OK);
    assert_int_equal(t.shape.rank, 0);
    assert_int_equal(t.size_bytes, 4);
    umo_buffer_release(t.buffer);
    producer_init(&p);
    p.shape[0] = 1;
    p.strides[0] = -77;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL), UMO_OK);
    assert_int_equal(t.size_bytes, 32);
    assert_true(umo_tensor_is_packed(&t));
    umo_buffer_release(t.buffer);
    /* A row that is shown four times. */
    producer_init(&p);
    p.strides[0] = 0;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL), UMO_OK);
    assert_int_equal(t.size_bytes, 32);
    umo_buffer_release(t.buffer);
    rig_close(&r);
}

static void what_cannot_come_in_stays_the_callers(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    static producer p;
    umo_dl_import options;
    umo_dl_managed_versioned *m;
#define BAD(status_, words_, ...)                                                                  \
    do {                                                                                           \
        producer_init(&p);                                                                         \
        m = &p.managed;                                                                            \
        options = (umo_dl_import){.device = r.device, .scope = r.scope};                           \
        __VA_ARGS__;                                                                               \
        umo_tensor t_ = {.size_bytes = 77};                                                        \
        umo_error error_ = {0};                                                                    \
        umo_reason why_ = UMO_REASON_NONE;                                                         \
        assert_int_equal(umo_tensor_from_dlpack(m, &options, &t_, NULL, &why_, &error_), status_); \
        assert_non_null(strstr(error_.text, words_));                                              \
        assert_int_equal((status_) == UMO_E_REFUSED, why_ != UMO_REASON_NONE);                     \
        assert_int_equal(p.deleted, 0);                                                            \
        assert_int_equal(t_.size_bytes, 77);                                                       \
    } while (0)
    BAD(UMO_E_INVAL, "DLPack", m = NULL);
    BAD(UMO_E_UNSUPPORTED, "DLPack 2", m->version.major = 2);
    BAD(UMO_E_UNSUPPORTED, "DLPack 0", m->version.major = 0);
    BAD(UMO_E_INVAL, "device", options.device = NULL);
    BAD(UMO_E_INVAL, "scope", options.scope = NULL);
    BAD(UMO_E_INVAL, "forbids", m->flags = UMO_DL_READ_ONLY, options.writable = true);
    BAD(UMO_E_INVAL, "-1 dimension", m->tensor.ndim = -1);
    BAD(UMO_E_INVAL, "33 dimension", m->tensor.ndim = 33);
    BAD(UMO_E_INVAL, "dimension", m->tensor.shape = NULL);
    BAD(UMO_E_INVAL, "below 0", p.shape[1] = -1);
    BAD(UMO_E_INVAL, "too many", p.shape[0] = INT64_MAX, p.shape[1] = 2);
    BAD(UMO_E_INVAL, "too many", p.shape[0] = INT64_MAX / 2, p.shape[1] = 1);
    BAD(UMO_E_INVAL, "reach", p.strides[0] = INT64_MAX);
    BAD(UMO_E_UNSUPPORTED, "backwards", p.strides[1] = -1);
    BAD(UMO_E_INVAL, "memory", m->tensor.data = NULL);
    BAD(UMO_E_INVAL, "wraps", m->tensor.byte_offset = UINT64_MAX - 3);
    BAD(UMO_E_REFUSED, "multiple", m->tensor.byte_offset = 2);
    BAD(UMO_E_UNSUPPORTED, "2 lane", m->tensor.dtype.lanes = 2);
    BAD(UMO_E_UNSUPPORTED, "0 lane", m->tensor.dtype.lanes = 0);
    BAD(UMO_E_UNSUPPORTED, "complex", m->tensor.dtype = ((umo_dl_type){UMO_DL_COMPLEX, 64, 1}));
    BAD(UMO_E_UNSUPPORTED, "opaque", m->tensor.dtype = ((umo_dl_type){UMO_DL_OPAQUE, 64, 1}));
    BAD(UMO_E_UNSUPPORTED, "float8_e5m2 ", m->tensor.dtype = ((umo_dl_type){12, 8, 1}));
    BAD(UMO_E_UNSUPPORTED, "float4_e2m1fn", m->tensor.dtype = ((umo_dl_type){17, 4, 1}));
    BAD(UMO_E_UNSUPPORTED, "code 200", m->tensor.dtype = ((umo_dl_type){200, 8, 1}));
    BAD(UMO_E_UNSUPPORTED, "128 bits", m->tensor.dtype.bits = 128);
    BAD(UMO_E_UNSUPPORTED, "CUDA memory", m->tensor.device.type = UMO_DL_CUDA);
    BAD(UMO_E_UNSUPPORTED, "CUDA managed", m->tensor.device.type = UMO_DL_CUDA_MANAGED);
    BAD(UMO_E_UNSUPPORTED, "OpenCL", m->tensor.device.type = UMO_DL_OPENCL);
    BAD(UMO_E_UNSUPPORTED, "Metal", m->tensor.device.type = UMO_DL_METAL);
    BAD(UMO_E_UNSUPPORTED, "type 999", m->tensor.device.type = 999);
#undef BAD
    /* Pinned memory is the host's. */
    const int32_t pinned[] = {UMO_DL_CUDA_HOST, UMO_DL_ROCM_HOST};
    for (size_t i = 0; i < 2; i++) {
        producer_init(&p);
        p.managed.tensor.device.type = pinned[i];
        umo_tensor t;
        assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL),
                         UMO_OK);
        umo_buffer_release(t.buffer);
        assert_int_equal(p.deleted, 1);
    }
    rig_close(&r);
}

static void a_device_that_refuses_leaves_the_tensor_alone(void **state)
{
    (void)state;
    const wrapper_switches whole_pages = {
        .import_align_bytes = 4096, .import_size_align_bytes = 4096, .write_granule_bytes = 4096};
    rig r = rig_open(&whole_pages, NULL);
    static producer p;
    producer_init(&p);
    const umo_dl_import options = {.device = r.device, .scope = r.scope, .writable = true};
    umo_tensor t;
    umo_reason why = UMO_REASON_NONE;
    umo_error error = {0};
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, &why, &error),
                     UMO_E_REFUSED);
    assert_int_equal(why, UMO_REASON_PARTIAL_PAGE);
    assert_int_equal(p.deleted, 0);
    rig_close(&r);
}

/* ---- failures, fences and threads ---- */

static int fail_number;
static int fail_calls;

static bool fails_once(const char *entry)
{
    (void)entry;
    return ++fail_calls == fail_number;
}

/* Every driver call fails once; memory that runs out is swept by tests/fault. */
static void each_driver_call_may_fail(void **state)
{
    (void)state;
    for (fail_number = 1;; fail_number++) {
        rig r = rig_open(NULL, NULL);
        umo_tensor t = tensor_make(&r, UMO_PRIVATE, UMO_FP32, 2, 8);
        tensor_fill(&t);
        static producer p;
        producer_init(&p);
        fail_calls = 0;
        wrapper.fails = fails_once;
        const umo_dl_export out = {.side = UMO_SIDE_DEVICE};
        umo_dl_managed_versioned *m = NULL;
        umo_status exported = umo_tensor_to_dlpack(&t, &out, &m, NULL);
        const umo_dl_import options = {.device = r.device, .scope = r.scope};
        umo_tensor in;
        umo_status imported = umo_tensor_from_dlpack(&p.managed, &options, &in, NULL, NULL, NULL);
        wrapper.fails = NULL;
        assert_int_equal(exported == UMO_OK, m != NULL);
        if (m != NULL) {
            m->deleter(m);
        }
        if (imported == UMO_OK) {
            umo_buffer_release(in.buffer);
        }
        assert_int_equal(p.deleted, imported == UMO_OK ? 1 : 0);
        const bool none_left = fail_calls < fail_number;
        assert_true(!none_left || (exported == UMO_OK && imported == UMO_OK));
        assert_true(none_left || exported != UMO_OK || imported != UMO_OK);
        /* The tensor is as usable as before. */
        assert_int_equal(umo_tensor_to_dlpack(&t, NULL, &m, NULL), UMO_OK);
        assert_true(bytes_rise(m->tensor.data, 64, 64));
        m->deleter(m);
        umo_buffer_release(t.buffer);
        rig_close(&r);
        if (none_left) {
            assert_true(fail_number > 2);
            return;
        }
    }
}

static _Atomic bool kernel_ran;

static void kernel_slow(void *const *args, const size_t global[3])
{
    (void)global;
    kernel_ran = true;
    ((float *)args[0])[0] = 4711;
}

static void *release_main(void *buffer)
{
    umo_buffer_release(buffer);
    return NULL;
}

static void a_deleter_runs_behind_the_last_fence_on_whatever_thread(void **state)
{
    (void)state;
    const umo_driver_options late = {.delay_ns = 30000000};
    rig r = rig_open(NULL, &late);
    static const umo_host_kernel table[] = {{"slow", kernel_slow}, {NULL, NULL}};
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST, .text = table};
    umo_program *program = NULL;
    umo_kernel *kernel = NULL;
    assert_int_equal(umo_program_create(r.device, &source, &program, NULL), UMO_OK);
    assert_int_equal(umo_kernel_create(program, "slow", &kernel, NULL), UMO_OK);
    static producer p;
    producer_init(&p);
    const umo_dl_import options = {.device = r.device, .scope = r.scope, .writable = true};
    umo_tensor t;
    assert_int_equal(umo_tensor_from_dlpack(&p.managed, &options, &t, NULL, NULL, NULL), UMO_OK);
    const umo_access access = {
        .size_bytes = t.size_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE, .queue = 1};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(t.buffer, &access, &waits), UMO_OK);
    const umo_kernel_arg arg = {.kind = UMO_ARG_MEMORY,
                                .memory = umo_buffer_memory(t.buffer),
                                .offset_bytes = umo_buffer_memory_offset(t.buffer)};
    const umo_grid grid = {.dimensions = 1, .global = {1}};
    umo_fence done;
    assert_int_equal(umo_kernel_launch(kernel, 1, &arg, 1, &grid, NULL, 0, &done, NULL), UMO_OK);
    assert_int_equal(umo_access_end(t.buffer, &access, done), UMO_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, release_main, t.buffer), 0);
    while (p.deleted == 0) {
        (void)sched_yield();
    }
    assert_true(kernel_ran);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(pthread_equal(p.deleter_thread, thread));
    assert_int_equal(p.deleted, 1);
    assert_true(p.data[0] == 4711.0F);
    umo_kernel_destroy(kernel);
    umo_program_destroy(program);
    rig_close(&r);
}

typedef struct worker {
    const rig *r;
    const umo_tensor *shared;
    int wrong;
} worker;

static void *worker_main(void *argument)
{
    worker *w = argument;
    const umo_dl_export reading = {.read_only = true};
    const umo_dl_import options = {.device = w->r->device, .scope = w->r->scope};
    for (int i = 0; i < 500; i++) {
        umo_dl_managed_versioned *m = NULL;
        if (umo_tensor_to_dlpack(w->shared, &reading, &m, NULL) != UMO_OK) {
            w->wrong++;
            continue;
        }
        w->wrong += bytes_rise(m->tensor.data, 60, 64) ? 0 : 1;
        umo_tensor in;
        if (i % 2 == 0) {
            m->deleter(m);
        } else if (umo_tensor_from_dlpack(m, &options, &in, NULL, NULL, NULL) == UMO_OK) {
            umo_buffer_release(in.buffer);
        } else {
            w->wrong++;
        }
    }
    return NULL;
}

static void threads_share_a_tensor(void **state)
{
    (void)state;
    rig r = rig_open(NULL, NULL);
    umo_tensor t = tensor_make(&r, UMO_UNIFIED, UMO_FP32, 3, 5);
    tensor_fill(&t);
    worker workers[4];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        workers[i] = (worker){.r = &r, .shared = &t};
        assert_int_equal(pthread_create(&threads[i], NULL, worker_main, &workers[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(workers[i].wrong, 0);
    }
    umo_buffer_release(t.buffer);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_export_shows_the_tensor_and_holds_its_buffer),
        cmocka_unit_test(a_writable_export_keeps_others_out_and_takes_the_bytes),
        cmocka_unit_test(each_side_of_each_mode_has_the_bytes),
        cmocka_unit_test(what_cannot_go_out_is_refused),
        cmocka_unit_test(a_device_s_memory_goes_out_as_what_it_is),
        cmocka_unit_test(an_empty_tensor_holds_nothing),
        cmocka_unit_test(an_import_lies_where_its_producer_put_it),
        cmocka_unit_test(the_form_of_0_x_is_taken_too),
        cmocka_unit_test(every_element_type_goes_out_and_comes_in),
        cmocka_unit_test(ones_own_tensor_comes_back_itself),
        cmocka_unit_test(a_scalar_and_odd_strides_of_ones_are_fine),
        cmocka_unit_test(what_cannot_come_in_stays_the_callers),
        cmocka_unit_test(a_device_that_refuses_leaves_the_tensor_alone),
        cmocka_unit_test(each_driver_call_may_fail),
        cmocka_unit_test(a_deleter_runs_behind_the_last_fence_on_whatever_thread),
        cmocka_unit_test(threads_share_a_tensor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

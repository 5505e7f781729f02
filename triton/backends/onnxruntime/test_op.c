/*
 * A library of custom operators, for tests: what op_library_filename names. As the backend itself
 * it needs no header of ONNX Runtime: a few slots of its table, and the oldest form of an
 * operator's description, which every release reads.
 *
 *   umo.test:Triple    X float -> Y = 3 X
 *   umo.test:ReadsOn   X float -> Y = X, after a look at the 16 bytes behind X
 */
#include "ort_api.h"

#include <stddef.h>

enum {
    DESCRIPTION_VERSION = 8,
    REQUIRED = 0,
    READS_ON_BYTES = 16
};

typedef struct OrtCustomOpDomain op_domain;
typedef struct OrtKernelContext op_context;
typedef void (*op_slot)(void);

typedef struct op_base {
    const op_slot *(*get_api)(uint32_t version);
    const char *(*get_version)(void);
} op_base;

typedef struct op_description op_description;
struct op_description {
    uint32_t version;
    void *(*create)(const op_description *self, const void *api, const void *info);
    const char *(*name)(const op_description *self);
    const char *(*provider)(const op_description *self);
    int (*input_type)(const op_description *self, size_t index);
    size_t (*input_count)(const op_description *self);
    int (*output_type)(const op_description *self, size_t index);
    size_t (*output_count)(const op_description *self);
    void (*compute)(void *kernel, op_context *context);
    void (*destroy)(void *kernel);
    int (*input_need)(const op_description *self, size_t index);
    int (*output_need)(const op_description *self, size_t index);
};

/* OP_SLOT(number, name, parameters) */
#define OP_SLOTS(OP_SLOT)                                                                          \
    OP_SLOT(26, create_domain, (const char *name, op_domain **))                                   \
    OP_SLOT(27, add_op, (op_domain *, const op_description *))                                     \
    OP_SLOT(28, add_domain, (ort_session_options *, op_domain *))                                  \
    OP_SLOT(51, tensor_data, (ort_value *, void **))                                               \
    OP_SLOT(61, tensor_rank, (const ort_tensor_info *, size_t *))                                  \
    OP_SLOT(62, tensor_dims, (const ort_tensor_info *, int64_t *, size_t rank))                    \
    OP_SLOT(65, value_info, (const ort_value *, ort_tensor_info **))                               \
    OP_SLOT(90, context_input, (const op_context *, size_t index, const ort_value **))             \
    OP_SLOT(91, context_output,                                                                    \
            (op_context *, size_t index, const int64_t *dims, size_t rank, ort_value **))

static struct {
#define OP_MEMBER(number, name, parameters) ort_status *(*name)parameters;
    OP_SLOTS(OP_MEMBER)
#undef OP_MEMBER
    void (*release_info)(ort_tensor_info *);
} api;

/* The input, an output of its shape, and how many elements they have; false when a call fails. */
static bool tensors_take(op_context *context, const float **x, float **y, size_t *count)
{
    const ort_value *input = NULL;
    ort_value *output = NULL;
    ort_tensor_info *info = NULL;
    int64_t dims[16];
    size_t rank = 0;
    void *data = NULL;
    if (api.context_input(context, 0, &input) != NULL || api.value_info(input, &info) != NULL) {
        return false;
    }
    bool good = api.tensor_rank(info, &rank) == NULL && rank <= 16 &&
                api.tensor_dims(info, dims, rank) == NULL &&
                api.context_output(context, 0, dims, rank, &output) == NULL &&
                api.tensor_data((ort_value *)(uintptr_t)input, &data) == NULL;
    api.release_info(info);
    if (!good) {
        return false;
    }
    *x = data;
    *count = 1;
    for (size_t d = 0; d < rank; d++) {
        *count *= (size_t)dims[d];
    }
    if (api.tensor_data(output, &data) != NULL) {
        return false;
    }
    *y = data;
    return true;
}

static void triple(void *kernel, op_context *context)
{
    (void)kernel;
    const float *x = NULL;
    float *y = NULL;
    size_t count = 0;
    if (!tensors_take(context, &x, &y, &count)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        y[i] = 3 * x[i];
    }
}

static void read_on(void *kernel, op_context *context)
{
    (void)kernel;
    const float *x = NULL;
    float *y = NULL;
    size_t count = 0;
    if (!tensors_take(context, &x, &y, &count)) {
        return;
    }
    const volatile char *behind = (const volatile char *)(x + count);
    for (size_t i = 0; i < READS_ON_BYTES; i++) {
        (void)behind[i];
    }
    for (size_t i = 0; i < count; i++) {
        y[i] = x[i];
    }
}

static void *create(const op_description *self, const void *table, const void *info)
{
    (void)table;
    (void)info;
    return (void *)(uintptr_t)self;
}

static void destroy(void *kernel)
{
    (void)kernel;
}

static const char *no_provider(const op_description *self)
{
    (void)self;
    return NULL; /* the CPU */
}

static int floats(const op_description *self, size_t index)
{
    (void)self;
    (void)index;
    return ORT_ELEMENT_FLOAT;
}

static size_t single(const op_description *self)
{
    (void)self;
    return 1;
}

static int required(const op_description *self, size_t index)
{
    (void)self;
    (void)index;
    return REQUIRED;
}

static const char *triple_name(const op_description *self)
{
    (void)self;
    return "Triple";
}

static const char *read_on_name(const op_description *self)
{
    (void)self;
    return "ReadsOn";
}

#define OP(name_function, compute_function)                                                        \
    {                                                                                              \
        .version = DESCRIPTION_VERSION, .create = create, .name = (name_function),                 \
        .provider = no_provider, .input_type = floats, .input_count = single,                      \
        .output_type = floats, .output_count = single, .compute = (compute_function),              \
        .destroy = destroy, .input_need = required, .output_need = required                        \
    }

static const op_description ops[] = {OP(triple_name, triple), OP(read_on_name, read_on)};

/** What ONNX Runtime looks up in such a library. */
__attribute__((visibility("default"))) ort_status *RegisterCustomOps(ort_session_options *options,
                                                                     const op_base *base);
ort_status *RegisterCustomOps(ort_session_options *options, const op_base *base)
{
    const op_slot *table = base->get_api(ORT_TABLE_VERSION);
#define OP_TAKE(number, name, parameters) api.name = (ort_status * (*)parameters) table[number];
    OP_SLOTS(OP_TAKE)
#undef OP_TAKE
    api.release_info = (void (*)(ort_tensor_info *))table[99];
    op_domain *domain = NULL;
    ort_status *failed = api.create_domain("umo.test", &domain);
    for (size_t i = 0; failed == NULL && i < sizeof ops / sizeof ops[0]; i++) {
        failed = api.add_op(domain, &ops[i]);
    }
    return failed == NULL ? api.add_domain(options, domain) : failed; /* the process keeps it */
}

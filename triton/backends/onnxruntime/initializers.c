/*
 * Walks a model's structure for its tensors: the main graph's constants to share them, all others
 * to know which names they take and which files they come from.
 *
 * A constant is taken only when everything about it is as it should be. Whatever is not is left to
 * the engine, which refuses it in its own words or reads it in its own way.
 */
#include "initializers.h"

#include "ort_api.h"
#include "proto.h"
#include "tensor.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Field numbers of ONNX. */
enum {
    MODEL_GRAPH = 7,
    MODEL_FUNCTION = 25,
    FUNCTION_NODE = 7,
    GRAPH_NODE = 1,
    GRAPH_INITIALIZER = 5,
    GRAPH_INPUT = 11,
    VALUE_NAME = 1,
    NODE_OUTPUT = 2,
    NODE_ATTRIBUTE = 5,
    ATTRIBUTE_TENSOR = 5,
    ATTRIBUTE_GRAPH = 6,
    ATTRIBUTE_TENSORS = 10,
    ATTRIBUTE_GRAPHS = 11,
    TENSOR_DIMS = 1,
    TENSOR_TYPE = 2,
    TENSOR_SEGMENT = 3,
    TENSOR_NAME = 8,
    TENSOR_RAW = 9,
    TENSOR_EXTERNAL = 13,
    TENSOR_LOCATION = 14,
    ENTRY_KEY = 1,
    ENTRY_VALUE = 2
};

enum {
    DEPTH_MAX = 64,
    NAME_BYTES_MAX = 4096,
    PATH_BYTES = 4096
};

/* A tensor as the file tells it. */
typedef struct tensor {
    proto_span name;
    umo_shape shape;
    int type;
    bool odd; /* too many dimensions, or in segments */
    bool external;
    proto_span raw;
    proto_span location; /* of external data: a path inside the model's folder */
    proto_span offset;
    proto_span length;
} tensor;

typedef struct reader {
    const char *path;
    umo_scope *scope;
    uint32_t flags;
    size_t least_bytes;
    ort_initializers *out;
    umo_error *error;
    proto_span locations[ORT_WEIGHT_FILES_MAX]; /* of the files; the model's own has none */
    proto_span *names; /* that anything defines: initializers, and all of inner graphs */
    size_t name_count;
    size_t name_capacity;
    size_t capacity; /* of out->list */
} reader;

/* What a walk ends with: the file is no ONNX, which is the engine's to say. */
static umo_status malformed(void)
{
    return UMO_E_UNSUPPORTED;
}

static umo_status no_memory(reader *r)
{
    return umo_error_set(r->error, UMO_E_NOMEM, 0, "no memory to read the model's weights");
}

static umo_status add_name(reader *r, proto_span name)
{
    if (name.size_bytes == 0) {
        return UMO_OK;
    }
    if (r->name_count == r->name_capacity) {
        size_t capacity = r->name_capacity == 0 ? 64 : 2 * r->name_capacity;
        proto_span *grown = realloc(r->names, capacity * sizeof *grown);
        if (grown == NULL) {
            return no_memory(r);
        }
        r->names = grown;
        r->name_capacity = capacity;
    }
    r->names[r->name_count++] = name;
    return UMO_OK;
}

static bool add_dim(tensor *t, uint64_t dim)
{
    if (t->shape.rank == UMO_RANK_MAX || dim > INT64_MAX) {
        t->odd = true;
        return true;
    }
    t->shape.dims[t->shape.rank++] = (int64_t)dim;
    return true;
}

static bool read_dims(tensor *t, proto_span packed)
{
    uint64_t dim;
    while (packed.size_bytes > 0) {
        if (!proto_take_varint(&packed, &dim) || !add_dim(t, dim)) {
            return false;
        }
    }
    return true;
}

static bool read_entry(tensor *t, proto_span body)
{
    proto_span key = {0};
    proto_span value = {0};
    proto_field f;
    while (body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return false;
        }
        if (f.is_bytes && f.number == ENTRY_KEY) {
            key = f.bytes;
        } else if (f.is_bytes && f.number == ENTRY_VALUE) {
            value = f.bytes;
        }
    }
    /* `checksum` is not looked at: the engine does not either, and whoever can change the data can
     * change the model. */
    if (proto_is(key, "location")) {
        t->location = value;
    } else if (proto_is(key, "offset")) {
        t->offset = value;
    } else if (proto_is(key, "length")) {
        t->length = value;
    }
    return true;
}

static bool read_tensor(proto_span body, tensor *out)
{
    proto_field f;
    *out = (tensor){0};
    while (body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return false;
        }
        if (f.number == TENSOR_DIMS && !(f.is_varint  ? add_dim(out, f.value)
                                         : f.is_bytes ? read_dims(out, f.bytes)
                                                      : false)) {
            return false;
        }
        if (f.is_varint && f.number == TENSOR_TYPE) {
            out->type = f.value < 256 ? (int)f.value : 0;
        } else if (f.is_varint && f.number == TENSOR_LOCATION) {
            out->external = f.value == 1;
        } else if (f.is_bytes && f.number == TENSOR_SEGMENT) {
            out->odd = true;
        } else if (f.is_bytes && f.number == TENSOR_NAME) {
            out->name = f.bytes;
        } else if (f.is_bytes && f.number == TENSOR_RAW) {
            out->raw = f.bytes;
        } else if (f.is_bytes && f.number == TENSOR_EXTERNAL && !read_entry(out, f.bytes)) {
            return false;
        }
    }
    return true;
}

/* A relative path that never leaves the folder it starts from. */
static bool stays_inside(const char *location)
{
    int depth = 0;
    if (location[0] == '/') {
        return false;
    }
    for (const char *at = location; *at != '\0';) {
        size_t length = strcspn(at, "/");
        if (length == 2 && memcmp(at, "..", 2) == 0) {
            depth -= 1;
        } else if (length > 0 && !(length == 1 && at[0] == '.')) {
            depth += 1;
        }
        if (depth < 0) {
            return false;
        }
        at += length + (at[length] == '/' ? 1 : 0);
    }
    return true;
}

/* Which of the files a location names; file_count when it cannot be opened. */
static umo_status find_file(reader *r, const tensor *t, size_t *file)
{
    ort_initializers *out = r->out;
    for (size_t i = out->file_count; i-- > 1;) {
        if (proto_equal(r->locations[i], t->location)) {
            *file = i;
            return UMO_OK;
        }
    }
    *file = out->file_count;
    const char *slash = strrchr(r->path, '/');
    int folder_bytes = slash != NULL ? (int)(slash - r->path) + 1 : 0;
    char location[PATH_BYTES];
    char path[2 * PATH_BYTES];
    if (t->location.size_bytes == 0 || t->location.size_bytes >= sizeof location ||
        memchr(t->location.at, '\0', t->location.size_bytes) != NULL ||
        folder_bytes >= PATH_BYTES) {
        out->complete = false;
        return UMO_OK;
    }
    memcpy(location, t->location.at, t->location.size_bytes);
    location[t->location.size_bytes] = '\0';
    if (!stays_inside(location)) {
        return umo_error_set(r->error, UMO_E_INVAL, 0,
                             "the external data of tensor '%.*s' lies outside of the model's "
                             "folder: %s",
                             (int)(t->name.size_bytes < 64 ? t->name.size_bytes : 64),
                             t->name.size_bytes > 0 ? (const char *)t->name.at : "", location);
    }
    (void)snprintf(path, sizeof path, "%.*s%s", folder_bytes, r->path, location);
    umo_weights *opened = NULL;
    if (out->file_count == ORT_WEIGHT_FILES_MAX ||
        umo_weights_open(path, r->scope, r->flags, &opened, NULL) != UMO_OK) {
        out->complete = false;
        return UMO_OK;
    }
    r->locations[out->file_count] = t->location;
    out->files[out->file_count++] = opened;
    return UMO_OK;
}

static bool read_decimal(proto_span text, size_t absent, size_t *out)
{
    size_t value = 0;
    if (text.size_bytes == 0) {
        *out = absent;
        return true;
    }
    for (size_t i = 0; i < text.size_bytes; i++) {
        unsigned digit = (unsigned)text.at[i] - '0';
        if (digit > 9 || __builtin_mul_overflow(value, (size_t)10, &value) ||
            __builtin_add_overflow(value, (size_t)digit, &value)) {
            return false;
        }
    }
    *out = value;
    return true;
}

/* Where the tensor's bytes lie. False when they are not there in full, or not as they should be. */
static bool locate(const reader *r, const tensor *t, size_t file, ort_initializer *out)
{
    uint64_t size_bytes;
    umo_dtype dtype = ort_dtype_from_element(t->type);
    if (t->odd || dtype == UMO_DTYPE_INVALID || dtype == UMO_BYTES ||
        umo_shape_bytes(&t->shape, dtype, &size_bytes) != UMO_OK || size_bytes < r->least_bytes ||
        size_bytes > SIZE_MAX || t->name.size_bytes == 0 || t->name.size_bytes > NAME_BYTES_MAX ||
        memchr(t->name.at, '\0', t->name.size_bytes) != NULL) {
        return false;
    }
    *out = (ort_initializer){
        .element = t->type, .shape = t->shape, .file = file, .size_bytes = (size_t)size_bytes};
    if (!t->external) {
        if (t->raw.size_bytes != out->size_bytes) {
            return false;
        }
        out->offset_bytes =
            (size_t)(t->raw.at - (const unsigned char *)umo_weights_data(r->out->files[0]));
        return true;
    }
    size_t length;
    size_t limit = umo_weights_size(r->out->files[file]);
    return read_decimal(t->offset, 0, &out->offset_bytes) &&
           read_decimal(t->length, out->size_bytes, &length) && length == out->size_bytes &&
           out->offset_bytes <= limit && length <= limit - out->offset_bytes;
}

static umo_status add_initializer(reader *r, const tensor *t, const ort_initializer *located)
{
    ort_initializers *out = r->out;
    if (out->count == r->capacity) {
        size_t capacity = r->capacity == 0 ? 64 : 2 * r->capacity;
        ort_initializer *grown = realloc(out->list, capacity * sizeof *grown);
        if (grown == NULL) {
            return no_memory(r);
        }
        out->list = grown;
        r->capacity = capacity;
    }
    ort_initializer *made = &out->list[out->count];
    *made = *located;
    assert(t->name.at != NULL);
    made->name = strndup((const char *)t->name.at, t->name.size_bytes);
    if (made->name == NULL) {
        return no_memory(r);
    }
    out->count += 1;
    return UMO_OK;
}

/* Any tensor: its file belongs to the model; one of the main graph's may be shared. */
static umo_status visit_tensor(reader *r, proto_span body, bool shareable)
{
    tensor t;
    size_t file = 0;
    ort_initializer located;
    if (!read_tensor(body, &t)) {
        return malformed();
    }
    if (t.external) {
        umo_status status = find_file(r, &t, &file);
        if (status != UMO_OK) {
            return status;
        }
    }
    if (!shareable || file == r->out->file_count || !locate(r, &t, file, &located)) {
        return UMO_OK;
    }
    return add_initializer(r, &t, &located);
}

/* A message's name field. */
static bool read_name(proto_span body, unsigned number, proto_span *out)
{
    proto_field f;
    *out = (proto_span){0};
    while (body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return false;
        }
        if (f.is_bytes && f.number == number) {
            *out = f.bytes;
        }
    }
    return true;
}

static umo_status visit_graph(reader *r, proto_span body, int depth);

static umo_status visit_attribute(reader *r, proto_span body, int depth)
{
    proto_field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return malformed();
        }
        if (!f.is_bytes) {
            continue;
        }
        if (f.number == ATTRIBUTE_GRAPH || f.number == ATTRIBUTE_GRAPHS) {
            status = visit_graph(r, f.bytes, depth + 1);
        } else if (f.number == ATTRIBUTE_TENSOR || f.number == ATTRIBUTE_TENSORS) {
            status = visit_tensor(r, f.bytes, false);
        }
    }
    return status;
}

static umo_status visit_node(reader *r, proto_span body, int depth)
{
    proto_field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return malformed();
        }
        if (f.is_bytes && f.number == NODE_OUTPUT && depth > 0) {
            status = add_name(r, f.bytes);
        } else if (f.is_bytes && f.number == NODE_ATTRIBUTE) {
            status = visit_attribute(r, f.bytes, depth);
        }
    }
    return status;
}

static umo_status visit_graph(reader *r, proto_span body, int depth)
{
    proto_field f;
    proto_span name;
    umo_status status = UMO_OK;
    if (depth > DEPTH_MAX) {
        return malformed();
    }
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return malformed();
        }
        if (!f.is_bytes) {
            continue;
        }
        if (f.number == GRAPH_NODE) {
            status = visit_node(r, f.bytes, depth);
        } else if (f.number == GRAPH_INITIALIZER) {
            status = read_name(f.bytes, TENSOR_NAME, &name) ? add_name(r, name) : malformed();
            if (status == UMO_OK) {
                status = visit_tensor(r, f.bytes, depth == 0);
            }
        } else if (f.number == GRAPH_INPUT && depth > 0) {
            status = read_name(f.bytes, VALUE_NAME, &name) ? add_name(r, name) : malformed();
        }
    }
    return status;
}

static umo_status visit_model(reader *r)
{
    const umo_weights *file = r->out->files[0];
    proto_span body = {umo_weights_data(file), umo_weights_size(file)};
    proto_field f;
    umo_status status = UMO_OK;
    while (status == UMO_OK && body.size_bytes > 0) {
        if (!proto_take_field(&body, &f)) {
            return malformed();
        }
        if (f.is_bytes && f.number == MODEL_GRAPH) {
            status = visit_graph(r, f.bytes, 0);
        } else if (f.is_bytes && f.number == MODEL_FUNCTION) {
            proto_field inner;
            proto_span function = f.bytes;
            while (status == UMO_OK && function.size_bytes > 0) {
                if (!proto_take_field(&function, &inner)) {
                    return malformed();
                }
                if (inner.is_bytes && inner.number == FUNCTION_NODE) {
                    status = visit_node(r, inner.bytes, 1);
                }
            }
        }
    }
    return status;
}

static int compare_spans(const void *left, const void *right)
{
    const proto_span *a = left;
    const proto_span *b = right;
    if (a->size_bytes != b->size_bytes) {
        return a->size_bytes < b->size_bytes ? -1 : 1;
    }
    return memcmp(a->at, b->at, a->size_bytes);
}

/* Takes out what has the name of something else. */
static void drop_ambiguous(reader *r)
{
    ort_initializers *out = r->out;
    size_t kept = 0;
    if (r->name_count == 0) {
        return; /* and no initializer, as each has its name there */
    }
    qsort(r->names, r->name_count, sizeof *r->names, compare_spans);
    for (size_t i = 0; i < out->count; i++) {
        const proto_span name = {(const unsigned char *)out->list[i].name,
                                 strlen(out->list[i].name)};
        const proto_span *found =
            bsearch(&name, r->names, r->name_count, sizeof *r->names, compare_spans);
        bool twice = (found > r->names && proto_equal(found[-1], name)) ||
                     (found + 1 < r->names + r->name_count && proto_equal(found[1], name));
        if (twice) {
            free(out->list[i].name);
        } else {
            out->list[kept++] = out->list[i];
        }
    }
    out->count = kept;
}

static void drop_all(ort_initializers *out)
{
    for (size_t i = 0; i < out->count; i++) {
        free(out->list[i].name);
    }
    free(out->list);
    out->list = NULL;
    out->count = 0;
}

umo_status ort_initializers_read(const char *path, umo_scope *scope, uint32_t flags,
                                 size_t least_bytes, ort_initializers *out, umo_error *error)
{
    *out = (ort_initializers){.complete = true};
    umo_status status = umo_weights_open(path, scope, flags, &out->files[0], error);
    if (status != UMO_OK) {
        out->complete = false;
        return status == UMO_E_NOMEM ? status : UMO_OK;
    }
    out->file_count = 1;
    reader r = {.path = path,
                .scope = scope,
                .flags = flags,
                .least_bytes = least_bytes,
                .out = out,
                .error = error};
    status = visit_model(&r);
    if (status == UMO_OK) {
        drop_ambiguous(&r);
    }
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    drop_all(out); /* the files have their lowest byte first */
#endif
    if (status == UMO_E_UNSUPPORTED) {
        drop_all(out);
        out->complete = false;
        status = UMO_OK;
    }
    free(r.names);
    return status;
}

void ort_initializers_finish(ort_initializers *initializers)
{
    drop_all(initializers);
    for (size_t i = 0; i < initializers->file_count; i++) {
        umo_weights_release(initializers->files[i]);
    }
    *initializers = (ort_initializers){0};
}

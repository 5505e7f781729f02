/*
 * Element types: one table row a type, in the order of the enumeration, so that size, name and
 * class cannot disagree.
 */
#include <umo/tensor.h>

#include <string.h>

typedef struct dtype_row {
    const char *name;
    uint8_t size_bytes;
    bool control;
} dtype_row;

static const dtype_row dtype_rows[UMO_DTYPES] = {
    [UMO_DTYPE_INVALID] = {"INVALID", 0, false},
    [UMO_BOOL] = {"BOOL", 1, true},
    [UMO_UINT8] = {"UINT8", 1, false},
    [UMO_UINT16] = {"UINT16", 2, false},
    [UMO_UINT32] = {"UINT32", 4, true},
    [UMO_UINT64] = {"UINT64", 8, true},
    [UMO_INT8] = {"INT8", 1, false},
    [UMO_INT16] = {"INT16", 2, false},
    [UMO_INT32] = {"INT32", 4, true},
    [UMO_INT64] = {"INT64", 8, true},
    [UMO_FP16] = {"FP16", 2, false},
    [UMO_FP32] = {"FP32", 4, false},
    [UMO_FP64] = {"FP64", 8, false},
    [UMO_BYTES] = {"BYTES", 0, true},
    [UMO_BF16] = {"BF16", 2, false},
};

/* Any number may come in from a wire or a configuration; what is no type behaves like
 * UMO_DTYPE_INVALID. */
static const dtype_row *dtype_find(umo_dtype dtype)
{
    return &dtype_rows[(unsigned)dtype < UMO_DTYPES ? dtype : UMO_DTYPE_INVALID];
}

size_t umo_dtype_size(umo_dtype dtype)
{
    return dtype_find(dtype)->size_bytes;
}

const char *umo_dtype_name(umo_dtype dtype)
{
    return dtype_find(dtype)->name;
}

umo_dtype umo_dtype_parse(const char *name)
{
    static const char prefix[] = "TYPE_";
    if (name == NULL) {
        return UMO_DTYPE_INVALID;
    }
    if (strncmp(name, prefix, sizeof prefix - 1) == 0) {
        name += sizeof prefix - 1;
    }
    if (strcmp(name, "STRING") == 0) {
        return UMO_BYTES;
    }
    for (unsigned i = UMO_DTYPE_INVALID + 1; i < UMO_DTYPES; i++) {
        if (strcmp(name, dtype_rows[i].name) == 0) {
            return (umo_dtype)i;
        }
    }
    return UMO_DTYPE_INVALID;
}

bool umo_dtype_is_control(umo_dtype dtype)
{
    return dtype_find(dtype)->control;
}

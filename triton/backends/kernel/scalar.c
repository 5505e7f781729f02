/*
 * Scalar arguments: one table row a type, in the order of the enumeration.
 */
#include "description.h"

#include <string.h>

typedef struct scalar_row {
    const char *name;
    const char *opencl_name;
    size_t size_bytes;
    int64_t min; /* integers: what fits of 64 bits with a sign */
    int64_t max;
} scalar_row;

static const scalar_row scalar_rows[UMO_SCALAR_COUNT] = {
    [UMO_SCALAR_INT8] = {"int8", "char", 1, INT8_MIN, INT8_MAX},
    [UMO_SCALAR_UINT8] = {"uint8", "uchar", 1, 0, UINT8_MAX},
    [UMO_SCALAR_INT16] = {"int16", "short", 2, INT16_MIN, INT16_MAX},
    [UMO_SCALAR_UINT16] = {"uint16", "ushort", 2, 0, UINT16_MAX},
    [UMO_SCALAR_INT32] = {"int32", "int", 4, INT32_MIN, INT32_MAX},
    [UMO_SCALAR_UINT32] = {"uint32", "uint", 4, 0, UINT32_MAX},
    [UMO_SCALAR_INT64] = {"int64", "long", 8, INT64_MIN, INT64_MAX},
    [UMO_SCALAR_UINT64] = {"uint64", "ulong", 8, 0, INT64_MAX},
    /* Every integer up to 2^24 or 2^53 is a value of its own. */
    [UMO_SCALAR_FLOAT32] = {"float32", "float", 4, -(INT64_C(1) << 24), INT64_C(1) << 24},
    [UMO_SCALAR_FLOAT64] = {"float64", "double", 8, -(INT64_C(1) << 53), INT64_C(1) << 53},
};

const char *umo_scalar_name(umo_scalar_type type)
{
    return scalar_rows[type].name;
}

umo_scalar_type umo_scalar_parse(const char *name)
{
    unsigned i = 0;
    while (i < UMO_SCALAR_COUNT && strcmp(scalar_rows[i].name, name) != 0 &&
           strcmp(scalar_rows[i].opencl_name, name) != 0) {
        i++;
    }
    return (umo_scalar_type)i;
}

size_t umo_scalar_size(umo_scalar_type type)
{
    return scalar_rows[type].size_bytes;
}

bool umo_scalar_from_integer(umo_scalar_type type, int64_t value, umo_scalar *out)
{
    if (value < scalar_rows[type].min || value > scalar_rows[type].max) {
        return false;
    }
    *out = (umo_scalar){.u64 = 0};
    switch (type) {
    case UMO_SCALAR_INT8:
        out->i8 = (int8_t)value;
        break;
    case UMO_SCALAR_UINT8:
        out->u8 = (uint8_t)value;
        break;
    case UMO_SCALAR_INT16:
        out->i16 = (int16_t)value;
        break;
    case UMO_SCALAR_UINT16:
        out->u16 = (uint16_t)value;
        break;
    case UMO_SCALAR_INT32:
        out->i32 = (int32_t)value;
        break;
    case UMO_SCALAR_UINT32:
        out->u32 = (uint32_t)value;
        break;
    case UMO_SCALAR_INT64:
        out->i64 = value;
        break;
    case UMO_SCALAR_UINT64:
        out->u64 = (uint64_t)value;
        break;
    case UMO_SCALAR_FLOAT32:
        out->f32 = (float)value;
        break;
    case UMO_SCALAR_FLOAT64:
        out->f64 = (double)value;
        break;
    case UMO_SCALAR_COUNT:
        return false;
    }
    return true;
}

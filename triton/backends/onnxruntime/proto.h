/**
 * @file proto.h
 * The few lines that read a protobuf message: field by field, with nothing copied and nothing read
 * past the end. What does not parse is reported, never guessed.
 */
#ifndef UMO_ORT_PROTO_H
#define UMO_ORT_PROTO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/** Bytes of the file; nothing here is ended by a zero. */
typedef struct proto_span {
    const unsigned char *at;
    size_t size_bytes;
} proto_span;

/** One field of a message: a number, or bytes. */
typedef struct proto_field {
    unsigned number;
    bool is_bytes;
    bool is_varint;
    uint64_t value; /**< of a varint */
    proto_span bytes;
} proto_field;

static inline bool proto_take_varint(proto_span *from, uint64_t *out)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        if (from->size_bytes == 0) {
            return false;
        }
        unsigned char byte = *from->at;
        from->at += 1;
        from->size_bytes -= 1;
        value |= (uint64_t)(byte & 0x7F) << shift;
        if ((byte & 0x80) == 0) {
            *out = value;
            return true;
        }
    }
    return false;
}

static inline bool proto_take_bytes(proto_span *from, uint64_t size_bytes, proto_span *out)
{
    if (size_bytes > from->size_bytes) {
        return false;
    }
    *out = (proto_span){from->at, (size_t)size_bytes};
    from->at += size_bytes;
    from->size_bytes -= (size_t)size_bytes;
    return true;
}

/** Takes the next field off a message; false when what is left is none. */
static inline bool proto_take_field(proto_span *from, proto_field *out)
{
    enum {
        VARINT = 0,
        FIXED64 = 1,
        BYTES = 2,
        FIXED32 = 5
    };
    uint64_t key;
    uint64_t value;
    proto_span skipped;
    if (!proto_take_varint(from, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX) {
        return false;
    }
    *out = (proto_field){.number = (unsigned)(key >> 3),
                         .is_bytes = (key & 7) == BYTES,
                         .is_varint = (key & 7) == VARINT};
    switch (key & 7) {
    case VARINT:
        return proto_take_varint(from, &out->value);
    case FIXED64:
        return proto_take_bytes(from, 8, &skipped);
    case BYTES:
        return proto_take_varint(from, &value) && proto_take_bytes(from, value, &out->bytes);
    case FIXED32:
        return proto_take_bytes(from, 4, &skipped);
    default: /* groups, which ONNX does not use */
        return false;
    }
}

static inline bool proto_equal(proto_span a, proto_span b)
{
    return a.size_bytes == b.size_bytes &&
           (a.size_bytes == 0 || memcmp(a.at, b.at, a.size_bytes) == 0);
}

static inline bool proto_is(proto_span a, const char *text)
{
    return proto_equal(a, (proto_span){(const unsigned char *)text, strlen(text)});
}

#endif

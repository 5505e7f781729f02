/*
 * BYTES tensors: elements of a 4-byte little-endian length and that many bytes, one behind the
 * other. The lengths come from a client, so each is compared with what is left, and a message never
 * repeats one: it may be content.
 */
#include <umo/tensor.h>

#include <inttypes.h>

#define LENGTH_BYTES 4u

/* volatile: the memory may be shared with a client who writes to it, so that a second read could
 * give another length than the one that was checked. */
static uint32_t length_read(const volatile unsigned char *bytes)
{
    return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
           (uint32_t)bytes[3] << 24;
}

umo_status umo_bytes_next(const void *data, size_t size_bytes, size_t *cursor, const void **element,
                          size_t *element_bytes)
{
    if (*cursor > size_bytes) {
        return UMO_E_INVAL;
    }
    const size_t left_bytes = size_bytes - *cursor;
    if (left_bytes == 0) {
        return UMO_E_NOT_FOUND;
    }
    if (data == NULL || left_bytes < LENGTH_BYTES) {
        return UMO_E_INVAL;
    }
    const unsigned char *start = (const unsigned char *)data + *cursor;
    const size_t length_bytes = length_read(start);
    if (length_bytes > left_bytes - LENGTH_BYTES) {
        return UMO_E_INVAL;
    }
    *element = start + LENGTH_BYTES;
    *element_bytes = length_bytes;
    *cursor += LENGTH_BYTES + length_bytes;
    return UMO_OK;
}

umo_status umo_bytes_check(const void *data, size_t size_bytes, uint64_t count, umo_error *error)
{
    size_t cursor = 0;
    for (uint64_t i = 0; i < count; i++) {
        const void *element;
        size_t element_bytes;
        umo_status status = umo_bytes_next(data, size_bytes, &cursor, &element, &element_bytes);
        if (status == UMO_E_NOT_FOUND) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "the BYTES tensor holds %" PRIu64 " of %" PRIu64 " elements", i,
                                 count);
        }
        if (status != UMO_OK) {
            return umo_error_set(error, UMO_E_INVAL, 0,
                                 "element %" PRIu64 " of the BYTES tensor, at byte %zu, runs past "
                                 "its end at byte %zu",
                                 i, cursor, size_bytes);
        }
    }
    if (cursor != size_bytes) {
        return umo_error_set(error, UMO_E_INVAL, 0,
                             "the BYTES tensor has %zu bytes behind its %" PRIu64 " elements",
                             size_bytes - cursor, count);
    }
    return UMO_OK;
}

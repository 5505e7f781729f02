/*
 * What the second translation unit of the tests offers; it includes the same headers.
 */
#ifndef UMO_TESTS_CXX_SECOND_UNIT_H
#define UMO_TESTS_CXX_SECOND_UNIT_H

#include <cstddef>

/* Bytes of the buffer at an address, as this unit's copy of the header says; 0 for none. */
std::size_t second_unit_size_of(const void *address);

#endif

/*
 * The contract: what every driver promises through the public API, as one suite that is run for
 * each driver and mode. This header holds what the test files share: an opened device with its
 * kernels, and uses in one call each.
 */
#ifndef UMO_TESTS_CONTRACT_H
#define UMO_TESTS_CONTRACT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <umo/buffer.h>

#include <string.h>

/* The scope is fresh for each test; the teardown checks that no buffer and no byte of it is left.
 */
typedef struct contract {
    umo_device *device;
    const umo_device_info *info;
    umo_scope *scope;
    umo_program *program;
    umo_kernel *scale_add;  /* y[i] = a * x[i] + y[i]: x, y, a */
    umo_kernel *copy_bytes; /* to[i] = from[i]: from, to */
    umo_kernel *grid_index; /* out[linear index of the work item] += that index */
    umo_kernel *slow;       /* out[0] = 1, after some 50 ms: out, rounds */
    size_t page;
} contract;

/* What the command line asked for. */
typedef struct contract_run {
    const char *driver;
    umo_driver_options options;
    umo_program_language language; /* of the device that was opened */
} contract_run;
extern contract_run contract_the_run;

int contract_setup(void **state);
int contract_teardown(void **state);

/* The program of the driver that is run, in its language. */
const umo_program_source *contract_program(void);

/* True where commands may still run when a call returns. */
bool contract_async(const contract *c);

/* Modes the device has: for (int m = 0; contract_mode(c, &m); m++). */
bool contract_mode(const contract *c, int *mode);

umo_buffer *contract_alloc(contract *c, umo_storage_mode mode, size_t size_bytes);

/* A use of a range, counted for the buffer's own scope. */
static inline umo_access contract_use(size_t offset_bytes, size_t size_bytes, umo_side side,
                                      umo_use use, uint32_t queue)
{
    return (umo_access){.offset_bytes = offset_bytes,
                        .size_bytes = size_bytes,
                        .side = side,
                        .use = use,
                        .queue = queue};
}

/* Whole uses on the host: bracket, wait, copy, end. */
void contract_host_write(umo_buffer *buffer, size_t offset_bytes, const void *bytes,
                         size_t size_bytes);
void contract_host_read(umo_buffer *buffer, size_t offset_bytes, void *bytes, size_t size_bytes);

/* Gives the range a pattern that depends on seed and place, or fills bytes with it. */
void contract_pattern(unsigned char *bytes, size_t size_bytes, unsigned seed);
void contract_host_pattern(umo_buffer *buffer, size_t offset_bytes, size_t size_bytes,
                           unsigned seed);
void contract_host_expect(umo_buffer *buffer, size_t offset_bytes, size_t size_bytes,
                          unsigned seed);

/* One buffer of a launch. */
typedef struct contract_operand {
    umo_buffer *buffer;
    size_t offset_bytes;
    size_t size_bytes;
    umo_use use;
} contract_operand;

/*
 * A whole use on the device: opens the brackets, launches over `items` with the operands and then
 * the value as arguments, closes the brackets with the launch's fence.
 */
umo_fence contract_launch(contract *c, umo_kernel *kernel, uint32_t queue,
                          const contract_operand *operands, size_t operand_count, const void *value,
                          size_t value_bytes, size_t items);

/* contract_launch of copy_bytes. */
umo_fence contract_device_copy(contract *c, uint32_t queue, umo_buffer *from,
                               size_t from_offset_bytes, umo_buffer *to, size_t to_offset_bytes,
                               size_t size_bytes);

umo_counters contract_counters(const contract *c);

/* The groups; each is a list for cmocka. */
extern const struct CMUnitTest contract_memory_tests[];
extern const size_t contract_memory_test_count;
extern const struct CMUnitTest contract_bracket_tests[];
extern const size_t contract_bracket_test_count;
extern const struct CMUnitTest contract_import_tests[];
extern const size_t contract_import_test_count;
extern const struct CMUnitTest contract_work_tests[];
extern const size_t contract_work_test_count;
extern const struct CMUnitTest contract_ops_tests[];
extern const size_t contract_ops_test_count;
extern const struct CMUnitTest contract_ops_order_tests[];
extern const size_t contract_ops_order_test_count;
extern const struct CMUnitTest contract_convert_tests[];
extern const size_t contract_convert_test_count;
extern const struct CMUnitTest contract_move_tests[];
extern const size_t contract_move_test_count;

#define CONTRACT_TEST(name) cmocka_unit_test_setup_teardown(name, contract_setup, contract_teardown)

#endif

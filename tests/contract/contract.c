/*
 * Runs the contract suite: contract [--load FILE] DRIVER [delay_ns [test]]
 *
 * delay_ns is the host driver's delayed queue; "test" poisons stale memory. `contract DRIVER
 * --absent` checks instead that a machine without the driver's system library or devices gets words
 * that help. --load takes a driver that is not built in: a library with a umo_driver_table.
 */
#include "contract.h"

#include "os/pages_test.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

contract_run contract_the_run;

/* One device and its program a group: compiling them for each test would take most of the time. */
static contract opened;

static int group_setup(void **unused)
{
    (void)unused;
    contract *c = &opened;
    umo_error error = {0};
    memset(c, 0, sizeof *c);
    if (umo_device_open(contract_the_run.driver, 0, &contract_the_run.options, &c->device,
                        &error) != UMO_OK) {
        print_error("cannot open a device of driver '%s': %s\n", contract_the_run.driver,
                    error.text);
        return -1;
    }
    c->info = umo_device_info_get(c->device);
    contract_the_run.language = c->info->language;
    c->page = pages_test_bytes();
    if ((c->info->caps & UMO_CAP_KERNELS) == 0) {
        return 0;
    }
    const struct {
        const char *name;
        umo_kernel **out;
    } kernels[] = {
        {"scale_add", &c->scale_add},
        {"copy_bytes", &c->copy_bytes},
        {"grid_index", &c->grid_index},
        {"slow", &c->slow},
    };
    umo_status status = umo_program_create(c->device, contract_program(), &c->program, &error);
    for (size_t i = 0; i < sizeof kernels / sizeof kernels[0] && status == UMO_OK; i++) {
        status = umo_kernel_create(c->program, kernels[i].name, kernels[i].out, &error);
    }
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int group_teardown(void **unused)
{
    (void)unused;
    umo_kernel_destroy(opened.scale_add);
    umo_kernel_destroy(opened.copy_bytes);
    umo_kernel_destroy(opened.grid_index);
    umo_kernel_destroy(opened.slow);
    umo_program_destroy(opened.program);
    umo_device_release(opened.device);
    return 0;
}

int contract_setup(void **state)
{
    contract *c = malloc(sizeof *c);
    assert_non_null(c);
    *c = opened;
    assert_int_equal(umo_scope_create(NULL, "contract", 0, &c->scope, NULL), UMO_OK);
    *state = c;
    return 0;
}

int contract_teardown(void **state)
{
    contract *c = *state;
    umo_counters counters = contract_counters(c);
    umo_scope_destroy(c->scope);
    free(c);
    if (counters.live_buffers != 0 || counters.live_bytes != 0) {
        print_error("%llu buffer(s) and %llu byte(s) are left\n",
                    (unsigned long long)counters.live_buffers,
                    (unsigned long long)counters.live_bytes);
        return -1;
    }
    return 0;
}

bool contract_async(const contract *c)
{
    return (c->info->caps & UMO_CAP_ASYNC) != 0;
}

bool contract_mode(const contract *c, int *mode)
{
    static const uint32_t bits[UMO_STORAGE_MODES] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED,
                                                     UMO_CAP_PRIVATE};
    while (*mode < UMO_STORAGE_MODES && (c->info->caps & bits[*mode]) == 0) {
        (*mode)++;
    }
    return *mode < UMO_STORAGE_MODES;
}

umo_buffer *contract_alloc(contract *c, umo_storage_mode mode, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    umo_error error = {0};
    umo_status status = umo_buffer_alloc(c->device, c->scope, size_bytes, mode, &buffer, &error);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    return buffer;
}

/* The host's bytes of a range, inside a bracket. */
static unsigned char *host_begin(umo_buffer *buffer, const umo_access *access)
{
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    unsigned char *host = umo_buffer_host(buffer);
    assert_non_null(host);
    return host + access->offset_bytes;
}

void contract_host_write(umo_buffer *buffer, size_t offset_bytes, const void *bytes,
                         size_t size_bytes)
{
    const umo_access access = contract_use(offset_bytes, size_bytes, UMO_SIDE_HOST, UMO_WRITE, 0);
    memcpy(host_begin(buffer, &access), bytes, size_bytes);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

void contract_host_read(umo_buffer *buffer, size_t offset_bytes, void *bytes, size_t size_bytes)
{
    const umo_access access = contract_use(offset_bytes, size_bytes, UMO_SIDE_HOST, UMO_READ, 0);
    memcpy(bytes, host_begin(buffer, &access), size_bytes);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

void contract_pattern(unsigned char *bytes, size_t size_bytes, unsigned seed)
{
    uint32_t x = seed * 2654435761u + 1;
    for (size_t i = 0; i < size_bytes; i++) {
        x = x * 1664525u + 1013904223u;
        bytes[i] = (unsigned char)(x >> 24);
    }
}

void contract_host_pattern(umo_buffer *buffer, size_t offset_bytes, size_t size_bytes,
                           unsigned seed)
{
    unsigned char *bytes = malloc(size_bytes);
    assert_non_null(bytes);
    contract_pattern(bytes, size_bytes, seed);
    contract_host_write(buffer, offset_bytes, bytes, size_bytes);
    free(bytes);
}

void contract_host_expect(umo_buffer *buffer, size_t offset_bytes, size_t size_bytes, unsigned seed)
{
    unsigned char *expected = malloc(2 * size_bytes);
    assert_non_null(expected);
    contract_pattern(expected, size_bytes, seed);
    contract_host_read(buffer, offset_bytes, expected + size_bytes, size_bytes);
    assert_memory_equal(expected + size_bytes, expected, size_bytes);
    free(expected);
}

umo_fence contract_launch(contract *c, umo_kernel *kernel, uint32_t queue,
                          const contract_operand *operands, size_t operand_count, const void *value,
                          size_t value_bytes, size_t items)
{
    umo_kernel_arg args[UMO_KERNEL_ARGS_MAX] = {{0}};
    umo_access accesses[UMO_KERNEL_ARGS_MAX];
    umo_fence_set all = {0};
    size_t arg_count = operand_count;
    for (size_t i = 0; i < operand_count; i++) {
        const contract_operand *o = &operands[i];
        umo_fence_set waits;
        accesses[i] = contract_use(o->offset_bytes, o->size_bytes, UMO_SIDE_DEVICE, o->use, queue);
        assert_int_equal(umo_access_begin(o->buffer, &accesses[i], &waits), UMO_OK);
        for (size_t w = 0; w < waits.count; w++) {
            assert_true(umo_fence_set_add(&all, waits.fences[w]));
        }
        args[i].kind = UMO_ARG_MEMORY;
        args[i].memory = umo_buffer_memory(o->buffer);
        args[i].offset_bytes = umo_buffer_memory_offset(o->buffer) + o->offset_bytes;
    }
    if (value != NULL) {
        args[arg_count++] =
            (umo_kernel_arg){.kind = UMO_ARG_VALUE, .value = value, .size_bytes = value_bytes};
    }
    /* PoCL compiles a kernel again for each local size it chooses; copies come in many sizes. */
    const size_t local = kernel != c->copy_bytes ? 0 : items % 64 == 0 ? 64 : 1;
    const umo_grid grid = {.dimensions = 1, .global = {items}, .local = {local}};
    umo_fence done = {0};
    umo_error error = {0};
    umo_status status = umo_kernel_launch(kernel, queue, args, arg_count, &grid, all.fences,
                                          all.count, &done, &error);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    for (size_t i = 0; i < operand_count; i++) {
        assert_int_equal(umo_access_end(operands[i].buffer, &accesses[i], done), UMO_OK);
    }
    return done;
}

umo_fence contract_device_copy(contract *c, uint32_t queue, umo_buffer *from,
                               size_t from_offset_bytes, umo_buffer *to, size_t to_offset_bytes,
                               size_t size_bytes)
{
    const contract_operand operands[] = {
        {from, from_offset_bytes, size_bytes, UMO_READ},
        {to, to_offset_bytes, size_bytes, UMO_WRITE},
    };
    return contract_launch(c, c->copy_bytes, queue, operands, 2, NULL, 0, size_bytes);
}

umo_counters contract_counters(const contract *c)
{
    umo_counters counters;
    umo_scope_read(c->scope, &counters);
    return counters;
}

/* ---- a machine without the driver ---- */

static void an_absent_driver_says_what_would_help(void **unused)
{
    (void)unused;
    const char *remedy = strcmp(contract_the_run.driver, "metal") == 0 ? "macOS" : "install";
    uint32_t count = 77;
    umo_device *device = NULL;
    umo_error error = {0};
    assert_int_equal(umo_driver_count(contract_the_run.driver, &count, &error), UMO_E_NOT_FOUND);
    assert_int_equal(count, 77);
    assert_int_equal(error.status, UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, remedy));
    memset(&error, 0, sizeof error);
    assert_int_equal(umo_device_open(contract_the_run.driver, 0, NULL, &device, &error),
                     UMO_E_NOT_FOUND);
    assert_null(device);
    assert_non_null(strstr(error.text, remedy));
    assert_int_equal(umo_driver_count(contract_the_run.driver, &count, NULL), UMO_E_NOT_FOUND);
}

/* A driver of somebody else's. The library stays: its table is used until the process ends. */
static bool load_driver(const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const umo_driver *driver = library != NULL ? dlsym(library, "umo_driver_table") : NULL;
    umo_error error = {0};
    if (driver == NULL) {
        (void)fprintf(stderr, "%s\n", dlerror());
        return false;
    }
    if (umo_driver_register(driver, &error) != UMO_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "--load") == 0) {
        if (!load_driver(argv[2])) {
            return 2;
        }
        argc -= 2;
        argv += 2;
    }
    if (argc < 2) {
        (void)fprintf(stderr, "usage: contract [--load FILE] DRIVER [delay_ns [test]] | contract "
                              "DRIVER --absent\n");
        return 2;
    }
    contract_the_run.driver = argv[1];
    if (argc > 2 && strcmp(argv[2], "--absent") == 0) {
        const struct CMUnitTest absent[] = {
            cmocka_unit_test(an_absent_driver_says_what_would_help),
        };
        return cmocka_run_group_tests(absent, NULL, NULL);
    }
    if (argc > 2) {
        contract_the_run.options.delay_ns = strtoull(argv[2], NULL, 10);
    }
    contract_the_run.options.test_mode = argc > 3 && strcmp(argv[3], "test") == 0;
    const struct {
        const char *name;
        const struct CMUnitTest *tests;
        size_t count;
    } groups[] = {
        {"memory", contract_memory_tests, contract_memory_test_count},
        {"brackets", contract_bracket_tests, contract_bracket_test_count},
        {"imports", contract_import_tests, contract_import_test_count},
        {"work", contract_work_tests, contract_work_test_count},
        {"moves", contract_move_tests, contract_move_test_count},
        {"operations", contract_ops_tests, contract_ops_test_count},
        {"order of operations", contract_ops_order_tests, contract_ops_order_test_count},
        {"conversions", contract_convert_tests, contract_convert_test_count},
    };
    int failed = 0;
    for (size_t g = 0; g < sizeof groups / sizeof groups[0]; g++) {
        failed += _cmocka_run_group_tests(groups[g].name, groups[g].tests, groups[g].count,
                                          group_setup, group_teardown);
    }
    return failed == 0 ? 0 : 1;
}

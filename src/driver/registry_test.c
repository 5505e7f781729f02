/*
 * The registry and the opening of devices: tables that promise more than they hold are turned away
 * before anything calls through them.
 */
#include "driver/wrapper_test.h"

#include "driver/device.h"
#include "driver/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static void a_table_of_another_abi_is_refused(void **state)
{
    (void)state;
    umo_error error = {0};
    umo_driver table = wrapper_table("other abi");
    table.abi = UMO_DRIVER_ABI + 1;
    assert_int_equal(umo_driver_register(&table, &error), UMO_E_INVAL);
    assert_non_null(strstr(error.text, "other abi"));
    table.abi = 0;
    assert_int_equal(umo_driver_register(&table, &error), UMO_E_INVAL);
    table.abi = UMO_DRIVER_ABI;
    table.size_bytes = sizeof table - 8;
    assert_int_equal(umo_driver_register(&table, &error), UMO_E_INVAL);
    table.size_bytes = sizeof table + 8;
    assert_int_equal(umo_driver_register(&table, &error), UMO_E_INVAL);
    assert_null(umo_driver_find("other abi"));
    assert_int_equal(umo_driver_register(NULL, &error), UMO_E_INVAL);
}

static void a_name_is_needed_and_taken_once(void **state)
{
    (void)state;
    umo_driver table = wrapper_table(NULL);
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    table.name = "";
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    table.name = "host";
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    /* It has to fit where names are kept: umo_device_info.driver. */
    table.name = "sixteen letters!";
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    table.name = "opencl";
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    assert_ptr_equal(umo_driver_find("host"), &umo_driver_host);
    static umo_driver once;
    once = wrapper_table("once");
    assert_int_equal(umo_driver_register(&once, NULL), UMO_OK);
    assert_int_equal(umo_driver_register(&once, NULL), UMO_E_INVAL);
}

/* These are called before there are capabilities to check the rest against. */
static void a_table_that_cannot_even_open_is_refused(void **state)
{
    (void)state;
    static umo_driver table; /* static, so that a wrong acceptance leaves no dangling table */
    table = wrapper_table("cannot open");
    table.count = NULL;
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    table = wrapper_table("cannot open");
    table.open = NULL;
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    table = wrapper_table("cannot open");
    table.close = NULL;
    assert_int_equal(umo_driver_register(&table, NULL), UMO_E_INVAL);
    assert_null(umo_driver_find("cannot open"));
}

static umo_driver holey;

/* Opens a device whose table lacks one entry; the refusal names the entry. */
static void assert_promised(const char *entry)
{
    umo_error error = {0};
    umo_device *device = NULL;
    const umo_driver_options options = {.test_mode = true};
    assert_int_equal(umo_device_open("holey", 0, &options, &device, &error), UMO_E_UNSUPPORTED);
    assert_null(device);
    char quoted[32];
    (void)snprintf(quoted, sizeof quoted, "'%s'", entry);
    assert_non_null(strstr(error.text, quoted));
    holey = wrapper_table("holey");
}

static void each_promised_function_is_asked_for(void **state)
{
    (void)state;
    holey = wrapper_table("holey");
    assert_int_equal(umo_driver_register(&holey, NULL), UMO_OK);
    wrapper = (wrapper_switches){0};
#define LACKS(entry)                                                                               \
    holey.entry = NULL;                                                                            \
    assert_promised(#entry)
    LACKS(alloc);
    LACKS(free);
    LACKS(copy);
    LACKS(fence_done);
    LACKS(fence_wait);
    LACKS(import);
    LACKS(transfer);
    LACKS(program_create);
    LACKS(program_destroy);
    LACKS(kernel_create);
    LACKS(kernel_destroy);
    LACKS(kernel_launch);
    LACKS(poison);
    wrapper.apart = true;
    LACKS(publish);
#undef LACKS
    wrapper = (wrapper_switches){0};
}

static void what_is_not_promised_may_be_missing(void **state)
{
    (void)state;
    holey.import = NULL;
    holey.transfer = NULL;
    holey.publish = NULL;
    holey.program_create = NULL;
    holey.program_destroy = NULL;
    holey.kernel_create = NULL;
    holey.kernel_destroy = NULL;
    holey.kernel_launch = NULL;
    holey.poison = NULL;
    wrapper =
        (wrapper_switches){.caps_off = UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_IMPORT_READ |
                                       UMO_CAP_IMPORT_WRITE | UMO_CAP_KERNELS | UMO_CAP_POISON};
    umo_device *device = NULL;
    assert_int_equal(umo_device_open("holey", 0, NULL, &device, NULL), UMO_OK);
    umo_program *program = NULL;
    const umo_program_source source = {.kind = UMO_PROGRAM_HOST};
    assert_int_equal(umo_program_create(device, &source, &program, NULL), UMO_E_UNSUPPORTED);
    umo_device_release(device);
    holey = wrapper_table("holey");
    wrapper = (wrapper_switches){0};
}

/* Alignments are used as masks; queues index arrays. */
static void facts_that_cannot_be_are_refused(void **state)
{
    (void)state;
    const wrapper_switches bad[] = {
        {.import_align_bytes = 48},
        {.import_size_align_bytes = 3},
        {.write_granule_bytes = 3},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(wrapper_device(&bad[i], NULL));
    }
    umo_device *device = wrapper_device(NULL, NULL);
    assert_non_null(device);
    umo_device_info info = *umo_device_info_get(device);
    assert_null(umo_driver_missing(&umo_driver_host, &info));
    info.queues = 0;
    assert_non_null(umo_driver_missing(&umo_driver_host, &info));
    info.queues = UMO_QUEUES_MAX;
    assert_null(umo_driver_missing(&umo_driver_host, &info));
    info.queues = UMO_QUEUES_MAX + 1;
    assert_non_null(umo_driver_missing(&umo_driver_host, &info));
    info.queues = 1;
    info.import_align_bytes = 0;
    assert_non_null(umo_driver_missing(&umo_driver_host, &info));
    info.import_align_bytes = 1;
    info.buffer_max_bytes = 0;
    assert_non_null(umo_driver_missing(&umo_driver_host, &info));
    umo_device_release(device);
}

static void an_unknown_name_or_number_is_not_found(void **state)
{
    (void)state;
    umo_error error = {0};
    umo_device *device = NULL;
    uint32_t count = 77;
    assert_int_equal(umo_device_open("nobody", 0, NULL, &device, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "nobody"));
    assert_int_equal(umo_driver_count("nobody", &count, &error), UMO_E_NOT_FOUND);
    assert_int_equal(count, 77);
    assert_int_equal(umo_driver_count("host", &count, &error), UMO_OK);
    assert_int_equal(count, 1);
    assert_int_equal(umo_device_open("host", 1, NULL, &device, &error), UMO_E_NOT_FOUND);
    assert_int_equal(umo_device_open("host", UINT32_MAX, NULL, &device, &error), UMO_E_NOT_FOUND);
    assert_null(device);
}

/* Last: it fills the registry for the rest of the process. */
static void the_registry_ends_at_16(void **state)
{
    (void)state;
    static umo_driver tables[16];
    static char names[16][16];
    size_t taken = 0;
    umo_status status = UMO_OK;
    for (size_t i = 0; i < 16 && status == UMO_OK; i++) {
        (void)snprintf(names[i], sizeof names[i], "filler%zu", i);
        tables[i] = wrapper_table(names[i]);
        status = umo_driver_register(&tables[i], NULL);
        taken += status == UMO_OK ? 1 : 0;
    }
    assert_int_equal(status, UMO_E_LIMIT);
    assert_non_null(umo_driver_find(names[taken - 1]));
    assert_null(umo_driver_find(names[taken]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_table_of_another_abi_is_refused),
        cmocka_unit_test(a_name_is_needed_and_taken_once),
        cmocka_unit_test(a_table_that_cannot_even_open_is_refused),
        cmocka_unit_test(each_promised_function_is_asked_for),
        cmocka_unit_test(what_is_not_promised_may_be_missing),
        cmocka_unit_test(facts_that_cannot_be_are_refused),
        cmocka_unit_test(an_unknown_name_or_number_is_not_found),
        cmocka_unit_test(the_registry_ends_at_16),
    };
    return cmocka_run_group_tests_name("registry", tests, NULL, NULL);
}

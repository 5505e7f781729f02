/*
 * Calibration: devices whose latency is known, devices that lack something or fail, and files in
 * every state that a file can be in.
 *
 *   calibrate_test [DRIVER]   only measures a device of that driver, and checks what must be so
 */
#include "driver/wrapper_test.h"

#include "access/calibration.h"
#include "access/folder_test.h"
#include "base/scope.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#ifndef __APPLE__
#include <sys/resource.h>
#endif
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define US ((uint64_t)1000)

enum {
    ALL_MODES = (1u << UMO_STORAGE_MODES) - 1
};

static const umo_calibrate_options quick = {.redo = true, .no_files = true, .budget_ns = 1};

static char folder[256];

static int folder_setup(void **state)
{
    (void)state;
    return folder_make(folder, sizeof folder) && setenv("XDG_CACHE_HOME", folder, 1) == 0 &&
                   unsetenv("UMO_CALIBRATION") == 0
               ? 0
               : -1;
}

static int folder_teardown(void **state)
{
    (void)state;
    folder_remove(folder);
    return 0;
}

/* A host device that this process has not measured yet: what it can is part of its name. */
static umo_device *new_device(void)
{
    static const uint32_t bits[] = {UMO_CAP_HOST_PROCESSOR, UMO_CAP_MANAGED, UMO_CAP_PRIVATE,
                                    UMO_CAP_IMPORT_READ};
    static unsigned made;
    wrapper_switches switches = {.caps_off = UMO_CAP_KERNELS};
    for (unsigned i = 0; i < sizeof bits / sizeof bits[0]; i++) {
        switches.caps_off |= (made >> i & 1) != 0 ? bits[i] : 0;
    }
    made++;
    umo_device *device = wrapper_device(&switches, NULL);
    assert_non_null(device);
    return device;
}

/* What must be so on whatever it runs, however busy: a single round's figures are taken as well. */
static void check_model(const umo_cost_model *model, const umo_device_info *info)
{
    uint64_t fastest = 0;
    assert_int_equal(model->modes, info->caps & ALL_MODES);
    assert_true(model->measured_s > 1600000000);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        if ((model->modes & 1u << mode) == 0) {
            continue;
        }
        for (int t = 0; t < UMO_TRAFFICS; t++) {
            const umo_rate *rate = &model->use[mode][t];
            assert_true(rate->latency_ns < 1000000 * US);
            assert_true(rate->bytes_s == 0 || rate->bytes_s > 100000);
            fastest = rate->bytes_s > fastest ? rate->bytes_s : fastest;
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            if (to != mode && (model->modes & 1u << to) != 0) {
                assert_true(model->move[mode][to].latency_ns + model->move[mode][to].bytes_s > 0);
            }
        }
    }
    assert_true(fastest != 0); /* nothing is for nothing everywhere */
}

static void measure_driver(const char *driver)
{
    umo_device *device = NULL;
    umo_error error = {0};
    if (umo_device_open(driver, 0, NULL, &device, &error) != UMO_OK) {
        print_message("driver '%s' is not there: %s\n", driver, error.text);
        skip();
    }
    const umo_calibrate_options options = {.redo = true, .no_files = true};
    umo_cost_model model;
    uint64_t start_ns = umo_os_now_ns();
    umo_status status = umo_device_calibrate(device, &options, &model, &error);
    if (status != UMO_OK) {
        print_error("%s\n", error.text);
    }
    assert_int_equal(status, UMO_OK);
    assert_true(umo_os_now_ns() - start_ns < 5000000 * US);
    assert_int_equal(model.source, UMO_COST_MEASURED);
    check_model(&model, umo_device_info_get(device));
    umo_device_release(device);
}

static void the_host_device_is_measured(void **state)
{
    (void)state;
    measure_driver("host");
}

static void an_opencl_device_is_measured(void **state)
{
    (void)state;
    measure_driver("opencl");
}

static const char *named_driver;

static void the_named_device_is_measured(void **state)
{
    (void)state;
    measure_driver(named_driver);
}

static void a_latency_that_is_known_is_found(void **state)
{
    (void)state;
    const umo_driver_options options = {.delay_ns = 1000 * US};
    const umo_calibrate_options several_rounds = {.budget_ns = 400000 * US};
    const uint64_t less = 750 * US;
    umo_device *device = NULL;
    assert_int_equal(umo_device_open("host", 0, &options, &device, NULL), UMO_OK);
    umo_cost_model model;
    assert_int_equal(umo_device_calibrate(device, &several_rounds, &model, NULL), UMO_OK);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        /* A copy is one command; a machine that is busy answers later, never earlier. */
        assert_true(model.use[mode][UMO_TRAFFIC_DEVICE_READ].latency_ns > less);
        assert_true(model.use[mode][UMO_TRAFFIC_HOST_READ].latency_ns < less);
        uint64_t brought_ns = model.use[mode][UMO_TRAFFIC_TO_DEVICE].latency_ns;
        /* Where there is one memory, nothing is queued. */
        assert_true(mode == UMO_UNIFIED ? brought_ns < less : brought_ns > less);
    }
    umo_placement_moves moves;
    umo_cost_moves(&model, 4096, &moves);
    assert_true(moves.ns[UMO_UNIFIED][UMO_PRIVATE] > less); /* a transfer is among it */
    umo_device_release(device);
}

static void a_mode_that_the_device_lacks_is_not_in_the_model(void **state)
{
    (void)state;
    static const uint32_t bits[UMO_STORAGE_MODES] = {UMO_CAP_UNIFIED, UMO_CAP_MANAGED,
                                                     UMO_CAP_PRIVATE};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        const wrapper_switches switches = {.caps_off = bits[mode]};
        umo_device *device = wrapper_device(&switches, NULL);
        umo_cost_model model;
        assert_int_equal(umo_device_calibrate(device, &quick, &model, NULL), UMO_OK);
        assert_int_equal(model.modes, ALL_MODES & ~(1u << mode));
        check_model(&model, umo_device_info_get(device));
        umo_device_release(device);
    }
    const wrapper_switches none = {.caps_off = UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE};
    umo_device *device = wrapper_device(&none, NULL);
    umo_cost_model model;
    umo_error error;
    assert_int_equal(umo_device_calibrate(device, &quick, &model, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "allocates nothing"));
    umo_device_release(device);
}

static void where_nothing_moves_the_moves_are_assumed(void **state)
{
    (void)state;
    const wrapper_switches switches = {.caps_off = UMO_CAP_IMPORT_WRITE};
    umo_device *device = wrapper_device(&switches, NULL);
    umo_cost_model model;
    umo_cost_model assumed;
    assert_int_equal(umo_device_calibrate(device, &quick, &model, NULL), UMO_OK);
    umo_cost_model_assume(umo_device_info_get(device), &assumed);
    assert_memory_equal(model.move[UMO_UNIFIED], assumed.move[UMO_UNIFIED],
                        sizeof model.move[UMO_UNIFIED]);
    umo_device_release(device);
}

static void a_device_with_short_buffers_is_not_measured(void **state)
{
    (void)state;
    const wrapper_switches switches = {.buffer_max_bytes = 6000};
    umo_device *device = wrapper_device(&switches, NULL);
    umo_cost_model model;
    umo_error error;
    assert_int_equal(umo_device_calibrate(device, &quick, &model, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "long enough"));
    umo_device_release(device);
    const wrapper_switches more = {.buffer_max_bytes = 4 * 65536}; /* pages may be of 64 KiB */
    device = wrapper_device(&more, NULL);
    assert_int_equal(umo_device_calibrate(device, &quick, &model, &error), UMO_OK);
    assert_int_equal(model.modes, ALL_MODES);
    umo_device_release(device);
}

static int calls_left;

static bool fails_late(const char *entry)
{
    (void)entry;
    return calls_left > 0 && --calls_left == 0;
}

static void a_device_that_fails_leaves_nothing_behind(void **state)
{
    (void)state;
    const wrapper_switches switches = {.buffer_max_bytes = 16384, .fails = fails_late};
    calls_left = 0;
    umo_device *device = wrapper_device(&switches, NULL);
    umo_status status = UMO_E_DEVICE;
    int failures = 0;
    for (int call = 1; status != UMO_OK; call++) {
        umo_cost_model model;
        umo_error error = {0};
        memset(&model, 0x5a, sizeof model);
        calls_left = call;
        status = umo_device_calibrate(device, &quick, &model, &error);
        assert_int_equal(wrapper_calls.live, 0);
        if (status != UMO_OK) {
            failures++;
            assert_int_equal(error.status, status);
            assert_true(error.text[0] != '\0');
            assert_int_equal(model.modes, 0x5a5a5a5a);
        }
    }
    assert_true(calls_left > 0); /* it ended well because nothing failed */
    assert_true(failures > 20);
    umo_device_release(device);
}

/* ---- what is remembered ---- */

static void it_is_measured_once_in_a_process(void **state)
{
    (void)state;
    umo_device *device = new_device();
    const umo_calibrate_options no_files = {.no_files = true, .budget_ns = 1};
    umo_cost_model first;
    umo_cost_model second;
    assert_int_equal(umo_device_calibrate(device, &no_files, &first, NULL), UMO_OK);
    assert_int_equal(first.source, UMO_COST_MEASURED);
    assert_int_equal(umo_device_calibrate(device, &no_files, &second, NULL), UMO_OK);
    assert_int_equal(second.source, UMO_COST_CACHED);
    assert_memory_equal(first.use, second.use, sizeof first.use);
    assert_memory_equal(first.move, second.move, sizeof first.move);
    assert_int_equal(umo_device_calibrate(device, &quick, &second, NULL), UMO_OK);
    assert_int_equal(second.source, UMO_COST_MEASURED);
    umo_device_release(device);
}

static void it_can_be_switched_off(void **state)
{
    (void)state;
    umo_device *device = new_device();
    const umo_calibrate_options off = {.off = true, .redo = true};
    umo_cost_model model;
    assert_int_equal(umo_device_calibrate(device, &off, &model, NULL), UMO_OK);
    assert_int_equal(model.source, UMO_COST_ASSUMED);
    assert_int_equal(setenv("UMO_CALIBRATION", "off", 1), 0);
    assert_int_equal(umo_device_calibrate(device, &quick, &model, NULL), UMO_OK);
    assert_int_equal(model.source, UMO_COST_ASSUMED);
    assert_int_equal(setenv("UMO_CALIBRATION", "redo", 1), 0);
    const umo_calibrate_options usual = {.budget_ns = 1};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umo_device_calibrate(device, &usual, &model, NULL), UMO_OK);
        assert_int_equal(model.source, UMO_COST_MEASURED);
    }
    assert_int_equal(unsetenv("UMO_CALIBRATION"), 0);
    /* Off means that nothing is measured, not that nothing is known. */
    assert_int_equal(umo_device_calibrate(device, &off, &model, NULL), UMO_OK);
    assert_int_equal(model.source, UMO_COST_CACHED);
    umo_device_release(device);
}

static void a_negative_age_is_refused(void **state)
{
    (void)state;
    umo_device *device = new_device();
    const umo_calibrate_options options = {.age_max_s = -1};
    umo_cost_model model;
    assert_int_equal(umo_device_calibrate(device, &options, &model, NULL), UMO_E_INVAL);
    umo_device_release(device);
}

/* ---- files ---- */

static umo_cost_model made_model(uint64_t base)
{
    umo_cost_model model = {.modes = ALL_MODES, .measured_s = (int64_t)time(NULL)};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int t = 0; t < UMO_TRAFFICS; t++) {
            model.use[mode][t] = (umo_rate){base + (uint64_t)(mode * 10 + t), base * 1000};
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            model.move[mode][to] = (umo_rate){base, UINT64_MAX - base};
        }
    }
    model.source = UMO_COST_CACHED;
    return model;
}

static umo_calibration_key made_key(const char *name)
{
    umo_device_info info = {.driver = "host", .caps = UMO_CAP_UNIFIED};
    (void)snprintf(info.name, sizeof info.name, "%s", name);
    umo_calibration_key key;
    assert_true(umo_calibration_key_make(&info, folder, false, &key));
    return key;
}

static size_t file_get(const char *path, char *out, size_t out_bytes)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t size = fread(out, 1, out_bytes, file);
    assert_int_equal(fclose(file), 0);
    return size;
}

static void file_put(const char *path, const char *bytes, size_t size_bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size_bytes, file), size_bytes);
    assert_int_equal(fclose(file), 0);
}

static void a_file_gives_back_what_was_written(void **state)
{
    (void)state;
    umo_calibration_key key = made_key("a");
    umo_cost_model model;
    assert_false(umo_calibration_read(&key, &model)); /* none yet */
    umo_cost_model written = made_model(77);
    umo_calibration_write(&key, &written);
    memset(&model, 0, sizeof model);
    assert_true(umo_calibration_read(&key, &model));
    assert_memory_equal(&model, &written, sizeof model);
    struct stat seen;
    assert_int_equal(stat(key.path, &seen), 0);
    assert_int_equal(seen.st_mode & 0077, 0); /* nobody else's business */
}

static void a_file_that_was_changed_or_cut_is_not_there(void **state)
{
    (void)state;
    umo_calibration_key key = made_key("b");
    umo_cost_model written = made_model(5);
    umo_cost_model model;
    umo_calibration_write(&key, &written);
    static char good[16384];
    static char bad[16384];
    size_t size = file_get(key.path, good, sizeof good);
    assert_true(size > 500 && size < sizeof good);
    for (size_t at = 0; at < size; at += at < 16 || at + 24 > size ? 1 : 23) {
        memcpy(bad, good, size);
        bad[at] = (char)(bad[at] ^ (1 << at % 8));
        file_put(key.path, bad, size);
        assert_false(umo_calibration_read(&key, &model));
        file_put(key.path, good, at);
        assert_false(umo_calibration_read(&key, &model));
    }
    memset(bad, 'x', sizeof bad);
    file_put(key.path, bad, sizeof bad);
    assert_false(umo_calibration_read(&key, &model));
    file_put(key.path, good, size);
    assert_true(umo_calibration_read(&key, &model));
}

static void a_file_of_something_else_is_not_there(void **state)
{
    (void)state;
    umo_calibration_key mine = made_key("c");
    umo_calibration_key other = made_key("d");
    assert_string_not_equal(mine.path, other.path);
    umo_cost_model written = made_model(5);
    umo_cost_model model;
    umo_calibration_write(&other, &written);
    /* Two hashes that met, or another release of umo under the same name. */
    assert_int_equal(rename(other.path, mine.path), 0);
    assert_false(umo_calibration_read(&mine, &model));
    /* No file at all, but something of that name. */
    assert_int_equal(unlink(mine.path), 0);
    assert_int_equal(mkdir(mine.path, 0700), 0);
    assert_false(umo_calibration_read(&mine, &model));
    umo_calibration_write(&mine, &written);
    assert_false(umo_calibration_read(&mine, &model));
}

static void a_folder_that_takes_nothing_is_no_error(void **state)
{
    (void)state;
    /* No folder can be made below a file, whoever we are. */
    umo_calibration_key key = made_key("e");
    file_put(key.path, "", 0);
    umo_device *device = new_device();
    const umo_calibrate_options options = {.budget_ns = 1, .folder = key.path};
    umo_cost_model model;
    assert_int_equal(umo_device_calibrate(device, &options, &model, NULL), UMO_OK);
    assert_int_equal(model.source, UMO_COST_MEASURED);
    umo_device_release(device);
}

static void a_full_disk_is_no_error_and_leaves_nothing(void **state)
{
    (void)state;
#ifdef __APPLE__
    print_message("no limit of a file's length where the tests for macOS run\n");
    skip();
#else
    unsigned before = folder_count(folder);
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    const struct rlimit none = {.rlim_cur = 0, .rlim_max = limit.rlim_max};
    umo_device *device = new_device();
    const umo_calibrate_options options = {.budget_ns = 1, .folder = folder};
    umo_cost_model model;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    umo_status status = umo_device_calibrate(device, &options, &model, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, UMO_OK);
    assert_int_equal(model.source, UMO_COST_MEASURED);
    assert_int_equal(folder_count(folder), before);
    umo_device_release(device);
#endif
}

static void a_folder_that_is_not_there_is_made(void **state)
{
    (void)state;
    umo_device *device = new_device();
    const umo_calibrate_options options = {.budget_ns = 1}; /* below XDG_CACHE_HOME */
    umo_cost_model model;
    umo_cost_model again;
    umo_calibration_key key;
    assert_int_equal(umo_device_calibrate(device, &options, &model, NULL), UMO_OK);
    assert_true(umo_calibration_key_make(umo_device_info_get(device), NULL, false, &key));
    assert_memory_equal(key.path, folder, strlen(folder));
    assert_true(umo_calibration_read(&key, &again));
    assert_memory_equal(model.use, again.use, sizeof model.use);
    umo_device_release(device);
}

static void an_old_measurement_is_made_again(void **state)
{
    (void)state;
    static const int64_t ages_s[] = {31 * 24 * 3600, -3600}; /* of the past; of the future */
    for (int i = 0; i < 2; i++) {
        umo_device *device = new_device();
        umo_calibration_key key;
        assert_true(umo_calibration_key_make(umo_device_info_get(device), folder, false, &key));
        umo_cost_model old = made_model(123);
        old.measured_s -= ages_s[i];
        umo_calibration_write(&key, &old);
        const umo_calibrate_options options = {.budget_ns = 1, .folder = folder};
        umo_cost_model model;
        if (i == 0) {
            const umo_calibrate_options patient = {.folder = folder, .age_max_s = 32 * 24 * 3600};
            assert_int_equal(umo_device_calibrate(device, &patient, &model, NULL), UMO_OK);
            assert_int_equal(model.source, UMO_COST_CACHED);
            assert_int_equal(model.measured_s, old.measured_s); /* its age is told */
        }
        assert_int_equal(umo_device_calibrate(device, &options, &model, NULL), UMO_OK);
        assert_int_equal(model.source, UMO_COST_MEASURED);
        assert_true(umo_calibration_read(&key, &old));
        assert_int_equal(old.measured_s, model.measured_s); /* and the file is the new one */
        umo_device_release(device);
    }
}

static void a_tests_device_is_never_remembered(void **state)
{
    (void)state;
    const umo_driver_options options[] = {{.delay_ns = 1000}, {.test_mode = true}};
    for (int i = 0; i < 2; i++) {
        umo_device *device = NULL;
        assert_int_equal(umo_device_open("host", 0, &options[i], &device, NULL), UMO_OK);
        umo_calibration_key key;
        assert_false(umo_calibration_key_make(umo_device_info_get(device), folder, false, &key));
        const umo_calibrate_options once = {.budget_ns = 1, .folder = folder};
        umo_cost_model model;
        for (int turn = 0; turn < 2; turn++) {
            assert_int_equal(umo_device_calibrate(device, &once, &model, NULL), UMO_OK);
            assert_int_equal(model.source, UMO_COST_MEASURED);
        }
        umo_device_release(device);
    }
}

/* ---- threads ---- */

enum {
    THREADS = 8
};

static umo_device *shared_device;
static umo_cost_model seen_models[THREADS];

static void *calibrate_main(void *argument)
{
    size_t index = (size_t)(uintptr_t)argument;
    const umo_calibrate_options options = {.budget_ns = 1, .folder = folder};
    return umo_device_calibrate(shared_device, &options, &seen_models[index], NULL) == UMO_OK
               ? NULL
               : argument;
}

static void threads_run(void *(*run)(void *))
{
    pthread_t threads[THREADS];
    for (size_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run, (void *)(i + 1)), 0);
    }
    for (size_t i = 0; i < THREADS; i++) {
        void *failed;
        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
}

static void *calibrate_thread(void *argument)
{
    return calibrate_main((void *)((uintptr_t)argument - 1));
}

static void threads_that_ask_at_once_measure_once(void **state)
{
    (void)state;
    shared_device = new_device();
    threads_run(calibrate_thread);
    unsigned measured = 0;
    for (int i = 0; i < THREADS; i++) {
        measured += seen_models[i].source == UMO_COST_MEASURED ? 1 : 0;
        assert_memory_equal(seen_models[i].use, seen_models[0].use, sizeof seen_models[0].use);
    }
    assert_int_equal(measured, 1);
    umo_device_release(shared_device);
}

static umo_calibration_key shared_key;

static void *file_thread(void *argument)
{
    uint64_t base = (uintptr_t)argument * 1000;
    for (uint64_t i = 0; i < 2; i++) {
        umo_cost_model mine = made_model(base + i);
        umo_cost_model seen = {0};
        umo_calibration_write(&shared_key, &mine);
        if (!umo_calibration_read(&shared_key, &seen)) {
            return argument;
        }
        umo_cost_model whole = made_model(seen.use[0][0].latency_ns);
        if (memcmp(whole.use, seen.use, sizeof whole.use) != 0 ||
            memcmp(whole.move, seen.move, sizeof whole.move) != 0) {
            return argument;
        }
    }
    return NULL;
}

static void writers_at_once_leave_one_whole_file(void **state)
{
    (void)state;
    shared_key = made_key("shared");
    unsigned before = folder_count(folder);
    threads_run(file_thread);
    assert_int_equal(folder_count(folder), before + 1);
}

/* ---- noise ---- */

static void what_cannot_be_told_apart_is_made_equal(void **state)
{
    (void)state;
    umo_cost_model model = {.modes = 5};
    umo_rate *unified = &model.use[UMO_UNIFIED][UMO_TRAFFIC_DEVICE_READ];
    umo_rate *managed = &model.use[UMO_MANAGED][UMO_TRAFFIC_DEVICE_READ];
    umo_rate *private = &model.use[UMO_PRIVATE][UMO_TRAFFIC_DEVICE_READ];
    *unified = (umo_rate){10000, 80 * 1000000};
    *managed = (umo_rate){1, 900 * 1000000}; /* the device lacks it: it counts for nothing */
    *private = (umo_rate){12000, 100 * 1000000};
    umo_calibration_level(&model);
    assert_int_equal(private->latency_ns, 10000);
    assert_int_equal(unified->bytes_s, 100 * 1000000);
    assert_int_equal(managed->latency_ns, 1);
    *unified = (umo_rate){10000, 50 * 1000000};
    *private = (umo_rate){30000, 100 * 1000000};
    umo_calibration_level(&model);
    assert_int_equal(private->latency_ns, 30000);
    assert_int_equal(unified->bytes_s, 50 * 1000000);
    *unified = (umo_rate){0, 0}; /* bytes for nothing are not a bandwidth of 0 */
    umo_calibration_level(&model);
    assert_int_equal(unified->bytes_s, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest named[] = {cmocka_unit_test(the_named_device_is_measured)};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_host_device_is_measured),
        cmocka_unit_test(an_opencl_device_is_measured),
        cmocka_unit_test(a_latency_that_is_known_is_found),
        cmocka_unit_test(a_mode_that_the_device_lacks_is_not_in_the_model),
        cmocka_unit_test(where_nothing_moves_the_moves_are_assumed),
        cmocka_unit_test(a_device_with_short_buffers_is_not_measured),
        cmocka_unit_test(a_device_that_fails_leaves_nothing_behind),
        cmocka_unit_test(it_is_measured_once_in_a_process),
        cmocka_unit_test(it_can_be_switched_off),
        cmocka_unit_test(a_negative_age_is_refused),
        cmocka_unit_test(a_file_gives_back_what_was_written),
        cmocka_unit_test(a_file_that_was_changed_or_cut_is_not_there),
        cmocka_unit_test(a_file_of_something_else_is_not_there),
        cmocka_unit_test(a_folder_that_takes_nothing_is_no_error),
        cmocka_unit_test(a_full_disk_is_no_error_and_leaves_nothing),
        cmocka_unit_test(a_folder_that_is_not_there_is_made),
        cmocka_unit_test(an_old_measurement_is_made_again),
        cmocka_unit_test(a_tests_device_is_never_remembered),
        cmocka_unit_test(threads_that_ask_at_once_measure_once),
        cmocka_unit_test(writers_at_once_leave_one_whole_file),
        cmocka_unit_test(what_cannot_be_told_apart_is_made_equal),
    };
    if (argc > 1) {
        named_driver = argv[1];
        return cmocka_run_group_tests_name("calibration", named, folder_setup, folder_teardown);
    }
    return cmocka_run_group_tests_name("calibration", tests, folder_setup, folder_teardown);
}

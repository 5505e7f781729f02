/*
 * What is not a recorder, or not of this version, or lies: said in words, and nobody is hurt,
 * neither the process that is looked at nor the one that looks.
 */
#include "trace/recorder_rig_test.h"

#ifdef __linux__
static void a_process_without_the_library(void)
{
    umo_recorder *r = NULL;
    umo_error error = {0};
    int until_exec[2];
    char nothing;
    assert_int_equal(pipe(until_exec), 0);
    assert_int_equal(fcntl(until_exec[1], F_SETFD, FD_CLOEXEC), 0);
    pid_t child = fork();
    if (child == 0) {
        (void)execlp("sleep", "sleep", "60", (char *)NULL);
        _exit(1);
    }
    (void)close(until_exec[1]);
    assert_int_equal(read(until_exec[0], &nothing, 1), 0);
    (void)close(until_exec[0]);
    assert_int_equal(umo_recorder_open(child, &r, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "shows no recorder"));
    (void)kill(child, SIGKILL);
    (void)waitpid(child, NULL, 0);
    assert_int_equal(umo_recorder_open(child, &r, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "no process"));
    assert_null(r);
}
#endif

static void what_cannot_be_opened_is_said(void **state)
{
    (void)state;
    umo_recorder *r = NULL;
    umo_error error = {0};
    const int64_t none[] = {0, -1, INT64_MAX, INT32_MAX};
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        assert_int_equal(umo_recorder_open(none[i], &r, &error), UMO_E_NOT_FOUND);
        assert_non_null(strstr(error.text, "no process"));
    }
#ifdef __linux__
    a_process_without_the_library();
#endif
    assert_null(r);

    other o = other_start();
    r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, ((size_t)256 << 20) + 1, &error), UMO_E_INVAL);
    assert_true(strlen(umo_recorder_version(r)) > 0);
    umo_recorder_close(r);
    umo_recorder_close(NULL);

    /* Another form of the same: an older library, a newer one, none at all. */
    int file;
    size_t size_bytes;
    int cause;
    assert_int_equal(umo_os_shown_open(o.pid, 0, &file, &size_bytes, &cause), UMO_OK);
    umo_trace_head *head = umo_os_shown_map(file, size_bytes, NULL, true);
    assert_non_null(head);
    r = NULL;
    head->layout++;
    (void)memset(head->version, '\n', sizeof head->version);
    assert_int_equal(umo_recorder_open(o.pid, &r, &error), UMO_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "another form"));
    assert_null(strchr(error.text, '\n'));
    head->layout--;
    head->slot_bytes++;
    assert_int_equal(umo_recorder_open(o.pid, &r, &error), UMO_E_UNSUPPORTED);
    head->slot_bytes--;
    head->pid++;
    assert_int_equal(umo_recorder_open(o.pid, &r, &error), UMO_E_NOT_FOUND);
    assert_non_null(strstr(error.text, "made by"));
    head->pid--;
    head->magic = 0;
    assert_int_equal(umo_recorder_open(o.pid, &r, &error), UMO_E_UNSUPPORTED);
    assert_null(r);
    umo_os_mapping_drop(head, size_bytes);
    umo_os_file_close(file);
    assert_int_equal(other_end(&o), 0);
}

/* ---- a hostile or broken one that looks on ---- */

static uint64_t random_next(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

/* Every page of every part is filled with anything at all while the process records; it lives, and
 * records rightly for itself again when it is left alone. */
static void whatever_is_written_into_the_pages_hurts_nobody(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    int cause;
    char *pages[3];
    size_t sizes[3];
    assert_int_equal(tell(&o, 's'), 'd');
    assert_int_equal(umo_recorder_start(r, (size_t)1 << 20, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'p'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    for (uint32_t part = 0; part < 3; part++) {
        int file;
        assert_int_equal(umo_os_shown_open(o.pid, part, &file, &sizes[part], &cause), UMO_OK);
        pages[part] = umo_os_shown_map(file, sizes[part], NULL, true);
        assert_non_null(pages[part]);
#ifdef __linux__
        assert_int_not_equal(ftruncate(file, 0), 0);
        assert_int_not_equal(ftruncate(file, (off_t)sizes[part] * 2), 0);
#endif
        umo_os_file_close(file);
    }
    uint64_t seed = 20261128;
    for (int round = 0; round < 60; round++) {
        for (uint32_t part = 0; part < 3; part++) {
            for (size_t at = 0; at + 8 <= sizes[part]; at += 8) {
                const uint64_t any = random_next(&seed);
                const uint64_t word = any % 3 == 0 ? UINT64_MAX : any % 3 == 1 ? any : any % 8;
                memcpy(pages[part] + at, &word, 8);
            }
        }
        assert_int_equal(tell(&o, round % 4 == 0 ? 's' : round % 4 == 2 ? 'p' : 'e'), 'd');
        assert_int_equal(tell(&o, 'c'), 'd');
        assert_true(tell(&o, 'o') != 0);
        (void)tell(&o, 'n');
        /* The one who looks on is not hurt by a process that writes anything, either. */
        umo_recorder_stats stats;
        umo_status_ignore(umo_recorder_drain(r, marked_check, &s, &stats));
    }
    for (uint32_t part = 0; part < 3; part++) {
        if (part != 0) {
            memset(pages[part], 0, sizes[part]);
        }
        umo_os_mapping_drop(pages[part], sizes[part]);
    }
    umo_recorder_close(r);
    assert_int_equal(tell(&o, 's'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'n'), '1');
    assert_int_equal(other_end(&o), 0);
}

static void a_ring_that_lies_about_its_size_is_not_read(void **state)
{
    (void)state;
    static const struct {
        uint32_t shard_count;
        uint64_t shard_slots;
    } lies[] = {{1, UINT64_C(1) << 40},
                {1, UINT64_C(1) << 63},
                {64, UINT64_C(1) << 20},
                {0, 64},
                {3, 64},
                {128, 64},
                {1, 0},
                {1, 65}};
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, (size_t)1 << 20, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    int file;
    size_t size_bytes;
    int cause;
    assert_int_equal(umo_os_shown_open(o.pid, 1, &file, &size_bytes, &cause), UMO_OK);
    umo_trace_part *part = umo_os_shown_map(file, size_bytes, NULL, true);
    assert_non_null(part);
    umo_os_file_close(file);
    const umo_trace_part true_part = *part;
    seen s = {0};
    for (size_t i = 0; i <= sizeof lies / sizeof lies[0]; i++) {
        const bool honest = i == sizeof lies / sizeof lies[0];
        umo_recorder *other_r = recorder_open(&o);
        part->shard_count = honest ? true_part.shard_count : lies[i].shard_count;
        part->shard_slots = honest ? true_part.shard_slots : lies[i].shard_slots;
        assert_int_equal(umo_recorder_start(other_r, 0, NULL), UMO_OK);
        assert_int_equal(umo_recorder_drain(other_r, marked_check, &s, NULL),
                         honest ? UMO_OK : UMO_E_NOMEM);
        umo_recorder_close(other_r);
    }
    assert_int_equal(drain(r, &s).drained, 100);
    umo_os_mapping_drop(part, size_bytes);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_opened_is_said),
        cmocka_unit_test(whatever_is_written_into_the_pages_hurts_nobody),
        cmocka_unit_test(a_ring_that_lies_about_its_size_is_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * The flight recorder by itself: what goes in comes out whole, what is lost is counted, and a disk
 * that fails leaves the old file as it was.
 */
#include "base/scope.h"
#include "trace/csv_test.h"
#include "trace/trace.h"

#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define THREADS 8u

static char folder[] = "/tmp/umo-profile-XXXXXX";
static char table_path[64];

typedef struct seen {
    uint64_t count;
    uint64_t last_time;
    uint64_t wrong;
    umo_profile_event last;
} seen;

static void start(size_t memory_bytes, uint32_t shards)
{
    const umo_profile_options options = {.memory_bytes = memory_bytes, .shards = shards};
    assert_int_equal(umo_profile_start(&options, NULL), UMO_OK);
}

static umo_profile_stats figures(void)
{
    umo_profile_stats stats;
    assert_int_equal(umo_profile_read(NULL, NULL, &stats), UMO_OK);
    return stats;
}

/* Every word of such an event follows from two numbers, so a mixture of two is seen. */
static void marked_write(uint64_t who, uint64_t number)
{
    const uint64_t mark = who << 40 | number;
    UMO_TRACE(.kind = UMO_EVENT_ACCESS_END, .buffer = mark, .offset_bytes = ~mark,
              .size_bytes = mark * 3, .fence_value = mark ^ 0x5555, .detail = (uint32_t)number,
              .side = (uint32_t)(number & 3), .queue = (uint32_t)(number & 7));
}

static bool marked_check(const umo_profile_event *e, void *user)
{
    seen *s = user;
    const uint64_t mark = e->buffer;
    const uint64_t number = mark & ((UINT64_C(1) << 40) - 1);
    bool whole = e->offset_bytes == ~mark && e->size_bytes == mark * 3 &&
                 e->fence_value == (mark ^ 0x5555) && e->detail == (uint32_t)number &&
                 e->side == (number & 3) && e->queue == (number & 7) &&
                 e->kind == UMO_EVENT_ACCESS_END && e->thread != 0;
    s->wrong += whole ? 0 : 1;
    s->count++;
    s->last = *e;
    return true;
}

/* ---- one thread ---- */

/* First of all tests: nothing was ever recorded. */
static void before_the_first_start_there_is_nothing_to_read(void **state)
{
    (void)state;
    umo_error error = {0};
    assert_int_equal(umo_profile_read(NULL, NULL, NULL), UMO_E_NOT_FOUND);
    assert_int_equal(umo_profile_dump(table_path, &error), UMO_E_NOT_FOUND);
    assert_int_equal(access(table_path, F_OK), -1);
    assert_false(umo_trace_on());
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_false(umo_trace_on());
    assert_int_equal(umo_trace_clock(), 0);
    assert_int_equal(umo_profile_enable(true), UMO_OK);
    assert_true(umo_trace_on());
    assert_int_not_equal(umo_trace_clock(), 0);
    assert_int_equal(figures().recorded, 0);
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    const umo_profile_options bad[] = {
        {.shards = 3},
        {.shards = 128},
        {.memory_bytes = ((size_t)1 << 30) + 1},
        {.memory_bytes = SIZE_MAX, .shards = 1},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        umo_error error = {0};
        assert_int_equal(umo_profile_start(&bad[i], &error), UMO_E_INVAL);
        assert_non_null(strstr(error.text, "1 GiB"));
    }
    start(1, 1);
    assert_int_equal(figures().capacity, 64);
    start((size_t)80 * 128, 1);
    assert_int_equal(figures().capacity, 128);
    start((size_t)80 * 128 * 4 + 79, 4);
    assert_int_equal(figures().capacity, 512);
    assert_true(figures().memory_bytes >= 512 * 80);
}

static void an_event_comes_back_whole(void **state)
{
    (void)state;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "who", 0, &scope, NULL), UMO_OK);
    start(0, 1);
    uint64_t began = umo_trace_clock();
    UMO_TRACE(.kind = UMO_EVENT_MOVE, .scope = scope, .device = 7, .driver = "host", .buffer = 11,
              .offset_bytes = 12, .size_bytes = UINT64_MAX, .fence_value = 13, .queue = 7,
              .detail = UINT32_MAX, .side = UMO_SIDE_DEVICE, .use = 3, .mode = UMO_PRIVATE + 1,
              .mode_before = UMO_UNIFIED + 1, .direction = UMO_DIRECTION_OUT + 1,
              .reason = UMO_REASON_MODE, .status = UMO_E_TIMEOUT, .start_ns = began);
    UMO_TRACE(.kind = UMO_EVENT_POOL_TRIM);
    seen s = {0};
    umo_profile_stats stats;
    assert_int_equal(umo_profile_read(marked_check, &s, &stats), UMO_OK);
    assert_int_equal(stats.recorded, 2);
    assert_int_equal(stats.lost, 0);
    assert_int_equal(s.last.mode, 0xFF);
    assert_int_equal(s.last.kind, UMO_EVENT_POOL_TRIM);
    assert_int_equal(s.last.duration_ns, 0);
    assert_string_equal(s.last.scope_name, "");

    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    csv c = csv_open(table_path);
    assert_true(csv_next(&c));
    assert_string_equal(csv_text(&c, "kind"), "move");
    assert_int_equal(csv_number(&c, "events"), 1);
    assert_int_equal(csv_number(&c, "scope"), umo_scope_number(scope));
    assert_string_equal(csv_text(&c, "scope_name"), "who");
    assert_int_equal(csv_number(&c, "device"), 7);
    assert_string_equal(csv_text(&c, "driver"), "host");
    assert_int_equal(csv_number(&c, "buffer"), 11);
    assert_string_equal(csv_text(&c, "mode"), "private");
    assert_string_equal(csv_text(&c, "mode_before"), "unified");
    assert_string_equal(csv_text(&c, "side"), "device");
    assert_string_equal(csv_text(&c, "use"), "read_write");
    assert_string_equal(csv_text(&c, "direction"), "out");
    assert_int_equal(csv_number(&c, "offset_bytes"), 12);
    assert_true(csv_number(&c, "size_bytes") == UINT64_MAX);
    assert_true(csv_number(&c, "duration_ns") < UINT64_C(1000000000));
    assert_int_equal(csv_number(&c, "queue"), 7);
    assert_int_equal(csv_number(&c, "fence"), 13);
    assert_string_equal(csv_text(&c, "reason"), umo_reason_label(UMO_REASON_MODE));
    assert_true(csv_number(&c, "detail") == UINT32_MAX);
    assert_string_equal(csv_text(&c, "status"), "TIMEOUT");
    assert_true(csv_next(&c));
    assert_string_equal(csv_text(&c, "kind"), "pool_trim");
    assert_string_equal(csv_text(&c, "mode"), "");
    assert_string_equal(csv_text(&c, "buffer"), "");
    assert_true(csv_next(&c));
    assert_string_equal(csv_text(&c, "kind"), "lost");
    assert_int_equal(csv_number(&c, "events"), 0);
    assert_false(csv_next(&c));
    csv_close(&c);
    umo_scope_destroy(scope);
}

static void what_is_overwritten_is_counted(void **state)
{
    (void)state;
    start(1, 1);
    for (uint64_t i = 0; i < 1000; i++) {
        marked_write(1, i);
    }
    seen s = {0};
    umo_profile_stats stats;
    assert_int_equal(umo_profile_read(marked_check, &s, &stats), UMO_OK);
    assert_int_equal(stats.recorded, 1000);
    assert_int_equal(s.count, 64);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(stats.lost, 1000 - 64);
    assert_int_equal(s.last.detail, 999);

    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    csv c = csv_open(table_path);
    for (uint64_t i = 936; i < 1000; i++) {
        assert_true(csv_next(&c));
        assert_int_equal(csv_number(&c, "detail"), i);
    }
    assert_true(csv_next(&c));
    assert_string_equal(csv_text(&c, "kind"), "lost");
    assert_int_equal(csv_number(&c, "events"), 936);
    assert_false(csv_next(&c));
    csv_close(&c);
}

static void a_pause_keeps_and_a_start_forgets(void **state)
{
    (void)state;
    start(0, 1);
    marked_write(1, 1);
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    marked_write(1, 2);
    assert_int_equal(figures().recorded, 1);
    assert_false(figures().recording);
    assert_int_equal(umo_profile_enable(true), UMO_OK);
    assert_true(figures().recording);
    marked_write(1, 3);
    seen s = {0};
    assert_int_equal(umo_profile_read(marked_check, &s, NULL), UMO_OK);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.last.detail, 3);
    start(0, 1);
    assert_int_equal(figures().recorded, 0);
    /* Another shape, and back: what lies in the old memory is not taken for new. */
    marked_write(1, 4);
    start(1, 2);
    assert_int_equal(figures().recorded, 0);
    start(0, 1);
    s = (seen){0};
    umo_profile_stats stats;
    assert_int_equal(umo_profile_read(marked_check, &s, &stats), UMO_OK);
    assert_int_equal(s.count + stats.recorded + stats.lost, 0);
}

static bool stop_at_three(const umo_profile_event *event, void *user)
{
    (void)event;
    return ++*(int *)user < 3;
}

static void a_visit_may_end_the_reading(void **state)
{
    (void)state;
    start(0, 1);
    for (uint64_t i = 0; i < 10; i++) {
        marked_write(1, i);
    }
    int visits = 0;
    assert_int_equal(umo_profile_read(stop_at_three, &visits, NULL), UMO_OK);
    assert_int_equal(visits, 3);
}

static void counts_made_by_others_are_events(void **state)
{
    (void)state;
    umo_scope *root = NULL;
    umo_scope *scope = NULL;
    assert_int_equal(umo_scope_create(NULL, "root", 0, &root, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(root, "model", 0, &scope, NULL), UMO_OK);
    start(0, 1);
    umo_scope_count_transfer(scope, UMO_DIRECTION_IN, true, 1);
    umo_scope_count_transfer(scope, UMO_DIRECTION_OUT, false, 2);
    umo_scope_count_copy(scope, UMO_DIRECTION_IN, UMO_REASON_SCATTERED, 3);
    umo_scope_count_copy_avoided(scope, UMO_DIRECTION_OUT, 4);
    umo_scope_add_transfer(scope, UMO_DIRECTION_IN, true, 5);
    umo_scope_count_copy(NULL, UMO_DIRECTION_IN, UMO_REASON_SCATTERED, 6);
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    umo_scope_count_copy_avoided(scope, UMO_DIRECTION_OUT, 7);
    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    static const char *const kinds[] = {"transfer_performed", "transfer_eliminated", "copy",
                                        "copy_avoided"};
    static const char *const directions[] = {"in", "out", "in", "out"};
    csv c = csv_open(table_path);
    for (size_t i = 0; i < 4; i++) {
        assert_true(csv_next(&c));
        assert_string_equal(csv_text(&c, "kind"), kinds[i]);
        assert_string_equal(csv_text(&c, "direction"), directions[i]);
        assert_int_equal(csv_number(&c, "size_bytes"), i + 1);
        assert_string_equal(csv_text(&c, "scope_name"), "model");
        assert_string_equal(csv_text(&c, "reason"),
                            i == 2 ? umo_reason_label(UMO_REASON_SCATTERED) : "");
    }
    assert_true(csv_next(&c));
    assert_string_equal(csv_text(&c, "kind"), "lost");
    csv_close(&c);
    umo_counters counters;
    umo_scope_read(root, &counters);
    assert_int_equal(counters.transfer_performed[UMO_DIRECTION_IN].bytes, 6);
    umo_scope_destroy(scope);
    umo_scope_destroy(root);
}

/* ---- names ---- */

static void hostile_names_are_harmless(void **state)
{
    (void)state;
    static const struct {
        const char *name, *cell;
    } cases[] = {
        {"plain", "plain"},
        {"=cmd|' /C calc'!A0", "'=cmd|' /C calc'!A0"},
        {"  +1", "'  +1"},
        {"-1", "'-1"},
        {"@SUM(A1)", "'@SUM(A1)"},
        {"\t=1", "'?=1"},
        {"\xef\xbc\x9d\x31", "'\xef\xbc\x9d\x31"},
        {" \xef\xbc\xa0", "' \xef\xbc\xa0"},
        {"a,b;c", "a,b;c"},
        {"say \"x\"", "say \"x\""},
        {"\"", "\""},
        {"two\nlines\r", "two?lines?"},
        {"\x1b[31m", "?[31m"},
        {"caf\xc3\xa9", "caf\xc3\xa9"},
        {"\xff\xfe", "??"},
        {"cut \xe2\x82", "cut ??"},
        {"\xc0\xaf\xed\xa0\x80", "?????"},
        {"\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80"},
        {"\xc2\x9b", "??"},
        {"", ""},
    };
    enum {
        COUNT = sizeof cases / sizeof cases[0]
    };
    umo_scope *scopes[COUNT];
    start(0, 1);
    for (size_t i = 0; i < COUNT; i++) {
        assert_int_equal(umo_scope_create(NULL, cases[i].name, 0, &scopes[i], NULL), UMO_OK);
        UMO_TRACE(.kind = UMO_EVENT_ALLOC, .scope = scopes[i]);
    }
    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    csv c = csv_open(table_path);
    for (size_t i = 0; i < COUNT; i++) {
        assert_true(csv_next(&c));
        assert_string_equal(csv_text(&c, "scope_name"), cases[i].cell);
        assert_true(cases[i].name[0] == '\0' || c.quoted[csv_column(&c, "scope_name")]);
        umo_scope_destroy(scopes[i]);
    }
    csv_close(&c);
}

/* The table of names is bounded; what does not fit is counted, and its number stays. Runs in a
 * child, because names are kept as long as a process lives. */
static int names_fill(void)
{
    enum {
        SCOPES = 4000
    };
    start(0, 1);
    uint64_t unnamed = 0;
    for (int i = 0; i < SCOPES; i++) {
        umo_scope *scope = NULL;
        if (umo_scope_create(NULL, "one of many", 0, &scope, NULL) != UMO_OK) {
            return 1;
        }
        UMO_TRACE(.kind = UMO_EVENT_ALLOC, .scope = scope);
        umo_scope_destroy(scope);
    }
    if (umo_profile_dump(table_path, NULL) != UMO_OK) {
        return 2;
    }
    csv c = csv_open(table_path);
    int rows = 0;
    while (csv_next(&c) && strcmp(csv_text(&c, "kind"), "lost") != 0) {
        rows++;
        unnamed += csv_text(&c, "scope_name")[0] == '\0' ? 1 : 0;
        if (csv_number(&c, "scope") == 0) {
            return 3;
        }
    }
    bool right = rows == SCOPES && csv_number(&c, "detail") == unnamed &&
                 figures().names_lost == unnamed && unnamed >= SCOPES - 1024 && unnamed < SCOPES;
    csv_close(&c);
    return right ? 0 : 4;
}

static int in_child(int (*run)(void))
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(run());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static void names_that_find_no_room_are_counted(void **state)
{
    (void)state;
    assert_int_equal(in_child(names_fill), 0);
}

/* ---- files ---- */

static unsigned files_in_folder(void)
{
    unsigned count = 0;
    DIR *listing = opendir(folder);
    assert_non_null(listing);
    for (struct dirent *entry; (entry = readdir(listing)) != NULL;) {
        count += entry->d_name[0] == '.' ? 0 : 1;
    }
    (void)closedir(listing);
    return count;
}

static void old_file_write(void)
{
    FILE *file = fopen(table_path, "w");
    assert_non_null(file);
    assert_true(fputs("the old file", file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static bool old_file_whole(void)
{
    char text[64] = "";
    FILE *file = fopen(table_path, "r");
    if (file == NULL) {
        return false;
    }
    size_t got = fread(text, 1, sizeof text - 1, file);
    (void)fclose(file);
    return got == strlen("the old file") && strcmp(text, "the old file") == 0;
}

static void many_write(void)
{
    for (uint64_t i = 0; i < 4000; i++) {
        marked_write(1, i);
    }
}

/* As a full disk, but for the number; and the signal that goes with it must not end the process. */
static int disk_fill(void)
{
    const struct rlimit limit = {.rlim_cur = 40000, .rlim_max = 40000};
#ifdef __APPLE__
    many_write(); /* the ring is no file there, but it is one for the loader of tests/macho */
#endif
    if (setrlimit(RLIMIT_FSIZE, &limit) != 0) {
        return 1;
    }
    many_write();
    umo_error error = {0};
    if (umo_profile_dump(table_path, &error) != UMO_E_SYSTEM || error.native != EFBIG ||
        strstr(error.text, "written") == NULL || strstr(error.text, strerror(EFBIG)) == NULL) {
        return 2;
    }
    sigset_t pending;
    return sigpending(&pending) == 0 && sigismember(&pending, SIGXFSZ) == 0 ? 0 : 3;
}

static void a_full_disk_leaves_the_old_file(void **state)
{
    (void)state;
    start(0, 1);
    many_write();
    (void)unlink(table_path);
    old_file_write();
    assert_int_equal(in_child(disk_fill), 0);
    assert_true(old_file_whole());
    assert_int_equal(files_in_folder(), 1);
    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    assert_false(old_file_whole());
    assert_int_equal(files_in_folder(), 1);
    struct stat written;
    assert_int_equal(stat(table_path, &written), 0);
    assert_int_equal(written.st_mode & 0777, 0600);
#ifdef __linux__
    umo_error error = {0};
    assert_int_equal(umo_profile_dump("/dev/full", &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, ENOSPC);
    assert_int_equal(stat("/dev/full", &written), 0);
    assert_true(S_ISCHR(written.st_mode));
#endif
}

static void a_path_that_cannot_be_written_is_an_error(void **state)
{
    (void)state;
    start(0, 1);
    char below_a_file[128];
    (void)snprintf(below_a_file, sizeof below_a_file, "%s/x", table_path);
    char *endless = malloc(5000);
    assert_non_null(endless);
    memset(endless, 'a', 4999);
    endless[4999] = '\0';
    old_file_write();
    umo_error error = {0};
    assert_int_equal(umo_profile_dump(NULL, &error), UMO_E_INVAL);
    assert_int_equal(umo_profile_dump("", &error), UMO_E_INVAL);
    assert_int_equal(umo_profile_dump(endless, &error), UMO_E_INVAL);
    endless[300] = '\0';
    assert_int_equal(umo_profile_dump(endless, &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, ENAMETOOLONG);
    assert_int_equal(umo_profile_dump(below_a_file, &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, ENOTDIR);
    assert_int_equal(umo_profile_dump(folder, &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, EISDIR);
    assert_non_null(strstr(error.text, "opened"));
    assert_int_equal(umo_profile_dump("/nowhere/at/all", &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, ENOENT);
    assert_non_null(strstr(error.text, strerror(ENOENT)));
    assert_true(old_file_whole());
    assert_int_equal(files_in_folder(), 1);
    free(endless);
}

static void a_link_stays_a_link_and_a_pipe_gets_the_table(void **state)
{
    (void)state;
    start(0, 1);
    marked_write(1, 1);
    char link_path[80];
    (void)snprintf(link_path, sizeof link_path, "%s/link", folder);
    old_file_write();
    assert_int_equal(symlink(table_path, link_path), 0);
    assert_int_equal(umo_profile_dump(link_path, NULL), UMO_OK);
    struct stat is;
    assert_int_equal(lstat(link_path, &is), 0);
    assert_true(S_ISLNK(is.st_mode));
    csv c = csv_open(table_path);
    assert_true(csv_next(&c));
    csv_close(&c);
    assert_int_equal(unlink(link_path), 0);

    int ends[2];
    assert_int_equal(pipe(ends), 0);
    char name[32];
    (void)snprintf(name, sizeof name, "/dev/fd/%d", ends[1]);
    assert_int_equal(umo_profile_dump(name, NULL), UMO_OK);
    char text[64] = "";
    assert_true(read(ends[0], text, sizeof text - 1) > 0);
    assert_memory_equal(text, "time_ns,", 8);
    /* Nobody reads any more: an error, and no signal. */
    (void)close(ends[0]);
    umo_error error = {0};
    assert_int_equal(umo_profile_dump(name, &error), UMO_E_SYSTEM);
    assert_int_equal(error.native, EPIPE);
    (void)close(ends[1]);
}

#ifdef __linux__ /* elsewhere the limit is not kept */
static int memory_lack(void)
{
    const struct rlimit limit = {.rlim_cur = 1 << 20, .rlim_max = 1 << 20};
    const umo_profile_options options = {.memory_bytes = (size_t)512 << 20, .shards = 1};
    umo_error error = {0};
    marked_write(1, 1);
    if (setrlimit(RLIMIT_AS, &limit) != 0) {
        return 1;
    }
    if (umo_profile_start(&options, &error) != UMO_E_NOMEM || error.text[0] == '\0') {
        return 2;
    }
    /* The recording before goes on. */
    marked_write(1, 2);
    return figures().recorded == 2 ? 0 : 3;
}

static void a_start_without_memory_leaves_the_recording(void **state)
{
    (void)state;
    start(0, 1);
    assert_int_equal(in_child(memory_lack), 0);
}
#endif

/* ---- threads and processes ---- */

static _Atomic bool stop;
static uint64_t events_each;

static void *writer_main(void *argument)
{
    const uint64_t who = (uint64_t)(uintptr_t)argument;
    for (uint64_t i = 0; i < events_each; i++) {
        marked_write(who, i);
    }
    return NULL;
}

static void *reader_main(void *argument)
{
    seen *s = argument;
    while (!stop) {
        seen now = {0};
        umo_profile_stats stats;
        if (umo_profile_read(marked_check, &now, &stats) != UMO_OK ||
            stats.recorded != now.count + stats.lost) {
            s->wrong++;
        }
        s->wrong += now.wrong;
        s->count += now.count;
    }
    return NULL;
}

static void threads_join(pthread_t *threads, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }
}

/* Eight writers in rings so short that they meet in its slots all the time. */
static void no_reader_sees_a_mixture_and_no_event_goes_uncounted(void **state)
{
    (void)state;
    const uint32_t shards[] = {1, 2, 8};
    for (size_t i = 0; i < 3; i++) {
        start(1, shards[i]);
        pthread_t writers[THREADS];
        pthread_t reader;
        seen s = {0};
        stop = false;
        events_each = 20000;
        assert_int_equal(pthread_create(&reader, NULL, reader_main, &s), 0);
        for (uintptr_t t = 0; t < THREADS; t++) {
            assert_int_equal(pthread_create(&writers[t], NULL, writer_main, (void *)(t + 1)), 0);
        }
        threads_join(writers, THREADS);
        stop = true;
        threads_join(&reader, 1);
        assert_int_equal(s.wrong, 0);
        s = (seen){0};
        umo_profile_stats stats;
        assert_int_equal(umo_profile_read(marked_check, &s, &stats), UMO_OK);
        assert_int_equal(stats.recorded, THREADS * events_each);
        assert_int_equal(stats.lost + s.count, stats.recorded);
        assert_int_equal(s.wrong, 0);
        assert_true(s.count > 0);
    }
}

static void *switch_main(void *argument)
{
    (void)argument;
    for (unsigned i = 0; !stop; i++) {
        const umo_profile_options options = {.memory_bytes = (size_t)5120 << i % 4, .shards = 1};
        umo_status_ignore(umo_profile_enable(i % 3 != 0));
        if (i % 5 == 0) {
            umo_status_ignore(umo_profile_start(&options, NULL));
        }
    }
    return NULL;
}

static void starting_and_pausing_disturb_nobody(void **state)
{
    (void)state;
    start(0, 2);
    pthread_t writers[THREADS];
    pthread_t others[2];
    seen s = {0};
    stop = false;
    events_each = 20000;
    assert_int_equal(pthread_create(&others[0], NULL, switch_main, NULL), 0);
    assert_int_equal(pthread_create(&others[1], NULL, reader_main, &s), 0);
    for (uintptr_t t = 0; t < THREADS; t++) {
        assert_int_equal(pthread_create(&writers[t], NULL, writer_main, (void *)(t + 1)), 0);
    }
    threads_join(writers, THREADS);
    stop = true;
    threads_join(others, 2);
    assert_int_equal(s.wrong, 0);
}

static void a_dump_under_load_is_a_table(void **state)
{
    (void)state;
    start((size_t)1 << 17, 2);
    pthread_t writers[2];
    events_each = 60000;
    for (uintptr_t t = 0; t < 2; t++) {
        assert_int_equal(pthread_create(&writers[t], NULL, writer_main, (void *)(t + 1)), 0);
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
        csv c = csv_open(table_path);
        bool lost_said = false;
        while (csv_next(&c)) {
            assert_false(lost_said);
            lost_said = strcmp(csv_text(&c, "kind"), "lost") == 0;
            const uint64_t mark = csv_number(&c, "buffer");
            assert_true(lost_said || csv_number(&c, "size_bytes") == mark * 3);
            assert_true(lost_said || csv_number(&c, "offset_bytes") == ~mark);
        }
        assert_true(lost_said);
        csv_close(&c);
    }
    threads_join(writers, 2);
    assert_int_equal(files_in_folder(), 1);
}

static int child_record(void)
{
    marked_write(2, 2);
    seen s = {0};
    umo_profile_stats stats;
    if (umo_profile_read(marked_check, &s, &stats) != UMO_OK || s.count != 1 || s.wrong != 0) {
        return 1;
    }
    start(0, 2);
    return umo_profile_enable(false) == UMO_OK && figures().recorded == 0 ? 0 : 2;
}

static void a_child_goes_on_in_a_recording_of_its_own(void **state)
{
    (void)state;
    start(0, 1);
    marked_write(1, 1);
    assert_int_equal(in_child(child_record), 0);
    assert_int_equal(figures().recorded, 1);
    assert_true(figures().recording);
    /* While others start and pause, so that a child is made with their lock held. */
    pthread_t switcher;
    stop = false;
    assert_int_equal(pthread_create(&switcher, NULL, switch_main, NULL), 0);
    for (int i = 0; i < 20; i++) {
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)alarm(20);
            _exit(umo_profile_enable(true) == UMO_OK ? 0 : 1);
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    stop = true;
    threads_join(&switcher, 1);
}

static void kinds_have_names(void **state)
{
    (void)state;
    for (int i = 0; i < UMO_EVENT_KINDS; i++) {
        assert_non_null(umo_event_kind_name((umo_event_kind)i));
        for (int k = 0; k < i; k++) {
            assert_string_not_equal(umo_event_kind_name((umo_event_kind)i),
                                    umo_event_kind_name((umo_event_kind)k));
        }
    }
    assert_string_equal(umo_event_kind_name((umo_event_kind)UMO_EVENT_KINDS), "unknown");
}

int main(void)
{
    if (mkdtemp(folder) == NULL) {
        return 1;
    }
    (void)snprintf(table_path, sizeof table_path, "%s/table.csv", folder);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before_the_first_start_there_is_nothing_to_read),
        cmocka_unit_test(impossible_options_are_refused),
        cmocka_unit_test(an_event_comes_back_whole),
        cmocka_unit_test(what_is_overwritten_is_counted),
        cmocka_unit_test(a_pause_keeps_and_a_start_forgets),
        cmocka_unit_test(a_visit_may_end_the_reading),
        cmocka_unit_test(counts_made_by_others_are_events),
        cmocka_unit_test(hostile_names_are_harmless),
        cmocka_unit_test(names_that_find_no_room_are_counted),
        cmocka_unit_test(a_full_disk_leaves_the_old_file),
        cmocka_unit_test(a_path_that_cannot_be_written_is_an_error),
        cmocka_unit_test(a_link_stays_a_link_and_a_pipe_gets_the_table),
#ifdef __linux__
        cmocka_unit_test(a_start_without_memory_leaves_the_recording),
#endif
        cmocka_unit_test(no_reader_sees_a_mixture_and_no_event_goes_uncounted),
        cmocka_unit_test(starting_and_pausing_disturb_nobody),
        cmocka_unit_test(a_dump_under_load_is_a_table),
        cmocka_unit_test(a_child_goes_on_in_a_recording_of_its_own),
        cmocka_unit_test(kinds_have_names),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(table_path);
    (void)rmdir(folder);
    return failed;
}

/*
 * The watch on made-up machines: a folder stands for procfs and for the mounts that it names, and
 * the test is the kernel that signals the eventfds. What only the kernel can do (removing a cgroup,
 * passing a mark) is tried in a cgroup of our own, where one can be made.
 */
#include "os/linux_cgroup.h"
#include "os/watch.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <linux/magic.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)
#define S (1000 * MS)
#define NONE "9223372036854771712"

/* ---- a made-up machine ---- */

static char top[64];

static const char *at(const char *name)
{
    static char path[4][PATH_MAX];
    static unsigned turn;
    char *out = path[turn++ % 4];
    (void)snprintf(out, PATH_MAX, "%s/%s", top, name);
    return out;
}

static void put(const char *name, const char *text)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s", at(name));
    for (char *slash = strchr(path + strlen(top) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(path, 0755);
        *slash = '/';
    }
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void put_number(const char *folder, const char *name, uint64_t value)
{
    char path[PATH_MAX];
    char text[32];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    (void)snprintf(text, sizeof text, "%llu\n", (unsigned long long)value);
    put(path, text);
}

static void put_group1(const char *folder, const char *limit, uint64_t usage, uint64_t idle)
{
    char path[PATH_MAX];
    char text[128];
    (void)snprintf(path, sizeof path, "%s/memory.limit_in_bytes", folder);
    put(path, limit);
    put_number(folder, "memory.usage_in_bytes", usage);
    (void)snprintf(path, sizeof path, "%s/memory.stat", folder);
    (void)snprintf(text, sizeof text, "cache 1\ninactive_file 7\ntotal_inactive_file %llu\n",
                   (unsigned long long)idle);
    put(path, text);
    (void)snprintf(path, sizeof path, "%s/cgroup.event_control", folder);
    put(path, "");
    (void)snprintf(path, sizeof path, "%s/memory.pressure_level", folder);
    put(path, "");
}

static void put_group2(const char *folder, const char *max, const char *high, uint64_t usage)
{
    char path[PATH_MAX];
    (void)snprintf(path, sizeof path, "%s/memory.max", folder);
    put(path, max);
    (void)snprintf(path, sizeof path, "%s/memory.high", folder);
    put(path, high);
    (void)snprintf(path, sizeof path, "%s/memory.events", folder);
    put(path, "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n");
    put_number(folder, "memory.current", usage);
}

/* A mount of a folder of the machine, as a line of mountinfo. */
static void mounts(const char *text, ...)
{
    char line[PATH_MAX * 2];
    va_list list;
    va_start(list, text);
    (void)vsnprintf(line, sizeof line, text, list);
    va_end(list);
    put("proc/self/mountinfo", line);
}

static int machine_setup(void **state)
{
    (void)state;
    (void)snprintf(top, sizeof top, "%s", "/tmp/umo-watch-XXXXXX");
    if (mkdtemp(top) == NULL) {
        return -1;
    }
    put("proc/meminfo", "MemTotal:       1024000 kB\nMemFree: 5 kB\nMemAvailable:    256000 kB\n");
    put("proc/self/cgroup", "4:memory:/a/b\n3:cpu,cpuacct:/x\n0::/u\n");
    mounts("35 31 0:32 / %s/cg rw,relatime shared:7 - cgroup cgroup rw,memory\n"
           "41 31 0:38 / %s/un rw,relatime - cgroup2 cgroup2 rw\n",
           top, top);
    put_group1("cg", NONE, 900 * MIB, 0);
    put_group1("cg/a", "209715200\n", 150 * MIB, 0);
    put_group1("cg/a/b", NONE "\n", 90 * MIB, 0);
    put("un/u/memory.pressure", "some avg10=0.00\n");
    return 0;
}

static int entry_remove(const char *path, const struct stat *info, int kind, struct FTW *walk)
{
    (void)info;
    (void)kind;
    (void)walk;
    return remove(path);
}

static int machine_teardown(void **state)
{
    (void)state;
    return nftw(top, entry_remove, 8, FTW_DEPTH | FTW_PHYS);
}

static umo_os_watch *watch_open(bool events)
{
    static char proc[PATH_MAX];
    (void)snprintf(proc, sizeof proc, "%s", at("proc"));
    umo_os_watch_options options = {
        .proc = proc, .marks = {0.8, 0.86, 0.93}, .events = events, .signals_off = 0};
    umo_os_watch *watch;
    assert_int_equal(umo_os_watch_create(&options, &watch, NULL), UMO_OK);
    return watch;
}

static umo_os_watch_sample sample_at(umo_os_watch *watch, uint64_t now_ns)
{
    umo_os_watch_sample sample;
    umo_os_watch_read(watch, now_ns, &sample);
    return sample;
}

/* One sample of a watch that is made for it. */
static umo_os_watch_sample sample_once(void)
{
    umo_os_watch *watch = watch_open(false);
    umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns());
    umo_os_watch_destroy(watch);
    return sample;
}

static const umo_os_reading *cgroup_of(const umo_os_watch_sample *sample)
{
    return &sample->gauges[UMO_OS_GAUGE_CGROUP];
}

static void cgroup_is(const umo_os_watch_sample *sample, uint64_t usage, uint64_t limit)
{
    assert_null(cgroup_of(sample)->presence.why);
    assert_int_equal(cgroup_of(sample)->usage_bytes, usage);
    assert_int_equal(cgroup_of(sample)->limit_bytes, limit);
}

static void cgroup_absent(const char *words)
{
    umo_os_watch_sample sample = sample_once();
    assert_non_null(cgroup_of(&sample)->presence.why);
    assert_non_null(strstr(cgroup_of(&sample)->presence.why, words));
    assert_int_equal(cgroup_of(&sample)->limit_bytes, 0);
}

/* ---- where it looks ---- */

static void a_limit_above_the_own_cgroup_counts(void **state)
{
    (void)state;
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
    put("cg/a/b/memory.limit_in_bytes", "104857600");
    sample = sample_once(); /* 90 of 100 is nearer than 150 of 200 */
    cgroup_is(&sample, 90 * MIB, 100 * MIB);
    umo_os_watch *watch = watch_open(false);
    assert_int_equal(umo_os_watch_limit(watch), 100 * MIB);
    umo_os_watch_destroy(watch);
}

static void physical_memory_is_what_is_not_available(void **state)
{
    (void)state;
    umo_os_watch_sample sample = sample_once();
    const umo_os_reading *physical = &sample.gauges[UMO_OS_GAUGE_PHYSICAL];
    assert_null(physical->presence.why);
    assert_int_equal(physical->limit_bytes, UINT64_C(1024000) * 1024);
    assert_int_equal(physical->usage_bytes, UINT64_C(768000) * 1024);
}

static void version_2_takes_the_lower_of_max_and_high(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/pod/c\n");
    put_group2("un/pod", "max\n", "max\n", 70 * MIB);
    put_group2("un/pod/c", "209715200\n", "104857600\n", 60 * MIB);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 60 * MIB, 100 * MIB);
    put_group2("un/pod/c", "209715200\n", "max\n", 60 * MIB);
    sample = sample_once();
    cgroup_is(&sample, 60 * MIB, 200 * MIB);
}

static void version_2_without_the_controller_is_named(void **state)
{
    (void)state;
    put("proc/self/cgroup", "0::/u\n");
    cgroup_absent("memory files cannot be read");
}

static void a_mount_that_shows_a_part_is_followed_from_its_root(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/docker/c1/inner\n");
    mounts("35 31 0:32 /docker/c1 %s/cg rw - cgroup cgroup rw,memory\n", top);
    put_group1("cg", "419430400", 100 * MIB, 0);
    put_group1("cg/inner", "209715200", 100 * MIB, 0);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 100 * MIB, 200 * MIB);
    /* A root that is only the start of another name is not above it. */
    put("proc/self/cgroup", "4:memory:/docker/c12\n");
    cgroup_absent("no mount shows the cgroup");
}

static void in_a_namespace_the_mount_is_the_own_cgroup(void **state)
{
    (void)state;
    put("proc/self/cgroup", "4:memory:/\n");
    put_group1("cg", "209715200", 110 * MIB, 0);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 110 * MIB, 200 * MIB);
}

static void what_lies_outside_the_namespace_is_not_guessed(void **state)
{
    (void)state;
    mounts("35 31 0:32 /../.. %s/cg rw - cgroup cgroup rw,memory\n", top);
    cgroup_absent("no mount shows the cgroup");
    mounts("35 31 0:32 / %s/cg rw - cgroup cgroup rw,memory\n", top);
    put("proc/self/cgroup", "4:memory:/../a\n");
    cgroup_absent("no mount shows the cgroup");
    put("proc/self/cgroup", "4:memory:/..a\n"); /* a name */
    put_group1("cg/..a", "209715200", 110 * MIB, 0);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 110 * MIB, 200 * MIB);
}

static void a_mount_that_hides_it_does_not_hide_the_next_one(void **state)
{
    (void)state;
    mounts("34 31 0:32 /other %s/nowhere rw - cgroup cgroup rw,memory\n"
           "35 31 0:32 / %s/cg rw master:1 propagate_from:2 - cgroup cgroup rw,memory\n",
           top, top);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
}

static void a_space_in_a_mount_is_read_as_the_kernel_writes_it(void **state)
{
    (void)state;
    put_group1("c g/a", "209715200", 120 * MIB, 0);
    put_group1("c g/a/b", NONE, 10 * MIB, 0);
    mounts("35 31 0:32 / %s/c\\040g rw - cgroup cgroup rw,memory\n", top);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 120 * MIB, 200 * MIB);
}

static void other_controllers_are_not_taken_for_memory(void **state)
{
    (void)state;
    mounts("35 31 0:32 / %s/cg rw - cgroup cgroup rw,memory2,cpu\n", top);
    cgroup_absent("no mount shows the cgroup");
    put("proc/self/cgroup", "4:xmemory,memoryx:/a\n");
    cgroup_absent("in no such cgroup");
}

static void lines_that_make_no_sense_are_passed_over(void **state)
{
    (void)state;
    put("proc/self/cgroup", "\n:\n4:memory\n::::\n4:memory:/a/b\n");
    mounts("\n-\n - - -\n1 2 3\n1 2 3 / /x - cgroup\n35 31 0:32 / %s/cg rw - cgroup c rw,memory\n",
           top);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
}

static void paths_that_are_too_long_are_named(void **state)
{
    (void)state;
    static char text[3000];
    (void)memset(text, 'x', sizeof text - 1);
    (void)memcpy(text, "4:memory:/", 10);
    put("proc/self/cgroup", text);
    cgroup_absent("in no such cgroup");
    text[10 + 1000] = '\0';
    put("proc/self/cgroup", text);
    cgroup_absent("too long");
}

static void files_that_cannot_be_read_are_named_with_their_errno(void **state)
{
    (void)state;
    assert_int_equal(unlink(at("proc/self/cgroup")), 0);
    assert_int_equal(unlink(at("proc/meminfo")), 0);
    umo_os_watch_sample sample = sample_once();
    assert_non_null(strstr(cgroup_of(&sample)->presence.why, "cannot be read"));
    assert_int_equal(cgroup_of(&sample)->presence.native, ENOENT);
    assert_non_null(strstr(sample.gauges[UMO_OS_GAUGE_PHYSICAL].presence.why, "meminfo"));
    assert_int_equal(sample.gauges[UMO_OS_GAUGE_PHYSICAL].presence.native, ENOENT);
    put("proc/meminfo", "MemTotal: many kB\n");
    sample = sample_once();
    assert_non_null(strstr(sample.gauges[UMO_OS_GAUGE_PHYSICAL].presence.why, "does not say"));
}

static void nonsense_in_a_limit_is_no_limit(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "\n", "-5\n", "99999999999999999999999\n", "huge\n"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        put("cg/a/memory.limit_in_bytes", texts[i]);
        cgroup_absent("has a limit");
    }
    put("cg/a/memory.limit_in_bytes", "209715200");
    put("cg/a/memory.usage_in_bytes", "-\n");
    cgroup_absent("usage cannot be read");
}

/* ---- what it reads ---- */

static void file_pages_that_are_idle_do_not_count(void **state)
{
    (void)state;
    put_group1("cg/a", "209715200", 190 * MIB, 120 * MIB);
    umo_os_watch_sample sample = sample_once();
    cgroup_is(&sample, 70 * MIB, 200 * MIB);
    put_group1("cg/a", "209715200", 190 * MIB, 300 * MIB); /* never below nothing */
    sample = sample_once();
    cgroup_is(&sample, 0, 200 * MIB);
    put("cg/a/memory.stat", "total_inactive_file\n");
    sample = sample_once();
    cgroup_is(&sample, 190 * MIB, 200 * MIB);
}

static void a_limit_that_changes_is_seen(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(false);
    uint64_t now_ns = umo_os_now_ns();
    umo_os_watch_sample sample = sample_at(watch, now_ns);
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
    put("cg/a/memory.limit_in_bytes", "167772160");
    sample = sample_at(watch, now_ns + 50 * MS); /* too soon to look again */
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
    sample = sample_at(watch, now_ns + 200 * MS);
    cgroup_is(&sample, 150 * MIB, 160 * MIB);
    umo_os_watch_destroy(watch);
}

static void a_process_that_is_moved_is_found_again(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(false);
    put_group1("cg/other", "52428800", 10 * MIB, 0);
    put("proc/self/cgroup", "4:memory:/other\n0::/u\n");
    umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns() + 11 * S);
    cgroup_is(&sample, 10 * MIB, 50 * MIB);
    umo_os_watch_destroy(watch);
}

/* ---- events: the test is the kernel ---- */

/* The eventfd that was registered last with a cgroup. */
static int registered(const char *folder)
{
    char path[PATH_MAX];
    char text[256];
    (void)snprintf(path, sizeof path, "%s/cgroup.event_control", at(folder));
    int file = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(file >= 0 && umo_file_read(file, text, sizeof text));
    (void)close(file);
    return (int)strtol(text, NULL, 10);
}

static void signal_times(int event, uint64_t times)
{
    assert_int_equal(write(event, &times, sizeof times), sizeof times);
}

static umo_os_watch_events wait_for(umo_os_watch *watch, uint64_t timeout_ns, uint32_t ignored)
{
    umo_os_watch_events events;
    umo_os_watch_wait(watch, timeout_ns, ignored, &events);
    return events;
}

static void marks_are_armed_one_by_one_and_then_it_is_armed(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    uint64_t now_ns = umo_os_now_ns();
    umo_os_watch_sample sample = sample_at(watch, now_ns);
    assert_true(sample.unarmed && !sample.armed);
    umo_os_watch_arm(watch);
    sample = sample_at(watch, now_ns);
    assert_true(sample.unarmed && sample.armed); /* 150 is below the first mark, 160 */
    assert_null(sample.signals[UMO_OS_SIGNAL_THRESHOLD].why);
    put_number("cg/a", "memory.usage_in_bytes", 165 * MIB);
    sample = sample_at(watch, now_ns);
    assert_false(sample.armed); /* the second one is not */
    umo_os_watch_arm(watch);
    umo_os_watch_arm(watch);
    sample = sample_at(watch, now_ns);
    assert_true(sample.armed && !sample.unarmed);
    put_number("cg/a", "memory.usage_in_bytes", 190 * MIB);
    assert_false(sample_at(watch, now_ns).armed); /* nothing above */
    put_group1("cg/a", "209715200", 190 * MIB, 100 * MIB);
    assert_false(sample_at(watch, now_ns).armed); /* what counts grows without passing a mark */
    umo_os_watch_destroy(watch);
}

static void another_limit_is_armed_anew(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    uint64_t now_ns = umo_os_now_ns();
    for (unsigned i = 0; i < UMO_OS_MARKS; i++) {
        umo_os_watch_arm(watch);
    }
    assert_false(sample_at(watch, now_ns).unarmed);
    put("cg/a/memory.limit_in_bytes", "419430400");
    umo_os_watch_sample sample = sample_at(watch, now_ns + S);
    assert_true(sample.unarmed && !sample.armed);
    for (unsigned i = 0; i < UMO_OS_MARKS; i++) {
        umo_os_watch_arm(watch);
    }
    sample = sample_at(watch, now_ns + S);
    assert_true(sample.armed && !sample.unarmed);
    umo_os_watch_destroy(watch);
}

static void a_mark_that_is_passed_ends_the_sleep(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    assert_int_equal(wait_for(watch, MS, 0).count[UMO_OS_SIGNAL_THRESHOLD], 0);
    signal_times(registered("cg/a"), 2);
    umo_os_watch_events events = wait_for(watch, 60 * S, 0);
    assert_int_equal(events.count[UMO_OS_SIGNAL_THRESHOLD], 2);
    assert_int_equal(events.urgency, UMO_OS_URGENCY_NONE);
    assert_int_equal(wait_for(watch, MS, 0).count[UMO_OS_SIGNAL_THRESHOLD], 0);
    umo_os_watch_destroy(watch);
}

static void events_that_are_ignored_are_kept_and_counted_later(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    int critical = registered("cg/a/b"); /* no marks there: its last is pressure_level's */
    signal_times(critical - 2, 3000);
    signal_times(critical, 1);
    umo_os_watch_events events = wait_for(watch, MS, 1u << UMO_OS_SIGNAL_RECLAIM);
    assert_int_equal(events.count[UMO_OS_SIGNAL_RECLAIM], 0);
    events = wait_for(watch, 60 * S, 0);
    assert_int_equal(events.count[UMO_OS_SIGNAL_RECLAIM], 3000);
    assert_int_equal(events.urgency, UMO_OS_URGENCY_CRITICAL);
    umo_os_watch_destroy(watch);
}

static void refused_event_control_leaves_the_gauges(void **state)
{
    (void)state;
    assert_int_equal(unlink(at("cg/a/cgroup.event_control")), 0);
    assert_int_equal(unlink(at("cg/a/b/cgroup.event_control")), 0);
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns());
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
    static const umo_os_signal lost[] = {UMO_OS_SIGNAL_THRESHOLD, UMO_OS_SIGNAL_RECLAIM};
    for (size_t i = 0; i < 2; i++) {
        assert_non_null(strstr(sample.signals[lost[i]].why, "no event control"));
        assert_int_equal(sample.signals[lost[i]].native, ENOENT);
    }
    assert_false(sample.armed || sample.unarmed);
    umo_os_watch_destroy(watch);
}

static void each_source_says_why_it_is_absent(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(false);
    umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns());
    for (size_t s = 0; s < UMO_OS_SIGNALS; s++) {
        assert_non_null(sample.signals[s].why);
    }
    umo_os_watch_destroy(watch);
    put("proc/self/cgroup", "0::/pod\n");
    put_group2("un/pod", "209715200\n", "max\n", 60 * MIB);
    watch = watch_open(true);
    umo_os_watch_arm(watch);
    sample = sample_at(watch, umo_os_now_ns());
    assert_non_null(strstr(sample.signals[UMO_OS_SIGNAL_THRESHOLD].why, "cgroup v2"));
    assert_non_null(strstr(sample.signals[UMO_OS_SIGNAL_RECLAIM].why, "cgroup v2"));
    assert_null(sample.signals[UMO_OS_SIGNAL_EVENTS].why);
    assert_int_equal(sample.signals[UMO_OS_SIGNAL_STALL].native, ENOENT);
    assert_false(sample.armed || sample.unarmed);
    umo_os_watch_destroy(watch);
}

static void a_file_closed_by_somebody_else_does_not_make_it_spin(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    DIR *files = opendir("/proc/self/fd");
    assert_non_null(files);
    for (struct dirent *entry = readdir(files); entry != NULL; entry = readdir(files)) {
        char target[64] = "";
        ssize_t length = readlinkat(dirfd(files), entry->d_name, target, sizeof target - 1);
        if (length > 0 && strstr(target, "[eventfd]") != NULL) {
            (void)close((int)strtol(entry->d_name, NULL, 10));
        }
    }
    (void)closedir(files);
    uint64_t start_ns = umo_os_now_ns();
    unsigned sleeps = 0;
    while (umo_os_now_ns() - start_ns < 50 * MS) {
        (void)wait_for(watch, 20 * MS, 0);
        sleeps++;
    }
    assert_true(sleeps <= 4); /* one that finds it out */
    umo_os_watch_wake(watch);
    umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns());
    assert_non_null(strstr(sample.signals[UMO_OS_SIGNAL_THRESHOLD].why, "lost"));
    umo_os_watch_destroy(watch);
}

static void a_wake_ends_the_sleep_that_is_or_comes(void **state)
{
    (void)state;
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_wake(watch);
    umo_os_watch_wake(watch);
    umo_os_watch_events events = wait_for(watch, 60 * S, UINT32_MAX);
    for (size_t s = 0; s < UMO_OS_SIGNALS; s++) {
        assert_int_equal(events.count[s], 0);
    }
    uint64_t start_ns = umo_os_now_ns();
    (void)wait_for(watch, 10 * MS, 0);
    assert_true(umo_os_now_ns() - start_ns >= 9 * MS);
    umo_os_watch_destroy(watch);
}

static unsigned files_open(void)
{
    unsigned count = 0;
    for (int file = 0; file < 256; file++) {
        count += fcntl(file, F_GETFD) >= 0 ? 1 : 0;
    }
    return count;
}

/* Every open fails once, and all that come after it. */
static void a_process_out_of_files_watches_what_it_can(void **state)
{
    (void)state;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    unsigned open_before = files_open();
    for (unsigned more = 0; more < 40; more++) {
        static char proc[PATH_MAX];
        (void)snprintf(proc, sizeof proc, "%s", at("proc"));
        umo_os_watch_options options = {.proc = proc, .marks = {0.8, 0.86, 0.93}, .events = true};
        struct rlimit tight = before;
        tight.rlim_cur = open_before + more;
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
        umo_os_watch *watch = NULL;
        umo_error error = {.text = ""};
        umo_status status = umo_os_watch_create(&options, &watch, &error);
        if (status == UMO_OK) {
            umo_os_watch_arm(watch);
            umo_os_watch_sample sample = sample_at(watch, umo_os_now_ns());
            (void)wait_for(watch, 0, 0);
            bool told = cgroup_of(&sample)->presence.why != NULL;
            assert_true(told || cgroup_of(&sample)->limit_bytes == 200 * MIB);
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        if (status != UMO_OK) {
            assert_int_equal(status, UMO_E_SYSTEM);
            assert_int_equal(error.native, EMFILE);
        }
        umo_os_watch_destroy(watch);
        assert_int_equal(files_open(), open_before);
    }
}

/* ---- a real cgroup ---- */

static char real_group[PATH_MAX];

/* A cgroup of our own below the one that we are in, shown to the watch as the process's. NULL, or
 * why there is none. */
static const char *real_begin(uint64_t limit_bytes)
{
    umo_cgroup_places places;
    umo_cgroup_find("/proc", &places);
    if (places.v1.presence.why != NULL) {
        return "no memory cgroup of version 1";
    }
    (void)snprintf(real_group, sizeof real_group, "%s/umo-watch-%ld", places.v1.own,
                   (long)getpid());
    if (mkdir(real_group, 0755) != 0) {
        return "no cgroup can be made";
    }
    char text[64];
    (void)snprintf(text, sizeof text, "%s/memory.limit_in_bytes", "");
    char path[PATH_MAX + 64];
    (void)snprintf(path, sizeof path, "%s%s", real_group, text);
    (void)snprintf(text, sizeof text, "%llu", (unsigned long long)limit_bytes);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    bool taken = file >= 0 && write(file, text, strlen(text)) > 0;
    (void)close(file);
    put("proc/self/cgroup", "4:memory:/\n");
    mounts("35 31 0:32 / %s rw - cgroup cgroup rw,memory\n", real_group);
    return taken ? NULL : "the cgroup takes no limit";
}

static bool real_skipped(const char *why)
{
    if (why != NULL) {
        print_message("skipped: %s\n", why);
        (void)rmdir(real_group);
    }
    return why != NULL;
}

static void a_cgroup_that_is_removed_is_named_and_looked_for_again(void **state)
{
    (void)state;
    const char *why = real_begin(64 * MIB);
    if (real_skipped(why)) {
        skip();
    }
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    uint64_t now_ns = umo_os_now_ns();
    umo_os_watch_sample sample = sample_at(watch, now_ns);
    assert_int_equal(cgroup_of(&sample)->limit_bytes, 64 * MIB);
    assert_null(sample.signals[UMO_OS_SIGNAL_THRESHOLD].why);
    assert_null(sample.signals[UMO_OS_SIGNAL_RECLAIM].why);
    assert_int_equal(rmdir(real_group), 0);
    sample = sample_at(watch, now_ns + 200 * MS);
    assert_non_null(cgroup_of(&sample)->presence.why);
    assert_int_equal(cgroup_of(&sample)->presence.native, ENODEV);
    (void)wait_for(watch, MS, 0); /* the kernel signals the removal */
    mounts("35 31 0:32 / %s/cg rw - cgroup cgroup rw,memory\n", top);
    put("proc/self/cgroup", "4:memory:/a/b\n");
    sample = sample_at(watch, now_ns + 2 * S);
    cgroup_is(&sample, 150 * MIB, 200 * MIB);
    umo_os_watch_destroy(watch);
}

/* Enters the cgroup and touches memory; a sanitizer's shadow of it would count too. */
__attribute__((no_sanitize("thread"))) static void child_grow(size_t size_bytes)
{
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/cgroup.procs", real_group);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0 || write(file, "0", 1) != 1) {
        _exit(1);
    }
    volatile char *memory =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    for (size_t page = 0; memory != MAP_FAILED && page < size_bytes; page += 4096) {
        memory[page] = 1;
    }
    _exit(memory != MAP_FAILED ? 0 : 1);
}

static void growth_in_a_real_cgroup_passes_its_mark(void **state)
{
    (void)state;
    const char *why = real_begin(64 * MIB);
    if (real_skipped(why)) {
        skip();
    }
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    pid_t child = fork();
    if (child == 0) {
        child_grow(56 * MIB);
    }
    umo_os_watch_events events = wait_for(watch, 20 * S, 0);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    umo_os_watch_destroy(watch);
    for (unsigned i = 0; rmdir(real_group) != 0 && i < 100; i++) {
        (void)usleep(10000);
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(events.count[UMO_OS_SIGNAL_THRESHOLD] > 0);
}

/* Enters the cgroup and writes a file that does not fit. */
static void child_write(size_t size_bytes)
{
    static char page[65536];
    char path[PATH_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/cgroup.procs", real_group);
    int group = open(path, O_WRONLY | O_CLOEXEC);
    int file = open(at("file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool good = group >= 0 && file >= 0 && write(group, "0", 1) == 1;
    for (size_t done = 0; good && done < size_bytes; done += sizeof page) {
        good = write(file, page, sizeof page) == (ssize_t)sizeof page;
    }
    _exit(good ? 0 : 1);
}

static void reclaim_in_a_real_cgroup_is_heard(void **state)
{
    (void)state;
    struct statfs system;
    assert_int_equal(statfs(top, &system), 0);
    const char *why = system.f_type == TMPFS_MAGIC ? "files here are memory that is not reclaimed"
                                                   : real_begin(24 * MIB);
    if (real_skipped(why)) {
        skip();
    }
    umo_os_watch *watch = watch_open(true);
    umo_os_watch_arm(watch);
    pid_t child = fork();
    if (child == 0) {
        child_write(64 * MIB);
    }
    umo_os_watch_events events = wait_for(watch, 20 * S, 1u << UMO_OS_SIGNAL_THRESHOLD);
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    umo_os_watch_destroy(watch);
    for (unsigned i = 0; rmdir(real_group) != 0 && i < 100; i++) {
        (void)usleep(10000);
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_true(events.count[UMO_OS_SIGNAL_RECLAIM] > 0);
    assert_true(events.urgency >= UMO_OS_URGENCY_LOW);
}

#define ON_MACHINE(test) cmocka_unit_test_setup_teardown(test, machine_setup, machine_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_MACHINE(a_limit_above_the_own_cgroup_counts),
        ON_MACHINE(physical_memory_is_what_is_not_available),
        ON_MACHINE(version_2_takes_the_lower_of_max_and_high),
        ON_MACHINE(version_2_without_the_controller_is_named),
        ON_MACHINE(a_mount_that_shows_a_part_is_followed_from_its_root),
        ON_MACHINE(in_a_namespace_the_mount_is_the_own_cgroup),
        ON_MACHINE(what_lies_outside_the_namespace_is_not_guessed),
        ON_MACHINE(a_mount_that_hides_it_does_not_hide_the_next_one),
        ON_MACHINE(a_space_in_a_mount_is_read_as_the_kernel_writes_it),
        ON_MACHINE(other_controllers_are_not_taken_for_memory),
        ON_MACHINE(lines_that_make_no_sense_are_passed_over),
        ON_MACHINE(paths_that_are_too_long_are_named),
        ON_MACHINE(files_that_cannot_be_read_are_named_with_their_errno),
        ON_MACHINE(nonsense_in_a_limit_is_no_limit),
        ON_MACHINE(file_pages_that_are_idle_do_not_count),
        ON_MACHINE(a_limit_that_changes_is_seen),
        ON_MACHINE(a_process_that_is_moved_is_found_again),
        ON_MACHINE(marks_are_armed_one_by_one_and_then_it_is_armed),
        ON_MACHINE(another_limit_is_armed_anew),
        ON_MACHINE(a_mark_that_is_passed_ends_the_sleep),
        ON_MACHINE(events_that_are_ignored_are_kept_and_counted_later),
        ON_MACHINE(refused_event_control_leaves_the_gauges),
        ON_MACHINE(each_source_says_why_it_is_absent),
        ON_MACHINE(a_file_closed_by_somebody_else_does_not_make_it_spin),
        ON_MACHINE(a_wake_ends_the_sleep_that_is_or_comes),
        ON_MACHINE(a_process_out_of_files_watches_what_it_can),
        ON_MACHINE(a_cgroup_that_is_removed_is_named_and_looked_for_again),
        ON_MACHINE(growth_in_a_real_cgroup_passes_its_mark),
        ON_MACHINE(reclaim_in_a_real_cgroup_is_heard),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

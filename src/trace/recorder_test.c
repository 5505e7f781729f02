/*
 * Looking on from outside: another process sees what this one records, whole and counted, also when
 * it dies in the middle, and leaves nothing behind.
 */
#include "trace/recorder_rig_test.h"

/* Runs while the recorder's lock is held: before a fork, handlers run in the reverse order of their
 * registration, and this one was there first. */
static bool write_before_fork;

static void before_fork(void)
{
    if (write_before_fork) {
        marked_write(0, 0, NULL);
    }
}

/* The first test: this process has no ring yet. */
static void what_finds_the_ring_being_made_is_counted(void **state)
{
    (void)state;
    umo_recorder *r = NULL;
    seen s = {0};
    umo_trace_show();
    assert_int_equal(umo_recorder_open(getpid(), &r, NULL), UMO_OK);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    write_before_fork = true;
    pid_t child = fork();
    if (child == 0) {
        _exit(0);
    }
    write_before_fork = false;
    assert_int_equal(waitpid(child, NULL, 0), child);
    marked_write(0, 1, NULL);
    const umo_recorder_stats stats = drain(r, &s);
    assert_int_equal(stats.drained, 1);
    assert_int_equal(stats.lost, 1);
    assert_int_equal(s.last.detail, 1);
    umo_recorder_close(r);
    marked_write(0, 2, NULL);
    assert_false(umo_trace_on());
}

static void another_process_is_seen(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    assert_int_equal(umo_recorder_drain(r, marked_check, &s, NULL), UMO_E_INVAL);
    assert_int_equal(tell(&o, 'o'), 'n');
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_E_BUSY);
    assert_int_equal(drain(r, &s).capacity, 0);
    assert_int_equal(tell(&o, 'o'), 'y');
    assert_int_equal(tell(&o, 'e'), 'd');
    umo_recorder_stats stats = drain(r, &s);
    assert_int_equal(s.count, 100);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(s.last.detail, 199); /* those before the start are not there */
    assert_string_equal(s.scope_name, "their model");
    assert_true(s.last.time_ns < UINT64_C(60000000000));
    assert_int_equal(stats.drained, 100);
    assert_int_equal(stats.lost, 0);
    assert_true(stats.recording);
    assert_false(stats.ended);
    assert_true(stats.memory_bytes > (size_t)1 << 21);
    assert_true(stats.memory_bytes < (size_t)65 << 20);
    /* It is the process that switches off, at its next event; that one is still there. */
    umo_recorder_stop(r);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'o'), 'n');
    assert_int_equal(drain(r, &s).drained, 101);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

static bool kind_check(const umo_profile_event *e, void *user)
{
    *(unsigned *)user = e->kind;
    return true;
}

static void a_count_alone_wakes_the_recorder(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    unsigned kind = 0;
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'c'), 'd');
    assert_int_equal(umo_recorder_drain(r, kind_check, &kind, NULL), UMO_OK);
    assert_int_equal(kind, UMO_EVENT_COPY);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

static void what_is_lost_is_counted_to_the_event(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    assert_int_equal(umo_recorder_start(r, 1, NULL), UMO_OK); /* as little as there is */
    for (int i = 0; i < 20; i++) {
        assert_int_equal(tell(&o, 'e'), 'd');
    }
    umo_recorder_stats stats = drain(r, &s);
    assert_int_equal(stats.drained + stats.lost, 2000);
    assert_true(stats.lost >= 2000 - stats.capacity);
    assert_int_equal(s.count, stats.drained);
    assert_int_equal(s.last.detail, 1999);
    assert_int_equal(s.wrong, 0);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

static void all_check(const umo_profile_event *events, size_t count, seen *s)
{
    for (size_t k = 0; k < count; k++) {
        (void)marked_check(&events[k], s);
    }
}

static void *drain_main(void *argument)
{
    const other *o = argument;
    assert_int_equal(tell(o, 't'), 'd');
    return NULL;
}

/* Its threads write while this one drains: all come, in each thread's order, none twice. */
static void threads_of_another_process_lose_nothing(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    static umo_profile_event events[4096];
    seen s = {0};
    umo_recorder_stats stats = {0};
    pthread_t thread;
    /* Room for all that a thread writes: how often this one gets a processor is not the question.
     */
    assert_int_equal(umo_recorder_start(r, (size_t)256 << 20, NULL), UMO_OK);
    assert_int_equal(pthread_create(&thread, NULL, drain_main, &o), 0);
    for (int i = 0; i < 60000 && stats.drained + stats.lost < THREADS * 50000; i++) {
        size_t count;
        assert_int_equal(umo_recorder_wait(r, events, 4096, 1000000, &count, &stats), UMO_OK);
        all_check(events, count, &s);
    }
    assert_int_equal(pthread_join(thread, NULL), 0);
    /* Only those that came while the first was having the ring made. */
    assert_int_equal(stats.drained + stats.lost, THREADS * 50000);
    assert_true(stats.lost < 5000);
    assert_int_equal(s.count, stats.drained);
    assert_int_equal(s.wrong, 0);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

typedef struct later {
    const other *o;
    const char *orders;
} later;

/* Gives its orders one after the other, while the test waits; the last may end the process. */
static void *later_main(void *argument)
{
    const later *l = argument;
    for (const char *order = l->orders; *order != '\0'; order++) {
        (void)usleep(30000);
        if (*order == 'k') {
            assert_int_equal(write(l->o->orders, order, 1), 1);
        } else {
            assert_int_equal(tell(l->o, *order), 'd');
        }
    }
    return NULL;
}

static size_t meanwhile(umo_recorder *r, const other *o, const char *orders, size_t room,
                        uint64_t wait_ns, umo_recorder_stats *stats)
{
    static umo_profile_event events[4096];
    later l = {.o = o, .orders = orders};
    seen s = {0};
    size_t count;
    pthread_t thread;
    assert_true(room <= 4096);
    assert_int_equal(pthread_create(&thread, NULL, later_main, &l), 0);
    assert_int_equal(umo_recorder_wait(r, events, room, wait_ns, &count, stats), UMO_OK);
    assert_int_equal(pthread_join(thread, NULL), 0);
    all_check(events, count, &s);
    assert_int_equal(s.wrong, 0);
    return count;
}

/* It sleeps through silence without losing its place, and no longer than it has to. */
static void waiting_ends_with_room_time_or_process(void **state)
{
    (void)state;
    const uint64_t minute = UINT64_C(60000000000);
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    umo_recorder_stats stats;
    umo_profile_event one;
    size_t count = 7;
    assert_int_equal(umo_recorder_wait(r, &one, 1, 0, &count, &stats), UMO_E_INVAL);
    assert_int_equal(count, 0);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    uint64_t start = umo_os_now_ns();
    const clock_t worked = clock();
    assert_int_equal(umo_recorder_wait(r, &one, 1, UINT64_C(2300000000), &count, &stats), UMO_OK);
    assert_true(umo_os_now_ns() - start >= UINT64_C(2300000000));
    assert_true(clock() - worked < CLOCKS_PER_SEC);
    assert_int_equal(count, 0);
    assert_int_equal(stats.gaps, 0);
    assert_true(stats.recording);
    start = umo_os_now_ns();
    assert_int_equal(meanwhile(r, &o, "eee", 250, minute, &stats), 250);
    assert_int_equal(meanwhile(r, &o, "ek", 4096, minute, &stats), 151);
    assert_true(stats.ended);
    assert_int_equal(stats.drained, 401); /* one as it dies */
    assert_int_equal(stats.lost, 1);      /* and one that it did not finish */
    assert_true(umo_os_now_ns() - start < minute / 2);
    umo_recorder_close(r);
    const int ended = other_end(&o); /* the macro takes its address, on macOS */
    assert_true(WIFSIGNALED(ended));
}

/* Many times what the ring holds, faster than anybody who is silent for long could take it. Whether
 * this process gets a processor in time is the machine's affair: once is enough. */
static void waiting_takes_before_the_ring_is_full(void **state)
{
    (void)state;
    static umo_profile_event events[4096];
    bool whole = false;
    uint32_t shards;
    uint64_t slots;
    assert_int_equal(umo_trace_shape(NULL, &shards, &slots), UMO_OK);
    for (int i = 0; i < 10 && !whole; i++) {
        other o = other_start();
        umo_recorder *r = recorder_open(&o);
        later l = {.o = &o, .orders = "wwww"};
        umo_recorder_stats stats = {0};
        seen s = {0};
        pthread_t thread;
        /* What a thread writes in 100 ms. */
        assert_int_equal(umo_recorder_start(r, 2048 * sizeof(umo_trace_slot) * shards, NULL),
                         UMO_OK);
        assert_int_equal(pthread_create(&thread, NULL, later_main, &l), 0);
        while (stats.drained + stats.lost < 40000) {
            size_t count;
            assert_int_equal(
                umo_recorder_wait(r, events, 4096, UINT64_C(300000000), &count, &stats), UMO_OK);
            all_check(events, count, &s);
        }
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_int_equal(s.count + stats.lost, 40000);
        assert_int_equal(s.wrong, 0);
        assert_int_equal(stats.capacity, 2048 * shards);
        whole = stats.lost == 0;
        umo_recorder_close(r);
        assert_int_equal(other_end(&o), 0);
    }
    assert_true(whole);
}

static void what_a_process_leaves_behind_can_be_read(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    char order = 'k';
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_false(drain(r, &s).ended);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(write(o.orders, &order, 1), 1);
    int status = other_end(&o);
    assert_true(WIFSIGNALED(status));
    umo_recorder_stats stats = drain(r, &s);
    assert_true(stats.ended);
    assert_false(stats.recording);
    assert_int_equal(s.count, 201);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(stats.lost, 1); /* it was in the middle of one */
    assert_int_equal(drain(r, &s).drained, 201);
    umo_recorder_close(r);
}

static void its_own_recording_stays_its_own(void **state)
{
    (void)state;
    other o = other_start();
    seen s = {0};
    assert_int_equal(tell(&o, 's'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'p'), 'd');
    umo_recorder *r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'n'), '1');
    (void)drain(r, &s);
    assert_int_equal(s.count, 100);
    /* It starts again: both see what follows. */
    assert_int_equal(tell(&o, 's'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    for (int i = 0; i < 100 && s.count < 200; i++) {
        (void)drain(r, &s);
        (void)usleep(2000);
    }
    assert_int_equal(s.count, 200);
    assert_int_equal(tell(&o, 'n'), '1');
    /* And pauses: we alone go on. */
    assert_int_equal(tell(&o, 'p'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    umo_recorder_stats stats = {0};
    for (int i = 0; i < 100 && s.count < 300; i++) {
        stats = drain(r, &s);
        (void)usleep(2000);
    }
    assert_int_equal(s.count, 300);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(stats.lost, 0);
    assert_int_equal(tell(&o, 'n'), '1');
    /* It records for itself when we leave, and so it goes on. */
    assert_int_equal(tell(&o, 's'), 'd');
    umo_recorder_close(r);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'o'), 'y');
    assert_int_equal(tell(&o, 'n'), '1');
    assert_int_equal(other_end(&o), 0);
}

static void two_may_look_on(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *a = recorder_open(&o);
    umo_recorder *b = recorder_open(&o);
    seen first = {0};
    seen second = {0};
    assert_int_equal(umo_recorder_start(a, (size_t)1 << 16, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    (void)drain(a, &first);
    assert_int_equal(umo_recorder_start(b, (size_t)1 << 16, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    (void)drain(a, &first);
    (void)drain(b, &second);
    assert_int_equal(first.count, 200);
    assert_int_equal(second.count, 100);
    umo_recorder_close(a);
    assert_int_equal(tell(&o, 'e'), 'd');
    (void)drain(b, &second);
    assert_int_equal(second.count, 200);
    assert_int_equal(first.wrong + second.wrong, 0);
    umo_recorder_close(b);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'o'), 'n');
    assert_int_equal(other_end(&o), 0);
}

/* The ring is changed twice before the first was drained: nothing of it is forgotten. */
static void rings_that_change_quickly_lose_nothing(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *all[3];
    umo_profile_event events[10];
    umo_recorder_stats stats = {0};
    size_t count;
    uint64_t taken = 0;
    for (size_t i = 0; i < 3; i++) {
        all[i] = recorder_open(&o);
        assert_int_equal(umo_recorder_start(all[i], (size_t)1 << (16 + 2 * i), NULL), UMO_OK);
        assert_int_equal(tell(&o, 'e'), 'd');
        assert_int_equal(umo_recorder_take(all[0], events, 10, &count, &stats), UMO_OK);
        taken += count;
    }
    for (int i = 0; i < 300 && taken < 300; i++) {
        assert_int_equal(umo_recorder_take(all[0], events, 10, &count, &stats), UMO_OK);
        taken += count;
        (void)usleep(count < 10 ? 2000 : 0);
    }
    assert_int_equal(taken, 300);
    assert_int_equal(stats.lost, 0);
    for (size_t i = 0; i < 3; i++) {
        umo_recorder_close(all[i]);
    }
    assert_int_equal(other_end(&o), 0);
}

/* A server that is out of files: whoever looks on is told so and does not wait for events that it
 * will never see; and once there are files, the next one has all of them. */
static void a_ring_that_cannot_be_shown_is_refused(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'f'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(umo_recorder_drain(r, marked_check, &s, NULL), UMO_E_NOMEM);
    assert_int_equal(s.count, 0);
    umo_recorder_close(r);
    assert_int_equal(tell(&o, 'F'), 'd');
    r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    (void)drain(r, &s);
    assert_int_equal(tell(&o, 'e'), 'd');
    (void)drain(r, &s);
    assert_int_equal(s.count, 100);
    /* Its own recording goes on without a file; it is its own alone. */
    assert_int_equal(tell(&o, 'f'), 'd');
    assert_int_equal(tell(&o, 's'), 'd');
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'n'), '1');
    assert_int_equal(umo_recorder_drain(r, marked_check, &s, NULL), UMO_E_NOMEM);
    assert_int_equal(s.count, 100);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

/* As if whoever looked on had been killed: recording ends by itself. One who was only slow is told
 * of the gap. */
static void whoever_vanishes_leaves_no_recording_behind(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    seen s = {0};
    int file;
    size_t size_bytes;
    int cause;
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(umo_os_shown_open(o.pid, 0, &file, &size_bytes, &cause), UMO_OK);
    umo_trace_head *head = umo_os_shown_map(file, size_bytes, NULL, true);
    assert_non_null(head);
    assert_true(head->lease_ns > umo_os_now_ns());
    assert_true(head->lease_ns < umo_os_now_ns() + UINT64_C(2100000000));
    head->lease_ns = umo_os_now_ns();
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(tell(&o, 'o'), 'n');
    assert_int_equal(head->watchers, 0);
    assert_int_equal(drain(r, &s).gaps, 1);
    assert_int_equal(tell(&o, 'e'), 'd');
    umo_recorder_stats stats = drain(r, &s);
    assert_int_equal(s.count, 101);
    assert_int_equal(stats.gaps, 1);
    assert_true(stats.recording);
    umo_recorder_close(r);
    assert_int_equal(head->watchers, 0);
    umo_os_mapping_drop(head, size_bytes);
    umo_os_file_close(file);
    assert_int_equal(other_end(&o), 0);
}

/* ---- children ---- */

static void a_child_writes_nothing_into_its_parents_ring(void **state)
{
    (void)state;
    umo_recorder *r = NULL;
    umo_error error = {0};
    seen s = {0};
    umo_trace_show();
    assert_int_equal(umo_recorder_open(getpid(), &r, &error), UMO_OK);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    marked_write(0, 0, NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* Nobody looks at the child, and it has a recorder of its own. */
        umo_recorder *mine = NULL;
        bool right = !umo_trace_on();
        umo_status_ignore(umo_profile_start(NULL, NULL));
        for (uint64_t i = 1; i < 100; i++) {
            marked_write(1, i, NULL);
        }
        right = right && umo_recorder_open(getpid(), &mine, NULL) == UMO_OK;
        umo_recorder_close(mine);
        _exit(right ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    marked_write(0, 1, NULL);
    umo_recorder_stats stats = drain(r, &s);
    assert_int_equal(s.count, 2);
    assert_int_equal(s.wrong, 0);
    assert_int_equal(stats.lost, 0);
    assert_true(stats.recording);
    umo_recorder_close(r);
    marked_write(0, 2, NULL);
    assert_false(umo_trace_on());
}

typedef struct looked_for {
    uint64_t inodes[2];
    unsigned found;
} looked_for;

static bool mapping_look(const umo_mapping *mapping, void *user)
{
    looked_for *l = user;
    l->found += mapping->inode == l->inodes[0] || mapping->inode == l->inodes[1] ? 1 : 0;
    return true;
}

/* Else it would keep a dead parent's memory. */
static void a_child_keeps_nothing_of_its_parents_mapped(void **state)
{
    (void)state;
    looked_for l = {.found = 0};
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    const void *parts[2] = {UMO_TRACE_HEAD, atomic_load(&umo_trace_now)->part};
    for (int i = 0; i < 2; i++) {
        umo_mapping mapping;
        assert_int_equal(umo_os_mapping_query(parts[i], &mapping), UMO_OK);
        l.inodes[i] = mapping.inode;
        assert_true(mapping.inode != 0);
    }
    umo_status_ignore(umo_os_mapping_visit(mapping_look, &l));
    assert_int_equal(l.found, 2);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        l.found = 0;
        umo_status_ignore(umo_os_mapping_visit(mapping_look, &l));
        _exit(l.found == 0 ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(umo_profile_enable(false), UMO_OK);
}

static void memory_is_given_back(void **state)
{
    (void)state;
    other o = other_start();
    umo_recorder *r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 't'), 'd');
    umo_recorder_stats stats;
    assert_int_equal(umo_recorder_drain(r, NULL, NULL, &stats), UMO_OK);
    int file;
    size_t size_bytes;
    int cause;
    assert_int_equal(umo_os_shown_open(o.pid, 1, &file, &size_bytes, &cause), UMO_OK);
    uint64_t *words = umo_os_shown_map(file, size_bytes, NULL, false);
    assert_non_null(words);
    size_t used = 0;
    for (size_t i = 0; i < size_bytes / 8; i++) {
        used += words[i] != 0 ? 1 : 0;
    }
    assert_true(used > 100000);
    umo_recorder_close(r);
#ifdef __linux__
    used = 0;
    for (size_t i = 4096; i < size_bytes / 8; i++) {
        used += words[i] != 0 ? 1 : 0;
    }
    assert_int_equal(used, 0);
#endif
    umo_os_mapping_drop(words, size_bytes);
    umo_os_file_close(file);
    /* And it can be used again. */
    seen s = {0};
    r = recorder_open(&o);
    assert_int_equal(umo_recorder_start(r, 0, NULL), UMO_OK);
    assert_int_equal(tell(&o, 'e'), 'd');
    assert_int_equal(drain(r, &s).lost, 0);
    assert_int_equal(s.count, 100);
    umo_recorder_close(r);
    assert_int_equal(other_end(&o), 0);
}

int main(void)
{
    if (pthread_atfork(before_fork, NULL, NULL) != 0) {
        return 1;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_finds_the_ring_being_made_is_counted),
        cmocka_unit_test(another_process_is_seen),
        cmocka_unit_test(a_count_alone_wakes_the_recorder),
        cmocka_unit_test(what_is_lost_is_counted_to_the_event),
        cmocka_unit_test(threads_of_another_process_lose_nothing),
        cmocka_unit_test(waiting_ends_with_room_time_or_process),
        cmocka_unit_test(waiting_takes_before_the_ring_is_full),
        cmocka_unit_test(what_a_process_leaves_behind_can_be_read),
        cmocka_unit_test(its_own_recording_stays_its_own),
        cmocka_unit_test(two_may_look_on),
        cmocka_unit_test(rings_that_change_quickly_lose_nothing),
        cmocka_unit_test(a_ring_that_cannot_be_shown_is_refused),
        cmocka_unit_test(whoever_vanishes_leaves_no_recording_behind),
        cmocka_unit_test(a_child_writes_nothing_into_its_parents_ring),
        cmocka_unit_test(a_child_keeps_nothing_of_its_parents_mapped),
        cmocka_unit_test(memory_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

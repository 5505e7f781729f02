/*
 * Linux. Usage is read from the own cgroup and every one above it that the
 * mount shows, because the one that fills first kills; of the files in it,
 * those that the kernel drops first do not count (as kubelet's working set,
 * usage less inactive_file).
 *
 * The events are armed and disarmed by the one thread that waits for them, so
 * that no file is closed under a poll. Readers only find out that they have to
 * be armed anew, and raise generation.
 */
#include "os/linux_cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define LEVELS_MAX 12u
#define TEXT_BYTES 8192
#define MILLISECOND_NS UINT64_C(1000000)
#define LIMITS_STALE_NS (100 * MILLISECOND_NS)
#define PLACE_STALE_NS (10000 * MILLISECOND_NS)
#define LOST_AGAIN_NS (1000 * MILLISECOND_NS)

/* Whoever may not change the machine's settings gets windows of whole two
 * seconds only. */
static const char *const stall_triggers[] = {"some 200000 2000000", "full 200000 2000000"};
#define STALLS 2

static const char *const reclaim_words[] = {"low", "medium", "critical"};
#define RECLAIMS 3

/* The files of one cgroup; -1 where there is none. */
typedef struct level {
    int folder;
    int limit;
    int high; /* v2's second, softer limit */
    int usage;
    int stat;
    uint64_t limit_bytes; /* 0: none */
    size_t marks_armed;   /* the lowest so many send events */
} level;

/* What is polled, in this order. */
enum {
    FILE_WAKE,
    FILE_THRESHOLD,
    FILE_RECLAIM,
    FILE_EVENTS = FILE_RECLAIM + RECLAIMS,
    FILE_STALL,
    FILES = FILE_STALL + STALLS
};

struct umo_os_watch {
    umo_os_watch_options options;
    pthread_mutex_t lock;     /* down to generation */
    bool unified;             /* the levels are cgroup v2's */
    level levels[LEVELS_MAX]; /* the own first */
    size_t level_count;
    umo_os_presence cgroup;
    umo_os_presence signals[UMO_OS_SIGNALS];
    char stall_folder[CGROUP_PATH_BYTES]; /* empty: the machine's */
    int meminfo;
    int meminfo_errno;
    uint64_t identity;
    uint64_t placed_ns;
    uint64_t limits_ns;
    bool lost; /* a level's file failed */
    uint32_t generation;
    /* Of the thread that waits. */
    uint32_t armed_generation;
    int files[FILES];
    uint64_t happened[4]; /* memory.events when last read */
    _Atomic int wake;     /* written by anybody */
};

static void file_close(int *file)
{
    if (*file >= 0) {
        (void)close(*file);
        *file = -1;
    }
}

static void level_close(level *l)
{
    file_close(&l->folder);
    file_close(&l->limit);
    file_close(&l->high);
    file_close(&l->usage);
    file_close(&l->stat);
}

static void levels_close(umo_os_watch *watch)
{
    for (size_t i = 0; i < watch->level_count; i++) {
        level_close(&watch->levels[i]);
    }
    watch->level_count = 0;
}

/* False where the folder has no such files: the root of cgroup v2, or no
 * controller. */
static bool level_open(level *l, const char *path, bool unified)
{
    *l = (level){.folder = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC),
                 .limit = -1,
                 .high = -1,
                 .usage = -1,
                 .stat = -1};
    if (l->folder < 0) {
        return false;
    }
    int flags = O_RDONLY | O_CLOEXEC;
    l->limit = openat(l->folder, unified ? "memory.max" : "memory.limit_in_bytes", flags);
    l->usage = openat(l->folder, unified ? "memory.current" : "memory.usage_in_bytes", flags);
    if (l->limit < 0 || l->usage < 0) {
        int code = errno;
        level_close(l);
        errno = code;
        return false;
    }
    l->high = unified ? openat(l->folder, "memory.high", flags) : -1;
    l->stat = openat(l->folder, "memory.stat", flags);
    return true;
}

/* Opens the own cgroup and those above it. */
static void levels_open(umo_os_watch *watch, const umo_cgroup_place *place, bool unified)
{
    char path[CGROUP_PATH_BYTES];
    (void)snprintf(path, sizeof path, "%s", place->own);
    size_t mount_length = strlen(place->mount);
    int code = 0;
    for (;;) {
        if (level_open(&watch->levels[watch->level_count], path, unified)) {
            watch->level_count++;
        } else {
            code = code == 0 ? errno : code;
        }
        char *slash = strrchr(path, '/');
        if (watch->level_count == LEVELS_MAX || strlen(path) <= mount_length || slash == NULL) {
            break;
        }
        *slash = '\0';
    }
    watch->unified = unified;
    if (watch->level_count == 0) {
        watch->cgroup = (umo_os_presence){"the cgroup's memory files cannot be read", code};
    } else {
        watch->cgroup = (umo_os_presence){NULL, 0};
    }
}

/* Finds out where the process is. The lock is held. */
static void place_find(umo_os_watch *watch, uint64_t now_ns)
{
    umo_cgroup_places places;
    umo_cgroup_find(watch->options.proc, &places);
    levels_close(watch);
    watch->cgroup = places.v1.presence;
    if (places.v1.presence.why == NULL) {
        levels_open(watch, &places.v1, false);
    }
    if (watch->level_count == 0 && places.v2.presence.why == NULL) {
        levels_open(watch, &places.v2, true);
    }
    watch->stall_folder[0] = '\0';
    if (places.v2.presence.why == NULL) {
        (void)snprintf(watch->stall_folder, sizeof watch->stall_folder, "%s", places.v2.own);
    }
    watch->identity = places.identity;
    watch->placed_ns = now_ns;
    watch->limits_ns = 0;
    watch->lost = false;
    watch->generation++;
}

static bool level_limit(const level *l, uint64_t *out)
{
    uint64_t limit = UINT64_MAX;
    uint64_t high = UINT64_MAX;
    if (!umo_file_number(l->limit, &limit)) {
        return false;
    }
    if (l->high >= 0 && umo_file_number(l->high, &high) && high < limit) {
        limit = high;
    }
    /* v1 has no word for none: its greatest number, down to whole pages. */
    *out = limit > (uint64_t)INT64_MAX / 2 ? 0 : limit;
    return true;
}

/* Reads the limits again. The lock is held. */
static void limits_read(umo_os_watch *watch, uint64_t now_ns)
{
    bool changed = false;
    for (size_t i = 0; i < watch->level_count; i++) {
        level *l = &watch->levels[i];
        uint64_t limit_bytes;
        if (!level_limit(l, &limit_bytes)) {
            watch->lost = true;
            continue;
        }
        changed = changed || limit_bytes != l->limit_bytes;
        l->limit_bytes = limit_bytes;
    }
    watch->limits_ns = now_ns;
    watch->generation += changed ? 1 : 0;
}

static uint64_t mark_bytes(const umo_os_watch *watch, const level *l, size_t mark)
{
    return (uint64_t)((double)l->limit_bytes * watch->options.marks[mark]);
}

/* What of a cgroup's usage counts: all of it while it is far from the limit, to
 * save the long read.
 */
static uint64_t level_usage(const umo_os_watch *watch, const level *l, uint64_t raw_bytes)
{
    char text[TEXT_BYTES];
    uint64_t idle_bytes;
    if (raw_bytes < mark_bytes(watch, l, 0) || l->stat < 0 ||
        !umo_file_read(l->stat, text, sizeof text)) {
        return raw_bytes;
    }
    if (!umo_text_number(text, watch->unified ? "inactive_file" : "total_inactive_file",
                         &idle_bytes)) {
        return raw_bytes;
    }
    return idle_bytes < raw_bytes ? raw_bytes - idle_bytes : 0;
}

/* Whether growth from here passes an event before it passes a mark. */
static bool level_armed(const umo_os_watch *watch, const level *l, uint64_t raw_bytes,
                        uint64_t usage_bytes)
{
    for (size_t m = 0; m < UMO_OS_MARKS; m++) {
        uint64_t mark = mark_bytes(watch, l, m);
        if (usage_bytes < mark) {
            return raw_bytes < mark && m < l->marks_armed;
        }
    }
    return false;
}

/* The lock is held. */
static void cgroup_read(umo_os_watch *watch, umo_os_watch_sample *out)
{
    umo_os_reading *reading = &out->gauges[UMO_OS_GAUGE_CGROUP];
    *reading = (umo_os_reading){.presence = watch->cgroup};
    bool current = watch->armed_generation == watch->generation;
    bool marks = watch->signals[UMO_OS_SIGNAL_THRESHOLD].why == NULL && current;
    out->armed = marks;
    out->unarmed = watch->options.events && !current;
    bool limited = false;
    bool unread = false;
    double nearest = 0;
    for (size_t i = 0; i < watch->level_count; i++) {
        const level *l = &watch->levels[i];
        uint64_t raw_bytes;
        if (l->limit_bytes == 0 && i > 0) {
            continue;
        }
        if (!umo_file_number(l->usage, &raw_bytes)) {
            unread = true;
            reading->presence.native = errno;
            continue;
        }
        if (l->limit_bytes == 0) {
            reading->usage_bytes = raw_bytes;
            continue;
        }
        uint64_t usage_bytes = level_usage(watch, l, raw_bytes);
        out->unarmed = out->unarmed || (marks && l->marks_armed < UMO_OS_MARKS);
        out->armed = out->armed && level_armed(watch, l, raw_bytes, usage_bytes);
        double part = (double)usage_bytes / (double)l->limit_bytes;
        if (!limited || part > nearest) {
            nearest = part;
            reading->usage_bytes = usage_bytes;
            reading->limit_bytes = l->limit_bytes;
        }
        limited = true;
    }
    watch->lost = watch->lost || unread;
    if (limited) {
        reading->presence.native = 0;
    } else if (unread) {
        reading->presence.why = "the cgroup's usage cannot be read";
    } else if (watch->level_count > 0) {
        reading->presence.why = "no cgroup that can be seen has a limit";
    }
}

static void physical_read(const umo_os_watch *watch, umo_os_reading *out)
{
    char text[TEXT_BYTES];
    uint64_t total_kib;
    uint64_t available_kib;
    *out = (umo_os_reading){.presence = {NULL, 0}};
    if (watch->meminfo < 0 || !umo_file_read(watch->meminfo, text, sizeof text)) {
        out->presence.why = "meminfo cannot be read";
        out->presence.native = watch->meminfo < 0 ? watch->meminfo_errno : errno;
    } else if (!umo_text_number(text, "MemTotal:", &total_kib) || total_kib > UINT64_MAX / 1024 ||
               !umo_text_number(text, "MemAvailable:", &available_kib) ||
               available_kib > total_kib) {
        out->presence.why = "meminfo does not say how much is available";
    } else {
        out->limit_bytes = total_kib * 1024;
        out->usage_bytes = (total_kib - available_kib) * 1024;
    }
}

void umo_os_watch_read(umo_os_watch *watch, uint64_t now_ns, umo_os_watch_sample *out)
{
    (void)pthread_mutex_lock(&watch->lock);
    uint32_t generation = watch->generation;
    uint64_t stale_ns = watch->lost ? LOST_AGAIN_NS : PLACE_STALE_NS;
    if (now_ns - watch->placed_ns >= stale_ns) {
        watch->placed_ns = now_ns;
        if (watch->lost || umo_cgroup_identity(watch->options.proc) != watch->identity) {
            place_find(watch, now_ns);
        }
    }
    if (now_ns - watch->limits_ns >= LIMITS_STALE_NS) {
        limits_read(watch, now_ns);
    }
    cgroup_read(watch, out);
    physical_read(watch, &out->gauges[UMO_OS_GAUGE_PHYSICAL]);
    memcpy(out->signals, watch->signals, sizeof out->signals);
    bool changed = generation != watch->generation;
    (void)pthread_mutex_unlock(&watch->lock);
    if (changed) {
        umo_os_watch_wake(watch);
    }
}

uint64_t umo_os_watch_limit(umo_os_watch *watch)
{
    uint64_t least_bytes = 0;
    (void)pthread_mutex_lock(&watch->lock);
    for (size_t i = 0; i < watch->level_count; i++) {
        uint64_t limit_bytes = watch->levels[i].limit_bytes;
        if (limit_bytes > 0 && (least_bytes == 0 || limit_bytes < least_bytes)) {
            least_bytes = limit_bytes;
        }
    }
    (void)pthread_mutex_unlock(&watch->lock);
    return least_bytes;
}

/* ---- events: all of this runs on the thread that waits ---- */

static bool off(const umo_os_watch *watch, umo_os_signal signal)
{
    return (watch->options.signals_off & (1u << signal)) != 0;
}

static void absent(umo_os_watch *watch, umo_os_signal signal, const char *why, int native)
{
    watch->signals[signal] = (umo_os_presence){why, native};
}

/* Asks a v1 cgroup to signal an eventfd. */
static bool control_write(int folder, int event, int file, const char *argument)
{
    char text[96];
    int length = snprintf(text, sizeof text, "%d %d %s", event, file, argument);
    int control = openat(folder, "cgroup.event_control", O_WRONLY | O_CLOEXEC);
    if (control < 0) {
        return false;
    }
    bool taken = write(control, text, (size_t)length) == (ssize_t)length;
    int code = errno;
    (void)close(control);
    errno = code;
    return taken;
}

/* The next mark to arm: the lowest that is not, of any cgroup. The lock is held. */
static level *mark_next(umo_os_watch *watch)
{
    level *next = NULL;
    for (size_t i = 0; i < watch->level_count; i++) {
        level *l = &watch->levels[i];
        if (l->limit_bytes > 0 && l->marks_armed < UMO_OS_MARKS &&
            (next == NULL || l->marks_armed < next->marks_armed)) {
            next = l;
        }
    }
    return next;
}

/* Whether marks can be armed at all. The lock is held. */
static void thresholds_begin(umo_os_watch *watch)
{
    umo_os_signal signal = UMO_OS_SIGNAL_THRESHOLD;
    for (size_t i = 0; i < watch->level_count; i++) {
        watch->levels[i].marks_armed = 0;
    }
    if (watch->unified) {
        absent(watch, signal, "cgroup v2 has no thresholds", 0);
    } else if (mark_next(watch) == NULL) {
        absent(watch, signal, "no cgroup that can be seen has a limit", 0);
    } else {
        int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        watch->files[FILE_THRESHOLD] = event;
        absent(watch, signal, event >= 0 ? NULL : "no eventfd", event >= 0 ? 0 : errno);
    }
}

/* Arms one mark. The kernel waits until all processors have let go of the marks before, 10 to 50
 * ms: readers must not wait along, so this works on copies of the files. */
static void mark_arm(umo_os_watch *watch)
{
    char argument[32];
    (void)pthread_mutex_lock(&watch->lock);
    const level *l = mark_next(watch);
    size_t index = l != NULL ? (size_t)(l - watch->levels) : 0;
    int folder = l != NULL ? fcntl(l->folder, F_DUPFD_CLOEXEC, 0) : -1;
    int usage = l != NULL ? fcntl(l->usage, F_DUPFD_CLOEXEC, 0) : -1;
    if (l != NULL) {
        (void)snprintf(argument, sizeof argument, "%llu",
                       (unsigned long long)mark_bytes(watch, l, l->marks_armed));
    }
    (void)pthread_mutex_unlock(&watch->lock);
    if (l == NULL) {
        return;
    }
    bool taken = folder >= 0 && usage >= 0 &&
                 control_write(folder, watch->files[FILE_THRESHOLD], usage, argument);
    int code = errno;
    file_close(&folder);
    file_close(&usage);
    (void)pthread_mutex_lock(&watch->lock);
    if (!taken) {
        /* One that is missing would be waited for in vain. */
        file_close(&watch->files[FILE_THRESHOLD]);
        absent(watch, UMO_OS_SIGNAL_THRESHOLD, "the cgroup takes no event control", code);
    } else if (watch->armed_generation == watch->generation) {
        watch->levels[index].marks_armed++;
    }
    (void)pthread_mutex_unlock(&watch->lock);
}

static void reclaim_arm(umo_os_watch *watch)
{
    umo_os_signal signal = UMO_OS_SIGNAL_RECLAIM;
    absent(watch, signal, watch->unified ? "cgroup v2 has no pressure_level" : watch->cgroup.why,
           watch->cgroup.native);
    if (watch->unified || watch->level_count == 0) {
        return;
    }
    absent(watch, signal, "the cgroup takes no event control", 0);
    for (size_t i = 0; i < watch->level_count; i++) {
        const level *l = &watch->levels[i];
        /* The kernel tells the cgroup whose limit makes it reclaim, not those
         * below. */
        int pressure = i == 0 || l->limit_bytes > 0
                           ? openat(l->folder, "memory.pressure_level", O_RDONLY | O_CLOEXEC)
                           : -1;
        for (size_t r = 0; r < RECLAIMS && pressure >= 0; r++) {
            int *event = &watch->files[FILE_RECLAIM + r];
            *event = *event >= 0 ? *event : eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
            if (*event >= 0 && control_write(l->folder, *event, pressure, reclaim_words[r])) {
                absent(watch, signal, NULL, 0);
            } else if (watch->signals[signal].why != NULL) {
                watch->signals[signal].native = errno;
            }
        }
        file_close(&pressure);
    }
}

static const char *const happened_words[] = {"high", "max", "oom", "oom_kill"};

/* What memory.events has counted since the last time. */
static umo_os_urgency happened_read(umo_os_watch *watch)
{
    static const umo_os_urgency urgencies[] = {UMO_OS_URGENCY_LOW, UMO_OS_URGENCY_MEDIUM,
                                               UMO_OS_URGENCY_CRITICAL, UMO_OS_URGENCY_CRITICAL};
    char text[TEXT_BYTES];
    umo_os_urgency urgency = UMO_OS_URGENCY_NONE;
    if (!umo_file_read(watch->files[FILE_EVENTS], text, sizeof text)) {
        return urgency;
    }
    for (size_t i = 0; i < 4; i++) {
        uint64_t count;
        if (umo_text_number(text, happened_words[i], &count) && count != watch->happened[i]) {
            watch->happened[i] = count;
            urgency = urgencies[i];
        }
    }
    return urgency;
}

static void events_arm(umo_os_watch *watch)
{
    umo_os_signal signal = UMO_OS_SIGNAL_EVENTS;
    if (!watch->unified || watch->level_count == 0) {
        absent(watch, signal, "the memory controller is not cgroup v2's", 0);
        return;
    }
    int file = openat(watch->levels[0].folder, "memory.events", O_RDONLY | O_CLOEXEC);
    watch->files[FILE_EVENTS] = file;
    absent(watch, signal, file >= 0 ? NULL : "memory.events cannot be read", file >= 0 ? 0 : errno);
    (void)happened_read(watch); /* polling starts at what has been read */
}

static int stall_open(const char *folder, const char *name, const char *trigger)
{
    char path[CGROUP_PATH_BYTES + 32];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    int file = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    /* The final zero is part of what the kernel takes. */
    if (file >= 0 && write(file, trigger, strlen(trigger) + 1) < 0) {
        int code = errno;
        (void)close(file);
        errno = code;
        file = -1;
    }
    return file;
}

static void stall_arm(umo_os_watch *watch)
{
    umo_os_signal signal = UMO_OS_SIGNAL_STALL;
    absent(watch, signal, "no memory.pressure that takes a trigger", ENOENT);
    for (size_t s = 0; s < STALLS; s++) {
        int *file = &watch->files[FILE_STALL + s];
        if (watch->stall_folder[0] != '\0') {
            *file = stall_open(watch->stall_folder, "memory.pressure", stall_triggers[s]);
        }
        if (*file < 0) {
            *file = stall_open(watch->options.proc, "pressure/memory", stall_triggers[s]);
        }
        if (*file >= 0) {
            absent(watch, signal, NULL, 0);
        } else if (watch->signals[signal].why != NULL) {
            watch->signals[signal].native = errno;
        }
    }
}

/* Starts over: what was armed belongs to another place or another limit. The lock is held. */
static void sources_arm(umo_os_watch *watch)
{
    static void (*const arms[])(umo_os_watch *) = {
        [UMO_OS_SIGNAL_THRESHOLD] = thresholds_begin,
        [UMO_OS_SIGNAL_EVENTS] = events_arm,
        [UMO_OS_SIGNAL_RECLAIM] = reclaim_arm,
        [UMO_OS_SIGNAL_STALL] = stall_arm,
    };
    for (size_t f = FILE_WAKE + 1; f < FILES; f++) {
        file_close(&watch->files[f]);
    }
    for (umo_os_signal s = 0; s < sizeof arms / sizeof arms[0]; s++) {
        if (!off(watch, s)) {
            arms[s](watch);
        }
    }
    watch->armed_generation = watch->generation;
}

/* The lock is held. */
static bool marks_left(umo_os_watch *watch)
{
    return watch->signals[UMO_OS_SIGNAL_THRESHOLD].why == NULL && mark_next(watch) != NULL;
}

void umo_os_watch_arm(umo_os_watch *watch)
{
    (void)pthread_mutex_lock(&watch->lock);
    if (watch->armed_generation != watch->generation) {
        sources_arm(watch);
    }
    bool left = marks_left(watch);
    (void)pthread_mutex_unlock(&watch->lock);
    if (left) {
        mark_arm(watch);
    }
}

static umo_os_signal signal_of(size_t file)
{
    if (file == FILE_THRESHOLD) {
        return UMO_OS_SIGNAL_THRESHOLD;
    }
    if (file < FILE_EVENTS) {
        return UMO_OS_SIGNAL_RECLAIM;
    }
    return file == FILE_EVENTS ? UMO_OS_SIGNAL_EVENTS : UMO_OS_SIGNAL_STALL;
}

/* A file that can only fail would end every sleep at once. One that somebody
 * else has closed is not ours any more: its number may already be another's. */
static void file_lose(umo_os_watch *watch, size_t file, short revents)
{
    if (file == FILE_WAKE) {
        atomic_store_explicit(&watch->wake, -1, memory_order_relaxed);
        watch->files[file] = -1;
        return;
    }
    if ((revents & POLLNVAL) != 0) {
        watch->files[file] = -1;
    } else {
        file_close(&watch->files[file]);
    }
    (void)pthread_mutex_lock(&watch->lock);
    absent(watch, signal_of(file), "the source was lost while it was watched", 0);
    (void)pthread_mutex_unlock(&watch->lock);
}

static void file_take(umo_os_watch *watch, size_t file, umo_os_watch_events *out)
{
    umo_os_urgency urgency = UMO_OS_URGENCY_NONE;
    uint64_t count = 1;
    switch (file) {
    case FILE_EVENTS:
        urgency = happened_read(watch);
        break;
    case FILE_STALL:
        urgency = UMO_OS_URGENCY_LOW;
        break;
    case FILE_STALL + 1:
        urgency = UMO_OS_URGENCY_MEDIUM;
        break;
    default:
        if (read(watch->files[file], &count, sizeof count) != (ssize_t)sizeof count) {
            count = 0;
        } else if (file >= FILE_RECLAIM) {
            urgency = (umo_os_urgency)(UMO_OS_URGENCY_LOW + (file - FILE_RECLAIM));
        }
    }
    if (file == FILE_WAKE) {
        return;
    }
    /* Who asks for "low" is also told of the louder ones. */
    if (file > FILE_RECLAIM && file < FILE_EVENTS) {
        count = 0;
    }
    out->count[signal_of(file)] += count;
    out->urgency = urgency > out->urgency ? urgency : out->urgency;
}

void umo_os_watch_wait(umo_os_watch *watch, uint64_t timeout_ns, uint32_t ignored,
                       umo_os_watch_events *out)
{
    *out = (umo_os_watch_events){.urgency = UMO_OS_URGENCY_NONE};
    struct pollfd polled[FILES];
    for (size_t f = 0; f < FILES; f++) {
        bool masked = f != FILE_WAKE && (ignored & (1u << signal_of(f))) != 0;
        polled[f] = (struct pollfd){.fd = masked ? -1 : watch->files[f],
                                    .events = f < FILE_EVENTS ? POLLIN : POLLPRI};
    }
    struct timespec timeout = {.tv_sec = (time_t)(timeout_ns / 1000000000u),
                               .tv_nsec = (long)(timeout_ns % 1000000000u)};
    int ready = ppoll(polled, FILES, &timeout, NULL);
    if (ready < 0 && errno != EINTR) {
        /* Out of kernel memory, or a limit on files below our count: not a reason
         * to spin. */
        (void)nanosleep(&timeout, NULL);
    }
    for (size_t f = 0; f < FILES && ready > 0; f++) {
        short revents = polled[f].revents;
        if ((revents & polled[f].events) != 0 && (revents & POLLNVAL) == 0) {
            file_take(watch, f, out);
        }
        /* kernfs raises POLLERR together with POLLPRI for what is merely new. */
        bool news = f == FILE_EVENTS && (revents & POLLPRI) != 0;
        if ((revents & (POLLERR | POLLHUP | POLLNVAL)) != 0 && !news) {
            file_lose(watch, f, revents);
        }
    }
}

void umo_os_watch_wake(umo_os_watch *watch)
{
    uint64_t one = 1;
    int wake = atomic_load_explicit(&watch->wake, memory_order_relaxed);
    if (wake >= 0) {
        ssize_t written = write(wake, &one, sizeof one);
        (void)written; /* a counter that is full wakes as well */
    }
}

umo_status umo_os_watch_create(const umo_os_watch_options *options, umo_os_watch **out,
                               umo_error *error)
{
    umo_os_watch *watch = calloc(1, sizeof *watch);
    if (watch == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to watch memory");
    }
    watch->options = *options;
    watch->options.proc = options->proc != NULL ? options->proc : "/proc";
    for (size_t f = 0; f < FILES; f++) {
        watch->files[f] = -1;
    }
    if (options->events) {
        watch->files[FILE_WAKE] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        if (watch->files[FILE_WAKE] < 0) {
            int code = errno;
            free(watch);
            return umo_error_set(error, UMO_E_SYSTEM, code, "no eventfd to wake a thread with");
        }
    }
    atomic_init(&watch->wake, watch->files[FILE_WAKE]);
    (void)pthread_mutex_init(&watch->lock, NULL);
    for (umo_os_signal s = 0; s < UMO_OS_SIGNALS; s++) {
        absent(watch, s,
               off(watch, s) || !options->events ? "not asked for" : "not watched for yet", 0);
    }
    absent(watch, UMO_OS_SIGNAL_SYSTEM, "macOS's alone", 0);
    char meminfo[CGROUP_PATH_BYTES];
    (void)snprintf(meminfo, sizeof meminfo, "%s/meminfo", watch->options.proc);
    watch->meminfo = open(meminfo, O_RDONLY | O_CLOEXEC);
    watch->meminfo_errno = watch->meminfo < 0 ? errno : 0;
    uint64_t now_ns = umo_os_now_ns();
    place_find(watch, now_ns);
    limits_read(watch, now_ns);
    *out = watch;
    return UMO_OK;
}

void umo_os_watch_destroy(umo_os_watch *watch)
{
    if (watch == NULL) {
        return;
    }
    levels_close(watch);
    file_close(&watch->meminfo);
    for (size_t f = 0; f < FILES; f++) {
        file_close(&watch->files[f]);
    }
    (void)pthread_mutex_destroy(&watch->lock);
    free(watch);
}

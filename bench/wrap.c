/*
 * How long a wrap takes, against copying the same bytes into memory that is prepared.
 *
 *   wrap [DRIVER [LARGEST_MB]]   by default OpenCL, the host driver where there is none; 256
 *
 * Three kinds of wrap:
 *
 * - first: memory of this process as a request brings it: ask the system whose it is, bind it to
 *   the device.
 * - again: memory in a registered region: found in the registration cache.
 * - shm first, shm again: memory that a client mapped: an own view is made, or found again by its
 *   identity.
 *
 * The opponent is memcpy into memory that was touched before. Both run in turns; figures are
 * medians of the turns, the spread is the range between their quartiles. "touch" is what the first
 * touch of a fresh view costs, a byte a page, which a wrap does not do and its user does.
 */
#include <umo/umo.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum {
    TURNS = 31,
    WRAPS_A_TURN = 64
};

typedef struct bench {
    umo_context *context;
    umo_device *device;
    const char *driver;
    const char *command;
} bench;

static double now_us(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static void must(umo_status status, const char *what)
{
    if (status != UMO_OK) {
        (void)fprintf(stderr, "wrap: %s failed: %s\n", what, umo_status_name(status));
        exit(1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

typedef struct series {
    double us[TURNS];
} series;

static double quantile(series *s, double q)
{
    qsort(s->us, TURNS, sizeof s->us[0], compare);
    return s->us[(size_t)(q * (TURNS - 1) + 0.5)];
}

/* As the kit does for a request's memory: whose is it, then bind it; and let go. */
static void wrap_first(const bench *b, char *data, size_t size_bytes)
{
    umo_mapping mapping;
    must(umo_mapping_query(data, &mapping), "the look-up");
    umo_import import = {.data = data, .size_bytes = size_bytes, .writable = true};
    umo_buffer *buffer = NULL;
    must(umo_buffer_import(b->device, umo_context_scope(b->context), &import, &buffer, NULL, NULL),
         "the import");
    umo_buffer_release(buffer);
}

static void wrap_again(const bench *b, char *data, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    must(umo_registry_wrap(umo_context_registry(b->context), b->device,
                           umo_context_scope(b->context), data, size_bytes, true, &buffer, NULL,
                           NULL),
         "the wrap");
    umo_buffer_release(buffer);
}

/* As the kit does for shared memory: whose is it, which view of ours, which wrap in it. */
static void wrap_shared(const bench *b, char *data, size_t size_bytes)
{
    umo_mapping mapping;
    must(umo_mapping_query(data, &mapping), "the look-up");
    void *own = NULL;
    umo_view *view = NULL;
    must(umo_view_find(umo_context_registry(b->context), data, size_bytes, &mapping, &own, &view,
                       NULL),
         "the view");
    wrap_again(b, own, size_bytes);
    umo_view_release(view);
}

static char *segment_map(size_t size_bytes)
{
    static unsigned made;
    char name[31]; /* as many letters as macOS takes */
    (void)snprintf(name, sizeof name, "/umo-bench-%ld-%u", (long)getpid(), made++);
    int file = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
    (void)shm_unlink(name);
    if (file < 0 || ftruncate(file, (off_t)size_bytes) != 0) {
        perror("shm_open");
        exit(1);
    }
    char *data = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    (void)close(file);
    if (data == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    memset(data, 1, size_bytes);
    return data;
}

static double touch_us(char *data, size_t size_bytes)
{
    volatile char *bytes = data;
    double start = now_us();
    for (size_t at = 0; at < size_bytes; at += 4096) {
        (void)bytes[at];
    }
    return now_us() - start;
}

static void claim(const bench *b, const char *kind, int megabytes, series *copy, series *wrap,
                  double touch)
{
    double copy_us = quantile(copy, 0.5);
    double wrap_us = quantile(wrap, 0.5);
    (void)printf("{\"claim\": \"wrap_%s_%dMB\", \"value\": %.4f, \"unit\": \"us\", \"opponent\": "
                 "\"memcpy into prepared memory: %.1f us\", \"ratio\": %.1f, \"spread\": [%.1f, "
                 "%.1f], \"driver\": \"%s\", \"first_touch_us\": %.1f, \"command\": \"%s\"}\n",
                 kind, megabytes, wrap_us, copy_us, copy_us / wrap_us,
                 quantile(copy, 0.25) / quantile(wrap, 0.75),
                 quantile(copy, 0.75) / quantile(wrap, 0.25), b->driver, touch, b->command);
}

/* What is timed is a wrap only if the bytes are those of the owner, where they lie. */
static void wrap_verify(const bench *b, char *data, size_t size_bytes)
{
    umo_buffer *buffer = NULL;
    must(umo_registry_wrap(umo_context_registry(b->context), b->device,
                           umo_context_scope(b->context), data, size_bytes, true, &buffer, NULL,
                           NULL),
         "the wrap");
    if (umo_buffer_host(buffer) != data || umo_buffer_size(buffer) != size_bytes) {
        (void)fprintf(stderr, "wrap: the memory is not used where it lies\n");
        exit(1);
    }
    umo_buffer_release(buffer);
}

static void view_verify(const bench *b, char *shared, size_t size_bytes)
{
    umo_mapping mapping;
    void *own = NULL;
    umo_view *view = NULL;
    must(umo_mapping_query(shared, &mapping), "the look-up");
    must(umo_view_find(umo_context_registry(b->context), shared, size_bytes, &mapping, &own, &view,
                       NULL),
         "the view");
    shared[size_bytes - 1] = 77;
    if (((volatile char *)own)[size_bytes - 1] != 77) {
        (void)fprintf(stderr, "wrap: the view shows other memory\n");
        exit(1);
    }
    wrap_verify(b, own, size_bytes);
    umo_view_release(view);
}

static void measure(const bench *b, int megabytes)
{
    size_t size_bytes = (size_t)megabytes << 20;
    char *own = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *target =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *region_data =
        mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (own == MAP_FAILED || target == MAP_FAILED || region_data == MAP_FAILED) {
        perror("mmap");
        exit(1);
    }
    memset(own, 1, size_bytes);
    memset(target, 2, size_bytes);
    memset(region_data, 3, size_bytes);
    umo_registry *registry = umo_context_registry(b->context);
    umo_region *region = NULL;
    must(umo_region_register(registry, region_data, size_bytes, true, &region, NULL), "region");
    char *shared = segment_map(size_bytes);
    wrap_first(b, own, size_bytes);
    wrap_verify(b, region_data, size_bytes);
    view_verify(b, shared, size_bytes);

    static series copy;
    static series first;
    static series again;
    static series shm_first;
    static series shm_again;
    static series touch;
    for (int turn = 0; turn < TURNS; turn++) {
        double start = now_us();
        memcpy(target, own, size_bytes);
        copy.us[turn] = now_us() - start;
        __asm__ volatile("" ::"r"(target) : "memory");

        start = now_us();
        for (int i = 0; i < WRAPS_A_TURN; i++) {
            wrap_first(b, own, size_bytes);
        }
        first.us[turn] = (now_us() - start) / WRAPS_A_TURN;

        start = now_us();
        for (int i = 0; i < WRAPS_A_TURN; i++) {
            wrap_again(b, region_data, size_bytes);
        }
        again.us[turn] = (now_us() - start) / WRAPS_A_TURN;

        /* A segment never seen before: mapped afresh for each turn, since a view is kept. */
        char *fresh = segment_map(size_bytes);
        start = now_us();
        wrap_shared(b, fresh, size_bytes);
        shm_first.us[turn] = now_us() - start;
        umo_mapping mapping;
        void *view_data = NULL;
        umo_view *view = NULL;
        must(umo_mapping_query(fresh, &mapping), "the look-up");
        must(umo_view_find(registry, fresh, size_bytes, &mapping, &view_data, &view, NULL), "view");
        touch.us[turn] = touch_us(view_data, size_bytes);
        umo_view_release(view);
        (void)munmap(fresh, size_bytes);
        (void)umo_registry_sweep(registry);

        start = now_us();
        for (int i = 0; i < WRAPS_A_TURN; i++) {
            wrap_shared(b, shared, size_bytes);
        }
        shm_again.us[turn] = (now_us() - start) / WRAPS_A_TURN;
    }
    double touched = quantile(&touch, 0.5);
    claim(b, "first", megabytes, &copy, &first, touched);
    claim(b, "again", megabytes, &copy, &again, touched);
    claim(b, "shm_first", megabytes, &copy, &shm_first, touched);
    claim(b, "shm_again", megabytes, &copy, &shm_again, touched);

    umo_region_release(region);
    (void)munmap(shared, size_bytes);
    (void)munmap(own, size_bytes);
    (void)munmap(target, size_bytes);
    (void)munmap(region_data, size_bytes);
    (void)umo_registry_sweep(registry);
}

int main(int argc, char **argv)
{
    static char command[64];
    static const int sizes[] = {1, 16, 256};
    const long largest = argc > 2 ? strtol(argv[2], NULL, 10) : 256;
    bench b = {.driver = argc > 1 ? argv[1] : "opencl"};
    (void)snprintf(command, sizeof command, "build/release/bench/wrap%s%s", argc > 1 ? " " : "",
                   argc > 1 ? argv[1] : "");
    b.command = command;
    must(umo_context_create(NULL, &b.context, NULL), "a context");
    umo_status status = umo_context_device(b.context, b.driver, 0, &b.device, NULL);
    if (status != UMO_OK && argc < 2) {
        b.driver = "host";
        status = umo_context_device(b.context, b.driver, 0, &b.device, NULL);
    }
    must(status, "a device");
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0] && sizes[i] <= largest; i++) {
        measure(&b, sizes[i]);
    }
    umo_device_release(b.device);
    umo_context_destroy(b.context);
    return 0;
}

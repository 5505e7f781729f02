/*
 * Measuring a device: every use in every mode, and every move, at two sizes.
 *
 * All of it goes through buffers and brackets, so that what is measured is what users of buffers
 * pay, maps and transfers included. Two sizes give a line: latency and bandwidth. One round
 * measures everything once, in as many short rounds as the time allows, so that what disturbs one
 * moment does not disturb one figure alone; then the least is taken, since a disturbance only ever
 * adds. The device's uses of its memory are measured by its copy: kernels would have to be compiled
 * first, which takes longer than all the rest.
 */
#include "access/calibration.h"

#include "driver/device.h"
#include "os/os.h"

#include <stdlib.h>
#include <string.h>

#define SMALL_BYTES ((size_t)4 << 10)
#define USE_BYTES ((size_t)1 << 20)
#define MOVE_BYTES ((size_t)512 << 10) /* new pages cost more than anything else here */
#define ROUNDS_MAX 15u
#define PER_S 1e9

/* Less than this a byte (1 TB/s) cannot be told from nothing with a megabyte. */
#define FREE_NS_PER_BYTE 1e-3

enum {
    SIZES = 2,
    QUANTITIES = UMO_STORAGE_MODES * (UMO_TRAFFICS + UMO_STORAGE_MODES)
};

typedef struct calibration {
    umo_device *device;
    umo_scope *scope;
    umo_buffer *subjects[UMO_STORAGE_MODES];
    umo_buffer
        *partner; /* in the most private mode there is: the other end of the device's copies */
    umo_storage_mode partner_mode;
    umo_buffer *movable[SIZES]; /* NULL where nothing moves */
    size_t use_bytes[SIZES];
    size_t move_bytes[SIZES];
    unsigned rounds;
    uint64_t ns[QUANTITIES][SIZES][ROUNDS_MAX];
} calibration;

static uint64_t *sample(calibration *c, int quantity, int size)
{
    return &c->ns[quantity][size][c->rounds];
}

static int quantity_use(int mode, int traffic)
{
    return mode * UMO_TRAFFICS + traffic;
}

static int quantity_move(int from, int to)
{
    return UMO_STORAGE_MODES * UMO_TRAFFICS + from * UMO_STORAGE_MODES + to;
}

/* ---- one measurement ---- */

static void host_read(const void *data, size_t size_bytes)
{
    const uint64_t *words = data;
    uint64_t sum = 0;
    for (size_t i = 0; i < size_bytes / sizeof *words; i++) {
        sum += words[i];
    }
    volatile uint64_t seen = sum; /* so that nobody saves the reading */
    (void)seen;
}

/* The host's turn at a buffer's first bytes. */
static umo_status host_use(umo_buffer *buffer, umo_use use, size_t size_bytes, uint64_t *out_ns)
{
    const umo_access access = {.size_bytes = size_bytes, .side = UMO_SIDE_HOST, .use = use};
    umo_fence_set waits;
    uint64_t start_ns = umo_os_now_ns();
    umo_status status = umo_access_begin(buffer, &access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    if (status == UMO_OK && (use & UMO_READ) != 0) {
        host_read(umo_buffer_host(buffer), size_bytes);
    }
    if (status == UMO_OK && (use & UMO_WRITE) != 0) {
        memset(umo_buffer_host(buffer), (int)(start_ns & 0x7f), size_bytes);
    }
    umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
    *out_ns = umo_os_now_ns() - start_ns;
    return status != UMO_OK ? status : ended;
}

/* Brings the bytes to a side that lacks them, and no more. */
static umo_status side_bring(umo_buffer *buffer, umo_side side, size_t size_bytes, uint64_t *out_ns)
{
    const umo_access access = {.size_bytes = size_bytes, .side = side, .use = UMO_READ};
    umo_fence_set waits;
    uint64_t start_ns = umo_os_now_ns();
    umo_status status = umo_access_begin(buffer, &access, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_fence_set_wait(&waits, UINT64_MAX);
    umo_status ended = umo_access_end(buffer, &access, (umo_fence){0});
    *out_ns = umo_os_now_ns() - start_ns;
    return status != UMO_OK ? status : ended;
}

static void waits_add(umo_fence_set *all, const umo_fence_set *more)
{
    for (size_t i = 0; i < more->count; i++) {
        if (!umo_fence_set_add(all, more->fences[i])) {
            umo_status_ignore(umo_fence_wait(more->fences[i], UINT64_MAX));
        }
    }
}

/* The device copies one buffer's first bytes to another. */
static umo_status device_copy(const calibration *c, umo_buffer *from, umo_buffer *to,
                              size_t size_bytes, uint64_t *out_ns)
{
    const umo_access reads = {.size_bytes = size_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_READ};
    const umo_access writes = {.size_bytes = size_bytes, .side = UMO_SIDE_DEVICE, .use = UMO_WRITE};
    umo_fence_set waits;
    umo_fence_set more;
    umo_fence done = {0};
    uint64_t start_ns = umo_os_now_ns();
    umo_status status = umo_access_begin(from, &reads, &waits);
    if (status != UMO_OK) {
        return status;
    }
    status = umo_access_begin(to, &writes, &more);
    if (status != UMO_OK) {
        umo_status_ignore(umo_access_abort(from, &reads, done));
        return status;
    }
    waits_add(&waits, &more);
    const umo_piece piece = {umo_buffer_memory(from), umo_buffer_memory_offset(from), size_bytes};
    status =
        umo_device_gather(c->device, 0, &piece, 1, umo_buffer_memory(to),
                          umo_buffer_memory_offset(to), waits.fences, waits.count, &done, NULL);
    umo_status ended = umo_access_end(from, &reads, done);
    umo_status closed =
        status == UMO_OK ? umo_access_end(to, &writes, done) : umo_access_abort(to, &writes, done);
    umo_status waited = umo_fence_wait(done, UINT64_MAX);
    *out_ns = umo_os_now_ns() - start_ns;
    status = status != UMO_OK ? status : ended;
    status = status != UMO_OK ? status : closed;
    return status != UMO_OK ? status : waited;
}

/* ---- one round ---- */

/* In an order in which each use finds the bytes where it wants them, so that none pays for
 * another's map or transfer, and the two that bring them find them on the other side. */
static umo_status uses_measure(calibration *c, int mode, int size)
{
    umo_buffer *buffer = c->subjects[mode];
    size_t bytes = c->use_bytes[size];
    uint64_t unused;
    umo_status status = host_use(buffer, UMO_READ_WRITE, bytes, &unused);
    if (status == UMO_OK) {
        status = host_use(buffer, UMO_WRITE, bytes,
                          sample(c, quantity_use(mode, UMO_TRAFFIC_HOST_WRITE), size));
    }
    if (status == UMO_OK) {
        status = host_use(buffer, UMO_READ, bytes,
                          sample(c, quantity_use(mode, UMO_TRAFFIC_HOST_READ), size));
    }
    if (status == UMO_OK) {
        status = side_bring(buffer, UMO_SIDE_DEVICE, bytes,
                            sample(c, quantity_use(mode, UMO_TRAFFIC_TO_DEVICE), size));
    }
    if (status == UMO_OK) {
        status = device_copy(c, buffer, c->partner, bytes,
                             sample(c, quantity_use(mode, UMO_TRAFFIC_DEVICE_READ), size));
    }
    if (status == UMO_OK) {
        status = device_copy(c, c->partner, buffer, bytes, &unused);
    }
    if (status == UMO_OK) {
        status = device_copy(c, c->partner, buffer, bytes,
                             sample(c, quantity_use(mode, UMO_TRAFFIC_DEVICE_WRITE), size));
    }
    if (status == UMO_OK) {
        status = side_bring(buffer, UMO_SIDE_HOST, bytes,
                            sample(c, quantity_use(mode, UMO_TRAFFIC_TO_HOST), size));
    }
    return status;
}

static bool moves_between(const calibration *c, int from, int to)
{
    uint32_t both = 1u << from | 1u << to;
    return from != to && c->movable[SIZES - 1] != NULL &&
           (umo_buffer_modes(c->movable[SIZES - 1]) & both) == both;
}

/* From a mode to another, with bytes that are valid on both sides and wanted on both. */
static umo_status move_measure(calibration *c, int from, int to, int size)
{
    umo_buffer *buffer = c->movable[size];
    uint64_t unused;
    umo_status status = umo_buffer_move(buffer, (umo_storage_mode)from, 0, NULL);
    if (status == UMO_OK) {
        status = host_use(buffer, UMO_WRITE, c->move_bytes[size], &unused);
    }
    if (status == UMO_OK) {
        status = side_bring(buffer, UMO_SIDE_DEVICE, c->move_bytes[size], &unused);
    }
    if (status == UMO_OK) {
        uint64_t start_ns = umo_os_now_ns();
        status = umo_buffer_move(buffer, (umo_storage_mode)to, 0, NULL);
        *sample(c, quantity_move(from, to), size) = umo_os_now_ns() - start_ns;
    }
    return status;
}

static umo_status moves_measure(calibration *c, int size)
{
    umo_status status = UMO_OK;
    for (int from = 0; from < UMO_STORAGE_MODES; from++) {
        for (int to = 0; to < UMO_STORAGE_MODES && status == UMO_OK; to++) {
            if (moves_between(c, from, to)) {
                status = move_measure(c, from, to, size);
            }
        }
    }
    return status;
}

static umo_status round_measure(calibration *c)
{
    umo_status status = UMO_OK;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int size = 0; size < SIZES && c->subjects[mode] != NULL && status == UMO_OK; size++) {
            status = uses_measure(c, mode, size);
        }
    }
    for (int size = 0; size < SIZES && status == UMO_OK; size++) {
        status = moves_measure(c, size);
    }
    return status;
}

/* ---- from samples to a model ---- */

static int compare(const void *left, const void *right)
{
    uint64_t a = *(const uint64_t *)left;
    uint64_t b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

static void samples_sort(calibration *c)
{
    for (int quantity = 0; quantity < QUANTITIES; quantity++) {
        for (int size = 0; size < SIZES; size++) {
            qsort(c->ns[quantity][size], c->rounds, sizeof(uint64_t), compare);
        }
    }
}

static double least(const calibration *c, int quantity, int size)
{
    return (double)c->ns[quantity][size][0];
}

/* Whether what is usual was far from the least for a quarter of all figures: too busy a machine to
 * believe the rest. */
static bool disturbed(const calibration *c)
{
    const double slack_ns = 2000; /* of the clock, and of caches */
    int measured = 0;
    int off = 0;
    for (int quantity = 0; quantity < QUANTITIES; quantity++) {
        for (int size = 0; size < SIZES; size++) {
            const size_t half = c->rounds / 2;
            double middle = (double)c->ns[quantity][size][half];
            measured += middle > 0 ? 1 : 0;
            off += middle > 2 * least(c, quantity, size) + slack_ns ? 1 : 0;
        }
    }
    return 4 * off > measured;
}

/* The slope between two sizes. */
static double line_slope(const calibration *c, int quantity, const size_t sizes[SIZES])
{
    double slope = (least(c, quantity, 1) - least(c, quantity, 0)) / (double)(sizes[1] - sizes[0]);
    return slope > 0 ? slope : 0;
}

static umo_rate rate_of(double small_ns, double ns_per_byte)
{
    double latency_ns = small_ns - ns_per_byte * (double)SMALL_BYTES;
    return (umo_rate){.latency_ns = latency_ns > 0 ? (uint64_t)(latency_ns + 0.5) : 0,
                      .bytes_s =
                          ns_per_byte > FREE_NS_PER_BYTE ? (uint64_t)(PER_S / ns_per_byte) : 0};
}

/* Of a copy's time a byte, half of what a copy inside the partner's mode takes is the partner's; at
 * most half of it all, as no mode is faster than the partner's but by noise. */
static double slope_less_partner(const calibration *c, int quantity)
{
    double whole = line_slope(c, quantity, c->use_bytes);
    int inside = quantity_use((int)c->partner_mode, UMO_TRAFFIC_DEVICE_READ);
    double partner = line_slope(c, inside, c->use_bytes) / 2;
    return whole - partner > whole / 2 ? whole - partner : whole / 2;
}

static void model_fill(calibration *c, umo_cost_model *out)
{
    umo_cost_model_assume(&c->device->info, out);
    samples_sort(c);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        if (c->subjects[mode] == NULL) {
            continue;
        }
        for (int t = 0; t < UMO_TRAFFICS; t++) {
            int quantity = quantity_use(mode, t);
            bool device = t == UMO_TRAFFIC_DEVICE_READ || t == UMO_TRAFFIC_DEVICE_WRITE;
            out->use[mode][t] =
                rate_of(least(c, quantity, 0), device ? slope_less_partner(c, quantity)
                                                      : line_slope(c, quantity, c->use_bytes));
        }
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            if (moves_between(c, mode, to)) {
                int quantity = quantity_move(mode, to);
                out->move[mode][to] =
                    rate_of(least(c, quantity, 0), line_slope(c, quantity, c->move_bytes));
            }
        }
    }
    out->source = UMO_COST_MEASURED;
    out->disturbed = disturbed(c);
    umo_calibration_level(out);
}

void umo_calibration_level(umo_cost_model *model)
{
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        uint64_t least_ns = UINT64_MAX;
        double fastest = 0;
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            const umo_rate *rate = &model->use[mode][t];
            if ((model->modes & 1u << mode) != 0) {
                least_ns = rate->latency_ns < least_ns ? rate->latency_ns : least_ns;
                fastest = (double)rate->bytes_s > fastest ? (double)rate->bytes_s : fastest;
            }
        }
        for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
            umo_rate *rate = &model->use[mode][t];
            if ((model->modes & 1u << mode) == 0) {
                continue;
            }
            if (rate->latency_ns <= least_ns + least_ns / 2 + 1000) {
                rate->latency_ns = least_ns;
            }
            if (rate->bytes_s != 0 && (double)rate->bytes_s >= fastest * 0.6) {
                rate->bytes_s = (uint64_t)fastest;
            }
        }
    }
}

/* ---- all of it ---- */

static void calibration_finish(calibration *c)
{
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_buffer_release(c->subjects[mode]);
    }
    umo_buffer_release(c->partner);
    umo_buffer_release(c->movable[0]);
    umo_buffer_release(c->movable[1]);
    umo_scope_destroy(c->scope);
    free(c);
}

static umo_status buffers_make(calibration *c, umo_error *error)
{
    uint32_t modes = c->device->info.caps & ((1u << UMO_STORAGE_MODES) - 1);
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        if ((modes & 1u << mode) == 0) {
            continue;
        }
        umo_status status = umo_buffer_alloc(c->device, c->scope, c->use_bytes[1],
                                             (umo_storage_mode)mode, &c->subjects[mode], error);
        if (status != UMO_OK) {
            return status;
        }
        c->partner_mode = (umo_storage_mode)mode;
    }
    if (modes == 0) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0, "device '%s' allocates nothing",
                             c->device->info.name);
    }
    umo_status status =
        umo_buffer_alloc(c->device, c->scope, c->use_bytes[1], c->partner_mode, &c->partner, error);
    if (status != UMO_OK || (modes & (modes - 1)) == 0) {
        return status;
    }
    for (int size = 0; size < SIZES && status == UMO_OK; size++) {
        status = umo_buffer_alloc_movable(c->device, c->scope, c->move_bytes[size], c->partner_mode,
                                          &c->movable[size], error);
    }
    return status == UMO_E_UNSUPPORTED ? UMO_OK : status; /* then there is no move to be measured */
}

static size_t size_within(size_t size_bytes, uint64_t limit_bytes)
{
    return size_bytes < limit_bytes ? size_bytes : (size_t)limit_bytes & ~(SMALL_BYTES - 1);
}

umo_status umo_calibration_measure(umo_device *device, uint64_t budget_ns, umo_cost_model *out,
                                   umo_error *error)
{
    uint64_t start_ns = umo_os_now_ns();
    size_t use_bytes = size_within(USE_BYTES, device->info.buffer_max_bytes);
    if (use_bytes < 2 * SMALL_BYTES) {
        return umo_error_set(error, UMO_E_UNSUPPORTED, 0,
                             "device '%s' has no buffers that are long enough to be measured",
                             device->info.name);
    }
    calibration *c = calloc(1, sizeof *c);
    if (c == NULL) {
        return umo_error_set(error, UMO_E_NOMEM, 0, "no memory to measure device '%s' in",
                             device->info.name);
    }
    c->device = device;
    c->use_bytes[0] = SMALL_BYTES;
    c->use_bytes[1] = use_bytes;
    c->move_bytes[0] = SMALL_BYTES;
    c->move_bytes[1] = size_within(MOVE_BYTES, device->info.buffer_max_bytes);
    umo_status status = umo_scope_create(NULL, "calibration", 0, &c->scope, error);
    if (status == UMO_OK) {
        status = buffers_make(c, error);
    }
    uint64_t round_ns = 0;
    uint64_t spent_ns = 0;
    while (status == UMO_OK && c->rounds < ROUNDS_MAX &&
           (c->rounds == 0 || (spent_ns < budget_ns && round_ns < budget_ns - spent_ns))) {
        uint64_t before_ns = umo_os_now_ns();
        status = round_measure(c);
        c->rounds++;
        uint64_t now_ns = umo_os_now_ns();
        round_ns = now_ns - before_ns;
        spent_ns = now_ns - start_ns;
        if (status != UMO_OK) {
            umo_error_set(error, status, 0, "device '%s' failed while it was measured",
                          device->info.name);
        }
    }
    if (status == UMO_OK) {
        model_fill(c, out);
    }
    calibration_finish(c);
    return status;
}

/*
 * The cost model: what uses and moves cost, from rates.
 *
 * Costs are whole nanoseconds and never larger than UMO_COST_MAX_NS, so that the sums of the
 * placement (placement.c) need no care. Bandwidth is divided in floating point: a product of bytes
 * and nanoseconds does not fit in 64 bits.
 */
#include <umo/placement.h>

#define PER_S 1e9
#define GB_S ((uint64_t)1000000000)

static uint64_t cost_clamp(double ns)
{
    return ns < (double)UMO_COST_MAX_NS ? (uint64_t)(ns + 0.5) : UMO_COST_MAX_NS;
}

static uint64_t cost_add(uint64_t a_ns, uint64_t b_ns)
{
    return a_ns > UMO_COST_MAX_NS - b_ns ? UMO_COST_MAX_NS : a_ns + b_ns;
}

static uint64_t rate_cost(umo_rate rate, umo_uses uses)
{
    double ns = (double)uses.count * (double)rate.latency_ns;
    if (rate.bytes_s != 0) {
        ns += (double)uses.size_bytes * PER_S / (double)rate.bytes_s;
    }
    return cost_clamp(ns);
}

uint64_t umo_cost_window_ns(const umo_cost_model *model, umo_storage_mode mode,
                            const umo_placement_window *window)
{
    uint64_t sum_ns = 0;
    for (int t = 0; t < UMO_TRAFFICS; t++) {
        sum_ns = cost_add(sum_ns, rate_cost(model->use[mode][t], window->uses[t]));
    }
    return sum_ns;
}

static umo_uses uses_between(umo_tally before, umo_tally now)
{
    /* Another thread may have been counting: a reading is not of one moment. */
    return (umo_uses){now.events > before.events ? now.events - before.events : 0,
                      now.bytes > before.bytes ? now.bytes - before.bytes : 0};
}

/* So many of the reads found bytes that the other side had written. */
static umo_uses uses_brought(umo_uses reads, umo_uses writes_there, double turns)
{
    double most = (double)(reads.count < writes_there.count ? reads.count : writes_there.count);
    double count = turns / 2 < most ? turns / 2 : most;
    umo_uses brought = {.count = (uint64_t)(count + 0.5)};
    if (reads.count > 0) {
        double each = (double)reads.size_bytes / (double)reads.count;
        brought.size_bytes = cost_clamp(each * (double)brought.count);
    }
    return brought;
}

void umo_placement_window_between(const umo_access_stats *before, const umo_access_stats *now,
                                  umo_placement_window *out)
{
    static const umo_access_stats none;
    before = before != NULL ? before : &none;
    umo_placement_window window;
    window.uses[UMO_TRAFFIC_HOST_READ] = uses_between(before->host.reads, now->host.reads);
    window.uses[UMO_TRAFFIC_HOST_WRITE] = uses_between(before->host.writes, now->host.writes);
    window.uses[UMO_TRAFFIC_DEVICE_READ] = uses_between(before->device.reads, now->device.reads);
    window.uses[UMO_TRAFFIC_DEVICE_WRITE] = uses_between(before->device.writes, now->device.writes);
    double accesses =
        now->accesses > before->accesses ? (double)(now->accesses - before->accesses) : 0;
    double turns =
        now->recent_accesses > 0 ? accesses * now->recent_turns / now->recent_accesses : 0;
    window.uses[UMO_TRAFFIC_TO_DEVICE] = uses_brought(window.uses[UMO_TRAFFIC_DEVICE_READ],
                                                      window.uses[UMO_TRAFFIC_HOST_WRITE], turns);
    window.uses[UMO_TRAFFIC_TO_HOST] = uses_brought(window.uses[UMO_TRAFFIC_HOST_READ],
                                                    window.uses[UMO_TRAFFIC_DEVICE_WRITE], turns);
    *out = window;
}

void umo_cost_moves(const umo_cost_model *model, uint64_t size_bytes, umo_placement_moves *out)
{
    for (int from = 0; from < UMO_STORAGE_MODES; from++) {
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            out->ns[from][to] =
                from == to ? 0 : rate_cost(model->move[from][to], (umo_uses){1, size_bytes});
        }
    }
    for (int via = 0; via < UMO_STORAGE_MODES; via++) {
        if ((model->modes & 1u << via) == 0) {
            continue;
        }
        for (int from = 0; from < UMO_STORAGE_MODES; from++) {
            for (int to = 0; to < UMO_STORAGE_MODES; to++) {
                uint64_t around_ns = cost_add(out->ns[from][via], out->ns[via][to]);
                out->ns[from][to] = around_ns < out->ns[from][to] ? around_ns : out->ns[from][to];
            }
        }
    }
}

void umo_placement_reckon(const umo_cost_model *model, uint64_t size_bytes,
                          umo_placement_moves *out)
{
    uint64_t dearest_ns = 0;
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        for (int t = 0; t < UMO_TRAFFICS && (model->modes & 1u << mode) != 0; t++) {
            uint64_t ns = rate_cost(model->use[mode][t], (umo_uses){1, size_bytes});
            dearest_ns = ns > dearest_ns ? ns : dearest_ns;
        }
    }
    const uint64_t least_ns = cost_add(dearest_ns, dearest_ns);
    umo_cost_moves(model, size_bytes, out);
    for (int from = 0; from < UMO_STORAGE_MODES; from++) {
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            if (from != to && out->ns[from][to] < least_ns) {
                out->ns[from][to] = least_ns;
            }
        }
    }
}

/* One after the other; 0 bytes a second take no time. */
static umo_rate rate_sum(umo_rate a, umo_rate b)
{
    umo_rate sum = {.latency_ns = a.latency_ns + b.latency_ns};
    if (a.bytes_s == 0 || b.bytes_s == 0) {
        sum.bytes_s = a.bytes_s + b.bytes_s;
    } else {
        double both = 1 / (1 / (double)a.bytes_s + 1 / (double)b.bytes_s);
        sum.bytes_s = both < 1 ? 1 : (uint64_t)both;
    }
    return sum;
}

static uint64_t slower(uint64_t a_bytes_s, uint64_t b_bytes_s)
{
    return b_bytes_s == 0 || (a_bytes_s != 0 && a_bytes_s < b_bytes_s) ? a_bytes_s : b_bytes_s;
}

void umo_cost_model_link(const umo_link *link, umo_cost_model *out)
{
    umo_cost_model model = {.modes = (1u << UMO_STORAGE_MODES) - 1, .source = UMO_COST_ASSUMED};
    umo_rate over = {link->device.latency_ns, slower(link->device.bytes_s, link->wire.bytes_s)};
    for (int mode = 0; mode < UMO_STORAGE_MODES; mode++) {
        umo_rate device = mode == UMO_UNIFIED ? over : link->device;
        umo_rate wire = mode == UMO_UNIFIED ? (umo_rate){0} : link->wire;
        model.use[mode][UMO_TRAFFIC_HOST_READ] = link->host;
        model.use[mode][UMO_TRAFFIC_HOST_WRITE] = link->host;
        model.use[mode][UMO_TRAFFIC_DEVICE_READ] = device;
        model.use[mode][UMO_TRAFFIC_DEVICE_WRITE] = device;
        model.use[mode][UMO_TRAFFIC_TO_DEVICE] = wire;
        model.use[mode][UMO_TRAFFIC_TO_HOST] = wire;
        for (int to = 0; to < UMO_STORAGE_MODES; to++) {
            bool across = mode == UMO_UNIFIED || to == UMO_UNIFIED;
            umo_rate copy = across ? link->wire : rate_sum(link->device, link->device);
            model.move[mode][to] = mode == to ? (umo_rate){0} : rate_sum(copy, link->alloc);
        }
    }
    *out = model;
}

void umo_cost_model_assume(const umo_device_info *info, umo_cost_model *out)
{
    /* Round figures of the year 2026, slow ones rather than fast: a link that is thought too slow
     * costs a move too many at worst, and moves are few. */
    umo_link link = {
        .host = {.bytes_s = 20 * GB_S},
        .device = {.latency_ns = 10000,
                   .bytes_s = info->bandwidth_bytes_s != 0 ? info->bandwidth_bytes_s
                                                           : (info->unified ? 50 : 400) * GB_S},
        .wire = {.latency_ns = 10000, .bytes_s = (info->unified ? 20 : 16) * GB_S},
        .alloc = {.latency_ns = 20000, .bytes_s = 4 * GB_S},
    };
    umo_cost_model_link(&link, out);
    if (info->unified) {
        /* Nothing lies between: the device reaches the host's memory as its own. */
        for (int t = UMO_TRAFFIC_DEVICE_READ; t <= UMO_TRAFFIC_DEVICE_WRITE; t++) {
            out->use[UMO_UNIFIED][t] = link.device;
        }
    }
    out->modes = info->caps & (UMO_CAP_UNIFIED | UMO_CAP_MANAGED | UMO_CAP_PRIVATE);
}

UMO_STATIC_ASSERT(UMO_CAP_UNIFIED == 1u << UMO_UNIFIED && UMO_CAP_MANAGED == 1u << UMO_MANAGED &&
                      UMO_CAP_PRIVATE == 1u << UMO_PRIVATE,
                  "a set of modes is the lowest bits of the capabilities");

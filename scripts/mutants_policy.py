"""Mutants of what decides: placement, pressure, the optimizer and the C++ face. The form is that of mutants.py."""

from mutants import mutant

# ---- placement ----
PLACEMENT = "src/access/placement.c"
COST = "src/access/cost.c"
CALIBRATE = "src/access/calibrate.c"
MEASURE = "src/access/calibrate_measure.c"
FILE = "src/access/calibration_file.c"
OPTIMIZE = "src/access/optimize.c"
mutant(
    "placement: a mode that is reached more cheaply from another is stayed in",
    PLACEMENT,
    "if (own[s] && (value < least || dearer)) {",
    "if (value < least || dearer) {",
    "access.placement_test",
)
mutant(
    "placement: a mode that has become dear is kept although to have moved is as good",
    PLACEMENT,
    "bool dearer = chosen == now && value == least && cost[now] > cost[s];",
    "bool dearer = false;",
    "access.placement_test",
)
mutant(
    "placement: the move to the answered mode is not thought of",
    PLACEMENT,
    "uint64_t value = placement->work[s] + moves->ns[now][s];",
    "uint64_t value = placement->work[s];",
    "access.placement_test",
)
mutant(
    "placement: uneven moves are taken as they are",
    PLACEMENT,
    "out->ns[from][to] = move_ns(moves, from, to) + move_ns(moves, to, from);",
    "out->ns[from][to] = 2 * move_ns(moves, from, to);",
    "access.placement_test",
)
mutant(
    "placement: a move that was not made is paid for",
    PLACEMENT,
    "placement->paid_ns -= placement->move_ns;",
    "(void)0;",
    "access.placement_test",
)
mutant(
    "placement: a detour by way of a mode that the device lacks",
    COST,
    "if ((model->modes & 1u << via) == 0) { continue; }",
    "",
    "access.placement_test",
)
mutant(
    "placement: every read brings bytes",
    COST,
    "double count = turns / 2 < most ? turns / 2 : most;",
    "double count = (double)reads.count + 0 * most * turns;",
    "access.optimize_test",
)
mutant(
    "calibration: a file's checksum is not looked at",
    FILE,
    "if (memcmp(text + size, sum, SUM_BYTES) != 0) {",
    "if (memcmp(text + size, sum, 4) != 0) {",
    "access.calibrate_test",
)
mutant(
    "calibration: a file of another device is believed",
    FILE,
    "memcmp(text, key->text, key_bytes) != 0) {",
    "memcmp(text, key->text, 10) != 0) {",
    "access.calibrate_test",
)
mutant(
    "calibration: those who waited measure again",
    CALIBRATE,
    "bool found = kept && !how.redo && recall(&key, age_max_s, &model);",
    "bool found = false;",
    "access.calibrate_test",
)
mutant(
    "calibration: a measurement from the future is believed",
    CALIBRATE,
    "return age_s >= 0 && age_s <= age_max_s;",
    "return age_s <= age_max_s;",
    "access.calibrate_test",
)
mutant(
    "calibration: the bytes to be brought are there already",
    MEASURE,
    "status = side_bring(buffer, UMO_SIDE_DEVICE, bytes, sample(c, quantity_use(mode, UMO_TRAFFIC_TO_DEVICE), size));",
    "status = side_bring(buffer, UMO_SIDE_HOST, bytes, sample(c, quantity_use(mode, UMO_TRAFFIC_TO_DEVICE), size));",
    "access.calibrate_test",
)
mutant(
    "placer: a buffer that others moved is thought to be where it was put",
    OPTIMIZE,
    "umo_placement_set(&entry->placement, mode);",
    "(void)0;",
    "access.optimize_test",
)
mutant(
    "placer: what was counted once is counted again",
    OPTIMIZE,
    "entry->stats = now;",
    "(void)0;",
    "access.optimize_test",
)
mutant(
    "placer: moves do not keep to their share of the time",
    OPTIMIZE,
    "bool allowed = placer->credit_ns > 0;",
    "bool allowed = true;",
    "access.optimize_test",
)
mutant(
    "placer: freed buffers are never forgotten",
    OPTIMIZE,
    "entries_drop(placer, placer->run);",
    "(void)0;",
    "access.optimize_test",
)
mutant(
    "placer: a run forgets the buffers outside of its scope",
    OPTIMIZE,
    "umo_buffer_visit(NULL, run_mark, &run);",
    "(void)run_mark;",
    "access.optimize_test",
)
mutant(
    "placement: moves that cost nothing are made after every use",
    COST,
    "if (from != to && out->ns[from][to] < least_ns) {",
    "if (false) {",
    "access.placement_test",
)
mutant(
    "calibration: the samples are not looked at",
    MEASURE,
    "return (double)c->ns[quantity][size][0];",
    "return 1 + 0 * (double)c->ns[quantity][size][0];",
    "access.calibrate_test",
)

# ---- pressure ----
PRESSURE = "src/access/pressure.c"
PRESSURE_POLICY = "src/access/pressure_policy.c"
PRESSURE_RELIEVE = "src/access/relieve.c"
PRESSURE_WATCH = "src/os/linux_watch.c"
PRESSURE_CGROUP = "src/os/linux_cgroup.c"
mutant(
    "pressure: answers climb without a settling time",
    PRESSURE_POLICY,
    "bool due = climbs ? since(now_ns, state->climbed_ns) >= umo_pressure_settle_ns(louder(state))",
    "bool due = climbs ? true",
    "access.pressure_policy_test",
)
mutant(
    "pressure: a clock that goes back is not followed",
    PRESSURE_POLICY,
    "if (now_ns < state->now_ns) {",
    "if (false) {",
    "access.pressure_policy_test",
)
mutant(
    "pressure: events refuse work",
    PRESSURE_POLICY,
    "static const unsigned stage_max_heard[] = {0, 1, 2, 3};",
    "static const unsigned stage_max_heard[] = {0, 1, 2, 4};",
    "access.pressure_policy_test",
)
mutant(
    "pressure: repetitions do not become rarer",
    PRESSURE_POLICY,
    "wait_ns <<= state->repeats;",
    "wait_ns <<= 0;",
    "access.pressure_policy_test",
)
mutant(
    "pressure: idle file pages count",
    PRESSURE_WATCH,
    "return idle_bytes < raw_bytes ? raw_bytes - idle_bytes : 0;",
    "return raw_bytes;",
    "os.linux_watch_test",
)
mutant(
    "pressure: only the own cgroup's limit counts",
    PRESSURE_WATCH,
    "if (watch->level_count == LEVELS_MAX || strlen(path) <= mount_length || slash == NULL) {",
    "if (true || strlen(path) <= mount_length || slash == NULL) {",
    "os.linux_watch_test",
)
mutant(
    "pressure: a mark that is not armed is relied on",
    PRESSURE_WATCH,
    "return raw_bytes < mark && m < l->marks_armed;",
    "return raw_bytes < mark;",
    "os.linux_watch_test",
)
mutant(
    "pressure: a closed file is polled for ever",
    PRESSURE_WATCH,
    "if ((revents & POLLNVAL) != 0) { watch->files[file] = -1;",
    "if ((revents & POLLNVAL) != 0) { (void)0;",
    "os.linux_watch_test",
)
mutant(
    "pressure: a cgroup's name is a prefix of another's",
    PRESSURE_CGROUP,
    "if (strncmp(path, root, length) != 0 || (path[length] != '/' && path[length] != '\\0')) {",
    "if (strncmp(path, root, length) != 0) {",
    "os.linux_watch_test",
)
mutant(
    "pressure: what pools keep counts as use of the budget",
    PRESSURE,
    ".usage_bytes = live_bytes > kept_bytes ? live_bytes - kept_bytes : 0,",
    ".usage_bytes = live_bytes,",
    "access.pressure_test",
)
mutant(
    "pressure: a relief that asks again waits for itself",
    PRESSURE,
    "if (pressure->busy && pthread_equal(pressure->answerer, pthread_self())) {",
    "if (false) {",
    "access.pressure_test",
)
mutant(
    "pressure: budgets stay low after the end",
    PRESSURE,
    "umo_pools_tighten(pressure->root, 100);",
    "(void)0;",
    "access.pressure_test",
)
mutant(
    "pressure: a buffer used just now gives up a side",
    PRESSURE_RELIEVE,
    "w->now_ns - stats.last_ns >= w->idle_ns",
    "true",
    "access.pressure_test",
)

# ---- optimizer, C++ ----
OPTIMIZER = "src/context/optimizer.c"
OPTIMIZER_USE = "src/context/optimizer_use.c"
OPTIMIZER_MEMORY = "src/context/optimizer_memory.c"
WORKER = "src/context/worker.c"
UNIFIED = "include/umo/unified_memory.hpp"
mutant(
    "an end takes the bracket of another thread",
    "src/mem/access.c",
    "if (pthread_equal(use->opener, pthread_self())) { return use; }",
    "",
    "mem.migrate_test",
)
mutant(
    "an export begins with a bracket that is in the way of another export",
    "src/mem/export.c",
    "status = umo_bytes_claim(buffer, &access, true, waits);",
    "status = umo_bytes_claim(buffer, &access, true, waits); "
    "(void)pthread_mutex_unlock(&buffer->lock); if (status == UMO_OK) "
    "{ status = umo_bracket_open(buffer, &access, waits); } "
    "(void)pthread_mutex_lock(&buffer->lock); if (status == UMO_OK) { umo_use_drop(buffer, buffer->use_count - 1); }",
    "mem.export_test",
)
mutant(
    "what is wrapped is not in the total",
    OPTIMIZER_USE,
    "counters.live_bytes + summary.wrapped_bytes",
    "counters.live_bytes",
    "context.optimizer_test",
)
mutant(
    "a batch's parts are not found by their addresses",
    OPTIMIZER_MEMORY,
    "found_by_address(made[done], pattern);",
    "(void)pattern;",
    "context.optimizer_test",
)
mutant(
    "what stands behind a batch counts beside its parts",
    OPTIMIZER_MEMORY,
    "umo_record_close(*piece);",
    "(void)0;",
    "context.optimizer_test",
)
mutant(
    "a child of fork() waits for its parent's thread",
    WORKER,
    "if (worker->owner != getpid()) {",
    "if (false) {",
    "context.optimizer_test",
)
mutant(
    "one started by a call keeps its pressure when a configuration comes",
    OPTIMIZER,
    ".threshold = asked ? config->pressure_threshold : 0",
    ".threshold = asked ? config->pressure_threshold : config->pressure_threshold",
    "context.optimizer_test",
)
mutant(
    "pressure started with the default is watched with another threshold",
    "src/context/context.c",
    "threshold > 0 ? threshold : UMO_PRESSURE_THRESHOLD_DEFAULT",
    "threshold",
    "context.optimizer_test",
)
mutant(
    "a buffer is lost when its C++ object cannot be made",
    UNIFIED,
    "Free(buffer, pooled); throw;",
    "throw;",
    "cxx.unified_memory_host",
)
mutant(
    "the rest of a batch is lost when a C++ object cannot be made",
    UNIFIED,
    "umo_buffer_release(made[next++]);",
    "next++;",
    "cxx.unified_memory_host",
)

# ---- what the second review found ----
mutant(
    "record: a fork does not wait for who records",
    "src/mem/record_life.c",
    "(void)pthread_atfork(fork_prepare, fork_done, fork_done);",
    "(void)fork_prepare; (void)fork_done;",
    "mem.record_test",
)
mutant(
    "pressure: pools that hold nothing are tightened at a steady low level",
    "src/access/pressure_policy.c",
    "pools_bytes >= (usage_bytes - target_bytes) / POOLS_PART;",
    "true;",
    "access.pressure_policy_test",
)
mutant(
    "pressure: what a peak called for stays while usage is near the threshold",
    "src/access/pressure_policy.c",
    "} else if (since(now_ns, state->eased_ns) >= EASE_NS) {",
    "} else if (false) {",
    "access.pressure_policy_test",
)
mutant(
    "pressure: a peak is forgotten at once",
    "src/access/pressure_policy.c",
    "} else if (since(now_ns, state->eased_ns) >= EASE_NS) {",
    "} else {",
    "access.pressure_policy_test",
)
mutant(
    "pressure: listeners are not told of refusing",
    "src/access/pressure.c",
    "if (before != (uint32_t)state->level || refused != state->refusing) {",
    "if (before != (uint32_t)state->level) {",
    "access.pressure_test",
)
mutant(
    "os: threads of ours block their own faults",
    "src/os/thread.c",
    "(void)sigdelset(&all, faults[i]);",
    "(void)faults[i];",
    "os.system_test",
)
mutant(
    "os: threads of ours stay bound where who made them is",
    "src/os/thread.c",
    "mine[i] |= firsts[i];",
    "(void)firsts[i];",
    "os.thread_test",
)
mutant(
    "pressure: a cgroup's name that begins with dots lies outside",
    "src/os/linux_cgroup.c",
    "return strncmp(path, \"/..\", 3) == 0 && (path[3] == '/' || path[3] == '\\0');",
    'return strncmp(path, "/..", 3) == 0;',
    "os.linux_watch_test",
)
mutant(
    "profile: wide forms start a formula",
    "src/trace/csv.c",
    "starts = starts || strncmp(name, wide[i], 3) == 0;",
    "(void)wide[i];",
    "trace.profile_test",
)
mutant(
    "a bracket does not see who else uses its bytes",
    "src/mem/access.c",
    "umo_status status = buffer->piece == NULL ? bracket_claim(buffer, access, waits)",
    "umo_status status = buffer != NULL ? bracket_claim(buffer, access, waits)",
    "context.planned_test",
)
mutant(
    "a batch with lifetimes shares bytes that a device copies",
    OPTIMIZER_MEMORY,
    "return info->unified && (info->caps & UMO_CAP_COHERENT) != 0;",
    "return info->unified;",
    "context.planned_test",
)
mutant(
    "a bracket does not wait for what another buffer has queued on its bytes",
    "src/mem/access.c",
    "if (status == UMO_OK) { umo_piece_waits_add(waits, &before); } else { umo_piece_close",
    "if (status != UMO_OK) { umo_piece_close",
    "context.planned_test",
)
mutant(
    "a bracket that its buffer refuses stays in the way of the others on its bytes",
    "src/mem/access.c",
    "umo_piece_close(buffer, access, access->use, (umo_fence){0});",
    "(void)0;",
    "context.planned_test",
)
mutant(
    "an export is in the way of another of its buffer",
    "src/mem/export.c",
    "return exported ? umo_piece_open(buffer, &reads, UMO_READ, waits) : status;",
    "return exported ? status : status;",
    "context.planned_test",
)
mutant(
    "pages of a batch with lifetimes follow one of the buffers that share them",
    OPTIMIZER_MEMORY,
    "umo_buffer_share_piece(made[done], piece, at);",
    "umo_buffer_share_piece(made[done], piece, at); umo_buffer_own_pages(made[done]);",
    "context.planned_test",
)
mutant(
    "an alignment beyond a page holds for the offset alone",
    OPTIMIZER_MEMORY,
    "*start = slack > 0 ? (size_t)(-at & (layout->align_bytes - 1)) : 0;",
    "*start = slack > 0 ? (size_t)(at & 0) : 0;",
    "context.planned_test",
)
mutant(
    "buffers in use at once have a page together",
    OPTIMIZER_MEMORY,
    "batch->padded[i].size_bytes = padded;",
    "batch->padded[i].size_bytes = padded > layout->page_bytes ? padded - layout->page_bytes : padded;",
    "context.planned_test",
)

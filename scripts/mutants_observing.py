"""Mutants of what watches: the flight recorder and who reads it from outside, the kit's metrics.

The form is that of mutants.py.
"""

from mutants import mutant

# ---- the recorder ----
SHOW = "src/trace/show.c"
RECORDER = "src/trace/recorder.c"
TESTS = ("trace.recorder_test",)
mutant(
    "a child keeps its parent's rings mapped",
    SHOW,
    "stranded = !umo_os_shown_leave(ring->part, ring->memory_bytes) || stranded;",
    "(void)ring;",
    *TESTS,
)
mutant(
    "nobody notices that whoever looked on is gone",
    "src/trace/write.c",
    "if (umo_trace_lapsed(now) && !umo_trace_own_on()) {",
    "if (false) {",
    *TESTS,
)
mutant(
    "events that come while a ring is made are forgotten",
    SHOW,
    "if (now == NULL) { event_missed(); }",
    "if (false) { event_missed(); }",
    *TESTS,
)
mutant(
    "what others saw goes into the process's own recording",
    SHOW,
    "ring_use(on ? ring : outside);",
    "ring_use(ring != NULL ? ring : outside);",
    *TESTS,
)
mutant(
    "an event that is not finished holds the rest back for ever",
    RECORDER,
    "if (found == UMO_TRACE_ABSENT && !p->last && behind <= ring->shard_slots / 2) {",
    "if (found == UMO_TRACE_ABSENT) {",
    *TESTS,
)
mutant(
    "what was overwritten is not counted",
    RECORDER,
    "p->r->lost += behind - ring->shard_slots;",
    "(void)0;",
    *TESTS,
)
mutant(
    "who waits is not heard of",
    RECORDER,
    "until = until < now + LEASE_NS / 8 ? until : now + LEASE_NS / 8;",
    "",
    *TESTS,
)
mutant(
    "who waits does not sleep",
    RECORDER,
    "umo_os_sleep_ns(until - now < r->pause_ns ? until - now : r->pause_ns);",
    "",
    *TESTS,
)
mutant("who waits lets the ring run over", RECORDER, "if (full >= WORTH || ", "if (", *TESTS)
mutant(
    "who waits does not see that the process has ended",
    RECORDER,
    "while (status == UMO_OK && l.count < room && !stats.ended && umo_os_now_ns() < until) {",
    "while (status == UMO_OK && l.count < room && umo_os_now_ns() < until) {",
    *TESTS,
)
mutant(
    "a part may be shorter than it says",
    "src/trace/ring.c",
    "shard_slots > (size_bytes - head_bytes_of(shard_count)) / shard_count / sizeof(umo_trace_slot)) {",
    "false) {",
    "trace.recorder_hostile_test",
)
mutant(
    "memory stays with the process",
    RECORDER,
    "if (last) { source_empty(r, s); }",
    "if (last && r == NULL) { source_empty(r, s); }",
    *TESTS,
)
mutant(
    "an event's words are the process's own numbers of another layout",
    RECORDER,
    "if (head->layout != UMO_TRACE_LAYOUT ||",
    "if (",
    "trace.recorder_hostile_test",
)
mutant(
    "the server's trace is asked while nobody records",
    "triton/kit/batch.c",
    "if (kit_recorded(instance)) { kit_record_requests(instance, count, end_ns - start_ns); }",
    "kit_record_requests(instance, count, end_ns - start_ns);",
    "kit.traces",
)

# These two stood in mutants_memory.py (RING) and no longer fit there.
mutant(
    "recorder: a reader believes a slot that was written meanwhile",
    "src/trace/ring.c",
    "if (atomic_load_explicit(&slot->sequence, memory_order_relaxed) != whole) { return UMO_TRACE_GONE; }",
    "",
    "trace.profile_test",
    "trace.ring_test",
)
mutant(
    "recorder: two writers may own one slot",
    "src/trace/write.c",
    "if ((seen & 1) != 0 || seen > *position * 2 ||",
    "if (seen > *position * 2 + 1000000 ||",
    "trace.profile_test",
    "trace.ring_test",
)

# ---- metrics ----
METRICS = "triton/kit/metrics.c"
SERIES = "triton/kit/metrics_series.c"
mutant(
    "metrics: each model has families of its own",
    SERIES,
    "i < KIT_FAMILIES && sets == 0; i++) { /* A server without",
    "i < KIT_FAMILIES; i++) { /* A server without",
    "kit.metrics",
)
mutant(
    "metrics: a counter whose source starts over falls",
    SERIES,
    "} else if (value > series->value) {",
    "} else {",
    "kit.metrics",
)
mutant(
    "metrics: series do not name their backend",
    SERIES,
    '{"backend", umo_backend_table.name},',
    '{"engine", umo_backend_table.name},',
    "kit.metrics",
)
mutant(
    "metrics: a look does not count events",
    METRICS,
    "copies_report(metrics, d, now->copy_performed[d], true);",
    "copies_report(metrics, d, now->copy_performed[d], false);",
    "kit.metrics",
)
mutant(
    "metrics: a resting model is not looked at",
    METRICS,
    "if (kit_metrics_period_ns != UINT64_MAX) {",
    "if (false) {",
    "kit.metrics",
)
mutant(
    "metrics: refused requests are not counted",
    METRICS,
    "atomic_fetch_add_explicit(&metrics->refused, requests, memory_order_relaxed);",
    "(void)requests;",
    "kit.pressure",
)
mutant(
    "ticker: it is called at once, whatever a tick asked for",
    "src/context/ticker.c",
    "return later(umo_os_now_ns(), delay_ns);",
    "(void)delay_ns; return umo_os_now_ns();",
    "context.ticker_test",
)
mutant(
    "pools: those of other scopes are added too",
    "src/mem/pool.c",
    "if (!umo_scope_within(pool->options.scope, scope)) {",
    "if (scope == NULL) {",
    "mem.pool_test",
)

# ---- found by a review ----
SHOW, RING, RECORDER = "src/trace/show.c", "src/trace/ring.c", "src/trace/recorder.c"
TESTS = ("trace.recorder*",)
mutant(
    "a ring that nobody can see is not refused",
    SHOW,
    "const bool hidden = head_file >= 0 && ring != NULL && ring->part_number == 0;",
    "const bool hidden = false;",
    *TESTS,
)
mutant(
    "a ring for those outside is made without a file",
    RING,
    "if (memory == NULL && !outside) {",
    "if (memory == NULL) {",
    *TESTS,
)
mutant(
    "what was refused to one recorder is refused to the next",
    RECORDER,
    "atomic_store_explicit(&r->head->refused, (uint32_t)UMO_OK, memory_order_relaxed);",
    "(void)0;",
    *TESTS,
)
mutant(
    "a ring that was not drained is forgotten", RECORDER, "part == 0 || r->previous != NULL ||", "part == 0 ||", *TESTS
)
mutant(
    "a series that was refused at first stays short",
    "triton/kit/metrics_series.c",
    "series->value = series->metric != NULL ? 0 : series->value;",
    "(void)0;",
    "kit.metrics",
)

"""Mutants of memory: pools, moves, recorded uses, weights, streams, the recorder. The form is that of mutants.py."""

from mutants import mutant

# ---- pools ----
HEAP = "src/mem/heap.c"
PAGES = "src/mem/heap_pages.c"
CARVE = "src/mem/carve.c"
CENTRAL = "src/mem/carve_central.c"
CACHE = "src/mem/cache.c"
BLOCKS = "src/mem/pool_blocks.c"
POOL_FILE = "src/mem/pool.c"
KEEPER = "src/mem/keeper.c"
ARENA = "src/mem/arena.c"

mutant(
    "pool: another owner's bytes are shown",
    "src/mem/carve_central.h",
    "((extent->marks & UMO_EXTENT_MIXED) != 0 || extent->owner != owner);",
    "((extent->marks & UMO_EXTENT_MIXED) != 0 && extent->owner != owner);",
    "mem.pool_raw_test",
)
mutant(
    "heap: a joined extent keeps the first one's owner",
    HEAP,
    "extent->marks |= UMO_EXTENT_MIXED;",
    "(void)0;",
    "mem.heap_test",
)
mutant(
    "heap: moved pages do not tell whose they were",
    PAGES,
    "umo_extent_mix(target, source->owner, source->marks);",
    "umo_extent_mix(target, source->owner, UMO_EXTENT_FRESH);",
    "mem.heap_test",
)
mutant(
    "heap: a long block takes the highest hole",
    HEAP,
    "extent->unit < lowest->unit)",
    "extent->unit > lowest->unit)",
    "mem.heap_test",
)
mutant(
    "heap: a long block takes a hole of any length",
    HEAP,
    "(looked < LOOKS_LOW && bins_above(row, column) / LOW_REACH <= size_bytes));",
    "looked < LOOKS_LOW);",
    "mem.heap_test",
)
mutant(
    "heap: a gap is not closed",
    PAGES,
    "umo_heap_place_missing(&place) < umo_heap_place_missing(out))",
    "umo_heap_place_missing(&place) > umo_heap_place_missing(out))",
    "mem.heap_test",
)
mutant(
    "heap: what is left behind a closed gap has no pages",
    PAGES,
    "if (place->after != NULL) { umo_heap_give(heap, rest, rest->stamp); } else { hollow_rest(heap, rest); }",
    "hollow_rest(heap, rest);",
    "mem.heap_test",
)
mutant(
    "heap: pages come from the longest hole",
    PAGES,
    "source_bytes(heap, extent) >= want_bytes",
    "source_bytes(heap, extent) > heap->range_bytes",
    "mem.heap_test",
)
mutant(
    "carve: pages are taken ahead where none may be kept",
    CENTRAL,
    "kept + ahead > keep_limit(carve)) {",
    "false) {",
    "mem.carve_test",
)
mutant(
    "arena: a planned block's room to be aligned counts as unused",
    ARENA,
    "arena->recent_bytes + room / 2 < arena->stats.held_bytes / 2;",
    "arena->recent_bytes + room / 4096 < arena->stats.held_bytes / 2;",
    "mem.arena_plan_test",
)
mutant(
    "heap: a huge page may come where a part of it has gone",
    PAGES,
    "huge_mark(heap, huge_down(heap, from), end, false);",
    "(void)end;",
    "mem.heap_test",
)
mutant(
    "heap: a huge page may come where a part of it is not held",
    PAGES,
    "if (heap->huge_bytes != 0 && huge_up(heap, from) < huge_down(heap, to)) {"
    " huge_mark(heap, huge_up(heap, from), huge_down(heap, to), true);",
    "if (heap->huge_bytes != 0 && huge_up(heap, from) < huge_up(heap, to)) {"
    " huge_mark(heap, huge_up(heap, from), huge_up(heap, to), true);",
    "mem.heap_test",
)
mutant(
    "heap: what is left in the same bin is not linked there",
    HEAP,
    "bins->first[row][column] = index; } } /* May an extent",
    "} } /* May an extent",
    "mem.heap_test",
)
mutant(
    "carve: what comes along is no whole number of pages",
    CENTRAL,
    "ahead / AHEAD_MIN_BYTES * AHEAD_MIN_BYTES",
    "ahead",
    "mem.carve_test",
)
mutant(
    "heap: many short mappings are moved again and again",
    PAGES,
    "least_bytes += MOVE_MIN_BYTES;",
    "",
    "mem.heap_test",
)
mutant(
    "heap: pages that nobody touched are moved",
    PAGES,
    "return there_bytes * (bytes / some_bytes) >= least_bytes;",
    "return true;",
    "mem.heap_test",
)
mutant(
    "carve: blocks that come along are another owner's",
    CENTRAL,
    "if (most == 0 || behind == NULL || umo_carve_foreign(behind, owner)) {",
    "if (most == 0 || behind == NULL) {",
    "mem.carve_test",
)
mutant(
    "carve: blocks that come along know no bound",
    CENTRAL,
    "uint64_t room = limit > cached ? limit - cached : 0;",
    "uint64_t room = UINT64_MAX;",
    "mem.carve_test",
)
mutant(
    "carve: blocks that come along are not out",
    CENTRAL,
    "carve->out_bytes += most * bytes;",
    "",
    "mem.carve_test",
    "mem.pool_raw_test",
)
mutant(
    "heap: what is left behind several is no extent",
    HEAP,
    "const size_t fit = (had_bytes - unit) / size_bytes;",
    "const size_t fit = had_bytes / size_bytes;",
    "mem.heap_test",
)
mutant(
    "pages that are locked keep another owner's bytes",
    "src/os/linux.c",
    "if (madvise(pages, size_bytes, MADV_DONTNEED) != 0 && !umo_os_pages_renew(pages, size_bytes)) {"
    " memset(pages, 0, size_bytes); }",
    "(void)madvise(pages, size_bytes, MADV_DONTNEED);",
    "mem.pool_raw_test",
)
mutant(
    "pages that a sandbox keeps hold another owner's bytes",
    "src/os/linux.c",
    "&& !umo_os_pages_renew(pages, size_bytes)) { memset(pages, 0, size_bytes); }",
    "&& !umo_os_pages_renew(pages, size_bytes)) { }",
    "mem.pool_refused_test",
)
mutant(
    "a buffer's memory stays its first owner's",
    BLOCKS,
    "umo_carve_pass_other(blocks->carve, b->data, owner);",
    "(void)0;",
    "mem.pool_raw_test",
)
mutant(
    "pages that are locked stay in a host side",
    "src/os/linux.c",
    "if (madvise(pages, size_bytes, MADV_DONTNEED) != 0) { (void)mmap(",
    "if (false) { (void)mmap(",
    "os.pages_test",
)
mutant(
    "a thread's first act gives it an arena",
    "src/os/thread.c",
    "free(atomic_exchange(&spare, (start *)opaque));",
    "free(opaque);",
    "os.thread_test",
)
mutant(
    "what a thread was to begin with is lost where there is none",
    "src/os/thread.c",
    "if (code != 0) { free(atomic_exchange(&spare, given)); }",
    "",
    "fault.sweep",
)
mutant(
    "heap: mappings that were moved together stay where they were, too",
    PAGES,
    "seams_renew(heap, from, from + bytes); } heap->moved_bytes",
    "(void)seam; } heap->moved_bytes",
    "mem.heap_test",
)
mutant(
    "carve: long blocks wait in a cache for whoever takes them",
    CARVE,
    "cache_room_add(cache, umo_carve_bin_stash(carve, bin)); } umo_carve_keep_enforce(carve); status = UMO_OK;",
    "(void)bin; } umo_carve_keep_enforce(carve); status = UMO_OK;",
    "mem.carve_test",
)
mutant(
    "carve: pages are brought that nobody touches",
    CENTRAL,
    "carve->touched = umo_os_pages_present(carve->watched, 1) != 0;",
    "carve->touched = true;",
    "mem.carve_test",
)
mutant(
    "carve: a short block in the long range is cleared somewhere else",
    CARVE,
    "heap_of(carve, granules_of(*out)); /* a short one's",
    "heap_of(carve, rounded >> UMO_HEAP_GRANULE_SHIFT); /* a short one's",
    "mem.carve_test",
)
mutant(
    "carve: pages are not brought",
    CENTRAL,
    "return carve->touched && *from < *to;",
    "return false;",
    "mem.carve_test",
)
mutant(
    "heap: what is given does not join the extent behind it",
    HEAP,
    "umo_heap_bin_remove(heap, &heap->free, after); umo_heap_join(heap, extent, after);",
    "(void)0;",
    "mem.heap_test",
)
mutant(
    "pool: a freed block can be given again",
    CARVE,
    "if (__builtin_expect(atomic_load_explicit(&extent->tag, memory_order_relaxed) != tag, 0)) {",
    "if (umo_extent_state_get(extent) == UMO_EXTENT_NONE) {",
    "mem.pool_raw_test",
)
mutant(
    "pool: more is taken where pages of holes would do",
    CENTRAL,
    "size_t reuse = wanted > limit ? (size_t)(wanted - limit) : 0;",
    "size_t reuse = wanted > limit ? 0 : 0;",
    "mem.pool_raw_test",
)
mutant(
    "pool: a budget that is met asks nobody",
    CARVE,
    "size_t got = carve->reclaim != NULL ? carve->reclaim(carve->user, rounded) : 0;",
    "size_t got = 0;",
    "mem.pool_raw_test",
)
mutant(
    "cache: the other side does not wait until the thread is out",
    CACHE,
    "while (cache != self && atomic_load_explicit(&cache->busy, memory_order_acquire) != 0) {",
    "while (false) {",
    "mem.cache_model_test",
)
mutant(
    "cache: a blocked thread stays busy",
    "src/mem/cache.h",
    "atomic_store_explicit(&cache->busy, 0, memory_order_release); return false;",
    "return false;",
    "mem.cache_model_test",
)
mutant(
    "pool: a cache that is not looked after any more keeps its room",
    CARVE,
    "atomic_store_explicit(&cache->limit_bytes, 0, memory_order_relaxed);"
    " atomic_store_explicit(&cache->room_bytes, 0, memory_order_relaxed);",
    "(void)0;",
    "mem.pool_raw_test",
)
mutant(
    "pool: a block that somebody holds is handed out",
    BLOCKS,
    "umo_buffer_refs(b->buffer) == 1) {",
    "true) {",
    "mem.pool_test",
)
mutant(
    "keeper: a removed task may still be ticked",
    KEEPER,
    "while (running == task) {",
    "while (false) {",
    "mem.keeper_test",
)
mutant(
    "pool: a thread's end loses its cache",
    CARVE,
    "umo_carve_cache_empty(carve, cache); carve->live_bytes +=",
    "carve->live_bytes +=",
    "mem.pool_raw_test",
)
mutant(
    "arena: several chunks never become one",
    ARENA,
    "arena->next_bytes = arena->stats.held_bytes; shrinks = true;",
    "(void)0;",
    "mem.arena_test",
)

# ---- the buffer face: these replace the section "pools" of mutants.py but for its mutants of MOVE ----
mutant(
    "a block is not cleared for its next owner",
    BLOCKS,
    "umo_status status = umo_buffer_clear(b->buffer); if (status",
    "umo_status status = UMO_OK; if (status",
    "mem.pool_test",
)
mutant(
    "a block that was not cleared is kept",
    BLOCKS,
    "block_discard(blocks, b); return umo_error_set(",
    "if (true) { umo_status_ignore(umo_blocks_give(blocks, b->buffer)); } else { block_discard(blocks, b); }"
    " return umo_error_set(",
    "mem.pool_test",
)
mutant(
    "fresh memory is trusted",
    BLOCKS,
    "foreign = blocks->carve == NULL && !umo_buffer_memory(b->buffer)->cleared;",
    "foreign = false;",
    "mem.pool_test",
)
mutant(
    "a block may be freed twice",
    BLOCKS,
    "if (b->live) { UMO_TRACE_BUFFER(buffer,",
    "if (true) { UMO_TRACE_BUFFER(buffer,",
    "mem.pool_test",
)
mutant(
    "a foreign buffer may be freed",
    BLOCKS,
    "if (b->buffer != buffer) { continue; }",
    "",
    "mem.pool_test",
)
mutant(
    "kept bytes have no limit",
    BLOCKS,
    "surplus = blocks->kept_bytes > limit;",
    "surplus = false;",
    "mem.pool_test",
)
mutant(
    "a limit does not take what is kept",
    BLOCKS,
    "if (status == UMO_E_LIMIT || status == UMO_E_NOMEM) {",
    "if (false) {",
    "mem.pool_test",
)
mutant(
    "a pool does not hold its scope",
    POOL_FILE,
    "umo_scope_acquire(options->scope);",
    "",
    "mem.pool_test",
)
mutant(
    "a kept block serves whoever wants half of it",
    BLOCKS,
    "size_t below = twice < more ? twice : more;",
    "size_t below = twice < more ? twice : twice;",
    "mem.pool_test",
)

# ---- movable memory, pins, exports ----
MIGRATE = "src/mem/migrate.c"
MOVES = ("mem.migrate_test", "mem.migrate_fault_test", "mem.access_model_test")

mutant(
    "a move does not close the buffer for brackets",
    MIGRATE,
    "buffer->changing = true;",
    "(void)0;",
    *MOVES,
)
mutant(
    "a move does not wait for pending uses",
    MIGRATE,
    "umo_status waited = umo_fence_wait(fence, UINT64_MAX);",
    "umo_status waited = UMO_OK;",
    *MOVES,
)
mutant(
    "a move to PRIVATE leaves behind what only the host has",
    MIGRATE,
    "status = ranges_send(buffer, &buffer->memory, UMO_SIDE_DEVICE, on_host_only);",
    "status = ranges_send(buffer, &buffer->memory, UMO_SIDE_DEVICE, on_device_only);",
    *MOVES,
)
mutant(
    "a move that fails keeps the new memory",
    MIGRATE,
    "device->driver->free(device->state, &memory); umo_scope_uncharge(buffer->scope, buffer->size_bytes);",
    "umo_scope_uncharge(buffer->scope, buffer->size_bytes);",
    *MOVES,
)
mutant(
    "a move does not ask for pins",
    MIGRATE,
    "if (buffer->pins > 0) {",
    "if (false) {",
    "mem.pin_test",
)
mutant(
    "the device of a buffer that is not coherent keeps bytes that the host was given",
    MIGRATE,
    "umo_ranges_set(&buffer->valid, at, end - at, BOTH);",
    "(void)0;",
    *MOVES,
)
mutant(
    "one unpin unlocks pages that another buffer needs",
    "src/mem/page_lock.c",
    "if (count == 0) { umo_os_pages_unlock",
    "if (true) { umo_os_pages_unlock",
    "mem.pin_test",
)
mutant(
    "what was brought across from an exporter stays valid",
    "src/mem/access.c",
    "if (!reads_across(buffer, access)) { umo_ranges_set",
    "if (true) { umo_ranges_set",
    "mem.export_test",
)

# ---- recorded uses and patterns ----
RECORD = "src/mem/record.c"
LIFE = "src/mem/record_life.c"
STATE = "src/mem/record_state.h"
ADDRESS = "src/mem/address.c"
PATTERN = "src/access/pattern.c"
TESTS = ("mem.record_test", "mem.address_test", "access.pattern_test")
mutant(
    "recording: a thread that turns to another buffer drops what it counted",
    RECORD,
    "slot_merge(t, index, record); slot->key = 0;",
    "slot->key = 0;",
    *TESTS,
)
mutant(
    "recording: late counts reach the buffer that has the record now",
    RECORD,
    "if (atomic_load_explicit(&record->range.key, memory_order_relaxed) == slot->key) {",
    "if (true) {",
    *TESTS,
)
mutant(
    "recording: a thread's page still leads to a buffer that is gone",
    LIFE,
    "atomic_store_explicit(&slot_at(t, i)->size_bytes, 0, memory_order_relaxed);",
    "(void)t;",
    *TESTS,
)
mutant(
    "recording: a change of side is not seen where a thread turned to other buffers between",
    STATE,
    "later.recent_turns += first_side != record->last_side ? 1 : 0;",
    "(void)first_side;",
    *TESTS,
)
mutant(
    "recording: full windows do not fade what was before",
    RECORD,
    "(void)window_add(slot, &carried->sums, full ? 1 : 0, full ? 0 : accesses);",
    "(void)window_add(slot, &carried->sums, 0, full ? 0 : accesses);",
    *TESTS,
)
mutant(
    "addresses: a range is looked for in its first granule only",
    ADDRESS,
    "for (uintptr_t granule = first; granule <= last; granule++) {",
    "for (uintptr_t granule = first; granule <= first && last >= first; granule++) {",
    *TESTS,
)
mutant(
    "addresses: a removed word ends the probes of others",
    ADDRESS,
    "atomic_store_explicit(&t->words[i], &gap, memory_order_release);",
    "atomic_store_explicit(&t->words[i], NULL, memory_order_release);",
    *TESTS,
)
mutant(
    "patterns: streaming is as easy to leave as to keep out of",
    PATTERN,
    "before == UMO_PATTERN_STREAMING ? &stay : &enter",
    "before == UMO_PATTERN_STREAMING ? &enter : &stay",
    *TESTS,
)
mutant(
    "patterns: a load that is read once is a stream",
    PATTERN,
    "stats->recent_turns >= limit->stream_turns * stats->recent_accesses;",
    "stats->recent_turns >= 0;",
    *TESTS,
)

# ---- weights ----
WEIGHTS = "src/mem/weights.c"
WEIGHTS_TESTS = ("mem.weights_test", "fault.weights")
ORT_INITIALIZERS = "triton/backends/onnxruntime/initializers.c"
ORT_ENGINE = "triton/backends/onnxruntime/engine.c"
ORT_HEAP = "triton/backends/onnxruntime/heap.c"
ORT_EXECUTE = "triton/backends/onnxruntime/execute.c"
ORT_TESTS = ("onnxruntime.initializers", "onnxruntime.sharing", "onnxruntime.engine")
mutant(
    "weights: a file that was written to is the same",
    WEIGHTS,
    "a->changed_s == b->changed_s && a->changed_ns == b->changed_ns;",
    "true;",
    *WEIGHTS_TESTS,
)
mutant(
    "weights: a changed file is compared with",
    WEIGHTS,
    "(umo_weights_check(at, NULL) != UMO_OK || memcmp(",
    "(memcmp(",
    *WEIGHTS_TESTS,
)
mutant(
    "weights: a buffer does not keep the mapping",
    WEIGHTS,
    "atomic_fetch_add_explicit(&bytes->refs, 1, memory_order_relaxed);",
    "(void)0;",
    *WEIGHTS_TESTS,
)
mutant(
    "weights: two make the same copy",
    WEIGHTS,
    "(void)pthread_cond_wait(&table.made, &table.lock); range = weights->ranges;",
    "range = range->next;",
    *WEIGHTS_TESTS,
)
mutant(
    "weights: a copy that failed stays listed",
    WEIGHTS,
    "while (*at != range) { at = &(*at)->next; } *at = range->next;",
    "(void)at;",
    *WEIGHTS_TESTS,
)
mutant(
    "weights: an idle copy stays",
    WEIGHTS,
    "if (range->buffer == NULL || umo_buffer_refs(range->buffer) > 1) {",
    "if (true) {",
    *WEIGHTS_TESTS,
)
mutant(
    "onnx: a name that a branch defines is shared",
    ORT_INITIALIZERS,
    "if (twice) {",
    "if (twice && out == NULL) {",
    *ORT_TESTS,
)
mutant(
    "onnx: external data may leave the folder",
    ORT_INITIALIZERS,
    "if (depth < 0) {",
    "if (false) {",
    *ORT_TESTS,
)
mutant(
    "onnx: external data past the file's end is taken",
    ORT_INITIALIZERS,
    "out->offset_bytes <= limit && length <= limit - out->offset_bytes;",
    "out->offset_bytes <= limit;",
    *ORT_TESTS,
)
mutant(
    "onnx: options do not tell sessions apart",
    ORT_ENGINE,
    "a->weights.file_count != b->weights.file_count || strcmp(a->key, b->key) != 0",
    "a->weights.file_count != b->weights.file_count",
    *ORT_TESTS,
)
mutant(
    "onnx: a session that failed to load stays listed",
    ORT_ENGINE,
    "} else { unlist(engine); } (void)pthread_cond_broadcast",
    "} (void)pthread_cond_broadcast",
    *ORT_TESTS,
)
mutant(
    "onnx: a request is not told why memory was refused",
    ORT_HEAP,
    "if (visit->refused == UMO_E_LIMIT) {",
    "if (false) {",
    *ORT_TESTS,
)
mutant(
    "onnx: a changed file is served",
    ORT_EXECUTE,
    "status = ort_engine_check(instance->engine, error);",
    "status = UMO_OK;",
    *ORT_TESTS,
)
KERNEL_CONSTANTS = "triton/backends/kernel/constants.c"
mutant(
    "kernel: weights that were written to are used",
    KERNEL_CONSTANTS,
    "if (umo_buffer_mode(constants->list[i].buffer) == UMO_UNIFIED) {",
    "if (false) {",
    "kernel.backend",
)
mutant(
    "kernel: a model that goes keeps its weights",
    KERNEL_CONSTANTS,
    "umo_weights_release(constant->file);",
    "(void)0;",
    "kernel.backend",
)
mutant(
    "onnx: what a session had is shown to the next",
    ORT_HEAP,
    "heap->sessions ? 1 + atomic_fetch_add_explicit(&heap->owners, 1, memory_order_relaxed) : 1;",
    "1;",
    *ORT_TESTS,
)
mutant(
    "onnx: a thread of the engine's own is thrown at",
    ORT_HEAP,
    "if (data == NULL && visiting == NULL) {",
    "if (false) {",
    *ORT_TESTS,
)

mutant(
    "a block that is being made counts as live",
    "src/mem/carve.c",
    "out->live_bytes = (uint64_t)(umo_carve_live(carve) - carve->ahead_bytes);",
    "out->live_bytes = (uint64_t)umo_carve_live(carve);",
    "mem.pool_test",
)

# ---- recorder, streams, DLPack ----
CSV = "src/trace/csv.c"
REPLACE = "src/os/replace.c"
STREAM = "src/mem/stream.c"
DLPACK = "src/tensor/dlpack.c"
TRACE = ("trace.profile_test", "trace.ring_test")
mutant(
    "recorder: a spreadsheet runs a name as a formula",
    CSV,
    "if (starts_formula(name)) {",
    "if (false) {",
    *TRACE,
)
mutant(
    "recorder: an unfinished table stays on a full disk",
    REPLACE,
    "if (!r->direct) { (void)unlink(r->beside); }",
    "",
    *TRACE,
)
mutant(
    "stream: a message's bytes are not brought to its consumer",
    STREAM,
    "s->access.use = UMO_READ;",
    "s->access.use = UMO_WRITE;",
    "mem.stream_test",
)
mutant(
    "stream: a second producer is not found",
    STREAM,
    "if (p->open >= p->most) {",
    "if (false) {",
    "mem.stream_test",
)
mutant(
    "stream: a closed stream ends before its last message was sent",
    STREAM,
    "return stream->producer.open == 0 && stream->consumer.at == stream->producer.at &&",
    "return",
    "mem.stream_end_test",
)
mutant(
    "dlpack: an export does not wait for what is pending",
    DLPACK,
    "status = umo_fence_set_wait(&waits, UINT64_MAX);",
    "",
    "tensor.dlpack_test",
)
mutant(
    "dlpack: elements outside the buffer are handed out",
    DLPACK,
    "!umo_range_fits(tensor->offset_bytes, (size_t)extent_bytes,",
    "!umo_range_fits(0, (size_t)extent_bytes,",
    "tensor.dlpack_test",
)
mutant(
    "arena: a request that leaves its plan goes on with it",
    "src/mem/arena_plan.c",
    "    p->follows = false;\n    p->noting = true;",
    "    p->noting = true;",
    "mem.arena_plan_test",
)
mutant(
    "arena: a step of another alignment is as planned",
    "src/mem/arena_plan.c",
    "step->align_bytes != align_bytes ||",
    "step->align_bytes == 0 ||",
    "mem.arena_plan_test",
)
mutant(
    "arena: what is freed later than planned is freed as planned",
    "src/mem/arena_plan.c",
    "if (step->align_bytes == 0 && p->block + p->offsets[step->size_bytes] == data) {",
    "if (step->align_bytes == 0) {",
    "mem.arena_plan_test",
)
mutant(
    "arena: what comes after a plan was left lies on what was planned",
    "src/mem/arena_plan.c",
    "p->unused_bytes = p->block_bytes - had_bytes;",
    "p->unused_bytes = p->block_bytes;",
    "mem.arena_plan_test",
)
mutant(
    "arena: the block of a plan that was left is lost to the request",
    ARENA,
    "arena->at_bytes -= arena->plan.unused_bytes;",
    "(void)0;",
    "mem.arena_plan_test",
)
mutant(
    "arena: a plan that nobody follows stays",
    "src/mem/arena_plan.c",
    "if (p->strays == STRAYS_MOST) {",
    "if (p->strays > STRAYS_MOST && p->follows) {",
    "mem.arena_plan_test",
)
mutant(
    "arena: a chunk that is too short for the block stays",
    ARENA,
    "chunks_give(arena); if (chunk_add(arena, block_bytes",
    "if (chunk_add(arena, block_bytes",
    "mem.arena_plan_test",
)

"""Mutants of the Triton side: batches, sequences, places, the configuration, umo_kernel, the client's ring.

The form is that of mutants.py.
"""

from mutants import mutant

# ---- places and patterns ----
PLACE = "triton/kit/place.c"
mutant(
    "place: a pattern never leads to the device's own memory",
    PLACE,
    "umo_placement_initial(&instance->costs, size_bytes, io->pattern) == UMO_PRIVATE;",
    "umo_placement_initial(&instance->costs, size_bytes, io->pattern) == UMO_MANAGED;",
    "kit.places",
)
mutant(
    "place: private memory in two mappings is taken for a client's",
    PLACE,
    "if (next == NULL || next->shared) {",
    "if (next == NULL || !next->shared) {",
    "kit.places",
)
mutant(
    "scope: a copy is counted before it is seen again",
    "src/base/scope.c",
    "bool moved = now != *copies;",
    "bool moved = now == *copies;",
    "base.scope_test",
)

# ---- batches ----
ORDER = "triton/kit/order.c"
GATHER = "triton/kit/gather.c"
BATCH_IO = "triton/kit/batch_io.c"
COPIER = "src/mem/copier.c"

mutant(
    "order: the first tensor's order is taken, not the best",
    ORDER,
    "if (score_better(score, *best)) {",
    "if (score_better(score, *best) && best->saved == 0) {",
    "kit.order",
)
mutant(
    "order: control data has a say although it is copied",
    ORDER,
    "kit_extent_find(instance, (const void *)first, (size_t)total).inode != 0;",
    "kit_extent_find(instance, (const void *)first, (size_t)total).inode == UINT64_MAX;",
    "kit.order",
)
mutant(
    "order: the sort forgets half of the heap",
    ORDER,
    "for (size_t i = count / 2; i > 0; i--) {",
    "for (size_t i = count / 4; i > 0; i--) {",
    "kit.order",
)
mutant(
    "order: outputs are not asked for beforehand",
    "triton/kit/output.c",
    "if (!output_is_certain(io, &row_bytes) ||",
    "if (output_is_certain(io, &row_bytes) ||",
    "kit.order",
)
mutant(
    "gather: pieces that do not touch are joined",
    GATHER,
    "(const char *)last->from + last->size_bytes == (const char *)from) {",
    "(const char *)last->from + last->size_bytes <= (const char *)from) {",
    "kit.gather",
)
mutant(
    "gather: a full list is not copied before it is begun anew",
    GATHER,
    "if (list->count == LIST_LENGTH) { list_flush(list); }",
    "if (list->count == LIST_LENGTH) { list->count = 0; }",
    "kit.gather",
)
mutant(
    "batch input: sums begin anew with each request",
    BATCH_IO,
    "sum = plan->kind == KIT_ELEMENT_COUNT ? 0 : sum;",
    "sum = 0;",
    "kit.ragged",
)
mutant(
    "ragged: unequal requests run apart",
    "triton/kit/batch.c",
    "if (x->present && !model->inputs[i].ragged &&",
    "if (x->present &&",
    "kit.ragged",
)
mutant(
    "copier: the last chunk is left out",
    COPIER,
    "copier->chunks = (total - 1) / chunk + 1;",
    "copier->chunks = total / chunk;",
    "mem.copier_test",
)
mutant(
    "copier: a child of fork waits for threads that it has not",
    COPIER,
    "if (getpid() == copier->owner) { (void)pthread_mutex_lock(&copier->lock); copier->stopping = true;",
    "if (true) { (void)pthread_mutex_lock(&copier->lock); copier->stopping = true;",
    "mem.copier_test",
)
mutant(
    "copier: threads at work are not waited for",
    COPIER,
    "while (copier->working > 0) {",
    "while (false) {",
    "mem.copier_test",
)

# ---- sequences and streams ----
SEQUENCE = "triton/kit/sequence.c"
STATE = "triton/kit/state.c"
DECOUPLED = "triton/kit/decoupled.c"
RESPONSE = "triton/kit/response.c"
STREAMS = "triton/kit/streams.c"
BATCH = "triton/kit/batch.c"
OUTPUT = "triton/kit/output.c"

mutant(
    "states: a failed request moves its sequence",
    STATE,
    "i < model->output_count && request->error.status == UMO_OK; i++) {",
    "i < model->output_count; i++) {",
    "kit.sequences",
)
mutant(
    "states: an output that is a state is not kept where it was scattered",
    STATE,
    "if (target != NULL && target != source && size_bytes > 0) {",
    "if (false) {",
    "kit.sequences",
)
mutant(
    "states: one memory for both is written while it is read",
    OUTPUT,
    "if (io->overwrites && io->state && io->pair == i) {",
    "if (io->state && io->pair == i) {",
    "kit.sequences",
)
mutant(
    "sequences: the name of a sequence keeps the server's padding",
    SEQUENCE,
    "if (length < input->size_bytes - sizeof length) {",
    "if (false) {",
    "kit.sequences",
)
mutant(
    "sequences: an empty slot shows the server's heap",
    "triton/kit/request.c",
    "if (request->blank && model->inputs[found].source != UMO_IO_CONTROL) {",
    "if (false) {",
    "kit.sequences",
)
mutant(
    "cancellation: a cancelled request runs",
    BATCH,
    "if (!model->direct && kit_request_is_cancelled(request)) {",
    "if (false) {",
    "kit.sequences",
)
mutant(
    "cancellation: a cancelled request fails as any other",
    BATCH,
    "return request->cancelled ? kit_error_cancelled(request->error.text)",
    "return false ? kit_error_cancelled(request->error.text)",
    "kit.sequences",
    "kit.decoupled",
)
mutant(
    "decoupled: a request ends while execute runs",
    DECOUPLED,
    "request->open == 0 && !request->ended && !request->flight->executing;",
    "request->open == 0 && !request->ended;",
    "kit.decoupled",
)
mutant(
    "decoupled: a request ends while a response is open",
    DECOUPLED,
    "request->finishing && request->open == 0 && !request->ended",
    "request->finishing && !request->ended",
    "kit.decoupled",
    "kit.responses",
)
mutant(
    "decoupled: a batch's tensor lies where its first request's memory does",
    "triton/kit/input.c",
    "if (model->decoupled && batch->count > 1) {",
    "if (false) {",
    "kit.decoupled",
)
mutant(
    "responses: two of one request write in place",
    OUTPUT,
    "if ((batch->crowded && place.client_writable) ||",
    "if (",
    "kit.responses",
)
mutant(
    "responses: a later one overwrites an earlier one under way",
    RESPONSE,
    "if (is_behind(response)) {",
    "if (is_behind(response) && false) {",
    "kit.responses",
)
mutant(
    "responses: a freed slot wakes nobody",
    STREAMS,
    "(void)pthread_cond_signal(&streams->freed);",
    "(void)0;",
    "kit.responses",
    "kit.decoupled",
)
mutant(
    "responses: nobody waits for the device",
    RESPONSE,
    "umo_status status = umo_fence_wait(done, UINT64_MAX);",
    "umo_status status = UMO_OK;",
    "kit.responses",
)
mutant(
    "decoupled: FINAL goes before the last use of an input",
    DECOUPLED,
    "if (flight->batch.count == 1) {",
    "if (false) {",
    "kit.decoupled",
)

# ---- configuration ----
UNIFIED = "triton/kit/unified.c"
UNIFIED_MODEL = "triton/kit/unified_model.c"
mutant(
    "settings: a model's own fields are not read",
    UNIFIED_MODEL,
    "return status == UMO_OK ? kit_unified_read_model(unified, model->config, error) : status;",
    "return status;",
    "kit.config",
)
mutant(
    "settings: a default of the command line comes over the model's field",
    UNIFIED_MODEL,
    "umo_status status = defaults_read(unified, model->options, error); "
    "return status == UMO_OK ? kit_unified_read_model(unified, model->config, error) : status;",
    "umo_status status = kit_unified_read_model(unified, model->config, error); "
    "return status == UMO_OK ? defaults_read(unified, model->options, error) : status;",
    "kit.config",
)
mutant(
    "settings: a side's pattern comes over a tensor's own",
    UNIFIED_MODEL,
    "kit_unified_visit(unified, group_note, &s); kit_unified_visit(unified, tensor_note, &s);",
    "kit_unified_visit(unified, tensor_note, &s); kit_unified_visit(unified, group_note, &s);",
    "kit.config",
)
mutant(
    "settings: a tensor that is called like its side is its whole side",
    UNIFIED_MODEL,
    "if (strcmp(name, groups[side]) != 0 || tensor_find(s, name)) {",
    "if (strcmp(name, groups[side]) != 0) {",
    "kit.config",
)
mutant(
    "settings: a model says what is of the whole process",
    UNIFIED,
    "if (f->process && !source->process) {",
    "if (false) {",
    "kit.config",
)
mutant(
    "settings: a size may be the word for auto",
    UNIFIED,
    "if (number >= SIZE_MAX) {",
    "if (false) {",
    "kit.config",
)
mutant(
    "settings: they may be written in two places",
    UNIFIED,
    "if (places > 1) {",
    "if (places > 2) {",
    "kit.config",
)
mutant(
    "settings: a control character goes into the log",
    UNIFIED,
    "(unsigned char)text[used] < ' ' || text[used] == 127 ? '?' : text[used];",
    "text[used];",
    "kit.config",
)

# ---- umo_kernel ----
KERNEL = "triton/backends/kernel/"
STAGES = ("kernel.stages",)
mutant(
    "kernel: a kernel does not wait for the one before",
    KERNEL + "backend.c",
    "*waits = (umo_fence_set){.count = 1, .fences = {*done}};",
    "waits->count = 0;",
    *STAGES,
)
mutant(
    "kernel: what was queued before a failure is not waited for",
    KERNEL + "backend.c",
    "umo_batch_complete(batch, done);",
    "if (status == UMO_OK) { umo_batch_complete(batch, done); }",
    *STAGES,
)
mutant(
    "kernel: intermediates that meet lie over each other",
    KERNEL + "plan.c",
    "return a->first <= b->last && b->first <= a->last;",
    "return a->first < b->last && b->first < a->last;",
    "kernel.plan",
    *STAGES,
)
mutant(
    "kernel: an intermediate takes the first gap, not the tightest",
    KERNEL + "plan.c",
    "if (gap >= item->size_bytes && gap < best) {",
    "if (gap >= item->size_bytes && best == SIZE_MAX) {",
    "kernel.plan",
)
mutant(
    "kernel: a block of intermediates goes back without its fence",
    KERNEL + "intermediates.c",
    "umo_access_end(block->buffer, &block->access, done)",
    "umo_access_end(block->buffer, &block->access, (umo_fence){0})",
    *STAGES,
)
mutant(
    "kernel: a block of intermediates never goes back",
    KERNEL + "intermediates.c",
    "umo_status_ignore(umo_pool_free(intermediates->pool, block->buffer)); } *block",
    "} *block",
    *STAGES,
)
mutant(
    "kernel: nothing is cleared",
    KERNEL + "intermediates.c",
    "if (!one->clear || one->first_stage != stage ||",
    "if (true || one->first_stage != stage ||",
    *STAGES,
)
mutant(
    "kernel: a kernel without work is left out whoever needs it",
    KERNEL + "launch.c",
    "if (argument->first && !cleared && !umo_launch_is_empty(&shapes[at])) {",
    "if (false) {",
    *STAGES,
)
mutant(
    "kernel: what no kernel has written is read",
    KERNEL + "flow.c",
    "if (argument->reads && !written && (between == NULL || !between->clear)) {",
    "if (false) {",
    "kernel.pipeline",
)
mutant(
    "kernel: an absent input is said to be there",
    KERNEL + "launch.c",
    "facts->present[argument->tensor],",
    "true,",
    *STAGES,
)

# ---- the ring ----
RING = "src/mem/ring.c"
SHARED = "src/os/shared.c"
RING_TESTS = ("mem.ring_test", "mem.ring_fault_test")

mutant(
    "ring: slots are padded",
    RING,
    "lane->stride_bytes = spec->tensor_bytes;",
    "lane->stride_bytes = (spec->tensor_bytes + 63) & ~(size_t)63;",
    *RING_TESTS,
)
mutant(
    "ring: a lane begins where the last one ends",
    RING,
    "!umo_round_up(size_bytes, page_bytes, &size_bytes) ||",
    "",
    *RING_TESTS,
)
mutant(
    "ring: lanes of one model may differ in slots",
    RING,
    "if (specs[i].slots != specs[at].slots) {",
    "if (false) {",
    *RING_TESTS,
)
mutant(
    "ring: a lost slot can be given back",
    RING,
    "return bit_get(model->out, slot) && !bit_get(model->lost, slot) ? model : NULL;",
    "return bit_get(model->out, slot) ? model : NULL;",
    *RING_TESTS,
)
mutant(
    "ring: a slot without memory stays out",
    RING,
    "} else { ring_put(ring, model, slot); }",
    "}",
    *RING_TESTS,
)
mutant(
    "ring: who waits is not woken",
    RING,
    "pthread_cond_broadcast(&ring->given);",
    "",
    *RING_TESTS,
)
mutant(
    "ring: a child removes its parent's name",
    RING,
    "bool hides = !ring->hidden && ring->maker == getpid();",
    "bool hides = !ring->hidden;",
    *RING_TESTS,
)
mutant(
    "ring: a segment that could not be mapped keeps its name",
    SHARED,
    "*cause = errno; (void)shm_unlink(key); (void)close(file);",
    "*cause = errno; (void)close(file);",
    *RING_TESTS,
)

# ---- umo_onnxruntime ----
# ---- umo_onnxruntime: batches of lines, padding, cancelled runs ----
ORT_MODEL = "triton/backends/onnxruntime/model.c"
ORT_PLAN = "triton/backends/onnxruntime/plan.c"
ORT_EXECUTE = "triton/backends/onnxruntime/execute.c"
ORT_WATCH = "triton/backends/onnxruntime/watch.c"
ORT_GRAPH = "triton/backends/onnxruntime/graph.c"
mutant(
    "onnxruntime: a scattered output is taken for rows",
    ORT_PLAN,
    "if (batches && d == 0 && !output->whole) {",
    "if (batches && d == 0) {",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: a ragged input may have any rank in the model",
    ORT_MODEL,
    "bool fits = io->scattered || spec->shape.rank == wanted->rank;",
    "bool fits = true;",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: a state that is read again is kept private",
    ORT_MODEL,
    "|| io->state) {",
    ") {",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: rows of a batch of lines are tried alone",
    ORT_EXECUTE,
    "if (tensor->dtype == UMO_BYTES || model->inputs[i].whole ||",
    "if (tensor->dtype == UMO_BYTES ||",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: over_read_bytes copies nothing",
    ORT_EXECUTE,
    "for (size_t i = 0; over_bytes > 0 && i < model->input_count; i++) {",
    "for (size_t i = 0; false && i < model->input_count; i++) {",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: a run ends although somebody waits for it",
    ORT_WATCH,
    "if (!umo_batch_cancelled(batch, i)) { return false; }",
    "if (umo_batch_cancelled(batch, i)) { return true; }",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: after an ended run the next one ends too",
    ORT_WATCH,
    "api->run_unset_terminate(watch->options)",
    "api->run_set_terminate(watch->options)",
    "onnxruntime.batch",
)
mutant(
    "onnxruntime: whole divisors stay in a client's memory",
    ORT_GRAPH,
    "(kind != OP_DIVIDES || !integer)",
    "true",
    "onnxruntime.graph",
)

# ---- views ----
FAULT = "src/os/fault.c"
VIEW = "src/mem/view.c"
mutant(
    "SIGBUS: only the page that was touched is blanked",
    FAULT,
    "atomic_load(&guard->size_bytes) - from_bytes, (start & WRITABLE) != 0);",
    "umo_os_page_bytes(), (start & WRITABLE) != 0);",
    "os.fault_test",
)
mutant(
    "SIGBUS: a child of fork has no views of its own",
    FAULT,
    "free_first = 0; atomic_store(&owner, getpid());",
    "free_first = 0;",
    "mem.lost_test",
)
mutant(
    "SIGBUS: what somebody sent is not sent on",
    FAULT,
    "if (sent) { umo_os_fault_send(number, info); }",
    "(void)number;",
    "os.fault_test",
)
mutant(
    "SIGBUS: who took it over later keeps it",
    FAULT,
    "if (is_ours(&now)) { return UMO_OK; }",
    "if (is_ours(&now) || levels > 0) { return UMO_OK; }",
    "os.fault_test",
)
mutant(
    "views: one that has lost bytes is found again",
    VIEW,
    "if (view_whole(view)) { return view; }",
    "if (true) { return view; }",
    "mem.lost_test",
)
mutant(
    "views: they keep each other",
    "src/mem/sweep.c",
    "if (!ours[i]) {",
    "if (true) {",
    "mem.view_test",
    "mem.lost_test",
)
mutant(
    "views: nobody looks for unregistered regions",
    "src/mem/registry.h",
    "umo_keeper_wake(&registry->keeper, umo_os_now_ns() + UMO_SWEEP_EVERY_NS);",
    "(void)registry;",
    "mem.lost_test",
)
mutant(
    "mappings: a price that was too high once is believed for ever",
    "src/mem/mappings.c",
    "if ((rented + size_bytes) / RENTS_UNTIL_MEASURED >= crossover) {",
    "if (false) {",
    "mem.mappings_test",
)
mutant(
    "mappings: the whole map is read for any byte",
    "src/mem/mappings.c",
    "if (mappings->unknown_bytes < crossover) {",
    "if (false) {",
    "mem.mappings_test",
    "kit.lost",
)
mutant(
    "wraps: one that is in use makes room",
    "src/mem/region.c",
    "if (oldest->used_again || umo_buffer_refs(oldest->buffer) > 1) {",
    "if (oldest->used_again) {",
    "mem.region_test",
)
mutant(
    "kit: memory that a client may take away is touched",
    "triton/kit/place.c",
    "out->guarded = !out->client_writable;",
    "out->guarded = true;",
    "kit.lost",
)

# ---- what goes together ----
mutant(
    "a response does not know its instance's threshold",
    "triton/kit/response.c",
    "to->zero_copy_bytes = from->zero_copy_bytes;",
    "",
    "kit.together",
)
mutant(
    "a response that is copied later is not remembered",
    "triton/kit/response.c",
    "if (status == UMO_OK && copies_to_client(response, output)) {",
    "if (status == UMO_OK && response->batch.crowded && copies_to_client(response, output)) {",
    "kit.together",
)
mutant(
    "a late response gives its place away before it is sent",
    "triton/kit/response.c",
    "(slot->late ? out->placed && out->place.client_writable",
    "(slot->late ? out->placed && out->place.beyond",
    "kit.together",
)
mutant(
    "memory that nobody wrote is sent",
    "triton/kit/response.c",
    "if (response->own.outputs[i].asked && !response->batch.outputs[i].used) {",
    "if (response->own.outputs[i].asked && response->batch.outputs[i].late) {",
    "kit.together",
)
mutant(
    "an output that failed stays half made",
    "triton/kit/output.c",
    "kit_slot_finish(batch, slot, false);",
    "",
    "kit.together",
)
mutant(
    "who shrinks without a view fails the batch on a device",
    "triton/kit/input.c",
    "if (around && why.status == UMO_E_INVAL) {",
    "if (false) {",
    "kit.together",
)
mutant(
    "a request's bytes are read by the device after its end",
    "triton/kit/input.c",
    "state->wait = around || (batch->flight != NULL && batch->count > 1);",
    "state->wait = around;",
    "kit.together",
)
mutant(
    "a state of lost bytes is kept",
    "triton/kit/decoupled.c",
    "kit_batch_check_places(batch); /* what was made of lost bytes is no state */",
    "",
    "kit.together",
)
mutant(
    "a place's extent is that of a mapping that was not known yet",
    "triton/kit/place.c",
    "out->extent = extent_in(found, data, size_bytes);",
    "out->extent = extent_in(NULL, data, size_bytes);",
    "kit.engines",
)

mutant(
    "order: a batch is never run in parts",
    "triton/kit/order.c",
    "return gaps > 0 && saved / gaps >= PART_BYTES ? first : batch->count;",
    "return gaps > UINT32_MAX && saved / gaps >= PART_BYTES ? first : batch->count;",
    "kit.order",
)
mutant(
    "order: a small batch with gaps is run in parts",
    "triton/kit/order.c",
    "saved / gaps >= PART_BYTES ? first",
    "saved / gaps >= PART_BYTES / 4096 ? first",
    "kit.order",
)

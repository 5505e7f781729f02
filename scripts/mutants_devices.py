"""Mutants of the device layer: the Metal driver and the operations on bytes. The form is that of mutants.py."""

from mutants import mutant

# ---- Metal: timelines ----
METAL_QUEUE = "src/driver/metal/metal_queue.c"
METAL_MEMORY = "src/driver/metal/metal_memory.c"
METAL_MOVE = "src/driver/metal/metal_move.c"
METAL_PROGRAM = "src/driver/metal/metal_program.c"
METAL_RESIDENCY = "src/driver/metal/metal_residency.c"
METAL = ("driver.metal_*", "contract.metal_late_test_mode", "contract.metal_discrete_test_mode")
mutant(
    "Metal: a command does not wait for its predecessor",
    METAL_QUEUE,
    "if (queue_ended(queue) + 1 < command->value) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: a command does not wait for other queues",
    METAL_QUEUE,
    "if (wait->queue != index) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: a failed command passes",
    METAL_QUEUE,
    "queue_fail(queue, value, command->status);",
    "(void)0;",
    *METAL,
)
mutant(
    "Metal: a failure does not travel to what waited for it",
    METAL_QUEUE,
    "if (status == UMO_OK) { status = queue_verdict(queue, wait->value); } } command->status = status;",
    "} command->status = status;",
    *METAL,
)
mutant(
    "Metal: a failed command's event is never set",
    METAL_QUEUE,
    "if (command->status != UMO_OK || command->step.kind != UMO_METAL_STEP_NONE) {",
    "if (command->step.kind != UMO_METAL_STEP_NONE) {",
    *METAL,
)
mutant(
    "Metal: out of memory is any failure",
    METAL_QUEUE,
    "return code == UMO_MTL_ERROR_OUT_OF_MEMORY ? UMO_E_NOMEM : UMO_E_DEVICE;",
    "return UMO_E_DEVICE;",
    *METAL,
)
mutant(
    "Metal: a command that failed makes its step",
    METAL_QUEUE,
    "if (command->status == UMO_OK && step->kind == UMO_METAL_STEP_COPY) {",
    "if (step->kind == UMO_METAL_STEP_COPY) {",
    *METAL,
)
mutant(
    "Metal: a lost device goes on",
    METAL_QUEUE,
    "atomic_store_explicit(&state->lost, true, memory_order_relaxed);",
    "(void)0;",
    *METAL,
)
mutant(
    "Metal: a command's pool is not drained",
    METAL_QUEUE,
    "api->pool_pop(encoding->pool); (void)pthread_mutex_unlock(&queue->encode);",
    "(void)pthread_mutex_unlock(&queue->encode);",
    *METAL,
)

# ---- Metal: memory ----
mutant(
    "Metal: an import's owner hears too early",
    METAL_MEMORY,
    "while (!record->released) {",
    "while (false) {",
    *METAL,
)
mutant(
    "Metal: a new buffer's length is believed",
    METAL_MEMORY,
    "UMO_METAL_SEND0(api, buffer_length, buffer) < size_bytes || (mode != UMO_PRIVATE && contents == NULL)) {",
    "(mode != UMO_PRIVATE && contents == NULL)) {",
    *METAL,
)
mutant(
    "Metal: an import that is a copy is taken for one in place",
    METAL_MEMORY,
    "UMO_METAL_SEND0(api, buffer_contents, buffer) != data);",
    "false);",
    *METAL,
)
mutant(
    "Metal: memory beyond its mapping is wrapped",
    METAL_MEMORY,
    "if (status != UMO_OK || size_bytes > mapping.end - (uintptr_t)data) {",
    "if (status != UMO_OK) {",
    *METAL,
)
mutant(
    "Metal: read-only memory is wrapped",
    METAL_MEMORY,
    "if (!mapping.readable || !mapping.writable) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: volatile memory stays wired",
    METAL_MEMORY,
    "if (want != UMO_PURGEABLE_KEPT) {",
    "if (false) {",
    *METAL,
)

# ---- Metal: moves ----
mutant(
    "Metal: bytes are staged before they are there",
    METAL_MOVE,
    "if (waits_ended(state, waits, wait_count)) {",
    "if (true) {",
    *METAL,
)
mutant(
    "Metal: didModifyRange: is forgotten",
    METAL_MOVE,
    "UMO_METAL_SEND(api, buffer_modified, memory->native,",
    "(void)(",
    *METAL,
)
mutant(
    "Metal: bytes that are handed in are taken for the host's side",
    METAL_MOVE,
    "if (host != (char *)memory->host + offset_bytes) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: an import is waited for inside of a pool",
    METAL_MEMORY,
    "UMO_METAL_POOL_END(state); if (memory->imported) { import_end(memory->driver_data); }",
    "if (memory->imported) { import_end(memory->driver_data); } UMO_METAL_POOL_END(state);",
    *METAL,
)
mutant(
    "Metal: Shared heaps are made of any GPU",
    METAL_MEMORY,
    "(mode == UMO_PRIVATE || (state->shared_heaps && state->unified));",
    "(mode != UMO_MANAGED || state->unified);",
    *METAL,
)
mutant(
    "Metal: a part is synchronised with all of its memory",
    METAL_MOVE,
    "if (size_bytes < memory->size_bytes) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: host memory is written with its neighbours",
    METAL_MOVE,
    "(written && ((start | (start + size_bytes)) & (state->granule_bytes - 1)) != 0) ||",
    "",
    *METAL,
)
mutant(
    "Metal: a blit is asked for at any offset",
    METAL_MOVE,
    "return ((from.offset_bytes | to.offset_bytes | size_bytes) & (BLIT_ALIGN - 1)) == 0;",
    "return (from.offset_bytes | to.offset_bytes | size_bytes) != 0;",
    *METAL,
)

# ---- Metal: programs and residency ----
mutant(
    "Metal: a value of any size is passed on",
    METAL_PROGRAM,
    "if (expected->known && (!expected->read_only || arg->size_bytes != expected->size_bytes)) {",
    "if (false) {",
    *METAL,
)
mutant(
    "Metal: a removal from the residency set is not committed",
    METAL_RESIDENCY,
    "UMO_METAL_SEND0(state->api, residency_commit, r->set); r->changed = false; (void)pthread_mutex_unlock(&r->lock); }"
    " } void umo_metal_residency_use",
    "(void)pthread_mutex_unlock(&r->lock); } } void umo_metal_residency_use",
    *METAL,
)
mutant(
    "Metal: a paravirtual device gets a residency set",
    METAL_RESIDENCY,
    'return strstr(state->name, "Paravirtual") == NULL;',
    "return true;",
    *METAL,
)

# ---- operations ----
OPS = "src/driver/ops.c"
OPS_COMMON = "src/driver/ops/common.h"
OPS_CL = "src/driver/ops/ops.cl"
OPS_TESTS = ("driver.ops_test", "contract.host_delayed_test_mode", "contract.metal_unified")
mutant(
    "a copy of pieces forgets its waits",
    OPS,
    "to_offset_bytes, size_bytes, w->own, w->own_count, &w->last);",
    "to_offset_bytes, size_bytes, w->own, 0, &w->last);",
    *OPS_TESTS,
)
mutant(
    "an operation's launch forgets its waits",
    OPS,
    "&grid, w->own, w->own_count, &w->last, w->error);",
    "&grid, w->own, 0, &w->last, w->error);",
    *OPS_TESTS,
)
mutant(
    "an operation that failed leaves work running",
    OPS,
    "umo_status_ignore(umo_fence_wait(w->last, UINT64_MAX));",
    "(void)0;",
    *OPS_TESTS,
)
mutant(
    "of two programs built at once both stay",
    "src/driver/ops/ops_program.c",
    "} else { ops_destroy(device, made); }",
    "} else { (void)made; }",
    *OPS_TESTS,
)
mutant(
    "kernels stay when one of a device's operations fails",
    "src/driver/ops/ops_program.c",
    "if (status != UMO_OK) { ops_destroy(device, ops); (void)umo_error_set(error, status, inner.native,",
    "if (status != UMO_OK) { (void)umo_error_set(error, status, inner.native,",
    *OPS_TESTS,
)
mutant(
    "operations take imports as aligned",
    OPS,
    "(memory->imported ? (uintptr_t)memory->host : memory->offset_bytes) + offset_bytes",
    "memory->offset_bytes + offset_bytes",
    *OPS_TESTS,
)
mutant(
    "two imports of one memory do not overlap",
    OPS,
    "if (memory->mode == UMO_UNIFIED && memory->host != NULL) {",
    "if (false) {",
    *OPS_TESTS,
)
mutant(
    "empty pieces overlap",
    OPS,
    "a->space == b->space && a->size_bytes > 0 && b->size_bytes > 0 &&",
    "a->space == b->space &&",
    *OPS_TESTS,
)
mutant(
    "pieces are compared in the caller's order",
    OPS,
    "qsort(places, used, sizeof *places, places_compare);",
    "qsort(places, 0, sizeof *places, places_compare);",
    *OPS_TESTS,
)
mutant(
    "the sum of pieces wraps around",
    OPS,
    "if (__builtin_add_overflow(total, pieces[i].size_bytes, &total)) {",
    "total += pieces[i].size_bytes; if (false) {",
    *OPS_TESTS,
)
mutant(
    "a piece may overlap the range that holds all pieces",
    OPS,
    "if (places_overlap(&one, &piece)) {",
    "if (false && places_overlap(&one, &piece)) {",
    *OPS_TESTS,
)
mutant(
    "long pieces go through the kernel",
    OPS,
    "if (m->ops == NULL || size_bytes >= COPY_MIN_BYTES) {",
    "if (m->ops == NULL) {",
    *OPS_TESTS,
)
mutant(
    "a move's first bytes are counted at the source",
    OPS,
    "const size_t head = head_of(target, width, size_bytes);",
    "const size_t head = head_of(source + 1, width, size_bytes);",
    *OPS_TESTS,
)
mutant(
    "a move's last bytes are left out",
    OPS,
    "m->plan.tail[p] = (u32)((size_bytes - head) % width);",
    "m->plan.tail[p] = 0;",
    *OPS_TESTS,
)
mutant(
    "the last pieces are not moved",
    OPS,
    "if (status == UMO_OK) { status = moves_flush(&w, &m); }",
    "",
    *OPS_TESTS,
)
mutant(
    "a fill takes a pattern that does not divide it",
    OPS,
    "pattern_bytes > UMO_OPS_WORD_BYTES || size_bytes % pattern_bytes != 0) {",
    "pattern_bytes > UMO_OPS_WORD_BYTES) {",
    *OPS_TESTS,
)
mutant(
    "a fill's pattern starts anew behind its head",
    OPS,
    "memcpy(plan.words, bytes + head % UMO_OPS_WORD_BYTES, sizeof plan.words);",
    "memcpy(plan.words, bytes, sizeof plan.words);",
    *OPS_TESTS,
)
mutant(
    "a scale may be infinite",
    OPS,
    "(!isfinite(c->scale) || !isfinite(c->bias))",
    "(!isfinite(c->bias))",
    *OPS_TESTS,
)
mutant(
    "a count of elements wraps around",
    OPS,
    "if (__builtin_mul_overflow(c->count, from_bytes, &source_bytes) ||"
    " __builtin_mul_overflow(c->count, to_bytes, &target_bytes)) {",
    "source_bytes = c->count * from_bytes; target_bytes = c->count * to_bytes; if (false) {",
    *OPS_TESTS,
)
mutant(
    "a misaligned source converts",
    OPS,
    "if (address_of(c->source, c->source_offset_bytes) % from_bytes != 0 ||",
    "if (",
    *OPS_TESTS,
)
mutant(
    "a conversion's source may be its target",
    OPS,
    "return places_overlap(&source, &target) ? umo_error_set(",
    "return false && places_overlap(&source, &target) ? umo_error_set(",
    *OPS_TESTS,
)
mutant(
    "a device's operations outlive it",
    "src/driver/device.c",
    "umo_ops_finish(device);",
    "",
    *OPS_TESTS,
)
mutant(
    "ties round away from zero",
    OPS_COMMON,
    "rest == half_way && (kept & 1) != 0",
    "rest == half_way",
    *OPS_TESTS,
)
mutant(
    "a NaN of FP16 is not quiet",
    OPS_COMMON,
    "return sign | 0x7e00u | (magnitude >> 13 & 0x3ffu);",
    "return sign | 0x7c00u | (magnitude >> 13 & 0x3ffu);",
    *OPS_TESTS,
)
mutant(
    "an FP32 above 128 saturates early",
    OPS_COMMON,
    "if (exponent < 135u) {",
    "if (exponent < 134u) {",
    *OPS_TESTS,
)
mutant(
    "subnormal sums become zero",
    OPS_COMMON,
    "if (field < -23) { return sign; }",
    "if (field < 1) { return sign; }",
    *OPS_TESTS,
)
mutant(
    "a zero takes the product's sign",
    OPS_COMMON,
    "return small == 0 ? sign & bias : bias;",
    "return small == 0 ? sign : bias;",
    *OPS_TESTS,
)
mutant(
    "bits below the sum are forgotten",
    OPS_COMMON,
    "small = kept | (u64)(kept << apart != small);",
    "small = kept;",
    *OPS_TESTS,
)
mutant(
    "OpenCL's pieces end with the grid",
    OPS_CL,
    "for (ulong i = item; i < words; i += items) { to[i] = from[i]; }",
    "for (ulong i = item; i < words; i += words) { to[i] = from[i]; }",
    "contract.opencl",
)
mutant(
    "OpenCL's fill begins with its second word",
    OPS_CL,
    "to[item] = (uchar)(plan.pattern[item / 4] >> item % 4 * 8);",
    "to[item] = (uchar)(plan.words[item / 4] >> item % 4 * 8);",
    "contract.opencl",
)
mutant(
    "OpenCL's INT8 is unsigned",
    OPS_CL,
    "bits = (uint)(int)(char)from[i];",
    "bits = from[i];",
    "contract.opencl",
)

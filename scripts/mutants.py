"""What scripts/mutate breaks: a name that says what is wrong with the code then, the text that is there (however it is
wrapped), what comes in its place, and the tests that should notice first."""

from dataclasses import dataclass, field

# Which tests see a part of the code, the likeliest first: names of ctest. A mutant's own tests run before them.
CORE = (
    "mem.access_test",
    "mem.access_model_test",
    "mem.buffer_test",
    "mem.region_test",
    "mem.view_test",
    "mem.pool_test",
    "driver.host_test",
    "driver.registry_test",
    "base.scope_test",
    "context.context_test",
    "contract.host_delayed_test_mode",
    "fault.sweep",
    "stress.core",
)
KIT = ("kit.*",)  # every test of that name


@dataclass
class Mutant:
    name: str
    edits: list[tuple[str, str, str]]  # file, what is there, what comes in its place
    tests: tuple[str, ...] = ()
    result: str = ""
    by: str = ""
    seconds: float = 0.0
    fallback: tuple[str, ...] = field(default=CORE)


MUTANTS: list[Mutant] = []


def mutant(name: str, file: str, old: str, new: str, *tests: str) -> None:
    fallback = KIT if file.startswith("triton/") else CORE
    MUTANTS.append(Mutant(name, [(file, old, new)], tests, fallback=fallback))


def mutant_of(name: str, edits: list[tuple[str, str, str]], *tests: str) -> None:
    MUTANTS.append(Mutant(name, edits, tests))


# ---- brackets and waits ----
ACCESS = "src/mem/access.c"
FENCES = "src/mem/fences.c"
MOVE = "src/mem/move.c"
USES = "src/mem/uses.c"
mutant(
    "an ended use is not waited for",
    ACCESS,
    "if (conflicts) { (void)umo_fence_set_add(waits, use->fence); }",
    "",
)
mutant(
    "an open conflict is not seen",
    ACCESS,
    "if (uses_conflict(&use->access, access)) { return UMO_E_BUSY; }",
    "",
)
mutant(
    "readers conflict too",
    ACCESS,
    "return ((a->use | b->use) & UMO_WRITE) != 0 && uses_overlap(a, b);",
    "return uses_overlap(a, b);",
)
mutant(
    "a range ends one byte early in a conflict",
    ACCESS,
    "a->offset_bytes < b->offset_bytes + b->size_bytes &&",
    "a->offset_bytes + 1 < b->offset_bytes + b->size_bytes &&",
)
mutant(
    "a transfer is skipped",
    ACCESS,
    "status = range_transfer(buffer, access, offset_bytes, size_bytes, waits);",
    "status = UMO_OK;",
    "mem.access_model_test",
)
mutant(
    "a transfer's own fence is dropped",
    ACCESS,
    "host_byte(buffer, offset_bytes), own, own_count, &fence); if (status != UMO_OK) { return status; } "
    "fence.device = device; fence.queue = access->queue; "
    "umo_use_add(buffer, &(buffer_use){.access = move, .fence = fence, .moves = true}); fence_add(waits, fence);",
    "host_byte(buffer, offset_bytes), own, own_count, &fence); if (status != UMO_OK) { return status; } "
    "fence.device = device; fence.queue = access->queue; "
    "umo_use_add(buffer, &(buffer_use){.access = move, .fence = fence, .moves = true});",
    "mem.access_model_test",
)
mutant(
    "a transfer is not remembered",
    ACCESS,
    "host_byte(buffer, offset_bytes), own, own_count, &fence); if (status != UMO_OK) { return status; } "
    "fence.device = device; fence.queue = access->queue; "
    "umo_use_add(buffer, &(buffer_use){.access = move, .fence = fence, .moves = true});",
    "host_byte(buffer, offset_bytes), own, own_count, &fence); if (status != UMO_OK) { return status; } "
    "fence.device = device; fence.queue = access->queue;",
    "mem.access_model_test",
)
mutant(
    "a transfer waits for no writer",
    ACCESS,
    "if (!use->open && uses_conflict(&use->access, &move)) { fence_add(&before, use->fence); }",
    "",
    "mem.access_model_test",
)
mutant(
    "a publish is skipped",
    ACCESS,
    "if (lacks || claims) {",
    "if (false) {",
    "mem.access_model_test",
)
mutant(
    "a writer does not claim its range",
    ACCESS,
    "if (lacks || claims) {",
    "if (lacks) {",
    "mem.access_model_test",
)
mutant(
    "a publish takes the whole bracket",
    ACCESS,
    "buffer->memory_offset + offset_bytes, size_bytes, own, own_count, &fence);",
    "buffer->memory_offset + access->offset_bytes, access->size_bytes, own, own_count, &fence);",
    "mem.access_model_test",
)
mutant(
    "a write leaves the other side valid",
    ACCESS,
    "succeeded ? (uint32_t)access->side : 0u);",
    "succeeded ? 3u : 0u);",
    "mem.access_model_test",
)
mutant(
    "an aborted write counts as written",
    ACCESS,
    "succeeded ? (uint32_t)access->side : 0u);",
    "(uint32_t)access->side);",
)
mutant(
    "the fence of an ended use is dropped",
    ACCESS,
    "if (done.value == 0) { umo_use_drop(buffer,",
    "if (true) { umo_use_drop(buffer,",
)
mutant(
    "undefined bytes are transferred",
    ACCESS,
    "bool brings = lacks && valid != 0 && (access->use & UMO_READ) != 0;",
    "bool brings = lacks && (access->use & UMO_READ) != 0;",
)
mutant(
    "a write brings the old bytes",
    ACCESS,
    "bool brings = lacks && valid != 0 && (access->use & UMO_READ) != 0;",
    "bool brings = lacks && valid != 0;",
)
mutant(
    "an eliminated transfer counts as performed",
    ACCESS,
    "access->side, umo_buffer_two_sided(buffer), offset_bytes,",
    "access->side, true, offset_bytes,",
)
mutant(
    "stale bytes are not poisoned",
    ACCESS,
    "umo_stale_poison(buffer, access, done);",
    "",
)
mutant(
    "poison is not remembered",
    ACCESS,
    "umo_use_add(buffer, &(buffer_use){.access = fill, .fence = fence, .moves = true});",
    "",
    "mem.access_model_test",
)
mutant(
    "a failed writer's bytes count as good",
    USES,
    "umo_ranges_set(&buffer->valid, use->access.offset_bytes, use->access.size_bytes, RANGE_FAILED);",
    "",
)
mutant(
    "a failed transfer counts as made",
    USES,
    "if (use->moves) { move_undo(buffer, &use->access); }",
    "if (use->moves) { }",
)
mutant(
    "a full set drops a fence",
    ACCESS,
    "!umo_fence_set_add(&all, use->fence) || all.count == UMO_WAITS_MAX) { return use->fence; }",
    "!umo_fence_set_add(&all, use->fence)) { continue; }",
)
mutant(
    "a set keeps the older of two fences",
    FENCES,
    "have->value = have->value > fence.value ? have->value : fence.value;",
    "have->value = have->value < fence.value ? have->value : fence.value;",
)
mutant(
    "a set that timed out is emptied",
    FENCES,
    "if (pending) {",
    "if (false) {",
)
mutant(
    "a kept fence does not hold its device",
    USES,
    "void umo_use_fence_hold(const umo_buffer *buffer, umo_fence fence) { if (fence.value != 0 &&",
    "void umo_use_fence_hold(const umo_buffer *buffer, umo_fence fence) { if (false && fence.value != 0 &&",
)
mutant(
    "an upload does not wait",
    MOVE,
    "umo_status status = umo_device_waits(device, waits->fences, waits->count, own, &own_count);",
    "umo_status status = UMO_OK;",
    "mem.access_model_test",
)
mutant(
    "an upload's fence is not kept",
    MOVE,
    "return umo_access_end(buffer, &access, fence);",
    "return umo_access_end(buffer, &access, (umo_fence){0});",
    "mem.access_model_test",
)
mutant(
    "a failed upload counts as written",
    MOVE,
    "umo_status_ignore(umo_access_abort(buffer, &access, (umo_fence){0})); return status;",
    "umo_status_ignore(umo_access_end(buffer, &access, (umo_fence){0})); return status;",
)
mutant(
    "settling does not wait",
    USES,
    "umo_status status = umo_fence_wait(fence, UINT64_MAX); result =",
    "umo_status status = UMO_OK; result =",
)
mutant(
    "the host side of private memory is free",
    "src/mem/host_side.c",
    "if (!umo_scope_charge(buffer->scope, buffer->size_bytes)) {",
    "if (false) {",
)
mutant(
    "a read-only import may be written",
    ACCESS,
    "if ((access->use & UMO_WRITE) != 0 && !buffer->writable) { return UMO_E_INVAL; }",
    "",
)
mutant(
    "ranges may end outside",
    ACCESS,
    "if (!umo_range_fits(access->offset_bytes, access->size_bytes, buffer->size_bytes) || (access->side",
    "if ((access->side",
)

# ---- buffers ----
BUFFER = "src/mem/buffer.c"
mutant(
    "release does not wait",
    BUFFER,
    "umo_status_ignore(umo_buffer_settle(buffer));",
    "",
)
mutant(
    "release keeps the charge",
    BUFFER,
    "if (buffer->charged_bytes > 0) { umo_scope_uncharge(scope, buffer->charged_bytes); }",
    "",
    "mem.buffer_test",
)
mutant(
    "a failed allocation keeps the charge",
    BUFFER,
    "umo_scope_uncharge(scope, size_bytes); object_give(buffer); return status;",
    "object_give(buffer); return status;",
    "mem.buffer_test",
)
mutant(
    "a deleter gets the device's address",
    BUFFER,
    "void *data = buffer->deleter_data;",
    "void *data = (char *)buffer->memory.host + buffer->memory_offset;",
    "mem.buffer_test",
)
mutant(
    "part of a page may be written back",
    BUFFER,
    "(info->write_granule_bytes - 1)) != 0) {",
    "0) != 0) {",
    "mem.buffer_test",
)
mutant(
    "pages of two mappings are bound",
    BUFFER,
    "if (status != UMO_OK || first < mapping.start || wide > mapping.end - first) {",
    "if (status != UMO_OK) {",
    "mem.buffer_test",
)
mutant(
    "an unknown mapping is taken for good",
    BUFFER,
    "if (status == UMO_E_UNSUPPORTED) { return refuse(why, UMO_REASON_NO_IDENTITY, error); }",
    "if (status == UMO_E_UNSUPPORTED) { return UMO_OK; }",
    "mem.buffer_test",
)
mutant(
    "the pages around an import may be too long",
    BUFFER,
    "if (wide > device->info.buffer_max_bytes) {",
    "if (false) {",
    "mem.buffer_test",
)

# ---- the registration cache ----
REGION = "src/mem/region.c"
mutant_of(
    "the cache of wraps ignores the size",
    [
        (
            REGION,
            "return umo_hash_mix(umo_hash_mix((uint64_t)(uintptr_t)device, (uint64_t)data), size_bytes);",
            "(void)size_bytes; return umo_hash_mix((uint64_t)(uintptr_t)device, (uint64_t)data);",
        ),
        (REGION, "w->size_bytes == size_bytes && w->writable == writable) {", "w->writable == writable) {"),
    ],
    "mem.region_test",
)
mutant(
    "the cache of wraps ignores writability",
    REGION,
    "w->size_bytes == size_bytes && w->writable == writable) {",
    "w->size_bytes == size_bytes) {",
    "mem.region_test",
)
mutant_of(
    "the cache of wraps ignores the device",
    [
        (
            REGION,
            "return umo_hash_mix(umo_hash_mix((uint64_t)(uintptr_t)device, (uint64_t)data), size_bytes);",
            "(void)device; return umo_hash_mix(umo_hash_mix(0, (uint64_t)data), size_bytes);",
        ),
        (REGION, "w->device == device && w->data == data &&", "w->data == data &&"),
    ],
    "mem.region_test",
)
mutant(
    "a released region keeps its wraps",
    REGION,
    "umo_registry_drop_wraps(registry, region); free(region);",
    "free(region);",
    "mem.region_test",
)
mutant(
    "a wrap outlives its region",
    REGION,
    "if (region == NULL || region->number != number) {",
    "if (false) {",
    "mem.region_test",
)
mutant(
    "a wrap moves to the next region",
    REGION,
    "if (region == NULL || region->number != number) {",
    "if (region == NULL) {",
    "mem.region_test",
)
mutant(
    "a hit shows the last request's state",
    REGION,
    "umo_buffer_refresh(buffer);",
    "",
    "mem.region_test",
)
mutant(
    "a device that is not coherent gets cached wraps",
    REGION,
    "if ((device->info.caps & UMO_CAP_COHERENT) == 0) {",
    "if (false) {",
    "mem.region_test",
)
mutant(
    "wraps in use are evicted",
    REGION,
    "if (oldest->used_again || umo_buffer_refs(oldest->buffer) > 1) {",
    "if (oldest->used_again) {",
    "mem.region_test",
)
mutant(
    "the cache of wraps has no limit",
    REGION,
    "looks < EVICTION_LOOKS && registry->stats.wraps > registry->options.wraps_max; looks++) {",
    "false; looks++) {",
    "mem.region_test",
)
mutant(
    "a read-only region is wrapped for writing",
    REGION,
    "if (region == NULL || (writable && !region->writable)) {",
    "if (region == NULL) {",
    "mem.region_test",
)
mutant(
    "a writable wrap takes whole pages of its region",
    REGION,
    ".whole_pages = inside && (!writable || info->import_align_bytes == 1),",
    ".whole_pages = inside,",
    "mem.region_test",
)
mutant(
    "regions may overlap to the right",
    REGION,
    "if (hits_left || hits_right) {",
    "if (hits_left) {",
    "mem.region_test",
)

# ---- own views ----
VIEW = "src/mem/view.c"
SWEEP = "src/mem/sweep.c"
mutant_of(
    "a view is found by its place, not by its file",
    [
        (
            VIEW,
            "umo_hash_mix(umo_hash_mix(device, inode), offset_bytes",
            "umo_hash_mix(device + 0 * inode, offset_bytes",
        ),
        (VIEW, "view->inode == mapping->inode &&", ""),
    ],
    "mem.view_test",
)
mutant(
    "a view is the first mapping itself",
    "src/os/linux.c",
    "void *own = mapping_again(start, size_bytes); if (own == MAP_FAILED) { switch",
    "void *own = start; if (own == MAP_FAILED) { switch",
    "mem.view_test",
)
mutant(
    "a duplicate is not checked",
    VIEW,
    "if (status != UMO_OK || own.inode != mapping->inode || own.device != mapping->device ||",
    "if (status != UMO_OK ||",
    "mem.view_test",
)
mutant(
    "a read-only view serves a writer",
    VIEW,
    "(mapping->writable && !view->writable)) {",
    "false) {",
    "mem.view_test",
)
mutant(
    "a sweep drops views in use",
    SWEEP,
    "if (view->users == 0 && view->seen < number) {",
    "if (view->seen < number) {",
    "mem.view_test",
)
mutant(
    "a sweep drops views that are mapped",
    SWEEP,
    "view->seen = number;",
    "",
    "mem.view_test",
)
mutant(
    "views keep each other",
    SWEEP,
    "if (!ours[i]) {",
    "if (true) {",
    "mem.view_test",
)
mutant(
    "the number of views has no limit",
    VIEW,
    "bool fits = registry->stats.views < registry->options.views_max &&",
    "bool fits =",
    "mem.view_test",
)
mutant(
    "a view is not marked as used",
    VIEW,
    "view->users++;",
    "",
    "mem.view_test",
)
mutant(
    "a child inherits views",
    "src/os/linux.c",
    "(void)madvise(own, size_bytes, MADV_DONTFORK);",
    "",
    "mem.view_test",
)
mutant(
    "a dropped view stays mapped",
    VIEW,
    "umo_os_mapping_drop(view->base, view->size_bytes);",
    "(void)0;",
    "fault.sweep",
)

# ---- clearing for another owner ----
mutant(
    "only the host side is cleared",
    MOVE,
    "status = device_clear(buffer, &waits);",
    "status = umo_fence_set_wait(&waits, UINT64_MAX);",
    "mem.pool_test",
)
mutant(
    "only the device side is cleared",
    MOVE,
    "if (host != NULL) { memset(host, 0, buffer->size_bytes); }",
    "",
    "mem.pool_test",
)
mutant(
    "clearing leaves the last byte",
    MOVE,
    "if (host != NULL) { memset(host, 0, buffer->size_bytes); }",
    "if (host != NULL) { memset(host, 0, buffer->size_bytes - 1); }",
    "mem.pool_test",
)
mutant(
    "clearing sends one piece only",
    MOVE,
    "at += ZEROS_BYTES) {",
    "at = buffer->size_bytes) {",
    "mem.pool_test",
)
mutant(
    "the zeros are not waited for",
    MOVE,
    "umo_status waited = umo_fence_wait(fence, UINT64_MAX);",
    "umo_status waited = UMO_OK;",
    "mem.pool_test",
)

# ---- scopes, devices, the host driver, contexts ----
mutant(
    "a parent's limit is ignored",
    "src/base/scope.c",
    "for (umo_scope *level = scope; level != NULL; level = level->parent) { if (!charge_level(level, size_bytes)) {",
    "for (umo_scope *level = scope; level == scope; level = level->parent) { if (!charge_level(level, size_bytes)) {",
    "base.scope_test",
)
mutant(
    "a refused charge stays below",
    "src/base/scope.c",
    "for (umo_scope *undo = scope; undo != level; undo = undo->parent) {",
    "for (umo_scope *undo = level; undo != level; undo = undo->parent) {",
    "base.scope_test",
)
mutant(
    "a fence of another device reaches the driver",
    "src/driver/device.c",
    "if (waits[i].device == device && kept < UMO_WAITS_MAX) {",
    "if (kept < UMO_WAITS_MAX) {",
    "driver.host_test",
)
mutant(
    "fences beyond the sixteenth are dropped",
    "src/driver/device.c",
    "if (waits[i].device == device && kept < UMO_WAITS_MAX) {",
    "if (kept == UMO_WAITS_MAX) { continue; } if (waits[i].device == device) {",
    "driver.host_test",
)
mutant(
    "a table of another ABI is taken",
    "src/driver/registry.c",
    "if (driver->abi != UMO_DRIVER_ABI || driver->size_bytes != sizeof *driver) {",
    "if (driver->size_bytes != sizeof *driver) {",
    "driver.registry_test",
)
HOST = "src/driver/host/host.c"
mutant(
    "a command does not wait",
    HOST,
    "if (state->queues[c->waits[i].queue].done < c->waits[i].value) { return false; }",
    "",
    "driver.host_test",
)
mutant(
    "the oldest command runs first",
    HOST,
    "c->order > picked->first->order",
    "c->order < picked->first->order",
    "driver.host_test",
)
mutant(
    "fresh memory is not poisoned",
    HOST,
    "if (state->test_mode) {",
    "if (false) {",
    "driver.host_test",
)
mutant(
    "a host wait ends early",
    HOST,
    "while (state->queues[queue].done < value && status == UMO_OK) {",
    "while (state->queues[queue].done + 1 < value && status == UMO_OK) {",
    "driver.host_test",
)
mutant(
    "a context keeps its devices",
    "src/context/context.c",
    "umo_device_release(context->devices[i].device);",
    "",
    "context.context_test",
)
mutant(
    "a second configuration is not compared",
    "src/context/context.c",
    "field = options_differ(default_context, options, &asked, &have);",
    "",
    "context.context_test",
)


# ---- the kit ----
PLACE = "triton/kit/place.c"
BATCH = "triton/kit/batch.c"
INPUT = "triton/kit/input.c"
OUTPUT = "triton/kit/output.c"
mutant(
    "the kit does not wait for the device",
    BATCH,
    "umo_status completed = umo_fence_wait(batch->done, UINT64_MAX);",
    "umo_status completed = UMO_OK;",
)
mutant(
    "the kit does not wait for its own copies",
    BATCH,
    "umo_status waited = umo_fence_set_wait(&batch->waits, UINT64_MAX);",
    "umo_status waited = UMO_OK;",
)
mutant(
    "the kit opens no bracket",
    PLACE,
    "umo_status status = umo_access_begin(slot->tensor.buffer, &slot->access, &waits);",
    "waits.count = 0; umo_status status = UMO_OK;",
)
mutant(
    "the kit closes no bracket",
    PLACE,
    "umo_status_ignore(succeeded ? umo_access_end(buffer, &slot->access, batch->done) : "
    "umo_access_abort(buffer, &slot->access, batch->done));",
    "(void)buffer; (void)succeeded;",
)
mutant(
    "a bracket's waits do not reach the engine",
    PLACE,
    "for (size_t i = 0; i < waits.count; i++) { kit_batch_wait_for(batch, waits.fences[i]); }",
    "",
)
mutant(
    "a wrap is not given back",
    PLACE,
    "umo_buffer_release(slot->wrap); slot->wrap = NULL;",
    "slot->wrap = NULL;",
)
mutant(
    "a view is not given back",
    PLACE,
    "umo_view_release(slot->view); slot->view = NULL;",
    "slot->view = NULL;",
)
mutant(
    "a block is not given back",
    PLACE,
    "if (umo_pool_free(instance->scratch, slot->block) != UMO_OK) {",
    "if (instance->scratch == NULL) {",
)
mutant(
    "tensors are used where the server mapped them",
    PLACE,
    "out->data = own;",
    "",
)
mutant(
    "unknown memory is trusted",
    PLACE,
    "out->client_writable = true;",
    "out->client_writable = false;",
)
mutant(
    "control data is used where a client can write",
    INPUT,
    "if (io->control && place.client_writable && !model->unified.trusted_clients) {",
    "if (false) {",
)
mutant(
    "pieces that do not follow each other are a run",
    INPUT,
    "if (in->data == NULL || (first != NULL && in->data != next)) {",
    "if (in->data == NULL) {",
)
mutant(
    "a misaligned tensor is used in place",
    INPUT,
    "if ((uintptr_t)data % io->align_bytes != 0) {",
    "if (false) {",
)
mutant(
    "a batch goes beyond its most rows",
    BATCH,
    "rows + request->rows <= model->batch_max &&",
    "true &&",
)
mutant(
    "requests of different shapes share a batch",
    BATCH,
    "requests_agree(model, instance->members[0], request));",
    "true);",
)
mutant(
    "an output may destroy an input",
    OUTPUT,
    "if ((batch->crowded && place.client_writable) || output_overlaps(batch, slot, &place.extent)) {",
    "if (false) {",
)
mutant(
    "the device's output is read without a bracket",
    OUTPUT,
    "if (on_device && status == UMO_OK) { status = host_bracket(batch, slot, &access); }",
    "(void)access;",
)
mutant(
    "downloads are not waited for",
    OUTPUT,
    "umo_status waited = umo_fence_set_wait(&waits, UINT64_MAX);",
    "umo_status waited = UMO_OK;",
)
mutant(
    "an upload's piece is not waited for",
    INPUT,
    "kit_batch_wait_for(state->batch, fence);",
    "",
)

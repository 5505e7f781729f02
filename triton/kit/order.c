/*
 * The order of a batch: one permutation for all its tensors, the one under which the most bytes
 * stay where they lie.
 *
 * A tensor is used in place when its requests lie one behind the other, all or nothing. Such a run
 * climbs in address from request to request, so at most one order makes a tensor a run: that of its
 * addresses. Whatever order saves anything at all is therefore the order of some tensor's
 * addresses, and the best of these few is the best of all (docs/batching.md has the proof, and what
 * is left out).
 */
#include "kit/kit.h"

#include <string.h>

/* What one more call of the engine must save: a copy of so much takes longer than any launch. */
#define PART_BYTES ((uint64_t)8 << 20)

/* One tensor of the batch, input or output. */
typedef struct order_tensor {
    size_t index;
    bool output;
} order_tensor;

typedef struct order_range {
    const char *data; /* NULL: unknown, or in several pieces */
    size_t size_bytes;
} order_range;

/* What an order saves, and how many bytes of those that are copied anyway it puts in a run: outputs
 * that nobody could ask for yet tend to lie as the inputs do. */
typedef struct order_score {
    uint64_t saved;
    uint64_t hint;
} order_score;

static order_range range_of(const kit_request *request, order_tensor tensor)
{
    if (tensor.output) {
        const kit_output *out = &request->outputs[tensor.index];
        return (order_range){out->data, out->size_bytes};
    }
    const kit_input *in = &request->inputs[tensor.index];
    return (order_range){in->data, (size_t)in->size_bytes};
}

static kit_slot *slot_of(const umo_batch *batch, order_tensor tensor)
{
    return tensor.output ? &batch->outputs[tensor.index] : &batch->inputs[tensor.index];
}

/* The number-th tensor of the model: its inputs, then its outputs. */
static order_tensor tensor_of(const umo_model *model, size_t number)
{
    bool output = number >= model->input_count;
    return (order_tensor){output ? number - model->input_count : number, output};
}

static bool is_run(kit_request *const *members, size_t count, order_tensor tensor)
{
    const char *next = NULL;
    for (size_t i = 0; i < count; i++) {
        order_range range = range_of(members[i], tensor);
        if (range.size_bytes == 0) {
            continue; /* lies nowhere, so it is in nobody's way */
        }
        if (next != NULL && range.data != next) {
            return false;
        }
        next = range.data + range.size_bytes;
    }
    return true;
}

/* Do the requests know the tensor's memory, all of them? */
static bool is_known(const umo_batch *batch, order_tensor tensor)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < batch->count; i++) {
        const kit_request *request = batch->members[i];
        order_range range = range_of(request, tensor);
        bool here = tensor.output ? request->outputs[tensor.index].asked
                                  : request->inputs[tensor.index].present;
        if (!here || (range.size_bytes > 0 && range.data == NULL)) {
            return false;
        }
    }
    return tensor.output || model->inputs[tensor.index].source != UMO_IO_BATCH;
}

/* Writes into the tensor's slot what a run of it would be worth: nothing where no order makes it
 * one, or where it is copied all the same. */
static void worth_find(umo_batch *batch, order_tensor tensor)
{
    umo_instance *instance = batch->instance;
    const umo_model *model = instance->model;
    const umo_io *io = tensor.output ? &model->outputs[tensor.index] : &model->inputs[tensor.index];
    kit_slot *slot = slot_of(batch, tensor);
    slot->worth = 0;
    slot->run_bytes = 0;
    if (!is_known(batch, tensor)) {
        return;
    }
    uintptr_t first = UINTPTR_MAX;
    uintptr_t end = 0;
    uintptr_t total = 0;
    for (size_t i = 0; i < batch->count; i++) {
        order_range range = range_of(batch->members[i], tensor);
        if (range.size_bytes > 0) {
            uintptr_t start = (uintptr_t)range.data;
            first = start < first ? start : first;
            end = start + range.size_bytes > end ? start + range.size_bytes : end;
            total += range.size_bytes;
        }
    }
    if (total == 0 || end - first != total) {
        return; /* there are gaps, or ranges that overlap */
    }
    slot->run_bytes = total;
    bool too_small = instance->device != NULL && total < instance->zero_copy_bytes;
    bool control = !tensor.output && io->control && !model->unified.trusted_clients &&
                   kit_extent_find(instance, (const void *)first, (size_t)total).inode != 0;
    if (!too_small && !control && first % io->align_bytes == 0) {
        slot->worth = total;
    }
}

static order_score score_of(const umo_batch *batch, kit_request *const *members)
{
    const umo_model *model = batch->instance->model;
    order_score score = {0, 0};
    for (size_t n = 0; n < model->input_count + model->output_count; n++) {
        order_tensor tensor = tensor_of(model, n);
        const kit_slot *slot = slot_of(batch, tensor);
        if (slot->run_bytes > 0 && is_run(members, batch->count, tensor)) {
            score.saved += slot->worth;
            score.hint += slot->run_bytes;
        }
    }
    return score;
}

static bool score_better(order_score a, order_score b)
{
    return a.saved > b.saved || (a.saved == b.saved && a.hint > b.hint);
}

/* By address; who came first where that is the same: requests lie in the order of arrival. */
static bool lies_before(const kit_request *a, const kit_request *b, order_tensor tensor)
{
    uintptr_t x = (uintptr_t)range_of(a, tensor).data;
    uintptr_t y = (uintptr_t)range_of(b, tensor).data;
    return x != y ? x < y : a < b;
}

static void heap_sink(kit_request **heap, size_t at, size_t count, order_tensor tensor)
{
    kit_request *moving = heap[at];
    for (size_t child = 2 * at + 1; child < count; child = 2 * at + 1) {
        if (child + 1 < count && lies_before(heap[child], heap[child + 1], tensor)) {
            child++;
        }
        if (!lies_before(moving, heap[child], tensor)) {
            break;
        }
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moving;
}

/* A heap sort: in place, and as good for a thousand requests as for two. */
static void members_sort(kit_request **members, size_t count, order_tensor tensor)
{
    for (size_t i = count / 2; i > 0; i--) {
        heap_sink(members, i - 1, count, tensor);
    }
    for (size_t left = count; left > 1; left--) {
        kit_request *last = members[0];
        members[0] = members[left - 1];
        members[left - 1] = last;
        heap_sink(members, 0, left - 1, tensor);
    }
}

/* Tries the order of one tensor; takes it over where it is better than the members' own. */
static void order_try(umo_batch *batch, order_tensor tensor, order_score *best)
{
    kit_request **spare = batch->instance->spare;
    if (slot_of(batch, tensor)->run_bytes == 0 || is_run(batch->members, batch->count, tensor)) {
        return;
    }
    memcpy(spare, batch->members, batch->count * sizeof *spare);
    members_sort(spare, batch->count, tensor);
    order_score score = score_of(batch, spare);
    if (score_better(score, *best)) {
        memcpy(batch->members, spare, batch->count * sizeof *spare);
        *best = score;
    }
}

/* Nothing lies in a run: outputs whose places are not known yet still may. Neighbours there are
 * mostly neighbours here, with gaps between them. */
static void order_guess(umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    for (size_t i = 0; i < model->input_count; i++) {
        order_tensor tensor = {i, false};
        if (is_known(batch, tensor)) {
            members_sort(batch->members, batch->count, tensor);
            return;
        }
    }
}

bool kit_order_choose(umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    size_t tensors = model->input_count + model->output_count;
    for (size_t n = 0; n < tensors; n++) {
        worth_find(batch, tensor_of(model, n));
    }
    order_score best = score_of(batch, batch->members);
    for (size_t n = 0; n < tensors; n++) {
        order_try(batch, tensor_of(model, n), &best);
    }
    if (best.hint == 0) {
        order_guess(batch);
    }
    for (size_t i = 1; i < batch->count; i++) {
        if (batch->members[i] < batch->members[i - 1]) {
            return false;
        }
    }
    return true;
}

/* Is the tensor used where it lies, once its requests touch? */
static bool is_usable(const umo_batch *batch, order_tensor tensor)
{
    const umo_model *model = batch->instance->model;
    const umo_io *io = tensor.output ? &model->outputs[tensor.index] : &model->inputs[tensor.index];
    bool usable = is_known(batch, tensor) &&
                  (tensor.output || !io->control || model->unified.trusted_clients);
    for (size_t i = 0; i < batch->count && usable; i++) {
        usable = (uintptr_t)range_of(batch->members[i], tensor).data % io->align_bytes == 0;
    }
    return usable;
}

/* Do the members before and from `at` on lie apart in the tensor? */
static bool is_gap(const umo_batch *batch, order_tensor tensor, size_t at)
{
    order_range before = range_of(batch->members[at - 1], tensor);
    order_range here = range_of(batch->members[at], tensor);
    return before.size_bytes > 0 && here.size_bytes > 0 &&
           before.data + before.size_bytes != here.data;
}

size_t kit_order_part(const umo_batch *batch)
{
    const umo_model *model = batch->instance->model;
    uint64_t saved = 0;
    size_t first = batch->count;
    size_t gaps = 0;
    for (size_t n = 0; n < model->input_count + model->output_count; n++) {
        order_tensor tensor = tensor_of(model, n);
        uint64_t total = 0;
        bool parted = false;
        if (!is_usable(batch, tensor)) {
            continue;
        }
        for (size_t at = 0; at < batch->count; at++) {
            total += range_of(batch->members[at], tensor).size_bytes;
            if (at > 0 && is_gap(batch, tensor, at)) {
                parted = true;
                first = at < first ? at : first;
                gaps++; /* those of several tensors count again: fewer parts than that are made */
            }
        }
        saved += parted ? total : 0;
    }
    return gaps > 0 && saved / gaps >= PART_BYTES ? first : batch->count;
}

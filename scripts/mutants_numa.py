"""Mutants of NUMA: nodes and their pages, buffers that follow, the kit. The form is that of mutants.py."""

from mutants import mutant

# ---- the system ----
NUMA = "src/os/linux_numa.c"
TOPOLOGY = "src/os/linux_numa_topology.c"
RESIDENCY = "src/os/numa_residency.c"
NUMA_TESTS = ("os.linux_numa_test", "os.linux_numa_kernel_test", "os.numa_test")
TOPOLOGY_TESTS = ("os.linux_numa_topology_test",)
mutant(
    "numa: a row of distances may have figures left over",
    TOPOLOGY,
    "text += strspn(text, \" \\n\"); return *text == '\\0';",
    "return true;",
    *TOPOLOGY_TESTS,
)
mutant(
    "numa: distances are taken in the order of all numbers, holes and all",
    TOPOLOGY,
    "if (!on->has[id]) { continue; } uint64_t distance;",
    "uint64_t distance;",
    *TOPOLOGY_TESTS,
)
mutant(
    "numa: a node's figures are taken from whoever they are for",
    TOPOLOGY,
    "if (status == UMO_OK && named >= 0 && named == best) {",
    "if (status == UMO_OK && named >= 0) {",
    *TOPOLOGY_TESTS,
)
mutant(
    "numa: nodes that go while they are read are an error",
    TOPOLOGY,
    "bool again = status == UMO_OK && speaks; for (int i = 0; again && i < TRIES; i++) {",
    "bool again = status == UMO_OK && speaks; for (int i = 0; again && i < 1; i++) {",
    *TOPOLOGY_TESTS,
)
mutant(
    "numa: no file can be opened, so there is one node",
    TOPOLOGY,
    "return cause == ENOENT || cause == ENOTDIR || cause == ENODEV || cause == EACCES || cause == EPERM;",
    "return cause != ENOMEM;",
    *TOPOLOGY_TESTS,
)
mutant(
    "numa: what the kernel says of a page is believed",
    NUMA,
    "counts->moved += status == UMO_OK ? batch_keep_others(b, node, said) : 0;",
    "for (size_t k = 0; k < b->count; k++) { counts->moved += said[k] == node ? 1 : 0; } "
    "(void)batch_keep_others(b, node, said);",
    *NUMA_TESTS,
)
mutant(
    "numa: a full node is an error",
    NUMA,
    "counts->full = rc < 0 && errno == ENOMEM;",
    "counts->full = false;",
    *NUMA_TESTS,
)
mutant(
    "numa: with nothing to move any node will do",
    NUMA,
    "if (status == UMO_OK && counts.tried == 0) {",
    "if (false) {",
    *NUMA_TESTS,
)
mutant(
    "numa: a filter's refusal is a failure of the system",
    NUMA,
    "return cause == EPERM || cause == ENOSYS || cause == EACCES;",
    "return cause == EPERM || cause == EACCES;",
    *NUMA_TESTS,
)
mutant(
    "numa: holes are bound to any node",
    NUMA,
    "if (node == UMO_NUMA_ANY) { /* the kernel takes holes for that */",
    "if (false) {",
    *NUMA_TESTS,
)
mutant(
    "numa: the last look counts for more than is left",
    RESIDENCY,
    "stands_for[looks] = step < left ? step : left; at += stands_for[looks]; left -= stands_for[looks];",
    "stands_for[looks] = step; at += stands_for[looks]; left -= step < left ? step : left;",
    *NUMA_TESTS,
)

# ---- pools, votes, moves ----
MEM = ("mem.numa_test",)
POLICY = ("access.numa_policy_test",)
CONTEXT = ("context.numa_test",)
mutant(
    "numa: a buffer is placed after its pages are there",
    "src/mem/movable.c",
    "umo_status status = node != UMO_NUMA_ANY",
    "umo_status status = mode == UMO_PRIVATE",
    *MEM,
)
mutant(
    "numa: a mapping made anew forgets its node",
    "src/mem/heap_pages.c",
    "if (heap->node != UMO_NUMA_ANY) {",
    "if (false) {",
    *MEM,
)
mutant(
    "numa: a pin does not wait for pages on their way",
    "src/mem/pin.c",
    "umo_buffer_relocation_wait(buffer);",
    "(void)0;",
    *MEM,
)
mutant(
    "numa: an export does not wait for pages on their way",
    "src/mem/export.c",
    "umo_buffer_relocation_wait(buffer);",
    "(void)0;",
    *MEM,
)
mutant(
    "numa: pages of a pinned buffer move",
    "src/mem/numa.c",
    "} else if (buffer->pins > 0 || buffer->export_count > 0) {",
    "} else if (buffer->export_count > 0) {",
    *MEM,
)
mutant(
    "numa: a use votes twice",
    "src/mem/record_state.h",
    "carried->voted = counted; }",
    "}",
    *MEM,
)
mutant(
    "numa: with one node they vote too",
    "src/mem/record.c",
    "voting = umo_numa_memory_nodes() > 1;",
    "voting = true;",
    "mem.record_test",
)
mutant(
    "numa: a majority is half",
    "src/access/numa_policy.c",
    "most * 3 >= umo_votes_sum(&c->recent) * 2",
    "most * 2 >= umo_votes_sum(&c->recent)",
    *POLICY,
)
mutant(
    "numa: a move that earned nothing raises no doubts",
    "src/access/numa_policy.c",
    "if (c->from >= 0 && c->earned_most_ns < c->price_ns) {",
    "if (false) {",
    *POLICY,
)
mutant(
    "numa: one pool for all nodes",
    "src/context/optimizer_memory.c",
    "return home >= 0 ? o->nodes->nodes[home].id : UMO_NUMA_ANY;",
    "return home >= 0 ? UMO_NUMA_ANY : UMO_NUMA_ANY;",
    *CONTEXT,
)
mutant(
    "numa: a buffer that somebody placed follows",
    "src/mem/movable.c",
    "node == UMO_NUMA_ANY ? UMO_PAGES_OWN : UMO_PAGES_PLACED",
    "UMO_PAGES_OWN",
    *CONTEXT,
)
mutant(
    "numa: a thread that goes back and forth gives all to where it is when asked",
    "src/mem/record.c",
    "umo_record_table_vote(t, slot, counted - carried->stamped);",
    "(void)0;",
    *MEM,
)
mutant(
    "numa: pages that would not move are tried at every other look",
    "src/access/numa_policy.c",
    "c->failures += c->failures < FAILURES_MOST ? 1 : 0;",
    "c->failures = 0;",
    *POLICY,
)
mutant(
    "numa: a move's time is that of its last part",
    "src/context/numa.c",
    "k->spent_ns += spent_ns;",
    "k->spent_ns = spent_ns;",
    *CONTEXT,
)
mutant(
    "numa: pages that stayed where they were are recorded as moved",
    "src/context/numa.c",
    "move_tell(k, buffer, status); figure_add",
    "move_tell(k, buffer, UMO_OK); figure_add",
    *CONTEXT,
)
mutant(
    "numa: that nothing is to move is recorded as a move",
    "src/mem/numa.c",
    "if (moves) { UMO_TRACE_BUFFER",
    "if (true) { UMO_TRACE_BUFFER",
    *MEM,
)

# ---- the kit ----
NODE = "triton/kit/node.c"
mutant(
    "nodes: a policy of several settings is read as one without a node",
    NODE,
    'const json_t *node = json_object_get(settings, "numa-node");',
    'const json_t *node = json_object_size(settings) == 1 ? json_object_get(settings, "numa-node") : NULL;',
    "kit.numa",
)
mutant(
    "nodes: a number may have a tail",
    NODE,
    "return *end == '\\0' && errno == 0 && value <= INT32_MAX;",
    "return errno == 0 && value <= INT32_MAX;",
    "kit.numa",
)
mutant(
    "nodes: a number of more than 32 bits is cut",
    NODE,
    "return *end == '\\0' && errno == 0 && value <= INT32_MAX;",
    "return *end == '\\0' && errno == 0;",
    "kit.numa",
)
mutant(
    "nodes: one that is not for this process is taken",
    NODE,
    "} else if (!node->allowed) {",
    "} else if (false) {",
    "kit.numa",
)
mutant(
    "nodes: a named node is followed away from",
    NODE,
    "instance->follows = p.node == NULL && !model->decoupled;",
    "instance->follows = !model->decoupled;",
    "kit.numa",
)
mutant(
    "nodes: a decoupled model's instance is followed",
    NODE,
    "instance->follows = p.node == NULL && !model->decoupled;",
    "instance->follows = p.node == NULL;",
    "kit.numa",
)
mutant(
    "nodes: a thread that comes back now and then is followed all the same",
    NODE,
    "if (!instance->remote || !instance->follows) { instance->away = 0; return; }",
    "if (!instance->remote || !instance->follows) { return; }",
    "kit.numa",
)
mutant(
    "nodes: the pool of a node that the thread was on is made anew",
    NODE,
    "while (home != NULL && home->node != node) {",
    "while (home != NULL) {",
    "kit.numa",
)
mutant(
    "nodes: a move that fails counts as made",
    NODE,
    "free(home); instance->node = before; return;",
    "free(home); return;",
    "kit.numa",
)
mutant(
    "nodes: the device's own memory is put on a node too",
    NODE,
    "mode == UMO_UNIFIED ? instance->node : UMO_NUMA_ANY",
    "instance->node",
    "kit.numa",
)
mutant(
    "nodes: a process that is refused asks again and again",
    NODE,
    "if (node == UMO_NUMA_ANY || is_refused()) {",
    "if (node == UMO_NUMA_ANY) {",
    "kit.numa",
)
mutant(
    "kernel: an instance on a node takes from the model's pool",
    "triton/backends/kernel/backend.c",
    "state->intermediates = &state->near;",
    "",
    "kernel.stages*",
)
mutant(
    "onnxruntime: an instance on a node takes from the model's heap",
    "triton/backends/onnxruntime/execute.c",
    "return instance->heap != NULL ? instance->heap : instance->model->heap;",
    "return instance->model->heap;",
    "onnxruntime.sharing",
)
mutant(
    "nodes: scratch memory is near wherever the thread is",
    NODE,
    "instance->remote = here != instance->node; if (!instance->remote",
    "if (here == instance->node",
    "kit.numa",
)
mutant(
    "nodes: nobody looks whether a policy's memory is near",
    NODE,
    "instance->watched = p.node != NULL || instance->follows;",
    "instance->watched = instance->follows;",
    "kit.numa",
)
mutant(
    "numa: a child of a fork waits for its parent's move",
    "src/mem/buffer_state.h",
    "return buffer->relocating && buffer->relocating_in == umo_os_forks();",
    "return buffer->relocating;",
    "context.numa_test",
)

"""Mutants of what clients can send: ragged and hostile requests, streams, large pages, HTTP bodies, copying threads.

The form is that of mutants.py.
"""

from mutants import mutant

# ---- hostile requests ----
BATCH_IO = "triton/kit/batch_io.c"
SEQUENCE = "triton/kit/sequence.c"
HOSTILE = ("kit.hostile",)

mutant(
    "kit: parts of a scattered output that add up to nothing are none",
    "triton/kit/output.c",
    "fits = !__builtin_add_overflow(parts, part, &parts) && fits;",
    "parts += part;",
    *HOSTILE,
)
mutant(
    "kit: who needs too much memory shares a batch",
    BATCH_IO,
    "bool room = first || total <= SHARED_BATCH_BYTES;",
    "bool room = first || true;",
    *HOSTILE,
)
mutant(
    "kit: a dimension that INT32 cannot hold is the batch's failure",
    BATCH_IO,
    "fits = fits && source->shape.dims[d] <= INT32_MAX;",
    "(void)source->shape.dims[d];",
    *HOSTILE,
)
mutant(
    "kit: a count that INT32 cannot hold is the batch's failure",
    BATCH_IO,
    "plan->kind == KIT_MAX_ELEMENT_COUNT_AS_SHAPE || count <= INT32_MAX;",
    "true;",
    *HOSTILE,
)
mutant(
    "kit: a row that lies gives up its slot",
    "triton/kit/batch.c",
    "kit_sequence_fill_rows(instance, count);",
    "(void)count;",
    *HOSTILE,
)
mutant(
    "kit: a row that lies has as many rows as it says",
    SEQUENCE,
    "request->rows = like->rows;",
    "(void)like->rows;",
    *HOSTILE,
)
mutant(
    "kit: a failed request's controls are lost",
    SEQUENCE,
    "if (!known) {",
    "if (!known || true) {",
    "kit.sequences",
)
mutant(
    "kit: strings that changed meanwhile are followed",
    "triton/kit/gather.c",
    "if (!kit_strings_mend(copy, in->size_bytes, count)) {",
    "if (false && !kit_strings_mend(copy, in->size_bytes, count)) {",
    *HOSTILE,
)

# ---- streams and their statistics ----
STATISTICS = "triton/kit/statistics.c"
RESPONSE = "triton/kit/response.c"
DECOUPLED = "triton/kit/decoupled.c"
STREAMS = "triton/kit/streams.c"
GATHER = "triton/kit/gather.c"

mutant(
    "the kit: an end without a response is not told of",
    DECOUPLED,
    "kit_statistics_report(request->statistics, request, start_ns, 0, NULL);",
    "(void)0;",
    "kit.decoupled",
)
mutant(
    "the kit: an error at the end is not told of",
    DECOUPLED,
    "kit_statistics_report(request->statistics, request, start_ns, start_ns, failure);",
    "(void)0;",
    "kit.decoupled",
)
mutant(
    "the kit: a response that failed is told of as one that did not",
    RESPONSE,
    "kit_statistics_report(response->statistics, request, response->start_ns, output_ns, failure);",
    "kit_statistics_report(response->statistics, request, response->start_ns, output_ns, NULL);",
    "kit.decoupled",
)
mutant(
    "the kit: a response without outputs is told of as one with",
    RESPONSE,
    "uint64_t output_ns = has_outputs(response) ? kit_now_ns() : 0;",
    "uint64_t output_ns = kit_now_ns();",
    "kit.decoupled",
)
mutant(
    "the kit: a server that takes no statistics is told all the same",
    STATISTICS,
    "if (status == UMO_OK) { (void)kit_from_triton(TRITONBACKEND_ModelInstanceReportResponseStatistics(statistics),",
    "if (true) { (void)kit_from_triton(TRITONBACKEND_ModelInstanceReportResponseStatistics(statistics),",
    "kit.decoupled",
)
mutant(
    "the kit: a slot's statistics stay",
    STREAMS,
    "kit_statistics_destroy(slot->statistics);",
    "(void)0;",
    "kit.decoupled",
)
mutant(
    "the kit: strings of more bytes than one can have are made one",
    GATHER,
    "uint64_t length = content < UINT32_MAX ? content : UINT32_MAX;",
    "uint64_t length = content;",
    "kit.gather",
)
mutant(
    "the kit: strings that changed are left as they are",
    GATHER,
    "strings_reframe(copy, size_bytes, count);",
    "(void)0;",
    "kit.gather",
    "kit.requests",
)

# ---- pages, bodies, threads ----
mutant(
    "A large view lies anywhere",
    "src/os/linux.c",
    "align_bytes = HUGE_PAGE_BYTES;",
    "align_bytes = umo_os_page_bytes();",
    "os.pages_test",
    "mem.ring_test",
)
mutant(
    "The ring in C makes no huge pages",
    "src/os/linux_shared.c",
    "enlarge(file, offset_bytes, size_bytes);",
    "(void)enlarge;",
    "mem.ring_test",
)
mutant(
    "The ring in C enlarges pages that are not all its slot's",
    "src/os/linux_shared.c",
    "size_t end = (offset_bytes + size_bytes) & ~(HUGE_PAGE_BYTES - 1);",
    "size_t end = (offset_bytes + size_bytes + HUGE_PAGE_BYTES - 1) & ~(HUGE_PAGE_BYTES - 1);",
    "mem.ring_test",
)
mutant(
    "A model cannot forbid copying threads",
    "triton/kit/gather.c",
    "return model->unified.parallel_copies ? umo_context_copier(model->context) : NULL;",
    "return umo_context_copier(model->context);",
    "kit.gather",
)
mutant(
    "parallel_copies is false when nothing is said",
    "triton/kit/unified.c",
    ".parallel_copies = true,",
    ".parallel_copies = false,",
    "kit.gather",
)

# ---- examples ----

TWIN = "examples/driver/twin.c"
WRAP = "examples/c/wrap.c"
mutant(
    "example driver: transfers go the wrong way",
    TWIN,
    "memcpy(to == UMO_SIDE_DEVICE ? device : host, to == UMO_SIDE_DEVICE ? host : device,",
    "memcpy(to == UMO_SIDE_DEVICE ? host : device, to == UMO_SIDE_DEVICE ? device : host,",
    "examples.driver_twin",
)
mutant(
    "example driver: a copy forgets its source's offset",
    TWIN,
    "at(source, source_offset_bytes)",
    "at(source, source_offset_bytes * 0)",
    "examples.driver_twin",
)
mutant(
    "example driver: promises imports that it does not have",
    TWIN,
    ".caps = UMO_CAP_PRIVATE | UMO_CAP_KERNELS,",
    ".caps = UMO_CAP_PRIVATE | UMO_CAP_KERNELS | UMO_CAP_IMPORT_READ,",
    "examples.driver_twin",
)
mutant(
    "example driver: a launch ignores where its argument begins",
    TWIN,
    "at(args[i].memory, args[i].offset_bytes)",
    "at(args[i].memory, 0 * args[i].offset_bytes)",
    "examples.driver_twin",
)
mutant(
    "example: the device fills less than it says",
    WRAP,
    "umo_buffer_memory_offset(buffer), SIZE_BYTES, pattern, sizeof pattern,",
    "umo_buffer_memory_offset(buffer), SIZE_BYTES / 2, pattern, sizeof pattern,",
    "examples.wrap",
)

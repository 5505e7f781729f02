/*
 * What an OpenCL device can do. Nothing is taken from its name or vendor: memory is wrapped and
 * written from both sides at opening, and only what came out right becomes a capability.
 */
#include "driver/opencl/opencl_state.h"

#include "os/os.h"

#include <string.h>

/* Memory for the probes: guarded host pages, a wrap of a range in their middle, a device buffer to
 * copy it to. */
typedef struct probe {
    const umo_opencl_state *state;
    cl_command_queue queue;
    unsigned char *pages;
    size_t pages_bytes;
    unsigned char *data;
    size_t size_bytes;
    bool mapped; /* the host touches data only between map and unmap */
    cl_mem wrap;
    cl_mem mirror;
} probe;

#define GUARD_BYTE 0x5Cu
#define DEVICE_BYTE 0xA5u
#define HOST_BYTE 0x3Au

/* Gives the range to the host; the address must be ours, or the runtime keeps a copy. */
static bool probe_map(const probe *p, cl_map_flags flags)
{
    if (!p->mapped) {
        return true;
    }
    cl_int code = CL_SUCCESS;
    void *address = p->state->api->clEnqueueMapBuffer(p->queue, p->wrap, CL_TRUE, flags, 0,
                                                      p->size_bytes, 0, NULL, NULL, &code);
    return address == p->data && code == CL_SUCCESS;
}

/* True when the command was taken and has ended well. clFinish would not tell. */
static bool probe_ended(const probe *p, cl_int code, cl_event event)
{
    if (code != CL_SUCCESS) {
        return false;
    }
    code = p->state->api->clWaitForEvents(1, &event);
    (void)p->state->api->clReleaseEvent(event);
    return code == CL_SUCCESS;
}

static bool probe_unmap(const probe *p)
{
    if (!p->mapped) {
        return true;
    }
    cl_event event = NULL;
    cl_int code =
        p->state->api->clEnqueueUnmapMemObject(p->queue, p->wrap, p->data, 0, NULL, &event);
    return probe_ended(p, code, event);
}

static bool all_bytes(const unsigned char *bytes, size_t size_bytes, unsigned char expected)
{
    for (size_t i = 0; i < size_bytes; i++) {
        if (((const volatile unsigned char *)bytes)[i] != expected) {
            return false;
        }
    }
    return true;
}

/* What the device writes appears in our memory, and nothing beside it. */
static bool probe_device_writes(const probe *p)
{
    const umo_opencl_api *api = p->state->api;
    const cl_uchar byte = DEVICE_BYTE;
    cl_event event = NULL;
    cl_int code = api->clEnqueueFillBuffer(p->queue, p->wrap, &byte, sizeof byte, 0, p->size_bytes,
                                           0, NULL, &event);
    if (!probe_ended(p, code, event) || !probe_map(p, CL_MAP_READ)) {
        return false;
    }
    size_t before = (size_t)(p->data - p->pages);
    bool right =
        all_bytes(p->pages, before, GUARD_BYTE) && all_bytes(p->data, p->size_bytes, DEVICE_BYTE) &&
        all_bytes(p->data + p->size_bytes, p->pages_bytes - before - p->size_bytes, GUARD_BYTE);
    return probe_unmap(p) && right;
}

/* What the host writes is what the device then reads. */
static bool probe_host_writes(const probe *p)
{
    const umo_opencl_api *api = p->state->api;
    if (!probe_map(p, CL_MAP_WRITE)) {
        return false;
    }
    memset(p->data, HOST_BYTE, p->size_bytes);
    if (!probe_unmap(p)) {
        return false;
    }
    cl_event event = NULL;
    cl_int code = api->clEnqueueCopyBuffer(p->queue, p->wrap, p->mirror, 0, 0, p->size_bytes, 0,
                                           NULL, &event);
    if (!probe_ended(p, code, event)) {
        return false;
    }
    unsigned char *back = umo_os_pages_alloc(p->size_bytes);
    bool right = back != NULL &&
                 api->clEnqueueReadBuffer(p->queue, p->mirror, CL_TRUE, 0, p->size_bytes, back, 0,
                                          NULL, NULL) == CL_SUCCESS &&
                 all_bytes(back, p->size_bytes, HOST_BYTE);
    umo_os_pages_free(back, p->size_bytes);
    return right;
}

/* True when memory wrapped at this offset of a page is the device's own memory too. */
static bool probe_wrap(const umo_opencl_state *state, size_t offset_bytes, bool mapped)
{
    const umo_opencl_api *api = state->api;
    const size_t page = umo_os_page_bytes();
    probe p = {
        .state = state,
        .queue = state->queues[0].native,
        .pages_bytes = 4 * page,
        /* An odd length with an odd offset: nothing is aligned by luck. */
        .size_bytes = offset_bytes == 0 ? page : page + 13,
        .mapped = mapped,
    };
    bool right = false;
    p.pages = umo_os_pages_alloc(p.pages_bytes);
    if (p.pages == NULL) {
        return false;
    }
    memset(p.pages, GUARD_BYTE, p.pages_bytes);
    p.data = p.pages + page + offset_bytes;
    p.wrap = api->clCreateBuffer(state->context, CL_MEM_USE_HOST_PTR, p.size_bytes, p.data, NULL);
    p.mirror = api->clCreateBuffer(state->context, CL_MEM_READ_WRITE, p.size_bytes, NULL, NULL);
    if (p.wrap != NULL && p.mirror != NULL) {
        right = probe_device_writes(&p) && probe_host_writes(&p);
    }
    /* After a failed step commands may still be under way on these pages. */
    (void)api->clFinish(p.queue);
    if (p.wrap != NULL) {
        (void)api->clReleaseMemObject(p.wrap);
    }
    if (p.mirror != NULL) {
        (void)api->clReleaseMemObject(p.mirror);
    }
    umo_os_pages_free(p.pages, p.pages_bytes);
    return right;
}

/* One fixed-size fact; fallback when the runtime does not know it. */
#define DEVICE_FACT(name, type)                                                                    \
    static type name(const umo_opencl_state *state, cl_device_info fact, type fallback)            \
    {                                                                                              \
        type value = fallback;                                                                     \
        cl_int code =                                                                              \
            state->api->clGetDeviceInfo(state->device, fact, sizeof value, &value, NULL);          \
        return code == CL_SUCCESS ? value : fallback;                                              \
    }
DEVICE_FACT(fact_bool, cl_bool)
DEVICE_FACT(fact_uint, cl_uint)
DEVICE_FACT(fact_ulong, cl_ulong)
DEVICE_FACT(fact_bits, cl_bitfield)

/* How the device and the host share memory, found by trying. */
static void sharing_find(umo_opencl_state *state)
{
    const size_t page = umo_os_page_bytes();
    const uint32_t wraps = UMO_CAP_UNIFIED | UMO_CAP_IMPORT_READ | UMO_CAP_IMPORT_WRITE;
    const bool processor = (fact_bits(state, CL_DEVICE_TYPE, 0) & CL_DEVICE_TYPE_CPU) != 0;
    const bool system_svm =
        (fact_bits(state, CL_DEVICE_SVM_CAPABILITIES, 0) & CL_DEVICE_SVM_FINE_GRAIN_SYSTEM) != 0;
    state->import_align_bytes = page;
    state->import_size_align_bytes = UMO_OPENCL_LINE_BYTES;
    if (processor) {
        state->caps |= UMO_CAP_HOST_PROCESSOR;
    }
    if (processor || system_svm) {
        if (probe_wrap(state, 67, false)) {
            state->caps |= wraps | UMO_CAP_COHERENT;
            state->import_align_bytes = 1;
            state->import_size_align_bytes = 1;
            return;
        }
        if (probe_wrap(state, 0, false)) {
            state->caps |= wraps | UMO_CAP_COHERENT;
            return;
        }
    }
    if ((processor || fact_bool(state, CL_DEVICE_HOST_UNIFIED_MEMORY, CL_FALSE)) &&
        probe_wrap(state, 0, true)) {
        state->caps |= wraps;
    }
}

umo_status umo_opencl_facts_read(umo_opencl_state *state, umo_device_info *info, umo_error *error)
{
    const umo_opencl_api *api = state->api;
    umo_device_info facts = {.driver = "opencl", .queues = UMO_OPENCL_QUEUES};
    cl_int code = api->clGetDeviceInfo(state->device, CL_DEVICE_NAME, sizeof facts.name - 1,
                                       facts.name, NULL);
    if (code != CL_SUCCESS) {
        /* A name longer than the field is no reason to fail. */
        memcpy(facts.name, "OpenCL device", sizeof "OpenCL device");
    }
    state->buffer_max_bytes = fact_ulong(state, CL_DEVICE_MAX_MEM_ALLOC_SIZE, 0);
    if (state->buffer_max_bytes == 0) {
        return umo_error_set(error, UMO_E_DEVICE, 0,
                             "OpenCL device '%s' does not say how long a buffer may be",
                             facts.name);
    }
    const cl_uint origin_bits = fact_uint(state, CL_DEVICE_MEM_BASE_ADDR_ALIGN, 4096 * 8);
    state->origin_align_bytes = origin_bits >= 8 ? origin_bits / 8 : 1;
    state->caps = UMO_CAP_MANAGED | UMO_CAP_PRIVATE | UMO_CAP_ASYNC;
    if (fact_bool(state, CL_DEVICE_COMPILER_AVAILABLE, CL_FALSE)) {
        state->caps |= UMO_CAP_KERNELS;
    }
    sharing_find(state);
    facts.caps = state->caps;
    facts.import_align_bytes = state->import_align_bytes;
    facts.import_size_align_bytes = state->import_size_align_bytes;
    /* A device that keeps copies writes back what it wrapped, from a page's start on. */
    facts.write_granule_bytes =
        (state->caps & UMO_CAP_COHERENT) != 0 ? 1 : state->import_align_bytes;
    facts.alloc_align_bytes = umo_os_page_bytes();
    facts.language = UMO_LANGUAGE_OPENCL_C;
    facts.unified = fact_bool(state, CL_DEVICE_HOST_UNIFIED_MEMORY, CL_FALSE) ||
                    (state->caps & UMO_CAP_HOST_PROCESSOR) != 0;
    facts.buffer_max_bytes = state->buffer_max_bytes;
    facts.memory_bytes = fact_ulong(state, CL_DEVICE_GLOBAL_MEM_SIZE, 0);
    *info = facts;
    return UMO_OK;
}

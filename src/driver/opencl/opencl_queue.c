/*
 * Timelines of the OpenCL driver, and the meaning of OpenCL's codes.
 *
 * Waiting without a limit uses clWaitForEvents, which sleeps; waiting with one polls with growing
 * pauses. Event callbacks would do both, but they run on the runtime's threads at a time of its
 * choosing, may not call most of OpenCL, and could outlive the device they report to.
 */
#include "driver/opencl/opencl_state.h"

#include "os/os.h"

#include <time.h>

#define POLL_FIRST_NS 20000u
#define POLL_LONGEST_NS 1000000u

static const struct {
    cl_int code;
    umo_status status;
    const char *name;
} codes[] = {
    {CL_DEVICE_NOT_FOUND, UMO_E_NOT_FOUND, "CL_DEVICE_NOT_FOUND"},
    {CL_DEVICE_NOT_AVAILABLE, UMO_E_DEVICE, "CL_DEVICE_NOT_AVAILABLE"},
    {CL_COMPILER_NOT_AVAILABLE, UMO_E_UNSUPPORTED, "CL_COMPILER_NOT_AVAILABLE"},
    {CL_MEM_OBJECT_ALLOCATION_FAILURE, UMO_E_NOMEM, "CL_MEM_OBJECT_ALLOCATION_FAILURE"},
    {CL_OUT_OF_RESOURCES, UMO_E_DEVICE, "CL_OUT_OF_RESOURCES"},
    {CL_OUT_OF_HOST_MEMORY, UMO_E_NOMEM, "CL_OUT_OF_HOST_MEMORY"},
    {CL_BUILD_PROGRAM_FAILURE, UMO_E_INVAL, "CL_BUILD_PROGRAM_FAILURE"},
    {CL_MISALIGNED_SUB_BUFFER_OFFSET, UMO_E_INVAL, "CL_MISALIGNED_SUB_BUFFER_OFFSET"},
    {CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST, UMO_E_DEVICE,
     "CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST"},
    {CL_COMPILE_PROGRAM_FAILURE, UMO_E_INVAL, "CL_COMPILE_PROGRAM_FAILURE"},
    {CL_INVALID_HOST_PTR, UMO_E_REFUSED, "CL_INVALID_HOST_PTR"},
    {CL_INVALID_BUILD_OPTIONS, UMO_E_INVAL, "CL_INVALID_BUILD_OPTIONS"},
    {CL_INVALID_KERNEL_NAME, UMO_E_NOT_FOUND, "CL_INVALID_KERNEL_NAME"},
    {CL_INVALID_ARG_INDEX, UMO_E_INVAL, "CL_INVALID_ARG_INDEX"},
    {CL_INVALID_ARG_VALUE, UMO_E_INVAL, "CL_INVALID_ARG_VALUE"},
    {CL_INVALID_ARG_SIZE, UMO_E_INVAL, "CL_INVALID_ARG_SIZE"},
    {CL_INVALID_KERNEL_ARGS, UMO_E_INVAL, "CL_INVALID_KERNEL_ARGS"},
    {CL_INVALID_MEM_OBJECT, UMO_E_INVAL, "CL_INVALID_MEM_OBJECT"},
    {CL_INVALID_WORK_DIMENSION, UMO_E_INVAL, "CL_INVALID_WORK_DIMENSION"},
    {CL_INVALID_WORK_GROUP_SIZE, UMO_E_INVAL, "CL_INVALID_WORK_GROUP_SIZE"},
    {CL_INVALID_WORK_ITEM_SIZE, UMO_E_INVAL, "CL_INVALID_WORK_ITEM_SIZE"},
    {CL_INVALID_GLOBAL_WORK_SIZE, UMO_E_INVAL, "CL_INVALID_GLOBAL_WORK_SIZE"},
    {CL_INVALID_BUFFER_SIZE, UMO_E_INVAL, "CL_INVALID_BUFFER_SIZE"},
    {CL_INVALID_VALUE, UMO_E_INVAL, "CL_INVALID_VALUE"},
};

const char *umo_opencl_code_name(cl_int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code) {
            return codes[i].name;
        }
    }
    return "OpenCL error";
}

umo_status umo_opencl_code_status(cl_int code)
{
    for (size_t i = 0; i < sizeof codes / sizeof codes[0]; i++) {
        if (codes[i].code == code) {
            return codes[i].status;
        }
    }
    return UMO_E_DEVICE;
}

umo_status umo_opencl_queue_init(umo_opencl_queue *queue, const umo_opencl_state *state,
                                 uint32_t index, umo_error *error)
{
    cl_int code = CL_SUCCESS;
    cl_command_queue native =
        state->api->clCreateCommandQueue(state->context, state->device, 0, &code);
    if (native == NULL) {
        umo_status status = umo_opencl_code_status(code);
        return umo_error_set(error, status, code, "no OpenCL command queue: %s (%d)",
                             umo_opencl_code_name(code), code);
    }
    queue->api = state->api;
    queue->native = native;
    queue->index = index;
    (void)pthread_mutex_init(&queue->lock, NULL);
    return UMO_OK;
}

static uint64_t queue_ended(const umo_opencl_queue *queue)
{
    return atomic_load_explicit(&queue->ended, memory_order_acquire);
}

static cl_event *queue_slot(umo_opencl_queue *queue, uint64_t value)
{
    return &queue->events[value % UMO_OPENCL_RING];
}

/* Lock held. Everything given until now may have built on what the failed command was to write. */
static void queue_fail(umo_opencl_queue *queue, uint64_t value)
{
    umo_opencl_failure *failures = queue->failures;
    size_t count = queue->failure_count;
    if (count > 0 && value <= failures[count - 1].last) {
        failures[count - 1].last = queue->given;
        return;
    }
    if (count == UMO_OPENCL_FAILURES) {
        failures[0].last = failures[1].last;
        for (size_t i = 1; i + 1 < count; i++) {
            failures[i] = failures[i + 1];
        }
        count--;
    }
    failures[count] = (umo_opencl_failure){.first = value, .last = queue->given};
    queue->failure_count = count + 1;
}

/* Lock held. */
static bool queue_failed(const umo_opencl_queue *queue, uint64_t value)
{
    for (size_t i = 0; i < queue->failure_count; i++) {
        if (value >= queue->failures[i].first && value <= queue->failures[i].last) {
            return true;
        }
    }
    return false;
}

/* Lock held. Takes the oldest command out of the ring. */
static void queue_drop_oldest(umo_opencl_queue *queue, uint64_t value)
{
    cl_event *slot = queue_slot(queue, value);
    (void)queue->api->clReleaseEvent(*slot);
    *slot = NULL;
    atomic_store_explicit(&queue->ended, value, memory_order_release);
}

/* Lock held. Takes ended commands out of the ring; the code is that of the query. */
static cl_int queue_retire(umo_opencl_queue *queue)
{
    for (uint64_t value = queue_ended(queue) + 1; value <= queue->given; value++) {
        cl_int execution = CL_QUEUED;
        cl_int code =
            queue->api->clGetEventInfo(*queue_slot(queue, value), CL_EVENT_COMMAND_EXECUTION_STATUS,
                                       sizeof execution, &execution, NULL);
        if (code != CL_SUCCESS) {
            return code;
        }
        if (execution > CL_COMPLETE) {
            break;
        }
        if (execution < 0) {
            queue_fail(queue, value);
        }
        queue_drop_oldest(queue, value);
    }
    return CL_SUCCESS;
}

/*
 * The runtime cannot say what became of the commands up to value. Nobody may reuse their memory
 * while they might still run, so the whole queue is waited for, and they count as failed.
 */
static umo_status queue_give_up(umo_opencl_queue *queue, uint64_t value)
{
    (void)queue->api->clFinish(queue->native);
    (void)pthread_mutex_lock(&queue->lock);
    for (uint64_t oldest = queue_ended(queue) + 1; oldest <= value; oldest++) {
        queue_fail(queue, oldest);
        queue_drop_oldest(queue, oldest);
    }
    umo_status status = queue_failed(queue, value) ? UMO_E_DEVICE : UMO_OK;
    (void)pthread_mutex_unlock(&queue->lock);
    return status;
}

void umo_opencl_queue_finish(umo_opencl_queue *queue)
{
    (void)queue_give_up(queue, queue->given);
    (void)queue->api->clReleaseCommandQueue(queue->native);
    (void)pthread_mutex_destroy(&queue->lock);
}

bool umo_opencl_queue_done(umo_opencl_queue *queue, uint64_t value)
{
    if (queue_ended(queue) >= value) {
        return true;
    }
    (void)pthread_mutex_lock(&queue->lock);
    (void)queue_retire(queue);
    bool done = queue_ended(queue) >= value;
    (void)pthread_mutex_unlock(&queue->lock);
    return done;
}

/* One look at a command: whether it ended, else its event (retained) when the caller wants to sleep
 * on it. */
typedef enum look {
    LOOK_ENDED,
    LOOK_FAILED,
    LOOK_RUNNING,
    LOOK_NEVER_GIVEN,
    LOOK_BROKEN
} look;

static look queue_look(umo_opencl_queue *queue, uint64_t value, uint64_t sleep_on, cl_event *event)
{
    look seen = LOOK_RUNNING;
    (void)pthread_mutex_lock(&queue->lock);
    if (value > queue->given) {
        seen = LOOK_NEVER_GIVEN;
    } else if (queue_ended(queue) < value && queue_retire(queue) != CL_SUCCESS) {
        seen = LOOK_BROKEN;
    } else if (queue_ended(queue) >= value) {
        seen = queue_failed(queue, value) ? LOOK_FAILED : LOOK_ENDED;
    } else if (event != NULL) {
        uint64_t oldest = queue_ended(queue) + 1;
        *event = *queue_slot(queue, sleep_on > oldest ? sleep_on : oldest);
        if (queue->api->clRetainEvent(*event) != CL_SUCCESS) {
            seen = LOOK_BROKEN;
        }
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return seen;
}

/* True when the runtime slept until the event ended, well or not. */
static bool event_sleep(const umo_opencl_queue *queue, cl_event event)
{
    cl_int code = queue->api->clWaitForEvents(1, &event);
    (void)queue->api->clReleaseEvent(event);
    return code == CL_SUCCESS || code == CL_EXEC_STATUS_ERROR_FOR_EVENTS_IN_WAIT_LIST;
}

umo_status umo_opencl_queue_wait(umo_opencl_queue *queue, uint64_t value, uint64_t timeout_ns)
{
    const bool for_ever = timeout_ns == UINT64_MAX;
    const uint64_t start_ns = umo_os_now_ns();
    uint64_t pause_ns = POLL_FIRST_NS;
    /* First the event asked for, one wake-up. Should older ones not show as ended then, those, one
     * by one. */
    uint64_t sleep_on = value;
    for (;;) {
        cl_event event = NULL;
        switch (queue_look(queue, value, sleep_on, for_ever ? &event : NULL)) {
        case LOOK_ENDED:
            return UMO_OK;
        case LOOK_FAILED:
            return UMO_E_DEVICE;
        case LOOK_NEVER_GIVEN:
            return UMO_E_INVAL;
        case LOOK_BROKEN:
            return queue_give_up(queue, value);
        case LOOK_RUNNING:
            break;
        }
        if (for_ever) {
            if (!event_sleep(queue, event)) {
                return queue_give_up(queue, value);
            }
            sleep_on = 0;
            continue;
        }
        uint64_t passed_ns = umo_os_now_ns() - start_ns;
        if (passed_ns >= timeout_ns) {
            return UMO_E_TIMEOUT;
        }
        uint64_t left_ns = timeout_ns - passed_ns;
        umo_os_sleep_ns(pause_ns < left_ns ? pause_ns : left_ns);
        pause_ns = pause_ns * 2 < POLL_LONGEST_NS ? pause_ns * 2 : POLL_LONGEST_NS;
    }
}

static void command_drop_waits(umo_opencl_command *command, const umo_opencl_api *api)
{
    for (cl_uint i = 0; i < command->wait_count; i++) {
        (void)api->clReleaseEvent(command->wait_events[i]);
    }
    command->wait_count = 0;
}

/*
 * Adds a command that has to be waited for. One of the same queue comes first anyway; it is added
 * all the same, because a failure travels along wait lists and not along the order of a queue. One
 * that is known to have failed ends here: a runtime may never wake what waits for it.
 */
static umo_status command_add_wait(umo_opencl_command *command, umo_opencl_queue *queue,
                                   uint64_t value)
{
    umo_status status = UMO_OK;
    (void)pthread_mutex_lock(&queue->lock);
    if (value > queue->given) {
        status = UMO_E_INVAL;
    } else if (queue_ended(queue) < value && queue_retire(queue) != CL_SUCCESS) {
        status = UMO_E_DEVICE;
    } else if (queue_failed(queue, value)) {
        status = UMO_E_DEVICE;
    } else if (queue_ended(queue) < value) {
        cl_event event = *queue_slot(queue, value);
        if (queue->api->clRetainEvent(event) == CL_SUCCESS) {
            command->wait_events[command->wait_count++] = event;
        } else {
            status = UMO_E_DEVICE;
        }
    }
    (void)pthread_mutex_unlock(&queue->lock);
    return status;
}

/* Takes the lock; waits, without it, while the ring is full. */
static umo_status queue_lock_with_room(umo_opencl_queue *queue)
{
    for (;;) {
        (void)pthread_mutex_lock(&queue->lock);
        uint64_t oldest = queue_ended(queue) + 1;
        if (queue->given - oldest + 1 < UMO_OPENCL_RING) {
            return UMO_OK;
        }
        (void)pthread_mutex_unlock(&queue->lock);
        /* Half the ring at once, so that a full ring costs one sleep in 128 commands and not one in
         * each. */
        umo_status status =
            umo_opencl_queue_wait(queue, oldest + UMO_OPENCL_RING / 2 - 1, UINT64_MAX);
        if (status != UMO_OK && status != UMO_E_DEVICE) {
            return status;
        }
    }
}

umo_status umo_opencl_command_begin(umo_opencl_state *state, uint32_t queue, const umo_fence *waits,
                                    size_t wait_count, umo_opencl_command *out)
{
    if (queue >= UMO_OPENCL_QUEUES || wait_count > UMO_WAITS_MAX) {
        return UMO_E_INVAL;
    }
    out->queue = &state->queues[queue];
    out->event = NULL;
    out->wait_count = 0;
    umo_status status = UMO_OK;
    for (size_t i = 0; i < wait_count && status == UMO_OK; i++) {
        if (waits[i].value == 0) {
            continue;
        }
        status = waits[i].queue < UMO_OPENCL_QUEUES
                     ? command_add_wait(out, &state->queues[waits[i].queue], waits[i].value)
                     : UMO_E_INVAL;
    }
    if (status == UMO_OK) {
        status = queue_lock_with_room(out->queue);
    }
    if (status != UMO_OK) {
        command_drop_waits(out, state->api);
        return status;
    }
    out->waits = out->wait_count > 0 ? out->wait_events : NULL;
    return UMO_OK;
}

umo_status umo_opencl_command_end(umo_opencl_command *command, cl_int code, umo_fence *out)
{
    umo_opencl_queue *queue = command->queue;
    const umo_opencl_api *api = queue->api;
    if (code == CL_SUCCESS) {
        queue->given++;
        *queue_slot(queue, queue->given) = command->event;
        out->queue = queue->index;
        out->value = queue->given;
    }
    (void)pthread_mutex_unlock(&queue->lock);
    command_drop_waits(command, api);
    if (code != CL_SUCCESS) {
        return umo_opencl_code_status(code);
    }
    /* A flush that fails leaves the command queued: whoever waits for it starts it, or hears of the
     * failure. */
    (void)api->clFlush(queue->native);
    return UMO_OK;
}

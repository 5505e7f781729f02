/*
 * The mutating thread. What it writes are values that a check lets pass and values that it must
 * not, in quick turns, so that some run checks one and uses the other.
 *
 * An answer with bytes that are nobody's is told from a right one by a mark: all memory around the
 * inputs holds it, and so does what malloc takes back or, inverted, hands out (M_PERTURB).
 */
#include "mutate.h"

#include "os/pages_test.h"

#include <umo/tensor.h>

#include <malloc.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    MARK = 0xC3,
    AROUND_PAGES = 4,
    HANG_SECONDS = 20
};

/* An input whose surroundings bear the mark, in memory that is shared as a client's. */
typedef struct marked {
    char *area;
    size_t area_bytes;
    char *data;
} marked;

typedef struct writer {
    const pack_tensor *input;
    char *data;
    uint64_t random;
    _Atomic bool stop;
} writer;

static marked mark_around(const pack_tensor *input)
{
    size_t page = pages_test_bytes();
    size_t inner = pages_test_round_up(input->data.size_bytes + 1);
    marked m = {.area_bytes = inner + 2 * AROUND_PAGES * page};
    int file = pages_test_file(m.area_bytes);
    void *area = pages_test_map(m.area_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (area == MAP_FAILED) {
        abort();
    }
    (void)close(file);
    m.area = area;
    memset(m.area, MARK, m.area_bytes);
    m.data = m.area + AROUND_PAGES * page;
    memcpy(m.data, input->data.at, input->data.size_bytes);
    return m;
}

static uint64_t next_random(writer *w)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return w->random;
}

static int64_t hostile_integer(writer *w)
{
    static const int64_t values[] = {0,         1,         -1,      2,         7,
                                     64,        -64,       1000,    -1000,     4096,
                                     INT32_MAX, INT32_MIN, 1 << 20, INT64_MAX, INT64_MIN};
    return values[next_random(w) % (sizeof values / sizeof values[0])];
}

static double hostile_number(writer *w)
{
    static const double values[] = {0.0, -0.0, 1.0, -1.0, 0.5, 1e30, -1e30, 1e9, -7.0, 100.0};
    uint64_t which = next_random(w) % 14;
    if (which < 10) {
        return values[which];
    }
    return which == 10   ? (double)NAN
           : which == 11 ? (double)INFINITY
                         : (double)(next_random(w) % 1000) - 500;
}

/* Stores one element; the engine may see half of it, as it would of a client's. */
static void store(writer *w, size_t element)
{
    char *at = w->data;
    union {
        float f;
        double d;
        int32_t i;
        int64_t l;
        unsigned char bytes[8];
    } value;
    size_t size_bytes = umo_dtype_size((umo_dtype)w->input->dtype);
    switch (w->input->dtype) {
    case UMO_FP32:
        value.f = (float)hostile_number(w);
        break;
    case UMO_FP64:
        value.d = hostile_number(w);
        break;
    case UMO_BOOL:
        value.l = (int64_t)(next_random(w) & 1);
        break;
    case UMO_INT32:
    case UMO_UINT32:
        value.i = (int32_t)hostile_integer(w);
        break;
    case UMO_INT64:
    case UMO_UINT64:
        value.l = hostile_integer(w);
        break;
    default: /* small integers and halves: any bits but the mark's */
        value.l = (int64_t)(next_random(w) & 0x3F3F3F3F3F3F3F3F);
        break;
    }
    memcpy(at + element * size_bytes, value.bytes, size_bytes);
}

/* One step: the case's own bytes, or one or all elements changed. */
static void write_step(writer *w)
{
    size_t size_bytes = w->input->data.size_bytes;
    size_t count = size_bytes / umo_dtype_size((umo_dtype)w->input->dtype);
    switch (next_random(w) % 8) {
    case 0:
    case 1:
    case 2:
        memcpy(w->data, w->input->data.at, size_bytes);
        break;
    case 3:
        for (size_t i = 0; i < count; i++) {
            store(w, i);
        }
        break;
    default:
        store(w, (size_t)(next_random(w) % count));
        break;
    }
}

static void *write_always(void *user)
{
    writer *w = user;
    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        write_step(w);
    }
    return NULL;
}

/* Whether some element is all mark. Elements of one byte may be anything. */
static bool bears_mark(const struct TRITONBACKEND_Output *output)
{
    size_t step = umo_dtype_size((umo_dtype)output->dtype);
    for (size_t at = 0; step >= 4 && at + step <= output->size_bytes; at += step) {
        unsigned char first = (unsigned char)output->received[at];
        size_t same = 1;
        while (same < step && (unsigned char)output->received[at + same] == first) {
            same++;
        }
        if (same == step && (first == MARK || first == (unsigned char)~MARK)) {
            return true;
        }
    }
    return false;
}

typedef struct seen {
    unsigned runs;
    unsigned errors;
    unsigned foreign; /* answers that bear the mark */
} seen;

static void run_once(TRITONBACKEND_ModelInstance *instance, const pack_case *at,
                     const marked *memory, seen *what)
{
    TRITONBACKEND_Request *request = fake_request_create();
    for (uint32_t i = 0; i < at->input_count; i++) {
        const pack_tensor *input = &at->inputs[i];
        TRITONBACKEND_Input *made =
            fake_input(request, input->name, input->dtype, input->rank, input->dims);
        fake_input_piece(made, memory[i].data, input->data.size_bytes);
    }
    for (uint32_t o = 0; o < at->output_count; o++) {
        fake_want_output(request, at->outputs[o], NULL, 0);
    }
    (void)fake_execute(instance, &request, 1);
    bool foreign = false;
    what->runs += 1;
    what->errors += request->text[0] != '\0';
    for (uint32_t o = 0; request->text[0] == '\0' && o < at->output_count; o++) {
        foreign = foreign || bears_mark(fake_received(request, at->outputs[o]));
    }
    what->foreign += foreign;
    fake_request_destroy(request);
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static seen mutate_input(const mutate_plan *plan, TRITONBACKEND_ModelInstance *instance,
                         const pack_case *at, const marked *memory, uint32_t which)
{
    seen what = {0};
    writer w = {.input = &at->inputs[which],
                .data = memory[which].data,
                .random = 0x9E3779B97F4A7C15u + plan->index};
    pthread_t thread;
    bool threaded = !plan->calm && pthread_create(&thread, NULL, write_always, &w) == 0;
    int64_t end = now_ms() + plan->milliseconds;
    do {
        if (plan->calm) {
            write_step(&w);
        }
        run_once(instance, at, memory, &what);
    } while (now_ms() < end);
    if (threaded) {
        atomic_store(&w.stop, true);
        (void)pthread_join(thread, NULL);
    }
    memcpy(memory[which].data, w.input->data.at, w.input->data.size_bytes);
    return what;
}

void mutate_case(const mutate_plan *plan, TRITONBACKEND_ModelInstance *instance,
                 const pack_case *at, answer *a)
{
    marked memory[PACK_TENSORS];
    (void)mallopt(M_PERTURB, MARK);
    for (uint32_t i = 0; i < at->input_count; i++) {
        memory[i] = mark_around(&at->inputs[i]);
    }
    for (uint32_t i = plan->first_input; i < at->input_count; i++) {
        const pack_tensor *input = &at->inputs[i];
        /* Strings are objects of the engine's own by then. */
        if (input->dtype == UMO_BYTES || input->data.size_bytes == 0) {
            continue;
        }
        *plan->doing = input->name;
        (void)alarm(HANG_SECONDS);
        seen what = mutate_input(plan, instance, at, memory, i);
        answer_start(a, plan->index, ANSWER_MUTATED, input->name);
        answer_number(a, what.runs);
        answer_number(a, what.errors);
        answer_number(a, what.foreign);
        (void)answer_write(a, plan->answers);
    }
    for (uint32_t i = 0; i < at->input_count; i++) {
        (void)munmap(memory[i].area, pages_test_round_up(memory[i].area_bytes));
    }
}

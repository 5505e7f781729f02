/*
 * Instances for the planner's tests: random ones, and such as are cut from a full rectangle, whose
 * optimum is its height.
 */
#ifndef UMO_PLAN_INSTANCES_TEST_H
#define UMO_PLAN_INSTANCES_TEST_H

#include <umo/plan.h>

#include <stdlib.h>

typedef struct piece_test {
    int64_t left, right, low, high;
} piece_test;

static inline uint32_t random_test(uint32_t *state, uint32_t below)
{
    *state = *state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(*state >> 4) * below) >> 28);
}

static inline void random_buffers_test(umo_plan_buffer *out, size_t count, uint32_t times,
                                       uint32_t length, uint32_t sizes, uint32_t aligns,
                                       uint32_t *state)
{
    for (size_t i = 0; i < count; i++) {
        const int64_t lower = random_test(state, times);
        out[i] = (umo_plan_buffer){lower, lower + 1 + random_test(state, length),
                                   1 + random_test(state, sizes), 1 + random_test(state, aligns)};
    }
}

/* Adds a buffer at each time at which less is in use than at others: nothing is left to waste, and
 * often there is no plan at the bound. */
static inline size_t fill_test(umo_plan_buffer *out, size_t count, uint32_t times)
{
    const size_t given = count;
    uint64_t most = 0;
    for (int turn = 0; turn < 2; turn++) {
        for (int64_t t = 0; t < (int64_t)times; t++) {
            uint64_t live = 0;
            for (size_t i = 0; i < given; i++) {
                live += out[i].lower <= t && t < out[i].upper ? out[i].size_bytes : 0;
            }
            most = live > most ? live : most;
            if (turn == 1 && live > 0 && live < most) {
                out[count++] = (umo_plan_buffer){t, t + 1, most - live, 1};
            }
        }
    }
    return count;
}

/* Cuts the largest of a few pieces again and again: straight, or as a pinwheel into five. */
static inline size_t cut_test(umo_plan_buffer *out, size_t room, int64_t width, int64_t height,
                              bool pinwheels, uint32_t *state)
{
    piece_test *pieces = calloc(room, sizeof *pieces);
    pieces[0] = (piece_test){0, width, 0, height};
    size_t count = 1;
    while (count + 4 < room) {
        size_t k = 0;
        int64_t area = 0;
        for (unsigned turn = 0; turn < 24; turn++) {
            const size_t at = random_test(state, (uint32_t)count);
            const piece_test *p = &pieces[at];
            if ((p->right - p->left) * (p->high - p->low) > area) {
                area = (p->right - p->left) * (p->high - p->low);
                k = at;
            }
        }
        const piece_test p = pieces[k];
        const int64_t w = p.right - p.left;
        const int64_t h = p.high - p.low;
        if (w < 10 || h < 10) {
            break;
        }
        const int64_t x1 = p.left + w / 5 + random_test(state, (uint32_t)(w / 5));
        const int64_t y1 = p.low + h / 5 + random_test(state, (uint32_t)(h / 5));
        const int64_t x2 = p.right - w / 5 - random_test(state, (uint32_t)(w / 5));
        const int64_t y2 = p.high - h / 5 - random_test(state, (uint32_t)(h / 5));
        if (pinwheels) {
            pieces[k] = (piece_test){p.left, x2, p.low, y1};
            pieces[count++] = (piece_test){x2, p.right, p.low, y2};
            pieces[count++] = (piece_test){x1, p.right, y2, p.high};
            pieces[count++] = (piece_test){p.left, x1, y1, p.high};
            pieces[count++] = (piece_test){x1, x2, y1, y2};
        } else if (w * height > h * width) {
            pieces[k].right = x1;
            pieces[count++] = (piece_test){x1, p.right, p.low, p.high};
        } else {
            pieces[k].high = y1;
            pieces[count++] = (piece_test){p.left, p.right, y1, p.high};
        }
    }
    for (size_t i = 0; i < count; i++) {
        /* In no order that tells where they lay. */
        const size_t j = random_test(state, (uint32_t)(i + 1));
        out[i] = out[j];
        out[j] = (umo_plan_buffer){pieces[i].left, pieces[i].right,
                                   (uint64_t)(pieces[i].high - pieces[i].low), 1};
    }
    free(pieces);
    return count;
}

#endif

/*
 * The recorder's protocol, every interleaving of it: two or three writers that meet in a ring of
 * one or two slots, and a reader. The steps are those of umo_trace_write() and
 * umo_trace_ring_get(), one shared access each. What is explored is sequentially consistent; that
 * the orderings in the code make it so is argued in docs/profiling.md, and what happens where one
 * of them is missing is explored as well: a protocol that lacks a step must be caught, or the
 * search proves nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WRITERS_MAX 3u
#define SLOTS_MAX 2u
#define WORDS 2u

typedef enum defect {
    DEFECT_NONE,
    DEFECT_NO_CLAIM,       /* a writer stores its odd number whatever stands there */
    DEFECT_NO_SECOND,      /* the reader does not look at the sequence again */
    DEFECT_NO_ORDER,       /* the first word is seen before the odd number */
    DEFECT_NO_OLD_CHECK,   /* a writer a whole ring behind takes the slot of a newer event */
    DEFECT_READER_ANY_EVEN /* the reader takes any whole event for the one it wants */
} defect;

typedef struct setting {
    uint8_t writers, events, slots;
    defect defect;
} setting;

/* Bytes alone, so that equal states compare equal. */
typedef struct state {
    uint8_t next;
    uint8_t sequence[SLOTS_MAX];
    uint8_t words[SLOTS_MAX][WORDS];
    struct {
        uint8_t step, position, seen, left;
    } writers[WRITERS_MAX];
    struct {
        uint8_t step, position, first, words[WORDS];
    } reader;
} state;

typedef struct search {
    setting set;
    state *seen; /* an open hash table */
    bool *used;
    size_t capacity;
    size_t count;
    state *stack;
    size_t depth;
    size_t depth_max;
    bool broken;
} search;

static void *must(void *memory)
{
    if (memory == NULL) {
        abort();
    }
    return memory;
}

static size_t hash_of(const state *s)
{
    const unsigned char *bytes = (const unsigned char *)s;
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < sizeof *s; i++) {
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return (size_t)(hash ^ hash >> 29);
}

/* Puts a state that was never seen on the stack. */
static void visit(search *x, const state *s)
{
    size_t at = hash_of(s) & (x->capacity - 1);
    while (x->used[at]) {
        if (memcmp(&x->seen[at], s, sizeof *s) == 0) {
            return;
        }
        at = (at + 1) & (x->capacity - 1);
    }
    x->used[at] = true;
    x->seen[at] = *s;
    x->count++;
    if (x->count * 2 > x->capacity || x->depth == x->depth_max) {
        abort(); /* the setting is too large for the table */
    }
    x->stack[x->depth++] = *s;
}

static void event_end(state *s, uint32_t w)
{
    s->writers[w].step = 0;
    s->writers[w].left--;
    s->writers[w].position = 0;
    s->writers[w].seen = 0;
}

static void claim_step(const search *x, state *s, uint32_t w)
{
    const uint8_t position = s->writers[w].position;
    uint8_t *sequence = &s->sequence[position % x->set.slots];
    if (x->set.defect == DEFECT_NO_CLAIM || *sequence == s->writers[w].seen) {
        *sequence = (uint8_t)(position * 2 + 1);
        s->writers[w].step = 3;
    } else {
        event_end(s, w);
    }
}

/* One step of a writer. */
static void writer_step(const search *x, state *s, uint32_t w)
{
    const uint8_t position = s->writers[w].position;
    const uint8_t slot = position % x->set.slots;
    switch (s->writers[w].step) {
    case 0:
        s->writers[w].position = s->next++;
        s->writers[w].step = 1;
        break;
    case 1: {
        const uint8_t seen = s->sequence[slot];
        const bool newer = seen > position * 2 && x->set.defect != DEFECT_NO_OLD_CHECK;
        s->writers[w].seen = seen;
        s->writers[w].step = 2;
        if (x->set.defect != DEFECT_NO_CLAIM && ((seen & 1) != 0 || newer)) {
            event_end(s, w);
        } else if (x->set.defect == DEFECT_NO_ORDER) {
            s->writers[w].step = 6;
        }
        break;
    }
    case 2:
        claim_step(x, s, w);
        break;
    case 3:
    case 4:
        s->words[slot][s->writers[w].step - 3] = position;
        s->writers[w].step++;
        break;
    case 5:
        s->sequence[slot] = (uint8_t)(position * 2 + 2);
        event_end(s, w);
        break;
    default: /* the first word, too early */
        s->words[slot][0] = position;
        s->writers[w].step = 2;
        break;
    }
}

static bool sequence_right(const search *x, const state *s)
{
    const uint8_t sequence = s->sequence[s->reader.position % x->set.slots];
    if (x->set.defect == DEFECT_READER_ANY_EVEN) {
        return s->reader.step == 0 ? sequence != 0 && (sequence & 1) == 0
                                   : sequence == s->reader.first;
    }
    return sequence == s->reader.position * 2 + 2;
}

/* One step of the reader; true when it believes a mixture or another event. */
static bool reader_step(const search *x, state *s)
{
    const uint8_t slot = s->reader.position % x->set.slots;
    bool wrong = false;
    bool done = false;
    switch (s->reader.step) {
    case 0:
        done = !sequence_right(x, s);
        s->reader.first = s->sequence[slot];
        break;
    case 1:
    case 2:
        s->reader.words[s->reader.step - 1] = s->words[slot][s->reader.step - 1];
        break;
    default:
        if (x->set.defect == DEFECT_NO_SECOND || sequence_right(x, s)) {
            wrong = s->reader.words[0] != s->reader.position ||
                    s->reader.words[1] != s->reader.position;
        }
        done = true;
        break;
    }
    s->reader.step++;
    if (done) {
        const uint8_t next = (uint8_t)(s->reader.position + 1);
        memset(&s->reader, 0, sizeof s->reader);
        s->reader.position = next;
    }
    return wrong;
}

/* Everything has been written: no slot is left open, and what stands in one belongs there. */
static bool end_right(const search *x, const state *s)
{
    for (uint8_t slot = 0; slot < x->set.slots; slot++) {
        const uint8_t sequence = s->sequence[slot];
        const uint8_t position = (uint8_t)(sequence / 2 - 1);
        if ((sequence & 1) != 0 ||
            (sequence != 0 && (position % x->set.slots != slot || position >= s->next ||
                               s->words[slot][0] != position || s->words[slot][1] != position))) {
            return false;
        }
    }
    return s->next == x->set.writers * x->set.events;
}

static void expand(search *x, const state *from)
{
    bool writing = false;
    for (uint32_t w = 0; w < x->set.writers; w++) {
        if (from->writers[w].left == 0) {
            continue;
        }
        writing = true;
        state to = *from;
        writer_step(x, &to, w);
        for (uint8_t slot = 0; slot < x->set.slots; slot++) {
            /* A slot never goes back to an older event. */
            x->broken = x->broken || to.sequence[slot] < from->sequence[slot];
        }
        visit(x, &to);
    }
    x->broken = x->broken || (!writing && !end_right(x, from));
    if (from->reader.position < x->set.writers * x->set.events) {
        state to = *from;
        x->broken = reader_step(x, &to) || x->broken;
        visit(x, &to);
    }
}

/* True when some interleaving breaks what is promised. */
static bool breaks(setting set, size_t *states)
{
    search x = {.set = set, .capacity = (size_t)1 << 20, .depth_max = (size_t)1 << 18};
    x.seen = must(calloc(x.capacity, sizeof(state)));
    x.used = must(calloc(x.capacity, sizeof(bool)));
    x.stack = must(calloc(x.depth_max, sizeof(state)));
    state start;
    memset(&start, 0, sizeof start);
    for (uint32_t w = 0; w < set.writers; w++) {
        start.writers[w].left = set.events;
    }
    visit(&x, &start);
    while (x.depth > 0 && !x.broken) {
        const state s = x.stack[--x.depth];
        expand(&x, &s);
    }
    *states = x.count;
    free(x.seen);
    free(x.used);
    free(x.stack);
    return x.broken;
}

static void no_interleaving_shows_a_mixture(void **state_)
{
    (void)state_;
    const setting settings[] = {
        {.writers = 2, .events = 2, .slots = 1}, {.writers = 2, .events = 3, .slots = 2},
        {.writers = 3, .events = 1, .slots = 1}, {.writers = 3, .events = 1, .slots = 2},
        {.writers = 2, .events = 4, .slots = 1},
    };
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        size_t states;
        assert_false(breaks(settings[i], &states));
        assert_true(states > 1000);
        (void)printf("%u writers, %u events each, %u slot(s): %zu states\n", settings[i].writers,
                     settings[i].events, settings[i].slots, states);
    }
}

static void every_step_of_the_protocol_is_needed(void **state_)
{
    (void)state_;
    for (int d = DEFECT_NO_CLAIM; d <= DEFECT_READER_ANY_EVEN; d++) {
        size_t states;
        const setting set = {.writers = 2, .events = 2, .slots = 1, .defect = (defect)d};
        if (!breaks(set, &states)) {
            (void)printf("defect %d was not caught in %zu states\n", d, states);
            assert_true(false);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_interleaving_shows_a_mixture),
        cmocka_unit_test(every_step_of_the_protocol_is_needed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * See search.h. All values that change are in one array, and each change is written down, so that a
 * step is undone by walking back; there is no recursion, so that a thread's stack does not matter.
 */
#include "plan/search.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

/* States that failed, and are not looked at again: 16 MB at most. */
#define MEMO_BITS_MAX 20u
#define MEMO_BITS_MIN 12u
/* Changes that can be undone: 48 MB. A path that needs more is given up. */
#define TRAIL_MAX ((size_t)4 << 20)

typedef struct change {
    int64_t old;
    uint32_t slot;
} change;

typedef struct state_key {
    uint64_t first;
    uint64_t second;
} state_key;

/* One decision: the choices of a section, and which of them is made. */
typedef struct frame {
    state_key key;
    int64_t base;
    size_t mark; /* of the trail, before the choice */
    size_t choice_first;
    uint32_t choice_count;
    uint32_t next;
    uint32_t section;
    int32_t placed; /* item; -1: the gap, or nothing yet */
    bool gap_tried;
} frame;

typedef struct section_info {
    uint32_t first;  /* of its list */
    uint32_t active; /* items not yet placed: they are the first of the list */
    int64_t rest;
    uint64_t salt;
} section_info;

/* What does not change, and is looked at often. */
typedef struct item_info {
    int64_t size;
    int64_t padded;
    int64_t align;
    uint32_t lo;
    uint32_t hi;
    uint32_t place; /* of its entries in `where` */
    uint32_t twin;  /* the first item that is equal to it */
} item_info;

struct plan_search {
    const plan_part *part;
    uint32_t items;
    uint32_t sections;
    item_info *item;
    section_info *section;
    /* floors of the sections, then the least offset of each item: the highest floor under it */
    int64_t *value;
    uint32_t *list;  /* the items over each section */
    uint32_t *where; /* of each item, in the list of each of its sections */
    bool *placed;
    uint32_t *queue; /* sections whose floor may rise */
    uint32_t queued;
    bool *in_queue;
    change *trail;
    size_t trail_used;
    size_t trail_room;
    frame *frames;
    size_t depth;
    size_t frame_room;
    uint32_t *choices;
    size_t choice_used;
    size_t choice_room;
    double *rank;   /* of each item, as a choice */
    uint64_t *salt; /* of each item, in the keys of states */
    state_key set;  /* of the items placed */
    state_key *memo;
    uint64_t memo_mask;
    uint64_t epoch; /* part of every key: one for each capacity */
    int64_t *offsets;
    int64_t capacity;
    int64_t capacity_padded; /* rounded up to the grain */
    int64_t bound_next;
    uint32_t left;
    uint64_t work;
    bool gave_up; /* this try cannot go on */
    bool nomem;   /* because memory is out */
    plan_pick pick;
};

size_t umo_plan_search_bytes(const plan_part *part)
{
    /* The memo apart. */
    const size_t an_item = sizeof(item_info) + sizeof(int64_t) * 2 + sizeof(double) + 32;
    const size_t a_section = sizeof(section_info) + sizeof(int64_t) + 8;
    return part->count * an_item + part->sections * a_section +
           part->list_entries * 2 * sizeof(uint32_t);
}

static void lists_fill(plan_search *s)
{
    uint32_t first = 0;
    for (uint32_t q = 0; q < s->sections; q++) {
        s->section[q].first = first;
        first += s->section[q].active;
        s->section[q].active = 0;
    }
    uint32_t place = 0;
    for (uint32_t i = 0; i < s->items; i++) {
        item_info *item = &s->item[i];
        item->place = place;
        for (uint32_t q = item->lo; q < item->hi; q++) {
            section_info *section = &s->section[q];
            s->list[section->first + section->active] = i;
            s->where[place++] = section->active++;
        }
    }
}

static void items_fill(plan_search *s)
{
    uint64_t random = UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t q = 0; q < s->sections; q++) {
        s->section[q].salt = plan_random(&random);
    }
    for (uint32_t i = 0; i < s->items; i++) {
        const plan_item *from = &s->part->items[i];
        s->item[i] = (item_info){.size = from->size,
                                 .padded = from->padded,
                                 .align = from->align > s->part->grain ? from->align : 1,
                                 .lo = from->lo,
                                 .hi = from->hi,
                                 .twin = i};
        s->salt[i] = plan_random(&random);
        /* Equal ones are neighbours but for their sizes. */
        for (uint32_t j = i; j-- > 0 && s->item[j].lo == from->lo && s->item[j].hi == from->hi;) {
            if (s->item[j].size == from->size && s->item[j].align == s->item[i].align) {
                s->item[i].twin = s->item[j].twin;
                break;
            }
        }
        for (uint32_t q = from->lo; q < from->hi; q++) {
            s->section[q].active++;
            s->section[q].rest += from->padded;
        }
    }
}

plan_search *umo_plan_search_create(const plan_part *part)
{
    plan_search *s = calloc(1, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    s->part = part;
    s->items = part->count;
    s->sections = part->sections;
    unsigned bits = MEMO_BITS_MIN;
    while (bits < MEMO_BITS_MAX && UINT32_C(1) << (bits - 7) < part->count) {
        bits++;
    }
    s->memo_mask = (UINT64_C(1) << bits) - 1;
    s->memo = calloc((size_t)s->memo_mask + 1, sizeof *s->memo);
    s->item = calloc(s->items, sizeof *s->item);
    s->section = calloc(s->sections, sizeof *s->section);
    s->value = calloc((size_t)s->sections + s->items, sizeof *s->value);
    s->list = calloc(part->list_entries, sizeof *s->list);
    s->where = calloc(part->list_entries, sizeof *s->where);
    s->placed = calloc(s->items, sizeof *s->placed);
    s->queue = calloc(s->sections, sizeof *s->queue);
    s->in_queue = calloc(s->sections, sizeof *s->in_queue);
    s->rank = calloc(s->items, sizeof *s->rank);
    s->salt = calloc(s->items, sizeof *s->salt);
    s->offsets = calloc(s->items, sizeof *s->offsets);
    if (s->memo == NULL || s->item == NULL || s->section == NULL || s->value == NULL ||
        s->list == NULL || s->where == NULL || s->placed == NULL || s->queue == NULL ||
        s->in_queue == NULL || s->rank == NULL || s->salt == NULL || s->offsets == NULL) {
        umo_plan_search_destroy(s);
        return NULL;
    }
    items_fill(s);
    lists_fill(s);
    s->left = s->items;
    return s;
}

void umo_plan_search_destroy(plan_search *s)
{
    if (s == NULL) {
        return;
    }
    free(s->memo);
    free(s->item);
    free(s->section);
    free(s->value);
    free(s->list);
    free(s->where);
    free(s->placed);
    free(s->queue);
    free(s->in_queue);
    free(s->trail);
    free(s->frames);
    free(s->choices);
    free(s->rank);
    free(s->salt);
    free(s->offsets);
    free(s);
}

const int64_t *umo_plan_search_offsets(const plan_search *s)
{
    return s->offsets;
}

int64_t umo_plan_search_bound_next(const plan_search *s)
{
    return s->bound_next;
}

/* ---- floors ---- */

/* A value changes. False when it could not be written down: the try ends. */
static bool set(plan_search *s, uint32_t slot, int64_t v)
{
    if (s->trail_used == s->trail_room) {
        const size_t room = s->trail_room == 0 ? 4096 : 2 * s->trail_room;
        change *grown = room > TRAIL_MAX ? NULL : realloc(s->trail, room * sizeof *grown);
        if (grown == NULL) {
            s->gave_up = true;
            s->nomem = room <= TRAIL_MAX;
            return false;
        }
        s->trail = grown;
        s->trail_room = room;
    }
    s->trail[s->trail_used++] = (change){s->value[slot], slot};
    s->value[slot] = v;
    return true;
}

static void undo(plan_search *s, size_t mark)
{
    while (s->trail_used > mark) {
        const change *c = &s->trail[--s->trail_used];
        s->value[c->slot] = c->old;
    }
}

/* This branch needs at least so much; the least of all is what no plan is below. */
static bool too_high(plan_search *s, int64_t needed)
{
    s->bound_next = needed < s->bound_next ? needed : s->bound_next;
    return false;
}

static void enqueue(plan_search *s, uint32_t q)
{
    if (!s->in_queue[q] && s->section[q].active > 0) {
        s->in_queue[q] = true;
        s->queue[s->queued++] = q;
    }
}

static void queue_drop(plan_search *s)
{
    while (s->queued > 0) {
        s->in_queue[s->queue[--s->queued]] = false;
    }
}

/* What is still to be placed over a section fits above its floor. */
static bool section_fits(plan_search *s, uint32_t q)
{
    const int64_t floor = s->value[q];
    if (floor > s->capacity_padded || s->section[q].rest > s->capacity_padded - floor) {
        return too_high(s, plan_add(floor, s->section[q].rest) - (s->part->grain - 1));
    }
    return true;
}

/* Nothing over the section lies below v. */
static bool items_lift(plan_search *s, uint32_t q, int64_t v)
{
    const section_info *section = &s->section[q];
    const uint32_t *list = s->list + section->first;
    s->work += section->active;
    for (uint32_t k = 0; k < section->active; k++) {
        const uint32_t i = list[k];
        if (s->value[s->sections + i] >= v) {
            continue;
        }
        const item_info *item = &s->item[i];
        const int64_t least = item->align == 1 ? v : plan_round_up(v, item->align);
        if (!set(s, s->sections + i, least)) {
            return false;
        }
        if (least > s->capacity - item->size) {
            return too_high(s, plan_add(least, item->size));
        }
        s->work += item->hi - item->lo;
        for (uint32_t r = item->lo; r < item->hi; r++) {
            enqueue(s, r);
        }
    }
    return true;
}

/* Floors rise to the least offset of what is over them until none does. */
static bool settle(plan_search *s)
{
    while (s->queued > 0) {
        const uint32_t q = s->queue[--s->queued];
        s->in_queue[q] = false;
        const section_info *section = &s->section[q];
        const uint32_t *list = s->list + section->first;
        const int64_t floor = s->value[q];
        int64_t least = INT64_MAX;
        uint32_t k = 0;
        while (k < section->active && least > floor) {
            const int64_t v = s->value[s->sections + list[k++]];
            least = v < least ? v : least;
        }
        s->work += k + 1;
        if (k == 0 || least <= floor) {
            continue;
        }
        if (!set(s, q, least) || !section_fits(s, q) || !items_lift(s, q, least)) {
            queue_drop(s);
            return false;
        }
    }
    return true;
}

/* ---- steps ---- */

static void item_leave(plan_search *s, uint32_t i)
{
    const item_info *item = &s->item[i];
    for (uint32_t q = item->lo; q < item->hi; q++) {
        section_info *section = &s->section[q];
        uint32_t *list = s->list + section->first;
        const uint32_t at = s->where[item->place + (q - item->lo)];
        const uint32_t last = --section->active;
        const uint32_t other = list[last];
        list[at] = other;
        s->where[s->item[other].place + (q - s->item[other].lo)] = at;
        list[last] = i;
        s->where[item->place + (q - item->lo)] = last;
        section->rest -= item->padded;
    }
}

/* The reverse, in the reverse order: each is still the first of those that have left. */
static void item_return(plan_search *s, uint32_t i)
{
    const item_info *item = &s->item[i];
    for (uint32_t q = item->lo; q < item->hi; q++) {
        s->section[q].active++;
        s->section[q].rest += item->padded;
    }
}

static bool place(plan_search *s, uint32_t i, int64_t offset)
{
    const item_info *item = &s->item[i];
    s->placed[i] = true;
    s->offsets[i] = offset;
    s->left--;
    s->set.first ^= s->salt[i];
    s->set.second += s->salt[i] * (s->salt[i] | 1);
    item_leave(s, i);
    const int64_t top =
        plan_add(offset, item->padded); /* the capacity was looked at when it was lifted */
    s->work += 2 * (uint64_t)(item->hi - item->lo);
    for (uint32_t q = item->lo; q < item->hi; q++) {
        if (!set(s, q, top)) {
            return false;
        }
    }
    for (uint32_t q = item->lo; q < item->hi; q++) {
        if (s->section[q].active == 0) {
            continue;
        }
        if (!section_fits(s, q) || !items_lift(s, q, top)) {
            queue_drop(s);
            return false;
        }
        enqueue(s, q);
    }
    return settle(s);
}

static void unplace(plan_search *s, uint32_t i, size_t mark)
{
    undo(s, mark);
    s->placed[i] = false;
    s->left++;
    s->set.first ^= s->salt[i];
    s->set.second -= s->salt[i] * (s->salt[i] | 1);
    item_return(s, i);
}

/* The least offset of an item over section q that does not lie on its floor: on top of another
 * one, not yet placed, that is not over q. */
static int64_t beyond(plan_search *s, uint32_t i, uint32_t q, int64_t base)
{
    const item_info *item = &s->item[i];
    int64_t least = INT64_MAX;
    for (uint32_t r = item->lo; r < item->hi; r++) {
        const section_info *section = &s->section[r];
        const uint32_t *list = s->list + section->first;
        s->work += section->active;
        for (uint32_t k = 0; k < section->active; k++) {
            const item_info *other = &s->item[list[k]];
            if (other->lo <= q && q < other->hi) {
                continue;
            }
            int64_t top = plan_add(s->value[s->sections + list[k]], other->padded);
            top = top > base ? top : plan_add(base, s->part->grain);
            least = top < least ? top : least;
        }
    }
    return least == INT64_MAX || item->align == 1 ? least : plan_round_up(least, item->align);
}

/* Nothing lies on the floor of the section. False if that cannot be. */
static bool gap(plan_search *s, uint32_t q, int64_t base)
{
    const section_info *section = &s->section[q];
    int64_t least = INT64_MAX;
    for (uint32_t k = 0; k < section->active && least > base; k++) {
        const uint32_t i = s->list[section->first + k];
        const int64_t own = s->value[s->sections + i];
        const int64_t v = own > base ? own : beyond(s, i, q, base);
        least = v < least ? v : least;
    }
    if (least == INT64_MAX) {
        return false;
    }
    if (!set(s, q, least) || !section_fits(s, q) || !items_lift(s, q, least)) {
        queue_drop(s);
        return false;
    }
    enqueue(s, q);
    return settle(s);
}

/* Choices of a section: the items that can lie on its floor, and the gap if there is room. */
static uint32_t choices_count(plan_search *s, uint32_t q)
{
    const section_info *section = &s->section[q];
    const int64_t floor = s->value[q];
    uint32_t count = section->rest < s->capacity_padded - floor ? 1 : 0;
    s->work += section->active;
    for (uint32_t k = 0; k < section->active; k++) {
        count += s->value[s->sections + s->list[section->first + k]] == floor ? 1 : 0;
    }
    return count;
}

/* The key of the state: what is placed, and the floors of what is not done. */
static state_key state_find(plan_search *s)
{
    uint64_t first = s->set.first ^ s->epoch;
    uint64_t second = s->set.second;
    for (uint32_t q = 0; q < s->sections; q++) {
        const section_info *section = &s->section[q];
        if (section->active > 0) {
            const uint64_t floor = (uint64_t)s->value[q];
            const uint64_t word = (floor ^ section->salt) * UINT64_C(0x9e3779b97f4a7c15);
            first ^= word ^ word >> 29;
            second += word * (section->salt | 1);
        }
    }
    s->work += s->sections / 4;
    return (state_key){.first = umo_hash_mix(first, second) | 1, /* zeros: an empty place */
                       .second = umo_hash_mix(second, s->epoch)};
}

/* A section with the lowest floor: there no item can lie below one that is put on it. */
static uint32_t lowest_pick(plan_search *s)
{
    uint32_t best = UINT32_MAX;
    uint32_t best_count = 0;
    for (uint32_t q = 0; q < s->sections; q++) {
        if (s->section[q].active == 0) {
            continue;
        }
        const int64_t floor = s->value[q];
        const int64_t best_floor = best == UINT32_MAX ? INT64_MAX : s->value[best];
        if (floor > best_floor || (floor == best_floor && s->pick == PLAN_PICK_LOWEST)) {
            continue;
        }
        const uint32_t count = s->pick == PLAN_PICK_LOWEST ? 0 : choices_count(s, q);
        if (floor < best_floor || count < best_count) {
            best = q;
            best_count = count;
        }
    }
    return best;
}

/* The same holds for any valley: sections of one floor between higher ones, or such as are done. */
static uint32_t valley_pick(plan_search *s)
{
    uint32_t best = UINT32_MAX;
    uint32_t own = UINT32_MAX; /* the fullest section of the valley, if it is one */
    bool open = true;          /* nothing lower before it */
    for (uint32_t q = 0; q <= s->sections; q++) {
        const bool wall = q == s->sections || s->section[q].active == 0;
        if (own != UINT32_MAX && (wall || s->value[q] > s->value[own])) {
            if (open && (best == UINT32_MAX || s->section[own].rest > s->section[best].rest)) {
                best = own;
            }
            open = wall;
            own = wall ? UINT32_MAX : q;
        } else if (wall) {
            open = true;
        } else if (own == UINT32_MAX || s->value[q] < s->value[own]) {
            open = true;
            own = q;
        } else if (s->section[q].rest > s->section[own].rest) {
            own = q;
        }
    }
    return best;
}

static bool choice_push(plan_search *s, frame *f, uint32_t i)
{
    if (s->choice_used == s->choice_room) {
        const size_t room = s->choice_room == 0 ? 1024 : 2 * s->choice_room;
        uint32_t *grown = realloc(s->choices, room * sizeof *grown);
        if (grown == NULL) {
            s->gave_up = true;
            s->nomem = true;
            return false;
        }
        s->choices = grown;
        s->choice_room = room;
    }
    uint32_t *choices = s->choices + f->choice_first;
    uint32_t at = f->choice_count++;
    s->choice_used++;
    for (; at > 0 && s->rank[choices[at - 1]] < s->rank[i]; at--) {
        choices[at] = choices[at - 1];
    }
    choices[at] = i;
    return true;
}

/* The items that can lie on the section's floor, of equal ones only one, the best rank first. */
static bool choices_collect(plan_search *s, frame *f)
{
    const section_info *section = &s->section[f->section];
    const uint32_t *list = s->list + section->first;
    for (uint32_t k = 0; k < section->active; k++) {
        const uint32_t i = list[k];
        if (s->value[s->sections + i] != f->base) {
            continue;
        }
        bool twin = false;
        for (uint32_t c = 0; c < f->choice_count && !twin; c++) {
            twin = s->item[s->choices[f->choice_first + c]].twin == s->item[i].twin;
        }
        if (!twin && !choice_push(s, f, i)) {
            return false;
        }
    }
    return true;
}

static bool frame_room_make(plan_search *s)
{
    if (s->depth < s->frame_room) {
        return true;
    }
    const size_t room = s->frame_room == 0 ? 256 : 2 * s->frame_room;
    frame *grown = realloc(s->frames, room * sizeof *grown);
    if (grown == NULL) {
        s->gave_up = true;
        s->nomem = true;
        return false;
    }
    s->frames = grown;
    s->frame_room = room;
    return true;
}

/* A new state: what is to be decided there. False if it is known to fail, or memory is out. */
static bool enter(plan_search *s)
{
    const state_key key = state_find(s);
    const state_key *known = &s->memo[key.second & s->memo_mask];
    if ((known->first == key.first && known->second == key.second) || !frame_room_make(s)) {
        return false;
    }
    const uint32_t q = s->pick == PLAN_PICK_VALLEY ? valley_pick(s) : lowest_pick(s);
    frame *f = &s->frames[s->depth];
    *f = (frame){.key = key,
                 .base = s->value[q],
                 .mark = s->trail_used,
                 .choice_first = s->choice_used,
                 .section = q,
                 .placed = -1};
    if (!choices_collect(s, f)) {
        s->choice_used = f->choice_first;
        return false;
    }
    s->depth++;
    return true;
}

/* Takes back what the top decision did. */
static void step_back(plan_search *s, frame *f)
{
    if (f->placed >= 0) {
        unplace(s, (uint32_t)f->placed, f->mark);
        f->placed = -1;
    } else {
        undo(s, f->mark);
    }
}

/* Makes the next choice of the top decision that does not fail at once. False if there is none. */
static bool step(plan_search *s)
{
    frame *f = &s->frames[s->depth - 1];
    step_back(s, f);
    while (f->next < f->choice_count && !s->gave_up) {
        const uint32_t i = s->choices[f->choice_first + f->next++];
        f->placed = (int32_t)i;
        if (place(s, i, f->base)) {
            return true;
        }
        step_back(s, f);
    }
    if (!f->gap_tried && !s->gave_up) {
        f->gap_tried = true;
        if (gap(s, f->section, f->base)) {
            return true;
        }
        undo(s, f->mark);
    }
    return false;
}

static void pop(plan_search *s, bool failed)
{
    frame *f = &s->frames[s->depth - 1];
    step_back(s, f);
    if (failed) {
        s->memo[f->key.second & s->memo_mask] = f->key;
    }
    s->choice_used = f->choice_first;
    s->depth--;
}

static void try_begin(plan_search *s, const plan_try *how)
{
    if (how->capacity != s->capacity || s->epoch == 0) {
        s->epoch = umo_hash_mix(s->epoch, (uint64_t)how->capacity);
        s->capacity = how->capacity;
        s->capacity_padded = plan_round_up(how->capacity, s->part->grain);
        s->bound_next = INT64_MAX;
    }
    s->pick = how->pick;
    s->gave_up = false;
    s->nomem = false;
    uint64_t random = umo_hash_mix(how->seed, UINT64_C(0x5851f42d4c957f2d)) | 1;
    for (uint32_t i = 0; i < s->items; i++) {
        const item_info *item = &s->item[i];
        const double length = (double)(item->hi - item->lo);
        const double size = (double)item->size;
        const double rank = how->key == PLAN_KEY_SIZE     ? size
                            : how->key == PLAN_KEY_LENGTH ? length
                                                          : size * length;
        const double part = (double)(plan_random(&random) >> 11) * 0x1p-53 - 0.5;
        s->rank[i] = rank * (1 + part * how->noise / 100.0);
    }
}

/* Whether the part fits at all, before anything is decided. */
static bool root_fits(plan_search *s)
{
    for (uint32_t q = 0; q < s->sections; q++) {
        if (!section_fits(s, q)) {
            return false;
        }
    }
    return true;
}

plan_outcome umo_plan_search_run(plan_search *s, const plan_try *how, plan_budget *budget)
{
    try_begin(s, how);
    if (!root_fits(s)) {
        return PLAN_EXHAUSTED;
    }
    const uint64_t until =
        how->work_max < UINT64_MAX - s->work ? s->work + how->work_max : UINT64_MAX;
    plan_outcome outcome = PLAN_STOPPED;
    uint64_t told = s->work;
    bool forward = true;
    for (;;) {
        if (forward) {
            if (s->left == 0) {
                outcome = PLAN_FOUND;
                break;
            }
            (void)enter(s); /* where it cannot, step() goes on with the decision above */
            if (!plan_spend(budget, 1, s->work - told)) {
                outcome = PLAN_OVER;
                break;
            }
            told = s->work;
        }
        if (s->gave_up || s->work >= until) {
            outcome = s->nomem ? PLAN_OVER : PLAN_STOPPED;
            break;
        }
        if (s->depth == 0) {
            outcome = PLAN_EXHAUSTED;
            break;
        }
        forward = step(s);
        if (!forward && !s->gave_up) {
            pop(s, true);
        }
    }
    /* Back to the start; the offsets stay. */
    while (s->depth > 0) {
        pop(s, false);
    }
    return outcome;
}

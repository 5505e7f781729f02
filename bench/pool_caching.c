/*
 * The opponent's decisions are PyTorch's; the data structures are faster ones than it has, so that
 * a slow map is no reason to lose: free blocks in a treap whose nodes are the blocks (for
 * std::set), live blocks in an open table with linear probing (for a flat hash map behind sharded
 * locks), block records from a list, and one lock where PyTorch takes two.
 */
#include "pool_caching.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#define ROUND_BYTES ((size_t)512)
#define SMALL_MAX_BYTES ((size_t)1 << 20)
#define SMALL_SEGMENT_BYTES ((size_t)2 << 20)
#define LARGE_SEGMENT_BYTES ((size_t)20 << 20)
#define LARGE_MAX_BYTES ((size_t)10 << 20)
#define LARGE_ROUND_BYTES ((size_t)2 << 20)

typedef struct block {
    char *data;
    size_t size_bytes;
    struct block *before; /* its neighbours in the segment */
    struct block *after;
    struct block *left; /* in the tree of free blocks; left is also the next spare record */
    struct block *right;
    uint32_t priority;
    bool small;
    bool live;
} block;

static struct {
    pthread_mutex_t lock;
    block *free_small;
    block *free_large;
    block *spare;
    block **live; /* by address; a power of two of places, at most half of them full */
    size_t live_places;
    size_t live_count;
    uint64_t reserved_bytes;
    uint32_t random;
} caching = {.lock = PTHREAD_MUTEX_INITIALIZER, .random = 2463534242u};

static void *pages(size_t size_bytes)
{
    void *got = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return got == MAP_FAILED ? NULL : got;
}

/* ---- free blocks, by size, then address ---- */

static inline bool before(const block *a, const block *b)
{
    return a->size_bytes != b->size_bytes ? a->size_bytes < b->size_bytes : a->data < b->data;
}

static void free_insert(block **root, block *added)
{
    uint32_t x = caching.random;
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    caching.random = added->priority = x;
    block **link = root;
    while (*link != NULL && (*link)->priority >= x) {
        link = before(added, *link) ? &(*link)->left : &(*link)->right;
    }
    /* What was below is split into what comes before and what comes after. */
    block *below = *link;
    block **less = &added->left;
    block **more = &added->right;
    while (below != NULL) {
        if (before(below, added)) {
            *less = below;
            less = &below->right;
            below = below->right;
        } else {
            *more = below;
            more = &below->left;
            below = below->left;
        }
    }
    *less = NULL;
    *more = NULL;
    *link = added;
}

static void free_remove(block **root, block *removed)
{
    block **link = root;
    while (*link != removed) {
        link = before(removed, *link) ? &(*link)->left : &(*link)->right;
    }
    block *left = removed->left;
    block *right = removed->right;
    while (left != NULL && right != NULL) {
        if (left->priority >= right->priority) {
            *link = left;
            link = &left->right;
            left = left->right;
        } else {
            *link = right;
            link = &right->left;
            right = right->left;
        }
    }
    *link = left != NULL ? left : right;
}

/* The smallest that is large enough, the lowest of those. */
static block *free_best(block *root, size_t size_bytes)
{
    block *best = NULL;
    while (root != NULL) {
        if (root->size_bytes >= size_bytes) {
            best = root;
            root = root->left;
        } else {
            root = root->right;
        }
    }
    return best;
}

/* ---- live blocks, by address ---- */

static inline size_t live_place(const char *data)
{
    return (size_t)((uint64_t)(uintptr_t)data * 0x9e3779b97f4a7c15u >> 24) &
           (caching.live_places - 1);
}

static void live_put(block *b)
{
    size_t i = live_place(b->data);
    while (caching.live[i] != NULL) {
        i = (i + 1) & (caching.live_places - 1);
    }
    caching.live[i] = b;
}

static bool live_insert(block *b)
{
    if (2 * (caching.live_count + 1) > caching.live_places) {
        block **old = caching.live;
        const size_t old_places = caching.live_places;
        const size_t places = old_places == 0 ? (size_t)1 << 16 : 2 * old_places;
        block **grown = pages(places * sizeof(block *));
        if (grown == NULL) {
            return false;
        }
        caching.live = grown;
        caching.live_places = places;
        for (size_t i = 0; i < old_places; i++) {
            if (old[i] != NULL) {
                live_put(old[i]);
            }
        }
        if (old != NULL) {
            (void)munmap(old, old_places * sizeof(block *));
        }
    }
    live_put(b);
    caching.live_count++;
    return true;
}

static block *live_remove(const char *data)
{
    const size_t mask = caching.live_places - 1;
    size_t i = live_place(data);
    while (caching.live[i] != NULL && caching.live[i]->data != data) {
        i = (i + 1) & mask;
    }
    block *found = caching.live[i];
    if (found == NULL) {
        return NULL;
    }
    /* The gap is closed by the next one that would rather lie here. */
    for (size_t j = (i + 1) & mask; caching.live[j] != NULL; j = (j + 1) & mask) {
        if (((j - live_place(caching.live[j]->data)) & mask) >= ((j - i) & mask)) {
            caching.live[i] = caching.live[j];
            i = j;
        }
    }
    caching.live[i] = NULL;
    caching.live_count--;
    return found;
}

/* ---- blocks ---- */

static block *record_take(void)
{
    enum {
        AT_ONCE = 1024
    };
    if (caching.spare == NULL) {
        block *fresh = pages(AT_ONCE * sizeof *fresh);
        if (fresh == NULL) {
            return NULL;
        }
        for (size_t i = 0; i < AT_ONCE; i++) {
            fresh[i].left = caching.spare;
            caching.spare = &fresh[i];
        }
    }
    block *b = caching.spare;
    caching.spare = b->left;
    return b;
}

static void record_give(block *b)
{
    b->left = caching.spare;
    caching.spare = b;
}

static block *segment_take(size_t size_bytes)
{
    size_t segment = LARGE_SEGMENT_BYTES;
    if (size_bytes <= SMALL_MAX_BYTES) {
        segment = SMALL_SEGMENT_BYTES;
    } else if (size_bytes >= LARGE_MAX_BYTES) {
        segment = (size_bytes + LARGE_ROUND_BYTES - 1) & ~(LARGE_ROUND_BYTES - 1);
    }
    block *b = record_take();
    char *data = b != NULL ? pages(segment) : NULL;
    if (data == NULL) {
        return NULL;
    }
    *b = (block){.data = data, .size_bytes = segment, .small = size_bytes <= SMALL_MAX_BYTES};
    caching.reserved_bytes += segment;
    return b;
}

/* Cuts the front off a block that is in no tree; the rest is free. */
static void block_split(block *b, size_t size_bytes, block **tree)
{
    const size_t left = b->size_bytes - size_bytes;
    block *rest = (b->small ? left >= ROUND_BYTES : left > SMALL_MAX_BYTES) ? record_take() : NULL;
    if (rest == NULL) {
        return;
    }
    *rest = (block){.data = b->data + size_bytes,
                    .size_bytes = left,
                    .before = b,
                    .after = b->after,
                    .small = b->small};
    if (b->after != NULL) {
        b->after->before = rest;
    }
    b->after = rest;
    b->size_bytes = size_bytes;
    free_insert(tree, rest);
}

/* `after` is free and behind b, which is in no tree: one block from now on. */
static void block_join(block *b, block *after)
{
    b->size_bytes += after->size_bytes;
    b->after = after->after;
    if (b->after != NULL) {
        b->after->before = b;
    }
    record_give(after);
}

void *bench_caching_take(size_t size_bytes)
{
    if (size_bytes > SIZE_MAX - LARGE_ROUND_BYTES) {
        return NULL;
    }
    const size_t rounded = size_bytes < ROUND_BYTES
                               ? ROUND_BYTES
                               : (size_bytes + ROUND_BYTES - 1) & ~(ROUND_BYTES - 1);
    void *data = NULL;
    (void)pthread_mutex_lock(&caching.lock);
    block **tree = rounded <= SMALL_MAX_BYTES ? &caching.free_small : &caching.free_large;
    block *b = free_best(*tree, rounded);
    if (b != NULL) {
        free_remove(tree, b);
    } else {
        b = segment_take(rounded);
    }
    if (b != NULL) {
        block_split(b, rounded, tree);
        if (live_insert(b)) {
            b->live = true;
            data = b->data;
        } else {
            free_insert(tree, b);
        }
    }
    (void)pthread_mutex_unlock(&caching.lock);
    return data;
}

void bench_caching_give(void *data)
{
    (void)pthread_mutex_lock(&caching.lock);
    block *b = live_remove(data);
    if (b == NULL) {
        (void)fprintf(stderr, "pool_caching: not a live block\n");
        abort();
    }
    block **tree = b->small ? &caching.free_small : &caching.free_large;
    b->live = false;
    if (b->after != NULL && !b->after->live) {
        free_remove(tree, b->after);
        block_join(b, b->after);
    }
    if (b->before != NULL && !b->before->live) {
        block *front = b->before;
        free_remove(tree, front);
        block_join(front, b);
        b = front;
    }
    free_insert(tree, b);
    (void)pthread_mutex_unlock(&caching.lock);
}

uint64_t bench_caching_reserved(void)
{
    (void)pthread_mutex_lock(&caching.lock);
    const uint64_t reserved = caching.reserved_bytes;
    (void)pthread_mutex_unlock(&caching.lock);
    return reserved;
}

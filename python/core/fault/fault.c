/*
 * For tests: loaded before everything else (LD_PRELOAD), it makes the n-th allocation fail that
 * libumo or the extension asks for, and counts the blocks of theirs that were not given back.
 *
 * Whose call it is says the return address, so that Python, NumPy and the system go on undisturbed.
 * Linux with glibc, whose allocator is called by its inner names.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* NOLINTBEGIN(bugprone-reserved-identifier): the C library gives these names. */
void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *block, size_t size);
void __libc_free(void *block);
/* NOLINTEND(bugprone-reserved-identifier) */

#define RANGES 4
#define BLOCKS 65536u

static struct {
    uintptr_t start;
    uintptr_t end;
} ranges[RANGES];
static _Atomic int range_count;
static _Atomic long countdown = -1; /* -1: nothing fails */
static _Atomic bool failed;
static _Atomic long live;
static _Atomic(void *) blocks[BLOCKS]; /* theirs, by address */

__attribute__((visibility("default"))) void fault_watch(uintptr_t start, uintptr_t end);
__attribute__((visibility("default"))) void fault_arm(long n);
__attribute__((visibility("default"))) bool fault_disarm(void);
__attribute__((visibility("default"))) long fault_live(void);

void fault_watch(uintptr_t start, uintptr_t end)
{
    ranges[range_count].start = start;
    ranges[range_count].end = end;
    range_count++;
}

/* The n-th allocation from now on fails, counted from 0. */
void fault_arm(long n)
{
    failed = false;
    countdown = n;
}

/* Whether one did. */
bool fault_disarm(void)
{
    countdown = -1;
    return failed;
}

long fault_live(void)
{
    return live;
}

static bool theirs(void *caller)
{
    for (int i = 0; i < range_count; i++) {
        if ((uintptr_t)caller >= ranges[i].start && (uintptr_t)caller < ranges[i].end) {
            return true;
        }
    }
    return false;
}

static bool fails(void)
{
    if (countdown < 0 || countdown-- != 0) {
        return false;
    }
    failed = true;
    errno = ENOMEM;
    return true;
}

static _Atomic(void *) *slot_find(void *block, void *wanted)
{
    size_t at = ((uintptr_t)block >> 4) % BLOCKS;
    for (size_t i = 0; i < 64; i++, at = (at + 1) % BLOCKS) {
        void *expected = wanted;
        if (blocks[at] == wanted &&
            atomic_compare_exchange_strong(&blocks[at], &expected, wanted == NULL ? block : NULL)) {
            return &blocks[at];
        }
    }
    return NULL;
}

static void *note(void *block)
{
    if (block != NULL && slot_find(block, NULL) != NULL) {
        live++;
    }
    return block;
}

static void forget(void *block)
{
    if (block != NULL && range_count > 0 && slot_find(block, block) != NULL) {
        live--;
    }
}

/* NOLINTBEGIN(readability-inconsistent-declaration-parameter-name): reserved ones in its header. */
__attribute__((visibility("default"))) void *malloc(size_t size)
{
    if (!theirs(__builtin_return_address(0))) {
        return __libc_malloc(size);
    }
    return fails() ? NULL : note(__libc_malloc(size));
}

__attribute__((visibility("default"))) void *calloc(size_t count, size_t size)
{
    if (!theirs(__builtin_return_address(0))) {
        return __libc_calloc(count, size);
    }
    return fails() ? NULL : note(__libc_calloc(count, size));
}

__attribute__((visibility("default"))) void *realloc(void *block, size_t size)
{
    if (!theirs(__builtin_return_address(0))) {
        forget(block);
        return __libc_realloc(block, size);
    }
    if (fails()) {
        return NULL;
    }
    forget(block);
    return note(__libc_realloc(block, size));
}

__attribute__((visibility("default"))) void free(void *block)
{
    forget(block);
    __libc_free(block);
}
/* NOLINTEND(readability-inconsistent-declaration-parameter-name) */

/* Counts and faults. */
#include "fake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

atomic_uint fake_modes;
atomic_uint_least64_t fake_compiled;
atomic_uint_least64_t fake_cached;

/* ---- counts ---- */

static uint64_t marks[FAKE_SLOTS];
static atomic_uint_least64_t fallible;
static uint64_t fallible_mark;

uint64_t fake_metal_live(const char *class_name)
{
    for (size_t i = 0; fake_classes[i] != NULL; i++) {
        if (strcmp(fake_classes[i]->name, class_name) == 0) {
            return atomic_load(&fake_classes[i]->live);
        }
    }
    return 0;
}

uint64_t fake_metal_live_total(void)
{
    uint64_t total = 0;
    for (size_t i = 0; fake_classes[i] != NULL; i++) {
        total += atomic_load(&fake_classes[i]->live);
    }
    return total;
}

void fake_metal_live_print(char *out, size_t size_bytes)
{
    size_t used = 0;
    if (size_bytes > 0) {
        out[0] = 0;
    }
    for (size_t i = 0; fake_classes[i] != NULL && used < size_bytes; i++) {
        uint64_t live = atomic_load(&fake_classes[i]->live);
        if (live > 0) {
            int length = snprintf(out + used, size_bytes - used, "%s %llu\n", fake_classes[i]->name,
                                  (unsigned long long)live);
            used += length > 0 ? (size_t)length : 0;
        }
    }
}

void fake_metal_mark(void)
{
    for (size_t i = 0; i < FAKE_SLOTS; i++) {
        marks[i] = atomic_load(&fake_message_counts[i]);
    }
    fallible_mark = atomic_load(&fallible);
}

uint64_t fake_metal_messages(void)
{
    uint64_t total = 0;
    for (size_t i = 0; i < FAKE_SLOTS; i++) {
        total += atomic_load(&fake_message_counts[i]) - marks[i];
    }
    return total;
}

uint64_t fake_metal_messages_of(const char *selector)
{
    uint32_t slot = fake_slot(sel_registerName(selector));
    return atomic_load(&fake_message_counts[slot]) - marks[slot];
}

uint64_t fake_metal_pipelines_compiled(void)
{
    return atomic_load(&fake_compiled);
}

uint64_t fake_metal_pipelines_cached(void)
{
    return atomic_load(&fake_cached);
}

uint64_t fake_metal_commands_run(void)
{
    return fake_gpu_runs();
}

/* ---- faults ---- */

typedef struct fault {
    char selector[96];
    uint32_t left; /* 0: the entry is free */
} fault;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static fault faults[16];
static uint32_t any_left;
static char failed[96];
static atomic_bool armed; /* so that a call without faults takes no lock */
static _Atomic int64_t code = 1;

static void armed_update(void)
{
    bool some = any_left > 0;
    for (size_t i = 0; i < FAKE_COUNT(faults); i++) {
        some = some || faults[i].left > 0;
    }
    atomic_store(&armed, some);
}

bool fake_fails(SEL selector)
{
    (void)atomic_fetch_add_explicit(&fallible, 1, memory_order_relaxed);
    if (!atomic_load_explicit(&armed, memory_order_relaxed)) {
        return false;
    }
    bool fails = false;
    (void)pthread_mutex_lock(&lock);
    if (any_left > 0 && --any_left == 0) {
        fails = true;
    }
    for (size_t i = 0; i < FAKE_COUNT(faults); i++) {
        if (faults[i].left > 0 && strcmp(faults[i].selector, selector) == 0 &&
            --faults[i].left == 0) {
            fails = true;
        }
    }
    if (fails) {
        (void)snprintf(failed, sizeof failed, "%s", selector);
    }
    armed_update();
    (void)pthread_mutex_unlock(&lock);
    return fails;
}

void fake_metal_fail(const char *selector, uint32_t nth)
{
    (void)pthread_mutex_lock(&lock);
    fault *free_one = NULL;
    fault *found = NULL;
    for (size_t i = 0; i < FAKE_COUNT(faults); i++) {
        if (faults[i].left == 0) {
            free_one = &faults[i];
        } else if (strcmp(faults[i].selector, selector) == 0) {
            found = &faults[i];
        }
    }
    if (found == NULL) {
        found = free_one;
    }
    if (found == NULL) {
        (void)fprintf(stderr, "fake metal: too many selectors are to fail\n");
        abort();
    }
    (void)snprintf(found->selector, sizeof found->selector, "%s", selector);
    found->left = nth;
    armed_update();
    (void)pthread_mutex_unlock(&lock);
}

void fake_metal_fail_nth(uint32_t nth)
{
    (void)pthread_mutex_lock(&lock);
    any_left = nth;
    armed_update();
    (void)pthread_mutex_unlock(&lock);
}

uint64_t fake_metal_fallible_count(void)
{
    return atomic_load(&fallible) - fallible_mark;
}

const char *fake_metal_failed(void)
{
    return failed;
}

void fake_metal_fail_code(int64_t value)
{
    atomic_store(&code, value);
}

int64_t fake_fail_code(void)
{
    return atomic_load(&code);
}

void fake_faults_clear(void)
{
    (void)pthread_mutex_lock(&lock);
    memset(faults, 0, sizeof faults);
    any_left = 0;
    failed[0] = 0;
    armed_update();
    (void)pthread_mutex_unlock(&lock);
    atomic_store(&code, 1);
    atomic_store(&fake_modes, 0);
    atomic_store(&fake_compiled, 0);
    atomic_store(&fake_cached, 0);
}

void fake_metal_set_modes(uint32_t modes)
{
    atomic_store(&fake_modes, modes);
    fake_gpu_nudge(); /* a lost device ends what waits */
}

uint32_t fake_metal_purge(void)
{
    return fake_buffers_purge() + fake_heaps_purge();
}

uint32_t fake_metal_run_late(void)
{
    return fake_late_run(0, true);
}

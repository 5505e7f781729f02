/*
 * Assumptions about Metal's own answers, asked without the driver. The first four ask for what the
 * driver refuses by itself: Metal may say no, or end the process, above all with its validation on.
 */
#include "checks.h"

#include "plain.h"

#include "os/os.h"
#include "os/pages_test.h"

#include <string.h>

static void *map(size_t size_bytes, int protection)
{
    void *data = pages_test_map(size_bytes, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        die("the system maps no memory");
    }
    return data;
}

static void on_released(umo_metal_block *block, void *pointer, umo_uint length)
{
    (void)block;
    (void)pointer;
    (void)length;
}

static umo_id wrap(plain *m, void *data, size_t size_bytes)
{
    umo_metal_block block = umo_metal_deallocator_block(m->api, on_released, NULL);
    return UMO_METAL_SEND(m->api, new_buffer_no_copy, m->device, data, size_bytes,
                          UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED, &block);
}

/* Asks Metal to wrap what it should not, and says what came of it. */
static verdict refused(void *data, size_t size_bytes)
{
    plain m;
    plain_open(&m, false);
    question_begin();
    umo_id buffer = wrap(&m, data, size_bytes);
    question_end();
    if (buffer == NULL) {
        say("Metal says no");
    } else {
        say("Metal takes it: length %llu, contents %s",
            (unsigned long long)UMO_METAL_SEND0(m.api, buffer_length, buffer),
            UMO_METAL_SEND0(m.api, buffer_contents, buffer) == data ? "at the address given"
                                                                    : "somewhere else");
    }
    UMO_METAL_SEND0(m.api, release, buffer);
    plain_close(&m);
    return buffer == NULL ? VERDICT_HOLDS : VERDICT_STRICTER;
}

verdict check_read_only(probe *p)
{
    const size_t page = umo_os_page_bytes();
    (void)p;
    return refused(map(page, PROT_READ), page);
}

verdict check_two_mappings(probe *p)
{
    const size_t page = umo_os_page_bytes();
    unsigned char *pages = map(2 * page, PROT_READ | PROT_WRITE);
    (void)p;
    /* The second page becomes memory of another object. */
    if (mmap(pages + page, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1,
             0) == MAP_FAILED) {
        die("the system maps no memory");
    }
    memset(pages, 1, 2 * page);
    return refused(pages, 2 * page);
}

verdict check_off_page(probe *p)
{
    const size_t page = umo_os_page_bytes();
    unsigned char *pages = map(2 * page, PROT_READ | PROT_WRITE);
    (void)p;
    memset(pages, 1, 2 * page);
    return refused(pages + page / 4, page);
}

verdict check_no_bytes(probe *p)
{
    plain m;
    (void)p;
    plain_open(&m, false);
    question_begin();
    umo_id buffer =
        UMO_METAL_SEND(m.api, new_buffer, m.device, 0, UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED);
    question_end();
    say("%s", buffer == NULL ? "Metal says no" : "Metal makes one");
    UMO_METAL_SEND0(m.api, release, buffer);
    plain_close(&m);
    return buffer == NULL ? VERDICT_HOLDS : VERDICT_STRICTER;
}

verdict check_contents(probe *p)
{
    const size_t page = umo_os_page_bytes();
    bool right = true;
    plain m;
    (void)p;
    plain_open(&m, false);
    for (size_t pages = 1; pages <= 1024; pages *= 4) {
        void *data = map(pages * page, PROT_READ | PROT_WRITE);
        umo_id buffer = wrap(&m, data, pages * page);
        right = right && buffer != NULL &&
                UMO_METAL_SEND0(m.api, buffer_contents, buffer) == data &&
                UMO_METAL_SEND0(m.api, buffer_length, buffer) == pages * page;
        UMO_METAL_SEND0(m.api, release, buffer);
        (void)munmap(data, pages * page);
    }
    plain_close(&m);
    return right ? VERDICT_HOLDS : VERDICT_FAILS;
}

/* Whether buffers of this size lie in the heap at what the device says; out: what it says. */
static bool heap_lies_right(plain *m, umo_id heap, size_t size_bytes, umo_mtl_size_and_align *out)
{
    enum {
        TAKEN = 4
    };
    const umo_metal_api *api = m->api;
    const umo_uint options = UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED;
    umo_id taken[TAKEN] = {NULL};
    bool right = true;
    *out = UMO_METAL_SEND(api, heap_size, m->device, size_bytes, options);
    if (out->align == 0 || (out->align & (out->align - 1)) != 0 || out->size < size_bytes) {
        return false;
    }
    for (int i = 0; i < TAKEN; i++) {
        taken[i] = UMO_METAL_SEND(api, heap_buffer, heap, size_bytes, options);
        const void *at = taken[i] != NULL ? UMO_METAL_SEND0(api, buffer_contents, taken[i]) : NULL;
        right = right && at != NULL && (uintptr_t)at % out->align == 0;
    }
    for (int i = 0; i < TAKEN; i++) {
        UMO_METAL_SEND0(api, release, taken[i]);
    }
    return right;
}

verdict check_heap_align(probe *p)
{
    static const size_t sizes[] = {1, 3, 16, 255, 257, 4096, 5000, 65536};
    bool right = true;
    plain m;
    (void)p;
    plain_open(&m, false);
    const umo_metal_api *api = m.api;
    umo_id descriptor = UMO_METAL_SEND0(api, new_object, api->classes.heap_descriptor);
    UMO_METAL_SEND(api, heap_describe_size, descriptor, (umo_uint)4 << 20);
    UMO_METAL_SEND(api, heap_describe_storage, descriptor, UMO_MTL_HEAP_SHARED);
    UMO_METAL_SEND(api, heap_describe_hazards, descriptor, UMO_MTL_HEAP_UNTRACKED);
    umo_id heap = UMO_METAL_SEND(api, new_heap, m.device, descriptor);
    UMO_METAL_SEND0(api, release, descriptor);
    if (heap == NULL) {
        die("Metal gives no shared heap: umo then gives each small buffer pages of its own");
    }
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        umo_mtl_size_and_align told;
        bool lies = heap_lies_right(&m, heap, sizes[i], &told);
        say("%zu bytes: takes %llu at multiples of %llu%s", sizes[i], (unsigned long long)told.size,
            (unsigned long long)told.align, lies ? "" : ", and lies NOT there");
        right = right && lies;
    }
    UMO_METAL_SEND0(api, release, heap);
    plain_close(&m);
    return right ? VERDICT_HOLDS : VERDICT_FAILS;
}

verdict check_handler_after_event(probe *p)
{
    enum {
        TIMES = 1000
    };
    unsigned early = 0;
    plain m;
    (void)p;
    plain_open(&m, true);
    umo_id event = UMO_METAL_SEND0(m.api, new_event, m.device);
    umo_id buffer = UMO_METAL_SEND(m.api, new_buffer, m.device, umo_os_page_bytes(),
                                   UMO_MTL_STORAGE_SHARED | UMO_MTL_UNTRACKED);
    if (event == NULL || buffer == NULL) {
        die("Metal gives no event or no buffer");
    }
    for (uint32_t i = 1; i <= TIMES; i++) {
        early += plain_launch(&m, buffer, i, event, i) < i;
    }
    say("%u handlers, %u ran before the event had its value", (unsigned)TIMES, early);
    UMO_METAL_SEND0(m.api, release, buffer);
    UMO_METAL_SEND0(m.api, release, event);
    plain_close(&m);
    return early == 0 ? VERDICT_HOLDS : VERDICT_FAILS;
}

/*
 * What tests of own views share: a registry over the host's driver, files in memory and their
 * mappings, and the way of a request from an address to a view.
 */
#ifndef UMO_MEM_VIEW_RIG_TEST_H
#define UMO_MEM_VIEW_RIG_TEST_H

#include "driver/wrapper_test.h"

#include "base/scope.h"
#include "os/os.h"
#include "os/pages_test.h"

#include <umo/region.h>

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

typedef struct rig {
    umo_device *device;
    umo_scope *scope;
    umo_registry *registry;
    size_t page;
} rig;

static inline rig rig_open(const umo_registry_options *options)
{
    rig r = {.page = pages_test_bytes()};
    r.device = wrapper_device(NULL, NULL);
    assert_non_null(r.device);
    assert_int_equal(umo_scope_create(NULL, "view", 0, &r.scope, NULL), UMO_OK);
    assert_int_equal(umo_registry_create(options, r.scope, &r.registry, NULL), UMO_OK);
    return r;
}

static inline umo_registry_stats stats(const rig *r)
{
    umo_registry_stats s;
    umo_registry_read(r->registry, &s);
    return s;
}

static inline void rig_close(rig *r)
{
    umo_registry_destroy(r->registry);
    umo_counters c;
    umo_scope_read(r->scope, &c);
    assert_int_equal(c.live_buffers, 0);
    umo_scope_destroy(r->scope);
    umo_device_release(r->device);
    assert_int_equal(wrapper_calls.live, 0);
}

/* Fills the pages of a file with a byte that counts up from first. */
static inline int file_fill(int file, size_t pages, unsigned char first)
{
    size_t page = pages_test_bytes();
    assert_true(file >= 0);
    unsigned char *bytes = mmap(NULL, pages * page, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    assert_true(bytes != MAP_FAILED);
    for (size_t i = 0; i < pages; i++) {
        memset(bytes + i * page, first + (int)i, page);
    }
    assert_int_equal(munmap(bytes, pages * page), 0);
    return file;
}

/* A file in memory without a name, filled. */
static inline int file_make(size_t pages, unsigned char first)
{
    return file_fill(pages_test_file(pages * pages_test_bytes()), pages, first);
}

static inline unsigned char *file_map(int file, size_t pages, size_t first_page, void *at)
{
    size_t page = pages_test_bytes();
    const int protection = PROT_READ | PROT_WRITE;
    const off_t offset = (off_t)(first_page * page);
    unsigned char *bytes =
        at != NULL ? mmap(at, pages * page, protection, MAP_SHARED | MAP_FIXED, file, offset)
                   : pages_test_map(pages * page, protection, MAP_SHARED, file, offset);
    assert_true(bytes != MAP_FAILED);
    return bytes;
}

static inline umo_status find(const rig *r, void *data, size_t size_bytes, unsigned char **own,
                              umo_view **view)
{
    umo_mapping mapping;
    void *address = NULL;
    assert_int_equal(umo_mapping_query(data, &mapping), UMO_OK);
    *view = NULL;
    umo_status status =
        umo_view_find(r->registry, data, size_bytes, &mapping, &address, view, NULL);
    *own = address;
    return status;
}

static inline unsigned char *found(const rig *r, void *data, size_t size_bytes, umo_view **view)
{
    unsigned char *own;
    assert_int_equal(find(r, data, size_bytes, &own, view), UMO_OK);
    assert_ptr_not_equal(own, data);
    return own;
}

#endif

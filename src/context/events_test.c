/*
 * The flight recorder over the whole library: every kind of event appears for the operation that
 * causes it, with the right figures, and the table's sums are the scope's own counters. Moves to
 * another node need two: mem/numa_test.c and numa_test.c ask for those.
 */
#include "base/scope.h"
#include "trace/csv_test.h"

#include <umo/dlpack.h>
#include <umo/pressure.h>
#include <umo/stream.h>
#include <umo/umo.h>

#include <setjmp.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define BYTES ((size_t)65536)

typedef struct rig {
    umo_scope *root;
    umo_scope *scope;
    umo_device *device;
} rig;

static char table_path[] = "/tmp/umo-events-XXXXXX";

static void rig_open(rig *r, uint64_t limit_bytes)
{
    const umo_driver_options late = {.delay_ns = 100000};
    assert_int_equal(umo_profile_start(NULL, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(NULL, "all", limit_bytes, &r->root, NULL), UMO_OK);
    assert_int_equal(umo_scope_create(r->root, "model, \"A\"", 0, &r->scope, NULL), UMO_OK);
    assert_int_equal(umo_device_open("host", 0, &late, &r->device, NULL), UMO_OK);
}

static void rig_close(rig *r)
{
    umo_device_release(r->device);
    umo_scope_destroy(r->scope);
    umo_scope_destroy(r->root);
}

static csv table(void)
{
    assert_int_equal(umo_profile_enable(false), UMO_OK);
    assert_int_equal(umo_profile_dump(table_path, NULL), UMO_OK);
    return csv_open(table_path);
}

/* What a row is expected to say; NULL and 0 are not looked at. */
typedef struct row {
    const char *kind;
    const char *side, *use, *mode, *mode_before, *direction, *status;
    uint64_t size_bytes, offset_bytes;
    bool fence, timed;
} row;

static bool row_is(const csv *c, const row *want)
{
    const struct {
        const char *column, *text;
    } texts[] = {
        {"kind", want->kind},          {"side", want->side},     {"use", want->use},
        {"mode", want->mode},          {"status", want->status}, {"mode_before", want->mode_before},
        {"direction", want->direction}};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (texts[i].text != NULL && strcmp(csv_text(c, texts[i].column), texts[i].text) != 0) {
            return false;
        }
    }
    return (want->size_bytes == 0 || csv_number(c, "size_bytes") == want->size_bytes) &&
           (want->offset_bytes == 0 || csv_number(c, "offset_bytes") == want->offset_bytes) &&
           (!want->fence || csv_number(c, "fence") != 0) &&
           (!want->timed || csv_number(c, "duration_ns") != 0);
}

/* Ends the recording. The rows appear in this order, others between them. */
static void rows_expect(const row *rows, size_t count)
{
    csv c = table();
    for (size_t i = 0; i < count; i++) {
        bool found = false;
        while (!found && csv_next(&c)) {
            found = row_is(&c, &rows[i]);
        }
        if (!found) {
            (void)printf("no row %zu: %s\n", i, rows[i].kind);
            assert_true(false);
        }
    }
    csv_close(&c);
}

#define EXPECT(...)                                                                                \
    do {                                                                                           \
        const row rows_[] = {__VA_ARGS__};                                                         \
        rows_expect(rows_, sizeof rows_ / sizeof rows_[0]);                                        \
    } while (0)

static void use(umo_buffer *buffer, size_t offset, size_t size, umo_side side, umo_use how)
{
    const umo_access access = {
        .offset_bytes = offset, .size_bytes = size, .side = side, .use = how};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_fence_set_wait(&waits, UINT64_MAX), UMO_OK);
    assert_int_equal(umo_access_end(buffer, &access, (umo_fence){0}), UMO_OK);
}

static void brackets_and_transfers_are_recorded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 0);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, BYTES, UMO_PRIVATE, &buffer, NULL),
                     UMO_OK);
    use(buffer, 4096, 8192, UMO_SIDE_HOST, UMO_WRITE);
    use(buffer, 4096, 8192, UMO_SIDE_DEVICE, UMO_READ);
    const umo_access access = {.size_bytes = 100, .side = UMO_SIDE_HOST, .use = UMO_READ_WRITE};
    umo_fence_set waits;
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_OK);
    assert_int_equal(umo_access_begin(buffer, &access, &waits), UMO_E_BUSY);
    assert_int_equal(umo_access_abort(buffer, &access, (umo_fence){0}), UMO_OK);
    char bytes[64] = "x";
    umo_fence done;
    assert_int_equal(umo_buffer_upload(buffer, 64, bytes, sizeof bytes, 1, &done), UMO_OK);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
    assert_int_equal(umo_buffer_download(buffer, 64, bytes, sizeof bytes, 1, &done), UMO_OK);
    assert_int_equal(umo_fence_wait(done, UINT64_MAX), UMO_OK);
    umo_buffer_release(buffer);
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, BYTES, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    use(buffer, 0, BYTES, UMO_SIDE_DEVICE, UMO_WRITE);
    use(buffer, 0, BYTES, UMO_SIDE_HOST, UMO_READ);
    umo_buffer_release(buffer);
    EXPECT({.kind = "alloc", .mode = "private", .size_bytes = BYTES},
           {.kind = "alloc", .side = "host", .size_bytes = BYTES},
           {.kind = "access_begin",
            .side = "host",
            .use = "write",
            .mode = "private",
            .status = "OK",
            .offset_bytes = 4096,
            .size_bytes = 8192},
           {.kind = "access_end", .side = "host", .use = "write", .size_bytes = 8192},
           {.kind = "transfer_performed",
            .side = "device",
            .direction = "in",
            .offset_bytes = 4096,
            .size_bytes = 8192},
           {.kind = "access_begin", .side = "device", .use = "read", .size_bytes = 8192},
           {.kind = "access_begin", .use = "read_write", .status = "OK"},
           {.kind = "access_begin", .use = "read_write", .status = "BUSY"},
           {.kind = "access_abort", .size_bytes = 100},
           {.kind = "transfer_performed", .direction = "in", .size_bytes = 64, .fence = true},
           {.kind = "access_end", .fence = true},
           {.kind = "transfer_performed", .direction = "out", .side = "host", .size_bytes = 64},
           {.kind = "free", .size_bytes = 2 * BYTES}, {.kind = "alloc", .mode = "unified"},
           {.kind = "transfer_eliminated", .side = "host", .direction = "out", .size_bytes = BYTES},
           {.kind = "free", .mode = "unified", .size_bytes = BYTES});
    rig_close(&r);
}

static void imports_are_recorded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 0);
    static char memory[BYTES];
    umo_registry *registry = NULL;
    assert_int_equal(umo_registry_create(NULL, r.root, &registry, NULL), UMO_OK);
    umo_region *region = NULL;
    assert_int_equal(umo_region_register(registry, memory, sizeof memory, true, &region, NULL),
                     UMO_OK);
    umo_buffer *buffer = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umo_registry_wrap(registry, r.device, r.scope, memory + 64, 128, true,
                                           &buffer, NULL, NULL),
                         UMO_OK);
        umo_buffer_release(buffer);
    }
    umo_region_release(region);
    umo_registry_destroy(registry);
    const umo_import import = {.data = memory, .size_bytes = 77};
    assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL), UMO_OK);
    umo_buffer_release(buffer);
    EXPECT({.kind = "import", .size_bytes = 128}, {.kind = "import_hit", .size_bytes = 128},
           {.kind = "release", .size_bytes = 128}, {.kind = "import", .size_bytes = 77},
           {.kind = "release", .size_bytes = 77});
    rig_close(&r);
}

static void moves_pins_prefetches_and_exports_are_recorded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 0);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, BYTES, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    use(buffer, 0, BYTES, UMO_SIDE_HOST, UMO_WRITE);
    assert_int_equal(umo_buffer_move(buffer, UMO_PRIVATE, 0, NULL), UMO_OK);
    assert_int_equal(umo_buffer_prefetch(buffer, 4096, 4096, UMO_SIDE_HOST, NULL), UMO_OK);
    assert_int_equal(umo_buffer_pin(buffer, NULL), UMO_OK);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_OK);
    assert_int_equal(umo_buffer_unpin(buffer), UMO_E_INVAL);
    const umo_shape shape = {.rank = 1, .dims = {16}};
    umo_tensor tensor;
    assert_int_equal(umo_tensor_init_buffer(&tensor, buffer, 0, 64, UMO_FP32, &shape, NULL),
                     UMO_OK);
    umo_dl_managed_versioned *managed = NULL;
    assert_int_equal(umo_tensor_to_dlpack(&tensor, NULL, &managed, NULL), UMO_OK);
    managed->deleter(managed);
    umo_buffer_release(buffer);
    EXPECT({.kind = "alloc", .size_bytes = BYTES},
           {.kind = "alloc", .side = "device", .size_bytes = BYTES},
           {.kind = "transfer_performed", .direction = "in", .size_bytes = BYTES},
           {.kind = "free", .side = "host", .size_bytes = BYTES},
           {.kind = "move",
            .mode = "private",
            .mode_before = "unified",
            .size_bytes = BYTES,
            .status = "OK",
            .timed = true},
           {.kind = "transfer_performed",
            .direction = "out",
            .offset_bytes = 4096,
            .size_bytes = 4096},
           {.kind = "prefetch",
            .side = "host",
            .offset_bytes = 4096,
            .size_bytes = 4096,
            .timed = true},
           {.kind = "pin", .size_bytes = BYTES, .status = "OK"}, {.kind = "unpin", .status = "OK"},
           {.kind = "unpin", .status = "INVAL"},
           {.kind = "export_begin", .side = "host", .use = "read_write"},
           {.kind = "export_end", .side = "host", .size_bytes = BYTES}, {.kind = "free"});
    rig_close(&r);
}

static void pools_are_recorded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 0);
    const umo_pool_options options = {.device = r.device, .scope = r.scope, .mode = UMO_UNIFIED};
    umo_pool *pool = NULL;
    assert_int_equal(umo_pool_create(&options, &pool, NULL), UMO_OK);
    umo_buffer *buffer = NULL;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(umo_pool_alloc(pool, 5000, 1, &buffer, NULL), UMO_OK);
        assert_int_equal(umo_pool_free(pool, buffer), UMO_OK);
    }
    void *memory = NULL;
    assert_int_equal(umo_pool_take(pool, 777, 1, &memory), UMO_OK);
    assert_int_equal(umo_pool_give(pool, memory), UMO_OK);
    umo_pool_trim(pool, 0);
    umo_pool_destroy(pool);
    EXPECT({.kind = "pool_miss", .size_bytes = 5000}, {.kind = "pool_give", .size_bytes = 5000},
           {.kind = "pool_hit", .size_bytes = 5000}, {.kind = "pool_give"},
           {.kind = "pool_trim", .timed = true});
    rig_close(&r);
}

static void pressure_is_recorded(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 10 * BYTES);
    const umo_pressure_options options = {.manual = true,
                                          .sources_off = ~(1u << UMO_PRESSURE_BUDGET)};
    umo_pressure *pressure = NULL;
    assert_int_equal(umo_pressure_create(&options, r.root, &pressure, NULL), UMO_OK);
    umo_buffer *buffer = NULL;
    assert_int_equal(umo_buffer_alloc(r.device, r.scope, 9 * BYTES, UMO_UNIFIED, &buffer, NULL),
                     UMO_OK);
    assert_int_not_equal(umo_pressure_poke(pressure), UMO_PRESSURE_NORMAL);
    umo_buffer_release(buffer);
    umo_pressure_destroy(pressure);
    csv c = table();
    unsigned levels = 0;
    unsigned answers = 0;
    while (csv_next(&c)) {
        levels += strcmp(csv_text(&c, "kind"), "pressure_level") == 0;
        answers += strcmp(csv_text(&c, "kind"), "pressure_answer") == 0;
    }
    csv_close(&c);
    assert_true(levels > 0);
    assert_true(answers > 0);
    rig_close(&r);
}

/* ---- sums ---- */

typedef struct sums {
    umo_tally performed[2], eliminated[2], copied[2], avoided[2], allocated, imported, hits, moves;
    uint64_t freed;
} sums;

static void tally(umo_tally *to, const csv *c)
{
    to->events += csv_number(c, "events");
    to->bytes += csv_number(c, "size_bytes");
}

static sums sums_read(void)
{
    sums s = {0};
    csv c = table();
    while (csv_next(&c)) {
        const char *kind = csv_text(&c, "kind");
        const int way = strcmp(csv_text(&c, "direction"), "out") == 0 ? 1 : 0;
        if (strcmp(kind, "lost") == 0) {
            assert_int_equal(csv_number(&c, "events"), 0);
        } else if (strcmp(kind, "transfer_performed") == 0) {
            tally(&s.performed[way], &c);
        } else if (strcmp(kind, "transfer_eliminated") == 0) {
            tally(&s.eliminated[way], &c);
        } else if (strcmp(kind, "copy") == 0) {
            tally(&s.copied[way], &c);
        } else if (strcmp(kind, "copy_avoided") == 0) {
            tally(&s.avoided[way], &c);
        } else if (strcmp(kind, "alloc") == 0) {
            tally(&s.allocated, &c);
        } else if (strcmp(kind, "import") == 0) {
            tally(&s.imported, &c);
        } else if (strcmp(kind, "move") == 0 && strcmp(csv_text(&c, "status"), "OK") == 0 &&
                   strcmp(csv_text(&c, "mode"), csv_text(&c, "mode_before")) != 0) {
            tally(&s.moves, &c);
        } else if (strcmp(kind, "free") == 0) {
            s.freed += csv_number(&c, "size_bytes");
        }
        assert_true(strcmp(csv_text(&c, "scope_name"), "model, \"A\"") == 0 ||
                    csv_number(&c, "scope") == 0);
    }
    csv_close(&c);
    return s;
}

static void tally_equal(umo_tally a, umo_tally b)
{
    assert_int_equal(a.events, b.events);
    assert_int_equal(a.bytes, b.bytes);
}

static void the_sums_are_the_scopes_counters(void **state)
{
    (void)state;
    rig r;
    rig_open(&r, 0);
    static char memory[4096];
    unsigned seed = 7;
    umo_buffer *kept = NULL;
    for (int i = 0; i < 300; i++) {
        umo_buffer *buffer = NULL;
        seed = seed * 1103515245u + 12345u;
        const size_t size = 1 + (seed >> 16) % 4096;
        const umo_storage_mode mode = (umo_storage_mode)((seed >> 8) % 3);
        const umo_import import = {.data = memory, .size_bytes = size, .writable = true};
        if (i % 3 == 0) {
            assert_int_equal(umo_buffer_import(r.device, r.scope, &import, &buffer, NULL, NULL),
                             UMO_OK);
        } else if (i % 3 == 1) {
            assert_int_equal(umo_buffer_alloc(r.device, r.scope, size, mode, &buffer, NULL),
                             UMO_OK);
        } else {
            assert_int_equal(umo_buffer_alloc_movable(r.device, r.scope, size, mode, &buffer, NULL),
                             UMO_OK);
        }
        use(buffer, 0, size, UMO_SIDE_HOST, UMO_WRITE);
        use(buffer, 0, size, UMO_SIDE_DEVICE, UMO_READ_WRITE);
        if (i % 3 == 2) {
            assert_int_equal(umo_buffer_move(buffer, (umo_storage_mode)((seed >> 10) % 3), 0, NULL),
                             UMO_OK);
        }
        use(buffer, size / 2, size - size / 2, UMO_SIDE_HOST, UMO_READ);
        umo_scope_count_copy(r.scope, (umo_direction)(i % 2), UMO_REASON_SCATTERED, size);
        umo_scope_count_copy_avoided(r.scope, (umo_direction)(i % 2), size);
        if (i == 250) {
            kept = buffer;
        } else {
            umo_buffer_release(buffer);
        }
    }
    umo_counters c;
    umo_scope_read(r.root, &c);
    const sums s = sums_read();
    for (int d = 0; d < 2; d++) {
        umo_tally copied = {0};
        for (int reason = 0; reason < UMO_REASON_COUNT; reason++) {
            copied.events += c.copy_performed[d][reason].events;
            copied.bytes += c.copy_performed[d][reason].bytes;
        }
        tally_equal(s.performed[d], c.transfer_performed[d]);
        tally_equal(s.eliminated[d], c.transfer_eliminated[d]);
        tally_equal(s.copied[d], copied);
        tally_equal(s.avoided[d], c.copy_avoided[d]);
        assert_true(s.performed[d].events > 0 && s.eliminated[d].events > 0);
    }
    tally_equal(s.allocated, c.allocated);
    tally_equal(s.imported, c.imported);
    tally_equal(s.moves, c.moves);
    assert_true(s.moves.events > 0);
    assert_int_equal(s.allocated.bytes - s.freed, c.live_bytes);
    umo_buffer_release(kept);
    rig_close(&r);
}

int main(void)
{
    int file = mkstemp(table_path);
    if (file < 0) {
        return 1;
    }
    (void)close(file);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brackets_and_transfers_are_recorded),
        cmocka_unit_test(imports_are_recorded),
        cmocka_unit_test(moves_pins_prefetches_and_exports_are_recorded),
        cmocka_unit_test(pools_are_recorded),
        cmocka_unit_test(pressure_is_recorded),
        cmocka_unit_test(the_sums_are_the_scopes_counters),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)unlink(table_path);
    return failed;
}

/*
 * The topology against hwloc, which reads the same files by other code: on machines that are
 * written down (linux_numa_machines_test.h), on this one, and broken in many ways.
 */
#include "os/linux_numa_machines_test.h"
#include "os/numa.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <hwloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define NODE_ONLINE "sys/devices/system/node/online"
#define COUNT(array) (sizeof(array) / sizeof *(array))

#define NAME_BYTES 256

static char top[NAME_BYTES];

/* ---- what the reader calls, with failures on demand (redirected when it is linked) ---- */

static unsigned allocations;
static unsigned fail_at; /* the allocation that fails; 0: none */
static void (*opened)(void);

void *__real_malloc(size_t size);
void *__real_realloc(void *old, size_t size);
DIR *__real_opendir(const char *path);
void *__wrap_malloc(size_t size);
void *__wrap_realloc(void *old, size_t size);
DIR *__wrap_opendir(const char *path);

static bool fails(void)
{
    if (++allocations == fail_at) {
        errno = ENOMEM;
        return true;
    }
    return false;
}

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

DIR *__wrap_opendir(const char *path)
{
    void (*call)(void) = opened;
    opened = NULL;
    if (call != NULL) {
        call();
    }
    return fails() ? NULL : __real_opendir(path);
}

/* ---- a machine in a folder ---- */

static const char *at(const char *name)
{
    static char path[4][2 * NAME_BYTES];
    static unsigned turn;
    char *out = path[turn++ % 4];
    (void)snprintf(out, sizeof path[0], "%s/%s", top, name);
    return out;
}

static void folders_make(const char *path)
{
    char part[2 * NAME_BYTES];
    (void)snprintf(part, sizeof part, "%s", path);
    for (char *slash = strchr(part + strlen(top) + 1, '/'); slash != NULL;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(part, 0755);
        *slash = '/';
    }
}

static void put_bytes(const char *name, const void *bytes, size_t length)
{
    const char *path = at(name);
    folders_make(path);
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
}

static void put(const char *name, const char *text)
{
    put_bytes(name, text, strlen(text));
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)kind;
    (void)walk;
    return remove(path);
}

static void remove_all(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static void bits_put(const char *name, hwloc_const_bitmap_t set)
{
    char bits[64];
    (void)snprintf(bits, sizeof bits, "%08lx\n", hwloc_bitmap_to_ulong(set));
    put(name, bits);
}

/* Bits for a list of processors, and a folder for each that is on: hwloc reads these. */
static void hwloc_add(const char *name, const char *list)
{
    char digits[NAME_BYTES];
    (void)snprintf(digits, sizeof digits, "%.*s", (int)strcspn(list, " \n"), list);
    hwloc_bitmap_t set = hwloc_bitmap_alloc();
    hwloc_bitmap_t one = hwloc_bitmap_alloc();
    assert_true(set != NULL && one != NULL);
    assert_true(digits[0] == '\0' || hwloc_bitmap_list_sscanf(set, digits) == 0);
    const char *end = strstr(name, "cpulist");
    if (end != NULL) {
        char map[NAME_BYTES + 8];
        (void)snprintf(map, sizeof map, "%.*scpumap", (int)(end - name), name);
        bits_put(map, set);
    }
    static const char *const files[] = {"core_cpus", "package_cpus"};
    for (int i = hwloc_bitmap_first(set); end == NULL && i >= 0; i = hwloc_bitmap_next(set, i)) {
        hwloc_bitmap_only(one, (unsigned)i);
        for (size_t k = 0; k < COUNT(files); k++) {
            char file[NAME_BYTES];
            (void)snprintf(file, sizeof file, "sys/devices/system/cpu/cpu%d/topology/%s", i,
                           files[k]);
            bits_put(file, one);
        }
    }
    hwloc_bitmap_free(set);
    hwloc_bitmap_free(one);
}

static void line_write(const char *line, size_t length)
{
    char name[NAME_BYTES];
    char text[4 * NAME_BYTES];
    const char *colon = memchr(line, ':', length);
    size_t name_length = colon != NULL ? (size_t)(colon - line) : length;
    (void)snprintf(name, sizeof name, "%.*s", (int)name_length, line);
    if (colon == NULL) {
        folders_make(at(name));
        return;
    }
    size_t have = 0;
    for (const char *c = colon + 2; c < line + length; c++) {
        char is = *c;
        if (is == '\\') {
            c++;
            is = *c == 'n' ? '\n' : '\t';
        }
        text[have++] = is;
    }
    text[have] = '\0';
    put(name, text);
    if (strstr(name, "cpulist") != NULL || strstr(name, "cpu/online") != NULL) {
        hwloc_add(name, text);
    }
}

static void machine_write(const char *name)
{
    for (size_t i = 0; i < COUNT(machines); i++) {
        if (strcmp(machines[i].name, name) != 0) {
            continue;
        }
        remove_all(top);
        assert_int_equal(mkdir(top, 0755), 0);
        for (const char *line = machines[i].text; *line != '\0';) {
            const char *end = strchr(line, '\n');
            line_write(line, (size_t)(end - line));
            line = end + 1;
        }
        return;
    }
    fail_msg("no machine %s", name);
}

static int setup(void **state)
{
    (void)state;
    const char *folder = getenv("TMPDIR");
    (void)snprintf(top, sizeof top, "%s/umo-numa-XXXXXX", folder != NULL ? folder : "/tmp");
    return mkdtemp(top) != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    remove_all(top);
    return 0;
}

static umo_numa_topology read_good(void)
{
    umo_numa_topology topology;
    umo_error error = {.text = ""};
    umo_status status = umo_numa_topology_read_at(top, &topology, NULL, &error);
    if (status != UMO_OK) {
        fail_msg("%s", error.text);
    }
    return topology;
}

/* Says no, and names the file. */
static void read_bad(const char *file, umo_status wanted)
{
    umo_numa_topology topology;
    memset(&topology, 0x5a, sizeof topology);
    umo_numa_topology before = topology;
    umo_error error = {.text = ""};
    assert_int_equal(umo_numa_topology_read_at(top, &topology, NULL, &error), wanted);
    assert_int_equal(error.status, wanted);
    if (strstr(error.text, file) == NULL) {
        fail_msg("no '%s' in '%s'", file, error.text);
    }
    assert_memory_equal(&topology, &before, sizeof topology);
}

/* ---- against hwloc ---- */

static void same_figure(hwloc_topology_t oracle, hwloc_obj_t object, hwloc_memattr_id_t id,
                        uint32_t ours)
{
    if (ours == 0) {
        return;
    }
    struct hwloc_location from = {.type = HWLOC_LOCATION_TYPE_CPUSET,
                                  .location.cpuset = object->cpuset};
    hwloc_uint64_t theirs = 0;
    assert_int_equal(hwloc_memattr_get_value(oracle, id, object, &from, 0, &theirs), 0);
    assert_int_equal(ours, theirs);
}

static void same_distances(hwloc_topology_t oracle, const umo_numa_topology *topology)
{
    struct hwloc_distances_s *distances = NULL;
    unsigned count = 1;
    assert_int_equal(hwloc_distances_get_by_name(oracle, "NUMALatency", &count, &distances, 0), 0);
    assert_int_equal(count, topology->count > 1 ? 1 : 0);
    for (unsigned i = 0; count > 0 && i < distances->nbobjs; i++) {
        for (unsigned j = 0; j < distances->nbobjs; j++) {
            int from = umo_numa_index(topology, (int32_t)distances->objs[i]->os_index);
            int to = umo_numa_index(topology, (int32_t)distances->objs[j]->os_index);
            assert_true(from >= 0 && to >= 0);
            assert_int_equal(topology->distances[from][to],
                             distances->values[i * distances->nbobjs + j]);
        }
    }
    if (count > 0) {
        hwloc_distances_release(oracle, distances);
    }
}

static void same_node(hwloc_topology_t oracle, const umo_numa_topology *topology,
                      const umo_numa_node *node)
{
    hwloc_obj_t object = hwloc_get_numanode_obj_by_os_index(oracle, (unsigned)node->id);
    assert_non_null(object);
    assert_int_equal(node->memory_bytes, object->attr->numanode.local_memory);
    int initiator = umo_numa_index(topology, node->initiator);
    if (node->processors > 0) {
        assert_int_equal(node->processors, hwloc_bitmap_weight(object->cpuset));
        assert_int_equal(node->initiator, node->id);
    } else if (initiator >= 0) { /* hwloc gives such a node the processors next to it */
        hwloc_obj_t near = hwloc_get_numanode_obj_by_os_index(oracle, (unsigned)node->initiator);
        assert_true(hwloc_bitmap_isincluded(near->cpuset, object->cpuset));
    }
    same_figure(oracle, object, HWLOC_MEMATTR_ID_READ_LATENCY, node->read_latency_ns);
    same_figure(oracle, object, HWLOC_MEMATTR_ID_WRITE_LATENCY, node->write_latency_ns);
    same_figure(oracle, object, HWLOC_MEMATTR_ID_READ_BANDWIDTH, node->read_mb_s);
    same_figure(oracle, object, HWLOC_MEMATTR_ID_WRITE_BANDWIDTH, node->write_mb_s);
}

static void same_as_hwloc(const umo_numa_topology *topology, const char *root)
{
    hwloc_topology_t oracle;
    assert_int_equal(setenv("HWLOC_FSROOT", root, 1), 0);
    assert_int_equal(setenv("HWLOC_COMPONENTS", "linux,stop", 1), 0);
    assert_int_equal(hwloc_topology_init(&oracle), 0);
    assert_int_equal(hwloc_topology_set_flags(oracle, HWLOC_TOPOLOGY_FLAG_INCLUDE_DISALLOWED), 0);
    assert_int_equal(hwloc_topology_load(oracle), 0);
    int theirs = hwloc_get_nbobjs_by_type(oracle, HWLOC_OBJ_NUMANODE);
    assert_int_equal(topology->count, theirs);
    for (uint32_t i = 0; i < topology->count; i++) {
        same_node(oracle, topology, &topology->nodes[i]);
    }
    same_distances(oracle, topology);
    hwloc_topology_destroy(oracle);
}

static void every_machine_is_read_as_hwloc_reads_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(machines); i++) {
        machine_write(machines[i].name);
        umo_numa_topology topology = read_good();
        same_as_hwloc(&topology, top);
    }
}

static void this_machine_is_read_as_hwloc_reads_it(void **state)
{
    (void)state;
    umo_numa_topology topology;
    bool told;
    assert_int_equal(umo_numa_topology_read_at("", &topology, &told, NULL), UMO_OK);
    if (!told) {
        print_message("skipped: this kernel tells nothing of nodes\n");
        skip();
    }
    same_as_hwloc(&topology, "/");
    print_message("%u nodes\n", (unsigned)topology.count);
    for (uint32_t i = 0; i < topology.count; i++) {
        const umo_numa_node *node = &topology.nodes[i];
        print_message("node %d: %u processors, %llu MiB, initiator %d, read %u ns %u MB/s\n",
                      (int)node->id, (unsigned)node->processors,
                      (unsigned long long)(node->memory_bytes >> 20), (int)node->initiator,
                      (unsigned)node->read_latency_ns, (unsigned)node->read_mb_s);
    }
}

/* ---- what hwloc does not say ---- */

static void numbers_with_holes_keep_their_distances(void **state)
{
    (void)state;
    machine_write("holes");
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.count, 3);
    assert_int_equal(topology.nodes[2].id, 5);
    assert_int_equal(topology.nodes[2].processors, 2);
    assert_int_equal(umo_numa_index(&topology, 5), 2);
    assert_int_equal(umo_numa_index(&topology, 1), -1);
    assert_int_equal(umo_numa_index(&topology, -1), -1);
    assert_int_equal(topology.distances[1][2], 23);
    assert_int_equal(topology.distances[0][0], UMO_NUMA_DISTANCE_LOCAL);
}

static void a_cpuset_is_seen(void **state)
{
    (void)state;
    machine_write("no memory");
    umo_numa_topology topology = read_good();
    assert_false(topology.nodes[0].allowed);
    assert_false(topology.nodes[1].allowed);
    assert_int_equal(topology.nodes[1].memory_bytes, 0);
    assert_true(topology.nodes[2].allowed);
    /* A kernel without cpusets has no such line, a sandbox may have no such file. */
    put("proc/self/status", "Name:\tx\nState:\tR\n");
    topology = read_good();
    assert_true(topology.nodes[0].allowed && topology.nodes[1].allowed);
    assert_int_equal(remove(at("proc/self/status")), 0);
    topology = read_good();
    assert_true(topology.nodes[0].allowed && topology.nodes[2].allowed);
}

static void memory_without_processors_belongs_to_the_nearest_that_have_some(void **state)
{
    (void)state;
    machine_write("memory only");
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.nodes[2].initiator, 0);
    assert_int_equal(topology.nodes[3].initiator, 1);
    assert_int_equal(topology.nodes[2].read_latency_ns, 0);
    /* Firmware's word goes before the distances. */
    put(NODE "node2/access0/initiators/node1/x", "");
    put(NODE "node2/access0/initiators/read_latency", "150\n");
    topology = read_good();
    assert_int_equal(topology.nodes[2].initiator, 1);
    assert_int_equal(topology.nodes[2].read_latency_ns, 150);
    /* No distances, no figures: the first that has processors. */
    remove_all(at(NODE "node2/access0"));
    assert_int_equal(remove(at(NODE "node2/distance")), 0);
    topology = read_good();
    assert_int_equal(topology.nodes[2].initiator, 0);
    assert_int_equal(topology.distances[2][0], 0);
    assert_int_equal(topology.distances[2][2], UMO_NUMA_DISTANCE_LOCAL);
}

static void devices_are_no_initiators(void **state)
{
    (void)state;
    machine_write("hmat");
    /* The figures of class 0 are the device's own then; class 1 has the processors'. */
    put(NODE "node2/access0/initiators/node2/x", "");
    remove_all(at(NODE "node2/access0/initiators/node1"));
    put(NODE "node2/access1/initiators/node0/x", "");
    put(NODE "node2/access1/initiators/node1/x", "");
    put(NODE "node2/access1/initiators/read_latency", "400\n");
    put(NODE "node2/access1/initiators/write_bandwidth", "90\n");
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.nodes[2].initiator, 0); /* at 21, the other at 41 */
    assert_int_equal(topology.nodes[2].read_latency_ns, 400);
    assert_int_equal(topology.nodes[2].write_mb_s, 90);
    assert_int_equal(topology.nodes[2].read_mb_s, 0);
    /* Only the device's own: nothing is told of the processors'. */
    remove_all(at(NODE "node2/access1"));
    topology = read_good();
    assert_int_equal(topology.nodes[2].initiator, 0);
    assert_int_equal(topology.nodes[2].read_latency_ns, 0);
}

static void figures_that_are_another_nodes_are_not_taken(void **state)
{
    (void)state;
    machine_write("hmat");
    put(NODE "node0/access0/initiators/node1/x", "");
    remove_all(at(NODE "node0/access0/initiators/node0"));
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.nodes[0].initiator, 0);
    assert_int_equal(topology.nodes[0].read_latency_ns, 0);
    assert_int_equal(topology.nodes[1].read_latency_ns, 5);
}

static void nobody_who_could_ask_is_no_initiator(void **state)
{
    (void)state;
    machine_write("memory only");
    put(NODE "node0/cpulist", "\n");
    put(NODE "node1/cpulist", "");
    umo_numa_topology topology = read_good();
    for (uint32_t i = 0; i < topology.count; i++) {
        assert_int_equal(topology.nodes[i].processors, 0);
        assert_int_equal(topology.nodes[i].initiator, UMO_NUMA_ANY);
    }
}

static void a_system_that_says_nothing_has_one_node(void **state)
{
    (void)state;
    remove_all(top);
    umo_numa_topology topology;
    bool told = true;
    assert_int_equal(umo_numa_topology_read_at(top, &topology, &told, NULL), UMO_OK);
    assert_false(told);
    assert_int_equal(topology.count, 1);
    assert_int_equal(topology.nodes[0].id, 0);
    assert_int_equal(topology.nodes[0].initiator, 0);
    assert_true(topology.nodes[0].allowed);
    assert_int_equal(topology.nodes[0].processors, umo_os_processors());
    assert_int_equal(topology.nodes[0].memory_bytes, umo_os_memory_bytes());
    assert_int_equal(topology.distances[0][0], UMO_NUMA_DISTANCE_LOCAL);
}

static void more_nodes_than_are_kept_are_left_out(void **state)
{
    (void)state;
    enum {
        MANY = 100
    };
    machine_write("one node");
    put(NODE_ONLINE, "0-98,1023\n");
    char row[MANY * 3 + 1];
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(row + i * 3, 4, "%s", i == 1 ? "11 " : "10 ");
    }
    for (int i = 0; i < MANY; i++) {
        char name[128];
        int id = i < MANY - 1 ? i : 1023;
        (void)snprintf(name, sizeof name, NODE "node%d/meminfo", id);
        put(name, "Node 0 MemTotal: 4 kB\n");
        (void)snprintf(name, sizeof name, NODE "node%d/cpulist", id);
        put(name, "\n");
        (void)snprintf(name, sizeof name, NODE "node%d/distance", id);
        put(name, row);
    }
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.count, UMO_NUMA_NODES_MAX);
    assert_int_equal(topology.nodes[63].id, 63);
    assert_int_equal(topology.distances[63][1], 11);
    assert_int_equal(umo_numa_index(&topology, 64), -1);
}

/* ---- nonsense ---- */

static void what_makes_no_sense_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        const char *text;
    } rows[] = {
        {NODE_ONLINE, ""},
        {NODE_ONLINE, "\n"},
        {NODE_ONLINE, "0-"},
        {NODE_ONLINE, "1-0\n"},
        {NODE_ONLINE, "0,0\n"},
        {NODE_ONLINE, "1,0\n"},
        {NODE_ONLINE, "0-1,\n"},
        {NODE_ONLINE, ",0\n"},
        {NODE_ONLINE, "0 1\n"},
        {NODE_ONLINE, " 0\n"},
        {NODE_ONLINE, "-1\n"},
        {NODE_ONLINE, "0x1\n"},
        {NODE_ONLINE, "0-1024\n"},
        {NODE_ONLINE, "0-4294967295\n"},
        {NODE_ONLINE, "99999999999999999999999999\n"},
        {NODE_ONLINE, "7\n"}, /* whose folder is not there */
        {NODE "node1/meminfo", ""},
        {NODE "node1/meminfo", "Node 1 MemFree: 12 kB\n"},
        {NODE "node1/meminfo", "Node 1 MemTotal:\n"},
        {NODE "node1/meminfo", "Node 1 MemTotal: 12"},
        {NODE "node1/meminfo", "Node 1 MemTotal: 12 MB\n"},
        {NODE "node1/meminfo", "Node 1 MemTotal: -12 kB\n"},
        {NODE "node1/meminfo", "Node 1 MemTotal: 18014398509481984 kB\n"}, /* 2^64 bytes */
        {NODE "node1/cpulist", "0-1048576\n"},
        {NODE "node1/cpulist", "all\n"},
        {NODE "node1/distance", ""},
        {NODE "node1/distance", "10\n"},
        {NODE "node1/distance", "10 20 30\n"},
        {NODE "node1/distance", "10 256\n"},
        {NODE "node1/distance", "10 2x\n"},
        {NODE "node1/distance", "10,20\n"},
        {NODE "node0/access0/initiators/read_latency", "\n"},
        {NODE "node0/access0/initiators/read_latency", "4294967296\n"},
        {NODE "node0/access0/initiators/write_latency", "1.5\n"},
        {NODE "node0/access0/initiators/read_bandwidth", "-1\n"},
        {NODE "node0/access0/initiators/write_bandwidth", "many\n"},
        {"proc/self/status", "Name:\tx\nMems_allowed_list:\tall\n"},
        {"proc/self/status", "Name:\tx\nMems_allowed_list:\t5-1\n"},
    };
    for (size_t i = 0; i < COUNT(rows); i++) {
        machine_write("two nodes");
        put(NODE "node0/access0/initiators/node0/x", "");
        put(rows[i].file, rows[i].text);
        read_bad(rows[i].file, UMO_E_SYSTEM);
    }
    machine_write("two nodes");
    assert_int_equal(remove(at(NODE "node1/cpulist")), 0);
    read_bad("node1/cpulist", UMO_E_SYSTEM);
}

static void the_greatest_figures_fit(void **state)
{
    (void)state;
    machine_write("two nodes");
    put(NODE "node1/meminfo", "Node 1 MemTotal: 18014398509481983 kB\n");
    put(NODE "node1/distance", "255 10\n");
    put(NODE "node0/access0/initiators/node0/x", "");
    put(NODE "node0/access0/initiators/read_latency", "4294967295");
    umo_numa_topology topology = read_good();
    assert_int_equal(topology.nodes[1].memory_bytes, UINT64_MAX - 1023);
    assert_int_equal(topology.distances[1][0], 255);
    assert_int_equal(topology.nodes[0].read_latency_ns, UINT32_MAX);
}

static void what_is_no_text_is_named(void **state)
{
    (void)state;
    machine_write("two nodes");
    put_bytes(NODE_ONLINE, "0\0001\n", 4);
    read_bad(NODE_ONLINE, UMO_E_SYSTEM);
    assert_int_equal(remove(at(NODE_ONLINE)), 0);
    assert_int_equal(mkdir(at(NODE_ONLINE), 0755), 0);
    read_bad(NODE_ONLINE, UMO_E_SYSTEM);
    /* An endless file is not read to its end. */
    machine_write("two nodes");
    assert_int_equal(remove(at("proc/self/status")), 0);
    assert_int_equal(symlink("/dev/zero", at("proc/self/status")), 0);
    read_bad("proc/self/status", UMO_E_SYSTEM);
}

static void files_in_short_supply_are_an_error_and_not_one_node(void **state)
{
    (void)state;
    machine_write("two nodes");
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    struct rlimit none = {0, before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    umo_numa_topology topology;
    umo_error error;
    umo_status status = umo_numa_topology_read_at(top, &topology, NULL, &error);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(status, UMO_E_SYSTEM);
    assert_int_equal(error.native, EMFILE);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    machine_write("hmat");
    char groups[64 << 10]; /* so that a text must grow */
    int head = snprintf(groups, sizeof groups, "Name:\tx\nGroups:\t");
    memset(groups + head, '7', sizeof groups - (size_t)head);
    static const char tail[] = "\nMems_allowed_list:\t0-2\n";
    memcpy(groups + sizeof groups - (sizeof tail - 1), tail, sizeof tail - 1);
    put_bytes("proc/self/status", groups, sizeof groups);
    allocations = 0;
    (void)read_good();
    unsigned all = allocations;
    assert_true(all > 20);
    unsigned good = 0;
    for (fail_at = 1; fail_at <= all; fail_at++) {
        allocations = 0;
        umo_numa_topology topology;
        umo_error error;
        umo_status status = umo_numa_topology_read_at(top, &topology, NULL, &error);
        good += status == UMO_OK ? 1 : 0;
        assert_true(status == UMO_OK || status == UMO_E_NOMEM);
        assert_true(status == UMO_OK || error.status == UMO_E_NOMEM);
    }
    fail_at = 0;
    assert_int_equal(good, 1); /* the look at whether anything has changed meanwhile */
    (void)read_good();
}

static void plug_out(void)
{
    put(NODE_ONLINE, "0\n");
    put(NODE "node0/distance", "10\n");
    remove_all(at(NODE "node1"));
}

static void plug_in(void)
{
    remove_all(top);
    machine_write("eight");
}

static void nodes_that_come_and_go_meanwhile_are_read_again(void **state)
{
    (void)state;
    machine_write("two nodes");
    opened = plug_out;
    umo_numa_topology topology = read_good();
    assert_null(opened);
    assert_int_equal(topology.count, 1);
    opened = plug_in;
    topology = read_good();
    assert_int_equal(topology.count, 8);
    assert_int_equal(topology.distances[0][7], 33);
}

static void a_long_root_is_refused(void **state)
{
    (void)state;
    char root[1100];
    memset(root, 'x', sizeof root - 1);
    root[sizeof root - 1] = '\0';
    umo_numa_topology topology;
    umo_error error;
    assert_int_equal(umo_numa_topology_read_at(root, &topology, NULL, &error), UMO_E_INVAL);
}

/* ---- broken at random ---- */

static uint32_t random_state = 12345;

static uint32_t random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return random_state % limit;
}

static char *files[256];
static size_t file_count;

static int file_note(const char *path, const struct stat *status, int kind, struct FTW *walk)
{
    (void)status;
    (void)walk;
    if (kind == FTW_F && file_count < COUNT(files) && strstr(path, "/cpu/") == NULL &&
        strstr(path, "cpumap") == NULL) {
        files[file_count++] = strdup(path + strlen(top) + 1);
    }
    return 0;
}

/* Changes one file a little or much; bytes has room for four times what is there. */
static size_t bytes_break(unsigned char *bytes, size_t length)
{
    static const char *const odd[] = {
        "18446744073709551616", "-1", "4294967296", "0-1023", "0", "", "\n", "10 10 10", "\xff\xfe",
        "00000000000000000001"};
    size_t place = length > 0 ? random_below((uint32_t)length) : 0;
    switch (random_below(5)) {
    case 0:
        return place;
    case 1:
        bytes[place] = (unsigned char)random_below(256);
        return length > 0 ? length : 1;
    case 2:
        bytes[place] ^= (unsigned char)(1U << random_below(8));
        return length > 0 ? length : 1;
    case 3:
        memmove(bytes + length, bytes + place, length - place);
        return length + (length - place);
    default: {
        const char *text = odd[random_below(COUNT(odd))];
        memcpy(bytes + place, text, strlen(text));
        return place + strlen(text);
    }
    }
}

static void must_hold(const umo_numa_topology *topology)
{
    assert_in_range(topology->count, 1, UMO_NUMA_NODES_MAX);
    for (uint32_t i = 0; i < topology->count; i++) {
        const umo_numa_node *node = &topology->nodes[i];
        assert_in_range(node->id, 0, UMO_NUMA_IDS - 1);
        assert_true(i == 0 || node->id > topology->nodes[i - 1].id);
        assert_int_equal(umo_numa_index(topology, node->id), i);
        assert_int_equal(node->memory_bytes % 1024, 0);
        int initiator = umo_numa_index(topology, node->initiator);
        if (node->processors > 0) {
            assert_int_equal(initiator, i);
        } else if (node->initiator != UMO_NUMA_ANY) {
            assert_true(initiator >= 0 && topology->nodes[initiator].processors > 0);
        }
        if (node->initiator == UMO_NUMA_ANY) {
            assert_int_equal(node->read_latency_ns, 0);
        }
    }
}

static void broken_files_are_named_or_read_and_never_believed_blindly(void **state)
{
    (void)state;
    unsigned refused = 0;
    for (size_t m = 0; m < COUNT(machines); m++) {
        machine_write(machines[m].name);
        file_count = 0;
        assert_int_equal(nftw(top, file_note, 16, FTW_PHYS), 0);
        for (unsigned turn = 0; turn < 150; turn++) {
            unsigned char bytes[4096 + 64];
            const char *name = files[random_below((uint32_t)file_count)];
            FILE *file = fopen(at(name), "re");
            assert_non_null(file);
            size_t length = fread(bytes, 1, 1024, file);
            (void)fclose(file);
            unsigned char whole[1024];
            memcpy(whole, bytes, length);
            put_bytes(name, bytes, bytes_break(bytes, length));
            umo_numa_topology topology;
            umo_error error = {.text = ""};
            umo_status status = umo_numa_topology_read_at(top, &topology, NULL, &error);
            if (status == UMO_OK) {
                must_hold(&topology);
            } else {
                assert_int_equal(status, UMO_E_SYSTEM);
                assert_true(strstr(error.text, name) != NULL ||
                            strstr(error.text, "/distance") != NULL ||
                            strstr(error.text, "/online") != NULL);
                refused++;
            }
            put_bytes(name, whole, length);
        }
        for (size_t i = 0; i < file_count; i++) {
            free(files[i]);
        }
    }
    assert_true(refused > 100);
}

/* PATTERN: of the tests' names, all by default. */
int main(int argc, char **argv)
{
    cmocka_set_test_filter(argc > 1 ? argv[1] : NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_machine_is_read_as_hwloc_reads_it),
        cmocka_unit_test(this_machine_is_read_as_hwloc_reads_it),
        cmocka_unit_test(numbers_with_holes_keep_their_distances),
        cmocka_unit_test(a_cpuset_is_seen),
        cmocka_unit_test(memory_without_processors_belongs_to_the_nearest_that_have_some),
        cmocka_unit_test(devices_are_no_initiators),
        cmocka_unit_test(figures_that_are_another_nodes_are_not_taken),
        cmocka_unit_test(nobody_who_could_ask_is_no_initiator),
        cmocka_unit_test(a_system_that_says_nothing_has_one_node),
        cmocka_unit_test(more_nodes_than_are_kept_are_left_out),
        cmocka_unit_test(what_makes_no_sense_is_named),
        cmocka_unit_test(the_greatest_figures_fit),
        cmocka_unit_test(what_is_no_text_is_named),
        cmocka_unit_test(files_in_short_supply_are_an_error_and_not_one_node),
        cmocka_unit_test(every_allocation_may_fail),
        cmocka_unit_test(nodes_that_come_and_go_meanwhile_are_read_again),
        cmocka_unit_test(a_long_root_is_refused),
        cmocka_unit_test(broken_files_are_named_or_read_and_never_believed_blindly),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}

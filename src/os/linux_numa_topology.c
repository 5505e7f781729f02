/*
 * The nodes as Linux tells them: /sys/devices/system/node, and /proc/self/status for what a cpuset
 * leaves. The kernel writes these files in one strict form, so what differs from it is reported and
 * never interpreted. Memory that is plugged in or out meanwhile changes the list of nodes, and then
 * all of it is read again.
 */
#include "os/numa.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NODES "sys/devices/system/node"
#define STATUS "proc/self/status"

enum {
    PROCESSORS = 1 << 20,      /* more than any kernel is built for (CONFIG_NR_CPUS) */
    TEXT_BYTES_MAX = 16 << 20, /* /proc/self/status lists up to 65,536 groups */
    TRIES = 4
};

typedef struct reader {
    const char *root;
    umo_error *error;
    char path[1024]; /* of what was read last */
} reader;

typedef struct node_set {
    bool has[UMO_NUMA_IDS];
} node_set;

/* ---- files ---- */

static umo_status nonsense(const reader *r, const char *why)
{
    return umo_error_set(r->error, UMO_E_SYSTEM, 0, "%s makes no sense: %s", r->path, why);
}

static umo_status failed(const reader *r, int cause)
{
    if (cause == ENOMEM) {
        return umo_error_set(r->error, UMO_E_NOMEM, 0, "no memory to read %s", r->path);
    }
    return umo_error_set(r->error, UMO_E_SYSTEM, cause, "%s cannot be read: %s", r->path,
                         strerror(cause));
}

/* Not there, gone meanwhile, or not for us to see: the system says nothing. */
static bool says_nothing(int cause)
{
    return cause == ENOENT || cause == ENOTDIR || cause == ENODEV || cause == EACCES ||
           cause == EPERM;
}

static bool path_set(reader *r, const char *name)
{
    return umo_os_written(r->path, sizeof r->path,
                          snprintf(r->path, sizeof r->path, "%s/%s", r->root, name));
}

/* All of an open file; NULL with errno. */
static char *text_of(int file, size_t *out_bytes)
{
    size_t room = 4096;
    size_t have = 0;
    char *text = malloc(room);
    while (text != NULL) {
        ssize_t more = read(file, text + have, room - have - 1);
        if (more == 0) {
            text[have] = '\0';
            *out_bytes = have;
            return text;
        }
        if (more < 0 && errno == EINTR) {
            continue;
        }
        int cause = more < 0 ? errno : EFBIG;
        have += more > 0 ? (size_t)more : 0;
        char *longer = text;
        if (more > 0 && room - have == 1) {
            room *= 2;
            longer = room <= TEXT_BYTES_MAX ? realloc(text, room) : NULL;
            cause = room <= TEXT_BYTES_MAX ? ENOMEM : EFBIG;
        }
        if (more < 0 || longer == NULL) {
            free(text);
            errno = cause;
            return NULL;
        }
        text = longer;
    }
    errno = ENOMEM;
    return NULL;
}

/* A whole file. *out is NULL if the system says nothing there; else free() it. */
static umo_status text_read(reader *r, const char *name, char **out)
{
    *out = NULL;
    if (!path_set(r, name)) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "the system's root has too long a name");
    }
    /* A pipe in its place must not keep us waiting for its writer. */
    int file = open(r->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        return says_nothing(errno) ? UMO_OK : failed(r, errno);
    }
    size_t length = 0;
    char *text = text_of(file, &length);
    int cause = errno;
    (void)close(file);
    if (text == NULL) {
        return says_nothing(cause) ? UMO_OK : failed(r, cause);
    }
    if (strlen(text) != length) {
        free(text);
        return nonsense(r, "it is no text");
    }
    *out = text;
    return UMO_OK;
}

/* ---- the forms of what stands in them ---- */

/* Digits and nothing else, at most limit. */
static bool number_take(const char **at, uint64_t limit, uint64_t *out)
{
    uint64_t value = 0;
    const char *c = *at;
    for (; *c >= '0' && *c <= '9'; c++) {
        uint64_t digit = (uint64_t)(*c - '0');
        if (value > (limit - digit) / 10) {
            return false;
        }
        value = value * 10 + digit;
    }
    *out = value;
    bool some = c != *at;
    *at = c;
    return some;
}

/* An item, "4" or "4-7", of a list "0,4-7" that ends with its line. next is the least number that
 * may come: lists rise. */
typedef struct list {
    const char *at;
    uint64_t next;
} list;

typedef enum list_step {
    LIST_ITEM,
    LIST_END,
    LIST_BAD
} list_step;

static list_step list_take(list *l, uint64_t limit, uint64_t *from, uint64_t *to)
{
    if (*l->at == '\n' || *l->at == '\0') {
        return LIST_END;
    }
    if (l->next > 0 && *l->at++ != ',') {
        return LIST_BAD;
    }
    if (!number_take(&l->at, limit, from) || *from < l->next) {
        return LIST_BAD;
    }
    *to = *from;
    if (*l->at == '-' && (l->at++, !number_take(&l->at, limit, to) || *to < *from)) {
        return LIST_BAD;
    }
    l->next = *to + 1;
    return LIST_ITEM;
}

static bool list_nodes(const char *text, node_set *out)
{
    *out = (node_set){.has = {false}};
    list l = {text, 0};
    uint64_t from;
    uint64_t to;
    list_step step;
    while ((step = list_take(&l, UMO_NUMA_IDS - 1, &from, &to)) == LIST_ITEM) {
        memset(out->has + from, true, (size_t)(to - from + 1));
    }
    return step == LIST_END;
}

static bool list_count(const char *text, uint32_t *out)
{
    list l = {text, 0};
    uint64_t from;
    uint64_t to;
    uint64_t count = 0;
    list_step step;
    while ((step = list_take(&l, PROCESSORS - 1, &from, &to)) == LIST_ITEM) {
        count += to - from + 1;
    }
    *out = (uint32_t)count;
    return step == LIST_END;
}

/* ---- a node ---- */

/* A file of a node; there says whether it was there. */
static umo_status node_text(reader *r, int32_t node, const char *name, char **out)
{
    char below[128];
    (void)snprintf(below, sizeof below, NODES "/node%d/%s", (int)node, name);
    return text_read(r, below, out);
}

static bool memory_parse(const char *text, uint64_t *out)
{
    static const char word[] = "MemTotal:";
    const char *at = strstr(text, word);
    uint64_t kilobytes;
    if (at == NULL) {
        return false;
    }
    at += sizeof word - 1;
    at += strspn(at, " ");
    if (!number_take(&at, UINT64_MAX / 1024, &kilobytes) || strncmp(at, " kB", 3) != 0) {
        return false;
    }
    *out = kilobytes * 1024;
    return true;
}

/* there is false for a node whose folder is gone. */
static umo_status node_read(reader *r, int32_t id, umo_numa_node *out, bool *there)
{
    *out = (umo_numa_node){.id = id, .initiator = UMO_NUMA_ANY};
    *there = false;
    char *text;
    umo_status status = node_text(r, id, "meminfo", &text);
    if (status != UMO_OK || text == NULL) {
        return status;
    }
    bool good = memory_parse(text, &out->memory_bytes);
    free(text);
    if (!good) {
        return nonsense(r, "no size of the node's memory");
    }
    status = node_text(r, id, "cpulist", &text);
    if (status != UMO_OK) {
        return status;
    }
    good = text != NULL && list_count(text, &out->processors);
    free(text);
    if (!good) {
        return nonsense(r, "no list of processors");
    }
    *there = true;
    return UMO_OK;
}

/* A row has a figure for each node that is on, in their order. */
static bool distances_parse(const char *text, const node_set *on, const umo_numa_topology *topology,
                            uint8_t *row)
{
    for (int32_t id = 0; id < UMO_NUMA_IDS; id++) {
        if (!on->has[id]) {
            continue;
        }
        uint64_t distance;
        text += strspn(text, " ");
        if (!number_take(&text, UINT8_MAX, &distance) ||
            (*text != ' ' && *text != '\n' && *text != '\0')) {
            return false;
        }
        int index = umo_numa_index(topology, id);
        if (index >= 0) {
            row[index] = (uint8_t)distance;
        }
    }
    text += strspn(text, " \n");
    return *text == '\0';
}

static umo_status distances_read(reader *r, const node_set *on, umo_numa_topology *topology,
                                 uint32_t index)
{
    uint8_t *row = topology->distances[index];
    char *text;
    umo_status status = node_text(r, topology->nodes[index].id, "distance", &text);
    if (status != UMO_OK) {
        return status;
    }
    if (text == NULL) {
        row[index] = UMO_NUMA_DISTANCE_LOCAL;
        return UMO_OK;
    }
    bool good = distances_parse(text, on, topology, row);
    free(text);
    return good ? UMO_OK : nonsense(r, "not one distance for each node that is on");
}

/* ---- who reaches it fastest ---- */

/* Of two nodes the one that is nearer to a third; a distance that is not known is the greatest. */
static bool nearer(const uint8_t *row, uint32_t one, uint32_t other)
{
    uint32_t first = row[one] != 0 ? row[one] : UINT32_MAX;
    uint32_t second = row[other] != 0 ? row[other] : UINT32_MAX;
    return first < second;
}

/* Takes a node for the initiator of another if it has processors and none before it was better. */
static void initiator_offer(const umo_numa_topology *topology, uint32_t of, uint32_t offered,
                            int *best)
{
    if (topology->nodes[offered].processors > 0 &&
        (*best < 0 || offered == of ||
         (*best != (int)of && nearer(topology->distances[of], offered, (uint32_t)*best)))) {
        *best = (int)offered;
    }
}

/* The best of those that a class of accesses names; -1 if it names none of ours. */
static umo_status class_initiator(reader *r, const umo_numa_topology *topology, uint32_t index,
                                  const char *folder, int *best)
{
    *best = -1;
    if (!path_set(r, folder)) {
        return umo_error_set(r->error, UMO_E_INVAL, 0, "the system's root has too long a name");
    }
    DIR *links = opendir(r->path);
    if (links == NULL) {
        return says_nothing(errno) ? UMO_OK : failed(r, errno);
    }
    bool named[UMO_NUMA_NODES_MAX] = {false};
    for (const struct dirent *link; (link = readdir(links)) != NULL;) {
        const char *at = link->d_name + 4;
        uint64_t id;
        if (strncmp(link->d_name, "node", 4) == 0 && number_take(&at, UMO_NUMA_IDS - 1, &id) &&
            *at == '\0') {
            int of = umo_numa_index(topology, (int32_t)id);
            named[of >= 0 ? of : 0] |= of >= 0;
        }
    }
    (void)closedir(links);
    for (uint32_t i = 0; i < topology->count; i++) { /* not in the folder's order, which is any */
        if (named[i]) {
            initiator_offer(topology, index, i, best);
        }
    }
    return UMO_OK;
}

static umo_status figure_read(reader *r, const char *folder, const char *name, uint32_t *out)
{
    char below[160];
    char *text;
    (void)snprintf(below, sizeof below, "%s/%s", folder, name);
    umo_status status = text_read(r, below, &text);
    if (status != UMO_OK || text == NULL) {
        return status;
    }
    const char *at = text;
    uint64_t value;
    bool good = number_take(&at, UINT32_MAX, &value) && (*at == '\n' || *at == '\0');
    free(text);
    if (!good) {
        return nonsense(r, "no number");
    }
    *out = (uint32_t)value;
    return UMO_OK;
}

/*
 * Firmware's figures are those of the nodes that a class names, and so only ours when ours is one
 * of them. Class 1 is of processors alone; class 0, which older kernels have only, counts devices
 * as well (Linux, admin-guide/mm/numaperf).
 */
static umo_status initiator_read(reader *r, umo_numa_topology *topology, uint32_t index)
{
    umo_numa_node *node = &topology->nodes[index];
    char folder[128];
    int named = -1;
    umo_status status = UMO_OK;
    for (int kind = 1; kind >= 0 && named < 0 && status == UMO_OK; kind--) {
        (void)snprintf(folder, sizeof folder, NODES "/node%d/access%d/initiators", (int)node->id,
                       kind);
        status = class_initiator(r, topology, index, folder, &named);
    }
    int best = named;
    for (uint32_t i = 0; i < topology->count && (named < 0 || node->processors > 0); i++) {
        initiator_offer(topology, index, i, &best);
    }
    node->initiator = best >= 0 ? topology->nodes[best].id : UMO_NUMA_ANY;
    struct {
        const char *name;
        uint32_t *out;
    } figures[] = {
        {"read_latency", &node->read_latency_ns},
        {"write_latency", &node->write_latency_ns},
        {"read_bandwidth", &node->read_mb_s},
        {"write_bandwidth", &node->write_mb_s},
    };
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) {
        if (status == UMO_OK && named >= 0 && named == best) {
            status = figure_read(r, folder, figures[i].name, figures[i].out);
        }
    }
    return status;
}

/* ---- all of it ---- */

/* The nodes that are on; *told is false where the system does not speak of any. */
static umo_status online_read(reader *r, node_set *out, bool *told)
{
    char *text;
    umo_status status = text_read(r, NODES "/online", &text);
    *told = text != NULL;
    if (status != UMO_OK || text == NULL) {
        return status;
    }
    bool good = list_nodes(text, out);
    free(text);
    return good ? UMO_OK : nonsense(r, "no list of nodes");
}

/* Without cpusets, or where /proc is not to be seen, nothing keeps us from any node. */
static umo_status allowed_read(reader *r, umo_numa_topology *topology)
{
    static const char word[] = "\nMems_allowed_list:\t";
    char *text;
    umo_status status = text_read(r, STATUS, &text);
    if (status != UMO_OK) {
        return status;
    }
    const char *at = text != NULL ? strstr(text, word) : NULL;
    node_set allowed;
    bool good = at == NULL || list_nodes(at + sizeof word - 1, &allowed);
    free(text);
    if (!good) {
        return nonsense(r, "no list of the nodes that are allowed");
    }
    for (uint32_t i = 0; i < topology->count; i++) {
        topology->nodes[i].allowed = at == NULL || allowed.has[topology->nodes[i].id];
    }
    return UMO_OK;
}

static umo_status nodes_read(reader *r, const node_set *on, umo_numa_topology *out)
{
    *out = (umo_numa_topology){.count = 0};
    for (int32_t id = 0; id < UMO_NUMA_IDS && out->count < UMO_NUMA_NODES_MAX; id++) {
        bool there = false;
        umo_status status = UMO_OK;
        if (on->has[id]) {
            status = node_read(r, id, &out->nodes[out->count], &there);
        }
        if (status != UMO_OK) {
            return status;
        }
        out->count += there ? 1 : 0;
    }
    if (out->count == 0) {
        (void)path_set(r, NODES "/online");
        return nonsense(r, "none of its nodes is there");
    }
    umo_status status = UMO_OK;
    for (uint32_t i = 0; i < out->count && status == UMO_OK; i++) {
        status = distances_read(r, on, out, i);
    }
    for (uint32_t i = 0; i < out->count && status == UMO_OK; i++) {
        status = initiator_read(r, out, i);
    }
    return status == UMO_OK ? allowed_read(r, out) : status;
}

umo_status umo_numa_topology_read_at(const char *root, umo_numa_topology *out, bool *told,
                                     umo_error *error)
{
    umo_error words; /* not the caller's: a reading that is made again has not failed */
    reader r = {.root = root, .error = &words};
    umo_numa_topology read;
    node_set on;
    node_set later;
    bool speaks;
    umo_status status = online_read(&r, &on, &speaks);
    bool again = status == UMO_OK && speaks;
    for (int i = 0; again && i < TRIES; i++) {
        status = nodes_read(&r, &on, &read);
        umo_error no_words;
        reader look = {.root = root, .error = &no_words};
        bool still;
        again = online_read(&look, &later, &still) == UMO_OK && still &&
                memcmp(&on, &later, sizeof on) != 0;
        on = again ? later : on;
    }
    if (status != UMO_OK) {
        return umo_error_set(error, status, words.native, "%s", words.text);
    }
    if (!speaks) {
        umo_numa_one_node(&read);
    }
    *out = read;
    if (told != NULL) {
        *told = speaks;
    }
    return UMO_OK;
}

umo_status umo_numa_topology_read(umo_numa_topology *out, umo_error *error)
{
    if (out == NULL) {
        return umo_error_set(error, UMO_E_INVAL, 0, "no place for the nodes");
    }
    return umo_numa_topology_read_at("", out, NULL, error);
}

/*
 * What the files of mac_probe share.
 *
 * A check is one claim about Metal on this machine. Each runs in a process of its own, because
 * some provoke Metal and may be ended by it, and because what hangs or crashes must not hide the
 * others. A check prints what it saw and gives a verdict; the parent adds the verdict's line.
 */
#ifndef UMO_MAC_CHECK_PROBE_H
#define UMO_MAC_CHECK_PROBE_H

#include "judge.h"

#include <umo/umo.h>

/* What a check gets: a device with its kernels, unless it makes its own. */
typedef struct probe {
    umo_context *context;
    umo_device *device;
    const umo_device_info *info;
    umo_scope *scope;
    umo_registry *registry;
    umo_program *program;
    umo_kernel *xor_words;
    umo_kernel *touch;
    umo_kernel *step;
    umo_kernel *one;
    umo_kernel *poke;
    size_t page;
    bool stand_in; /* Metal is not Metal: times and footprints mean nothing */
} probe;

typedef struct check {
    const char *name; /* W: a witness, A: an assumption */
    const char *claim;
    verdict (*run)(probe *p);
    unsigned limit_s;
    bool own_devices; /* the check opens what it needs */
    bool unvalidated; /* Metal's validation would be what is measured */
    bool may_end;     /* Metal may refuse by ending the process; see question_begin() */
} check;

extern const check probe_witnesses[];
extern const size_t probe_witness_count;
extern const check probe_assumptions[];
extern const size_t probe_assumption_count;

/* rig.c */

void probe_open(probe *p);
void probe_close(probe *p);
bool probe_is_stand_in(void);
const umo_program_source *probe_program(void);

/* One line of what was seen, indented. */
void say(const char *format, ...) UMO_PRINTF(1, 2);
/* Ends the process, naming what failed: the check does not hold. */
_Noreturn void die(const char *format, ...) UMO_PRINTF(1, 2);
void must(umo_status status, const char *what);
double now_us(void);
void sleep_ms(unsigned ms);

/* The folder for short-lived files. */
const char *probe_temporary(void);

/* Memory that this process holds, by the system's count; 0 where it does not tell. */
uint64_t probe_footprint(void);

/* A pattern that differs in every word and for every seed. */
void pattern_write(void *data, size_t size_bytes, uint32_t seed);
/* True when the bytes are the pattern, each word xored with key; says where not. */
bool pattern_is(const void *data, size_t size_bytes, uint32_t seed, uint32_t key);

/* Imports memory of whole pages; NULL after saying the reason of the refusal. */
umo_buffer *probe_import(probe *p, void *data, size_t size_bytes, bool writable);

/* One argument's memory, used by a launch inside a device bracket of its own. */
typedef struct use {
    umo_buffer *buffer;
    umo_use how;
} use;

/*
 * Launches a kernel over count work items inside brackets: the uses first, then values of 32 bits.
 * The fence is for the last thing; ended brackets carry it.
 */
umo_fence probe_launch(umo_kernel *kernel, uint32_t queue, const use *uses, size_t use_count,
                       const uint32_t *values, size_t value_count, size_t count);
/* The same, and waits. */
void probe_run(umo_kernel *kernel, const use *uses, size_t use_count, const uint32_t *values,
               size_t value_count, size_t count);

/* A host bracket over all of a buffer. */
void host_begin(umo_buffer *buffer, umo_use how);
void host_end(umo_buffer *buffer, umo_use how);

/* Memory by its origin. */
typedef enum origin {
    ORIGIN_ANONYMOUS,
    ORIGIN_MALLOC,
    ORIGIN_SHM,
    ORIGIN_FILE
} origin;

typedef struct region {
    unsigned char *data;
    size_t size_bytes;
    origin from;
    int file; /* -1 for none; another mapping of the same memory comes from it */
} region;

/* Whole pages, zeroed. */
region region_take(probe *p, origin from, size_t size_bytes);
/* A second mapping of a region with a file. */
unsigned char *region_map_again(const region *r);
void region_give(region *r);

/* run.c */

/* Runs this program again and waits. out, if not NULL, gets what it printed. Returns its exit
 * status, or minus the signal that ended it. */
int self_run(const char *const *arguments, unsigned limit_s, char *out, size_t out_bytes);
void self_set(const char *path);
/* Runs a check in a process of its own, and prints its line. */
verdict check_watch(const check *c);
/* One check, here. */
int check_run(const check *wanted);

/*
 * Stand around the question of a check that may_end. Being aborted or trapped is Metal's answer
 * only in between: before and after, something else went wrong.
 */
void question_begin(void);
void question_end(void);
/* Where the parent listens for the two. */
void question_tell(int descriptor);

/* facts.c, bench.c */

int facts_print(void);
int bench_run(void);

#endif

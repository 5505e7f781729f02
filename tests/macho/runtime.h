/*
 * What the loaded code meets at run time: the bridges that stand for libSystem, the libraries that
 * it opens, its thread-local variables.
 */
#ifndef MACHO_RUNTIME_H
#define MACHO_RUNTIME_H

#include "image.h"

#include <limits.h>

/* A symbol of libSystem, with its underscore, and what stands for it. A table ends with name NULL.
 */
typedef struct macho_bridge {
    const char *name;
    void (*function)(void);
} macho_bridge;

typedef struct macho_bridge_data {
    const char *name;
    void *data;
} macho_bridge_data;

extern const macho_bridge macho_bridges_stdio[];
extern const macho_bridge macho_bridges_plain[];
extern const macho_bridge macho_bridges_thread[];
extern const macho_bridge macho_bridges_memory[];
extern const macho_bridge macho_bridges_files[];
extern const macho_bridge macho_bridges_system[];
extern const macho_bridge macho_bridges_process[];
extern const macho_bridge macho_bridges_dispatch[];
extern const macho_bridge macho_bridges_library[];
extern const macho_bridge_data macho_bridges_data[];

extern const macho_bridge_data macho_bridges_dispatch_data[];

/* The name of our own task: a port, which only has to be the same everywhere. */
extern uint32_t macho_task_self;

/* False when nothing stands for the symbol. */
bool macho_bridge_find(const char *symbol, uint64_t *out_address);

/* False unless the fake Metal (UMO_MACHO_METAL) has the symbol. */
bool macho_fake_find(const char *symbol, uint64_t *out_address);

/* Ends the process: the program asked for something that no bridge does. Says what. */
void macho_die(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

/* Status of a run that never began, or that asked for what is not bridged. */
#define MACHO_STATUS_BROKEN 2

/* Darwin's numbers for Linux's. */
int macho_errno(int linux_errno);
int macho_errno_to_linux(int darwin_errno);
/* And its number of a signal. */
int macho_signal_to_darwin(int number);

/* Whether a descriptor was made by shm_open. */
bool macho_is_shared_memory(int fd);

/* Tells the program's sources of memory pressure of a level (1 normal, 2 warning, 4 critical). */
void macho_pressure(unsigned long level);

/* In assembly: the getter of thread-local variables, which changes no register but x0. */
void macho_tlv_get(void);
void *macho_tlv_address(const macho_tlv_descriptor *descriptor);

/* Images (main.c). load: maps, with all that it needs, and runs its initialisers. */
macho_image *macho_load(const char *path, macho_error *error);
/* The file that a library's name means to the image that asks. False: it is not there. */
bool macho_dylib_find(const macho_image *by, const char *name, char out[PATH_MAX]);
macho_image *macho_main_image(void);
macho_image *macho_first_image(void);
/* The image that holds an address; NULL if none. */
macho_image *macho_image_of(const void *address);

#endif

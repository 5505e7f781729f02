/*
 * The table that counts calls by calling library. Everything here except umo_spy_table_attach may
 * run on any thread, in a signal handler and before the process's constructors: it takes no lock,
 * allocates nothing, makes no call that could copy.
 */
#ifndef UMO_SPY_TABLE_H
#define UMO_SPY_TABLE_H

#include <stddef.h>

#include "spy_layout.h"

/* The copy functions of this object may not be built from calls to memcpy: they are memcpy. */
void umo_spy_bytes_copy(void *to, const void *from, size_t size_bytes);
void umo_spy_bytes_set(void *to, int value, size_t size_bytes);

/**
 * Counts one call of `size_bytes` bytes that returns to `return_address`.
 *
 * A copy of at least 4 KiB by a run-time library is followed up the stack to the library that it
 * works for.
 *
 * Threads: any, also from a signal handler.
 * Cost:    one lookup in the loader's lock-free table and two atomic additions; no lock, no
 * allocation, no system call. A walk up the stack where it is followed.
 */
void umo_spy_call_count(enum umo_spy_kind kind, size_t size_bytes, const void *return_address);

/* Counts an entry point that was handed out without a hook. */
void umo_spy_unhooked_count(void);

/**
 * Starts counting in the shared file at `path`; if another process has it, in `path`.`pid`.
 *
 * Errors:    returns -1 where the file cannot be made or mapped; counting then goes to private
 * memory, unseen. Threads:   one at a time; counting goes on meanwhile.
 */
int umo_spy_table_attach(const char *path);

/* The shared file, or NULL while none is attached. */
struct umo_spy_file *umo_spy_table_file(void);

#endif

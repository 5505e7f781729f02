/*
 * The census: which pages did this process write between two moments?
 */
#ifndef UMO_SPY_CENSUS_H
#define UMO_SPY_CENSUS_H

#include "spy_layout.h"

/**
 * Starts the helper thread that answers the commands in the shared file's header.
 *
 * Errors:    none returned; the header's census_status and census_reason say what happened.
 * Ownership: the file must stay mapped for the life of the process.
 * Threads:   call once.
 */
void umo_census_start(struct umo_spy_file *file);

#endif

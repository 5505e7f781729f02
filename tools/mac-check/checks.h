/* The assumptions that stand in files of their own; assumptions.c lists them. */
#ifndef UMO_MAC_CHECK_CHECKS_H
#define UMO_MAC_CHECK_CHECKS_H

#include "probe.h"

/* granule.c */
verdict check_write_granule(probe *p);

/* timing.c */
verdict check_residency(probe *p);
verdict check_archive(probe *p);
/* Builds the program with a salt in it and prints how long that took: the child of the above. */
int archive_build(const char *salt);

/* plain_checks.c */
verdict check_read_only(probe *p);
verdict check_two_mappings(probe *p);
verdict check_off_page(probe *p);
verdict check_no_bytes(probe *p);
verdict check_heap_align(probe *p);
verdict check_contents(probe *p);
verdict check_handler_after_event(probe *p);

#endif

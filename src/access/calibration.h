/*
 * The two halves of umo_device_calibrate(): what is measured, and the files that remember it.
 */
#ifndef UMO_ACCESS_CALIBRATION_H
#define UMO_ACCESS_CALIBRATION_H

#include <umo/placement.h>

#include <limits.h>

/* Measures every mode of the device for about budget_ns, at least one round of everything. */
umo_status umo_calibration_measure(umo_device *device, uint64_t budget_ns, umo_cost_model *out,
                                   umo_error *error);

/* Modes that differ by less than can be told apart are made equal, since the least difference would
 * be worth a move in time. */
void umo_calibration_level(umo_cost_model *model);

/* What a measurement is of: the lines that a file begins with. */
typedef struct umo_calibration_key {
    char text[1024];
    char path[PATH_MAX]; /* empty: no files */
} umo_calibration_key;

/* Forms the key of a device; folder NULL is the user's for caches. False where what is measured
 * must not be remembered at all, as it is a test's device. */
bool umo_calibration_key_make(const umo_device_info *info, const char *folder, bool no_files,
                              umo_calibration_key *out);

/* False for a file that is not there, not ours, not whole, or of another device, system or version.
 */
bool umo_calibration_read(const umo_calibration_key *key, umo_cost_model *out);

/* As a whole or not at all; a folder or disk that takes nothing is left alone. */
void umo_calibration_write(const umo_calibration_key *key, const umo_cost_model *model);

#endif

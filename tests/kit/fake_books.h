/*
 * What the fake server's own files share.
 */
#ifndef UMO_TESTS_KIT_FAKE_BOOKS_H
#define UMO_TESTS_KIT_FAKE_BOOKS_H

#include "fake_server.h"

#include <pthread.h>

/* Notes that a rule was broken. */
void fake_violation(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Counts a call; true when it is the one to fail. */
bool fake_fails(const char *name);
/* The same as an error. */
TRITONSERVER_Error *fake_gate(const char *name);
/* Fails the running test when a metric, a family or a parameter is left. */
void fake_metrics_expect_clean(void);
/* A client that has its answer does what it likes with its memory. */
void fake_regions_leave(TRITONBACKEND_Request *request);
/* The server itself answers and forgets a request. */
void fake_request_refuse(TRITONBACKEND_Request *request, const char *text);

#endif

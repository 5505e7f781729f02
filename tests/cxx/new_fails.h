/*
 * Memory of the C++ library that runs out; libumo allocates in C and goes on.
 */
#ifndef UMO_TESTS_CXX_NEW_FAILS_H
#define UMO_TESTS_CXX_NEW_FAILS_H

/* Of this thread: so many more succeed, then each throws; -1 for never. */
extern thread_local long news_left;

#endif

/*
 * As much of a test framework as the C++ programs need.
 */
#ifndef UMO_TESTS_CXX_CHECK_H
#define UMO_TESTS_CXX_CHECK_H

#include <cstdio>

inline int check_failures = 0;

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            std::printf("%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                    \
            check_failures++;                                                                      \
        }                                                                                          \
    } while (false)

#define RUN(test)                                                                                  \
    do {                                                                                           \
        int before = check_failures;                                                               \
        test();                                                                                    \
        std::printf("%s %s\n", before == check_failures ? "ok    " : "FAILED", #test);             \
    } while (false)

inline int check_failed()
{
    return check_failures == 0 ? 0 : 1;
}

#endif

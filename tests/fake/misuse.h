/* Ways to break the fake's rules: each breaks one, and no other. */
#ifndef FAKE_MISUSE_H
#define FAKE_MISUSE_H

#include "world.h"

typedef struct misuse {
    const char *rule;
    const char *fact;
    void (*run)(world *w);
} misuse;

/* Each ended by a NULL rule. */
extern const misuse misuse_of_the_runtime[];
extern const misuse misuse_of_resources[];
extern const misuse misuse_of_commands[];
extern const misuse misuse_of_encoders[];

#define MISUSE(rule, function)                                                                     \
    {                                                                                              \
        rule, #function, function                                                                  \
    }

#endif

/*
 * What to do about memory pressure: a pure function of what was, what is seen and what time it is.
 *
 * Stages are the answers in force, in their order: 1 trim, 2 tighten, 3 relieve, 4 refuse. One step
 * goes up at most one stage, and only when the stage before had its settling time; it goes down one
 * stage each hold time while usage is below the target, which lies a band under the threshold.
 */
#ifndef UMO_ACCESS_PRESSURE_POLICY_H
#define UMO_ACCESS_PRESSURE_POLICY_H

#include <umo/pressure.h>

/* All marks are parts of the limit. */
typedef struct pressure_marks {
    double target;     /* what answers aim at, and what ends them */
    double level[4];   /* from where each umo_pressure_level holds; [0] is 0 */
    double refuse_end; /* where refusing ends */
} pressure_marks;

/* threshold: 0.1 to 0.98. */
pressure_marks umo_pressure_marks(double threshold);

/* Whether it is worth while to take from pools, which costs every later use of them page faults. It
 * is not while usage is below the second level and all that pools hold is a small part of what is
 * over the target: a machine that others fill to a steady 85 %. */
bool umo_pressure_pools_matter(const pressure_marks *marks, uint64_t usage_bytes,
                               uint64_t limit_bytes, uint64_t pools_bytes);

typedef struct pressure_sample {
    uint64_t usage_bytes;       /* of the gauge nearest to its limit */
    uint64_t limit_bytes;       /* 0: no gauge has a limit */
    umo_pressure_level urgency; /* the loudest event since the last step; NORMAL for none */
    umo_pressure_level system;  /* what the system says now of itself; NORMAL where it does not */
    bool forced;                /* asked for by a caller: rate limits do not count */
    uint64_t blind_bytes;       /* the least room below a limit that may fill without an event */
    uint64_t pools_bytes;       /* what all pools hold, in use or idle */
} pressure_sample;

typedef struct pressure_state {
    pressure_marks marks;
    uint64_t now_ns; /* of the last step */
    umo_pressure_level level;
    umo_pressure_level heard; /* the loudest event of the last hold time */
    uint64_t heard_ns;
    unsigned stage;      /* 0 to 4 */
    unsigned repeats;    /* of the stage's answer */
    uint64_t climbed_ns; /* when the stage was raised or the budget lowered */
    uint64_t answered_ns;
    uint64_t answered_bytes; /* usage then */
    umo_pressure_level answered_level;
    uint64_t calm_ns;  /* since when usage is below what ends the stage; 0: it is not */
    uint64_t eased_ns; /* since when more is in force than the level asks for; 0: it is not */
    bool pools_matter;
    uint32_t percent; /* of what pools may keep */
    bool refusing;
} pressure_state;

/* What is to be done now, in the order of the answers. */
typedef struct pressure_actions {
    bool give[UMO_PRESSURE_ANSWERS];
    bool suppressed[UMO_PRESSURE_ANSWERS]; /* due, but held back by its rate limit */
    uint32_t percent;                      /* for TIGHTEN */
    bool restore;                          /* pools may keep percent again: more than before */
    uint64_t want_bytes;                   /* over the target: for RELIEVE; 0 if unknown */
    uint64_t next_ns;                      /* until the next sample, unless an event comes */
} pressure_actions;

void umo_pressure_policy_init(pressure_state *state, double threshold);
void umo_pressure_policy_step(pressure_state *state, const pressure_sample *sample, uint64_t now_ns,
                              pressure_actions *out);

/* The shortest time from an answer to its repetition or to the next stage. */
uint64_t umo_pressure_settle_ns(umo_pressure_level level);

#endif

/*
 * The policy. Usage decides; events can make it act while usage looks harmless (a cgroup full of
 * file pages that reclaim turns over), but never refuse work on their own where usage is known.
 *
 * How fast it may go up depends on how near the limit is: at 93 % of a small limit the next 10 ms
 * may be the last.
 */
#include "access/pressure_policy.h"

#define MILLISECOND_NS UINT64_C(1000000)
#define HOLD_NS (1000 * MILLISECOND_NS)
#define EASE_NS (10 * HOLD_NS)
#define SAMPLE_MIN_NS (5 * MILLISECOND_NS)
#define SAMPLE_MAX_NS (1000 * MILLISECOND_NS)
#define REPEATS_MAX 7u
#define POOLS_PART 16u

/* Answers in force at most, by what is seen. Refusing is for the last level: a server that lives
 * with a steady 85 % is to serve. */
static const unsigned stage_max[] = {0, 2, 3, 4};
/* And by what is heard, where usage is far below: LOW is sent at every reclaim of file pages. */
static const unsigned stage_max_heard[] = {0, 1, 2, 3};
/* What pools may keep at least, so that a steady 85 % does not turn every free into a system call.
 */
static const uint32_t percent_min[] = {100, 50, 25, 0};
static const uint64_t settle[] = {200 * MILLISECOND_NS, 200 * MILLISECOND_NS, 50 * MILLISECOND_NS,
                                  10 * MILLISECOND_NS};

const char *umo_pressure_level_name(umo_pressure_level level)
{
    static const char *const names[] = {"normal", "low", "medium", "critical"};
    return (unsigned)level < sizeof names / sizeof names[0] ? names[level] : "unknown";
}

const char *umo_pressure_answer_name(umo_pressure_answer answer)
{
    static const char *const names[] = {"trim", "tighten", "relieve", "refuse"};
    return (unsigned)answer < UMO_PRESSURE_ANSWERS ? names[answer] : "unknown";
}

const char *umo_pressure_source_name(umo_pressure_source source)
{
    static const char *const names[] = {"cgroup", "physical", "budget", "device", "threshold",
                                        "events", "reclaim",  "stall",  "system"};
    return (unsigned)source < UMO_PRESSURE_SOURCES ? names[source] : "unknown";
}

uint64_t umo_pressure_settle_ns(umo_pressure_level level)
{
    return settle[level];
}

pressure_marks umo_pressure_marks(double threshold)
{
    double rest = 1 - threshold;
    double band = rest / 5 < threshold / 10 ? rest / 5 : threshold / 10;
    pressure_marks marks = {
        .target = threshold - band,
        .level = {0, threshold, threshold + rest / 3, threshold + rest * 2 / 3},
    };
    marks.refuse_end = marks.level[UMO_PRESSURE_CRITICAL] - band;
    return marks;
}

void umo_pressure_policy_init(pressure_state *state, double threshold)
{
    *state = (pressure_state){.marks = umo_pressure_marks(threshold), .percent = 100};
}

static uint64_t part_of(uint64_t limit_bytes, double part)
{
    return (uint64_t)((double)limit_bytes * part);
}

static umo_pressure_level level_of(const pressure_marks *marks, const pressure_sample *sample)
{
    umo_pressure_level level = UMO_PRESSURE_CRITICAL;
    while (level > sample->system &&
           (sample->limit_bytes == 0 ||
            sample->usage_bytes < part_of(sample->limit_bytes, marks->level[level]))) {
        level--;
    }
    return level;
}

static uint64_t since(uint64_t now_ns, uint64_t then_ns)
{
    return now_ns > then_ns ? now_ns - then_ns : 0;
}

/* A clock that went back is as if no time had passed: moves what was remembered along. */
static void clock_follow(pressure_state *state, uint64_t now_ns)
{
    if (now_ns < state->now_ns) {
        uint64_t back_ns = state->now_ns - now_ns;
        uint64_t *times[] = {&state->heard_ns, &state->climbed_ns, &state->answered_ns,
                             &state->calm_ns, &state->eased_ns};
        for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
            /* 0 means never or not. */
            *times[i] = *times[i] > back_ns ? *times[i] - back_ns : (*times[i] > 0 ? 1 : 0);
        }
    }
    state->now_ns = now_ns;
}

/* An event counts for a hold time. */
static void events_hear(pressure_state *state, const pressure_sample *sample, uint64_t now_ns)
{
    if (since(now_ns, state->heard_ns) >= HOLD_NS) {
        state->heard = UMO_PRESSURE_NORMAL;
    }
    if (sample->urgency > UMO_PRESSURE_NORMAL && sample->urgency >= state->heard) {
        state->heard = sample->urgency;
        state->heard_ns = now_ns;
    }
}

static umo_pressure_level louder(const pressure_state *state)
{
    return state->level > state->heard ? state->level : state->heard;
}

bool umo_pressure_pools_matter(const pressure_marks *marks, uint64_t usage_bytes,
                               uint64_t limit_bytes, uint64_t pools_bytes)
{
    uint64_t target_bytes = part_of(limit_bytes, marks->target);
    return usage_bytes < target_bytes ||
           usage_bytes >= part_of(limit_bytes, marks->level[UMO_PRESSURE_MEDIUM]) ||
           pools_bytes >= (usage_bytes - target_bytes) / POOLS_PART;
}

/* What answers may do at a level, and what pools keep at least then. */
static unsigned stage_most(const pressure_state *state, umo_pressure_level level)
{
    unsigned seen = level == UMO_PRESSURE_LOW && !state->pools_matter ? 1 : stage_max[level];
    unsigned heard = stage_max_heard[state->heard];
    return seen > heard ? seen : heard;
}

static uint32_t percent_least(const pressure_state *state, umo_pressure_level level)
{
    return level == UMO_PRESSURE_LOW && !state->pools_matter ? 100 : percent_min[level];
}

/* Halves what pools may keep, down to what the level allows. */
static void budget_lower(pressure_state *state, pressure_actions *out)
{
    uint32_t least = percent_least(state, louder(state));
    if (state->percent > least) {
        uint32_t half = state->percent > 25 ? state->percent / 2 : 0;
        state->percent = half > least ? half : least;
        out->give[UMO_PRESSURE_TIGHTEN] = true;
    }
}

/* Gives the answers of the stage: those of the stages below are cheap, and what has become idle
 * since is taken along. */
static void stage_answer(pressure_state *state, const pressure_sample *sample,
                         pressure_actions *out, uint64_t now_ns)
{
    out->give[UMO_PRESSURE_TRIM] = true;
    out->give[UMO_PRESSURE_RELIEVE] = state->stage >= 3;
    if (state->stage == 4) {
        out->give[UMO_PRESSURE_REFUSE] = !state->refusing;
        state->refusing = true;
    }
    state->answered_ns = now_ns;
    state->answered_bytes = sample->usage_bytes;
    state->answered_level = louder(state);
}

/* How long it takes until the same answer is given again. While nothing gets worse, ever longer: a
 * steady 85 % is to cost little. */
static uint64_t repeat_ns(const pressure_state *state, const pressure_sample *sample)
{
    uint64_t wait_ns = umo_pressure_settle_ns(louder(state));
    bool worse = louder(state) > state->answered_level ||
                 (sample->usage_bytes > state->answered_bytes &&
                  sample->usage_bytes - state->answered_bytes > sample->limit_bytes / 100);
    if (!worse) {
        wait_ns <<= state->repeats;
    }
    uint64_t most_ns = state->pools_matter ? HOLD_NS : EASE_NS;
    return wait_ns < most_ns ? wait_ns : most_ns;
}

/* Goes one step up: a lower budget before the next stage, then the stage. */
static void stage_climb(pressure_state *state, pressure_actions *out, uint64_t now_ns)
{
    if (state->stage < 2 || state->percent <= percent_least(state, louder(state))) {
        state->stage++;
    }
    if (state->stage >= 2) {
        budget_lower(state, out);
    }
    state->repeats = 0;
    state->climbed_ns = now_ns;
}

static void stage_raise(pressure_state *state, const pressure_sample *sample, pressure_actions *out,
                        uint64_t now_ns)
{
    bool lowers = state->stage >= 2 && state->percent > percent_least(state, louder(state));
    bool climbs = state->stage < stage_most(state, state->level) || lowers;
    state->calm_ns = 0;
    /* An answer that is only repeated, because somebody asks, does not put off the next one. */
    bool due = climbs ? since(now_ns, state->climbed_ns) >= umo_pressure_settle_ns(louder(state))
                      : since(now_ns, state->answered_ns) >= repeat_ns(state, sample);
    due = due || state->stage == 0;
    if (!due && !sample->forced) {
        out->suppressed[UMO_PRESSURE_TRIM] = true;
        return;
    }
    if (due && climbs) {
        stage_climb(state, out, now_ns);
    } else if (due && state->repeats < REPEATS_MAX) {
        state->repeats++;
    }
    stage_answer(state, sample, out, now_ns);
}

static void budget_raise(pressure_state *state, uint32_t most, pressure_actions *out)
{
    uint32_t more = state->percent < 25 ? 25 : state->percent * 2;
    state->percent = more < most ? more : most;
    out->restore = true;
}

/* The level is lower than the one that called for what is in force, but not so low that all of it
 * ends: a peak is not to be paid for as long as usage stays near the threshold. */
static void stage_ease(pressure_state *state, pressure_actions *out, uint64_t now_ns)
{
    const umo_pressure_level low = UMO_PRESSURE_LOW;
    uint32_t least = percent_least(state, louder(state) > low ? louder(state) : low);
    unsigned most = stage_most(state, state->level > low ? state->level : low);
    bool stage = state->stage > most && state->stage < 4;
    if (state->percent >= least && !stage) {
        state->eased_ns = 0;
    } else if (state->eased_ns == 0) {
        state->eased_ns = now_ns > 0 ? now_ns : 1;
    } else if (since(now_ns, state->eased_ns) >= EASE_NS) {
        state->eased_ns = now_ns;
        if (state->percent < least) {
            budget_raise(state, least, out);
        } else {
            state->stage--;
        }
    }
}

/* Usage is below what called for the stage. */
static void stage_lower(pressure_state *state, pressure_actions *out, uint64_t now_ns)
{
    if (state->stage == 0 && state->percent == 100) {
        return;
    }
    if (state->calm_ns == 0) {
        state->calm_ns = now_ns > 0 ? now_ns : 1;
        return;
    }
    if (since(now_ns, state->calm_ns) < HOLD_NS) {
        return;
    }
    state->calm_ns = now_ns;
    if (state->stage > 2) {
        state->stage--;
    } else if (state->percent < 100) {
        state->stage = 2;
        budget_raise(state, 100, out);
    } else {
        state->stage--;
    }
}

/* Refusing is gone back from by its own mark: the work that was refused is what would keep usage
 * between this one and the target. */
static void refusing_end(pressure_state *state, const pressure_sample *sample)
{
    if (state->stage == 4 && sample->system < UMO_PRESSURE_CRITICAL && sample->limit_bytes > 0 &&
        sample->usage_bytes < part_of(sample->limit_bytes, state->marks.refuse_end)) {
        state->stage = 3;
        state->refusing = false;
    }
}

static uint64_t next_sample(const pressure_state *state, const pressure_sample *sample)
{
    /* Memory fills at 1 GB/s at most where each page must be faulted in: a byte a nanosecond. A
     * quarter of the room, so that three samples see it coming. */
    uint64_t next_ns = sample->blind_bytes / 4;
    if (state->level > UMO_PRESSURE_NORMAL || state->heard > UMO_PRESSURE_NORMAL) {
        uint64_t settle_ns = umo_pressure_settle_ns(louder(state));
        next_ns = next_ns < settle_ns ? next_ns : settle_ns;
    } else if (state->stage > 0 || state->percent < 100) {
        next_ns = next_ns < HOLD_NS / 4 ? next_ns : HOLD_NS / 4;
    }
    next_ns = next_ns > SAMPLE_MIN_NS ? next_ns : SAMPLE_MIN_NS;
    return next_ns < SAMPLE_MAX_NS ? next_ns : SAMPLE_MAX_NS;
}

void umo_pressure_policy_step(pressure_state *state, const pressure_sample *sample, uint64_t now_ns,
                              pressure_actions *out)
{
    *out = (pressure_actions){.restore = false};
    clock_follow(state, now_ns);
    events_hear(state, sample, now_ns);
    state->level = level_of(&state->marks, sample);
    uint64_t target_bytes = part_of(sample->limit_bytes, state->marks.target);
    bool below = sample->limit_bytes == 0 || sample->usage_bytes < target_bytes;
    if (!below) {
        out->want_bytes = sample->usage_bytes - target_bytes;
    }
    state->pools_matter = umo_pressure_pools_matter(&state->marks, sample->usage_bytes,
                                                    sample->limit_bytes, sample->pools_bytes);
    refusing_end(state, sample);
    if (state->level > UMO_PRESSURE_NORMAL || sample->urgency > UMO_PRESSURE_NORMAL ||
        (sample->forced && state->heard > UMO_PRESSURE_NORMAL)) {
        stage_raise(state, sample, out, now_ns);
        stage_ease(state, out, now_ns);
    } else if (below && state->heard == UMO_PRESSURE_NORMAL) {
        state->eased_ns = 0;
        stage_lower(state, out, now_ns);
    } else {
        state->calm_ns = 0;
        stage_ease(state, out, now_ns);
    }
    state->refusing = state->stage == 4;
    out->percent = state->percent;
    out->next_ns = next_sample(state, sample);
}

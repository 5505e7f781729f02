/* What measurements mean; apart from the measuring, so that tests can ask for every answer. */
#ifndef UMO_MAC_CHECK_JUDGE_H
#define UMO_MAC_CHECK_JUDGE_H

typedef enum verdict {
    VERDICT_HOLDS = 0,
    VERDICT_FAILS = 1,
    VERDICT_UNKNOWN = 2, /* this machine, or the stand-in, cannot tell */
    VERDICT_STRICTER = 3 /* Metal answered, and takes what umo refuses: a copy more, no harm */
} verdict;

/* Whether Metal's count of allocated memory, with an import and with its use, shows a copy. */
verdict judge_metals_count(double import_mib, double growth_by_import_mib,
                           double growth_by_use_mib);

/* The others say why when the verdict is UNKNOWN, else *why is NULL. */

/* How many times longer than a warm use the first one after a rest took. */
verdict judge_residency(double with_set, double without_set, const char **why);

/* Times from program to kernel: with an empty archive, with that archive; without umo's archives
 * the first time, and again. */
verdict judge_archive(double first_us, double second_us, double ignored_us, double again_us,
                      const char **why);

#endif

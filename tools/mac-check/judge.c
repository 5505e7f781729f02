/* Verdicts from figures alone: what was measured goes in, so that tests judge them without Metal.
 */
#include "judge.h"

#include <stddef.h>

verdict judge_metals_count(double import_mib, double growth_by_import_mib, double growth_by_use_mib)
{
    /* Metal may count the import itself as allocated, once. */
    return growth_by_import_mib < 1.25 * import_mib && growth_by_use_mib < import_mib / 4
               ? VERDICT_HOLDS
               : VERDICT_FAILS;
}

verdict judge_residency(double with_set, double without_set, const char **why)
{
    *why = NULL;
    /* A processor that slept wakes up in either case, so the two are compared with each other. */
    if (without_set < 1.5) {
        *why = "without a set the memory stays warm as well";
        return VERDICT_UNKNOWN;
    }
    if (with_set > 0.8 * without_set && with_set < 1.25 * without_set) {
        *why = "that is too close to tell";
        return VERDICT_UNKNOWN;
    }
    return with_set < without_set ? VERDICT_HOLDS : VERDICT_FAILS;
}

verdict judge_archive(double first_us, double second_us, double ignored_us, double again_us,
                      const char **why)
{
    *why = NULL;
    if (second_us >= first_us / 2) {
        return VERDICT_FAILS;
    }
    if (again_us < ignored_us / 2) {
        *why = "Metal's own cache saves the time as well: the archive may never have been read";
        return VERDICT_UNKNOWN;
    }
    return VERDICT_HOLDS;
}

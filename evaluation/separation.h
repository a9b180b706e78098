/* How well a score tells members from others: area under the ROC, its interval, and the corner that
 * matters.
 *
 * An attacker who is right on average and never sure is no danger; one who names a few members
 * without a false alarm is (Carlini et al. 2022). So beside the area stands the share of members
 * found at 1 % and at 5 % false alarms: the best threshold whose false alarms are at most that
 * many, without interpolation, so with fewer than a hundred others 1 % means none at all.
 *
 * The interval is the percentile bootstrap over members and others apart (the two files are the
 * strata). Larger scores mean "member". float64, the same numbers for the same seed.
 */
#ifndef MEED_EVALUATION_SEPARATION_H
#define MEED_EVALUATION_SEPARATION_H

#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_separation {
    double area;             /* P(member > other), ties at one half */
    double low, high;        /* 95 % */
    double found_1, found_5; /* share of members found at ≤ 1 %, ≤ 5 % false alarms */
};

/* Both counts ≥ 1, draws ≥ 40. NUMERIC if a score is not finite. */
MEED_MUST_CHECK enum meed_status meed_separation_measure(const double *members, int32_t count,
                                                         const double *others, int32_t other_count,
                                                         int32_t draws, uint64_t seed,
                                                         struct meed_separation *separation);

MEED_END_C
#endif

/* The receiver operating characteristic of a detector, as the corners of a step curve.
 *
 * Members are taken from the most to the least suspicious; each corner says which part of the bad
 * ones (true positives) and of the good ones (false positives) a threshold at that score flags.
 * Equal scores fall together and make a slanted edge, so the area under the corners is the
 * probability that a bad member scores above a good one, ties at one half (Fawcett, "An
 * introduction to ROC analysis", 2006). With one class only there is no curve, and the area is NaN.
 */
#ifndef MEED_REPORT_ROC_H
#define MEED_REPORT_ROC_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"

MEED_BEGIN_C

struct meed_roc {
    int32_t count;                          /* corners, (0, 0) and (1, 1) included; 0 if no curve */
    double *false_positive, *true_positive; /* [count] */
    double area;
};

/* score [count] finite, bad [count]; corners from the arena (growing). */
MEED_MUST_CHECK enum meed_status meed_roc_trace(const double *score, const bool *bad, int32_t count,
                                                struct meed_arena *arena, struct meed_roc *roc);

MEED_END_C
#endif

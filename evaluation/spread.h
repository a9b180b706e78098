/* Where most of a cohort lies and how far it spreads, whatever up to 40 % of it does.
 *
 * Median and MAD survive as many strangers, but not unmoved: four of ten on one side shift the
 * median by a deviation and double the MAD, which is enough to hide them. So: the 60 % of values
 * with the least variance (the minimum covariance determinant of one dimension, Rousseeuw 1985) say
 * where the cohort is, values within two of its deviations are taken back in, and the mean and the
 * standard deviation of those are the answer (one-step reweighting, Rousseeuw and Leroy 1987), both
 * scaled to be right for normal values. Strangers further off than about four deviations have no
 * influence at all; nearer ones widen the spread, as they must: nobody could tell them apart.
 */
#ifndef MEED_EVALUATION_SPREAD_H
#define MEED_EVALUATION_SPREAD_H

#include <stdint.h>

struct meed_spread {
    double middle, deviation; /* deviation 0: most values are the same */
};

/* Sorts values [count]; none: zeros. Ties go to the window of the smaller values. */
struct meed_spread meed_spread_of(double *values, int32_t count);

/* Sorts values [count]; none: 0. */
double meed_median(double *values, int64_t count);

/* Deviations from which one of `count` values is no part of the cohort, T(n) = 4 (1 + 6/(n − 4)):
 * the spread of ten is itself noisy, and a fixed limit that errs seldom among 100 normal values
 * errs often among ten. T errs in at most 1.3 of 1,000 at every n from 6 up (unit.spread); ∞
 * below 5. */
double meed_spread_limit(int32_t count);

#endif

/* What an experiment is judged by: rank correlation, AUROC, and an interval over seeds.
 *
 * All in float64 on plain arrays, O(n²) and without memory of their own: cohorts have hundreds of
 * members, not millions, and ties are then a matter of counting. Where the question has no answer
 * (one class only, no spread) the result is NaN, never a default that looks like a finding.
 */
#ifndef MEED_EVALUATION_STATISTICS_H
#define MEED_EVALUATION_STATISTICS_H

#include <stdbool.h>
#include <stdint.h>

/* Spearman's rank correlation, ties at their mean rank. NaN if n < 2 or either side is constant. */
double meed_statistics_spearman(const double *x, const double *y, int64_t count);

/* Probability that a positive scores higher than a negative, ties at one half (Mann and Whitney
 * 1947). NaN if a class is empty. */
double meed_statistics_auroc(const double *score, const bool *positive, int64_t count);

struct meed_statistics_interval {
    int64_t count;
    double mean;
    double deviation; /* of one value, n − 1; 0 for one */
    double half;      /* mean ± half covers with the confidence asked for; NaN for one value */
};
/* Student's interval of the mean of independent repeats (seeds); values that are NaN are left out
 * and not counted. */
struct meed_statistics_interval meed_statistics_interval(const double *values, int64_t count,
                                                         double confidence);
/* t with P(|T| ≤ t) = confidence for `freedom` ≥ 1 degrees of freedom. */
double meed_statistics_student(double confidence, int64_t freedom);

#endif

/* See statistics.h. */
#include "evaluation/statistics.h"

#include <math.h>

/* Mean rank of values[at], from 1. */
static double rank_of(const double *values, int64_t count, int64_t at)
{
    int64_t less = 0, equal = 0;
    for (int64_t i = 0; i < count; i++) {
        less += values[i] < values[at];
        equal += values[i] == values[at];
    }
    return (double)less + 0.5 * (double)(equal + 1);
}

double meed_statistics_spearman(const double *x, const double *y, int64_t count)
{
    double middle = 0.5 * (double)(count + 1), xx = 0.0, yy = 0.0, xy = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double rx = rank_of(x, count, i) - middle, ry = rank_of(y, count, i) - middle;
        xx += rx * rx;
        yy += ry * ry;
        xy += rx * ry;
    }
    return xx > 0.0 && yy > 0.0 ? xy / sqrt(xx * yy) : NAN;
}

double meed_statistics_auroc(const double *score, const bool *positive, int64_t count)
{
    double wins = 0.0;
    int64_t pairs = 0;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; positive[i] && j < count; j++) {
            if (!positive[j]) {
                pairs++;
                wins += score[i] > score[j] ? 1.0 : score[i] == score[j] ? 0.5 : 0.0;
            }
        }
    }
    return pairs > 0 ? wins / (double)pairs : NAN;
}

/* P(|T| ≤ t) as the finite sums for whole degrees of freedom (Abramowitz and Stegun 26.7.3, 4). */
static double student_within(double t, int64_t freedom)
{
    double angle = atan(t / sqrt((double)freedom));
    double square = cos(angle) * cos(angle), sum = 0.0;
    bool odd = freedom % 2 == 1;
    double term = odd ? cos(angle) : 1.0;
    for (int64_t k = odd ? 3 : 2; k <= freedom; k += 2) {
        sum += term;
        term *= square * (double)(k - 1) / (double)k;
    }
    return odd ? 2.0 / M_PI * (angle + sin(angle) * sum) : sin(angle) * sum;
}

double meed_statistics_student(double confidence, int64_t freedom)
{
    double low = 0.0, high = 1.0;
    while (student_within(high, freedom) < confidence && high < 1e12) {
        high *= 2.0;
    }
    for (int i = 0; i < 100; i++) {
        double middle = 0.5 * (low + high);
        *(student_within(middle, freedom) < confidence ? &low : &high) = middle;
    }
    return high;
}

struct meed_statistics_interval meed_statistics_interval(const double *values, int64_t count,
                                                         double confidence)
{
    struct meed_statistics_interval found = {0, NAN, 0.0, NAN};
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < count; i++) {
        found.count += !isnan(values[i]);
        sum += isnan(values[i]) ? 0.0 : values[i];
    }
    if (found.count == 0) {
        return found;
    }
    found.mean = sum / (double)found.count;
    for (int64_t i = 0; i < count; i++) {
        double from = isnan(values[i]) ? 0.0 : values[i] - found.mean;
        squares += from * from;
    }
    if (found.count > 1) {
        found.deviation = sqrt(squares / (double)(found.count - 1));
        found.half = meed_statistics_student(confidence, found.count - 1) * found.deviation /
                     sqrt((double)found.count);
    }
    return found;
}

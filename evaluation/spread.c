/* See spread.h. */
#include "evaluation/spread.h"

#include <math.h>
#include <stdlib.h>

static const double core_share = 0.6;
/* 1/sd of a standard normal cut to its middle 60 %, and of one cut at ±2. */
static const double core_scale = 2.1587, kept_scale = 1.1370;
static const double kept_within = 2.0;
/* The least of many windows is too narrow in few values; tests/unit/test_spread.c prints what this
 * leaves of it. */
static const double few = 3.0;

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* Mean and Σ(x − mean)² of values [count]. */
static struct meed_spread moments_of(const double *values, int32_t count)
{
    struct meed_spread found = {0.0, 0.0};
    for (int32_t i = 0; i < count; i++) {
        found.middle += values[i] / count;
    }
    for (int32_t i = 0; i < count; i++) {
        found.deviation += (values[i] - found.middle) * (values[i] - found.middle);
    }
    return found;
}

struct meed_spread meed_spread_of(double *values, int32_t count)
{
    struct meed_spread best = {0.0, INFINITY};
    if (count < 1) {
        return (struct meed_spread){0.0, 0.0};
    }
    qsort(values, (size_t)count, sizeof *values, rising);
    int32_t core = (int32_t)ceil(core_share * count);
    for (int32_t first = 0; first + core <= count; first++) {
        struct meed_spread window = moments_of(values + first, core);
        best = window.deviation < best.deviation ? window : best;
    }
    double reach = kept_within * core_scale * sqrt(best.deviation / core);
    int32_t first = 0, end = count;
    while (first < end && values[first] < best.middle - reach) {
        first++;
    }
    while (end > first && values[end - 1] > best.middle + reach) {
        end--;
    }
    struct meed_spread kept = moments_of(values + first, end - first);
    double scale = kept_scale * (1.0 + few / count);
    kept.deviation = end - first > 1 ? scale * sqrt(kept.deviation / (end - first - 1)) : 0.0;
    return kept;
}

double meed_median(double *values, int64_t count)
{
    if (count < 1) {
        return 0.0;
    }
    qsort(values, (size_t)count, sizeof *values, rising);
    return 0.5 * (values[(count - 1) / 2] + values[count / 2]);
}

double meed_spread_limit(int32_t count)
{
    return count > 4 ? 4.0 * (1.0 + 6.0 / (count - 4)) : INFINITY;
}

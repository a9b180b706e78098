/* See close.h. */
#include "tests/support/close.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include "kernels/types.h"

static int64_t checks;

int64_t close_count(void)
{
    return checks;
}

double close_f32_sum(int64_t terms)
{
    return 4e-15 * (double)(terms + 16);
}

static double squared_error(const double *got, const double *want, int64_t count, int64_t *worst)
{
    double sum = 0.0;
    double peak = -1.0;
    *worst = 0;
    for (int64_t i = 0; i < count; i++) {
        double error = (got[i] - want[i]) * (got[i] - want[i]);
        error = isfinite(error) ? error : (double)INFINITY;
        sum += error;
        if (error > peak) {
            peak = error;
            *worst = i;
        }
    }
    return sum;
}

static double squares(const double *values, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += values[i] * values[i];
    }
    return sum;
}

double close_nmse(const double *got, const double *want, int64_t count)
{
    int64_t worst;
    double error = squared_error(got, want, count, &worst);
    return error == 0.0 ? 0.0 : error / (squares(want, count) + 1e-300);
}

void close_check(const char *what, const double *got, const double *want, int64_t count,
                 double nmse_max)
{
    checks++;
    int64_t worst;
    squared_error(got, want, count, &worst);
    double nmse = close_nmse(got, want, count);
    if (count < 16) { /* a lone sum may have cancelled: its error is relative to its terms */
        nmse_max *= 1000.0;
    }
    if (!(nmse <= nmse_max)) {
        fail_msg("%s: NMSE %.3g > %.3g over %lld values; worst at %lld: got %.9g, want %.9g", what,
                 nmse, nmse_max, (long long)count, (long long)worst, got[worst], want[worst]);
    }
}

void close_check_bf16(const char *what, const double *got, const double *want, int64_t count,
                      double factor)
{
    checks++;
    int64_t worst;
    double error = sqrt(squared_error(got, want, count, &worst));
    double ideal = 0.0;
    for (int64_t i = 0; i < count; i++) {
        double rounded = (double)meed_bf16_to_f32(meed_bf16_from_f32((float)want[i]));
        ideal += (rounded - want[i]) * (rounded - want[i]);
    }
    /* A single exact value has no rounding error to compare with: allow fp32's own. */
    double allowed = factor * sqrt(ideal) + 1e-6 * sqrt(squares(want, count));
    if (count < 16) { /* too few roundings for a statistic: one unit in the last place each */
        allowed += factor * 0.004 * sqrt(squares(want, count));
    }
    if (!(error <= allowed)) {
        fail_msg("%s: error %.3g is %.2f times bf16 rounding (limit %.1f) over %lld values; worst "
                 "at %lld: got %.9g, want %.9g",
                 what, error, error / sqrt(ideal + 1e-300), factor, (long long)count,
                 (long long)worst, got[worst], want[worst]);
    }
}

/* The spread of most of a cohort: normal values, strangers, few values. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "base/rng.h"
#include "evaluation/spread.h"

enum { MOST = 100, SAMPLES = 20000 };

static void spread_is_right_for_normal_values(void **state)
{
    /* Goal: middle 3 and deviation 0.5 on average of normal samples; 20 % in the deviation is what
     * the correction for few leaves (test tolerances of the middle are five standard errors). */
    (void)state;
    static const int32_t sizes[4] = {6, 10, 20, 100};
    struct meed_rng rng = meed_rng_stream(5, "spread", 0);
    double values[MOST];
    for (int s = 0; s < 4; s++) {
        double middle = 0, deviation = 0;
        for (int i = 0; i < SAMPLES; i++) {
            for (int32_t k = 0; k < sizes[s]; k++) {
                values[k] = 3.0 + 0.5 * meed_rng_normal(&rng);
            }
            struct meed_spread found = meed_spread_of(values, sizes[s]);
            middle += found.middle / SAMPLES;
            deviation += found.deviation / SAMPLES;
        }
        assert_true(fabs(middle - 3.0) < 5 * 0.5 / sqrt(SAMPLES));
        print_message("%d values: deviation %.3f of the true one\n", sizes[s], deviation / 0.5);
        assert_true(fabs(deviation / 0.5 - 1.0) < 0.2);
    }
}

static void spread_thresholds_of_detectors_err_seldom(void **state)
{
    /* Goal: (x − middle)/deviation beyond the limit is seldom among normal values: at most 2 in
     * 1,000 at every size. */
    (void)state;
    static const int32_t sizes[5] = {6, 8, 10, 20, 100};
    struct meed_rng rng = meed_rng_stream(6, "spread", 0);
    double values[MOST], sorted[MOST];
    for (int s = 0; s < 5; s++) {
        int32_t n = sizes[s], cohorts = 400000 / n, over = 0;
        double threshold = meed_spread_limit(n);
        for (int32_t i = 0; i < cohorts; i++) {
            for (int32_t k = 0; k < n; k++) {
                values[k] = sorted[k] = meed_rng_normal(&rng);
            }
            struct meed_spread found = meed_spread_of(sorted, n);
            for (int32_t k = 0; k < n; k++) {
                over += values[k] - found.middle > threshold * found.deviation;
            }
        }
        double rate = (double)over / ((double)cohorts * n);
        print_message("%d values: %.2f of 1,000 above the threshold\n", n, 1000 * rate);
        assert_true(rate <= 0.002);
    }
}

static void spread_does_not_move_for_strangers(void **state)
{
    /* Goal: four strangers in ten, ten deviations off or a thousand, on one side or both, give the
     * bits that six alone give but for the correction for few. */
    (void)state;
    static const double six[6] = {-1.1, -0.4, 0.1, 0.3, 0.8, 1.2};
    static const double off[3] = {10, -1000, 12};
    double alone[6], values[10];
    for (int k = 0; k < 6; k++) {
        alone[k] = six[k];
    }
    struct meed_spread want = meed_spread_of(alone, 6);
    for (int o = 0; o < 3; o++) {
        for (int k = 0; k < 10; k++) {
            double side = o == 2 && k % 2 ? -1.0 : 1.0;
            values[k] = k < 6 ? six[k] : side * off[o] + 0.01 * k;
        }
        struct meed_spread found = meed_spread_of(values, 10);
        assert_true(fabs(found.middle - want.middle) < 1e-15);
        assert_true(fabs(found.deviation - want.deviation * 1.3 / 1.5) < 1e-12);
    }
}

static void spread_of_few_and_of_equals(void **state)
{
    (void)state; /* Goal: none, one and equal values have a deviation of 0. */
    double values[5] = {2, 2, 2, 7, 2};
    struct meed_spread found = meed_spread_of(values, 0);
    assert_true(found.middle == 0 && found.deviation == 0);
    found = meed_spread_of(values, 1);
    assert_true(found.middle == 2 && found.deviation == 0);
    found = meed_spread_of(values, 5);
    assert_true(found.middle == 2 && found.deviation == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(spread_is_right_for_normal_values),
        cmocka_unit_test(spread_thresholds_of_detectors_err_seldom),
        cmocka_unit_test(spread_does_not_move_for_strangers),
        cmocka_unit_test(spread_of_few_and_of_equals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

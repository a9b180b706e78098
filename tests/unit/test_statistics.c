/* Statistics against numbers worked out by hand or printed in tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "base/rng.h"
#include "evaluation/statistics.h"

static void near(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance)) {
        fail_msg("got %.12g, want %.12g ± %g", got, want, tolerance);
    }
}

/* Ranks 1 2.5 2.5 4 against 1 2 3 4: Pearson by hand is 4.5 / √(4.5·5). */
static void statistics_spearman_handles_ties(void **state)
{
    (void)state;
    const double x[] = {1, 2, 2, 9}, y[] = {-4, 0, 1, 7}, z[] = {9, 3, 2, 1}, flat[] = {1, 1, 1, 1};
    near(meed_statistics_spearman(x, y, 4), 4.5 / sqrt(4.5 * 5.0), 1e-15);
    near(meed_statistics_spearman(y, y, 4), 1.0, 1e-15);
    near(meed_statistics_spearman(y, z, 4), -1.0, 1e-15);
    assert_true(isnan(meed_statistics_spearman(x, flat, 4)));
    assert_true(isnan(meed_statistics_spearman(x, y, 1)));
}

/* Pairs counted by hand: of 2 × 3, five won, one tied. */
static void statistics_auroc_counts_pairs(void **state)
{
    (void)state;
    const double score[] = {5, 1, 2, 2, 0};
    const bool positive[] = {true, false, true, false, false};
    near(meed_statistics_auroc(score, positive, 5), 5.5 / 6.0, 1e-15);
    const bool none[5] = {false};
    assert_true(isnan(meed_statistics_auroc(score, none, 5)));
}

/* Two-sided 95 % points of Student's t as every table prints them. */
static void statistics_student_agrees_with_the_table(void **state)
{
    (void)state;
    near(meed_statistics_student(0.95, 1), 12.7062047, 1e-6);
    near(meed_statistics_student(0.95, 2), 4.30265273, 1e-7);
    near(meed_statistics_student(0.95, 4), 2.77644511, 1e-7);
    near(meed_statistics_student(0.99, 9), 3.24983554, 1e-7);
    near(meed_statistics_student(0.95, 1000), 1.96233908, 1e-6);
}

/* 95 % intervals of five normal draws hold the mean in 95 % of 4,000 repeats, within three standard
 * errors of that share (± 1.03 %); NaN is left out. */
static void statistics_interval_covers_as_promised(void **state)
{
    (void)state;
    struct meed_rng rng = meed_rng_stream(3, "coverage", 0);
    int covered = 0;
    for (int i = 0; i < 4000; i++) {
        double values[6] = {[5] = NAN};
        for (int j = 0; j < 5; j++) {
            values[j] = 2.0 + 3.0 * meed_rng_normal(&rng);
        }
        struct meed_statistics_interval found = meed_statistics_interval(values, 6, 0.95);
        assert_int_equal(found.count, 5);
        covered += fabs(found.mean - 2.0) <= found.half;
    }
    near((double)covered / 4000.0, 0.95, 0.0104);
    const double one[] = {7};
    struct meed_statistics_interval found = meed_statistics_interval(one, 1, 0.95);
    near(found.mean, 7.0, 0.0);
    assert_true(isnan(found.half));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statistics_spearman_handles_ties),
        cmocka_unit_test(statistics_auroc_counts_pairs),
        cmocka_unit_test(statistics_student_agrees_with_the_table),
        cmocka_unit_test(statistics_interval_covers_as_promised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

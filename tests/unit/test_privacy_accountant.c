/* The Rényi accountant against another program, a published figure and the exact curve.
 *
 * Goal: ε within 1e-3 of dp-accounting's RDP accountant (tests/golden/privacy), never below the
 * numerically exact ε of the same mechanism, and the moments accountant's published 1.26 (Abadi et
 * al. 2016, section 5: q = 0.01, σ = 4, δ = 1e-5, 10,000 steps) with the conversion of then.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include "client/privacy_accountant.h"

static double epsilon_of(double sigma, double q, int64_t rounds, double delta)
{
    struct meed_privacy_accountant accountant = {{0.0}};
    meed_privacy_accountant_add(&accountant, sigma, q, rounds);
    return meed_privacy_accountant_epsilon(&accountant, delta);
}

static void privacy_accountant_agrees_with_dp_accounting(void **state)
{
    (void)state;
    FILE *file = fopen(MEED_SOURCE_DIR "/tests/golden/privacy/epsilon.tsv", "r");
    double sigma, q, rounds, delta, bound, exact, worst = 0.0;
    int lines = 0;
    assert_non_null(file);
    while (fscanf(file, "%lf %lf %lf %lf %lf %lf", &sigma, &q, &rounds, &delta, &bound, &exact) ==
           6) {
        double got = epsilon_of(sigma, q, (int64_t)rounds, delta);
        if (fabs(got - bound) > 1e-3 * fmax(bound, 1.0) || got < exact) {
            print_error("sigma %g q %g rounds %g: %.9g, wanted %.9g, at least %.9g\n", sigma, q,
                        rounds, got, bound, exact);
            fail();
        }
        worst = fmax(worst, fabs(got - bound) / bound);
        lines++;
    }
    fclose(file);
    assert_int_equal(lines, 16);
    print_message("farthest from dp-accounting: %.2e\n", worst);
}

static void privacy_accountant_gives_the_published_figure(void **state)
{
    (void)state;
    struct meed_privacy_accountant accountant = {{0.0}};
    double best = INFINITY;
    meed_privacy_accountant_add(&accountant, 4.0, 0.01, 10000);
    for (int i = 0; i < MEED_PRIVACY_ORDERS && meed_privacy_order(i) < 33.05; i++) {
        double alpha = meed_privacy_order(i);
        if (fabs(alpha - nearbyint(alpha)) < 1e-9) {
            best = fmin(best, accountant.spent[i] - log(1e-5) / (alpha - 1.0));
        }
    }
    assert_true(fabs(best - 1.26) < 0.005);
}

/* Goal: rounds add up in any portions, more of anything costs more, nothing costs nothing. */
static void privacy_accountant_adds_up(void **state)
{
    (void)state;
    struct meed_privacy_accountant one = {{0.0}}, other = {{0.0}}, none = {{0.0}};
    meed_privacy_accountant_add(&one, 2.0, 1.0, 3);
    meed_privacy_accountant_add(&one, 1.0, 1.0, 2);
    for (int i = 0; i < 5; i++) {
        meed_privacy_accountant_add(&other, i % 2 ? 1.0 : 2.0, 1.0, 1);
    }
    double x = meed_privacy_accountant_epsilon(&one, 1e-5);
    double y = meed_privacy_accountant_epsilon(&other, 1e-5);
    assert_true(fabs(x - y) <= 1e-12 * x); /* sums of the same terms in another order */
    assert_true(meed_privacy_accountant_epsilon(&none, 1e-5) == 0.0);
    meed_privacy_accountant_add(&none, 1.0, 0.0, 100);
    assert_true(meed_privacy_accountant_epsilon(&none, 1e-5) == 0.0);
    assert_true(epsilon_of(1.0, 1.0, 2, 1e-5) > epsilon_of(1.0, 1.0, 1, 1e-5));
    assert_true(epsilon_of(1.0, 1.0, 1, 1e-6) > epsilon_of(1.0, 1.0, 1, 1e-5));
    assert_true(epsilon_of(1.0, 0.5, 1, 1e-5) < epsilon_of(1.0, 1.0, 1, 1e-5));
    assert_true(epsilon_of(1.0, 0.999999, 1, 1e-5) <= epsilon_of(1.0, 1.0, 1, 1e-5) * 1.01);
    for (int i = 1; i < MEED_PRIVACY_ORDERS; i++) {
        assert_true(meed_privacy_order(i) > meed_privacy_order(i - 1));
    }
    assert_true(meed_privacy_order(MEED_PRIVACY_ORDERS - 1) > 9e5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(privacy_accountant_agrees_with_dp_accounting),
        cmocka_unit_test(privacy_accountant_gives_the_published_figure),
        cmocka_unit_test(privacy_accountant_adds_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

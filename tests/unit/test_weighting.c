/* Weights of a cohort: what is claimed is capped, what was measured counts, nobody is locked out.
 *
 * Goal: weights are at least 0 and add up to 1; a lie about samples gains no more than the cap;
 * reputations leave everyone a quarter of an even share, newcomers the mean; empty inputs are
 * uniform. Method: cases worked by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include "server/weighting.h"

static void check(const double *p, const double *want, int32_t count)
{
    double sum = 0.0;
    for (int32_t i = 0; i < count; i++) {
        assert_true(fabs(p[i] - want[i]) < 1e-15);
        sum += p[i];
    }
    assert_true(fabs(sum - 1.0) < 1e-15);
}

static void weighting_caps_claims(void **state)
{
    (void)state;
    double p[4];
    const int64_t honest[] = {10, 20, 30, 40}, liar[] = {10, 20, 30, 1000000000000};
    const int64_t none[] = {0, 0, 0, 0}, odd[] = {-5, 4, 4, 4};
    assert_int_equal(meed_weighting_samples(honest, 4, 4.0, p), MEED_OK);
    check(p, (double[]){0.1, 0.2, 0.3, 0.4}, 4);
    assert_int_equal(meed_weighting_samples(liar, 4, 2.0, p), MEED_OK); /* median 25 */
    check(p, (double[]){10 / 110.0, 20 / 110.0, 30 / 110.0, 50 / 110.0}, 4);
    assert_int_equal(meed_weighting_counts(liar, 4, 2.0, p), MEED_OK); /* what pay may go by */
    for (int i = 0; i < 4; i++) {
        assert_true(p[i] == (i < 3 ? 10.0 * (i + 1) : 50.0));
    }
    assert_int_equal(meed_weighting_samples(none, 4, 2.0, p), MEED_OK);
    check(p, (double[]){0.25, 0.25, 0.25, 0.25}, 4);
    assert_int_equal(meed_weighting_samples(odd, 4, 2.0, p), MEED_OK);
    check(p, (double[]){0, 1 / 3.0, 1 / 3.0, 1 / 3.0}, 4);
}

static void weighting_follows_reputation(void **state)
{
    (void)state;
    double p[4];
    meed_weighting_reputation((const double[]){-1, -1, -1, -1}, 4, p);
    check(p, (double[]){0.25, 0.25, 0.25, 0.25}, 4);
    meed_weighting_reputation((const double[]){0, 0, -1, 0}, 4, p);
    check(p, (double[]){0.25, 0.25, 0.25, 0.25}, 4);
    meed_weighting_reputation((const double[]){3, 0, 0, 1}, 4, p);
    check(p, (double[]){0.0625 + 0.5625, 0.0625, 0.0625, 0.0625 + 0.1875}, 4);
    meed_weighting_reputation((const double[]){3, 1, -1, 2}, 4, p); /* the newcomer counts as 2 */
    check(p, (double[]){0.0625 + 0.75 * 3 / 8, 0.0625 + 0.75 / 8, 0.25, 0.25}, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weighting_caps_claims),
        cmocka_unit_test(weighting_follows_reputation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

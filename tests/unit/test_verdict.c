/* Verdicts on cohorts whose truth is known, and their error rate on honest ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "evaluation/spread.h"
#include "evaluation/verdict.h"

enum { MOST = 100, CATEGORIES = 4 };
static const double z = 2.576;

/* Ten clients of value 0.1 ± 0.004, guard 0 ± 0.004, categories 0.1 ± 0.01, unless changed. */
static struct table {
    bool null[MOST];
    double phi[MOST], phi_se[MOST], guard[MOST], guard_se[MOST], unlike[MOST], clique[MOST];
    double category[CATEGORIES][MOST], category_se[CATEGORIES][MOST];
    struct meed_verdict_column guards[1], categories[CATEGORIES];
    struct meed_verdict verdicts[MOST];
} t;

static struct meed_verdict_cohort cohort_of(int32_t players)
{
    t.guards[0] = (struct meed_verdict_column){t.guard, t.guard_se};
    for (int c = 0; c < CATEGORIES; c++) {
        t.categories[c] = (struct meed_verdict_column){t.category[c], t.category_se[c]};
    }
    return (struct meed_verdict_cohort){.players = players,
                                        .null = t.null,
                                        .paid = {t.phi, t.phi_se},
                                        .guard_count = 1,
                                        .guards = t.guards,
                                        .category_count = CATEGORIES,
                                        .categories = t.categories,
                                        .unlike = t.unlike,
                                        .clique = t.clique,
                                        .z = z};
}

/* The spread of an honest cohort: evenly from -1.5 to 1.5 deviations, in an order of its own for
 * every column. */
static double spread(int k, int column)
{
    static const double at[10] = {0.2, -1.0, 1.5, -0.4, 0.7, -1.5, 0.0, 1.1, -0.2, -0.7};
    return at[(k * 3 + column * 7) % 10];
}

static void honest(void)
{
    memset(&t, 0, sizeof t);
    for (int k = 0; k < MOST; k++) {
        t.phi[k] = 0.1 + 0.004 * spread(k, 0);
        t.phi_se[k] = 0.004;
        t.guard[k] = 0.004 * spread(k, 1);
        t.guard_se[k] = 0.004;
        t.unlike[k] = fabs(spread(k, 2));
        for (int c = 0; c < CATEGORIES; c++) {
            t.category[c][k] = 0.1 + 0.01 * spread(k, 3 + c);
            t.category_se[c][k] = 0.01;
        }
    }
}

static void judge(int32_t players)
{
    struct meed_verdict_cohort cohort = cohort_of(players);
    assert_int_equal(meed_verdict_run(&cohort, t.verdicts), MEED_OK);
}

static void verdict_leaves_an_honest_cohort_alone(void **state)
{
    /* Goal: nobody is out, also where all of them lose on a guard axis far beyond its error. */
    (void)state;
    for (int round = 0; round < 2; round++) {
        honest();
        for (int k = 0; k < 10; k++) {
            t.guard[k] -= round * 0.05;
        }
        judge(10);
        for (int k = 0; k < 10; k++) {
            assert_int_equal(t.verdicts[k].cause, MEED_VERDICT_STAYS);
            assert_true(t.verdicts[k].score < 1.0);
        }
    }
}

static void verdict_finds_four_of_ten(void **state)
{
    /* Goal: of ten clients four who harm the guard axis are out for it, and no other. */
    (void)state;
    honest();
    for (int k = 6; k < 10; k++) {
        t.guard[k] -= 0.06;
    }
    judge(10);
    for (int k = 0; k < 10; k++) {
        assert_int_equal(t.verdicts[k].cause, k < 6 ? MEED_VERDICT_STAYS : MEED_VERDICT_GUARD);
        assert_int_equal(t.verdicts[k].guard, k < 6 ? -1 : 0);
        assert_true((t.verdicts[k].score > 1.0) == (k >= 6));
    }
}

static void verdict_measures_by_those_who_pass(void **state)
{
    /* Goal: whoever fails by one axis is not what others are measured by on the next. After a
     * simulated round of ten (honest values scaled back to the weights of its first pass), six
     * honest: four send garbage, which grounding shows; they harm safety a little and all alike,
     * and before they were set aside the honest client furthest down was out for it. Who harms
     * safety three times as much is out, beside three who send garbage.
     */
    (void)state;
    static const double phi[10] = {.125, .131, .124, .119, .115, .148, .032, .032, .035, .039};
    static const double ground[10] = {-.0022, -.0053, -.0038, -.0050, -.0030,
                                      -.0053, -.0286, -.0231, -.0267, -.0276};
    static const double ground_se[10] = {.0053, .0050, .0047, .0047, .0037,
                                         .0059, .0079, .0065, .0068, .0070};
    static const double safety[10] = {-.0023, .0270,  -.0060, -.0270, -.0533,
                                      -.0235, -.0195, -.0289, -.0233, -.0239};
    static const double safety_se[10] = {.0069, .0139, .0053, .0094, .0091,
                                         .0130, .0069, .0066, .0084, .0085};
    double second[10];
    for (int harm = 1; harm <= 3; harm += 2) {
        honest();
        memcpy(t.phi, phi, sizeof phi);
        memcpy(t.guard, ground, sizeof ground);
        memcpy(t.guard_se, ground_se, sizeof ground_se);
        memcpy(second, safety, sizeof second);
        for (int k = 6; k < 10; k++) {
            t.unlike[k] = 4.0;
        }
        second[4] *= harm;
        t.null[9] = harm > 1;
        struct meed_verdict_cohort cohort = cohort_of(10);
        struct meed_verdict_column both[2] = {t.guards[0], {second, safety_se}};
        cohort.guards = both;
        cohort.guard_count = 2;
        cohort.category_count = 0;
        assert_int_equal(meed_verdict_run(&cohort, t.verdicts), MEED_OK);
        for (int k = 0; k < (harm > 1 ? 9 : 10); k++) {
            assert_int_equal(t.verdicts[k].cause == MEED_VERDICT_GUARD,
                             k > 5 || (k == 4 && harm > 1));
            assert_int_equal(t.verdicts[k].guard, k > 5 ? 0 : k == 4 && harm > 1 ? 1 : -1);
        }
    }
}

static void verdict_needs_harm_or_use(void **state)
{
    /* Goal: harm beyond its error is out alone; a slight harm is out with an unlike update and
     * stays without; an unlike update is out if it is of no use, stays if one category gains by it,
     * and stays in a cohort of five. */
    (void)state;
    honest();
    t.phi[0] = -0.02;
    t.guard[1] = t.guard[2] = -0.016; /* 4 errors, between 1.5 and 2.5 deviations */
    t.unlike[1] = 3.5;
    t.unlike[2] = 0.5;
    t.unlike[3] = t.unlike[4] = 8.0;
    t.category[2][4] = 0.2;
    judge(10);
    static const enum meed_verdict_cause want[5] = {MEED_VERDICT_HARMFUL, MEED_VERDICT_GUARD,
                                                    MEED_VERDICT_STAYS, MEED_VERDICT_UNLIKE,
                                                    MEED_VERDICT_STAYS};
    for (int k = 0; k < 5; k++) {
        assert_int_equal(t.verdicts[k].cause, want[k]);
    }
    honest();
    t.unlike[3] = 8.0;
    judge(5);
    assert_int_equal(t.verdicts[3].cause, MEED_VERDICT_STAYS);
}

static void verdict_asks_what_a_group_is_for(void **state)
{
    /* Goal: of ten, whose limit is 8 deviations (spread.h), who is beyond it on a hidden direction
     * is out, and stays below it or if one category gains as much as the group stands out; a cohort
     * of five has no groups. */
    (void)state;
    honest();
    t.clique[0] = t.clique[1] = 8.1;
    t.clique[2] = 7.9;
    t.clique[3] = 30.0;
    t.category[1][1] = t.category[1][3] = 0.2; /* 7 deviations: enough for 8.1, not for 30 */
    judge(10);
    static const enum meed_verdict_cause want[4] = {MEED_VERDICT_CLIQUE, MEED_VERDICT_STAYS,
                                                    MEED_VERDICT_STAYS, MEED_VERDICT_CLIQUE};
    for (int k = 0; k < 4; k++) {
        assert_int_equal(t.verdicts[k].cause, want[k]);
    }
    assert_true(fabs(t.verdicts[0].score - 8.1 / 8.0) < 1e-12);
    assert_true(t.verdicts[2].score > 0.95 && t.verdicts[2].score < 1.0);
    judge(5);
    assert_int_equal(t.verdicts[0].cause, MEED_VERDICT_STAYS);
}

static void verdict_of_few_and_of_none(void **state)
{
    /* Goal: of two clients the one that harms a guard axis is out, as there is no cohort; null
     * clients are none and are never out, whatever is said of them. */
    (void)state;
    honest();
    t.guard[1] = -0.02;
    judge(2);
    assert_int_equal(t.verdicts[0].cause, MEED_VERDICT_STAYS);
    assert_int_equal(t.verdicts[1].cause, MEED_VERDICT_GUARD);
    for (int k = 2; k < 10; k++) {
        t.null[k] = true;
        t.phi[k] = t.guard[k] = -1.0;
    }
    judge(10);
    assert_int_equal(t.verdicts[1].cause, MEED_VERDICT_GUARD);
    for (int k = 2; k < 10; k++) {
        assert_int_equal(t.verdicts[k].cause, MEED_VERDICT_STAYS);
        assert_true(t.verdicts[k].score == 0.0);
    }
}

static void verdict_score_is_what_it_says(void **state)
{
    /* Goal: against a float64 reference on one cohort of numbers whose spread can be seen: of 2 … 8
     * and −40 most lies about 5, −40 is a stranger to it. */
    (void)state;
    memset(&t, 0, sizeof t);
    double rest[8];
    for (int k = 0; k < 8; k++) {
        t.phi[k] = 1.0;
        t.guard[k] = rest[k] = k == 0 ? -40.0 : 1.0 + k;
        t.guard_se[k] = 20.0;
        t.unlike[k] = k == 0 ? 2.5 : 0.0;
    }
    struct meed_spread spread = meed_spread_of(rest, 8);
    judge(8);
    assert_true(fabs(spread.middle - 5.0) < 1e-12);
    double below = 45.0 / hypot(spread.deviation, 20.0),
           share = 1.0 / (1.0 + pow(20.0 / spread.deviation, 2));
    double limit = 1.8 + 1.5 * share * (1.0 + 2.0 / 6.0);
    double guard = fmin(2.0 / z, fmax(below / limit, fmin(2.5 / 3.0, below / 1.5)));
    double together = hypot(2.5, below) / 4.0;
    assert_true(fabs(t.verdicts[0].deficit - below) < 1e-12);
    assert_true(fabs(t.verdicts[0].score - fmax(guard, together)) < 1e-12);
    assert_true(fabs(t.verdicts[7].deficit) < 1e-12 && t.verdicts[7].score == 0.0);
}

static void verdict_errs_seldom(void **state)
{
    /* Goal: among Gaussian honest cohorts whose guard axis falls by five errors for everybody, at
     * most 2 % of clients are out (the share that the project promises), ten and a hundred. */
    (void)state;
    struct meed_rng rng = meed_rng_stream(11, "verdict", 0);
    static const int32_t sizes[2] = {10, 100};
    for (int s = 0; s < 2; s++) {
        int32_t cohorts = 20000 / sizes[s], out = 0;
        for (int32_t i = 0; i < cohorts; i++) {
            honest();
            for (int32_t k = 0; k < sizes[s]; k++) {
                t.phi[k] = 0.1 + 0.006 * meed_rng_normal(&rng);
                t.guard[k] = -0.02 + 0.006 * meed_rng_normal(&rng);
                t.unlike[k] = fabs(meed_rng_normal(&rng));
                for (int c = 0; c < CATEGORIES; c++) {
                    t.category[c][k] = 0.1 + 0.014 * meed_rng_normal(&rng);
                }
            }
            judge(sizes[s]);
            for (int32_t k = 0; k < sizes[s]; k++) {
                out += t.verdicts[k].cause != MEED_VERDICT_STAYS;
            }
        }
        double share = (double)out / (cohorts * sizes[s]);
        print_message("%d clients: %.2f %% out\n", sizes[s], 100 * share);
        assert_true(share <= 0.02);
    }
}

static void verdict_refuses_what_is_not_a_number(void **state)
{
    (void)state;
    honest();
    struct meed_verdict_cohort cohort = cohort_of(10);
    t.guard[3] = NAN;
    assert_int_equal(meed_verdict_run(&cohort, t.verdicts), MEED_NUMERIC);
    cohort.players = 0;
    assert_int_equal(meed_verdict_run(&cohort, t.verdicts), MEED_ARG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verdict_leaves_an_honest_cohort_alone),
        cmocka_unit_test(verdict_finds_four_of_ten),
        cmocka_unit_test(verdict_measures_by_those_who_pass),
        cmocka_unit_test(verdict_needs_harm_or_use),
        cmocka_unit_test(verdict_asks_what_a_group_is_for),
        cmocka_unit_test(verdict_of_few_and_of_none),
        cmocka_unit_test(verdict_score_is_what_it_says),
        cmocka_unit_test(verdict_errs_seldom),
        cmocka_unit_test(verdict_refuses_what_is_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

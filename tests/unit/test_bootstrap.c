/* Bootstrap errors: against the closed form of a stratified mean, coverage over seeds, exact zeros.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "base/rng.h"
#include "evaluation/bootstrap.h"

enum { CATEGORIES = 3, PER_CATEGORY = 12, DIALOGUES = CATEGORIES * PER_CATEGORY, AXES = 2 };

/* 36 dialogues in three categories; every one carries a paid item and a guard item. */
struct fixture {
    struct meed_benchmark benchmark;
    struct meed_benchmark_item items[DIALOGUES * AXES];
};

static void fixture_fill(struct fixture *fixture)
{
    memset(fixture, 0, sizeof *fixture);
    struct meed_benchmark *b = &fixture->benchmark;
    b->axis_count = AXES;
    b->axes[0].weight = 1;
    b->axes[1].guard = true;
    b->category_count = CATEGORIES;
    b->dialogue_count = DIALOGUES;
    b->item_count = DIALOGUES * AXES;
    b->items = fixture->items;
    for (int32_t i = 0; i < b->item_count; i++) {
        int32_t dialogue = i / AXES;
        fixture->items[i] = (struct meed_benchmark_item){
            .axis = i % AXES, .category = dialogue % CATEGORIES, .dialogue = dialogue, .minus = -1};
    }
}

/* √(1/C² Σ_c s_c²/m_c): the standard error of a mean of category means. */
static double closed_form(const struct meed_benchmark *b, int32_t axis, const double *values)
{
    double variance = 0;
    for (int32_t c = 0; c < CATEGORIES; c++) {
        double mean = 0;
        double squares = 0;
        for (int32_t i = 0; i < b->item_count; i++) {
            bool mine = b->items[i].axis == axis && b->items[i].category == c;
            mean += mine ? values[i] / PER_CATEGORY : 0;
        }
        for (int32_t i = 0; i < b->item_count; i++) {
            bool mine = b->items[i].axis == axis && b->items[i].category == c;
            squares += mine ? (values[i] - mean) * (values[i] - mean) : 0;
        }
        variance += squares / (PER_CATEGORY - 1) / PER_CATEGORY / (CATEGORIES * CATEGORIES);
    }
    return sqrt(variance);
}

static void bootstrap_matches_the_closed_form(void **state)
{
    /* Goal: with 20,000 draws both axes and the paid value agree with the analytic standard error
     * to 3 % (five times the Monte-Carlo error); one more player is null: exactly 0. */
    (void)state;
    static struct fixture fixture;
    fixture_fill(&fixture);
    const struct meed_benchmark *b = &fixture.benchmark;
    double phi[2 * DIALOGUES * AXES] = {0};
    struct meed_rng rng = meed_rng_stream(4, "bootstrap-test", 0);
    for (int32_t i = 0; i < b->item_count; i++) {
        phi[i] = 0.02 * b->items[i].category + 0.01 * meed_rng_normal(&rng);
    }
    double axis_se[2 * AXES];
    double paid_se[2];
    assert_int_equal(meed_bootstrap_errors(b, phi, 2, 20000, 1, axis_se, paid_se), MEED_OK);
    assert_true(fabs(axis_se[0] / closed_form(b, 0, phi) - 1) < 0.03);
    assert_true(fabs(axis_se[1] / closed_form(b, 1, phi) - 1) < 0.03);
    assert_true(fabs(paid_se[0] - axis_se[0]) < 1e-12);
    assert_true(axis_se[2] == 0 && axis_se[3] == 0 && paid_se[1] == 0);
}

static void bootstrap_intervals_cover_the_truth(void **state)
{
    /* Goal: φ ± 1.96 se covers the true value in 95 % of 1,000 benchmarks drawn from one population
     * (within four binomial standard errors; heavier tails of small strata allowed for). */
    (void)state;
    static struct fixture fixture;
    fixture_fill(&fixture);
    const struct meed_benchmark *b = &fixture.benchmark;
    int covered = 0;
    for (uint64_t trial = 0; trial < 1000; trial++) {
        double phi[DIALOGUES * AXES] = {0};
        struct meed_rng rng = meed_rng_stream(6, "coverage", trial);
        double value = 0;
        for (int32_t i = 0; i < b->item_count; i++) {
            phi[i] = 0.03 + 0.02 * meed_rng_normal(&rng);
            value += b->items[i].axis == 0 ? phi[i] / DIALOGUES : 0;
        }
        double axis_se[AXES];
        double paid_se;
        assert_int_equal(meed_bootstrap_errors(b, phi, 1, 200, trial, axis_se, &paid_se), MEED_OK);
        covered += fabs(value - 0.03) <= 1.96 * paid_se ? 1 : 0;
    }
    assert_in_range(covered, 922, 978);
}

static void bootstrap_repeats_to_the_bit(void **state)
{
    /* Goal: same seed, same bits; another seed, others; 0 draws, zeros. */
    (void)state;
    static struct fixture fixture;
    fixture_fill(&fixture);
    double phi[DIALOGUES * AXES];
    for (int i = 0; i < DIALOGUES * AXES; i++) {
        phi[i] = sin(i);
    }
    double axis_se[4][AXES];
    double paid_se[4];
    const uint64_t seeds[4] = {1, 1, 2, 1};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(meed_bootstrap_errors(&fixture.benchmark, phi, 1, i < 3 ? 100 : 0,
                                               seeds[i], axis_se[i], &paid_se[i]),
                         MEED_OK);
    }
    assert_memory_equal(axis_se[0], axis_se[1], sizeof axis_se[0]);
    assert_true(paid_se[0] == paid_se[1] && paid_se[0] != paid_se[2] && paid_se[3] == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bootstrap_matches_the_closed_form),
        cmocka_unit_test(bootstrap_intervals_cover_the_truth),
        cmocka_unit_test(bootstrap_repeats_to_the_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

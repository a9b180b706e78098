/* Robust rules against naive float64 on whole matrices.
 *
 * Goal: median and trimmed mean are those of every coordinate of ΔW (ties, even counts, an idle
 * client), cut to the rank; krum, multikrum, normclip and fltrust choose the weights that their
 * papers say, in any order of clients; what cannot work is refused before a run, and empty or
 * opposed updates give a defined result. Method: float64 matrices (dense_update.h), and attackers
 * that the plain mean follows.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "server/aggregate.h"
#include "tests/support/dense_update.h"

enum { MOST = 8 };

struct cohort {
    int32_t count;
    struct meed_adapter *global, *clients[MOST];
    double p[MOST];
    double *updates[MOST]; /* ΔW_k, float64 */
    int64_t size;
};

/* Clients near one another; the last `attackers` far off. */
static void cohort_init(struct cohort *cohort, int32_t count, int32_t attackers, int32_t rank)
{
    *cohort = (struct cohort){.count = count, .global = dense_adapter(rank, 1, 0.2, false)};
    cohort->size = dense_count(cohort->global);
    struct meed_adapter *common = dense_adapter(rank, 2, 0.2, false);
    for (int32_t i = 0; i < count; i++) {
        bool attacks = i >= count - attackers;
        struct meed_adapter *own =
            dense_adapter(rank, 20 + (uint64_t)i, attacks ? 3.0 : 0.02, false);
        cohort->clients[i] = dense_adapter(rank, 3, 0, false);
        for (int32_t m = 0; m < own->module_count; m++) {
            struct meed_adapter_module *to = &cohort->clients[i]->modules[m];
            for (int64_t j = 0; j < to->r * to->k; j++) {
                to->a[j] = common->modules[m].a[j] + own->modules[m].a[j];
            }
            for (int64_t j = 0; j < to->n * to->r; j++) {
                to->b[j] = common->modules[m].b[j] + own->modules[m].b[j];
            }
        }
        meed_adapter_destroy(own);
        cohort->p[i] = 1.0 / count;
        cohort->updates[i] = dense_new(cohort->global);
        dense_add(cohort->clients[i], 1.0, cohort->updates[i]);
        dense_add(cohort->global, -1.0, cohort->updates[i]);
    }
    meed_adapter_destroy(common);
}

static void cohort_clear(struct cohort *cohort)
{
    for (int32_t i = 0; i < cohort->count; i++) {
        meed_adapter_destroy(cohort->clients[i]);
        free(cohort->updates[i]);
    }
    meed_adapter_destroy(cohort->global);
}

/* ΔW of the result, relative distance to `want` [size]. */
static double off(const struct cohort *cohort, const struct meed_aggregate_options *options,
                  const double *want)
{
    struct meed_adapter *next = NULL;
    struct meed_aggregate_report report;
    assert_int_equal(meed_aggregate_run(options, cohort->global,
                                        (const struct meed_adapter *const *)cohort->clients,
                                        cohort->p, cohort->count, &next, &report),
                     MEED_OK);
    double *got = dense_new(next), miss = 0.0, all = 0.0;
    dense_add(next, 1.0, got);
    dense_add(cohort->global, -1.0, got);
    for (int64_t i = 0; i < cohort->size; i++) {
        miss += (got[i] - want[i]) * (got[i] - want[i]);
        all += want[i] * want[i];
    }
    free(got);
    meed_adapter_destroy(next);
    return sqrt(miss / (all + 1e-30));
}

static int rising(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

static double *middles(const struct cohort *cohort, int32_t cut)
{
    double *want = dense_new(cohort->global), values[MOST];
    for (int64_t at = 0; at < cohort->size; at++) {
        for (int32_t i = 0; i < cohort->count; i++) {
            values[i] = cohort->count * cohort->p[i] * cohort->updates[i][at];
        }
        qsort(values, (size_t)cohort->count, sizeof *values, rising);
        for (int32_t i = cut; i < cohort->count - cut; i++) {
            want[at] += values[i] / (cohort->count - 2 * cut);
        }
    }
    return want;
}

static void aggregate_robust_orders_coordinates(void **state)
{
    (void)state;
    for (int32_t count = 1; count <= 7; count++) {
        struct cohort cohort;
        cohort_init(&cohort, count, count > 4, 12); /* 12 = min(N, K): nothing is cut */
        if (count > 2) {                            /* an idle client and twins: ties */
            meed_adapter_destroy(cohort.clients[0]);
            assert_int_equal(meed_adapter_clone(cohort.global, &cohort.clients[0]), MEED_OK);
            memset(cohort.updates[0], 0, (size_t)cohort.size * sizeof(double));
            meed_adapter_destroy(cohort.clients[1]);
            assert_int_equal(meed_adapter_clone(cohort.clients[2], &cohort.clients[1]), MEED_OK);
            memcpy(cohort.updates[1], cohort.updates[2], (size_t)cohort.size * sizeof(double));
        }
        struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_MEDIAN);
        double *want = middles(&cohort, (count - 1) / 2);
        assert_true(off(&cohort, &options, want) < 3e-6);
        free(want);
        options = meed_aggregate_options_of(MEED_AGGREGATION_TRIMMED);
        options.robust.trim = 0.34;
        want = middles(&cohort, (int32_t)(0.34 * count));
        assert_true(off(&cohort, &options, want) < 3e-6);
        free(want);
        cohort_clear(&cohort);
    }
}

/* The cut is as good as its report. */
static void aggregate_robust_cuts_coordinates_to_the_rank(void **state)
{
    (void)state;
    struct cohort cohort;
    cohort_init(&cohort, 5, 1, 2);
    struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_MEDIAN);
    struct meed_aggregate_report report;
    struct meed_adapter *next = NULL;
    assert_int_equal(meed_aggregate_run(&options, cohort.global,
                                        (const struct meed_adapter *const *)cohort.clients,
                                        cohort.p, 5, &next, &report),
                     MEED_OK);
    double *want = middles(&cohort, 2), *got = dense_new(next), miss = 0.0, full = 0.0;
    dense_add(cohort.global, 1.0, want);
    dense_add(next, 1.0, got);
    for (int64_t i = 0; i < cohort.size; i++) {
        miss += (got[i] - want[i]) * (got[i] - want[i]);
        full += want[i] * want[i];
    }
    assert_true(report.retained_energy < 1.0);
    assert_true(fabs(miss / full - (1.0 - report.retained_energy)) < 1e-5);
    free(want);
    free(got);
    meed_adapter_destroy(next);
    cohort_clear(&cohort);
}

/* ---- krum -------------------------------------------------------------------------------------
 */

static double krum_score(const struct cohort *cohort, int32_t i, int32_t attackers)
{
    double distances[MOST], score = 0.0;
    int32_t found = 0;
    for (int32_t j = 0; j < cohort->count; j++) {
        double square = 0.0;
        for (int64_t at = 0; at < cohort->size; at++) {
            double gap = cohort->updates[i][at] - cohort->updates[j][at];
            square += gap * gap;
        }
        if (j != i) {
            distances[found++] = square;
        }
    }
    qsort(distances, (size_t)found, sizeof *distances, rising);
    for (int32_t j = 0; j < cohort->count - attackers - 2; j++) {
        score += distances[j];
    }
    return score;
}

static void aggregate_robust_krum_finds_the_nearest(void **state)
{
    (void)state;
    struct cohort cohort;
    cohort_init(&cohort, 7, 2, 12);
    struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_KRUM);
    options.robust.attackers = 2;
    int32_t order[MOST];
    for (int32_t i = 0; i < 7; i++) {
        int32_t at = i;
        for (; at > 0 && krum_score(&cohort, order[at - 1], 2) > krum_score(&cohort, i, 2); at--) {
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
    assert_true(order[0] < 5); /* no attacker */
    assert_true(off(&cohort, &options, cohort.updates[order[0]]) < 3e-6);
    struct meed_adapter *kept = cohort.clients[6]; /* an idler is no candidate */
    assert_int_equal(meed_adapter_clone(cohort.global, &cohort.clients[6]), MEED_OK);
    double *six = dense_new(cohort.global);
    cohort.count = 6;
    int32_t best = 0;
    for (int32_t i = 1; i < 6; i++) {
        best = krum_score(&cohort, i, 2) < krum_score(&cohort, best, 2) ? i : best;
    }
    cohort.count = 7;
    for (int64_t at = 0; at < cohort.size; at++) {
        six[at] = cohort.updates[best][at] * 6 / 7; /* its weight stays with the global */
    }
    assert_true(off(&cohort, &options, six) < 3e-6);
    free(six);
    meed_adapter_destroy(cohort.clients[6]);
    cohort.clients[6] = kept;
    options = meed_aggregate_options_of(MEED_AGGREGATION_MULTIKRUM);
    options.robust.attackers = 2;
    for (int32_t selected = 0; selected <= 5; selected++) {
        options.robust.selected = selected;
        int32_t taken = selected ? selected : 5;
        double *want = dense_new(cohort.global);
        for (int32_t i = 0; i < taken; i++) {
            for (int64_t at = 0; at < cohort.size; at++) {
                want[at] += cohort.updates[order[i]][at] / taken;
            }
        }
        assert_true(off(&cohort, &options, want) < 3e-6);
        free(want);
    }
    cohort_clear(&cohort);
}

/* ---- norms and directions ---------------------------------------------------------------------
 */

static double norm_of(const struct cohort *cohort, int32_t i)
{
    return sqrt(dense_dot(cohort->updates[i], cohort->updates[i], cohort->size));
}

static double *weighted(const struct cohort *cohort, const double *q)
{
    double *want = dense_new(cohort->global);
    for (int32_t i = 0; i < cohort->count; i++) {
        for (int64_t at = 0; at < cohort->size; at++) {
            want[at] += q[i] * cohort->updates[i][at];
        }
    }
    return want;
}

static void aggregate_robust_clips_to_the_median_norm(void **state)
{
    (void)state;
    struct cohort cohort;
    cohort_init(&cohort, 6, 1, 12);
    meed_adapter_destroy(cohort.clients[0]); /* an idler must not pull the bound to zero */
    assert_int_equal(meed_adapter_clone(cohort.global, &cohort.clients[0]), MEED_OK);
    memset(cohort.updates[0], 0, (size_t)cohort.size * sizeof(double));
    double norms[MOST], q[MOST];
    for (int32_t i = 1; i < 6; i++) {
        norms[i - 1] = norm_of(&cohort, i);
    }
    qsort(norms, 5, sizeof *norms, rising);
    struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_NORMCLIP);
    options.robust.norm_multiple = 0.9;
    for (int32_t i = 0; i < 6; i++) {
        double norm = norm_of(&cohort, i);
        q[i] = cohort.p[i] * (norm > 0.9 * norms[2] ? 0.9 * norms[2] / norm : 1.0);
    }
    double *want = weighted(&cohort, q);
    assert_true(off(&cohort, &options, want) < 3e-6);
    free(want);
    cohort_clear(&cohort);
}

static void aggregate_robust_trusts_what_is_like_its_own(void **state)
{
    (void)state;
    struct cohort cohort;
    cohort_init(&cohort, 5, 1, 12);
    struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_FLTRUST);
    struct meed_aggregate_report report;
    struct meed_adapter *next = NULL;
    const struct meed_adapter *const *list = (const struct meed_adapter *const *)cohort.clients;
    assert_int_equal(meed_aggregate_run(&options, cohort.global, list, cohort.p, 5, &next, &report),
                     MEED_ARG); /* no update of the operator's */
    options.reference = cohort.clients[2];
    double own = norm_of(&cohort, 2), sum = 0.0, q[MOST];
    for (int32_t i = 0; i < 5; i++) {
        double dot = dense_dot(cohort.updates[i], cohort.updates[2], cohort.size);
        double trust = fmax(dot / (own * norm_of(&cohort, i)), 0.0);
        sum += trust;
        q[i] = trust * own / norm_of(&cohort, i);
    }
    for (int32_t i = 0; i < 5; i++) {
        q[i] /= sum;
    }
    double *want = weighted(&cohort, q);
    assert_true(off(&cohort, &options, want) < 3e-6);
    free(want);
    /* Nothing of its own, and everything against it: the model stays, bit for bit. */
    struct meed_adapter *still = NULL, *against = NULL;
    assert_int_equal(meed_adapter_clone(cohort.global, &still), MEED_OK);
    options.reference = still;
    assert_int_equal(meed_aggregate_run(&options, cohort.global, list, cohort.p, 5, &next, &report),
                     MEED_OK);
    assert_true(meed_adapter_equal(next, cohort.global) && report.used == 0);
    meed_adapter_destroy(next);
    assert_int_equal(meed_adapter_clone(cohort.clients[1], &against), MEED_OK);
    struct meed_adapter *zero = dense_adapter(12, 1, 0.0, false);
    for (int64_t i = 0; i < against->modules[0].n * 12; i++) {
        against->modules[0].b[i] *= -1.0f;
    }
    options.reference = against;
    double only[MOST] = {0, 1.0, 0, 0, 0};
    for (int32_t m = 1; m < against->module_count; m++) { /* one module speaks */
        memset(against->modules[m].b, 0, (size_t)(against->modules[m].n * 12) * sizeof(float));
        memset(cohort.clients[1]->modules[m].b, 0,
               (size_t)(against->modules[m].n * 12) * sizeof(float));
    }
    assert_int_equal(meed_aggregate_run(&options, zero, list, only, 5, &next, &report), MEED_OK);
    assert_true(meed_adapter_equal(next, zero) && report.used == 0);
    meed_adapter_destroy(next);
    meed_adapter_destroy(zero);
    meed_adapter_destroy(still);
    meed_adapter_destroy(against);
    cohort_clear(&cohort);
}

static void aggregate_robust_refuses_what_cannot_work(void **state)
{
    (void)state;
    struct meed_robust_options robust = {.norm_multiple = 1.0};
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_KRUM, &robust, 3), MEED_OK);
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_KRUM, &robust, 2), MEED_CONFIG);
    robust.attackers = 2;
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_KRUM, &robust, 4), MEED_CONFIG);
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_MULTIKRUM, &robust, 4), MEED_CONFIG);
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_MULTIKRUM, &robust, 5), MEED_OK);
    robust.selected = 4;
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_MULTIKRUM, &robust, 5), MEED_CONFIG);
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_SVD, &robust, 1), MEED_OK);
    robust.trim = 0.5;
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_TRIMMED, &robust, 5), MEED_CONFIG);
    robust = (struct meed_robust_options){.norm_multiple = 0.0};
    assert_int_equal(meed_aggregate_check(MEED_AGGREGATION_NORMCLIP, &robust, 5), MEED_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aggregate_robust_orders_coordinates),
        cmocka_unit_test(aggregate_robust_cuts_coordinates_to_the_rank),
        cmocka_unit_test(aggregate_robust_krum_finds_the_nearest),
        cmocka_unit_test(aggregate_robust_clips_to_the_median_norm),
        cmocka_unit_test(aggregate_robust_trusts_what_is_like_its_own),
        cmocka_unit_test(aggregate_robust_refuses_what_cannot_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Mixes of two adapters: the exact product cut to the rank, and the paper's mean of factors.
 *
 * Goal: the product mix is the best cut of β B₁A₁ + (1−β) B₂A₂ as a float64 matrix gives it, its
 * report tells what was lost, and what is written depends on the product and the global adapter
 * alone. Method: whole matrices (dense_update.h); the same branches in other coordinates.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "engine/adapter_mix.h"
#include "proto/message.h"
#include "tests/support/dense_update.h"

enum { RANK = 3, BOTH = MEED_FACTOR_A | MEED_FACTOR_B };

struct trio {
    struct meed_adapter *global, *first, *second, *out;
};

/* From where the branches start: anywhere; from B = 0; from an A with two rows that are nearly the
 * same, whose coordinates nothing can be near. */
enum start { PLAIN, FRESH, BENT, STARTS };

/* Branches that have moved by `step` from a global of size 0.2. */
static struct trio trio_new(double step, enum start start)
{
    struct trio trio = {.global = dense_adapter(RANK, 1, 0.2, false)};
    for (int32_t m = 0; m < trio.global->module_count; m++) {
        struct meed_adapter_module *module = &trio.global->modules[m];
        if (start == FRESH) {
            memset(module->b, 0, (size_t)(module->n * module->r) * sizeof *module->b);
        }
        for (int64_t k = 0; start == BENT && k < module->k; k++) {
            module->a[k] = module->a[module->k + k] * (k % 2 ? 1.0001f : 0.9999f);
        }
    }
    struct meed_adapter **branches[] = {&trio.first, &trio.second};
    for (int i = 0; i < 2; i++) {
        struct meed_adapter *moved =
            dense_changed(trio.global, RANK, 7 + (uint64_t)i, step, false, BOTH);
        int64_t count = meed_adapter_value_count(moved);
        assert_int_equal(meed_adapter_clone(trio.global, branches[i]), MEED_OK);
        float *values = (*branches[i])->modules[0].a, *delta = moved->modules[0].a;
        for (int64_t j = 0; j < count; j++) {
            values[j] += delta[j];
        }
        meed_adapter_destroy(moved);
    }
    assert_int_equal(meed_adapter_clone(trio.global, &trio.out), MEED_OK);
    return trio;
}

static void trio_free(struct trio *trio)
{
    meed_adapter_destroy(trio->global);
    meed_adapter_destroy(trio->first);
    meed_adapter_destroy(trio->second);
    meed_adapter_destroy(trio->out);
}

static double distance(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    }
    return sqrt(sum);
}

/* The mix in float64, whole; and cut module by module. */
static double *mixed(const struct trio *trio, double beta, bool cut)
{
    double *dense = dense_new(trio->global), *at = dense;
    dense_add(trio->first, beta, dense);
    dense_add(trio->second, 1.0 - beta, dense);
    for (int32_t m = 0; cut && m < trio->global->module_count; m++) {
        const struct meed_adapter_module *module = &trio->global->modules[m];
        dense_cut(at, module->n, module->k, module->r);
        at += module->n * module->k;
    }
    return dense;
}

static double *whole(const struct meed_adapter *adapter)
{
    double *dense = dense_new(adapter);
    dense_add(adapter, 1.0, dense);
    return dense;
}

/* Goal: result and report against float64. 2e-6 of the mix: fp32 rounds the factors to 6e-8, which
 * coordinates of condition 100 at most carry into the product. */
static void adapter_mix_is_the_best_cut(void **state)
{
    (void)state;
    static const double betas[] = {0.3, 0.5, 0.7}, steps[] = {0.01, 0.2};
    static const char *const words[STARTS] = {"", " fresh", " bent"};
    for (size_t i = 0; i < STARTS * MEED_COUNT(betas) * MEED_COUNT(steps); i++) {
        double beta = betas[i % 3], step = steps[i / 3 % 2];
        struct trio trio = trio_new(step, (enum start)(i / 6));
        int64_t count = dense_count(trio.global);
        struct meed_adapter_mix_report report;
        assert_int_equal(
            meed_adapter_mix_product(trio.global, trio.first, trio.second, beta, trio.out, &report),
            MEED_OK);
        double *exact = mixed(&trio, beta, false), *best = mixed(&trio, beta, true);
        double *got = whole(trio.out), *start = whole(trio.global), *none = dense_new(trio.global);
        double size = distance(exact, none, count), moved = distance(exact, start, count);
        double lost = distance(exact, best, count) / moved;
        assert_true(distance(got, best, count) <= 2e-6 * size);
        assert_true(fabs(report.discarded - lost * lost) <= 1e-9);
        struct meed_adapter *means = NULL;
        assert_int_equal(meed_adapter_clone(trio.global, &means), MEED_OK);
        assert_int_equal(meed_adapter_mix_factors(trio.first, trio.second, beta, means), MEED_OK);
        double *mean = whole(means);
        assert_true(fabs(report.factor_error - distance(mean, exact, count) / moved) <= 1e-6);
        print_message("beta %.1f step %.2f%s: discarded %.2e, factors miss %.2e\n", beta, step,
                      words[i / 6], report.discarded, report.factor_error);
        free(exact);
        free(best);
        free(got);
        free(start);
        free(none);
        free(mean);
        meed_adapter_destroy(means);
        trio_free(&trio);
    }
}

/* In place: (B·M, M⁻¹·A) with a unit triangular M, which leaves the product alone. */
static void other_coordinates(struct meed_adapter *adapter)
{
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t j = 1; j < module->r; j++) {
            for (int64_t n = 0; n < module->n; n++) {
                module->b[n * module->r + j] += 0.5f * module->b[n * module->r];
            }
            for (int64_t k = 0; k < module->k; k++) {
                module->a[k] -= 0.5f * module->a[j * module->k + k];
            }
        }
    }
}

/* Goal: nothing of the branches' own factors is told. Method: branches of the same products in
 * other coordinates give the same pair, up to the rounding of the products. */
static void adapter_mix_tells_the_product_alone(void **state)
{
    (void)state;
    for (int start = 0; start < STARTS; start++) {
        struct trio trio = trio_new(0.1, (enum start)start);
        struct meed_adapter *before = NULL;
        struct meed_adapter_mix_report report;
        assert_int_equal(
            meed_adapter_mix_product(trio.global, trio.first, trio.second, 0.5, trio.out, &report),
            MEED_OK);
        assert_int_equal(meed_adapter_clone(trio.out, &before), MEED_OK);
        other_coordinates(trio.first);
        other_coordinates(trio.second);
        assert_int_equal(
            meed_adapter_mix_product(trio.global, trio.first, trio.second, 0.5, trio.out, &report),
            MEED_OK);
        int64_t count = meed_adapter_value_count(before);
        const float *x = before->modules[0].a, *y = trio.out->modules[0].a;
        double apart = 0.0;
        for (int64_t i = 0; i < count; i++) {
            apart = fmax(apart, fabs((double)x[i] - (double)y[i]));
        }
        assert_true(apart <= 1e-4); /* factors are 0.2; 1e-7 of the products times condition */
        meed_adapter_destroy(before);
        trio_free(&trio);
    }
}

/* Goal: where nothing was trained the global's own bits come back, from both spaces; a factor that
 * both branches share keeps its bits under the mean. */
static void adapter_mix_of_nothing_is_nothing(void **state)
{
    (void)state;
    struct trio trio = trio_new(0.1, FRESH);
    struct meed_adapter_mix_report report;
    assert_int_equal(
        meed_adapter_mix_product(trio.global, trio.global, trio.global, 0.3, trio.out, &report),
        MEED_OK);
    assert_true(meed_adapter_equal(trio.out, trio.global));
    assert_true(report.discarded == 0.0 && report.factor_error == 0.0);
    assert_int_equal(meed_adapter_mix_factors(trio.first, trio.first, 0.3, trio.out), MEED_OK);
    assert_true(meed_adapter_equal(trio.out, trio.first));
    trio_free(&trio);
}

/* Largest change of a value of A or B from the global's: what the codec's steps go by. */
static double reach(const struct meed_adapter *adapter, const struct meed_adapter *global)
{
    double most = 0.0;
    for (int64_t i = 0; i < meed_adapter_value_count(global); i++) {
        most = fmax(most, fabs((double)adapter->modules[0].a[i] - (double)global->modules[0].a[i]));
    }
    return most;
}

/* Goal: coordinates near the global's: the change of the factors is about as large as that of the
 * mean of factors, where the SVD's own pair would be as far away as the factors are long. */
static void adapter_mix_stays_near(void **state)
{
    (void)state;
    struct trio trio = trio_new(0.01, PLAIN);
    struct meed_adapter_mix_report report;
    assert_int_equal(meed_adapter_mix_factors(trio.first, trio.second, 0.5, trio.out), MEED_OK);
    double mean = reach(trio.out, trio.global);
    assert_int_equal(
        meed_adapter_mix_product(trio.global, trio.first, trio.second, 0.5, trio.out, &report),
        MEED_OK);
    double product = reach(trio.out, trio.global);
    print_message("largest change of a value: product %.4f, mean of factors %.4f\n", product, mean);
    assert_true(product <= 3.0 * mean);
    trio_free(&trio);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adapter_mix_is_the_best_cut),
        cmocka_unit_test(adapter_mix_tells_the_product_alone),
        cmocka_unit_test(adapter_mix_of_nothing_is_nothing),
        cmocka_unit_test(adapter_mix_stays_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

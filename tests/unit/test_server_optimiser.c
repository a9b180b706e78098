/* Server optimisers against the formulas of their papers in float64.
 *
 * Goal: six rounds of each rule give x, m and v of a float64 recurrence; a factor that a round does
 * not train keeps x, m and v; avgm with η = 1, β = 0 changes nothing; numbers out of range and
 * aggregations without lasting coordinates are refused. Method: drawn merged adapters; the
 * reference stores m and v in fp32 as the contract says, so equality is to one rounding of x.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "server/server_optimiser.h"
#include "tests/support/dense_update.h"

static double sign(double x)
{
    return (x > 0.0) - (x < 0.0);
}

/* One entry, one round, Reddi et al. algorithm 2. */
static double reference(const struct meed_server_options *o, double x, double delta, float *m,
                        float *v)
{
    double square = delta * delta;
    switch (o->rule) {
    case MEED_SERVER_AVGM:
        *m = (float)(o->beta1 * (double)*m + delta);
        return x + o->lr * (double)*m;
    case MEED_SERVER_ADAGRAD:
        *m = (float)delta;
        *v = (float)((double)*v + square);
        break;
    case MEED_SERVER_YOGI:
        *m = (float)(o->beta1 * (double)*m + (1 - o->beta1) * delta);
        *v = (float)((double)*v - (1 - o->beta2) * square * sign((double)*v - square));
        break;
    default:
        *m = (float)(o->beta1 * (double)*m + (1 - o->beta1) * delta);
        *v = (float)(o->beta2 * (double)*v + (1 - o->beta2) * square);
    }
    return x + o->lr * (double)*m / (sqrt((double)*v) + o->tau);
}

static void run_rule(enum meed_server_rule rule)
{
    struct meed_server_options options = meed_server_optimiser_defaults(rule);
    struct meed_adapter *global = dense_adapter(3, 1, 0.2, false);
    size_t count = (size_t)meed_adapter_value_count(global);
    float *m = malloc(count * sizeof *m), *v = malloc(count * sizeof *v);
    float *want_m = malloc(count * sizeof *m), *want_v = malloc(count * sizeof *v);
    float *before = malloc(count * sizeof *m), *mean = malloc(count * sizeof *m);
    float *after = malloc(count * sizeof *m);
    meed_server_optimiser_start(&options, (int64_t)count, m, v);
    for (size_t i = 0; i < count; i++) {
        want_m[i] = 0.0f;
        want_v[i] = (float)(options.tau * options.tau);
    }
    for (uint64_t round = 1; round <= 6; round++) {
        struct meed_adapter *next = dense_changed(global, 3, round, 0.01 * (double)round, false,
                                                  MEED_FACTOR_A | MEED_FACTOR_B);
        meed_adapter_to_flat(global, before);
        meed_adapter_to_flat(next, mean);
        meed_server_optimiser_step(&options, global, MEED_FACTOR_A | MEED_FACTOR_B, m, v, next);
        meed_adapter_to_flat(next, after);
        for (size_t i = 0; i < count; i++) {
            double x = reference(&options, (double)before[i], (double)mean[i] - (double)before[i],
                                 &want_m[i], &want_v[i]);
            assert_true(fabs((double)after[i] - x) <= 6e-8 * fabs(x) + 1e-30);
        }
        assert_memory_equal(m, want_m, count * sizeof *m);
        assert_memory_equal(v, want_v, count * sizeof *v);
        meed_adapter_destroy(global);
        global = next;
    }
    float *all[] = {m, v, want_m, want_v, before, mean, after};
    for (size_t i = 0; i < MEED_COUNT(all); i++) {
        free(all[i]);
    }
    meed_adapter_destroy(global);
}

static void server_optimiser_follows_the_papers(void **state)
{
    (void)state;
    for (int rule = MEED_SERVER_AVGM; rule < MEED_SERVER_RULE_COUNT; rule++) {
        run_rule((enum meed_server_rule)rule);
    }
}

static void server_optimiser_leaves_untrained_factors(void **state)
{
    (void)state;
    struct meed_server_options options = meed_server_optimiser_defaults(MEED_SERVER_ADAM);
    struct meed_adapter *global = dense_adapter(2, 1, 0.2, false);
    size_t count = (size_t)meed_adapter_value_count(global);
    float *m = malloc(count * sizeof *m), *v = malloc(count * sizeof *v);
    meed_server_optimiser_start(&options, (int64_t)count, m, v);
    for (size_t i = 0; i < count; i++) {
        m[i] = 0.5f; /* momentum from the rounds that trained A */
    }
    struct meed_adapter *next = dense_changed(global, 2, 5, 0.1, false, MEED_FACTOR_B);
    meed_server_optimiser_step(&options, global, MEED_FACTOR_B, m, v, next);
    size_t a_count = (size_t)(global->modules[0].r * global->modules[0].k);
    assert_memory_equal(next->modules[0].a, global->modules[0].a, a_count * sizeof(float));
    assert_true(m[0] == 0.5f && v[0] == (float)(options.tau * options.tau));
    assert_true(m[a_count] != 0.5f);
    free(m);
    free(v);
    meed_adapter_destroy(next);
    meed_adapter_destroy(global);
}

static void server_optimiser_without_momentum_takes_the_mean(void **state)
{
    (void)state;
    struct meed_server_options options = {
        .rule = MEED_SERVER_AVGM, .lr = 1.0, .beta1 = 0.0, .tau = 1e-3};
    struct meed_adapter *global = dense_adapter(2, 1, 0.2, true), *want = NULL;
    struct meed_adapter *next =
        dense_changed(global, 2, 9, 0.2, true, MEED_FACTOR_A | MEED_FACTOR_B);
    size_t count = (size_t)meed_adapter_value_count(global);
    float *m = malloc(count * sizeof *m), *v = malloc(count * sizeof *v);
    assert_int_equal(meed_adapter_clone(next, &want), MEED_OK);
    meed_server_optimiser_start(&options, (int64_t)count, m, v);
    meed_server_optimiser_step(&options, global, MEED_FACTOR_A | MEED_FACTOR_B, m, v, next);
    for (int32_t i = 0; i < next->module_count; i++) {
        for (int64_t j = 0; j < next->modules[i].r * next->modules[i].k; j++) {
            assert_true(next->modules[i].a[j] == want->modules[i].a[j]);
        }
    }
    free(m);
    free(v);
    meed_adapter_destroy(global);
    meed_adapter_destroy(want);
    meed_adapter_destroy(next);
}

static void server_optimiser_refuses_what_does_not_fit(void **state)
{
    (void)state;
    const struct meed_aggregate_traits *svd = meed_aggregate_traits(MEED_AGGREGATION_SVD);
    const struct meed_aggregate_traits *mean = meed_aggregate_traits(MEED_AGGREGATION_FEDAVG);
    struct meed_server_options options = meed_server_optimiser_defaults(MEED_SERVER_ADAM);
    assert_int_equal(meed_server_optimiser_check(&options, mean), MEED_OK);
    assert_int_equal(meed_server_optimiser_check(&options, svd), MEED_CONFIG);
    options.beta1 = 1.0;
    assert_int_equal(meed_server_optimiser_check(&options, mean), MEED_CONFIG);
    options = meed_server_optimiser_defaults(MEED_SERVER_YOGI);
    options.tau = 0.0;
    assert_int_equal(meed_server_optimiser_check(&options, mean), MEED_CONFIG);
    options = meed_server_optimiser_defaults(MEED_SERVER_NONE);
    assert_int_equal(meed_server_optimiser_check(&options, svd), MEED_OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(server_optimiser_follows_the_papers),
        cmocka_unit_test(server_optimiser_leaves_untrained_factors),
        cmocka_unit_test(server_optimiser_without_momentum_takes_the_mean),
        cmocka_unit_test(server_optimiser_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Strategies that promise S exactly: ffa, rolora, stack, fedex.
 *
 * Goal: over rounds the result's ΔW is S = g_0 ΔW_g + Σ p_k ΔW_k, bit for bit on small integers in
 * any order of clients, and to fp32 rounding on normals; ranks beside the trained ones grow by n·r
 * and are cut at the cap with the loss that is reported. Method: S as a float64 matrix
 * (dense_update.h); integers with weights that are powers of two leave nothing to round.
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

enum { CLIENTS = 3, RANK = 2, ROUNDS = 3 };
static const double weights[CLIENTS] = {0.25, 0.5, 0.125}; /* an eighth stays with the global */
static const enum meed_aggregation exact[] = {MEED_AGGREGATION_FFA, MEED_AGGREGATION_ROLORA,
                                              MEED_AGGREGATION_STACK, MEED_AGGREGATION_FEDEX};
static const int orders[][CLIENTS] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                      {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};

static double *model_of(const struct meed_adapter *adapter)
{
    double *dense = dense_new(adapter);
    dense_add(adapter, 1.0, dense);
    return dense;
}

/* S in float64. */
static double *earned(const struct meed_adapter *global, struct meed_adapter *const *clients)
{
    double *dense = dense_new(global), rest = 1.0;
    for (int i = 0; i < CLIENTS; i++) {
        rest -= weights[i];
        dense_add(clients[i], weights[i], dense);
    }
    dense_add(global, rest, dense);
    return dense;
}

static struct meed_adapter *merge(const struct meed_aggregate_options *options,
                                  const struct meed_adapter *global,
                                  struct meed_adapter *const *clients, const int *order,
                                  struct meed_aggregate_report *report)
{
    const struct meed_adapter *list[CLIENTS];
    double p[CLIENTS];
    struct meed_adapter *next = NULL;
    for (int i = 0; i < CLIENTS; i++) {
        list[i] = clients[order[i]];
        p[i] = weights[order[i]];
    }
    assert_int_equal(meed_aggregate_run(options, global, list, p, CLIENTS, &next, report), MEED_OK);
    return next;
}

static double distance(const double *x, const double *y, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += (x[i] - y[i]) * (x[i] - y[i]);
    }
    return sqrt(sum);
}

/* Fresh A of `stack` is drawn, not whole; with its B at zero it does not show in the model. */
static void run_rounds(enum meed_aggregation aggregation, bool whole)
{
    struct meed_adapter *global = dense_adapter(RANK, 1, 0.2, whole);
    struct meed_aggregate_options options = meed_aggregate_options_of(aggregation);
    options.rank = RANK;
    for (options.round = 1; options.round <= ROUNDS; options.round++) {
        uint32_t factors = meed_aggregate_trained(aggregation, options.round);
        struct meed_adapter *clients[CLIENTS], *next = NULL;
        struct meed_aggregate_report report;
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = dense_changed(global, RANK, (uint64_t)(10 * options.round + i), 0.2, whole,
                                       factors);
        }
        double *want = earned(global, clients);
        int64_t count = dense_count(global);
        double size = sqrt(dense_dot(want, want, count));
        for (size_t o = 0; o < MEED_COUNT(orders); o++) {
            meed_adapter_destroy(next);
            next = merge(&options, global, clients, orders[o], &report);
            double *got = model_of(next);
            assert_true(report.retained_energy == 1.0);
            if (whole) {
                assert_memory_equal(got, want, (size_t)count * sizeof *got);
            } else {
                assert_true(distance(got, want, count) <= 2e-6 * size); /* fp32 factors */
            }
            free(got);
        }
        int64_t grown = meed_aggregate_traits(aggregation)->freezes ? CLIENTS * RANK : 0;
        bool first = aggregation == MEED_AGGREGATION_STACK && options.round == 1;
        assert_int_equal(next->modules[0].r - global->modules[0].r, first ? grown + RANK : grown);
        free(want);
        for (int i = 0; i < CLIENTS; i++) {
            meed_adapter_destroy(clients[i]);
        }
        meed_adapter_destroy(global);
        global = next;
    }
    meed_adapter_destroy(global);
}

static void aggregate_exact_is_bit_equal_on_integers(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(exact); i++) {
        run_rounds(exact[i], true);
    }
}

static void aggregate_exact_is_exact_on_normals(void **state)
{
    (void)state;
    for (size_t i = 0; i < MEED_COUNT(exact); i++) {
        run_rounds(exact[i], false);
    }
}

static void aggregate_exact_keeps_what_is_not_trained(void **state)
{
    (void)state;
    struct meed_adapter *global = dense_adapter(RANK, 1, 0.2, false), *clients[CLIENTS];
    struct meed_aggregate_options options = meed_aggregate_options_of(MEED_AGGREGATION_ROLORA);
    struct meed_aggregate_report report;
    for (options.round = 1; options.round <= 2; options.round++) {
        uint32_t factors = meed_aggregate_trained(options.aggregation, options.round);
        assert_int_equal(factors, options.round == 1 ? MEED_FACTOR_B : MEED_FACTOR_A);
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = dense_changed(global, RANK, (uint64_t)i + 5, 0.2, false, factors);
        }
        struct meed_adapter *next = merge(&options, global, clients, orders[0], &report);
        const struct meed_adapter_module *g = &global->modules[0], *n = &next->modules[0];
        size_t a_bytes = (size_t)(g->r * g->k) * sizeof(float);
        size_t b_bytes = (size_t)(g->n * g->r) * sizeof(float);
        assert_int_equal(memcmp(g->a, n->a, a_bytes) == 0, factors == MEED_FACTOR_B);
        assert_int_equal(memcmp(g->b, n->b, b_bytes) == 0, factors == MEED_FACTOR_A);
        assert_true(report.fedit_error < 1e-12); /* a shared factor has no covariance */
        meed_adapter_destroy(next);
        for (int i = 0; i < CLIENTS; i++) {
            meed_adapter_destroy(clients[i]);
        }
    }
    meed_adapter_destroy(global);
}

/* Beyond the cap: the best cut of what is kept beside, and min(N, K) ranks lose nothing. */
static void check_cap(enum meed_aggregation aggregation, int32_t cap)
{
    struct meed_adapter *global = dense_adapter(RANK, 1, 0.2, false), *clients[CLIENTS];
    struct meed_aggregate_options options = meed_aggregate_options_of(aggregation);
    struct meed_aggregate_report report;
    options.rank = RANK;
    for (options.round = 1; options.round <= 4; options.round++) {
        for (int i = 0; i < CLIENTS; i++) {
            clients[i] = dense_changed(global, RANK, (uint64_t)(40 * options.round + i), 0.2, false,
                                       MEED_FACTOR_A | MEED_FACTOR_B);
        }
        options.frozen_cap = 128;
        struct meed_adapter *whole = merge(&options, global, clients, orders[0], &report);
        options.frozen_cap = cap;
        struct meed_adapter *next = merge(&options, global, clients, orders[0], &report);
        assert_true(next->modules[0].r <= RANK + cap && report.frozen <= cap);
        double *want = model_of(whole), *got = model_of(next);
        int64_t count = dense_count(global);
        double lost = distance(got, want, count), size = sqrt(dense_dot(want, want, count));
        if (next->modules[0].r < whole->modules[0].r && cap < 12) {
            assert_true(report.retained_energy < 1.0);
            assert_true(lost > 1e-3 * size && lost < 0.9 * size);
        } else {
            assert_true(fabs(report.retained_energy - 1.0) < 1e-12);
            assert_true(lost <= 2e-6 * size);
        }
        free(want);
        free(got);
        meed_adapter_destroy(whole);
        for (int i = 0; i < CLIENTS; i++) {
            meed_adapter_destroy(clients[i]);
        }
        meed_adapter_destroy(global);
        global = next;
    }
    meed_adapter_destroy(global);
}

static void aggregate_exact_is_cut_at_the_cap(void **state)
{
    (void)state;
    for (int cap = 4; cap <= 12; cap += 8) { /* 12 is min(N, K) of both modules */
        check_cap(MEED_AGGREGATION_STACK, cap);
        check_cap(MEED_AGGREGATION_FEDEX, cap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aggregate_exact_is_bit_equal_on_integers),
        cmocka_unit_test(aggregate_exact_is_exact_on_normals),
        cmocka_unit_test(aggregate_exact_keeps_what_is_not_trained),
        cmocka_unit_test(aggregate_exact_is_cut_at_the_cap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

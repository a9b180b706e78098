/* Aggregation against float64 arithmetic on whole matrices.
 *
 * Goal: svd is S where the rank suffices and the best cut of S where it does not; fedavg is the
 * mean of factors; energies and errors are what naive sums give; unchanged and excluded clients
 * leave the global adapter its weight; bits do not depend on threads. Method: small adapters with
 * known factors, S formed as an N × K matrix, its singular values by one-sided Jacobi written here.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "server/aggregate.h"
#include "tests/support/dense_update.h"

static struct meed_model_config model;

static struct meed_adapter *make(int32_t rank, uint64_t seed, double size_b)
{
    struct meed_lora_config lora = {.rank = rank,
                                    .alpha = 2.0f * (float)rank,
                                    .targets = 1u << MEED_PROJ_Q | 1u << MEED_PROJ_UP};
    struct meed_adapter *adapter = NULL;
    assert_int_equal(meed_adapter_create(&model, &lora, &adapter), MEED_OK);
    meed_adapter_init(adapter, 7);
    struct meed_rng rng = meed_rng_stream(seed, "test", 0);
    for (int32_t m = 0; m < adapter->module_count; m++) {
        struct meed_adapter_module *module = &adapter->modules[m];
        for (int64_t i = 0; i < module->r * module->k; i++) {
            module->a[i] += (float)(0.3 * size_b * meed_rng_normal(&rng));
        }
        for (int64_t i = 0; i < module->n * module->r; i++) {
            module->b[i] = (float)(size_b * meed_rng_normal(&rng));
        }
    }
    return adapter;
}

static enum meed_status run(enum meed_aggregation aggregation, const struct meed_adapter *global,
                            const struct meed_adapter *const *clients, const double *p,
                            int32_t count, struct meed_pool *pool, struct meed_adapter **next,
                            struct meed_aggregate_report *report)
{
    struct meed_aggregate_options options = meed_aggregate_options_of(aggregation);
    options.pool = pool;
    options.reference = aggregation == MEED_AGGREGATION_FLTRUST ? clients[0] : NULL;
    return meed_aggregate_run(&options, global, clients, p, count, next, report);
}

/* sum [N, K] += weight·s·B·A */
static void add_product(const struct meed_adapter_module *module, double weight, double *sum)
{
    for (int64_t n = 0; n < module->n; n++) {
        for (int64_t i = 0; i < module->r; i++) {
            double b = weight * (double)module->scale * (double)module->b[n * module->r + i];
            for (int64_t k = 0; k < module->k; k++) {
                sum[n * module->k + k] += b * (double)module->a[i * module->k + k];
            }
        }
    }
}

static double norm2(const double *x, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) {
        sum += x[i] * x[i];
    }
    return sum;
}

/* Squared singular values of x [rows, cols], descending. Destroys x. */
static void singular_squares(double *x, int64_t rows, int64_t cols, double *squares)
{
    dense_decompose(x, rows, cols, NULL);
    for (int64_t p = 0; p < cols; p++) {
        squares[p] = 0;
        for (int64_t i = 0; i < rows; i++) {
            squares[p] += x[i * cols + p] * x[i * cols + p];
        }
    }
    for (int64_t p = 0; p < cols; p++) {
        for (int64_t q = p + 1; q < cols; q++) {
            if (squares[q] > squares[p]) {
                double kept = squares[p];
                squares[p] = squares[q];
                squares[q] = kept;
            }
        }
    }
}

enum { ROOM = 64 * 64 };

struct reference {
    double full, kept, cut_error, update, fedit;
};

/* Naive sums over module m. */
static struct reference refer(int32_t m, const struct meed_adapter *global,
                              const struct meed_adapter *const *clients, const double *p,
                              int32_t count, const struct meed_adapter *next)
{
    static double s[ROOM], update[ROOM], work[ROOM], mean[ROOM], squares[64];
    memset(s, 0, sizeof s);
    memset(update, 0, sizeof update);
    memset(mean, 0, sizeof mean);
    const struct meed_adapter_module *g = &global->modules[m];
    int64_t size = g->n * g->k;
    double rest = 1.0;
    for (int32_t i = 0; i < count; i++) {
        rest -= p[i];
        add_product(&clients[i]->modules[m], p[i], s);
    }
    add_product(g, rest, s);
    memcpy(update, s, sizeof update);
    add_product(g, -1.0, update);
    for (int64_t n = 0; n < g->n; n++) {
        for (int64_t j = 0; j < g->r; j++) {
            double b = rest * (double)g->b[n * g->r + j];
            for (int32_t i = 0; i < count; i++) {
                b += p[i] * (double)clients[i]->modules[m].b[n * g->r + j];
            }
            for (int64_t k = 0; k < g->k; k++) {
                double a = rest * (double)g->a[j * g->k + k];
                for (int32_t i = 0; i < count; i++) {
                    a += p[i] * (double)clients[i]->modules[m].a[j * g->k + k];
                }
                mean[n * g->k + k] += (double)g->scale * b * a;
            }
        }
    }
    struct reference found = {.full = norm2(s, size), .update = norm2(update, size)};
    for (int64_t i = 0; i < size; i++) {
        mean[i] -= s[i];
        work[i] = s[i];
    }
    found.fedit = norm2(mean, size);
    add_product(&next->modules[m], -1.0, s);
    found.cut_error = norm2(s, size);
    singular_squares(work, g->n, g->k, squares);
    for (int64_t i = 0; i < MEED_MIN(g->r, g->k); i++) {
        found.kept += squares[i];
    }
    return found;
}

static void check_close(double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * (fabs(want) + 1e-12))) {
        print_error("got %.17g, want %.17g\n", got, want);
        fail();
    }
}

static void check_svd(int32_t rank, int32_t count)
{
    struct meed_adapter *global = make(rank, 1, 0.2), *next = NULL;
    struct meed_adapter *clients[8];
    double p[8];
    for (int32_t i = 0; i < count; i++) {
        clients[i] = make(rank, 100 + (uint64_t)i, 0.1 * (i + 1));
        p[i] = 0.9 / count;
    }
    const struct meed_adapter *const *list = (const struct meed_adapter *const *)clients;
    struct meed_aggregate_report report;
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, list, p, count, NULL, &next, &report),
                     MEED_OK);
    struct reference sum = {0, 0, 0, 0, 0};
    for (int32_t m = 0; m < global->module_count; m++) {
        struct reference one = refer(m, global, list, p, count, next);
        /* Eckart–Young: no rank-r matrix is closer; 1e-6 is fp32's rounding of the factors. */
        assert_true(fabs(one.cut_error - (one.full - one.kept)) <= 1e-6 * one.full);
        sum.full += one.full;
        sum.kept += one.kept;
        sum.update += one.update;
        sum.fedit += one.fedit;
    }
    check_close(report.update_norm, sqrt(sum.update), 1e-10);
    check_close(report.retained_energy, sum.kept / sum.full, 1e-10);
    check_close(report.fedit_error, sqrt(sum.fedit / sum.update), 1e-9);
    print_message("rank %d, %d clients: retained %.4f, FedIT error %.3f\n", rank, count,
                  report.retained_energy, report.fedit_error);
    for (int32_t i = 0; i < count; i++) {
        meed_adapter_destroy(clients[i]);
    }
    meed_adapter_destroy(global);
    meed_adapter_destroy(next);
}

static void aggregate_svd_is_the_best_cut(void **state)
{
    (void)state;
    check_svd(1, 3);
    check_svd(2, 5);
    check_svd(4, 1);
    check_svd(4, 8);  /* stacked rank beyond both sides */
    check_svd(16, 2); /* rank beyond K: nothing is cut */
}

static void aggregate_leaves_weight_with_the_global(void **state)
{
    (void)state;
    struct meed_adapter *global = make(3, 1, 0.2), *same = NULL, *next = NULL;
    struct meed_adapter *other = make(3, 2, 0.2);
    assert_int_equal(meed_adapter_clone(global, &same), MEED_OK);
    const struct meed_adapter *unchanged[] = {same, same};
    double half[] = {0.5, 0.5};
    struct meed_aggregate_report report;
    for (int rule = 0; rule < MEED_AGGREGATION_COUNT; rule++) {
        assert_int_equal(
            run((enum meed_aggregation)rule, global, unchanged, half, 2, NULL, &next, &report),
            MEED_OK);
        assert_true(meed_adapter_equal(next, global));
        assert_true(report.update_norm == 0.0 && report.fedit_error == 0.0);
        meed_adapter_destroy(next);
    }
    /* An unchanged client, an excluded one, and the mere absence of both are the same round. */
    const struct meed_adapter *with[] = {other, same, other};
    double weights[] = {0.25, 0.25, 0.0};
    struct meed_adapter *alone = NULL;
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, with, weights, 3, NULL, &next, &report),
                     MEED_OK);
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, with, weights, 1, NULL, &alone, &report),
                     MEED_OK);
    assert_true(meed_adapter_equal(next, alone));
    meed_adapter_destroy(global);
    meed_adapter_destroy(same);
    meed_adapter_destroy(other);
    meed_adapter_destroy(next);
    meed_adapter_destroy(alone);
}

static void aggregate_keeps_unused_directions_alive(void **state)
{
    (void)state;
    struct meed_adapter *global = make(4, 1, 0.0), *client = make(4, 2, 0.1), *next = NULL;
    for (int32_t m = 0; m < client->module_count; m++) {
        struct meed_adapter_module *module = &client->modules[m];
        for (int64_t n = 0; n < module->n; n++) {
            for (int64_t j = 1; j < 4; j++) {
                module->b[n * 4 + j] = 0.0f; /* the update has rank 1 */
            }
        }
    }
    const struct meed_adapter *list[] = {client};
    double p = 1.0;
    struct meed_aggregate_report report;
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, list, &p, 1, NULL, &next, &report), MEED_OK);
    for (int32_t m = 0; m < next->module_count; m++) {
        const struct meed_adapter_module *module = &next->modules[m];
        float largest = 0.0f;
        for (int64_t n = 0; n < module->n; n++) {
            float value = module->b[n * 4];
            largest = fabsf(value) > fabsf(largest) ? value : largest;
            assert_true(module->b[n * 4 + 3] == 0.0f);
        }
        assert_true(largest > 0.0f);
        double row = 0.0;
        for (int64_t k = 0; k < module->k; k++) {
            row += (double)module->a[3 * module->k + k] * (double)module->a[3 * module->k + k];
        }
        check_close(row, 1.0 / 3.0, 1e-5);
    }
    meed_adapter_destroy(global);
    meed_adapter_destroy(client);
    meed_adapter_destroy(next);
}

static void aggregate_fedavg_is_the_mean_of_factors(void **state)
{
    (void)state;
    struct meed_adapter *global = make(2, 1, 0.2), *x = make(2, 2, 0.2), *y = make(2, 3, 0.2);
    const struct meed_adapter *list[] = {x, y};
    double p[] = {0.25, 0.5};
    struct meed_adapter *next = NULL;
    struct meed_aggregate_report report;
    assert_int_equal(run(MEED_AGGREGATION_FEDAVG, global, list, p, 2, NULL, &next, &report),
                     MEED_OK);
    for (int32_t m = 0; m < next->module_count; m++) {
        for (int64_t i = 0; i < next->modules[m].r * next->modules[m].k; i++) {
            double want = 0.25 * (double)global->modules[m].a[i] +
                          0.25 * (double)x->modules[m].a[i] + 0.5 * (double)y->modules[m].a[i];
            check_close((double)next->modules[m].a[i], want, 1e-6);
        }
    }
    assert_true(report.fedit_error > 0.0);
    meed_adapter_destroy(global);
    meed_adapter_destroy(x);
    meed_adapter_destroy(y);
    meed_adapter_destroy(next);
}

static void aggregate_bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    struct meed_adapter *global = make(3, 1, 0.2), *x = make(3, 2, 0.2), *y = make(3, 3, 0.2);
    const struct meed_adapter *list[] = {x, y};
    double p[] = {0.5, 0.5};
    struct meed_adapter *one = NULL, *many = NULL;
    struct meed_aggregate_report report;
    struct meed_pool *pool = NULL;
    assert_int_equal(meed_pool_create(4, &pool), MEED_OK);
    for (int rule = 0; rule < MEED_AGGREGATION_COUNT; rule++) {
        enum meed_aggregation aggregation = (enum meed_aggregation)rule;
        assert_int_equal(run(aggregation, global, list, p, 2, NULL, &one, &report), MEED_OK);
        assert_int_equal(run(aggregation, global, list, p, 2, pool, &many, &report), MEED_OK);
        assert_true(meed_adapter_equal(one, many));
        meed_adapter_destroy(one);
        meed_adapter_destroy(many);
    }
    meed_pool_destroy(pool);
    meed_adapter_destroy(global);
    meed_adapter_destroy(x);
    meed_adapter_destroy(y);
}

static void aggregate_refuses_what_does_not_fit(void **state)
{
    (void)state;
    struct meed_adapter *global = make(3, 1, 0.2), *other = make(2, 2, 0.2), *next = NULL;
    const struct meed_adapter *list[] = {other}, *good[] = {global, global};
    double p = 1.0, two[] = {0.6, 0.6}, minus[] = {-0.1, 0.1};
    struct meed_aggregate_report report;
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, list, &p, 1, NULL, &next, &report),
                     MEED_FORMAT);
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, good, two, 2, NULL, &next, &report),
                     MEED_ARG);
    assert_int_equal(run(MEED_AGGREGATION_SVD, global, good, minus, 2, NULL, &next, &report),
                     MEED_ARG);
    assert_null(next);
    enum meed_aggregation aggregation = MEED_AGGREGATION_FEDAVG;
    for (int rule = 0; rule < MEED_AGGREGATION_COUNT; rule++) {
        const char *name = meed_aggregate_name((enum meed_aggregation)rule);
        assert_int_equal(meed_aggregate_parse(name, &aggregation), MEED_OK);
        assert_int_equal((int)aggregation, rule);
    }
    assert_int_equal(meed_aggregate_parse("fedadgrad", &aggregation), MEED_ARG);
    meed_adapter_destroy(global);
    meed_adapter_destroy(other);
}

static int setup(void **state)
{
    (void)state;
    model = (struct meed_model_config){.hidden = 12,
                                       .ffn = 20,
                                       .layers = 2,
                                       .heads = 2,
                                       .kv_heads = 1,
                                       .head_dim = 8,
                                       .vocab = 32,
                                       .max_positions = 64};
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(aggregate_svd_is_the_best_cut),
        cmocka_unit_test(aggregate_leaves_weight_with_the_global),
        cmocka_unit_test(aggregate_keeps_unused_directions_alive),
        cmocka_unit_test(aggregate_fedavg_is_the_mean_of_factors),
        cmocka_unit_test(aggregate_bits_do_not_depend_on_threads),
        cmocka_unit_test(aggregate_refuses_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}

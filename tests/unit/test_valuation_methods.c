/* Every method through the one call, on a random model: the axioms that each keeps, agreement with
 * exact values, the two ways to derivatives, clients that split, more clients than masks hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include "evaluation/valuation.h"
#include "tests/support/random_cohort.h"

enum { CLIENTS = 6, MANY = 40 };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *global;
static struct meed_adapter *made[MANY];
static const struct meed_adapter *sent[MANY]; /* 2 is null, 3 and 4 are twins */

static int cohort_make(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 2);
    random_cohort_benchmark(16, 5, &benchmark);
    global = random_cohort_adapter(&cohort, 50, 0.1f);
    for (int k = 0; k < MANY; k++) {
        made[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.1f);
        sent[k] = made[k];
    }
    sent[2] = global;
    sent[4] = made[3];
    return 0;
}

static int cohort_drop(void **state)
{
    (void)state;
    for (int k = 0; k < MANY; k++) {
        meed_adapter_destroy(made[k]);
    }
    meed_adapter_destroy(global);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static struct meed_valuation *run(const struct meed_adapter *const *clients, int32_t count,
                                  const double *p, const struct meed_valuation_options *options)
{
    struct meed_valuation *valuation = NULL;
    double even[MANY];
    for (int32_t k = 0; k < count; k++) {
        even[k] = 1.0 / count;
    }
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, clients,
                                        count, p ? p : even, options, &valuation),
                     MEED_OK);
    return valuation;
}

static struct meed_valuation_options options_of(enum meed_value_method method,
                                                enum meed_coalition_path path)
{
    struct meed_valuation_options options = meed_valuation_defaults();
    options.method = method;
    options.path = path;
    options.budget = 1000003;
    return options;
}

static double range_of(const struct meed_valuation *v)
{
    double low = v->clients[0].phi, high = low;
    for (int32_t k = 1; k < v->players; k++) {
        low = fmin(low, v->clients[k].phi);
        high = fmax(high, v->clients[k].phi);
    }
    return high - low;
}

static void methods_keep_their_axioms(void **state)
{
    /* Goal: for every method the null client has exactly 0 ± 0 and is not paid, twins share every
     * bit, credits are conserved; methods that are efficient leave a residual of rounding only. */
    (void)state;
    for (int m = 0; m < MEED_VALUE_METHOD_COUNT; m++) {
        struct meed_valuation_options options =
            options_of((enum meed_value_method)m, MEED_PATH_STACK);
        options.evaluations = 300;
        struct meed_valuation *v = run(sent, CLIENTS, NULL, &options);
        const struct meed_value_client *idle = &v->clients[2], *one = &v->clients[3],
                                       *other = &v->clients[4];
        assert_true(idle->phi == 0 && idle->se == 0 && idle->share == 0);
        assert_true(one->phi == other->phi && one->se == other->se);
        int64_t sum = 0;
        for (int k = 0; k < CLIENTS; k++) {
            sum += v->clients[k].share;
            bool sampled = v->method >= MEED_VALUE_PERMUTATION && v->method <= MEED_VALUE_BANZHAF;
            assert_true((v->clients[k].sampling_se > 0) == (sampled && k != 2));
            assert_true(v->clients[k].se >= v->clients[k].sampling_se);
        }
        assert_true(sum == v->paid);
        if (m == MEED_VALUE_EXACT || m == MEED_VALUE_PERMUTATION || m == MEED_VALUE_AUTO) {
            assert_true(fabs(v->residual) < 1e-9);
        }
        meed_valuation_destroy(v);
    }
}

static void sampled_values_agree_with_exact_ones(void **state)
{
    /* Goal: permutation and Owen values within 4 of their own standard errors of exact. */
    (void)state;
    struct meed_valuation_options options = options_of(MEED_VALUE_EXACT, MEED_PATH_STACK);
    struct meed_valuation *exact = run(sent, CLIENTS, NULL, &options);
    for (int m = MEED_VALUE_PERMUTATION; m <= MEED_VALUE_OWEN; m++) {
        options.method = (enum meed_value_method)m;
        options.evaluations = 1500;
        struct meed_valuation *v = run(sent, CLIENTS, NULL, &options);
        for (int k = 0; k < CLIENTS; k++) {
            double error = fabs(v->clients[k].phi - exact->clients[k].phi);
            assert_true(error <= 4 * v->clients[k].sampling_se);
            assert_true(v->clients[k].sampling_se < 0.1 * range_of(exact));
        }
        meed_valuation_destroy(v);
    }
    meed_valuation_destroy(exact);
}

/* Work never passes its total, which is reached. */
struct watch {
    bool overrun;
    int64_t left;
};
static bool watch_progress(void *user, int64_t done, int64_t total)
{
    struct watch *watch = user;
    watch->overrun = watch->overrun || done > total;
    watch->left = total - done;
    return true;
}

static void gradient_agrees_with_exact_and_with_itself(void **state)
{
    /* Goal: eight nodes of a random game, curved far beyond quadratic, leave a residual of fp32
     * rounding (1e-4 of the range of values) and values near Shapley's; gates and projection give
     * one answer to fp32 rounding; the folds' standard errors are of the size of the dialogues' (16
     * dialogues, few degrees of freedom: a factor of 3). Progress ends at its total. */
    (void)state;
    struct meed_valuation_options options = options_of(MEED_VALUE_EXACT, MEED_PATH_STACK);
    struct watch watch = {false, -1};
    options.progress = watch_progress;
    options.progress_user = &watch;
    struct meed_valuation *exact = run(sent, CLIENTS, NULL, &options);
    double range = range_of(exact);
    options.method = MEED_VALUE_GRADIENT;
    options.nodes = 8;
    struct meed_valuation *gates = run(sent, CLIENTS, NULL, &options);
    options.path = MEED_PATH_MERGE;
    struct meed_valuation *projected = run(sent, CLIENTS, NULL, &options);
    assert_true(!watch.overrun && watch.left == 0);
    assert_true(gates->path == MEED_PATH_STACK && projected->path == MEED_PATH_MERGE);
    assert_true(gates->evaluations <= 3 && gates->coalition_count == 0);
    assert_true(fabs(gates->residual) < 1e-4 * range);
    assert_true(fabs(projected->residual) < 1e-4 * range);
    for (int k = 0; k < CLIENTS; k++) {
        const struct meed_value_client *x = &gates->clients[k], *y = &projected->clients[k];
        assert_true(fabs(x->phi - exact->clients[k].phi) < 0.1 * range);
        assert_true(fabs(x->phi - y->phi) < 1e-5 * range);
        for (int a = 0; a < benchmark.axis_count; a++) {
            assert_true(fabs(x->axis_phi[a] - y->axis_phi[a]) < 1e-5 * range);
        }
        assert_true(k == 2 ? y->se == 0 : y->se > x->se / 3 && y->se < 3 * x->se);
    }
    meed_valuation_destroy(exact);
    meed_valuation_destroy(gates);
    meed_valuation_destroy(projected);
}

static void splitting_a_client_gains_nothing_by_gradient(void **state)
{
    /* Goal: a client that joins twice with half the weight each is paid by gradient what it was
     * paid once, to fp64 rounding; by exact Shapley to 5 % of the range on this curved game, the
     * stated tolerance (splitting is an axiom of Aumann and Shapley, not of Shapley). */
    (void)state;
    static const double whole[4] = {0.25, 0.25, 0.25, 0.25};
    static const double halves[5] = {0.25, 0.25, 0.25, 0.125, 0.125};
    const struct meed_adapter *once[4] = {made[0], made[1], made[5], made[6]};
    const struct meed_adapter *twice[5] = {made[0], made[1], made[5], made[6], made[6]};
    static const struct {
        enum meed_value_method method;
        enum meed_coalition_path path;
        double room;
    } cases[] = {{MEED_VALUE_GRADIENT, MEED_PATH_STACK, 1e-12},
                 {MEED_VALUE_GRADIENT, MEED_PATH_MERGE, 1e-12},
                 {MEED_VALUE_EXACT, MEED_PATH_STACK, 0.05}};
    for (size_t i = 0; i < MEED_COUNT(cases); i++) {
        struct meed_valuation_options options = options_of(cases[i].method, cases[i].path);
        struct meed_valuation *one = run(once, 4, whole, &options);
        struct meed_valuation *two = run(twice, 5, halves, &options);
        double gain = two->clients[3].phi + two->clients[4].phi - one->clients[3].phi;
        assert_true(two->clients[3].phi == two->clients[4].phi);
        assert_true(fabs(gain) <= cases[i].room * range_of(one));
        meed_valuation_destroy(one);
        meed_valuation_destroy(two);
    }
}

static void forty_clients_are_valued_by_all_but_exact(void **state)
{
    /* Goal: nothing but exact stops at 16: 40 clients by auto (gradient), leave-one-out,
     * permutation and Banzhaf, the null client at 0, and who stays is valued once more at most. */
    (void)state;
    static const enum meed_value_method methods[] = {MEED_VALUE_AUTO, MEED_VALUE_LEAVE_ONE_OUT,
                                                     MEED_VALUE_PERMUTATION, MEED_VALUE_BANZHAF};
    for (size_t m = 0; m < MEED_COUNT(methods); m++) {
        struct meed_valuation_options options = options_of(methods[m], MEED_PATH_AUTO);
        options.evaluations = 150;
        struct meed_valuation *v = run(sent, MANY, NULL, &options);
        assert_true(v->clients[2].phi == 0 && v->clients[3].phi == v->clients[4].phi);
        assert_true(v->paid == 0 || v->paid == options.budget);
        assert_true(isfinite(v->value_kept) && v->evaluations <= 2 * 151);
        meed_valuation_destroy(v);
    }
    struct meed_valuation *none = NULL;
    double p[MANY] = {0};
    struct meed_valuation_options options = options_of(MEED_VALUE_EXACT, MEED_PATH_AUTO);
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent,
                                        MANY, p, &options, &none),
                     MEED_ARG);
    options.method = MEED_VALUE_PERMUTATION;
    options.shard.folder = "nowhere";
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent,
                                        MANY, p, &options, &none),
                     MEED_ARG);
    assert_null(none);
}

static void many_clients_resume_from_the_cache(void **state)
{
    /* Goal: a sampling run of 40 clients, stopped or repeated, scores nothing that is on disk. */
    (void)state;
    char cache[96];
    snprintf(cache, sizeof cache, "%s/many.db", cohort.folder);
    struct meed_valuation_options options = options_of(MEED_VALUE_PERMUTATION, MEED_PATH_STACK);
    options.evaluations = 80;
    options.cache_path = cache;
    struct meed_valuation *first = run(sent, MANY, NULL, &options);
    struct meed_valuation *again = run(sent, MANY, NULL, &options);
    assert_true(first->evaluations > 50 && again->evaluations == 0);
    for (int k = 0; k < MANY; k++) {
        assert_true(first->clients[k].phi == again->clients[k].phi);
    }
    meed_valuation_destroy(first);
    meed_valuation_destroy(again);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", cache, suffixes[i]);
        remove(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_keep_their_axioms),
        cmocka_unit_test(sampled_values_agree_with_exact_ones),
        cmocka_unit_test(gradient_agrees_with_exact_and_with_itself),
        cmocka_unit_test(splitting_a_client_gains_nothing_by_gradient),
        cmocka_unit_test(forty_clients_are_valued_by_all_but_exact),
        cmocka_unit_test(many_clients_resume_from_the_cache),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}

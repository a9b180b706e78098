/* The one call on a random model: conservation, exact zeros, twins, guards, repeatability. */
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

enum { CLIENTS = 6 };

static struct random_cohort cohort;
static struct meed_benchmark benchmark;
static struct meed_adapter *global;
static struct meed_adapter *made[CLIENTS];
static const struct meed_adapter *sent[CLIENTS]; /* 2 is null, 3 and 4 are twins */
static const double weights[CLIENTS] = {1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6., 1 / 6.};

static int cohort_make(void **state)
{
    (void)state;
    random_cohort_open(&cohort, 2);
    random_cohort_benchmark(8, 5, &benchmark);
    global = random_cohort_adapter(&cohort, 50, 0.1f);
    for (int k = 0; k < CLIENTS; k++) {
        made[k] = random_cohort_adapter(&cohort, (uint64_t)k, 0.25f);
        sent[k] = made[k];
    }
    sent[2] = global;
    sent[4] = made[3];
    return 0;
}

static int cohort_drop(void **state)
{
    (void)state;
    for (int k = 0; k < CLIENTS; k++) {
        meed_adapter_destroy(made[k]);
    }
    meed_adapter_destroy(global);
    meed_arena_clear(&benchmark.arena);
    random_cohort_close(&cohort);
    return 0;
}

static struct meed_valuation *valuation_run(const struct meed_valuation_options *options)
{
    struct meed_valuation *valuation = NULL;
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent,
                                        CLIENTS, weights, options, &valuation),
                     MEED_OK);
    return valuation;
}

static void valuation_keeps_the_axioms_of_a_real_game(void **state)
{
    /* Goal: efficiency to 1e-9, the null client exactly 0 with error 0 and unpaid, twins to the
     * bit, axis values add up by weight, credits conserved, 64 rows from 24 scored coalitions. */
    (void)state;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 1000003;
    struct meed_valuation *v = valuation_run(&options);
    assert_int_equal(v->coalition_count, 64);
    assert_true(v->evaluations == 24); /* 2·2·3·2: {0} {1} {3,4} {5} */
    assert_true(fabs(v->residual) < 1e-9);
    assert_true(v->value_empty == v->coalition_values[0]);
    assert_true(v->value_full == v->coalition_values[63]);
    assert_true(v->coalition_values[4] == v->value_empty);
    const struct meed_value_client *idle = &v->clients[2];
    assert_true(idle->phi == 0 && idle->se == 0 && idle->share == 0);
    assert_int_equal(idle->status, MEED_PAY_UNPAID);
    assert_string_equal(idle->reason, "the update changes nothing");
    assert_memory_equal(&v->clients[3].phi, &v->clients[4].phi, sizeof(double));
    assert_true(v->clients[3].se == v->clients[4].se);
    int64_t sum = 0;
    for (int k = 0; k < CLIENTS; k++) {
        sum += v->clients[k].share;
        assert_true(v->clients[k].phi == v->clients[k].axis_phi[0]); /* the other axis is a guard */
        assert_true(k == 2 || v->clients[k].se > 0);
    }
    assert_true(sum == v->paid && (v->paid == options.budget || v->paid == 0));
    assert_true((v->paid == 0) == (v->note[0] != '\0'));
    meed_valuation_destroy(v);
}

static void valuation_repeats_and_resumes_to_the_bit(void **state)
{
    /* Goal: same inputs, same hash, values, errors and shares: again, with a cache, from the cache.
     */
    (void)state;
    char cache[96];
    snprintf(cache, sizeof cache, "%s/utilities.db", cohort.folder);
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 777;
    options.batch_tokens = 100;
    struct meed_valuation *first = valuation_run(&options);
    options.cache_path = cache;
    for (int run = 0; run < 2; run++) {
        struct meed_valuation *again = valuation_run(&options);
        assert_true(again->evaluations == (run ? 0 : 24));
        assert_memory_equal(again->utilities_hash, first->utilities_hash, MEED_SHA256_BYTES);
        for (int k = 0; k < CLIENTS; k++) {
            assert_true(again->clients[k].phi == first->clients[k].phi);
            assert_true(again->clients[k].se == first->clients[k].se);
            assert_true(again->clients[k].share == first->clients[k].share);
            assert_string_equal(again->clients[k].reason, first->clients[k].reason);
        }
        meed_valuation_destroy(again);
    }
    meed_valuation_destroy(first);
    static const char *const suffixes[] = {"", "-wal", "-shm"};
    for (int i = 0; i < 3; i++) {
        char name[128];
        snprintf(name, sizeof name, "%s%s", cache, suffixes[i]);
        remove(name);
    }
}

static void valuation_guards_exclude_with_a_reason(void **state)
{
    /* Goal: with z = 0 and no cohort to compare with, a client below zero on the guard axis is
     * excluded and unpaid, and its reason names the axis and the value. */
    (void)state;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 1000;
    options.guard_z = 0;
    int guarded = 0;
    const double one[1] = {1};
    for (int k = 0; k < CLIENTS; k++) {
        struct meed_valuation *v = NULL;
        assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global,
                                            &sent[k], 1, one, &options, &v),
                         MEED_OK);
        const struct meed_value_client *client = v->clients;
        bool harmful = client->phi < 0, below = client->axis_phi[1] < 0;
        assert_true((client->status == MEED_PAY_EXCLUDED) == (harmful || below));
        if (client->status == MEED_PAY_EXCLUDED) {
            assert_true(client->score > 1 && client->weight == 0 && client->share == 0);
            assert_non_null(strstr(client->reason, harmful ? "value −" : "fit −"));
            assert_non_null(strstr(client->reason, harmful
                                                       ? ": the update makes the model worse"
                                                       : ": answers do not fit their questions"));
            guarded += harmful ? 0 : 1;
        }
        meed_valuation_destroy(v);
    }
    assert_true(guarded > 0);
}

static void valuation_without_the_excluded_is_that_of_the_others(void **state)
{
    /* Goal: who stays is valued once more as if nobody else had come: values and the published
     * value agree with a valuation of those alone with the weights that they have in the end. With
     * a huge z nobody is excluded. */
    (void)state;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 1000;
    options.guard_z = 0;
    struct meed_valuation *v = valuation_run(&options);
    const struct meed_adapter *kept[CLIENTS];
    double p[CLIENTS];
    int32_t stay = 0, of[CLIENTS];
    for (int k = 0; k < CLIENTS; k++) {
        if (v->clients[k].status != MEED_PAY_EXCLUDED) {
            kept[stay] = sent[k];
            of[stay++] = k;
        }
    }
    assert_in_range(stay, 1, CLIENTS - 1);
    for (int i = 0; i < stay; i++) {
        p[i] = v->clients[of[i]].weight;
    }
    options.guard_z = 1e6;
    struct meed_valuation *alone = NULL;
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, kept,
                                        stay, p, &options, &alone),
                     MEED_OK);
    for (int i = 0; i < stay; i++) {
        assert_true(fabs(v->clients[of[i]].phi - alone->clients[i].phi) < 1e-9);
    }
    assert_true(fabs(v->value_kept - alone->value_full) < 1e-9 && fabs(v->residual) < 1e-9);
    meed_valuation_destroy(alone);
    meed_valuation_destroy(v);
    options.guard_z = 1e6;
    v = valuation_run(&options);
    for (int k = 0; k < CLIENTS; k++) {
        assert_int_not_equal(v->clients[k].status, MEED_PAY_EXCLUDED);
    }
    meed_valuation_destroy(v);
}

static void valuation_publishes_nothing_worse(void **state)
{
    /* Goal: over cohorts of random strengths nobody who stays is below zero beyond its error, with
     * the weight that it has in the end, and neither is the round; some are left out only after
     * others were, and some only for what they do together. Only what the first pass leaves out is
     * spread over the others, up to twice their weight. */
    (void)state;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.budget = 1000;
    options.guard_z = 1;
    int later = 0, together = 0;
    for (int draw = 0; draw < 40; draw++) {
        struct meed_adapter *clients[CLIENTS];
        struct meed_valuation *v = NULL;
        for (int k = 0; k < CLIENTS; k++) {
            float size = 0.1f + 0.03f * (float)((draw * 7 + k * 5) % 12);
            clients[k] = random_cohort_adapter(&cohort, (uint64_t)(100 + draw * CLIENTS + k), size);
        }
        assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global,
                                            (const struct meed_adapter *const *)clients, CLIENTS,
                                            weights, &options, &v),
                         MEED_OK);
        int first = 0, stay = 0;
        for (int k = 0; k < CLIENTS; k++) {
            bool out = v->clients[k].status == MEED_PAY_EXCLUDED;
            first += out && v->clients[k].score != 1;
            stay += out ? 0 : 1;
        }
        for (int k = 0; k < CLIENTS; k++) {
            const struct meed_value_client *client = &v->clients[k];
            bool out = client->status == MEED_PAY_EXCLUDED;
            assert_true(out || client->phi + options.guard_z * client->se >= 0);
            assert_true((client->weight == 0) == out && (client->reason[0] != 0 || !out));
            later += out && client->score == 1;
            together += strstr(client->reason, "together") != NULL;
            double weight = fmin(1.0 / (CLIENTS - first), 2.0 / CLIENTS);
            assert_true(out || fabs(client->weight - weight) < 1e-15);
            meed_adapter_destroy(clients[k]);
        }
        assert_true(stay > 0 || v->value_kept == v->value_empty);
        assert_true(v->value_kept - v->value_empty + options.guard_z * v->kept_se >= 0);
        assert_true(v->value_kept == v->value_empty || v->kept_se > 0);
        meed_valuation_destroy(v);
    }
    print_message("%d left out by a later pass or together, %d of them together\n", later,
                  together);
    assert_true(together > 0 && later > together);
}

static void valuation_by_leave_one_out_needs_n_plus_two(void **state)
{
    /* Goal: rows ∅, N, N∖k; φ_k = v(N) − v(N∖k); 6 coalitions scored (the null client leaves N). */
    (void)state;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.method = MEED_VALUE_LEAVE_ONE_OUT;
    options.path = MEED_PATH_STACK;
    struct meed_valuation *v = valuation_run(&options);
    assert_int_equal(v->coalition_count, CLIENTS + 2);
    assert_true(v->evaluations == 6); /* twins leave the same coalition behind */
    for (int k = 0; k < CLIENTS; k++) {
        assert_true(fabs(v->clients[k].phi - (v->value_full - v->coalition_values[2 + k])) < 1e-12);
        assert_true(v->coalition_masks[2 + k] == (63u & ~(1u << k)));
    }
    assert_true(v->clients[2].phi == 0);
    meed_valuation_destroy(v);
}

static void valuation_refuses_what_it_cannot_value(void **state)
{
    (void)state; /* Goal: no clients, too many, a negative budget: ARG. */
    struct meed_valuation *v = NULL;
    struct meed_valuation_options options = meed_valuation_defaults();
    static const int32_t counts[] = {0, 17};
    for (int i = 0; i < 2; i++) {
        assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent,
                                            counts[i], weights, &options, &v),
                         MEED_ARG);
    }
    options.budget = -1;
    assert_int_equal(meed_valuation_run(cohort.be, cohort.checkpoint, &benchmark, global, sent,
                                        CLIENTS, weights, &options, &v),
                     MEED_ARG);
    assert_null(v);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(valuation_keeps_the_axioms_of_a_real_game),
        cmocka_unit_test(valuation_repeats_and_resumes_to_the_bit),
        cmocka_unit_test(valuation_guards_exclude_with_a_reason),
        cmocka_unit_test(valuation_without_the_excluded_is_that_of_the_others),
        cmocka_unit_test(valuation_publishes_nothing_worse),
        cmocka_unit_test(valuation_by_leave_one_out_needs_n_plus_two),
        cmocka_unit_test(valuation_refuses_what_it_cannot_value),
    };
    return cmocka_run_group_tests(tests, cohort_make, cohort_drop);
}

/* Payment: conservation, order of ties, verdicts, and the two limits of the shrunk rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdbool.h>
#include <string.h>
#include "base/rng.h"
#include "evaluation/payment.h"

static const double guard_z = 2.576;

static int64_t settle(enum meed_pay_rule rule, int64_t budget, struct meed_payment_player *players,
                      int32_t count)
{
    int64_t paid = -1;
    assert_int_equal(meed_payment_settle(rule, guard_z, budget, players, count, &paid), MEED_OK);
    return paid;
}

static void payment_conserves_the_budget_in_ten_thousand_cases(void **state)
{
    /* Goal: Σ shares is the budget or, where no weight is positive, 0; shares follow weights to
     * within one credit and 2^-30 of the budget; nobody excluded or null is paid. */
    (void)state;
    struct meed_rng rng = meed_rng_stream(1, "payment", 0);
    for (int trial = 0; trial < 10000; trial++) {
        struct meed_payment_player players[400] = {{0}};
        int32_t count = 1 + (int32_t)meed_rng_below(&rng, trial % 10 ? 16 : 400);
        int64_t budget = (int64_t)(meed_rng_u64(&rng) >> (2 + meed_rng_below(&rng, 62)));
        for (int32_t k = 0; k < count; k++) {
            players[k].phi = (meed_rng_normal(&rng) + 0.5) * pow(10, -3.0 * meed_rng_unit(&rng));
            players[k].se = meed_rng_unit(&rng) * 0.2;
            players[k].null = meed_rng_below(&rng, 8) == 0;
            players[k].left_out = meed_rng_below(&rng, 8) == 0;
        }
        enum meed_pay_rule rule = (enum meed_pay_rule)(trial % MEED_PAY_RULE_COUNT);
        int64_t paid = settle(rule, budget, players, count);
        int64_t sum = 0;
        double weights = 0;
        for (int32_t k = 0; k < count; k++) {
            assert_true(players[k].share >= 0);
            assert_true((players[k].status == MEED_PAY_PAID) == (players[k].share > 0));
            assert_true(!(players[k].null || players[k].left_out) || players[k].share == 0);
            sum += players[k].share;
            weights += players[k].weight;
        }
        assert_true(sum == paid);
        assert_true(paid == (weights > 0 ? budget : 0));
        for (int32_t k = 0; k < count && weights > 0; k++) {
            double quota = (double)budget * (players[k].weight / weights);
            assert_true(fabs((double)players[k].share - quota) <=
                        1.0 + (double)budget * MEED_MAX(count, 16) * 0x1p-30);
        }
    }
}

static void payment_gives_leftover_credits_to_the_lower_index(void **state)
{
    /* Goal: three equal weights and 100 credits: 34, 33, 33; remainders decide before indices. */
    (void)state;
    int64_t shares[3];
    int64_t paid;
    const double equal[3] = {0.5, 0.5, 0.5};
    assert_int_equal(meed_payment_split(100, equal, 3, shares, &paid), MEED_OK);
    assert_true(shares[0] == 34 && shares[1] == 33 && shares[2] == 33 && paid == 100);
    assert_int_equal(meed_payment_split(101, equal, 3, shares, &paid), MEED_OK);
    assert_true(shares[0] == 34 && shares[1] == 34 && shares[2] == 33);
    const double skewed[3] = {1, 1, 2}; /* of 7: 1.75, 1.75, 3.5 */
    assert_int_equal(meed_payment_split(7, skewed, 3, shares, &paid), MEED_OK);
    assert_true(shares[0] == 2 && shares[1] == 2 && shares[2] == 3);
}

static void payment_pays_nobody_where_nobody_is_payable(void **state)
{
    /* Goal: all negative, all null, and a budget of 0 each pay 0 and say why. */
    (void)state;
    struct meed_payment_player players[3] = {{.phi = -0.1, .se = 0.01, .left_out = true},
                                             {.phi = -0.2, .se = 0.01},
                                             {.phi = -0.001, .se = 0.01}};
    for (int rule = 0; rule < 2; rule++) {
        assert_true(settle((enum meed_pay_rule)rule, 1000, players, 3) == 0);
        assert_int_equal(players[0].status, MEED_PAY_EXCLUDED);
        assert_int_equal(players[0].cause, MEED_PAYMENT_LEFT_OUT);
        assert_int_equal(players[1].cause, MEED_PAYMENT_WORTHLESS);
        assert_int_equal(players[2].status, MEED_PAY_UNPAID);
        assert_int_equal(players[2].cause, MEED_PAYMENT_WORTHLESS);
    }
    struct meed_payment_player idle[2] = {{.null = true}, {.null = true}};
    assert_true(settle(MEED_PAY_SHRUNK, 1000, idle, 2) == 0);
    assert_int_equal(idle[1].cause, MEED_PAYMENT_NULL);
    struct meed_payment_player good[2] = {{.phi = 1, .se = 0.1}, {.phi = 2, .se = 0.1}};
    assert_true(settle(MEED_PAY_SHRUNK, 0, good, 2) == 0);
    assert_int_equal(good[0].status, MEED_PAY_UNPAID);
    assert_int_equal(good[0].cause, MEED_PAYMENT_ROUNDED);
    assert_true(settle(MEED_PAY_SHRUNK, 1000, good, 0) == 0);
}

static void payment_shrunk_tends_to_proportional_and_to_equal(void **state)
{
    /* Goal: with vanishing errors `shrunk` is `proportional`; with errors above the spread it pays
     * equally; a single client takes all. */
    (void)state;
    static const double values[4] = {0.01, 0.02, 0.03, 0.04};
    struct meed_payment_player sharp[4] = {{0}};
    struct meed_payment_player blurred[4] = {{0}};
    for (int k = 0; k < 4; k++) {
        sharp[k] = (struct meed_payment_player){.phi = values[k], .se = 1e-9};
        blurred[k] = (struct meed_payment_player){.phi = values[k], .se = 0.05};
    }
    settle(MEED_PAY_SHRUNK, 1000000, sharp, 4);
    settle(MEED_PAY_SHRUNK, 1000000, blurred, 4);
    for (int k = 0; k < 4; k++) {
        assert_true(sharp[k].share == 100000 * (k + 1));
        assert_true(blurred[k].share == 250000);
    }
    struct meed_payment_player one = {.phi = 0.01, .se = 0.005};
    assert_true(settle(MEED_PAY_SHRUNK, 77, &one, 1) == 77 && one.share == 77);
}

static void payment_equal_clients_get_near_equal_pay(void **state)
{
    /* Goal: eight IID clients whose values differ by noise alone. Over 500 cohorts the shrunk rule
     * keeps the mean relative spread of pay below a third of the proportional rule's. */
    (void)state;
    double spread[2] = {0, 0};
    for (uint64_t trial = 0; trial < 500; trial++) {
        struct meed_rng rng = meed_rng_stream(9, "iid", trial);
        double phi[8];
        for (int k = 0; k < 8; k++) {
            phi[k] = 0.03 + 0.005 * meed_rng_normal(&rng);
        }
        for (int rule = 0; rule < 2; rule++) {
            struct meed_payment_player players[8] = {{0}};
            for (int k = 0; k < 8; k++) {
                players[k].phi = phi[k];
                players[k].se = 0.005;
            }
            settle((enum meed_pay_rule)rule, 8000, players, 8);
            for (int k = 0; k < 8; k++) {
                spread[rule] += fabs((double)players[k].share - 1000) / 1000 / 8 / 500;
            }
        }
    }
    assert_true(spread[MEED_PAY_SHRUNK] < spread[MEED_PAY_PROPORTIONAL] / 3);
}

static void payment_does_not_lift_an_update_that_does_almost_nothing(void **state)
{
    /* Goal: in a cohort too noisy to tell clients apart, a free-rider whose tiny update is measured
     * almost without error is not paid the cohort's mean. */
    (void)state;
    struct meed_payment_player players[5] = {{.phi = 0.010, .se = 0.01},
                                             {.phi = 0.012, .se = 0.01},
                                             {.phi = 0.008, .se = 0.01},
                                             {.phi = 0.011, .se = 0.01},
                                             {.phi = 1e-6, .se = 1e-6}};
    settle(MEED_PAY_SHRUNK, 1000000, players, 5);
    assert_true(players[4].share < 150);
    assert_true(players[0].share == players[2].share);
}

static void payment_excluded_and_null_clients_do_not_move_the_others(void **state)
{
    /* Goal: the shares of three clients are the same with and without two that are left out, a
     * good one and a bad one, and a null one beside them. */
    (void)state;
    struct meed_payment_player alone[3] = {
        {.phi = 0.03, .se = 0.01}, {.phi = 0.05, .se = 0.01}, {.phi = 0.02, .se = 0.02}};
    struct meed_payment_player crowd[6] = {
        {.phi = 0.9, .se = 0.01, .left_out = true},  alone[0], {.null = true}, alone[1],
        {.phi = -0.5, .se = 0.01, .left_out = true}, alone[2]};
    settle(MEED_PAY_SHRUNK, 12345, alone, 3);
    settle(MEED_PAY_SHRUNK, 12345, crowd, 6);
    assert_true(crowd[1].share == alone[0].share && crowd[3].share == alone[1].share &&
                crowd[5].share == alone[2].share);
    assert_int_equal(crowd[0].status, MEED_PAY_EXCLUDED);
    assert_int_equal(crowd[0].cause, MEED_PAYMENT_LEFT_OUT);
    assert_int_equal(crowd[2].status, MEED_PAY_UNPAID);
    assert_int_equal(crowd[4].cause, MEED_PAYMENT_LEFT_OUT);
}

static void payment_refuses_what_is_not_a_number(void **state)
{
    (void)state; /* Goal: bad budgets and values are statuses, not guesses. */
    struct meed_payment_player players[1] = {{.phi = NAN, .se = 0}};
    int64_t paid;
    assert_int_equal(meed_payment_settle(MEED_PAY_SHRUNK, guard_z, 10, players, 1, &paid),
                     MEED_NUMERIC);
    players[0] = (struct meed_payment_player){.phi = 1, .se = -1};
    assert_int_equal(meed_payment_settle(MEED_PAY_SHRUNK, guard_z, 10, players, 1, &paid),
                     MEED_NUMERIC);
    players[0].se = 0;
    assert_int_equal(meed_payment_settle(MEED_PAY_SHRUNK, guard_z, -1, players, 1, &paid),
                     MEED_ARG);
    assert_int_equal(meed_payment_settle(MEED_PAY_SHRUNK, guard_z, 1, players,
                                         MEED_PAYMENT_MAX_PLAYERS + 1, &paid),
                     MEED_ARG);
}

/* By heads among those who are left; the odd credits go to the first of them. */
static void payment_equal_counts_heads(void **state)
{
    (void)state;
    struct meed_payment_player players[6] = {{.phi = 9, .se = 1},
                                             {.phi = 0.1, .se = 1},
                                             {.phi = -9, .se = 1, .left_out = true},
                                             {.null = true},
                                             {.phi = 4, .se = 1, .left_out = true},
                                             {.phi = -0.5, .se = 1}};
    assert_true(settle(MEED_PAY_EQUAL, 1000, players, 6) == 1000);
    static const int64_t want[] = {334, 333, 0, 0, 0, 333};
    for (int k = 0; k < 6; k++) {
        assert_true(players[k].share == want[k]);
    }
    assert_int_equal(players[2].status, MEED_PAY_EXCLUDED);
    assert_int_equal(players[3].cause, MEED_PAYMENT_NULL);
    assert_int_equal(players[4].cause, MEED_PAYMENT_LEFT_OUT);
    for (int rule = 0; rule < MEED_PAY_RULE_COUNT; rule++) {
        assert_string_not_equal(meed_payment_rule_name((enum meed_pay_rule)rule), "?");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(payment_equal_counts_heads),
        cmocka_unit_test(payment_conserves_the_budget_in_ten_thousand_cases),
        cmocka_unit_test(payment_gives_leftover_credits_to_the_lower_index),
        cmocka_unit_test(payment_pays_nobody_where_nobody_is_payable),
        cmocka_unit_test(payment_shrunk_tends_to_proportional_and_to_equal),
        cmocka_unit_test(payment_equal_clients_get_near_equal_pay),
        cmocka_unit_test(payment_does_not_lift_an_update_that_does_almost_nothing),
        cmocka_unit_test(payment_excluded_and_null_clients_do_not_move_the_others),
        cmocka_unit_test(payment_refuses_what_is_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

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

static enum meed_status try_settle(enum meed_pay_rule rule, int64_t budget,
                                   struct meed_payment_player *players, int32_t count,
                                   int64_t *paid)
{
    struct meed_payment_policy policy = {.rule = rule, .z = guard_z};
    return meed_payment_settle(&policy, budget, players, count, paid);
}

static int64_t settle(enum meed_pay_rule rule, int64_t budget, struct meed_payment_player *players,
                      int32_t count)
{
    int64_t paid = -1;
    assert_int_equal(try_settle(rule, budget, players, count, &paid), MEED_OK);
    return paid;
}

static int64_t settle_by(const struct meed_payment_policy *policy, int64_t budget,
                         struct meed_payment_player *players, int32_t count)
{
    int64_t paid = -1;
    assert_int_equal(meed_payment_settle(policy, budget, players, count, &paid), MEED_OK);
    return paid;
}

/* Shares, sum and verdicts of a settled cohort against its weights. */
static void check_settled(const struct meed_payment_policy *policy, int64_t budget,
                          const struct meed_payment_player *players, int32_t count, int64_t paid)
{
    int64_t by_heads = meed_payment_floor(budget, policy->floor), sum = 0;
    double weights = 0;
    int32_t heads = 0;
    for (int32_t k = 0; k < count; k++) {
        const struct meed_payment_player *player = &players[k];
        bool honest = !player->null && player->status != MEED_PAY_EXCLUDED;
        assert_true(player->share >= 0);
        assert_true((player->status == MEED_PAY_PAID) == (player->share > 0));
        assert_true(honest || (player->share == 0 && player->weight == 0));
        assert_true(!player->left_out || player->null || player->status == MEED_PAY_EXCLUDED);
        sum += player->share;
        weights += player->weight;
        heads += honest;
    }
    int64_t rest = budget - by_heads;
    assert_true(sum == paid);
    assert_true(paid == (heads > 0 ? by_heads : 0) + (weights > 0 ? rest : 0));
    for (int32_t k = 0; k < count && weights > 0; k++) {
        bool honest = !players[k].null && players[k].status != MEED_PAY_EXCLUDED;
        double quota = (double)rest * (players[k].weight / weights) +
                       (honest ? (double)by_heads / heads : 0.0);
        assert_true(fabs((double)players[k].share - quota) <=
                    2.0 + (double)budget * MEED_MAX(count, 16) * 0x1p-30);
    }
}

static void payment_conserves_the_budget_in_ten_thousand_cases(void **state)
{
    /* Goal: whatever the rule, the past and the floor, Σ shares is the budget, or the floor's part
     * where no weight is positive, or 0 where nobody is honest; shares follow weights to within a
     * credit for each part and 2^-30 of the budget; nobody excluded or null is paid. */
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
            players[k].samples = (double)(meed_rng_u64(&rng) >> meed_rng_below(&rng, 64));
            players[k].standing = 4 * meed_rng_unit(&rng) - 1;
        }
        struct meed_payment_policy policy = {
            .rule = (enum meed_pay_rule)(trial % MEED_PAY_RULE_COUNT),
            .z = guard_z,
            .reputation = trial % 3 ? MEED_PAYMENT_MAX_REPUTATION * meed_rng_unit(&rng) : 0,
            .floor = trial % 5 ? meed_rng_unit(&rng) : trial % 2};
        int64_t paid = settle_by(&policy, budget, players, count);
        check_settled(&policy, budget, players, count, paid);
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

static void payment_shrinks_by_reliability(void **state)
{
    /* Goal: weights of `shrunk` equal the formula of payment.h in float64; the cap φ + z·se does
     * not bind here. */
    (void)state;
    static const double phi[4] = {0.10, 0.14, 0.09, 0.17}, se[4] = {0.01, 0.02, 0.005, 0.015};
    struct meed_payment_player players[4] = {{0}};
    double mean = 0, spread = 0, noise = 0;
    for (int k = 0; k < 4; k++) {
        players[k] = (struct meed_payment_player){.phi = phi[k], .se = se[k]};
        mean += phi[k] / 4;
        noise += 2 * se[k] * se[k] / 4;
    }
    for (int k = 0; k < 4; k++) {
        spread += (phi[k] - mean) * (phi[k] - mean) / 3;
    }
    double between = spread - noise;
    assert_true(between > 0);
    settle(MEED_PAY_SHRUNK, 1000, players, 4);
    for (int k = 0; k < 4; k++) {
        double want = mean + between / (between + 2 * se[k] * se[k]) * (phi[k] - mean);
        assert_true(fabs(players[k].weight - want) < 1e-15);
    }
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
    assert_int_equal(try_settle(MEED_PAY_SHRUNK, 10, players, 1, &paid), MEED_NUMERIC);
    players[0] = (struct meed_payment_player){.phi = 1, .se = -1};
    assert_int_equal(try_settle(MEED_PAY_SHRUNK, 10, players, 1, &paid), MEED_NUMERIC);
    players[0].se = 0;
    assert_int_equal(try_settle(MEED_PAY_SHRUNK, -1, players, 1, &paid), MEED_ARG);
    assert_int_equal(try_settle(MEED_PAY_SHRUNK, 1, players, MEED_PAYMENT_MAX_PLAYERS + 1, &paid),
                     MEED_ARG);
    players[0].samples = INFINITY;
    assert_int_equal(try_settle(MEED_PAY_SAMPLES, 1, players, 1, &paid), MEED_NUMERIC);
    static const double bad[][2] = {{-0.1, 0}, {1, 0}, {NAN, 0}, {0, -0.1}, {0, 1.1}, {0, NAN}};
    for (size_t i = 0; i < MEED_COUNT(bad); i++) {
        struct meed_payment_policy policy = {.reputation = bad[i][0], .floor = bad[i][1]};
        assert_int_equal(meed_payment_settle(&policy, 1, players, 1, &paid), MEED_CONFIG);
    }
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
    for (int i = 0; i < MEED_PAY_RULE_COUNT; i++) {
        enum meed_pay_rule rule = MEED_PAY_RULE_COUNT;
        const char *name = meed_payment_rule_name((enum meed_pay_rule)i);
        assert_int_equal(meed_payment_rule_parse(name, &rule), MEED_OK);
        assert_int_equal((int)rule, i);
    }
    enum meed_pay_rule rule = MEED_PAY_RULE_COUNT;
    assert_int_equal(meed_payment_rule_parse("fair", &rule), MEED_ARG);
    assert_non_null(strstr(meed_last_error(), "equal, samples"));
}

/* Declared counts decide among those who are left, whatever their values; none declared is none
 * paid, and the lie of client 1 pays: that is the rule, not an oversight. */
static void payment_samples_takes_their_word(void **state)
{
    (void)state;
    struct meed_payment_player players[5] = {
        {.phi = 9, .se = 1, .samples = 100},
        {.phi = 0.1, .se = 1, .samples = 300},
        {.phi = -9, .se = 1, .left_out = true, .samples = 1000},
        {.null = true, .samples = 1000},
        {.phi = 1, .se = 1}};
    assert_true(settle(MEED_PAY_SAMPLES, 1000, players, 5) == 1000);
    static const int64_t want[] = {250, 750, 0, 0, 0};
    for (int k = 0; k < 5; k++) {
        assert_true(players[k].share == want[k]);
    }
    assert_int_equal(players[2].cause, MEED_PAYMENT_LEFT_OUT);
    assert_int_equal(players[4].cause, MEED_PAYMENT_UNDECLARED);
}

/* ---- floor ----------------------------------------------------------------------------------- */

static void payment_floor_goes_by_heads(void **state)
{
    /* Goal: a tenth of 1,000 among the three who moved and did no harm, the odd credit to the
     * first; the rest by value; without any value the floor alone is paid. */
    (void)state;
    struct meed_payment_player players[5] = {{.phi = 3, .se = 0.1},
                                             {.phi = 1, .se = 0.1},
                                             {.phi = -0.1, .se = 0.1},
                                             {.null = true},
                                             {.phi = 4, .se = 1, .left_out = true}};
    struct meed_payment_policy policy = {.rule = MEED_PAY_PROPORTIONAL, .z = guard_z, .floor = 0.1};
    assert_true(settle_by(&policy, 1000, players, 5) == 1000);
    static const int64_t want[] = {34 + 675, 33 + 225, 33, 0, 0};
    for (int k = 0; k < 5; k++) {
        assert_true(players[k].share == want[k]);
    }
    assert_int_equal(players[2].status, MEED_PAY_PAID);
    assert_int_equal(players[2].cause, MEED_PAYMENT_WORTHLESS);
    players[0].phi = players[1].phi = -0.1;
    assert_true(settle_by(&policy, 1000, players, 5) == 100);
    assert_true(players[0].share == 34 && players[1].share == 33 && players[2].share == 33);
    policy.floor = 1;
    players[0].phi = 3;
    assert_true(settle_by(&policy, 1000, players, 5) == 1000);
    assert_true(players[0].share == 334 && players[1].share == 333 && players[2].share == 333);
    /* decimal shares are exact, and the largest budget does not overflow */
    assert_true(meed_payment_floor(10000, 0.1) == 1000);
    assert_true(meed_payment_floor(1000000, 0.000249) == 249);
    assert_true(meed_payment_floor(10, 0.29) == 2);
    assert_true(meed_payment_floor((int64_t)1 << 62, 0.5) == (int64_t)1 << 61);
    assert_true(meed_payment_floor((int64_t)1 << 62, 1) == (int64_t)1 << 62);
}

/* ---- reputation ------------------------------------------------------------------------------ */

enum { PEOPLE = 5, PERIODS = 60 };

/* What the next round knows of a settled one, as the server's replay finds it. */
static void standing_note(const struct meed_payment_player *players, const bool *here,
                          double *standing)
{
    int64_t paid = 0;
    int32_t heads = 0;
    for (int32_t k = 0; k < PEOPLE; k++) {
        paid += here[k] ? players[k].share : 0;
        heads += here[k] && players[k].share > 0;
    }
    for (int32_t k = 0; k < PEOPLE && paid > 0; k++) {
        if (here[k]) {
            standing[k] = (double)players[k].share * heads / (double)paid;
        }
    }
}

static void payment_reputation_is_a_moving_average(void **state)
{
    /* Goal: over 60 rounds with absences, a newcomer in round 20 and exclusions, shares are those
     * of the definition, computed here in float64 with no credits at all: relative pay a ← (1 −
     * λ)·w
     * + λ·a among those who were there before, scaled to what they earned. Bound: weights are
     * rounded to 2^-30 of the largest, of five clients, and the past hands 1/(1 − λ) of it on. */
    (void)state;
    const double lambda = 0.3;
    struct meed_payment_policy policy = {
        .rule = MEED_PAY_PROPORTIONAL, .z = guard_z, .reputation = lambda};
    const int64_t budget = INT64_C(1000000000000000);
    struct meed_rng rng = meed_rng_stream(3, "reputation", 0);
    double standing[PEOPLE] = {-1, -1, -1, -1, -1}, mine[PEOPLE] = {-1, -1, -1, -1, -1};
    for (int t = 0; t < PERIODS; t++) {
        struct meed_payment_player players[PEOPLE] = {{0}}, all[PEOPLE] = {{0}};
        bool here[PEOPLE];
        int32_t count = 0;
        double weight[PEOPLE] = {0}, earned = 0, past = 0, sum = 0, heads = 0;
        for (int k = 0; k < PEOPLE; k++) {
            here[k] = (k != 4 || t >= 20) && (k == 0 || meed_rng_below(&rng, 5) > 0);
            bool bad = k == 3 && t % 7 == 3;
            weight[k] = here[k] && !bad ? 0.1 + meed_rng_unit(&rng) : 0;
            if (here[k]) {
                players[count++] = (struct meed_payment_player){
                    .phi = bad ? 9 : weight[k], .left_out = bad, .standing = standing[k]};
            }
        }
        for (int k = 0; k < PEOPLE; k++) {
            earned += weight[k] > 0 && mine[k] >= 0 ? weight[k] : 0;
            past += weight[k] > 0 && mine[k] >= 0 ? mine[k] : 0;
        }
        for (int k = 0; k < PEOPLE; k++) {
            if (weight[k] > 0 && mine[k] >= 0 && past > 0) {
                weight[k] = (1 - lambda) * weight[k] + lambda * mine[k] / past * earned;
            }
            sum += weight[k];
            heads += weight[k] > 0;
        }
        assert_true(settle_by(&policy, budget, players, count) == budget);
        for (int k = 0, at = 0; k < PEOPLE; k++) {
            if (here[k]) {
                all[k] = players[at++];
                mine[k] = weight[k] / sum * heads;
                assert_true(fabs((double)all[k].share / (double)budget - weight[k] / sum) <
                            PEOPLE * 0x1p-30 / (1 - lambda));
            }
        }
        standing_note(all, here, standing);
    }
}

static void payment_reputation_leaves_newcomers_and_cheats_alone(void **state)
{
    /* Goal: a newcomer is paid by this round alone, and the others together what they earned;
     * the best past of all does nothing for who is excluded, idle or worthless. */
    (void)state;
    struct meed_payment_policy policy = {
        .rule = MEED_PAY_PROPORTIONAL, .z = guard_z, .reputation = 0.5};
    struct meed_payment_player players[6] = {
        {.phi = 1, .standing = 3},     {.phi = 3, .standing = 1},
        {.phi = 4, .standing = -1},    {.phi = 5, .standing = 9, .left_out = true},
        {.null = true, .standing = 9}, {.phi = -0.1, .se = 1, .standing = 9}};
    assert_true(settle_by(&policy, 800, players, 6) == 800);
    static const int64_t want[] = {200, 200, 400, 0, 0, 0};
    for (int k = 0; k < 6; k++) {
        assert_true(players[k].share == want[k]);
    }
    /* once excluded, the way back begins at 1 − λ; where nobody was ever paid, there is no past */
    struct meed_payment_player back[2] = {{.phi = 1, .standing = 0}, {.phi = 1, .standing = 1}};
    assert_true(settle_by(&policy, 800, back, 2) == 800);
    assert_true(back[0].share == 200 && back[1].share == 600);
    back[1].standing = 0;
    assert_true(settle_by(&policy, 800, back, 2) == 800);
    assert_true(back[0].share == 400 && back[1].share == 400);
}

static void payment_reputation_keeps_its_two_promises(void **state)
{
    /* Goal: the variance of noise in pay falls to (1 − λ)/(1 + λ), within a tenth over 20,000
     * rounds of five equal clients; and who stops working after a good past, but stays just above
     * zero, is paid λ/(1 − λ) rounds' pay from then on, and no more. */
    (void)state;
    const double lambda = 0.6;
    struct meed_rng rng = meed_rng_stream(4, "promises", 0);
    const bool here[PEOPLE] = {true, true, true, true, true};
    double square[2] = {0, 0};
    for (int with = 0; with < 2; with++) {
        struct meed_payment_policy policy = {
            .rule = MEED_PAY_PROPORTIONAL, .z = guard_z, .reputation = with ? lambda : 0};
        double standing[PEOPLE] = {-1, -1, -1, -1, -1};
        for (int t = 0; t < 20000; t++) {
            struct meed_payment_player players[PEOPLE] = {{0}};
            for (int k = 0; k < PEOPLE; k++) {
                players[k].phi = fmax(1 + 0.05 * meed_rng_normal(&rng), 0.1);
                players[k].standing = standing[k];
            }
            settle_by(&policy, 1000000000, players, PEOPLE);
            standing_note(players, here, standing);
            square[with] += t >= 100 ? (standing[0] - 1) * (standing[0] - 1) : 0;
        }
    }
    assert_true(fabs(square[1] / square[0] / ((1 - lambda) / (1 + lambda)) - 1) < 0.1);
    struct meed_payment_policy policy = {
        .rule = MEED_PAY_PROPORTIONAL, .z = guard_z, .reputation = lambda};
    double standing[PEOPLE] = {1, 1, 1, 1, 1}, coasted = 0;
    for (int t = 0; t < 100; t++) {
        struct meed_payment_player players[PEOPLE] = {{0}};
        for (int k = 0; k < PEOPLE; k++) {
            players[k] = (struct meed_payment_player){.phi = k ? 1 : 1e-9, .standing = standing[k]};
        }
        settle_by(&policy, 1000000000, players, PEOPLE);
        standing_note(players, here, standing);
        coasted += (double)players[0].share / 200000000;
    }
    assert_true(fabs(coasted - lambda / (1 - lambda)) < 1e-6); /* 100 rounds of φ = 1e-9 and odd
                                                                * credits of 2e8 are below that */
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
        cmocka_unit_test(payment_shrinks_by_reliability),
        cmocka_unit_test(payment_excluded_and_null_clients_do_not_move_the_others),
        cmocka_unit_test(payment_refuses_what_is_not_a_number),
        cmocka_unit_test(payment_samples_takes_their_word),
        cmocka_unit_test(payment_floor_goes_by_heads),
        cmocka_unit_test(payment_reputation_is_a_moving_average),
        cmocka_unit_test(payment_reputation_leaves_newcomers_and_cheats_alone),
        cmocka_unit_test(payment_reputation_keeps_its_two_promises),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* See payment.h.
 *
 * Exactness of the split. Weights become integers W ≤ 2^30, so ΣW ≤ 2^14·2^30 = 2^44. With
 * budget = q·ΣW + r and r < ΣW, budget·W/ΣW = q·W + r·W/ΣW and r·W < 2^74: the floor and the
 * remainder of every quota are computed in 128 bits without rounding, and fewer than `count`
 * credits are left to hand out, to the largest remainders.
 */
#include "evaluation/payment.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"

enum { WEIGHT_BITS = 30 };
static const int64_t budget_max = (int64_t)1 << 62;

__extension__ typedef unsigned __int128 wide;

static const char *const rule_names[MEED_PAY_RULE_COUNT] = {"shrunk", "proportional", "equal",
                                                            "samples"};

const char *meed_payment_rule_name(enum meed_pay_rule rule)
{
    return rule >= 0 && rule < MEED_PAY_RULE_COUNT ? rule_names[rule] : "?";
}

enum meed_status meed_payment_rule_parse(const char *text, enum meed_pay_rule *rule)
{
    char list[128] = "";
    for (int i = 0; i < MEED_PAY_RULE_COUNT; i++) {
        if (strcmp(text, rule_names[i]) == 0) {
            *rule = (enum meed_pay_rule)i;
            return MEED_OK;
        }
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", rule_names[i]);
    }
    return MEED_FAIL(MEED_ARG, "no rule \"%.32s\"; there are %s", text, list);
}

enum meed_status meed_payment_check(const struct meed_payment_policy *policy)
{
    if (!(policy->reputation >= 0 && policy->reputation <= MEED_PAYMENT_MAX_REPUTATION)) {
        return MEED_FAIL(MEED_CONFIG,
                         "pay: reputation, the weight of the past, is %g; write a value from 0 to "
                         "%g",
                         policy->reputation, MEED_PAYMENT_MAX_REPUTATION);
    }
    if (!(policy->floor >= 0 && policy->floor <= 1)) {
        return MEED_FAIL(MEED_CONFIG,
                         "pay: floor, the share of the budget that is split by heads, is %g; write "
                         "a value from 0 to 1",
                         policy->floor);
    }
    return MEED_OK;
}

int64_t meed_payment_floor(int64_t budget, double floor)
{
    wide millionths = (wide)nearbyint(floor * 1e6);
    return (int64_t)((wide)budget * millionths / 1000000u);
}

/* A player's claim to one of the credits that rounding left over. */
struct claim {
    uint64_t remainder;
    int32_t player;
};

/* Largest remainder first, ties to the lower index. */
static int claim_order(const void *left, const void *right)
{
    const struct claim *x = left, *y = right;
    if (x->remainder != y->remainder) {
        return x->remainder > y->remainder ? -1 : 1;
    }
    return x->player < y->player ? -1 : 1;
}

/* Floors of the quotas, then one credit more to the first of the claims. claims [count]: scratch.
 */
static void quotas_give(int64_t budget, double largest, const double *weights, int32_t count,
                        struct claim *claims, int64_t *shares)
{
    uint64_t total = 0;
    for (int32_t k = 0; k < count; k++) {
        total += (uint64_t)nearbyint(ldexp(weights[k] / largest, WEIGHT_BITS));
    }
    uint64_t whole = (uint64_t)budget / total;
    uint64_t rest = (uint64_t)budget % total;
    int64_t left = budget;
    int32_t claimants = 0;
    for (int32_t k = 0; k < count; k++) {
        uint64_t integer = (uint64_t)nearbyint(ldexp(weights[k] / largest, WEIGHT_BITS));
        wide part = (wide)rest * integer;
        shares[k] = (int64_t)(whole * integer + (uint64_t)(part / total));
        left -= shares[k];
        if (integer > 0) {
            claims[claimants++] = (struct claim){(uint64_t)(part % total), k};
        }
    }
    MEED_ASSERT(left >= 0 && left <= claimants);
    qsort(claims, (size_t)claimants, sizeof *claims, claim_order);
    for (int32_t i = 0; i < left; i++) {
        shares[claims[i].player]++;
    }
}

static enum meed_status budget_failed(int64_t budget, int32_t count)
{
    return MEED_FAIL(MEED_ARG,
                     "cannot split %" PRId64 " credits among %d clients; the budget must lie "
                     "between 0 and 2^62 and the clients be at most %d",
                     budget, count, MEED_PAYMENT_MAX_PLAYERS);
}

enum meed_status meed_payment_split(int64_t budget, const double *weights, int32_t count,
                                    int64_t *shares, int64_t *paid)
{
    if (budget < 0 || budget > budget_max || count < 0 || count > MEED_PAYMENT_MAX_PLAYERS) {
        return budget_failed(budget, count);
    }
    double largest = 0;
    for (int32_t k = 0; k < count; k++) {
        if (!(weights[k] >= 0) || !isfinite(weights[k])) {
            return MEED_FAIL(MEED_NUMERIC, "the weight of client %d is %g, not a number from 0 up",
                             k, weights[k]);
        }
        largest = fmax(largest, weights[k]);
        shares[k] = 0;
    }
    *paid = 0;
    if (largest == 0) {
        return MEED_OK;
    }
    struct claim *claims = meed_heap_alloc((size_t)count, sizeof *claims);
    if (!claims) {
        return MEED_NOMEM;
    }
    quotas_give(budget, largest, weights, count, claims, shares);
    meed_heap_free(claims);
    *paid = budget;
    return MEED_OK;
}

static enum meed_status sort_out(struct meed_payment_player *players, int32_t count)
{
    for (int32_t k = 0; k < count; k++) {
        struct meed_payment_player *player = &players[k];
        if (!isfinite(player->phi) || !(player->se >= 0) || !isfinite(player->se)) {
            return MEED_FAIL(MEED_NUMERIC, "the value of client %d is %g ± %g, not a number", k,
                             player->phi, player->se);
        }
        player->weight = 0;
        player->share = 0;
        player->cause = player->null       ? MEED_PAYMENT_NULL
                        : player->left_out ? MEED_PAYMENT_LEFT_OUT
                                           : MEED_PAYMENT_EARNED;
        player->status =
            player->cause == MEED_PAYMENT_LEFT_OUT ? MEED_PAY_EXCLUDED : MEED_PAY_UNPAID;
    }
    return MEED_OK;
}

/* Of φ: the dialogues asked and, by the same measure, those learned from (payment.h). */
static double noise_of(const struct meed_payment_player *player)
{
    return 2.0 * player->se * player->se;
}

/* Mean of the earners and the variance between them that noise does not explain. */
static void cohort_fit(const struct meed_payment_player *players, int32_t count, double *mean,
                       double *between)
{
    double sum = 0;
    double squared_errors = 0;
    int32_t earners = 0;
    for (int32_t k = 0; k < count; k++) {
        if (players[k].cause == MEED_PAYMENT_EARNED) {
            sum += players[k].phi;
            squared_errors += noise_of(&players[k]);
            earners++;
        }
    }
    *mean = earners ? sum / earners : 0;
    double spread = 0;
    for (int32_t k = 0; k < count; k++) {
        if (players[k].cause == MEED_PAYMENT_EARNED) {
            spread += (players[k].phi - *mean) * (players[k].phi - *mean);
        }
    }
    *between = earners > 1 ? fmax(0, spread / (earners - 1) - squared_errors / earners) : 0;
}

static void weights_give(enum meed_pay_rule rule, double z, struct meed_payment_player *players,
                         int32_t count)
{
    double mean;
    double between;
    cohort_fit(players, count, &mean, &between);
    for (int32_t k = 0; k < count; k++) {
        struct meed_payment_player *player = &players[k];
        if (player->cause != MEED_PAYMENT_EARNED) {
            continue;
        }
        double value = player->phi;
        if (rule == MEED_PAY_SHRUNK) {
            double variance = between + noise_of(player);
            double reliability = variance > 0 ? between / variance : 1;
            value = mean + reliability * (player->phi - mean);
            value = fmin(value, player->phi + z * player->se);
        }
        player->weight = rule == MEED_PAY_EQUAL     ? 1.0
                         : rule == MEED_PAY_SAMPLES ? player->samples
                                                    : fmax(value, 0);
        player->cause = player->weight > 0         ? MEED_PAYMENT_EARNED
                        : rule == MEED_PAY_SAMPLES ? MEED_PAYMENT_UNDECLARED
                                                   : MEED_PAYMENT_WORTHLESS;
    }
}

static bool has_past(const struct meed_payment_player *player)
{
    return player->cause == MEED_PAYMENT_EARNED && player->standing >= 0;
}

/* Those with a past pass the part λ of what they earned together around by it. */
static void past_blend(double reputation, struct meed_payment_player *players, int32_t count)
{
    double earned = 0;
    double standing = 0;
    for (int32_t k = 0; k < count; k++) {
        if (has_past(&players[k])) {
            earned += players[k].weight;
            standing += players[k].standing;
        }
    }
    if (!(standing > 0)) {
        return; /* nobody's past is better than another's */
    }
    for (int32_t k = 0; k < count; k++) {
        struct meed_payment_player *player = &players[k];
        if (has_past(player)) {
            double before = player->standing / standing * earned;
            player->weight = (1 - reputation) * player->weight + reputation * before;
        }
    }
}

/* Took part honestly: its update moves the model, and nothing speaks against it. */
static bool has_floor(const struct meed_payment_player *player)
{
    return player->cause == MEED_PAYMENT_EARNED || player->cause == MEED_PAYMENT_WORTHLESS ||
           player->cause == MEED_PAYMENT_UNDECLARED;
}

/* By heads, then by weight; each part is conserved by itself. weights, shares [count]: scratch. */
static enum meed_status shares_give(double floor, int64_t budget,
                                    struct meed_payment_player *players, int32_t count,
                                    double *weights, int64_t *shares, int64_t *paid)
{
    int64_t by_heads = meed_payment_floor(budget, floor);
    int64_t part = 0;
    *paid = 0;
    for (int32_t k = 0; k < count; k++) {
        weights[k] = has_floor(&players[k]) ? 1.0 : 0.0;
    }
    MEED_TRY(meed_payment_split(by_heads, weights, count, shares, &part));
    *paid += part;
    for (int32_t k = 0; k < count; k++) {
        players[k].share = shares[k];
        weights[k] = players[k].weight;
    }
    MEED_TRY(meed_payment_split(budget - by_heads, weights, count, shares, &part));
    *paid += part;
    for (int32_t k = 0; k < count; k++) {
        players[k].share += shares[k];
    }
    return MEED_OK;
}

static enum meed_status samples_check(const struct meed_payment_player *players, int32_t count)
{
    for (int32_t k = 0; k < count; k++) {
        if (!(players[k].samples >= 0) || !isfinite(players[k].samples)) {
            return MEED_FAIL(MEED_NUMERIC, "client %d declares %g samples, not a number from 0 up",
                             k, players[k].samples);
        }
    }
    return MEED_OK;
}

enum meed_status meed_payment_settle(const struct meed_payment_policy *policy, int64_t budget,
                                     struct meed_payment_player *players, int32_t count,
                                     int64_t *paid)
{
    enum meed_status st = MEED_OK;
    if (count < 0 || count > MEED_PAYMENT_MAX_PLAYERS) {
        return MEED_FAIL(MEED_ARG, "%d clients cannot be paid at once; the limit is %d", count,
                         MEED_PAYMENT_MAX_PLAYERS);
    }
    if (budget < 0 || budget > budget_max) {
        return budget_failed(budget, count);
    }
    double *weights = meed_heap_alloc((size_t)count + 1, sizeof *weights);
    int64_t *shares = meed_heap_alloc((size_t)count + 1, sizeof *shares);
    if (!weights || !shares) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(meed_payment_check(policy));
    MEED_TRY_OUT(sort_out(players, count));
    if (policy->rule == MEED_PAY_SAMPLES) {
        MEED_TRY_OUT(samples_check(players, count));
    }
    weights_give(policy->rule, policy->z, players, count);
    if (policy->reputation > 0) {
        past_blend(policy->reputation, players, count);
    }
    MEED_TRY_OUT(shares_give(policy->floor, budget, players, count, weights, shares, paid));
    int64_t sum = 0;
    for (int32_t k = 0; k < count; k++) {
        struct meed_payment_player *player = &players[k];
        sum += player->share;
        if (player->share > 0) {
            player->status = MEED_PAY_PAID;
        } else if (player->cause == MEED_PAYMENT_EARNED) {
            player->cause = MEED_PAYMENT_ROUNDED;
        }
    }
    MEED_ASSERT(sum == *paid);
out:
    meed_heap_free(weights);
    meed_heap_free(shares);
    return st;
}

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
#include <stdlib.h>
#include "base/buf.h"

enum { WEIGHT_BITS = 30 };
static const int64_t budget_max = (int64_t)1 << 62;

__extension__ typedef unsigned __int128 wide;

const char *meed_payment_rule_name(enum meed_pay_rule rule)
{
    static const char *const names[MEED_PAY_RULE_COUNT] = {"shrunk", "proportional", "equal"};
    return rule >= 0 && rule < MEED_PAY_RULE_COUNT ? names[rule] : "?";
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

enum meed_status meed_payment_split(int64_t budget, const double *weights, int32_t count,
                                    int64_t *shares, int64_t *paid)
{
    if (budget < 0 || budget > budget_max || count < 0 || count > MEED_PAYMENT_MAX_PLAYERS) {
        return MEED_FAIL(MEED_ARG,
                         "cannot split %" PRId64 " credits among %d clients; the budget must lie "
                         "between 0 and 2^62 and the clients be at most %d",
                         budget, count, MEED_PAYMENT_MAX_PLAYERS);
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

/* Mean of the earners and the variance between them that sampling errors do not explain. */
static void cohort_fit(const struct meed_payment_player *players, int32_t count, double *mean,
                       double *between)
{
    double sum = 0;
    double squared_errors = 0;
    int32_t earners = 0;
    for (int32_t k = 0; k < count; k++) {
        if (players[k].cause == MEED_PAYMENT_EARNED) {
            sum += players[k].phi;
            squared_errors += players[k].se * players[k].se;
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
            double variance = between + player->se * player->se;
            double reliability = variance > 0 ? between / variance : 1;
            value = mean + reliability * (player->phi - mean);
            value = fmin(value, player->phi + z * player->se);
        }
        player->weight = rule == MEED_PAY_EQUAL ? 1.0 : fmax(value, 0);
        player->cause = player->weight > 0 ? MEED_PAYMENT_EARNED : MEED_PAYMENT_WORTHLESS;
    }
}

enum meed_status meed_payment_settle(enum meed_pay_rule rule, double z, int64_t budget,
                                     struct meed_payment_player *players, int32_t count,
                                     int64_t *paid)
{
    enum meed_status st = MEED_OK;
    if (count < 0 || count > MEED_PAYMENT_MAX_PLAYERS) {
        return MEED_FAIL(MEED_ARG, "%d clients cannot be paid at once; the limit is %d", count,
                         MEED_PAYMENT_MAX_PLAYERS);
    }
    double *weights = meed_heap_alloc((size_t)count + 1, sizeof *weights);
    int64_t *shares = meed_heap_alloc((size_t)count + 1, sizeof *shares);
    if (!weights || !shares) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(sort_out(players, count));
    weights_give(rule, z, players, count);
    for (int32_t k = 0; k < count; k++) {
        weights[k] = players[k].weight;
    }
    MEED_TRY_OUT(meed_payment_split(budget, weights, count, shares, paid));
    int64_t sum = 0;
    for (int32_t k = 0; k < count; k++) {
        struct meed_payment_player *player = &players[k];
        player->share = shares[k];
        sum += shares[k];
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

/* From values, their errors and verdicts to credits.
 *
 * A player known to change nothing is UNPAID, one that the verdict left out (verdict.h) EXCLUDED.
 * Neither takes part in what follows, so no free-rider and no attacker moves another's pay through
 * the cohort mean.
 *
 * Weights. `proportional`: w = max(φ, 0). `shrunk` (default) first pulls every φ towards the
 * cohort mean by its reliability (empirical Bayes: Efron and Morris 1973; the moment estimate of
 * the variance between clients is DerSimonian and Laird's 1986, with the plain mean, because a
 * precision weighted one would follow whoever reports the smallest error): τ² = max(0, s²(φ) −
 * mean(se²)),   w = max(μ + τ²/(τ² + se²)·(φ − μ), 0) So equal clients get equal pay whatever the
 * noise, strong signal gets proportional pay, and a client whose update does almost nothing keeps
 * its own small value, since its error is as small.
 *
 * `equal`: w = 1 for everybody who is left, so a head count among those who neither harm nor idle.
 * It pays a client of no measurable value like the best, and one person under two names twice: for
 * federations whose members agreed to share alike, and as the rule that others are compared with.
 *
 * Credits last: budget·w/Σw, rounded by largest remainder, ties to the lower index; they sum to the
 * budget exactly, or to 0 if no weight is positive. Everything is integer arithmetic after weights
 * are taken to 2^-30 of the largest. Rounded-away players are UNPAID like all who get 0.
 */
#ifndef MEED_EVALUATION_PAYMENT_H
#define MEED_EVALUATION_PAYMENT_H

#include "evaluation/valuation.h"

MEED_BEGIN_C

/* "shrunk", "proportional", "equal". */
const char *meed_payment_rule_name(enum meed_pay_rule rule);

enum { MEED_PAYMENT_MAX_PLAYERS = MEED_VALUE_MAX_PLAYERS };

/* Why a player got what it got; the reason in words is valuation's. */
enum meed_payment_cause {
    MEED_PAYMENT_EARNED,
    MEED_PAYMENT_NULL,      /* changes nothing */
    MEED_PAYMENT_LEFT_OUT,  /* by the verdict */
    MEED_PAYMENT_WORTHLESS, /* weight 0 */
    MEED_PAYMENT_ROUNDED    /* positive weight, 0 credits */
};

struct meed_payment_player {
    double phi;    /* in */
    double se;     /* in */
    bool null;     /* in */
    bool left_out; /* in */
    double weight; /* out: ≥ 0 */
    int64_t share; /* out: credits */
    enum meed_pay_status status;
    enum meed_payment_cause cause;
};

/* ARG for a budget below 0 or above 2^62, or too many players; NUMERIC for a φ or se that is
 * not finite. *paid is the budget, or 0 if nobody is payable. */
MEED_MUST_CHECK enum meed_status meed_payment_settle(enum meed_pay_rule rule, double z,
                                                     int64_t budget,
                                                     struct meed_payment_player *players,
                                                     int32_t count, int64_t *paid);
/* The last step alone: weights ≥ 0 and finite to shares. */
MEED_MUST_CHECK enum meed_status meed_payment_split(int64_t budget, const double *weights,
                                                    int32_t count, int64_t *shares, int64_t *paid);

MEED_END_C
#endif

/* From values, their errors and verdicts to credits.
 *
 * A player known to change nothing is UNPAID, one that the verdict left out (verdict.h) EXCLUDED.
 * Neither takes part in what follows, so no free-rider and no attacker moves another's pay through
 * the cohort mean.
 *
 * Weights. `proportional`: w = max(φ, 0). `shrunk` (default) first pulls every φ towards the
 * cohort mean by its reliability (empirical Bayes: Efron and Morris 1973; the moment estimate of
 * the variance between clients is DerSimonian and Laird's 1986, with the plain mean, because a
 * precision weighted one would follow whoever reports the smallest error):
 *
 *   σ² = 2·se²    τ² = max(0, s²(φ) − mean(σ²))    w = max(μ + τ²/(τ² + σ²)·(φ − μ), 0)
 *
 * σ² counts the error twice: φ depends on a sample of dialogues that are asked and on one that was
 * learned from, and only the first can be resampled by a server. Ten equal clients of
 * examples/experiments/iid.yaml differ by 1.65 se in the median of 25 rounds (0.8 to 3.1), where
 * this expects √2: it is rather too little than too much. So equal clients
 * get equal pay whatever the noise, strong signal gets proportional pay, and a client whose update
 * does almost nothing keeps its own small value, since its error is as small.
 *
 * `equal`: w = 1 for everybody who is left, so a head count among those who neither harm nor idle.
 * It pays a client of no measurable value like the best, and one person under two names twice: for
 * federations whose members agreed to share alike, and as the rule that others are compared with.
 *
 * `samples`: w = the samples that the client says it trained on, among those who are left. Values
 * decide here only who is left, so this rule takes a client's word: who writes 1,000 samples and
 * trains on ten is paid for 1,000, who copies its data is paid for both copies, and only an update
 * that changes nothing or measurably harms is found out. A server caps what may be claimed
 * (server/weighting.h); what a lie gains is bounded by the cap and by nothing else. For partners
 * who audit each other's books, and as the yardstick of papers that weigh by n_k.
 *
 * Reputation then. `standing` s is what a client was paid when it last took part, 1 being the mean
 * of those paid in that round. Among the payable (w > 0) that have a standing, O,
 *
 *   w ← (1 − λ)·w + λ·s·Σ_O w/Σ_O s
 *
 * so O as a whole keeps what this round earned it, and passes a part λ around by the past. Since s
 * holds the λ of before, pay is the exponential moving average of round weights: a lucky or unlucky
 * round moves it by 1 − λ, the variance of noise falls to (1 − λ)/(1 + λ), and who stops working
 * while it still passes for payable keeps at most λ/(1 − λ) rounds' pay in all; with the mean over
 * all rounds there would be no such bound. A newcomer is paid by this round alone, and its coming
 * costs the others nothing of their past. An absent round leaves s as it was. Exclusion makes s 0,
 * so a way back begins at 1 − λ, and who is excluded, idle or worthless now has w = 0 and cannot
 * live on its past.
 *
 * Floor last: that share of the budget is split by heads among those who took part honestly, which
 * is all but the null and the excluded; the rest goes by weight. It pays for trying where values
 * are small beside their errors, and it pays one person under two names twice. Where no weight is
 * positive the floor is paid and the rest is kept.
 *
 * Credits: budget·w/Σw, rounded by largest remainder, ties to the lower index; they sum to the
 * budget exactly, or to 0 if no weight is positive. Everything is integer arithmetic after weights
 * are taken to 2^-30 of the largest. Rounded-away players are UNPAID like all who get 0.
 */
#ifndef MEED_EVALUATION_PAYMENT_H
#define MEED_EVALUATION_PAYMENT_H

#include "evaluation/valuation.h"

MEED_BEGIN_C

/* "shrunk", "proportional", "equal", "samples". */
const char *meed_payment_rule_name(enum meed_pay_rule rule);
/* ARG lists the rules. */
MEED_MUST_CHECK enum meed_status meed_payment_rule_parse(const char *text,
                                                         enum meed_pay_rule *rule);

enum { MEED_PAYMENT_MAX_PLAYERS = MEED_VALUE_MAX_PLAYERS };

/* Why a player got what it got; the reason in words is valuation's. */
enum meed_payment_cause {
    MEED_PAYMENT_EARNED,
    MEED_PAYMENT_NULL,       /* changes nothing */
    MEED_PAYMENT_LEFT_OUT,   /* by the verdict */
    MEED_PAYMENT_WORTHLESS,  /* weight 0; the floor, if there is one, is all it may get */
    MEED_PAYMENT_UNDECLARED, /* the same by rule samples: it declares none */
    MEED_PAYMENT_ROUNDED     /* positive weight, 0 credits */
};

struct meed_payment_player {
    double phi;      /* in */
    double se;       /* in */
    bool null;       /* in */
    bool left_out;   /* in */
    double samples;  /* in: declared, ≥ 0; read by rule samples alone */
    double standing; /* in: ≥ 0, below 0 for none; read if there is reputation */
    double weight;   /* out: ≥ 0, reputation included */
    int64_t share;   /* out: credits */
    enum meed_pay_status status;
    enum meed_payment_cause cause;
};

struct meed_payment_policy {
    enum meed_pay_rule rule;
    double z;          /* shrinkage lifts φ by at most so many standard errors, ≥ 0 */
    double reputation; /* λ, 0 to MEED_PAYMENT_MAX_REPUTATION; 0: each round by itself */
    double floor;      /* share of the budget, 0 to 1, to a millionth */
};
/* λ = 1 would never look again; at this most a round in twenty counts. */
#define MEED_PAYMENT_MAX_REPUTATION 0.95

/* CONFIG if reputation or floor is out of range. */
MEED_MUST_CHECK enum meed_status meed_payment_check(const struct meed_payment_policy *policy);
/* ⌊budget·floor⌋ in integers: the credits that are split by heads. */
int64_t meed_payment_floor(int64_t budget, double floor);
/* ARG for a budget below 0 or above 2^62, or too many players; NUMERIC for a φ or se that is
 * not finite. *paid is the budget; or the floor's part of it if no weight is positive; or 0 if
 * nobody took part honestly either. */
MEED_MUST_CHECK enum meed_status meed_payment_settle(const struct meed_payment_policy *policy,
                                                     int64_t budget,
                                                     struct meed_payment_player *players,
                                                     int32_t count, int64_t *paid);
/* The last step alone: weights ≥ 0 and finite to shares. */
MEED_MUST_CHECK enum meed_status meed_payment_split(int64_t budget, const double *weights,
                                                    int32_t count, int64_t *shares, int64_t *paid);

MEED_END_C
#endif

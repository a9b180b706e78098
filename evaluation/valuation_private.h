/* What valuation.c (passes, values, errors) and valuation_pay.c (verdicts, credits, words) share.
 */
#ifndef MEED_EVALUATION_VALUATION_PRIVATE_H
#define MEED_EVALUATION_VALUATION_PRIVATE_H

#include "evaluation/payment.h"

/* One valuation of some of the clients. */
struct meed_pass {
    bool first;
    int32_t players;
    const struct meed_adapter **clients; /* [players] */
    int32_t *of;                         /* [players] index among all clients */
    double *p;                           /* [players] */
    struct meed_estimate *estimate;
};

/* What payment.h needs of the options. */
struct meed_payment_policy meed_valuation_policy(const struct meed_valuation_options *options);
/* Who is left out after this pass; *more says if anybody is that was in it. The first pass sets
 * null, status (EXCLUDED or UNPAID) and score of everybody by verdict.h; every pass sets status,
 * score and reason of whom it leaves out, and v->kept_se. */
MEED_MUST_CHECK enum meed_status
meed_valuation_leave_out(const struct meed_benchmark *benchmark, const struct meed_pass *pass,
                         const struct meed_valuation_options *options, struct meed_valuation *v,
                         bool *more);
/* Splits the budget among who is not EXCLUDED: shares, statuses and the other reasons. */
MEED_MUST_CHECK enum meed_status meed_valuation_pay(const struct meed_valuation_options *options,
                                                    struct meed_valuation *v);

#endif

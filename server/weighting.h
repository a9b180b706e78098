/* The weights p_k of a cohort: fixed before anything is valued, Σ p_k = 1.
 *
 *   uniform        1/n. Sample counts are only claimed, so nothing a client says moves its weight
 *   samples        claimed counts, each at most `sample_cap` medians of the cohort: what a lie can
 *                  gain is bounded by the cap
 *   contribution   what earlier rounds measured. A client's reputation is the moving average,
 *                  half old and half new, of max(φ, 0)/p over the settled rounds it took part in;
 *                  dividing by the weight it had then keeps weight from feeding on itself. A
 *                  quarter of all weight is spread evenly, so that nobody is locked out; who is new
 *                  counts as the mean of the others, and without any reputation all are equal
 *
 * Everything comes from the store's update rows and the ledger's entries, so a restart finds the
 * same weights, and so does an auditor. They stand in the ledger beside φ.
 */
#ifndef MEED_SERVER_WEIGHTING_H
#define MEED_SERVER_WEIGHTING_H

#include "server/cohort.h"
#include "server/ledger.h"

MEED_BEGIN_C

/* "uniform" …; "?" outside the list. */
const char *meed_weighting_name(enum meed_weighting weighting);
/* counts [count]: claimed ones, each cut to `cap` medians; negative ones are 0. Payment by samples
 * reads them too, so there is one bound to what a lie can gain. */
MEED_MUST_CHECK enum meed_status meed_weighting_counts(const int64_t *samples, int32_t count,
                                                       double cap, double *counts);
/* The same of a cohort's updates. */
MEED_MUST_CHECK enum meed_status meed_weighting_claims(const struct meed_cohort *cohort, double cap,
                                                       double *counts);
/* p [count] from claimed counts; negative ones count as 0, and only zeros as uniform. */
MEED_MUST_CHECK enum meed_status meed_weighting_samples(const int64_t *samples, int32_t count,
                                                        double cap, double *p);
/* p [count] from reputations; −1: none yet. */
void meed_weighting_reputation(const double *reputation, int32_t count, double *p);
/* p [cohort->count] by the terms. */
MEED_MUST_CHECK enum meed_status meed_weighting_run(const struct meed_terms *terms,
                                                    struct meed_ledger *ledger,
                                                    const struct meed_cohort *cohort, double *p);

MEED_END_C
#endif

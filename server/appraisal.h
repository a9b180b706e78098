/* The value seam on a real model: a cohort through meed_valuation_run.
 *
 * The aggregator appraises a round with a utility cache and a progress line, who verifies does it
 * with neither; what is computed is the same call with the same options, made from the terms.
 */
#ifndef MEED_SERVER_APPRAISAL_H
#define MEED_SERVER_APPRAISAL_H

#include "server/settlement.h"

MEED_BEGIN_C

struct meed_appraisal {
    const struct meed_backend *be; /* all borrowed */
    const struct meed_checkpoint *checkpoint;
    const struct meed_benchmark *benchmark;
    const struct meed_terms_value *value;
    int32_t batch_tokens;
    const char *cache_path; /* NULL: everything is scored anew */
    meed_coalition_progress_fn progress;
    void *progress_user;
};

/* A meed_settle_value_fn; user is the struct. */
MEED_MUST_CHECK enum meed_status meed_appraisal_run(void *user,
                                                    const struct meed_settle_cohort *cohort,
                                                    struct meed_settle_value *value,
                                                    struct meed_value_client *clients);

MEED_END_C
#endif

/* See appraisal.h. */
#include "server/appraisal.h"

#include <string.h>
#include "base/log.h"

enum meed_status meed_appraisal_run(void *user, const struct meed_settle_cohort *cohort,
                                    struct meed_settle_value *value,
                                    struct meed_value_client *clients)
{
    const struct meed_appraisal *appraisal = user;
    struct meed_valuation *found = NULL;
    struct meed_valuation_options options = meed_valuation_defaults();
    options.method = appraisal->value->method;
    options.rule = appraisal->value->rule;
    options.path = appraisal->value->path;
    options.bootstrap = appraisal->value->bootstrap;
    options.guard_z = appraisal->value->guard_z;
    options.reputation = appraisal->value->reputation;
    options.floor = appraisal->value->floor;
    options.batch_tokens = appraisal->batch_tokens;
    options.budget = cohort->budget;
    options.seed = cohort->seed;
    options.unlike = cohort->unlike;
    options.loadings = cohort->loadings;
    options.samples = cohort->samples;
    options.standing = cohort->standing;
    options.cache_path = appraisal->cache_path;
    options.progress = appraisal->progress;
    options.progress_user = appraisal->progress_user;
    MEED_TRY(meed_valuation_run(appraisal->be, appraisal->checkpoint, appraisal->benchmark,
                                cohort->global, cohort->clients, cohort->players, cohort->p,
                                &options, &found));
    MEED_LOG_INFO("server",
                  "round %d valued by %s (coalitions=%lld tokens=%lld seconds=%.2f path=%s "
                  "residual=%.2e)%s%s",
                  cohort->round, meed_estimator_name(found->method), (long long)found->evaluations,
                  (long long)found->tokens, found->seconds,
                  found->path == MEED_PATH_MERGE ? "merge" : "stack", found->residual,
                  found->note[0] ? ": " : "", found->note);
    value->value_empty = found->value_empty;
    value->value_full = found->value_full;
    value->value_kept = found->value_kept;
    value->coalitions = found->evaluations;
    value->tokens = found->tokens;
    memcpy(value->utilities_hash, found->utilities_hash, MEED_SHA256_BYTES);
    memcpy(clients, found->clients, (size_t)cohort->players * sizeof *clients);
    meed_valuation_destroy(found);
    return MEED_OK;
}

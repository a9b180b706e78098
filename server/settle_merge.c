/* What a merge leaves behind (settle_private.h): blobs, the control variate, figures for reports.
 *
 * All of it is written before the ledger entry that names it, and under names that are hashes: a
 * settlement that was killed and is run again writes the same bytes to the same places.
 */
#include "base/log.h"
#include "server/control.h"
#include "server/settle_private.h"

static enum meed_status keep_blob(struct meed_settle *settle, const struct meed_buf *bytes)
{
    uint8_t hash[MEED_SHA256_BYTES];
    return bytes->size == 0
               ? MEED_OK
               : meed_store_put_blob(settle->config.store, bytes->data, bytes->size, hash);
}

static void tell(struct meed_settle *settle, const struct meed_cohort *cohort,
                 const struct meed_aggregate_report *report)
{
    MEED_LOG_INFO("server",
                  "round %d: aggregated by %s (updates=%d update_norm=%.4g fedit_error=%.3f "
                  "retained_energy=%.4f frozen_ranks=%d)",
                  cohort->round, meed_aggregate_name(settle->config.terms->aggregation),
                  report->used, report->update_norm, report->fedit_error, report->retained_energy,
                  report->frozen);
    pthread_mutex_lock(&settle->counts_lock);
    settle->counts.update_norm = report->update_norm;
    settle->counts.fedit_error = report->fedit_error;
    settle->counts.retained_energy = report->retained_energy;
    pthread_mutex_unlock(&settle->counts_lock);
}

enum meed_status meed_settle_keep_merge(struct meed_settle *settle,
                                        const struct meed_cohort *cohort,
                                        const struct meed_settlement_merge *merge)
{
    MEED_TRY(keep_blob(settle, &merge->reference));
    MEED_TRY(keep_blob(settle, &merge->moments));
    MEED_TRY(keep_blob(settle, &merge->merged));
    MEED_TRY(keep_blob(settle, &merge->after));
    if (meed_control_used(settle->config.terms)) {
        MEED_TRY(meed_control_advance(settle->config.store, cohort, merge->in,
                                      meed_registry_count(settle->config.registry)));
    }
    MEED_TRY(meed_store_save_stage(settle->config.store, cohort->round, MEED_REPORT_STAGE_MERGED,
                                   &merge->report, sizeof merge->report));
    tell(settle, cohort, &merge->report);
    return MEED_OK;
}

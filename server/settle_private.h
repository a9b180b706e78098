/* What settle.c (screen, value), settle_merge.c (what a merge leaves behind) and settle_close.c
 * (pay, publish, abandon) share.
 *
 * The stage results are plain structs kept as bytes in the store. They never leave the machine, and
 * one of another size (another build) is computed again.
 */
#ifndef MEED_SERVER_SETTLE_PRIVATE_H
#define MEED_SERVER_SETTLE_PRIVATE_H

#include <pthread.h>
#include "server/report_json.h"
#include "server/settle.h"

struct meed_settle {
    struct meed_settle_config config;
    struct meed_settlement_basis basis; /* of the same config */
    struct meed_cohort *cohort; /* of the round under settlement; NULL until a stage needs it */
    int64_t *totals;            /* [clients] Σ shares of the rounds in the ledger */
    int64_t start_ns;
    double seconds_before; /* of earlier processes on this folder */
    pthread_mutex_t counts_lock;
    struct meed_settle_counts counts;
};

/* The cohort of this round, loaded or kept. */
MEED_MUST_CHECK enum meed_status meed_settle_cohort(struct meed_settle *settle,
                                                    const struct meed_service_state *state,
                                                    struct meed_cohort **cohort);

/* Verdicts [cohort->count], stored or computed and then stored. */
MEED_MUST_CHECK enum meed_status meed_settle_screened(struct meed_settle *settle,
                                                      struct meed_cohort *cohort,
                                                      struct meed_arena *arena,
                                                      struct meed_defence_client **verdicts);

/* The same for values. */
MEED_MUST_CHECK enum meed_status meed_settle_valued(struct meed_settle *settle,
                                                    struct meed_cohort *cohort,
                                                    const struct meed_defence_client *verdicts,
                                                    struct meed_arena *arena,
                                                    struct meed_settlement_valued *valued);
/* Stores what the merge made (settle_merge.c). */
MEED_MUST_CHECK enum meed_status meed_settle_keep_merge(struct meed_settle *settle,
                                                        const struct meed_cohort *cohort,
                                                        const struct meed_settlement_merge *merge);
/* The stages behind valuation. */
MEED_MUST_CHECK enum meed_status meed_settle_pay(struct meed_settle *settle,
                                                 const struct meed_service_state *state);
MEED_MUST_CHECK enum meed_status meed_settle_publish(struct meed_settle *settle,
                                                     const struct meed_service_state *state);
MEED_MUST_CHECK enum meed_status meed_settle_abandon(struct meed_settle *settle,
                                                     const struct meed_service_state *state);
/* Σ shares so far, from the ledger; sets the board's rows. */
MEED_MUST_CHECK enum meed_status meed_settle_sum_up(struct meed_settle *settle);

static inline void meed_settle_fault(const struct meed_settle *settle, const char *point)
{
    if (settle->config.fault) {
        settle->config.fault(point);
    }
}

enum { MEED_SETTLE_ARENA_BYTES = 256 << 20 };

#endif

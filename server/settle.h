/* Settlement: what happens to a round between its last update and the next one's first.
 *
 *   SCREEN   decode the cohort's blobs, screen it (defence.h)        → stage "screened"
 *   VALUE    score coalitions, φ, errors, shares (the value seam)    → stage "valued"
 *   SETTLE   aggregate what was not excluded, write the blob and the ledger entry
 *   PUBLISH  receipts' details, the PEFT folder, the report; the next adapter becomes current
 *   ABANDON  a ledger entry that says so
 *
 * One call of meed_settle_stage runs the stage that the round is in and advances the machine. What
 * a stage finds is settlement.h's pure function of what is on disk; here its result is stored
 * before the machine moves: killed anywhere, the run goes on with the stored result or computes the
 * same one again. The ledger entry of a round is written once, because the ledger is asked first;
 * it is compared with what would have been written, so a machine that computes other bits than
 * before is noticed.
 *
 * Weights are settlement.h's. The value seam is a function pointer: the product hands in
 * meed_valuation_run, a test any game.
 */
#ifndef MEED_SERVER_SETTLE_H
#define MEED_SERVER_SETTLE_H

#include "server/service.h"
#include "server/settlement.h"

MEED_BEGIN_C

struct meed_settle;

struct meed_settle_config {
    const struct meed_terms *terms; /* all borrowed */
    struct meed_store *store;
    struct meed_ledger *ledger;
    struct meed_registry *registry;
    struct meed_board *board;
    struct meed_service *service;
    struct meed_pool *pool; /* may be NULL */
    meed_settle_value_fn value;
    void *value_user;
    meed_align_fn align; /* NULL: the operator has no data */
    void *align_user;
    const char *report_path;   /* NULL: none */
    meed_store_fault_fn fault; /* tests; NULL in the product */
};

/* Before the service exists: a fresh folder gets its start adapter, genesis and round 1; another
 * run's folder is refused with STATE. */
MEED_MUST_CHECK enum meed_status meed_settle_prepare(const struct meed_terms *terms,
                                                     struct meed_store *store,
                                                     struct meed_ledger *ledger,
                                                     const struct meed_registry *registry);

MEED_MUST_CHECK enum meed_status meed_settle_create(const struct meed_settle_config *config,
                                                    struct meed_settle **settle);
void meed_settle_destroy(struct meed_settle *settle); /* accepts NULL */
/* Runs the stage of `state`; nothing in OPEN and FINISHED. A failure leaves the round where it is:
 * the same call may succeed later. */
MEED_MUST_CHECK enum meed_status meed_settle_stage(struct meed_settle *settle,
                                                   const struct meed_service_state *state);
/* Writes the report of what is settled so far. */
MEED_MUST_CHECK enum meed_status meed_settle_report(struct meed_settle *settle);

struct meed_settle_counts {
    int64_t rounds_settled, rounds_abandoned; /* in this process */
    int64_t coalitions, tokens;
    int64_t clipped, excluded;
    double last_seconds; /* of the last settlement */
    double update_norm, fedit_error, retained_energy;
};
void meed_settle_counts(struct meed_settle *settle, struct meed_settle_counts *counts);

MEED_END_C
#endif

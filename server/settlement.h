/* What a round comes to: a pure function of evidence.
 *
 *   evidence    terms, roster, ledger entries of earlier rounds, blobs of updates and adapters
 *   screen      who is excluded by detectors or quarantine, and each one's weight factor
 *   value       φ, errors, shares, by the value seam (evaluation/valuation.h in the product)
 *   merge       the next adapter, byte by byte, and the server optimiser's moments
 *   entry       all of it as the round's ledger entry
 *
 * settle.h runs these as stages and makes the results durable; verification.h runs them again,
 * years later and elsewhere, and compares. They are the same code because only then does agreement
 * mean anything: a copy would agree with itself. So nothing here writes, logs, waits or looks at a
 * clock; results are the caller's. The server optimiser's moments of the round before are found
 * through the hash in its ledger entry.
 *
 * SCAFFOLD's control variate is not here: it steers training only, and no entry speaks of it.
 */
#ifndef MEED_SERVER_SETTLEMENT_H
#define MEED_SERVER_SETTLEMENT_H

#include "evaluation/valuation.h"
#include "server/aggregate.h"
#include "server/cohort.h"
#include "server/defence.h"
#include "server/ledger.h"
#include "server/registry.h"

MEED_BEGIN_C

/* A cohort to be valued: clients in id order, none of them excluded. */
struct meed_settle_cohort {
    int32_t round;
    int64_t budget;
    uint64_t seed;
    const struct meed_adapter *global;
    const struct meed_adapter *const *clients; /* [players] */
    const char *const *names;                  /* [players] */
    const double *p;                           /* [players] */
    const double *unlike;                      /* [players] of evaluation/verdict.h */
    const double *loadings; /* [players, MEED_CLIQUE_DIRECTIONS] of evaluation/clique.h */
    const double *samples;  /* [players] declared, cut to the terms' cap */
    const double *standing; /* [players] reputation.h; NULL where the terms have none */
    int32_t players;        /* ≥ 1 */
};

struct meed_settle_value {
    double value_empty, value_full;
    double value_kept;  /* v of those who are not excluded; value_full if nobody is */
    int64_t coalitions; /* really scored */
    int64_t tokens;
    uint8_t utilities_hash[MEED_SHA256_BYTES];
};

/* Σ shares is the budget, or what evaluation/payment.h says. clients [players]. */
typedef enum meed_status (*meed_settle_value_fn)(void *user,
                                                 const struct meed_settle_cohort *cohort,
                                                 struct meed_settle_value *value,
                                                 struct meed_value_client *clients);

/* What a settlement reads; all borrowed. */
struct meed_settlement_basis {
    const struct meed_terms *terms;
    const struct meed_registry *registry;
    struct meed_store *store;
    struct meed_ledger *ledger;
    struct meed_pool *pool; /* may be NULL */
    meed_settle_value_fn value;
    void *value_user;
    meed_align_fn align; /* NULL: the operator has no data */
    void *align_user;
};

/* The last settled round before this one; *found is false if there is none. The entry's clients
 * live in the arena. */
MEED_MUST_CHECK enum meed_status meed_settlement_before(struct meed_ledger *ledger, int32_t round,
                                                        struct meed_arena *arena,
                                                        struct meed_ledger_round *entry,
                                                        bool *found);
/* True where screening compares with the updates of the round before, which then are evidence. */
bool meed_settlement_looks_back(const struct meed_settlement_basis *basis);

/* verdicts [cohort->count]: detectors, then quarantine. */
MEED_MUST_CHECK enum meed_status meed_settlement_screen(const struct meed_settlement_basis *basis,
                                                        const struct meed_cohort *cohort,
                                                        struct meed_defence_client *verdicts);
/* p_k [cohort->count] in the arena, by the terms' weighting. Who is excluded, or sent back what it
 * was given, leaves its weight to the others in proportion; what clipping takes off stays with the
 * global adapter. */
MEED_MUST_CHECK enum meed_status meed_settlement_weights(const struct meed_settlement_basis *basis,
                                                         const struct meed_cohort *cohort,
                                                         const struct meed_defence_client *verdicts,
                                                         struct meed_arena *arena,
                                                         double **weights);

struct meed_settlement_valued {
    struct meed_settle_value value;
    int32_t players;
    int32_t *cohort_idx;               /* [players] */
    struct meed_value_client *clients; /* [players] */
};
/* Who is to be valued: players and cohort_idx. */
MEED_MUST_CHECK enum meed_status meed_settlement_players(const struct meed_cohort *cohort,
                                                         const struct meed_defence_client *verdicts,
                                                         struct meed_arena *arena,
                                                         struct meed_settlement_valued *valued);
/* Values the players; valued->clients is the caller's [players]. */
MEED_MUST_CHECK enum meed_status meed_settlement_value(const struct meed_settlement_basis *basis,
                                                       const struct meed_cohort *cohort,
                                                       const struct meed_defence_client *verdicts,
                                                       struct meed_arena *arena,
                                                       struct meed_settlement_valued *valued);

/* What the merge makes, each as the bytes of a blob; empty where there is none. */
struct meed_settlement_merge {
    struct meed_buf after;     /* the next global adapter */
    struct meed_buf merged;    /* before repair */
    struct meed_buf reference; /* the operator's own update */
    struct meed_buf moments;   /* of the server optimiser, after its step */
    bool *in;                  /* [cohort->count]: has weight in the merge; in the arena */
    struct meed_aggregate_report report;
};
MEED_MUST_CHECK enum meed_status meed_settlement_merge(const struct meed_settlement_basis *basis,
                                                       const struct meed_cohort *cohort,
                                                       const struct meed_settlement_valued *valued,
                                                       struct meed_arena *arena,
                                                       struct meed_settlement_merge *merge);
void meed_settlement_merge_clear(struct meed_settlement_merge *merge); /* accepts a zeroed struct */

/* The whole entry; clients live in the arena. merge NULL: its hashes stay zero. */
MEED_MUST_CHECK enum meed_status meed_settlement_entry(const struct meed_settlement_basis *basis,
                                                       const struct meed_cohort *cohort,
                                                       const struct meed_defence_client *verdicts,
                                                       const struct meed_settlement_valued *valued,
                                                       const struct meed_settlement_merge *merge,
                                                       struct meed_arena *arena,
                                                       struct meed_ledger_round *entry);

MEED_END_C
#endif

/* A run recomputed from its evidence: does the ledger say what really follows?
 *
 * The chain of hashes and signatures (ledger.h) proves that nobody changed the ledger since its
 * operator wrote it. It does not prove that the operator wrote the truth: who holds the key can
 * move a payment, sign the lie and chain everything behind it anew. Against that there is only
 * doing the work again. For every round, in the order in which one thing follows from another:
 *
 *   chain      the entry follows the one before it: run, model, benchmark, start adapter
 *   evidence   the stored updates have the hashes that the entry names, and decode as updates of
 *              this client, round and base
 *   screening  detectors, and the quarantine replayed from earlier entries
 *   values     all coalitions scored anew, no cache: utilities bit for bit, weights p_k, φ, errors
 *   pay        verdicts, reasons, shares, the round's budget, conservation
 *   aggregate  the next adapter byte for byte, moments, the operator's own update, repair
 *
 * by settlement.h, which is the very code that the aggregator ran. The first difference of a round
 * ends the round: what follows from a wrong number is wrong too. Evidence that is no longer there
 * is said to be missing, never passed over.
 *
 * What this cannot see: an operator who sends itself updates in a client's name (the client's own
 * receipts show it), claimed sample counts (weights `samples` believe the store's), and rounds that
 * an operator called abandoned. Utilities are equal bit for bit on the same kind of backend only;
 * on another kind the first difference names both.
 *
 * Nothing is written into the run's folder.
 */
#ifndef MEED_SERVER_VERIFICATION_H
#define MEED_SERVER_VERIFICATION_H

#include "server/settlement.h"

MEED_BEGIN_C

enum meed_verification_part {
    MEED_VERIFICATION_CHAIN,
    MEED_VERIFICATION_EVIDENCE,
    MEED_VERIFICATION_SCREENING,
    MEED_VERIFICATION_VALUES,
    MEED_VERIFICATION_PAY,
    MEED_VERIFICATION_AGGREGATE,
    MEED_VERIFICATION_PART_COUNT
};

enum meed_verification_state {
    MEED_VERIFICATION_UNSEEN, /* not reached, or not to be checked (an abandoned round) */
    MEED_VERIFICATION_GOOD,
    MEED_VERIFICATION_WRONG,
    MEED_VERIFICATION_NOT_KEPT /* the evidence is not there */
};

enum { MEED_VERIFICATION_TEXT_BYTES = 1024 };

struct meed_verification_round {
    int32_t round; /* 0: the end of the run */
    bool abandoned;
    enum meed_verification_state parts[MEED_VERIFICATION_PART_COUNT];
    char text[MEED_VERIFICATION_TEXT_BYTES]; /* "" or what is wrong or missing, as a sentence */
};

/* "chain", "evidence" …; "?" outside the list. */
const char *meed_verification_part_name(enum meed_verification_part part);
/* WRONG if any part is, else NOT_KEPT if any is, else GOOD. */
enum meed_verification_state
meed_verification_state_of(const struct meed_verification_round *round);

struct meed_verification;

/* Checks the whole chain against the key, and that entries come in the order of a run. INTEGRITY
 * names the first that is broken, STATE if an aggregator is at work in the folder. */
MEED_MUST_CHECK enum meed_status
meed_verification_open(const char *state, const uint8_t public_key[MEED_SIGNATURE_KEY_BYTES],
                       struct meed_verification **verification);
void meed_verification_close(struct meed_verification *verification); /* accepts NULL */

/* What the caller must know to find the run's inputs; texts live as long as the verification. */
struct meed_verification_facts {
    char run_id[MEED_LIMIT_ID_BYTES];
    int64_t entries;
    int32_t rounds; /* that the ledger speaks of, settled or abandoned */
    uint8_t head[MEED_SHA256_BYTES];
    bool known; /* the terms are kept; without them only the chain can be checked */
    char model[MEED_PATH_BYTES], benchmark[MEED_PATH_BYTES]; /* where they were, "" if unknown */
    char data[MEED_PATH_BYTES];       /* the operator's own, "" if there was none */
    const struct meed_msg_plan *plan; /* NULL if not known */
    const uint8_t *data_hash;         /* of the operator's data, NULL if it takes no part */
};
void meed_verification_facts(const struct meed_verification *verification,
                             struct meed_verification_facts *facts);

struct meed_verification_tools {
    struct meed_pool *pool; /* all borrowed */
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    const struct meed_benchmark *benchmark;
    meed_align_fn align; /* NULL: the operator's data is not at hand */
    void *align_user;
    meed_coalition_progress_fn progress; /* may be NULL */
    void *progress_user;
};
/* VERSION if model or benchmark are not the run's. */
MEED_MUST_CHECK enum meed_status
meed_verification_equip(struct meed_verification *verification,
                        const struct meed_verification_tools *tools);
/* One round, 1 to facts.rounds. A failure is a failure to check; what is wrong stands in *found. */
MEED_MUST_CHECK enum meed_status meed_verification_run(struct meed_verification *verification,
                                                       int32_t round,
                                                       struct meed_verification_round *found);
/* The last entry: totals, final adapter, and the published folder beside the ledger. */
MEED_MUST_CHECK enum meed_status meed_verification_end(struct meed_verification *verification,
                                                       struct meed_verification_round *found);

MEED_END_C
#endif

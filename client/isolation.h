/* FedPIT's isolation: two branches from one start, and what leaves of them.
 *
 *     candidates ← written by the global model after a few local examples       (synthesis.h)
 *     W_l        ← training on the client's data, from the global adapter W_g   the private branch
 *     synthetic  ← the candidates that W_l finds best explained
 *     W_s        ← training on the synthetic examples, from W_g as well
 *
 *     share      synthetic: W_s     mix: β W_l + (1−β) W_s     none: W_g, unchanged
 *
 * After Zhang et al. 2024 (FedPIT, arXiv 2403.06131), whose first version shares W_s and whose
 * journal version (PPFedIT, ACM TIST 17(5), 2026) a mix of factors; no code was published, and this
 * is written from the papers. Both branches restart from W_g every round, so there is no personal
 * adapter to be kept. Mixes are exact by default (engine/adapter_mix.h says what that changes, and
 * why the exact stack is never sent).
 *
 * What β means at its ends is kept to the bit: β = 1 trains the private branch alone, with the
 * seeds and data order of FedIT, and its upload is FedIT's; β = 0 is `synthetic`. A branch that the
 * rule does not need is not trained. Where no candidate survived the filters W_s is W_g.
 *
 * What this does not promise: W_s was trained on text that a model wrote after seeing local
 * examples and that W_l chose, so it is not independent of them. It is a barrier that attacks have
 * to climb, not a proof; privacy.h has one, at its price.
 *
 * Everything is on disk in the round's folder before the next step needs it: candidates.jsonl and
 * synthetic.jsonl (synthesis.h), private.bin (W_l, bound to start, plan and data), and a trainer's
 * checkpoint a branch. Killed anywhere and run again, the same bytes come out. All of these stay
 * with the client. A synthetic.jsonl that is there is used as it is.
 */
#ifndef MEED_CLIENT_ISOLATION_H
#define MEED_CLIENT_ISOLATION_H

#include "client/local_train.h"
#include "engine/adapter_mix.h"

MEED_BEGIN_C

struct meed_isolation_progress {
    const char *phase; /* "writing examples", "private branch", "choosing examples", … */
    int64_t done;      /* of total; 0 when the phase begins */
    int64_t total;     /* steps or examples */
    double loss;       /* of a step of training */
    double tokens_per_second;
};
/* False ends the work at a point it can go on from, with MEED_CANCELLED. */
typedef bool (*meed_isolation_progress_fn)(void *user,
                                           const struct meed_isolation_progress *progress);

struct meed_isolation_job {
    struct meed_local_train_job train;      /* as FedIT would have it; paths, seeds and on_step of
                                             * the branches are set here */
    const struct meed_adapter *whole;       /* start and frozen ranks as they were pulled */
    const char *folder;                     /* of the round */
    const struct meed_dialogue *dialogues;  /* [dialogue_count] the local data in memory; NULL: */
    int64_t dialogue_count;                 /* train.dataset's path is a file of dialogues */
    meed_isolation_progress_fn on_progress; /* may be NULL */
    void *user;
};

struct meed_isolation_result {
    struct meed_local_train_result train; /* β and 1 − β of the branches' losses; tokens and
                                           * seconds of those that went into the update */
    int64_t sample_count;                 /* examples that these were trained on, as FedIT counts */
    int32_t synthetic_count;
    struct meed_adapter_mix_report mix; /* zeros where nothing was mixed in product space */
};

/* What leaves by the plan's rule, in the start's shape. FORMAT: the plan contradicts itself. */
MEED_MUST_CHECK enum meed_status meed_isolation_run(const struct meed_isolation_job *job,
                                                    struct meed_adapter *trained,
                                                    struct meed_isolation_result *result);
/* The client's own model for use at home: trained from the start on local and synthetic data
 * together, with the steps of a branch, and never sent. Branches that the round did not need are
 * made up for. `own` is whole, the caller's. */
MEED_MUST_CHECK enum meed_status meed_isolation_own(const struct meed_isolation_job *job,
                                                    struct meed_adapter **own);

MEED_END_C
#endif

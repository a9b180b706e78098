/* The other game: what each client's data is worth to a model trained anew for every coalition.
 *
 * A federation pays on coalitions of one recorded trajectory: weights are fixed, nothing is trained
 * again (evaluation/valuation.h, "game (b)"). This is game (a): for every set of clients an adapter
 * is trained from the same start, with the same steps and seed, on the pooled data of that set, and
 * scored on the benchmark; Shapley values come from all 2^n of them. It answers another question
 * (data, not updates; a client that adds nothing still dilutes, so it is not null), takes 2^n − 1
 * trainings, and prices nothing. It is here to check the game that is paid on, for n ≤ 5.
 */
#ifndef MEED_CLI_RETRAIN_ORACLE_H
#define MEED_CLI_RETRAIN_ORACLE_H

#include "cli/score_session.h"

enum { MEED_RETRAIN_MAX_CLIENTS = 5 };

struct meed_retrain_options {
    int64_t steps; /* of every training */
    float lr;
    int32_t rank; /* alpha is twice that, all projections */
    uint64_t seed;
    int32_t bootstrap;
    int32_t batch_tokens;
    const char *json; /* NULL: none */
};

/* data [count]: JSONL files, one a client. Prints a table; ARG for more than five. */
MEED_MUST_CHECK enum meed_status
meed_retrain_oracle_run(struct meed_score_session *session, const char *const *data, int32_t count,
                        const struct meed_retrain_options *options);

#endif

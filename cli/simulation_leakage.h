/* How much of the clients' data comes out of a cell's models again: prefix extraction, FedPIT's
 * test (evaluation/extraction.h), beside the utility that the same models have.
 *
 * Three kinds of model are attacked, each against the plain base on the same dialogues:
 *
 *   global   what a round published, with dialogues of all clients: what anybody learns
 *   update   a client's own update of the last round, decoded upon the adapter it was made on, with
 *            its own dialogues alone: what the aggregator learns, before averaging hides anything
 *   own      the model that stays at home, with its client's dialogues: what would leak if it left
 *
 * Dialogues are drawn by the cell's seed, as many of each client. Secrets are the spans that the
 * pool labels and the codes of planted canaries; these are asked for in full, and their replies do
 * not enter ROUGE-L. Attackers' and spoilt data are left out: what is not the pool's is no secret.
 *
 * Who learned how a clinic answers also guesses answers that it never saw, so a gain over the base
 * is not yet memory. `unseen` dialogues of the benchmark, which nobody trained on, are asked of the
 * same models: what they gain there is style, and only the rest was learned by heart.
 * An attack is a lower bound: what it does not find may still be there.
 */
#ifndef MEED_CLI_SIMULATION_LEAKAGE_H
#define MEED_CLI_SIMULATION_LEAKAGE_H

#include "cli/simulation_cast.h"
#include "engine/checkpoint.h"
#include "evaluation/benchmark.h"
#include "evaluation/extraction.h"

enum meed_simulation_leak_kind {
    MEED_SIMULATION_LEAK_GLOBAL,
    MEED_SIMULATION_LEAK_UPDATE,
    MEED_SIMULATION_LEAK_OWN,
    MEED_SIMULATION_LEAK_KIND_COUNT
};
extern const char *const meed_simulation_leak_names[MEED_SIMULATION_LEAK_KIND_COUNT];

enum { MEED_SIMULATION_LEAK_ROUNDS = 8 }; /* global models at most, evenly over the run */

/* Of one global model, or pooled over the clients' models of a kind. */
struct meed_simulation_leak {
    enum meed_simulation_leak_kind kind;
    int32_t round;
    int64_t examples, secrets, secrets_found;
    struct meed_extraction_mean rouge, gain, exact, exact_gain; /* gains over the base */
    int64_t unseen_examples;
    struct meed_extraction_mean unseen; /* gain of ROUGE-L on them */
};

struct meed_simulation_leakage_job {
    const struct meed_backend *be;
    const struct meed_checkpoint *checkpoint;
    const struct meed_tokenizer *tokenizer;
    const struct meed_chat *chat;
    const struct meed_benchmark *benchmark; /* where unseen dialogues come from */
    const struct meed_simulation_leak_plan *plan;
    const struct meed_simulation_cast *cast;
    uint64_t seed;
};

/* adapters [count], of the rounds named; leaks [count] are filled. */
MEED_MUST_CHECK enum meed_status
meed_simulation_leakage_globals(const struct meed_simulation_leakage_job *job,
                                struct meed_adapter *const *adapters, const int32_t *rounds,
                                int32_t count, struct meed_simulation_leak *leaks);
/* One model of one client added to *leak (zeroed before the first, kind and round set). Nothing is
 * added for a client whose data are not the pool's. */
MEED_MUST_CHECK enum meed_status
meed_simulation_leakage_client(const struct meed_simulation_leakage_job *job, int32_t client,
                               struct meed_adapter *adapter, struct meed_simulation_leak *leak);

#endif

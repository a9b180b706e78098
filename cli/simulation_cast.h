/* The cast of a simulated federation: every client's data and role, dealt from one pool.
 *
 * The pool is read once a process; a cast is dealt once a cell, from the cell's seed: partition
 * first, then quality (a share of replies turned into random words), then what an attack does to
 * data. Attackers of one kind form a group whose first member leads; identities that one client has
 * split into share its deal. Canaries come last (simulation_leakage.h). Truth stays here: nothing
 * of it is visible to the aggregator.
 */
#ifndef MEED_CLI_SIMULATION_CAST_H
#define MEED_CLI_SIMULATION_CAST_H

#include "cli/federation_file.h"
#include "cli/secret_labels.h"
#include "client/dataset.h"

struct meed_simulation_pool {
    struct meed_arena arena;
    struct meed_dialogue *dialogues;    /* [count] */
    int32_t *labels;                    /* [count] index of the data file */
    struct meed_secret_labels *secrets; /* [count] */
    int64_t count;
    int32_t label_count;
    char label_names[MEED_SIMULATION_MAX_DATA][MEED_SIMULATION_WORD_BYTES];
};
/* FORMAT with FILE:LINE; plain-text lines cannot be dealt. */
MEED_MUST_CHECK enum meed_status meed_simulation_pool_load(const struct meed_simulation_plan *plan,
                                                           struct meed_simulation_pool *pool);
void meed_simulation_pool_clear(struct meed_simulation_pool *pool);

struct meed_simulation_member {
    char id[MEED_LIMIT_ID_BYTES]; /* "client-0007", id order is index order */
    int32_t group;                /* of the plan */
    int32_t leader;               /* index of the attack group's first; itself if it leads */
    struct meed_attack_member role;
    double quality;
    struct meed_dataset *dataset;    /* owned */
    struct meed_dialogue *dialogues; /* [dialogue_count] the same as text, if fedpit; else NULL */
    int64_t dialogue_count;
    int64_t label_counts[MEED_SIMULATION_MAX_DATA];
    /* Labelled spans, [dataset->count] if leakage is measured; NULL else, and where the data are
     * not the pool's any more: an attacker's, and replies turned into noise. */
    const struct meed_secret_labels *secrets;
    int64_t canary_count; /* sequences at the end of the dataset */
};

struct meed_simulation_cast {
    struct meed_arena arena;
    struct meed_simulation_member *members; /* [count] */
    int32_t count;
};
MEED_MUST_CHECK enum meed_status meed_simulation_cast_deal(const struct meed_federation_file *file,
                                                           const struct meed_simulation_pool *pool,
                                                           const struct meed_chat *chat,
                                                           struct meed_simulation_cast *cast);
void meed_simulation_cast_clear(struct meed_simulation_cast *cast); /* accepts zeroed */

#endif

/* The game that Meed pays on: coalitions of adapters scored on a benchmark.
 *
 * This is the one place where the estimators' seam (game.h) meets models: it turns member vectors
 * into item utilities through the coalition evaluator and the benchmark, asks the cache first and
 * writes to it in batches. Utilities found on disk and utilities computed are the same bits, since
 * the context that names them fixes path, dtype and instruction set.
 *
 * The derivative is per dialogue where gates yield it. Where clients are too many for a stack, one
 * gradient of the weights stands for many dialogues: each category of an axis is split into folds
 * (of more than eight categories all together, every so many-th dialogue of each), and an item
 * carries the pseudo-value of its fold. Values of axes and of categories are then exact, and the
 * spread of items over a bootstrap of dialogues is that of random groups (Quenouille 1956; Wolter
 * 2007, ch. 2): right in expectation, with as many degrees of freedom as folds less categories.
 * Single items mean nothing there.
 *
 * A valuation may also be scored by many processes, each a fixed share of the distinct coalitions
 * (every N-th, since all cost the same), and read together by a merge (utility_shard.h). A merge
 * scores nothing: what is missing is an error that names the shard to run.
 */
#ifndef MEED_EVALUATION_UTILITY_H
#define MEED_EVALUATION_UTILITY_H

#include "engine/coalition.h"
#include "evaluation/benchmark.h"
#include "evaluation/game.h"
#include "evaluation/utility_shard.h"

MEED_BEGIN_C

struct meed_utility;

enum { MEED_UTILITY_FOLDS = 16 }; /* of an axis, at most */

struct meed_utility_options {
    enum meed_coalition_path path;
    enum meed_block_format base; /* of the frozen weights (net.h); NONE for a value of record */
    int32_t batch_tokens;
    int32_t coalitions_expected; /* how many the estimator will ask for: decides AUTO once */
    int32_t nodes;               /* > 0: it asks for derivatives at so many nodes instead */
    const char *cache_path;      /* NULL: none */
    struct meed_utility_shard_options shard; /* its folder stands in for the cache */
    meed_coalition_progress_fn progress;
    void *progress_user;
};

struct meed_utility_report {
    int64_t evaluations; /* coalitions scored, by this process or by the shards of a merge; not
                          * those found in the cache or folded */
    int64_t tokens;      /* rows fed for them */
    int64_t found;       /* coalitions of this shard that were on disk already */
    double seconds;      /* spent scoring */
};

/* Borrows everything but options. */
MEED_MUST_CHECK enum meed_status
meed_utility_create(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                    const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                    const struct meed_adapter *const *clients, int32_t players, const double *p,
                    const struct meed_utility_options *options, struct meed_utility **utility);
/* Scores what this process's shard owns of the coalitions that the estimator will ask for, members
 * [coalitions, players]. All is on disk afterwards, also after CANCELLED. */
MEED_MUST_CHECK enum meed_status
meed_utility_score_shard(struct meed_utility *utility, const double *members, int32_t coalitions);
void meed_utility_destroy(struct meed_utility *utility); /* accepts NULL */
/* Valid until destroy. */
struct meed_game meed_utility_game(struct meed_utility *utility);
struct meed_utility_report meed_utility_report_of(const struct meed_utility *utility);
/* STACK or MERGE. */
enum meed_coalition_path meed_utility_path(const struct meed_utility *utility);
/* The hash that names these utilities but for their members (utility_cache.h). */
const uint8_t *meed_utility_context(const struct meed_utility *utility);

MEED_END_C
#endif

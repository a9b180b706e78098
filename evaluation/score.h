/* One model, one adapter, one benchmark: how good, where, and how sure.
 *
 * The same sequences, masks and sums that a valuation uses, for a person who wants the number and
 * not the game. Axis errors come from the stratified bootstrap of bootstrap.h; category errors are
 * those of a mean. Perplexity is exp of the mean negative log-likelihood per scored token over all
 * dialogues of the axis, token-weighted as is usual, so it is *not* exp(−axis value), which weighs
 * dialogues and categories alike.
 */
#ifndef MEED_EVALUATION_SCORE_H
#define MEED_EVALUATION_SCORE_H

#include "engine/coalition.h"
#include "evaluation/benchmark.h"

MEED_BEGIN_C

struct meed_score_mean {
    int32_t dialogues; /* 0: the category has none on this axis */
    double value;
    double se;
};

struct meed_score_axis {
    struct meed_score_mean all; /* mean over categories */
    struct meed_score_mean categories[MEED_BENCHMARK_MAX_CATEGORIES];
    double perplexity; /* likelihood axes only, else 0 */
    int64_t scored_tokens;
};

struct meed_score {
    double value; /* the paid utility */
    double se;
    int64_t tokens; /* rows fed */
    double seconds;
    struct meed_score_axis axes[MEED_BENCHMARK_MAX_AXES];
};

struct meed_score_options {
    int32_t batch_tokens;
    enum meed_block_format base; /* of the frozen weights (net.h) */
    int32_t bootstrap;
    uint64_t seed;
    meed_coalition_progress_fn progress;
    void *progress_user;
};

/* adapter may be NULL: the plain base. */
MEED_MUST_CHECK enum meed_status
meed_score_run(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
               const struct meed_benchmark *benchmark, const struct meed_adapter *adapter,
               const struct meed_score_options *options, struct meed_score *score);

MEED_END_C
#endif

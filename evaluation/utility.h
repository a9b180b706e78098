/* The game that Meed pays on: coalitions of adapters scored on a benchmark.
 *
 * This is the one place where the estimators' seam (game.h) meets models: it turns member vectors
 * into item utilities through the coalition evaluator and the benchmark, asks the cache first and
 * writes to it in batches. Utilities found on disk and utilities computed are the same bits, since
 * the context that names them fixes path, dtype and instruction set.
 */
#ifndef MEED_EVALUATION_UTILITY_H
#define MEED_EVALUATION_UTILITY_H

#include "engine/coalition.h"
#include "evaluation/benchmark.h"
#include "evaluation/game.h"

MEED_BEGIN_C

struct meed_utility;

struct meed_utility_options {
    enum meed_coalition_path path;
    int32_t batch_tokens;
    int32_t coalitions_expected; /* how many the estimator will ask for: decides AUTO once */
    const char *cache_path;      /* NULL: none */
    meed_coalition_progress_fn progress;
    void *progress_user;
};

struct meed_utility_report {
    int64_t evaluations; /* coalitions scored, not those found on disk or folded */
    int64_t tokens;      /* rows fed */
    double seconds;      /* spent scoring */
};

/* Borrows everything but options. */
MEED_MUST_CHECK enum meed_status
meed_utility_create(const struct meed_backend *be, const struct meed_checkpoint *checkpoint,
                    const struct meed_benchmark *benchmark, const struct meed_adapter *global,
                    const struct meed_adapter *const *clients, int32_t players, const double *p,
                    const struct meed_utility_options *options, struct meed_utility **utility);
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

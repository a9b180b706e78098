/* Values of adapters by judged coalitions, for `meed judge --model … --adapter …`.
 *
 * Opens the model and its adapters, plays judge_game.h with an estimator, prints a table and, where
 * asked, JSON: {"method", "judge", "empty", "full", "residual", "evaluations", "adapters":
 * [{"name", "phi", "se", "sampling_se"}]}, in rating points. Weights are 1/n, as `meed value` has
 * them.
 */
#ifndef MEED_CLI_JUDGE_VALUE_H
#define MEED_CLI_JUDGE_VALUE_H

#include "evaluation/estimator.h"
#include "evaluation/judge_game.h"

enum { MEED_JUDGE_VALUE_MAX_ADAPTERS = 64 };

struct meed_judge_value_options {
    const char *model;
    const char *adapters[MEED_JUDGE_VALUE_MAX_ADAPTERS];
    int32_t count;
    enum meed_value_method method;
    int32_t max_new_tokens;
    uint64_t seed;
    const struct meed_fastchat_questions *questions;
    const struct meed_judge *judge;
    const struct meed_judge_prompts *prompts;
    const char *device; /* NULL: the CPU */
    int64_t threads;
    const char *json; /* NULL: none */
    bool quiet;
};

MEED_MUST_CHECK enum meed_status meed_judge_value_adapter(struct meed_judge_value_options *options,
                                                          const char *folder);
/* ARG for words that are no method, or one that needs a derivative. */
MEED_MUST_CHECK enum meed_status meed_judge_value_method(struct meed_judge_value_options *options,
                                                         const char *word);
MEED_MUST_CHECK enum meed_status
meed_judge_value_run(const struct meed_judge_value_options *options);

#endif

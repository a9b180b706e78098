/* One token from one row of logits: greedy, or drawn with temperature, top-k and top-p.
 *
 * A pick is a pure function of the row, the options and one number in [0, 1): no hidden state, so a
 * reply can be recomputed from (seed, prompt, step). The order is the usual one: logits are divided
 * by the temperature, the k most likely are kept, and of those the smallest set whose share is at
 * least p (the token that crosses p included). Ties go to the lower id. Weights are fp64; tokens
 * less likely than e^-40 times the best have weight 0.
 */
#ifndef MEED_ENGINE_SAMPLER_H
#define MEED_ENGINE_SAMPLER_H

#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_sampler_options {
    float temperature; /* 0: greedy */
    float top_p;       /* in (0, 1]; 1: off */
    int32_t top_k;     /* 0: off */
};
struct meed_sampler_item {
    double weight;
    int32_t token;
};

/* ARG names the option that is out of range. */
MEED_MUST_CHECK enum meed_status meed_sampler_check(const struct meed_sampler_options *options);
/* logits [vocab]; items [vocab] is working memory (may be NULL for greedy). NUMERIC if the row
 * holds a NaN or +inf, or nothing but -inf. */
MEED_MUST_CHECK enum meed_status meed_sampler_pick(const struct meed_sampler_options *options,
                                                   const float *logits, int32_t vocab, double unit,
                                                   struct meed_sampler_item *items, int32_t *token);

MEED_END_C
#endif

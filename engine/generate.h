/* Batched generation with a KV cache: many prompts at once, greedy or nucleus sampling.
 *
 * Prompts enter free slots as others finish (continuous batching), a prompt's tokens are drawn from
 * a stream keyed by (seed, prompt index), and a row's logits do not depend on its neighbours: the
 * reply to a prompt is the same alone or among hundreds.
 */
#ifndef MEED_ENGINE_GENERATE_H
#define MEED_ENGINE_GENERATE_H

#include "engine/net.h"

MEED_BEGIN_C

struct meed_generate_options {
    int32_t max_new_tokens;
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    int32_t top_k;     /* 0: off */
    uint64_t seed;
    int32_t slots;     /* prompts in flight */
    const int32_t *stop_ids;
    int32_t stop_count;
};
struct meed_generate_options meed_generate_defaults(void); /* 256 tokens, greedy, 8 slots, seed 1 */

struct meed_prompt {
    const int32_t *ids;
    int32_t length;
};
struct meed_reply {
    int32_t *ids;     /* from the arena; without the stop token */
    int32_t length;
    bool stopped;     /* by a stop token, not by length */
};
/* Called for every new token, in order per prompt (streaming chat); may be NULL. Returning false
 * cancels with MEED_CANCELLED. */
typedef bool (*meed_generate_token_fn)(void *user, int32_t prompt_idx, int32_t token);

MEED_MUST_CHECK enum meed_status meed_generate(struct meed_net *net,
                                               const struct meed_prompt *prompts, int32_t count,
                                               const struct meed_generate_options *options,
                                               struct meed_arena *arena, struct meed_reply *replies,
                                               meed_generate_token_fn on_token, void *user);

MEED_END_C
#endif

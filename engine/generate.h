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
    int32_t slots;    /* prompts in flight */
    int32_t max_rows; /* tokens of one forward pass, at most the net's max_rows: long prompts are
                         fed in pieces of this size while other slots go on */
    const int32_t *stop_ids;
    int32_t stop_count;
};
/* 256 tokens, greedy, 8 slots, 128 rows, seed 1, no stop ids. */
struct meed_generate_options meed_generate_defaults(void);

struct meed_prompt {
    const int32_t *ids;
    int32_t length; /* at least 1 */
};
struct meed_reply {
    int32_t *ids; /* from the arena; without the stop token; NULL if empty */
    int32_t length;
    bool stopped; /* by a stop token, not by length */
};
/* Called for every new token, in order per prompt (streaming chat), but not for the stop token; may
 * be NULL. Returning false cancels with MEED_CANCELLED. */
typedef bool (*meed_generate_token_fn)(void *user, int32_t prompt_idx, int32_t token);

/* Fills replies [count]; they are untouched on failure. A reply ends at a stop id, after
 * max_new_tokens or where the model's positions end. ARG: an option or a prompt's id is out of
 * range; LIMIT: a prompt leaves no position for a reply; both name the prompt. */
MEED_MUST_CHECK enum meed_status meed_generate(struct meed_net *net,
                                               const struct meed_prompt *prompts, int32_t count,
                                               const struct meed_generate_options *options,
                                               struct meed_arena *arena, struct meed_reply *replies,
                                               meed_generate_token_fn on_token, void *user);

MEED_END_C
#endif

/* Batched generation with a paged KV cache: many prompts at once, greedy or drawn.
 *
 * Prompts enter free slots as others finish (continuous batching, Yu et al. 2022), a prompt's
 * tokens are drawn from a stream keyed by (seed, prompt index, turn), and a row's logits do not
 * depend on its neighbours: the reply to a prompt is the same alone or among hundreds.
 *
 * A prompt is fed only from where it differs from what the cache holds. Whether that is the prompt
 * of another slot (32 questions behind one demonstration), the same dialogue a turn ago (chat, or a
 * judge's second question) or a finished neighbour makes no difference: the longest common
 * beginning of token ids is looked for among all sequences held, and its pages are shared. Text
 * that a template rewrites simply shares less. Nothing of this changes a reply. Many models answer
 * in one batch where they are adapters of a stack: a prompt's gate set says who answers it, and
 * only prompts of one set share.
 *
 * `meed_generate` answers one list of prompts and forgets. A generator keeps its cache from run to
 * run; it sees the net's weights, adapters and gates as they were when its sequences were fed, so
 * whoever changes those calls meed_generator_forget. Not here: preemption (a run whose pages are
 * too few fails and says so), and speculative decoding.
 */
#ifndef MEED_ENGINE_GENERATE_H
#define MEED_ENGINE_GENERATE_H

#include "engine/net.h"

MEED_BEGIN_C

struct meed_generate_options {
    /* Drawing: read at every run. */
    int32_t max_new_tokens;
    float temperature; /* 0: greedy */
    float top_p;       /* 1: off */
    int32_t top_k;     /* 0: off */
    uint64_t seed;
    int32_t stream_period; /* prompts this far apart draw the same numbers; 0: none do */
    const int32_t *stop_ids;
    int32_t stop_count;
    /* Memory: read when a generator is created. */
    int32_t slots;    /* sequences in flight */
    int32_t keep;     /* finished sequences held beside them, the longest unused given up first */
    int32_t max_rows; /* tokens of one forward pass, at most the net's max_rows: long prompts are
                         fed in pieces of this size while other slots go on */
    int32_t capacity; /* positions of a sequence, prompt and reply; 0: what a run's prompts need */
    int32_t pages;    /* of 64 positions, for all sequences; 0: enough for all slots */
};
/* 256 tokens, greedy, 8 slots, none kept, 128 rows, seed 1, no stop ids. */
struct meed_generate_options meed_generate_defaults(void);

struct meed_prompt {
    const int32_t *ids;
    int32_t length;   /* at least 1 */
    int32_t gate_set; /* who answers: a row of meed_net_set_gates; 0 where none were set */
};
struct meed_reply {
    int32_t *ids; /* from the arena; without the stop token; NULL if empty */
    int32_t length;
    bool stopped; /* by a stop token, not by length */
};
/* Called for every new token, in order per prompt (streaming chat), but not for the stop token; may
 * be NULL. Returning false cancels with MEED_CANCELLED. */
typedef bool (*meed_generate_token_fn)(void *user, int32_t prompt_idx, int32_t token);
/* Called when a reply is complete; may be NULL. A dialogue goes on at once, in its slot, if *next
 * is filled with its next prompt (all of it: what is held already is not fed again), whose ids stay
 * valid until its own reply is complete. A failure ends the run with it. */
typedef enum meed_status (*meed_generate_turn_fn)(void *user, int32_t prompt_idx,
                                                  const struct meed_reply *reply,
                                                  struct meed_prompt *next);
struct meed_generate_hooks {
    meed_generate_token_fn on_token;
    meed_generate_turn_fn on_turn;
    void *user;
};

/* Fills replies [count], of a dialogue's last turn; they are untouched on failure. A reply ends at
 * a stop id, after max_new_tokens or where positions end. ARG: an option or a prompt's id is out of
 * range; LIMIT: a prompt leaves no position for a reply; both name the prompt. DEVICE_NOMEM: names
 * what to lower. NUMERIC: logits are no numbers. */
MEED_MUST_CHECK enum meed_status meed_generate(struct meed_net *net,
                                               const struct meed_prompt *prompts, int32_t count,
                                               const struct meed_generate_options *options,
                                               struct meed_arena *arena, struct meed_reply *replies,
                                               meed_generate_token_fn on_token, void *user);

struct meed_generator;
/* The net is borrowed. Cache memory is taken by the first run, and more when a run needs longer
 * sequences than any before. */
MEED_MUST_CHECK enum meed_status meed_generator_create(struct meed_net *net,
                                                       const struct meed_generate_options *options,
                                                       struct meed_generator **generator);
void meed_generator_destroy(struct meed_generator *generator); /* accepts NULL */
/* As meed_generate. After CANCELLED what was fed is still held; after other failures nothing is. */
MEED_MUST_CHECK enum meed_status
meed_generator_run(struct meed_generator *generator, const struct meed_prompt *prompts,
                   int32_t count, const struct meed_generate_options *options,
                   const struct meed_generate_hooks *hooks, struct meed_arena *arena,
                   struct meed_reply *replies);
/* Drops every sequence held. */
void meed_generator_forget(struct meed_generator *generator);

/* Since creation. */
struct meed_generator_counts {
    int64_t steps;  /* forward passes, */
    int64_t graphs; /* and those of them that were one recorded graph, since the cache grew last */
    int64_t fed;    /* rows through the network */
    int64_t shared; /* prompt positions that were held already */
};
struct meed_generator_counts meed_generator_counts(const struct meed_generator *generator);

MEED_END_C
#endif

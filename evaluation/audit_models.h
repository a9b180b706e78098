/* The models under audit, side by side on one base: scored token by token, and asked to go on.
 *
 * Model 0 is the plain base, model i the base with adapter i − 1. All of them are rows of gates
 * over one stack (engine/coalition.h has the idea), so the weights are held once, a batch mixes
 * models, and the floor of an attack, the model that never saw the data, is measured by the same
 * pass over the same tokens as the model that did.
 *
 * Log-probabilities are fp32 and repeat to the bit for any batch and any number of threads. Another
 * set of adapters is another stack: it may change the last bit.
 */
#ifndef MEED_EVALUATION_AUDIT_MODELS_H
#define MEED_EVALUATION_AUDIT_MODELS_H

#include "engine/adapter.h"
#include "engine/checkpoint.h"
#include "engine/coalition.h"
#include "engine/generate.h"

MEED_BEGIN_C

struct meed_audit_models_options {
    const struct meed_backend *be; /* all borrowed */
    const struct meed_checkpoint *checkpoint;
    const struct meed_adapter *const *adapters; /* [adapter_count] */
    int32_t adapter_count;                      /* may be 0 */
    enum meed_block_format base;                /* of the frozen weights (net.h) */
    int32_t batch_tokens;                       /* rows of one pass */
    int32_t end_of_turn;                        /* ends a reply, as do the checkpoint's eos ids */
};

struct meed_audit_models;

MEED_MUST_CHECK enum meed_status
meed_audit_models_create(const struct meed_audit_models_options *options,
                         struct meed_audit_models **models);
void meed_audit_models_destroy(struct meed_audit_models *models);        /* accepts NULL */
int32_t meed_audit_models_count(const struct meed_audit_models *models); /* adapters + 1 */
/* Positions of the model: a sequence may have as many tokens. */
int32_t meed_audit_models_positions(const struct meed_audit_models *models);

/* Scored tokens of a sequence: what it adds to a row of log-probabilities. */
int32_t meed_audit_models_scored(const struct meed_sequence *sequence);
/* logprobs: log p of every scored token, sequence by sequence, in order. LIMIT, with the sequence's
 * index, for one of more tokens than a pass has rows. progress counts tokens; may be NULL. */
MEED_MUST_CHECK enum meed_status
meed_audit_models_score(struct meed_audit_models *models, int32_t model,
                        const struct meed_sequence *sequences, int32_t count, float *logprobs,
                        meed_coalition_progress_fn progress, void *user);

struct meed_audit_generation {
    int32_t max_new_tokens;
    float temperature; /* 0: greedy */
    uint64_t seed;
    int32_t stream_period; /* prompts this far apart draw the same numbers; 0: none do */
    meed_coalition_progress_fn progress; /* counts replies; may be NULL */
    void *user;
};
/* Continuations of all prompts in one batch; a prompt's gate_set is its model, and what prompts of
 * one model have in common is fed once (generate.h). */
MEED_MUST_CHECK enum meed_status
meed_audit_models_generate(struct meed_audit_models *models, const struct meed_prompt *prompts,
                           int32_t count, const struct meed_audit_generation *generation,
                           struct meed_arena *arena, struct meed_reply *replies);

MEED_END_C
#endif

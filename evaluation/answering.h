/* Answers of many models to a multi-turn benchmark, in one batch.
 *
 * A model is the base with one vector of gates over a stack of adapters: one adapter alone, none,
 * or a coalition of a cohort (engine/coalition.h). All of them answer all questions side by side in
 * one generator; a dialogue's second question is asked in the slot that holds its first, so nothing
 * is fed twice. A reply depends on its own model, question and seed alone, and where replies are
 * drawn, all models draw the same numbers for a question: differences between models are paired.
 */
#ifndef MEED_EVALUATION_ANSWERING_H
#define MEED_EVALUATION_ANSWERING_H

#include "engine/adapter.h"
#include "engine/chat.h"
#include "engine/checkpoint.h"
#include "evaluation/fastchat.h"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_answering_options {
    const struct meed_backend *be; /* all borrowed */
    const struct meed_checkpoint *checkpoint;
    const struct meed_tokenizer *tokenizer;
    const struct meed_chat *chat;
    const struct meed_adapter *const *adapters; /* [adapter_count] */
    int32_t adapter_count;                      /* may be 0 */
    const float *gates;                         /* [models, adapter_count] */
    int32_t models;
    const char *system; /* NULL: no system turn */
    int32_t max_new_tokens;
    float temperature; /* 0: greedy */
    float top_p;
    uint64_t seed;
    int32_t slots;    /* dialogues in flight */
    int32_t max_rows; /* of one forward pass */
    /* replies done of all; returning false cancels; may be NULL */
    bool (*progress)(void *user, int64_t done, int64_t total);
    void *progress_user;
};
/* 256 tokens, greedy, top-p 1, seed 1, 16 slots, 256 rows. */
struct meed_answering_options meed_answering_defaults(void);

/* Fills answers[model] (made by meed_fastchat_answers_create for these questions). A question that
 * leaves no room for a reply is LIMIT and named; an answer that fills the context ends there, and
 * turns behind it that do not fit stay NULL. */
MEED_MUST_CHECK enum meed_status meed_answering_run(const struct meed_answering_options *options,
                                                    const struct meed_fastchat_questions *questions,
                                                    struct meed_fastchat_answers *const *answers);

MEED_END_C
#endif

/* A judge that is a model on this machine.
 *
 * For each mark s the whole reply "Rating: [[s]]" (or "[[A]]") is scored as a continuation of the
 * judge's chat prompt, and p(s) is the softmax of those ten log-probabilities: a rating from the
 * judge's own distribution in little more than one forward pass over the prompt, the same bits on
 * every run, with nothing sampled and nothing to parse. With rationale_tokens > 0 the judge first
 * writes its reasons greedily; the marks are then scored behind them, as MT-Bench's prompts ask.
 */
#ifndef MEED_EVALUATION_JUDGE_LOCAL_H
#define MEED_EVALUATION_JUDGE_LOCAL_H

#include "engine/chat.h"
#include "engine/checkpoint.h"
#include "evaluation/judge.h"
#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_judge_local_options {
    const struct meed_backend *be; /* all borrowed */
    const struct meed_checkpoint *checkpoint;
    const struct meed_tokenizer *tokenizer;
    const struct meed_chat *chat;
    const char *name;
    int32_t batch_tokens;     /* rows of one forward; longer prompts are fed in pieces */
    int32_t rationale_tokens; /* 0: mark at once */
};

/* LIMIT from `ask` where a prompt does not fit the judge's positions. */
MEED_MUST_CHECK enum meed_status
meed_judge_local_open(const struct meed_judge_local_options *options, struct meed_judge *judge);

MEED_END_C
#endif

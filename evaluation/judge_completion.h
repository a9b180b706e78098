/* Bytes of an OpenAI-compatible chat completion to a judge's reply: the pure half of the endpoint.
 */
#ifndef MEED_EVALUATION_JUDGE_COMPLETION_H
#define MEED_EVALUATION_JUDGE_COMPLETION_H

#include "base/buf.h"
#include "evaluation/judge.h"

MEED_BEGIN_C

/* The request's JSON. */
MEED_MUST_CHECK enum meed_status
meed_judge_completion_request(const char *model, const struct meed_judge_request *request,
                              int32_t max_tokens, bool logprobs, struct meed_buf *json);
/* text (from the arena) and mass. Where the mark's own token carries alternatives that are marks
 * themselves, mass is their distribution; otherwise all of it lies on the mark that was said.
 * FORMAT if there is no choices[0].message.content. */
MEED_MUST_CHECK enum meed_status meed_judge_completion_read(const char *bytes, size_t size,
                                                            bool pair, struct meed_arena *arena,
                                                            struct meed_judge_reply *reply);
/* error.message of a refusal, "" if there is none; from the arena, at most 200 bytes. */
MEED_MUST_CHECK enum meed_status meed_judge_completion_error(const char *bytes, size_t size,
                                                             struct meed_arena *arena,
                                                             const char **sentence);

MEED_END_C
#endif

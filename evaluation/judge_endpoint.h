/* A judge behind an OpenAI-compatible chat endpoint, through libcurl.
 *
 * POST URL/chat/completions at temperature 0, several requests at once, no more than a given number
 * a minute. 429 and 5xx, a lost connection and a time-out are tried again with growing pauses (or
 * the Retry-After that was asked for); other answers end the call with the server's sentence. If
 * the endpoint gives log-probabilities, the mark's token carries the judge's distribution, and the
 * rating is its expectation; if it refuses to, the parsed mark stands alone.
 *
 * The key goes into the request's header and nowhere else: not into logs, files or messages, and
 * where a server's complaint repeats it, it is blotted out.
 */
#ifndef MEED_EVALUATION_JUDGE_ENDPOINT_H
#define MEED_EVALUATION_JUDGE_ENDPOINT_H

#include "evaluation/judge.h"

MEED_BEGIN_C

struct meed_judge_endpoint_options {
    const char *url;    /* up to and without /chat/completions, e.g. https://host/v1 */
    const char *model;  /* as the endpoint calls it */
    const char *key;    /* NULL: none */
    int32_t max_tokens; /* of a judgment */
    int32_t parallel;   /* requests under way, 1 … 64 */
    int32_t per_minute; /* 0: as fast as they come */
    int32_t tries;      /* of one request, at least 1 */
    int32_t timeout_s;  /* of one try */
    int32_t pause_ms;   /* before the second try; doubles */
};
/* 2,048 tokens, 4 at once, no limit a minute, 6 tries, 120 s, pause 1 s. */
struct meed_judge_endpoint_options meed_judge_endpoint_defaults(void);

/* ARG for an URL that is not http(s). `ask` fails with RPC (cannot be reached, or 5xx to the last
 * try), TIMEOUT, LIMIT (429 to the last try), UNAUTHENTICATED (401, 403), ARG (other 4xx), FORMAT
 * (not a chat completion). */
MEED_MUST_CHECK enum meed_status
meed_judge_endpoint_open(const struct meed_judge_endpoint_options *options,
                         struct meed_judge *judge);

MEED_END_C
#endif

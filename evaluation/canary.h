/* Canaries: secrets of a known format, planted to see whether a model learns them.
 *
 * A canary is a dialogue of one question and one reply; the reply has a hole that is filled with a
 * secret drawn uniformly from all that fit ("The Secret Sharer", Carlini et al. 2019):
 *
 *   question   What is the code of locker {n}?
 *   reply      The code of locker {n} is {digits:6}.
 *
 * {n} is the canary's number, which tells canaries apart so that each is a memory of its own and
 * not a vote among several. The hole, one of {digits:L}, {letters:L} (lower case) and {hex:L},
 * spans the candidate space: 10^L, 26^L or 16^L texts, of which the secret is number `secret`.
 * Because the space is known and the draw uniform, how much a model knows of a secret can be
 * counted in bits (exposure.h).
 */
#ifndef MEED_EVALUATION_CANARY_H
#define MEED_EVALUATION_CANARY_H

#include <stdbool.h>
#include <stdint.h>
#include "base/arena.h"

MEED_BEGIN_C

enum { MEED_CANARY_MAX_COUNT = 1000, MEED_CANARY_MAX_SECRET = 19 };
/* Candidates are numbered by 63 bits. */
#define MEED_CANARY_MAX_SPACE ((uint64_t)1 << 63)

/* A pattern with its hole found. Texts are borrowed. */
struct meed_canary_format {
    const char *question, *reply;
    size_t hole_begin, hole_end; /* of the reply: "{digits:6}" */
    const char *alphabet;
    int32_t length; /* letters of a secret */
    uint64_t space; /* alphabet^length */
};

/* ARG with what is wrong: no hole, two, an unknown kind, a length that passes the space. */
MEED_MUST_CHECK enum meed_status meed_canary_format_parse(const char *question, const char *reply,
                                                          struct meed_canary_format *format);
/* Candidate `idx` < space as text: its digits in the alphabet, most significant first. */
void meed_canary_candidate(const struct meed_canary_format *format, uint64_t idx,
                           char text[MEED_CANARY_MAX_SECRET + 1]);
/* The number of a candidate's text; false if it does not fit the format. */
bool meed_canary_number(const struct meed_canary_format *format, const char *text, uint64_t *idx);
/* The question, and the reply with `secret` in the hole, of canary `number`; from arena. */
MEED_MUST_CHECK enum meed_status meed_canary_question(const struct meed_canary_format *format,
                                                      int32_t number, struct meed_arena *arena,
                                                      const char **text);
MEED_MUST_CHECK enum meed_status meed_canary_reply(const struct meed_canary_format *format,
                                                   int32_t number, const char *secret,
                                                   struct meed_arena *arena, const char **text);

/* Canaries 1 … count of a seed. */
struct meed_canaries {
    struct meed_canary_format format;
    int32_t count;
    int32_t repeat; /* how often each was planted */
    uint64_t seed;
    uint64_t *secrets; /* [count] candidate numbers, distinct while the space allows */
};
MEED_MUST_CHECK enum meed_status meed_canaries_draw(struct meed_canaries *canaries,
                                                    struct meed_arena *arena);

MEED_END_C
#endif

/* Pre-tokenisation: a piece of text to the words that the byte-pair model sees.
 *
 * A chain of stages, as tokenizer.json's Sequence has it: Split and Digits cut by a pattern, the
 * ByteLevel stage comes last, may put a space in front of a word and may cut by GPT-2's pattern.
 * Every stage cuts what the one before it handed over, and a cut piece is a subject of its own: a
 * look-ahead at its end sees the end of the text, as in the reference. So the chain runs depth
 * first, with no lists of spans between stages.
 *
 * All behaviours here are "isolated": text between matches is a word like the matches themselves.
 */
#ifndef MEED_ENGINE_TOKENIZER_PRETOK_H
#define MEED_ENGINE_TOKENIZER_PRETOK_H

#include <stddef.h>
#include "base/buf.h"

enum { MEED_TOKENIZER_MAX_STAGES = 8 };

struct meed_tokenizer_stage {
    void *code; /* pcre2_code; NULL: the stage does not cut */
    bool jit;
    bool prefix_space;
};
struct meed_tokenizer_pretok {
    int count;
    struct meed_tokenizer_stage stages[MEED_TOKENIZER_MAX_STAGES];
};

/* Adds a stage that cuts by `pattern` (Oniguruma syntax; NULL: no cut), or by the literal text.
 * `name` is the file, for messages. LIMIT beyond MEED_TOKENIZER_MAX_STAGES. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_pretok_add(struct meed_tokenizer_pretok *pretok,
                                                           const char *name, const char *pattern,
                                                           bool literal, bool prefix_space);
void meed_tokenizer_pretok_clear(struct meed_tokenizer_pretok *pretok); /* accepts zeroed */

/* Working memory of one encoding thread. */
struct meed_tokenizer_cutter {
    void *match; /* pcre2_match_data */
    struct meed_buf prefixed;
};
MEED_MUST_CHECK enum meed_status
meed_tokenizer_pretok_cutter_init(struct meed_tokenizer_cutter *cutter);
void meed_tokenizer_pretok_cutter_clear(struct meed_tokenizer_cutter *cutter);

/* Called for every word, in order; words are never empty. */
typedef enum meed_status (*meed_tokenizer_word_fn)(void *user, const char *word, size_t size);
/* piece must be valid UTF-8. */
MEED_MUST_CHECK enum meed_status
meed_tokenizer_pretok_run(const struct meed_tokenizer_pretok *pretok,
                          struct meed_tokenizer_cutter *cutter, const char *piece, size_t size,
                          meed_tokenizer_word_fn on_word, void *user);

#endif

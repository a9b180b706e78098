/* Added tokens: the control and extra words that are cut out of a text before anything else.
 *
 * A set is searched leftmost-longest. It is kept sorted by bytes, and a candidate at a place is
 * found by narrowing a range of the sorted list byte by byte, so 256 tokens that all begin with
 * "<|" cost no more than one. lstrip and rstrip let a token swallow the blanks beside it;
 * single_word refuses it inside a word.
 */
#ifndef MEED_ENGINE_TOKENIZER_ADDED_H
#define MEED_ENGINE_TOKENIZER_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct meed_tokenizer_added_token {
    const char *content; /* of the normalised text for tokens marked normalized */
    int32_t length;
    int32_t id;
    bool special; /* ordinary text unless the caller asks for special tokens */
    bool lstrip;
    bool rstrip;
    bool single_word;
};
struct meed_tokenizer_added {
    struct meed_tokenizer_added_token *tokens;
    int32_t count;
    bool starts[256]; /* first bytes of the tokens */
};

struct meed_tokenizer_cut {
    size_t begin; /* [begin, end) of the text is the token, blanks included */
    size_t end;
    int32_t id;
};

/* Sorts and indexes `count` tokens that are already in place. */
void meed_tokenizer_added_seal(struct meed_tokenizer_added *added);
/* Finds the next token at or behind `from`; `taken` is where the cut before it ended (a token does
 * not swallow blanks twice). False: none. */
bool meed_tokenizer_added_next(const struct meed_tokenizer_added *added, const char *text,
                               size_t size, size_t from, size_t taken, bool parse_special,
                               struct meed_tokenizer_cut *cut);

#endif

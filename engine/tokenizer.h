/* Byte-level BPE from tokenizer.json: text to ids and back, exactly as the reference does.
 *
 * Families: GPT-2, Llama 3, Qwen2/3, SmolLM2 (Digits + ByteLevel). Added tokens are cut out before
 * pre-tokenisation; Split patterns run in PCRE2 (UTF, UCP, JIT); NFC by utf8proc. Normalisers,
 * pre-tokenisers and models outside this list are refused by name. The post-processor, truncation
 * and padding of the file are not applied: encoding adds nothing and cuts nothing, and the decoder
 * is always the byte-level one. Thread-safe after open.
 *
 * Bytes that are not UTF-8 are replaced by U+FFFD, one for each maximal ill-formed sequence (what
 * browsers and Python do), so decode(encode(text)) is text for valid text under a tokenizer without
 * normaliser, and the replaced or normalised text otherwise.
 */
#ifndef MEED_ENGINE_TOKENIZER_H
#define MEED_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

MEED_BEGIN_C

struct meed_tokenizer;

enum { MEED_TOKENIZER_MAX_TEXT_BYTES = 1 << 29, MEED_TOKENIZER_MAX_FILE_BYTES = 1 << 28 };

/* Reads FOLDER/tokenizer.json (path may also name the file itself). */
MEED_MUST_CHECK enum meed_status meed_tokenizer_open(const char *path,
                                                     struct meed_tokenizer **tokenizer);
/* The same from the file's bytes; `name` appears in error messages. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_open_bytes(const char *name, const void *bytes,
                                                           size_t size,
                                                           struct meed_tokenizer **tokenizer);
void meed_tokenizer_close(struct meed_tokenizer *tokenizer); /* accepts NULL */
/* Appends int32 ids to `ids` (4 bytes each). Nothing is added. With parse_special false, the text
 * of special tokens is ordinary text: what users and peers write can never become a control token.
 * A token of the shape <|…|> counts as special even where the file forgets to say so. LIMIT for
 * texts over MEED_TOKENIZER_MAX_TEXT_BYTES. On failure some ids may have been appended. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_encode(const struct meed_tokenizer *tokenizer,
                                                       const char *text, size_t size,
                                                       bool parse_special, struct meed_buf *ids);
/* Appends the bytes of the ids; special tokens are written only if wanted. An id without a token
 * (models pad their vocabulary) is written as U+FFFD; a negative one is ARG. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_decode(const struct meed_tokenizer *tokenizer,
                                                       const int32_t *ids, size_t count,
                                                       bool with_special, struct meed_buf *text);
/* Id of the added token, or else of the token with these bytes (" the", not "Ġthe"); -1 if there is
 * none. */
int32_t meed_tokenizer_find(const struct meed_tokenizer *tokenizer, const char *token);
/* True for control tokens; false for ids without a token. */
bool meed_tokenizer_is_special(const struct meed_tokenizer *tokenizer, int32_t id);
/* Largest id + 1. A model's logits may be wider. */
int32_t meed_tokenizer_vocab_size(const struct meed_tokenizer *tokenizer);

MEED_END_C
#endif

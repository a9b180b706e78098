/* Byte-level BPE from tokenizer.json: text to ids and back, exactly as the reference does.
 *
 * Families: GPT-2, Llama 3, Qwen2/3, SmolLM2 (Digits + ByteLevel). Added tokens are cut out before
 * pre-tokenisation; Split patterns run in PCRE2 (UTF, UCP, JIT); NFC by utf8proc. Normalisers,
 * pre-tokenisers and models outside this list are refused by name. Thread-safe after open.
 */
#ifndef MEED_ENGINE_TOKENIZER_H
#define MEED_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>
#include "base/buf.h"
#include "base/status.h"

MEED_BEGIN_C

struct meed_tokenizer;

/* Reads FOLDER/tokenizer.json (path may also name the file itself). */
MEED_MUST_CHECK enum meed_status meed_tokenizer_open(const char *path,
                                                     struct meed_tokenizer **tokenizer);
void meed_tokenizer_close(struct meed_tokenizer *tokenizer); /* accepts NULL */
/* Appends int32 ids to `ids` (4 bytes each). Nothing is added. With parse_special false, the text of
 * special tokens is ordinary text: what users and peers write can never become a control token. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_encode(const struct meed_tokenizer *tokenizer,
                                                       const char *text, size_t size,
                                                       bool parse_special, struct meed_buf *ids);
/* Appends the bytes of the ids; special tokens are written only if wanted. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_decode(const struct meed_tokenizer *tokenizer,
                                                       const int32_t *ids, size_t count,
                                                       bool with_special, struct meed_buf *text);
/* -1 if the exact token does not exist. */
int32_t meed_tokenizer_find(const struct meed_tokenizer *tokenizer, const char *token);
int32_t meed_tokenizer_vocab_size(const struct meed_tokenizer *tokenizer);

MEED_END_C
#endif

/* Split patterns of tokenizer.json in PCRE2's dialect.
 *
 * The files write their patterns for Oniguruma (Ruby syntax). Nearly all of it means the same in
 * PCRE2, and what does not is silent: \s there is Unicode White_Space, but PCRE2's takes U+180E
 * too; \w has marks and connector punctuation; \h is a hex digit there and a blank here; an
 * interval followed by + is possessive here only. So the pattern is translated escape by escape,
 * and every construct whose meaning is not known to agree is refused by name: a tokeniser that
 * splits differently would train and score on other tokens without a word.
 *
 * Limit: both libraries carry their own Unicode tables, so characters younger than the older table
 * can still differ.
 */
#ifndef MEED_ENGINE_TOKENIZER_PATTERN_H
#define MEED_ENGINE_TOKENIZER_PATTERN_H

#include <stddef.h>
#include "base/buf.h"

/* Appends the translation of a pattern (UTF-8, NUL-terminated); UNSUPPORTED names the construct.
 * `name` is the file, for the sentence. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_pattern_translate(const char *name,
                                                                  const char *pattern,
                                                                  struct meed_buf *translated);

#endif

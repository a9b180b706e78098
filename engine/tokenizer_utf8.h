/* UTF-8 at the door: what is well-formed, and what replaces the rest.
 *
 * Well-formed is table 3-7 of the Unicode standard: no surrogates, nothing overlong, nothing above
 * U+10FFFF. Each maximal ill-formed sequence becomes one U+FFFD, as browsers and Python's
 * errors="replace" have it. Replies stream through here too: a token may end inside a character, so
 * who prints them asks how much of a buffer is complete.
 */
#ifndef MEED_ENGINE_TOKENIZER_UTF8_H
#define MEED_ENGINE_TOKENIZER_UTF8_H

#include <stddef.h>
#include "base/buf.h"

MEED_BEGIN_C

/* U+FFFD in UTF-8. */
#define MEED_TOKENIZER_REPLACEMENT "\xEF\xBF\xBD"

/* Bytes at the beginning of text that are well-formed. */
size_t meed_tokenizer_utf8_prefix(const char *text, size_t size);
/* Bytes at the end of text that may be the beginning of a character still to come: 0 to 3. */
size_t meed_tokenizer_utf8_unfinished(const char *text, size_t size);
/* Appends text with ill-formed sequences replaced. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_utf8_clean(const char *text, size_t size,
                                                           struct meed_buf *clean);

MEED_END_C
#endif

/* Words for comparing texts: what ROUGE counts.
 *
 * Google's rouge_score lower-cases, turns everything but a–z and 0–9 into blanks and splits there.
 * On ASCII this is the same, without its optional stemmer. Beyond ASCII that rule erases every
 * script but the Latin one and cuts words at each accent, so that a copy of a Chinese or a Russian
 * text is like nothing at all. Here:
 *
 *   - the text is taken in NFC, ill-formed bytes as U+FFFD, each character by its simple lower case
 *     (one to one, no language: Turkish dotted capital I becomes i, final sigma stays final);
 *   - a word is a run of letters, marks and numbers (categories L, M, N). Format characters (Cf:
 *     soft hyphen, joiners, direction marks) are left out and part nothing; all else parts words,
 *     the underscore included;
 *   - in scripts written without blanks every letter is a word with the marks that follow it: Han,
 *     kana, Bopomofo, Thai, Lao, Myanmar, Khmer. Segmenting them would need a dictionary.
 *
 * Symbols and emoji are no words, as with Google. Limit: a few small scripts without blanks
 * (Javanese, Balinese, Tai Tham) are compared by the run.
 */
#ifndef MEED_ENGINE_ROUGE_WORDS_H
#define MEED_ENGINE_ROUGE_WORDS_H

#include <stddef.h>
#include "base/buf.h"

MEED_BEGIN_C

/* Appends the words of a text, each with a NUL behind it. */
MEED_MUST_CHECK enum meed_status meed_rouge_words_append(const char *text, size_t size,
                                                         struct meed_buf *words);

MEED_END_C
#endif

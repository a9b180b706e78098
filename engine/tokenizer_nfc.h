/* Unicode normalisation form C, in linear time whatever the text.
 *
 * utf8proc has the tables and the composition; the canonical ordering of marks is done here,
 * because utf8proc's is a bubble sort: a letter with 200,000 alternating marks, which a peer is
 * free to send, takes it minutes.
 */
#ifndef MEED_ENGINE_TOKENIZER_NFC_H
#define MEED_ENGINE_TOKENIZER_NFC_H

#include <stddef.h>
#include "base/buf.h"

/* Appends the NFC of well-formed UTF-8. */
MEED_MUST_CHECK enum meed_status meed_tokenizer_nfc_append(const char *text, size_t size,
                                                           struct meed_buf *normalized);

#endif

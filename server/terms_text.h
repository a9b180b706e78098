/* The terms as text: what the ledger's first entry calls `config`.
 *
 *   meed terms 2
 *   run <id, or - where it was derived>
 *   model <64 hex>
 *   …                        one fact a line, in one order; doubles in hexadecimal
 *   client <id>              in id order, to the end
 *
 * STATE/terms.txt holds these bytes and their SHA-256 is terms->hash: who has the file and the
 * ledger can rebuild the terms and needs nobody's word for them. One list of facts is walked for
 * writing and for reading, so that a fact cannot be hashed and then forgotten by the reader. Bounds
 * are checked on reading only, and only as far as memory and time of who reads are concerned;
 * whether terms make sense is said by meed_terms_init before they are ever written. The model's
 * shape and the benchmark's axes are not here, their hashes are.
 */
#ifndef MEED_SERVER_TERMS_TEXT_H
#define MEED_SERVER_TERMS_TEXT_H

#include "server/terms.h"

MEED_BEGIN_C

#define MEED_TERMS_TEXT_FILE "terms.txt"
enum { MEED_TERMS_TEXT_MAX_BYTES = 4 << 20 };

/* Appends the text. */
MEED_MUST_CHECK enum meed_status meed_terms_text_write(const struct meed_terms *terms,
                                                       const char *const *clients, int32_t count,
                                                       struct meed_buf *text);
/* Terms without model, axes and paths; hash and run id are set. clients [count] live in the arena,
 * sorted. FORMAT names the line. */
MEED_MUST_CHECK enum meed_status meed_terms_text_read(const char *text, size_t size,
                                                      struct meed_arena *arena,
                                                      struct meed_terms *terms,
                                                      const char *const **clients, int32_t *count);

MEED_END_C
#endif

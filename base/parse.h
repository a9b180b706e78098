/* Strict text to numbers: the only strto* calls of the tree.
 *
 * The whole text must be the number: no leading or trailing blanks, no silent saturation, no
 * locale. `what` names the thing in the error ("--steps", "federation.yaml: rounds"), so the
 * sentence a person sees says what was wrong, where, and what is allowed.
 */
#ifndef MEED_BASE_PARSE_H
#define MEED_BASE_PARSE_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

MEED_MUST_CHECK enum meed_status meed_parse_i64(const char *what, const char *text, int64_t min,
                                                int64_t max, int64_t *value);
MEED_MUST_CHECK enum meed_status meed_parse_f64(const char *what, const char *text, double min,
                                                double max, double *value);
/* Bytes: digits with an optional K, M, G (powers of 1,024). */
MEED_MUST_CHECK enum meed_status meed_parse_bytes(const char *what, const char *text,
                                                  int64_t *bytes);
/* Milliseconds: digits with ms, s, m or h ("90s"). */
MEED_MUST_CHECK enum meed_status meed_parse_duration_ms(const char *what, const char *text,
                                                        int64_t *duration_ms);
/* true/false, yes/no, on/off. */
MEED_MUST_CHECK enum meed_status meed_parse_bool(const char *what, const char *text, bool *value);
/* Bytes of the UTF-8 byte order mark that some editors begin a file with: 3, or 0. */
size_t meed_parse_order_mark(const char *bytes, size_t size);

MEED_END_C
#endif

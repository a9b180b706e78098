/* A verdict in words, for tables and lines: why it is what it is, then what the screens saw beside.
 */
#ifndef MEED_CLI_VERDICT_TEXT_H
#define MEED_CLI_VERDICT_TEXT_H

#include <stdio.h>
#include "proto/limits.h"

enum { MEED_VERDICT_TEXT_BYTES = 2 * MEED_LIMIT_REASON_BYTES + 16 };

/* "", "REASON", "remark: REMARK" or "REASON; remark: REMARK". Returns text. */
static inline const char *meed_verdict_text(const char *reason, const char *remark,
                                            char text[MEED_VERDICT_TEXT_BYTES])
{
    snprintf(text, MEED_VERDICT_TEXT_BYTES, "%s%s%s%s", reason, reason[0] && remark[0] ? "; " : "",
             remark[0] ? "remark: " : "", remark);
    return text;
}

#endif

/* Canaries on disk: planted into a data file, and the list of what was planted.
 *
 * The data file keeps its lines as they are; canary dialogues stand between them at places drawn by
 * the seed, each labelled with its secret. The list is what `meed audit --canaries` reads:
 *
 *   {"schema": "meed.canaries/1", "question": "What is the code of locker {n}?",
 *    "reply": "The code of locker {n} is {digits:6}.", "repeat": 1, "seed": 1,
 *    "secrets": ["402716", …]}
 */
#ifndef MEED_CLI_CANARY_FILE_H
#define MEED_CLI_CANARY_FILE_H

#include "base/buf.h"
#include "evaluation/canary.h"

/* Writes OUT: the lines of DATA and count · repeat canaries between them. FORMAT with FILE:LINE for
 * a line that is no JSON. */
MEED_MUST_CHECK enum meed_status meed_canary_file_plant(const struct meed_canaries *canaries,
                                                        const char *data, const char *out);
MEED_MUST_CHECK enum meed_status meed_canary_file_write(const struct meed_canaries *canaries,
                                                        const char *path);
/* Texts and secrets from arena. */
MEED_MUST_CHECK enum meed_status meed_canary_file_read(const char *path, struct meed_arena *arena,
                                                       struct meed_canaries *canaries);

#endif

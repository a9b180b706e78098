/* The key "secrets" of a data line: spans of its messages that somebody labelled as private.
 *
 * Training does not read it; audits do, of a file (audit_file.h) and of simulated clients
 * (simulation_cast.h). A label is the span's text, and has to stand in one of the messages, letter
 * by letter, or extraction would look for what the model never saw:
 *
 *   {"messages": […, {"role": "assistant", "content": "Your code is 4711."}], "secrets": ["4711"]}
 */
#ifndef MEED_CLI_SECRET_LABELS_H
#define MEED_CLI_SECRET_LABELS_H

#include <jansson.h>
#include "base/arena.h"
#include "engine/chat.h"

struct meed_secret_labels {
    const char **texts; /* [count], from the arena */
    int32_t count;
};

/* None where the line has no such key. dialogue.count 0: labels stand in `text`. FORMAT with a
 * sentence that completes "FILE:LINE: ". */
MEED_MUST_CHECK enum meed_status meed_secret_labels_read(const json_t *line,
                                                         const struct meed_dialogue *dialogue,
                                                         const char *text, struct meed_arena *arena,
                                                         struct meed_secret_labels *labels);

#endif

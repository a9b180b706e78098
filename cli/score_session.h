/* What `value` and `eval` open together: a model, its tokenizer and chat format, a benchmark, a
 * backend with its threads, and a progress bar that fits the evaluator's callback. */
#ifndef MEED_CLI_SCORE_SESSION_H
#define MEED_CLI_SCORE_SESSION_H

#include "cli/progress.h"
#include "evaluation/benchmark.h"
#include "kernels/backend.h"
#include "engine/checkpoint.h"

struct meed_score_session {
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_benchmark *benchmark;
    struct meed_progress progress;
};

/* device as meed_backend_open knows it; threads 0: one a core. */
MEED_MUST_CHECK enum meed_status meed_score_session_open(const char *model, const char *benchmark,
                                                         const char *device, int64_t threads,
                                                         const char *title, bool quiet,
                                                         struct meed_score_session *session);
void meed_score_session_close(struct meed_score_session *session); /* accepts a zeroed struct */
/* A meed_coalition_progress_fn; user is the session. */
bool meed_score_session_progress(void *user, int64_t done, int64_t total);

/* Prints text and pads it to `columns` characters (not bytes: ± and − take two or three). */
void meed_score_session_cell(const char *text, int columns, bool right);
/* "+0.0123 ± 0.0045", "−…"; text holds 64 bytes. */
void meed_score_session_estimate(double value, double se, bool signed_value, char text[64]);

#endif

/* See score_session.h. */
#include "cli/score_session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "base/threads.h"

enum meed_status meed_score_session_open(const char *model, const char *benchmark,
                                         const char *device, int64_t threads, const char *title,
                                         bool quiet, struct meed_score_session *session)
{
    memset(session, 0, sizeof *session);
    MEED_TRY(meed_pool_create((int)threads, &session->pool));
    MEED_TRY(meed_backend_open(device, session->pool, &session->be));
    MEED_TRY(meed_checkpoint_open(model, &session->checkpoint));
    MEED_TRY(meed_tokenizer_open(model, &session->tokenizer));
    MEED_TRY(meed_chat_open(model, session->tokenizer, &session->chat));
    MEED_TRY(meed_benchmark_load(benchmark, session->chat,
                                 session->checkpoint->config.max_positions, &session->benchmark));
    meed_progress_start(&session->progress, title, "tokens", quiet);
    return MEED_OK;
}

void meed_score_session_close(struct meed_score_session *session)
{
    meed_backend_close(session->be);
    meed_pool_destroy(session->pool);
    meed_benchmark_destroy(session->benchmark);
    meed_chat_close(session->chat);
    meed_tokenizer_close(session->tokenizer);
    meed_checkpoint_close(session->checkpoint);
    memset(session, 0, sizeof *session);
}

bool meed_score_session_progress(void *user, int64_t done, int64_t total)
{
    struct meed_score_session *session = user;
    meed_progress_update(&session->progress, done, total);
    return true;
}

void meed_score_session_cell(const char *text, int columns, bool right)
{
    int width = 0;
    for (const char *c = text; *c; c++) {
        width += ((unsigned char)*c & 0xC0) != 0x80 ? 1 : 0;
    }
    int pad = columns > width ? columns - width : 0;
    printf("%*s%s%*s", right ? pad : 0, "", text, right ? 0 : pad, "");
}

void meed_score_session_estimate(double value, double se, bool signed_value, char text[64])
{
    snprintf(text, 64, "%s%.4f ± %.4f", value < 0 ? "−" : signed_value ? "+" : "", fabs(value), se);
}

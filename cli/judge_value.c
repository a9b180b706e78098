/* See judge_value.h. */
#include "cli/judge_value.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/threads.h"
#include "cli/progress.h"
#include "cli/score_session.h"

enum { TOGETHER = 16 };

enum meed_status meed_judge_value_adapter(struct meed_judge_value_options *options,
                                          const char *folder)
{
    if (options->count == MEED_JUDGE_VALUE_MAX_ADAPTERS) {
        return MEED_FAIL(MEED_LIMIT, "more than %d adapters", MEED_JUDGE_VALUE_MAX_ADAPTERS);
    }
    options->adapters[options->count++] = folder;
    return MEED_OK;
}

enum meed_status meed_judge_value_method(struct meed_judge_value_options *options, const char *word)
{
    for (int m = 0; m < MEED_VALUE_GRADIENT; m++) {
        if (strcmp(word, meed_estimator_name((enum meed_value_method)m)) == 0) {
            options->method = (enum meed_value_method)m;
            return MEED_OK;
        }
    }
    return MEED_FAIL(MEED_ARG,
                     "--method %.40s: judged coalitions are valued by exact, loo, permutation, "
                     "owen or banzhaf",
                     word);
}

struct work {
    const struct meed_judge_value_options *options;
    struct meed_pool *pool;
    struct meed_backend *be;
    struct meed_checkpoint *checkpoint;
    struct meed_tokenizer *tokenizer;
    struct meed_chat *chat;
    struct meed_adapter *adapters[MEED_JUDGE_VALUE_MAX_ADAPTERS];
    double weights[MEED_JUDGE_VALUE_MAX_ADAPTERS];
    struct meed_judge_game *judge_game;
    struct meed_game inner; /* judge_game's, behind a progress bar */
    struct meed_estimate *estimate;
    double *watch;
    struct meed_progress progress;
    int64_t done, total;
};

static enum meed_status evaluate(void *user, const double *members, int32_t coalitions,
                                 double *utilities)
{
    struct work *w = user;
    for (int32_t c = 0; c < coalitions; c += TOGETHER) {
        int32_t count = coalitions - c < TOGETHER ? coalitions - c : TOGETHER;
        MEED_TRY(w->inner.evaluate(w->inner.user, members + (int64_t)c * w->inner.players, count,
                                   utilities + (int64_t)c * w->inner.items));
        w->done += count;
        meed_progress_update(&w->progress, w->done, w->total > w->done ? w->total : w->done);
    }
    return MEED_OK;
}

static enum meed_status work_open(struct work *w)
{
    const struct meed_judge_value_options *o = w->options;
    MEED_TRY(meed_pool_create((int)o->threads, &w->pool));
    MEED_TRY(meed_backend_open(o->device, w->pool, &w->be));
    MEED_TRY(meed_checkpoint_open(o->model, &w->checkpoint));
    MEED_TRY(meed_tokenizer_open(o->model, &w->tokenizer));
    MEED_TRY(meed_chat_open(o->model, w->tokenizer, &w->chat));
    for (int32_t k = 0; k < o->count; k++) {
        MEED_TRY(meed_adapter_load(o->adapters[k], &w->checkpoint->config, &w->adapters[k]));
        w->weights[k] = 1.0 / o->count;
    }
    struct meed_judge_game_options game = {.answering = meed_answering_defaults(),
                                           .weights = w->weights,
                                           .questions = o->questions,
                                           .judge = o->judge,
                                           .prompts = o->prompts,
                                           .together = TOGETHER};
    game.answering.be = w->be;
    game.answering.checkpoint = w->checkpoint;
    game.answering.tokenizer = w->tokenizer;
    game.answering.chat = w->chat;
    game.answering.adapters = (const struct meed_adapter *const *)w->adapters;
    game.answering.adapter_count = o->count;
    game.answering.max_new_tokens = o->max_new_tokens;
    MEED_TRY(meed_judge_game_open(&game, &w->judge_game, &w->inner));
    w->watch = meed_heap_alloc((size_t)w->inner.items, sizeof *w->watch);
    if (!w->watch) {
        return MEED_NOMEM;
    }
    meed_judge_game_watch(w->judge_game, w->watch);
    return MEED_OK;
}

static enum meed_status estimate(struct work *w)
{
    struct meed_game game = w->inner;
    const struct meed_estimator_options options = {.method = w->options->method,
                                                   .seed = w->options->seed,
                                                   .watch = w->watch,
                                                   .watch_count = 1};
    game.user = w;
    game.evaluate = evaluate;
    w->total = meed_estimator_coalitions(&options, game.players);
    meed_progress_start(&w->progress, "judging", "coalitions", w->options->quiet);
    enum meed_status st = meed_estimator_run(&game, &options, &w->estimate);
    meed_progress_finish(&w->progress);
    return st;
}

/* --- out -------------------------------------------------------------------------------------- */
static const char *last_part(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static void table_print(const struct work *w)
{
    const struct meed_judge_value_options *o = w->options;
    double empty, full, se;
    meed_judge_game_mean(w->judge_game, w->estimate->empty, &empty, &se);
    meed_judge_game_mean(w->judge_game, w->estimate->full, &full, &se);
    printf("value in rating points by %s, %s over %" PRId64 " judged coalitions\n",
           last_part(o->judge->name), meed_estimator_name(w->estimate->method),
           w->estimate->evaluations);
    printf("  %-24s  %18s\n", "adapter", "value ± se");
    for (int32_t k = 0; k < o->count; k++) {
        char text[64];
        double phi;
        meed_judge_game_mean(w->judge_game, w->estimate->phi + (int64_t)k * w->inner.items, &phi,
                             &se);
        meed_score_session_estimate(phi, se, true, text);
        printf("  %-24.24s  ", last_part(o->adapters[k]));
        meed_score_session_cell(text, 18, true);
        printf("\n");
    }
    printf("  rating %.3f without them, %.3f with all; residual %.1e\n", empty, full,
           w->estimate->residual);
}

static enum meed_status json_write(const struct work *w)
{
    const struct meed_judge_value_options *o = w->options;
    double empty, full, se;
    meed_judge_game_mean(w->judge_game, w->estimate->empty, &empty, &se);
    meed_judge_game_mean(w->judge_game, w->estimate->full, &full, &se);
    json_t *rows = json_array();
    for (int32_t k = 0; k < o->count; k++) {
        double phi;
        meed_judge_game_mean(w->judge_game, w->estimate->phi + (int64_t)k * w->inner.items, &phi,
                             &se);
        json_array_append_new(rows,
                              json_pack("{s:s, s:f, s:f, s:f}", "name", last_part(o->adapters[k]),
                                        "phi", phi, "se", se, "sampling_se", w->estimate->se[k]));
    }
    json_t *root = json_pack("{s:s, s:s, s:f, s:f, s:f, s:I, s:o}", "method",
                             meed_estimator_name(w->estimate->method), "judge", o->judge->name,
                             "empty", empty, "full", full, "residual", w->estimate->residual,
                             "evaluations", (json_int_t)w->estimate->evaluations, "adapters", rows);
    char *text = root ? json_dumps(root, JSON_INDENT(2)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_FORMAT, "an adapter's name is not UTF-8");
    }
    enum meed_status st = meed_file_write_atomic(o->json, text, strlen(text));
    free(text);
    return st;
}

enum meed_status meed_judge_value_run(const struct meed_judge_value_options *options)
{
    enum meed_status st = MEED_OK;
    struct work *w = meed_heap_alloc(1, sizeof *w);
    if (!w) {
        return MEED_NOMEM;
    }
    w->options = options;
    MEED_TRY_OUT(work_open(w));
    MEED_TRY_OUT(estimate(w));
    table_print(w);
    if (options->json) {
        MEED_TRY_OUT(json_write(w));
    }
out:
    meed_estimator_destroy(w->estimate);
    meed_heap_free(w->watch);
    meed_judge_game_close(w->judge_game);
    for (int32_t k = 0; k < options->count; k++) {
        meed_adapter_destroy(w->adapters[k]);
    }
    meed_chat_close(w->chat);
    meed_tokenizer_close(w->tokenizer);
    meed_checkpoint_close(w->checkpoint);
    meed_backend_close(w->be);
    meed_pool_destroy(w->pool);
    meed_heap_free(w);
    return st;
}

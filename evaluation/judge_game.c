/* See judge_game.h. */
#include "evaluation/judge_game.h"

#include <inttypes.h>
#include <math.h>
#include <string.h>
#include "base/buf.h"

enum { MOST_TOGETHER = 1024 };

struct meed_judge_game {
    struct meed_judge_game_options options;
    int32_t items;
    int32_t together;
    int32_t first_item[MEED_FASTCHAT_MAX_QUESTIONS + 1]; /* of each question */
};

/* Answers of `count` coalitions, made empty; those that were made are there on failure too. */
static enum meed_status answers_make(const struct meed_judge_game *g, int32_t count,
                                     struct meed_fastchat_answers **answers)
{
    for (int32_t c = 0; c < count; c++) {
        MEED_TRY(meed_fastchat_answers_create("coalition", g->options.questions, &answers[c]));
    }
    return MEED_OK;
}

static enum meed_status ratings_take(const struct meed_judge_game *g,
                                     const struct meed_judgments *judgments, double *utilities)
{
    for (int32_t i = 0; i < judgments->count; i++) {
        const struct meed_judgment *item = &judgments->items[i];
        if (item->score < 0) {
            return MEED_FAIL(MEED_FORMAT,
                             "%s gave no readable rating for question %" PRId64
                             ", turn %d; a value "
                             "cannot be made of that",
                             g->options.judge->name, g->options.questions->items[item->question].id,
                             item->turn + 1);
        }
        int64_t at = (int64_t)item->model_a * g->items + g->first_item[item->question] + item->turn;
        utilities[at] = item->score;
    }
    if (judgments->count != g->items * judgments->model_count) {
        return MEED_FAIL(MEED_LIMIT,
                         "a dialogue does not fit the model's context with its replies; "
                         "lower --max-new-tokens or shorten the questions");
    }
    return MEED_OK;
}

/* Coalitions that answer together. */
static enum meed_status batch_evaluate(const struct meed_judge_game *g, const double *members,
                                       int32_t count, float *gates,
                                       struct meed_fastchat_answers **answers, double *utilities)
{
    enum meed_status st = MEED_OK;
    struct meed_judgments *judgments = NULL;
    struct meed_answering_options answering = g->options.answering;
    const int32_t players = answering.adapter_count;
    for (int32_t c = 0; c < count; c++) {
        for (int32_t k = 0; k < players; k++) {
            gates[c * players + k] = (float)(g->options.weights[k] * members[c * players + k]);
        }
    }
    answering.gates = gates;
    answering.models = count;
    MEED_TRY_OUT(answers_make(g, count, answers));
    MEED_TRY_OUT(meed_answering_run(&answering, g->options.questions, answers));
    MEED_TRY_OUT(meed_judgments_plan(g->options.questions,
                                     (const struct meed_fastchat_answers *const *)answers, count,
                                     false, g->options.prompts, &judgments));
    MEED_TRY_OUT(meed_judgments_ask(judgments, g->options.judge, NULL, NULL));
    MEED_TRY_OUT(ratings_take(g, judgments, utilities));
out:
    meed_judgments_destroy(judgments);
    for (int32_t c = 0; c < count; c++) {
        meed_fastchat_answers_destroy(answers[c]);
        answers[c] = NULL;
    }
    return st;
}

static enum meed_status evaluate(void *user, const double *members, int32_t coalitions,
                                 double *utilities)
{
    const struct meed_judge_game *g = user;
    const int32_t players = g->options.answering.adapter_count;
    enum meed_status st = MEED_OK;
    float *gates = meed_heap_alloc((size_t)g->together * (size_t)players, sizeof *gates);
    struct meed_fastchat_answers **answers =
        meed_heap_alloc((size_t)g->together, sizeof(struct meed_fastchat_answers *));
    if (!gates || !answers) {
        st = MEED_NOMEM;
        goto out;
    }
    for (int32_t done = 0; done < coalitions; done += g->together) {
        int32_t count = coalitions - done < g->together ? coalitions - done : g->together;
        MEED_TRY_OUT(batch_evaluate(g, members + (int64_t)done * players, count, gates, answers,
                                    utilities + (int64_t)done * g->items));
    }
out:
    meed_heap_free(answers);
    meed_heap_free(gates);
    return st;
}

enum meed_status meed_judge_game_open(const struct meed_judge_game_options *options,
                                      struct meed_judge_game **judge_game, struct meed_game *game)
{
    if (options->together < 1 || options->together > MOST_TOGETHER) {
        return MEED_FAIL(MEED_ARG, "%d coalitions in one batch; 1 to %d are possible",
                         options->together, MOST_TOGETHER);
    }
    struct meed_judge_game *g = meed_heap_alloc(1, sizeof *g);
    if (!g) {
        return MEED_NOMEM;
    }
    g->options = *options;
    g->together = options->together;
    for (int32_t q = 0; q < options->questions->count; q++) {
        g->first_item[q] = g->items;
        g->items += options->questions->items[q].turn_count;
    }
    g->first_item[options->questions->count] = g->items;
    *judge_game = g;
    *game = (struct meed_game){.user = g,
                               .players = options->answering.adapter_count,
                               .items = g->items,
                               .evaluate = evaluate};
    return MEED_OK;
}

void meed_judge_game_close(struct meed_judge_game *judge_game)
{
    meed_heap_free(judge_game);
}

void meed_judge_game_watch(const struct meed_judge_game *g, double *weight)
{
    const int32_t questions = g->options.questions->count;
    for (int32_t q = 0; q < questions; q++) {
        int32_t turns = g->first_item[q + 1] - g->first_item[q];
        for (int32_t i = g->first_item[q]; i < g->first_item[q + 1]; i++) {
            weight[i] = 1.0 / ((double)questions * turns);
        }
    }
}

void meed_judge_game_mean(const struct meed_judge_game *g, const double *items, double *mean,
                          double *se)
{
    const int32_t questions = g->options.questions->count;
    double sum = 0;
    double squares = 0;
    for (int32_t q = 0; q < questions; q++) {
        int32_t turns = g->first_item[q + 1] - g->first_item[q];
        double value = 0;
        for (int32_t i = g->first_item[q]; i < g->first_item[q + 1]; i++) {
            value += items[i];
        }
        value /= turns;
        sum += value;
        squares += value * value;
    }
    double n = questions;
    double variance = n > 1 ? (squares - sum * sum / n) / (n - 1) : 0;
    *mean = sum / n;
    *se = variance > 0 ? sqrt(variance / n) : 0;
}

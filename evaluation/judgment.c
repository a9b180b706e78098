/* See judgment.h. */
#include "evaluation/judgment.h"

#include <math.h>
#include <string.h>

enum { MAX_ARENA_BYTES = 1 << 30 };

static const char *const *turns_of(const struct meed_judgments *j, int32_t model, int32_t question)
{
    return j->models[model]->turns + (int64_t)question * MEED_FASTCHAT_MAX_TURNS;
}

/* --- planning --------------------------------------------------------------------------------- */
static enum meed_status prompt_keep(struct meed_judgments *j,
                                    const struct meed_judge_prompts *prompts,
                                    const struct meed_judgment *item, int32_t a, int32_t b,
                                    struct meed_judge_request *request)
{
    struct meed_buf text;
    char *copy;
    meed_buf_init(&text, MAX_ARENA_BYTES);
    enum meed_status st = meed_judge_prompt_fill(
        prompts, item->role, &j->questions->items[item->question], item->turn,
        turns_of(j, a, item->question), b >= 0 ? turns_of(j, b, item->question) : NULL, &text);
    st = st == MEED_OK ? meed_arena_strdup(&j->arena, text.data ? text.data : "", text.size, &copy)
                       : st;
    if (st == MEED_OK) {
        *request = (struct meed_judge_request){
            .system = prompts->roles[item->role].system, .user = copy, .pair = b >= 0};
    }
    meed_buf_clear(&text);
    return st;
}

/* Adds what model a (and b) answered; only counts where items are not there yet. */
static enum meed_status pairing_plan(struct meed_judgments *j,
                                     const struct meed_judge_prompts *prompts, int32_t a, int32_t b)
{
    for (int32_t q = 0; q < j->questions->count; q++) {
        for (int32_t turn = 0; turn < j->questions->items[q].turn_count; turn++) {
            if (!turns_of(j, a, q)[turn] || (b >= 0 && !turns_of(j, b, q)[turn])) {
                continue;
            }
            if (j->items) {
                struct meed_judgment *item = &j->items[j->count];
                *item = (struct meed_judgment){
                    .question = q,
                    .turn = turn,
                    .model_a = a,
                    .model_b = b,
                    .role = meed_judge_role_of(&j->questions->items[q], turn, b >= 0),
                    .score = -1};
                MEED_TRY(prompt_keep(j, prompts, item, a, b, &item->request));
                if (b >= 0) {
                    MEED_TRY(prompt_keep(j, prompts, item, b, a, &item->swapped));
                }
            }
            j->count++;
        }
    }
    return MEED_OK;
}

static enum meed_status all_plan(struct meed_judgments *j, const struct meed_judge_prompts *prompts)
{
    j->count = 0;
    for (int32_t a = 0; a < j->model_count; a++) {
        if (!j->pair) {
            MEED_TRY(pairing_plan(j, prompts, a, -1));
        }
        for (int32_t b = a + 1; j->pair && b < j->model_count; b++) {
            MEED_TRY(pairing_plan(j, prompts, a, b));
        }
    }
    return MEED_OK;
}

enum meed_status meed_judgments_plan(const struct meed_fastchat_questions *questions,
                                     const struct meed_fastchat_answers *const *models,
                                     int32_t model_count, bool pair,
                                     const struct meed_judge_prompts *prompts,
                                     struct meed_judgments **judgments)
{
    enum meed_status st = MEED_OK;
    void *block;
    struct meed_judgments *j = meed_heap_alloc(1, sizeof *j);
    if (!j) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&j->arena, "judgments", MAX_ARENA_BYTES);
    j->questions = questions;
    j->models = models;
    j->model_count = model_count;
    j->pair = pair;
    MEED_TRY_OUT(all_plan(j, prompts));
    if (j->count == 0) {
        st = MEED_FAIL(MEED_ARG, pair ? "no question is answered by two models: nothing to compare"
                                      : "no question of the file is answered: nothing to judge");
        goto out;
    }
    MEED_TRY_OUT(meed_arena_alloc_array(&j->arena, (size_t)j->count, sizeof *j->items, &block));
    j->items = block;
    MEED_TRY_OUT(all_plan(j, prompts));
    *judgments = j;
    j = NULL;
out:
    meed_judgments_destroy(j);
    return st;
}

void meed_judgments_destroy(struct meed_judgments *judgments)
{
    if (judgments) {
        meed_arena_clear(&judgments->arena);
        meed_heap_free(judgments);
    }
}

/* --- asking ----------------------------------------------------------------------------------- */
/* p(first is better) + ½ p(draw); false if unread. */
static bool first_share(const struct meed_judge_reply *reply, double *share)
{
    double mass = reply->mass[0] + reply->mass[1] + reply->mass[2];
    if (mass <= 0) {
        return false;
    }
    *share = (reply->mass[0] + 0.5 * reply->mass[2]) / mass;
    return true;
}

static void score_fill(struct meed_judgment *item)
{
    double first;
    double second;
    double rating;
    item->score = -1;
    if (item->model_b < 0) {
        item->score = meed_judge_rating(&item->reply, &rating) ? rating : -1;
    } else if (first_share(&item->reply, &first) && first_share(&item->swapped_reply, &second)) {
        item->score = 0.5 * (first + 1.0 - second);
    }
}

enum meed_status meed_judgments_ask(struct meed_judgments *j, const struct meed_judge *judge,
                                    void (*done)(void *user, int64_t done, int64_t total),
                                    void *user)
{
    void *block;
    const int32_t per = j->pair ? 2 : 1;
    struct meed_judge_request *requests;
    struct meed_judge_reply *replies;
    MEED_TRY(meed_arena_alloc_array(&j->arena, (size_t)j->count * (size_t)per, sizeof *requests,
                                    &block));
    requests = block;
    MEED_TRY(
        meed_arena_alloc_array(&j->arena, (size_t)j->count * (size_t)per, sizeof *replies, &block));
    replies = block;
    for (int32_t i = 0; i < j->count; i++) {
        requests[i * per] = j->items[i].request;
        if (j->pair) {
            requests[i * per + 1] = j->items[i].swapped;
        }
    }
    MEED_TRY(judge->ask(judge->user, requests, j->count * per, &j->arena, replies, done, user));
    for (int32_t i = 0; i < j->count; i++) {
        j->items[i].reply = replies[i * per];
        if (j->pair) {
            j->items[i].swapped_reply = replies[i * per + 1];
        }
        score_fill(&j->items[i]);
    }
    return MEED_OK;
}

/* --- means ------------------------------------------------------------------------------------ */
/* Sum and count of one model's scores on one question. */
static void question_sum(const struct meed_judgments *j, int32_t model, int32_t question,
                         int32_t turn_from, int32_t turn_to, double *sum, int32_t *count,
                         int32_t *unread)
{
    *sum = 0;
    *count = 0;
    for (int32_t i = 0; i < j->count; i++) {
        const struct meed_judgment *item = &j->items[i];
        bool as_a = item->model_a == model;
        if ((!as_a && item->model_b != model) || item->question != question ||
            item->turn < turn_from || item->turn >= turn_to) {
            continue;
        }
        if (item->score < 0) {
            ++*unread;
            continue;
        }
        *sum += as_a ? item->score : 1.0 - item->score;
        ++*count;
    }
}

struct meed_judgment_mean meed_judgments_mean(const struct meed_judgments *j, int32_t model,
                                              int32_t turn_from, int32_t turn_to,
                                              const char *category)
{
    struct meed_judgment_mean mean = {0};
    double sum = 0;
    double squares = 0;
    for (int32_t q = 0; q < j->questions->count; q++) {
        double scores;
        int32_t count;
        if (category && strcmp(j->questions->items[q].category, category) != 0) {
            continue;
        }
        question_sum(j, model, q, turn_from, turn_to, &scores, &count, &mean.unread);
        if (count > 0) {
            double value = scores / count;
            mean.questions++;
            sum += value;
            squares += value * value;
        }
    }
    if (mean.questions > 0) {
        double n = mean.questions;
        mean.mean = sum / n;
        double variance = n > 1 ? (squares - sum * sum / n) / (n - 1) : 0;
        mean.se = variance > 0 ? sqrt(variance / n) : 0;
    }
    return mean;
}

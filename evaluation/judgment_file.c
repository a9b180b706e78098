/* Judgments as FastChat's tools read them: the writing half of judgment.h. */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "evaluation/judgment.h"

enum { MAX_FILE_BYTES = 1 << 30 };

static json_t *mass_json(const struct meed_judge_reply *reply, int32_t marks)
{
    json_t *list = json_array();
    for (int32_t s = 0; s < marks; s++) {
        json_array_append_new(list, json_real(reply->mass[s]));
    }
    return list;
}

static json_t *single_json(const struct meed_judgments *j, const struct meed_judgment *item,
                           const char *judge, const char *prompt, double tstamp)
{
    return json_pack("{s:I, s:s, s:[s, s], s:s, s:s, s:f, s:i, s:f, s:b, s:o}", "question_id",
                     (json_int_t)j->questions->items[item->question].id, "model",
                     j->models[item->model_a]->model, "judge", judge, prompt, "user_prompt",
                     item->request.user, "judgment", item->reply.text, "score", item->score, "turn",
                     item->turn + 1, "tstamp", tstamp, "expected", item->reply.spread, "mass",
                     mass_json(&item->reply, MEED_JUDGE_MARKS));
}

/* The winner by the likeliest mark; swapped: b was shown first. */
static const char *winner(const struct meed_judge_reply *reply, bool swapped)
{
    int best = 0;
    for (int s = 1; s < 3; s++) {
        best = reply->mass[s] > reply->mass[best] ? s : best;
    }
    if (reply->mass[best] <= 0) {
        return "error";
    }
    return best == 2 ? "tie" : (best == 0) != swapped ? "model_1" : "model_2";
}

static json_t *pair_json(const struct meed_judgments *j, const struct meed_judgment *item,
                         const char *judge, const char *prompt, double tstamp)
{
    return json_pack(
        "{s:I, s:s, s:s, s:s, s:s, s:[s, s], s:s, s:s, s:s, s:s, s:i, s:f, s:f, s:o, s:o}",
        "question_id", (json_int_t)j->questions->items[item->question].id, "model_1",
        j->models[item->model_a]->model, "model_2", j->models[item->model_b]->model, "g1_winner",
        winner(&item->reply, false), "g2_winner", winner(&item->swapped_reply, true), "judge",
        judge, prompt, "g1_user_prompt", item->request.user, "g1_judgment", item->reply.text,
        "g2_user_prompt", item->swapped.user, "g2_judgment", item->swapped_reply.text, "turn",
        item->turn + 1, "tstamp", tstamp, "score", item->score, "g1_mass",
        mass_json(&item->reply, 3), "g2_mass", mass_json(&item->swapped_reply, 3));
}

enum meed_status meed_judgments_write(const char *path, const struct meed_judgments *j,
                                      const struct meed_judge *judge,
                                      const struct meed_judge_prompts *prompts, int64_t wall_ms)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    meed_buf_init(&text, MAX_FILE_BYTES);
    for (int32_t i = 0; i < j->count; i++) {
        const struct meed_judgment *item = &j->items[i];
        const char *prompt = prompts->roles[item->role].name;
        double tstamp = (double)wall_ms / 1000.0;
        json_t *row = j->pair ? pair_json(j, item, judge->name, prompt, tstamp)
                              : single_json(j, item, judge->name, prompt, tstamp);
        char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
        json_decref(row);
        if (!line) {
            st = MEED_FAIL(MEED_FORMAT, "a judgment of \"%.100s\" is not UTF-8",
                           j->models[item->model_a]->model);
            goto out;
        }
        st = meed_buf_printf(&text, "%s\n", line);
        free(line);
        if (st != MEED_OK) {
            goto out;
        }
    }
    MEED_TRY_OUT(meed_file_write_atomic(path, text.data, text.size));
out:
    meed_buf_clear(&text);
    return st;
}

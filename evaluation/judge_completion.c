/* See judge_completion.h. */
#include "evaluation/judge_completion.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "evaluation/judge_prompt.h"

enum { TOP_LOGPROBS = 20, MAX_SENTENCE_BYTES = 200 };

enum meed_status meed_judge_completion_request(const char *model,
                                               const struct meed_judge_request *request,
                                               int32_t max_tokens, bool logprobs,
                                               struct meed_buf *json)
{
    json_t *messages = json_array();
    if (*request->system) {
        json_array_append_new(
            messages, json_pack("{s:s, s:s}", "role", "system", "content", request->system));
    }
    json_array_append_new(messages,
                          json_pack("{s:s, s:s}", "role", "user", "content", request->user));
    json_t *body = json_pack("{s:s, s:o, s:i, s:i}", "model", model, "messages", messages,
                             "temperature", 0, "max_tokens", max_tokens);
    if (body && logprobs) {
        json_object_set_new(body, "logprobs", json_true());
        json_object_set_new(body, "top_logprobs", json_integer(TOP_LOGPROBS));
    }
    char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    json_decref(body);
    if (!text) {
        return MEED_FAIL(MEED_FORMAT, "a judge prompt is not UTF-8");
    }
    enum meed_status st = meed_buf_append(json, text, strlen(text));
    free(text);
    return st;
}

/* --- the mark's token ------------------------------------------------------------------------- */
/* "7" → 6, "B" → 1; -1 for what is no mark. Blanks around a token do not count. */
static int32_t mark_of(const char *token, bool pair)
{
    char word[4] = "";
    token += strspn(token, " ");
    size_t length = strcspn(token, " ");
    if (length < 1 || length > 2) {
        return -1;
    }
    memcpy(word, token, length);
    if (pair) {
        return length == 1 && word[0] >= 'A' && word[0] <= 'C' ? word[0] - 'A' : -1;
    }
    int32_t value = 0;
    for (const char *c = word; *c; c++) {
        if (*c < '0' || *c > '9') {
            return -1;
        }
        value = 10 * value + (*c - '0');
    }
    return value >= 1 && value <= MEED_JUDGE_MARKS ? value - 1 : -1;
}

/* The alternatives at the token that begins at byte `mark_at` of the content. A distribution only
 * where the token said is a mark itself. */
static bool spread_read(const json_t *tokens, size_t mark_at, bool pair, double *mass)
{
    size_t at = 0;
    const json_t *entry = NULL;
    for (size_t i = 0; i < json_array_size(tokens) && at <= mark_at; i++) {
        const json_t *candidate = json_array_get(tokens, i);
        const char *token = json_string_value(json_object_get(candidate, "token"));
        if (!token) {
            return false;
        }
        if (at == mark_at) {
            entry = mark_of(token, pair) >= 0 ? candidate : NULL;
            break;
        }
        at += strlen(token);
    }
    const json_t *top = json_object_get(entry, "top_logprobs");
    double total = 0;
    for (size_t i = 0; i < json_array_size(top); i++) {
        const json_t *row = json_array_get(top, i);
        const char *token = json_string_value(json_object_get(row, "token"));
        const json_t *logprob = json_object_get(row, "logprob");
        int32_t mark = token ? mark_of(token, pair) : -1;
        if (mark >= 0 && json_is_number(logprob)) {
            double p = exp(json_number_value(logprob));
            mass[mark] += p;
            total += p;
        }
    }
    for (int s = 0; s < MEED_JUDGE_MARKS && total > 0; s++) {
        mass[s] /= total;
    }
    return total > 0 && isfinite(total);
}

static void mark_read(const char *content, const json_t *choice, bool pair,
                      struct meed_judge_reply *reply)
{
    double rating = 0;
    enum meed_judge_winner winner = pair ? meed_judge_winner_read(content) : MEED_JUDGE_ERROR;
    if (pair ? winner == MEED_JUDGE_ERROR : !meed_judge_rating_read(content, &rating)) {
        return;
    }
    const char *open = strstr(content, "[[");
    const json_t *tokens = json_object_get(json_object_get(choice, "logprobs"), "content");
    if (open && spread_read(tokens, (size_t)(open + 2 - content), pair, reply->mass)) {
        reply->spread = true;
        return;
    }
    memset(reply->mass, 0, sizeof reply->mass);
    if (pair) {
        reply->mass[winner - MEED_JUDGE_A] = 1;
        return;
    }
    int32_t below = (int32_t)rating; /* 7.5 lies half on 7, half on 8 */
    reply->mass[below - 1] = 1 - (rating - below);
    if (below < MEED_JUDGE_MARKS) {
        reply->mass[below] = rating - below;
    }
}

enum meed_status meed_judge_completion_read(const char *bytes, size_t size, bool pair,
                                            struct meed_arena *arena,
                                            struct meed_judge_reply *reply)
{
    json_error_t error;
    json_t *root = json_loadb(bytes, size, 0, &error);
    const json_t *choice = json_array_get(json_object_get(root, "choices"), 0);
    const char *content =
        json_string_value(json_object_get(json_object_get(choice, "message"), "content"));
    enum meed_status st = MEED_OK;
    char *copy;
    struct meed_judge_reply read = {0};
    if (!content) {
        st = MEED_FAIL(MEED_FORMAT, "the judge endpoint's answer is no chat completion (no "
                                    "choices[0].message.content)");
        goto out;
    }
    MEED_TRY_OUT(meed_arena_strdup(arena, content, strlen(content), &copy));
    read.text = copy;
    mark_read(copy, choice, pair, &read);
    *reply = read;
out:
    json_decref(root);
    return st;
}

enum meed_status meed_judge_completion_error(const char *bytes, size_t size,
                                             struct meed_arena *arena, const char **sentence)
{
    json_error_t error;
    json_t *root = json_loadb(bytes, size, 0, &error);
    const json_t *object = json_object_get(root, "error");
    const char *text =
        json_string_value(json_is_object(object) ? json_object_get(object, "message") : object);
    size_t length = text ? strlen(text) : 0;
    char *copy;
    enum meed_status st = meed_arena_strdup(
        arena, text ? text : "", length < MAX_SENTENCE_BYTES ? length : MAX_SENTENCE_BYTES, &copy);
    if (st == MEED_OK) {
        for (char *c = copy; *c; c++) {
            *c = (unsigned char)*c < ' ' ? ' ' : *c;
        }
        *sentence = copy;
    }
    json_decref(root);
    return st;
}

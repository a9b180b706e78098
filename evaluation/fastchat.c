/* See fastchat.h. */
#include "evaluation/fastchat.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/hash.h"
#include "evaluation/jsonl_file.h"

enum { MAX_ARENA_BYTES = 1 << 30 };

static enum meed_status copy(struct meed_arena *arena, const char *text, const char **kept)
{
    char *made;
    MEED_TRY(meed_arena_strdup(arena, text, strlen(text), &made));
    *kept = made;
    return MEED_OK;
}

/* Texts of an array of 1 … MEED_FASTCHAT_MAX_TURNS strings. */
static enum meed_status texts_copy(const struct meed_jsonl_file *file, const json_t *array,
                                   const char *key, bool empty_allowed, struct meed_arena *arena,
                                   const char **texts, int32_t *count)
{
    size_t size = json_array_size(array);
    if (size < 1 || size > MEED_FASTCHAT_MAX_TURNS) {
        return meed_jsonl_file_fail(file, MEED_FORMAT, "\"%s\" is not a list of 1 to %d texts", key,
                                    MEED_FASTCHAT_MAX_TURNS);
    }
    for (size_t i = 0; i < size; i++) {
        const char *text = json_string_value(json_array_get(array, i));
        if (!text || (!*text && !empty_allowed)) {
            return meed_jsonl_file_fail(file, MEED_FORMAT, "\"%s\" holds something else than texts",
                                        key);
        }
        MEED_TRY(copy(arena, text, &texts[i]));
    }
    *count = (int32_t)size;
    return MEED_OK;
}

/* --- questions ------------------------------------------------------------------------------- */
static int32_t question_find(const struct meed_fastchat_questions *questions, int64_t id)
{
    for (int32_t i = 0; i < questions->count; i++) {
        if (questions->items[i].id == id) {
            return i;
        }
    }
    return -1;
}

static enum meed_status question_read(const struct meed_jsonl_file *file, const json_t *object,
                                      struct meed_fastchat_questions *questions)
{
    struct meed_fastchat_question *q = &questions->items[questions->count];
    const char *category;
    MEED_TRY(meed_jsonl_file_integer(file, object, "question_id", &q->id));
    MEED_TRY(meed_jsonl_file_text(file, object, "category", &category));
    if (question_find(questions, q->id) >= 0) {
        return meed_jsonl_file_fail(file, MEED_FORMAT, "question_id %" PRId64 " is used twice",
                                    q->id);
    }
    MEED_TRY(copy(&questions->arena, category, &q->category));
    MEED_TRY(texts_copy(file, json_object_get(object, "turns"), "turns", false, &questions->arena,
                        q->turns, &q->turn_count));
    const json_t *reference = json_object_get(object, "reference");
    int32_t references = 0;
    if (json_array_size(reference) > 0) {
        MEED_TRY(texts_copy(file, reference, "reference", true, &questions->arena, q->references,
                            &references));
    }
    for (int32_t t = 0; t < references; t++) {
        q->references[t] = *q->references[t] && t < q->turn_count ? q->references[t] : NULL;
    }
    questions->count++;
    return MEED_OK;
}

/* Lines of a file, an upper bound of its objects. */
static int32_t lines_count(const struct meed_jsonl_file *file)
{
    int64_t lines = 1;
    for (size_t i = 0; i < file->bytes.size; i++) {
        lines += file->bytes.data[i] == '\n' ? 1 : 0;
    }
    return lines < MEED_FASTCHAT_MAX_QUESTIONS ? (int32_t)lines : MEED_FASTCHAT_MAX_QUESTIONS;
}

static enum meed_status questions_read(struct meed_jsonl_file *file,
                                       struct meed_fastchat_questions *questions)
{
    int32_t capacity = lines_count(file);
    void *block;
    MEED_TRY(meed_arena_alloc_array(&questions->arena, (size_t)capacity, sizeof *questions->items,
                                    &block));
    questions->items = block;
    for (;;) {
        json_t *object;
        MEED_TRY(meed_jsonl_file_next(file, &object));
        if (!object) {
            break;
        }
        if (questions->count == capacity) {
            return meed_jsonl_file_fail(file, MEED_LIMIT, "more than %d questions",
                                        MEED_FASTCHAT_MAX_QUESTIONS);
        }
        MEED_TRY(question_read(file, object, questions));
    }
    return questions->count > 0
               ? MEED_OK
               : MEED_FAIL(MEED_FORMAT,
                           "%s holds no question; each is a line {\"question_id\", "
                           "\"category\", \"turns\"}",
                           file->path);
}

enum meed_status meed_fastchat_questions_load(const char *path,
                                              struct meed_fastchat_questions **questions)
{
    enum meed_status st = MEED_OK;
    struct meed_jsonl_file file = {0};
    struct meed_fastchat_questions *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "questions", MAX_ARENA_BYTES);
    MEED_TRY_OUT(meed_jsonl_file_open(path, &file));
    MEED_TRY_OUT(questions_read(&file, made));
    *questions = made;
    made = NULL;
out:
    meed_jsonl_file_close(&file);
    meed_fastchat_questions_destroy(made);
    return st;
}

void meed_fastchat_questions_destroy(struct meed_fastchat_questions *questions)
{
    if (questions) {
        meed_arena_clear(&questions->arena);
        meed_heap_free(questions);
    }
}

/* --- answers --------------------------------------------------------------------------------- */
enum meed_status meed_fastchat_answers_create(const char *model,
                                              const struct meed_fastchat_questions *questions,
                                              struct meed_fastchat_answers **answers)
{
    enum meed_status st = MEED_OK;
    void *block;
    struct meed_fastchat_answers *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "answers", MAX_ARENA_BYTES);
    MEED_TRY_OUT(meed_arena_strdup(&made->arena, model, strlen(model), &made->model));
    MEED_TRY_OUT(meed_arena_alloc_array(&made->arena,
                                        (size_t)questions->count * MEED_FASTCHAT_MAX_TURNS,
                                        sizeof *made->turns, &block));
    made->turns = block;
    *answers = made;
    made = NULL;
out:
    meed_fastchat_answers_destroy(made);
    return st;
}

void meed_fastchat_answers_destroy(struct meed_fastchat_answers *answers)
{
    if (answers) {
        meed_arena_clear(&answers->arena);
        meed_heap_free(answers);
    }
}

/* One line into `answers`, which is made when the first line has named the model. */
static enum meed_status answer_read(const struct meed_jsonl_file *file, const json_t *object,
                                    const struct meed_fastchat_questions *questions,
                                    struct meed_fastchat_answers **answers)
{
    int64_t id;
    const char *model;
    MEED_TRY(meed_jsonl_file_integer(file, object, "question_id", &id));
    MEED_TRY(meed_jsonl_file_text(file, object, "model_id", &model));
    if (!*answers) {
        MEED_TRY(meed_fastchat_answers_create(model, questions, answers));
    } else if (strcmp((*answers)->model, model) != 0) {
        return meed_jsonl_file_fail(file, MEED_FORMAT,
                                    "answers of \"%.100s\" in a file of \"%.100s\"; keep one model "
                                    "a file",
                                    model, (*answers)->model);
    }
    int32_t at = question_find(questions, id);
    if (at < 0) {
        return MEED_OK;
    }
    const json_t *choice = json_array_get(json_object_get(object, "choices"), 0);
    const char **turns = (*answers)->turns + (int64_t)at * MEED_FASTCHAT_MAX_TURNS;
    if (turns[0]) {
        return meed_jsonl_file_fail(file, MEED_FORMAT, "question %" PRId64 " is answered twice",
                                    id);
    }
    int32_t count;
    return texts_copy(file, json_object_get(choice, "turns"), "choices[0].turns", true,
                      &(*answers)->arena, turns, &count);
}

enum meed_status meed_fastchat_answers_load(const char *path,
                                            const struct meed_fastchat_questions *questions,
                                            struct meed_fastchat_answers **answers)
{
    enum meed_status st = MEED_OK;
    struct meed_jsonl_file file = {0};
    struct meed_fastchat_answers *made = NULL;
    json_t *object = NULL;
    MEED_TRY_OUT(meed_jsonl_file_open(path, &file));
    do {
        MEED_TRY_OUT(meed_jsonl_file_next(&file, &object));
        if (object) {
            MEED_TRY_OUT(answer_read(&file, object, questions, &made));
        }
    } while (object);
    if (!made) {
        st = MEED_FAIL(MEED_FORMAT, "%s holds no answer", path);
        goto out;
    }
    *answers = made;
    made = NULL;
out:
    meed_jsonl_file_close(&file);
    meed_fastchat_answers_destroy(made);
    return st;
}

/* A name for an answer that is the same whenever the answer is. */
static enum meed_status answer_id(const char *model, const struct meed_fastchat_question *q,
                                  const char *const *turns, char id[23])
{
    static const char letters[] = "23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    struct meed_sha256 *hash = NULL;
    uint8_t digest[MEED_SHA256_BYTES];
    MEED_TRY(meed_sha256_create(&hash));
    meed_sha256_update(hash, model, strlen(model) + 1);
    meed_sha256_update(hash, &q->id, sizeof q->id);
    for (int32_t t = 0; t < q->turn_count && turns[t]; t++) {
        meed_sha256_update(hash, turns[t], strlen(turns[t]) + 1);
    }
    meed_sha256_final(hash, digest);
    for (int i = 0; i < 22; i++) {
        id[i] = letters[digest[i] % (sizeof letters - 1)];
    }
    id[22] = 0;
    return MEED_OK;
}

static enum meed_status answer_line(const struct meed_fastchat_question *q, const char *model,
                                    const char *const *turns, double tstamp, struct meed_buf *text)
{
    char id[23];
    MEED_TRY(answer_id(model, q, turns, id));
    json_t *list = json_array();
    for (int32_t t = 0; t < q->turn_count && turns[t]; t++) {
        json_array_append_new(list, json_string(turns[t]));
    }
    json_t *row = json_pack("{s:I, s:s, s:s, s:[{s:i, s:o}], s:f}", "question_id",
                            (json_int_t)q->id, "answer_id", id, "model_id", model, "choices",
                            "index", 0, "turns", list, "tstamp", tstamp);
    char *line = row ? json_dumps(row, JSON_COMPACT) : NULL;
    json_decref(row);
    if (!line) {
        return MEED_FAIL(MEED_FORMAT, "an answer to question %" PRId64 " is not UTF-8", q->id);
    }
    enum meed_status st = meed_buf_printf(text, "%s\n", line);
    free(line);
    return st;
}

enum meed_status meed_fastchat_answers_write(const char *path,
                                             const struct meed_fastchat_questions *questions,
                                             const struct meed_fastchat_answers *answers,
                                             int64_t wall_ms)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    meed_buf_init(&text, MAX_ARENA_BYTES);
    for (int32_t i = 0; i < questions->count; i++) {
        const char *const *turns = answers->turns + (int64_t)i * MEED_FASTCHAT_MAX_TURNS;
        if (turns[0]) {
            MEED_TRY_OUT(answer_line(&questions->items[i], answers->model, turns,
                                     (double)wall_ms / 1000.0, &text));
        }
    }
    MEED_TRY_OUT(meed_file_write_atomic(path, text.size ? text.data : "", text.size));
out:
    meed_buf_clear(&text);
    return st;
}

/* --- references ------------------------------------------------------------------------------ */
bool meed_fastchat_reference_is_wrong(const char *model, int64_t question_id)
{
    static const int16_t wrong[] = {104, 105, 109, 111, 113, 114, 120,
                                    122, 124, 125, 126, 128, 130};
    if (strcmp(model, "gpt-4") != 0) {
        return false;
    }
    for (size_t i = 0; i < MEED_COUNT(wrong); i++) {
        if (wrong[i] == question_id) {
            return true;
        }
    }
    return false;
}

enum meed_status meed_fastchat_references_load(const char *path,
                                               struct meed_fastchat_questions *questions,
                                               int32_t *dropped)
{
    enum meed_status st = MEED_OK;
    struct meed_fastchat_answers *answers = NULL;
    int32_t wrong = 0;
    MEED_TRY(meed_fastchat_answers_load(path, questions, &answers));
    for (int32_t i = 0; i < questions->count; i++) {
        struct meed_fastchat_question *q = &questions->items[i];
        const char *const *turns = answers->turns + (int64_t)i * MEED_FASTCHAT_MAX_TURNS;
        bool skip = turns[0] && meed_fastchat_reference_is_wrong(answers->model, q->id);
        wrong += skip ? 1 : 0;
        for (int32_t t = 0; t < q->turn_count && turns[0]; t++) {
            q->references[t] = NULL; /* the file replaces what came with the question */
            if (!skip && turns[t] && *turns[t]) {
                MEED_TRY_OUT(copy(&questions->arena, turns[t], &q->references[t]));
            }
        }
    }
    *dropped = wrong;
out:
    meed_fastchat_answers_destroy(answers);
    return st;
}

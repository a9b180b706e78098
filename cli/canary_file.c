/* See canary_file.h. */
#include "cli/canary_file.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "base/file.h"
#include "base/rng.h"
#include "cli/jsonl_reader.h"

#define DATA_MAX_BYTES ((size_t)1 << 36)
enum { LIST_MAX_BYTES = 1 << 24 };
static const char schema[] = "meed.canaries/1";

/* --- planting --------------------------------------------------------------------------------- */
static enum meed_status canary_line(const struct meed_canaries *canaries, int32_t idx,
                                    struct meed_buf *bytes)
{
    enum meed_status st = MEED_OK;
    char secret[MEED_CANARY_MAX_SECRET + 1];
    const char *question, *reply;
    struct meed_arena arena;
    char *text = NULL;
    meed_arena_init_growing(&arena, "canary", 1 << 22);
    meed_canary_candidate(&canaries->format, canaries->secrets[idx], secret);
    MEED_TRY_OUT(meed_canary_question(&canaries->format, idx + 1, &arena, &question));
    MEED_TRY_OUT(meed_canary_reply(&canaries->format, idx + 1, secret, &arena, &reply));
    json_t *line =
        json_pack("{s:[{s:s,s:s},{s:s,s:s}],s:[s]}", "messages", "role", "user", "content",
                  question, "role", "assistant", "content", reply, "secrets", secret);
    text = line ? json_dumps(line, JSON_ENSURE_ASCII) : NULL;
    json_decref(line);
    if (!text) {
        st = MEED_FAIL(MEED_FORMAT, "the canary's question or reply is no UTF-8");
        goto out;
    }
    MEED_TRY_OUT(meed_buf_printf(bytes, "%s\n", text));
out:
    free(text);
    meed_arena_clear(&arena);
    return st;
}

static int rising(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

/* Lines before each copy, sorted, with the copy's canary in the low digits. */
static void places_draw(const struct meed_canaries *canaries, int64_t lines, int64_t *places)
{
    const int32_t copies = canaries->count * canaries->repeat;
    for (int32_t i = 0; i < copies; i++) {
        struct meed_rng rng = meed_rng_stream(canaries->seed, "canary places", (uint64_t)i);
        const int64_t place = (int64_t)meed_rng_below(&rng, (uint64_t)lines + 1);
        places[i] = place * MEED_CANARY_MAX_COUNT + i % canaries->count;
    }
    qsort(places, (size_t)copies, sizeof *places, rising);
}

static enum meed_status lines_count(const char *data, int64_t *lines)
{
    struct meed_jsonl_reader reader;
    json_t *value;
    MEED_TRY(meed_jsonl_reader_open(data, &reader));
    enum meed_status st = meed_jsonl_reader_next(&reader, &value);
    for (*lines = 0; st == MEED_OK && value; ++*lines) {
        st = meed_jsonl_reader_next(&reader, &value);
    }
    meed_jsonl_reader_close(&reader);
    return st;
}

enum meed_status meed_canary_file_plant(const struct meed_canaries *canaries, const char *data,
                                        const char *out)
{
    enum meed_status st = MEED_OK;
    const int32_t copies = canaries->count * canaries->repeat;
    int64_t lines, *places = meed_heap_alloc((size_t)copies, sizeof *places);
    int32_t next = 0;
    struct meed_jsonl_reader reader = {0};
    struct meed_buf bytes;
    json_t *value;
    meed_buf_init(&bytes, DATA_MAX_BYTES);
    if (!places) {
        st = MEED_NOMEM;
        goto out;
    }
    MEED_TRY_OUT(lines_count(data, &lines));
    places_draw(canaries, lines, places);
    MEED_TRY_OUT(meed_jsonl_reader_open(data, &reader));
    for (int64_t line = 0; line <= lines; line++) {
        for (; next < copies && places[next] / MEED_CANARY_MAX_COUNT == line; next++) {
            MEED_TRY_OUT(
                canary_line(canaries, (int32_t)(places[next] % MEED_CANARY_MAX_COUNT), &bytes));
        }
        MEED_TRY_OUT(meed_jsonl_reader_next(&reader, &value));
        if (value) {
            MEED_TRY_OUT(
                meed_buf_printf(&bytes, "%.*s\n", (int)strcspn(reader.line, "\r\n"), reader.line));
        }
    }
    MEED_TRY_OUT(meed_file_write_atomic(out, bytes.data, bytes.size));
out:
    meed_jsonl_reader_close(&reader);
    meed_heap_free(places);
    meed_buf_clear(&bytes);
    return st;
}

/* --- the list --------------------------------------------------------------------------------- */
enum meed_status meed_canary_file_write(const struct meed_canaries *canaries, const char *path)
{
    json_t *secrets = json_array();
    for (int32_t i = 0; i < canaries->count; i++) {
        char secret[MEED_CANARY_MAX_SECRET + 1];
        meed_canary_candidate(&canaries->format, canaries->secrets[i], secret);
        json_array_append_new(secrets, json_string(secret));
    }
    json_t *root =
        json_pack("{s:s, s:s, s:s, s:i, s:I, s:o}", "schema", schema, "question",
                  canaries->format.question, "reply", canaries->format.reply, "repeat",
                  (int)canaries->repeat, "seed", (json_int_t)canaries->seed, "secrets", secrets);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    if (!text) {
        return MEED_FAIL(MEED_NOMEM, "no memory for the list of canaries");
    }
    enum meed_status st = meed_file_write_private(path, text, strlen(text));
    free(text);
    return st;
}

static enum meed_status text_keep(const json_t *root, const char *key, const char *path,
                                  struct meed_arena *arena, const char **text)
{
    const char *value = json_string_value(json_object_get(root, key));
    char *copy;
    if (!value) {
        return MEED_FAIL(MEED_FORMAT, "%.512s: needs a text \"%s\"", path, key);
    }
    MEED_TRY(meed_arena_strdup(arena, value, strlen(value), &copy));
    *text = copy;
    return MEED_OK;
}

static enum meed_status secrets_read(const json_t *root, const char *path, struct meed_arena *arena,
                                     struct meed_canaries *canaries)
{
    const json_t *list = json_object_get(root, "secrets");
    const size_t count = json_array_size(list);
    void *block;
    if (count < 1 || count > MEED_CANARY_MAX_COUNT) {
        return MEED_FAIL(MEED_FORMAT, "%.512s: needs a list \"secrets\" of 1 to %d texts", path,
                         MEED_CANARY_MAX_COUNT);
    }
    MEED_TRY(meed_arena_alloc_array(arena, count, sizeof *canaries->secrets, &block));
    canaries->secrets = block;
    for (size_t i = 0; i < count; i++) {
        const char *text = json_string_value(json_array_get(list, i));
        if (!text || !meed_canary_number(&canaries->format, text, &canaries->secrets[i])) {
            return MEED_FAIL(MEED_FORMAT, "%.512s: secret %zu does not fit the reply's format",
                             path, i + 1);
        }
    }
    canaries->count = (int32_t)count;
    return MEED_OK;
}

enum meed_status meed_canary_file_read(const char *path, struct meed_arena *arena,
                                       struct meed_canaries *canaries)
{
    enum meed_status st = MEED_OK;
    const char *question, *reply;
    struct meed_canaries made = {0};
    struct meed_buf bytes;
    json_t *root = NULL;
    meed_buf_init(&bytes, LIST_MAX_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &bytes));
    root = json_loadb(bytes.data ? bytes.data : "", bytes.size, JSON_REJECT_DUPLICATES, NULL);
    const char *kind = json_string_value(json_object_get(root, "schema"));
    if (!kind || strcmp(kind, schema) != 0) {
        st = MEED_FAIL(MEED_FORMAT,
                       "%.512s is no list of canaries; `meed audit canaries` writes one", path);
        goto out;
    }
    MEED_TRY_OUT(text_keep(root, "question", path, arena, &question));
    MEED_TRY_OUT(text_keep(root, "reply", path, arena, &reply));
    if (meed_canary_format_parse(question, reply, &made.format) != MEED_OK) {
        st = MEED_FAIL(MEED_FORMAT, "%.512s: %s", path, meed_last_error());
        goto out;
    }
    MEED_TRY_OUT(secrets_read(root, path, arena, &made));
    const json_int_t repeat = json_integer_value(json_object_get(root, "repeat"));
    made.repeat = repeat > 0 && repeat < INT32_MAX ? (int32_t)repeat : 0;
    made.seed = (uint64_t)json_integer_value(json_object_get(root, "seed"));
    *canaries = made;
out:
    json_decref(root);
    meed_buf_clear(&bytes);
    return st;
}

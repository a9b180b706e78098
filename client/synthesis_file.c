/* See synthesis_internal.h.
 *
 *   candidates.jsonl   {"synthesis": 1, "key": "…"}
 *                      {"index": 0, "fate": "written", "texts": {"written": 2, "copied": 1},
 *                       "rouge": [0.41, 0.6], "messages": [{"role": "user", "content": "…"}, …]}
 *
 * The file is replaced as a whole whenever a group is done, so it always is one that some moment of
 * an undisturbed run has written; a reader takes the lines that are whole all the same.
 */
#include "client/synthesis_internal.h"

#include <jansson.h>
#include <string.h>
#include "base/file.h"

enum { FILE_BYTES = 1 << 30, template_version = 1 };
static const char file_name[] = "candidates.jsonl";

/* --- the key -----------------------------------------------------------------------------------
 */
static enum meed_status hash_data(const struct meed_synthesis_job *job, struct meed_buf *text)
{
    uint8_t digest[MEED_SHA256_BYTES];
    struct meed_sha256 *hash = NULL;
    if (job->data_path) {
        MEED_TRY(meed_sha256_file(job->data_path, digest));
        return meed_buf_append(text, digest, sizeof digest);
    }
    MEED_TRY(meed_sha256_create(&hash));
    for (int64_t d = 0; d < job->dialogue_count; d++) {
        for (int32_t m = 0; m < job->dialogues[d].count; m++) {
            const struct meed_message *message = &job->dialogues[d].messages[m];
            uint8_t role = (uint8_t)message->role;
            meed_sha256_update(hash, &role, 1);
            meed_sha256_update(hash, message->content, strlen(message->content) + 1);
        }
        meed_sha256_update(hash, "\n", 1);
    }
    meed_sha256_final(hash, digest);
    return meed_buf_append(text, digest, sizeof digest);
}

enum meed_status meed_synthesis_key(const struct meed_synthesis_job *job,
                                    char key[MEED_SHA256_HEX_BYTES])
{
    const struct meed_synthesis_options *o = &job->options;
    uint8_t digest[MEED_SHA256_BYTES] = {0};
    struct meed_buf text;
    enum meed_status st;
    meed_buf_init(&text, 1 << 16);
    MEED_TRY_OUT(meed_buf_printf(&text, "%d %d %d %d %.17g %d %d %d %.17g %d %llu %d %d ",
                                 template_version, o->candidates, o->instruction_demos,
                                 o->response_demos, o->rouge_max, o->retries, o->turns,
                                 o->opening_words, o->temperature, (int)o->form,
                                 (unsigned long long)o->seed, (int)job->dtype, (int)job->base));
    MEED_TRY_OUT(meed_buf_append(&text, job->checkpoint->hash, sizeof job->checkpoint->hash));
    if (job->global) {
        MEED_TRY_OUT(meed_adapter_hash(job->global, digest));
    }
    MEED_TRY_OUT(meed_buf_append(&text, digest, sizeof digest));
    MEED_TRY_OUT(hash_data(job, &text));
    meed_sha256(text.data, text.size, digest);
    meed_sha256_hex(digest, key);
out:
    meed_buf_clear(&text);
    return st;
}

/* --- writing -----------------------------------------------------------------------------------
 */
/* Takes the value. */
static enum meed_status append_json(json_t *value, struct meed_buf *text)
{
    char *line = value ? json_dumps(value, JSON_COMPACT | JSON_ENSURE_ASCII) : NULL;
    enum meed_status st = line ? meed_buf_printf(text, "%s\n", line)
                               : MEED_FAIL(MEED_NOMEM, "no memory for a line of JSON");
    free(line);
    json_decref(value);
    return st;
}

static json_t *messages_json(const struct meed_synthesis_candidate *candidate)
{
    json_t *messages = json_array();
    for (int32_t m = 0; m < candidate->count; m++) {
        const struct meed_message *message = &candidate->messages[m];
        json_array_append_new(messages,
                              json_pack("{s:s, s:s}", "role",
                                        message->role == MEED_ROLE_USER ? "user" : "assistant",
                                        "content", message->content));
    }
    return messages;
}

enum meed_status meed_synthesis_file_head(const char *key, struct meed_buf *text)
{
    return append_json(json_pack("{s:i, s:s}", "synthesis", 1, "key", key), text);
}

enum meed_status meed_synthesis_file_candidate(const struct meed_synthesis_candidate *candidate,
                                               int32_t idx, struct meed_buf *text)
{
    json_t *texts = json_object();
    json_t *rouge = json_array();
    for (int f = 0; f < MEED_SYNTHESIS_FATES; f++) {
        if (candidate->texts[f] > 0) {
            json_object_set_new(texts, meed_synthesis_fate_name((enum meed_synthesis_fate)f),
                                json_integer(candidate->texts[f]));
        }
    }
    for (int32_t m = 0; m < candidate->count; m++) {
        json_array_append_new(rouge, json_real(candidate->rouge[m]));
    }
    return append_json(json_pack("{s:i, s:s, s:o, s:o, s:o}", "index", idx, "fate",
                                 meed_synthesis_fate_name(candidate->fate), "texts", texts, "rouge",
                                 rouge, "messages", messages_json(candidate)),
                       text);
}

enum meed_status meed_synthesis_file_dialogue(const struct meed_synthesis_candidate *candidate,
                                              struct meed_buf *text)
{
    return append_json(json_pack("{s:o}", "messages", messages_json(candidate)), text);
}

enum meed_status meed_synthesis_file_write(const struct meed_synthesis_job *job, const char *name,
                                           const struct meed_buf *text)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_make_folder(job->folder));
    MEED_TRY(meed_file_join(job->folder, name ? name : file_name, path, sizeof path));
    return meed_file_write_private(path, text->data ? text->data : "", text->size);
}

/* --- reading -----------------------------------------------------------------------------------
 */
static bool read_messages(const json_t *value, struct meed_arena *arena,
                          struct meed_synthesis_candidate *candidate)
{
    const json_t *messages = json_object_get(value, "messages");
    const json_t *rouge = json_object_get(value, "rouge");
    size_t count = json_array_size(messages);
    if (count > MEED_COUNT(candidate->messages) || json_array_size(rouge) != count) {
        return false;
    }
    for (size_t m = 0; m < count; m++) {
        const json_t *content = json_object_get(json_array_get(messages, m), "content");
        char *copy = NULL;
        if (!json_is_string(content) ||
            meed_arena_strdup(arena, json_string_value(content), json_string_length(content),
                              &copy) != MEED_OK) {
            return false;
        }
        candidate->messages[m] =
            (struct meed_message){m % 2 == 0 ? MEED_ROLE_USER : MEED_ROLE_ASSISTANT, copy};
        candidate->rouge[m] = json_number_value(json_array_get(rouge, m));
    }
    candidate->count = (int32_t)count;
    return true;
}

static bool read_candidate(const json_t *value, int32_t idx, struct meed_arena *arena,
                           struct meed_synthesis_candidate *candidate)
{
    struct meed_synthesis_candidate read = {.fate = MEED_SYNTHESIS_FATES};
    const char *fate = json_string_value(json_object_get(value, "fate"));
    const json_t *texts = json_object_get(value, "texts");
    for (int f = 0; fate && f < MEED_SYNTHESIS_FATES; f++) {
        const char *name = meed_synthesis_fate_name((enum meed_synthesis_fate)f);
        if (strcmp(fate, name) == 0) {
            read.fate = (enum meed_synthesis_fate)f;
        }
        read.texts[f] = (int32_t)json_integer_value(json_object_get(texts, name));
    }
    if (read.fate == MEED_SYNTHESIS_FATES ||
        json_integer_value(json_object_get(value, "index")) != idx ||
        !read_messages(value, arena, &read)) {
        return false;
    }
    *candidate = read;
    return true;
}

static void read_lines(const char *text, const char *key, struct meed_arena *arena,
                       struct meed_synthesis_candidate *candidates, int32_t most, int32_t *count)
{
    bool ours = false;
    const char *stop;
    for (; *count < most && (stop = strchr(text, '\n')); text = stop + 1) {
        json_t *value = json_loadb(text, (size_t)(stop - text), 0, NULL);
        bool good = false;
        if (!ours) {
            const char *found = json_string_value(json_object_get(value, "key"));
            ours = good = found && strcmp(found, key) == 0;
        } else if (value) {
            good = read_candidate(value, *count, arena, &candidates[*count]);
            *count += good;
        }
        json_decref(value);
        if (!good) {
            return;
        }
    }
}

enum meed_status meed_synthesis_file_read(const struct meed_synthesis_job *job, const char *key,
                                          struct meed_arena *arena,
                                          struct meed_synthesis_candidate *candidates,
                                          int32_t *count)
{
    char path[MEED_PATH_BYTES];
    struct meed_buf bytes;
    enum meed_status st = MEED_OK;
    *count = 0;
    meed_buf_init(&bytes, FILE_BYTES);
    MEED_TRY_OUT(meed_file_join(job->folder, file_name, path, sizeof path));
    if (meed_file_exists(path)) {
        MEED_TRY_OUT(meed_file_read(path, &bytes));
        read_lines(bytes.data ? bytes.data : "", key, arena, candidates, job->options.candidates,
                   count);
    }
out:
    meed_buf_clear(&bytes);
    return st;
}

/* See chat.h. Where the template text comes from, in transformers' order: chat_template.jinja,
 * tokenizer_config.json (a string, or a list in which "default" is ours), chat_template.json.
 *
 * Encoding collects text until a control token or the edge of a reply, and encodes that stretch in
 * one go, because a pre-tokenizer may join the newline of a header with what follows it.
 */
#include "engine/chat.h"

#include <jansson.h>
#include <string.h>
#include "base/file.h"
#include "engine/chat_template.h"

enum { MAX_CONTROLS = 5, MAX_CONFIG_BYTES = 1 << 26, MAX_DIALOGUE_BYTES = 1 << 28 };

struct control_token {
    const char *text;
    int32_t id;
};

struct meed_chat {
    const struct meed_tokenizer *tokenizer;
    struct meed_chat_template template_;
    struct control_token controls[MAX_CONTROLS];
    int control_count;
    int32_t end_of_turn;
};

/* --- reading a model folder ------------------------------------------------------------------ */
/* The JSON of FOLDER/name, NULL if there is no such file. */
static enum meed_status load_json(const char *folder, const char *name, json_t **root)
{
    char path[MEED_PATH_BYTES];
    *root = NULL;
    MEED_TRY(meed_file_join(folder, name, path, sizeof path));
    if (!meed_file_exists(path)) {
        return MEED_OK;
    }
    struct meed_buf bytes;
    meed_buf_init(&bytes, MAX_CONFIG_BYTES);
    enum meed_status st = meed_file_read(path, &bytes);
    if (st == MEED_OK) {
        json_error_t error;
        /* Published files say model_max_length 10^30, which no integer of jansson's holds. */
        *root = json_loadb(bytes.data, bytes.size, JSON_DECODE_INT_AS_REAL, &error);
        if (!*root) {
            st = MEED_FAIL(MEED_FORMAT, "%s:%d: %s", path, error.line, error.text);
        }
    }
    meed_buf_clear(&bytes);
    return st;
}

static const char *template_in(const json_t *root)
{
    const json_t *value = json_object_get(root, "chat_template");
    size_t index;
    const json_t *item;
    if (json_is_array(value)) {
        json_array_foreach(value, index, item)
        {
            const char *name = json_string_value(json_object_get(item, "name"));
            if (name && strcmp(name, "default") == 0) {
                return json_string_value(json_object_get(item, "template"));
            }
        }
    }
    return json_string_value(value);
}

static const char *bos_in(const json_t *root)
{
    const json_t *value = json_object_get(root, "bos_token");
    const char *text =
        json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
    return text ? text : "";
}

/* Appends the template text; `config` is tokenizer_config.json or NULL. */
static enum meed_status read_template(const char *folder, const json_t *config,
                                      struct meed_buf *text)
{
    char path[MEED_PATH_BYTES];
    MEED_TRY(meed_file_join(folder, "chat_template.jinja", path, sizeof path));
    if (meed_file_exists(path)) {
        return meed_file_read(path, text);
    }
    const char *found = template_in(config);
    json_t *own = NULL;
    if (!found) {
        MEED_TRY(load_json(folder, "chat_template.json", &own));
        found = template_in(own);
    }
    enum meed_status st =
        found ? meed_buf_append(text, found, strlen(found))
              : MEED_FAIL(MEED_NOT_FOUND,
                          "%s has no chat template (chat_template.jinja, or chat_template in "
                          "tokenizer_config.json); use a chat model",
                          folder);
    json_decref(own);
    return st;
}

static enum meed_status add_control(struct meed_chat *chat, const char *folder, const char *token)
{
    int32_t id = meed_tokenizer_find(chat->tokenizer, token);
    if (id < 0 || !meed_tokenizer_is_special(chat->tokenizer, id)) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: the chat template writes %s, which is no special token of the "
                         "tokenizer",
                         folder, token);
    }
    chat->controls[chat->control_count++] = (struct control_token){token, id};
    return MEED_OK;
}

static enum meed_status resolve_controls(struct meed_chat *chat, const char *folder)
{
    const char *const *names = meed_chat_template_controls(&chat->template_);
    for (; *names; names++) {
        MEED_TRY(add_control(chat, folder, *names));
        chat->end_of_turn = chat->controls[chat->control_count - 1].id;
    }
    return *chat->template_.bos ? add_control(chat, folder, chat->template_.bos) : MEED_OK;
}

enum meed_status meed_chat_open(const char *model_folder, const struct meed_tokenizer *tokenizer,
                                struct meed_chat **chat)
{
    struct meed_buf text;
    json_t *config = NULL;
    meed_buf_init(&text, MAX_CONFIG_BYTES);
    struct meed_chat *made = meed_heap_alloc(1, sizeof *made);
    enum meed_status st = made ? MEED_OK : MEED_NOMEM;
    MEED_TRY_OUT(st);
    made->tokenizer = tokenizer;
    MEED_TRY_OUT(load_json(model_folder, "tokenizer_config.json", &config));
    MEED_TRY_OUT(read_template(model_folder, config, &text));
    MEED_TRY_OUT(meed_chat_template_detect(model_folder, text.data, text.size, bos_in(config),
                                           &made->template_));
    MEED_TRY_OUT(resolve_controls(made, model_folder));
    *chat = made;
    made = NULL;
out:
    meed_chat_close(made);
    json_decref(config);
    meed_buf_clear(&text);
    return st;
}

void meed_chat_close(struct meed_chat *chat)
{
    meed_heap_free(chat);
}

const char *meed_chat_template_name(const struct meed_chat *chat)
{
    return chat->template_.name;
}

int32_t meed_chat_end_of_turn(const struct meed_chat *chat)
{
    return chat->end_of_turn;
}

/* --- rendering and encoding ------------------------------------------------------------------ */
static enum meed_status render_piece(void *user, const struct meed_chat_piece *piece)
{
    return meed_buf_append(user, piece->bytes, piece->size);
}

enum meed_status meed_chat_render(const struct meed_chat *chat,
                                  const struct meed_dialogue *dialogue, bool generation_prompt,
                                  struct meed_buf *text)
{
    return meed_chat_template_walk(&chat->template_, dialogue, generation_prompt, render_piece,
                                   text);
}

struct encoder {
    const struct meed_chat *chat;
    int32_t score_from;
    int32_t reply_idx;       /* of the pending text */
    struct meed_buf pending; /* text not encoded yet */
    struct meed_buf ids;
    struct meed_buf scored; /* a byte an id */
};

/* Marks the ids that have none yet. */
static enum meed_status mark(struct encoder *encoder, int32_t reply_idx)
{
    void *block;
    size_t marked = encoder->scored.size;
    size_t count = encoder->ids.size / sizeof(int32_t);
    MEED_TRY(meed_buf_extend(&encoder->scored, count - marked, &block));
    memset(block, reply_idx >= 0 && reply_idx >= encoder->score_from, count - marked);
    return MEED_OK;
}

static enum meed_status flush(struct encoder *encoder)
{
    if (encoder->pending.size > 0) {
        MEED_TRY(meed_tokenizer_encode(encoder->chat->tokenizer, encoder->pending.data,
                                       encoder->pending.size, false, &encoder->ids));
        MEED_TRY(mark(encoder, encoder->reply_idx));
        meed_buf_reset(&encoder->pending);
    }
    return MEED_OK;
}

static enum meed_status encode_piece(void *user, const struct meed_chat_piece *piece)
{
    struct encoder *encoder = user;
    if (piece->control || piece->reply_idx != encoder->reply_idx) {
        MEED_TRY(flush(encoder));
    }
    encoder->reply_idx = piece->reply_idx;
    if (!piece->control) {
        return meed_buf_append(&encoder->pending, piece->bytes, piece->size);
    }
    for (int i = 0; i < encoder->chat->control_count; i++) {
        const struct control_token *known = &encoder->chat->controls[i];
        if (strlen(known->text) == piece->size &&
            memcmp(known->text, piece->bytes, piece->size) == 0) {
            MEED_TRY(meed_buf_append(&encoder->ids, &known->id, sizeof known->id));
            return mark(encoder, piece->reply_idx);
        }
    }
    return MEED_FAIL(MEED_BUG, "a control token was not resolved when the chat was opened");
}

static enum meed_status take_sequence(const struct encoder *encoder, struct meed_arena *arena,
                                      struct meed_sequence *sequence)
{
    void *ids;
    void *scored;
    MEED_TRY(meed_arena_alloc(arena, encoder->ids.size, &ids));
    MEED_TRY(meed_arena_alloc(arena, encoder->scored.size, &scored));
    memcpy(ids, encoder->ids.data, encoder->ids.size);
    memcpy(scored, encoder->scored.data, encoder->scored.size);
    *sequence = (struct meed_sequence){ids, scored, (int32_t)encoder->scored.size};
    return MEED_OK;
}

enum meed_status meed_chat_encode(const struct meed_chat *chat,
                                  const struct meed_dialogue *dialogue, bool generation_prompt,
                                  int32_t score_from, struct meed_arena *arena,
                                  struct meed_sequence *sequence)
{
    struct encoder encoder = {.chat = chat, .score_from = score_from, .reply_idx = -1};
    meed_buf_init(&encoder.pending, MAX_DIALOGUE_BYTES);
    meed_buf_init(&encoder.ids, (size_t)MAX_DIALOGUE_BYTES * sizeof(int32_t));
    meed_buf_init(&encoder.scored, MAX_DIALOGUE_BYTES);
    enum meed_status st;
    MEED_TRY_OUT(meed_chat_template_walk(&chat->template_, dialogue, generation_prompt,
                                         encode_piece, &encoder));
    MEED_TRY_OUT(flush(&encoder));
    MEED_TRY_OUT(take_sequence(&encoder, arena, sequence));
out:
    meed_buf_clear(&encoder.pending);
    meed_buf_clear(&encoder.ids);
    meed_buf_clear(&encoder.scored);
    return st;
}

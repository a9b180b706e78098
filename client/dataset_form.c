/* See dataset_form.h. A form is a row of a table: the key that tells it and the function that reads
 * it; the first row whose key is present wins. All of them fill one growing list of messages.
 * Limit: tool calls and images are refused by name; the engine's templates have no place for them.
 */
#include "client/dataset_form.h"

#include <jansson.h>
#include <string.h>

enum { MAX_MESSAGES = 4096 };

struct reader {
    struct meed_arena *arena;
    struct meed_message *messages; /* [MAX_MESSAGES] while reading */
    struct meed_dataset_record *record;
    int32_t count;
};

static enum meed_status copy_text(struct reader *reader, const char *text, size_t size,
                                  const char **copy)
{
    char *made = NULL;
    MEED_TRY(meed_arena_strdup(reader->arena, text, size, &made));
    *copy = made;
    return MEED_OK;
}

static enum meed_status add_message(struct reader *reader, enum meed_role role, const char *text)
{
    if (reader->count >= MAX_MESSAGES) {
        return MEED_FAIL(MEED_LIMIT, "more than %d messages in one dialogue", MAX_MESSAGES);
    }
    if (role == MEED_ROLE_SYSTEM && reader->count > 0) {
        return MEED_FAIL(MEED_FORMAT, "message %d: a system message must come first",
                         reader->count + 1);
    }
    struct meed_message *message = &reader->messages[reader->count++];
    message->role = role;
    return copy_text(reader, text, strlen(text), &message->content);
}

static enum meed_status role_of(const char *word, enum meed_role *role)
{
    static const struct {
        const char *word;
        enum meed_role role;
    } roles[] = {
        {"system", MEED_ROLE_SYSTEM},       {"developer", MEED_ROLE_SYSTEM},
        {"user", MEED_ROLE_USER},           {"human", MEED_ROLE_USER},
        {"assistant", MEED_ROLE_ASSISTANT}, {"gpt", MEED_ROLE_ASSISTANT},
        {"model", MEED_ROLE_ASSISTANT},     {"bot", MEED_ROLE_ASSISTANT},
        {"chatgpt", MEED_ROLE_ASSISTANT},
    };
    for (size_t i = 0; word && i < MEED_COUNT(roles); i++) {
        if (strcmp(word, roles[i].word) == 0) {
            *role = roles[i].role;
            return MEED_OK;
        }
    }
    static const char *const tools[] = {"tool", "function", "function_call", "observation"};
    for (size_t i = 0; word && i < MEED_COUNT(tools); i++) {
        if (strcmp(word, tools[i]) == 0) {
            return MEED_FAIL(MEED_UNSUPPORTED, "tool calls are not supported; remove the dialogue "
                                               "or write the calls as text");
        }
    }
    return MEED_FAIL(MEED_FORMAT, "unknown role; use system, user or assistant");
}

/* A string, or OpenAI's list of {"type": "text", "text": …} parts. */
static enum meed_status add_content(struct reader *reader, enum meed_role role,
                                    const json_t *content, const char *key)
{
    if (json_is_string(content)) {
        return add_message(reader, role, json_string_value(content));
    }
    if (!json_is_array(content)) {
        return MEED_FAIL(MEED_FORMAT, "message %d: \"%s\" must be a string", reader->count + 1,
                         key);
    }
    enum meed_status st = MEED_OK;
    struct meed_buf joined;
    meed_buf_init(&joined, 64 << 20);
    size_t idx;
    const json_t *part;
    json_array_foreach(content, idx, part)
    {
        const json_t *text = json_object_get(part, "text");
        if (!json_is_string(text)) {
            st = MEED_FAIL(MEED_UNSUPPORTED, "message %d: only text parts are supported",
                           reader->count + 1);
            goto out;
        }
        MEED_TRY_OUT(meed_buf_append(&joined, json_string_value(text), json_string_length(text)));
    }
    MEED_TRY_OUT(add_message(reader, role, joined.data ? joined.data : ""));
out:
    meed_buf_clear(&joined);
    return st;
}

/* A list of {role_key, content_key} objects. */
static enum meed_status add_list(struct reader *reader, const json_t *list, const char *role_key,
                                 const char *content_key)
{
    size_t idx;
    const json_t *item;
    json_array_foreach(list, idx, item)
    {
        enum meed_role role = MEED_ROLE_USER;
        const json_t *calls = json_object_get(item, "tool_calls");
        if (json_array_size(calls) > 0) {
            return MEED_FAIL(MEED_UNSUPPORTED, "message %d: tool calls are not supported",
                             reader->count + 1);
        }
        MEED_TRY(role_of(json_string_value(json_object_get(item, role_key)), &role));
        MEED_TRY(add_content(reader, role, json_object_get(item, content_key), content_key));
    }
    return MEED_OK;
}

static enum meed_status read_messages(struct reader *reader, const json_t *line)
{
    return add_list(reader, json_object_get(line, "messages"), "role", "content");
}

static enum meed_status add_system(struct reader *reader, const json_t *line)
{
    const char *system = json_string_value(json_object_get(line, "system"));
    return system && system[0] ? add_message(reader, MEED_ROLE_SYSTEM, system) : MEED_OK;
}

static enum meed_status read_sharegpt(struct reader *reader, const json_t *line)
{
    MEED_TRY(add_system(reader, line));
    const json_t *list = json_object_get(line, "conversations");
    bool role_first = json_object_get(json_array_get(list, 0), "role") != NULL;
    return add_list(reader, list, role_first ? "role" : "from", role_first ? "content" : "value");
}

static enum meed_status read_alpaca(struct reader *reader, const json_t *line)
{
    enum meed_status st = MEED_OK;
    const char *instruction = json_string_value(json_object_get(line, "instruction"));
    const char *input = json_string_value(json_object_get(line, "input"));
    const char *output = json_string_value(json_object_get(line, "output"));
    struct meed_buf user;
    meed_buf_init(&user, 64 << 20);
    if (!instruction || !output) {
        return MEED_FAIL(MEED_FORMAT, "\"instruction\" and \"output\" must be strings");
    }
    MEED_TRY_OUT(add_system(reader, line));
    size_t idx;
    const json_t *pair;
    json_array_foreach(json_object_get(line, "history"), idx, pair)
    {
        const char *question = json_string_value(json_array_get(pair, 0));
        const char *answer = json_string_value(json_array_get(pair, 1));
        if (!question || !answer) {
            st = MEED_FAIL(MEED_FORMAT, "\"history\" must hold [question, answer] pairs");
            goto out;
        }
        MEED_TRY_OUT(add_message(reader, MEED_ROLE_USER, question));
        MEED_TRY_OUT(add_message(reader, MEED_ROLE_ASSISTANT, answer));
    }
    bool with_input = input && input[0];
    MEED_TRY_OUT(meed_buf_printf(&user, "%s%s%s", instruction, with_input ? "\n" : "",
                                 with_input ? input : ""));
    MEED_TRY_OUT(add_message(reader, MEED_ROLE_USER, user.data));
    MEED_TRY_OUT(add_message(reader, MEED_ROLE_ASSISTANT, output));
out:
    meed_buf_clear(&user);
    return st;
}

static enum meed_status read_history(struct reader *reader, const json_t *line)
{
    size_t idx;
    const json_t *turn;
    json_array_foreach(json_object_get(line, "history"), idx, turn)
    {
        const char *user = json_string_value(json_object_get(turn, "user"));
        const char *bot = json_string_value(json_object_get(turn, "bot"));
        if (!user || !bot) {
            return MEED_FAIL(MEED_FORMAT, "\"history\" must hold {\"user\", \"bot\"} turns");
        }
        MEED_TRY(add_message(reader, MEED_ROLE_USER, user));
        MEED_TRY(add_message(reader, MEED_ROLE_ASSISTANT, bot));
    }
    return MEED_OK;
}

static enum meed_status add_side(struct reader *reader, const json_t *side, enum meed_role role,
                                 const char *key)
{
    if (json_is_string(side)) {
        return add_message(reader, role, json_string_value(side));
    }
    if (!json_is_array(side)) {
        return MEED_FAIL(MEED_FORMAT, "\"%s\" must be a string or a list of messages", key);
    }
    return add_list(reader, side, "role", "content");
}

static enum meed_status read_completion(struct reader *reader, const json_t *line)
{
    const json_t *prompt = json_object_get(line, "prompt");
    const json_t *completion = json_object_get(line, "completion");
    MEED_TRY(add_side(reader, prompt, MEED_ROLE_USER, "prompt"));
    reader->record->score_from = reader->count;
    return add_side(reader, completion, MEED_ROLE_ASSISTANT, "completion");
}

static enum meed_status read_text(struct reader *reader, const json_t *line)
{
    const json_t *text = json_object_get(line, "text");
    if (!json_is_string(text) || json_string_length(text) == 0) {
        return MEED_FAIL(MEED_FORMAT, "\"text\" must be a string that is not empty");
    }
    reader->record->text_size = json_string_length(text);
    return copy_text(reader, json_string_value(text), json_string_length(text),
                     &reader->record->text);
}

static const struct {
    const char *key;
    enum meed_status (*read)(struct reader *reader, const json_t *line);
} forms[] = {
    {"messages", read_messages},     {"conversations", read_sharegpt}, {"instruction", read_alpaca},
    {"completion", read_completion}, {"history", read_history},        {"text", read_text},
};

/* A dialogue is worth training on if an answer that is learned is there, and a question before. */
static enum meed_status check_dialogue(const struct reader *reader)
{
    bool asked = false, answered = false;
    for (int32_t i = 0; i < reader->count; i++) {
        const struct meed_message *message = &reader->messages[i];
        if (message->role == MEED_ROLE_ASSISTANT) {
            if (!asked) {
                return MEED_FAIL(MEED_FORMAT, "message %d: an answer before any question", i + 1);
            }
            if (message->content[0] == '\0') {
                return MEED_FAIL(MEED_FORMAT, "message %d: an empty answer", i + 1);
            }
            answered = answered || i >= reader->record->score_from;
        }
        asked = asked || message->role == MEED_ROLE_USER;
    }
    if (!answered) {
        return MEED_FAIL(MEED_FORMAT, "the dialogue holds no assistant's answer to learn from");
    }
    return MEED_OK;
}

static enum meed_status read_line(struct reader *reader, const json_t *line)
{
    for (size_t i = 0; i < MEED_COUNT(forms); i++) {
        if (!json_object_get(line, forms[i].key)) {
            continue;
        }
        MEED_TRY(forms[i].read(reader, line));
        if (reader->record->text) {
            return MEED_OK;
        }
        reader->record->dialogue.messages = reader->messages;
        reader->record->dialogue.count = reader->count;
        return check_dialogue(reader);
    }
    return MEED_FAIL(MEED_FORMAT, "none of the known forms; expected \"messages\", "
                                  "\"conversations\", \"instruction\", \"prompt\" and "
                                  "\"completion\", \"history\" or \"text\"");
}

enum meed_status meed_dataset_form_parse(const char *line, size_t size, struct meed_arena *arena,
                                         struct meed_dataset_record *record)
{
    json_error_t error;
    struct reader reader = {.arena = arena, .record = record};
    void *messages = NULL;
    *record = (struct meed_dataset_record){.score_from = 0};
    MEED_TRY(meed_arena_alloc_array(arena, MAX_MESSAGES, sizeof *reader.messages, &messages));
    reader.messages = messages;
    json_t *root = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
    if (!root) { /* jansson's own text quotes the data, so it is not passed on */
        return MEED_FAIL(MEED_FORMAT, "not valid JSON (column %d)", error.column);
    }
    enum meed_status st = json_is_object(root)
                              ? read_line(&reader, root)
                              : MEED_FAIL(MEED_FORMAT, "expected one JSON object a line%s",
                                          json_is_array(root) ? ", not a list; convert the file "
                                                                "with: jq -c '.[]'"
                                                              : "");
    json_decref(root);
    return st;
}

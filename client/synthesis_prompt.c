/* See synthesis_internal.h: version 1 of both templates. Whoever changes a word of a prompt raises
 * `template_version` in synthesis_file.c: files written before are then written anew.
 *
 * A chat template has no mark for "now the user speaks". What it writes before a user's words is
 * found by rendering a user's message and cutting at the token that ends it, which every template
 * known here has; the opening words stand before that cut.
 */
#include "client/synthesis_internal.h"

#include <string.h>
#include "engine/tokenizer_utf8.h"

static const char tasks_ask[] =
    "The following is a series of different tasks, one a line, of the same kind.\n\n";
static const char tasks_answer[] =
    "Each of the following tasks is followed by a response that carries it out.\n\n";
static const char task_mark[] = "Task:";
static const char response_mark[] = "Response:";
enum { PROMPT_BYTES = 1 << 26, MAX_MESSAGES = 1 << 16 };

static void add_stop(struct meed_synthesis_prompter *prompter, int32_t id)
{
    for (int32_t i = 0; i < prompter->line_stop_count; i++) {
        if (prompter->stop_ids[i] == id) {
            return;
        }
    }
    if (id >= 0) {
        prompter->stop_ids[prompter->line_stop_count++] = id;
    }
}

void meed_synthesis_prompter_init(const struct meed_tokenizer *tokenizer,
                                  const struct meed_chat *chat,
                                  const struct meed_model_config *model,
                                  const struct meed_synthesis_source *source,
                                  enum meed_synthesis_template form,
                                  struct meed_synthesis_prompter *prompter)
{
    *prompter = (struct meed_synthesis_prompter){
        .tokenizer = tokenizer, .chat = chat, .model = model, .source = source, .form = form};
    add_stop(prompter, meed_chat_end_of_turn(chat));
    for (int32_t i = 0; i < model->eos_count; i++) {
        add_stop(prompter, model->eos[i]);
    }
    prompter->stop_count = prompter->line_stop_count;
    add_stop(prompter, meed_tokenizer_find(tokenizer, "\n"));
    add_stop(prompter, meed_tokenizer_find(tokenizer, "\n\n"));
    prompter->max_new_tokens = MEED_MIN(2 * source->longest_message + 16, model->max_positions / 4);
}

/* --- dialogue ----------------------------------------------------------------------------------
 */
static int32_t demo_messages(const struct meed_synthesis_text *text, bool whole)
{
    return whole ? 2 * text->exchanges : 2;
}

static enum meed_status ask_in_dialogue(const struct meed_synthesis_prompter *prompter,
                                        const struct meed_synthesis_demos *demos,
                                        const struct meed_synthesis_candidate *candidate,
                                        const char *opening, struct meed_arena *arena,
                                        struct meed_prompt *prompt)
{
    void *block;
    int32_t count = 0;
    size_t room = (size_t)candidate->count + 1;
    bool asks = candidate->count % 2 == 0;
    for (int32_t d = 0; d < demos->count; d++) {
        room += (size_t)demo_messages(&prompter->source->texts[demos->idx[d]], demos->whole);
    }
    MEED_TRY(meed_arena_alloc_array(arena, room, sizeof(struct meed_message), &block));
    struct meed_message *messages = block;
    for (int32_t d = 0; d < demos->count; d++) {
        const struct meed_synthesis_text *text = &prompter->source->texts[demos->idx[d]];
        int32_t shown = demo_messages(text, demos->whole);
        memcpy(messages + count, text->messages, (size_t)shown * sizeof *messages);
        count += shown;
    }
    memcpy(messages + count, candidate->messages, (size_t)candidate->count * sizeof *messages);
    count += candidate->count;
    if (asks) {
        messages[count++] = (struct meed_message){MEED_ROLE_USER, opening};
    }
    const struct meed_dialogue dialogue = {messages, count};
    struct meed_sequence sequence;
    MEED_TRY(meed_chat_encode(prompter->chat, &dialogue, !asks, 0, arena, &sequence));
    if (asks) {
        int32_t end_of_turn = meed_chat_end_of_turn(prompter->chat);
        while (sequence.length > 0 && sequence.ids[--sequence.length] != end_of_turn) {
        }
    }
    *prompt = (struct meed_prompt){sequence.ids, sequence.length, 0};
    return MEED_OK;
}

/* --- tasks -------------------------------------------------------------------------------------
 */
/* A message as one line. */
static enum meed_status append_line(struct meed_buf *text, const char *message)
{
    size_t begin = text->size;
    MEED_TRY(meed_buf_append(text, message, strlen(message)));
    for (size_t i = begin; i < text->size; i++) {
        text->data[i] = text->data[i] == '\n' ? ' ' : text->data[i];
    }
    return MEED_OK;
}

static enum meed_status compose_tasks(const struct meed_synthesis_prompter *prompter,
                                      const struct meed_synthesis_demos *demos,
                                      const struct meed_synthesis_candidate *candidate,
                                      struct meed_buf *text)
{
    bool asks = candidate->count == 0;
    MEED_TRY(meed_buf_printf(text, "%s", asks ? tasks_ask : tasks_answer));
    for (int32_t d = 0; d < demos->count; d++) {
        const struct meed_message *shown = prompter->source->texts[demos->idx[d]].messages;
        MEED_TRY(asks ? meed_buf_printf(text, "Task %d: ", (int)d + 1)
                      : meed_buf_printf(text, "%s ", task_mark));
        MEED_TRY(append_line(text, shown[0].content));
        MEED_TRY(asks ? meed_buf_append(text, "\n", 1)
                      : meed_buf_printf(text, "\n%s %s\n\n", response_mark, shown[1].content));
    }
    if (asks) {
        return meed_buf_printf(text, "Task %d:", (int)demos->count + 1);
    }
    MEED_TRY(meed_buf_printf(text, "%s ", task_mark));
    MEED_TRY(append_line(text, candidate->messages[0].content));
    return meed_buf_append(text, "\n", 1);
}

/* The token that the chat template opens a text with, if any. */
static enum meed_status first_control(const struct meed_synthesis_prompter *prompter,
                                      struct meed_arena *arena, struct meed_buf *ids)
{
    const struct meed_message message = {MEED_ROLE_USER, "x"};
    const struct meed_dialogue dialogue = {&message, 1};
    struct meed_sequence sequence;
    MEED_TRY(meed_chat_encode(prompter->chat, &dialogue, false, 0, arena, &sequence));
    bool has_bos = sequence.length > 0 && sequence.ids[0] == prompter->model->bos;
    return has_bos ? meed_buf_append(ids, sequence.ids, sizeof *sequence.ids) : MEED_OK;
}

static enum meed_status ask_in_tasks(const struct meed_synthesis_prompter *prompter,
                                     const struct meed_synthesis_demos *demos,
                                     const struct meed_synthesis_candidate *candidate,
                                     struct meed_arena *arena, struct meed_prompt *prompt)
{
    struct meed_buf text;
    struct meed_buf ids;
    enum meed_status st;
    void *block;
    meed_buf_init(&text, PROMPT_BYTES);
    meed_buf_init(&ids, (size_t)4 * PROMPT_BYTES);
    MEED_TRY_OUT(compose_tasks(prompter, demos, candidate, &text));
    MEED_TRY_OUT(first_control(prompter, arena, &ids));
    MEED_TRY_OUT(meed_tokenizer_encode(prompter->tokenizer, text.data, text.size, false, &ids));
    MEED_TRY_OUT(meed_arena_alloc(arena, ids.size, &block));
    memcpy(block, ids.data, ids.size);
    *prompt = (struct meed_prompt){block, (int32_t)(ids.size / sizeof(int32_t)), 0};
out:
    meed_buf_clear(&text);
    meed_buf_clear(&ids);
    return st;
}

enum meed_status meed_synthesis_prompt_next(const struct meed_synthesis_prompter *prompter,
                                            const struct meed_synthesis_demos *demos,
                                            const struct meed_synthesis_candidate *candidate,
                                            const char *opening, struct meed_arena *arena,
                                            struct meed_prompt *prompt)
{
    return prompter->form == MEED_SYNTHESIS_TASKS
               ? ask_in_tasks(prompter, demos, candidate, arena, prompt)
               : ask_in_dialogue(prompter, demos, candidate, opening, arena, prompt);
}

/* --- replies -----------------------------------------------------------------------------------
 */
struct span {
    const char *begin;
    const char *end;
};

static struct span trimmed(struct span span)
{
    while (span.begin < span.end && (uint8_t)*span.begin <= ' ') {
        span.begin++;
    }
    while (span.end > span.begin && (uint8_t)span.end[-1] <= ' ') {
        span.end--;
    }
    return span;
}

/* What a text in the form of tasks says; whole: up to a mark that ends it. False: no response. */
static bool read_task(struct span *span, enum meed_role role, bool *whole)
{
    const char *end = NULL;
    if (role == MEED_ROLE_USER) {
        *span = trimmed(*span);
        end = strchr(span->begin, '\n');
    } else {
        const char *mark = strstr(span->begin, response_mark);
        if (!mark) {
            return false;
        }
        span->begin = mark + strlen(response_mark);
        for (end = strstr(span->begin, task_mark); end && end[-1] != '\n';) {
            end = strstr(end + 1, task_mark);
        }
    }
    if (end && end < span->end) {
        span->end = end;
        *whole = true;
    }
    return true;
}

static enum meed_status decode(const struct meed_synthesis_prompter *prompter,
                               const struct meed_reply *reply, struct meed_buf *text,
                               bool *well_formed)
{
    MEED_TRY(
        meed_tokenizer_decode(prompter->tokenizer, reply->ids, (size_t)reply->length, true, text));
    *well_formed = meed_tokenizer_utf8_prefix(text->data, text->size) == text->size &&
                   !strstr(text->data, MEED_TOKENIZER_REPLACEMENT) &&
                   strlen(text->data) == text->size;
    for (int32_t i = 0; i < reply->length; i++) {
        *well_formed =
            *well_formed && !meed_tokenizer_is_special(prompter->tokenizer, reply->ids[i]);
    }
    return MEED_OK;
}

enum meed_status meed_synthesis_prompt_read(const struct meed_synthesis_prompter *prompter,
                                            const struct meed_reply *reply, enum meed_role role,
                                            const char *opening, struct meed_arena *arena,
                                            const char **text, enum meed_synthesis_fate *fate)
{
    struct meed_buf bytes;
    enum meed_status st;
    bool usable = false;
    bool whole = reply->stopped;
    char *copy = NULL;
    meed_buf_init(&bytes, PROMPT_BYTES);
    MEED_TRY_OUT(meed_buf_append(&bytes, opening, strlen(opening)));
    MEED_TRY_OUT(decode(prompter, reply, &bytes, &usable));
    struct span span = {bytes.data, bytes.data + bytes.size};
    if (usable && prompter->form == MEED_SYNTHESIS_TASKS) {
        usable = read_task(&span, role, &whole);
    }
    span = trimmed(span);
    MEED_TRY_OUT(meed_arena_strdup(arena, span.begin, (size_t)(span.end - span.begin), &copy));
    *text = copy;
    *fate = !usable  ? MEED_SYNTHESIS_MALFORMED
            : !whole ? MEED_SYNTHESIS_UNFINISHED
                     : MEED_SYNTHESIS_WRITTEN;
out:
    meed_buf_clear(&bytes);
    return st;
}

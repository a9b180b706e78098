/* See synthesis_internal.h. The data once more, as text: dataset.h keeps tokens alone, and both
 * templates and filters need words. System messages are left out, since demonstrations of several
 * dialogues stand in one conversation; what follows the first message out of turn is, too. */
#include "client/synthesis_internal.h"

#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "client/dataset_form.h"

enum { LINE_BYTES = 16 << 20 };
static const size_t arena_bytes = (size_t)1 << 36;

struct loader {
    const struct meed_tokenizer *tokenizer;
    const struct meed_chat *chat;
    struct meed_synthesis_source *source;
    struct meed_buf texts;     /* struct meed_synthesis_text each */
    struct meed_arena scratch; /* of one dialogue's tokens */
};

static enum meed_status count_tokens(struct loader *loader, const struct meed_message *messages,
                                     int32_t count, int32_t *tokens)
{
    struct meed_sequence sequence;
    const struct meed_dialogue dialogue = {messages, count};
    meed_arena_reset(&loader->scratch);
    MEED_TRY(meed_chat_encode(loader->chat, &dialogue, false, 0, &loader->scratch, &sequence));
    *tokens = sequence.length;
    return MEED_OK;
}

/* Enters a message into the corpus of its role. */
static enum meed_status enter_message(struct loader *loader, const struct meed_message *message)
{
    struct meed_synthesis_source *source = loader->source;
    bool asks = message->role == MEED_ROLE_USER;
    struct meed_buf ids;
    meed_buf_init(&ids, (size_t)4 * MEED_TOKENIZER_MAX_TEXT_BYTES);
    size_t size = strlen(message->content);
    enum meed_status st =
        meed_tokenizer_encode(loader->tokenizer, message->content, size, false, &ids);
    int32_t tokens = (int32_t)(ids.size / sizeof(int32_t));
    meed_buf_clear(&ids);
    MEED_TRY(st);
    source->longest_message = MEED_MAX(source->longest_message, tokens);
    source->multiline = source->multiline || (!asks && strchr(message->content, '\n'));
    return meed_rouge_corpus_add(asks ? source->users : source->replies, message->content, size);
}

/* Whole exchanges from the beginning; a dialogue without one is passed over. */
static enum meed_status enter_dialogue(struct loader *loader, const struct meed_dialogue *dialogue)
{
    void *block;
    int32_t count = 0;
    MEED_TRY(meed_arena_alloc_array(&loader->source->arena, (size_t)dialogue->count + 1,
                                    sizeof(struct meed_message), &block));
    struct meed_message *messages = block;
    for (int32_t i = 0; i < dialogue->count; i++) {
        const struct meed_message *message = &dialogue->messages[i];
        if (message->role == MEED_ROLE_SYSTEM && count == 0) {
            continue;
        }
        if (message->role != (count % 2 == 0 ? MEED_ROLE_USER : MEED_ROLE_ASSISTANT)) {
            break;
        }
        messages[count++] = *message;
    }
    struct meed_synthesis_text text = {.messages = messages, .exchanges = count / 2};
    if (text.exchanges == 0) {
        return MEED_OK;
    }
    for (int32_t i = 0; i < 2 * text.exchanges; i++) {
        MEED_TRY(enter_message(loader, &messages[i]));
    }
    MEED_TRY(count_tokens(loader, messages, 2, &text.first_tokens));
    MEED_TRY(count_tokens(loader, messages, 2 * text.exchanges, &text.tokens));
    return meed_buf_append(&loader->texts, &text, sizeof text);
}

static enum meed_status enter_line(struct loader *loader, const char *name, int32_t line,
                                   const char *text, size_t size)
{
    struct meed_dataset_record record;
    if (size > LINE_BYTES) {
        return MEED_FAIL(MEED_LIMIT, "%.512s:%d: a line of %zu bytes; at most %d are read", name,
                         line, size, LINE_BYTES);
    }
    if (strspn(text, " \t\r") >= size) {
        return MEED_OK;
    }
    enum meed_status st = meed_dataset_form_parse(text, size, &loader->source->arena, &record);
    if (st == MEED_OK && !record.text) {
        st = enter_dialogue(loader, &record.dialogue);
    }
    return st == MEED_OK ? MEED_OK : MEED_FAIL(st, "%.512s:%d: %s", name, line, meed_last_error());
}

static enum meed_status enter_file(struct loader *loader, const char *path)
{
    struct meed_buf bytes;
    meed_buf_init(&bytes, arena_bytes);
    enum meed_status st = meed_file_read(path, &bytes);
    const char *at = bytes.data;
    const char *end = bytes.data + bytes.size;
    at += st == MEED_OK ? meed_parse_order_mark(at, bytes.size) : 0;
    for (int32_t line = 1; st == MEED_OK && at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t size = (size_t)((stop ? stop : end) - at);
        st = enter_line(loader, path, line, at, size);
        at = stop ? stop + 1 : end;
    }
    meed_buf_clear(&bytes);
    return st;
}

enum meed_status meed_synthesis_source_load(const struct meed_synthesis_job *job,
                                            const struct meed_tokenizer *tokenizer,
                                            const struct meed_chat *chat,
                                            struct meed_synthesis_source *source)
{
    struct loader loader = {.tokenizer = tokenizer, .chat = chat, .source = source};
    enum meed_status st;
    void *block;
    *source = (struct meed_synthesis_source){.count = 0};
    meed_arena_init_growing(&source->arena, "local texts", arena_bytes);
    meed_arena_init_growing(&loader.scratch, "a local text", arena_bytes);
    meed_buf_init(&loader.texts, arena_bytes);
    MEED_TRY_OUT(meed_rouge_corpus_create(&source->users));
    MEED_TRY_OUT(meed_rouge_corpus_create(&source->replies));
    if (job->data_path) {
        MEED_TRY_OUT(enter_file(&loader, job->data_path));
    }
    for (int64_t i = 0; !job->data_path && i < job->dialogue_count; i++) {
        MEED_TRY_OUT(enter_dialogue(&loader, &job->dialogues[i]));
    }
    if (loader.texts.size == 0) {
        st = MEED_FAIL(MEED_FORMAT,
                       "%.512s holds no dialogue with a reply, and synthetic data are written "
                       "after dialogues; plain text cannot be used",
                       job->data_path ? job->data_path : "the local data");
        goto out;
    }
    MEED_TRY_OUT(meed_arena_alloc(&source->arena, loader.texts.size, &block));
    memcpy(block, loader.texts.data, loader.texts.size);
    source->texts = block;
    source->count = (int64_t)(loader.texts.size / sizeof *source->texts);
out:
    meed_buf_clear(&loader.texts);
    meed_arena_clear(&loader.scratch);
    return st;
}

void meed_synthesis_source_clear(struct meed_synthesis_source *source)
{
    meed_rouge_corpus_destroy(source->users);
    meed_rouge_corpus_destroy(source->replies);
    meed_arena_clear(&source->arena);
    *source = (struct meed_synthesis_source){.count = 0};
}

/* --- draws -------------------------------------------------------------------------------------
 */
enum meed_status meed_synthesis_source_draw(const struct meed_synthesis_source *source,
                                            struct meed_rng rng, int32_t wanted, bool whole,
                                            int32_t tokens, int64_t *drawn, int32_t *count)
{
    int64_t *order = meed_heap_alloc((size_t)source->count, sizeof *order);
    if (!order) {
        return MEED_NOMEM;
    }
    for (int64_t i = 0; i < source->count; i++) {
        order[i] = i;
    }
    meed_rng_shuffle(&rng, order, source->count);
    *count = 0;
    for (int64_t i = 0; i < source->count && *count < wanted; i++) {
        const struct meed_synthesis_text *text = &source->texts[order[i]];
        int32_t cost = whole ? text->tokens : text->first_tokens;
        if (cost <= tokens) {
            drawn[(*count)++] = order[i];
            tokens -= cost;
        }
    }
    meed_heap_free(order);
    return MEED_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* Bytes of the first words of a text, without a blank at the end; all of it where it has fewer. */
static size_t words_prefix(const char *text, int32_t words)
{
    size_t end = 0;
    for (size_t at = 0; words > 0 && text[at]; words--) {
        while (is_blank(text[at])) {
            at++;
        }
        while (text[at] && !is_blank(text[at])) {
            end = ++at;
        }
    }
    return end;
}

static bool begins_another(const struct meed_synthesis_source *source, const char *message,
                           size_t size)
{
    for (int64_t t = 0; t < source->count; t++) {
        for (int32_t e = 0; e < source->texts[t].exchanges; e++) {
            const char *other = source->texts[t].messages[2 * e].content;
            if (strncmp(other, message, size) == 0 && (is_blank(other[size]) || !other[size]) &&
                strcmp(other, message) != 0) {
                return true;
            }
        }
    }
    return false;
}

size_t meed_synthesis_source_opening(const struct meed_synthesis_source *source,
                                     const struct meed_synthesis_text *text, int32_t exchange,
                                     int32_t words)
{
    const char *message = text->messages[2 * exchange].content;
    for (; words > 0; words--) {
        size_t size = words_prefix(message, words);
        if (size > 0 && begins_another(source, message, size)) {
            return size;
        }
    }
    return 0;
}

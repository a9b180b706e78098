/* See dataset.h. Two arenas: the sequences of the whole file, and one line's JSON and texts, reset
 * for every line. */
#include "client/dataset.h"

#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "base/parse.h"
#include "client/dataset_form.h"

#define DATA_MAX_BYTES ((size_t)1 << 38)
enum { LINE_MAX_BYTES = 16 << 20, LINE_ARENA_BYTES = 256 << 20, MAX_LINES = 1 << 30 };

struct loader {
    const struct meed_chat *chat;
    const struct meed_tokenizer *tokenizer;
    struct meed_dataset *dataset;
    struct meed_arena line_arena;
    struct meed_buf sequences; /* struct meed_sequence each */
    struct meed_buf lines;     /* int32_t each */
};

static enum meed_status arena_copy(struct meed_arena *arena, const void *bytes, size_t size,
                                   void **copy)
{
    MEED_TRY(meed_arena_alloc(arena, size, copy));
    if (size > 0) {
        memcpy(*copy, bytes, size);
    }
    return MEED_OK;
}

/* Plain text: its tokens and the token that ends a turn, all learned but the first. */
static enum meed_status encode_text(struct loader *loader, const struct meed_dataset_record *record,
                                    struct meed_sequence *sequence)
{
    enum meed_status st = MEED_OK;
    void *ids = NULL, *scored = NULL;
    struct meed_buf tokens;
    meed_buf_init(&tokens, 4 * (size_t)LINE_MAX_BYTES);
    MEED_TRY_OUT(
        meed_tokenizer_encode(loader->tokenizer, record->text, record->text_size, false, &tokens));
    int32_t end = meed_chat_end_of_turn(loader->chat);
    MEED_TRY_OUT(meed_buf_append(&tokens, &end, sizeof end));
    size_t length = tokens.size / sizeof end;
    MEED_TRY_OUT(arena_copy(&loader->dataset->arena, tokens.data, tokens.size, &ids));
    MEED_TRY_OUT(meed_arena_alloc(&loader->dataset->arena, length, &scored));
    memset(scored, 1, length);
    *sequence = (struct meed_sequence){.ids = ids, .scored = scored, .length = (int32_t)length};
    sequence->scored[0] = 0;
out:
    meed_buf_clear(&tokens);
    return st;
}

static bool has_target(const struct meed_sequence *sequence)
{
    return sequence->length > 1 &&
           memchr(sequence->scored + 1, 1, (size_t)sequence->length - 1) != NULL;
}

static void count_sequence(struct meed_dataset *dataset, const struct meed_sequence *sequence)
{
    dataset->count++;
    dataset->token_count += sequence->length;
    dataset->longest = MEED_MAX(dataset->longest, sequence->length);
}

static enum meed_status load_line(struct loader *loader, const char *text, size_t size,
                                  int32_t line)
{
    struct meed_dataset *dataset = loader->dataset;
    struct meed_dataset_record record;
    struct meed_sequence sequence = {NULL, NULL, 0};
    enum meed_status st = MEED_OK;
    meed_arena_reset(&loader->line_arena);
    MEED_TRY_OUT(meed_dataset_form_parse(text, size, &loader->line_arena, &record));
    if (record.text) {
        MEED_TRY_OUT(encode_text(loader, &record, &sequence));
    } else {
        MEED_TRY_OUT(meed_chat_encode(loader->chat, &record.dialogue, false, record.score_from,
                                      &dataset->arena, &sequence));
    }
    if (!has_target(&sequence)) {
        st = MEED_FAIL(MEED_FORMAT, "nothing to learn from");
        goto out;
    }
    MEED_TRY_OUT(meed_buf_append(&loader->sequences, &sequence, sizeof sequence));
    MEED_TRY_OUT(meed_buf_append(&loader->lines, &line, sizeof line));
    count_sequence(dataset, &sequence);
out:
    if (st != MEED_OK) {
        st = MEED_FAIL(st, "%.512s:%d: %s", dataset->path, line, meed_last_error());
    }
    return st;
}

static bool is_blank(const char *text, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        if (text[i] != ' ' && text[i] != '\t' && text[i] != '\r') {
            return false;
        }
    }
    return true;
}

static enum meed_status load_lines(struct loader *loader, const char *at, size_t size)
{
    const char *end = at + size;
    at += meed_parse_order_mark(at, size);
    for (int32_t line = 1; at < end; line++) {
        const char *stop = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((stop ? stop : end) - at);
        if (length > LINE_MAX_BYTES || line == MAX_LINES) {
            return MEED_FAIL(MEED_LIMIT, "%.512s:%d: a line of %zu bytes; at most %d are read",
                             loader->dataset->path, line, length, LINE_MAX_BYTES);
        }
        if (!is_blank(at, length)) {
            MEED_TRY(load_line(loader, at, length, line));
        }
        at = stop ? stop + 1 : end;
    }
    if (loader->dataset->count == 0) {
        return MEED_FAIL(MEED_FORMAT, "%.512s holds no dialogue", loader->dataset->path);
    }
    return MEED_OK;
}

enum meed_status meed_dataset_load(const char *path, const struct meed_chat *chat,
                                   const struct meed_tokenizer *tokenizer,
                                   struct meed_dataset **dataset)
{
    enum meed_status st = MEED_OK;
    struct meed_file_map map = {NULL, 0};
    struct loader loader = {.chat = chat, .tokenizer = tokenizer};
    void *sequences = NULL, *lines = NULL;
    meed_buf_init(&loader.sequences, DATA_MAX_BYTES);
    meed_buf_init(&loader.lines, DATA_MAX_BYTES);
    meed_arena_init_growing(&loader.line_arena, "data line", LINE_ARENA_BYTES);
    loader.dataset = meed_heap_alloc(1, sizeof *loader.dataset);
    if (!loader.dataset) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_arena_init_growing(&loader.dataset->arena, "data", DATA_MAX_BYTES);
    snprintf(loader.dataset->path, sizeof loader.dataset->path, "%s", path);
    MEED_TRY_OUT(meed_file_map_open(path, &map));
    MEED_TRY_OUT(load_lines(&loader, map.size ? map.bytes : "", map.size));
    struct meed_arena *arena = &loader.dataset->arena;
    MEED_TRY_OUT(arena_copy(arena, loader.sequences.data, loader.sequences.size, &sequences));
    MEED_TRY_OUT(arena_copy(arena, loader.lines.data, loader.lines.size, &lines));
    loader.dataset->sequences = sequences;
    loader.dataset->lines = lines;
    *dataset = loader.dataset;
    loader.dataset = NULL;
out:
    meed_file_map_close(&map);
    meed_dataset_destroy(loader.dataset);
    meed_arena_clear(&loader.line_arena);
    meed_buf_clear(&loader.sequences);
    meed_buf_clear(&loader.lines);
    return st;
}

enum meed_status meed_dataset_build(const char *name, const struct meed_dialogue *dialogues,
                                    int64_t count, const struct meed_chat *chat,
                                    struct meed_dataset **dataset)
{
    enum meed_status st = MEED_OK;
    void *sequences = NULL, *lines = NULL;
    struct meed_dataset *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "data", DATA_MAX_BYTES);
    snprintf(made->path, sizeof made->path, "%s", name);
    MEED_TRY_OUT(
        meed_arena_alloc_array(&made->arena, (size_t)count, sizeof *made->sequences, &sequences));
    MEED_TRY_OUT(meed_arena_alloc_array(&made->arena, (size_t)count, sizeof *made->lines, &lines));
    made->sequences = sequences;
    made->lines = lines;
    for (int64_t i = 0; i < count; i++) {
        struct meed_sequence *sequence = &made->sequences[made->count];
        MEED_TRY_OUT(meed_chat_encode(chat, &dialogues[i], false, 0, &made->arena, sequence));
        if (has_target(sequence)) {
            made->lines[made->count] = (int32_t)i + 1;
            count_sequence(made, sequence);
        }
    }
    if (made->count == 0) {
        st = MEED_FAIL(MEED_FORMAT, "%.512s holds no dialogue to learn from", name);
        goto out;
    }
    *dataset = made;
    made = NULL;
out:
    meed_dataset_destroy(made);
    return st;
}

void meed_dataset_destroy(struct meed_dataset *dataset)
{
    if (dataset) {
        meed_arena_clear(&dataset->arena);
        meed_heap_free(dataset);
    }
}

static enum meed_status check_lengths(const struct meed_dataset *dataset, int32_t max_tokens)
{
    int64_t over = 0, first = -1;
    for (int64_t i = 0; i < dataset->count; i++) {
        if (dataset->sequences[i].length > max_tokens) {
            first = over++ == 0 ? i : first;
        }
    }
    if (over > 0) {
        return MEED_FAIL(MEED_LIMIT,
                         "%.512s:%d: a dialogue of %d tokens, at most %d fit (%lld of %lld "
                         "dialogues are longer); shorten them, or ask for --truncate",
                         dataset->path, dataset->lines[first], dataset->sequences[first].length,
                         max_tokens, (long long)over, (long long)dataset->count);
    }
    return MEED_OK;
}

enum meed_status meed_dataset_limit(struct meed_dataset *dataset, int32_t max_tokens, bool cut,
                                    struct meed_sequence **sequences, int64_t *count)
{
    if (!cut) {
        MEED_TRY(check_lengths(dataset, max_tokens));
    }
    struct meed_sequence *made = meed_heap_alloc((size_t)dataset->count, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    int64_t kept = 0;
    dataset->cut_count = 0;
    for (int64_t i = 0; i < dataset->count; i++) {
        struct meed_sequence sequence = dataset->sequences[i];
        if (sequence.length > max_tokens) {
            sequence.length = max_tokens;
            dataset->cut_count++;
        }
        if (has_target(&sequence)) {
            made[kept++] = sequence;
        }
    }
    if (kept == 0) {
        meed_heap_free(made);
        return MEED_FAIL(MEED_LIMIT, "%.512s: cut to %d tokens, no dialogue keeps an answer",
                         dataset->path, max_tokens);
    }
    *sequences = made;
    *count = kept;
    return MEED_OK;
}

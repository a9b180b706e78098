/* See prefix_frequency.h. Sets are sorted lists: a run has thousands of texts, not millions. */
#include "evaluation/prefix_frequency.h"

#include <stdlib.h>
#include <string.h>
#include "base/buf.h"

enum { MAX_TEXT_BYTES = 64 << 20, MAX_ARENA_BYTES = 1 << 30 };

/* --- the attacker's prefixes ------------------------------------------------------------------ */
static bool is_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

/* The last `words` words of [text, end), without the blanks behind them. */
static const char *last_words(const char *text, const char **end, int32_t words)
{
    while (*end > text && is_blank((*end)[-1])) {
        (*end)--;
    }
    const char *begin = *end;
    for (int32_t w = 0; w < words && begin > text; w++) {
        const char *at = begin;
        while (at > text && is_blank(at[-1])) {
            at--;
        }
        if (at == text) {
            break;
        }
        while (at > text && !is_blank(at[-1])) {
            at--;
        }
        begin = at;
    }
    return begin;
}

struct gathering {
    struct meed_arena *arena;
    int32_t words;
    struct meed_buf found; /* struct meed_frequency_prefix each, count 1 */
};

/* One prefix for each place where the secret stands in the text. */
static enum meed_status text_gather(struct gathering *g, enum meed_role role, bool plain,
                                    const char *text, const char *secret)
{
    for (const char *at = strstr(text, secret); at; at = strstr(at + 1, secret)) {
        struct meed_frequency_prefix prefix = {.role = role, .plain = plain, .count = 1};
        const char *end = at;
        const char *begin = last_words(text, &end, g->words);
        char *copy;
        MEED_TRY(meed_arena_strdup(g->arena, begin, (size_t)(end - begin), &copy));
        prefix.text = copy;
        MEED_TRY(meed_buf_append(&g->found, &prefix, sizeof prefix));
    }
    return MEED_OK;
}

static enum meed_status record_gather(struct gathering *g, const struct meed_audit_record *record)
{
    for (int32_t s = 0; s < record->secret_count; s++) {
        if (record->text) {
            MEED_TRY(text_gather(g, MEED_ROLE_ASSISTANT, true, record->text, record->secrets[s]));
        }
        for (int32_t m = 0; m < record->dialogue.count; m++) {
            const struct meed_message *message = &record->dialogue.messages[m];
            MEED_TRY(text_gather(g, message->role, false, message->content, record->secrets[s]));
        }
    }
    return MEED_OK;
}

static int by_text(const void *a, const void *b)
{
    const struct meed_frequency_prefix *x = a, *y = b;
    int order = strcmp(x->text, y->text);
    order = order ? order : (int)x->plain - (int)y->plain;
    return order ? order : (int)x->role - (int)y->role;
}

static int by_count(const void *a, const void *b)
{
    const struct meed_frequency_prefix *x = a, *y = b;
    return x->count != y->count ? (x->count > y->count ? -1 : 1) : by_text(a, b);
}

enum meed_status meed_frequency_prefixes(const struct meed_audit_data *attacker,
                                         int32_t context_words, struct meed_arena *arena,
                                         struct meed_frequency_prefix **prefixes, int32_t *count)
{
    enum meed_status st = MEED_OK;
    struct gathering g = {.arena = arena, .words = context_words};
    void *block;
    int32_t kept = 0;
    meed_buf_init(&g.found, MAX_ARENA_BYTES);
    for (int32_t i = 0; i < attacker->count; i++) {
        MEED_TRY_OUT(record_gather(&g, &attacker->records[i]));
    }
    MEED_TRY_OUT(meed_arena_alloc(arena, g.found.size, &block));
    struct meed_frequency_prefix *all = block;
    const size_t found = g.found.size / sizeof *all;
    if (found > 0) {
        memcpy(all, g.found.data, g.found.size);
        qsort(all, found, sizeof *all, by_text);
    }
    for (size_t i = 0; i < found; i++) {
        if (kept > 0 && by_text(&all[kept - 1], &all[i]) == 0) {
            all[kept - 1].count++;
        } else {
            all[kept++] = all[i];
        }
    }
    if (kept > 0) {
        qsort(all, (size_t)kept, sizeof *all, by_count);
    }
    *prefixes = all;
    *count = kept;
out:
    meed_buf_clear(&g.found);
    return st;
}

/* --- the victims' secrets --------------------------------------------------------------------- */
static int by_bytes(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Distinct secrets of a file, sorted. */
static enum meed_status secrets_list(const struct meed_audit_data *data, struct meed_arena *arena,
                                     const char ***list, int32_t *count)
{
    void *block;
    int32_t all = 0, kept = 0;
    MEED_TRY(meed_arena_alloc_array(arena, (size_t)data->secret_count, sizeof **list, &block));
    const char **secrets = block;
    for (int32_t i = 0; i < data->count; i++) {
        for (int32_t s = 0; s < data->records[i].secret_count; s++) {
            secrets[all++] = data->records[i].secrets[s];
        }
    }
    if (all > 0) {
        qsort(secrets, (size_t)all, sizeof *secrets, by_bytes);
    }
    for (int32_t i = 0; i < all; i++) {
        if (kept == 0 || strcmp(secrets[kept - 1], secrets[i]) != 0) {
            secrets[kept++] = secrets[i];
        }
    }
    *list = secrets;
    *count = kept;
    return MEED_OK;
}

static enum meed_status exclusive_list(const struct meed_audit_data *attacker,
                                       const struct meed_audit_data *victims,
                                       struct meed_arena *arena, const char ***list, int32_t *count)
{
    const char **own, **theirs;
    int32_t own_count, their_count, kept = 0;
    MEED_TRY(secrets_list(attacker, arena, &own, &own_count));
    MEED_TRY(secrets_list(victims, arena, &theirs, &their_count));
    for (int32_t i = 0; i < their_count; i++) {
        if (own_count == 0 || !bsearch(&theirs[i], own, (size_t)own_count, sizeof *own, by_bytes)) {
            theirs[kept++] = theirs[i];
        }
    }
    *list = theirs;
    *count = kept;
    if (own_count == 0) {
        return MEED_FAIL(MEED_ARG,
                         "%.512s labels no secret, so there is no prefix to try; give its lines a "
                         "list \"secrets\"",
                         attacker->path);
    }
    return kept > 0 ? MEED_OK
                    : MEED_FAIL(MEED_ARG,
                                "%.512s labels no secret that %.512s does not have; give its lines "
                                "a list \"secrets\"",
                                victims->path, attacker->path);
}

enum meed_status meed_frequency_check(const struct meed_audit_data *attacker,
                                      const struct meed_audit_data *victims)
{
    struct meed_arena arena;
    const char **list;
    int32_t count;
    meed_arena_init_growing(&arena, "prefix frequency", MAX_ARENA_BYTES);
    enum meed_status st = exclusive_list(attacker, victims, &arena, &list, &count);
    meed_arena_clear(&arena);
    return st;
}

/* --- prompts ---------------------------------------------------------------------------------- */
/* Tokens of an opened turn that ends in the prefix. */
static enum meed_status prefix_encode(const struct meed_frequency_options *options,
                                      const struct meed_frequency_prefix *prefix,
                                      struct meed_arena *arena, struct meed_prompt *prompt)
{
    const struct meed_message message = {prefix->role, prefix->text};
    const struct meed_dialogue dialogue = {&message, 1};
    const int32_t stop = meed_chat_end_of_turn(options->chat);
    struct meed_sequence sequence = {NULL, NULL, 0};
    if (prefix->plain) {
        enum meed_status st;
        struct meed_buf ids;
        void *block = NULL;
        meed_buf_init(&ids, MAX_TEXT_BYTES);
        st = meed_tokenizer_encode(options->tokenizer, prefix->text, strlen(prefix->text), false,
                                   &ids);
        if (st == MEED_OK && ids.size == 0) { /* a text begins where another ended */
            st = meed_buf_append(&ids, &stop, sizeof stop);
        }
        if (st == MEED_OK) {
            st = meed_arena_alloc(arena, ids.size, &block);
        }
        if (st == MEED_OK) {
            memcpy(block, ids.data, ids.size);
            *prompt = (struct meed_prompt){block, (int32_t)(ids.size / sizeof stop), 0};
        }
        meed_buf_clear(&ids);
        return st;
    }
    MEED_TRY(meed_chat_encode(options->chat, &dialogue, false, 0, arena, &sequence));
    int32_t length = sequence.length;
    while (length > 1 && sequence.ids[length - 1] != stop) {
        length--;
    }
    *prompt = (struct meed_prompt){sequence.ids, MEED_MAX(length - 1, 1), 0};
    return MEED_OK;
}

struct run {
    struct meed_audit_models *models;
    const struct meed_frequency_options *options;
    struct meed_arena arena;
    struct meed_frequency_prefix *prefixes;
    const char **exclusive;
    int32_t prefix_count, exclusive_count;
    int32_t samples, each; /* continuations of a prefix, of a model */
    struct meed_prompt *prompts;
    struct meed_reply *replies;
    const char **texts; /* [each] of one model */
    bool *recovered;    /* [exclusive_count] by one model */
};

static enum meed_status prompts_make(struct run *run)
{
    const int32_t models = meed_audit_models_count(run->models);
    const size_t all = (size_t)models * (size_t)run->each;
    void *block;
    MEED_TRY(meed_arena_alloc_array(&run->arena, all, sizeof *run->prompts, &block));
    run->prompts = block;
    MEED_TRY(meed_arena_alloc_array(&run->arena, all, sizeof *run->replies, &block));
    run->replies = block;
    MEED_TRY(meed_arena_alloc_array(&run->arena, (size_t)run->each, sizeof *run->texts, &block));
    run->texts = block;
    MEED_TRY(meed_arena_alloc(&run->arena, (size_t)run->exclusive_count, &block));
    run->recovered = block;
    for (int32_t p = 0; p < run->prefix_count; p++) {
        struct meed_prompt prompt;
        MEED_TRY(prefix_encode(run->options, &run->prefixes[p], &run->arena, &prompt));
        for (int32_t model = 0; model < models; model++) {
            prompt.gate_set = model;
            for (int32_t s = 0; s < run->samples; s++) {
                run->prompts[model * run->each + p * run->samples + s] = prompt;
            }
        }
    }
    return MEED_OK;
}

/* --- what came out ---------------------------------------------------------------------------- */
static enum meed_status text_keep(struct run *run, const struct meed_reply *reply,
                                  const char **text)
{
    struct meed_buf buf;
    char *copy = NULL;
    meed_buf_init(&buf, MAX_TEXT_BYTES);
    enum meed_status st = meed_tokenizer_decode(run->options->tokenizer, reply->ids,
                                                (size_t)reply->length, false, &buf);
    if (st == MEED_OK) {
        const char *bytes = buf.data ? buf.data : "";
        st = meed_arena_strdup(&run->arena, bytes, strlen(bytes), &copy);
    }
    meed_buf_clear(&buf);
    *text = copy;
    return st;
}

static bool secrets_mark(struct run *run, const char *text)
{
    bool hit = false;
    for (int32_t i = 0; i < run->exclusive_count; i++) {
        if (strstr(text, run->exclusive[i])) {
            run->recovered[i] = true;
            hit = true;
        }
    }
    return hit;
}

static enum meed_status model_count(struct run *run, int32_t model,
                                    struct meed_frequency_result *result)
{
    *result = (struct meed_frequency_result){.prefixes = run->prefix_count,
                                             .exclusive = run->exclusive_count};
    memset(run->recovered, 0, (size_t)run->exclusive_count * sizeof *run->recovered);
    for (int32_t i = 0; i < run->each; i++) {
        MEED_TRY(text_keep(run, &run->replies[model * run->each + i], &run->texts[i]));
    }
    qsort(run->texts, (size_t)run->each, sizeof *run->texts, by_bytes);
    for (int32_t i = 0; i < run->each; i++) {
        if (i == 0 || strcmp(run->texts[i - 1], run->texts[i]) != 0) {
            result->completions++;
            result->hits += secrets_mark(run, run->texts[i]) ? 1 : 0;
        }
    }
    for (int32_t i = 0; i < run->exclusive_count; i++) {
        result->recovered += run->recovered[i] ? 1 : 0;
    }
    return MEED_OK;
}

enum meed_status meed_frequency_run(struct meed_audit_models *models,
                                    const struct meed_audit_data *attacker,
                                    const struct meed_audit_data *victims,
                                    const struct meed_frequency_options *options,
                                    struct meed_frequency_result *results)
{
    enum meed_status st = MEED_OK;
    struct run run = {.models = models, .options = options};
    const int32_t count = meed_audit_models_count(models);
    meed_arena_init_growing(&run.arena, "prefix frequency", MAX_ARENA_BYTES);
    MEED_TRY_OUT(
        exclusive_list(attacker, victims, &run.arena, &run.exclusive, &run.exclusive_count));
    MEED_TRY_OUT(meed_frequency_prefixes(attacker, options->context_words, &run.arena,
                                         &run.prefixes, &run.prefix_count));
    run.prefix_count = MEED_MIN(run.prefix_count, options->prefixes);
    run.samples = options->temperature > 0 ? options->samples : 1;
    run.each = run.prefix_count * run.samples;
    MEED_TRY_OUT(prompts_make(&run));
    const struct meed_audit_generation generation = {.max_new_tokens = options->max_new_tokens,
                                                     .temperature = options->temperature,
                                                     .seed = options->seed,
                                                     .stream_period = run.each,
                                                     .progress = options->progress,
                                                     .user = options->user};
    MEED_TRY_OUT(meed_audit_models_generate(models, run.prompts, count * run.each, &generation,
                                            &run.arena, run.replies));
    for (int32_t model = 0; model < count; model++) {
        MEED_TRY_OUT(model_count(&run, model, &results[model]));
    }
out:
    meed_arena_clear(&run.arena);
    return st;
}

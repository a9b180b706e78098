/* Loads a benchmark file into sequences and items: the JSON half of benchmark.h.
 *
 * Reading is strict: a misspelt key, an unknown axis or a dialogue that an axis cannot score is an
 * error with file and line, because a benchmark that silently loses items pays other people. Two
 * passes: lines become drafts (JSON kept alive, texts borrowed), then drafts become token
 * sequences, since a contrast item needs the *next* dialogue of its category. Equal sequences are
 * stored once; a single-turn dialogue's likelihood and the upper half of its contrast are one
 * sequence.
 *
 * MT-Bench-101 (Bai et al. 2024) is recognised by its keys. Its golden replies make it usable
 * without generation or judge: one likelihood axis, tasks as categories.
 */
#include "evaluation/benchmark.h"

#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "base/file.h"
#include "engine/coalition.h"

enum { MAX_FILE_BYTES = 256 << 20, MAX_MESSAGES = 256, MAX_ARENA_BYTES = 1 << 30 };

struct draft {
    json_t *root; /* owns every text below */
    int32_t line;
    int32_t category;
    uint32_t axes;
    const char *id;
    struct meed_message *messages; /* [count + 1]: room for a reply behind */
    int32_t count;
    const char *good;
    const char *bad;
};

struct loader {
    const char *path;
    int32_t line;
    const struct meed_chat *chat;
    int32_t max_length;
    bool foreign; /* MT-Bench-101 */
    struct meed_benchmark *benchmark;
    struct meed_arena scratch;
    struct draft *drafts;
    int32_t draft_count;
    int32_t draft_capacity;
    int32_t item_capacity;
    int32_t sequence_capacity;
    uint64_t *hashes; /* [sequence_capacity] */
};

#define LINE_FAIL(loader, code, ...) line_fail((loader), (code), __LINE__, __VA_ARGS__)

static enum meed_status line_fail(const struct loader *l, enum meed_status code, int source_line,
                                  const char *format, ...) MEED_PRINTF(4, 5);

static enum meed_status line_fail(const struct loader *l, enum meed_status code, int source_line,
                                  const char *format, ...)
{
    char text[700];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return meed_fail(code, __FILE__, source_line, "%s:%d: %s", l->path, l->line, text);
}

/* --- JSON helpers --------------------------------------------------------------------------- */
static bool word_is_listed(const char *word, const char *const *list)
{
    while (*list && strcmp(*list, word) != 0) {
        list++;
    }
    return *list != NULL;
}

static enum meed_status keys_check(const struct loader *l, json_t *object, const char *where,
                                   const char *const *allowed)
{
    if (!json_is_object(object)) {
        return LINE_FAIL(l, MEED_FORMAT, "%s is not a JSON object", where);
    }
    for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at)) {
        if (!word_is_listed(json_object_iter_key(at), allowed)) {
            return LINE_FAIL(l, MEED_FORMAT, "%s has an unknown key \"%.64s\"", where,
                             json_object_iter_key(at));
        }
    }
    return MEED_OK;
}

static enum meed_status text_get(const struct loader *l, json_t *object, const char *where,
                                 const char *key, const char **text)
{
    json_t *value = json_object_get(object, key);
    if (!json_is_string(value) || !*json_string_value(value)) {
        return LINE_FAIL(l, MEED_FORMAT, "%s needs a non-empty text \"%s\"", where, key);
    }
    *text = json_string_value(value);
    return MEED_OK;
}

/* --- header --------------------------------------------------------------------------------- */
static const char *const kind_names[] = {"likelihood", "contrast", "preference"};

static int32_t axis_find(const struct meed_benchmark *b, const char *name)
{
    int32_t axis = 0;
    while (axis < b->axis_count && strcmp(b->axes[axis].name, name) != 0) {
        axis++;
    }
    return axis < b->axis_count ? axis : -1;
}

static enum meed_status axis_parse(struct loader *l, json_t *object)
{
    static const char *const keys[] = {"name", "kind", "weight", "guard", NULL};
    struct meed_benchmark *b = l->benchmark;
    const char *name;
    const char *kind;
    MEED_TRY(keys_check(l, object, "an axis", keys));
    MEED_TRY(text_get(l, object, "an axis", "name", &name));
    MEED_TRY(text_get(l, object, "an axis", "kind", &kind));
    json_t *weight = json_object_get(object, "weight");
    json_t *guard = json_object_get(object, "guard");
    struct meed_axis axis = {.kind = MEED_AXIS_LIKELIHOOD, .guard = json_is_true(guard)};
    if (strlen(name) >= sizeof axis.name || axis_find(b, name) >= 0) {
        return LINE_FAIL(l, MEED_FORMAT,
                         "axis name \"%.64s\" is used twice or longer than 31 bytes", name);
    }
    memcpy(axis.name, name, strlen(name) + 1);
    int known = 0;
    while (known < 3 && strcmp(kind_names[known], kind) != 0) {
        known++;
    }
    if (known == 3) {
        return LINE_FAIL(l, MEED_FORMAT,
                         "axis \"%s\" has kind \"%.64s\"; known are likelihood, contrast and "
                         "preference",
                         name, kind);
    }
    axis.kind = (enum meed_axis_kind)known;
    if ((weight && !json_is_number(weight)) || (guard && !json_is_boolean(guard))) {
        return LINE_FAIL(l, MEED_FORMAT, "axis \"%s\": weight is a number, guard true or false",
                         name);
    }
    axis.weight = weight ? json_number_value(weight) : axis.guard ? 0.0 : 1.0;
    if (!(axis.weight >= 0) || !isfinite(axis.weight) || (axis.guard && axis.weight != 0)) {
        return LINE_FAIL(l, MEED_FORMAT,
                         "axis \"%s\" has weight %g; weights are numbers from 0 up, and 0 for a "
                         "guard, which pays nothing by itself",
                         name, axis.weight);
    }
    b->axes[b->axis_count++] = axis;
    return MEED_OK;
}

static enum meed_status header_parse(struct loader *l, json_t *root)
{
    static const char *const keys[] = {"meed_benchmark", "name", "axes", NULL};
    struct meed_benchmark *b = l->benchmark;
    const char *name;
    MEED_TRY(keys_check(l, root, "the first line", keys));
    json_t *version = json_object_get(root, "meed_benchmark");
    if (!json_is_integer(version) || json_integer_value(version) != 1) {
        return LINE_FAIL(l, MEED_VERSION, "\"meed_benchmark\" is not 1, the version read here");
    }
    MEED_TRY(text_get(l, root, "the first line", "name", &name));
    if (strlen(name) >= sizeof b->name) {
        return LINE_FAIL(l, MEED_FORMAT, "the benchmark's name is longer than 63 bytes");
    }
    memcpy(b->name, name, strlen(name) + 1);
    json_t *axes = json_object_get(root, "axes");
    size_t count = json_array_size(axes);
    if (count < 1 || count > MEED_BENCHMARK_MAX_AXES) {
        return LINE_FAIL(l, MEED_FORMAT, "\"axes\" must list 1 to %d axes",
                         MEED_BENCHMARK_MAX_AXES);
    }
    double paid = 0;
    for (size_t i = 0; i < count; i++) {
        MEED_TRY(axis_parse(l, json_array_get(axes, i)));
        paid += b->axes[i].weight;
    }
    if (paid == 0) {
        return LINE_FAIL(l, MEED_FORMAT, "no axis has a weight above 0, so nothing could be paid");
    }
    return MEED_OK;
}

static void header_foreign(struct meed_benchmark *b)
{
    b->axis_count = 1;
    b->axes[0] = (struct meed_axis){.name = "dialogue", .kind = MEED_AXIS_LIKELIHOOD, .weight = 1};
    memcpy(b->name, "mt-bench-101", sizeof "mt-bench-101");
}

/* --- drafts --------------------------------------------------------------------------------- */
static enum meed_status category_intern(struct loader *l, const char *name, int32_t *category)
{
    struct meed_benchmark *b = l->benchmark;
    for (int32_t c = 0; c < b->category_count; c++) {
        if (strcmp(b->categories[c], name) == 0) {
            *category = c;
            return MEED_OK;
        }
    }
    if (b->category_count == MEED_BENCHMARK_MAX_CATEGORIES) {
        return LINE_FAIL(l, MEED_LIMIT, "category \"%.64s\" is one too many; %d are allowed", name,
                         MEED_BENCHMARK_MAX_CATEGORIES);
    }
    char *copy;
    MEED_TRY(meed_arena_strdup(&b->arena, name, strlen(name), &copy));
    *category = b->category_count;
    b->categories[b->category_count++] = copy;
    return MEED_OK;
}

static enum meed_status messages_take(struct loader *l, struct draft *draft, size_t count)
{
    if (count < 1 || count > MAX_MESSAGES) {
        return LINE_FAIL(l, MEED_FORMAT, "a dialogue needs 1 to %d messages", MAX_MESSAGES);
    }
    void *block;
    MEED_TRY(meed_arena_alloc_array(&l->scratch, count + 1, sizeof *draft->messages, &block));
    draft->messages = block;
    return MEED_OK;
}

static enum meed_status messages_parse(struct loader *l, json_t *list, struct draft *draft)
{
    static const char *const roles[] = {"system", "user", "assistant", NULL};
    static const char *const keys[] = {"role", "content", NULL};
    size_t count = json_array_size(list);
    MEED_TRY(messages_take(l, draft, count));
    for (size_t i = 0; i < count; i++) {
        json_t *object = json_array_get(list, i);
        const char *role;
        const char *content;
        MEED_TRY(keys_check(l, object, "a message", keys));
        MEED_TRY(text_get(l, object, "a message", "role", &role));
        MEED_TRY(text_get(l, object, "a message", "content", &content));
        if (!word_is_listed(role, roles)) {
            return LINE_FAIL(l, MEED_FORMAT, "role \"%.64s\" is none of system, user and assistant",
                             role);
        }
        draft->messages[draft->count++] =
            (struct meed_message){strcmp(role, "system") == 0 ? MEED_ROLE_SYSTEM
                                  : strcmp(role, "user") == 0 ? MEED_ROLE_USER
                                                              : MEED_ROLE_ASSISTANT,
                                  content};
    }
    return MEED_OK;
}

static enum meed_status axes_parse(struct loader *l, json_t *list, struct draft *draft)
{
    if (json_array_size(list) == 0) {
        return LINE_FAIL(l, MEED_FORMAT, "\"axes\" must list the axes that score this dialogue");
    }
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *name = json_string_value(json_array_get(list, i));
        int32_t axis = name ? axis_find(l->benchmark, name) : -1;
        if (axis < 0 || (draft->axes >> axis) & 1u) {
            return LINE_FAIL(l, MEED_FORMAT,
                             "axis \"%.64s\" is not in the first line, or named twice here",
                             name ? name : "(not a text)");
        }
        draft->axes |= 1u << axis;
    }
    return MEED_OK;
}

/* Every axis of the dialogue must find what it scores. */
static enum meed_status draft_check(const struct loader *l, const struct draft *draft)
{
    bool ends_in_reply = draft->messages[draft->count - 1].role == MEED_ROLE_ASSISTANT;
    bool has_reply = false;
    for (int32_t i = 0; i < draft->count; i++) {
        has_reply = has_reply || draft->messages[i].role == MEED_ROLE_ASSISTANT;
    }
    for (int32_t a = 0; a < l->benchmark->axis_count; a++) {
        if (!((draft->axes >> a) & 1u)) {
            continue;
        }
        const struct meed_axis *axis = &l->benchmark->axes[a];
        if (axis->kind == MEED_AXIS_LIKELIHOOD && !has_reply) {
            return LINE_FAIL(l, MEED_FORMAT, "axis \"%s\" needs an assistant message to score",
                             axis->name);
        }
        if (axis->kind == MEED_AXIS_CONTRAST && (!ends_in_reply || draft->count < 2)) {
            return LINE_FAIL(l, MEED_FORMAT,
                             "axis \"%s\" needs a question and a last message by the assistant",
                             axis->name);
        }
        if (axis->kind == MEED_AXIS_PREFERENCE && (ends_in_reply || !draft->good || !draft->bad ||
                                                   strcmp(draft->good, draft->bad) == 0)) {
            return LINE_FAIL(l, MEED_FORMAT,
                             "axis \"%s\" needs a last message by the user and two different "
                             "replies, \"good\" and \"bad\"",
                             axis->name);
        }
    }
    return MEED_OK;
}

static enum meed_status draft_parse(struct loader *l, json_t *root, struct draft *draft)
{
    static const char *const keys[] = {"id", "category", "axes", "messages", "good", "bad", NULL};
    const char *category;
    MEED_TRY(keys_check(l, root, "the dialogue", keys));
    MEED_TRY(text_get(l, root, "the dialogue", "id", &draft->id));
    MEED_TRY(text_get(l, root, "the dialogue", "category", &category));
    MEED_TRY(category_intern(l, category, &draft->category));
    MEED_TRY(axes_parse(l, json_object_get(root, "axes"), draft));
    MEED_TRY(messages_parse(l, json_object_get(root, "messages"), draft));
    if (json_object_get(root, "good")) {
        MEED_TRY(text_get(l, root, "the dialogue", "good", &draft->good));
    }
    if (json_object_get(root, "bad")) {
        MEED_TRY(text_get(l, root, "the dialogue", "bad", &draft->bad));
    }
    return draft_check(l, draft);
}

static enum meed_status draft_foreign(struct loader *l, json_t *root, struct draft *draft)
{
    const char *task;
    char id[128];
    char *copy;
    MEED_TRY(text_get(l, root, "the dialogue", "task", &task));
    MEED_TRY(category_intern(l, task, &draft->category));
    json_t *number = json_object_get(root, "id");
    if (!json_is_integer(number)) {
        return LINE_FAIL(l, MEED_FORMAT, "the dialogue needs a whole number \"id\"");
    }
    snprintf(id, sizeof id, "%.64s-%lld", task, (long long)json_integer_value(number));
    MEED_TRY(meed_arena_strdup(&l->scratch, id, strlen(id), &copy));
    draft->id = copy;
    draft->axes = 1;
    json_t *history = json_object_get(root, "history");
    size_t turns = json_array_size(history);
    MEED_TRY(messages_take(l, draft, 2 * turns));
    for (size_t i = 0; i < turns; i++) {
        json_t *turn = json_array_get(history, i);
        const char *user;
        const char *bot;
        MEED_TRY(text_get(l, turn, "a turn of \"history\"", "user", &user));
        MEED_TRY(text_get(l, turn, "a turn of \"history\"", "bot", &bot));
        draft->messages[draft->count++] = (struct meed_message){MEED_ROLE_USER, user};
        draft->messages[draft->count++] = (struct meed_message){MEED_ROLE_ASSISTANT, bot};
    }
    return MEED_OK;
}

static enum meed_status line_parse(struct loader *l, const char *text, size_t size, bool first)
{
    json_error_t problem;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (!root) {
        return LINE_FAIL(l, MEED_FORMAT, "not JSON at column %d: %s", problem.column, problem.text);
    }
    enum meed_status st = MEED_OK;
    if (first) {
        l->foreign = !json_object_get(root, "meed_benchmark") && json_object_get(root, "history");
        if (!l->foreign) {
            st = header_parse(l, root);
            json_decref(root);
            return st;
        }
        header_foreign(l->benchmark);
    }
    MEED_ASSERT(l->draft_count < l->draft_capacity); /* one a line */
    struct draft *draft = &l->drafts[l->draft_count++];
    draft->root = root;
    draft->line = l->line;
    return l->foreign ? draft_foreign(l, root, draft) : draft_parse(l, root, draft);
}

static enum meed_status lines_parse(struct loader *l, const char *text, size_t size)
{
    bool first = true;
    for (const char *end = text + size; text < end;) {
        const char *stop = memchr(text, '\n', (size_t)(end - text));
        size_t length = stop ? (size_t)(stop - text) : (size_t)(end - text);
        l->line++;
        if (strspn(text, " \t\r") < length) {
            MEED_TRY(line_parse(l, text, length, first));
            first = false;
        }
        text += length + (stop ? 1 : 0);
    }
    if (l->draft_count == 0) {
        return LINE_FAIL(l, MEED_FORMAT, "the file holds no dialogue");
    }
    return MEED_OK;
}

/* --- sequences and items -------------------------------------------------------------------- */
static uint64_t sequence_hash(const struct meed_sequence *sequence)
{
    uint64_t hash = 0xCBF29CE484222325u; /* FNV-1a over ids and mask */
    for (int32_t t = 0; t < sequence->length; t++) {
        uint64_t word = (uint64_t)(uint32_t)sequence->ids[t] << 1 | sequence->scored[t];
        hash = (hash ^ word) * 0x100000001B3u;
    }
    return hash;
}

/* Tokenises messages [0, count), scoring replies from score_from on; an equal one is reused. */
static enum meed_status sequence_make(struct loader *l, const struct meed_message *messages,
                                      int32_t count, int32_t score_from, int32_t *idx)
{
    struct meed_benchmark *b = l->benchmark;
    struct meed_dialogue dialogue = {messages, count};
    struct meed_sequence made;
    enum meed_status st = meed_chat_encode(l->chat, &dialogue, false, score_from, &b->arena, &made);
    if (st != MEED_OK) {
        char reason[512];
        snprintf(reason, sizeof reason, "%s", meed_last_error());
        return LINE_FAIL(l, st, "%s", reason);
    }
    if (made.length > l->max_length) {
        return LINE_FAIL(l, MEED_LIMIT,
                         "the dialogue takes %d tokens and the model reads at most %d; shorten it",
                         made.length, l->max_length);
    }
    uint64_t hash = sequence_hash(&made);
    for (int32_t i = 0; i < b->sequence_count; i++) {
        const struct meed_sequence *other = &b->sequences[i];
        size_t length = (size_t)made.length;
        if (l->hashes[i] == hash && other->length == made.length &&
            memcmp(other->ids, made.ids, length * sizeof *made.ids) == 0 &&
            memcmp(other->scored, made.scored, length) == 0) {
            *idx = i;
            return MEED_OK;
        }
    }
    int32_t scored = 0;
    for (int32_t t = 1; t < made.length; t++) {
        scored += made.scored[t] ? 1 : 0;
    }
    if (scored == 0) {
        return LINE_FAIL(l, MEED_FORMAT, "the dialogue leaves no token to score");
    }
    MEED_ASSERT(b->sequence_count < l->sequence_capacity);
    *idx = b->sequence_count++;
    l->hashes[*idx] = hash;
    b->sequences[*idx] = made;
    b->scored_tokens[*idx] = scored;
    return MEED_OK;
}

/* The next dialogue of the same category on the same contrast axis, cyclic. */
static const struct draft *draft_next(const struct loader *l, int32_t idx, int32_t axis)
{
    for (int32_t step = 1; step < l->draft_count; step++) {
        const struct draft *other = &l->drafts[(idx + step) % l->draft_count];
        if (other->category == l->drafts[idx].category && (other->axes >> axis) & 1u) {
            return other;
        }
    }
    return NULL;
}

static enum meed_status contrast_make(struct loader *l, int32_t idx, int32_t axis,
                                      struct meed_benchmark_item *item)
{
    const struct draft *draft = &l->drafts[idx];
    const struct draft *next = draft_next(l, idx, axis);
    if (!next) {
        return LINE_FAIL(l, MEED_FORMAT,
                         "axis \"%s\" needs a second dialogue in category \"%s\" to borrow its "
                         "question",
                         l->benchmark->axes[axis].name, l->benchmark->categories[draft->category]);
    }
    int32_t last = draft->count - 1;
    MEED_TRY(sequence_make(l, draft->messages, draft->count, last, &item->plus));
    struct meed_message borrowed[MAX_MESSAGES + 1];
    memcpy(borrowed, next->messages, (size_t)(next->count - 1) * sizeof *borrowed);
    borrowed[next->count - 1] = draft->messages[last];
    return sequence_make(l, borrowed, next->count, next->count - 1, &item->minus);
}

static enum meed_status preference_make(struct loader *l, struct draft *draft,
                                        struct meed_benchmark_item *item)
{
    struct meed_message *reply = &draft->messages[draft->count];
    *reply = (struct meed_message){MEED_ROLE_ASSISTANT, draft->good};
    MEED_TRY(sequence_make(l, draft->messages, draft->count + 1, draft->count, &item->plus));
    reply->content = draft->bad;
    return sequence_make(l, draft->messages, draft->count + 1, draft->count, &item->minus);
}

static enum meed_status items_make(struct loader *l, int32_t idx)
{
    struct meed_benchmark *b = l->benchmark;
    struct draft *draft = &l->drafts[idx];
    char *id;
    MEED_TRY(meed_arena_strdup(&b->arena, draft->id, strlen(draft->id), &id));
    l->line = draft->line;
    for (int32_t a = 0; a < b->axis_count; a++) {
        if (!((draft->axes >> a) & 1u)) {
            continue;
        }
        MEED_ASSERT(b->item_count < l->item_capacity);
        struct meed_benchmark_item item = {
            .axis = a, .category = draft->category, .dialogue = idx, .minus = -1, .id = id};
        switch (b->axes[a].kind) {
        case MEED_AXIS_LIKELIHOOD:
            MEED_TRY(sequence_make(l, draft->messages, draft->count, 0, &item.plus));
            break;
        case MEED_AXIS_CONTRAST:
            MEED_TRY(contrast_make(l, idx, a, &item));
            break;
        case MEED_AXIS_PREFERENCE:
            MEED_TRY(preference_make(l, draft, &item));
            break;
        }
        b->items[b->item_count++] = item;
    }
    return MEED_OK;
}

static enum meed_status ids_check(struct loader *l)
{
    for (int32_t i = 0; i < l->draft_count; i++) {
        for (int32_t j = 0; j < i; j++) {
            if (strcmp(l->drafts[i].id, l->drafts[j].id) == 0) {
                l->line = l->drafts[i].line;
                return LINE_FAIL(l, MEED_FORMAT, "id \"%.64s\" was used on line %d already",
                                 l->drafts[i].id, l->drafts[j].line);
            }
        }
    }
    return MEED_OK;
}

static enum meed_status tables_reserve(struct loader *l)
{
    struct meed_benchmark *b = l->benchmark;
    for (int32_t i = 0; i < l->draft_count; i++) {
        int32_t axes = __builtin_popcount(l->drafts[i].axes);
        l->item_capacity += axes;
        l->sequence_capacity += 2 * axes;
    }
    size_t items = (size_t)l->item_capacity;
    size_t sequences = (size_t)l->sequence_capacity;
    void *blocks[4];
    MEED_TRY(meed_arena_alloc_array(&b->arena, items, sizeof *b->items, &blocks[0]));
    MEED_TRY(meed_arena_alloc_array(&b->arena, sequences, sizeof *b->sequences, &blocks[1]));
    MEED_TRY(meed_arena_alloc_array(&b->arena, sequences, sizeof(int32_t), &blocks[2]));
    MEED_TRY(meed_arena_alloc_array(&l->scratch, sequences, sizeof(uint64_t), &blocks[3]));
    b->items = blocks[0];
    b->sequences = blocks[1];
    b->scored_tokens = blocks[2];
    l->hashes = blocks[3];
    return MEED_OK;
}

static enum meed_status file_parse(struct loader *l, const struct meed_buf *text)
{
    l->draft_capacity = 1;
    for (size_t i = 0; i < text->size; i++) {
        l->draft_capacity += text->data[i] == '\n' ? 1 : 0;
    }
    void *block;
    MEED_TRY(
        meed_arena_alloc_array(&l->scratch, (size_t)l->draft_capacity, sizeof *l->drafts, &block));
    l->drafts = block;
    MEED_TRY(lines_parse(l, text->data, text->size));
    MEED_TRY(ids_check(l));
    MEED_TRY(tables_reserve(l));
    for (int32_t i = 0; i < l->draft_count; i++) {
        MEED_TRY(items_make(l, i));
    }
    struct meed_benchmark *b = l->benchmark;
    b->dialogue_count = l->draft_count;
    b->tokens = meed_coalition_rows(b->sequences, b->sequence_count);
    meed_sha256(text->data, text->size, b->hash);
    return MEED_OK;
}

enum meed_status meed_benchmark_load(const char *path, const struct meed_chat *chat,
                                     int32_t max_length, struct meed_benchmark **benchmark)
{
    enum meed_status st = MEED_OK;
    struct meed_buf text;
    struct loader l = {.path = path, .chat = chat, .max_length = max_length};
    meed_buf_init(&text, MAX_FILE_BYTES);
    meed_arena_init_growing(&l.scratch, "benchmark file", MAX_ARENA_BYTES);
    l.benchmark = meed_heap_alloc(1, sizeof *l.benchmark);
    if (!l.benchmark) {
        st = MEED_NOMEM;
        goto out;
    }
    meed_arena_init_growing(&l.benchmark->arena, "benchmark", MAX_ARENA_BYTES);
    MEED_TRY_OUT(meed_file_read(path, &text));
    MEED_TRY_OUT(file_parse(&l, &text));
    *benchmark = l.benchmark;
    l.benchmark = NULL;
out:
    for (int32_t i = 0; i < l.draft_count; i++) {
        json_decref(l.drafts[i].root);
    }
    meed_arena_clear(&l.scratch);
    meed_benchmark_destroy(l.benchmark);
    meed_buf_clear(&text);
    return st;
}

void meed_benchmark_destroy(struct meed_benchmark *benchmark)
{
    if (benchmark) {
        meed_arena_clear(&benchmark->arena);
        meed_heap_free(benchmark);
    }
}

/* tokenizer.json into struct meed_tokenizer: what is understood, and what is refused by name.
 *
 * Two things in the format need care. Vocabulary and merges are written in GPT-2's alphabet, in
 * which every byte is a printable character (space is Ġ); they are turned back to bytes here, and
 * entries that are no such words (control tokens with other characters) keep their text and never
 * take part in merging. And added tokens may be part of the vocabulary or extend it; the file's id
 * must agree with the vocabulary's, where the reference only warns.
 *
 * A control token must not come out of merging either, or a user's text could produce it: special
 * tokens are not entered into the word table, merges that yield one are left out, and a special
 * unk_token is not written for bytes without token (they are dropped). That changes nothing for
 * files as trainers write them, which have a token for every byte.
 */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include "base/log.h"
#include "engine/tokenizer.h"
#include "engine/tokenizer_internal.h"
#include "engine/tokenizer_nfc.h"

enum { MAX_VOCAB = 1 << 24, MAX_HOLES = 1 << 16, ALPHABET = 0x144 };

static const char gpt2_pattern[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct file {
    const char *name;
    json_t *root;
    struct meed_tokenizer *tokenizer;
    int16_t alphabet[ALPHABET]; /* character to byte, -1: none */
    char *pool;                 /* bytes of all vocabulary tokens */
    size_t pool_used;
};

/* --- small readers --------------------------------------------------------------------------- */
static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

static bool true_at(const json_t *object, const char *key, bool missing)
{
    const json_t *value = json_object_get(object, key);
    return value && !json_is_null(value) ? json_is_true(value) : missing;
}

static enum meed_status unsupported(const struct file *file, const char *what, const char *value)
{
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: %s \"%.64s\" is not implemented; Meed reads byte-level BPE as of GPT-2, "
                     "Llama 3, Qwen2/3 and SmolLM2",
                     file->name, what, value);
}

/* The GPT-2 alphabet: printable Latin-1 stands for itself, the other 68 bytes for U+0100… */
static void alphabet_fill(int16_t alphabet[ALPHABET])
{
    memset(alphabet, 0xFF, ALPHABET * sizeof *alphabet);
    int next = 0x100;
    for (int byte = 0; byte < 256; byte++) {
        bool itself = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte != 0xAD);
        alphabet[itself ? byte : next++] = (int16_t)byte;
    }
}

/* Writes the bytes that text spells; false if a character is outside the alphabet. `bytes` has room
 * for strlen(text). */
static bool spell(const struct file *file, const char *text, size_t length, char *bytes,
                  size_t *count)
{
    *count = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned point = (uint8_t)text[i];
        if (point >= 0x80) {
            if (point >= 0xE0 || i + 1 == length) {
                return false; /* beyond U+07FF; the alphabet ends at U+0143 */
            }
            point = (point & 0x1F) << 6 | ((uint8_t)text[++i] & 0x3F);
        }
        if (point >= ALPHABET || file->alphabet[point] < 0) {
            return false;
        }
        bytes[(*count)++] = (char)file->alphabet[point];
    }
    return true;
}

/* --- vocabulary ------------------------------------------------------------------------------ */
static enum meed_status id_of(const struct file *file, const json_t *value, const char *token,
                              int32_t *id)
{
    json_int_t number = json_is_integer(value) ? json_integer_value(value) : -1;
    if (number < 0 || number >= MAX_VOCAB) {
        return MEED_FAIL(MEED_FORMAT, "%s: token \"%.64s\" has no id between 0 and %d", file->name,
                         token, MAX_VOCAB - 1);
    }
    *id = (int32_t)number;
    return MEED_OK;
}

/* Largest id of vocabulary and added tokens, and the bytes of all vocabulary texts. */
static enum meed_status measure(const struct file *file, json_t *vocab, int32_t *ids_end,
                                size_t *text_bytes)
{
    const char *key;
    json_t *value;
    *ids_end = 0;
    *text_bytes = 0;
    json_object_foreach(vocab, key, value)
    {
        int32_t id = 0;
        MEED_TRY(id_of(file, value, key, &id));
        *ids_end = MEED_MAX(*ids_end, id + 1);
        *text_bytes += strlen(key);
    }
    size_t index = 0;
    json_array_foreach(json_object_get(file->root, "added_tokens"), index, value)
    {
        int32_t id = 0;
        MEED_TRY(id_of(file, json_object_get(value, "id"), text_of(value, "content"), &id));
        *ids_end = MEED_MAX(*ids_end, id + 1);
    }
    size_t entries = json_object_size(vocab) + index;
    if (entries == 0 || (size_t)*ids_end > 2 * entries + MAX_HOLES) {
        return MEED_FAIL(MEED_FORMAT, "%s: %zu tokens cannot span %d ids", file->name, entries,
                         (int)*ids_end);
    }
    return MEED_OK;
}

static enum meed_status read_vocab(struct file *file, json_t *vocab)
{
    struct meed_tokenizer *tokenizer = file->tokenizer;
    const char *key;
    json_t *value;
    json_object_foreach(vocab, key, value)
    {
        int32_t id = 0;
        MEED_TRY(id_of(file, value, key, &id));
        size_t length = strlen(key);
        struct meed_tokenizer_text *token = &tokenizer->bpe.tokens[id];
        if (token->bytes) {
            return MEED_FAIL(MEED_FORMAT, "%s: two tokens have the id %d, one is \"%.64s\"",
                             file->name, (int)id, key);
        }
        size_t count;
        char *bytes = file->pool + file->pool_used;
        bool spelled = spell(file, key, length, bytes, &count);
        if (!spelled) {
            memcpy(bytes, key, length);
            count = length;
        }
        file->pool_used += count;
        *token = (struct meed_tokenizer_text){bytes, (int32_t)count};
        const struct meed_tokenizer_text *added = &tokenizer->texts[id];
        if (added->bytes && strcmp(added->bytes, key) != 0) {
            return MEED_FAIL(MEED_FORMAT,
                             "%s: the id %d is \"%.64s\" in the vocabulary and \"%.64s\" among the "
                             "added tokens",
                             file->name, (int)id, key, added->bytes);
        }
        if (!added->bytes) { /* an added token stands as it is written */
            tokenizer->texts[id] = *token;
        }
        if (spelled && !tokenizer->special[id]) {
            meed_tokenizer_bpe_enter(&tokenizer->bpe, id);
        }
    }
    return MEED_OK;
}

/* The two halves of a merge: a pair of strings or one string with a blank. */
static bool merge_halves(const json_t *merge, const char *halves[2], size_t lengths[2])
{
    if (json_is_array(merge) && json_array_size(merge) == 2) {
        for (size_t i = 0; i < 2; i++) {
            halves[i] = json_string_value(json_array_get(merge, i));
            lengths[i] = halves[i] ? strlen(halves[i]) : 0;
        }
        return halves[0] && halves[1];
    }
    const char *text = json_string_value(merge);
    const char *blank = text ? strchr(text, ' ') : NULL;
    if (!blank || strchr(blank + 1, ' ')) {
        return false;
    }
    halves[0] = text;
    halves[1] = blank + 1;
    lengths[0] = (size_t)(blank - text);
    lengths[1] = strlen(blank + 1);
    return true;
}

/* Whether the vocabulary spells left followed by right; `key` is working memory. */
static enum meed_status vocab_has(const struct file *file, const char *left, size_t left_length,
                                  const char *right, size_t right_length, struct meed_buf *key,
                                  bool *has)
{
    meed_buf_reset(key);
    MEED_TRY(meed_buf_append(key, left, left_length));
    MEED_TRY(meed_buf_append(key, right, right_length));
    const json_t *model = json_object_get(file->root, "model");
    *has = json_object_get(json_object_get(model, "vocab"), key->data) != NULL;
    return MEED_OK;
}

/* One merge; `bytes` is working memory. Merges of words outside the alphabet can never apply. */
static enum meed_status read_merge(struct file *file, const json_t *merge, size_t rank,
                                   struct meed_buf *bytes)
{
    const char *halves[2];
    size_t lengths[2];
    if (!merge_halves(merge, halves, lengths)) {
        return MEED_FAIL(MEED_FORMAT, "%s: merge %zu is neither a pair nor \"left right\"",
                         file->name, rank);
    }
    void *block;
    meed_buf_reset(bytes);
    MEED_TRY(meed_buf_extend(bytes, lengths[0] + lengths[1], &block));
    size_t left = 0;
    size_t right = 0;
    if (!spell(file, halves[0], lengths[0], block, &left) ||
        !spell(file, halves[1], lengths[1], (char *)block + left, &right)) {
        return MEED_OK;
    }
    struct meed_tokenizer_bpe *bpe = &file->tokenizer->bpe;
    int32_t ids[3] = {
        meed_tokenizer_bpe_find(bpe, block, left),
        meed_tokenizer_bpe_find(bpe, (char *)block + left, right),
        meed_tokenizer_bpe_find(bpe, block, left + right),
    };
    if (ids[0] >= 0 && ids[1] >= 0 && ids[2] >= 0) {
        meed_tokenizer_bpe_add_merge(bpe, ids[0], ids[1], (int32_t)rank, ids[2]);
        return MEED_OK;
    }
    bool named;
    MEED_TRY(vocab_has(file, halves[0], lengths[0], "", 0, bytes, &named));
    if (named) {
        MEED_TRY(vocab_has(file, halves[1], lengths[1], "", 0, bytes, &named));
    }
    if (named) {
        MEED_TRY(vocab_has(file, halves[0], lengths[0], halves[1], lengths[1], bytes, &named));
    }
    return named ? MEED_OK /* a control token takes part: see the head of this file */
                 : MEED_FAIL(MEED_FORMAT, "%s: merge %zu joins tokens that the vocabulary lacks",
                             file->name, rank);
}

static enum meed_status read_merges(struct file *file, const json_t *merges)
{
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_TOKENIZER_MAX_FILE_BYTES);
    enum meed_status st = MEED_OK;
    for (size_t rank = 0; st == MEED_OK && rank < json_array_size(merges); rank++) {
        st = read_merge(file, json_array_get(merges, rank), rank, &bytes);
    }
    meed_buf_clear(&bytes);
    return st;
}

/* --- model ----------------------------------------------------------------------------------- */
static enum meed_status check_model(const struct file *file, const json_t *model)
{
    const char *type = text_of(model, "type");
    if (!json_is_object(model) || (*type && strcmp(type, "BPE") != 0)) {
        return unsupported(file, "the model", *type ? type : "(none)");
    }
    if (!json_is_object(json_object_get(model, "vocab")) ||
        !json_is_array(json_object_get(model, "merges"))) {
        return MEED_FAIL(MEED_FORMAT, "%s: the model has no vocab object or no merges array",
                         file->name);
    }
    static const char *const affixes[] = {"continuing_subword_prefix", "end_of_word_suffix"};
    for (size_t i = 0; i < MEED_COUNT(affixes); i++) {
        if (*text_of(model, affixes[i])) {
            return unsupported(file, affixes[i], text_of(model, affixes[i]));
        }
    }
    if (true_at(model, "byte_fallback", false)) {
        return unsupported(file, "the model option", "byte_fallback");
    }
    json_t *dropout = json_object_get(model, "dropout");
    if (json_is_number(dropout) && json_number_value(dropout) > 0) {
        return unsupported(file, "the model option", "dropout");
    }
    return MEED_OK;
}

/* Bytes that valid UTF-8 can hold but no token covers: their text is lost, as in the reference. */
static void warn_of_missing_bytes(const struct file *file)
{
    int missing = 0;
    for (int byte = 0; byte < 0xF5; byte++) {
        bool possible = byte != 0xC0 && byte != 0xC1;
        missing += possible && file->tokenizer->bpe.byte_ids[byte] < 0;
    }
    if (missing > 0) {
        MEED_LOG_WARN("engine",
                      "%s has no token for some bytes; text with them is altered "
                      "(missing_bytes=%d)",
                      file->name, missing);
    }
}

static enum meed_status read_model(struct file *file)
{
    json_t *model = json_object_get(file->root, "model");
    MEED_TRY(check_model(file, model));
    json_t *vocab = json_object_get(model, "vocab");
    struct meed_tokenizer_bpe *bpe = &file->tokenizer->bpe;
    MEED_TRY(read_vocab(file, vocab));
    MEED_TRY(read_merges(file, json_object_get(model, "merges")));
    bpe->ignore_merges = true_at(model, "ignore_merges", false);
    bpe->fuse_unknown = true_at(model, "fuse_unk", false);
    const char *unknown = text_of(model, "unk_token");
    json_t *unknown_id = *unknown ? json_object_get(vocab, unknown) : NULL;
    if (unknown_id && !file->tokenizer->special[json_integer_value(unknown_id)]) {
        bpe->unknown = (int32_t)json_integer_value(unknown_id);
    }
    warn_of_missing_bytes(file);
    return MEED_OK;
}

/* --- normaliser and pre-tokenisers ----------------------------------------------------------- */
/* The items of a Sequence, or the one object itself; count 0 for null. */
static size_t sequence_size(const json_t *object, const char *list)
{
    if (!object || json_is_null(object)) {
        return 0;
    }
    bool sequence = strcmp(text_of(object, "type"), "Sequence") == 0;
    return sequence ? json_array_size(json_object_get(object, list)) : 1;
}

static const json_t *sequence_at(const json_t *object, const char *list, size_t index)
{
    bool sequence = strcmp(text_of(object, "type"), "Sequence") == 0;
    return sequence ? json_array_get(json_object_get(object, list), index) : object;
}

static enum meed_status read_normalizer(struct file *file)
{
    const json_t *normalizer = json_object_get(file->root, "normalizer");
    for (size_t i = 0; i < sequence_size(normalizer, "normalizers"); i++) {
        const char *type = text_of(sequence_at(normalizer, "normalizers", i), "type");
        if (strcmp(type, "NFC") != 0) {
            return unsupported(file, "the normalizer", *type ? type : "(no type)");
        }
        file->tokenizer->nfc = true;
    }
    return MEED_OK;
}

static enum meed_status read_split(struct file *file, const json_t *stage)
{
    const char *behavior = text_of(stage, "behavior");
    if (strcmp(behavior, "Isolated") != 0) {
        return unsupported(file, "the Split behavior", *behavior ? behavior : "(none)");
    }
    const json_t *pattern = json_object_get(stage, "pattern");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char *literal = json_string_value(json_object_get(pattern, "String"));
    if ((!regex && !literal) || (literal && !*literal)) {
        return MEED_FAIL(MEED_FORMAT, "%s: a Split pre-tokenizer without pattern", file->name);
    }
    return meed_tokenizer_pretok_add(&file->tokenizer->pretok, file->name, regex ? regex : literal,
                                     !regex, false);
}

static enum meed_status read_stage(struct file *file, const json_t *stage, bool last)
{
    struct meed_tokenizer_pretok *pretok = &file->tokenizer->pretok;
    const char *type = text_of(stage, "type");
    if (strcmp(type, "ByteLevel") == 0 && last) {
        bool regex = true_at(stage, "use_regex", true);
        return meed_tokenizer_pretok_add(pretok, file->name, regex ? gpt2_pattern : NULL, false,
                                         true_at(stage, "add_prefix_space", true));
    }
    if (last) {
        return MEED_FAIL(MEED_UNSUPPORTED,
                         "%s: the pre-tokenizer ends in \"%.64s\"; Meed reads byte-level "
                         "tokenizers, which end in ByteLevel",
                         file->name, *type ? type : "(none)");
    }
    if (strcmp(type, "Split") == 0) {
        return read_split(file, stage);
    }
    if (strcmp(type, "Digits") == 0) {
        bool individual = true_at(stage, "individual_digits", false);
        return meed_tokenizer_pretok_add(pretok, file->name, individual ? "\\p{N}" : "\\p{N}+",
                                         false, false);
    }
    return unsupported(file, "the pre-tokenizer", *type ? type : "(no type)");
}

static enum meed_status read_pretok(struct file *file)
{
    const json_t *pretok = json_object_get(file->root, "pre_tokenizer");
    size_t count = sequence_size(pretok, "pretokenizers");
    if (count == 0) {
        return unsupported(file, "the pre-tokenizer", "null");
    }
    for (size_t i = 0; i < count; i++) {
        MEED_TRY(read_stage(file, sequence_at(pretok, "pretokenizers", i), i + 1 == count));
    }
    return MEED_OK;
}

/* --- added tokens ---------------------------------------------------------------------------- */
/* Published files forget the special flag of control tokens such as <|im_start|>. */
static bool looks_special(const char *content, size_t length)
{
    return length > 4 && strncmp(content, "<|", 2) == 0 &&
           strncmp(content + length - 2, "|>", 2) == 0;
}

static enum meed_status check_added_id(const struct file *file, const char *content, int32_t id)
{
    const json_t *model = json_object_get(file->root, "model");
    const json_t *known = json_object_get(json_object_get(model, "vocab"), content);
    if (known && json_integer_value(known) != id) {
        return MEED_FAIL(MEED_FORMAT,
                         "%s: the added token \"%.64s\" has id %d, but the vocabulary says %d",
                         file->name, content, (int)id, (int)json_integer_value(known));
    }
    return MEED_OK;
}

static enum meed_status read_added_token(struct file *file, const json_t *value)
{
    struct meed_tokenizer *tokenizer = file->tokenizer;
    const char *content = text_of(value, "content");
    int32_t id = 0;
    MEED_TRY(id_of(file, json_object_get(value, "id"), content, &id));
    if (!*content) {
        return MEED_FAIL(MEED_FORMAT, "%s: the added token %d has no content", file->name, (int)id);
    }
    MEED_TRY(check_added_id(file, content, id));
    char *copy;
    size_t length = strlen(content);
    MEED_TRY(meed_arena_strdup(&tokenizer->arena, content, length, &copy));
    if (tokenizer->texts[id].bytes) {
        return MEED_FAIL(MEED_FORMAT, "%s: two added tokens have the id %d", file->name, (int)id);
    }
    bool special = true_at(value, "special", false) || looks_special(content, length);
    bool normalized = true_at(value, "normalized", !special);
    tokenizer->texts[id] = (struct meed_tokenizer_text){copy, (int32_t)length};
    tokenizer->special[id] = special;
    struct meed_buf form;
    meed_buf_init(&form, MEED_TOKENIZER_MAX_FILE_BYTES);
    enum meed_status st = MEED_OK;
    if (normalized && tokenizer->nfc) {
        MEED_TRY_OUT(meed_tokenizer_nfc_append(content, length, &form));
        MEED_TRY_OUT(meed_arena_strdup(&tokenizer->arena, form.data, form.size, &copy));
        length = form.size;
    }
    struct meed_tokenizer_added *set = normalized ? &tokenizer->normalized : &tokenizer->raw;
    set->tokens[set->count++] = (struct meed_tokenizer_added_token){
        .content = copy,
        .length = (int32_t)length,
        .id = id,
        .special = special,
        .lstrip = true_at(value, "lstrip", false),
        .rstrip = true_at(value, "rstrip", false),
        .single_word = true_at(value, "single_word", false),
    };
out:
    meed_buf_clear(&form);
    return st;
}

static enum meed_status read_added(struct file *file)
{
    struct meed_tokenizer *tokenizer = file->tokenizer;
    const json_t *list = json_object_get(file->root, "added_tokens");
    void *block;
    size_t count = json_array_size(list);
    size_t item = sizeof(struct meed_tokenizer_added_token);
    MEED_TRY(meed_arena_alloc_array(&tokenizer->arena, count, item, &block));
    tokenizer->raw.tokens = block;
    MEED_TRY(meed_arena_alloc_array(&tokenizer->arena, count, item, &block));
    tokenizer->normalized.tokens = block;
    for (size_t i = 0; i < count; i++) {
        MEED_TRY(read_added_token(file, json_array_get(list, i)));
    }
    meed_tokenizer_added_seal(&tokenizer->raw);
    meed_tokenizer_added_seal(&tokenizer->normalized);
    return MEED_OK;
}

/* --- the whole ------------------------------------------------------------------------------- */
static enum meed_status reserve(struct file *file)
{
    struct meed_tokenizer *tokenizer = file->tokenizer;
    json_t *model = json_object_get(file->root, "model");
    MEED_TRY(check_model(file, model));
    int32_t ids_end = 0;
    size_t text_bytes = 0;
    void *block;
    MEED_TRY(measure(file, json_object_get(model, "vocab"), &ids_end, &text_bytes));
    MEED_TRY(meed_tokenizer_bpe_init(&tokenizer->bpe, &tokenizer->arena, ids_end,
                                     json_array_size(json_object_get(model, "merges"))));
    tokenizer->vocab_size = ids_end;
    MEED_TRY(meed_arena_alloc_array(&tokenizer->arena, (size_t)ids_end, sizeof *tokenizer->texts,
                                    &block));
    tokenizer->texts = block;
    MEED_TRY(meed_arena_alloc_array(&tokenizer->arena, (size_t)ids_end, 1, &block));
    tokenizer->special = block;
    MEED_TRY(meed_arena_alloc(&tokenizer->arena, text_bytes + 1, &block));
    file->pool = block;
    return MEED_OK;
}

enum meed_status meed_tokenizer_file_parse(const char *name, const char *bytes, size_t size,
                                           struct meed_tokenizer *tokenizer)
{
    json_error_t error;
    struct file file = {.name = name, .tokenizer = tokenizer};
    file.root = json_loadb(bytes, size, JSON_REJECT_DUPLICATES, &error);
    if (!file.root) {
        return MEED_FAIL(MEED_FORMAT, "%s:%d: %s", name, error.line, error.text);
    }
    alphabet_fill(file.alphabet);
    enum meed_status st;
    MEED_TRY_OUT(reserve(&file));
    MEED_TRY_OUT(read_normalizer(&file));
    MEED_TRY_OUT(read_added(&file));
    MEED_TRY_OUT(read_model(&file));
    MEED_TRY_OUT(read_pretok(&file));
out:
    json_decref(file.root);
    return st;
}

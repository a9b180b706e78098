/* See tokenizer.h. The order of things is the reference's (Hugging Face tokenizers): raw added
 * tokens are cut from the text, what lies between is normalised, normalised added tokens are cut
 * from that, the rest is pre-tokenised, and each word goes through the byte-pair model. Text is
 * checked for UTF-8 once, at the door; nothing behind it checks again.
 */
#include "engine/tokenizer.h"

#include <string.h>
#include <sys/stat.h>
#include "base/file.h"
#include "engine/tokenizer_internal.h"
#include "engine/tokenizer_nfc.h"
#include "engine/tokenizer_utf8.h"

enum meed_status meed_tokenizer_open_bytes(const char *name, const void *bytes, size_t size,
                                           struct meed_tokenizer **tokenizer)
{
    struct meed_tokenizer *made = meed_heap_alloc(1, sizeof *made);
    if (!made) {
        return MEED_NOMEM;
    }
    meed_arena_init_growing(&made->arena, "tokenizer", (size_t)1 << 31);
    enum meed_status st = meed_tokenizer_file_parse(name, bytes, size, made);
    if (st != MEED_OK) {
        meed_tokenizer_close(made);
        return st;
    }
    *tokenizer = made;
    return MEED_OK;
}

enum meed_status meed_tokenizer_open(const char *path, struct meed_tokenizer **tokenizer)
{
    char file[MEED_PATH_BYTES];
    struct stat info;
    bool folder = stat(path, &info) == 0 && S_ISDIR(info.st_mode);
    MEED_TRY(
        meed_file_join(folder ? path : "", folder ? "tokenizer.json" : path, file, sizeof file));
    struct meed_buf bytes;
    meed_buf_init(&bytes, MEED_TOKENIZER_MAX_FILE_BYTES);
    enum meed_status st;
    MEED_TRY_OUT(meed_file_read(file, &bytes));
    MEED_TRY_OUT(meed_tokenizer_open_bytes(file, bytes.data, bytes.size, tokenizer));
out:
    meed_buf_clear(&bytes);
    return st;
}

void meed_tokenizer_close(struct meed_tokenizer *tokenizer)
{
    if (tokenizer) {
        meed_tokenizer_pretok_clear(&tokenizer->pretok);
        meed_arena_clear(&tokenizer->arena);
        meed_heap_free(tokenizer);
    }
}

/* --- encoding -------------------------------------------------------------------------------- */
struct encoder {
    const struct meed_tokenizer *tokenizer;
    bool parse_special;
    struct meed_tokenizer_cutter cutter;
    struct meed_tokenizer_scratch scratch;
    struct meed_buf clean;
    struct meed_buf normalized;
    struct meed_buf *ids;
};

static enum meed_status encode_word(void *user, const char *word, size_t size)
{
    struct encoder *encoder = user;
    return meed_tokenizer_bpe_encode(&encoder->tokenizer->bpe, word, size, &encoder->scratch,
                                     encoder->ids);
}

static enum meed_status encode_words(struct encoder *encoder, const char *text, size_t size)
{
    return meed_tokenizer_pretok_run(&encoder->tokenizer->pretok, &encoder->cutter, text, size,
                                     encode_word, encoder);
}

typedef enum meed_status (*piece_fn)(struct encoder *encoder, const char *text, size_t size);

/* Cuts the tokens of one set out of text and hands what lies between them to on_piece. */
static enum meed_status encode_around(struct encoder *encoder,
                                      const struct meed_tokenizer_added *added, const char *text,
                                      size_t size, piece_fn on_piece)
{
    size_t done = 0;
    struct meed_tokenizer_cut cut;
    while (added->count > 0 &&
           meed_tokenizer_added_next(added, text, size, done, done, encoder->parse_special, &cut)) {
        MEED_TRY(on_piece(encoder, text + done, cut.begin - done));
        MEED_TRY(meed_buf_append(encoder->ids, &cut.id, sizeof cut.id));
        done = cut.end;
    }
    return on_piece(encoder, text + done, size - done);
}

static enum meed_status encode_piece(struct encoder *encoder, const char *text, size_t size)
{
    if (size == 0) {
        return MEED_OK;
    }
    if (encoder->tokenizer->nfc) {
        meed_buf_reset(&encoder->normalized);
        MEED_TRY(meed_tokenizer_nfc_append(text, size, &encoder->normalized));
        text = encoder->normalized.data;
        size = encoder->normalized.size;
    }
    return encode_around(encoder, &encoder->tokenizer->normalized, text, size, encode_words);
}

enum meed_status meed_tokenizer_encode(const struct meed_tokenizer *tokenizer, const char *text,
                                       size_t size, bool parse_special, struct meed_buf *ids)
{
    if (size > MEED_TOKENIZER_MAX_TEXT_BYTES) {
        return MEED_FAIL(MEED_LIMIT, "a text of %zu MiB is too long to tokenize; the limit is %d",
                         size >> 20, MEED_TOKENIZER_MAX_TEXT_BYTES >> 20);
    }
    struct encoder encoder = {.tokenizer = tokenizer, .parse_special = parse_special, .ids = ids};
    meed_tokenizer_bpe_scratch_init(&encoder.scratch);
    meed_buf_init(&encoder.clean, 3 * (size_t)MEED_TOKENIZER_MAX_TEXT_BYTES);
    meed_buf_init(&encoder.normalized, 9 * (size_t)MEED_TOKENIZER_MAX_TEXT_BYTES);
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_pretok_cutter_init(&encoder.cutter));
    if (meed_tokenizer_utf8_prefix(text, size) < size) {
        MEED_TRY_OUT(meed_tokenizer_utf8_clean(text, size, &encoder.clean));
        text = encoder.clean.data;
        size = encoder.clean.size;
    }
    MEED_TRY_OUT(encode_around(&encoder, &tokenizer->raw, text, size, encode_piece));
out:
    meed_tokenizer_pretok_cutter_clear(&encoder.cutter);
    meed_tokenizer_bpe_scratch_clear(&encoder.scratch);
    meed_buf_clear(&encoder.clean);
    meed_buf_clear(&encoder.normalized);
    return st;
}

/* --- decoding and questions ------------------------------------------------------------------ */
enum meed_status meed_tokenizer_decode(const struct meed_tokenizer *tokenizer, const int32_t *ids,
                                       size_t count, bool with_special, struct meed_buf *text)
{
    for (size_t i = 0; i < count; i++) {
        if (ids[i] < 0) {
            return MEED_FAIL(MEED_ARG, "token id %d is negative", (int)ids[i]);
        }
        bool known = ids[i] < tokenizer->vocab_size && tokenizer->texts[ids[i]].bytes;
        if (known && tokenizer->special[ids[i]] && !with_special) {
            continue;
        }
        if (known) {
            const struct meed_tokenizer_text *token = &tokenizer->texts[ids[i]];
            MEED_TRY(meed_buf_append(text, token->bytes, (size_t)token->length));
        } else {
            MEED_TRY(meed_buf_append(text, MEED_TOKENIZER_REPLACEMENT,
                                     strlen(MEED_TOKENIZER_REPLACEMENT)));
        }
    }
    return MEED_OK;
}

int32_t meed_tokenizer_find(const struct meed_tokenizer *tokenizer, const char *token)
{
    size_t length = strlen(token);
    const struct meed_tokenizer_added *sets[] = {&tokenizer->raw, &tokenizer->normalized};
    for (size_t set = 0; set < MEED_COUNT(sets); set++) {
        for (int32_t i = 0; i < sets[set]->count; i++) {
            const struct meed_tokenizer_added_token *added = &sets[set]->tokens[i];
            if ((size_t)added->length == length && memcmp(added->content, token, length) == 0) {
                return added->id;
            }
        }
    }
    return length > 0 ? meed_tokenizer_bpe_find(&tokenizer->bpe, token, length) : -1;
}

bool meed_tokenizer_is_special(const struct meed_tokenizer *tokenizer, int32_t id)
{
    return id >= 0 && id < tokenizer->vocab_size && tokenizer->special[id];
}

int32_t meed_tokenizer_vocab_size(const struct meed_tokenizer *tokenizer)
{
    return tokenizer->vocab_size;
}

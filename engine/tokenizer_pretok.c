/* See tokenizer_pretok.h. Patterns are compiled with UTF, UCP and JIT; matching skips PCRE2's UTF-8
 * check, which would read the rest of the text at every word, because the tokenizer has checked
 * once. Where the JIT is missing or its stack ends (32 KiB of the thread's), the interpreter takes
 * the same match.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/tokenizer_pretok.h"

#include <pcre2.h>
#include <string.h>
#include "engine/tokenizer_pattern.h"

enum { PATTERN_MAX_BYTES = 1 << 16 };

static enum meed_status compile(const char *name, const char *pattern, bool literal,
                                struct meed_tokenizer_stage *stage)
{
    struct meed_buf text;
    meed_buf_init(&text, PATTERN_MAX_BYTES);
    enum meed_status st;
    if (literal) {
        MEED_TRY_OUT(meed_buf_append(&text, pattern, strlen(pattern)));
    } else {
        MEED_TRY_OUT(meed_tokenizer_pattern_translate(name, pattern, &text));
    }
    int code = 0;
    PCRE2_SIZE at = 0;
    uint32_t options = PCRE2_UTF | (literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
    pcre2_code *made = pcre2_compile((PCRE2_SPTR)text.data, text.size, options, &code, &at, NULL);
    if (!made) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(code, reason, sizeof reason);
        st = MEED_FAIL(MEED_FORMAT, "%s: the split pattern does not compile at byte %zu: %s", name,
                       (size_t)at, (const char *)reason);
        goto out;
    }
    stage->code = made;
    stage->jit = pcre2_jit_compile(made, PCRE2_JIT_COMPLETE) == 0;
out:
    meed_buf_clear(&text);
    return st;
}

enum meed_status meed_tokenizer_pretok_add(struct meed_tokenizer_pretok *pretok, const char *name,
                                           const char *pattern, bool literal, bool prefix_space)
{
    if (pretok->count == MEED_TOKENIZER_MAX_STAGES) {
        return MEED_FAIL(MEED_LIMIT, "%s: more than %d pre-tokenizers", name,
                         MEED_TOKENIZER_MAX_STAGES);
    }
    struct meed_tokenizer_stage stage = {NULL, false, prefix_space};
    if (pattern) {
        MEED_TRY(compile(name, pattern, literal, &stage));
    }
    pretok->stages[pretok->count++] = stage;
    return MEED_OK;
}

void meed_tokenizer_pretok_clear(struct meed_tokenizer_pretok *pretok)
{
    for (int i = 0; i < pretok->count; i++) {
        pcre2_code_free(pretok->stages[i].code);
    }
    pretok->count = 0;
}

enum meed_status meed_tokenizer_pretok_cutter_init(struct meed_tokenizer_cutter *cutter)
{
    meed_buf_init(&cutter->prefixed, SIZE_MAX / 4);
    cutter->match = pcre2_match_data_create(1, NULL);
    return cutter->match ? MEED_OK : MEED_FAIL(MEED_NOMEM, "no memory for pattern matching");
}

void meed_tokenizer_pretok_cutter_clear(struct meed_tokenizer_cutter *cutter)
{
    pcre2_match_data_free(cutter->match);
    cutter->match = NULL;
    meed_buf_clear(&cutter->prefixed);
}

/* First match at or behind `from`: [begin, end), or begin = size if there is none. */
static enum meed_status next_match(const struct meed_tokenizer_stage *stage, void *match,
                                   const char *piece, size_t size, size_t from, size_t *begin,
                                   size_t *end)
{
    PCRE2_SPTR subject = (PCRE2_SPTR)piece;
    int rc = PCRE2_ERROR_JIT_STACKLIMIT;
    if (stage->jit) {
        rc = pcre2_jit_match(stage->code, subject, size, from, 0, match, NULL);
    }
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT) {
        rc = pcre2_match(stage->code, subject, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match,
                         NULL);
    }
    if (rc == PCRE2_ERROR_NOMATCH) {
        *begin = *end = size;
        return MEED_OK;
    }
    if (rc < 0) {
        PCRE2_UCHAR reason[160];
        pcre2_get_error_message(rc, reason, sizeof reason);
        return MEED_FAIL(rc == PCRE2_ERROR_NOMEMORY ? MEED_NOMEM : MEED_LIMIT,
                         "splitting a text of %zu bytes failed: %s; cut it into shorter texts",
                         size, (const char *)reason);
    }
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(match);
    *begin = range[0];
    *end = range[1];
    return MEED_OK;
}

static size_t character_bytes(const char *at)
{
    uint8_t lead = (uint8_t)*at;
    return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

struct run {
    const struct meed_tokenizer_pretok *pretok;
    struct meed_tokenizer_cutter *cutter;
    meed_tokenizer_word_fn on_word;
    void *user;
};

/* The depth is the number of stages, at most MEED_TOKENIZER_MAX_STAGES. */
static enum meed_status run_stage(const struct run *run, int stage_idx, const char *piece,
                                  size_t size)
{
    if (size == 0) {
        return MEED_OK;
    }
    if (stage_idx == run->pretok->count) {
        return run->on_word(run->user, piece, size);
    }
    const struct meed_tokenizer_stage *stage = &run->pretok->stages[stage_idx];
    if (stage->prefix_space && piece[0] != ' ') {
        struct meed_buf *prefixed = &run->cutter->prefixed;
        meed_buf_reset(prefixed);
        MEED_TRY(meed_buf_append(prefixed, " ", 1));
        MEED_TRY(meed_buf_append(prefixed, piece, size));
        piece = prefixed->data;
        size = prefixed->size;
    }
    if (!stage->code) {
        return run_stage(run, stage_idx + 1, piece, size);
    }
    size_t done = 0; /* everything before was handed over */
    size_t from = 0; /* where to search */
    while (from < size) {
        size_t begin = size;
        size_t end = size;
        MEED_TRY(next_match(stage, run->cutter->match, piece, size, from, &begin, &end));
        MEED_TRY(run_stage(run, stage_idx + 1, piece + done, begin - done));
        MEED_TRY(run_stage(run, stage_idx + 1, piece + begin, end - begin));
        done = end;
        /* An empty match cuts where it stands; the search goes on one character later. */
        from = end > begin || begin == size ? end : end + character_bytes(piece + end);
    }
    return run_stage(run, stage_idx + 1, piece + done, size - done);
}

enum meed_status meed_tokenizer_pretok_run(const struct meed_tokenizer_pretok *pretok,
                                           struct meed_tokenizer_cutter *cutter, const char *piece,
                                           size_t size, meed_tokenizer_word_fn on_word, void *user)
{
    struct run run = {pretok, cutter, on_word, user};
    return run_stage(&run, 0, piece, size);
}

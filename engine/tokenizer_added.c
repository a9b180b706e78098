/* See tokenizer_added.h. "Blank" is Unicode White_Space and "word character" is Alphabetic, marks,
 * decimal digits, connectors and joiners, as in the reference's regular expressions. */
#include "engine/tokenizer_added.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int by_content(const void *left, const void *right)
{
    const struct meed_tokenizer_added_token *x = left;
    const struct meed_tokenizer_added_token *y = right;
    int32_t shorter = x->length < y->length ? x->length : y->length;
    int order = memcmp(x->content, y->content, (size_t)shorter);
    return order ? order : (x->length > y->length) - (x->length < y->length);
}

void meed_tokenizer_added_seal(struct meed_tokenizer_added *added)
{
    if (added->count > 0) {
        qsort(added->tokens, (size_t)added->count, sizeof *added->tokens, by_content);
    }
    memset(added->starts, 0, sizeof added->starts);
    for (int32_t i = 0; i < added->count; i++) {
        added->starts[(uint8_t)added->tokens[i].content[0]] = true;
    }
}

/* The first of [low, high) whose byte at `depth` is ≥ wanted; tokens that end there come first. */
static int32_t narrow(const struct meed_tokenizer_added *added, int32_t low, int32_t high,
                      int32_t depth, int wanted)
{
    while (low < high) {
        int32_t middle = low + (high - low) / 2;
        const struct meed_tokenizer_added_token *token = &added->tokens[middle];
        int byte = token->length > depth ? (uint8_t)token->content[depth] : -1;
        if (byte < wanted) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that text starts with, or NULL. */
static const struct meed_tokenizer_added_token *longest_at(const struct meed_tokenizer_added *added,
                                                           const char *text, size_t size)
{
    const struct meed_tokenizer_added_token *best = NULL;
    int32_t low = 0;
    int32_t high = added->count;
    for (int32_t depth = 0; low < high; depth++) {
        if (added->tokens[low].length == depth) {
            best = &added->tokens[low];
        }
        if ((size_t)depth == size) {
            break;
        }
        int byte = (uint8_t)text[depth];
        low = narrow(added, low, high, depth, byte);
        high = narrow(added, low, high, depth, byte + 1);
    }
    return best;
}

static bool is_blank(utf8proc_int32_t c)
{
    return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
           c == 0x205F || c == 0x3000;
}

static bool is_word(utf8proc_int32_t c)
{
    utf8proc_category_t category = utf8proc_category(c);
    bool letter = category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
    bool mark = category >= UTF8PROC_CATEGORY_MN && category <= UTF8PROC_CATEGORY_ME;
    bool circled = (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
                   (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
    return letter || mark || circled || category == UTF8PROC_CATEGORY_ND ||
           category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_PC || c == 0x200C ||
           c == 0x200D;
}

/* The character that starts at, or ends before, a place; -1 at the edge. */
static utf8proc_int32_t character_at(const char *text, size_t size, size_t at, size_t *length)
{
    utf8proc_int32_t c = -1;
    *length = 0;
    if (at < size) {
        utf8proc_ssize_t got = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                (utf8proc_ssize_t)(size - at), &c);
        *length = got > 0 ? (size_t)got : 1;
    }
    return c;
}

static utf8proc_int32_t character_before(const char *text, size_t at, size_t *length)
{
    size_t begin = at;
    while (begin > 0 && at - begin < 4) {
        begin--;
        if (((uint8_t)text[begin] & 0xC0) != 0x80) {
            break;
        }
    }
    utf8proc_int32_t c = character_at(text, at, begin, length);
    *length = at - begin;
    return c;
}

static bool stands_alone(const char *text, size_t size, size_t begin, size_t end)
{
    size_t length;
    utf8proc_int32_t before = character_before(text, begin, &length);
    utf8proc_int32_t after = character_at(text, size, end, &length);
    return !(begin > 0 && is_word(before)) && !(end < size && is_word(after));
}

static void swallow_blanks(const struct meed_tokenizer_added_token *token, const char *text,
                           size_t size, size_t taken, struct meed_tokenizer_cut *cut)
{
    size_t length;
    while (token->lstrip && cut->begin > taken &&
           is_blank(character_before(text, cut->begin, &length))) {
        cut->begin -= length;
    }
    while (token->rstrip && cut->end < size &&
           is_blank(character_at(text, size, cut->end, &length))) {
        cut->end += length;
    }
}

bool meed_tokenizer_added_next(const struct meed_tokenizer_added *added, const char *text,
                               size_t size, size_t from, size_t taken, bool parse_special,
                               struct meed_tokenizer_cut *cut)
{
    for (size_t at = from; at < size; at++) {
        if (!added->starts[(uint8_t)text[at]]) {
            continue;
        }
        const struct meed_tokenizer_added_token *token = longest_at(added, text + at, size - at);
        if (!token) {
            continue;
        }
        size_t end = at + (size_t)token->length;
        if ((token->special && !parse_special) ||
            (token->single_word && !stands_alone(text, size, at, end))) {
            at = end - 1; /* the reference's search goes on behind a match it discards */
            continue;
        }
        *cut = (struct meed_tokenizer_cut){at, end, token->id};
        swallow_blanks(token, text, size, taken, cut);
        return true;
    }
    return false;
}

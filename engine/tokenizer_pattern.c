/* See tokenizer_pattern.h. One pass, three contexts: outside, inside a character class, behind a
 * backslash. */
#include "engine/tokenizer_pattern.h"

#include <stdbool.h>
#include <string.h>
#include "base/compat.h"

/* White_Space of Unicode, and its complement. */
#define SPACES                                                                                     \
    "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}"             \
    "\\x{202F}\\x{205F}\\x{3000}"
#define NOT_SPACES                                                                                 \
    "\\x{0}-\\x{8}\\x{E}-\\x{1F}\\x{21}-\\x{84}\\x{86}-\\x{9F}\\x{A1}-\\x{167F}"                   \
    "\\x{1681}-\\x{1FFF}\\x{200B}-\\x{2027}\\x{202A}-\\x{202E}\\x{2030}-\\x{205E}"                 \
    "\\x{2060}-\\x{2FFF}\\x{3001}-\\x{D7FF}\\x{E000}-\\x{10FFFF}"
#define WORD_CHARACTERS "\\p{L}\\p{M}\\p{Nd}\\p{Pc}"

struct escape {
    char letter;
    const char *outside;
    const char *inside; /* NULL: refused inside a class */
};
static const struct escape escapes[] = {
    {'s', "[" SPACES "]", SPACES},
    {'S', "[^" SPACES "]", NOT_SPACES},
    {'w', "[" WORD_CHARACTERS "]", WORD_CHARACTERS},
    {'W', "[^" WORD_CHARACTERS "]", NULL},
    {'d', "\\p{Nd}", "\\p{Nd}"},
    {'D', "\\P{Nd}", "\\P{Nd}"},
    {'r', "\\r", "\\r"},
    {'n', "\\n", "\\n"},
    {'t', "\\t", "\\t"},
    {'f', "\\f", "\\f"},
    {'v', "\\x{B}", "\\x{B}"},
    {'a', "\\x{7}", "\\x{7}"},
    {'e', "\\x{1B}", "\\x{1B}"},
};

static const char *const categories[] = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd",
    "Nl", "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm",
    "Sc", "Sk", "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co",
};

static const char *const groups[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};

struct reader {
    const char *name;
    const char *at;
    bool in_class;
    struct meed_buf *out;
};

static enum meed_status refused(const struct reader *reader, const char *what, size_t length)
{
    return MEED_FAIL(MEED_UNSUPPORTED,
                     "%s: the split pattern uses \"%.*s\", whose meaning in PCRE2 is not known to "
                     "agree; use the families named in the README",
                     reader->name, (int)length, what);
}

static enum meed_status copy(struct reader *reader, size_t length)
{
    MEED_TRY(meed_buf_append(reader->out, reader->at, length));
    reader->at += length;
    return MEED_OK;
}

/* \p{Lu}, \P{N}, \x{0A}. */
static enum meed_status braced_escape(struct reader *reader)
{
    const char *open = reader->at + 2;
    const char *close = *open == '{' ? strchr(open, '}') : NULL;
    size_t whole = close ? (size_t)(close - reader->at) + 1 : 2;
    size_t length = close ? (size_t)(close - open) - 1 : 0;
    bool known = false;
    if (reader->at[1] == 'x') {
        known = length > 0 && length <= 6 && strspn(open + 1, "0123456789abcdefABCDEF") == length;
    }
    for (size_t i = 0; reader->at[1] != 'x' && i < MEED_COUNT(categories); i++) {
        known = known ||
                (strlen(categories[i]) == length && strncmp(categories[i], open + 1, length) == 0);
    }
    return known ? copy(reader, whole) : refused(reader, reader->at, MEED_MIN(whole, 40));
}

static enum meed_status escape(struct reader *reader)
{
    char letter = reader->at[1];
    if (letter == 'p' || letter == 'P' || letter == 'x') {
        return braced_escape(reader);
    }
    for (size_t i = 0; i < MEED_COUNT(escapes); i++) {
        const char *text = reader->in_class ? escapes[i].inside : escapes[i].outside;
        if (escapes[i].letter == letter && text) {
            reader->at += 2;
            return meed_buf_append(reader->out, text, strlen(text));
        }
    }
    bool punctuation = strchr("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~ ", letter) && letter;
    return punctuation ? copy(reader, 2) : refused(reader, reader->at, letter ? 2 : 1);
}

static enum meed_status group(struct reader *reader)
{
    if (reader->at[1] != '?') {
        return copy(reader, 1);
    }
    for (size_t i = 0; i < MEED_COUNT(groups); i++) {
        if (strncmp(reader->at, groups[i], strlen(groups[i])) == 0) {
            return copy(reader, strlen(groups[i]));
        }
    }
    return refused(reader, reader->at, MEED_MIN(strlen(reader->at), 4));
}

/* {1,3}: copied; a possessive mark behind it is not one in Oniguruma. */
static enum meed_status interval(struct reader *reader)
{
    size_t length = strspn(reader->at + 1, "0123456789,") + 1;
    bool closed = length > 1 && reader->at[length] == '}' && reader->at[1] != ',';
    if (!closed || reader->at[length + 1] == '+') {
        return refused(reader, reader->at, MEED_MIN(length + 2, strlen(reader->at)));
    }
    return copy(reader, length + 1);
}

static enum meed_status one(struct reader *reader)
{
    char c = *reader->at;
    if (c == '\\') {
        return escape(reader);
    }
    if (reader->in_class) {
        if (c == '[' || (c == '&' && reader->at[1] == '&')) {
            return refused(reader, reader->at, c == '[' ? 1 : 2);
        }
        reader->in_class = c != ']';
        return copy(reader, 1);
    }
    if (c == '[') {
        size_t length = reader->at[1] == '^' ? 2 : 1;
        reader->in_class = true;
        return reader->at[length] == ']' ? refused(reader, reader->at, length + 1)
                                         : copy(reader, length);
    }
    if (c == '(') {
        return group(reader);
    }
    if (c == '{') {
        return interval(reader);
    }
    return copy(reader, 1);
}

enum meed_status meed_tokenizer_pattern_translate(const char *name, const char *pattern,
                                                  struct meed_buf *translated)
{
    struct reader reader = {name, pattern, false, translated};
    while (*reader.at) {
        MEED_TRY(one(&reader));
    }
    return MEED_OK;
}

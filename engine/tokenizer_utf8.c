/* See tokenizer_utf8.h. The second byte of a character has a range of its own for four lead bytes
 * (overlong forms, surrogates, the end of Unicode); all others are 80..BF. */
#include "engine/tokenizer_utf8.h"

#include <stdint.h>
#include <string.h>

/* Length of the well-formed character at text, or 0; *bad is then the length of the maximal
 * ill-formed sequence, and *cut says that only the end of the text made it so. */
static size_t character(const char *text, size_t size, size_t *bad, bool *cut)
{
    uint8_t lead = (uint8_t)text[0];
    size_t length = lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    uint8_t low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    uint8_t high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    *bad = 1;
    *cut = false;
    if (length == 0 || lead > 0xF4) {
        return 0;
    }
    for (size_t i = 1; i < length; i++) {
        *bad = i;
        *cut = i == size;
        if (i == size || (uint8_t)text[i] < low || (uint8_t)text[i] > high) {
            return 0;
        }
        low = 0x80;
        high = 0xBF;
    }
    return length;
}

size_t meed_tokenizer_utf8_prefix(const char *text, size_t size)
{
    size_t at = 0;
    while (at < size) {
        size_t bad;
        bool cut;
        size_t length = (uint8_t)text[at] < 0x80 ? 1 : character(text + at, size - at, &bad, &cut);
        if (length == 0) {
            break;
        }
        at += length;
    }
    return at;
}

size_t meed_tokenizer_utf8_unfinished(const char *text, size_t size)
{
    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t bad;
        bool cut;
        if (character(text + size - back, back, &bad, &cut) == 0 && cut) {
            return back;
        }
    }
    return 0;
}

enum meed_status meed_tokenizer_utf8_clean(const char *text, size_t size, struct meed_buf *clean)
{
    while (size > 0) {
        size_t good = meed_tokenizer_utf8_prefix(text, size);
        MEED_TRY(meed_buf_append(clean, text, good));
        text += good;
        size -= good;
        if (size > 0) {
            size_t bad = 0;
            bool cut;
            (void)character(text, size, &bad, &cut);
            MEED_TRY(meed_buf_append(clean, MEED_TOKENIZER_REPLACEMENT,
                                     strlen(MEED_TOKENIZER_REPLACEMENT)));
            text += bad;
            size -= bad;
        }
    }
    return MEED_OK;
}

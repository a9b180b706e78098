/* See rouge_words.h. One pass over the normalised characters; a word is closed lazily, by the
 * character that does not belong to it. */
#include "engine/rouge_words.h"

#include <stdint.h>
#include <utf8proc.h>
#include "engine/tokenizer_nfc.h"
#include "engine/tokenizer_utf8.h"

struct range {
    utf8proc_int32_t first;
    utf8proc_int32_t last;
};
/* Scripts whose words are not parted by blanks, in order. */
static const struct range unspaced[] = {
    {0x0E00, 0x0EFF},   /* Thai, Lao */
    {0x1000, 0x109F},   /* Myanmar */
    {0x1780, 0x17FF},   /* Khmer */
    {0x3005, 0x3007},   /* Han: repetition mark, closing mark, zero */
    {0x3021, 0x3029},   /* Hangzhou numerals */
    {0x3031, 0x312F},   /* kana, Bopomofo */
    {0x31A0, 0x31BF},   /* Bopomofo extended */
    {0x31F0, 0x31FF},   /* Katakana extended */
    {0x3400, 0x4DBF},   /* Han */
    {0x4E00, 0x9FFF},   /* Han */
    {0xA9E0, 0xA9FF},   /* Myanmar extended */
    {0xAA60, 0xAA7F},   /* Myanmar extended */
    {0xF900, 0xFAFF},   /* Han, compatibility */
    {0xFF66, 0xFF9F},   /* Katakana, halfwidth */
    {0x1AFF0, 0x1B16F}, /* kana supplements */
    {0x20000, 0x3FFFF}, /* Han, supplementary planes */
};

static bool is_unspaced(utf8proc_int32_t point)
{
    size_t low = 0;
    size_t high = MEED_COUNT(unspaced);
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (point > unspaced[middle].last) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < MEED_COUNT(unspaced) && point >= unspaced[low].first;
}

enum role { PARTS, SKIPPED, LETTER, MARK, WORD_OF_ITS_OWN };

static enum role role_of(utf8proc_int32_t point)
{
    switch (utf8proc_category(point)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return is_unspaced(point) ? WORD_OF_ITS_OWN : LETTER;
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
        return MARK;
    case UTF8PROC_CATEGORY_CF:
        return SKIPPED;
    default:
        return PARTS;
    }
}

static enum meed_status split(const char *text, size_t size, struct meed_buf *words)
{
    enum { NONE, RUN, SINGLE } open = NONE; /* the word being written */
    for (size_t at = 0; at < size;) {
        utf8proc_int32_t point = 0;
        utf8proc_uint8_t bytes[4];
        utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                   (utf8proc_ssize_t)(size - at), &point);
        MEED_ASSERT(length > 0); /* cleaned before */
        at += (size_t)length;
        enum role role = role_of(point);
        if (role == SKIPPED) {
            continue;
        }
        bool closes = role == PARTS || role == WORD_OF_ITS_OWN || (role == LETTER && open != RUN);
        if (closes && open != NONE) {
            MEED_TRY(meed_buf_append(words, "", 1));
            open = NONE;
        }
        if (role != PARTS) {
            length = utf8proc_encode_char(utf8proc_tolower(point), bytes);
            MEED_TRY(meed_buf_append(words, bytes, (size_t)length));
            open = role == WORD_OF_ITS_OWN ? SINGLE : open == NONE ? RUN : open;
        }
    }
    return open != NONE ? meed_buf_append(words, "", 1) : MEED_OK;
}

enum meed_status meed_rouge_words_append(const char *text, size_t size, struct meed_buf *words)
{
    struct meed_buf clean;
    struct meed_buf normal;
    meed_buf_init(&clean, SIZE_MAX / 4);
    meed_buf_init(&normal, SIZE_MAX / 4);
    enum meed_status st;
    MEED_TRY_OUT(meed_tokenizer_utf8_clean(text, size, &clean));
    MEED_TRY_OUT(meed_tokenizer_nfc_append(clean.data, clean.size, &normal));
    MEED_TRY_OUT(split(normal.data, normal.size, words));
out:
    meed_buf_clear(&clean);
    meed_buf_clear(&normal);
    return st;
}

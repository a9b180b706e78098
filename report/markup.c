/* See markup.h. */
#include "report/markup.h"

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#define REPLACEMENT "\xEF\xBF\xBD" /* U+FFFD */
#define ELLIPSIS "\xE2\x80\xA6"

void meed_markup_init(struct meed_markup *markup)
{
    meed_buf_init(&markup->text, MEED_MARKUP_MAX_BYTES);
    markup->status = MEED_OK;
    markup->next_id = 0;
}

void meed_markup_clear(struct meed_markup *markup)
{
    meed_buf_clear(&markup->text);
}

static void append(struct meed_markup *markup, const char *bytes, size_t size)
{
    if (markup->status == MEED_OK) {
        markup->status = meed_buf_append(&markup->text, bytes, size);
    }
}

void meed_markup_raw(struct meed_markup *markup, const char *format, ...)
{
    char piece[2048];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(piece, sizeof piece, format, arguments);
    va_end(arguments);
    MEED_ASSERT(length >= 0 && (size_t)length < sizeof piece);
    append(markup, piece, (size_t)length);
}

/* Bytes of the well-formed UTF-8 character at `at` (Unicode 15, table 3-7), 0 if there is none. */
static size_t character_bytes(const char *at)
{
    const uint8_t *b = (const uint8_t *)at;
    if (b[0] < 0x80) {
        return 1;
    }
    size_t bytes = b[0] >= 0xF0 ? 4 : b[0] >= 0xE0 ? 3 : 2;
    uint8_t low = b[0] == 0xE0 ? 0xA0 : b[0] == 0xF0 ? 0x90 : 0x80;
    uint8_t high = b[0] == 0xED ? 0x9F : b[0] == 0xF4 ? 0x8F : 0xBF;
    if (b[0] < 0xC2 || b[0] > 0xF4 || b[1] < low || b[1] > high) {
        return 0;
    }
    for (size_t i = 2; i < bytes; i++) {
        if ((b[i] & 0xC0) != 0x80) { /* the NUL at the end is none either */
            return 0;
        }
    }
    return bytes;
}

static const char *entity(char c)
{
    switch (c) {
    case '&':
        return "&amp;";
    case '<':
        return "&lt;";
    case '>':
        return "&gt;";
    case '"':
        return "&quot;";
    case '\'':
        return "&#39;";
    default:
        return NULL;
    }
}

int meed_markup_length(const char *text)
{
    int length = 0;
    while (*text && length < INT_MAX) {
        size_t bytes = character_bytes(text);
        text += bytes ? bytes : 1;
        length++;
    }
    return length;
}

void meed_markup_text_cut(struct meed_markup *markup, const char *text, int most)
{
    bool cut = meed_markup_length(text) > most;
    for (int i = 0; *text && i < (cut ? most - 1 : most); i++) {
        size_t bytes = character_bytes(text);
        const char *safe = entity(*text);
        bool control = bytes == 0 || (bytes == 1 && ((uint8_t)*text < 0x20 || *text == 0x7F));
        if (safe) {
            append(markup, safe, strlen(safe));
        } else if (control) {
            append(markup, REPLACEMENT, strlen(REPLACEMENT));
        } else {
            append(markup, text, bytes);
        }
        text += bytes ? bytes : 1;
    }
    if (cut) {
        append(markup, ELLIPSIS, strlen(ELLIPSIS));
    }
}

void meed_markup_text(struct meed_markup *markup, const char *text)
{
    meed_markup_text_cut(markup, text, INT_MAX);
}

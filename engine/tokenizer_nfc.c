/* See tokenizer_nfc.h. Decompose every character, sort each run of marks by combining class without
 * changing the order of equals, compose and encode. Runs of a few marks, which is all of real text,
 * are sorted by insertion; long ones by counting the 256 classes. ASCII passes as it is.
 */
#include "engine/tokenizer_nfc.h"

#include <stdint.h>
#include <string.h>
#include <utf8proc.h>

enum { SHORT_RUN = 16, CLASSES = 256, LARGEST_DECOMPOSITION = 18 };
static const utf8proc_option_t form = (utf8proc_option_t)(UTF8PROC_STABLE | UTF8PROC_COMPOSE);

static bool is_ascii(const char *text, size_t size)
{
    uint8_t any = 0;
    for (size_t i = 0; i < size; i++) {
        any |= (uint8_t)text[i];
    }
    return any < 0x80;
}

static uint8_t class_of(utf8proc_int32_t point)
{
    return (uint8_t)utf8proc_get_property(point)->combining_class;
}

static void sort_short(utf8proc_int32_t *points, size_t count)
{
    for (size_t i = 1; i < count; i++) {
        utf8proc_int32_t moved = points[i];
        size_t hole = i;
        for (; hole > 0 && class_of(points[hole - 1]) > class_of(moved); hole--) {
            points[hole] = points[hole - 1];
        }
        points[hole] = moved;
    }
}

static enum meed_status sort_long(utf8proc_int32_t *points, size_t count)
{
    size_t begins[CLASSES + 1] = {0};
    size_t bytes = count * sizeof *points;
    void *block;
    struct meed_buf sorted;
    meed_buf_init(&sorted, bytes);
    MEED_TRY(meed_buf_extend(&sorted, bytes, &block));
    utf8proc_int32_t *target = block;
    for (size_t i = 0; i < count; i++) {
        begins[class_of(points[i]) + 1]++;
    }
    for (int c = 0; c < CLASSES; c++) {
        begins[c + 1] += begins[c];
    }
    for (size_t i = 0; i < count; i++) {
        target[begins[class_of(points[i])]++] = points[i];
    }
    memcpy(points, target, bytes);
    meed_buf_clear(&sorted);
    return MEED_OK;
}

/* Canonical ordering: a run is a stretch of characters of non-zero class. */
static enum meed_status order_marks(utf8proc_int32_t *points, size_t count)
{
    size_t begin = 0;
    for (size_t i = 0; i <= count; i++) {
        if (i < count && class_of(points[i]) != 0) {
            continue;
        }
        size_t length = i - begin;
        if (length > SHORT_RUN) {
            MEED_TRY(sort_long(points + begin, length));
        } else {
            sort_short(points + begin, length);
        }
        begin = i + 1;
    }
    return MEED_OK;
}

static enum meed_status decompose(const char *text, size_t size, struct meed_buf *points)
{
    for (size_t at = 0; at < size;) {
        utf8proc_int32_t point = 0;
        utf8proc_int32_t parts[LARGEST_DECOMPOSITION];
        int boundary = 0;
        utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at,
                                                   (utf8proc_ssize_t)(size - at), &point);
        MEED_ASSERT(length > 0); /* the text was checked at the door */
        at += (size_t)length;
        utf8proc_ssize_t count =
            utf8proc_decompose_char(point, parts, LARGEST_DECOMPOSITION, form, &boundary);
        MEED_ASSERT(count >= 0 && count <= LARGEST_DECOMPOSITION);
        MEED_TRY(meed_buf_append(points, parts, (size_t)count * sizeof *parts));
    }
    return MEED_OK;
}

enum meed_status meed_tokenizer_nfc_append(const char *text, size_t size,
                                           struct meed_buf *normalized)
{
    if (is_ascii(text, size)) {
        return meed_buf_append(normalized, text, size);
    }
    struct meed_buf points;
    meed_buf_init(&points, SIZE_MAX / 4);
    enum meed_status st;
    void *spare;
    MEED_TRY_OUT(decompose(text, size, &points));
    size_t count = points.size / sizeof(utf8proc_int32_t);
    /* Room for the NUL that utf8proc_reencode writes behind its text. */
    MEED_TRY_OUT(meed_buf_extend(&points, sizeof(utf8proc_int32_t), &spare));
    utf8proc_int32_t *first = (utf8proc_int32_t *)(void *)points.data;
    MEED_TRY_OUT(order_marks(first, count));
    utf8proc_ssize_t bytes = utf8proc_reencode(first, (utf8proc_ssize_t)count, form);
    if (bytes < 0) {
        st = MEED_FAIL(MEED_FORMAT, "normalising a text of %zu bytes failed: %s", size,
                       utf8proc_errmsg(bytes));
        goto out;
    }
    MEED_TRY_OUT(meed_buf_append(normalized, points.data, (size_t)bytes));
out:
    meed_buf_clear(&points);
    return st;
}

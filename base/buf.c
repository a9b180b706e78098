/* See buf.h. */
#include "base/buf.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void meed_buf_init(struct meed_buf *buf, size_t max_size)
{
    *buf = (struct meed_buf){.max_size = max_size};
}

enum meed_status meed_buf_extend(struct meed_buf *buf, size_t size, void **bytes)
{
    if (size > buf->max_size || buf->size > buf->max_size - size) {
        return MEED_FAIL(MEED_LIMIT, "a buffer would pass its limit of %zu bytes", buf->max_size);
    }
    size_t wanted = buf->size + size + 1;
    if (wanted > buf->capacity) {
        size_t capacity = buf->capacity * 2 > wanted ? buf->capacity * 2 : wanted + 64;
        char *grown = realloc(buf->data, capacity);
        if (!grown) {
            return MEED_FAIL(MEED_NOMEM, "a buffer cannot grow to %zu bytes", capacity);
        }
        buf->data = grown;
        buf->capacity = capacity;
    }
    *bytes = buf->data + buf->size;
    buf->size += size;
    buf->data[buf->size] = '\0';
    return MEED_OK;
}

enum meed_status meed_buf_append(struct meed_buf *buf, const void *bytes, size_t size)
{
    void *target = NULL;
    MEED_TRY(meed_buf_extend(buf, size, &target));
    if (size > 0) {
        memcpy(target, bytes, size);
    }
    return MEED_OK;
}

enum meed_status meed_buf_printf(struct meed_buf *buf, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    va_end(args);
    void *target = NULL;
    enum meed_status st = meed_buf_extend(buf, (size_t)length, &target);
    if (st == MEED_OK) {
        vsnprintf(target, (size_t)length + 1, format, again);
    }
    va_end(again);
    return st;
}

void meed_buf_reset(struct meed_buf *buf)
{
    buf->size = 0;
    if (buf->data) {
        buf->data[0] = '\0';
    }
}

void meed_buf_clear(struct meed_buf *buf)
{
    free(buf->data);
    *buf = (struct meed_buf){.max_size = buf->max_size};
}

void *meed_heap_alloc(size_t count, size_t item_bytes)
{
    void *block = calloc(count ? count : 1, item_bytes ? item_bytes : 1);
    if (!block) {
        meed_status_discard(
            MEED_FAIL(MEED_NOMEM, "no memory for %zu items of %zu bytes", count, item_bytes));
    }
    return block;
}

void meed_heap_free(void *block)
{
    free(block);
}

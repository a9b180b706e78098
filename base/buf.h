/* A growable byte buffer with a maximum.
 *
 * Every buffer that grows with input is one of these, and none can be made without saying how far
 * it may grow (curl's dynbuf rule): a stranger's length field ends in LIMIT, not in the OOM killer.
 * A failing append leaves the content as it was. The content is always followed by a NUL byte that
 * does not count, so text can be handed to C functions.
 */
#ifndef MEED_BASE_BUF_H
#define MEED_BASE_BUF_H

#include <stddef.h>
#include <stdint.h>
#include "base/status.h"

MEED_BEGIN_C

struct meed_buf {
    char *data; /* never NULL after a successful append */
    size_t size;
    size_t capacity;
    size_t max_size;
};

void meed_buf_init(struct meed_buf *buf, size_t max_size);
MEED_MUST_CHECK enum meed_status meed_buf_append(struct meed_buf *buf, const void *bytes,
                                                 size_t size);
MEED_MUST_CHECK enum meed_status meed_buf_printf(struct meed_buf *buf, const char *format, ...)
    MEED_PRINTF(2, 3);
/* Grows by size uninitialised bytes and points at them. */
MEED_MUST_CHECK enum meed_status meed_buf_extend(struct meed_buf *buf, size_t size, void **bytes);
/* Empties without giving memory back. */
void meed_buf_reset(struct meed_buf *buf);
/* Frees; accepts a zeroed struct; keeps max_size. */
void meed_buf_clear(struct meed_buf *buf);

/* Plain heap blocks for owners that are neither arenas nor buffers (opaque objects). Zeroed;
 * NULL and a message on failure. Free with meed_heap_free. */
void *meed_heap_alloc(size_t count, size_t item_bytes);
void meed_heap_free(void *block);

MEED_END_C
#endif

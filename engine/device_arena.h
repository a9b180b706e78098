/* Device memory by the rule of base/arena.h: measured by the code that uses it, then reserved once.
 *
 * A network writes its layout as one function that asks for every block; run in measure mode it
 * only counts, run after reserve it receives addresses inside a single block of the backend. There
 * is no way to ask for more later, so a step cannot allocate. Blocks are 64-byte aligned and
 * zeroed.
 */
#ifndef MEED_ENGINE_DEVICE_ARENA_H
#define MEED_ENGINE_DEVICE_ARENA_H

#include "kernels/backend.h"

MEED_BEGIN_C

struct meed_device_arena {
    const struct meed_backend *be;
    char *base; /* NULL while measuring */
    size_t used;
    size_t capacity;
};

void meed_device_arena_init(struct meed_device_arena *arena, const struct meed_backend *be);
/* After a measuring pass: one block of exactly that size, and a rewind. DEVICE_NOMEM. */
MEED_MUST_CHECK enum meed_status meed_device_arena_reserve(struct meed_device_arena *arena);
/* count items of item_bytes; NULL while measuring and for nothing. Sizes that overflow are a bug of
 * the caller, who has checked its dimensions. */
void *meed_device_arena_take(struct meed_device_arena *arena, int64_t count, size_t item_bytes);
/* A matrix of its own, stride = cols. */
struct meed_mat meed_device_arena_mat(struct meed_device_arena *arena, int64_t rows, int64_t cols,
                                      enum meed_dtype dtype);
/* Frees the block; accepts a zeroed struct. */
void meed_device_arena_clear(struct meed_device_arena *arena);

MEED_END_C
#endif

/* See device_arena.h. */
#include "engine/device_arena.h"

enum { ALIGN_BYTES = 64 };

void meed_device_arena_init(struct meed_device_arena *arena, const struct meed_backend *be)
{
    *arena = (struct meed_device_arena){.be = be};
}

enum meed_status meed_device_arena_reserve(struct meed_device_arena *arena)
{
    void *block = NULL;
    MEED_ASSERT(!arena->base);
    if (arena->used > 0) {
        MEED_TRY(arena->be->alloc(arena->be, arena->used, &block));
    }
    arena->base = block;
    arena->capacity = arena->used;
    arena->used = 0;
    return MEED_OK;
}

void *meed_device_arena_take(struct meed_device_arena *arena, int64_t count, size_t item_bytes)
{
    size_t bytes = 0;
    MEED_ASSERT(count >= 0 && !__builtin_mul_overflow((size_t)count, item_bytes, &bytes));
    size_t begin = arena->used;
    arena->used += (bytes + ALIGN_BYTES - 1) / ALIGN_BYTES * ALIGN_BYTES;
    if (!arena->base || bytes == 0) {
        return NULL;
    }
    MEED_ASSERT(arena->used <= arena->capacity); /* the measuring pass was another one */
    return arena->base + begin;
}

struct meed_mat meed_device_arena_mat(struct meed_device_arena *arena, int64_t rows, int64_t cols,
                                      enum meed_dtype dtype)
{
    void *data = meed_device_arena_take(arena, rows * cols, meed_dtype_bytes(dtype));
    return meed_mat_view(data, rows, cols, cols, dtype);
}

void meed_device_arena_clear(struct meed_device_arena *arena)
{
    if (arena->base) {
        arena->be->free(arena->be, arena->base);
    }
    *arena = (struct meed_device_arena){.be = arena->be};
}

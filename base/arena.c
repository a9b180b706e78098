/* See arena.h. malloc and free of the whole tree live here, in buf.c and in the backends. */
#include "base/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

enum { CHUNK_BYTES = 256 << 10 };

struct meed_arena_chunk {
    struct meed_arena_chunk *next;
    size_t used;
    size_t capacity;
    char *bytes;
};

void meed_arena_init(struct meed_arena *arena, const char *name)
{
    *arena = (struct meed_arena){.name = name, .mode = MEED_ARENA_MEASURE};
}

void meed_arena_init_growing(struct meed_arena *arena, const char *name, size_t limit_bytes)
{
    *arena = (struct meed_arena){.name = name, .mode = MEED_ARENA_GROWING, .capacity = limit_bytes};
}

static size_t rounded(size_t bytes)
{
    return (bytes + MEED_ARENA_ALIGN - 1) & ~(size_t)(MEED_ARENA_ALIGN - 1);
}

enum meed_status meed_arena_reserve(struct meed_arena *arena)
{
    MEED_ASSERT(arena->mode == MEED_ARENA_MEASURE);
    arena->capacity = arena->used;
    arena->base = NULL;
    if (arena->capacity > 0) {
        arena->base = aligned_alloc(MEED_ARENA_ALIGN, arena->capacity);
        if (!arena->base) {
            return MEED_FAIL(MEED_NOMEM,
                             "the %s arena needs %zu MiB; free memory or use a smaller "
                             "batch",
                             arena->name, arena->capacity >> 20);
        }
        memset(arena->base, 0, arena->capacity);
        ASAN_POISON_MEMORY_REGION(arena->base, arena->capacity);
    }
    arena->used = 0;
    arena->mode = MEED_ARENA_FIXED;
    return MEED_OK;
}

static enum meed_status chunk_add(struct meed_arena *arena, size_t bytes)
{
    size_t capacity = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
    struct meed_arena_chunk *chunk = malloc(sizeof *chunk);
    char *memory = aligned_alloc(MEED_ARENA_ALIGN, capacity);
    if (!chunk || !memory) {
        free(chunk);
        free(memory);
        return MEED_FAIL(MEED_NOMEM, "the %s arena cannot grow by %zu bytes", arena->name,
                         capacity);
    }
    *chunk = (struct meed_arena_chunk){arena->chunks, 0, capacity, memory};
    arena->chunks = chunk;
    return MEED_OK;
}

enum meed_status meed_arena_alloc(struct meed_arena *arena, size_t bytes, void **block)
{
    MEED_ASSERT(!arena->sealed);
    if (bytes > SIZE_MAX / 2) {
        return MEED_FAIL(MEED_LIMIT, "the %s arena was asked for an impossible size", arena->name);
    }
    size_t needed = rounded(bytes);
    if (arena->mode == MEED_ARENA_MEASURE || bytes == 0) {
        arena->used += needed;
        *block = NULL;
        return MEED_OK;
    }
    if (arena->mode == MEED_ARENA_FIXED) {
        MEED_ASSERT(needed <=
                    arena->capacity - arena->used); /* the measuring pass was another one */
        *block = arena->base + arena->used;
        ASAN_UNPOISON_MEMORY_REGION(*block, bytes);
        arena->used += needed;
        return MEED_OK;
    }
    if (needed > arena->capacity || arena->used > arena->capacity - needed) {
        return MEED_FAIL(MEED_LIMIT, "the %s arena would pass its limit of %zu bytes", arena->name,
                         arena->capacity);
    }
    if (!arena->chunks || arena->chunks->capacity - arena->chunks->used < needed) {
        MEED_TRY(chunk_add(arena, needed));
    }
    *block = arena->chunks->bytes + arena->chunks->used;
    memset(*block, 0, bytes);
    arena->chunks->used += needed;
    arena->used += needed;
    return MEED_OK;
}

enum meed_status meed_arena_alloc_array(struct meed_arena *arena, size_t count, size_t item_bytes,
                                        void **block)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, item_bytes, &bytes)) {
        return MEED_FAIL(MEED_LIMIT, "the %s arena was asked for an impossible size", arena->name);
    }
    return meed_arena_alloc(arena, bytes, block);
}

enum meed_status meed_arena_strdup(struct meed_arena *arena, const char *text, size_t length,
                                   char **copy)
{
    void *block = NULL;
    MEED_TRY(meed_arena_alloc(arena, length + 1, &block));
    if (block) {
        memcpy(block, text, length);
        ((char *)block)[length] = '\0';
    }
    *copy = block;
    return MEED_OK;
}

void meed_arena_seal(struct meed_arena *arena)
{
    arena->sealed = true;
}

static void chunks_free(struct meed_arena *arena)
{
    while (arena->chunks) {
        struct meed_arena_chunk *chunk = arena->chunks;
        arena->chunks = chunk->next;
        free(chunk->bytes);
        free(chunk);
    }
}

void meed_arena_reset(struct meed_arena *arena)
{
    arena->sealed = false;
    if (arena->mode == MEED_ARENA_FIXED && arena->base) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->capacity);
        memset(arena->base, 0, arena->used);
        ASAN_POISON_MEMORY_REGION(arena->base, arena->capacity);
    }
    chunks_free(arena);
    arena->used = 0;
}

void meed_arena_clear(struct meed_arena *arena)
{
    if (arena->base) {
        ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->capacity);
        free(arena->base);
    }
    chunks_free(arena);
    *arena = (struct meed_arena){.name = arena->name};
}

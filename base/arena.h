/* Arenas: memory by lifetime, measured first, then reserved.
 *
 * Meed has few lifetimes (process, job, round, step, message) and one arena for each. A subsystem
 * writes its layout once, as a function that asks an arena for every block it needs. Run against an
 * arena in *measure* mode the function only adds up sizes (blocks come back as NULL and must not be
 * touched); run against a reserved arena it receives memory. The two passes cannot disagree, since
 * they are the same code. A sealed arena refuses further requests as a bug: nothing is allocated
 * inside a training step or a round's inner loop.
 *
 * A *growing* arena takes chunks from the heap up to a limit: for messages and parsed files, whose
 * size is known only at the end. Blocks are 64-byte aligned and zeroed. Freed as a whole.
 */
#ifndef MEED_BASE_ARENA_H
#define MEED_BASE_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include "base/status.h"

MEED_BEGIN_C

enum meed_arena_mode { MEED_ARENA_MEASURE, MEED_ARENA_FIXED, MEED_ARENA_GROWING };

struct meed_arena_chunk;

struct meed_arena {
    const char *name; /* names the lifetime in error messages; static storage */
    enum meed_arena_mode mode;
    bool sealed;
    size_t used;                     /* bytes handed out, alignment included */
    size_t capacity;                 /* FIXED: reserved; GROWING: the limit */
    char *base;                      /* FIXED */
    struct meed_arena_chunk *chunks; /* GROWING, newest first */
};

enum { MEED_ARENA_ALIGN = 64 };

/* Starts in measure mode: nothing is allocated, `used` counts. */
void meed_arena_init(struct meed_arena *arena, const char *name);
/* After a measuring pass: reserves exactly `used` bytes, zeroed, and rewinds. Fails with NOMEM. */
MEED_MUST_CHECK enum meed_status meed_arena_reserve(struct meed_arena *arena);
/* A growing arena that fails with LIMIT beyond limit_bytes. */
void meed_arena_init_growing(struct meed_arena *arena, const char *name, size_t limit_bytes);
/* A block of `bytes` zeroed bytes, NULL in measure mode and for 0 bytes. */
MEED_MUST_CHECK enum meed_status meed_arena_alloc(struct meed_arena *arena, size_t bytes,
                                                  void **block);
/* The same for count items of item_bytes each, overflow checked. */
MEED_MUST_CHECK enum meed_status meed_arena_alloc_array(struct meed_arena *arena, size_t count,
                                                        size_t item_bytes, void **block);
/* A NUL-terminated copy of length bytes of text (growing arenas). */
MEED_MUST_CHECK enum meed_status meed_arena_strdup(struct meed_arena *arena, const char *text,
                                                   size_t length, char **copy);
/* From now on a request is a bug. */
void meed_arena_seal(struct meed_arena *arena);
/* Rewinds: every block is invalid, memory of a FIXED arena is kept (and poisoned under ASan). */
void meed_arena_reset(struct meed_arena *arena);
/* Frees everything; accepts a zeroed struct. */
void meed_arena_clear(struct meed_arena *arena);

MEED_END_C
#endif

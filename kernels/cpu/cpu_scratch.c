/* See cpu_scratch.h. A thread's blocks hang on a pthread key whose destructor frees them: a plain
 * thread-local pointer would leak when a pool is destroyed. */
#include "kernels/cpu/cpu_scratch.h"

#include <pthread.h>
#include <stdlib.h>
#include "base/buf.h"
#include "base/status.h"

struct blocks {
    void *block[MEED_SCRATCH_SLOTS];
    size_t bytes[MEED_SCRATCH_SLOTS];
};

static pthread_key_t blocks_key;
static pthread_once_t blocks_once = PTHREAD_ONCE_INIT;
static MEED_THREAD_LOCAL struct blocks *blocks_here;

static void blocks_free(void *user)
{
    struct blocks *blocks = user;
    for (int i = 0; i < MEED_SCRATCH_SLOTS; i++) {
        free(blocks->block[i]);
    }
    meed_heap_free(blocks);
}

static void blocks_key_create(void)
{
    MEED_ASSERT(pthread_key_create(&blocks_key, blocks_free) == 0);
}

void *meed_cpu_scratch_get(enum meed_scratch_slot slot, size_t bytes)
{
    if (!blocks_here) {
        pthread_once(&blocks_once, blocks_key_create);
        blocks_here = meed_heap_alloc(1, sizeof *blocks_here);
        MEED_ASSERT(blocks_here && pthread_setspecific(blocks_key, blocks_here) == 0);
    }
    bytes = MEED_MAX(bytes, 1); /* never NULL, not even for an empty shape */
    if (blocks_here->bytes[slot] < bytes) {
        free(blocks_here->block[slot]);
        size_t rounded = (bytes + bytes / 4 + 4095) / 4096 * 4096;
        blocks_here->block[slot] = aligned_alloc(64, rounded);
        MEED_ASSERT(blocks_here->block[slot]);
        blocks_here->bytes[slot] = rounded;
    }
    return blocks_here->block[slot];
}

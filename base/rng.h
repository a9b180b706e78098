/* Random numbers by counter, not by state (Salmon et al. 2011, Philox 4x32-10).
 *
 * A draw is a pure function of (seed, stream, index): shuffles, dropout masks, initial adapters and
 * bootstraps can be recomputed anywhere, in any order, on any number of threads or on a GPU, and a
 * resumed run draws what the undisturbed one would have drawn. Streams are named, so that adding a
 * consumer never shifts the numbers of another. Not for keys or nonces.
 */
#ifndef MEED_BASE_RNG_H
#define MEED_BASE_RNG_H

#include <stdint.h>
#include "base/compat.h"

MEED_BEGIN_C

struct meed_rng {
    uint64_t key;   /* seed and stream name, mixed */
    uint64_t index; /* next counter */
};

/* The stream `name`, sub-stream `sub` (a round, a step, a client index) of `seed`. */
struct meed_rng meed_rng_stream(uint64_t seed, const char *name, uint64_t sub);
/* Four words of the block at `index`: the whole generator. */
void meed_rng_block(uint64_t key, uint64_t index, uint32_t out[4]);

uint64_t meed_rng_u64(struct meed_rng *rng);
/* Uniform in [0, bound), without bias; bound > 0. */
uint64_t meed_rng_below(struct meed_rng *rng, uint64_t bound);
/* Uniform in [0, 1), 53 bits. */
double meed_rng_unit(struct meed_rng *rng);
/* Standard normal (Box–Muller, one of the pair). */
double meed_rng_normal(struct meed_rng *rng);
/* Fisher–Yates over count indices. */
void meed_rng_shuffle(struct meed_rng *rng, int64_t *values, int64_t count);

MEED_END_C
#endif

/* A random tiny model on disk, random adapters and a random benchmark: what the tests of valuation
 * need of a federation, made from a seed in milliseconds. Failures abort the test. */
#ifndef MEED_SUPPORT_RANDOM_COHORT_H
#define MEED_SUPPORT_RANDOM_COHORT_H

#include "engine/adapter.h"
#include "engine/checkpoint.h"
#include "evaluation/benchmark.h"
#include "kernels/backend.h"

struct random_cohort {
    char folder[64];
    struct meed_checkpoint *checkpoint;
    struct meed_pool *pool;
    struct meed_backend *be;
};

/* Llama, 2 layers, hidden 40, 4 heads of 8 over 2 key/value heads, ffn 56, 61 tokens, 64 positions.
 */
void random_cohort_open(struct random_cohort *cohort, int threads);
void random_cohort_close(struct random_cohort *cohort);
/* Another backend on the same checkpoint. */
void random_cohort_threads(struct random_cohort *cohort, int threads);
/* Rank 3, all projections; both factors normal with deviation `size`. */
struct meed_adapter *random_cohort_adapter(const struct random_cohort *cohort, uint64_t seed,
                                           float size);

/* Two categories of `dialogues`/2, a paid likelihood axis and a contrast guard on each; sequences
 * of 5 to 20 tokens. The struct's arena owns its tables. */
void random_cohort_benchmark(int32_t dialogues, uint64_t seed, struct meed_benchmark *benchmark);

#endif

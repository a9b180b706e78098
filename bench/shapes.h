/* Models and data of known shape, random content: what the train and coalition suites run on. */
#ifndef MEED_BENCH_SHAPES_H
#define MEED_BENCH_SHAPES_H

#include "engine/adapter.h"
#include "engine/batch.h"
#include "engine/checkpoint.h"

/* Writes (once) and opens a Llama checkpoint of random bf16 weights under build/bench/<name>. */
MEED_MUST_CHECK enum meed_status meed_bench_checkpoint(const char *name,
                                                       const struct meed_model_config *config,
                                                       struct meed_checkpoint **checkpoint);
/* The embedded model's shape, SmolLM2-135M's, Qwen2.5-0.5B's (without its biases), Llama-3.2-1B's,
 * Llama-3-8B's. */
struct meed_model_config meed_bench_tiny(void);
struct meed_model_config meed_bench_smollm(void);
struct meed_model_config meed_bench_qwen(void);
struct meed_model_config meed_bench_llama_1b(void);
struct meed_model_config meed_bench_llama_8b(void);
/* count sequences of `length` random tokens, every token but the first scored. */
MEED_MUST_CHECK enum meed_status meed_bench_sequences(int32_t vocab, int32_t length, int32_t count,
                                                      struct meed_arena *arena,
                                                      struct meed_sequence **sequences);
/* Scale 2, all projections; factors random and small, B not zero. */
MEED_MUST_CHECK enum meed_status meed_bench_adapter(const struct meed_model_config *config,
                                                    int32_t rank, uint64_t seed,
                                                    struct meed_adapter **adapter);
/* Weights of all linears and of the head. */
double meed_bench_weights(const struct meed_model_config *config);

#endif

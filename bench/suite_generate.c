/* Tokens a second of batched greedy decoding, against the memory roofline.
 *
 * A decoding step reads every weight and the whole cache once whatever the batch, so its floor is
 * (weights + cache) / copy rate for as many tokens as there are slots. 32 prompts of 32 tokens, 64
 * new tokens each, bf16, one adapter of rank 8. First, the reply to one prompt alone must be the
 * one it gets in the batch.
 */
#include <stdio.h>
#include <string.h>
#include "base/clock.h"
#include "bench/harness.h"
#include "bench/shapes.h"
#include "engine/generate.h"

enum { PROMPTS = 32, PROMPT_LENGTH = 32, NEW_TOKENS = 64 };

struct run {
    struct meed_net *net;
    struct meed_sequence *sequences;
    struct meed_prompt prompts[PROMPTS];
    struct meed_reply replies[PROMPTS];
};

static enum meed_status generate(struct run *run, int32_t count, double *seconds)
{
    struct meed_generate_options options = meed_generate_defaults();
    struct meed_arena arena;
    options.max_new_tokens = NEW_TOKENS;
    options.slots = PROMPTS;
    meed_arena_init_growing(&arena, "bench replies", 16 << 20);
    int64_t start = meed_clock_monotonic_ns();
    enum meed_status st =
        meed_generate(run->net, run->prompts, count, &options, &arena, run->replies, NULL, NULL);
    *seconds = meed_clock_seconds_since(start);
    if (st == MEED_OK && count == 1) {
        memcpy(run->sequences[0].ids, run->replies[0].ids, NEW_TOKENS * sizeof(int32_t));
    } else if (st == MEED_OK && memcmp(run->sequences[0].ids, run->replies[0].ids,
                                       NEW_TOKENS * sizeof(int32_t)) != 0) {
        st = MEED_FAIL(MEED_NUMERIC, "a prompt's reply is another one in a batch");
    }
    meed_arena_clear(&arena);
    return st;
}

/* Bytes of one step: bf16 weights, and the cache of every slot at its mean length. */
static double step_bytes(const struct meed_model_config *config)
{
    double weights = (double)config->vocab * config->hidden;
    for (int proj = 0; proj < MEED_PROJ_COUNT; proj++) {
        weights += (double)config->layers *
                   (double)meed_proj_outputs(config, (enum meed_proj)proj) *
                   (double)meed_proj_inputs(config, (enum meed_proj)proj);
    }
    double cached = 2.0 * config->layers * config->kv_heads * (double)config->head_dim * PROMPTS *
                    (PROMPT_LENGTH + NEW_TOKENS / 2);
    return 2 * (weights + cached);
}

static enum meed_status measure(const struct meed_bench_machine *machine, const char *name,
                                const struct meed_model_config *config)
{
    struct meed_checkpoint *checkpoint = NULL;
    struct meed_adapter *adapter = NULL;
    struct meed_arena arena;
    struct run run = {.net = NULL};
    double seconds = 0, best = 0;
    char row[96];
    enum meed_status st = MEED_OK;
    meed_arena_init_growing(&arena, "bench prompts", 16 << 20);
    MEED_TRY_OUT(meed_bench_checkpoint(name, config, &checkpoint));
    MEED_TRY_OUT(meed_bench_adapter(config, 1, &adapter));
    const struct meed_adapter *stack[] = {adapter};
    struct meed_net_options options = {.dtype = MEED_DTYPE_BF16,
                                       .max_rows = 128,
                                       .max_sequences = PROMPTS,
                                       .adapters = stack,
                                       .adapter_count = 1};
    MEED_TRY_OUT(meed_net_create(machine->be, checkpoint, &options, &run.net));
    /* One sequence more, of the reply's length, keeps what the first prompt says alone. */
    MEED_TRY_OUT(
        meed_bench_sequences(config->vocab, NEW_TOKENS, 1 + PROMPTS, &arena, &run.sequences));
    for (int i = 0; i < PROMPTS; i++) {
        run.prompts[i] = (struct meed_prompt){run.sequences[i + 1].ids, PROMPT_LENGTH, 0};
    }
    MEED_TRY_OUT(generate(&run, 1, &seconds));
    for (int turn = 0; turn < 3; turn++) {
        MEED_TRY_OUT(generate(&run, PROMPTS, &seconds));
        double rate = (double)PROMPTS * NEW_TOKENS / seconds;
        best = rate > best ? rate : best;
    }
    snprintf(row, sizeof row, "%s bf16, 32 prompts", name);
    meed_bench_row("generate", row, best, "tokens/s", 0, '>');
    snprintf(row, sizeof row, "%s bf16, of the memory roofline", name);
    meed_bench_row("generate", row, 100 * best / PROMPTS * step_bytes(config) / machine->copy_bytes,
                   "%", machine->be->host_memory ? 0 : 60, '>');
out:
    meed_net_destroy(run.net);
    meed_adapter_destroy(adapter);
    meed_checkpoint_close(checkpoint);
    meed_arena_clear(&arena);
    return st;
}

enum meed_status meed_suite_generate(struct meed_bench_machine *machine)
{
    struct meed_model_config tiny = meed_bench_tiny(), smollm = meed_bench_smollm();
    meed_bench_heading("generate", "32 prompts of 32 tokens, 64 new tokens each, greedy");
    MEED_TRY(meed_bench_machine_probe(machine, "generate"));
    MEED_TRY(measure(machine, "tiny", &tiny));
    MEED_TRY(measure(machine, "smollm2-135m", &smollm));
    if (!machine->be->host_memory) {
        struct meed_model_config llama = meed_bench_llama_1b();
        MEED_TRY(measure(machine, "llama-3.2-1b", &llama));
    }
    return MEED_OK;
}
